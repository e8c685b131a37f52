/* SPDX-License-Identifier: MIT */
/*
 * The failure loops: each scenario again and again, and each time one call of
 * struct gyre__sys fails, with one errno of its man page, once or from then on
 * for ever. What has to be true on every seed has to be true then, too.
 */
#ifndef GYRE_SIM_FAILURES_H
#define GYRE_SIM_FAILURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "scenario.h"

struct sim_failures_args {
	const struct sim_scenario *scenarios;
	size_t count;
	const struct sim_scenario *only;	/* NULL: all */
	unsigned jobs;
	bool sites;			/* says which places of the code were reached, too */
	uint64_t replay;		/* this seed with the failure that single names; 0: all */
	const char *single;
};

/* The program's exit status. */
int sim_failures_main(const struct sim_failures_args *args);

/* For scenarios. How often the call that is to fail has failed in this run; 0: no loop runs. */
unsigned sim_failures_met(void);
/* One call is to fail in this run, or has: no other may. */
bool sim_failures_run(void);
/* It is one of this entry, an enum gyre__fault_call. */
bool sim_failures_of(unsigned call);
/* It was to fail once, and has: from here on all is as usual. */
bool sim_failures_over(void);
/* The negative errno that is given, if the call is one that gyre_pread() and so on pass on; 0. */
int sim_failures_passed_on(void);

#endif
