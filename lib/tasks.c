/* SPDX-License-Identifier: MIT */
/*
 * What a task may ask for: siblings, sleep, memory, clean-up, its own end.
 *
 * None of these leaves the worker: they are calls of workers/task.h and job.h
 * for the task that runs, with the answers in words.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "circle.h"
#include "context.h"
#include "jobs.h"
#include "offload.h"
#include "runtime.h"
#include "thread.h"

enum gyre_status gyre__refuse_no_task(const char *function)
{
	const struct gyre__thread *self = gyre__self();

	if (self && gyre__thread_is_in_prep(self))
		return gyre__fail(function, GYRE_WOULD_DEADLOCK, "a prep closure may not wait");
	return gyre__fail(function, GYRE_NO_REACTOR,
			  "no reactor running on this thread: %s() is for tasks, which "
			  "gyre_block_on() and gyre_spawn() start",
			  function);
}

/* ------------------------------------------------------------- siblings -- */

enum gyre_status gyre_go(gyre_task_fn *fn, void *arg, struct gyre_task **ret)
{
	struct gyre__task *task = gyre__current_task(), *child;
	struct gyre__thread *self;

	if (gyre__unlikely(!task))
		return gyre__refuse_no_task(__func__);
	if (gyre__unlikely(!fn))
		return gyre__fail(__func__, GYRE_INVALID, "fn is NULL");
	child = gyre__task_start(task->job, task, fn, arg, ret);
	if (gyre__unlikely(!child))
		return gyre__fail(__func__, GYRE_NO_MEMORY,
				  "no memory for a task: its stack of %zu KiB with a guard (see "
				  "vm.max_map_count where the kernel has no MADV_GUARD_INSTALL), "
				  "or its place in the worker's tables",
				  task->job->stack_size / 1024);
	self = gyre__thread_of_task(task);
	if (gyre__unlikely(self->context))
		gyre__thread_of_task(child)->context = gyre__context_share(self->context);
	gyre__thread_succeed(self);
	return GYRE_OK;
}

/*
 * From here on task is noted as the one that joins target, of the same job and not
 * ended yet. Most targets wait for nobody: then there is no circle to be closed, and
 * nobody else to see this.
 */
static enum gyre_status begin_join(struct gyre__task *task, struct gyre__task *target,
				   bool cancelled)
{
	struct gyre__thread *self = gyre__thread_of_task(task);
	bool tangled = gyre__task_is_tangled(target), circle = target == task;

	if (gyre__unlikely(tangled)) {
		gyre__waits_lock();
		circle = gyre__circle_with_task(self, target, cancelled);
	}
	if (!circle && !target->joiner) {
		target->joiner = task;
		task->joining = target;
	}
	if (gyre__unlikely(tangled))
		gyre__waits_unlock();
	if (gyre__likely(task->joining))
		return GYRE_OK;
	if (circle)
		return gyre__fail("gyre_join", GYRE_WOULD_DEADLOCK, "%s", target == task ?
				  "a task cannot wait for its own end" :
				  "that task waits, through joins, jobs or a worker local, for the "
				  "end of this one");
	return gyre__fail("gyre_join", GYRE_INVALID, "another task joins it already");
}

static void interrupt_join(struct gyre__task *task, struct gyre__wait *wait)
{
	(void)wait;
	gyre__task_cancel(task->joining);
}

static enum gyre_status report_join(struct gyre__task *task, enum gyre__task_end end, int result,
				    int *ret_result)
{
	if (gyre__unlikely(end != GYRE__TASK_RETURNED))
		return gyre__fail_effect("gyre_join", GYRE_CANCELLED, GYRE_EFFECT_UNKNOWN,
					 "the task was cancelled, and did not stop by itself: it "
					 "was dropped");
	if (ret_result)
		*ret_result = result;
	gyre__thread_succeed(gyre__thread_of_task(task));
	return GYRE_OK;
}

/*
 * In a task that was cancelled, what is joined is cancelled, too, and then waited for all the same.
 */
