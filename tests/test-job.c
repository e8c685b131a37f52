/* SPDX-License-Identifier: MIT */
/*
 * Jobs from outside: started, waited for, cancelled, given up, timed, and what
 * waits in a circle. How they end with their runtime: test-job-end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "leak.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))
#define MS		UINT64_C(1000000)

static struct gyre_job_options job_options(void)
{
	struct gyre_job_options options = { .size = sizeof(options) };

	return options;
}

/* ------------------------------------------------------------ the answers -- */

TEST(block_on_gives_what_the_function_returned)
{
	static const int results[] = { 0, 1, -1, 42, INT32_MAX, INT32_MIN };
	struct gyre *rt = test_open_workers(2);
	unsigned i;

	for (i = 0; i < LENGTH(results); i++)
		expect_eq(test_block_on(rt, test_task_return, (void *)(intptr_t)results[i]),
			  results[i]);
	expect_status(gyre_last_status(), GYRE_OK);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
	expect_status(gyre_block_on(rt, test_task_return, NULL, NULL, NULL), GYRE_OK);
	gyre_free(rt);
}

TEST(spawned_job_is_waited_for_or_detached_or_nobodys)
{
	struct gyre *rt = test_open_workers(2);
	struct gyre_job *job = test_spawn(rt, test_task_return, (void *)7);
	int result = 0;

	expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_OK);
	expect_eq(result, 7);
	gyre_job_detach(test_spawn(rt, test_task_return, NULL));
	expect_status(gyre_spawn(rt, test_task_return, NULL, NULL, NULL), GYRE_OK);
	await(test_stat(rt, jobs_finished) == 3);
	expect_eq(test_stat(rt, jobs_running), 0);
	gyre_free(rt);
}

TEST(handle_of_a_job_that_has_ended_gives_its_result_without_waiting)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_job *job = test_spawn(rt, test_task_return, (void *)9);
	int result = 0;

	await(test_stat(rt, jobs_finished) == 1);
	while (gyre_job_wait(job, 0, &result) == GYRE_BUSY)
		;
	expect_eq(result, 9);
	gyre_free(rt);
}

TEST(job_that_has_not_ended_is_busy_and_its_handle_stays)
{
	struct gyre *rt = test_open_workers(1);
	atomic_uint flag = 0;
	struct gyre_job *job = test_spawn(rt, test_task_until, &flag);
	int result = 4711;

	expect_status(gyre_job_wait(job, 0, &result), GYRE_BUSY);
	expect_contains(gyre_last_error(), "gyre_job_wait");
	expect_contains(gyre_last_error(), "still good");
	expect_status(gyre_job_wait(job, 1, &result), GYRE_BUSY);
	expect_status(gyre_job_wait(job, MS, &result), GYRE_BUSY);
	expect_eq(result, 4711);
	atomic_store(&flag, 1);
	expect_status(gyre_job_wait(job, UINT64_MAX - 1, &result), GYRE_OK);
	expect_eq(result, 3);
	gyre_free(rt);
}

struct witness {
	struct gyre *rt;
	int worker;
	struct gyre *current;
	int tid;
	char name[64];
};

static int task_witness(void *arg)
{
	struct witness *witness = arg;

	witness->worker = gyre_current_worker();
	witness->current = gyre_current();
	witness->tid = gettid();
	pthread_getname_np(pthread_self(), witness->name, sizeof(witness->name));
	return 0;
}

TEST(worker_that_the_options_name_runs_it)
{
	struct gyre *rt = test_open_workers(3);
	unsigned worker;

	for (worker = 0; worker < 3; worker++) {
		struct gyre_job_options options = job_options();
		struct witness witness = { .worker = -1 };

		options.worker = GYRE_WORKER(worker);
		expect_status(gyre_block_on(rt, task_witness, &witness, &options, NULL), GYRE_OK);
		expect_eq(witness.worker, worker);
		expect(witness.current == rt);
		expect_job(test_spawn_on(rt, worker, task_witness, &witness), GYRE_OK);
		expect_eq(witness.worker, worker);
	}
	gyre_free(rt);
}

TEST(scenario_2_five_jobs_in_a_row_use_one_worker_thread_with_its_name)
{
	struct gyre *rt = test_open_workers(3);
	struct witness first, next;
	unsigned i;
	int tid;

	test_block_on(rt, task_witness, &first);
	for (i = 0; i < 4; i++) {
		test_block_on(rt, task_witness, &next);
		expect_eq(next.tid, first.tid);
		expect_str(next.name, first.name);
	}
	expect_eq(test_find_thread(first.name, &tid), 1);
	expect_eq(tid, first.tid);
	gyre_free(rt);
}

/* --------------------------------------------------- arguments, options -- */

struct big {
	unsigned char bytes[5000];
};

static int task_sum(void *arg)
{
	const struct big *big = arg;
	unsigned i;
	int sum = 0;

	for (i = 0; i < sizeof(big->bytes); i++)
		sum += big->bytes[i];
	expect_eq((uintptr_t)arg % _Alignof(max_align_t), 0);
	return sum;
}

TEST(argument_is_copied_where_its_size_is_given)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_job_options options = job_options();
	struct gyre_job *jobs[20];
	struct big big;
	unsigned i;
	int result;

	options.arg_size = sizeof(big);
	options.name = "summation";
	for (i = 0; i < LENGTH(jobs); i++) {
		memset(&big, (int)i, sizeof(big));
		expect_status(gyre_spawn(rt, task_sum, &big, &options, &jobs[i]), GYRE_OK);
	}
	memset(&big, 0xff, sizeof(big));
	for (i = 0; i < LENGTH(jobs); i++) {
		expect_status(gyre_job_wait(jobs[i], GYRE_FOREVER, &result), GYRE_OK);
		expect_eq(result, i * sizeof(big));
	}
	memset(&big, 3, sizeof(big));
	expect_status(gyre_block_on(rt, task_sum, &big, &options, &result), GYRE_OK);
	expect_eq(result, 3 * sizeof(big));
	gyre_free(rt);
}

