/* SPDX-License-Identifier: MIT */
/*
 * Reply against time-out: a caller makes calls with a time-out, with or without
 * GYRE_OP_LEAVE; the kernel completes, cancels, and now and then completes
 * something twice.
 *
 * Models, in ring/op.h: gyre__op_get(), gyre__op_put(), gyre__op_find(),
 * gyre__op_set_state(); in ring/op.c: gyre__op_edges; in ring/turn.c: note_cqe(),
 * gyre__ring_reap(), gyre__ring_run_completed(); in ring/cancel.c: fire(),
 * send_cancel(), complete_cancel(), leave(); in ring/finish.c:
 * gyre__ring_complete_call(), complete_left().
 *
 * Promised: each call is answered exactly once; an answer that comes without
 * GYRE_OP_LEAVE finds that the kernel has let go of the caller's memory; with
 * it, the buffer stays the library's until the kernel has let go; a completion
 * that comes late or twice finds no op, whoever has the slot by then; in the end
 * no op and no buffer is left.
 *
 * All of it is the owner's: no store buffers. Left out: chains, zero-copy's
 * second CQE, the repeat of a cancel that missed (the op ends by itself),
 * generations that wrap round after 2^32 uses of a slot.
 *
 * Each of these breaks it, and must be found:
 * -DNO_GENERATION	a completion is known by its slot only
 * -DNO_DONE_CHECK	a second completion of an op that is done counts
 * -DCANCEL_FREES	the cancel's completion is taken for its target's
 * -DLEAVE_ALL		the time-out answers without GYRE_OP_LEAVE, too
 * -DLEAVE_KEEPS_BATCH	an op that was left still knows its caller's batch
 * -DNO_QUARANTINE	leaving takes no reference on the buffer
 * -DFREE_ON_TIMEOUT	the slot of an op that was left is free at once
 */
#define SLOTS		3
#define CALLS		3
#define NO_CALL		0
#define CANCEL_OP	9	/* in op.batch: the library's own */

#define FREE		0
#define FLYING		1
#define CANCELLING	2
#define LEFT		3
#define DONE		4

typedef op {
	byte state;
	byte batch;		/* the call, NO_CALL, or CANCEL_OP */
	byte generation;
	bool timer;
	bool leave;
	byte row;		/* the buffer that it quarantines: its call's number */
};
op ops[SLOTS];

/* What the kernel has: by slot and generation, whose memory it may write to, whom a cancel means. */
typedef request {
	bool flies;
	byte generation;
	byte memory;
	bool is_cancel;
	byte target;
	byte target_generation;
};
request requests[SLOTS];

chan cq = [3] of { byte, byte };		/* slot, generation */
chan todo = [4] of { byte };		/* ring->completed */
bool repeated;			/* the kernel has completed one thing twice */
byte sent, answered;		/* calls so far: the caller waits for each */
bool sent_leave;
byte refs[CALLS + 1];		/* of each call's buffer */

#define KERNEL_WRITES(call) \
	((requests[0].flies && requests[0].memory == call) || \
	 (requests[1].flies && requests[1].memory == call) || \
	 (requests[2].flies && requests[2].memory == call))

#define ROOM		(ops[0].state == FREE || ops[1].state == FREE || ops[2].state == FREE)
#define ALL_FREE	(ops[0].state == FREE && ops[1].state == FREE && ops[2].state == FREE)
#define DUE(slot)	(ops[slot].timer && ops[slot].state == FLYING)

inline unref(which)
{
	assert(refs[which] > 0);
	refs[which]--;
	assert(refs[which] > 0 || !KERNEL_WRITES(which))
}

inline answer(call)
{
	assert(call == sent && answered == call - 1);
	answered = call
}

active proctype caller()
{
	do
	:: sent == CALLS -> break
	:: else ->
		atomic {
			if
			:: sent_leave = true
			:: sent_leave = false
			fi;
			refs[sent + 1] = 1;
			sent++
		}
		atomic {
			answered == sent ->
			assert(sent_leave || !KERNEL_WRITES(sent));
			unref(sent)	/* gyre_buffer_put() */
		}
	od
}

inline op_get(ret, call)
{
	if
	:: ops[0].state == FREE -> ret = 0
	:: ops[0].state != FREE && ops[1].state == FREE -> ret = 1
	:: ops[0].state != FREE && ops[1].state != FREE && ops[2].state == FREE -> ret = 2
	fi;
	ops[ret].state = FLYING;
	ops[ret].generation++;
	ops[ret].batch = call;
	ops[ret].row = 0;
	assert(!requests[ret].flies);		/* else two of the kernel's would have one name */
	requests[ret].flies = true;
	requests[ret].generation = ops[ret].generation
}

