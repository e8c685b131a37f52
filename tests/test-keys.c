/* SPDX-License-Identifier: MIT */
/* States by key: one for each, one job at a time, the least recently used evicted. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"
#include "workers/keys.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))
#define MS		UINT64_C(1000000)
#define KEYS		1000
#define LOG		4096

/* A state that knows whose it is and where it was made. */
struct thing {
	int number;		/* of its key; -1: that is no number */
	int worker;
	pid_t tid;
	unsigned jobs;		/* since it was made */
	bool used;		/* by a job, just now */
	bool clean;		/* since it was made or reset */
};

static atomic_uint created, destroyed, resets, live, most_live;
static atomic_uint of_key[KEYS];	/* states that there are of it now */
static atomic_int gone_keys[LOG];	/* of those destroyed, in order */
static atomic_uint ended;

/* What a test wants to happen in them; NULL: nothing. */
static struct {
	void (*in_create)(const char *key);
	void (*in_destroy)(struct thing *thing);
	atomic_uint failures;		/* so many creates give NULL */
	atomic_uint twice;		/* a key may have another state while its last one ends */
} plan;

static int number_of(const char *key)
{
	return key && key[0] == 'k' ? atoi(key + 1) : -1;
}

static void *create_thing(const char *key, void *arg)
{
	unsigned now, most;
	struct thing *thing;

	expect(arg == &plan);
	expect(!gyre_state());
	if (plan.in_create)
		plan.in_create(key);
	if (atomic_load(&plan.failures)) {
		atomic_fetch_sub(&plan.failures, 1);
		return NULL;
	}
	thing = malloc(sizeof(*thing));
	expect(thing);
	*thing = (struct thing){ number_of(key), gyre_current_worker(), gettid(), 0, false, true };
	atomic_fetch_add(&created, 1);
	now = atomic_fetch_add(&live, 1) + 1;
	most = atomic_load(&most_live);
	while (now > most && !atomic_compare_exchange_weak(&most_live, &most, now))
		;
	if (thing->number >= 0 && atomic_fetch_add(&of_key[thing->number], 1) > 0)
		expect(atomic_load(&plan.twice));
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
	expect(!thing->clean);
	thing->clean = true;
	atomic_fetch_add(&resets, 1);
}

static void destroy_thing(void *state, void *arg)
{
	struct thing *thing = state;

	expect_idle(thing, arg);
	if (plan.in_destroy)
		plan.in_destroy(thing);
	if (thing->number >= 0)
		atomic_fetch_sub(&of_key[thing->number], 1);
	atomic_fetch_sub(&live, 1);
	atomic_store(&gone_keys[atomic_fetch_add(&destroyed, 1) % LOG], thing->number);
	free(thing);
}

static const struct gyre_state_type thing_type = {
	.size = sizeof(thing_type), .create = create_thing, .reset = reset_thing,
	.destroy = destroy_thing, .arg = &plan,
};

static struct gyre *open_pool(unsigned workers, unsigned size)
{
	struct gyre_options options = { .size = sizeof(options), .workers = workers,
					.mode = GYRE_MODE_POOLED, .pool_size = size,
					.state = &thing_type };

	return test_open(&options);
}

static struct gyre_job_options for_key(const char *key)
{
	return (struct gyre_job_options){ .size = sizeof(struct gyre_job_options), .key = key };
}

static enum gyre_status run_key(struct gyre *rt, const char *key, gyre_task_fn *fn, void *arg)
{
	struct gyre_job_options options = for_key(key);

	return gyre_block_on(rt, fn, arg, &options, NULL);
}

static enum gyre_status run_number(struct gyre *rt, int number, gyre_task_fn *fn, void *arg)
{
	char key[16];

	snprintf(key, sizeof(key), "k%d", number);
	return run_key(rt, key, fn, arg);
}

static struct gyre_job *spawn_number(struct gyre *rt, int number, gyre_task_fn *fn, void *arg)
{
	struct gyre_job_options options;
	struct gyre_job *job;
	char key[16];

	snprintf(key, sizeof(key), "k%d", number);
	options = for_key(key);
	expect_status(gyre_spawn(rt, fn, arg, &options, &job), GYRE_OK);
	memset(key, '!', sizeof(key));
	return job;
}

static void expect_dump(struct gyre *rt, const char *words)
{
	char *text = test_dump(rt);

	expect_contains(text, words);
	free(text);
}

/* From here to leave() nobody else may be on it. */
static struct thing *enter(void)
{
	struct thing *thing = gyre_state();

	expect(thing);
	expect_eq(thing->tid, gettid());
	expect(!thing->used);
	expect(thing->clean);
	thing->clean = false;
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
	gyre_yield();
	return leave(thing);
}

static int task_use_of(void *number)
{
	struct thing *thing = enter();

	expect_eq(thing->number, *(int *)number);
	gyre_sleep(1000);
	return leave(thing);
}

static int task_never(void *arg)
{
	(void)arg;
	expect(!"a job runs that has no state");
	return 0;
}

/* Says that it is there, and stays until the pipe is written to. */
static int task_hold(void *pipe)
{
	struct test_io io = { ((struct test_pipe *)pipe)->r, &(char){ 0 }, 1, TEST_IO_HERE };
	struct thing *thing = enter();

	atomic_fetch_add(&ended, 1);
	expect_status(gyre_call(NULL, prep_read, &io, NULL), GYRE_OK);
	return leave(thing);
}

