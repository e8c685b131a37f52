/* SPDX-License-Identifier: MIT */
/*
 * A call to a helper lies on its caller's stack, as the caller waits for it
 * whatever happens: what runs there cannot be cut off. The helper is a thread
 * with a record of its own, so all that it calls takes it for a plain thread.
 *
 * Modelled in tests/models/relieve.pml: count_waiting(), relieve(), refuse_left(),
 * gyre__helper_waits(), gyre__helper_goes_on(), offload().
 */
#include "offload.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>

#include "context.h"
#include "jobs.h"
#include "workers/offload.h"

struct offloaded {
	struct gyre__offload_work work;
	struct gyre__thread *caller;
	struct gyre *rt;		/* whose helper runs it */
	gyre_task_fn *fn;		/* a user's; or */
	void (*own)(void *arg);		/* the library's */
	enum gyre__call_kind kind;	/* own */
	bool lasts;			/* own: it is what the reserve has that may last */
	void *arg;
	struct gyre__job *job;		/* on whose behalf */
	struct gyre__context *context;	/* handed over to the helper */
	jmp_buf base;			/* where a panic ends */

	int result;
	enum gyre_status refused;	/* it has not run, and why; GYRE_OK: it has */
	bool panicked;
	char *panic;
	enum gyre_status last_status;	/* own: of the helper's last call */
	enum gyre_effect last_effect;
	bool remarked;
	char last_error[sizeof(((struct gyre__thread *)0)->last_error)];
};

/* ------------------------------------------------------------ the helper -- */

enum gyre_status gyre__offload_open_for(struct gyre *rt)
{
	struct gyre__offload_config config = {
		.name = rt->settings.name,
		.threads_max = rt->settings.offload_threads,
	};
	int rc = gyre__offload_open(&config, &rt->offload);

	config.letter = 'r';
	config.threads_max = GYRE__OFFLOAD_RESERVE;
	if (rc >= 0)
		rc = gyre__offload_open(&config, &rt->reserve);
	return rc < 0 ? gyre__fail_system("gyre_open", rc, "the pool of helper threads") : GYRE_OK;
}

static void note_last_call(struct offloaded *call, const struct gyre__thread *self)
{
	call->last_status = self->last_status;
	call->last_effect = self->last_effect;
	call->remarked = self->remarked;
	memcpy(call->last_error, self->last_error, sizeof(call->last_error));
}

static void run_here(struct offloaded *call, struct gyre__thread *self)
{
	struct gyre__context *context = self->context;

	self->helps = call->rt;
	self->serves = call->job;
	self->offloaded = call;
	self->context = call->context;
	if (call->own) {
		call->own(call->arg);
		note_last_call(call, self);
	} else if (setjmp(call->base) == 0) {
		call->result = call->fn(call->arg);
	} else {
		call->panicked = true;
	}
	gyre__context_drop(self->context);
	self->context = context;
	self->offloaded = NULL;
	self->serves = NULL;
	self->helps = NULL;
}

/* Whoever waits, wherever it does: goes on, and takes the call's memory with it. */
static void tell(struct gyre__thread *caller)
{
	if (caller->task)
		gyre__task_wake(caller->task, NULL);
	else
		gyre__reply_give(&caller->reply);
}

static void refuse(struct offloaded *call, enum gyre_status why)
{
	call->refused = why;
	gyre__context_drop(call->context);
}

/*
 * Without memory for the thread's record the call is refused: to leave it to other
 * helpers, that may wait for whom it was made for, would be to wait for ever.
 */
static void run(struct gyre__offload_work *work)
{
	struct offloaded *call = gyre__container_of(work, struct offloaded, work);
	struct gyre__thread *self = gyre__thread_self();

	if (self)
		run_here(call, self);
	else
		refuse(call, GYRE_NO_MEMORY);
	tell(call->caller);
}

struct gyre__thread *gyre__offload_caller(const struct gyre__thread *helper)
{
	return helper->offloaded ? helper->offloaded->caller : NULL;
}

void gyre__offload_panic(char *text)
{
	struct gyre__thread *self = gyre__self();
	struct offloaded *call = self ? self->offloaded : NULL;

	if (!call || call->own)
		return;
	call->panic = text;
	longjmp(call->base, 1);
}

/* ----------------------------------------------------- a way to a helper -- */

