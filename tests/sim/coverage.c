/* SPDX-License-Identifier: MIT */
#include "coverage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sched.h"

static struct sim_coverage coverage_here;
struct sim_coverage *sim_coverage = &coverage_here;

static const char *const failable[SIM_FAILABLE] = {
	"alloc", "mmap", "madvise", "eventfd", "pipe", "thread_start", "self_set", "io_uring_setup",
	"io_uring_register",
};

static const char *const op_kinds[SIM_OP_KINDS] = {
	"NOP", "READ", "WRITE", "FSYNC", "POLL_ADD", "TIMEOUT", "READ_FIXED", "WRITE_FIXED",
	"SEND_ZC", "SYNC_FILE_RANGE", "ACCEPT", "READ_MULTISHOT",
};

static const struct { int error; const char *name; } op_errnos[SIM_OP_ERRNOS] = {
	{ EIO, "EIO" }, { ENOSPC, "ENOSPC" }, { EINTR, "EINTR" }, { ENOMEM, "ENOMEM" },
	{ EAGAIN, "EAGAIN" },
};

static unsigned find(const char *const *names, unsigned count, const char *name)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	sim_fail("coverage.c does not know %s", name);
}

void sim_reach(enum sim_reached what)
{
	sim_coverage->reached[what]++;
}

void sim_reach_failure(const char *call)
{
	sim_reach(SIM_CALL_FAILED);
	sim_coverage->calls_failed[find(failable, SIM_FAILABLE, call)]++;
}

void sim_reach_op_errno(const char *op, int error)
{
	unsigned i;

	sim_reach(SIM_OP_ERRNO);
	sim_coverage->ops_failed[find(op_kinds, SIM_OP_KINDS, op)]++;
	for (i = 0; i < SIM_OP_ERRNOS; i++)
		sim_coverage->op_errnos[i] += op_errnos[i].error == error;
}

void gyre__sim_edge(unsigned from, unsigned to)
{
	sim_coverage->edges[from][to]++;
}

void sim_coverage_add(struct sim_coverage *sum, const struct sim_coverage *coverage)
{
	const uint64_t *from = (const uint64_t *)coverage;
	uint64_t *to = (uint64_t *)sum;
	size_t i;

	for (i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		to[i] += from[i];
}

uint64_t sim_coverage_faults(const struct sim_coverage *coverage)
{
	static const enum sim_reached faults[] = {
		SIM_EINTR, SIM_EAGAIN, SIM_EBUSY, SIM_EBADR, SIM_FATAL, SIM_PARTIAL, SIM_OVERFLOW,
		SIM_SHORT, SIM_OP_ERRNO, SIM_CANCEL_MISS, SIM_CANCEL_LATE, SIM_CUT_OFF,
		SIM_CALL_FAILED, SIM_SLOW,
	};
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sum += coverage->reached[faults[i]];
	return sum;
}

/* -------------------------------------------------------------- report -- */

struct report {
	unsigned column, lacking;
	uint64_t required;
	bool list;		/* only what is lacking */
};

static void tell(struct report *report, uint64_t count, const char *before, const char *name)
{
	char text[64];

	snprintf(text, sizeof(text), "%s%s", before, name);
	if (!report->list) {
		printf("%s%10" PRIu64 "  %-32s", report->column++ % 3 == 0 ? "\n" : "", count,
		       text);
	} else if (count < report->required) {
		printf("reached too seldom: %s: %" PRIu64 " of %" PRIu64 " times\n", text, count,
		       report->required);
		report->lacking++;
	}
}

static void tell_edges(struct report *report, const struct sim_coverage *coverage)
{
	unsigned from, to;

	for (from = 0; from < GYRE__OP_STATES; from++)
		for (to = 0; to < GYRE__OP_STATES; to++) {
			char text[64];

			if (!(gyre__op_edges[from] & (1u << to)))
				continue;
			snprintf(text, sizeof(text), "%s -> %s",
				 gyre__op_state_name((enum gyre__op_state)from),
				 gyre__op_state_name((enum gyre__op_state)to));
			tell(report, coverage->edges[from][to], "op: ", text);
		}
}

static void tell_all(struct report *report, const struct sim_coverage *coverage)
{
	unsigned i;

	for (i = 0; i < SIM_REACHED_COUNT; i++)
		tell(report, coverage->reached[i], "", sim_reached_names[i]);
	for (i = 0; i < SIM_FAILABLE; i++)
		tell(report, coverage->calls_failed[i], "fails: ", failable[i]);
	for (i = 0; i < SIM_OP_KINDS; i++)
		tell(report, coverage->ops_failed[i], "an errno for ", op_kinds[i]);
	for (i = 0; i < SIM_OP_ERRNOS; i++)
		tell(report, coverage->op_errnos[i], "an op's ", op_errnos[i].name);
	tell_edges(report, coverage);
}

bool sim_coverage_report(const struct sim_coverage *coverage, uint64_t required)
{
	struct report report = { .required = required };

	printf("reached:");
	tell_all(&report, coverage);
	printf("\n");
	report.list = true;
	tell_all(&report, coverage);
	return report.lacking == 0;
}
