/* SPDX-License-Identifier: MIT */
/*
 * A batch: ops that travel to a ring together and are answered together.
 *
 * One push, one compare-and-swap, whatever the count. Laid out by who writes
 * what: the pushing side's line is only read by the worker, the owner's line
 * is touched by the worker alone, and what is needed rarely lies apart. Preps
 * and results travel in compact arrays, not in the callers' struct gyre_op:
 * four preps or eight results to a cache line instead of three lines an op.
 */
#ifndef GYRE_RING_BATCH_H
#define GYRE_RING_BATCH_H

#include <gyre.h>
#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"

struct gyre__ring;
struct gyre__waiter;

struct gyre__entry {
	gyre_prep_fn *prep;	/* NULL: refused before it was sent */
	void *arg;
};

struct gyre__result {
	int32_t res;
	uint32_t cqe_flags;
};

/*
 * Status and effect of one op in a byte; zero is GYRE_OK with GYRE_EFFECT_DONE,
 * so that a batch in which nothing unusual happens never writes any.
 */
typedef uint8_t gyre__verdict;

#define GYRE__VERDICT_OK_NONE	3	/* zero has its place */

static inline gyre__verdict gyre__verdict_make(enum gyre_status status, enum gyre_effect effect)
{
	if (status == GYRE_OK && effect == GYRE_EFFECT_DONE)
		return 0;
	if (status == GYRE_OK && effect == GYRE_EFFECT_NONE)
		return GYRE__VERDICT_OK_NONE;
	return (gyre__verdict)((unsigned)status << 2 | (unsigned)effect);
}

static inline enum gyre_status gyre__verdict_status(gyre__verdict verdict)
{
	return (enum gyre_status)(verdict >> 2);
}

static inline enum gyre_effect gyre__verdict_effect(gyre__verdict verdict)
{
	if (verdict == GYRE__VERDICT_OK_NONE)
		return GYRE_EFFECT_NONE;
	return verdict == 0 ? GYRE_EFFECT_DONE : (enum gyre_effect)(verdict & 3);
}

/* batch->flags */
#define GYRE__BATCH_DETAILED	(1u << 0)	/* ops[] has flags or time-outs that matter */
#define GYRE__BATCH_TIMED	(1u << 1)	/* at least one op has a time-out */
#define GYRE__BATCH_CONTROL	(1u << 2)	/* no ops: control(ring, batch) instead */
#define GYRE__BATCH_NOWAIT	(1u << 3)	/* at least one op does not wait for room */
/* With CONTROL: the control keeps it, and tells whoever waits itself. */
#define GYRE__BATCH_RETAINED	(1u << 4)
/* Waits for a device: in a crowd, nobody spins for it. */
#define GYRE__BATCH_PATIENT	(1u << 5)

/* Writes what has changed: a line that stays as it was stays in both caches. */
#define gyre__set_if_changed(lvalue, value) \
	do { \
		__typeof__(lvalue) new_value_ = (value); \
\
		if ((lvalue) != new_value_) \
			(lvalue) = new_value_; \
	} while (0)

struct gyre__batch {
	/* The pushing side writes these before the push; nobody until the reply. */
	struct gyre__batch *next;		/* in the inbox */
	struct gyre__entry *entries;
	struct gyre__entry one;			/* entries points here when count is 1 */
	struct gyre__result *results;
	struct gyre_op *ops;			/* the caller's, or NULL */
	struct gyre__waiter *waiter;
	uint32_t count;
	uint32_t flags;

	/* The owner's, from the take to the reply. */
	struct gyre__batch *queue_next GYRE__OWN_LINE;	/* in ring->waiting or ring->held */
	uint64_t arrival;			/* n-th batch that this ring took */
	uint64_t next_deadline_ns;		/* of what is not started; GYRE__NEVER */
	uint32_t started;
	uint32_t answered;
	/* Outlives the reply: see note_caller() in turn.c. */
	uint32_t seen_window;
	bool odd;				/* a verdict was written */

	/* Rare: written before the push where a flag says that it matters. */
	gyre__verdict *verdicts GYRE__OWN_LINE;	/* all zero at the push */
	uint64_t start_ns;			/* time-outs count from here */
	/*
	 * Owner thread. True: done, answer it; false: ask again after each turn. Of a RETAINED one
	 * neither.
	 */
	bool (*control)(struct gyre__ring *ring, struct gyre__batch *batch);
	void *control_arg;
};

/* In entries[i].prep of an op that was answered before it could be started. */
void gyre__batch_answered_prep(struct io_uring_sqe *sqe, void *arg);

/* A FIFO of batches through queue_next. Owner thread only. */
struct gyre__batch_queue {
	struct gyre__batch *head, *tail;
};

static inline void gyre__batch_queue_push(struct gyre__batch_queue *queue,
					  struct gyre__batch *batch)
{
	batch->queue_next = NULL;
	if (queue->tail)
		queue->tail->queue_next = batch;
	else
		queue->head = batch;
	queue->tail = batch;
}

static inline struct gyre__batch *gyre__batch_queue_take(struct gyre__batch_queue *queue)
{
	struct gyre__batch *batch = queue->head;

	if (batch) {
		queue->head = batch->queue_next;
		if (!queue->head)
			queue->tail = NULL;
	}
	return batch;
}

/*
 * gyre_op.internal[0], while the op is under way: which runtime and worker
 * have it, and whether somebody has asked for its end. Any thread may set
 * GYRE__TICKET_CANCEL by compare-and-swap; only who sent the op clears it all.
 */
#define GYRE__TICKET_LIVE	UINT64_C(1)
#define GYRE__TICKET_CANCEL	UINT64_C(2)

static inline _Atomic uint64_t *gyre__op_ticket(struct gyre_op *op)
{
	return (_Atomic uint64_t *)&op->internal[0];
}

static inline uint64_t gyre__ticket_make(uint32_t runtime_id, unsigned worker)
{
	return (uint64_t)runtime_id << 32 | (uint64_t)worker << 8 | GYRE__TICKET_LIVE;
}

static inline unsigned gyre__ticket_worker(uint64_t ticket)
{
	return (unsigned)(ticket >> 8) & 0xffffff;
}

static inline uint32_t gyre__ticket_runtime(uint64_t ticket)
{
	return (uint32_t)(ticket >> 32);
}

#endif
