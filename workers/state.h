/* SPDX-License-Identifier: MIT */
/*
 * What jobs run on: a state is made before the first line of a job, in its first
 * task, and is its own until all of it has ended. Owner only.
 *
 * FRESH: destroyed by the job's last task, on whose stack it may wait as defers
 * may. So it takes no memory to destroy one.
 */
#ifndef GYRE_WORKERS_STATE_H
#define GYRE_WORKERS_STATE_H

#include <gyre.h>
#include <stdbool.h>

struct gyre__job;
struct gyre__task;

/* In the first task of a job that needs a state. Returns with it, or ends the task. */
void gyre__state_take(struct gyre__task *first);

/* A task is at its end, and its defers have run: the last one destroys what was made for the job. */
void gyre__state_destroy(struct gyre__task *task);

#endif
