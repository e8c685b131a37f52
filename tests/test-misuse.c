/* SPDX-License-Identifier: MIT */
/*
 * Bad input: each wrong thing gets the status that gyre.h names, and nothing is
 * lost or left behind by it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "helpers.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))

/* What the jobs of these runtimes run on: each in its mode. */
static char a_state;

static void *create_state(const char *key, void *arg)
{
	expect(!key);
	expect(!gyre_state());
	return arg;
}

static void touch_state(void *state, void *arg)
{
	expect(state == arg);
	expect(!gyre_state());
}

static const struct gyre_state_type state_type = { sizeof(state_type), create_state, touch_state,
						   touch_state, &a_state };

static struct gyre *open_with_states(unsigned workers)
{
	struct gyre_options options = { .size = sizeof(options), .workers = workers,
					.state = &state_type };

	return test_open(&options);
}

static int null_fd = -1;	/* /dev/null, for calls that must not be made for their effect */
static char some_byte;

/* -------------------------------------------- every call, by its name -- */

static long every_call(struct gyre *rt)
{
	return gyre_call(rt, prep_nop, NULL, NULL);
}

static long every_callv(struct gyre *rt)
{
	struct gyre_op op = test_op(prep_nop, NULL);
	enum gyre_status status = gyre_callv(rt, &op, 1);

	expect_eq(op.status, status);
	if (status != GYRE_OK)
		expect_op(&op, status, -ECANCELED, GYRE_EFFECT_NONE);
	return status;
}

static long every_callv_of_none(struct gyre *rt)
{
	return gyre_callv(rt, NULL, 0);
}

static long every_op_cancel(struct gyre *rt)
{
	struct gyre_op op = test_op(prep_nop, NULL);

	return gyre_op_cancel(rt, &op);
}

static long every_buffer_get(struct gyre *rt)
{
	struct gyre_buffer *buffer = NULL;
	enum gyre_status status = gyre_buffer_get(rt, 100, &buffer);

	expect_eq(status == GYRE_OK, buffer != NULL);
	gyre_buffer_put(buffer);
	return status;
}

static long every_stats_get(struct gyre *rt)
{
	struct gyre_stats stats = { .size = sizeof(stats) };

	return gyre_stats_get(rt, &stats);
}

static long every_stats_write(struct gyre *rt)
{
	return gyre_stats_write(rt, null_fd, GYRE_FORMAT_TEXT);
}

static long every_dump(struct gyre *rt)
{
	return gyre_dump(rt, null_fd);
}

static long every_read(struct gyre *rt)
{
	return gyre_read(rt, null_fd, &some_byte, 1);
}

static long every_write(struct gyre *rt)
{
	return gyre_write(rt, null_fd, &some_byte, 1);
}

static long every_poll(struct gyre *rt)
{
	return gyre_poll(rt, null_fd, POLLIN, 0);
}

static long every_pread(struct gyre *rt)
{
	return gyre_pread(rt, null_fd, &some_byte, 1, 0);
}

static long every_pwrite(struct gyre *rt)
{
	return gyre_pwrite(rt, null_fd, &some_byte, 1, 0);
}

static long every_preadv2(struct gyre *rt)
{
	struct iovec iov = { &some_byte, 1 };

	return gyre_preadv2(rt, null_fd, &iov, 1, 0, 0);
}

static long every_pwritev2(struct gyre *rt)
{
	struct iovec iov = { &some_byte, 1 };

	return gyre_pwritev2(rt, null_fd, &iov, 1, 0, 0);
}

static long every_pread_full(struct gyre *rt)
{
	return gyre_pread_full(rt, null_fd, &some_byte, 1, 0);
}

static long every_pwrite_full(struct gyre *rt)
{
	return gyre_pwrite_full(rt, null_fd, &some_byte, 1, 0);
}

static long every_fsync(struct gyre *rt)
{
	return gyre_fsync(rt, null_fd);
}

static long every_fdatasync(struct gyre *rt)
{
	return gyre_fdatasync(rt, null_fd);
}

/* Not of a device: nothing is kept there, and a durable write says so. */
static long every_write_durable(struct gyre *rt)
{
	int fd = memfd_create("durable", MFD_CLOEXEC);
	long res = gyre_write_durable(rt, fd, &some_byte, 1, 0);

	close(fd);
	return res;
}

static long every_durable_reset(struct gyre *rt)
{
	return gyre_durable_reset(rt, null_fd);
}

static long every_openat(struct gyre *rt)
{
	long fd = gyre_openat(rt, AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC, 0);

	if (fd >= 0)
		close((int)fd);
	return fd;
}

static long every_close_fd(struct gyre *rt)
{
	int fd = dup(null_fd);
	long res = gyre_close_fd(rt, fd);

	/* Refused, it is still open. */
	if (res != 0)
		close(fd);
	return res;
}

static long every_statx(struct gyre *rt)
{
	struct statx statx;

	return gyre_statx(rt, AT_FDCWD, "/dev/null", 0, STATX_TYPE, &statx);
}

static long every_fallocate(struct gyre *rt)
{
	return gyre_fallocate(rt, null_fd, 0, 0, 1);
}

static long every_block_on(struct gyre *rt)
{
	int result = 4711;
	enum gyre_status status = gyre_block_on(rt, test_task_return, NULL, NULL, &result);

	expect_eq(result, status == GYRE_OK ? 0 : 4711);
	return status;
}

/* 1: it had the state that its mode gives it. */
static int task_has_state(void *arg)
{
	(void)arg;
	return gyre_state() == &a_state;
}

static long block_on_in(struct gyre *rt, enum gyre_mode mode)
{
	struct gyre_job_options options = { .size = sizeof(options), .mode = mode };
	int result = 4711;
	enum gyre_status status = gyre_block_on(rt, task_has_state, NULL, &options, &result);

	expect_eq(result, status == GYRE_OK ? 1 : 4711);
	expect(!gyre_state());
	return status;
}

static long every_block_on_fresh(struct gyre *rt)
{
	return block_on_in(rt, GYRE_MODE_FRESH);
}

static long every_block_on_shared(struct gyre *rt)
{
	return block_on_in(rt, GYRE_MODE_SHARED);
}

static long every_spawn(struct gyre *rt)
{
	struct gyre_job *job = NULL;
	enum gyre_status status = gyre_spawn(rt, test_task_return, NULL, NULL, &job);

	expect_eq(status == GYRE_OK, job != NULL);
	gyre_job_detach(job);
	return status;
}

