/* SPDX-License-Identifier: MIT */
/*
 * gyre_block_on, gyre_spawn and what can be done with the handle.
 *
 * A job for which its caller waits has its handle on the caller's stack, as no
 * answer comes before the job has ended. All others are *spawned*: the handle is
 * on the heap with the batch that carries it to its worker, and with a second one
 * that may carry a cancel after it. One reference is the user's, one the job's,
 * and one that of a cancel on its way.
 *
 * Each job has at most one who waits for it: the handle says who, for lib/circle.c.
 * Of gyre_block_on() that is noted before the job is there, and for as long; of
 * gyre_job_wait(), where that would not end by itself, it comes and goes under
 * gyre__waits_lock().
 *
 * The life of a handle is modelled in tests/models/job.pml: spawned_unref(),
 * control_start(), control_cancel(), run_from_thread(), cancel_spawned(),
 * wait_in_thread(), wait_in_task(), interrupt_wait(), withdraw_wait() and
 * gyre_job_detach().
 */
#include "jobs.h"

#include <errno.h>
#include <string.h>

#include "bridge.h"
#include "circle.h"
#include "context.h"
#include "offload.h"
#include "runtime.h"
#include "workers/keys.h"

#define OPTIONS_SIZE_0_1 (offsetof(struct gyre_job_options, arg_size) + sizeof(size_t))
#define STRUCT_SIZE_MAX 4096
#define STACK_SIZE_MIN	((size_t)16 << 10)
#define STACK_SIZE_MAX	((size_t)1 << 30)

_Static_assert(sizeof(void *) != 8 || sizeof(struct gyre_job_options) == OPTIONS_SIZE_0_1,
	       "struct gyre_job_options has grown: handle the new field");

/* ------------------------------------------------------------- options -- */

static enum gyre_status copy_options(const char *function, const struct gyre_job_options *options,
				     struct gyre_job_options *ret)
{
	const unsigned char *bytes = (const unsigned char *)options;
	size_t size, i;

	memset(ret, 0, sizeof(*ret));
	if (!options)
		return GYRE_OK;
	memcpy(&size, options, sizeof(size));
	if (size < OPTIONS_SIZE_0_1 || size > STRUCT_SIZE_MAX)
		return gyre__fail(function, GYRE_INVALID, "options->size is %zu: begin with "
				  "GYRE_JOB_OPTIONS_INIT", size);
	for (i = sizeof(*ret); i < size; i++)
		if (bytes[i] != 0)
			return gyre__fail(function, GYRE_INVALID, "options has a field that this "
					  "version of the library does not know");
	memcpy(ret, options, size < sizeof(*ret) ? size : sizeof(*ret));
	return GYRE_OK;
}

/* From here on GYRE_MODE_DEFAULT says that the job has no state. */
static enum gyre_status check_mode(const char *function, const struct gyre *rt,
				   struct gyre_job_options *options)
{
	if ((unsigned)options->mode > GYRE_MODE_POOLED)
		return gyre__fail(function, GYRE_INVALID, "options->mode is %u, which is no mode",
				  (unsigned)options->mode);
	if (!rt->settings.state)
		options->mode = GYRE_MODE_DEFAULT;
	else if (options->mode == GYRE_MODE_DEFAULT)
		options->mode = rt->settings.mode;
	if (options->mode != GYRE_MODE_POOLED)
		return GYRE_OK;
	if (!options->key)
		return gyre__fail(function, GYRE_INVALID, "a job in GYRE_MODE_POOLED needs a key: "
				  "options->key says on whose state it runs");
	if (options->worker)
		return gyre__fail(function, GYRE_INVALID, "a job in GYRE_MODE_POOLED runs where "
				  "the state of its key lives: leave options->worker 0");
	return GYRE_OK;
}

