/* SPDX-License-Identifier: MIT */
/* What a person reads: where it ran, and the tables. */
#include "bench.h"

#include <math.h>
#include <string.h>

/* -------------------------------------------------------------- header -- */

static void print_machine(FILE *file, const struct bench_machine *machine)
{
	char text[32];

	fprintf(file, "machine   %s, %u CPU%s usable", machine->cpu, machine->cpus,
		machine->cpus == 1 ? "" : "s");
	if (machine->cpu_quota > 0)
		fprintf(file, " (at most %.2f of them at a time)", machine->cpu_quota);
	fprintf(file, ", %s of memory\n", bench_text_bytes(text, sizeof(text), machine->memory));
	fprintf(file, "kernel    %s\n", machine->kernel);
}

static const char *cache_text(enum bench_cache cache)
{
	switch (cache) {
	case BENCH_CACHE_WARM:
		return "the file was read once, to be in the page cache";
	case BENCH_CACHE_TOO_SMALL:
		return "the page cache was not warmed: the file is more than half of memory";
	case BENCH_CACHE_DROPPED:
		return "the file was dropped from the page cache";
	default:
		return "the page cache was left as it was";
	}
}

static void print_target(FILE *file, const struct bench_plan *plan,
			 const struct bench_target *target, const struct bench_machine *machine)
{
	char size[32], block[32];
	unsigned i, buffered = 0, direct = 0;

	for (i = 0; i < plan->case_count; i++) {
		if (!bench_case_uses_file(&plan->cases[i]))
			continue;
		bench_text_bytes(block, sizeof(block), plan->cases[i].block_size);
		if (plan->cases[i].direct)
			direct++;
		else
			buffered++;
	}
	fprintf(file, "file      %s%s, %s\n", target->temporary ? "a temporary file in " : "",
		target->name, bench_text_bytes(size, sizeof(size), target->size));
	fprintf(file, "on        %s, %s%s%s%s\n", machine->fs, machine->device,
		machine->device_about[0] ? " (" : "", machine->device_about,
		machine->device_about[0] ? ")" : "");
	if (buffered && direct)
		fprintf(file, "access    blocks of %s, buffered (the file is read once before) and "
			"O_DIRECT\n", block);
	else
		fprintf(file, "access    blocks of %s, %s; %s\n", block,
			direct ? "O_DIRECT" : "buffered", cache_text(target->cache));
}

void bench_report_header(FILE *file, const struct bench_plan *plan,
			 const struct bench_target *target, const struct bench_machine *machine)
{
	fprintf(file, "gyre-bench %s, %s\n", machine->gyre, machine->date);
	print_machine(file, machine);
	if (target)
		print_target(file, plan, target, machine);
	fprintf(file, "versions  gyre %s, liburing %s, %s\n", machine->gyre, machine->liburing,
		machine->compiler);
	fprintf(file, "clock     %s\n", machine->clock);
	if (machine->environment[0])
		fprintf(file, "variables %s\n", machine->environment);
	fprintf(file, "plan      %u round%s of %g s, each after %g s of warming up; "
		"about %.0f s in all\n\n", plan->rounds, plan->rounds == 1 ? "" : "s",
		plan->seconds, plan->warmup, bench_plan_seconds(plan));
	fflush(file);
}

/* ------------------------------------------------------- one case's table -- */

static const struct {
	const char *title;
	enum bench_metric metric;
	int width;
} columns[] = {
	{ "ops/s", BENCH_OPS, 11 },
	{ "p50 us", BENCH_P50, 9 },
	{ "p99 us", BENCH_P99, 9 },
	{ "p99.9 us", BENCH_P999, 9 },
	{ "max us", BENCH_MAX, 9 },
	{ "CPU us/op", BENCH_CPU_US, 10 },
	{ "csw/op", BENCH_SWITCHES, 7 },
	{ "slowest", BENCH_SHARE, 8 },
	{ "CPU %", BENCH_CPU_PERCENT, 7 },
	/* Of sleepers alone. */
	{ "RSS bytes", BENCH_RSS, 10 },
	{ "start us", BENCH_START, 9 },
	{ "wake us", BENCH_WAKE, 9 },
};

#define COLUMNS		(sizeof(columns) / sizeof(columns[0]))

static bool has_column(const struct bench_case *kase, size_t column)
{
	return (columns[column].metric >= BENCH_RSS) == (kase->work == BENCH_SLEEPERS) ||
	       columns[column].metric == BENCH_OPS || columns[column].metric == BENCH_CPU_US;
}

