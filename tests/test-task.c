/* SPDX-License-Identifier: MIT */
/*
 * What a task may ask for: siblings and their ends, sleep, memory, clean-up;
 * and what it keeps for itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))
#define MS		UINT64_C(1000000)

static void run(gyre_task_fn *fn, void *arg)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, fn, arg);
	await(test_stat(rt, stacks_live) == 0);
	expect_eq(test_stat(rt, tasks_live), 0);
	expect_eq(test_stat(rt, arena_bytes), 0);
	gyre_free(rt);
}

static struct gyre_task *go(gyre_task_fn *fn, void *arg)
{
	struct gyre_task *task = NULL;

	if (gyre_go(fn, arg, &task) != GYRE_OK)
		test_fail("gyre_go: %s", gyre_last_error());
	return task;
}

/* ------------------------------------------------------------------ joins -- */

static int task_eight(void *arg)
{
	struct gyre_task *tasks[8];
	unsigned i;
	int result;

	(void)arg;
	for (i = 0; i < 8; i++)
		tasks[i] = go(test_task_return, (void *)(uintptr_t)(10 + i));
	for (i = 0; i < 8; i++) {
		expect_status(gyre_join(tasks[i], &result), GYRE_OK);
		expect_eq(result, 10 + i);
	}
	return 0;
}

static void eight_in_a_job(void *arg, unsigned number)
{
	(void)number;
	test_block_on(arg, task_eight, NULL);
}

TEST(scenario_6_job_spawns_eight_tasks_joins_them_and_each_has_run)
{
	struct gyre *rt = test_open_workers(2);

	test_block_on(rt, task_eight, NULL);
	expect_eq(test_stat(rt, tasks_started), 9);
	test_crew_run(12, eight_in_a_job, rt);
	expect_eq(test_stat(rt, tasks_started), 9 * 13);
	gyre_free(rt);
}

