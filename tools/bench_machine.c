/* SPDX-License-Identifier: MIT */
/* Where the figures come from: a figure without its machine cannot be compared. */
#include "bench_machine.h"

#include <ctype.h>
#include <limits.h>
#include <liburing.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <gyre.h>

#include "bench_clock.h"

#define STRINGIFY_(x)	#x
#define STRINGIFY(x)	STRINGIFY_(x)

extern char **environ;

const char *bench_liburing_version(void)
{
#if defined(LIBURING_VERSION)
	return LIBURING_VERSION;
#elif defined(IO_URING_VERSION_MAJOR)
	return STRINGIFY(IO_URING_VERSION_MAJOR) "." STRINGIFY(IO_URING_VERSION_MINOR);
#else
	return "unknown";
#endif
}

uint64_t bench_memory_size(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The first line of a file, without its end; false when there is none. */
static bool read_line(const char *path, char *buf, int size)
{
	FILE *file = fopen(path, "re");
	bool good;

	if (!file)
		return false;
	good = fgets(buf, size, file) != NULL;
	fclose(file);
	if (good)
		buf[strcspn(buf, "\n")] = '\0';
	return good;
}

static void describe_cpu(struct bench_machine *machine)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	char line[512];
	cpu_set_t set;

	snprintf(machine->cpu, sizeof(machine->cpu), "unknown CPU");
	while (file && fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (!colon || strncmp(line, "model name", 10) != 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(machine->cpu, sizeof(machine->cpu), "%.150s", colon + 2);
		break;
	}
	if (file)
		fclose(file);
	/* More CPUs than a cpu_set_t holds: then all that are online. */
	machine->cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ?
			(unsigned)CPU_COUNT(&set) : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
}

/* What a container may use of its CPUs; 0: all. */
static double find_quota(void)
{
	double quota, period;
	char line[64];

	if (read_line("/sys/fs/cgroup/cpu.max", line, sizeof(line)) &&
	    sscanf(line, "%lf %lf", &quota, &period) == 2 && period > 0)
		return quota / period;
	return 0;
}

/* mountinfo writes blanks and backslashes as \ooo. */
static void unescape(char *text)
{
	char *to = text;

	while (*text) {
		if (text[0] == '\\' && isdigit((unsigned char)text[1]) &&
		    isdigit((unsigned char)text[2]) && isdigit((unsigned char)text[3])) {
			*to++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + text[3] - '0');
			text += 4;
		} else {
			*to++ = *text++;
		}
	}
	*to = '\0';
}

static bool is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (len == 1 && dir[0] == '/')
		return true;
	return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* The mount that path is on: the deepest above it, the last where several are stacked. */
static void find_mount(const char *path, struct bench_machine *machine)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0, deepest = 0;

	while (file && getline(&line, &size, file) > 0) {
		char place[PATH_MAX], type[64], source[PATH_MAX];
		char *dash = strstr(line, " - ");

		if (!dash || sscanf(line, "%*s %*s %*s %*s %4095s", place) != 1 ||
		    sscanf(dash, " - %63s %4095s", type, source) != 2)
			continue;
		unescape(place);
		unescape(source);
		if (!is_below(path, place) || strlen(place) < deepest)
			continue;
		deepest = strlen(place);
		snprintf(machine->fs, sizeof(machine->fs), "%.60s", type);
		snprintf(machine->device, sizeof(machine->device), "%.150s", source);
	}
	free(line);
	if (file)
		fclose(file);
}

/* "none [mq-deadline] kyber": the one in use. */
static void keep_bracketed(char *text)
{
	char *open = strchr(text, '['), *shut = open ? strchr(open, ']') : NULL;

	if (!shut)
		return;
	memmove(text, open + 1, (size_t)(shut - open - 1));
	text[shut - open - 1] = '\0';
}

static bool read_attribute(dev_t dev, const char *name, char *buf, int size)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(dev), minor(dev), name);
	if (read_line(path, buf, size))
		return true;
	/* A partition: the disk around it knows. */
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../%s", major(dev), minor(dev), name);
	return read_line(path, buf, size);
}