static enum gyre_status check_options(const char *function, const struct gyre *rt,
				      struct gyre_job_options *options)
{
	if (options->stack_size == 0)
		options->stack_size = rt->settings.stack_size;
	if (options->arena_max == 0)
		options->arena_max = rt->settings.arena_max;
	if (options->stack_size < STACK_SIZE_MIN || options->stack_size > STACK_SIZE_MAX)
		return gyre__fail(function, GYRE_INVALID,
				  "a stack_size of %zu bytes is not between 16 KiB and 1 GiB",
				  options->stack_size);
	if (options->worker > rt->crew->count)
		return gyre__fail(function, GYRE_INVALID, "options->worker names worker %u of %u",
				  options->worker - 1, rt->crew->count);
	return check_mode(function, rt, options);
}

static void describe(struct gyre_job *handle, const struct gyre__thread *self, gyre_task_fn *fn,
		     void *arg, const struct gyre_job_options *options)
{
	handle->fn = fn;
	handle->arg = arg;
	handle->arg_size = options->arg_size;
	handle->name = options->name;
	handle->timeout_ns = options->timeout_ns == GYRE_FOREVER ? 0 : options->timeout_ns;
	handle->start_ns = handle->timeout_ns ? gyre__sys->now_ns() : 0;
	handle->stack_size = options->stack_size;
	handle->arena_max = options->arena_max;
	handle->mode = options->mode;
	handle->keyed = NULL;
	handle->context = gyre__context_share(self->context);
	handle->helped = gyre__thread_is_helped(self);
	handle->returned = false;
	handle->panic = NULL;
	handle->job = NULL;
	handle->later = NULL;
	handle->unref = NULL;
	gyre__store(&handle->word, GYRE__JOB_RUNS, relaxed);
	gyre__store(&handle->waited_by, NULL, relaxed);
	gyre__store(&handle->cancel_asked, 0, relaxed);
	handle->owned = false;
}

static enum gyre_status check_job(const char *function, const struct gyre *rt, gyre_task_fn *fn,
				  const void *arg, const struct gyre_job_options *options,
				  struct gyre_job_options *ret)
{
	enum gyre_status status;

	if (!fn)
		return gyre__fail(function, GYRE_INVALID, "fn is NULL");
	status = copy_options(function, options, ret);
	if (status != GYRE_OK)
		return status;
	if (ret->arg_size && !arg)
		return gyre__fail(function, GYRE_INVALID, "arg_size is %zu, and arg is NULL",
				  ret->arg_size);
	return check_options(function, rt, ret);
}

void gyre__jobs_begin_one(struct gyre__task *first, struct gyre_job *handle)
{
	if (gyre__likely(!handle->context))
		return;
	gyre__thread_of_task(first)->context = handle->context;
	handle->context = NULL;
}

/* -------------------------------------------------------------- answers -- */

void gyre__note_panic(struct gyre__thread *self, char *text)
{
	gyre__free(self->last_panic);
	self->last_panic = text;
}

/* What ended a job before its time, for a sentence that goes on. */
static const char *why_ended(enum gyre_status status)
{
	switch (status) {
	case GYRE_TIMED_OUT:
		return "its time-out passed, and the job was cancelled";
	case GYRE_CANCELLED:
		return "the job was cancelled, or the runtime's time to drain is over";
	case GYRE_WORKER_DEAD:
		return "its worker has stopped for good";
	default:
		return gyre_status_name(status);
	}
}

static enum gyre_status report_unstarted(const char *function, enum gyre_status status)
{
	switch (status) {
	case GYRE_NO_MEMORY:
		return gyre__fail(function, status,
				  "no memory for the job: for its stack, for the copies of its "
				  "argument and name, which must fit into arena_max, or in the "
				  "worker's tables, which hold %u jobs",
				  GYRE__JOBS_MAX);
	case GYRE_WORKER_DEAD:
		return gyre__fail(function, status,
				  "no worker is left alive to run it; it never began");
	case GYRE_CLOSED:
		return gyre__fail(function, status,
				  "the runtime was closed meanwhile; it never began");
	case GYRE_WOULD_DEADLOCK:
		return gyre__fail(function, status, "the job that has the state which it needs, "
				  "or comes before it in line, waits for this one; or all do who "
				  "have a place in the pool; it never began");
	case GYRE_SYSTEM:
		return gyre__fail(function, status, "its state could not be made: create gave "
				  "NULL; the job never began");
	default:
		return gyre__fail(function, status, "%s; it never began", why_ended(status));
	}
}

