/* SPDX-License-Identifier: MIT */
/*
 * Ending ops before their time: time-outs, cancels, the end of a drain.
 *
 * One mechanism for all: the op gets a reason and a timer that is due. When it
 * fires, a cancel goes to the kernel, and the timer is set again, as a cancel
 * can miss (a chain moves on, a read is between two polls). Whatever the cancel
 * says, only the target's own CQE frees anything.
 *
 * Modelled in tests/models/timeout.pml (fire(), send_cancel(), complete_cancel(),
 * leave()) and cancel.pml (gyre__ring_look_for_cancels(), judge_cancel()).
 */
#include "turn.h"

#include <errno.h>

#include "stream.h"
#include "sys.h"

#define RETRY_NS_FIRST	(10 * GYRE__NS_PER_MS)
#define RETRY_NS_MAX	GYRE__NS_PER_S

/* Once, and not of one that was cut off its chain: that is on its way out as a NOP. */
static bool may_be_asked(const struct gyre__op *op)
{
	return op->state == GYRE__OP_FLYING && op->reason == GYRE__OP_NO_REASON;
}

void gyre__ring_ask_end(struct gyre__ring *ring, struct gyre__op *op, enum gyre__op_reason reason)
{
	if (!may_be_asked(op))
		return;
	op->reason = (uint8_t)reason;
	gyre__op_more(&ring->table, op)->retry_ns = 0;
	if (op->chain != GYRE__NO_SLOT)
		ring->table.more[op->chain].chain_asked = true;
	gyre__op_set_state(op, GYRE__OP_ASKED);
	gyre__timer_arm(&ring->timers, &ring->table, op, 0);
}

/* The op of first's chain that runs now: the earliest without a result. */
static struct gyre__op *chain_running(struct gyre__ring *ring, const struct gyre__op *first)
{
	uint32_t head = gyre__op_slot(&ring->table, first), i;
	struct gyre__op *op, *running = NULL;

	for (i = 0; i < ring->table.used; i++) {
		op = &ring->table.ops[i];
		if (op->state == GYRE__OP_FREE || op->state == GYRE__OP_DONE || op->chain != head ||
		    op->batch != first->batch)
			continue;
		if (!running || op->index < running->index)
			running = op;
	}
	return running;
}

void gyre__ring_hasten_chain(struct gyre__ring *ring, const struct gyre__op *first)
{
	struct gyre__op *running = chain_running(ring, first);

	if (!running || running->reason != GYRE__OP_CANCELLED || running->timer == GYRE__NO_SLOT)
		return;
	/* From the shortest interval on: the kernel may take a moment to begin it. */
	gyre__op_more(&ring->table, running)->retry_ns = 0;
	gyre__timer_arm(&ring->timers, &ring->table, running, 0);
}

static void complete_cancel(struct gyre__ring *ring, struct gyre__op *op)
{
	/* 0, -ENOENT, -EALREADY: all the same to us, see above. */
	gyre__op_put(&ring->table, op, true);
}

static void prep_cancel(struct io_uring_sqe *sqe, void *arg)
{
	const uint64_t *user_data = arg;

	io_uring_prep_cancel64(sqe, *user_data, 0);
}

static bool send_cancel(struct gyre__ring *ring, struct gyre__op *target)
{
	uint64_t user_data = gyre__op_user_data(&ring->table, target);

	if (!gyre__ring_start_library(ring, prep_cancel, &user_data, complete_cancel))
		return false;
	if (target->state == GYRE__OP_ASKED)
		gyre__op_set_state(target, GYRE__OP_CANCELLING);
	return true;
}

/* When the caller of an op with GYRE_OP_LEAVE goes, whatever else was asked; GYRE__NEVER. */
static uint64_t leave_ns(struct gyre__ring *ring, const struct gyre__op *op)
{
	const struct gyre__batch *batch = op->batch;

	if (!batch || !(batch->flags & GYRE__BATCH_DETAILED) ||
	    !gyre__op_more(&ring->table, op)->left_buffer || batch->ops[op->index].timeout_ns == 0)
		return GYRE__NEVER;
	return gyre__deadline(batch->start_ns, batch->ops[op->index].timeout_ns);
}

static void rearm(struct gyre__ring *ring, struct gyre__op *op)
{
	struct gyre__op_more *more = gyre__op_more(&ring->table, op);
	uint64_t retry_ns, leaves_ns = leave_ns(ring, op);

	more->retry_ns = more->retry_ns ? 2 * more->retry_ns : RETRY_NS_FIRST;
	if (more->retry_ns > RETRY_NS_MAX)
		more->retry_ns = RETRY_NS_MAX;
	retry_ns = gyre__deadline(ring->now_ns, more->retry_ns);
	gyre__timer_arm(&ring->timers, &ring->table, op,
			leaves_ns < retry_ns ? leaves_ns : retry_ns);
}

