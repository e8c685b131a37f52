/* SPDX-License-Identifier: MIT */
/*
 * How late anything may be, in figures of the virtual clock: nobody waits for
 * the library longer than these after what he really had to wait for, which is
 * his time-out, the end of a drain, or the kernel. They are the promises of
 * ARCHITECTURE.md, "Limits": who changes one changes the other.
 */
#ifndef GYRE_SIM_DEADLINE_H
#define GYRE_SIM_DEADLINE_H

#include <gyre.h>
#include <stdint.h>

#include "oracle.h"

/* A time-out or a drain is over: the kernel is asked. */
#define SIM_LATE_CANCEL_NS	(1 * SIM_MS)
#define SIM_LATE_REPLY_NS	(1 * SIM_MS)	/* the kernel has let go: the caller is back */
#define SIM_LATE_CLOSE_NS	(1 * SIM_MS)	/* the last op has ended: gyre_close() is back */
/* A ring has died, and the kernel let go: all are told. */
#define SIM_LATE_DEATH_NS	(100 * SIM_MS)
/* A sleep or a job's time is over: its task goes on. */
#define SIM_LATE_ALARM_NS	(1 * SIM_MS)
#define SIM_LATE_JOB_NS		(1 * SIM_MS)	/* a job's last task has ended: who waits is back */
/* And for each submission that the kernel refuses meanwhile, the longest back-off. */
#define SIM_LATE_REFUSAL_NS	(10 * SIM_MS)

void sim_deadline_begin(void);

/* Said by the kernel: what it did with call's op, when. */
void sim_deadline_taken(struct sim_call *call);
void sim_deadline_asked(struct sim_call *call);		/* a cancel for it has come */
void sim_deadline_ended(struct sim_call *call);		/* NULL: some op of the library's own */
void sim_deadline_refused(void);
void sim_deadline_let_go(void);				/* of a closed ring */

/* Said by scenarios. */
void sim_deadline_sent(struct sim_call *call);
void sim_deadline_opened(uint64_t drain_ns);
void sim_deadline_closing(void);
void sim_deadline_closed(uint64_t start_ns);		/* gyre_close() is back */
void sim_deadline_died(void);
/* A call of count ops is back; ops NULL: it was gyre_call(), and status is all. */
void sim_deadline_back(const struct sim_call *calls, const struct gyre_op *ops, unsigned count,
		       enum gyre_status status, uint64_t start_ns);


/* Of jobs: said by them, and held against it. */
void sim_deadline_burnt(uint64_t ns);			/* a task has kept its worker busy */
void sim_deadline_job_ended(void);
uint64_t sim_deadline_refusals(void);			/* so far, but for the last ones */
uint64_t sim_deadline_drained_ns(void);			/* SIM_NEVER: nobody closes */
void sim_deadline_begins(unsigned job);			/* not after the end of a drain */
void sim_deadline_task(unsigned task, uint64_t due_ns, uint64_t refusals_before, const char *what);
void sim_deadline_job(unsigned job, uint64_t due_ns);

#endif
