/* SPDX-License-Identifier: MIT */
/* Worker locals: made once on each worker that uses them, destroyed with it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))

/* A value that knows where it was made. */
struct thing {
	int worker;
	pid_t tid;
	unsigned number;		/* n-th that was made */
};

/* How often they were made and destroyed: by all workers. */
static atomic_uint made, destroyed;
/* The numbers of those that were destroyed, in that order. */
static atomic_uint graveyard[64];

static void *create_thing(void *arg)
{
	struct thing *thing = malloc(sizeof(*thing));

	(void)arg;
	expect(thing);
	*thing = (struct thing){ gyre_current_worker(), gettid(), atomic_fetch_add(&made, 1) };
	return thing;
}

static void destroy_thing(void *value)
{
	struct thing *thing = value;

	expect_eq(thing->tid, gettid());
	expect_eq(thing->worker, gyre_current_worker());
	atomic_store(&graveyard[atomic_fetch_add(&destroyed, 1)], thing->number);
	free(thing);
}

static void *get(struct gyre_local *local)
{
	void *value = NULL;

	expect_status(gyre_local_get(local, &value), GYRE_OK);
	expect_status(gyre_last_status(), GYRE_OK);
	expect(value);
	return value;
}

static int task_get(void *local)
{
	const struct thing *thing = get(local);

	expect_eq(thing->worker, gyre_current_worker());
	expect_eq(thing->tid, gettid());
	return 0;
}

static void run_on(struct gyre *rt, unsigned worker, gyre_task_fn *fn, void *arg)
{
	struct gyre_job_options options = { .size = sizeof(options),
					    .worker = GYRE_WORKER(worker) };

	expect_status(gyre_block_on(rt, fn, arg, &options, NULL), GYRE_OK);
}

/* ------------------------------------------------------------ made once -- */

TEST(scenario_9_local_is_made_lazily_and_once_on_each_worker)
{
	struct gyre_local local = GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL);
	struct gyre *rt = test_open_workers(3);
	unsigned i;

	expect_eq(atomic_load(&made), 0);
	for (i = 0; i < 5; i++)
		run_on(rt, 1, task_get, &local);
	expect_eq(atomic_load(&made), 1);
	for (i = 0; i < 5; i++)
		run_on(rt, 2, task_get, &local);
	expect_eq(atomic_load(&made), 2);
	expect_eq(atomic_load(&destroyed), 0);
	gyre_free(rt);
	expect_eq(atomic_load(&made), 2);
	expect_eq(atomic_load(&destroyed), 2);
}

/* Two at once never run on a worker: what is not atomic counts right. */
struct counter {
	int worker;
	unsigned count;
};
static struct counter *counters[4];

static void *create_counter(void *arg)
{
	struct counter *counter = calloc(1, sizeof(*counter));

	expect_status(gyre_sleep(100000), GYRE_OK);
	(void)arg;
	expect(counter);
	counter->worker = gyre_current_worker();
	expect(!counters[counter->worker]);
	counters[counter->worker] = counter;
	return counter;
}

static struct gyre_local counter_local = GYRE_LOCAL_INIT(create_counter, free, NULL);

#define ROUNDS	100

static int task_count(void *arg)
{
	unsigned i;

	(void)arg;
	for (i = 0; i < ROUNDS; i++) {
		struct counter *counter = get(&counter_local);

		expect_eq(counter->worker, gyre_current_worker());
		expect(counter == counters[counter->worker]);
		counter->count++;
		gyre_yield();
	}
	return 0;
}

TEST(scenario_9_sixteen_jobs_on_four_workers_see_the_one_of_their_own)
{
	struct gyre *rt = test_open_workers(4);
	struct gyre_job *jobs[16];
	unsigned i;

	for (i = 0; i < LENGTH(jobs); i++) {
		struct gyre_job_options options = { .size = sizeof(options),
						    .worker = GYRE_WORKER(i % 4) };

		expect_status(gyre_spawn(rt, task_count, NULL, &options, &jobs[i]), GYRE_OK);
	}
	for (i = 0; i < LENGTH(jobs); i++)
		expect_status(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_OK);
	for (i = 0; i < 4; i++)
		expect_eq(counters[i]->count, 4 * ROUNDS);
	gyre_free(rt);
}