inline op_put(slot)
{
	ops[slot].state = FREE;
	ops[slot].batch = NO_CALL;
	ops[slot].timer = false;
	ops[slot].leave = false
}

inline complete(slot)
{
	if
	:: ops[slot].batch == CANCEL_OP ->
#ifdef CANCEL_FREES
		if
		:: ops[requests[slot].target].state == CANCELLING ->
			answer(ops[requests[slot].target].batch);
			op_put(requests[slot].target)
		:: else
		fi;
#endif
		op_put(slot)
	:: ops[slot].batch == NO_CALL ->	/* complete_left() */
#ifndef NO_QUARANTINE
		unref(ops[slot].row);
#endif
		op_put(slot)
	:: else ->
		answer(ops[slot].batch);
		op_put(slot)
	fi
}

active proctype owner()
{
	byte slot, other, generation, started;

	do
	:: atomic {				/* take and start */
		started < sent && ROOM ->
		started++;
		op_get(slot, started);
		ops[slot].timer = true;
		ops[slot].leave = sent_leave;
		requests[slot].memory = started;
		requests[slot].is_cancel = false
	   }
	:: atomic {				/* a timer is due, and there is room for the cancel */
		ROOM && (DUE(0) || DUE(1) || DUE(2)) ->
		if
		:: DUE(0) -> slot = 0
		:: DUE(1) -> slot = 1
		:: DUE(2) -> slot = 2
		fi;
		op_get(other, CANCEL_OP);
		requests[other].memory = NO_CALL;
		requests[other].is_cancel = true;
		requests[other].target = slot;
		requests[other].target_generation = ops[slot].generation;
		ops[slot].state = CANCELLING;
		ops[slot].timer = false;	/* the retry is left out: a cancel may miss for good */
#ifndef LEAVE_ALL
		if
		:: ops[slot].leave ->
#else
		if
		:: true ->
#endif
			ops[slot].row = ops[slot].batch;
#ifndef NO_QUARANTINE
			refs[ops[slot].row]++;
#endif
			answer(ops[slot].batch);
			ops[slot].state = LEFT;
#ifdef FREE_ON_TIMEOUT
			op_put(slot);
#endif
#ifndef LEAVE_KEEPS_BATCH
			ops[slot].batch = NO_CALL
#endif
		:: else
		fi
	   }
	:: nempty(cq) ->
		do				/* gyre__ring_reap(): note_cqe() */
		:: atomic {
			cq?slot, generation ->
			if
#ifndef NO_GENERATION
			:: ops[slot].generation != generation	/* stray */
#endif
			:: ops[slot].state == FREE		/* stray */
#ifndef NO_DONE_CHECK
			:: ops[slot].state == DONE		/* stray */
#endif
			:: else ->
				ops[slot].state = DONE;
				todo!slot
			fi
		   }
		:: empty(cq) -> break
		od;
		do				/* gyre__ring_run_completed() */
		:: atomic { todo?slot -> complete(slot) }
		:: empty(todo) -> break
		od
	:: answered == CALLS && empty(cq) && ALL_FREE -> break
	od;
	assert(refs[1] + refs[2] + refs[3] <= 1)	/* the caller may be about to put the last */
}
inline kernel_completes(slot)
{
	requests[slot].flies = false;
	cq!slot, requests[slot].generation;
	if				/* twice, once in a life */
	:: !repeated && nfull(cq) -> repeated = true; cq!slot, requests[slot].generation
	:: true
	fi
}

/* A cancel: ends its target first, or tells first that it will, or misses. */
inline kernel_runs(slot)
{
	if
	:: requests[slot].is_cancel ->
		if
		:: requests[requests[slot].target].flies && nfull(cq) &&
		   requests[requests[slot].target].generation == requests[slot].target_generation ->
			requests[requests[slot].target].flies = false;
			cq!requests[slot].target, requests[slot].target_generation
		:: true
		fi;
		nfull(cq) -> kernel_completes(slot)
	:: else -> kernel_completes(slot)
	fi
}

active proctype kernel()
{
end:	do
	:: atomic { requests[0].flies && nfull(cq) -> kernel_runs(0) }
	:: atomic { requests[1].flies && nfull(cq) -> kernel_runs(1) }
	:: atomic { requests[2].flies && nfull(cq) -> kernel_runs(2) }
	/* A late repeat of something long over. */
	:: atomic {
		!repeated && nfull(cq) && requests[0].generation > 0 && !requests[0].flies ->
		repeated = true;
		cq!0, requests[0].generation
	   }
	od
}
