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

enum gyre_status gyre__offload_open_for(struct gyre *rt);

/* In a task: this call is to be made by gyre__elsewhere(). */
static inline bool gyre__must_go_elsewhere(void)
{
	return gyre__unlikely(gyre__current_task());
}

/*
 * Makes fn(arg) run on a helper of the calling task's runtime, as a plain thread
 * that serves its job; what the helper's last call says, the task's does then.
 * GYRE_OK: it has run. Else it has not, and the reason is reported for function.
 */
enum gyre_status gyre__elsewhere(const char *function, struct gyre__thread *self,
				 void (*fn)(void *arg), void *arg);

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