static int task_join_twice(void *arg)
{
	struct gyre_task *task = go(test_task_return, (void *)5);
	int result = 4711;

	(void)arg;
	expect_status(gyre_join(task, NULL), GYRE_OK);
	expect_status(gyre_join(task, &result), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_join");
	expect_eq(result, 4711);
	gyre_task_cancel(task);
	task = go(test_task_return, (void *)6);
	gyre_yield();		/* has ended, unjoined */
	gyre_task_cancel(task);
	expect_status(gyre_join(task, &result), GYRE_OK);
	expect_eq(result, 6);
	expect_status(gyre_join(task, &result), GYRE_INVALID);
	expect_status(gyre_join(NULL, &result), GYRE_INVALID);
	expect_status(gyre_join((struct gyre_task *)UINTPTR_MAX, &result), GYRE_INVALID);
	expect_status(gyre_join((struct gyre_task *)&result, &result), GYRE_INVALID);
	gyre_task_cancel(NULL);
	gyre_task_cancel((struct gyre_task *)UINTPTR_MAX);
	gyre_task_cancel((struct gyre_task *)&result);
	expect_eq(result, 6);
	return 0;
}

TEST(task_joined_twice_or_that_never_was_is_invalid)
{
	run(task_join_twice, NULL);
}

struct family {
	struct gyre_task *tasks[4];
	atomic_uint done;
	unsigned count;
};

static int task_join_the_other(void *arg)
{
	struct family *family = arg;

	gyre_yield();
	if (gyre_join(family->tasks[0], NULL) != GYRE_OK) {
		expect_status(gyre_last_status(), GYRE_INVALID);
		expect_contains(gyre_last_error(), "joins it already");
		family->done++;
	}
	return 0;
}

static int task_two_joiners(void *arg)
{
	struct family family = { .tasks = { NULL } };

	(void)arg;
	family.tasks[0] = go(test_task_sleep, NULL);
	family.tasks[1] = go(task_join_the_other, &family);
	family.tasks[2] = go(task_join_the_other, &family);
	while (family.done == 0)
		gyre_yield();
	gyre_task_cancel(family.tasks[0]);
	expect_status(gyre_join(family.tasks[1], NULL), GYRE_OK);
	expect_status(gyre_join(family.tasks[2], NULL), GYRE_OK);
	expect_eq(family.done, 1);
	return 0;
}

TEST(second_joiner_of_a_task_is_invalid)
{
	run(task_two_joiners, NULL);
}

static int task_join_self(void *arg)
{
	struct family *family = arg;

	expect_status(gyre_join(family->tasks[0], NULL), GYRE_WOULD_DEADLOCK);
	expect_contains(gyre_last_error(), "gyre_join");
	return 3;
}

static int task_with_self_joiner(void *arg)
{
	struct family family = { .tasks = { NULL } };
	int result;

	(void)arg;
	family.tasks[0] = go(task_join_self, &family);
	expect_status(gyre_join(family.tasks[0], &result), GYRE_OK);
	expect_eq(result, 3);
	return 0;
}

TEST(task_that_joins_itself_would_deadlock)
{
	run(task_with_self_joiner, NULL);
}

struct link {
	struct family *family;
	unsigned number;
};

static int task_link(void *arg)
{
	struct link *link = arg;
	struct family *family = link->family;
	enum gyre_status status;

	gyre_yield();
	status = gyre_join(family->tasks[(link->number + 1) % family->count], NULL);
	if (status != GYRE_OK) {
		expect_status(status, GYRE_WOULD_DEADLOCK);
		family->done++;
	}
	return 0;
}

static int task_circle(void *arg)
{
	struct link links[4];
	struct family family = { .count = *(unsigned *)arg };
	unsigned i;

	for (i = 0; i < family.count; i++) {
		links[i] = (struct link){ &family, i };
		family.tasks[i] = go(task_link, &links[i]);
	}
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(family.done, 1);
	return 0;
}

TEST(circle_of_joins_is_refused_at_its_last_link)
{
	unsigned count;

	for (count = 1; count <= 4; count++)
		run(task_circle, &count);
}

static int task_join_parent(void *arg)
{
	struct family *family = arg;

	gyre_yield();
	expect_status(gyre_join(family->tasks[0], NULL), GYRE_WOULD_DEADLOCK);
	family->done++;
	return 0;
}

static int task_parent(void *arg)
{
	go(task_join_parent, arg);
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

static int task_join_parent_first(void *arg)
{
	struct family *family = arg;

	family->done++;
	expect_status(gyre_join(family->tasks[0], NULL), GYRE_OK);
	return 0;
}

static int task_parent_comes_second(void *arg)
{
	struct family *family = arg;
	unsigned before = family->done;

	go(task_join_parent_first, arg);
	while (family->done == before)
		gyre_yield();
	expect_status(gyre_join_all(), GYRE_WOULD_DEADLOCK);
	expect_contains(gyre_last_error(), "gyre_join_all");
	return 0;
}

static int task_parents(void *arg)
{
	struct family family = { .tasks = { NULL } };

	(void)arg;
	family.tasks[0] = go(task_parent, &family);
	expect_status(gyre_join(family.tasks[0], NULL), GYRE_OK);
	expect_eq(family.done, 1);
	family.tasks[0] = go(task_parent_comes_second, &family);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(family.done, 2);
	return 0;
}

TEST(join_all_and_a_child_that_joins_its_parent_do_not_wait_for_each_other)
{
	run(task_parents, NULL);
}

static int task_join_foreign(void *arg)
{
	struct family *family = arg;

	expect_status(gyre_join(family->tasks[0], NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_join");
	gyre_task_cancel(family->tasks[0]);
	return 0;
}

static int task_lend_a_child(void *arg)
{
	struct family family = { .tasks = { NULL } };
	struct gyre_job_options options = { .size = sizeof(options) };
	unsigned worker;
	int result;

	(void)arg;
	family.tasks[0] = go(test_task_sleep, &family.done);
	for (worker = 0; worker < 2; worker++) {
		options.worker = GYRE_WORKER(worker);
		expect_status(gyre_block_on(NULL, task_join_foreign, &family, &options, NULL),
			      GYRE_OK);
	}
	gyre_yield();
	expect_eq(family.done, 1);	/* it still sleeps: nobody has cancelled it */
	gyre_task_cancel(family.tasks[0]);
	expect_status(gyre_join(family.tasks[0], &result), GYRE_OK);
	return 0;
}

TEST(task_of_another_job_or_worker_is_neither_joined_nor_cancelled)
{
	struct gyre *rt = test_open_workers(2);

	test_block_on(rt, task_lend_a_child, NULL);
	gyre_free(rt);
}

static int task_grandchild(void *arg)
{
	struct family *family = arg;

	gyre_yield();
	family->done++;
	return 0;
}

static int task_child(void *arg)
{
	go(task_grandchild, arg);
	return 0;
}

static int task_join_all_children(void *arg)
{
	struct family family = { .tasks = { NULL } };
	struct gyre_task *task;
	unsigned i;

	(void)arg;
	expect_status(gyre_join_all(), GYRE_OK);
	for (i = 0; i < 100; i++)
		task = go(task_grandchild, &family);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(family.done, 100);
	expect_status(gyre_join(task, NULL), GYRE_INVALID);
	/* A child's child is not mine, whoever has ended first. */
	go(task_child, &family);
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

TEST(join_all_waits_for_every_task_that_the_current_one_started)
{
	run(task_join_all_children, NULL);
}

/* Each joins the one that was started before it: when the first is told to end, all are. */
static int task_join_before(void *arg)
{
	expect_status(gyre_join(arg, NULL), GYRE_OK);
	return 0;
}

static int task_long_chain(void *arg)
{
	struct gyre_task *task = go(test_task_sleep, NULL);
	unsigned i;

	for (i = 0; i < *(unsigned *)arg; i++)
		task = go(task_join_before, task);
	gyre_yield();
	return 0;
}

TEST(job_with_a_long_chain_of_joins_ends)
{
	unsigned length = 5000;

	run(task_long_chain, &length);
}

static int task_cancel_long_chain(void *arg)
{
	struct gyre_task *task = go(test_task_sleep, NULL);
	unsigned i;

	for (i = 0; i < *(unsigned *)arg; i++)
		task = go(task_join_before, task);
	gyre_yield();
	gyre_task_cancel(task);
	expect_status(gyre_join(task, NULL), GYRE_OK);
	return 0;
}

TEST(task_cancel_reaches_the_end_of_a_long_chain_of_joins)
{
	unsigned length = 5000;

	run(task_cancel_long_chain, &length);
}

static int task_deeper(void *arg)
{
	unsigned *left = arg;

	if (*left == 0)
		return 0;
	--*left;
	go(task_deeper, left);
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

TEST(tree_of_tasks_that_join_all_may_be_deep)
{
	unsigned depth = 5000;

	run(task_deeper, &depth);
}

/* ----------------------------------------------------------------- cancel -- */

static int task_cancel_child(void *arg)
{
	struct gyre_task *task;
	atomic_uint asleep = 0;
	int result = 4711;

	(void)arg;
	task = go(test_task_sleep, &asleep);
	gyre_yield();
	expect_eq(asleep, 1);
	gyre_task_cancel(task);
	gyre_task_cancel(task);
	expect_status(gyre_join(task, &result), GYRE_OK);
	expect_eq(result, 0);
	expect_eq(gyre_cancelled(), 0);
	/* Before its first line. */
	task = go(test_task_sleep, NULL);
	gyre_task_cancel(task);
	expect_status(gyre_join(task, &result), GYRE_OK);
	task = go(test_task_refuse, NULL);
	gyre_task_cancel(task);
	result = 4711;
	expect_status(gyre_join(task, &result), GYRE_CANCELLED);
	expect_contains(gyre_last_error(), "dropped");
	expect_eq(gyre_last_effect(), GYRE_EFFECT_UNKNOWN);
	expect_eq(result, 4711);
	return 0;
}

TEST(cancelled_task_is_told_at_its_waits_and_dropped_when_it_refuses)
{
	run(task_cancel_child, NULL);
}

static int task_all_waits(void *arg)
{
	struct gyre_task *task = go(test_task_sleep, NULL);
	struct gyre_op op = test_op(prep_nop, NULL);
	int res = 4711;

	(void)arg;
	expect_status(gyre_sleep(GYRE_FOREVER), GYRE_CANCELLED);
	expect_eq(gyre_cancelled(), 1);
	expect_status(gyre_sleep(0), GYRE_CANCELLED);
	expect_status(gyre_sleep(1), GYRE_CANCELLED);
	expect_contains(gyre_last_error(), "gyre_sleep");
	expect_status(gyre_call(NULL, prep_nop, NULL, &res), GYRE_CANCELLED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_eq(res, 4711);
	expect_status(gyre_callv(NULL, &op, 1), GYRE_CANCELLED);
	expect_op(&op, GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	expect_status(gyre_block_on(NULL, test_task_return, NULL, NULL, NULL), GYRE_CANCELLED);
	expect_status(gyre_join(task, &res), GYRE_OK);
	expect_eq(res, 0);
	expect_status(gyre_join_all(), GYRE_CANCELLED);
	expect(gyre_alloc(10) != NULL);
	expect_status(gyre_go(test_task_sleep, NULL, NULL), GYRE_OK);
	return 6;
}

static int task_watch_all_waits(void *arg)
{
	struct gyre_task *task = go(task_all_waits, arg);
	int result;

	gyre_yield();
	gyre_task_cancel(task);
	expect_status(gyre_join(task, &result), GYRE_OK);
	expect_eq(result, 6);
	return 0;
}

TEST(every_wait_of_a_cancelled_task_says_cancelled)
{
	run(task_watch_all_waits, NULL);
}

static int task_join_and_be_cancelled(void *arg)
{
	struct gyre_task *task = go(test_task_sleep, arg);
	int result = 4711;

	expect_status(gyre_join(task, &result), GYRE_OK);
	expect_eq(result, 0);
	expect_eq(gyre_cancelled(), 1);
	return 0;
}

static int task_join_all_and_be_cancelled(void *arg)
{
	unsigned i;

	for (i = 0; i < 10; i++)
		go(test_task_sleep, arg);
	expect_status(gyre_join_all(), GYRE_CANCELLED);
	return 0;
}

static int task_cancel_joiners(void *arg)
{
	atomic_uint asleep = 0;
	struct gyre_task *one = go(task_join_and_be_cancelled, &asleep);
	struct gyre_task *all = go(task_join_all_and_be_cancelled, &asleep);

	(void)arg;
	while (asleep != 11)
		gyre_yield();
	gyre_task_cancel(one);
	gyre_task_cancel(all);
	expect_status(gyre_join(one, NULL), GYRE_OK);
	expect_status(gyre_join(all, NULL), GYRE_OK);
	return 0;
}

TEST(join_in_a_cancelled_task_cancels_what_it_waits_for_and_returns_once_that_has_ended)
{
	run(task_cancel_joiners, NULL);
}

/* ----------------------------------------------------------------- defers -- */

struct diary {
	char text[64];
	unsigned len;
	bool waits;
	struct gyre *rt;
};

struct entry {
	struct diary *diary;
	char letter;
};

static void note(void *arg)
{
	struct entry *entry = arg;
	struct diary *diary = entry->diary;

	if (diary->waits) {
		expect_status(gyre_sleep(MS), GYRE_OK);
		expect_status(gyre_call(NULL, prep_nop, NULL, NULL), GYRE_OK);
		expect_eq(test_block_on(NULL, test_task_return, (void *)1), 1);
	}
	diary->text[diary->len++] = entry->letter;
}

static void defer_note(struct diary *diary, char letter)
{
	struct entry *entry = gyre_alloc(sizeof(*entry));

	expect(entry != NULL);
	*entry = (struct entry){ diary, letter };
	expect_status(gyre_defer(note, entry), GYRE_OK);
}

static void note_and_defer(void *arg)
{
	struct entry *entry = arg;

	note(arg);
	defer_note(entry->diary, 'n');
}

static int task_defer_and(void *arg, gyre_task_fn *fn)
{
	struct diary *diary = arg;
	struct entry *entry = gyre_alloc(sizeof(*entry));

	*entry = (struct entry){ diary, 'd' };
	defer_note(diary, 'a');
	defer_note(diary, 'b');
	defer_note(diary, 'c');
	expect_status(gyre_defer(note_and_defer, entry), GYRE_OK);
	return fn(NULL);
}

static int task_defer_and_return(void *arg)
{
	return task_defer_and(arg, test_task_return);
}

static int task_defer_and_sleep(void *arg)
{
	return task_defer_and(arg, test_task_sleep);
}

static int task_defer_and_refuse(void *arg)
{
	return task_defer_and(arg, test_task_refuse);
}

static int panic(void *arg)
{
	(void)arg;
	gyre_panic("as told");
}

static int task_defer_and_panic(void *arg)
{
	return task_defer_and(arg, panic);
}

TEST(defers_run_last_in_first_out_however_a_task_ends_and_may_wait)
{
	static const struct {
		const char *what;
		gyre_task_fn *fn;
		enum gyre_status status;
		bool cancel;
	} rows[] = {
		{ "return", task_defer_and_return, GYRE_OK, false },
		{ "cancel", task_defer_and_sleep, GYRE_CANCELLED, true },
		{ "drop", task_defer_and_refuse, GYRE_CANCELLED, true },
		{ "panic", task_defer_and_panic, GYRE_RESPONSE_LOST, false },
	};
	struct gyre *rt = test_open_workers(1);
	unsigned i;

	for (i = 0; i < 2 * LENGTH(rows); i++) {
		struct diary diary = { .waits = i % 2 };
		struct gyre_job *job;

		test_row("%s%s", rows[i / 2].what, diary.waits ? ", waiting" : "");
		job = test_spawn(rt, rows[i / 2].fn, &diary);
		if (rows[i / 2].cancel)
			gyre_job_cancel(job);
		expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), rows[i / 2].status);
		expect_str(diary.text, "dncba");
	}
	gyre_free(rt);
}

static int task_sibling_with_defers(void *arg)
{
	return task_defer_and(arg, test_task_refuse);
}

static int task_leave_siblings(void *arg)
{
	struct diary *diaries = arg;
	unsigned i;

	for (i = 0; i < 3; i++)
		go(task_sibling_with_defers, &diaries[i]);
	gyre_yield();
	return 0;
}

TEST(defers_of_tasks_left_over_have_run_when_the_job_is_answered)
{
	struct gyre *rt = test_open_workers(1);
	struct diary diaries[3] = { { .waits = true }, { .waits = false }, { .waits = true } };
	unsigned i;

	test_block_on(rt, task_leave_siblings, diaries);
	for (i = 0; i < 3; i++)
		expect_str(diaries[i].text, "dncba");
	expect_eq(test_stat(rt, tasks_leftover), 3);
	gyre_free(rt);
}

static void defer_forever(void *arg)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
	expect_status(gyre_sleep(GYRE_FOREVER), GYRE_CANCELLED);
	expect_status(gyre_sleep(GYRE_FOREVER), GYRE_CANCELLED);
	expect_status(gyre_call(NULL, prep_nop, NULL, NULL), GYRE_CANCELLED);
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static int task_defer_forever(void *arg)
{
	expect_status(gyre_defer(defer_forever, arg), GYRE_OK);
	return 5;
}

TEST(defer_that_waits_for_ever_is_told_when_the_drain_is_over)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .drain_ns = MS };
	struct gyre *rt = test_open(&options);
	atomic_uint turns = 0;
	struct gyre_job *job = test_spawn(rt, task_defer_forever, &turns);

	await(turns == 1);
	gyre_job_cancel(job);		/* does not disturb it */
	expect_status(gyre_close(rt), GYRE_OK);
	expect_eq(turns, 2);
	expect_status(gyre_job_wait(job, 0, NULL), GYRE_CANCELLED);
	gyre_free(rt);
}

/* ----------------------------------------------------------------- memory -- */

static int task_alloc(void *arg)
{
	static const size_t too_much[] = { SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2, (size_t)1 << 40,
					   (1 << 20) + 1 };
	char *one = gyre_alloc(0), *other = gyre_alloc(0);
	unsigned i;

	(void)arg;
	expect(one && other && one != other);
	for (i = 0; i < LENGTH(too_much); i++) {
		expect(!gyre_alloc(too_much[i]));
		expect_status(gyre_last_status(), GYRE_NO_MEMORY);
		expect_contains(gyre_last_error(), "gyre_alloc");
		expect(!gyre_alloc_aligned(too_much[i], 64));
		expect_contains(gyre_last_error(), "gyre_alloc_aligned");
	}
	for (i = 0; i < 100; i++) {
		char *bytes = gyre_alloc(i);

		expect_eq((uintptr_t)bytes % _Alignof(max_align_t), 0);
		memset(bytes, 0xff, i);
	}
	for (i = 0; i < 13; i++)
		expect_eq((uintptr_t)gyre_alloc_aligned(3, (size_t)1 << i) % ((size_t)1 << i), 0);
	expect(!gyre_alloc_aligned(3, 0));
	expect_status(gyre_last_status(), GYRE_INVALID);
	expect(!gyre_alloc_aligned(3, 24));
	expect(!gyre_alloc_aligned(3, SIZE_MAX));
	expect(!gyre_alloc_aligned(3, SIZE_MAX / 2 + 1));
	expect_str(gyre_strdup("spin"), "spin");
	expect_str(gyre_strdup(""), "");
	expect(!gyre_strdup(NULL));
	expect_status(gyre_last_status(), GYRE_INVALID);
	while (gyre_alloc(1000))
		;
	while (gyre_alloc(1))
		;
	expect(!gyre_strdup("spin"));
	expect_contains(gyre_last_error(), "gyre_strdup");
	expect_status(gyre_defer(note, NULL), GYRE_NO_MEMORY);
	expect_contains(gyre_last_error(), "gyre_defer");
	expect_status(gyre_go(test_task_return, NULL, NULL), GYRE_OK);
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

TEST(arena_has_a_limit_and_aligns)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.arena_max = 1 << 20 };
	struct gyre *rt = test_open(&options);

	test_block_on(rt, task_alloc, NULL);
	gyre_free(rt);
}

static int task_null_functions(void *arg)
{
	struct gyre_task *const untouched = (struct gyre_task *)(uintptr_t)0x1234;
	struct gyre_task *task = untouched;

	(void)arg;
	expect_status(gyre_go(NULL, NULL, &task), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_go");
	expect(task == untouched);
	expect_status(gyre_defer(NULL, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_defer");
	expect_status(gyre_spawn(NULL, NULL, NULL, NULL, NULL), GYRE_INVALID);
	expect_status(gyre_block_on(NULL, NULL, NULL, NULL, NULL), GYRE_INVALID);
	return 0;
}

TEST(null_functions_are_invalid_in_a_task)
{
	run(task_null_functions, NULL);
}

/* -------------------------------------------------------- what it keeps -- */

static int task_own_errno(void *arg)
{
	unsigned i;
	int mine = (int)(uintptr_t)arg;

	errno = mine;
	for (i = 0; i < 50; i++) {
		switch (i % 5) {
		case 0: gyre_yield(); break;
		case 1: gyre_sleep(1000); break;
		case 2: gyre_call(NULL, prep_nop, NULL, NULL); break;
		case 3: gyre_block_on(NULL, test_task_return, NULL, NULL, NULL); break;
		default: gyre_join((struct gyre_task *)1, NULL); break;
		}
		expect_eq(errno, mine);
	}
	return 0;
}

static int task_many_errnos(void *arg)
{
	uintptr_t i;

	(void)arg;
	for (i = 1; i < 100; i++)
		go(task_own_errno, (void *)i);
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

TEST(each_task_keeps_its_errno)
{
	run(task_many_errnos, NULL);
}

static int task_own_rounding(void *arg)
{
	static const int modes[] = { FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO };
	int mode = modes[(uintptr_t)arg % 4];
	unsigned i;

	expect_eq(fesetround(mode), 0);
	for (i = 0; i < 10; i++) {
		if (i % 2)
			gyre_yield();
		else
			gyre_sleep(1000);
		expect_eq(fegetround(), mode);
	}
	return 0;
}

static int task_default_rounding(void *arg)
{
	(void)arg;
	expect_eq(fegetround(), FE_TONEAREST);
	return 0;
}

static int task_many_roundings(void *arg)
{
	uintptr_t i;

	(void)arg;
	for (i = 0; i < 20; i++)
		go(task_own_rounding, (void *)i);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_eq(fegetround(), FE_TONEAREST);
	return fesetround(FE_UPWARD);
}

TEST(each_task_keeps_its_floating_point_environment_and_no_job_passes_it_on)
{
	struct gyre *rt = test_open_workers(1);
	unsigned i;

	for (i = 0; i < 3; i++) {
		test_block_on(rt, task_many_roundings, NULL);
		test_block_on(rt, task_default_rounding, NULL);
	}
	gyre_free(rt);
}

static int task_own_last_error(void *arg)
{
	uintptr_t mine = (uintptr_t)arg;

	if (mine % 2)
		expect_status(gyre_join(NULL, NULL), GYRE_INVALID);
	else
		expect_status(gyre_sleep(0), GYRE_OK);
	gyre_yield();
	expect_status(gyre_last_status(), mine % 2 ? GYRE_INVALID : GYRE_OK);
	expect_contains(gyre_last_error(), mine % 2 ? "gyre_join" : "no error");
	return 0;
}

static int task_many_last_errors(void *arg)
{
	uintptr_t i;

	(void)arg;
	for (i = 0; i < 20; i++)
		go(task_own_last_error, (void *)i);
	expect_status(gyre_join_all(), GYRE_OK);
	expect_status(gyre_last_status(), GYRE_OK);
	return 0;
}

TEST(each_task_has_its_own_last_error)
{
	run(task_many_last_errors, NULL);
}

/* Where its frame lies, and what another has left behind there. */
struct trace {
	const void *frame;
	unsigned defers;
};

static void count_defer(void *arg)
{
	struct trace *trace = arg;

	trace->defers++;
}

static int task_leaves_traces(void *arg)
{
	struct trace *trace = arg;

	trace->frame = __builtin_frame_address(0);
	expect_eq(errno, 0);
	expect_eq(fegetround(), FE_TONEAREST);
	expect_eq(gyre_cancelled(), 0);
	expect_status(gyre_last_status(), GYRE_OK);
	errno = EBADF;
	expect_eq(fesetround(FE_UPWARD), 0);
	expect_status(gyre_defer(count_defer, trace), GYRE_OK);
	expect_status(gyre_join(NULL, NULL), GYRE_INVALID);
	return 0;
}

static int task_one_after_the_other(void *arg)
{
	enum { COUNT = 40 };
	struct trace traces[COUNT] = { 0 };
	struct gyre_task *tasks[COUNT];
	unsigned i, same = 0;

	(void)arg;
	for (i = 0; i < COUNT; i++)
		tasks[i] = go(task_leaves_traces, &traces[i]);
	for (i = 0; i < COUNT; i++)
		expect_status(gyre_join(tasks[i], NULL), GYRE_OK);
	for (i = 0; i < COUNT; i++) {
		expect_eq(traces[i].defers, 1);
		same += i > 0 && traces[i].frame == traces[i - 1].frame;
	}
#if defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__)) && \
	!defined(GYRE_FIBER_UCONTEXT)
	expect_gt(same, COUNT / 2);	/* elsewhere each has its own */
#else
	(void)same;
#endif
	return 0;
}

TEST(task_that_begins_on_the_stack_of_another_finds_nothing_of_it)
{
	run(task_one_after_the_other, NULL);
}

static int task_sleeps_then_counts(void *arg)
{
	char depth[1024];

	memset(depth, 1, sizeof(depth));
	__asm__ volatile("" : : "r"(depth) : "memory");
	gyre_sleep(1000);
	return depth[(uintptr_t)arg % sizeof(depth)];
}

/* Some of them wait, and keep their stacks: who follows gets others. */
static int task_waits_between(void *arg)
{
	struct gyre_task *tasks[300];
	unsigned i;
	int result;

	(void)arg;
	for (i = 0; i < 300; i++)
		tasks[i] = i % 3 ? go(test_task_return, (void *)(uintptr_t)i) :
				   go(task_sleeps_then_counts, (void *)(uintptr_t)i);
	for (i = 300; i-- > 0;) {
		expect_status(gyre_join(tasks[i], &result), GYRE_OK);
		expect_eq(result, i % 3 ? i : 1);
	}
	return 0;
}

TEST(tasks_that_wait_keep_their_stacks_while_others_follow_one_another)
{
	run(task_waits_between, NULL);
}

/* ------------------------------------------------------------- great ones -- */

static int task_hundred_thousand(void *arg)
{
	unsigned count = *(unsigned *)arg, i;
	atomic_uint asleep = 0;

	for (i = 0; i < count; i++)
		if (gyre_go(test_task_sleep, &asleep, NULL) != GYRE_OK)
			test_fail("task %u: %s", i, gyre_last_error());
	while (asleep != count)
		gyre_yield();
	return 0;
}

TEST(hundred_thousand_tasks_are_alive_at_once)
{
	unsigned count = TEST_UNDER_SANITIZER ? 5000 : 100000;
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_hundred_thousand, &count);
	await(test_stat(rt, stacks_live) == 0);
	expect_eq(test_stat(rt, tasks_started), count + 1);
	expect_eq(test_stat(rt, tasks_leftover), count);
	gyre_free(rt);
}

__attribute__((__noinline__)) static unsigned dig(unsigned depth, volatile unsigned char *above)
{
	volatile unsigned char frame[512];

	frame[0] = above[0];
	frame[511] = (unsigned char)depth;
	return depth == 0 ? frame[0] : dig(depth - 1, frame) + frame[511];
}

static int task_dig(void *arg)
{
	unsigned char first = 1;

	return (int)dig(*(unsigned *)arg, &first);
}

static void overflow_in_child(void *arg)
{
	struct gyre *rt = test_open_workers(1);
	unsigned depth = 1u << 20;

	(void)arg;
	signal(SIGSEGV, SIG_DFL);
	test_block_on(rt, task_dig, &depth);
}

TEST(overflow_of_a_tasks_stack_hits_the_guard)
{
	int status;
	pid_t pid;

	if (TEST_UNDER_SANITIZER)
		test_skip("a sanitizer has frames and signals of its own");
	fflush(NULL);
	pid = fork();
	expect_ge(pid, 0);
	if (pid == 0) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		overflow_in_child(NULL);
		_exit(0);
	}
	expect_eq(waitpid(pid, &status, 0), pid);
	expect(WIFSIGNALED(status));
	expect_eq(WTERMSIG(status), SIGSEGV);
}

TEST(stack_is_as_large_as_was_asked_for)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_job_options options = { .size = sizeof(options), .stack_size = 8 << 20 };
	unsigned depth = 10000;		/* about 5 MiB */

	if (TEST_UNDER_SANITIZER)
		depth /= 8;
	expect_status(gyre_block_on(rt, task_dig, &depth, &options, NULL), GYRE_OK);
	gyre_free(rt);
}

/* ------------------------------------------------------ yield, fairness -- */

struct order {
	unsigned seen[6], count;
};

static int task_note_order(void *arg)
{
	struct order *order = arg;

	order->seen[order->count]++;
	return 0;
}

static int task_yield_once(void *arg)
{
	struct order order = { .count = 0 };
	unsigned i;

	(void)arg;
	for (i = 0; i < 6; i++)
		go(task_note_order, &order);
	expect_eq(order.seen[0], 0);
	gyre_yield();
	expect_eq(order.seen[0], 6);	/* all that were ready have run */
	return 0;
}

TEST(yield_lets_all_run_that_are_ready)
{
	run(task_yield_once, NULL);
}

static int task_spin_and_yield(void *arg)
{
	while (!atomic_load((atomic_uint *)arg))
		gyre_yield();
	return 0;
}

TEST(tasks_that_yield_without_end_keep_nobody_out)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_job *jobs[3];
	atomic_uint flag = 0;
	unsigned i;

	for (i = 0; i < 3; i++)
		jobs[i] = test_spawn(rt, task_spin_and_yield, &flag);
	for (i = 0; i < 20; i++) {
		expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
		expect_eq(test_block_on(rt, test_task_return, (void *)1), 1);
	}
	atomic_store(&flag, 1);
	for (i = 0; i < 3; i++)
		expect_status(gyre_job_wait(jobs[i], GYRE_FOREVER, NULL), GYRE_OK);
	gyre_free(rt);
}

/* -------------------------------------------------------- not in a task -- */

TEST(sleep_on_a_plain_thread_sleeps)
{
	expect_status(gyre_sleep(0), GYRE_OK);
	expect_status(gyre_sleep(MS), GYRE_OK);
	expect_status(gyre_last_status(), GYRE_OK);
	gyre_yield();
	expect_eq(gyre_cancelled(), 0);
}

TEST_MAIN()
