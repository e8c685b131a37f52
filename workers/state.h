/* SPDX-License-Identifier: MIT */
/*
 * What jobs run on: a state is there before the first line of a job, seen to in
 * its first task, and is its own until all of it has ended. Owner only, but for
 * the line, through which others walk under gyre__waits_lock().
 *
 * FRESH: destroyed by the job's last task, on whose stack it may wait as defers
 * may. So it takes no memory to destroy one.
 *
 * SHARED: one for each worker, made and kept as a worker local. Jobs stand in
 * line for it: the first has it, until it has ended.
 */
#ifndef GYRE_WORKERS_STATE_H
#define GYRE_WORKERS_STATE_H

#include <gyre.h>
#include <stdbool.h>

struct gyre__job;
struct gyre__task;
struct gyre__tasks;

struct gyre__shared_state {
	struct gyre_local local;
	void *value;
	bool used;			/* by a job, since it was made or reset */
	struct gyre__job *first, *last;	/* the line, through job->line_next */
};

void gyre__shared_state_init(struct gyre__tasks *tasks);

/* In the first task of a job that needs a state. Returns with it, or ends the task. */
void gyre__state_take(struct gyre__task *first);

/* A task is at its end, its defers have run: the last one destroys what was made for the job. */
void gyre__state_destroy(struct gyre__task *task);

/* A job that stands in line has ended: the next one's turn. */
void gyre__state_pass_on(struct gyre__job *job);

#endif
