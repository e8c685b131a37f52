/* SPDX-License-Identifier: MIT */
/* What jobs run on: made before them, theirs alone, given back after them. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))
#define MS		UINT64_C(1000000)
#define TIME_ENOUGH	(500 * MS)	/* for a job to begin, however busy the machine is */

/* A state that knows where it was made, and for how many jobs it was. */
struct thing {
	int worker;
	pid_t tid;
	unsigned jobs;		/* that have run on it since its last reset */
	bool used;		/* by a job, just now */
};

static atomic_uint created, destroyed, resets;
static atomic_uint ended;	/* tasks that have run their defers */

/* What a test wants to happen in them; NULL: nothing. */
static struct {
	void (*in_create)(void);
	void (*in_destroy)(struct thing *thing);
	void (*in_reset)(struct thing *thing);
	atomic_uint failures;	/* so many creates give NULL */
} plan;

static void *create_thing(const char *key, void *arg)
{
	struct thing *thing;

	expect(!key);
	expect(arg == &plan);
	expect(!gyre_state());
	expect(gyre_current());
	if (plan.in_create)
		plan.in_create();
	if (atomic_load(&plan.failures)) {
		atomic_fetch_sub(&plan.failures, 1);
		return NULL;
	}
	thing = malloc(sizeof(*thing));
	expect(thing);
	*thing = (struct thing){ gyre_current_worker(), gettid(), 0, false };
	atomic_fetch_add(&created, 1);
	return thing;
}

static void expect_idle(const struct thing *thing, const void *arg)
{
	expect(arg == &plan);
	expect(!gyre_state());
	expect(!thing->used);
	expect_eq(thing->tid, gettid());
	expect_eq(thing->worker, gyre_current_worker());
}

static void reset_thing(void *state, void *arg)
{
	struct thing *thing = state;

	expect_idle(thing, arg);
	atomic_fetch_add(&resets, 1);
	if (plan.in_reset)
		plan.in_reset(thing);
	thing->jobs = 0;
}

static void destroy_thing(void *state, void *arg)
{
	expect_idle(state, arg);
	if (plan.in_destroy)
		plan.in_destroy(state);
	atomic_fetch_add(&destroyed, 1);
	free(state);
}

static const struct gyre_state_type thing_type = {
	.size = sizeof(thing_type), .create = create_thing, .reset = reset_thing,
	.destroy = destroy_thing, .arg = &plan,
};

static struct gyre *open_mode(unsigned workers, enum gyre_mode mode)
{
	struct gyre_options options = { .size = sizeof(options), .workers = workers, .mode = mode,
					.state = &thing_type };

	return test_open(&options);
}

static struct gyre *open_with_drain(enum gyre_mode mode, uint64_t drain_ns)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .mode = mode,
					.state = &thing_type, .drain_ns = drain_ns };

	return test_open(&options);
}

static enum gyre_status run_for(struct gyre *rt, gyre_task_fn *fn, void *arg, uint64_t timeout_ns)
{
	struct gyre_job_options options = { .size = sizeof(options), .timeout_ns = timeout_ns };

	return gyre_block_on(rt, fn, arg, &options, NULL);
}

static void count_end(void *arg)
{
	(void)arg;
	expect(gyre_state());
	atomic_fetch_add(&ended, 1);
}

/* From here to leave() nobody else may be on it. */
static struct thing *enter(void)
{
	struct thing *thing = gyre_state();

	expect(thing);
	expect_eq(thing->tid, gettid());
	expect(!thing->used);
	expect_eq(thing->jobs, 0);
	thing->used = true;
	thing->jobs++;
	return thing;
}

static int leave(struct thing *thing)
{
	expect(gyre_state() == thing);
	thing->used = false;
	return 0;
}

static int task_use(void *arg)
{
	struct thing *thing = enter();

	(void)arg;
	expect_status(gyre_sleep(1000), GYRE_OK);
	gyre_yield();
	return leave(thing);
}

static int task_never(void *arg)
{
	(void)arg;
	expect(!"a job runs that has no state");
	return 0;
}

/* ---------------------------------------------------------------- which -- */

static int offloaded_finds_none(void *arg)
{
	(void)arg;
	expect(!gyre_state());
	return 0;
}

static void prep_finds_none(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	expect(!gyre_state());
	io_uring_prep_nop(sqe);
}

static int task_sees(void *thing)
{
	expect(gyre_state() == thing);
	expect_status(gyre_defer(count_end, NULL), GYRE_OK);
	gyre_yield();
	expect(gyre_state() == thing);
	return 0;
}

static int task_sees_none(void *arg)
{
	(void)arg;
	expect(!gyre_state());
	return 7;
}

