/* SPDX-License-Identifier: MIT */
/*
 * A scenario is one function that runs as the simulated thread "main", uses the
 * public API and what is below, and returns when it has freed what it opened.
 * To add one: write the function in a scenario_*.c, and give it a line in
 * scenario_table[] of main.c. Whatever it tells the caller of an op goes through
 * sim_answered(), which the helpers here do.
 */
#ifndef GYRE_SIM_SCENARIO_H
#define GYRE_SIM_SCENARIO_H

#include <errno.h>
#include <gyre.h>
#include <liburing.h>
#include <stdbool.h>
#include <string.h>

#include "kernel.h"
#include "oracle.h"
#include "sched.h"

struct sim_scenario {
	const char *name, *what;
	sim_fn *run;
	bool deadly;		/* rings may die in it */
};

/* How many of something this run has. */
unsigned sim_many(unsigned small, unsigned large);

/* Opens a runtime of the run's size with rolled options. False: it could not be, for a reason. */
bool sim_open(unsigned workers, uint64_t drain_ns, struct gyre **ret);
bool sim_open_sized(unsigned workers, unsigned inflight_max, uint64_t drain_ns, struct gyre **ret);
/* The same, with options that only jobs look at. */
bool sim_open_for_jobs(unsigned workers, uint64_t drain_ns, struct gyre **ret);
/* The same, with states that its jobs run on. */
bool sim_open_with_states(unsigned workers, uint64_t drain_ns, const struct gyre_state_type *type,
			  struct gyre **ret);
/* And room for so many of those that have keys; 0: the default. */
bool sim_open_with_pool(unsigned workers, uint64_t drain_ns, const struct gyre_state_type *type,
			unsigned size, struct gyre **ret);
/* The same, with so many helpers at most. */
bool sim_open_with_helpers(unsigned workers, unsigned helpers, uint64_t drain_ns,
			   struct gyre **ret);
extern bool sim_arenas_are_zero;	/* of the latest: no job sees what another one has left */
/* Notes the fact for the oracle, and closes. */
void sim_close_runtime(struct gyre *rt);
/* gyre_op_cancel(), and the oracle knows of it. */
enum gyre_status sim_cancel(struct gyre *rt, struct gyre_op *op);

/* An op to be; its memory is lent from the moment it is sent to that of the answer. */
void sim_call_init(struct sim_call *call, uint8_t opcode, int fd, void *buf, uint32_t len,
		   uint64_t offset);
void sim_call_timeout(struct sim_call *call, struct __kernel_timespec *ts, uint64_t ns);
void sim_call_wrong(struct sim_call *call);	/* one that must be refused */
gyre_prep_fn sim_prep;

/* gyre_call() and gyre_callv() with every answer held against the truth. */
enum gyre_status sim_call_one(struct gyre *rt, struct sim_call *call);
enum gyre_status sim_call_many(struct gyre *rt, struct sim_call *calls, struct gyre_op *ops,
			       unsigned count);

/* The task that was about to make it will never hear of it. */
void sim_call_dropped(struct sim_call *call);

/* A function has answered status: its thread finds the same, and a sentence, if it has a record. */
void sim_check_told(enum gyre_status status);

/* Waits so long on the virtual clock. */
void sim_sleep(uint64_t ns);

/* The scenarios. */
sim_fn scenario_nops, scenario_calls, scenario_chains, scenario_cut_chains, scenario_close_race,
	scenario_death, scenario_cancel_only, scenario_cancel_death, scenario_on_time,
	scenario_crowd, scenario_free, scenario_close_fd, scenario_leave, scenario_sync,
	scenario_sync_death, scenario_durable, scenario_durable_death, scenario_jobs,
	scenario_jobs_close, scenario_jobs_death, scenario_jobs_apart, scenario_jobs_cancel,
	scenario_jobs_stubborn, scenario_jobs_visit, scenario_waiters, scenario_circles,
	scenario_circles_close, scenario_program, scenario_program_task, scenario_offload,
	scenario_helpers, scenario_helpers_reserve,
	scenario_streams, scenario_streams_death, scenario_states,
	scenario_states_close, scenario_states_death, scenario_pool, scenario_pool_close,
	scenario_pool_death;

#endif
