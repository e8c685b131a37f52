/* SPDX-License-Identifier: MIT */
#include "thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "context.h"
#include "ring/sys.h"
#include "runtime.h"

#define LEAVE_POLL_NS_MAX	GYRE__NS_PER_MS
#define CACHE_HINT_USES		64

/* All threads' records. The lock is a leaf: nothing else is taken under it. */
static union gyre__mutex threads_lock = GYRE__MUTEX_INIT;
static struct gyre__thread *threads;
static unsigned threads_come;
static struct gyre *runtimes;	/* all that are open; the same lock */
static bool fork_guarded;

static void lock_threads(void)
{
	gyre__sys->mutex_lock(&threads_lock);
}

static void unlock_threads(void)
{
	gyre__sys->mutex_unlock(&threads_lock);
}

/* ----------------------------------------------------- coming and going -- */

/* What a home has counted becomes the runtime's own. Under the lock. */
static void home_give_up(struct gyre__home *home)
{
	struct gyre *rt = gyre__load(&home->rt, relaxed);

	if (!rt)
		return;
	rt->calls += gyre__load(&home->calls, relaxed);
	rt->calls_in_caller += gyre__load(&home->calls_in_caller, relaxed);
	gyre__store(&home->calls, 0, relaxed);
	gyre__store(&home->calls_in_caller, 0, relaxed);
	gyre__store(&home->rt, NULL, relaxed);
}

static void thread_unlink(struct gyre__thread *self)
{
	if (self->prev)
		self->prev->next = self->next;
	else
		threads = self->next;
	if (self->next)
		self->next->prev = self->prev;
}

static void thread_free(struct gyre__thread *self)
{
	gyre__free(self->arrays);
	gyre__free(self->last_panic);
	gyre__free(self);
}

static void thread_exit(void *value)
{
	struct gyre__thread *self = value;
	unsigned i;

	lock_threads();
	for (i = 0; i < GYRE__HOMES; i++)
		home_give_up(&self->homes[i]);
	thread_unlink(self);
	unlock_threads();
	gyre__context_drop(self->context);
	thread_free(self);
}

/* Both are leaves, and no thread holds one while it takes the other, but for this. */
static void hold_for_fork(void)
{
	lock_threads();
	gyre__waits_lock();
}

static void release_after_fork(void)
{
	gyre__waits_unlock();
	unlock_threads();
}

/*
 * In a forked child, the locks held: of all threads only this one is left. The
 * others' contexts stay where they are: one may have been caught in a change.
 */
static void start_over_in_child(void)
{
	struct gyre__thread *self = gyre__self(), *thread, *next;

	for (thread = threads; thread; thread = next) {
		next = thread->next;
		if (thread != self)
			thread_free(thread);
	}
	threads = self;
	if (self) {
		self->next = self->prev = NULL;
		self->runtime = NULL;
		self->worker = NULL;
		self->running = (struct gyre__running){ NULL, NULL };
		self->helps = NULL;
		self->serves = NULL;
		self->offloaded = NULL;
		gyre__store(&self->inside, NULL, relaxed);
	}
	release_after_fork();
}

/* A child forked while somebody holds the lock would find it held for ever. Under the lock. */
static bool guard_fork(void)
{
	if (!fork_guarded)
		fork_guarded = gyre__sys->at_fork(hold_for_fork, release_after_fork,
						  start_over_in_child) == 0;
	return fork_guarded;
}

static struct gyre__thread *thread_new(void)
{
	struct gyre__thread *self = gyre__sys->alloc(sizeof(*self), _Alignof(struct gyre__thread));
	bool guarded;

	if (!self)
		return NULL;
	self->batch.waiter = &self->reply.waiter;
	lock_threads();
	guarded = guard_fork();
	if (guarded) {
		self->number = threads_come++;
		gyre__reply_init(&self->reply, self->number);
		self->next = threads;
		if (threads)
			threads->prev = self;
		threads = self;
	}
	unlock_threads();
	if (!guarded) {
		gyre__free(self);
		return NULL;
	}
	if (gyre__sys->self_set(self, thread_exit) < 0) {
		thread_exit(self);
		return NULL;
	}
	return self;
}

struct gyre__thread *gyre__thread_make(void)
{
	return thread_new();
}

/* Its memory is whatever was there before: all that is not set here is set before it is read. */
struct gyre__thread *gyre__thread_make_for_task(struct gyre__task *task)
{
	const struct gyre__thread *thread = gyre__self();
	struct gyre__thread *self;

