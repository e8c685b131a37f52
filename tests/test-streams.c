/* SPDX-License-Identifier: MIT */
/* Streams as tasks use them; what a ring makes of them: test-stream. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#define LENGTH(table)	(sizeof(table) / sizeof((table)[0]))

/* ---------------------------------------------------------------- preps -- */

static void prep_accept(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_multishot_accept(sqe, *(int *)fd, NULL, NULL, SOCK_CLOEXEC);
}

static void prep_recv(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_recv_multishot(sqe, *(int *)fd, NULL, 0, 0);
}

static void prep_poll(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_poll_multishot(sqe, *(int *)fd, POLLIN);
}

/* ------------------------------------------------------------ the sockets -- */

struct listener {
	int fd;
	struct sockaddr_un name;
	socklen_t name_len;
};

/* With a name that the kernel chooses, so that any number may run at a time. */
static void listener_open(struct listener *listener)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };

	listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	expect_ge(listener->fd, 0);
	expect_eq(bind(listener->fd, (struct sockaddr *)&name, sizeof(name.sun_family)), 0);
	listener->name_len = sizeof(listener->name);
	expect_eq(getsockname(listener->fd, (struct sockaddr *)&listener->name,
			      &listener->name_len), 0);
	expect_eq(listen(listener->fd, 128), 0);
}

static int connect_to(const struct listener *listener)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	expect_ge(fd, 0);
	expect_eq(connect(fd, (const struct sockaddr *)&listener->name, listener->name_len), 0);
	return fd;
}

static void socket_pair(int type, int ret[2])
{
	expect_eq(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret), 0);
}

