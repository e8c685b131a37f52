/* SPDX-License-Identifier: MIT */
/*
 * An op in flight, and the table of them: from the moment its SQE is filled to
 * its final CQE. Owner thread only, all of it.
 *
 * The kernel gets a ticket of slot and generation as user_data, never a
 * pointer: a CQE that comes late, twice or from nowhere finds no op.
 *
 * Modelled in tests/models/timeout.pml: gyre__op_get(), gyre__op_put(),
 * gyre__op_find() and the states.
 */
#ifndef GYRE_RING_OP_H
#define GYRE_RING_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "batch.h"
#include "sys.h"

struct gyre__ring;
struct gyre__op;
struct gyre__buffer_row;
struct gyre__stream;

enum gyre__op_state {
	GYRE__OP_FREE = 0,	/* in the free list */
	GYRE__OP_FLYING,	/* its SQE is filled: its memory may be the kernel's */
	GYRE__OP_ASKED,		/* flying; its end is wanted, and waits for a cancel slot */
	/* Flying; a cancel is on its way, and the target's CQE outstanding. */
	GYRE__OP_CANCELLING,
	/* Its result is here, the kernel still reads its memory: a notification follows. */
	GYRE__OP_HELD,
	/* Answered at its time-out; flying on in a buffer of the library's own. */
	GYRE__OP_LEFT,
	GYRE__OP_DONE,		/* its final CQE is copied; answered before this turn ends */
	GYRE__OP_STATES
};

/* Why an op's end was asked for: what -ECANCELED will mean. */
enum gyre__op_reason {
	GYRE__OP_NO_REASON = 0,
	GYRE__OP_TIMED_OUT,
	GYRE__OP_CANCELLED,
	GYRE__OP_CUT		/* the kernel took its chain in part: a NOP went in its place */
};

/* Owner thread. What the op's final CQE leads to; the op is freed after it. */
typedef void gyre__op_complete_fn(struct gyre__ring *ring, struct gyre__op *op);

#define GYRE__NO_SLOT	UINT32_MAX

struct gyre__op {
	struct gyre__batch *batch;	/* NULL: the library's own, a stream's, or LEFT */
	gyre__op_complete_fn *complete;
	uint32_t index;			/* in the batch */
	uint32_t generation;
	int32_t res;
	uint32_t cqe_flags;
	/* Of its SQE: what the kernel has not consumed it never saw. */
	uint32_t sq_position;
	uint32_t next;			/* slot: in the free or the completed list */
	int32_t fd;			/* for dumps */
	uint8_t state;			/* enum gyre__op_state; see gyre__op_set_state() */
	uint8_t opcode;
	uint8_t reason;			/* enum gyre__op_reason */
	/* The kernel looks its descriptor up after the submission. */
	bool late_file : 1;
	/* Of a file that has failed: flushed no descriptor instead. */
	bool refused_flush : 1;
	/* Multishot: CQEs with F_MORE are results, and change no state. */
	bool stream : 1;
	uint64_t since_ns;		/* coarse: when its turn began */
	uint32_t timer;			/* its place in the heap, or GYRE__NO_SLOT */
	uint32_t chain;			/* slot of its chain's first op, or GYRE__NO_SLOT */
} __attribute__((__aligned__(GYRE__CACHE_LINE)));

_Static_assert(sizeof(struct gyre__op) == GYRE__CACHE_LINE, "one op, one cache line");

/* What few ops need, in an array of its own. */
struct gyre__op_more {
	struct gyre__buffer_row *left_buffer;	/* quarantined by an op that its caller left */
	/* Of a refused_flush: what its file has failed with. */
	int32_t flush_error;
	/* A cancel that found nothing is sent again after so long. */
	uint64_t retry_ns;
	/* In the first op's: ops of the chain without a final CQE. */
	uint32_t chain_left;
	uint32_t chain_len;
	/* In the first op's: the end of one of its ops was asked for. */
	bool chain_asked;
	struct gyre__stream *stream;		/* whose op this is, if it is a stream's */
};

struct gyre__op_list {
	uint32_t head, tail;
};

struct gyre__op_table {
	struct gyre__op *ops;
	struct gyre__op_more *more;
	uint32_t size;			/* slots in all */
	/* Of which so many are the library's: cancels, the wake-up. */
	uint32_t reserved;
	uint32_t used;			/* slots ever used: what lies past it was never touched */
	uint32_t free;			/* list of slots */
	uint32_t live;			/* ops not FREE */
	uint32_t live_library;		/* of which the library's */
};

