/* SPDX-License-Identifier: MIT */
/*
 * A page of pictures as SVG, which every browser shows and no program has to
 * be installed for. One row for each kind of work: on the left operations a
 * second over callers, on the right how latency is spread with most callers.
 * Each engine has the same colour and mark on the whole page, and its name
 * beside its line; colours are told apart by colour-blind readers, too.
 */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_WIDTH	1120.0
#define HEAD_HEIGHT	84.0
#define ROW_HEIGHT	336.0
#define PANEL_HEIGHT	200.0
#define LABEL_HEIGHT	15.0
#define LABEL_GAP	22.0		/* from the last column to the names */
#define PANEL_TOP	60.0		/* in its row */
#define ASIDE		5.0
#define PERCENTILES	4u

struct panel {
	FILE *file;
	double x, y, width;		/* of what is inside the axes */
	double low, high;		/* of the values; log: never zero */
	bool log;
	unsigned columns;
};

struct curve {
	const struct bench_engine *engine;
	unsigned points;
	unsigned column[BENCH_CASES_MAX];
	double value[BENCH_CASES_MAX], least[BENCH_CASES_MAX], most[BENCH_CASES_MAX];
	double label;			/* where its name goes */
	double aside;			/* of its columns, or strokes would cover each other */
};

/* Cases that differ in their callers alone, fewest first. */
struct group {
	const struct bench_case *cases[BENCH_CASES_MAX];
	unsigned count;
};

/* ---------------------------------------------------------------- marks -- */

static void put_text(FILE *file, const char *text)
{
	for (; *text; text++) {
		if (*text == '&' || *text == '<' || *text == '>' || (unsigned char)*text < 0x20)
			fprintf(file, "&#%u;", (unsigned char)*text < 0x20 ? ' ' : *text);
		else
			fputc(*text, file);
	}
}

static void put_line(FILE *file, double x, double y, const char *class, const char *text)
{
	fprintf(file, "<text x='%.1f' y='%.1f' class='%s'>", x, y, class);
	put_text(file, text);
	fputs("</text>\n", file);
}

static unsigned style_of(const struct bench_engine *engine)
{
	unsigned i;

	for (i = 0; bench_engines[i] && bench_engines[i] != engine; i++)
		;
	return i;
}

/* After Okabe and Ito, without their yellow, which white paper swallows. */
static const char *colour_of(const struct bench_engine *engine)
{
	static const char *const colours[] = {
		"#0072b2", "#000000", "#d55e00", "#cc79a7", "#009e73", "#e69f00", "#56b4e9",
	};

	return colours[style_of(engine) % (sizeof(colours) / sizeof(colours[0]))];
}

static void put_mark(FILE *file, double x, double y, const struct bench_engine *engine)
{
	static const char *const shapes[] = {
		"m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z", "m-4-4h8v8h-8z",
		"m0-5.5l5.5 5.5l-5.5 5.5l-5.5-5.5z", "m0-5.5l5 9h-10z",
	};

	fprintf(file, "<path d='M%.1f %.1f%s' fill='%s'/>\n", x, y, shapes[style_of(engine) % 4],
		colour_of(engine));
}

/* 1.5 M, 20 k, 0.5 */
static char *short_number(char *buf, size_t size, double value)
{
	const char *unit = value >= 1e6 ? " M" : value >= 1e3 ? " k" : "";
	double scaled = value >= 1e6 ? value / 1e6 : value >= 1e3 ? value / 1e3 : value;

	snprintf(buf, size, "%.3g%s", scaled, unit);
	return buf;
}

/* ----------------------------------------------------------------- axes -- */

static double x_of(const struct panel *panel, unsigned column)
{
	return panel->x + panel->width * (column + 0.5) / panel->columns;
}

static double y_of(const struct panel *panel, double value)
{
	double share = (value - panel->low) / (panel->high - panel->low);

	if (panel->log)
		share = log(value / panel->low) / log(panel->high / panel->low);
	return panel->y + PANEL_HEIGHT * (1 - share);
}

static void put_tick(const struct panel *panel, double value)
{
	double y = y_of(panel, value);
	char text[32];

	fprintf(panel->file, "<path d='M%.1f %.1fh%.1f' class='grid'/>\n", panel->x, y,
		panel->width);
	put_line(panel->file, panel->x - 8, y + 4, "tick",
		 short_number(text, sizeof(text), value));
}

