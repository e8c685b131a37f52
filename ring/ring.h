/* SPDX-License-Identifier: MIT */
/*
 * The ring: one io_uring and everything that one reactor needs around it.
 *
 * Other threads touch three things of it: the inbox, the pace that tells them
 * how to wait, and counters that they may read. All else is the owner's, the
 * one thread that has called gyre__ring_enable().
 */
#ifndef GYRE_RING_RING_H
#define GYRE_RING_RING_H

#include <gyre.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"
#include "batch.h"
#include "bell.h"
#include "buffers.h"
#include "fork.h"
#include "inbox.h"
#include "list.h"
#include "op.h"
#include "probe.h"
#include "spin.h"
#include "timer.h"
#include "waiter.h"

/* Op slots that are the library's: cancels and the wake-up. */
#define GYRE__RING_RESERVED	16

struct gyre__failed;

struct gyre__ring_config {
	unsigned entries;
	unsigned inflight_max;
	uint64_t spin_ns;
	struct gyre__failed *failed;	/* of the runtime; NULL: flushes are nobody's business */
};

/* Figures: written by the owner, read by anybody, each for itself. */
struct gyre__ring_counters {
	_Atomic uint64_t ops_submitted, ops_completed, ops_failed, ops_cancelled, ops_timed_out;
	_Atomic uint64_t inflight, queued;
	_Atomic uint64_t enters, wakeups_sent, replies_spun, replies_slept;
	_Atomic uint64_t batches, cq_overflows, stray_cqes;
};

enum gyre__ring_phase {
	GYRE__RING_RUNNING = 0,	/* takes and answers */
	GYRE__RING_DRAINING,	/* sealed: finishes what it has, until drain_deadline_ns */
	GYRE__RING_CANCELLING,	/* sealed: everything has been asked to end */
	/* Cannot go on: all ops were answered; waits for its guests to leave. */
	GYRE__RING_BURIED,
	GYRE__RING_DEAD,	/* cannot go on: everything was answered, the kernel has let go */
	GYRE__RING_ENDED	/* drained, closed */
};

/* Through struct gyre__stream; see stream.h. */
struct gyre__ring_streams {
	struct gyre__list all;			/* not over */
	struct gyre__list wanting;		/* their ops wait for room, in order */
	struct gyre__list news;			/* came() is to be called */
	uint16_t next_group;			/* of buffers: the number to try next */
};

struct gyre__ring {
	/* Anybody's. */
	struct gyre__inbox inbox;

	/* Everybody's to read, written seldom. */
	struct gyre__pace pace GYRE__OWN_LINE;
	_Atomic uint32_t overloaded;		/* batches wait for room: choose another worker */
	_Atomic uint32_t dead;			/* the errno that killed it; 0: it lives */
	_Atomic uint64_t drain_ns;		/* for who seals: how long to let things run */
	unsigned cpus;

	/* Who asks for a look at the cancels of ops; see gyre__ring_poke(). */
	struct gyre__batch poke GYRE__OWN_LINE;
	_Atomic uint32_t poked;

	struct gyre__ring_counters counters GYRE__OWN_LINE;

	/* The owner's from here on. */
	struct io_uring uring GYRE__OWN_LINE;	/* filled by us, for liburing's inline half */
	/* SQEs filled; the kernel's tail follows at the submit. */
	uint32_t sq_tail;
	bool sealed;				/* the seal was seen */
	bool poke_taken;			/* see gyre__ring_take_inbox() */
	bool wake_armed;			/* a read of wake_fd is in flight */
	bool left_to_wait;			/* the wait's enter is to submit what is filled */
	enum gyre__ring_phase phase;
	uint64_t owner;				/* its thread_id */
	uint64_t now_ns;			/* coarse: the last look at the clock */
	uint64_t arrivals;			/* batches taken so far */
	/* Callers' ops: given to the kernel, and back from it. */
	uint64_t launched, completed_calls;
	uint32_t window, window_batches, window_callers;	/* see note_caller() */
	uint32_t patient_batches;		/* in a row: GYRE__BATCH_PATIENT */
	uint32_t wake_op;			/* the slot of that read */
	/* A fatal errno was seen: the turn ends in gyre__ring_die(). */
	int dying;
	struct gyre__op_table table;
	struct gyre__timers timers;
	struct gyre__op_list completed;
	struct gyre__batch_queue waiting;	/* not wholly started, in order */
	struct gyre__batch_queue held;		/* controls that ask to be asked again */
	uint32_t waiting_timed;			/* of waiting: have a time-out */
	struct gyre__ring_streams streams;
	struct gyre__spin spin;
	/* Current back-off of a submit the kernel refuses; 0: none. */
	uint64_t busy_ns;
	/* With busy_ns: it has neither taken nor completed anything. */
	uint64_t refused_since_ns;
	uint64_t drain_deadline_ns;
	/* What lives on this thread besides ops: it ends after them. */
	uint32_t guests;
	/* When the next of them wants to be looked at; GYRE__NEVER. */
	uint64_t guest_deadline_ns;
	bool guests_ready;			/* some want to run before the next wait */
	struct gyre__bell_round sleepers;	/* whose replies are given */