static enum gyre_status wait_and_join(struct gyre__task *task, struct gyre__task *target,
				      bool cancelled, int *ret_result)
{
	struct gyre__wait wait = { .what = "gyre_join", .interrupt = interrupt_join };
	enum gyre_status status = begin_join(task, target, cancelled);

	if (gyre__unlikely(status != GYRE_OK))
		return status;
	if (gyre__unlikely(cancelled))
		gyre__task_cancel(target);
	gyre__task_park(task, &wait);
	return report_join(task, task->top->joined_end, task->top->joined_result, ret_result);
}

enum gyre_status gyre_join(struct gyre_task *handle, int *ret_result)
{
	struct gyre__task *task = gyre__current_task(), *target;
	struct gyre__task_slot *slot;
	enum gyre__task_end end;
	bool cancelled;
	int result;

	if (gyre__unlikely(!task))
		return gyre__refuse_no_task(__func__);
	cancelled = gyre__task_may_wait(task) != GYRE_OK;
	slot = gyre__task_find(task->home, handle);
	if (gyre__unlikely(!slot))
		return gyre__fail(__func__, GYRE_INVALID,
				  "not a task of this worker, or one that was joined already");
	target = slot->owner;
	if (gyre__unlikely((slot->ended ? slot->owner : target->job) != task->job))
		return gyre__fail(__func__, GYRE_INVALID, "the task belongs to another job");
	if (!slot->ended)
		return wait_and_join(task, target, cancelled, ret_result);
	end = (enum gyre__task_end)slot->end;
	result = slot->result;
	gyre__task_slot_free(task->home, slot);
	return report_join(task, end, result, ret_result);
}

static void interrupt_join_all(struct gyre__task *task, struct gyre__wait *wait)
{
	struct gyre__task *child;

	(void)wait;
	for (child = task->children; child; child = child->child_next)
		gyre__task_cancel(child);
}

/* The same as begin_join(), for all that task has started. False: one of them waits for it. */
static bool begin_join_all(struct gyre__task *task)
{
	struct gyre__thread *self = gyre__thread_of_task(task);
	const struct gyre__task *child = task->children;
	bool circle;

	while (child && !gyre__task_is_tangled(child))
		child = child->child_next;
	if (!child) {
		task->joins_all = task->children != NULL;
		return true;
	}
	gyre__waits_lock();
	circle = gyre__circle_with_children(self);
	task->joins_all = !circle;
	gyre__waits_unlock();
	return !circle;
}

enum gyre_status gyre_join_all(void)
{
	struct gyre__task *task = gyre__current_task();
	struct gyre__wait wait = { .what = __func__, .interrupt = interrupt_join_all };

	if (gyre__unlikely(!task))
		return gyre__refuse_no_task(__func__);
	if (gyre__unlikely(gyre__task_may_wait(task) != GYRE_OK))
		interrupt_join_all(task, &wait);
	if (!begin_join_all(task))
		return gyre__fail(__func__, GYRE_WOULD_DEADLOCK, "a task that this one started "
				  "waits, through joins, jobs or a worker local, for this one");
	if (task->joins_all) {
		gyre__task_park(task, &wait);
		task->joins_all = false;
	}
	gyre__task_forget_ended(task->home, task->job, task);
	if (gyre__task_is_cancelled(task) && !task->shielded)
		return gyre__fail(__func__, GYRE_CANCELLED,
				  "the task was cancelled, and with it those that it had started: "
				  "all of them have ended");
	gyre__thread_succeed(gyre__thread_of_task(task));
	return GYRE_OK;
}

void gyre_task_cancel(struct gyre_task *handle)
{
	const struct gyre__task *task = gyre__current_task();
	struct gyre__task_slot *slot = task ? gyre__task_find(task->home, handle) : NULL;
	struct gyre__task *target;

	if (!slot || slot->ended)
		return;
	target = slot->owner;
	if (target->job == task->job)
		gyre__task_cancel(target);
}

/* --------------------------------------------------------------- itself -- */

int gyre_cancelled(void)
{
	const struct gyre__task *task = gyre__current_task();

	if (!task)
		return 0;
	if (!gyre__task_is_cancelled(task))
		gyre__job_look(task->job);
	return gyre__task_is_cancelled(task);
}

void gyre_yield(void)
{
	struct gyre__task *task = gyre__current_task();

	if (gyre__unlikely(!task))
		return;
	if (gyre__unlikely(gyre__task_is_cancelled(task)) && gyre__task_may_wait(task) != GYRE_OK)
		return;		/* others have had their turn in there */
	gyre__task_yield(task);
}

