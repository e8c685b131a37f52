/* SPDX-License-Identifier: MIT */
/*
 * A job that panics ends, and nobody else notices.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#define MS	UINT64_C(1000000)

static int task_panic(void *arg)
{
	gyre_panic("told to, by %s number %d", (const char *)arg, 7);
}

static int task_until(void *flag)
{
	while (!atomic_load((atomic_uint *)flag))
		gyre_sleep(MS / 10);
	return 3;
}

TEST(scenario_4_caller_of_a_job_that_panics_gets_response_lost_and_the_text)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_job_options options = { .size = sizeof(options), .name = "doomed" };
	int result = 4711;

	expect_contains(gyre_last_panic(), "nothing is known");
	expect_status(gyre_block_on(rt, task_panic, "test", &options, &result), GYRE_RESPONSE_LOST);
	expect_eq(result, 4711);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_UNKNOWN);
	expect_contains(gyre_last_error(), "gyre_block_on");
	expect_contains(gyre_last_error(), "told to, by test number 7");
	expect_contains(gyre_last_panic(), "told to, by test number 7");
	expect_contains(gyre_last_panic(), "doomed");
	expect_eq(test_block_on(rt, test_task_return, (void *)1), 1);
	expect_contains(gyre_last_panic(), "told to, by test number 7");
	expect_eq(test_stat(rt, jobs_panicked), 1);
	expect_eq(test_stat(rt, jobs_finished), 2);
	gyre_free(rt);
	expect_contains(gyre_last_panic(), "told to, by test number 7");
}

struct others {
	struct gyre *rt;
	struct test_pipe pipe;
	atomic_uint flag, reading, read;
};

static void read_meanwhile(void *arg, unsigned number)
{
	struct others *others = arg;
	char byte;
	struct test_io io = { others->pipe.r, &byte, 1, TEST_IO_HERE };
	int res;

	(void)number;
	expect_status(gyre_call(others->rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
}

static int task_read_meanwhile(void *arg)
{
	read_meanwhile(arg, 0);
	return 5;
}

TEST(scenario_4_calls_and_jobs_under_way_at_a_panic_are_not_disturbed)
{
	struct others others = { .rt = test_open_workers(1), .pipe = test_pipe() };
	struct gyre_job *jobs[8];
	struct test_crew crew;
	unsigned i;

	test_crew_start(&crew, 8, read_meanwhile, &others);
	for (i = 0; i < 8; i++)
		jobs[i] = test_spawn(others.rt, i % 2 ? task_until : task_read_meanwhile,
				     i % 2 ? (void *)&others.flag : (void *)&others);
	await(test_stat(others.rt, inflight) == 12);
	for (i = 0; i < 20; i++)
		expect_status(gyre_block_on(others.rt, task_panic, "it", NULL, NULL),
			      GYRE_RESPONSE_LOST);
	expect_eq(test_stat(others.rt, inflight), 12);
	expect_eq(write(others.pipe.w, "twelve bytes", 12), 12);
	atomic_store(&others.flag, 1);
	test_crew_join(&crew);
	for (i = 0; i < 8; i++)
		expect_status(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_OK);
	gyre_free(others.rt);
	test_pipe_close(&others.pipe);
}

static int task_parent_of_panic(void *arg)
{
	struct gyre_task *task;

	expect_status(gyre_go(task_panic, arg, &task), GYRE_OK);
	expect_status(gyre_join(task, NULL), GYRE_CANCELLED);
	expect_eq(gyre_cancelled(), 1);
	return 8;
}

TEST(panic_of_any_task_ends_its_whole_job)
{
	struct gyre *rt = test_open_workers(1);

	expect_status(gyre_block_on(rt, task_parent_of_panic, "child", NULL, NULL),
		      GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "child");
	gyre_free(rt);
}

static int task_two_panics(void *arg)
{
	expect_status(gyre_go(task_panic, "second", NULL), GYRE_OK);
	return task_panic(arg);
}

static void panicking_defer(void *arg)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
	gyre_panic("a defer");
}

static void counting_defer(void *arg)
{
	expect_status(gyre_sleep(1), GYRE_OK);
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static int task_defers_panic(void *arg)
{
	unsigned i;

	for (i = 0; i < 20; i++)
		expect_status(gyre_defer(i % 2 ? panicking_defer : counting_defer, arg), GYRE_OK);
	return 0;
}

static int task_defers_panic_after_a_panic(void *arg)
{
	task_defers_panic(arg);
	gyre_panic("the task");
}

TEST(panic_in_a_defer_lets_the_others_run_and_the_first_text_is_kept)
{
	struct gyre *rt = test_open_workers(1);
	atomic_uint ran = 0;

	expect_status(gyre_block_on(rt, task_defers_panic, &ran, NULL, NULL), GYRE_RESPONSE_LOST);
	expect_eq(ran, 20);
	expect_contains(gyre_last_panic(), "a defer");
	expect_status(gyre_block_on(rt, task_defers_panic_after_a_panic, &ran, NULL, NULL),
		      GYRE_RESPONSE_LOST);
	expect_eq(ran, 40);
	expect_contains(gyre_last_panic(), "the task");
	expect_status(gyre_block_on(rt, task_two_panics, "first", NULL, NULL), GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "first");
	gyre_free(rt);
}

#define DEFERS	100000

static int task_defers_many_panics(void *arg)
{
	unsigned i;

	for (i = 0; i < DEFERS; i++)
		expect_status(gyre_defer(panicking_defer, arg), GYRE_OK);
	return 0;
}

static int task_defers_many_panics_and_panics(void *arg)
{
	task_defers_many_panics(arg);
	gyre_panic("the task");
}

TEST(a_hundred_thousand_defers_that_panic_need_no_more_stack_than_one)
{
	gyre_task_fn *const fns[] = { task_defers_many_panics, task_defers_many_panics_and_panics };
	struct gyre_job_options options = { .size = sizeof(options), .stack_size = 16 << 10 };
	struct gyre *rt = test_open_workers(1);
	unsigned i;

	for (i = 0; i < 2; i++) {
		atomic_uint ran = 0;

		test_row("%s", i ? "after a panic" : "after a return");
		expect_status(gyre_block_on(rt, fns[i], &ran, &options, NULL), GYRE_RESPONSE_LOST);
		expect_eq(ran, DEFERS);
		expect_contains(gyre_last_panic(), i ? "the task" : "a defer");
	}
	gyre_free(rt);
}

/* A defer that panics while it makes a local: somebody else makes it then. */
static struct gyre_local doomed;
static unsigned creates;

