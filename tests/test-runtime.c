/* SPDX-License-Identifier: MIT */
/* gyre_open: what it makes, and what is left when it cannot. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "helpers.h"
#include "leak.h"
#include "ring/sys_fault.h"

static struct gyre *const untouched = (struct gyre *)(uintptr_t)0x1234;

/* ----------------------------------------------------- what open makes -- */

TEST(open_with_defaults_answers_calls)
{
	struct gyre *rt = test_open(NULL);

	expect_ge(gyre_worker_count(rt), 1);
	expect_le(gyre_worker_count(rt), sysconf(_SC_NPROCESSORS_ONLN));
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	gyre_free(rt);
}

TEST(open_makes_as_many_workers_as_asked_for)
{
	unsigned workers;

	for (workers = 1; workers <= 9; workers += 2) {
		struct gyre *rt = test_open_workers(workers);

		expect_eq(gyre_worker_count(rt), workers);
		expect_eq(test_stat(rt, workers_alive), workers);
		expect_eq(test_stat(rt, workers_dead), 0);
		gyre_free(rt);
	}
}

TEST(several_runtimes_live_side_by_side)
{
	struct gyre *rts[6];
	unsigned i, j;

	for (i = 0; i < 6; i++)
		rts[i] = test_open_workers(1);
	/* more of them than a thread remembers at once, in turn */
	for (j = 0; j < 50; j++)
		for (i = 0; i < 6; i++)
			expect_status(gyre_call(rts[i], prep_nop, NULL, NULL), GYRE_OK);
	for (i = 0; i < 6; i++) {
		expect_eq(test_stat(rts[i], calls), 50);
		gyre_free(rts[i]);
	}
}

TEST(workers_carry_the_usual_name_for_all_to_see)
{
	struct gyre *rt = test_open_workers(3);

	expect_eq(test_find_thread("gyre-0", NULL), 1);
	expect_eq(test_find_thread("gyre-1", NULL), 1);
	expect_eq(test_find_thread("gyre-2", NULL), 1);
	gyre_free(rt);
	expect_eq(test_find_thread("gyre-0", NULL), 0);
}

static const struct {
	const char *name;
	const char *thread;
} names[] = {
	{ "store", "store-1" },
	{ "a", "a-1" },
	{ "elevenbytes", "elevenbytes-1" },
	{ "twelvebytes!", "twelvebytes-1" },
	{ "a name that is much longer than any thread's", "a name that-1" },
	{ "", "gyre-1" },
};

TEST(workers_carry_the_name_that_was_asked_for_cut_to_fit)
{
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct gyre_options options = { .size = sizeof(options), .workers = 2,
						.name = names[i].name };
		struct gyre *rt = test_open(&options);

		test_row("%s", names[i].name);
		expect_eq(test_find_thread(names[i].thread, NULL), 1);
		gyre_free(rt);
	}
}

TEST(name_is_copied)
{
	char name[] = "passing";
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .name = name };
	struct gyre *rt = test_open(&options);

	memset(name, 'x', sizeof(name) - 1);
	memset(&options, 0xff, sizeof(options));
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	expect_eq(test_find_thread("passing-0", NULL), 1);
	gyre_free(rt);
}

TEST(pinned_workers_run_on_the_nth_allowed_cpu)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 3,
					.flags = GYRE_PIN_WORKERS };
	cpu_set_t allowed, got, want;
	int cpus[3], cpu, tid, n = 0;
	unsigned i;
	struct gyre *rt;
	char name[16];

	expect_eq(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	while (n < 3)
		for (cpu = 0; cpu < CPU_SETSIZE && n < 3; cpu++)
			if (CPU_ISSET(cpu, &allowed))
				cpus[n++] = cpu;
	rt = test_open(&options);
	for (i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "gyre-%u", i % 10);
		expect_eq(test_find_thread(name, &tid), 1);
		CPU_ZERO(&want);
		CPU_SET(cpus[i], &want);
		expect_eq(sched_getaffinity(tid, sizeof(got), &got), 0);
		expect(CPU_EQUAL(&got, &want));
	}
	expect_eq(sched_getaffinity(0, sizeof(got), &got), 0);
	expect(CPU_EQUAL(&got, &allowed));
	gyre_free(rt);
}

