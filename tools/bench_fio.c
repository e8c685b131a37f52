/* SPDX-License-Identifier: MIT */
/*
 * fio as an engine: the same file, block size, way of opening, number of
 * callers (its jobs, as threads) and of operations a call (its iodepth), for
 * as long and in the same turns as the engines of our own. It opens the file
 * anew by our descriptor, as a temporary one has no name.
 */
#include "bench.h"

#include "bench_parse.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Its jobs cannot make one write in thirty durable. */
#define ON_ONE_KIND	(BENCH_ON_FILE & ~BENCH_WORK_BIT(BENCH_MIXED))

#define ARGS_MAX	40u
#define ARG_SIZE	96u
/* fio makes its jobs, and tells of them, outside the window. */
#define PATIENCE_S	60.0

/* The program, its arguments and what it prints. */
struct fio {
	char arg[ARGS_MAX][ARG_SIZE];
	char *argv[ARGS_MAX + 1];
	unsigned count;
	int out, err;			/* memory */
};

/* ------------------------------------------------------------ is it here -- */

static bool find_program(const char *name)
{
	const char *at = getenv("PATH");
	char path[PATH_MAX];

	while (at && *at) {
		size_t len = strcspn(at, ":");

		if (len > 0 &&
		    snprintf(path, sizeof(path), "%.*s/%s", (int)len, at, name) < PATH_MAX &&
		    access(path, X_OK) == 0)
			return true;
		at += len + (at[len] == ':');
	}
	return false;
}

static const char *fio_missing(void)
{
	static int found = -1;

	if (found < 0)
		found = find_program("fio");
	return found ? NULL : "there is no program fio in PATH (Debian has it in the package fio)";
}

/* ------------------------------------------------------------ arguments -- */

static void __attribute__((__format__(__printf__, 2, 3)))
add_arg(struct fio *fio, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(fio->arg[fio->count], ARG_SIZE, format, args);
	va_end(args);
	fio->argv[fio->count] = fio->arg[fio->count];
	fio->argv[++fio->count] = NULL;
}

static void add_work_args(struct fio *fio, const struct bench_run *run)
{
	const struct bench_case *kase = run->kase;
	unsigned long long block = kase->block_size;

	switch (kase->work) {
	case BENCH_RANDWRITE:
		add_arg(fio, "--rw=randwrite");
		break;
	case BENCH_DURABLE:
		add_arg(fio, "--rw=randwrite");
		add_arg(fio, "--sync=dsync");
		break;
	case BENCH_READ:
		add_arg(fio, "--rw=read");
		add_arg(fio, "--offset_increment=%llu",
			(unsigned long long)(run->blocks / kase->callers) * block);
		break;
	default:
		add_arg(fio, "--rw=randread");
		add_arg(fio, "--readonly");
		break;
	}
	/* As ours: anywhere, whether it was there before or not. */
	add_arg(fio, "--norandommap");
	add_arg(fio, "--bs=%llu", block);
	add_arg(fio, "--size=%llu", (unsigned long long)run->blocks * block);
	add_arg(fio, "--direct=%d", kase->direct);
	add_arg(fio, "--numjobs=%u", kase->callers);
	add_arg(fio, "--iodepth=%u", kase->batch);
	/* A call is a batch: all of it goes, all of it is waited for. */
	add_arg(fio, "--iodepth_batch_submit=%u", kase->batch);
	add_arg(fio, "--iodepth_batch_complete_min=%u", kase->batch);
	if (kase->rate > 0)
		add_arg(fio, "--rate_iops=%.0f", kase->rate * kase->batch);
}