TEST(runtimes_share_no_value)
{
	struct gyre_local local = GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL);
	struct gyre *first = test_open_workers(1), *second = test_open_workers(1);

	test_block_on(first, task_get, &local);
	test_block_on(second, task_get, &local);
	expect_eq(atomic_load(&made), 2);
	gyre_free(first);
	expect_eq(atomic_load(&destroyed), 1);
	test_block_on(second, task_get, &local);
	expect_eq(atomic_load(&made), 2);
	gyre_free(second);
	expect_eq(atomic_load(&destroyed), 2);
}

/* More than the tables have room for at first, in two orders. */
#define MANY	100
static struct gyre_local many[MANY];

static int task_get_many(void *arg)
{
	void *values[MANY];
	unsigned i;

	for (i = 0; i < MANY; i++)
		values[i] = get(&many[i]);
	for (i = MANY; i-- > 0;)
		expect(get(&many[i]) == values[i]);
	(void)arg;
	return 0;
}

static void *create_number(void *arg)
{
	return arg;
}

static unsigned next_down = MANY;
static void destroy_number(void *value)
{
	expect_eq((uintptr_t)value, next_down);
	next_down--;
}

TEST(many_locals_are_kept_apart_and_destroyed_in_reverse)
{
	struct gyre *rt = test_open_workers(1);
	uintptr_t i;

	for (i = 0; i < MANY; i++)
		many[i] = (struct gyre_local)GYRE_LOCAL_INIT(create_number, destroy_number,
							     (void *)(i + 1));
	test_block_on(rt, task_get_many, NULL);
	test_block_on(rt, task_get_many, NULL);
	gyre_free(rt);
	expect_eq(next_down, 0);
}

/* --------------------------------------------------------- while it is made -- */

/* Made in the time in which a byte comes. */
struct slow {
	struct gyre_local local;
	struct test_pipe pipe;
	unsigned created, waiters;
	bool fails;
};

static void *create_slow(void *arg)
{
	struct slow *slow = arg;
	char c;

	slow->created++;
	expect_eq(gyre_read(NULL, slow->pipe.r, &c, 1), 1);
	return slow->fails ? NULL : slow;
}

static void slow_init(struct slow *slow)
{
	memset(slow, 0, sizeof(*slow));
	slow->local = (struct gyre_local)GYRE_LOCAL_INIT(create_slow, NULL, slow);
	slow->pipe = test_pipe();
}

static int task_wait_for_slow(void *arg)
{
	struct slow *slow = arg;

	slow->waiters++;
	expect(get(&slow->local) == slow);
	return 0;
}

static int task_first_users(void *arg)
{
	struct slow slow;
	unsigned i;

	(void)arg;
	slow_init(&slow);
	for (i = 0; i < 12; i++)
		expect_status(gyre_go(task_wait_for_slow, &slow, NULL), GYRE_OK);
	while (slow.waiters < 12)
		gyre_yield();
	expect_eq(slow.created, 1);
	expect_eq(write(slow.pipe.w, "x", 1), 1);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(slow.created, 1);
	test_pipe_close(&slow.pipe);
	return 0;
}

TEST(concurrent_first_users_wait_for_the_one_that_makes_it)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_first_users, NULL);
	gyre_free(rt);
}

static int task_expect_failure(void *arg)
{
	struct slow *slow = arg;
	void *value = slow;

	slow->waiters++;
	expect_status(gyre_local_get(&slow->local, &value), GYRE_SYSTEM);
	expect_contains(gyre_last_error(), "gyre_local_get");
	expect_contains(gyre_last_error(), "NULL");
	expect(value == slow);
	return 0;
}

