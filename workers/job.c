/* SPDX-License-Identifier: MIT */
/*
 * tell(), gyre__job_answer(), gyre__job_await(), gyre__job_withdraw() and finish()
 * are modelled in tests/models/job.pml.
 */
#include "job.h"

#include <errno.h>
#include <string.h>

#include "keys.h"
#include "ring/sys.h"

#define OWN_STACK_SIZE	((size_t)256 << 10)

/* ------------------------------------------------------------- answers -- */

/*
 * On whichever thread: what came of it stands in the handle, and is nobody's to change from here
 * on.
 */
static void tell(struct gyre_job *handle, struct gyre__ring *ring)
{
	void (*unref)(struct gyre_job *handle) = handle->unref;
	uintptr_t word;

	/*
	 * Release: the answer. Acquire: the waiter. From here on a handle without unref may be
	 * gone.
	 */
	word = gyre__exchange(&handle->word, GYRE__JOB_ENDED, acq_rel);
	if (word != GYRE__JOB_RUNS) {
		struct gyre__waiter *waiter = (struct gyre__waiter *)word;

		waiter->done(waiter, NULL, ring);
	}
	if (unref)
		unref(handle);
}

void gyre__job_answer(struct gyre_job *handle, enum gyre_status status, enum gyre_effect effect,
		      struct gyre__ring *ring)
{
	handle->status = status;
	handle->effect = effect;
	if (gyre__unlikely(handle->keyed))
		gyre__keys_leave(handle->keyed, false, ring);
	tell(handle, ring);
}

bool gyre__job_await(struct gyre_job *handle, struct gyre__waiter *waiter)
{
	uintptr_t word = GYRE__JOB_RUNS;

	/* Release: the waiter. Pairs with the exchange in tell(). */
	return gyre__cas(&handle->word, &word, (uintptr_t)waiter, acq_rel);
}

bool gyre__job_withdraw(struct gyre_job *handle, struct gyre__waiter *waiter)
{
	uintptr_t word = (uintptr_t)waiter;

	return gyre__cas(&handle->word, &word, GYRE__JOB_RUNS, acq_rel);
}

/* ----------------------------------------------------------------- end -- */

static enum gyre_status job_status(const struct gyre__job *job)
{
	if (job->panicked)
		return GYRE_RESPONSE_LOST;
	if (job->reason != GYRE_OK)
		return job->reason;
	return job->returned ? GYRE_OK : GYRE_CANCELLED;
}

static void unlink_job(struct gyre__job *job)
{
	struct gyre__tasks *tasks = job->home;

	if (job->prev)
		job->prev->next = job->next;
	else
		tasks->jobs = job->next;
	if (job->next)
		job->next->prev = job->prev;
	tasks->jobs_live--;
	tasks->ring->guests--;
}

static void count_end(struct gyre__tasks *tasks, enum gyre_status status)
{
	struct gyre__task_counters *counters = &tasks->counters;

	gyre__count(&counters->jobs_finished, 1);
	gyre__count(&counters->jobs_running, -UINT64_C(1));
	if (status == GYRE_RESPONSE_LOST)
		gyre__count(&counters->jobs_panicked, 1);
	else if (status != GYRE_OK)
		gyre__count(&counters->jobs_cancelled, 1);
}

/* Its last task has left. First everything is given back, then it is told. */
static void finish(struct gyre__job *job)
{
	struct gyre__tasks *tasks = job->home;
	struct gyre_job *handle = job->handle;

	handle->status = job_status(job);
	handle->effect = handle->status == GYRE_OK ? GYRE_EFFECT_DONE : job->began ?
			 GYRE_EFFECT_UNKNOWN : GYRE_EFFECT_NONE;
	handle->returned = job->returned;
	handle->result = job->result;
	handle->panic = job->panic;
	handle->job = NULL;
	gyre__task_forget_ended(tasks, job, NULL);
	gyre__alarm_unset(&tasks->alarms, &job->alarm);
	gyre__alarms_release(&tasks->alarms);
	if (gyre__unlikely(job->line || job->keyed))
		gyre__state_pass_on(job);
	unlink_job(job);
	count_end(tasks, handle->status);
	gyre__arena_close(&job->arena);
	tell(handle, tasks->ring);
}

