/* SPDX-License-Identifier: MIT */
/*
 * gyre - synchronous code on top of per-worker io_uring reactors.
 *
 * A runtime is a handful of worker threads, each of which owns one ring. Any
 * thread hands operations to it and blocks until they are answered; or it hands
 * over a whole function, a job, which runs on a worker as a task and makes the
 * same calls there without a thread of its own:
 *
 *	struct gyre *rt;
 *
 *	if (gyre_open(NULL, &rt) != GYRE_OK)
 *		errx(1, "%s", gyre_last_error());
 *	n = gyre_pread(rt, fd, buf, sizeof(buf), 0);
 *	gyre_free(rt);
 *
 * What holds for every function stands here once; the comments below tell the
 * rest. Where a comment names no thread, any thread may make the call, at any
 * time, in parallel with any other call. None may be made from a signal
 * handler.
 *
 * TWO KINDS OF ANSWER, never mixed.
 *   enum gyre_status	did the runtime deliver a reply, and if not, why not;
 *   int res		what the kernel said of the operation: >= 0, or a
 *			negative errno exactly as the CQE carried it.
 * GYRE_OK with a res of -EIO is a failing disk. GYRE_WORKER_DEAD is a failing
 * runtime. The calls that look like pread() have room for one answer only and
 * give either as a negative errno; gyre_last_status() tells them apart.
 * A result that comes back through a pointer is written with GYRE_OK only,
 * unless the function says more. errno is set with GYRE_SYSTEM, by the calls
 * that answer a status, and otherwise left alone.
 *
 * THE LAW OF BUFFERS. Memory handed to an operation belongs to the kernel until
 * the call returns, whatever it returns: no status, GYRE_TIMED_OUT,
 * GYRE_CANCELLED, GYRE_WORKER_DEAD and GYRE_CLOSED included, is given while the
 * kernel may still touch the caller's memory. So a time-out means: the cancel
 * was asked for at that time, and the call returned as soon as the kernel let
 * go. Only an operation on a buffer of the library's own, with GYRE_OP_LEAVE,
 * returns on time regardless: the buffer is then kept apart until the kernel
 * has finished with it. A descriptor must stay open until the reply;
 * gyre_close_fd() is the way to close one that others may be using.
 *
 * THE LAW OF REPLIES. Every accepted operation gets exactly one final reply.
 * One that completed before its cancel took effect is GYRE_OK with its res.
 *
 * TIME. Durations are nanoseconds of the monotonic clock. A time-out argument
 * of zero means do not wait, GYRE_FOREVER without end. Time-outs start with the
 * call, so waiting for room counts.
 *
 * WHO WAITS. One verb, any caller: a call that waits suspends the task that
 * makes it, so that others of its worker run meanwhile; made anywhere else it
 * blocks the calling thread. The one place where nobody may wait is a prep
 * callback, which runs on the worker that would have to answer: there such a
 * call answers GYRE_WOULD_DEADLOCK, or -EDEADLK, at once, and functions that
 * wait and return void must not be called. The callbacks create, reset and
 * destroy of states and locals, and those of gyre_defer(), run in a task and
 * may wait.
 *
 * RT NULL means the current task's runtime, or the prep callback's, except in
 * gyre_open(), gyre_close() and gyre_free(). Where there is none, which is on
 * all other threads, the answer is GYRE_NO_REACTOR, or -ENOTSUP.
 *
 * CANCELLED TASKS. In a task that was asked to stop, every call that waits
 * answers GYRE_CANCELLED, or -ECANCELED, once other tasks have had their turn;
 * where its worker has died, GYRE_WORKER_DEAD, or -EOWNERDEAD. See "inside a
 * job" below. Where the comment of a function names no other answer, it is this.
 *
 * LIFETIMES. gyre_close() lets jobs and operations run for drain_ns, then
 * cancels them. Calls that come after it has begun are GYRE_CLOSED, or
 * -ESHUTDOWN, but for those that only look at the runtime, and for those of its
 * own tasks, which go on until the drain is over. A system call that runs in its
 * caller's own thread is not waited for by gyre_close(); gyre_free() waits until
 * every call has left. Once it returns, rt is gone, and no call may use it; the
 * handles of its jobs must still be released.
 *
 * FORK. In the child of fork() the parent's runtimes have no workers: every
 * call answers GYRE_CLOSED, or -ESHUTDOWN, gyre_close() too, which does nothing,
 * and gyre_free() releases the child's memory and descriptors without a trace
 * in the parent. A task may fork, too: its child goes on in the same function,
 * alone, on a plain thread that runs no task. It must exec or _exit(), and may
 * neither return from that function, nor panic, nor free the runtime on whose
 * stack it stands. The same goes for a function that gyre_offload() runs, but that
 * it may free the runtime.
 *
 * LEAVING. No function is a cancellation point of pthread_cancel(). Leaving a
 * task or a callback by longjmp(), pthread_exit() or a C++ exception is
 * undefined. Within a task exceptions may be thrown and caught, but no call that
 * waits may stand in a catch block, nor in a destructor that an exception runs:
 * which exceptions are being handled is the worker's, and shared by its tasks.
 *
 * DESCRIPTORS. Each worker holds three: its ring, an eventfd, one end of a
 * pipe. Threads that call hold none, and tasks neither.
 *
 * STRUCTURES. A struct that starts with its size may grow at its end: set size
 * to its sizeof, as GYRE_OPTIONS_INIT does. A size smaller than version 0.1's,
 * non-zero bytes past what the library knows, and flags that it does not know
 * are GYRE_INVALID. Enum values and struct fields are as old as the type they
 * belong to, unless they say otherwise.
 */
#ifndef GYRE_H
#define GYRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)	/* exported, however the rest is compiled */
#endif

/* As a time-out: without end. Since: 0.1 */
#define GYRE_FOREVER	UINT64_MAX

struct io_uring_sqe;	/* <liburing.h>, for those who write prep functions */
struct statx;		/* <sys/stat.h>, with _GNU_SOURCE */

/* ------------------------------------------------------------- status -- */

/*
 * Whether a reply came, and if not, why not. In brackets what
 * gyre_status_errno() makes of it.
 *
 * Since: 0.1
 */
enum gyre_status {
	/* The reply came. What the kernel said of the operation is in res. [0] */
	GYRE_OK = 0,

	/*
	 * The worker has stopped for good, before it executed the operation or
	 * half-way through it: the effect says which. Other workers go on; once
	 * none is left, every call says so at once. [-EOWNERDEAD]
	 */
	GYRE_WORKER_DEAD,

	/*
	 * Accepted, then its job panicked before it replied; gyre_last_panic()
	 * says why. No operation ends so. [-ENOTRECOVERABLE]
	 */
	GYRE_RESPONSE_LOST,

	/* Its own time-out passed, and the operation or job was cancelled. [-ETIMEDOUT] */
	GYRE_TIMED_OUT,

	/*
	 * Somebody cancelled it, or the task or job that it belonged to; the
	 * chain that it was part of broke; or gyre_close() had waited for it long
	 * enough. [-ECANCELED]
	 */
	GYRE_CANCELLED,

	/* The runtime is closed, or belongs to the parent process. [-ESHUTDOWN] */
	GYRE_CLOSED,

	/* The call would have to wait, and was asked not to. [-EAGAIN] */
	GYRE_BUSY,

	/*
	 * rt is NULL, and the calling thread runs no task; or the function is
	 * for tasks only. [-ENOTSUP]
	 */
	GYRE_NO_REACTOR,

	/*
	 * Waiting here would stop the worker that must answer, or the answer
	 * could only come from the one who waits. [-EDEADLK]
	 */
	GYRE_WOULD_DEADLOCK,

	/*
	 * The registry takes no more names once the first job has started. No
	 * function of this version answers it. [-EPERM]
	 */
	GYRE_FROZEN,

	/* There is no such thing, or no longer. [-ENOENT] */
	GYRE_NOT_FOUND,

	/* That name is taken. No function of this version answers it. [-EEXIST] */
	GYRE_EXISTS,

	/* An argument is wrong; gyre_last_error() says which and why. [-EINVAL] */
	GYRE_INVALID,

	/* Out of memory, or of what may be locked. Nothing was done. [-ENOMEM] */
	GYRE_NO_MEMORY,

	/* This kernel, or its policy, does not allow it. [-ENOSYS] */
	GYRE_UNSUPPORTED,

	/* A system call of the library's own failed; errno says how. [-EIO] */
	GYRE_SYSTEM
};

/*
 * Whether an operation may have had its effect. The library itself never
 * repeats a write whose effect is unknown.
 *
 * Since: 0.1
 */
enum gyre_effect {
	/* Nobody ever started it, neither kernel nor worker: safe to try again. */
	GYRE_EFFECT_NONE = 0,

	/* Cut off on its way: it may have happened, wholly or in part. */
	GYRE_EFFECT_UNKNOWN,

	/* The kernel answered: res says what happened. Or the job has returned. */
	GYRE_EFFECT_DONE
};