static long every_offload(struct gyre *rt)
{
	int result = 4711;
	enum gyre_status status = gyre_offload(rt, test_task_return, NULL, &result);

	expect_eq(result, status == GYRE_OK ? 0 : 4711);
	return status;
}

enum family {
	WAITS,		/* answers a status, after a while */
	LOOKS,		/* answers a status, also after close and, but for writing, in a prep */
	LOOKS_WRITES,
	ASKS,		/* answers a status at once, also in a prep, but not after close */
	PREADS		/* answers a count or a negative errno */
};

static const struct every {
	const char *name;
	long (*call)(struct gyre *rt);
	enum family family;
} every[] = {
	{ "gyre_call", every_call, WAITS },
	{ "gyre_callv", every_callv, WAITS },
	{ "gyre_callv", every_callv_of_none, WAITS },
	{ "gyre_op_cancel", every_op_cancel, ASKS },
	{ "gyre_block_on", every_block_on, WAITS },
	{ "gyre_block_on", every_block_on_fresh, WAITS },
	{ "gyre_block_on", every_block_on_shared, WAITS },
	{ "gyre_spawn", every_spawn, WAITS },
	{ "gyre_offload", every_offload, WAITS },
	{ "gyre_buffer_get", every_buffer_get, WAITS },
	{ "gyre_stats_get", every_stats_get, LOOKS },
	{ "gyre_stats_write", every_stats_write, LOOKS_WRITES },
	{ "gyre_dump", every_dump, LOOKS_WRITES },
	{ "gyre_read", every_read, PREADS },
	{ "gyre_write", every_write, PREADS },
	{ "gyre_poll", every_poll, PREADS },
	{ "gyre_pread", every_pread, PREADS },
	{ "gyre_pwrite", every_pwrite, PREADS },
	{ "gyre_preadv2", every_preadv2, PREADS },
	{ "gyre_pwritev2", every_pwritev2, PREADS },
	{ "gyre_pread_full", every_pread_full, PREADS },
	{ "gyre_pwrite_full", every_pwrite_full, PREADS },
	{ "gyre_fsync", every_fsync, PREADS },
	{ "gyre_fdatasync", every_fdatasync, PREADS },
	{ "gyre_write_durable", every_write_durable, PREADS },
	{ "gyre_durable_reset", every_durable_reset, PREADS },
	{ "gyre_openat", every_openat, PREADS },
	{ "gyre_close_fd", every_close_fd, PREADS },
	{ "gyre_statx", every_statx, PREADS },
	{ "gyre_fallocate", every_fallocate, PREADS },
};

static void open_null_fd(void)
{
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	expect_ge(null_fd, 0);
}

/* The one thing that is wrong, said by each call in its own tongue, and in words. */
static void expect_refusal(const struct every *one, long answer, enum gyre_status status)
{
	test_row("%s", one->name);
	expect_eq(answer, one->family == PREADS ? gyre_status_errno(status) : (int)status);
	if (status == GYRE_OK)
		return;
	expect_eq(gyre_last_status(), status);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_contains(gyre_last_error(), one->name);
	expect_gt(strlen(gyre_last_error()), strlen(one->name) + 10);
}

static const char *const routes[] = { "caller", "ring" };

TEST(every_call_is_fine_when_nothing_is_wrong)
{
	unsigned r, i;

	open_null_fd();
	for (r = 0; r < 2; r++) {
		struct gyre *rt;

		setenv("GYRE_ROUTE", routes[r], 1);
		rt = open_with_states(2);
		for (i = 0; i < LENGTH(every); i++) {
			test_row("%s by %s", every[i].name, routes[r]);
			every[i].call(rt);
			if (every[i].family == ASKS)
				expect_eq(gyre_last_status(), GYRE_NOT_FOUND);
			else
				expect_eq(gyre_last_status(), GYRE_OK);
		}
		gyre_free(rt);
	}
	close(null_fd);
}

TEST(every_call_without_a_runtime_says_no_reactor_in_words)
{
	unsigned i;
	int before = errno;

	open_null_fd();
	errno = 4711;
	for (i = 0; i < LENGTH(every); i++) {
		expect_refusal(&every[i], every[i].call(NULL), GYRE_NO_REACTOR);
		expect_contains(gyre_last_error(), "no reactor running on this thread");
		if (every[i].family == PREADS)
			expect_eq(errno, 4711);
	}
	errno = before;
	expect_eq(gyre_worker_count(NULL), 0);
	expect(!gyre_current());
	expect_eq(gyre_current_worker(), -1);
	close(null_fd);
}

TEST(every_call_after_close_says_closed_but_for_those_that_look)
{
	struct gyre *rt = open_with_states(2);
	unsigned round, i;

	open_null_fd();
	every_call(rt);
	gyre_close(rt);
	for (round = 0; round < 2; round++)
		for (i = 0; i < LENGTH(every); i++) {
			bool looks = every[i].family == LOOKS || every[i].family == LOOKS_WRITES;

			expect_refusal(&every[i], every[i].call(rt),
				       looks ? GYRE_OK : GYRE_CLOSED);
		}
	expect_eq(gyre_worker_count(rt), 2);
	gyre_free(rt);
	close(null_fd);
}

static void call_every_in_the_child(void *arg)
{
	struct gyre *rt = arg;
	unsigned i;

	for (i = 0; i < LENGTH(every); i++)
		expect_refusal(&every[i], every[i].call(rt), GYRE_CLOSED);
	test_row("gyre_close");
	expect_status(gyre_close(rt), GYRE_CLOSED);
	expect_status(gyre_close(rt), GYRE_CLOSED);
	gyre_free(rt);
}

TEST(every_call_in_a_forked_child_says_closed)
{
	struct gyre *rt = open_with_states(2);

	open_null_fd();
	/* once by a thread that has called before, once by one that has not */
	test_in_child(call_every_in_the_child, rt);
	every_call(rt);
	test_in_child(call_every_in_the_child, rt);
	expect_eq(every_call(rt), GYRE_OK);
	gyre_free(rt);
	close(null_fd);
}

/* ------------------------------------------------- from a prep callback -- */

struct in_prep {
	struct gyre *rt;
	struct gyre *named;	/* NULL, or rt, or another */
	unsigned i;
	long answer;
	enum gyre_status last_status;
	char last_error[256];
	int errno_after;
};

static void prep_that_calls(struct io_uring_sqe *sqe, void *arg)
{
	struct in_prep *in = arg;

	errno = 4711;
	in->answer = every[in->i].call(in->named);
	in->errno_after = errno;
	in->last_status = gyre_last_status();
	snprintf(in->last_error, sizeof(in->last_error), "%s", gyre_last_error());
	io_uring_prep_nop(sqe);
}