static char *column_text(char *buf, size_t size, enum bench_metric metric, double value)
{
	if (isnan(value))
		snprintf(buf, size, "-");
	else if (metric == BENCH_OPS)
		bench_text_count(buf, size, value);
	else if (metric == BENCH_CPU_PERCENT)
		snprintf(buf, size, "%.1f", value);
	else
		bench_text_figure(buf, size, value);
	return buf;
}

void bench_report_case(FILE *file, const struct bench_case *kase)
{
	enum bench_metric of = bench_case_metric(kase);
	char text[32];
	unsigned engine;
	size_t i;

	fprintf(file, "%s\n%-10s", kase->what, "engine");
	for (i = 0; i < COLUMNS; i++)
		if (has_column(kase, i))
			fprintf(file, " %*s", columns[i].width, columns[i].title);
	fprintf(file, "  %s to %s (range)\n", of == BENCH_OPS ? "ratio" :
		of == BENCH_RSS ? "RSS ratio" : "CPU ratio", kase->engines[kase->base]->name);
	for (engine = 0; engine < kase->engine_count; engine++) {
		struct bench_ratio ratio = bench_case_ratio(kase, engine, kase->base, of);

		fprintf(file, "%-10s", kase->engines[engine]->name);
		for (i = 0; i < COLUMNS; i++)
			if (has_column(kase, i))
				fprintf(file, " %*s", columns[i].width,
					column_text(text, sizeof(text), columns[i].metric,
						    bench_case_median(kase, engine,
								      columns[i].metric)));
		if (isnan(ratio.median))
			fprintf(file, "  -\n");
		else
			fprintf(file, "  %.2f (%.2f..%.2f)\n", ratio.median, ratio.lowest,
				ratio.highest);
	}
	fputc('\n', file);
	fflush(file);
}

/* ---------------------------------------------------- the suite's summary -- */

#define SUMMARY_COLUMNS	10
#define SUMMARY_TEXT	64

typedef char summary_row[SUMMARY_COLUMNS][SUMMARY_TEXT];

static const char *const summary_titles[SUMMARY_COLUMNS] = {
	"what", "engine", "against", "figure", "value", "goal", "met",
	"ops/s", "p50 us", "CPU us/op",
};

static void fill_goal(const struct bench_goal *goal, const struct bench_verdict *verdict,
		      summary_row row)
{
	const char *sense = goal->sense == BENCH_AT_LEAST ? ">=" : "<=";
	char limit[32];

	bench_text_figure(row[4], SUMMARY_TEXT, verdict->value);
	if (goal->sense == BENCH_TOLD)
		return;
	snprintf(row[5], SUMMARY_TEXT, "%s %s", sense,
		 bench_text_figure(limit, sizeof(limit), verdict->limit));
	if (goal->ns > 0)
		snprintf(row[5] + strlen(row[5]), SUMMARY_TEXT - strlen(row[5]), " (%g ns)",
			 goal->ns);
	snprintf(row[6], SUMMARY_TEXT, "%s", verdict->met ? "yes" : "no");
}

static void fill_row(const struct bench_plan *plan, const struct bench_goal *goal, summary_row row)
{
	const struct bench_case *kase = &plan->cases[goal->kase];
	struct bench_verdict verdict = bench_goal_judge(plan, goal);
	unsigned engine = bench_case_find(kase, goal->engine);

	memset(row, 0, sizeof(summary_row));
	snprintf(row[0], SUMMARY_TEXT, "%s", kase->what);
	snprintf(row[1], SUMMARY_TEXT, "%s", goal->engine->name);
	snprintf(row[2], SUMMARY_TEXT, "%s", goal->against ? goal->against->name : "");
	snprintf(row[3], SUMMARY_TEXT, "%s", bench_goal_figure(goal));
	fill_goal(goal, &verdict, row);
	bench_text_count(row[7], SUMMARY_TEXT, bench_case_median(kase, engine, BENCH_OPS));
	bench_text_figure(row[8], SUMMARY_TEXT, bench_case_median(kase, engine, BENCH_P50));
	bench_text_figure(row[9], SUMMARY_TEXT, bench_case_median(kase, engine, BENCH_CPU_US));
}

static void print_row(FILE *file, const summary_row row, const int *width)
{
	unsigned i;

	for (i = 0; i < SUMMARY_COLUMNS; i++) {
		/* Words to the left, numbers to the right. */
		if (i < 4 || i == 6)
			fprintf(file, "| %-*s ", width[i], row[i]);
		else
			fprintf(file, "| %*s ", width[i], row[i]);
	}
	fputs("|\n", file);
}

