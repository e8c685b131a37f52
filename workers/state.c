/* SPDX-License-Identifier: MIT */
#include "state.h"

#include "job.h"
#include "pool.h"
#include "ring/sys.h"
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

/* Nobody is left who could see it, and no stream of the job's is open. */
static void destroy_fresh(struct gyre__task *task, const struct gyre_state_type *type)
{
	struct gyre__job *job = task->job;
	void *state = job->state;

	gyre__job_release_held(task);
	job->state = NULL;
	task->may_not_panic = true;
	type->destroy(state, type->arg);
	task->may_not_panic = false;
}

/* ----------------------------------------------------------------- line -- */

/* False: one of those before it waits for the end of its job. */
static bool line_up(struct gyre__task *first, struct gyre__line *line)
{
	struct gyre__job *job = first->job;
	bool circle;

	gyre__waits_lock();
	circle = line->first && first->home->hooks.line_waits_for(first, line);
	if (!circle) {
		job->line = line;
		job->line_prev = line->last;
		if (line->last)
			line->last->line_next = job;
		else
			line->first = job;
		line->last = job;
		first->awaits = line->first != job;
	}
	gyre__waits_unlock();
	return !circle;
}

static void leave_line(struct gyre__job *job)
{
	struct gyre__line *line = job->line;

	gyre__waits_lock();
	if (job->line_prev)
		job->line_prev->line_next = job->line_next;
	else
		line->first = job->line_next;
	if (job->line_next)
		job->line_next->line_prev = job->line_prev;
	else
		line->last = job->line_prev;
	job->line_next = job->line_prev = NULL;
	job->line = NULL;
	gyre__waits_unlock();
}

/* Only while it waits in line: who has come to the front is ready. */
static void interrupt_in_line(struct gyre__task *task, struct gyre__wait *wait)
{
	(void)wait;
	leave_line(task->job);
	gyre__task_ready(task);
}

static bool is_first_in_line(const struct gyre__job *job)
{
	return job->line && job->line->first == job;
}

/* Until it is first, or has left. */
static void wait_in_line(struct gyre__task *first, const char *what)
{
	struct gyre__wait wait = { .what = what, .interrupt = interrupt_in_line };

	if (!is_first_in_line(first->job))
		gyre__task_park(first, &wait);
	first->awaits = false;
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
	struct gyre__tasks *tasks = value;
	const struct gyre_state_type *type = tasks->state_type;
	struct gyre__task *task = tasks->running->task;

	if (task)
		task->may_not_panic = true;
	type->destroy(tasks->shared.value, type->arg);
	if (task)
		task->may_not_panic = false;
}

void gyre__shared_state_init(struct gyre__tasks *tasks)
{
	struct gyre_local *local = &tasks->shared.local;

	*local = (struct gyre_local)GYRE_LOCAL_INIT(create_shared, destroy_shared, tasks);
}

/* It is no part of the job, whose cancel must not leave a state that is half ready. */
static void reset(struct gyre__task *first, const struct gyre_state_type *type, void *value)
{
	if (!type->reset)
		return;
	first->shielded = first->may_not_panic = true;
	type->reset(value, type->arg);
	first->shielded = first->may_not_panic = false;
}

static void take_shared(struct gyre__task *first, const struct gyre_state_type *type)
{
	struct gyre__shared_state *shared = &first->home->shared;
	enum gyre_status status;
	void *made;

	if (!line_up(first, &shared->line))
		refuse(first, GYRE_WOULD_DEADLOCK);
	wait_in_line(first, "line for its worker's state");
	refuse_cancelled(first);
	status = gyre__local_get(first, &shared->local, &made);
	if (status != GYRE_OK)
		refuse(first, status);
	if (shared->used)
		reset(first, type, shared->value);
	shared->used = false;
	refuse_cancelled(first);
	shared->used = true;
	first->job->state = shared->value;
}