TEST(argument_that_does_not_fit_is_no_memory_and_the_job_never_began)
{
	static const size_t sizes[] = { (size_t)1 << 40, SIZE_MAX / 2, SIZE_MAX };
	struct gyre *rt = test_open_workers(1);
	static struct big big;
	unsigned i;

	for (i = 0; i < LENGTH(sizes); i++) {
		struct gyre_job_options options = job_options();
		int result = 4711;

		test_row("%zu bytes", sizes[i]);
		options.arg_size = sizes[i];
		expect_status(gyre_block_on(rt, test_task_until, &big, &options, &result),
			      GYRE_NO_MEMORY);
		expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
		expect_contains(gyre_last_error(), "gyre_block_on");
		expect_contains(gyre_last_error(), "arena_max");
		expect_eq(result, 4711);
	}
	expect_eq(test_stat(rt, jobs_started), 0);
	expect_eq(test_block_on(rt, test_task_return, (void *)1), 1);
	gyre_free(rt);
}

struct bad_options {
	const char *what;
	size_t at, width;
	uint64_t value;
	enum gyre_status status;
};

#define OPTION(field)	offsetof(struct gyre_job_options, field), \
			sizeof(((struct gyre_job_options *)0)->field)

static const struct bad_options bad_options[] = {
	{ "size 0", OPTION(size), 0, GYRE_INVALID },
	{ "size 1", OPTION(size), 1, GYRE_INVALID },
	{ "a byte too small", OPTION(size), sizeof(struct gyre_job_options) - 1, GYRE_INVALID },
	{ "twice as large, zero to its end", OPTION(size), 2 * sizeof(struct gyre_job_options),
	  GYRE_OK },
	{ "a page", OPTION(size), 4096, GYRE_OK },
	{ "more than a page", OPTION(size), 4097, GYRE_INVALID },
	{ "everything", OPTION(size), SIZE_MAX, GYRE_INVALID },
	{ "a worker too many", OPTION(worker), 3, GYRE_INVALID },
	{ "worker -1", OPTION(worker), UINT32_MAX, GYRE_INVALID },
	{ "a stack of a byte", OPTION(stack_size), 1, GYRE_INVALID },
	{ "a stack of a byte too few", OPTION(stack_size), (16 << 10) - 1, GYRE_INVALID },
	{ "the smallest stack", OPTION(stack_size), 16 << 10, GYRE_OK },
	{ "an odd stack", OPTION(stack_size), (16 << 10) + 1, GYRE_OK },
	{ "a stack of 1 TiB", OPTION(stack_size), UINT64_C(1) << 40, GYRE_INVALID },
	{ "a stack of everything", OPTION(stack_size), SIZE_MAX, GYRE_INVALID },
	{ "an arena of everything", OPTION(arena_max), SIZE_MAX, GYRE_OK },
	{ "an arena of a byte", OPTION(arena_max), 1, GYRE_OK },
	{ "mode 4", OPTION(mode), 4, GYRE_INVALID },
	{ "mode -1", OPTION(mode), UINT32_MAX, GYRE_INVALID },
	{ "a time-out without end", OPTION(timeout_ns), UINT64_MAX, GYRE_OK },
	{ "a time-out that overflows", OPTION(timeout_ns), UINT64_MAX - 1, GYRE_OK },
	{ "a size without an argument", OPTION(arg_size), 8, GYRE_INVALID },
};

static union { struct gyre_job_options options; char bytes[8192]; } roomy;

TEST(options_that_are_wrong_are_invalid_and_said_to_be)
{
	struct gyre_job *const untouched = (struct gyre_job *)(uintptr_t)0x1234;
	struct gyre *rt = test_open_workers(2);
	unsigned i;

	for (i = 0; i < LENGTH(bad_options); i++) {
		const struct bad_options *bad = &bad_options[i];
		struct gyre_job *job = untouched;
		int result = 4711;

		test_row("%s", bad->what);
		memset(&roomy, 0, sizeof(roomy));
		roomy.options.size = sizeof(struct gyre_job_options);
		memcpy(roomy.bytes + bad->at, &bad->value, bad->width);
		expect_eq(gyre_block_on(rt, test_task_return, NULL, &roomy.options, &result),
			  bad->status);
		expect_eq(result, bad->status == GYRE_OK ? 0 : 4711);
		if (bad->status != GYRE_OK)
			expect_contains(gyre_last_error(), "gyre_block_on");
		expect_eq(gyre_spawn(rt, test_task_return, NULL, &roomy.options, &job),
			  bad->status);
		if (bad->status == GYRE_OK) {
			expect_job(job, GYRE_OK);
			continue;
		}
		expect(job == untouched);
		expect_contains(gyre_last_error(), "gyre_spawn");
	}
	gyre_free(rt);
}

TEST(bits_past_the_end_of_the_options_are_invalid)
{
	struct gyre *rt = test_open_workers(1);
	size_t at;

	for (at = sizeof(struct gyre_job_options); at < 4096; at += at < 120 ? 1 : 97) {
		test_row("byte %zu", at);
		memset(&roomy, 0, sizeof(roomy));
		roomy.options.size = 4096;
		roomy.bytes[at] = 1;
		expect_status(gyre_spawn(rt, test_task_return, NULL, &roomy.options, NULL),
			      GYRE_INVALID);
	}
	expect_eq(test_stat(rt, jobs_started), 0);
	gyre_free(rt);
}