	int wake_fd;				/* written by who pushes onto a sleeping inbox */
	uint64_t wake_value;			/* the kernel reads it in here */
	struct gyre__fork_guard fork_guard;
	/* End of file here: the kernel has let go of everything. */
	int tomb_fd;
	struct gyre__features features;
	uint8_t traits[GYRE__OPCODES];		/* GYRE__TRAIT_*, see sanitize.h */
	struct gyre__ring_config config;
	struct gyre__ring_buffers buffers;
	size_t ring_bytes, sqes_bytes;
};

/* --------------------------------------------------------- life: ring.c -- */

/*
 * Any thread. Makes a ring that nobody owns yet. Negative errno: -ENOMEM where
 * the memory, or the memlock budget, is used up (retried for a while, as what a
 * closed ring held comes back late); *ret_step names the call that failed.
 */
int gyre__ring_open(struct gyre__ring *ring, const struct gyre__ring_config *config,
		    const char **ret_step);

/* Makes the calling thread the owner. */
int gyre__ring_enable(struct gyre__ring *ring);

/*
 * Gives back the kernel's side of a ring that has ended, has died, or was never
 * enabled. What other threads may still touch stays: a late pusher may be about
 * to write wake_fd, which must not be somebody else's by then.
 */
void gyre__ring_let_go(struct gyre__ring *ring);

/* The same, and all the rest; no other thread is near it any more. */
void gyre__ring_close(struct gyre__ring *ring);

/* What a ring of this size locks, in bytes. */
size_t gyre__ring_memlock(const struct gyre__ring_config *config);

/* Owner: lets go of the kernel's side; see turn.c and death.c. */
void gyre__ring_unmap(struct gyre__ring *ring);

static inline void gyre__ring_assert_owner(const struct gyre__ring *ring)
{
#ifdef GYRE_DEBUG
	GYRE_ASSERT(ring->owner == gyre__sys->thread_id());
#else
	(void)ring;
#endif
}

/* ---------------------------------------------------- from other threads -- */

/*
 * Sends a batch of calls. GYRE_OK, *ret_woken telling whether the owner had to
 * be woken; GYRE_CLOSED or GYRE_WORKER_DEAD: then it was not sent.
 */
enum gyre_status gyre__ring_send(struct gyre__ring *ring, struct gyre__batch *batch,
				 bool *ret_woken);

/* Sends a control batch. False: the ring has ended, and there is nothing left to control. */
bool gyre__ring_control(struct gyre__ring *ring, struct gyre__batch *batch);

/* Asleep with nothing under way: all that was sent before this call has been answered. */
static inline bool gyre__ring_is_idle(struct gyre__ring *ring)
{
	return gyre__load(&ring->inbox.word, acquire) & GYRE__INBOX_IDLE;
}

/* Some op's ticket got GYRE__TICKET_CANCEL: have the owner look. */
void gyre__ring_poke(struct gyre__ring *ring);

/* Takes no more calls; what it has may run for drain_ns more. */
void gyre__ring_seal(struct gyre__ring *ring, uint64_t drain_ns);

/* -------------------------------------------------- the owner's: turn.c -- */

/* One turn: take, start, submit, reap, answer. Never blocks. True: something was done. */
bool gyre__ring_turn(struct gyre__ring *ring);

/*
 * A batch of the owner's own making, past the inbox: started with the next turn.
 * GYRE_OK; GYRE_CANCELLED, GYRE_WORKER_DEAD: the ring takes no more, nothing of it will be.
 */
enum gyre_status gyre__ring_take_own(struct gyre__ring *ring, struct gyre__batch *batch);

/* Nothing to do: spins while that pays, then sleeps in the kernel until there is. */
void gyre__ring_wait(struct gyre__ring *ring);

/* True once the ring has ended or died, and no guest is left: the owner may go. */
static inline bool gyre__ring_finished(const struct gyre__ring *ring)
{
	return ring->phase >= GYRE__RING_DEAD;
}

/* A sleeper whose reply is given: its bell is rung before the turn ends. */
void gyre__ring_wake_later(struct gyre__ring *ring, unsigned seat);

/* Of the library's own: asks for op's end, now. reason: what -ECANCELED will mean. */
void gyre__ring_ask_end(struct gyre__ring *ring, struct gyre__op *op, enum gyre__op_reason reason);

/* The ring cannot go on, because of error (negative errno). Answers all, keeps nothing. */
void gyre__ring_die(struct gyre__ring *ring, int error);

/*
 * A control for gyre_close_fd() of *(int *)control_arg: done when all ops that
 * came earlier, and may mean that descriptor, hold their file.
 */
bool gyre__ring_barrier(struct gyre__ring *ring, struct gyre__batch *batch);

#endif
