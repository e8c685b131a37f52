/* SPDX-License-Identifier: MIT */
/*
 * Tasks: what they cost themselves, and operations from within them. One caller
 * starts a job on the one worker of a runtime and waits for it; what is timed,
 * and counted into that caller's histogram, is what its tasks do there. And what
 * does the same without gyre: POSIX threads, malloc().
 */
#include "bench.h"

#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define BLOCK		128u		/* operations between two looks at the clock */
#define ALLOC_SIZE	64u
#define ALLOCS		4096u		/* of one arena */
#define JOBS		16u		/* timed together */
#define THREAD_STACK	(16u * 1024u)
#define SLEEPER_BYTES	6144u		/* its page, and what library and kernel keep of it */
#define SLEEPERS_WITH_MAPPINGS 30000u

/* ThreadSanitizer has two mappings of its own for each task. */
#ifdef __SANITIZE_THREAD__
#define SLEEPERS_MAX	10000u
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SLEEPERS_MAX	10000u
#endif
#endif
#ifndef SLEEPERS_MAX
#define SLEEPERS_MAX	BENCH_SLEEPERS_MAX
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102	/* Linux 6.13 */
#endif

static int trivial(void *arg)
{
	(void)arg;
	return 0;
}

static int status_fault(struct bench_run *run, enum gyre_status status)
{
	if (status == GYRE_OK)
		return 0;
	return bench_fault(run, "%s: %s: %s", run->engine->name, gyre_status_name(status),
			   gyre_last_error());
}

/* ---------------------------------------------------------------- yield -- */

/* Both tasks yield from here: a CPU guesses where a switch returns to by where it did last. */
__attribute__((__noinline__))
static void yield_block(void)
{
	unsigned i;

	for (i = 0; i < BLOCK; i++)
		gyre_yield();
}

static int yield_partner(void *arg)
{
	const bool *ended = arg;

	while (!*ended)
		yield_block();
	return 0;
}

static int yield_root(void *arg)
{
	struct bench_caller *caller = arg;
	bool going = true, ended = false;
	enum gyre_status status = gyre_go(yield_partner, &ended, NULL);
	uint64_t since = bench_ticks();

	caller->run->block = BLOCK;
	while (going && status == GYRE_OK) {
		yield_block();
		going = bench_note_block(caller, &since);
	}
	ended = true;
	status_fault(caller->run, status != GYRE_OK ? status : gyre_join_all());
	return 0;
}

/* ------------------------------------------------------------------- go -- */

static enum gyre_status go_block(struct gyre_task **tasks, unsigned n)
{
	enum gyre_status status = GYRE_OK;
	unsigned i, started;

	for (started = 0; started < n && status == GYRE_OK; started++)
		status = gyre_go(trivial, NULL, &tasks[started]);
	if (status != GYRE_OK)
		started--;
	for (i = 0; i < started; i++)
		if (gyre_join(tasks[i], NULL) != GYRE_OK && status == GYRE_OK)
			status = gyre_last_status();
	return status;
}

static int go_root(void *arg)
{
	struct bench_caller *caller = arg;
	unsigned n = caller->op_count, times = n < BLOCK ? BLOCK / n : 1, i;
	struct gyre_task **tasks = calloc(n, sizeof(*tasks));
	enum gyre_status status = tasks ? GYRE_OK : GYRE_NO_MEMORY;
	uint64_t since = bench_ticks();
	bool going = true;

	caller->run->block = times * n;
	while (going && status == GYRE_OK) {
		for (i = 0; i < times && status == GYRE_OK; i++)
			status = go_block(tasks, n);
		going = bench_note_block(caller, &since);
	}
	status_fault(caller->run, status);
	free(tasks);
	return 0;
}

/* ---------------------------------------------------------------- alloc -- */

static int alloc_job(void *arg)
{
	unsigned i;

	(void)arg;
	for (i = 0; i < ALLOCS; i++)
		if (!gyre_alloc(ALLOC_SIZE))
			return -1;
	return 0;
}

