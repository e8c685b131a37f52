/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "text.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "ring/sys.h"
#include "thread.h"

#define TEXT_FIRST_SIZE 1024u

/* Makes room for more bytes and a NUL: at least doubles, for linear cost. */
static int text_grow(struct gyre__text *text, size_t more)
{
	size_t size = text->size ? text->size : TEXT_FIRST_SIZE;
	char *data;

	if (more >= GYRE__TEXT_MAX - text->len)
		return -ENOMEM;
	while (size <= text->len + more)
		size *= 2;
	data = gyre__zalloc(size);
	if (!data)
		return -ENOMEM;
	if (text->len)
		memcpy(data, text->data, text->len);
	gyre__free(text->data);
	text->data = data;
	text->size = size;
	return 0;
}

void gyre__text_add(struct gyre__text *text, const char *format, ...)
{
	va_list args;
	int len;

	if (text->failed)
		return;
	va_start(args, format);
	len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (len < 0 ||
	    ((size_t)len >= text->size - text->len && text_grow(text, (size_t)len) < 0)) {
		text->failed = 1;
		return;
	}
	va_start(args, format);
	vsnprintf(text->data + text->len, text->size - text->len, format, args);
	va_end(args);
	text->len += (size_t)len;
}

void gyre__text_done(struct gyre__text *text)
{
	gyre__free(text->data);
	memset(text, 0, sizeof(*text));
}

static int text_wait_for_room(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };
	int rc;

	/* Whatever is wrong with fd, the next write says it better. */
	rc = gyre__sys->poll(&poll_fd, 1, GYRE__NEVER);
	return rc < 0 && rc != -EINTR ? rc : 0;
}

int gyre__text_write(const struct gyre__text *text, int fd, bool *ret_begun)
{
	size_t done = 0;
	ssize_t n;
	int rc;

	*ret_begun = false;
	if (text->failed)
		return -ENOMEM;
	while (done < text->len) {
		n = gyre__sys->write(fd, text->data + done, text->len - done);
		if (n == -EAGAIN) {
			rc = text_wait_for_room(fd);
			if (rc < 0)
				return rc;
		} else if (n == 0) {
			return -EIO;
		} else if (n > 0) {
			done += (size_t)n;
			*ret_begun = true;
		} else if (n != -EINTR) {
			return (int)n;
		}
	}
	return 0;
}

enum gyre_status gyre__text_send(const struct gyre__text *text, int fd, const char *function)
{
	enum gyre_status status;
	bool begun;
	int rc;

	if (text->failed)
		return gyre__fail(function, GYRE_NO_MEMORY, "no memory for the text");
	rc = gyre__text_write(text, fd, &begun);
	if (rc == 0)
		return gyre__succeed();
	status = gyre__fail_effect(function, GYRE_SYSTEM,
				   begun ? GYRE_EFFECT_UNKNOWN : GYRE_EFFECT_NONE,
				   "cannot write to descriptor %d: %s, %s", fd,
				   strerrorname_np(-rc), strerrordesc_np(-rc));
	errno = -rc;
	return status;
}