TEST(null_function_is_invalid)
{
	struct gyre_job *const untouched = (struct gyre_job *)(uintptr_t)0x1234;
	struct gyre *rt = test_open_workers(1);
	struct gyre_job *job = untouched;
	int result = 4711;

	expect_status(gyre_block_on(rt, NULL, NULL, NULL, &result), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_block_on");
	expect_eq(result, 4711);
	expect_status(gyre_spawn(rt, NULL, NULL, NULL, &job), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_spawn");
	expect(job == untouched);
	expect_status(gyre_job_wait(NULL, 0, &result), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_job_wait");
	gyre_job_cancel(NULL);
	gyre_job_detach(NULL);
	gyre_free(rt);
}

/* -------------------------------------------------------------- parallel -- */

struct meeting {
	struct gyre *rt;
	unsigned expected;
	atomic_uint there;
};

/* Returns once all the others are there, too: they run at the same time, or never end. */
static int task_meet(void *arg)
{
	struct meeting *meeting = arg;

	atomic_fetch_add(&meeting->there, 1);
	while (atomic_load(&meeting->there) < meeting->expected)
		expect_status(gyre_sleep(MS), GYRE_OK);
	return 0;
}

static void meet_in_a_job(void *arg, unsigned number)
{
	struct meeting *meeting = arg;

	(void)number;
	test_block_on(meeting->rt, task_meet, meeting);
}

TEST(scenario_3_sixteen_jobs_of_sixteen_callers_run_on_one_worker_together)
{
	struct meeting meeting = { .expected = 16 };

	meeting.rt = test_open_workers(1);
	test_crew_run(16, meet_in_a_job, &meeting);
	gyre_free(meeting.rt);
}

TEST(thousand_jobs_queued_by_one_thread_all_run_at_once)
{
	struct meeting meeting = { .expected = 1000 };
	static struct gyre_job *jobs[1000];
	unsigned i;

	meeting.rt = test_open_workers(2);
	for (i = 0; i < 1000; i++)
		jobs[i] = test_spawn(meeting.rt, task_meet, &meeting);
	for (i = 0; i < 1000; i++)
		expect_job(jobs[i], GYRE_OK);
	expect_eq(test_stat(meeting.rt, jobs_finished), 1000);
	gyre_free(meeting.rt);
}

static void many_jobs(void *arg, unsigned number)
{
	unsigned i;

	for (i = 0; i < test_times(500); i++) {
		intptr_t want = (intptr_t)(number * 1000 + i);
		struct gyre_job *job;
		int result = -1;

		expect_eq(test_block_on(arg, test_task_return, (void *)want), want);
		job = test_spawn(arg, test_task_return, (void *)(want + 1));
		expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_OK);
		expect_eq(result, want + 1);
	}
}

TEST(sixteen_threads_get_each_their_own_results)
{
	struct gyre *rt = test_open_workers(2);

	test_crew_run(16, many_jobs, rt);
	await(test_stat(rt, stacks_live) == 0);
	expect_eq(test_stat(rt, jobs_finished), 16 * 2 * test_times(500));
	expect_eq(test_stat(rt, tasks_started), 16 * 2 * test_times(500));
	expect_eq(test_stat(rt, tasks_live), 0);
	expect_eq(test_stat(rt, arena_bytes), 0);
	gyre_free(rt);
}

static int task_work(void *arg)
{
	struct gyre_task *task;
	int result;

	(void)arg;
	expect(gyre_alloc(100) != NULL);
	expect_status(gyre_go(test_task_return, (void *)3, &task), GYRE_OK);
	expect_status(gyre_go(test_task_sleep, NULL, NULL), GYRE_OK);
	expect_status(gyre_join(task, &result), GYRE_OK);
	expect_eq(result, 3);
	return (int)(uintptr_t)gyre_alloc(40000) == 0;
}

static unsigned long resident_pages(void)
{
	unsigned long size = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	expect(file != NULL);
	expect_eq(fscanf(file, "%lu %lu", &size, &resident), 2);
	fclose(file);
	return resident;
}

TEST(scenario_12_ten_thousand_times_the_same_job_leaves_everything_flat)
{
	struct gyre *rt = test_open_workers(1);
	unsigned allocations = 0, i, times = test_times(10000);
	struct gyre_stats before, after;
	unsigned long pages = 0;

	for (i = 0; i < times; i++) {
		expect_eq(test_block_on(rt, task_work, NULL), 0);
		if (i != times / 10)
			continue;
		await(test_stat(rt, stacks_live) == 0);
		before = test_stats(rt);
		allocations = leak_allocations();
		pages = resident_pages();
	}
	await(test_stat(rt, stacks_live) == 0);
	after = test_stats(rt);
	expect_eq(leak_allocations(), allocations);
	if (!TEST_UNDER_SANITIZER)
		expect_lt(resident_pages(), pages + 256);
	expect_eq(after.stacks_cached, before.stacks_cached);
	expect_eq(after.arena_bytes, 0);
	expect_eq(after.arena_bytes_max, before.arena_bytes_max);
	expect_eq(after.tasks_live, 0);
	expect_eq(after.tasks_started, 3 * times);
	expect_eq(after.tasks_leftover, times);
	expect_eq(after.jobs_finished, times);
	expect_eq(after.inflight, 0);
	gyre_free(rt);
}

/* ---------------------------------------------------------------- cancel -- */

TEST(cancelled_job_says_so_and_may_have_done_something)
{
	struct gyre *rt = test_open_workers(1);
	atomic_uint asleep = 0;
	struct gyre_job *job = test_spawn(rt, test_task_sleep, &asleep);
	int result = 4711;

	await(atomic_load(&asleep));
	gyre_job_cancel(job);
	gyre_job_cancel(job);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_CANCELLED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_UNKNOWN);
	expect_contains(gyre_last_error(), "gyre_job_wait");
	expect_eq(test_stat(rt, jobs_cancelled), 1);
	gyre_free(rt);
}

TEST(job_that_refuses_to_stop_is_dropped_and_waited_for)
{
	struct gyre *rt = test_open_workers(1);
	atomic_uint asleep = 0;
	struct gyre_job *job = test_spawn(rt, test_task_refuse, &asleep);

	await(atomic_load(&asleep));
	gyre_job_cancel(job);
	expect_job(job, GYRE_CANCELLED);
	gyre_free(rt);
}

/* It never waits, so nothing reaches its worker. */
static int task_computes_until_cancelled(void *started)
{
	atomic_store((atomic_uint *)started, 1);
	while (!gyre_cancelled())
		;
	expect_status(gyre_sleep(GYRE_FOREVER), GYRE_CANCELLED);
	return 5;
}

static int task_spawn_elsewhere_and_cancel(void *started)
{
	struct gyre_job_options options = { .size = sizeof(options), .worker = GYRE_WORKER(1) };
	struct gyre_job *job;

	expect_status(gyre_spawn(NULL, task_computes_until_cancelled, started, &options, &job),
		      GYRE_OK);
	while (!atomic_load((atomic_uint *)started))
		gyre_yield();
	gyre_job_cancel(job);
	expect_job(job, GYRE_CANCELLED);
	return 0;
}

TEST(computation_that_asks_whether_it_is_cancelled_is_told)
{
	struct gyre_job_options options = { .size = sizeof(options), .timeout_ns = MS };
	struct gyre *rt = test_open_workers(2);
	atomic_uint started = 0;
	struct gyre_job *job = test_spawn(rt, task_computes_until_cancelled, &started);
	int result = 0;

	await(atomic_load(&started));
	gyre_job_cancel(job);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_CANCELLED);
	expect_eq(result, 5);
	result = 0;
	/* One that is over before it begins proves nothing: again, with more time. */
	for (atomic_store(&started, 0); !atomic_load(&started); options.timeout_ns *= 2)
		expect_status(gyre_block_on(rt, task_computes_until_cancelled, &started, &options,
					    &result), GYRE_TIMED_OUT);
	expect_eq(result, 5);
	options.timeout_ns = 0;
	options.worker = GYRE_WORKER(0);
	atomic_store(&started, 0);
	expect_status(gyre_block_on(rt, task_spawn_elsewhere_and_cancel, &started, &options,
				    NULL), GYRE_OK);
	gyre_free(rt);
}

