/* SPDX-License-Identifier: MIT */
/*
 * The design's scenarios by their numbers, as far as they need no jobs. What is
 * said here in one sentence is taken apart in the tests of the modules.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

/* ------------------------------- 1: the same verb from any kind of thread -- */

#define FILE_LEN	1000

struct verbs {
	struct gyre *rt;
	int fd;
};

/* The same calls, with the same answers, wherever they are made from. */
static void use_every_verb(const struct verbs *verbs)
{
	unsigned char buf[FILE_LEN];
	struct test_io io = { verbs->fd, buf, 100, 50 };
	struct gyre_op ops[3] = { test_op(prep_read, &io), test_op(prep_nop, NULL),
				  test_op(prep_nop, NULL) };
	int res;

	expect_status(gyre_call(verbs->rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 100);
	expect_bytes(buf, 100, 50);
	expect_status(gyre_callv(verbs->rt, ops, 3), GYRE_OK);
	expect_op(&ops[0], GYRE_OK, 100, GYRE_EFFECT_DONE);
	expect_eq(gyre_pread(verbs->rt, verbs->fd, buf, FILE_LEN, 0), FILE_LEN);
	expect_bytes(buf, FILE_LEN, 0);
	expect(!gyre_current());
	expect_eq(gyre_current_worker(), -1);
}

static void verbs_open(struct verbs *verbs)
{
	verbs->rt = test_open_workers(2);
	verbs->fd = test_file(FILE_LEN);
}

static void verbs_close(struct verbs *verbs)
{
	close(verbs->fd);
	gyre_free(verbs->rt);
}

static void *use_from_a_thread(void *arg)
{
	unsigned i;

	for (i = 0; i < 50; i++)
		use_every_verb(arg);
	return NULL;
}

TEST(scenario_1_call_from_a_plain_thread)
{
	struct verbs verbs;
	pthread_t thread;

	verbs_open(&verbs);
	expect_eq(pthread_create(&thread, NULL, use_from_a_thread, &verbs), 0);
	pthread_join(thread, NULL);
	use_from_a_thread(&verbs);
	verbs_close(&verbs);
}

/* A loop with two event sources; each event is handled by calls of ours. */
struct loop {
	struct verbs verbs;
	int epoll, events[2];
	unsigned depth, handled;
};

static void handle_event(struct loop *loop, int fd)
{
	uint64_t count;

	/* The calls below must not run the loop that we were called from. */
	expect_eq(loop->depth, 0);
	loop->depth++;
	expect_eq(read(fd, &count, sizeof(count)), sizeof(count));
	use_every_verb(&loop->verbs);
	loop->handled += (unsigned)count;
	loop->depth--;
}

static void *run_loop(void *arg)
{
	struct loop *loop = arg;
	struct epoll_event ready[2];
	int n, i;

	while (loop->handled < 200) {
		n = epoll_wait(loop->epoll, ready, 2, -1);
		expect_gt(n, 0);
		for (i = 0; i < n; i++)
			handle_event(loop, ready[i].data.fd);
	}
	return NULL;
}

TEST(scenario_1_call_from_a_thread_that_runs_an_epoll_loop_which_is_never_reentered)
{
	struct loop loop = { .depth = 0 };
	uint64_t one = 1;
	pthread_t thread;
	unsigned i;

	verbs_open(&loop.verbs);
	loop.epoll = epoll_create1(EPOLL_CLOEXEC);
	for (i = 0; i < 2; i++) {
		struct epoll_event event = { .events = EPOLLIN };

		loop.events[i] = eventfd(0, EFD_CLOEXEC);
		event.data.fd = loop.events[i];
		expect_eq(epoll_ctl(loop.epoll, EPOLL_CTL_ADD, loop.events[i], &event), 0);
	}
	expect_eq(pthread_create(&thread, NULL, run_loop, &loop), 0);
	for (i = 0; i < 200; i++)
		expect_eq(write(loop.events[i % 2], &one, sizeof(one)), sizeof(one));
	pthread_join(thread, NULL);
	close(loop.epoll);
	close(loop.events[0]);
	close(loop.events[1]);
	verbs_close(&loop.verbs);
}

static void use_once(void *arg, unsigned number)
{
	(void)number;
	use_every_verb(arg);
}

TEST(scenario_1_call_from_threads_of_a_pool_that_comes_and_goes)
{
	struct verbs verbs;
	unsigned i;

	verbs_open(&verbs);
	for (i = 0; i < test_times(30); i++)
		test_crew_run(1 + i % 12, use_once, &verbs);
	verbs_close(&verbs);
}

/* ------------------------------------------- 2: one worker, with its name -- */

static void five_calls(struct gyre *rt, const char *prefix)
{
	struct test_witness first, next;
	int tid = 0;
	unsigned i;

	expect_status(gyre_call(rt, prep_witness, &first, NULL), GYRE_OK);
	for (i = 0; i < 4; i++) {
		expect_status(gyre_call(rt, prep_witness, &next, NULL), GYRE_OK);
		expect_eq(next.tid, first.tid);
		expect_str(next.name, first.name);
	}
	expect(strncmp(first.name, prefix, strlen(prefix)) == 0);
	/* what ps -L and gdb show */
	expect_eq(test_find_thread(first.name, &tid), 1);
	expect_eq(tid, first.tid);
}

TEST(scenario_2_five_calls_in_a_row_use_one_worker_thread_with_its_name)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 3,
					.name = "tenants" };
	struct gyre *rt = test_open_workers(3), *named = test_open(&options);

	five_calls(rt, "gyre-");
	five_calls(named, "tenants-");
	gyre_free(named);
	gyre_free(rt);
}

