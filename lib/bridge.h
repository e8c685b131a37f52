/* SPDX-License-Identifier: MIT */
/*
 * How an op travels: from a call on any thread to a ring and back.
 */
#ifndef GYRE_LIB_BRIDGE_H
#define GYRE_LIB_BRIDGE_H

#include <gyre.h>

#include "runtime.h"
#include "thread.h"

/*
 * One op of the library's making, inside a call that has entered rt. The answer
 * is the kernel's res, or the negative errno of the status that came instead.
 * timeout_ns 0: none. Reports under function.
 */
ssize_t gyre__bridge_call(struct gyre__thread *self, struct gyre *rt, const char *function,
			  gyre_prep_fn *prep, void *arg, uint64_t timeout_ns);

/*
 * The same of an op that a device has to finish: see GYRE__BATCH_PATIENT. waiter: of the
 * caller's making, told in the place of self's reply, which it is to give in its turn,
 * soon or late; NULL: none.
 */
ssize_t gyre__bridge_call_device(struct gyre__thread *self, struct gyre *rt, const char *function,
				 gyre_prep_fn *prep, void *arg, struct gyre__waiter *waiter);

/*
 * Runs control(ring, batch) on the owner of worker's ring and waits for it; arg
 * is in batch->control_arg. False: that ring has ended, and nothing was run.
 */
bool gyre__bridge_control(struct gyre__thread *self, struct gyre__worker *worker,
			  bool (*control)(struct gyre__ring *ring, struct gyre__batch *batch),
			  void *arg);

#endif
