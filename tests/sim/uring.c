/* SPDX-License-Identifier: MIT */
/*
 * io_uring, as its man pages and our measurements have it, over plain memory.
 *
 * An op is consumed by an enter, runs for a while on the virtual clock, has its
 * effect in one moment, and makes a CQE: at once, or as task work that waits for
 * the ring's owner to enter, as with DEFER_TASKRUN. Dice decide what the real
 * kernel leaves open: times, order, who wins against a cancel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "coverage.h"
#include "deadline.h"
#include "kernel.h"
#include "sched.h"

#define RINGS_MAX	8
#define KOPS_MAX	1024
#define BACKLOG_MAX	512
#define THREAD_DONE	16
#define GOES_OFF_NS	(10 * SIM_US)
#define PUTS_MAX	16
#define PUT_NS		(50 * SIM_US)
#define NONE		UINT32_MAX
#define GROUPS_MAX	32
#define READ_MULTISHOT	49	/* newer than the oldest liburing */
/* Ours: its res is a descriptor, until somebody has seen it. */
#define CQE_ACCEPTED	(1u << 15)

enum kop_state {
	KOP_FREE,
	KOP_LINKED,		/* waits for the op before it in its chain */
	KOP_RUNNING,		/* has its effect at due_ns */
	KOP_WAITING,		/* for its file to change */
	KOP_DONE		/* its CQE waits for the owner, as task work */
};

struct kop {
	enum kop_state state;
	struct kring *ring;
	uint8_t opcode, sqe_flags;
	bool dying;		/* to be cancelled at due_ns */
	bool promised;		/* a first CQE, of a zero-copy send: a second follows */
	bool notifies;		/* the first is out: only that is still to come */
	bool unseen;		/* and was not to be seen */
	bool behind;		/* another, in its chain */
	bool waited;		/* for its file, once at least */
	bool in_thread;		/* may be done by a thread of the kernel's */
	bool signalled;		/* and is interrupted there where it waits */
	bool multishot;
	bool sized;		/* a read: it has looked how far its file goes, and takes no more */
	bool judged;		/* a cancel: it has found what it says, and has yet to say it */
	bool looks_again;	/* DONE for now: its file has changed, and it looks as task work */
	unsigned cqe_flags;	/* of its last CQE */
	uint16_t group;		/* of buffers, of a multishot read */
	uint64_t user_data, addr, off, size, due_ns, order;
	uint32_t len, flags;	/* the opcode's own: RWF_*, what to poll for */
	uint32_t next;		/* in its chain */
	int fd, res;
	struct sim_file *file;
	struct sim_flush *flush;	/* under way, until due_ns; its errno or */
	int flushed;			/* this is the result then */
	struct sim_call *call;
};

/* The shared words, where the kernel would have them. */
struct shared {
	unsigned sq_head, sq_tail, sq_mask, sq_flags, sq_dropped;
	unsigned cq_head, cq_tail, cq_mask, cq_overflow;
};

/* Buffers that the library provides: a ring of them in its memory. */
struct group {
	bool used;
	uint16_t number, head;
	uint32_t entries;
	struct io_uring_buf_ring *ring;
};

struct kring {
	bool used, enabled, closed, lost, broken;
	const char *name;			/* its owner's */
	struct sim_file *file;			/* its own */
	unsigned flags, sq_entries, cq_entries;
	struct shared *shared;
	unsigned *array;
	struct io_uring_cqe *cqes;
	struct io_uring_sqe *sqes;
	size_t shared_bytes;
	uint64_t owner;
	struct sim_file *registered;
	uint64_t release_ns;			/* when what was registered is let go */
	struct io_uring_cqe backlog[BACKLOG_MAX];	/* CQEs that found no room */
	unsigned backlog_count;
	unsigned calls;				/* in flight */
	uint64_t thread_done[THREAD_DONE];	/* whose CQEs came last, of what threads did */
	unsigned thread_done_count;
	struct group groups[GROUPS_MAX];
};

static struct {
	struct kring *rings;		/* RINGS_MAX of them, and KOPS_MAX */
	struct kop *ops;
	unsigned used;			/* ops ever used in this seed */
	uint64_t next_ns, order;
	bool died;			/* one ring a seed is enough */
	struct put {
		struct sim_file *file;
		uint64_t due_ns;
	} puts[PUTS_MAX];		/* files of ops that are over */
	unsigned put_count;
} uring;

unsigned sim_bend;
const char *const sim_bend_names[SIM_BENDS] = {
	[SIM_STRAIGHT] = "none",
	[SIM_BEND_SHORT_LINKS] = "a short read does not break a chain",
	[SIM_BEND_FAILED_LINKS] = "an op that fails does not break a chain",
	[SIM_BEND_SYNC_LINKS] = "an fsync that fails breaks a chain",
	[SIM_BEND_CANCEL_LINKED] = "a cancel finds an op whose turn in its chain has not come",
	[SIM_BEND_CANCEL_TAKES] = "a cancelled read has taken its data",
	[SIM_BEND_FILE_EARLY] = "every op looks its file up at submit",
	[SIM_BEND_POLL_DEAF] = "a poll hears of a hang-up only if it asked",
	[SIM_BEND_REFUSED_ALONE] = "an SQE that is refused breaks its chain only behind it",
};

const char *sim_op_name(uint8_t opcode)
{
	switch (opcode) {
	case IORING_OP_NOP: return "NOP";
	case IORING_OP_READ: return "READ";
	case IORING_OP_WRITE: return "WRITE";
	case IORING_OP_READV: return "READV";
	case IORING_OP_WRITEV: return "WRITEV";
	case IORING_OP_READ_FIXED: return "READ_FIXED";
	case IORING_OP_WRITE_FIXED: return "WRITE_FIXED";
	case IORING_OP_SEND_ZC: return "SEND_ZC";
	case IORING_OP_FSYNC: return "FSYNC";
	case IORING_OP_SYNC_FILE_RANGE: return "SYNC_FILE_RANGE";
	case IORING_OP_POLL_ADD: return "POLL_ADD";
	case IORING_OP_TIMEOUT: return "TIMEOUT";
	case IORING_OP_ASYNC_CANCEL: return "CANCEL";
	case IORING_OP_ACCEPT: return "ACCEPT";
	case READ_MULTISHOT: return "READ_MULTISHOT";
	default: return "?";
	}
}

static const uint8_t known_opcodes[] = {
	IORING_OP_NOP, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_POLL_ADD,
	IORING_OP_TIMEOUT, IORING_OP_ASYNC_CANCEL, IORING_OP_READ_FIXED,
	IORING_OP_WRITE_FIXED, IORING_OP_SYNC_FILE_RANGE, IORING_OP_READV, IORING_OP_WRITEV,
	IORING_OP_SEND_ZC, IORING_OP_ACCEPT, IORING_OP_SOCKET, READ_MULTISHOT,
};

static bool is_known(uint8_t opcode)
{
	unsigned i;

	for (i = 0; i < sizeof(known_opcodes); i++)
		if (known_opcodes[i] == opcode)
			return true;
	return false;
}

static bool moves_data(uint8_t opcode)
{
	return opcode == IORING_OP_READ || opcode == IORING_OP_WRITE ||
	       opcode == IORING_OP_READ_FIXED || opcode == IORING_OP_WRITE_FIXED ||
	       opcode == IORING_OP_SEND_ZC;
}

