/* SPDX-License-Identifier: MIT */
/* gyre_offload, as tasks and threads call it; the pool of helpers itself: test-offload. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))

static struct gyre *open_with_helpers(unsigned helpers)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.offload_threads = helpers };

	return test_open(&options);
}

static int offload(struct gyre *rt, gyre_task_fn *fn, void *arg)
{
	int result = -4711;

	expect_status(gyre_offload(rt, fn, arg, &result), GYRE_OK);
	expect_status(gyre_last_status(), GYRE_OK);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
	return result;
}

/* --------------------------------------------------------- where it runs -- */

struct place {
	pid_t tid;
	char name[16];
};

static int offloaded_place(void *arg)
{
	struct place *place = arg;

	place->tid = gettid();
	pthread_getname_np(pthread_self(), place->name, sizeof(place->name));
	return 42;
}

static int task_offload_place(void *arg)
{
	struct place place = { .tid = 0 };

	(void)arg;
	expect_eq(offload(NULL, offloaded_place, &place), 42);
	expect_ne(place.tid, gettid());
	expect_contains(place.name, "gyre-");
	expect_eq(offload(gyre_current(), offloaded_place, &place), 42);
	expect_status(gyre_offload(NULL, offloaded_place, &place, NULL), GYRE_OK);
	return 0;
}

TEST(it_runs_on_a_helper_thread)
{
	struct gyre *rt = open_with_helpers(2);
	struct place place = { .tid = 0 };

	expect_eq(offload(rt, offloaded_place, &place), 42);
	expect_ne(place.tid, gettid());
	test_block_on(rt, task_offload_place, NULL);
	gyre_free(rt);
}

static int offloaded_elsewhere(void *arg)
{
	struct gyre_task *task;
	struct gyre *rt = arg;
	int res = -1;
	char c;

	expect(!gyre_current());
	expect_eq(gyre_current_worker(), -1);
	expect_eq(gyre_cancelled(), 0);
	expect(!gyre_alloc(1));
	expect_status(gyre_go(offloaded_place, NULL, &task), GYRE_NO_REACTOR);
	expect_status(gyre_join_all(), GYRE_NO_REACTOR);
	expect_status(gyre_call(NULL, prep_nop, NULL, NULL), GYRE_NO_REACTOR);
	expect_contains(gyre_last_error(), "gyre_call");
	expect_eq(gyre_pread(NULL, 0, &c, 1, 0), -ENOTSUP);
	expect_eq(gyre_fsync(NULL, 0), -ENOTSUP);
	expect_status(gyre_block_on(NULL, test_task_return, NULL, NULL, NULL), GYRE_NO_REACTOR);
	expect_status(gyre_offload(NULL, test_task_return, NULL, NULL), GYRE_NO_REACTOR);
	/* With a name for it, all of that which needs no task. */
	expect_status(gyre_call(rt, prep_nop, NULL, &res), GYRE_OK);
	expect_eq(res, 0);
	expect_status(gyre_sleep(1), GYRE_OK);
	expect_eq(test_block_on(rt, test_task_return, (void *)7), 7);
	return 1;
}

static int task_offload_elsewhere(void *arg)
{
	expect_eq(offload(NULL, offloaded_elsewhere, arg), 1);
	return 0;
}

/* On the only thread there, which is a helper no more, and keeps nothing open. */
static void use_in_child(void *arg)
{
	struct gyre *rt = arg, *own;

	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_CLOSED);
	expect_status(gyre_offload(rt, test_task_return, NULL, NULL), GYRE_CLOSED);
	gyre_free(rt);
	own = open_with_helpers(1);
	expect_eq(offload(own, test_task_return, (void *)3), 3);
	expect_eq(test_block_on(own, test_task_return, (void *)4), 4);
	gyre_free(own);
}

static int offloaded_fork(void *arg)
{
	test_in_child(use_in_child, arg);
	return 0;
}

static int task_offload_fork(void *arg)
{
	expect_eq(offload(NULL, offloaded_fork, arg), 0);
	return 0;
}

TEST(offloaded_function_may_fork)
{
	struct gyre *rt = open_with_helpers(1);

	expect_eq(offload(rt, offloaded_fork, rt), 0);
	test_block_on(rt, task_offload_fork, rt);
	gyre_free(rt);
}

