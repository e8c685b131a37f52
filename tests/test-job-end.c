/* SPDX-License-Identifier: MIT */
/*
 * Jobs and the end of their runtime: closed, freed, from outside and from within,
 * its workers dead, its memory refused; and what is left of handles after it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"
#include "workers/task.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))
#define MS		UINT64_C(1000000)

static struct gyre *open_draining(unsigned workers, uint64_t drain_ns)
{
	struct gyre_options options = { .size = sizeof(options), .workers = workers,
					.drain_ns = drain_ns };

	return test_open(&options);
}

/* ------------------------------------------------------------------ close -- */

struct callers {
	struct gyre *rt;
	gyre_task_fn *fn;
	atomic_uint asleep, cancelled, closed;
};

static void block_on_sleeper(void *arg, unsigned number)
{
	struct callers *callers = arg;
	enum gyre_status status = gyre_block_on(callers->rt, callers->fn, &callers->asleep, NULL,
						NULL);

	(void)number;
	if (status == GYRE_CANCELLED)
		atomic_fetch_add(&callers->cancelled, 1);
	else if (status == GYRE_CLOSED)
		atomic_fetch_add(&callers->closed, 1);
	else
		test_fail("gyre_block_on: %s", gyre_last_error());
}

static void close_among_callers(gyre_task_fn *fn, void (*end)(struct gyre *rt))
{
	struct callers callers = { .rt = open_draining(2, MS), .fn = fn };
	struct test_crew crew;

	test_crew_start(&crew, 64, block_on_sleeper, &callers);
	await(atomic_load(&callers.asleep) == 64);
	end(callers.rt);
	test_crew_join(&crew);
	expect_eq(atomic_load(&callers.cancelled), 64);
}

static void close_and_free(struct gyre *rt)
{
	expect_status(gyre_close(rt), GYRE_OK);
	expect_eq(test_find_thread("gyre-0", NULL), 0);
	expect_status(gyre_block_on(rt, test_task_return, NULL, NULL, NULL), GYRE_CLOSED);
	gyre_free(rt);
}

TEST(scenario_7_close_with_sixty_four_callers_of_jobs_waiting_hangs_nobody)
{
	close_among_callers(test_task_sleep, close_and_free);
}

TEST(scenario_7_free_with_sixty_four_callers_of_jobs_waiting_hangs_nobody)
{
	close_among_callers(test_task_sleep, gyre_free);
}

TEST(scenario_7_free_with_sixty_four_jobs_that_refuse_to_stop_drops_them)
{
	close_among_callers(test_task_refuse, gyre_free);
}

TEST(scenario_7_close_with_jobs_running_lets_them_end)
{
	struct gyre *rt = open_draining(2, GYRE_FOREVER);
	atomic_uint flag = 0;
	struct gyre_job *jobs[12];
	pthread_t closer;
	unsigned i;

	for (i = 0; i < 12; i++)
		jobs[i] = test_spawn(rt, test_task_until, &flag);
	await(test_stat(rt, jobs_running) == 12);
	expect_eq(pthread_create(&closer, NULL, (void *(*)(void *))(void *)gyre_close, rt), 0);
	await(gyre_block_on(rt, test_task_return, NULL, NULL, NULL) == GYRE_CLOSED);
	for (i = 0; i < 12; i++)
		expect_status(gyre_job_wait(jobs[i], 0, NULL), GYRE_BUSY);
	atomic_store(&flag, 1);
	for (i = 0; i < 12; i++)
		expect_job(jobs[i], GYRE_OK);
	pthread_join(closer, NULL);
	gyre_free(rt);
}

static void close_it(void *arg, unsigned number)
{
	(void)number;
	expect_status(gyre_close(arg), GYRE_OK);
}

