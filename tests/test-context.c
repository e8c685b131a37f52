/* SPDX-License-Identifier: MIT */
/* lib/context: what is set is the caller's own, stays where it is, and has its bounds. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "helpers.h"
#include "leak.h"
#include "lib/context.h"
#include "lib/thread.h"
#include "ring/sys_fault.h"

static char *text_of(size_t len, char c)
{
	char *text = malloc(len + 1);

	expect(text);
	memset(text, c, len);
	text[len] = '\0';
	return text;
}

static void set(const char *name, const char *value)
{
	expect_status(gyre_context_set(name, value), GYRE_OK);
}

static void expect_value(const char *name, const char *value)
{
	expect(gyre_context_get(name));
	expect_str(gyre_context_get(name), value);
}

/* "a=1;b=2;": all pairs in their order. */
static void append_pair(const char *name, const char *value, void *arg)
{
	char *at = arg;

	at += strlen(at);
	sprintf(at, "%s=%s;", name, value);
}

static void expect_pairs(const char *pairs)
{
	char text[4096] = "";

	gyre_context_each(append_pair, text);
	expect_str(text, pairs);
}

/* -------------------------------------------------------- set and get -- */

TEST(thread_that_never_called_has_no_pairs)
{
	expect(!gyre_context_get("a"));
	expect_pairs("");
	gyre_context_clear();
	expect_eq(leak_allocations(), 0);
}

TEST(what_is_set_is_got_replaced_and_removed)
{
	set("a", "1");
	set("b", "2");
	expect_value("a", "1");
	expect_pairs("a=1;b=2;");
	set("a", "3");
	expect_pairs("a=3;b=2;");
	expect(!gyre_context_get("c"));
	expect(!gyre_context_get("A"));
	set("a", NULL);
	expect(!gyre_context_get("a"));
	set("a", "");
	expect_value("a", "");
	expect_pairs("b=2;a=;");
	set("c", NULL);
	expect_pairs("b=2;a=;");
	gyre_context_clear();
	expect_pairs("");
	set("d", "4");
	expect_pairs("d=4;");
}

TEST(name_and_value_are_copied)
{
	char name[] = "name", value[] = "value";

	set(name, value);
	memset(name, 'x', 4);
	memset(value, 'x', 5);
	expect_pairs("name=value;");
}

TEST(name_and_value_may_be_ones_that_were_given_out)
{
	set("a", "b");
	set("a", gyre_context_get("a"));
	expect_value("a", "b");
	set(gyre_context_get("a"), gyre_context_get("a"));
	expect_pairs("a=b;b=b;");
	set(gyre_context_get("b"), NULL);
	expect_pairs("a=b;");
	set(gyre_context_get("a"), "c");
	expect_pairs("a=b;b=c;");
}

TEST(value_stays_where_it_is_while_other_names_are_set)
{
	const char *value;
	char name[16];
	unsigned i;

	set("mine", "1");
	value = gyre_context_get("mine");
	for (i = 0; i < GYRE__CONTEXT_PAIRS_MAX - 1; i++) {
		sprintf(name, "%u", i);
		set(name, "2");
	}
	for (i = 0; i < GYRE__CONTEXT_PAIRS_MAX - 1; i++) {
		sprintf(name, "%u", i);
		set(name, i % 2 ? "3" : NULL);
	}
	expect(gyre_context_get("mine") == value);
	expect_str(value, "1");
}

TEST(names_are_gone_when_the_last_is_removed)
{
	unsigned before;

	set("a", "1");
	set("a", NULL);
	before = leak_allocations();
	set("a", "1");
	expect_eq(leak_allocations(), before + 2);
	set("a", NULL);
	expect_eq(leak_allocations(), before);
}

/* -------------------------------------------------------------- refusals -- */

static void expect_refused(const char *name, const char *value, enum gyre_status status,
			   const char *reason)
{
	expect_status(gyre_context_set(name, value), status);
	expect_eq(gyre_last_status(), status);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_contains(gyre_last_error(), "gyre_context_set: ");
	expect_contains(gyre_last_error(), reason);
}

TEST(name_has_to_be_there_and_no_longer_than_its_bound)
{
	char *longest = text_of(GYRE__CONTEXT_NAME_MAX, 'n');
	char *longer = text_of(GYRE__CONTEXT_NAME_MAX + 1, 'n');

	expect_refused(NULL, "1", GYRE_INVALID, "NULL");
	expect_refused(NULL, NULL, GYRE_INVALID, "NULL");
	expect_refused("", "1", GYRE_INVALID, "empty");
	expect_refused("", NULL, GYRE_INVALID, "empty");
	expect_refused(longer, "1", GYRE_INVALID, "255");
	expect_refused(longer, NULL, GYRE_INVALID, "255");
	set(longest, "1");
	expect_eq(gyre_last_status(), GYRE_OK);
	expect_value(longest, "1");
	expect(!gyre_context_get(longer));
	expect(!gyre_context_get(NULL));
	expect(!gyre_context_get(""));
	free(longest);
	free(longer);
}

