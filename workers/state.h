/* SPDX-License-Identifier: MIT */
/*
 * What jobs run on: a state is there before the first line of a job, seen to in
 * its first task, and is its own until all of it has ended. Owner only, but for
 * the lines, through which others walk under gyre__waits_lock().
 *
 * FRESH: destroyed by the job's last task, on whose stack it may wait as defers
 * may. So it takes no memory to destroy one.
 *
 * SHARED: one for each worker, made and kept as a worker local. Jobs stand in
 * line for it: the first has it, until it has ended.
 *
 * POOLED: one for each key, with a line of its own. Which keys have one, and where,
 * is the pool's to say (workers/keys.h).
 */
#ifndef GYRE_WORKERS_STATE_H
#define GYRE_WORKERS_STATE_H

#include <gyre.h>
#include <stdbool.h>

struct gyre__job;
struct gyre__keyed;
struct gyre__task;
struct gyre__tasks;

/* Jobs that need the same state, through job->line_next. */
struct gyre__line {
	struct gyre__job *first, *last;
};

struct gyre__shared_state {
	struct gyre_local local;
	void *value;
	bool used;			/* by a job, since it was made or reset */
	struct gyre__line line;
};

void gyre__shared_state_init(struct gyre__tasks *tasks);

/* In the first task of a job that needs a state. Returns with it, or ends the task. */
void gyre__state_take(struct gyre__task *first);

/* A task is at its end, its defers have run: the last one destroys what no other job is to have. */
void gyre__state_destroy(struct gyre__task *task);

/* A job that stands in line, or uses a key, has ended: the next one's turn. */
void gyre__state_pass_on(struct gyre__job *job);

/* What keyed has is promised to another key. The caller is a user of it, and is not after this. */
void gyre__state_evict(struct gyre__tasks *tasks, struct gyre__keyed *keyed);

/* The worker ends, and no job lives there: destroys what its keys have, the latest first. */
void gyre__states_end(struct gyre__tasks *tasks);
/* Whether there is any. */
bool gyre__states_are_left(const struct gyre__tasks *tasks);

#endif
