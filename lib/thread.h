/* SPDX-License-Identifier: MIT */
/*
 * What the library keeps for each caller: its one reply, its one batch, how its
 * last call ended, and which runtime it is inside of. A caller is a thread, whose
 * record is made on the first call and freed when the thread ends; or a task,
 * whose record lies above it on its stack, and which waits by parking.
 *
 * anybody_inside() and gyre__threads_leave() are modelled in tests/models/close.pml.
 */
#ifndef GYRE_LIB_THREAD_H
#define GYRE_LIB_THREAD_H

#include <gyre.h>
#include <stdbool.h>
#include <stdint.h>

#include "ring/atomic.h"
#include "ring/batch.h"
#include "ring/reply.h"
#include "workers/task.h"

struct gyre__context;
struct gyre__context_held;
struct gyre__worker;
struct offloaded;

/* A thread's place in one runtime. Others read the counts under the list's lock. */
struct gyre__home {
	_Atomic(struct gyre *) rt;	/* NULL: free; cleared by gyre_free() of another thread */
	unsigned worker;		/* where its calls go; see gyre__crew_choose() */
	_Atomic uint64_t calls, calls_in_caller;
};

/* Whether reads of a descriptor may look into the page cache first. */
struct gyre__cache_hint {
	int fd;
	bool try;
	/* Uses before it is looked up again, as numbers are used again; 0: unknown. */
	uint8_t left;
};

#define GYRE__CACHE_HINTS	64
/* Runtimes that a thread can use in turn at no extra cost. */
#define GYRE__HOMES		4
#define GYRE__BATCH_KEPT	1024	/* ops whose arrays stay with the thread */

struct gyre__thread {
	struct gyre__reply reply;
	struct gyre__batch batch;

	/* The runtime that the thread is in a call of: gyre_free() waits for it to leave. */
	_Atomic(struct gyre *) inside GYRE__OWN_LINE;
	struct gyre__home homes[GYRE__HOMES];
	unsigned next_home;
	unsigned number;		/* n-th thread that came */

	/* For batches of more than one: one allocation, so many ops long. */
	void *arrays;
	uint32_t arrays_max;
	struct gyre__entry *entries;
	struct gyre__result *results;
	gyre__verdict *verdicts;

	struct gyre__context *context;	/* see lib/context.c */
	struct gyre__context_held *context_held;

	/*
	 * A worker's own thread, and what runs there: whatever calls in while no task
	 * does is a prep closure. In a task's record, whose worker's thread it runs on.
	 */
	struct gyre *runtime;
	struct gyre__worker *worker;
	struct gyre__running running;
	struct gyre__task *task;	/* whose record this is; NULL: a thread's */
	struct gyre__task_waiter task_waiter;
	/* A task's: another runtime than its own that it is in a call of. */
	struct gyre *visits;
	/* A helper's: whose; the job on whose behalf it runs something now; and what. */
	struct gyre *helps;
	struct gyre__job *serves;
	struct offloaded *offloaded;
	char *last_panic;		/* on the heap; NULL: none yet */

	enum gyre_status last_status;
	enum gyre_effect last_effect;
	/* last_error says something, though the status is GYRE_OK. */
	bool remarked;
	char last_error[256];

	/* Of the latest walk that has met it: lib/circle.c, under its lock. */
	uint64_t walk;
	struct gyre__thread *walk_next;
	bool walk_pending;
	uint8_t firm;

	/* A thread's alone: a task's record ends above. */
	struct gyre__thread *next, *prev;
	struct gyre__cache_hint cache_hints[GYRE__CACHE_HINTS];	/* a worker's, for its tasks */
};

#define GYRE__THREAD_TASK_SIZE	offsetof(struct gyre__thread, next)

/* The calling thread's own; made if need be. NULL: no memory. */
struct gyre__thread *gyre__thread_make(void);

/* For a task that has none yet. */
struct gyre__thread *gyre__thread_make_for_task(struct gyre__task *task);