TEST(value_is_no_longer_than_its_bound)
{
	char *longest = text_of(GYRE__CONTEXT_VALUE_MAX, 'v');
	char *longer = text_of(GYRE__CONTEXT_VALUE_MAX + 1, 'v');
	char *megabyte = text_of(1 << 20, 'v');

	set("a", "1");
	expect_refused("a", longer, GYRE_INVALID, "65536");
	expect_refused("a", megabyte, GYRE_INVALID, "65536");
	expect_value("a", "1");
	set("a", longest);
	expect_value("a", longest);
	free(longest);
	free(longer);
	free(megabyte);
}

TEST(context_has_no_more_names_than_its_bound)
{
	char name[16];
	unsigned i;

	for (i = 0; i < GYRE__CONTEXT_PAIRS_MAX; i++) {
		sprintf(name, "%u", i);
		set(name, name);
	}
	expect_refused("one more", "1", GYRE_NO_MEMORY, "64");
	expect(!gyre_context_get("one more"));
	set("0", "replaced");
	set("1", NULL);
	set("one more", "1");
	expect_refused("1", "1", GYRE_NO_MEMORY, "64");
	expect_value("0", "replaced");
	expect_value("63", "63");
	expect_value("one more", "1");
}

TEST(context_has_no_more_bytes_than_its_bound)
{
	char *value = text_of(GYRE__CONTEXT_VALUE_MAX - 2, 'v');
	char name[16];
	unsigned i;

	for (i = 0; i < 16; i++) {
		sprintf(name, "%02u", i);
		set(name, value);
	}
	expect_refused("n", "", GYRE_NO_MEMORY, "1048576");
	value[GYRE__CONTEXT_VALUE_MAX - 3] = '\0';
	set("00", value);
	expect_refused("n", "1", GYRE_NO_MEMORY, "1048576");
	set("n", "");
	expect_refused("n", "1", GYRE_NO_MEMORY, "1048576");
	set("01", NULL);
	set("n", value);
	free(value);
}

/* Each step may fail: then all is as it was. */
static void expect_clean_failures(void (*change)(void), const char *before, const char *after)
{
	unsigned n, allocations = leak_allocations();

	for (n = 0;; n++) {
		enum gyre_status status;

		gyre__fault_clear();
		gyre__fault_set(GYRE__FAULT_alloc, n, 1, -ENOMEM);
		change();
		status = gyre_last_status();
		if (gyre__fault_hits(GYRE__FAULT_alloc) == 0)
			break;
		test_row("allocation %u", n);
		expect_status(status, GYRE_NO_MEMORY);
		expect_contains(gyre_last_error(), "out of memory");
		expect_eq(leak_allocations(), allocations);
		expect_pairs(before);
	}
	gyre__fault_clear();
	expect_gt(n, 0);
	expect_pairs(after);
}

static void change_a(void)
{
	gyre_context_set("a", "2");
}

static void add_c(void)
{
	gyre_context_set("c", "3");
}

static void remove_b(void)
{
	gyre_context_set("b", NULL);
}

TEST(failed_allocations_change_nothing)
{
	struct gyre__context *shared;

	set("z", "1");		/* so that the thread's own record is made */
	gyre_context_clear();
	gyre__fault_install();
	expect_clean_failures(add_c, "", "c=3;");
	gyre_context_clear();
	set("a", "1");
	set("b", "1");
	expect_clean_failures(change_a, "a=1;b=1;", "a=2;b=1;");
	shared = gyre__context_share(gyre__thread_self()->context);
	expect_clean_failures(add_c, "a=2;b=1;", "a=2;b=1;c=3;");
	gyre__context_drop(shared);
	shared = gyre__context_share(gyre__thread_self()->context);
	expect_clean_failures(remove_b, "a=2;b=1;c=3;", "a=2;c=3;");
	gyre__context_drop(shared);
	gyre__fault_remove();
}

static void *set_without_a_record(void *arg)
{
	(void)arg;
	gyre__fault_set(GYRE__FAULT_alloc, 0, 1, -ENOMEM);
	expect_status(gyre_context_set("a", "1"), GYRE_NO_MEMORY);
	expect(!gyre_context_get("a"));
	set("a", "1");
	expect_value("a", "1");
	return NULL;
}