/* Jobs that hold a state each, numbers first to first + count - 1. */
static void hold(struct gyre *rt, int first, unsigned count, struct gyre_job **ret,
		 struct test_pipe *pipe)
{
	unsigned i;

	atomic_store(&ended, 0);
	for (i = 0; i < count; i++)
		ret[i] = spawn_number(rt, first + (int)i, task_hold, pipe);
	await(atomic_load(&ended) == count);
}

static void let_go(struct test_pipe *pipe, struct gyre_job **jobs, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++)
		expect_eq(write(pipe->w, "x", 1), 1);
	for (i = 0; i < count; i++)
		expect_job(jobs[i], GYRE_OK);
}

/* ---------------------------------------------------------------- misuse -- */

TEST(job_without_a_key_or_for_a_worker_is_refused)
{
	struct gyre *rt = open_pool(2, 4);
	struct gyre_job_options options = for_key(NULL);
	struct gyre_job *job = NULL;

	expect_status(gyre_block_on(rt, task_never, NULL, &options, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "key");
	expect_status(gyre_block_on(rt, task_never, NULL, NULL, NULL), GYRE_INVALID);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	options = for_key("anne");
	options.worker = GYRE_WORKER(0);
	expect_status(gyre_spawn(rt, task_never, NULL, &options, &job), GYRE_INVALID);
	expect_contains(gyre_last_error(), "worker");
	expect(!job);
	gyre_free(rt);
	expect_eq(atomic_load(&created), 0);
}

TEST(any_text_is_a_key_and_is_copied)
{
	static const char *const keys[] = { "", " ", "a", "a ", "\xff\n", "k1", "k01" };
	size_t len = (size_t)1 << 20, i, round;
	char *one = malloc(len + 1), *other = malloc(len + 1);
	struct gyre *rt = open_pool(2, 16);

	expect(one && other);
	memset(one, 'x', len);
	one[len] = '\0';
	memcpy(other, one, len + 1);
	other[len - 1] = 'y';
	atomic_store(&plan.twice, 1);	/* two of these have the same number */
	for (round = 0; round < 2; round++) {
		for (i = 0; i < LENGTH(keys); i++)
			expect_status(run_key(rt, keys[i], task_use, NULL), GYRE_OK);
		expect_status(run_key(rt, one, task_use, NULL), GYRE_OK);
		expect_status(run_key(rt, other, task_use, NULL), GYRE_OK);
	}
	memset(one, 'z', len);
	expect_dump(rt, "state of key \"\xff?\": 0x");
	expect_dump(rt, "xxxx...\": 0x");
	expect_eq(atomic_load(&created), LENGTH(keys) + 2);
	expect_eq(test_stat(rt, pool_hits), LENGTH(keys) + 2);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), LENGTH(keys) + 2);
	free(one);
	free(other);
}

/* --------------------------------------------------------- hit and miss -- */

TEST(key_finds_its_state_again_reset)
{
	struct gyre *rt = open_pool(2, 4);
	struct gyre_stats stats;
	int i, numbers[3] = { 1, 2, 3 };

	for (i = 0; i < 12; i++)
		expect_status(run_number(rt, numbers[i % 3], task_use_of, &numbers[i % 3]),
			      GYRE_OK);
	expect_eq(atomic_load(&created), 3);
	expect_eq(atomic_load(&resets), 9);
	expect_eq(atomic_load(&destroyed), 0);
	stats = test_stats(rt);
	expect_eq(stats.pool_size, 4);
	expect_eq(stats.pool_cached, 3);
	expect_eq(stats.pool_hits, 9);
	expect_eq(stats.pool_misses, 3);
	expect_eq(stats.pool_evictions, 0);
	expect_eq(stats.pool_waits, 0);
	gyre_free(rt);
	expect_eq(atomic_load(&destroyed), 3);
	expect_eq(atomic_load(&resets), 9);
}

TEST(figures_are_zero_while_no_job_is_pooled)
{
	static const enum gyre_mode modes[] = { GYRE_MODE_FRESH, GYRE_MODE_SHARED };
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.state = &thing_type, .pool_size = 7 };
	struct gyre_job_options pooled = for_key("anne");
	unsigned i;

	pooled.mode = GYRE_MODE_POOLED;
	for (i = 0; i < LENGTH(modes); i++) {
		struct gyre *rt;
		struct gyre_stats stats;

		options.mode = modes[i];
		rt = test_open(&options);
		stats = test_stats(rt);
		expect_eq(stats.pool_size | stats.pool_cached | stats.pool_hits |
			  stats.pool_misses | stats.pool_evictions | stats.pool_waits, 0);
		expect_status(gyre_block_on(rt, task_use, NULL, &pooled, NULL), GYRE_OK);
		stats = test_stats(rt);
		expect_eq(stats.pool_size, 7);
		expect_eq(stats.pool_cached, 1);
		expect_eq(stats.pool_misses, 1);
		gyre_free(rt);
	}
}

TEST(least_recently_used_goes_first)
{
	static const int uses[] = { 1, 2, 3, 1, 4, 2, 1, 5 };
	static const int gone[] = { 2, 3, 4 };
	struct gyre *rt = open_pool(2, 3);
	unsigned i;

	for (i = 0; i < LENGTH(uses); i++)
		expect_status(run_number(rt, uses[i], task_use, NULL), GYRE_OK);
	expect_eq(atomic_load(&destroyed), LENGTH(gone));
	for (i = 0; i < LENGTH(gone); i++)
		expect_eq(atomic_load(&gone_keys[i]), gone[i]);
	expect_eq(test_stat(rt, pool_evictions), LENGTH(gone));
	expect_eq(test_stat(rt, pool_cached), 3);
	expect_eq(atomic_load(&most_live), 3);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
}

