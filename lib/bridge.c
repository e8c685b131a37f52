/* SPDX-License-Identifier: MIT */
/*
 * gyre_call, gyre_callv and gyre_op_cancel: a batch is filled from the caller's
 * ops, sent to one worker, waited for, and read back.
 *
 * Modelled in tests/models/: tickets (fill_batch(), poke_if_cancelled(),
 * reissue_tickets(), mark_cancelled(), gyre_op_cancel()) in cancel.pml,
 * send_and_wait() in reply.pml, travel() in close.pml.
 */
#include "bridge.h"

#include <errno.h>
#include <string.h>

#include "ring/ring.h"
#include "ring/sanitize.h"

#define COUNT_MAX	(1u << 24)
#define OP_FLAGS	(GYRE_OP_LINK | GYRE_OP_NOWAIT | GYRE_OP_LEAVE)

/* -------------------------------------------------------------- travel -- */

/*
 * A ticket is live before its op is pushed, so somebody may have asked for the
 * op's end, and the owner may have looked for it, too early. Whoever was too
 * early is seen here, behind the push: then the owner is to look again.
 */
static void poke_if_cancelled(struct gyre__worker *worker, const struct gyre__batch *batch)
{
	uint32_t i;

	for (i = 0; i < batch->count; i++)
		if (gyre__load(gyre__op_ticket(&batch->ops[i]), relaxed) & GYRE__TICKET_CANCEL) {
			gyre__ring_poke(&worker->ring);
			return;
		}
}

/* A task that waits for its batch, and where that is. */
struct batch_wait {
	struct gyre__wait wait;
	struct gyre__batch *batch;
	struct gyre__worker *worker;
};

/*
 * The task was cancelled: so are its ops, and when they have all come to an end, so has the wait.
 */
static void interrupt_batch(struct gyre__task *task, struct gyre__wait *wait)
{
	struct batch_wait *batch_wait = gyre__container_of(wait, struct batch_wait, wait);
	struct gyre__batch *batch = batch_wait->batch;
	uint32_t i;

	(void)task;
	for (i = 0; i < batch->count; i++) {
		_Atomic uint64_t *word = gyre__op_ticket(&batch->ops[i]);
		uint64_t ticket = gyre__load(word, acquire);

		while (!gyre__cas(word, &ticket, ticket | GYRE__TICKET_CANCEL, acq_rel))
			;
	}
	/* Its own ring's, too: that may be in the middle of this very batch, whose prep asks. */
	gyre__ring_poke(&batch_wait->worker->ring);
}

/* The same of a task: on its own worker's ring without a detour, and parked meanwhile. */
static enum gyre_status send_and_park(struct gyre__thread *self, struct gyre__worker *worker)
{
	struct batch_wait batch_wait = {
		.wait = { .what = "ops", .interrupt = interrupt_batch },
		.batch = &self->batch,
		.worker = worker,
	};
	enum gyre_status status;
	bool woken;

	if (worker == self->worker)
		status = gyre__ring_take_own(&worker->ring, &self->batch);
	else
		status = gyre__ring_send(&worker->ring, &self->batch, &woken);
	if (gyre__unlikely(status != GYRE_OK))
		return status;
	poke_if_cancelled(worker, &self->batch);
	gyre__task_park(self->task, &batch_wait.wait);
	self->reply.odd = self->batch.odd;
	return GYRE_OK;
}

/* Sends self's batch to worker and waits. GYRE_OK: every op of it was answered. */
static inline enum gyre_status send_and_wait(struct gyre__thread *self, struct gyre__worker *worker)
{
	enum gyre_status status;
	bool woken;

	if (gyre__unlikely(self->task))
		return send_and_park(self, worker);
	gyre__reply_expect(&self->reply);
	status = gyre__ring_send(&worker->ring, &self->batch, &woken);
	if (gyre__unlikely(status != GYRE_OK)) {
		gyre__reply_forget(&self->reply);
		return status;
	}
	if (self->batch.ops)
		poke_if_cancelled(worker, &self->batch);
	if (self->batch.flags & GYRE__BATCH_PATIENT &&
	    gyre__pace_sleeps_for_devices(&worker->ring.pace))
		gyre__reply_await(&self->reply);
	else
		gyre__reply_wait(&self->reply, &self->reply.spin, &worker->ring.pace, woken);
	return GYRE_OK;
}

