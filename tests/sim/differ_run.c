/* SPDX-License-Identifier: MIT */
/*
 * Runs a program of gyre-differ over a table of system calls: the kernel's or
 * the simulated one's. This file does not know which.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "differ.h"

#define NO_FD		9999		/* that nobody has */
/* user_data of what the end itself sends; ops have theirs from 1. */
#define CANCEL_DATA	1000
#define PATIENCE	50		/* waits of WAIT_NS for what is sure to come */
#define WAIT_NS		(100 * GYRE__NS_PER_MS)
#define UNTOUCHED	0x5a

struct run {
	const struct differ_world *world;
	const struct differ_program *program;
	struct differ_outcome *outcome;
	int ring_fd;
	int fds[DIFFER_THINGS];
	int extra[2];			/* a replacement's, which only the end closes */
	unsigned *sq_head, *sq_tail, *sq_array, *cq_head, *cq_tail;
	unsigned sq_mask, cq_mask, tail;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	void *shared;
	size_t shared_bytes, sqes_bytes;
	unsigned submitted, done, cqes_seen;	/* ops; ops with a CQE; CQEs */
	bool has_cqe[DIFFER_OPS];
	bool after[DIFFER_OPS];		/* in the chain of the op before */
	/* Lent to the kernel. */
	struct lent {
		uint8_t buffers[DIFFER_OPS][DIFFER_BYTES];
		struct __kernel_timespec times[DIFFER_OPS];
	} *lent;
};

/* ------------------------------------------------------------- the ring -- */

static void point_at(struct run *run, const struct io_uring_params *p)
{
	char *base = run->shared;
	unsigned i;

	run->sq_head = (unsigned *)(void *)(base + p->sq_off.head);
	run->sq_tail = (unsigned *)(void *)(base + p->sq_off.tail);
	run->sq_array = (unsigned *)(void *)(base + p->sq_off.array);
	run->sq_mask = *(unsigned *)(void *)(base + p->sq_off.ring_mask);
	run->cq_head = (unsigned *)(void *)(base + p->cq_off.head);
	run->cq_tail = (unsigned *)(void *)(base + p->cq_off.tail);
	run->cq_mask = *(unsigned *)(void *)(base + p->cq_off.ring_mask);
	run->cqes = (struct io_uring_cqe *)(void *)(base + p->cq_off.cqes);
	for (i = 0; i < p->sq_entries; i++)
		run->sq_array[i] = i;
}

