/* SPDX-License-Identifier: MIT */
#include "failures.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/sys_fault.h"
#include "run.h"

#define JOBS_MAX	16
#define SEEDS		12	/* of each scenario */
#define ERRNOS_MAX	15
#define SITES_MAX	256
#define FIRST		8	/* calls that fail in turn, of an entry that is called more often */
#define AT_RANDOM	3	/* and so many of the others, and the last one */
#define REPORTED_MAX	20
#define PATIENCE	10	/* as some of it goes on for half a minute */
#define INTERRUPT_NS	(50 * SIM_US)
#define ANY_RESOURCE	GYRE__FAULT_CALLS	/* whatever asks for memory, descriptors, threads */
#define ENTRIES		(GYRE__FAULT_CALLS + 1)

enum {
	RESOURCE = 1,		/* asks for one: every single call of it fails in turn */
	PASSED_ON = 2,		/* gyre_pread() and its like make it for their caller */
	NOT_CALLED = 4,		/* nothing in the library does */
	BEYOND_WAKING = 8,	/* see is_beyond_help() */
	BEYOND_PROOF = 16,
};

/* What the man pages say of each, without what only a wrong argument of ours could cause. */
static const struct {
	unsigned flags;
	int errnos[ERRNOS_MAX + 1];
} entries[ENTRIES] = {
	[GYRE__FAULT_uring_setup] = { RESOURCE,
				      { ENOMEM, EAGAIN, EMFILE, ENFILE, EPERM, EACCES, ENOSYS,
					EINVAL, EFAULT } },
	[GYRE__FAULT_uring_enter] = { 0,
				      { EAGAIN, EBUSY, ENOMEM, EINTR, ETIME, EBADF, EBADFD, EBADR,
					EEXIST, EFAULT, EINVAL, ENXIO, EOPNOTSUPP, EOWNERDEAD } },
	[GYRE__FAULT_uring_register] = { 0,
					 { ENOMEM, EAGAIN, EMFILE, EACCES, EBADF, EBADFD, EBUSY,
					   EEXIST, EFAULT, EINVAL, ENXIO, EOPNOTSUPP } },
	[GYRE__FAULT_alloc] = { RESOURCE, { ENOMEM } },
	[GYRE__FAULT_mmap] = { RESOURCE,
			       { ENOMEM, EAGAIN, EACCES, EBADF, EINVAL, ENFILE, ENODEV, EPERM,
				 EOVERFLOW } },
	[GYRE__FAULT_munmap] = { 0, { ENOMEM, EINVAL } },
	[GYRE__FAULT_madvise] = { 0, { ENOMEM, EAGAIN, EACCES, EBADF, EINVAL, EIO, EPERM } },
	[GYRE__FAULT_mprotect] = { NOT_CALLED, { ENOMEM, EACCES, EINVAL } },
	[GYRE__FAULT_mincore] = { 0, { ENOMEM, EAGAIN, EFAULT, EINVAL } },
	[GYRE__FAULT_eventfd] = { RESOURCE, { EMFILE, ENFILE, ENOMEM, ENODEV, EINVAL } },
	[GYRE__FAULT_eventfd_read] = { 0, { EBADF, EIO, EINVAL } },
	[GYRE__FAULT_eventfd_write] = { BEYOND_WAKING, { EAGAIN, EBADF, EIO, EINVAL } },
	[GYRE__FAULT_pipe] = { RESOURCE, { EMFILE, ENFILE, ENOMEM } },
	[GYRE__FAULT_close] = { PASSED_ON, { EBADF, EINTR, EIO, ENOSPC, EDQUOT } },
	[GYRE__FAULT_fstat] = { PASSED_ON, { EBADF, ENOMEM, EOVERFLOW, EIO } },
	[GYRE__FAULT_fd_flags] = { PASSED_ON, { EBADF } },
	[GYRE__FAULT_futex_wait] = { 0, { EINTR, EAGAIN, EINVAL, ENOSYS } },
	[GYRE__FAULT_futex_wake] = { BEYOND_WAKING, { EINVAL, EFAULT, ENOSYS } },
	[GYRE__FAULT_read] = { PASSED_ON | BEYOND_PROOF,
			       { EINTR, EIO, EBADF, EISDIR, EINVAL, EFAULT, ENXIO } },
	[GYRE__FAULT_write] = { PASSED_ON,
				{ EINTR, EIO, EBADF, EPIPE, ENOSPC, EDQUOT, EFBIG, EPERM, EINVAL,
				  EFAULT, EAGAIN } },
	[GYRE__FAULT_pread] = { PASSED_ON,
				{ EINTR, EIO, EBADF, EISDIR, ESPIPE, EINVAL, EFAULT, EOVERFLOW,
				  ENXIO } },
	[GYRE__FAULT_pwrite] = { PASSED_ON,
				 { EINTR, EIO, EBADF, ESPIPE, ENOSPC, EDQUOT, EFBIG, EPERM, EINVAL,
				   EFAULT } },
	[GYRE__FAULT_preadv2] = { PASSED_ON,
				  { EINTR, EAGAIN, EIO, EBADF, EISDIR, ESPIPE, EINVAL, EFAULT,
				    EOPNOTSUPP } },
	[GYRE__FAULT_pwritev2] = { PASSED_ON,
				   { EINTR, EAGAIN, EIO, EBADF, EPIPE, ESPIPE, ENOSPC, EDQUOT,
				     EFBIG, EPERM, EINVAL, EFAULT, EOPNOTSUPP } },
	[GYRE__FAULT_poll] = { PASSED_ON, { EINTR, ENOMEM, EINVAL, EFAULT } },
	[GYRE__FAULT_fsync] = { PASSED_ON, { EINTR, EIO, EBADF, EINVAL, EROFS, ENOSPC, EDQUOT } },
	[GYRE__FAULT_fdatasync] = { PASSED_ON,
				    { EINTR, EIO, EBADF, EINVAL, EROFS, ENOSPC, EDQUOT } },
	[GYRE__FAULT_openat] = { PASSED_ON,
				 { EINTR, EMFILE, ENFILE, ENOMEM, EACCES, ENOENT, ENOTDIR, EISDIR,
				   ELOOP, ENAMETOOLONG, ENOSPC, EROFS, ENXIO, EPERM, EBADF } },
	[GYRE__FAULT_statx] = { PASSED_ON,
				{ ENOMEM, EACCES, ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, EBADF,
				  EINVAL, EFAULT } },
	[GYRE__FAULT_fallocate] = { PASSED_ON,
				    { EINTR, EIO, ENOSPC, EFBIG, EOPNOTSUPP, ENODEV, ESPIPE, EPERM,
				      EINVAL, EBADF, ETXTBSY } },
	[GYRE__FAULT_thread_start] = { RESOURCE, { EAGAIN, EPERM, EINVAL } },
	[GYRE__FAULT_thread_pin] = { 0, { EINVAL, EPERM, ESRCH, EFAULT } },
	[GYRE__FAULT_self_set] = { RESOURCE, { ENOMEM, EAGAIN } },
	[GYRE__FAULT_at_fork] = { RESOURCE, { ENOMEM } },
	[ANY_RESOURCE] = { RESOURCE, { ENOMEM } },
};