TEST(cancel_of_what_has_ended_does_nothing)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_job *job = test_spawn(rt, test_task_return, (void *)5);
	int result = 0;

	await(test_stat(rt, jobs_finished) == 1);
	gyre_job_cancel(job);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_OK);
	expect_eq(result, 5);
	gyre_free(rt);
}

struct two_jobs {
	struct gyre *rt;
	struct gyre_job *job;
	atomic_uint asleep, started;
};

static int task_spawn_and_cancel(void *arg)
{
	struct two_jobs *two = arg;

	expect_status(gyre_spawn(NULL, test_task_sleep, &two->asleep, NULL, &two->job), GYRE_OK);
	gyre_job_cancel(two->job);
	expect_job(two->job, GYRE_CANCELLED);
	return 0;
}

TEST(cancel_before_the_first_line_lets_the_first_wait_say_so)
{
	struct two_jobs two = { .rt = test_open_workers(1) };

	test_block_on(two.rt, task_spawn_and_cancel, &two);
	expect_eq(atomic_load(&two.asleep), 1);
	gyre_free(two.rt);
}

/* Keeps its worker until another thread has sent a job there, which it cancels then. */
static int task_cancel_what_is_on_its_way(void *arg)
{
	struct two_jobs *two = arg;

	atomic_store(&two->started, 1);
	while (atomic_load(&two->started) != 2)
		;
	gyre_job_cancel(two->job);
	return 0;
}

TEST(cancel_overtakes_no_start_that_is_on_its_way)
{
	struct two_jobs two = { .rt = test_open_workers(1) };
	struct gyre_job *canceller = test_spawn(two.rt, task_cancel_what_is_on_its_way, &two);

	await(atomic_load(&two.started) == 1);
	two.job = test_spawn(two.rt, test_task_sleep, NULL);
	atomic_store(&two.started, 2);
	expect_job(canceller, GYRE_OK);
	expect_job(two.job, GYRE_CANCELLED);
	gyre_free(two.rt);
}

static void prep_cancel_job(struct io_uring_sqe *sqe, void *arg)
{
	gyre_job_cancel(arg);
	io_uring_prep_nop(sqe);
}

TEST(cancel_in_a_prep_closure_works)
{
	struct gyre *rt = test_open_workers(1);
	atomic_uint asleep = 0;
	struct gyre_job *job = test_spawn(rt, test_task_sleep, &asleep);

	await(atomic_load(&asleep));
	expect_status(gyre_call(rt, prep_cancel_job, job, NULL), GYRE_OK);
	expect_job(job, GYRE_CANCELLED);
	gyre_free(rt);
}

static void prep_cancel_own_job(struct io_uring_sqe *sqe, void *arg)
{
	struct two_jobs *two = arg;

	gyre_job_cancel(two->job);
	io_uring_prep_nop(sqe);
}

static int task_whose_prep_cancels_it(void *arg)
{
	struct two_jobs *two = arg;
	struct gyre_op ops[3] = { test_op(prep_nop, NULL), test_op(prep_cancel_own_job, two),
				  test_op(prep_nop, NULL) };
	unsigned i;

	while (!atomic_load(&two->started))
		gyre_yield();
	gyre_callv(NULL, ops, 3);
	for (i = 0; i < 3; i++)
		expect(ops[i].status == GYRE_OK || ops[i].status == GYRE_CANCELLED);
	expect_eq(gyre_cancelled(), 1);
	return 0;
}

