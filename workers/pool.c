/* SPDX-License-Identifier: MIT */
#include "pool.h"

#include <stdint.h>

#include "ring/atomic.h"
#include "ring/sys.h"

#ifndef GYRE_SIM
#define BLOCK_BYTES	((size_t)32 << 10)
#else	/* a few records: the simulated machine is small */
#define BLOCK_BYTES	((size_t)2 << 10)
#endif

_Static_assert(offsetof(struct gyre__pool_block, place) == 0, "a block is where its place is");

void gyre__pool_init(struct gyre__pool *pool, size_t record_bytes)
{
	gyre__list_init(&pool->open);
	pool->record_bytes = record_bytes;
	pool->idle_blocks = 0;
}

void gyre__pool_done(struct gyre__pool *pool)
{
	struct gyre__list *place;

	while (!gyre__list_is_empty(&pool->open)) {
		place = pool->open.next;
		gyre__list_remove(place);
		gyre__free(place);
		pool->idle_blocks--;
	}
	GYRE_ASSERT(pool->idle_blocks == 0);
}

/* The next take is from the records of this one: who comes last has the latest. */
static void push_first(struct gyre__pool *pool, struct gyre__pool_block *block)
{
	gyre__list_push(pool->open.next, &block->place);
}

struct gyre__pool_block *gyre__pool_grow(struct gyre__pool *pool)
{
	struct gyre__pool_block *block = gyre__zalloc(BLOCK_BYTES);
	struct gyre__pooled *pooled;
	uintptr_t at, first;

	if (!block)
		return NULL;
	first = ((uintptr_t)(block + 1) + GYRE__CACHE_LINE - 1) & -(uintptr_t)GYRE__CACHE_LINE;
	at = first + ((uintptr_t)block + BLOCK_BYTES - first) / pool->record_bytes *
	     pool->record_bytes;
	while (at > first) {
		at -= pool->record_bytes;
		pooled = (void *)at;
		pooled->block = block;
		pooled->link = block->idle;
		block->idle = pooled;
	}
	push_first(pool, block);
	pool->idle_blocks++;
	return block;
}

/* block has just become one that has idle records, or has no others any more. */
void gyre__pool_put_edge(struct gyre__pool *pool, struct gyre__pool_block *block)
{
	if (!gyre__list_has(&block->place))
		push_first(pool, block);
	if (block->used > 0)
		return;
	if (pool->idle_blocks == GYRE__POOL_IDLE_MAX) {
		gyre__list_remove(&block->place);
		gyre__free(block);
		return;
	}
	pool->idle_blocks++;
}
