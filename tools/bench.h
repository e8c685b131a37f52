/* SPDX-License-Identifier: MIT */
/*
 * gyre-bench: what each way of doing the same operations costs, side by side.
 *
 * A *plan* is what the user asked for: a list of cases, how long, how often.
 * A *case* is one kind of work with one number of callers, done by several
 * *engines* in turn, round after round, so that a machine whose speed drifts
 * is unfair to all of them alike. One engine doing one case once is a *run*:
 * its threads, rings and runtime are made for it and are gone after it.
 *
 * bench_args.c, bench_suite.c	make the plan
 * bench_target.c		the file that is read or written
 * bench_run.c			one run: threads, gate, window, figures
 * bench_engines.c, bench_ring.c, bench_handover.c	the engines
 * bench_peers.c, bench_fio.c	more of them: other people's ways
 * bench_tasks.c		tasks, and what else starts and allocates
 * bench_switch.c		switches of stacks: the library's own, and others'
 * bench_life.c			what a runtime costs that is only there
 * bench_figures.c		medians, paired ratios, goals
 * bench_progress.c, bench_report.c, bench_json.c, bench_plot.c,
 * bench_output.c	what is told
 * bench_parse.c, bench_saved.c, bench_compare.c	reports that are read again
 * bench.c			main: every case, round and engine in order
 */
#ifndef BENCH_H
#define BENCH_H

#include <limits.h>
#include <liburing.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/uio.h>

#include <gyre.h>

#include "bench_clock.h"
#include "bench_hist.h"
#include "bench_machine.h"
#include "bench_text.h"

#define BENCH_CALLERS_MAX	4096u
#define BENCH_SLEEPERS_MAX	1000000u
#define BENCH_DEPTH_MAX		32768u	/* no kernel gives a ring more entries */
#define BENCH_ROUNDS_MAX	1000u
#define BENCH_BLOCK_MAX		(UINT64_C(1) << 30)
#define BENCH_ENGINES_MAX	16u
#define BENCH_CASES_MAX		64u
#define BENCH_GOALS_MAX		240u

/* Two cache lines: the second is prefetched with the first. */
#define BENCH_ALIGN		128
#define BENCH_PAGE		4096u

#define BENCH_EXIT_FAILED	1
#define BENCH_EXIT_SLOWER	1	/* of a comparison */
#define BENCH_EXIT_USAGE	2

/* --------------------------------------------------------------- plan -- */

enum bench_work {
	BENCH_NOP,		/* a NOP a call */
	BENCH_BATCH,		/* a batch of NOPs a call */
	BENCH_RANDREAD,		/* a block from anywhere */
	BENCH_BATCH_READ,	/* a batch of these a call */
	BENCH_READ,		/* block after block, each caller from a place of its own */
	BENCH_RANDWRITE,	/* a block to anywhere */
	BENCH_DURABLE,		/* the same, answered once it is durable */
	BENCH_MIXED,		/* of a hundred 70 random reads, 29 writes and a durable one */
	BENCH_YIELD,		/* from one stack to another and back */
	BENCH_GO,		/* a trivial task, started and joined; a batch: all started first */
	BENCH_JOB,		/* a job of one trivial task */
	BENCH_ALLOC,		/* 64 bytes */
	BENCH_SLEEPERS,		/* all callers asleep at once: started, and woken */
	BENCH_WORKS
};

#define BENCH_WORK_BIT(work)	(1u << (work))
#define BENCH_ON_NOPS		(BENCH_WORK_BIT(BENCH_NOP) | BENCH_WORK_BIT(BENCH_BATCH))
#define BENCH_ON_FILE		(BENCH_WORK_BIT(BENCH_YIELD) - 1 - BENCH_ON_NOPS)
/* Of tasks themselves: no file, no ring. */
#define BENCH_ON_TASKS		(BENCH_WORK_BIT(BENCH_WORKS) - BENCH_WORK_BIT(BENCH_YIELD))

struct bench_engine;
struct bench_result;

