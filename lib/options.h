/* SPDX-License-Identifier: MIT */
/*
 * What a runtime is opened with, once options, environment and defaults have
 * been put together and checked. Nobody below looks at struct gyre_options.
 */
#ifndef GYRE_LIB_OPTIONS_H
#define GYRE_LIB_OPTIONS_H

#include <gyre.h>
#include <stddef.h>
#include <stdint.h>

/* Limits that gyre.h names. */
#define GYRE__WORKERS_MAX	1024u
#define GYRE__RING_ENTRIES_MAX	32768u
#define GYRE__INFLIGHT_MAX	65536u

/* Where the pread family runs its system calls. */
enum gyre__route {
	GYRE__ROUTE_AUTO,	/* where it is no worse */
	GYRE__ROUTE_RING,	/* on a worker, always */
	GYRE__ROUTE_CALLER	/* in the caller's own thread, wherever that can be */
};

struct gyre__settings {
	char name[12];			/* cut so that "-NNN" still fits into a thread's name */
	unsigned workers;
	unsigned ring_entries;
	unsigned inflight_max;
	unsigned flags;			/* GYRE_PIN_WORKERS ... */
	uint64_t spin_ns;		/* GYRE_SPIN_AUTO, GYRE_SPIN_NEVER, or nanoseconds */
	size_t stack_size;
	size_t arena_max;
	enum gyre_mode mode;		/* never GYRE_MODE_DEFAULT */
	unsigned pool_size;
	const struct gyre_state_type *state;	/* the caller's */
	uint64_t drain_ns;
	uint64_t stall_ns;		/* 0: off */
	unsigned offload_threads;
	enum gyre__route route;
};

/*
 * Options over environment over defaults, checked. options may be NULL.
 * Failure is GYRE_INVALID, reported under "gyre_open"; *ret is left alone.
 */
enum gyre_status gyre__options_resolve(const struct gyre_options *options,
				       struct gyre__settings *ret);

#endif