/* What became of a job that has ended, told to the caller. Takes the panic's text over. */
static enum gyre_status report_end(const char *function, struct gyre__thread *self,
				   struct gyre_job *handle, int *ret_result)
{
	enum gyre_status status = handle->status;

	if (handle->returned && ret_result)
		*ret_result = handle->result;
	if (gyre__likely(status == GYRE_OK)) {
		gyre__thread_succeed(self);
		return GYRE_OK;
	}
	if (handle->effect == GYRE_EFFECT_NONE && status != GYRE_RESPONSE_LOST)
		return report_unstarted(function, status);
	if (status != GYRE_RESPONSE_LOST)
		return gyre__fail_effect(function, status, handle->effect,
					 "%s; what it has done by then is done",
					 why_ended(status));
	gyre__note_panic(self, handle->panic);
	handle->panic = NULL;
	return gyre__fail_effect(function, status, handle->effect, "the job panicked: %s",
				 gyre_last_panic());
}

/* --------------------------------------------------------- who waits -- */

/* A state that goes for another, and waits for a job on its way. */
static void note_giver(struct gyre__thread *self)
{
	const struct gyre__job *job = gyre__thread_job(self);

	if (gyre__unlikely(job && job->keyed && job->keyed->given))
		gyre__keys_giver_waits(job->keyed, self->task ? self->worker->tasks.ring : NULL);
}

/*
 * For a wait without end, which is noted for who looks for circles. GYRE_OK;
 * GYRE_WOULD_DEADLOCK: it would never end; GYRE_BUSY: somebody else's is noted.
 */
static enum gyre_status begin_waiting(struct gyre__thread *self, struct gyre_job *handle)
{
	struct gyre__thread *who = gyre__waiting_party(self);
	enum gyre_status status = GYRE_OK;

	if (!who)
		return GYRE_OK;
	note_giver(self);
	gyre__waits_lock();
	/* Of its own job a task never sees the end, though that may cancel the wait. */
	if ((self->task && self->task->job->handle == handle) || gyre__circle_with_job(who, handle))
		status = GYRE_WOULD_DEADLOCK;
	else if (gyre__load(&handle->waited_by, relaxed))
		status = GYRE_BUSY;
	else
		gyre__store(&handle->waited_by, who, release);
	if (self->task)
		self->task->awaits = status == GYRE_OK;
	gyre__waits_unlock();
	return status;
}

static void end_waiting(struct gyre__thread *self, struct gyre_job *handle)
{
	if (!gyre__waiting_party(self))
		return;
	gyre__waits_lock();
	gyre__store(&handle->waited_by, NULL, release);
	gyre__waits_unlock();
	if (self->task)
		self->task->awaits = false;
}

/*
 * For as long as the handle lives. Release: what has led up to self. Pairs with the
 * load in lib/circle.c.
 */
static void wait_as_owner(struct gyre__thread *self, struct gyre_job *handle)
{
	note_giver(self);
	handle->owned = true;
	if (self->task)
		self->task->awaits = true;
	gyre__store(&handle->waited_by, gyre__waiting_party(self), release);
}

static void owner_has_waited(struct gyre__thread *self)
{
	if (self->task)
		self->task->awaits = false;
}

/* ------------------------------------------------------------ spawned jobs -- */

struct spawned {
	struct gyre_job handle;
	struct gyre__batch start, cancel;
	_Atomic uint32_t refs;
	uint32_t runtime_id;
	char copies[] __attribute__((__aligned__(16)));	/* of the argument, then of the name */
};

static struct spawned *spawned_of(struct gyre_job *handle)
{
	return gyre__container_of(handle, struct spawned, handle);
}

static void spawned_unref(struct gyre_job *handle)
{
	struct spawned *spawned = spawned_of(handle);

	/* Each release pairs with the acquire of the last one, which frees. */
	if (gyre__fetch_sub(&spawned->refs, 1, acq_rel) > 1)
		return;
	gyre__context_drop(handle->context);	/* that of a job that never began */
	gyre__free(handle->panic);
	gyre__free(spawned);
}

