/* SPDX-License-Identifier: MIT */
/* workers/offload: how many helpers, in which order, until when, and what failures leave of it. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "helpers.h"
#include "leak.h"
#include "ring/sys_fault.h"
#include "workers/offload.h"

#define LONG_NS		(3600 * GYRE__NS_PER_S)		/* no helper goes by itself */
#define SHORT_NS	1				/* each goes as soon as it may */
#define WORKS		100

static struct gyre__offload *open_pool(unsigned threads_max, uint64_t idle_ns)
{
	const struct gyre__offload_config config = {
		.name = "test",
		.threads_max = threads_max,
		.idle_ns = idle_ns,
	};
	struct gyre__offload *pool;

	expect_eq(gyre__offload_open(&config, &pool), 0);
	return pool;
}

static void close_and_free(struct gyre__offload *pool)
{
	gyre__offload_close(pool);
	gyre__offload_free(pool);
}

static unsigned live(struct gyre__offload *pool)
{
	unsigned idle;

	return gyre__offload_threads(pool, &idle);
}

static unsigned idle(struct gyre__offload *pool)
{
	unsigned idle;

	gyre__offload_threads(pool, &idle);
	return idle;
}

/* A piece of work that says when it began, waits for its gate, and counts. */
struct piece {
	_Atomic bool *gate;		/* NULL: open */
	struct gyre__offload_work work;
	_Atomic unsigned begun;		/* so many before it had, and it */
	_Atomic unsigned runs;
	_Atomic int tid;
};

static _Atomic unsigned pieces_begun, pieces_done;

static void run_piece(struct gyre__offload_work *work)
{
	struct piece *piece = gyre__container_of(work, struct piece, work);

	piece->tid = (int)syscall(SYS_gettid);
	piece->begun = ++pieces_begun;
	if (piece->gate)
		await(*piece->gate);
	piece->runs++;
	pieces_done++;
}

static int push(struct gyre__offload *pool, struct piece *piece)
{
	piece->work.run = run_piece;
	return gyre__offload_push(pool, &piece->work, NULL);
}

static void push_and_await(struct gyre__offload *pool, struct piece *piece)
{
	unsigned runs = piece->runs;

	expect_eq(push(pool, piece), 0);
	await(piece->runs == runs + 1);
}

/* ---------------------------------------------------------------- growth -- */

TEST(open_refuses_no_threads_and_too_many)
{
	struct gyre__offload_config config = { .name = "test" };
	struct gyre__offload *pool = NULL;

	expect_eq(gyre__offload_open(&config, &pool), -EINVAL);
	config.threads_max = GYRE__OFFLOAD_THREADS_MAX + 1;
	expect_eq(gyre__offload_open(&config, &pool), -EINVAL);
	expect(!pool);
	config.threads_max = GYRE__OFFLOAD_THREADS_MAX;
	expect_eq(gyre__offload_open(&config, &pool), 0);
	close_and_free(pool);
}

TEST(pool_without_work_has_no_thread)
{
	struct gyre__offload *pool = open_pool(4, LONG_NS);

	expect_eq(live(pool), 0);
	expect_eq(test_find_thread("test-h0", NULL), 0);
	close_and_free(pool);
	gyre__offload_free(NULL);
}

TEST(helper_has_its_name_and_takes_no_signals)
{
	struct gyre__offload *pool = open_pool(4, LONG_NS);
	struct piece piece = { 0 };
	char mask[64];
	int tid;

	push_and_await(pool, &piece);
	expect_eq(test_find_thread("test-h0", &tid), 1);
	expect_eq(tid, piece.tid);
	test_thread_status(tid, "SigBlk", mask, sizeof(mask));
	/* All but SIGKILL, SIGSTOP and the two that libc keeps for itself. */
	expect_str(mask, "fffffffe7ffbfeff");
	close_and_free(pool);
}

