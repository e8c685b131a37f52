/* SPDX-License-Identifier: MIT */
/* The library's own buffers: registered, checked, and quarantined by GYRE_OP_LEAVE. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#define LEN	4096

static struct gyre_buffer *get(struct gyre *rt, size_t len)
{
	struct gyre_buffer *buffer = NULL;

	expect_status(gyre_buffer_get(rt, len, &buffer), GYRE_OK);
	expect(buffer);
	expect(gyre_buffer_data(buffer));
	return buffer;
}

struct fixed {
	int fd;
	void *addr;
	unsigned len;
	uint64_t offset;
	int index;
};

static void prep_read_fixed(struct io_uring_sqe *sqe, void *arg)
{
	const struct fixed *fixed = arg;

	io_uring_prep_read_fixed(sqe, fixed->fd, fixed->addr, fixed->len, fixed->offset,
				 fixed->index);
}

static void prep_write_fixed(struct io_uring_sqe *sqe, void *arg)
{
	const struct fixed *fixed = arg;

	io_uring_prep_write_fixed(sqe, fixed->fd, fixed->addr, fixed->len, fixed->offset,
				  fixed->index);
}

/* ------------------------------------------------------- having them -- */

TEST(buffer_is_page_aligned_large_enough_and_writable)
{
	static const size_t lens[] = { 1, 4095, 4096, 4097, 100000, 4 << 20 };
	struct gyre *rt = test_open_workers(2);
	unsigned i;

	for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		struct gyre_buffer *buffer = get(rt, lens[i]);

		test_row("%zu bytes", lens[i]);
		expect_eq((uintptr_t)gyre_buffer_data(buffer) %
				  (unsigned long)sysconf(_SC_PAGESIZE),
			  0);
		memset(gyre_buffer_data(buffer), 0x5a, lens[i]);
		gyre_buffer_put(buffer);
	}
	gyre_free(rt);
}

TEST(buffers_held_at_the_same_time_do_not_overlap)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *buffers[40];
	unsigned i;

	for (i = 0; i < 40; i++) {
		buffers[i] = get(rt, LEN);
		memset(gyre_buffer_data(buffers[i]), (int)i, LEN);
	}
	for (i = 0; i < 40; i++) {
		expect_eq(*(unsigned char *)gyre_buffer_data(buffers[i]), i);
		expect_eq(((unsigned char *)gyre_buffer_data(buffers[i]))[LEN - 1], i);
		gyre_buffer_put(buffers[i]);
	}
	gyre_free(rt);
}

TEST(more_buffers_than_can_be_registered_work_without_an_index)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *buffers[300];
	int fd = test_file(100);
	unsigned i, without = 0;

	for (i = 0; i < 300; i++) {
		buffers[i] = get(rt, LEN);
		without += gyre_buffer_index(buffers[i]) < 0;
	}
	expect_gt(without, 0);
	expect_lt(without, 300);
	for (i = 0; i < 300; i++) {
		expect_eq(gyre_pread(rt, fd, gyre_buffer_data(buffers[i]), 100, 0), 100);
		expect_bytes(gyre_buffer_data(buffers[i]), 100, 0);
		gyre_buffer_put(buffers[i]);
	}
	close(fd);
	gyre_free(rt);
}

TEST(null_buffer_is_harmless)
{
	expect(!gyre_buffer_data(NULL));
	expect_eq(gyre_buffer_index(NULL), -1);
	gyre_buffer_put(NULL);
}

TEST(absurd_lengths_are_refused)
{
	static const size_t lens[] = { 0, SIZE_MAX, SIZE_MAX - 4095, SIZE_MAX / 2,
				       ((size_t)1 << 40) };
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *const untouched = (struct gyre_buffer *)(uintptr_t)0x1234;
	struct gyre_buffer *buffer = untouched;
	enum gyre_status status;
	unsigned i;

	for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		test_row("%zu bytes", lens[i]);
		status = gyre_buffer_get(rt, lens[i], &buffer);
		expect(status == GYRE_INVALID || (lens[i] && status == GYRE_NO_MEMORY));
		expect(buffer == untouched);
		expect_contains(gyre_last_error(), "gyre_buffer_get");
	}
	expect_status(gyre_buffer_get(rt, LEN, NULL), GYRE_INVALID);
	gyre_free(rt);
}

