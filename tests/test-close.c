/* SPDX-License-Identifier: MIT */
/* gyre_close and gyre_free: idle, in the middle of everything, and in a forked child. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#define MS	UINT64_C(1000000)

static struct gyre *open_with_drain(unsigned workers, uint64_t drain_ns)
{
	struct gyre_options options = { .size = sizeof(options), .workers = workers,
					.drain_ns = drain_ns };

	return test_open(&options);
}

/* A lost wake-up between the worker's sleep and the seal would hang one of these. */
TEST(runtime_that_nobody_used_closes_again_and_again)
{
	unsigned i;

	for (i = 0; i < test_times(1500); i++)
		gyre_free(test_open_workers(1 + i % 3));
}

TEST(runtime_closes_right_after_its_last_call_again_and_again)
{
	unsigned i;

	for (i = 0; i < test_times(1000); i++) {
		struct gyre *rt = test_open_workers(1);

		expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
		expect_status(gyre_close(rt), GYRE_OK);
		gyre_free(rt);
	}
}

TEST(close_twice_does_nothing_the_second_time)
{
	struct gyre *rt = test_open_workers(2);

	expect_status(gyre_close(rt), GYRE_OK);
	expect_status(gyre_close(rt), GYRE_OK);
	gyre_free(rt);
}

TEST(close_and_free_of_null_are_fine)
{
	expect_status(gyre_close(NULL), GYRE_OK);
	gyre_free(NULL);
}

TEST(free_closes_what_is_open)
{
	gyre_free(test_open_workers(2));
	expect_eq(test_find_thread("gyre-0", NULL), 0);
}

static void close_it(void *arg, unsigned number)
{
	(void)number;
	expect_status(gyre_close(arg), GYRE_OK);
	/* Whoever returns finds it closed, not closing. */
	expect_eq(test_stat(arg, workers_alive), 0);
}

TEST(eight_threads_close_at_once_and_each_finds_it_closed)
{
	unsigned i;

	for (i = 0; i < test_times(50); i++) {
		struct gyre *rt = test_open_workers(2);

		test_crew_run(8, close_it, rt);
		gyre_free(rt);
	}
}

TEST(call_after_close_says_closed_in_words)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_op op = test_op(prep_nop, NULL);

	gyre_close(rt);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_CLOSED);
	expect_contains(gyre_last_error(), "gyre_call");
	expect_contains(gyre_last_error(), "closed");
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_status(gyre_callv(rt, &op, 1), GYRE_CLOSED);
	expect_op(&op, GYRE_CLOSED, -ECANCELED, GYRE_EFFECT_NONE);
	gyre_free(rt);
}

/* ---------------------------------------------------------- draining -- */

struct caller {
	struct gyre *rt;
	struct test_pipe pipe;
	unsigned char buf;
	struct gyre_op op;
	pthread_t thread;
};

static void *read_the_pipe(void *arg)
{
	struct caller *caller = arg;
	struct test_io io = { caller->pipe.r, &caller->buf, 1, TEST_IO_HERE };

	caller->op = test_op(prep_read, &io);
	gyre_callv(caller->rt, &caller->op, 1);
	return NULL;
}

static void caller_start(struct caller *caller, struct gyre *rt)
{
	memset(caller, 0, sizeof(*caller));
	caller->rt = rt;
	caller->pipe = test_pipe();
	caller->buf = 0xee;
	expect_eq(pthread_create(&caller->thread, NULL, read_the_pipe, caller), 0);
	await(test_stat(rt, inflight) == 1);
}

static void caller_end(struct caller *caller)
{
	pthread_join(caller->thread, NULL);
	test_pipe_close(&caller->pipe);
}

static void *close_in_a_thread(void *arg)
{
	expect_status(gyre_close(arg), GYRE_OK);
	return NULL;
}

static bool says_closed(struct gyre *rt)
{
	return gyre_call(rt, prep_nop, NULL, NULL) == GYRE_CLOSED;
}