static enum gyre_status sleep_on_thread(uint64_t ns)
{
	struct gyre__thread *self = gyre__thread_self();

	if (self && gyre__thread_is_in_prep(self))
		return gyre__refuse_no_task("gyre_sleep");
	do
		gyre__sys->sleep_ns(ns);
	while (ns == GYRE_FOREVER);
	return gyre__succeed();
}

enum gyre_status gyre_sleep(uint64_t ns)
{
	struct gyre__task *task = gyre__current_task();
	struct gyre__wait wait = { .what = __func__, .interrupt = gyre__task_stop_waiting };

	if (!task)
		return sleep_on_thread(ns);
	if (gyre__unlikely(gyre__task_may_wait(task) != GYRE_OK))
		return gyre__fail(__func__, GYRE_CANCELLED, "the task was cancelled");
	if (ns == 0)
		gyre__task_yield(task);
	else if (gyre__task_park_until(task, &wait, ns == GYRE_FOREVER ? GYRE__NEVER :
				       gyre__deadline(gyre__sys->now_ns(), ns)))
		return gyre__fail(__func__, GYRE_CANCELLED,
				  "the task was cancelled while it slept");
	gyre__thread_succeed(gyre__thread_of_task(task));
	return GYRE_OK;
}

/* ------------------------------------------------------- worker locals -- */

static enum gyre_status report_local(enum gyre_status status)
{
	static const char function[] = "gyre_local_get";

	switch (status) {
	case GYRE_SYSTEM:
		return gyre__fail(function, status,
				  "create gave NULL; it is tried again next time");
	case GYRE_WOULD_DEADLOCK:
		return gyre__fail(function, status,
				  "it is being made just now, by who waits for this very task");
	case GYRE_CLOSED:
		return gyre__fail(function, status,
				  "the worker ends, and its locals are destroyed");
	case GYRE_NO_MEMORY:
		return gyre__fail(function, status, "out of memory, or more than %d locals on one "
				  "worker", GYRE__LOCALS_MAX);
	default:
		return gyre__fail(function, status, "the task was cancelled while another made it");
	}
}

enum gyre_status gyre_local_get(struct gyre_local *local, void **ret)
{
	struct gyre__task *task = gyre__current_task();
	enum gyre_status status;
	void *value;

	if (gyre__unlikely(!task))
		return gyre__refuse_no_task(__func__);
	if (gyre__unlikely(!local || !local->create || !ret))
		return gyre__fail(__func__, GYRE_INVALID, "%s is NULL",
				  !local ? "local" : !ret ? "ret" : "local->create");
	status = gyre__local_get(task, local, &value);
	if (gyre__unlikely(status != GYRE_OK))
		return report_local(status);
	*ret = value;
	gyre__thread_succeed(gyre__thread_of_task(task));
	return GYRE_OK;
}

/* --------------------------------------------------------------- memory -- */

/* In words: why there was none. */
__attribute__((__cold__, __noinline__))
static void *refuse_memory(const char *function, size_t size)
{
	const struct gyre__task *task = gyre__current_task();

	if (!task)
		gyre__refuse_no_task(function);
	else
		gyre__fail(function, GYRE_NO_MEMORY,
			   "%zu bytes do not fit: the job may have %zu in all (arena_max), or the "
			   "process has no more",
			   size, task->job->arena.max);
	return NULL;
}

/* What task has asked for, or NULL. Whatever call has noted something was not the last one. */
static void *note_memory(const char *function, struct gyre__task *task, void *ptr, size_t size)
{
	if (gyre__unlikely(!ptr))
		return refuse_memory(function, size);
	if (gyre__unlikely(!task->arena)) {
		struct gyre__thread *thread = gyre__self();

		thread->running.arena = task->arena = &task->job->arena;
		gyre__thread_succeed(gyre__thread_of_task(task));
	}
	return ptr;
}

/* Apart, for what is usual to need no frame. */
__attribute__((__noinline__))
static void *alloc_slow(size_t size)
{
	struct gyre__task *task = gyre__current_task();
	void *ptr = task ? gyre__arena_alloc(&task->job->arena, size) : NULL;

	return note_memory("gyre_alloc", task, ptr, size);
}