static void call_every_in_a_prep(struct gyre *rt, struct gyre *named)
{
	struct in_prep in = { .rt = rt, .named = named };

	for (in.i = 0; in.i < LENGTH(every); in.i++) {
		const struct every *one = &every[in.i];

		test_row("%s", one->name);
		expect_status(gyre_call(rt, prep_that_calls, &in, NULL), GYRE_OK);
		if (one->family == LOOKS) {
			expect_eq(in.answer, GYRE_OK);
			continue;
		}
		if (one->family == ASKS) {
			expect_eq(in.answer, GYRE_NOT_FOUND);
			continue;
		}
		expect_eq(in.answer, one->family == PREADS ? -EDEADLK : (int)GYRE_WOULD_DEADLOCK);
		expect_eq(in.last_status, GYRE_WOULD_DEADLOCK);
		expect_contains(in.last_error, one->name);
		expect_contains(in.last_error, "prep");
		if (one->family == PREADS)
			expect_eq(in.errno_after, 4711);
	}
}

TEST(every_call_that_waits_would_deadlock_in_a_prep)
{
	struct gyre *rt = open_with_states(1);

	open_null_fd();
	call_every_in_a_prep(rt, rt);
	gyre_free(rt);
	close(null_fd);
}

TEST(every_call_in_a_prep_with_its_own_runtime_unnamed_would_deadlock_too)
{
	struct gyre *rt = open_with_states(1);

	open_null_fd();
	call_every_in_a_prep(rt, NULL);
	gyre_free(rt);
	close(null_fd);
}

TEST(every_call_in_a_prep_with_another_runtime_would_deadlock_too)
{
	struct gyre *rt = open_with_states(1), *other = open_with_states(1);

	open_null_fd();
	call_every_in_a_prep(rt, other);
	gyre_free(other);
	gyre_free(rt);
	close(null_fd);
}

/* ------------------------------------------------- what only tasks may do -- */

static long tasks_go(void)
{
	struct gyre_task *task = (struct gyre_task *)(uintptr_t)0x1234;
	enum gyre_status status = gyre_go(test_task_return, NULL, &task);

	expect(task == (struct gyre_task *)(uintptr_t)0x1234);
	return status;
}

static long tasks_join(void)
{
	return gyre_join(NULL, NULL);
}

static long tasks_join_all(void)
{
	return gyre_join_all();
}

static void defer_nothing(void *arg)
{
	(void)arg;
}

static long tasks_defer(void)
{
	return gyre_defer(defer_nothing, NULL);
}

/* What answers NULL says why as its last status. */
static long tasks_alloc(void)
{
	expect(!gyre_alloc(1));
	return gyre_last_status();
}

static long tasks_alloc_aligned(void)
{
	expect(!gyre_alloc_aligned(1, 64));
	return gyre_last_status();
}

static long tasks_strdup(void)
{
	expect(!gyre_strdup("text"));
	return gyre_last_status();
}

static void *create_no_local(void *arg)
{
	test_fail("a local is made");
	return arg;
}

static long tasks_local_get(void)
{
	static struct gyre_local local = GYRE_LOCAL_INIT(create_no_local, NULL, NULL);
	void *value = &local;
	enum gyre_status status = gyre_local_get(&local, &value);

	expect(value == &local);
	return status;
}

static const struct tasks_only {
	const char *name;
	long (*call)(void);
} tasks_only[] = {
	{ "gyre_go", tasks_go },
	{ "gyre_join", tasks_join },
	{ "gyre_join_all", tasks_join_all },
	{ "gyre_defer", tasks_defer },
	{ "gyre_alloc", tasks_alloc },
	{ "gyre_alloc_aligned", tasks_alloc_aligned },
	{ "gyre_strdup", tasks_strdup },
	{ "gyre_local_get", tasks_local_get },
};

static void call_tasks_only(enum gyre_status status)
{
	unsigned i;

	for (i = 0; i < LENGTH(tasks_only); i++) {
		test_row("%s", tasks_only[i].name);
		expect_eq(tasks_only[i].call(), status);
		expect_eq(gyre_last_status(), status);
		expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
		expect_contains(gyre_last_error(), tasks_only[i].name);
		if (status == GYRE_NO_REACTOR)
			expect_contains(gyre_last_error(), "no reactor running on this thread");
	}
	expect(!gyre_state());
	expect_eq(gyre_last_status(), status);
	gyre_task_cancel(NULL);
	gyre_yield();
	expect_eq(gyre_cancelled(), 0);
	expect_contains(gyre_last_panic(), "nothing is known");
}

static void call_tasks_only_in_the_child(void *arg)
{
	(void)arg;
	call_tasks_only(GYRE_NO_REACTOR);
}

static int call_tasks_only_offloaded(void *arg)
{
	(void)arg;
	call_tasks_only(GYRE_NO_REACTOR);
	return 0;
}

static int fork_in_a_task(void *arg)
{
	expect(gyre_state() == &a_state);
	test_in_child(call_tasks_only_in_the_child, arg);
	return 0;
}

TEST(scenario_13_what_only_tasks_may_do_says_elsewhere_that_there_is_no_reactor)
{
	struct gyre *rt;

	call_tasks_only(GYRE_NO_REACTOR);
	rt = open_with_states(1);
	call_tasks_only(GYRE_NO_REACTOR);
	test_in_child(call_tasks_only_in_the_child, NULL);
	test_block_on(rt, fork_in_a_task, NULL);
	expect_status(gyre_offload(rt, call_tasks_only_offloaded, NULL, NULL), GYRE_OK);
	call_tasks_only(GYRE_NO_REACTOR);
	gyre_free(rt);
	call_tasks_only(GYRE_NO_REACTOR);
}

static void prep_that_is_no_task(struct io_uring_sqe *sqe, void *arg)
{
	struct gyre_job *job = arg;

	call_tasks_only(GYRE_WOULD_DEADLOCK);
	expect_status(gyre_sleep(1), GYRE_WOULD_DEADLOCK);
	expect_contains(gyre_last_error(), "gyre_sleep");
	expect_status(gyre_job_wait(job, 0, NULL), GYRE_WOULD_DEADLOCK);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_WOULD_DEADLOCK);
	expect_contains(gyre_last_error(), "gyre_job_wait");
	io_uring_prep_nop(sqe);
}

