/* SPDX-License-Identifier: MIT */
#include "fork.h"

#include <stdbool.h>
#include <stddef.h>

#include "sys.h"

/* A leaf: nothing else is taken under it. */
static union gyre__mutex fork_lock = GYRE__MUTEX_INIT;
static struct gyre__fork_guard *guards;
static bool registered;

void gyre__fork_hold(void)
{
	gyre__sys->mutex_lock(&fork_lock);
}

void gyre__fork_release(void)
{
	gyre__sys->mutex_unlock(&fork_lock);
}

static void close_if_open(int *fd)
{
	if (*fd >= 0)
		gyre__sys->close(*fd);
	*fd = -1;
}

static void after_fork_in_child(void)
{
	struct gyre__fork_guard *guard;
	unsigned i;

	for (guard = guards; guard; guard = guard->next) {
		for (i = 0; i < GYRE__FORK_FDS; i++)
			close_if_open(guard->fds[i]);
		*guard->mapping = NULL;
	}
	gyre__fork_release();
}

int gyre__fork_guard_add(struct gyre__fork_guard *guard)
{
	int rc = 0;

	gyre__fork_hold();
	if (!registered)
		rc = gyre__sys->at_fork(gyre__fork_hold, gyre__fork_release,
					after_fork_in_child);
	if (rc == 0) {
		registered = true;
		guard->prev = NULL;
		guard->next = guards;
		if (guards)
			guards->prev = guard;
		guards = guard;
	}
	gyre__fork_release();
	return rc;
}

void gyre__fork_guard_remove(struct gyre__fork_guard *guard)
{
	gyre__fork_hold();
	if (guard->prev)
		guard->prev->next = guard->next;
	else
		guards = guard->next;
	if (guard->next)
		guard->next->prev = guard->prev;
	gyre__fork_release();
}

void gyre__fork_guard_close(int *fd)
{
	gyre__fork_hold();
	close_if_open(fd);
	gyre__fork_release();
}
