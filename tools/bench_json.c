/* SPDX-License-Identifier: MIT */
/* The whole of it for programs: every round's figures, where a table shows medians. */
#include "bench.h"

#include <math.h>

/* -------------------------------------------------------------- contents -- */

const char *bench_metric_key(enum bench_metric metric)
{
	static const char *const keys[BENCH_METRICS] = {
		[BENCH_OPS] = "ops_per_s",
		[BENCH_P50] = "p50_us",
		[BENCH_P90] = "p90_us",
		[BENCH_P99] = "p99_us",
		[BENCH_P999] = "p999_us",
		[BENCH_MAX] = "max_us",
		[BENCH_CPU_US] = "cpu_us_per_op",
		[BENCH_SWITCHES] = "switches_per_op",
		[BENCH_SHARE] = "slowest_caller",
		[BENCH_CPU_PERCENT] = "cpu_percent",
		[BENCH_IN_CALLER] = "gyre_in_caller",
		[BENCH_AWAKE] = "gyre_callers_awake",
		[BENCH_RSS] = "rss_bytes",
		[BENCH_START] = "start_us",
		[BENCH_WAKE] = "wake_us",
	};

	return keys[metric];
}

static void write_target(struct json *json, const struct bench_target *target,
			 const struct bench_machine *machine)
{
	static const char *const caches[] = {
		[BENCH_CACHE_UNKNOWN] = "as it was",
		[BENCH_CACHE_WARM] = "warmed",
		[BENCH_CACHE_TOO_SMALL] = "not warmed, file too large",
		[BENCH_CACHE_DROPPED] = "dropped",
	};

	json_open(json, "target", '{');
	json_string(json, "path", target->name);
	json_bool(json, "temporary", target->temporary);
	json_integer(json, "size_bytes", target->size);
	json_string(json, "file_system", machine->fs);
	json_string(json, "device", machine->device);
	json_string(json, "device_about", machine->device_about);
	json_string(json, "page_cache_at_the_end", caches[target->cache]);
	json_close(json, '}');
}

static void write_round(struct json *json, const struct bench_case *kase, unsigned round,
			unsigned engine)
{
	unsigned metric;

	json_open(json, NULL, '{');
	for (metric = 0; metric < BENCH_METRICS; metric++)
		json_number(json, bench_metric_key(metric),
			    bench_case_value(kase, round, engine, metric));
	json_close(json, '}');
}

static void write_ratio(struct json *json, const char *key, const struct bench_case *kase,
			unsigned engine, enum bench_metric metric)
{
	struct bench_ratio ratio = bench_case_ratio(kase, engine, kase->base, metric);

	json_open(json, key, '{');
	json_number(json, "median", ratio.median);
	json_number(json, "lowest", ratio.lowest);
	json_number(json, "highest", ratio.highest);
	json_close(json, '}');
}

static void write_engine(struct json *json, const struct bench_case *kase, unsigned engine)
{
	unsigned i;

	json_open(json, NULL, '{');
	json_string(json, "engine", kase->engines[engine]->name);
	json_open(json, "median", '{');
	for (i = 0; i < BENCH_METRICS; i++)
		json_number(json, bench_metric_key(i), bench_case_median(kase, engine, i));
	json_close(json, '}');
	write_ratio(json, "ops_ratio", kase, engine, BENCH_OPS);
	write_ratio(json, "cpu_ratio", kase, engine, BENCH_CPU_US);
	json_open(json, "rounds", '[');
	for (i = 0; i < kase->rounds_done; i++)
		write_round(json, kase, i, engine);
	json_close(json, ']');
	json_close(json, '}');
}