struct bench_case {
	char what[64];			/* "nop, 8 callers" */
	enum bench_work work;
	unsigned callers;
	unsigned batch;			/* operations a call */
	bool vectored;			/* calls take a batch, be it of one: gyre_callv() */
	bool direct;
	size_t block_size;
	double rate;			/* calls a second of each caller; 0: as fast as it goes */
	double seconds;			/* a round */
	unsigned rounds;
	uint64_t spin_ns;		/* gyre_options.spin_ns */
	const struct bench_engine *engines[BENCH_ENGINES_MAX];
	unsigned engine_count;
	unsigned base;			/* the engine that the others are held against */
	struct bench_result *results;	/* round by round, in it engine by engine */
	unsigned rounds_done;
};

/* What is measured. Values that make no sense for an engine are NAN. */
enum bench_metric {
	BENCH_OPS,		/* operations a second */
	BENCH_P50,
	BENCH_P90,
	BENCH_P99,
	BENCH_P999,
	BENCH_MAX,
	BENCH_CPU_US,		/* user and system time of the whole process, an operation */
	BENCH_SWITCHES,		/* context switches an operation */
	BENCH_SHARE,		/* the slowest caller's operations over the mean */
	BENCH_CPU_PERCENT,	/* of one CPU */
	BENCH_IN_CALLER,	/* gyre: share of calls served in the caller's own thread */
	BENCH_AWAKE,		/* gyre: share of replies that found their caller awake */
	BENCH_RSS,		/* sleepers: bytes of memory each */
	BENCH_START,		/* sleepers: us to start one */
	BENCH_WAKE,		/* sleepers: us until one has been woken and has ended */
	BENCH_METRICS
};

struct bench_result {
	double value[BENCH_METRICS];
};

enum bench_sense { BENCH_TOLD, BENCH_AT_LEAST, BENCH_AT_MOST };

/*
 * One line of a suite's summary: a metric of an engine, or its ratio to
 * another's, and what the project wants it to be.
 */
/* What a runtime of two workers costs that is only there. */
struct bench_life {
	double open_close_us;		/* gyre_open() and gyre_free() */
	double rss_kib;			/* after a thousand calls */
	double idle_switches;		/* context switches of its workers in an idle second */
	double idle_cpu_us;		/* CPU time of the process in that second */
};

#define BENCH_LIFE_OPEN_CLOSE_US_MAX	1000
#define BENCH_LIFE_RSS_KIB_MAX		1536

/* As many tasks as may sleep here. */
unsigned bench_sleepers_max(void);

/* 0, or -1 after a complaint. */
int bench_life_measure(struct bench_life *ret);
/* The numbers behind a name in a file of procfs, added up; 0 where there is none. */
double bench_number_in(const char *path, const char *name);

struct bench_goal {
	unsigned kase;
	const struct bench_engine *engine;
	const struct bench_engine *against;	/* NULL: the metric itself, no ratio */
	enum bench_metric metric;
	enum bench_sense sense;
	double limit;
	double limit_slow;		/* instead, in the machine's slow mode; 0: the same */
	double ns;			/* what limit is where BENCH_SWITCH_NS holds; 0: nothing */
};

/*
 * Some goals are nanoseconds, which mean nothing but on one machine. There
 * boost.context takes so long to switch to another stack and back, and
 * swapcontext(): where either takes longer, the goal is more by as much.
 */
#define BENCH_SWITCH_NS		12.0
#define BENCH_SWAPCONTEXT_NS	900.0

/*
 * A virtual machine's CPUs may see each other's writes at two speeds, for
 * minutes at a time. A hand-over follows that, one-threaded engines do not.
 * The mode is slow while the floor makes fewer operations a second than this.
 */
#define BENCH_FLOOR_FAST	1.6e6

struct bench_plan {
	const char *path;		/* NULL: a temporary file */
	const char *json_path;		/* NULL: none; "-": standard output */
	const char *plot_path;		/* NULL: none */
	const char *from_path;		/* a report to tell of; NULL: measure */
	const char *const *compare;	/* reports to compare, the first is the old one */
	unsigned compare_count;		/* 0: measure */
	const char *suite;		/* NULL: none */
	uint64_t size;			/* of a temporary file */
	double seconds;			/* a round */
	double warmup;
	unsigned rounds;
	unsigned workers;		/* gyre_options.workers */
	bool quiet;
	bool overwrite;
	struct bench_case cases[BENCH_CASES_MAX];
	unsigned case_count;
	struct bench_life life;		/* with a suite */
	struct bench_goal goals[BENCH_GOALS_MAX];
	unsigned goal_count;
};

