/* SPDX-License-Identifier: MIT */
/*
 * Arenas: what they give out and where it lies, what max bounds, where chunks
 * come from and go to, and what the next job finds in them.
 */
#define _GNU_SOURCE
#include "workers/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#if TEST_UNDER_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define KIB	((size_t)1 << 10)
#define MIB	((size_t)1 << 20)
#define GIB	((size_t)1 << 30)

/* As a job has it. */
struct head {
	char before[200];
	struct gyre__arena arena;
	char after[37];
};

static struct gyre__arena *open_arena(struct gyre__chunks *chunks, size_t max)
{
	struct head *head = gyre__arena_open(chunks, sizeof(*head), offsetof(struct head, arena),
					     max);

	return head ? &head->arena : NULL;
}

static char *alloc_aligned(struct gyre__arena *arena, size_t size, size_t align)
{
	return align == GYRE__ARENA_ALIGN ? gyre__arena_alloc(arena, size) :
	       gyre__arena_alloc_slow(arena, size, align);
}

/* ------------------------------------------------------- what is given out -- */

TEST(the_record_lies_at_the_start_and_is_zero_each_time)
{
	struct gyre__chunks chunks;
	struct head *head;
	unsigned i, k;

	gyre__chunks_init(&chunks, false);
	for (i = 0; i < 3; i++) {
		head = gyre__arena_open(&chunks, sizeof(*head), offsetof(struct head, arena), MIB);
		expect(head);
		expect_eq((uintptr_t)head % 128, 0);
		for (k = 0; k < sizeof(head->before); k++)
			expect_eq(head->before[k], 0);
		for (k = 0; k < sizeof(head->after); k++)
			expect_eq(head->after[k], 0);
		memset(head->before, 0xee, sizeof(head->before));
		memset(head->after, 0xee, sizeof(head->after));
		expect_ge((uintptr_t)gyre__arena_alloc(&head->arena, 1), (uintptr_t)(head + 1));
		gyre__arena_close(&head->arena);
	}
	gyre__chunks_done(&chunks);
}

TEST(what_is_given_out_is_aligned_as_asked)
{
	static const size_t sizes[] = { 0, 1, 8, 16, 17, 100, 4096, 20000, 70000, 300000, 3000000 };
	size_t align, offset;
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	unsigned i;
	char *ptr;

	gyre__chunks_init(&chunks, false);
	for (align = 1; align <= 4 * MIB; align *= 2) {
		for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			for (offset = 0; offset < 3; offset++) {
				test_row("%zu bytes at a multiple of %zu", sizes[i], align);
				arena = open_arena(&chunks, 64 * MIB);
				gyre__arena_alloc(arena, offset * 24);
				ptr = alloc_aligned(arena, sizes[i], align);
				expect(ptr);
				expect_eq((uintptr_t)ptr & (align - 1), 0);
				expect_eq((uintptr_t)ptr & (GYRE__ARENA_ALIGN - 1), 0);
				memset(ptr, 0xee, sizes[i]);
				gyre__arena_close(arena);
			}
	}
	gyre__chunks_done(&chunks);
}

TEST(an_alignment_that_is_no_power_of_two_gives_NULL)
{
	static const size_t aligns[] = {
		0, 3, 6, 12, 24, 48, 1000, SIZE_MAX, SIZE_MAX - 1, 3 * MIB,
	};
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	unsigned i;

	gyre__chunks_init(&chunks, false);
	arena = open_arena(&chunks, 64 * MIB);
	for (i = 0; i < sizeof(aligns) / sizeof(aligns[0]); i++) {
		test_row("%zu", aligns[i]);
		expect(!gyre__arena_alloc_slow(arena, 16, aligns[i]));
	}
	expect_eq(gyre__arena_used(arena), 0);
	gyre__arena_close(arena);
	gyre__chunks_done(&chunks);
}

struct piece {
	char *ptr;
	size_t size;
	char byte;
};