/* The same trace, by a list that is searched from one end to the other. */
static unsigned simulated_hits(const int *trace, unsigned length, unsigned places)
{
	int list[64];
	unsigned i, at, count = 0, hits = 0;

	for (i = 0; i < length; i++) {
		for (at = 0; at < count && list[at] != trace[i]; at++)
			;
		if (at < count)
			hits++;
		else if (count < places)
			count++;
		else
			at = count - 1;
		memmove(list + 1, list, at * sizeof(list[0]));
		list[0] = trace[i];
	}
	return hits;
}

TEST(scenario_19_hit_rate_is_that_of_the_least_recently_used)
{
	unsigned length = test_times(4000), i;
	int *trace = malloc(length * sizeof(*trace));
	uint64_t seed = test_seed();
	struct gyre *rt = open_pool(2, 64);
	struct gyre_stats stats;

	expect(trace);
	for (i = 0; i < length; i++) {
		unsigned below = 1 + test_random_below(&seed, 256);

		trace[i] = (int)test_random_below(&seed, below);
		expect_status(run_number(rt, trace[i], task_use, NULL), GYRE_OK);
	}
	stats = test_stats(rt);
	expect_eq(stats.pool_hits, simulated_hits(trace, length, 64));
	expect_eq(stats.pool_hits + stats.pool_misses, length);
	expect_eq(stats.pool_misses - stats.pool_evictions, stats.pool_cached);
	expect_le(atomic_load(&most_live), 64);
	gyre_free(rt);
	free(trace);
}

TEST(new_keys_are_spread_over_the_workers)
{
	struct gyre_job *jobs[8];
	struct test_pipe pipe = test_pipe();
	struct gyre *rt = open_pool(4, 100);
	unsigned worker;
	char *text;

	hold(rt, 0, LENGTH(jobs), jobs, &pipe);
	text = test_dump(rt);
	for (worker = 0; worker < 4; worker++) {
		char head[32], *at, *next;
		unsigned keys = 0;

		snprintf(head, sizeof(head), "worker %u (", worker);
		at = strstr(text, head);
		expect(at);
		next = strstr(at + 1, "\nworker ");
		while ((at = strstr(at + 1, "state of key")) && (!next || at < next))
			keys++;
		expect_eq(keys, 2);
	}
	free(text);
	let_go(&pipe, jobs, LENGTH(jobs));
	gyre_free(rt);
	test_pipe_close(&pipe);
}

/* ------------------------------------------------------------- in line -- */

static int order[LOG];
static atomic_uint in_order;

static int task_note_turn(void *number)
{
	struct thing *thing = enter();

	order[atomic_fetch_add(&in_order, 1)] = *(int *)number;
	gyre_yield();
	return leave(thing);
}