	if (gyre__unlikely(!task->top))
		gyre__task_settle(task);
	self = (struct gyre__thread *)(void *)task->top->upper;
	gyre__task_waiter_init(&self->task_waiter, task);
	self->task = task;
	self->runtime = thread->runtime;
	self->worker = thread->worker;
	self->running = (struct gyre__running){ task, NULL };
	self->batch.waiter = &self->task_waiter.waiter;
	self->reply.one_verdict = 0;
	gyre__store(&self->inside, NULL, relaxed);
	self->visits = NULL;
	self->helps = NULL;
	self->serves = NULL;
	self->offloaded = NULL;
	self->context = NULL;
	self->context_held = NULL;
	self->arrays = NULL;
	self->arrays_max = 0;
	self->last_panic = NULL;
	self->last_status = GYRE_OK;
	self->last_effect = GYRE_EFFECT_NONE;
	self->remarked = false;
	self->walk = 0;
	task->upper_made = true;
	return self;
}

void gyre__thread_task_done(struct gyre__task *task)
{
	struct gyre__thread *self = (struct gyre__thread *)(void *)task->top->upper;

	gyre__context_drop_held(self);
	gyre__context_drop(self->context);
	gyre__free(self->arrays);
	gyre__free(self->last_panic);
}

bool gyre__thread_make_arrays(struct gyre__thread *self, uint32_t count)
{
	size_t each = sizeof(struct gyre__entry) + sizeof(struct gyre__result) +
		      sizeof(gyre__verdict);
	uint32_t max = 32;
	char *arrays;

	if (gyre__likely(count <= self->arrays_max))
		return true;
	while (max < count)
		max *= 2;
	arrays = gyre__sys->alloc(max * each, 2 * GYRE__CACHE_LINE);
	if (!arrays)
		return false;
	gyre__free(self->arrays);
	self->arrays = arrays;
	self->arrays_max = max;
	self->entries = (struct gyre__entry *)(void *)arrays;
	self->results = (struct gyre__result *)(void *)(self->entries + max);
	self->verdicts = (gyre__verdict *)(self->results + max);
	return true;
}

void gyre__thread_trim_arrays(struct gyre__thread *self)
{
	if (gyre__likely(self->arrays_max <= GYRE__BATCH_KEPT))
		return;
	gyre__free(self->arrays);
	self->arrays = NULL;
	self->arrays_max = 0;
}

static struct gyre__home *move_in(struct gyre__thread *self, struct gyre *rt)
{
	struct gyre__home *home = &self->homes[self->next_home++ % GYRE__HOMES];

	lock_threads();
	home_give_up(home);
	gyre__store(&home->rt, rt, relaxed);
	home->worker = gyre__crew_greet(rt->crew, self->number);
	unlock_threads();
	return home;
}

struct gyre__home *gyre__thread_home(struct gyre__thread *self, struct gyre *rt)
{
	unsigned i;

	if (gyre__unlikely(self->task))
		self = gyre__self();	/* a task's is its thread's */
	for (i = 0; i < GYRE__HOMES; i++)
		if (gyre__likely(gyre__load(&self->homes[i].rt, relaxed) == rt))
			return &self->homes[i];
	return move_in(self, rt);
}

/* ---------------------------------------------------------- page cache -- */

static struct gyre__cache_hint *hint_for(int fd)
{
	struct gyre__thread *thread = gyre__self();

	return &thread->cache_hints[(unsigned)fd % GYRE__CACHE_HINTS];
}

/*
 * A read with O_DIRECT would be waited for on the spot, RWF_NOWAIT or not. Who
 * closes a descriptor and opens another may get the same number, so what is
 * known of it is not believed for long.
 */
bool gyre__thread_reads_cache(int fd)
{
	struct gyre__cache_hint *hint = hint_for(fd);
	int flags;

	if (gyre__likely(hint->fd == fd && hint->left > 0)) {
		hint->left--;
		return hint->try;
	}
	flags = gyre__sys->fd_flags(fd);
	*hint = (struct gyre__cache_hint){ fd, flags >= 0 && !(flags & O_DIRECT), CACHE_HINT_USES };
	return hint->try;
}

void gyre__thread_note_no_cache(int fd)
{
	*hint_for(fd) = (struct gyre__cache_hint){ fd, false, UINT8_MAX };
}

/* ------------------------------------------------------------ for all -- */

static bool anybody_inside(struct gyre *rt)
{
	struct gyre__thread *thread;
	bool inside = false;

	lock_threads();
	for (thread = threads; thread; thread = thread->next)
		/* seq_cst: pairs with the store in gyre__runtime_enter(). */
		inside |= gyre__load(&thread->inside, seq_cst) == rt;
	unlock_threads();
	return inside;
}

/* Under the lock of the threads' list, as who visits by an id marks its record under it. */
void gyre__runtime_list(struct gyre *rt)
{
	lock_threads();
	rt->next = runtimes;
	rt->prev = NULL;
	if (runtimes)
		runtimes->prev = rt;
	runtimes = rt;
	unlock_threads();
}

void gyre__runtime_unlist(struct gyre *rt)
{
	lock_threads();
	if (rt->prev)
		rt->prev->next = rt->next;
	else
		runtimes = rt->next;
	if (rt->next)
		rt->next->prev = rt->prev;
	unlock_threads();
}

