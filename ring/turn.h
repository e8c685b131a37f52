/* SPDX-License-Identifier: MIT */
/*
 * What the parts of a turn share: start.c fills SQEs, turn.c submits and reaps,
 * finish.c answers, cancel.c ends ops early, death.c ends the ring. All of it
 * is the owner's.
 */
#ifndef GYRE_RING_TURN_H
#define GYRE_RING_TURN_H

#include "ring.h"

/* So many answers before a batch's last, the line of its reply is fetched. */
#define GYRE__FETCH_AHEAD	8

/* In a result of a chain's op whose final CQE is outstanding. */
#define GYRE__CHAIN_PENDING	INT32_MIN

/* The SQE so many places past the tail, blank; there must be room. */
struct io_uring_sqe *gyre__ring_blank_sqe(struct gyre__ring *ring, uint32_t ahead);

static inline uint32_t gyre__ring_sq_room(const struct gyre__ring *ring)
{
	return ring->uring.sq.ring_entries -
	       (ring->sq_tail - gyre__load_shared(ring->uring.sq.khead));
}

/* start.c: starts what waits, as far as there is room. True: something was done. */
bool gyre__ring_start_waiting(struct gyre__ring *ring);

/* One of the library's own ops, filled by prep and in flight; NULL: no room. */
struct gyre__op *gyre__ring_start_library(struct gyre__ring *ring, gyre_prep_fn *prep, void *arg,
					  gyre__op_complete_fn *complete);

/* A stream's op, with sqe as it was filled once, and in flight; NULL: no room, or no more life. */
struct gyre__op *gyre__ring_start_stream(struct gyre__ring *ring, const struct io_uring_sqe *sqe,
					 gyre__op_complete_fn *complete);

/* finish.c: what an op of a caller's comes to at its final CQE. */
void gyre__ring_complete_call(struct gyre__ring *ring, struct gyre__op *op);

/* What others may read of the owner's own counts. */
static inline void gyre__ring_publish(struct gyre__ring *ring)
{
	gyre__show(&ring->counters.ops_submitted, ring->launched);
	gyre__show(&ring->counters.ops_completed, ring->completed_calls);
	gyre__show(&ring->counters.inflight, ring->table.live - ring->table.live_library);
}

/* The part of gyre__batch_record() that most ops do not need. */
void gyre__batch_record_odd(struct gyre__ring *ring, struct gyre__batch *batch, uint32_t index,
			    int32_t res, gyre__verdict verdict);

/* Notes one op's answer without the reply; gyre__batch_settle() gives it once all are there. */
static inline void gyre__batch_record(struct gyre__ring *ring, struct gyre__batch *batch,
				      uint32_t index, struct gyre__result result,
				      gyre__verdict verdict)
{
	GYRE_ASSERT(batch->answered < batch->count);
	if (batch->count == 1) {	/* on the reply's own line, which is written anyway */
		batch->results[0] = result;
	} else {
		gyre__set_if_changed(batch->results[index].res, result.res);
		gyre__set_if_changed(batch->results[index].cqe_flags, result.cqe_flags);
		if (batch->count - batch->answered == GYRE__FETCH_AHEAD)
			gyre__prefetch_for_write(batch->waiter->line);
	}
	if (gyre__unlikely(verdict || result.res < 0))
		gyre__batch_record_odd(ring, batch, index, result.res, verdict);
	batch->answered++;
}

static inline void gyre__batch_settle(struct gyre__ring *ring, struct gyre__batch *batch)
{
	if (batch->answered < batch->count)
		return;
	/* First the figures: who has his answer finds it counted. */
	gyre__ring_publish(ring);
	batch->waiter->done(batch->waiter, batch, ring);
}

/*
 * An op of batch that was not started, and will not be: answered, and passed over when its turn
 * comes.
 */
void gyre__batch_record_unstarted(struct gyre__ring *ring, struct gyre__batch *batch,
				  uint32_t index, gyre__verdict verdict);

/* n more ops of batch are started, or answered without: moves on to the next that is neither. */
void gyre__batch_advance(struct gyre__ring *ring, struct gyre__batch *batch, uint32_t n);

/* How many ops, from index on, are linked into one chain; 1: none. */
uint32_t gyre__batch_chain_len(const struct gyre__batch *batch, uint32_t index);

/* The chain is over (or the ring is: what is pending never will be): answers all of it. */
void gyre__ring_finish_chain(struct gyre__ring *ring, struct gyre__op *first);

/* cancel.c: time-outs and cancels that are due. True: something was done. */
bool gyre__ring_run_timers(struct gyre__ring *ring);
/* The next moment at which gyre__ring_run_timers() has work; GYRE__NEVER. */
uint64_t gyre__ring_next_deadline(const struct gyre__ring *ring);
/*
 * Answers what waits and matches: due at now_ns (GYRE__NEVER: everything), asked for, or not to
 * wait.
 */
void gyre__ring_expire_waiting(struct gyre__ring *ring, uint64_t now_ns);
void gyre__ring_cancel_waiting(struct gyre__ring *ring);
/* Looks at the tickets of all that is under way or waits. Not from a prep. */
void gyre__ring_look_for_cancels(struct gyre__ring *ring);
void gyre__ring_refuse_nowait(struct gyre__ring *ring);
void gyre__ring_drop_waiting(struct gyre__ring *ring, enum gyre_status status);
/* The chain has moved on: if the end of the op that runs now was asked for, it is time. */
void gyre__ring_hasten_chain(struct gyre__ring *ring, const struct gyre__op *first);
/* Everything that is in flight is asked to end. */
void gyre__ring_cancel_all(struct gyre__ring *ring);

/* death.c: one turn, and the wait after it, of a ring that has died but for its guests. */
bool gyre__ring_turn_buried(struct gyre__ring *ring);
void gyre__ring_wait_buried(struct gyre__ring *ring);

/* turn.c */
void gyre__ring_take_inbox(struct gyre__ring *ring);
void gyre__ring_run_control(struct gyre__ring *ring, struct gyre__batch *batch);
void gyre__ring_reap(struct gyre__ring *ring);
bool gyre__ring_run_completed(struct gyre__ring *ring);
void gyre__ring_flush_wakes(struct gyre__ring *ring);
bool gyre__ring_run_held(struct gyre__ring *ring);
/* Owner, from outside of batches: may something new begin, or is the ring on its way to its end? */
bool gyre__ring_may_begin(const struct gyre__ring *ring);

#endif
