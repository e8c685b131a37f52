/* SPDX-License-Identifier: MIT */
/*
 * GYRE_OP_LEAVE on an op that the kernel cannot cancel: cancels reach the ring
 * as NOPs. The caller goes at the time-out, whatever else was asked before it;
 * the buffer stays until the kernel has let go.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "helpers.h"
#include "lib/runtime.h"
#include "ring/sys_fault.h"

#define LEN	4096
#define MS	UINT64_C(1000000)

static struct stuck {
	struct gyre *rt;
	struct gyre__ring *ring;
	struct test_pipe pipe;
	struct gyre_buffer *buffer;
	struct test_io io;
	unsigned sqe_flags;
	struct gyre_op op;
	pthread_t caller;
	atomic_uint swallowed;
	atomic_bool closed;
} stuck;

/* On the worker's own thread: what is filled and not yet submitted is still its own. */
static int swallow_cancels(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	struct io_uring_sq *sq = &stuck.ring->uring.sq;
	unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);

	(void)call;
	(void)site;
	(void)arg;
	if (fd != stuck.ring->uring.ring_fd)
		return 0;
	for (; head != stuck.ring->sq_tail; head++) {
		struct io_uring_sqe *sqe = &sq->sqes[head & sq->ring_mask];
		uint64_t user_data = sqe->user_data;
		const struct gyre__op *target;

		if (sqe->opcode != IORING_OP_ASYNC_CANCEL)
			continue;
		target = gyre__op_find(&stuck.ring->table, sqe->addr);
		/* The wake-up's end is none of ours. */
		if (!target || target->fd != stuck.io.fd)
			continue;
		io_uring_prep_nop(sqe);
		sqe->user_data = user_data;
		atomic_fetch_add(&stuck.swallowed, 1);
	}
	return 0;
}

static void prep_stuck(struct io_uring_sqe *sqe, void *arg)
{
	prep_read(sqe, arg);
	sqe->flags |= (uint8_t)stuck.sqe_flags;
}

static void *call_stuck(void *arg)
{
	(void)arg;
	expect_status(gyre_callv(stuck.rt, &stuck.op, 1), GYRE_TIMED_OUT);
	return NULL;
}

static struct gyre_buffer *get(struct gyre *rt)
{
	struct gyre_buffer *buffer;

	expect_status(gyre_buffer_get(rt, LEN, &buffer), GYRE_OK);
	return buffer;
}

static void stuck_start(uint64_t timeout_ns, unsigned sqe_flags, uint64_t drain_ns)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.drain_ns = drain_ns };

	gyre__fault_install();
	stuck.rt = test_open(&options);
	stuck.ring = &stuck.rt->crew->worker[0]->ring;
	stuck.pipe = test_pipe();
	stuck.buffer = get(stuck.rt);
	stuck.sqe_flags = sqe_flags;
	stuck.io = (struct test_io){ stuck.pipe.r, gyre_buffer_data(stuck.buffer), LEN,
				     TEST_IO_HERE };
	stuck.op = test_op(prep_stuck, &stuck.io);
	stuck.op.flags = GYRE_OP_LEAVE;
	stuck.op.timeout_ns = timeout_ns;
	gyre__fault_hook(GYRE__FAULT_uring_enter, swallow_cancels, NULL);
	expect_eq(pthread_create(&stuck.caller, NULL, call_stuck, NULL), 0);
	await(test_stat(stuck.rt, inflight) == 1);
}