static bool is_hung_up(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

static struct gyre_stream *open_on(gyre_prep_fn *prep, int *fd)
{
	struct gyre_stream *stream = NULL;

	expect_status(gyre_stream_open(prep, fd, &stream), GYRE_OK);
	expect(stream);
	return stream;
}

static struct gyre_stream *open_buffers_on(int *fd, size_t size, unsigned buffers)
{
	struct gyre_stream *stream = NULL;

	expect_status(gyre_stream_open_buffers(prep_recv, fd, size, buffers, &stream), GYRE_OK);
	expect(stream);
	return stream;
}

static int next(struct gyre_stream *stream)
{
	int res = -4711;

	expect_status(gyre_stream_next(stream, &res, NULL), GYRE_OK);
	return res;
}

static void run(gyre_task_fn *fn, void *arg)
{
	struct gyre *rt = test_open_workers(1);

	test_block_on(rt, fn, arg);
	gyre_free(rt);
}

/* -------------------------------------------------------- what they give -- */

#define CLIENTS		12
#define MESSAGES	40

/* Each message its number; then the end of the file. */
static int task_client(void *arg)
{
	int fd = connect_to(arg);
	unsigned i;

	for (i = 0; i < MESSAGES; i++) {
		expect_eq(gyre_write(NULL, fd, &i, sizeof(i)), sizeof(i));
		if (i % 8 == 0)
			gyre_yield();
	}
	expect_eq(gyre_close_fd(NULL, fd), 0);
	return 0;
}

/* Buffers of 6 bytes cut the messages of 4 anyhow: what comes is put together again. */
static int task_serve(void *arg)
{
	int fd = (int)(intptr_t)arg, res;
	struct gyre_stream *stream = open_buffers_on(&fd, 6, 2);
	unsigned char got[MESSAGES * sizeof(unsigned)];
	size_t len = 0;
	unsigned i, number;

	while ((res = next(stream)) > 0) {
		expect_le(len + (size_t)res, sizeof(got));
		memcpy(got + len, gyre_stream_data(stream), (size_t)res);
		len += (size_t)res;
	}
	expect_eq(res, 0);
	expect(!gyre_stream_data(stream));
	expect_eq(len, sizeof(got));
	for (i = 0; i < MESSAGES; i++) {
		memcpy(&number, got + i * sizeof(number), sizeof(number));
		expect_eq(number, i);
	}
	gyre_stream_close(stream);
	expect_eq(gyre_close_fd(NULL, fd), 0);
	return 1;
}

static int task_server(void *arg)
{
	struct gyre_task *servers[CLIENTS];
	struct gyre_stream *stream;
	struct listener listener;
	unsigned i;
	int served;

	(void)arg;
	listener_open(&listener);
	stream = open_on(prep_accept, &listener.fd);
	for (i = 0; i < CLIENTS; i++)
		expect_status(gyre_go(task_client, &listener, NULL), GYRE_OK);
	for (i = 0; i < CLIENTS; i++) {
		int fd = next(stream);

		expect_ge(fd, 0);
		expect(!gyre_stream_data(stream));
		expect_status(gyre_go(task_serve, (void *)(intptr_t)fd, &servers[i]), GYRE_OK);
	}
	for (i = 0; i < CLIENTS; i++) {
		expect_status(gyre_join(servers[i], &served), GYRE_OK);
		expect_eq(served, 1);
	}
	gyre_stream_close(stream);
	close(listener.fd);
	return 0;
}

TEST(server_takes_connections_and_what_they_say_in_order)
{
	run(task_server, NULL);
}

static void run_server(void *rt, unsigned number)
{
	(void)number;
	test_block_on(rt, task_server, NULL);
}

TEST(servers_of_many_jobs_do_not_mix)
{
	struct gyre *rt = test_open_workers(2);

	test_crew_run(12, run_server, rt);
	gyre_free(rt);
}

static int task_edges(void *arg)
{
	struct test_pipe pipe = test_pipe();
	struct gyre_stream *stream = open_on(prep_poll, &pipe.r);
	uint32_t flags;
	char c;
	int res, i;

	(void)arg;
	for (i = 0; i < 5; i++) {
		expect_eq(gyre_write(NULL, pipe.w, "x", 1), 1);
		res = 0;
		flags = 0;
		expect_status(gyre_stream_next(stream, &res, &flags), GYRE_OK);
		expect_eq(res & POLLIN, POLLIN);
		expect(flags & IORING_CQE_F_MORE);
		expect(!gyre_stream_data(stream));
		expect_eq(gyre_read(NULL, pipe.r, &c, 1), 1);
	}
	close(pipe.w);
	pipe.w = -1;
	expect_eq(next(stream) & POLLHUP, POLLHUP);
	gyre_stream_close(stream);
	test_pipe_close(&pipe);
	return 0;
}

TEST(poll_tells_each_edge)
{
	run(task_edges, NULL);
}

static int task_to_the_end(void *arg)
{
	struct gyre_stream *stream;
	uint32_t flags = 4711;
	int fds[2], res = 4711, i;

	(void)arg;
	socket_pair(SOCK_STREAM, fds);
	stream = open_buffers_on(&fds[0], 16, 4);
	expect_eq(gyre_write(NULL, fds[1], "last words", 10), 10);
	close(fds[1]);
	expect_eq(next(stream), 10);
	expect_eq(memcmp(gyre_stream_data(stream), "last words", 10), 0);
	expect_eq(next(stream), 0);
	for (i = 0; i < 3; i++) {
		expect_status(gyre_stream_next(stream, &res, &flags), GYRE_CLOSED);
		expect_contains(gyre_last_error(), "gyre_stream_next");
		expect_contains(gyre_last_error(), "at its end");
		expect(!gyre_stream_data(stream));
	}
	expect_eq(res, 4711);
	expect_eq(flags, 4711);
	gyre_stream_close(stream);
	close(fds[0]);
	return 0;
}

TEST(end_of_file_is_a_result_and_closed_comes_after_it)
{
	run(task_to_the_end, NULL);
}

static int task_without_places(void *arg)
{
	struct gyre_stream *stream;
	int fds[2];

	(void)arg;
	socket_pair(SOCK_STREAM, fds);
	stream = open_buffers_on(&fds[0], 16, 4);
	expect_eq(write(fds[1], "abc", 3), 3);
	expect_status(gyre_stream_next(stream, NULL, NULL), GYRE_OK);
	expect_eq(memcmp(gyre_stream_data(stream), "abc", 3), 0);
	expect_status(gyre_last_status(), GYRE_OK);
	gyre_stream_close(stream);
	close(fds[0]);
	close(fds[1]);
	return 0;
}

TEST(who_does_not_ask_for_result_and_flags_gets_the_data)
{
	run(task_without_places, NULL);
}

static int task_failing(void *arg)
{
	struct gyre_stream *stream;
	int fd = test_closed_fd();

	(void)arg;
	stream = open_on(prep_poll, &fd);
	expect_eq(next(stream), -EBADF);
	expect_status(gyre_stream_next(stream, NULL, NULL), GYRE_CLOSED);
	gyre_stream_close(stream);
	return 0;
}

TEST(error_of_the_kernel_is_the_last_result)
{
	run(task_failing, NULL);
}

static int task_data_stays(void *arg)
{
	struct gyre_stream *stream;
	const char *data;
	int fds[2];
	unsigned i;

	(void)arg;
	socket_pair(SOCK_SEQPACKET, fds);
	stream = open_buffers_on(&fds[0], 8, 2);
	expect_eq(write(fds[1], "first", 5), 5);
	expect_eq(next(stream), 5);
	data = gyre_stream_data(stream);
	for (i = 0; i < 20; i++)
		expect_eq(send(fds[1], "another", 7, MSG_DONTWAIT), 7);
	expect_status(gyre_call(NULL, prep_nop, NULL, NULL), GYRE_OK);
	expect_eq(memcmp(data, "first", 5), 0);
	expect(gyre_stream_data(stream) == data);
	for (i = 0; i < 20; i++) {
		expect_eq(next(stream), 7);
		expect_eq(memcmp(gyre_stream_data(stream), "another", 7), 0);
	}
	gyre_stream_close(stream);
	close(fds[0]);
	close(fds[1]);
	return 0;
}

TEST(data_stays_until_the_next_result_is_taken)
{
	run(task_data_stays, NULL);
}

/* ------------------------------------------------------------ closing -- */

/* Connections are accepted by the kernel before anybody takes one. */
static int task_close_untaken(void *arg)
{
	struct gyre_stream *stream;
	struct listener listener;
	int clients[10], taken;
	unsigned i;

	(void)arg;
	listener_open(&listener);
	stream = open_on(prep_accept, &listener.fd);
	for (i = 0; i < LENGTH(clients); i++)
		clients[i] = connect_to(&listener);
	taken = next(stream);
	expect_ge(taken, 0);
	gyre_stream_close(stream);
	close(listener.fd);
	expect(!is_hung_up(clients[0]));
	for (i = 1; i < LENGTH(clients); i++)
		expect(is_hung_up(clients[i]));
	close(taken);
	for (i = 0; i < LENGTH(clients); i++)
		close(clients[i]);
	return 0;
}

TEST(close_closes_what_was_accepted_and_not_taken)
{
	run(task_close_untaken, NULL);
}

struct left_open {
	struct listener listener;
	int clients[6], pair[2];
	struct test_pipe pipe;
};

/* Three streams are open at the job's end: at rest, with results, and with a waiter. */
static int task_next_for_ever(void *stream)
{
	expect_status(gyre_stream_next(stream, NULL, NULL), GYRE_CANCELLED);
	return 0;
}

static int task_leave_open(void *arg)
{
	struct left_open *left = arg;
	struct gyre_stream *stream;
	unsigned i;

	stream = open_on(prep_accept, &left->listener.fd);
	for (i = 0; i < LENGTH(left->clients); i++)
		left->clients[i] = connect_to(&left->listener);
	close(next(stream));
	stream = open_buffers_on(&left->pair[0], 32, 2);
	for (i = 0; i < 10; i++)
		expect_eq(write(left->pair[1], "and more", 8), 8);
	expect_gt(next(stream), 0);
	stream = open_on(prep_poll, &left->pipe.r);
	expect_status(gyre_go(task_next_for_ever, stream, NULL), GYRE_OK);
	gyre_yield();
	return 0;
}

TEST(streams_left_open_are_closed_with_their_job)
{
	struct gyre *rt = test_open_workers(1);
	struct left_open left;
	unsigned i, n;

	for (n = 0; n < 20; n++) {
		listener_open(&left.listener);
		socket_pair(SOCK_STREAM, left.pair);
		left.pipe = test_pipe();
		test_block_on(rt, task_leave_open, &left);
		for (i = 0; i < LENGTH(left.clients); i++) {
			expect(is_hung_up(left.clients[i]));
			close(left.clients[i]);
		}
		close(left.listener.fd);
		close(left.pair[0]);
		close(left.pair[1]);
		test_pipe_close(&left.pipe);
	}
	expect_eq(test_stat(rt, tasks_live), 0);
	gyre_free(rt);
}

static int task_panics(void *arg)
{
	struct listener *listener = arg;

	open_on(prep_accept, &listener->fd);
	gyre_panic("with a stream");
}

TEST(stream_of_a_job_that_panics_is_closed)
{
	struct gyre *rt = test_open_workers(1);
	struct listener listener;

	listener_open(&listener);
	expect_status(gyre_block_on(rt, task_panics, &listener, NULL, NULL), GYRE_RESPONSE_LOST);
	expect_contains(gyre_last_panic(), "with a stream");
	close(listener.fd);
	gyre_free(rt);
}

/* Waits in a stream until the runtime's close cancels it. */
static int task_wait_in_stream(void *arg)
{
	struct test_pipe pipe = test_pipe();
	struct gyre_stream *stream = open_on(prep_poll, &pipe.r);

	atomic_store((atomic_uint *)arg, 1);
	expect_status(gyre_stream_next(stream, NULL, NULL), GYRE_CANCELLED);
	gyre_stream_close(stream);
	test_pipe_close(&pipe);
	return 0;
}

TEST(close_of_the_runtime_cancels_who_waits_in_a_stream)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .drain_ns = 1000 };
	struct gyre *rt = test_open(&options);
	atomic_uint waits = 0;
	struct gyre_job *job = test_spawn(rt, task_wait_in_stream, &waits);

	await(atomic_load(&waits));
	gyre_free(rt);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_CLOSED);
}

