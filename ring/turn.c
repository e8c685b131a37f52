/* SPDX-License-Identifier: MIT */
/*
 * One turn of the reactor: take the inbox, start what there is room for, submit,
 * reap, answer, tell the sleepers; and between turns, the wait.
 *
 * Completions are copied out of the ring first and acted on after, from a list
 * of our own: what they lead to may fill SQEs, free ops and end batches.
 *
 * Modelled in tests/models/: going to sleep and being woken (arm_wake(),
 * complete_wake(), go_to_sleep()) in inbox.pml, the way to the end (wind_down(),
 * end()) in seal.pml and close.pml, gyre__ring_take_inbox() in cancel.pml, and
 * note_cqe() and gyre__ring_run_completed() in timeout.pml.
 */
#include "turn.h"

#include <errno.h>
#include <string.h>

#include "sanitize.h"
#include "stream.h"
#include "sys.h"

#define BUSY_NS_FIRST	(50 * GYRE__NS_PER_US)
#define BUSY_NS_MAX	(10 * GYRE__NS_PER_MS)
#define REFUSED_NS_MAX	(30 * GYRE__NS_PER_S)	/* then nothing will come of it any more */
#define CROWD_WINDOW	64	/* batches over which callers are counted */
#define PATIENT_BATCHES	16	/* in a row: all that is done here waits for devices */

/* ------------------------------------------------------------- inbox -- */

/*
 * More callers than CPUs that the worker leaves them? Counted without anybody
 * writing what others read: the owner marks each caller's batch, which is the
 * same one at each of its calls, with the window in which it was last seen.
 */
static void note_caller(struct gyre__ring *ring, struct gyre__batch *batch)
{
	if (batch->seen_window != ring->window) {
		batch->seen_window = ring->window;
		if (++ring->window_callers >= ring->cpus &&
		    !gyre__load(&ring->pace.crowded, relaxed))
			gyre__store(&ring->pace.crowded, 1, relaxed);
	}
	if (++ring->window_batches < CROWD_WINDOW)
		return;
	if (ring->window_callers < ring->cpus && gyre__load(&ring->pace.crowded, relaxed))
		gyre__store(&ring->pace.crowded, 0, relaxed);
	ring->now_ns = gyre__sys->now_ns();	/* a worker that never rests looks here */
	ring->window++;
	ring->window_batches = 0;
	ring->window_callers = 0;
}

void gyre__ring_run_control(struct gyre__ring *ring, struct gyre__batch *batch)
{
	if (batch->flags & GYRE__BATCH_RETAINED)
		batch->control(ring, batch);
	else if (!batch->control(ring, batch))
		gyre__batch_queue_push(&ring->held, batch);
	else
		batch->waiter->done(batch->waiter, batch, ring);
}

static void begin_batch(struct gyre__ring *ring, struct gyre__batch *batch)
{
	batch->arrival = ++ring->arrivals;
	batch->next_deadline_ns = 0;
	batch->started = 0;
	batch->answered = 0;
	batch->odd = false;
}

static void queue_batch(struct gyre__ring *ring, struct gyre__batch *batch)
{
	gyre__count(&ring->counters.batches, 1);
	gyre__count(&ring->counters.queued, batch->count);
	ring->waiting_timed += !!(batch->flags & GYRE__BATCH_TIMED);
	gyre__batch_queue_push(&ring->waiting, batch);
}

static void take_batch(struct gyre__ring *ring, struct gyre__batch *batch)
{
	if (batch == &ring->poke) {
		ring->poke_taken = true;
		return;
	}
	begin_batch(ring, batch);
	if (batch->flags & GYRE__BATCH_CONTROL) {
		gyre__ring_run_control(ring, batch);
		return;
	}
	note_caller(ring, batch);
	ring->patient_batches = batch->flags & GYRE__BATCH_PATIENT ? ring->patient_batches + 1 : 0;
	queue_batch(ring, batch);
}