TEST(scenario_13_an_offloaded_function_is_in_no_task)
{
	struct gyre *rt = open_with_helpers(2);

	expect_eq(offload(rt, offloaded_elsewhere, rt), 1);
	test_block_on(rt, task_offload_elsewhere, rt);
	gyre_free(rt);
}

/* --------------------------------------------------- the worker goes on -- */

static int offloaded_until_byte(void *arg)
{
	const struct test_pipe *pipe = arg;
	char c;

	expect_eq(read(pipe->r, &c, 1), 1);
	return c;
}

static int task_offload_byte(void *pipe)
{
	expect_eq(offload(NULL, offloaded_until_byte, pipe), 'x');
	return 0;
}

/* The bytes are written by a task of the same worker, after all of them wait. */
static int task_siblings(void *arg)
{
	struct test_pipe pipe = test_pipe();
	unsigned i;

	(void)arg;
	for (i = 0; i < 8; i++)
		expect_status(gyre_go(task_offload_byte, &pipe, NULL), GYRE_OK);
	for (i = 0; i < 8; i++) {
		gyre_yield();
		expect_status(gyre_call(NULL, prep_nop, NULL, NULL), GYRE_OK);
		expect_eq(write(pipe.w, "x", 1), 1);
	}
	expect_status(gyre_join_all(), GYRE_OK);
	test_pipe_close(&pipe);
	return 0;
}

TEST(worker_goes_on_while_helpers_block)
{
	struct gyre *rt = open_with_helpers(8);

	test_block_on(rt, task_siblings, NULL);
	gyre_free(rt);
	/* Fewer helpers than callers: the others are queued. */
	rt = open_with_helpers(2);
	test_block_on(rt, task_siblings, NULL);
	gyre_free(rt);
}

static int offloaded_square(void *arg)
{
	return (int)((intptr_t)arg * (intptr_t)arg);
}

static int task_offload_squares(void *arg)
{
	intptr_t i;

	for (i = 0; i < 20; i++)
		expect_eq(offload(NULL, offloaded_square, (void *)((intptr_t)arg * 100 + i)),
			  ((intptr_t)arg * 100 + i) * ((intptr_t)arg * 100 + i));
	return 0;
}

