/* SPDX-License-Identifier: MIT */
/* io_uring: whether it is allowed, and how much of it there is. */
#include "probe.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A closed ring's locked memory may count for some 270 ms yet. */
#define PATIENCE_NS	UINT64_C(500000000)
#define PAUSE_NS	UINT64_C(10000000)

#define SMALL_RING	8u

const struct probe_flag_about probe_flags[PROBE_FLAGS] = {
	[PROBE_CQSIZE] = { "CQSIZE", "5.5", IORING_SETUP_CQSIZE, 0 },
	[PROBE_R_DISABLED] = { "R_DISABLED", "5.10", IORING_SETUP_R_DISABLED, 0 },
	[PROBE_SUBMIT_ALL] = { "SUBMIT_ALL", "5.18", IORING_SETUP_SUBMIT_ALL, 0 },
	[PROBE_COOP_TASKRUN] = { "COOP_TASKRUN", "5.19", IORING_SETUP_COOP_TASKRUN, 0 },
	[PROBE_TASKRUN_FLAG] = { "TASKRUN_FLAG", "5.19", IORING_SETUP_TASKRUN_FLAG,
				 IORING_SETUP_COOP_TASKRUN },
	[PROBE_SINGLE_ISSUER] = { "SINGLE_ISSUER", "6.0", IORING_SETUP_SINGLE_ISSUER, 0 },
	[PROBE_DEFER_TASKRUN] = { "DEFER_TASKRUN", "6.1", IORING_SETUP_DEFER_TASKRUN,
				  IORING_SETUP_SINGLE_ISSUER },
};

/* gyre's own order: what is asked for first, and what where that is refused. */
static const unsigned combinations[] = {
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL,
	0,
};

#define COMBINATIONS (sizeof(combinations) / sizeof(combinations[0]))

/* By number: the header that we are built with may be older than the kernel. */
const struct probe_opcode_about probe_opcodes[] = {
	{ 0, "NOP", "5.1" }, { 1, "READV", "5.1" }, { 2, "WRITEV", "5.1" }, { 3, "FSYNC", "5.1" },
	{ 4, "READ_FIXED", "5.1" }, { 5, "WRITE_FIXED", "5.1" }, { 6, "POLL_ADD", "5.1" },
	{ 8, "SYNC_FILE_RANGE", "5.2" },
	{ 9, "SENDMSG", "5.3" }, { 10, "RECVMSG", "5.3" },
	{ 11, "TIMEOUT", "5.4" },
	{ 13, "ACCEPT", "5.5" }, { 16, "CONNECT", "5.5" },
	{ 17, "FALLOCATE", "5.6" }, { 18, "OPENAT", "5.6" }, { 19, "CLOSE", "5.6" },
	{ 21, "STATX", "5.6" }, { 22, "READ", "5.6" }, { 23, "WRITE", "5.6" },
	{ 24, "FADVISE", "5.6" }, { 25, "MADVISE", "5.6" }, { 26, "SEND", "5.6" },
	{ 27, "RECV", "5.6" }, { 28, "OPENAT2", "5.6" }, { 29, "EPOLL_CTL", "5.6" },
	{ 30, "SPLICE", "5.7" },
	{ 33, "TEE", "5.8" },
	{ 34, "SHUTDOWN", "5.11" }, { 35, "RENAMEAT", "5.11" }, { 36, "UNLINKAT", "5.11" },
	{ 37, "MKDIRAT", "5.15" }, { 38, "SYMLINKAT", "5.15" }, { 39, "LINKAT", "5.15" },
	{ 41, "FSETXATTR", "5.19" }, { 42, "SETXATTR", "5.19" }, { 43, "FGETXATTR", "5.19" },
	{ 44, "GETXATTR", "5.19" }, { 45, "SOCKET", "5.19" },
	{ 47, "SEND_ZC", "6.0" },
	{ 48, "SENDMSG_ZC", "6.1" },
	{ 50, "WAITID", "6.7" }, { 51, "FUTEX_WAIT", "6.7" }, { 52, "FUTEX_WAKE", "6.7" },
	{ 53, "FUTEX_WAITV", "6.7" },
	{ 55, "FTRUNCATE", "6.9" },
	{ 56, "BIND", "6.11" }, { 57, "LISTEN", "6.11" },
	{ 59, "EPOLL_WAIT", "6.15" },
	{ 62, "PIPE", "6.16" },
	{ 0, NULL, NULL },
};

/* -------------------------------------------------------------- set-up -- */

int probe_setup(unsigned entries, unsigned cq_entries, unsigned flags, struct io_uring_params *ret)
{
	uint64_t patience = bench_now_ns() + PATIENCE_NS;
	int fd;

	for (;;) {
		memset(ret, 0, sizeof(*ret));
		ret->flags = flags;
		ret->cq_entries = cq_entries;
		fd = (int)syscall(__NR_io_uring_setup, entries, ret);
		if (fd >= 0)
			return fd;
		if (errno != ENOMEM || bench_now_ns() >= patience)
			return -errno;
		bench_sleep_until(bench_now_ns() + PAUSE_NS);
	}
}