/* Owner. The start and the cancel of a job, as controls that answer themselves. */
static bool control_start(struct gyre__ring *ring, struct gyre__batch *batch)
{
	struct gyre__worker *worker = gyre__container_of(ring, struct gyre__worker, ring);
	struct gyre_job *handle = batch->control_arg;

	if (gyre__load(&ring->dead, relaxed))
		gyre__job_answer(handle, GYRE_WORKER_DEAD, GYRE_EFFECT_NONE, ring);
	else if (ring->phase >= GYRE__RING_CANCELLING)
		gyre__job_answer(handle, ring->phase == GYRE__RING_CANCELLING ? GYRE_CANCELLED :
				 GYRE_CLOSED, GYRE_EFFECT_NONE, ring);
	else
		gyre__job_start(&worker->tasks, handle);
	return false;
}

static bool control_cancel(struct gyre__ring *ring, struct gyre__batch *batch)
{
	struct gyre_job *handle = batch->control_arg;

	(void)ring;
	if (handle->job)
		gyre__job_cancel(handle->job, GYRE_CANCELLED);
	spawned_unref(handle);
	return false;
}

static void batch_control(struct gyre__batch *batch, struct gyre_job *handle,
			  bool (*control)(struct gyre__ring *ring, struct gyre__batch *batch))
{
	batch->count = 0;
	batch->ops = NULL;
	batch->flags = GYRE__BATCH_CONTROL | GYRE__BATCH_RETAINED;
	batch->control = control;
	batch->control_arg = handle;
}

static struct spawned *spawned_new(const struct gyre__thread *self, const struct gyre *rt,
				   gyre_task_fn *fn, void *arg,
				   const struct gyre_job_options *options, uint32_t refs)
{
	size_t name_len = options->name ? strlen(options->name) + 1 : 0;
	struct spawned *spawned;

	if (options->arg_size > SIZE_MAX / 2 || name_len > SIZE_MAX / 4)
		return NULL;
	spawned = gyre__sys->alloc(sizeof(*spawned) + options->arg_size + name_len,
				   _Alignof(struct spawned));
	if (!spawned)
		return NULL;
	describe(&spawned->handle, self, fn, arg, options);
	if (options->arg_size)
		spawned->handle.arg = memcpy(spawned->copies, arg, options->arg_size);
	if (name_len)
		spawned->handle.name = memcpy(spawned->copies + options->arg_size, options->name,
					      name_len);
	spawned->handle.unref = spawned_unref;
	spawned->runtime_id = rt->id;
	gyre__store(&spawned->refs, refs, relaxed);
	batch_control(&spawned->start, &spawned->handle, control_start);
	batch_control(&spawned->cancel, &spawned->handle, control_cancel);
	return spawned;
}

/* The worker that options name, or where the caller's calls go; NULL: all are dead. */
static struct gyre__worker *choose(struct gyre__thread *self, struct gyre *rt,
				   const struct gyre_job_options *options)
{
	if (options->worker)
		return rt->crew->worker[options->worker - 1];
	if (gyre__thread_is_at_home(self, rt))
		return self->worker;
	return gyre__crew_choose(rt->crew, &gyre__thread_home(self, rt)->worker);
}

/*
 * Where handle is to run: where its key's state is, or choose(). A task of a runtime
 * that is closed can count on its own worker alone.
 */
static enum gyre_status aim(struct gyre__thread *self, struct gyre *rt, struct gyre_job *handle,
			    const struct gyre_job_options *options, struct gyre__worker **ret)
{
	enum gyre_status status;
	struct gyre__tasks *only = NULL;

	if (gyre__likely(options->mode != GYRE_MODE_POOLED)) {
		*ret = choose(self, rt, options);
		if (!*ret)
			return GYRE_WORKER_DEAD;
		handle->home = &(*ret)->tasks;
		return GYRE_OK;
	}
	/* Relaxed: who is refused below has seen the seal, which comes after it. */
	if (gyre__thread_is_at_home(self, rt) && gyre__load(&rt->closed, relaxed))
		only = &self->worker->tasks;
	status = gyre__keys_enter(rt->pool, options->key, only, &handle->keyed);
	if (status != GYRE_OK)
		return status;
	handle->home = handle->keyed->side->tasks;
	*ret = gyre__container_of(handle->home, struct gyre__worker, tasks);
	return GYRE_OK;
}

