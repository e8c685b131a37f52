/* SPDX-License-Identifier: MIT */
/*
 * What a ring knows of the library's own buffers: where they lie, under which
 * index they are registered, and which of them ops have left behind.
 *
 * A row is shared by all rings of a runtime and belongs to lib/buffer.c; each
 * ring has its own list of the rows, kept by control messages, so that looking
 * one up takes no lock.
 */
#ifndef GYRE_RING_BUFFERS_H
#define GYRE_RING_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "atomic.h"

struct gyre__ring;

#define GYRE__BUFFERS_MAX	256	/* registered at once, a runtime */

struct gyre__buffer_row {
	char *data;
	size_t len;
	int index;			/* -1: not registered */
	_Atomic uint32_t held;		/* somebody has it: ops may name it */
	_Atomic uint32_t left;		/* ops that were left with it, and its holder: 1 */
	/* The last of them is gone; on whichever thread that was. */
	void (*release)(struct gyre__buffer_row *row);
};

struct gyre__ring_buffers {
	struct gyre__buffer_row **rows;	/* every buffer of the runtime */
	uint32_t count, size;
	bool table_made;		/* the kernel's table of registered buffers exists */
};

/* Owner: a buffer has come. register_it: under row->index. Negative errno: nothing was done. */
int gyre__buffers_add(struct gyre__ring *ring, struct gyre__buffer_row *row, bool register_it);
/* Owner: it goes; ops in flight keep the kernel's own reference. */
void gyre__buffers_remove(struct gyre__ring *ring, struct gyre__buffer_row *row);
void gyre__buffers_done(struct gyre__ring_buffers *buffers);

/* The row in somebody's hands that holds all of [addr, addr + len); NULL: none does. */
struct gyre__buffer_row *gyre__buffers_find(const struct gyre__ring_buffers *buffers,
					    uint64_t addr, uint64_t len);

static inline void gyre__buffer_row_ref(struct gyre__buffer_row *row)
{
	gyre__fetch_add(&row->left, 1, relaxed);
}

/* Acquire and release: whoever frees it sees what everybody did with it. */
static inline void gyre__buffer_row_unref(struct gyre__buffer_row *row)
{
	if (gyre__fetch_sub(&row->left, 1, acq_rel) == 1)
		row->release(row);
}

#endif