/* --------------------------------------------------------------- pooled -- */

static void interrupt_wait_for_room(struct gyre__task *task, struct gyre__wait *wait)
{
	struct gyre__keyed *keyed = task->job->keyed;
	bool waits;

	(void)wait;
	gyre__waits_lock();
	waits = keyed->waiter == task;
	keyed->waiter = NULL;
	gyre__waits_unlock();
	/* Else there is room, and whoever has given it is about to make it ready. */
	if (waits)
		gyre__task_ready(task);
}

/* GYRE_BUSY: it has to wait. */
static enum gyre_status ask_for_room(struct gyre__task *first)
{
	struct gyre__keyed *keyed = first->job->keyed;
	enum gyre_status status = GYRE_OK;

	gyre__waits_lock();
	if (!keyed->has_room)
		status = first->home->hooks.room_waits_for(first, keyed->pool) ?
			 GYRE_WOULD_DEADLOCK : GYRE_BUSY;
	first->awaits = status == GYRE_BUSY;
	keyed->waiter = first->awaits ? first : NULL;
	gyre__waits_unlock();
	return status;
}

/* By who is first in line; waited: it has waited there already. */
static void wait_for_room(struct gyre__task *first, bool waited)
{
	struct gyre__wait wait = { .what = "line for room in the pool",
				   .interrupt = interrupt_wait_for_room };
	enum gyre_status status = ask_for_room(first);

	if (status == GYRE_OK)
		return;
	if (status != GYRE_BUSY)
		refuse(first, status);
	if (!waited)
		gyre__count(&first->home->counters.pool_waits, 1);
	gyre__task_park(first, &wait);
	first->awaits = false;
	refuse_cancelled(first);
}

static void make_keyed(struct gyre__task *first, const struct gyre_state_type *type)
{
	struct gyre__keyed *keyed = first->job->keyed;
	struct gyre__tasks *tasks = first->home;
	void *value;

	gyre__count(&tasks->counters.pool_misses, 1);
	/* As of a FRESH one: a panic or a drop ends the task in there, and nothing was made. */
	value = type->create(keyed->key, type->arg);
	if (!value)
		refuse(first, GYRE_SYSTEM);
	keyed->value = value;
	keyed->used = false;
	keyed->since_ns = gyre__sys->now_ns();
	if (tasks->pooled->states++ == 0)
		tasks->ring->guests++;
	gyre__count(&tasks->counters.pool_cached, 1);
}

/* By who is first in line, or while there is no line. task may be NULL: it must not wait. */
static void destroy_keyed(struct gyre__tasks *tasks, struct gyre__task *task,
			  struct gyre__keyed *keyed)
{
	const struct gyre_state_type *type = tasks->state_type;
	void *value = keyed->value;

	keyed->value = NULL;
	if (task)
		task->may_not_panic = true;
	type->destroy(value, type->arg);
	if (task)
		task->may_not_panic = false;
	gyre__count(&tasks->counters.pool_cached, -UINT64_C(1));
	if (--tasks->pooled->states == 0)
		tasks->ring->guests--;
}

static void take_pooled(struct gyre__task *first, const struct gyre_state_type *type)
{
	struct gyre__keyed *keyed = first->job->keyed;
	bool waits;

	if (first->home->locals.ending)
		refuse(first, GYRE_CLOSED);
	if (!line_up(first, &keyed->line))
		refuse(first, GYRE_WOULD_DEADLOCK);
	waits = !is_first_in_line(first->job);
	if (waits)
		gyre__count(&first->home->counters.pool_waits, 1);
	wait_in_line(first, "line for its key's state");
	refuse_cancelled(first);
	wait_for_room(first, waits);
	if (keyed->value) {
		gyre__count(&first->home->counters.pool_hits, 1);
		if (keyed->used)
			reset(first, type, keyed->value);
		keyed->used = false;
	} else {
		make_keyed(first, type);
	}
	refuse_cancelled(first);
	keyed->used = true;
	first->job->state = keyed->value;
}

