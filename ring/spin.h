/* SPDX-License-Identifier: MIT */
/*
 * When to spin, how long, and how: the same rule for callers and workers.
 *
 * Waiting busily is worth it while what is waited for comes sooner than a sleep
 * and a wake-up would cost. The cost is learnt from the wake-ups that happen;
 * whether spinning finds anything, from whether it did: each spin in vain
 * doubles the number of coming waits that sleep at once, each success halves it.
 */
#ifndef GYRE_RING_SPIN_H
#define GYRE_RING_SPIN_H

#include <gyre.h>
#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"
#include "sys.h"

/* One a ring; read by all of its callers at each wait, written seldom. */
struct gyre__pace {
	/* More threads want to run than there are CPUs: yield, do not pause. */
	_Atomic uint32_t crowded;
	/* What waking a sleeping thread costs here, as seen so far. */
	_Atomic uint32_t wake_ns;
	uint64_t spin_ns;		/* GYRE_SPIN_AUTO, GYRE_SPIN_NEVER or a fixed time */
	/* When sleepers were last told to wake up. */
	_Atomic uint64_t told_ns GYRE__OWN_LINE;
};

/* One a waiting thread. */
struct gyre__spin {
	uint32_t skip_max;		/* coming waits to sleep at once, after the next failure */
	uint32_t skip;			/* of which so many are left */
	uint32_t cold;			/* waits in a row for somebody who had to be woken first */
	/* Coming waits for somebody on this very CPU: yield to it. */
	uint32_t together;
	uint32_t long_yields;		/* in a row, so far */
	/* Others keep the CPUs: sleep until skip has run out, come what may. */
	bool hogged;
};

#define GYRE__SPIN_TURNS_A_YIELD	128
#define GYRE__SPIN_YIELDS	40	/* a crowded wait gives up after so many */

void gyre__pace_init(struct gyre__pace *pace, uint64_t spin_ns);

/* A thread woke up so long after it was told to: learns from it. */
void gyre__pace_note_wake(struct gyre__pace *pace, uint64_t took_ns);

/*
 * How long a wait may spin now; 0: sleep at once. cold: whoever is waited for
 * slept when it was asked. Once is no reason, often is: calls that are so far
 * apart are done sooner, and cheaper, where both ends may share one CPU.
 */
uint64_t gyre__spin_budget(struct gyre__spin *spin, const struct gyre__pace *pace, bool cold);

/*
 * Does who waits for a device sleep at once? A device takes longer than a yield
 * or two, and what they cost is taken from the others, who want the CPU.
 */
static inline bool gyre__pace_sleeps_for_devices(const struct gyre__pace *pace)
{
	return pace->spin_ns == GYRE_SPIN_AUTO && gyre__load(&pace->crowded, relaxed);
}

/* A sleep turned out shorter than spinning would have been: try again soon. */
void gyre__spin_slept_ns(struct gyre__spin *spin, const struct gyre__pace *pace, uint64_t slept_ns);

/* The state of one busy wait. */
struct gyre__spinning {
	uint64_t budget_ns;
	uint64_t until_ns;
	uint32_t turns;
	uint32_t yields;
	uint64_t yielded_ns;		/* when the last yield was over */
	bool together;
	bool yielded;			/* in the last turn, of a wait that pauses otherwise */
	uint32_t long_yields;
};

/*
 * Who gets the CPU back so late gave it to strangers, who keep it for as long as
 * they may. Once may be the machine's mood; twice in a row is a habit.
 */
#define GYRE__YIELD_NS_MAX	GYRE__NS_PER_MS
#define GYRE__LONG_YIELDS_MAX	2

/* The next wait is one that sleeps at once. */
static inline bool gyre__spin_sleeps_next(const struct gyre__spin *spin,
					  const struct gyre__pace *pace)
{
	return pace->spin_ns == GYRE_SPIN_AUTO ? spin->skip > 0 : pace->spin_ns == GYRE_SPIN_NEVER;
}

/* Lets others run. False: they take their time, and sleeping would be shorter. */
static inline bool gyre__spin_yield(struct gyre__spinning *spinning)
{
	uint64_t before_ns = spinning->yielded_ns ? spinning->yielded_ns : gyre__sys->now_ns();

	gyre__sys->yield();
	spinning->yielded_ns = gyre__sys->now_ns();
	if (spinning->yielded_ns - before_ns <= GYRE__YIELD_NS_MAX)
		spinning->long_yields = 0;
	else
		spinning->long_yields++;
	return spinning->long_yields < GYRE__LONG_YIELDS_MAX;
}

static inline void gyre__spin_start(const struct gyre__spin *spin, uint64_t budget_ns,
				    struct gyre__spinning *ret)
{
	*ret = (struct gyre__spinning){
		.budget_ns = budget_ns,
		.together = spin->together > 0,
		.long_yields = spin->long_yields,
	};
}

/*
 * What came of it. A wait that was over after the odd yield was for somebody
 * who wanted this CPU: the next ones give it up at once.
 */
void gyre__spin_won(struct gyre__spin *spin, const struct gyre__spinning *spinning);
void gyre__spin_lost(struct gyre__spin *spin, const struct gyre__spinning *spinning);

/* One turn of it: pauses or yields. False: the budget is spent. */
static inline bool gyre__spin_once(struct gyre__spinning *spinning, const struct gyre__pace *pace)
{
	spinning->yielded = false;
	if (spinning->together || gyre__load(&pace->crowded, relaxed)) {
		if (!gyre__spin_yield(spinning) && pace->spin_ns == GYRE_SPIN_AUTO)
			return false;
		if (++spinning->yields >= GYRE__SPIN_YIELDS && pace->spin_ns == GYRE_SPIN_AUTO)
			return false;
		if (pace->spin_ns == GYRE_SPIN_AUTO)
			return true;
	} else {
		gyre__sys->relax();
	}
	/* The clock costs as much as a pause: look at it now and then. */
	if (++spinning->turns % 32 != 0)
		return true;
	if (spinning->turns % GYRE__SPIN_TURNS_A_YIELD == 0) {
		spinning->yielded = true;
		spinning->yielded_ns = 0;
		if (!gyre__spin_yield(spinning) && pace->spin_ns == GYRE_SPIN_AUTO)
			return false;
	}
	if (spinning->until_ns == 0)
		spinning->until_ns = gyre__deadline(gyre__sys->now_ns(), spinning->budget_ns);
	return gyre__sys->now_ns() < spinning->until_ns;
}

#endif
