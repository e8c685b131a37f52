/* SPDX-License-Identifier: MIT */
#include "state.h"

#include "job.h"
#include "keys.h"
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

static bool is_first_in_line(const struct gyre__job *job)
{
	return job->line && job->line->first == job;
}

static bool wants_room(const struct gyre__job *job)
{
	return job->mode == GYRE_MODE_POOLED && !job->keyed->has_room;
}

/*
 * GYRE_OK: the state is its. GYRE_BUSY: it has to wait, for who is before it, or for
 * room. GYRE_WOULD_DEADLOCK: one of those waits for the end of its job.
 */
static enum gyre_status line_up(struct gyre__task *first, struct gyre__line *line)
{
	const struct gyre__task_hooks *hooks = &first->home->hooks;
	struct gyre__job *job = first->job;
	bool circle, waits;

	gyre__waits_lock();
	waits = line->first || wants_room(job);
	circle = line->first ? hooks->line_waits_for(first, line) :
		 waits && hooks->room_waits_for(first, job->keyed->pool);
	if (!circle) {
		job->line = line;
		job->line_prev = line->last;
		if (line->last)
			line->last->line_next = job;
		else
			line->first = job;
		line->last = job;
		first->awaits = waits;
		if (waits && line->first == job)
			job->keyed->waiter = first;
	}
	gyre__waits_unlock();
	return circle ? GYRE_WOULD_DEADLOCK : waits ? GYRE_BUSY : GYRE_OK;
}

/* Under the lock. Who is first now and can go on; NULL: nobody, or it waits for room. */
static struct gyre__job *come_to_front(struct gyre__line *line)
{
	struct gyre__job *job = line->first;

	if (!job || job->mode != GYRE_MODE_POOLED)
		return job;
	if (job->keyed->has_room && !job->keyed->given)
		return job;
	job->keyed->waiter = job->first;
	return NULL;
}

/* waits: only if it does, and nobody is about to make it ready. False: it has not left. */
static bool leave_line(struct gyre__job *job, bool waits)
{
	struct gyre__line *line = job->line;
	struct gyre__job *next = NULL;
	bool was_first = line->first == job;

	gyre__waits_lock();
	if (waits && was_first && job->keyed->waiter != job->first) {
		gyre__waits_unlock();
		return false;
	}
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
	if (was_first && job->keyed)
		job->keyed->waiter = NULL;
	if (was_first)
		next = come_to_front(line);
	gyre__waits_unlock();
	if (next)
		gyre__task_ready(next->first);
	return true;
}

static void interrupt_in_line(struct gyre__task *task, struct gyre__wait *wait)
{
	(void)wait;
	if (leave_line(task->job, true))
		gyre__task_ready(task);
}

/* After line_up(): until it has the state, or has left the line. */
static void wait_in_line(struct gyre__task *first, const char *what)
{
	struct gyre__wait wait = { .what = what, .interrupt = interrupt_in_line };

	gyre__task_park(first, &wait);
	first->awaits = false;
}

/* In a job that cannot go on without the state. */
static void stand_in_line(struct gyre__task *first, struct gyre__line *line, const char *what)
{
	enum gyre_status status = line_up(first, line);

	if (status == GYRE_WOULD_DEADLOCK)
		refuse(first, status);
	if (status == GYRE_BUSY) {
		if (first->job->keyed)
			gyre__count(&first->home->counters.pool_waits, 1);
		wait_in_line(first, what);
	}
	refuse_cancelled(first);
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

	stand_in_line(first, &shared->line, "line for its worker's state");
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

/* By who is first in line, or while there is no line. */
static void destroy_keyed(struct gyre__tasks *tasks, struct gyre__keyed *keyed)
{
	const struct gyre_state_type *type = tasks->state_type;
	void *value = keyed->value;

	keyed->value = NULL;
	type->destroy(value, type->arg);
	gyre__count(&tasks->counters.pool_cached, -UINT64_C(1));
	if (--tasks->pooled->states == 0)
		tasks->ring->guests--;
}

static void take_pooled(struct gyre__task *first, const struct gyre_state_type *type)
{
	struct gyre__keyed *keyed = first->job->keyed;
	struct gyre__task_counters *counters = &first->home->counters;

	if (first->home->locals.ending)
		refuse(first, GYRE_CLOSED);
	stand_in_line(first, &keyed->line, "line for its key's state");
	if (keyed->value) {
		gyre__count(&counters->pool_hits, 1);
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

static void destroy_promised(struct gyre__tasks *tasks, struct gyre__keyed *keyed)
{
	destroy_keyed(tasks, keyed);
	gyre__count(&tasks->counters.pool_evictions, 1);
}

/* Others may be in need of the room that it takes. */
static void give_back(struct gyre__task *task)
{
	struct gyre__job *job = task->job;
	struct gyre__keyed *keyed = job->keyed;

	if (!gyre__keys_is_wanted(keyed) || !gyre__keys_asks_back(keyed, false))
		return;
	gyre__job_release_held(task);
	job->state = NULL;
	task->may_not_panic = true;
	destroy_promised(task->home, keyed);
	task->may_not_panic = false;
}

/* Who came before it, or for whom there is no state any more, needs no eviction to go on. */
static int evict_task(void *arg)
{
	struct gyre__keyed *keyed = arg;
	struct gyre__tasks *tasks = keyed->side->tasks;
	struct gyre__task *task = tasks->running->task;

	task->shielded = task->may_not_panic = true;
	if (keyed->line.first || !keyed->value) {
		gyre__keys_take_back(keyed);
		return 0;
	}
	line_up(task, &keyed->line);
	if (gyre__keys_asks_back(keyed, true))
		destroy_promised(tasks, keyed);
	return 0;
}

static bool evict_in_task(struct gyre__tasks *tasks, struct gyre__keyed *keyed)
{
	return !tasks->locals.ending && !keyed->line.first &&
	       gyre__job_start_own(tasks, evict_task, keyed, keyed);
}

void gyre__state_evict(struct gyre__tasks *tasks, struct gyre__keyed *keyed)
{
	bool gives = false;

	if (evict_in_task(tasks, keyed))
		return;
	/* Without memory for a task it goes all the same, and must not wait. */
	if (tasks->locals.ending || keyed->line.first || !keyed->value)
		gyre__keys_take_back(keyed);
	else
		gives = gyre__keys_asks_back(keyed, true);
	if (gives)
		destroy_promised(tasks, keyed);
	gyre__keys_leave(keyed, gives, tasks->ring);
}

bool gyre__states_are_left(const struct gyre__tasks *tasks)
{
	return tasks->pooled && tasks->pooled->states;
}

void gyre__states_end(struct gyre__tasks *tasks)
{
	struct gyre__keyed *keyed;

	while (gyre__states_are_left(tasks) && (keyed = gyre__keys_end(tasks->pooled))) {
		destroy_keyed(tasks, keyed);
		gyre__keys_leave(keyed, false, tasks->ring);
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
	bool had_it = is_first_in_line(job);

	/* A create that fails again and again must not keep others from theirs. */
	if (had_it && keyed && !keyed->value && !keyed->given && gyre__keys_is_wanted(keyed))
		gyre__keys_asks_back(keyed, false);
	if (job->line)
		leave_line(job, false);
	if (keyed)
		gyre__keys_leave(keyed, had_it && keyed->given, job->home->ring);
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
