/* SPDX-License-Identifier: MIT */
/*
 * Pushes of work to a pool of helpers, of which idle ones end when their time is
 * over, against a close.
 *
 * Models, in workers/offload.c: gyre__offload_push(), tell_idle(), helper_start(),
 * helper_sleep(), await_eventfd(), helper_work(), helper_leave(), helper_main(),
 * gyre__offload_close().
 *
 * Promised: what was accepted is run once, and before the close returns; nobody
 * waits for ever, though the time of few helpers is ever over; no eventfd is
 * written once its helper has gone, and who finds his written was told; each
 * thread is joined once.
 *
 * Left out: what runs, the order of the queue, a second closer (it waits for the
 * first under a lock of its own), hooks, eventfds that fail. What is under the
 * lock is one step, since nobody looks at it without the lock.
 *
 * Each of these breaks it, and must be found:
 * -DTOLD_GOES		a helper whose time is over goes without a look whether it was told
 * -DNO_LAST_LOOK	a helper that has found the queue empty lets go of the lock, and then sleeps
 * -DTELL_KEPT		a helper that was told stays among the idle ones
 * -DWRITE_LATE		the eventfd is written after the lock was let go
 * -DSLEEPS_FULL	a helper sleeps again in an eventfd that it has not emptied
 * -DNO_WAKE		a push leaves the work to whoever is idle, and wakes nobody
 * -DCLOSE_WAKES_ONE	the close wakes one idle helper only
 * -DCLOSED_EARLY	a push looks before the lock whether the pool is closed
 * -DNO_CHAIN		a helper that ends does not join the one that has ended before
 * -DENDS_LISTED	a helper that ends by itself stays on the list
 * -DUNLISTED		a helper that ends during the close takes itself off the list
 */
#define PUSHERS		2
#define PUSHES		2
#define HELPERS		2	/* at a time */
#define THREADS		4	/* in all: a push starts one at most */
#define NOBODY		THREADS
#define TIMES		2	/* how often somebody's time may be over */

/* Under the lock. */
byte queued, live;
bool closed;
byte idle[HELPERS] = NOBODY;	/* the latest last */
byte idle_count;
bool told[THREADS];
bool listed[THREADS];
byte ended = NOBODY;
byte started, accepted;

byte eventfd[THREADS];
bool shut[THREADS];		/* its eventfd is closed */
bool gone[THREADS];		/* its thread has ended */
bool joined[THREADS];
byte times = TIMES;
byte ran;
byte over;			/* pushers that have ended */

inline join(thread)
{
	atomic { gone[thread] -> assert(!joined[thread]); joined[thread] = true }
}

inline write_eventfd(thread)
{
	assert(!shut[thread]);
	eventfd[thread]++
}

/* Under the lock: the latest is told; who is NOBODY where there is none. */
inline tell(who)
{
	if
	:: idle_count > 0 ->
		who = idle[idle_count - 1];
#ifndef TELL_KEPT
		idle_count--;
		idle[idle_count] = NOBODY;
#endif
		told[who] = true;
#ifndef WRITE_LATE
		write_eventfd(who)
#endif
	:: else -> who = NOBODY
	fi
}

inline go_idle()
{
	assert(idle_count < HELPERS);
	told[me] = false;
	idle[idle_count] = me;
	idle_count++
}

inline go_off_idle()
{
	if
	:: idle_count == 2 && idle[0] == me -> idle[0] = idle[1]
	:: else
	fi;
	idle_count--;
	idle[idle_count] = NOBODY
}

/* Under the lock, as its last. */
inline leave()
{
	live--;
	if
#ifdef UNLISTED
	:: true ->
#else
	:: !closed ->
#endif
#ifndef ENDS_LISTED
		listed[me] = false;
#endif
		before = ended;
		ended = me
#ifndef UNLISTED
	:: else
#endif
	fi
}

proctype helper(byte me)
{
	byte before = NOBODY;
	bool emptied, may_sleep = true;

work:	atomic {
		if
		:: queued > 0 -> queued--
		:: queued == 0 && may_sleep && !closed ->
#ifdef NO_LAST_LOOK
			goto late
#else
			go_idle();
			goto sleep
#endif
		:: else -> leave(); goto end_of_it
		fi
	}
	atomic { ran++; goto work }

#ifdef NO_LAST_LOOK
late:	atomic { go_idle(); goto sleep }
#endif

sleep:	if
	:: atomic { eventfd[me] > 0 -> eventfd[me]--; emptied = true }
	:: atomic { times > 0 -> times--; emptied = false }
	fi;
	atomic {
		assert(!emptied || told[me]);
		if
		:: told[me] ->
#ifdef TOLD_GOES
			if
			:: !emptied -> leave(); goto end_of_it
			:: else
			fi;
#endif
#ifndef SLEEPS_FULL
			may_sleep = may_sleep && emptied;
#endif
			goto work
		:: else ->
			go_off_idle();
			if
			:: queued > 0 -> goto work
			:: else -> leave(); goto end_of_it
			fi
		fi
	}

end_of_it:
	shut[me] = true;
#ifndef NO_CHAIN
	if
	:: before != NOBODY -> join(before)
	:: else
	fi;
#endif
	gone[me] = true
}

/* Under the lock: nobody is idle. */
inline start()
{
	if
	:: live < HELPERS ->
		if
		:: true ->
			listed[started] = true;
			live++;
			run helper(started);
			started++
		:: true		/* it cannot be started */
		fi
	:: else
	fi
}

#ifdef CLOSED_EARLY
#define IS_CLOSED	seen
#else
#define IS_CLOSED	closed
#endif

active [PUSHERS] proctype pusher()
{
	byte pushes, who;
	bool seen;

	do
	:: pushes == PUSHES -> break
	:: else ->
		pushes++;
		who = NOBODY;
		seen = closed;
		atomic {
			if
			:: IS_CLOSED
			:: else ->
#ifdef NO_WAKE
				if
				:: idle_count == 0 -> start()
				:: else
				fi;
#else
				tell(who);
				if
				:: who == NOBODY -> start()
				:: else
				fi;
#endif
				if
				:: live > 0 -> queued++; accepted++
				:: else
				fi
			fi
		}
#ifdef WRITE_LATE
		if
		:: who != NOBODY -> write_eventfd(who)
		:: else
		fi
#endif
	od;
	atomic { over++ }
}

active proctype closer()
{
	byte who, i, last;
	bool patient;

	/* At any time, or when all is done: that has to come. */
	if
	:: patient = false
	:: patient = true
	fi;
	!patient || (over == PUSHERS && ran == accepted);
	atomic {
		closed = true;
		tell(who);
#ifndef CLOSE_WAKES_ONE
		do
		:: who != NOBODY -> tell(who)
		:: else -> break
		od
#endif
	}
	do
	:: i == THREADS -> break
	:: i < THREADS && listed[i] -> join(i); i++
	:: i < THREADS && !listed[i] -> i++
	od;
	if
	:: ended != NOBODY -> last = ended; join(last)
	:: else
	fi;
	assert(ran == accepted);
	over == PUSHERS;
	assert(ran == accepted && live == 0 && idle_count == 0);
	for (i : 0 .. THREADS - 1) {
		assert(joined[i] == (i < started))
	}
}
