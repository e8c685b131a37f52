/* SPDX-License-Identifier: MIT */
#include "deadline.h"

#include "ring/sys.h"
#include "sched.h"

static struct {
	uint64_t kernel_ns;		/* when an op ended, or a closed ring was let go of, last */
	uint64_t died_ns, drain_ns;
	uint64_t drained_ns;		/* the end of the drain; SIM_NEVER: nobody closes */
	uint64_t refusals[2];		/* all; and those before the close */
	uint64_t refused_ns;		/* the last one */
	uint64_t burnt_ns;		/* CPU time of tasks that kept all others waiting */
} deadline;

void sim_deadline_begin(void)
{
	deadline.kernel_ns = deadline.died_ns = deadline.drain_ns = 0;
	deadline.drained_ns = SIM_NEVER;
	deadline.refusals[0] = deadline.refusals[1] = deadline.refused_ns = deadline.burnt_ns = 0;
}

void sim_deadline_taken(struct sim_call *call)
{
	call->taken_ns = sim_now_ns();
}

void sim_deadline_asked(struct sim_call *call)
{
	if (!call->asked_ns)
		call->asked_ns = sim_now_ns();
}

void sim_deadline_ended(struct sim_call *call)
{
	deadline.kernel_ns = sim_now_ns();
	if (call)
		call->ended_ns = sim_now_ns();
}

void sim_deadline_refused(void)
{
	deadline.refusals[0]++;
	deadline.refused_ns = sim_now_ns();
}

void sim_deadline_let_go(void)
{
	deadline.kernel_ns = sim_now_ns();
}

void sim_deadline_opened(uint64_t drain_ns)
{
	deadline.drain_ns = drain_ns;
	deadline.drained_ns = SIM_NEVER;
}

/* Those that are over: after the last one the ring may still pause. */
static uint64_t refusals_over(void)
{
	bool over = !deadline.refused_ns ||
		    deadline.refused_ns + SIM_LATE_REFUSAL_NS < sim_now_ns();

	return deadline.refusals[0] - (over ? 0 : 1);
}

void sim_deadline_closing(void)
{
	if (deadline.drained_ns != SIM_NEVER)
		return;
	deadline.drained_ns = gyre__deadline(sim_now_ns(), deadline.drain_ns);
	deadline.refusals[1] = refusals_over();
}