/* Each of those that wait tries in its turn. */
static int task_create_fails(void *arg)
{
	struct slow slow;
	unsigned i;

	(void)arg;
	slow_init(&slow);
	slow.fails = true;
	for (i = 0; i < 4; i++)
		expect_status(gyre_go(task_expect_failure, &slow, NULL), GYRE_OK);
	while (slow.waiters < 4)
		gyre_yield();
	expect_eq(write(slow.pipe.w, "xxxx", 4), 4);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(slow.created, 4);
	slow.fails = false;
	expect_eq(write(slow.pipe.w, "x", 1), 1);
	expect(get(&slow.local) == &slow);
	expect(get(&slow.local) == &slow);
	expect_eq(slow.created, 5);
	test_pipe_close(&slow.pipe);
	return 0;
}

TEST(scenario_14_local_whose_create_fails_is_tried_again)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_create_fails, NULL);
	gyre_free(rt);
}

static int task_cancelled_waiter(void *arg)
{
	struct slow *slow = arg;
	void *value = NULL;

	slow->waiters++;
	expect_status(gyre_local_get(&slow->local, &value), GYRE_CANCELLED);
	expect_contains(gyre_last_error(), "cancelled");
	return 0;
}

static int task_cancels_waiters(void *arg)
{
	struct gyre_task *tasks[3];
	struct slow slow;
	unsigned i;

	(void)arg;
	slow_init(&slow);
	expect_status(gyre_go(task_wait_for_slow, &slow, NULL), GYRE_OK);
	for (i = 0; i < 3; i++)
		expect_status(gyre_go(task_cancelled_waiter, &slow, &tasks[i]), GYRE_OK);
	expect_status(gyre_go(task_wait_for_slow, &slow, NULL), GYRE_OK);
	while (slow.waiters < 5)
		gyre_yield();
	/* The middle one of the queue, then its ends. */
	gyre_task_cancel(tasks[1]);
	gyre_task_cancel(tasks[2]);
	gyre_task_cancel(tasks[0]);
	for (i = 0; i < 3; i++)
		expect_status(gyre_join(tasks[i], NULL), GYRE_OK);
	expect_eq(write(slow.pipe.w, "x", 1), 1);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(slow.created, 1);
	test_pipe_close(&slow.pipe);
	return 0;
}

TEST(who_is_cancelled_while_another_makes_it_goes)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_cancels_waiters, NULL);
	gyre_free(rt);
}

/* ------------------------------------------------------------- recursion -- */

enum detour { DIRECT, THROUGH_TASK, THROUGH_JOB, THROUGH_OTHER_LOCAL, THROUGH_OFFLOAD, DETOURS };

static struct gyre_local recursive, other;
static enum gyre_status inner;

static int task_recurse(void *arg)
{
	void *value;

	(void)arg;
	inner = gyre_local_get(&recursive, &value);
	return 0;
}

static int task_recurse_in_job(void *rt)
{
	expect_status(gyre_block_on(rt, task_recurse, NULL, NULL, NULL), GYRE_OK);
	return 0;
}

static void *create_recursive(void *arg)
{
	struct gyre_job_options here = { .size = sizeof(here), .worker = GYRE_WORKER(0) };
	struct gyre_task *task;
	void *value;

	switch ((enum detour)(uintptr_t)arg) {
	case DIRECT:
		inner = gyre_local_get(&recursive, &value);
		break;
	case THROUGH_TASK:
		expect_status(gyre_go(task_recurse, NULL, &task), GYRE_OK);
		expect_status(gyre_join(task, NULL), GYRE_OK);
		break;
	case THROUGH_JOB:
		expect_status(gyre_block_on(NULL, task_recurse, NULL, &here, NULL), GYRE_OK);
		break;
	case THROUGH_OTHER_LOCAL:
		expect_status(gyre_local_get(&other, &value), GYRE_OK);
		break;
	default:
		expect_status(gyre_offload(NULL, task_recurse_in_job, gyre_current(), NULL),
			      GYRE_OK);
	}
	return &recursive;
}

static void *create_other(void *arg)
{
	(void)arg;
	task_recurse(NULL);
	return &other;
}

