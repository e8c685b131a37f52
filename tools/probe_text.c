/* SPDX-License-Identifier: MIT */
/* The report for people. */
#include "probe.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define LABEL	28
#define WIDTH	98

static void __attribute__((__format__(__printf__, 2, 3)))
row(const char *label, const char *format, ...)
{
	va_list args;

	printf("  %-*s ", LABEL, label);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

/* Words after a margin, in lines that end before WIDTH. */
static void wrapped(const char *text, int margin)
{
	int at = margin;

	while (*text) {
		int len = (int)strcspn(text, " ");

		if (at > margin && at + 1 + len > WIDTH) {
			printf("\n%*s", margin, "");
			at = margin;
		}
		at += printf("%s%.*s", at > margin ? " " : "", len, text);
		text += len;
		text += *text == ' ';
	}
	putchar('\n');
}

static void wrapped_row(const char *label, const char *text)
{
	printf("  %-*s ", LABEL, label);
	wrapped(text, LABEL + 3);
}

static const char *yes_no(enum probe_answer answer)
{
	return answer == PROBE_YES ? "yes" : answer == PROBE_NO ? "no" : "not known";
}

static char *amount(char *buf, size_t size, uint64_t value)
{
	if (value == PROBE_NO_LIMIT)
		snprintf(buf, size, "no limit");
	else
		bench_text_count(buf, size, (double)value);
	return buf;
}

static char *bytes(char *buf, size_t size, uint64_t value)
{
	if (value == PROBE_NO_LIMIT)
		snprintf(buf, size, "no limit");
	else
		bench_text_bytes(buf, size, value);
	return buf;
}

/* ------------------------------------------------------ kernel and policy -- */

static void print_verdict(const struct probe *probe)
{
	unsigned more = probe->lack_count;

	if (!probe->ring.runs)
		printf("gyre cannot run here; what to do about it stands at the end.\n");
	else if (more == 0)
		printf("gyre runs here, and has all that it wants.\n");
	else
		printf("gyre runs here; %u thing%s missing, see the end.\n", more,
		       more == 1 ? " is" : "s are");
}

static void print_policy(const struct probe *probe)
{
	static const char *const seccomp[] = { "none", "strict", "a filter is in force" };
	const struct probe_ring *ring = &probe->ring;

	printf("\nKernel and policy\n");
	row("kernel", "%s", probe->machine.kernel);
	row("CPU", "%s, %u allowed", probe->machine.cpu, probe->machine.cpus);
	row("liburing", "%s", probe->machine.liburing);
	if (ring->killed)
		row("io_uring", "whoever asks for it is killed");
	else if (ring->setup_error < 0)
		row("io_uring", "refused (%s)", probe_error_name(ring->setup_error));
	else if (ring->register_error < 0 || ring->enter_error < 0)
		row("io_uring", "refused in part: %s (%s)",
		    ring->register_error < 0 ? "io_uring_register" : "io_uring_enter",
		    probe_error_name(ring->register_error < 0 ? ring->register_error :
							       ring->enter_error));
	else
		row("io_uring", "allowed");
	if (ring->disabled >= 0)
		row("kernel.io_uring_disabled", "%ld", ring->disabled);
	else
		row("kernel.io_uring_disabled", "not known to this kernel (Linux 6.6)");
	row("seccomp", "%s", ring->seccomp >= 0 && ring->seccomp <= 2 ? seccomp[ring->seccomp] :
								       "not known");
	row("gyre_open(), a call", "%s", ring->runs ? "succeed" : "do not succeed");
}

static void print_flags(const struct probe *probe)
{
	const struct probe_ring *ring = &probe->ring;
	unsigned i;

	printf("\nSet-up flags\n");
	for (i = 0; i < PROBE_FLAGS; i++)
		row(probe_flags[i].name, "%s%s", yes_no(ring->flag[i]),
		    ring->flags_in_use & probe_flags[i].bit ? ", in use" : "");
	row("registered buffers", "%s", yes_no(ring->buffers));
}

static void print_opcodes(const struct probe *probe)
{
	const struct probe_opcode_about *about;
	char text[2048] = "";
	size_t used = 0;
	unsigned all = 0, known = 0;

	printf("\nOpcodes that closures may use\n");
	for (about = probe_opcodes; about->name; about++) {
		all++;
		if (!probe->ring.opcode[about->opcode])
			continue;
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s",
					 known++ ? " " : "", about->name);
	}
	if (!probe->ring.opcodes_known) {
		row("known to this kernel", "not known");
		return;
	}
	row("known to this kernel", "%u of %u", known, all);
	wrapped_row("", text);
	for (about = probe_opcodes; about->name; about++)
		if (!probe->ring.opcode[about->opcode])
			row(about->name, "no, from Linux %s on", about->since);
}

