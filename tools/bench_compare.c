/* SPDX-License-Identifier: MIT */
/*
 * Two reports, row by row: by how much did it change, and is that more than
 * the rounds differ among themselves?
 *
 * The interval is the one that belongs to the rank test of Mann and Whitney:
 * of all ratios of a new round to an old one, sorted, as many are left out at
 * either end as chance would put there in one of a hundred comparisons. No
 * shape of the noise is assumed, and a round that went wrong weighs as much as
 * any other. It takes five rounds on each side to say anything.
 */
#include "bench.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define CHANCE		0.01
#define CHANCE_Z	2.5758		/* of a normal distribution, both ends */
/* Pairs: past that the normal distribution is exact enough. */
#define EXACT_MAX	1024u
#define TELLING		0.02		/* smaller changes are none: two runs differ by more */
#define BLUR		0.10		/* an interval that hides such a change says nothing */

enum verdict { SLOWER, FASTER, SAME, NOISY, VERDICTS };

static const char *const verdict_names[VERDICTS] = {
	[SLOWER] = "slower",
	[FASTER] = "faster",
	[SAME] = "the same within noise",
	[NOISY] = "too noisy to say",
};

struct change {
	double before, after;		/* medians */
	double ratio;
	double low, high;		/* NAN: too few rounds for an interval */
	enum verdict verdict;
};

/* ------------------------------------------------------------ the test -- */

/*
 * How many of the sorted pairs to leave out at either end; -1: chance alone
 * does more than that. The number of ways to get each rank sum is the product
 * of (1 - x^(m+i)) / (1 - x^i), i from 1 to n.
 */
static int pairs_to_leave(unsigned n, unsigned m)
{
	double ways[EXACT_MAX + 1] = { 1 }, all = 0, below = 0;
	unsigned pairs = n * m, i, k;
	int leave = -1;

	if (pairs > EXACT_MAX)
		return (int)floor(pairs / 2.0 - 0.5 -
				  CHANCE_Z * sqrt((double)pairs * (n + m + 1) / 12));
	for (i = 1; i <= n; i++) {
		for (k = pairs; k >= m + i; k--)
			ways[k] -= ways[k - m - i];
		for (k = i; k <= pairs; k++)
			ways[k] += ways[k - i];
	}
	for (k = 0; k <= pairs; k++)
		all += ways[k];
	for (k = 0; k <= pairs && 2 * (below + ways[k]) / all <= CHANCE; k++) {
		below += ways[k];
		leave = (int)k;
	}
	return leave;
}