/*
 * As gyre__ring_send(). With a key, *ret_again tells that its state is to be had
 * elsewhere; and a task's job gets to a worker that drains, as it would to its own.
 */
static enum gyre_status send_start(struct gyre__thread *self, struct gyre *rt,
				   struct gyre_job *handle,
				   const struct gyre_job_options *options,
				   struct gyre__batch *batch, bool *ret_woken, bool *ret_again)
{
	struct gyre__ring *ring = handle->home->ring;
	enum gyre_status status = gyre__ring_send(ring, batch, ret_woken);

	*ret_again = status == GYRE_WORKER_DEAD && !options->worker;
	if (gyre__likely(status == GYRE_OK || !handle->keyed))
		return status;
	if (status == GYRE_CLOSED && gyre__thread_is_at_home(self, rt)) {
		if (gyre__ring_control(ring, batch))
			return GYRE_OK;
		gyre__keys_forget(handle->keyed);
		*ret_again = true;
	}
	gyre__keys_leave(handle->keyed, false, self->worker ? self->worker->tasks.ring : NULL);
	handle->keyed = NULL;
	return status;
}

/* On the calling task's own worker it is known at once whether it has begun. */
static enum gyre_status start_at_home(struct spawned *spawned)
{
	struct gyre_job *handle = &spawned->handle;
	enum gyre_status status = GYRE_OK;

	gyre__fetch_add(&spawned->refs, 1, relaxed);	/* to look at it after */
	gyre__job_start(handle->home, handle);
	/* What else may have become of it so soon is for who waits. */
	if (gyre__job_has_ended(handle) && handle->status == GYRE_NO_MEMORY)
		status = GYRE_NO_MEMORY;
	else
		spawned_unref(handle);
	return status;
}

/* GYRE_OK: it is the worker's now. Else it never began, and the job's reference is given up. */
static enum gyre_status send_spawned(struct gyre__thread *self, struct gyre *rt,
				     struct spawned *spawned,
				     const struct gyre_job_options *options)
{
	struct gyre__worker *worker;
	enum gyre_status status;
	bool woken, again;

	do {
		status = aim(self, rt, &spawned->handle, options, &worker);
		if (status != GYRE_OK)
			return status;
		if (self->task && worker == self->worker)
			return start_at_home(spawned);
		status = send_start(self, rt, &spawned->handle, options, &spawned->start, &woken,
				    &again);
	} while (again);
	return status;
}

enum gyre_status gyre_spawn(struct gyre *rt, gyre_task_fn *fn, void *arg,
			    const struct gyre_job_options *options, struct gyre_job **ret)
{
	struct gyre_job_options checked;
	struct gyre__thread *self;
	struct spawned *spawned;
	enum gyre_status status = gyre__runtime_enter(__func__, &rt, &self);

	if (status != GYRE_OK)
		return status;
	status = check_job(__func__, rt, fn, arg, options, &checked);
	if (status != GYRE_OK)
		goto out_leave;
	spawned = spawned_new(self, rt, fn, arg, &checked, ret ? 2 : 1);
	if (!spawned) {
		status = gyre__fail(__func__, GYRE_NO_MEMORY, "out of memory for a job");
		goto out_leave;
	}
	status = send_spawned(self, rt, spawned, &checked);
	if (status != GYRE_OK) {
		gyre__store(&spawned->refs, 1, relaxed);
		spawned_unref(&spawned->handle);
		report_unstarted(__func__, status);
		goto out_leave;
	}
	if (ret)
		*ret = &spawned->handle;
	gyre__thread_succeed(self);
out_leave:
	gyre__thread_leave(self);
	return status;
}

/* ---------------------------------------------------------- gyre_block_on -- */

/*
 * A plain thread. Its one batch carries the job there, and its reply comes when the job has ended.
 */