enum gyre_status gyre__ring_take_own(struct gyre__ring *ring, struct gyre__batch *batch)
{
	gyre__ring_assert_owner(ring);
	if (gyre__unlikely(ring->phase == GYRE__RING_CANCELLING))
		return GYRE_CANCELLED;
	if (gyre__unlikely(ring->phase >= GYRE__RING_BURIED))
		return GYRE_WORKER_DEAD;
	begin_batch(ring, batch);
	queue_batch(ring, batch);
	return GYRE_OK;
}

static void take_list(struct gyre__ring *ring)
{
	struct gyre__batch *batch = gyre__inbox_take(&ring->inbox, &ring->sealed);

	while (batch) {
		struct gyre__batch *next = batch->next;

		take_batch(ring, batch);
		batch = next;
	}
}

/*
 * A poke is about an op that was pushed before somebody asked for the poke. He
 * may have found it asked for already: so first it is cleared, then the inbox
 * is taken again, and only then are the tickets looked at.
 */
void gyre__ring_take_inbox(struct gyre__ring *ring)
{
	take_list(ring);
	while (gyre__unlikely(ring->poke_taken)) {
		ring->poke_taken = false;
		gyre__exchange(&ring->poked, 0, acq_rel);
		take_list(ring);
		gyre__ring_look_for_cancels(ring);
	}
}

bool gyre__ring_run_held(struct gyre__ring *ring)
{
	struct gyre__batch_queue queue = ring->held;
	struct gyre__batch *batch;
	bool did = false;

	ring->held = (struct gyre__batch_queue){ NULL, NULL };
	while ((batch = gyre__batch_queue_take(&queue))) {
		gyre__ring_run_control(ring, batch);
		did |= ring->held.tail != batch;
	}
	return did;
}