/* From zero, so that twice as high is twice as many. */
static void scale_linear(struct panel *panel, double most)
{
	double step = pow(10, floor(log10(most / 4))), value;

	step *= most / step > 20 ? 5 : most / step > 8 ? 2 : 1;
	panel->low = 0;
	panel->high = ceil(most / step) * step;
	for (value = 0; value < panel->high + step / 2; value += step)
		put_tick(panel, value);
}

/* To the next of 1, 2 and 5 on either side; these are named while there is room. */
static void scale_log(struct panel *panel, double least, double most)
{
	static const double steps[] = { 1, 2, 5 };
	double decade;
	unsigned i;

	panel->log = true;
	panel->low = pow(10, floor(log10(least)));
	for (i = 2; i > 0 && panel->low * steps[i] > least; i--)
		;
	panel->low *= steps[i];
	panel->high = pow(10, floor(log10(most)));
	for (i = 0; i < 2 && panel->high * steps[i] < most; i++)
		;
	panel->high *= panel->high * steps[i] < most ? 10 : steps[i];
	if (panel->high <= panel->low)
		panel->high = panel->low * 10;
	for (decade = pow(10, floor(log10(panel->low))); decade <= panel->high * 1.001;
	     decade *= 10)
		for (i = 0; i < 3; i++)
			if (decade * steps[i] >= panel->low * 0.999 &&
			    decade * steps[i] <= panel->high * 1.001 &&
			    (i == 0 || panel->high / panel->low <= 2000))
				put_tick(panel, decade * steps[i]);
}

static void put_columns(const struct panel *panel, unsigned column, const char *name)
{
	put_line(panel->file, x_of(panel, column), panel->y + PANEL_HEIGHT + 18, "column", name);
}

/* --------------------------------------------------------------- curves -- */

static int by_height(const void *a, const void *b)
{
	double left = (*(struct curve *const *)a)->label,
	       right = (*(struct curve *const *)b)->label;

	return (left > right) - (left < right);
}

/* Names beside the ends of their lines, pushed apart until none covers another. */
static void place_labels(const struct panel *panel, struct curve *curves, unsigned count)
{
	struct curve *sorted[BENCH_ENGINES_MAX];
	double limit = panel->y + PANEL_HEIGHT + LABEL_HEIGHT / 2;
	unsigned i;

	for (i = 0; i < count; i++) {
		sorted[i] = &curves[i];
		curves[i].label = y_of(panel, curves[i].value[curves[i].points - 1]);
	}
	qsort(sorted, count, sizeof(sorted[0]), by_height);
	for (i = 1; i < count; i++)
		if (sorted[i]->label < sorted[i - 1]->label + LABEL_HEIGHT)
			sorted[i]->label = sorted[i - 1]->label + LABEL_HEIGHT;
	for (i = count; i-- > 0; limit = sorted[i]->label - LABEL_HEIGHT)
		if (sorted[i]->label > limit)
			sorted[i]->label = limit;
}

static void put_curve(const struct panel *panel, const struct curve *curve)
{
	bool ours = curve->engine == &bench_gyre || curve->engine == &bench_task;
	double x = 0, y = 0, end = panel->x + panel->width + LABEL_GAP;
	char number[32], text[64];
	unsigned i;

	fprintf(panel->file, "<g fill='none' stroke='%s'><path stroke-width='%s' d='",
		colour_of(curve->engine), ours ? "3" : "1.6");
	for (i = 0; i < curve->points; i++)
		fprintf(panel->file, "%c%.1f %.1f", i ? 'L' : 'M',
			x_of(panel, curve->column[i]) + curve->aside,
			y_of(panel, curve->value[i]));
	fputs("'/><path class='range' d='M0 0", panel->file);
	for (i = 0; i < curve->points; i++)
		fprintf(panel->file, "M%.1f %.1fV%.1f",
			x_of(panel, curve->column[i]) + curve->aside,
			y_of(panel, curve->least[i]), y_of(panel, curve->most[i]));
	fputs("'/></g>\n", panel->file);
	for (i = 0; i < curve->points; i++) {
		x = x_of(panel, curve->column[i]) + curve->aside;
		y = y_of(panel, curve->value[i]);
		put_mark(panel->file, x, y, curve->engine);
	}
	fprintf(panel->file, "<path d='M%.1f %.1fL%.1f %.1f' class='lead' stroke='%s'/>\n", x + 6,
		y, end - 3, curve->label, colour_of(curve->engine));
	snprintf(text, sizeof(text), "%s  %s", curve->engine->name,
		 short_number(number, sizeof(number), curve->value[curve->points - 1]));
	put_line(panel->file, end, curve->label + 4, ours ? "ours" : "name", text);
}

