/* SPDX-License-Identifier: MIT */
/*
 * The ring's timers: a binary heap of ops by deadline, each op at most once.
 * Time-outs and the repeats of cancels live here. Owner thread only.
 */
#ifndef GYRE_RING_TIMER_H
#define GYRE_RING_TIMER_H

#include <stdint.h>

#include "op.h"

struct gyre__timer {
	uint64_t deadline_ns;
	uint32_t slot;
};

struct gyre__timers {
	struct gyre__timer *heap;
	uint32_t count, max;
};

int gyre__timers_open(struct gyre__timers *timers, uint32_t max);
void gyre__timers_close(struct gyre__timers *timers);

/* Sets op's timer, or moves it. */
void gyre__timer_arm(struct gyre__timers *timers, struct gyre__op_table *table,
		     struct gyre__op *op, uint64_t deadline_ns);
void gyre__timer_remove(struct gyre__timers *timers, struct gyre__op_table *table,
			struct gyre__op *op);

/* Takes op's timer back, if it has one. */
static inline void gyre__timer_disarm(struct gyre__timers *timers, struct gyre__op_table *table,
				      struct gyre__op *op)
{
	if (gyre__unlikely(op->timer != GYRE__NO_SLOT))
		gyre__timer_remove(timers, table, op);
}

/* When the next one is due; GYRE__NEVER. */
static inline uint64_t gyre__timers_next(const struct gyre__timers *timers)
{
	return timers->count ? timers->heap[0].deadline_ns : UINT64_MAX;
}

/* The op whose timer is due, still armed; NULL: none. */
static inline struct gyre__op *gyre__timers_due(const struct gyre__timers *timers,
						const struct gyre__op_table *table, uint64_t now_ns)
{
	return timers->count && timers->heap[0].deadline_ns <= now_ns ?
	       &table->ops[timers->heap[0].slot] : NULL;
}

#endif
