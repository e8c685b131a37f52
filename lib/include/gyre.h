/* SPDX-License-Identifier: MIT */
/*
 * gyre - synchronous code on top of per-worker io_uring reactors.
 *
 * A runtime is a handful of worker threads, each of which owns one ring. Any
 * thread hands operations to it and blocks until they are answered:
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
 * WHO WAITS. A call that waits blocks the calling thread. (The runtime's own
 * tasks, which suspend instead, come with a later version; no thread is one
 * yet.) The one place where nobody may wait is a prep callback, which runs on
 * the worker that would have to answer: there such a call answers
 * GYRE_WOULD_DEADLOCK, or -EDEADLK, at once, and functions that wait and return
 * void must not be called.
 *
 * RT NULL means the current task's runtime, except in gyre_open(), gyre_close()
 * and gyre_free(). Where there is none, which in this version is everywhere but
 * in prep callbacks, the answer is GYRE_NO_REACTOR, or -ENOTSUP.
 *
 * LIFETIMES. gyre_close() lets operations run for drain_ns, then cancels them.
 * Calls that come after it has begun are GYRE_CLOSED, or -ESHUTDOWN, but for
 * those that only look at the runtime. A system call that runs in its caller's
 * own thread is not waited for by gyre_close(); gyre_free() waits until every
 * call has left. Once it returns, rt is gone, and no call may use it.
 *
 * FORK. In the child of fork() the parent's runtimes have no workers: every
 * call answers GYRE_CLOSED, or -ESHUTDOWN, gyre_close() too, which does nothing,
 * and gyre_free() releases the child's memory and descriptors without a trace
 * in the parent.
 *
 * LEAVING. No function is a cancellation point of pthread_cancel(). Leaving a
 * prep callback by longjmp(), pthread_exit() or a C++ exception is undefined.
 *
 * DESCRIPTORS. Each worker holds three: its ring, an eventfd, one end of a
 * pipe. Each thread that calls holds one eventfd, from its first call that
 * travels to a worker until it ends; so the first call of a thread may fail for
 * want of descriptors with GYRE_SYSTEM and errno EMFILE.
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
	 * Accepted, then its job panicked or was dropped before it replied. No
	 * operation of this version ends so. [-ENOTRECOVERABLE]
	 */
	GYRE_RESPONSE_LOST,

	/* Its own time-out passed, and the operation was cancelled. [-ETIMEDOUT] */
	GYRE_TIMED_OUT,

	/*
	 * Somebody cancelled it, the chain it belonged to broke, or gyre_close()
	 * had waited for it long enough. [-ECANCELED]
	 */
	GYRE_CANCELLED,

	/* The runtime is closed, or belongs to the parent process. [-ESHUTDOWN] */
	GYRE_CLOSED,

	/* The call would have to wait, and was asked not to. [-EAGAIN] */
	GYRE_BUSY,

	/* rt is NULL, and the calling thread runs no task. [-ENOTSUP] */
	GYRE_NO_REACTOR,

	/* Waiting here would stop the worker that must answer. [-EDEADLK] */
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
	/* The kernel never saw it, or never started it: safe to try again. */
	GYRE_EFFECT_NONE = 0,

	/* Cut off on its way: it may have happened, wholly or in part. */
	GYRE_EFFECT_UNKNOWN,

	/* The kernel answered: res says what happened. */
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
 * How the calling thread's last call ended. Every function that answers a
 * status or a negative errno notes it; the functions of this section and those
 * that return void or a plain value do not. GYRE_OK before the first call.
 *
 * A call of the pread family whose operation failed in the kernel is GYRE_OK
 * here: the reply came.
 *
 * Since: 0.1
 */
enum gyre_status gyre_last_status(void);

/*
 * Whether what the calling thread last asked for may have happened. After
 * gyre_callv() the operations themselves know better: see struct gyre_op.
 *
 * Since: 0.1
 */
enum gyre_effect gyre_last_effect(void);

/*
 * What went wrong in the calling thread's last call, for a person: the
 * function, the reason and a hint. Never NULL. The text belongs to the library
 * and stands until the thread's next call, or its end.
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
 * How the states that jobs run on live (see struct gyre_state_type). Jobs come
 * with a later version; this one checks and keeps the choice.
 *
 * Since: 0.1
 */
enum gyre_mode {
	/* The runtime's own mode; GYRE_MODE_FRESH where it names none. */
	GYRE_MODE_DEFAULT = 0,

	/* Created for the job, destroyed after it: most isolation. */
	GYRE_MODE_FRESH,

	/* One for each worker, reset between jobs. */
	GYRE_MODE_SHARED,

	/*
	 * One for each key, one job at a time, the least recently used evicted.
	 * A state lives on the worker that made it, and its jobs run there.
	 */
	GYRE_MODE_POOLED
};

/*
 * What a job's state is: an interpreter, a tenant's open files, a codec. The
 * callbacks run on a worker, in a task, and may wait.
 *
 * Since: 0.1
 */
struct gyre_state_type {
	/* sizeof(struct gyre_state_type). */
	size_t size;

