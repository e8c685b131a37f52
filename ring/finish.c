/* SPDX-License-Identifier: MIT */
/*
 * From a final CQE to the answer: what it means for the op, what it means for
 * its chain, and the batch's one reply after its last op.
 */
#include "turn.h"

#include <errno.h>

#include "sys.h"

static void count_answer(struct gyre__ring_counters *counters, int32_t res, gyre__verdict verdict)
{
	gyre__count(&counters->ops_completed, 1);
	if (gyre__likely(verdict == 0 && res >= 0))
		return;
	switch (gyre__verdict_status(verdict)) {
	case GYRE_TIMED_OUT:
		gyre__count(&counters->ops_timed_out, 1);
		break;
	case GYRE_CANCELLED:
		gyre__count(&counters->ops_cancelled, 1);
		break;
	default:
		gyre__count(&counters->ops_failed, 1);
	}
}

void gyre__batch_record(struct gyre__ring *ring, struct gyre__batch *batch, uint32_t index,
			struct gyre__result result, gyre__verdict verdict)
{
	GYRE_ASSERT(batch->answered < batch->count);
	if (!(batch->flags & GYRE__BATCH_LIBRARY))
		count_answer(&ring->counters, result.res, verdict);
	batch->results[index] = result;
	if (gyre__unlikely(verdict)) {
		batch->verdicts[index] = verdict;
		batch->odd = true;
	}
	batch->answered++;
}

void gyre__batch_settle(struct gyre__ring *ring, struct gyre__batch *batch)
{
	if (batch->answered == batch->count)
		batch->waiter->done(batch->waiter, batch, ring);
}

void gyre__batch_record_unstarted(struct gyre__ring *ring, struct gyre__batch *batch,
				  uint32_t index, gyre__verdict verdict)
{
	gyre__batch_record(ring, batch, index, (struct gyre__result){ .res = -ECANCELED }, verdict);
	batch->entries[index].prep = gyre__batch_answered_prep;
}

void gyre__batch_advance(struct gyre__ring *ring, struct gyre__batch *batch, uint32_t n)
{
	uint32_t before = batch->started;

	batch->started += n;
	while (batch->started < batch->count &&
	       batch->entries[batch->started].prep == gyre__batch_answered_prep)
		batch->started++;
	if (!(batch->flags & GYRE__BATCH_LIBRARY)) {
		uint64_t queued = gyre__load(&ring->counters.queued, relaxed);

		gyre__store(&ring->counters.queued, queued - (batch->started - before), relaxed);
	}
}

/*
 * -ECANCELED and -EINTR after somebody asked for the end: that is what became
 * of it. Any other result was there first, and counts. Whether an op that was
 * cut off had an effect nobody can say.
 */
static gyre__verdict verdict_of(const struct gyre__op *op)
{
	if (op->res != -ECANCELED && op->res != -EINTR)
		return 0;
	switch ((enum gyre__op_reason)op->reason) {
	case GYRE__OP_TIMED_OUT:
		return gyre__verdict_make(GYRE_TIMED_OUT, GYRE_EFFECT_UNKNOWN);
	case GYRE__OP_CANCELLED:
		return gyre__verdict_make(GYRE_CANCELLED, GYRE_EFFECT_UNKNOWN);
	case GYRE__OP_NO_REASON:
		break;
	}
	return gyre__verdict_make(GYRE_OK, GYRE_EFFECT_UNKNOWN);
}

static void put(struct gyre__ring *ring, struct gyre__op *op)
{
	gyre__timer_disarm(&ring->timers, &ring->table, op);
	gyre__op_put(&ring->table, op, false);
}

/*
 * Within a chain, -ECANCELED after an op that did not fully succeed is the
 * kernel passing over the rest: never started, so no effect. verdicts[] has
 * been used as the ops came in, for those whose own end was asked for.
 */
void gyre__ring_finish_chain(struct gyre__ring *ring, struct gyre__op *first)
{
	struct gyre__batch *batch = first->batch;
	uint32_t len = gyre__op_more(&ring->table, first)->chain_len;
	uint32_t index = first->index, i;

	put(ring, first);
	for (i = index; i < index + len; i++) {
		struct gyre__result result = batch->results[i];
		gyre__verdict verdict = batch->verdicts[i];

		if (!verdict && result.res == -ECANCELED)
			verdict = gyre__verdict_make(GYRE_CANCELLED, i == index ?
						     GYRE_EFFECT_UNKNOWN : GYRE_EFFECT_NONE);
		batch->verdicts[i] = 0;
		gyre__batch_record(ring, batch, i, result, verdict);
	}
	gyre__batch_settle(ring, batch);
}

/* From now on first's timer is its chain's: past the deadline, whichever op runs is to end. */
static void arm_rest_of_chain(struct gyre__ring *ring, struct gyre__op *first)
{
	uint64_t timeout_ns = first->batch->ops[first->index].timeout_ns;

	if (timeout_ns)
		gyre__timer_arm(&ring->timers, &ring->table, first,
				gyre__deadline(first->batch->start_ns, timeout_ns));
	else
		gyre__timer_disarm(&ring->timers, &ring->table, first);
}

static void complete_chained(struct gyre__ring *ring, struct gyre__op *op)
{
	struct gyre__op *first = &ring->table.ops[op->chain];
	struct gyre__op_more *more = gyre__op_more(&ring->table, first);
	struct gyre__batch *batch = op->batch;

	batch->results[op->index] = (struct gyre__result){ op->res, op->cqe_flags };
	if (op->reason)
		batch->verdicts[op->index] = verdict_of(op);
	if (op != first)
		put(ring, op);
	if (--more->chain_left == 0)
		gyre__ring_finish_chain(ring, first);
	else if (first->state == GYRE__OP_DONE)
		arm_rest_of_chain(ring, first);
}

/* Its caller has gone; now the kernel has let go of the buffer, too. */
static void complete_left(struct gyre__ring *ring, struct gyre__op *op)
{
	struct gyre__buffer_row *row = gyre__op_more(&ring->table, op)->left_buffer;

	put(ring, op);
	gyre__buffer_row_unref(row);
}

void gyre__ring_complete_call(struct gyre__ring *ring, struct gyre__op *op)
{
	struct gyre__batch *batch = op->batch;
	struct gyre__result result = { op->res, op->cqe_flags };
	gyre__verdict verdict = 0;
	uint32_t index = op->index;

	if (gyre__unlikely(op->chain != GYRE__NO_SLOT)) {
		complete_chained(ring, op);
		return;
	}
	if (gyre__unlikely(!batch)) {
		complete_left(ring, op);
		return;
	}
	if (gyre__unlikely(op->res < 0))
		verdict = verdict_of(op);
	put(ring, op);
	gyre__batch_record(ring, batch, index, result, verdict);
	gyre__batch_settle(ring, batch);
}
