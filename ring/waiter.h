/* SPDX-License-Identifier: MIT */
/*
 * The waiter: who is told that a batch of ops is done.
 *
 * Ops and batches know a waiter, never a thread, a task or a queue. The kinds
 * embed this struct and differ in done() alone: a thread that spins and then
 * sleeps by a bell (reply.h) is the first of them.
 */
#ifndef GYRE_RING_WAITER_H
#define GYRE_RING_WAITER_H

struct gyre__batch;
struct gyre__ring;

struct gyre__waiter {
	/*
	 * Owner thread of ring, once for each batch, after its last op was
	 * answered. From here on batch and waiter are the waiting side's
	 * again, which may free them at once: the ring touches neither. batch is
	 * NULL where a job has ended, and ring where no ring's owner calls.
	 */
	void (*done)(struct gyre__waiter *waiter, struct gyre__batch *batch,
		     struct gyre__ring *ring);
	void *line;	/* that done() is going to write: fetched ahead of it */
};

#endif