static enum gyre_status run_from_thread(struct gyre__thread *self, struct gyre *rt,
					struct gyre_job *handle,
					const struct gyre_job_options *options)
{
	struct gyre__worker *worker;
	enum gyre_status status;
	bool woken, again;

	batch_control(&self->batch, handle, control_start);
	gyre__store(&handle->word, (uintptr_t)&self->reply.waiter, relaxed);
	do {
		status = aim(self, rt, handle, options, &worker);
		if (status != GYRE_OK)
			return report_unstarted("gyre_block_on", status);
		gyre__reply_expect(&self->reply);
		status = send_start(self, rt, handle, options, &self->batch, &woken, &again);
		if (status != GYRE_OK)
			gyre__reply_forget(&self->reply);
	} while (again);
	if (status != GYRE_OK)
		return report_unstarted("gyre_block_on", status);
	gyre__reply_wait(&self->reply, &self->reply.job_spin, &worker->ring.pace, woken);
	return GYRE_OK;
}

struct job_wait {
	struct gyre__wait wait;
	struct gyre_job *handle;
	struct gyre__task_waiter waiter;
};

static void interrupt_own_job(struct gyre__task *task, struct gyre__wait *wait)
{
	struct job_wait *job_wait = gyre__container_of(wait, struct job_wait, wait);

	(void)task;
	if (job_wait->handle->job)
		gyre__job_cancel(job_wait->handle->job, GYRE_CANCELLED);
}

/*
 * Its runtime is there: whoever waits is in a call of it, or has looked. from: the tasks of the
 * calling thread, or NULL.
 */
static void cancel_spawned(struct spawned *spawned, const struct gyre__tasks *from)
{
	struct gyre_job *handle = &spawned->handle;

	/* One of all who ask sends it: whoever comes later finds it on its way. */
	if (gyre__job_has_ended(handle) || gyre__exchange(&handle->cancel_asked, 1, acq_rel))
		return;
	/* A start that is still on its way must come first: then the cancel travels behind it. */
	if (from == handle->home && handle->job) {
		gyre__job_cancel(handle->job, GYRE_CANCELLED);
		return;
	}
	gyre__fetch_add(&spawned->refs, 1, relaxed);
	if (!gyre__ring_control(handle->home->ring, &spawned->cancel))
		spawned_unref(handle);	/* the ring has ended, and with it the job */
}

static void interrupt_far_job(struct gyre__task *task, struct gyre__wait *wait)
{
	struct job_wait *job_wait = gyre__container_of(wait, struct job_wait, wait);

	cancel_spawned(spawned_of(job_wait->handle), task->home);
}

/* A task that waits for the end of handle, and takes nothing less for an answer. */
static void park_for_job(struct gyre__thread *self, struct gyre_job *handle,
			 void (*interrupt)(struct gyre__task *task, struct gyre__wait *wait))
{
	struct job_wait job_wait = {
		.wait = { .what = "gyre_block_on", .interrupt = interrupt },
		.handle = handle,
	};

	gyre__task_waiter_init(&job_wait.waiter, self->task);
	if (gyre__job_await(handle, &job_wait.waiter.waiter))
		gyre__task_park(self->task, &job_wait.wait);
}

static enum gyre_status run_elsewhere(struct gyre__thread *self, struct gyre *rt, gyre_task_fn *fn,
				      void *arg, const struct gyre_job_options *options,
				      int *ret_result)
{
	struct spawned *spawned = spawned_new(self, rt, fn, arg, options, 2);
	enum gyre_status status;

	if (!spawned)
		return gyre__fail("gyre_block_on", GYRE_NO_MEMORY, "out of memory for a job");
	wait_as_owner(self, &spawned->handle);
	status = send_spawned(self, rt, spawned, options);
	if (status != GYRE_OK) {
		gyre__store(&spawned->refs, 1, relaxed);
		report_unstarted("gyre_block_on", status);
	} else {
		park_for_job(self, &spawned->handle, interrupt_far_job);
		status = report_end("gyre_block_on", self, &spawned->handle, ret_result);
	}
	owner_has_waited(self);
	spawned_unref(&spawned->handle);
	return status;
}

