/* SPDX-License-Identifier: MIT */
/*
 * A report that was written with --json, read again into the plan that it came
 * from. Whatever does not fit is told by place, and nothing of it is used.
 */
#include "bench.h"

#include "bench_parse.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int __attribute__((__format__(__printf__, 2, 3)))
refuse(const struct bench_saved *saved, const char *format, ...)
{
	char why[BENCH_TEXT];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	bench_complain("%s %s", saved->path, why);
	return -BENCH_EXIT_USAGE;
}

/* ---------------------------------------------------------------- file -- */

/* What is in it, to be freed; NULL after a sentence. */
static char *read_file(const char *path, size_t *ret_len)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t len = 0, room = 0, n = 1;

	if (!file) {
		bench_complain("%s: cannot be read: %s", path, strerror(errno));
		return NULL;
	}
	while (n > 0 && len <= BENCH_JSON_SIZE_MAX) {
		if (len == room) {
			char *larger = realloc(text, room = room ? 2 * room : 1 << 16);

			if (!larger)
				break;
			text = larger;
		}
		n = fread(text + len, 1, room - len, file);
		len += n;
	}
	if (n == 0 && !ferror(file)) {
		fclose(file);
		*ret_len = len;
		return text;
	}
	bench_complain("%s: cannot be read: %s", path,
		       len > BENCH_JSON_SIZE_MAX ?
		       "it is too large for a report" : strerror(errno));
	fclose(file);
	free(text);
	return NULL;
}

/* --------------------------------------------------------------- parts -- */

static void load_text(const struct bench_value *from, const char *key, char *to, size_t size)
{
	const char *text = bench_value_string(from, key);

	snprintf(to, size, "%s", text ? text : "");
}

/* A whole number of a member from min to max; false when it is none. */
static bool load_count(const struct bench_value *from, const char *key, double min, double max,
		       double *ret)
{
	double number = bench_value_number(from, key);

	if (!(number >= min && number <= max) || number != floor(number))
		return false;
	*ret = number;
	return true;
}

static void load_machine(const struct bench_value *report, struct bench_machine *machine)
{
	const struct bench_value *from = bench_value_get(report, "machine");
	const struct bench_value *target = bench_value_get(report, "target");
	double number;

	load_text(from, "cpu", machine->cpu, sizeof(machine->cpu));
	load_text(from, "kernel", machine->kernel, sizeof(machine->kernel));
	load_text(from, "gyre", machine->gyre, sizeof(machine->gyre));
	load_text(from, "liburing", machine->liburing, sizeof(machine->liburing));
	load_text(from, "compiler", machine->compiler, sizeof(machine->compiler));
	load_text(from, "clock", machine->clock, sizeof(machine->clock));
	load_text(from, "environment", machine->environment, sizeof(machine->environment));
	load_text(report, "date", machine->date, sizeof(machine->date));
	load_text(target, "file_system", machine->fs, sizeof(machine->fs));
	load_text(target, "device", machine->device, sizeof(machine->device));
	load_text(target, "device_about", machine->device_about, sizeof(machine->device_about));
	if (load_count(from, "cpus_usable", 1, 1e6, &number))
		machine->cpus = (unsigned)number;
	if (load_count(from, "memory_bytes", 1, 0x1p60, &number))
		machine->memory = (uint64_t)number;
	number = bench_value_number(from, "cpu_quota");
	machine->cpu_quota = number > 0 ? number : 0;
}

static void load_target(const struct bench_value *from, struct bench_saved *saved)
{
	const struct bench_value *temporary = bench_value_get(from, "temporary");
	double size;

	saved->target.fd = -1;
	saved->target.direct_fd = -1;
	saved->on_file = from != NULL;
	load_text(from, "path", saved->target.name, sizeof(saved->target.name));
	saved->target.temporary = temporary && temporary->number > 0;
	if (load_count(from, "size_bytes", 1, 0x1p60, &size))
		saved->target.size = (uint64_t)size;
}