/* A task's; made if need be, which cannot fail. */
static inline struct gyre__thread *gyre__thread_of_task(struct gyre__task *task)
{
	return gyre__likely(task->upper_made) ? (struct gyre__thread *)(void *)task->top->upper :
						gyre__thread_make_for_task(task);
}

/* The caller's: of the task that runs, or else of the thread. NULL: no memory. */
static inline struct gyre__thread *gyre__thread_self(void)
{
	struct gyre__thread *self = gyre__self();

	if (gyre__unlikely(!self))
		return gyre__thread_make();
	return gyre__likely(!self->running.task) ? self : gyre__thread_of_task(self->running.task);
}

/* The same, if there is one already. */
static inline struct gyre__thread *gyre__thread_look(void)
{
	struct gyre__thread *self = gyre__self();

	if (gyre__likely(!self || !self->running.task))
		return self;
	return self->running.task->upper_made ? gyre__thread_of_task(self->running.task) : NULL;
}

/* The task that runs on this thread; NULL: none. */
static inline struct gyre__task *gyre__current_task(void)
{
	const struct gyre__thread *self = gyre__self();

	return gyre__likely(self) ? self->running.task : NULL;
}

/* In a prep closure, which may not wait. */
static inline bool gyre__thread_is_in_prep(const struct gyre__thread *self)
{
	return self->worker && !self->task;
}

/* For struct gyre__task_hooks: a task that has a record ends. */
void gyre__thread_task_done(struct gyre__task *task);

/* Arrays for count ops in self->batch. False: no memory. */
bool gyre__thread_make_arrays(struct gyre__thread *self, uint32_t count);
/* After the reply: keeps them for the next batch unless they are large. */
void gyre__thread_trim_arrays(struct gyre__thread *self);

/* The thread's place in rt; of the places it has, the oldest is given up for it. */
struct gyre__home *gyre__thread_home(struct gyre__thread *self, struct gyre *rt);

/* A task: is it worth, and safe, to look into the page cache for fd? */
bool gyre__thread_reads_cache(int fd);
/* It has turned out that its file system cannot tell. */
void gyre__thread_note_no_cache(int fd);

/* gyre_free(): returns once no thread is in a call of rt, and none remembers it. */
void gyre__threads_leave(struct gyre *rt);

/* The same in a forked child, where no other thread is left to wait for. */
void gyre__threads_forget(struct gyre *rt);

/* Adds up the counts of all threads for rt. */
void gyre__threads_count(struct gyre *rt, uint64_t *calls, uint64_t *calls_in_caller);

/* Notes the failure as the thread's last one and returns status; effect NONE. */
enum gyre_status gyre__fail(const char *function, enum gyre_status status, const char *format, ...)
	__attribute__((__format__(__printf__, 3, 4)));

/* The same for a call whose effect is another. */
enum gyre_status gyre__fail_effect(const char *function, enum gyre_status status,
				   enum gyre_effect effect, const char *format, ...)
	__attribute__((__format__(__printf__, 4, 5)));

/* The kernel's answer was an error, and there is more to say about it: GYRE_OK with a sentence. */
void gyre__remark(const char *function, enum gyre_effect effect, const char *format, ...)
	__attribute__((__format__(__printf__, 3, 4)));

/* Notes success; returns GYRE_OK. */
enum gyre_status gyre__succeed(void);

/*
 * The last call of self, which makes it, has more to be told of than success. The
 * next allocation of a task has to note otherwise, so its fast path is closed until then.
 */
static inline void gyre__thread_remarked(struct gyre__thread *self)
{
	struct gyre__thread *thread = gyre__self();

	self->remarked = true;
	if (!self->task)
		return;
	self->task->arena = NULL;
	thread->running.arena = NULL;
}

static inline void gyre__thread_succeed(struct gyre__thread *self)
{
	self->last_status = GYRE_OK;
	self->last_effect = GYRE_EFFECT_DONE;
	self->remarked = false;
}

#endif
