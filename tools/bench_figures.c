/* SPDX-License-Identifier: MIT */
/* From rounds to one figure: medians, paired ratios, and whether a goal is met. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>

static int compare_doubles(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

/* Moves the values that are no NAN to the front, in order; how many those are. */
static unsigned sort_numbers(double *values, unsigned n)
{
	unsigned i, kept = 0;

	for (i = 0; i < n; i++)
		if (!isnan(values[i]))
			values[kept++] = values[i];
	qsort(values, kept, sizeof(*values), compare_doubles);
	return kept;
}

double bench_median(double *values, unsigned n)
{
	n = sort_numbers(values, n);
	if (n == 0)
		return NAN;
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double bench_case_value(const struct bench_case *kase, unsigned round, unsigned engine,
			enum bench_metric metric)
{
	return kase->results[round * kase->engine_count + engine].value[metric];
}

double bench_case_median(const struct bench_case *kase, unsigned engine, enum bench_metric metric)
{
	double values[BENCH_ROUNDS_MAX];
	unsigned round;

	for (round = 0; round < kase->rounds_done; round++)
		values[round] = bench_case_value(kase, round, engine, metric);
	return bench_median(values, kase->rounds_done);
}

struct bench_ratio bench_case_ratio(const struct bench_case *kase, unsigned engine, unsigned base,
				    enum bench_metric metric)
{
	struct bench_ratio ratio = { .median = NAN, .lowest = NAN, .highest = NAN };
	double values[BENCH_ROUNDS_MAX];
	unsigned round, n;

	for (round = 0; round < kase->rounds_done; round++) {
		double below = bench_case_value(kase, round, base, metric);

		values[round] = below > 0 ?
				bench_case_value(kase, round, engine, metric) / below : NAN;
	}
	n = sort_numbers(values, kase->rounds_done);
	if (n > 0) {
		ratio.lowest = values[0];
		ratio.highest = values[n - 1];
		ratio.median = bench_median(values, n);
	}
	return ratio;
}

unsigned bench_case_find(const struct bench_case *kase, const struct bench_engine *engine)
{
	unsigned i;

	for (i = 0; i < kase->engine_count; i++)
		if (kase->engines[i] == engine)
			break;
	return i;
}

const char *bench_metric_title(enum bench_metric metric)
{
	switch (metric) {
	case BENCH_OPS:
		return "ops/s";
	case BENCH_P50:
		return "p50 us";
	case BENCH_CPU_US:
		return "CPU us/op";
	case BENCH_SHARE:
		return "slowest caller";
	case BENCH_CPU_PERCENT:
		return "CPU %";
	case BENCH_AWAKE:
		return "caller awake";
	case BENCH_RSS:
		return "RSS bytes";
	default:
		return "figure";
	}
}

const char *bench_goal_figure(const struct bench_goal *goal)
{
	if (!goal->against)
		return bench_metric_title(goal->metric);
	switch (goal->metric) {
	case BENCH_OPS:
		return "ops/s ratio";
	case BENCH_P50:
		return "p50 ratio";
	case BENCH_CPU_US:
		return "CPU ratio";
	default:
		return "ratio";
	}
}

struct bench_verdict bench_goal_judge(const struct bench_plan *plan, const struct bench_goal *goal)
{
	const struct bench_case *kase = &plan->cases[goal->kase];
	unsigned engine = bench_case_find(kase, goal->engine);
	unsigned floor_engine = bench_case_find(kase, &bench_floor);
	struct bench_verdict verdict = { .limit = goal->limit };

	if (goal->against)
		verdict.value = bench_case_ratio(kase, engine,
						 bench_case_find(kase, goal->against),
						 goal->metric).median;
	else
		verdict.value = bench_case_median(kase, engine, goal->metric);
	if (goal->limit_slow > 0 && floor_engine < kase->engine_count &&
	    bench_case_median(kase, floor_engine, BENCH_OPS) < BENCH_FLOOR_FAST)
		verdict.limit = goal->limit_slow;
	switch (goal->sense) {
	case BENCH_TOLD:
		verdict.met = true;
		break;
	case BENCH_AT_LEAST:
		verdict.met = verdict.value >= verdict.limit;
		break;
	case BENCH_AT_MOST:
		verdict.met = verdict.value <= verdict.limit;
		break;
	}
	return verdict;
}
