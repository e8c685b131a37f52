/* SPDX-License-Identifier: MIT */
/*
 * gyre-probe: what this kernel and its policy allow, and what a directory's
 * file system does, each found out by trying it.
 *
 * probe.c			main: the arguments, the order, the exit status
 * probe_ring.c			io_uring: policy, set-up flags, opcodes; whether gyre runs
 * probe_limits.c		memlock, descriptors, guard pages
 * probe_times.c		system calls, a NOP, waking a sleeping thread
 * probe_path.c			the scratch file; NOWAIT, O_DIRECT
 * probe_iowq.c			what the kernel gives to threads of its own
 * probe_durable.c		fdatasync against RWF_DSYNC
 * probe_text.c, probe_json.c	what is told
 *
 * Whatever is missing gets a sentence that tells how to get it, where it is
 * found out: probe_lack().
 */
#ifndef PROBE_H
#define PROBE_H

#include <liburing.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <gyre.h>

#include "bench_clock.h"
#include "bench_machine.h"
#include "bench_text.h"

#define PROBE_EXIT_CANNOT	1
#define PROBE_EXIT_USAGE	2

#define PROBE_ENTRIES		256u
#define PROBE_INFLIGHT		2048u

#define PROBE_SENTENCE		512
#define PROBE_LACKS_MAX		48u

enum probe_answer { PROBE_UNKNOWN, PROBE_NO, PROBE_YES };

struct probe_plan {
	const char *path;		/* NULL: none */
	unsigned ring_entries;
	unsigned inflight_max;
	bool json;
};

struct probe_lack {
	char what[48];			/* a key, for programs */
	bool needed;			/* gyre cannot run without it */
	char how[PROBE_SENTENCE];	/* how to get it */
};

/* --------------------------------------------------------------- ring -- */

enum probe_flag {
	PROBE_CQSIZE,
	PROBE_R_DISABLED,
	PROBE_SUBMIT_ALL,
	PROBE_COOP_TASKRUN,
	PROBE_TASKRUN_FLAG,
	PROBE_SINGLE_ISSUER,
	PROBE_DEFER_TASKRUN,
	PROBE_FLAGS
};

struct probe_flag_about {
	const char *name;		/* without IORING_SETUP_ */
	const char *since;		/* of Linux */
	unsigned bit;
	unsigned with;			/* what it is refused without */
};
extern const struct probe_flag_about probe_flags[PROBE_FLAGS];

struct probe_opcode_about {
	uint8_t opcode;
	const char *name;		/* without IORING_OP_ */
	const char *since;
};
/* Those that prep closures may use; ends where name is NULL. In order of since. */
extern const struct probe_opcode_about probe_opcodes[];

struct probe_ring {
	int setup_error;		/* a negative errno; 0: allowed */
	int register_error;
	int enter_error;
	bool killed;			/* the policy kills who asks */
	/* kernel.io_uring_disabled; -1: this kernel has no such sysctl. */
	long disabled;
	int seccomp;			/* 0 none, 1 strict, 2 a filter, -1 unknown */
	enum probe_answer flag[PROBE_FLAGS];
	unsigned flags_in_use;		/* what gyre's rings are set up with */
	unsigned features;		/* IORING_FEAT_* */
	bool opcodes_known;
	bool opcode[256];
	enum probe_answer buffers;	/* a table of registered buffers */
	uint64_t ring_bytes;		/* that a ring of the configured size locks */
	bool runs;			/* gyre_open() and a call succeeded */
};

/* ------------------------------------------------------------- limits -- */

#define PROBE_NO_LIMIT		UINT64_MAX

struct probe_limits {
	uint64_t memlock, memlock_max;	/* bytes, or PROBE_NO_LIMIT */
	enum probe_answer memlock_counts;	/* rings are charged to this user */
	uint64_t rings;			/* that fit; PROBE_NO_LIMIT */
	uint64_t nofile, nofile_max;
	enum probe_answer guard_install;	/* MADV_GUARD_INSTALL */
	uint64_t map_count_max;		/* vm.max_map_count; 0: unknown */
	uint64_t maps;			/* of this process, now */
	double maps_a_stack;
	uint64_t stacks;		/* with guard pages; PROBE_NO_LIMIT: as memory allows */
};

/* -------------------------------------------------------------- times -- */

/* In nanoseconds; NAN where it could not be measured. */
struct probe_span {
	double median;
	double least;
	double most;
};

struct probe_times {
	struct probe_span syscall;
	struct probe_span clock;
	struct probe_span yield;
	struct probe_span nop;			/* on a ring, one at a time */
	struct probe_span eventfd_across;	/* waking a thread that sleeps in read() */
	struct probe_span eventfd_same;		/* on the waker's CPU */
	struct probe_span futex_across;
	struct probe_span futex_same;
};

