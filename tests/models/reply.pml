/* SPDX-License-Identifier: MIT */
/*
 * A thread's reply against its going to sleep: several calls in a row, to two
 * workers in turn or refused, and then the thread ends and frees its record.
 *
 * Models, in ring/reply.c: reply_give(), reply_is_there(), reply_sleep(),
 * gyre__reply_wait(); in ring/reply.h: gyre__reply_expect(),
 * gyre__reply_forget(); in ring/turn.c: gyre__ring_wake_later(),
 * gyre__ring_flush_wakes(); in lib/bridge.c: send_and_wait() and take_one_verdict();
 * in lib/thread.c: thread_exit().
 *
 * Promised: each call returns, with its own result; the reply is there when the
 * sleeper wakes; no wake is left over in the eventfd; from the reply on the
 * worker touches neither record nor, but for the one sleeper, its eventfd.
 *
 * Left out: how long to spin (a caller that spins waits for the word, one that
 * does not goes to sleep, at any moment), the inbox (a push is one step with
 * release order), the way out when the host has closed the eventfd.
 *
 * Each of these breaks it, and must be found:
 * -DNO_RELEASE		the reply does not publish the result
 * -DNO_ACQUIRE		the caller's look does not acquire it
 * -DGIVE_FIRST		the reply is given, and then the result written
 * -DSLEEP_BLIND	ASLEEP is stored without a look whether the reply has come
 * -DSLEEP_KEPT		ASLEEP stays after the wake-up
 * -DANY_REPLY		any reply is taken for the expected one
 * -DNO_FORGET		a refused push leaves the reply expected
 * -DPUSH_RELAXED	the next push does not wait for the store that clears ASLEEP
 * -DWAKE_FIRST		the worker looks for ASLEEP before it gives the reply
 * -DWAKE_ALL		the worker writes the eventfd of callers that do not sleep
 */
#define THREADS	3	/* caller 0, workers 1 and 2 */
#define WORDS	2
#define CALLER	0
#define WORD	0
#define RESULT	1
#define CALLS	5
#include "memory.pml"

#ifdef PUSH_RELAXED
#define PUSH_RELEASED	true
#else
#define PUSH_RELEASED	RELEASED(CALLER)
#endif

byte inbox[3];		/* of each worker: the call that was pushed */
byte eventfd;
bool ended;		/* the record is freed, its eventfd closed */

inline acquire()
{
#ifndef NO_ACQUIRE
	seen = memory[RESULT]
#else
	skip
#endif
}

#ifdef ANY_REPLY
#define IS_THERE	(LOAD(CALLER, WORD) >= 2)
#else
#define IS_THERE	(LOAD(CALLER, WORD) / 2 == expected)
#endif

active proctype caller()
{
	byte call, expected, worker, seen, result;
	bool refused, asleep;

	do
	:: call == CALLS -> break
	:: else ->
		call++;
		expected++;
		refused = false;
		asleep = false;
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
		:: atomic { IS_THERE -> acquire() }
		:: atomic {
			RELEASED(CALLER) ->
#ifdef SLEEP_BLIND
			if
			:: true ->
#else
			if
			:: memory[WORD] != 2 * (expected - 1) -> acquire()
			:: else ->
#endif
				memory[WORD] = 2 * (expected - 1) + 1;
				asleep = true
			fi
		   }
		   if
		   :: asleep ->
			atomic { eventfd > 0 -> eventfd = 0 }
			atomic { assert(IS_THERE); acquire() }
#ifndef SLEEP_KEPT
			STORE(CALLER, WORD, 2 * expected)
#endif
		   :: else
		   fi
		fi;
		if
		:: result = LOAD(CALLER, RESULT)
		:: waiting[CELL(CALLER, RESULT)] == NOTHING -> result = seen
		fi;
		assert(result == call);
		STORE(CALLER, RESULT, 0);
		seen = 0;
next:		skip
	od;
	assert(eventfd == 0);
	atomic { RELEASED(CALLER) -> ended = true }
}

active [2] proctype worker()
{
	byte me = _pid - THREADS * WORDS;
	byte call, eventfds;
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
#ifdef WAKE_ALL
	   wake = true;
#endif
	   if				/* at the end of the turn */
	   :: wake -> atomic { assert(!ended); eventfd++ }
	   :: else
	   fi
	od
}
