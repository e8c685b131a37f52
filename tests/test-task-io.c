/* SPDX-License-Identifier: MIT */
/*
 * Files, buffers and runtimes from within a task: the same answers as a thread
 * gets, its own last error, and a worker that goes on meanwhile. Each call against
 * the system call, in a task, too: test-io.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))
#define SIBLINGS	8

/* ------------------------------------------------ the same as on a thread -- */

/* A file of 10,000 bytes of its own, and descriptors that cannot do all. */
struct place {
	int file, read_only, append, closed;
	struct test_pipe pipe;
};

static void place_open(struct place *place)
{
	place->file = test_file(10000);
	place->read_only = test_reopen(place->file, O_RDONLY);
	place->append = test_reopen(place->file, O_RDWR | O_APPEND);
	place->closed = test_closed_fd();
	place->pipe = test_pipe();
}

static void place_close(struct place *place)
{
	close(place->file);
	close(place->read_only);
	close(place->append);
	test_pipe_close(&place->pipe);
}

typedef long question_fn(struct gyre *rt, struct place *place);

static long durable(struct gyre *rt, struct place *p)
{
	return gyre_write_durable(rt, p->file, "letters", 7, 100);
}
static long durable_of_nothing(struct gyre *rt, struct place *p)
{
	return gyre_write_durable(rt, p->file, NULL, 0, 0);
}
static long durable_append(struct gyre *rt, struct place *p)
{
	return gyre_write_durable(rt, p->append, "letters", 7, 100);
}
static long durable_read_only(struct gyre *rt, struct place *p)
{
	return gyre_write_durable(rt, p->read_only, "letters", 7, 100);
}
static long durable_pipe(struct gyre *rt, struct place *p)
{
	return gyre_write_durable(rt, p->pipe.w, "letters", 7, 0);
}
static long durable_closed(struct gyre *rt, struct place *p)
{
	return gyre_write_durable(rt, p->closed, "letters", 7, 0);
}
static long durable_negative(struct gyre *rt, struct place *p)
{
	return gyre_write_durable(rt, p->file, "letters", 7, -1);
}
static long sync_file(struct gyre *rt, struct place *p) { return gyre_fsync(rt, p->file); }
static long sync_pipe(struct gyre *rt, struct place *p) { return gyre_fsync(rt, p->pipe.r); }
static long sync_closed(struct gyre *rt, struct place *p) { return gyre_fsync(rt, p->closed); }
static long datasync_file(struct gyre *rt, struct place *p) { return gyre_fdatasync(rt, p->file); }
static long datasync_closed(struct gyre *rt, struct place *p)
{
	return gyre_fdatasync(rt, p->closed);
}
static long reset_file(struct gyre *rt, struct place *p) { return gyre_durable_reset(rt, p->file); }
static long reset_closed(struct gyre *rt, struct place *p)
{
	return gyre_durable_reset(rt, p->closed);
}
static long close_file(struct gyre *rt, struct place *p)
{
	return gyre_close_fd(rt, dup(p->file));
}
static long close_closed(struct gyre *rt, struct place *p) { return gyre_close_fd(rt, p->closed); }
static long close_negative(struct gyre *rt, struct place *p)
{
	(void)p;
	return gyre_close_fd(rt, -1);
}
static long poll_not_ready(struct gyre *rt, struct place *p)
{
	return gyre_poll(rt, p->pipe.r, POLLIN, 1000);
}
static long poll_at_once(struct gyre *rt, struct place *p)
{
	return gyre_poll(rt, p->pipe.r, POLLIN, 0);
}
static long poll_ready(struct gyre *rt, struct place *p)
{
	return gyre_poll(rt, p->pipe.w, POLLOUT, GYRE_FOREVER);
}
static long poll_closed(struct gyre *rt, struct place *p)
{
	return gyre_poll(rt, p->closed, POLLIN, GYRE_FOREVER);
}
static long read_full(struct gyre *rt, struct place *p)
{
	char buf[300];
	ssize_t res = gyre_pread_full(rt, p->file, buf, sizeof(buf), 9800);

	if (res > 0)
		expect_bytes(buf, (size_t)res, 9800);
	return res;
}
static long write_full(struct gyre *rt, struct place *p)
{
	return gyre_pwrite_full(rt, p->file, "letters", 7, 20000);
}
static long buffer_of_nothing(struct gyre *rt, struct place *p)
{
	struct gyre_buffer *buffer = NULL;

	(void)p;
	return gyre_buffer_get(rt, 0, &buffer);
}
static long buffer_nowhere(struct gyre *rt, struct place *p)
{
	(void)p;
	return gyre_buffer_get(rt, 4096, NULL);
}
static long buffer_used(struct gyre *rt, struct place *p)
{
	struct gyre_buffer *buffer = NULL;
	long status = gyre_buffer_get(rt, 4096, &buffer);
	ssize_t res;

	expect_eq(status, GYRE_OK);
	res = gyre_pread(rt, p->file, gyre_buffer_data(buffer), 4096, 1000);
	expect_bytes(gyre_buffer_data(buffer), (size_t)res, 1000);
	gyre_buffer_put(buffer);
	return res;
}
static long dump_to_closed(struct gyre *rt, struct place *p) { return gyre_dump(rt, p->closed); }
static long dump_to_file(struct gyre *rt, struct place *p) { return gyre_dump(rt, p->append); }
static long stats_to_file(struct gyre *rt, struct place *p)
{
	return gyre_stats_write(rt, p->append, GYRE_FORMAT_JSON);
}
static long stats_to_closed(struct gyre *rt, struct place *p)
{
	return gyre_stats_write(rt, p->closed, GYRE_FORMAT_TEXT);
}
static long stats_unknown(struct gyre *rt, struct place *p)
{
	return gyre_stats_write(rt, p->append, (enum gyre_format)77);
}
static long stats_nowhere(struct gyre *rt, struct place *p)
{
	(void)p;
	return gyre_stats_get(rt, NULL);
}
static long open_wrong(struct gyre *rt, struct place *p)
{
	(void)rt;
	(void)p;
	return gyre_open(NULL, NULL);
}
static long open_and_use(struct gyre *rt, struct place *p)
{
	struct gyre *other = NULL;
	long res;

	(void)rt;
	expect_status(gyre_open(NULL, &other), GYRE_OK);
	expect_status(gyre_call(other, prep_nop, NULL, NULL), GYRE_OK);
	res = gyre_fsync(other, p->file);
	expect_status(gyre_close(other), GYRE_OK);
	expect_status(gyre_call(other, prep_nop, NULL, NULL), GYRE_CLOSED);
	gyre_free(other);
	expect_status(gyre_close(NULL), GYRE_OK);
	return res;
}