static int call_with_a_prep_that_is_no_task(void *job)
{
	expect_status(gyre_call(NULL, prep_that_is_no_task, job, NULL), GYRE_OK);
	return 0;
}

TEST(what_only_tasks_may_do_would_deadlock_in_a_prep_of_whomever)
{
	struct gyre *rt = open_with_states(1);
	struct gyre_job *job = test_spawn(rt, test_task_return, (void *)3);
	int result = 0;

	expect_status(gyre_call(rt, prep_that_is_no_task, job, NULL), GYRE_OK);
	test_block_on(rt, call_with_a_prep_that_is_no_task, job);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_OK);
	expect_eq(result, 3);
	gyre_free(rt);
}

struct life_in_prep {
	struct gyre *rt;
	enum gyre_status open, close, close_null;
	struct gyre *opened;
};

static void prep_that_opens_and_closes(struct io_uring_sqe *sqe, void *arg)
{
	struct life_in_prep *life = arg;

	life->open = gyre_open(NULL, &life->opened);
	life->close = gyre_close(life->rt);
	life->close_null = gyre_close(NULL);
	gyre_buffer_put(NULL);
	gyre_free(NULL);
	io_uring_prep_nop(sqe);
}

TEST(open_and_close_in_a_prep_would_deadlock_and_do_nothing)
{
	struct life_in_prep life = { .rt = test_open_workers(1) };

	expect_status(gyre_call(life.rt, prep_that_opens_and_closes, &life, NULL), GYRE_OK);
	expect_status(life.open, GYRE_WOULD_DEADLOCK);
	expect(!life.opened);
	expect_status(life.close, GYRE_WOULD_DEADLOCK);
	expect_status(life.close_null, GYRE_OK);
	expect_status(gyre_call(life.rt, prep_nop, NULL, NULL), GYRE_OK);
	gyre_free(life.rt);
}

/* ------------------------------------------ while it is closed and freed -- */

struct going {
	struct gyre *rt;
	atomic_uint under_way, over;
};

static void call_every_until_closed(void *arg, unsigned number)
{
	struct going *going = arg;
	unsigned i = number;

	for (;; i++) {
		const struct every *one = &every[i % LENGTH(every)];
		long answer = one->call(going->rt);
		enum gyre_status last = gyre_last_status();

		atomic_fetch_add(&going->under_way, 1);
		test_row("%s", one->name);
		expect(last == GYRE_OK || last == GYRE_CLOSED || last == GYRE_CANCELLED ||
		       last == GYRE_NOT_FOUND);
		if (last == GYRE_CLOSED && one->family != PREADS)
			expect_eq(answer, GYRE_CLOSED);
		if (last == GYRE_CLOSED)
			break;
	}
	atomic_fetch_add(&going->over, 1);
}

TEST(every_call_on_a_runtime_that_is_being_closed_is_answered)
{
	unsigned round, r;

	open_null_fd();
	for (round = 0; round < test_times(20); round++) {
		for (r = 0; r < 2; r++) {
			struct going going = { .rt = NULL };
			struct test_crew crew;

			setenv("GYRE_ROUTE", routes[r], 1);
			going.rt = open_with_states(2);
			test_crew_start(&crew, 8, call_every_until_closed, &going);
			await(atomic_load(&going.under_way) > 50);
			expect_status(gyre_close(going.rt), GYRE_OK);
			test_crew_join(&crew);
			expect_eq(atomic_load(&going.over), 8);
			gyre_free(going.rt);
		}
	}
	close(null_fd);
}

/* -------------------------------------------------------- cancellation -- */

struct doomed {
	const char *route;
	bool survived;
};

/* Nothing of libc's that is a cancellation point may stand in here. */
static void call_while_doomed(struct gyre *rt)
{
	struct __kernel_timespec time = { .tv_nsec = 3000000 };
	struct gyre_op ops[2] = { test_op(prep_timeout, &time), test_op(prep_nop, NULL) };
	struct gyre_buffer *buffer;
	struct iovec iov = { &some_byte, 1 };
	int res, fd;

	expect_status(gyre_call(rt, prep_timeout, &time, &res), GYRE_OK);
	expect_eq(res, -ETIME);
	expect_status(gyre_callv(rt, ops, 2), GYRE_OK);
	expect_status(gyre_buffer_get(rt, 100, &buffer), GYRE_OK);
	gyre_buffer_put(buffer);
	expect_eq(gyre_read(rt, null_fd, &some_byte, 1), 0);
	expect_eq(gyre_write(rt, null_fd, &some_byte, 1), 1);
	expect_eq(gyre_pread(rt, null_fd, &some_byte, 1, 0), 0);
	expect_eq(gyre_pwrite(rt, null_fd, &some_byte, 1, 0), 1);
	expect_eq(gyre_preadv2(rt, null_fd, &iov, 1, -1, 0), 0);
	expect_eq(gyre_pwritev2(rt, null_fd, &iov, 1, -1, 0), 1);
	expect_eq(gyre_poll(rt, null_fd, POLLOUT, GYRE_FOREVER), POLLOUT);
	expect_eq(gyre_fsync(rt, null_fd), -EINVAL);
	fd = gyre_openat(rt, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0);
	expect_ge(fd, 0);
	expect_eq(gyre_close_fd(rt, fd), 0);
	expect_status(gyre_stats_write(rt, null_fd, GYRE_FORMAT_JSON), GYRE_OK);
	expect_status(gyre_dump(rt, null_fd), GYRE_OK);
	expect_status(gyre_context_set("name", "value"), GYRE_OK);
	expect_str(gyre_context_get("name"), "value");
	gyre_context_clear();
}

static void *be_doomed(void *arg)
{
	struct doomed *doomed = arg;
	struct gyre *rt;

	setenv("GYRE_ROUTE", doomed->route, 1);
	pthread_cancel(pthread_self());		/* at the next cancellation point */
	rt = test_open_workers(2);
	call_while_doomed(rt);
	expect_status(gyre_close(rt), GYRE_OK);
	gyre_free(rt);
	doomed->survived = true;
	pthread_testcancel();
	return NULL;
}

TEST(no_call_is_a_cancellation_point)
{
	unsigned r;

	open_null_fd();
	for (r = 0; r < 2; r++) {
		struct doomed doomed = { routes[r], false };
		pthread_t thread;
		void *result;

		test_row("by %s", routes[r]);
		expect_eq(pthread_create(&thread, NULL, be_doomed, &doomed), 0);
		pthread_join(thread, &result);
		expect(doomed.survived);
		expect(result == PTHREAD_CANCELED);
	}
	close(null_fd);
}

