/* SPDX-License-Identifier: MIT */
/*
 * Waits that would wait for themselves are refused, wherever their links lie: in
 * joins, jobs, worker locals, helpers and closes of runtimes. What would end by
 * itself, or gives way to a cancel, is not.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "helpers.h"

#define MS	UINT64_C(1000000)

static struct gyre *open_draining(unsigned workers, uint64_t drain_ns)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;

	options.workers = workers;
	options.drain_ns = drain_ns;
	return test_open(&options);
}

static int offload(gyre_task_fn *fn, void *arg)
{
	int result = -1;

	expect_status(gyre_offload(NULL, fn, arg, &result), GYRE_OK);
	return result;
}

/* ---------------------------------------------------- runtimes that close each other -- */

struct pair {
	struct gyre *rts[2];
	struct gyre_job *job;
	bool offloaded, freed[2];
	atomic_uint ready, refused, go, asleep;
	enum gyre_status status[2];
};

struct side {
	struct pair *pair;
	unsigned number;
};

static int close_the_other(void *arg)
{
	struct side *side = arg;
	struct pair *pair = side->pair;
	enum gyre_status status;

	status = gyre_close(pair->rts[1 - side->number]);
	if (status == GYRE_WOULD_DEADLOCK) {
		expect_contains(gyre_last_error(), "gyre_close");
		atomic_fetch_add(&pair->refused, 1);
	} else {
		expect_status(status, GYRE_OK);
	}
	pair->status[side->number] = status;
	return 1;
}

static int task_close_the_other(void *arg)
{
	struct side *side = arg;

	atomic_fetch_add(&side->pair->ready, 1);
	while (atomic_load(&side->pair->ready) < 2)
		gyre_yield();
	return side->pair->offloaded ? offload(close_the_other, side) : close_the_other(side);
}

TEST(of_two_runtimes_whose_tasks_close_each_other_one_is_refused)
{
	unsigned i, round;

	for (round = 0; round < test_times(40); round++) {
		struct pair pair = { .offloaded = round & 1 };
		struct side sides[2] = { { &pair, 0 }, { &pair, 1 } };
		struct gyre_job *jobs[2];

		for (i = 0; i < 2; i++)
			pair.rts[i] = open_draining(1 + (round & 2), round & 4 ? GYRE_FOREVER : 1);
		for (i = 0; i < 2; i++)
			jobs[i] = test_spawn(pair.rts[i], task_close_the_other, &sides[i]);
		for (i = 0; i < 2; i++)
			expect_ne(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_BUSY);
		expect_eq(atomic_load(&pair.refused), 1);
		for (i = 0; i < 2; i++)
			gyre_free(pair.rts[i]);
	}
}

/* The helper is one of a plain thread's: no task waits for it, but its runtime does. */
static void thread_closes_the_other(void *arg, unsigned number)
{
	struct side *sides = arg;
	int result;

	sides[number].number = number;
	expect_status(gyre_offload(sides->pair->rts[number], task_close_the_other, &sides[number],
				   &result), GYRE_OK);
	expect_eq(result, 1);
}

TEST(of_two_runtimes_whose_helpers_close_each_other_one_is_refused)
{
	unsigned i, round;

	for (round = 0; round < test_times(40); round++) {
		struct pair pair = { .rts = { test_open_workers(1), test_open_workers(1) } };
		struct side sides[2] = { { &pair, 0 }, { &pair, 1 } };

		test_crew_run(2, thread_closes_the_other, sides);
		expect_eq(atomic_load(&pair.refused), 1);
		for (i = 0; i < 2; i++)
			gyre_free(pair.rts[i]);
	}
}

static int offloaded_close(void *rt)
{
	return gyre_close(rt) == GYRE_WOULD_DEADLOCK;
}

static int task_close_on_its_helper(void *arg)
{
	int result = -1;

	expect_status(gyre_offload(arg, offloaded_close, arg, &result), GYRE_OK);
	return result;
}