TEST(scenario_28_close_twice_and_by_eight_threads_while_jobs_run_and_then_call)
{
	struct gyre *rt = open_draining(2, MS);
	atomic_uint asleep = 0;
	struct gyre_job *jobs[16], *job = NULL;
	unsigned i;

	for (i = 0; i < 16; i++)
		jobs[i] = test_spawn(rt, i % 2 ? test_task_sleep : test_task_refuse, &asleep);
	await(atomic_load(&asleep) == 16);
	test_crew_run(8, close_it, rt);
	expect_status(gyre_close(rt), GYRE_OK);
	for (i = 0; i < 16; i++)
		expect_job(jobs[i], GYRE_CANCELLED);
	expect_status(gyre_spawn(rt, test_task_return, NULL, NULL, &job), GYRE_CLOSED);
	expect(!job);
	expect_contains(gyre_last_error(), "gyre_spawn");
	expect_contains(gyre_last_error(), "closed");
	gyre_free(rt);
}

/* ------------------------------------------------- calls of a task while it drains -- */

static int task_close(void *arg)
{
	struct gyre *rt = gyre_current();
	int res;

	expect_status(gyre_close(rt), GYRE_WOULD_DEADLOCK);
	expect_contains(gyre_last_error(), "gyre_close");
	expect_status(gyre_close(rt), GYRE_WOULD_DEADLOCK);
	/* What is under way may go on, and use the runtime. */
	expect_status(gyre_call(NULL, prep_nop, NULL, &res), GYRE_OK);
	expect_status(gyre_go(test_task_return, NULL, NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(test_block_on(NULL, test_task_return, (void *)4), 4);
	(void)arg;
	return 2;
}

TEST(close_in_a_task_seals_and_would_deadlock_and_the_task_goes_on)
{
	struct gyre *rt = open_draining(2, GYRE_FOREVER);

	expect_eq(test_block_on(rt, task_close, NULL), 2);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_CLOSED);
	gyre_free(rt);
}

TEST(close_in_tasks_of_each_worker_at_once_ends_all_by_itself)
{
	unsigned round;

	for (round = 0; round < test_times(50); round++) {
		struct gyre *rt = open_draining(2, GYRE_FOREVER);
		struct gyre_job *job = NULL;
		enum gyre_status status = GYRE_CLOSED;
		struct gyre_job_options options = { .size = sizeof(options),
						    .worker = GYRE_WORKER(1) };
		struct gyre_job *first = test_spawn_on(rt, 0, task_close, NULL);

		status = gyre_spawn(rt, task_close, NULL, &options, &job);
		expect(status == GYRE_OK || status == GYRE_CLOSED);
		expect_job(first, GYRE_OK);
		if (status == GYRE_OK)
			expect_job(job, GYRE_OK);
		gyre_free(rt);
	}
}

/* ----------------------------------------------------------- after the end -- */

TEST(handles_outlive_their_runtime_and_say_closed)
{
	struct gyre *rt = open_draining(1, MS);
	struct gyre_job *done = test_spawn(rt, test_task_return, (void *)1);
	struct gyre_job *cut = test_spawn(rt, test_task_sleep, NULL);
	struct gyre_job *given_up = test_spawn(rt, test_task_sleep, NULL);
	int result = 4711;

	gyre_free(rt);
	gyre_job_cancel(cut);
	expect_status(gyre_job_wait(done, GYRE_FOREVER, &result), GYRE_CLOSED);
	expect_contains(gyre_last_error(), "gyre_job_wait");
	expect_status(gyre_job_wait(cut, 0, &result), GYRE_CLOSED);
	gyre_job_detach(given_up);
	expect_eq(result, 4711);
}

struct race {
	struct gyre *rt;
	struct gyre_job *jobs[8];
};

static void wait_for_one(void *arg, unsigned number)
{
	struct race *race = arg;
	enum gyre_status status;

	do {
		status = gyre_job_wait(race->jobs[number], number % 2 ? MS / 10 : GYRE_FOREVER,
				       NULL);
		gyre_job_cancel(status == GYRE_BUSY ? race->jobs[number] : NULL);
	} while (status == GYRE_BUSY);
	expect(status == GYRE_CANCELLED || status == GYRE_CLOSED);
}

TEST(waits_and_cancels_race_with_free)
{
	unsigned round, i;

	for (round = 0; round < test_times(100); round++) {
		struct race race = { .rt = open_draining(2, MS) };
		struct test_crew crew;

		for (i = 0; i < 8; i++)
			race.jobs[i] = test_spawn(race.rt, test_task_sleep, NULL);
		test_crew_start(&crew, 8, wait_for_one, &race);
		gyre_free(race.rt);
		test_crew_join(&crew);
	}
}

struct forked {
	struct gyre *rt;
	struct gyre_job *job;
};

static void use_in_child(void *arg)
{
	struct forked *forked = arg;

	gyre_job_cancel(forked->job);
	expect_status(gyre_job_wait(forked->job, GYRE_FOREVER, NULL), GYRE_CLOSED);
	expect_status(gyre_spawn(forked->rt, test_task_return, NULL, NULL, NULL), GYRE_CLOSED);
	expect_status(gyre_block_on(forked->rt, test_task_return, NULL, NULL, NULL), GYRE_CLOSED);
	expect_status(gyre_go(test_task_return, NULL, NULL), GYRE_NO_REACTOR);
	expect(!gyre_current());
	gyre_free(forked->rt);
}

static int task_fork(void *arg)
{
	test_in_child(use_in_child, arg);
	return 0;
}

TEST(handles_in_a_forked_child_say_closed_and_disturb_nobody)
{
	struct forked forked = { .rt = test_open_workers(1) };
	atomic_uint flag = 0;

	forked.job = test_spawn(forked.rt, test_task_until, &flag);
	test_in_child(use_in_child, &forked);
	test_block_on(forked.rt, task_fork, &forked);
	atomic_store(&flag, 1);
	expect_job(forked.job, GYRE_OK);
	gyre_free(forked.rt);
}

struct holders {
	atomic_uint held;
	atomic_bool over;
};

/* What is asked under this lock, and noted, the joins and waits of all runtimes need. */
static void hold_most_of_the_time(void *arg, unsigned number)
{
	struct holders *holders = arg;

	(void)number;
	while (!atomic_load(&holders->over)) {
		gyre__waits_lock();
		atomic_fetch_add(&holders->held, 1);
		sched_yield();
		gyre__waits_unlock();
	}
}

static int task_wait_for_a_job(void *arg)
{
	struct gyre_job *job;

	expect_status(gyre_spawn(NULL, test_task_return, arg, NULL, &job), GYRE_OK);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_OK);
	return 0;
}