static enum gyre_status run_at_home(struct gyre__thread *self, struct gyre_job *handle,
				    int *ret_result)
{
	wait_as_owner(self, handle);
	handle->home = &self->worker->tasks;
	gyre__job_start(handle->home, handle);
	park_for_job(self, handle, interrupt_own_job);
	owner_has_waited(self);
	gyre__context_drop(handle->context);	/* that of a job that never began */
	return report_end("gyre_block_on", self, handle, ret_result);
}

enum gyre_status gyre_block_on(struct gyre *rt, gyre_task_fn *fn, void *arg,
			       const struct gyre_job_options *options, int *ret_result)
{
	struct gyre_job_options checked;
	struct gyre__thread *self;
	struct gyre_job handle;
	enum gyre_status status = gyre__runtime_enter(__func__, &rt, &self);

	if (status != GYRE_OK)
		return status;
	status = check_job(__func__, rt, fn, arg, options, &checked);
	if (status != GYRE_OK)
		goto out_leave;
	if (self->task && (checked.mode == GYRE_MODE_POOLED ||
			   choose(self, rt, &checked) != self->worker)) {
		status = run_elsewhere(self, rt, fn, arg, &checked, ret_result);
		goto out_leave;
	}
	describe(&handle, self, fn, arg, &checked);
	if (self->task) {
		status = run_at_home(self, &handle, ret_result);
		goto out_leave;
	}
	wait_as_owner(self, &handle);
	gyre__helper_waits(self);
	status = run_from_thread(self, rt, &handle, &checked);
	gyre__helper_goes_on(self);
	if (status == GYRE_OK)
		status = report_end(__func__, self, &handle, ret_result);
	gyre__context_drop(handle.context);	/* that of a job that never began */
out_leave:
	gyre__thread_leave(self);
	return status;
}

/* --------------------------------------------------------- with a handle -- */

static void interrupt_wait(struct gyre__task *task, struct gyre__wait *wait)
{
	struct job_wait *job_wait = gyre__container_of(wait, struct job_wait, wait);

	if (gyre__job_withdraw(job_wait->handle, &job_wait->waiter.waiter))
		gyre__task_ready(task);
}

static bool withdraw_wait(struct gyre__task *task, struct gyre__wait *wait)
{
	struct job_wait *job_wait = gyre__container_of(wait, struct job_wait, wait);

	(void)task;
	return gyre__job_withdraw(job_wait->handle, &job_wait->waiter.waiter);
}

static enum gyre_status wait_busy(enum gyre_status reason)
{
	return gyre__fail("gyre_job_wait", GYRE_BUSY, "%s", reason == GYRE_BUSY ?
			  "somebody else waits for this job already" : reason == GYRE_TIMED_OUT ?
			  "the job has not ended yet; the handle is still good" :
			  "the task that waits was cancelled; the handle is still good");
}

/* GYRE_OK: the job has ended. */
static enum gyre_status wait_in_task(struct gyre__thread *self, struct gyre_job *handle,
				     uint64_t timeout_ns)
{
	struct job_wait job_wait = {
		.wait = { .what = "gyre_job_wait", .interrupt = interrupt_wait,
			  .withdraw = withdraw_wait },
		.handle = handle,
	};
	uint64_t at_ns = timeout_ns == GYRE_FOREVER ? GYRE__NEVER :
			 gyre__deadline(gyre__sys->now_ns(), timeout_ns);

	gyre__task_waiter_init(&job_wait.waiter, self->task);
	if (!gyre__job_await(handle, &job_wait.waiter.waiter))
		return gyre__job_has_ended(handle) ? GYRE_OK : wait_busy(GYRE_BUSY);
	if (!gyre__task_park_until(self->task, &job_wait.wait, at_ns))
		return wait_busy(GYRE_TIMED_OUT);
	return gyre__job_has_ended(handle) ? GYRE_OK : wait_busy(GYRE_CANCELLED);
}