/* What is to fail; the nth such call of the run, counted from 1. 0: none, it is only counted. */
struct failure {
	unsigned entry, error_index;
	unsigned nth;
	bool ever;
};

struct site {
	unsigned entry;
	uintptr_t place;		/* that the call returns to */
	uint64_t calls, undisturbed, failed;	/* undisturbed: in runs without a failure */
};

/* A job's own; all jobs see it. */
struct job {
	/* What runs now. */
	const struct sim_scenario *scenario;
	struct sim_scenario wrapped;
	uint64_t seed;
	struct failure failure;
	unsigned counts[ENTRIES], met;
	/* Summed up. */
	uint64_t runs, beyond_help, hits[ENTRIES][ERRNOS_MAX];
	struct site sites[SITES_MAX];
	unsigned site_count, reported;
	bool failed;
};

struct board {
	_Atomic unsigned next;
	struct job jobs[JOBS_MAX];
};

/* Set before the first run, and so never set back; see main.c. */
static struct board *board;
static struct job *job;
static const struct sim_failures_args *args;

/* ----------------------------------------------------------- the failure -- */

static bool is_resource(unsigned entry)
{
	return entries[entry].flags & RESOURCE;
}

static int failing_errno(const struct failure *failure)
{
	return entries[failure->entry].errnos[failure->error_index];
}

