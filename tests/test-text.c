/* SPDX-License-Identifier: MIT */
/* Text that grows, and is written however little the descriptor takes at a time. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "lib/text.h"
#include "ring/sys.h"

/* The table as it was, and a copy of it in which tests replace an entry. */
static const struct gyre__sys *honest;
static struct gyre__sys bent;

static void bend(void)
{
	honest = gyre__sys;
	bent = *honest;
	gyre__sys = &bent;
}

static void straighten(void)
{
	gyre__sys = honest;
}

static char written[1 << 16];
static size_t written_len;
static unsigned writes;

static ssize_t write_three_bytes(int fd, const void *buf, size_t len)
{
	(void)fd;
	writes++;
	if (len > 3)
		len = 3;
	memcpy(written + written_len, buf, len);
	written_len += len;
	return (ssize_t)len;
}

static ssize_t write_interrupted(int fd, const void *buf, size_t len)
{
	if (writes++ % 2 == 0)
		return -EINTR;
	return write_three_bytes(fd, buf, len);
}

static ssize_t write_nothing(int fd, const void *buf, size_t len)
{
	(void)fd;
	(void)buf;
	(void)len;
	writes++;
	return 0;
}

static ssize_t write_until_full(int fd, const void *buf, size_t len)
{
	if (written_len >= 6)
		return -ENOSPC;
	return write_three_bytes(fd, buf, len);
}

static void *alloc_fails(size_t size, size_t align)
{
	(void)size;
	(void)align;
	return NULL;
}

TEST(text_starts_empty_and_is_written_as_nothing)
{
	struct gyre__text text = { 0 };
	bool begun;

	expect_eq(gyre__text_write(&text, -1, &begun), 0);
	gyre__text_done(&text);
}

TEST(added_text_is_joined_and_terminated)
{
	struct gyre__text text = { 0 };

	gyre__text_add(&text, "%s-%d", "one", 2);
	gyre__text_add(&text, "%s", "");
	gyre__text_add(&text, ";%c", '3');
	expect_str(text.data, "one-2;3");
	expect_eq(text.len, 7);
	gyre__text_done(&text);
	expect_eq(text.len, 0);
	expect(!text.data);
}

/* Each length around the sizes at which the buffer grows. */
TEST(text_grows_through_every_length)
{
	struct gyre__text text = { 0 };
	size_t len = 0, i;

	for (i = 0; i < 200; i++) {
		gyre__text_add(&text, "%*s", (int)i, "");
		len += i;
		expect_eq(text.len, len);
		expect_eq(strlen(text.data), len);
	}
	gyre__text_add(&text, "%*s", 100000, "x");
	expect_eq(text.len, len + 100000);
	expect(text.data[text.len - 1] == 'x');
	expect(!text.failed);
	gyre__text_done(&text);
}

TEST(text_that_fills_its_room_to_the_last_byte_grows)
{
	struct gyre__text text = { 0 };
	size_t size;

	gyre__text_add(&text, "x");
	size = text.size;
	gyre__text_add(&text, "%*s", (int)(size - 2), "");
	expect_eq(text.len, size - 1);
	expect_eq(text.size, size);
	gyre__text_add(&text, "y");
	expect_eq(text.len, size);
	expect_gt(text.size, size);
	expect(text.data[text.len] == '\0');
	gyre__text_done(&text);
}

TEST(out_of_memory_is_remembered_and_writes_nothing)
{
	struct gyre__text text = { 0 };
	bool begun;

	bend();
	bent.write = write_three_bytes;
	gyre__text_add(&text, "before ");
	bent.alloc = alloc_fails;
	gyre__text_add(&text, "%*s", 100000, "");
	expect(text.failed);
	bent.alloc = honest->alloc;
	gyre__text_add(&text, "after");
	expect_str(text.data, "before ");
	expect_eq(gyre__text_write(&text, 1, &begun), -ENOMEM);
	expect(!begun);
	expect_eq(writes, 0);
	straighten();
	gyre__text_done(&text);
	expect(!text.failed);
}

/* A text that only says that it is that long: it must be refused before it is looked at. */
TEST(text_longer_than_its_limit_fails_cleanly)
{
	struct gyre__text text = { NULL, GYRE__TEXT_MAX - 5, GYRE__TEXT_MAX - 4, 0 };

	gyre__text_add(&text, "%s", "01234");
	expect(text.failed);
	expect_eq(text.len, GYRE__TEXT_MAX - 5);
	gyre__text_done(&text);
}

static void expect_written_as(ssize_t (*fn)(int fd, const void *buf, size_t len), int rc,
			      const char *want)
{
	struct gyre__text text = { 0 };
	bool begun;

	bend();
	gyre__text_add(&text, "0123456789");
	bent.write = fn;
	expect_eq(gyre__text_write(&text, 1, &begun), rc);
	straighten();
	expect_eq(begun, want[0] != 0);
	expect_eq(written_len, strlen(want));
	expect(memcmp(written, want, written_len) == 0);
	gyre__text_done(&text);
}

TEST(short_writes_are_continued)
{
	expect_written_as(write_three_bytes, 0, "0123456789");
	expect_eq(writes, 4);
}

TEST(interrupted_writes_are_repeated)
{
	expect_written_as(write_interrupted, 0, "0123456789");
}

TEST(write_that_fails_half_way_says_how)
{
	expect_written_as(write_until_full, -ENOSPC, "012345");
}

TEST(write_that_takes_nothing_ends)
{
	expect_written_as(write_nothing, -EIO, "");
	expect_eq(writes, 1);
}

TEST(write_to_a_bad_descriptor_is_ebadf)
{
	struct gyre__text text = { 0 };
	bool begun;

	gyre__text_add(&text, "x");
	expect_eq(gyre__text_write(&text, -1, &begun), -EBADF);
	expect(!begun);
	expect_eq(gyre__text_write(&text, 1 << 20, &begun), -EBADF);
	expect(!begun);
	gyre__text_done(&text);
}

TEST(write_to_a_pipe_without_reader_is_epipe_and_no_signal)
{
	struct gyre__text text = { 0 };
	bool begun;
	int fds[2];

	expect_eq(pipe(fds), 0);
	close(fds[0]);
	gyre__text_add(&text, "x");
	expect_eq(gyre__text_write(&text, fds[1], &begun), -EPIPE);
	expect(!begun);
	gyre__text_done(&text);
	close(fds[1]);
}

static void *read_all(void *arg)
{
	int fd = *(int *)arg;
	char buf[777];
	size_t total = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		total += (size_t)n;
	return (void *)total;
}

TEST(full_pipe_that_does_not_block_is_waited_for)
{
	struct gyre__text text = { 0 };
	bool begun;
	pthread_t thread;
	void *total;
	int fds[2];

	expect_eq(pipe2(fds, O_NONBLOCK), 0);
	expect_eq(fcntl(fds[0], F_SETFL, 0), 0);
	expect_eq(pthread_create(&thread, NULL, read_all, &fds[0]), 0);
	gyre__text_add(&text, "%*s", 1 << 20, "");
	expect_eq(gyre__text_write(&text, fds[1], &begun), 0);
	close(fds[1]);
	pthread_join(thread, &total);
	close(fds[0]);
	expect_eq((size_t)total, 1 << 20);
	gyre__text_done(&text);
}

TEST_MAIN()