static enum gyre_status wait_in_thread(struct gyre__thread *self, struct gyre_job *handle,
				       uint64_t timeout_ns)
{
	gyre__reply_expect(&self->reply);
	if (!gyre__job_await(handle, &self->reply.waiter)) {
		gyre__reply_forget(&self->reply);
		return gyre__job_has_ended(handle) ? GYRE_OK : wait_busy(GYRE_BUSY);
	}
	if (timeout_ns == GYRE_FOREVER) {
		gyre__helper_waits(self);
		gyre__reply_wait(&self->reply, &self->reply.job_spin, &handle->home->ring->pace,
				 false);
		gyre__helper_goes_on(self);
		return GYRE_OK;
	}
	if (gyre__reply_await_until(&self->reply, gyre__deadline(gyre__sys->now_ns(), timeout_ns)))
		return GYRE_OK;
	if (gyre__job_withdraw(handle, &self->reply.waiter)) {
		gyre__reply_forget(&self->reply);
		return wait_busy(GYRE_TIMED_OUT);
	}
	gyre__reply_await(&self->reply);
	return GYRE_OK;
}

/* Of a runtime that is there. GYRE_OK: the job has ended. */
static enum gyre_status wait_for_end(struct gyre__thread *self, struct gyre_job *handle,
				     uint64_t timeout_ns)
{
	enum gyre_status status;

	if (gyre__job_has_ended(handle))
		return GYRE_OK;
	if (self->task && gyre__task_may_wait(self->task) != GYRE_OK)
		return wait_busy(GYRE_CANCELLED);
	/* Who asks again and again must not keep the job from what it is asked for. */
	if (timeout_ns == 0 && self->task)
		gyre__task_yield(self->task);
	if (timeout_ns == 0)
		return gyre__job_has_ended(handle) ? GYRE_OK : wait_busy(GYRE_TIMED_OUT);
	/* A time-out ends any circle, and waits that end by themselves are no part of one. */
	status = timeout_ns == GYRE_FOREVER ? begin_waiting(self, handle) : GYRE_OK;
	if (status == GYRE_BUSY)
		return wait_busy(GYRE_BUSY);
	if (status != GYRE_OK)
		return gyre__fail("gyre_job_wait", GYRE_WOULD_DEADLOCK,
				  "the job would wait, through jobs and joins, for its own end; "
				  "the handle is still good");
	status = self->task ? wait_in_task(self, handle, timeout_ns) :
			      wait_in_thread(self, handle, timeout_ns);
	if (timeout_ns == GYRE_FOREVER)
		end_waiting(self, handle);
	return status;
}

enum gyre_status gyre_job_wait(struct gyre_job *job, uint64_t timeout_ns, int *ret_result)
{
	struct gyre__thread *self = gyre__thread_self();
	enum gyre_status status;

	if (!self)
		return GYRE_BUSY;	/* nothing was waited for: the handle is still good */
	if (!job)
		return gyre__fail(__func__, GYRE_INVALID, "job is NULL");
	if (gyre__thread_is_in_prep(self))
		return gyre__fail(__func__, GYRE_WOULD_DEADLOCK, "a prep closure may not wait");
	if (!gyre__runtime_visit(self, spawned_of(job)->runtime_id)) {
		status = gyre__fail(__func__, GYRE_CLOSED, "the runtime of the job was freed");
		spawned_unref(job);
		return status;
	}
	status = wait_for_end(self, job, timeout_ns);
	if (status == GYRE_OK) {
		status = report_end(__func__, self, job, ret_result);
		spawned_unref(job);
	}
	gyre__thread_leave(self);
	return status;
}

void gyre_job_cancel(struct gyre_job *job)
{
	struct gyre__thread *self = gyre__thread_self();
	struct gyre *rt = job ? gyre__runtime_visit(self, spawned_of(job)->runtime_id) : NULL;

	if (!rt)
		return;
	cancel_spawned(spawned_of(job), self && self->worker ? &self->worker->tasks : NULL);
	/*
	 * A thread without memory for a record cannot say so; and the job is to end all the same.
	 */
	if (self)
		gyre__thread_leave(self);
	else
		gyre__runtime_end_visit(rt);
}

void gyre_job_detach(struct gyre_job *job)
{
	if (job)
		spawned_unref(job);
}