/* Ends the program where the arguments are nonsense, or are --help or --version. */
void bench_args_parse(int argc, char **argv, struct bench_plan *ret);

/*
 * Fills in the cases and goals, and the times that were not given (0, warmup
 * -1); false when there is no such suite.
 */
bool bench_suite_fill(struct bench_plan *plan, const char *name);

const char *bench_work_name(enum bench_work work);
/* BENCH_WORKS when there is none of that name. */
enum bench_work bench_work_find(const char *name);
/* NULL when there is none of that name. */
const struct bench_engine *bench_engine_find(const char *name);
bool bench_case_uses_file(const struct bench_case *kase);
/* Of tasks themselves, whatever they are used for. */
bool bench_case_on_tasks(const struct bench_case *kase);
/* What tells engines apart in it: operations a second, or a price, of which less is better. */
enum bench_metric bench_case_metric(const struct bench_case *kase);
bool bench_work_writes(enum bench_work work);
/* A sentence's worth of why engine cannot do kase, in buf; NULL when it can. */
const char *bench_case_refusal(const struct bench_case *kase, const struct bench_engine *engine,
			       char *buf, size_t size);
/* Of an operation, whole pages. */
size_t bench_buffer_size(const struct bench_case *kase);
/* The case's name, from what it is. */
void bench_case_name(struct bench_case *kase);

/* ------------------------------------------------------------- target -- */

enum bench_cache {
	BENCH_CACHE_UNKNOWN,		/* as we found it */
	BENCH_CACHE_WARM,		/* it holds the file */
	BENCH_CACHE_TOO_SMALL,		/* it cannot hold the file */
	BENCH_CACHE_DROPPED		/* it holds nothing of the file */
};

/* The file. Owned by main; runs only use its descriptors. */
struct bench_target {
	char name[PATH_MAX];		/* the user's file, or the directory of the temporary one */
	bool temporary;
	bool pattern;			/* it holds what bench_pattern_fill() gives */
	bool written;			/* by a work that writes */
	int fd;
	int direct_fd;			/* -1 where no case needs it */
	uint64_t size;
	enum bench_cache cache;
};

/* 0, or the exit status, negative, after a sentence on stderr. */
int bench_target_open(const struct bench_plan *plan, struct bench_target *ret);
void bench_target_close(struct bench_target *target);
/* Before a case: fill the page cache, or empty it of a temporary file. */
int bench_target_prepare(struct bench_target *target, const struct bench_case *kase);
/* Before a run: no engine pays for what the one before it left to be written. */
int bench_target_settle(const struct bench_target *target, const struct bench_case *kase);
/* Any thread. False, after a sentence in buf, when the file is shorter than it was. */
bool bench_target_whole(const struct bench_target *target, char *buf, size_t size);
/* What a temporary file holds at an offset: never zero, never twice the same block. */
void bench_pattern_fill(void *buf, size_t len, uint64_t offset);
/* Whether buf is what the file holds at offset: 1, 0, or a negative errno. */
int bench_target_check(const struct bench_target *target, const void *buf, size_t len,
		       uint64_t offset);

/* ---------------------------------------------------------------- run -- */

enum bench_phase {
	BENCH_HOLD,		/* callers are being made */
	BENCH_WARM,		/* they work, nothing is counted */
	BENCH_MEASURE,		/* what ends now is counted */
	BENCH_STOP		/* each ends the operation it is in, and leaves */
};

enum bench_kind { BENCH_OP_NOP, BENCH_OP_READ, BENCH_OP_WRITE, BENCH_OP_DURABLE };

/*
 * One operation, reused for the next when it is done. Its buffer is the
 * kernel's from submission to reply.
 */
struct bench_op {
	void *buf;
	uint64_t offset;
	uint64_t since;			/* raw: ticks when it was prepared */
	enum bench_kind kind;
	uint32_t len;
	int32_t res;
	int fd;
};

