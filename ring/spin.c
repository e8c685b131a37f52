/* SPDX-License-Identifier: MIT */
#include "spin.h"

#define WAKE_NS_AT_FIRST	(20 * GYRE__NS_PER_US)
#define WAKE_NS_MIN		(2 * GYRE__NS_PER_US)
#define WAKE_NS_MAX		(100 * GYRE__NS_PER_US)
#define SKIP_MAX		63
#define COLD_MAX		8
#define TOGETHER		64

void gyre__pace_init(struct gyre__pace *pace, uint64_t spin_ns)
{
	pace->spin_ns = spin_ns;
	gyre__store(&pace->wake_ns, WAKE_NS_AT_FIRST, relaxed);
}

void gyre__pace_note_wake(struct gyre__pace *pace, uint64_t took_ns)
{
	uint32_t known = gyre__load(&pace->wake_ns, relaxed);
	uint32_t now;

	if (took_ns < WAKE_NS_MIN)
		took_ns = WAKE_NS_MIN;
	if (took_ns > WAKE_NS_MAX)
		took_ns = WAKE_NS_MAX;
	now = (known * 7 + (uint32_t)took_ns) / 8;
	/* Everybody reads this line: dirty it only for news. */
	if (now > known + known / 16 || now < known - known / 16)
		gyre__store(&pace->wake_ns, now, relaxed);
}

/* A sleep and two wake-ups: one at each end of the hand-over. */
static uint64_t spin_worth_ns(const struct gyre__pace *pace)
{
	if (pace->spin_ns == GYRE_SPIN_AUTO)
		return 3 * (uint64_t)gyre__load(&pace->wake_ns, relaxed);
	return pace->spin_ns == GYRE_SPIN_NEVER ? 0 : pace->spin_ns;
}

uint64_t gyre__spin_budget(struct gyre__spin *spin, const struct gyre__pace *pace, bool cold)
{
	spin->cold = cold ? spin->cold + 1 : 0;
	if (pace->spin_ns == GYRE_SPIN_AUTO) {
		if (spin->cold > COLD_MAX)
			return 0;
		if (spin->skip > 0) {
			spin->skip--;
			return 0;
		}
		spin->hogged = false;
	}
	return spin_worth_ns(pace);
}

void gyre__spin_won(struct gyre__spin *spin, const struct gyre__spinning *spinning)
{
	spin->skip_max /= 2;
	spin->long_yields = spinning->long_yields;
	if (spinning->together)
		spin->together--;
	else if (spinning->yielded)
		spin->together = TOGETHER;
}

void gyre__spin_lost(struct gyre__spin *spin, const struct gyre__spinning *spinning)
{
	spin->hogged = spinning->long_yields >= GYRE__LONG_YIELDS_MAX;
	spin->long_yields = 0;
	spin->skip_max = spin->skip_max * 2 + 1;
	if (spin->skip_max > SKIP_MAX || spin->hogged)
		spin->skip_max = SKIP_MAX;
	spin->skip = spin->skip_max;
	spin->together = 0;
}

void gyre__spin_slept_ns(struct gyre__spin *spin, const struct gyre__pace *pace, uint64_t slept_ns)
{
	if (slept_ns < spin_worth_ns(pace) && !spin->hogged)
		spin->skip = 0;
}
