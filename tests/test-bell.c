/* SPDX-License-Identifier: MIT */
/*
 * Bells: what callers sleep in. The bell itself, and callers of which more sleep
 * at once than there are seats, who share one, and whose sleep the kernel refuses.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"
#include "lib/thread.h"
#include "ring/bell.h"
#include "ring/sys_fault.h"

#define MS	GYRE__NS_PER_MS
#define SEATS	(GYRE__BELLS * GYRE__BELL_SEATS)

/* -------------------------------------------------------------- the bell -- */

TEST(bell_that_was_rung_since_the_look_is_not_waited_for)
{
	unsigned seat;

	for (seat = 0; seat < SEATS; seat++) {
		uint32_t seen = gyre__bell_look(seat);

		test_row("seat %u", seat);
		gyre__bell_ring(seat);
		expect(gyre__bell_look(seat) != seen);
		expect(gyre__bell_wait(seat, seen, GYRE__NEVER));
	}
}

TEST(wait_for_a_bell_ends_at_its_deadline)
{
	uint32_t seen = gyre__bell_look(7);
	uint64_t deadline_ns = gyre__sys->now_ns() + MS;

	while (gyre__bell_wait(7, seen, deadline_ns))
		;
	expect_ge(gyre__sys->now_ns(), deadline_ns);
	expect_eq(gyre__bell_look(7), seen);
	expect(!gyre__bell_wait(7, seen, 0));
}

TEST(round_raises_each_of_its_bells_once_and_is_empty_then)
{
	struct gyre__bell_round round = { 0 };
	uint32_t before[GYRE__BELLS];
	unsigned i;

	gyre__fault_install();
	for (i = 0; i < GYRE__BELLS; i++)
		before[i] = gyre__bell_look(i * GYRE__BELL_SEATS);
	for (i = 0; i < 5; i++)
		gyre__bell_add(&round, i);
	gyre__bell_add(&round, SEATS - 1);
	gyre__bell_ring_all(&round);
	for (i = 0; i < GYRE__BELLS; i++)
		expect_eq(gyre__bell_look(i * GYRE__BELL_SEATS) - before[i],
			  i == 0 || i == GYRE__BELLS - 1);
	expect_eq(gyre__fault_count(GYRE__FAULT_futex_wake), 2);
	expect(!round.any);
	gyre__bell_ring_all(&round);
	expect_eq(gyre__fault_count(GYRE__FAULT_futex_wake), 2);
	gyre__fault_remove();
}

static void sleep_at_every_seat(void *arg, unsigned number)
{
	atomic_uint *rung = arg;
	uint32_t seen = gyre__bell_look(number);

	while (!atomic_load(rung)) {
		gyre__bell_wait(number, seen, GYRE__NEVER);
		seen = gyre__bell_look(number);
	}
}

TEST(one_round_wakes_up_all_seats)
{
	struct gyre__bell_round round = { 0 };
	struct test_crew crew;
	atomic_uint rung = 0;
	unsigned i;

	gyre__fault_install();
	test_crew_start(&crew, 100, sleep_at_every_seat, &rung);
	await(gyre__fault_count(GYRE__FAULT_futex_wait) >= 100);
	for (i = 0; i < 100; i++)
		gyre__bell_add(&round, i);
	atomic_store(&rung, 1);
	gyre__bell_ring_all(&round);
	test_crew_join(&crew);
	expect_eq(gyre__fault_count(GYRE__FAULT_futex_wake), (100 - 1) / GYRE__BELL_SEATS + 1);
	gyre__fault_remove();
}

/* ----------------------------------------------------------- the callers -- */

static struct gyre *open_sleepy(void)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.spin_ns = GYRE_SPIN_NEVER };

	gyre__fault_install();
	return test_open(&options);
}

static void close_sleepy(struct gyre *rt)
{
	gyre_free(rt);
	gyre__fault_remove();
}

/* A thread that waits for a byte from a pipe. */
struct reader {
	struct gyre *rt;
	struct test_pipe *pipe;
	unsigned char byte;
	unsigned seat;
	pthread_t thread;
};

