/* SPDX-License-Identifier: MIT */
/*
 * Close against the death of workers, against callers that choose another
 * worker, against gyre_free(): two workers, either of which may die at any
 * moment, two callers, one thread that closes and one that frees.
 *
 * Models, in lib/runtime.c: gyre__runtime_enter(), close_once(), gyre_close(),
 * gyre_free(); in lib/runtime.h: gyre__thread_leave(); in lib/thread.c:
 * anybody_inside(), gyre__threads_leave(); in lib/bridge.c: travel(); in
 * ring/ring.c: gyre__ring_send(), gyre__ring_seal(); in ring/death.c:
 * gyre__ring_die(); in ring/turn.c: wind_down(), end(); in workers/crew.c:
 * gyre__crew_stop(), gyre__crew_choose_other(); in workers/worker.c: worker_main().
 *
 * Promised: each call returns, answered once or refused: GYRE_CLOSED only of a
 * runtime that somebody closes, GYRE_WORKER_DEAD unsent only when all workers
 * are dead; nobody who was let in touches the runtime after it was freed, a
 * pusher's late write of a worker's eventfd included.
 *
 * The look at `closed` itself is not counted as a touch: whoever comes to the
 * door of a runtime that is already freed has broken gyre_free()'s contract (it
 * is the last use), and no order of these words could help him. -DDOOR counts
 * it, and shows exactly that.
 *
 * Left out: stacks and sleep (inbox.pml, seal.pml: here a push is one step, and
 * a wake-up a touch of the ring), what flies (what a worker took is answered by
 * it at any later moment, dying or not).
 *
 * Each of these breaks it, and must be found:
 * -DDOOR		a call begins while the runtime is freed: the user's error, not the library's
 * -DINSIDE_RELEASE	`inside` is stored with release order only
 * -DSCAN_FIRST		gyre_free() looks who is inside before it closes
 * -DNO_SCAN		gyre_free() does not look who is inside
 * -DNO_LOOK		the door is open to a closed runtime
 * -DLEAVE_EARLY	a caller leaves before its late write of the worker's eventfd
 * -DNO_JOIN		close does not wait for the workers
 * -DCLOSE_OUTSIDE	gyre_close() does not note that it is inside
 * -DDEAD_LATE		the dying worker seals first, and then says that it is dead
 * -DDEATH_LEAVES	the dying worker answers what it took, and not what has come since
 * -DEND_LEAVES		the owner ends without a take that came with the seal
 */
/*
 * Each word below has one writer, so that one buffer with a cell for each does
 * for all threads. `closed` is stored with seq_cst only, and needs none.
 */
#define THREADS	1
#define WORDS	5
#define INSIDE(thread) (thread)		/* callers 0 and 1, closer 2 */
#define CLOSER	2
#define DEAD(worker) (3 + (worker))
#define CALLS	2
#include "memory.pml"

#define TOUCH	assert(!freed)
#ifdef DOOR
#define TOUCH_DOOR TOUCH
#else
#define TOUCH_DOOR skip
#endif

bool closed, freed, lock, stopped, closer_came;

/* Of each worker: its inbox, with a bit for each caller; whether its thread has ended. */
bool sealed[2], exited[2];
bool pushed[4];
#define PUSHED(worker, caller)	pushed[2 * (worker) + (caller)]

#define OK		1
#define WORKER_DEAD	2
byte answer[2];
bool waits[2];		/* ghost: pushed, and not answered */

inline note_inside(me)
{
#ifdef INSIDE_RELEASE
	STORE(0, INSIDE(me), 1)
#else
	atomic { CELL_IS_EMPTY(0, INSIDE(me)) -> memory[INSIDE(me)] = 1 }
#endif
}

inline leave(me)
{
	STORE(0, INSIDE(me), 0)
}