TEST(scenario_17_jobs_of_a_key_take_turns_in_order_while_other_keys_go_on)
{
	struct gyre_job_options options = for_key("k1");
	struct gyre_job *holder, *jobs[100];
	struct test_pipe pipe = test_pipe();
	struct gyre *rt = open_pool(2, 8);
	int numbers[LENGTH(jobs)], i;

	hold(rt, 1, 1, &holder, &pipe);
	for (i = 0; i < (int)LENGTH(jobs); i++) {
		numbers[i] = i;
		jobs[i] = spawn_number(rt, 1, task_note_turn, &numbers[i]);
	}
	for (i = 2; i < 8; i++)
		expect_status(run_number(rt, i, task_use, NULL), GYRE_OK);
	expect_eq(atomic_load(&in_order), 0);
	await(test_stat(rt, pool_waits) == LENGTH(jobs));
	gyre_job_cancel(jobs[7]);
	expect_job(jobs[7], GYRE_CANCELLED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	options.timeout_ns = MS;
	expect_status(gyre_block_on(rt, task_never, NULL, &options, NULL), GYRE_TIMED_OUT);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	let_go(&pipe, &holder, 1);
	for (i = 0; i < (int)LENGTH(jobs); i++)
		if (i != 7)
			expect_job(jobs[i], GYRE_OK);
	for (i = 0; i < 99; i++)
		expect_eq(order[i], i < 7 ? i : i + 1);
	/* The one whose time was short may not have come so far as to wait. */
	expect_ge(test_stat(rt, pool_waits), LENGTH(jobs));
	expect_ge(LENGTH(jobs) + 1, test_stat(rt, pool_waits));
	expect_eq(atomic_load(&created), 7);
	gyre_free(rt);
	test_pipe_close(&pipe);
}

TEST(new_key_waits_while_all_are_in_use_and_may_be_called_off)
{
	struct gyre_job_options options = for_key("k9");
	struct gyre_job *holders[2], *job, *next;
	struct test_pipe pipe = test_pipe();
	struct gyre *rt = open_pool(2, 2);
	int number = 7;

	hold(rt, 0, 2, holders, &pipe);
	job = spawn_number(rt, 7, task_use_of, &number);
	next = spawn_number(rt, 8, task_never, NULL);
	options.timeout_ns = MS;
	expect_status(gyre_block_on(rt, task_never, NULL, &options, NULL), GYRE_TIMED_OUT);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_dump(rt, "waits for room");
	gyre_job_cancel(next);
	expect_job(next, GYRE_CANCELLED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_eq(atomic_load(&created), 2);
	expect_eq(write(pipe.w, "x", 1), 1);	/* one of them ends */
	expect_job(job, GYRE_OK);
	expect_eq(atomic_load(&created), 3);
	expect_eq(atomic_load(&most_live), 2);
	expect_eq(atomic_load(&destroyed), 1);
	expect_eq(write(pipe.w, "x", 1), 1);
	expect_job(holders[0], GYRE_OK);
	expect_job(holders[1], GYRE_OK);
	gyre_free(rt);
	test_pipe_close(&pipe);
}

TEST(room_goes_to_who_came_first)
{
	struct gyre_job *holder, *jobs[20];
	int numbers[LENGTH(jobs)], i;
	struct test_pipe pipe = test_pipe();
	struct gyre *rt = open_pool(2, 1);

	hold(rt, 0, 1, &holder, &pipe);
	for (i = 0; i < (int)LENGTH(jobs); i++) {
		numbers[i] = i + 1;
		jobs[i] = spawn_number(rt, i + 1, task_note_turn, &numbers[i]);
	}
	let_go(&pipe, &holder, 1);
	for (i = 0; i < (int)LENGTH(jobs); i++)
		expect_job(jobs[i], GYRE_OK);
	for (i = 0; i < (int)LENGTH(jobs); i++)
		expect_eq(order[i], i + 1);
	expect_eq(atomic_load(&most_live), 1);
	gyre_free(rt);
	test_pipe_close(&pipe);
}

TEST(key_that_is_always_wanted_keeps_others_waiting_for_so_many_turns)
{
	struct gyre_job *holder, *other, *jobs[4 * GYRE__KEYS_TURNS];
	struct test_pipe pipe = test_pipe();
	struct gyre *rt = open_pool(2, 1);
	int mine = 1, others = 2;
	unsigned i;

	hold(rt, 1, 1, &holder, &pipe);
	for (i = 0; i < LENGTH(jobs); i++)
		jobs[i] = spawn_number(rt, 1, task_note_turn, &mine);
	other = spawn_number(rt, 2, task_note_turn, &others);
	let_go(&pipe, &holder, 1);
	expect_job(other, GYRE_OK);
	for (i = 0; i < LENGTH(jobs); i++)
		expect_job(jobs[i], GYRE_OK);
	for (i = 0; order[i] != others; i++)
		;
	expect_eq(i, GYRE__KEYS_TURNS - 1);	/* the holder's was the first of them */
	expect_eq(atomic_load(&created), 3);
	expect_eq(test_stat(rt, pool_evictions), 2);
	gyre_free(rt);
	test_pipe_close(&pipe);
}

/* ------------------------------------------------- create that fails -- */

static void panic_in_create(const char *key)
{
	(void)key;
	gyre_panic("no interpreter");
}

TEST(create_that_fails_leaves_nothing_behind)
{
	struct gyre *rt = open_pool(1, 1);
	struct gyre_job *jobs[40];
	unsigned i;

	atomic_store(&plan.failures, 1);
	expect_status(run_number(rt, 1, task_never, NULL), GYRE_SYSTEM);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	plan.in_create = panic_in_create;
	expect_status(run_number(rt, 2, task_never, NULL), GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "no interpreter");
	plan.in_create = NULL;
	expect_eq(test_stat(rt, pool_cached), 0);
	expect_status(run_number(rt, 3, task_use, NULL), GYRE_OK);
	expect_status(run_number(rt, 1, task_use, NULL), GYRE_OK);
	expect_eq(atomic_load(&destroyed), 1);
	/* Those of one key fail for long, and the other key is not kept from its turn. */
	atomic_store(&plan.failures, LENGTH(jobs) - 1);
	for (i = 0; i < LENGTH(jobs); i++)
		jobs[i] = spawn_number(rt, i == 20 ? 2 : 5, task_use, NULL);
	for (i = 0; i < LENGTH(jobs); i++)
		gyre_job_wait(jobs[i], GYRE_FOREVER, NULL);
	expect_status(run_number(rt, 6, task_use, NULL), GYRE_OK);
	expect_eq(atomic_load(&most_live), 1);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
}

static void wait_in_create(const char *key)
{
	(void)key;
	atomic_fetch_add(&ended, 1);
	gyre_sleep(GYRE_FOREVER);
}

TEST(cancel_in_create_is_the_jobs_and_the_next_one_makes_or_finds_it)
{
	struct gyre *rt = open_pool(1, 1);
	struct gyre_job *job;

	plan.in_create = wait_in_create;
	job = spawn_number(rt, 1, task_never, NULL);
	await(atomic_load(&ended) == 1);
	gyre_job_cancel(job);
	expect_job(job, GYRE_CANCELLED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	plan.in_create = NULL;
	expect_status(run_number(rt, 1, task_use, NULL), GYRE_OK);
	expect_eq(atomic_load(&created), 1);	/* it was made all the same */
	expect_eq(atomic_load(&resets), 0);
	gyre_free(rt);
}

/* --------------------------------------------------------------- circles -- */

static int task_wants_its_own(void *arg)
{
	struct thing *thing = enter();

	(void)arg;
	expect_status(run_number(NULL, thing->number, task_never, NULL), GYRE_WOULD_DEADLOCK);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_contains(gyre_last_error(), "state");
	return leave(thing);
}

static int task_wants_first(void *arg)
{
	struct thing *thing = enter();

	(void)arg;
	expect_status(run_number(NULL, 1, task_never, NULL), GYRE_WOULD_DEADLOCK);
	return leave(thing);
}

static int task_chain(void *arg)
{
	struct thing *thing = enter();

	(void)arg;
	expect_status(run_number(NULL, thing->number + 1,
				 thing->number < 5 ? task_chain : task_wants_first, NULL),
		      GYRE_OK);
	return leave(thing);
}

TEST(job_that_waits_for_one_of_its_own_key_is_told_through_any_chain)
{
	struct gyre *rt = open_pool(3, 8);

	expect_status(run_number(rt, 1, task_wants_its_own, NULL), GYRE_OK);
	expect_status(run_number(rt, 1, task_chain, NULL), GYRE_OK);
	expect_eq(test_stat(rt, pool_misses), 6);
	gyre_free(rt);
}

static struct gyre *other_rt;

static int task_comes_back(void *rt)
{
	expect_status(run_number(rt, 1, task_never, NULL), GYRE_WOULD_DEADLOCK);
	return 0;
}

static int task_goes_abroad(void *rt)
{
	struct thing *thing = enter();

	expect_status(gyre_block_on(other_rt, task_comes_back, rt, NULL, NULL), GYRE_OK);
	return leave(thing);
}

static int offloaded_comes_back(void *rt)
{
	return task_comes_back(rt);
}

static int task_offloads(void *rt)
{
	struct thing *thing = enter();

	expect_status(gyre_offload(NULL, offloaded_comes_back, rt, NULL), GYRE_OK);
	return leave(thing);
}

TEST(circles_through_another_runtime_and_through_helpers_are_told)
{
	struct gyre *rt = open_pool(2, 4);

	other_rt = test_open_workers(1);
	expect_status(run_number(rt, 1, task_goes_abroad, rt), GYRE_OK);
	expect_status(run_number(rt, 1, task_offloads, rt), GYRE_OK);
	gyre_free(other_rt);
	gyre_free(rt);
}

static int task_wants_room_in_vain(void *arg)
{
	struct thing *thing = enter();
	struct gyre_job *job;

	(void)arg;
	expect_status(run_number(NULL, 50, task_never, NULL), GYRE_WOULD_DEADLOCK);
	/* It waits for room: that alone is no circle yet. */
	job = spawn_number(gyre_current(), 51, task_use, NULL);
	await(test_stat(gyre_current(), jobs_running) == 2);
	gyre_yield();
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_WOULD_DEADLOCK);
	gyre_job_detach(job);
	return leave(thing);
}

TEST(who_has_all_the_room_is_told_that_no_more_will_come)
{
	struct gyre *rt = open_pool(1, 1);

	expect_status(run_number(rt, 1, task_wants_room_in_vain, NULL), GYRE_OK);
	gyre_close(rt);
	expect_eq(atomic_load(&created), 2);
	gyre_free(rt);
}

static atomic_uint together, refused;

static int task_two_want_a_third(void *arg)
{
	struct thing *thing = enter();
	enum gyre_status status;

	(void)arg;
	atomic_fetch_add(&together, 1);
	while (atomic_load(&together) < 2)
		gyre_yield();
	status = run_number(NULL, thing->number + 10, task_use, NULL);
	if (status == GYRE_WOULD_DEADLOCK)
		atomic_fetch_add(&refused, 1);
	else
		expect_status(status, GYRE_OK);
	return leave(thing);
}

TEST(of_all_who_have_room_and_want_more_only_the_last_is_refused)
{
	struct gyre *rt = open_pool(2, 2);
	struct gyre_job *jobs[2];
	unsigned round, rounds = test_times(50);

	for (round = 0; round < rounds; round++) {
		atomic_store(&together, 0);
		atomic_store(&refused, 0);
		jobs[0] = spawn_number(rt, 1, task_two_want_a_third, NULL);
		jobs[1] = spawn_number(rt, 2, task_two_want_a_third, NULL);
		expect_job(jobs[0], GYRE_OK);
		expect_job(jobs[1], GYRE_OK);
		expect_le(atomic_load(&refused), 1);
	}
	expect_eq(atomic_load(&most_live), 2);
	gyre_free(rt);
}

/* One of those who have room waits for nobody: it will come. */
static int task_waits_for_room(void *pipe)
{
	struct thing *thing = enter();

	expect_eq(write(((struct test_pipe *)pipe)->w, "x", 1), 1);
	expect_status(run_number(NULL, 60, task_use, NULL), GYRE_OK);
	return leave(thing);
}

TEST(who_has_room_may_wait_for_more_while_another_goes_on)
{
	struct gyre *rt = open_pool(2, 2);
	struct test_pipe pipe = test_pipe();
	struct gyre_job *holder;

	hold(rt, 0, 1, &holder, &pipe);
	expect_status(run_number(rt, 1, task_waits_for_room, &pipe), GYRE_OK);
	expect_job(holder, GYRE_OK);
	gyre_free(rt);
	test_pipe_close(&pipe);
}

/* Two pools, in each of which all the room is had by who waits for some in the other. */
static struct gyre *pools[2];
static atomic_uint crossed;

static int task_crosses(void *number)
{
	int mine = *(int *)number;
	struct thing *thing = enter();
	enum gyre_status status;

	atomic_fetch_add(&crossed, 1);
	while (atomic_load(&crossed) < 2)
		gyre_yield();
	status = run_number(pools[!mine], 100, task_use, NULL);
	if (status == GYRE_WOULD_DEADLOCK)
		atomic_fetch_add(&refused, 1);
	else
		expect_status(status, GYRE_OK);
	return leave(thing);
}

TEST(circle_through_the_room_of_two_pools_is_told)
{
	unsigned round, rounds = test_times(30);
	int numbers[2] = { 0, 1 };
	struct gyre_job *jobs[2];

	pools[0] = open_pool(1, 1);
	pools[1] = open_pool(1, 1);
	atomic_store(&plan.twice, 1);
	for (round = 0; round < rounds; round++) {
		atomic_store(&crossed, 0);
		jobs[0] = spawn_number(pools[0], 1, task_crosses, &numbers[0]);
		jobs[1] = spawn_number(pools[1], 2, task_crosses, &numbers[1]);
		expect_job(jobs[0], GYRE_OK);
		expect_job(jobs[1], GYRE_OK);
	}
	expect_eq(atomic_load(&refused), rounds);
	gyre_free(pools[0]);
	gyre_free(pools[1]);
}

static _Atomic(struct gyre_job *) wanted;

/* It goes for a job, and waits for that very job. */
static void wait_for_the_next(struct thing *thing)
{
	if (thing->number != 1)
		return;
	while (!atomic_load(&wanted))
		gyre_yield();
	expect_job(atomic_load(&wanted), GYRE_OK);
}

TEST(destroy_may_wait_for_the_job_that_wants_its_room_while_others_can_go)
{
	struct gyre *rt = open_pool(2, 2);

	expect_status(run_number(rt, 1, task_use, NULL), GYRE_OK);
	expect_status(run_number(rt, 2, task_use, NULL), GYRE_OK);
	plan.in_destroy = wait_for_the_next;
	atomic_store(&wanted, spawn_number(rt, 3, task_use, NULL));
	await(atomic_load(&destroyed) == 2);
	expect_eq(atomic_load(&gone_keys[0]), 2);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
}

static void sleep_in_destroy(struct thing *thing)
{
	(void)thing;
	expect_status(gyre_sleep(MS), GYRE_OK);
}

TEST(destroy_that_takes_long_is_waited_for_and_no_other_state_goes_for_it)
{
	struct gyre *rt = open_pool(2, 20);
	struct gyre_job *job;
	unsigned round;
	int i;

	plan.in_destroy = sleep_in_destroy;
	for (i = 0; i < 20; i++)
		expect_status(run_number(rt, i, task_use, NULL), GYRE_OK);
	job = spawn_number(rt, 100, task_use, NULL);
	for (round = 0; round < 50; round++)
		expect_status(run_number(rt, 10 + (int)round % 10, task_use, NULL), GYRE_OK);
	expect_job(job, GYRE_OK);
	expect_eq(atomic_load(&destroyed), 1);
	expect_eq(atomic_load(&gone_keys[0]), 0);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
}

/* ----------------------------------------------------------------- races -- */

struct load {
	struct gyre *rt;
	unsigned keys;
};

static void crew_uses(void *arg, unsigned number)
{
	struct load *load = arg;
	struct gyre_job *jobs[16];
	int numbers[LENGTH(jobs)];
	unsigned i, rounds = test_times(20);
	uint64_t seed = test_seed() + number;

	for (; rounds > 0; rounds--) {
		for (i = 0; i < LENGTH(jobs); i++) {
			numbers[i] = (int)test_random_below(&seed, load->keys);
			jobs[i] = spawn_number(load->rt, numbers[i], task_use_of, &numbers[i]);
		}
		if (test_random_below(&seed, 4) == 0)
			gyre_job_cancel(jobs[test_random_below(&seed, LENGTH(jobs))]);
		for (i = 0; i < LENGTH(jobs); i++)
			gyre_job_wait(jobs[i], GYRE_FOREVER, NULL);
	}
}

static void run_load(unsigned workers, unsigned size, unsigned keys)
{
	struct load load = { open_pool(workers, size), keys };
	struct gyre_stats stats;

	test_crew_run(4, crew_uses, &load);
	stats = test_stats(load.rt);
	expect_le(atomic_load(&most_live), size);
	expect_le(stats.pool_cached, size);
	expect_eq(stats.pool_cached, atomic_load(&live));
	expect_eq(stats.pool_misses, atomic_load(&created));
	expect_eq(stats.pool_evictions, atomic_load(&destroyed));
	gyre_free(load.rt);
	expect_eq(atomic_load(&live), 0);
	expect_eq(atomic_load(&created), atomic_load(&destroyed));
}

TEST(thousand_keys_in_a_pool_of_ten)
{
	run_load(2, 10, 1000);
}

TEST(few_keys_and_less_room)
{
	run_load(3, 2, 5);
}

static int task_use_another(void *arg)
{
	struct thing *thing = enter();
	enum gyre_status status = run_number(NULL, (thing->number + 1) % 20, arg ?
					     task_use_another : task_use, NULL);

	if (status != GYRE_WOULD_DEADLOCK && status != GYRE_CANCELLED)
		expect_status(status, GYRE_OK);
	return leave(thing);
}

static void crew_nests(void *rt, unsigned number)
{
	unsigned rounds = test_times(200);
	uint64_t seed = test_seed() + number;

	for (; rounds > 0; rounds--)
		expect_status(run_number(rt, (int)test_random_below(&seed, 20), task_use_another,
					 rounds % 2 ? rt : NULL), GYRE_OK);
}

TEST(jobs_that_wait_for_each_other_in_a_crowd_all_end)
{
	struct gyre *rt = open_pool(2, 6);

	test_crew_run(16, crew_nests, rt);
	expect_le(atomic_load(&most_live), 6);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
}

/* --------------------------------------------------------------- the end -- */

static unsigned line_of_end[8], ends;

static void *create_local(void *arg)
{
	return arg;
}

static void destroy_local(void *value)
{
	(void)value;
	line_of_end[ends++] = 100;
}

static struct gyre_local a_local = GYRE_LOCAL_INIT(create_local, destroy_local, &a_local);

static void get_local(const char *key)
{
	void *value;

	(void)key;
	expect_status(gyre_local_get(&a_local, &value), GYRE_OK);
}

static void note_destroy(struct thing *thing)
{
	line_of_end[ends++] = (unsigned)thing->number;
	expect_status(gyre_sleep(1000), GYRE_OK);
}

TEST(states_are_destroyed_latest_first_and_what_they_have_asked_for_outlives_them)
{
	struct gyre *rt = open_pool(1, 8);
	int i;

	plan.in_create = get_local;
	plan.in_destroy = note_destroy;
	for (i = 1; i <= 3; i++)
		expect_status(run_number(rt, i, task_use, NULL), GYRE_OK);
	gyre_free(rt);
	expect_eq(ends, 4);
	for (i = 0; i < 3; i++)
		expect_eq(line_of_end[i], 3 - i);
	expect_eq(line_of_end[3], 100);
}

TEST(close_ends_who_has_who_waits_and_who_wants_room)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .pool_size = 2,
					.mode = GYRE_MODE_POOLED, .state = &thing_type,
					.drain_ns = MS };
	struct gyre *rt = test_open(&options);
	struct gyre_job *jobs[30];
	struct test_pipe pipe = test_pipe();
	unsigned i;

	for (i = 0; i < 2; i++)
		jobs[i] = spawn_number(rt, (int)i, test_task_sleep, &ended);
	await(atomic_load(&ended) == 2);
	for (i = 2; i < LENGTH(jobs); i++)
		jobs[i] = spawn_number(rt, (int)i / 5, task_never, NULL);
	expect_status(gyre_close(rt), GYRE_OK);
	for (i = 0; i < LENGTH(jobs); i++) {
		enum gyre_status status = gyre_job_wait(jobs[i], GYRE_FOREVER, NULL);

		if (i < 2 && status == GYRE_OK)		/* slept until it was cancelled */
			continue;
		expect_status(status, GYRE_CANCELLED);
		expect_eq(gyre_last_effect(), i < 2 ? GYRE_EFFECT_UNKNOWN : GYRE_EFFECT_NONE);
	}
	expect_eq(atomic_load(&created), 2);
	expect_eq(atomic_load(&destroyed), 2);
	expect_status(run_number(rt, 1, task_never, NULL), GYRE_CLOSED);
	gyre_free(rt);
	test_pipe_close(&pipe);
}