TEST(work_begins_in_the_order_it_was_pushed)
{
	struct gyre__offload *pool = open_pool(1, LONG_NS);
	_Atomic bool gate = false;
	struct piece pieces[WORKS] = { { .gate = &gate } };
	unsigned i;

	for (i = 0; i < WORKS; i++)
		expect_eq(push(pool, &pieces[i]), 0);
	gate = true;
	await(pieces_done == WORKS);
	for (i = 0; i < WORKS; i++)
		expect_eq(pieces[i].begun, i + 1);
	close_and_free(pool);
}

TEST(no_thread_is_started_while_one_is_idle)
{
	struct gyre__offload *pool;
	struct piece piece = { 0 };
	unsigned i;

	gyre__fault_install();
	pool = open_pool(4, LONG_NS);
	for (i = 0; i < WORKS; i++) {
		push_and_await(pool, &piece);
		await(idle(pool) == 1);
	}
	expect_eq(gyre__fault_count(GYRE__FAULT_thread_start), 1);
	expect_eq(gyre__fault_count(GYRE__FAULT_eventfd_write), WORKS - 1);
	expect_eq(live(pool), 1);
	close_and_free(pool);
	gyre__fault_remove();
}

TEST(nobody_is_woken_who_does_not_sleep)
{
	struct gyre__offload *pool;
	_Atomic bool gate = false;
	struct piece pieces[WORKS] = { { .gate = &gate } };
	unsigned i;

	gyre__fault_install();
	pool = open_pool(1, LONG_NS);
	for (i = 0; i < WORKS; i++)
		expect_eq(push(pool, &pieces[i]), 0);
	gate = true;
	await(pieces_done == WORKS);
	expect_eq(gyre__fault_count(GYRE__FAULT_eventfd_write), 0);
	close_and_free(pool);
	gyre__fault_remove();
}

TEST(threads_are_as_many_as_the_work_up_to_the_limit)
{
	struct gyre__offload *pool = open_pool(3, LONG_NS);
	_Atomic bool gate = false;
	struct piece pieces[10];
	unsigned i;

	memset(pieces, 0, sizeof(pieces));
	for (i = 0; i < 10; i++) {
		pieces[i].gate = &gate;
		expect_eq(push(pool, &pieces[i]), 0);
		expect_eq(live(pool), i < 3 ? i + 1 : 3);
	}
	await(pieces_begun == 3);
	expect_eq(test_find_thread("test-h0", NULL), 1);
	expect_eq(test_find_thread("test-h1", NULL), 1);
	expect_eq(test_find_thread("test-h2", NULL), 1);
	expect_eq(test_find_thread("test-h3", NULL), 0);
	expect_eq(pieces_begun, 3);
	gate = true;
	await(pieces_done == 10);
	expect_eq(live(pool), 3);
	close_and_free(pool);
}

TEST(latest_that_went_idle_is_woken_first)
{
	struct gyre__offload *pool = open_pool(3, LONG_NS);
	_Atomic bool gates[3] = { false };
	struct piece pieces[3] = { { .gate = &gates[0] }, { .gate = &gates[1] },
				   { .gate = &gates[2] } };
	static const unsigned order[] = { 2, 0, 1 };
	struct piece piece = { 0 };
	unsigned i;

	for (i = 0; i < 3; i++)
		expect_eq(push(pool, &pieces[i]), 0);
	for (i = 0; i < 3; i++) {
		gates[order[i]] = true;
		await(idle(pool) == i + 1);
	}
	for (i = 0; i < 10; i++) {
		push_and_await(pool, &piece);
		expect_eq(piece.tid, pieces[1].tid);
		await(idle(pool) == 3);
	}
	close_and_free(pool);
}

/* ------------------------------------------------------------- idle time -- */