TEST(cancel_of_the_job_whose_prep_closure_asks_answers_each_op_once)
{
	struct two_jobs two = { .rt = test_open_workers(1) };

	two.job = test_spawn(two.rt, task_whose_prep_cancels_it, &two);
	atomic_store(&two.started, 1);
	expect_job(two.job, GYRE_CANCELLED);
	gyre_free(two.rt);
}

struct race {
	struct gyre *rt;
	struct gyre_job *job;
	atomic_uint go, flag;
};

static int task_short(void *arg)
{
	struct race *race = arg;
	unsigned i;

	atomic_store(&race->go, 1);
	for (i = 0; i < 3; i++)
		gyre_yield();
	return 1;
}

static void cancel_soon(void *arg, unsigned number)
{
	struct race *race = arg;

	(void)number;
	gyre_job_cancel(race->job);
}

TEST(cancel_against_the_end_gives_one_of_two_answers)
{
	struct gyre *rt = test_open_workers(2);
	unsigned i, cancelled = 0;

	for (i = 0; i < test_times(1000); i++) {
		struct race race = { .rt = rt };
		struct test_crew crew;
		enum gyre_status status;

		race.job = test_spawn(rt, task_short, &race);
		if (i % 2)
			await(atomic_load(&race.go));
		test_crew_start(&crew, 2, cancel_soon, &race);
		if (i % 4 > 1)
			cancel_soon(&race, 0);
		test_crew_join(&crew);
		status = gyre_job_wait(race.job, GYRE_FOREVER, NULL);
		expect(status == GYRE_OK || status == GYRE_CANCELLED);
		cancelled += status == GYRE_CANCELLED;
	}
	test_note("%u of %u were cancelled", cancelled, i);
	expect_eq(test_stat(rt, jobs_cancelled), cancelled);
	gyre_free(rt);
}

/* Starts, cancels and gives up at once: the worker has the last reference, or not. */
static void spawn_cancel_detach(void *arg, unsigned number)
{
	unsigned i;

	for (i = 0; i < 50; i++) {
		struct gyre_job *job = test_spawn(arg, test_task_sleep, NULL);

		if (number % 2)
			gyre_job_wait(job, 0, NULL);
		gyre_job_cancel(job);
		gyre_job_detach(job);
	}
}

TEST(jobs_cancelled_and_detached_at_once_leave_nothing)
{
	struct gyre *rt = test_open_workers(2);
	unsigned round;

	for (round = 1; round <= test_times(10); round++) {
		test_crew_run(12, spawn_cancel_detach, rt);
		await(test_stat(rt, jobs_finished) == 12 * 50 * round);
	}
	gyre_free(rt);
}

/* ------------------------------------------------------------- time-outs -- */

TEST(job_past_its_time_out_says_timed_out)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_job_options options = job_options();
	struct gyre_job *job;
	int result = 4711;

	/* Enough for it to begin on a busy machine. */
	options.timeout_ns = 200 * MS;
	expect_status(gyre_block_on(rt, test_task_sleep, NULL, &options, &result), GYRE_TIMED_OUT);
	expect_contains(gyre_last_error(), "gyre_block_on");
	expect_contains(gyre_last_error(), "the job was cancelled; what it has done");
	expect_status(gyre_block_on(rt, test_task_refuse, NULL, &options, &result), GYRE_TIMED_OUT);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_UNKNOWN);
	expect_status(gyre_spawn(rt, test_task_sleep, NULL, &options, &job), GYRE_OK);
	expect_job(job, GYRE_TIMED_OUT);
	options.timeout_ns = 3600 * 1000 * MS;
	expect_status(gyre_block_on(rt, test_task_return, NULL, &options, &result), GYRE_OK);
	gyre_free(rt);
}

/* Keeps the worker until the other job's time must be over. */
static int task_spawn_late(void *arg)
{
	struct gyre_job_options options = job_options();
	struct gyre_job *job;

	options.timeout_ns = 1;
	options.worker = GYRE_WORKER(gyre_current_worker() == 0);
	expect_status(gyre_spawn(NULL, test_task_return, NULL, &options, &job), GYRE_OK);
	expect_job(job, GYRE_TIMED_OUT);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_contains(gyre_last_error(), "never began");
	(void)arg;
	return 0;
}

TEST(time_out_that_is_over_before_the_start_had_no_effect)
{
	struct gyre *rt = test_open_workers(2);

	test_block_on(rt, task_spawn_late, NULL);
	expect_eq(test_stat(rt, jobs_started), 1);
	gyre_free(rt);
}

TEST(waits_with_time_outs_race_with_the_end_and_lose_nothing)
{
	struct gyre *rt = test_open_workers(2);
	uint64_t state = test_seed();
	unsigned i, busy = 0;

	for (i = 0; i < test_times(2000); i++) {
		struct race race = { .rt = rt };
		struct gyre_job *job = test_spawn(rt, task_short, &race);
		enum gyre_status status;
		int result = 0;

		while ((status = gyre_job_wait(job, 1 + test_random_below(&state, 30000),
					       &result)) == GYRE_BUSY)
			busy++;
		expect_status(status, GYRE_OK);
		expect_eq(result, 1);
	}
	test_note("%u waits were too short", busy);
	gyre_free(rt);
}

