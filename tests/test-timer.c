/* SPDX-License-Identifier: MIT */
/* ring/timer: the heap against a list that is simply searched. */
#include <string.h>

#include "helpers.h"
#include "ring/op.h"
#include "ring/sys.h"
#include "ring/timer.h"

#define OPS	64

struct clockwork {
	struct gyre__op_table table;
	struct gyre__timers timers;
	struct gyre__op *ops[OPS];
	uint64_t deadline[OPS];		/* 0: not armed */
};

static void clockwork_open(struct clockwork *clockwork)
{
	unsigned i;

	memset(clockwork, 0, sizeof(*clockwork));
	expect_eq(gyre__op_table_open(&clockwork->table, OPS, 0), 0);
	expect_eq(gyre__timers_open(&clockwork->timers, OPS), 0);
	for (i = 0; i < OPS; i++)
		clockwork->ops[i] = gyre__op_get(&clockwork->table, false);
}

static void clockwork_close(struct clockwork *clockwork)
{
	gyre__timers_close(&clockwork->timers);
	gyre__op_table_close(&clockwork->table);
}

static void arm(struct clockwork *clockwork, unsigned i, uint64_t deadline)
{
	gyre__timer_arm(&clockwork->timers, &clockwork->table, clockwork->ops[i], deadline);
	clockwork->deadline[i] = deadline;
}

static void disarm(struct clockwork *clockwork, unsigned i)
{
	gyre__timer_disarm(&clockwork->timers, &clockwork->table, clockwork->ops[i]);
	clockwork->deadline[i] = 0;
}

static uint64_t earliest(const struct clockwork *clockwork)
{
	uint64_t found = UINT64_MAX;
	unsigned i;

	for (i = 0; i < OPS; i++)
		if (clockwork->deadline[i] && clockwork->deadline[i] < found)
			found = clockwork->deadline[i];
	return found;
}

TEST(nothing_armed_is_never_due)
{
	struct clockwork clockwork;

	clockwork_open(&clockwork);
	expect(gyre__timers_next(&clockwork.timers) == UINT64_MAX);
	expect(!gyre__timers_due(&clockwork.timers, &clockwork.table, UINT64_MAX));
	clockwork_close(&clockwork);
}

TEST(timer_is_due_at_its_time_and_not_before)
{
	struct clockwork clockwork;

	clockwork_open(&clockwork);
	arm(&clockwork, 0, 1000);
	expect(!gyre__timers_due(&clockwork.timers, &clockwork.table, 999));
	expect(gyre__timers_due(&clockwork.timers, &clockwork.table, 1000) == clockwork.ops[0]);
	clockwork_close(&clockwork);
}

TEST(timer_armed_again_counts_once_and_from_its_new_time)
{
	struct clockwork clockwork;

	clockwork_open(&clockwork);
	arm(&clockwork, 0, 1000);
	arm(&clockwork, 0, 2000);
	expect_eq(clockwork.timers.count, 1);
	expect(!gyre__timers_due(&clockwork.timers, &clockwork.table, 1999));
	arm(&clockwork, 0, 500);
	expect(gyre__timers_due(&clockwork.timers, &clockwork.table, 500) == clockwork.ops[0]);
	clockwork_close(&clockwork);
}

TEST(disarming_twice_does_nothing)
{
	struct clockwork clockwork;

	clockwork_open(&clockwork);
	arm(&clockwork, 0, 1000);
	disarm(&clockwork, 0);
	disarm(&clockwork, 0);
	expect_eq(clockwork.timers.count, 0);
	clockwork_close(&clockwork);
}

TEST(heap_agrees_with_a_search_through_random_arming)
{
	uint64_t random = test_seed();
	struct clockwork clockwork;
	unsigned i;

	clockwork_open(&clockwork);
	for (i = 0; i < test_times(200000); i++) {
		unsigned op = test_random_below(&random, OPS);

		if (test_random_below(&random, 3) == 0)
			disarm(&clockwork, op);
		else
			arm(&clockwork, op, 1 + test_random_below(&random, 100));
		expect(gyre__timers_next(&clockwork.timers) == earliest(&clockwork));
	}
	clockwork_close(&clockwork);
}

TEST(all_timers_come_due_in_order)
{
	uint64_t random = test_seed(), last = 0;
	struct clockwork clockwork;
	unsigned i;

	clockwork_open(&clockwork);
	for (i = 0; i < OPS; i++)
		arm(&clockwork, i, 1 + test_random_below(&random, 1000));
	for (i = 0; i < OPS; i++) {
		struct gyre__op *op;

		op = gyre__timers_due(&clockwork.timers, &clockwork.table, UINT64_MAX);
		expect(op);
		expect(gyre__timers_next(&clockwork.timers) >= last);
		last = gyre__timers_next(&clockwork.timers);
		disarm(&clockwork, gyre__op_slot(&clockwork.table, op));
	}
	expect_eq(clockwork.timers.count, 0);
	clockwork_close(&clockwork);
}

TEST_MAIN()
