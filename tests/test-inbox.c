/* SPDX-License-Identifier: MIT */
/* ring/inbox: order, who owes the wake-up, and the seal that nothing slips past. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "helpers.h"
#include "ring/batch.h"
#include "ring/inbox.h"
#include "ring/sys.h"

#define PRODUCERS	4

static struct gyre__batch *batches_get(unsigned count)
{
	struct gyre__batch *batches;

	batches = gyre__sys->alloc(count * sizeof(*batches), _Alignof(struct gyre__batch));
	expect(batches);
	return batches;
}

TEST(batches_come_out_in_the_order_they_were_pushed)
{
	struct gyre__inbox inbox = { 0 };
	struct gyre__batch *batches = batches_get(3), *taken;
	bool sealed;
	unsigned i;

	for (i = 0; i < 3; i++)
		expect_eq(gyre__inbox_push(&inbox, &batches[i]), GYRE__PUSHED);
	taken = gyre__inbox_take(&inbox, &sealed);
	for (i = 0; i < 3; i++, taken = taken->next)
		expect(taken == &batches[i]);
	expect(!taken);
	expect(!sealed);
	expect(!gyre__inbox_take(&inbox, &sealed));
	gyre__free(batches);
}

TEST(only_the_first_push_over_a_sleeper_owes_the_wake_up)
{
	struct gyre__inbox inbox = { 0 };
	struct gyre__batch *batches = batches_get(2);
	bool sealed;

	expect(gyre__inbox_sleep(&inbox, false, true));
	expect(gyre__inbox_has(&inbox, false));
	expect_eq(gyre__inbox_push(&inbox, &batches[0]), GYRE__PUSHED_ASLEEP);
	expect_eq(gyre__inbox_push(&inbox, &batches[1]), GYRE__PUSHED);
	expect(gyre__inbox_take(&inbox, &sealed) == &batches[0]);
	gyre__free(batches);
}

TEST(owner_does_not_sleep_over_what_has_come)
{
	struct gyre__inbox inbox = { 0 };
	struct gyre__batch *batch = batches_get(1);
	bool sealed;

	gyre__inbox_push(&inbox, batch);
	expect(!gyre__inbox_sleep(&inbox, false, false));
	gyre__inbox_take(&inbox, &sealed);
	expect(gyre__inbox_sleep(&inbox, false, false));
	gyre__free(batch);
}

TEST(sleep_ends_with_the_next_take)
{
	struct gyre__inbox inbox = { 0 };
	struct gyre__batch *batch = batches_get(1);
	bool sealed;

	expect(gyre__inbox_sleep(&inbox, false, true));
	expect(!gyre__inbox_take(&inbox, &sealed));
	expect_eq(gyre__inbox_push(&inbox, batch), GYRE__PUSHED);
	gyre__free(batch);
}

TEST(sealed_inbox_refuses_calls_and_takes_control)
{
	struct gyre__inbox inbox = { 0 };
	struct gyre__batch *batches = batches_get(2);
	bool sealed;

	expect(!gyre__inbox_seal(&inbox));
	expect(gyre__inbox_has(&inbox, false));
	expect_eq(gyre__inbox_push(&inbox, &batches[0]), GYRE__PUSH_SEALED);
	expect_eq(gyre__inbox_push_control(&inbox, &batches[1]), GYRE__PUSHED);
	expect(gyre__inbox_take(&inbox, &sealed) == &batches[1]);
	expect(sealed);
	expect(!gyre__inbox_has(&inbox, true));
	gyre__free(batches);
}

TEST(what_was_pushed_before_the_seal_is_still_taken)
{
	struct gyre__inbox inbox = { 0 };
	struct gyre__batch *batch = batches_get(1);
	bool sealed;

	gyre__inbox_push(&inbox, batch);
	gyre__inbox_seal(&inbox);
	expect(gyre__inbox_take(&inbox, &sealed) == batch);
	expect(sealed);
	gyre__free(batch);
}

TEST(sealing_a_sleeper_owes_it_one_wake_up)
{
	struct gyre__inbox inbox = { 0 };
	bool sealed;

	expect(gyre__inbox_sleep(&inbox, false, true));
	expect(gyre__inbox_seal(&inbox));
	expect(!gyre__inbox_seal(&inbox));
	gyre__inbox_take(&inbox, &sealed);
	expect(sealed);
	expect(gyre__inbox_sleep(&inbox, true, true));	/* it drains, and may sleep meanwhile */
}