/* --------------------------------------------------------------- path -- */

#define PROBE_BLOCK		4096u
#define PROBE_SCRATCH		(UINT64_C(1) << 20)
/* The last block is that of the tries; the first ones are the durable writers'. */
#define PROBE_TRY_OFFSET	(PROBE_SCRATCH - PROBE_BLOCK)

enum probe_job {
	PROBE_JOB_NOP,
	PROBE_JOB_READ_CACHED,
	PROBE_JOB_READ_UNCACHED,
	PROBE_JOB_READ_DIRECT,
	PROBE_JOB_WRITE,
	PROBE_JOB_WRITE_DIRECT,
	PROBE_JOB_FSYNC,
	PROBE_JOB_FALLOCATE,
	PROBE_JOB_OPENAT,
	PROBE_JOB_OPENAT_CREATE,
	PROBE_JOB_STATX,
	PROBE_JOBS
};

struct probe_job_about {
	const char *name;		/* for people */
	const char *key;		/* for programs */
};
extern const struct probe_job_about probe_jobs[PROBE_JOBS];

struct probe_job_result {
	enum probe_answer punted;	/* to the kernel's own threads */
	int res;			/* the CQE's, where punted is known */
};

#define PROBE_DURABLE_THREADS	8u

enum probe_durable { PROBE_FDATASYNC, PROBE_DSYNC, PROBE_DURABLES };

struct probe_path {
	char error[PROBE_SENTENCE];	/* nothing below holds; empty: no error */
	int fd;
	enum probe_answer tmpfile;	/* O_TMPFILE */
	int nowait_cached;		/* bytes, or a negative errno */
	int nowait_uncached;
	enum probe_answer direct;
	unsigned direct_memory;		/* alignment; 0: unknown */
	unsigned direct_offset;
	bool direct_told;		/* by statx(); else found by trying */
	int direct_dsync;		/* O_DIRECT with RWF_DSYNC: bytes, or a negative errno */
	int dsync;			/* RWF_DSYNC */
	bool jobs_known;
	struct probe_job_result job[PROBE_JOBS];
	/* Microseconds a write, with one thread and with many; NAN: it cannot. */
	struct probe_span durable[PROBE_DURABLES][2];
	/* Of fdatasync's time to RWF_DSYNC's, round by round: median. */
	double ratio[2];
	enum probe_durable faster[2];	/* PROBE_DURABLES: neither, clearly */
};

/* ----------------------------------------------------------- together -- */

struct probe {
	struct probe_plan plan;
	struct bench_machine machine;
	struct probe_ring ring;
	struct probe_limits limits;
	struct probe_times times;
	struct probe_path path;
	struct probe_lack lacks[PROBE_LACKS_MAX];
	unsigned lack_count;
	bool progress;			/* somebody is watching stderr */
};

void probe_lack(struct probe *probe, const char *what, bool needed, const char *format, ...)
	__attribute__((__format__(__printf__, 4, 5)));
/* On the line that is written over and over; NULL takes it away. */
void probe_progress(const struct probe *probe, const char *text);
/* The first number in a small file; without it, otherwise. */
long probe_read_number(const char *path, long otherwise);
/* The number behind a name and a colon in /proc/self/status; without it, otherwise. */
long probe_read_status(const char *name, long otherwise);
/* Of what was added to it, sorts it. */
struct probe_span probe_span_of(double *values, unsigned n);
/* "EPERM" */
const char *probe_error_name(int error);
/* Something is missing that gyre cannot do without. */
bool probe_cannot(const struct probe *probe);

void probe_ask_ring(struct probe *probe);
/* Whether gyre runs: the last word. After all that asks for rings of its own. */
void probe_ask_gyre(struct probe *probe);
/*
 * A ring for tries, with the flags of gyre's, for the thread that calls; 0 or a
 * negative errno. Waits a while for the memory of rings that were closed.
 */
int probe_ring_open(const struct probe *probe, struct io_uring *ret);
/* Any ring; as above. */
int probe_setup(unsigned entries, unsigned cq_entries, unsigned flags, struct io_uring_params *ret);

void probe_ask_limits(struct probe *probe);
void probe_ask_times(struct probe *probe);

/* Makes the scratch file, which has no name; path.error tells where that fails. */
void probe_path_open(struct probe *probe);
void probe_ask_path(struct probe *probe);
void probe_ask_iowq(struct probe *probe);
void probe_ask_durable(struct probe *probe);
void probe_path_close(struct probe *probe);
/* The scratch file leaves the page cache, where the file system lets it. */
void probe_path_forget(const struct probe *probe);

void probe_print_text(const struct probe *probe);
void probe_print_json(const struct probe *probe);

#endif