static int alloc_root(void *arg)
{
	struct bench_caller *caller = arg;
	enum gyre_status status = GYRE_OK;
	uint64_t since = bench_ticks();
	bool going = true;
	int failed = 0;

	caller->run->block = ALLOCS;
	while (going && status == GYRE_OK && failed == 0) {
		status = gyre_block_on(NULL, alloc_job, NULL, NULL, &failed);
		going = bench_note_block(caller, &since);
	}
	status_fault(caller->run, failed ? GYRE_NO_MEMORY : status);
	return 0;
}

/* ---------------------------------------- jobs and operations, many at once -- */

struct worker_task {
	struct bench_caller *caller;
	struct bench_op *op;
};

static int jobs_main(void *arg)
{
	const struct worker_task *task = arg;
	enum gyre_status status = GYRE_OK;
	uint64_t since = bench_ticks();
	bool going = true;
	unsigned i;

	while (going && status == GYRE_OK) {
		for (i = 0; i < JOBS && status == GYRE_OK; i++)
			status = gyre_block_on(NULL, trivial, NULL, NULL, NULL);
		going = bench_note_block(task->caller, &since);
	}
	status_fault(task->caller->run, status);
	return 0;
}

static void prep(struct io_uring_sqe *sqe, void *arg)
{
	bench_op_prep(sqe, arg);
}

static int do_op(const struct worker_task *task)
{
	struct bench_op *op = task->op;
	enum gyre_status status;

	bench_op_next(task->caller, op);
	switch (op->kind) {
	case BENCH_OP_READ:
		op->res = (int32_t)gyre_pread(NULL, op->fd, op->buf, op->len, (off_t)op->offset);
		break;
	case BENCH_OP_WRITE:
		op->res = (int32_t)gyre_pwrite(NULL, op->fd, op->buf, op->len, (off_t)op->offset);
		break;
	case BENCH_OP_DURABLE:
		op->res = (int32_t)gyre_write_durable(NULL, op->fd, op->buf, op->len,
						      (off_t)op->offset);
		break;
	default:
		status = gyre_call(NULL, prep, op, &op->res);
		if (status != GYRE_OK)
			return status_fault(task->caller->run, status);
	}
	if (bench_op_good(op))
		return 0;
	if (op->res < 0 && gyre_last_status() != GYRE_OK)
		return status_fault(task->caller->run, gyre_last_status());
	return bench_op_fault(task->caller, op);
}

static int ops_main(void *arg)
{
	const struct worker_task *task = arg;
	uint64_t now, since = bench_ticks();
	bool going = true;

	while (going && do_op(task) == 0) {
		now = bench_ticks();
		going = bench_note(task->caller, since, now, 1);
		since = now;
	}
	return 0;
}

static int many_root(void *arg)
{
	struct bench_caller *caller = arg;
	bool jobs = caller->run->kase->work == BENCH_JOB;
	struct worker_task *tasks = calloc(caller->op_count, sizeof(*tasks));
	enum gyre_status status = tasks ? GYRE_OK : GYRE_NO_MEMORY;
	unsigned i;

	if (jobs)
		caller->run->block = JOBS;
	for (i = 0; i < caller->op_count && status == GYRE_OK; i++) {
		tasks[i] = (struct worker_task){ caller, &caller->ops[i] };
		status = gyre_go(jobs ? jobs_main : ops_main, &tasks[i], NULL);
	}
	status_fault(caller->run, status);
	status_fault(caller->run, gyre_join_all());
	free(tasks);
	return 0;
}

/* ------------------------------------------------------------- sleepers -- */

static double now_us(void)
{
	return (double)bench_now_ns() / 1e3;
}

static double cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Without what the allocator keeps of an earlier round, or that would count as had before. */
static double rss(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
	return bench_number_in("/proc/self/smaps_rollup", "Rss:") * 1024;
}

/* From start to the last one's end. */
struct sleepers {
	struct bench_run *run;
	unsigned count;
	double start_us, wake_us, bytes;	/* of all */
	bool failed;
};

/* Whether the kernel guards a stack without a mapping, of which a process has some 65,000. */
static bool guards_are_free(void)
{
	void *page = mmap(NULL, BENCH_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			  0);
	bool free = page != MAP_FAILED && madvise(page, BENCH_PAGE, MADV_GUARD_INSTALL) == 0;

	if (page != MAP_FAILED)
		munmap(page, BENCH_PAGE);
	return free;
}