static int task_wait_again_and_again(void *arg)
{
	uint64_t state = (uint64_t)(uintptr_t)arg + test_seed();
	unsigned i;

	for (i = 0; i < test_times(300); i++) {
		struct gyre_job_options options = job_options();
		struct race race = { .rt = NULL };
		struct gyre_job *job;
		enum gyre_status status;
		int result = 0;

		options.worker = GYRE_WORKER(i % 2);
		expect_status(gyre_spawn(NULL, task_short, &race, &options, &job), GYRE_OK);
		while ((status = gyre_job_wait(job, 1 + test_random_below(&state, 30000),
					       &result)) == GYRE_BUSY)
			;
		expect_status(status, GYRE_OK);
		expect_eq(result, 1);
	}
	return 0;
}

TEST(waits_of_tasks_with_time_outs_race_with_the_end_on_either_worker)
{
	struct gyre *rt = test_open_workers(2);
	struct gyre_job *jobs[12];
	unsigned i;

	for (i = 0; i < LENGTH(jobs); i++)
		jobs[i] = test_spawn_on(rt, i % 2, task_wait_again_and_again, (void *)(uintptr_t)i);
	for (i = 0; i < LENGTH(jobs); i++)
		expect_job(jobs[i], GYRE_OK);
	gyre_free(rt);
}

static void wait_for_it(void *arg, unsigned number)
{
	struct race *race = arg;
	enum gyre_status status;

	(void)number;
	atomic_fetch_add(&race->go, 1);
	do	/* the other may be there first, for a moment */
		status = gyre_job_wait(race->job, GYRE_FOREVER, NULL);
	while (status == GYRE_BUSY);
	expect_status(status, GYRE_OK);
}

TEST(second_waiter_is_told_that_somebody_waits_already)
{
	struct race race = { .rt = test_open_workers(1) };
	struct test_crew crew;

	race.job = test_spawn(race.rt, test_task_until, &race.flag);
	test_crew_start(&crew, 1, wait_for_it, &race);
	await(atomic_load(&race.go));
	do
		expect_status(gyre_job_wait(race.job, MS, NULL), GYRE_BUSY);
	while (!strstr(gyre_last_error(), "somebody else"));
	atomic_store(&race.flag, 1);
	test_crew_join(&crew);
	gyre_free(race.rt);
}

/* ------------------------------------------------- jobs that wait for jobs -- */

struct relay {
	struct gyre *rts[2];
	unsigned depth, place;
};

/* Each runs the next in a job of its own, on the other worker or of the other runtime. */
static int task_relay(void *arg)
{
	struct relay *relay = arg, next = *relay;
	struct gyre_job_options options = job_options();
	struct gyre_job *job;
	int result = -1;

	if (relay->depth == 0)
		return 0;
	next.depth--;
	next.place++;
	options.worker = GYRE_WORKER(next.place % 2);
	if (relay->depth % 2) {
		expect_status(gyre_block_on(relay->rts[next.place / 2 % 2], task_relay, &next,
					    &options, &result), GYRE_OK);
	} else {
		expect_status(gyre_spawn(relay->rts[next.place / 2 % 2], task_relay, &next,
					 &options, &job), GYRE_OK);
		expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_OK);
	}
	return result + 1;
}

TEST(job_waits_for_job_waits_for_job_across_workers_and_runtimes)
{
	struct gyre *one = test_open_workers(2), *other = test_open_workers(2);
	struct relay here = { .rts = { one, one }, .depth = 8 };
	struct relay across = { .rts = { one, other }, .depth = 50 };

	expect_eq(test_block_on(one, task_relay, &here), 8);
	expect_eq(test_block_on(one, task_relay, &across), 50);
	gyre_free(one);
	gyre_free(other);
}

static void relay_in_parallel(void *arg, unsigned number)
{
	struct relay relay = *(struct relay *)arg;

	relay.place = number;
	expect_eq(test_block_on(relay.rts[number % 2], task_relay, &relay), relay.depth);
}

TEST(sixteen_such_relays_at_once)
{
	struct relay relay = { .depth = 20 };
	unsigned round;

	relay.rts[0] = test_open_workers(2);
	relay.rts[1] = test_open_workers(2);
	for (round = 0; round < test_times(10); round++)
		test_crew_run(16, relay_in_parallel, &relay);
	gyre_free(relay.rts[1]);
	gyre_free(relay.rts[0]);
}

/* Jobs in a ring, each of which waits for the next. */
struct circle {
	struct gyre_job *jobs[3];
	unsigned count;
	atomic_uint ready, refused, waited, refused_at;
};

struct corner {
	struct circle *circle;
	unsigned number;
};

static int task_corner(void *arg)
{
	struct corner *corner = arg;
	struct circle *circle = corner->circle;
	enum gyre_status status;

	while (!atomic_load(&circle->ready))
		gyre_yield();
	status = gyre_job_wait(circle->jobs[(corner->number + 1) % circle->count], GYRE_FOREVER,
			       NULL);
	if (status == GYRE_OK) {
		atomic_fetch_add(&circle->waited, 1);
		return 0;
	}
	expect_status(status, GYRE_WOULD_DEADLOCK);
	expect_contains(gyre_last_error(), "gyre_job_wait");
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	atomic_store(&circle->refused_at, corner->number);
	atomic_fetch_add(&circle->refused, 1);
	return 0;
}

/* Exactly one link is refused; the job that it would have waited for is waited for here. */
static void expect_circle(struct gyre *const *rts, unsigned count)
{
	struct circle circle = { .count = count };
	struct corner corners[3];
	unsigned i;

	for (i = 0; i < count; i++) {
		corners[i] = (struct corner){ &circle, i };
		circle.jobs[i] = test_spawn_on(rts[i], i % gyre_worker_count(rts[i]), task_corner,
					  &corners[i]);
	}
	atomic_store(&circle.ready, 1);
	await(atomic_load(&circle.refused) == 1);
	expect_job(circle.jobs[(atomic_load(&circle.refused_at) + 1) % count], GYRE_OK);
	expect_eq(atomic_load(&circle.refused), 1);
	expect_eq(atomic_load(&circle.waited), count - 1);
}

