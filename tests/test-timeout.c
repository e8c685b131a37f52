/* SPDX-License-Identifier: MIT */
/*
 * Time-outs and cancels in every state of an op: not yet begun, queued for want
 * of room, in flight, in a chain, replied at the same moment, replied.
 *
 * Whoever is told TIMED_OUT or CANCELLED finds his byte still in the pipe and
 * his buffer as it was; whoever is told OK has it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"

#define MS	UINT64_C(1000000)
#define SOON	(5 * MS)
#define READS	64

/* Reads of a pipe that nobody answers unless told to. */
struct silence {
	struct gyre *rt;
	struct test_pipe pipe;
	struct test_io io[READS];
	unsigned char bufs[READS];
	struct gyre_op ops[READS];
	unsigned count;
	enum gyre_status status;	/* of the whole call */
	pthread_t caller;
};

static void silence_open(struct silence *silence, unsigned count, unsigned inflight_max)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.inflight_max = inflight_max };
	unsigned i;

	memset(silence, 0, sizeof(*silence));
	silence->rt = test_open(&options);
	silence->pipe = test_pipe();
	silence->count = count;
	for (i = 0; i < count; i++) {
		silence->bufs[i] = 0xee;
		silence->io[i] = (struct test_io){ silence->pipe.r, &silence->bufs[i], 1,
						   TEST_IO_HERE };
		silence->ops[i] = test_op(prep_read, &silence->io[i]);
	}
}

static void silence_close(struct silence *silence)
{
	test_pipe_close(&silence->pipe);
	gyre_free(silence->rt);
}

static void *silence_call(void *arg)
{
	struct silence *silence = arg;

	silence->status = gyre_callv(silence->rt, silence->ops, silence->count);
	return NULL;
}

/* The call waits on a thread of its own, and so many of its ops are in flight. */
static void silence_send(struct silence *silence)
{
	expect_eq(pthread_create(&silence->caller, NULL, silence_call, silence), 0);
}

/* Not where one of them may end meanwhile: so many in flight might never be seen. */
static void silence_start(struct silence *silence, unsigned inflight)
{
	silence_send(silence);
	await(test_stat(silence->rt, inflight) == inflight &&
	      test_stat(silence->rt, queued) == silence->count - inflight);
}

static void silence_break(struct silence *silence, unsigned bytes)
{
	static const char sound[READS];

	expect_eq(write(silence->pipe.w, sound, bytes), bytes);
}

static enum gyre_status silence_join(struct silence *silence)
{
	pthread_join(silence->caller, NULL);
	return silence->status;
}

/* --------------------------------------------------------- time-outs -- */