struct gyre *gyre__runtime_visit(struct gyre__thread *self, uint32_t id)
{
	struct gyre *rt;

	if (self && self->task && self->runtime->id == id)
		return self->runtime;
	lock_threads();
	for (rt = runtimes; rt && (rt->id != id || gyre__runtime_is_forked(rt)); rt = rt->next)
		;
	if (rt && (!self || self->task)) {
		gyre__fetch_add(&rt->visitors, 1, seq_cst);
		if (self)
			self->visits = rt;
	} else if (rt) {
		gyre__store(&self->inside, rt, seq_cst);
	}
	unlock_threads();
	return rt;
}

void gyre__threads_leave(struct gyre *rt)
{
	uint64_t pause_ns = 10 * GYRE__NS_PER_US;

	while (anybody_inside(rt) || gyre__load(&rt->visitors, seq_cst)) {
		gyre__sys->sleep_ns(pause_ns);
		if (pause_ns < LEAVE_POLL_NS_MAX)
			pause_ns *= 2;
	}
	gyre__threads_forget(rt);
}

void gyre__threads_forget(struct gyre *rt)
{
	struct gyre__thread *thread;
	unsigned i;

	lock_threads();
	for (thread = threads; thread; thread = thread->next)
		for (i = 0; i < GYRE__HOMES; i++)
			if (gyre__load(&thread->homes[i].rt, relaxed) == rt)
				home_give_up(&thread->homes[i]);
	unlock_threads();
}

void gyre__threads_count(struct gyre *rt, uint64_t *calls, uint64_t *calls_in_caller)
{
	struct gyre__thread *thread;
	unsigned i;

	lock_threads();
	*calls = rt->calls;
	*calls_in_caller = rt->calls_in_caller;
	for (thread = threads; thread; thread = thread->next)
		for (i = 0; i < GYRE__HOMES; i++)
			if (gyre__load(&thread->homes[i].rt, relaxed) == rt) {
				*calls += gyre__load(&thread->homes[i].calls, relaxed);
				*calls_in_caller += gyre__load(&thread->homes[i].calls_in_caller,
							       relaxed);
			}
	unlock_threads();
}

/* ------------------------------------------------------- the last call -- */

/* As much of text as fits behind the first n bytes; how many there are then. */
static size_t append(struct gyre__thread *self, size_t n, const char *text)
{
	size_t left = sizeof(self->last_error) - 1 - n, len = strnlen(text, left);

	memcpy(self->last_error + n, text, len);
	self->last_error[n + len] = '\0';
	return n + len;
}

/*
 * Most texts have nothing to be filled in. To format them would touch another page
 * of each sleeping task's stack when very many are cancelled.
 */
__attribute__((__format__(__printf__, 3, 0)))
static void note_text(struct gyre__thread *self, const char *function, const char *format,
		      va_list args)
{
	size_t n = append(self, append(self, 0, function), ": ");

	if (!strchr(format, '%'))
		append(self, n, format);
	else
		vsnprintf(self->last_error + n, sizeof(self->last_error) - n, format, args);
}

__attribute__((__format__(__printf__, 4, 0)))
static enum gyre_status note_failure(const char *function, enum gyre_status status,
				     enum gyre_effect effect, const char *format, va_list args)
{
	struct gyre__thread *self = gyre__thread_self();
	int saved_errno = errno;

	if (!self)
		return status;
	self->last_status = status;
	self->last_effect = effect;
	gyre__thread_remarked(self);
	note_text(self, function, format, args);
	errno = saved_errno;
	return status;
}

enum gyre_status gyre__fail(const char *function, enum gyre_status status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	note_failure(function, status, GYRE_EFFECT_NONE, format, args);
	va_end(args);
	return status;
}

enum gyre_status gyre__fail_effect(const char *function, enum gyre_status status,
				   enum gyre_effect effect, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	note_failure(function, status, effect, format, args);
	va_end(args);
	return status;
}

void gyre__remark(const char *function, enum gyre_effect effect, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	note_failure(function, GYRE_OK, effect, format, args);
	va_end(args);
}

enum gyre_status gyre__succeed(void)
{
	struct gyre__thread *self = gyre__thread_self();

	if (self)
		gyre__thread_succeed(self);
	return GYRE_OK;
}

enum gyre_status gyre_last_status(void)
{
	const struct gyre__thread *self = gyre__thread_look();

	return self ? self->last_status : GYRE_OK;
}

enum gyre_effect gyre_last_effect(void)
{
	const struct gyre__thread *self = gyre__thread_look();

	return self ? self->last_effect : GYRE_EFFECT_NONE;
}

const char *gyre_last_error(void)
{
	const struct gyre__thread *self = gyre__thread_look();

	if (!self)
		return "nothing is noted for this thread or task: it has made no call yet, or out "
		       "of memory";
	return self->last_status != GYRE_OK || self->remarked ? self->last_error :
	       "no error: the last call was answered, and what the kernel said is its result";
}