static int task_with_siblings(void *arg)
{
	struct thing *thing = enter();
	unsigned i;

	(void)arg;
	for (i = 0; i < 5; i++)
		expect_status(gyre_go(task_sees, thing, NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_status(gyre_offload(NULL, offloaded_finds_none, NULL, NULL), GYRE_OK);
	expect_status(gyre_call(NULL, prep_finds_none, NULL, NULL), GYRE_OK);
	return leave(thing);
}

TEST(fresh_state_is_seen_by_every_task_of_the_job_and_nobody_else)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_DEFAULT);

	expect(!gyre_state());
	expect_eq(test_block_on(rt, task_with_siblings, NULL), 0);
	expect_eq(atomic_load(&ended), 5);
	expect(!gyre_state());
	expect_eq(atomic_load(&created), 1);
	expect_eq(atomic_load(&destroyed), 1);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 1);
	expect_eq(atomic_load(&resets), 0);
}

TEST(runtime_without_a_state_has_none_in_whatever_mode)
{
	struct gyre_job_options options = { .size = sizeof(options) };
	struct gyre *rt = test_open_workers(1);
	int mode, result;

	for (mode = GYRE_MODE_DEFAULT; mode <= GYRE_MODE_POOLED; mode++) {
		options.mode = (enum gyre_mode)mode;
		result = 0;
		expect_status(gyre_block_on(rt, task_sees_none, NULL, &options, &result), GYRE_OK);
		expect_eq(result, 7);
	}
	gyre_free(rt);
}

TEST(modes_that_are_none_are_refused)
{
	struct gyre_job_options options = { .size = sizeof(options),
					    .mode = (enum gyre_mode)(GYRE_MODE_POOLED + 1) };
	struct gyre *rt = open_mode(1, GYRE_MODE_POOLED);
	struct gyre_job *job = NULL;

	expect_status(gyre_block_on(rt, task_never, NULL, &options, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "mode");
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_status(gyre_spawn(rt, task_never, NULL, &options, &job), GYRE_INVALID);
	expect(!job);
	options.mode = GYRE_MODE_FRESH;
	expect_status(gyre_block_on(rt, task_use, NULL, &options, NULL), GYRE_OK);
	gyre_free(rt);
	expect_eq(atomic_load(&created), 1);
	expect_eq(atomic_load(&destroyed), 1);
}

/* ----------------------------------------------------------- how often -- */

static void crew_uses(void *rt, unsigned number)
{
	struct gyre_job *jobs[16];
	unsigned i, rounds = test_times(8);

	(void)number;
	for (; rounds > 0; rounds--) {
		for (i = 0; i < LENGTH(jobs); i++)
			jobs[i] = test_spawn(rt, task_use, NULL);
		for (i = 0; i < LENGTH(jobs); i++)
			expect_status(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_OK);
	}
}

TEST(scenario_15_a_thousand_jobs_have_a_thousand_states)
{
	struct gyre *rt = open_mode(2, GYRE_MODE_FRESH);
	unsigned jobs = 8 * 16 * test_times(8);

	test_crew_run(8, crew_uses, rt);
	expect_eq(atomic_load(&created), jobs);
	expect_eq(atomic_load(&destroyed), jobs);
	expect_eq(atomic_load(&resets), 0);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), jobs);
}

/* ----------------------------------------------- create that fails -- */

TEST(create_that_gives_null_is_system_and_the_job_does_not_run)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_FRESH);
	struct gyre_job *job;

	atomic_store(&plan.failures, 2);
	expect_status(gyre_block_on(rt, task_never, NULL, NULL, NULL), GYRE_SYSTEM);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_contains(gyre_last_error(), "create");
	job = test_spawn(rt, task_never, NULL);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_SYSTEM);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_eq(test_block_on(rt, task_use, NULL), 0);
	gyre_free(rt);
	expect_eq(atomic_load(&created), 1);
	expect_eq(atomic_load(&destroyed), 1);
}

static void count_defer(void *arg)
{
	(void)arg;
	atomic_fetch_add(&ended, 1);
}

static void panic_in_create(void)
{
	expect_status(gyre_defer(count_defer, NULL), GYRE_OK);
	gyre_panic("no interpreter");
}

TEST(panic_in_create_is_that_jobs_and_its_defers_run)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_FRESH);

	plan.in_create = panic_in_create;
	expect_status(gyre_block_on(rt, task_never, NULL, NULL, NULL), GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "no interpreter");
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_eq(atomic_load(&ended), 1);
	plan.in_create = NULL;
	expect_eq(test_block_on(rt, task_use, NULL), 0);
	gyre_free(rt);
	expect_eq(atomic_load(&created), 1);
	expect_eq(atomic_load(&destroyed), 1);
}