/* To the worker that the caller sticks to; from one that has died to another, if there is one. */
static enum gyre_status travel(struct gyre__thread *self, struct gyre *rt, struct gyre__home *home)
{
	enum gyre_status status;

	if (gyre__unlikely(gyre__thread_is_at_home(self, rt)))
		return send_and_wait(self, self->worker);
	do {
		struct gyre__worker *worker = gyre__crew_choose(rt->crew, &home->worker);

		if (gyre__unlikely(!worker))
			return GYRE_WORKER_DEAD;
		status = send_and_wait(self, worker);
	} while (gyre__unlikely(status == GYRE_WORKER_DEAD));
	return status;
}

static enum gyre_status report_unsent(const char *function, enum gyre_status status)
{
	return gyre__fail(function, status, "%s", status == GYRE_WORKER_DEAD ?
			  "no worker is left alive to take it; nothing was submitted" :
			  status == GYRE_CANCELLED ?
			  "the runtime's time to drain is over; nothing was submitted" :
			  "the runtime was closed meanwhile; nothing was submitted");
}

/* Reports what became of one op, in words. */
static enum gyre_status report_verdict(const char *function, gyre__verdict verdict,
				       struct gyre__result result)
{
	enum gyre_status status = gyre__verdict_status(verdict);
	enum gyre_effect effect = gyre__verdict_effect(verdict);

	if (status == GYRE_INVALID || status == GYRE_UNSUPPORTED)
		return gyre__fail_effect(function, status, effect, "%s",
					 gyre__refusal_text((enum gyre__refusal)result.res));
	return gyre__fail_effect(function, status, effect, "%s %s", gyre_status_text(status),
				 effect == GYRE_EFFECT_NONE ? "The kernel never saw it." :
				 "It may have happened, wholly or in part.");
}

/* ----------------------------------------------------------- one op -- */

/* self's batch of one, to be filled by its user where more is needed. */
static inline struct gyre__batch *batch_of_one(struct gyre__thread *self, gyre_prep_fn *prep,
					       void *arg)
{
	struct gyre__batch *batch = &self->batch;

	gyre__set_if_changed(batch->entries, &batch->one);
	gyre__set_if_changed(batch->one.prep, prep);
	gyre__set_if_changed(batch->one.arg, arg);
	gyre__set_if_changed(batch->results, &self->reply.one);
	gyre__set_if_changed(batch->verdicts, &self->reply.one_verdict);
	gyre__set_if_changed(batch->ops, NULL);
	gyre__set_if_changed(batch->count, 1);
	gyre__set_if_changed(batch->flags, 0);
	return batch;
}

/* In a task, what can be cancelled has an op whose ticket says so; nobody else knows this one. */
static inline void give_ticket(struct gyre__thread *self, struct gyre_op *op)
{
	if (gyre__likely(!self->task))
		return;
	gyre__store(gyre__op_ticket(op), GYRE__TICKET_LIVE, relaxed);
	self->batch.ops = op;
}

/* The one verdict, taken out: it must be zero when the batch is sent again. */
static inline gyre__verdict take_one_verdict(struct gyre__thread *self)
{
	gyre__verdict verdict = self->reply.one_verdict;

	self->reply.one_verdict = 0;
	return verdict;
}

enum gyre_status gyre_call(struct gyre *rt, gyre_prep_fn *prep, void *arg, int *ret_res)
{
	struct gyre__thread *self;
	struct gyre__home *home;
	struct gyre_op op;
	enum gyre_status status = gyre__runtime_enter("gyre_call", &rt, &self);

	if (gyre__unlikely(status != GYRE_OK))
		return status;
	if (gyre__unlikely(!prep)) {
		gyre__thread_leave(self);
		return gyre__fail("gyre_call", GYRE_INVALID, "prep is NULL");
	}
	home = gyre__thread_home(self, rt);
	gyre__count(&home->calls, 1);
	batch_of_one(self, prep, arg);
	give_ticket(self, &op);
	status = travel(self, rt, home);
	gyre__thread_leave(self);

	if (gyre__unlikely(status != GYRE_OK))
		return report_unsent("gyre_call", status);
	if (gyre__unlikely(self->reply.odd)) {
		gyre__verdict verdict = take_one_verdict(self);

		status = gyre__verdict_status(verdict);
		if (status != GYRE_OK) {
			report_verdict("gyre_call", verdict, self->reply.one);
		} else {
			gyre__thread_succeed(self);
			self->last_effect = gyre__verdict_effect(verdict);
		}
	} else {
		gyre__thread_succeed(self);
	}
	if (ret_res && status == GYRE_OK)
		*ret_res = self->reply.one.res;
	return status;
}