static void wait_in_child(void *arg)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_wait_for_a_job, arg);
	gyre_free(rt);
}

TEST(child_that_is_forked_while_others_begin_to_wait_can_wait)
{
	struct holders holders = { .held = 0 };
	struct test_crew crew;
	unsigned i;

	wait_in_child(NULL);
	test_crew_start(&crew, 2, hold_most_of_the_time, &holders);
	await(atomic_load(&holders.held) > 10);
	for (i = 0; i < 10; i++)
		test_in_child(wait_in_child, NULL);
	atomic_store(&holders.over, true);
	test_crew_join(&crew);
}

/* ------------------------------------------------------------ two runtimes -- */

struct pair {
	struct gyre *rts[2];
	atomic_uint asleep, ended;
	enum gyre_status status;
};

static int task_call_the_other(void *arg)
{
	struct pair *pair = arg;
	enum gyre_status status;

	do {
		status = gyre_call(pair->rts[1], prep_nop, NULL, NULL);
		atomic_fetch_add(&pair->asleep, 1);
	} while (status == GYRE_OK);
	expect_status(status, GYRE_CLOSED);
	do
		status = gyre_block_on(pair->rts[1], test_task_return, NULL, NULL, NULL);
	while (status == GYRE_OK);
	expect_status(status, GYRE_CLOSED);
	atomic_fetch_add(&pair->ended, 1);
	return 0;
}

TEST(call_to_another_runtime_while_that_is_being_closed_is_answered)
{
	unsigned round, i;

	for (round = 0; round < test_times(50); round++) {
		struct pair pair = { .rts = { test_open_workers(2), open_draining(2, MS) } };
		struct gyre_job *jobs[8];

		for (i = 0; i < 8; i++)
			jobs[i] = test_spawn_on(pair.rts[0], i % 2, task_call_the_other, &pair);
		await(atomic_load(&pair.asleep) > 50);
		expect_status(gyre_close(pair.rts[1]), GYRE_OK);
		for (i = 0; i < 8; i++)
			expect_job(jobs[i], GYRE_OK);
		gyre_free(pair.rts[1]);
		gyre_free(pair.rts[0]);
	}
}