TEST(close_by_a_helper_of_the_runtime_is_refused_whoever_it_works_for)
{
	struct gyre *rt = test_open_workers(1), *other = test_open_workers(1);
	int result = -1;

	expect_status(gyre_offload(rt, offloaded_close, rt, &result), GYRE_OK);
	expect_eq(result, 1);
	gyre_free(rt);
	rt = test_open_workers(1);
	expect_eq(test_block_on(other, task_close_on_its_helper, rt), 1);
	gyre_free(rt);
	gyre_free(other);
}

static int task_free_the_other(void *arg)
{
	struct side *side = arg;
	struct pair *pair = side->pair;

	atomic_fetch_add(&pair->ready, 1);
	while (atomic_load(&pair->ready) < 2)
		gyre_yield();
	gyre_free(pair->rts[1 - side->number]);
	pair->status[side->number] = gyre_last_status();
	pair->freed[1 - side->number] = pair->status[side->number] != GYRE_WOULD_DEADLOCK;
	if (pair->status[side->number] == GYRE_WOULD_DEADLOCK) {
		expect_contains(gyre_last_error(), "gyre_free");
		expect_contains(gyre_last_error(), "not freed");
	}
	return 0;
}

TEST(of_two_runtimes_whose_tasks_free_each_other_one_is_left_to_be_freed)
{
	unsigned i, round;

	for (round = 0; round < test_times(40); round++) {
		struct pair pair = { .rts = { test_open_workers(1), test_open_workers(2) } };
		struct side sides[2] = { { &pair, 0 }, { &pair, 1 } };
		struct gyre_job *jobs[2];

		for (i = 0; i < 2; i++)
			jobs[i] = test_spawn(pair.rts[i], task_free_the_other, &sides[i]);
		/* GYRE_CLOSED: its runtime is gone already. */
		for (i = 0; i < 2; i++)
			expect_ne(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_BUSY);
		expect_eq((pair.status[0] == GYRE_WOULD_DEADLOCK) +
			  (pair.status[1] == GYRE_WOULD_DEADLOCK), 1);
		for (i = 0; i < 2; i++) {
			if (pair.freed[i])
				continue;
			expect_status(gyre_call(pair.rts[i], prep_nop, NULL, NULL), GYRE_CLOSED);
			gyre_free(pair.rts[i]);
		}
	}
}

static int task_free_who_waits(void *arg)
{
	struct pair *pair = arg;

	gyre_free(pair->rts[0]);
	expect_status(gyre_last_status(), GYRE_WOULD_DEADLOCK);
	return 6;
}

static int task_block_on_freer(void *arg)
{
	struct pair *pair = arg;

	return test_block_on(pair->rts[1], task_free_who_waits, pair);
}

TEST(free_of_a_runtime_that_waits_for_the_caller_seals_it_and_returns)
{
	struct pair pair = { .rts = { open_draining(2, GYRE_FOREVER), test_open_workers(1) } };

	expect_eq(test_block_on(pair.rts[0], task_block_on_freer, &pair), 6);
	expect_status(gyre_call(pair.rts[0], prep_nop, NULL, NULL), GYRE_CLOSED);
	gyre_free(pair.rts[0]);
	gyre_free(pair.rts[1]);
}

/* ------------------------------------- waits for who closes the runtime of who waits -- */

static int task_close_first(void *arg)
{
	struct pair *pair = arg;

	while (!atomic_load(&pair->go))
		gyre_yield();
	pair->status[0] = gyre_close(pair->rts[0]);
	return 0;
}

static int wait_for_closer(void *arg)
{
	struct pair *pair = arg;

	return (int)gyre_job_wait(pair->job, GYRE_FOREVER, NULL);
}

static int task_wait_for_closer_on_helper(void *arg)
{
	struct pair *pair = arg;

	atomic_store(&pair->go, 1);
	while (!atomic_load(&pair->asleep))
		gyre_yield();
	return offload(wait_for_closer, pair);
}