static ssize_t bridge_call(struct gyre__thread *self, struct gyre *rt, const char *function,
			   gyre_prep_fn *prep, void *arg, uint32_t flags, uint64_t timeout_ns)
{
	struct gyre__home *home = gyre__thread_home(self, rt);
	struct gyre__batch *batch;
	struct gyre_op op;		/* nobody else knows it */
	gyre__verdict verdict;
	enum gyre_status status;

	batch = batch_of_one(self, prep, arg);
	gyre__set_if_changed(batch->flags, flags);
	if (timeout_ns)
		op = (struct gyre_op){ .timeout_ns = timeout_ns };
	give_ticket(self, &op);
	if (timeout_ns) {
		batch->flags = flags | GYRE__BATCH_DETAILED | GYRE__BATCH_TIMED;
		batch->ops = &op;
		batch->start_ns = gyre__sys->now_ns();
	}
	status = travel(self, rt, home);
	if (status != GYRE_OK) {
		report_unsent(function, status);
		return gyre_status_errno(status);
	}
	verdict = take_one_verdict(self);
	if (gyre__verdict_status(verdict) != GYRE_OK)
		return gyre_status_errno(report_verdict(function, verdict, self->reply.one));
	gyre__thread_succeed(self);
	self->last_effect = gyre__verdict_effect(verdict);
	return self->reply.one.res;
}

ssize_t gyre__bridge_call(struct gyre__thread *self, struct gyre *rt, const char *function,
			  gyre_prep_fn *prep, void *arg, uint64_t timeout_ns)
{
	return bridge_call(self, rt, function, prep, arg, 0, timeout_ns);
}

ssize_t gyre__bridge_call_device(struct gyre__thread *self, struct gyre *rt, const char *function,
				 gyre_prep_fn *prep, void *arg, struct gyre__waiter *waiter)
{
	struct gyre__waiter *own = self->batch.waiter;
	ssize_t res;

	if (waiter)
		self->batch.waiter = waiter;
	res = bridge_call(self, rt, function, prep, arg, GYRE__BATCH_PATIENT, 0);
	if (waiter)
		self->batch.waiter = own;
	return res;
}

bool gyre__bridge_control(struct gyre__thread *self, struct gyre__worker *worker,
			  bool (*control)(struct gyre__ring *ring, struct gyre__batch *batch),
			  void *arg)
{
	struct gyre__batch *batch = batch_of_one(self, NULL, NULL);

	batch->count = 0;
	batch->flags = GYRE__BATCH_CONTROL;
	batch->control = control;
	batch->control_arg = arg;
	gyre__reply_expect(&self->reply);
	if (!gyre__ring_control(&worker->ring, batch)) {
		gyre__reply_forget(&self->reply);
		return false;
	}
	gyre__reply_wait(&self->reply, &self->reply.spin, &worker->ring.pace, false);
	return true;
}

/* ------------------------------------------------------------- many ops -- */

/* Is this op, by its own fields, one that may be sent? */
static inline bool op_is_sound(const struct gyre_op *op, uint32_t first_worker, bool continues)
{
	return op->prep && !(op->flags & ~OP_FLAGS) && op->reserved[0] == 0 &&
	       op->reserved[1] == 0 && (op->worker == first_worker || op->worker == 0) &&
	       !(continues && op->timeout_ns);
}

/*
 * From the caller's ops into the batch. An op that is refused already travels
 * without a prep, so that there is one place that answers refusals, chains and
 * all. Returns the batch's flags.
 */
static uint32_t fill_batch(struct gyre__thread *self, struct gyre_op *ops, uint32_t count,
			   uint64_t ticket)
{
	struct gyre__entry *entries = self->entries;
	uint32_t seen_flags = 0, i;
	uint64_t seen_timeout = 0;
	bool continues = false;

	for (i = 0; i < count; i++) {
		struct gyre_op *op = &ops[i];

		gyre__set_if_changed(entries[i].prep,
				     gyre__likely(op_is_sound(op, ops[0].worker, continues)) ?
				     op->prep : NULL);
		gyre__set_if_changed(entries[i].arg, op->arg);
		seen_flags |= op->flags;
		seen_timeout |= op->timeout_ns;
		continues = op->flags & GYRE_OP_LINK;
		gyre__store(gyre__op_ticket(op), ticket, release);
	}
	if (continues)	/* to nowhere */
		entries[count - 1].prep = NULL;
	return (seen_flags || seen_timeout ? GYRE__BATCH_DETAILED : 0) |
	       (seen_timeout ? GYRE__BATCH_TIMED : 0) |
	       (seen_flags & GYRE_OP_NOWAIT ? GYRE__BATCH_NOWAIT : 0);
}

