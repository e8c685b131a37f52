/* SPDX-License-Identifier: MIT */
/*
 * Ops, files and statistics as tasks use them: the same verbs as on a thread, and
 * the worker goes on meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helpers.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))
#define MS		UINT64_C(1000000)

/* ---------------------------------------------------------- from everywhere -- */

struct verb {
	struct gyre *rt;	/* to call */
	int fd;
	struct gyre *home;	/* to call from */
};

/* The same few calls and the same answers, whoever makes them. */
static int same_answers(void *arg)
{
	const struct verb *verb = arg;
	char byte = 0;
	struct test_io io = { verb->fd, &byte, 1, 5 }, bad = { test_closed_fd(), &byte, 1, 0 };
	struct gyre_op ops[3] = { test_op(prep_read, &io), test_op(prep_read, &bad),
				  test_op(prep_forbidden, NULL) };
	int res = 4711;

	expect_status(gyre_call(verb->rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
	expect_bytes(&byte, 1, 5);
	expect_status(gyre_call(verb->rt, prep_read, &bad, &res), GYRE_OK);
	expect_eq(res, -EBADF);
	res = 4711;
	expect_status(gyre_call(verb->rt, prep_nothing, NULL, &res), GYRE_INVALID);
	expect_eq(res, 4711);
	expect_contains(gyre_last_error(), "gyre_call");
	expect_status(gyre_callv(verb->rt, ops, 3), GYRE_INVALID);
	expect_op(&ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_eq(ops[1].res, -EBADF);
	expect_op(&ops[2], GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
	expect_status(gyre_call(verb->rt, NULL, NULL, &res), GYRE_INVALID);
	expect_status(gyre_callv(verb->rt, NULL, 1), GYRE_INVALID);
	expect_status(gyre_callv(verb->rt, NULL, 0), GYRE_OK);
	expect_eq(gyre_pread(verb->rt, verb->fd, &byte, 1, 9), 1);
	expect_bytes(&byte, 1, 9);
	return 0;
}

static void same_in_a_job(void *arg, unsigned number)
{
	struct verb *verb = arg;

	if (number % 3 == 0)
		same_answers(verb);
	else
		test_block_on(verb->home, same_answers, verb);
}

TEST(scenario_1_same_verb_same_answer_from_threads_tasks_and_tasks_of_another_runtime)
{
	struct gyre *rt = test_open_workers(2), *other = test_open_workers(1);
	struct verb here = { rt, test_file(100), rt }, there = { rt, here.fd, other };
	unsigned i;

	for (i = 0; i < test_times(20); i++) {
		test_crew_run(16, same_in_a_job, &here);
		test_crew_run(16, same_in_a_job, &there);
	}
	close(here.fd);
	gyre_free(other);
	gyre_free(rt);
}

/* ---------------------------------------------------------- all at once -- */

struct readers {
	struct test_pipe pipe;
	atomic_uint reading, read;
};

static int task_read_one(void *arg)
{
	struct readers *readers = arg;
	char byte = 0;
	struct test_io io = { readers->pipe.r, &byte, 1, TEST_IO_HERE };
	int res = 0;

	atomic_fetch_add(&readers->reading, 1);
	expect_status(gyre_call(NULL, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
	expect_eq(byte, 'x');
	atomic_fetch_add(&readers->read, 1);
	return 0;
}

static int task_read_many(void *arg)
{
	unsigned i;

	for (i = 0; i < 100; i++)
		expect_status(gyre_go(task_read_one, arg, NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

TEST(scenario_29_hundred_blocking_calls_of_tasks_block_no_worker_and_cost_no_thread)
{
	struct readers readers = { .pipe = test_pipe() };
	struct gyre *rt = test_open_workers(1);
	struct gyre_job *job = test_spawn(rt, task_read_many, &readers);
	struct stat before, after;
	char bytes[100];

	expect_eq(stat("/proc/self/task", &before), 0);
	await(test_stat(rt, inflight) == 100);
	expect_eq(stat("/proc/self/task", &after), 0);
	expect_eq(after.st_nlink, before.st_nlink);	/* a directory for each thread */
	expect_eq(test_block_on(rt, test_task_return, (void *)1), 1);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	memset(bytes, 'x', sizeof(bytes));
	expect_eq(write(readers.pipe.w, bytes, sizeof(bytes)), sizeof(bytes));
	expect_job(job, GYRE_OK);
	expect_eq(atomic_load(&readers.read), 100);
	gyre_free(rt);
	test_pipe_close(&readers.pipe);
}

/* ------------------------------------------------------- chains, time-outs -- */

static int task_chain(void *arg)
{
	int fd = *(int *)arg;
	char out[3] = "abc", in[3] = "";
	struct test_io writes = { fd, out, 3, 0 }, reads = { fd, in, 3, 0 },
		       bad = { test_closed_fd(), in, 3, 0 };
	struct gyre_op ops[3] = { test_op(prep_write, &writes), test_op(prep_read, &reads),
				  test_op(prep_nop, NULL) };

	ops[0].flags = ops[1].flags = GYRE_OP_LINK;
	expect_status(gyre_callv(NULL, ops, 3), GYRE_OK);
	expect(memcmp(in, out, 3) == 0);
	ops[1].arg = &bad;
	expect_status(gyre_callv(NULL, ops, 3), GYRE_CANCELLED);
	expect_op(&ops[0], GYRE_OK, 3, GYRE_EFFECT_DONE);
	expect_eq(ops[1].res, -EBADF);
	expect_op(&ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	return 0;
}

TEST(chain_of_a_task_runs_in_order_or_breaks)
{
	struct gyre *rt = test_open_workers(1);
	int fd = test_file(10);

	test_block_on(rt, task_chain, &fd);
	close(fd);
	gyre_free(rt);
}

static int task_times_out(void *arg)
{
	struct readers *readers = arg;
	char byte;
	struct test_io io = { readers->pipe.r, &byte, 1, TEST_IO_HERE };
	struct gyre_op op = test_op(prep_read, &io);
	unsigned worker;

	for (worker = 0; worker < 3; worker++) {
		op.worker = worker;
		op.timeout_ns = MS;
		expect_status(gyre_callv(NULL, &op, 1), GYRE_TIMED_OUT);
		expect_eq(op.status, GYRE_TIMED_OUT);
		expect_eq(gyre_cancelled(), 0);
	}
	expect_status(gyre_sleep(1), GYRE_OK);
	return 0;
}

TEST(op_of_a_task_times_out_on_either_worker)
{
	struct readers readers = { .pipe = test_pipe() };
	struct gyre *rt = test_open_workers(2);
	struct gyre_job *jobs[12];
	unsigned i;

	for (i = 0; i < 12; i++)
		jobs[i] = test_spawn_on(rt, i % 2, task_times_out, &readers);
	for (i = 0; i < 12; i++)
		expect_job(jobs[i], GYRE_OK);
	gyre_free(rt);
	test_pipe_close(&readers.pipe);
}

/* ------------------------------------------------------------------ cancel -- */

struct cancelled {
	struct gyre_op *op;
	struct test_pipe pipe;
	uint32_t worker;
	char byte;
	enum gyre_status status;
	int res;
	struct gyre_task *task;
};

static int task_read_until_cancelled(void *arg)
{
	struct cancelled *cancelled = arg;
	struct test_io io = { cancelled->pipe.r, &cancelled->byte, 1, TEST_IO_HERE };
	struct gyre_op op = test_op(prep_read, &io);

	op.worker = cancelled->worker;
	cancelled->op = &op;
	cancelled->status = gyre_callv(NULL, &op, 1);
	cancelled->res = op.res;
	return gyre_cancelled();
}

TEST(op_of_a_task_is_cancelled_by_a_thread)
{
	struct gyre *rt = test_open_workers(2);
	uint32_t worker;

	for (worker = 0; worker < 3; worker++) {
		struct cancelled cancelled = { .pipe = test_pipe(), .worker = worker };
		struct gyre_job *job = test_spawn_on(rt, 0, task_read_until_cancelled, &cancelled);
		int result = 4711;

		await(test_stat(rt, inflight) == 1);
		expect_status(gyre_op_cancel(rt, cancelled.op), GYRE_OK);
		expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_OK);
		expect_status(cancelled.status, GYRE_CANCELLED);
		expect_eq(result, 0);		/* the op was, the task was not */
		test_pipe_close(&cancelled.pipe);
	}
	gyre_free(rt);
}

static int task_cancel_reader(void *arg)
{
	struct cancelled *cancelled = arg;
	int result;

	expect_status(gyre_go(task_read_until_cancelled, arg, &cancelled->task), GYRE_OK);
	gyre_yield();
	gyre_sleep(MS / 10);
	gyre_task_cancel(cancelled->task);
	expect_status(gyre_join(cancelled->task, &result), GYRE_OK);
	expect(result == 1 || cancelled->status == GYRE_OK);
	return 0;
}

/* A byte was read and is there, or it was not and lies in the pipe. */
static void expect_nothing_lost(struct cancelled *cancelled)
{
	if (cancelled->status == GYRE_OK) {
		expect_eq(cancelled->res, 1);
		expect_eq(cancelled->byte, 'x');
		expect_eq(test_pipe_holds(&cancelled->pipe), 0);
	} else {
		expect_status(cancelled->status, GYRE_CANCELLED);
		expect_eq(test_pipe_holds(&cancelled->pipe), 1);
	}
}

TEST(cancel_of_a_task_in_a_read_loses_nothing)
{
	struct gyre *rt = test_open_workers(2);
	unsigned i, read = 0;

	for (i = 0; i < test_times(300); i++) {
		struct cancelled cancelled = { .pipe = test_pipe(), .worker = i % 3 };
		struct gyre_job *job = test_spawn_on(rt, 0, task_cancel_reader, &cancelled);
		unsigned turns = i % 50 * 20;

		while (turns--)
			sched_yield();
		expect_eq(write(cancelled.pipe.w, "x", 1), 1);
		expect_job(job, GYRE_OK);
		expect_nothing_lost(&cancelled);
		read += cancelled.status == GYRE_OK;
		test_pipe_close(&cancelled.pipe);
	}
	test_note("%u of %u were read", read, i);
	gyre_free(rt);
}

static int task_read_slowly(void *arg)
{
	struct readers *readers = arg;
	char byte = 0;
	struct test_io io = { readers->pipe.r, &byte, 1, TEST_IO_HERE };

	atomic_fetch_add(&readers->reading, 1);
	expect_status(gyre_call(NULL, prep_read, &io, NULL), GYRE_CANCELLED);
	return 0;
}

static int task_many_readers(void *arg)
{
	struct readers *readers = arg;
	unsigned i;

	for (i = 0; i < 10000; i++)
		expect_status(gyre_go(task_read_slowly, readers, NULL), GYRE_OK);
	while (atomic_load(&readers->reading) < 10000)
		gyre_yield();
	return 0;
}

TEST(ten_thousand_tasks_in_a_read_are_cancelled_with_their_job)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .ring_entries = 16,
					.inflight_max = 32 };
	struct readers readers = { .pipe = test_pipe() };
	struct gyre *rt = test_open(&options);

	test_block_on(rt, task_many_readers, &readers);
	expect_eq(test_stat(rt, inflight), 0);
	expect_eq(test_stat(rt, queued), 0);
	gyre_free(rt);
	test_pipe_close(&readers.pipe);
}

/* ------------------------------------------------------- another worker -- */

struct tid_seen {
	int tid;
};

static void prep_tid(struct io_uring_sqe *sqe, void *arg)
{
	((struct tid_seen *)arg)->tid = gettid();
	io_uring_prep_nop(sqe);
}

static int task_call_each_worker(void *arg)
{
	int tids[2] = { 0, 0 };
	unsigned i;

	(void)arg;
	for (i = 0; i < 200; i++) {
		struct tid_seen seen[3] = { { 0 } };
		struct gyre_op ops[3] = { test_op(prep_tid, &seen[0]), test_op(prep_tid, &seen[1]),
					  test_op(prep_tid, &seen[2]) };

		ops[0].worker = GYRE_WORKER(i % 2);
		expect_status(gyre_callv(NULL, ops, 3), GYRE_OK);
		expect(seen[0].tid == seen[1].tid && seen[1].tid == seen[2].tid);
		if (i >= 2)
			expect_eq(seen[0].tid, tids[i % 2]);
		tids[i % 2] = seen[0].tid;
	}
	expect_ne(tids[0], tids[1]);
	return 0;
}

TEST(tasks_of_both_workers_call_both_workers)
{
	struct gyre *rt = test_open_workers(2);
	struct gyre_job *jobs[16];
	unsigned i;

	for (i = 0; i < 16; i++)
		jobs[i] = test_spawn_on(rt, i % 2, task_call_each_worker, NULL);
	for (i = 0; i < 16; i++)
		expect_job(jobs[i], GYRE_OK);
	gyre_free(rt);
}

static int task_bad_worker(void *arg)
{
	struct gyre_op op = test_op(prep_nop, NULL);

	(void)arg;
	op.worker = GYRE_WORKER(2);
	expect_status(gyre_callv(NULL, &op, 1), GYRE_INVALID);
	expect_op(&op, GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
	return 0;
}

TEST(worker_that_is_not_there_is_invalid_in_a_task)
{
	struct gyre *rt = test_open_workers(2);

	test_block_on(rt, task_bad_worker, NULL);
	gyre_free(rt);
}

/* ----------------------------------------------------------- large batches -- */

static int task_large_batch(void *arg)
{
	unsigned count = *(unsigned *)arg, i;
	struct gyre_op *ops = calloc(count, sizeof(*ops));

	for (i = 0; i < count; i++)
		ops[i] = test_op(prep_nop, NULL);
	expect_status(gyre_callv(NULL, ops, count), GYRE_OK);
	for (i = 0; i < count; i++)
		expect_op(&ops[i], GYRE_OK, 0, GYRE_EFFECT_DONE);
	free(ops);
	return 0;
}

TEST(batches_larger_than_the_ring_of_tasks_side_by_side)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .ring_entries = 8,
					.inflight_max = 16 };
	struct gyre *rt = test_open(&options);
	struct gyre_job *jobs[12];
	unsigned count = 3000, i;

	for (i = 0; i < 12; i++)
		jobs[i] = test_spawn(rt, task_large_batch, &count);
	for (i = 0; i < 12; i++)
		expect_job(jobs[i], GYRE_OK);
	gyre_free(rt);
}

/* ------------------------------------------------------------- every call -- */

static int task_every_call(void *arg)
{
	struct gyre *rt = arg;
	struct gyre_stats stats = { .size = sizeof(stats) };
	int fd, null_fd = gyre_openat(rt, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0);
	int memory = memfd_create("durable", MFD_CLOEXEC);
	struct gyre_buffer *buffer;
	struct statx statx;
	char byte = 'b';
	struct iovec iov = { &byte, 1 };
	struct gyre_op op = test_op(prep_nop, NULL);

	expect_ge(null_fd, 0);
	expect_status(gyre_op_cancel(rt, &op), GYRE_NOT_FOUND);
	expect_status(gyre_stats_get(rt, &stats), GYRE_OK);
	expect_eq(stats.jobs_running, 1);
	expect_status(gyre_stats_write(rt, null_fd, GYRE_FORMAT_JSON), GYRE_OK);
	expect_status(gyre_dump(rt, null_fd), GYRE_OK);
	expect_eq(gyre_read(rt, null_fd, &byte, 1), 0);
	expect_eq(gyre_write(rt, null_fd, &byte, 1), 1);
	expect_eq(gyre_poll(rt, null_fd, POLLOUT, GYRE_FOREVER), POLLOUT);
	expect_eq(gyre_pwrite(rt, memory, &byte, 1, 0), 1);
	expect_eq(gyre_pread(rt, memory, &byte, 1, 0), 1);
	expect_eq(gyre_pwritev2(rt, memory, &iov, 1, 1, 0), 1);
	expect_eq(gyre_preadv2(rt, memory, &iov, 1, 1, 0), 1);
	expect_eq(gyre_pwrite_full(rt, memory, &byte, 1, 2), 1);
	expect_eq(gyre_pread_full(rt, memory, &byte, 1, 2), 1);
	expect_eq(gyre_fsync(rt, memory), 0);
	expect_eq(gyre_fdatasync(rt, memory), 0);
	expect_eq(gyre_write_durable(rt, memory, &byte, 1, 0), 1);
	expect_eq(gyre_durable_reset(rt, memory), 0);
	expect_eq(gyre_statx(rt, AT_FDCWD, "/dev/null", 0, STATX_TYPE, &statx), 0);
	expect_eq(gyre_fallocate(rt, memory, 0, 0, 10), 0);
	expect_status(gyre_buffer_get(rt, 100, &buffer), GYRE_OK);
	gyre_buffer_put(buffer);
	fd = gyre_openat(rt, AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC, 0);
	expect_ge(fd, 0);
	expect_eq(gyre_close_fd(rt, fd), 0);
	expect_eq(gyre_close_fd(rt, memory), 0);
	expect_eq(gyre_close_fd(rt, null_fd), 0);
	return 0;
}

static int task_every_call_unnamed(void *arg)
{
	(void)arg;
	return task_every_call(NULL);
}

TEST(every_call_works_in_a_task_by_either_route)
{
	static const char *const routes[] = { "caller", "ring" };
	unsigned r;

	for (r = 0; r < LENGTH(routes); r++) {
		struct gyre *rt;

		test_row("by %s", routes[r]);
		setenv("GYRE_ROUTE", routes[r], 1);
		rt = test_open_workers(2);
		test_block_on(rt, task_every_call, rt);
		test_block_on(rt, task_every_call_unnamed, NULL);
		gyre_free(rt);
	}
}

static int task_life(void *arg)
{
	struct gyre *other = NULL;

	(void)arg;
	expect_status(gyre_open(NULL, &other), GYRE_OK);
	expect_status(gyre_call(other, prep_nop, NULL, NULL), GYRE_OK);
	expect_eq(test_block_on(other, test_task_return, (void *)5), 5);
	expect_status(gyre_close(other), GYRE_OK);
	expect_status(gyre_call(other, prep_nop, NULL, NULL), GYRE_CLOSED);
	gyre_free(other);
	gyre_free(NULL);
	expect_status(gyre_close(NULL), GYRE_OK);
	return 0;
}

TEST(runtime_lives_and_dies_in_a_task_of_another)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_life, NULL);
	gyre_free(rt);
}

static int task_free_own(void *arg)
{
	(void)arg;
	gyre_free(gyre_current());
	return 0;
}

static void free_in_own_task(void *arg)
{
	(void)arg;
	test_block_on(test_open_workers(1), task_free_own, NULL);
}

TEST(free_in_a_task_of_its_own_asserts)
{
	test_asserts(free_in_own_task, NULL);
}

/* ------------------------------------------------- how the last call ended -- */

static int task_fail_and_allocate(void *arg)
{
	unsigned way, turn;
	char *text;

	for (way = 0; way < 3; way++)
		for (turn = 0; turn < 2; turn++) {
			test_row("way %u, %s", way, turn ? "after others' turn" : "at once");
			expect_status(gyre_call(NULL, NULL, NULL, NULL), GYRE_INVALID);
			if (turn)
				gyre_yield();
			expect_status(gyre_last_status(), GYRE_INVALID);
			text = way == 0 ? gyre_alloc(8) : way == 1 ? gyre_alloc_aligned(8, 64) :
			       gyre_strdup("text");
			expect(text);
			expect_status(gyre_last_status(), GYRE_OK);
			expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
			expect_contains(gyre_last_error(), "no error");
		}
	/* A remark is no status, and over as well. */
	expect_eq(gyre_close_fd(NULL, test_closed_fd()), -EBADF);
	expect(gyre_alloc(8));
	expect_contains(gyre_last_error(), "no error");
	expect(!gyre_alloc(SIZE_MAX));
	expect_status(gyre_last_status(), GYRE_NO_MEMORY);
	expect(gyre_alloc(8));
	expect_status(gyre_last_status(), GYRE_OK);
	(void)arg;
	return 0;
}

/* It always has something to tell, and its neighbour's allocations do not change that. */
static int task_keep_failing(void *arg)
{
	unsigned i;

	for (i = 0; i < 20; i++) {
		expect_status(gyre_call(NULL, NULL, NULL, NULL), GYRE_INVALID);
		gyre_yield();
		expect_status(gyre_last_status(), GYRE_INVALID);
	}
	(void)arg;
	return 0;
}

static int task_two_that_fail(void *arg)
{
	expect_status(gyre_go(task_keep_failing, arg, NULL), GYRE_OK);
	expect_status(gyre_go(task_fail_and_allocate, arg, NULL), GYRE_OK);
	expect_status(gyre_go(task_keep_failing, arg, NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

TEST(allocation_is_a_last_call_like_others)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_fail_and_allocate, NULL);
	test_block_on(rt, task_two_that_fail, NULL);
	gyre_free(rt);
}

TEST_MAIN()
