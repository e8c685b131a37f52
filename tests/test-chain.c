/* SPDX-License-Identifier: MIT */
/*
 * Chains whose course somebody else changes: the kernel takes a part of one, a
 * cancel comes early or while its batch moves to another worker, room is short.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "lib/runtime.h"
#include "ring/sys_fault.h"

#define MS	UINT64_C(1000000)
#define LONG	(5000 * MS)	/* never comes, unless what is tested is broken */

/*
 * A table on top of the faults': a clock that can be stopped, a look at what is
 * submitted, and a kernel that takes no submission but goes on completing.
 */
static const struct gyre__sys *below;
static struct gyre__sys watched;
static _Thread_local void (*on_clock)(void);	/* at the calling thread's next look, once */
static _Atomic uint64_t stopped_ns;		/* not zero: it is always then */
static struct cut *_Atomic to_cut;
static struct gyre__ring *_Atomic to_count;
static atomic_uint cancels_sent;

static uint64_t watched_now_ns(void)
{
	void (*fn)(void) = on_clock;
	uint64_t stopped = atomic_load(&stopped_ns);

	on_clock = NULL;
	if (fn)
		fn();
	return stopped ? stopped : below->now_ns();
}

static int cut_enter(struct cut *cut, int fd, unsigned to_submit);

static int watched_uring_enter(int fd, unsigned to_submit, unsigned min_complete, unsigned flags,
			       void *arg, size_t arg_size)
{
	struct cut *cut = atomic_load(&to_cut);
	const struct gyre__ring *ring = atomic_load(&to_count);
	const struct io_uring_sq *sq;
	unsigned i, head;
	int rc;

	if (cut && (rc = cut_enter(cut, fd, to_submit)) < 0)
		return rc;
	if (ring && fd == ring->uring.ring_fd) {
		sq = &ring->uring.sq;
		head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
		for (i = 0; i < to_submit; i++)
			if (sq->sqes[(head + i) & sq->ring_mask].opcode == IORING_OP_ASYNC_CANCEL)
				atomic_fetch_add(&cancels_sent, 1);
	}
	return below->uring_enter(fd, to_submit, min_complete, flags, arg, arg_size);
}

static void watch(void)
{
	gyre__fault_install();
	below = gyre__sys;
	watched = *below;
	watched.now_ns = watched_now_ns;
	watched.uring_enter = watched_uring_enter;
	gyre__sys = &watched;
}

static void unwatch(void)
{
	atomic_store(&stopped_ns, 0);
	atomic_store(&to_cut, NULL);
	atomic_store(&to_count, NULL);
	gyre__sys = below;
	gyre__fault_remove();
}

/* --------------------------------------------- cut by a partial submit -- */

/*
 * Three writes to a pipe, of which the kernel takes two. The third is cut off
 * and is to go in as a NOP, but the kernel refuses it for a while, and
 * meanwhile something else happens to the op.
 */
struct cut {
	struct gyre *rt;
	struct gyre__ring *ring;
	struct test_pipe pipe;
	char letters[3];
	struct test_io io[3];
	struct gyre_op ops[3];
	enum gyre_status status;
	pthread_t caller;

	/* The worker's. */
	enum { WHOLE, IN_PART, REFUSING, OVER } stage;
	uint64_t refuse_until_ns;
	bool (*over)(struct cut *cut);	/* the kernel may take the rest */
	atomic_bool refusing, dead, told;
};

/* The first two have been answered; the one that was cut off counts as none. */
static bool two_are_done(const struct gyre__ring *ring)
{
	return ring->completed_calls == 2;
}

/* How many of these entries go before the chain's: the worker's wait for its inbox may. */
static unsigned before_the_chain(const struct gyre__ring *ring, unsigned to_submit)
{
	const struct io_uring_sq *sq = &ring->uring.sq;
	unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
	unsigned i;

	for (i = 0; i < to_submit; i++)
		if (sq->sqes[(head + i) & sq->ring_mask].opcode == IORING_OP_WRITE)
			break;
	return i;
}