void *gyre_alloc(size_t size)
{
	const struct gyre__thread *self = gyre__self();
	void *ptr;

	if (gyre__unlikely(!self || !self->running.arena))
		return alloc_slow(size);
	ptr = gyre__arena_try(self->running.arena, size);
	return gyre__likely(ptr) ? ptr : alloc_slow(size);
}

void *gyre_alloc_aligned(size_t size, size_t align)
{
	struct gyre__task *task = gyre__current_task();
	void *ptr;

	if (!task)
		return refuse_memory(__func__, size);
	if (align == 0 || (align & (align - 1)) != 0) {
		gyre__fail(__func__, GYRE_INVALID, "an alignment of %zu is no power of two", align);
		return NULL;
	}
	ptr = gyre__arena_alloc_slow(&task->job->arena, size, align);
	return note_memory(__func__, task, ptr, size);
}

char *gyre_strdup(const char *text)
{
	struct gyre__task *task = gyre__current_task();
	size_t size;
	char *copy;

	if (!text) {
		gyre__fail(__func__, GYRE_INVALID, "text is NULL");
		return NULL;
	}
	size = strlen(text) + 1;
	copy = task ? gyre__arena_alloc(&task->job->arena, size) : NULL;
	if (copy)
		memcpy(copy, text, size);
	return note_memory(__func__, task, copy, size);
}

enum gyre_status gyre_defer(void (*fn)(void *arg), void *arg)
{
	struct gyre__task *task = gyre__current_task();
	struct gyre__defer *defer;

	if (!task)
		return gyre__refuse_no_task(__func__);
	if (!fn)
		return gyre__fail(__func__, GYRE_INVALID, "fn is NULL");
	defer = gyre__arena_alloc(&task->job->arena, sizeof(*defer));
	if (!defer) {
		refuse_memory(__func__, sizeof(*defer));
		return GYRE_NO_MEMORY;
	}
	*defer = (struct gyre__defer){ task->defers, fn, arg };
	task->defers = defer;
	gyre__thread_succeed(gyre__thread_of_task(task));
	return GYRE_OK;
}

void *gyre_state(void)
{
	const struct gyre__task *task = gyre__current_task();

	return task ? task->job->state : NULL;
}

/* ---------------------------------------------------------------- panic -- */

/* The text, and where; NULL without memory for it. task NULL: in an offloaded function. */
__attribute__((__format__(__printf__, 2, 0)))
static char *panic_text(const struct gyre__task *task, const char *format, va_list args)
{
	char *text = gyre__zalloc(GYRE__PANIC_MAX);
	int n;

	if (!text)
		return NULL;
	n = vsnprintf(text, GYRE__PANIC_MAX, format, args);
	if (!task && n >= 0 && n < GYRE__PANIC_MAX)
		snprintf(text + n, (size_t)(GYRE__PANIC_MAX - n), " (in an offloaded function)");
	else if (n >= 0 && n < GYRE__PANIC_MAX)
		snprintf(text + n, (size_t)(GYRE__PANIC_MAX - n), " (job %s, worker %d)",
			 task->job->name ? task->job->name : "without a name",
			 gyre_current_worker());
	return text;
}

void gyre_panic(const char *format, ...)
{
	struct gyre__task *task = gyre__current_task();
	struct gyre__thread *self = gyre__thread_look();
	va_list args;
	char *text;

	va_start(args, format);
	text = panic_text(task, format, args);
	va_end(args);
	if (self)
		gyre__context_drop_held(self);	/* before a jump takes the frames away */
	if (!task) {
		gyre__offload_panic(text);	/* does not come back from an offloaded function */
		gyre__assert_failed("gyre_panic() is called in a task or an offloaded function",
				    __FILE__, __LINE__);
	}
	GYRE_ASSERT(!task->may_not_panic);
	gyre__job_panic(task->job, text);
	gyre__task_finish(task, GYRE__TASK_PANICKED, 0);
}

const char *gyre_last_panic(void)
{
	const struct gyre__thread *self = gyre__thread_self();

	if (!self || !self->last_panic)
		return "nothing is known of a panic: there was none, or no memory for its text";
	return self->last_panic;
}
