/* SPDX-License-Identifier: MIT */
/*
 * gyre-sim: runs scenarios on simulated machines, one seed after another, and
 * stops at the first that breaks a promise. A seed says everything: the same
 * one does the same again, with a trace if wanted.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring/atomic.h"
#include "scenario.h"

#define JOBS_MAX	64
#define TWICE_EVERY	1000	/* one seed in so many runs twice: the same must come of it */
#define CHUNK		64	/* seeds that a job takes at once */

static const struct sim_scenario scenario_table[] = {
	{ "nops", "three callers, plain calls", scenario_nops, false },
	{ "calls", "three callers, time-outs, cancels, files and pipes", scenario_calls, false },
	{ "chains", "batches with chains, time-outs, cancels", scenario_chains, false },
	{ "cut-chains", "chains that a submission cuts in two", scenario_cut_chains, false },
	{ "close-race", "two closers while three call", scenario_close_race, false },
	{ "cancel-only", "reads that nothing but a cancel can end", scenario_cancel_only, false },
	{ "free", "gyre_free while callers are inside", scenario_free, false },
	{ "death", "two workers, of which one dies", scenario_death, true },
	{ "close-fd", "gyre_close_fd against reads, the number used again", scenario_close_fd, false },
	{ "leave", "GYRE_OP_LEAVE with buffers that go round", scenario_leave, false },
	{ "sync", "writes and flushes, and power cuts", scenario_sync, false },
	{ "sync-death", "the same with two workers, of which one dies", scenario_sync_death, true },
};

#define SCENARIOS (sizeof(scenario_table) / sizeof(scenario_table[0]))

/* Shared by all jobs. */
struct board {
	_Atomic uint64_t next, done, steps;
	_Atomic int stop;
	struct job {
		uint64_t seed;		/* what it is at */
		bool failed;
		char reason[512];
		uint64_t reached[SIM_REACHED_COUNT];
	} jobs[JOBS_MAX];
};

static struct {
	uint64_t from, to;
	const struct sim_scenario *only;
	unsigned jobs;
	bool replay;
} args = { .from = 1, .to = 20000, .jobs = 1 };

static struct board *board;

unsigned gyre__sim_plant;	/* see ring/atomic.h */

/* The linker's: all that this program keeps in statics, the library's included. */
extern char __data_start[], _end[];
static char *statics_at_first;

/*
 * Every seed starts in a process that has just been started, as far as it can
 * tell: whatever the library or this program keeps in statics is set back.
 */
static void set_back_statics(void)
{
	size_t len = (size_t)(_end - __data_start);
	char *copy;

	if (!statics_at_first) {
		sim_prepare();
		sim_kernel_prepare();
		copy = malloc(len);
		if (!copy)
			abort();
		statics_at_first = copy;
		memcpy(copy, __data_start, len);
	}
	memcpy(__data_start, statics_at_first, len);
}

/* A scenario for each seed, in turn, unless one was asked for. */
static const struct sim_scenario *scenario_for(uint64_t seed)
{
	return args.only ? args.only : &scenario_table[seed % SCENARIOS];
}

static void seed_main(void *arg)
{
	const struct sim_scenario *scenario = arg;

	sim_kernel_begin(scenario->deadly);
	scenario->run(NULL);
}

static void run_seed(uint64_t seed, bool verbose, struct sim_outcome *ret)
{
	static const struct sim_events events = { sim_uring_next_ns, sim_uring_run };
	const struct sim_scenario *scenario = scenario_for(seed);

	set_back_statics();
	sim_oracle_begin();
	sim_run(seed, verbose, &events, seed_main, (void *)(uintptr_t)scenario, sim_oracle_end, ret);
}

static void fail_job(struct job *job, const char *reason)
{
	snprintf(job->reason, sizeof(job->reason), "%s", reason);
	job->failed = true;
	board->stop = 1;
}

static void run_checked(struct job *job, uint64_t seed)
{
	struct sim_outcome outcome, again;

	job->seed = seed;
	run_seed(seed, false, &outcome);
	board->done++;
	board->steps += outcome.steps;
	if (!outcome.failed && seed % TWICE_EVERY == 0) {
		run_seed(seed, false, &again);
		if (again.hash != outcome.hash)
			fail_job(job, "the same seed took another course: something is not simulated");
	}
	if (outcome.failed)
		fail_job(job, outcome.reason);
}

/* In a process of its own, so that a crash names its seed, too. */
static void run_job(struct job *job)
{
	uint64_t seed, end;

	sim_reached = job->reached;
	while (!board->stop) {
		seed = atomic_fetch_add(&board->next, CHUNK);
		end = seed + CHUNK;
		if (seed > args.to)
			break;
		for (; seed < end && seed <= args.to && !board->stop; seed++)
			run_checked(job, seed);
	}
	_exit(job->failed);
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void print_progress(double start_s, bool final)
{
	double s = now_s() - start_s;
	uint64_t done = board->done;

	fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " seeds, %.0f a second, %.1f million steps a second  %s",
		done, args.to - args.from + 1, (double)done / s, (double)board->steps / s / 1e6,
		final ? "\n" : "");
}