/* An enter that says so has ended its ring. */
static bool is_fatal(unsigned entry, int error)
{
	switch (error) {
	case EAGAIN:
	case EBUSY:
	case ENOMEM:
	case EINTR:
	case ETIME:
		return false;
	default:
		return entry == GYRE__FAULT_uring_enter;
	}
}

static void note_site(unsigned entry, uintptr_t place, bool failed)
{
	unsigned i;

	for (i = 0; i < job->site_count; i++)
		if (job->sites[i].place == place && job->sites[i].entry == entry)
			break;
	if (i == SITES_MAX)
		abort();
	if (i == job->site_count)
		job->sites[job->site_count++] = (struct site){ .entry = entry, .place = place };
	job->sites[i].calls++;
	job->sites[i].undisturbed += !job->failure.nth;
	job->sites[i].failed += failed;
}

/* What has to be forgiven, as the kernel that is simulated knows nothing of it. */
static void excuse(enum gyre__fault_call call, int fd, int error)
{
	sim_excuse_fault();
	if (error == EINTR || error == ETIME ||
	    (call == GYRE__FAULT_futex_wait && error == EAGAIN)) {
		sim_pass_ns(INTERRUPT_NS);	/* so many a second there are, and no more */
		sim_relax("interrupted");
	}
	if (call == GYRE__FAULT_uring_enter && (is_fatal(call, error) || job->failure.ever))
		sim_excuse_every_death();
	if (is_fatal(call, error))
		sim_uring_break(fd);
	if (call == GYRE__FAULT_munmap)
		sim_excuse_mapping();
	/* Neither of what could not be emptied nor of what is said to be no more. */
	if (call == GYRE__FAULT_eventfd_read ||
	    (call == GYRE__FAULT_eventfd_write && error == EBADF))
		sim_excuse_descriptor(fd);
}

static bool is_due(unsigned entry)
{
	const struct failure *failure = &job->failure;

	job->counts[entry]++;
	return failure->nth && failure->entry == entry &&
	       (job->counts[entry] == failure->nth ||
		(failure->ever && job->counts[entry] > failure->nth));
}

static int maybe_fail(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	const void *caller = sim_zalloc_caller;
	bool due = is_due(call);
	int error = due || (is_resource(call) && is_due(ANY_RESOURCE)) ? 0 : -1;

	(void)arg;
	sim_zalloc_caller = NULL;
	if (call == GYRE__FAULT_alloc && caller)
		site = caller;
	note_site(call, (uintptr_t)site, error == 0);
	if (error)
		return 0;
	if (is_resource(call) && !due)
		error = entries[call].errnos[0];
	else
		error = failing_errno(&job->failure);
	job->met++;
	job->hits[job->failure.entry][job->failure.error_index]++;
	sim_trace("%s number %u is made to fail: %s", gyre__fault_name(call), job->counts[call],
		  strerrorname_np(error));
	excuse(call, fd, error);
	return -error;
}

unsigned sim_failures_met(void)
{
	return job ? job->met : 0;
}

bool sim_failures_run(void)
{
	return job && job->failure.nth;
}

bool sim_failures_over(void)
{
	return job && job->met && !job->failure.ever;
}

bool sim_failures_of(unsigned call)
{
	return job && job->failure.nth && job->failure.entry == call;
}

int sim_failures_passed_on(void)
{
	return job && job->failure.nth && (entries[job->failure.entry].flags & PASSED_ON) ?
	       -failing_errno(&job->failure) : 0;
}

/* ----------------------------------------------------------------- a run -- */

/* Whatever has failed, the library's statics are sound: another runtime opens, works, closes. */
static void try_again(void)
{
	struct sim_call call;
	struct gyre *rt;

	sim_faults.ebadr = sim_faults.fatal = 0;
	if (!sim_open(1, 0, &rt))
		sim_fail("after a failure that is over, no runtime opens: %s", gyre_last_error());
	sim_call_init(&call, IORING_OP_NOP, -1, NULL, 0, 0);
	if (sim_call_one(rt, &call) != GYRE_OK)
		sim_fail("after a failure that is over, no call works: %s", gyre_last_error());
	sim_close_runtime(rt);
	gyre_free(rt);
}

