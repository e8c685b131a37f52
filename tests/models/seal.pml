/* SPDX-License-Identifier: MIT */
/*
 * Push against seal against the owner's end: a caller makes calls, somebody
 * sends control messages, somebody closes, and the ring winds down or dies, at
 * any moment, before the seal or after.
 *
 * Models, in ring/inbox.c: gyre__inbox_seal(), gyre__inbox_sleep(),
 * gyre__inbox_end(); in ring/inbox.h: gyre__inbox_push() and
 * gyre__inbox_push_control(); in ring/ring.c: gyre__ring_send(),
 * gyre__ring_control(), gyre__ring_seal(); in ring/turn.c: gyre__ring_take_inbox(),
 * gyre__ring_run_held(), wind_down(), end(), go_to_sleep(); in ring/death.c:
 * gyre__ring_die().
 *
 * Promised: each call and each control is either refused or answered, once;
 * no call is refused before somebody has sealed, no control before the ring has
 * ended, and who is refused may read how it ended; who sees the seal sees the
 * drain time; a seal that was not seen is never slept over: the owner ends.
 *
 * Left out: the stack of batches (inbox.pml; the word is a set of bits here,
 * and a compare-and-swap loop is one step), cancels at the end of the drain (the
 * kernel completes ops when it likes, which is all that they could achieve).
 * Not checked: that the end comes after so many turns. is_ending() in ring/turn.c
 * sees to it that a wake-up read is not armed again once the last was cancelled.
 *
 * Each of these breaks it, and must be found:
 * -DSEAL_SLEPT_OVER	going to sleep takes a seal that was not seen for one that was
 * -DSEAL_NO_WAKE	the seal leaves a sleeper asleep
 * -DPUSH_UNSEALS	a control's push drops the SEALED bit
 * -DPUSH_LOOKS_ONCE	the push looks for the seal first, and then pushes whatever it finds
 * -DEND_IN_TWO_STEPS	the end takes what is left, and then stores ENDED
 * -DDRAIN_LATE		the drain time is stored after the seal
 * -DPHASE_LATE		the phase is stored after the end
 * -DDIE_BEFORE_SEAL	the dying owner answers what waits, and then seals
 * -DCALLS_FORGOTTEN	the end does not wait for what flies
 */
#define THREADS	2	/* the closer 0, the owner 1 */
#define WORDS	2
#define CLOSER	0
#define OWNER	1
#define DRAIN	0
#define PHASE	1
#define CALLS	2
#define CONTROLS 2
#define CANCELS_MAX 2	/* of the wake-up read under way: instead of GYRE__RING_RESERVED */
#include "memory.pml"

/* The inbox word, in its parts. */
bool call, control[CONTROLS], asleep, sealed, ended;

bool somebody_seals;			/* ghost */
bool call_answered[CALLS], call_refused[CALLS], control_answered[CONTROLS], control_refused[CONTROLS];
byte call_now;				/* the one that the caller is in */

byte eventfd;
bool read_submitted, read_dies, read_done, call_flies, call_done;
byte cancels_run, cancels_done;		/* the kernel's side of the wake-up read's cancels */

inline answer_call()
{
	assert(!call_answered[call_now] && !call_refused[call_now]);
	call_answered[call_now] = true
}

inline answer_control(n)
{
	assert(!control_answered[n] && !control_refused[n]);
	control_answered[n] = true
}

active proctype caller()
{
	byte n;
	bool wakes, looked;

	do
	:: n == CALLS -> break
	:: else ->
		wakes = false;
#ifdef PUSH_LOOKS_ONCE
		looked = (sealed || ended);
#endif
		atomic {			/* gyre__inbox_push() */
			call_now = n;
#ifdef PUSH_LOOKS_ONCE
			if
			:: looked -> call_refused[n] = true
			:: else -> call = true; wakes = asleep; asleep = false
			fi
#else
			if
			:: sealed || ended -> call_refused[n] = true; assert(somebody_seals)
			:: else -> call = true; wakes = asleep; asleep = false
			fi
#endif
		}
		if
		:: wakes -> eventfd++
		:: else
		fi;
		call_answered[n] || call_refused[n];
		n++
	od
}

active [CONTROLS] proctype controller()
{
	byte n = _pid - THREADS * WORDS - 1;
	bool wakes;

	atomic {				/* gyre__inbox_push_control() */
		if
		:: ended ->
			control_refused[n] = true;
			assert(memory[PHASE])	/* gyre_dump() reads it */
		:: else ->
			control[n] = true;
			wakes = asleep;
			asleep = false;
#ifdef PUSH_UNSEALS
			sealed = false
#endif
		fi
	}
	if
	:: wakes -> eventfd++
	:: else
	fi;
	control_answered[n] || control_refused[n]
}

active proctype closer()
{
	bool wakes;

#ifndef DRAIN_LATE
	STORE(CLOSER, DRAIN, 1);
#endif
	atomic {				/* gyre__inbox_seal() */
		RELEASED(CLOSER) ->
		somebody_seals = true;
		if
		:: sealed || ended
		:: else ->
			wakes = asleep;
#ifdef SEAL_NO_WAKE
			wakes = false;
#endif
			asleep = false;
			sealed = true
		fi
	}
#ifdef DRAIN_LATE
	STORE(CLOSER, DRAIN, 1);
#endif
	if
	:: wakes -> eventfd++
	:: else
	fi
}

#define SOMETHING_CAME	(call || control[0] || control[1] || asleep || sealed != seal_seen)

#ifdef CALLS_FORGOTTEN
#define NOTHING_IS_LEFT	(!held[0] && !held[1])
#else
#define NOTHING_IS_LEFT	(!held[0] && !held[1] && !call_flies && !call_done)
#endif