active [2] proctype caller()
{
	byte me = _pid - WORDS;
	byte worker = _pid - WORDS;	/* its home */
	byte call;
	bool out;

	do
	:: call == CALLS - me -> break	/* one of them comes but once */
	:: else ->
		call++;
		note_inside(me);
#ifndef NO_LOOK
		atomic { TOUCH_DOOR; out = closed }
		if
		:: out -> leave(me); break		/* GYRE_CLOSED */
		:: else
		fi;
#endif
retry:		atomic {				/* gyre__crew_choose() */
			TOUCH;
			if
			:: memory[DEAD(worker)] -> worker = 1 - worker
			:: else -> goto chosen
			fi
		}
		atomic {
			TOUCH;
			if
			:: memory[DEAD(worker)] ->	/* GYRE_WORKER_DEAD: it is the second */
				assert(memory[DEAD(0)] && memory[DEAD(1)]);
				goto done
			:: else
			fi
		}
chosen:		atomic {				/* the push */
			TOUCH;
			if
			:: sealed[worker]
			:: else -> PUSHED(worker, me) = true; waits[me] = true
			fi
		}
		if
		:: waits[me] || answer[me] ->
#ifdef LEAVE_EARLY
			answer[me] != 0;
			leave(me);
			TOUCH;
			answer[me] = 0;
			goto next
#else
			TOUCH;				/* ring_wake(), perhaps */
			atomic { answer[me] != 0 -> answer[me] = 0 }
#endif
		:: else ->
			atomic {
				TOUCH;
				if
				:: memory[DEAD(worker)] -> goto retry
				:: else -> assert(closed)	/* GYRE_CLOSED */
				fi
			}
		fi;
done:		leave(me);
next:		skip
	od;
	out = false;		/* dead, and fewer states */
	worker = 0;
	call = 0
}

inline give(who, what)
{
	TOUCH;
	assert(waits[who] && answer[who] == 0);
	waits[who] = false;
	answer[who] = what
}

/* What a dying worker has taken; the kernel may take its time. */
inline answer_taken(what)
{
	atomic {
		if
		:: taken[0] -> taken[0] = false; give(0, what)
		:: else
		fi
	}
	atomic {
		if
		:: taken[1] -> taken[1] = false; give(1, what)
		:: else
		fi
	}
}

inline take()
{
	TOUCH;
	taken[0] = taken[0] || PUSHED(me, 0);
	taken[1] = taken[1] || PUSHED(me, 1);
	PUSHED(me, 0) = false;
	PUSHED(me, 1) = false
}

active [2] proctype worker()
{
	byte me = _pid - WORDS - 2;
	bool taken[2], seal_seen;

	do
	:: atomic { (PUSHED(me, 0) || PUSHED(me, 1)) -> take(); seal_seen = sealed[me] }
#ifdef END_LEAVES
	:: !seal_seen && sealed[me] -> seal_seen = true
#else
	:: atomic { !seal_seen && sealed[me] -> take(); seal_seen = true }
#endif
	:: atomic { taken[0] -> taken[0] = false; give(0, OK) }
	:: atomic { taken[1] -> taken[1] = false; give(1, OK) }
	:: seal_seen && !taken[0] && !taken[1] -> break		/* end() */
	:: TOUCH; goto die
	od;
	goto end_inbox;

die:
#ifndef DEAD_LATE
	STORE(0, DEAD(me), 1);
#endif
	if			/* gyre__inbox_seal(): nothing is swapped where the seal is set */
	:: sealed[me]
	:: atomic { CELL_IS_EMPTY(0, DEAD(me)) -> sealed[me] = true }
	fi;
#ifdef DEAD_LATE
	STORE(0, DEAD(me), 1);
#endif
#ifndef DEATH_LEAVES
	atomic { CELL_IS_EMPTY(0, DEAD(me)) -> take() }
#endif
	answer_taken(WORKER_DEAD);
end_inbox:
	atomic {
		CELL_IS_EMPTY(0, DEAD(me)) ->
		TOUCH;
		sealed[me] = true;
		assert(!PUSHED(me, 0) && !PUSHED(me, 1))
	}
	atomic { TOUCH; exited[me] = true; seal_seen = false }
}

inline close_once()
{
	atomic { TOUCH; closed = true }
	atomic { !lock -> TOUCH; lock = true }
	if
	:: !stopped ->
		atomic { TOUCH; sealed[0] = true }
		atomic { TOUCH; sealed[1] = true }
#ifndef NO_JOIN
		exited[0] && exited[1];
#endif
		atomic { TOUCH; stopped = true }
	:: else
	fi;
	atomic { TOUCH; lock = false }
}

active proctype closer()
{
#ifndef CLOSE_OUTSIDE
	note_inside(CLOSER);
#endif
	closer_came = true;
	close_once();
	leave(CLOSER)
}

/*
 * Each record is waited for in turn. The code looks at all of them again until it
 * finds none inside in one pass; such a pass is one of the ways this can go.
 */
inline threads_leave()
{
#ifndef NO_SCAN
	memory[INSIDE(0)] == 0;
	memory[INSIDE(1)] == 0;
	memory[INSIDE(CLOSER)] == 0
#else
	skip
#endif
}

active proctype freer()
{
	closer_came;		/* the contract: gyre_free() is the last to be called with it */
#ifdef SCAN_FIRST
	threads_leave();
	close_once();
#else
	close_once();
	threads_leave();
#endif
	freed = true
}
