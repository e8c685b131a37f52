/* SPDX-License-Identifier: MIT */
/*
 * Text that is put together in memory and then written to a descriptor. Zero
 * is an empty one. One thread at a time.
 */
#ifndef GYRE_LIB_TEXT_H
#define GYRE_LIB_TEXT_H

#include <gyre.h>
#include <stdbool.h>
#include <stddef.h>

/* The longest text; past it the text has failed as if memory had run out. */
#define GYRE__TEXT_MAX ((size_t)256 << 20)

struct gyre__text {
	char *data;		/* NUL-terminated, or NULL while empty */
	size_t len, size;
	int failed;		/* out of memory; nothing is added any more */
};

/* Adds to the end, all of it or nothing. A failure is remembered, not told. */
void gyre__text_add(struct gyre__text *text, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

/* Frees the text, which is then empty and can be used again. */
void gyre__text_done(struct gyre__text *text);

/*
 * Writes the whole text, however often that takes, and waits for room on
 * descriptors that do not block. 0 or a negative errno, *ret_begun telling
 * whether some of it is out; -ENOMEM when text has failed, and nothing is.
 */
int gyre__text_write(const struct gyre__text *text, int fd, bool *ret_begun);

/*
 * The same, as the end of the public function of that name: GYRE_OK, or
 * GYRE_NO_MEMORY, or GYRE_SYSTEM with errno, noted as the thread's last: with
 * GYRE_EFFECT_UNKNOWN where some of it is out.
 */
enum gyre_status gyre__text_send(const struct gyre__text *text, int fd, const char *function);

#endif