static void note_end(pid_t pid, int status, const pid_t *pids)
{
	unsigned i;

	for (i = 0; i < args.jobs; i++)
		if (pids[i] == pid && WIFSIGNALED(status)) {
			char reason[64];

			snprintf(reason, sizeof(reason), "crashed with signal %d", WTERMSIG(status));
			fail_job(&board->jobs[i], reason);
		}
}

static void run_jobs(void)
{
	pid_t pids[JOBS_MAX], pid;
	double start_s = now_s();
	unsigned left = args.jobs, i;
	int status;

	for (i = 0; i < args.jobs; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			run_job(&board->jobs[i]);
		if (pids[i] < 0) {
			perror("gyre-sim: fork");
			exit(2);
		}
	}
	while (left > 0) {
		pid = waitpid(-1, &status, WNOHANG);
		if (pid > 0) {
			note_end(pid, status, pids);
			left--;
			continue;
		}
		usleep(100 * 1000);
		if (isatty(2))
			print_progress(start_s, false);
	}
	print_progress(start_s, true);
}

static int report(void)
{
	const struct job *worst = NULL;
	unsigned i, j;

	printf("reached:");
	for (j = 0; j < SIM_REACHED_COUNT; j++) {
		uint64_t sum = 0;

		for (i = 0; i < args.jobs; i++)
			sum += board->jobs[i].reached[j];
		printf("%s%10" PRIu64 "  %-24s", j % 3 == 0 ? "\n" : "", sum, sim_reached_names[j]);
	}
	printf("\n");
	for (i = 0; i < args.jobs; i++)
		if (board->jobs[i].failed && (!worst || board->jobs[i].seed < worst->seed))
			worst = &board->jobs[i];
	if (!worst) {
		printf("ok: %" PRIu64 " seeds\n", (uint64_t)board->done);
		return 0;
	}
	printf("FAILED: seed %" PRIu64 ", scenario %s: %s\n"
	       "again, with a trace: gyre-sim --scenario %s --replay %" PRIu64 "\n",
	       worst->seed, scenario_for(worst->seed)->name, worst->reason,
	       scenario_for(worst->seed)->name, worst->seed);
	return 1;
}

static int replay(void)
{
	struct sim_outcome outcome;

	printf("seed %" PRIu64 ", scenario %s\n", args.from, scenario_for(args.from)->name);
	run_seed(args.from, true, &outcome);
	printf("%s; %" PRIu64 " steps, hash %016" PRIx64 "\n",
	       outcome.failed ? outcome.reason : "ok", outcome.steps, outcome.hash);
	return outcome.failed;
}

static int usage(void)
{
	fprintf(stderr, "usage: gyre-sim [--seeds N | FROM..TO] [--scenario NAME] [--jobs N]\n"
		"       gyre-sim --replay SEED [--scenario NAME]\n"
		"       gyre-sim --list\n");
	return 2;
}

static int list(void)
{
	size_t i;

	for (i = 0; i < SCENARIOS; i++)
		printf("%-12s %s\n", scenario_table[i].name, scenario_table[i].what);
	return 0;
}

static bool parse_seeds(const char *text)
{
	char *end;

	args.from = 1;
	args.to = strtoull(text, &end, 0);
	if (strncmp(end, "..", 2) == 0) {
		args.from = args.to;
		args.to = strtoull(end + 2, &end, 0);
	}
	return *end == '\0' && end != text && args.from <= args.to;
}

static bool parse_scenario(const char *name)
{
	size_t i;

	for (i = 0; i < SCENARIOS; i++)
		if (strcmp(scenario_table[i].name, name) == 0)
			args.only = &scenario_table[i];
	return args.only;
}

static bool parse_option(int option)
{
	switch (option) {
	case 's':
		return parse_seeds(optarg);
	case 'n':
		return parse_scenario(optarg);
	case 'r':
		args.replay = true;
		return parse_seeds(optarg) && (args.from = args.to);
	case 'j':
		args.jobs = (unsigned)strtoul(optarg, NULL, 0);
		return args.jobs >= 1 && args.jobs <= JOBS_MAX;
	default:
		return false;
	}
}

/* What the user's environment says must not be part of a seed. */
static void forget_environment(void)
{
	static const char *const names[] = {
		"GYRE_WORKERS", "GYRE_RING_ENTRIES", "GYRE_INFLIGHT_MAX", "GYRE_SPIN_NS", "GYRE_MODE",
		"GYRE_STACK_SIZE", "GYRE_ARENA_MAX", "GYRE_POOL_SIZE", "GYRE_OFFLOAD_THREADS",
		"GYRE_ROUTE",
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seeds", required_argument, NULL, 's' }, { "scenario", required_argument, NULL, 'n' },
		{ "replay", required_argument, NULL, 'r' }, { "jobs", required_argument, NULL, 'j' },
		{ "list", no_argument, NULL, 'l' }, { NULL, 0, NULL, 0 },
	};
	const char *plant = getenv("GYRE_PLANT");
	int option;

	gyre__sim_plant = plant ? (unsigned)strtoul(plant, NULL, 0) : 0;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'l')
			return list();
		if (!parse_option(option))
			return usage();
	}
	if (optind != argc)
		return usage();
	forget_environment();
	if (args.replay)
		return replay();
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED) {
		perror("gyre-sim: mmap");
		return 2;
	}
	board->next = args.from;
	run_jobs();
	return report();
}