TEST(helper_without_work_ends_by_itself_and_the_next_has_its_name)
{
	struct gyre__offload *pool = open_pool(4, SHORT_NS);
	struct piece piece = { 0 };
	_Atomic bool gate = true;
	unsigned i;

	for (i = 0; i < 5; i++) {
		gate = false;
		piece.gate = &gate;
		expect_eq(push(pool, &piece), 0);
		await(pieces_begun == i + 1);
		expect_ge(test_find_thread("test-h0", NULL), 1);
		expect_eq(test_find_thread("test-h1", NULL), 0);
		gate = true;
		await(live(pool) == 0);
	}
	expect_eq(piece.runs, 5);
	close_and_free(pool);
}

TEST(ended_helpers_do_not_pile_up)
{
	unsigned before = leak_allocations(), i;
	struct gyre__offload *pool = open_pool(4, SHORT_NS);
	struct piece piece = { 0 };

	for (i = 0; i < WORKS; i++) {
		push_and_await(pool, &piece);
		await(live(pool) == 0);
	}
	/* The pool and the last one. */
	await(leak_allocations() == before + 2);
	close_and_free(pool);
}

/* All of them go, not only the one on top. */
TEST(helpers_end_one_by_one_until_none_is_left)
{
	struct gyre__offload *pool = open_pool(8, SHORT_NS);
	_Atomic bool gate = false;
	struct piece pieces[8];
	unsigned i;

	memset(pieces, 0, sizeof(pieces));
	for (i = 0; i < 8; i++) {
		pieces[i].gate = &gate;
		expect_eq(push(pool, &pieces[i]), 0);
	}
	gate = true;
	await(live(pool) == 0);
	expect_eq(idle(pool), 0);
	expect_eq(pieces_done, 8);
	close_and_free(pool);
}

struct crossing {
	struct gyre__offload *pool;
	struct piece piece;
	_Atomic bool crossed;
};

static int push_on_the_way(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	struct crossing *crossing = arg;

	(void)call;
	(void)fd;
	(void)site;
	if (crossing->crossed)
		return 0;
	crossing->crossed = true;
	expect_eq(idle(crossing->pool), 1);
	expect_eq(push(crossing->pool, &crossing->piece), 0);
	return -ENOMEM;
}

/* Told between its decision to sleep and the end of its sleep, which it does not notice. */
TEST(helper_whose_time_is_over_as_it_is_told_does_the_work)
{
	struct crossing crossing = { 0 };
	struct piece piece = { 0 };

	gyre__fault_install();
	crossing.pool = open_pool(1, LONG_NS);
	gyre__fault_hook(GYRE__FAULT_poll, push_on_the_way, &crossing);
	push_and_await(crossing.pool, &piece);
	await(crossing.piece.runs == 1);
	expect_eq(crossing.piece.tid, piece.tid);
	/* Its eventfd is full: it goes instead of taking that for a wake-up. */
	await(live(crossing.pool) == 0);
	expect_eq(gyre__fault_count(GYRE__FAULT_eventfd_read), 0);
	close_and_free(crossing.pool);
	gyre__fault_remove();
}

/* ----------------------------------------------------------------- close -- */

/* Work that is nobody's any more once it has run. */
static void run_and_free(struct gyre__offload_work *work)
{
	pieces_done++;
	free(work);
}

/* The last answer of a push that was not 0; *accepted: how many were before it. */
static int push_until_refused(struct gyre__offload *pool, unsigned *accepted)
{
	struct gyre__offload_work *work;
	int rc;

	for (;;) {
		work = malloc(sizeof(*work));
		expect(work);
		work->run = run_and_free;
		rc = gyre__offload_push(pool, work, NULL);
		if (rc < 0)
			break;
		++*accepted;
		sched_yield();
	}
	free(work);
	return rc;
}

static _Atomic unsigned closes_done;

static void close_pool(void *arg, unsigned number)
{
	(void)number;
	gyre__offload_close(arg);
	closes_done++;
}

