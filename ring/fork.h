/* SPDX-License-Identifier: MIT */
/*
 * Rings and fork(): a child must not hold on to its parent's.
 *
 * A ring lives as long as anybody has it open. A child's copy would keep it
 * alive, with all that is in flight, after the parent has closed it; so what is
 * registered here is closed in every child, before fork() returns there.
 */
#ifndef GYRE_RING_FORK_H
#define GYRE_RING_FORK_H

#define GYRE__FORK_FDS	3

struct gyre__fork_guard {
	int *fds[GYRE__FORK_FDS];	/* -1: none; -1 in a child from the start */
	/* With MADV_DONTFORK: NULL in a child, where something else may lie there. */
	void **mapping;
	struct gyre__fork_guard *next, *prev;
};

/* Before the descriptors are opened. Negative errno: not guarded. */
int gyre__fork_guard_add(struct gyre__fork_guard *guard);
/* After they are closed. */
void gyre__fork_guard_remove(struct gyre__fork_guard *guard);

/* No fork() between these two: for what is opened and not yet registered. */
void gyre__fork_hold(void);
void gyre__fork_release(void);

/* Closes *fd if it is open, and sets it to -1; no fork() comes between the two. */
void gyre__fork_guard_close(int *fd);

#endif