#define ROW(fn)	{ #fn, fn }
static const struct question {
	const char *name;
	question_fn *fn;
} questions[] = {
	ROW(durable), ROW(durable_of_nothing), ROW(durable_append), ROW(durable_read_only),
	ROW(durable_pipe), ROW(durable_closed), ROW(durable_negative), ROW(sync_file),
	ROW(sync_pipe), ROW(sync_closed), ROW(datasync_file), ROW(datasync_closed), ROW(reset_file),
	ROW(reset_closed), ROW(close_file), ROW(close_closed), ROW(close_negative),
	ROW(poll_not_ready), ROW(poll_at_once), ROW(poll_ready), ROW(poll_closed), ROW(read_full),
	ROW(write_full), ROW(buffer_of_nothing), ROW(buffer_nowhere), ROW(buffer_used),
	ROW(dump_to_closed), ROW(dump_to_file), ROW(stats_to_file), ROW(stats_to_closed),
	ROW(stats_unknown), ROW(stats_nowhere), ROW(open_wrong), ROW(open_and_use),
};

struct answer {
	long res;
	enum gyre_status status;
	enum gyre_effect effect;
	char error[256];
};

static void ask(struct gyre *rt, const struct question *question, struct answer *answer)
{
	struct place place;

	place_open(&place);
	answer->res = question->fn(rt, &place);
	answer->status = gyre_last_status();
	answer->effect = gyre_last_effect();
	snprintf(answer->error, sizeof(answer->error), "%s",
		 answer->status != GYRE_OK ? gyre_last_error() : "");
	place_close(&place);
}

struct asked {
	const struct question *question;
	struct answer answer;
};

static int task_ask(void *arg)
{
	struct asked *asked = arg;

	ask(NULL, asked->question, &asked->answer);
	return 0;
}