/* The caller is back, and the read goes on without it. */
static void stuck_is_left(void)
{
	pthread_join(stuck.caller, NULL);
	expect_op(&stuck.op, GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_eq(test_stat(stuck.rt, inflight), 1);
	expect_eq(test_stat(stuck.rt, ops_timed_out), 1);
	expect_gt(atomic_load(&stuck.swallowed), 0);
}

/* Whether the memory is among those that are given out, when four are asked for. */
static bool is_given_out(const void *memory)
{
	struct gyre_buffer *buffers[4];
	bool found = false;
	unsigned i;

	for (i = 0; i < 4; i++) {
		buffers[i] = get(stuck.rt);
		found |= gyre_buffer_data(buffers[i]) == memory;
	}
	for (i = 0; i < 4; i++)
		gyre_buffer_put(buffers[i]);
	return found;
}

static void stuck_answers_and_ends(void)
{
	const void *memory = gyre_buffer_data(stuck.buffer);
	unsigned i;

	gyre_buffer_put(stuck.buffer);
	for (i = 0; i < 5; i++)
		expect(!is_given_out(memory));
	expect_eq(write(stuck.pipe.w, "late", 4), 4);
	await(is_given_out(memory));
	expect_eq(test_stat(stuck.rt, inflight), 0);
	expect_eq(test_pipe_holds(&stuck.pipe), 0);	/* it was read, into what nobody else had */
}

static void stuck_end(void)
{
	test_pipe_close(&stuck.pipe);
	gyre_free(stuck.rt);
	gyre__fault_remove();
}

TEST(leaving_op_that_cannot_be_cancelled_is_left_at_its_time_out)
{
	stuck_start(20 * MS, 0, 0);
	stuck_is_left();
	stuck_answers_and_ends();
	stuck_end();
}

TEST(leaving_op_is_left_at_its_time_out_although_its_cancel_was_asked_before_it)
{
	stuck_start(100 * MS, 0, 0);
	expect_status(gyre_op_cancel(stuck.rt, &stuck.op), GYRE_OK);
	stuck_is_left();
	stuck_answers_and_ends();
	stuck_end();
}

static void *close_the_runtime(void *arg)
{
	(void)arg;
	expect_status(gyre_close(stuck.rt), GYRE_OK);
	return NULL;
}

/* The drain is short, and asks for the end of everything before the time-out does. */
TEST(leaving_op_is_left_at_its_time_out_although_close_has_cancelled_it_before)
{
	struct gyre_buffer *buffer;
	pthread_t closer;

	stuck_start(300 * MS, 0, MS);
	buffer = stuck.buffer;
	expect_eq(pthread_create(&closer, NULL, close_the_runtime, NULL), 0);
	pthread_join(stuck.caller, NULL);
	expect_op(&stuck.op, GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	gyre_buffer_put(buffer);
	expect_eq(write(stuck.pipe.w, "late", 4), 4);
	pthread_join(closer, NULL);
	expect_eq(test_pipe_holds(&stuck.pipe), 0);
	stuck_end();
}

static void *close_the_pipe(void *arg)
{
	(void)arg;
	expect_eq(gyre_close_fd(stuck.rt, stuck.pipe.r), 0);
	atomic_store(&stuck.closed, true);
	return NULL;
}

/* Its caller has gone, but who looks its file up late still holds up the barrier. */
TEST(left_op_that_looks_its_descriptor_up_late_holds_up_close_fd)
{
	pthread_t closer;
	unsigned sleeps;

	stuck_start(20 * MS, IOSQE_ASYNC, 0);
	stuck_is_left();
	sleeps = gyre__fault_count(GYRE__FAULT_futex_wait);
	expect_eq(pthread_create(&closer, NULL, close_the_pipe, NULL), 0);
	/* Asleep, it has sent its barrier, which is judged after each turn: here is one more. */
	await(gyre__fault_count(GYRE__FAULT_futex_wait) > sleeps);
	expect_status(gyre_call(stuck.rt, prep_nop, NULL, NULL), GYRE_OK);
	expect(!atomic_load(&stuck.closed));
	expect_eq(write(stuck.pipe.w, "late", 4), 4);
	pthread_join(closer, NULL);
	stuck.pipe.r = -1;
	gyre_buffer_put(stuck.buffer);
	stuck_end();
}

TEST_MAIN()