TEST(workers_block_every_signal_and_the_opener_keeps_its_mask)
{
	sigset_t before, after;
	unsigned long long mask;
	struct gyre *rt;
	char text[64];
	int tid, sig;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	rt = test_open_workers(1);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (sig = 1; sig <= 64; sig++)
		expect_eq(sigismember(&before, sig), sigismember(&after, sig));
	expect_eq(test_find_thread("gyre-0", &tid), 1);
	test_thread_status(tid, "SigBlk", text, sizeof(text));
	mask = strtoull(text, NULL, 16);
	for (sig = 1; sig <= 64; sig++) {
		/* two cannot be blocked, and two are libc's own */
		if (sig == SIGKILL || sig == SIGSTOP || sig == 32 || sig == 33)
			continue;
		test_row("signal %d", sig);
		expect(mask >> (sig - 1) & 1);
	}
	gyre_free(rt);
}

/* A handler would run here: the test ends if some thread takes the signal unasked. */
static void *waits_for_usr1(void *arg)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	expect_eq(sigwait(&set, &sig), 0);
	*(int *)arg = sig;
	return NULL;
}

TEST(signals_of_the_process_never_land_on_a_worker)
{
	pthread_t thread;
	struct gyre *rt;
	sigset_t set;
	int got = 0, i;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	for (i = 0; i < 20; i++) {
		rt = test_open_workers(2);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		expect_eq(pthread_create(&thread, NULL, waits_for_usr1, &got), 0);
		pthread_kill(thread, SIGUSR1);
		pthread_join(thread, NULL);
		expect_eq(got, SIGUSR1);
		expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
		gyre_free(rt);
	}
}

TEST(smallest_and_largest_rings_work)
{
	static const unsigned sizes[][2] = { { 1, 1 }, { 1, 65536 }, { 4096, 1 }, { 32768, 65536 },
					     { 3, 5 }, { 256, 2048 } };
	unsigned i;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct gyre_options options = { .size = sizeof(options), .workers = 1,
						.ring_entries = sizes[i][0],
						.inflight_max = sizes[i][1] };
		struct gyre *rt;

		test_row("%u entries, %u in flight", sizes[i][0], sizes[i][1]);
		rt = test_open(&options);
		expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
		gyre_free(rt);
	}
}

/* ------------------------------------------------------- all or nothing -- */

/* One attempt, on a thread of its own, as that takes its record with it. */
struct attempt {
	struct gyre_options options;
	enum gyre_status status;	/* which it was */
	int error;			/* errno after it */
	enum gyre__fault_call call;
	bool met;			/* the fault was */
	char text[256];
};

static void try_to_open(void *arg, unsigned number)
{
	struct attempt *attempt = arg;
	struct gyre *rt = untouched;

	(void)number;
	errno = 0;
	attempt->status = gyre_open(&attempt->options, &rt);
	attempt->error = errno;
	snprintf(attempt->text, sizeof(attempt->text), "%s", gyre_last_error());
	attempt->met = gyre__fault_hits(attempt->call) > 0;
	gyre__fault_clear();
	if (attempt->status == GYRE_OK) {
		expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
		gyre_free(rt);
		return;
	}
	expect(rt == untouched);
	/* Without memory there may be no place to note it. */
	if (attempt->status != GYRE_NO_MEMORY)
		expect_eq(gyre_last_status(), attempt->status);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
}

