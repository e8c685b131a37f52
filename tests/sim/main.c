/* SPDX-License-Identifier: MIT */
/*
 * gyre-sim: runs scenarios on simulated machines, one seed after another, and
 * stops at the first that breaks a promise. Scenario, size, kind of memory and
 * seed say everything: the same four do the same again, with a trace if wanted.
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

#include "coverage.h"
#include "ring/atomic.h"
#include "failures.h"
#include "run.h"
#include "statics.h"

#define JOBS_MAX	64
#define TWICE_EVERY	1000	/* one seed in so many runs twice: the same must come of it */
#define TWICE_LARGE	100
#define CHUNK		64	/* seeds that a job takes at once */

static const struct sim_scenario scenario_table[] = {
	{ "nops", "three callers, plain calls", scenario_nops, false },
	{ "calls", "three callers, time-outs, cancels, files and pipes", scenario_calls, false },
	{ "chains", "batches with chains, time-outs, cancels", scenario_chains, false },
	{ "cut-chains", "chains that a submission cuts in two", scenario_cut_chains, false },
	{ "close-race", "two closers while three call", scenario_close_race, false },
	{ "cancel-only", "reads that nothing but a cancel can end", scenario_cancel_only, false },
	{ "cancel-death", "the same while a worker dies", scenario_cancel_death, true },
	{ "on-time", "time-outs where nothing else delays", scenario_on_time, false },
	{ "crowd", "more cancels at once than the library has slots for", scenario_crowd, false },
	{ "free", "gyre_free while callers are inside", scenario_free, false },
	{ "death", "two workers, of which one dies", scenario_death, true },
	{ "close-fd", "gyre_close_fd against reads, the number used again", scenario_close_fd,
	  false },
	{ "leave", "GYRE_OP_LEAVE with buffers that go round", scenario_leave, false },
	{ "sync", "writes and flushes, and power cuts", scenario_sync, false },
	{ "sync-death", "the same with two workers, of which one dies", scenario_sync_death, true },
	{ "durable", "durable writes and shared flushes that fail, and power cuts",
	  scenario_durable, false },
	{ "durable-death", "the same with two workers, of which one dies", scenario_durable_death,
	  true },
	{ "streams", "multishot reads, polls and accepts, taken from and closed at any time",
	  scenario_streams, false },
	{ "streams-death", "the same while their worker dies", scenario_streams_death, true },
	{ "jobs", "jobs and their tasks, from threads and from each other", scenario_jobs, false },
	{ "jobs-close", "the same against a close that does not wait for them", scenario_jobs_close,
	  false },
	{ "jobs-death", "the same while a worker dies", scenario_jobs_death, true },
	{ "jobs-apart", "jobs of two runtimes that call each other's workers", scenario_jobs_apart,
	  false },
	{ "jobs-cancel", "jobs that nothing but a cancel can end", scenario_jobs_cancel, false },
	{ "jobs-stubborn", "tasks that go on when they are cancelled", scenario_jobs_stubborn,
	  false },
	{ "jobs-visit", "gyre_free while a task is inside another runtime, of either",
	  scenario_jobs_visit, false },
	{ "waiters", "several that wait for one job, in threads and in tasks", scenario_waiters,
	  false },
	{ "circles", "tasks that wait for each other however they like", scenario_circles, false },
	{ "circles-close", "the same, and they close and free runtimes",
	  scenario_circles_close, false },
	{ "states", "jobs that run on states, of their own or their worker's", scenario_states,
	  false },
	{ "states-close", "the same against a close", scenario_states_close, false },
	{ "states-death", "the same while a worker dies", scenario_states_death, true },
	{ "pool", "jobs that run on states of keys, of which there are too many", scenario_pool,
	  false },
	{ "pool-close", "the same against a close", scenario_pool_close, false },
	{ "pool-death", "the same while a worker dies", scenario_pool_death, true },
	{ "program", "one thread that calls each function of the library", scenario_program,
	  false },
	{ "program-task", "a task that calls what only tasks can", scenario_program_task, false },
	{ "helpers", "few helpers, asked by those for whom they wait", scenario_helpers, false },
	{ "helpers-reserve", "those for the library's own calls, where all others are busy",
	  scenario_helpers_reserve, false },
	{ "offload", "threads that push work to helpers, and others that close the pool",
	  scenario_offload, false },
};

#define SCENARIOS (sizeof(scenario_table) / sizeof(scenario_table[0]))

/* Shared by all jobs. */
struct board {
	_Atomic uint64_t next, done, steps, twice;
	_Atomic int stop;
	struct job {
		uint64_t seed;		/* what it is at */
		bool failed;
		char reason[512];
		struct sim_coverage coverage;
	} jobs[JOBS_MAX];
};