/* --------------------------------------------------------- cancelled -- */

struct cancelled {
	struct gyre_stream *stream;
	int fds[2];
	bool has_one;
};

static int task_take_until_cancelled(void *arg)
{
	struct cancelled *cancelled = arg;
	int res;

	expect_eq(next(cancelled->stream), 3);
	cancelled->has_one = true;
	expect_status(gyre_stream_next(cancelled->stream, &res, NULL), GYRE_CANCELLED);
	expect_contains(gyre_last_error(), "cancelled");
	expect_eq(gyre_cancelled(), 1);
	expect_status(gyre_stream_next(cancelled->stream, &res, NULL), GYRE_CANCELLED);
	gyre_stream_close(cancelled->stream);
	return 0;
}

static int task_canceller(void *arg)
{
	struct cancelled cancelled = { .has_one = false };
	struct gyre_task *task;

	(void)arg;
	socket_pair(SOCK_SEQPACKET, cancelled.fds);
	cancelled.stream = open_buffers_on(&cancelled.fds[0], 16, 4);
	expect_status(gyre_go(task_take_until_cancelled, &cancelled, &task), GYRE_OK);
	expect_eq(write(cancelled.fds[1], "one", 3), 3);
	while (!cancelled.has_one)
		gyre_yield();
	gyre_task_cancel(task);
	expect_status(gyre_join(task, NULL), GYRE_OK);
	close(cancelled.fds[0]);
	close(cancelled.fds[1]);
	return 0;
}