static void *create_in_vain(void *arg)
{
	if (creates++ == 0)
		gyre_panic("create");
	return arg;
}

static void making_defer(void *arg)
{
	void *value;

	gyre_local_get(&doomed, &value);
	(void)arg;
}

static void getting_defer(void *arg)
{
	void *value;

	expect_status(gyre_local_get(&doomed, &value), GYRE_OK);
	expect(value == arg);
}

static int task_makes_in_defer(void *arg)
{
	expect_status(gyre_defer(getting_defer, arg), GYRE_OK);
	expect_status(gyre_defer(making_defer, arg), GYRE_OK);
	return 0;
}

TEST(panic_in_a_create_in_a_defer_leaves_the_local_to_the_next_defer)
{
	struct gyre *rt = test_open_workers(1);

	doomed = (struct gyre_local)GYRE_LOCAL_INIT(create_in_vain, NULL, &creates);
	expect_status(gyre_block_on(rt, task_makes_in_defer, &creates, NULL, NULL),
		      GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "create");
	expect_eq(creates, 2);
	gyre_free(rt);
}

static int task_catch(void *arg)
{
	struct gyre_job_options options = { .size = sizeof(options),
					    .worker = (uint32_t)(uintptr_t)arg };
	struct gyre_job *job;

	expect_contains(gyre_last_panic(), "nothing is known");
	expect_status(gyre_block_on(NULL, task_panic, "inner", &options, NULL), GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "inner");
	expect_eq(gyre_cancelled(), 0);
	expect_status(gyre_spawn(NULL, task_panic, "spawned", &options, &job), GYRE_OK);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "spawned");
	expect_status(gyre_spawn(NULL, task_panic, "detached", &options, &job), GYRE_OK);
	gyre_job_detach(job);
	expect_status(gyre_spawn(NULL, task_panic, "nobody's", &options, NULL), GYRE_OK);
	return 0;
}

TEST(panic_of_a_job_within_a_job_is_an_answer)
{
	struct gyre *rt = test_open_workers(2);
	uint32_t worker;

	for (worker = 0; worker < 3; worker++)
		test_block_on(rt, task_catch, (void *)(uintptr_t)worker);
	await(test_stat(rt, jobs_panicked) == 12);
	await(test_stat(rt, jobs_running) == 0);
	gyre_free(rt);
}

static int task_long_panic(void *arg)
{
	char *text = gyre_alloc(5000);

	(void)arg;
	memset(text, 'x', 4999);
	text[4999] = 0;
	gyre_panic("%s", text);
}

TEST(text_of_a_panic_may_be_long_or_there_may_be_no_memory_for_it)
{
	struct gyre *rt;

	gyre__fault_install();
	rt = test_open_workers(1);
	expect_status(gyre_block_on(rt, task_long_panic, NULL, NULL, NULL), GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "xxxxxxxx");
	expect_lt(strlen(gyre_last_panic()), 600);
	gyre__fault_set_on("gyre-0", GYRE__FAULT_alloc, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	expect_status(gyre_block_on(rt, task_panic, "x", NULL, NULL), GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "nothing is known");
	gyre__fault_clear();
	gyre_free(rt);
	gyre__fault_remove();
}

static void panic_on_a_thread(void *arg)
{
	(void)arg;
	gyre_panic("no task");
}

static void prep_panic(struct io_uring_sqe *sqe, void *arg)
{
	(void)sqe;
	gyre_panic("%s", (const char *)arg);
}

static void panic_in_a_prep(void *arg)
{
	(void)arg;
	gyre_call(test_open_workers(1), prep_panic, "prep", NULL);
}

TEST(panic_where_there_is_no_task_aborts)
{
	test_asserts(panic_on_a_thread, NULL);
	test_asserts(panic_in_a_prep, NULL);
}

static void panic_and_work(void *arg, unsigned number)
{
	unsigned i;

	for (i = 0; i < test_times(200); i++)
		if (number % 2)
			expect_status(gyre_block_on(arg, task_two_panics, "x", NULL, NULL),
				      GYRE_RESPONSE_LOST);
		else
			expect_eq(test_block_on(arg, test_task_return, (void *)6), 6);
}

TEST(twelve_threads_some_of_whose_jobs_panic)
{
	struct gyre *rt = test_open_workers(2);

	test_crew_run(12, panic_and_work, rt);
	expect_eq(test_stat(rt, jobs_panicked), 6 * test_times(200));
	expect_eq(test_stat(rt, tasks_live), 0);
	gyre_free(rt);
}

TEST_MAIN()