TEST(with_zero_arenas_nobody_sees_what_the_one_before_wrote)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.flags = GYRE_ZERO_ARENAS };
	struct gyre *rt = test_open(&options);
	unsigned round, i;

	for (round = 0; round < 20; round++) {
		struct gyre_buffer *buffer = get(rt, LEN);
		const unsigned char *data = gyre_buffer_data(buffer);

		for (i = 0; i < LEN; i++)
			expect_eq(data[i], 0);
		memset(gyre_buffer_data(buffer), 0xa5, LEN);
		gyre_buffer_put(buffer);
	}
	gyre_free(rt);
}

static void get_and_put(void *arg, unsigned number)
{
	uint64_t random = test_seed() + number;
	struct gyre *rt = arg;
	unsigned i, j;

	for (i = 0; i < test_times(200); i++) {
		size_t len = 1 + test_random_below(&random, 20000);
		struct gyre_buffer *buffer = get(rt, len);
		unsigned char *data = gyre_buffer_data(buffer);

		memset(data, (int)number, len);
		for (j = 0; j < len; j += 512)
			expect_eq(data[j], number);
		gyre_buffer_put(buffer);
	}
}

TEST(eight_threads_get_and_put_without_ever_sharing)
{
	struct gyre *rt = test_open_workers(2);

	test_crew_run(8, get_and_put, rt);
	gyre_free(rt);
}

TEST(buffer_may_be_put_after_close)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *buffer = get(rt, LEN), *none;

	expect_status(gyre_close(rt), GYRE_OK);
	expect_status(gyre_buffer_get(rt, LEN, &none), GYRE_CLOSED);
	memset(gyre_buffer_data(buffer), 1, LEN);
	gyre_buffer_put(buffer);
	gyre_free(rt);
}

/* ---------------------------------------------------------- registered -- */

TEST(fixed_read_and_write_with_the_buffers_own_index_work_on_every_worker)
{
	struct gyre *rt = test_open_workers(3);
	struct gyre_buffer *buffer = get(rt, LEN);
	int fd = test_file(LEN), out = test_file(0);
	unsigned worker;
	struct fixed fixed;
	struct gyre_op op;

	fixed = (struct fixed){ fd, gyre_buffer_data(buffer), LEN, 0, gyre_buffer_index(buffer) };
	expect_ge(fixed.index, 0);
	for (worker = 0; worker < 3; worker++) {
		memset(gyre_buffer_data(buffer), 0, LEN);
		fixed.fd = fd;
		op = test_op(prep_read_fixed, &fixed);
		op.worker = GYRE_WORKER(worker);
		expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
		expect_op(&op, GYRE_OK, LEN, GYRE_EFFECT_DONE);
		expect_bytes(gyre_buffer_data(buffer), LEN, 0);
		fixed.fd = out;
		op = test_op(prep_write_fixed, &fixed);
		op.worker = GYRE_WORKER(worker);
		expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
		expect_op(&op, GYRE_OK, LEN, GYRE_EFFECT_DONE);
	}
	gyre_buffer_put(buffer);
	close(fd);
	close(out);
	gyre_free(rt);
}

static void expect_refused(struct gyre *rt, gyre_prep_fn *prep, void *arg, uint32_t flags)
{
	struct gyre_op op = test_op(prep, arg);

	op.flags = flags;
	op.timeout_ns = flags ? 1000000 : 0;
	expect_status(gyre_callv(rt, &op, 1), GYRE_INVALID);
	expect_op(&op, GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
}

TEST(fixed_read_with_another_index_or_foreign_memory_is_refused)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *mine = get(rt, LEN), *other = get(rt, LEN);
	int fd = test_file(LEN), index = gyre_buffer_index(mine);
	char *data = gyre_buffer_data(mine);
	static char foreign[LEN];
	const struct fixed refused[] = {
		{ fd, data, LEN, 0, gyre_buffer_index(other) },
		{ fd, gyre_buffer_data(other), LEN, 0, index },
		{ fd, data, LEN, 0, 200 },
		{ fd, data, LEN, 0, 65535 },
		{ fd, foreign, LEN, 0, index },
		{ fd, data - 1, 2, 0, index },
		{ fd, data + LEN - 1, 2, 0, index },
		{ fd, data, LEN + 1, 0, index },
		{ fd, NULL, LEN, 0, index },
		{ fd, data, UINT32_MAX, 0, index },
	};
	unsigned i;

	for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		test_row("read %u", i);
		expect_refused(rt, prep_read_fixed, (void *)(uintptr_t)&refused[i], 0);
		test_row("write %u", i);
		expect_refused(rt, prep_write_fixed, (void *)(uintptr_t)&refused[i], 0);
	}
	gyre_buffer_put(mine);
	gyre_buffer_put(other);
	close(fd);
	gyre_free(rt);
}

