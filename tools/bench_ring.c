/* SPDX-License-Identifier: MIT */
/*
 * Rings without gyre: one for each caller, or one thread with as many
 * operations in flight as all the callers together would have. A ring is made,
 * used and closed by one thread.
 */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ON_ALL	(BENCH_ON_NOPS | BENCH_ON_FILE)

/* A closed ring's locked memory may count against its owner for some 270 ms yet. */
#define RING_PATIENCE_NS	UINT64_C(1000000000)
#define RING_RETRY_NS		UINT64_C(10000000)

static int ring_try(unsigned entries, struct io_uring *ret)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_TASKRUN_FLAG,
	};
	int rc = io_uring_queue_init_params(entries, ret, &params);

	if (rc != -EINVAL)
		return rc;
	/* A kernel from before these flags. */
	params = (struct io_uring_params){ .flags = 0 };
	return io_uring_queue_init_params(entries, ret, &params);
}

int bench_ring_open(unsigned entries, struct io_uring *ret)
{
	uint64_t patience = bench_now_ns() + RING_PATIENCE_NS;
	int rc = ring_try(entries, ret);

	while (rc == -ENOMEM && bench_now_ns() < patience) {
		bench_sleep_until(bench_now_ns() + RING_RETRY_NS);
		rc = ring_try(entries, ret);
	}
	if (rc < 0)
		return rc;
	/* Saves looking the descriptor up on each enter; older kernels are but slower. */
	io_uring_register_ring_fd(ret);
	return 0;
}

const char *bench_ring_hint(int error)
{
	switch (error) {
	case EPERM:
	case EACCES:
		return "; see /proc/sys/kernel/io_uring_disabled and any seccomp policy";
	case ENOSYS:
		return "; this kernel, or its seccomp policy, has no io_uring";
	case ENOMEM:
		return "; raise the limit of locked memory (ulimit -l)";
	case EMFILE:
		return "; raise the limit of open files (ulimit -n)";
	default:
		return "";
	}
}

/* Copies what has arrived into the operations; how many that were. */
static unsigned ring_reap(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe(ring, head, cqe) {
		struct bench_op *op = io_uring_cqe_get_data(cqe);

		op->res = cqe->res;
		seen++;
	}
	io_uring_cq_advance(ring, seen);
	return seen;
}

int bench_ring_call(struct io_uring *ring, struct bench_op *ops, unsigned count)
{
	unsigned i, done = 0;
	int rc;

	for (i = 0; i < count; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

		/* The ring was opened for count, and all of the last call's have been taken. */
		if (!sqe)
			return -ENOBUFS;
		bench_op_prep(sqe, &ops[i]);
		io_uring_sqe_set_data(sqe, &ops[i]);
	}
	while (done < count) {
		rc = io_uring_submit_and_wait(ring, count - done);
		if (rc < 0 && rc != -EINTR)
			return rc;
		done += ring_reap(ring);
	}
	return 0;
}

/* ------------------------------------------------- own-ring, raw-batch -- */

static int ring_join(struct bench_caller *caller)
{
	int rc = bench_ring_open(caller->op_count, &caller->ring);

	if (rc == 0)
		return 0;
	errno = -rc;
	return bench_fault(caller->run, "%s: no ring of %u entries: %m (errno %d)%s",
			   caller->run->engine->name, caller->op_count, -rc, bench_ring_hint(-rc));
}

static void ring_leave(struct bench_caller *caller)
{
	io_uring_queue_exit(&caller->ring);
}

static int ring_fault(struct bench_caller *caller, int rc)
{
	errno = -rc;
	return bench_fault(caller->run, "%s: io_uring_enter failed: %m (errno %d)",
			   caller->run->engine->name, -rc);
}

static int ring_step(struct bench_caller *caller)
{
	unsigned i;
	int rc;

	for (i = 0; i < caller->op_count; i++)
		bench_op_next(caller, &caller->ops[i]);
	rc = bench_ring_call(&caller->ring, caller->ops, caller->op_count);
	if (rc < 0)
		return ring_fault(caller, rc);
	for (i = 0; i < caller->op_count; i++)
		if (!bench_op_good(&caller->ops[i]))
			return bench_op_fault(caller, &caller->ops[i]);
	return 0;
}

const struct bench_engine bench_own_ring = {
	.name = "own-ring",
	.about = "each caller a ring of its own: submit and wait for one call",
	.works = ON_ALL,
	.join = ring_join,
	.step = ring_step,
	.leave = ring_leave,
};

const struct bench_engine bench_raw_batch = {
	.name = "raw-batch",
	.about = "one thread, one ring: submits callers x batch, waits for all of them",
	.works = ON_ALL,
	.one_thread = true,
	.join = ring_join,
	.step = ring_step,
	.leave = ring_leave,
};

/* ---------------------------------------------------------------- raw -- */

static int raw_join(struct bench_caller *caller)
{
	/* Those that a pass has reaped, to be prepared anew after the walk. */
	struct bench_op **reaped = calloc(caller->op_count, sizeof(struct bench_op *));
	int rc;

	if (!reaped)
		return bench_fault(caller->run, "no memory for a depth of %u", caller->op_count);
	rc = ring_join(caller);
	if (rc < 0) {
		free(reaped);
		return rc;
	}
	caller->state = reaped;
	return 0;
}

static void raw_leave(struct bench_caller *caller)
{
	free(caller->state);
	ring_leave(caller);
}

/* As many entries as operations: there is always room. */
static void raw_push(struct bench_caller *caller, struct bench_op *op, uint64_t now)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&caller->ring);

	bench_op_next(caller, op);
	op->since = now;
	bench_op_prep(sqe, op);
	io_uring_sqe_set_data(sqe, op);
}

static unsigned raw_reap(struct bench_caller *caller, struct bench_op **reaped)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe(&caller->ring, head, cqe) {
		reaped[seen] = io_uring_cqe_get_data(cqe);
		reaped[seen++]->res = cqe->res;
	}
	io_uring_cq_advance(&caller->ring, seen);
	return seen;
}

/* Steady depth: each operation that ends is replaced at once, until it is time to leave. */
static void raw_loop(struct bench_caller *caller)
{
	struct bench_op **reaped = caller->state;
	unsigned i, seen, inflight = caller->op_count;
	uint64_t now = bench_ticks();
	bool going = true;
	int rc;

	for (i = 0; i < inflight; i++)
		raw_push(caller, &caller->ops[i], now);
	while (inflight > 0) {
		rc = io_uring_submit_and_wait(&caller->ring, 1);
		if (rc < 0 && rc != -EINTR) {
			ring_fault(caller, rc);
			return;
		}
		seen = raw_reap(caller, reaped);
		now = bench_ticks();
		for (i = 0; i < seen; i++) {
			if (!bench_op_good(reaped[i]))
				bench_op_fault(caller, reaped[i]);
			going = bench_note(caller, reaped[i]->since, now, 1) && going;
		}
		if (!going)
			inflight -= seen;
		for (i = 0; going && i < seen; i++)
			raw_push(caller, reaped[i], now);
	}
}

const struct bench_engine bench_raw = {
	.name = "raw",
	.about = "one thread, one ring, callers x batch always in flight",
	.works = ON_ALL,
	.one_thread = true,
	.join = raw_join,
	.loop = raw_loop,
	.leave = raw_leave,
};
