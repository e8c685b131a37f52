/* SPDX-License-Identifier: MIT */
/*
 * A job's handle between who has it and the worker on which the job runs: the
 * start, waits that time out, cancels, the end, the wake-up of who waits, and who
 * frees the handle.
 *
 * Models, in workers/job.c: tell(), gyre__job_answer(), gyre__job_await(),
 * gyre__job_withdraw(), finish(); in workers/job.h: gyre__job_has_ended(); in
 * lib/jobs.c: spawned_unref(), control_start(), control_cancel(),
 * run_from_thread(), cancel_spawned(), wait_in_thread(), wait_in_task(),
 * interrupt_wait(), withdraw_wait() and gyre_job_detach().
 *
 * Promised: whoever waits is told once, and only then, with the result of this
 * job; a cancel that was sent gets through; a handle is freed once, by the last
 * who has it, and nobody touches it, or who has waited for it, after that.
 *
 * Left out: what the job does (it ends at any moment, or only once it is
 * cancelled), how who waits sleeps (reply.pml; a task parks, and is woken by a
 * control of its own), the inbox (a push is one step with release order) and
 * who else may wait for the job: nobody.
 *
 * Each of these breaks it, and must be found:
 * -DANSWER_LATE	the word says that the job has ended, and then the result is written
 * -DNO_RELEASE		the end does not publish the result
 * -DNO_ACQUIRE		the look at the word does not acquire it
 * -DAWAIT_BLIND	the waiter is stored without a look whether the job has ended
 * -DAWAIT_RELAXED	the await does not publish the waiter
 * -DEND_BLIND		the end looks for a waiter, and then stores, in two steps
 * -DWITHDRAW_BLIND	at the time-out the word is stored without a look who is there
 * -DWITHDRAW_NOT	at the time-out the waiter is left where it is
 * -DNO_CANCEL_REF	a cancel on its way has no reference
 * -DCANCEL_KEPT	a cancel that is refused keeps its reference
 * -DCANCEL_TWICE	a second cancel is sent although the first is on its way
 * -DCANCEL_ONCE_ENDED	a cancel finds the job although it has ended
 * -DUNREF_FIRST	the job gives up its reference before it tells of its end
 * -DLOOK_AFTER		who tells looks at the handle once more, after it has told
 */
#define THREADS	2
#define WORDS	3
#define USER	0
#define WORKER	1
#define RESULT	0
#define WAITER	1	/* what the end has to know of who waits */
#define ARG	2
#define WAITS	3	/* times */
#include "memory.pml"

#define RUNS	0
#define ENDED	1
#define AWAITED	2

byte word = RUNS;
byte refs = 2;
bool freed, on_stack, stubborn;
bool start_sent, start_taken, cancel_sent, inbox_ended;
bool job, job_set;	/* it lives; and the handle's pointer to it */
bool cancelled, told, waiter_lives;

inline touch()
{
	assert(!freed)
}

inline unref(me)
{
	atomic {
		RELEASED(me) ->
		touch();
		assert(refs > 0);
		refs--;
		if
		:: refs == 0 -> freed = true
		:: else
		fi
	}
}

/* All that a load of the word with acquire order makes sure of. */
inline acquire()
{
#ifndef NO_ACQUIRE
	seen = memory[RESULT]
#else
	skip
#endif
}

inline cancel()
{
	atomic { touch(); ended = (word == ENDED) }
	if
#ifndef CANCEL_TWICE
	:: ended || asked -> skip
#else
	:: ended -> skip
#endif
	:: else ->
		asked = true;
#ifndef NO_CANCEL_REF
		atomic { touch(); refs++ }
#endif
		atomic {
			RELEASED(USER) ->
			if
			:: inbox_ended -> refused = true
			:: else -> touch(); assert(!cancel_sent); cancel_sent = true
			fi
		}
		if
		:: refused ->
			refused = false;
#if !defined(CANCEL_KEPT) && !defined(NO_CANCEL_REF)
			unref(USER)
#endif
		:: else
		fi
	fi
}

inline await()
{
	waiter_lives = true;
	told = false;
	STORE(USER, WAITER, 1);
	atomic {
#ifndef AWAIT_RELAXED
		RELEASED(USER) ->
#endif
		touch();
#ifdef AWAIT_BLIND
		word = AWAITED
#else
		if
		:: word == RUNS -> word = AWAITED
		:: else -> ended = true; acquire()
		fi
#endif
	}
}