static void put_curves(const struct panel *panel, struct curve *curves, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++)
		curves[i].aside = ASIDE * (i - (count - 1) / 2.0);
	place_labels(panel, curves, count);
	for (i = 0; i < count; i++)
		put_curve(panel, &curves[i]);
}

/* --------------------------------------------------------------- panels -- */

static struct curve *curve_of(struct curve *curves, unsigned *count,
			      const struct bench_engine *engine)
{
	unsigned i;

	for (i = 0; i < *count; i++)
		if (curves[i].engine == engine)
			return &curves[i];
	if (*count == BENCH_ENGINES_MAX)
		return NULL;
	curves[*count].engine = engine;
	curves[*count].points = 0;
	return &curves[(*count)++];
}

static void add_point(struct curve *curve, unsigned column, const struct bench_case *kase,
		      unsigned engine, enum bench_metric metric)
{
	double median = bench_case_median(kase, engine, metric);
	unsigned round, at = curve->points;

	if (!(median > 0))
		return;
	curve->column[at] = column;
	curve->value[at] = curve->least[at] = curve->most[at] = median;
	for (round = 0; round < kase->rounds_done; round++) {
		double value = bench_case_value(kase, round, engine, metric);

		if (value > 0 && value < curve->least[at])
			curve->least[at] = value;
		if (value > curve->most[at])
			curve->most[at] = value;
	}
	curve->points++;
}

/* Those without a point go; what the others reach is told. False: none is left. */
static bool settle_curves(struct curve *curves, unsigned *count, double *ret_least,
			  double *ret_most)
{
	unsigned i, point, kept = 0;

	*ret_least = INFINITY;
	*ret_most = 0;
	for (i = 0; i < *count; i++) {
		if (curves[i].points == 0)
			continue;
		for (point = 0; point < curves[i].points; point++) {
			*ret_least = fmin(*ret_least, curves[i].least[point]);
			*ret_most = fmax(*ret_most, curves[i].most[point]);
		}
		curves[kept++] = curves[i];
	}
	*count = kept;
	return kept > 0;
}

static void put_throughput(FILE *file, const struct group *group, double top)
{
	static struct curve curves[BENCH_ENGINES_MAX];
	struct panel panel = { file, 90, top + PANEL_TOP, 300, 0, 1, false, group->count };
	enum bench_metric metric = group->cases[0]->rate > 0 ? BENCH_CPU_PERCENT :
							       bench_case_metric(group->cases[0]);
	unsigned i, engine, count = 0;
	double least, most;
	char text[32];

	for (i = 0; i < group->count; i++) {
		for (engine = 0; engine < group->cases[i]->engine_count; engine++) {
			struct curve *curve = curve_of(curves, &count,
						       group->cases[i]->engines[engine]);

			if (curve)
				add_point(curve, i, group->cases[i], engine, metric);
		}
		snprintf(text, sizeof(text), "%u", group->cases[i]->callers);
		put_columns(&panel, i, text);
	}
	put_line(file, 90, top + PANEL_TOP - 14, "what",
		 metric == BENCH_OPS ? "operations a second (more is better)" :
		 metric == BENCH_RSS ? "bytes of memory each (less is better)" :
				       "CPU time, % of one CPU (less is better)");
	put_line(file, 240, top + PANEL_TOP + PANEL_HEIGHT + 38, "column",
		 metric == BENCH_RSS ? "how many" : "callers");
	if (!settle_curves(curves, &count, &least, &most))
		return;
	scale_linear(&panel, most);
	put_curves(&panel, curves, count);
}

static void put_latency(FILE *file, const struct bench_case *kase, double top)
{
	static const enum bench_metric metrics[PERCENTILES] = {
		BENCH_P50, BENCH_P90, BENCH_P99, BENCH_P999,
	};
	static const char *const names[PERCENTILES] = { "p50", "p90", "p99", "p99.9" };
	static struct curve curves[BENCH_ENGINES_MAX];
	struct panel panel = { file, 640, top + PANEL_TOP, 300, 0, 1, true, PERCENTILES };
	unsigned i, engine, count = 0;
	double least, most;
	char text[96];

	for (i = 0; i < PERCENTILES; i++) {
		for (engine = 0; engine < kase->engine_count; engine++)
			add_point(curve_of(curves, &count, kase->engines[engine]), i, kase, engine,
				  metrics[i]);
		put_columns(&panel, i, names[i]);
	}
	snprintf(text, sizeof(text), "latency in us with %u caller%s (less is better)",
		 kase->callers, kase->callers == 1 ? "" : "s");
	put_line(file, 640, top + PANEL_TOP - 14, "what", text);
	put_line(file, 790, top + PANEL_TOP + PANEL_HEIGHT + 38, "column",
		 "share of operations that were no slower");
	if (!settle_curves(curves, &count, &least, &most))
		return;
	scale_log(&panel, least, most);
	put_curves(&panel, curves, count);
}