int probe_ring_open(const struct probe *probe, struct io_uring *ret)
{
	const unsigned flags = probe->ring.flags_in_use &
			       ~(unsigned)(IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE);
	uint64_t patience = bench_now_ns() + PATIENCE_NS;
	int rc = io_uring_queue_init(SMALL_RING, ret, flags);

	while (rc == -ENOMEM && bench_now_ns() < patience) {
		bench_sleep_until(bench_now_ns() + PAUSE_NS);
		rc = io_uring_queue_init(SMALL_RING, ret, flags);
	}
	return rc;
}

/* A filter may kill instead of refusing: then let it be somebody else. */
static bool policy_kills(void)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		syscall(__NR_io_uring_setup, 0, NULL);
		_exit(0);
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
	       WTERMSIG(status) == SIGSYS;
}

/* ------------------------------------------------- what a ring can tell -- */

static uint64_t whole_pages(uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

/* As the kernel charges it: two areas, or three before they could be mapped as one. */
static uint64_t locked_bytes(const struct io_uring_params *params)
{
	uint64_t sq = params->sq_off.array + params->sq_entries * sizeof(unsigned);
	uint64_t cq = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
	uint64_t sqes = params->sq_entries * sizeof(struct io_uring_sqe);

	return whole_pages(sq > cq ? sq : cq) + whole_pages(sqes);
}

static void ask_opcodes(struct probe_ring *ring, int fd)
{
	struct io_uring_probe *answer;
	unsigned i;

	answer = calloc(1, sizeof(*answer) + 256 * sizeof(answer->ops[0]));
	if (!answer)
		return;
	if (syscall(__NR_io_uring_register, fd, IORING_REGISTER_PROBE, answer, 256) < 0) {
		ring->register_error = -errno;
	} else {
		ring->opcodes_known = true;
		for (i = 0; i < answer->ops_len; i++)
			ring->opcode[i] = answer->ops[i].flags & IO_URING_OP_SUPPORTED;
	}
	free(answer);
}

static void ask_buffers(struct probe_ring *ring, int fd)
{
	struct io_uring_rsrc_register table = { .nr = 1, .flags = IORING_RSRC_REGISTER_SPARSE };
	long rc = syscall(__NR_io_uring_register, fd, IORING_REGISTER_BUFFERS2, &table,
			  sizeof(table));

	if (rc >= 0)
		ring->buffers = PROBE_YES;
	else if (errno == EINVAL)
		ring->buffers = PROBE_NO;
}

static void ask_configured_ring(struct probe *probe)
{
	const struct probe_plan *plan = &probe->plan;
	struct probe_ring *ring = &probe->ring;
	unsigned cq = plan->inflight_max > plan->ring_entries ? plan->inflight_max :
								  plan->ring_entries;
	struct io_uring_params params;
	size_t i;
	int fd = -EINVAL;

	for (i = 0; i < COMBINATIONS && fd == -EINVAL; i++)
		fd = probe_setup(plan->ring_entries, cq, combinations[i] | IORING_SETUP_R_DISABLED |
				 IORING_SETUP_CQSIZE, &params);
	if (fd < 0) {
		ring->setup_error = fd;
		return;
	}
	ring->flags_in_use = params.flags;
	ring->features = params.features;
	ring->ring_bytes = locked_bytes(&params);
	ask_opcodes(ring, fd);
	if (ring->register_error == 0)
		ask_buffers(ring, fd);
	close(fd);
}

/* Each by itself; without memory for a ring none of them is known. */
static void ask_flags(struct probe_ring *ring)
{
	struct io_uring_params params;
	unsigned i;
	int fd;

	for (i = 0; i < PROBE_FLAGS; i++) {
		fd = probe_setup(1, 2, probe_flags[i].bit | probe_flags[i].with, &params);
		if (fd >= 0)
			close(fd);
		else if (fd != -EINVAL)
			return;
		ring->flag[i] = fd >= 0 ? PROBE_YES : PROBE_NO;
	}
}

static void ask_enter(struct probe *probe)
{
	struct io_uring uring;

	if (probe_ring_open(probe, &uring) < 0)
		return;
	io_uring_prep_nop(io_uring_get_sqe(&uring));
	probe->ring.enter_error = io_uring_submit_and_wait(&uring, 1);
	if (probe->ring.enter_error > 0)
		probe->ring.enter_error = 0;
	io_uring_queue_exit(&uring);
}

/* ------------------------------------------------------- what is missing -- */

static void lack_flags(struct probe *probe)
{
	unsigned i;

	for (i = 0; i < PROBE_FLAGS; i++) {
		const struct probe_flag_about *about = &probe_flags[i];
		char what[48];

		if (probe->ring.flag[i] != PROBE_NO)
			continue;
		snprintf(what, sizeof(what), "setup_%s", about->name);
		probe_lack(probe, what, i <= PROBE_R_DISABLED,
			   "the set-up flag IORING_SETUP_%s comes with Linux %s%s", about->name,
			   about->since, i <= PROBE_R_DISABLED ? "" : "; gyre does without it");
	}
}

/* A sentence for all that came with the same kernel. */
static void lack_opcodes(struct probe *probe)
{
	const struct probe_opcode_about *about = probe_opcodes, *first;

	while (about->name) {
		char names[PROBE_SENTENCE / 2] = "", what[48];
		size_t used = 0;
		unsigned missing = 0;

		for (first = about; about->name && strcmp(about->since, first->since) == 0;
		     about++) {
			if (probe->ring.opcode[about->opcode])
				continue;
			used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
						 missing++ ? ", " : "", about->name);
		}
		if (missing == 0)
			continue;
		snprintf(what, sizeof(what), "opcodes_%s", first->since);
		probe_lack(probe, what, false, "%s %s with Linux %s, as far as its configuration "
			   "includes %s; until then gyre answers GYRE_UNSUPPORTED", names,
			   missing == 1 ? "comes" : "come", first->since,
			   missing == 1 ? "it" : "them");
	}
}