TEST(next_of_a_cancelled_task_says_so_and_close_still_closes)
{
	run(task_canceller, NULL);
}

static int task_take_when_cancelled(void *arg)
{
	struct cancelled *cancelled = arg;

	while (!gyre_cancelled())
		gyre_yield();
	expect_eq(next(cancelled->stream), 1);	/* there is nothing left after these */
	expect_eq(next(cancelled->stream), 1);
	expect_status(gyre_stream_next(cancelled->stream, NULL, NULL), GYRE_CANCELLED);
	return 0;
}

static int task_results_for_cancelled(void *arg)
{
	struct cancelled cancelled = { .has_one = false };
	struct gyre_stream *stream;
	struct gyre_task *task;
	struct test_pipe pipe = test_pipe();

	(void)arg;
	socket_pair(SOCK_SEQPACKET, cancelled.fds);
	stream = open_on(prep_poll, &pipe.r);
	cancelled.stream = open_buffers_on(&cancelled.fds[0], 16, 4);
	expect_eq(write(cancelled.fds[1], "a", 1), 1);
	expect_eq(write(cancelled.fds[1], "b", 1), 1);
	/* What comes after them tells that they have come. */
	expect_eq(write(pipe.w, "c", 1), 1);
	expect_eq(next(stream) & POLLIN, POLLIN);
	expect_status(gyre_go(task_take_when_cancelled, &cancelled, &task), GYRE_OK);
	gyre_task_cancel(task);
	expect_status(gyre_join(task, NULL), GYRE_OK);
	/* The others of the job may use it further. */
	expect_eq(write(cancelled.fds[1], "def", 3), 3);
	expect_eq(next(cancelled.stream), 3);
	close(cancelled.fds[0]);
	close(cancelled.fds[1]);
	test_pipe_close(&pipe);
	return 0;
}

