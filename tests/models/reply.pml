/* SPDX-License-Identifier: MIT */
/*
 * A thread's reply against its going to sleep: several calls in a row, to two
 * workers in turn or refused, and then the thread ends and frees its record.
 * Another thread has the same seat at the same bell, and is rung for, too.
 *
 * Models, in ring/reply.c: reply_give(), reply_is_there(), reply_sleep_until(),
 * gyre__reply_wait(), gyre__reply_await_until(); in ring/bell.h: gyre__bell_look();
 * in ring/bell.c: gyre__bell_wait(), ring_bell(); in ring/reply.h:
 * gyre__reply_expect(), gyre__reply_forget(); in ring/turn.c:
 * gyre__ring_wake_later(), gyre__ring_flush_wakes(); in lib/bridge.c:
 * send_and_wait() and take_one_verdict(); in lib/thread.c: thread_exit().
 *
 * The kernel compares the bell with what was seen and lets the caller sleep in
 * one step, as a futex does; to raise the bell and to wake up are two steps.
 *
 * Promised: each call returns, with its own result; from the reply on the worker
 * touches nothing of the caller's, though it may ring for him when he has gone.
 *
 * Left out: how long to spin (a caller that spins waits for the word, one that
 * does not goes to sleep, at any moment), the inbox (a push is one step with
 * release order), the polls where the kernel refuses to let us sleep, the other
 * bells, and that a bell's number comes round.
 *
 * Each of these breaks it, and must be found:
 * -DNO_RELEASE		the reply does not publish the result
 * -DNO_ACQUIRE		the caller's look does not acquire it
 * -DGIVE_FIRST		the reply is given, and then the result written
 * -DSLEEP_BLIND	ASLEEP is stored without a look whether the reply has come
 * -DSLEEP_KEPT		ASLEEP stays after the wake-up
 * -DTIME_KEPT		ASLEEP stays after a sleep whose time is over
 * -DANY_REPLY		any reply is taken for the expected one
 * -DNO_FORGET		a refused push leaves the reply expected
 * -DPUSH_RELAXED	the next push does not wait for the store that clears ASLEEP
 * -DWAKE_FIRST		the worker looks for ASLEEP before it gives the reply
 * -DNO_RAISE		sleepers are woken up, but the bell is not raised
 * -DRAISE_LATE		the bell is raised after the wake-up
 * -DLOOK_LATE		the bell is looked at after the reply was looked for
 * -DWOKEN_ENOUGH	who is woken up does not look whether his reply is there
 * -DSEAT_LATE		the worker reads the caller's seat when it rings
 */
#define THREADS	3	/* caller 0, workers 1 and 2 */
#define WORDS	2
#define CALLER	0
#define WORD	0
#define RESULT	1
#define CALLS	4
#define RINGS	2	/* for the other one of the seat */
#include "memory.pml"

#ifdef PUSH_RELAXED
#define PUSH_RELEASED	true
#else
#define PUSH_RELEASED	RELEASED(CALLER)
#endif

byte inbox[3];		/* of each worker: the call that was pushed */
byte bell;		/* changed by read-modify-writes alone */
bool sleeping;		/* the caller, in the kernel, until somebody wakes its seat */
bool ended;		/* the record is freed */

inline acquire()
{
#ifndef NO_ACQUIRE
	seen = memory[RESULT]
#else
	skip
#endif
}

/* ring_bell() */
inline ring()
{
#ifdef RAISE_LATE
	sleeping = false;
#endif
#ifndef NO_RAISE
	bell++;
#endif
#ifndef RAISE_LATE
	sleeping = false
#endif
}

#ifdef ANY_REPLY
#define IS_THERE	(LOAD(CALLER, WORD) >= 2)
#else
#define IS_THERE	(LOAD(CALLER, WORD) / 2 == expected)
#endif
#define AWAKE		(2 * (expected - 1))

active proctype caller()
{
	byte call, expected, worker, seen, result, look;
	bool refused, timed, over;

	do
	:: call == CALLS -> break
	:: else ->
		call++;
		expected++;
		refused = false;
		if
		:: worker = 1
		:: worker = 2
		:: refused = true	/* sealed */
		fi;
		if
		:: refused ->
#ifndef NO_FORGET
			expected--;
#endif
			goto next
		:: else
		fi;
		atomic { PUSH_RELEASED -> inbox[worker] = call }
		if
		:: timed = true		/* the first sleep has a deadline */
		:: timed = false
		fi;
		if
		:: atomic { IS_THERE -> acquire() }
		   goto there
		:: true			/* has enough of spinning */
		fi;
again:		look = bell;
		atomic {
			RELEASED(CALLER) ->
#ifdef SLEEP_BLIND
			if
			:: true ->
#else
			if
			:: memory[WORD] != AWAKE -> acquire(); goto there
			:: else ->
#endif
				memory[WORD] = AWAKE + 1
			fi
		}
		do
		:: atomic { IS_THERE -> acquire() }
		   break
		:: atomic { else }
#ifdef LOOK_LATE
		   look = bell;
#endif
		   over = false;
		   atomic {
			if
			:: bell == look -> sleeping = true
			:: else
			fi
		   }
		   if
		   :: !sleeping
		   :: atomic { timed -> sleeping = false; timed = false; over = true }
		   fi;
		   if
		   :: over ->
#ifdef TIME_KEPT
			goto again
#else
			atomic {
				RELEASED(CALLER) ->
				if
				:: memory[WORD] == AWAKE + 1 -> memory[WORD] = AWAKE; goto again
				:: else
				fi
			}
#endif
		   :: else
		   fi;
#ifdef WOKEN_ENOUGH
		   break;
#endif
		   look = bell
		od;
#ifndef SLEEP_KEPT
		STORE(CALLER, WORD, 2 * expected);
#endif
there:		if
		:: result = LOAD(CALLER, RESULT)
		:: waiting[CELL(CALLER, RESULT)] == NOTHING -> result = seen
		fi;
		assert(result == call);
		STORE(CALLER, RESULT, 0);
		seen = 0;
next:		skip
	od;
	assert(!sleeping);
	atomic { RELEASED(CALLER) -> ended = true }
}

active [2] proctype worker()
{
	byte me = _pid - THREADS * WORDS;
	byte call;
	bool wake;

end:	do
	:: atomic { inbox[me] != 0 -> call = inbox[me]; inbox[me] = 0 }
	   assert(!ended);
#ifndef GIVE_FIRST
	   STORE(me, RESULT, call);
#endif
#ifdef WAKE_FIRST
	   wake = memory[WORD] % 2;
	   atomic { RELEASED(me) -> assert(!ended); memory[WORD] = memory[WORD] + 2 }
#else
	   atomic {
#ifndef NO_RELEASE
		RELEASED(me) ->
#endif
		assert(!ended);
		wake = memory[WORD] % 2;
		memory[WORD] = memory[WORD] + 2
	   }
#endif
#ifdef GIVE_FIRST
	   STORE(me, RESULT, call);
#endif
	   if				/* at the end of the turn */
	   :: wake ->
#ifdef SEAT_LATE
		assert(!ended);
#endif
		ring()
	   :: else
	   fi
	od
}

/* Rings for who has the same seat: the caller wakes up for nothing. */
active proctype stranger()
{
	byte rings;

	do
	:: rings < RINGS -> rings++; ring()
	:: break
	od
}