static void *look_for_seal(void *arg)
{
	struct pair *pair = arg;

	await(gyre_call(pair->rts[0], prep_nop, NULL, NULL) == GYRE_CLOSED);
	atomic_store(&pair->asleep, 1);
	return NULL;
}

/* A job of the first runtime of pair, which one of the second closes, and what comes of it. */
static void wait_for_closer_by(struct pair *pair, gyre_task_fn *fn, enum gyre_status status,
			       enum gyre_status wait_status)
{
	struct gyre_job *job;
	pthread_t looker;
	int result = -1;

	pair->job = test_spawn(pair->rts[1], task_close_first, pair);
	expect_eq(pthread_create(&looker, NULL, look_for_seal, pair), 0);
	job = test_spawn(pair->rts[0], fn, pair);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), status);
	expect_eq(result, wait_status);
	expect_job(pair->job, GYRE_OK);
	expect_status(pair->status[0], GYRE_OK);
	pthread_join(looker, NULL);
	gyre_free(pair->rts[0]);
	gyre_free(pair->rts[1]);
}

TEST(helper_that_waits_for_who_closes_its_runtime_would_deadlock)
{
	struct pair pair = { .rts = { test_open_workers(1), test_open_workers(1) } };

	wait_for_closer_by(&pair, task_wait_for_closer_on_helper, GYRE_OK, GYRE_WOULD_DEADLOCK);
}

static int task_wait_for_closer(void *arg)
{
	struct pair *pair = arg;

	atomic_store(&pair->go, 1);
	while (!atomic_load(&pair->asleep))
		gyre_yield();
	/* The end of the drain cancels it. */
	return (int)gyre_job_wait(pair->job, GYRE_FOREVER, NULL);
}

TEST(task_that_waits_for_who_closes_its_runtime_is_cancelled_by_that)
{
	struct pair pair = { .rts = { open_draining(1, 20 * MS), test_open_workers(1) } };

	wait_for_closer_by(&pair, task_wait_for_closer, GYRE_CANCELLED, GYRE_BUSY);
}

/* -------------------------------------------- a local that a job of its create gets -- */

static struct gyre_local local;
static enum gyre_status inner[2];
static atomic_uint asked;

static int task_get_local(void *arg)
{
	void *value;

	(void)arg;
	atomic_store(&asked, 1);
	inner[0] = gyre_local_get(&local, &value);
	atomic_store(&asked, 2);
	return 0;
}

static int wait_for_job(void *job)
{
	return (int)gyre_job_wait(job, GYRE_FOREVER, NULL);
}

enum way { ASKS_FIRST, WAITS_FIRST, ON_A_HELPER, OF_ANOTHER_WORKER, WAYS };

/* On another worker, for one that gets it here. */
static int task_block_on_getter(void *arg)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;

	options.worker = GYRE_WORKER(0);
	expect_status(gyre_block_on(NULL, task_get_local, arg, &options, NULL), GYRE_OK);
	return 0;
}

static void *create_through_job(void *arg)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;
	enum way way = (enum way)(uintptr_t)arg;
	struct gyre_job *job;

	options.worker = GYRE_WORKER(way == OF_ANOTHER_WORKER);
	expect_status(gyre_spawn(NULL, way == OF_ANOTHER_WORKER ? task_block_on_getter :
				 task_get_local, NULL, &options, &job), GYRE_OK);
	while (way != WAITS_FIRST && !atomic_load(&asked))
		gyre_yield();
	inner[1] = way == ON_A_HELPER ? (enum gyre_status)offload(wait_for_job, job) :
					gyre_job_wait(job, GYRE_FOREVER, NULL);
	if (inner[1] == GYRE_WOULD_DEADLOCK)
		gyre_job_detach(job);
	return &local;
}

static int task_make_local(void *arg)
{
	void *value;

	(void)arg;
	expect_status(gyre_local_get(&local, &value), GYRE_OK);
	while (atomic_load(&asked) != 2)
		gyre_yield();
	return 0;
}