/* A clean failure leaves nothing behind; tells whether the fault was met at all. */
static bool open_under_fault(struct attempt *attempt, enum gyre__fault_call call, unsigned skip,
			     unsigned times, int error)
{
	struct leak *leak = leak_before();
	char report[512];

	test_row("%s, number %u: %s", gyre__fault_name(call), skip, strerror(-error));
	memset(attempt, 0, sizeof(*attempt));
	attempt->options.size = sizeof(attempt->options);
	attempt->options.workers = 3;
	attempt->options.flags = GYRE_PIN_WORKERS;
	attempt->call = call;
	gyre__fault_install();
	gyre__fault_no_sleep();
	gyre__fault_set(call, skip, times, error);
	test_crew_run(1, try_to_open, attempt);
	gyre__fault_remove();
	leak_after(leak, report, sizeof(report));
	expect_str(report, "");
	return attempt->met;
}

/* Without a thread's record there is no text; everything else must name the function. */
static void expect_told(const struct attempt *attempt)
{
	if (attempt->status != GYRE_NO_MEMORY)
		expect_contains(attempt->text, "gyre_open");
	if (attempt->error == EAGAIN)
		expect_contains(attempt->text, "RLIMIT_NPROC");
}

/* Of the calls of one kind that open makes each fails once, until there is none left. */
static void fail_each(enum gyre__fault_call call, int error, enum gyre_status status)
{
	struct attempt attempt;
	unsigned n;

	for (n = 0; open_under_fault(&attempt, call, n, 1, error); n++) {
		if (attempt.status == GYRE_OK)
			continue;	/* it got by without */
		expect_status(attempt.status, status);
		expect_told(&attempt);
		if (status == GYRE_SYSTEM)
			expect_eq(attempt.error, -error);
	}
	expect_gt(n, 0);
}

static void expect_each_to_be_fatal(enum gyre__fault_call call, int error)
{
	struct attempt attempt;
	unsigned n;

	for (n = 0; n < 3; n++) {
		expect(open_under_fault(&attempt, call, n, 1, error));
		expect(attempt.status != GYRE_OK);
	}
}

TEST(open_leaves_nothing_behind_when_the_nth_allocation_fails)
{
	fail_each(GYRE__FAULT_alloc, -ENOMEM, GYRE_NO_MEMORY);
}

TEST(open_leaves_nothing_behind_when_the_nth_mapping_fails)
{
	fail_each(GYRE__FAULT_mmap, -ENOMEM, GYRE_NO_MEMORY);
}

TEST(open_leaves_nothing_behind_when_the_nth_thread_does_not_start)
{
	expect_each_to_be_fatal(GYRE__FAULT_thread_start, -EAGAIN);
	fail_each(GYRE__FAULT_thread_start, -EAGAIN, GYRE_SYSTEM);
}

TEST(open_leaves_nothing_behind_when_the_nth_ring_fails)
{
	expect_each_to_be_fatal(GYRE__FAULT_uring_setup, -EMFILE);
	fail_each(GYRE__FAULT_uring_setup, -EMFILE, GYRE_SYSTEM);
	fail_each(GYRE__FAULT_uring_setup, -EPERM, GYRE_UNSUPPORTED);
	fail_each(GYRE__FAULT_uring_setup, -ENOSYS, GYRE_UNSUPPORTED);
}

TEST(open_leaves_nothing_behind_when_the_nth_descriptor_fails)
{
	fail_each(GYRE__FAULT_eventfd, -EMFILE, GYRE_SYSTEM);
	fail_each(GYRE__FAULT_pipe, -EMFILE, GYRE_SYSTEM);
	fail_each(GYRE__FAULT_eventfd, -ENFILE, GYRE_SYSTEM);
}

TEST(open_leaves_nothing_behind_when_the_nth_registration_fails)
{
	fail_each(GYRE__FAULT_uring_register, -ENOMEM, GYRE_NO_MEMORY);
	fail_each(GYRE__FAULT_uring_register, -EBUSY, GYRE_SYSTEM);
}