/* On the worker's own thread, which owns what is looked at. Negative: what enter says. */
static int cut_enter(struct cut *cut, int fd, unsigned to_submit)
{
	unsigned before;

	if (fd != cut->ring->uring.ring_fd || cut->stage == OVER)
		return 0;
	if (cut->stage == WHOLE) {
		before = before_the_chain(cut->ring, to_submit);
		if (before < to_submit) {
			gyre__fault_partial(0, 1, before + 2);
			cut->stage = IN_PART;
		}
		return 0;
	}
	if (cut->stage == IN_PART && two_are_done(cut->ring)) {
		cut->refuse_until_ns = below->now_ns() + 60 * MS;
		cut->stage = REFUSING;
		atomic_store(&stopped_ns, 0);
		atomic_store(&cut->refusing, true);
	}
	if (atomic_load(&cut->dead)) {
		cut->stage = OVER;
		return -EBADR;
	}
	if (cut->stage == REFUSING && cut->over(cut)) {
		cut->stage = OVER;
		return 0;
	}
	below->uring_enter(fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
	return -EAGAIN;
}

static void *call_cut(void *arg)
{
	struct cut *cut = arg;

	cut->status = gyre_callv(cut->rt, cut->ops, 3);
	return NULL;
}

static void cut_start(struct cut *cut, bool (*over)(struct cut *cut), uint64_t timeout_ns,
		      uint64_t drain_ns)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.spin_ns = GYRE_SPIN_NEVER, .drain_ns = drain_ns };
	unsigned i;

	memset(cut, 0, sizeof(*cut));
	watch();
	cut->rt = test_open(&options);
	cut->ring = &cut->rt->crew->worker[0]->ring;
	cut->pipe = test_pipe();
	cut->over = over;
	for (i = 0; i < 3; i++) {
		cut->letters[i] = (char)('a' + i);
		cut->io[i] = (struct test_io){ cut->pipe.w, &cut->letters[i], 1, TEST_IO_HERE };
		cut->ops[i] = test_op(prep_write, &cut->io[i]);
		cut->ops[i].flags = i < 2 ? GYRE_OP_LINK : 0;
	}
	cut->ops[0].timeout_ns = timeout_ns;
	if (timeout_ns)		/* none of it passes before the first two are done */
		atomic_store(&stopped_ns, below->now_ns());
	atomic_store(&to_cut, cut);	/* from here on the worker looks at it */
	expect_eq(pthread_create(&cut->caller, NULL, call_cut, cut), 0);
	await(atomic_load(&cut->refusing));
}