static int task_sleep_on_the_other(void *arg)
{
	struct pair *pair = arg;

	pair->status = gyre_block_on(pair->rts[1], test_task_sleep, &pair->asleep, NULL, NULL);
	return 0;
}

static int task_free_the_other(void *arg)
{
	struct pair *pair = arg;

	gyre_free(pair->rts[1]);
	return 0;
}

TEST(free_in_a_task_waits_for_another_task_of_its_worker_to_leave)
{
	struct pair pair = { .rts = { test_open_workers(1), open_draining(1, MS) } };
	struct gyre_job *job = test_spawn(pair.rts[0], task_sleep_on_the_other, &pair);

	await(atomic_load(&pair.asleep));
	test_block_on(pair.rts[0], task_free_the_other, &pair);
	expect_job(job, GYRE_OK);
	expect_status(pair.status, GYRE_CANCELLED);
	gyre_free(pair.rts[0]);
}

static int task_close_first(void *arg)
{
	struct pair *pair = arg;

	pair->status = gyre_close(pair->rts[0]);
	atomic_store(&pair->ended, 1);
	return 0;
}

static int task_block_on_closer(void *arg)
{
	struct pair *pair = arg;

	expect_status(gyre_block_on(pair->rts[1], task_close_first, pair, NULL, NULL), GYRE_OK);
	return 7;
}

/* The closer's job is waited for by one of the runtime that is to end. */
TEST(close_of_a_runtime_by_another_ones_task_for_which_it_waits_would_deadlock)
{
	struct pair pair = { .rts = { open_draining(2, GYRE_FOREVER), test_open_workers(1) } };

	expect_eq(test_block_on(pair.rts[0], task_block_on_closer, &pair), 7);
	expect_status(pair.status, GYRE_WOULD_DEADLOCK);
	expect_status(gyre_call(pair.rts[0], prep_nop, NULL, NULL), GYRE_CLOSED);
	gyre_free(pair.rts[1]);
	gyre_free(pair.rts[0]);
}

static int offloaded_close(void *arg)
{
	struct pair *pair = arg;

	pair->status = gyre_close(pair->rts[0]);
	return 0;
}

static int task_offload_close(void *arg)
{
	struct pair *pair = arg;

	expect_status(gyre_offload(NULL, offloaded_close, pair, NULL), GYRE_OK);
	return 8;
}

TEST(close_by_an_offloaded_function_of_its_own_task_would_deadlock)
{
	struct pair pair = { .rts = { open_draining(1, GYRE_FOREVER), NULL } };

	expect_eq(test_block_on(pair.rts[0], task_offload_close, &pair), 8);
	expect_status(pair.status, GYRE_WOULD_DEADLOCK);
	gyre_free(pair.rts[0]);
}

/* The other's worker is about to wake this one's: it holds on, and lets the test go on. */
struct waker {
	atomic_uint held, freed;
	bool too_early;
};

static int hold_the_waker(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	struct waker *waker = arg;
	char name[16];
	unsigned i;

	(void)call;
	(void)fd;
	(void)site;
	pthread_getname_np(pthread_self(), name, sizeof(name));
	if (strcmp(name, "other-0") != 0 || atomic_exchange(&waker->held, 1))
		return 0;
	for (i = 0; i < 100000 && !atomic_load(&waker->freed); i++)
		sched_yield();
	waker->too_early = atomic_load(&waker->freed);
	return 0;
}

struct far_read {
	struct gyre *rts[2];
	struct test_pipe pipe;
};

static int task_far_read(void *arg)
{
	struct far_read *far = arg;
	char byte;
	struct test_io io = { far->pipe.r, &byte, 1, TEST_IO_HERE };

	expect_status(gyre_call(far->rts[1], prep_read, &io, NULL), GYRE_OK);
	return 0;
}

