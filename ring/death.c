/* SPDX-License-Identifier: MIT */
/*
 * A ring that cannot go on: a completion was lost, its descriptor was closed
 * under it, the kernel refuses it for good.
 *
 * What is known is answered first. For what is in flight, completions cannot
 * be trusted any more, and closing a ring does not wait for anything: the
 * answer has to wait for the tombstone (see ring.c), which tells when the kernel
 * has let go of everybody's memory.
 *
 * gyre__ring_die() is modelled in tests/models/seal.pml and close.pml.
 */
#include "turn.h"

#include <errno.h>
#include <poll.h>

#include "failed.h"
#include "stream.h"
#include "sys.h"

#define HOPELESS_PAUSE_NS	GYRE__NS_PER_S
#define BURIED_PAUSE_NS		GYRE__NS_PER_MS

/*
 * Blocks until the kernel is done with every request of the ring. If even the
 * tombstone cannot be read, nothing proves that, and no answer is better than
 * one that frees memory which is still written to.
 */
static void wait_for_kernel(struct gyre__ring *ring)
{
	char byte;
	ssize_t n;

	gyre__ring_unmap(ring);
	gyre__fork_guard_close(&ring->uring.ring_fd);
	while ((n = gyre__sys->read(ring->tomb_fd, &byte, 1)) != 0)
		if (n != -EINTR)
			gyre__sys->sleep_ns(HOPELESS_PAUSE_NS);
}

/* What the kernel had not consumed, it never saw; nobody will submit it now. */
static gyre__verdict verdict_at_death(const struct gyre__op *op, uint32_t consumed)
{
	if (op->reason == GYRE__OP_CUT)		/* a NOP in its place, whatever became of that */
		return gyre__verdict_make(GYRE_CANCELLED, GYRE_EFFECT_NONE);
	return gyre__verdict_make(GYRE_WORKER_DEAD, (int32_t)(op->sq_position - consumed) >= 0 ?
				  GYRE_EFFECT_NONE : GYRE_EFFECT_UNKNOWN);
}

static void bury_call(struct gyre__ring *ring, struct gyre__op *op, gyre__verdict verdict)
{
	struct gyre__batch *batch = op->batch;
	struct gyre__result result = { .res = -ECANCELED };
	uint32_t index = op->index;

	if (gyre__verdict_effect(verdict) == GYRE_EFFECT_NONE && op->reason != GYRE__OP_CUT)
		ring->launched--;	/* the kernel never had it */
	else if (op->opcode == IORING_OP_FSYNC && op->reason != GYRE__OP_CUT &&
		 !op->refused_flush && ring->config.failed)
		/* It may have failed, unheard. */
		gyre__failed_mark(ring->config.failed, op->fd, -EIO);

	if (op->chain != GYRE__NO_SLOT) {
		batch->results[index] = result;
		batch->verdicts[index] = verdict;
		if (op->chain != gyre__op_slot(&ring->table, op))
			gyre__op_put(&ring->table, op, false);
		return;		/* its first op, the last to go, answers the chain */
	}
	gyre__op_put(&ring->table, op, false);
	gyre__batch_record(ring, batch, index, result, verdict);
	gyre__batch_settle(ring, batch);
}

static void bury(struct gyre__ring *ring, struct gyre__op *op, gyre__verdict verdict)
{
	struct gyre__buffer_row *row = gyre__op_more(&ring->table, op)->left_buffer;
	bool left = op->state == GYRE__OP_LEFT;

	gyre__timer_disarm(&ring->timers, &ring->table, op);
	gyre__op_set_state(op, GYRE__OP_DONE);
	if (op->batch) {
		bury_call(ring, op, verdict);
		return;
	}
	if (op->stream) {
		gyre__stream_bury(ring, op, gyre__verdict_effect(verdict) != GYRE_EFFECT_NONE);
		return;
	}
	gyre__op_put(&ring->table, op, !left);
	if (left)
		gyre__buffer_row_unref(row);
}

static bool is_chains_first(const struct gyre__ring *ring, const struct gyre__op *op)
{
	return op->batch && op->chain == gyre__op_slot(&ring->table, op);
}