/* All helpers wait for something that may be waiting for this: nobody would ever run it. */
static bool all_wait(struct gyre *rt, unsigned besides)
{
	return gyre__load(&rt->helpers_waiting, seq_cst) + besides >= rt->settings.offload_threads;
}

static enum gyre_status refuse_deadlock(const char *function, const struct gyre *rt)
{
	return gyre__fail(function, GYRE_WOULD_DEADLOCK, "each of the %u helper threads waits for "
			  "others already: raise offload_threads", rt->settings.offload_threads);
}

static enum gyre_status report_refused(const char *function, const struct gyre *rt,
				       enum gyre_status why)
{
	if (why == GYRE_WOULD_DEADLOCK)
		return refuse_deadlock(function, rt);
	if (why == GYRE_CLOSED)
		return gyre__fail(function, GYRE_CLOSED, "the runtime was closed meanwhile");
	return gyre__fail(function, GYRE_NO_MEMORY, "no memory for a helper thread or its record");
}

static enum gyre_status report_unpushed(const char *function, struct gyre *rt, int rc)
{
	if (rc == -ESHUTDOWN)
		return gyre__fail(function, GYRE_CLOSED, "the runtime is closed");
	if (rc == -EDEADLK)
		return refuse_deadlock(function, rt);
	return gyre__fail_system(function, rc, "start of a helper thread");
}

/* What the helper waits for in its turn, a task waits for, too. */
static void note_wait(struct gyre__thread *self, bool waits)
{
	if (self->task)
		self->task->awaits = waits;
}

static void end_lasting(struct offloaded *call)
{
	if (call->lasts)
		gyre__store(&call->rt->reserve_lasts, 0, release);
	call->lasts = false;
}

/* A user's: to one of offload_threads helpers, those that do not wait for others. */
static int push_user(struct offloaded *call)
{
	return gyre__offload_push(call->rt->offload, &call->work, &call->rt->helpers_waiting);
}

/* May this one last, in the reserve? One at a time: acquire and release, for no more than that. */
static bool may_last(struct gyre *rt, enum gyre__call_kind kind)
{
	uint32_t nobody = 0;

	return kind == GYRE__CALL_BRIEF || gyre__cas(&rt->reserve_lasts, &nobody, 1, acq_rel);
}

static int push_to_reserve(struct offloaded *call)
{
	struct gyre *rt = call->rt;
	int rc;

	if (!may_last(rt, call->kind))
		return -EDEADLK;
	call->lasts = call->kind != GYRE__CALL_BRIEF;
	rc = gyre__offload_push(rt->reserve, &call->work, call->lasts ? NULL : &rt->reserve_lasts);
	if (rc < 0)
		end_lasting(call);
	return rc;
}

/*
 * The library's own: to whoever is free, then to the reserve, and in the end to whoever
 * will be. Who waits will not: it may wait for this very call.
 */
static int push_own(struct offloaded *call)
{
	struct gyre *rt = call->rt;
	int rc = gyre__offload_push(rt->offload, &call->work, &gyre__offload_everybody);

	if (rc < 0 && rc != -ESHUTDOWN)
		rc = push_to_reserve(call);
	if (rc < 0 && rc != -ESHUTDOWN)
		rc = push_user(call);
	return rc;
}

/* ---------------------------------------------------- helpers that wait -- */

/* The helpers of offload_threads: the reserve does not count, and is not counted on. */
static bool is_counted(const struct gyre__thread *self)
{
	return self->helps && !self->offloaded->lasts;
}

/* Before it asks for what it will wait for: so that this is not left to itself. */
static void count_waiting(struct gyre__thread *self)
{
	if (is_counted(self))
		gyre__fetch_add(&self->helps->helpers_waiting, 1, seq_cst);
}

/*
 * Nobody will come to it: all that could wait, maybe for this. What the library does may
 * find a place in the reserve by now.
 */
static void refuse_left(struct offloaded *call, int why)
{
	if (call->own && push_to_reserve(call) >= 0)
		return;
	refuse(call, why == -EDEADLK ? GYRE_WOULD_DEADLOCK :
		     why == -ESHUTDOWN ? GYRE_CLOSED : GYRE_NO_MEMORY);
	tell(call->caller);
}

