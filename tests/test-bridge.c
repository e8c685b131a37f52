/* SPDX-License-Identifier: MIT */
/* gyre_call and gyre_callv: callers, batches, chains, room. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "helpers.h"

/* ---------------------------------------------------------- one call -- */

TEST(call_answers_with_the_kernels_result)
{
	struct gyre *rt = test_open_workers(1);
	int fd = test_file(100), res = 77;
	char buf[100];
	struct test_io io = { fd, buf, 60, 10 };

	expect_status(gyre_call(rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 60);
	expect_bytes(buf, 60, 10);
	expect_eq(gyre_last_status(), GYRE_OK);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
	close(fd);
	gyre_free(rt);
}

TEST(call_answers_ok_with_the_kernels_error)
{
	struct gyre *rt = test_open_workers(1);
	int res = 77;
	char buf[1];
	struct test_io io = { test_closed_fd(), buf, 1, 0 };

	expect_status(gyre_call(rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, -EBADF);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
	gyre_free(rt);
}

TEST(call_does_without_a_place_for_the_result)
{
	struct gyre *rt = test_open_workers(1);

	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	gyre_free(rt);
}

static void prep_sets_user_data(struct io_uring_sqe *sqe, void *arg)
{
	io_uring_prep_nop(sqe);
	sqe->user_data = *(uint64_t *)arg;
}

TEST(user_data_of_the_closure_is_overwritten_and_the_call_answered)
{
	static uint64_t tried[] = { 0, 1, UINT64_C(1) << 32, UINT64_MAX };
	struct gyre *rt = test_open_workers(1);
	unsigned i;
	int res;

	for (i = 0; i < 4; i++) {
		res = 77;
		expect_status(gyre_call(rt, prep_sets_user_data, &tried[i], &res), GYRE_OK);
		expect_eq(res, 0);
	}
	gyre_free(rt);
}

TEST(calls_in_a_row_from_one_thread_use_one_worker)
{
	struct gyre *rt = test_open_workers(2);
	struct test_witness first, later;
	unsigned i;

	expect_status(gyre_call(rt, prep_witness, &first, NULL), GYRE_OK);
	for (i = 0; i < 1000; i++) {
		expect_status(gyre_call(rt, prep_witness, &later, NULL), GYRE_OK);
		expect_eq(later.tid, first.tid);
		expect_str(later.name, first.name);
	}
	gyre_free(rt);
}

TEST(op_runs_on_the_worker_that_it_names)
{
	struct gyre *rt = test_open_workers(3);
	static const char *const names[] = { "gyre-0", "gyre-1", "gyre-2" };
	struct test_witness witness;
	struct gyre_op op;
	unsigned i;

	for (i = 0; i < 30; i++) {
		op = test_op(prep_witness, &witness);
		op.worker = GYRE_WORKER(i % 3);
		expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
		expect_str(witness.name, names[i % 3]);
	}
	gyre_free(rt);
}

/* ----------------------------------------------------------- callers -- */

struct readers {
	struct gyre *rt;
	int fd;
	unsigned calls;		/* of each caller */
};

static void read_everywhere(void *arg, unsigned number)
{
	const struct readers *readers = arg;
	uint64_t random = test_seed() + number;
	unsigned char buf[64];
	unsigned i;
	int res;

	for (i = 0; i < readers->calls; i++) {
		unsigned offset = test_random_below(&random, 60000);
		unsigned len = 1 + test_random_below(&random, sizeof(buf));
		struct test_io io = { readers->fd, buf, len, offset };

		memset(buf, 0, sizeof(buf));
		expect_status(gyre_call(readers->rt, prep_read, &io, &res), GYRE_OK);
		expect_eq(res, len);
		expect_bytes(buf, len, offset);
	}
}

/* Each reads its own bytes: a reply that went astray would be seen. */
static void many_callers_read(unsigned callers, unsigned workers, uint64_t spin_ns)
{
	struct gyre_options options = { .size = sizeof(options), .workers = workers,
					.spin_ns = spin_ns };
	struct readers readers = { .rt = test_open(&options), .fd = test_file(65536) };
	struct gyre_stats stats;

	readers.calls = test_times(3000) / callers + 1;
	test_crew_run(callers, read_everywhere, &readers);
	stats = test_stats(readers.rt);
	expect_eq(stats.calls, readers.calls * callers);
	expect_eq(stats.ops_submitted, readers.calls * callers);
	expect_eq(stats.ops_completed, readers.calls * callers);
	expect_eq(stats.inflight + stats.queued, 0);
	close(readers.fd);
	gyre_free(readers.rt);
}

TEST(one_caller_gets_its_own_answers)
{
	many_callers_read(1, 1, 0);
}

TEST(two_callers_get_their_own_answers)
{
	many_callers_read(2, 1, 0);
}

TEST(sixteen_callers_get_their_own_answers)
{
	many_callers_read(16, 2, 0);
}

TEST(sixty_four_callers_get_their_own_answers)
{
	many_callers_read(64, 2, 0);
}

TEST(sixty_four_callers_of_one_worker_get_their_own_answers)
{
	many_callers_read(64, 1, 0);
}

TEST(callers_that_never_spin_get_their_own_answers)
{
	many_callers_read(8, 2, GYRE_SPIN_NEVER);
}

TEST(callers_that_spin_for_long_get_their_own_answers)
{
	many_callers_read(4, 2, 1000000);
}

struct sleepers {
	struct gyre *rt;
	struct __kernel_timespec time;
};

static void sleep_on_the_worker(void *arg, unsigned number)
{
	struct sleepers *sleepers = arg;
	int res;

	(void)number;
	expect_status(gyre_call(sleepers->rt, prep_timeout, &sleepers->time, &res), GYRE_OK);
	expect_eq(res, -ETIME);
}

/*
 * Together, not one after the other: all twelve are seen in flight at once.
 * Only a machine that stands still for 250 ms could miss it, so there are a few
 * tries; with head-of-line blocking none of them would do.
 */
TEST(twelve_callers_sleep_on_one_worker_at_the_same_time)
{
	struct sleepers sleepers = { test_open_workers(1), { .tv_nsec = 250 * 1000 * 1000 } };
	uint64_t most = 0, now;
	unsigned try;

	for (try = 0; try < 5 && most < 12; try++) {
		struct test_crew crew;

		test_crew_start(&crew, 12, sleep_on_the_worker, &sleepers);
		do {
			now = test_stat(sleepers.rt, inflight);
			most = now > most ? now : most;
		} while (now < 12 && test_stat(sleepers.rt, ops_completed) < (try + 1) * 12);
		test_crew_join(&crew);
	}
	expect_eq(most, 12);
	gyre_free(sleepers.rt);
}

/* ----------------------------------------------------------- batches -- */

struct numbered {
	atomic_uint *next;	/* how many preps of the batch have run */
	int fd;
	unsigned number;
	unsigned ran;		/* how often this one's did */
};

static char scratch[64];

/* From /dev/zero, as many bytes as the op's number says: the result tells whose it is. */
static unsigned numbered_len(unsigned number)
{
	return 1 + number % sizeof(scratch);
}

static void prep_numbered(struct io_uring_sqe *sqe, void *arg)
{
	struct numbered *numbered = arg;

	expect_eq(atomic_fetch_add(numbered->next, 1), numbered->number);
	numbered->ran++;
	io_uring_prep_read(sqe, numbered->fd, scratch, numbered_len(numbered->number), 0);
}

static void run_batch(struct gyre *rt, unsigned count)
{
	struct numbered *numbered = calloc(count, sizeof(*numbered));
	struct gyre_op *ops = calloc(count, sizeof(*ops));
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	atomic_uint next;
	unsigned i, round;

	expect(numbered);
	expect(ops);
	test_row("batch of %u", count);
	for (i = 0; i < count; i++) {
		numbered[i] = (struct numbered){ &next, fd, i, 0 };
		ops[i] = test_op(prep_numbered, &numbered[i]);
	}
	/* Twice: ops may be used again after their reply, as they are. */
	for (round = 1; round <= 2; round++) {
		atomic_store(&next, 0);
		expect_status(gyre_callv(rt, ops, count), GYRE_OK);
		for (i = 0; i < count; i++) {
			expect_op(&ops[i], GYRE_OK, (int)numbered_len(i), GYRE_EFFECT_DONE);
			expect_eq(numbered[i].ran, round);
		}
	}
	close(fd);
	free(ops);
	free(numbered);
}

static const unsigned batch_sizes[] = { 1, 2, 31, 32, 33, 255, 256, 257, 2048, 2049 };

TEST(batches_of_all_sizes_have_each_result_in_its_place)
{
	struct gyre *rt = test_open_workers(1);
	unsigned i;

	for (i = 0; i < sizeof(batch_sizes) / sizeof(batch_sizes[0]); i++)
		run_batch(rt, batch_sizes[i]);
	gyre_free(rt);
}

TEST(batch_of_a_hundred_thousand_has_each_result_in_its_place)
{
	struct gyre *rt = test_open_workers(1);

	run_batch(rt, 100000);
	gyre_free(rt);
}

TEST(batch_through_the_smallest_possible_runtime_has_each_result_in_its_place)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .ring_entries = 1,
					.inflight_max = 1 };
	struct gyre *rt = test_open(&options);

	run_batch(rt, 1000);
	gyre_free(rt);
}

