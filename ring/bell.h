/* SPDX-License-Identifier: MIT */
/*
 * Bells: what plain threads sleep in until their reply is there.
 *
 * A bell is a word of memory, a futex, that threads of all runtimes share. A
 * thread has a seat, by its number: a bit of a bell. Who has something for
 * sleepers raises their bells and wakes up the seats, as many of a bell as there
 * are with one system call. Where threads share a seat, and where somebody has
 * left before it was rung for, a sleeper is woken for nothing, looks, and sleeps
 * again: so no ring needs to know who sits there, and it touches nothing that
 * could be gone. There is nothing to make, to run out of, or to close.
 *
 * To sleep: look; say, with at least release order, that one sleeps; see that
 * what one waits for is not there; wait with what the look has seen. From the
 * second time on, the look comes before the check as well. The wait ends at once
 * if the bell was rung since the look, be it before the sleep or in the middle.
 *
 * Modelled in tests/models/reply.pml.
 */
#ifndef GYRE_RING_BELL_H
#define GYRE_RING_BELL_H

#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"

#ifndef GYRE__BELLS	/* fewer in the simulation, where some have to share a seat, too */
#define GYRE__BELLS		8
#define GYRE__BELL_SEATS	32	/* of each: the bits that the kernel tells apart */
#endif

struct gyre__bell {
	/*
	 * How often it was rung. That it comes round while somebody is between look
	 * and wait would take four billion rings meanwhile.
	 */
	_Atomic uint32_t word GYRE__OWN_LINE;
};
extern struct gyre__bell gyre__bells[GYRE__BELLS];

/* Who is to be woken up together. Zeroes: nobody. */
struct gyre__bell_round {
	bool any;
	uint32_t seats[GYRE__BELLS];
};

static inline unsigned gyre__bell_seat(unsigned number)
{
	return number % (GYRE__BELLS * GYRE__BELL_SEATS);
}

static inline uint32_t gyre__bell_look(unsigned seat)
{
	/* Acquire: what there was before the bell was rung. Pairs with ring_bell(). */
	return gyre__load(&gyre__bells[seat / GYRE__BELL_SEATS].word, acquire);
}

/*
 * Sleeps until the bell is rung for the seat, unless it was since it was looked
 * at. False: deadline_ns (GYRE__NEVER: none) has come. True: look, whatever the reason.
 */
bool gyre__bell_wait(unsigned seat, uint32_t seen, uint64_t deadline_ns);

static inline void gyre__bell_add(struct gyre__bell_round *round, unsigned seat)
{
	round->any = true;
	round->seats[seat / GYRE__BELL_SEATS] |= UINT32_C(1) << seat % GYRE__BELL_SEATS;
}

/* Any thread: wakes up all of the round, and empties it. */
void gyre__bell_ring_all(struct gyre__bell_round *round);
/* The same for one. */
void gyre__bell_ring(unsigned seat);

#endif