/* Once it is sure that it will wait: what is queued is not left to it, either. */
static void relieve(struct gyre__thread *self)
{
	struct gyre__offload_work *left = NULL;
	struct offloaded *call;
	int rc;

	if (!is_counted(self))
		return;
	rc = gyre__offload_relieve(self->helps->offload, &self->helps->helpers_waiting, &left);
	while (left) {
		call = gyre__container_of(left, struct offloaded, work);
		left = left->next;
		refuse_left(call, rc);
	}
}

void gyre__helper_waits(struct gyre__thread *self)
{
	count_waiting(self);
	relieve(self);
}

void gyre__helper_goes_on(struct gyre__thread *self)
{
	if (is_counted(self))
		gyre__fetch_sub(&self->helps->helpers_waiting, 1, seq_cst);
}

/* ------------------------------------------------------------- the caller -- */

/* GYRE_OK: it has run. */
static enum gyre_status call_and_wait(const char *function, struct gyre__thread *self,
				      struct gyre *rt, struct offloaded *call)
{
	struct gyre__wait wait = { .what = function };
	int rc;

	call->caller = self;
	call->rt = rt;
	call->job = gyre__thread_job(self);
	call->work.run = run;
	call->context = gyre__context_share(self->context);
	note_wait(self, true);
	if (!self->task)
		gyre__reply_expect(&self->reply);
	rc = call->own ? push_own(call) : push_user(call);
	if (rc < 0) {
		note_wait(self, false);
		if (!self->task)
			gyre__reply_forget(&self->reply);
		gyre__context_drop(call->context);
		return report_unpushed(function, rt, rc);
	}
	relieve(self);
	if (self->task)
		gyre__task_park(self->task, &wait);
	else
		gyre__reply_await(&self->reply);
	note_wait(self, false);
	end_lasting(call);
	return call->refused == GYRE_OK ? GYRE_OK : report_refused(function, rt, call->refused);
}

static enum gyre_status offload(struct gyre__thread *self, struct gyre *rt, gyre_task_fn *fn,
				void *arg, int *ret_result)
{
	struct offloaded call = { .fn = fn, .arg = arg };
	enum gyre_status status;

	if (!fn)
		return gyre__fail("gyre_offload", GYRE_INVALID, "fn is NULL");
	/* Here already: who is counted keeps others from coming, though it goes on at once. */
	if (all_wait(rt, is_counted(self) && self->helps == rt))
		return refuse_deadlock("gyre_offload", rt);
	count_waiting(self);
	status = call_and_wait("gyre_offload", self, rt, &call);
	gyre__helper_goes_on(self);
	if (status != GYRE_OK)
		return status;
	if (call.panicked) {
		gyre__note_panic(self, call.panic);
		return gyre__fail_effect("gyre_offload", GYRE_RESPONSE_LOST, GYRE_EFFECT_UNKNOWN,
					 "the function panicked: %s", gyre_last_panic());
	}
	if (ret_result)
		*ret_result = call.result;
	gyre__thread_succeed(self);
	return GYRE_OK;
}

enum gyre_status gyre_offload(struct gyre *rt, gyre_task_fn *fn, void *arg, int *ret_result)
{
	struct gyre__thread *self;
	enum gyre_status status = gyre__runtime_enter(__func__, &rt, &self);

	if (status != GYRE_OK)
		return status;
	status = offload(self, rt, fn, arg, ret_result);
	gyre__thread_leave(self);
	return status;
}

enum gyre_status gyre__elsewhere(const char *function, struct gyre__thread *self,
				 enum gyre__call_kind kind, void (*fn)(void *arg), void *arg)
{
	struct offloaded call = { .own = fn, .kind = kind, .arg = arg };
	enum gyre_status status = GYRE_OK;

	if (kind != GYRE__CALL_MUST)
		status = gyre__task_may_wait(self->task);
	if (status != GYRE_OK)
		return gyre__fail(function, status, "the task was cancelled: it is to return");
	status = call_and_wait(function, self, self->runtime, &call);
	if (status != GYRE_OK)
		return status;
	self->last_status = call.last_status;
	self->last_effect = call.last_effect;
	self->remarked = false;
	if (call.remarked)
		gyre__thread_remarked(self);
	memcpy(self->last_error, call.last_error, sizeof(self->last_error));
	return GYRE_OK;
}