static void run_batches(void *arg, unsigned number)
{
	unsigned i;

	for (i = 0; i < 9; i++)
		run_batch(arg, batch_sizes[(number + i) % 9]);
}

TEST(batches_of_sixteen_callers_do_not_mix)
{
	struct gyre *rt = test_open_workers(2);

	test_crew_run(16, run_batches, rt);
	expect_eq(test_stat(rt, inflight), 0);
	gyre_free(rt);
}

TEST(empty_batch_is_ok)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_op op = test_op(prep_nop, NULL);

	expect_status(gyre_callv(rt, &op, 0), GYRE_OK);
	expect_status(gyre_callv(rt, NULL, 0), GYRE_OK);
	gyre_free(rt);
}

TEST(refused_op_of_a_batch_does_not_keep_the_others_from_running)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_op ops[3] = { test_op(prep_nop, NULL), test_op(prep_forbidden, NULL),
				  test_op(prep_nop, NULL) };

	expect_status(gyre_callv(rt, ops, 3), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_callv");
	expect_op(&ops[0], GYRE_OK, 0, GYRE_EFFECT_DONE);
	expect_op(&ops[1], GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
	expect_op(&ops[2], GYRE_OK, 0, GYRE_EFFECT_DONE);
	gyre_free(rt);
}

TEST(op_whose_out_and_internal_fields_hold_rubbish_runs)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_op op = test_op(prep_nop, NULL);

	memset(op.internal, 0xff, sizeof(op.internal));
	op.res = -1;
	op.cqe_flags = UINT32_MAX;
	op.status = GYRE_SYSTEM;
	op.effect = GYRE_EFFECT_UNKNOWN;
	op.user = &op;
	expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
	expect_op(&op, GYRE_OK, 0, GYRE_EFFECT_DONE);
	expect_eq(op.cqe_flags, 0);
	expect(op.user == &op);
	gyre_free(rt);
}

