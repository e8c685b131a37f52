/* SPDX-License-Identifier: MIT */
/*
 * The figures of a runtime, as a struct and as text. One table knows each of
 * them; the three formats only differ in how they print its rows.
 */
#include <gyre.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "elsewhere.h"
#include "offload.h"
#include "ring/sys.h"
#include "runtime.h"
#include "text.h"
#include "thread.h"

/* Version 0.1's size of the struct, for programs that were compiled then. */
#define STATS_SIZE_0_1 (offsetof(struct gyre_stats, calls_in_caller) + sizeof(uint64_t))
#define STATS_SIZE_MAX 4096

/* Columns of workers side by side in the table for people. */
#define TEXT_WORKERS_MAX 8

enum kind {
	COUNTER,		/* only grows */
	GAUGE			/* is of now */
};

enum scope {
	OF_WORKER,		/* each worker has it; the runtime has their sum */
	OF_RUNTIME		/* only the runtime as a whole has it */
};

struct figure {
	const char *name;
	const char *help;
	size_t at;		/* in struct gyre_stats */
	enum kind kind;
	enum scope scope;
};

#define FIGURE(name, kind, scope, help) \
	{ #name, help, offsetof(struct gyre_stats, name), kind, scope }

static const struct figure figures[] = {
	FIGURE(calls, COUNTER, OF_RUNTIME,
	       "Calls of the bridge: gyre_call, gyre_callv and the pread family."),
	FIGURE(ops_submitted, COUNTER, OF_WORKER, "Operations handed to the kernel."),
	FIGURE(ops_completed, COUNTER, OF_WORKER, "Operations that the kernel has answered."),
	FIGURE(ops_failed, COUNTER, OF_WORKER, "Operations answered with an error."),
	FIGURE(ops_cancelled, COUNTER, OF_WORKER, "Operations that ended cancelled."),
	FIGURE(ops_timed_out, COUNTER, OF_WORKER, "Operations that ended at their time-out."),
	FIGURE(inflight, GAUGE, OF_WORKER, "Operations that the kernel has and has not answered."),
	FIGURE(queued, GAUGE, OF_WORKER, "Operations accepted that the kernel does not have yet."),
	FIGURE(enters, COUNTER, OF_WORKER, "Calls of io_uring_enter."),
	FIGURE(wakeups_sent, COUNTER, OF_WORKER, "Submissions that had to wake the worker."),
	FIGURE(wakeups_elided, COUNTER, OF_WORKER, "Submissions that found the worker awake."),
	FIGURE(replies_spun, COUNTER, OF_WORKER, "Replies that found the caller awake."),
	FIGURE(replies_slept, COUNTER, OF_WORKER, "Replies that had to wake the caller."),
	FIGURE(jobs_started, COUNTER, OF_WORKER, "Jobs that began to run."),
	FIGURE(jobs_finished, COUNTER, OF_WORKER, "Jobs that ended."),
	FIGURE(jobs_panicked, COUNTER, OF_WORKER, "Jobs that ended by a panic."),
	FIGURE(jobs_cancelled, COUNTER, OF_WORKER, "Jobs that ended cancelled."),
	FIGURE(jobs_running, GAUGE, OF_WORKER, "Jobs that have not ended."),
	FIGURE(tasks_started, COUNTER, OF_WORKER, "Tasks that began to run."),
	FIGURE(tasks_live, GAUGE, OF_WORKER, "Tasks that have not ended."),
	FIGURE(tasks_leftover, COUNTER, OF_WORKER, "Tasks still alive when their job ended."),
	FIGURE(arena_bytes, GAUGE, OF_WORKER, "Bytes allocated in arenas."),
	FIGURE(arena_bytes_max, GAUGE, OF_WORKER,
	       "The most bytes that the arenas of a worker had."),
	FIGURE(stacks_live, GAUGE, OF_WORKER, "Stacks in use."),
	FIGURE(stacks_cached, GAUGE, OF_WORKER, "Stacks kept for the next task."),
	FIGURE(pool_size, GAUGE, OF_RUNTIME, "States that the pool may keep."),
	FIGURE(pool_cached, GAUGE, OF_WORKER, "States that the pool has."),
	FIGURE(pool_hits, COUNTER, OF_WORKER, "Jobs that found their key's state."),
	FIGURE(pool_misses, COUNTER, OF_WORKER, "Jobs whose state had to be created."),
	FIGURE(pool_evictions, COUNTER, OF_WORKER, "States that had to go for others."),
	FIGURE(pool_waits, COUNTER, OF_WORKER,
	       "Jobs that waited for their state, or for room for it."),
	FIGURE(stalls, COUNTER, OF_WORKER, "Tasks that ran too long without yielding."),
	FIGURE(cq_overflows, COUNTER, OF_WORKER, "Times that the completion queue was full."),
	FIGURE(workers_alive, GAUGE, OF_WORKER, "Workers that run."),
	FIGURE(workers_dead, GAUGE, OF_WORKER, "Workers that stopped on an error."),
	FIGURE(calls_in_caller, COUNTER, OF_RUNTIME,
	       "Calls served by a system call in the caller's own thread."),
	FIGURE(durable_writes, COUNTER, OF_RUNTIME, "Durable writes that were answered OK."),
	FIGURE(durable_flushes, COUNTER, OF_RUNTIME,
	       "Flushes for durable writes, gyre_fsync and gyre_fdatasync."),
	FIGURE(durable_shared, COUNTER, OF_RUNTIME,
	       "Calls that were covered by another call's flush."),
	FIGURE(durable_failed, COUNTER, OF_RUNTIME, "Of these flushes, those that failed."),
	FIGURE(durable_by_dsync, COUNTER, OF_RUNTIME,
	       "Durable writes made by RWF_DSYNC in the caller's own thread."),
	FIGURE(durable_by_ring, COUNTER, OF_RUNTIME,
	       "Durable writes made by RWF_DSYNC through a ring."),
	FIGURE(durable_by_group, COUNTER, OF_RUNTIME,
	       "Durable writes made by a write and a flush that can be shared."),
	FIGURE(durable_failed_files, GAUGE, OF_RUNTIME,
	       "Files that count as failed since a flush of theirs has."),
	FIGURE(stack_bytes_max, GAUGE, OF_WORKER,
	       "The deepest that a task's stack was found used."),
};

#define FIGURES (sizeof(figures) / sizeof(figures[0]))

_Static_assert(sizeof(struct gyre_stats) ==
	       offsetof(struct gyre_stats, calls) + FIGURES * sizeof(uint64_t),
	       "struct gyre_stats has grown: give the new figure its row");

/* What one gyre_stats_write() prints. */
struct snapshot {
	unsigned workers;
	struct gyre_stats sum;
	struct gyre_stats worker[];
};

static uint64_t figure_of(const struct gyre_stats *stats, const struct figure *figure)
{
	uint64_t value;

	memcpy(&value, (const char *)stats + figure->at, sizeof(value));
	return value;
}

/* ------------------------------------------------------------- formats -- */

static void json_object(struct gyre__text *text, const struct gyre_stats *stats,
			enum scope widest, const char *separator)
{
	size_t i;

	for (i = 0; i < FIGURES; i++) {
		if (figures[i].scope > widest)
			continue;
		gyre__text_add(text, "%s\"%s\":%" PRIu64, separator, figures[i].name,
			       figure_of(stats, &figures[i]));
		separator = ",";
	}
}

static void write_json(struct gyre__text *text, const struct snapshot *snapshot)
{
	unsigned i;

	gyre__text_add(text, "{\"version\":\"%s\",\n\"workers\":[", gyre_version());
	for (i = 0; i < snapshot->workers; i++) {
		gyre__text_add(text, "%s\n{\"worker\":%u", i ? "," : "", i);
		json_object(text, &snapshot->worker[i], OF_WORKER, ",");
		gyre__text_add(text, "}");
	}
	gyre__text_add(text, "],\n\"sum\":{");
	json_object(text, &snapshot->sum, OF_RUNTIME, "");
	gyre__text_add(text, "}}\n");
}

static void prometheus_figure(struct gyre__text *text, const struct snapshot *snapshot,
			      const struct figure *figure)
{
	const char *suffix = figure->kind == COUNTER ? "_total" : "";
	unsigned i;

	gyre__text_add(text, "# HELP gyre_%s%s %s\n# TYPE gyre_%s%s %s\n",
		       figure->name, suffix, figure->help,
		       figure->name, suffix, figure->kind == COUNTER ? "counter" : "gauge");
	if (figure->scope == OF_RUNTIME)
		gyre__text_add(text, "gyre_%s%s %" PRIu64 "\n", figure->name, suffix,
			       figure_of(&snapshot->sum, figure));
	for (i = 0; figure->scope == OF_WORKER && i < snapshot->workers; i++)
		gyre__text_add(text, "gyre_%s%s{worker=\"%u\"} %" PRIu64 "\n",
			       figure->name, suffix, i,
			       figure_of(&snapshot->worker[i], figure));
}

static void write_prometheus(struct gyre__text *text, const struct snapshot *snapshot)
{
	size_t i;

	for (i = 0; i < FIGURES; i++)
		prometheus_figure(text, snapshot, &figures[i]);
}

/* Wide enough for the widest figure and for "worker 1023". */
static int text_width(const struct snapshot *snapshot)
{
	int width = 11, len;
	unsigned n;
	size_t i;

	for (i = 0; i < FIGURES; i++) {
		len = snprintf(NULL, 0, "%" PRIu64, figure_of(&snapshot->sum, &figures[i]));
		if (len > width)
			width = len;
		for (n = 0; n < snapshot->workers; n++) {
			len = snprintf(NULL, 0, "%" PRIu64,
				       figure_of(&snapshot->worker[n], &figures[i]));
			if (len > width)
				width = len;
		}
	}
	return width + 2;
}

/* One block of the table: the sum, where asked for, and workers first to last - 1. */
static void text_block(struct gyre__text *text, const struct snapshot *snapshot,
		       int with_sum, unsigned first, unsigned last, int width)
{
	const struct figure *figure;
	char label[24];
	unsigned n;

	gyre__text_add(text, "%-20s", "");
	if (with_sum)
		gyre__text_add(text, "%*s", width, "sum");
	for (n = first; n < last; n++) {
		snprintf(label, sizeof(label), "worker %u", n);
		gyre__text_add(text, "%*s", width, label);
	}
	gyre__text_add(text, "\n");
	for (figure = figures; figure < figures + FIGURES; figure++) {
		if (figure->scope > (with_sum ? OF_RUNTIME : OF_WORKER))
			continue;
		gyre__text_add(text, "%-20s", figure->name);
		if (with_sum)
			gyre__text_add(text, "%*" PRIu64, width,
				       figure_of(&snapshot->sum, figure));
		for (n = first; figure->scope == OF_WORKER && n < last; n++)
			gyre__text_add(text, "%*" PRIu64, width,
				       figure_of(&snapshot->worker[n], figure));
		gyre__text_add(text, "\n");
	}
}

static void write_text(struct gyre__text *text, const struct snapshot *snapshot)
{
	int width = text_width(snapshot);
	unsigned first = 0, last;

	gyre__text_add(text, "gyre %s, %u worker%s\n", gyre_version(), snapshot->workers,
		       snapshot->workers == 1 ? "" : "s");
	do {
		last = first + TEXT_WORKERS_MAX;
		if (last > snapshot->workers)
			last = snapshot->workers;
		gyre__text_add(text, "\n");
		text_block(text, snapshot, first == 0, first, last, width);
		first = last;
	} while (first < snapshot->workers);
}

static void (*const writers[])(struct gyre__text *text, const struct snapshot *snapshot) = {
	[GYRE_FORMAT_JSON] = write_json,
	[GYRE_FORMAT_PROMETHEUS] = write_prometheus,
	[GYRE_FORMAT_TEXT] = write_text,
};

/* --------------------------------------------------------------- calls -- */

enum gyre_status gyre_stats_get(struct gyre *rt, struct gyre_stats *stats)
{
	struct gyre_stats now = { 0 };
	enum gyre_status status;
	size_t size, both;

	status = gyre__runtime_look(__func__, &rt);
	if (status != GYRE_OK)
		return status;
	if (!stats) {
		gyre__runtime_leave(rt);
		return gyre__fail(__func__, GYRE_INVALID, "stats is NULL");
	}
	memcpy(&size, stats, sizeof(size));
	if (size < STATS_SIZE_0_1 || size > STATS_SIZE_MAX) {
		gyre__runtime_leave(rt);
		return gyre__fail(__func__, GYRE_INVALID,
				  "the size in struct gyre_stats is %zu, and %zu to %d are known; "
				  "set it to sizeof(struct gyre_stats) before the call",
				  size, STATS_SIZE_0_1, STATS_SIZE_MAX);
	}
	gyre__runtime_stats(rt, -1, &now);
	gyre__runtime_leave(rt);
	now.size = size;
	both = size < sizeof(now) ? size : sizeof(now);
	memcpy(stats, &now, both);
	memset((char *)stats + both, 0, size - both);
	return gyre__succeed();
}

static struct snapshot *snapshot_take(struct gyre *rt)
{
	unsigned workers = gyre_worker_count(rt), i;
	struct snapshot *snapshot;

	snapshot = gyre__zalloc(sizeof(*snapshot) + workers * sizeof(snapshot->worker[0]));
	if (!snapshot)
		return NULL;
	snapshot->workers = workers;
	for (i = 0; i < workers; i++)
		gyre__runtime_stats(rt, (int)i, &snapshot->worker[i]);
	gyre__runtime_stats(rt, -1, &snapshot->sum);
	return snapshot;
}

/* Writing may take as long as fd likes, so it does not keep the runtime. */
enum gyre_status gyre_stats_write(struct gyre *rt, int fd, enum gyre_format format)
{
	const struct gyre__thread *self = gyre__thread_self();
	struct gyre__text text = { 0 };
	struct snapshot *snapshot;
	enum gyre_status status;

	if (gyre__must_go_elsewhere())
		return gyre__stats_write_elsewhere(rt, fd, format);
	if (self && gyre__thread_is_in_prep(self))
		return gyre__fail(__func__, GYRE_WOULD_DEADLOCK,
				  "a prep closure may not wait, and writing may have to");
	status = gyre__runtime_look(__func__, &rt);
	if (status != GYRE_OK)
		return status;
	if ((unsigned)format >= sizeof(writers) / sizeof(writers[0])) {
		gyre__runtime_leave(rt);
		return gyre__fail(__func__, GYRE_INVALID,
				  "there is no format %d; see enum gyre_format", (int)format);
	}
	snapshot = snapshot_take(rt);
	gyre__runtime_leave(rt);
	if (!snapshot)
		return gyre__fail(__func__, GYRE_NO_MEMORY, "no memory for the figures");
	writers[format](&text, snapshot);
	gyre__free(snapshot);
	status = gyre__text_send(&text, fd, __func__);
	gyre__text_done(&text);
	return status;
}
