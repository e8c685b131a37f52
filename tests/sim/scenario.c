/* SPDX-License-Identifier: MIT */
#include "scenario.h"

#include <stdio.h>

#include "deadline.h"
#include "sched.h"

#define DRAIN_NS_DEFAULT	(5 * SIM_S)	/* what 0 means */

bool sim_arenas_are_zero;

unsigned sim_many(unsigned small, unsigned large)
{
	return sim_large() ? large : small;
}

bool sim_open(unsigned workers, uint64_t drain_ns, struct gyre **ret)
{
	return sim_open_sized(workers, 1 + (unsigned)sim_random(sim_many(8, 64)), drain_ns, ret);
}

static bool open_with(struct gyre_options options, unsigned workers, unsigned inflight_max,
		      uint64_t drain_ns, struct gyre **ret)
{
	enum gyre_status status;

	options.workers = workers;
	options.ring_entries = 1u << sim_random(sim_many(4, 8));
	options.inflight_max = inflight_max;
	options.spin_ns = sim_chance(600) ? GYRE_SPIN_NEVER :
			  sim_chance(500) ? GYRE_SPIN_AUTO : 1 + sim_random(20 * SIM_US);
	options.drain_ns = drain_ns;
	sim_expect(workers, inflight_max, drain_ns ? drain_ns : DRAIN_NS_DEFAULT);
	options.flags |= sim_chance(300) ? GYRE_PIN_WORKERS : 0;
	sim_deadline_opened(drain_ns ? drain_ns : DRAIN_NS_DEFAULT);
	status = gyre_open(&options, ret);
	sim_trace("gyre_open: %s", gyre_status_name(status));
	sim_check_told(status);
	if (status == GYRE_OK)
		return true;
	sim_reach(SIM_OPEN_FAILED);
	if (!sim_fault_happened() && !sim_death_happened())
		sim_fail("gyre_open: %s (%s), and nothing has failed", gyre_status_name(status),
			 gyre_last_error());
	return false;
}

bool sim_open_sized(unsigned workers, unsigned inflight_max, uint64_t drain_ns, struct gyre **ret)
{
	return open_with((struct gyre_options)GYRE_OPTIONS_INIT, workers, inflight_max, drain_ns,
			 ret);
}

bool sim_open_for_jobs(unsigned workers, uint64_t drain_ns, struct gyre **ret)
{
	return sim_open_with_states(workers, drain_ns, NULL, ret);
}

bool sim_open_with_helpers(unsigned workers, unsigned helpers, uint64_t drain_ns,
			   struct gyre **ret)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;

	options.offload_threads = helpers;
	return open_with(options, workers, 1 + (unsigned)sim_random(sim_many(8, 64)), drain_ns,
			 ret);
}

bool sim_open_with_states(unsigned workers, uint64_t drain_ns, const struct gyre_state_type *type,
			  struct gyre **ret)
{
	return sim_open_with_pool(workers, drain_ns, type, 0, ret);
}

bool sim_open_with_pool(unsigned workers, uint64_t drain_ns, const struct gyre_state_type *type,
			unsigned size, struct gyre **ret)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;

	options.state = type;
	options.pool_size = size;
	sim_arenas_are_zero = sim_chance(400);
	options.flags = sim_arenas_are_zero ? GYRE_ZERO_ARENAS : 0;
	options.stall_ns = sim_chance(300) ? 10 * SIM_US : 0;
	return open_with(options, workers, 1 + (unsigned)sim_random(sim_many(8, 64)), drain_ns,
			 ret);
}

void sim_check_told(enum gyre_status status)
{
	static const char nothing[] = "no error: ";
	bool silent = strncmp(gyre_last_error(), nothing, strlen(nothing)) == 0;

	/* Out of memory for the thread's record, there is nowhere to note anything. */
	if (status == GYRE_NO_MEMORY && !sim_pointer_get() && sim_fault_happened() && !silent)
		return;
	if (gyre_last_status() != status)
		sim_fail("%s was answered, and gyre_last_status() says %s",
			 gyre_status_name(status), gyre_status_name(gyre_last_status()));
	if (silent != (status == GYRE_OK))
		sim_fail("%s was answered, and gyre_last_error() says \"%s\"",
			 gyre_status_name(status), gyre_last_error());
}