TEST(thread_that_gets_no_record_is_told)
{
	pthread_t thread;

	gyre__fault_install();
	expect_eq(pthread_create(&thread, NULL, set_without_a_record, NULL), 0);
	pthread_join(thread, NULL);
	gyre__fault_remove();
}

/* ------------------------------------------------------------------ each -- */

struct meddling {
	void (*meddle)(const char *name);
	char seen[256];
};

static void see_and_meddle(const char *name, const char *value, void *arg)
{
	struct meddling *meddling = arg;

	meddling->meddle(name);
	append_pair(name, value, meddling->seen);	/* they must live still */
}

static void meddle_set(const char *name)
{
	set(name, "changed");
	set("new", name);
}

static void meddle_remove(const char *name)
{
	set(name, NULL);
}

static void meddle_clear(const char *name)
{
	(void)name;
	gyre_context_clear();
	set("new", "1");
}

static void meddle_each(const char *name)
{
	(void)name;
	expect_pairs("a=1;b=2;c=3;");
}

static void panic_at_pair(const char *name, const char *value, void *arg)
{
	(void)arg;
	gyre_panic("%s is %s", name, value);
}

static void each_panics(void *arg)
{
	gyre_context_each(panic_at_pair, arg);
}

static int task_panics_in_each(void *arg)
{
	set("a", "1");
	each_panics(arg);
	return 0;
}

static int task_panics_in_each_of_a_defer(void *arg)
{
	set("a", "1");
	expect_status(gyre_defer(each_panics, arg), GYRE_OK);
	expect_status(gyre_defer(each_panics, arg), GYRE_OK);
	return 0;
}

static void sleep_at_pair(const char *name, const char *value, void *arg)
{
	(void)name, (void)value, (void)arg;
	for (;;)
		gyre_sleep(GYRE_FOREVER);
}

static int task_sleeps_in_each(void *arg)
{
	set("a", "1");
	gyre_context_each(sleep_at_pair, arg);
	return 0;
}

/* Allocations that were left behind are found by the harness. */
TEST(who_ends_within_each_leaves_nothing_behind)
{
	struct gyre_job_options options = { .size = sizeof(options), .timeout_ns = 1000000 };
	struct gyre *rt = test_open_workers(1);

	set("of the caller", "1");
	expect_status(gyre_block_on(rt, task_panics_in_each, NULL, NULL, NULL),
		      GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "of the caller is 1");
	expect_status(gyre_block_on(rt, task_panics_in_each_of_a_defer, NULL, NULL, NULL),
		      GYRE_RESPONSE_LOST);
	expect_status(gyre_offload(rt, task_panics_in_each, NULL, NULL), GYRE_RESPONSE_LOST);
	expect_status(gyre_block_on(rt, task_sleeps_in_each, NULL, &options, NULL),
		      GYRE_TIMED_OUT);
	gyre_free(rt);
	gyre_context_clear();
}

TEST(each_sees_the_pairs_as_they_were_whatever_it_changes)
{
	static const struct {
		void (*meddle)(const char *name);
		const char *after;
	} rows[] = {
		{ meddle_set, "a=changed;b=changed;c=changed;new=c;" },
		{ meddle_remove, "" },
		{ meddle_clear, "new=1;" },
		{ meddle_each, "a=1;b=2;c=3;" },
	};
	struct meddling meddling;
	unsigned i;

	for (i = 0; i < 4; i++) {
		test_row("%u", i);
		gyre_context_clear();
		set("a", "1");
		set("b", "2");
		set("c", "3");
		meddling = (struct meddling){ .meddle = rows[i].meddle };
		gyre_context_each(see_and_meddle, &meddling);
		expect_str(meddling.seen, "a=1;b=2;c=3;");
		expect_pairs(rows[i].after);
	}
	gyre_context_each(NULL, NULL);
}

TEST(what_only_looks_leaves_the_last_error_alone)
{
	expect_status(gyre_context_set("", ""), GYRE_INVALID);
	gyre_context_get("a");
	gyre_context_each(append_pair, NULL);
	gyre_context_clear();
	expect_eq(gyre_last_status(), GYRE_INVALID);
}

/* --------------------------------------------------------------- sharing -- */

