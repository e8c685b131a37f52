/* SPDX-License-Identifier: MIT */
/*
 * What the library keeps for each thread that has called it: its one reply, its
 * one batch, how its last call ended, and which runtime it is inside of. Made
 * on the first call, freed when the thread ends.
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

struct gyre__context;
struct gyre__worker;

/* A thread's place in one runtime. Others read the counts under the list's lock. */
struct gyre__home {
	_Atomic(struct gyre *) rt;	/* NULL: free; cleared by gyre_free() of another thread */
	unsigned worker;		/* where its calls go; see gyre__crew_choose() */
	_Atomic uint64_t calls, calls_in_caller;
};

#define GYRE__HOMES		4	/* runtimes that a thread can use in turn at no extra cost */
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

	/* A worker's own thread: whatever calls in there is a prep closure. */
	struct gyre *runtime;
	struct gyre__worker *worker;

	enum gyre_status last_status;
	enum gyre_effect last_effect;
	bool remarked;			/* last_error says something, though the status is GYRE_OK */
	char last_error[256];
	struct gyre__thread *next, *prev;
};

/* The calling thread's; made if need be. NULL: no memory. */
struct gyre__thread *gyre__thread_self(void);

/* What a travelling call needs besides: the eventfd. GYRE_OK, or reported as function's failure. */
enum gyre_status gyre__thread_make_reply(struct gyre__thread *self, const char *function);

/* Arrays for count ops in self->batch. False: no memory. */
bool gyre__thread_make_arrays(struct gyre__thread *self, uint32_t count);
/* After the reply: keeps them for the next batch unless they are large. */
void gyre__thread_trim_arrays(struct gyre__thread *self);

/* The thread's place in rt; of the places it has, the oldest is given up for it. */
struct gyre__home *gyre__thread_home(struct gyre__thread *self, struct gyre *rt);

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

static inline void gyre__thread_succeed(struct gyre__thread *self)
{
	self->last_status = GYRE_OK;
	self->last_effect = GYRE_EFFECT_DONE;
	self->remarked = false;
}

#endif