TEST(open_leaves_nothing_behind_when_the_nth_small_thing_fails)
{
	fail_each(GYRE__FAULT_madvise, -EBADF, GYRE_SYSTEM);
	fail_each(GYRE__FAULT_thread_pin, -EPERM, GYRE_SYSTEM);
	fail_each(GYRE__FAULT_self_set, -ENOMEM, GYRE_NO_MEMORY);
}

TEST(ring_that_lacks_memory_for_a_moment_is_tried_again)
{
	struct attempt attempt;

	expect(open_under_fault(&attempt, GYRE__FAULT_uring_setup, 1, 3, -ENOMEM));
	expect_status(attempt.status, GYRE_OK);
}

TEST(ring_that_lacks_memory_for_good_is_told_with_the_budget)
{
	struct attempt attempt;

	expect(open_under_fault(&attempt, GYRE__FAULT_uring_setup, 1, GYRE__FAULT_FOREVER,
				-ENOMEM));
	expect_status(attempt.status, GYRE_NO_MEMORY);
	expect_contains(attempt.text, "RLIMIT_MEMLOCK");
}

TEST(flags_that_the_kernel_refuses_are_left_away_one_by_one)
{
	struct attempt attempt;
	unsigned refused;

	for (refused = 1; refused <= 4; refused++) {
		expect(open_under_fault(&attempt, GYRE__FAULT_uring_setup, 0, refused, -EINVAL));
		expect_status(attempt.status, GYRE_OK);
	}
	expect(open_under_fault(&attempt, GYRE__FAULT_uring_setup, 0, GYRE__FAULT_FOREVER,
				-EINVAL));
	expect_status(attempt.status, GYRE_UNSUPPORTED);
}

/* -------------------------------------------------------- real limits -- */

