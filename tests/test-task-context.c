/* SPDX-License-Identifier: MIT */
/* Contexts of tasks and jobs: whose copy each starts with, and what never travels. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "helpers.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))
#define MS		UINT64_C(1000000)

static void set(const char *name, const char *value)
{
	expect_status(gyre_context_set(name, value), GYRE_OK);
}

static void set_number(const char *name, unsigned number)
{
	char value[16];

	snprintf(value, sizeof(value), "%u", number);
	set(name, value);
}

static void expect_number(const char *name, unsigned number)
{
	char value[16];

	snprintf(value, sizeof(value), "%u", number);
	expect_str(gyre_context_get(name), value);
}

static void count_pair(const char *name, const char *value, void *arg)
{
	expect_str(gyre_context_get(name), value);
	++*(unsigned *)arg;
}

static unsigned pairs(void)
{
	unsigned count = 0;

	gyre_context_each(count_pair, &count);
	return count;
}

/* ------------------------------------------------------------- scenario 25 -- */

struct client {
	unsigned id;
	uint64_t sleep_ns;
};

static int task_client(void *arg)
{
	const struct client *client = arg;

	expect_eq(pairs(), 0);
	set_number("client", client->id);
	expect_status(gyre_sleep(client->sleep_ns), GYRE_OK);
	expect_number("client", client->id);
	expect_eq(pairs(), 1);
	return 0;
}

static int task_three_clients(void *arg)
{
	static struct client clients[] = { { 1, 100 * MS }, { 2, 50 * MS }, { 3, 150 * MS } };
	unsigned i;

	(void)arg;
	for (i = 0; i < LENGTH(clients); i++)
		expect_status(gyre_go(task_client, &clients[i], NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(pairs(), 0);
	return 0;
}

TEST(scenario_25_three_tasks_in_overlap_each_read_their_own)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_three_clients, NULL);
	gyre_free(rt);
}

static int task_one_of_many(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg, i;

	expect_number("job", id / 500);
	set_number("client", id);
	for (i = 0; i < 5; i++) {
		switch ((id + i) % 3) {
		case 0:
			gyre_yield();
			break;
		case 1:
			expect_status(gyre_sleep(id % 7 * 10000), GYRE_OK);
			break;
		default:
			expect_status(gyre_call(NULL, prep_nop, NULL, NULL), GYRE_OK);
		}
		expect_number("client", id);
		expect_number("job", id / 500);
		set_number("client", id);
	}
	expect_eq(pairs(), 2);
	return 0;
}

