/* SPDX-License-Identifier: MIT */
/*
 * Tasks: fibers that belong to a job and to one worker, the queue of those that
 * are ready, and the place where the others wait.
 *
 * A worker's thread turns its ring on its own stack, the *scheduler*. What is
 * ready runs in the order in which it became so; who waits hands over to the next
 * of them without going through the scheduler, which gets its turn after
 * GYRE__TASK_BUDGET switches at the latest. All of it is the owner's, but for
 * gyre__task_wake(), which any thread may call for a task that waits for it.
 */
#ifndef GYRE_WORKERS_TASK_H
#define GYRE_WORKERS_TASK_H

#include <gyre.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "alarm.h"
#include "arena.h"
#include "fiber.h"
#include "local.h"
#include "pool.h"
#include "ring/ring.h"
#include "stack.h"
#include "state.h"

#define GYRE__TASK_BUDGET	64			/* switches between two turns of the ring */
/* Of one worker: what a handle can tell apart. */
#define GYRE__TASKS_MAX		(1u << 22)
/* From a task's cancel to the wait that drops it. */
#define GYRE__GRACE_NS		(100 * GYRE__NS_PER_MS)
#define GYRE__NO_HANDLE		UINT32_MAX

struct gyre__job;
struct gyre__keys;
struct gyre__keys_side;
struct gyre__task;
struct gyre__tasks;

/* What runs on a thread just now; in the thread's record, as every public function looks at it. */
struct gyre__running {
	struct gyre__task *task;	/* NULL: no task: a plain thread, or the scheduler */
	struct gyre__arena *arena;	/* of its job; NULL: as task, or to be opened again */
};

enum gyre__task_state {
	GYRE__TASK_READY = 0,		/* in the ready queue */
	GYRE__TASK_RUNNING,		/* the one that runs */
	GYRE__TASK_PARKED,		/* waits for what its wait says */
	GYRE__TASK_ENDED		/* its stack is about to be given back */
};

/* How a task came to its end. */
enum gyre__task_end {
	GYRE__TASK_RETURNED = 0,
	GYRE__TASK_DROPPED,		/* at a wait after its grace, or with its job */
	GYRE__TASK_PANICKED
};

/* What a parked task waits for. On its own stack; for dumps, and for whoever ends it early. */
struct gyre__wait {
	const char *what;		/* "gyre_sleep" */
	/*
	 * Owner: the task was cancelled. Does what ends the wait early, which is over
	 * once somebody makes the task ready. NULL: it takes as long as it takes.
	 */
	void (*interrupt)(struct gyre__task *task, struct gyre__wait *wait);
	/*
	 * Owner: the alarm is due. True: nobody will make the task ready any more, so
	 * the alarm does; false: somebody is about to. NULL: there is nobody.
	 */
	bool (*withdraw)(struct gyre__task *task, struct gyre__wait *wait);
	uint64_t since_ns;		/* coarse */
};

struct gyre__defer {
	struct gyre__defer *next;
	void (*fn)(void *arg);
	void *arg;
};

/* What lies on top of the stack that a task has, with room for the upper floor's behind it. */
struct gyre__task_top {
	struct gyre__task *task;
	struct gyre__stack *stack;
	struct gyre__alarm alarm;		/* of its one wait; unset between them */
	jmp_buf *base;				/* defers run: where a panic in one goes on */
	enum gyre__task_end joined_end;		/* a joiner's: how what it joined came to its end */
	int joined_result;
	struct gyre__task *local_next;		/* who waits for the same one */
	struct gyre__batch far_wake;		/* from another worker or thread */
	char upper[] GYRE__OWN_LINE;
};

/*
 * The record of a task. It has a stack from when it first runs: until then one is
 * promised to it, so that it cannot fail to begin.
 */
