/* SPDX-License-Identifier: MIT */
/*
 * The table's second filling, for tests: the kernel's calls, some of which
 * fail on demand, submit only a part, or stop for a hook on their way.
 *
 * A rule says which call, whose (any thread's and ring's unless it names one),
 * how many to let pass, how many to fail and with what. Several rules may stand
 * at a time; each counts the calls that match it, and the first one that is due
 * decides. What fails never reaches the kernel, but for what Linux does before
 * it says so: a close closes, and an enter that is interrupted has submitted.
 *
 * Any thread may call any of these, the threads of a runtime included.
 */
#ifndef GYRE_RING_SYS_FAULT_H
#define GYRE_RING_SYS_FAULT_H

#include <limits.h>
#include <stdint.h>

#include "sys.h"

/* The entries of struct gyre__sys that can fail, in its order. */
enum gyre__fault_call {
	GYRE__FAULT_uring_setup,
	GYRE__FAULT_uring_enter,
	GYRE__FAULT_uring_register,
	GYRE__FAULT_alloc,
	GYRE__FAULT_mmap,
	GYRE__FAULT_munmap,
	GYRE__FAULT_madvise,
	GYRE__FAULT_mprotect,
	GYRE__FAULT_mincore,
	GYRE__FAULT_eventfd,
	GYRE__FAULT_eventfd_read,
	GYRE__FAULT_eventfd_write,
	GYRE__FAULT_pipe,
	GYRE__FAULT_close,
	GYRE__FAULT_fstat,
	GYRE__FAULT_fd_flags,
	GYRE__FAULT_futex_wait,
	GYRE__FAULT_futex_wake,
	GYRE__FAULT_read,
	GYRE__FAULT_write,
	GYRE__FAULT_pread,
	GYRE__FAULT_pwrite,
	GYRE__FAULT_preadv2,
	GYRE__FAULT_pwritev2,
	GYRE__FAULT_poll,
	GYRE__FAULT_fsync,
	GYRE__FAULT_fdatasync,
	GYRE__FAULT_openat,
	GYRE__FAULT_statx,
	GYRE__FAULT_fallocate,
	GYRE__FAULT_thread_start,
	GYRE__FAULT_thread_pin,
	GYRE__FAULT_self_set,
	GYRE__FAULT_at_fork,
	GYRE__FAULT_CALLS
};

#define GYRE__FAULT_FOREVER	UINT_MAX
#define GYRE__FAULT_ANY_FD	(-1)
#define GYRE__FAULT_ANY_THREAD	""

struct gyre__fault_rule {
	enum gyre__fault_call call;
	unsigned skip;		/* so many matching calls pass first */
	unsigned times;		/* then so many fail, or GYRE__FAULT_FOREVER */
	int error;		/* negative errno, what the call answers; alloc: NULL */
	unsigned partial;	/* uring_enter, instead of error: submits at most so many */
	int fd;			/* GYRE__FAULT_ANY_FD, or that of the ring or file meant */
	char thread[16];	/* how the calling thread's name starts; "": any */
};

/*
 * Runs before the call, on the thread that makes it; may block. site is where
 * the call returns to. 0: what the rules say; or the negative errno to fail with.
 */
typedef int gyre__fault_hook_fn(enum gyre__fault_call call, int fd, const void *site, void *arg);

/* While no runtime is open. The calls that pass go to the table found here. */
void gyre__fault_install(void);
void gyre__fault_remove(void);

void gyre__fault_add(const struct gyre__fault_rule *rule);
void gyre__fault_set(enum gyre__fault_call call, unsigned skip, unsigned times, int error);
/* The same for the threads whose names start with THREAD. */
void gyre__fault_set_on(const char *thread, enum gyre__fault_call call, unsigned skip,
			unsigned times, int error);
/* The next TIMES enters that submit, after SKIP, submit at most PARTIAL entries. */
void gyre__fault_partial(unsigned skip, unsigned times, unsigned partial);
/* From now on the library's pauses are yields: a thousand back-offs take no time. */
void gyre__fault_no_sleep(void);
/* NULL takes the hook away; it may still run for calls already under way. */
void gyre__fault_hook(enum gyre__fault_call call, gyre__fault_hook_fn *fn, void *arg);

/* How often the call was made, and how often it was made to fail, since install or clear. */
unsigned gyre__fault_count(enum gyre__fault_call call);
unsigned gyre__fault_hits(enum gyre__fault_call call);
/* No rules, no hooks, counts at zero, pauses as usual. */
void gyre__fault_clear(void);
const char *gyre__fault_name(enum gyre__fault_call call);

#endif
