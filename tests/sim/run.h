/* SPDX-License-Identifier: MIT */
/* One run: a scenario, a seed and the kind of machine that it runs on. */
#ifndef GYRE_SIM_RUN_H
#define GYRE_SIM_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "scenario.h"

/* In a process that has just been started, as far as the library can tell. */
void sim_run_scenario(const struct sim_scenario *scenario, const struct sim_setup *setup,
		      struct sim_outcome *ret);

/*
 * Finds a smaller run that fails as this one does, writes its script to the file
 * at path, and tells its story. 0: it has; 1: the seed does not fail; 2: trouble.
 */
int sim_shrink(const struct sim_scenario *scenario, const struct sim_setup *setup,
	       const char *path);

/*
 * A script that sim_shrink() has written; its scenario's name, and all else but how much to tell.
 */
bool sim_script_read(const char *path, char ret_scenario[32], struct sim_setup *ret_setup);

extern const char *const sim_memory_names[];	/* by enum sim_memory */

#endif