/* ------------------------------------------- create and destroy that call -- */

static int task_count_with_its_own(void *arg)
{
	(void)arg;
	atomic_fetch_add(&ended, 1);
	return 0;
}

static atomic_uint depth;

/* Whatever a task may do. The job that it waits for has a state of its own. */
static void call_from_callback(void)
{
	struct gyre_job_options options = { .size = sizeof(options), .mode = GYRE_MODE_FRESH };
	struct gyre_task *task;

	expect_status(gyre_sleep(1000), GYRE_OK);
	expect_status(gyre_call(NULL, prep_nop, NULL, NULL), GYRE_OK);
	expect_status(gyre_offload(NULL, offloaded_finds_none, NULL, NULL), GYRE_OK);
	expect(gyre_alloc(100));
	expect_status(gyre_defer(count_defer, NULL), GYRE_OK);
	expect_status(gyre_go(task_count_with_its_own, NULL, &task), GYRE_OK);
	expect_status(gyre_join(task, NULL), GYRE_OK);
	if (atomic_fetch_add(&depth, 1) == 0)
		expect_status(gyre_block_on(NULL, task_use, NULL, &options, NULL), GYRE_OK);
	atomic_fetch_sub(&depth, 1);
}

static void call_from_destroy(struct thing *thing)
{
	(void)thing;
	call_from_callback();
}

TEST(create_and_destroy_may_do_what_tasks_may)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_FRESH);

	plan.in_create = call_from_callback;
	plan.in_destroy = call_from_destroy;
	expect_eq(test_block_on(rt, task_use, NULL), 0);
	expect_eq(atomic_load(&created), 3);
	expect_eq(atomic_load(&destroyed), 3);
	expect_eq(atomic_load(&ended), 12);
	gyre_free(rt);
}

static int task_left_by_destroy(void *arg)
{
	(void)arg;
	expect_status(gyre_sleep(GYRE_FOREVER), GYRE_CANCELLED);
	atomic_fetch_add(&ended, 1);
	return 0;
}

static void start_in_destroy(struct thing *thing)
{
	(void)thing;
	expect_status(gyre_go(task_left_by_destroy, NULL, NULL), GYRE_OK);
	gyre_yield();
}

TEST(tasks_that_destroy_leaves_behind_are_cancelled_and_waited_for)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_FRESH);

	plan.in_destroy = start_in_destroy;
	expect_eq(test_block_on(rt, task_use, NULL), 0);
	expect_eq(atomic_load(&ended), 1);
	expect_eq(test_stat(rt, tasks_live), 0);
	gyre_free(rt);
}

/* ------------------------------------------------------------- the end -- */

static void expect_all_ended(struct thing *thing)
{
	(void)thing;
	expect_eq(atomic_load(&ended), 4);
}

static void wait_and_count(void *arg)
{
	gyre_sleep(MS);
	count_end(arg);
}

/* Does not stop, so it is dropped; its defer waits. */
static int task_left_over(void *arg)
{
	expect_status(gyre_defer(wait_and_count, NULL), GYRE_OK);
	return test_task_refuse(arg);
}

static int task_leaves_others(void *how)
{
	unsigned i;

	expect_status(gyre_defer(count_end, NULL), GYRE_OK);
	for (i = 0; i < 3; i++)
		expect_status(gyre_go(task_left_over, NULL, NULL), GYRE_OK);
	gyre_yield();
	if (strcmp(how, "panics") == 0)
		gyre_panic("enough");
	if (strcmp(how, "is dropped") == 0)
		return test_task_refuse(NULL);
	return 0;
}

TEST(destroy_comes_after_every_task_and_every_defer_however_the_job_ends)
{
	static const struct {
		const char *how;
		enum gyre_status status;
		uint64_t timeout_ns;
	} ends[] = {
		{ "returns", GYRE_OK, 0 }, { "panics", GYRE_RESPONSE_LOST, 0 },
		{ "is dropped", GYRE_TIMED_OUT, TIME_ENOUGH },
	};
	struct gyre *rt = open_mode(1, GYRE_MODE_FRESH);
	unsigned i;

	plan.in_destroy = expect_all_ended;
	for (i = 0; i < LENGTH(ends); i++) {
		test_row("%s", ends[i].how);
		atomic_store(&ended, 0);
		expect_status(run_for(rt, task_leaves_others, (void *)(uintptr_t)ends[i].how,
				      ends[i].timeout_ns), ends[i].status);
		expect_eq(atomic_load(&created), i + 1);
		expect_eq(atomic_load(&destroyed), i + 1);
		expect_eq(test_stat(rt, tasks_live), 0);
	}
	gyre_free(rt);
}