struct gyre__task {
	/* All that a task which never waits comes to use: three lines. link: in the ready queue. */
	struct gyre__pooled pooled;
	struct gyre__tasks *home;
	struct gyre__job *job;
	struct gyre__arena *arena;		/* running.arena, when it runs */
	gyre_task_fn *fn;
	void *arg;
	struct gyre__task_top *top;		/* NULL: it has not begun */
	struct gyre__task *job_next, *job_prev;
	/* Who started it; NULL: the job itself, or it has ended. */
	struct gyre__task *parent;
	struct gyre__task *child_next, *child_prev, *children;	/* alive */
	struct gyre__task *joiner, *joining;
	struct gyre__local_entry *local_makes, *local_waits;
	struct gyre__defer *defers;
	uint64_t cancel_ns;			/* when its end was asked for; 0: it was not */
	struct gyre__fiber_control control;	/* that it begins with */
	uint32_t handle;			/* its slot, or GYRE__NO_HANDLE */
	uint32_t serial;			/* n-th of its worker */
	int error;				/* its errno, while it does not run */
	uint8_t stack_class;
	uint8_t state;				/* enum gyre__task_state */
	/* Runs its defers: they may wait, cancelled or not. */
	bool shielded;
	bool alarmed;				/* the wait was ended by its alarm */
	bool joins_all;
	bool has_base;				/* base is to be jumped to */
	bool base_left;				/* a defer has panicked */
	bool is_first;				/* of its job, which ends when it does */
	/* Waits, or a helper does for it, for the end of something else than a task. */
	bool awaits;
	bool upper_made;			/* top->upper[] is in use */
	bool needs_state;			/* before fn: see workers/state.h */
	bool may_not_panic;			/* in a reset or destroy */

	struct gyre__fiber fiber;		/* it has begun */
	struct gyre__wait *wait;		/* PARKED */
	uint64_t walk;				/* lib/tasks.c: the latest that met it */
	struct gyre__task *walk_next;		/* the next of those met in that */
	struct gyre__task *next_to_interrupt;
} __attribute__((__aligned__(GYRE__CACHE_LINE)));

#ifdef __LP64__
_Static_assert(offsetof(struct gyre__task, fiber) == 3 * GYRE__CACHE_LINE,
	       "a task that never waits comes to use three lines");
_Static_assert(sizeof(struct gyre__task) / GYRE__CACHE_LINE % 2 == 1,
	       "records of an odd number of lines have no places in the cache in common");
#endif

/* What is left of a task that somebody may join, and how to find one that lives. */
struct gyre__task_slot {
	void *owner;			/* while it lives the task, then its job; NULL: free */
	uint32_t generation;		/* n-th use of the slot */
	int32_t result;
	/* Free: next; ended: in its job's ring of those to be joined. */
	uint32_t next, prev;
	/* Ended: serial of who started it, if that one lived then. */
	uint32_t parent;
	uint8_t end;			/* enum gyre__task_end */
	bool ended;
};

struct gyre__task_counters {
	_Atomic uint64_t started, live, leftover, stalls;
	_Atomic uint64_t jobs_started, jobs_finished, jobs_panicked, jobs_cancelled, jobs_running;
	_Atomic uint64_t pool_cached, pool_hits, pool_misses, pool_evictions, pool_waits;
};

/* What the floor above does for tasks, on their worker. */
struct gyre__task_hooks {
	size_t upper_size;
	void (*job_begins)(struct gyre__task *first, struct gyre_job *handle);
	/* Under gyre__waits_lock(): does the end of target wait for that of task? */
	bool (*is_circle)(const struct gyre__task *target, struct gyre__task *task);
	void (*upper_done)(struct gyre__task *task);	/* only where upper_made */
	/* What lives is about to be cancelled: the drain is over. */
	void (*outlasting)(struct gyre__tasks *tasks);
	/* Under gyre__waits_lock(): does one who stands in line wait for first? */
	bool (*line_waits_for)(struct gyre__task *first, const struct gyre__line *line);
	/* The same: does everybody in pool who has room, if first waits for some? */
	bool (*room_waits_for)(struct gyre__task *first, const struct gyre__keys *pool);
};