static int task_many_squares(void *arg)
{
	intptr_t i;

	(void)arg;
	for (i = 0; i < 20; i++)
		expect_status(gyre_go(task_offload_squares, (void *)i, NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

static void crew_squares(void *arg, unsigned number)
{
	struct gyre *rt = arg;
	intptr_t i;

	for (i = 0; i < 50; i++)
		expect_eq(offload(rt, offloaded_square, (void *)(i + number)),
			  (i + number) * (i + number));
	test_block_on(rt, task_many_squares, NULL);
}

TEST(answers_of_tasks_and_threads_do_not_mix)
{
	struct gyre *rt = open_with_helpers(3);

	test_crew_run(12, crew_squares, rt);
	gyre_free(rt);
}

/* --------------------------------------------------------------- context -- */

static int offloaded_context(void *arg)
{
	const char *value = gyre_context_get("tenant");

	(void)arg;
	expect_str(value, "blue");
	expect(!gyre_context_get("left"));
	expect_status(gyre_context_set("tenant", "changed"), GYRE_OK);
	expect_status(gyre_context_set("left", "behind"), GYRE_OK);
	return 0;
}

static int offloaded_without_context(void *arg)
{
	(void)arg;
	expect(!gyre_context_get("tenant"));
	expect(!gyre_context_get("left"));
	expect_status(gyre_context_set("left", "behind"), GYRE_OK);
	return 0;
}

static int task_offload_context(void *arg)
{
	expect(!gyre_context_get("tenant"));
	offload(NULL, offloaded_without_context, NULL);
	expect_status(gyre_context_set("tenant", "blue"), GYRE_OK);
	offload(NULL, offloaded_context, NULL);
	expect_str(gyre_context_get("tenant"), "blue");
	expect(!gyre_context_get("left"));
	gyre_context_clear();
	offload(NULL, offloaded_without_context, NULL);
	(void)arg;
	return 0;
}

/* One helper, so that it is the same that has seen the others' contexts. */
TEST(scenario_26_context_is_copied_and_nothing_comes_back)
{
	struct gyre *rt = open_with_helpers(1);

	test_block_on(rt, task_offload_context, NULL);
	expect_status(gyre_context_set("tenant", "blue"), GYRE_OK);
	offload(rt, offloaded_context, NULL);
	expect_str(gyre_context_get("tenant"), "blue");
	expect(!gyre_context_get("left"));
	gyre_context_clear();
	offload(rt, offloaded_without_context, NULL);
	gyre_free(rt);
}

/* ----------------------------------------------------------------- panic -- */

static int offloaded_panic(void *arg)
{
	expect_status(gyre_context_set("left", "behind"), GYRE_OK);
	gyre_panic("number %d", (int)(intptr_t)arg);
}

static int task_offload_panic(void *arg)
{
	int result = 4711;

	expect_status(gyre_offload(NULL, offloaded_panic, (void *)5, &result), GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "number 5");
	expect_contains(gyre_last_error(), "number 5");
	expect_eq(gyre_last_effect(), GYRE_EFFECT_UNKNOWN);
	expect_eq(result, 4711);
	expect_eq(gyre_cancelled(), 0);
	expect_eq(offload(NULL, offloaded_square, (void *)3), 9);
	return (int)(intptr_t)arg;
}

TEST(panic_in_it_is_that_calls)
{
	struct gyre *rt = open_with_helpers(1);
	unsigned i;

	for (i = 0; i < 10; i++) {
		expect_status(gyre_offload(rt, offloaded_panic, (void *)8, NULL),
			      GYRE_RESPONSE_LOST);
		expect_contains(gyre_last_panic(), "number 8");
		expect_contains(gyre_last_panic(), "offloaded");
		expect_eq(offload(rt, offloaded_without_context, NULL), 0);
		expect_eq(test_block_on(rt, task_offload_panic, (void *)3), 3);
	}
	expect_eq(test_stat(rt, jobs_panicked), 0);
	gyre_free(rt);
}

/* ---------------------------------------------------- from within itself -- */

struct depth {
	struct gyre *rt;
	unsigned deep;
	enum gyre_status last;
	bool through_jobs;
};

static int offloaded_deeper(void *arg);

static int task_deeper(void *arg)
{
	struct depth *depth = arg;
	enum gyre_status status = gyre_offload(NULL, offloaded_deeper, depth, NULL);

	if (status != GYRE_OK) {
		depth->last = status;
		expect_contains(gyre_last_error(), "offload_threads");
	}
	return 0;
}

static int offloaded_deeper(void *arg)
{
	struct depth *depth = arg;
	enum gyre_status status;

	depth->deep++;
	if (depth->through_jobs) {
		test_block_on(depth->rt, task_deeper, depth);
		return 0;
	}
	status = gyre_offload(depth->rt, offloaded_deeper, depth, NULL);
	if (status != GYRE_OK) {
		depth->last = status;
		expect_contains(gyre_last_error(), "gyre_offload");
		expect_contains(gyre_last_error(), "offload_threads");
	}
	return 0;
}

static int task_start_diving(void *arg)
{
	expect_status(gyre_offload(NULL, offloaded_deeper, arg, NULL), GYRE_OK);
	return 0;
}

TEST(from_within_itself_it_goes_as_deep_as_there_are_helpers)
{
	unsigned helpers, way;

	for (way = 0; way < 4; way++)
		for (helpers = 1; helpers <= 3; helpers++) {
			struct depth depth = { .rt = open_with_helpers(helpers),
					       .through_jobs = way & 1 };

			test_row("%u helpers, from a %s, %s", helpers, way & 2 ? "task" : "thread",
				 way & 1 ? "through jobs" : "directly");
			if (way & 2)
				test_block_on(depth.rt, task_start_diving, &depth);
			else
				expect_eq(offload(depth.rt, offloaded_deeper, &depth), 0);
			expect_eq(depth.deep, helpers);
			expect_status(depth.last, GYRE_WOULD_DEADLOCK);
			/* All of them are free again. */
			expect_eq(offload(depth.rt, offloaded_square, (void *)3), 9);
			gyre_free(depth.rt);
		}
}

/* What needs a helper when called in a task. */
static int task_needs_helper(void *arg)
{
	int fd = test_file(100);

	(void)arg;
	expect_eq(gyre_durable_reset(NULL, fd), 0);
	expect_eq(gyre_close_fd(NULL, fd), 0);
	return 4;
}

static int offloaded_needs_helper(void *rt)
{
	return test_block_on(rt, task_needs_helper, NULL);
}

static int task_chain(void *rt)
{
	return offload(NULL, offloaded_needs_helper, rt);
}

TEST(files_go_on_while_a_helper_waits_for_who_uses_them)
{
	struct gyre *rt = open_with_helpers(2);

	expect_eq(test_block_on(rt, task_chain, rt), 4);
	expect_eq(offload(rt, offloaded_needs_helper, rt), 4);
	gyre_free(rt);
}

/* The only helper waits for this very task, or for the job whose task it is. */
static int task_without_helper(void *arg)
{
	struct gyre_buffer *buffer = NULL;
	struct gyre *other = NULL;
	int fd = test_file(100);
	char *text;

	expect_status(gyre_offload(NULL, offloaded_square, (void *)2, NULL), GYRE_WOULD_DEADLOCK);
	expect_eq(gyre_durable_reset(NULL, fd), 0);
	expect_status(gyre_dump(NULL, fd), GYRE_OK);
	text = test_slurp(fd);
	expect_contains(text, "helper threads in reserve: ");
	free(text);
	expect_eq(gyre_fsync(NULL, fd), 0);
	expect_status(gyre_buffer_get(NULL, 1 << 20, &buffer), GYRE_OK);
	gyre_buffer_put(buffer);
	expect_eq(gyre_close_fd(NULL, fd), 0);
	expect_status(gyre_open(NULL, &other), GYRE_OK);
	expect_status(gyre_close(other), GYRE_OK);
	gyre_free(other);
	expect_status(gyre_last_status(), GYRE_OK);
	if (arg)
		test_block_on(NULL, task_without_helper, NULL);
	return 4;
}

static int offloaded_without_helper(void *rt)
{
	return test_block_on(rt, task_without_helper, rt);
}

TEST(the_librarys_own_calls_have_helpers_in_reserve_where_all_wait_for_who_makes_them)
{
	struct gyre *rt = open_with_helpers(1);

	expect_eq(offload(rt, offloaded_without_helper, rt), 4);
	test_block_on(rt, task_needs_helper, NULL);
	gyre_free(rt);
}

/* A dump into a pipe that is full takes the one place in the reserve for what may last. */
struct lasting {
	struct gyre *rt, *other;
	struct test_pipe pipe;
	atomic_uint dumps;
};

static int task_dump_to_pipe(void *arg)
{
	struct lasting *lasting = arg;

	atomic_store(&lasting->dumps, 1);
	expect_status(gyre_dump(NULL, lasting->pipe.w), GYRE_OK);
	atomic_store(&lasting->dumps, 2);
	return 0;
}

static void *read_all(void *arg)
{
	struct lasting *lasting = arg;
	char bytes[4096];

	while (read(lasting->pipe.r, bytes, sizeof(bytes)) > 0)
		;
	return NULL;
}

static bool lives(const char *name)
{
	int tid;

	return test_find_thread(name, &tid) > 0;
}

static int task_beside_dump(void *arg)
{
	struct lasting *lasting = arg;
	int fd = test_file(100);
	pthread_t reader;

	expect_status(gyre_go(task_dump_to_pipe, lasting, NULL), GYRE_OK);
	while (!lives("gyre-r0"))
		gyre_yield();
	/* Brief ones go on; another one that may last is refused, and what it closes is sealed. */
	expect_eq(gyre_durable_reset(NULL, fd), 0);
	expect_eq(gyre_close_fd(NULL, fd), 0);
	expect_eq(atomic_load(&lasting->dumps), 1);
	expect_status(gyre_close(lasting->other), GYRE_WOULD_DEADLOCK);
	expect_contains(gyre_last_error(), "offload_threads");
	expect_status(gyre_call(lasting->other, prep_nop, NULL, NULL), GYRE_CLOSED);
	gyre_free(lasting->other);
	expect_status(gyre_last_status(), GYRE_WOULD_DEADLOCK);
	expect_eq(pthread_create(&reader, NULL, read_all, lasting), 0);
	expect_status(gyre_join_all(), GYRE_OK);
	close(lasting->pipe.w);
	pthread_join(reader, NULL);
	expect_status(gyre_close(lasting->other), GYRE_OK);
	gyre_free(lasting->other);
	expect_status(gyre_last_status(), GYRE_OK);
	return 5;
}

static int offloaded_beside_dump(void *arg)
{
	struct lasting *lasting = arg;

	return test_block_on(lasting->rt, task_beside_dump, lasting);
}

static void fill_pipe(const struct test_pipe *pipe)
{
	char full = 'x';

	expect_eq(fcntl(pipe->w, F_SETFL, O_NONBLOCK), 0);
	while (write(pipe->w, &full, 1) == 1)
		;
	expect_eq(fcntl(pipe->w, F_SETFL, 0), 0);
}

TEST(what_may_last_takes_one_helper_of_the_reserve_and_no_more)
{
	struct lasting lasting = { .rt = open_with_helpers(1), .other = test_open_workers(1),
				   .pipe = test_pipe() };

	fill_pipe(&lasting.pipe);
	expect_eq(offload(lasting.rt, offloaded_beside_dump, &lasting), 5);
	close(lasting.pipe.r);
	gyre_free(lasting.rt);
}

/* Who has nothing to do with what the helper waits for need not wait for it, either. */
struct patience {
	struct gyre *rt;
	struct test_pipe pipe;
	atomic_uint waits;
};

static int task_until_told(void *arg)
{
	struct patience *patience = arg;
	char c;

	atomic_store(&patience->waits, 1);
	expect_eq(gyre_read(NULL, patience->pipe.r, &c, 1), 1);
	return 0;
}

static int offloaded_until_told(void *arg)
{
	struct patience *patience = arg;

	return test_block_on(patience->rt, task_until_told, patience);
}

static void *offload_until_told(void *arg)
{
	struct patience *patience = arg;

	expect_eq(offload(patience->rt, offloaded_until_told, patience), 0);
	return NULL;
}

TEST(files_of_others_do_not_wait_until_the_helper_is_free)
{
	struct patience patience = { .rt = open_with_helpers(1), .pipe = test_pipe() };
	struct gyre_job *job;
	pthread_t caller;
	int result = 0;

	expect_eq(pthread_create(&caller, NULL, offload_until_told, &patience), 0);
	await(atomic_load(&patience.waits));
	job = test_spawn(patience.rt, task_needs_helper, NULL);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_OK);
	expect_eq(result, 4);
	expect_eq(write(patience.pipe.w, "x", 1), 1);
	pthread_join(caller, NULL);
	gyre_free(patience.rt);
	test_pipe_close(&patience.pipe);
}

/* ------------------------------------- queued behind who then waits for it -- */

enum way { BY_JOB_WAIT, BY_BLOCK_ON, BY_OFFLOAD, BY_CLOSE, WAYS };

static const char *const way_names[] = {
	[BY_JOB_WAIT] = "gyre_job_wait", [BY_BLOCK_ON] = "gyre_block_on",
	[BY_OFFLOAD] = "gyre_offload to another runtime", [BY_CLOSE] = "gyre_close",
};

struct knot {
	struct gyre *rt, *other;
	enum way way;
	struct gyre_job *job;		/* asks for what is queued; of other where that is closed */
	atomic_uint held, queued;
	enum gyre_status status;
};

static int task_says_queued(void *arg)
{
	struct knot *knot = arg;

	atomic_store(&knot->queued, 1);
	return 0;
}

/* Its sibling runs once it has gone to sleep, and that is after the push. */
static int task_asks(void *arg)
{
	struct knot *knot = arg;

	while (!atomic_load(&knot->held))
		gyre_yield();
	expect_status(gyre_go(task_says_queued, knot, NULL), GYRE_OK);
	knot->status = gyre_offload(knot->rt, offloaded_square, (void *)7, NULL);
	if (knot->status == GYRE_WOULD_DEADLOCK) {
		expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
		expect_contains(gyre_last_error(), "offload_threads");
	}
	return 3;
}

static int wait_for_who_asks(void *arg)
{
	struct knot *knot = arg;
	int result = 0;

	expect_status(gyre_job_wait(knot->job, GYRE_FOREVER, &result), GYRE_OK);
	return result;
}

static int offloaded_ties(void *arg)
{
	struct knot *knot = arg;

	atomic_store(&knot->held, 1);
	await(atomic_load(&knot->queued));
	switch (knot->way) {
	case BY_JOB_WAIT:
		return wait_for_who_asks(knot);
	case BY_BLOCK_ON:
		return test_block_on(knot->other, wait_for_who_asks, knot);
	case BY_OFFLOAD:
		return offload(knot->other, wait_for_who_asks, knot);
	default:
		expect_status(gyre_close(knot->other), GYRE_OK);
		return wait_for_who_asks(knot);
	}
}

TEST(what_is_queued_behind_a_helper_that_begins_to_wait_for_it_is_refused)
{
	struct knot knot;

	for (knot.way = BY_JOB_WAIT; knot.way < WAYS; knot.way++) {
		test_row("%s", way_names[knot.way]);
		knot = (struct knot){ .way = knot.way, .rt = open_with_helpers(1),
				      .other = open_with_helpers(1) };
		knot.job = test_spawn(knot.way == BY_CLOSE ? knot.other : knot.rt, task_asks,
				      &knot);
		expect_eq(offload(knot.rt, offloaded_ties, &knot), 3);
		expect_status(knot.status, GYRE_WOULD_DEADLOCK);
		/* The helper is free again. */
		expect_eq(offload(knot.rt, offloaded_square, (void *)3), 9);
		gyre_free(knot.rt);
		gyre_free(knot.other);
	}
}

static int offloaded_asks_in_vain(void *arg)
{
	struct knot *knot = arg;

	atomic_store(&knot->held, 1);
	await(atomic_load(&knot->queued));
	expect_status(gyre_offload(knot->rt, offloaded_square, (void *)2, NULL),
		      GYRE_WOULD_DEADLOCK);
	return 5;
}

/* Who is refused does not wait: what others have queued is run after it. */
TEST(helper_whose_offload_is_refused_leaves_alone_what_is_queued_behind_it)
{
	struct knot knot = { .rt = open_with_helpers(1) };

	knot.job = test_spawn(knot.rt, task_asks, &knot);
	expect_eq(offload(knot.rt, offloaded_asks_in_vain, &knot), 5);
	expect_job(knot.job, GYRE_OK);
	expect_status(knot.status, GYRE_OK);
	gyre_free(knot.rt);
}

struct lasting_knot {
	struct knot knot;
	struct lasting lasting;
	atomic_uint go;
};

static int task_dumps(void *arg)
{
	struct lasting_knot *both = arg;
	int fd = test_file(100);

	expect_status(gyre_go(task_says_queued, &both->knot, NULL), GYRE_OK);
	both->knot.status = gyre_dump(NULL, fd);
	close(fd);
	return 3;
}

static int offloaded_ties_to_dump(void *arg)
{
	struct lasting_knot *both = arg;

	atomic_store(&both->knot.held, 1);
	await(atomic_load(&both->go));
	return wait_for_who_asks(&both->knot);
}

static void *offload_tie_to_dump(void *arg)
{
	struct lasting_knot *both = arg;

	expect_eq(offload(both->knot.rt, offloaded_ties_to_dump, both), 3);
	return NULL;
}

static void tie_to_dump(struct lasting_knot *both, bool reserve_is_free)
{
	pthread_t helped, reader;
	struct gyre_job *dump;

	fill_pipe(&both->lasting.pipe);
	both->knot.rt = both->lasting.rt = open_with_helpers(1);
	expect_eq(pthread_create(&helped, NULL, offload_tie_to_dump, both), 0);
	await(atomic_load(&both->knot.held));
	dump = test_spawn(both->knot.rt, task_dump_to_pipe, &both->lasting);
	await(lives("gyre-r0"));
	both->knot.job = test_spawn(both->knot.rt, task_dumps, both);
	await(atomic_load(&both->knot.queued));
	if (!reserve_is_free) {
		atomic_store(&both->go, 1);
		pthread_join(helped, NULL);
	}
	expect_eq(pthread_create(&reader, NULL, read_all, &both->lasting), 0);
	expect_job(dump, GYRE_OK);
	if (reserve_is_free) {
		atomic_store(&both->go, 1);
		pthread_join(helped, NULL);
	}
	close(both->lasting.pipe.w);
	pthread_join(reader, NULL);
	close(both->lasting.pipe.r);
	gyre_free(both->knot.rt);
}

TEST(lasting_call_behind_a_helper_that_begins_to_wait_goes_to_the_reserve_or_is_refused)
{
	unsigned is_free;

	for (is_free = 0; is_free < 2; is_free++) {
		struct lasting_knot both = { .lasting.pipe = test_pipe() };

		test_row("the reserve is %s", is_free ? "free" : "taken");
		tie_to_dump(&both, is_free);
		expect_status(both.knot.status, is_free ? GYRE_OK : GYRE_WOULD_DEADLOCK);
	}
}

/* -------------------------------------------------- what cannot be cut off -- */

struct held {
	struct gyre *rt;
	struct test_pipe pipe;
	atomic_uint runs, done, closed;
	enum gyre_status status;
};

static int offloaded_hold(void *arg)
{
	struct held *held = arg;
	char c;

	atomic_store(&held->runs, 1);
	expect_eq(read(held->pipe.r, &c, 1), 1);
	atomic_store(&held->done, 1);
	return 6;
}

static int task_hold(void *arg)
{
	struct held *held = arg;
	int result = 0;

	held->status = gyre_offload(NULL, offloaded_hold, held, &result);
	if (held->status == GYRE_CANCELLED && !atomic_load(&held->runs))
		return 0;
	expect(atomic_load(&held->done));
	expect_eq(result, 6);
	return 0;
}

static void *close_it(void *arg)
{
	struct held *held = arg;

	expect_status(gyre_close(held->rt), GYRE_OK);
	expect(atomic_load(&held->done));
	atomic_store(&held->closed, 1);
	return NULL;
}

static void *hold_from_thread(void *arg)
{
	struct held *held = arg;

	held->status = gyre_offload(held->rt, offloaded_hold, held, NULL);
	return NULL;
}

static void check_held_close(bool by_task)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .drain_ns = 1 };
	struct held held = { .rt = test_open(&options), .pipe = test_pipe() };
	struct gyre_job *job = NULL;
	pthread_t closer, caller;

	if (by_task)
		job = test_spawn(held.rt, task_hold, &held);
	else
		expect_eq(pthread_create(&caller, NULL, hold_from_thread, &held), 0);
	await(atomic_load(&held.runs));
	expect_eq(pthread_create(&closer, NULL, close_it, &held), 0);
	await(gyre_call(held.rt, prep_nop, NULL, NULL) == GYRE_CLOSED);
	expect_status(gyre_offload(held.rt, offloaded_square, NULL, NULL), GYRE_CLOSED);
	expect(!atomic_load(&held.closed));
	expect_eq(write(held.pipe.w, "x", 1), 1);
	pthread_join(closer, NULL);
	if (by_task)
		expect_ne(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_BUSY);
	else
		pthread_join(caller, NULL);
	expect_status(held.status, GYRE_OK);
	gyre_free(held.rt);
	test_pipe_close(&held.pipe);
}

