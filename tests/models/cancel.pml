/* SPDX-License-Identifier: MIT */
/*
 * Cancels: two callers with an op each, under way twice in a row, and for each
 * a thread that cancels it at any moment; all of them share the owner's poke.
 *
 * Models, in lib/bridge.c: fill_batch() and read_back() (the ticket), send_and_wait(),
 * poke_if_cancelled(), travel_with(), reissue_tickets(), mark_cancelled(),
 * gyre_op_cancel(); in ring/ring.c: gyre__ring_poke(); in ring/turn.c: take_list(),
 * gyre__ring_take_inbox(); in ring/cancel.c: gyre__ring_look_for_cancels(),
 * judge_cancel().
 *
 * Promised: no cancel is lost. Once a ticket was marked, its op ends, though it
 * would never have ended by itself.
 *
 * Ops of the second round end in no other way, if they were marked; all others
 * may end by themselves at any moment. A call may first find its worker dead,
 * and be sent to the other with its tickets made out anew; the dead worker
 * refuses pokes. Left out: sleep and wake (the owner waits for its inbox to have
 * something), what a cancel does in the kernel (an op that the owner finds
 * marked ends), the same values of tickets (marked_in tells which round a mark hit).
 *
 * Each of these breaks it, and must be found:
 * -DNO_SECOND_LOOK	the caller does not look at its tickets behind the push
 * -DLOOK_BEFORE_PUSH	the caller looks at its tickets, and then pushes
 * -DLOOK_THEN_CLEAR	the owner looks at the tickets, and then clears poked
 * -DNO_SECOND_TAKE	the owner clears poked and looks, without another take
 * -DPOKE_THEN_MARK	the canceller pokes, and then marks
 * -DREISSUE_STORES	tickets made out anew lose the mark
 * -DPOKE_REMEMBERED	poked is never cleared
 */
#define THREADS	2	/* callers 0 and 1; the others only read, or read-modify-write */
#define WORDS	2
#define TICKET(op)	(op)	/* of op 0 and op 1 */
#define ROUNDS	2
#include "memory.pml"

/* A ticket: 0, or what it is made of. */
#define LIVE	1
#define CANCEL	2
#define OTHER	4	/* made out for worker 1 */
#define ROUND	8	/* ghost: how often */

/* The living worker's inbox and its poke; the dead worker refuses everything. */
bool pushed[2], poke_pushed, poked;

bool in_flight[2], ended[2];
byte round[2];
byte marked_in[2];		/* ghost: the last round in which the op was marked */
bool cancelled[2];	/* its canceller is done */

#define MARKED(op)	((LOAD(op, TICKET(op)) / CANCEL) % 2)

inline poke()
{
	atomic {
		was = poked;
		poked = true
	}
	if
	:: !was -> poke_pushed = true
	:: else
	fi
}

active [2] proctype caller()
{
	byte me = _pid - THREADS * WORDS;
	bool was, looked, dead_first;

	do
	:: round[me] == ROUNDS -> break
	:: else ->
		round[me]++;
		if
		:: dead_first = true
		:: dead_first = false
		fi;
		/* Release, and into a buffer: seen when it has drained. */
		STORE(me, TICKET(me), round[me] * ROUND + LIVE + (dead_first -> 0 : OTHER));
		if
		:: dead_first ->
#ifdef REISSUE_STORES
			STORE(me, TICKET(me), round[me] * ROUND + LIVE + OTHER)
#else
			atomic { RELEASED(me) -> memory[TICKET(me)] = memory[TICKET(me)] + OTHER }
#endif
		:: else
		fi;
#ifdef LOOK_BEFORE_PUSH
		looked = MARKED(me);
#endif
		atomic { RELEASED(me) -> ended[me] = false; pushed[me] = true }
#ifndef LOOK_BEFORE_PUSH
		looked = MARKED(me);
#endif
#ifndef NO_SECOND_LOOK
		if
		:: looked -> poke()
		:: else
		fi;
#endif
		was = false;		/* dead, and one state less */
		looked = false;
		dead_first = false;
		ended[me];
		STORE(me, TICKET(me), 0)
	od
}

active [2] proctype canceller()
{
	byte op = _pid - THREADS * WORDS - 2;
	byte found;
	bool was, marked;

	found = memory[TICKET(op)];
	do
	:: found == 0 -> break			/* GYRE_NOT_FOUND */
	:: else ->
#ifdef POKE_THEN_MARK
		if
		:: found & OTHER -> poke()
		:: else
		fi;
#endif
		atomic {
			/* Two rounds' tickets have the same value but for the ghost. */
			if
			:: memory[TICKET(op)] % ROUND == found % ROUND ->
				marked = true;
				marked_in[op] = memory[TICKET(op)] / ROUND;
				if
				:: (found / CANCEL) % 2
				:: else -> memory[TICKET(op)] = memory[TICKET(op)] + CANCEL
				fi
			:: else -> found = memory[TICKET(op)]
			fi
		}
		if
		:: marked ->
#ifndef POKE_THEN_MARK
			if
			:: found & OTHER -> poke()
			:: else			/* the dead worker's ring refuses it */
			fi;
#endif
			break
		:: else
		fi
	od;
	was = false;
	found = 0;
	marked = false;
	cancelled[op] = true
}

inline look_at(op)
{
	if
	:: in_flight[op] && (memory[TICKET(op)] / CANCEL) % 2 ->
		atomic {
			if
			:: in_flight[op] -> in_flight[op] = false; ended[op] = true
			:: else
			fi
		}
	:: else
	fi
}

inline take()
{
	atomic {
		if
		:: pushed[0] -> pushed[0] = false; in_flight[0] = true
		:: else
		fi;
		if
		:: pushed[1] -> pushed[1] = false; in_flight[1] = true
		:: else
		fi;
		if
		:: poke_pushed -> poke_pushed = false; poke_taken = true
		:: else
		fi
	}
}

active proctype owner()
{
	bool poke_taken;

end:	do
	:: pushed[0] || pushed[1] || poke_pushed ->
		take();
		do
		:: !poke_taken -> break
		:: else ->
			poke_taken = false;
#ifdef LOOK_THEN_CLEAR
			take();
			look_at(0);
			look_at(1);
			poked = false
#else
#ifndef POKE_REMEMBERED
			poked = false;
#endif
#ifndef NO_SECOND_TAKE
			take();
#endif
			look_at(0);
			look_at(1)
#endif
		od
	od
}

/* Ops end by themselves, but not one that was marked in its second round. */
active proctype kernel()
{
end:	do
	:: atomic {
		in_flight[0] && (round[0] < ROUNDS || (cancelled[0] && marked_in[0] != ROUNDS)) ->
			in_flight[0] = false;
			ended[0] = true
	   }
	:: atomic {
		in_flight[1] && (round[1] < ROUNDS || (cancelled[1] && marked_in[1] != ROUNDS)) ->
			in_flight[1] = false;
			ended[1] = true
	   }
	od
}