static bool only_syncs(uint8_t opcode)
{
	return opcode == IORING_OP_FSYNC || opcode == IORING_OP_SYNC_FILE_RANGE;
}

/* What a thread of the kernel's does. */
static bool is_for_thread(const struct kop *op)
{
	return (op->sqe_flags & IOSQE_ASYNC) || only_syncs(op->opcode);
}

/* Does it break its chain? What only syncs does not, whatever it says. */
static bool breaks_chain(const struct kop *op, int res)
{
	if (res == -ECANCELED)
		return true;
	if (only_syncs(op->opcode) && op->file && sim_bend != SIM_BEND_SYNC_LINKS)
		return false;
	if (res < 0)
		return sim_bend != SIM_BEND_FAILED_LINKS;
	return moves_data(op->opcode) && (uint32_t)res != op->len &&
	       sim_bend != SIM_BEND_SHORT_LINKS;
}

static bool writes_file(uint8_t opcode)
{
	return opcode == IORING_OP_WRITE || opcode == IORING_OP_WRITE_FIXED ||
	       opcode == IORING_OP_SEND_ZC;
}

/* What is not in memory, and what its file system reads in no other way, a thread reads. */
static bool reads_data(const struct kop *op)
{
	return moves_data(op->opcode) && op->file && op->file->kind == SIM_FILE_DATA;
}

static void due(struct kop *op, uint64_t at_ns)
{
	op->state = KOP_RUNNING;
	op->due_ns = at_ns;
	if (at_ns < uring.next_ns)
		uring.next_ns = at_ns;
}

/* ---------------------------------------------------------------- CQEs -- */

static bool cq_put(struct kring *ring, const struct io_uring_cqe *cqe)
{
	struct shared *shared = ring->shared;

	if (shared->cq_tail - shared->cq_head == ring->cq_entries)
		return false;
	ring->cqes[shared->cq_tail & shared->cq_mask] = *cqe;
	shared->cq_tail++;
	return true;
}

/* Nobody will ever see it. */
static void forget(const struct io_uring_cqe *cqe)
{
	if (cqe->flags & CQE_ACCEPTED)
		sim_scenario_close(cqe->res);
}

/* True: it can be seen. */
static bool cq_post(struct kring *ring, uint64_t user_data, int res, unsigned flags)
{
	struct io_uring_cqe cqe = { .user_data = user_data, .res = res, .flags = flags };
	bool seen = true;

	if (ring->closed) {
		forget(&cqe);
		return false;
	}
	if (!uring.died && sim_chance(sim_faults.ebadr)) {
		sim_trace("the kernel loses a CQE");
		forget(&cqe);
		uring.died = ring->lost = true;
		ring->shared->cq_overflow++;
		sim_excuse_death();
		sim_wake(ring);		/* whoever waits is told */
		return false;
	}
	if (ring->backlog_count > 0 || !cq_put(ring, &cqe)) {
		if (ring->backlog_count == BACKLOG_MAX)
			sim_fail("more CQEs overflow than can be in flight");
		ring->backlog[ring->backlog_count++] = cqe;
		ring->shared->sq_flags |= IORING_SQ_CQ_OVERFLOW;
		sim_reach(SIM_OVERFLOW);
		seen = false;
	}
	sim_wake(ring);
	return seen;
}

static void cq_flush(struct kring *ring)
{
	unsigned done = 0;

	while (done < ring->backlog_count && cq_put(ring, &ring->backlog[done]))
		done++;
	ring->backlog_count -= done;
	memmove(ring->backlog, ring->backlog + done,
		ring->backlog_count * sizeof(ring->backlog[0]));
	if (ring->backlog_count == 0)
		ring->shared->sq_flags &= ~(unsigned)IORING_SQ_CQ_OVERFLOW;
}

static void maybe_release(struct kring *ring);

/* For whoever reads along. */
static const char *describe(const struct kop *op)
{
	static char text[64];

	if (op->call)
		snprintf(text, sizeof(text), "call %u's %s", op->call->id, sim_op_name(op->opcode));
	else
		snprintf(text, sizeof(text), "%s's own %s", op->ring->name,
			 sim_op_name(op->opcode));
	return text;
}

/* A zero-copy send has been sent, and its memory is still read: the network has its time. */
static void kop_promise(struct kop *op)
{
	sim_trace("CQE of %s: %s, and another follows", describe(op), sim_result(op->res));
	op->promised = false;
	op->notifies = true;
	if (op->call) {
		op->call->posted = true;
		op->call->res = op->res;
		sim_deadline_asked(op->call);	/* there is nothing more to cancel */
	}
	op->unseen = !cq_post(op->ring, op->user_data, op->res, IORING_CQE_F_MORE);
	due(op, sim_now_ns() + sim_random(sim_chance(200) ? 5 * SIM_MS : 20 * SIM_US));
}

static void note_result(struct kop *op)
{
	op->ring->calls -= op->call || op->multishot;
	if (!op->call)
		return;
	op->call->flying--;
	op->call->posted = true;
	if (!op->notifies)
		op->call->res = op->res;
}

/* A request is taken apart after its CQE: what it was the last to hold may last a little longer. */
static void put_file(struct kop *op)
{
	if (op->file->kind != SIM_FILE_PIPE || uring.put_count == PUTS_MAX ||
	    !sim_chance(sim_faults.slow)) {
		sim_file_unref(op->file);
		return;
	}
	sim_reach(SIM_LATE_PUT);
	uring.puts[uring.put_count++] = (struct put){ op->file, sim_now_ns() + sim_random(PUT_NS) };
	if (uring.puts[uring.put_count - 1].due_ns < uring.next_ns)
		uring.next_ns = uring.puts[uring.put_count - 1].due_ns;
}

/* The kernel has let go of all that the op names, but for its file, maybe. */
static void kop_end(struct kop *op)
{
	struct kring *ring = op->ring;
	bool seen;

	if (op->promised) {
		kop_promise(op);
		return;
	}
	sim_trace("CQE of %s: %s%s", describe(op), sim_result(op->res),
		  op->notifies ? ", its memory is free" : "");
	note_result(op);
	if (op->file)
		put_file(op);
	op->state = KOP_FREE;
	if (op->in_thread)
		ring->thread_done[ring->thread_done_count++ % THREAD_DONE] = op->user_data;
	seen = cq_post(ring, op->user_data, op->res,
		       op->notifies ? IORING_CQE_F_NOTIF : op->cqe_flags);
	if (op->call)
		op->call->delivered = seen && !op->unseen && !ring->broken;
	if (ring->closed)
		maybe_release(ring);
}

/*
 * What is done within the submit has its CQE there, while others wait as task
 * work, for an enter that may never be needed for these.
 */
static bool is_done_in_submit(const struct kop *op)
{
	return !op->behind && !op->waited && !is_for_thread(op) &&
	       op->opcode != IORING_OP_TIMEOUT &&
	       sim_chance(op->opcode == IORING_OP_ASYNC_CANCEL ? 500 : sim_faults.post_inline);
}

static void kop_complete(struct kop *op, int res)
{
	struct kring *ring = op->ring;

	sim_note(op->user_data ^ (uint64_t)(uint32_t)res << 32);
	op->res = res;
	op->order = uring.order++;
	if (op->opcode == IORING_OP_FSYNC && res < 0)	/* the next one's success may be no proof */
		sim_excuse_flush();
	sim_deadline_ended(op->call);
	if (ring->closed || sim_faults.post_directly ||
	    !(ring->flags & IORING_SETUP_TASKRUN_FLAG) || is_done_in_submit(op)) {
		kop_end(op);
		return;
	}
	sim_reach(SIM_TASK_WORK);
	op->state = KOP_DONE;
	ring->shared->sq_flags |= IORING_SQ_TASKRUN;
	sim_wake(ring);
}

