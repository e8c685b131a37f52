/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <gyre.h>
#include <stddef.h>

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#ifndef GYRE_VERSION
#define GYRE_VERSION PACKAGE_VERSION
#endif

static const struct {
	const char *name;
	const char *text;
	int err;
} status_table[] = {
	[GYRE_OK] = { "OK", "The reply came.", 0 },
	[GYRE_WORKER_DEAD] = { "WORKER_DEAD",
		"The worker has stopped for good before it could answer.", EOWNERDEAD },
	[GYRE_RESPONSE_LOST] = { "RESPONSE_LOST",
		"The job panicked or was dropped before it replied.", ENOTRECOVERABLE },
	[GYRE_TIMED_OUT] = { "TIMED_OUT",
		"The time-out passed, and the operation was cancelled.", ETIMEDOUT },
	[GYRE_CANCELLED] = { "CANCELLED",
		"The operation was cancelled, or what it belonged to has ended.", ECANCELED },
	[GYRE_CLOSED] = { "CLOSED", "It is closed and takes no more calls.", ESHUTDOWN },
	[GYRE_BUSY] = { "BUSY",
		"The call would have had to wait, and was asked not to.", EAGAIN },
	[GYRE_NO_REACTOR] = { "NO_REACTOR",
		"No runtime was named, and no reactor is running on this thread.", ENOTSUP },
	[GYRE_WOULD_DEADLOCK] = { "WOULD_DEADLOCK",
		"Waiting here would stop the worker that must answer.", EDEADLK },
	[GYRE_FROZEN] = { "FROZEN",
		"The registry takes no more names once the first job has started.", EPERM },
	[GYRE_NOT_FOUND] = { "NOT_FOUND", "There is no such thing, or no longer.", ENOENT },
	[GYRE_EXISTS] = { "EXISTS", "That name is taken.", EEXIST },
	[GYRE_INVALID] = { "INVALID", "An argument is wrong.", EINVAL },
	[GYRE_NO_MEMORY] = { "NO_MEMORY",
		"There is not enough memory, or not enough that may be locked.", ENOMEM },
	[GYRE_UNSUPPORTED] = { "UNSUPPORTED",
		"This kernel, or its policy, does not allow it.", ENOSYS },
	[GYRE_SYSTEM] = { "SYSTEM", "A system call of the library's own failed.", EIO },
};

#define STATUS_COUNT (sizeof(status_table) / sizeof(status_table[0]))

/* A new status goes in above, and here. The statuses have no holes. */
_Static_assert(STATUS_COUNT == GYRE_SYSTEM + 1, "a row for each status");
_Static_assert(GYRE_SYSTEM == 15, "a status was added: does it have its row?");

static int status_known(enum gyre_status status)
{
	return (unsigned)status < STATUS_COUNT;
}

const char *gyre_status_name(enum gyre_status status)
{
	return status_known(status) ? status_table[status].name : "UNKNOWN";
}

const char *gyre_status_text(enum gyre_status status)
{
	return status_known(status) ? status_table[status].text : "This number is no status.";
}

int gyre_status_errno(enum gyre_status status)
{
	return status_known(status) ? -status_table[status].err : -EINVAL;
}

const char *gyre_version(void)
{
	return GYRE_VERSION;
}