static int task_recursion(void *arg)
{
	(void)arg;
	expect(get(&recursive) == &recursive);
	return 0;
}

TEST(recursion_would_deadlock_and_says_so)
{
	static const char *const names[] = { "direct", "through a task", "through a job",
					     "through another local", "through a helper" };
	unsigned i;

	for (i = 0; i < DETOURS; i++) {
		struct gyre *rt = test_open_workers(1);

		test_row("%s", names[i]);
		recursive = (struct gyre_local)GYRE_LOCAL_INIT(create_recursive, NULL,
							       (void *)(uintptr_t)i);
		other = (struct gyre_local)GYRE_LOCAL_INIT(create_other, NULL, NULL);
		inner = GYRE_OK;
		test_block_on(rt, task_recursion, NULL);
		expect_status(inner, GYRE_WOULD_DEADLOCK);
		gyre_free(rt);
	}
}

/* Two that each need the other, made by two tasks at once. */
static struct gyre_local crossed[2];
static enum gyre_status crossed_status[2];

static void *create_crossed(void *arg)
{
	uintptr_t i = (uintptr_t)arg;
	void *value;

	gyre_yield();
	crossed_status[i] = gyre_local_get(&crossed[1 - i], &value);
	return &crossed[i];
}

static int task_crossed(void *arg)
{
	get(&crossed[(uintptr_t)arg]);
	return 0;
}

static int task_both_crossed(void *arg)
{
	uintptr_t i;

	(void)arg;
	for (i = 0; i < 2; i++)
		crossed[i] = (struct gyre_local)GYRE_LOCAL_INIT(create_crossed, NULL, (void *)i);
	for (i = 0; i < 2; i++)
		expect_status(gyre_go(task_crossed, (void *)i, NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq((crossed_status[0] == GYRE_WOULD_DEADLOCK) +
		  (crossed_status[1] == GYRE_WOULD_DEADLOCK), 1);
	expect_eq((crossed_status[0] == GYRE_OK) + (crossed_status[1] == GYRE_OK), 1);
	return 0;
}

TEST(two_locals_that_need_each_other_do_not_hang)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_both_crossed, NULL);
	gyre_free(rt);
}

/* What it starts waits for the value already when the maker wants to wait for that. */
static struct gyre_local patient;

static int task_get_patiently(void *arg)
{
	atomic_fetch_add(&made, 1);
	expect(get(&patient) == &patient);
	(void)arg;
	return 0;
}

static void *create_patient(void *arg)
{
	struct gyre_task *task;

	expect_status(gyre_go(task_get_patiently, NULL, &task), GYRE_OK);
	while (!atomic_load(&made))
		gyre_yield();
	inner = arg ? gyre_join_all() : gyre_join(task, NULL);
	expect_contains(gyre_last_error(), "local");
	return &patient;
}

