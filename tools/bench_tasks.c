/* SPDX-License-Identifier: MIT */
/*
 * What tasks and jobs cost: nanoseconds an operation, each beside what a program
 * without them would do. Every row is one loop, timed as a whole; rows take
 * turns within a round, and the median of the rounds is told with their range.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "bench_clock.h"

#define BATCH		100
#define SLEEPERS	100000
#define FILE_BYTES	(1u << 20)
#define BLOCK		4096
#define STACK		((size_t)64 << 10)

struct shared {
	struct gyre *rt;
	int fd;			/* of a file that is in the page cache; -1: none */
	unsigned loops;
	double ns;		/* what a loop in a task has measured */
	bool failed;
};

struct row {
	const char *name;
	const char *against;	/* whose row it is held against; NULL: it stands for itself */
	unsigned loops;
	double (*run)(struct shared *shared, unsigned loops);	/* ns an operation; < 0: failed */
	double ns[BENCH_ROUNDS_MAX];
};

static double since(uint64_t start_ns, unsigned loops)
{
	return (double)(bench_now_ns() - start_ns) / loops;
}

static int do_nothing(void *arg)
{
	(void)arg;
	return 0;
}

/* ------------------------------------------------------------- in a task -- */

static int yield_again(void *arg)
{
	const struct shared *shared = arg;
	unsigned i;

	for (i = 0; i < shared->loops; i++)
		gyre_yield();
	return 0;
}

static int loop_yield(void *arg)
{
	struct shared *shared = arg;
	uint64_t start_ns;
	unsigned i;

	shared->failed = gyre_go(yield_again, shared, NULL) != GYRE_OK;
	start_ns = bench_now_ns();
	for (i = 0; i < shared->loops; i++)
		gyre_yield();
	shared->ns = since(start_ns, shared->loops);
	return 0;
}

static int loop_go(void *arg)
{
	struct shared *shared = arg;
	uint64_t start_ns = bench_now_ns();
	struct gyre_task *task;
	unsigned i;

	for (i = 0; i < shared->loops && !shared->failed; i++)
		shared->failed = gyre_go(do_nothing, NULL, &task) != GYRE_OK ||
				 gyre_join(task, NULL) != GYRE_OK;
	shared->ns = since(start_ns, shared->loops);
	return 0;
}

static int loop_hundreds(void *arg)
{
	struct shared *shared = arg;
	uint64_t start_ns = bench_now_ns();
	struct gyre_task *tasks[BATCH];
	unsigned i, k;

	for (i = 0; i < shared->loops / BATCH && !shared->failed; i++) {
		for (k = 0; k < BATCH && !shared->failed; k++)
			shared->failed = gyre_go(do_nothing, NULL, &tasks[k]) != GYRE_OK;
		for (k = 0; k < BATCH && !shared->failed; k++)
			shared->failed = gyre_join(tasks[k], NULL) != GYRE_OK;
	}
	shared->ns = since(start_ns, shared->loops);
	return 0;
}

static int loop_job(void *arg)
{
	struct shared *shared = arg;
	uint64_t start_ns = bench_now_ns();
	unsigned i;

	for (i = 0; i < shared->loops && !shared->failed; i++)
		shared->failed = gyre_block_on(NULL, do_nothing, NULL, NULL, NULL) != GYRE_OK;
	shared->ns = since(start_ns, shared->loops);
	return 0;
}

static int loop_alloc(void *arg)
{
	struct shared *shared = arg;
	uint64_t start_ns = bench_now_ns();
	unsigned i;

	for (i = 0; i < shared->loops && !shared->failed; i++)
		shared->failed = !gyre_alloc(64);
	shared->ns = since(start_ns, shared->loops);
	return 0;
}

static int loop_read(void *arg)
{
	struct shared *shared = arg;
	uint64_t start_ns = bench_now_ns();
	char block[BLOCK];
	unsigned i;

	for (i = 0; i < shared->loops && !shared->failed; i++)
		shared->failed = gyre_pread(NULL, shared->fd, block, BLOCK,
					    (off_t)i % (FILE_BYTES / BLOCK) * BLOCK) != BLOCK;
	shared->ns = since(start_ns, shared->loops);
	return 0;
}

