/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>

#include "coverage.h"
#include "deadline.h"
#include "kernel.h"
#include "sched.h"

#define LENT_MAX	512
#define ASKED_MAX	512
#define LATE_NS		(2 * SIM_MS)	/* what threads and rings may take of their own accord */

const char *const sim_reached_names[SIM_REACHED_COUNT] = {
	[SIM_CALLS] = "calls answered", [SIM_OK] = "OK", [SIM_ERROR] = "OK with an errno",
	[SIM_TIMED_OUT] = "TIMED_OUT", [SIM_CANCELLED] = "CANCELLED", [SIM_CLOSED] = "CLOSED",
	[SIM_DEAD] = "WORKER_DEAD", [SIM_BUSY] = "BUSY", [SIM_INVALID] = "INVALID",
	[SIM_NO_MEMORY] = "NO_MEMORY",
	[SIM_UNKNOWN] = "effect UNKNOWN", [SIM_LEFT] = "left behind",
	[SIM_EINTR] = "enter: EINTR", [SIM_EAGAIN] = "enter: EAGAIN", [SIM_EBUSY] = "enter: EBUSY",
	[SIM_EBADR] = "enter: EBADR", [SIM_FATAL] = "enter: fatal errno",
	[SIM_ETIME] = "enter: ETIME", [SIM_PARTIAL] = "partial submit",
	[SIM_OVERFLOW] = "CQ overflow",
	[SIM_SHORT] = "short read or write", [SIM_OP_ERRNO] = "op failed by dice",
	[SIM_CANCEL_HIT] = "cancel: 0", [SIM_CANCEL_MISS] = "cancel: ENOENT",
	[SIM_CANCEL_LATE] = "cancel: EALREADY", [SIM_CANCEL_FIRST] = "cancel's CQE first",
	[SIM_CANCEL_SECOND] = "cancelled op's CQE first", [SIM_SLOW] = "an op is slow",
	[SIM_CUT_OFF] = "cancelled half-way", [SIM_LINK_BROKEN] = "chain broken",
	[SIM_TASK_WORK] = "task work", [SIM_CALL_FAILED] = "a system call failed",
	[SIM_ALLOC_FAILED] = "an allocation failed", [SIM_OPEN_FAILED] = "gyre_open failed",
	[SIM_LATE_REF] = "descriptor looked up late",
	[SIM_LATE_PUT] = "file let go of after the CQE",
	[SIM_POWER_CUT] = "power cut", [SIM_IMAGE_LACKS] = "unsynced data vanished",
	[SIM_IMAGE_TORN] = "write torn by a cut",
	[SIM_IMAGE_REORDERED] = "writes reordered by a cut",
	[SIM_FLUSH_FAILED] = "flush failed", [SIM_FLUSH_LIED] = "flush lied after that",
	[SIM_FILE_FULL] = "device full", [SIM_O_DSYNC] = "O_DSYNC write",
	[SIM_RWF_DSYNC] = "RWF_DSYNC write", [SIM_FLUSH_LATE] = "cancel came during a flush",
	[SIM_SHOT] = "multishot result", [SIM_LAST_SHOT] = "multishot ends with a result",
	[SIM_NO_BUFFER] = "multishot lacks a buffer", [SIM_PAUSED] = "stream at rest",
	[SIM_JOBS] = "jobs answered", [SIM_JOB_OK] = "job: OK",
	[SIM_JOB_CANCELLED] = "job: CANCELLED",
	[SIM_JOB_TIMED_OUT] = "job: TIMED_OUT", [SIM_JOB_DEAD] = "job: WORKER_DEAD",
	[SIM_JOB_PANIC] = "job panicked", [SIM_JOB_NOT_BEGUN] = "job never began",
	[SIM_JOB_SHARED] = "two wait for one job",
	[SIM_JOB_BUSY] = "job outlives a wait for it", [SIM_TASK_CANCELLED] = "task cancelled",
	[SIM_CIRCLE_REFUSED] = "circle of waits refused",
	[SIM_TASK_DROPPED] = "task dropped", [SIM_WOKEN_FOR_NOTHING] = "woken up for nothing",
	[SIM_STATE_MADE] = "state made", [SIM_STATE_RESET] = "state reset",
	[SIM_HELPERS_ALL_WAIT] = "all helpers wait, and one is asked",
	[SIM_STATE_CIRCLE] = "state would be waited for in a circle",
	[SIM_STATE_EVICTED] = "state evicted for another key",
};