/* ------------------------------------------------------------ chains -- */

/* Ops that write one letter each into a pipe: its contents say what ran, and in what order. */
struct letters {
	struct test_pipe pipe;
	struct test_io io[64];
	char text[64];
	struct gyre_op ops[64];
};

static void letters_open(struct letters *letters, unsigned count)
{
	unsigned i;

	letters->pipe = test_pipe();
	for (i = 0; i < count; i++) {
		letters->text[i] = (char)('a' + i % 26);
		letters->io[i] = (struct test_io){ letters->pipe.w, &letters->text[i], 1,
						   TEST_IO_HERE };
		letters->ops[i] = test_op(prep_write, &letters->io[i]);
	}
}

static void letters_link(struct letters *letters, unsigned from, unsigned to)
{
	for (; from < to; from++)
		letters->ops[from].flags |= GYRE_OP_LINK;
}

static void expect_letters(struct letters *letters, const char *expected)
{
	char got[128];
	int holds = test_pipe_holds(&letters->pipe);

	expect_lt(holds, sizeof(got));
	if (holds > 0)
		expect_eq(read(letters->pipe.r, got, (size_t)holds), holds);
	got[holds] = '\0';
	expect_str(got, expected);
}

TEST(linked_ops_run_in_order)
{
	struct gyre *rt = test_open_workers(1);
	struct letters letters;
	unsigned i;

	letters_open(&letters, 26);
	letters_link(&letters, 0, 25);
	expect_status(gyre_callv(rt, letters.ops, 26), GYRE_OK);
	for (i = 0; i < 26; i++)
		expect_op(&letters.ops[i], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_letters(&letters, "abcdefghijklmnopqrstuvwxyz");
	test_pipe_close(&letters.pipe);
	gyre_free(rt);
}

/* The pipe between them makes it visible: the second cannot run before the first is done. */
TEST(linked_op_sees_the_effect_of_the_one_before)
{
	struct gyre *rt = test_open_workers(1);
	struct test_pipe pipe = test_pipe();
	char out[6] = "hello", in[6] = "";
	struct test_io write_io = { pipe.w, out, 6, TEST_IO_HERE };
	struct test_io read_io = { pipe.r, in, 6, TEST_IO_HERE };
	struct gyre_op ops[2] = { test_op(prep_write, &write_io), test_op(prep_read, &read_io) };

	ops[0].flags = GYRE_OP_LINK;
	expect_status(gyre_callv(rt, ops, 2), GYRE_OK);
	expect_str(in, "hello");
	test_pipe_close(&pipe);
	gyre_free(rt);
}

TEST(failed_op_breaks_its_chain)
{
	struct gyre *rt = test_open_workers(1);
	struct letters letters;

	letters_open(&letters, 4);
	letters_link(&letters, 0, 3);
	letters.io[1].fd = test_closed_fd();
	expect_status(gyre_callv(rt, letters.ops, 4), GYRE_CANCELLED);
	expect_op(&letters.ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_op(&letters.ops[1], GYRE_OK, -EBADF, GYRE_EFFECT_DONE);
	expect_op(&letters.ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	expect_op(&letters.ops[3], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	expect_letters(&letters, "a");
	test_pipe_close(&letters.pipe);
	gyre_free(rt);
}

TEST(short_read_breaks_its_chain)
{
	struct gyre *rt = test_open_workers(1);
	struct letters letters;
	char buf[100];
	int fd = test_file(40);
	struct test_io io = { fd, buf, 100, 0 };

	letters_open(&letters, 2);
	letters.ops[0] = test_op(prep_read, &io);
	letters_link(&letters, 0, 1);
	expect_status(gyre_callv(rt, letters.ops, 2), GYRE_CANCELLED);
	expect_op(&letters.ops[0], GYRE_OK, 40, GYRE_EFFECT_DONE);
	expect_op(&letters.ops[1], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	expect_letters(&letters, "");
	test_pipe_close(&letters.pipe);
	close(fd);
	gyre_free(rt);
}

TEST(broken_chain_leaves_the_next_chain_and_its_neighbours_alone)
{
	struct gyre *rt = test_open_workers(1);
	struct letters letters;
	unsigned i;

	letters_open(&letters, 7);
	letters_link(&letters, 1, 3);	/* 0, 1-2-3, 4-5, 6 */
	letters_link(&letters, 4, 5);
	letters.io[1].fd = test_closed_fd();
	expect_status(gyre_callv(rt, letters.ops, 7), GYRE_CANCELLED);
	for (i = 0; i < 7; i++)
		expect_eq(letters.ops[i].status, i == 2 || i == 3 ? GYRE_CANCELLED : GYRE_OK);
	expect_eq(test_pipe_holds(&letters.pipe), 4);
	test_pipe_close(&letters.pipe);
	gyre_free(rt);
}

TEST(chain_with_a_refused_prep_is_refused_as_a_whole)
{
	static gyre_prep_fn *const refused[] = { prep_forbidden, prep_nothing, NULL };
	struct gyre *rt = test_open_workers(1);
	struct letters letters;
	unsigned bad, kind, i;

	for (bad = 0; bad < 4; bad++)
		for (kind = 0; kind < 3; kind++) {
			test_row("number %u refused, kind %u", bad, kind);
			letters_open(&letters, 6);
			letters_link(&letters, 0, 3);	/* 0-1-2-3, and 4, 5 by themselves */
			letters.ops[bad].prep = refused[kind];
			expect_status(gyre_callv(rt, letters.ops, 6), GYRE_INVALID);
			for (i = 0; i < 4; i++)
				expect_op(&letters.ops[i],
					  i == bad ? GYRE_INVALID : GYRE_CANCELLED, -ECANCELED,
					  GYRE_EFFECT_NONE);
			expect_op(&letters.ops[4], GYRE_OK, 1, GYRE_EFFECT_DONE);
			expect_op(&letters.ops[5], GYRE_OK, 1, GYRE_EFFECT_DONE);
			expect_eq(test_pipe_holds(&letters.pipe), 2);
			test_pipe_close(&letters.pipe);
		}
	gyre_free(rt);
}

static struct gyre *open_with_entries(unsigned entries)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.ring_entries = entries };

	return test_open(&options);
}

TEST(chain_may_be_as_long_as_the_ring)
{
	struct gyre *rt = open_with_entries(16);
	struct letters letters;

	letters_open(&letters, 16);
	letters_link(&letters, 0, 15);
	expect_status(gyre_callv(rt, letters.ops, 16), GYRE_OK);
	expect_letters(&letters, "abcdefghijklmnop");
	test_pipe_close(&letters.pipe);
	gyre_free(rt);
}

static void expect_refused_as_a_whole(const struct gyre_op *ops, unsigned count)
{
	unsigned i, invalid = 0;

	for (i = 0; i < count; i++) {
		test_row("op %u", i);
		expect(ops[i].status == GYRE_INVALID || ops[i].status == GYRE_CANCELLED);
		expect_eq(ops[i].effect, GYRE_EFFECT_NONE);
		expect_eq(ops[i].res, -ECANCELED);
		invalid += ops[i].status == GYRE_INVALID;
	}
	expect_ge(invalid, 1);
}

TEST(chain_longer_than_the_ring_is_refused_as_a_whole)
{
	struct gyre *rt = open_with_entries(16);
	struct letters letters;

	letters_open(&letters, 18);
	letters_link(&letters, 0, 16);
	expect_status(gyre_callv(rt, letters.ops, 18), GYRE_INVALID);
	expect_refused_as_a_whole(letters.ops, 17);
	expect_op(&letters.ops[17], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_letters(&letters, "r");
	test_pipe_close(&letters.pipe);
	gyre_free(rt);
}

TEST(chain_longer_than_inflight_max_is_refused_as_a_whole)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.ring_entries = 64, .inflight_max = 4 };
	struct gyre *rt = test_open(&options);
	struct letters letters;

	letters_open(&letters, 5);
	letters_link(&letters, 0, 4);
	expect_status(gyre_callv(rt, letters.ops, 5), GYRE_INVALID);
	expect_refused_as_a_whole(letters.ops, 5);
	letters_link(&letters, 0, 3);
	letters.ops[3].flags = 0;
	expect_status(gyre_callv(rt, letters.ops, 5), GYRE_OK);
	test_pipe_close(&letters.pipe);
	gyre_free(rt);
}

TEST(link_on_the_last_op_is_refused)
{
	struct gyre *rt = test_open_workers(1);
	struct letters letters;

	letters_open(&letters, 3);
	letters_link(&letters, 1, 3);
	expect_status(gyre_callv(rt, letters.ops, 3), GYRE_INVALID);
	expect_op(&letters.ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_refused_as_a_whole(&letters.ops[1], 2);
	expect_letters(&letters, "a");
	test_pipe_close(&letters.pipe);
	gyre_free(rt);
}

TEST(link_on_a_single_op_is_refused)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_op op = test_op(prep_nop, NULL);

	op.flags = GYRE_OP_LINK;
	expect_status(gyre_callv(rt, &op, 1), GYRE_INVALID);
	expect_op(&op, GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
	gyre_free(rt);
}

/*
 * A chain that the end of a submission cut in two would go on after a failure.
 * So a chain whose first op fails is moved step by step across the ring's end.
 */
TEST(chain_is_never_cut_by_the_end_of_the_ring)
{
	struct gyre *rt = open_with_entries(8);
	struct gyre_op ops[32];
	char letter = 'x', in;
	unsigned before, i;

	for (before = 0; before < 20; before++) {
		struct test_pipe pipe = test_pipe();
		struct test_io bad = { test_closed_fd(), &in, 1, 0 };
		struct test_io good = { pipe.w, &letter, 1, TEST_IO_HERE };

		test_row("%u ops before the chain", before);
		for (i = 0; i < before; i++)
			ops[i] = test_op(prep_nop, NULL);
		ops[before] = test_op(prep_read, &bad);
		for (i = before + 1; i < before + 6; i++)
			ops[i] = test_op(prep_write, &good);
		for (i = before; i < before + 5; i++)
			ops[i].flags = GYRE_OP_LINK;
		expect_status(gyre_callv(rt, ops, before + 6), GYRE_CANCELLED);
		for (i = before + 1; i < before + 6; i++)
			expect_op(&ops[i], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
		expect_eq(test_pipe_holds(&pipe), 0);
		test_pipe_close(&pipe);
	}
	gyre_free(rt);
}

struct neighbours {
	struct gyre *rt;
	atomic_int stop;
	atomic_uint nops;
};

static void break_chains_or_call(void *arg, unsigned number)
{
	struct neighbours *neighbours = arg;
	char in;
	struct test_io bad = { test_closed_fd(), &in, 1, 0 };
	unsigned i;
	int res;

	if (number < 2) {
		while (!atomic_load(&neighbours->stop)) {
			res = 77;
			expect_status(gyre_call(neighbours->rt, prep_nop, NULL, &res), GYRE_OK);
			expect_eq(res, 0);
			atomic_fetch_add(&neighbours->nops, 1);
		}
		return;
	}
	for (i = 0; i < test_times(500) || atomic_load(&neighbours->nops) < 100; i++) {
		struct gyre_op ops[2] = { test_op(prep_read, &bad), test_op(prep_nop, NULL) };

		ops[0].flags = GYRE_OP_LINK;
		gyre_callv(neighbours->rt, ops, 2);
	}
	atomic_store(&neighbours->stop, 1);
}

TEST(breaking_chains_never_harm_other_callers_of_the_ring)
{
	struct neighbours neighbours = { .rt = test_open_workers(1) };

	test_crew_run(4, break_chains_or_call, &neighbours);
	gyre_free(neighbours.rt);
}

/* -------------------------------------------------------------- room -- */

/* A runtime whose only places are taken by reads of a pipe that nobody answers. */
struct full {
	struct gyre *rt;
	struct test_pipe pipe;
	struct test_crew holders;
};

static void hold_a_place(void *arg, unsigned number)
{
	struct full *full = arg;
	struct test_io io;
	char in;
	int res;

	(void)number;
	io = (struct test_io){ full->pipe.r, &in, 1, TEST_IO_HERE };
	expect_status(gyre_call(full->rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
}

static void full_open_but(struct full *full, unsigned inflight_max, unsigned left)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.inflight_max = inflight_max };

	full->rt = test_open(&options);
	full->pipe = test_pipe();
	test_crew_start(&full->holders, inflight_max - left, hold_a_place, full);
	await(test_stat(full->rt, inflight) == inflight_max - left);
}

static void full_open(struct full *full, unsigned inflight_max)
{
	full_open_but(full, inflight_max, 0);
}

static void full_release(struct full *full)
{
	char letters[64] = "";

	expect_eq(write(full->pipe.w, letters, full->holders.count), full->holders.count);
	test_crew_join(&full->holders);
}

static void full_close(struct full *full)
{
	test_pipe_close(&full->pipe);
	gyre_free(full->rt);
}

TEST(nowait_op_is_busy_when_there_is_no_room)
{
	struct gyre_op op = test_op(prep_nop, NULL);
	struct full full;

	full_open(&full, 2);
	op.flags = GYRE_OP_NOWAIT;
	expect_status(gyre_callv(full.rt, &op, 1), GYRE_BUSY);
	expect_op(&op, GYRE_BUSY, -ECANCELED, GYRE_EFFECT_NONE);
	full_release(&full);
	expect_status(gyre_callv(full.rt, &op, 1), GYRE_OK);
	expect_op(&op, GYRE_OK, 0, GYRE_EFFECT_DONE);
	full_close(&full);
}

TEST(nowait_chain_is_busy_as_a_whole_when_there_is_too_little_room)
{
	struct letters letters;
	struct full full;
	unsigned i;

	full_open_but(&full, 4, 3);
	letters_open(&letters, 4);
	letters_link(&letters, 0, 3);
	for (i = 0; i < 4; i++)
		letters.ops[i].flags |= GYRE_OP_NOWAIT;
	expect_status(gyre_callv(full.rt, letters.ops, 4), GYRE_BUSY);
	for (i = 0; i < 4; i++) {
		test_row("op %u", i);
		expect(letters.ops[i].status == GYRE_BUSY ||
		       letters.ops[i].status == GYRE_CANCELLED);
		expect_eq(letters.ops[i].effect, GYRE_EFFECT_NONE);
		expect_eq(letters.ops[i].res, -ECANCELED);
	}
	/* one that fits is not */
	letters_link(&letters, 0, 2);
	letters.ops[2].flags = GYRE_OP_NOWAIT;
	expect_status(gyre_callv(full.rt, letters.ops, 3), GYRE_OK);
	expect_letters(&letters, "abc");
	full_release(&full);
	test_pipe_close(&letters.pipe);
	full_close(&full);
}

static void *call_chain_of_four(void *arg)
{
	struct gyre_op ops[4];
	unsigned i;

	for (i = 0; i < 4; i++) {
		ops[i] = test_op(prep_nop, NULL);
		ops[i].flags = i < 3 ? GYRE_OP_LINK : 0;
	}
	expect_status(gyre_callv(arg, ops, 4), GYRE_OK);
	return NULL;
}

TEST(nowait_op_behind_a_chain_that_waits_is_busy)
{
	struct gyre_op op = test_op(prep_nop, NULL);
	struct full full;
	pthread_t thread;

	full_open_but(&full, 4, 3);
	expect_eq(pthread_create(&thread, NULL, call_chain_of_four, full.rt), 0);
	await(test_stat(full.rt, queued) == 4);
	op.flags = GYRE_OP_NOWAIT;
	/* It would have to wait its turn; or it finds the room that the chain cannot use. */
	gyre_callv(full.rt, &op, 1);
	expect(op.status == GYRE_BUSY || op.status == GYRE_OK);
	full_release(&full);
	pthread_join(thread, NULL);
	full_close(&full);
}

TEST(nowait_ops_of_a_batch_take_the_room_there_is)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .inflight_max = 4 };
	struct gyre *rt = test_open(&options);
	struct __kernel_timespec time = { .tv_nsec = 1000000 };
	unsigned i, ok = 0, busy = 0;
	struct gyre_op ops[10];

	for (i = 0; i < 10; i++) {
		ops[i] = test_op(prep_timeout, &time);
		ops[i].flags = GYRE_OP_NOWAIT;
	}
	expect_status(gyre_callv(rt, ops, 10), GYRE_BUSY);
	for (i = 0; i < 10; i++) {
		ok += ops[i].status == GYRE_OK && ops[i].effect == GYRE_EFFECT_DONE;
		busy += ops[i].status == GYRE_BUSY && ops[i].effect == GYRE_EFFECT_NONE;
	}
	expect_eq(ok + busy, 10);
	expect_ge(ok, 4);
	expect_ge(busy, 1);
	gyre_free(rt);
}

struct turns {
	struct gyre *rt;
	atomic_uint next;
};

struct turn {
	struct turns *turns;
	unsigned number;
};

static void prep_in_turn(struct io_uring_sqe *sqe, void *arg)
{
	struct turn *turn = arg;

	expect_eq(atomic_fetch_add(&turn->turns->next, 1), turn->number);
	io_uring_prep_nop(sqe);
}

static void *call_in_turn(void *arg)
{
	struct turn *turn = arg;

	expect_status(gyre_call(turn->turns->rt, prep_in_turn, turn, NULL), GYRE_OK);
	return NULL;
}

TEST(callers_past_inflight_max_wait_and_are_served_in_the_order_they_came)
{
	pthread_t threads[20];
	struct turn turns[20];
	struct turns state;
	struct full full;
	unsigned i;

	full_open(&full, 1);
	state.rt = full.rt;
	atomic_init(&state.next, 0);
	for (i = 0; i < 20; i++) {
		turns[i] = (struct turn){ &state, i };
		expect_eq(pthread_create(&threads[i], NULL, call_in_turn, &turns[i]), 0);
		await(test_stat(full.rt, queued) == i + 1);
	}
	expect_eq(test_stat(full.rt, inflight), 1);
	expect_eq(atomic_load(&state.next), 0);
	full_release(&full);
	for (i = 0; i < 20; i++)
		pthread_join(threads[i], NULL);
	expect_eq(atomic_load(&state.next), 20);
	full_close(&full);
}

TEST(never_more_than_inflight_max_are_in_flight)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .inflight_max = 5 };
	struct sleepers sleepers = { test_open(&options), { .tv_nsec = 2000000 } };
	struct test_crew crew;
	struct gyre_stats stats;

	test_crew_start(&crew, 40, sleep_on_the_worker, &sleepers);
	do {
		stats = test_stats(sleepers.rt);
		expect_le(stats.inflight, 5);
	} while (stats.ops_completed < 40);
	test_crew_join(&crew);
	gyre_free(sleepers.rt);
}