TEST(every_call_in_a_task_answers_as_on_a_thread)
{
	struct gyre *rt = test_open_workers(1);
	unsigned i;

	for (i = 0; i < LENGTH(questions); i++) {
		struct asked asked = { .question = &questions[i] };
		struct answer want;

		test_row("%s", questions[i].name);
		ask(rt, &questions[i], &want);
		test_block_on(rt, task_ask, &asked);
		expect_eq(asked.answer.res, want.res);
		expect_status(asked.answer.status, want.status);
		expect_eq(asked.answer.effect, want.effect);
		expect_str(asked.answer.error, want.error);
	}
	gyre_free(rt);
}

/* --------------------------------------------------- beside its siblings -- */

static unsigned steps;
static bool stops;

static int task_step(void *arg)
{
	(void)arg;
	while (!stops) {
		steps++;
		expect_status(gyre_sleep(1000), GYRE_OK);
	}
	return 0;
}

static void siblings_start(void)
{
	unsigned i;

	stops = false;
	for (i = 0; i < SIBLINGS; i++)
		expect_status(gyre_go(task_step, NULL, NULL), GYRE_OK);
	gyre_yield();
}

static int task_ask_beside_siblings(void *arg)
{
	struct asked *asked = arg;

	siblings_start();
	ask(NULL, asked->question, &asked->answer);
	stops = true;
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

TEST(answers_are_the_same_while_siblings_sleep_and_go_on)
{
	struct gyre *rt = test_open_workers(1);
	unsigned i;

	for (i = 0; i < LENGTH(questions); i++) {
		struct asked asked = { .question = &questions[i] };
		struct answer want;

		test_row("%s", questions[i].name);
		ask(rt, &questions[i], &want);
		test_block_on(rt, task_ask_beside_siblings, &asked);
		expect_eq(asked.answer.res, want.res);
		expect_status(asked.answer.status, want.status);
		expect_str(asked.answer.error, want.error);
	}
	gyre_free(rt);
}

/* The byte that it waits for is written by a sibling that has to run for that. */
static int task_write_later(void *arg)
{
	const struct test_pipe *pipe = arg;
	unsigned before = steps;

	while (steps < before + 20)
		expect_status(gyre_sleep(1000), GYRE_OK);
	expect_eq(gyre_write(NULL, pipe->w, "y", 1), 1);
	return 0;
}

static int task_read_pipes(void *arg)
{
	static const int flags[] = { 0, O_NONBLOCK };
	unsigned i;
	char c;

	(void)arg;
	siblings_start();
	for (i = 0; i < LENGTH(flags); i++) {
		struct test_pipe pipe = test_pipe();

		test_row("%s", flags[i] ? "O_NONBLOCK" : "a pipe that blocks");
		expect_eq(fcntl(pipe.r, F_SETFL, flags[i]), 0);
		expect_status(gyre_go(task_write_later, &pipe, NULL), GYRE_OK);
		expect_eq(gyre_read(NULL, pipe.r, &c, 1), 1);
		expect_eq(c, 'y');
		expect_status(gyre_go(task_write_later, &pipe, NULL), GYRE_OK);
		expect_eq(gyre_poll(NULL, pipe.r, POLLIN, GYRE_FOREVER), POLLIN);
		expect_eq(gyre_read(NULL, pipe.r, &c, 1), 1);
		test_pipe_close(&pipe);
	}
	stops = true;
	expect_status(gyre_join_all(), GYRE_OK);
	return 0;
}

TEST(worker_goes_on_while_a_task_reads_and_polls)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_read_pipes, NULL);
	gyre_free(rt);
}

/* A full pipe is emptied by nobody but a sibling. */
static int task_dump_into_pipe(void *arg)
{
	expect_status(gyre_dump(NULL, *(int *)arg), GYRE_OK);
	close(*(int *)arg);
	return 0;
}

