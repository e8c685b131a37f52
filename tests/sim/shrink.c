/* SPDX-License-Identifier: MIT */
/*
 * From a seed that fails to the least that fails in the same way.
 *
 * A run of the seed is recorded: each switch from thread to thread, and each
 * throw of the dice that fell on anything but zero. Then parts of it are left
 * out, large ones first: a thread that was stopped goes on instead, a throw
 * falls on zero (no fault, no delay, the first of several ways, no store that
 * lingers). What fails by the same check is kept.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "coverage.h"
#include "memory.h"
#include "run.h"

#define TRIES_MAX	30000
#define ROUNDS_MAX	6

struct attempt {
	struct sim_outcome outcome;
	struct sim_coverage coverage;
	struct sim_course course;	/* what was decided in it */
	bool crashed;
};

static struct {
	const struct sim_scenario *scenario;
	struct sim_setup setup;
	struct attempt *attempt;	/* shared with the process that makes it */
	struct sim_course *best, *script;	/* as scripts */
	struct sim_outcome failure;	/* the one that is looked for */
	uint64_t *thrown;		/* SIM_THROWS_MAX of them */
	uint64_t length;		/* of the best */
	unsigned tries;
} shrink;

/* In a process of its own: it may crash. */
static void make_attempt(const struct sim_course *script)
{
	struct attempt *attempt = shrink.attempt;
	int status = 0;
	pid_t pid;

	memset(&attempt->outcome, 0, sizeof(attempt->outcome));
	memset(&attempt->coverage, 0, sizeof(attempt->coverage));
	shrink.setup.script = script;
	shrink.setup.record = &attempt->course;
	shrink.tries++;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		sim_coverage = &attempt->coverage;
		sim_run_scenario(shrink.scenario, &shrink.setup, &attempt->outcome);
		fflush(stdout);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("gyre-sim: fork");
		exit(2);
	}
	attempt->crashed = !WIFEXITED(status);
	if (attempt->crashed) {
		attempt->outcome.failed = true;
		snprintf(attempt->outcome.reason, sizeof(attempt->outcome.reason),
			 "crashed with signal %d", WTERMSIG(status));
	}
}

/* The same words, whatever the numbers in them. */
static bool same_words(const char *a, const char *b)
{
	for (;;) {
		a += strspn(a, "0123456789");
		b += strspn(b, "0123456789");
		if (*a != *b)
			return false;
		if (*a == '\0')
			return true;
		a++;
		b++;
	}
}

/* Who is blocked may differ; that somebody is may not. */
static bool fails_alike(void)
{
	const struct sim_outcome *outcome = &shrink.attempt->outcome;

	return outcome->failed && outcome->oracle == shrink.failure.oracle &&
	       (outcome->blocked || same_words(outcome->reason, shrink.failure.reason));
}

static void copy_course(struct sim_course *to, const struct sim_course *from)
{
	to->switch_count = from->switch_count;
	to->throw_count = from->throw_count;
	memcpy(to->switches, from->switches, from->switch_count * sizeof(from->switches[0]));
	memcpy(to->throws, from->throws, from->throw_count * sizeof(from->throws[0]));
}