/* --------------------------------------------------------- zero copy -- */

struct send_zc {
	int fd;
	void *buf;
	size_t len;
};

static void prep_send_zc(struct io_uring_sqe *sqe, void *arg)
{
	struct send_zc *send = arg;

	io_uring_prep_send_zc(sqe, send->fd, send->buf, send->len, MSG_WAITALL, 0);
}

static void connect_by_tcp(int ret[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, len) < 0)
		test_skip("no TCP on the loopback interface: %s", strerror(errno));
	expect_eq(listen(listener, 1), 0);
	expect_eq(getsockname(listener, (struct sockaddr *)&address, &len), 0);
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	expect_eq(connect(ret[0], (struct sockaddr *)&address, len), 0);
	ret[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	expect_ge(ret[1], 0);
	close(listener);
}

/* What was sent must have left the buffer by the time of the one reply. */
TEST(zero_copy_send_is_answered_once_and_then_the_memory_is_free)
{
	struct gyre *rt = test_open_workers(1);
	static char buf[16384], got[16384];
	struct send_zc send = { .buf = buf, .len = sizeof(buf) };
	int fds[2], res;
	unsigned i;

	connect_by_tcp(fds);
	send.fd = fds[0];
	for (i = 0; i < 20; i++) {
		memset(buf, 'a' + (int)i, sizeof(buf));
		expect_status(gyre_call(rt, prep_send_zc, &send, &res), GYRE_OK);
		expect_eq(res, sizeof(buf));
		memset(buf, '!', sizeof(buf));
		expect_eq(recv(fds[1], got, sizeof(got), MSG_WAITALL), sizeof(got));
		expect_eq(got[0], 'a' + (int)i);
		expect_eq(got[sizeof(got) - 1], 'a' + (int)i);
	}
	expect_eq(test_stat(rt, ops_completed), 20);
	expect_eq(test_stat(rt, inflight), 0);
	close(fds[0]);
	close(fds[1]);
	gyre_free(rt);
}

TEST_MAIN()
