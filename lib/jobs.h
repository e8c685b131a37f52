/* SPDX-License-Identifier: MIT */
/*
 * Jobs as seen from outside: started, waited for, cancelled, given up.
 */
#ifndef GYRE_LIB_JOBS_H
#define GYRE_LIB_JOBS_H

#include <gyre.h>
#include <stdbool.h>

#include "thread.h"
#include "workers/job.h"

/* For struct gyre__task_hooks: on the worker, before the first task of a job runs. */
void gyre__jobs_begin_one(struct gyre__task *first, struct gyre_job *handle);

/* For functions that only tasks may call: what everybody else is told. */
enum gyre_status gyre__refuse_no_task(const char *function);

/* A new text for gyre_last_panic(); NULL: there was no memory for it. Taken over. */
void gyre__note_panic(struct gyre__thread *self, char *text);

/*
 * The job on whose behalf the caller runs: its task's, or that of an offloaded function. NULL:
 * none.
 */
static inline struct gyre__job *gyre__thread_job(const struct gyre__thread *self)
{
	return self->task ? self->task->job : self->serves;
}

/*
 * A helper waits, or may wait, for what self does: it is one, or runs in a job that one has
 * started.
 */
static inline bool gyre__thread_is_helped(const struct gyre__thread *self)
{
	return self->task ? self->task->job->handle->helped : self->helps != NULL;
}

#endif
