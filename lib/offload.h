/* SPDX-License-Identifier: MIT */
/*
 * What must not run on a worker runs on a helper thread, while the task that
 * wants it is parked: functions of users', and calls of the library's own that
 * block in ways which a ring cannot take over.
 */
#ifndef GYRE_LIB_OFFLOAD_H
#define GYRE_LIB_OFFLOAD_H

#include <gyre.h>
#include <stdbool.h>

#include "runtime.h"
#include "thread.h"

/* Helpers besides offload_threads, for the library's own calls. */
#define GYRE__OFFLOAD_RESERVE	2

enum gyre_status gyre__offload_open_for(struct gyre *rt);

/* In a task: this call is to be made by gyre__elsewhere(). */
static inline bool gyre__must_go_elsewhere(void)
{
	return gyre__unlikely(gyre__current_task());
}

/* How long a call of the library's own may keep a helper. */
enum gyre__call_kind {
	GYRE__CALL_BRIEF = 0,	/* it waits for nobody but the kernel */
	GYRE__CALL_LASTING,	/* it may wait for others, who may need a helper in their turn */
	GYRE__CALL_MUST		/* the same, and it is made in a cancelled task, too */
};

/*
 * Makes fn(arg) run on a helper of the calling task's runtime, as a plain thread
 * that serves its job; what the helper's last call says, the task's does then.
 * GYRE_OK: it has run. Else it has not, and the reason is reported for function.
 *
 * Where no helper is free at once there are GYRE__OFFLOAD_RESERVE more for calls
 * like this, of which one at a time takes what may last: so those that are brief
 * are never kept waiting by functions of users'.
 */
enum gyre_status gyre__elsewhere(const char *function, struct gyre__thread *self,
				 enum gyre__call_kind kind, void (*fn)(void *arg), void *arg);

/* For whom a helper runs something now; NULL: for nobody. */
struct gyre__thread *gyre__offload_caller(const struct gyre__thread *helper);

/* A panic in an offloaded function: ends that. Returns where the caller runs none. */
void gyre__offload_panic(char *text);

/*
 * A helper is about to wait without end for something that may need a helper in
 * its turn; it has waited.
 */
void gyre__helper_waits(struct gyre__thread *self);
void gyre__helper_goes_on(struct gyre__thread *self);

#endif