/* All tasks and jobs of one worker. */
struct gyre__tasks {
	struct gyre__ring *ring;
	struct gyre__running *running;		/* of this thread */
	struct gyre__task *ready_head, *ready_tail;
	struct gyre__task *ended;		/* the last one whose stack is not given back yet */
	uint32_t budget;
	/* This thread's errno, which each task finds as it left it. */
	int *error;
	struct gyre__task_hooks hooks;
	struct gyre__fiber scheduler;
	struct gyre__pool records;		/* of tasks */
	struct gyre__stacks stacks;
	struct gyre__chunks chunks;
	struct gyre__alarms alarms;
	struct gyre__locals locals;
	size_t arena_max;			/* of the worker's own job, the last one */
	/* The caller's; NULL: jobs have no states. */
	const struct gyre_state_type *state_type;
	struct gyre__shared_state shared;
	struct gyre__keys_side *pooled;		/* NULL with state_type */
	struct gyre__task_slot *slots;
	uint32_t slots_used, slots_room, slots_free;
	uint32_t serials;
	struct gyre__task *to_interrupt;	/* cancelled, and perhaps still waiting */
	bool interrupting;
	_Atomic uint32_t wakers;		/* other threads in gyre__task_wake() */
	/* In its handles, at its place there, so that another worker's are told apart. */
	uint32_t tag;
	struct gyre__job *jobs;			/* all that live here */
	uint32_t jobs_live;
	/* Not GYRE_OK: every job has been told to end, and none starts any more. */
	enum gyre_status end_reason;
	uint64_t stall_ns;			/* 0: nobody looks */
	uint64_t since_ns;			/* stall_ns: when the running task began to */
	/* stall_ns: what runs now, for who asks from outside. */
	_Atomic(gyre_task_fn *) stalled;
	_Atomic uint64_t stalled_ns;		/* and since when */
	/* What outlasting() has written down; freed with the worker. */
	char *outlasted;
	struct gyre__task_counters counters;
};

struct gyre__tasks_config {
	uint64_t stall_ns;
	bool zero;				/* no job reads another's bytes */
	size_t arena_max;			/* of the job that destroys the worker's locals */
	const struct gyre_state_type *state_type;
	struct gyre__keys *pool;	/* NULL with it */
	struct gyre__task_hooks hooks;
};

/* Any thread, before the worker's starts. */
void gyre__tasks_init(struct gyre__tasks *tasks, struct gyre__ring *ring,
		      const struct gyre__tasks_config *config);
/* The worker's thread, before its first turn. running: in the thread's record. */
void gyre__tasks_begin(struct gyre__tasks *tasks, struct gyre__running *running);
/* The same thread, after its last: no task is left, and no memory of theirs. */
void gyre__tasks_end(struct gyre__tasks *tasks);
/* Another thread, after that: who has woken the last of them has gone, too. */
void gyre__tasks_wait_for_wakers(struct gyre__tasks *tasks);

/* Runs what is ready, and alarms that are due, for a while. True: something was done. */
bool gyre__tasks_run(struct gyre__tasks *tasks);

/* ------------------------------------------------------ of the running one -- */

static inline bool gyre__task_is_cancelled(const struct gyre__task *task)
{
	return task->cancel_ns != 0;
}

enum gyre_status gyre__task_may_wait_cancelled(struct gyre__task *task);

/*
 * Before a wait. GYRE_OK: it may begin. GYRE_CANCELLED, GYRE_WORKER_DEAD: the
 * task was cancelled or its worker ends: others have had their turn meanwhile,
 * and the wait must answer that. Does not return to a task whose grace is over.
 */
static inline enum gyre_status gyre__task_may_wait(struct gyre__task *task)
{
	return gyre__likely(!gyre__task_is_cancelled(task)) ? GYRE_OK :
							      gyre__task_may_wait_cancelled(task);
}

/*
 * Who waits for whose end, as other workers see it: see lib/circle.c, which says
 * what is changed under this lock, a leaf, and what is not.
 */
void gyre__waits_lock(void);
void gyre__waits_unlock(void);

/* Owner. task waits for the end of something: who comes to wait for it may close a circle. */
static inline bool gyre__task_is_tangled(const struct gyre__task *task)
{
	return task->awaits || task->joining || task->joins_all || task->local_waits;
}

/* Waits until somebody makes it ready. wait: described by the caller, but for since_ns. */
void gyre__task_park(struct gyre__task *task, struct gyre__wait *wait);