TEST(circle_of_jobs_is_refused_at_one_link_wherever_they_run)
{
	struct gyre *one = test_open_workers(1), *two = test_open_workers(2);
	struct gyre *const on_one_worker[] = { one, one, one };
	struct gyre *const on_two_workers[] = { two, two, two };
	struct gyre *const of_two_runtimes[] = { one, two, one };
	unsigned count, i;

	for (i = 0; i < test_times(100); i++)
		for (count = 1; count <= 3; count++) {
			test_row("%u jobs", count);
			expect_circle(on_one_worker, count);
			expect_circle(on_two_workers, count);
			expect_circle(of_two_runtimes, count);
		}
	gyre_free(two);
	gyre_free(one);
}

/* ------------------------------------------- an edge that must not be lost -- */

struct triangle {
	struct gyre *rt;
	struct gyre_job *waited_for, *first;
	atomic_uint ready, go, third_done;
};

/* Waits for the first job, which waits for this one: when told to. */
static int task_wait_back(void *arg)
{
	struct triangle *triangle = arg;

	while (!atomic_load(&triangle->go))
		expect_status(gyre_sleep(MS / 10), GYRE_OK);
	expect_status(gyre_job_wait(triangle->first, GYRE_FOREVER, NULL), GYRE_WOULD_DEADLOCK);
	return 0;
}

static int task_wait_forth(void *arg)
{
	struct triangle *triangle = arg;

	while (!atomic_load(&triangle->ready))
		gyre_yield();
	atomic_store(&triangle->ready, 2);
	expect_job(triangle->waited_for, GYRE_OK);
	return 0;
}

/* Comes too late to wait, and is told so. */
static int task_wait_as_well(void *arg)
{
	struct triangle *triangle = arg;

	expect_status(gyre_job_wait(triangle->waited_for, MS, NULL), GYRE_BUSY);
	expect_contains(gyre_last_error(), "somebody else");
	return 0;
}

TEST(second_waiter_of_another_job_does_not_hide_that_the_first_waits)
{
	struct triangle triangle = { .rt = test_open_workers(1) };

	triangle.waited_for = test_spawn(triangle.rt, task_wait_back, &triangle);
	triangle.first = test_spawn(triangle.rt, task_wait_forth, &triangle);
	atomic_store(&triangle.ready, 1);
	await(atomic_load(&triangle.ready) == 2);
	test_block_on(triangle.rt, task_wait_as_well, &triangle);
	atomic_store(&triangle.go, 1);
	expect_job(triangle.first, GYRE_OK);
	gyre_free(triangle.rt);
}

static int task_child_waits_for_its_job(void *arg)
{
	struct two_jobs *two = arg;

	while (!atomic_load(&two->started))
		gyre_yield();
	expect_status(gyre_job_wait(two->job, 0, NULL), GYRE_BUSY);
	expect_status(gyre_job_wait(two->job, 1, NULL), GYRE_BUSY);
	expect_status(gyre_job_wait(two->job, GYRE_FOREVER, NULL), GYRE_WOULD_DEADLOCK);
	return 0;
}

/* Inside a job that the waited-for one waits for: it would wait for its own end all the same. */
static int task_with_inner_job(void *arg)
{
	struct gyre_task *task;

	expect_eq(test_block_on(NULL, task_child_waits_for_its_job, arg), 0);
	expect_status(gyre_go(task_child_waits_for_its_job, arg, &task), GYRE_OK);
	expect_status(gyre_join(task, NULL), GYRE_OK);
	return 0;
}

TEST(job_that_waits_for_itself_would_deadlock_also_through_others)
{
	struct two_jobs two = { .rt = test_open_workers(2) };

	two.job = test_spawn(two.rt, task_with_inner_job, &two);
	atomic_store(&two.started, 1);
	expect_job(two.job, GYRE_OK);
	gyre_free(two.rt);
}

/* ------------------------------------------------------- cancelled waiters -- */

static int task_wait_for_sleeper(void *arg)
{
	struct two_jobs *two = arg;

	expect_status(gyre_spawn(NULL, test_task_sleep, &two->asleep, NULL, &two->job), GYRE_OK);
	atomic_store(&two->started, 1);
	expect_status(gyre_job_wait(two->job, GYRE_FOREVER, NULL), GYRE_BUSY);
	expect_contains(gyre_last_error(), "cancelled");
	expect_eq(gyre_cancelled(), 1);
	return 0;
}

TEST(cancelled_task_gets_busy_from_its_wait_for_a_job_which_goes_on)
{
	struct two_jobs two = { .rt = test_open_workers(1) };
	struct gyre_job *waiter = test_spawn(two.rt, task_wait_for_sleeper, &two);

	await(atomic_load(&two.started) && atomic_load(&two.asleep));
	gyre_job_cancel(waiter);
	expect_job(waiter, GYRE_CANCELLED);
	expect_status(gyre_job_wait(two.job, 0, NULL), GYRE_BUSY);
	gyre_job_cancel(two.job);
	expect_job(two.job, GYRE_CANCELLED);
	gyre_free(two.rt);
}

struct outer {
	struct gyre *rt;
	uint32_t worker;
	atomic_uint asleep;
	enum gyre_status status;
};

static int task_block_on_sleeper(void *arg)
{
	struct outer *outer = arg;
	struct gyre_job_options options = job_options();

	options.worker = outer->worker;
	outer->status = gyre_block_on(outer->rt, test_task_sleep, &outer->asleep, &options, NULL);
	return 0;
}