TEST(close_waits_for_what_is_under_way)
{
	struct gyre *rt = open_with_drain(1, GYRE_FOREVER);
	struct caller caller;
	pthread_t closer;

	caller_start(&caller, rt);
	expect_eq(pthread_create(&closer, NULL, close_in_a_thread, rt), 0);
	await(says_closed(rt));
	expect_eq(test_stat(rt, workers_alive), 1);
	expect_eq(write(caller.pipe.w, "x", 1), 1);
	pthread_join(closer, NULL);
	caller_end(&caller);
	expect_op(&caller.op, GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_eq(caller.buf, 'x');
	gyre_free(rt);
}

TEST(close_cancels_what_outlasts_drain_ns_and_its_buffer_is_untouched)
{
	struct gyre *rt = open_with_drain(1, 10 * MS);
	struct caller caller;

	caller_start(&caller, rt);
	expect_status(gyre_close(rt), GYRE_OK);
	pthread_join(caller.thread, NULL);
	expect_op(&caller.op, GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_eq(write(caller.pipe.w, "x", 1), 1);
	expect_eq(test_pipe_holds(&caller.pipe), 1);
	expect_eq(caller.buf, 0xee);
	test_pipe_close(&caller.pipe);
	gyre_free(rt);
}

struct chained {
	struct gyre *rt;
	struct gyre_op *ops;
};

static void *call_chained(void *arg)
{
	struct chained *chained = arg;

	gyre_callv(chained->rt, chained->ops, 4);
	return NULL;
}

TEST(close_past_drain_ns_with_a_chain_in_flight_tells_each_op_the_truth)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .inflight_max = 2,
					.drain_ns = 10 * MS };
	struct gyre *rt = test_open(&options);
	struct test_pipe pipe = test_pipe();
	struct gyre_op ops[4];
	struct chained chained = { rt, ops };
	pthread_t caller;
	struct test_io io;
	unsigned i;
	char byte;

	io = (struct test_io){ pipe.r, &byte, 1, TEST_IO_HERE };
	for (i = 0; i < 4; i++)
		ops[i] = test_op(prep_read, &io);
	ops[0].flags = GYRE_OP_LINK;		/* 1 never begins; 2 and 3 find no room */
	expect_eq(pthread_create(&caller, NULL, call_chained, &chained), 0);
	await(test_stat(rt, inflight) == 2 && test_stat(rt, queued) == 2);
	expect_status(gyre_close(rt), GYRE_OK);
	pthread_join(caller, NULL);
	expect_op(&ops[0], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	for (i = 1; i < 4; i++) {
		test_row("op %u", i);
		expect_op(&ops[i], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	}
	test_pipe_close(&pipe);
	gyre_free(rt);
}

/* ------------------------------------------------------------- races -- */

#define CLOSERS	8

struct race {
	struct gyre *rt;
	struct test_pipe pipe;
	int fd;
	atomic_uint answered, closed, cancelled;
	atomic_uint started;
	unsigned callers;
};

/* Each kind of call in turn, until the runtime says that it is closed. */
static void call_until_closed(struct race *race, unsigned number)
{
	uint64_t random = test_seed() + number;
	enum gyre_status status = GYRE_OK;

	while (status != GYRE_CLOSED) {
		unsigned offset = test_random_below(&random, 4096);
		unsigned char bytes[2] = { 0xee, 0xee };
		struct test_io file = { race->fd, &bytes[0], 1, offset };
		struct test_io silence = { race->pipe.r, &bytes[1], 1, TEST_IO_HERE };
		struct gyre_op ops[2] = { test_op(prep_read, &file),
					  test_op(prep_read, &silence) };
		unsigned count = 1 + (test_random_below(&random, 20) == 0), i;

		ops[0].res = ops[1].res = 77;
		status = gyre_callv(race->rt, ops, count);
		atomic_fetch_add(&race->started, 1);
		expect(status == GYRE_OK || status == GYRE_CLOSED || status == GYRE_CANCELLED);
		for (i = 0; i < count; i++) {
			if (ops[i].status == GYRE_OK)
				expect_eq(ops[i].res, 1);
			else
				expect_eq(ops[i].res, -ECANCELED);
			if (ops[i].status == GYRE_CLOSED)
				expect_eq(ops[i].effect, GYRE_EFFECT_NONE);
		}
		if (ops[0].status == GYRE_OK)
			expect_bytes(&bytes[0], 1, offset);
		expect_eq(bytes[1], 0xee);
		atomic_fetch_add(&race->answered, ops[0].status == GYRE_OK);
		atomic_fetch_add(&race->cancelled, status == GYRE_CANCELLED);
		atomic_fetch_add(&race->closed, status == GYRE_CLOSED);
	}
}

static void call_or_close(void *arg, unsigned number)
{
	struct race *race = arg;

	if (number < race->callers) {
		call_until_closed(race, number);
		return;
	}
	while (atomic_load(&race->started) < race->callers)
		sched_yield();
	expect_status(gyre_close(race->rt), GYRE_OK);
}

TEST(close_by_eight_racing_sixty_four_callers_answers_each_call)
{
	unsigned round;

	for (round = 0; round < test_times(20); round++) {
		struct race race = { .callers = 64, .fd = test_file(8192), .pipe = test_pipe(),
				     .rt = open_with_drain(2, 1 + round % 4 * MS) };

		test_crew_run(64 + CLOSERS, call_or_close, &race);
		expect_eq(atomic_load(&race.closed), 64);
		expect_eq(test_stat(race.rt, inflight) + test_stat(race.rt, queued), 0);
		gyre_free(race.rt);
		close(race.fd);
		test_pipe_close(&race.pipe);
	}
}

struct inside {
	struct gyre *rt;
	struct test_pipe pipe;
	atomic_int freed;
};

static void be_inside(void *arg, unsigned number)
{
	struct inside *inside = arg;
	char byte;
	struct test_io io = { inside->pipe.r, &byte, 1, TEST_IO_HERE };
	int res;

	(void)number;
	expect_status(gyre_call(inside->rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
}

static void *free_it(void *arg)
{
	struct inside *inside = arg;

	gyre_free(inside->rt);
	atomic_store(&inside->freed, 1);
	return NULL;
}

TEST(free_waits_until_every_call_has_left)
{
	struct inside inside = { .rt = open_with_drain(1, GYRE_FOREVER), .pipe = test_pipe() };
	struct test_crew crew;
	pthread_t freer;

	test_crew_start(&crew, 16, be_inside, &inside);
	await(test_stat(inside.rt, inflight) == 16);
	expect_eq(pthread_create(&freer, NULL, free_it, &inside), 0);
	expect_eq(atomic_load(&inside.freed), 0);
	expect_eq(write(inside.pipe.w, "0123456789abcdef", 16), 16);
	test_crew_join(&crew);
	pthread_join(freer, NULL);
	expect_eq(atomic_load(&inside.freed), 1);
	test_pipe_close(&inside.pipe);
}

struct in_a_system_call {
	struct gyre *rt;
	struct test_pipe pipe;
	atomic_int freed;
	ssize_t n;
};

static void *read_in_own_thread(void *arg)
{
	struct in_a_system_call *call = arg;
	char byte;

	call->n = gyre_read(call->rt, call->pipe.r, &byte, 1);
	return NULL;
}

static void *free_under_a_system_call(void *arg)
{
	struct in_a_system_call *call = arg;

	gyre_free(call->rt);
	atomic_store(&call->freed, 1);
	return NULL;
}

TEST(system_call_in_its_callers_thread_is_waited_for_by_free_and_not_by_close)
{
	struct in_a_system_call call = { .pipe = test_pipe() };
	pthread_t caller, freer;

	setenv("GYRE_ROUTE", "caller", 1);
	call.rt = test_open_workers(1);
	expect_eq(pthread_create(&caller, NULL, read_in_own_thread, &call), 0);
	await(test_stat(call.rt, calls_in_caller) == 1);
	expect_status(gyre_close(call.rt), GYRE_OK);
	expect_eq(pthread_create(&freer, NULL, free_under_a_system_call, &call), 0);
	expect_eq(atomic_load(&call.freed), 0);
	expect_eq(write(call.pipe.w, "x", 1), 1);
	pthread_join(caller, NULL);
	pthread_join(freer, NULL);
	expect_eq(call.n, 1);
	test_pipe_close(&call.pipe);
}

/*
 * Whoever pushes onto a sleeping worker owes it a wake-up, and may be slow to
 * pay. Something else may wake the worker meanwhile, and the runtime be closed:
 * the late write must not land in whatever file has the number by then.
 */
struct late {
	struct gyre *rt;
	atomic_int stopped, go_on;
};

static int stop_before_the_wake_up(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	struct late *late = arg;
	char name[16];

	(void)call;
	(void)fd;
	(void)site;
	pthread_getname_np(pthread_self(), name, sizeof(name));
	if (strcmp(name, "late") != 0)
		return 0;
	atomic_store(&late->stopped, 1);
	while (!atomic_load(&late->go_on))
		sched_yield();
	return 0;
}

static void *call_and_be_late(void *arg)
{
	struct late *late = arg;

	pthread_setname_np(pthread_self(), "late");
	gyre_call(late->rt, prep_nop, NULL, NULL);
	return NULL;
}

TEST(late_wake_up_never_reaches_a_strangers_descriptor)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.spin_ns = GYRE_SPIN_NEVER };
	struct late late = { .rt = NULL };
	struct caller other;
	pthread_t thread;
	int fds[8], i;
	off_t end;

	gyre__fault_install();
	late.rt = test_open(&options);
	caller_start(&other, late.rt);
	gyre__fault_hook(GYRE__FAULT_eventfd_write, stop_before_the_wake_up, &late);
	expect_eq(pthread_create(&thread, NULL, call_and_be_late, &late), 0);
	await(atomic_load(&late.stopped));
	expect_eq(write(other.pipe.w, "x", 1), 1);	/* wakes the worker */
	pthread_join(other.thread, NULL);
	expect_status(gyre_close(late.rt), GYRE_OK);
	for (i = 0; i < 8; i++)				/* strangers */
		fds[i] = test_file(0);
	atomic_store(&late.go_on, 1);
	pthread_join(thread, NULL);
	for (i = 0; i < 8; i++) {
		end = lseek(fds[i], 0, SEEK_END);
		close(fds[i]);
		expect_eq(end, 0);
	}
	test_pipe_close(&other.pipe);
	gyre_free(late.rt);
	gyre__fault_remove();
}

/* -------------------------------------------------------------- fork -- */

struct forked {
	struct gyre *rt;
	int fd;
};

static void call_everything_in_the_child(void *arg)
{
	struct forked *forked = arg;
	struct gyre *rt = forked->rt;
	struct gyre_stats stats = { .size = sizeof(stats) };
	struct gyre_op op = test_op(prep_nop, NULL);
	struct gyre_buffer *buffer;
	char byte;

	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_CLOSED);
	expect_contains(gyre_last_error(), "fork");
	expect_status(gyre_callv(rt, &op, 1), GYRE_CLOSED);
	expect_op(&op, GYRE_CLOSED, -ECANCELED, GYRE_EFFECT_NONE);
	expect_status(gyre_op_cancel(rt, &op), GYRE_CLOSED);
	expect_status(gyre_buffer_get(rt, 4096, &buffer), GYRE_CLOSED);
	expect_eq(gyre_read(rt, forked->fd, &byte, 1), -ESHUTDOWN);
	expect_eq(gyre_pread(rt, forked->fd, &byte, 1, 0), -ESHUTDOWN);
	expect_eq(gyre_pwrite_full(rt, forked->fd, &byte, 1, 0), -ESHUTDOWN);
	expect_eq(gyre_fsync(rt, forked->fd), -ESHUTDOWN);
	expect_eq(gyre_poll(rt, forked->fd, 1, 0), -ESHUTDOWN);
	expect_eq(gyre_close_fd(rt, forked->fd), -ESHUTDOWN);
	expect_status(gyre_stats_get(rt, &stats), GYRE_CLOSED);
	expect_status(gyre_stats_write(rt, forked->fd, GYRE_FORMAT_JSON), GYRE_CLOSED);
	expect_status(gyre_dump(rt, forked->fd), GYRE_CLOSED);
	expect_status(gyre_close(rt), GYRE_CLOSED);
	gyre_free(rt);
}

TEST(forked_child_is_told_closed_everywhere_and_the_parent_goes_on)
{
	struct forked forked = { test_open_workers(2), test_file(100) };

	expect_status(gyre_call(forked.rt, prep_nop, NULL, NULL), GYRE_OK);
	test_in_child(call_everything_in_the_child, &forked);
	expect_status(gyre_call(forked.rt, prep_nop, NULL, NULL), GYRE_OK);
	expect_eq(gyre_pread(forked.rt, forked.fd, &(char){ 0 }, 1, 0), 1);
	close(forked.fd);
	gyre_free(forked.rt);
}

static void open_in_the_child(void *arg)
{
	struct forked *forked = arg;
	struct gyre *rt = test_open_workers(1);
	unsigned char byte;
	struct test_io io = { forked->fd, &byte, 1, 10 };
	int res;

	expect_status(gyre_call(rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
	expect_bytes(&byte, 1, 10);
	gyre_free(rt);
	expect_status(gyre_call(forked->rt, prep_nop, NULL, NULL), GYRE_CLOSED);
}

/* TSan cannot follow threads that are started in the child of a process with threads. */
static void skip_where_children_cannot_start_threads(void)
{
	if (TEST_UNDER_TSAN)
		test_skip("TSan does not support threads in a forked child");
}

TEST(forked_child_opens_a_runtime_of_its_own)
{
	struct forked forked;

	skip_where_children_cannot_start_threads();
	forked = (struct forked){ test_open_workers(1), test_file(100) };
	expect_status(gyre_call(forked.rt, prep_nop, NULL, NULL), GYRE_OK);
	test_in_child(open_in_the_child, &forked);
	expect_status(gyre_call(forked.rt, prep_nop, NULL, NULL), GYRE_OK);
	close(forked.fd);
	gyre_free(forked.rt);
}

static void child_sleeps_in_calls(struct gyre *rt)
{
	struct __kernel_timespec time = { .tv_nsec = 300000 };
	unsigned i;
	int res;

	for (i = 0; i < 200; i++) {
		expect_status(gyre_call(rt, prep_timeout, &time, &res), GYRE_OK);
		expect_eq(res, -ETIME);
	}
}

/*
 * The thread that forks has called before, and keeps its seat at its bell in the
 * child. Both sleep in calls, each in its own runtime: the same bell, of two processes.
 */
TEST(child_and_parent_sleep_in_calls_without_waking_each_other)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.spin_ns = GYRE_SPIN_NEVER };
	struct gyre *rt;
	int wait_status;
	pid_t pid;

	skip_where_children_cannot_start_threads();
	rt = test_open(&options);
	child_sleeps_in_calls(rt);
	pid = fork();
	if (pid == 0) {
		struct gyre *own = test_open(&options);

		child_sleeps_in_calls(own);
		gyre_free(own);
		_exit(0);
	}
	child_sleeps_in_calls(rt);
	expect_eq(waitpid(pid, &wait_status, 0), pid);
	expect_eq(wait_status, 0);
	gyre_free(rt);
}

static void do_nothing(void *arg)
{
	(void)arg;
}

static void fork_while_calling(void *arg, unsigned number)
{
	struct forked *forked = arg;
	unsigned i;

	if (number == 0) {
		for (i = 0; i < 20; i++)
			test_in_child(i % 2 ? do_nothing : call_everything_in_the_child, forked);
		return;
	}
	for (i = 0; i < test_times(2000); i++)
		expect_status(gyre_call(forked->rt, prep_nop, NULL, NULL), GYRE_OK);
}

TEST(forks_in_the_middle_of_traffic_harm_nobody)
{
	struct forked forked;

	if (TEST_UNDER_ASAN)
		test_skip("AddressSanitizer's allocator may be locked for ever in a child "
			  "that is forked while other threads allocate");
	forked.rt = test_open_workers(2);
	forked.fd = test_file(100);
	test_crew_run(4, fork_while_calling, &forked);
	expect_status(gyre_close(forked.rt), GYRE_OK);
	close(forked.fd);
	gyre_free(forked.rt);
}

/* A child that lives on, and never execs, must not keep the parent's worker from dying. */
TEST(worker_dies_in_time_although_a_forked_child_still_holds_its_ring)
{
	struct test_pipe alive = test_pipe();
	struct caller caller;
	struct gyre *rt;
	pid_t pid;
	char byte;

	gyre__fault_install();
	rt = test_open_workers(1);
	caller_start(&caller, rt);
	pid = fork();
	if (pid == 0) {
		close(alive.w);
		/* until the parent closes its end, or is gone */
		_exit(read(alive.r, &byte, 1) == 0 ? 0 : 1);
	}
	gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_WORKER_DEAD);
	pthread_join(caller.thread, NULL);
	expect_op(&caller.op, GYRE_WORKER_DEAD, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	test_pipe_close(&alive);
	expect_eq(waitpid(pid, NULL, 0), pid);
	test_pipe_close(&caller.pipe);
	gyre_free(rt);
	gyre__fault_remove();
}

TEST_MAIN()