static struct {
	uint64_t from, to, large_to;
	uint64_t required;
	const struct sim_scenario *only;
	enum sim_memory memory;
	unsigned jobs, verbose;
	bool large, replay, shrink;
	bool failures, sites;
	const char *script, *output, *failure;
} args = { .from = 1, .to = 20000, .jobs = 1 };

static struct board *board;
static struct sim_coverage covered;	/* by all boards */

#ifdef GYRE_SIM_PLANTED
unsigned gyre__sim_plant;	/* see plants/README.txt */
#endif

/*
 * A scenario for each seed, in turn, unless one was asked for. One of them has
 * three turns of each round, as what it reaches is rare elsewhere.
 */
static const struct sim_scenario *scenario_for(uint64_t seed)
{
	size_t nth = seed % (SCENARIOS + 2);

	if (args.only)
		return args.only;
	if (nth >= SCENARIOS)
		for (nth = 0; scenario_table[nth].run != scenario_leave; nth++)
			;
	return &scenario_table[nth];
}

const char *const sim_memory_names[] = {
	[SIM_MEMORY_BY_SEED] = "by-seed", [SIM_SC] = "sc", [SIM_TSO] = "tso", [SIM_PSO] = "pso",
};

static struct sim_setup setup_for(uint64_t seed)
{
	return (struct sim_setup){ .seed = seed, .memory = args.memory, .large = args.large };
}

static void seed_main(void *arg)
{
	const struct sim_scenario *scenario = arg;

	sim_kernel_begin(scenario->deadly);
	scenario->run(NULL);
}

void sim_run_scenario(const struct sim_scenario *scenario, const struct sim_setup *setup,
		      struct sim_outcome *ret)
{
	static const struct sim_events events = { sim_uring_next_ns, sim_uring_run };

	sim_statics_back();
	sim_oracle_begin();
	sim_run(setup, &events, seed_main, (void *)(uintptr_t)scenario, sim_oracle_end, ret);
}

static void fail_job(struct job *job, const char *reason)
{
	snprintf(job->reason, sizeof(job->reason), "%s", reason);
	job->failed = true;
	board->stop = 1;
}

static void run_checked(struct job *job, uint64_t seed)
{
	struct sim_setup setup = setup_for(seed);
	struct sim_outcome outcome, again;

	job->seed = seed;
	sim_run_scenario(scenario_for(seed), &setup, &outcome);
	board->done++;
	board->steps += outcome.steps;
	if (!outcome.failed && seed % (setup.large ? TWICE_LARGE : TWICE_EVERY) == 0) {
		sim_run_scenario(scenario_for(seed), &setup, &again);
		board->twice++;
		if (again.hash != outcome.hash)
			fail_job(job, "the same seed took another course: something is not "
				      "simulated");
	}
	if (outcome.failed)
		fail_job(job, outcome.reason);
}

/* In a process of its own, so that a crash names its seed, too. */
static void run_job(struct job *job)
{
	uint64_t seed, end;

	sim_coverage = &job->coverage;
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

	fprintf(stderr,
		"%s%" PRIu64 " of %" PRIu64 " %s seeds, %.0f a second, %.1f million steps a "
		"second, %.0f s%s",
		final && !isatty(2) ? "" : "\r", done, args.to - args.from + 1,
		args.large ? "large" : "small", (double)done / s, (double)board->steps / s / 1e6, s,
		final ? "\n" : "  ");
}

