/* SPDX-License-Identifier: MIT */
/*
 * The pool of GYRE_MODE_POOLED: which keys there are, and on which worker each
 * one's state lives; who may have a state, and which has to go for another.
 *
 * Who sends a job finds its key here first, or adds it, and is a *user* of it until
 * the job has ended: a key with users is never evicted, so the job finds it where it
 * was sent. The table, the order of the idle and who uses what are under the pool's
 * lock, which nobody holds across a wait or a callback; a state itself is touched
 * by its worker alone, by the job that stands first in its line.
 *
 * *Room* is the right to have a state; there is as much as the options say. A key
 * without it stands in one line for all, in the order in which keys came, and each
 * that gives its room up gives it to the first there. For each that wants some an
 * idle state is told to go, as long as there are any (see balance()).
 *
 * A state is evicted where it lives, by the last task of whatever job was on it, or,
 * if it is idle, by a job of the library's own that stands in its line meanwhile. So
 * who asks for the key then comes after that, and there are never two states of
 * a key, but when its worker dies or the runtime is closed.
 */
#ifndef GYRE_WORKERS_KEYS_H
#define GYRE_WORKERS_KEYS_H

#include <gyre.h>
#include <stdbool.h>
#include <stdint.h>

#include "ring/ring.h"
#include "state.h"

#define GYRE__KEYS_TURNS	16	/* jobs of one key in a row while other keys want room */

struct gyre__keys;
struct gyre__keys_side;
struct gyre__task;
struct gyre__tasks;

/* A key that has users, or a state, or both. */
struct gyre__keyed {
	struct gyre__keys *pool;
	struct gyre__keys_side *side;	/* of the worker where it lives */

	/* Under the pool's lock. */
	struct gyre__keyed *chain;	/* in its bucket */
	struct gyre__keyed *next, *prev;	/* all of its side */
	struct gyre__keyed *newer, *older;	/* while it is idle */
	struct gyre__keyed *nudge_next;
	uint32_t users;			/* jobs that were sent here and have not ended */
	uint32_t turns;			/* in a row, while others want room */
	bool known;			/* in the table */
	bool idle;			/* has a state, and no user */
	bool promised;			/* given, and it is counted on */

	/* Changed under both that lock and gyre__waits_lock(). */
	bool has_room, wants;
	struct gyre__keyed *wants_next, *wants_prev;

	/* Under gyre__waits_lock(). */
	struct gyre__line line;
	struct gyre__task *waiter;	/* of the first there: parked until there is room */
	uint64_t walk;			/* lib/circle.c: the latest that has met it */

	/* Of who is first in line; under the pool's lock while there are no users. */
	void *value;			/* NULL: none yet, or none any more */
	bool used;			/* by a job, since it was made or reset */
	bool given;			/* its room goes to who wants some, with the job */
	uint64_t since_ns;

	uint64_t hash;
	size_t len;
	char key[];
};

/* One worker's part. */
struct gyre__keys_side {
	struct gyre__keys *pool;
	struct gyre__tasks *tasks;
	/* Under the pool's lock. */
	struct gyre__keyed *all;	/* the newest first */
	struct gyre__keyed *nudge_first, *nudge_last;	/* idle ones that are to go */
	uint32_t count;
	bool nudged;			/* the batch is on its way, or about to be sent */
	struct gyre__keys_side *send_next;
	bool ended;			/* makes no states any more */
	uint32_t states;		/* the owner's: how many live there */
	struct gyre__batch nudge;
};

struct gyre__keys {
	union gyre__mutex lock;
	uint32_t size, workers;		/* constant */
	_Atomic uint32_t in_use;	/* a job has asked for a state */

	/* Under the lock. */
	struct gyre__keyed **table;
	uint32_t buckets, keys;
	struct gyre__keyed *oldest, *newest;	/* the idle ones, by their last use */
	_Atomic uint32_t wanting;	/* keys that want room; a hint for who looks without it */
	uint32_t promised;		/* room for them, as states were told to go */
	uint32_t next_side;

	/* Changed under both locks. */
	uint32_t rooms;			/* that are taken */
	struct gyre__keyed *wants_first, *wants_last;

	/* Under gyre__waits_lock(). */
	struct gyre__keys *crowded_next;	/* of those in which room is wanted */
	uint64_t walk;			/* lib/circle.c */
	uint32_t walk_met;
	bool walk_doubts;

	struct gyre__keys_side side[];
};

/* ----------------------------------------------------------- any thread -- */

/* For so many states, on so many workers. NULL: no memory. */
struct gyre__keys *gyre__keys_open(uint32_t size, uint32_t workers);
/* No worker is left, and so no state; in a forked child whatever there is. */
void gyre__keys_free(struct gyre__keys *pool);

/* Before the worker's thread starts. pool may be NULL: NULL. */
struct gyre__keys_side *gyre__keys_side(struct gyre__keys *pool, unsigned worker,
					struct gyre__tasks *tasks);

/*
 * A job is about to be sent: its key, known from here on until gyre__keys_leave(), is
 * at ret->side. only: where a new one is to be, wherever there is most room; NULL:
 * there. GYRE_WORKER_DEAD, GYRE_CLOSED: no worker is left; GYRE_NO_MEMORY.
 */
enum gyre_status gyre__keys_enter(struct gyre__keys *pool, const char *key,
				  struct gyre__tasks *only, struct gyre__keyed **ret);

/*
 * The job has ended, or was never sent. gives: keyed->given, by the job that was first
 * in its line. ring: whose owner calls, or NULL. keyed may be gone after it.
 */
void gyre__keys_leave(struct gyre__keyed *keyed, bool gives, struct gyre__ring *ring);

/* Its worker has ended, and takes no more jobs. */
void gyre__keys_forget(struct gyre__keyed *keyed);

/* Those in which room is wanted, through crowded_next; under gyre__waits_lock(). */
struct gyre__keys *gyre__keys_crowded(void);

/* ---------------------------------------------------------------- owner -- */

/*
 * By who is first in line and about to leave it: must what it leaves go for others?
 * promised: it was promised already. True: given, and there must be no state by then.
 */
bool gyre__keys_asks_back(struct gyre__keyed *keyed, bool promised);

/* A look without the lock: somebody may want room. */
static inline bool gyre__keys_is_wanted(struct gyre__keyed *keyed)
{
	/* Relaxed: who comes to want some after it finds the state idle, and has it go. */
	return gyre__load(&keyed->pool->wanting, relaxed) > 0;
}

/*
 * Any thread, for the job that has given keyed: what destroys it is about to wait for a job,
 * which may be one that wants room. So nobody counts on that promise any more.
 */
void gyre__keys_giver_waits(struct gyre__keyed *keyed, struct gyre__ring *ring);

/* It was promised, and stays: another one's state goes, if that is still wanted. */
void gyre__keys_take_back(struct gyre__keyed *keyed);

/* The worker ends: the newest that still has a state, with the caller as user; NULL: none. */
struct gyre__keyed *gyre__keys_end(struct gyre__keys_side *side);

#endif