/* Random sizes, from bytes to megabytes: nothing overlaps, and nothing moves. */
TEST(pieces_never_overlap)
{
	enum { COUNT = 2000 };
	struct piece *pieces = calloc(COUNT, sizeof(*pieces));
	uint64_t state = test_seed();
	unsigned round, rounds = test_times(5), i;
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	size_t k;

	expect(pieces);
	gyre__chunks_init(&chunks, false);
	for (round = 0; round < rounds; round++) {
		arena = open_arena(&chunks, SIZE_MAX);
		for (i = 0; i < COUNT; i++) {
			struct piece *piece = &pieces[i];
			size_t align = (size_t)1 << test_random_below(&state, 13);

			piece->size = test_random_below(&state,
							1u << (1 + test_random_below(&state, 15)));
			if (test_random_below(&state, 100) == 0)
				piece->size *= 40;
			piece->ptr = test_random_below(&state, 2) ?
				     gyre__arena_alloc(arena, piece->size) :
				     gyre__arena_alloc_slow(arena, piece->size, align);
			expect(piece->ptr);
			piece->byte = (char)test_random_below(&state, 256);
			memset(piece->ptr, piece->byte, piece->size);
		}
		for (i = 0; i < COUNT; i++)
			for (k = 0; k < pieces[i].size; k++)
				if (pieces[i].ptr[k] != pieces[i].byte)
					test_fail("piece %u of %zu bytes was changed at %zu", i,
						  pieces[i].size, k);
		gyre__arena_close(arena);
	}
	gyre__chunks_done(&chunks);
	free(pieces);
}

TEST(nothing_has_an_address_of_its_own_each_time)
{
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	char *a, *b, *c;

	gyre__chunks_init(&chunks, false);
	arena = open_arena(&chunks, 48);
	a = gyre__arena_alloc(arena, 0);
	b = gyre__arena_alloc(arena, 0);
	c = gyre__arena_alloc_slow(arena, 0, 1);
	expect(a && b && c);
	expect(a != b && b != c && a != c);
	/* And counts. */
	expect(!gyre__arena_alloc(arena, 0));
	gyre__arena_close(arena);
	gyre__chunks_done(&chunks);
}

/* ---------------------------------------------------------------- bounds -- */

TEST(max_is_what_can_be_had_and_not_a_byte_more)
{
	static const size_t maxs[] = {
		16, 1000, 1008, 4 * KIB, 16 * KIB, 100 * KIB, MIB, 64 * MIB,
	};
	static const size_t pieces[] = { 1, 16, 48, 100, 4000, 5000, 17000, 300000 };
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	size_t counts, got, max;
	unsigned i, k;

	gyre__chunks_init(&chunks, false);
	for (i = 0; i < sizeof(maxs) / sizeof(maxs[0]); i++)
		for (k = 0; k < sizeof(pieces) / sizeof(pieces[0]); k++) {
			test_row("pieces of %zu within %zu", pieces[k], maxs[i]);
			if (maxs[i] / pieces[k] > 2 * MIB / 16)
				continue;
			max = (maxs[i] + 15) / 16 * 16;
			counts = (pieces[k] + 15) / 16 * 16;
			arena = open_arena(&chunks, maxs[i]);
			for (got = 0; gyre__arena_alloc(arena, pieces[k]); got += counts)
				expect_eq(gyre__arena_used(arena), got + counts);
			expect_eq(got, max / counts * counts);
			/* What is left can be had, too. */
			if (got < max) {
				expect(!gyre__arena_alloc(arena, max - got + 1));
				expect(gyre__arena_alloc(arena, max - got));
			}
			expect_eq(gyre__arena_used(arena), max);
			expect(!gyre__arena_alloc(arena, 1));
			expect(!gyre__arena_alloc_slow(arena, 1, 1));
			gyre__arena_close(arena);
		}
	gyre__chunks_done(&chunks);
}

TEST(an_alignment_counts_where_it_is_more_than_the_size)
{
	struct gyre__chunks chunks;
	struct gyre__arena *arena;

	gyre__chunks_init(&chunks, false);
	arena = open_arena(&chunks, 8 * MIB);
	expect(gyre__arena_alloc_slow(arena, 1, MIB));
	expect_eq(gyre__arena_used(arena), MIB);
	expect(gyre__arena_alloc_slow(arena, 3 * MIB, MIB));
	expect_eq(gyre__arena_used(arena), 4 * MIB);
	expect(gyre__arena_alloc_slow(arena, 24, 64));
	expect_eq(gyre__arena_used(arena), 4 * MIB + 64);
	expect(!gyre__arena_alloc_slow(arena, 1, 4 * MIB));
	expect(gyre__arena_alloc_slow(arena, 4 * MIB - 64, 64));
	expect(!gyre__arena_alloc(arena, 1));
	gyre__arena_close(arena);
	gyre__chunks_done(&chunks);
}

