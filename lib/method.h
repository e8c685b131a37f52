/* SPDX-License-Identifier: MIT */
/*
 * Which way of writing durably is the fastest: found out for each device, for
 * direct and for cached writes, and for few and for many callers at a time, from
 * the callers' own writes. All under the lock of who owns it.
 *
 * Callers take the same way for a phase of so many writes, since a way that
 * shares flushes shows what it is worth only when all go it. A phase ends with
 * two figures: time a write, which is a call's time divided by the calls that
 * were under way with it, and CPU time of the process a write. After the start
 * another way is tried now and then, and no longer than it takes to see that it
 * is much slower.
 */
#ifndef GYRE_LIB_METHOD_H
#define GYRE_LIB_METHOD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gyre__method {
	GYRE__METHOD_HERE,	/* RWF_DSYNC in the caller's thread */
	GYRE__METHOD_RING,	/* the same through a worker's ring */
	GYRE__METHOD_GROUP,	/* a plain write, then a flush that may be another's, too */
	GYRE__METHOD_JOIN,	/* the same with the write through a worker's ring */
	GYRE__METHODS
};
#define GYRE__METHOD_BIT(method)	(1u << (method))

#define GYRE__METHOD_DEVICES	16
#define GYRE__METHOD_CLASSES	3	/* of how many callers at a time */

struct gyre__lesson {
	enum gyre__method method;		/* of this phase */
	uint32_t phase;				/* n-th */
	uint32_t settling;			/* writes of it that are to pass first */
	uint32_t count;				/* writes measured in it */
	/* Phases since another was tried, and until one is. */
	uint32_t since_explored, pause;
	enum gyre__method preferred;		/* the one in use, once has_preferred */
	enum gyre__method promising;		/* the next to be tried; GYRE__METHODS: whichever */
	bool has_preferred;
	uint64_t sum_ns, cpu_start_ns;
	/* A write, where the phase ends early; 0: it does not. */
	uint64_t limit_ns;
	uint32_t rounds[GYRE__METHODS];		/* phases that each method had */
	uint64_t cost_ns[GYRE__METHODS], cpu_ns[GYRE__METHODS];
};

struct gyre__device {
	uint64_t device;
	uint64_t used;				/* n-th choice: the oldest goes first */
	uint32_t inside;			/* writes under way */
	struct gyre__lesson lessons[2][GYRE__METHOD_CLASSES];	/* cached, direct */
};

struct gyre__methods {
	struct gyre__device devices[GYRE__METHOD_DEVICES];
	uint64_t choices;
};

/* One write's choice, to be given back when it is over. */
struct gyre__choice {
	enum gyre__method method;
	struct gyre__device *device;		/* NULL: there was no room to learn */
	struct gyre__lesson *lesson;
	uint32_t phase, inside, offered;
	unsigned class;
	uint64_t start_ns;
};

/* offered: bits of the methods that will do for this write. */
void gyre__method_choose(struct gyre__methods *methods, uint64_t device, bool direct,
			 unsigned offered, struct gyre__choice *ret);
/* learn: it went well, and is like others. */
void gyre__method_done(struct gyre__choice *choice, bool learn);

const char *gyre__method_name(enum gyre__method method);
/* "1-2 callers" */
const char *gyre__method_class_name(unsigned class);

#endif
