/* SPDX-License-Identifier: MIT */
/* What there is only so much of: locked memory, descriptors, mappings. */
#include "probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#endif

/* As many stacks are made to see what they cost; their size does not matter. */
#define STACKS		64u
#define STACK_PAGES	4u

/* A guard on every stack of so many tasks is what the project has in mind. */
#define STACKS_WANTED	100000u

static uint64_t limit_of(rlim_t value)
{
	return value == RLIM_INFINITY ? PROBE_NO_LIMIT : (uint64_t)value;
}

/*
 * Who may lock what he likes is not charged. Which capability, or which
 * kernel, makes it so: tried, with a limit of nothing.
 */
static enum probe_answer memlock_counts(const struct rlimit *limit)
{
	struct rlimit none = { .rlim_cur = 0, .rlim_max = limit->rlim_max };
	struct io_uring_params params;
	int fd;

	if (setrlimit(RLIMIT_MEMLOCK, &none) < 0)
		return PROBE_UNKNOWN;
	memset(&params, 0, sizeof(params));
	fd = io_uring_setup(1, &params);
	setrlimit(RLIMIT_MEMLOCK, limit);
	if (fd >= 0)
		close(fd);
	return fd >= 0 ? PROBE_NO : fd == -ENOMEM ? PROBE_YES : PROBE_UNKNOWN;
}

static void ask_memlock(struct probe *probe)
{
	struct probe_limits *limits = &probe->limits;
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		return;
	limits->memlock = limit_of(limit.rlim_cur);
	limits->memlock_max = limit_of(limit.rlim_max);
	limits->rings = PROBE_NO_LIMIT;
	if (probe->ring.killed || probe->ring.setup_error < 0)
		return;
	limits->memlock_counts = memlock_counts(&limit);
	if (limits->memlock_counts != PROBE_NO && limits->memlock != PROBE_NO_LIMIT)
		limits->rings = limits->memlock / probe->ring.ring_bytes;
}

static uint64_t count_maps(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	uint64_t lines = 0;
	int c;

	if (!file)
		return 0;
	while ((c = getc(file)) != EOF)
		lines += c == '\n';
	fclose(file);
	return lines;
}

/* The kernel's own way past a guard, which ends in an errno and not in a signal. */
static bool guard_holds(const void *page)
{
	int ends[2];
	bool holds;

	if (pipe(ends) < 0)
		return false;
	holds = write(ends[1], page, 1) < 0 && errno == EFAULT;
	close(ends[0]);
	close(ends[1]);
	return holds;
}

static bool make_guards(char *stacks, size_t page, bool install)
{
	size_t i;

	for (i = 0; i < STACKS; i++) {
		char *guard = stacks + i * STACK_PAGES * page;
		int rc = install ? madvise(guard, page, MADV_GUARD_INSTALL) :
				   mprotect(guard, page, PROT_NONE);

		if (rc < 0)
			return false;
	}
	return guard_holds(stacks);
}

static void ask_guards(struct probe_limits *limits)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size = STACKS * STACK_PAGES * page;
	char *stacks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t maps = count_maps();

	limits->maps = maps;
	limits->maps_a_stack = NAN;
	limits->map_count_max = (uint64_t)probe_read_number("/proc/sys/vm/max_map_count", 0);
	if (stacks == MAP_FAILED)
		return;
	limits->guard_install = make_guards(stacks, page, true) ? PROBE_YES : PROBE_NO;
	if (limits->guard_install == PROBE_YES || make_guards(stacks, page, false))
		limits->maps_a_stack = (double)(count_maps() - maps) / STACKS;
	munmap(stacks, size);
}

static void ask_stacks(struct probe *probe)
{
	struct probe_limits *limits = &probe->limits;

	ask_guards(limits);
	limits->stacks = PROBE_NO_LIMIT;
	if (limits->maps_a_stack >= 1 && limits->map_count_max > limits->maps)
		limits->stacks = (uint64_t)((double)(limits->map_count_max - limits->maps) /
					    limits->maps_a_stack);
	if (limits->guard_install == PROBE_NO)
		probe_lack(probe, "guard_install", false, "guard pages that take no mapping of "
			   "their own (MADV_GUARD_INSTALL) come with Linux 6.13");
	if (limits->stacks < STACKS_WANTED)
		probe_lack(probe, "max_map_count", false, "vm.max_map_count (%llu) allows about "
			   "%llu stacks with guard pages: raise it by sysctl "
			   "vm.max_map_count=1048576, or use Linux 6.13 or later",
			   (unsigned long long)limits->map_count_max,
			   (unsigned long long)limits->stacks);
}

void probe_ask_limits(struct probe *probe)
{
	struct probe_limits *limits = &probe->limits;
	struct rlimit limit;

	ask_memlock(probe);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limits->nofile = limit_of(limit.rlim_cur);
		limits->nofile_max = limit_of(limit.rlim_max);
	}
	ask_stacks(probe);
}
