/* SPDX-License-Identifier: MIT */
/*
 * From a batch that waits to SQEs that fly. Everything that ever fills an SQE
 * does so here: the prep first, then what the library sets, then the op is in
 * flight, whatever io_uring_enter() says later.
 */
#include "turn.h"

#include <errno.h>
#include <string.h>

#include "failed.h"
#include "sanitize.h"
#include "sys.h"

/*
 * Ops of one batch in a row while others wait: small enough to be fair, large enough to be cheap.
 */
#define QUANTUM	64

#define REFUSED	gyre__verdict_make(GYRE_INVALID, GYRE_EFFECT_NONE)

void gyre__batch_answered_prep(struct io_uring_sqe *sqe, void *arg)
{
	(void)sqe;
	(void)arg;
}

struct io_uring_sqe *gyre__ring_blank_sqe(struct gyre__ring *ring, uint32_t ahead)
{
	struct io_uring_sq *sq = &ring->uring.sq;
	struct io_uring_sqe *sqe = &sq->sqes[(ring->sq_tail + ahead) & sq->ring_mask];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = GYRE__BLANK_OPCODE;
	return sqe;
}

uint32_t gyre__batch_chain_len(const struct gyre__batch *batch, uint32_t index)
{
	uint32_t len = 1;

	if (batch->flags & GYRE__BATCH_DETAILED)
		while (index + len < batch->count &&
		       (batch->ops[index + len - 1].flags & GYRE_OP_LINK))
			len++;
	return len;
}

/* GYRE_OP_LEAVE: the buffer that will outlive the call, if the time-out wins. */
static enum gyre__refusal find_left_buffer(struct gyre__ring *ring, const struct io_uring_sqe *sqe,
					   struct gyre__buffer_row **ret)
{
	switch (sqe->opcode) {
	case IORING_OP_READ:
	case IORING_OP_WRITE:
	case IORING_OP_READ_FIXED:
	case IORING_OP_WRITE_FIXED:
	case IORING_OP_SEND:
	case IORING_OP_RECV:
		*ret = gyre__buffers_find(&ring->buffers, sqe->addr, sqe->len);
		return *ret ? GYRE__ACCEPTED : GYRE__REFUSED_LEAVE;
	default:
		return GYRE__REFUSED_LEAVE;
	}
}

/* Runs the closure of batch's op index on sqe and says whether it may fly. */
static inline enum gyre__refusal fill(struct gyre__ring *ring, const struct gyre__batch *batch,
				      uint32_t index, struct io_uring_sqe *sqe)
{
	const struct gyre__entry *entry = &batch->entries[index];

	if (gyre__unlikely(!entry->prep))
		return GYRE__REFUSED_EARLY;
	entry->prep(sqe, entry->arg);
	return gyre__sanitize(ring, sqe);
}

static void record_refused(struct gyre__ring *ring, struct gyre__batch *batch, uint32_t index,
			   enum gyre__refusal refusal)
{
	struct gyre__result result = { .res = (int32_t)refusal };

	gyre__batch_record(ring, batch, index, result,
			   refusal == GYRE__REFUSED_UNSUPPORTED ?
			   gyre__verdict_make(GYRE_UNSUPPORTED, GYRE_EFFECT_NONE) : REFUSED);
}

/*
 * A flush of a file whose flush has failed would succeed, and lie. The kernel is
 * given no descriptor to flush, so that it fails, and breaks its chain, in order;
 * complete_flush() in finish.c puts the right errno in.
 */
static void refuse_failed_flush(struct gyre__ring *ring, struct io_uring_sqe *sqe,
				struct gyre__op *op)
{
	struct gyre__failed *failed = ring->config.failed;
	int error = failed && sqe->fd >= 0 ? gyre__failed_look(failed, sqe->fd) : 0;

	op->refused_flush = error != 0;
	if (gyre__likely(!op->refused_flush))
		return;
	gyre__op_more(&ring->table, op)->flush_error = error;
	sqe->fd = -1;
}

/* The filled SQE at position becomes an op in flight. */
static inline struct gyre__op *launch(struct gyre__ring *ring, struct io_uring_sqe *sqe,
				      uint32_t position, bool library,
				      gyre__op_complete_fn *complete)
{
	struct gyre__op *op = gyre__op_get(&ring->table, library);

	op->complete = complete;
	op->sq_position = position;
	op->fd = sqe->fd;
	op->opcode = sqe->opcode;
	op->late_file = (sqe->flags & IOSQE_ASYNC) ||
			(ring->traits[sqe->opcode] & GYRE__TRAIT_LATE_FILE);
	op->since_ns = ring->now_ns;
	if (gyre__unlikely(sqe->opcode == IORING_OP_FSYNC))
		refuse_failed_flush(ring, sqe, op);
	sqe->user_data = gyre__op_user_data(&ring->table, op);
	return op;
}