/* Wakes its worker now and then, in the place of who is held. */
static int task_tick(void *flag)
{
	while (!atomic_load((atomic_uint *)flag))
		gyre_sleep(MS);
	return 0;
}

/* True: the other's worker was held between its message to ours and the wake-up. */
static bool free_under_a_waker(struct waker *waker)
{
	struct gyre_options named = { .size = sizeof(named), .workers = 1, .name = "other",
				      .spin_ns = GYRE_SPIN_NEVER };
	struct gyre_options plain = { .size = sizeof(plain), .workers = 1,
				      .spin_ns = GYRE_SPIN_NEVER };
	struct far_read far = { .rts = { test_open(&plain), test_open(&named) },
				.pipe = test_pipe() };
	struct gyre_job *job, *ticker;
	atomic_uint enough = 0;
	bool held;

	*waker = (struct waker){ .held = 0 };
	ticker = test_spawn(far.rts[0], task_tick, &enough);
	job = test_spawn(far.rts[0], task_far_read, &far);
	await(test_stat(far.rts[1], inflight) == 1);
	gyre__fault_hook(GYRE__FAULT_eventfd_write, hold_the_waker, waker);
	expect_eq(write(far.pipe.w, "x", 1), 1);
	expect_job(job, GYRE_OK);
	held = atomic_load(&waker->held);
	atomic_store(&enough, 1);
	expect_job(ticker, GYRE_OK);
	gyre_free(far.rts[0]);
	atomic_store(&waker->freed, 1);
	gyre_free(far.rts[1]);
	gyre__fault_clear();
	test_pipe_close(&far.pipe);
	return held;
}

TEST(free_waits_for_the_worker_of_another_runtime_that_is_about_to_wake_one)
{
	struct waker waker;
	unsigned i;

	gyre__fault_install();
	for (i = 0; i < 100 && !free_under_a_waker(&waker); i++)
		;
	gyre__fault_remove();
	expect_lt(i, 100);
	expect(!waker.too_early);
}

/* ------------------------------------------------------------------- death -- */

struct deaths {
	struct gyre *rt, *other;
	struct test_pipe pipe;
	struct gyre_job *sleeper;	/* on the worker that lives */
	atomic_uint waiting, told;
};

static int told(struct deaths *deaths, enum gyre_status status)
{
	expect(status == GYRE_WORKER_DEAD || status == GYRE_CANCELLED || status == GYRE_BUSY);
	expect_eq(gyre_cancelled(), 1);
	atomic_fetch_add(&deaths->told, 1);
	return 0;
}

static int task_dies_asleep(void *arg)
{
	struct deaths *deaths = arg;

	atomic_fetch_add(&deaths->waiting, 1);
	return told(deaths, gyre_sleep(GYRE_FOREVER));
}

static int task_dies_in_a_read(void *arg)
{
	struct deaths *deaths = arg;
	char byte;
	struct test_io io = { deaths->pipe.r, &byte, 1, TEST_IO_HERE };

	atomic_fetch_add(&deaths->waiting, 1);
	return told(deaths, gyre_call(NULL, prep_read, &io, NULL));
}

static int task_dies_in_a_far_read(void *arg)
{
	struct deaths *deaths = arg;
	char byte;
	struct test_io io = { deaths->pipe.r, &byte, 1, TEST_IO_HERE };
	struct gyre_op op = test_op(prep_read, &io);

	op.worker = GYRE_WORKER(1);
	atomic_fetch_add(&deaths->waiting, 1);
	gyre_callv(NULL, &op, 1);
	return told(deaths, op.status);
}

static int task_dies_in_the_other(void *arg)
{
	struct deaths *deaths = arg;
	char byte;
	struct test_io io = { deaths->pipe.r, &byte, 1, TEST_IO_HERE };

	atomic_fetch_add(&deaths->waiting, 1);
	return told(deaths, gyre_call(deaths->other, prep_read, &io, NULL));
}

