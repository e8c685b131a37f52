/* SPDX-License-Identifier: MIT */
/*
 * Descriptors and threads are read from /proc/self, mappings too; allocations
 * are counted by a table put between the library and the kernel's, with the
 * live ones remembered so that the report can tell their size. A program that
 * does not link the library's inside (test-dlopen) goes without that part:
 * the reference to the table is weak.
 */
#define _GNU_SOURCE
#include "leak.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "ring/sys.h"

#define FDS_MAX		1024
#define THREADS_MAX	512
#define MAPS_MAX	2048
#define LIVE_MAX	(1u << 15)	/* a power of two */

struct fd_entry {
	int fd;
	char what[80];
};

struct thread_entry {
	int tid;
	char name[32];
};

struct map_entry {
	unsigned long start, end;
	char perms[8];
	char what[96];
	int stack;		/* looks like a thread's, which libc keeps for the next */
	int library;		/* belongs to one, which may stay */
};

struct leak {
	const struct gyre__sys *sys;
	unsigned long serial;
	unsigned fd_count, thread_count, map_count;
	struct fd_entry fds[FDS_MAX];
	struct thread_entry threads[THREADS_MAX];
	struct map_entry maps[MAPS_MAX];
};

struct report {
	char *text;
	size_t len, used;
	unsigned leaks;
};

static unsigned patience_ms = 3000;

extern const struct gyre__sys *gyre__sys __attribute__((__weak__));

void leak_set_patience_ms(unsigned ms)
{
	patience_ms = ms;
}

__attribute__((__format__(__printf__, 2, 3)))
static void add(struct report *report, const char *format, ...)
{
	size_t room = report->len - report->used;
	va_list args;
	int n;

	report->leaks++;
	va_start(args, format);
	n = vsnprintf(report->text + report->used, room, format, args);
	va_end(args);
	if (n > 0)
		report->used += (size_t)n < room ? (size_t)n : room - 1;
}

/* ------------------------------------------------------- allocations -- */

struct live {
	void *ptr;
	size_t size;
	unsigned long serial;
};

static pthread_mutex_t live_lock = PTHREAD_MUTEX_INITIALIZER;
static struct live live[LIVE_MAX];	/* open addressing, under live_lock */
static unsigned live_count;
static unsigned long live_serial;	/* of the latest allocation */
static struct gyre__sys counting;
static const struct gyre__sys *counted;	/* what it passes on to */

static void lock_live(void)
{
	pthread_mutex_lock(&live_lock);
}

static void unlock_live(void)
{
	pthread_mutex_unlock(&live_lock);
}

/*
 * A child that is forked while another thread allocates must not find the lock
 * held. Before all handlers of the library's: its own in the child frees memory.
 */
__attribute__((__constructor__)) static void guard_fork(void)
{
	if (pthread_atfork(lock_live, unlock_live, unlock_live) != 0)
		abort();
}