static int task_make_patient(void *arg)
{
	(void)arg;
	expect(get(&patient) == &patient);
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

TEST(join_of_who_waits_for_the_local_that_is_made_would_deadlock)
{
	uintptr_t all;

	for (all = 0; all < 2; all++) {
		struct gyre *rt = test_open_workers(1);

		test_row("%s", all ? "gyre_join_all" : "gyre_join");
		atomic_store(&made, 0);
		patient = (struct gyre_local)GYRE_LOCAL_INIT(create_patient, NULL, (void *)all);
		inner = GYRE_OK;
		test_block_on(rt, task_make_patient, NULL);
		expect_status(inner, GYRE_WOULD_DEADLOCK);
		gyre_free(rt);
	}
}

/* -------------------------------------------------- creates that do not return -- */

struct doomed {
	struct gyre_local local;
	atomic_uint attempts, waits;
	bool panics;
};

static void *create_doomed(void *arg)
{
	struct doomed *doomed = arg;

	if (atomic_fetch_add(&doomed->attempts, 1) > 0)
		return doomed;
	if (doomed->panics) {
		while (!atomic_load(&doomed->waits))
			gyre_yield();
		gyre_panic("no local today");
	}
	for (;;)
		gyre_sleep(GYRE_FOREVER);
}

static int task_doomed(void *arg)
{
	get(&((struct doomed *)arg)->local);
	return 0;
}

static int task_heir(void *arg)
{
	struct doomed *doomed = arg;

	atomic_store(&doomed->waits, 1);
	expect(get(&doomed->local) == doomed);
	return 0;
}

static void check_doomed(bool panics, enum gyre_status status)
{
	struct gyre *rt = test_open_workers(1);
	struct doomed doomed = { .panics = panics };
	struct gyre_job *maker, *heir;

	doomed.local = (struct gyre_local)GYRE_LOCAL_INIT(create_doomed, NULL, &doomed);
	maker = test_spawn(rt, task_doomed, &doomed);
	await(atomic_load(&doomed.attempts));
	heir = test_spawn(rt, task_heir, &doomed);
	await(atomic_load(&doomed.waits));
	if (!panics)
		gyre_job_cancel(maker);
	expect_status(gyre_job_wait(maker, GYRE_FOREVER, NULL), status);
	expect_status(gyre_job_wait(heir, GYRE_FOREVER, NULL), GYRE_OK);
	expect_eq(atomic_load(&doomed.attempts), 2);
	gyre_free(rt);
}

TEST(create_that_panics_is_that_jobs_and_the_next_makes_it)
{
	check_doomed(true, GYRE_RESPONSE_LOST);
}

TEST(create_that_is_dropped_is_that_jobs_and_the_next_makes_it)
{
	check_doomed(false, GYRE_CANCELLED);
}

/* ------------------------------------------------------ use of the runtime -- */

static int task_three(void *arg)
{
	(void)arg;
	return 3;
}

/* Each kind of wait, once. */
static void use_the_runtime(void)
{
	struct gyre_job_options elsewhere = { .size = sizeof(elsewhere), .worker = GYRE_WORKER(1) };
	struct gyre_task *task;
	int res, fd;
	char c;

	expect_status(gyre_call(NULL, prep_nop, NULL, &res), GYRE_OK);
	expect_status(gyre_sleep(1), GYRE_OK);
	fd = gyre_openat(NULL, AT_FDCWD, "/dev/zero", O_RDONLY | O_CLOEXEC, 0);
	expect_ge(fd, 0);
	expect_eq(gyre_read(NULL, fd, &c, 1), 1);
	expect_eq(gyre_close_fd(NULL, fd), 0);
	expect_status(gyre_go(task_three, NULL, &task), GYRE_OK);
	expect_status(gyre_join(task, &res), GYRE_OK);
	expect_eq(res, 3);
	expect_status(gyre_block_on(NULL, task_three, NULL, NULL, &res), GYRE_OK);
	expect_eq(res, 3);
	expect_status(gyre_block_on(NULL, task_three, NULL, &elsewhere, &res), GYRE_OK);
	expect_eq(res, 3);
	expect_status(gyre_offload(NULL, task_three, NULL, &res), GYRE_OK);
	expect_eq(res, 3);
}

static void *create_using(void *arg)
{
	(void)arg;
	use_the_runtime();
	expect(gyre_alloc(100));
	return &made;
}

static int task_get_any(void *local)
{
	get(local);
	return 0;
}

TEST(scenario_14_create_may_use_the_runtime)
{
	struct gyre_local local = GYRE_LOCAL_INIT(create_using, NULL, NULL);
	struct gyre *rt = test_open_workers(2);

	run_on(rt, 0, task_get_any, &local);
	gyre_free(rt);
}

/* Each needs the one before it, and so is made after that, and destroyed before. */
static struct gyre_local tower[5];
static uintptr_t tower_height;

static void *create_storey(void *storey)
{
	uintptr_t number = (uintptr_t)storey;

	if (number > 1)
		expect_eq((uintptr_t)get(&tower[number - 2]), number - 1);
	expect_eq(++tower_height, number);
	return storey;
}

static void destroy_storey(void *storey)
{
	expect_eq((uintptr_t)storey, tower_height);
	tower_height--;
}

TEST(create_may_get_other_locals_which_outlive_it)
{
	struct gyre *rt = test_open_workers(1);
	uintptr_t i;

	for (i = 0; i < LENGTH(tower); i++)
		tower[i] = (struct gyre_local)GYRE_LOCAL_INIT(create_storey, destroy_storey,
							      (void *)(i + 1));
	test_block_on(rt, task_get_any, &tower[LENGTH(tower) - 1]);
	expect_eq(tower_height, LENGTH(tower));
	gyre_free(rt);
	expect_eq(tower_height, 0);
}

/* -------------------------------------------------------------- the end -- */

static int task_get_three(void *arg)
{
	struct gyre_local *locals = arg;

	get(&locals[1]);
	get(&locals[0]);
	get(&locals[2]);
	get(&locals[1]);
	return 0;
}

TEST(scenario_9_values_are_destroyed_in_reverse_order_when_the_runtime_closes)
{
	struct gyre_local locals[3] = {
		GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL),
		GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL),
		GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL),
	};
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_get_three, locals);
	expect_status(gyre_close(rt), GYRE_OK);
	expect_eq(atomic_load(&destroyed), 3);
	expect_eq(atomic_load(&graveyard[0]), 2);
	expect_eq(atomic_load(&graveyard[1]), 1);
	expect_eq(atomic_load(&graveyard[2]), 0);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 3);
}

