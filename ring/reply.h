/* SPDX-License-Identifier: MIT */
/*
 * The waiter's thread kind: a reply that a plain thread waits for, spinning
 * while that pays and then asleep by a bell (bell.h).
 *
 * The reply's word is a sequence number, 64 bits wide with its lowest bit for
 * "asleep", and never reset: a reply cannot be taken for another's. A thread
 * has one call at a time, so one reply on the heap serves all of them.
 *
 * Modelled in tests/models/reply.pml: gyre__reply_expect(), reply_give(),
 * reply_is_there(), reply_sleep_until(), gyre__reply_wait(); and the bell.
 */
#ifndef GYRE_RING_REPLY_H
#define GYRE_RING_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"
#include "batch.h"
#include "bell.h"
#include "spin.h"
#include "waiter.h"

struct gyre__reply {
	/* Written by the worker, read by the caller. */
	_Atomic uint64_t word GYRE__OWN_LINE;	/* replies given so far << 1 | caller asleep */
	struct gyre__result one;		/* the result of a batch of one */
	gyre__verdict one_verdict;
	bool odd;				/* not every verdict is zero */

	/* The caller's; the worker reads waiter and seat. */
	struct gyre__waiter waiter GYRE__OWN_LINE;
	unsigned seat;				/* at the bells */
	uint64_t expected;			/* replies asked for so far */
	struct gyre__spin spin;
	/* Of waits for jobs: how long these take says nothing about ops. */
	struct gyre__spin job_spin;
};

/* In zeroed memory. number: the n-th thread that came. */
void gyre__reply_init(struct gyre__reply *reply, unsigned number);

/* Caller: before the push. */
static inline void gyre__reply_expect(struct gyre__reply *reply)
{
	reply->expected++;
}

/* Caller: the push failed, no reply will come. */
static inline void gyre__reply_forget(struct gyre__reply *reply)
{
	reply->expected--;
}

/* Caller: until the reply is there. cold: the push had to wake the worker. spin: one of reply's. */
void gyre__reply_wait(struct gyre__reply *reply, struct gyre__spin *spin, struct gyre__pace *pace,
		      bool cold);

/*
 * The same between two calling threads, for what takes as long as a disk does:
 * without a ring, and asleep from the start. From the give on the reply is its
 * owner's again.
 */
void gyre__reply_give(struct gyre__reply *reply);
/* The same to several: who sleeps is woken up when the giver rings for round. */
void gyre__reply_give_in(struct gyre__reply *reply, struct gyre__bell_round *round);
void gyre__reply_await(struct gyre__reply *reply);

/* False: deadline_ns has come, and no reply. The reply may still come: await it, or forget it. */
bool gyre__reply_await_until(struct gyre__reply *reply, uint64_t deadline_ns);

#endif