static struct {
	struct { uint64_t from, to; struct sim_call *call; } lent[LENT_MAX];
	unsigned lent_count, last_id;
	/* Ops whose end was asked for, in their present call; and how many ask just now. */
	struct { const void *op; bool asked; unsigned asking; } asked[ASKED_MAX];
	unsigned asked_count;
	unsigned workers, inflight_max;
	uint64_t drain_ns, closed_ns;
	bool closed, died, dead_told, fault, flush, punctual, all_may_die;
} oracle;

void sim_oracle_begin(void)
{
	memset(&oracle, 0, sizeof(oracle));
	sim_deadline_begin();
}

void sim_oracle_end(void)
{
	if (oracle.lent_count)
		sim_fail("the scenario has not taken back what it lent");
	sim_kernel_check_end();
}

void sim_expect(unsigned workers, unsigned inflight_max, uint64_t drain_ns)
{
	oracle.workers = workers;
	/* Of several at a time, what the most generous one allows. */
	if (oracle.inflight_max < inflight_max)
		oracle.inflight_max = inflight_max;
	oracle.drain_ns = drain_ns;
}

unsigned sim_inflight_max(void)
{
	return oracle.inflight_max;
}

void sim_expect_punctual(void)
{
	oracle.punctual = true;
}

void sim_returned(const struct sim_call *call, uint64_t deadline_ns)
{
	if (oracle.punctual && !oracle.fault && sim_now_ns() > gyre__deadline(deadline_ns, LATE_NS))
		sim_fail("call %u comes back %llu us after its time-out", call->id,
			 (unsigned long long)(sim_now_ns() - deadline_ns) / 1000);
}

void sim_excuse_close(void)
{
	if (!oracle.closed)
		oracle.closed_ns = sim_now_ns();
	oracle.closed = true;
	sim_deadline_closing();
}

bool sim_is_closed(void)
{
	return oracle.closed;
}

bool sim_drain_is_over(void)
{
	return oracle.closed && sim_now_ns() >= gyre__deadline(oracle.closed_ns, oracle.drain_ns);
}

static unsigned find_asked(const void *op)
{
	unsigned i;

	for (i = 0; i < oracle.asked_count; i++)
		if (oracle.asked[i].op == op)
			break;
	return i;
}

void sim_excuse_cancel(const void *op, bool begins)
{
	unsigned i = find_asked(op);

	if (i == ASKED_MAX)
		sim_fail("the scenario cancels too many ops");
	if (i == oracle.asked_count)
		oracle.asked[oracle.asked_count++].op = op;
	oracle.asked[i].asked = true;
	oracle.asked[i].asking += begins ? 1u : -1u;
}

static bool was_asked(const void *op)
{
	unsigned i = find_asked(op);

	return op && i < oracle.asked_count && oracle.asked[i].asked;
}

void sim_begin_call(struct sim_call *call)
{
	unsigned i = find_asked(call->op);

	call->id = ++oracle.last_id;
	call->after_death = oracle.dead_told;
	/* A cancel that has not returned yet may still hit this one. */
	if (i < oracle.asked_count)
		oracle.asked[i].asked = oracle.asked[i].asking > 0;
}

void sim_excuse_death(void)
{
	oracle.died = true;
	sim_deadline_died();
}

void sim_excuse_flush(void)
{
	oracle.flush = true;
}

void sim_excuse_fault(void)
{
	oracle.fault = true;
}

bool sim_fault_happened(void)
{
	return oracle.fault || oracle.died;
}