/*
 * GYRE_OP_LEAVE at the time-out: the caller is answered now, the buffer stays
 * until the kernel has let go of it.
 */
static void leave(struct gyre__ring *ring, struct gyre__op *op)
{
	struct gyre__batch *batch = op->batch;

	gyre__buffer_row_ref(gyre__op_more(&ring->table, op)->left_buffer);
	op->batch = NULL;
	gyre__op_set_state(op, GYRE__OP_LEFT);
	gyre__batch_record(ring, batch, op->index, (struct gyre__result){ .res = -ECANCELED },
			   gyre__verdict_make(GYRE_TIMED_OUT, GYRE_EFFECT_UNKNOWN));
	gyre__batch_settle(ring, batch);
}

/*
 * Whom op's timer is about: itself; or, as a chain's time-out sits on its first
 * op, whichever runs once that one is done. NULL: nobody any more.
 */
static struct gyre__op *timer_target(struct gyre__ring *ring, struct gyre__op *op)
{
	struct gyre__op *target = op->state == GYRE__OP_DONE ? chain_running(ring, op) : op;

	/* HELD is the kernel's last look at the op's memory, CUT a NOP: nothing to cancel. */
	return target && target->state != GYRE__OP_HELD && target->reason != GYRE__OP_CUT ?
	       target : NULL;
}

/* The op's timer is due. False: there is no room for the cancel now. */
static bool fire(struct gyre__ring *ring, struct gyre__op *op)
{
	struct gyre__op *target = timer_target(ring, op);

	if (!target) {
		gyre__timer_disarm(&ring->timers, &ring->table, op);
		return true;
	}
	if (target->state == GYRE__OP_FLYING) {
		gyre__op_set_state(target, GYRE__OP_ASKED);
		target->reason = GYRE__OP_TIMED_OUT;
	}
	if (leave_ns(ring, target) <= ring->now_ns)
		leave(ring, target);	/* on time, whether there is room for the cancel or not */
	if (!send_cancel(ring, target))
		return false;
	rearm(ring, op);
	return true;
}

bool gyre__ring_run_timers(struct gyre__ring *ring)
{
	struct gyre__op *op;
	bool did = false;

	while ((op = gyre__timers_due(&ring->timers, &ring->table, ring->now_ns))) {
		did = true;
		if (!fire(ring, op))
			break;
	}
	return did;
}

uint64_t gyre__ring_next_deadline(const struct gyre__ring *ring)
{
	uint64_t next_ns = gyre__timers_next(&ring->timers);
	const struct gyre__batch *batch;

	if (ring->drain_deadline_ns < next_ns)
		next_ns = ring->drain_deadline_ns;
	if (ring->guest_deadline_ns < next_ns)
		next_ns = ring->guest_deadline_ns;
	if (ring->waiting_timed)
		for (batch = ring->waiting.head; batch; batch = batch->queue_next)
			if ((batch->flags & GYRE__BATCH_TIMED) && batch->next_deadline_ns < next_ns)
				next_ns = batch->next_deadline_ns;
	return next_ns;
}

/* -------------------------------------------------- ops that still wait -- */

/* What becomes of the unstarted ops [index, index + len) of batch, an op or a chain; 0: nothing. */
typedef gyre__verdict judge_fn(struct gyre__batch *batch, uint32_t index, uint32_t len,
			       uint64_t arg);

static void judge_batch(struct gyre__ring *ring, struct gyre__batch *batch, judge_fn *judge,
			uint64_t arg)
{
	const gyre__verdict passed_over = gyre__verdict_make(GYRE_CANCELLED, GYRE_EFFECT_NONE);
	uint32_t index, len, i;

	for (index = batch->started; index < batch->count; index += len) {
		gyre__verdict verdict;

		len = gyre__batch_chain_len(batch, index);
		if (batch->entries[index].prep == gyre__batch_answered_prep)
			continue;
		verdict = judge(batch, index, len, arg);
		if (!verdict)
			continue;
		gyre__batch_record_unstarted(ring, batch, index, verdict);
		for (i = index + 1; i < index + len; i++)
			gyre__batch_record_unstarted(ring, batch, i,
				gyre__verdict_status(verdict) == GYRE_TIMED_OUT ||
				gyre__verdict_status(verdict) == GYRE_BUSY ? passed_over : verdict);
	}
	gyre__batch_advance(ring, batch, 0);
}