	/*
	 * Makes a state; key is NULL outside GYRE_MODE_POOLED and valid during
	 * the call only. NULL: failed, and the job is not run. Required.
	 */
	void *(*create)(const char *key, void *arg);

	/* Readies a state for its next job. NULL: nothing to do. */
	void (*reset)(void *state, void *arg);

	/* Destroys a state, on the worker that made it. Required. */
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
	 * GYRE_STACK_SIZE; bytes of a task's stack, its guard page besides,
	 * 16 KiB to 1 GiB. Default: 64 KiB. Used by jobs.
	 */
	size_t stack_size;

	/*
	 * GYRE_ARENA_MAX; bytes that one job may allocate in its arena, 4096 or
	 * more. Default: 64 MiB. Used by jobs.
	 */
	size_t arena_max;

	/* GYRE_MODE (fresh, shared or pooled). Default: fresh. Used by jobs. */
	enum gyre_mode mode;

	/*
	 * GYRE_POOL_SIZE; states kept in GYRE_MODE_POOLED, at most 1000000.
	 * Default: 1000. Used by jobs.
	 */
	unsigned pool_size;

	/*
	 * What jobs run on; NULL: jobs have no state. It must stay valid until
	 * gyre_free(). Used by jobs.
	 */
	const struct gyre_state_type *state;

	/*
	 * gyre_close() waits so long for what is under way, then cancels it.
	 * GYRE_FOREVER: never cancel. Default: 5 s.
	 */
	uint64_t drain_ns;

	/*
	 * A task that runs longer without yielding is counted and reported.
	 * Default: off. Used by jobs.
	 */
	uint64_t stall_ns;

	/*
	 * GYRE_OFFLOAD_THREADS; helper threads for blocking work, at most 1024.
	 * Default: 16. Used by jobs.
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
 * rest and waits for the kernel to let go of it, then joins the workers. Any
 * thread, any number of times, several at once: each returns when the runtime
 * is closed. rt stays valid until gyre_free(). NULL: GYRE_OK.
 *
 * GYRE_OK: closed, by this call or an earlier one.
 * GYRE_CLOSED: in a forked child, whose parent's runtime it is.
 * GYRE_WOULD_DEADLOCK: in a prep callback, where nothing is done.
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
 * have been put back before. Not in a prep callback.
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
 * chain goes to the kernel as a whole, so it is at most ring_entries, as rounded up, and at most inflight_max
 * long. GYRE_INVALID on the last op of an array.
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
 * keeps to one worker as long as that is alive and not overloaded.
 *
 * GYRE_OK: the kernel answered, res >= 0 or a negative errno; effect DONE, or
 * UNKNOWN when res is -EINTR or -ECANCELED.
 * GYRE_WORKER_DEAD: effect NONE, when the worker never submitted it, or UNKNOWN.
 * GYRE_CANCELLED: gyre_close() had waited drain_ns for it; NONE or UNKNOWN.
 * Refused, with effect NONE: GYRE_INVALID, prep is NULL, or it set nothing, or
 * something that is not allowed; GYRE_UNSUPPORTED, this kernel does not know the
 * opcode; GYRE_CLOSED; GYRE_NO_REACTOR; GYRE_WOULD_DEADLOCK; GYRE_NO_MEMORY;
 * GYRE_SYSTEM, the thread's eventfd could not be had, errno says why.
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
 * GYRE_CANCELLED: gyre_op_cancel(), or gyre_close() past drain_ns; effect NONE
 * or UNKNOWN. Or another of its chain was refused, and nothing of the chain was
 * submitted, or an earlier one did not fully succeed; effect NONE.
 * GYRE_BUSY: GYRE_OP_NOWAIT, and no room. Effect NONE.
 * GYRE_UNSUPPORTED: this kernel does not know the opcode. Effect NONE.
 * GYRE_INVALID, effect NONE, while the other ops run: prep is NULL or did what
 * is not allowed; unknown flags; reserved is not zero; in a later op another
 * worker than ops[0]'s; a time-out on a later op of a chain; GYRE_OP_LINK on the last op; a chain that is too long; GYRE_OP_LEAVE
 * and memory outside the library's buffers.
 *
 * GYRE_INVALID for the whole call, ops untouched: ops is NULL, or count is more
 * than 2^24. For the whole call, with every op GYRE_INVALID: ops[0].worker names
 * a worker that does not exist. GYRE_CLOSED, GYRE_NO_REACTOR, GYRE_WOULD_DEADLOCK, GYRE_NO_MEMORY
 * and GYRE_SYSTEM for the whole call: every op gets that status too, with res
 * -ECANCELED and effect NONE.
 *
 * Since: 0.1
 */
enum gyre_status gyre_callv(struct gyre *rt, struct gyre_op *ops, size_t count);

/*
 * Asks to cancel an op that another thread waits for in gyre_callv(). That one
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
 * GYRE_CLOSED, GYRE_NO_REACTOR. GYRE_SYSTEM: a mapping or the thread's eventfd
 * could not be had; errno says why. GYRE_WOULD_DEADLOCK: in a prep callback.
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
 * the calling thread, with the same answer; see GYRE_ROUTE above. None raises a
 * signal: a write to a pipe or socket that nobody reads is -EPIPE.
 *
 * The errors are those of the system call, and for a status that is not GYRE_OK
 * what gyre_status_errno() makes of it: -EOWNERDEAD, -ECANCELED, -ESHUTDOWN,
 * -ENOTSUP (rt is NULL), -EDEADLK (in a prep callback), -ENOMEM, -ENOSYS, -EIO
 * (the thread's eventfd could not be had). Where the system call has the same
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
 * gyre_stats and gyre_dump() tell what was chosen.
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

/* What a job, a task, or an offloaded function runs. Since: 0.1 */
typedef int gyre_task_fn(void *arg);

/* A job that was started with a handle. Since: 0.1 */
struct gyre_job;

/* A task that was started with a handle. Since: 0.1 */
struct gyre_task;

/* How to run one job. Zero in a field means the default. Since: 0.1 */
struct gyre_job_options {
	size_t size;
	const char *name;
	const char *key;
	enum gyre_mode mode;
	uint32_t worker;
	uint64_t timeout_ns;
	size_t stack_size;
	size_t arena_max;
	size_t arg_size;
};

/* Since: 0.1 */
#ifdef __cplusplus
#define GYRE_JOB_OPTIONS_INIT { sizeof(struct gyre_job_options), 0, 0, GYRE_MODE_DEFAULT, \
				0, 0, 0, 0, 0 }