static double in_a_task(struct shared *shared, unsigned loops, gyre_task_fn *fn)
{
	shared->loops = loops;
	shared->failed = false;
	if (gyre_block_on(shared->rt, fn, shared, NULL, NULL) != GYRE_OK)
		return -1;
	return shared->failed ? -1 : shared->ns;
}

static double run_yield(struct shared *shared, unsigned loops)
{
	return in_a_task(shared, loops, loop_yield);
}

static double run_go(struct shared *shared, unsigned loops)
{
	return in_a_task(shared, loops, loop_go);
}

static double run_hundreds(struct shared *shared, unsigned loops)
{
	return in_a_task(shared, loops, loop_hundreds);
}

static double run_job(struct shared *shared, unsigned loops)
{
	return in_a_task(shared, loops, loop_job);
}

static double run_alloc(struct shared *shared, unsigned loops)
{
	return in_a_task(shared, loops, loop_alloc);
}

static double run_task_read(struct shared *shared, unsigned loops)
{
	return in_a_task(shared, loops, loop_read);
}

/* ------------------------------------------------------- without a task -- */

static void prep_nop(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
}

static double run_foreign_nop(struct shared *shared, unsigned loops)
{
	uint64_t start_ns = bench_now_ns();
	unsigned i;

	for (i = 0; i < loops; i++)
		if (gyre_call(shared->rt, prep_nop, NULL, NULL) != GYRE_OK)
			return -1;
	return since(start_ns, loops);
}

static double run_foreign_job(struct shared *shared, unsigned loops)
{
	uint64_t start_ns = bench_now_ns();
	unsigned i;

	for (i = 0; i < loops; i++)
		if (gyre_block_on(shared->rt, do_nothing, NULL, NULL, NULL) != GYRE_OK)
			return -1;
	return since(start_ns, loops);
}

static ucontext_t here, there;

static void switch_back(void)
{
	for (;;)
		swapcontext(&there, &here);
}

static double run_ucontext(struct shared *shared, unsigned loops)
{
	void *stack = malloc(STACK);
	uint64_t start_ns;
	unsigned i;

	(void)shared;
	if (!stack)
		return -1;
	getcontext(&there);
	there.uc_stack.ss_sp = stack;
	there.uc_stack.ss_size = STACK;
	makecontext(&there, switch_back, 0);
	start_ns = bench_now_ns();
	for (i = 0; i < loops; i++)
		swapcontext(&here, &there);
	free(stack);
	return since(start_ns, loops);
}

static void *thread_main(void *arg)
{
	return arg;
}

static double run_pthread(struct shared *shared, unsigned loops)
{
	uint64_t start_ns = bench_now_ns();
	pthread_t thread;
	unsigned i;

	(void)shared;
	for (i = 0; i < loops; i++)
		if (pthread_create(&thread, NULL, thread_main, NULL) != 0 ||
		    pthread_join(thread, NULL) != 0)
			return -1;
	return since(start_ns, loops);
}

static double run_malloc(struct shared *shared, unsigned loops)
{
	uint64_t start_ns = bench_now_ns();
	void *volatile ptr;	/* or the compiler would leave both out */
	unsigned i;

	(void)shared;
	for (i = 0; i < loops; i++) {
		ptr = malloc(64);
		free(ptr);
	}
	return since(start_ns, loops);
}

static double run_pread(struct shared *shared, unsigned loops)
{
	uint64_t start_ns = bench_now_ns();
	char block[BLOCK];
	unsigned i;

	for (i = 0; i < loops; i++)
		if (pread(shared->fd, block, BLOCK,
			  (off_t)i % (FILE_BYTES / BLOCK) * BLOCK) != BLOCK)
			return -1;
	return since(start_ns, loops);
}

/* ---------------------------------------------------------------- memory -- */

