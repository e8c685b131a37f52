/* SPDX-License-Identifier: MIT */
#include "state.h"

#include "job.h"
#include "task.h"

/* The job does not begin. What cancelled it counts first. Does not return. */
static void refuse(struct gyre__task *first, enum gyre_status status)
{
	if (first->job->reason == GYRE_OK)
		first->job->reason = status;
	gyre__task_finish(first, GYRE__TASK_DROPPED, 0);
}

void gyre__state_take(struct gyre__task *first)
{
	const struct gyre_state_type *type = first->home->state_type;
	struct gyre__job *job = first->job;

	if (gyre__task_is_cancelled(first))
		refuse(first, GYRE_CANCELLED);
	/* A panic, or a drop at a wait of its, ends the task in there: nothing was made. */
	job->state = type->create(NULL, type->arg);
	if (!job->state)
		refuse(first, GYRE_SYSTEM);
	/* Cancelled meanwhile: the state goes with the task, and no line of the job has run. */
	if (gyre__task_is_cancelled(first))
		refuse(first, GYRE_CANCELLED);
	job->began = true;
}

void gyre__state_destroy(struct gyre__task *task)
{
	const struct gyre_state_type *type = task->home->state_type;
	struct gyre__job *job = task->job;
	void *state = job->state;

	if (!state || job->live > 1)
		return;
	gyre__job_release_held(task);
	job->state = NULL;
	task->may_not_panic = true;
	type->destroy(state, type->arg);
	task->may_not_panic = false;
}