static int make_ring(struct run *run)
{
	const struct gyre__sys *sys = run->world->sys;
	struct io_uring_params p = {
		.flags = run->program->setup | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
		.cq_entries = run->program->entries,
	};
	size_t sq_bytes, cq_bytes;
	void *sqes;
	int rc;

	run->ring_fd = sys->uring_setup(run->program->entries, &p);
	if (run->ring_fd < 0)
		return run->ring_fd;
	sq_bytes = p.sq_off.array + p.sq_entries * sizeof(unsigned);
	cq_bytes = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	run->shared_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
	run->sqes_bytes = p.sq_entries * sizeof(struct io_uring_sqe);
	rc = sys->mmap(run->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		       run->ring_fd, IORING_OFF_SQ_RING, &run->shared);
	if (rc == 0)
		rc = sys->mmap(run->sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			       run->ring_fd, IORING_OFF_SQES, &sqes);
	if (rc < 0)
		return rc;
	run->sqes = sqes;
	point_at(run, &p);
	return sys->uring_register(run->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static void note_cqe(struct run *run, const struct io_uring_cqe *cqe)
{
	struct differ_outcome *outcome = run->outcome;
	uint64_t op = cqe->user_data - 1;

	if (cqe->user_data == CANCEL_DATA)
		return;
	if (op >= run->submitted || run->has_cqe[op]) {
		outcome->hangs |= 2;	/* a CQE of nobody's */
		return;
	}
	run->has_cqe[op] = true;
	run->done++;
	outcome->res[op] = cqe->res;
	outcome->flags[op] = cqe->flags;
	if (run->after[op])
		outcome->second[op] = run->has_cqe[op - 1];
	else if (run->program->ops[op].opcode == IORING_OP_ASYNC_CANCEL)
		outcome->second[op] = run->program->ops[op].off < op &&
				      run->has_cqe[run->program->ops[op].off];
}

static void reap(struct run *run)
{
	unsigned head = *run->cq_head, tail = __atomic_load_n(run->cq_tail, __ATOMIC_ACQUIRE);

	for (; head != tail; head++, run->cqes_seen++)
		note_cqe(run, &run->cqes[head & run->cq_mask]);
	__atomic_store_n(run->cq_head, head, __ATOMIC_RELEASE);
}

/* Submits all that is filled. */
static int enter(struct run *run, unsigned min_complete)
{
	struct __kernel_timespec ts = { .tv_nsec = WAIT_NS };
	struct io_uring_getevents_arg arg = { .ts = (uintptr_t)&ts };
	unsigned flags = min_complete ? IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG : 0;
	unsigned to_submit;

	__atomic_store_n(run->sq_tail, run->tail, __ATOMIC_RELEASE);
	to_submit = run->tail - __atomic_load_n(run->sq_head, __ATOMIC_ACQUIRE);
	return run->world->sys->uring_enter(run->ring_fd, to_submit, min_complete, flags,
					    min_complete ? &arg : NULL,
					    min_complete ? sizeof(arg) : 0);
}

static struct io_uring_sqe *next_sqe(struct run *run)
{
	struct io_uring_sqe *sqe = &run->sqes[run->tail++ & run->sq_mask];

	memset(sqe, 0, sizeof(*sqe));
	return sqe;
}

/* ---------------------------------------------------------------- steps -- */

static void fill(struct run *run, unsigned number)
{
	const struct differ_op *op = &run->program->ops[number];
	struct io_uring_sqe *sqe = next_sqe(run);

	sqe->opcode = op->opcode;
	sqe->flags = op->flags;
	sqe->user_data = number + 1;
	sqe->fd = run->fds[op->thing];
	switch (op->opcode) {
	case IORING_OP_READ:
	case IORING_OP_WRITE:
		memset(run->lent->buffers[number], op->opcode == IORING_OP_READ ? UNTOUCHED :
							'A' + (int)number, DIFFER_BYTES);
		if (op->thing == DIFFER_EVENTFD && op->opcode == IORING_OP_WRITE)
			memcpy(run->lent->buffers[number], &(uint64_t){ number + 1 }, 8);
		sqe->addr = (uintptr_t)run->lent->buffers[number];
		sqe->len = op->len;
		sqe->off = op->off;
		break;
	case IORING_OP_POLL_ADD:
		sqe->poll32_events = (uint32_t)op->off;
		break;
	case IORING_OP_TIMEOUT:
		run->lent->times[number] = (struct __kernel_timespec){
			.tv_sec = (int64_t)(op->off / GYRE__NS_PER_S),
			.tv_nsec = (long long)(op->off % GYRE__NS_PER_S),
		};
		sqe->fd = -1;
		sqe->addr = (uintptr_t)&run->lent->times[number];
		sqe->len = 1;
		break;
	case IORING_OP_ASYNC_CANCEL:
		sqe->fd = -1;
		sqe->addr = op->off + 1;
		break;
	default:
		break;
	}
}

/*
 * What stays after an SQE that ended its submission goes right behind: with later
 * steps it could be more than the queue holds, or become a chain with their ops.
 */
static int submit(struct run *run, unsigned count)
{
	unsigned i;
	int rc, more;

	for (i = 0; i < count; i++) {
		run->after[run->submitted] = i > 0 &&
			(run->program->ops[run->submitted - 1].flags & IOSQE_IO_LINK);
		fill(run, run->submitted++);
	}
	rc = more = enter(run, 0);
	while (more > 0 && __atomic_load_n(run->sq_head, __ATOMIC_ACQUIRE) != run->tail)
		more = enter(run, 0);
	return rc;
}

static bool sure_are_done(const struct run *run)
{
	unsigned i;

	for (i = 0; i < run->submitted; i++)
		if (run->program->ops[i].sure && !run->has_cqe[i])
			return false;
	return true;
}

static void wait_for_sure(struct run *run)
{
	unsigned turns = 0;

	reap(run);
	while (!sure_are_done(run)) {
		if (turns++ == PATIENCE) {
			run->outcome->hangs |= 1;
			return;
		}
		enter(run, 1);
		reap(run);
	}
}

static int write_outside(struct run *run, enum differ_thing thing, unsigned len, unsigned step)
{
	uint8_t bytes[DIFFER_BYTES];

	memset(bytes, 'a' + (int)step, sizeof(bytes));
	if (thing == DIFFER_EVENTFD)
		memcpy(bytes, &(uint64_t){ 100 + step }, 8);
	return (int)run->world->sys->write(run->fds[thing], bytes, len);
}

static int replace(struct run *run, enum differ_thing thing)
{
	int number = run->fds[thing], rc;

	run->world->sys->close(number);
	run->world->between();		/* the number is nobody's for a while */
	rc = run->world->pipe(run->extra);
	return rc < 0 ? rc : run->extra[0] == number ? 0 : -EEXIST;
}

static int run_step(struct run *run, unsigned number)
{
	const struct differ_step *step = &run->program->steps[number];

	switch (step->what) {
	case DIFFER_SUBMIT:
		return submit(run, step->number);
	case DIFFER_WAIT:
		wait_for_sure(run);
		return 0;
	case DIFFER_WRITE:
		return write_outside(run, step->thing, step->number, number);
	case DIFFER_CLOSE:
		return run->world->sys->close(run->fds[step->thing]);
	case DIFFER_REPLACE:
		return replace(run, step->thing);
	}
	return -EINVAL;
}

/* -------------------------------------------------------------- the end -- */

/* Was its descriptor closed by a step? */
static bool is_closed(const struct run *run, enum differ_thing thing)
{
	unsigned i;

	for (i = 0; i < run->program->step_count; i++)
		if (run->program->steps[i].what >= DIFFER_CLOSE &&
		    run->program->steps[i].thing == thing)
			return true;
	return false;
}

static void close_thing(struct run *run, enum differ_thing thing)
{
	if (run->fds[thing] >= 0 && !is_closed(run, thing))
		run->world->sys->close(run->fds[thing]);
	run->fds[thing] = -1;
}

/* Whatever still waits is cancelled, again and again, until every op has its CQE. */
static void end_ops(struct run *run)
{
	unsigned turns, i;

	if (run->program->ends_by_close) {
		close_thing(run, DIFFER_PIPE_A_W);
		run->world->between();		/* its ops end, and others begin */
		close_thing(run, DIFFER_PIPE_B_W);
	}
	for (turns = 0; run->done < run->submitted && turns < PATIENCE; turns++) {
		for (i = 0; i < run->submitted; i++) {
			struct io_uring_sqe *sqe;

			if (run->has_cqe[i])
				continue;
			sqe = next_sqe(run);
			sqe->opcode = IORING_OP_ASYNC_CANCEL;
			sqe->fd = -1;
			sqe->addr = i + 1;
			sqe->user_data = CANCEL_DATA;
			enter(run, 1);
			reap(run);
		}
		if (run->done < run->submitted)
			enter(run, 1);
		reap(run);
	}
	if (run->done < run->submitted)
		run->outcome->hangs |= 4;
}

static bool is_readable(struct run *run, enum differ_thing thing)
{
	struct pollfd pollfd = { .fd = run->fds[thing], .events = POLLIN };

	return !is_closed(run, thing) && run->world->sys->poll(&pollfd, 1, 0) == 1 &&
	       (pollfd.revents & POLLIN);
}

static void look_at_what_is_left(struct run *run)
{
	const struct gyre__sys *sys = run->world->sys;
	struct differ_outcome *outcome = run->outcome;
	unsigned i;

	for (i = 0; i < run->program->op_count; i++)
		if (run->program->ops[i].opcode == IORING_OP_READ)
			memcpy(outcome->read[i], run->lent->buffers[i], DIFFER_BYTES);
	for (i = 0; i < 2; i++)
		if (is_readable(run, i ? DIFFER_PIPE_B_R : DIFFER_PIPE_A_R))
			outcome->pipe_len[i] = (int32_t)sys->read(
				run->fds[i ? DIFFER_PIPE_B_R : DIFFER_PIPE_A_R], outcome->pipe[i],
				sizeof(outcome->pipe[i]));
	if (is_readable(run, DIFFER_EVENTFD))
		sys->read(run->fds[DIFFER_EVENTFD], &outcome->count, sizeof(outcome->count));
	outcome->data_len = -1;
	if (!is_closed(run, DIFFER_DATA))
		outcome->data_len = (int32_t)sys->pread(run->fds[DIFFER_DATA], outcome->data,
							sizeof(outcome->data), 0);
}

static void clean_up(struct run *run)
{
	const struct gyre__sys *sys = run->world->sys;
	unsigned i;

	for (i = 0; i < DIFFER_NOTHING; i++)
		close_thing(run, (enum differ_thing)i);
	for (i = 0; i < 2; i++)
		if (run->extra[i] >= 0)
			sys->close(run->extra[i]);
	if (run->sqes)
		sys->munmap(run->sqes, run->sqes_bytes);
	if (run->shared)
		sys->munmap(run->shared, run->shared_bytes);
	if (run->ring_fd >= 0)
		sys->close(run->ring_fd);
	sys->free(run->lent);
}

static int make_things(struct run *run)
{
	uint8_t data[DIFFER_FILE_LEN];
	unsigned i;
	int rc;

	for (i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)('0' + i % 10);
	rc = run->world->pipe(&run->fds[DIFFER_PIPE_A_R]);
	if (rc == 0)
		rc = run->world->pipe(&run->fds[DIFFER_PIPE_B_R]);
	if (rc < 0)
		return rc;
	run->fds[DIFFER_EVENTFD] = run->world->sys->eventfd();
	run->fds[DIFFER_DATA] = run->world->file(data, sizeof(data), run->program->on_disk);
	run->fds[DIFFER_NOTHING] = NO_FD;
	if (run->fds[DIFFER_EVENTFD] < 0)
		return run->fds[DIFFER_EVENTFD];
	return run->fds[DIFFER_DATA] < 0 ? run->fds[DIFFER_DATA] : 0;
}

int differ_run(const struct differ_world *world, const struct differ_program *program,
	       struct differ_outcome *ret)
{
	struct run run = { .world = world, .program = program, .outcome = ret, .ring_fd = -1,
			   .extra = { -1, -1 } };
	unsigned i;
	int rc;

	memset(ret, 0, sizeof(*ret));
	memset(run.fds, -1, sizeof(run.fds));
	run.lent = world->sys->alloc(sizeof(*run.lent), 16);
	rc = run.lent ? make_ring(&run) : -ENOMEM;
	if (rc == 0)
		rc = make_things(&run);
	if (rc == 0) {
		for (i = 0; i < program->step_count; i++) {
			world->between();
			ret->steps[i] = run_step(&run, i);
			ret->taken[i] = __atomic_load_n(run.sq_head, __ATOMIC_ACQUIRE);
		}
		world->between();
		end_ops(&run);
		look_at_what_is_left(&run);
	}
	clean_up(&run);
	return rc;
}
