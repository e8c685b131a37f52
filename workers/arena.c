/* SPDX-License-Identifier: MIT */
/*
 * The inline part of an allocation compares with arena->end alone. So that is the
 * end of the chunk, or, if max comes first, as far as max allows: set_end(), each
 * time when one of the two has moved.
 *
 * Where the cache clears, all idle chunks are zero, every byte: only what was
 * given out has to be cleared.
 */
#include "arena.h"

#include <string.h>
#include <sys/mman.h>

#ifdef GYRE__ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define RED_ZONE	((size_t)GYRE__ARENA_ALIGN)
#define hide(ptr, len)	__asan_poison_memory_region((ptr), (len))
#define show(ptr, len)	__asan_unpoison_memory_region((ptr), (len))
#else
#define RED_ZONE	((size_t)0)
#define hide(ptr, len)	((void)(ptr), (void)(len))
#define show(ptr, len)	((void)(ptr), (void)(len))
#endif

#ifdef GYRE_DEBUG
#define FILL_DEAD	true
#else
#define FILL_DEAD	false
#endif

/* A chunk of so many bytes is mapped: what nobody uses of it never becomes memory. */
#define MAP_FROM	((size_t)128 << 10)
/* So that no sum of two sizes overflows. */
#define MAX_MAX		(SIZE_MAX / 8 & -(size_t)GYRE__ARENA_ALIGN)

/* ---------------------------------------------------------------- chunks -- */

static size_t class_bytes(unsigned class)
{
	return GYRE__CHUNK_FIRST << class;
}

static size_t chunk_bytes(const struct gyre__chunk *chunk)
{
	return sizeof(*chunk) + chunk->size;
}

/* All zero but for its record. */
static struct gyre__chunk *chunk_make(size_t bytes, unsigned class)
{
	struct gyre__chunk *chunk;
	void *ptr;

	if (bytes < MAP_FROM)
		ptr = gyre__sys->alloc(bytes, 2 * GYRE__CACHE_LINE);
	else if (gyre__sys->mmap(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
				 &ptr) < 0)
		ptr = NULL;
	chunk = ptr;
	if (!chunk)
		return NULL;
	chunk->size = bytes - sizeof(*chunk);
	chunk->class = class;
	hide(chunk->data, chunk->size);
	return chunk;
}

static void chunk_free(struct gyre__chunk *chunk)
{
	size_t bytes = chunk_bytes(chunk);

	show(chunk->data, chunk->size);
	if (bytes < MAP_FROM)
		gyre__sys->free(chunk);
	else
		gyre__sys->munmap(chunk, bytes);
}

static void count_taken(struct gyre__chunks *chunks, const struct gyre__chunk *chunk)
{
	uint64_t bytes = gyre__load(&chunks->bytes, relaxed) + chunk_bytes(chunk);

	gyre__show(&chunks->bytes, bytes);
	if (bytes > gyre__load(&chunks->bytes_max, relaxed))
		gyre__show(&chunks->bytes_max, bytes);
}

static struct gyre__chunk *chunk_get(struct gyre__chunks *chunks, unsigned class)
{
	struct gyre__chunk *chunk = chunks->idle[class];

	if (gyre__likely(chunk)) {
		chunks->idle[class] = chunk->next;
		chunks->kept[class]--;
	} else {
		chunk = chunk_make(class_bytes(class), class);
	}
	if (chunk)
		count_taken(chunks, chunk);
	return chunk;
}

static void chunk_put(struct gyre__chunks *chunks, struct gyre__chunk *chunk)
{
	gyre__count(&chunks->bytes, -(uint64_t)chunk_bytes(chunk));
	if (chunk->class == GYRE__CHUNK_CLASSES) {
		chunk_free(chunk);
		return;
	}
	if (chunks->zero || FILL_DEAD) {
		show(chunk->data, chunk->used);
		memset(chunk->data, chunks->zero ? 0 : GYRE__ARENA_DEAD, chunk->used);
	}
	if (chunks->kept[chunk->class] >= GYRE__CHUNKS_KEPT_BYTES / class_bytes(chunk->class)) {
		chunk_free(chunk);
		return;
	}
	hide(chunk->data, chunk->size);
	chunk->next = chunks->idle[chunk->class];
	chunks->idle[chunk->class] = chunk;
	chunks->kept[chunk->class]++;
}

void gyre__chunks_init(struct gyre__chunks *chunks, bool zero)
{
	memset(chunks, 0, sizeof(*chunks));
	chunks->zero = zero;
}

void gyre__chunks_done(struct gyre__chunks *chunks)
{
	struct gyre__chunk *chunk;
	unsigned i;

	GYRE_ASSERT(gyre__load(&chunks->bytes, relaxed) == 0);
	for (i = 0; i < GYRE__CHUNK_CLASSES; i++) {
		while ((chunk = chunks->idle[i])) {
			chunks->idle[i] = chunk->next;
			chunk_free(chunk);
		}
		chunks->kept[i] = 0;
	}
}

/* ---------------------------------------------------------------- arenas -- */

static size_t align_up(size_t size, size_t align)
{
	return (size + align - 1) & -align;
}