TEST(create_that_waits_for_a_job_which_gets_the_same_local_is_refused_somewhere)
{
	static const char *const names[] = { "the job asks first", "create waits first",
					     "a helper waits", "through another worker" };
	uintptr_t way;

	for (way = 0; way < WAYS; way++) {
		struct gyre *rt = test_open_workers(2);
		struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;

		test_row("%s", names[way]);
		options.worker = GYRE_WORKER(0);
		local = (struct gyre_local)GYRE_LOCAL_INIT(create_through_job, NULL, (void *)way);
		atomic_store(&asked, 0);
		inner[0] = inner[1] = GYRE_FROZEN;
		expect_status(gyre_block_on(rt, task_make_local, NULL, &options, NULL), GYRE_OK);
		expect_eq((inner[0] == GYRE_WOULD_DEADLOCK) + (inner[1] == GYRE_WOULD_DEADLOCK), 1);
		expect_eq((inner[0] == GYRE_OK) + (inner[1] == GYRE_OK), 1);
		gyre_free(rt);
	}
}

/* ------------------------------------------------------ whose end waits for what -- */

struct net {
	struct gyre *rt;
	struct gyre_job *job;		/* that of the first task */
	struct gyre_task *task;
	atomic_uint ready, go, waits;
	uint64_t timeout_ns;
	enum gyre_status status;
};

static void wait_for(atomic_uint *flag)
{
	while (!atomic_load(flag))
		gyre_yield();
}

static int task_wait_for_net(void *arg)
{
	struct net *net = arg;

	wait_for(&net->ready);
	atomic_store(&net->waits, 1);
	net->status = gyre_job_wait(net->job, net->timeout_ns, NULL);
	return 0;
}

static int task_block_on_waiter(void *arg)
{
	struct net *net = arg;
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;

	options.worker = GYRE_WORKER(1);
	gyre_block_on(NULL, task_wait_for_net, net, &options, NULL);
	return 0;
}

/* It starts a sibling, which waits for a job, and returns when told to. */
static int task_with_sibling(void *arg)
{
	struct net *net = arg;

	expect_status(gyre_go(task_block_on_waiter, net, NULL), GYRE_OK);
	while (!atomic_load(&net->go))
		expect_status(gyre_sleep(MS / 10), GYRE_OK);
	return 0;
}

static void spawn_net(struct net *net, gyre_task_fn *fn)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;

	net->rt = test_open_workers(2);
	options.worker = GYRE_WORKER(0);
	expect_status(gyre_spawn(net->rt, fn, net, &options, &net->job), GYRE_OK);
	atomic_store(&net->ready, 1);
}

TEST(wait_for_a_job_that_only_cancels_who_waits_for_the_waiter_ends_with_it)
{
	struct net net = { .timeout_ns = GYRE_FOREVER };

	spawn_net(&net, task_with_sibling);
	await(atomic_load(&net.waits));
	expect_status(gyre_job_wait(net.job, MS, NULL), GYRE_BUSY);
	atomic_store(&net.go, 1);
	await(test_stat(net.rt, jobs_running) == 0);
	expect_job(net.job, GYRE_OK);
	expect_status(net.status, GYRE_BUSY);
	gyre_free(net.rt);
}

struct chain {
	struct net net;
	struct gyre_job *waiter;
	enum gyre_status sibling;
};

/* Waits for the waiter's job until its own job's first task has returned. */
static int task_wait_for_waiter(void *arg)
{
	struct chain *chain = arg;

	wait_for(&chain->net.ready);
	atomic_store(&chain->net.waits, 1);
	chain->sibling = gyre_job_wait(chain->waiter, GYRE_FOREVER, NULL);
	return 0;
}

static int task_with_waiting_sibling(void *arg)
{
	struct chain *chain = arg;

	expect_status(gyre_go(task_wait_for_waiter, chain, NULL), GYRE_OK);
	while (!atomic_load(&chain->net.go))
		expect_status(gyre_sleep(MS / 10), GYRE_OK);
	return 0;
}

