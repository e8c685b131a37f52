/* SPDX-License-Identifier: MIT */
/*
 * A context: the name and value pairs of a task or thread. Several may have one in
 * common; who changes it while it is shared makes one of its own first.
 */
#ifndef GYRE_LIB_CONTEXT_H
#define GYRE_LIB_CONTEXT_H

#define GYRE__CONTEXT_NAME_MAX	255		/* bytes of a name */
#define GYRE__CONTEXT_VALUE_MAX	65536		/* bytes of a value */
#define GYRE__CONTEXT_PAIRS_MAX	64		/* of one context */
#define GYRE__CONTEXT_BYTES_MAX	(1u << 20)	/* names and values of one context */

struct gyre__context;				/* immutable while shared; NULL: empty */
struct gyre__thread;

/* Held by a gyre_context_each() while its fn runs; on the stack of that. */
struct gyre__context_held {
	struct gyre__context *context;
	struct gyre__context_held *outer;
};

/* One more owner. Any thread that has it; NULL gives NULL, and costs nothing. */
struct gyre__context *gyre__context_share(struct gyre__context *context);

/* One owner less, any thread. */
void gyre__context_drop(struct gyre__context *context);

/* What self holds by calls that will not return. Their frames are still there. */
void gyre__context_drop_held(struct gyre__thread *self);

#endif