TEST(close_runs_what_is_queued_and_takes_no_more)
{
	struct gyre__offload *pool = open_pool(2, LONG_NS);
	_Atomic bool gate = false;
	struct piece pieces[2] = { { .gate = &gate }, { .gate = &gate } };
	struct test_crew closers;
	unsigned accepted = 2;

	expect_eq(push(pool, &pieces[0]), 0);
	expect_eq(push(pool, &pieces[1]), 0);
	test_crew_start(&closers, 4, close_pool, pool);
	expect_eq(push_until_refused(pool, &accepted), -ESHUTDOWN);
	expect_eq(closes_done, 0);
	gate = true;
	await(closes_done > 0);
	expect_eq(pieces_done, accepted);
	expect_eq(live(pool), 0);
	test_crew_join(&closers);
	expect_eq(closes_done, 4);
	gyre__offload_free(pool);
}

TEST(close_ends_idle_helpers_and_may_be_repeated)
{
	struct gyre__offload *pool = open_pool(2, LONG_NS);
	_Atomic bool gate = false;
	struct piece pieces[2] = { { .gate = &gate }, { .gate = &gate } };

	expect_eq(push(pool, &pieces[0]), 0);
	expect_eq(push(pool, &pieces[1]), 0);
	gate = true;
	await(idle(pool) == 2);
	gyre__offload_close(pool);
	expect_eq(live(pool), 0);
	expect_eq(idle(pool), 0);
	gyre__offload_close(pool);
	expect_eq(push(pool, &pieces[0]), -ESHUTDOWN);
	gyre__offload_free(pool);
	expect_eq(pieces_done, 2);
}

TEST(close_joins_a_helper_that_has_ended_by_itself)
{
	struct gyre__offload *pool = open_pool(2, SHORT_NS);
	struct piece piece = { 0 };

	push_and_await(pool, &piece);
	await(live(pool) == 0);
	close_and_free(pool);
	expect_eq(test_find_thread("test-h0", NULL), 0);
}

struct race {
	struct gyre__offload *pool;
	_Atomic unsigned accepted, refused;
};

#define RACERS	4

static void push_or_close(void *arg, unsigned number)
{
	struct race *race = arg;
	unsigned accepted = 0;

	if (number < RACERS) {
		expect_eq(push_until_refused(race->pool, &accepted), -ESHUTDOWN);
		race->accepted += accepted;
		return;
	}
	await(pieces_done > 3);
	gyre__offload_close(race->pool);
	expect_eq(live(race->pool), 0);
}

/* Rare in it, and worth its length: the last push against the end of the last helper. */
TEST(what_is_accepted_is_run_before_close_returns)
{
	unsigned times = test_times(300), i;
	uint64_t dice = test_seed();
	struct race race;

	for (i = 0; i < times; i++) {
		race = (struct race){ .pool = open_pool(1 + test_random_below(&dice, 4),
							1 + test_random_below(&dice, 100000)) };
		pieces_done = 0;
		test_crew_run(RACERS + 2, push_or_close, &race);
		expect_eq(pieces_done, race.accepted);
		gyre__offload_free(race.pool);
	}
}

static void push_and_wait_in_turn(void *arg, unsigned number)
{
	unsigned times = test_times(2000), i;
	struct piece piece = { 0 };

	(void)number;
	for (i = 0; i < times; i++) {
		push_and_await(arg, &piece);
		if (i % 16 == number)
			sched_yield();
	}
}

/* Helpers come and go all the time; whoever waits for its work gets it. */
TEST(nobody_waits_for_ever_while_helpers_come_and_go)
{
	struct gyre__offload *pool = open_pool(3, 20 * GYRE__NS_PER_US);

	test_crew_run(RACERS, push_and_wait_in_turn, pool);
	await(live(pool) == 0);
	close_and_free(pool);
}

/* -------------------------------------------------------------- failures -- */