/* The first two happened; the third never did, whatever was wanted of it. */
static void cut_end(struct cut *cut, enum gyre_status third)
{
	struct gyre_stats stats;

	pthread_join(cut->caller, NULL);
	expect_op(&cut->ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_op(&cut->ops[1], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_op(&cut->ops[2], third, -ECANCELED, GYRE_EFFECT_NONE);
	expect_status(cut->status, third);
	expect_eq(test_pipe_holds(&cut->pipe), 2);
	expect_status(gyre_close(cut->rt), GYRE_OK);
	stats = test_stats(cut->rt);
	expect_eq(stats.ops_submitted, 2);
	expect_eq(stats.ops_completed, 2);
	expect_eq(stats.ops_cancelled, third == GYRE_CANCELLED);
	expect_eq(stats.ops_timed_out, 0);
	expect_eq(stats.inflight + stats.queued, 0);
	test_pipe_close(&cut->pipe);
	gyre_free(cut->rt);
	unwatch();
}

static bool after_a_while(struct cut *cut)
{
	return below->now_ns() >= cut->refuse_until_ns;
}

static bool after_it_is_told(struct cut *cut)
{
	return atomic_load(&cut->told);
}

TEST(op_cut_off_its_chain_is_cancelled_without_effect_and_was_never_submitted)
{
	struct cut cut;

	cut_start(&cut, after_a_while, 0, 0);
	cut_end(&cut, GYRE_CANCELLED);
}

TEST(op_cut_off_its_chain_and_then_cancelled_is_still_told_as_never_submitted)
{
	struct cut cut;

	cut_start(&cut, after_it_is_told, 0, 0);
	expect_status(gyre_op_cancel(cut.rt, &cut.ops[2]), GYRE_OK);
	atomic_store(&cut.told, true);
	cut_end(&cut, GYRE_CANCELLED);
}

TEST(op_cut_off_its_chain_is_not_timed_out_when_its_chains_time_comes)
{
	struct cut cut;

	cut_start(&cut, after_a_while, 5 * MS, 0);
	cut_end(&cut, GYRE_CANCELLED);
}

/* Everything has been asked to end, and the worker has gone round once more. */
static bool after_the_drain(struct cut *cut)
{
	return cut->ring->phase == GYRE__RING_CANCELLING;
}

TEST(op_cut_off_its_chain_that_meets_close_is_still_told_as_never_submitted)
{
	struct cut cut;

	cut_start(&cut, after_the_drain, 0, 10 * MS);
	expect_status(gyre_close(cut.rt), GYRE_OK);
	cut_end(&cut, GYRE_CANCELLED);
}

TEST(op_cut_off_its_chain_dies_with_its_worker_as_never_submitted)
{
	struct cut cut;

	cut_start(&cut, after_it_is_told, 0, 0);
	atomic_store(&cut.dead, true);
	cut_end(&cut, GYRE_CANCELLED);
}

/* ----------------------------------------- a cancel on a moving batch -- */

/*
 * The caller looks at the clock when its op has a ticket for worker 0 and is not
 * pushed yet. There and then the op is cancelled, and worker 0 dies.
 */
static struct moving {
	struct gyre *rt;
	struct test_pipe pipe;
	struct gyre_op op;
	enum gyre_status cancelled;
} moving;

static void *cancel_and_kill(void *arg)
{
	struct gyre_op last = test_op(prep_nop, NULL);

	(void)arg;
	moving.cancelled = gyre_op_cancel(moving.rt, &moving.op);
	gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	last.worker = GYRE_WORKER(0);
	expect_status(gyre_callv(moving.rt, &last, 1), GYRE_WORKER_DEAD);
	await(test_stat(moving.rt, workers_dead) == 1);
	return NULL;
}

static void let_it_be_cancelled(void)
{
	pthread_t thread;

	expect_eq(pthread_create(&thread, NULL, cancel_and_kill, NULL), 0);
	pthread_join(thread, NULL);
}

static void prep_note_worker(struct io_uring_sqe *sqe, void *arg)
{
	*(int *)arg = gyre_current_worker();
	io_uring_prep_nop(sqe);
}

static void call_and_move(void *arg, unsigned number)
{
	struct test_io *io = arg;
	int worker = -1;

	(void)number;
	expect_status(gyre_call(moving.rt, prep_note_worker, &worker, NULL), GYRE_OK);
	if (worker != 0)
		return;		/* another's turn: see below */
	moving.op = test_op(prep_read, io);
	moving.op.timeout_ns = LONG;
	on_clock = let_it_be_cancelled;
	expect_status(gyre_callv(moving.rt, &moving.op, 1), GYRE_CANCELLED);
	expect_eq(moving.op.status, GYRE_CANCELLED);
}

TEST(cancel_that_was_granted_survives_the_move_of_its_batch_to_another_worker)
{
	struct test_io io;
	char byte;

	watch();
	moving.rt = test_open_workers(2);
	moving.pipe = test_pipe();
	moving.cancelled = GYRE_INVALID;
	io = (struct test_io){ moving.pipe.r, &byte, 1, TEST_IO_HERE };
	while (moving.cancelled == GYRE_INVALID)	/* new threads start with either worker */
		test_crew_run(1, call_and_move, &io);
	expect_status(moving.cancelled, GYRE_OK);
	expect_eq(test_stat(moving.rt, workers_dead), 1);
	test_pipe_close(&moving.pipe);
	gyre_free(moving.rt);
	unwatch();
}

/* -------------------------------------- a cancel that was asked too early -- */

#define LINKS	3

struct early {
	struct gyre *rt;
	struct test_pipe pipes[LINKS];
	char bytes[LINKS];
	struct test_io io[LINKS];
	struct gyre_op ops[LINKS];
	enum gyre_status status;
	atomic_bool answered;
};

static void *call_early(void *arg)
{
	struct early *early = arg;

	early->status = gyre_callv(early->rt, early->ops, LINKS);
	atomic_store(&early->answered, true);
	return NULL;
}

/*
 * The chain waits for its first pipe when the end of op number TARGET is asked
 * for. The clock stands still, so that no second try comes from the mere passing
 * of time: one has to be sent when the op's turn comes. As that one may still be
 * a little early for the kernel, the clock goes on after it.
 */
static void cancel_early(unsigned target)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.spin_ns = GYRE_SPIN_NEVER };
	struct early early = { .answered = false };
	unsigned sent = atomic_load(&cancels_sent);
	pthread_t caller;
	unsigned i;

	watch();
	early.rt = test_open(&options);
	atomic_store(&to_count, &early.rt->crew->worker[0]->ring);
	for (i = 0; i < LINKS; i++) {
		early.pipes[i] = test_pipe();
		early.io[i] = (struct test_io){ early.pipes[i].r, &early.bytes[i], 1,
						TEST_IO_HERE };
		early.ops[i] = test_op(prep_read, &early.io[i]);
		early.ops[i].flags = i + 1 < LINKS ? GYRE_OP_LINK : 0;
	}
	expect_eq(pthread_create(&caller, NULL, call_early, &early), 0);
	await(test_stat(early.rt, inflight) == LINKS);
	atomic_store(&stopped_ns, below->now_ns());
	expect_status(gyre_op_cancel(early.rt, &early.ops[target]), GYRE_OK);
	/* Behind the cancel; twice, so that the first one has been through the kernel. */
	for (i = 0; i < 2; i++)
		expect_status(gyre_call(early.rt, prep_nop, NULL, NULL), GYRE_OK);
	expect_eq(atomic_load(&cancels_sent), sent + 1);
	for (i = 0; i < target; i++) {
		expect(!atomic_load(&early.answered));
		expect_eq(write(early.pipes[i].w, "x", 1), 1);
	}
	await(atomic_load(&cancels_sent) > sent + 1);
	atomic_store(&stopped_ns, 0);
	await(atomic_load(&early.answered));
	pthread_join(caller, NULL);
	expect_status(early.status, GYRE_CANCELLED);
	for (i = 0; i < LINKS; i++) {
		test_row("op %u of %u, number %u cancelled", i, LINKS, target);
		if (i < target)
			expect_op(&early.ops[i], GYRE_OK, 1, GYRE_EFFECT_DONE);
		else
			expect_op(&early.ops[i], GYRE_CANCELLED, -ECANCELED,
				  i == target ? GYRE_EFFECT_UNKNOWN : GYRE_EFFECT_NONE);
		test_pipe_close(&early.pipes[i]);
	}
	gyre_free(early.rt);
	unwatch();
}

