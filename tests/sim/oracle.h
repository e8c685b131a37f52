/* SPDX-License-Identifier: MIT */
/*
 * What must be true on every seed, whoever scheduled what.
 *
 * Each op of a scenario is a struct sim_call. Its prep leaves the address in the
 * SQE, so the fake kernel says here what it really did with it, the scenario
 * says what it was told, and the two are held against each other.
 */
#ifndef GYRE_SIM_ORACLE_H
#define GYRE_SIM_ORACLE_H

#include <gyre.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_CALL_MAGIC	0x51dca11u

struct sim_call {
	uint32_t magic;
	unsigned id;
	/* What is asked for. */
	uint8_t opcode;
	int fd;
	void *buf;
	uint32_t len;
	uint64_t offset;		/* or poll events, or the index of a registered buffer */
	uint8_t sqe_flags;
	uint32_t rw_flags;		/* or those of its opcode that share their place */
	/* What fd meant when the call was made; NULL: of no account. */
	const void *file;
	bool wrong;			/* the library must refuse it */
	const void *op;			/* its struct gyre_op, or NULL */
	const struct sim_call *before;	/* the one that it is linked to, or NULL */
	bool after_death;		/* a WORKER_DEAD had been told when it began */
	bool excused;			/* a task's that is cancelled */
	bool lent;			/* its memory is; until the answer */
	/* A task's: only the worker that it is sent to may take it. */
	bool bound;
	/* What the kernel has seen of it: its own account. */
	bool prepared;			/* its prep has run */
	unsigned taken;			/* SQEs consumed */
	unsigned flying;		/* of which the kernel still holds */
	bool touched;			/* it had an effect, whole or part */
	bool ended, broke;		/* it is over; and nothing linked to it may run */
	bool posted;			/* its CQE was made */
	bool delivered;			/* and was there to be seen while its ring lived */
	int res;			/* what the CQE said */
	uint64_t taken_ns, asked_ns, ended_ns;	/* see deadline.h */
	uint64_t refusals_before;	/* of the kernel, before it was sent */
	/* What the caller was told. */
	bool answered;
	bool left;			/* answered with GYRE_OP_LEAVE: the kernel may go on */
};

/* Counted over all seeds, to show what was reached. */
enum sim_reached {
	SIM_CALLS, SIM_OK, SIM_ERROR, SIM_TIMED_OUT, SIM_CANCELLED, SIM_CLOSED, SIM_DEAD, SIM_BUSY,
	SIM_INVALID, SIM_NO_MEMORY, SIM_UNKNOWN, SIM_LEFT,
	SIM_EINTR, SIM_EAGAIN, SIM_EBUSY, SIM_EBADR, SIM_FATAL, SIM_ETIME, SIM_PARTIAL,
	SIM_OVERFLOW,
	SIM_SHORT, SIM_OP_ERRNO, SIM_CANCEL_HIT, SIM_CANCEL_MISS, SIM_CANCEL_LATE, SIM_CANCEL_FIRST,
	SIM_CANCEL_SECOND, SIM_SLOW,
	SIM_CUT_OFF, SIM_LINK_BROKEN, SIM_TASK_WORK, SIM_CALL_FAILED, SIM_ALLOC_FAILED,
	SIM_OPEN_FAILED, SIM_LATE_REF, SIM_LATE_PUT,
	SIM_POWER_CUT, SIM_IMAGE_LACKS, SIM_IMAGE_TORN, SIM_IMAGE_REORDERED, SIM_FLUSH_FAILED,
	SIM_FLUSH_LIED, SIM_FILE_FULL, SIM_O_DSYNC, SIM_RWF_DSYNC, SIM_FLUSH_LATE,
	SIM_SHOT, SIM_LAST_SHOT, SIM_NO_BUFFER, SIM_PAUSED,
	SIM_JOBS, SIM_JOB_OK, SIM_JOB_CANCELLED, SIM_JOB_TIMED_OUT, SIM_JOB_DEAD, SIM_JOB_PANIC,
	SIM_JOB_NOT_BEGUN, SIM_JOB_BUSY, SIM_JOB_SHARED, SIM_TASK_CANCELLED, SIM_TASK_DROPPED,
	SIM_CIRCLE_REFUSED, SIM_WOKEN_FOR_NOTHING, SIM_STATE_MADE, SIM_STATE_RESET,
	SIM_STATE_CIRCLE, SIM_STATE_EVICTED, SIM_HELPERS_ALL_WAIT, SIM_REACHED_COUNT
};
extern const char *const sim_reached_names[SIM_REACHED_COUNT];
void sim_reach(enum sim_reached what);

void sim_oracle_begin(void);
void sim_oracle_end(void);		/* nothing is left: see kernel.c for its half */

/* Memory that the kernel may touch, from here to there. */
void sim_lend(const void *ptr, size_t len, struct sim_call *call);
void sim_take_back(const void *ptr);
/* The kernel touches it, for call or (NULL) for the library itself. */
void sim_touch(uint64_t addr, size_t len, const char *what);

/* The caller of call was told this. */
void sim_answered(struct sim_call *call, enum gyre_status status, enum gyre_effect effect, int res,
		  uint32_t flags, uint64_t timeout_ns, uint64_t start_ns);

/* The scenario begins a call. */
void sim_begin_call(struct sim_call *call);

/* A runtime was opened like this: what its answers are held against. */
void sim_expect(unsigned workers, unsigned inflight_max, uint64_t drain_ns);
unsigned sim_inflight_max(void);
/* Nothing in this seed delays: who comes back much after his last time-out was forgotten. */
void sim_expect_punctual(void);
void sim_returned(const struct sim_call *call, uint64_t deadline_ns);

/* Said by scenarios and by the fault machinery: what may excuse an answer. */
void sim_excuse_close(void);
void sim_excuse_cancel(const void *op, bool begins);
void sim_excuse_death(void);
void sim_excuse_flush(void);		/* one failed that no file knows of */
void sim_excuse_every_death(void);	/* of any worker, from here on */
void sim_excuse_fault(void);
bool sim_is_closed(void);
bool sim_drain_is_over(void);
bool sim_fault_happened(void);
bool sim_death_happened(void);
bool sim_call_has_failed(void);		/* one out of the library; a death is none */

#endif