static void run_scenario(void *arg)
{
	unsigned call;

	sim_faults.fail_at = 0;		/* one failure at a time */
	if (job->failure.entry == GYRE__FAULT_uring_enter)
		sim_allow_steps(PATIENCE);
	gyre__fault_install();
	for (call = 0; call < GYRE__FAULT_CALLS; call++)
		gyre__fault_hook((enum gyre__fault_call)call, maybe_fail, NULL);
	job->scenario->run(arg);
	gyre__fault_clear();
	if (job->met)
		try_again();
}

/*
 * What nobody can live with for ever. The library then does what it can, which
 * ARCHITECTURE.md says, and somebody waits or tries again.
 */
static bool is_beyond_help(const struct failure *failure, const struct sim_outcome *outcome)
{
	unsigned flags = entries[failure->entry].flags;
	int error = failing_errno(failure);

	if (!outcome->stuck)
		return false;
	/*
	 * An eventfd that the host has closed is gone; trying again might write a stranger's file.
	 */
	if (flags & BEYOND_WAKING)
		return failure->ever || error == EBADF;
	if ((flags & PASSED_ON) && (error == EINTR || error == EAGAIN))
		return failure->ever;
	return (flags & BEYOND_PROOF) && failure->ever;
}

static void describe(char *text, size_t size)
{
	const struct failure *failure = &job->failure;

	snprintf(text, size, "%s:%s:%u:%s",
		 failure->entry == ANY_RESOURCE ? "any" :
		 gyre__fault_name((enum gyre__fault_call)failure->entry),
		 strerrorname_np(failing_errno(failure)), failure->nth,
		 failure->ever ? "ever" : "once");
}

static void report_run(const char *reason)
{
	char text[64];

	job->failed = true;
	if (job->reported++ >= REPORTED_MAX)
		return;
	describe(text, sizeof(text));
	printf("FAILED: scenario %s, seed %" PRIu64 ", %s: %s\n"
	       "again, with a trace: gyre-sim --scenario %s --replay %" PRIu64 " --failure %s\n",
	       job->scenario->name, job->seed, text, reason, job->scenario->name, job->seed, text);
	fflush(stdout);
}

static void run(const struct failure *failure, bool verbose)
{
	const struct sim_setup setup = { .seed = job->seed, .verbose = verbose };
	struct sim_outcome outcome;

	job->wrapped = (struct sim_scenario){ job->scenario->name, "", run_scenario,
					      job->scenario->deadly };
	job->failure = *failure;
	job->met = 0;
	memset(job->counts, 0, sizeof(job->counts));
	job->runs++;
	sim_run_scenario(&job->wrapped, &setup, &outcome);
	if (!outcome.failed)
		return;
	if (is_beyond_help(failure, &outcome))
		job->beyond_help++;
	else
		report_run(outcome.reason);
}

/* --------------------------------------------------------------- the loops -- */

static void run_both(struct failure failure)
{
	failure.ever = false;
	run(&failure, false);
	failure.ever = true;
	run(&failure, false);
}

static void loop_over_errno(unsigned entry, unsigned error_index, unsigned count)
{
	struct failure failure = { .entry = entry, .error_index = error_index };
	uint64_t random = job->seed * 31 + entry * 7 + error_index;
	unsigned i;

	for (i = 1; i <= count && (is_resource(entry) || i <= FIRST); i++) {
		failure.nth = i;
		run_both(failure);
	}
	if (i > count)
		return;
	failure.nth = count;
	run_both(failure);
	for (i = 0; i < AT_RANDOM; i++) {
		random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
		failure.nth = FIRST + 1 + (unsigned)((random >> 33) % (count - FIRST));
		run_both(failure);
	}
}

static void loop_over_entries(void)
{
	static const struct failure none;
	unsigned counts[ENTRIES], entry, i;

	run(&none, false);
	memcpy(counts, job->counts, sizeof(counts));
	for (entry = 0; entry < ENTRIES; entry++)
		for (i = 0; counts[entry] && entries[entry].errnos[i]; i++)
			loop_over_errno(entry, i, counts[entry]);
}

static void run_job(void)
{
	unsigned unit;

	while ((unit = board->next++) < args->count * SEEDS) {
		job->scenario = &args->scenarios[unit % args->count];
		job->seed = 1 + unit / args->count;
		if (!args->only || args->only == job->scenario)
			loop_over_entries();
	}
	fflush(stdout);
	_exit(job->failed);
}

/* ---------------------------------------------------------------- the sum -- */