static int compare_throws(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* As it is to be told: a switch or a CQE takes a line or two, a step none. */
static uint64_t length_of(const struct sim_outcome *outcome)
{
	return outcome->steps + 16 * outcome->events;
}

/*
 * Is the script as good as the best, and no longer? Then it is the best, less what did not matter.
 */
static bool try_script(void)
{
	const struct sim_course *course = &shrink.attempt->course;

	qsort(shrink.script->throws, shrink.script->throw_count, sizeof(shrink.script->throws[0]),
	      compare_throws);
	make_attempt(shrink.script);
	if (!fails_alike() || shrink.attempt->outcome.steps > shrink.failure.steps ||
	    length_of(&shrink.attempt->outcome) > shrink.length)
		return false;
	shrink.length = length_of(&shrink.attempt->outcome);
	copy_course(shrink.best, shrink.script);
	if (!shrink.attempt->crashed) {
		shrink.best->switch_count = course->switch_count;
		memcpy(shrink.best->switches, course->switches,
		       course->switch_count * sizeof(course->switches[0]));
	}
	return true;
}

/* Leaves out switches, by halves, quarters, ... and at last one by one. */
static bool drop_switches(void)
{
	uint32_t size = shrink.best->switch_count, at;
	bool did = false;

	for (; size > 0 && shrink.tries < TRIES_MAX; size /= 2)
		for (at = 0; at < shrink.best->switch_count && shrink.tries < TRIES_MAX;) {
			uint32_t left = shrink.best->switch_count - at;
			uint32_t len = size < left ? size : left;

			copy_course(shrink.script, shrink.best);
			memmove(&shrink.script->switches[at], &shrink.script->switches[at + len],
				(left - len) * sizeof(shrink.script->switches[0]));
			shrink.script->switch_count -= len;
			if (try_script())
				did = true;
			else
				at += len;
		}
	return did;
}

/* Sets throws to zero in the same manner: those that did not fall on it in the best run. */
static bool zero_throws(void)
{
	uint64_t *thrown = shrink.thrown;
	uint32_t size, at, count;
	bool did = false;

	make_attempt(shrink.best);
	count = shrink.attempt->course.throw_count;
	memcpy(thrown, shrink.attempt->course.throws, count * sizeof(thrown[0]));
	for (size = count; size > 0 && shrink.tries < TRIES_MAX; size /= 2)
		for (at = 0; at < count && shrink.tries < TRIES_MAX; at += size) {
			uint32_t len = size < count - at ? size : count - at;

			if (shrink.best->throw_count + len > SIM_THROWS_MAX)
				continue;
			copy_course(shrink.script, shrink.best);
			memcpy(&shrink.script->throws[shrink.script->throw_count], &thrown[at],
			       len * sizeof(thrown[0]));
			shrink.script->throw_count += len;
			if (!try_script())
				continue;
			/*
			 * The rest is another run's now: what is left of it comes first the next
			 * time.
			 */
			did = true;
			count -= len;
			memmove(&thrown[at], &thrown[at + len], (count - at) * sizeof(thrown[0]));
			at -= size;
		}
	return did;
}

/* ---------------------------------------------------------------- files -- */

static bool write_script(const char *path)
{
	const struct sim_course *best = shrink.best;
	FILE *file = fopen(path, "w");
	uint32_t i;

	if (!file) {
		perror(path);
		return false;
	}
	fprintf(file, "gyre-sim script 1\nscenario %s\nseed %" PRIu64 "\nsize %s\nmemory %s\n",
		shrink.scenario->name, shrink.setup.seed, shrink.setup.large ? "large" : "small",
		sim_memory_names[shrink.setup.memory]);
	for (i = 0; i < best->switch_count; i++)
		fprintf(file, "switch %u %u %u\n", best->switches[i].thread, best->switches[i].at,
			best->switches[i].to);
	for (i = 0; i < best->throw_count; i++)
		fprintf(file, "zero %" PRIu64 " %" PRIu64 "\n", best->throws[i] >> 32,
			best->throws[i] & UINT32_MAX);
	return fclose(file) == 0;
}

static bool read_line(const char *line, struct sim_course *course)
{
	uint64_t stream, nth;
	unsigned thread, at, to;

	if (sscanf(line, "switch %u %u %u", &thread, &at, &to) == 3 && thread > 0 && to > 0 &&
	    course->switch_count < SIM_SWITCHES_MAX)
		course->switches[course->switch_count++] =
			(struct sim_switch){ at, (uint16_t)thread, (uint16_t)to };
	else if (sscanf(line, "zero %" SCNu64 " %" SCNu64, &stream, &nth) == 2 &&
		 course->throw_count < SIM_THROWS_MAX)
		course->throws[course->throw_count++] = stream << 32 | nth;
	else
		return false;
	return true;
}

bool sim_script_read(const char *path, char ret_scenario[32], struct sim_setup *ret_setup)
{
	struct sim_course *course = calloc(1, sizeof(*course));
	char line[128], size[8], kind[8];
	FILE *file = fopen(path, "r");
	bool sound;

	if (!file || !course) {
		perror(path);
		return false;
	}
	sound = fscanf(file,
		       "gyre-sim script 1 scenario %31s seed %" SCNu64 " size %7s memory %7s ",
		       ret_scenario, &ret_setup->seed, size, kind) == 4;
	while (sound && fgets(line, sizeof(line), file))
		sound = read_line(line, course);
	fclose(file);
	if (!sound) {
		fprintf(stderr, "gyre-sim: %s is no script\n", path);
		return false;
	}
	qsort(course->throws, course->throw_count, sizeof(course->throws[0]), compare_throws);
	ret_setup->large = strcmp(size, "large") == 0;
	ret_setup->memory = SIM_MEMORY_BY_SEED;
	while (ret_setup->memory < SIM_PSO &&
	       strcmp(sim_memory_names[ret_setup->memory], kind) != 0)
		ret_setup->memory++;
	ret_setup->script = course;
	return true;
}

/* ------------------------------------------------------------- the whole -- */

struct size {
	uint64_t steps, calls, faults;
	uint32_t switches, throws, stores;
};

static struct size measure(void)
{
	const struct attempt *attempt = shrink.attempt;
	struct size size = {
		.steps = attempt->outcome.steps,
		.calls = attempt->coverage.reached[SIM_CALLS],
		.faults = sim_coverage_faults(&attempt->coverage),
		.switches = attempt->course.switch_count, .throws = attempt->course.throw_count,
	};
	uint32_t i;

	for (i = 0; i < attempt->course.throw_count; i++)
		size.stores += (attempt->course.throws[i] >> 32) > SIM_THREADS_MAX;
	return size;
}

static void print_size(const char *what, const struct size *size)
{
	printf("%-9s %6" PRIu64 " steps, %4u switches, %4u throws of the dice, "
	       "%3u lingering stores, %3" PRIu64 " faults, %2" PRIu64 " answers\n",
	       what, size->steps, size->switches, size->throws - size->stores, size->stores,
	       size->faults, size->calls);
}

/* The record of the seed's own run, as a script: does it do the same? */
static bool begin(struct size *ret)
{
	uint64_t hash;

	make_attempt(NULL);
	if (!shrink.attempt->outcome.failed) {
		printf("seed %" PRIu64 " of %s does not fail\n", shrink.setup.seed,
		       shrink.scenario->name);
		return false;
	}
	if (shrink.attempt->course.too_long) {
		printf("the run is too long to be shrunk\n");
		return false;
	}
	shrink.failure = shrink.attempt->outcome;
	printf("fails:    %s\n", shrink.failure.reason);
	*ret = measure();
	hash = shrink.failure.hash;
	shrink.length = length_of(&shrink.failure);
	copy_course(shrink.best, &shrink.attempt->course);
	shrink.best->throw_count = 0;
	make_attempt(shrink.best);
	if (fails_alike() && shrink.attempt->outcome.hash == hash)
		return true;
	printf("the recorded run does something else: %s\n", shrink.attempt->outcome.reason);
	return false;
}

static void *shared(size_t size)
{
	void *ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (ptr == MAP_FAILED) {
		perror("gyre-sim: mmap");
		exit(2);
	}
	return ptr;
}

int sim_shrink(const struct sim_scenario *scenario, const struct sim_setup *setup, const char *path)
{
	struct size before, after;
	unsigned round;

	shrink.scenario = scenario;
	shrink.setup = *setup;
	shrink.attempt = shared(sizeof(*shrink.attempt));
	shrink.best = shared(sizeof(*shrink.best));
	shrink.script = shared(sizeof(*shrink.script));
	shrink.thrown = shared(SIM_THROWS_MAX * sizeof(*shrink.thrown));
	if (!begin(&before))
		return shrink.attempt->outcome.failed ? 2 : 1;
	for (round = 0; round < ROUNDS_MAX && shrink.tries < TRIES_MAX; round++) {
		bool did = drop_switches();

		if (!(zero_throws() || did))
			break;
	}
	make_attempt(shrink.best);
	after = measure();
	print_size("the seed:", &before);
	print_size("shrunk:", &after);
	printf("          after %u runs\n\n", shrink.tries);
	if (!write_script(path))
		return 2;
	shrink.setup.verbose = 1;
	make_attempt(shrink.best);
	printf("\nfailed: %s\nagain: gyre-sim --script %s\n", shrink.attempt->outcome.reason, path);
	return 0;
}