static struct test_pipe stream_pipe;

static void prep_poll_many(struct io_uring_sqe *sqe, void *arg)
{
	io_uring_prep_poll_multishot(sqe, *(int *)arg, POLLIN);
}

static int task_leaves_a_stream(void *arg)
{
	struct gyre_stream *stream;

	(void)arg;
	expect_status(gyre_stream_open(prep_poll_many, &stream_pipe.r, &stream), GYRE_OK);
	expect_status(gyre_sleep(MS), GYRE_OK);
	return 3;
}

static void close_the_pipe(struct thing *thing)
{
	(void)thing;
	expect_eq(test_stat(gyre_current(), inflight), 0);
	test_pipe_close(&stream_pipe);
}

TEST(streams_that_are_left_open_are_gone_before_destroy)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_FRESH);

	stream_pipe = test_pipe();
	plan.in_destroy = close_the_pipe;
	expect_eq(test_block_on(rt, task_leaves_a_stream, NULL), 3);
	expect_eq(atomic_load(&destroyed), 1);
	gyre_free(rt);
}

static int task_return_5(void *arg)
{
	(void)arg;
	return 5;
}

static void sleep_in_destroy(struct thing *thing)
{
	(void)thing;
	atomic_fetch_add(&ended, 1);
	expect_status(gyre_sleep(TIME_ENOUGH + MS), GYRE_OK);
	expect(!gyre_cancelled());
}

TEST(destroy_is_reached_by_no_time_out_and_by_no_cancel)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_FRESH);
	struct gyre_job_options options = { .size = sizeof(options), .timeout_ns = TIME_ENOUGH };
	struct gyre_job *job;
	int result = 0;

	plan.in_destroy = sleep_in_destroy;
	expect_status(gyre_block_on(rt, task_return_5, NULL, &options, &result), GYRE_OK);
	expect_eq(result, 5);
	job = test_spawn(rt, task_return_5, NULL);
	await(atomic_load(&ended) == 2);
	gyre_job_cancel(job);
	result = 0;
	expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_OK);
	expect_eq(result, 5);
	expect_eq(atomic_load(&destroyed), 2);
	gyre_free(rt);
}

static int destroy_is_told;

static void sleep_until_the_drain_is_over(struct thing *thing)
{
	(void)thing;
	atomic_fetch_add(&ended, 1);
	expect_status(gyre_sleep(GYRE_FOREVER), GYRE_CANCELLED);
	destroy_is_told++;
}

TEST(destroy_waits_no_longer_than_a_close_drains)
{
	struct gyre *rt = open_with_drain(GYRE_MODE_FRESH, MS);
	struct gyre_job *job;

	plan.in_destroy = sleep_until_the_drain_is_over;
	job = test_spawn(rt, task_return_5, NULL);
	await(atomic_load(&ended) == 1);
	expect_status(gyre_close(rt), GYRE_OK);
	expect_eq(destroy_is_told, 1);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_OK);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 1);
}

static void sleep_in_create(void)
{
	atomic_fetch_add(&ended, 1);
	gyre_sleep(GYRE_FOREVER);
}

TEST(job_that_is_cancelled_in_create_does_not_run_and_what_was_created_is_destroyed)
{
	struct gyre *rt = open_with_drain(GYRE_MODE_FRESH, MS);
	struct gyre_job *job;

	plan.in_create = sleep_in_create;
	expect_status(run_for(rt, task_never, NULL, TIME_ENOUGH), GYRE_TIMED_OUT);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	job = test_spawn(rt, task_never, NULL);
	await(atomic_load(&ended) == 2);
	gyre_job_cancel(job);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_CANCELLED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	job = test_spawn(rt, task_never, NULL);
	await(atomic_load(&ended) == 3);
	expect_status(gyre_close(rt), GYRE_OK);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_CANCELLED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	gyre_free(rt);
	expect_eq(atomic_load(&created), 3);
	expect_eq(atomic_load(&destroyed), 3);
}

static void refuse_in_create(void)
{
	expect_status(gyre_defer(count_defer, NULL), GYRE_OK);
	test_task_refuse(NULL);
}

TEST(create_that_takes_no_notice_of_a_cancel_is_dropped_and_its_defers_run)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_FRESH);

	plan.in_create = refuse_in_create;
	expect_status(run_for(rt, task_never, NULL, TIME_ENOUGH), GYRE_TIMED_OUT);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_eq(atomic_load(&ended), 1);
	expect_eq(atomic_load(&created), 0);
	expect_eq(atomic_load(&destroyed), 0);
	gyre_free(rt);
}