/* ----------------------------------------------------------------- limits -- */

static void print_memlock(const struct probe *probe)
{
	const struct probe_limits *limits = &probe->limits;
	char a[32], b[32], c[32];

	row("RLIMIT_MEMLOCK", "%s (can be raised to %s)%s", bytes(a, sizeof(a), limits->memlock),
	    bytes(b, sizeof(b), limits->memlock_max),
	    limits->memlock_counts == PROBE_NO ? "; rings do not count against it here" : "");
	if (probe->ring.ring_bytes == 0)
		return;
	row("a ring", "%s, with %u entries and %u in flight",
	    bytes(a, sizeof(a), probe->ring.ring_bytes), probe->plan.ring_entries,
	    probe->plan.inflight_max);
	row("rings within the limit", "%s%s", amount(c, sizeof(c), limits->rings),
	    limits->rings == PROBE_NO_LIMIT ?
	    "" : ", one a worker, for all processes of this user");
}

static void print_limits(const struct probe *probe)
{
	const struct probe_limits *limits = &probe->limits;
	char a[32], b[32];

	printf("\nLimits\n");
	print_memlock(probe);
	row("RLIMIT_NOFILE", "%s (can be raised to %s); 3 a worker, none a calling thread",
	    amount(a, sizeof(a), limits->nofile), amount(b, sizeof(b), limits->nofile_max));
	row("guard pages", "%s", limits->guard_install == PROBE_YES ?
	    "MADV_GUARD_INSTALL, no mapping of their own" :
	    limits->guard_install == PROBE_NO ? "mprotect() only, mappings of their own" :
						"not known");
	row("vm.max_map_count", "%s, %s in use here",
	    amount(a, sizeof(a), limits->map_count_max), amount(b, sizeof(b), limits->maps));
	if (limits->stacks == PROBE_NO_LIMIT)
		row("stacks with guard pages", "as many as memory holds");
	else
		row("stacks with guard pages", "%s, %.0f mappings each",
		    amount(a, sizeof(a), limits->stacks), limits->maps_a_stack);
}

/* ------------------------------------------------------------------ times -- */

static void print_span(const char *label, const struct probe_span *span, double unit,
		       const char *unit_name)
{
	char median[32], least[32], most[32];

	if (isnan(span->median)) {
		row(label, "not measured");
		return;
	}
	row(label, "%8s %s  (%s to %s)",
	    bench_text_figure(median, sizeof(median), span->median / unit), unit_name,
	    bench_text_figure(least, sizeof(least), span->least / unit),
	    bench_text_figure(most, sizeof(most), span->most / unit));
}

static void print_times(const struct probe_times *times)
{
	printf("\nTimes (medians, least and most)\n");
	print_span("a system call", &times->syscall, 1, "ns");
	print_span("clock_gettime()", &times->clock, 1, "ns");
	print_span("sched_yield(), alone", &times->yield, 1, "ns");
	print_span("a NOP on a ring", &times->nop, 1, "ns");
	print_span("wake by eventfd, other CPU", &times->eventfd_across, 1e3, "us");
	print_span("wake by eventfd, same CPU", &times->eventfd_same, 1e3, "us");
	print_span("wake by futex, other CPU", &times->futex_across, 1e3, "us");
	print_span("wake by futex, same CPU", &times->futex_same, 1e3, "us");
}

/* ------------------------------------------------------------------- path -- */