TEST(fixed_read_into_a_buffer_that_was_put_is_refused)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *buffer = get(rt, LEN);
	int fd = test_file(LEN);
	struct fixed stale = { fd, gyre_buffer_data(buffer), LEN, 0, gyre_buffer_index(buffer) };

	gyre_buffer_put(buffer);
	expect_refused(rt, prep_read_fixed, &stale, 0);
	close(fd);
	gyre_free(rt);
}

TEST(buffer_of_one_runtime_is_none_of_another)
{
	struct gyre *rt = test_open_workers(1), *other = test_open_workers(1);
	struct gyre_buffer *buffer = get(rt, LEN);
	int fd = test_file(LEN);
	struct fixed fixed = { fd, gyre_buffer_data(buffer), LEN, 0, gyre_buffer_index(buffer) };

	expect_refused(other, prep_read_fixed, &fixed, 0);
	gyre_buffer_put(buffer);
	close(fd);
	gyre_free(other);
	gyre_free(rt);
}

TEST(buffer_works_unregistered_where_registering_fails)
{
	struct gyre_buffer *buffer;
	int fd = test_file(LEN);
	struct gyre *rt;
	unsigned n;

	for (n = 0; n < 6; n++) {
		struct gyre_op op;
		struct test_io io;

		test_row("registration %u fails", n);
		gyre__fault_install();
		rt = test_open_workers(2);
		gyre__fault_set(GYRE__FAULT_uring_register, n, 1, -ENOMEM);
		buffer = get(rt, LEN);
		if (gyre__fault_hits(GYRE__FAULT_uring_register) > 0)
			expect_eq(gyre_buffer_index(buffer), -1);
		io = (struct test_io){ fd, gyre_buffer_data(buffer), LEN, 0 };
		op = test_op(prep_read, &io);
		op.timeout_ns = 1000000000;
		op.flags = GYRE_OP_LEAVE;	/* known to the rings all the same */
		expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
		expect_bytes(gyre_buffer_data(buffer), LEN, 0);
		gyre_buffer_put(buffer);
		gyre_free(rt);
		gyre__fault_remove();
	}
	close(fd);
}

static void get_with_little_memlock(void *arg)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *buffer;

	(void)arg;
	buffer = get(rt, 16 << 20);
	expect_eq(gyre_buffer_index(buffer), -1);
	memset(gyre_buffer_data(buffer), 1, 16 << 20);
	gyre_buffer_put(buffer);
	gyre_free(rt);
}

TEST(buffer_past_the_memlock_budget_works_unregistered)
{
	struct rlimit limit;

	expect_eq(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
	if (limit.rlim_cur > 12 << 20 || limit.rlim_cur < 1 << 20)
		test_skip("RLIMIT_MEMLOCK is neither near 8 MiB here nor can be set to it");
	test_in_child_as_nobody(get_with_little_memlock, NULL);
}

TEST(get_that_fails_leaves_nothing_behind)
{
	static const enum gyre__fault_call calls[] = { GYRE__FAULT_alloc, GYRE__FAULT_mmap,
						       GYRE__FAULT_madvise };
	struct gyre_buffer *const untouched = (struct gyre_buffer *)(uintptr_t)0x1234;
	unsigned c, n;

	for (c = 0; c < 3; c++)
		for (n = 0; n < 8; n++) {
			struct gyre_buffer *buffer = untouched;
			enum gyre_status status;
			struct gyre *rt;

			test_row("%s %u fails", gyre__fault_name(calls[c]), n);
			gyre__fault_install();
			rt = test_open_workers(2);
			expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
			gyre__fault_set(calls[c], n, 1, -ENOMEM);
			status = gyre_buffer_get(rt, LEN, &buffer);
			if (status == GYRE_OK) {
				gyre_buffer_put(buffer);
			} else {
				expect_status(status, GYRE_NO_MEMORY);
				expect(buffer == untouched);
			}
			gyre_free(rt);
			gyre__fault_remove();
		}
}

/* ----------------------------------------------------------- quarantine -- */

/* A read of a silent pipe into a buffer, which the worker then cannot cancel. */
struct stuck {
	struct gyre *rt;
	struct test_pipe pipe;
	struct gyre_buffer *buffer;
	struct test_io io;
	struct gyre_op op;
	pthread_t caller;
};

static void *call_stuck(void *arg)
{
	struct stuck *stuck = arg;

	gyre_callv(stuck->rt, &stuck->op, 1);
	return NULL;
}

/* The enter that submits the read is the last that the kernel takes. */
static void prep_stuck(struct io_uring_sqe *sqe, void *arg)
{
	prep_read(sqe, arg);
	gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 1, GYRE__FAULT_FOREVER, -EAGAIN);
}

