/* SPDX-License-Identifier: MIT */
/*
 * gyre-differ: holds the simulated kernel against the real one.
 *
 * Each program runs on the kernel first, twice, and then on the simulated one
 * with one seed after another, until that has done everything that the kernel
 * did. What it never does in all its seeds is a mismatch: the simulated kernel
 * is stricter than the real one, or other, and the seeds of gyre-sim prove less
 * than they seem to.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "differ.h"
#include "kernel.h"
#include "sched.h"
#include "statics.h"

#define JOBS_MAX	64
#define REAL_RUNS	2
#define FAKE_RUNS	1000000	/* of which a few suffice, nearly always */
#define BENT_RUNS	100000	/* and where a rule is bent, so many have to do */
#define BUSY_TRIES	100	/* of 10 ms: locked memory comes back late */
#define SKIPPED		77

struct args {
	uint64_t from, to;
	unsigned jobs;
	bool replay, keep_going, self_test;
	unsigned bend;
};

/* Shared by all jobs. */
struct board {
	_Atomic uint64_t done, fake_runs, mismatches, refused;
	_Atomic int stop;
};

/* ----------------------------------------------------------- the worlds -- */

static int real_file(const void *data, size_t len, bool on_disk)
{
	const char *dir = getenv("TMPDIR");
	int fd = -1;

	if (on_disk)
		fd = open(dir && *dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = memfd_create("gyre-differ", MFD_CLOEXEC);
	if (fd >= 0 && pwrite(fd, data, len, 0) != (ssize_t)len) {
		close(fd);
		return -EIO;
	}
	return fd < 0 ? -errno : fd;
}

static void nothing(void)
{
}

static int real_pipe(int ret[2])
{
	return gyre__sys_kernel.pipe(ret);
}

static int run_real(const struct differ_program *program, struct differ_outcome *ret)
{
	static const struct differ_world world = {
		&gyre__sys_kernel, real_pipe, real_file, nothing
	};
	unsigned tries;
	int rc = -ENOMEM;

	for (tries = 0; tries < BUSY_TRIES && rc == -ENOMEM; tries++) {
		if (tries > 0)
			gyre__sys_kernel.sleep_ns(10 * GYRE__NS_PER_MS);
		rc = differ_run(&world, program, ret);
	}
	return rc;
}

/* On a stack, as statics are set back. */
struct fake {
	const struct differ_program *program;
	struct differ_outcome *outcome;
	unsigned bend;
	int rc;
};

/* Nothing goes wrong here but what the kernel itself leaves open. */
static void allow_what_is_open(unsigned bend)
{
	sim_faults = (struct sim_faults){
		.slow = sim_chance(500) ? sim_chance(200) ? 900 : 300 : 0,
		.cancel_late = sim_chance(500) ? 300 : 0,
		.cancel_miss = sim_chance(500) ? 300 : 0,
		.interrupt = sim_chance(500) ? 400 : 0,
		.post_directly = sim_chance(300),
		.post_inline = sim_chance(500) ? 900 : 0,
	};
	sim_bend = bend;
}

static int fake_file(const void *data, size_t len, bool on_disk)
{
	int fd = sim_scenario_file(data, len);

	(void)on_disk;
	sim_file_faults = (struct sim_file_faults){ .room = SIM_DATA_BYTES, .rolled = true };
	return fd;
}

/* Much, little or nothing may happen between two steps. */
static void pass_time(void)
{
	unsigned i;

	if (sim_chance(500))
		for (i = (unsigned)sim_random(16); i > 0; i--)
			sim_pass_ns(sim_random(10 * SIM_US));
}

static void fake_main(void *arg)
{
	static const struct differ_world world = {
		&gyre__sys_sim, sim_scenario_pipe, fake_file, pass_time
	};
	struct fake *fake = arg;

	sim_kernel_begin(false);
	allow_what_is_open(fake->bend);
	fake->rc = differ_run(&world, fake->program, fake->outcome);
}

/* False: the simulated kernel broke down; it says why. */
static bool run_fake(const struct differ_program *program, unsigned bend, uint64_t seed,
		     bool verbose, struct differ_outcome *ret, struct sim_outcome *ret_sim)
{
	static const struct sim_events events = { sim_uring_next_ns, sim_uring_run };
	const struct sim_setup setup = { .seed = seed, .verbose = verbose };
	struct fake fake = { program, ret, bend, 0 };

	sim_statics_back();
	sim_run(&setup, &events, fake_main, &fake, nothing, ret_sim);
	if (!ret_sim->failed && fake.rc < 0) {
		snprintf(ret_sim->reason, sizeof(ret_sim->reason), "%s", strerror(-fake.rc));
		ret_sim->failed = true;
	}
	return !ret_sim->failed;
}

/* ------------------------------------------------------------ comparing -- */

static bool equal(const struct differ_outcome *a, const struct differ_outcome *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static unsigned bytes_apart(const struct differ_outcome *a, const struct differ_outcome *b)
{
	unsigned n = 0;
	size_t i;

	for (i = 0; i < sizeof(*a); i++)
		n += ((const char *)a)[i] != ((const char *)b)[i];
	return n;
}

struct comparison {
	struct differ_program program;
	struct differ_outcome real[REAL_RUNS];
	unsigned real_count;		/* that differ from each other */
	unsigned missing;		/* the first of them that the other never does */
	struct differ_outcome nearest;	/* to that one */
	char reason[600];
	unsigned fake_runs;
};

static int collect_real(struct comparison *comparison)
{
	unsigned run, i;

	comparison->real_count = 0;
	for (run = 0; run < REAL_RUNS; run++) {
		struct differ_outcome *outcome = &comparison->real[comparison->real_count];
		int rc = run_real(&comparison->program, outcome);

		if (rc < 0)
			return rc;
		for (i = 0; i < comparison->real_count; i++)
			if (equal(&comparison->real[i], outcome))
				break;
		comparison->real_count += i == comparison->real_count;
	}
	return 0;
}

static bool fake_does(struct comparison *comparison, unsigned which, unsigned bend)
{
	const struct differ_outcome *real = &comparison->real[which];
	unsigned nearest = UINT32_MAX, apart, runs = bend ? BENT_RUNS : FAKE_RUNS;
	struct differ_outcome outcome;
	struct sim_outcome sim;
	uint64_t seed;

	if (real->hangs) {
		snprintf(comparison->reason, sizeof(comparison->reason),
			 "the program cannot be told an end on the kernel (%u)", real->hangs);
		return false;
	}
	for (seed = 1; seed <= runs; seed++) {
		comparison->fake_runs++;
		if (!run_fake(&comparison->program, bend, seed, false, &outcome, &sim)) {
			snprintf(comparison->reason, sizeof(comparison->reason),
				 "the simulated kernel breaks down with its seed %" PRIu64 ": %s",
				 seed, sim.reason);
			return false;
		}
		if (equal(real, &outcome))
			return true;
		apart = bytes_apart(real, &outcome);
		if (apart < nearest) {
			nearest = apart;
			comparison->nearest = outcome;
		}
	}
	snprintf(comparison->reason, sizeof(comparison->reason),
		 "the simulated kernel does not do this in %u seeds", runs);
	return false;
}

/* 0: as it should be; 1: a mismatch; negative: the kernel cannot run it. */
static int compare(struct comparison *comparison, uint64_t seed, unsigned bend)
{
	int rc;

	memset(comparison, 0, sizeof(*comparison));
	differ_generate(seed, &comparison->program);
	rc = collect_real(comparison);
	if (rc < 0)
		return rc;
	for (; comparison->missing < comparison->real_count; comparison->missing++)
		if (!fake_does(comparison, comparison->missing, bend))
			return 1;
	return 0;
}

static void print_mismatch(const struct comparison *comparison)
{
	printf("MISMATCH: %s\n", comparison->reason);
	differ_print(&comparison->program);
	printf("  the kernel:\n");
	differ_print_outcome(&comparison->program, &comparison->real[comparison->missing]);
	printf("  the simulated kernel, at its nearest:\n");
	differ_print_outcome(&comparison->program, &comparison->nearest);
	printf("again: gyre-differ --replay %" PRIu64 "\n\n", comparison->program.seed);
	fflush(stdout);
}

/* -------------------------------------------------------------- running -- */

static void run_job(const struct args *args, struct board *board, unsigned number)
{
	struct comparison comparison;
	uint64_t seed;
	int rc;

	for (seed = args->from + number; seed <= args->to && !board->stop; seed += args->jobs) {
		rc = compare(&comparison, seed, args->bend);
		board->done++;
		board->fake_runs += comparison.fake_runs;
		if (rc < 0)
			board->refused++;
		if (rc <= 0)
			continue;
		board->mismatches++;
		print_mismatch(&comparison);
		board->stop = !args->keep_going;
	}
}

static void run_jobs(const struct args *args, struct board *board)
{
	unsigned i;
	int status;

	for (i = 0; i < args->jobs; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			run_job(args, board, i);
			_exit(0);
		}
		if (pid < 0) {
			perror("gyre-differ: fork");
			exit(2);
		}
	}
	while (wait(&status) > 0)
		if (status != 0) {
			printf("FAILED: a job ended with %#x\n", (unsigned)status);
			board->mismatches++;
		}
}

static int run_all(const struct args *args)
{
	struct board *board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (board == MAP_FAILED) {
		perror("gyre-differ: mmap");
		return 2;
	}
	run_jobs(args, board);
	printf("%s: %" PRIu64 " programs, %" PRIu64 " mismatches, %.1f simulated runs a program",
	       board->mismatches ? "FAILED" : "ok", (uint64_t)board->done,
	       (uint64_t)board->mismatches,
	       (double)board->fake_runs / (double)(board->done ? board->done : 1));
	if (board->refused)
		printf("; %" PRIu64 " this kernel is too old for", (uint64_t)board->refused);
	printf("\n");
	return board->mismatches != 0;
}

static int replay(const struct args *args)
{
	struct differ_outcome outcome;
	struct comparison comparison;
	struct sim_outcome sim;
	int rc = compare(&comparison, args->from, args->bend);

	if (rc == 1) {
		printf("the simulated kernel's first seed:\n");
		run_fake(&comparison.program, args->bend, 1, true, &outcome, &sim);
		print_mismatch(&comparison);
		return 1;
	}
	differ_print(&comparison.program);
	differ_print_outcome(&comparison.program, &comparison.real[0]);
	printf("%s\n", rc < 0 ? strerror(-rc) : "ok");
	return rc != 0;
}

/* Each bend of a rule must be found, or the comparison sees less than it says. */
static int self_test(const struct args *args)
{
	struct comparison comparison;
	unsigned bend, failed = 0;
	uint64_t seed;

	for (bend = 1; bend < SIM_BENDS; bend++) {
		for (seed = args->from; seed <= args->to; seed++)
			if (compare(&comparison, seed, bend) == 1)
				break;
		if (seed <= args->to) {
			printf("ok %u - %s: found by program %" PRIu64 "\n", bend,
			       sim_bend_names[bend], seed);
		} else {
			printf("not ok %u - %s: not found in %" PRIu64 " programs\n", bend,
			       sim_bend_names[bend], args->to - args->from + 1);
			failed++;
		}
		fflush(stdout);
	}
	printf("1..%u\n", bend - 1);
	return failed != 0;
}

/* A sentence if this machine lets us have no ring at all. */
static const char *why_skip(void)
{
	struct differ_outcome outcome;
	struct differ_program program;
	int rc;

	differ_generate(1, &program);
	program.setup = 0;
	rc = run_real(&program, &outcome);
	return rc < 0 ? strerror(-rc) : NULL;
}

static int usage(void)
{
	fprintf(stderr, "usage: gyre-differ [--programs N | FROM..TO] [--jobs N] [--keep-going]"
		" [--bend N]\n"
		"       gyre-differ --replay PROGRAM [--bend N]\n"
		"       gyre-differ --self-test [--programs N]\n");
	return 2;
}

static bool parse_programs(struct args *args, const char *text)
{
	char *end;

	args->from = 1;
	args->to = strtoull(text, &end, 0);
	if (strncmp(end, "..", 2) == 0) {
		args->from = args->to;
		args->to = strtoull(end + 2, &end, 0);
	}
	return *end == '\0' && end != text && args->from <= args->to;
}

static bool parse_option(struct args *args, int option)
{
	switch (option) {
	case 'p':
		return parse_programs(args, optarg);
	case 'r':
		args->replay = true;
		return parse_programs(args, optarg) && (args->from = args->to);
	case 'j':
		args->jobs = (unsigned)strtoul(optarg, NULL, 0);
		return args->jobs >= 1 && args->jobs <= JOBS_MAX;
	case 'b':
		args->bend = (unsigned)strtoul(optarg, NULL, 0);
		return args->bend < SIM_BENDS;
	case 'k':
		return args->keep_going = true;
	case 't':
		return args->self_test = true;
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "programs", required_argument, NULL, 'p' },
		{ "replay", required_argument, NULL, 'r' },
		{ "jobs", required_argument, NULL, 'j' }, { "bend", required_argument, NULL, 'b' },
		{ "keep-going", no_argument, NULL, 'k' }, { "self-test", no_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 },
	};
	struct args args = { .from = 1, .to = 2000, .jobs = 1 };
	const char *why;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!parse_option(&args, option))
			return usage();
	if (optind != argc)
		return usage();
	signal(SIGPIPE, SIG_IGN);	/* as the library's workers block it */
	why = why_skip();
	if (why) {
		printf("skipped: this machine has no io_uring for us: %s\n", why);
		return SKIPPED;
	}
	if (args.replay)
		return replay(&args);
	return args.self_test ? self_test(&args) : run_all(&args);
}