void sim_deadline_died(void)
{
	deadline.died_ns = sim_now_ns();
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* A fault that was put in stands for anything, and so for any delay. */
static void check_one(const char *kind, uint64_t done_ns, uint64_t due_ns, uint64_t bound_ns,
		      uint64_t refusals, unsigned id, const char *what)
{
	if (due_ns == SIM_NEVER || sim_call_has_failed() ||
	    done_ns <= due_ns + bound_ns + refusals * SIM_LATE_REFUSAL_NS + deadline.burnt_ns)
		return;
	sim_fail("%s %u: %s %llu us late", kind, id, what,
		 (unsigned long long)(done_ns - due_ns) / 1000);
}

static void check(uint64_t done_ns, uint64_t due_ns, uint64_t bound_ns, uint64_t refusals,
		  unsigned id, const char *what)
{
	check_one("call", done_ns, due_ns, bound_ns, refusals, id, what);
}

/* Past its time-out, or past the drain, a plain op is asked to end; unless it has ended by then. */
static void check_asked(const struct sim_call *call, const struct gyre_op *op, uint64_t start_ns,
			uint64_t refusals)
{
	uint64_t asked_ns = sim_now_ns();

	if (!call->taken)
		return;
	if (call->ended_ns && call->ended_ns < asked_ns)
		asked_ns = call->ended_ns;
	if (call->asked_ns && call->asked_ns < asked_ns)
		asked_ns = call->asked_ns;
	if (op && op->timeout_ns)
		check(asked_ns, later(gyre__deadline(start_ns, op->timeout_ns), call->taken_ns),
		      SIM_LATE_CANCEL_NS, refusals, call->id, "after its time-out, the cancel is");
	if (deadline.drained_ns != SIM_NEVER)
		check(asked_ns, later(deadline.drained_ns, call->taken_ns), SIM_LATE_CANCEL_NS,
		      deadline.refusals[0] - deadline.refusals[1], call->id,
		      "after the drain, the cancel is");
}

/* What call really had to wait for; SIM_NEVER: nobody knows. */
static uint64_t due_of(const struct sim_call *call, const struct gyre_op *op,
		       enum gyre_status status, uint64_t start_ns)
{
	/* A task's own worker may be the one that dies, and waits for its kernel first. */
	if (status == GYRE_WORKER_DEAD || (call->bound && deadline.died_ns))
		return later(later(deadline.died_ns, deadline.kernel_ns), start_ns);
	if (call->taken && !call->flying)
		return later(call->ended_ns, start_ns);
	if (status == GYRE_TIMED_OUT && op && op->timeout_ns)
		return gyre__deadline(start_ns, op->timeout_ns);
	return SIM_NEVER;
}

void sim_deadline_back(const struct sim_call *calls, const struct gyre_op *ops, unsigned count,
		       enum gyre_status status, uint64_t start_ns)
{
	uint64_t due_ns = 0, bound_ns = SIM_LATE_REPLY_NS;
	uint64_t refusals = deadline.refusals[0] - calls[0].refusals_before;
	bool linked = false;
	unsigned i;

	for (i = 0; i < count; i++) {
		const struct gyre_op *op = ops ? &ops[i] : NULL;
		enum gyre_status here = op ? op->status : status;

		/*
		 * Of a chain one op runs at a time, and it is asked; of a closed ring none can be.
		 */
		linked |= op && (op->flags & GYRE_OP_LINK);
		if (!linked && here != GYRE_WORKER_DEAD)
			check_asked(&calls[i], op, start_ns, refusals);
		linked = op && (op->flags & GYRE_OP_LINK);
		if (here == GYRE_WORKER_DEAD || (calls[i].bound && deadline.died_ns))
			bound_ns = SIM_LATE_DEATH_NS;
		due_ns = later(due_ns, due_of(&calls[i], op, here, start_ns));
	}
	check(sim_now_ns(), due_ns, bound_ns, refusals, calls[0].id, "the answer is");
}

void sim_deadline_sent(struct sim_call *call)
{
	call->taken_ns = call->asked_ns = call->ended_ns = 0;
	call->refusals_before = refusals_over();
}

void sim_deadline_closed(uint64_t start_ns)
{
	check(sim_now_ns(), later(start_ns, deadline.kernel_ns), SIM_LATE_CLOSE_NS,
	      deadline.refusals[0] - deadline.refusals[1], 0, "gyre_close() is");
}

/* ----------------------------------------------------------------- jobs -- */

void sim_deadline_burnt(uint64_t ns)
{
	deadline.burnt_ns += ns;
}

void sim_deadline_job_ended(void)
{
	deadline.kernel_ns = sim_now_ns();
}

uint64_t sim_deadline_refusals(void)
{
	return refusals_over();
}

uint64_t sim_deadline_drained_ns(void)
{
	return deadline.drained_ns;
}

/* Of what lives on a worker; one that dies waits for its kernel first. */
static void check_guest(const char *kind, uint64_t due_ns, uint64_t bound_ns, uint64_t refusals,
			unsigned id, const char *what)
{
	if (deadline.died_ns && due_ns != SIM_NEVER) {
		due_ns = later(due_ns, later(deadline.died_ns, deadline.kernel_ns));
		bound_ns = SIM_LATE_DEATH_NS;
	}
	check_one(kind, sim_now_ns(), due_ns, bound_ns, refusals, id, what);
}

void sim_deadline_begins(unsigned job)
{
	check_guest("job", deadline.drained_ns, SIM_LATE_CANCEL_NS,
		    deadline.refusals[0] - deadline.refusals[1], job, "after the drain, it begins");
}

void sim_deadline_task(unsigned task, uint64_t due_ns, uint64_t refusals_before, const char *what)
{
	check_guest("task", due_ns, SIM_LATE_ALARM_NS, deadline.refusals[0] - refusals_before, task,
		    what);
}

void sim_deadline_job(unsigned job, uint64_t due_ns)
{
	check_guest("job", due_ns, SIM_LATE_JOB_NS, deadline.refusals[0], job, "the answer is");
}