static void fill_args(struct fio *fio, const struct bench_run *run)
{
	const char *ioengine = strchr(run->engine->name, '-') + 1;

	add_arg(fio, "fio");
	add_arg(fio, "--name=gyre-bench");
	add_arg(fio, "--filename=/proc/%d/fd/%d", (int)getpid(), run->target->fd);
	add_arg(fio, "--ioengine=%s", strcmp(ioengine, "uring") == 0 ? "io_uring" : ioengine);
	add_work_args(fio, run);
	add_arg(fio, "--thread");
	add_arg(fio, "--group_reporting");
	add_arg(fio, "--unified_rw_reporting=1");
	add_arg(fio, "--time_based");
	add_arg(fio, "--runtime=%.0fms", run->kase->seconds * 1e3);
	add_arg(fio, "--ramp_time=%.0fms", run->plan->warmup * 1e3);
	/* The page cache stays as bench_target_prepare() made it. */
	add_arg(fio, "--invalidate=0");
	add_arg(fio, "--allow_file_create=0");
	add_arg(fio, "--clat_percentiles=0");
	add_arg(fio, "--lat_percentiles=1");
	add_arg(fio, "--percentile_list=50:90:99:99.9");
	add_arg(fio, "--output-format=json");
}

/* -------------------------------------------------------------- running -- */

/* The child: becomes fio, and does not outlive us. */
static void __attribute__((__noreturn__)) become_fio(const struct fio *fio, pid_t parent)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() == parent && dup2(null, STDIN_FILENO) >= 0 &&
	    dup2(fio->out, STDOUT_FILENO) >= 0 && dup2(fio->err, STDERR_FILENO) >= 0)
		execvp(fio->argv[0], fio->argv);
	dprintf(STDERR_FILENO, "it cannot be started: %s\n", strerror(errno));
	_exit(127);
}

/* The exit status, as wait() tells it; -1 after a fault. */
static int run_fio(struct bench_run *run, const struct fio *fio)
{
	int patience_ms = (int)((run->kase->seconds + run->plan->warmup + PATIENCE_S) * 1e3);
	pid_t parent = getpid(), child;
	struct pollfd end = { .events = POLLIN };
	int status = -1;

	child = fork();
	if (child == 0)
		become_fio(fio, parent);
	if (child < 0)
		return bench_fault(run, "%s: no process: %m", run->engine->name);
	end.fd = (int)syscall(SYS_pidfd_open, child, 0);
	/* Without such descriptors (Linux before 5.3): as long as it takes. */
	if (end.fd >= 0 && poll(&end, 1, patience_ms) == 0) {
		kill(child, SIGKILL);
		bench_fault(run, "%s: fio did not end", run->engine->name);
	}
	if (end.fd >= 0)
		close(end.fd);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return run->fault[0] ? -1 : status;
}

/* What it printed, to be freed; NULL when there is no memory. */
static char *printed(int fd, size_t *ret_len)
{
	struct stat st;
	char *text;
	ssize_t n;

	if (fstat(fd, &st) < 0 || st.st_size > (off_t)BENCH_JSON_SIZE_MAX)
		return NULL;
	text = malloc((size_t)st.st_size + 1);
	n = text ? pread(fd, text, (size_t)st.st_size, 0) : 0;
	if (n < 0)
		n = 0;
	if (text)
		text[n] = '\0';
	*ret_len = (size_t)n;
	return text;
}

/* With the first line of what fio said of it. */
static int fio_fault(struct bench_run *run, const struct fio *fio, const char *what)
{
	char *said, why[PATH_MAX + BENCH_TEXT];
	size_t len = 0;

	if (!bench_target_whole(run->target, why, sizeof(why)))
		return bench_fault(run, "%s", why);
	said = printed(fio->err, &len);
	if (said)
		said[strcspn(said, "\n")] = '\0';
	bench_fault(run, "%s: %s%s%.300s", run->engine->name, what, said && *said ? ": " : "",
		    said ? said : "");
	free(said);
	return -1;
}

/* --------------------------------------------------------------- result -- */

/* A number from afar: none that is negative, or none at all, gets into a figure. */
static double sane(double value)
{
	return value >= 0 && isfinite(value) ? value : NAN;
}

