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
struct gyre__durable;

struct gyre {
	/* Read by every call, written twice in a life. */
	struct gyre__crew *crew GYRE__OWN_LINE;
	const uint32_t *guard;		/* a page that a forked child finds empty; else id */
	uint32_t id;			/* not zero */
	_Atomic uint32_t closed;	/* takes no more calls */
	enum gyre__route route;

	struct gyre__settings settings;
	union gyre__mutex close_lock;	/* one closer closes, the others wait for it */
	bool stopped;			/* the crew is; under close_lock */
	struct gyre__buffer_pool *buffers;
	struct gyre__durable *durable;

	/* Of threads that have gone; under the lock of lib/thread.c. */
	uint64_t calls, calls_in_caller;
};

/* In a child that was forked from the process that opened it. */
static inline bool gyre__runtime_is_forked(const struct gyre *rt)
{
	return *rt->guard != rt->id;
}

/*
 * The door for calls that may wait. Refuses, with the reason reported: a prep
 * closure (GYRE_WOULD_DEADLOCK), no runtime here (GYRE_NO_REACTOR), a closed one
 * or a forked child (GYRE_CLOSED), no memory for the thread's record. On GYRE_OK
 * the runtime stays until gyre__runtime_leave().
 */
enum gyre_status gyre__runtime_enter(const char *function, struct gyre **rt,
				     struct gyre__thread **ret_self);

/* The door for calls that only look: open from preps and after gyre_close(), too. */
enum gyre_status gyre__runtime_look(const char *function, struct gyre **rt);

void gyre__runtime_leave(struct gyre *rt);

/* Release: what the call did with rt is over before gyre_free() sees it gone. */
static inline void gyre__thread_leave(struct gyre__thread *self)
{
	gyre__store(&self->inside, NULL, release);
}

/* Adds up one worker's figures, or with worker -1 all of them and those of callers. */
void gyre__runtime_stats(struct gyre *rt, int worker, struct gyre_stats *ret);

/* A system call failed: GYRE_SYSTEM with errno, or GYRE_NO_MEMORY for -ENOMEM. */
enum gyre_status gyre__fail_system(const char *function, int error, const char *step);

#endif
