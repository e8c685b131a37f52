/* SPDX-License-Identifier: MIT */
/*
 * From a final CQE to the answer: what it means for the op, what it means for
 * its chain, and the batch's one reply after its last op.
 */
#include "turn.h"

#include <errno.h>

#include "failed.h"
#include "sys.h"

void gyre__batch_record_odd(struct gyre__ring *ring, struct gyre__batch *batch, uint32_t index,
			    int32_t res, gyre__verdict verdict)
{
	struct gyre__ring_counters *counters = &ring->counters;

	if (verdict) {
		batch->verdicts[index] = verdict;
		batch->odd = true;
	}
	switch (gyre__verdict_status(verdict)) {
	case GYRE_OK:
		if (res < 0)
			gyre__count(&counters->ops_failed, 1);
		break;
	case GYRE_TIMED_OUT:
		gyre__count(&counters->ops_timed_out, 1);
		break;
	case GYRE_CANCELLED:
		gyre__count(&counters->ops_cancelled, 1);
		break;
	default:
		break;
	}
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
	gyre__count(&ring->counters.queued, -(uint64_t)(batch->started - before));
}

/*
 * Threads of the kernel's that are interrupted in an op may tell by an errno
 * that was never meant for us (ERESTARTSYS and its relatives, which a system
 * call would turn into a restart or into EINTR).
 */
#define RESTART_FIRST	512
#define RESTART_LAST	516

static bool is_restart(int32_t res)
{
	return res <= -RESTART_FIRST && res >= -RESTART_LAST;
}

/*
 * -ECANCELED and -EINTR after somebody asked for the end: that is what became
 * of it. Any other result was there first, and counts. Whether an op that was
 * cut off had an effect nobody can say.
 */
static gyre__verdict verdict_of(struct gyre__op *op)
{
	if (op->reason == GYRE__OP_CUT) {
		op->res = -ECANCELED;	/* what came back is a NOP's, in its place */
		return gyre__verdict_make(GYRE_CANCELLED, GYRE_EFFECT_NONE);
	}
	if (is_restart(op->res))
		op->res = -EINTR;
	if (op->res != -ECANCELED && op->res != -EINTR)
		return 0;
	switch ((enum gyre__op_reason)op->reason) {
	case GYRE__OP_TIMED_OUT:
		return gyre__verdict_make(GYRE_TIMED_OUT, GYRE_EFFECT_UNKNOWN);
	case GYRE__OP_CANCELLED:
		return gyre__verdict_make(GYRE_CANCELLED, GYRE_EFFECT_UNKNOWN);
	case GYRE__OP_NO_REASON:
	case GYRE__OP_CUT:
		break;
	}
	return gyre__verdict_make(GYRE_OK, GYRE_EFFECT_UNKNOWN);
}

/*
 * What became of an FSYNC, by the law that a failed flush stays failed: it is
 * noted before anybody is told, and one that succeeded beside it is not believed.
 */
static gyre__verdict complete_flush(struct gyre__ring *ring, struct gyre__op *op,
				    gyre__verdict verdict)
{
	struct gyre__failed *failed = ring->config.failed;
	int error;

	if (!failed || op->reason == GYRE__OP_CUT)
		return verdict;
	if (op->refused_flush) {
		if (op->res != -EBADF)		/* cancelled before its turn came */
			return verdict;
		op->res = gyre__op_more(&ring->table, op)->flush_error;
		return gyre__verdict_make(GYRE_OK, GYRE_EFFECT_NONE);
	}
	if (gyre__is_flush_failure(op->res)) {
		gyre__failed_mark(failed, op->fd, op->res);
	} else if (op->res >= 0) {
		error = gyre__failed_look(failed, op->fd);
		if (error)
			op->res = error;
	}
	return verdict;
}

static void put(struct gyre__ring *ring, struct gyre__op *op)
{
	gyre__timer_disarm(&ring->timers, &ring->table, op);
	gyre__op_put(&ring->table, op, false);
}

/*
 * What the chain's op at index came to. -ECANCELED after another, or with nobody
 * having asked for it, is the kernel passing over the rest of a chain that broke:
 * never started, so no effect. After a failure of another kind that is not sure:
 * a failed fsync, for one, does not break a chain, and the op behind it ran.
 */
static gyre__verdict chained_verdict(gyre__verdict verdict, int32_t res, bool first, bool broken)
{
	if (first || res != -ECANCELED || gyre__verdict_status(verdict) == GYRE_WORKER_DEAD)
		return verdict;
	return broken || gyre__verdict_status(verdict) == GYRE_OK ?
	       gyre__verdict_make(GYRE_CANCELLED, GYRE_EFFECT_NONE) : verdict;
}

/* verdicts[] has been kept as the ops came in, each for itself. */
void gyre__ring_finish_chain(struct gyre__ring *ring, struct gyre__op *first)
{
	struct gyre__batch *batch = first->batch;
	uint32_t len = gyre__op_more(&ring->table, first)->chain_len;
	uint32_t index = first->index, i;
	bool broken = false;

	put(ring, first);
	for (i = index; i < index + len; i++) {
		struct gyre__result result = batch->results[i];
		gyre__verdict verdict = chained_verdict(batch->verdicts[i], result.res, i == index,
							broken);

		broken |= result.res == -ECANCELED;
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

	/* Before the result: a cut one has another. */
	batch->verdicts[op->index] = verdict_of(op);
	if (op->opcode == IORING_OP_FSYNC)
		batch->verdicts[op->index] = complete_flush(ring, op, batch->verdicts[op->index]);
	batch->results[op->index] = (struct gyre__result){ op->res, op->cqe_flags };
	if (op != first)
		put(ring, op);
	if (--more->chain_left == 0)
		gyre__ring_finish_chain(ring, first);
	else if (first->state == GYRE__OP_DONE)
		arm_rest_of_chain(ring, first);
	if (more->chain_asked && more->chain_left > 0)
		gyre__ring_hasten_chain(ring, first);
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

	ring->completed_calls += op->reason != GYRE__OP_CUT;
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
	if (gyre__unlikely(op->opcode == IORING_OP_FSYNC))
		verdict = complete_flush(ring, op, verdict);
	result.res = op->res;
	put(ring, op);
	gyre__batch_record(ring, batch, index, result, verdict);
	gyre__batch_settle(ring, batch);
}