/* Who waits for room when the runtime is closed still has the time to drain. */
TEST(drain_is_for_who_wants_room_too)
{
	struct gyre *rt = open_pool(2, 1);
	struct gyre_job *jobs[20];
	int numbers[LENGTH(jobs)];
	unsigned i;

	for (i = 0; i < LENGTH(jobs); i++) {
		numbers[i] = (int)i;
		jobs[i] = spawn_number(rt, numbers[i], task_use_of, &numbers[i]);
	}
	expect_status(gyre_close(rt), GYRE_OK);
	for (i = 0; i < LENGTH(jobs); i++)
		expect_job(jobs[i], GYRE_OK);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
}

static int task_closes_and_goes_on(void *arg)
{
	struct thing *thing = enter();
	int i;

	(void)arg;
	expect_status(gyre_close(gyre_current()), GYRE_WOULD_DEADLOCK);
	for (i = 10; i < 40; i++) {
		enum gyre_status status = run_number(NULL, i, task_use, NULL);

		if (status != GYRE_CLOSED)	/* its worker was about to end */
			expect_status(status, GYRE_OK);
	}
	expect_status(run_number(NULL, 50, task_use, NULL), GYRE_OK);
	return leave(thing);
}

TEST(task_of_a_runtime_that_drains_gets_states_on_its_own_worker)
{
	struct gyre *rt = open_pool(3, 8);
	int i;

	atomic_store(&plan.twice, 1);
	for (i = 1; i < 20; i++)
		expect_status(run_number(rt, i, task_use, NULL), GYRE_OK);
	expect_status(run_number(rt, 0, task_closes_and_goes_on, NULL), GYRE_OK);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
}