/* The time is over: is somebody about to tell? */
inline withdraw()
{
	atomic {
		touch();
#ifdef WITHDRAW_BLIND
		word = RUNS;
		withdrawn = true
#else
#ifdef WITHDRAW_NOT
		withdrawn = true
#else
		if
		:: word == AWAITED -> word = RUNS; withdrawn = true
		:: else
		fi
#endif
#endif
	}
}

/* With a time-out where once is false. */
inline wait_for_end(once)
{
	await();
	if
	:: ended
	:: else ->
		if
		:: atomic { told -> ended = true; acquire() }
		:: !once ->
			withdraw();
			if
			:: withdrawn -> withdrawn = false
			:: else -> atomic { told -> ended = true; acquire() }
			fi
		fi
	fi;
	atomic { RELEASED(USER) -> waiter_lives = false }
}

inline take_result()
{
	if
	:: result = LOAD(USER, RESULT)
	:: waiting[CELL(USER, RESULT)] == NOTHING -> result = seen
	fi;
	assert(result == 1)
}

active proctype user()
{
	byte seen, result, waits;
	bool ended, asked, refused, withdrawn;

	if
	:: on_stack = true
	:: stubborn = true
	:: skip
	fi;
	STORE(USER, ARG, 1);
	if
	:: on_stack ->
		waiter_lives = true;
		STORE(USER, WAITER, 1);
		word = AWAITED
	:: else
	fi;
	atomic { RELEASED(USER) -> start_sent = true }
	if
	:: on_stack ->
		atomic { told -> acquire() }
		take_result();
		atomic { RELEASED(USER) -> waiter_lives = false; freed = true }
		goto done
	:: else
	fi;
	do
	:: waits < WAITS ->
		waits++;
		if
		:: cancel()
		:: wait_for_end(false)
		fi;
		ended = ended && !waiter_lives && (word == ENDED);
		if
		:: ended -> break
		:: else
		fi
	:: waits > 0 && !stubborn -> goto detach
	:: waits == WAITS ->
		ended = false;
		cancel();
		ended = false;
		wait_for_end(true);
		break
	od;
	atomic { touch(); assert(word == ENDED); acquire() }
	take_result();
detach:	unref(USER);
done:	skip
}

inline tell()
{
#ifdef UNREF_FIRST
	if
	:: !on_stack -> unref(WORKER)
	:: else
	fi;
#endif
#ifdef END_BLIND
	atomic { touch(); old = word }
	atomic { RELEASED(WORKER) -> touch(); word = ENDED }
#else
	atomic {
#ifndef NO_RELEASE
		RELEASED(WORKER) ->
#endif
		touch();
		old = word;
		word = ENDED
	}
#endif
#ifdef ANSWER_LATE
	STORE(WORKER, RESULT, 1);
#endif
	if
	:: old == AWAITED ->
		atomic {
			assert(waiter_lives && memory[WAITER] == 1);
#ifndef NO_RELEASE
			RELEASED(WORKER) ->
#endif
			assert(waiter_lives && !told);
			told = true
		}
	:: else
	fi;
#ifdef LOOK_AFTER
	touch();
#endif
#ifndef UNREF_FIRST
	if
	:: !on_stack -> unref(WORKER)
	:: else
	fi
#endif
}

active proctype worker()
{
	byte old;
	bool take_cancel;

	do
	:: atomic { start_sent && !start_taken -> start_taken = true }
	   touch();
	   assert(memory[ARG] == 1);
	   job = true;
	   job_set = true
	:: start_taken && cancel_sent ->
	   atomic { touch(); cancel_sent = false; take_cancel = job_set }
	   if
	   :: take_cancel -> assert(job); cancelled = true
	   :: else
	   fi;
	   unref(WORKER)
	:: job && (!stubborn || cancelled) ->
#ifndef ANSWER_LATE
	   STORE(WORKER, RESULT, 1);
#endif
#ifndef CANCEL_ONCE_ENDED
	   job_set = false;
#endif
	   job = false;
	   tell()
	:: atomic { start_taken && !job && word == ENDED && !cancel_sent -> inbox_ended = true; break }
	od
}

/* Who has read the result has had the handle's last word. */
active proctype at_the_end()
{
end:	atomic { timeout -> assert(freed && (on_stack || refs == 0)) }
}