TEST(push_that_can_start_no_first_helper_says_why)
{
	struct gyre__offload *pool;
	struct piece piece = { 0 };

	gyre__fault_install();
	pool = open_pool(2, LONG_NS);
	gyre__fault_set(GYRE__FAULT_thread_start, 0, 1, -EAGAIN);
	expect_eq(push(pool, &piece), -EAGAIN);
	gyre__fault_set(GYRE__FAULT_alloc, 0, 1, -ENOMEM);
	expect_eq(push(pool, &piece), -ENOMEM);
	expect_eq(live(pool), 0);
	push_and_await(pool, &piece);
	expect_eq(piece.runs, 1);
	close_and_free(pool);
	gyre__fault_remove();
}

TEST(pool_without_memory_is_not_opened)
{
	const struct gyre__offload_config config = { .name = "test", .threads_max = 1 };
	struct gyre__offload *pool = NULL;

	gyre__fault_install();
	gyre__fault_set(GYRE__FAULT_alloc, 0, 1, -ENOMEM);
	expect_eq(gyre__offload_open(&config, &pool), -ENOMEM);
	expect(!pool);
	gyre__fault_remove();
}

TEST(work_that_gets_no_thread_of_its_own_waits_for_a_busy_one)
{
	struct gyre__offload *pool;
	_Atomic bool gate = false;
	struct piece first = { .gate = &gate }, pieces[2] = { { 0 } };

	gyre__fault_install();
	pool = open_pool(4, LONG_NS);
	expect_eq(push(pool, &first), 0);
	gyre__fault_set(GYRE__FAULT_thread_start, 0, GYRE__FAULT_FOREVER, -EAGAIN);
	expect_eq(push(pool, &pieces[0]), 0);
	expect_eq(push(pool, &pieces[1]), 0);
	expect_eq(live(pool), 1);
	gate = true;
	await(pieces_done == 3);
	expect_eq(pieces[1].tid, first.tid);
	expect_eq(gyre__fault_hits(GYRE__FAULT_thread_start), 2);
	close_and_free(pool);
	gyre__fault_remove();
}

TEST(helper_without_an_eventfd_works_and_ends)
{
	struct gyre__offload *pool;
	struct piece piece = { 0 };
	unsigned i;

	gyre__fault_install();
	pool = open_pool(2, LONG_NS);
	gyre__fault_set(GYRE__FAULT_eventfd, 0, 3, -EMFILE);
	for (i = 0; i < 3; i++) {
		push_and_await(pool, &piece);
		await(live(pool) == 0);
	}
	push_and_await(pool, &piece);
	await(idle(pool) == 1);
	close_and_free(pool);
	gyre__fault_remove();
}

TEST(helper_that_cannot_be_woken_is_passed_over)
{
	struct gyre__offload *pool;
	struct piece first = { 0 }, second = { 0 };

	gyre__fault_install();
	pool = open_pool(2, LONG_NS);
	push_and_await(pool, &first);
	await(idle(pool) == 1);
	gyre__fault_set(GYRE__FAULT_eventfd_write, 0, 1, -EIO);
	push_and_await(pool, &second);
	expect_ne(second.tid, first.tid);
	await(idle(pool) == 2);
	close_and_free(pool);
	gyre__fault_remove();
}

TEST(helper_that_cannot_be_woken_finds_work_and_close_when_its_time_is_over)
{
	struct gyre__offload *pool;
	struct piece piece = { 0 };
	unsigned i;

	gyre__fault_install();
	pool = open_pool(1, 20 * GYRE__NS_PER_MS);
	gyre__fault_set(GYRE__FAULT_eventfd_write, 0, GYRE__FAULT_FOREVER, -EIO);
	for (i = 0; i < 5; i++)
		push_and_await(pool, &piece);
	close_and_free(pool);
	gyre__fault_remove();
}

