/* SPDX-License-Identifier: MIT */
/*
 * How long the small things take that gyre is made of. Each figure is the
 * median of many, with the least and the most: on a machine that others use,
 * the least says what it can do, and the median what it does.
 */
#include "probe.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS		64u		/* of LOOPS each */
#define LOOPS		200u
#define WAKES		150u
/* Long enough for the other thread to have fallen asleep. */
#define ASLEEP_NS	UINT64_C(80000)

static const struct probe_span unknown = { .median = NAN, .least = NAN, .most = NAN };

/* ------------------------------------------------------------ one thread -- */

typedef void small_fn(struct io_uring *uring);

static void do_syscall(struct io_uring *uring)
{
	(void)uring;
	syscall(__NR_getppid);
}

static void do_clock(struct io_uring *uring)
{
	(void)uring;
	bench_now_ns();
}

static void do_yield(struct io_uring *uring)
{
	(void)uring;
	sched_yield();
}

static void do_nop(struct io_uring *uring)
{
	struct io_uring_cqe *cqe;

	io_uring_prep_nop(io_uring_get_sqe(uring));
	io_uring_submit_and_wait(uring, 1);
	if (io_uring_peek_cqe(uring, &cqe) == 0)
		io_uring_cqe_seen(uring, cqe);
}

static struct probe_span time_small(small_fn *small, struct io_uring *uring)
{
	double values[ROUNDS];
	unsigned round, i;

	for (round = 0; round < ROUNDS; round++) {
		uint64_t since = bench_now_ns();

		for (i = 0; i < LOOPS; i++)
			small(uring);
		values[round] = (double)(bench_now_ns() - since) / LOOPS;
	}
	return probe_span_of(values, ROUNDS);
}

/* ----------------------------------------------------------- two threads -- */

struct bed {
	bool futex;
	int wake_fd;			/* eventfd: the sleeper's */
	int reply_fd;			/* the waker's, either way */
	_Atomic uint32_t word;		/* futex: wakes so far */
	_Atomic uint64_t woken_ns;
	_Atomic bool broken;
};

static void sleep_once(struct bed *bed, uint32_t seen)
{
	uint64_t count;

	if (!bed->futex) {
		if (read(bed->wake_fd, &count, sizeof(count)) < 0)
			atomic_store(&bed->broken, true);
		return;
	}
	while (atomic_load(&bed->word) == seen)
		syscall(__NR_futex, &bed->word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void wake_once(struct bed *bed)
{
	const uint64_t one = 1;

	if (!bed->futex) {
		if (write(bed->wake_fd, &one, sizeof(one)) < 0)
			atomic_store(&bed->broken, true);
		return;
	}
	atomic_fetch_add(&bed->word, 1);
	syscall(__NR_futex, &bed->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *sleeper_main(void *arg)
{
	const uint64_t one = 1;
	struct bed *bed = arg;
	unsigned i;

	for (i = 0; i < WAKES; i++) {
		sleep_once(bed, i);
		atomic_store(&bed->woken_ns, bench_now_ns());
		if (write(bed->reply_fd, &one, sizeof(one)) < 0)
			atomic_store(&bed->broken, true);
	}
	return NULL;
}

/* The waker sleeps for the reply, so that on one CPU the sleeper gets it. */
static void wake_often(struct bed *bed, double *values)
{
	uint64_t since, count;
	unsigned i;

	for (i = 0; i < WAKES; i++) {
		bench_sleep_until(bench_now_ns() + ASLEEP_NS);
		since = bench_now_ns();
		wake_once(bed);
		if (read(bed->reply_fd, &count, sizeof(count)) < 0)
			atomic_store(&bed->broken, true);
		values[i] = (double)(atomic_load(&bed->woken_ns) - since);
	}
}

static struct probe_span time_bed(struct bed *bed, int waker, int sleeper)
{
	struct probe_span span = unknown;
	double values[WAKES];
	pthread_attr_t attr;
	pthread_t thread;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(waker, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		return span;
	CPU_ZERO(&set);
	CPU_SET(sleeper, &set);
	if (pthread_attr_init(&attr) != 0)
		return span;
	pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	if (pthread_create(&thread, &attr, sleeper_main, bed) == 0) {
		wake_often(bed, values);
		pthread_join(thread, NULL);
		if (!atomic_load(&bed->broken))
			span = probe_span_of(values, WAKES);
	}
	pthread_attr_destroy(&attr);
	return span;
}

static struct probe_span time_wake(bool futex, int waker, int sleeper)
{
	struct bed bed = { .futex = futex, .wake_fd = eventfd(0, EFD_CLOEXEC),
			   .reply_fd = eventfd(0, EFD_CLOEXEC) };
	struct probe_span span = unknown;

	if (bed.wake_fd >= 0 && bed.reply_fd >= 0)
		span = time_bed(&bed, waker, sleeper);
	if (bed.wake_fd >= 0)
		close(bed.wake_fd);
	if (bed.reply_fd >= 0)
		close(bed.reply_fd);
	return span;
}

/* The first two CPUs that we may use; how many there are, at most two. */
static unsigned two_cpus(const cpu_set_t *allowed, int *cpus)
{
	unsigned found = 0;
	int i;

	for (i = 0; i < CPU_SETSIZE && found < 2; i++)
		if (CPU_ISSET(i, allowed))
			cpus[found++] = i;
	return found;
}

static void ask_wakes(struct probe_times *times)
{
	cpu_set_t allowed;
	int cpus[2];
	unsigned count;

	times->eventfd_across = times->eventfd_same = unknown;
	times->futex_across = times->futex_same = unknown;
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return;
	count = two_cpus(&allowed, cpus);
	if (count == 2) {
		times->eventfd_across = time_wake(false, cpus[0], cpus[1]);
		times->futex_across = time_wake(true, cpus[0], cpus[1]);
	}
	if (count >= 1) {
		times->eventfd_same = time_wake(false, cpus[0], cpus[0]);
		times->futex_same = time_wake(true, cpus[0], cpus[0]);
	}
	sched_setaffinity(0, sizeof(allowed), &allowed);
}

void probe_ask_times(struct probe *probe)
{
	struct probe_times *times = &probe->times;
	struct io_uring uring;

	probe_progress(probe, "measuring system calls and wake-ups");
	times->syscall = time_small(do_syscall, NULL);
	times->clock = time_small(do_clock, NULL);
	times->yield = time_small(do_yield, NULL);
	times->nop = unknown;
	if (probe->ring.setup_error == 0 && probe->ring.enter_error == 0 &&
	    probe_ring_open(probe, &uring) == 0) {
		times->nop = time_small(do_nop, &uring);
		io_uring_queue_exit(&uring);
	}
	ask_wakes(times);
}