static void write_case(struct json *json, const struct bench_case *kase)
{
	unsigned i;

	json_open(json, NULL, '{');
	json_string(json, "what", kase->what);
	json_string(json, "work", bench_work_name(kase->work));
	json_integer(json, "callers", kase->callers);
	json_integer(json, "batch", kase->batch);
	json_bool(json, "vectored", kase->vectored);
	if (bench_case_uses_file(kase)) {
		json_integer(json, "block_size", kase->block_size);
		json_bool(json, "direct", kase->direct);
	}
	json_number(json, "seconds", kase->seconds);
	json_number(json, "rate", kase->rate > 0 ? kase->rate : NAN);
	if (kase->spin_ns == GYRE_SPIN_NEVER)
		json_string(json, "spin_ns", "never");
	else if (kase->spin_ns == GYRE_SPIN_AUTO)
		json_string(json, "spin_ns", "auto");
	else if (kase->spin_ns == 0)
		json_string(json, "spin_ns", "default");
	else
		json_integer(json, "spin_ns", kase->spin_ns);
	json_string(json, "ratio_to", kase->engines[kase->base]->name);
	json_open(json, "engines", '[');
	for (i = 0; i < kase->engine_count; i++)
		write_engine(json, kase, i);
	json_close(json, ']');
	json_close(json, '}');
}

static void write_goal(struct json *json, const struct bench_plan *plan,
		       const struct bench_goal *goal)
{
	struct bench_verdict verdict = bench_goal_judge(plan, goal);

	json_open(json, NULL, '{');
	json_string(json, "what", plan->cases[goal->kase].what);
	json_string(json, "engine", goal->engine->name);
	json_string(json, "against", goal->against ? goal->against->name : NULL);
	json_string(json, "figure", bench_goal_figure(goal));
	json_number(json, "value", verdict.value);
	if (goal->sense != BENCH_TOLD) {
		json_number(json, goal->sense == BENCH_AT_LEAST ? "at_least" : "at_most",
			    verdict.limit);
		if (goal->ns > 0)
			json_number(json, "ns_on_the_reference_machine", goal->ns);
		json_bool(json, "met", verdict.met);
	}
	json_close(json, '}');
}

static void write_plan(struct json *json, const struct bench_plan *plan)
{
	json_open(json, "plan", '{');
	json_string(json, "suite", plan->suite);
	json_number(json, "seconds", plan->seconds);
	json_number(json, "warmup_seconds", plan->warmup);
	json_integer(json, "rounds", plan->rounds);
	json_integer(json, "workers", plan->workers);
	json_close(json, '}');
}

/* -------------------------------------------------------------- together -- */

static void write_report(struct json *json, const struct bench_plan *plan,
			 const struct bench_target *target, const struct bench_machine *machine)
{
	unsigned i;

	json_open(json, NULL, '{');
	json_string(json, "tool", "gyre-bench");
	json_integer(json, "format", BENCH_JSON_FORMAT);
	json_string(json, "date", machine->date);
	bench_machine_write(json, machine);
	if (target)
		write_target(json, target, machine);
	write_plan(json, plan);
	json_open(json, "cases", '[');
	for (i = 0; i < plan->case_count; i++)
		write_case(json, &plan->cases[i]);
	json_close(json, ']');
	if (plan->goal_count > 0) {
		json_open(json, "runtime", '{');
		json_number(json, "open_close_us", plan->life.open_close_us);
		json_number(json, "rss_kib", plan->life.rss_kib);
		json_number(json, "idle_switches", plan->life.idle_switches);
		json_number(json, "idle_cpu_us", plan->life.idle_cpu_us);
		json_close(json, '}');
		json_open(json, "goals", '[');
		for (i = 0; i < plan->goal_count; i++)
			write_goal(json, plan, &plan->goals[i]);
		json_close(json, ']');
	}
	json_close(json, '}');
	fputc('\n', json->file);
}

int bench_json_write(struct bench_output *output, const struct bench_plan *plan,
		     const struct bench_target *target, const struct bench_machine *machine)
{
	struct json json = { .file = output->file, .first = true };
	int rc = bench_output_begin(output);

	if (rc < 0)
		return rc;
	write_report(&json, plan, target, machine);
	return bench_output_end(output);
}