/*
 * The name of a status as the enum spells it, without the prefix:
 * "WORKER_DEAD". "UNKNOWN" for a number that is none. Static storage.
 *
 * Since: 0.1
 */
const char *gyre_status_name(enum gyre_status status);

/*
 * What a status means, in one sentence for a person. Never NULL, whatever the
 * number. Static storage.
 *
 * Since: 0.1
 */
const char *gyre_status_text(enum gyre_status status);

/*
 * A status as a negative errno, each by its own: see enum gyre_status. 0 for
 * GYRE_OK, -EINVAL for a number that is no status.
 *
 * Since: 0.1
 */
int gyre_status_errno(enum gyre_status status);

/*
 * How the last call of the calling task, or else thread, ended. Every function
 * that answers a status or a negative errno notes it, and so do gyre_alloc(),
 * gyre_alloc_aligned(), gyre_strdup() and gyre_free(); the functions of this
 * section and others that return void or a plain value do not. GYRE_OK before
 * the first call.
 *
 * A call of the pread family whose operation failed in the kernel is GYRE_OK
 * here: the reply came.
 *
 * Since: 0.1
 */
enum gyre_status gyre_last_status(void);

/*
 * Whether what the calling task or thread last asked for may have happened. After
 * gyre_callv() the operations themselves know better: see struct gyre_op.
 *
 * Since: 0.1
 */
enum gyre_effect gyre_last_effect(void);

/*
 * What went wrong in the last call of the calling task or thread, for a person:
 * the function, the reason and a hint. Never NULL. The text belongs to the
 * library and stands until the next call of that task or thread, or its end.
 *
 * Since: 0.1
 */
const char *gyre_last_error(void);

/*
 * The version of the library that runs, such as "0.1.0". Static storage.
 *
 * Since: 0.1
 */
const char *gyre_version(void);

/* ------------------------------------------------------------ runtime -- */

/*
 * A runtime: its workers, their rings, its buffers. From gyre_open() to
 * gyre_free(), shared by as many threads as like. A process may have several.
 *
 * Since: 0.1
 */
struct gyre;

/*
 * How the state that a job runs on lives: what gyre_state() gives in it; see
 * struct gyre_state_type. Without one in the options of a runtime, its jobs have
 * no states, and their mode counts for nothing.
 *
 * Since: 0.1
 */
enum gyre_mode {
	/* The runtime's own mode; GYRE_MODE_FRESH where it names none. */
	GYRE_MODE_DEFAULT = 0,

	/* Created for the job, destroyed after it: most isolation. */
	GYRE_MODE_FRESH,

	/*
	 * One for each worker, created for the first job that runs on it there,
	 * reset before each further one, destroyed when the worker ends. One job
	 * at a time has it, until it has ended; the others wait in line, in the
	 * order in which they came, and hold up nobody else. A create that fails is
	 * tried again by the next.
	 */
	GYRE_MODE_SHARED,

	/*
	 * One for each key of gyre_job_options, in one pool for the runtime. It is
	 * created for the first job with that key, on the worker that has the
	 * fewest, lives there, and its jobs run there: one at a time, reset
	 * between them, the others in line, in the order in which they came. The
	 * pool has room for pool_size states. For a new key then the least
	 * recently used goes that no job has or waits for; while there is none,
	 * keys wait for room, in the order in which they came. A job without a
	 * key, or for a worker that it names, is GYRE_INVALID.
	 */
	GYRE_MODE_POOLED
};

/*
 * What a job's state is: an interpreter, a tenant's open files, a codec. The
 * callbacks run on the state's worker, in a task, and may wait; gyre_state() is
 * NULL in them. create is a part of its job: a cancel and a time-out reach it, and
 * what it has made until then is its own to give back, by gyre_defer(). reset and
 * destroy cannot be cancelled: what they wait for takes as long as it takes, until
 * drain_ns of a gyre_close() is over.
 *
 * Since: 0.1
 */
struct gyre_state_type {
	/* sizeof(struct gyre_state_type). */
	size_t size;

	/*
	 * Makes a state; key is NULL outside GYRE_MODE_POOLED and valid during
	 * the call only. NULL: failed, and the job is not run, which is
	 * GYRE_SYSTEM. Required.
	 */
	void *(*create)(const char *key, void *arg);

	/* Readies a state for its next job. NULL: nothing to do. */
	void (*reset)(void *state, void *arg);

	/*
	 * Destroys a state, on the worker that made it, once: after its job; with
	 * the worker's locals, in the reverse order in which they were made; or,
	 * in GYRE_MODE_POOLED, for another key, and what is left before the
	 * locals. Required.
	 */
	void (*destroy)(void *state, void *arg);

	/* Handed to the three above. The caller's own. */
	void *arg;
};

/* Options flag: worker n runs on the n-th allowed CPU only. Since: 0.1 */
#define GYRE_PIN_WORKERS	(1u << 0)

/*
 * Options flag: what one job wrote, no other job can read: arenas, stacks and
 * the buffers of gyre_buffer_get() are cleared before they are handed on.
 *
 * Since: 0.1
 */
#define GYRE_ZERO_ARENAS	(1u << 1)

/*
 * For spin_ns: spin only while an answer is expected sooner than a sleep and a
 * wake cost on this machine; both are learnt as the program runs.
 *
 * Since: 0.1
 */
#define GYRE_SPIN_AUTO		UINT64_MAX

/* For spin_ns: sleep at once, always. Since: 0.1 */
#define GYRE_SPIN_NEVER		1

/*
 * How to run a runtime. Zero in a field means the default. The environment
 * variable named with a field, where set, takes the place of the default, not
 * of an explicit value, beside which it is not looked at. It has the limits of
 * its field; 0 or nothing in it means the default, and sizes may end in k, M or
 * G. One that is malformed or out of range makes gyre_open() answer
 * GYRE_INVALID. A program that gained privileges by being executed, as
 * set-user-ID programs do, does not read the environment.
 *
 * One more variable has no field: GYRE_ROUTE is auto, ring or caller. It says
 * where the pread family runs its system calls: where it is no worse (auto, the
 * default), always on a worker, or in the caller's own thread wherever that can
 * be. It is meant for measuring.
 *
 * Since: 0.1
 */
struct gyre_options {
	/* sizeof(struct gyre_options); GYRE_OPTIONS_INIT sets it. At most 4096. */
	size_t size;

	/*
	 * Worker threads are called NAME-0, NAME-1 and so on, NAME cut to 11
	 * bytes. Copied. Default: "gyre".
	 */
	const char *name;

	/*
	 * GYRE_WORKERS; at most 1024. Default: as many as pay here, and never
	 * more than the CPUs that this process may use.
	 */
	unsigned workers;

	/*
	 * GYRE_RING_ENTRIES; submission queue entries of each ring, 1 to 32768,
	 * which the kernel rounds up to a power of two. The longest chain of
	 * linked operations is bounded by it. Default: 256.
	 */
	unsigned ring_entries;

	/*
	 * GYRE_INFLIGHT_MAX; operations accepted and not yet answered, for each
	 * worker, 1 to 65536. Past it callers wait their turn. Also the size of
	 * the completion queue. Default: 2048.
	 */
	unsigned inflight_max;

	/* GYRE_PIN_WORKERS, GYRE_ZERO_ARENAS, or 0. */
	unsigned flags;

	/*
	 * GYRE_SPIN_NS (auto, never, or a number); how long callers and workers
	 * wait busily before they sleep. Default: GYRE_SPIN_AUTO.
	 */
	uint64_t spin_ns;

	/*
	 * GYRE_STACK_SIZE; bytes of the stack of each task, the guard below it
	 * besides, 16 KiB to 1 GiB. Default: 64 KiB. A job may have its own.
	 */
	size_t stack_size;

	/*
	 * GYRE_ARENA_MAX; bytes that one job may allocate in its arena, 4096 or
	 * more; see gyre_alloc(). Default: 64 MiB. A job may have its own.
	 */
	size_t arena_max;

	/* GYRE_MODE (fresh, shared or pooled); of jobs that name none. Default: fresh. */
	enum gyre_mode mode;

	/*
	 * GYRE_POOL_SIZE; states kept in GYRE_MODE_POOLED, at most 1000000.
	 * Default: 1000.
	 */
	unsigned pool_size;

	/*
	 * What jobs run on; NULL: jobs have no state. It must stay valid until
	 * gyre_free().
	 */
	const struct gyre_state_type *state;

	/*
	 * gyre_close() waits so long for what is under way, then cancels it.
	 * GYRE_FOREVER: never cancel. Default: 5 s.
	 */
	uint64_t drain_ns;

	/*
	 * A task that runs longer without a wait is counted: see stalls in
	 * struct gyre_stats. Default: off.
	 */
	uint64_t stall_ns;

	/*
	 * GYRE_OFFLOAD_THREADS; helper threads for blocking work, at most 1024.
	 * Where all of them are busy, two more do what the library's own calls in
	 * tasks need one for. Default: 16. Used by jobs.
	 */
	unsigned offload_threads;