static char *chunk_end(const struct gyre__arena *arena)
{
	return arena->chunks->data + arena->chunks->size;
}

static void set_end(struct gyre__arena *arena)
{
	size_t room = arena->max - gyre__arena_used(arena);
	char *end = chunk_end(arena);

	arena->end = room < (size_t)(end - arena->at) ? arena->at + room : end;
}

/* chunk becomes the one that is given out of, and its predecessor's rest is left. */
static void enter_chunk(struct gyre__arena *arena, struct gyre__chunk *chunk)
{
	arena->chunks->used = (size_t)(arena->at - arena->chunks->data);
	arena->used = gyre__arena_used(arena);
	arena->slack = 0;
	chunk->next = arena->chunks;
	arena->chunks = chunk;
	arena->start = arena->at = chunk->data + RED_ZONE;
	set_end(arena);
}

void *gyre__arena_open(struct gyre__chunks *chunks, size_t head_size, size_t arena_offset,
		       size_t max)
{
	struct gyre__chunk *chunk;
	struct gyre__arena *arena;

	GYRE_ASSERT(head_size <= GYRE__ARENA_HEAD_MAX);
	GYRE_ASSERT(arena_offset + sizeof(*arena) <= head_size);
	chunk = chunk_get(chunks, 0);
	if (!chunk)
		return NULL;
	show(chunk->data, head_size);
	memset(chunk->data, 0, head_size);
	chunk->next = NULL;
	arena = (void *)(chunk->data + arena_offset);
	arena->start = arena->at = chunk->data + align_up(head_size, GYRE__ARENA_ALIGN) + RED_ZONE;
	arena->chunks = chunk;
	arena->cache = chunks;
	arena->max = max < MAX_MAX ? align_up(max, GYRE__ARENA_ALIGN) : MAX_MAX;
	set_end(arena);
	return chunk->data;
}

void gyre__arena_close(struct gyre__arena *arena)
{
	struct gyre__chunks *chunks = arena->cache;
	struct gyre__chunk *chunk = arena->chunks, *next;

	chunk->used = (size_t)(arena->at - chunk->data);
	/* One of them has the arena itself: nothing is read from that any more. */
	for (; chunk; chunk = next) {
		next = chunk->next;
		chunk_put(chunks, chunk);
	}
}

/* From the chunk at hand; counts says what of max it takes. NULL: has no room. */
static void *take(struct gyre__arena *arena, size_t size, size_t align, size_t counts)
{
	size_t need = align_up(size ? size : 1, GYRE__ARENA_ALIGN) + RED_ZONE;
	size_t skip = -(uintptr_t)arena->at & (align - 1);
	size_t left = (size_t)(chunk_end(arena) - arena->at);
	char *ptr = arena->at + skip;

	if (skip > left || need > left - skip)
		return NULL;
	arena->at = ptr + need;
	arena->slack += skip + need - counts;
	set_end(arena);
	show(ptr, size);
	return ptr;
}

/* A chunk of its own; the one at hand stays in use. */
static void *take_own(struct gyre__arena *arena, size_t size, size_t align, size_t counts)
{
	struct gyre__chunk *chunk = chunk_make(sizeof(*chunk) + RED_ZONE + size + align,
					       GYRE__CHUNK_CLASSES);
	char *ptr;

	if (!chunk)
		return NULL;
	count_taken(arena->cache, chunk);
	chunk->next = arena->chunks->next;
	arena->chunks->next = chunk;
	arena->used += counts;
	set_end(arena);
	ptr = (char *)align_up((uintptr_t)chunk->data + RED_ZONE, align);
	show(ptr, size);
	return ptr;
}

/* The next larger class, or the first one that has room for so many bytes. */
static unsigned next_class(const struct gyre__arena *arena, size_t bytes)
{
	unsigned class = arena->chunks->class + 1;

	if (class == GYRE__CHUNK_CLASSES)
		class--;
	while (class < GYRE__CHUNK_CLASSES && bytes > class_bytes(class))
		class++;
	return class;
}

void *gyre__arena_alloc_slow(struct gyre__arena *arena, size_t size, size_t align)
{
	size_t room = arena->max - gyre__arena_used(arena), counts;
	struct gyre__chunk *chunk;
	unsigned class;
	void *ptr;

	if (align == 0 || (align & (align - 1)) || size > room)
		return NULL;
	if (align < GYRE__ARENA_ALIGN)
		align = GYRE__ARENA_ALIGN;
	counts = align_up(size ? size : 1, GYRE__ARENA_ALIGN);
	if (counts < align)
		counts = align;
	if (counts > room)
		return NULL;
	ptr = take(arena, size, align, counts);
	if (ptr)
		return ptr;
	class = next_class(arena, sizeof(*chunk) + counts + align + 2 * RED_ZONE);
	if (class == GYRE__CHUNK_CLASSES)
		return take_own(arena, size, align, counts);
	chunk = chunk_get(arena->cache, class);
	if (!chunk)
		return NULL;
	enter_chunk(arena, chunk);
	return take(arena, size, align, counts);
}