static void print_rule(FILE *file, const int *width)
{
	unsigned i;
	int dash;

	for (i = 0; i < SUMMARY_COLUMNS; i++) {
		fputs("|-", file);
		for (dash = 0; dash < width[i]; dash++)
			fputc('-', file);
		/* A colon sets the column to the right. */
		fputc(i < 4 || i == 6 ? '-' : ':', file);
	}
	fputs("|\n", file);
}

static void print_floor(FILE *file, const struct bench_plan *plan)
{
	char text[32];
	unsigned i, engine;

	for (i = 0; i < plan->case_count; i++) {
		const struct bench_case *kase = &plan->cases[i];
		double ops;

		engine = bench_case_find(kase, &bench_floor);
		if (engine == kase->engine_count)
			continue;
		ops = bench_case_median(kase, engine, BENCH_OPS);
		fprintf(file, "The floor during \"%s\": %s hand-overs a second "
			"(the machine's %s mode).\n", kase->what,
			bench_text_count(text, sizeof(text), ops),
			ops < BENCH_FLOOR_FAST ? "slow" : "fast");
	}
}

/* What the goals in nanoseconds mean here. */
static void print_yardstick(FILE *file, const struct bench_plan *plan)
{
	const struct bench_goal *goal = plan->goals, *end = goal + plan->goal_count;
	const struct bench_case *kase;
	double ns;

	while (goal < end && goal->ns <= 0)
		goal++;
	if (goal == end)
		return;
	kase = &plan->cases[goal->kase];
	ns = 1e3 * bench_case_median(kase, bench_case_find(kase, goal->against), BENCH_P50);
	if (goal->against == &bench_boost)
		fprintf(file, "Goals with nanoseconds are those of a machine where boost.context "
			"switches there and back in %g ns, and hold here as ratios to it: it took "
			"%.1f ns during \"%s\".\n", BENCH_SWITCH_NS, ns, kase->what);
	else
		fprintf(file, "Goals with nanoseconds are those of a machine where boost.context "
			"switches there and back in %g ns, and swapcontext() in %g. gyre-bench "
			"was built without boost.context, so they hold here as ratios to "
			"swapcontext(), which took %.0f ns during \"%s\": a rough measure, as "
			"it enters the kernel.\n", BENCH_SWITCH_NS, BENCH_SWAPCONTEXT_NS, ns,
			kase->what);
}

static void print_life(FILE *file, const struct bench_life *life)
{
	fprintf(file, "A runtime of 2 workers: opened and closed in %.0f us (goal <= %d), "
		"%.0f KiB of RSS (goal <= %d); in an idle second its workers are switched to "
		"%.0f times (goal 0), and the process takes %.0f us of CPU.\n",
		life->open_close_us, BENCH_LIFE_OPEN_CLOSE_US_MAX, life->rss_kib,
		BENCH_LIFE_RSS_KIB_MAX, life->idle_switches, life->idle_cpu_us);
}

/* A table that Markdown understands too, so that it can go into a README as it is. */
void bench_report_suite(FILE *file, const struct bench_plan *plan)
{
	static summary_row rows[BENCH_GOALS_MAX];
	summary_row titles;
	int width[SUMMARY_COLUMNS];
	unsigned i, column;

	memset(titles, 0, sizeof(titles));
	for (column = 0; column < SUMMARY_COLUMNS; column++) {
		snprintf(titles[column], SUMMARY_TEXT, "%s", summary_titles[column]);
		width[column] = (int)strlen(titles[column]);
	}
	for (i = 0; i < plan->goal_count; i++) {
		fill_row(plan, &plan->goals[i], rows[i]);
		for (column = 0; column < SUMMARY_COLUMNS; column++)
			if ((int)strlen(rows[i][column]) > width[column])
				width[column] = (int)strlen(rows[i][column]);
	}
	print_row(file, titles, width);
	print_rule(file, width);
	for (i = 0; i < plan->goal_count; i++)
		print_row(file, rows[i], width);
	fprintf(file, "\nMedians of %u round%s of %g s (yield, go and alloc: %g s; a million "
		"sleepers: one round); a ratio is the median of each round's.\n",
		plan->rounds, plan->rounds == 1 ? "" : "s", plan->seconds, plan->seconds / 4);
	print_floor(file, plan);
	print_yardstick(file, plan);
	print_life(file, &plan->life);
	fflush(file);
}