/* The worker dies while jobs are on their states. */
static int task_sleeps_on(void *arg)
{
	expect(gyre_state());
	return test_task_sleep(arg);
}

TEST(states_of_a_worker_that_dies_are_destroyed)
{
	struct gyre_job *jobs[5];
	atomic_uint asleep = 0;
	struct gyre *rt;
	unsigned i;

	gyre__fault_install();
	rt = open_mode(1, GYRE_MODE_FRESH);
	for (i = 0; i < LENGTH(jobs); i++)
		jobs[i] = test_spawn(rt, task_sleeps_on, &asleep);
	await(atomic_load(&asleep) == LENGTH(jobs));
	gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	gyre_call(rt, prep_nop, NULL, NULL);
	for (i = 0; i < LENGTH(jobs); i++)
		expect_status(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_WORKER_DEAD);
	expect_eq(atomic_load(&destroyed), LENGTH(jobs));
	gyre_free(rt);
	gyre__fault_remove();
}

/* No memory is needed to destroy one. */
static int task_without_memory(void *arg)
{
	(void)arg;
	gyre__fault_set_on("gyre-0", GYRE__FAULT_alloc, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	gyre__fault_set_on("gyre-0", GYRE__FAULT_mmap, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	return 5;
}

TEST(state_is_destroyed_where_there_is_no_memory)
{
	struct gyre *rt;

	gyre__fault_install();
	rt = open_mode(1, GYRE_MODE_FRESH);
	expect_eq(test_block_on(rt, task_without_memory, NULL), 5);
	expect_eq(atomic_load(&destroyed), 1);
	gyre_free(rt);
	gyre__fault_remove();
}

/* --------------------------------------------------------------- dump -- */

static void expect_dump(struct gyre *rt, const char *words)
{
	int fd = test_file(0);
	char *text;

	expect_status(gyre_dump(rt, fd), GYRE_OK);
	text = test_slurp(fd);
	expect_contains(text, words);
	free(text);
	close(fd);
}

TEST(dump_says_how_far_a_job_is_with_its_state)
{
	struct gyre *rt = open_with_drain(GYRE_MODE_FRESH, MS);
	atomic_uint asleep = 0;
	struct gyre_job *job;

	plan.in_create = sleep_in_create;
	job = test_spawn(rt, task_never, NULL);
	await(atomic_load(&ended) == 1);
	expect_dump(rt, "creates its state");
	gyre_job_cancel(job);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_CANCELLED);
	plan.in_create = NULL;
	plan.in_destroy = sleep_until_the_drain_is_over;
	job = test_spawn(rt, task_sleeps_on, &asleep);
	await(atomic_load(&asleep) == 1);
	expect_dump(rt, "runs on its state");
	gyre_job_cancel(job);
	await(atomic_load(&ended) == 2);
	expect_dump(rt, "gives its job's state back");
	expect_status(gyre_close(rt), GYRE_OK);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_CANCELLED);
	gyre_free(rt);
}

/* ------------------------------------------------------------- misuse -- */

static void panic_in_destroy(struct thing *thing)
{
	(void)thing;
	gyre_panic("too late");
}

static void run_and_panic_in_destroy(void *mode)
{
	struct gyre *rt = open_mode(1, *(enum gyre_mode *)mode);

	plan.in_destroy = panic_in_destroy;
	gyre_block_on(rt, task_return_5, NULL, NULL, NULL);
	gyre_free(rt);
}

static void panic_in_reset(struct thing *thing)
{
	(void)thing;
	gyre_panic("not clean");
}

static int task_use_once(void *arg)
{
	(void)arg;
	return leave(enter());
}

static void run_and_panic_in_reset(void *arg)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_SHARED);

	(void)arg;
	plan.in_reset = panic_in_reset;
	expect_status(gyre_block_on(rt, task_use_once, NULL, NULL, NULL), GYRE_OK);
	gyre_block_on(rt, task_use_once, NULL, NULL, NULL);
}

TEST(panics_in_destroy_and_in_reset_abort)
{
	enum gyre_mode mode = GYRE_MODE_FRESH;

	test_asserts(run_and_panic_in_destroy, &mode);
	mode = GYRE_MODE_SHARED;
	test_asserts(run_and_panic_in_destroy, &mode);
	test_asserts(run_and_panic_in_reset, NULL);
}

/* --------------------------------------------------------------- shared -- */