TEST(sizes_and_alignments_that_would_overflow_give_NULL)
{
	static const size_t sizes[] = {
		SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 15, SIZE_MAX - 16, SIZE_MAX - 127,
		SIZE_MAX - 4096, SIZE_MAX / 2 + 1, SIZE_MAX / 2, SIZE_MAX / 4, SIZE_MAX / 8,
	};
	static const size_t maxs[] = { 0, 1000, 64 * MIB, SIZE_MAX / 2, SIZE_MAX };
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	unsigned i, k;

	gyre__chunks_init(&chunks, false);
	for (k = 0; k < sizeof(maxs) / sizeof(maxs[0]); k++) {
		arena = open_arena(&chunks, maxs[k]);
		expect(arena);
		for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			test_row("%zu of %zu", sizes[i], maxs[k]);
			expect(!gyre__arena_alloc(arena, sizes[i]));
			expect(!gyre__arena_alloc_slow(arena, sizes[i], 16));
			expect(!gyre__arena_alloc_slow(arena, sizes[i], 4096));
			expect(!gyre__arena_alloc_slow(arena, sizes[i], SIZE_MAX / 2 + 1));
			expect(!gyre__arena_alloc_slow(arena, 1, SIZE_MAX / 2 + 1));
			expect(!gyre__arena_alloc_slow(arena, 1, SIZE_MAX / 8 + 1));
		}
		/* It has come to no harm. */
		if (maxs[k])
			expect(gyre__arena_alloc(arena, 1000));
		gyre__arena_close(arena);
	}
	gyre__chunks_done(&chunks);
}

/* ---------------------------------------------------------------- chunks -- */

TEST(an_arena_that_does_not_grow_is_one_chunk_used_again)
{
	struct gyre__chunks chunks;
	struct gyre__arena *arena, *first;
	unsigned i;

	gyre__fault_install();
	gyre__chunks_init(&chunks, false);
	first = open_arena(&chunks, MIB);
	gyre__arena_close(first);
	for (i = 0; i < 100; i++) {
		arena = open_arena(&chunks, MIB);
		expect(arena == first);
		expect_eq(chunks.bytes, GYRE__CHUNK_FIRST);
		expect(gyre__arena_alloc(arena, 10 * KIB));
		gyre__arena_close(arena);
	}
	expect_eq(gyre__fault_count(GYRE__FAULT_alloc), 1);
	expect_eq(gyre__fault_count(GYRE__FAULT_mmap), 0);
	expect_eq(chunks.bytes, 0);
	expect_eq(chunks.bytes_max, GYRE__CHUNK_FIRST);
	gyre__chunks_done(&chunks);
	gyre__fault_remove();
}

TEST(chunks_double_up_to_256_KiB)
{
	static const size_t held[] = { 16, 48, 112, 240, 496, 752, 1008 };
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	unsigned i;

	gyre__chunks_init(&chunks, false);
	arena = open_arena(&chunks, 64 * MIB);
	for (i = 0; i < sizeof(held) / sizeof(held[0]); i++) {
		test_row("chunk %u", i);
		expect_eq(chunks.bytes, held[i] * KIB);
		while (chunks.bytes == held[i] * KIB)
			expect(gyre__arena_alloc(arena, 256));
	}
	gyre__arena_close(arena);
	expect_eq(chunks.bytes, 0);
	expect_eq(chunks.bytes_max, 1264 * KIB);
	gyre__chunks_done(&chunks);
}

TEST(what_no_chunk_holds_has_its_own_and_leaves_the_one_at_hand)
{
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	char *before, *own, *after;

	gyre__chunks_init(&chunks, false);
	arena = open_arena(&chunks, 64 * MIB);
	before = gyre__arena_alloc(arena, 16);
	own = gyre__arena_alloc(arena, 256 * KIB);
	after = gyre__arena_alloc(arena, 16);
	expect(own);
	expect_lt(after - before, 64);
	expect_gt(chunks.bytes, 272 * KIB);
	expect_lt(chunks.bytes, 273 * KIB);
	memset(own, 0xee, 256 * KIB);
	gyre__arena_close(arena);
	expect_eq(chunks.bytes, 0);
	gyre__chunks_done(&chunks);
}

