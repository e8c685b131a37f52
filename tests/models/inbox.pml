/* SPDX-License-Identifier: MIT */
/*
 * Push and wake: two callers push their one batch each, again and again; the
 * owner takes, answers, sleeps and is woken through its eventfd.
 *
 * Models, in ring/inbox.h: gyre__inbox_push_unless(), gyre__inbox_in_order(),
 * gyre__inbox_take(), gyre__inbox_has(); in ring/inbox.c: gyre__inbox_sleep();
 * in ring/ring.c: gyre__ring_send() and ring_wake(); in ring/turn.c: take_list(),
 * arm_wake(), complete_wake(), go_to_sleep() and the order in gyre__ring_turn().
 *
 * Promised: a batch is taken once, with the contents and the order that were
 * pushed; nobody waits for ever; of those who push onto one sleep, one writes
 * the eventfd.
 *
 * Left out: what happens to ops (an answer is one release addition), spinning
 * (looking once more is all it does), IDLE (a bit that moves with ASLEEP), the
 * seal (seal.pml). The owner's compare-and-swap loop in the take is an exchange.
 * OTHER stands for one completion that has nothing to do with the inbox and
 * wakes the owner while ASLEEP is still set.
 *
 * Each of these breaks it, and must be found:
 * -DNO_RELEASE		the push does not publish the batch's fields
 * -DNO_ACQUIRE		the take does not acquire them
 * -DKEEP_ASLEEP	a push leaves ASLEEP for the next pusher
 * -DSLEEP_BLIND	the owner looks, and then stores ASLEEP, in two steps
 * -DTWO_WORDS		ASLEEP is a word of its own, stored without a fence
 * -DOLD_LOOK		who wakes is decided by a look before the push, not by the word that it replaced
 * -DNO_ARM		the owner sleeps without a read of its eventfd
 * -DNEXT_ONCE		a push that has to try again keeps its first next
 */
#define THREADS	3	/* callers 0 and 1, with the batches 1 and 2; owner 2 */
#define WORDS	5
#define NEXT(b)	((b) - 1)
#define DATA(b)	((b) + 1)
#define FLAG	4	/* TWO_WORDS only */
#define OWNER	2
#define ROUNDS	2
#include "memory.pml"

#ifdef NO_RELEASE
#define PUSH_RELEASED(me) true
#else
#define PUSH_RELEASED(me) RELEASED(me)
#endif

/* The inbox word, in its parts; whoever changes it does so in one step. */
byte newest;
bool asleep;

byte answers[3];	/* of each batch */
byte order_next = 1;	/* ghost: pushes so far, and the place of each batch among them */
byte order[3];

byte eventfd;
bool read_submitted, read_done, other_done, other_used;
bool wake_owed;		/* ghost: an ASLEEP that nobody has consumed */

active [2] proctype caller()
{
	byte me = _pid - THREADS * WORDS;
	byte batch = _pid - THREADS * WORDS + 1;
	byte round, found;
	bool found_asleep, pushed, first_look;

	do
	:: round == ROUNDS -> break
	:: else ->
		round++;
		STORE(me, DATA(batch), round);
#ifdef OLD_LOOK
		first_look = asleep;
#endif
		found = 0;		/* a guess */
		found_asleep = false;
		pushed = false;
		do
		:: pushed -> break
		:: else ->
			if
#ifdef NEXT_ONCE
			:: found == 0 && LOAD(me, NEXT(batch)) != found -> STORE(me, NEXT(batch), found)
#else
			:: LOAD(me, NEXT(batch)) != found -> STORE(me, NEXT(batch), found)
#endif
			:: else
			fi;
			atomic {
				PUSH_RELEASED(me) ->
				if
				:: newest == found && asleep == found_asleep ->
					newest = batch;
					pushed = true;
					order[batch] = order_next;
					order_next++;
					assert(!asleep || wake_owed);
					wake_owed = false;
#ifndef KEEP_ASLEEP
					asleep = false;
#endif
				:: else ->
					found = newest;
					found_asleep = asleep
				fi
			}
		od;
#ifdef TWO_WORDS
		found_asleep = LOAD(me, FLAG);
		if
		:: found_asleep -> memory[FLAG] = 0
		:: else
		fi;
#endif
#ifdef OLD_LOOK
		found_asleep = found_asleep && first_look;
#endif
		if
		:: found_asleep -> eventfd++	/* ring_wake() */
		:: else
		fi;
		answers[batch] == round
	od
}

