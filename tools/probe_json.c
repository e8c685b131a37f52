/* SPDX-License-Identifier: MIT */
/*
 * The report for programs. Its keys are told in gyre-probe(1): they stay, and
 * new ones may come. What is not known, and what has no limit, is null.
 */
#include "probe.h"

#include <errno.h>

static void write_answer(struct json *json, const char *key, enum probe_answer answer)
{
	if (answer == PROBE_UNKNOWN)
		json_string(json, key, NULL);
	else
		json_bool(json, key, answer == PROBE_YES);
}

static void write_amount(struct json *json, const char *key, uint64_t value)
{
	if (value == PROBE_NO_LIMIT)
		json_string(json, key, NULL);
	else
		json_integer(json, key, value);
}

/* Of an errno; null where there is none. */
static void write_error(struct json *json, const char *key, int error)
{
	json_string(json, key, error < 0 ? probe_error_name(error) : NULL);
}

static void write_span(struct json *json, const char *key, const struct probe_span *span)
{
	json_open(json, key, '{');
	json_number(json, "median", span->median);
	json_number(json, "least", span->least);
	json_number(json, "most", span->most);
	json_close(json, '}');
}

static void write_policy(struct json *json, const struct probe *probe)
{
	static const char *const seccomp[] = { "none", "strict", "filter" };
	const struct probe_ring *ring = &probe->ring;

	json_open(json, "policy", '{');
	json_bool(json, "kills", ring->killed);
	write_error(json, "io_uring_setup", ring->setup_error);
	write_error(json, "io_uring_register", ring->register_error);
	write_error(json, "io_uring_enter", ring->enter_error);
	json_number(json, "io_uring_disabled", ring->disabled >= 0 ? (double)ring->disabled : NAN);
	json_string(json, "seccomp", ring->seccomp >= 0 && ring->seccomp <= 2 ?
		    seccomp[ring->seccomp] : NULL);
	json_close(json, '}');
}

static void write_ring(struct json *json, const struct probe *probe)
{
	const struct probe_ring *ring = &probe->ring;
	const struct probe_opcode_about *about;
	unsigned i;

	json_open(json, "setup_flags", '{');
	for (i = 0; i < PROBE_FLAGS; i++)
		write_answer(json, probe_flags[i].name, ring->flag[i]);
	json_close(json, '}');
	json_open(json, "setup_flags_in_use", '[');
	for (i = 0; i < PROBE_FLAGS; i++)
		if (ring->flags_in_use & probe_flags[i].bit)
			json_string(json, NULL, probe_flags[i].name);
	json_close(json, ']');
	write_answer(json, "registered_buffers", ring->buffers);
	json_open(json, "opcodes", '{');
	for (about = probe_opcodes; about->name; about++)
		write_answer(json, about->name, !ring->opcodes_known ? PROBE_UNKNOWN :
			     ring->opcode[about->opcode] ? PROBE_YES : PROBE_NO);
	json_close(json, '}');
}

static void write_limits(struct json *json, const struct probe *probe)
{
	const struct probe_limits *limits = &probe->limits;

	json_open(json, "limits", '{');
	json_integer(json, "ring_entries", probe->plan.ring_entries);
	json_integer(json, "inflight_max", probe->plan.inflight_max);
	write_amount(json, "ring_bytes", probe->ring.ring_bytes ? probe->ring.ring_bytes :
								PROBE_NO_LIMIT);
	write_amount(json, "memlock_bytes", limits->memlock);
	write_amount(json, "memlock_bytes_max", limits->memlock_max);
	write_answer(json, "memlock_counts", limits->memlock_counts);
	write_amount(json, "rings", limits->rings);
	write_amount(json, "descriptors", limits->nofile);
	write_amount(json, "descriptors_max", limits->nofile_max);
	write_answer(json, "guard_install", limits->guard_install);
	write_amount(json, "max_map_count", limits->map_count_max ? limits->map_count_max :
								   PROBE_NO_LIMIT);
	json_number(json, "maps_a_stack", limits->maps_a_stack);
	write_amount(json, "stacks", limits->stacks);
	json_close(json, '}');
}

