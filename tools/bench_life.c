/* SPDX-License-Identifier: MIT */
/*
 * What a runtime costs that is only there: to open and close, in memory, and in
 * an idle second. Measured in a child, whose memory nothing else has touched.
 */
#include "bench.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS		2
#define CYCLES		51
#define SETTLE_NS	300000000L

static void nop(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
}

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

double bench_number_in(const char *path, const char *name)
{
	char line[256];
	double sum = 0;
	FILE *file = fopen(path, "r");

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0)
			sum += strtod(line + strlen(name), NULL);
	if (file)
		fclose(file);
	return sum;
}

/* Context switches of all threads but the calling one, the process's first. */
static double switches_of_others(void)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;
	char path[300];
	double sum = 0;

	while (tasks && (entry = readdir(tasks))) {
		if (entry->d_name[0] == '.' || strtol(entry->d_name, NULL, 10) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		sum += bench_number_in(path, "voluntary_ctxt_switches:") +
		       bench_number_in(path, "nonvoluntary_ctxt_switches:");
	}
	if (tasks)
		closedir(tasks);
	return sum;
}

static double cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int open_runtime(struct gyre **ret)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;

	options.workers = WORKERS;
	return gyre_open(&options, ret) == GYRE_OK ? 0 : -1;
}

static int measure_cycles(struct bench_life *life)
{
	double took[CYCLES];
	struct gyre *rt;
	int i;

	for (i = 0; i < CYCLES; i++) {
		took[i] = now_us();
		if (open_runtime(&rt) < 0)
			return -1;
		gyre_free(rt);
		took[i] = now_us() - took[i];
	}
	qsort(took, CYCLES, sizeof(took[0]), by_size);
	life->open_close_us = took[CYCLES / 2];
	return 0;
}

static int measure_rest(struct bench_life *life)
{
	const struct timespec settle = { 0, SETTLE_NS }, second = { 1, 0 };
	double rss = bench_number_in("/proc/self/smaps_rollup", "Rss:");
	struct gyre *rt;
	int i;

	if (open_runtime(&rt) < 0)
		return -1;
	for (i = 0; i < 1000; i++)
		if (gyre_call(rt, nop, NULL, NULL) != GYRE_OK)
			return -1;
	life->rss_kib = bench_number_in("/proc/self/smaps_rollup", "Rss:") - rss;
	nanosleep(&settle, NULL);
	life->idle_switches = switches_of_others();
	life->idle_cpu_us = cpu_us();
	nanosleep(&second, NULL);
	life->idle_cpu_us = cpu_us() - life->idle_cpu_us;
	life->idle_switches = switches_of_others() - life->idle_switches;
	gyre_free(rt);
	return 0;
}

/* Memory first: the cycles would leave some behind in the allocator. */
static void measure_in_child(int fd)
{
	struct bench_life life = { 0 };

	if (measure_rest(&life) < 0 || measure_cycles(&life) < 0)
		_exit(1);
	_exit(write(fd, &life, sizeof(life)) != sizeof(life));
}

int bench_life_measure(struct bench_life *ret)
{
	int ends[2], status = 0;
	ssize_t n;
	pid_t child;

	if (pipe(ends) < 0)
		return bench_complain("no pipe: %m");
	child = fork();
	if (child == 0)
		measure_in_child(ends[1]);
	close(ends[1]);
	n = child < 0 ? -1 : read(ends[0], ret, sizeof(*ret));
	close(ends[0]);
	if (child > 0)
		waitpid(child, &status, 0);
	if (n != sizeof(*ret))
		return bench_complain("the cost of a runtime could not be measured: its child "
				      "failed");
	return 0;
}