TEST(helper_that_cannot_empty_its_eventfd_works_and_ends)
{
	struct gyre__offload *pool;
	struct piece first = { 0 }, second = { 0 };

	gyre__fault_install();
	pool = open_pool(1, LONG_NS);
	push_and_await(pool, &first);
	await(idle(pool) == 1);
	gyre__fault_set(GYRE__FAULT_eventfd_read, 0, 1, -EIO);
	push_and_await(pool, &second);
	expect_eq(second.tid, first.tid);
	await(live(pool) == 0);
	close_and_free(pool);
	gyre__fault_remove();
}

/* The first descriptor that it sees is one that is no more. */
static int bad_descriptor(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	_Atomic int *bad = arg;
	int none = -1;

	(void)call;
	(void)site;
	if (atomic_compare_exchange_strong(bad, &none, fd))
		return -EBADF;
	expect_ne(fd, *bad);
	return 0;
}

TEST(eventfd_that_the_host_has_closed_is_not_written_again)
{
	struct gyre__offload *pool;
	struct piece pieces[WORKS] = { { 0 } };
	_Atomic int bad = -1;
	unsigned i;

	gyre__fault_install();
	gyre__fault_hook(GYRE__FAULT_eventfd_write, bad_descriptor, &bad);
	pool = open_pool(2, LONG_NS);
	push_and_await(pool, &pieces[0]);
	await(idle(pool) == 1);
	for (i = 1; i < WORKS; i++) {
		push_and_await(pool, &pieces[i]);
		expect_ne(pieces[i].tid, pieces[0].tid);
		await(idle(pool) == 2);
	}
	/* In truth it is open, and somebody has to end that long sleep. */
	expect_eq(gyre__sys_kernel.eventfd_write(bad), 0);
	await(live(pool) == 1);
	close_and_free(pool);
	gyre__fault_remove();
	expect_eq(close(bad), 0);
}

TEST(sleep_that_is_interrupted_goes_on_and_one_that_fails_is_over)
{
	struct gyre__offload *pool;
	struct piece first = { 0 }, second = { 0 };

	gyre__fault_install();
	pool = open_pool(1, LONG_NS);
	gyre__fault_set(GYRE__FAULT_poll, 0, 3, -EINTR);
	push_and_await(pool, &first);
	await(gyre__fault_count(GYRE__FAULT_poll) == 4);
	gyre__fault_set(GYRE__FAULT_poll, 0, 1, -ENOMEM);
	push_and_await(pool, &second);
	expect_eq(second.tid, first.tid);
	await(live(pool) == 0);
	close_and_free(pool);
	gyre__fault_remove();
}

/* ---------------------------------------------------- helpers that wait -- */

static void push_and_await_begun(struct gyre__offload *pool, struct piece *piece)
{
	expect_eq(push(pool, piece), 0);
	await(piece->begun);
}

static unsigned count(const struct gyre__offload_work *left)
{
	unsigned n;

	for (n = 0; left; left = left->next)
		n++;
	return n;
}

TEST(push_to_helpers_that_all_wait_is_refused)
{
	struct gyre__offload *pool = open_pool(2, LONG_NS);
	_Atomic bool gate = false;
	struct piece first = { .gate = &gate }, second = { .gate = &gate }, late = { 0 };
	_Atomic uint32_t waiting = 2;

	late.work.run = run_piece;
	push_and_await_begun(pool, &first);
	expect_eq(push(pool, &second), 0);
	expect_eq(gyre__offload_push(pool, &late.work, &waiting), -EDEADLK);
	waiting = 1;
	expect_eq(gyre__offload_push(pool, &late.work, &waiting), 0);
	gate = true;
	await(late.runs == 1);
	close_and_free(pool);
}