TEST(scenario_16_shared_state_is_made_once_on_each_worker_and_reset_between_jobs)
{
	struct gyre *rt = open_mode(2, GYRE_MODE_SHARED);
	struct gyre_job *jobs[2][16];
	unsigned i, w, rounds = test_times(8), r;

	for (r = 0; r < rounds; r++) {
		for (i = 0; i < 16; i++)
			for (w = 0; w < 2; w++) {
				struct gyre_job_options options = { .size = sizeof(options),
								    .worker = GYRE_WORKER(w) };

				expect_status(gyre_spawn(rt, task_use, NULL, &options, &jobs[w][i]),
					      GYRE_OK);
			}
		for (i = 0; i < 16; i++)
			for (w = 0; w < 2; w++)
				expect_status(gyre_job_wait(jobs[w][i], GYRE_FOREVER, NULL),
					      GYRE_OK);
	}
	expect_eq(atomic_load(&created), 2);
	expect_eq(atomic_load(&resets), 32 * rounds - 2);
	expect_eq(atomic_load(&destroyed), 0);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 2);
	expect_eq(atomic_load(&resets), 32 * rounds - 2);
}

static int order[8];
static atomic_uint in_order;

static int task_note_turn(void *number)
{
	struct thing *thing = enter();

	order[atomic_fetch_add(&in_order, 1)] = *(int *)number;
	expect_status(gyre_sleep(1000), GYRE_OK);
	return leave(thing);
}

/* Waits for a pipe that is written to by whoever may run meanwhile. */
static int task_hold(void *pipe)
{
	struct test_io io = { ((struct test_pipe *)pipe)->r, &(char){ 0 }, 1, TEST_IO_HERE };
	struct thing *thing = enter();

	atomic_fetch_add(&ended, 1);
	expect_status(gyre_call(NULL, prep_read, &io, NULL), GYRE_OK);
	return leave(thing);
}

TEST(jobs_take_turns_in_order_and_hold_up_nobody_else)
{
	struct gyre_job_options fresh = { .size = sizeof(fresh), .mode = GYRE_MODE_FRESH };
	struct gyre *rt = open_mode(1, GYRE_MODE_SHARED);
	struct test_pipe pipe = test_pipe();
	struct gyre_job *holder, *jobs[8];
	int numbers[8], i;

	holder = test_spawn(rt, task_hold, &pipe);
	await(atomic_load(&ended) == 1);
	for (i = 0; i < 8; i++) {
		numbers[i] = i;
		jobs[i] = test_spawn(rt, task_note_turn, &numbers[i]);
	}
	expect_status(gyre_block_on(rt, task_use, NULL, &fresh, NULL), GYRE_OK);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	expect_eq(atomic_load(&in_order), 0);
	expect_dump(rt, "waits for the state of its worker");
	gyre_job_cancel(jobs[3]);
	expect_status(gyre_job_wait(jobs[3], GYRE_FOREVER, NULL), GYRE_CANCELLED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_status(run_for(rt, task_never, NULL, MS), GYRE_TIMED_OUT);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_eq(write(pipe.w, "x", 1), 1);
	expect_status(gyre_job_wait(holder, GYRE_FOREVER, NULL), GYRE_OK);
	for (i = 0; i < 8; i++)
		if (i != 3)
			expect_status(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_OK);
	for (i = 0; i < 7; i++)
		expect_eq(order[i], i < 3 ? i : i + 1);
	gyre_free(rt);
	expect_eq(atomic_load(&resets), 7);
	expect_eq(atomic_load(&created), 2);
	expect_eq(atomic_load(&destroyed), 2);
	test_pipe_close(&pipe);
}

static int task_panics(void *arg)
{
	enter()->used = false;
	(void)arg;
	gyre_panic("with the state");
}

TEST(state_of_a_job_that_panicked_is_reset_for_the_next)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_SHARED);

	expect_status(gyre_block_on(rt, task_panics, NULL, NULL, NULL), GYRE_RESPONSE_LOST);
	expect_eq(test_block_on(rt, task_use, NULL), 0);
	expect_eq(atomic_load(&resets), 1);
	gyre_free(rt);
	expect_eq(atomic_load(&created), 1);
	expect_eq(atomic_load(&destroyed), 1);
}