static inline struct gyre__op *launch_call(struct gyre__ring *ring, struct gyre__batch *batch,
					   uint32_t index, struct io_uring_sqe *sqe,
					   uint32_t position)
{
	struct gyre__op *op = launch(ring, sqe, position, false, gyre__ring_complete_call);

	op->batch = batch;
	op->index = index;
	ring->launched++;
	return op;
}

static void arm_timeout(struct gyre__ring *ring, const struct gyre__batch *batch,
			struct gyre__op *op)
{
	uint64_t timeout_ns = batch->ops[op->index].timeout_ns;

	gyre__op_more(&ring->table, op)->retry_ns = 0;
	if (timeout_ns)
		gyre__timer_arm(&ring->timers, &ring->table, op,
				gyre__deadline(batch->start_ns, timeout_ns));
}

/* One op whose gyre_op has flags or a time-out. */
static void start_detailed(struct gyre__ring *ring, struct gyre__batch *batch, uint32_t index)
{
	struct io_uring_sqe *sqe = gyre__ring_blank_sqe(ring, 0);
	enum gyre__refusal refusal = fill(ring, batch, index, sqe);
	struct gyre__buffer_row *left_buffer = NULL;
	struct gyre__op *op;

	if (!refusal && (batch->ops[index].flags & GYRE_OP_LEAVE))
		refusal = find_left_buffer(ring, sqe, &left_buffer);
	if (refusal) {
		record_refused(ring, batch, index, refusal);
		return;
	}
	op = launch_call(ring, batch, index, sqe, ring->sq_tail++);
	gyre__op_more(&ring->table, op)->left_buffer = left_buffer;
	arm_timeout(ring, batch, op);
}

/* A refused op takes its chain with it: nothing of it is submitted. */
static void record_refused_chain(struct gyre__ring *ring, struct gyre__batch *batch,
				 uint32_t first, uint32_t len, uint32_t refused,
				 enum gyre__refusal refusal)
{
	uint32_t i;

	for (i = first; i < first + len; i++)
		if (i == refused)
			record_refused(ring, batch, i, refusal);
		else
			gyre__batch_record(ring, batch, i,
					   (struct gyre__result){ .res = -ECANCELED },
					   gyre__verdict_make(GYRE_CANCELLED, GYRE_EFFECT_NONE));
}

/*
 * A chain: all of it is filled before any of it is launched, on SQEs side by
 * side, and it is submitted whole, as a submit's end would cut it.
 */
static void start_chain(struct gyre__ring *ring, struct gyre__batch *batch, uint32_t first,
			uint32_t len)
{
	struct gyre__op *op, *head = NULL;
	struct io_uring_sqe *sqe;
	enum gyre__refusal refusal;
	uint32_t i;

	for (i = 0; i < len; i++) {
		refusal = fill(ring, batch, first + i, gyre__ring_blank_sqe(ring, i));
		if (!refusal && (batch->ops[first + i].flags & GYRE_OP_LEAVE))
			refusal = GYRE__REFUSED_LEAVE;
		if (refusal) {
			record_refused_chain(ring, batch, first, len, first + i, refusal);
			return;
		}
	}
	for (i = 0; i < len; i++) {
		sqe = &ring->uring.sq.sqes[ring->sq_tail & ring->uring.sq.ring_mask];
		op = launch_call(ring, batch, first + i, sqe, ring->sq_tail++);
		if (i + 1 < len)
			sqe->flags |= IOSQE_IO_LINK;
		if (!head)
			head = op;
		op->chain = gyre__op_slot(&ring->table, head);
		op->late_file = true;	/* the kernel looks it up when the op before is done */
		gyre__op_more(&ring->table, op)->left_buffer = NULL;
		gyre__op_more(&ring->table, op)->retry_ns = 0;
		batch->results[first + i].res = GYRE__CHAIN_PENDING;
	}
	gyre__op_more(&ring->table, head)->chain_left = len;
	gyre__op_more(&ring->table, head)->chain_len = len;
	gyre__op_more(&ring->table, head)->chain_asked = false;
	arm_timeout(ring, batch, head);
}

