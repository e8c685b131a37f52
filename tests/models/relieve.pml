/* SPDX-License-Identifier: MIT */
/*
 * Helpers that begin to wait for who asks for a helper, while what has been asked
 * for is queued behind them; against helpers that end, and a close.
 *
 * Models, in workers/offload.c: gyre__offload_push(), gyre__offload_relieve(),
 * helper_start(), helper_work(), helper_leave(), gyre__offload_close(); in
 * lib/offload.c: count_waiting(), relieve(), refuse_left(), gyre__helper_waits(),
 * gyre__helper_goes_on(), offload().
 *
 * Promised: who asks is answered once, with the work done or refused, whatever the
 * helpers wait for; the close returns; and what is refused could be left to nobody:
 * all helpers that live wait, and no other could be started.
 *
 * Left out: how an idle helper is told (see offload.pml), the reserve, and circles
 * that lib/circle.c finds: here a function waits only for who has a higher number.
 * How many wait is changed without the lock, one at a time; what is under the lock
 * is one step, since nobody looks at it without the lock.
 *
 * Each of these breaks it, and must be found:
 * -DNO_RELIEVE		who begins to wait leaves what is queued to itself
 * -DFULL_IS_FINE	the same where there may be no more helpers
 * -DCLOSED_IS_FINE	the same where the pool is closed
 * -DCOUNT_LATE		who begins to wait looks into the queue before it is counted
 * -DREAD_EARLY		a push counts those that wait before it has the lock
 * -DOFF_BY_ONE		what is queued is refused only where more wait than live
 * -DFIRST_ONLY		of what is queued only the first is refused
 * -DSTARTS_NOBODY	who begins to wait has it refused, and starts no other helper
 * -DKEPT		who has waited stays counted
 * -DNESTED_FIRST	a helper asks for another one before it is counted, and looks no more
 * -DENDS_LATE		a helper finds nothing queued, lets go of the lock, and then ends
 */
#define ASKERS		3
#define NESTED		ASKERS	/* the work that a function asks for */
#define WORKS		4
#define HELPERS		2	/* at a time */
#define THREADS		5	/* in all: each push or relieve starts one at most */
#define FAILURES	2	/* of starts */

mtype = { UNASKED, QUEUED, RUNS, DONE, REFUSED };

/* Under the lock. */
mtype work[WORKS] = UNASKED;
byte queue[WORKS], first, last;
byte live, started, failures;
bool closed, failed;		/* failed: the start that was tried in this hold of the lock */
byte idle, told;		/* helpers that sleep, and those that are about to wake up */

byte waiting;			/* changed without the lock */
bool ended[ASKERS];		/* has got its answer */
byte really;			/* helpers that do wait */
bool nested_asked;

#define EMPTY	(first == last)

/* Under the lock. ok: somebody new comes. */
inline start(ok)
{
	if
	:: live < HELPERS && started < THREADS ->
		live++;
		started++;
		run helper();
		ok = true
	:: live < HELPERS && (failures < FAILURES || started == THREADS) ->
		failures = (failures < FAILURES -> failures + 1 : failures);
		failed = true;
		ok = false
	:: live == HELPERS -> ok = false
	fi
}

/* Nobody else could have come to it. */
inline refuse(nth)
{
	assert(work[nth] != RUNS && work[nth] != DONE && work[nth] != REFUSED);
	assert(live <= really && (closed || failed || live == HELPERS));
	work[nth] = REFUSED
}

#ifdef READ_EARLY
#define WAIT	early
#else
#define WAIT	waiting
#endif

/* work[nth] is REFUSED or QUEUED after it. */
inline push(nth)
{
#ifdef READ_EARLY
	early = waiting;
#endif
	atomic {
		if
		:: closed -> work[nth] = REFUSED
		:: else ->
			if
			:: idle > 0 -> idle--; told++; ok = true
			:: else -> start(ok)
			fi;
			if
			:: ok || live > WAIT ->
				assert(work[nth] == UNASKED);
				work[nth] = QUEUED;
				queue[last] = nth;
				last++
			:: else -> refuse(nth)
			fi
		fi;
		ok = false;
		failed = false
	}
}

