/* SPDX-License-Identifier: MIT */
/*
 * The runtime behind a struct gyre, and the door that every public function
 * comes in by.
 *
 * gyre__runtime_enter(), gyre__thread_leave(), close_once() and gyre_free() are
 * modelled in tests/models/close.pml.
 */
#ifndef GYRE_LIB_RUNTIME_H
#define GYRE_LIB_RUNTIME_H

#include <gyre.h>
#include <stdbool.h>
#include <stdint.h>

#include "options.h"
#include "ring/sys.h"
#include "thread.h"
#include "workers/crew.h"

struct gyre__buffer_pool;
struct gyre__closer;
struct gyre__durable;
struct gyre__offload;
struct gyre__keys;

struct gyre {
	/* Read by every call, written twice in a life. */
	struct gyre__crew *crew GYRE__OWN_LINE;
	const uint32_t *guard;		/* a page that a forked child finds empty; else id */
	uint32_t id;			/* not zero */
	_Atomic uint32_t closed;	/* takes no more calls */
	/* For what may need a helper in its turn; see lib/offload.c. */
	_Atomic uint32_t helpers_waiting;
	_Atomic uint32_t visitors;	/* tasks of other runtimes that are in a call of this one */
	enum gyre__route route;

	struct gyre__settings settings;
	union gyre__mutex close_lock;	/* one closer closes, the others wait for it */
	bool stopped;			/* the crew is; under close_lock */
	struct gyre__closer *closers;	/* who is waited for in turn; under gyre__waits_lock() */
	struct gyre__buffer_pool *buffers;
	struct gyre__durable *durable;
	struct gyre__keys *pool;		/* of states; NULL: jobs have none */
	struct gyre__offload *offload;
	struct gyre__offload *reserve;		/* see gyre__elsewhere() */
	_Atomic uint32_t reserve_lasts;		/* one of its helpers has something that may last */

	/* Of threads that have gone; under the lock of lib/thread.c. */
	uint64_t calls, calls_in_caller;
	/* All that are open, for those who know only an id; ditto. */
	struct gyre *next, *prev;
};

/* In a child that was forked from the process that opened it. */
static inline bool gyre__runtime_is_forked(const struct gyre *rt)
{
	return *rt->guard != rt->id;
}

/*
 * The door for calls that may wait. Refuses, with the reason reported: a prep
 * closure (GYRE_WOULD_DEADLOCK), no runtime here (GYRE_NO_REACTOR), a closed one
 * or a forked child (GYRE_CLOSED), a task that was cancelled (GYRE_CANCELLED, or
 * it does not come back at all), no memory for the thread's record. On GYRE_OK
 * the runtime stays until gyre__runtime_leave(). A task's own runtime lets it in
 * until its jobs are told to end, closed or not.
 */
enum gyre_status gyre__runtime_enter(const char *function, struct gyre **rt,
				     struct gyre__thread **ret_self);

/* The door for calls that only look: open from preps and after gyre_close(), too. */
enum gyre_status gyre__runtime_look(const char *function, struct gyre **rt);

void gyre__runtime_leave(struct gyre *rt);

/* A task of rt: what it sends stays on its own worker. */
static inline bool gyre__thread_is_at_home(const struct gyre__thread *self, const struct gyre *rt)
{
	return self->task && self->runtime == rt;
}

/* A task leaves a runtime that is not its own. */
void gyre__thread_end_visit(struct gyre__thread *self);

/* Release: what the call did with rt is over before gyre_free() sees it gone. */
static inline void gyre__thread_leave(struct gyre__thread *self)
{
	gyre__store(&self->inside, NULL, release);
	if (gyre__unlikely(self->task))
		gyre__thread_end_visit(self);
}

/*
 * For who knows only the id of a runtime: if it is not freed yet it stays so
 * until gyre__thread_leave(). NULL: it is gone. From a task of its own, or a
 * thread that is in no call. self NULL, for want of memory: then until
 * gyre__runtime_end_visit().
 */
struct gyre *gyre__runtime_visit(struct gyre__thread *self, uint32_t id);
void gyre__runtime_end_visit(struct gyre *rt);

/*
 * In the list of those that are open, from the end of gyre_open() to the end of gyre_free()'s
 * close.
 */
void gyre__runtime_list(struct gyre *rt);
void gyre__runtime_unlist(struct gyre *rt);

/* Adds up one worker's figures, or with worker -1 all of them and those of callers. */
void gyre__runtime_stats(struct gyre *rt, int worker, struct gyre_stats *ret);

/* A system call failed: GYRE_SYSTEM with errno, or GYRE_NO_MEMORY for -ENOMEM. */
enum gyre_status gyre__fail_system(const char *function, int error, const char *step);

#endif