struct bench_run {
	/* Read by all after each call, so it is alone on its line. */
	alignas(BENCH_ALIGN) _Atomic unsigned phase;
	alignas(BENCH_ALIGN) const struct bench_plan *plan;
	const struct bench_case *kase;
	const struct bench_engine *engine;
	const struct bench_target *target;
	uint64_t blocks;		/* in the file */
	unsigned caller_count;
	unsigned op_count;		/* of each caller */
	unsigned block;			/* operations timed together; see bench_note_block() */
	struct bench_caller **callers;
	void *state;			/* the engine's */
	double in_caller, awake;	/* the engine's own counts, or NAN */
	pthread_mutex_t lock;		/* of what follows */
	pthread_cond_t cond;
	unsigned arrived;		/* callers at the gate, or past it */
	unsigned left;			/* callers that are done */
	char fault[PATH_MAX + 512];	/* the first thing that went wrong; empty: nothing did */
};

/* A caller's thread and all that it writes to. */
struct bench_caller {
	alignas(BENCH_ALIGN) struct bench_run *run;
	unsigned index;
	unsigned op_count;
	struct bench_op *ops;
	void *buffers;
	uint64_t random;
	uint64_t next_block;
	uint64_t blocks;
	bool sequential;
	bool mixed;
	void *state;			/* the engine's */
	struct io_uring ring;		/* engines whose callers own one */
	_Atomic uint64_t done;		/* measured so far: for the progress line */
	pthread_t thread;
	bool started;
	struct bench_hist hist;
};

struct bench_engine {
	const char *name;
	const char *about;
	unsigned works;			/* BENCH_WORK_BIT */
	bool one_caller;		/* and one operation a call, whatever the batch */
	bool one_op;			/* an operation a call: no batches */
	bool one_thread;		/* one does the work of all: callers x batch at once */
	bool ours;			/* gyre is in it */
	bool few;			/* no more than BENCH_CALLERS_MAX of anything */

	/* Why it is not here, on this machine or in this build; NULL: it is. */
	const char *(*missing)(void);
	/*
	 * Something of its own, instead of callers; in alone the works that are done
	 * so, 0 for all. 0, or -1 after bench_fault().
	 */
	unsigned alone;
	int (*measure)(struct bench_run *run, struct bench_result *ret);

	/* Main thread: before the callers start, and after they are gone if open succeeded. */
	int (*open)(struct bench_run *run);
	void (*close)(struct bench_run *run);

	/* Caller's thread: before the gate opens, and at its end if join succeeded. */
	int (*join)(struct bench_caller *caller);
	void (*leave)(struct bench_caller *caller);

	/* Caller's thread, one of them: a call, or a loop of calls that are timed there. */
	int (*step)(struct bench_caller *caller);
	void (*loop)(struct bench_caller *caller);
};

/* Called now and then while the window is open; ops so far, in so many seconds. */
typedef void bench_tick_fn(void *arg, uint64_t ops, double seconds);

/* 0 with *ret, or -1 after a sentence on stderr. */
int bench_run(const struct bench_plan *plan, const struct bench_case *kase,
	      const struct bench_engine *engine, const struct bench_target *target,
	      bench_tick_fn *tick, void *arg, struct bench_result *ret);