static unsigned open_descriptors(void)
{
	unsigned count = 0;
	int fd;

	for (fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void open_with_few_descriptors(void *arg)
{
	unsigned limit, before = open_descriptors();
	struct gyre_options options = { .size = sizeof(options), .workers = 2 };
	enum gyre_status status = GYRE_SYSTEM;
	struct gyre *rt;

	(void)arg;
	for (limit = 3; limit < 250 && status != GYRE_OK; limit++) {
		test_limit(RLIMIT_NOFILE, limit);
		rt = untouched;
		status = gyre_open(&options, &rt);
		if (status == GYRE_OK) {
			/* The runtime is there; a call needs no descriptor more. */
			test_limit(RLIMIT_NOFILE, 3);
			expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
			test_limit(RLIMIT_NOFILE, 256);
			gyre_free(rt);
			break;
		}
		test_limit(RLIMIT_NOFILE, 256);
		expect(rt == untouched);
		expect_status(status, GYRE_SYSTEM);
		expect_contains(gyre_last_error(), "RLIMIT_NOFILE");
		expect_eq(open_descriptors(), before);
	}
	expect_status(status, GYRE_OK);
}

TEST(too_few_descriptors_are_an_error_that_says_so_and_leaves_none)
{
	test_in_child(open_with_few_descriptors, NULL);
}

static void open_with_little_memlock(void *arg)
{
	static const struct {
		uint64_t limit;
		unsigned entries;
		bool fits;
	} budgets[] = {
		{ 0, 256, false },
		{ 4096, 256, false },
		{ 64 << 10, 4096, false },
		{ 8 << 20, 256, true },
	};
	unsigned i;

	(void)arg;
	for (i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
		struct gyre_options options = { .size = sizeof(options), .workers = 2,
						.ring_entries = budgets[i].entries };
		struct gyre *rt = untouched;
		enum gyre_status status;

		test_row("%llu bytes, %u entries", (unsigned long long)budgets[i].limit,
			 budgets[i].entries);
		test_limit(RLIMIT_MEMLOCK, budgets[i].limit);
		status = gyre_open(&options, &rt);
		if (budgets[i].fits) {
			expect_status(status, GYRE_OK);
			gyre_free(rt);
			continue;
		}
		expect(status == GYRE_NO_MEMORY || status == GYRE_SYSTEM);
		expect(rt == untouched);
		expect_contains(gyre_last_error(), "gyre_open");
		expect_contains(gyre_last_error(), "RLIMIT_MEMLOCK");
	}
}

TEST(too_little_memlock_is_an_error_that_names_the_budget)
{
	struct rlimit limit;

	expect_eq(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
	if (limit.rlim_max < 8 << 20)
		test_skip("RLIMIT_MEMLOCK's hard limit is below 8 MiB here");
	if (geteuid() != 0)
		test_note("not root: this user's other rings count as well");
	test_in_child_as_nobody(open_with_little_memlock, NULL);
}

/* ------------------------------------------------------------ seccomp -- */

static void refuse_io_uring_setup(int error)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 425 /* io_uring_setup, everywhere */, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	expect_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	expect_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
}

static void open_under_seccomp(void *arg)
{
	struct gyre *rt = untouched;
	unsigned i;

	refuse_io_uring_setup(*(int *)arg);
	for (i = 0; i < 3; i++) {
		expect_status(gyre_open(NULL, &rt), GYRE_UNSUPPORTED);
		expect(rt == untouched);
		expect_eq(gyre_last_status(), GYRE_UNSUPPORTED);
		expect_contains(gyre_last_error(), "gyre_open");
		expect_contains(gyre_last_error(), "seccomp");
		expect_contains(gyre_last_error(), "io_uring_setup");
	}
	expect_eq(test_find_thread("gyre-0", NULL), 0);
}

static void expect_seccomp_refusal(int error)
{
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0)
		test_skip("this kernel has no seccomp");
	test_in_child(open_under_seccomp, &error);
}

TEST(seccomp_that_says_eperm_is_told_as_seccomp)
{
	expect_seccomp_refusal(EPERM);
}

TEST(seccomp_that_says_enosys_is_told_as_seccomp)
{
	expect_seccomp_refusal(ENOSYS);
}

TEST(seccomp_that_says_eacces_is_told_as_seccomp)
{
	expect_seccomp_refusal(EACCES);
}

/* ---------------------------------------------------------- descriptors -- */

/* What an exec'ed program would inherit of ours: nothing. */
TEST(every_descriptor_of_a_runtime_closes_on_exec)
{
	bool before[256];
	struct gyre *rt;
	int fd, ours = 0;

	for (fd = 0; fd < 256; fd++)
		before[fd] = fcntl(fd, F_GETFD) >= 0;
	rt = test_open_workers(2);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	for (fd = 0; fd < 256; fd++) {
		int flags = fcntl(fd, F_GETFD);

		if (before[fd] || flags < 0)
			continue;
		test_row("descriptor %d", fd);
		expect(flags & FD_CLOEXEC);
		ours++;
	}
	expect_eq(ours, 2 * 3);	/* three a worker */
	gyre_free(rt);
}

/* A thread's record goes with it, also while the runtime lives on. */
static void call_once(void *arg, unsigned number)
{
	(void)number;
	expect_status(gyre_call(arg, prep_nop, NULL, NULL), GYRE_OK);
}

TEST(threads_that_come_and_go_leave_nothing_behind)
{
	struct gyre *rt = test_open_workers(1);
	unsigned before, allocations, i;

	call_once(rt, 0);
	before = open_descriptors();
	allocations = leak_allocations();
	for (i = 0; i < test_times(50); i++)
		test_crew_run(8, call_once, rt);
	expect_eq(open_descriptors(), before);
	expect_eq(leak_allocations(), allocations);
	expect_eq(test_stat(rt, calls), test_times(50) * 8 + 1);
	gyre_free(rt);
}

TEST_MAIN()