TEST(who_begins_to_wait_leaves_what_is_queued_to_another)
{
	struct gyre__offload *pool;
	_Atomic bool gate = false;
	struct piece first = { .gate = &gate }, second = { 0 };
	struct gyre__offload_work *left = NULL;
	const _Atomic uint32_t waiting = 1;

	gyre__fault_install();
	pool = open_pool(2, LONG_NS);
	push_and_await_begun(pool, &first);
	gyre__fault_set(GYRE__FAULT_thread_start, 0, 1, -EAGAIN);
	expect_eq(push(pool, &second), 0);
	expect_eq(live(pool), 1);
	expect_eq(gyre__offload_relieve(pool, &waiting, &left), 0);
	expect(!left);
	await(second.runs == 1);
	expect_eq(first.runs, 0);
	gate = true;
	close_and_free(pool);
	gyre__fault_remove();
}

/* There may be no more than the one that waits; or the second one cannot be started. */
TEST(what_nobody_can_come_to_is_given_back_and_not_run)
{
	unsigned helpers;

	gyre__fault_install();
	for (helpers = 1; helpers <= 2; helpers++) {
		struct gyre__offload *pool = open_pool(helpers, LONG_NS);
		_Atomic bool gate = false;
		struct piece first = { .gate = &gate }, pieces[2] = { { 0 } };
		_Atomic uint32_t waiting = 0;
		struct gyre__offload_work *left = NULL;

		test_row("%u helpers", helpers);
		push_and_await_begun(pool, &first);
		gyre__fault_set(GYRE__FAULT_thread_start, 0, GYRE__FAULT_FOREVER, -EAGAIN);
		expect_eq(push(pool, &pieces[0]), 0);
		expect_eq(push(pool, &pieces[1]), 0);
		/* It has only asked: it does not wait yet. */
		expect_eq(gyre__offload_relieve(pool, &waiting, &left), 0);
		expect(!left);
		waiting = 1;
		expect_eq(gyre__offload_relieve(pool, &waiting, &left),
			  helpers == 1 ? -EDEADLK : -EAGAIN);
		expect(left == &pieces[0].work);
		expect_eq(count(left), 2);
		expect_eq(gyre__offload_relieve(pool, &waiting, &left), 0);
		gyre__fault_clear();
		gate = true;
		await(idle(pool) == 1);
		expect_eq(pieces[0].runs + pieces[1].runs, 0);
		push_and_await(pool, &pieces[0]);
		close_and_free(pool);
	}
	gyre__fault_remove();
}

static void wait_in_close(void *arg, unsigned number)
{
	(void)number;
	gyre__offload_close(arg);
}

TEST(pool_that_is_being_closed_gives_back_what_nobody_can_come_to)
{
	struct gyre__offload *pool;
	_Atomic bool gate = false;
	struct piece first = { .gate = &gate }, second = { 0 }, late = { 0 };
	const _Atomic uint32_t waiting = 1;
	struct gyre__offload_work *left = NULL;
	struct test_crew closer;

	gyre__fault_install();
	pool = open_pool(2, LONG_NS);
	push_and_await_begun(pool, &first);
	gyre__fault_set(GYRE__FAULT_thread_start, 0, GYRE__FAULT_FOREVER, -EAGAIN);
	expect_eq(push(pool, &second), 0);
	late.work.run = run_piece;
	test_crew_start(&closer, 1, wait_in_close, pool);
	/* Refused as no other can be started, until it is refused as after a close. */
	await(gyre__offload_push(pool, &late.work, &gyre__offload_everybody) == -ESHUTDOWN);
	expect_eq(gyre__offload_relieve(pool, &waiting, &left), -ESHUTDOWN);
	expect_eq(count(left), 1);
	expect(left == &second.work);
	gate = true;
	test_crew_join(&closer);
	expect_eq(live(pool), 0);
	expect_eq(second.runs, 0);
	gyre__offload_free(pool);
	gyre__fault_remove();
}

/* ----------------------------------------------------------------- hooks -- */

static _Atomic unsigned begins, finishes;
static _Atomic int begin_error;
static _Atomic int begin_tid, finish_tid;