static int task_says_where(void *ret_worker)
{
	*(int *)ret_worker = gyre_current_worker();
	return leave(enter());
}

static int task_sleeps_on(void *arg)
{
	expect(gyre_state());
	return test_task_sleep(arg);
}

static void kill_worker(struct gyre *rt, int worker)
{
	struct gyre_op op = test_op(prep_nop, NULL);
	char name[16];

	snprintf(name, sizeof(name), "gyre-%d", worker);
	gyre__fault_set_on(name, GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	op.worker = GYRE_WORKER(worker);
	gyre_callv(rt, &op, 1);
	await(test_stat(rt, workers_dead) == 1);
}

TEST(states_of_a_dead_worker_are_destroyed_there_and_made_anew_elsewhere)
{
	struct gyre_job *holder, *waiter;
	struct gyre *rt;
	int where[4], again, i, dead;

	gyre__fault_install();
	rt = open_pool(2, 4);
	atomic_store(&plan.twice, 1);
	for (i = 0; i < 4; i++)
		expect_status(run_number(rt, i, task_says_where, &where[i]), GYRE_OK);
	dead = where[0];
	holder = spawn_number(rt, 0, task_sleeps_on, &ended);
	await(atomic_load(&ended) == 1);
	waiter = spawn_number(rt, 0, task_never, NULL);
	kill_worker(rt, dead);
	expect_job(waiter, GYRE_WORKER_DEAD);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	gyre_job_wait(holder, GYRE_FOREVER, NULL);
	for (i = 0; i < 8; i++) {
		expect_status(run_number(rt, i, task_says_where, &again), GYRE_OK);
		expect_ne(again, dead);
	}
	await(atomic_load(&destroyed) >= 6);	/* two there, and four to make room */
	expect_le(test_stat(rt, pool_cached), 4);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
	gyre__fault_remove();
}

TEST(with_all_workers_dead_there_is_none_for_any_key)
{
	struct gyre *rt;

	gyre__fault_install();
	rt = open_pool(1, 4);
	expect_status(run_number(rt, 1, task_use, NULL), GYRE_OK);
	kill_worker(rt, 0);
	expect_status(run_number(rt, 1, task_never, NULL), GYRE_WORKER_DEAD);
	expect_status(run_number(rt, 2, task_never, NULL), GYRE_WORKER_DEAD);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
	gyre__fault_remove();
}

/* ---------------------------------------------------------- no memory -- */

TEST(idle_state_goes_without_memory_for_a_task)
{
	struct gyre *rt;

	gyre__fault_install();
	rt = open_pool(1, 1);
	expect_status(run_number(rt, 1, task_use, NULL), GYRE_OK);
	/* The first that its worker asks for is the job that would evict. */
	gyre__fault_set_on("gyre-0", GYRE__FAULT_alloc, 0, 1, -ENOMEM);
	expect_status(run_number(rt, 2, task_use, NULL), GYRE_OK);
	expect_eq(gyre__fault_hits(GYRE__FAULT_alloc), 1);
	expect_eq(atomic_load(&destroyed), 1);
	expect_eq(test_stat(rt, pool_evictions), 1);
	gyre_free(rt);
	gyre__fault_remove();
}

TEST(job_for_which_there_is_no_memory_leaves_its_key_as_it_was)
{
	enum gyre_status status = GYRE_NO_MEMORY;
	struct gyre *rt;
	unsigned n;
	int number = 0;

	gyre__fault_install();
	rt = open_pool(1, 2);
	for (n = 0; status != GYRE_OK; n++) {
		expect_lt(n, 100);
		gyre__fault_set(GYRE__FAULT_alloc, n, GYRE__FAULT_FOREVER, -ENOMEM);
		status = run_number(rt, ++number, task_use, NULL);
		gyre__fault_clear();
		if (status != GYRE_OK)
			expect_status(status, GYRE_NO_MEMORY);
		expect_status(run_number(rt, 500, task_use, NULL), GYRE_OK);
	}
	expect_gt(n, 1);
	expect_le(atomic_load(&most_live), 2);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
	gyre__fault_remove();
}

/* ------------------------------------------------------------------ seen -- */

TEST(dump_and_figures_tell_of_the_pool)
{
	struct gyre_job *holders[2], *waiter, *wants;
	struct test_pipe pipe = test_pipe();
	struct gyre *rt = open_pool(1, 2);
	int fd = test_file(0);
	char *text;

	hold(rt, 1, 2, holders, &pipe);
	waiter = spawn_number(rt, 1, task_use, NULL);
	wants = spawn_number(rt, 3, task_use, NULL);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	expect_dump(rt, "state of key \"k2\": 0x");
	expect_dump(rt, "waits for the state of its key, key \"k1\"");
	expect_dump(rt, "waits for room in the pool, key \"k3\"");
	expect_dump(rt, "state of key \"k3\": waits for room, 1 job\n");
	let_go(&pipe, holders, 2);
	expect_job(waiter, GYRE_OK);
	expect_job(wants, GYRE_OK);
	expect_status(gyre_stats_write(rt, fd, GYRE_FORMAT_PROMETHEUS), GYRE_OK);
	text = test_slurp(fd);
	expect_contains(text, "gyre_pool_size 2\n");
	expect_contains(text, "gyre_pool_cached{worker=\"0\"} 2\n");
	expect_contains(text, "gyre_pool_misses_total{worker=\"0\"} 3\n");
	free(text);
	close(fd);
	gyre_free(rt);
	test_pipe_close(&pipe);
}

static int task_count_jobs(void *sum)
{
	struct thing *thing = enter();

	*(int *)sum += thing->number == 1 ? 1 : 10;
	return leave(thing) + 5;
}

TEST(scenario_18_modes_are_mixed_in_one_runtime)
{
	struct gyre_job_options options = for_key("k1");
	struct gyre *rt = open_pool(1, 4);
	int mode, round, result, sum = 0;

	for (round = 0; round < 2; round++)
		for (mode = GYRE_MODE_DEFAULT; mode <= GYRE_MODE_POOLED; mode++) {
			options.mode = (enum gyre_mode)mode;
			result = 0;
			expect_status(gyre_block_on(rt, task_count_jobs, &sum, &options, &result),
				      GYRE_OK);
			expect_eq(result, 5);
		}
	expect_eq(sum, 4 * 1 + 4 * 10);
	expect_eq(test_stat(rt, pool_hits), 3);
	expect_eq(atomic_load(&created), 1 + 2 + 1);
	gyre_free(rt);
	expect_eq(atomic_load(&live), 0);
}

TEST_MAIN()