static void judge_waiting(struct gyre__ring *ring, judge_fn *judge, uint64_t arg)
{
	struct gyre__batch_queue queue = ring->waiting;
	struct gyre__batch *batch;

	ring->waiting = (struct gyre__batch_queue){ NULL, NULL };
	while ((batch = gyre__batch_queue_take(&queue))) {
		judge_batch(ring, batch, judge, arg);
		if (batch->started < batch->count) {
			gyre__batch_queue_push(&ring->waiting, batch);
		} else {
			ring->waiting_timed -= !!(batch->flags & GYRE__BATCH_TIMED);
			gyre__batch_settle(ring, batch);
		}
	}
}

static gyre__verdict judge_deadline(struct gyre__batch *batch, uint32_t index, uint32_t len,
				    uint64_t now_ns)
{
	uint64_t deadline_ns;

	(void)len;
	if (!(batch->flags & GYRE__BATCH_TIMED) || batch->ops[index].timeout_ns == 0)
		return 0;
	deadline_ns = gyre__deadline(batch->start_ns, batch->ops[index].timeout_ns);
	if (deadline_ns <= now_ns)
		return gyre__verdict_make(GYRE_TIMED_OUT, GYRE_EFFECT_NONE);
	if (deadline_ns < batch->next_deadline_ns)
		batch->next_deadline_ns = deadline_ns;
	return 0;
}

void gyre__ring_expire_waiting(struct gyre__ring *ring, uint64_t now_ns)
{
	struct gyre__batch *batch;

	/* Only here, as only this looks for the next one. */
	for (batch = ring->waiting.head; batch; batch = batch->queue_next)
		batch->next_deadline_ns = GYRE__NEVER;
	judge_waiting(ring, judge_deadline, now_ns);
}

static bool asked_to_end(struct gyre__batch *batch, uint32_t index)
{
	return batch->ops &&
	       (gyre__load(gyre__op_ticket(&batch->ops[index]), acquire) & GYRE__TICKET_CANCEL);
}

static gyre__verdict judge_cancel(struct gyre__batch *batch, uint32_t index, uint32_t len,
				  uint64_t arg)
{
	uint32_t i;

	(void)arg;
	for (i = index; i < index + len; i++)
		if (asked_to_end(batch, i))
			return gyre__verdict_make(GYRE_CANCELLED, GYRE_EFFECT_NONE);
	return 0;
}

void gyre__ring_cancel_waiting(struct gyre__ring *ring)
{
	judge_waiting(ring, judge_cancel, 0);
}

static gyre__verdict judge_nowait(struct gyre__batch *batch, uint32_t index, uint32_t len,
				  uint64_t arg)
{
	(void)len;
	(void)arg;
	return (batch->flags & GYRE__BATCH_DETAILED) &&
	       (batch->ops[index].flags & GYRE_OP_NOWAIT) ?
	       gyre__verdict_make(GYRE_BUSY, GYRE_EFFECT_NONE) : 0;
}

void gyre__ring_refuse_nowait(struct gyre__ring *ring)
{
	const struct gyre__batch *batch;

	for (batch = ring->waiting.head; batch; batch = batch->queue_next)
		if (batch->flags & GYRE__BATCH_NOWAIT)
			break;
	if (batch)
		judge_waiting(ring, judge_nowait, 0);
}

static gyre__verdict judge_all(struct gyre__batch *batch, uint32_t index, uint32_t len,
			       uint64_t status)
{
	(void)batch;
	(void)index;
	(void)len;
	return gyre__verdict_make((enum gyre_status)status, GYRE_EFFECT_NONE);
}

void gyre__ring_drop_waiting(struct gyre__ring *ring, enum gyre_status status)
{
	judge_waiting(ring, judge_all, status);
}

/* ------------------------------------------------------- on request -- */

void gyre__ring_look_for_cancels(struct gyre__ring *ring)
{
	uint32_t i;

	for (i = 0; i < ring->table.used; i++) {
		struct gyre__op *op = &ring->table.ops[i];

		if (may_be_asked(op) && op->batch && asked_to_end(op->batch, op->index))
			gyre__ring_ask_end(ring, op, GYRE__OP_CANCELLED);
	}
	gyre__ring_cancel_waiting(ring);
}

void gyre__ring_cancel_all(struct gyre__ring *ring)
{
	uint32_t i;

	for (i = 0; i < ring->table.used; i++)
		if (ring->table.ops[i].batch)
			gyre__ring_ask_end(ring, &ring->table.ops[i], GYRE__OP_CANCELLED);
	gyre__streams_cancel_all(ring);
	gyre__ring_drop_waiting(ring, GYRE_CANCELLED);
}
