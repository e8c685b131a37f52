/* SPDX-License-Identifier: MIT */
/*
 * Whether a wait would wait for itself. All of these are asked under
 * gyre__waits_lock(), and where the answer is no, the wait is noted in the same
 * hold of it; see lib/circle.c.
 */
#ifndef GYRE_LIB_CIRCLE_H
#define GYRE_LIB_CIRCLE_H

#include <gyre.h>
#include <stdbool.h>

#include "thread.h"

/* Who closes a runtime, and is waited for by somebody in turn. On the closer's stack. */
struct gyre__closer {
	struct gyre__thread *self;
	struct gyre__closer *next;
};

/* Does the end of handle's job wait for self? */
bool gyre__circle_with_job(struct gyre__thread *self, const struct gyre_job *handle);
/* Does that of target, a task of the same worker? cancels: it is about to be cancelled. */
bool gyre__circle_with_task(struct gyre__thread *self, const struct gyre__task *target,
			    bool cancels);
/* Does that of one of those that self, a task, has started? */
bool gyre__circle_with_children(struct gyre__thread *self);
/* For struct gyre__task_hooks: does the end of a job that stands in line wait for first? */
bool gyre__circle_with_line(struct gyre__task *first, const struct gyre__line *line);
/* The same: would first, who waits for room in pool, be the last of those who keep all of it? */
bool gyre__circle_with_room(struct gyre__task *first, const struct gyre__keys *pool);
/* Does a task or a helper of rt? Takes the lock itself. */
bool gyre__circle_with_runtime(struct gyre__thread *self, const struct gyre *rt);

/* For struct gyre__task_hooks: gyre__circle_with_task() for task, which runs. */
bool gyre__is_circle(const struct gyre__task *target, struct gyre__task *task);

/*
 * self, which may be NULL, is about to close rt and to wait; it has waited. False:
 * the end of rt waits for self, and nothing is noted. Takes the lock.
 */
bool gyre__closer_begin(struct gyre__closer *closer, struct gyre__thread *self, struct gyre *rt);
void gyre__closer_end(struct gyre__closer *closer, struct gyre *rt);

/* self, if it is a task or a helper. Else NULL: nobody knows who waits for a plain thread. */
static inline struct gyre__thread *gyre__waiting_party(struct gyre__thread *self)
{
	return self->task || self->helps ? self : NULL;
}

#endif