static void print_nowait(const char *label, int res)
{
	row(label, "%s", res >= 0 ? "answered at once" :
		   res == -EAGAIN ? "would wait, and says so (EAGAIN)" : probe_error_name(res));
}

static void print_direct(const struct probe_path *path)
{
	row("O_DIRECT", "%s", yes_no(path->direct));
	if (path->direct == PROBE_YES)
		row("its alignment", "memory %u, offset and length %u, %s", path->direct_memory,
		    path->direct_offset, path->direct_told ? "told by statx()" : "found by trying");
	if (path->direct == PROBE_YES)
		row("O_DIRECT with RWF_DSYNC", "%s", path->direct_dsync >= 0 ? "yes" :
		    probe_error_name(path->direct_dsync));
}

static void print_jobs(const struct probe_path *path)
{
	unsigned i;

	printf("\nOperations on a ring: who does them\n");
	for (i = 0; i < PROBE_JOBS; i++) {
		const struct probe_job_result *job = &path->job[i];

		if (job->punted == PROBE_UNKNOWN)
			row(probe_jobs[i].name, "not known");
		else
			row(probe_jobs[i].name, "%s%s%s", job->punted == PROBE_YES ?
			    "a thread of the kernel's own" : "the submitter, or the device",
			    job->res < 0 ? "; fails here with " : "",
			    job->res < 0 ? probe_error_name(job->res) : "");
	}
}

static void print_faster(const struct probe_path *path, unsigned which)
{
	const double ratio = path->ratio[which];

	if (isnan(ratio))
		row("faster", "nothing to compare");
	else if (path->faster[which] == PROBE_DURABLES)
		row("faster", "neither, clearly");
	else if (path->faster[which] == PROBE_DSYNC)
		row("faster", "RWF_DSYNC, by %.2f", ratio);
	else
		row("faster", "write and fdatasync, by %.2f", 1 / ratio);
}

static void print_durable(const struct probe_path *path)
{
	char label[64];

	printf("\nDurable writes of 4 KiB, as each thread sees them (medians, least and most)\n");
	print_span("write, fdatasync, 1 thread", &path->durable[PROBE_FDATASYNC][0], 1, "us");
	print_span("RWF_DSYNC, 1 thread", &path->durable[PROBE_DSYNC][0], 1, "us");
	print_faster(path, 0);
	snprintf(label, sizeof(label), "write, fdatasync, %u threads", PROBE_DURABLE_THREADS);
	print_span(label, &path->durable[PROBE_FDATASYNC][1], 1, "us");
	snprintf(label, sizeof(label), "RWF_DSYNC, %u threads", PROBE_DURABLE_THREADS);
	print_span(label, &path->durable[PROBE_DSYNC][1], 1, "us");
	print_faster(path, 1);
}

static void print_path(const struct probe *probe)
{
	const struct probe_path *path = &probe->path;

	printf("\nFiles in %s\n", probe->plan.path);
	if (path->error[0] != '\0') {
		printf("  %s\n", path->error);
		return;
	}
	row("file system", "%s on %s", probe->machine.fs, probe->machine.device);
	if (probe->machine.device_about[0] != '\0')
		row("device", "%s", probe->machine.device_about);
	row("O_TMPFILE", "%s", yes_no(path->tmpfile));
	print_nowait("NOWAIT read, cached", path->nowait_cached);
	print_nowait("NOWAIT read, not cached", path->nowait_uncached);
	print_direct(path);
	print_jobs(path);
	print_durable(path);
}

/* ------------------------------------------------------------------- lacks -- */

static void print_lacks(const struct probe *probe)
{
	unsigned i;

	if (probe->lack_count == 0)
		return;
	printf("\nWhat is missing, and how to get it\n");
	for (i = 0; i < probe->lack_count; i++) {
		printf("  - ");
		wrapped(probe->lacks[i].how, 4);
	}
}

void probe_print_text(const struct probe *probe)
{
	print_verdict(probe);
	print_policy(probe);
	print_flags(probe);
	print_opcodes(probe);
	print_limits(probe);
	print_times(&probe->times);
	if (probe->plan.path)
		print_path(probe);
	print_lacks(probe);
}