/* --------------------------------------------------- 3: side by side -- */

struct sleepers {
	struct gyre *rt;
	atomic_uint done;
};

static void sleep_a_quarter(void *arg, unsigned number)
{
	struct __kernel_timespec time = { .tv_nsec = 250 * 1000 * 1000 };
	struct sleepers *sleepers = arg;
	int res;

	(void)number;
	expect_status(gyre_call(sleepers->rt, prep_timeout, &time, &res), GYRE_OK);
	expect_eq(res, -ETIME);
	atomic_fetch_add(&sleepers->done, 1);
}

/* Twelve at once is seen by counting them, not by a clock; see also test-bridge. */
TEST(scenario_3_twelve_callers_sleep_on_one_worker_together)
{
	struct sleepers sleepers = { .rt = test_open_workers(1) };
	unsigned try, together = 0;

	for (try = 0; try < 5 && !together; try++) {
		struct test_crew crew;

		atomic_store(&sleepers.done, 0);
		test_crew_start(&crew, 12, sleep_a_quarter, &sleepers);
		while (!together && atomic_load(&sleepers.done) < 12)
			together = test_stat(sleepers.rt, inflight) == 12;
		test_crew_join(&crew);
	}
	expect(together);
	gyre_free(sleepers.rt);
}

/* --------------------------------------------------- 5: a worker dies -- */

struct dying {
	struct gyre *rt;
	struct test_pipe pipe;
	atomic_uint told;
};

static void wait_on_worker_zero(void *arg, unsigned number)
{
	struct dying *dying = arg;
	char byte = 'u';
	struct test_io io = { dying->pipe.r, &byte, 1, TEST_IO_HERE };
	struct gyre_op op = test_op(prep_read, &io);

	(void)number;
	op.worker = GYRE_WORKER(0);
	expect_status(gyre_callv(dying->rt, &op, 1), GYRE_WORKER_DEAD);
	expect_op(&op, GYRE_WORKER_DEAD, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_eq(byte, 'u');
	atomic_fetch_add(&dying->told, 1);
}

static void kill_worker(struct gyre *rt, unsigned number)
{
	struct gyre_op op = test_op(prep_nop, NULL);

	gyre__fault_set_on(number ? "gyre-1" : "gyre-0", GYRE__FAULT_uring_enter, 0,
			   GYRE__FAULT_FOREVER, -EBADR);
	op.worker = GYRE_WORKER(number);
	expect_status(gyre_callv(rt, &op, 1), GYRE_WORKER_DEAD);
	await(test_stat(rt, workers_dead) == 1 + number);
}

TEST(scenario_5_a_worker_dies_and_the_truth_is_told_and_the_others_take_over)
{
	struct dying dying = { .pipe = test_pipe() };
	struct test_crew crew;
	unsigned i;

	gyre__fault_install();
	dying.rt = test_open_workers(2);
	test_crew_start(&crew, 12, wait_on_worker_zero, &dying);
	await(test_stat(dying.rt, inflight) == 12);
	kill_worker(dying.rt, 0);
	test_crew_join(&crew);
	expect_eq(atomic_load(&dying.told), 12);
	for (i = 0; i < 20; i++)
		expect_status(gyre_call(dying.rt, prep_nop, NULL, NULL), GYRE_OK);
	kill_worker(dying.rt, 1);
	for (i = 0; i < 20; i++) {
		expect_status(gyre_call(dying.rt, prep_nop, NULL, NULL), GYRE_WORKER_DEAD);
		expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	}
	gyre_free(dying.rt);
	gyre__fault_remove();
	test_pipe_close(&dying.pipe);
}

/* ------------------------------------------------------------ 7: close -- */

struct closing {
	struct gyre *rt;
	struct test_pipe pipe;
	atomic_uint cancelled;
};

static void wait_for_close(void *arg, unsigned number)
{
	struct closing *closing = arg;
	char byte = 'u';
	struct test_io io = { closing->pipe.r, &byte, 1, TEST_IO_HERE };
	struct gyre_op op = test_op(prep_read, &io);

	(void)number;
	expect_status(gyre_callv(closing->rt, &op, 1), GYRE_CANCELLED);
	expect_eq(byte, 'u');
	atomic_fetch_add(&closing->cancelled, 1);
}

TEST(scenario_7_close_with_nothing_to_do_leaves_no_thread)
{
	struct gyre *rt = test_open_workers(2);

	expect_status(gyre_close(rt), GYRE_OK);
	expect_eq(test_find_thread("gyre-0", NULL) + test_find_thread("gyre-1", NULL), 0);
	gyre_free(rt);
}

TEST(scenario_7_close_with_sixty_four_callers_waiting_hangs_nobody)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 2,
					.drain_ns = 20 * 1000 * 1000 };
	struct closing closing = { .rt = test_open(&options), .pipe = test_pipe() };
	struct test_crew crew;

	test_crew_start(&crew, 64, wait_for_close, &closing);
	await(test_stat(closing.rt, inflight) == 64);
	expect_status(gyre_close(closing.rt), GYRE_OK);
	test_crew_join(&crew);
	expect_eq(atomic_load(&closing.cancelled), 64);
	expect_eq(test_find_thread("gyre-0", NULL) + test_find_thread("gyre-1", NULL), 0);
	gyre_free(closing.rt);
	test_pipe_close(&closing.pipe);
}