static int task_dies_in_a_join(void *arg)
{
	struct deaths *deaths = arg;
	struct gyre_task *task;

	expect_status(gyre_go(test_task_sleep, NULL, &task), GYRE_OK);
	atomic_fetch_add(&deaths->waiting, 1);
	expect_status(gyre_join(task, NULL), GYRE_OK);
	return told(deaths, GYRE_CANCELLED);
}

static int task_dies_in_join_all(void *arg)
{
	struct deaths *deaths = arg;

	expect_status(gyre_go(test_task_sleep, NULL, NULL), GYRE_OK);
	expect_status(gyre_go(test_task_refuse, NULL, NULL), GYRE_OK);
	atomic_fetch_add(&deaths->waiting, 1);
	return told(deaths, gyre_join_all());
}

static int task_dies_in_block_on(void *arg)
{
	struct deaths *deaths = arg;

	atomic_fetch_add(&deaths->waiting, 1);
	return told(deaths, gyre_block_on(NULL, test_task_sleep, NULL, NULL, NULL));
}

static int task_dies_in_far_block_on(void *arg)
{
	struct deaths *deaths = arg;
	struct gyre_job_options options = { .size = sizeof(options), .worker = GYRE_WORKER(1) };

	atomic_fetch_add(&deaths->waiting, 1);
	return told(deaths, gyre_block_on(NULL, test_task_sleep, NULL, &options, NULL));
}

static int task_dies_in_a_job_wait(void *arg)
{
	struct deaths *deaths = arg;

	atomic_fetch_add(&deaths->waiting, 1);
	return told(deaths, gyre_job_wait(deaths->sleeper, GYRE_FOREVER, NULL));
}

static int task_dies_yielding(void *arg)
{
	struct deaths *deaths = arg;

	atomic_fetch_add(&deaths->waiting, 1);
	while (!gyre_cancelled())
		gyre_yield();
	return told(deaths, GYRE_CANCELLED);
}

static void defer_on_the_dead(void *arg)
{
	enum gyre_status status;

	expect_status(gyre_sleep(1), GYRE_CANCELLED);
	status = gyre_call(NULL, prep_nop, NULL, NULL);
	expect(status == GYRE_WORKER_DEAD || status == GYRE_CANCELLED);
	atomic_fetch_add(&((struct deaths *)arg)->told, 1);
}

static int task_dies_with_defers(void *arg)
{
	struct deaths *deaths = arg;

	expect_status(gyre_defer(defer_on_the_dead, deaths), GYRE_OK);
	atomic_fetch_add(&deaths->waiting, 1);
	return test_task_refuse(NULL);
}

static gyre_task_fn *const dying[] = {
	task_dies_asleep, task_dies_in_a_read, task_dies_in_a_far_read, task_dies_in_the_other,
	task_dies_in_a_join, task_dies_in_join_all, task_dies_in_block_on,
	task_dies_in_far_block_on, task_dies_in_a_job_wait, task_dies_yielding,
	task_dies_with_defers,
};

static void kill_first_worker(struct gyre *rt)
{
	gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	while (test_stat(rt, workers_dead) == 0) {
		struct gyre_op op = test_op(prep_nop, NULL);

		op.worker = GYRE_WORKER(0);
		gyre_callv(rt, &op, 1);
	}
}