/* Plain ops, as many as there is room for and at most max: the hot loop. */
static uint32_t start_plain(struct gyre__ring *ring, struct gyre__batch *batch, uint32_t max)
{
	uint32_t room = gyre__op_table_room(&ring->table);
	uint32_t sq_room = gyre__ring_sq_room(ring);
	uint32_t index = batch->started;
	uint32_t i;

	if (max > batch->count - index)
		max = batch->count - index;
	if (max > room)
		max = room;
	if (max > sq_room)
		max = sq_room;
	for (i = 0; i < max; i++, index++) {
		struct io_uring_sqe *sqe = gyre__ring_blank_sqe(ring, 0);
		enum gyre__refusal refusal;

		if (gyre__unlikely(batch->entries[index].prep == gyre__batch_answered_prep))
			continue;
		refusal = fill(ring, batch, index, sqe);
		if (gyre__unlikely(refusal))
			record_refused(ring, batch, index, refusal);
		else
			launch_call(ring, batch, index, sqe, ring->sq_tail++);
	}
	return max;
}

/* The next op or chain of a detailed batch; 0: no room for it now. */
static uint32_t start_next_detailed(struct gyre__ring *ring, struct gyre__batch *batch)
{
	uint32_t index = batch->started;
	uint32_t len = gyre__batch_chain_len(batch, index);

	if (len > 1 && (len > ring->uring.sq.ring_entries || len > ring->config.inflight_max)) {
		record_refused_chain(ring, batch, index, len, index, GYRE__REFUSED_CHAIN);
		return len;
	}
	if (len > gyre__op_table_room(&ring->table) || len > gyre__ring_sq_room(ring))
		return 0;
	if (len > 1)
		start_chain(ring, batch, index, len);
	else
		start_detailed(ring, batch, index);
	return len;
}

/* True: there was room for all that was asked for, or for QUANTUM of it. */
static bool start_some(struct gyre__ring *ring, struct gyre__batch *batch)
{
	uint32_t done = 0, n;

	while (done < QUANTUM && batch->started < batch->count) {
		if (batch->flags & GYRE__BATCH_DETAILED)
			n = start_next_detailed(ring, batch);
		else
			n = start_plain(ring, batch, QUANTUM - done);
		if (n == 0)
			return false;
		gyre__batch_advance(ring, batch, n);
		done += n;
	}
	return true;
}

/* It is not the submission queue that is full, which a submit would mend: it is the table. */
static bool wants_more_than_there_is(const struct gyre__ring *ring, const struct gyre__batch *batch)
{
	return gyre__batch_chain_len(batch, batch->started) > gyre__op_table_room(&ring->table);
}

bool gyre__ring_start_waiting(struct gyre__ring *ring)
{
	uint32_t tail = ring->sq_tail;
	bool answered = false, room = true;

	while (room && ring->waiting.head) {
		struct gyre__batch *batch = ring->waiting.head;

		room = start_some(ring, batch);
		if (batch->started == batch->count) {
			gyre__batch_queue_take(&ring->waiting);
			ring->waiting_timed -= !!(batch->flags & GYRE__BATCH_TIMED);
			answered |= batch->answered > 0;
			gyre__batch_settle(ring, batch);
		} else if (room && batch->queue_next) {
			gyre__batch_queue_push(&ring->waiting,
					       gyre__batch_queue_take(&ring->waiting));
		}
	}
	if (gyre__unlikely(!room && wants_more_than_there_is(ring, ring->waiting.head)))
		gyre__ring_refuse_nowait(ring);
	return answered || ring->sq_tail != tail;
}

struct gyre__op *gyre__ring_start_library(struct gyre__ring *ring, gyre_prep_fn *prep, void *arg,
					  gyre__op_complete_fn *complete)
{
	struct io_uring_sqe *sqe;

	if (gyre__op_table_library_room(&ring->table) == 0 || gyre__ring_sq_room(ring) == 0)
		return NULL;
	sqe = gyre__ring_blank_sqe(ring, 0);
	prep(sqe, arg);
	return launch(ring, sqe, ring->sq_tail++, true, complete);
}

struct gyre__op *gyre__ring_start_stream(struct gyre__ring *ring, const struct io_uring_sqe *sqe,
					 gyre__op_complete_fn *complete)
{
	struct io_uring_sqe *blank;
	struct gyre__op *op;

	if (ring->dying || gyre__load(&ring->dead, relaxed))	/* which the owner writes itself */
		return NULL;
	if (gyre__op_table_room(&ring->table) == 0 || gyre__ring_sq_room(ring) == 0)
		return NULL;
	blank = gyre__ring_blank_sqe(ring, 0);
	*blank = *sqe;
	op = launch(ring, blank, ring->sq_tail++, false, complete);
	op->stream = true;
	ring->launched++;
	return op;
}