static int task_wait_for_first(void *arg)
{
	struct chain *chain = arg;

	wait_for(&chain->net.waits);
	atomic_store(&chain->net.go, 1);
	chain->net.status = gyre_job_wait(chain->net.job, GYRE_FOREVER, NULL);
	return 3;
}

TEST(wait_for_a_job_whose_sibling_task_waits_for_the_waiter_is_answered)
{
	struct chain chain = { .sibling = GYRE_OK };
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;
	int result = -1;

	chain.net.rt = test_open_workers(2);
	options.worker = GYRE_WORKER(1);
	expect_status(gyre_spawn(chain.net.rt, task_wait_for_first, &chain, &options,
				 &chain.waiter), GYRE_OK);
	options.worker = GYRE_WORKER(0);
	expect_status(gyre_spawn(chain.net.rt, task_with_waiting_sibling, &chain, &options,
				 &chain.net.job), GYRE_OK);
	atomic_store(&chain.net.ready, 1);
	await(atomic_load(&chain.net.go) && test_stat(chain.net.rt, jobs_running) == 0);
	expect_status(gyre_job_wait(chain.waiter, GYRE_FOREVER, &result), GYRE_OK);
	expect_eq(result, 3);
	expect_status(chain.net.status, GYRE_OK);
	expect_status(chain.sibling, GYRE_BUSY);
	gyre_free(chain.net.rt);
}

/* What gives way to no cancel holds its job. */
static void defer_wait(void *arg)
{
	struct chain *chain = arg;

	atomic_store(&chain->net.waits, 1);
	chain->sibling = gyre_job_wait(chain->waiter, GYRE_FOREVER, NULL);
}

static int task_wait_in_defer(void *arg)
{
	struct chain *chain = arg;

	wait_for(&chain->net.ready);
	expect_status(gyre_defer(defer_wait, chain), GYRE_OK);
	return 0;
}

static int task_with_deferring_sibling(void *arg)
{
	struct chain *chain = arg;

	expect_status(gyre_go(task_wait_in_defer, chain, NULL), GYRE_OK);
	while (!atomic_load(&chain->net.go))
		expect_status(gyre_sleep(MS / 10), GYRE_OK);
	return 0;
}

static int offloaded_wait(void *arg)
{
	defer_wait(arg);
	return 0;
}

static int task_wait_on_helper(void *arg)
{
	struct chain *chain = arg;

	wait_for(&chain->net.ready);
	return offload(offloaded_wait, chain);
}

static int task_with_offloading_sibling(void *arg)
{
	struct chain *chain = arg;

	expect_status(gyre_go(task_wait_on_helper, chain, NULL), GYRE_OK);
	while (!atomic_load(&chain->net.go))
		expect_status(gyre_sleep(MS / 10), GYRE_OK);
	return 0;
}

TEST(wait_for_a_job_that_a_defer_or_a_helper_holds_is_refused_if_they_wait_for_the_waiter)
{
	gyre_task_fn *const fns[] = { task_with_deferring_sibling, task_with_offloading_sibling };
	unsigned i;

	for (i = 0; i < 2; i++) {
		struct chain chain = { .sibling = GYRE_FROZEN };
		struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;
		int result = -1;

		test_row("%s", i ? "a helper" : "a defer");
		chain.net.rt = test_open_workers(2);
		options.worker = GYRE_WORKER(1);
		expect_status(gyre_spawn(chain.net.rt, task_wait_for_first, &chain, &options,
					 &chain.waiter), GYRE_OK);
		options.worker = GYRE_WORKER(0);
		expect_status(gyre_spawn(chain.net.rt, fns[i], &chain, &options, &chain.net.job),
			      GYRE_OK);
		atomic_store(&chain.net.ready, 1);
		await(atomic_load(&chain.net.go) && test_stat(chain.net.rt, jobs_running) == 0);
		expect_eq((chain.net.status == GYRE_WOULD_DEADLOCK) +
			  (chain.sibling == GYRE_WOULD_DEADLOCK), 1);
		if (chain.net.status == GYRE_WOULD_DEADLOCK)
			expect_job(chain.net.job, GYRE_OK);
		else
			expect_status(chain.net.status, GYRE_OK);
		if (chain.sibling == GYRE_WOULD_DEADLOCK)
			expect_status(gyre_job_wait(chain.waiter, GYRE_FOREVER, &result), GYRE_OK);
		else
			expect_status(chain.sibling, GYRE_OK);
		gyre_free(chain.net.rt);
	}
}