TEST(scenario_5_jobs_of_a_worker_that_dies_end_in_whatever_they_wait_for_and_others_go_on)
{
	struct gyre_options named = { .size = sizeof(named), .workers = 1, .name = "other" };
	struct gyre_job *jobs[2 * LENGTH(dying)], *living, *late = NULL;
	struct gyre_job_options options = { .size = sizeof(options), .worker = GYRE_WORKER(0) };
	struct deaths deaths;
	atomic_uint flag = 0;
	unsigned i;

	gyre__fault_install();
	deaths = (struct deaths){ .rt = test_open_workers(2), .other = test_open(&named),
				  .pipe = test_pipe() };
	deaths.sleeper = test_spawn_on(deaths.rt, 1, test_task_sleep, NULL);
	living = test_spawn_on(deaths.rt, 1, test_task_until, &flag);
	for (i = 0; i < LENGTH(jobs); i++) {
		if (dying[i % LENGTH(dying)] == task_dies_in_a_job_wait && i >= LENGTH(dying))
			jobs[i] = test_spawn_on(deaths.rt, 0, task_dies_asleep, &deaths);
		else
			jobs[i] = test_spawn_on(deaths.rt, 0, dying[i % LENGTH(dying)], &deaths);
	}
	await(atomic_load(&deaths.waiting) == LENGTH(jobs));
	kill_first_worker(deaths.rt);
	for (i = 0; i < LENGTH(jobs); i++) {
		test_row("job %u", i);
		expect_job(jobs[i], GYRE_WORKER_DEAD);
		expect_eq(gyre_last_effect(), GYRE_EFFECT_UNKNOWN);
	}
	expect_eq(atomic_load(&deaths.told), LENGTH(jobs));
	expect_status(gyre_spawn(deaths.rt, test_task_return, NULL, &options, &late),
		      GYRE_WORKER_DEAD);
	expect_status(gyre_block_on(deaths.rt, test_task_return, NULL, &options, NULL),
		      GYRE_WORKER_DEAD);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	for (i = 0; i < 10; i++)
		expect_eq(test_block_on(deaths.rt, test_task_return, (void *)2), 2);
	expect_status(gyre_job_wait(living, 0, NULL), GYRE_BUSY);
	atomic_store(&flag, 1);
	expect_job(living, GYRE_OK);
	gyre_job_cancel(deaths.sleeper);
	expect_job(deaths.sleeper, GYRE_CANCELLED);
	expect_eq(test_stat(deaths.rt, jobs_running), 0);
	expect_eq(test_stat(deaths.rt, tasks_live), 0);
	gyre_free(deaths.other);
	gyre_free(deaths.rt);
	gyre__fault_remove();
	test_pipe_close(&deaths.pipe);
}

TEST(when_no_worker_is_left_every_job_is_refused_at_once)
{
	struct gyre_job *job = NULL;
	struct gyre *rt;

	gyre__fault_install();
	rt = test_open_workers(1);
	kill_first_worker(rt);
	expect_status(gyre_block_on(rt, test_task_return, NULL, NULL, NULL), GYRE_WORKER_DEAD);
	expect_status(gyre_spawn(rt, test_task_return, NULL, NULL, &job), GYRE_WORKER_DEAD);
	expect(!job);
	expect_status(gyre_close(rt), GYRE_OK);
	gyre_free(rt);
	gyre__fault_remove();
}

struct traffic {
	struct gyre *rt;
	atomic_uint answered;
};

static int task_busy(void *arg)
{
	struct gyre_task *task;
	enum gyre_status status;

	(void)arg;
	if (gyre_go(test_task_return, (void *)1, &task) == GYRE_OK)
		gyre_join(task, NULL);
	status = gyre_call(NULL, prep_nop, NULL, NULL);
	if (status == GYRE_OK)
		status = gyre_block_on(NULL, test_task_return, NULL, NULL, NULL);
	return status;
}

static void run_until_dead(void *arg, unsigned number)
{
	struct traffic *traffic = arg;
	struct gyre_job_options options = { .size = sizeof(options),
					    .worker = GYRE_WORKER(number % 2) };
	enum gyre_status status;
	unsigned i = 0;

	do {
		status = gyre_block_on(traffic->rt, task_busy, NULL, number < 8 ? &options : NULL,
				       NULL);
		atomic_fetch_add(&traffic->answered, 1);
		expect(status == GYRE_OK || status == GYRE_WORKER_DEAD);
	} while (status == GYRE_OK || (number >= 8 && i++ < 20));
	if (number % 2 && number < 8)
		expect_status(status, GYRE_WORKER_DEAD);
}

TEST(deaths_in_the_middle_of_jobs_leave_no_caller_hanging)
{
	unsigned round;

	for (round = 0; round < test_times(20); round++) {
		struct traffic traffic;
		struct test_crew crew;

		gyre__fault_install();
		traffic = (struct traffic){ .rt = test_open_workers(2) };
		test_crew_start(&crew, 12, run_until_dead, &traffic);
		await(atomic_load(&traffic.answered) > 20 * round);
		gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER,
				   -EBADR);
		gyre__fault_set_on("gyre-1", GYRE__FAULT_uring_enter, 20, GYRE__FAULT_FOREVER,
				   -EBADR);
		test_crew_join(&crew);
		gyre_free(traffic.rt);
		gyre__fault_remove();
	}
}