/* Others may be in need of the room that it takes. */
static void give_back(struct gyre__task *task)
{
	struct gyre__job *job = task->job;
	struct gyre__keyed *keyed = job->keyed;

	if (!gyre__pool_is_wanted(keyed) || !gyre__pool_asks_back(keyed, false))
		return;
	gyre__job_release_held(task);
	job->state = NULL;
	destroy_keyed(task->home, task, keyed);
	gyre__count(&task->home->counters.pool_evictions, 1);
}

/* What any job does that has come to the front and leaves it. */
static int evict_task(void *arg)
{
	struct gyre__keyed *keyed = arg;
	struct gyre__tasks *tasks = keyed->side->tasks;
	struct gyre__task *task = tasks->running->task;

	task->shielded = true;
	if (line_up(task, &keyed->line))
		wait_in_line(task, "line for a state that is to go");
	if (!is_first_in_line(task->job)) {
		gyre__pool_take_back(keyed);
	} else if (gyre__pool_asks_back(keyed, true)) {
		destroy_keyed(tasks, task, keyed);
		gyre__count(&tasks->counters.pool_evictions, 1);
	}
	return 0;
}

void gyre__state_evict(struct gyre__tasks *tasks, struct gyre__keyed *keyed)
{
	bool gives = false;

	if (!tasks->locals.ending && gyre__job_start_own(tasks, evict_task, keyed, keyed))
		return;
	/* Without memory for a task it goes all the same, and must not wait. */
	if (tasks->locals.ending || keyed->line.first)
		gyre__pool_take_back(keyed);
	else
		gives = gyre__pool_asks_back(keyed, true);
	if (gives) {
		destroy_keyed(tasks, NULL, keyed);
		gyre__count(&tasks->counters.pool_evictions, 1);
	}
	gyre__pool_leave(keyed, gives, tasks->ring);
}

bool gyre__states_are_left(const struct gyre__tasks *tasks)
{
	return tasks->pooled && tasks->pooled->states;
}

void gyre__states_end(struct gyre__tasks *tasks)
{
	struct gyre__keyed *keyed;

	while (gyre__states_are_left(tasks) && (keyed = gyre__pool_end(tasks->pooled))) {
		destroy_keyed(tasks, tasks->running->task, keyed);
		gyre__pool_leave(keyed, false, tasks->ring);
	}
}

/* ------------------------------------------------------------------ all -- */

void gyre__state_destroy(struct gyre__task *task)
{
	struct gyre__job *job = task->job;

	if (!job->state || job->live > 1)
		return;
	if (job->mode == GYRE_MODE_FRESH)
		destroy_fresh(task, task->home->state_type);
	else if (job->mode == GYRE_MODE_POOLED)
		give_back(task);
}

void gyre__state_pass_on(struct gyre__job *job)
{
	struct gyre__keyed *keyed = job->keyed;
	struct gyre__line *line = job->line;
	bool had_it = is_first_in_line(job);

	/* A create that fails again and again must not keep others from theirs. */
	if (had_it && keyed && !keyed->value && !keyed->given && gyre__pool_is_wanted(keyed))
		gyre__pool_asks_back(keyed, false);
	if (line)
		leave_line(job);
	if (had_it && line->first)
		gyre__task_ready(line->first->first);
	if (keyed)
		gyre__pool_leave(keyed, had_it && keyed->given, job->home->ring);
}

void gyre__state_take(struct gyre__task *first)
{
	const struct gyre_state_type *type = first->home->state_type;

	refuse_cancelled(first);
	if (first->job->mode == GYRE_MODE_FRESH)
		take_fresh(first, type);
	else if (first->job->mode == GYRE_MODE_SHARED)
		take_shared(first, type);
	else
		take_pooled(first, type);
	first->job->began = true;
}