static void look_again(struct kop *op);

static void run_task_work(struct kring *ring)
{
	struct kop *first;
	unsigned i;

	for (;;) {
		first = NULL;
		for (i = 0; i < uring.used; i++)
			if (uring.ops[i].state == KOP_DONE && uring.ops[i].ring == ring &&
			    (!first || uring.ops[i].order < first->order))
				first = &uring.ops[i];
		if (!first)
			break;
		if (first->looks_again)
			look_again(first);
		else
			kop_end(first);
	}
	ring->shared->sq_flags &= ~(unsigned)IORING_SQ_TASKRUN;
}

/* ---------------------------------------------------------------- effects -- */

/* The library's read of its own eventfd waits for one, and does nothing else. */
static bool may_be_slow(const struct kop *op)
{
	return op->call || (op->sqe_flags & IOSQE_ASYNC) || !op->file ||
	       op->file->kind != SIM_FILE_EVENTFD;
}

static void kop_start(struct kop *op)
{
	const struct sim_call *before = op->call ? op->call->before : NULL;
	uint64_t now_ns = sim_now_ns();

	if (before && (!before->ended || before->broke))
		sim_fail("call %u runs, though the one that it is linked to has not succeeded",
			 op->call->id);
	if (op->opcode == IORING_OP_TIMEOUT) {
		const struct __kernel_timespec *ts = (const void *)(uintptr_t)op->addr;

		sim_touch(op->addr, sizeof(*ts), "a timespec");
		due(op, now_ns + (uint64_t)ts->tv_sec * SIM_S + (uint64_t)ts->tv_nsec +
			(sim_chance(500) ? sim_random(20 * SIM_US) : 0));
	} else if (sim_chance(400)) {
		due(op, now_ns);
	} else if (may_be_slow(op) && sim_chance(sim_faults.slow)) {
		sim_reach(SIM_SLOW);
		due(op, now_ns + sim_random(sim_chance(500) ? 20 * SIM_MS : SIM_MS / 4));
	} else {
		due(op, now_ns + sim_random(20 * SIM_US));
	}
}

/* The op is over: its CQE, and what that means for its chain. */
static void kop_finish(struct kop *op, int res)
{
	uint32_t next = op->next;
	bool broken = breaks_chain(op, res);

	if (op->call) {
		op->call->ended = true;
		op->call->broke = broken;
	}
	op->promised = op->opcode == IORING_OP_SEND_ZC && (res >= 0 || sim_chance(500));
	kop_complete(op, res);
	if (next == NONE)
		return;
	op = &uring.ops[next];
	if (!broken) {
		op->dying = op->ring->closed;
		/* Of the one that did the op before, maybe. */
		op->in_thread = op->signalled = true;
		kop_start(op);
		return;
	}
	/* One after the other, and others come between. */
	sim_reach(SIM_LINK_BROKEN);
	op->dying = true;
	due(op, sim_now_ns() + (sim_chance(500) ? sim_random(2 * SIM_US) : 0));
}

/*
 * A scenario that uses a number after it was closed may meet its next owner, but
 * not the library: what comes of that is the user's fault, and nothing to look at.
 */
static void look_up(struct kop *op)
{
	op->file = sim_file_get(op->fd);
	if (op->file && op->call && !op->file->scenarios)
		op->file = NULL;
	if (op->file)
		sim_file_ref(op->file);
}

/* Chained ops, and those with IOSQE_ASYNC, learn only now which file their number means. */
static bool find_file(struct kop *op)
{
	if (!op->file) {
		sim_reach(SIM_LATE_REF);
		look_up(op);
	}
	return op->file;
}

/* Moves up to len bytes now; -EAGAIN: it has to wait. */
static int kop_transfer(struct kop *op, uint32_t len)
{
	void *memory = (void *)(uintptr_t)op->addr;
	ssize_t n;

	sim_touch(op->addr, op->len, sim_op_name(op->opcode));
	if (op->call && op->call->file && op->call->file != op->file)
		sim_fail("call %u meets another file than its descriptor meant", op->call->id);
	n = writes_file(op->opcode) ? sim_file_write(op->file, memory, len, op->off) :
				      sim_file_read(op->file, memory, len, op->off);
	if (n >= 0 && op->call)
		op->call->touched = true;
	return (int)n;
}

/* What scenarios seldom ask for fails more often, so that fewer seeds have its failures. */
static unsigned rarity(uint8_t opcode)
{
	switch (opcode) {
	case IORING_OP_SYNC_FILE_RANGE:
		return 3;
	case IORING_OP_READ_FIXED:
	case IORING_OP_WRITE_FIXED:
	case IORING_OP_ACCEPT:
		return 2;
	default:
		return 1;
	}
}

static int op_errno(const struct kop *op)
{
	static const int errnos[] = { -EIO, -ENOSPC, -EINTR, -ENOMEM, -EAGAIN };
	int error;

	/* The library's own read may only meet what it can live with. */
	if (!op->call && !op->multishot)
		return op->opcode == IORING_OP_READ && sim_chance(sim_faults.op_errno / 4) ?
		       -EINTR : 0;
	if (!sim_chance(sim_faults.op_errno * rarity(op->opcode)))
		return 0;
	error = errnos[sim_random(sizeof(errnos) / sizeof(errnos[0]))];
	sim_reach_op_errno(sim_op_name(op->opcode), -error);
	if (op->opcode == IORING_OP_FSYNC)
		sim_excuse_flush();
	return error;
}

static void kop_wait(struct kop *op, int n)
{
	if (n == -EAGAIN && !op->ring->closed) {
		op->state = KOP_WAITING;
		op->waited = true;
	} else if (n == -EAGAIN) {
		kop_finish(op, -ECANCELED);
	} else {
		kop_finish(op, n);
	}
}

/* The second half of what answers when it is durable: nothing stops that any more. */
static void flush(struct kop *op, uint64_t offset, uint64_t len, int res)
{
	uint64_t end_ns;

	op->flush = sim_flush_start(&op->file->handle, offset, len, &end_ns);
	op->flushed = res;
	due(op, end_ns);
}

static void end_flush(struct kop *op)
{
	int error = sim_flush_end(op->flush);

	op->flush = NULL;
	kop_finish(op, error ? error : op->flushed);
}

static void run_fsync(struct kop *op)
{
	if (!find_file(op)) {
		kop_finish(op, -EBADF);
		return;
	}
	if (op->file->kind != SIM_FILE_DATA || op->flags & ~IORING_FSYNC_DATASYNC) {
		kop_finish(op, -EINVAL);
		return;
	}
	if (op->call)
		op->call->touched = true;
	flush(op, op->off, op->len, 0);
}

static void run_sync_file_range(struct kop *op)
{
	if (find_file(op) && op->file->kind == SIM_FILE_DATA)
		sim_data_write_back(op->file->handle.data, op->off, op->len);
	if (op->call)
		op->call->touched = true;
	kop_finish(op, !op->file ? -EBADF : op->file->kind == SIM_FILE_DATA ? 0 : -ESPIPE);
}