inline take()
{
	atomic {
		RELEASED(OWNER) ->
		got_call = call;
		got[0] = control[0];
		got[1] = control[1];
		call = false;
		control[0] = false;
		control[1] = false;
		asleep = false;
		seal_seen = sealed
	}
}

/* A barrier among the controls may have to wait for what flies. */
inline run_control(n)
{
	if
	:: call_flies || call_done -> held[n] = true
	:: answer_control(n)
	fi
}

inline run_controls()
{
	if
	:: got[0] -> got[0] = false; run_control(0)
	:: else
	fi;
	if
	:: got[1] -> got[1] = false; run_control(1)
	:: else
	fi
}

inline run_held()
{
	if
	:: held[0] && !call_flies && !call_done -> held[0] = false; answer_control(0)
	:: else
	fi;
	if
	:: held[1] && !call_flies && !call_done -> held[1] = false; answer_control(1)
	:: else
	fi
}

/* gyre__inbox_end(), and the controls that it finds. No call can be among them. */
inline end_inbox()
{
#ifndef PHASE_LATE
	STORE(OWNER, PHASE, 1);
#endif
#ifdef END_IN_TWO_STEPS
	take();
	atomic { RELEASED(OWNER) -> sealed = true; ended = true; asleep = false };
#else
	atomic {
		RELEASED(OWNER) ->
		got_call = call;
		got[0] = control[0];
		got[1] = control[1];
		call = false;
		control[0] = false;
		control[1] = false;
		asleep = false;
		sealed = true;
		ended = true
	}
#endif
#ifdef PHASE_LATE
	STORE(OWNER, PHASE, 1);
#endif
	assert(!got_call);
	if
	:: got[0] -> got[0] = false; answer_control(0)
	:: else
	fi;
	if
	:: got[1] -> got[1] = false; answer_control(1)
	:: else
	fi
}

active proctype owner()
{
	bool did, got_call, got[CONTROLS], held[CONTROLS], seal_seen, draining;
	bool armed, filled, asked, sleeps;
	byte cancels;

	do
	:: did = false;
	   if
	   :: SOMETHING_CAME ->
		take();
		did = true;
		run_controls();
		if
		:: got_call -> got_call = false; call_flies = true
		:: else
		fi
	   :: else
	   fi;
	   if
	   :: filled -> read_submitted = true; filled = false
	   :: else
	   fi;
	   if
	   :: call_done -> call_done = false; answer_call(); did = true
	   :: else
	   fi;
	   if
	   :: read_done -> read_done = false; armed = false; asked = false; did = true
	   :: else
	   fi;
	   if
	   :: cancels_done > 0 ->
		atomic { cancels = cancels - cancels_done; cancels_done = 0; did = true }
	   :: else
	   fi;
	   run_held();
	   if
	   :: goto die		/* the kernel refuses the ring: dying */
	   :: skip
	   fi;
	   if			/* wind_down() */
	   :: seal_seen && !draining ->
		assert(LOAD(OWNER, DRAIN));
		draining = true;
		did = true
	   :: seal_seen && draining && NOTHING_IS_LEFT ->
		if
		:: armed && !asked && cancels < CANCELS_MAX ->
			atomic {	/* it runs in the submission; which CQE comes first is open */
				asked = true;
				did = true;
				cancels++;
				cancels_run++;
				read_dies = read_dies || read_submitted;
				read_submitted = false
			}
		:: armed && (asked || cancels == CANCELS_MAX)
		:: !armed && cancels > 0
		:: !armed && cancels == 0 -> goto ends
		fi
	   :: else
	   fi;
	   if
	   :: did -> goto again
	   :: else
	   fi;
	   if
	   :: !armed -> armed = true; filled = true
	   :: else
	   fi;
	   atomic {			/* gyre__inbox_sleep() */
		RELEASED(OWNER) ->
#ifdef SEAL_SLEPT_OVER
		sleeps = !(call || control[0] || control[1] || asleep);
#else
		sleeps = !SOMETHING_CAME;
#endif
		if
		:: sleeps -> asleep = true
		:: else
		fi
	   }
	   if
	   :: !sleeps -> goto again
	   :: else
	   fi;
	   if
	   :: filled -> read_submitted = true; filled = false
	   :: else
	   fi;
	   (read_done || cancels_done > 0 || call_done);	/* in the kernel, and nowhere to end */
again:	   skip
	od;

ends:	end_inbox();
	assert(!held[0] && !held[1]);
	goto out;

die:	somebody_seals = true;
#ifdef DIE_BEFORE_SEAL
	take();
	run_controls();
	if
	:: got_call -> got_call = false; answer_call()
	:: else
	fi;
#endif
	atomic { RELEASED(OWNER) -> sealed = true; asleep = false }
#ifndef DIE_BEFORE_SEAL
	take();
	run_controls();
	if
	:: got_call -> got_call = false; answer_call()
	:: else
	fi;
#endif
	atomic {				/* wait_for_kernel() and bury_all() */
		if
		:: call_flies || call_done ->
			call_flies = false;
			call_done = false;
			answer_call()
		:: else
		fi;
		read_submitted = false;
		read_dies = false;
		cancels_run = 0
	}
	end_inbox();
	run_held();
out:	assert(!held[0] && !held[1])
}

active proctype kernel()
{
end:	do
	:: atomic { call_flies -> call_flies = false; call_done = true }
	:: atomic {
		read_submitted && eventfd > 0 ->
			eventfd = 0;
			read_submitted = false;
			read_done = true
	   }
	:: atomic { read_dies -> read_dies = false; read_done = true }
	:: atomic { cancels_run > 0 -> cancels_run--; cancels_done++ }
	od
}