	/* Zero. */
	unsigned reserved;
};

/* All defaults: struct gyre_options o = GYRE_OPTIONS_INIT. Since: 0.1 */
#ifdef __cplusplus
#define GYRE_OPTIONS_INIT { sizeof(struct gyre_options), 0, 0, 0, 0, 0, 0, 0, 0, \
			    GYRE_MODE_DEFAULT, 0, 0, 0, 0, 0, 0 }
#else
#define GYRE_OPTIONS_INIT { .size = sizeof(struct gyre_options) }
#endif

/*
 * Starts the workers and their rings: all of them, or none. options may be NULL
 * for all defaults, and but for state is not needed once the call has returned.
 * *ret is set with GYRE_OK only; gyre_free() releases it.
 *
 * Rings are made with the credentials of the calling thread: drop privileges
 * first. Their memory counts against the limit of locked memory for ordinary
 * users, and the kernel gives it back late: for half a second the call tries
 * again before it gives up.
 *
 * GYRE_INVALID: an option or a GYRE_* variable is wrong, or ret is NULL.
 * GYRE_UNSUPPORTED: io_uring is refused here, and gyre_last_error() says which
 * policy refused it and what to change; or the kernel is older than Linux 5.11.
 * GYRE_NO_MEMORY: out of memory, or the limit of locked memory is too low for
 * rings of the size asked for.
 * GYRE_SYSTEM: a thread or a descriptor could not be had; errno says why.
 * GYRE_WOULD_DEADLOCK: in a prep callback.
 *
 * Since: 0.1
 */
enum gyre_status gyre_open(const struct gyre_options *options, struct gyre **ret);

/*
 * Takes no new work, waits up to drain_ns for what is under way, cancels the
 * rest and waits for the kernel to let go of it, then joins the workers. Jobs
 * that have begun go on meanwhile, with calls and jobs of their own on their
 * workers; past drain_ns they are cancelled, and their defers cannot wait any
 * more. A task that never waits is waited for. Any thread, any number of times,
 * several at once: each returns when the runtime is closed. rt stays valid until
 * gyre_free(). NULL: GYRE_OK.
 *
 * GYRE_OK: closed, by this call or an earlier one.
 * GYRE_CLOSED: in a forked child, whose parent's runtime it is.
 * GYRE_WOULD_DEADLOCK: in a task of rt, or an offloaded function, which cannot
 * wait for its own end, or where one of these waits for the caller, be it by
 * closing the caller's runtime: rt takes no more work from here on, and drains,
 * but somebody else has to close it and wait. Or in a prep callback, where nothing
 * is done.
 * GYRE_NO_MEMORY: the thread's first call, and no memory; nothing is done.
 *
 * Since: 0.1
 */
enum gyre_status gyre_close(struct gyre *rt);

/*
 * Closes rt if need be, waits until every call that uses it has returned, and
 * frees it. The last use of rt, by one thread; NULL is fine. No call may begin
 * once this has: where other threads may still be about to call, gyre_close()
 * first, and free when they have all been told that it is closed. Buffers must
 * have been put back before. Not in a prep callback, nor in a task of rt, where it
 * aborts the process: functions of atexit(3) run there, too, if a task calls exit(3).
 *
 * Where gyre_close() would answer GYRE_WOULD_DEADLOCK for what waits for the
 * caller, rt is closed as far as that goes, and not freed: gyre_last_status() says
 * GYRE_WOULD_DEADLOCK, and rt is still to be freed, by somebody else. When rt was
 * freed it says GYRE_OK.
 *
 * Since: 0.1
 */
void gyre_free(struct gyre *rt);

/*
 * How many workers rt was opened with; dead and joined ones count. They are
 * numbered from 0. 0 where rt is NULL and there is no current runtime.
 *
 * Since: 0.1
 */
unsigned gyre_worker_count(const struct gyre *rt);

/*
 * The runtime of the task, or of the prep callback, that the calling thread
 * runs; NULL on every other thread.
 *
 * Since: 0.1
 */
struct gyre *gyre_current(void);

/*
 * The number of the worker that the calling task or prep callback runs on; -1
 * on every other thread.
 *
 * Since: 0.1
 */
int gyre_current_worker(void);

/* ------------------------------------------------------------- bridge -- */

/*
 * Fills one blank SQE, which has no opcode until one is set, with one of
 * io_uring_prep_*(). Runs on the worker, at most once for each submission, and
 * never after the call that it belongs to has returned. It must not wait, and
 * calls that would answer GYRE_WOULD_DEADLOCK. Everything that the SQE
 * points to (buffers, iovecs, paths) must stay valid until the reply.
 *
 * The ring is shared: user_data is the library's and overwritten, and opcodes
 * and flags that could hurt other callers (personalities, drains, links set by
 * hand, cancels and time-outs by user_data, multishot, and so on) make the
 * operation GYRE_INVALID; ARCHITECTURE.md has the list. A zero-copy send is
 * answered once, when the kernel has let go of the memory.
 *
 * Since: 0.1
 */
typedef void gyre_prep_fn(struct io_uring_sqe *sqe, void *arg);

/*
 * Op flag: the next op of the array starts when this one has fully succeeded; a
 * short read breaks the chain as an error does. But some operations break no
 * chain when they fail: on Linux 6.18 fsync, sync_file_range, fallocate,
 * ftruncate, statx, madvise, and those that rename, unlink, link and make names.
 * What must not happen after a failed fsync belongs into a call of its own. A
 * chain goes to the kernel as a whole, so it is at most ring_entries, as rounded
 * up, and at most inflight_max long. GYRE_INVALID on the last op of an array.
 *
 * Since: 0.1
 */
#define GYRE_OP_LINK	(1u << 0)

/* Op flag: GYRE_BUSY rather than wait for room on the worker. Since: 0.1 */
#define GYRE_OP_NOWAIT	(1u << 1)

/*
 * Op flag, for an op whose memory is one gyre_buffer's: reply at the time-out,
 * even though the kernel still uses the buffer. The buffer is kept apart until
 * the kernel lets go; its owner may only put it back. An op whose memory is not
 * wholly inside one gyre_buffer is GYRE_INVALID.
 *
 * Since: 0.1
 */
#define GYRE_OP_LEAVE	(1u << 2)

/* For gyre_op.worker: worker number n. Since: 0.1 */
#define GYRE_WORKER(n)	((n) + 1u)

/*
 * One operation for gyre_callv(). Zero the whole of it first. It belongs to the
 * library from submission to reply, must stay where it is, and may be used
 * again after that; the fields marked "out" and internal need no clearing.
 *
 * Since: 0.1
 */
struct gyre_op {
	/* Fills the SQE. NULL: GYRE_INVALID. */
	gyre_prep_fn *prep;

	/* Handed to prep. The caller's own, valid until the reply. */
	void *arg;

	/*
	 * Nanoseconds from the call on, after which the op is cancelled and,
	 * once the kernel has let go, answered GYRE_TIMED_OUT. 0: none. In a
	 * chain the first op's covers the chain; on a later one GYRE_INVALID.
	 */
	uint64_t timeout_ns;

	/* GYRE_OP_LINK, GYRE_OP_NOWAIT, GYRE_OP_LEAVE, or 0. */
	uint32_t flags;

	/* 0: the runtime chooses; GYRE_WORKER(n): worker n. */
	uint32_t worker;

	/*
	 * Out: the CQE's res, when status is GYRE_OK, GYRE_TIMED_OUT or
	 * GYRE_CANCELLED. -ECANCELED for an op that was never submitted.
	 */
	int32_t res;

	/* Out: the CQE's flags; 0 for an op that was never submitted. */
	uint32_t cqe_flags;

	/* Out: whether the reply came; see gyre_callv(). */
	enum gyre_status status;

	/*
	 * Out: may it have happened? With GYRE_OK it is GYRE_EFFECT_DONE, or
	 * GYRE_EFFECT_UNKNOWN when res is -EINTR or -ECANCELED. With any other
	 * status it is GYRE_EFFECT_NONE when the op was never submitted, or
	 * linked and skipped, and GYRE_EFFECT_UNKNOWN when it was cut off.
	 */
	enum gyre_effect effect;

	/* The caller's own; the library does not look at it. */
	void *user;

	/* Zero, or GYRE_INVALID. */
	uint64_t reserved[2];

	/* The library's, from submission to reply. */
	uint64_t internal[12];
};

