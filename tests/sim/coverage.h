/* SPDX-License-Identifier: MIT */
/* What all the seeds have reached: whatever is never met was never tested. */
#ifndef GYRE_SIM_COVERAGE_H
#define GYRE_SIM_COVERAGE_H

#include <stdint.h>

#include "oracle.h"
#include "ring/op.h"

#define SIM_FAILABLE	9	/* entries of the table that can fail, see coverage.c */
#define SIM_OP_KINDS	12	/* opcodes that fail by dice */
#define SIM_OP_ERRNOS	5

struct sim_coverage {
	uint64_t reached[SIM_REACHED_COUNT];
	uint64_t edges[GYRE__OP_STATES][GYRE__OP_STATES];
	uint64_t calls_failed[SIM_FAILABLE];
	uint64_t ops_failed[SIM_OP_KINDS];
	uint64_t op_errnos[SIM_OP_ERRNOS];
};
extern struct sim_coverage *sim_coverage;

void sim_reach_failure(const char *call);		/* an entry of the table has failed */
void sim_reach_op_errno(const char *op, int error);	/* an op has; positive errno */

void sim_coverage_add(struct sim_coverage *sum, const struct sim_coverage *coverage);
uint64_t sim_coverage_faults(const struct sim_coverage *coverage);
/* Prints all of it; false: something was met fewer than so many times, which is told. */
bool sim_coverage_report(const struct sim_coverage *coverage, uint64_t required);

#endif