static int begin(void *arg)
{
	expect(arg == &begins);
	begins++;
	begin_tid = (int)syscall(SYS_gettid);
	return begin_error;
}

static void finish(void *arg)
{
	expect(arg == &begins);
	finishes++;
	finish_tid = (int)syscall(SYS_gettid);
}

static struct gyre__offload *open_hooked(uint64_t idle_ns)
{
	const struct gyre__offload_config config = {
		.name = "test",
		.threads_max = 2,
		.begin = begin,
		.finish = finish,
		.arg = &begins,
		.idle_ns = idle_ns,
	};
	struct gyre__offload *pool;

	expect_eq(gyre__offload_open(&config, &pool), 0);
	return pool;
}

TEST(hooks_run_in_each_helper_before_and_after_its_work)
{
	struct gyre__offload *pool = open_hooked(LONG_NS);
	struct piece piece = { 0 };

	push_and_await(pool, &piece);
	expect_eq(begins, 1);
	expect_eq(begin_tid, piece.tid);
	expect_eq(finishes, 0);
	gyre__offload_close(pool);
	expect_eq(finishes, 1);
	expect_eq(finish_tid, piece.tid);
	gyre__offload_free(pool);
}

TEST(hooks_of_a_helper_that_ends_by_itself_are_over_when_close_returns)
{
	struct gyre__offload *pool = open_hooked(SHORT_NS);
	struct piece piece = { 0 };
	unsigned i;

	for (i = 0; i < 5; i++) {
		push_and_await(pool, &piece);
		await(live(pool) == 0);
	}
	gyre__offload_close(pool);
	expect_eq(begins, 5);
	expect_eq(finishes, 5);
	gyre__offload_free(pool);
}

TEST(helper_that_could_not_begin_does_what_nobody_else_would)
{
	struct gyre__offload *pool = open_hooked(LONG_NS);
	struct piece piece = { 0 };

	begin_error = -ENOMEM;
	push_and_await(pool, &piece);
	await(live(pool) == 0);
	begin_error = 0;
	push_and_await(pool, &piece);
	await(idle(pool) == 1);
	gyre__offload_close(pool);
	expect_eq(begins, 2);
	expect_eq(finishes, 1);
	gyre__offload_free(pool);
}

TEST(helper_that_could_not_begin_leaves_its_work_to_the_others)
{
	struct gyre__offload *pool = open_hooked(LONG_NS);
	_Atomic bool gate = false;
	struct piece first = { .gate = &gate }, second = { 0 };

	push_and_await_begun(pool, &first);
	await(pieces_begun == 1);
	begin_error = -ENOMEM;
	expect_eq(push(pool, &second), 0);
	await(live(pool) == 1);
	expect_eq(second.runs, 0);
	gate = true;
	await(second.runs == 1);
	expect_eq(second.tid, first.tid);
	gyre__offload_close(pool);
	expect_eq(finishes, 1);
	gyre__offload_free(pool);
}

/* ------------------------------------------------------------------ fork -- */

static void free_in_child(void *arg)
{
	unsigned fds = test_count_fds();

	gyre__offload_free(arg);
	expect_eq(test_count_fds(), fds - 2);
}

TEST(forked_child_frees_what_it_cannot_close)
{
	struct gyre__offload *pool = open_pool(2, LONG_NS);
	_Atomic bool gate = false;
	struct piece busy = { .gate = &gate }, piece = { 0 },
		     queued[2] = { { .gate = &gate }, { 0 } };

	expect_eq(push(pool, &busy), 0);
	push_and_await(pool, &piece);
	await(idle(pool) == 1);
	test_in_child(free_in_child, pool);
	expect_eq(push(pool, &queued[0]), 0);
	expect_eq(push(pool, &queued[1]), 0);
	test_in_child(free_in_child, pool);
	gate = true;
	await(pieces_done == 4);
	close_and_free(pool);
}

TEST_MAIN()