TEST(close_waits_for_what_a_task_has_offloaded)
{
	check_held_close(true);
}

TEST(close_waits_for_what_a_thread_has_offloaded)
{
	check_held_close(false);
}

/* Its time is over while the function runs: where it was over before, it gets more. */
static struct gyre_job *hold_past_its_time(struct held *held)
{
	struct gyre_job_options options = { .size = sizeof(options), .timeout_ns = 500000 };
	struct gyre_job *job = NULL;
	enum gyre_status status = GYRE_OK;

	while (!atomic_load(&held->runs)) {
		if (status != GYRE_BUSY) {
			options.timeout_ns *= 2;
			expect_status(gyre_spawn(held->rt, task_hold, held, &options, &job),
				      GYRE_OK);
		}
		status = gyre_job_wait(job, 100000, NULL);
	}
	return job;
}

TEST(cancelled_task_waits_for_it_and_gets_its_result)
{
	struct held held = { .rt = open_with_helpers(1), .pipe = test_pipe() };
	struct gyre_job *job;
	unsigned timed;

	for (timed = 0; timed < 2; timed++) {
		test_row("%s", timed ? "its time is over" : "cancelled");
		atomic_store(&held.runs, 0);
		atomic_store(&held.done, 0);
		if (timed) {
			job = hold_past_its_time(&held);
		} else {
			job = test_spawn(held.rt, task_hold, &held);
			await(atomic_load(&held.runs));
			gyre_job_cancel(job);
		}
		expect_status(gyre_job_wait(job, 2000000, NULL), GYRE_BUSY);
		expect_eq(write(held.pipe.w, "x", 1), 1);
		expect_ne(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_BUSY);
		expect_status(held.status, GYRE_OK);
	}
	gyre_free(held.rt);
	test_pipe_close(&held.pipe);
}