bool gyre__ring_barrier(struct gyre__ring *ring, struct gyre__batch *batch)
{
	const struct gyre__batch *other;
	const int *fd = batch->control_arg;
	uint32_t i;

	if (ring->phase >= GYRE__RING_BURIED)
		return true;
	gyre__streams_note_close(ring, *fd, batch->arrival);
	if (gyre__load_shared(ring->uring.sq.khead) != ring->sq_tail)
		return false;
	for (other = ring->waiting.head; other; other = other->queue_next)
		if (other->arrival < batch->arrival)
			return false;
	for (i = 0; i < ring->table.used; i++) {
		const struct gyre__op *op = &ring->table.ops[i];

		if (op->state == GYRE__OP_FREE || !op->late_file ||
		    !gyre__sqe_may_name(op->opcode, op->fd, *fd))
			continue;
		if (op->batch ? op->batch->arrival < batch->arrival : op->state == GYRE__OP_LEFT)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------ submit -- */

static bool work_is_queued(const struct gyre__ring *ring)
{
	return gyre__load_shared(ring->uring.sq.kflags) &
	       (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static bool cqes_are_ready(const struct gyre__ring *ring)
{
	return gyre__load_shared(ring->uring.cq.ktail) != *ring->uring.cq.khead;
}

/*
 * The kernel did not take the submission now. Everything stays where it is; if
 * nothing completes meanwhile, the next try is a little later. One that takes
 * and completes nothing for so long that it seems to be for ever has ended the
 * ring: no cancel gets through either, so callers could not even time out.
 */
static void back_off(struct gyre__ring *ring, int error)
{
	uint64_t now_ns = gyre__sys->now_ns();

	if (ring->busy_ns == 0 || cqes_are_ready(ring))
		ring->refused_since_ns = now_ns;
	if (now_ns - ring->refused_since_ns >= REFUSED_NS_MAX) {
		ring->dying = error;
		return;
	}
	ring->busy_ns = ring->busy_ns ? 2 * ring->busy_ns : BUSY_NS_FIRST;
	if (ring->busy_ns > BUSY_NS_MAX)
		ring->busy_ns = BUSY_NS_MAX;
	if (!cqes_are_ready(ring))
		gyre__sys->sleep_ns(ring->busy_ns);
}

/*
 * The kernel stopped in the middle of a chain, for want of memory: it has ended
 * the chain there, and would run the rest as a new one, in no order. The rest
 * goes in as NOPs instead, and is answered as what it is: cancelled, no effect.
 */
static void cut_chain(struct gyre__ring *ring, uint32_t head)
{
	struct io_uring_sq *sq = &ring->uring.sq;
	struct gyre__op *op = gyre__op_find(&ring->table, sq->sqes[head & sq->ring_mask].user_data);
	uint32_t chain = op->chain;

	if (chain == GYRE__NO_SLOT || chain == gyre__op_slot(&ring->table, op))
		return;
	for (; head != ring->sq_tail; head++) {
		struct io_uring_sqe *sqe = &sq->sqes[head & sq->ring_mask];
		uint64_t user_data = sqe->user_data;

		op = gyre__op_find(&ring->table, user_data);
		if (op->chain != chain)
			break;
		memset(sqe, 0, sizeof(*sqe));
		io_uring_prep_nop(sqe);
		sqe->user_data = user_data;
		if (op->reason != GYRE__OP_CUT)
			ring->launched--;	/* it never will be */
		op->reason = GYRE__OP_CUT;
	}
}

/*
 * Enters the kernel with all that is filled. An SQE is in flight from here on,
 * whatever comes back: how far the kernel got is told by its head alone.
 */
static void enter(struct gyre__ring *ring, unsigned min_complete,
		  struct io_uring_getevents_arg *arg)
{
	struct io_uring_sq *sq = &ring->uring.sq;
	unsigned flags = 0;
	uint32_t head;
	int rc;

	ring->left_to_wait = false;
	gyre__store_shared(sq->ktail, ring->sq_tail);
	if (gyre__unlikely(gyre__load_shared(sq->kflags) & IORING_SQ_CQ_OVERFLOW))
		gyre__count(&ring->counters.cq_overflows, 1);
	if (min_complete || ring->busy_ns || work_is_queued(ring))
		flags |= IORING_ENTER_GETEVENTS;
	if (arg)
		flags |= IORING_ENTER_EXT_ARG;
	rc = gyre__sys->uring_enter(ring->uring.ring_fd,
				    ring->sq_tail - gyre__load_shared(sq->khead),
				    min_complete, flags, arg, arg ? sizeof(*arg) : 0);
	gyre__count(&ring->counters.enters, 1);
	head = gyre__load_shared(sq->khead);
	if (gyre__unlikely(head != ring->sq_tail))
		cut_chain(ring, head);
	if (gyre__likely(rc >= 0) || rc == -ETIME || rc == -EINTR)
		ring->busy_ns = 0;
	else if (rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM)
		back_off(ring, rc);
	else
		ring->dying = rc;
}

static bool submit(struct gyre__ring *ring)
{
	if (ring->sq_tail == gyre__load_shared(ring->uring.sq.khead) && !work_is_queued(ring))
		return false;
	enter(ring, 0, NULL);
	return true;
}

/*
 * Nothing has come but what tasks have asked for, and they all wait: so will we, and
 * the enter that waits submits as well. Should that not come next, the next turn
 * does: whatever it finds to do may take longer. Where it pays to spin, it pays to
 * submit first: what is done at once ends no sleep.
 */
static bool leave_to_wait(struct gyre__ring *ring)
{
	if (!gyre__spin_sleeps_next(&ring->spin, &ring->pace) || ring->left_to_wait ||
	    ring->guests_ready || ring->sealed || ring->busy_ns || ring->waiting.head ||
	    ring->held.head || cqes_are_ready(ring) || work_is_queued(ring) ||
	    ring->sq_tail == gyre__load_shared(ring->uring.sq.khead))
		return false;
	ring->left_to_wait = true;
	return true;
}

/* -------------------------------------------------------------- reap -- */

static void note_cqe(struct gyre__ring *ring, const struct io_uring_cqe *cqe)
{
	struct gyre__op *op = gyre__op_find(&ring->table, cqe->user_data);

	/* Twice, late or from nowhere: nobody's, and nothing may come of it. */
	if (gyre__unlikely(!op || op->state == GYRE__OP_DONE)) {
		gyre__count(&ring->counters.stray_cqes, 1);
		return;
	}
	if (gyre__unlikely(op->stream) && gyre__stream_note(ring, op, cqe))
		return;
	if (gyre__likely(!(cqe->flags & IORING_CQE_F_NOTIF))) {
		op->res = cqe->res;
		op->cqe_flags = cqe->flags;
	} else if (op->state != GYRE__OP_HELD && op->state != GYRE__OP_LEFT) {
		/*
		 * The result that it follows was lost: the next enter says so, and the ring dies.
		 */
		gyre__count(&ring->counters.stray_cqes, 1);
		return;
	}
	if (gyre__unlikely(cqe->flags & IORING_CQE_F_MORE)) {
		if (op->state != GYRE__OP_HELD && op->state != GYRE__OP_LEFT)
			gyre__op_set_state(op, GYRE__OP_HELD);
		return;
	}
	gyre__op_set_state(op, GYRE__OP_DONE);
	gyre__op_list_push(&ring->table, &ring->completed, op);
}

void gyre__ring_reap(struct gyre__ring *ring)
{
	struct io_uring_cq *cq = &ring->uring.cq;
	unsigned head = *cq->khead;
	unsigned tail = gyre__load_shared(cq->ktail);

	if (head == tail)
		return;
	for (; head != tail; head++)
		note_cqe(ring, &cq->cqes[head & cq->ring_mask]);
	gyre__store_shared(cq->khead, head);
}

bool gyre__ring_run_completed(struct gyre__ring *ring)
{
	struct gyre__op *op;
	bool did = false;

	while ((op = gyre__op_list_take(&ring->table, &ring->completed))) {
		op->complete(ring, op);
		did = true;
	}
	if (gyre__unlikely(!gyre__list_is_empty(&ring->streams.news)))
		did |= gyre__streams_tell(ring);
	return did;
}

/* ------------------------------------------------------------- wakes -- */

void gyre__ring_wake_later(struct gyre__ring *ring, unsigned seat)
{
	gyre__count(&ring->counters.replies_slept, 1);
	gyre__bell_add(&ring->sleepers, seat);
}

void gyre__ring_flush_wakes(struct gyre__ring *ring)
{
	if (gyre__likely(!ring->sleepers.any))
		return;
	gyre__store(&ring->pace.told_ns, gyre__sys->now_ns(), relaxed);
	gyre__bell_ring_all(&ring->sleepers);
}

static void complete_wake(struct gyre__ring *ring, struct gyre__op *op)
{
	int32_t res = op->res;

	gyre__timer_disarm(&ring->timers, &ring->table, op);
	gyre__op_put(&ring->table, op, true);
	ring->wake_armed = false;
	/* The host closed it behind our back: nobody could wake us any more. */
	if (res < 0 && res != -ECANCELED && res != -EINTR && res != -EAGAIN)
		ring->dying = res;
}

static void prep_wake(struct io_uring_sqe *sqe, void *arg)
{
	struct gyre__ring *ring = arg;

	io_uring_prep_read(sqe, ring->wake_fd, &ring->wake_value, sizeof(ring->wake_value), 0);
}

/* Before each sleep: a read of the eventfd that pushing threads write. */
static bool arm_wake(struct gyre__ring *ring)
{
	struct gyre__op *op;

	if (ring->wake_armed)
		return true;
	op = gyre__ring_start_library(ring, prep_wake, ring, complete_wake);
	if (!op)
		return false;
	ring->wake_op = gyre__op_slot(&ring->table, op);
	ring->wake_armed = true;
	return true;
}

/* ------------------------------------------------------------- phases -- */

static bool nothing_is_left(const struct gyre__ring *ring)
{
	return ring->table.live == ring->table.live_library && !ring->waiting.head &&
	       !ring->held.head && gyre__list_is_empty(&ring->streams.all) && ring->guests == 0;
}

/* A drain that has once found nothing left has no end to wait for any more. */
bool gyre__ring_may_begin(const struct gyre__ring *ring)
{
	return ring->phase == GYRE__RING_RUNNING ||
	       (ring->phase == GYRE__RING_DRAINING && !nothing_is_left(ring));
}

/* Answers what came between the last look and the end, and lets nothing in after it. */
static void end(struct gyre__ring *ring)
{
	struct gyre__batch *batch;

	ring->phase = GYRE__RING_ENDED;		/* before the end: who finds that, may read this */
	batch = gyre__inbox_end(&ring->inbox);
	while (batch) {
		struct gyre__batch *next = batch->next;

		/* Sealed long since: controls, or a poke for nobody. */
		take_batch(ring, batch);
		batch = next;
	}
	GYRE_ASSERT(nothing_is_left(ring) && ring->table.live == 0);
}

/* Sealed: on the way from running to ended. True: something was done. */
static bool wind_down(struct gyre__ring *ring)
{
	if (ring->phase == GYRE__RING_RUNNING) {
		ring->phase = GYRE__RING_DRAINING;
		ring->drain_deadline_ns =
			gyre__deadline(gyre__sys->now_ns(), gyre__load(&ring->drain_ns, acquire));
		return true;
	}
	if (ring->phase == GYRE__RING_DRAINING && !nothing_is_left(ring) &&
	    gyre__sys->now_ns() >= ring->drain_deadline_ns) {
		ring->phase = GYRE__RING_CANCELLING;
		ring->drain_deadline_ns = GYRE__NEVER;
		gyre__ring_cancel_all(ring);
		return true;
	}
	if (!nothing_is_left(ring))
		return false;
	ring->drain_deadline_ns = GYRE__NEVER;
	if (ring->wake_armed && ring->table.ops[ring->wake_op].state == GYRE__OP_FLYING) {
		gyre__ring_ask_end(ring, &ring->table.ops[ring->wake_op], GYRE__OP_CANCELLED);
		return true;
	}
	if (ring->table.live > 0)
		return false;
	end(ring);
	return true;
}

static bool run_deadlines(struct gyre__ring *ring)
{
	bool did;

	if (gyre__likely(!ring->timers.count && !ring->waiting_timed))
		return false;
	ring->now_ns = gyre__sys->now_ns();
	did = gyre__ring_run_timers(ring);
	if (ring->waiting_timed && gyre__ring_next_deadline(ring) <= ring->now_ns)
		gyre__ring_expire_waiting(ring, ring->now_ns);
	return did;
}

/* For crews to choose by; read by every caller, so written only when it changes. */
static void note_overload(struct gyre__ring *ring)
{
	uint32_t overloaded = ring->waiting.head && gyre__op_table_room(&ring->table) == 0;

	if (gyre__load(&ring->overloaded, relaxed) != overloaded)
		gyre__store(&ring->overloaded, overloaded, relaxed);
}

/* ------------------------------------------------------------ the turn -- */

bool gyre__ring_turn(struct gyre__ring *ring)
{
	bool did = false, started = false;

	gyre__ring_assert_owner(ring);
	if (gyre__unlikely(ring->phase == GYRE__RING_BURIED))
		return gyre__ring_turn_buried(ring);
	if (gyre__unlikely(ring->dying)) {	/* since the last sleep: start nothing more */
		gyre__ring_die(ring, ring->dying);
		return true;
	}
	if (gyre__inbox_has(&ring->inbox, ring->sealed)) {
		gyre__ring_take_inbox(ring);
		did = true;
	}
	if (gyre__unlikely(!gyre__list_is_empty(&ring->streams.wanting)))
		did |= gyre__streams_start(ring);
	if (ring->waiting.head)
		started = gyre__ring_start_waiting(ring);
	did |= run_deadlines(ring);
	if (did || !started || !leave_to_wait(ring))
		did |= started | submit(ring);
	gyre__ring_reap(ring);
	did |= gyre__ring_run_completed(ring);
	if (gyre__unlikely(ring->held.head))
		did |= gyre__ring_run_held(ring);
	if (gyre__unlikely(ring->sealed) && !ring->dying)
		did |= wind_down(ring);
	gyre__ring_publish(ring);
	note_overload(ring);
	gyre__ring_flush_wakes(ring);
	if (gyre__unlikely(ring->dying)) {
		gyre__ring_die(ring, ring->dying);
		return true;
	}
	return did;
}

/* ------------------------------------------------------------ the wait -- */

static bool something_came(struct gyre__ring *ring)
{
	return gyre__inbox_has(&ring->inbox, ring->sealed) || cqes_are_ready(ring) ||
	       work_is_queued(ring);
}

static bool spin(struct gyre__ring *ring, uint64_t budget_ns)
{
	struct gyre__spinning spinning;

	gyre__spin_start(&ring->spin, budget_ns, &spinning);
	do {
		/* For writing: the take is a compare-and-swap, and comes next. */
		gyre__prefetch_for_write(&ring->inbox.word);
		if (!something_came(ring))
			continue;
		gyre__spin_won(&ring->spin, &spinning);
		return true;
	} while (gyre__spin_once(&spinning, &ring->pace));
	gyre__spin_lost(&ring->spin, &spinning);
	return false;
}

static void sleep_until(struct gyre__ring *ring, uint64_t deadline_ns)
{
	struct __kernel_timespec ts;
	struct io_uring_getevents_arg arg = { 0 };
	uint64_t wait_ns;

	if (deadline_ns != GYRE__NEVER) {
		wait_ns = deadline_ns > ring->now_ns ? deadline_ns - ring->now_ns : 0;
		ts.tv_sec = (int64_t)(wait_ns / GYRE__NS_PER_S);
		ts.tv_nsec = (long long)(wait_ns % GYRE__NS_PER_S);
		arg.ts = (uintptr_t)&ts;
	}
	enter(ring, 1, &arg);
}

/*
 * Wound down but for the CQE of the cancel that ended the last wake-up read:
 * that will wake us, and a new read would only have to be cancelled, too.
 */
static bool is_ending(const struct gyre__ring *ring)
{
	return ring->sealed && nothing_is_left(ring) && !ring->wake_armed && ring->table.live > 0;
}

/*
 * The wake-up is armed before the inbox is told that we sleep, and both before
 * the kernel is entered: whoever pushes after that finds ASLEEP and writes.
 */
static void go_to_sleep(struct gyre__ring *ring)
{
	uint64_t fell_asleep_ns = gyre__sys->now_ns();

	ring->now_ns = fell_asleep_ns;
	if (!is_ending(ring) && !arm_wake(ring))
		return;
	if (!gyre__inbox_sleep(&ring->inbox, ring->sealed, nothing_is_left(ring)))
		return;
	sleep_until(ring, gyre__ring_next_deadline(ring));
	ring->now_ns = gyre__sys->now_ns();
	gyre__spin_slept_ns(&ring->spin, &ring->pace, ring->now_ns - fell_asleep_ns);
}

static uint64_t spin_budget(struct gyre__ring *ring)
{
	if (ring->patient_batches >= PATIENT_BATCHES && gyre__pace_sleeps_for_devices(&ring->pace))
		return 0;
	return gyre__spin_budget(&ring->spin, &ring->pace, false);
}

void gyre__ring_wait(struct gyre__ring *ring)
{
	uint64_t budget_ns, next_ns;

	gyre__ring_assert_owner(ring);
	if (gyre__unlikely(ring->phase == GYRE__RING_BURIED)) {
		gyre__ring_wait_buried(ring);
		return;
	}
	/* One that was taken from since the turn. */
	if (gyre__unlikely(gyre__streams_could_start(ring)))
		return;
	budget_ns = spin_budget(ring);
	if (budget_ns && ring->left_to_wait) {
		submit(ring);		/* who spins does not enter */
		return;
	}
	if (budget_ns) {
		next_ns = gyre__ring_next_deadline(ring);
		if (next_ns != GYRE__NEVER) {
			uint64_t now_ns = gyre__sys->now_ns();

			if (next_ns <= now_ns)
				return;
			if (budget_ns > next_ns - now_ns)
				budget_ns = next_ns - now_ns;
		}
		if (spin(ring, budget_ns))
			return;
	}
	go_to_sleep(ring);
}