/* None of ops was sent. */
static void answer_unsent(struct gyre_op *ops, size_t count, enum gyre_status status)
{
	size_t i;

	for (i = 0; i < count; i++) {
		ops[i].res = -ECANCELED;
		ops[i].cqe_flags = 0;
		ops[i].status = status;
		ops[i].effect = GYRE_EFFECT_NONE;
		gyre__store(gyre__op_ticket(&ops[i]), 0, relaxed);
	}
}

/* All went well, as far as the library is concerned: the hot loop. */
static void read_back(const struct gyre__result *results, struct gyre_op *ops, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		ops[i].res = results[i].res;
		ops[i].cqe_flags = results[i].cqe_flags;
		ops[i].status = GYRE_OK;
		ops[i].effect = GYRE_EFFECT_DONE;
		gyre__store(gyre__op_ticket(&ops[i]), 0, relaxed);
	}
}

/*
 * Something did not: the call's status is GYRE_INVALID if any op's is, else the first unlike
 * GYRE_OK.
 */
static enum gyre_status read_back_odd(struct gyre__thread *self, struct gyre_op *ops,
				      uint32_t count)
{
	const struct gyre__result *results = self->batch.results;
	uint32_t i, worst = count;

	read_back(results, ops, count);
	for (i = 0; i < count; i++) {
		gyre__verdict verdict = self->batch.verdicts[i];
		enum gyre_status status = gyre__verdict_status(verdict);

		ops[i].status = status;
		ops[i].effect = gyre__verdict_effect(verdict);
		if (status == GYRE_INVALID || status == GYRE_UNSUPPORTED)
			ops[i].res = -ECANCELED;	/* results[] has the refusal there */
		if (status != GYRE_OK && (worst == count || (status == GYRE_INVALID &&
							     ops[worst].status != GYRE_INVALID)))
			worst = i;
	}
	if (worst == count)
		gyre__thread_succeed(self);
	else
		report_verdict("gyre_callv", self->batch.verdicts[worst], results[worst]);
	memset(self->batch.verdicts, 0, count * sizeof(gyre__verdict));
	return worst == count ? GYRE_OK : ops[worst].status;
}

/* The first worker has died: the ops are another's now, and whoever cancelled some has. */
static void reissue_tickets(struct gyre_op *ops, uint32_t count, uint64_t ticket)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		_Atomic uint64_t *word = gyre__op_ticket(&ops[i]);
		uint64_t found = gyre__load(word, relaxed);

		while (!gyre__cas(word, &found, ticket | (found & GYRE__TICKET_CANCEL), acq_rel))
			;
	}
}

static struct gyre__worker *worker_for(struct gyre__thread *self, struct gyre *rt,
				       const struct gyre_op *first, struct gyre__home *home)
{
	if (first->worker)
		return rt->crew->worker[first->worker - 1];
	if (gyre__unlikely(gyre__thread_is_at_home(self, rt)))
		return self->worker;
	return gyre__crew_choose(rt->crew, &home->worker);
}

/* To the worker that ops[0] names, or wherever home says. */
static enum gyre_status travel_with(struct gyre__thread *self, struct gyre *rt,
				    struct gyre_op *ops, uint32_t count)
{
	struct gyre__home *home = gyre__thread_home(self, rt);
	struct gyre__worker *worker = worker_for(self, rt, ops, home);
	struct gyre__batch *batch = &self->batch;
	enum gyre_status status;

	gyre__count(&home->calls, 1);
	if (!worker)
		return GYRE_WORKER_DEAD;
	gyre__set_if_changed(batch->entries, self->entries);
	gyre__set_if_changed(batch->results, self->results);
	gyre__set_if_changed(batch->verdicts, self->verdicts);
	gyre__set_if_changed(batch->ops, ops);
	gyre__set_if_changed(batch->count, count);
	gyre__set_if_changed(batch->flags,
			     fill_batch(self, ops, count,
					gyre__ticket_make(rt->id, worker->number)));
	if (batch->flags & GYRE__BATCH_TIMED)
		batch->start_ns = gyre__sys->now_ns();
	for (;;) {
		status = send_and_wait(self, worker);
		if (gyre__likely(status != GYRE_WORKER_DEAD) || ops[0].worker != 0 ||
		    gyre__thread_is_at_home(self, rt))
			return status;
		worker = worker_for(self, rt, ops, home);
		if (!worker)
			return GYRE_WORKER_DEAD;
		reissue_tickets(ops, count, gyre__ticket_make(rt->id, worker->number));
	}
}