/*
 * Runs one operation on a worker and waits for its reply, as long as it takes.
 * *ret_res, where ret_res is not NULL, gets the CQE's res with GYRE_OK. A thread
 * keeps to one worker as long as that is alive and not overloaded; a task of rt
 * always keeps to its own.
 *
 * GYRE_OK: the kernel answered, res >= 0 or a negative errno; effect DONE, or
 * UNKNOWN when res is -EINTR or -ECANCELED.
 * GYRE_WORKER_DEAD: effect NONE, when the worker never submitted it, or UNKNOWN.
 * GYRE_CANCELLED: gyre_close() had waited drain_ns for it, or the calling task
 * was cancelled; NONE or UNKNOWN.
 * Refused, with effect NONE: GYRE_INVALID, prep is NULL, or it set nothing, or
 * something that is not allowed; GYRE_UNSUPPORTED, this kernel does not know the
 * opcode; GYRE_CLOSED; GYRE_NO_REACTOR; GYRE_WOULD_DEADLOCK; GYRE_NO_MEMORY.
 *
 * Since: 0.1
 */
enum gyre_status gyre_call(struct gyre *rt, gyre_prep_fn *prep, void *arg, int *ret_res);

/*
 * Runs count operations and waits once, until the last is answered. All go to
 * one worker, which ops[0].worker may name: as many at once as there is room,
 * the rest in order as room comes. So they must not depend on each other unless
 * they are linked with GYRE_OP_LINK. count 0: GYRE_OK. ops must not be under
 * way in another call.
 *
 * The answer is GYRE_OK when every op's status is, GYRE_INVALID when one was
 * refused so, else the first status that is not GYRE_OK. Each op has its own:
 *
 * GYRE_OK, GYRE_WORKER_DEAD: as for gyre_call().
 * GYRE_TIMED_OUT: timeout_ns passed first. Effect NONE or UNKNOWN.
 * GYRE_CANCELLED: gyre_op_cancel(), or gyre_close() past drain_ns, or the
 * calling task was cancelled; effect NONE or UNKNOWN. Or another of its chain was
 * refused, and nothing of the chain was submitted, or an earlier one did not
 * fully succeed; effect NONE.
 * GYRE_BUSY: GYRE_OP_NOWAIT, and no room. Effect NONE.
 * GYRE_UNSUPPORTED: this kernel does not know the opcode. Effect NONE.
 * GYRE_INVALID, effect NONE, while the other ops run: prep is NULL or did what
 * is not allowed; unknown flags; reserved is not zero; in a later op another
 * worker than ops[0]'s; a time-out on a later op of a chain; GYRE_OP_LINK on the
 * last op; a chain that is too long; GYRE_OP_LEAVE and memory outside the
 * library's buffers.
 *
 * GYRE_INVALID for the whole call, ops untouched: ops is NULL, or count is more
 * than 2^24. For the whole call, with every op GYRE_INVALID: ops[0].worker names
 * a worker that does not exist. GYRE_CLOSED, GYRE_NO_REACTOR, GYRE_WOULD_DEADLOCK
 * and GYRE_NO_MEMORY for the whole call: every op gets that status too, with res
 * -ECANCELED and effect NONE.
 *
 * Since: 0.1
 */
enum gyre_status gyre_callv(struct gyre *rt, struct gyre_op *ops, size_t count);

/*
 * Asks to cancel an op that another thread or task waits for in gyre_callv(). That one
 * still gets its one reply: GYRE_CANCELLED, or its own result if that came
 * first. Does not wait, and may be called in a prep callback. The caller must
 * see to it that op is still there.
 *
 * GYRE_OK: asked. GYRE_NOT_FOUND: op is not under way in rt. GYRE_INVALID: op
 * is NULL. GYRE_CLOSED, GYRE_NO_REACTOR: see above.
 *
 * Since: 0.1
 */
enum gyre_status gyre_op_cancel(struct gyre *rt, struct gyre_op *op);

/*
 * A piece of memory of the library's own: page-aligned, and registered with
 * every ring where the limit of locked memory allows.
 *
 * Since: 0.1
 */
struct gyre_buffer;

/*
 * Gets a buffer of at least len bytes. Its contents are undefined, unless the
 * runtime has GYRE_ZERO_ARENAS. *ret belongs to the caller until
 * gyre_buffer_put(), which must come before gyre_free() of rt.
 *
 * GYRE_INVALID: len is 0 or more than 1 GiB, or ret is NULL. GYRE_NO_MEMORY,
 * GYRE_CLOSED, GYRE_NO_REACTOR. GYRE_SYSTEM: a mapping, or a task's helper
 * thread, could not be had; errno says why. GYRE_WOULD_DEADLOCK: in a prep callback.
 *
 * Since: 0.1
 */
enum gyre_status gyre_buffer_get(struct gyre *rt, size_t len, struct gyre_buffer **ret);

/*
 * The buffer's memory, valid until it is put back. NULL for NULL.
 *
 * Since: 0.1
 */
void *gyre_buffer_data(struct gyre_buffer *buffer);

/*
 * The index for io_uring_prep_read_fixed() and its like, the same on every
 * worker of the runtime; -1 where the buffer is not registered, and for NULL.
 *
 * Since: 0.1
 */
int gyre_buffer_index(const struct gyre_buffer *buffer);

/*
 * Gives a buffer back. Its memory is used again only once the kernel has let go
 * of it, so it may be put right after an op with GYRE_OP_LEAVE timed out. After
 * gyre_close() too; NULL is fine. Does not wait.
 *
 * Since: 0.1
 */
void gyre_buffer_put(struct gyre_buffer *buffer);

/*
 * THE USUAL CALLS, for code that has a pread() today: after rt the same
 * arguments as the system call of that name, and the same result, except that
 * an error comes back as a negative errno and errno is left alone.
 *
 * They wait as the system call would. What need not travel to a worker runs in
 * the calling thread, with the same answer; see GYRE_ROUTE above. In a task
 * nothing runs there that may block: it goes to the worker's ring, or where a
 * ring cannot do it, to a helper thread, and only the task waits. None raises a
 * signal: a write to a pipe or socket that nobody reads is -EPIPE.
 *
 * The errors are those of the system call, and for a status that is not GYRE_OK
 * what gyre_status_errno() makes of it: -EOWNERDEAD, -ECANCELED, -ESHUTDOWN,
 * -ENOTSUP (rt is NULL), -EDEADLK (in a prep callback), -ENOMEM, -ENOSYS, -EIO
 * (a task's helper thread could not be had). Where the system call has the same
 * error, gyre_last_status() tells whose it was, and gyre_last_effect() whether
 * it may have happened. As with the system calls, at most 0x7ffff000 bytes move
 * in one call, but for gyre_pread_full() and gyre_pwrite_full().
 */

/*
 * read(2), for pipes, sockets and terminals as well as files. Waits for input
 * on descriptors that have O_NONBLOCK, too. 0 at the end.
 *
 * Since: 0.1
 */
ssize_t gyre_read(struct gyre *rt, int fd, void *buf, size_t len);

/*
 * write(2). Waits for room on descriptors that have O_NONBLOCK, too. May write
 * less than len.
 *
 * Since: 0.1
 */
ssize_t gyre_write(struct gyre *rt, int fd, const void *buf, size_t len);

/*
 * Waits up to timeout_ns for one of events (POLLIN and so on) on fd; POLLERR
 * and POLLHUP are reported unasked. The events that hold, which is more than 0;
 * 0 at the time-out; or a negative errno, -EBADF for a descriptor that is not
 * open. timeout_ns 0: look, and do not wait.
 *
 * Since: 0.1
 */
int gyre_poll(struct gyre *rt, int fd, short events, uint64_t timeout_ns);

/*
 * pread(2). A negative offset is -EINVAL.
 *
 * Since: 0.1
 */
ssize_t gyre_pread(struct gyre *rt, int fd, void *buf, size_t len, off_t offset);

/*
 * pwrite(2). A negative offset is -EINVAL.
 *
 * Since: 0.1
 */
ssize_t gyre_pwrite(struct gyre *rt, int fd, const void *buf, size_t len, off_t offset);

/*
 * preadv2(2): flags are RWF_*, and offset -1 reads at the file's own position
 * and moves it. iov must stay as it is until the call returns.
 *
 * Since: 0.1
 */
ssize_t gyre_preadv2(struct gyre *rt, int fd, const struct iovec *iov, int iovcnt,
		     off_t offset, int flags);

/*
 * pwritev2(2): flags are RWF_*, and offset -1 writes at the file's own position
 * and moves it. iov must stay as it is until the call returns.
 *
 * Since: 0.1
 */
ssize_t gyre_pwritev2(struct gyre *rt, int fd, const struct iovec *iov, int iovcnt,
		      off_t offset, int flags);

/*
 * pread(2), repeated to the end of len or of the file: what was read, which is
 * less than len at the end of the file only, or a negative errno, after which
 * the contents of buf are undefined.
 *
 * Since: 0.1
 */
ssize_t gyre_pread_full(struct gyre *rt, int fd, void *buf, size_t len, off_t offset);

/*
 * pwrite(2), repeated to the end of len: len, or a negative errno, after which
 * any part of it may have been written. A write whose effect is unknown is not
 * repeated.
 *
 * Since: 0.1
 */
ssize_t gyre_pwrite_full(struct gyre *rt, int fd, const void *buf, size_t len, off_t offset);