TEST(cancel_asked_early_for_a_later_op_of_a_chain_ends_it_when_its_turn_comes)
{
	unsigned round, target;

	for (round = 0; round < test_times(20); round++)
		for (target = 1; target < LINKS; target++)
			cancel_early(target);
}

/* ------------------------------------------------------- room is short -- */

#define ROOM	4

struct crowd {
	struct gyre *rt;
	struct test_pipe pipe;
	struct test_crew crew;
};

static void read_the_pipe(void *arg, unsigned number)
{
	struct crowd *crowd = arg;
	char byte;
	struct test_io io = { crowd->pipe.r, &byte, 1, TEST_IO_HERE };
	int res;

	(void)number;
	expect_status(gyre_call(crowd->rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
}

/* A worker with room for two ops more. */
static void crowd_open(struct crowd *crowd)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.inflight_max = ROOM };

	crowd->rt = test_open(&options);
	crowd->pipe = test_pipe();
	test_crew_start(&crowd->crew, ROOM - 2, read_the_pipe, crowd);
	await(test_stat(crowd->rt, inflight) == ROOM - 2);
}

static void crowd_disperse(struct crowd *crowd)
{
	expect_eq(write(crowd->pipe.w, "xx", ROOM - 2), ROOM - 2);
	test_crew_join(&crowd->crew);
}

static void crowd_close(struct crowd *crowd)
{
	test_pipe_close(&crowd->pipe);
	gyre_free(crowd->rt);
}

TEST(nowait_chain_with_room_for_a_part_of_it_is_busy_at_once)
{
	struct gyre_op ops[3];
	struct crowd crowd;
	unsigned i;

	crowd_open(&crowd);
	for (i = 0; i < 3; i++) {
		ops[i] = test_op(prep_nop, NULL);
		ops[i].flags = GYRE_OP_NOWAIT | (i < 2 ? GYRE_OP_LINK : 0);
	}
	ops[0].timeout_ns = LONG;	/* what waits ends in another way */
	expect_status(gyre_callv(crowd.rt, ops, 3), GYRE_BUSY);
	expect_op(&ops[0], GYRE_BUSY, -ECANCELED, GYRE_EFFECT_NONE);
	expect_op(&ops[1], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	expect_op(&ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	/* One that fits does not mind. */
	expect_status(gyre_callv(crowd.rt, &ops[1], 2), GYRE_OK);
	crowd_disperse(&crowd);
	ops[0].timeout_ns = 0;
	expect_status(gyre_callv(crowd.rt, ops, 3), GYRE_OK);
	crowd_close(&crowd);
}

static void call_plain_chain(void *arg, unsigned number)
{
	struct gyre_op ops[3];
	unsigned i;

	(void)number;
	for (i = 0; i < 3; i++) {
		ops[i] = test_op(prep_nop, NULL);
		ops[i].flags = i < 2 ? GYRE_OP_LINK : 0;
	}
	expect_status(gyre_callv(arg, ops, 3), GYRE_OK);
}

TEST(nowait_op_behind_a_plain_chain_that_waits_for_room_is_busy_at_once)
{
	struct gyre_op op = test_op(prep_nop, NULL);
	struct test_crew waiting;
	struct crowd crowd;

	crowd_open(&crowd);
	test_crew_start(&waiting, 1, call_plain_chain, crowd.rt);
	await(test_stat(crowd.rt, queued) == 3);
	op.flags = GYRE_OP_NOWAIT;
	op.timeout_ns = LONG;
	expect_status(gyre_callv(crowd.rt, &op, 1), GYRE_BUSY);
	expect_op(&op, GYRE_BUSY, -ECANCELED, GYRE_EFFECT_NONE);
	expect_eq(test_stat(crowd.rt, queued), 3);
	crowd_disperse(&crowd);
	test_crew_join(&waiting);
	crowd_close(&crowd);
}

TEST_MAIN()