byte seen[WORDS];	/* what the owner has acquired */

inline see(to, word)
{
	if
	:: to = LOAD(OWNER, word)
	:: waiting[CELL(OWNER, word)] == NOTHING -> to = seen[word]
	fi
}

inline acquire()
{
#ifndef NO_ACQUIRE
	seen[0] = memory[0];
	seen[1] = memory[1];
	seen[2] = memory[2];
	seen[3] = memory[3];
#else
	skip
#endif
}

inline take_list()
{
	atomic {
		RELEASED(OWNER) ->
		batch = newest;
		newest = 0;
		asleep = false;
		acquire()
	}
	oldest = 0;
	do
	:: batch == 0 -> break
	:: else ->
		see(next, NEXT(batch));
		if
		:: next != oldest ->
			STORE(OWNER, NEXT(batch), oldest);
			seen[NEXT(batch)] = oldest
		:: else
		fi;
		oldest = batch;
		batch = next
	od;
	last = 0;
	do
	:: oldest == 0 -> break
	:: else ->
		see(next, NEXT(oldest));
		see(data, DATA(oldest));
		assert(data == answers[oldest] + 1);
		assert(order[oldest] > last);
		last = order[oldest];
		atomic { RELEASED(OWNER) -> answers[oldest]++ }
		oldest = next
	od
}

active proctype owner()
{
	byte batch, oldest, next, data, last;
	bool did, armed, filled, sleeps;

	do
	:: did = false;
	   if
	   :: newest != 0 || asleep || memory[FLAG] ->
		memory[FLAG] = 0;
		take_list();
		did = true
	   :: else
	   fi;
	   if				/* submit */
	   :: filled -> atomic { read_submitted = true; filled = false }
	   :: else
	   fi;
	   if				/* reap, complete_wake() */
	   :: read_done -> atomic { read_done = false; armed = false; did = true }
	   :: else
	   fi;
	   if
	   :: other_done -> other_done = false; did = true
	   :: else
	   fi;
	   if
	   :: did -> goto again
	   :: else
	   fi;
#ifndef NO_ARM
	   if
	   :: !armed -> armed = true; filled = true
	   :: else
	   fi;
#endif
#ifdef TWO_WORDS
	   STORE(OWNER, FLAG, 1);
	   sleeps = (newest == 0);
#else
#ifdef SLEEP_BLIND
	   if
	   :: newest != 0 || asleep -> goto again
	   :: else
	   fi;
	   atomic { newest = 0; asleep = true; wake_owed = true; sleeps = true }
#else
	   atomic {			/* gyre__inbox_sleep() */
		RELEASED(OWNER) ->
		sleeps = (newest == 0 && !asleep);
		if
		:: sleeps -> asleep = true; wake_owed = true
		:: else
		fi
	   }
#endif
#endif
	   if
	   :: !sleeps -> goto again
	   :: else
	   fi;
	   if
	   :: filled -> atomic { read_submitted = true; filled = false }
	   :: else
	   fi;
end:	   (read_done || other_done);	/* in the kernel */
again:	   skip
	od
}

active proctype kernel()
{
end:	do
	:: atomic {
		read_submitted && eventfd > 0 ->
			eventfd = 0;
			read_submitted = false;
			read_done = true
	   }
	:: atomic { !other_used -> other_used = true; other_done = true }
	od
}
