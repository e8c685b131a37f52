/* SPDX-License-Identifier: MIT */
/*
 * gyre-bench: every case of the plan, in it every round, in it every engine.
 * Engines take turns within a round, A B C A B C, because a machine that
 * others use too, or that is a virtual one, drifts while it is measured.
 */
#include "bench.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int bench_complain(const char *format, ...)
{
	va_list args;

	/* Over the progress line, not behind it. */
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	va_start(args, format);
	fputs("gyre-bench: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	return -BENCH_EXIT_FAILED;
}

const char *bench_work_name(enum bench_work work)
{
	static const char *const names[BENCH_WORKS] = {
		[BENCH_NOP] = "nop",
		[BENCH_BATCH] = "batch",
		[BENCH_RANDREAD] = "randread",
		[BENCH_BATCH_READ] = "batch-read",
		[BENCH_READ] = "read",
		[BENCH_RANDWRITE] = "randwrite",
		[BENCH_DURABLE] = "durable",
		[BENCH_MIXED] = "mixed",
		[BENCH_YIELD] = "yield",
		[BENCH_GO] = "go",
		[BENCH_JOB] = "job",
		[BENCH_ALLOC] = "alloc",
		[BENCH_SLEEPERS] = "sleepers",
	};

	return names[work];
}

bool bench_work_writes(enum bench_work work)
{
	return work == BENCH_RANDWRITE || work == BENCH_DURABLE || work == BENCH_MIXED;
}

enum bench_work bench_work_find(const char *name)
{
	unsigned work;

	for (work = 0; work < BENCH_WORKS; work++)
		if (strcmp(name, bench_work_name(work)) == 0)
			break;
	return work;
}

bool bench_case_uses_file(const struct bench_case *kase)
{
	return BENCH_WORK_BIT(kase->work) & BENCH_ON_FILE;
}

bool bench_case_on_tasks(const struct bench_case *kase)
{
	return BENCH_WORK_BIT(kase->work) & BENCH_ON_TASKS;
}

enum bench_metric bench_case_metric(const struct bench_case *kase)
{
	if (kase->work == BENCH_SLEEPERS)
		return BENCH_RSS;
	/* At a given rate all make as many operations a second: what differs is the price. */
	return kase->rate > 0 ? BENCH_CPU_US : BENCH_OPS;
}

size_t bench_buffer_size(const struct bench_case *kase)
{
	return (kase->block_size + BENCH_PAGE - 1) / BENCH_PAGE * BENCH_PAGE;
}

/* As printf(), at the end of a case's name. */
static void __attribute__((__format__(__printf__, 2, 3)))
name_add(struct bench_case *kase, const char *format, ...)
{
	size_t used = strlen(kase->what);
	va_list args;

	va_start(args, format);
	vsnprintf(kase->what + used, sizeof(kase->what) - used, format, args);
	va_end(args);
}

void bench_case_name(struct bench_case *kase)
{
	char text[32];

	kase->what[0] = '\0';
	/* That it is a batch, the end of the name tells. */
	name_add(kase, "%s", kase->work == BENCH_BATCH ? "nop" :
		 kase->work == BENCH_BATCH_READ ? "randread" : bench_work_name(kase->work));
	if (bench_case_uses_file(kase) && kase->block_size != 4096)
		name_add(kase, " %s", bench_text_bytes(text, sizeof(text), kase->block_size));
	if (bench_case_uses_file(kase))
		name_add(kase, kase->direct ? " O_DIRECT" : " buffered");
	if (kase->work == BENCH_SLEEPERS && kase->callers > 0)
		name_add(kase, ", %s of them", bench_text_count(text, sizeof(text), kase->callers));
	else if (kase->callers > 0 && !(kase->callers == 1 && bench_case_on_tasks(kase)))
		name_add(kase, ", %u caller%s", kase->callers, kase->callers == 1 ? "" : "s");
	if (kase->vectored)
		name_add(kase, ", batch of %u", kase->batch);
	if (kase->rate > 0)
		name_add(kase, ", %s calls/s",
			 bench_text_count(text, sizeof(text), kase->rate));
	if (kase->spin_ns == GYRE_SPIN_NEVER)
		name_add(kase, ", spin never");
	else if (kase->spin_ns == GYRE_SPIN_AUTO)
		name_add(kase, ", spin auto");
	else if (kase->spin_ns > 0)
		name_add(kase, ", spin %g us", (double)kase->spin_ns / 1e3);
}

/* The result's place in the case, from round and engine. */
static int run_engine(const struct bench_plan *plan, struct bench_case *kase, unsigned round,
		      unsigned engine, const struct bench_target *target,
		      struct bench_progress *progress)
{
	struct bench_result *result = &kase->results[round * kase->engine_count + engine];
	int rc;

	bench_progress_run(progress, kase, kase->engines[engine], round);
	rc = bench_target_settle(target, kase);
	if (rc == 0)
		rc = bench_run(plan, kase, kase->engines[engine], target,
			       progress->terminal && !progress->quiet ? bench_progress_tick : NULL,
			       progress, result);
	if (rc == 0)
		bench_progress_result(progress, result);
	return rc;
}

static int run_case(const struct bench_plan *plan, struct bench_case *kase,
		    struct bench_target *target, struct bench_progress *progress)
{
	unsigned round, engine;
	int rc = bench_target_prepare(target, kase);

	if (rc < 0)
		return rc;
	kase->results = calloc((size_t)kase->rounds * kase->engine_count, sizeof(*kase->results));
	if (!kase->results)
		return bench_complain("no memory for the results");
	for (round = 0; round < kase->rounds && rc == 0; round++) {
		for (engine = 0; engine < kase->engine_count && rc == 0; engine++)
			rc = run_engine(plan, kase, round, engine, target, progress);
		if (rc == 0)
			kase->rounds_done++;
	}
	return rc;
}

/* After a failure: what had been measured until then is not lost with it. */
static void report_rest(const struct bench_plan *plan, FILE *table, unsigned tried)
{
	unsigned i;

	for (i = plan->suite || tried == 0 ? 0 : tried - 1; i < tried; i++)
		if (plan->cases[i].rounds_done > 0)
			bench_report_case(table, &plan->cases[i]);
}

/* table NULL: none is wanted, standard output is the report's. */
static int run_plan(struct bench_plan *plan, struct bench_target *target, FILE *table)
{
	struct bench_progress progress;
	unsigned i;
	int rc = 0;

	if (plan->suite)
		rc = bench_life_measure(&plan->life);
	bench_progress_start(&progress, plan);
	for (i = 0; i < plan->case_count && rc == 0; i++) {
		rc = run_case(plan, &plan->cases[i], target, &progress);
		bench_progress_say(plan, NULL);
		if (rc == 0 && table && !plan->suite)
			bench_report_case(table, &plan->cases[i]);
	}
	if (rc == 0 && table && plan->suite)
		bench_report_suite(table, plan);
	if (rc < 0 && table)
		report_rest(plan, table, i);
	return rc;
}

static bool plan_uses_file(const struct bench_plan *plan)
{
	unsigned i;

	for (i = 0; i < plan->case_count; i++)
		if (bench_case_uses_file(&plan->cases[i]))
			return true;
	return false;
}

struct outputs {
	struct bench_output json;
	struct bench_output plot;
};

static int check_outputs(const struct outputs *outputs, const struct bench_target *target)
{
	const struct bench_output *output = &outputs->json;

	if (!bench_output_is(output, target))
		output = &outputs->plot;
	if (!bench_output_is(output, target))
		return 0;
	bench_complain("%s is the file that is measured; figures need another one", output->path);
	return -BENCH_EXIT_USAGE;
}

/* What was asked for beside the table, or instead of it. */
static int write_outputs(struct outputs *outputs, const struct bench_plan *plan,
			 const struct bench_target *target, const struct bench_machine *machine)
{
	int rc = 0;

	if (outputs->json.file)
		rc = bench_json_write(&outputs->json, plan, target, machine);
	if (rc == 0 && outputs->plot.file)
		rc = bench_plot_write(&outputs->plot, plan, machine);
	return rc;
}

/* target NULL: no case uses a file. */
static int measure(struct bench_plan *plan, struct bench_target *target, struct outputs *outputs)
{
	FILE *table = outputs->json.file == stdout || outputs->plot.file == stdout ? NULL : stdout;
	struct bench_machine machine;
	int rc = 0;

	if (target)
		rc = check_outputs(outputs, target);
	/* The header tells what became of the page cache, so that comes first. */
	if (rc == 0 && target && !plan->suite)
		rc = bench_target_prepare(target, &plan->cases[0]);
	if (rc < 0)
		return rc;
	bench_machine_describe(target ? target->fd : -1, target ? target->name : NULL, &machine);
	bench_progress_say(plan, NULL);
	if (table)
		bench_report_header(table, plan, target, &machine);
	rc = run_plan(plan, target, table);
	return rc < 0 ? rc : write_outputs(outputs, plan, target, &machine);
}

/* Opens the file, where one is used. */
static int measure_plan(struct bench_plan *plan, struct outputs *outputs)
{
	static struct bench_target target = { .fd = -1, .direct_fd = -1 };
	bool file = plan_uses_file(plan);
	int rc = 0;

	bench_clock_init();
	bench_progress_say(plan, file ? "making the file ready" : NULL);
	if (file)
		rc = bench_target_open(plan, &target);
	if (rc == 0)
		rc = measure(plan, file ? &target : NULL, outputs);
	bench_target_close(&target);
	return rc;
}

/* What a report has, as if it had been measured just now. */
static int tell_saved(const struct bench_plan *plan, struct outputs *outputs)
{
	struct bench_saved *saved = NULL;
	unsigned i;
	int rc = bench_saved_load(plan->from_path, &saved);

	if (rc < 0)
		return rc;
	if (outputs->plot.file) {
		rc = bench_plot_write(&outputs->plot, &saved->plan, &saved->machine);
	} else {
		bench_report_header(stdout, &saved->plan, saved->on_file ? &saved->target : NULL,
				    &saved->machine);
		for (i = 0; i < saved->plan.case_count; i++)
			bench_report_case(stdout, &saved->plan.cases[i]);
	}
	bench_saved_free(saved);
	return rc;
}

void bench_plan_done(struct bench_plan *plan)
{
	unsigned i;

	for (i = 0; i < plan->case_count; i++)
		free(plan->cases[i].results);
}

int main(int argc, char **argv)
{
	static struct bench_plan plan;
	struct outputs outputs = { .json.file = NULL };
	int rc;

	bench_args_parse(argc, argv, &plan);
	rc = bench_output_open(plan.json_path, BENCH_JSON_MARK, &outputs.json);
	if (rc == 0)
		rc = bench_output_open(plan.plot_path, BENCH_PLOT_MARK, &outputs.plot);
	if (rc == 0 && plan.compare_count > 0)
		rc = -bench_compare(plan.compare, plan.compare_count);
	else if (rc == 0 && plan.from_path)
		rc = tell_saved(&plan, &outputs);
	else if (rc == 0)
		rc = measure_plan(&plan, &outputs);
	bench_output_discard(&outputs.json);
	bench_output_discard(&outputs.plot);
	bench_plan_done(&plan);
	if (rc == 0 && (fflush(stdout) == EOF || ferror(stdout)))
		rc = bench_complain("standard output cannot be written");
	return -rc;
}