TEST(shared_create_that_fails_or_panics_or_is_dropped_is_tried_again_by_the_next)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_SHARED);

	atomic_store(&plan.failures, 1);
	expect_status(gyre_block_on(rt, task_never, NULL, NULL, NULL), GYRE_SYSTEM);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	plan.in_create = panic_in_create;
	expect_status(gyre_block_on(rt, task_never, NULL, NULL, NULL), GYRE_RESPONSE_LOST);
	plan.in_create = refuse_in_create;
	expect_status(run_for(rt, task_never, NULL, TIME_ENOUGH), GYRE_TIMED_OUT);
	plan.in_create = call_from_callback;
	expect_eq(test_block_on(rt, task_use, NULL), 0);
	expect_eq(test_block_on(rt, task_use, NULL), 0);
	plan.in_create = NULL;
	gyre_free(rt);
	expect_eq(atomic_load(&created), 2);
	expect_eq(atomic_load(&destroyed), 2);
}

static void sleep_in_reset(struct thing *thing)
{
	(void)thing;
	expect_status(gyre_sleep(TIME_ENOUGH + MS), GYRE_OK);
	atomic_fetch_add(&ended, 1);
}

TEST(reset_is_finished_whatever_becomes_of_the_job_that_waits_for_it)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_SHARED);

	expect_eq(test_block_on(rt, task_use, NULL), 0);
	plan.in_reset = sleep_in_reset;
	expect_status(run_for(rt, task_never, NULL, TIME_ENOUGH), GYRE_TIMED_OUT);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_eq(atomic_load(&ended), 1);
	plan.in_reset = NULL;
	expect_eq(test_block_on(rt, task_use, NULL), 0);
	expect_eq(atomic_load(&resets), 1);
	gyre_free(rt);
}

/* -------------------------------------------------------------- circles -- */

static struct gyre_job_options on_worker(unsigned n)
{
	return (struct gyre_job_options){ .size = sizeof(struct gyre_job_options),
					  .worker = GYRE_WORKER(n) };
}

static int task_wants_what_it_has(void *arg)
{
	struct thing *thing = enter();

	(void)arg;
	expect_status(gyre_block_on(NULL, task_never, NULL, NULL, NULL), GYRE_WOULD_DEADLOCK);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_contains(gyre_last_error(), "state");
	return leave(thing);
}

static int task_waits_for_its_successor(void *arg)
{
	struct thing *thing = enter();
	struct gyre_job *next = test_spawn(gyre_current(), task_use, NULL);

	(void)arg;
	gyre_yield();
	expect_status(gyre_job_wait(next, GYRE_FOREVER, NULL), GYRE_WOULD_DEADLOCK);
	gyre_job_detach(next);
	return leave(thing);
}

static int task_goes_back(void *arg)
{
	const struct gyre_job_options options = on_worker(0);
	struct thing *thing = enter();

	(void)arg;
	expect_status(gyre_block_on(NULL, task_never, NULL, &options, NULL), GYRE_WOULD_DEADLOCK);
	return leave(thing);
}

static int task_goes_across(void *arg)
{
	const struct gyre_job_options options = on_worker(1);
	struct thing *thing = enter();

	(void)arg;
	expect_status(gyre_block_on(NULL, task_goes_back, NULL, &options, NULL), GYRE_OK);
	return leave(thing);
}

static int offloaded_wants_it(void *rt)
{
	expect_status(gyre_block_on(rt, task_never, NULL, NULL, NULL), GYRE_WOULD_DEADLOCK);
	return 0;
}

static int task_offloads_a_wish(void *rt)
{
	struct thing *thing = enter();

	expect_status(gyre_offload(NULL, offloaded_wants_it, rt, NULL), GYRE_OK);
	return leave(thing);
}

TEST(job_that_waits_for_one_that_needs_its_state_is_told)
{
	struct gyre *rt = open_mode(2, GYRE_MODE_SHARED);
	const struct gyre_job_options first = on_worker(0);

	expect_status(gyre_block_on(rt, task_wants_what_it_has, NULL, &first, NULL), GYRE_OK);
	expect_status(gyre_block_on(rt, task_waits_for_its_successor, NULL, &first, NULL), GYRE_OK);
	expect_status(gyre_block_on(rt, task_goes_across, NULL, &first, NULL), GYRE_OK);
	gyre_free(rt);
	expect_eq(atomic_load(&created), 2);
}

TEST(offloaded_function_that_needs_the_state_of_its_job_is_told)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_SHARED);

	expect_eq(test_block_on(rt, task_offloads_a_wish, rt), 0);
	gyre_free(rt);
}

/* Who waits in line for a state may be waited for by who does not have it. */
static int task_waits_for_one_in_line(void *pipe)
{
	struct gyre_job_options shared = { .size = sizeof(shared), .mode = GYRE_MODE_SHARED };

	expect_eq(write(((struct test_pipe *)pipe)->w, "x", 1), 1);
	expect_status(gyre_block_on(NULL, task_use, NULL, &shared, NULL), GYRE_OK);
	return 0;
}