/* How far a file goes is looked at before its bytes are: a write may come in between. */
static bool looks_at_size(struct kop *op)
{
	if (op->sized || writes_file(op->opcode) || !reads_data(op) || !sim_chance(sim_faults.slow))
		return false;
	op->sized = true;
	op->size = op->file->handle.data->len;
	due(op, sim_now_ns() + sim_random(2 * SIM_US));
	return true;
}

static void run_transfer(struct kop *op)
{
	uint32_t len = op->len;
	int n;

	if (!find_file(op)) {
		kop_finish(op, -EBADF);
		return;
	}
	if (looks_at_size(op))
		return;
	if (op->sized && op->off + len > op->size)
		len = op->off < op->size ? (uint32_t)(op->size - op->off) : 0;
	if (op->call && len > 1 && sim_chance(sim_faults.short_io)) {
		len = 1 + (uint32_t)sim_random(len - 1);
		sim_reach(SIM_SHORT);
	}
	n = kop_transfer(op, len);
	if (n > 0 && writes_file(op->opcode) &&
	    sim_is_sync_write(&op->file->handle, (int)op->flags))
		flush(op, op->off, (uint32_t)n, n);
	else
		kop_wait(op, n);
}

/* ----------------------------------------------------------- multishot -- */

static struct group *group_find(struct kring *ring, uint16_t number)
{
	unsigned i;

	for (i = 0; i < GROUPS_MAX; i++)
		if (ring->groups[i].used && ring->groups[i].number == number)
			return &ring->groups[i];
	return NULL;
}

/* The next buffer of op's group; NULL: there is none. */
static const struct io_uring_buf *next_buffer(const struct kop *op)
{
	const struct group *group = group_find(op->ring, op->group);
	const struct io_uring_buf *slot;

	if (!group)
		sim_fail("a multishot read names a group of buffers that is none");
	sim_touch((uintptr_t)group->ring, group->entries * sizeof(*slot), "a ring of buffers");
	if (group->head == group->ring->tail)
		return NULL;
	slot = (const struct io_uring_buf *)group->ring + group->head % group->entries;
	sim_touch(slot->addr, slot->len, "a provided buffer");
	return slot;
}

/* Of what it has to give now, one. -EAGAIN: nothing. */
static int shot_read(struct kop *op, unsigned *ret_flags)
{
	const struct io_uring_buf *slot = next_buffer(op);
	ssize_t n;

	if (!slot) {
		sim_reach(SIM_NO_BUFFER);
		return -ENOBUFS;
	}
	n = sim_file_read(op->file, (void *)(uintptr_t)slot->addr, slot->len, op->off);
	if (n <= 0)
		return (int)n;
	*ret_flags = IORING_CQE_F_BUFFER | (unsigned)slot->bid << IORING_CQE_BUFFER_SHIFT;
	group_find(op->ring, op->group)->head++;
	return (int)n;
}

/* A pipe is what is listened at: each byte in it is somebody who wants to connect. */
static int shot_accept(struct kop *op, unsigned *ret_flags)
{
	char byte;
	ssize_t n = sim_file_read(op->file, &byte, 1, 0);
	int fd;

	if (n <= 0)
		return n == 0 ? -EAGAIN : (int)n;
	fd = sim_file_open(sim_file_new(SIM_FILE_EVENTFD));
	*ret_flags = fd >= 0 ? CQE_ACCEPTED : 0;
	return fd;
}

static int shot_poll(const struct kop *op)
{
	int events = (int)(sim_file_poll(op->file) & (op->flags | POLLERR | POLLHUP));

	return events ? events : -EAGAIN;
}

static int one_shot(struct kop *op, unsigned *ret_flags)
{
	*ret_flags = 0;
	if (op->opcode == IORING_OP_POLL_ADD)
		return shot_poll(op);
	return op->opcode == IORING_OP_ACCEPT ? shot_accept(op, ret_flags) :
						shot_read(op, ret_flags);
}

static bool cq_is_full(const struct kring *ring)
{
	const struct shared *shared = ring->shared;

	return ring->backlog_count > 0 || shared->cq_tail - shared->cq_head == ring->cq_entries;
}

static void last_shot(struct kop *op, int res, unsigned flags)
{
	op->cqe_flags = flags;
	kop_finish(op, res);
}

/*
 * Gives what there is, a few results at a time. One that the completion queue
 * has no room for is the op's last; a poll gives one, and waits for the next edge.
 */
static void shoot(struct kop *op)
{
	unsigned times = 1 + (unsigned)sim_random(3), flags;
	int res;

	op->looks_again = false;
	while (times-- > 0) {
		res = one_shot(op, &flags);
		if (res == -EAGAIN && !op->ring->closed) {
			op->state = KOP_WAITING;
			return;
		}
		if (res < 0 || (res == 0 && op->opcode == READ_MULTISHOT)) {
			last_shot(op, res == -EAGAIN ? -ECANCELED : res, 0);
			return;
		}
		if (cq_is_full(op->ring) || sim_chance(sim_faults.op_errno / 2)) {
			sim_reach(SIM_LAST_SHOT);
			last_shot(op, res, flags);
			return;
		}
		sim_reach(SIM_SHOT);
		sim_trace("CQE of %s: %s, and more follow", describe(op), sim_result(res));
		cq_post(op->ring, op->user_data, res, flags | IORING_CQE_F_MORE);
		if (op->opcode == IORING_OP_POLL_ADD) {
			op->state = KOP_WAITING;
			return;
		}
	}
	due(op, sim_now_ns() + sim_random(2 * SIM_US));
}

static bool needs_task_work(const struct kring *ring)
{
	return !ring->closed && !sim_faults.post_directly &&
	       (ring->flags & IORING_SETUP_TASKRUN_FLAG);
}

/* There may be something: when the ring's owner comes, it is looked for. */
static void look_as_task_work(struct kop *op)
{
	op->looks_again = true;
	op->state = KOP_DONE;
	op->order = uring.order++;
	op->ring->shared->sq_flags |= IORING_SQ_TASKRUN;
	sim_wake(op->ring);
}

static void run_multishot(struct kop *op)
{
	if (!find_file(op)) {
		kop_finish(op, -EBADF);
		return;
	}
	if (op->opcode == READ_MULTISHOT && op->file->kind == SIM_FILE_DATA) {
		kop_finish(op, -EBADFD);
		return;
	}
	if (op->opcode != IORING_OP_POLL_ADD && !(sim_file_poll(op->file) & (POLLIN | POLLHUP)) &&
	    sim_chance(500)) {
		kop_wait(op, -EAGAIN);
		return;
	}
	if (needs_task_work(op->ring))
		look_as_task_work(op);
	else
		shoot(op);
}

static void run_cancel(struct kop *op);

/* A thread that has looked the file up may be kept from going on for a while. */
static bool lingers_with_file(struct kop *op)
{
	if (op->file || !op->in_thread || !sim_chance(sim_faults.slow) ||
	    !(moves_data(op->opcode) || only_syncs(op->opcode) || op->opcode == IORING_OP_POLL_ADD))
		return false;
	if (!find_file(op))
		return false;
	due(op, sim_now_ns() + sim_random(sim_chance(500) ? SIM_MS : 20 * SIM_US));
	return true;
}