/* ------------------------------------------------------------------- want -- */

/* Whatever is refused in here must be an answer in words, and nothing else. */
static int task_in_want(void *arg)
{
	struct gyre_job_options options = { .size = sizeof(options), .worker = GYRE_WORKER(1),
					    .name = "want", .stack_size = 32 << 10 };
	struct gyre_op ops[40];
	struct gyre_task *task;
	enum gyre_status status;
	unsigned i, failed = 0;

	(void)arg;
	for (i = 0; i < LENGTH(ops); i++)
		ops[i] = test_op(prep_nop, NULL);
	for (i = 0; i < 70; i++) {
		status = gyre_go(test_task_return, NULL, &task);
		failed += status != GYRE_OK;
		expect(status == GYRE_OK || status == GYRE_NO_MEMORY);
		if (status == GYRE_OK)
			expect_status(gyre_join(task, NULL), GYRE_OK);
	}
	failed += !gyre_alloc(100000) + !gyre_alloc(1000000);
	status = gyre_defer((void (*)(void *))(void *)test_task_return, NULL);
	failed += status != GYRE_OK;
	status = gyre_block_on(NULL, test_task_return, NULL, &options, NULL);
	expect(status == GYRE_OK || status == GYRE_NO_MEMORY);
	failed += status != GYRE_OK;
	options.worker = 0;
	status = gyre_block_on(NULL, test_task_return, NULL, &options, NULL);
	expect(status == GYRE_OK || status == GYRE_NO_MEMORY);
	failed += status != GYRE_OK;
	status = gyre_callv(NULL, ops, LENGTH(ops));
	expect(status == GYRE_OK || status == GYRE_NO_MEMORY);
	failed += status != GYRE_OK;
	if (failed)
		expect(gyre_last_status() != GYRE_OK || failed);
	return (int)failed;
}

struct attempt {
	struct gyre *rt;
	bool failed;
};

static void run_in_want(void *arg, unsigned number)
{
	struct attempt *attempt = arg;
	struct gyre_job_options options = { .size = sizeof(options), .worker = GYRE_WORKER(0) };
	struct gyre_job *job = NULL;
	enum gyre_status status;
	int result = 0;

	(void)number;
	status = gyre_block_on(attempt->rt, task_in_want, NULL, &options, &result);
	expect(status == GYRE_OK || status == GYRE_NO_MEMORY);
	attempt->failed = status != GYRE_OK || result;
	status = gyre_spawn(attempt->rt, test_task_return, NULL, NULL, &job);
	if (status == GYRE_OK)
		status = gyre_job_wait(job, GYRE_FOREVER, NULL);
	else
		expect(!job);
	expect(status == GYRE_OK || status == GYRE_NO_MEMORY);
	attempt->failed |= status != GYRE_OK;
}

TEST(scenario_8_jobs_survive_the_refusal_of_each_allocation_and_mapping_in_turn)
{
	static const enum gyre__fault_call calls[] = { GYRE__FAULT_alloc, GYRE__FAULT_mmap,
						       GYRE__FAULT_madvise };
	unsigned i, nth, fine;

	gyre__fault_install();
	for (i = 0; i < LENGTH(calls); i++) {
		for (nth = 0, fine = 0; fine < 2; nth++) {
			struct attempt attempt = { .rt = test_open_workers(2) };

			test_row("%s %u", gyre__fault_name(calls[i]), nth);
			gyre__fault_set(calls[i], nth, 1, -ENOMEM);
			run_in_want(&attempt, 0);
			fine = gyre__fault_hits(calls[i]) ? 0 : fine + 1;
			gyre__fault_clear();
			run_in_want(&attempt, 0);
			expect(!attempt.failed);
			gyre_free(attempt.rt);
		}
		expect_gt(nth, 2);
	}
	gyre__fault_remove();
}

TEST_MAIN()