/*
 * fsync(2): 0 or a negative errno. Callers that flush the same descriptor at the
 * same time share flushes, with each other and with gyre_write_durable().
 *
 * A FLUSH THAT FAILED. The kernel tells of it once, counts the data as clean from
 * then on, and lets the next fsync succeed, though what the first one covered may
 * be lost. The library tries no failed flush again, tells everybody whom it
 * covered, and remembers the file, by device, inode number and time of birth: from
 * then on gyre_fsync(), gyre_fdatasync(), gyre_write_durable() and the FSYNC
 * operations of closures fail on it, in this runtime and whatever the descriptor,
 * with the errno of the failure and effect NONE as long as nothing was written,
 * until gyre_durable_reset(). As failed counts every error of a file, directory or
 * block device but -EBADF, -EINTR and -ECANCELED, as file systems hand on whatever
 * their device or server said; and an fsync that was under way when its worker died. An FSYNC
 * of a closure's that overlaps with other flushes of the file is told whatever the
 * kernel says to it. More than 256 failed files, or one that can no longer be
 * identified, are not forgotten: then all files count as failed.
 *
 * Since: 0.1
 */
int gyre_fsync(struct gyre *rt, int fd);

/*
 * fdatasync(2): 0 or a negative errno, of which the same is true.
 *
 * Since: 0.1
 */
int gyre_fdatasync(struct gyre *rt, int fd);

/*
 * pwrite(2) with the durability of fdatasync(2): len, once all of it will survive
 * a power cut, or a negative errno; never a part. Writes that are longer than one
 * system call can move are continued. fd is a file or a block device, open for
 * writing; one descriptor shared by all callers does best. A new file's directory
 * needs a gyre_fsync() of its own.
 *
 * How it is done is the library's choice, learnt from the callers' own writes, for
 * each device, for O_DIRECT and for cached writes, and for how many callers there
 * are: RWF_DSYNC in the caller's thread or through a worker's ring, or a write and
 * an fdatasync that all callers share whose writes were complete when it started.
 * gyre_stats and gyre_dump() tell what was chosen. Where RWF_DSYNC is refused with
 * -EOPNOTSUPP, which writes nothing, the same call writes and flushes in the last
 * of these ways; with O_DSYNC, where nothing else is as good, that is its answer.
 *
 * After an error: effect NONE, nothing was written; DONE, the kernel refused the
 * write; UNKNOWN, any part of it may have been written, durably or not. A
 * gyre_last_error() says what went wrong, even where gyre_last_status() is GYRE_OK
 * because the error is the kernel's. A failed flush makes the file fail, see
 * gyre_fsync(); with RWF_DSYNC that goes for any error that may come from its flush,
 * a full file system's -ENOSPC included.
 *
 * Refused with effect NONE: -EINVAL, a negative offset, an end past that of all
 * files, O_APPEND, a character device; -EBADF, not open for writing; -EISDIR;
 * -ESPIPE, a pipe or socket; -EFBIG, longer than RLIMIT_FSIZE (where pwrite(2)
 * would raise SIGXFSZ). The kernel's own: -EINVAL, not aligned as O_DIRECT wants it;
 * -EFAULT; -ENOSPC. A len of 0 writes and flushes nothing. buf must stay as it is
 * until the call returns.
 *
 * Since: 0.1
 */
ssize_t gyre_write_durable(struct gyre *rt, int fd, const void *buf, size_t len, off_t offset);

/*
 * What a flush of fd's file has lost is mended, or not missed: the file counts as
 * failed no longer. 0, also where it did not; -ENOSPC, more files than the library
 * can tell apart have failed, all count as failed, and only another runtime will do;
 * or a negative errno. Who has written to the file before and not flushed yet is told
 * of the failure all the same.
 *
 * Since: 0.1
 */
int gyre_durable_reset(struct gyre *rt, int fd);

/*
 * openat(2): a descriptor or a negative errno. mode counts where flags create a
 * file.
 *
 * Since: 0.1
 */
int gyre_openat(struct gyre *rt, int dirfd, const char *path, int flags, mode_t mode);

/*
 * close(2), safe against operations of rt that use fd: a barrier passes through
 * every worker first, so that what was submitted before holds its file and what
 * is submitted later finds the descriptor closed. Operations on fd whose file
 * the kernel looks up late are waited for: those in chains or with IOSQE_ASYNC,
 * and those that it gives to threads of its own, such as fsync, fallocate,
 * openat and statx; reads, writes, sends and receives go on. The number can be
 * reused once this returns. Calls of the pread family that run in their
 * caller's own thread are plain system calls, which nobody can hold up.
 *
 * 0 or a negative errno; where that is a status's, such as -ESHUTDOWN, and the
 * effect is NONE, fd is still open. A descriptor that close(2) complained about
 * is closed all the same.
 *
 * Since: 0.1
 */
int gyre_close_fd(struct gyre *rt, int fd);

/*
 * statx(2): 0 or a negative errno.
 *
 * Since: 0.1
 */
int gyre_statx(struct gyre *rt, int dirfd, const char *path, int flags, unsigned mask,
	       struct statx *buf);

/*
 * fallocate(2): 0 or a negative errno.
 *
 * Since: 0.1
 */
int gyre_fallocate(struct gyre *rt, int fd, int mode, off_t offset, off_t len);

/* ---------------------------------------------------------------- jobs -- */

/*
 * A job is a function that runs on a worker, as a task, with the tasks that it
 * starts and the memory that it allocates. A TASK is a fiber with a stack of its
 * own. It never leaves its worker, and runs until it waits in a call of this
 * library; then another runs. So two tasks of one worker never run at the same
 * time, and need no locks against each other for what they do between two waits;
 * but jobs of different workers do.
 *
 * Whatever else blocks in a task, blocks its worker with all that runs there:
 * read(2) on a pipe, sleep(3), getaddrinfo(3), a mutex that another task holds
 * across a wait. The calls of this library, and gyre_offload(), are for that.
 *
 * errno is each task's own. What else belongs to a thread (thread-local
 * variables, the signal mask, the working directory of unshare(2)) is the
 * worker's, and shared by its tasks. Workers block all signals.
 *
 * STACKS are as large as stack_size says, of which the library keeps some 3 KiB.
 * Below each lies a guard of more than 64 KiB: a function whose frame is at most
 * 64 KiB cannot step over it, and is told by SIGSEGV. Code with larger frames is
 * to be compiled with -fstack-clash-protection. A stack takes the memory that it
 * has touched, a page at least.
 *
 * THE END OF A JOB comes when its first task ends: when fn returns, or is
 * dropped or panics, and its defers have run. Then, in this order: the tasks that
 * are left are counted (tasks_leftover of struct gyre_stats) and cancelled; they
 * end or are dropped, their defers run; the last one leaves; streams that are still
 * open are closed; its state is given back, if it has one; the arena is freed; and
 * only then whoever waits is told. Nothing of a job is left behind.
 *
 * A JOB'S STATUS, from gyre_block_on() and gyre_job_wait(); what stands first
 * here counts first. The result is written whenever fn returned, whatever the
 * status.
 * GYRE_RESPONSE_LOST: a task of it panicked; gyre_last_panic() has the text.
 * GYRE_TIMED_OUT: timeout_ns passed before the first task had ended, and the job
 * was cancelled.
 * GYRE_CANCELLED: it was cancelled: by gyre_job_cancel(), because the task was
 * that waited for it in gyre_block_on(), or by gyre_close() past drain_ns.
 * GYRE_WORKER_DEAD: its worker has died.
 * GYRE_OK: none of that, and fn returned.
 * gyre_last_effect() is GYRE_EFFECT_NONE where it never began, and with that go
 * also GYRE_CLOSED; GYRE_NO_MEMORY, for its stack, its arena or the copies in it,
 * or as the worker has 2^20 jobs; GYRE_SYSTEM, its state could not be created; and
 * GYRE_WOULD_DEADLOCK, the job that has the state which it needs, or one that comes
 * before it in line, waits for it.
 * A job begins when it has its state: what cancels it before that keeps it from
 * being run.
 */

/*
 * What a job, a task or an offloaded function runs. Leave it by return or
 * gyre_panic() only.
 *
 * Since: 0.1
 */
typedef int gyre_task_fn(void *arg);

/*
 * A job that was started by gyre_spawn() with a handle. The handle is the
 * caller's until gyre_job_wait() has answered for the job, or gyre_job_detach().
 * It outlives its runtime, and must be released even then.
 *
 * Since: 0.1
 */
struct gyre_job;

/*
 * How to run one job. Zero in a field means the default. Read by the call; name,
 * key and what arg_size says are copied.
 *
 * Since: 0.1
 */
struct gyre_job_options {
	/* sizeof(struct gyre_job_options); GYRE_JOB_OPTIONS_INIT sets it. At most 4096. */
	size_t size;

	/* For statistics, dumps and panics. Default: none. */
	const char *name;

	/* Whose state it runs on, in GYRE_MODE_POOLED, which needs one: any text. */
	const char *key;