/* The same until at_ns at the latest. False: the time was over first. */
bool gyre__task_park_until(struct gyre__task *task, struct gyre__wait *wait, uint64_t at_ns);

/* Lets all run that are ready now. */
void gyre__task_yield(struct gyre__task *task);

/* Runs its defers and leaves it for good; in one of these, ends that one. */
void gyre__task_finish(struct gyre__task *task, enum gyre__task_end end, int result)
	__attribute__((__noreturn__));

/* ------------------------------------------------------------- of others -- */

/*
 * One more task of job, READY, that will run fn(arg). parent may be NULL. NULL: no
 * memory. With ret_handle it gets a handle, to be joined.
 */
struct gyre__task *gyre__task_start(struct gyre__job *job, struct gyre__task *parent,
				    gyre_task_fn *fn, void *arg, struct gyre_task **ret_handle);

/* Owner. Gives a task that has not begun its stack already now. */
void gyre__task_settle(struct gyre__task *task);

/* Owner. The wait of a PARKED task is over. */
void gyre__task_ready(struct gyre__task *task);

/* Any thread: the same from wherever; ring: whose owner calls, or NULL. Once for each wait. */
void gyre__task_wake(struct gyre__task *task, struct gyre__ring *ring);

/* Owner. Asks for its end, now. */
void gyre__task_cancel(struct gyre__task *task);
/* The same, and even waits of its defers are over: so it is at the end of a drain. */
void gyre__task_hurry(struct gyre__task *task);

/* For gyre__wait.interrupt: the wait is over at once. */
void gyre__task_stop_waiting(struct gyre__task *task, struct gyre__wait *wait);

/* All ended slots of job that parent has started are free; parent NULL: all of job. */
void gyre__task_forget_ended(struct gyre__tasks *tasks, struct gyre__job *job,
			     const struct gyre__task *parent);

/* A handle: generation, tag and slot above a bit that no address of an object has. */
#define GYRE__TASK_SLOT_BITS		22
#define GYRE__TASK_TAG_SHIFT		(1 + GYRE__TASK_SLOT_BITS)
#if UINTPTR_MAX > UINT32_MAX
#define GYRE__TASK_GENERATION_SHIFT	32
#else
#define GYRE__TASK_GENERATION_SHIFT	GYRE__TASK_TAG_SHIFT	/* no room for tags */
#endif
#define GYRE__TASK_TAG_MASK \
	((UINT32_C(1) << (GYRE__TASK_GENERATION_SHIFT - GYRE__TASK_TAG_SHIFT)) - 1)

_Static_assert(GYRE__TASKS_MAX == 1u << GYRE__TASK_SLOT_BITS, "a handle has room for each slot");

static inline struct gyre_task *gyre__task_handle(const struct gyre__tasks *tasks, uint32_t slot)
{
	return (struct gyre_task *)((uintptr_t)tasks->slots[slot].generation
					    << GYRE__TASK_GENERATION_SHIFT |
				    tasks->tag | slot << 1 | 1);
}

/* The slot that a handle means, if it is one of this worker's and not used up; else NULL. */
static inline struct gyre__task_slot *gyre__task_find(struct gyre__tasks *tasks,
						      const struct gyre_task *handle)
{
	uintptr_t bits = (uintptr_t)handle;
	uint32_t index = (uint32_t)(bits >> 1) & (GYRE__TASKS_MAX - 1);

	if (gyre__unlikely(!(bits & 1) || index >= tasks->slots_used ||
			   !tasks->slots[index].owner ||
			   gyre__task_handle(tasks, index) != handle))
		return NULL;
	return &tasks->slots[index];
}

static inline void gyre__task_slot_release(struct gyre__tasks *tasks, uint32_t index)
{
	tasks->slots[index].owner = NULL;
	tasks->slots[index].next = tasks->slots_free;
	tasks->slots_free = index;
}

/* A waiter (ring/waiter.h) that makes a task ready, on whatever thread it is told. */
struct gyre__task_waiter {
	struct gyre__waiter waiter;
	struct gyre__task *task;
};
void gyre__task_waiter_init(struct gyre__task_waiter *waiter, struct gyre__task *task);

#endif