static unsigned live_home(const void *ptr)
{
	return (unsigned)(((uintptr_t)ptr >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 40) &
	       (LIVE_MAX - 1);
}

static void live_add(void *ptr, size_t size)
{
	unsigned i = live_home(ptr);

	lock_live();
	while (live[i].ptr)
		i = (i + 1) & (LIVE_MAX - 1);
	live[i] = (struct live){ ptr, size, ++live_serial };
	if (++live_count > LIVE_MAX / 2)
		abort();	/* a test for a bigger table */
	unlock_live();
}

/* Under live_lock. Closes the gap at i, so that what collided with it is still found. */
static void live_close_gap(unsigned i)
{
	unsigned next = i, home;

	for (;;) {
		live[i].ptr = NULL;
		do {
			next = (next + 1) & (LIVE_MAX - 1);
			if (!live[next].ptr)
				return;
			home = live_home(live[next].ptr);
		} while (i <= next ? i < home && home <= next : i < home || home <= next);
		live[i] = live[next];
		i = next;
	}
}

static void live_remove(void *ptr)
{
	unsigned i = live_home(ptr);

	lock_live();
	while (live[i].ptr && live[i].ptr != ptr)
		i = (i + 1) & (LIVE_MAX - 1);
	if (live[i].ptr) {
		live_close_gap(i);
		live_count--;
	}
	unlock_live();
}

static void *counting_alloc(size_t size, size_t align)
{
	void *ptr = counted->alloc(size, align);

	if (ptr)
		live_add(ptr, size);
	return ptr;
}

static void counting_free(void *ptr)
{
	if (ptr)
		live_remove(ptr);
	counted->free(ptr);
}

static void count_allocations(struct leak *leak)
{
	if (!&gyre__sys)
		return;
	leak->sys = gyre__sys;
	leak->serial = live_serial;
	if (gyre__sys == &counting)
		return;		/* a check within a check */
	counted = gyre__sys;
	counting = *counted;
	counting.alloc = counting_alloc;
	counting.free = counting_free;
	gyre__sys = &counting;
}

static void compare_allocations(const struct leak *leak, struct report *report)
{
	unsigned i;

	if (!&gyre__sys)
		return;
	if (gyre__sys != &counting)
		add(report, "the table of system calls is not what it was; ");
	gyre__sys = leak->sys;
	for (i = 0; i < LIVE_MAX; i++)
		if (live[i].ptr && live[i].serial > leak->serial)
			add(report, "allocation of %zu bytes; ", live[i].size);
}

unsigned leak_allocations(void)
{
	unsigned count;

	lock_live();
	count = live_count;
	unlock_live();
	return count;
}

/* ------------------------------------------------------- descriptors -- */

static unsigned read_fds(struct fd_entry *ret)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;
	struct dirent *entry;

	while (dir && (entry = readdir(dir)) && count < FDS_MAX) {
		char path[300];
		ssize_t n;
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] == '.' || fd == dirfd(dir))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, ret[count].what, sizeof(ret->what) - 1);
		ret[count].what[n > 0 ? n : 0] = '\0';
		ret[count++].fd = fd;
	}
	if (dir)
		closedir(dir);
	return count;
}

static const struct fd_entry *find_fd(const struct fd_entry *fds, unsigned count,
				      const struct fd_entry *wanted)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (fds[i].fd == wanted->fd && strcmp(fds[i].what, wanted->what) == 0)
			return &fds[i];
	return NULL;
}

static void compare_fds(const struct leak *leak, struct report *report)
{
	static struct fd_entry now[FDS_MAX];
	unsigned count = read_fds(now), i;

	for (i = 0; i < count; i++)
		if (!find_fd(leak->fds, leak->fd_count, &now[i]))
			add(report, "descriptor %d (%s); ", now[i].fd, now[i].what);
	for (i = 0; i < leak->fd_count; i++)
		if (!find_fd(now, count, &leak->fds[i]))
			add(report, "descriptor %d (%s) was closed, and is not the test's; ",
			    leak->fds[i].fd, leak->fds[i].what);
}

/* ----------------------------------------------------------- threads -- */

static unsigned read_threads(struct thread_entry *ret)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned count = 0;
	struct dirent *entry;

	while (dir && (entry = readdir(dir)) && count < THREADS_MAX) {
		char path[300];
		ssize_t n = 0;
		int fd;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			n = read(fd, ret[count].name, sizeof(ret->name) - 1);
			close(fd);
		}
		if (n <= 0)
			continue;	/* it has left meanwhile */
		ret[count].name[n - 1] = '\0';
		ret[count++].tid = atoi(entry->d_name);
	}
	if (dir)
		closedir(dir);
	return count;
}

static int is_new_thread(const struct leak *leak, int tid)
{
	unsigned i;

	for (i = 0; i < leak->thread_count; i++)
		if (leak->threads[i].tid == tid)
			return 0;
	return 1;
}

static unsigned long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (unsigned long)ts.tv_sec * 1000 + (unsigned long)ts.tv_nsec / 1000000;
}

static void compare_threads(const struct leak *leak, struct report *report)
{
	static struct thread_entry now[THREADS_MAX];
	unsigned long until = now_ms() + patience_ms;
	unsigned count, i, fresh;

	do {
		count = read_threads(now);
		for (i = fresh = 0; i < count; i++)
			fresh += (unsigned)is_new_thread(leak, now[i].tid);
		if (fresh)
			sched_yield();
	} while (fresh && now_ms() < until);

	for (i = 0; i < count; i++)
		if (is_new_thread(leak, now[i].tid))
			add(report, "thread %d (%s); ", now[i].tid, now[i].name);
}

/* ---------------------------------------------------------- mappings -- */