unsigned bench_sleepers_max(void)
{
	uint64_t most = bench_memory_size() / 2 / SLEEPER_BYTES;

	if (!guards_are_free() && most > SLEEPERS_WITH_MAPPINGS)
		most = SLEEPERS_WITH_MAPPINGS;
	return most < SLEEPERS_MAX ? (unsigned)most : SLEEPERS_MAX;
}

static int sleeper(void *arg)
{
	(void)arg;
	gyre_sleep(GYRE_FOREVER);
	return 0;
}

/* Its end ends them all. */
static int sleepers_root(void *arg)
{
	struct sleepers *sleepers = arg;
	double bytes = rss(), since = now_us();
	enum gyre_status status = GYRE_OK;
	unsigned i;

	for (i = 0; i < sleepers->count && status == GYRE_OK; i++)
		status = gyre_go(sleeper, NULL, NULL);
	sleepers->failed = status_fault(sleepers->run, status) < 0;
	gyre_yield();
	sleepers->start_us = now_us() - since;
	sleepers->bytes = rss() - bytes;
	sleepers->wake_us = now_us();
	return 0;
}

static int tasks_sleep(struct sleepers *sleepers)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;
	enum gyre_status status;
	struct gyre *rt;

	options.workers = 1;
	options.spin_ns = sleepers->run->kase->spin_ns;
	status = gyre_open(&options, &rt);
	if (status_fault(sleepers->run, status) < 0)
		return -1;
	/* What the first job brings along is not the sleepers'. */
	status = gyre_block_on(rt, trivial, NULL, NULL, NULL);
	if (status == GYRE_OK)
		status = gyre_block_on(rt, sleepers_root, sleepers, NULL, NULL);
	sleepers->wake_us = now_us() - sleepers->wake_us;
	gyre_free(rt);
	return sleepers->failed ? -1 : status_fault(sleepers->run, status);
}

static pthread_mutex_t bed = PTHREAD_MUTEX_INITIALIZER;

static void *thread_sleeper(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&bed);
	pthread_mutex_unlock(&bed);
	return NULL;
}

/* Stacks of our own: the C library would keep its, and the next round find them in memory. */
static int threads_sleep(struct sleepers *sleepers)
{
	size_t size = (size_t)sleepers->count * THREAD_STACK;
	pthread_t *threads = calloc(sleepers->count, sizeof(*threads));
	char *stacks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned i, started = 0;
	double bytes, since;
	pthread_attr_t attr;
	int rc = threads && stacks != MAP_FAILED ? 0 : ENOMEM;

	pthread_attr_init(&attr);
	pthread_mutex_lock(&bed);
	bytes = rss();
	since = now_us();
	while (started < sleepers->count && rc == 0) {
		pthread_attr_setstack(&attr, stacks + started * (size_t)THREAD_STACK, THREAD_STACK);
		rc = pthread_create(&threads[started], &attr, thread_sleeper, NULL);
		started += rc == 0;
	}
	sleepers->start_us = now_us() - since;
	sleepers->bytes = rss() - bytes;
	sleepers->wake_us = now_us();
	pthread_mutex_unlock(&bed);
	for (i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	sleepers->wake_us = now_us() - sleepers->wake_us;
	pthread_attr_destroy(&attr);
	if (stacks != MAP_FAILED)
		munmap(stacks, size);
	free(threads);
	errno = rc;
	return rc == 0 ? 0 : bench_fault(sleepers->run, "%s: no thread %u of %u: %m (errno %d)",
					 sleepers->run->engine->name, started, sleepers->count, rc);
}

/* Again and again while there is time, and once at least; the last one's figures. */
static int measure_sleepers(struct bench_run *run, int (*sleep_all)(struct sleepers *sleepers),
			    struct bench_result *ret)
{
	struct sleepers sleepers = { .run = run, .count = run->kase->callers };
	double since = now_us(), cpu = cpu_us(), us, ops = 0;
	unsigned i;

	do {
		if (sleep_all(&sleepers) < 0)
			return -1;
		ops += sleepers.count;
		us = now_us() - since;
	} while (us < run->kase->seconds * 1e6);
	for (i = 0; i < BENCH_METRICS; i++)
		ret->value[i] = NAN;
	ret->value[BENCH_OPS] = ops / us * 1e6;
	ret->value[BENCH_CPU_US] = (cpu_us() - cpu) / ops;
	ret->value[BENCH_CPU_PERCENT] = (cpu_us() - cpu) / us * 100;
	ret->value[BENCH_RSS] = sleepers.bytes / sleepers.count;
	ret->value[BENCH_START] = sleepers.start_us / sleepers.count;
	ret->value[BENCH_WAKE] = sleepers.wake_us / sleepers.count;
	return 0;
}

/* ---------------------------------------------------------------- task -- */

static int task_open(struct bench_run *run)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;
	struct gyre *rt;
	enum gyre_status status;

	options.workers = 1;
	options.spin_ns = run->kase->spin_ns;
	status = gyre_open(&options, &rt);
	if (status_fault(run, status) < 0)
		return -1;
	run->state = rt;
	return 0;
}