static enum gyre_status late;
static void *never;

static void destroy_waiting(void *value)
{
	expect_status(gyre_call(NULL, prep_nop, NULL, NULL), GYRE_OK);
	expect_status(gyre_sleep(1), GYRE_OK);
	expect_status(gyre_offload(NULL, task_three, NULL, NULL), GYRE_OK);
	expect_eq(gyre_cancelled(), 0);
	late = gyre_local_get(value, &never);
	expect_contains(gyre_last_error(), "gyre_local_get");
	atomic_fetch_add(&destroyed, 1);
}

static void count_destroyed(void *arg)
{
	(void)arg;
	atomic_fetch_add(&destroyed, 1);
}

static void destroy_with_the_arena(void *value)
{
	(void)value;
	expect(gyre_alloc(1000));
	expect_status(gyre_defer(count_destroyed, NULL), GYRE_OK);
}

static void *create_itself(void *arg)
{
	return arg;
}

static struct gyre_local at_end[2];

static int task_get_both(void *arg)
{
	(void)arg;
	get(&at_end[0]);
	return 0;
}

TEST(destroy_may_wait_and_finds_no_new_local)
{
	struct gyre *rt = test_open_workers(1);

	at_end[0] = (struct gyre_local)GYRE_LOCAL_INIT(create_itself, destroy_waiting, &at_end[1]);
	at_end[1] = (struct gyre_local)GYRE_LOCAL_INIT(create_itself, NULL, &at_end[1]);
	test_block_on(rt, task_get_both, NULL);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 1);
	expect_status(late, GYRE_CLOSED);
	expect(!never);
}

TEST(destroy_has_memory_and_defers_as_other_tasks_have)
{
	struct gyre *rt = test_open_workers(1);

	at_end[0] = (struct gyre_local)GYRE_LOCAL_INIT(create_itself, destroy_with_the_arena,
						       &at_end[0]);
	test_block_on(rt, task_get_both, NULL);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 1);
}

static int task_ask_for_what_goes(void *arg)
{
	late = gyre_local_get(arg, &never);
	return 0;
}

/* While it waits, a task of another job asks for what it takes apart. */
static void destroy_letting_others_look(void *value)
{
	(void)value;
	expect_status(gyre_block_on(NULL, task_ask_for_what_goes, &at_end[0], NULL, NULL),
		      GYRE_OK);
	atomic_fetch_add(&destroyed, 1);
}

