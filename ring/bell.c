/* SPDX-License-Identifier: MIT */
#include "bell.h"

#include <errno.h>

#include "sys.h"

#define POLL_NS		(50 * GYRE__NS_PER_US)
#define RING_NS_FIRST	(50 * GYRE__NS_PER_US)
#define RING_NS_MAX	(10 * GYRE__NS_PER_MS)

struct gyre__bell gyre__bells[GYRE__BELLS];

/* A kernel that refuses to let us sleep costs speed, not the reply. */
static bool poll_instead(uint64_t deadline_ns)
{
	uint64_t now_ns = gyre__sys->now_ns();

	if (now_ns >= deadline_ns)
		return false;
	gyre__sys->sleep_ns(deadline_ns - now_ns < POLL_NS ? deadline_ns - now_ns : POLL_NS);
	return true;
}

bool gyre__bell_wait(unsigned seat, uint32_t seen, uint64_t deadline_ns)
{
	int rc = gyre__sys->futex_wait(&gyre__bells[seat / GYRE__BELL_SEATS].word, seen,
				       UINT32_C(1) << seat % GYRE__BELL_SEATS, deadline_ns);

	switch (rc) {
	case 0:
		return true;
	case -EAGAIN:
	case -EINTR:
		/* However often it is: the kernel has not looked whether the time is over. */
		return deadline_ns == GYRE__NEVER || gyre__sys->now_ns() < deadline_ns;
	case -ETIMEDOUT:
		return false;
	default:
		return poll_instead(deadline_ns);
	}
}

/* A wake-up that is lost is a hang, so it is tried again. */
static void ring_bell(struct gyre__bell *bell, uint32_t seats)
{
	uint64_t pause_ns = RING_NS_FIRST;

	/*
	 * Release: that the reply is there. Pairs with the acquire in gyre__bell_look().
	 * Before the wake: who is about to sleep is not woken by it, and sees the word.
	 */
	gyre__fetch_add(&bell->word, 1, release);
	while (gyre__sys->futex_wake(&bell->word, seats) < 0 && pause_ns <= RING_NS_MAX) {
		gyre__sys->sleep_ns(pause_ns);
		pause_ns *= 2;
	}
}

void gyre__bell_ring_all(struct gyre__bell_round *round)
{
	unsigned i;

	for (i = 0; i < GYRE__BELLS; i++)
		if (round->seats[i])
			ring_bell(&gyre__bells[i], round->seats[i]);
	*round = (struct gyre__bell_round){ 0 };
}

void gyre__bell_ring(unsigned seat)
{
	ring_bell(&gyre__bells[seat / GYRE__BELL_SEATS], UINT32_C(1) << seat % GYRE__BELL_SEATS);
}
