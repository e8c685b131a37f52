/* SPDX-License-Identifier: MIT */
/*
 * Worker locals: values that live and die on one worker, made by the first task
 * that asks there, destroyed by the worker's last task, latest first. Owner only.
 *
 * Who asks while another makes it waits for that one; where it fails, the first
 * of them tries in its turn. While there are any, they are guests of the ring.
 */
#ifndef GYRE_WORKERS_LOCAL_H
#define GYRE_WORKERS_LOCAL_H

#include <gyre.h>
#include <stdbool.h>
#include <stdint.h>

struct gyre__task;
struct gyre__tasks;

#define GYRE__LOCALS_MAX	4096	/* of one worker */

enum gyre__local_state {
	GYRE__LOCAL_EMPTY = 0,		/* nobody has made it, or the last who tried has failed */
	GYRE__LOCAL_CREATING,		/* maker is about to */
	GYRE__LOCAL_THERE
};

struct gyre__local_entry {
	struct gyre_local *local;
	struct gyre_local copy;		/* of its functions, for the end */
	void *value;
	enum gyre__local_state state;
	struct gyre__task *maker;
	struct gyre__local_entry *outer;	/* that maker makes, and needs this one for */
	struct gyre__task *waiting;	/* for maker, through task->local_next */
	uint64_t since_ns;
};

struct gyre__locals {
	/* In the order in which they were asked for first. */
	struct gyre__local_entry **entries;
	uint32_t count, room;
	/* Those that are there, in the order of their making. */
	struct gyre__local_entry **made;
	uint32_t made_count;
	bool ending;				/* none is made any more */
};

/*
 * The value, made if need be. GYRE_SYSTEM: create gave NULL. GYRE_WOULD_DEADLOCK:
 * it is being made by who waits for the caller. GYRE_CANCELLED, GYRE_CLOSED (the
 * worker ends), GYRE_NO_MEMORY.
 */
enum gyre_status gyre__local_get(struct gyre__task *task, struct gyre_local *local, void **ret);

/* task ends while it makes one: whoever waits tries in its turn. */
void gyre__local_abandon(struct gyre__task *task);

/*
 * The worker ends and no job lives there any more. Destroys all, and before them the states of
 * keys, in a task. True: it has begun.
 */
bool gyre__locals_end(struct gyre__tasks *tasks);

void gyre__locals_done(struct gyre__locals *locals);

#endif