TEST(op_in_flight_times_out_and_its_buffer_is_untouched)
{
	struct silence silence;

	silence_open(&silence, 1, 0);
	silence.ops[0].timeout_ns = SOON;
	expect_status(gyre_callv(silence.rt, silence.ops, 1), GYRE_TIMED_OUT);
	expect_op(&silence.ops[0], GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_contains(gyre_last_error(), "gyre_callv");
	silence_break(&silence, 1);
	expect_eq(test_pipe_holds(&silence.pipe), 1);
	expect_eq(silence.bufs[0], 0xee);
	expect_eq(test_stat(silence.rt, ops_timed_out), 1);
	silence_close(&silence);
}

static unsigned preps_run;

static void prep_counted(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	preps_run++;
	io_uring_prep_nop(sqe);
}

TEST(op_that_waits_for_room_times_out_without_having_been_tried)
{
	struct gyre_op late = test_op(prep_counted, NULL);
	struct silence silence;

	silence_open(&silence, 1, 1);
	silence_start(&silence, 1);
	late.timeout_ns = SOON;
	expect_status(gyre_callv(silence.rt, &late, 1), GYRE_TIMED_OUT);
	expect_op(&late, GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_NONE);
	expect_eq(preps_run, 0);
	silence_break(&silence, 1);
	expect_status(silence_join(&silence), GYRE_OK);
	silence_close(&silence);
}

static void *call_late(void *arg)
{
	struct silence *late = arg;

	late->status = gyre_callv(late->rt, late->ops, 1);
	return NULL;
}

TEST(op_that_waits_for_room_times_out_though_another_was_refused_or_cancelled)
{
	struct gyre_op nowait = test_op(prep_counted, NULL), unwanted = nowait;
	struct silence silence, late = { .ops = { nowait } }, other = { .ops = { unwanted } };

	silence_open(&silence, 1, 1);
	silence_start(&silence, 1);
	late.rt = other.rt = silence.rt;
	late.ops[0].timeout_ns = 40 * SOON;
	expect_eq(pthread_create(&late.caller, NULL, call_late, &late), 0);
	await(test_stat(silence.rt, queued) == 1);
	nowait.flags = GYRE_OP_NOWAIT;
	expect_status(gyre_callv(silence.rt, &nowait, 1), GYRE_BUSY);
	expect_eq(pthread_create(&other.caller, NULL, call_late, &other), 0);
	await(gyre_op_cancel(silence.rt, &other.ops[0]) == GYRE_OK);
	pthread_join(other.caller, NULL);
	expect_status(other.status, GYRE_CANCELLED);
	pthread_join(late.caller, NULL);
	expect_status(late.status, GYRE_TIMED_OUT);
	expect_op(&late.ops[0], GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_NONE);
	silence_break(&silence, 1);
	expect_status(silence_join(&silence), GYRE_OK);
	silence_close(&silence);
}

TEST(ops_of_one_batch_time_out_in_flight_and_in_the_queue)
{
	struct silence silence;
	unsigned i;

	silence_open(&silence, 6, 2);
	for (i = 0; i < 6; i++)
		silence.ops[i].timeout_ns = SOON;
	expect_status(gyre_callv(silence.rt, silence.ops, 6), GYRE_TIMED_OUT);
	for (i = 0; i < 6; i++) {
		test_row("op %u", i);
		expect_eq(silence.ops[i].status, GYRE_TIMED_OUT);
		expect_eq(silence.ops[i].res, -ECANCELED);
		expect_eq(silence.bufs[i], 0xee);
		if (i < 2)
			expect_eq(silence.ops[i].effect, GYRE_EFFECT_UNKNOWN);
	}
	silence_close(&silence);
}

TEST(only_the_ops_with_a_time_out_time_out)
{
	struct silence silence;

	silence_open(&silence, 3, 0);
	silence.ops[1].timeout_ns = SOON;
	silence_send(&silence);
	await(test_stat(silence.rt, ops_timed_out) == 1);
	expect_eq(test_stat(silence.rt, inflight), 2);
	silence_break(&silence, 2);
	expect_status(silence_join(&silence), GYRE_TIMED_OUT);
	expect_op(&silence.ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_op(&silence.ops[1], GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_op(&silence.ops[2], GYRE_OK, 1, GYRE_EFFECT_DONE);
	silence_close(&silence);
}

TEST(op_that_is_done_in_time_is_ok)
{
	static const uint64_t timeouts[] = { 3600 * 1000 * MS, UINT64_MAX - 1, GYRE_FOREVER };
	struct gyre *rt = test_open_workers(1);
	struct gyre_op op = test_op(prep_nop, NULL);
	unsigned i;

	for (i = 0; i < 3; i++) {
		op.timeout_ns = timeouts[i];
		expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
		expect_op(&op, GYRE_OK, 0, GYRE_EFFECT_DONE);
	}
	expect_eq(test_stat(rt, ops_timed_out), 0);
	gyre_free(rt);
}

TEST(time_out_of_a_nanosecond_is_an_answer_too)
{
	struct silence silence;
	unsigned i;

	silence_open(&silence, 1, 0);
	silence.ops[0].timeout_ns = 1;
	for (i = 0; i < test_times(500); i++) {
		expect_status(gyre_callv(silence.rt, silence.ops, 1), GYRE_TIMED_OUT);
		expect_eq(silence.ops[0].res, -ECANCELED);
	}
	silence_close(&silence);
}

TEST(sixty_four_time_outs_at_random_times_are_all_answered)
{
	uint64_t random = test_seed();
	struct silence silence;
	unsigned i;

	silence_open(&silence, READS, 0);
	for (i = 0; i < READS; i++)
		silence.ops[i].timeout_ns = 1 + test_random_below(&random, 20 * 1000 * 1000);
	expect_status(gyre_callv(silence.rt, silence.ops, READS), GYRE_TIMED_OUT);
	for (i = 0; i < READS; i++)
		expect_op(&silence.ops[i], GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_eq(test_stat(silence.rt, inflight), 0);
	silence_close(&silence);
}

/* Four places, and four completions more for the cancels: too many for the queue. */
TEST(time_outs_of_a_full_runtime_outgrow_the_completion_queue_and_lose_nothing)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .ring_entries = 4,
					.inflight_max = 4 };
	struct silence silence;
	struct gyre *small;
	unsigned round, i;

	silence_open(&silence, 4, 0);
	small = test_open(&options);
	for (round = 0; round < test_times(100); round++) {
		for (i = 0; i < 4; i++)
			silence.ops[i].timeout_ns = 100000;
		expect_status(gyre_callv(small, silence.ops, 4), GYRE_TIMED_OUT);
		for (i = 0; i < 4; i++)
			expect_eq(silence.ops[i].status, GYRE_TIMED_OUT);
	}
	test_note("completion queue overflows: %llu",
		  (unsigned long long)test_stat(small, cq_overflows));
	gyre_free(small);
	silence_close(&silence);
}

struct breaker {
	struct silence *silence;
	atomic_uint round, spins;
	unsigned rounds;
};

static void *break_at_the_last_moment(void *arg)
{
	struct breaker *breaker = arg;
	unsigned seen = 0, i;

	while (seen < breaker->rounds) {
		while (atomic_load(&breaker->round) == seen)
			sched_yield();
		seen++;
		for (i = atomic_load(&breaker->spins); i; i--)
			__asm__ volatile("" ::: "memory");
		silence_break(breaker->silence, 1);
	}
	return NULL;
}

/* The answer and the byte agree, whoever came first. */
TEST(time_out_that_races_the_reply_tells_the_truth)
{
	uint64_t random = test_seed();
	struct breaker breaker = { .rounds = test_times(1000) };
	struct silence silence;
	unsigned i, in_time = 0;
	pthread_t thread;
	char byte;

	silence_open(&silence, 1, 0);
	breaker.silence = &silence;
	expect_eq(pthread_create(&thread, NULL, break_at_the_last_moment, &breaker), 0);
	for (i = 0; i < breaker.rounds; i++) {
		silence.bufs[0] = 0xee;
		silence.ops[0].timeout_ns = 20000 + test_random_below(&random, 40000);
		atomic_store(&breaker.spins, test_random_below(&random, 100000));
		atomic_fetch_add(&breaker.round, 1);
		gyre_callv(silence.rt, silence.ops, 1);
		if (silence.ops[0].status == GYRE_OK) {
			expect_op(&silence.ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
			expect_eq(silence.bufs[0], 0);
			in_time++;
		} else {
			expect_op(&silence.ops[0], GYRE_TIMED_OUT, -ECANCELED,
				  GYRE_EFFECT_UNKNOWN);
			expect_eq(silence.bufs[0], 0xee);
			expect_eq(read(silence.pipe.r, &byte, 1), 1);
		}
	}
	pthread_join(thread, NULL);
	test_note("%u of %u in time", in_time, breaker.rounds);
	silence_close(&silence);
}

/* ------------------------------------------------ time-outs of chains -- */

/* 0 answers at once, 1 never, 2 would. */
static void chain_of_three(struct silence *silence)
{
	silence_open(silence, 3, 0);
	silence->ops[0] = test_op(prep_nop, NULL);
	silence->ops[2] = test_op(prep_nop, NULL);
	silence->ops[0].flags = silence->ops[1].flags = GYRE_OP_LINK;
}

TEST(time_out_of_a_chains_first_op_covers_the_later_ones)
{
	struct silence silence;

	chain_of_three(&silence);
	silence.ops[0].timeout_ns = SOON;
	expect_status(gyre_callv(silence.rt, silence.ops, 3), GYRE_TIMED_OUT);
	expect_op(&silence.ops[0], GYRE_OK, 0, GYRE_EFFECT_DONE);
	expect_op(&silence.ops[1], GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_op(&silence.ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	expect_eq(silence.bufs[1], 0xee);
	silence_close(&silence);
}

TEST(time_out_of_a_chain_that_hangs_in_its_first_op_skips_the_rest)
{
	struct silence silence;

	silence_open(&silence, 3, 0);
	silence.ops[0].flags = silence.ops[1].flags = GYRE_OP_LINK;
	silence.ops[0].timeout_ns = SOON;
	expect_status(gyre_callv(silence.rt, silence.ops, 3), GYRE_TIMED_OUT);
	expect_op(&silence.ops[0], GYRE_TIMED_OUT, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_op(&silence.ops[1], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	expect_op(&silence.ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	silence_close(&silence);
}

TEST(chain_that_waits_for_room_times_out_as_a_whole)
{
	struct gyre_op chain[3] = { test_op(prep_counted, NULL), test_op(prep_counted, NULL),
				    test_op(prep_counted, NULL) };
	struct silence silence;
	unsigned i;

	silence_open(&silence, 1, 3);
	silence_start(&silence, 1);
	chain[0].flags = chain[1].flags = GYRE_OP_LINK;
	chain[0].timeout_ns = SOON;
	expect_status(gyre_callv(silence.rt, chain, 3), GYRE_TIMED_OUT);
	expect_eq(chain[0].status, GYRE_TIMED_OUT);
	for (i = 0; i < 3; i++) {
		expect_eq(chain[i].res, -ECANCELED);
		expect_eq(chain[i].effect, GYRE_EFFECT_NONE);
	}
	expect_eq(preps_run, 0);
	silence_break(&silence, 1);
	expect_status(silence_join(&silence), GYRE_OK);
	silence_close(&silence);
}

TEST(time_out_on_a_later_op_of_a_chain_is_invalid)
{
	struct silence silence;
	unsigned i;

	chain_of_three(&silence);
	silence.ops[1].timeout_ns = SOON;
	expect_status(gyre_callv(silence.rt, silence.ops, 3), GYRE_INVALID);
	for (i = 0; i < 3; i++)
		expect_op(&silence.ops[i], i == 1 ? GYRE_INVALID : GYRE_CANCELLED, -ECANCELED,
			  GYRE_EFFECT_NONE);
	silence_close(&silence);
}

/* ----------------------------------------------------------- cancels -- */

TEST(op_in_flight_is_cancelled_from_another_thread)
{
	struct silence silence;

	silence_open(&silence, 1, 0);
	silence_start(&silence, 1);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[0]), GYRE_OK);
	expect_status(silence_join(&silence), GYRE_CANCELLED);
	expect_op(&silence.ops[0], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	silence_break(&silence, 1);
	expect_eq(test_pipe_holds(&silence.pipe), 1);
	expect_eq(silence.bufs[0], 0xee);
	expect_eq(test_stat(silence.rt, ops_cancelled), 1);
	silence_close(&silence);
}

TEST(op_that_waits_for_room_is_cancelled_without_having_been_tried)
{
	struct silence silence;

	silence_open(&silence, 3, 1);
	silence.ops[2] = test_op(prep_counted, NULL);
	silence_start(&silence, 1);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[2]), GYRE_OK);
	await(test_stat(silence.rt, ops_cancelled) == 1);
	silence_break(&silence, 2);
	expect_status(silence_join(&silence), GYRE_CANCELLED);
	expect_op(&silence.ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_op(&silence.ops[1], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_op(&silence.ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	expect_eq(preps_run, 0);
	silence_close(&silence);
}

TEST(cancelling_one_op_of_a_batch_leaves_the_others_waiting)
{
	struct silence silence;

	silence_open(&silence, 3, 0);
	silence_start(&silence, 3);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[1]), GYRE_OK);
	await(test_stat(silence.rt, inflight) == 2);
	silence_break(&silence, 2);
	expect_status(silence_join(&silence), GYRE_CANCELLED);
	expect_op(&silence.ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_op(&silence.ops[1], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_op(&silence.ops[2], GYRE_OK, 1, GYRE_EFFECT_DONE);
	silence_close(&silence);
}

TEST(cancelling_twice_is_as_good_as_once)
{
	struct silence silence;

	silence_open(&silence, 2, 0);
	silence_start(&silence, 2);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[0]), GYRE_OK);
	gyre_op_cancel(silence.rt, &silence.ops[0]);
	await(test_stat(silence.rt, inflight) == 1);
	gyre_op_cancel(silence.rt, &silence.ops[0]);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[1]), GYRE_OK);
	expect_status(silence_join(&silence), GYRE_CANCELLED);
	expect_eq(test_stat(silence.rt, ops_cancelled), 2);
	silence_close(&silence);
}

TEST(cancel_of_an_op_with_a_time_out_comes_first)
{
	struct silence silence;

	silence_open(&silence, 1, 0);
	silence.ops[0].timeout_ns = 3600 * 1000 * MS;
	silence_start(&silence, 1);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[0]), GYRE_OK);
	expect_status(silence_join(&silence), GYRE_CANCELLED);
	expect_op(&silence.ops[0], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	silence_close(&silence);
}

TEST(cancelling_the_running_op_of_a_chain_skips_the_rest)
{
	struct silence silence;

	chain_of_three(&silence);
	expect_eq(pthread_create(&silence.caller, NULL, silence_call, &silence), 0);
	await(test_stat(silence.rt, inflight) > 0);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[1]), GYRE_OK);
	expect_status(silence_join(&silence), GYRE_CANCELLED);
	expect_op(&silence.ops[0], GYRE_OK, 0, GYRE_EFFECT_DONE);
	expect_op(&silence.ops[1], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_op(&silence.ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	silence_close(&silence);
}

/* 0 hangs; 1 is cancelled before it could start; 2 never starts. */
TEST(cancelling_a_later_op_of_a_chain_ends_it_once_its_turn_comes)
{
	struct silence silence;

	silence_open(&silence, 3, 0);
	silence.ops[0].flags = silence.ops[1].flags = GYRE_OP_LINK;
	silence_start(&silence, 3);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[1]), GYRE_OK);
	silence_break(&silence, 1);
	expect_status(silence_join(&silence), GYRE_CANCELLED);
	expect_op(&silence.ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_eq(silence.ops[1].status, GYRE_CANCELLED);
	expect_eq(silence.ops[1].res, -ECANCELED);
	expect_op(&silence.ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	silence_close(&silence);
}

TEST(later_op_of_a_chain_that_was_asked_to_end_but_never_began_had_no_effect)
{
	struct silence silence;

	silence_open(&silence, 2, 0);
	silence.ops[0].flags = GYRE_OP_LINK;
	silence_start(&silence, 2);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[1]), GYRE_OK);
	expect_status(gyre_op_cancel(silence.rt, &silence.ops[0]), GYRE_OK);
	expect_status(silence_join(&silence), GYRE_CANCELLED);
	expect_op(&silence.ops[0], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_op(&silence.ops[1], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	silence_close(&silence);
}

TEST(op_that_is_not_under_way_is_not_found)
{
	struct silence silence;
	struct gyre *other = test_open_workers(1);
	struct gyre_op never = test_op(prep_nop, NULL);

	silence_open(&silence, 1, 0);
	expect_status(gyre_op_cancel(silence.rt, &never), GYRE_NOT_FOUND);
	expect_status(gyre_callv(silence.rt, &never, 1), GYRE_OK);
	expect_status(gyre_op_cancel(silence.rt, &never), GYRE_NOT_FOUND);
	silence_start(&silence, 1);
	expect_status(gyre_op_cancel(other, &silence.ops[0]), GYRE_NOT_FOUND);
	expect_status(gyre_op_cancel(silence.rt, NULL), GYRE_INVALID);
	silence_break(&silence, 1);
	expect_status(silence_join(&silence), GYRE_OK);
	gyre_free(other);
	silence_close(&silence);
}

struct cancelling_prep {
	struct gyre *rt;
	struct gyre_op *op;
	enum gyre_status status;
};

static void prep_that_cancels(struct io_uring_sqe *sqe, void *arg)
{
	struct cancelling_prep *cancelling = arg;

	cancelling->status = gyre_op_cancel(cancelling->rt, cancelling->op);
	io_uring_prep_nop(sqe);
}

TEST(prep_callback_may_cancel)
{
	struct cancelling_prep cancelling;
	struct silence silence;

	silence_open(&silence, 1, 0);
	silence_start(&silence, 1);
	cancelling = (struct cancelling_prep){ silence.rt, &silence.ops[0], GYRE_SYSTEM };
	expect_status(gyre_call(silence.rt, prep_that_cancels, &cancelling, NULL), GYRE_OK);
	expect_status(cancelling.status, GYRE_OK);
	expect_status(silence_join(&silence), GYRE_CANCELLED);
	silence_close(&silence);
}

/* Told OK, the cancel must not be lost: the read would wait for ever. */
TEST(cancel_that_races_the_beginning_of_its_op_is_never_lost)
{
	struct silence silence;
	unsigned i;

	silence_open(&silence, 1, 0);
	for (i = 0; i < test_times(400); i++) {
		expect_eq(pthread_create(&silence.caller, NULL, silence_call, &silence), 0);
		while (gyre_op_cancel(silence.rt, &silence.ops[0]) == GYRE_NOT_FOUND)
			sched_yield();
		expect_status(silence_join(&silence), GYRE_CANCELLED);
		expect_eq(silence.ops[0].res, -ECANCELED);
	}
	silence_close(&silence);
}

struct huge {
	struct gyre *rt;
	struct gyre_op *ops;
	unsigned count;
};

static void *call_huge(void *arg)
{
	struct huge *huge = arg;

	gyre_callv(huge->rt, huge->ops, huge->count);
	return NULL;
}

/* The same with a call that takes its time to begin: its first op is long under way by then. */
TEST(cancel_while_its_batch_is_still_being_sent_is_never_lost)
{
	struct huge huge = { .count = 100000 };
	struct silence silence;
	unsigned round, i;

	silence_open(&silence, 1, 0);
	huge.rt = silence.rt;
	huge.ops = calloc(huge.count, sizeof(*huge.ops));
	expect(huge.ops);
	for (i = 1; i < huge.count; i++)
		huge.ops[i] = test_op(prep_nop, NULL);
	huge.ops[0] = silence.ops[0];
	for (round = 0; round < 10; round++) {
		expect_eq(pthread_create(&silence.caller, NULL, call_huge, &huge), 0);
		while (gyre_op_cancel(silence.rt, &huge.ops[0]) == GYRE_NOT_FOUND)
			;
		pthread_join(silence.caller, NULL);
		expect_eq(huge.ops[0].status, GYRE_CANCELLED);
		expect_op(&huge.ops[1], GYRE_OK, 0, GYRE_EFFECT_DONE);
	}
	free(huge.ops);
	silence_close(&silence);
}

TEST(cancel_that_races_the_reply_tells_the_truth)
{
	uint64_t random = test_seed();
	struct breaker breaker = { .rounds = test_times(300) };
	unsigned i, delay, in_time = 0;
	struct silence silence;
	pthread_t thread;
	char byte;

	silence_open(&silence, 1, 0);
	breaker.silence = &silence;
	expect_eq(pthread_create(&thread, NULL, break_at_the_last_moment, &breaker), 0);
	for (i = 0; i < breaker.rounds; i++) {
		silence.bufs[0] = 0xee;
		silence_start(&silence, 1);
		atomic_store(&breaker.spins, test_random_below(&random, 10000));
		atomic_fetch_add(&breaker.round, 1);
		for (delay = test_random_below(&random, 20000); delay; delay--)
			__asm__ volatile("" ::: "memory");
		gyre_op_cancel(silence.rt, &silence.ops[0]);
		silence_join(&silence);
		if (silence.ops[0].status == GYRE_OK) {
			expect_op(&silence.ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
			expect_eq(silence.bufs[0], 0);
			in_time++;
		} else {
			expect_op(&silence.ops[0], GYRE_CANCELLED, -ECANCELED,
				  GYRE_EFFECT_UNKNOWN);
			expect_eq(silence.bufs[0], 0xee);
			expect_eq(read(silence.pipe.r, &byte, 1), 1);
		}
	}
	pthread_join(thread, NULL);
	test_note("%u of %u in time", in_time, breaker.rounds);
	silence_close(&silence);
}

struct crowd {
	struct gyre *rt;
	struct test_pipe pipe;
	struct gyre_op ops[64];
};

static void wait_to_be_cancelled(void *arg, unsigned number)
{
	struct crowd *crowd = arg;
	struct gyre_op *op = &crowd->ops[number];
	char byte = 1;
	struct test_io io = { crowd->pipe.r, &byte, 1, TEST_IO_HERE };

	*op = test_op(prep_read, &io);
	if (number % 2)
		op->timeout_ns = 3600 * 1000 * MS;
	expect_status(gyre_callv(crowd->rt, op, 1), GYRE_CANCELLED);
	expect_eq(byte, 1);
}

TEST(sixty_four_waiting_callers_are_cancelled_one_by_one)
{
	struct crowd crowd = { .rt = test_open_workers(2) };
	struct test_crew crew;
	unsigned i;

	crowd.pipe = test_pipe();
	test_crew_start(&crew, 64, wait_to_be_cancelled, &crowd);
	await(test_stat(crowd.rt, inflight) == 64);
	for (i = 0; i < 64; i++)
		expect_status(gyre_op_cancel(crowd.rt, &crowd.ops[i]), GYRE_OK);
	test_crew_join(&crew);
	expect_eq(test_stat(crowd.rt, ops_cancelled), 64);
	test_pipe_close(&crowd.pipe);
	gyre_free(crowd.rt);
}

TEST_MAIN()