/* The first task comes to wait, by a join, for a sibling that waits for a job all along. */
static int task_wait_on_and_on(void *arg)
{
	struct net *net = arg;

	wait_for(&net->ready);
	atomic_store(&net->waits, 1);
	net->status = gyre_job_wait(net->job, GYRE_FOREVER, NULL);
	return 0;
}

static int task_block_on_and_on(void *arg)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;

	options.worker = GYRE_WORKER(1);
	gyre_block_on(NULL, task_wait_on_and_on, arg, &options, NULL);
	return 0;
}

static int task_join_it(void *arg)
{
	struct net *net = arg;

	expect_status(gyre_go(task_block_on_and_on, net, &net->task), GYRE_OK);
	wait_for(&net->waits);
	while (!atomic_load(&net->go))
		expect_status(gyre_sleep(MS / 10), GYRE_OK);
	expect_status(net->timeout_ns ? gyre_join_all() : gyre_join(net->task, NULL),
		      GYRE_WOULD_DEADLOCK);
	gyre_task_cancel(net->task);
	expect_status(gyre_join(net->task, NULL), GYRE_OK);
	return 0;
}

TEST(join_that_closes_a_circle_of_jobs_is_refused)
{
	unsigned all;

	for (all = 0; all < 2; all++) {
		struct net net = { .timeout_ns = all };

		test_row("%s", all ? "gyre_join_all" : "gyre_join");
		spawn_net(&net, task_join_it);
		await(atomic_load(&net.waits));
		expect_status(gyre_job_wait(net.job, MS, NULL), GYRE_BUSY);
		atomic_store(&net.go, 1);
		await(test_stat(net.rt, jobs_running) == 0);
		expect_job(net.job, GYRE_OK);
		expect_status(net.status, GYRE_BUSY);
		gyre_free(net.rt);
	}
}

/* ------------------------------------------------------------- for a while -- */

static int task_block_on_brief(void *arg)
{
	expect_status(gyre_block_on(NULL, task_wait_for_net, arg, NULL, NULL), GYRE_OK);
	return 4;
}

TEST(wait_with_a_time_out_is_busy_in_the_end_even_in_a_circle)
{
	struct net net = { .timeout_ns = MS };

	spawn_net(&net, task_block_on_brief);
	/* Not before: a job has one waiter at a time, the task until it gives up. */
	await(test_stat(net.rt, jobs_running) == 0);
	expect_job(net.job, GYRE_OK);
	expect_status(net.status, GYRE_BUSY);
	gyre_free(net.rt);
}

static int task_wait_briefly(void *arg)
{
	struct chain *chain = arg;

	wait_for(&chain->net.ready);
	atomic_store(&chain->net.waits, 1);
	chain->sibling = gyre_job_wait(chain->waiter, 20 * MS, NULL);
	return 0;
}

TEST(wait_for_who_waits_for_a_while_in_turn_is_answered)
{
	struct chain chain = { .sibling = GYRE_OK };

	chain.net.rt = test_open_workers(2);
	chain.waiter = test_spawn(chain.net.rt, task_wait_for_first, &chain);
	chain.net.job = test_spawn(chain.net.rt, task_wait_briefly, &chain);
	atomic_store(&chain.net.ready, 1);
	await(atomic_load(&chain.net.go) && test_stat(chain.net.rt, jobs_running) == 0);
	expect_job(chain.waiter, GYRE_OK);
	expect_status(chain.net.status, GYRE_OK);
	expect_status(chain.sibling, GYRE_BUSY);
	gyre_free(chain.net.rt);
}

TEST_MAIN()
