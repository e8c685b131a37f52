/* SPDX-License-Identifier: MIT */
/*
 * Durable writes to one file that share flushes, one of which may fail, while
 * somebody resets the file once.
 *
 * Models, in lib/durable.c: join_row(), gather_group(), flush(), hand_over(),
 * tell_group(), fail_file(), party_enter(), party_leave(), gyre_durable_reset().
 *
 * Promised: whoever is answered OK has his write on the medium; of a flush that
 * fails, everybody whom it covered is told, and everybody who calls later, until
 * the reset; nobody waits for ever.
 *
 * Left out: the sleep (see reply.pml), who means another descriptor, the order in which
 * those who wait are told and lead. The kernel is as bad as it may be: what a failed flush took along
 * counts as clean, and the next flush succeeds.
 *
 * Each of these breaks it, and must be found:
 * -DTELL_FIRST		those whom a flush covers are told before it ends
 * -DGATHER_LATE	a flush covers who has come since it started
 * -DLEADER_ONLY	of a flush that failed only its leader is told
 * -DMARK_LATE		the failure is noted after the next flush was handed over
 * -DNO_LOOK		a flush does not look whether the file has failed
 * -DNO_DOOM		who was covered may find the file reset, and goes on
 * -DDOOM_WAITERS	only who waits already is told of what a failed flush took along
 * -DJOIN_BLIND		who waits behind a leader does not look again whether it is there
 * -DNO_NEXT		the end of a flush wakes nobody who came later
 * -DFLUSH_TWICE	a flush that failed is tried again
 */
#define CALLERS	3
#define CALLS	(me == 0 -> 1 : 2)
#define NOBODY	CALLERS
#define BIT(n)	(1 << (n))

/* What a caller wakes up as. */
#define WAITS	0
#define LEADS	1
#define TOLD	2

/* The kernel's: what is in the cache only, what is on the medium, a bit a caller. */
byte dirty, medium;
bool may_fail = true;

/* The table of failed files; what was told of a failure, which no later OK may contradict. */
bool failed;
bool promised, reset;

/* Under the lock. */
byte leader = NOBODY;
byte queue;
byte inside;
byte doomed, settled;
byte role[CALLERS];
bool bad[CALLERS];

active proctype resetter()
{
end:	atomic { promised -> failed = false; promised = false; reset = true }
}

inline write()
{
	atomic {
		inside = inside | BIT(me);
		doomed = doomed & ~BIT(me);
		settled = settled & ~BIT(me);
		medium = medium & ~BIT(me);
		role[me] = WAITS;
		bad[me] = false;
		expect_bad = promised
	}
	dirty = dirty | BIT(me)
}

inline join()
{
#ifdef JOIN_BLIND
	if
	:: leader == NOBODY -> atomic {
		if
		:: leader == NOBODY -> leader = me; role[me] = LEADS
		:: else -> queue = queue | BIT(me)
		fi
	   }
	:: leader != NOBODY -> queue = queue | BIT(me)
	fi
#else
	atomic {
		if
		:: leader == NOBODY -> leader = me; role[me] = LEADS
		:: else -> queue = queue | BIT(me)
		fi
	}
#endif
	;
	role[me] != WAITS
}

/* One flush: what it starts with is what it takes along. */
inline kernel_flush()
{
	atomic { cover = dirty; dirty = 0 }
#ifdef TELL_FIRST
	tell_group();
#endif
	if
	:: may_fail -> may_fail = false; bad[me] = true
	:: atomic { true -> medium = medium | cover; bad[me] = false }
	fi
}

inline tell_group()
{
	atomic {
		n = 0;
		do
		:: n == CALLERS -> break
		:: n < CALLERS && (group & BIT(n)) ->
#ifndef LEADER_ONLY
			bad[n] = bad[me];
#endif
			role[n] = TOLD;
			n++
		:: n < CALLERS && !(group & BIT(n)) -> n++
		od;
		group = 0
	}
}

inline lead()
{
#ifndef GATHER_LATE
	atomic { group = queue; queue = 0 }
#endif
	tried = false;
	if
#ifndef NO_LOOK
	:: failed -> bad[me] = true
	:: else ->
#else
	:: true ->
#endif
		tried = true;
		kernel_flush();
#ifdef FLUSH_TWICE
		if
		:: bad[me] -> kernel_flush()
		:: else
		fi;
#endif
#ifndef MARK_LATE
		if
		:: bad[me] -> failed = true
		:: else
		fi
#endif
	fi;
#ifdef GATHER_LATE
	atomic { group = queue; queue = 0 }
#endif
	atomic {
		if
		:: bad[me] && tried ->
#if defined(DOOM_WAITERS)
			doomed = doomed | queue
#elif !defined(NO_DOOM)
			doomed = doomed | (inside & ~settled & ~BIT(me))
#else
			skip
#endif
		:: !bad[me] -> settled = settled | BIT(me) | group
		:: else
		fi;
		leader = NOBODY;
#ifndef NO_NEXT
		if
		:: queue & 1 -> leader = 0
		:: queue & 2 -> leader = 1
		:: queue & 4 -> leader = 2
		:: queue == 0
		fi;
		if
		:: leader != NOBODY -> queue = queue & ~BIT(leader)
		:: else
		fi;
#endif
		next = leader
	}
	if
	:: next != NOBODY -> role[next] = LEADS
	:: else
	fi;
	tell_group()
#ifdef MARK_LATE
	;
	if
	:: bad[me] && tried -> failed = true
	:: else
	fi
#endif
}

active [CALLERS] proctype caller()
{
	byte me = _pid - 1;
	byte call, group, cover, n, next;
	bool expect_bad, tried;

	do
	:: call == CALLS -> break
	:: else ->
		call++;
		write();
		join();
		if
		:: role[me] == LEADS -> lead()
		:: else
		fi;
		atomic {		/* party_leave(), and the answer */
			if
			:: doomed & BIT(me) -> bad[me] = true
			:: else
			fi;
			inside = inside & ~BIT(me);
			assert(bad[me] || (medium & BIT(me)));
			assert(bad[me] || !(expect_bad && promised));
			if
			:: bad[me] && !reset -> promised = true
			:: else
			fi;
			group = 0; cover = 0; n = 0; next = 0; tried = false; expect_bad = false
		}
	od
}
