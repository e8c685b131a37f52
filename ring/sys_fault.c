/* SPDX-License-Identifier: MIT */
/*
 * One wrapper for each entry that can fail, all made by one list: it asks
 * fault_due() whether a rule wants this call, and otherwise passes it on to the
 * table that was there before. Entries that cannot fail are copied from it.
 *
 * The rules are guarded by a mutex of libc, not by one from the table, which
 * is the very thing replaced here. Calls look at `armed` first, so that a test
 * without rules runs at full speed.
 */
#define _GNU_SOURCE
#include "sys_fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "atomic.h"

#define RULES_MAX	32

struct fault_hook {
	gyre__fault_hook_fn *fn;
	void *arg;
};

static const struct gyre__sys *base;		/* where calls that pass go */
static struct gyre__sys table;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gyre__fault_rule rules[RULES_MAX];	/* under lock */
static unsigned rule_count;				/* under lock */
static struct fault_hook hooks[GYRE__FAULT_CALLS];	/* under lock */

static _Atomic int armed;			/* rules or hooks exist */
static _Atomic int sleepless;
static _Atomic unsigned counts[GYRE__FAULT_CALLS];
static _Atomic unsigned hits[GYRE__FAULT_CALLS];

static int thread_matches(const char *prefix)
{
	char name[16] = "";

	if (prefix[0] == '\0')
		return 1;
	prctl(PR_GET_NAME, name);
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

static int rule_matches(const struct gyre__fault_rule *rule, enum gyre__fault_call call, int fd,
			unsigned to_submit)
{
	return rule->call == call && (rule->fd == GYRE__FAULT_ANY_FD || rule->fd == fd) &&
	       (rule->partial == 0 || to_submit > rule->partial) && thread_matches(rule->thread);
}

/* Under lock. Counts this call for the rule; 1 when it is one that is to fail. */
static int rule_due(struct gyre__fault_rule *rule)
{
	if (rule->skip > 0) {
		rule->skip--;
		return 0;
	}
	if (rule->times == 0)
		return 0;
	if (rule->times != GYRE__FAULT_FOREVER)
		rule->times--;
	return 1;
}

/* 1: *ret is the rule that decides this call. All matching rules count it. */
static int rules_ask(enum gyre__fault_call call, int fd, unsigned to_submit,
		     struct gyre__fault_rule *ret)
{
	int due = 0;
	unsigned i;

	for (i = 0; i < rule_count; i++) {
		if (!rule_matches(&rules[i], call, fd, to_submit))
			continue;
		if (rule_due(&rules[i]) && !due) {
			*ret = rules[i];
			due = 1;
		}
	}
	return due;
}

static int fault_due(enum gyre__fault_call call, int fd, unsigned to_submit, const void *site,
		     struct gyre__fault_rule *ret)
{
	struct fault_hook hook;
	int due, error;

	gyre__fetch_add(&counts[call], 1, relaxed);
	if (!gyre__load(&armed, acquire))
		return 0;
	pthread_mutex_lock(&lock);
	hook = hooks[call];
	pthread_mutex_unlock(&lock);
	error = hook.fn ? hook.fn(call, fd, site, hook.arg) : 0;

	/* After the hook: what it arms may be meant for this very call. */
	pthread_mutex_lock(&lock);
	due = rules_ask(call, fd, to_submit, ret);
	pthread_mutex_unlock(&lock);
	if (error) {
		*ret = (struct gyre__fault_rule){ .error = error };
		due = 1;
	}
	if (due)
		gyre__fetch_add(&hits[call], 1, relaxed);
	return due;
}

/*
 * What the kernel does when it takes only a part: it answers how many, and
 * neither waits nor reaps. Interrupted or out of time it has submitted before,
 * and says so; only where there was nothing to submit the errno is seen.
 */
static int fault_uring_enter(int fd, unsigned to_submit, unsigned min_complete, unsigned flags,
			     void *arg, size_t arg_size)
{
	struct gyre__fault_rule rule;
	int rc = 0;

	if (!fault_due(GYRE__FAULT_uring_enter, fd, to_submit, __builtin_return_address(0), &rule))
		return base->uring_enter(fd, to_submit, min_complete, flags, arg, arg_size);
	if (rule.partial)
		return base->uring_enter(fd, rule.partial, 0, 0, NULL, 0);
	if (rule.error == -EINTR || rule.error == -ETIME)
		rc = base->uring_enter(fd, to_submit, 0, flags, arg, arg_size);
	return rc ? rc : rule.error;
}

/* Whatever Linux answers to a close, the descriptor is closed. */
static int fault_close(int fd)
{
	struct gyre__fault_rule rule;
	int due = fault_due(GYRE__FAULT_close, fd, 0, __builtin_return_address(0), &rule);
	int rc = base->close(fd);

	return due ? rule.error : rc;
}

static void *fault_alloc(size_t size, size_t align)
{
	struct gyre__fault_rule rule;

	if (fault_due(GYRE__FAULT_alloc, GYRE__FAULT_ANY_FD, 0, __builtin_return_address(0), &rule))
		return NULL;
	return base->alloc(size, align);
}

static void fault_sleep_ns(uint64_t ns)
{
	if (gyre__load(&sleepless, relaxed))
		base->yield();
	else
		base->sleep_ns(ns);
}

/* The rest: type, name, the descriptor that a rule may name, parameters, arguments. */
#define FAULT_LIST(X) \
	X(int, uring_setup, -1, (unsigned entries, struct io_uring_params *params), \
	  (entries, params)) \
	X(int, uring_register, fd, (int fd, unsigned opcode, void *arg, unsigned count), \
	  (fd, opcode, arg, count)) \
	X(int, mmap, fd, (size_t len, int prot, int flags, int fd, off_t offset, void **ret), \
	  (len, prot, flags, fd, offset, ret)) \
	X(int, munmap, -1, (void *ptr, size_t len), (ptr, len)) \
	X(int, madvise, -1, (void *ptr, size_t len, int advice), (ptr, len, advice)) \
	X(int, mprotect, -1, (void *ptr, size_t len, int prot), (ptr, len, prot)) \
	X(int, mincore, -1, (void *ptr, size_t len, unsigned char *ret), (ptr, len, ret)) \
	X(int, eventfd, -1, (void), ()) \
	X(int, eventfd_read, fd, (int fd), (fd)) \
	X(int, eventfd_write, fd, (int fd), (fd)) \
	X(int, pipe, -1, (int ret[2]), (ret)) \
	X(int, fstat, fd, (int fd, struct stat *ret), (fd, ret)) \
	X(int, fd_flags, fd, (int fd), (fd)) \
	X(int, futex_wait, -1, \
	  (_Atomic uint32_t *word, uint32_t seen, uint32_t bits, uint64_t deadline_ns), \
	  (word, seen, bits, deadline_ns)) \
	X(int, futex_wake, -1, (_Atomic uint32_t *word, uint32_t bits), (word, bits)) \
	X(ssize_t, read, fd, (int fd, void *buf, size_t len), (fd, buf, len)) \
	X(ssize_t, write, fd, (int fd, const void *buf, size_t len), (fd, buf, len)) \
	X(ssize_t, pread, fd, (int fd, void *buf, size_t len, off_t offset), \
	  (fd, buf, len, offset)) \
	X(ssize_t, pwrite, fd, (int fd, const void *buf, size_t len, off_t offset), \
	  (fd, buf, len, offset)) \
	X(ssize_t, preadv2, fd, \
	  (int fd, const struct iovec *iov, int count, off_t offset, int flags), \
	  (fd, iov, count, offset, flags)) \
	X(ssize_t, pwritev2, fd, \
	  (int fd, const struct iovec *iov, int count, off_t offset, int flags), \
	  (fd, iov, count, offset, flags)) \
	X(int, poll, fds ? fds->fd : -1, \
	  (struct pollfd *fds, unsigned count, uint64_t timeout_ns), (fds, count, timeout_ns)) \
	X(int, fsync, fd, (int fd), (fd)) \
	X(int, fdatasync, fd, (int fd), (fd)) \
	X(int, openat, dirfd, (int dirfd, const char *path, int flags, mode_t mode), \
	  (dirfd, path, flags, mode)) \
	X(int, statx, dirfd, \
	  (int dirfd, const char *path, int flags, unsigned mask, struct statx *ret), \
	  (dirfd, path, flags, mask, ret)) \
	X(int, fallocate, fd, (int fd, int mode, off_t offset, off_t len), \
	  (fd, mode, offset, len)) \
	X(int, thread_start, -1, \
	  (const char *name, gyre__thread_fn *fn, void *arg, uintptr_t *ret), \
	  (name, fn, arg, ret)) \
	X(int, thread_pin, -1, (unsigned nth_cpu), (nth_cpu)) \
	X(int, self_set, -1, (void *value, void (*at_exit)(void *value)), (value, at_exit)) \
	X(int, at_fork, -1, \
	  (void (*prepare)(void), void (*parent)(void), void (*child)(void)), \
	  (prepare, parent, child))

#define FAULT_WRAPPER(type, name, descriptor, parameters, arguments) \
static type fault_##name parameters \
{ \
	struct gyre__fault_rule rule; \
\
	if (fault_due(GYRE__FAULT_##name, descriptor, 0, __builtin_return_address(0), &rule)) \
		return rule.error; \
	return base->name arguments; \
}
FAULT_LIST(FAULT_WRAPPER)

void gyre__fault_install(void)
{
	GYRE_ASSERT(gyre__sys != &table);
	gyre__fault_clear();
	base = gyre__sys;
	table = *base;
#define FAULT_ENTRY(type, name, descriptor, parameters, arguments) table.name = fault_##name;
	FAULT_LIST(FAULT_ENTRY)
	table.uring_enter = fault_uring_enter;
	table.alloc = fault_alloc;
	table.close = fault_close;
	table.sleep_ns = fault_sleep_ns;
	gyre__sys = &table;
}

void gyre__fault_remove(void)
{
	GYRE_ASSERT(gyre__sys == &table);
	gyre__fault_clear();
	gyre__sys = base;
}

void gyre__fault_add(const struct gyre__fault_rule *rule)
{
	pthread_mutex_lock(&lock);
	GYRE_ASSERT(rule_count < RULES_MAX);
	rules[rule_count++] = *rule;
	pthread_mutex_unlock(&lock);
	gyre__store(&armed, 1, release);
}

void gyre__fault_set_on(const char *thread, enum gyre__fault_call call, unsigned skip,
			unsigned times, int error)
{
	struct gyre__fault_rule rule = {
		.call = call,
		.skip = skip,
		.times = times,
		.error = error,
		.fd = GYRE__FAULT_ANY_FD,
	};

	strncpy(rule.thread, thread, sizeof(rule.thread) - 1);
	gyre__fault_add(&rule);
}

void gyre__fault_set(enum gyre__fault_call call, unsigned skip, unsigned times, int error)
{
	gyre__fault_set_on(GYRE__FAULT_ANY_THREAD, call, skip, times, error);
}

void gyre__fault_partial(unsigned skip, unsigned times, unsigned partial)
{
	struct gyre__fault_rule rule = {
		.call = GYRE__FAULT_uring_enter,
		.skip = skip,
		.times = times,
		.partial = partial,
		.fd = GYRE__FAULT_ANY_FD,
	};

	GYRE_ASSERT(partial > 0);
	gyre__fault_add(&rule);
}

void gyre__fault_no_sleep(void)
{
	gyre__store(&sleepless, 1, relaxed);
}

void gyre__fault_hook(enum gyre__fault_call call, gyre__fault_hook_fn *fn, void *arg)
{
	pthread_mutex_lock(&lock);
	hooks[call] = (struct fault_hook){ fn, arg };
	pthread_mutex_unlock(&lock);
	gyre__store(&armed, 1, release);
}

unsigned gyre__fault_count(enum gyre__fault_call call)
{
	return gyre__load(&counts[call], relaxed);
}

unsigned gyre__fault_hits(enum gyre__fault_call call)
{
	return gyre__load(&hits[call], relaxed);
}

void gyre__fault_clear(void)
{
	unsigned i;

	/* No atomic under the lock: simulated, it is where another fiber may go on. */
	gyre__store(&armed, 0, release);
	gyre__store(&sleepless, 0, relaxed);
	pthread_mutex_lock(&lock);
	rule_count = 0;
	memset(hooks, 0, sizeof(hooks));
	pthread_mutex_unlock(&lock);
	for (i = 0; i < GYRE__FAULT_CALLS; i++) {
		gyre__store(&counts[i], 0, relaxed);
		gyre__store(&hits[i], 0, relaxed);
	}
}

const char *gyre__fault_name(enum gyre__fault_call call)
{
	static const char *const names[GYRE__FAULT_CALLS] = {
#define FAULT_NAME(type, name, descriptor, parameters, arguments) [GYRE__FAULT_##name] = #name,
		FAULT_LIST(FAULT_NAME)
		[GYRE__FAULT_uring_enter] = "uring_enter",
		[GYRE__FAULT_alloc] = "alloc",
		[GYRE__FAULT_close] = "close",
	};

	return names[call];
}
