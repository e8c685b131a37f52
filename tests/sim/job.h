/* SPDX-License-Identifier: MIT */
/*
 * What must be true of jobs and their tasks. A scenario says what it starts, asks
 * for and is told; each task says that it begins, waits and ends; here the one is
 * held against the other.
 */
#ifndef GYRE_SIM_JOB_H
#define GYRE_SIM_JOB_H

#include <gyre.h>
#include <stdbool.h>
#include <stdint.h>

#include "oracle.h"
#include "scenario.h"

#define SIM_TASK_OPS	2
#define SIM_MARK_BYTES	24

struct sim_job;

struct sim_task {
	unsigned id;
	struct sim_job *job;
	struct sim_task *parent;	/* who started it; NULL: it is its job's first */
	struct sim_task *joiner;	/* who joins it, or has */
	struct gyre_task *handle;	/* NULL: has none, or was joined */
	bool joins_all, joined;
	bool begun, returned, panics, over;
	bool shielded;			/* runs its defers */
	bool cancel_asked;
	int result;			/* what it returns */
	uint64_t uncancelled_ns;	/* last seen not to be cancelled */
	uint64_t cancelled_ns;		/* first seen to be; 0: not yet */
	uint64_t wait_ns, refusals;	/* its present wait began, and refusals until then */
	char *mark;			/* bytes in its job's arena */
	struct sim_call calls[SIM_TASK_OPS];
	struct gyre_op ops[SIM_TASK_OPS];
	struct __kernel_timespec ts[SIM_TASK_OPS];
	char bytes[SIM_TASK_OPS][16];
};

struct sim_job {
	unsigned id, depth;
	bool endless;			/* its tasks may wait for what never comes */
	enum gyre_mode mode;		/* GYRE_MODE_DEFAULT: has no state */
	const struct sim_task *waiter;	/* a task whose cancel is passed on to it */
	bool awaited;			/* a task waits for it, or has */
	struct gyre_job *handle;
	uint64_t timeout_ns, start_ns;
	uint64_t over_ns;		/* its latest task to end has */
	uint64_t ended_ns;		/* the same, or its state was given back later */
	uint64_t cancelled_ns;		/* gyre_job_cancel() has returned; 0: nobody has asked */
	bool cancel_asked, panicked, returned, first_over, taken, answered;
	unsigned begun, live;
	int result;
	char *arg;			/* with arg_size: what the copy is compared with */
	struct sim_task *first;
};

/* What may keep a job with a state from beginning. */
extern struct sim_states {
	bool failed, panicked;		/* some create has */
} sim_states;

void sim_jobs_begin(void);
/* All runtimes are closed: nothing lives, and what was taken has run, or need not have. */
void sim_jobs_end(void);

/* NULL: there have been enough. */
struct sim_job *sim_job_new(unsigned depth);
struct sim_task *sim_task_new(struct sim_job *job, struct sim_task *parent);

/* In the task: it begins; false: there is no memory for that, and it has to return. */
bool sim_task_begins(struct sim_task *task);
/* Around each wait of its. */
void sim_task_waits(struct sim_task *task);
void sim_task_goes_on(struct sim_task *task);
/* Cancelled? And if so: by whom? */
bool sim_task_is_cancelled(struct sim_task *task);
/* A sleep of ns nanoseconds is over. */
void sim_task_has_slept(struct sim_task *task, uint64_t ns, enum gyre_status status);
/* It is about to return, or to panic. */
int sim_task_returns(struct sim_task *task);
void sim_task_panics(struct sim_task *task);

/* The state that was its own is destroyed. */
void sim_job_has_given_back(struct sim_job *job);

/* Whoever has started job asks for its end. */
void sim_job_cancel(struct sim_job *job);
/* The caller was told this; since_ns: he began to wait. */
void sim_job_answered(struct sim_job *job, enum gyre_status status, enum gyre_effect effect,
		      int result, uint64_t since_ns);
/* Of a task that was joined. */
void sim_task_joined(struct sim_task *task, enum gyre_status status, int result);

#endif