static unsigned read_maps(struct map_entry *ret)
{
	static char text[1 << 18];
	unsigned count = 0;
	size_t used = 0;
	ssize_t n;
	char *line;
	int fd;

	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	while (used < sizeof(text) - 1 && (n = read(fd, text + used, sizeof(text) - 1 - used)) > 0)
		used += (size_t)n;
	close(fd);
	text[used] = '\0';
	for (line = strtok(text, "\n"); line && count < MAPS_MAX; line = strtok(NULL, "\n")) {
		struct map_entry *map = &ret[count++];

		memset(map, 0, sizeof(*map));
		sscanf(line, "%lx-%lx %7s %*s %*s %*s %95[^\n]", &map->start, &map->end,
		       map->perms, map->what);
	}
	return count;
}

/* A shared library's own variables lie behind its file, without a name. */
static void mark_libraries(struct map_entry *maps, unsigned count)
{
	unsigned i;

	for (i = 1; i < count; i++)
		if (maps[i].what[0] == '\0' && maps[i].start == maps[i - 1].end &&
		    strstr(maps[i - 1].what, ".so"))
			maps[i].library = 1;
}

/* A thread's stack: memory of the usual size over its guard, or together with it. */
static void mark_stacks(struct map_entry *maps, unsigned count)
{
	pthread_attr_t attr;
	size_t size = 0;
	unsigned i;

	pthread_attr_init(&attr);
	pthread_attr_getstacksize(&attr, &size);
	pthread_attr_destroy(&attr);
	for (i = 1; i < count; i++)
		if (strncmp(maps[i - 1].perms, "---", 3) == 0 &&
		    strncmp(maps[i].perms, "rw-", 3) == 0 && maps[i].what[0] == '\0' &&
		    maps[i].start == maps[i - 1].end &&
		    (maps[i].end - maps[i].start == size ||
		     maps[i].end - maps[i - 1].start == size))
			maps[i - 1].stack = maps[i].stack = 1;
}

static int map_is_fine(const struct map_entry *map)
{
	return map->stack || map->library || strncmp(map->what, "[heap]", 6) == 0 ||
	       strncmp(map->what, "[stack", 6) == 0 || strncmp(map->what, "[v", 2) == 0 ||
	       strstr(map->what, ".so");
}

/* The first stretch from start on that no earlier mapping covers. */
static int uncovered(const struct leak *leak, unsigned long start, unsigned long end,
		     unsigned long *ret_start, unsigned long *ret_end)
{
	unsigned i;

	for (i = 0; i < leak->map_count && start < end; i++) {
		const struct map_entry *old = &leak->maps[i];

		if (old->end <= start)
			continue;
		if (old->start > start) {
			*ret_start = start;
			*ret_end = old->start < end ? old->start : end;
			return 1;
		}
		start = old->end;
	}
	*ret_start = start;
	*ret_end = end;
	return start < end;
}

int leak_sees_mappings(void)
{
	return !TEST_UNDER_SANITIZER;
}

static void compare_maps(const struct leak *leak, struct report *report)
{
	static struct map_entry now[MAPS_MAX];
	unsigned count, i;

	if (!leak_sees_mappings())
		return;
	count = read_maps(now);
	mark_stacks(now, count);
	mark_libraries(now, count);
	for (i = 0; i < count; i++) {
		unsigned long start = now[i].start, end;

		if (map_is_fine(&now[i]))
			continue;
		while (uncovered(leak, start, now[i].end, &start, &end)) {
			add(report, "mapping of %lu bytes (%s %s); ", end - start, now[i].perms,
			    now[i].what[0] ? now[i].what : "anonymous");
			start = end;
		}
	}
}

/* -------------------------------------------------------------------- -- */

/* What libc makes on first use must not look like a leak. */
static void warm_up(void)
{
	static struct thread_entry threads[THREADS_MAX];
	static struct fd_entry fds[FDS_MAX];
	static struct map_entry maps[MAPS_MAX];

	read_threads(threads);
	read_fds(fds);
	read_maps(maps);
}

struct leak *leak_before(void)
{
	struct leak *leak = malloc(sizeof(*leak));

	if (!leak)
		abort();
	warm_up();
	leak->fd_count = read_fds(leak->fds);
	leak->thread_count = read_threads(leak->threads);
	leak->map_count = read_maps(leak->maps);
	count_allocations(leak);
	return leak;
}

unsigned leak_after(struct leak *leak, char *text, size_t len)
{
	struct report report = { .text = text, .len = len };

	text[0] = '\0';
	compare_threads(leak, &report);
	compare_fds(leak, &report);
	compare_allocations(leak, &report);
	compare_maps(leak, &report);
	free(leak);
	return report.leaks;
}