/* ------------------------------------------------------------ options -- */

struct bad_options {
	const char *what;
	size_t at, width;
	uint64_t value;
	enum gyre_status status;
};

#define OPTION(field)	offsetof(struct gyre_options, field), \
			sizeof(((struct gyre_options *)0)->field)

static const struct bad_options bad_options[] = {
	{ "size 0", OPTION(size), 0, GYRE_INVALID },
	{ "size 1", OPTION(size), 1, GYRE_INVALID },
	{ "size a byte too small", OPTION(size), sizeof(struct gyre_options) - 1, GYRE_INVALID },
	{ "size of a struct that is twice as large, zero to its end", OPTION(size),
	  2 * sizeof(struct gyre_options), GYRE_OK },
	{ "size of a whole page", OPTION(size), 4096, GYRE_OK },
	{ "size of more than a page", OPTION(size), 4097, GYRE_INVALID },
	{ "size of everything", OPTION(size), SIZE_MAX, GYRE_INVALID },
	{ "2^30 workers", OPTION(workers), 1u << 30, GYRE_INVALID },
	{ "all the workers there are numbers for", OPTION(workers), UINT_MAX, GYRE_INVALID },
	{ "1025 workers", OPTION(workers), 1025, GYRE_INVALID },
	{ "2^31 entries", OPTION(ring_entries), 1u << 31, GYRE_INVALID },
	{ "a negative number of entries", OPTION(ring_entries), UINT_MAX, GYRE_INVALID },
	{ "32769 entries", OPTION(ring_entries), 32769, GYRE_INVALID },
	{ "65537 in flight", OPTION(inflight_max), 65537, GYRE_INVALID },
	{ "2^32 - 1 in flight", OPTION(inflight_max), UINT_MAX, GYRE_INVALID },
	{ "a flag of tomorrow", OPTION(flags), 1u << 2, GYRE_INVALID },
	{ "the last flag", OPTION(flags), 1u << 31, GYRE_INVALID },
	{ "all flags", OPTION(flags), UINT_MAX, GYRE_INVALID },
	{ "spinning for ever and a day", OPTION(spin_ns), UINT64_MAX - 1, GYRE_OK },
	{ "a stack of a byte", OPTION(stack_size), 1, GYRE_INVALID },
	{ "a stack of everything", OPTION(stack_size), SIZE_MAX, GYRE_INVALID },
	{ "an arena of a byte", OPTION(arena_max), 1, GYRE_INVALID },
	{ "mode 4", OPTION(mode), 4, GYRE_INVALID },
	{ "mode -1", OPTION(mode), UINT_MAX, GYRE_INVALID },
	{ "a pool of a million and one", OPTION(pool_size), 1000001, GYRE_INVALID },
	{ "a drain without end", OPTION(drain_ns), UINT64_MAX, GYRE_OK },
	{ "1025 offload threads", OPTION(offload_threads), 1025, GYRE_INVALID },
	{ "something in reserved", OPTION(reserved), 1, GYRE_INVALID },
};

static union { struct gyre_options options; char bytes[8192]; } roomy;

TEST(options_that_are_wrong_are_invalid_and_said_to_be)
{
	struct gyre *const untouched = (struct gyre *)(uintptr_t)0x1234;
	unsigned i;

	for (i = 0; i < LENGTH(bad_options); i++) {
		const struct bad_options *bad = &bad_options[i];
		struct gyre *rt = untouched;
		enum gyre_status status;

		test_row("%s", bad->what);
		memset(&roomy, 0, sizeof(roomy));
		roomy.options.size = sizeof(struct gyre_options);
		memcpy(roomy.bytes + bad->at, &bad->value, bad->width);
		status = gyre_open(&roomy.options, &rt);
		expect_eq(status, bad->status);
		if (status == GYRE_OK) {
			gyre_free(rt);
			continue;
		}
		expect(rt == untouched);
		expect_contains(gyre_last_error(), "gyre_open");
	}
}

TEST(bits_past_the_end_of_the_options_are_invalid_wherever_they_are)
{
	struct gyre *rt;
	size_t at;

	for (at = sizeof(struct gyre_options); at < 4096; at += at < 200 ? 1 : 97) {
		test_row("byte %zu", at);
		memset(&roomy, 0, sizeof(roomy));
		roomy.options.size = 4096;
		roomy.bytes[at] = 1;
		expect_status(gyre_open(&roomy.options, &rt), GYRE_INVALID);
	}
}

TEST(options_need_not_be_aligned)
{
	static char bytes[sizeof(struct gyre_options) + 8];
	struct gyre_options options = { .size = sizeof(options), .workers = 2 };
	struct gyre *rt;
	unsigned shift;

	if (TEST_UNDER_SANITIZER)
		test_skip("a sanitizer sees the test's own misaligned pointer");
	for (shift = 1; shift < 8; shift++) {
		memcpy(bytes + shift, &options, sizeof(options));
		expect_status(gyre_open((void *)(bytes + shift), &rt), GYRE_OK);
		expect_eq(gyre_worker_count(rt), 2);
		gyre_free(rt);
	}
}

TEST(state_types_that_are_wrong_are_invalid_and_said_to_be)
{
	const struct {
		const char *what;
		struct gyre_state_type type;
		enum gyre_status status;
	} types[] = {
		{ "size 0", { 0, create_state, NULL, touch_state, NULL }, GYRE_INVALID },
		{ "too small", { sizeof(types[0].type) - 1, create_state, NULL, touch_state, NULL },
		  GYRE_INVALID },
		{ "more than a page", { 4097, create_state, NULL, touch_state, NULL },
		  GYRE_INVALID },
		{ "everything", { SIZE_MAX, create_state, NULL, touch_state, NULL }, GYRE_INVALID },
		{ "no create", { sizeof(types[0].type), NULL, NULL, touch_state, NULL },
		  GYRE_INVALID },
		{ "no destroy", { sizeof(types[0].type), create_state, NULL, NULL, NULL },
		  GYRE_INVALID },
		{ "nothing", { sizeof(types[0].type), NULL, NULL, NULL, NULL }, GYRE_INVALID },
		{ "no reset", { sizeof(types[0].type), create_state, NULL, touch_state, NULL },
		  GYRE_OK },
	};
	unsigned i;

	for (i = 0; i < LENGTH(types); i++) {
		struct gyre_options options = { .size = sizeof(options), .state = &types[i].type };
		struct gyre *rt = NULL;

		test_row("%s", types[i].what);
		expect_eq(gyre_open(&options, &rt), types[i].status);
		expect_eq(types[i].status == GYRE_OK, rt != NULL);
		if (!rt)
			expect_contains(gyre_last_error(), "gyre_state_type");
		gyre_free(rt);
	}
}