static void describe_device(dev_t dev, struct bench_machine *machine)
{
	char rotational[16], scheduler[128], model[64] = "";

	if (!read_attribute(dev, "queue/rotational", rotational, sizeof(rotational)) ||
	    !read_attribute(dev, "queue/scheduler", scheduler, sizeof(scheduler)))
		return;
	keep_bracketed(scheduler);
	if (read_attribute(dev, "device/model", model, sizeof(model)))
		strcat(model, ", ");
	snprintf(machine->device_about, sizeof(machine->device_about),
		 "%.60s%u:%u, rotational %s, scheduler %.40s", model, major(dev), minor(dev),
		 rotational, scheduler);
}

static void describe_fs(int fd, const char *name, struct bench_machine *machine)
{
	char path[PATH_MAX];
	struct statfs fs;
	struct stat st, source;

	if (fstat(fd, &st) < 0 || !realpath(name, path))
		return;
	if (S_ISBLK(st.st_mode)) {
		snprintf(machine->fs, sizeof(machine->fs), "no file system");
		snprintf(machine->device, sizeof(machine->device), "%.150s", path);
		describe_device(st.st_rdev, machine);
		return;
	}
	find_mount(path, machine);
	if (machine->fs[0] == '\0' && fstatfs(fd, &fs) == 0)
		snprintf(machine->fs, sizeof(machine->fs), "type 0x%lx", (unsigned long)fs.f_type);
	describe_device(st.st_dev, machine);
	/* A file system with device numbers of its own, on a disk all the same. */
	if (machine->device_about[0] == '\0' && stat(machine->device, &source) == 0 &&
	    S_ISBLK(source.st_mode))
		describe_device(source.st_rdev, machine);
}

/* They change what gyre_open() does, so a figure must carry them. */
static void describe_environment(struct bench_machine *machine)
{
	size_t used = 0;
	char **entry;

	for (entry = environ; *entry; entry++) {
		int n;

		/* Of the route, the engines decide. */
		if (strncmp(*entry, "GYRE_", 5) != 0 || strncmp(*entry, "GYRE_ROUTE=", 11) == 0)
			continue;
		n = snprintf(machine->environment + used, sizeof(machine->environment) - used,
			     "%s%s", used ? " " : "", *entry);
		if (n < 0 || (size_t)n >= sizeof(machine->environment) - used)
			break;
		used += (size_t)n;
	}
}

static void describe_clock(struct bench_machine *machine)
{
	if (bench_clock.tsc)
		snprintf(machine->clock, sizeof(machine->clock), "time stamp counter, %.3f GHz",
			 1 / bench_clock.ns_per_tick);
	else
		snprintf(machine->clock, sizeof(machine->clock), "clock_gettime(CLOCK_MONOTONIC)");
}

void bench_machine_describe(int fd, const char *path, struct bench_machine *ret)
{
	struct utsname name;
	time_t now = time(NULL);
	struct tm utc;

	memset(ret, 0, sizeof(*ret));
	describe_cpu(ret);
	ret->cpu_quota = find_quota();
	ret->memory = bench_memory_size();
	if (uname(&name) == 0)
		snprintf(ret->kernel, sizeof(ret->kernel), "%.30s %.60s %.30s", name.sysname,
			 name.release, name.machine);
	if (fd >= 0)
		describe_fs(fd, path, ret);
	snprintf(ret->gyre, sizeof(ret->gyre), "%s", gyre_version());
	snprintf(ret->liburing, sizeof(ret->liburing), "%s", bench_liburing_version());
#if defined(__clang__)
	snprintf(ret->compiler, sizeof(ret->compiler), "%.150s", __VERSION__);
#elif defined(__GNUC__)
	snprintf(ret->compiler, sizeof(ret->compiler), "gcc %.150s", __VERSION__);
#endif
	describe_clock(ret);
	describe_environment(ret);
	if (gmtime_r(&now, &utc))
		strftime(ret->date, sizeof(ret->date), "%Y-%m-%dT%H:%M:%SZ", &utc);
}

void bench_machine_write(struct json *json, const struct bench_machine *machine)
{
	json_open(json, "machine", '{');
	json_string(json, "cpu", machine->cpu);
	json_integer(json, "cpus_usable", machine->cpus);
	json_number(json, "cpu_quota", machine->cpu_quota > 0 ? machine->cpu_quota : NAN);
	json_integer(json, "memory_bytes", machine->memory);
	json_string(json, "kernel", machine->kernel);
	json_string(json, "gyre", machine->gyre);
	json_string(json, "liburing", machine->liburing);
	json_string(json, "compiler", machine->compiler);
	json_string(json, "clock", machine->clock);
	json_string(json, "environment", machine->environment);
	json_close(json, '}');
}