static int by_size(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

/* None, where there are too few rounds, or no memory for their pairs. */
static void find_interval(const double *before, unsigned n, const double *after, unsigned m,
			  struct change *change)
{
	int leave = pairs_to_leave(n, m);
	double *ratios;
	unsigned i, j;

	if (leave < 0)
		return;
	ratios = malloc(sizeof(*ratios) * n * m);
	if (!ratios)
		return;
	for (i = 0; i < n; i++)
		for (j = 0; j < m; j++)
			ratios[i * m + j] = after[j] / before[i];
	qsort(ratios, (size_t)n * m, sizeof(*ratios), by_size);
	change->low = ratios[leave];
	change->high = ratios[n * m - 1 - (unsigned)leave];
	free(ratios);
}

/* More is better, or of a price less. */
static enum verdict judge(const struct change *change, bool less_is_better)
{
	if (isnan(change->low))
		return NOISY;
	if (change->high < 1 && change->ratio <= 1 - TELLING)
		return less_is_better ? FASTER : SLOWER;
	if (change->low > 1 && change->ratio >= 1 + TELLING)
		return less_is_better ? SLOWER : FASTER;
	if (change->low < 1 - BLUR || change->high > 1 + BLUR)
		return NOISY;
	return SAME;
}

static unsigned positive(const struct bench_case *kase, unsigned engine, enum bench_metric metric,
			 double *values)
{
	unsigned round, n = 0;

	for (round = 0; round < kase->rounds_done; round++) {
		double value = bench_case_value(kase, round, engine, metric);

		if (value > 0)
			values[n++] = value;
	}
	return n;
}

static struct change compare_row(const struct bench_case *old, unsigned old_engine,
				 const struct bench_case *new, unsigned new_engine)
{
	static double before[BENCH_ROUNDS_MAX], after[BENCH_ROUNDS_MAX];
	struct change change = { .low = NAN, .high = NAN };
	enum bench_metric metric = bench_case_metric(old);
	unsigned n = positive(old, old_engine, metric, before);
	unsigned m = positive(new, new_engine, metric, after);

	if (n > 0 && m > 0)
		find_interval(before, n, after, m, &change);
	change.before = bench_median(before, n);
	change.after = bench_median(after, m);
	change.ratio = change.after / change.before;
	change.verdict = judge(&change, metric != BENCH_OPS);
	return change;
}

/* ------------------------------------------------- where they come from -- */

static void __attribute__((__format__(__printf__, 4, 5)))
warn(const struct bench_saved *old, const struct bench_saved *new, bool differ,
     const char *format, ...)
{
	char text[3 * BENCH_TEXT];
	va_list args;

	if (!differ)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	bench_complain("warning: %s and %s are of %s", old->path, new->path, text);
}

/* The floor's operations a second; NAN where it was not measured. */
static double floor_of(const struct bench_saved *saved)
{
	unsigned i, engine;

	for (i = 0; i < saved->plan.case_count; i++) {
		const struct bench_case *kase = &saved->plan.cases[i];

		engine = bench_case_find(kase, &bench_floor);
		if (engine < kase->engine_count && !kase->vectored)
			return bench_case_median(kase, engine, BENCH_OPS);
	}
	return NAN;
}

static void warn_of_differences(const struct bench_saved *old, const struct bench_saved *new)
{
	const struct bench_machine *a = &old->machine, *b = &new->machine;
	double before = floor_of(old), after = floor_of(new);

	warn(old, new, strcmp(a->cpu, b->cpu) != 0 || a->cpus != b->cpus ||
	     a->cpu_quota != b->cpu_quota || a->memory != b->memory,
	     "different machines: %s with %u CPUs, and %s with %u", a->cpu, a->cpus, b->cpu,
	     b->cpus);
	warn(old, new, strcmp(a->kernel, b->kernel) != 0, "different kernels: %s, and %s",
	     a->kernel, b->kernel);
	warn(old, new, old->on_file && new->on_file &&
	     (strcmp(a->fs, b->fs) != 0 || strcmp(a->device, b->device) != 0 ||
	      old->target.size != new->target.size),
	     "different files: %s on %s of %.0f MiB, and %s on %s of %.0f", a->fs, a->device,
	     (double)old->target.size / 0x1p20, b->fs, b->device,
	     (double)new->target.size / 0x1p20);
	warn(old, new, strcmp(a->environment, b->environment) != 0,
	     "different environments: '%s', and '%s'", a->environment, b->environment);
	warn(old, new, old->plan.workers != new->plan.workers,
	     "different numbers of workers: %u, and %u (0: as gyre chooses)", old->plan.workers,
	     new->plan.workers);
	warn(old, new, (before < BENCH_FLOOR_FAST && after >= BENCH_FLOOR_FAST) ||
	     (after < BENCH_FLOOR_FAST && before >= BENCH_FLOOR_FAST),
	     "different modes of the machine: %.0f hand-overs a second, and %.0f", before, after);
}

/* ------------------------------------------------------------- the table -- */

struct tally {
	unsigned verdicts[VERDICTS];
	unsigned rows;
	unsigned peers_changed;		/* engines that use nothing of gyre */
	unsigned alone;			/* rows that the other report lacks */
};

static const struct bench_case *find_case(const struct bench_plan *plan, const char *what)
{
	unsigned i;

	for (i = 0; i < plan->case_count; i++)
		if (strcmp(plan->cases[i].what, what) == 0)
			return &plan->cases[i];
	return NULL;
}

static void print_change(const char *engine, enum bench_metric metric, const struct change *change)
{
	char before[32], after[32], interval[48] = "-";

	if (metric == BENCH_OPS) {
		bench_text_count(before, sizeof(before), change->before);
		bench_text_count(after, sizeof(after), change->after);
	} else {
		bench_text_figure(before, sizeof(before), change->before);
		bench_text_figure(after, sizeof(after), change->after);
	}
	if (!isnan(change->low))
		snprintf(interval, sizeof(interval), "%.2f..%.2f", change->low, change->high);
	printf("  %-11s %12s %12s %7.2f  %-12s  %s%s\n", engine, before, after, change->ratio,
	       interval, verdict_names[change->verdict],
	       isnan(change->low) ? ": it takes five rounds each" : "");
}

static void compare_case(const struct bench_case *old, const struct bench_case *new,
			 struct tally *tally)
{
	enum bench_metric metric = bench_case_metric(old);
	bool titled = false;
	unsigned i;

	for (i = 0; i < old->engine_count; i++) {
		unsigned engine = bench_case_find(new, old->engines[i]);
		struct change change;

		if (engine == new->engine_count) {
			tally->alone++;
			continue;
		}
		if (!titled)
			printf("%s, %s\n", old->what, bench_metric_title(metric));
		titled = true;
		change = compare_row(old, i, new, engine);
		print_change(old->engines[i]->name, metric, &change);
		tally->rows++;
		tally->verdicts[change.verdict]++;
		if (change.verdict < SAME && !old->engines[i]->ours)
			tally->peers_changed++;
	}
	for (i = 0; i < new->engine_count; i++)
		tally->alone += bench_case_find(old, new->engines[i]) == old->engine_count;
}

static void count_alone(const struct bench_plan *plan, const struct bench_plan *other,
			struct tally *tally)
{
	unsigned i;

	for (i = 0; i < plan->case_count; i++)
		if (!find_case(other, plan->cases[i].what))
			tally->alone += plan->cases[i].engine_count;
}

static void print_tally(const struct tally *tally)
{
	unsigned verdict;

	if (tally->alone > 0)
		printf("\n%u row%s in only one of them.\n", tally->alone,
		       tally->alone == 1 ? " is" : "s are");
	if (tally->peers_changed > 0)
		printf("\nOf engines that use nothing of gyre %u changed, too: the machine was not "
		       "the same.\nMeasure both again, in turns.\n", tally->peers_changed);
	printf("\n%u row%s:", tally->rows, tally->rows == 1 ? "" : "s");
	for (verdict = 0; verdict < VERDICTS; verdict++)
		printf("%s %u %s", verdict ? "," : "", tally->verdicts[verdict],
		       verdict_names[verdict]);
	putchar('\n');
}

/* The exit status. */
static int compare_two(const struct bench_saved *old, const struct bench_saved *new)
{
	struct tally tally = { .rows = 0 };
	unsigned i;

	warn_of_differences(old, new);
	printf("old: %s, gyre %s, %s\nnew: %s, gyre %s, %s\n\n", old->path, old->machine.gyre,
	       old->machine.date, new->path, new->machine.gyre, new->machine.date);
	printf("  %-11s %12s %12s %7s  %-12s  %s\n", "engine", "old", "new", "ratio", "99 of 100",
	       "verdict");
	for (i = 0; i < old->plan.case_count; i++) {
		const struct bench_case *kase = &old->plan.cases[i];
		const struct bench_case *other = find_case(&new->plan, kase->what);

		if (other)
			compare_case(kase, other, &tally);
	}
	count_alone(&old->plan, &new->plan, &tally);
	count_alone(&new->plan, &old->plan, &tally);
	if (tally.rows == 0) {
		bench_complain("%s and %s have no row in common", old->path, new->path);
		return BENCH_EXIT_USAGE;
	}
	print_tally(&tally);
	return tally.verdicts[SLOWER] > 0 ? BENCH_EXIT_SLOWER : 0;
}

int bench_compare(const char *const *paths, unsigned count)
{
	struct bench_saved *old = NULL, *new;
	unsigned i;
	int rc, worst = 0;

	rc = -bench_saved_load(paths[0], &old);
	for (i = 1; i < count && rc != BENCH_EXIT_USAGE; i++) {
		rc = -bench_saved_load(paths[i], &new);
		if (rc != 0)
			break;
		if (i > 1)
			putchar('\n');
		rc = compare_two(old, new);
		bench_saved_free(new);
		if (rc > worst)
			worst = rc;
	}
	bench_saved_free(old);
	return rc > worst ? rc : worst;
}