	/* How its state lives. Default: as the runtime's options say. */
	enum gyre_mode mode;

	/*
	 * 0: the runtime chooses, and for a task its own worker; GYRE_WORKER(n):
	 * worker n, and no other, even when that has died. In GYRE_MODE_POOLED 0:
	 * the worker is that of the key.
	 */
	uint32_t worker;

	/*
	 * Nanoseconds from the call on, its way to the worker included, after
	 * which the job is cancelled. 0, GYRE_FOREVER: none.
	 */
	uint64_t timeout_ns;

	/* Bytes of the stack of each of its tasks. Default: the runtime's. */
	size_t stack_size;

	/* Bytes that it may allocate. Default: the runtime's. */
	size_t arena_max;

	/*
	 * Not 0: fn gets a copy of so many bytes of arg, in the job's arena,
	 * where they count against arena_max.
	 */
	size_t arg_size;
};

/* All defaults: struct gyre_job_options o = GYRE_JOB_OPTIONS_INIT. Since: 0.1 */
#ifdef __cplusplus
#define GYRE_JOB_OPTIONS_INIT { sizeof(struct gyre_job_options), 0, 0, GYRE_MODE_DEFAULT, \
				0, 0, 0, 0, 0 }
#else
#define GYRE_JOB_OPTIONS_INIT { .size = sizeof(struct gyre_job_options) }
#endif

/*
 * Runs fn(arg) as a job and waits until that has ended: its status is the
 * answer, and *ret_result, where ret_result is not NULL, gets what fn returned.
 * arg must stay valid until the call returns. options may be NULL for all
 * defaults. In a task: when that is cancelled meanwhile, so is the job, and the
 * call returns once it has ended.
 *
 * The statuses of a job, above. Refused, with effect NONE: GYRE_INVALID, fn is
 * NULL, an option is wrong, or arg is NULL where arg_size is not 0;
 * GYRE_WORKER_DEAD, no worker is left, or the one that was asked for has died;
 * GYRE_CLOSED; GYRE_NO_REACTOR; GYRE_WOULD_DEADLOCK, in a prep callback;
 * GYRE_NO_MEMORY.
 *
 * Since: 0.1
 */
enum gyre_status gyre_block_on(struct gyre *rt, gyre_task_fn *fn, void *arg,
			       const struct gyre_job_options *options, int *ret_result);

/*
 * Starts fn(arg) as a job and does not wait. *ret is its handle. ret NULL: nobody
 * will wait for it. Without arg_size, arg must stay valid until the job has ended.
 *
 * GYRE_OK: it will be run, or gyre_job_wait() says why not. Else nothing was
 * done, with effect NONE: what gyre_block_on() refuses.
 *
 * Since: 0.1
 */
enum gyre_status gyre_spawn(struct gyre *rt, gyre_task_fn *fn, void *arg,
			    const struct gyre_job_options *options, struct gyre_job **ret);

/*
 * Waits up to timeout_ns for the end of a job. Its status is the answer, and
 * frees the handle; *ret_result, where ret_result is not NULL, gets what fn
 * returned. One waiter at a time, in any thread or task, also after gyre_close().
 *
 * The handle stays good with these, and only these:
 * GYRE_BUSY: the job has not ended: timeout_ns passed, or was 0; or the task that
 * waits was cancelled, which cancels the job no more than a time-out does; or
 * somebody else waits for it.
 * GYRE_WOULD_DEADLOCK: the wait is without end, and the job's end waits, through
 * jobs, joins, worker locals or closes, for the task that calls, or it is that
 * task's own job. A job waits for its first task; for another one only where a
 * cancel does not end what that waits for. A wait that has a time-out is no part
 * of such a circle: it is GYRE_BUSY in the end. Or in a prep callback.
 * GYRE_INVALID: job is NULL.
 *
 * GYRE_CLOSED: the runtime was freed, or this is a forked child; frees the
 * handle as well.
 *
 * Since: 0.1
 */
enum gyre_status gyre_job_wait(struct gyre_job *job, uint64_t timeout_ns, int *ret_result);

/*
 * Asks the job to end: all of its tasks are cancelled. Does not wait, and may be
 * called by any thread, also in a prep callback, also while another waits for
 * the job; the handle must still be there. Does nothing to a job that has ended,
 * nor after gyre_free(); NULL is fine.
 *
 * Since: 0.1
 */
void gyre_job_cancel(struct gyre_job *job);

/*
 * Gives the handle up: the job goes on, and nobody hears of its end. Any thread,
 * at any time, but not while another waits for the job; NULL is fine.
 *
 * Since: 0.1
 */
void gyre_job_detach(struct gyre_job *job);

/*
 * Runs fn(arg) on a helper thread and waits until it has returned: plain blocking
 * work, a compressor or a resolver, that must not hold up a worker. *ret_result,
 * where ret_result is not NULL, gets what fn returned. There are at most
 * offload_threads helpers; they are started when work comes, take it in the order
 * in which it came, and end when none has come for two seconds.
 *
 * The helper is a plain thread: fn may block as it likes, has the stack of a
 * thread and is not in a task. It may call this library, and names rt where it
 * does. Nothing cuts it off: time-outs, cancels and gyre_close() wait for it, and
 * a task that is cancelled meanwhile still gets its result.
 *
 * GYRE_OK: fn has returned.
 * GYRE_RESPONSE_LOST: fn panicked; gyre_last_panic() says why.
 * Refused, and fn was not called: GYRE_INVALID, fn is NULL; GYRE_WOULD_DEADLOCK,
 * each of the helpers waits, in a call like this or for a job, for what may need
 * one; or in a prep callback; GYRE_CANCELLED; GYRE_CLOSED; GYRE_NO_REACTOR;
 * GYRE_NO_MEMORY; GYRE_SYSTEM, there is no helper and none could be started, errno
 * says why.
 *
 * Since: 0.1
 */
enum gyre_status gyre_offload(struct gyre *rt, gyre_task_fn *fn, void *arg, int *ret_result);

/* --------------------------------------------------------- inside a job -- */

/*
 * These are for tasks. On other threads they answer GYRE_NO_REACTOR or NULL, or
 * do nothing, unless they say otherwise; in a prep callback GYRE_WOULD_DEADLOCK.
 *
 * HOW A TASK IS CANCELLED. Its wait ends early, and from then on every wait is
 * GYRE_CANCELLED, or -ECANCELED, at once, though other tasks get their turn in
 * it. So code that returns on errors cleans up and returns as usual. At the first
 * wait more than 100 ms after the cancel the task is dropped: its defers run on
 * top of its stack, and it never resumes. A task that never waits cannot be
 * stopped. gyre_alloc(), gyre_defer() and gyre_go() work as before.
 *
 * Defers may wait, cancelled or not, until gyre_close() has waited drain_ns or
 * the worker has died; after that each of their waits is over at once, too. A
 * wait of their task's own that was cut off does not come back.
 */

/*
 * A task that was started by gyre_go() with a handle: a number, which means that
 * task and never another. Once the task was joined, or its job has ended, it
 * means nothing any more. Nothing has to be released.
 *
 * Since: 0.1
 */
struct gyre_task;

/*
 * Starts fn(arg) as another task of this job, on the same worker. It begins to
 * run when the current one waits. ret NULL: nobody will join it. A task that is
 * started in a job that ends is cancelled from the start. arg must stay valid as
 * long as the task uses it; the job's arena does.
 *
 * GYRE_INVALID: fn is NULL. GYRE_NO_MEMORY: for its stack, or its place in the
 * worker's tables, which have room for 2^22 handles. GYRE_NO_REACTOR.
 *
 * Since: 0.1
 */
enum gyre_status gyre_go(gyre_task_fn *fn, void *arg, struct gyre_task **ret);

/*
 * Waits for the end of another task of this job. *ret_result, where ret_result is
 * not NULL, gets what its fn returned. Frees the handle's number: each task can
 * be joined once. In a task that was or is cancelled, cancels the other one, and
 * waits for it all the same.
 *
 * GYRE_OK: it has returned.
 * GYRE_CANCELLED: it was cancelled, did not return in time, and was dropped.
 * GYRE_INVALID: not a task of this worker, or one that was joined; of another
 * job; or another task joins it already, and it stays that one's.
 * GYRE_WOULD_DEADLOCK: it is the current one, or waits for it, through joins and
 * jobs or for a worker local that it makes.
 * GYRE_NO_REACTOR.
 *
 * Since: 0.1
 */
enum gyre_status gyre_join(struct gyre_task *task, int *ret_result);

/*
 * Waits for the end of every task that the current one has started, joins them
 * all, and forgets their results: a gyre_join() of one of them is GYRE_INVALID from
 * then on. In a task that was or is cancelled, cancels them first. Tasks that they
 * have started in their turn are not waited for.
 *
 * GYRE_OK: they have ended, however they did. GYRE_CANCELLED: the same, and the
 * current task was cancelled. GYRE_WOULD_DEADLOCK: one of them waits, through
 * joins and jobs or for a worker local, for the current one. GYRE_NO_REACTOR.
 *
 * Since: 0.1
 */
