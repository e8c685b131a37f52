/* SPDX-License-Identifier: MIT */
/*
 * The crew: all workers of a runtime. Starts all or none, chooses one for a
 * caller, drains and joins them.
 *
 * gyre__crew_stop() and gyre__crew_choose_other() are modelled in
 * tests/models/close.pml.
 */
#ifndef GYRE_WORKERS_CREW_H
#define GYRE_WORKERS_CREW_H

#include <stdbool.h>
#include <stdint.h>

#include "worker.h"

struct gyre__crew_config {
	const char *name;		/* threads are NAME-0, NAME-1 ... */
	unsigned workers;
	bool pin;
	struct gyre__ring_config ring;
	struct gyre__worker_hooks hooks;
	struct gyre__tasks_config tasks;
};

struct gyre__crew {
	unsigned count;
	struct gyre__worker *worker[];
};

/*
 * All or none. A negative errno: nothing is left; *ret_step names the call that
 * failed, *ret_worker the worker for which it did.
 */
int gyre__crew_start(const struct gyre__crew_config *config, const char **ret_step,
		     unsigned *ret_worker, struct gyre__crew **ret);

/* Seals all inboxes, lets the workers finish for drain_ns, cancels the rest, joins them. */
void gyre__crew_stop(struct gyre__crew *crew, uint64_t drain_ns);

/* Frees a crew that was stopped; in a forked child, any. */
void gyre__crew_free(struct gyre__crew *crew);

/* The worker that the n-th caller starts with, each time that it comes. */
static inline unsigned gyre__crew_greet(const struct gyre__crew *crew, unsigned nth)
{
	return nth % crew->count;
}

/*
 * The worker for a call: *sticky, unless that one is dead, or has more than it
 * can hold while another has not. *sticky follows. NULL: all are dead.
 */
struct gyre__worker *gyre__crew_choose_other(struct gyre__crew *crew, unsigned *sticky);

static inline struct gyre__worker *gyre__crew_choose(struct gyre__crew *crew, unsigned *sticky)
{
	struct gyre__worker *worker = crew->worker[*sticky];

	if (gyre__likely(!gyre__worker_is_dead(worker) &&
			 !gyre__load(&worker->ring.overloaded, relaxed)))
		return worker;
	return gyre__crew_choose_other(crew, sticky);
}

#endif