bool sim_call_has_failed(void)
{
	return oracle.fault;
}

void sim_excuse_every_death(void)
{
	sim_excuse_death();
	oracle.all_may_die = true;
}

bool sim_death_happened(void)
{
	return oracle.died;
}

/* -------------------------------------------------------------- memory -- */

void sim_lend(const void *ptr, size_t len, struct sim_call *call)
{
	if (oracle.lent_count == LENT_MAX)
		sim_fail("the scenario lends too much at once");
	oracle.lent[oracle.lent_count].from = (uintptr_t)ptr;
	oracle.lent[oracle.lent_count].to = (uintptr_t)ptr + len;
	oracle.lent[oracle.lent_count++].call = call;
}

void sim_take_back(const void *ptr)
{
	unsigned i;

	for (i = 0; i < oracle.lent_count; i++)
		if (oracle.lent[i].from == (uintptr_t)ptr)
			break;
	if (i == oracle.lent_count)
		sim_fail("the scenario takes back what it has not lent");
	oracle.lent[i] = oracle.lent[--oracle.lent_count];
}

void sim_touch(uint64_t addr, size_t len, const char *what)
{
	unsigned i;

	for (i = 0; i < oracle.lent_count; i++)
		if (addr >= oracle.lent[i].from && addr + len <= oracle.lent[i].to)
			return;
	if (!sim_kernel_owns(addr, len))
		sim_fail("the kernel touches memory that nobody lends any more (%s, %zu bytes)",
			 what, len);
}

/* --------------------------------------------------------------- truth -- */

/*
 * The one errno that is not the kernel's of this very op: a flush of a file whose
 * flush has failed, or may have, unheard, in a ring that died. It was given no
 * descriptor to flush, or its success was not believed.
 */
static bool is_failed_file(const struct sim_call *call, enum gyre_effect effect, int res)
{
	const struct sim_file *file = sim_file_get(call->fd);

	if (call->opcode != IORING_OP_FSYNC || !call->posted || res >= 0 || !file)
		return false;
	if (effect == GYRE_EFFECT_NONE)
		return call->res == -EBADF && !call->touched;
	return call->res >= 0 && (file->handle.data->errors > 0 || oracle.died || oracle.flush);
}

static void check_ok(const struct sim_call *call, enum gyre_effect effect, int res)
{
	sim_reach(SIM_OK);
	if (res < 0)
		sim_reach(SIM_ERROR);
	if (is_failed_file(call, effect, res))
		return;
	if (effect == GYRE_EFFECT_NONE)
		sim_fail("call %u: OK, but effect NONE", call->id);
	/* Only the library cancels here, and then it says so. */
	if (res == -ECANCELED)
		sim_fail("call %u: the kernel was told to cancel it, and nobody had asked",
			 call->id);
	if (!call->posted)
		sim_fail("call %u: OK with %d, but the kernel never said so", call->id, res);
	/* Where a flush was made to fail, the library may know better than the kernel. */
	if (call->res != res && !(oracle.fault && res < 0))
		sim_fail("call %u: OK with %d, but the kernel said %d", call->id, res, call->res);
}

static void check_cancelled(const struct sim_call *call, uint32_t flags)
{
	/* A task that is cancelled takes its ops with it, and has been asked why. */
	if (was_asked(call->op) || (flags & GYRE_OP_LINK) || call->excused)
		return;
	if (!oracle.closed)
		sim_fail("call %u: CANCELLED, and nobody has", call->id);
	if (!sim_drain_is_over())
		sim_fail("call %u: CANCELLED before the drain is over", call->id);
}

/* At most one worker a seed dies of the dice. */
static void check_dead(const struct sim_call *call)
{
	if (!oracle.died)
		sim_fail("call %u: WORKER_DEAD, and none is", call->id);
	if (call->after_death && oracle.workers > 1 && !oracle.all_may_die && !call->bound)
		sim_fail("call %u: WORKER_DEAD, while another worker lives", call->id);
	if (call->delivered)
		sim_fail("call %u: WORKER_DEAD, but the kernel had answered", call->id);
	oracle.dead_told = true;
}