/* Any thread. Keeps the first sentence, and stops the run. Gives -1. */
int bench_fault(struct bench_run *run, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

/*
 * Caller's thread: n operations took from since to now. False when it is time
 * to leave.
 */
static inline bool bench_note(struct bench_caller *caller, uint64_t since, uint64_t now, uint64_t n)
{
	unsigned phase = atomic_load_explicit(&caller->run->phase, memory_order_relaxed);

	if (phase == BENCH_MEASURE) {
		/* Counters of different CPUs may differ by a hair. */
		bench_hist_add(&caller->hist, now > since ? now - since : 0, n);
		atomic_store_explicit(&caller->done, caller->hist.count, memory_order_relaxed);
	}
	return phase != BENCH_STOP;
}

/*
 * Caller's thread, for what takes no longer than a look at the clock: run->block
 * operations have taken from *since to now, and count as a mean one each. False
 * when it is time to leave.
 */
static inline bool bench_note_block(struct bench_caller *caller, uint64_t *since)
{
	uint64_t now = bench_ticks();
	bool going = bench_note(caller, *since, now, caller->run->block);

	*since = now;
	return going;
}

/* ------------------------------------------- operations, for all alike -- */

static inline uint64_t bench_random(struct bench_caller *caller)
{
	uint64_t x = caller->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	caller->random = x;
	return x;
}

#define BENCH_MIXED_READS	70u	/* of a hundred operations */
#define BENCH_MIXED_WRITES	29u

static inline enum bench_kind bench_mixed_kind(struct bench_caller *caller)
{
	/* Not the bits that choose the block. */
	unsigned percent = (unsigned)((bench_random(caller) >> 32) % 100);

	if (percent < BENCH_MIXED_READS)
		return BENCH_OP_READ;
	return percent < BENCH_MIXED_READS + BENCH_MIXED_WRITES ? BENCH_OP_WRITE : BENCH_OP_DURABLE;
}

/* Caller's thread. Makes op the caller's next operation. */
static inline void bench_op_next(struct bench_caller *caller, struct bench_op *op)
{
	uint64_t block;

	if (op->kind == BENCH_OP_NOP)
		return;
	if (caller->mixed)
		op->kind = bench_mixed_kind(caller);
	if (caller->sequential) {
		block = caller->next_block++;
		if (caller->next_block == caller->blocks)
			caller->next_block = 0;
	} else {
		block = bench_random(caller) % caller->blocks;
	}
	op->offset = block * op->len;
	/* A written block begins as its place says, so that it can be found again. */
	if (op->kind != BENCH_OP_READ)
		bench_pattern_fill(op->buf, op->len < 8 ? op->len : 8, op->offset);
}

static inline void bench_op_prep(struct io_uring_sqe *sqe, const struct bench_op *op)
{
	switch (op->kind) {
	case BENCH_OP_NOP:
		io_uring_prep_nop(sqe);
		break;
	case BENCH_OP_READ:
		io_uring_prep_read(sqe, op->fd, op->buf, op->len, op->offset);
		break;
	case BENCH_OP_WRITE:
		io_uring_prep_write(sqe, op->fd, op->buf, op->len, op->offset);
		break;
	case BENCH_OP_DURABLE:
		io_uring_prep_write(sqe, op->fd, op->buf, op->len, op->offset);
		sqe->rw_flags = RWF_DSYNC;
		break;
	}
}

static inline bool bench_op_good(const struct bench_op *op)
{
	return op->res == (int32_t)op->len;
}

/* Raises the fault that op's result is. */
int bench_op_fault(struct bench_caller *caller, const struct bench_op *op);

/* Does op by a plain system call of this thread; result in op->res. */
void bench_op_call(struct bench_op *op);

/* -------------------------------------------------------------- rings -- */

/* The thread that will use it; 0 or a negative errno. */
int bench_ring_open(unsigned entries, struct io_uring *ret);
/*
 * Owner thread. Submits count operations and waits for all; 0 with their res
 * set, or a negative errno.
 */
int bench_ring_call(struct io_uring *ring, struct bench_op *ops, unsigned count);
/* What a person can do about an errno of bench_ring_open(); "" where nobody knows. */
const char *bench_ring_hint(int error);

/* ------------------------------------------------------------ engines -- */

extern const struct bench_engine bench_threads;
extern const struct bench_engine bench_threads_fdatasync;
extern const struct bench_engine bench_gyre;
extern const struct bench_engine bench_gyre_ring;
extern const struct bench_engine bench_own_ring;
extern const struct bench_engine bench_raw;
extern const struct bench_engine bench_raw_batch;
extern const struct bench_engine bench_condvar;
extern const struct bench_engine bench_floor;
extern const struct bench_engine bench_gyre_nop;
extern const struct bench_engine bench_task;
extern const struct bench_engine bench_fiber;
extern const struct bench_engine bench_boost;
extern const struct bench_engine bench_ucontext;
extern const struct bench_engine bench_pthread;
extern const struct bench_engine bench_malloc;
extern const struct bench_engine bench_libuv;
extern const struct bench_engine bench_posixaio;
extern const struct bench_engine bench_fio_uring;
extern const struct bench_engine bench_fio_libaio;
extern const struct bench_engine bench_fio_psync;

/* In the order of the help text, NULL at its end. */
extern const struct bench_engine *const bench_engines[];

/* ------------------------------------------------------------ figures -- */

/* Of n values, those that are NAN left out; NAN when none is left. Sorts them. */
double bench_median(double *values, unsigned n);
double bench_case_value(const struct bench_case *kase, unsigned round, unsigned engine,
			enum bench_metric metric);
double bench_case_median(const struct bench_case *kase, unsigned engine, enum bench_metric metric);

/* Ratios are taken round by round, of neighbours in time; then their median. */
struct bench_ratio {
	double median;
	double lowest;
	double highest;
};
struct bench_ratio bench_case_ratio(const struct bench_case *kase, unsigned engine, unsigned base,
				    enum bench_metric metric);
/* Which of the case's engines it is; engine_count when it is none. */
unsigned bench_case_find(const struct bench_case *kase, const struct bench_engine *engine);

struct bench_verdict {
	double value;
	double limit;
	bool met;			/* true where nothing is wanted */
};
struct bench_verdict bench_goal_judge(const struct bench_plan *plan, const struct bench_goal *goal);
/* "ops/s", "CPU us/op" */
const char *bench_metric_title(enum bench_metric metric);
/* "ops/s ratio" */
const char *bench_goal_figure(const struct bench_goal *goal);

/* ---------------------------------------------------------- telling it -- */

struct bench_progress {
	bool quiet;
	bool terminal;
	uint64_t start_ns;
	unsigned runs;
	unsigned runs_done;
	double run_seconds;		/* expected */
	/* the run under way */
	const struct bench_case *kase;
	const struct bench_engine *engine;
	unsigned round;
	unsigned rounds;
};

void bench_progress_start(struct bench_progress *progress, const struct bench_plan *plan);
void bench_progress_run(struct bench_progress *progress, const struct bench_case *kase,
			const struct bench_engine *engine, unsigned round);
bench_tick_fn bench_progress_tick;	/* arg: the progress */
void bench_progress_result(struct bench_progress *progress, const struct bench_result *result);
/* Puts text on the line, or takes it away (NULL) so that something else can be printed. */
void bench_progress_say(const struct bench_plan *plan, const char *text);
double bench_plan_seconds(const struct bench_plan *plan);

void bench_report_header(FILE *file, const struct bench_plan *plan,
			 const struct bench_target *target, const struct bench_machine *machine);
void bench_report_case(FILE *file, const struct bench_case *kase);
void bench_report_suite(FILE *file, const struct bench_plan *plan);

/* What is written at the end, to a file that was opened before the first round. */
struct bench_output {
	FILE *file;			/* NULL: none is wanted */
	const char *path;
	bool created;
};

/*
 * So early that hours of measuring are not lost to a typing error. path NULL:
 * none is wanted; "-": standard output. mark: what an earlier output of ours
 * begins with; a file that begins otherwise is somebody's, and refused. 0, or
 * the exit status, negative, after a sentence.
 */
int bench_output_open(const char *path, const char *mark, struct bench_output *ret);
/* When there is nothing to write: leaves no empty file behind. */
void bench_output_discard(struct bench_output *output);
/* Whether it would overwrite what is measured. */
bool bench_output_is(const struct bench_output *output, const struct bench_target *target);
/* Empties the file: what was there stays until something better is known. */
int bench_output_begin(struct bench_output *output);
/* Closes; the sentence tells of all that failed since bench_output_begin(). */
int bench_output_end(struct bench_output *output);

/* The format of a report, raised when a reader of the one before would go wrong. */
#define BENCH_JSON_FORMAT	1
#define BENCH_JSON_MARK		"{\n  \"tool\": \"gyre-bench\""
#define BENCH_PLOT_MARK		"<svg xmlns='http://www.w3.org/2000/svg'"

const char *bench_metric_key(enum bench_metric metric);
int bench_json_write(struct bench_output *output, const struct bench_plan *plan,
		     const struct bench_target *target, const struct bench_machine *machine);

/* A report that was read again. */
struct bench_saved {
	const char *path;
	struct bench_plan plan;
	struct bench_machine machine;
	struct bench_target target;	/* its descriptors are -1 */
	bool on_file;			/* there is a target */
};

/* 0, or -BENCH_EXIT_USAGE after a sentence. */
int bench_saved_load(const char *path, struct bench_saved **ret);
void bench_saved_free(struct bench_saved *saved);
/* Gives the plan's memory for results back. */
void bench_plan_done(struct bench_plan *plan);

/* The exit status; count >= 2 files, the others against the first. */
int bench_compare(const char *const *paths, unsigned count);
/* A page of pictures. */
int bench_plot_write(struct bench_output *output, const struct bench_plan *plan,
		     const struct bench_machine *machine);

/* "gyre-bench: " and a sentence on stderr. Gives -BENCH_EXIT_FAILED. */
int bench_complain(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));

#endif