TEST(bits_past_the_end_of_a_state_type_are_invalid)
{
	static union { struct gyre_state_type type; char bytes[4096]; } type;
	struct gyre_options options = { .size = sizeof(options), .state = &type.type };
	struct gyre *rt = NULL;

	type.type = state_type;
	type.type.size = sizeof(type);
	type.bytes[4095] = 1;
	expect_status(gyre_open(&options, &rt), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_state_type");
	type.bytes[4095] = 0;
	rt = test_open(&options);
	expect_status(block_on_in(rt, GYRE_MODE_SHARED), GYRE_OK);
	gyre_free(rt);
}

TEST(open_without_a_place_for_the_runtime_is_invalid)
{
	expect_status(gyre_open(NULL, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_open");
}

/* ------------------------------------------------------------------ ops -- */

struct bad_op {
	const char *what;
	size_t at, width;
	uint64_t value;
	enum gyre_status status;
};

#define FIELD(field)	offsetof(struct gyre_op, field), sizeof(((struct gyre_op *)0)->field)

static const struct bad_op bad_ops[] = {
	{ "no prep", FIELD(prep), 0, GYRE_INVALID },
	{ "a flag of tomorrow", FIELD(flags), 1u << 3, GYRE_INVALID },
	{ "the last flag", FIELD(flags), 1u << 31, GYRE_INVALID },
	{ "all flags", FIELD(flags), UINT32_MAX, GYRE_INVALID },
	{ "NOWAIT with room", FIELD(flags), GYRE_OP_NOWAIT, GYRE_OK },
	{ "LINK to nowhere", FIELD(flags), GYRE_OP_LINK, GYRE_INVALID },
	{ "LEAVE with a NOP", FIELD(flags), GYRE_OP_LEAVE, GYRE_INVALID },
	{ "a worker too many", FIELD(worker), 3, GYRE_INVALID },
	{ "2^31 workers", FIELD(worker), 1u << 31, GYRE_INVALID },
	{ "worker -1", FIELD(worker), UINT32_MAX, GYRE_INVALID },
	{ "something in reserved[0]", FIELD(reserved[0]), 1, GYRE_INVALID },
	{ "something in reserved[1]", FIELD(reserved[1]), UINT64_C(1) << 63, GYRE_INVALID },
	{ "a time-out without end", FIELD(timeout_ns), UINT64_MAX, GYRE_OK },
};

static struct gyre_op spoiled_op(const struct bad_op *bad)
{
	struct gyre_op op = test_op(prep_nop, NULL);

	memcpy((char *)&op + bad->at, &bad->value, bad->width);
	return op;
}

TEST(ops_that_are_wrong_are_invalid_and_never_submitted)
{
	struct gyre *rt = test_open_workers(2);
	unsigned i;

	for (i = 0; i < LENGTH(bad_ops); i++) {
		struct gyre_op op = spoiled_op(&bad_ops[i]);

		test_row("%s", bad_ops[i].what);
		expect_eq(gyre_callv(rt, &op, 1), bad_ops[i].status);
		if (bad_ops[i].status == GYRE_OK) {
			expect_op(&op, GYRE_OK, 0, GYRE_EFFECT_DONE);
			continue;
		}
		expect_op(&op, GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
		expect_eq(op.cqe_flags, 0);
		expect_eq(gyre_last_status(), GYRE_INVALID);
		expect_contains(gyre_last_error(), "gyre_callv");
	}
	expect_eq(test_stat(rt, inflight) + test_stat(rt, queued), 0);
	gyre_free(rt);
}

TEST(wrong_op_in_the_middle_of_a_batch_is_invalid_and_the_others_run)
{
	struct gyre *rt = test_open_workers(2);
	unsigned i;

	for (i = 0; i < LENGTH(bad_ops); i++) {
		struct gyre_op ops[3] = { test_op(prep_nop, NULL), spoiled_op(&bad_ops[i]),
					  test_op(prep_nop, NULL) };
		bool links = ops[1].flags & GYRE_OP_LINK;

		/* one that links to the last is fine there, if that is all that is wrong */
		if (ops[1].flags == GYRE_OP_LINK || bad_ops[i].status == GYRE_OK)
			continue;
		test_row("%s", bad_ops[i].what);
		expect_status(gyre_callv(rt, ops, 3), GYRE_INVALID);
		expect_op(&ops[0], GYRE_OK, 0, GYRE_EFFECT_DONE);
		expect_op(&ops[1], GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
		if (links)	/* its chain goes with it */
			expect_op(&ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
		else
			expect_op(&ops[2], GYRE_OK, 0, GYRE_EFFECT_DONE);
	}
	gyre_free(rt);
}

TEST(later_op_that_names_another_worker_is_invalid)
{
	struct gyre *rt = test_open_workers(2);
	struct gyre_op ops[3] = { test_op(prep_nop, NULL), test_op(prep_nop, NULL),
				  test_op(prep_nop, NULL) };

	ops[0].worker = GYRE_WORKER(0);
	ops[1].worker = GYRE_WORKER(1);
	ops[2].worker = GYRE_WORKER(0);
	expect_status(gyre_callv(rt, ops, 3), GYRE_INVALID);
	expect_eq(ops[0].status, GYRE_OK);
	expect_op(&ops[1], GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
	expect_eq(ops[2].status, GYRE_OK);
	/* a worker where the first named none */
	ops[0].worker = 0;
	ops[1].worker = 0;
	expect_status(gyre_callv(rt, ops, 3), GYRE_INVALID);
	expect_eq(ops[1].status, GYRE_OK);
	expect_op(&ops[2], GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
	gyre_free(rt);
}

TEST(arrays_that_are_wrong_are_invalid_and_untouched)
{
	static const size_t counts[] = { (1u << 24) + 1, SIZE_MAX / sizeof(struct gyre_op),
					 SIZE_MAX,
					 (size_t)1 << 32, ((size_t)1 << 32) + 1, SIZE_MAX / 2 + 1 };
	struct gyre *rt = test_open_workers(1);
	struct gyre_op op, before;
	unsigned i;

	expect_status(gyre_callv(rt, NULL, 1), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_callv");
	for (i = 0; i < LENGTH(counts); i++) {
		test_row("%zu ops", counts[i]);
		op = test_op(prep_nop, NULL);
		op.res = 77;
		before = op;
		expect_status(gyre_callv(rt, &op, counts[i]), GYRE_INVALID);
		expect_eq(memcmp(&op, &before, sizeof(op)), 0);
	}
	gyre_free(rt);
}

/* Two things wrong at once: the count must be looked at before the ops are. */
TEST(arrays_that_are_wrong_do_no_harm_where_the_runtime_is_wrong_too)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_op op = test_op(prep_nop, NULL);

	expect_ne(gyre_callv(NULL, &op, SIZE_MAX), GYRE_OK);
	gyre_close(rt);
	expect_ne(gyre_callv(rt, &op, SIZE_MAX), GYRE_OK);
	expect_ne(gyre_callv(rt, NULL, 5), GYRE_OK);
	gyre_free(rt);
}

TEST(call_without_a_prep_is_invalid)
{
	struct gyre *rt = test_open_workers(1);
	int res = 77;

	expect_status(gyre_call(rt, NULL, NULL, &res), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_call");
	expect_contains(gyre_last_error(), "prep");
	expect_eq(res, 77);
	gyre_free(rt);
}

/* ------------------------------------------------------------- closures -- */

static void prep_personality(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
	sqe->personality = 1;
}

static void prep_drain(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
	sqe->flags |= IOSQE_IO_DRAIN;
}

static void prep_link(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
	sqe->flags |= IOSQE_IO_LINK;
}

static void prep_hardlink(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
	sqe->flags |= IOSQE_IO_HARDLINK;
}

static void prep_skip_cqe(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

static void prep_select_buffer(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_recv(sqe, 0, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
}

static void prep_fixed_file(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_read(sqe, 0, &some_byte, 1, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
}

static void prep_unheard_of(struct io_uring_sqe *sqe, void *arg)
{
	io_uring_prep_nop(sqe);
	sqe->opcode = *(const uint8_t *)arg;
}

static void prep_cancel_all(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY);
}

static void prep_remove_poll(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_poll_remove(sqe, 0);
}

static void prep_remove_timeout(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_timeout_remove(sqe, 0, 0);
}

static void prep_multishot_poll(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_poll_multishot(sqe, 0, POLLIN);
}

static void prep_multishot_accept(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_multishot_accept(sqe, 0, NULL, NULL, 0);
}

static void prep_multishot_recv(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_recv_multishot(sqe, 0, NULL, 0, 0);
}

static void prep_direct_open(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_openat_direct(sqe, AT_FDCWD, "/dev/null", O_RDONLY, 0, 0);
}

static void prep_link_timeout(struct io_uring_sqe *sqe, void *arg)
{
	static struct __kernel_timespec ts;

	(void)arg;
	io_uring_prep_link_timeout(sqe, &ts, 0);
}

static void prep_provide_buffers(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_provide_buffers(sqe, &some_byte, 1, 1, 0, 0);
}

static void prep_fixed_buffer(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_read_fixed(sqe, 0, &some_byte, 1, 0, 0);
}

static void prep_counting_timeout(struct io_uring_sqe *sqe, void *arg)
{
	static struct __kernel_timespec ts = { .tv_sec = 1000 };

	(void)arg;
	io_uring_prep_timeout(sqe, &ts, 1, 0);
}

static const uint8_t opcode_99 = 99, opcode_254 = 254;

static const struct {
	const char *what;
	gyre_prep_fn *prep;
	const void *arg;
} bad_closures[] = {
	{ "nothing", prep_nothing, NULL },
	{ "MSG_RING", prep_forbidden, NULL },
	{ "a personality", prep_personality, NULL },
	{ "IO_DRAIN", prep_drain, NULL },
	{ "a link of its own", prep_link, NULL },
	{ "a hard link of its own", prep_hardlink, NULL },
	{ "CQE_SKIP_SUCCESS", prep_skip_cqe, NULL },
	{ "BUFFER_SELECT", prep_select_buffer, NULL },
	{ "a registered file", prep_fixed_file, NULL },
	{ "an opcode of the day after tomorrow", prep_unheard_of, &opcode_99 },
	{ "the last opcode but one", prep_unheard_of, &opcode_254 },
	{ "a cancel of everything", prep_cancel_all, NULL },
	{ "a removal of a poll", prep_remove_poll, NULL },
	{ "a removal of a time-out", prep_remove_timeout, NULL },
	{ "a multishot poll", prep_multishot_poll, NULL },
	{ "a multishot accept", prep_multishot_accept, NULL },
	{ "a multishot recv", prep_multishot_recv, NULL },
	{ "an open into the table", prep_direct_open, NULL },
	{ "a link time-out", prep_link_timeout, NULL },
	{ "buffers for everybody", prep_provide_buffers, NULL },
	{ "a registered buffer that is none", prep_fixed_buffer, NULL },
	{ "a time-out that counts completions", prep_counting_timeout, NULL },
};

TEST(closures_that_set_what_is_not_allowed_are_invalid_and_nobody_notices)
{
	struct gyre *rt = test_open_workers(1);
	struct test_pipe pipe = test_pipe();
	struct gyre_op ops[3];
	unsigned i;
	int res;

	for (i = 0; i < LENGTH(bad_closures); i++) {
		void *arg = (void *)(uintptr_t)bad_closures[i].arg;

		test_row("%s", bad_closures[i].what);
		res = 77;
		expect_status(gyre_call(rt, bad_closures[i].prep, arg, &res), GYRE_INVALID);
		expect_eq(res, 77);
		expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
		expect_contains(gyre_last_error(), "gyre_call");
		ops[0] = ops[2] = test_op(prep_nop, NULL);
		ops[1] = test_op(bad_closures[i].prep, arg);
		expect_status(gyre_callv(rt, ops, 3), GYRE_INVALID);
		expect_op(&ops[0], GYRE_OK, 0, GYRE_EFFECT_DONE);
		expect_op(&ops[1], GYRE_INVALID, -ECANCELED, GYRE_EFFECT_NONE);
		expect_op(&ops[2], GYRE_OK, 0, GYRE_EFFECT_DONE);
	}
	expect_eq(test_stat(rt, inflight), 0);
	test_pipe_close(&pipe);
	gyre_free(rt);
}

/* The ring's own descriptors, found as a stranger would find them: by trying all. */
static void prep_close_number(struct io_uring_sqe *sqe, void *arg)
{
	io_uring_prep_close(sqe, *(int *)arg);
}

TEST(closures_cannot_close_the_descriptors_of_their_ring)
{
	bool before[64];
	struct gyre *rt;
	int fd, refused = 0;

	for (fd = 0; fd < 64; fd++)
		before[fd] = fcntl(fd, F_GETFD) >= 0;
	rt = test_open_workers(1);
	for (fd = 0; fd < 64; fd++) {
		if (before[fd] || fcntl(fd, F_GETFD) < 0)
			continue;
		refused += gyre_call(rt, prep_close_number, &fd, NULL) == GYRE_INVALID;
		if (refused == 3)
			break;
	}
	expect_eq(refused, 3);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	gyre_free(rt);
}

/* Here the field of the descriptor holds something else, which may look like the ring's. */
static void prep_socket(struct io_uring_sqe *sqe, void *arg)
{
	io_uring_prep_socket(sqe, *(int *)arg, 1 /* SOCK_STREAM */, 0, 0);
}

TEST(numbers_that_are_no_descriptors_are_not_taken_for_the_rings)
{
	struct gyre *rt = test_open_workers(1);
	int domain, res;

	for (domain = 1; domain < 64; domain++) {
		test_row("domain %d", domain);
		expect_status(gyre_call(rt, prep_socket, &domain, &res), GYRE_OK);
		if (res >= 0)
			close(res);
	}
	gyre_free(rt);
}

/* ----------------------------------------------------------- statistics -- */

TEST(statistics_into_nowhere_or_of_a_wrong_size_are_invalid)
{
	static union { struct gyre_stats stats; char bytes[8192]; } room;
	static const struct {
		size_t size;
		enum gyre_status status;
	} sizes[] = {
		{ 0, GYRE_INVALID },
		{ 8, GYRE_INVALID },
		{ offsetof(struct gyre_stats, calls_in_caller) + 7, GYRE_INVALID },
		{ offsetof(struct gyre_stats, calls_in_caller) + 8, GYRE_OK },
		{ sizeof(struct gyre_stats), GYRE_OK },
		{ sizeof(struct gyre_stats) + 8, GYRE_OK },
		{ 4096, GYRE_OK },
		{ 4097, GYRE_INVALID },
		{ SIZE_MAX, GYRE_INVALID },
	};
	struct gyre *rt = test_open_workers(1);
	unsigned i;
	size_t at;

	expect_status(gyre_stats_get(rt, NULL), GYRE_INVALID);
	for (i = 0; i < LENGTH(sizes); i++) {
		test_row("size %zu", sizes[i].size);
		memset(&room, 0xaa, sizeof(room));
		room.stats.size = sizes[i].size;
		expect_status(gyre_stats_get(rt, &room.stats), sizes[i].status);
		expect_eq(room.stats.size, sizes[i].size);
		at = sizes[i].status == GYRE_OK ? sizes[i].size : sizeof(size_t);
		expect_eq((unsigned char)room.bytes[at], 0xaa);
		if (sizes[i].status == GYRE_OK)
			for (at = sizeof(struct gyre_stats); at < sizes[i].size; at++)
				expect_eq(room.bytes[at], 0);
	}
	gyre_free(rt);
}

TEST(unknown_formats_are_invalid)
{
	static const int formats[] = { 3, 4, -1, INT_MAX, INT_MIN };
	struct gyre *rt = test_open_workers(1);
	unsigned i;

	open_null_fd();
	for (i = 0; i < LENGTH(formats); i++) {
		test_row("format %d", formats[i]);
		expect_status(gyre_stats_write(rt, null_fd, (enum gyre_format)formats[i]),
			      GYRE_INVALID);
		expect_contains(gyre_last_error(), "gyre_stats_write");
	}
	gyre_free(rt);
	close(null_fd);
}

static void expect_unwritable(struct gyre *rt, int fd, int error)
{
	int format;

	for (format = 0; format < 3; format++) {
		errno = 0;
		expect_status(gyre_stats_write(rt, fd, (enum gyre_format)format), GYRE_SYSTEM);
		expect_eq(errno, error);
		expect_contains(gyre_last_error(), "gyre_stats_write");
	}
	errno = 0;
	expect_status(gyre_dump(rt, fd), GYRE_SYSTEM);
	expect_eq(errno, error);
	expect_contains(gyre_last_error(), "gyre_dump");
}

TEST(descriptors_that_cannot_be_written_to_are_system_errors_and_raise_no_signal)
{
	struct gyre *rt = test_open_workers(2);
	struct test_pipe pipe = test_pipe();
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	expect_unwritable(rt, -1, EBADF);
	expect_unwritable(rt, test_closed_fd(), EBADF);
	expect_unwritable(rt, INT_MAX, EBADF);
	expect_unwritable(rt, pipe.r, EBADF);
	expect_unwritable(rt, full, ENOSPC);
	close(pipe.r);
	pipe.r = -1;
	expect_unwritable(rt, pipe.w, EPIPE);
	test_pipe_close(&pipe);
	close(full);
	gyre_free(rt);
}

/* -------------------------------------------------------- the last call -- */

static void *ask_before_any_call(void *arg)
{
	(void)arg;
	expect_eq(gyre_last_status(), GYRE_OK);
	expect(gyre_last_error());
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	return NULL;
}

TEST(thread_that_never_called_has_no_last_error)
{
	pthread_t thread;

	expect_eq(pthread_create(&thread, NULL, ask_before_any_call, NULL), 0);
	pthread_join(thread, NULL);
}

static void fail_in_own_way(void *arg, unsigned number)
{
	struct gyre *rt = arg;
	unsigned i;

	for (i = 0; i < 1000; i++) {
		if (number % 2) {
			expect_status(gyre_call(rt, NULL, NULL, NULL), GYRE_INVALID);
			expect_contains(gyre_last_error(), "gyre_call: ");
		} else {
			expect_status(gyre_op_cancel(rt, NULL), GYRE_INVALID);
			expect_contains(gyre_last_error(), "gyre_op_cancel: ");
		}
		expect_eq(gyre_last_status(), GYRE_INVALID);
	}
}

TEST(last_errors_of_threads_do_not_mix)
{
	struct gyre *rt = test_open_workers(1);

	test_crew_run(6, fail_in_own_way, rt);
	gyre_free(rt);
}

TEST(success_wipes_the_last_error)
{
	struct gyre *rt = test_open_workers(1);

	expect_status(gyre_call(rt, NULL, NULL, NULL), GYRE_INVALID);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	expect_eq(gyre_last_status(), GYRE_OK);
	expect(!strstr(gyre_last_error(), "NULL"));
	gyre_free(rt);
}

TEST_MAIN()