enum gyre_status gyre_join_all(void);

/*
 * Cancels a task of this job, the current one included. Does not wait. A task
 * that has ended, or is of another job, and NULL: does nothing.
 *
 * Since: 0.1
 */
void gyre_task_cancel(struct gyre_task *task);

/*
 * 1 once the current task was asked to stop, in its defers, too. Else, and on
 * other threads, 0. Does not wait: long computations ask in between, and are told
 * of a gyre_job_cancel() by whatever thread and of their job's time-out. The end of
 * gyre_close()'s drain shows after a wait only, such as a gyre_yield().
 *
 * Since: 0.1
 */
int gyre_cancelled(void);

/*
 * Lets every task of the worker run that is ready now, and then goes on. It is a
 * wait: a task that was cancelled may be dropped in it. On other threads it does
 * nothing.
 *
 * Since: 0.1
 */
void gyre_yield(void);

/*
 * Sleeps for ns nanoseconds or a little longer; 0 is a gyre_yield(), GYRE_FOREVER
 * without end. On other threads it blocks, in all of them but in prep callbacks.
 *
 * GYRE_OK: the time is over. GYRE_CANCELLED: the task was cancelled first.
 * GYRE_WOULD_DEADLOCK: in a prep callback.
 *
 * Since: 0.1
 */
enum gyre_status gyre_sleep(uint64_t ns);

/*
 * Memory in the job's arena, aligned for any type: to 16 bytes. It is all given
 * back at once, when the job ends, and never before; any task of the job may use
 * it. It is not zeroed, unless the runtime has GYRE_ZERO_ARENAS. Size 0 gives an
 * address of its own. Does not wait.
 *
 * Against arena_max count the sizes, each rounded up to 16 or to its alignment;
 * copies of arg and name, and 32 bytes for each gyre_defer(), are among them.
 *
 * NULL: past arena_max, or out of memory, or not in a task; gyre_last_status() is
 * GYRE_NO_MEMORY or GYRE_NO_REACTOR then.
 *
 * Since: 0.1
 */
void *gyre_alloc(size_t size);

/*
 * The same, aligned to align bytes. NULL with GYRE_INVALID where that is no power
 * of two.
 *
 * Since: 0.1
 */
void *gyre_alloc_aligned(size_t size, size_t align);

/*
 * A copy of text in the job's arena, as gyre_alloc() gives it. NULL with
 * GYRE_INVALID where text is.
 *
 * Since: 0.1
 */
char *gyre_strdup(const char *text);

/*
 * Calls fn(arg) when the current task ends, however it ends: it returns, is
 * dropped, panics, or its job ends. Last in, first out; a defer may add others. It
 * runs in the task, may wait (see above), and runs before the arena is freed. arg
 * must not point at variables of the task's functions, which may have returned by
 * then: at the arena, say.
 *
 * GYRE_INVALID: fn is NULL. GYRE_NO_MEMORY: the arena is full; fn will not be
 * called. GYRE_NO_REACTOR.
 *
 * Since: 0.1
 */
enum gyre_status gyre_defer(void (*fn)(void *arg), void *arg);

/*
 * Ends this job, and no other: the current task's defers run, and it never
 * resumes; the other tasks are cancelled; whoever waits for the job gets
 * GYRE_RESPONSE_LOST, and this text by gyre_last_panic(), of at most 511 bytes,
 * with the job's name and worker behind it where there is room. The first text of
 * a job is kept. In a defer: the other defers still run. In create: that job's
 * panic. In an offloaded function: ends that, and its caller gets
 * GYRE_RESPONSE_LOST.
 *
 * Everywhere else, in prep callbacks, reset and destroy, too, it aborts the
 * process. Does not return.
 *
 * Since: 0.1
 */
void gyre_panic(const char *format, ...)
	__attribute__((__noreturn__, __format__(__printf__, 1, 2)));

/*
 * What the last GYRE_RESPONSE_LOST of the calling task, or else thread, was
 * about. Never NULL. The text belongs to the library and stands until the next
 * such answer, or the end of the task or thread.
 *
 * Since: 0.1
 */
const char *gyre_last_panic(void);

/*
 * The state that the current job runs on: its own until all of its tasks and their
 * defers have ended. NULL in create, reset and destroy, where the runtime has no
 * states, and on other threads. Does not wait.
 *
 * Since: 0.1
 */
void *gyre_state(void);

/*
 * A stream: one operation of the kernel's that gives many results, a multishot
 * accept, poll, receive or read. It belongs to the job whose task has opened it,
 * and to its tasks, of which one at a time uses it; it ends with its job at the
 * latest.
 *
 * Since: 0.1
 */
struct gyre_stream;

/*
 * Opens a stream without buffers: prep fills one SQE by
 * io_uring_prep_multishot_accept() or io_uring_prep_poll_multishot(). It runs
 * here and now, once, and is a prep callback like others. Descriptors and what
 * else the SQE names must stay as they are until the stream is closed: it goes to
 * the kernel again when the kernel has ended it and more may come. *ret belongs
 * to the caller until gyre_stream_close(), or until its job ends.
 *
 * GYRE_INVALID: prep or ret is NULL, or prep set something that is not allowed;
 * ARCHITECTURE.md has the list. GYRE_UNSUPPORTED: this kernel does not know the
 * opcode. GYRE_NO_MEMORY. GYRE_CANCELLED: gyre_close() has waited long enough.
 * GYRE_WORKER_DEAD. GYRE_NO_REACTOR.
 *
 * Since: 0.1
 */
enum gyre_status gyre_stream_open(gyre_prep_fn *prep, void *arg, struct gyre_stream **ret);

/*
 * The next result, for which it waits. *ret_res and *ret_cqe_flags, where these
 * are not NULL, get res and flags of the CQE: a descriptor, poll events, or a
 * number of bytes, whose gyre_stream_data() is then valid until the following
 * next. A res below 0 is the stream's last, as is a 0 where it has buffers: the
 * end of what it reads.
 *
 * GYRE_OK: there was one.
 * GYRE_CLOSED: none will come any more.
 * GYRE_CANCELLED: the task was cancelled; what has come can still be taken. Or
 * gyre_close() has waited drain_ns, and the stream is over.
 * GYRE_WORKER_DEAD: the worker has died, or results were lost.
 * GYRE_NO_MEMORY: more came than could be kept, and the stream is over.
 * GYRE_INVALID: stream is NULL, of another job, or another task waits for it.
 * GYRE_NO_REACTOR.
 *
 * Since: 0.1
 */
enum gyre_status gyre_stream_next(struct gyre_stream *stream, int *ret_res,
				  uint32_t *ret_cqe_flags);

/*
 * The same as gyre_stream_open() with buffers, of which the kernel takes one for
 * each result: prep uses io_uring_prep_recv_multishot() or
 * io_uring_prep_read_multishot(), with neither an address nor a length. The
 * library allocates buffers of buffer_size bytes each, and sets
 * IOSQE_BUFFER_SELECT and the group. When all hold results that were not taken,
 * the stream pauses, and what it reads waits in the kernel.
 *
 * GYRE_INVALID: also where buffers or buffer_size is 0, buffers more than 32768,
 * or all of them together more than 1 GiB. GYRE_SYSTEM: the kernel refused them,
 * errno says why.
 *
 * Since: 0.1
 */
enum gyre_status gyre_stream_open_buffers(gyre_prep_fn *prep, void *arg, size_t buffer_size,
					  unsigned buffers, struct gyre_stream **ret);

/*
 * Where the bytes of the last result are: as many as its res says. Valid until
 * the next gyre_stream_next() or the close; NULL without such a result. Does not
 * wait.
 *
 * Since: 0.1
 */
const void *gyre_stream_data(struct gyre_stream *stream);

/*
 * Ends the stream, waits until the kernel has let go of it, even in a task that
 * was cancelled, and frees it. Accepted descriptors that were not taken are
 * closed. While another task waits in gyre_stream_next(), and on other threads,
 * it does nothing. NULL is fine.
 *
 * Since: 0.1
 */
void gyre_stream_close(struct gyre_stream *stream);

/* ------------------------------------------------------- worker locals -- */

/*
 * A resource that lives and dies on one worker: a pool of connections, a client,
 * a cache without locks. One value for each struct, runtime and worker. The
 * struct is the program's, as a rule a static variable, and must stay, with its
 * functions, until every runtime that used it was closed.
 *
 * Since: 0.1
 */
struct gyre_local {
	/* Makes the value, in the task that asked first, and may wait. NULL: failed. Required. */
	void *(*create)(void *arg);

	/* Destroys one, in a task of that worker. NULL: nothing to do. */
	void (*destroy)(void *value);

	/* Handed to create. The caller's own. */
	void *arg;

	/* The library's; zero at first. */
	uint64_t internal[2];
};