void gyre__job_hold(struct gyre__job *job, struct gyre__held *held,
		    void (*release)(struct gyre__held *held))
{
	held->job = job;
	held->release = release;
	held->prev = NULL;
	held->next = job->held;
	if (job->held)
		job->held->prev = held;
	job->held = held;
}

void gyre__job_let_go(struct gyre__held *held)
{
	if (held->prev)
		held->prev->next = held->next;
	else
		held->job->held = held->next;
	if (held->next)
		held->next->prev = held->prev;
}

void gyre__job_may_finish(struct gyre__job *job)
{
	struct gyre__task *last = job->last;

	if (job->held)
		return;
	if (job->live == 0) {
		finish(job);
	} else if (last) {
		job->last = NULL;
		gyre__task_ready(last);
	}
}

static void release_held(struct gyre__job *job)
{
	struct gyre__held *held, *next;

	for (held = job->held; held; held = next) {
		next = held->next;
		held->release(held);
	}
}

void gyre__job_release_held(struct gyre__task *last)
{
	struct gyre__wait wait = { .what = "the end of its job" };
	struct gyre__job *job = last->job;

	job->over = true;
	release_held(job);
	if (job->held) {
		job->last = last;
		gyre__task_park(last, &wait);
	}
}

/* Its last task has left; what it still holds is told to go. */
void gyre__job_end(struct gyre__job *job)
{
	release_held(job);
	gyre__job_may_finish(job);
}

static void cancel_tasks(struct gyre__job *job)
{
	struct gyre__task *task;

	if (job->cancel_ns == 0)
		job->cancel_ns = gyre__sys->now_ns() | 1;
	for (task = job->tasks; task; task = task->job_next)
		gyre__task_cancel(task);
}

void gyre__job_cancel(struct gyre__job *job, enum gyre_status reason)
{
	if (!job->first || job->over || job->reason != GYRE_OK)
		return;
	job->reason = reason;
	cancel_tasks(job);
}

void gyre__job_look(struct gyre__job *job)
{
	uint64_t deadline_ns = gyre__alarm_at(&job->home->alarms, &job->alarm);

	/* Relaxed: a hint; what led to the cancel comes with that itself. */
	if (gyre__load(&job->handle->cancel_asked, relaxed))
		gyre__job_cancel(job, GYRE_CANCELLED);
	else if (deadline_ns != GYRE__NEVER && deadline_ns <= gyre__sys->now_ns())
		gyre__job_cancel(job, GYRE_TIMED_OUT);
}

void gyre__jobs_end(struct gyre__tasks *tasks, enum gyre_status reason)
{
	struct gyre__job *job;
	struct gyre__task *task;

	tasks->end_reason = reason;
	for (job = tasks->jobs; job; job = job->next) {
		gyre__job_cancel(job, reason);
		for (task = job->tasks; task; task = task->job_next)
			gyre__task_hurry(task);
	}
}

void gyre__job_panic(struct gyre__job *job, char *text)
{
	if (job->panicked)
		gyre__free(text);
	else
		job->panic = text;
	job->panicked = true;
	cancel_tasks(job);
}

void gyre__job_end_of_first(struct gyre__job *job, enum gyre__task_end end, int result)
{
	job->first = NULL;
	job->returned = end == GYRE__TASK_RETURNED;
	job->result = result;
	if (job->live) {
		gyre__count(&job->home->counters.leftover, job->live);
		cancel_tasks(job);
	}
}

/* ----------------------------------------------------------- beginning -- */

static void timed_out(struct gyre__alarm *alarm)
{
	gyre__job_cancel(gyre__container_of(alarm, struct gyre__job, alarm), GYRE_TIMED_OUT);
}

static bool copy_into_arena(struct gyre__job *job, const struct gyre_job *handle, void **ret_arg)
{
	*ret_arg = handle->arg;
	if (handle->name) {
		size_t len = strlen(handle->name) + 1;
		char *name = gyre__arena_alloc(&job->arena, len);

		if (!name)
			return false;
		job->name = memcpy(name, handle->name, len);
	}
	if (handle->arg_size == 0)
		return true;
	*ret_arg = gyre__arena_alloc(&job->arena, handle->arg_size);
	if (!*ret_arg)
		return false;
	memcpy(*ret_arg, handle->arg, handle->arg_size);
	return true;
}