static void print_sites(void)
{
	extern char __executable_start[];
	unsigned i, j;

	for (i = 0; i < args->jobs; i++)
		for (j = 0; j < board->jobs[i].site_count; j++) {
			const struct site *site = &board->jobs[i].sites[j];

			printf("site %s %#" PRIxPTR " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
			       gyre__fault_name((enum gyre__fault_call)site->entry),
			       site->place - 1 - (uintptr_t)__executable_start, site->calls,
			       site->undisturbed, site->failed);
		}
}

/* Every pair of entry and errno has come up, and what nobody calls was not called. */
static bool check_pairs(unsigned *ret_pairs)
{
	unsigned entry, i, k;
	bool good = true;	/* one scenario alone need not reach all */

	*ret_pairs = 0;
	for (entry = 0; entry < ENTRIES; entry++)
		for (i = 0; entries[entry].errnos[i]; i++) {
			uint64_t hits = 0;

			for (k = 0; k < args->jobs; k++)
				hits += board->jobs[k].hits[entry][i];
			*ret_pairs += hits > 0;
			if (!hits == !!(entries[entry].flags & NOT_CALLED) || (!hits && args->only))
				continue;
			good = false;
			printf("FAILED: %s: %s %s\n",
			       gyre__fault_name((enum gyre__fault_call)entry),
			       strerrorname_np(entries[entry].errnos[i]), hits ?
			       "was met, and nothing in the library is known to call it" :
			       "was never met: no scenario gets there");
		}
	return good;
}

static int sum_up(void)
{
	uint64_t runs = 0, beyond_help = 0;
	bool good = true;
	unsigned i, pairs;

	for (i = 0; i < args->jobs; i++) {
		runs += board->jobs[i].runs;
		beyond_help += board->jobs[i].beyond_help;
		good &= !board->jobs[i].failed;
	}
	good &= check_pairs(&pairs);
	if (args->sites)
		print_sites();
	printf("%u pairs of call and errno, %" PRIu64 " runs, of which %" PRIu64 " ended in what "
	       "nobody can live with for ever\n%s\n",
	       pairs, runs, beyond_help, good ? "ok" : "FAILED");
	return good ? 0 : 1;
}

static void run_jobs(void)
{
	pid_t pids[JOBS_MAX];
	int status;
	unsigned i;

	fflush(stdout);
	for (i = 0; i < args->jobs; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			job = &board->jobs[i];
			run_job();
		}
		if (pids[i] < 0) {
			perror("gyre-sim: fork");
			exit(2);
		}
	}
	for (i = 0; i < args->jobs; i++) {
		job = &board->jobs[i];
		if (waitpid(pids[i], &status, 0) == pids[i] && WIFSIGNALED(status))
			report_run(strsignal(WTERMSIG(status)));
	}
}

static bool parse_failure(const char *text, struct failure *ret)
{
	char entry[32], error[32], times[8];
	unsigned i;

	if (sscanf(text, "%31[^:]:%31[^:]:%u:%7s", entry, error, &ret->nth, times) != 4)
		return false;
	ret->ever = strcmp(times, "ever") == 0;
	for (ret->entry = 0; ret->entry < GYRE__FAULT_CALLS; ret->entry++)
		if (strcmp(entry, gyre__fault_name((enum gyre__fault_call)ret->entry)) == 0)
			break;
	for (i = 0; entries[ret->entry].errnos[i]; i++)
		if (strcmp(error, strerrorname_np(entries[ret->entry].errnos[i])) == 0) {
			ret->error_index = i;
			return true;
		}
	return false;
}

static int replay_one(void)
{
	struct failure failure;

	if (!args->only || !parse_failure(args->single, &failure)) {
		fprintf(stderr, "gyre-sim: --failure CALL:ERRNO:NTH:once|ever goes with --replay "
				"and --scenario\n");
		return 2;
	}
	job = &board->jobs[0];
	job->scenario = args->only;
	job->seed = args->replay;
	run(&failure, true);
	return job->failed;
}

int sim_failures_main(const struct sim_failures_args *with)
{
	args = with;
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (board == MAP_FAILED || args->jobs > JOBS_MAX) {
		fprintf(stderr, "gyre-sim: no memory, or too many jobs\n");
		return 2;
	}
	if (args->single)
		return replay_one();
	run_jobs();
	return sum_up();
}