static int load_plan(const struct bench_value *from, struct bench_saved *saved)
{
	struct bench_plan *plan = &saved->plan;
	double rounds, workers;

	plan->seconds = bench_value_number(from, "seconds");
	plan->warmup = bench_value_number(from, "warmup_seconds");
	if (!(plan->seconds > 0 && plan->warmup >= 0) ||
	    !load_count(from, "rounds", 1, BENCH_ROUNDS_MAX, &rounds) ||
	    !load_count(from, "workers", 0, 1e6, &workers))
		return refuse(saved, "is damaged: there is no plan in it");
	plan->rounds = (unsigned)rounds;
	plan->workers = (unsigned)workers;
	return 0;
}

/* --------------------------------------------------------------- cases -- */

static bool load_spin(const struct bench_value *from, uint64_t *ret)
{
	const char *word = bench_value_string(from, "spin_ns");
	double number;

	*ret = 0;
	if (!word) {
		if (!load_count(from, "spin_ns", 1, 1e12, &number))
			return false;
		*ret = (uint64_t)number;
		return true;
	}
	if (strcmp(word, "never") == 0)
		*ret = GYRE_SPIN_NEVER;
	else if (strcmp(word, "auto") == 0)
		*ret = GYRE_SPIN_AUTO;
	else
		return strcmp(word, "default") == 0;
	return true;
}

/* What the case is; its engines come later. */
static bool load_case_head(const struct bench_value *from, struct bench_case *kase)
{
	const struct bench_value *direct = bench_value_get(from, "direct");
	const struct bench_value *vectored = bench_value_get(from, "vectored");
	const char *work = bench_value_string(from, "work");
	double callers, batch, block = 0, rate = bench_value_number(from, "rate");

	kase->work = work ? bench_work_find(work) : BENCH_WORKS;
	if (kase->work == BENCH_WORKS || !load_spin(from, &kase->spin_ns) ||
	    !load_count(from, "callers", 1, BENCH_SLEEPERS_MAX, &callers) ||
	    !load_count(from, "batch", 1, BENCH_DEPTH_MAX, &batch))
		return false;
	if (bench_case_uses_file(kase) &&
	    !load_count(from, "block_size", 1, (double)BENCH_BLOCK_MAX, &block))
		return false;
	kase->callers = (unsigned)callers;
	kase->batch = (unsigned)batch;
	kase->block_size = (size_t)block;
	kase->direct = direct && direct->number > 0;
	kase->vectored = vectored && vectored->number > 0;
	kase->rate = rate > 0 ? rate : 0;
	kase->seconds = bench_value_number(from, "seconds");
	bench_case_name(kase);
	return true;
}

static unsigned count_of(const struct bench_value *array)
{
	const struct bench_value *at;
	unsigned n = 0;

	for (at = array ? array->first : NULL; at; at = at->next)
		n++;
	return n;
}

static void load_rounds(const struct bench_value *rounds, struct bench_case *kase, unsigned engine)
{
	const struct bench_value *at;
	unsigned i, round = 0;

	for (at = rounds->first; at; at = at->next, round++)
		for (i = 0; i < BENCH_METRICS; i++)
			kase->results[round * kase->engine_count + engine].value[i] =
				bench_value_number(at, bench_metric_key(i));
}

static int load_engines(const struct bench_value *engines, const char *base,
			struct bench_saved *saved, struct bench_case *kase)
{
	const struct bench_value *at;
	unsigned i = 0;