/* Initializes a struct gyre_local. Since: 0.1 */
#define GYRE_LOCAL_INIT(create_fn, destroy_fn, arg_ptr) \
	{ (create_fn), (destroy_fn), (arg_ptr), { 0 } }

/*
 * The value that local has on this worker; made by its create, where there is
 * none. Who asks while another task makes it waits for that one. The value stays
 * until the worker ends, when all jobs have ended: then the worker's values are
 * destroyed, the latest first.
 *
 * GYRE_SYSTEM: create gave NULL; the next who asks tries again. errno is left
 * alone.
 * GYRE_WOULD_DEADLOCK: create asks for what it makes; or the value is being made
 * by a task that waits, through joins and jobs, for the current one.
 * GYRE_INVALID: local, its create or ret is NULL. GYRE_NO_MEMORY: or the worker
 * has 4096 of them. GYRE_CLOSED: the worker ends. GYRE_NO_REACTOR.
 *
 * Since: 0.1
 */
enum gyre_status gyre_local_get(struct gyre_local *local, void **ret);

/* ------------------------------------------------------------ context -- */

/*
 * Pairs of a name and a value, both text, that belong to the calling task, or
 * outside of tasks to the calling thread: the id of a request, say, for whatever
 * logs on its behalf further down. What one sets, no other sees. A task starts
 * with a copy of its parent's pairs, as they are at the gyre_go(); a job and an
 * offloaded function with one of those of the caller that submits it, as they are
 * at the gyre_block_on(), gyre_spawn() or gyre_offload(). What they change stays
 * theirs. A thread starts with none. They go with the task or thread that ends; the
 * child of a fork() has those of who forked. No runtime is needed.
 *
 * In a prep callback, which runs for no thread of the program, there are none,
 * and none can be set.
 */

/*
 * Sets name to value, or with NULL removes it, which it need not be there for.
 * Both are copied; value may be one that gyre_context_get() gave out.
 *
 * GYRE_INVALID: name is NULL, empty or longer than 255 bytes, or value longer
 * than 65536. GYRE_NO_MEMORY: there is none, or the pairs would be more than 64,
 * or have more than 1 MiB of names and values. GYRE_NO_REACTOR: in a prep
 * callback. After a refusal all is as it was.
 *
 * Since: 0.1
 */
enum gyre_status gyre_context_set(const char *name, const char *value);

/*
 * The value of name, NULL where it is not set. It stays where it is until name
 * is set again or removed, gyre_context_clear() is called, or the task or thread
 * ends.
 *
 * Since: 0.1
 */
const char *gyre_context_get(const char *name);

/*
 * Removes all pairs.
 *
 * Since: 0.1
 */
void gyre_context_clear(void);

/*
 * Calls fn(name, value, arg) for each pair, in the order in which their names
 * were first set. fn may set, remove and clear: it is called for the pairs as
 * they were at the start, and they live until the call returns.
 *
 * Since: 0.1
 */
void gyre_context_each(void (*fn)(const char *, const char *, void *), void *arg);

/* ----------------------------------------------------------- statistics -- */

/*
 * Figures of a runtime since it was opened. Counters only grow; gauges, marked
 * so, are of now. Each is true for itself; they are not read all at one instant
 * while workers run. Only operations of callers count, not the library's own.
 *
 * Since: 0.1
 */
struct gyre_stats {
	size_t size;			/* sizeof(struct gyre_stats), set by the caller */

	uint64_t calls;			/* gyre_call, gyre_callv, and the pread family */
	uint64_t ops_submitted;		/* handed to the kernel through a ring */
	uint64_t ops_completed;		/* of those, answered by the kernel */
	uint64_t ops_failed;		/* of those, GYRE_OK with a negative res */
	uint64_t ops_cancelled;		/* ended with GYRE_CANCELLED */
	uint64_t ops_timed_out;		/* ended with GYRE_TIMED_OUT */
	uint64_t inflight;		/* gauge: handed to the kernel, not yet answered */
	uint64_t queued;		/* gauge: accepted, not yet handed to the kernel */

	uint64_t enters;		/* io_uring_enter calls of the workers */
	uint64_t wakeups_sent;		/* a submission had to wake its worker */
	uint64_t wakeups_elided;	/* a submission found its worker awake */
	uint64_t replies_spun;		/* a reply found its caller awake */
	uint64_t replies_slept;		/* a reply had to wake its caller */

	uint64_t jobs_started;		/* jobs that began to run */
	uint64_t jobs_finished;		/* jobs that ended, however they ended */
	uint64_t jobs_panicked;		/* of those, by a panic */
	uint64_t jobs_cancelled;	/* of those, cancelled or timed out */
	uint64_t jobs_running;		/* gauge: jobs that run or wait now */
	uint64_t tasks_started;		/* tasks, first ones of jobs included */
	uint64_t tasks_live;		/* gauge: tasks that have not ended */
	uint64_t tasks_leftover;	/* tasks still alive when their job ended */

	uint64_t arena_bytes;		/* gauge: bytes of the chunks that arenas have */
	uint64_t arena_bytes_max;	/* gauge: the most that those of one worker ever had */
	uint64_t stacks_live;		/* gauge: stacks in use */
	uint64_t stacks_cached;		/* gauge: stacks kept for the next task */

	/* Of GYRE_MODE_POOLED: all zeros while no job was. */
	uint64_t pool_size;		/* gauge: states that the pool may keep */
	uint64_t pool_cached;		/* gauge: states that it has */
	uint64_t pool_hits;		/* a job found its key's state */
	uint64_t pool_misses;		/* a job's state had to be created */
	uint64_t pool_evictions;	/* an idle state had to go for another */
	uint64_t pool_waits;		/* a job waited for its state, or for a place */

	uint64_t stalls;		/* tasks that ran longer than stall_ns */
	uint64_t cq_overflows;		/* times a completion queue was full */
	uint64_t workers_alive;		/* gauge: workers that run */
	uint64_t workers_dead;		/* gauge: workers that stopped on an error */

	uint64_t calls_in_caller;	/* of calls, served in the caller's own thread */
	uint64_t durable_writes;	/* gyre_write_durable() that were answered OK */
	uint64_t durable_flushes;	/* for them, gyre_fsync() and gyre_fdatasync() */
	uint64_t durable_shared;	/* calls that were covered by another call's flush */
	uint64_t durable_failed;	/* of durable_flushes, those that failed */
	uint64_t durable_by_dsync;	/* durable writes by RWF_DSYNC in the caller's thread, */
	uint64_t durable_by_ring;	/* by the same through a worker's ring, */
	uint64_t durable_by_group;	/* and by a write and a flush that can be shared */
	uint64_t durable_failed_files;	/* now: since a flush of theirs has failed */
	/* Deepest use of a task's stack that was seen; not each is looked at. */
	uint64_t stack_bytes_max;
};

/*
 * Fills *stats, in sum over all workers. stats->size says how much of it there
 * is; what this library does not know is zeroed. Does not wait. After
 * gyre_close(), until gyre_free(), it tells the final figures.
 *
 * GYRE_INVALID: stats is NULL, or its size is less than version 0.1's or more
 * than 4096. GYRE_NO_REACTOR; GYRE_CLOSED in a forked child.
 *
 * Since: 0.1
 */
enum gyre_status gyre_stats_get(struct gyre *rt, struct gyre_stats *stats);

/*
 * For whom gyre_stats_write() writes.
 *
 * Since: 0.1
 */
enum gyre_format {
	/* One JSON object: "version", "workers" (an array by number), "sum". */
	GYRE_FORMAT_JSON,

	/*
	 * Prometheus exposition text: gyre_NAME, and gyre_NAME_total for
	 * counters, by worker="N" or, what no one worker has, unlabelled.
	 */
	GYRE_FORMAT_PROMETHEUS,

	/* A table for people. */
	GYRE_FORMAT_TEXT
};

/*
 * Writes the figures that this version counts, for each worker and in sum, to
 * fd, in the calling thread, as long as fd takes. After gyre_close(), until
 * gyre_free(), too.
 *
 * GYRE_INVALID: no such format. GYRE_NO_MEMORY: nothing was written.
 * GYRE_SYSTEM: a write failed, some of it may be out; errno says how, EBADF for
 * a descriptor that is none. GYRE_WOULD_DEADLOCK: in a prep callback, for fd may
 * be a full pipe. GYRE_NO_REACTOR; GYRE_CLOSED in a forked child.
 *
 * Since: 0.1
 */
enum gyre_status gyre_stats_write(struct gyre *rt, int fd, enum gyre_format format);

/*
 * Writes to fd, for people, every operation, job, task, stream and worker local,
 * how old it is and what it waits for; the limits and how near they are; and the
 * state of each worker.
 * The form of the text may change from version to version. After gyre_close(),
 * until gyre_free(), it tells what was still alive. It answers what
 * gyre_stats_write() answers.
 *
 * Since: 0.1
 */
enum gyre_status gyre_dump(struct gyre *rt, int fd);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