void sim_close_runtime(struct gyre *rt)
{
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;

	sim_excuse_close();
	sim_trace("closes the runtime");
	status = gyre_close(rt);
	sim_check_told(status);
	sim_deadline_closed(start_ns);
	if (status != GYRE_OK && !sim_fault_happened())
		sim_fail("gyre_close: %s", gyre_status_name(status));
	if (status == GYRE_OK && sim_uring_has_calls())
		sim_fail("the runtime is closed, and the kernel still holds a call");
}

enum gyre_status sim_cancel(struct gyre *rt, struct gyre_op *op)
{
	enum gyre_status status;

	sim_excuse_cancel(op, true);
	status = gyre_op_cancel(rt, op);
	sim_excuse_cancel(op, false);
	return status;
}

void sim_sleep(uint64_t ns)
{
	gyre__sys->sleep_ns(ns);
}

void sim_call_init(struct sim_call *call, uint8_t opcode, int fd, void *buf, uint32_t len,
		   uint64_t offset)
{
	memset(call, 0, sizeof(*call));
	call->magic = SIM_CALL_MAGIC;
	call->opcode = opcode;
	call->fd = fd;
	call->buf = buf;
	call->len = len;
	call->offset = offset;
}

void sim_call_wrong(struct sim_call *call)
{
	sim_call_init(call, IORING_OP_NOP, -1, NULL, 0, 0);
	call->sqe_flags = IOSQE_IO_DRAIN;	/* it would hold up everybody's ops */
	call->wrong = true;
}

void sim_call_timeout(struct sim_call *call, struct __kernel_timespec *ts, uint64_t ns)
{
	sim_call_init(call, IORING_OP_TIMEOUT, -1, ts, sizeof(*ts), 0);
	ts->tv_sec = (int64_t)(ns / SIM_S);
	ts->tv_nsec = (long long)(ns % SIM_S);
}

void sim_prep(struct io_uring_sqe *sqe, void *arg)
{
	struct sim_call *call = arg;

	if (call->answered)
		sim_fail("the prep of call %u runs after its answer", call->id);
	call->prepared = true;
	switch (call->opcode) {
	case IORING_OP_NOP:
		io_uring_prep_nop(sqe);
		break;
	case IORING_OP_READ:
		io_uring_prep_read(sqe, call->fd, call->buf, call->len, call->offset);
		break;
	case IORING_OP_WRITE:
		io_uring_prep_write(sqe, call->fd, call->buf, call->len, call->offset);
		break;
	case IORING_OP_READ_FIXED:
		io_uring_prep_read_fixed(sqe, call->fd, call->buf, call->len, 0, (int)call->offset);
		break;
	case IORING_OP_WRITE_FIXED:
		io_uring_prep_write_fixed(sqe, call->fd, call->buf, call->len, 0,
					  (int)call->offset);
		break;
	case IORING_OP_SEND_ZC:
		io_uring_prep_send_zc(sqe, call->fd, call->buf, call->len, 0, 0);
		break;
	case IORING_OP_FSYNC:
		io_uring_prep_fsync(sqe, call->fd, 0);
		break;
	case IORING_OP_SYNC_FILE_RANGE:
		io_uring_prep_sync_file_range(sqe, call->fd, call->len, call->offset, 0);
		break;
	case IORING_OP_POLL_ADD:
		io_uring_prep_poll_add(sqe, call->fd, (unsigned)call->offset);
		break;
	case IORING_OP_TIMEOUT:
		io_uring_prep_timeout(sqe, call->buf, 0, 0);
		break;
	default:
		sim_fail("sim_prep() does not know opcode %u", call->opcode);
	}
	sqe->flags |= call->sqe_flags;
	sqe->rw_flags |= (int)call->rw_flags;
	sqe->addr3 = (uintptr_t)call;	/* for the simulated kernel, and nobody else */
}