static void kop_run(struct kop *op)
{
	int error;

	if (op->flush) {
		end_flush(op);
		return;
	}
	if (op->judged) {
		kop_finish(op, op->res);
		return;
	}
	if (op->notifies) {
		sim_touch(op->addr, op->len, "SEND_ZC");
		kop_complete(op, 0);
		return;
	}
	if (op->dying) {
		kop_finish(op, is_known(op->opcode) ? -ECANCELED : -EINVAL);
		return;
	}
	if (lingers_with_file(op))
		return;
	error = op_errno(op);
	if (error) {
		kop_finish(op, error);
		return;
	}
	if (op->multishot) {
		run_multishot(op);
		return;
	}
	switch (op->opcode) {
	case IORING_OP_READ:
	case IORING_OP_WRITE:
	case IORING_OP_READ_FIXED:
	case IORING_OP_WRITE_FIXED:
	case IORING_OP_SEND_ZC:
		run_transfer(op);
		return;
	case IORING_OP_ASYNC_CANCEL:
		run_cancel(op);
		return;
	case IORING_OP_TIMEOUT:
		kop_finish(op, -ETIME);
		return;
	case IORING_OP_POLL_ADD:
		if (!find_file(op)) {
			kop_finish(op, -EBADF);
			return;
		}
		if (sim_bend != SIM_BEND_POLL_DEAF)
			op->flags |= POLLERR | POLLHUP;
		error = (int)(sim_file_poll(op->file) & op->flags);
		kop_wait(op, error ? error : -EAGAIN);
		return;
	case IORING_OP_FSYNC:
		run_fsync(op);
		return;
	case IORING_OP_SYNC_FILE_RANGE:
		run_sync_file_range(op);
		return;
	case IORING_OP_NOP:
		break;
	default:
		error = -EINVAL;
	}
	if (error == 0 && op->call)
		op->call->touched = true;
	kop_finish(op, error);
}

static void look_again(struct kop *op)
{
	op->looks_again = false;
	if (op->multishot)
		shoot(op);
	else
		kop_run(op);
}

/* -------------------------------------------------------------- cancel -- */

/* A thread of the kernel's may still be seen at an op whose CQE is out already. */
static bool was_in_thread(const struct kop *cancel)
{
	unsigned i;

	for (i = 0; i < THREAD_DONE; i++)
		if (cancel->ring->thread_done[i] == cancel->addr)
			return true;
	return false;
}

static struct kop *cancel_target(const struct kop *cancel)
{
	unsigned i;

	for (i = 0; i < uring.used; i++) {
		struct kop *op = &uring.ops[i];

		if (op != cancel && op->ring == cancel->ring && op->user_data == cancel->addr &&
		    op->state != KOP_FREE)
			return op;
	}
	return NULL;
}

/*
 * The cancel looks for its target among what threads run once more, after it has
 * interrupted it, and by then that may be gone.
 */
static int say_interrupted(void)
{
	return sim_chance(sim_faults.cancel_late) ? -ENOENT : -EALREADY;
}

/* Its timer goes off at this moment, on another CPU: it is found, and nothing stops it. */
static bool goes_off(const struct kop *op)
{
	return op->opcode == IORING_OP_TIMEOUT && op->state == KOP_RUNNING &&
	       op->due_ns <= sim_now_ns() + GOES_OFF_NS;
}

/* What the cancel says; *ret_res: what becomes of the target, 0: nothing. */
static int judge_cancel(const struct kop *cancel, struct kop *target, int *ret_res)
{
	/* The last is ERESTARTSYS, which some ops of the real kernel's threads let out. */
	static const int interrupted[] = { -ECANCELED, -EINTR, -512 };

	*ret_res = 0;
	if (!target)
		return was_in_thread(cancel) && sim_chance(sim_faults.cancel_late) ?
		       -EALREADY : -ENOENT;
	/* Cancelled before, and not told yet: found again, or not any more. */
	if (target->dying || (target->state == KOP_DONE && target->res == -ECANCELED))
		return sim_chance(500) ? 0 : -ENOENT;
	if ((target->state == KOP_DONE && !target->looks_again) || target->notifies)
		return -ENOENT;
	if (target->state == KOP_LINKED && sim_bend != SIM_BEND_CANCEL_LINKED)
		return -ENOENT;
	if (target->judged)
		return -EALREADY;
	if (target->flush) {
		sim_reach(SIM_FLUSH_LATE);
		return -EALREADY;
	}
	if (goes_off(target) && sim_chance(sim_faults.cancel_late))
		return -EALREADY;
	/* On its way from here to there, or between two polls: it goes on. */
	if ((target->state == KOP_RUNNING || target->call || target->multishot) &&
	    sim_chance(sim_faults.cancel_miss))
		return -ENOENT;
	*ret_res = -ECANCELED;
	if (target->in_thread && sim_chance(sim_faults.interrupt)) {
		*ret_res = interrupted[sim_random(target->signalled ? 2 : 1)];
		return say_interrupted();
	}
	if (target->state == KOP_WAITING || target->looks_again || target->multishot ||
	    (!moves_data(target->opcode) && !target->in_thread))
		return 0;
	if (sim_chance(sim_faults.cancel_late)) {
		*ret_res = 0;
		return -EALREADY;
	}
	if (target->call && moves_data(target->opcode) && target->len > 1 &&
	    sim_chance(sim_faults.cut_off) && find_file(target)) {
		sim_reach(SIM_CUT_OFF);
		kop_transfer(target, target->len / 2);
		*ret_res = interrupted[sim_random(3)];
		return say_interrupted();
	}
	return 0;
}

static void say_cancel(const struct kop *target, int res, int target_res)
{
	sim_trace("a cancel of %s: %s%s", target ? describe(target) : "what is gone",
		  sim_result(res), target_res ? ", and it ends" : "");
}

/* A thread has still to say what it has found, and others may be quicker. */
static void end_cancel(struct kop *cancel, int res)
{
	if (!cancel->in_thread || !sim_chance(sim_faults.slow)) {
		kop_finish(cancel, res);
		return;
	}
	cancel->judged = true;
	cancel->res = res;
	due(cancel, sim_now_ns() + sim_random(20 * SIM_US));
}

static void run_cancel(struct kop *cancel)
{
	struct kop *target = cancel_target(cancel);
	int target_res, res = judge_cancel(cancel, target, &target_res);
	bool first = sim_chance(500);

	say_cancel(target, res, target_res);
	if (sim_bend == SIM_BEND_CANCEL_TAKES && target_res && target->file &&
	    moves_data(target->opcode))
		memset((void *)(uintptr_t)target->addr, 0, 1);
	sim_reach(res == 0 ? SIM_CANCEL_HIT : res == -ENOENT ? SIM_CANCEL_MISS : SIM_CANCEL_LATE);
	if (first && target_res) {
		sim_reach(SIM_CANCEL_FIRST);
		end_cancel(cancel, res);
	}
	if (target && target_res)
		target->looks_again = false;
	if (target_res == -ECANCELED && first && sim_chance(500)) {
		target->dying = true;
		due(target, sim_now_ns() + sim_random(2 * SIM_US));
	} else if (target_res) {
		kop_finish(target, target_res);
	}
	if (!first && target_res)
		sim_reach(SIM_CANCEL_SECOND);
	if (!first || !target_res)
		end_cancel(cancel, res);
}

/* -------------------------------------------------------------- events -- */

uint64_t sim_uring_next_ns(void)
{
	return uring.next_ns;
}

static void release(struct kring *ring)
{
	struct sim_file *file = ring->registered;

	ring->registered = NULL;
	ring->release_ns = SIM_NEVER;
	sim_deadline_let_go();
	if (file) {
		sim_trace("the kernel lets go of a closed ring");
		sim_file_unref(file);
	}
	ring->used = false;
}