	kase->engine_count = count_of(engines);
	if (kase->engine_count == 0 || kase->engine_count > BENCH_ENGINES_MAX)
		return refuse(saved, "is damaged: \"%s\" has no engines", kase->what);
	kase->rounds_done = count_of(bench_value_get(engines->first, "rounds"));
	kase->rounds = kase->rounds_done;
	if (kase->rounds_done == 0 || kase->rounds_done > BENCH_ROUNDS_MAX)
		return refuse(saved, "is damaged: \"%s\" has no rounds", kase->what);
	kase->results = calloc((size_t)kase->rounds_done * kase->engine_count,
			       sizeof(*kase->results));
	if (!kase->results)
		return refuse(saved, "is too large for this machine's memory");
	for (at = engines->first; at; at = at->next, i++) {
		const struct bench_value *rounds = bench_value_get(at, "rounds");
		const char *name = bench_value_string(at, "engine");

		kase->engines[i] = name ? bench_engine_find(name) : NULL;
		if (!kase->engines[i])
			return refuse(saved, "has figures of an engine that this gyre-bench does "
				      "not know: %s", name ? name : "it has no name");
		if (count_of(rounds) != kase->rounds_done)
			return refuse(saved, "is damaged: in \"%s\" %s has other rounds than the "
				      "rest", kase->what, name);
		load_rounds(rounds, kase, i);
		if (base && strcmp(base, name) == 0)
			kase->base = i;
	}
	return 0;
}

static int load_cases(const struct bench_value *cases, struct bench_saved *saved)
{
	struct bench_plan *plan = &saved->plan;
	const struct bench_value *at;
	int rc = 0;

	if (count_of(cases) == 0 || count_of(cases) > BENCH_CASES_MAX)
		return refuse(saved, "is damaged: there are no cases in it");
	for (at = cases->first; at && rc == 0; at = at->next) {
		struct bench_case *kase = &plan->cases[plan->case_count++];

		if (!load_case_head(at, kase))
			return refuse(saved, "has a case that this gyre-bench does not know: the "
				      "%u. one", plan->case_count);
		rc = load_engines(bench_value_get(at, "engines"),
				  bench_value_string(at, "ratio_to"), saved, kase);
		/* Of reports from before cases had times of their own. */
		if (!(kase->seconds > 0))
			kase->seconds = plan->seconds;
	}
	return rc;
}

/* ------------------------------------------------------------ together -- */

static int load_report(const struct bench_value *report, struct bench_saved *saved)
{
	const char *tool = bench_value_string(report, "tool");
	double format = bench_value_number(report, "format");
	int rc;

	if (!tool || strcmp(tool, "gyre-bench") != 0)
		return refuse(saved, "is JSON, but no report of gyre-bench");
	if (isnan(format))
		return refuse(saved, "is a report of a gyre-bench that was too old to number its "
			      "formats");
	if (format != BENCH_JSON_FORMAT)
		return refuse(saved, "is a report in format %g, and this gyre-bench knows format "
			      "%d only", format, BENCH_JSON_FORMAT);
	load_machine(report, &saved->machine);
	load_target(bench_value_get(report, "target"), saved);
	rc = load_plan(bench_value_get(report, "plan"), saved);
	return rc < 0 ? rc : load_cases(bench_value_get(report, "cases"), saved);
}

int bench_saved_load(const char *path, struct bench_saved **ret)
{
	struct bench_saved *saved = calloc(1, sizeof(*saved));
	struct bench_value *report;
	char why[BENCH_TEXT];
	size_t len = 0;
	char *text;
	int rc;

	if (!saved) {
		bench_complain("there is no memory for %s", path);
		return -BENCH_EXIT_USAGE;
	}
	saved->path = path;
	text = read_file(path, &len);
	if (!text) {
		bench_saved_free(saved);
		return -BENCH_EXIT_USAGE;
	}
	report = bench_value_parse(text, len, why, sizeof(why));
	rc = report ? load_report(report, saved) :
	     len == 0 ? refuse(saved, "is empty") : refuse(saved, "is no JSON: %s", why);
	bench_value_free(report);
	free(text);
	if (rc == 0)
		*ret = saved;
	else
		bench_saved_free(saved);
	return rc;
}

void bench_saved_free(struct bench_saved *saved)
{
	if (!saved)
		return;
	bench_plan_done(&saved->plan);
	free(saved);
}