TEST(value_that_is_being_destroyed_is_given_to_nobody)
{
	struct gyre *rt = test_open_workers(1);

	at_end[0] = (struct gyre_local)GYRE_LOCAL_INIT(create_itself, destroy_letting_others_look,
						       &at_end[0]);
	test_block_on(rt, task_get_both, NULL);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 1);
	expect_status(late, GYRE_CLOSED);
	expect(!never);
}

static void destroy_panicking(void *value)
{
	gyre_panic("cannot destroy %p", value);
}

static void panic_in_destroy(void *arg)
{
	struct gyre *rt = test_open_workers(1);

	(void)arg;
	at_end[0] = (struct gyre_local)GYRE_LOCAL_INIT(create_itself, destroy_panicking,
						       &at_end[0]);
	test_block_on(rt, task_get_both, NULL);
	gyre_free(rt);
}

TEST(panic_in_destroy_aborts)
{
	test_asserts(panic_in_destroy, NULL);
}

/* It waits for what never comes, and the time to drain ends that. */
static void destroy_hanging(void *value)
{
	(void)value;
	late = gyre_sleep(GYRE_FOREVER);
	atomic_fetch_add(&destroyed, 1);
}

TEST(destroy_waits_no_longer_than_the_drain)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.drain_ns = 20000000 };
	struct gyre *rt = test_open(&options);

	at_end[0] = (struct gyre_local)GYRE_LOCAL_INIT(create_itself, destroy_hanging, &at_end[0]);
	test_block_on(rt, task_get_both, NULL);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 1);
	expect_status(late, GYRE_CANCELLED);
}

/* Destroyed after the jobs that the close has to wait for. */
static int task_use_until_closed(void *arg)
{
	struct thing *thing = get(arg);

	atomic_fetch_add(&made, 100);
	expect_status(gyre_sleep(GYRE_FOREVER), GYRE_CANCELLED);
	expect_eq(atomic_load(&destroyed), 0);
	expect_eq(thing->tid, gettid());
	expect(get(arg) == thing);
	return 0;
}

TEST(values_outlive_the_jobs_that_the_close_waits_for)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.drain_ns = 1000000 };
	struct gyre_local local = GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL);
	struct gyre *rt = test_open(&options);
	struct gyre_job *job = test_spawn(rt, task_use_until_closed, &local);

	await(atomic_load(&made) == 101);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 1);
	gyre_job_wait(job, GYRE_FOREVER, NULL);
}

static int task_expect_dead(void *arg)
{
	struct thing *thing = get(arg);

	atomic_fetch_add(&made, 100);
	expect_status(gyre_sleep(GYRE_FOREVER), GYRE_CANCELLED);
	expect(get(arg) == thing);
	return 0;
}

TEST(values_of_a_worker_that_dies_are_destroyed_on_its_thread)
{
	struct gyre_local local = GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL);
	struct gyre_job *job;
	struct gyre *rt;

	gyre__fault_install();
	rt = test_open_workers(1);
	test_block_on(rt, task_get, &local);
	job = test_spawn(rt, task_expect_dead, &local);
	await(atomic_load(&made) == 101);
	gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_WORKER_DEAD);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_WORKER_DEAD);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 1);
	gyre__fault_remove();
}

/* ------------------------------------------------------------------ dump -- */

TEST(scenario_10_dump_says_which_worker_has_which_local_and_since_when)
{
	struct gyre_local first = GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL),
			  second = first;
	struct gyre *rt = test_open_workers(2);
	char line[128], *text = test_dump(rt);

	expect(!strstr(text, "local"));
	free(text);
	run_on(rt, 1, task_get, &first);
	run_on(rt, 0, task_get, &second);
	run_on(rt, 1, task_get, &second);
	text = test_dump(rt);
	snprintf(line, sizeof(line), "local %p of worker 1: value 0x", (void *)&first);
	expect_contains(text, line);
	snprintf(line, sizeof(line), "local %p of worker 0: value 0x", (void *)&second);
	expect_contains(text, line);
	snprintf(line, sizeof(line), "local %p of worker 1: value 0x", (void *)&second);
	expect_contains(text, line);
	expect_contains(strstr(text, line), "made before ");
	snprintf(line, sizeof(line), "local %p of worker 0: value 0x", (void *)&first);
	expect(!strstr(text, line));
	free(text);
	gyre_free(rt);
}