TEST(shared_context_is_copied_by_who_changes_it)
{
	struct gyre__thread *self = gyre__thread_self();
	struct gyre__context *mine, *child;
	const char *value;

	expect(!gyre__context_share(NULL));
	gyre__context_drop(NULL);
	set("a", "1");
	set("b", "2");
	value = gyre_context_get("a");
	mine = self->context;
	child = gyre__context_share(mine);
	expect(child == mine);

	set("b", "3");
	expect(self->context != mine);
	expect(gyre_context_get("a") == value);
	expect_pairs("a=1;b=3;");

	/* As the child: nothing has come to it, and nothing goes back. */
	mine = self->context;
	self->context = child;
	expect_pairs("a=1;b=2;");
	expect(gyre_context_get("a") == value);
	set("a", NULL);
	expect_pairs("b=2;");
	expect(self->context == child);	/* it was its own by then */
	gyre__context_drop(child);
	self->context = mine;
	expect_pairs("a=1;b=3;");
	expect_str(value, "1");
}

TEST(unchanged_context_costs_no_allocation_to_share)
{
	struct gyre__thread *self = gyre__thread_self();
	struct gyre__context *shared[100];
	unsigned before, i;

	set("a", "1");
	before = leak_allocations();
	for (i = 0; i < 100; i++)
		shared[i] = gyre__context_share(self->context);
	expect_eq(leak_allocations(), before);
	set("a", "1");
	for (i = 0; i < 100; i++)
		gyre__context_drop(shared[i]);
	expect_eq(leak_allocations(), before);
}

static void share_change_and_drop(void *arg, unsigned number)
{
	struct gyre__thread *self = gyre__thread_self();
	unsigned times = test_times(2000), i;
	char id[16];

	sprintf(id, "%u", number);
	for (i = 0; i < times; i++) {
		gyre_context_clear();
		self->context = gyre__context_share(arg);
		set("id", id);
		if (i % 3 == 0)
			set("common", NULL);
		else
			expect_value("common", "1");
		expect_value("id", id);
	}
	expect_value("id", id);
}

TEST(threads_that_share_a_context_change_their_own)
{
	struct gyre__context *shared;

	set("common", "1");
	shared = gyre__context_share(gyre__thread_self()->context);
	test_crew_run(8, share_change_and_drop, shared);
	expect_pairs("common=1;");
	gyre__context_drop(shared);
}

/* --------------------------------------------------------------- threads -- */

#define IDS	64

struct ids {
	_Atomic unsigned set, read;
};

static void set_and_read_again(void *arg, unsigned number)
{
	struct ids *ids = arg;
	char id[16];

	sprintf(id, "client-%u", number);
	expect(!gyre_context_get("id"));
	set("id", id);
	ids->set++;
	await(ids->set == IDS);
	expect_value("id", id);
	ids->read++;
	/* Nobody's end takes anything away from those who are still there. */
	if (number % 2)
		await(ids->read == IDS);
	expect_value("id", id);
}

TEST(sixty_four_threads_each_read_their_own)
{
	struct ids ids = { 0 };

	set("id", "main");
	test_crew_run(IDS, set_and_read_again, &ids);
	expect_value("id", "main");
}

static void look_in_child(void *arg)
{
	(void)arg;
	expect_pairs("a=1;b=2;");
	set("a", "child");
	set("b", NULL);
	expect_pairs("a=child;");
	gyre_context_clear();
	expect_pairs("");
}

TEST(forked_child_has_the_pairs_of_the_thread_that_forked)
{
	set("a", "1");
	set("b", "2");
	test_in_child(look_in_child, NULL);
	expect_pairs("a=1;b=2;");
}

struct in_prep {
	enum gyre_status set, removed;
	const char *got;
	char seen[64], error[256];
};

static void prep_that_uses_the_context(struct io_uring_sqe *sqe, void *arg)
{
	struct in_prep *in = arg;

	in->set = gyre_context_set("a", "prep");
	snprintf(in->error, sizeof(in->error), "%s", gyre_last_error());
	in->removed = gyre_context_set("a", NULL);
	in->got = gyre_context_get("a");
	gyre_context_each(append_pair, in->seen);
	gyre_context_clear();
	io_uring_prep_nop(sqe);
}

TEST(prep_closure_has_no_pairs_and_sets_none)
{
	struct gyre *rt = test_open_workers(1);
	struct in_prep in = { .got = "something" };

	set("a", "1");
	expect_status(gyre_call(rt, prep_that_uses_the_context, &in, NULL), GYRE_OK);
	expect_status(in.set, GYRE_NO_REACTOR);
	expect_status(in.removed, GYRE_NO_REACTOR);
	expect_contains(in.error, "gyre_context_set: a prep closure");
	expect(!in.got);
	expect_str(in.seen, "");
	expect_value("a", "1");
	gyre_free(rt);
}

TEST_MAIN()