static void lack_policy(struct probe *probe)
{
	const struct probe_ring *ring = &probe->ring;

	if (ring->killed)
		probe_lack(probe, "io_uring_setup", true, "a seccomp filter kills processes that "
			   "call io_uring_setup: allow io_uring_setup, io_uring_enter and "
			   "io_uring_register in its profile");
	if (ring->register_error < 0)
		probe_lack(probe, "io_uring_register", true, "io_uring_setup is allowed, but "
			   "io_uring_register is refused (%s): allow it in the seccomp profile too",
			   probe_error_name(ring->register_error));
	if (ring->enter_error < 0)
		probe_lack(probe, "io_uring_enter", true, "io_uring_setup is allowed, but "
			   "io_uring_enter is refused (%s): allow it in the seccomp profile too",
			   probe_error_name(ring->enter_error));
	if (ring->buffers == PROBE_NO)
		probe_lack(probe, "registered_buffers", false, "a table of registered buffers that "
			   "can be filled later comes with Linux 5.19; until then gyre's buffers "
			   "are not registered");
}

void probe_ask_ring(struct probe *probe)
{
	struct probe_ring *ring = &probe->ring;

	ring->disabled = probe_read_number("/proc/sys/kernel/io_uring_disabled", -1);
	ring->seccomp = (int)probe_read_status("Seccomp", -1);
	ring->killed = policy_kills();
	if (ring->killed)
		ring->setup_error = -ENOSYS;
	else
		ask_configured_ring(probe);
	if (ring->setup_error == 0) {
		ask_flags(ring);
		ask_enter(probe);
		lack_flags(probe);
		if (ring->opcodes_known)
			lack_opcodes(probe);
	}
	lack_policy(probe);
}

/* ------------------------------------------------------------ the proof -- */

static void prep_nop(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
}

/* The library's own sentence, and where such a limit is set. */
static void lack_gyre(struct probe *probe, int error)
{
	const char *sentence = gyre_last_error();

	if (error == EMFILE)
		probe_lack(probe, "descriptors", true, "%s; this is set by ulimit -n, LimitNOFILE= "
			   "of the systemd unit or --ulimit nofile= of the container", sentence);
	else if (error == ENOMEM)
		probe_lack(probe, "memlock", true, "%s; this is set by ulimit -l, LimitMEMLOCK= of "
			   "the systemd unit or --ulimit memlock= of the container", sentence);
	else
		probe_lack(probe, "gyre_open", true, "%s", sentence);
}

void probe_ask_gyre(struct probe *probe)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;
	struct probe_ring *ring = &probe->ring;
	enum gyre_status status;
	struct gyre *rt;
	int res = 0;

	/* The library would be killed, or wait for answers that cannot come. */
	if (ring->killed || ring->enter_error < 0)
		return;
	options.ring_entries = probe->plan.ring_entries;
	options.inflight_max = probe->plan.inflight_max;
	status = gyre_open(&options, &rt);
	if (status == GYRE_OK) {
		ring->runs = gyre_call(rt, prep_nop, NULL, &res) == GYRE_OK && res == 0;
		if (!ring->runs)
			probe_lack(probe, "gyre_call", true, "%s", gyre_last_error());
		gyre_free(rt);
	} else if (!probe_cannot(probe)) {
		lack_gyre(probe, status == GYRE_SYSTEM ? errno : -gyre_status_errno(status));
	}
}