/* --------------------------------------------------------------- refused -- */

static void prep_that_offloads(struct io_uring_sqe *sqe, void *arg)
{
	enum gyre_status *status = arg;

	*status = gyre_offload(NULL, offloaded_square, NULL, NULL);
	io_uring_prep_nop(sqe);
}

static int task_refused(void *arg)
{
	(void)arg;
	expect_status(gyre_offload(NULL, NULL, NULL, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "fn is NULL");
	return 0;
}

TEST(what_cannot_be_is_refused_in_words)
{
	struct gyre *rt = open_with_helpers(1);
	enum gyre_status status = GYRE_OK;
	int result = 4711;

	expect_status(gyre_offload(rt, NULL, NULL, &result), GYRE_INVALID);
	expect_contains(gyre_last_error(), "fn is NULL");
	expect_status(gyre_offload(NULL, offloaded_square, NULL, &result), GYRE_NO_REACTOR);
	expect_contains(gyre_last_error(), "gyre_offload");
	expect_status(gyre_call(rt, prep_that_offloads, &status, NULL), GYRE_OK);
	expect_status(status, GYRE_WOULD_DEADLOCK);
	test_block_on(rt, task_refused, NULL);
	expect_status(gyre_close(rt), GYRE_OK);
	expect_status(gyre_offload(rt, offloaded_square, NULL, &result), GYRE_CLOSED);
	expect_eq(result, 4711);
	gyre_free(rt);
}

static int task_offloads_in_vain(void *arg)
{
	(void)arg;
	expect_status(gyre_offload(NULL, offloaded_square, (void *)3, NULL), GYRE_NO_MEMORY);
	return 0;
}

TEST(helper_that_gets_no_memory_for_its_record_refuses_the_call_and_serves_the_next)
{
	struct gyre *rt;

	gyre__fault_install();
	rt = open_with_helpers(1);
	gyre__fault_set_on("gyre-h0", GYRE__FAULT_alloc, 0, 2, -ENOMEM);
	expect_status(gyre_offload(rt, offloaded_square, (void *)3, NULL), GYRE_NO_MEMORY);
	expect_contains(gyre_last_error(), "gyre_offload");
	test_block_on(rt, task_offloads_in_vain, NULL);
	expect_eq(offload(rt, offloaded_square, (void *)3), 9);
	gyre_free(rt);
	gyre__fault_remove();
}

static int offloaded_into_another(void *arg)
{
	struct gyre *other = arg;

	return offload(other, offloaded_square, (void *)5);
}

static int task_into_another(void *arg)
{
	expect_eq(offload(arg, offloaded_square, (void *)4), 16);
	expect_eq(offload(arg, offloaded_into_another, arg), 25);
	return 0;
}

TEST(another_runtimes_helpers_may_be_used)
{
	struct gyre *rt = open_with_helpers(1), *other = open_with_helpers(2);

	test_block_on(rt, task_into_another, other);
	expect_eq(offload(rt, offloaded_into_another, other), 25);
	gyre_free(rt);
	gyre_free(other);
}

TEST_MAIN()