TEST(block_on_in_a_cancelled_task_cancels_what_it_waits_for)
{
	struct gyre *rt = test_open_workers(2), *other = test_open_workers(1);
	struct outer outers[] = {
		{ rt, GYRE_WORKER(0), 0, GYRE_OK }, { rt, GYRE_WORKER(1), 0, GYRE_OK },
		{ other, 0, 0, GYRE_OK },
	};
	unsigned i;

	for (i = 0; i < LENGTH(outers); i++) {
		struct gyre_job *job = test_spawn_on(rt, 0, task_block_on_sleeper, &outers[i]);

		test_row("number %u", i);
		await(atomic_load(&outers[i].asleep));
		gyre_job_cancel(job);
		expect_job(job, GYRE_CANCELLED);
		expect_status(outers[i].status, GYRE_CANCELLED);
	}
	gyre_free(other);
	gyre_free(rt);
}

struct nest {
	unsigned depth;
	atomic_uint *asleep;
};

static int task_nest(void *arg)
{
	struct nest *nest = arg, inner = { nest->depth - 1, nest->asleep };

	if (nest->depth == 0)
		return test_task_sleep(nest->asleep);
	gyre_block_on(NULL, task_nest, &inner, NULL, NULL);
	return 0;
}

TEST(cancel_of_a_job_reaches_a_thousand_jobs_within_it)
{
	struct gyre *rt = test_open_workers(1);
	atomic_uint asleep = 0;
	struct nest nest = { TEST_UNDER_SANITIZER ? 300 : 3000, &asleep };
	struct gyre_job *job = test_spawn(rt, task_nest, &nest);

	await(atomic_load(&asleep));
	gyre_job_cancel(job);
	expect_job(job, GYRE_CANCELLED);
	gyre_free(rt);
}

/* ------------------------------------------------------------- isolation -- */

static int task_leave_things_behind(void *arg)
{
	unsigned char *bytes = gyre_alloc(1000);
	struct gyre_task *task;
	unsigned i;

	memset(bytes, 0x5a, 1000);
	for (i = 0; i < 10; i++)
		expect_status(gyre_go(test_task_sleep, arg, &task), GYRE_OK);
	while (atomic_load((atomic_uint *)arg) % 10 != 0 || atomic_load((atomic_uint *)arg) == 0)
		gyre_yield();
	gyre_task_cancel(NULL);
	return (int)(uintptr_t)task;
}

struct find {
	struct gyre_task *task;
	atomic_uint left;
};

static int task_leave_handle(void *arg)
{
	struct find *find = arg;

	expect_status(gyre_go(test_task_return, (void *)1, &find->task), GYRE_OK);
	return 0;
}

static int task_find_things(void *arg)
{
	struct find *find = arg;
	unsigned char *bytes = gyre_alloc(1000);
	unsigned i;

	for (i = 0; i < 1000; i++)
		expect_eq(bytes[i], 0);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_status(gyre_join(find->task, NULL), GYRE_INVALID);
	gyre_task_cancel(find->task);
	expect_eq(gyre_cancelled(), 0);
	expect_status(gyre_sleep(1), GYRE_OK);
	return 0;
}

TEST(scenario_11_nothing_that_a_job_leaves_is_seen_by_the_next)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.flags = GYRE_ZERO_ARENAS };
	struct gyre *rt = test_open(&options);
	struct find find = { .task = NULL };
	unsigned i;

	for (i = 0; i < test_times(100); i++) {
		test_block_on(rt, task_leave_things_behind, &find.left);
		expect_eq(atomic_load(&find.left), 10 * (i + 1));
		test_block_on(rt, task_leave_handle, &find);
		test_block_on(rt, task_find_things, &find);
		expect_eq(test_stat(rt, tasks_live), 0);
	}
	expect_ge(test_stat(rt, tasks_leftover), 10 * test_times(100));
	gyre_free(rt);
}

/* ------------------------------------------------------------- statistics -- */

static int task_hold(void *arg)
{
	expect(gyre_alloc(100000) != NULL);
	expect_status(gyre_go(test_task_sleep, arg, NULL), GYRE_OK);
	expect_status(gyre_go(test_task_sleep, arg, NULL), GYRE_OK);
	return test_task_sleep(arg);
}

TEST(statistics_of_jobs_tasks_stacks_and_arenas_are_right)
{
	struct gyre *rt = test_open_workers(2);
	atomic_uint asleep = 0;
	struct gyre_job *jobs[] = { test_spawn_on(rt, 0, task_hold, &asleep),
				    test_spawn_on(rt, 1, task_hold, &asleep) };
	struct gyre_stats stats;

	await(atomic_load(&asleep) == 6);
	stats = test_stats(rt);
	expect_eq(stats.jobs_started, 2);
	expect_eq(stats.jobs_running, 2);
	expect_eq(stats.jobs_finished, 0);
	expect_eq(stats.tasks_started, 6);
	expect_eq(stats.tasks_live, 6);
	expect_eq(stats.stacks_live, 6);
	expect_ge(stats.arena_bytes, 200000);
	expect_ge(stats.arena_bytes_max, 100000);
	gyre_job_cancel(jobs[0]);
	expect_job(jobs[0], GYRE_CANCELLED);
	gyre_job_cancel(jobs[1]);
	expect_job(jobs[1], GYRE_CANCELLED);
	await(test_stat(rt, stacks_live) == 0);
	stats = test_stats(rt);
	expect_eq(stats.jobs_running, 0);
	expect_eq(stats.jobs_finished, 2);
	expect_eq(stats.jobs_cancelled, 2);
	expect_eq(stats.jobs_panicked, 0);
	expect_eq(stats.tasks_live, 0);
	expect_eq(stats.stacks_cached, 6);
	expect_eq(stats.arena_bytes, 0);
	gyre_free(rt);
}

TEST_MAIN()