TEST(cancelled_task_still_gets_what_has_come)
{
	run(task_results_for_cancelled, NULL);
}

/* ------------------------------------------------------ several users -- */

struct rivals {
	struct gyre_stream *stream;
	int fds[2];
};

static int task_first(void *arg)
{
	struct rivals *rivals = arg;

	expect_eq(next(rivals->stream), 5);
	return 0;
}

static int task_second(void *arg)
{
	struct rivals *rivals = arg;

	expect_status(gyre_stream_next(rivals->stream, NULL, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "another task waits");
	gyre_stream_close(rivals->stream);	/* does nothing */
	return 0;
}

static int task_rivals(void *arg)
{
	struct rivals rivals;
	struct gyre_task *first, *second;

	(void)arg;
	socket_pair(SOCK_STREAM, rivals.fds);
	rivals.stream = open_buffers_on(&rivals.fds[0], 16, 4);
	expect_status(gyre_go(task_first, &rivals, &first), GYRE_OK);
	expect_status(gyre_go(task_second, &rivals, &second), GYRE_OK);
	expect_status(gyre_join(second, NULL), GYRE_OK);
	expect_eq(write(rivals.fds[1], "hello", 5), 5);
	expect_status(gyre_join(first, NULL), GYRE_OK);
	/* One after the other is fine. */
	expect_eq(write(rivals.fds[1], "again", 5), 5);
	expect_eq(next(rivals.stream), 5);
	gyre_stream_close(rivals.stream);
	close(rivals.fds[0]);
	close(rivals.fds[1]);
	return 0;
}

TEST(second_task_that_would_wait_for_a_stream_is_refused)
{
	run(task_rivals, NULL);
}

static int task_of_another_job(void *arg)
{
	struct rivals *rivals = arg;

	expect_status(gyre_stream_next(rivals->stream, NULL, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "another job");
	gyre_stream_close(rivals->stream);	/* does nothing */
	return 0;
}

static int task_owner(void *arg)
{
	struct rivals rivals;

	(void)arg;
	socket_pair(SOCK_STREAM, rivals.fds);
	rivals.stream = open_buffers_on(&rivals.fds[0], 16, 4);
	expect_status(gyre_block_on(NULL, task_of_another_job, &rivals, NULL, NULL), GYRE_OK);
	expect_eq(write(rivals.fds[1], "still", 5), 5);
	expect_eq(next(rivals.stream), 5);
	gyre_stream_close(rivals.stream);
	close(rivals.fds[0]);
	close(rivals.fds[1]);
	return 0;
}

TEST(stream_of_another_job_is_refused)
{
	run(task_owner, NULL);
}

/* --------------------------------------------------------------- refused -- */

static void prep_not_multishot(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_poll_add(sqe, *(int *)fd, POLLIN);
}

static int task_refused(void *arg)
{
	static const struct {
		const char *name;
		gyre_prep_fn *prep;
		bool buffers;
	} rows[] = {
		{ "an op that gives one result", prep_not_multishot, false },
		{ "a nop", prep_nop, false },
		{ "nothing at all", prep_nothing, false },
		{ "what is forbidden", prep_forbidden, false },
		{ "recv without buffers", prep_recv, false },
		{ "accept with buffers", prep_accept, true },
	};
	struct gyre_stream *stream = NULL;
	struct test_pipe pipe = test_pipe();
	unsigned i;

	(void)arg;
	for (i = 0; i < LENGTH(rows); i++) {
		test_row("%s", rows[i].name);
		if (rows[i].buffers)
			expect_status(gyre_stream_open_buffers(rows[i].prep, &pipe.r, 64, 2,
							       &stream),
				      GYRE_INVALID);
		else
			expect_status(gyre_stream_open(rows[i].prep, &pipe.r, &stream),
				      GYRE_INVALID);
		expect_contains(gyre_last_error(), "gyre_stream_open");
		expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
		expect(!stream);
	}
	test_pipe_close(&pipe);
	return 0;
}

TEST(what_is_no_stream_is_refused_in_words)
{
	run(task_refused, NULL);
}

static int task_nulls(void *arg)
{
	struct gyre_stream *stream = NULL;
	struct test_pipe pipe = test_pipe();

	(void)arg;
	expect_status(gyre_stream_open(NULL, &pipe.r, &stream), GYRE_INVALID);
	expect_contains(gyre_last_error(), "prep is NULL");
	expect_status(gyre_stream_open(prep_poll, &pipe.r, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "ret is NULL");
	expect_status(gyre_stream_open_buffers(NULL, &pipe.r, 64, 2, &stream), GYRE_INVALID);
	expect_contains(gyre_last_error(), "gyre_stream_open_buffers");
	expect_status(gyre_stream_open_buffers(prep_recv, &pipe.r, 64, 2, NULL), GYRE_INVALID);
	expect_status(gyre_stream_open_buffers(prep_recv, &pipe.r, 0, 2, &stream), GYRE_INVALID);
	expect_contains(gyre_last_error(), "buffer_size is 0");
	expect_status(gyre_stream_open_buffers(prep_recv, &pipe.r, 64, 0, &stream), GYRE_INVALID);
	expect_contains(gyre_last_error(), "buffers is 0");
	expect_status(gyre_stream_open_buffers(prep_recv, &pipe.r, 64, 32769, &stream),
		      GYRE_INVALID);
	expect_status(gyre_stream_open_buffers(prep_recv, &pipe.r, SIZE_MAX, 2, &stream),
		      GYRE_INVALID);
	expect_status(gyre_stream_next(NULL, NULL, NULL), GYRE_INVALID);
	expect_contains(gyre_last_error(), "stream is NULL");
	expect(!gyre_stream_data(NULL));
	gyre_stream_close(NULL);
	expect(!stream);
	test_pipe_close(&pipe);
	return 0;
}

TEST(nulls_and_zeros_are_invalid)
{
	run(task_nulls, NULL);
}

TEST(plain_thread_is_told_that_streams_are_for_tasks)
{
	struct gyre_stream *stream = NULL;
	int fd = test_closed_fd();

	expect_status(gyre_stream_open(prep_poll, &fd, &stream), GYRE_NO_REACTOR);
	expect_contains(gyre_last_error(), "gyre_stream_open: no reactor running on this thread");
	expect_status(gyre_stream_open_buffers(prep_recv, &fd, 64, 2, &stream), GYRE_NO_REACTOR);
	expect_contains(gyre_last_error(), "gyre_stream_open_buffers: no reactor running");
	expect_status(gyre_stream_next(NULL, NULL, NULL), GYRE_NO_REACTOR);
	expect_contains(gyre_last_error(), "gyre_stream_next: no reactor running");
	gyre_stream_close(NULL);
	expect(!stream);
}

/* ------------------------------------------------------------- closures -- */

struct closure {
	struct test_pipe pipe;
	struct gyre_stream *outer, *inner;
	bool once;
	enum gyre_status open, next, call, sleep;
};

/* What would wait is refused, and nothing of the task is seen or changed by it. */
static void prep_that_calls(struct io_uring_sqe *sqe, void *arg)
{
	struct closure *closure = arg;

	closure->open = gyre_stream_open(prep_poll, &closure->pipe.r, &closure->inner);
	closure->next = gyre_stream_next(closure->outer, NULL, NULL);
	closure->call = gyre_call(NULL, prep_nop, NULL, NULL);
	closure->sleep = gyre_sleep(1);
	(closure->once ? prep_not_multishot : prep_poll)(sqe, &closure->pipe.r);
}

static void expect_refused(const struct closure *closure)
{
	expect_status(closure->open, GYRE_WOULD_DEADLOCK);
	expect_status(closure->next, GYRE_WOULD_DEADLOCK);
	expect_status(closure->call, GYRE_WOULD_DEADLOCK);
	expect_status(closure->sleep, GYRE_WOULD_DEADLOCK);
	expect(!closure->inner);
}

static int task_closures(void *arg)
{
	struct closure closure = { .pipe = test_pipe() };

	(void)arg;
	closure.outer = open_on(prep_poll, &closure.pipe.r);
	gyre_stream_close(open_on(prep_that_calls, (int *)(void *)&closure));
	expect_refused(&closure);
	expect_status(gyre_last_status(), GYRE_OK);
	expect_eq(write(closure.pipe.w, "x", 1), 1);
	closure.once = true;
	closure.open = closure.next = closure.call = closure.sleep = GYRE_OK;
	expect_status(gyre_call(NULL, prep_that_calls, &closure, NULL), GYRE_OK);
	expect_refused(&closure);
	/* It is a task as before. */
	expect_status(gyre_sleep(1), GYRE_OK);
	expect_eq(next(closure.outer) & POLLIN, POLLIN);
	gyre_stream_close(closure.outer);
	test_pipe_close(&closure.pipe);
	return 0;
}

TEST(prep_closure_that_would_wait_is_refused)
{
	run(task_closures, NULL);
}

/* ---------------------------------------------------------------- death -- */

struct dying {
	atomic_uint waits;
	struct test_pipe pipe;
	struct listener listener;
	int clients[3];
	enum gyre_status next, again, open;
};

static int task_dying(void *arg)
{
	struct dying *dying = arg;
	struct gyre_stream *poll, *accept, *late;
	unsigned i;

	accept = open_on(prep_accept, &dying->listener.fd);
	poll = open_on(prep_poll, &dying->pipe.r);
	for (i = 0; i < LENGTH(dying->clients); i++)
		dying->clients[i] = connect_to(&dying->listener);
	close(next(accept));
	atomic_store(&dying->waits, 1);
	dying->next = gyre_stream_next(poll, NULL, NULL);
	dying->again = gyre_stream_next(poll, NULL, NULL);
	dying->open = gyre_stream_open(prep_poll, &dying->pipe.r, &late);
	gyre_stream_close(poll);
	return 0;
}

TEST(death_of_the_worker_ends_its_streams)
{
	struct dying dying = { .pipe = test_pipe() };
	struct gyre_job *job;
	struct gyre *rt;
	unsigned i;

	listener_open(&dying.listener);
	gyre__fault_install();
	rt = test_open_workers(1);
	job = test_spawn(rt, task_dying, &dying);
	await(atomic_load(&dying.waits));
	gyre__fault_set_on("gyre-0", GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_WORKER_DEAD);
	expect_status(gyre_job_wait(job, GYRE_FOREVER, NULL), GYRE_WORKER_DEAD);
	expect_status(dying.next, GYRE_WORKER_DEAD);
	expect_status(dying.again, GYRE_WORKER_DEAD);
	expect_status(dying.open, GYRE_WORKER_DEAD);
	for (i = 0; i < LENGTH(dying.clients); i++)
		close(dying.clients[i]);
	close(dying.listener.fd);
	test_pipe_close(&dying.pipe);
	gyre_free(rt);
	gyre__fault_remove();
}

/* --------------------------------------------------------- no memory -- */

/* The n-th call of it fails, until one is past those that the open makes: how many failed. */
static unsigned fail_each(enum gyre__fault_call call, int *fd)
{
	struct gyre_stream *stream;
	unsigned n;

	for (n = 0;; n++) {
		enum gyre_status status;

		test_row("%s %u fails", gyre__fault_name(call), n);
		stream = NULL;
		gyre__fault_clear();
		gyre__fault_set_on("gyre-0", call, n, 1, -ENOMEM);
		status = gyre_stream_open_buffers(prep_recv, fd, 16, 4, &stream);
		gyre__fault_clear();
		if (status == GYRE_OK)
			break;
		expect_status(status, GYRE_NO_MEMORY);
		expect_contains(gyre_last_error(), "gyre_stream_open_buffers");
		expect(!stream);
	}
	gyre_stream_close(stream);
	return n;
}

static int task_scarce(void *arg)
{
	int fds[2];

	(void)arg;
	socket_pair(SOCK_STREAM, fds);
	expect_ge(fail_each(GYRE__FAULT_alloc, &fds[0]), 2);
	expect_ge(fail_each(GYRE__FAULT_mmap, &fds[0]), 1);
	expect_ge(fail_each(GYRE__FAULT_uring_register, &fds[0]), 1);
	close(fds[0]);
	close(fds[1]);
	return 0;
}

TEST(open_without_memory_says_so_and_leaves_nothing)
{
	gyre__fault_install();
	run(task_scarce, NULL);
	gyre__fault_remove();
}

TEST_MAIN()