static enum gyre_status callv_inside(struct gyre__thread *self, struct gyre *rt,
				     struct gyre_op *ops, uint32_t count)
{
	enum gyre_status status;

	if (gyre__unlikely(ops[0].worker > rt->crew->count)) {
		answer_unsent(ops, count, GYRE_INVALID);
		return gyre__fail("gyre_callv", GYRE_INVALID, "ops[0].worker names worker %u of %u",
				  ops[0].worker - 1, rt->crew->count);
	}
	if (gyre__unlikely(!gyre__thread_make_arrays(self, count))) {
		answer_unsent(ops, count, GYRE_NO_MEMORY);
		return gyre__fail("gyre_callv", GYRE_NO_MEMORY, "out of memory for %u ops", count);
	}
	status = travel_with(self, rt, ops, count);
	if (gyre__unlikely(status != GYRE_OK)) {
		answer_unsent(ops, count, status);
		report_unsent("gyre_callv", status);
	} else if (gyre__unlikely(self->reply.odd)) {
		status = read_back_odd(self, ops, count);
	} else {
		read_back(self->results, ops, count);
		gyre__thread_succeed(self);
	}
	gyre__thread_trim_arrays(self);
	return status;
}

enum gyre_status gyre_callv(struct gyre *rt, struct gyre_op *ops, size_t count)
{
	struct gyre__thread *self;
	enum gyre_status status = gyre__runtime_enter("gyre_callv", &rt, &self);

	if (gyre__unlikely(status != GYRE_OK)) {
		if (ops && count <= COUNT_MAX)
			answer_unsent(ops, count, status);
		return status;
	}
	if (gyre__unlikely(count == 0))
		gyre__thread_succeed(self);
	else if (gyre__unlikely(!ops))
		status = gyre__fail("gyre_callv", GYRE_INVALID, "ops is NULL");
	else if (gyre__unlikely(count > COUNT_MAX))
		status = gyre__fail("gyre_callv", GYRE_INVALID, "%zu ops are more than %u", count,
				    COUNT_MAX);
	else
		status = callv_inside(self, rt, ops, (uint32_t)count);
	gyre__thread_leave(self);
	return status;
}

/* ------------------------------------------------------------- cancel -- */

/* Marks op's ticket. False: op is not under way in rt. */
static bool mark_cancelled(struct gyre *rt, struct gyre_op *op, unsigned *ret_worker)
{
	_Atomic uint64_t *word = gyre__op_ticket(op);
	uint64_t ticket = gyre__load(word, acquire);

	do
		if (!(ticket & GYRE__TICKET_LIVE) || gyre__ticket_runtime(ticket) != rt->id)
			return false;
	while (!gyre__cas(word, &ticket, ticket | GYRE__TICKET_CANCEL, acq_rel));
	*ret_worker = gyre__ticket_worker(ticket);
	return *ret_worker < rt->crew->count;
}

enum gyre_status gyre_op_cancel(struct gyre *rt, struct gyre_op *op)
{
	enum gyre_status status = gyre__runtime_look("gyre_op_cancel", &rt);
	unsigned worker;

	if (status != GYRE_OK)
		return status;
	if (!op) {
		gyre__runtime_leave(rt);
		return gyre__fail("gyre_op_cancel", GYRE_INVALID, "op is NULL");
	}
	/* While it drains, there may be something to cancel. */
	if (!mark_cancelled(rt, op, &worker))
		status = gyre__load(&rt->closed, acquire) ?
			 gyre__fail("gyre_op_cancel", GYRE_CLOSED, "the runtime is closed") :
			 gyre__fail("gyre_op_cancel", GYRE_NOT_FOUND,
				    "the op is not under way in this runtime");
	else
		gyre__ring_poke(&rt->crew->worker[worker]->ring);
	gyre__runtime_leave(rt);
	return status == GYRE_OK ? gyre__succeed() : status;
}