/* ----------------------------------------------------------------- page -- */

static bool same_group(const struct bench_case *a, const struct bench_case *b)
{
	return a->work == b->work && a->batch == b->batch && a->vectored == b->vectored &&
	       a->block_size == b->block_size && a->direct == b->direct && a->rate == b->rate &&
	       a->spin_ns == b->spin_ns;
}

static unsigned make_groups(const struct bench_plan *plan, struct group *groups)
{
	unsigned i, at, place, count = 0;

	for (i = 0; i < plan->case_count; i++) {
		const struct bench_case *kase = &plan->cases[i];

		for (at = 0; at < count && !same_group(groups[at].cases[0], kase); at++)
			;
		if (at == count)
			groups[count++].count = 0;
		for (place = groups[at].count++; place > 0 &&
		     groups[at].cases[place - 1]->callers > kase->callers; place--)
			groups[at].cases[place] = groups[at].cases[place - 1];
		groups[at].cases[place] = kase;
	}
	return count;
}

static void put_head(FILE *file, const struct bench_plan *plan, const struct bench_machine *machine,
		     double height)
{
	char text[5 * BENCH_TEXT];

	fprintf(file, "<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' "
		"viewBox='0 0 %.0f %.0f'>\n<style>\n"
		"text { font: 12px sans-serif; fill: #222; white-space: pre }\n"
		".title { font-size: 18px; font-weight: bold } .head { font-size: 15px; "
		"font-weight: bold }\n.what { font-size: 13px } .ours { font-weight: bold }\n"
		".tick { text-anchor: end; fill: #555 } .column { text-anchor: middle; "
		"fill: #555 }\n.grid { stroke: #ddd } .lead { stroke-dasharray: 1 3; "
		"fill: none }\n.range { stroke-width: 1.2; opacity: 0.6 }\n</style>\n"
		"<rect width='100%%' height='100%%' fill='#fff'/>\n",
		PAGE_WIDTH, height, PAGE_WIDTH, height);
	snprintf(text, sizeof(text), "gyre %s on %s, %u CPU%s", machine->gyre, machine->cpu,
		 machine->cpus, machine->cpus == 1 ? "" : "s");
	put_line(file, 24, 32, "title", text);
	snprintf(text, sizeof(text), "%s%s%s%s%s; %u round%s of %g s; %s", machine->kernel,
		 machine->fs[0] ? ", " : "", machine->fs, machine->fs[0] ? " on " : "",
		 machine->fs[0] ? machine->device : "", plan->rounds, plan->rounds == 1 ? "" : "s",
		 plan->seconds, machine->date);
	put_line(file, 24, 54, "what", text);
	put_line(file, 24, 73, "what", "Marks are medians, upright strokes reach from the lowest "
		 "round to the highest. gyre, task: the thick lines.");
}

int bench_plot_write(struct bench_output *output, const struct bench_plan *plan,
		     const struct bench_machine *machine)
{
	static struct group groups[BENCH_CASES_MAX];
	unsigned i, count = make_groups(plan, groups);
	int rc = bench_output_begin(output);
	struct bench_case named;

	if (rc < 0)
		return rc;
	put_head(output->file, plan, machine, HEAD_HEIGHT + count * ROW_HEIGHT);
	for (i = 0; i < count; i++) {
		double top = HEAD_HEIGHT + i * ROW_HEIGHT;

		named = *groups[i].cases[0];
		named.callers = 0;
		bench_case_name(&named);
		fprintf(output->file, "<path d='M24 %.1fH%.1f' class='grid'/>\n", top + 4,
			PAGE_WIDTH - 24);
		put_line(output->file, 24, top + 22, "head", named.what);
		put_throughput(output->file, &groups[i], top);
		/* Who sleeps has no latency. */
		if (named.work != BENCH_SLEEPERS)
			put_latency(output->file, groups[i].cases[groups[i].count - 1], top);
	}
	fputs("</svg>\n", output->file);
	return bench_output_end(output);
}