static void *read_one(void *arg)
{
	struct reader *reader = arg;
	struct test_io io = { reader->pipe->r, &reader->byte, 1, TEST_IO_HERE };
	int res = -1;

	expect_status(gyre_call(reader->rt, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
	reader->seat = gyre__thread_self()->reply.seat;
	return NULL;
}

/* Returns once it sleeps. */
static void reader_start(struct reader *reader, struct gyre *rt, struct test_pipe *pipe)
{
	unsigned sleeps = gyre__fault_count(GYRE__FAULT_futex_wait);

	reader->rt = rt;
	reader->pipe = pipe;
	expect_eq(pthread_create(&reader->thread, NULL, read_one, reader), 0);
	await(gyre__fault_count(GYRE__FAULT_futex_wait) > sleeps);
}

TEST(more_callers_than_seats_sleep_at_once_and_each_gets_its_own_reply)
{
	enum { CALLERS = SEATS + 44 };
	static struct reader readers[CALLERS];
	unsigned char bytes[CALLERS];
	struct test_pipe pipe;
	unsigned i, found[256] = { 0 };
	struct gyre *rt;

	rt = open_sleepy();
	pipe = test_pipe();
	for (i = 0; i < CALLERS; i++) {
		bytes[i] = (unsigned char)(i % 251);
		reader_start(&readers[i], rt, &pipe);
	}
	expect_eq(write(pipe.w, bytes, CALLERS), CALLERS);
	for (i = 0; i < CALLERS; i++) {
		pthread_join(readers[i].thread, NULL);
		found[readers[i].byte]++;
	}
	for (i = 0; i < 256; i++)
		expect_eq(found[i], i < CALLERS % 251 ? 2 : i < 251);
	test_pipe_close(&pipe);
	close_sleepy(rt);
}

static void call_once(void *arg, unsigned number)
{
	(void)number;
	expect_status(gyre_call(arg, prep_nop, NULL, NULL), GYRE_OK);
}

TEST(who_is_woken_up_for_another_of_the_same_seat_sleeps_on)
{
	struct test_pipe pipes[2] = { test_pipe(), test_pipe() };
	struct gyre *rt = open_sleepy();
	struct reader readers[2];
	unsigned i, sleeps;

	reader_start(&readers[0], rt, &pipes[0]);
	for (i = 1; i < SEATS; i += 15)		/* SEATS is 17 times 15, and one more */
		test_crew_run(15, call_once, rt);
	reader_start(&readers[1], rt, &pipes[1]);
	sleeps = gyre__fault_count(GYRE__FAULT_futex_wait);
	expect_eq(write(pipes[1].w, "b", 1), 1);
	pthread_join(readers[1].thread, NULL);
	await(gyre__fault_count(GYRE__FAULT_futex_wait) > sleeps);
	expect_eq(write(pipes[0].w, "a", 1), 1);
	pthread_join(readers[0].thread, NULL);
	expect_eq(readers[0].seat, readers[1].seat);
	expect_eq(readers[0].byte, 'a');
	expect_eq(readers[1].byte, 'b');
	for (i = 0; i < 2; i++)
		test_pipe_close(&pipes[i]);
	close_sleepy(rt);
}

static void call_three_times(void *arg, unsigned number)
{
	unsigned i;

	for (i = 0; i < 3; i++)
		call_once(arg, number);
}

static const int errors[] = { -EINTR, -EAGAIN, -ENOSYS, -EINVAL };

TEST(sleep_that_ends_early_or_is_refused_still_waits_for_the_reply)
{
	struct test_pipe pipe = test_pipe();
	struct gyre *rt = open_sleepy();
	struct reader reader;
	unsigned i;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		test_row("%s", strerror(-errors[i]));
		gyre__fault_set(GYRE__FAULT_futex_wait, 0, GYRE__FAULT_FOREVER, errors[i]);
		reader_start(&reader, rt, &pipe);
		await(gyre__fault_hits(GYRE__FAULT_futex_wait) >= 3);
		expect_eq(write(pipe.w, "x", 1), 1);
		pthread_join(reader.thread, NULL);
		expect_eq(reader.byte, 'x');
		gyre__fault_clear();
	}
	test_pipe_close(&pipe);
	close_sleepy(rt);
}

static int task_sleep_until(void *flag)
{
	while (!atomic_load((atomic_uint *)flag))
		gyre_sleep(MS);
	return 5;
}

TEST(wait_with_a_deadline_that_the_kernel_refuses_ends_in_time_or_with_the_result)
{
	struct gyre *rt = open_sleepy();
	atomic_uint flag = 0;
	struct gyre_job *job = test_spawn(rt, task_sleep_until, &flag);
	int result = 0;
	unsigned i;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		test_row("%s", strerror(-errors[i]));
		gyre__fault_set(GYRE__FAULT_futex_wait, 0, GYRE__FAULT_FOREVER, errors[i]);
		expect_status(gyre_job_wait(job, MS, &result), GYRE_BUSY);
		expect_ge(gyre__fault_hits(GYRE__FAULT_futex_wait), 1);
	}
	atomic_store(&flag, 1);
	expect_status(gyre_job_wait(job, 1000 * GYRE__NS_PER_S, &result), GYRE_OK);
	expect_eq(result, 5);
	close_sleepy(rt);
}

TEST(wake_up_that_fails_is_tried_again)
{
	struct gyre *rt = open_sleepy();
	unsigned skip;

	for (skip = 0; skip < 3; skip++) {
		test_row("number %u", skip);
		gyre__fault_set(GYRE__FAULT_futex_wake, skip, 3, -ENOMEM);
		test_crew_run(1, call_three_times, rt);
		gyre__fault_clear();
	}
	close_sleepy(rt);
}

TEST_MAIN()