/* ------------------------------------------------ 8: what cannot start -- */

static void expect_failed_open(enum gyre__fault_call call, int error, enum gyre_status status)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 4 };
	struct gyre *rt = NULL;
	unsigned nth;

	/* the leak check around this test sees what would be left */
	for (nth = 0; nth < 4; nth++) {
		test_row("%s number %u", gyre__fault_name(call), nth);
		gyre__fault_install();
		gyre__fault_set(call, nth, 1, error);
		expect_status(gyre_open(&options, &rt), status);
		expect(!rt);
		expect_eq(gyre__fault_hits(call), 1);
		gyre__fault_remove();
		expect_eq(test_find_thread("gyre-0", NULL), 0);
	}
}

TEST(scenario_8_thread_start_fails_and_open_says_so_and_leaves_nothing)
{
	expect_failed_open(GYRE__FAULT_thread_start, -EAGAIN, GYRE_SYSTEM);
}

TEST(scenario_8_ring_fails_and_open_says_so_and_leaves_nothing)
{
	expect_failed_open(GYRE__FAULT_uring_setup, -EMFILE, GYRE_SYSTEM);
	expect_failed_open(GYRE__FAULT_uring_setup, -EPERM, GYRE_UNSUPPORTED);
}

/* --------------------------------------------------- 13: no reactor here -- */

TEST(scenario_13_what_needs_a_worker_says_elsewhere_that_there_is_none)
{
	struct gyre_op op = test_op(prep_nop, NULL);
	char byte;

	expect_status(gyre_call(NULL, prep_nop, NULL, NULL), GYRE_NO_REACTOR);
	expect_contains(gyre_last_error(), "gyre_call");
	expect_contains(gyre_last_error(), "no reactor running on this thread");
	expect_status(gyre_callv(NULL, &op, 1), GYRE_NO_REACTOR);
	expect_contains(gyre_last_error(), "gyre_callv");
	expect_eq(gyre_pread(NULL, 0, &byte, 1, 0), -ENOTSUP);
	expect_contains(gyre_last_error(), "gyre_pread");
	expect_contains(gyre_last_error(), "no reactor running on this thread");
}

/* ------------------------------------------------- 28: closing, again -- */

static void close_it(void *arg, unsigned number)
{
	(void)number;
	expect_status(gyre_close(arg), GYRE_OK);
}

TEST(scenario_28_close_twice_by_eight_and_then_call)
{
	struct gyre *rt = test_open_workers(2);
	unsigned i;

	test_crew_run(8, close_it, rt);
	expect_status(gyre_close(rt), GYRE_OK);
	for (i = 0; i < 5; i++) {
		expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_CLOSED);
		expect_contains(gyre_last_error(), "gyre_call");
		expect_contains(gyre_last_error(), "closed");
	}
	gyre_free(rt);
}

TEST_MAIN()