/* NULL: no memory, and nothing is left of it. */
static struct gyre__job *job_new(struct gyre__tasks *tasks, struct gyre_job *handle)
{
	struct gyre__job *job;
	void *arg;

	if (!gyre__alarms_reserve(&tasks->alarms))
		return NULL;
	job = gyre__arena_open(&tasks->chunks, sizeof(*job), offsetof(struct gyre__job, arena),
			       handle->arena_max);
	if (!job)
		goto out_alarm;
	job->home = tasks;
	job->handle = handle;
	job->unjoined = GYRE__NO_HANDLE;
	job->stack_size = handle->stack_size;
	job->stack_class = gyre__stack_class_of(handle->stack_size);
	gyre__alarm_init(&job->alarm, timed_out);
	job->mode = handle->mode;
	job->keyed = handle->keyed;
	job->began = job->mode == GYRE_MODE_DEFAULT;
	if (copy_into_arena(job, handle, &arg))
		job->first = gyre__task_start(job, NULL, handle->fn, arg, NULL);
	if (!job->first)
		goto out_arena;
	job->first->is_first = true;
	job->first->needs_state = !job->began;
	return job;

out_arena:
	gyre__arena_close(&job->arena);
out_alarm:
	gyre__alarms_release(&tasks->alarms);
	return NULL;
}

static void link_job(struct gyre__job *job)
{
	struct gyre__tasks *tasks = job->home;

	job->next = tasks->jobs;
	if (tasks->jobs)
		tasks->jobs->prev = job;
	tasks->jobs = job;
	tasks->jobs_live++;
	tasks->ring->guests++;
	gyre__count(&tasks->counters.jobs_started, 1);
	gyre__count(&tasks->counters.jobs_running, 1);
}

void gyre__job_start(struct gyre__tasks *tasks, struct gyre_job *handle)
{
	uint64_t deadline_ns = GYRE__NEVER;
	struct gyre__job *job;

	if (handle->timeout_ns)
		deadline_ns = gyre__deadline(handle->start_ns, handle->timeout_ns);
	if (tasks->end_reason != GYRE_OK) {
		gyre__job_answer(handle, tasks->end_reason, GYRE_EFFECT_NONE, tasks->ring);
		return;
	}
	if (deadline_ns != GYRE__NEVER && deadline_ns <= gyre__sys->now_ns()) {
		gyre__job_answer(handle, GYRE_TIMED_OUT, GYRE_EFFECT_NONE, tasks->ring);
		return;
	}
	if (tasks->jobs_live >= GYRE__JOBS_MAX) {
		/* Not BUSY: of who waits for a job, that is asked for patience. */
		gyre__job_answer(handle, GYRE_NO_MEMORY, GYRE_EFFECT_NONE, tasks->ring);
		return;
	}
	job = job_new(tasks, handle);
	if (!job) {
		gyre__job_answer(handle, GYRE_NO_MEMORY, GYRE_EFFECT_NONE, tasks->ring);
		return;
	}
	link_job(job);
	job->since_ns = tasks->ring->now_ns;
	handle->job = job;
	if (deadline_ns != GYRE__NEVER)
		gyre__alarm_set(&tasks->alarms, &job->alarm, deadline_ns);
	tasks->hooks.job_begins(job->first, handle);
}

static void free_own(struct gyre_job *handle)
{
	gyre__free(handle->panic);
	gyre__free(handle);
}

bool gyre__job_start_own(struct gyre__tasks *tasks, gyre_task_fn *fn, void *arg,
			 struct gyre__keyed *keyed)
{
	struct gyre_job *handle = gyre__zalloc(sizeof(*handle));
	struct gyre__job *job;

	if (!handle)
		return false;
	handle->fn = fn;
	handle->arg = arg;
	handle->keyed = keyed;
	handle->stack_size = OWN_STACK_SIZE;
	handle->arena_max = tasks->arena_max;
	handle->unref = free_own;
	job = job_new(tasks, handle);
	if (!job) {
		gyre__free(handle);
		return false;
	}
	link_job(job);
	handle->job = job;
	if (tasks->end_reason != GYRE_OK)
		gyre__job_cancel(job, tasks->end_reason);
	return true;
}
