/* SPDX-License-Identifier: MIT */
/*
 * The memory of a job: given out by moving a pointer, and given back all at once.
 * Owner thread only, but for the counters.
 *
 * An arena takes chunks from its worker's cache: one at first, which holds the
 * record of the job, too, then larger ones. What does not fit into the largest
 * has a chunk of its own.
 *
 * What is given out is not promised to be zero, but where the cache clears: there
 * it is. An arena of an ASan build has red zones around what it gives out, and a
 * build with GYRE_DEBUG fills what it takes back with GYRE__ARENA_DEAD, so that
 * what is used after its job shows.
 */
#ifndef GYRE_WORKERS_ARENA_H
#define GYRE_WORKERS_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/atomic.h"
#include "ring/sys.h"

#if defined(__SANITIZE_ADDRESS__)
#define GYRE__ARENA_ASAN	1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GYRE__ARENA_ASAN	1
#endif
#endif

/* Chunks of 16 KiB, 32 KiB ... 256 KiB, their own records included. */
#define GYRE__CHUNK_FIRST	((size_t)16 << 10)
#define GYRE__CHUNK_CLASSES	5
/* Idle ones of each class that a cache keeps. */
#define GYRE__CHUNKS_KEPT_BYTES	((size_t)2 << 20)

#define GYRE__ARENA_ALIGN	16	/* for any type */
#define GYRE__ARENA_HEAD_MAX	((size_t)8 << 10)
#define GYRE__ARENA_DEAD	0xa5

struct gyre__chunk {
	struct gyre__chunk *next;
	size_t size;			/* of data */
	/* Of it, to be cleared; up to date from when its arena leaves it. */
	size_t used;
	/* GYRE__CHUNK_CLASSES: of a size of its own, kept by nobody. */
	unsigned class;
	char data[] GYRE__OWN_LINE;
};

struct gyre__chunks {
	bool zero;			/* no job sees another's bytes */
	unsigned kept[GYRE__CHUNK_CLASSES];
	struct gyre__chunk *idle[GYRE__CHUNK_CLASSES];
	/* Read by any thread; each for itself, so relaxed on both sides. */
	_Atomic uint64_t bytes;		/* of chunks that open arenas have */
	_Atomic uint64_t bytes_max;	/* the most that it ever was */
};

/*
 * max bounds what users get: for each request its size, rounded up to
 * GYRE__ARENA_ALIGN, or its alignment if that is more. The rest of a chunk does
 * not count, but is left only for what is larger than it, nor what an alignment
 * skips, which is less than what it counts: all chunks together are at most
 * three times max and two chunks more.
 */
struct gyre__arena {
	char *at, *end;			/* what is free and may be given out at once */
	char *start;			/* where users' bytes begin in the first chunk */
	struct gyre__chunk *chunks;	/* the first is the one that at lies in */
	struct gyre__chunks *cache;
	size_t used;			/* what counts in the others */
	size_t slack;			/* of [start, at): what does not count; may be "negative" */
	size_t max;			/* a multiple of GYRE__ARENA_ALIGN */
};

void gyre__chunks_init(struct gyre__chunks *chunks, bool zero);
/* All arenas have been closed. */
void gyre__chunks_done(struct gyre__chunks *chunks);

/*
 * Opens an arena that lies at arena_offset in the first head_size bytes of its
 * own memory, which are the caller's record: returns that, otherwise zeroed.
 * head_size is at most GYRE__ARENA_HEAD_MAX and does not count. NULL: no memory.
 */
void *gyre__arena_open(struct gyre__chunks *chunks, size_t head_size, size_t arena_offset,
		       size_t max);
/* Gives back all of it, the record included. */
void gyre__arena_close(struct gyre__arena *arena);

/* NULL: align is no power of two, past max, or no memory. */
void *gyre__arena_alloc_slow(struct gyre__arena *arena, size_t size, size_t align);

/* What counts so far. */
static inline size_t gyre__arena_used(const struct gyre__arena *arena)
{
	return arena->used + (size_t)(arena->at - arena->start) - arena->slack;
}

/*
 * From what is free at hand. NULL: that is not enough, and nothing has changed.
 * Both ends of it are aligned: what a size below it leaves has room for its padding.
 */
static inline void *gyre__arena_try(struct gyre__arena *arena, size_t size)
{
#ifndef GYRE__ARENA_ASAN
	char *at = arena->at;

	if (gyre__likely(size - 1 < (size_t)(arena->end - at))) {
		arena->at = at + ((size + GYRE__ARENA_ALIGN - 1) & -(size_t)GYRE__ARENA_ALIGN);
		return at;
	}
#else
	(void)arena;
	(void)size;
#endif
	return NULL;
}

/*
 * NULL: past max, or no memory. No size is too large to ask for, and zero gives an
 * address of its own.
 */
static inline void *gyre__arena_alloc(struct gyre__arena *arena, size_t size)
{
	void *ptr = gyre__arena_try(arena, size);

	return gyre__likely(ptr) ? ptr : gyre__arena_alloc_slow(arena, size, GYRE__ARENA_ALIGN);
}

#endif