static void run_puts(uint64_t now_ns)
{
	unsigned i = 0;

	while (i < uring.put_count) {
		struct put put = uring.puts[i];

		if (put.due_ns > now_ns) {
			i++;
			continue;
		}
		uring.puts[i] = uring.puts[--uring.put_count];
		sim_file_unref(put.file);
	}
	for (i = 0; i < uring.put_count; i++)
		if (uring.puts[i].due_ns < uring.next_ns)
			uring.next_ns = uring.puts[i].due_ns;
}

void sim_uring_run(uint64_t now_ns)
{
	unsigned i;

	uring.next_ns = SIM_NEVER;
	run_puts(now_ns);
	for (i = 0; i < uring.used; i++)
		if (uring.ops[i].state == KOP_RUNNING && uring.ops[i].due_ns <= now_ns)
			kop_run(&uring.ops[i]);
	for (i = 0; i < RINGS_MAX; i++)
		if (uring.rings[i].used && uring.rings[i].release_ns <= now_ns)
			release(&uring.rings[i]);
	/* What has become due meanwhile, too, counts for the next time. */
	for (i = 0; i < uring.used; i++)
		if (uring.ops[i].state == KOP_RUNNING && uring.ops[i].due_ns < uring.next_ns)
			uring.next_ns = uring.ops[i].due_ns;
	for (i = 0; i < RINGS_MAX; i++)
		if (uring.rings[i].used && uring.rings[i].release_ns < uring.next_ns)
			uring.next_ns = uring.rings[i].release_ns;
}

void sim_uring_file_changed(struct sim_file *file)
{
	unsigned i;

	for (i = 0; i < uring.used; i++) {
		struct kop *op = &uring.ops[i];

		if (op->state != KOP_WAITING ||
		    (op->file != file && !(file->pipe && op->file->pipe == file->pipe)))
			continue;
		if (!op->multishot && !is_for_thread(op) && needs_task_work(op->ring))
			look_as_task_work(op);
		else
			due(op, sim_now_ns() + sim_random(2 * SIM_US));
	}
}

static bool uses_group(const struct kop *op, uint64_t from, size_t len)
{
	const struct group *group;

	if (op->state == KOP_FREE || op->opcode != READ_MULTISHOT || op->ring->closed)
		return false;
	group = group_find(op->ring, op->group);
	return group && (uintptr_t)group->ring >= from && (uintptr_t)group->ring < from + len;
}

bool sim_uring_uses(const void *ptr, size_t len)
{
	uint64_t from = (uintptr_t)ptr;
	unsigned i;

	for (i = 0; i < uring.used; i++) {
		const struct kop *op = &uring.ops[i];

		if (op->state != KOP_FREE && (op->state != KOP_DONE || op->looks_again) &&
		    moves_data(op->opcode) && op->addr >= from && op->addr < from + len)
			return true;
		if (uses_group(op, from, len))
			return true;
	}
	return false;
}

bool sim_uring_has_calls(void)
{
	unsigned i;

	for (i = 0; i < uring.used; i++)
		if (uring.ops[i].state != KOP_FREE && uring.ops[i].call)
			return true;
	return false;
}

/* ---------------------------------------------------------- life of a ring -- */

static struct kring *ring_of(int fd)
{
	struct sim_file *file = sim_file_get(fd);

	return file && file->kind == SIM_FILE_RING ? &uring.rings[file->number] : NULL;
}

static unsigned power_of_two(unsigned n)
{
	unsigned size = 1;

	while (size < n)
		size *= 2;
	return size;
}

static void ring_make(struct kring *ring, struct io_uring_params *params)
{
	size_t array = (sizeof(struct shared) + 63) & ~(size_t)63, cqes;

	ring->sq_entries = params->sq_entries;
	ring->cq_entries = params->cq_entries;
	cqes = (array + ring->sq_entries * sizeof(unsigned) + 63) & ~(size_t)63;
	ring->shared_bytes = cqes + ring->cq_entries * sizeof(struct io_uring_cqe);
	ring->shared = sim_kernel_alloc(ring->shared_bytes);
	ring->array = (unsigned *)((char *)ring->shared + array);
	ring->cqes = (struct io_uring_cqe *)((char *)ring->shared + cqes);
	ring->sqes = sim_kernel_alloc(ring->sq_entries * sizeof(struct io_uring_sqe));
	ring->shared->sq_mask = ring->sq_entries - 1;
	ring->shared->cq_mask = ring->cq_entries - 1;
	params->sq_off.head = offsetof(struct shared, sq_head);
	params->sq_off.tail = offsetof(struct shared, sq_tail);
	params->sq_off.ring_mask = offsetof(struct shared, sq_mask);
	params->sq_off.flags = offsetof(struct shared, sq_flags);
	params->sq_off.dropped = offsetof(struct shared, sq_dropped);
	params->sq_off.array = (unsigned)array;
	params->cq_off.head = offsetof(struct shared, cq_head);
	params->cq_off.tail = offsetof(struct shared, cq_tail);
	params->cq_off.ring_mask = offsetof(struct shared, cq_mask);
	params->cq_off.overflow = offsetof(struct shared, cq_overflow);
	params->cq_off.cqes = (unsigned)cqes;
	params->features = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP |
			   IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG | IORING_FEAT_RSRC_TAGS;
}

int sim_uring_setup(unsigned entries, struct io_uring_params *params)
{
	struct kring *ring;
	unsigned number = 0;
	int rc;

	sim_point("io_uring_setup");
	rc = sim_failure("io_uring_setup",
			 (const int[]){ ENOMEM, EMFILE, ENFILE, EPERM, ENOSYS, EINVAL, 0 });
	if (rc < 0)
		return rc;
	if (sim_faults.old && (params->flags & IORING_SETUP_DEFER_TASKRUN))
		return -EINVAL;
	while (number < RINGS_MAX && uring.rings[number].used)
		number++;
	if (number == RINGS_MAX)
		sim_fail("the simulated machine has too few rings");
	ring = &uring.rings[number];
	memset(ring, 0, sizeof(*ring));
	ring->used = true;
	ring->flags = params->flags;
	ring->release_ns = SIM_NEVER;
	params->sq_entries = power_of_two(entries);
	params->cq_entries = power_of_two(params->cq_entries);
	ring_make(ring, params);
	ring->file = sim_file_new(SIM_FILE_RING);
	ring->file->number = number;
	return sim_file_open(ring->file);
}

int sim_uring_mmap(unsigned number, off_t offset, size_t len, void **ret)
{
	struct kring *ring = &uring.rings[number];

	if (offset == IORING_OFF_SQES && len <= ring->sq_entries * sizeof(struct io_uring_sqe))
		*ret = ring->sqes;
	else if (offset == IORING_OFF_SQ_RING && len <= ring->shared_bytes)
		*ret = ring->shared;
	else
		return -EINVAL;
	return 0;
}

static void maybe_release(struct kring *ring)
{
	unsigned i;

	for (i = 0; i < uring.used; i++)
		if (uring.ops[i].ring == ring && uring.ops[i].state != KOP_FREE)
			return;
	ring->release_ns = sim_now_ns() + sim_random(80 * SIM_MS);
	if (ring->release_ns < uring.next_ns)
		uring.next_ns = ring->release_ns;
}