static void lend(struct sim_call *call)
{
	sim_begin_call(call);
	sim_deadline_sent(call);
	call->lent = call->buf && !call->left;
	if (call->lent)
		sim_lend(call->buf, call->len, call);
}

static void take_back(struct sim_call *call)
{
	if (call->lent)
		sim_take_back(call->buf);
	call->lent = false;
}

void sim_call_dropped(struct sim_call *call)
{
	if (call->taken)
		sim_fail("call %u was submitted, and its task is dropped before the answer",
			 call->id);
	take_back(call);
}

/* For whoever reads along. */
static void say_call(const struct sim_call *call, const char *how, const struct gyre_op *op)
{
	uint32_t flags = op ? op->flags : 0;
	char where[40] = "", timeout[48] = "";

	if (!sim_verbose)
		return;
	if (call->fd >= 0)
		snprintf(where, sizeof(where), " of descriptor %d, %u bytes", call->fd, call->len);
	if (op && op->timeout_ns)
		snprintf(timeout, sizeof(timeout), ", time-out %llu ns",
			 (unsigned long long)op->timeout_ns);
	sim_say("call %u: %s, %s%s%s%s%s%s", call->id, how, sim_op_name(call->opcode), where,
		flags & GYRE_OP_LINK ? ", LINK" : "", flags & GYRE_OP_NOWAIT ? ", NOWAIT" : "",
		flags & GYRE_OP_LEAVE ? ", LEAVE" : "", timeout);
}

enum gyre_status sim_call_one(struct gyre *rt, struct sim_call *call)
{
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;
	int res = -1;

	lend(call);
	say_call(call, "gyre_call", NULL);
	status = gyre_call(rt, sim_prep, call, &res);
	sim_check_told(status);
	sim_deadline_back(call, NULL, 1, status, start_ns);
	call->excused = gyre_cancelled();
	sim_answered(call, status, gyre_last_effect(), res, 0, 0, 0);
	take_back(call);
	return status;
}

enum gyre_status sim_call_many(struct gyre *rt, struct sim_call *calls, struct gyre_op *ops,
			       unsigned count)
{
	uint64_t start_ns = sim_now_ns(), timeout_ns = 0, last_ns = 0;
	enum gyre_status status;
	uint32_t before = 0;
	unsigned i;

	for (i = 0; i < count; i++) {
		calls[i].op = &ops[i];
		calls[i].before = before & GYRE_OP_LINK ? &calls[i - 1] : NULL;
		before = ops[i].flags;
		lend(&calls[i]);
		ops[i].prep = sim_prep;
		ops[i].arg = &calls[i];
		say_call(&calls[i], "gyre_callv", &ops[i]);
	}
	for (i = 0; i < count; i++) {
		timeout_ns = ops[i].timeout_ns ? ops[i].timeout_ns : GYRE_FOREVER;
		if (last_ns < timeout_ns)
			last_ns = timeout_ns;
	}
	status = gyre_callv(rt, ops, count);
	sim_check_told(status);
	sim_deadline_back(calls, ops, count, status, start_ns);
	sim_returned(&calls[0], gyre__deadline(start_ns, last_ns));
	before = 0;
	timeout_ns = 0;
	for (i = 0; i < count; i++) {
		/* A chain's time-out is its first op's, and any op of it may be passed over. */
		if (!(before & GYRE_OP_LINK))
			timeout_ns = ops[i].timeout_ns;
		calls[i].excused = gyre_cancelled();
		sim_answered(&calls[i], ops[i].status, ops[i].effect, ops[i].res,
			     ops[i].flags | (before & GYRE_OP_LINK), timeout_ns, start_ns);
		take_back(&calls[i]);
		before = ops[i].flags;
	}
	return status;
}
