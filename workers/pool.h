/* SPDX-License-Identifier: MIT */
/*
 * Records of one size, close together: what is used most of many of them fits into
 * the CPU's caches, which stacks would share unevenly. Owner thread only.
 *
 * The record that was given back last is given out first. Blocks of them that are
 * idle as a whole are freed, but for a few.
 */
#ifndef GYRE_WORKERS_POOL_H
#define GYRE_WORKERS_POOL_H

#include <stddef.h>

#include "ring/list.h"

/* Blocks without a record in use that are kept. */
#define GYRE__POOL_IDLE_MAX	8

struct gyre__pool_block;

/* Comes first in a record. */
struct gyre__pooled {
	struct gyre__pool_block *block;
	void *link;				/* while it is idle; else its user's */
};

struct gyre__pool_block {
	struct gyre__list place;		/* among those that have idle records */
	struct gyre__pooled *idle;
	unsigned used;
};

struct gyre__pool {
	struct gyre__list open;			/* that have idle records; the first is used */
	size_t record_bytes;
	unsigned idle_blocks;
};

/* Allocates nothing. record_bytes: a multiple of a cache line, which is how they are aligned. */
void gyre__pool_init(struct gyre__pool *pool, size_t record_bytes);
/* All records have been put. */
void gyre__pool_done(struct gyre__pool *pool);

struct gyre__pool_block *gyre__pool_grow(struct gyre__pool *pool);
void gyre__pool_put_edge(struct gyre__pool *pool, struct gyre__pool_block *block);

/* What lies in it is undefined. NULL: no memory. */
static inline void *gyre__pool_take(struct gyre__pool *pool)
{
	struct gyre__pool_block *block = (struct gyre__pool_block *)(void *)pool->open.next;
	struct gyre__pooled *pooled;

	if (__builtin_expect(gyre__list_is_empty(&pool->open), 0)) {
		block = gyre__pool_grow(pool);
		if (!block)
			return NULL;
	}
	pooled = block->idle;
	block->idle = pooled->link;
	if (block->used++ == 0)
		pool->idle_blocks--;
	if (!block->idle)
		gyre__list_remove(&block->place);
	return pooled;
}

static inline void gyre__pool_put(struct gyre__pool *pool, struct gyre__pooled *pooled)
{
	struct gyre__pool_block *block = pooled->block;
	bool full = !block->idle;

	pooled->link = block->idle;
	block->idle = pooled;
	if (__builtin_expect(--block->used == 0 || full, 0))
		gyre__pool_put_edge(pool, block);
}

#endif