/* What nobody has looked at, or had no room: nobody will any more. */
static void forget_all(struct kring *ring)
{
	const struct shared *shared = ring->shared;
	unsigned i;

	for (i = shared->cq_head; i != shared->cq_tail; i++)
		forget(&ring->cqes[i & shared->cq_mask]);
	for (i = 0; i < ring->backlog_count; i++)
		forget(&ring->backlog[i]);
}

/* close() of a ring waits for nothing: what is in flight ends later, one way or the other. */
void sim_uring_closed(unsigned number)
{
	struct kring *ring = &uring.rings[number];
	unsigned i;

	ring->closed = true;
	ring->file = NULL;
	forget_all(ring);
	maybe_release(ring);
	for (i = 0; i < uring.used; i++) {
		struct kop *op = &uring.ops[i];

		if (op->ring != ring || op->state == KOP_FREE)
			continue;
		if (op->state == KOP_DONE && !op->looks_again) {
			kop_end(op);
		} else if (op->state != KOP_LINKED &&
			   (op->state == KOP_WAITING || op->looks_again || op->multishot ||
			    op->opcode == IORING_OP_TIMEOUT)) {
			op->looks_again = false;
			op->dying = true;
			due(op, sim_now_ns() + sim_random(50 * SIM_MS));
		}
	}
}

static int register_probe(struct io_uring_probe *probe, unsigned count)
{
	unsigned i;

	probe->ops_len = 64;
	for (i = 0; i < probe->ops_len && i < count; i++)
		probe->ops[i].op = (uint8_t)i;
	for (i = 0; i < sizeof(known_opcodes); i++)
		probe->ops[known_opcodes[i]].flags = IO_URING_OP_SUPPORTED;
	return 0;
}

static int register_group(struct kring *ring, const struct io_uring_buf_reg *reg)
{
	unsigned i;

	if (group_find(ring, reg->bgid))
		return -EEXIST;
	for (i = 0; i < GROUPS_MAX && ring->groups[i].used; i++)
		;
	if (i == GROUPS_MAX)
		sim_fail("the simulated machine has too few groups of buffers");
	ring->groups[i] = (struct group){
		.used = true, .number = reg->bgid, .entries = reg->ring_entries,
		.ring = (void *)(uintptr_t)reg->ring_addr,
	};
	return 0;
}

static int unregister_group(struct kring *ring, uint16_t number)
{
	struct group *group = group_find(ring, number);
	unsigned i;

	if (!group)
		return -ENOENT;
	for (i = 0; i < uring.used; i++)
		if (uring.ops[i].state != KOP_FREE && uring.ops[i].ring == ring &&
		    uring.ops[i].opcode == READ_MULTISHOT && uring.ops[i].group == number)
			sim_fail("a group of buffers is taken away from an op that still uses it");
	group->used = false;
	return 0;
}

int sim_uring_register(int fd, unsigned opcode, void *arg, unsigned count)
{
	struct kring *ring;
	int rc;

	sim_point("io_uring_register");
	rc = sim_failure("io_uring_register", (const int[]){ ENOMEM, EINVAL, 0 });
	if (rc < 0)
		return rc;
	ring = ring_of(fd);
	if (!ring)
		return -EBADF;
	switch (opcode) {
	case IORING_REGISTER_PROBE:
		return register_probe(arg, count);
	case IORING_REGISTER_FILES:
		ring->registered = sim_file_get(*(int *)arg);
		if (!ring->registered)
			return -EBADF;
		sim_file_ref(ring->registered);
		return 0;
	case IORING_REGISTER_ENABLE_RINGS:
		ring->enabled = true;
		ring->owner = sim_thread_id(sim_self());
		ring->name = sim_thread_name(sim_self());
		return 0;
	case IORING_REGISTER_PBUF_RING:
		return register_group(ring, arg);
	case IORING_UNREGISTER_PBUF_RING:
		return unregister_group(ring, ((const struct io_uring_buf_reg *)arg)->bgid);
	case IORING_REGISTER_BUFFERS2:
	case IORING_REGISTER_BUFFERS_UPDATE:
		return 0;
	default:
		return -EINVAL;
	}
}

void sim_uring_prepare(void)
{
	uring.rings = calloc(RINGS_MAX, sizeof(uring.rings[0]));
	uring.ops = calloc(KOPS_MAX, sizeof(uring.ops[0]));
	if (!uring.rings || !uring.ops)
		abort();
}

void sim_uring_begin(void)
{
	unsigned i;

	for (i = 0; i < RINGS_MAX; i++)
		uring.rings[i].used = false;
	uring.used = 0;
	uring.next_ns = SIM_NEVER;
	uring.order = 0;
	uring.put_count = 0;
	uring.died = false;
}

void sim_uring_check_end(void)
{
	unsigned i;

	for (i = 0; i < RINGS_MAX; i++)
		if (uring.rings[i].used && !uring.rings[i].closed)
			sim_fail("a ring is left open after the end");
	for (i = 0; i < uring.used; i++)
		if (uring.ops[i].state != KOP_FREE && moves_data(uring.ops[i].opcode))
			sim_fail("the kernel still runs %s after the end",
				 sim_op_name(uring.ops[i].opcode));
}

/* --------------------------------------------------------------- enter -- */

static struct kop *kop_new(void)
{
	unsigned i;

	for (i = 0; i < uring.used; i++)
		if (uring.ops[i].state == KOP_FREE)
			return &uring.ops[i];
	if (uring.used == KOPS_MAX)
		sim_fail("the simulated machine has too few ops");
	return &uring.ops[uring.used++];
}

/* The vector is read at once, and what it names is as good as named by the SQE. */
static void take_vector(struct kop *op)
{
	const struct iovec *iov = (const void *)(uintptr_t)op->addr;

	sim_touch(op->addr, sizeof(*iov) * op->len, "a vector");
	if (op->len != 1)
		sim_fail("the simulated kernel knows no vectors of %u", op->len);
	op->opcode = op->opcode == IORING_OP_READV ? IORING_OP_READ : IORING_OP_WRITE;
	op->addr = (uintptr_t)iov->iov_base;
	op->len = (uint32_t)iov->iov_len;
}

static bool is_multishot(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == READ_MULTISHOT ||
	       (sqe->opcode == IORING_OP_ACCEPT && sqe->ioprio & IORING_ACCEPT_MULTISHOT) ||
	       (sqe->opcode == IORING_OP_POLL_ADD && sqe->len & IORING_POLL_ADD_MULTI);
}

static struct kop *consume(struct kring *ring, const struct io_uring_sqe *sqe)
{
	struct kop *op = kop_new();
	struct sim_call *call = (struct sim_call *)(uintptr_t)sqe->addr3;

	*op = (struct kop){
		.state = KOP_LINKED, .ring = ring, .opcode = sqe->opcode, .sqe_flags = sqe->flags,
		.user_data = sqe->user_data, .addr = sqe->addr, .off = sqe->off, .len = sqe->len,
		.flags = sqe->poll32_events, .next = NONE, .fd = sqe->fd, .call = call,
		.multishot = is_multishot(sqe), .group = sqe->buf_group,
	};
	if (op->opcode == IORING_OP_READV || op->opcode == IORING_OP_WRITEV)
		take_vector(op);
	if (call) {
		if (call->magic != SIM_CALL_MAGIC)
			sim_fail("the kernel is given an SQE of a call that is over");
		if (call->answered && !call->left)
			sim_fail("call %u is submitted after its answer", call->id);
		if (call->wrong)
			sim_fail("call %u is submitted, and should have been refused", call->id);
		call->taken++;
		sim_deadline_taken(call);
		call->flying++;
	}
	ring->calls += call || op->multishot;
	if (ring->calls > sim_inflight_max())
		sim_fail("%u ops are in flight, which is more than inflight_max", ring->calls);
	if (op->opcode == IORING_OP_ASYNC_CANCEL) {
		const struct kop *target = cancel_target(op);

		if (target && target->call)
			sim_deadline_asked(target->call);
	}
	sim_trace("the kernel takes %s%s", describe(op),
		  sqe->flags & IOSQE_IO_LINK ? ", and then what follows" : "");
	return op;
}