static void note_end(pid_t pid, int status, const pid_t *pids)
{
	unsigned i;

	for (i = 0; i < args.jobs; i++)
		if (pids[i] == pid && WIFSIGNALED(status)) {
			char reason[64];

			snprintf(reason, sizeof(reason), "crashed with signal %d",
				 WTERMSIG(status));
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

static const struct job *worst_job(void)
{
	const struct job *worst = NULL;
	unsigned i;

	for (i = 0; i < args.jobs; i++)
		if (board->jobs[i].failed && (!worst || board->jobs[i].seed < worst->seed))
			worst = &board->jobs[i];
	return worst;
}

/* What it takes to meet the seed again: nothing that depends on the table of scenarios. */
static void print_how(const char *mode, uint64_t seed)
{
	printf("gyre-sim --scenario %s%s", scenario_for(seed)->name,
	       args.large ? " --size large" : "");
	if (args.memory != SIM_MEMORY_BY_SEED)
		printf(" --memory %s", sim_memory_names[args.memory]);
	printf(" --%s %" PRIu64 "\n", mode, seed);
}

/* All seeds of one size. */
static bool run_seeds(void)
{
	const struct job *worst;
	unsigned i;

	memset(board, 0, sizeof(*board));
	board->next = args.from;
	run_jobs();
	for (i = 0; i < args.jobs; i++)
		sim_coverage_add(&covered, &board->jobs[i].coverage);
	worst = worst_job();
	if (!worst) {
		printf("ok: %" PRIu64 " %s seeds, %" PRIu64 " of them twice\n",
		       (uint64_t)board->done, args.large ? "large" : "small",
		       (uint64_t)board->twice);
		return true;
	}
	printf("FAILED: seed %" PRIu64 "%s, scenario %s: %s\nagain, with a trace: ", worst->seed,
	       args.large ? " (large)" : "", scenario_for(worst->seed)->name, worst->reason);
	print_how("replay", worst->seed);
	printf("the least that fails alike: ");
	print_how("shrink", worst->seed);
	return false;
}

static int run_all(void)
{
	bool ok;

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (board == MAP_FAILED) {
		perror("gyre-sim: mmap");
		return 2;
	}
	ok = run_seeds();
	if (ok && args.large_to) {
		args.large = true;
		args.from = 1;
		args.to = args.large_to;
		ok = run_seeds();
	}
	if (!sim_coverage_report(&covered, args.required) && ok) {
		printf("FAILED: not all was reached %" PRIu64 " times\n", args.required);
		ok = false;
	}
	return !ok;
}

static int replay(const struct sim_setup *given, const struct sim_scenario *scenario)
{
	struct sim_setup setup = *given;
	struct sim_outcome outcome;

	setup.verbose = args.verbose ? args.verbose : 1;
	printf("scenario %s (%s), %s, seed %" PRIu64 "\n", scenario->name, scenario->what,
	       setup.large ? "large" : "small", setup.seed);
	sim_run_scenario(scenario, &setup, &outcome);
	printf("\n%s%s; %" PRIu64 " steps, hash %016" PRIx64 "\n",
	       outcome.failed ? "FAILED: " : "ok", outcome.reason, outcome.steps, outcome.hash);
	return outcome.failed;
}

static int help(FILE *file)
{
	fprintf(file,
"usage: gyre-sim [--seeds N | --seeds FROM..TO] [--large-seeds N] [OPTION...]\n"
"       gyre-sim --scenario NAME --replay SEED [OPTION...]\n"
"       gyre-sim --scenario NAME --shrink SEED [--output FILE] [OPTION...]\n"
"       gyre-sim --script FILE [--steps]\n"
"       gyre-sim --failures [--sites] [--scenario NAME] [--jobs N]\n"
"       gyre-sim --scenario NAME --replay SEED --failure CALL:ERRNO:NTH:once|ever\n"
"       gyre-sim --list | --help\n"
"\n"
"Runs gyre over a simulated kernel, clock and scheduler, one seed after another,\n"
"and stops at the first that breaks a promise.\n"
"\n"
"  --seeds N           seeds 1 to N (default 20000), or FROM..TO\n"
"  --large-seeds N     then so many large ones\n"
"  --size small|large  of the seeds: large ones have more of everything\n"
"  --memory KIND       what stores do: sc (seen at once), tso (linger, in order), pso\n"
"                      (relaxed ones out of order, too); default: each seed chooses\n"
"  --scenario NAME     this scenario only; default: all of them in turn\n"
"  --jobs N            processes (default 1)\n"
"  --require N         fail when anything that is counted was reached less often\n"
"  --replay SEED       one seed, telling what happens\n"
"  --shrink SEED       look for the least that fails as this seed does; tell that, and\n"
"                      write it to --output (default NAME-SEED.script)\n"
"  --script FILE       such a script, again\n"
"  --failures          each scenario with every call out of the library failing in turn\n"
"  --sites             with --failures: where the calls were made, for tests/sim/sites\n"
"  --failure FAILURE   with --replay: this one, as --failures has named it\n"
"  --steps             when telling: each atomic and each call, too\n"
"  --list              the scenarios\n"
"\n"
"Exit status: 0 all is well; 1 a seed failed, or something was not reached (with\n"
"--shrink: the seed does not fail); 2 it could not run, or wrong usage.\n");
	return file == stdout ? 0 : 2;
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

static bool parse_number(const char *text, uint64_t *ret)
{
	char *end;

	*ret = strtoull(text, &end, 0);
	return *text >= '0' && *text <= '9' && *end == '\0';
}

static bool parse_memory(const char *name)
{
	for (args.memory = SIM_SC; args.memory <= SIM_PSO; args.memory++)
		if (strcmp(sim_memory_names[args.memory], name) == 0)
			return true;
	return false;
}

static bool parse_jobs(const char *text)
{
	uint64_t n;

	if (!parse_number(text, &n) || n < 1 || n > JOBS_MAX)
		return false;
	args.jobs = (unsigned)n;
	return true;
}

static bool parse_option(int option)
{
	switch (option) {
	case 's':
		return parse_seeds(optarg);
	case 'L':
		return parse_number(optarg, &args.large_to);
	case 'z':
		args.large = strcmp(optarg, "large") == 0;
		return args.large || strcmp(optarg, "small") == 0;
	case 'm':
		return parse_memory(optarg);
	case 'n':
		return parse_scenario(optarg);
	case 'R':
		return parse_number(optarg, &args.required);
	case 'r':
		args.replay = true;
		return parse_number(optarg, &args.from);
	case 'k':
		args.shrink = true;
		return parse_number(optarg, &args.from);
	case 'c':
		args.script = optarg;
		return true;
	case 'o':
		args.output = optarg;
		return true;
	case 'S':
		args.verbose = 2;
		return true;
	case 'j':
		return parse_jobs(optarg);
	case 'f':
		args.failures = true;
		return true;
	case 'F':
		args.failure = optarg;
		return true;
	case 'P':
		args.sites = true;
		return true;
	default:
		return false;
	}
}

static int run_script(void)
{
	struct sim_setup setup = { 0 };
	char name[32];

	if (!sim_script_read(args.script, name, &setup))
		return 2;
	if (!parse_scenario(name)) {
		fprintf(stderr, "gyre-sim: %s: there is no scenario %s\n", args.script, name);
		return 2;
	}
	return replay(&setup, args.only);
}

static int run_shrink(void)
{
	struct sim_setup setup = setup_for(args.from);
	char path[64];

	snprintf(path, sizeof(path), "%s-%" PRIu64 ".script", args.only->name, args.from);
	return sim_shrink(args.only, &setup, args.output ? args.output : path);
}

/* Which scenario a seed gets in a mixed run changes with the table: say it. */
static int run_one(void)
{
	struct sim_setup setup = setup_for(args.from);

	if (!args.only) {
		fprintf(stderr, "gyre-sim: one seed of which scenario? --scenario NAME\n");
		return 2;
	}
	return args.shrink ? run_shrink() : replay(&setup, args.only);
}

static int run_failures(void)
{
	const struct sim_failures_args with = {
		.scenarios = scenario_table, .count = SCENARIOS, .only = args.only,
		.jobs = args.jobs, .sites = args.sites, .replay = args.from,
		.single = args.failure,
	};

	return sim_failures_main(&with);
}

/* What the user's environment says must not be part of a seed. */
static void forget_environment(void)
{
	static const char *const names[] = {
		"GYRE_WORKERS", "GYRE_RING_ENTRIES", "GYRE_INFLIGHT_MAX", "GYRE_SPIN_NS",
		"GYRE_MODE", "GYRE_STACK_SIZE", "GYRE_ARENA_MAX", "GYRE_POOL_SIZE",
		"GYRE_OFFLOAD_THREADS", "GYRE_ROUTE",
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
}

/* gyre-sim has none. */
static void choose_plant(void)
{
#ifdef GYRE_SIM_PLANTED
	const char *plant = getenv("GYRE_PLANT");

	gyre__sim_plant = plant ? (unsigned)strtoul(plant, NULL, 0) : 0;
#endif
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seeds", required_argument, NULL, 's' },
		{ "large-seeds", required_argument, NULL, 'L' },
		{ "size", required_argument, NULL, 'z' },
		{ "memory", required_argument, NULL, 'm' },
		{ "scenario", required_argument, NULL, 'n' },
		{ "jobs", required_argument, NULL, 'j' },
		{ "require", required_argument, NULL, 'R' },
		{ "replay", required_argument, NULL, 'r' },
		{ "shrink", required_argument, NULL, 'k' },
		{ "output", required_argument, NULL, 'o' },
		{ "script", required_argument, NULL, 'c' },
		{ "failures", no_argument, NULL, 'f' }, { "failure", required_argument, NULL, 'F' },
		{ "sites", no_argument, NULL, 'P' },
		{ "steps", no_argument, NULL, 'S' }, { "list", no_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	int option;

	choose_plant();
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'l')
			return list();
		if (option == 'h')
			return help(stdout);
		if (!parse_option(option))
			return help(stderr);
	}
	if (optind != argc)
		return help(stderr);
	forget_environment();
	if (args.failures || args.failure)
		return run_failures();
	if (args.script)
		return run_script();
	return args.replay || args.shrink ? run_one() : run_all();
}