static void bury_all(struct gyre__ring *ring, uint32_t consumed)
{
	uint32_t i;

	for (i = 0; i < ring->table.used; i++) {
		struct gyre__op *op = &ring->table.ops[i];

		if (op->state != GYRE__OP_FREE && op->state != GYRE__OP_DONE)
			bury(ring, op, verdict_at_death(op, consumed));
	}
	for (i = 0; i < ring->table.used; i++) {
		struct gyre__op *op = &ring->table.ops[i];

		if (op->state == GYRE__OP_DONE && is_chains_first(ring, op))
			gyre__ring_finish_chain(ring, op);
	}
	GYRE_ASSERT(ring->table.live == 0);
	gyre__streams_bury(ring);
}

/* What waits was never seen by the kernel; its callers may try elsewhere at once. */
static void answer_waiting(struct gyre__ring *ring)
{
	gyre__ring_take_inbox(ring);
	gyre__ring_drop_waiting(ring, GYRE_WORKER_DEAD);
	gyre__ring_flush_wakes(ring);
}

/* Nobody lives here any more: lets nothing in, answers what came at the last moment. */
static void end_dead(struct gyre__ring *ring)
{
	struct gyre__batch *batch;

	ring->phase = GYRE__RING_DEAD;
	batch = gyre__inbox_end(&ring->inbox);
	while (batch) {
		struct gyre__batch *next = batch->next;

		if (batch != &ring->poke)
			gyre__ring_run_control(ring, batch);
		batch = next;
	}
	gyre__ring_run_held(ring);
	GYRE_ASSERT(!ring->held.head);
	gyre__ring_flush_wakes(ring);
}

void gyre__ring_die(struct gyre__ring *ring, int error)
{
	uint32_t consumed;

	gyre__ring_assert_owner(ring);
	GYRE_ASSERT(error < 0);
	/* Before the seal: whoever is refused by it reads this. */
	gyre__store(&ring->dead, (uint32_t)-error, release);
	gyre__inbox_seal(&ring->inbox);
	answer_waiting(ring);

	gyre__ring_reap(ring);
	gyre__ring_run_completed(ring);
	gyre__ring_flush_wakes(ring);
	consumed = gyre__load_shared(ring->uring.sq.khead);
	wait_for_kernel(ring);
	bury_all(ring, consumed);
	gyre__store(&ring->counters.inflight, 0, relaxed);
	ring->drain_deadline_ns = GYRE__NEVER;
	ring->phase = GYRE__RING_BURIED;
	gyre__ring_flush_wakes(ring);
	gyre__ring_turn_buried(ring);
}

/*
 * Guests of a dead ring still have to hear from others: the inbox passes
 * controls until the last of them has left. Calls it refuses, sealed as it is.
 */
bool gyre__ring_turn_buried(struct gyre__ring *ring)
{
	bool did = false;

	if (gyre__inbox_has(&ring->inbox, true)) {
		gyre__ring_take_inbox(ring);
		did = true;
	}
	if (ring->held.head)
		did |= gyre__ring_run_held(ring);
	did |= gyre__streams_tell(ring);
	gyre__ring_flush_wakes(ring);
	if (ring->guests == 0) {
		end_dead(ring);
		did = true;
	}
	return did;
}

/*
 * Nothing is left to enter the kernel with: whoever pushes writes the eventfd, and that is polled.
 */
void gyre__ring_wait_buried(struct gyre__ring *ring)
{
	struct pollfd wake = { .fd = ring->wake_fd, .events = POLLIN };
	uint64_t now_ns = gyre__sys->now_ns();
	uint64_t wait_ns = GYRE__NEVER;

	if (ring->guest_deadline_ns != GYRE__NEVER)
		wait_ns = ring->guest_deadline_ns > now_ns ? ring->guest_deadline_ns - now_ns : 0;
	if (!gyre__inbox_sleep(&ring->inbox, true, false))
		return;
	/* Where the poll fails, ask again soon: the descriptor may be the host's by now. */
	if (gyre__sys->poll(&wake, 1, wait_ns) < 0)
		gyre__sys->sleep_ns(BURIED_PAUSE_NS);
	else if (wake.revents & POLLIN)
		gyre__sys->eventfd_read(ring->wake_fd);
}
