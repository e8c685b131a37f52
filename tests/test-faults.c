/* SPDX-License-Identifier: MIT */
/*
 * What io_uring_enter() may say besides "done", and what becomes of a worker
 * that cannot go on. The faults come from ring/sys_fault.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#define CALLERS	4

static struct gyre *open_faulty(unsigned workers, unsigned ring_entries, unsigned inflight_max)
{
	struct gyre_options options = { .size = sizeof(options), .workers = workers,
					.ring_entries = ring_entries,
					.inflight_max = inflight_max };

	gyre__fault_install();
	return test_open(&options);
}

static void close_faulty(struct gyre *rt)
{
	gyre_free(rt);
	gyre__fault_remove();
}

/* --------------------------------------------------------- passing faults -- */

struct reading {
	struct gyre *rt;
	int fd;
	unsigned calls;		/* of each caller, one op or a batch in turn */
};

static void read_one(const struct reading *reading, unsigned offset)
{
	unsigned char byte = 0;
	struct test_io io = { reading->fd, &byte, 1, offset };
	int res;

	expect_status(gyre_call(reading->rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
	expect_bytes(&byte, 1, offset);
}

static void read_ten(const struct reading *reading, unsigned offset)
{
	unsigned char bytes[10];
	struct test_io io[10];
	struct gyre_op ops[10];
	unsigned i;

	for (i = 0; i < 10; i++) {
		io[i] = (struct test_io){ reading->fd, &bytes[i], 1, offset + i };
		ops[i] = test_op(prep_read, &io[i]);
	}
	expect_status(gyre_callv(reading->rt, ops, 10), GYRE_OK);
	for (i = 0; i < 10; i++)
		expect_op(&ops[i], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_bytes(bytes, 10, offset);
}

static void keep_reading(void *arg, unsigned number)
{
	const struct reading *reading = arg;
	uint64_t random = test_seed() + number;
	unsigned i;

	for (i = 0; i < reading->calls; i++)
		if (i % 2)
			read_one(reading, test_random_below(&random, 4000));
		else
			read_ten(reading, test_random_below(&random, 4000));
}

/* All answered, once each, with the right bytes. */
static void read_under_faults(struct gyre *rt, unsigned calls)
{
	struct reading reading = { .rt = rt, .fd = test_file(4096), .calls = calls };
	struct gyre_stats stats;

	test_crew_run(CALLERS, keep_reading, &reading);
	stats = test_stats(rt);
	expect_eq(stats.inflight + stats.queued, 0);
	expect_eq(stats.ops_completed, CALLERS * (calls / 2 * 1 + (calls + 1) / 2 * 10));
	expect_eq(stats.workers_dead, 0);
	close(reading.fd);
}

static const struct {
	const char *name;
	int error;
} passing[] = {
	{ "EINTR", -EINTR },
	{ "EAGAIN", -EAGAIN },
	{ "EBUSY", -EBUSY },
	{ "ENOMEM", -ENOMEM },
};

TEST(enter_that_fails_once_in_passing_loses_nothing)
{
	unsigned i;

	for (i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
		struct gyre *rt = open_faulty(1, 0, 0);

		test_row("%s", passing[i].name);
		gyre__fault_set(GYRE__FAULT_uring_enter, 2, 1, passing[i].error);
		read_under_faults(rt, 10);
		expect_eq(gyre__fault_hits(GYRE__FAULT_uring_enter), 1);
		close_faulty(rt);
	}
}

TEST(enter_that_fails_a_thousand_times_in_passing_loses_nothing)
{
	unsigned i;

	for (i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
		struct gyre *rt = open_faulty(1, 0, 0);

		test_row("%s", passing[i].name);
		gyre__fault_no_sleep();
		gyre__fault_set(GYRE__FAULT_uring_enter, 2, 1000, passing[i].error);
		read_under_faults(rt, 10);
		await(gyre__fault_hits(GYRE__FAULT_uring_enter) == 1000);
		close_faulty(rt);
	}
}

TEST(enter_that_fails_every_other_time_loses_nothing)
{
	struct gyre *rt = open_faulty(2, 0, 0);
	unsigned i;

	gyre__fault_no_sleep();
	for (i = 0; i < 30; i++)
		gyre__fault_set(GYRE__FAULT_uring_enter, 3 + i * 2, 1, passing[i % 4].error);
	read_under_faults(rt, 100);
	expect_gt(gyre__fault_hits(GYRE__FAULT_uring_enter), 0);
	close_faulty(rt);
}

TEST(time_out_still_comes_while_enter_keeps_failing)
{
	struct gyre *rt = open_faulty(1, 0, 0);
	struct test_pipe pipe = test_pipe();
	char byte = 1;
	struct test_io io = { pipe.r, &byte, 1, TEST_IO_HERE };
	struct gyre_op op = test_op(prep_read, &io);

	op.timeout_ns = 5000000;
	gyre__fault_set(GYRE__FAULT_uring_enter, 1, 20, -EINTR);
	expect_status(gyre_callv(rt, &op, 1), GYRE_TIMED_OUT);
	test_pipe_close(&pipe);
	close_faulty(rt);
}

TEST(submission_taken_in_part_is_completed_by_the_next_ones)
{
	struct gyre *rt = open_faulty(1, 0, 0);

	gyre__fault_partial(0, GYRE__FAULT_FOREVER, 1);
	read_under_faults(rt, test_times(100));
	expect_gt(gyre__fault_hits(GYRE__FAULT_uring_enter), 0);
	close_faulty(rt);
}

TEST(chain_taken_in_part_keeps_its_order_or_breaks_and_says_so)
{
	struct gyre *rt = open_faulty(1, 0, 0);
	struct test_pipe pipe = test_pipe();
	char letters[8] = "abcdefg", got[8] = "";
	struct test_io io[7];
	struct gyre_op ops[7];
	unsigned i, written = 0;

	for (i = 0; i < 7; i++) {
		io[i] = (struct test_io){ pipe.w, &letters[i], 1, TEST_IO_HERE };
		ops[i] = test_op(prep_write, &io[i]);
		ops[i].flags = i < 6 ? GYRE_OP_LINK : 0;
	}
	gyre__fault_partial(0, GYRE__FAULT_FOREVER, 3);
	gyre_callv(rt, ops, 7);
	for (i = 0; i < 7; i++)
		written += ops[i].status == GYRE_OK && ops[i].res == 1;
	expect_eq(test_pipe_holds(&pipe), written);
	expect_eq(read(pipe.r, got, 7), written);
	for (i = 0; i < written; i++)
		expect_eq(got[i], letters[i]);
	test_pipe_close(&pipe);
	close_faulty(rt);
}

TEST(full_ring_is_drained_in_parts_and_nothing_is_lost)
{
	struct gyre *rt = open_faulty(1, 4, 8);

	gyre__fault_partial(0, GYRE__FAULT_FOREVER, 2);
	read_under_faults(rt, test_times(100));
	close_faulty(rt);
}

/* ------------------------------------------- what a call needs for itself -- */

struct poor {
	struct gyre *rt;
	enum gyre__fault_call call;
	int error;
	unsigned nth;
	bool met;
};

/* A thread's first call, in want of one thing or another; and the next one, in want of nothing. */
static void call_in_want(void *arg, unsigned number)
{
	struct poor *poor = arg;
	enum gyre_status status;
	struct gyre_op ops[100];
	unsigned i;

	(void)number;
	for (i = 0; i < 100; i++)
		ops[i] = test_op(prep_nop, NULL);
	gyre__fault_set(poor->call, poor->nth, 1, poor->error);
	errno = 0;
	status = gyre_callv(poor->rt, ops, 100);
	poor->met = gyre__fault_hits(poor->call) > 0;
	gyre__fault_clear();
	if (poor->met) {
		expect(status == GYRE_NO_MEMORY || status == GYRE_SYSTEM);
		if (status == GYRE_SYSTEM)
			expect_eq(errno, -poor->error);
	}
	for (i = 0; i < 100; i++)
		expect_op(&ops[i], status, status == GYRE_OK ? 0 : -ECANCELED,
			  status == GYRE_OK ? GYRE_EFFECT_DONE : GYRE_EFFECT_NONE);
	expect_status(gyre_callv(poor->rt, ops, 100), GYRE_OK);
	expect_status(gyre_call(poor->rt, prep_nop, NULL, NULL), GYRE_OK);
}

TEST(first_call_of_a_thread_fails_cleanly_for_want_of_anything_and_the_next_one_works)
{
	static const struct {
		enum gyre__fault_call call;
		int error;
	} wants[] = {
		{ GYRE__FAULT_alloc, -ENOMEM },
		{ GYRE__FAULT_self_set, -ENOMEM },
	};
	struct gyre *rt = open_faulty(1, 0, 0);
	unsigned i;

	for (i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
		struct poor poor = { rt, wants[i].call, wants[i].error, 0, true };

		for (poor.nth = 0; poor.met; poor.nth++) {
			test_row("%s number %u: %s", gyre__fault_name(poor.call), poor.nth,
				 strerror(-poor.error));
			test_crew_run(1, call_in_want, &poor);
		}
		expect_gt(poor.nth, 1);
	}
	close_faulty(rt);
}

TEST(statistics_and_dump_write_nothing_for_want_of_memory)
{
	struct gyre *rt = open_faulty(2, 0, 0);
	int fd = test_file(0);
	unsigned nth;

	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	for (nth = 0; nth < 2; nth++) {
		test_row("allocation %u", nth);
		gyre__fault_set(GYRE__FAULT_alloc, nth, 1, -ENOMEM);
		expect_status(gyre_stats_write(rt, fd, GYRE_FORMAT_JSON), GYRE_NO_MEMORY);
		gyre__fault_clear();
	}
	gyre__fault_set(GYRE__FAULT_alloc, 0, 1, -ENOMEM);
	expect_status(gyre_dump(rt, fd), GYRE_NO_MEMORY);
	gyre__fault_clear();
	expect_eq(lseek(fd, 0, SEEK_END), 0);
	close(fd);
	close_faulty(rt);
}

/* ------------------------------------------------------------- waking up -- */

static struct gyre *open_sleepy(void)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.spin_ns = GYRE_SPIN_NEVER };

	gyre__fault_install();
	return test_open(&options);
}

static void call_three_times(void *arg, unsigned number)
{
	unsigned i;

	(void)number;
	for (i = 0; i < 3; i++)
		expect_status(gyre_call(arg, prep_nop, NULL, NULL), GYRE_OK);
}

TEST(wake_up_that_could_not_be_written_is_written_again)
{
	struct gyre *rt = open_sleepy();
	unsigned skip;

	for (skip = 0; skip < 4; skip++) {
		test_row("number %u", skip);
		gyre__fault_set(GYRE__FAULT_eventfd_write, skip, 3, -EAGAIN);
		test_crew_run(1, call_three_times, rt);
		gyre__fault_clear();
	}
	close_faulty(rt);
}

static void open_without_memory(void *arg, unsigned number)
{
	struct gyre *rt;

	(void)arg;
	(void)number;
	gyre__fault_set(GYRE__FAULT_alloc, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	expect_status(gyre_open(NULL, &rt), GYRE_NO_MEMORY);
	expect_contains(gyre_last_error(), "memory");
	gyre__fault_clear();
}

TEST(thread_that_has_no_memory_to_note_its_failure_is_not_told_of_success)
{
	gyre__fault_install();
	test_crew_run(1, open_without_memory, NULL);
	gyre__fault_remove();
}

/* ---------------------------------------------------------------- death -- */

/* A caller of worker 0 that waits for a pipe which nobody answers. */
struct victims {
	struct gyre *rt;
	struct test_pipe pipe;
	struct gyre_op ops[TEST_CREW_MAX];
	unsigned char bufs[TEST_CREW_MAX];
};

static void wait_for_the_end(void *arg, unsigned number)
{
	struct victims *victims = arg;
	struct gyre_op *op = &victims->ops[number];
	struct test_io io = { victims->pipe.r, &victims->bufs[number], 1, TEST_IO_HERE };

	victims->bufs[number] = 0xee;
	*op = test_op(prep_read, &io);
	op->worker = GYRE_WORKER(0);
	expect_status(gyre_callv(victims->rt, op, 1), GYRE_WORKER_DEAD);
	expect_eq(op->status, GYRE_WORKER_DEAD);
	expect_eq(op->res, -ECANCELED);
	/* The kernel has let go: what comes now stays in the pipe. */
	expect_eq(victims->bufs[number], 0xee);
}

static enum gyre_status nop_on(struct gyre *rt, uint32_t worker, enum gyre_effect *ret_effect)
{
	struct gyre_op op = test_op(prep_nop, NULL);
	enum gyre_status status;

	op.worker = worker;
	status = gyre_callv(rt, &op, 1);
	expect_eq(op.status, status);
	if (ret_effect)
		*ret_effect = op.effect;
	return status;
}

/* Worker NUMBER's next enter, and any later one, fails for good. */
static void kill_worker(struct gyre *rt, unsigned number, int error)
{
	char name[16];
	unsigned dead = (unsigned)test_stat(rt, workers_dead);

	snprintf(name, sizeof(name), "gyre-%u", number);
	gyre__fault_set_on(name, GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, error);
	expect_status(nop_on(rt, GYRE_WORKER(number), NULL), GYRE_WORKER_DEAD);
	await(test_stat(rt, workers_dead) == dead + 1);
}

static const struct {
	const char *name;
	int error;
} fatal[] = {
	{ "EBADR, a completion was lost", -EBADR },
	{ "ENXIO", -ENXIO },
	{ "EBADFD", -EBADFD },
	{ "EOWNERDEAD", -EOWNERDEAD },
	{ "EBADF", -EBADF },
	{ "EEXIST", -EEXIST },
	{ "EFAULT", -EFAULT },
	{ "EINVAL", -EINVAL },
	{ "EOPNOTSUPP", -EOPNOTSUPP },
};

TEST(worker_that_cannot_go_on_dies_alone)
{
	struct gyre_stats stats;
	unsigned i;

	for (i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++) {
		struct gyre *rt = open_faulty(2, 0, 0);

		test_row("%s", fatal[i].name);
		kill_worker(rt, 0, fatal[i].error);
		expect_status(nop_on(rt, GYRE_WORKER(1), NULL), GYRE_OK);
		expect_status(nop_on(rt, 0, NULL), GYRE_OK);
		expect_status(nop_on(rt, GYRE_WORKER(0), NULL), GYRE_WORKER_DEAD);
		expect_contains(gyre_last_error(), "gyre_callv");
		stats = test_stats(rt);
		expect_eq(stats.workers_alive, 1);
		expect_eq(stats.workers_dead, 1);
		close_faulty(rt);
	}
}

TEST(callers_of_a_dying_worker_are_all_told_and_their_memory_is_let_go)
{
	struct victims victims = { .rt = open_faulty(2, 0, 0), .pipe = test_pipe() };
	struct test_crew crew;
	char sound[64] = "";
	unsigned i;

	test_crew_start(&crew, 64, wait_for_the_end, &victims);
	await(test_stat(victims.rt, inflight) == 64);
	kill_worker(victims.rt, 0, -EBADR);
	test_crew_join(&crew);
	for (i = 0; i < 64; i++)
		expect_eq(victims.ops[i].effect, GYRE_EFFECT_UNKNOWN);
	expect_eq(write(victims.pipe.w, sound, 64), 64);
	expect_eq(test_pipe_holds(&victims.pipe), 64);
	expect_status(nop_on(victims.rt, 0, NULL), GYRE_OK);
	expect_eq(test_stat(victims.rt, inflight), 0);
	test_pipe_close(&victims.pipe);
	close_faulty(victims.rt);
}

TEST(ops_that_a_dying_worker_never_submitted_had_no_effect)
{
	struct victims victims = { .rt = open_faulty(2, 0, 3), .pipe = test_pipe() };
	unsigned i, none = 0, unknown = 0;
	struct test_crew crew;

	test_crew_start(&crew, 8, wait_for_the_end, &victims);
	await(test_stat(victims.rt, inflight) == 3 && test_stat(victims.rt, queued) == 5);
	kill_worker(victims.rt, 0, -EBADR);
	test_crew_join(&crew);
	for (i = 0; i < 8; i++) {
		none += victims.ops[i].effect == GYRE_EFFECT_NONE;
		unknown += victims.ops[i].effect == GYRE_EFFECT_UNKNOWN;
	}
	expect_eq(none, 5);
	expect_eq(unknown, 3);
	test_pipe_close(&victims.pipe);
	close_faulty(victims.rt);
}

/* The write was cut off by the first failing enter: the kernel never saw it. */
TEST(write_that_was_never_consumed_is_told_to_have_had_no_effect)
{
	struct gyre *rt = open_faulty(1, 0, 0);
	struct test_pipe pipe = test_pipe();
	char byte = 'x';
	struct test_io io = { pipe.w, &byte, 1, TEST_IO_HERE };
	struct gyre_op op = test_op(prep_write, &io);

	gyre__fault_set(GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	expect_status(gyre_callv(rt, &op, 1), GYRE_WORKER_DEAD);
	expect_op(&op, GYRE_WORKER_DEAD, -ECANCELED, GYRE_EFFECT_NONE);
	expect_eq(test_pipe_holds(&pipe), 0);
	expect_eq(gyre_last_status(), GYRE_WORKER_DEAD);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	test_pipe_close(&pipe);
	close_faulty(rt);
}

/* What is told to be NONE did not happen; what happened is not told to be NONE. */
TEST(effects_at_a_death_in_the_middle_of_work_are_never_a_lie)
{
	uint64_t random = test_seed();
	unsigned round, i;

	for (round = 0; round < test_times(60); round++) {
		struct gyre *rt = open_faulty(1, 8, 64);
		struct test_pipe pipe = test_pipe();
		unsigned ok = 0, unknown = 0;
		struct gyre_op ops[40];
		struct test_io io;
		char byte = 'x';

		io = (struct test_io){ pipe.w, &byte, 1, TEST_IO_HERE };
		for (i = 0; i < 40; i++)
			ops[i] = test_op(prep_write, &io);
		gyre__fault_set(GYRE__FAULT_uring_enter, test_random_below(&random, 8),
				GYRE__FAULT_FOREVER, -EBADR);
		gyre_callv(rt, ops, 40);
		for (i = 0; i < 40; i++) {
			test_row("round %u, op %u", round, i);
			expect(ops[i].status == GYRE_OK || ops[i].status == GYRE_WORKER_DEAD);
			ok += ops[i].status == GYRE_OK && ops[i].res == 1;
			unknown += ops[i].status == GYRE_WORKER_DEAD &&
				   ops[i].effect == GYRE_EFFECT_UNKNOWN;
		}
		expect_ge(test_pipe_holds(&pipe), ok);
		expect_le(test_pipe_holds(&pipe), ok + unknown);
		test_pipe_close(&pipe);
		close_faulty(rt);
	}
}

TEST(chain_in_flight_at_a_death_is_answered_op_by_op)
{
	struct gyre *rt = open_faulty(2, 0, 0);
	struct victims victims = { .rt = rt, .pipe = test_pipe() };
	struct test_io io = { victims.pipe.r, &victims.bufs[0], 1, TEST_IO_HERE };
	struct gyre_op ops[3] = { test_op(prep_nop, NULL), test_op(prep_read, &io),
				  test_op(prep_nop, NULL) };

	ops[0].flags = ops[1].flags = GYRE_OP_LINK;
	ops[0].worker = GYRE_WORKER(0);
	/* Enough enters to begin it; whichever comes after that is the last. */
	ops[0].timeout_ns = 20000000;
	gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 4, GYRE__FAULT_FOREVER, -EBADR);
	gyre_callv(rt, ops, 3);
	expect(ops[1].status == GYRE_WORKER_DEAD || ops[1].status == GYRE_TIMED_OUT);
	expect(ops[2].status != GYRE_OK);
	expect_ne(ops[2].effect, GYRE_EFFECT_DONE);
	test_pipe_close(&victims.pipe);
	close_faulty(rt);
}

TEST(callers_of_a_dead_worker_go_to_the_others)
{
	struct gyre *rt = open_faulty(3, 0, 0);
	unsigned i;

	kill_worker(rt, 0, -EBADR);
	kill_worker(rt, 1, -EBADR);
	for (i = 0; i < 20; i++)
		expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	close_faulty(rt);
}

TEST(when_no_worker_is_left_every_call_says_so_at_once_for_ever)
{
	struct gyre *rt = open_faulty(2, 0, 0);
	enum gyre_effect effect;
	struct gyre_buffer *buffer;
	unsigned i;
	char byte;

	kill_worker(rt, 0, -EBADR);
	kill_worker(rt, 1, -EBADR);
	gyre__fault_clear();
	for (i = 0; i < 10; i++) {
		expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_WORKER_DEAD);
		expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
		expect_contains(gyre_last_error(), "gyre_call");
		expect_status(nop_on(rt, GYRE_WORKER(i % 2), &effect), GYRE_WORKER_DEAD);
		expect_eq(effect, GYRE_EFFECT_NONE);
	}
	expect_eq(test_stat(rt, workers_alive), 0);
	/* The pread family gets either its system call or the one word for it. */
	expect(gyre_pread(rt, 0, &byte, 0, 0) <= 0);
	if (gyre_buffer_get(rt, 4096, &buffer) == GYRE_OK)
		gyre_buffer_put(buffer);
	expect_status(gyre_close(rt), GYRE_OK);
	close_faulty(rt);
}

TEST(runtime_with_a_dead_worker_closes_as_usual)
{
	struct gyre *rt = open_faulty(2, 0, 0);

	kill_worker(rt, 1, -EBADR);
	expect_status(gyre_close(rt), GYRE_OK);
	expect_status(nop_on(rt, 0, NULL), GYRE_CLOSED);
	close_faulty(rt);
}

struct bystanders {
	struct gyre *rt;
	atomic_int stop;
	atomic_uint answered;
};

static void call_worker_one(void *arg, unsigned number)
{
	struct bystanders *bystanders = arg;

	(void)number;
	while (!atomic_load(&bystanders->stop)) {
		expect_status(nop_on(bystanders->rt, GYRE_WORKER(1), NULL), GYRE_OK);
		atomic_fetch_add(&bystanders->answered, 1);
	}
}

TEST(death_of_one_worker_disturbs_no_call_of_another)
{
	struct bystanders bystanders = { .rt = open_faulty(2, 0, 0) };
	struct test_crew crew;
	unsigned before;

	test_crew_start(&crew, 3, call_worker_one, &bystanders);
	await(atomic_load(&bystanders.answered) > 100);
	kill_worker(bystanders.rt, 0, -EBADR);
	before = atomic_load(&bystanders.answered);
	await(atomic_load(&bystanders.answered) > before + 100);
	atomic_store(&bystanders.stop, 1);
	test_crew_join(&crew);
	close_faulty(bystanders.rt);
}

static void any_answer_will_do(void *arg, unsigned number)
{
	struct gyre *rt = arg;
	enum gyre_status status;
	unsigned i;
	int res = 0;

	(void)number;
	for (i = 0; i < 200; i++) {
		status = gyre_call(rt, prep_nop, NULL, &res);
		expect(status == GYRE_OK || status == GYRE_WORKER_DEAD);
		expect_eq(res, 0);
	}
}

TEST(deaths_in_the_middle_of_traffic_leave_no_call_hanging)
{
	unsigned round;

	for (round = 0; round < test_times(20); round++) {
		struct gyre *rt = open_faulty(2, 0, 0);

		gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, round * 7, 1, -EBADR);
		gyre__fault_set_on("gyre-1", GYRE__FAULT_uring_enter, 500 + round * 3, 1, -EBADR);
		test_crew_run(8, any_answer_will_do, rt);
		close_faulty(rt);
	}
}

TEST_MAIN()
