/* SPDX-License-Identifier: MIT */
/* Many runtimes, many threads, one after the other and at once; and a child that has its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "helpers.h"
#include "leak.h"

#define RUNTIMES	6	/* more than a thread has places for */
#define WORKERS		3

static void prep_note_worker(struct io_uring_sqe *sqe, void *arg)
{
	*(int *)arg = gyre_current_worker();
	io_uring_prep_nop(sqe);
}

/* ------------------------------------------------------- many runtimes -- */

struct many {
	struct gyre *rt[RUNTIMES];
	unsigned rounds;
};

static void call_in_turn(void *arg, unsigned number)
{
	const struct many *many = arg;
	int first[RUNTIMES];
	unsigned round, i;

	for (round = 0; round < many->rounds; round++)
		for (i = 0; i < RUNTIMES; i++) {
			int worker = -1;

			expect_status(gyre_call(many->rt[i], prep_note_worker, &worker, NULL),
				      GYRE_OK);
			if (round == 0)
				first[i] = worker;
			test_row("thread %u, runtime %u, round %u", number, i, round);
			expect_eq(worker, first[i]);
		}
}

static void use_in_turn(unsigned threads, unsigned rounds)
{
	struct many many = { .rounds = rounds };
	unsigned i;

	for (i = 0; i < RUNTIMES; i++)
		many.rt[i] = test_open_workers(WORKERS);
	test_crew_run(threads, call_in_turn, &many);
	for (i = 0; i < RUNTIMES; i++) {
		struct gyre_stats stats = test_stats(many.rt[i]);

		test_row("runtime %u", i);
		expect_eq(stats.calls, threads * rounds);
		expect_eq(stats.ops_completed, threads * rounds);
		expect_eq(stats.inflight + stats.queued, 0);
	}
	for (i = 0; i < RUNTIMES; i++)
		gyre_free(many.rt[i]);
}

TEST(thread_that_uses_six_runtimes_in_turn_keeps_to_one_worker_in_each)
{
	use_in_turn(1, test_times(200));
}

TEST(eight_threads_that_use_six_runtimes_in_turn_keep_to_one_worker_in_each)
{
	use_in_turn(8, test_times(50));
}

struct spread {
	struct gyre *rt;
	int workers[4 * WORKERS];
};

static void note_worker(void *arg, unsigned number)
{
	struct spread *spread = arg;

	expect_status(gyre_call(spread->rt, prep_note_worker, &spread->workers[number], NULL),
		      GYRE_OK);
}

TEST(threads_that_come_spread_over_all_workers)
{
	struct spread spread = { .rt = test_open_workers(WORKERS) };
	unsigned counts[WORKERS] = { 0 }, i;

	test_crew_run(4 * WORKERS, note_worker, &spread);
	for (i = 0; i < 4 * WORKERS; i++)
		counts[spread.workers[i]]++;
	for (i = 0; i < WORKERS; i++)
		expect_eq(counts[i], 4);
	gyre_free(spread.rt);
}

/* -------------------------------------------------------- many threads -- */

static void *call_once(void *arg)
{
	int res = -1;

	expect_status(gyre_call(arg, prep_nop, NULL, &res), GYRE_OK);
	expect_eq(res, 0);
	return NULL;
}

static void come_and_go(struct gyre *rt, unsigned threads)
{
	pthread_t thread;
	unsigned i;

	for (i = 0; i < threads; i++) {
		expect_eq(pthread_create(&thread, NULL, call_once, rt), 0);
		pthread_join(thread, NULL);
	}
}

TEST(two_thousand_threads_with_a_call_each_leave_neither_descriptors_nor_memory)
{
	struct gyre *rt = test_open_workers(2);
	unsigned threads = test_times(2000), descriptors, allocations;

	come_and_go(rt, 10);
	descriptors = test_count_fds();
	allocations = leak_allocations();
	come_and_go(rt, threads);
	expect_eq(test_count_fds(), descriptors);
	expect_eq(leak_allocations(), allocations);
	expect_eq(test_stat(rt, calls), threads + 10);
	expect_eq(test_stat(rt, ops_completed), threads + 10);
	gyre_free(rt);
}

/* ------------------------------------------------------------- a child -- */

#define MAPPINGS	64
#define PAGE		4096

struct mapping {
	unsigned char *memory;
	size_t len;
};

/* Small ones, which the kernel puts where the parent's rings have left holes. */
static void map_all(struct mapping *mappings)
{
	unsigned i;

	for (i = 0; i < MAPPINGS; i++) {
		mappings[i].len = PAGE * (1 + i % 20);
		mappings[i].memory = mmap(NULL, mappings[i].len, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		expect(mappings[i].memory != MAP_FAILED);
		memset(mappings[i].memory, (int)(i + 1), mappings[i].len);
	}
}

static void expect_all_mapped(const struct mapping *mappings)
{
	size_t at;
	unsigned i;

	for (i = 0; i < MAPPINGS; i++) {
		test_row("mapping %u", i);
		/* ENOMEM where a part of it is gone */
		expect_eq(msync(mappings[i].memory, mappings[i].len, MS_ASYNC), 0);
		for (at = 0; at < mappings[i].len; at++)
			if (mappings[i].memory[at] != i + 1)
				test_fail("byte %zu is %u", at, mappings[i].memory[at]);
	}
}

static void map_then_free_the_parents(void *arg)
{
	struct mapping mappings[MAPPINGS];

	map_all(mappings);
	gyre_free(arg);
	expect_all_mapped(mappings);
}

static void map_and_open_then_free_the_parents(void *arg)
{
	struct mapping mappings[MAPPINGS];
	struct gyre *own = test_open_workers(2);
	unsigned i;

	map_all(mappings);
	for (i = 0; i < 10; i++)
		expect_status(gyre_call(own, prep_nop, NULL, NULL), GYRE_OK);
	gyre_free(arg);
	expect_all_mapped(mappings);
	for (i = 0; i < 100; i++)
		expect_status(gyre_call(own, prep_nop, NULL, NULL), GYRE_OK);
	gyre_free(own);
	expect_all_mapped(mappings);
}

static void fork_with(void (*fn)(void *arg))
{
	struct gyre *rt;

	if (TEST_UNDER_ASAN)
		test_skip("AddressSanitizer's allocator may be locked for ever in a child "
			  "that is forked while other threads allocate");
	rt = test_open_workers(2);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	test_in_child(fn, rt);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	gyre_free(rt);
}

TEST(child_that_frees_its_parents_runtime_unmaps_nothing_of_its_own)
{
	fork_with(map_then_free_the_parents);
}

TEST(child_with_a_runtime_of_its_own_frees_its_parents_and_goes_on)
{
	if (TEST_UNDER_TSAN)
		test_skip("TSan does not support threads in a forked child");
	fork_with(map_and_open_then_free_the_parents);
}

TEST_MAIN()
