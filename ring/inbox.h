/* SPDX-License-Identifier: MIT */
/*
 * The inbox: how batches reach a ring from other threads.
 *
 * One word holds everything that pushing sides and owner must agree on: the
 * newest batch (a stack; the owner takes it whole and turns it round), whether
 * the owner sleeps, and whether the inbox is sealed. As every change of it is
 * one compare-and-swap, there is no order between two words to get wrong: who
 * puts a batch over ASLEEP knows that the wake-up is his, and a push has either
 * happened before the seal or failed.
 *
 * Modelled in tests/models/inbox.pml (push and wake: gyre__inbox_push_unless(),
 * gyre__inbox_in_order(), gyre__inbox_take(), gyre__inbox_sleep()) and seal.pml
 * (gyre__inbox_seal(), gyre__inbox_push(), gyre__inbox_push_control(),
 * gyre__inbox_end()).
 */
#ifndef GYRE_RING_INBOX_H
#define GYRE_RING_INBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"
#include "batch.h"
#include "sys.h"

#define GYRE__INBOX_ASLEEP	((uintptr_t)1)	/* the owner waits in the kernel: wake it */
#define GYRE__INBOX_IDLE	((uintptr_t)2)	/* with ASLEEP: and has nothing under way */
#define GYRE__INBOX_SEALED	((uintptr_t)4)	/* takes no more calls */
#define GYRE__INBOX_ENDED	((uintptr_t)8)	/* nobody will ever look again */
#define GYRE__INBOX_BITS	((uintptr_t)63)	/* batches lie on cache lines of their own */

struct gyre__inbox {
	_Atomic uintptr_t word GYRE__OWN_LINE;
};

enum gyre__pushed {
	GYRE__PUSHED,		/* the owner is awake and will see it */
	GYRE__PUSHED_ASLEEP,	/* it sleeps, and the wake-up is the pusher's duty */
	GYRE__PUSH_SEALED	/* not pushed */
};

/*
 * Release: the batch's fields are seen by whom takes it (acquire in
 * gyre__inbox_take()). ASLEEP and IDLE are consumed: the next pusher need not wake.
 */
static inline enum gyre__pushed gyre__inbox_push_unless(struct gyre__inbox *inbox,
							struct gyre__batch *batch,
							uintptr_t refusing)
{
	uintptr_t word = 0;	/* a guess: to look first would fetch the line twice */

	do {
		if (gyre__unlikely(word & refusing))
			return GYRE__PUSH_SEALED;
		gyre__set_if_changed(batch->next, (struct gyre__batch *)(word & ~GYRE__INBOX_BITS));
	} while (!gyre__cas(&inbox->word, &word,
			    (uintptr_t)batch | (word & GYRE__INBOX_SEALED), acq_rel));
	return word & GYRE__INBOX_ASLEEP ? GYRE__PUSHED_ASLEEP : GYRE__PUSHED;
}

/* Any thread. Calls are refused once the inbox is sealed. */
static inline enum gyre__pushed gyre__inbox_push(struct gyre__inbox *inbox,
						 struct gyre__batch *batch)
{
	return gyre__inbox_push_unless(inbox, batch, GYRE__INBOX_SEALED | GYRE__INBOX_ENDED);
}

/* Any thread. For the library's own messages: refused only once it has ended. */
static inline enum gyre__pushed gyre__inbox_push_control(struct gyre__inbox *inbox,
							 struct gyre__batch *batch)
{
	return gyre__inbox_push_unless(inbox, batch, GYRE__INBOX_ENDED);
}

/* Any thread, any number of times. True: the owner slept, wake it. */
bool gyre__inbox_seal(struct gyre__inbox *inbox);

/* The stack that word points at, turned round: oldest first. */
static inline struct gyre__batch *gyre__inbox_in_order(uintptr_t word)
{
	struct gyre__batch *batch = (struct gyre__batch *)(word & ~GYRE__INBOX_BITS);
	struct gyre__batch *oldest = NULL;

	while (batch) {
		struct gyre__batch *next = batch->next;

		gyre__set_if_changed(batch->next, oldest);
		oldest = batch;
		batch = next;
	}
	return oldest;
}

/* Owner. Everything that was pushed, oldest first; *ret_sealed tells whether the seal is set. */
static inline struct gyre__batch *gyre__inbox_take(struct gyre__inbox *inbox, bool *ret_sealed)
{
	uintptr_t word = gyre__load(&inbox->word, relaxed);

	while (!gyre__cas(&inbox->word, &word, word & GYRE__INBOX_SEALED, acq_rel))
		;
	*ret_sealed = word & GYRE__INBOX_SEALED;
	return gyre__inbox_in_order(word);
}

/* Owner. Declares sleep; false: something has come, do not sleep. Ends with the next take. */
bool gyre__inbox_sleep(struct gyre__inbox *inbox, bool seal_seen, bool idle);

/* Owner. Takes what is left and ends the inbox, in one step. */
struct gyre__batch *gyre__inbox_end(struct gyre__inbox *inbox);

/* Owner. Cheap look: is there something to take (a batch or a fresh seal)? */
static inline bool gyre__inbox_has(struct gyre__inbox *inbox, bool seal_seen)
{
	uintptr_t word = gyre__load(&inbox->word, relaxed);

	return word != (seal_seen ? GYRE__INBOX_SEALED : 0);
}

#endif
