/* SPDX-License-Identifier: MIT */
/*
 * Jobs: a tree of tasks on one worker, and an arena that holds all that they have
 * asked for. A job ends when its first task has: what is left of the others is
 * counted, told to stop, waited for, and dropped where it refuses; then the arena
 * is freed, and only then whoever waits is told.
 *
 * A *handle* (struct gyre_job) is what the other side has of it: on the stack of
 * a caller that waits, or on the heap with one reference for who may wait and one
 * for the job. Its word says whether the job has ended and who waits, and is the
 * only thing that both sides write. The job's own record is its worker's alone.
 */
#ifndef GYRE_WORKERS_JOB_H
#define GYRE_WORKERS_JOB_H

#include <gyre.h>
#include <stdbool.h>
#include <stdint.h>

#include "task.h"

#define GYRE__JOBS_MAX		(1u << 20)	/* of one worker, alive at the same time */
#define GYRE__PANIC_MAX		512		/* bytes of a panic's text */

struct gyre__thread;
struct gyre__worker;

/* gyre_job.word, but for the address of a waiter. */
#define GYRE__JOB_RUNS		((uintptr_t)0)
#define GYRE__JOB_ENDED		((uintptr_t)1)

struct gyre_job {
	_Atomic uintptr_t word;

	/* What is to be run; read by its worker when it starts. */
	gyre_task_fn *fn;
	void *arg;
	size_t arg_size;		/* not 0: the task gets a copy */
	const char *name;		/* NULL: none */
	uint64_t timeout_ns;		/* 0: none */
	uint64_t start_ns;		/* with timeout_ns: it counts from here */
	size_t stack_size, arena_max;
	enum gyre_mode mode;		/* how its state lives; GYRE_MODE_DEFAULT: it has none */
	struct gyre__keyed *keyed;	/* whose, with GYRE_MODE_POOLED; it is a user */
	/* The upper floor's, handed to the first task; its hook takes it over. */
	void *context;

	/* What came of it; written before the word says that it has ended. */
	enum gyre_status status;
	enum gyre_effect effect;	/* NONE: no line of it has run */
	bool returned;
	int result;
	/* Text for GYRE_RESPONSE_LOST, to be freed by who takes it; may be NULL. */
	char *panic;

	/*
	 * Who waits for this job until it ends, as far as circles are concerned: the
	 * upper floor's. Set for as long as the handle lives, or changed under
	 * gyre__waits_lock().
	 */
	_Atomic(struct gyre__thread *) waited_by;
	bool owned;			/* by who waits: its own cancel is handed on to this job */
	/* By any thread: a cancel is on its way to the worker, and is sent once. */
	_Atomic uint32_t cancel_asked;
	struct gyre__tasks *home;	/* where it runs */
	struct gyre__job *job;		/* its worker's: while it runs there */
	/* The upper floor's: one of its helpers has brought it about. */
	bool helped;
	/* The upper floor's: what brings it to a worker, and a cancel after it. */
	void *later;
	/* On the heap: the job gives up its reference; else NULL. */
	void (*unref)(struct gyre_job *handle);
};

/* What a job does not end before, besides its tasks. Embedded by its user. */
struct gyre__held {
	struct gyre__job *job;
	struct gyre__held *next, *prev;
	/* The last task has left: let it go, now or when it can be. */
	void (*release)(struct gyre__held *held);
};

struct gyre__job {
	struct gyre__arena arena;
	struct gyre__tasks *home;
	struct gyre_job *handle;
	struct gyre__job *next, *prev;	/* of its worker */
	struct gyre__task *tasks;	/* alive, the first one among them */
	uint32_t live;
	struct gyre__held *held;
	struct gyre__task *last;	/* waits for held to go; else NULL */
	uint32_t unjoined;		/* slots of tasks that have ended and may still be joined */
	struct gyre__task *first;	/* NULL: it has ended, and the rest is on its way out */
	void *state;			/* what it runs on; NULL: not yet, not any more, or none */
	enum gyre_mode mode;
	struct gyre__keyed *keyed;	/* its handle's */
	bool began;			/* its function was or is about to be called */
	bool over;			/* only its state is left: what cancels it comes too late */
	/* Written under gyre__waits_lock(), as others walk along it. */
	struct gyre__line *line;	/* for a state; the first has it. NULL: in none */
	struct gyre__job *line_next, *line_prev;
	const char *name;
	size_t stack_size;		/* of tasks that it starts */
	unsigned stack_class;
	struct gyre__alarm alarm;	/* its time-out */
	uint64_t cancel_ns;		/* since when its tasks are cancelled; 0: they are not */
	/* Why, if not for the end of the first one; GYRE_OK: that. */
	enum gyre_status reason;
	bool returned, panicked;
	int result;
	char *panic;
	uint64_t since_ns;
};