TEST(waits_that_are_no_circle_are_let_be)
{
	struct gyre_job_options fresh = { .size = sizeof(fresh), .mode = GYRE_MODE_FRESH };
	struct gyre *rt = open_mode(1, GYRE_MODE_SHARED);
	struct test_pipe pipe = test_pipe();
	struct gyre_job *holder = test_spawn(rt, task_hold, &pipe);

	await(atomic_load(&ended) == 1);
	expect_status(gyre_block_on(rt, task_waits_for_one_in_line, &pipe, &fresh, NULL), GYRE_OK);
	expect_status(gyre_job_wait(holder, GYRE_FOREVER, NULL), GYRE_OK);
	gyre_free(rt);
	test_pipe_close(&pipe);
}

/* -------------------------------------------------------- its worker's end -- */

static unsigned line_of_end[2], ends;
static void *create_local(void *arg)
{
	return arg;
}

static void destroy_local(void *value)
{
	(void)value;
	line_of_end[ends++] = 1;
}

static struct gyre_local a_local = GYRE_LOCAL_INIT(create_local, destroy_local, &a_local);

static void note_destroy(struct thing *thing)
{
	(void)thing;
	line_of_end[ends++] = 2;
}

static void get_local(void)
{
	void *value;

	expect_status(gyre_local_get(&a_local, &value), GYRE_OK);
}

static int task_get_local(void *arg)
{
	(void)arg;
	get_local();
	return 0;
}

TEST(shared_state_and_locals_are_destroyed_in_the_reverse_order_of_their_making)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_SHARED);

	plan.in_create = get_local;
	plan.in_destroy = note_destroy;
	expect_eq(test_block_on(rt, task_use_once, NULL), 0);
	gyre_free(rt);
	expect_eq(line_of_end[0], 2);
	expect_eq(line_of_end[1], 1);

	ends = 0;
	plan.in_create = NULL;
	rt = open_mode(1, GYRE_MODE_SHARED);
	expect_eq(test_block_on(rt, task_get_local, NULL), 0);
	gyre_free(rt);
	expect_eq(line_of_end[0], 1);
	expect_eq(line_of_end[1], 2);
}

static enum gyre_status late;
static enum gyre_effect late_effect;

/* Jobs, while the state is taken apart: one in line for it, and one with a state of its own. */
static void start_jobs_in_destroy(struct thing *thing)
{
	struct gyre_job_options options = { .size = sizeof(options), .mode = GYRE_MODE_FRESH };

	(void)thing;
	plan.in_destroy = NULL;
	late = gyre_block_on(NULL, task_never, NULL, NULL, NULL);
	late_effect = gyre_last_effect();
	expect_contains(gyre_last_error(), "never began");
	expect_status(gyre_block_on(NULL, task_use_once, NULL, &options, NULL), GYRE_OK);
	expect(gyre_alloc(1000));
	expect_status(gyre_defer(count_defer, NULL), GYRE_OK);
}

TEST(shared_state_that_is_being_destroyed_is_no_jobs_any_more)
{
	struct gyre *rt = open_mode(1, GYRE_MODE_SHARED);

	plan.in_destroy = start_jobs_in_destroy;
	expect_eq(test_block_on(rt, task_use_once, NULL), 0);
	gyre_free(rt);
	expect_status(late, GYRE_CLOSED);
	expect_eq(late_effect, GYRE_EFFECT_NONE);
	expect_eq(atomic_load(&resets), 0);
	expect_eq(atomic_load(&created), 2);
	expect_eq(atomic_load(&destroyed), 2);
}

TEST(close_in_the_middle_ends_the_line_and_destroys_once)
{
	struct gyre *rt = open_with_drain(GYRE_MODE_SHARED, MS);
	struct gyre_job *holder, *jobs[16];
	atomic_uint asleep = 0;
	unsigned i;

	holder = test_spawn(rt, task_sleeps_on, &asleep);
	await(atomic_load(&asleep) == 1);
	for (i = 0; i < LENGTH(jobs); i++)
		jobs[i] = test_spawn(rt, task_never, NULL);
	expect_status(gyre_close(rt), GYRE_OK);
	expect_status(gyre_job_wait(holder, GYRE_FOREVER, NULL), GYRE_CANCELLED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_UNKNOWN);
	for (i = 0; i < LENGTH(jobs); i++) {
		expect_status(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_CANCELLED);
		expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	}
	expect_eq(atomic_load(&created), 1);
	expect_eq(atomic_load(&destroyed), 1);
	expect_eq(atomic_load(&resets), 0);
	gyre_free(rt);
}

TEST_MAIN()