static int take_result(struct bench_run *run, const struct fio *fio,
		       const struct bench_value *report, struct bench_result *ret)
{
	const struct bench_value *jobs = bench_value_get(report, "jobs");
	const struct bench_value *job = jobs ? jobs->first : NULL;
	const struct bench_value *all = bench_value_get(job, "mixed");
	const struct bench_value *lat = bench_value_get(all, "lat_ns");
	const struct bench_value *share = bench_value_get(lat, "percentile");
	double cpu, ops, *value = ret->value;
	unsigned i;

	for (i = 0; i < BENCH_METRICS; i++)
		value[i] = NAN;
	ops = bench_value_number(all, "total_ios");
	value[BENCH_OPS] = sane(bench_value_number(all, "iops"));
	if (!job || isnan(value[BENCH_OPS]) || !(ops > 0))
		return fio_fault(run, fio, "fio told of no operations");
	if (bench_value_number(job, "error") != 0)
		return fio_fault(run, fio, "fio told of an error");
	if (bench_value_number(all, "short_ios") > 0)
		return fio_fault(run, fio, "fio told of operations that were short");
	value[BENCH_P50] = sane(bench_value_number(share, "50.000000")) / 1e3;
	value[BENCH_P90] = sane(bench_value_number(share, "90.000000")) / 1e3;
	value[BENCH_P99] = sane(bench_value_number(share, "99.000000")) / 1e3;
	value[BENCH_P999] = sane(bench_value_number(share, "99.900000")) / 1e3;
	value[BENCH_MAX] = sane(bench_value_number(lat, "max")) / 1e3;
	/* Of a job, the mean of all: those of the kernel's own threads are not in it. */
	cpu = (bench_value_number(job, "usr_cpu") + bench_value_number(job, "sys_cpu")) *
	      run->kase->callers;
	value[BENCH_CPU_PERCENT] = sane(cpu);
	value[BENCH_CPU_US] = sane(cpu * 1e4 / value[BENCH_OPS]);
	value[BENCH_SWITCHES] = sane(bench_value_number(job, "ctx") / ops);
	return 0;
}

/* fio may say things before its JSON begins. */
static int read_result(struct bench_run *run, const struct fio *fio, struct bench_result *ret)
{
	struct bench_value *report = NULL;
	char *text, *start, why[BENCH_TEXT];
	size_t len = 0;
	int rc = -1;

	text = printed(fio->out, &len);
	start = text && *text != '{' ? strstr(text, "\n{") : text;
	if (start)
		report = bench_value_parse(start, len - (size_t)(start - text), why, sizeof(why));
	if (report)
		rc = take_result(run, fio, report, ret);
	else
		fio_fault(run, fio, "what fio prints is no JSON");
	bench_value_free(report);
	free(text);
	return rc;
}

static int fio_measure(struct bench_run *run, struct bench_result *ret)
{
	struct fio *fio = calloc(1, sizeof(*fio));
	char why[PATH_MAX + BENCH_TEXT];
	int status, rc = -1;

	if (!fio)
		return bench_fault(run, "no memory for fio's arguments");
	fio->out = memfd_create("fio-out", MFD_CLOEXEC);
	fio->err = memfd_create("fio-err", MFD_CLOEXEC);
	if (fio->out < 0 || fio->err < 0) {
		bench_fault(run, "%s: no memory for what fio prints: %m", run->engine->name);
		goto out_close;
	}
	fill_args(fio, run);
	status = run_fio(run, fio);
	if (status > 0)
		fio_fault(run, fio, "fio failed");
	else if (status == 0)
		rc = read_result(run, fio, ret);
	if (rc == 0 && !bench_target_whole(run->target, why, sizeof(why)))
		rc = bench_fault(run, "%s", why);
out_close:
	if (fio->err >= 0)
		close(fio->err);
	if (fio->out >= 0)
		close(fio->out);
	free(fio);
	return rc;
}

const struct bench_engine bench_fio_uring = {
	.name = "fio-uring",
	.about = "the program fio with its ioengine io_uring, a job for each caller",
	.works = ON_ONE_KIND,
	.missing = fio_missing,
	.measure = fio_measure,
};

const struct bench_engine bench_fio_libaio = {
	.name = "fio-libaio",
	.about = "with libaio",
	.works = ON_ONE_KIND,
	.missing = fio_missing,
	.measure = fio_measure,
};

const struct bench_engine bench_fio_psync = {
	.name = "fio-psync",
	.about = "with psync: pread() and pwrite()",
	.works = ON_ONE_KIND & ~BENCH_WORK_BIT(BENCH_BATCH_READ),
	.one_op = true,
	.missing = fio_missing,
	.measure = fio_measure,
};