static int task_five_hundred(void *arg)
{
	uintptr_t first = (uintptr_t)arg, i;

	set_number("job", (unsigned)first / 500);
	for (i = 0; i < 500; i++)
		expect_status(gyre_go(task_one_of_many, (void *)(first + i), NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(pairs(), 1);
	return 0;
}

TEST(scenario_25_a_thousand_tasks_on_two_workers_each_read_their_own)
{
	struct gyre *rt = test_open_workers(2);
	struct gyre_job *jobs[2];
	uintptr_t i;

	for (i = 0; i < 2; i++) {
		struct gyre_job_options options = { .size = sizeof(options),
						    .worker = GYRE_WORKER((unsigned)i) };

		expect_status(gyre_spawn(rt, task_five_hundred, (void *)(i * 500), &options,
					 &jobs[i]),
			      GYRE_OK);
	}
	for (i = 0; i < 2; i++)
		expect_status(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_OK);
	expect_eq(pairs(), 0);
	gyre_free(rt);
}

/* ------------------------------------------------------------- scenario 26 -- */

static int task_of_tenant(void *arg)
{
	expect_number("tenant", (unsigned)(uintptr_t)arg);
	gyre_yield();
	expect_number("tenant", (unsigned)(uintptr_t)arg);
	expect(!gyre_context_get("secret"));
	set("secret", "of a task");
	return 0;
}

static int task_request(void *arg)
{
	unsigned i;

	expect_eq(pairs(), 1);
	expect_number("tenant", (unsigned)(uintptr_t)arg);
	for (i = 0; i < 4; i++)
		expect_status(gyre_go(task_of_tenant, arg, NULL), GYRE_OK);
	expect_status(gyre_block_on(NULL, task_of_tenant, arg, NULL, NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	expect(!gyre_context_get("secret"));
	set("secret", "of the job");
	return 0;
}

static void request(void *rt, unsigned number)
{
	unsigned i;

	for (i = 0; i < 20; i++) {
		set_number("tenant", 100 * number + i);
		test_block_on(rt, task_request, (void *)(uintptr_t)(100 * number + i));
		expect(!gyre_context_get("secret"));
		expect_number("tenant", 100 * number + i);
		expect_eq(pairs(), 1);
	}
	gyre_context_clear();
	expect_eq(pairs(), 0);
}

static int task_without_tenant(void *arg)
{
	expect_eq(pairs(), 0);
	(void)arg;
	return 0;
}

TEST(scenario_26_a_tenants_context_is_seen_by_its_request_alone_and_is_gone_afterwards)
{
	struct gyre *rt = test_open_workers(2);
	unsigned i;

	test_crew_run(16, request, rt);
	for (i = 0; i < 10; i++)
		test_block_on(rt, task_without_tenant, NULL);
	gyre_free(rt);
}

static int task_grandchild(void *arg)
{
	(void)arg;
	expect_number("depth", 2);
	expect_eq(pairs(), 1);
	set_number("depth", 3);
	return 0;
}

static int task_child(void *arg)
{
	struct gyre_task *task;

	(void)arg;
	expect_number("depth", 1);
	set_number("depth", 2);
	expect_status(gyre_go(task_grandchild, NULL, &task), GYRE_OK);
	set_number("depth", 20);
	set("later", "than the start");
	expect_status(gyre_join(task, NULL), GYRE_OK);
	expect_number("depth", 20);
	return 0;
}

static int task_parent(void *arg)
{
	struct gyre_task *task;
	struct gyre_job *job;

	(void)arg;
	set_number("depth", 1);
	expect_status(gyre_go(task_child, NULL, &task), GYRE_OK);
	set_number("depth", 10);
	expect_status(gyre_join(task, NULL), GYRE_OK);
	expect_number("depth", 10);
	/* A job's first task likewise, as it was when it was submitted. */
	set_number("depth", 2);
	expect_status(gyre_spawn(NULL, task_grandchild, NULL, NULL, &job), GYRE_OK);
	gyre_context_clear();
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_OK);
	expect_eq(pairs(), 0);
	return 0;
}

TEST(task_starts_with_its_parents_as_they_are_then)
{
	struct gyre *rt = test_open_workers(2);

	test_block_on(rt, task_parent, NULL);
	gyre_free(rt);
}

static int task_elsewhere(void *arg)
{
	(void)arg;
	expect_number("origin", 1);
	set_number("origin", 2);
	return gyre_current_worker();
}

static int task_sends_elsewhere(void *arg)
{
	struct gyre_job_options options = { .size = sizeof(options), .worker = GYRE_WORKER(1) };
	int worker = -1;

	set_number("origin", 1);
	expect_status(gyre_block_on(arg, task_elsewhere, NULL, &options, &worker), GYRE_OK);
	expect_eq(worker, 1);
	expect_number("origin", 1);
	return 0;
}

TEST(job_on_another_worker_or_of_another_runtime_starts_with_its_submitters)
{
	struct gyre *rt = test_open_workers(2), *other = test_open_workers(2);
	struct gyre_job_options options = { .size = sizeof(options), .worker = GYRE_WORKER(0) };

	expect_status(gyre_block_on(rt, task_sends_elsewhere, NULL, &options, NULL), GYRE_OK);
	expect_status(gyre_block_on(rt, task_sends_elsewhere, other, &options, NULL), GYRE_OK);
	gyre_free(rt);
	gyre_free(other);
}

/* ------------------------------------------------------------------- clear -- */

static int task_cleared(void *arg)
{
	expect_eq(pairs(), 0);
	(void)arg;
	return 0;
}

static int task_clears(void *arg)
{
	(void)arg;
	expect_eq(pairs(), 2);
	gyre_context_clear();
	expect_eq(pairs(), 0);
	expect(!gyre_context_get("tenant"));
	expect_status(gyre_go(task_cleared, NULL, NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	test_block_on(NULL, task_cleared, NULL);
	gyre_context_clear();
	set("after", "it");
	expect_eq(pairs(), 1);
	return 0;
}

TEST(task_that_clears_its_context_has_none_and_hands_none_on)
{
	struct gyre *rt = test_open_workers(1);

	set("tenant", "blue");
	set("request", "7");
	test_block_on(rt, task_clears, NULL);
	expect_eq(pairs(), 2);
	gyre_context_clear();
	gyre_free(rt);
}

/* --------------------------------------------------------------- the end -- */

static void defer_reads(void *arg)
{
	expect_str(gyre_context_get("tenant"), "blue");
	*(unsigned *)arg += 1;
}

static int task_defers(void *arg)
{
	set("tenant", "blue");
	expect_status(gyre_defer(defer_reads, arg), GYRE_OK);
	return 0;
}

static int task_panics(void *arg)
{
	set("tenant", "blue");
	expect_status(gyre_defer(defer_reads, arg), GYRE_OK);
	gyre_panic("with a context");
}

static int task_dropped(void *arg)
{
	set("tenant", "blue");
	expect_status(gyre_defer(defer_reads, arg), GYRE_OK);
	return test_task_refuse(NULL);
}

static int task_leaves_one(void *arg)
{
	expect_status(gyre_go(task_dropped, arg, NULL), GYRE_OK);
	gyre_yield();
	return 0;
}

TEST(context_stays_until_the_defers_have_run_and_goes_however_the_task_ends)
{
	struct gyre *rt = test_open_workers(1);
	unsigned ran = 0;

	test_block_on(rt, task_defers, &ran);
	expect_eq(ran, 1);
	expect_status(gyre_block_on(rt, task_panics, &ran, NULL, NULL), GYRE_RESPONSE_LOST);
	expect_eq(ran, 2);
	test_block_on(rt, task_leaves_one, &ran);
	expect_eq(ran, 3);
	test_block_on(rt, task_without_tenant, NULL);
	gyre_free(rt);
}

static int task_never(void *arg)
{
	(void)arg;
	test_fail("it ran, though its time was over or its runtime closed");
	return 0;
}

/* Jobs that never begin let go of theirs, too. */
TEST(context_of_a_job_that_never_ran_is_let_go)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_job_options options = { .size = sizeof(options), .timeout_ns = 1 };

	set("tenant", "blue");
	expect_status(gyre_block_on(rt, task_never, NULL, &options, NULL), GYRE_TIMED_OUT);
	expect_status(gyre_close(rt), GYRE_OK);
	expect_status(gyre_block_on(rt, task_never, NULL, NULL, NULL), GYRE_CLOSED);
	expect_status(gyre_spawn(rt, task_never, NULL, NULL, NULL), GYRE_CLOSED);
	gyre_context_clear();
	gyre_free(rt);
}

TEST_MAIN()