static int task_drain_dump(void *arg)
{
	struct test_pipe pipe = test_pipe();
	char buf[512], full[4096] = "";
	ssize_t n, got = 0;

	(void)arg;
	expect_ge(fcntl(pipe.w, F_SETPIPE_SZ, 4096), 4096);
	expect_eq(write(pipe.w, full, sizeof(full)), sizeof(full));
	expect_status(gyre_go(task_dump_into_pipe, &pipe.w, NULL), GYRE_OK);
	while ((n = gyre_read(NULL, pipe.r, buf, sizeof(buf))) > 0)
		got += n;
	expect_eq(n, 0);
	expect_gt(got, sizeof(full));
	close(pipe.r);
	return 0;
}

TEST(worker_goes_on_while_a_dump_waits_for_its_reader)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, task_drain_dump, NULL);
	gyre_free(rt);
}

/* -------------------------------------------------------- its own last call -- */

static int task_fails_otherwise(void *arg)
{
	(void)arg;
	expect_status(gyre_call(NULL, NULL, NULL, NULL), GYRE_INVALID);
	gyre_yield();
	expect_status(gyre_last_status(), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_call");
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	return 0;
}

static int task_last_errors(void *arg)
{
	int fd = test_file(10);

	(void)arg;
	expect_status(gyre_go(task_fails_otherwise, NULL, NULL), GYRE_OK);
	expect_eq(gyre_fsync(NULL, fd), 0);
	gyre_yield();
	expect_status(gyre_last_status(), GYRE_OK);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
	expect_status(gyre_buffer_get(NULL, 0, NULL), GYRE_INVALID);
	gyre_yield();
	expect_status(gyre_last_status(), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_buffer_get");
	expect_status(gyre_join_all(), GYRE_OK);
	close(fd);
	return 0;
}

TEST(last_error_is_the_tasks_own)
{
	struct gyre *rt = test_open_workers(1);

	expect_status(gyre_call(rt, NULL, NULL, NULL), GYRE_INVALID);
	test_block_on(rt, task_last_errors, NULL);
	expect_status(gyre_last_status(), GYRE_OK);
	gyre_free(rt);
}

/* --------------------------------------------------------- during a drain -- */

struct drained {
	struct gyre *rt;
	struct test_pipe pipe;
	atomic_uint waits;
};

static int task_drained(void *arg)
{
	struct drained *drained = arg;
	struct gyre_buffer *buffer = NULL;
	int fd = test_file(10000);
	char bytes[100];

	atomic_store(&drained->waits, 1);
	expect_eq(gyre_read(NULL, drained->pipe.r, bytes, 1), 1);
	/* The close is under way. */
	expect_eq(gyre_pread(NULL, fd, bytes, 100, 50), 100);
	expect_bytes(bytes, 100, 50);
	expect_eq(gyre_pwrite(NULL, fd, bytes, 100, 0), 100);
	expect_eq(gyre_fsync(NULL, fd), 0);
	expect_eq(gyre_fdatasync(NULL, fd), 0);
	expect_eq(gyre_write_durable(NULL, fd, bytes, 100, 200), 100);
	expect_eq(gyre_durable_reset(NULL, fd), 0);
	expect_status(gyre_buffer_get(NULL, 4096, &buffer), GYRE_OK);
	gyre_buffer_put(buffer);
	expect_status(gyre_dump(NULL, fd), GYRE_OK);
	expect_status(gyre_stats_write(NULL, fd, GYRE_FORMAT_TEXT), GYRE_OK);
	expect_eq(gyre_close_fd(NULL, fd), 0);
	return 17;
}

static void *close_runtime(void *arg)
{
	expect_status(gyre_close(arg), GYRE_OK);
	return NULL;
}

TEST(task_may_read_write_and_flush_while_the_runtime_closes)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.drain_ns = GYRE_FOREVER };
	struct drained drained = { .rt = test_open(&options), .pipe = test_pipe() };
	struct gyre_job *job = test_spawn(drained.rt, task_drained, &drained);
	pthread_t closer;
	int result = 0;

	await(atomic_load(&drained.waits));
	expect_eq(pthread_create(&closer, NULL, close_runtime, drained.rt), 0);
	await(gyre_call(drained.rt, prep_nop, NULL, NULL) == GYRE_CLOSED);
	expect_eq(write(drained.pipe.w, "x", 1), 1);
	pthread_join(closer, NULL);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, &result), GYRE_OK);
	expect_eq(result, 17);
	gyre_free(drained.rt);
	test_pipe_close(&drained.pipe);
}

TEST_MAIN()