/* Is there any reason in this seed for such an answer? */
static void check_excuse(const struct sim_call *call, enum gyre_status status, uint32_t flags,
			 uint64_t timeout_ns, uint64_t start_ns)
{
	switch (status) {
	case GYRE_TIMED_OUT:
		sim_reach(SIM_TIMED_OUT);
		if (!timeout_ns)
			sim_fail("call %u: TIMED_OUT without a time-out", call->id);
		if (sim_now_ns() < start_ns + timeout_ns)
			sim_fail("call %u: TIMED_OUT too early", call->id);
		break;
	case GYRE_CANCELLED:
		sim_reach(SIM_CANCELLED);
		check_cancelled(call, flags);
		break;
	case GYRE_CLOSED:
		sim_reach(SIM_CLOSED);
		if (!oracle.closed)
			sim_fail("call %u: CLOSED, and nobody has", call->id);
		break;
	case GYRE_WORKER_DEAD:
		sim_reach(SIM_DEAD);
		check_dead(call);
		break;
	case GYRE_BUSY:
		sim_reach(SIM_BUSY);
		if (!(flags & GYRE_OP_NOWAIT))
			sim_fail("call %u: BUSY, but it would have waited", call->id);
		break;
	case GYRE_NO_MEMORY:
		sim_reach(SIM_NO_MEMORY);
		if (!oracle.fault)
			sim_fail("call %u: %s, and nothing has failed", call->id,
				 gyre_status_name(status));
		break;
	case GYRE_INVALID:
		sim_reach(SIM_INVALID);
		if (!call->wrong && !(flags & GYRE_OP_LINK))
			sim_fail("call %u: INVALID, and nothing is wrong with it", call->id);
		break;
	default:
		sim_fail("call %u: no such answer: %s", call->id, gyre_status_name(status));
	}
}

void sim_answered(struct sim_call *call, enum gyre_status status, enum gyre_effect effect, int res,
		  uint32_t flags, uint64_t timeout_ns, uint64_t start_ns)
{
	sim_reach(SIM_CALLS);
	sim_note((uint64_t)call->id << 32 | (uint64_t)status << 8 | (uint64_t)effect);
	sim_trace("call %u is answered: %s, effect %s, %s", call->id, gyre_status_name(status),
		  effect == GYRE_EFFECT_NONE ? "none" :
		  effect == GYRE_EFFECT_DONE ? "done" : "unknown",
		  sim_result(res));
	if (call->answered)
		sim_fail("call %u is answered twice", call->id);
	call->answered = true;
	if (call->flying && !((flags & GYRE_OP_LEAVE) && status == GYRE_TIMED_OUT))
		sim_fail("call %u is answered (%s) while the kernel holds it", call->id,
			 gyre_status_name(status));
	/* It may even be submitted later: its SQE was filled, and its memory is the library's. */
	if ((flags & GYRE_OP_LEAVE) && status == GYRE_TIMED_OUT && effect != GYRE_EFFECT_NONE) {
		sim_reach(SIM_LEFT);
		call->left = true;
	}
	if (call->taken && (status == GYRE_INVALID || status == GYRE_CLOSED || status == GYRE_BUSY))
		sim_fail("call %u: %s, but it was submitted", call->id, gyre_status_name(status));
	if (call->taken > 1)
		sim_fail("call %u was submitted %u times", call->id, call->taken);
	if (effect == GYRE_EFFECT_UNKNOWN)
		sim_reach(SIM_UNKNOWN);
	if (effect == GYRE_EFFECT_NONE && (call->touched || call->flying))
		sim_fail("call %u: effect NONE is a lie: the kernel has done it", call->id);
	if (status == GYRE_OK)
		check_ok(call, effect, res);
	else
		check_excuse(call, status, flags, timeout_ns, start_ns);
}