/* ---------------------------------------------------------------- owner -- */

/* Starts what handle describes, or answers it at once. */
void gyre__job_start(struct gyre__tasks *tasks, struct gyre_job *handle);

/*
 * A job of the worker's own, whatever else may not begin any more. keyed: what it is a user of,
 * or NULL. False: no memory.
 */
bool gyre__job_start_own(struct gyre__tasks *tasks, gyre_task_fn *fn, void *arg,
			 struct gyre__keyed *keyed);

/* Asks all of its tasks to end. reason: what its status will be. */
void gyre__job_cancel(struct gyre__job *job, enum gyre_status reason);

/*
 * For a task of job that does not wait, whose worker can be told of nothing meanwhile: what would
 * cancel the job once it waits, a cancel on its way or a time-out that is over, cancels it now.
 */
void gyre__job_look(struct gyre__job *job);

/* The end of a drain, or of the ring: all that live and all that still come. */
void gyre__jobs_end(struct gyre__tasks *tasks, enum gyre_status reason);

/* A task of job has panicked: the text of the first one is kept. Takes text over. */
void gyre__job_panic(struct gyre__job *job, char *text);

void gyre__job_end_of_first(struct gyre__job *job, enum gyre__task_end end, int result);
void gyre__job_end(struct gyre__job *job);

/* For task.c: task is at its end. The job may be gone after this. */
static inline void gyre__job_task_ended(struct gyre__job *job, struct gyre__task *task,
					enum gyre__task_end end, int result)
{
	if (task->job_prev)
		task->job_prev->job_next = task->job_next;
	else
		job->tasks = task->job_next;
	if (task->job_next)
		task->job_next->job_prev = task->job_prev;
	job->live--;
	if (gyre__unlikely(task == job->first))
		gyre__job_end_of_first(job, end, result);
	if (gyre__unlikely(job->live == 0))
		gyre__job_end(job);
}

/* For task.c: task is one of job's. */
static inline void gyre__job_task_begins(struct gyre__job *job, struct gyre__task *task)
{
	task->cancel_ns = job->cancel_ns;	/* who comes too late is told at once */
	task->job_prev = NULL;
	task->job_next = job->tasks;
	if (job->tasks)
		job->tasks->job_prev = task;
	job->tasks = task;
	job->live++;
}

void gyre__job_hold(struct gyre__job *job, struct gyre__held *held,
		    void (*release)(struct gyre__held *held));
/*
 * held may be freed after this. Where no task is left, gyre__job_may_finish() comes next, but in
 * release().
 */
void gyre__job_let_go(struct gyre__held *held);
/* The job may be gone after this. */
void gyre__job_may_finish(struct gyre__job *job);
/* In the last task of a job: tells what it holds to go, and waits for that. */
void gyre__job_release_held(struct gyre__task *last);

static inline uint32_t *gyre__job_unjoined(struct gyre__job *job)
{
	return &job->unjoined;
}

/* A slot that has ended was joined: its handle means nothing any more. */
static inline void gyre__task_slot_free(struct gyre__tasks *tasks, struct gyre__task_slot *slot)
{
	struct gyre__task_slot *slots = tasks->slots;
	uint32_t index = (uint32_t)(slot - slots), next = slot->next;
	uint32_t *list = gyre__job_unjoined(slot->owner);

	GYRE_ASSERT(slot->ended);
	if (*list == index)
		*list = next == index ? GYRE__NO_HANDLE : next;
	slots[slot->prev].next = next;
	slots[next].prev = slot->prev;
	gyre__task_slot_release(tasks, index);
}

/* ----------------------------------------------------------- any thread -- */

/* Was not and will not be run. */
void gyre__job_answer(struct gyre_job *handle, enum gyre_status status, enum gyre_effect effect,
		      struct gyre__ring *ring);

static inline bool gyre__job_has_ended(struct gyre_job *handle)
{
	/* Acquire: what came of it. Pairs with the exchange in gyre__job_answer(). */
	return gyre__load(&handle->word, acquire) == GYRE__JOB_ENDED;
}

/* waiter->done() will be called once it ends. False: it has ended. */
bool gyre__job_await(struct gyre_job *handle, struct gyre__waiter *waiter);
/* Takes that back. False: waiter->done() has been or is about to be called. */
bool gyre__job_withdraw(struct gyre_job *handle, struct gyre__waiter *waiter);

#endif