int gyre__op_table_open(struct gyre__op_table *table, uint32_t inflight_max, uint32_t reserved);
void gyre__op_table_close(struct gyre__op_table *table);

/* How many more ops callers may have in flight. */
static inline uint32_t gyre__op_table_room(const struct gyre__op_table *table)
{
	return table->size - table->reserved - (table->live - table->live_library);
}

static inline uint32_t gyre__op_table_library_room(const struct gyre__op_table *table)
{
	return table->reserved - table->live_library;
}

/* From each state, a bit for every state that may follow. */
extern const uint8_t gyre__op_edges[GYRE__OP_STATES];

static inline void gyre__op_set_state(struct gyre__op *op, enum gyre__op_state to)
{
	GYRE_ASSERT(gyre__op_edges[op->state] & (1u << to));
	gyre__sim_edge(op->state, to);
	op->state = (uint8_t)to;
}

const char *gyre__op_state_name(enum gyre__op_state state);

static inline uint32_t gyre__op_slot(const struct gyre__op_table *table, const struct gyre__op *op)
{
	return (uint32_t)(op - table->ops);
}

static inline uint64_t gyre__op_user_data(const struct gyre__op_table *table,
					  const struct gyre__op *op)
{
	return (uint64_t)op->generation << 32 | gyre__op_slot(table, op);
}

/* A FLYING op; there must be room. */
static inline struct gyre__op *gyre__op_get(struct gyre__op_table *table, bool library)
{
	struct gyre__op *op;

	if (gyre__likely(table->free != GYRE__NO_SLOT)) {
		op = &table->ops[table->free];
		table->free = op->next;
	} else {
		GYRE_ASSERT(table->used < table->size);
		op = &table->ops[table->used++];
	}
	table->live++;
	table->live_library += library;
	gyre__op_set_state(op, GYRE__OP_FLYING);
	op->generation++;
	op->reason = GYRE__OP_NO_REASON;
	op->timer = GYRE__NO_SLOT;
	op->chain = GYRE__NO_SLOT;
	return op;
}

static inline void gyre__op_put(struct gyre__op_table *table, struct gyre__op *op, bool library)
{
	GYRE_ASSERT(op->timer == GYRE__NO_SLOT);
	gyre__op_set_state(op, GYRE__OP_FREE);
	op->batch = NULL;
	op->next = table->free;
	table->free = gyre__op_slot(table, op);
	table->live--;
	table->live_library -= library;
}

/* The op that a CQE or a cancel means; NULL: none any more. */
static inline struct gyre__op *gyre__op_find(const struct gyre__op_table *table, uint64_t user_data)
{
	uint32_t slot = (uint32_t)user_data;
	struct gyre__op *op;

	if (gyre__unlikely(slot >= table->used))
		return NULL;
	op = &table->ops[slot];
	if (gyre__unlikely(op->state == GYRE__OP_FREE ||
			   op->generation != (uint32_t)(user_data >> 32)))
		return NULL;
	return op;
}

static inline struct gyre__op_more *gyre__op_more(const struct gyre__op_table *table,
						  const struct gyre__op *op)
{
	return &table->more[gyre__op_slot(table, op)];
}

static inline void gyre__op_list_init(struct gyre__op_list *list)
{
	list->head = list->tail = GYRE__NO_SLOT;
}

static inline void gyre__op_list_push(struct gyre__op_table *table, struct gyre__op_list *list,
				      struct gyre__op *op)
{
	uint32_t slot = gyre__op_slot(table, op);

	op->next = GYRE__NO_SLOT;
	if (list->tail == GYRE__NO_SLOT)
		list->head = slot;
	else
		table->ops[list->tail].next = slot;
	list->tail = slot;
}

static inline struct gyre__op *gyre__op_list_take(struct gyre__op_table *table,
						  struct gyre__op_list *list)
{
	struct gyre__op *op;

	if (list->head == GYRE__NO_SLOT)
		return NULL;
	op = &table->ops[list->head];
	list->head = op->next;
	if (list->head == GYRE__NO_SLOT)
		list->tail = GYRE__NO_SLOT;
	return op;
}

#endif