TEST(control_over_a_sealed_sleeper_owes_the_wake_up)
{
	struct gyre__inbox inbox = { 0 };
	struct gyre__batch *batch = batches_get(1);

	gyre__inbox_seal(&inbox);
	expect(!gyre__inbox_sleep(&inbox, false, false));	/* a seal that it has not seen */
	expect(gyre__inbox_sleep(&inbox, true, false));
	expect_eq(gyre__inbox_push_control(&inbox, batch), GYRE__PUSHED_ASLEEP);
	gyre__free(batch);
}

TEST(ended_inbox_gives_up_what_is_left_and_refuses_all)
{
	struct gyre__inbox inbox = { 0 };
	struct gyre__batch *batches = batches_get(3);

	gyre__inbox_push(&inbox, &batches[0]);
	expect(gyre__inbox_end(&inbox) == &batches[0]);
	expect_eq(gyre__inbox_push(&inbox, &batches[1]), GYRE__PUSH_SEALED);
	expect_eq(gyre__inbox_push_control(&inbox, &batches[2]), GYRE__PUSH_SEALED);
	expect(!gyre__inbox_seal(&inbox));
	gyre__free(batches);
}

/* ------------------------------------------------------- in parallel -- */

struct race {
	struct gyre__inbox inbox;
	struct gyre__batch *batches;
	unsigned each;			/* pushes of each producer */
	unsigned seal_after;		/* the owner seals once it has taken so many */
	_Atomic unsigned pushed, refused, wakes_owed;
	unsigned taken, wakes_seen;
	_Atomic unsigned awake;		/* stands for the eventfd */
};

/* batch->count says whose it is, batch->started the how-manieth. */
static void produce(void *arg, unsigned number)
{
	struct race *race = arg;
	unsigned i;

	if (number == PRODUCERS)
		return;
	for (i = 0; i < race->each; i++) {
		struct gyre__batch *batch = &race->batches[number * race->each + i];

		batch->count = number;
		batch->started = i;
		switch (gyre__inbox_push(&race->inbox, batch)) {
		case GYRE__PUSHED_ASLEEP:
			atomic_fetch_add(&race->awake, 1);
			/* fall through */
		case GYRE__PUSHED:
			atomic_fetch_add(&race->pushed, 1);
			break;
		case GYRE__PUSH_SEALED:
			atomic_fetch_add(&race->refused, 1);
			break;
		}
	}
}

static unsigned count_in_order(struct race *race, struct gyre__batch *batch, int *last)
{
	unsigned count = 0;

	for (; batch; batch = batch->next, count++) {
		expect_gt(batch->started, last[batch->count]);
		last[batch->count] = (int)batch->started;
	}
	race->taken += count;
	return count;
}

/* The owner's loop: takes, sleeps when there is nothing, and must then be woken. */
static void own(struct race *race)
{
	int last[PRODUCERS] = { -1, -1, -1, -1 };
	unsigned all = PRODUCERS * race->each;
	bool sealed = false;

	while (race->taken + atomic_load(&race->refused) < all) {
		if (count_in_order(race, gyre__inbox_take(&race->inbox, &sealed), last))
			continue;
		if (race->taken >= race->seal_after)
			gyre__inbox_seal(&race->inbox);
		if (!gyre__inbox_sleep(&race->inbox, sealed, true))
			continue;
		while (!atomic_load(&race->awake) &&
		       race->taken + atomic_load(&race->refused) < all)
			sched_yield();
		atomic_store(&race->awake, 0);
	}
	count_in_order(race, gyre__inbox_end(&race->inbox), last);
}

static void produce_or_own(void *arg, unsigned number)
{
	if (number == PRODUCERS)
		own(arg);
	else
		produce(arg, number);
}

static void run_race(unsigned each, unsigned seal_after)
{
	struct race race = { .each = each, .seal_after = seal_after };

	race.batches = batches_get(PRODUCERS * each);
	test_crew_run(PRODUCERS + 1, produce_or_own, &race);
	expect_eq(race.taken, atomic_load(&race.pushed));
	expect_eq(race.taken + atomic_load(&race.refused), PRODUCERS * each);
	gyre__free(race.batches);
}

TEST(producers_lose_nothing_and_keep_their_order_while_the_owner_sleeps_and_wakes)
{
	run_race(test_times(20000), UINT32_MAX);
}

/* The late push: seen about 8 times in 100,000 runs where seal and push are two words. */
TEST(push_that_races_the_seal_is_taken_or_refused)
{
	uint64_t random = test_seed();
	unsigned i;

	for (i = 0; i < test_times(400); i++)
		run_race(20, test_random_below(&random, 80));
}

TEST_MAIN()