static void write_times(struct json *json, const struct probe_times *times)
{
	json_open(json, "times_ns", '{');
	write_span(json, "syscall", &times->syscall);
	write_span(json, "clock_gettime", &times->clock);
	write_span(json, "sched_yield", &times->yield);
	write_span(json, "ring_nop", &times->nop);
	write_span(json, "wake_eventfd_other_cpu", &times->eventfd_across);
	write_span(json, "wake_eventfd_same_cpu", &times->eventfd_same);
	write_span(json, "wake_futex_other_cpu", &times->futex_across);
	write_span(json, "wake_futex_same_cpu", &times->futex_same);
	json_close(json, '}');
}

/* "answered", "would_wait", or the error. */
static void write_nowait(struct json *json, const char *key, int res)
{
	json_string(json, key, res >= 0 ? "answered" : res == -EAGAIN ? "would_wait" :
		    probe_error_name(res));
}

static void write_jobs(struct json *json, const struct probe_path *path)
{
	unsigned i;

	json_open(json, "kernel_threads", '{');
	for (i = 0; i < PROBE_JOBS; i++)
		write_answer(json, probe_jobs[i].key, path->job[i].punted);
	json_close(json, '}');
	json_open(json, "errors", '{');
	for (i = 0; i < PROBE_JOBS; i++)
		if (path->job[i].res < 0)
			write_error(json, probe_jobs[i].key, path->job[i].res);
	json_close(json, '}');
}

static void write_durable(struct json *json, const struct probe_path *path, unsigned which)
{
	static const char *const faster[] = {
		[PROBE_FDATASYNC] = "write_fdatasync",
		[PROBE_DSYNC] = "write_dsync",
		[PROBE_DURABLES] = "neither",
	};
	const double ratio = path->ratio[which];

	json_open(json, NULL, '{');
	json_integer(json, "threads", which ? PROBE_DURABLE_THREADS : 1);
	write_span(json, "write_fdatasync_us", &path->durable[PROBE_FDATASYNC][which]);
	write_span(json, "write_dsync_us", &path->durable[PROBE_DSYNC][which]);
	json_number(json, "ratio", ratio);
	json_string(json, "faster", isnan(ratio) ? NULL : faster[path->faster[which]]);
	json_close(json, '}');
}

static void write_path(struct json *json, const struct probe *probe)
{
	const struct probe_path *path = &probe->path;

	json_open(json, "path", '{');
	json_string(json, "name", probe->plan.path);
	json_string(json, "error", path->error[0] ? path->error : NULL);
	if (path->error[0] == '\0') {
		json_string(json, "file_system", probe->machine.fs);
		json_string(json, "device", probe->machine.device);
		json_string(json, "device_about", probe->machine.device_about);
		write_answer(json, "tmpfile", path->tmpfile);
		write_nowait(json, "nowait_cached", path->nowait_cached);
		write_nowait(json, "nowait_uncached", path->nowait_uncached);
		write_answer(json, "direct", path->direct);
		write_amount(json, "direct_memory_align", path->direct_memory ?
			     path->direct_memory : PROBE_NO_LIMIT);
		write_amount(json, "direct_offset_align", path->direct_offset ?
			     path->direct_offset : PROBE_NO_LIMIT);
		json_bool(json, "direct_align_told", path->direct_told);
		json_bool(json, "direct_dsync", path->direct_dsync >= 0);
		json_bool(json, "dsync", path->dsync >= 0);
		write_jobs(json, path);
		json_open(json, "durable", '[');
		write_durable(json, path, 0);
		write_durable(json, path, 1);
		json_close(json, ']');
	}
	json_close(json, '}');
}

void probe_print_json(const struct probe *probe)
{
	struct json json = { .file = stdout, .first = true };
	unsigned i;

	json_open(&json, NULL, '{');
	json_string(&json, "tool", "gyre-probe");
	json_string(&json, "date", probe->machine.date);
	json_bool(&json, "runs", probe->ring.runs);
	bench_machine_write(&json, &probe->machine);
	write_policy(&json, probe);
	write_ring(&json, probe);
	write_limits(&json, probe);
	write_times(&json, &probe->times);
	if (probe->plan.path)
		write_path(&json, probe);
	json_open(&json, "missing", '[');
	for (i = 0; i < probe->lack_count; i++) {
		json_open(&json, NULL, '{');
		json_string(&json, "what", probe->lacks[i].what);
		json_bool(&json, "needed", probe->lacks[i].needed);
		json_string(&json, "how", probe->lacks[i].how);
		json_close(&json, '}');
	}
	json_close(&json, ']');
	json_close(&json, '}');
	fputc('\n', stdout);
}
