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

static void refuse_cancelled(struct gyre__task *first)
{
	if (gyre__task_is_cancelled(first))
		refuse(first, GYRE_CANCELLED);
}

/* ---------------------------------------------------------------- fresh -- */

static void take_fresh(struct gyre__task *first, const struct gyre_state_type *type)
{
	/* A panic, or a drop at a wait of its, ends the task in there: nothing was made. */
	first->job->state = type->create(NULL, type->arg);
	if (!first->job->state)
		refuse(first, GYRE_SYSTEM);
	/* Cancelled meanwhile: the state goes with the task, and no line of the job has run. */
	refuse_cancelled(first);
}

void gyre__state_destroy(struct gyre__task *task)
{
	const struct gyre_state_type *type = task->home->state_type;
	struct gyre__job *job = task->job;
	void *state = job->state;

	if (!state || job->mode != GYRE_MODE_FRESH || job->live > 1)
		return;
	gyre__job_release_held(task);
	job->state = NULL;
	task->may_not_panic = true;
	type->destroy(state, type->arg);
	task->may_not_panic = false;
}

/* --------------------------------------------------------------- shared -- */

static void *create_shared(void *arg)
{
	struct gyre__tasks *tasks = arg;
	const struct gyre_state_type *type = tasks->state_type;

	tasks->shared.value = type->create(NULL, type->arg);
	tasks->shared.used = false;
	return tasks->shared.value ? tasks : NULL;
}

/* In the worker's last task, or, without memory for that, in none. */
static void destroy_shared(void *value)
{
	const struct gyre__tasks *tasks = value;
	const struct gyre_state_type *type = tasks->state_type;

	type->destroy(tasks->shared.value, type->arg);
}

void gyre__shared_state_init(struct gyre__tasks *tasks)
{
	struct gyre_local *local = &tasks->shared.local;

	*local = (struct gyre_local)GYRE_LOCAL_INIT(create_shared, destroy_shared, tasks);
}

/* False: one of those before it waits for the end of its job. */
static bool line_up(struct gyre__task *first)
{
	struct gyre__shared_state *shared = &first->home->shared;
	struct gyre__job *job = first->job;
	bool circle;

	gyre__waits_lock();
	circle = shared->first && first->home->hooks.line_waits_for(first);
	if (!circle) {
		job->in_line = true;
		job->line_prev = shared->last;
		if (shared->last)
			shared->last->line_next = job;
		else
			shared->first = job;
		shared->last = job;
		first->awaits = shared->first != job;
	}
	gyre__waits_unlock();
	return !circle;
}

static void leave_line(struct gyre__job *job)
{
	struct gyre__shared_state *shared = &job->home->shared;

	gyre__waits_lock();
	if (job->line_prev)
		job->line_prev->line_next = job->line_next;
	else
		shared->first = job->line_next;
	if (job->line_next)
		job->line_next->line_prev = job->line_prev;
	else
		shared->last = job->line_prev;
	job->line_next = job->line_prev = NULL;
	job->in_line = false;
	gyre__waits_unlock();
}

/* Only while it waits in line: who has come to the front is ready. */
static void interrupt_in_line(struct gyre__task *task, struct gyre__wait *wait)
{
	(void)wait;
	leave_line(task->job);
	gyre__task_ready(task);
}

static void wait_in_line(struct gyre__task *first)
{
	struct gyre__wait wait = { .what = "line for its worker's state",
				   .interrupt = interrupt_in_line };
	struct gyre__tasks *tasks = first->home;

	if (!line_up(first))
		refuse(first, GYRE_WOULD_DEADLOCK);
	if (tasks->shared.first != first->job)
		gyre__task_park(first, &wait);
	first->awaits = false;
	refuse_cancelled(first);
}

/* It is no part of the job, whose cancel must not leave a state that is half ready. */
static void reset_shared(struct gyre__task *first, const struct gyre_state_type *type)
{
	struct gyre__shared_state *shared = &first->home->shared;

	if (type->reset) {
		first->shielded = first->may_not_panic = true;
		type->reset(shared->value, type->arg);
		first->shielded = first->may_not_panic = false;
	}
	shared->used = false;
}

static void take_shared(struct gyre__task *first, const struct gyre_state_type *type)
{
	struct gyre__shared_state *shared = &first->home->shared;
	enum gyre_status status;
	void *made;

	wait_in_line(first);
	status = gyre__local_get(first, &shared->local, &made);
	if (status != GYRE_OK)
		refuse(first, status);
	if (shared->used)
		reset_shared(first, type);
	refuse_cancelled(first);
	shared->used = true;
	first->job->state = shared->value;
}

void gyre__state_pass_on(struct gyre__job *job)
{
	struct gyre__tasks *tasks = job->home;
	bool had_it = tasks->shared.first == job;

	leave_line(job);
	if (had_it && tasks->shared.first)
		gyre__task_ready(tasks->shared.first->first);
}

void gyre__state_take(struct gyre__task *first)
{
	const struct gyre_state_type *type = first->home->state_type;

	refuse_cancelled(first);
	if (first->job->mode == GYRE_MODE_FRESH)
		take_fresh(first, type);
	else
		take_shared(first, type);
	first->job->began = true;
}