inline count()
{
	atomic { waiting++; really++ }
}

inline uncount()
{
	atomic {
#ifndef KEPT
		waiting--;
#endif
		really--
	}
}

#ifdef NO_RELIEVE
#define NEEDS_RELIEF	false
#else
#ifdef FULL_IS_FINE
#define NEEDS_RELIEF	(!EMPTY && (closed || live < HELPERS))
#else
#ifdef CLOSED_IS_FINE
#define NEEDS_RELIEF	(!EMPTY && !closed)
#else
#define NEEDS_RELIEF	(!EMPTY)
#endif
#endif
#endif

#ifdef OFF_BY_ONE
#define ALL_WAIT	(live < waiting)
#else
#define ALL_WAIT	(live <= waiting)
#endif

inline look_at_queue()
{
	atomic {
		if
		:: NEEDS_RELIEF ->
			if
			:: idle > 0 -> idle--; told++; ok = true
			:: idle == 0 && closed -> ok = false
#ifdef STARTS_NOBODY
			:: idle == 0 && !closed -> ok = false
#else
			:: idle == 0 && !closed -> start(ok)
#endif
			fi;
			if
			:: !ok && ALL_WAIT ->
				do
				:: EMPTY -> break
				:: !EMPTY ->
					refuse(queue[first]);
					first++;
#ifdef FIRST_ONLY
					break
#endif
				od
			:: else
			fi;
			ok = false;
			failed = false
		:: else
		fi
	}
}

inline begin_to_wait()
{
#ifdef COUNT_LATE
	look_at_queue();
	count()
#else
	count();
	look_at_queue()
#endif
}

/* A function on a helper: does nothing, waits for somebody, or asks for another function. */
inline function(nth)
{
	if
	:: true
	:: nth + 1 < ASKERS -> begin_to_wait(); ended[nth + 1]; uncount()
	:: nth + 2 < ASKERS -> begin_to_wait(); ended[nth + 2]; uncount()
	:: atomic { nth != NESTED && !nested_asked -> nested_asked = true };
#ifdef NESTED_FIRST
		push(NESTED);
		count();
#else
		count();
		push(NESTED);
		if
		:: work[NESTED] == QUEUED -> look_at_queue()
		:: else
		fi;
#endif
		work[NESTED] == DONE || work[NESTED] == REFUSED;
		uncount()
	fi
}

proctype helper()
{
	byte mine;
	bool ok;
#ifdef READ_EARLY
	byte early;
#endif

look:	atomic {
		if
		:: !EMPTY ->
			mine = queue[first];
			first++;
			assert(work[mine] == QUEUED);
			work[mine] = RUNS
		:: EMPTY && !closed -> idle++; goto sleep
#ifdef ENDS_LATE
		:: EMPTY -> goto leave
#else
		:: EMPTY -> live--; goto gone
#endif
		fi
	}
	function(mine);
	atomic { work[mine] = DONE; goto look }

	/* Until it is told, which takes it off the idle ones, or its time is over. */
sleep:	atomic {
		if
		:: told > 0 -> told--; goto look
		:: !EMPTY && idle > 0 -> idle--; goto look
		:: EMPTY && idle > 0 ->
			idle--;
#ifdef ENDS_LATE
			goto leave
#else
			live--;
			goto gone
#endif
		fi
	}

#ifdef ENDS_LATE
leave:	atomic { live-- }
#endif
gone:	skip
}

active [ASKERS] proctype asker()
{
	bool ok;
#ifdef READ_EARLY
	byte early;
#endif

	push(_pid);
	atomic { work[_pid] == DONE || work[_pid] == REFUSED; ended[_pid] = true }
}

active proctype closer()
{
	atomic { closed = true; told = told + idle; idle = 0 }
	atomic { live == 0; assert(EMPTY) }
}
