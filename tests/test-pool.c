/* SPDX-License-Identifier: MIT */
/*
 * Records of one size: where they lie, who gets which, and what is kept of them.
 */
#define _GNU_SOURCE
#include "workers/pool.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "helpers.h"
#include "ring/atomic.h"
#include "ring/sys_fault.h"

#define BYTES	(5 * GYRE__CACHE_LINE)
#define MANY	5000			/* more than all blocks that are kept have */

struct record {
	struct gyre__pooled pooled;
	char mine[BYTES - sizeof(struct gyre__pooled)];
};

static struct record *take(struct gyre__pool *pool)
{
	struct record *record = gyre__pool_take(pool);

	expect(record);
	return record;
}

TEST(records_are_aligned_and_do_not_overlap)
{
	static struct record *records[MANY];
	struct gyre__pool pool;
	unsigned i;

	gyre__pool_init(&pool, BYTES);
	for (i = 0; i < MANY; i++) {
		records[i] = take(&pool);
		expect_eq((uintptr_t)records[i] % GYRE__CACHE_LINE, 0);
		memset(records[i]->mine, (int)i, sizeof(records[i]->mine));
	}
	for (i = 0; i < MANY; i++) {
		expect_eq((unsigned char)records[i]->mine[0], i % 256);
		expect_eq((unsigned char)records[i]->mine[sizeof(records[i]->mine) - 1], i % 256);
		gyre__pool_put(&pool, &records[i]->pooled);
	}
	gyre__pool_done(&pool);
}

TEST(the_record_that_was_used_last_is_given_out_first)
{
	struct record *records[3];
	struct gyre__pool pool;
	unsigned i;

	gyre__pool_init(&pool, BYTES);
	for (i = 0; i < 3; i++)
		records[i] = take(&pool);
	for (i = 0; i < 3; i++)
		gyre__pool_put(&pool, &records[i]->pooled);
	for (i = 3; i-- > 0;)
		expect(take(&pool) == records[i]);
	for (i = 0; i < 3; i++)
		gyre__pool_put(&pool, &records[i]->pooled);
	gyre__pool_done(&pool);
}

TEST(a_block_that_was_full_is_used_next)
{
	struct record *first, *record;
	struct gyre__pool_block *block;
	struct gyre__pool pool;
	unsigned taken = 1, i;

	gyre__pool_init(&pool, BYTES);
	first = take(&pool);
	block = first->pooled.block;
	while (block->idle) {
		record = take(&pool);
		expect(record->pooled.block == block);
		record->pooled.link = first;	/* a user's while it is out */
		first = record;
		taken++;
	}
	record = take(&pool);
	expect(record->pooled.block != block);
	expect_eq(block->used, taken);
	for (i = 0; i < taken; i++) {
		struct record *next = first->pooled.link;

		gyre__pool_put(&pool, &first->pooled);
		expect(take(&pool) == first);
		gyre__pool_put(&pool, &first->pooled);
		first = next;
	}
	gyre__pool_put(&pool, &record->pooled);
	gyre__pool_done(&pool);
}

TEST(few_idle_blocks_are_kept)
{
	static struct record *records[MANY];
	struct gyre__pool pool;
	unsigned i, round;

	gyre__pool_init(&pool, BYTES);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < MANY; i++)
			records[i] = take(&pool);
		expect_eq(pool.idle_blocks, 0);
		for (i = 0; i < MANY; i++)
			gyre__pool_put(&pool, &records[round ? MANY - 1 - i : i]->pooled);
		expect_eq(pool.idle_blocks, GYRE__POOL_IDLE_MAX);
	}
	gyre__pool_done(&pool);
}

TEST(without_memory_there_is_no_record_and_nothing_is_lost)
{
	struct record *record;
	struct gyre__pool pool;

	gyre__fault_install();
	gyre__pool_init(&pool, BYTES);
	gyre__fault_set(GYRE__FAULT_alloc, 0, 1, -ENOMEM);
	expect(!gyre__pool_take(&pool));
	expect_eq(gyre__fault_hits(GYRE__FAULT_alloc), 1);
	record = take(&pool);
	gyre__pool_put(&pool, &record->pooled);
	gyre__pool_done(&pool);
	gyre__fault_remove();
}

static void end_with_one_out(void *arg)
{
	struct gyre__pool pool;

	(void)arg;
	gyre__pool_init(&pool, BYTES);
	gyre__pool_take(&pool);
	gyre__pool_done(&pool);
}

TEST(who_ends_with_a_record_still_out_is_told_by_an_assert)
{
	test_asserts(end_with_one_out, NULL);
}

TEST_MAIN()