/*
 * The kernel takes no submission while the time-out fires, so the cancel is
 * not sent and the read goes on holding the buffer. The caller goes.
 */
static void stuck_open(struct stuck *stuck)
{
	gyre__fault_install();
	stuck->rt = test_open_workers(1);
	stuck->pipe = test_pipe();
	stuck->buffer = get(stuck->rt, LEN);
	memset(gyre_buffer_data(stuck->buffer), 0xee, LEN);
	stuck->io = (struct test_io){ stuck->pipe.r, gyre_buffer_data(stuck->buffer), LEN,
				      TEST_IO_HERE };
	stuck->op = test_op(prep_stuck, &stuck->io);
	stuck->op.flags = GYRE_OP_LEAVE;
	stuck->op.timeout_ns = 20000000;
	expect_eq(pthread_create(&stuck->caller, NULL, call_stuck, stuck), 0);
	pthread_join(stuck->caller, NULL);
	expect_op(&stuck->op, GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_UNKNOWN);
}

static void stuck_close(struct stuck *stuck)
{
	test_pipe_close(&stuck->pipe);
	gyre_free(stuck->rt);
	gyre__fault_remove();
}

/* Whether the memory is among those that are given out, when four are asked for. */
static bool is_given_out(struct gyre *rt, const void *memory)
{
	struct gyre_buffer *buffers[4];
	bool found = false;
	unsigned i;

	for (i = 0; i < 4; i++) {
		buffers[i] = get(rt, LEN);
		found |= gyre_buffer_data(buffers[i]) == memory;
	}
	for (i = 0; i < 4; i++)
		gyre_buffer_put(buffers[i]);
	return found;
}

TEST(leaving_op_replies_at_its_time_out_and_its_buffer_is_not_given_out_before_the_kernel_lets_go)
{
	struct stuck stuck;
	const void *memory;
	unsigned i;

	stuck_open(&stuck);
	memory = gyre_buffer_data(stuck.buffer);
	gyre_buffer_put(stuck.buffer);
	for (i = 0; i < 5; i++)
		expect(!is_given_out(stuck.rt, memory));
	gyre__fault_clear();
	await(is_given_out(stuck.rt, memory));
	expect_eq(test_stat(stuck.rt, inflight), 0);
	stuck_close(&stuck);
}

TEST(buffer_in_quarantine_at_close_is_no_leak)
{
	struct stuck stuck;

	stuck_open(&stuck);
	gyre_buffer_put(stuck.buffer);
	gyre__fault_clear();
	stuck_close(&stuck);
}

TEST(leaving_op_at_the_death_of_its_worker_gives_its_buffer_back)
{
	struct stuck stuck;

	stuck_open(&stuck);
	gyre_buffer_put(stuck.buffer);
	gyre__fault_clear();
	gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	await(test_stat(stuck.rt, workers_dead) == 1);
	stuck_close(&stuck);
}