#else
#define GYRE_JOB_OPTIONS_INIT { .size = sizeof(struct gyre_job_options) }
#endif

/* Since: 0.1 */
enum gyre_status gyre_block_on(struct gyre *rt, gyre_task_fn *fn, void *arg,
			       const struct gyre_job_options *options, int *ret_result);

/* Since: 0.1 */
enum gyre_status gyre_spawn(struct gyre *rt, gyre_task_fn *fn, void *arg,
			    const struct gyre_job_options *options, struct gyre_job **ret);

/* Since: 0.1 */
enum gyre_status gyre_job_wait(struct gyre_job *job, uint64_t timeout_ns, int *ret_result);

/* Since: 0.1 */
void gyre_job_cancel(struct gyre_job *job);

/* Since: 0.1 */
void gyre_job_detach(struct gyre_job *job);

/* Since: 0.1 */
enum gyre_status gyre_offload(struct gyre *rt, gyre_task_fn *fn, void *arg, int *ret_result);

/* --------------------------------------------------------- inside a job -- */

/* Since: 0.1 */
enum gyre_status gyre_go(gyre_task_fn *fn, void *arg, struct gyre_task **ret);

/* Since: 0.1 */
enum gyre_status gyre_join(struct gyre_task *task, int *ret_result);

/* Since: 0.1 */
enum gyre_status gyre_join_all(void);

/* Since: 0.1 */
void gyre_task_cancel(struct gyre_task *task);

/* Since: 0.1 */
int gyre_cancelled(void);

/* Since: 0.1 */
void gyre_yield(void);

/* Since: 0.1 */
enum gyre_status gyre_sleep(uint64_t ns);

/* Since: 0.1 */
void *gyre_alloc(size_t size);

/* Since: 0.1 */
void *gyre_alloc_aligned(size_t size, size_t align);

/* Since: 0.1 */
char *gyre_strdup(const char *text);

/* Since: 0.1 */
enum gyre_status gyre_defer(void (*fn)(void *arg), void *arg);

/* Since: 0.1 */
void gyre_panic(const char *format, ...)
	__attribute__((__noreturn__, __format__(__printf__, 1, 2)));

/* Since: 0.1 */
const char *gyre_last_panic(void);
/* ------------------------------------------------------- worker locals -- */

/* Since: 0.1 */
struct gyre_local {
	void *(*create)(void *arg);
	void (*destroy)(void *value);
	void *arg;
	uint64_t internal[2];
};

/* Since: 0.1 */
#define GYRE_LOCAL_INIT(create_fn, destroy_fn, arg_ptr) { (create_fn), (destroy_fn), (arg_ptr), { 0 } }

/* Since: 0.1 */
enum gyre_status gyre_local_get(struct gyre_local *local, void **ret);

/* ------------------------------------------------------------ context -- */

/*
 * Pairs of a name and a value, both text, that belong to the calling thread:
 * the id of a request, say, for whatever logs on its behalf further down. What
 * one thread sets, no other sees. A thread starts with none, and takes them
 * along when it ends; the child of a fork() has those of the thread that forked.
 * No runtime is needed.
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
 * is set again or removed, gyre_context_clear() is called, or the thread ends.
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
 * The figures of jobs, tasks, stacks, arenas and the pool are 0 in this version.
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

	uint64_t arena_bytes;		/* gauge: bytes that jobs have allocated now */
	uint64_t arena_bytes_max;	/* gauge: the most that one job ever had */
	uint64_t stacks_live;		/* gauge: stacks in use */
	uint64_t stacks_cached;		/* gauge: stacks kept for the next task */

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
 * Writes to fd, for people, every operation under way, how old it is and what
 * it waits for; the limits and how near they are; and the state of each worker.
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
