/* SPDX-License-Identifier: MIT */
/*
 * How far it is, on stderr: on a terminal one line that is written over and
 * over, elsewhere a line for each run, with --quiet nothing.
 */
#include "bench.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Threads, rings and a runtime made and undone: a guess until it has been seen. */
#define RUN_OVERHEAD_S	0.03

double bench_plan_seconds(const struct bench_plan *plan)
{
	double seconds = 0;
	unsigned i;

	for (i = 0; i < plan->case_count; i++)
		seconds += plan->cases[i].rounds * plan->cases[i].engine_count *
			   (plan->cases[i].seconds + plan->warmup + RUN_OVERHEAD_S);
	return seconds;
}

void bench_progress_start(struct bench_progress *progress, const struct bench_plan *plan)
{
	unsigned i;

	memset(progress, 0, sizeof(*progress));
	progress->quiet = plan->quiet;
	progress->terminal = isatty(STDERR_FILENO);
	progress->start_ns = bench_now_ns();
	for (i = 0; i < plan->case_count; i++)
		progress->runs += plan->cases[i].rounds * plan->cases[i].engine_count;
	progress->run_seconds = bench_plan_seconds(plan) / progress->runs;
}

/* From the runs so far, once there are some. */
static double seconds_left(const struct bench_progress *progress, double into_run)
{
	double each = progress->run_seconds;
	double left;

	if (progress->runs_done > 0)
		each = (double)(bench_now_ns() - progress->start_ns) / 1e9 /
		       (progress->runs_done + (into_run > 0 ? 0.5 : 0));
	left = each * (progress->runs - progress->runs_done) - into_run;
	return left > 0 ? left : 0;
}

/* A line that wraps cannot be written over. */
static int terminal_width(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
		return size.ws_col - 1;
	return 79;
}

static void show_line(const struct bench_progress *progress, const char *rate, double into_run)
{
	char line[256];

	snprintf(line, sizeof(line), "%s: %s, round %u of %u, %s, %.0f s left",
		 progress->kase->what, progress->engine->name, progress->round + 1,
		 progress->rounds, rate, seconds_left(progress, into_run));
	fprintf(stderr, "\r%.*s\033[K", terminal_width(), line);
	fflush(stderr);
}

void bench_progress_run(struct bench_progress *progress, const struct bench_case *kase,
			const struct bench_engine *engine, unsigned round)
{
	progress->kase = kase;
	progress->engine = engine;
	progress->round = round;
	progress->rounds = kase->rounds;
	if (!progress->quiet && progress->terminal)
		show_line(progress, "warming up", 0);
}

void bench_progress_tick(void *arg, uint64_t ops, double seconds)
{
	const struct bench_progress *progress = arg;
	char count[32], rate[48];

	if (progress->quiet || !progress->terminal)
		return;
	snprintf(rate, sizeof(rate), "%s ops/s",
		 bench_text_count(count, sizeof(count), (double)ops / seconds));
	show_line(progress, rate, seconds);
}

void bench_progress_result(struct bench_progress *progress, const struct bench_result *result)
{
	char count[32], p50[32];

	progress->runs_done++;
	if (progress->quiet || progress->terminal)
		return;
	fprintf(stderr, "%s: %s, round %u of %u: %s ops/s, p50 %s us\n", progress->kase->what,
		progress->engine->name, progress->round + 1, progress->rounds,
		bench_text_count(count, sizeof(count), result->value[BENCH_OPS]),
		bench_text_figure(p50, sizeof(p50), result->value[BENCH_P50]));
}

void bench_progress_say(const struct bench_plan *plan, const char *text)
{
	if (plan->quiet || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r%.*s\033[K", terminal_width(), text ? text : "");
	fflush(stderr);
}