TEST(all_chunks_together_are_at_most_three_times_max_and_two_more)
{
	static const size_t max = 4 * MIB;
	uint64_t state = test_seed();
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	unsigned shift, i, k;

	gyre__chunks_init(&chunks, false);
	for (shift = 5; shift < 20; shift++)
		for (i = 0; i < 20; i++) {
			arena = open_arena(&chunks, max);
			for (k = 0; k < 1000; k++) {
				gyre__arena_alloc_slow(arena,
						       test_random_below(&state, 1u << shift),
						       (size_t)1 <<
						       test_random_below(&state, shift));
				gyre__arena_alloc(arena, test_random_below(&state, 1u << shift));
			}
			expect_le(gyre__arena_used(arena), max);
			if (!TEST_UNDER_ASAN)
				expect_le(chunks.bytes, 3 * max + 512 * KIB);
			gyre__arena_close(arena);
		}
	gyre__chunks_done(&chunks);
}

TEST(the_cache_keeps_two_MiB_of_each_class)
{
	enum { COUNT = 300 };
	struct gyre__arena *arenas[COUNT];
	struct gyre__chunks chunks;
	unsigned i;

	gyre__chunks_init(&chunks, false);
	for (i = 0; i < COUNT; i++) {
		arenas[i] = open_arena(&chunks, 64 * MIB);
		while (arenas[i]->chunks->class < GYRE__CHUNK_CLASSES - 1)
			expect(gyre__arena_alloc(arenas[i], 1000));
	}
	expect_eq(chunks.bytes, COUNT * 496 * KIB);
	for (i = 0; i < COUNT; i++)
		gyre__arena_close(arenas[i]);
	for (i = 0; i < GYRE__CHUNK_CLASSES; i++) {
		test_row("class %u", i);
		expect_eq(chunks.kept[i], 128 >> i);
	}
	expect_eq(chunks.bytes, 0);
	gyre__chunks_done(&chunks);
}

static void done_with_one_open(void *arg)
{
	open_arena(arg, MIB);
	gyre__chunks_done(arg);
}

static void open_with_too_large_a_head(void *arg)
{
	gyre__arena_open(arg, GYRE__ARENA_HEAD_MAX + 1, 0, MIB);
}

static void open_with_the_arena_outside(void *arg)
{
	gyre__arena_open(arg, sizeof(struct gyre__arena), 8, MIB);
}

TEST(misuse_is_told_by_an_assert)
{
	struct gyre__chunks chunks;

	gyre__chunks_init(&chunks, false);
	test_asserts(done_with_one_open, &chunks);
	test_asserts(open_with_too_large_a_head, &chunks);
	test_asserts(open_with_the_arena_outside, &chunks);
	gyre__chunks_done(&chunks);
}

TEST(the_largest_record_leaves_room_in_its_chunk)
{
	struct gyre__chunks chunks;
	struct gyre__arena *arena;

	gyre__chunks_init(&chunks, false);
	arena = gyre__arena_open(&chunks, GYRE__ARENA_HEAD_MAX, 0, MIB);
	expect(gyre__arena_alloc(arena, 4 * KIB));
	expect_eq(chunks.bytes, GYRE__CHUNK_FIRST);
	gyre__arena_close(arena);
	gyre__chunks_done(&chunks);
}

/* ------------------------------------------------------ what is found there -- */

static void use_all(struct gyre__arena *arena, size_t size, unsigned count)
{
	char *ptr;

	while (count-- > 0) {
		ptr = gyre__arena_alloc(arena, size);
		expect(ptr);
		memset(ptr, 0xee, size);
	}
}

static void expect_zero(const char *ptr, size_t size)
{
	size_t i;

	for (i = 0; i < size; i++)
		if (ptr[i])
			test_fail("byte %zu of %zu is %02x", i, size, (unsigned char)ptr[i]);
}

TEST(a_cache_that_clears_shows_no_job_what_another_has_left)
{
	static const struct { size_t size; unsigned count; } uses[] = {
		{ 64, 10 }, { 1000, 100 }, { 5000, 200 }, { 70000, 10 }, { 400000, 3 },
		{ 16, 10000 },
	};
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	unsigned i, k, n;
	char *ptr;

	gyre__chunks_init(&chunks, true);
	for (i = 0; i < sizeof(uses) / sizeof(uses[0]); i++)
		for (k = 0; k < sizeof(uses) / sizeof(uses[0]); k++) {
			test_row("%zu bytes after %zu", uses[k].size, uses[i].size);
			arena = open_arena(&chunks, 64 * MIB);
			use_all(arena, uses[i].size, uses[i].count);
			gyre__arena_close(arena);
			arena = open_arena(&chunks, 64 * MIB);
			for (n = 0; n < uses[k].count; n++) {
				ptr = gyre__arena_alloc(arena, uses[k].size);
				expect(ptr);
				expect_zero(ptr, uses[k].size);
				memset(ptr, 0xee, uses[k].size);
			}
			gyre__arena_close(arena);
		}
	gyre__chunks_done(&chunks);
}