/* A chain whose last SQE says that there is more to come. */
static bool is_left_open(const struct kop *head)
{
	while (head->next != NONE)
		head = &uring.ops[head->next];
	return head->sqe_flags & IOSQE_IO_LINK;
}

/* Threads of the kernel's and chains that are left open look their files up late. */
static void take_file(struct kop *op)
{
	if (sim_bend != SIM_BEND_FILE_EARLY && is_for_thread(op))
		return;
	look_up(op);
}

/*
 * All of the chain is there. One SQE that is refused takes the others with it,
 * before any of them is begun, those in front of it, too.
 */
static void start_chain(struct kop *head)
{
	struct kop *op = head;

	if (sim_bend != SIM_BEND_FILE_EARLY && !is_left_open(head))
		take_file(head);
	head->signalled = is_for_thread(head) || is_left_open(head) || writes_file(head->opcode);
	head->in_thread = head->signalled || reads_data(head);
	while (is_known(op->opcode) && op->next != NONE)
		op = &uring.ops[op->next];
	if (is_known(op->opcode) || op == head || sim_bend == SIM_BEND_REFUSED_ALONE) {
		kop_start(head);
		return;
	}
	for (op = head;; op = &uring.ops[op->next]) {
		op->dying = true;
		if (op->next == NONE)
			break;
	}
	due(head, sim_now_ns());
}

/*
 * Consumes up to count SQEs and says how many; a chain ends where the submission
 * ends. Without SUBMIT_ALL, one that is refused ends it, unless a chain goes on.
 */
static unsigned submit(struct kring *ring, unsigned count)
{
	struct kop *op, *before = NULL, *head = NULL;
	struct shared *shared = ring->shared;
	unsigned done = 0;
	bool last;

	while (done < count) {
		const struct io_uring_sqe *sqe =
			&ring->sqes[ring->array[shared->sq_head & shared->sq_mask]];

		op = consume(ring, sqe);
		shared->sq_head++;
		if (before)
			before->next = (uint32_t)(op - uring.ops);
		else
			head = op;
		op->behind = before;
		if (sim_bend == SIM_BEND_FILE_EARLY)
			take_file(op);
		done++;
		last = done == count ||
		       (!is_known(op->opcode) && !(op->sqe_flags & IOSQE_IO_LINK) &&
			!(ring->flags & IORING_SETUP_SUBMIT_ALL));
		before = op->sqe_flags & IOSQE_IO_LINK && !last ? op : NULL;
		if (!before)
			start_chain(head);
		if (last)
			break;
	}
	return done;
}

static int told(int error)
{
	sim_trace("io_uring_enter: %s", sim_result(error));
	return error;
}

/* Said again and again until somebody has heard it. */
static int lost_one(struct kring *ring)
{
	sim_reach(SIM_EBADR);
	ring->broken = true;
	return told(-EBADR);
}

/* The ways of io_uring_enter to refuse a submission; 0: it does not. */
static int refuse(struct kring *ring, unsigned to_submit)
{
	static const int fatal[] = { -EBADFD, -ENXIO, -EOWNERDEAD, -EFAULT, -EINVAL };

	if (ring->lost)
		return lost_one(ring);
	if (!uring.died && sim_chance(sim_faults.fatal)) {
		sim_reach(SIM_FATAL);
		uring.died = ring->broken = true;
		sim_excuse_death();
		return told(fatal[sim_random(sizeof(fatal) / sizeof(fatal[0]))]);
	}
	if (to_submit && sim_chance(sim_faults.eagain)) {
		sim_reach(SIM_EAGAIN);
		sim_deadline_refused();
		return told(-EAGAIN);
	}
	if (sim_chance(sim_faults.ebusy)) {
		sim_reach(SIM_EBUSY);
		sim_deadline_refused();
		return told(-EBUSY);
	}
	return 0;
}

static uint64_t wait_deadline(unsigned flags, const struct io_uring_getevents_arg *arg)
{
	const struct __kernel_timespec *ts;

	if (!(flags & IORING_ENTER_EXT_ARG) || !arg->ts)
		return SIM_NEVER;
	ts = (const void *)(uintptr_t)arg->ts;
	return sim_now_ns() + (uint64_t)ts->tv_sec * SIM_S + (uint64_t)ts->tv_nsec;
}

static int wait_for_cqes(struct kring *ring, unsigned min_complete, uint64_t deadline_ns)
{
	const struct shared *shared = ring->shared;

	for (;;) {
		run_task_work(ring);
		cq_flush(ring);
		if (shared->cq_tail - shared->cq_head >= min_complete)
			return 0;
		if (ring->lost)
			return -EBADR;
		if (sim_chance(sim_faults.eintr)) {
			sim_reach(SIM_EINTR);
			return told(-EINTR);
		}
		if (sim_now_ns() >= deadline_ns) {
			sim_reach(SIM_ETIME);
			return told(-ETIME);
		}
		sim_block(ring, "a CQE", deadline_ns);
	}
}

void sim_uring_break(int fd)
{
	struct kring *ring = ring_of(fd);

	if (ring)
		ring->broken = true;
}

int sim_uring_enter(int fd, unsigned to_submit, unsigned min_complete, unsigned flags, void *arg,
		    size_t arg_size)
{
	struct kring *ring;
	unsigned ready, count;
	uint64_t deadline_ns;
	int rc;

	(void)arg_size;
	sim_point("io_uring_enter");
	ring = ring_of(fd);
	if (!ring)
		return -EBADF;
	if (ring->broken)
		sim_fail("a ring is entered that had a fatal errno");
	if (!ring->enabled || ring->owner != sim_thread_id(sim_self()))
		sim_fail("a ring is entered by a stranger");
	rc = refuse(ring, to_submit);
	if (rc < 0)
		return rc;
	deadline_ns = wait_deadline(flags, arg);
	ready = ring->shared->sq_tail - ring->shared->sq_head;
	count = to_submit < ready ? to_submit : ready;
	if (count && sim_chance(sim_faults.partial)) {
		sim_reach(SIM_PARTIAL);
		count = (unsigned)sim_random(count);
		sim_trace("io_uring_enter takes %u of %u", count, to_submit);
	}
	count = submit(ring, count);
	sim_pass_ns(500);
	if (count < to_submit) {
		sim_deadline_refused();
		return count ? (int)count : -EAGAIN;
	}
	if ((flags & IORING_ENTER_GETEVENTS) || !(ring->flags & IORING_SETUP_DEFER_TASKRUN)) {
		run_task_work(ring);
		cq_flush(ring);
	}
	if ((flags & IORING_ENTER_GETEVENTS) && min_complete)
		rc = wait_for_cqes(ring, min_complete, deadline_ns);
	sim_point("io_uring_enter's return");
	if (count)
		return (int)count;
	return rc == -EBADR ? lost_one(ring) : rc;
}