static void task_close(struct bench_run *run)
{
	gyre_free(run->state);
}

static void task_loop(struct bench_caller *caller)
{
	gyre_task_fn *root = caller->run->kase->work == BENCH_YIELD ? yield_root :
			     caller->run->kase->work == BENCH_GO ? go_root :
			     caller->run->kase->work == BENCH_ALLOC ? alloc_root : many_root;

	status_fault(caller->run, gyre_block_on(caller->run->state, root, caller, NULL, NULL));
}

static int task_measure(struct bench_run *run, struct bench_result *ret)
{
	return measure_sleepers(run, tasks_sleep, ret);
}

const struct bench_engine bench_task = {
	.name = "task",
	.about = "tasks on one worker: callers x batch of them at once",
	.works = BENCH_ON_NOPS | BENCH_ON_FILE | BENCH_ON_TASKS,
	.one_thread = true,
	.ours = true,
	.alone = BENCH_WORK_BIT(BENCH_SLEEPERS),
	.measure = task_measure,
	.open = task_open,
	.close = task_close,
	.loop = task_loop,
};

/* ------------------------------------------------------- without gyre -- */

static void *thread_trivial(void *arg)
{
	return arg;
}

static void pthread_loop(struct bench_caller *caller)
{
	unsigned n = caller->op_count, i, started;
	pthread_t *threads = calloc(n, sizeof(*threads));
	uint64_t since = bench_ticks();
	int rc = threads ? 0 : ENOMEM;
	bool going = true;

	caller->run->block = n;
	while (going && rc == 0) {
		for (started = 0; started < n && rc == 0; started++)
			rc = pthread_create(&threads[started], NULL, thread_trivial, NULL);
		started -= rc != 0;
		for (i = 0; i < started; i++)
			pthread_join(threads[i], NULL);
		going = bench_note_block(caller, &since);
	}
	free(threads);
	errno = rc;
	if (rc != 0)
		bench_fault(caller->run, "pthread: no thread: %m (errno %d)", rc);
}

static int pthread_measure(struct bench_run *run, struct bench_result *ret)
{
	return measure_sleepers(run, threads_sleep, ret);
}

const struct bench_engine bench_pthread = {
	.name = "pthread",
	.about = "pthread_create() and pthread_join(); sleepers in a mutex",
	.works = BENCH_WORK_BIT(BENCH_GO) | BENCH_WORK_BIT(BENCH_SLEEPERS),
	.one_thread = true,
	.few = true,
	.alone = BENCH_WORK_BIT(BENCH_SLEEPERS),
	.measure = pthread_measure,
	.loop = pthread_loop,
};

static void malloc_loop(struct bench_caller *caller)
{
	uint64_t since = bench_ticks();
	unsigned i;

	caller->run->block = ALLOCS;
	do {
		for (i = 0; i < ALLOCS; i++) {
			void *ptr = malloc(ALLOC_SIZE);

			/* It is used, for all that the compiler knows. */
			__asm__ volatile("" : "+r"(ptr) : : "memory");
			free(ptr);
		}
	} while (bench_note_block(caller, &since));
}

const struct bench_engine bench_malloc = {
	.name = "malloc",
	.about = "malloc() and free()",
	.works = BENCH_WORK_BIT(BENCH_ALLOC),
	.one_thread = true,
	.loop = malloc_loop,
};