/* Reads what the job has left, past its end. */
__attribute__((__no_sanitize__("address")))
static unsigned char look_at(const volatile unsigned char *ptr)
{
	return *ptr;
}

TEST(a_job_that_has_ended_has_left_nothing_that_makes_sense)
{
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	unsigned clears, i;
	unsigned char *ptr;

	for (clears = 0; clears < 2; clears++) {
		gyre__chunks_init(&chunks, clears);
		arena = open_arena(&chunks, MIB);
		ptr = gyre__arena_alloc(arena, 1000);
		memset(ptr, 0xee, 1000);
		gyre__arena_close(arena);
#ifdef GYRE_DEBUG
		for (i = 0; i < 1000; i++)
			expect_eq(look_at(ptr + i), clears ? 0 : GYRE__ARENA_DEAD);
#else
		for (i = 0; i < 1000; i++)
			expect_eq(look_at(ptr + i), clears ? 0 : 0xee);
#endif
		gyre__chunks_done(&chunks);
	}
}

#if TEST_UNDER_ASAN
TEST(asan_knows_what_is_whose)
{
	static const size_t sizes[] = { 0, 1, 7, 8, 15, 16, 17, 100, 40000, 400000 };
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	char *ptr[sizeof(sizes) / sizeof(sizes[0])];
	unsigned i;

	gyre__chunks_init(&chunks, false);
	arena = open_arena(&chunks, MIB);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		test_row("%zu bytes", sizes[i]);
		ptr[i] = gyre__arena_alloc(arena, sizes[i]);
		expect(!__asan_region_is_poisoned(ptr[i], sizes[i]));
		expect(__asan_address_is_poisoned(ptr[i] + sizes[i]));
		expect(__asan_address_is_poisoned(ptr[i] - 1));
	}
	gyre__arena_close(arena);
	/* The last has gone back to the kernel. */
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]) - 1; i++)
		expect(__asan_address_is_poisoned(ptr[i]));
	expect(__asan_address_is_poisoned(arena));
	gyre__chunks_done(&chunks);
}
#endif

/* -------------------------------------------------------------- failures -- */

TEST(without_memory_no_arena_opens_and_later_one_does)
{
	struct gyre__chunks chunks;
	struct gyre__arena *arena;

	gyre__fault_install();
	gyre__chunks_init(&chunks, false);
	gyre__fault_set(GYRE__FAULT_alloc, 0, 1, -ENOMEM);
	expect(!open_arena(&chunks, MIB));
	expect_eq(chunks.bytes, 0);
	arena = open_arena(&chunks, MIB);
	expect(arena);
	gyre__arena_close(arena);
	gyre__chunks_done(&chunks);
	gyre__fault_remove();
}

TEST(an_arena_that_cannot_grow_says_so_and_grows_later)
{
	static const struct { size_t size; enum gyre__fault_call call; } rows[] = {
		{ 30 * KIB, GYRE__FAULT_alloc }, { 60 * KIB, GYRE__FAULT_alloc },
		{ 120 * KIB, GYRE__FAULT_mmap }, { 250 * KIB, GYRE__FAULT_mmap },
		{ MIB, GYRE__FAULT_mmap },
	};
	struct gyre__chunks chunks;
	struct gyre__arena *arena;
	unsigned i;
	char *kept;

	gyre__fault_install();
	gyre__chunks_init(&chunks, false);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		test_row("%zu bytes", rows[i].size);
		arena = open_arena(&chunks, 64 * MIB);
		kept = gyre__arena_alloc(arena, 100);
		memset(kept, 0xee, 100);
		gyre__fault_set(rows[i].call, 0, 1, -ENOMEM);
		expect(!gyre__arena_alloc(arena, rows[i].size));
		expect_eq(gyre__fault_hits(rows[i].call), 1);
		expect_eq(gyre__arena_used(arena), 112);
		expect_eq(chunks.bytes, GYRE__CHUNK_FIRST);
		expect(gyre__arena_alloc(arena, rows[i].size));
		expect_eq((unsigned char)kept[99], 0xee);
		gyre__arena_close(arena);
		gyre__fault_clear();
	}
	gyre__chunks_done(&chunks);
	gyre__fault_remove();
}

TEST_MAIN()