TEST(leaving_op_that_is_done_in_time_is_like_any_other)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *buffer = get(rt, LEN);
	int fd = test_file(LEN);
	struct test_io io = { fd, gyre_buffer_data(buffer), LEN, 0 };
	struct gyre_op op = test_op(prep_read, &io);

	op.flags = GYRE_OP_LEAVE;
	op.timeout_ns = UINT64_C(1000000000) * 60;
	expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
	expect_op(&op, GYRE_OK, LEN, GYRE_EFFECT_DONE);
	expect_bytes(gyre_buffer_data(buffer), LEN, 0);
	op.timeout_ns = 0;
	expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
	gyre_buffer_put(buffer);
	close(fd);
	gyre_free(rt);
}

/* Another way into the pipe, by which nobody waits. */
static int look_into(const struct test_pipe *pipe)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", pipe->r);
	fd = open(path, O_RDONLY | O_NONBLOCK);
	expect_ge(fd, 0);
	return fd;
}

/* Not quite at the edge: what it left may still be written to, and nobody else's is. */
TEST(many_leaving_ops_in_a_row_never_touch_a_buffer_of_another)
{
	struct gyre *rt = test_open_workers(2);
	struct test_pipe pipe = test_pipe();
	int look = look_into(&pipe);
	unsigned i, j;

	for (i = 0; i < test_times(300); i++) {
		struct gyre_buffer *left = get(rt, LEN), *mine;
		struct test_io io = { pipe.r, gyre_buffer_data(left), LEN, TEST_IO_HERE };
		struct gyre_op op = test_op(prep_read, &io);
		unsigned char *data;

		op.flags = GYRE_OP_LEAVE;
		op.timeout_ns = 20000;
		gyre_callv(rt, &op, 1);
		gyre_buffer_put(left);
		mine = get(rt, LEN);
		data = gyre_buffer_data(mine);
		memset(data, 0x77, LEN);
		expect_eq(write(pipe.w, "noise", 5), 5);
		for (j = 0; j < LEN; j++)
			expect_eq(data[j], 0x77);
		gyre_buffer_put(mine);
		/* The read that was left may have it, or may just be taking it. */
		if (read(look, (char[64]){ 0 }, 64) < 0)
			expect_eq(errno, EAGAIN);
	}
	close(look);
	test_pipe_close(&pipe);
	gyre_free(rt);
}

static void prep_readv(struct io_uring_sqe *sqe, void *arg)
{
	static struct iovec iov;
	const struct test_io *io = arg;

	iov = (struct iovec){ io->buf, io->len };
	io_uring_prep_readv(sqe, io->fd, &iov, 1, io->offset);
}

TEST(leaving_without_a_buffer_is_refused)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *buffer = get(rt, LEN);
	struct test_pipe pipe = test_pipe();
	static char foreign[LEN];
	char *data = gyre_buffer_data(buffer);
	struct test_io io[] = {
		{ pipe.r, foreign, LEN, TEST_IO_HERE },
		{ pipe.r, data + 1, LEN, TEST_IO_HERE },
		{ pipe.r, data - 1, 2, TEST_IO_HERE },
		{ pipe.r, NULL, 1, TEST_IO_HERE },
	};
	struct test_io good = { pipe.r, data, LEN, TEST_IO_HERE };
	unsigned i;

	for (i = 0; i < sizeof(io) / sizeof(io[0]); i++) {
		test_row("memory %u", i);
		expect_refused(rt, prep_read, &io[i], GYRE_OP_LEAVE);
	}
	test_row("no memory at all");
	expect_refused(rt, prep_nop, NULL, GYRE_OP_LEAVE);
	test_row("a vector");
	expect_refused(rt, prep_readv, &good, GYRE_OP_LEAVE);
	gyre_buffer_put(buffer);
	test_pipe_close(&pipe);
	gyre_free(rt);
}

TEST(leaving_with_a_buffer_that_was_put_is_refused)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_buffer *buffer = get(rt, LEN), *again, *third;
	struct test_pipe pipe = test_pipe();
	struct test_io io = { pipe.r, gyre_buffer_data(buffer), LEN, TEST_IO_HERE };

	gyre_buffer_put(buffer);
	expect_refused(rt, prep_read, &io, GYRE_OP_LEAVE);
	/* and it is idle once, not twice */
	again = get(rt, LEN);
	third = get(rt, LEN);
	expect(gyre_buffer_data(again) != gyre_buffer_data(third));
	gyre_buffer_put(again);
	gyre_buffer_put(third);
	test_pipe_close(&pipe);
	gyre_free(rt);
}

TEST_MAIN()