/* -------------------------------------------------------------- misuse -- */

static void prep_that_gets(struct io_uring_sqe *sqe, void *arg)
{
	void *value = NULL;

	expect_status(gyre_local_get(arg, &value), GYRE_WOULD_DEADLOCK);
	expect(!value);
	io_uring_prep_nop(sqe);
}

static int task_misuse(void *arg)
{
	struct gyre_local local = GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL);
	struct gyre_local empty = GYRE_LOCAL_INIT(NULL, NULL, NULL);
	void *value = &local;

	(void)arg;
	expect_status(gyre_local_get(NULL, &value), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_local_get: local is NULL");
	expect_status(gyre_local_get(&local, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "ret is NULL");
	expect_status(gyre_local_get(&empty, &value), GYRE_INVALID);
	expect_contains(gyre_last_error(), "create is NULL");
	expect_status(gyre_call(NULL, prep_that_gets, &local, NULL), GYRE_OK);
	expect(value == &local);
	expect_eq(atomic_load(&made), 0);
	return 0;
}

TEST(nulls_are_invalid_and_a_prep_closure_may_not_wait)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_misuse, NULL);
	gyre_free(rt);
}

static int offloaded_get(void *local)
{
	void *value = NULL;

	expect_status(gyre_local_get(local, &value), GYRE_NO_REACTOR);
	expect(!value);
	return 0;
}

TEST(scenario_13_elsewhere_there_is_no_worker_to_have_one)
{
	struct gyre_local local = GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL);
	struct gyre *rt = test_open_workers(1);
	void *value = NULL;

	expect_status(gyre_local_get(&local, &value), GYRE_NO_REACTOR);
	expect_contains(gyre_last_error(), "gyre_local_get");
	expect_contains(gyre_last_error(), "no reactor running on this thread");
	expect(!value);
	expect_status(gyre_offload(rt, offloaded_get, &local, NULL), GYRE_OK);
	expect_eq(atomic_load(&made), 0);
	gyre_free(rt);
}

/* ------------------------------------------------------------- no memory -- */

static unsigned allocations_failed;

/* Until so many pass that none fails. */
static int task_scarce(void *arg)
{
	struct gyre_local *local = arg;
	enum gyre_status status;
	void *value = NULL;
	unsigned n;

	for (n = 0;; n++) {
		test_row("allocation %u fails", n);
		gyre__fault_clear();
		gyre__fault_set_on("gyre-0", GYRE__FAULT_alloc, n, 1, -ENOMEM);
		status = gyre_local_get(local, &value);
		gyre__fault_clear();
		if (status == GYRE_OK)
			break;
		expect_status(status, GYRE_NO_MEMORY);
		expect_contains(gyre_last_error(), "out of memory");
		expect(!value);
	}
	allocations_failed = n;
	expect(get(local) == value);
	return 0;
}

TEST(get_without_memory_says_so_and_works_afterwards)
{
	struct gyre_local local = GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL);
	struct gyre *rt;

	gyre__fault_install();
	rt = test_open_workers(1);
	test_block_on(rt, task_scarce, &local);
	gyre_free(rt);
	gyre__fault_remove();
	expect_ge(allocations_failed, 2);
	expect_eq(atomic_load(&made), 1);
	expect_eq(atomic_load(&destroyed), 1);
}

/* Where there is no memory for the task that destroys them, they are destroyed all the same. */
TEST(close_without_memory_destroys_them)
{
	struct gyre_local local = GYRE_LOCAL_INIT(create_thing, destroy_thing, NULL);
	struct gyre *rt;

	gyre__fault_install();
	rt = test_open_workers(1);
	test_block_on(rt, task_get, &local);
	gyre__fault_set_on("gyre-0", GYRE__FAULT_alloc, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 1);
	gyre__fault_remove();
}

TEST_MAIN()