static double rss_bytes(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (file && fscanf(file, "%*u %lu", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static int sleep_long(void *arg)
{
	(void)arg;
	gyre_sleep(GYRE_FOREVER);
	return 0;
}

/* They all sleep when this has yielded; then the job ends, and they with it. */
static int start_sleepers(void *arg)
{
	struct shared *shared = arg;
	double before = rss_bytes();
	unsigned i;

	for (i = 0; i < SLEEPERS && !shared->failed; i++)
		shared->failed = gyre_go(sleep_long, NULL, NULL) != GYRE_OK;
	gyre_yield();
	shared->ns = (rss_bytes() - before) / SLEEPERS;
	return 0;
}

/* ----------------------------------------------------------------- rows -- */

static struct row rows[] = {
	{ "two yields, there and back", "swapcontext, there and back", 500000, run_yield, { 0 } },
	{ "swapcontext, there and back", NULL, 200000, run_ucontext, { 0 } },
	{ "gyre_go and gyre_join", "pthread_create and pthread_join", 300000, run_go, { 0 } },
	{ "the same in hundreds", "pthread_create and pthread_join", 300000, run_hundreds, { 0 } },
	{ "pthread_create and pthread_join", NULL, 2000, run_pthread, { 0 } },
	{ "gyre_block_on in a task", NULL, 200000, run_job, { 0 } },
	{ "gyre_block_on in a thread", "gyre_call of a NOP in a thread", 30000, run_foreign_job,
	  { 0 } },
	{ "gyre_call of a NOP in a thread", NULL, 30000, run_foreign_nop, { 0 } },
	{ "gyre_alloc of 64 bytes", "malloc and free of 64 bytes", 500000, run_alloc, { 0 } },
	{ "malloc and free of 64 bytes", NULL, 500000, run_malloc, { 0 } },
	{ "cached gyre_pread in a task", "pread of the same", 100000, run_task_read, { 0 } },
	{ "pread of the same", NULL, 100000, run_pread, { 0 } },
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median_of(const char *name, unsigned rounds)
{
	size_t i;

	for (i = 0; i < ROWS; i++)
		if (strcmp(rows[i].name, name) == 0)
			return rows[i].ns[rounds / 2];
	return 0;
}

static void tell(unsigned rounds)
{
	size_t i;

	for (i = 0; i < ROWS; i++)
		qsort(rows[i].ns, rounds, sizeof(rows[i].ns[0]), by_size);
	printf("%-34s %10s   %-21s %s\n", "", "ns", "range", "held against");
	for (i = 0; i < ROWS; i++) {
		const struct row *row = &rows[i];
		double median = row->ns[rounds / 2];

		printf("%-34s %10.1f   %8.1f .. %-9.1f", row->name, median, row->ns[0],
		       row->ns[rounds - 1]);
		if (row->against)
			printf(" %.3f of: %s", median / median_of(row->against, rounds),
			       row->against);
		printf("\n");
	}
}

/* A megabyte where temporary files go, read once. -1: none. */
static int open_file(void)
{
	static char block[BLOCK];
	const char *dir = getenv("TMPDIR");
	int fd = open(dir && *dir ? dir : ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	unsigned i;

	for (i = 0; fd >= 0 && i < FILE_BYTES / BLOCK; i++)
		if (write(fd, block, BLOCK) != BLOCK) {
			close(fd);
			return -1;
		}
	return fd;
}

static int measure_rows(struct shared *shared, const struct bench_plan *plan)
{
	unsigned round;
	size_t i;

	for (round = 0; round < plan->rounds; round++) {
		if (!plan->quiet)
			fprintf(stderr, "\rround %u of %u", round + 1, plan->rounds);
		for (i = 0; i < ROWS; i++) {
			rows[i].ns[round] = rows[i].run(shared, rows[i].loops);
			if (rows[i].ns[round] < 0)
				return bench_complain("%s failed: %s", rows[i].name,
						      gyre_last_error());
		}
	}
	if (!plan->quiet)
		fprintf(stderr, "\r                    \r");
	return 0;
}

int bench_tasks(const struct bench_plan *plan)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;
	struct shared shared = { .fd = open_file() };
	double bytes = 0;
	int rc;

	if (shared.fd < 0)
		return bench_complain("no temporary file can be made in $TMPDIR or here: %s",
				      strerror(errno));
	options.workers = 1;
	options.arena_max = (size_t)1 << 30;
	if (gyre_open(&options, &shared.rt) != GYRE_OK) {
		close(shared.fd);
		return bench_complain("%s", gyre_last_error());
	}
	rc = measure_rows(&shared, plan);
	if (rc == 0) {
		bytes = in_a_task(&shared, 1, start_sleepers);
		rc = bytes < 0 ? bench_complain("%d tasks could not be started", SLEEPERS) : 0;
	}
	gyre_free(shared.rt);
	close(shared.fd);
	if (rc == 0) {
		tell(plan->rounds);
		printf("%-34s %10.0f bytes, of %d\n", "memory of a task that sleeps", bytes,
		       SLEEPERS);
	}
	return rc;
}
