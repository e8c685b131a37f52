/* SPDX-License-Identifier: MIT */
/* ring/stream: multishot ops, on a ring that the test's own thread turns. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "helpers.h"
#include "lib/bridge.h"
#include "ring/ring.h"
#include "ring/stream.h"
#include "ring/sys_fault.h"
#include "ring/waiter.h"

#define READ_MULTISHOT	49	/* newer than the oldest liburing */
#define BUFFER_SIZE	64

/* ---------------------------------------------------------------- rings -- */

static struct gyre__ring *ring_open_with(unsigned entries, unsigned inflight_max)
{
	const struct gyre__ring_config config = {
		.entries = entries, .inflight_max = inflight_max, .spin_ns = GYRE_SPIN_NEVER,
	};
	struct gyre__ring *ring = gyre__sys->alloc(sizeof(*ring), 128);
	const char *step;

	expect(ring);
	expect_eq(gyre__ring_open(ring, &config, &step), 0);
	expect_eq(gyre__ring_enable(ring), 0);
	return ring;
}

static struct gyre__ring *ring_open(void)
{
	return ring_open_with(64, 256);
}

static void turn(struct gyre__ring *ring)
{
	if (!gyre__ring_turn(ring))
		gyre__ring_wait(ring);
}

/* Turns until cond holds, asleep while nothing happens. */
#define turn_until(ring, cond) \
	do { \
		while (!(cond)) \
			turn(ring); \
	} while (0)

/* One that has ended, or died. */
static void ring_free(struct gyre__ring *ring)
{
	gyre__ring_close(ring);
	gyre__sys->free(ring);
}

static void ring_end(struct gyre__ring *ring)
{
	gyre__ring_seal(ring, 0);
	turn_until(ring, gyre__ring_finished(ring));
	ring_free(ring);
}

/* -------------------------------------------------------------- streams -- */

struct consumer {
	struct gyre__stream stream;
	unsigned came;
};

static void note_came(struct gyre__stream *stream)
{
	gyre__container_of(stream, struct consumer, stream)->came++;
}

static void prep_accept(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_multishot_accept(sqe, *(int *)fd, NULL, NULL, SOCK_CLOEXEC);
}

static void prep_poll(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_poll_multishot(sqe, *(int *)fd, POLLIN);
}

static void prep_recv(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_recv_multishot(sqe, *(int *)fd, NULL, 0, 0);
}

static void prep_read_many(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_rw(READ_MULTISHOT, sqe, *(int *)fd, NULL, 0, (uint64_t)-1);
}

static int try_open(struct gyre__ring *ring, struct consumer *consumer, gyre_prep_fn *prep,
		    void *arg, unsigned buffers, enum gyre__refusal *ret_refusal)
{
	memset(consumer, 0, sizeof(*consumer));
	consumer->stream.came = note_came;
	return gyre__stream_open(ring, &consumer->stream, prep, arg, BUFFER_SIZE, buffers,
				 ret_refusal);
}

static void stream_open(struct gyre__ring *ring, struct consumer *consumer, gyre_prep_fn *prep,
			int *fd, unsigned buffers)
{
	enum gyre__refusal refusal = GYRE__ACCEPTED;
	int rc = try_open(ring, consumer, prep, fd, buffers, &refusal);

	if (rc == -EINVAL && (refusal == GYRE__REFUSED_NO_MULTISHOT ||
			      refusal == GYRE__REFUSED_UNSUPPORTED))
		test_skip("%s", gyre__refusal_text(refusal));
	if (rc == -EINVAL)
		test_fail("%s", gyre__refusal_text(refusal));
	expect_eq(rc, 0);
}

static void stream_close(struct gyre__ring *ring, struct consumer *consumer)
{
	if (!gyre__stream_close(&consumer->stream))
		turn_until(ring, gyre__stream_is_over(&consumer->stream));
	gyre__stream_done(&consumer->stream);
}

/* The next result, however long it takes. */
static struct gyre__result next(struct gyre__ring *ring, struct consumer *consumer,
				const void **ret_data)
{
	struct gyre__result result;

	while (!gyre__stream_take(&consumer->stream, &result, ret_data)) {
		expect(!gyre__stream_is_over(&consumer->stream));
		turn(ring);
	}
	return result;
}

static int next_res(struct gyre__ring *ring, struct consumer *consumer)
{
	const void *data;

	return next(ring, consumer, &data).res;
}

static void expect_nothing(struct consumer *consumer)
{
	struct gyre__result result;
	const void *data;

	expect(!gyre__stream_take(&consumer->stream, &result, &data));
}

/* ------------------------------------------------------------- sockets -- */

struct listener {
	int fd;
	struct sockaddr_un address;
	socklen_t len;
};

static struct listener listener_open(void)
{
	struct listener listener = { .len = sizeof(listener.address) };

	listener.address.sun_family = AF_UNIX;
	listener.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	expect_ge(listener.fd, 0);
	/* No name: the kernel gives it one that is nobody else's. */
	expect_eq(bind(listener.fd, (struct sockaddr *)&listener.address, sizeof(sa_family_t)), 0);
	expect_eq(getsockname(listener.fd, (struct sockaddr *)&listener.address, &listener.len), 0);
	expect_eq(listen(listener.fd, 4096), 0);
	return listener;
}

static int connect_to(const struct listener *listener)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	expect_ge(fd, 0);
	expect_eq(connect(fd, (const struct sockaddr *)&listener->address, listener->len), 0);
	return fd;
}

static void close_all(const int *fds, unsigned count)
{
	while (count > 0)
		close(fds[--count]);
}

static void socket_pair(int type, int ret[2])
{
	expect_eq(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret), 0);
}

static void send_number(int fd, uint32_t number)
{
	expect_eq(send(fd, &number, sizeof(number), 0), sizeof(number));
}

static void expect_number(struct gyre__ring *ring, struct consumer *consumer, uint32_t number)
{
	const void *data;
	uint32_t found;

	expect_eq(next(ring, consumer, &data).res, sizeof(found));
	expect(data);
	memcpy(&found, data, sizeof(found));
	expect_eq(found, number);
}

/* -------------------------------------------------------------- accept -- */

#define CONNECTIONS	1000

static void connect_many(void *arg, unsigned number)
{
	unsigned i;

	(void)number;
	for (i = 0; i < CONNECTIONS; i++)
		close(connect_to(arg));
}

TEST(accept_gives_each_of_a_thousand_connections)
{
	struct gyre__ring *ring = ring_open();
	struct listener listener = listener_open();
	struct consumer consumer;
	struct test_crew crew;
	unsigned i;

	stream_open(ring, &consumer, prep_accept, &listener.fd, 0);
	test_crew_start(&crew, 1, connect_many, &listener);
	for (i = 0; i < CONNECTIONS; i++) {
		int fd = next_res(ring, &consumer);

		expect_ge(fd, 0);
		close(fd);
	}
	test_crew_join(&crew);
	expect_nothing(&consumer);
	stream_close(ring, &consumer);
	close(listener.fd);
	ring_end(ring);
}

TEST(what_was_accepted_and_not_taken_is_closed)
{
	struct gyre__ring *ring = ring_open();
	struct listener listener = listener_open();
	struct consumer consumer;
	int fds[20];
	char byte;
	unsigned i;

	stream_open(ring, &consumer, prep_accept, &listener.fd, 0);
	for (i = 0; i < 20; i++)
		fds[i] = connect_to(&listener);
	turn_until(ring, consumer.stream.count == 20);
	close(next_res(ring, &consumer));
	stream_close(ring, &consumer);
	for (i = 0; i < 20; i++)
		expect_eq(read(fds[i], &byte, 1), 0);
	close_all(fds, 20);
	close(listener.fd);
	ring_end(ring);
}

#define MANY	(GYRE__STREAM_FULL + 50)

TEST(accept_stops_while_nobody_takes_and_goes_on_when_half_are_taken)
{
	struct gyre__ring *ring = ring_open_with(64, 1024);
	struct listener listener = listener_open();
	struct consumer consumer;
	int fds[MANY + 1], last = -1;
	unsigned i;
	char byte;

	test_limit(RLIMIT_NOFILE, 1024);
	stream_open(ring, &consumer, prep_accept, &listener.fd, 0);
	for (i = 0; i < MANY; i++)
		fds[i] = connect_to(&listener);
	turn_until(ring, consumer.stream.state == GYRE__STREAM_RESTING);
	expect_eq(consumer.stream.count, MANY);
	fds[MANY] = connect_to(&listener);
	for (i = 0; i < MANY - GYRE__STREAM_FULL / 2 - 1; i++)
		close(next_res(ring, &consumer));
	expect_eq(consumer.stream.state, GYRE__STREAM_RESTING);
	close(next_res(ring, &consumer));
	expect_eq(consumer.stream.state, GYRE__STREAM_FLYING);
	for (i++; i < MANY + 1; i++) {
		last = next_res(ring, &consumer);
		expect_ge(last, 0);
		if (i < MANY)
			close(last);
	}
	expect_eq(send(fds[MANY], "x", 1, 0), 1);
	expect_eq(recv(last, &byte, 1, 0), 1);
	close(last);
	stream_close(ring, &consumer);
	close_all(fds, MANY + 1);
	close(listener.fd);
	ring_end(ring);
}

TEST(accept_that_fails_says_why_and_is_over)
{
	struct gyre__ring *ring = ring_open();
	struct consumer consumer;
	int pair[2];

	socket_pair(SOCK_STREAM, pair);
	stream_open(ring, &consumer, prep_accept, &pair[0], 0);
	expect_eq(next_res(ring, &consumer), -EINVAL);
	expect(gyre__stream_is_over(&consumer.stream));
	expect_eq(gyre__stream_status(&consumer.stream), GYRE_OK);
	expect_gt(consumer.came, 0);
	expect(gyre__stream_close(&consumer.stream));
	gyre__stream_done(&consumer.stream);
	close_all(pair, 2);
	ring_end(ring);
}

TEST(accepted_descriptors_for_which_there_is_no_memory_are_closed_and_the_stream_says_so)
{
	struct gyre__ring *ring;
	struct listener listener = listener_open();
	struct consumer consumer;
	unsigned kept = 0, i;
	int fds[100], fd;
	char byte;

	gyre__fault_install();
	ring = ring_open();
	stream_open(ring, &consumer, prep_accept, &listener.fd, 0);
	for (i = 0; i < 100; i++)
		fds[i] = connect_to(&listener);
	gyre__fault_set(GYRE__FAULT_alloc, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	turn_until(ring, gyre__stream_is_over(&consumer.stream));
	gyre__fault_set(GYRE__FAULT_alloc, 0, 0, 0);
	expect_eq(gyre__stream_status(&consumer.stream), GYRE_NO_MEMORY);
	while (consumer.stream.count > 0) {
		fd = next_res(ring, &consumer);
		close(fd);
		kept++;
	}
	expect_gt(kept, 0);
	expect_lt(kept, 100);
	for (i = 0; i < 100; i++)	/* each was accepted, and closed by one of us */
		expect_eq(read(fds[i], &byte, 1), 0);
	gyre__stream_done(&consumer.stream);
	close_all(fds, 100);
	close(listener.fd);
	ring_end(ring);
	gyre__fault_remove();
}

/* ---------------------------------------------------------------- poll -- */

TEST(poll_tells_each_edge)
{
	struct gyre__ring *ring = ring_open();
	struct test_pipe pipe = test_pipe();
	struct consumer consumer;
	unsigned i;
	char byte;

	stream_open(ring, &consumer, prep_poll, &pipe.r, 0);
	for (i = 0; i < 100; i++) {
		expect_eq(write(pipe.w, "x", 1), 1);
		expect_eq(next_res(ring, &consumer) & POLLIN, POLLIN);
		expect_eq(read(pipe.r, &byte, 1), 1);
	}
	close(pipe.w);
	while (!(next_res(ring, &consumer) & POLLHUP))
		;
	expect(!gyre__stream_is_over(&consumer.stream));
	stream_close(ring, &consumer);
	close(pipe.r);
	ring_end(ring);
}

TEST(poll_stops_while_nobody_takes_and_then_says_what_is_so)
{
	struct gyre__ring *ring = ring_open();
	struct test_pipe pipe = test_pipe();
	struct consumer consumer;
	char byte;

	stream_open(ring, &consumer, prep_poll, &pipe.r, 0);
	while (consumer.stream.state != GYRE__STREAM_RESTING) {
		expect_eq(write(pipe.w, "x", 1), 1);
		gyre__ring_turn(ring);
		expect_eq(read(pipe.r, &byte, 1), 1);
	}
	expect_ge(consumer.stream.count, GYRE__STREAM_FULL);
	expect_eq(write(pipe.w, "x", 1), 1);
	while (consumer.stream.count > 0)
		next_res(ring, &consumer);
	expect_eq(next_res(ring, &consumer), POLLIN);	/* of the byte that came meanwhile */
	stream_close(ring, &consumer);
	test_pipe_close(&pipe);
	ring_end(ring);
}

TEST(poll_without_memory_says_more_in_one_result)
{
	struct gyre__ring *ring;
	struct test_pipe pipe = test_pipe();
	struct consumer consumer;
	unsigned i;
	char byte;

	gyre__fault_install();
	ring = ring_open();
	stream_open(ring, &consumer, prep_poll, &pipe.r, 0);
	gyre__fault_set(GYRE__FAULT_alloc, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	for (i = 0; i < 100; i++) {
		expect_eq(write(pipe.w, "x", 1), 1);
		gyre__ring_turn(ring);
		expect_eq(read(pipe.r, &byte, 1), 1);
	}
	close(pipe.w);
	turn(ring);
	for (i = consumer.stream.count; i > 1; i--)
		next_res(ring, &consumer);
	expect_eq(next_res(ring, &consumer) & (POLLIN | POLLHUP), POLLIN | POLLHUP);
	expect(!gyre__stream_is_over(&consumer.stream));
	gyre__fault_set(GYRE__FAULT_alloc, 0, 0, 0);
	stream_close(ring, &consumer);
	close(pipe.r);
	ring_end(ring);
	gyre__fault_remove();
}

/* While no cancel finds a place, the kernel goes on: so does the FIFO, up to its bound. */
TEST(a_fifo_that_is_full_to_its_bound_says_more_in_one_result)
{
	struct gyre__ring *ring = ring_open_with(4, 4);
	struct test_pipe pipe = test_pipe();
	struct gyre__op *taken[GYRE__RING_RESERVED];
	struct consumer consumer;
	unsigned count, i;
	char byte;

	stream_open(ring, &consumer, prep_poll, &pipe.r, 0);
	for (count = 0; gyre__op_table_library_room(&ring->table) > 0; count++)
		taken[count] = gyre__op_get(&ring->table, true);
	for (i = 0; i < 2 * consumer.stream.max; i++) {
		expect_eq(write(pipe.w, "x", 1), 1);
		gyre__ring_turn(ring);
		expect_eq(read(pipe.r, &byte, 1), 1);
	}
	expect_eq(consumer.stream.count, consumer.stream.max);
	expect_eq(consumer.stream.state, GYRE__STREAM_PAUSING);
	for (i = 0; i < count; i++) {
		gyre__op_set_state(taken[i], GYRE__OP_DONE);
		gyre__op_put(&ring->table, taken[i], true);
	}
	turn_until(ring, consumer.stream.state == GYRE__STREAM_RESTING);
	expect(!consumer.stream.lost);
	stream_close(ring, &consumer);
	test_pipe_close(&pipe);
	ring_end(ring);
}

/* -------------------------------------------------- receiving, reading -- */

#define MESSAGES	100

static void receive_with(unsigned buffers)
{
	struct gyre__ring *ring = ring_open();
	struct consumer consumer;
	int pair[2];
	uint32_t i;

	test_row("%u buffers", buffers);
	socket_pair(SOCK_SEQPACKET, pair);
	stream_open(ring, &consumer, prep_recv, &pair[0], buffers);
	for (i = 0; i < MESSAGES; i++)
		send_number(pair[1], i);
	if (buffers < MESSAGES) {
		turn_until(ring, consumer.stream.state == GYRE__STREAM_RESTING);
		expect_eq(consumer.stream.count, buffers);
	}
	for (i = 0; i < MESSAGES; i++)
		expect_number(ring, &consumer, i);
	expect_nothing(&consumer);
	stream_close(ring, &consumer);
	close_all(pair, 2);
	ring_end(ring);
}

TEST(recv_with_fewer_buffers_than_messages_loses_none_and_keeps_their_order)
{
	static const unsigned counts[] = { 1, 2, 3, 4, 7, 64, 128 };
	unsigned i;

	for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		receive_with(counts[i]);
}

TEST(data_stays_until_the_next_take)
{
	struct gyre__ring *ring = ring_open();
	struct consumer consumer;
	const void *data;
	uint32_t found, i;
	int pair[2];

	socket_pair(SOCK_SEQPACKET, pair);
	stream_open(ring, &consumer, prep_recv, &pair[0], 2);
	for (i = 0; i < 10; i++)
		send_number(pair[1], i);
	for (i = 0; i < 10; i++) {
		expect_eq(next(ring, &consumer, &data).res, sizeof(found));
		gyre__ring_turn(ring);		/* the kernel may fill what it has */
		gyre__ring_turn(ring);
		memcpy(&found, data, sizeof(found));
		expect_eq(found, i);
	}
	stream_close(ring, &consumer);
	close_all(pair, 2);
	ring_end(ring);
}

TEST(recv_ends_at_the_end_of_the_file_and_what_came_before_can_be_taken)
{
	struct gyre__ring *ring = ring_open();
	struct consumer consumer;
	int pair[2];

	socket_pair(SOCK_STREAM, pair);
	stream_open(ring, &consumer, prep_recv, &pair[0], 4);
	send_number(pair[1], 17);
	close(pair[1]);
	turn_until(ring, gyre__stream_is_over(&consumer.stream));
	expect_eq(gyre__stream_status(&consumer.stream), GYRE_OK);
	expect_number(ring, &consumer, 17);
	expect_eq(next_res(ring, &consumer), 0);
	expect_nothing(&consumer);
	expect(gyre__stream_close(&consumer.stream));
	gyre__stream_done(&consumer.stream);
	close(pair[0]);
	ring_end(ring);
}

TEST(recv_of_a_broken_connection_ends_with_its_error)
{
	struct gyre__ring *ring = ring_open();
	struct consumer consumer;
	int pair[2];

	socket_pair(SOCK_STREAM, pair);
	stream_open(ring, &consumer, prep_recv, &pair[0], 4);
	send_number(pair[0], 1);
	close(pair[1]);		/* with something unread in it: a reset */
	expect_eq(next_res(ring, &consumer), -ECONNRESET);
	expect(gyre__stream_is_over(&consumer.stream));
	gyre__stream_done(&consumer.stream);
	close(pair[0]);
	ring_end(ring);
}

TEST(read_of_a_pipe_gives_what_is_written_up_to_its_end)
{
	struct gyre__ring *ring = ring_open();
	struct test_pipe pipe = test_pipe();
	struct consumer consumer;
	uint32_t i;

	stream_open(ring, &consumer, prep_read_many, &pipe.r, 4);
	for (i = 0; i < 50; i++) {
		expect_eq(write(pipe.w, &i, sizeof(i)), sizeof(i));
		expect_number(ring, &consumer, i);
	}
	close(pipe.w);
	expect_eq(next_res(ring, &consumer), 0);
	expect(gyre__stream_is_over(&consumer.stream));
	gyre__stream_done(&consumer.stream);
	close(pipe.r);
	ring_end(ring);
}

TEST(read_of_a_file_is_told_by_the_kernel_that_it_cannot)
{
	struct gyre__ring *ring = ring_open();
	struct consumer consumer;
	int fd = test_file(100);

	stream_open(ring, &consumer, prep_read_many, &fd, 4);
	expect_eq(next_res(ring, &consumer), -EBADFD);
	expect(gyre__stream_is_over(&consumer.stream));
	gyre__stream_done(&consumer.stream);
	close(fd);
	ring_end(ring);
}

TEST(streams_of_one_ring_never_share_buffers)
{
	struct gyre__ring *ring = ring_open();
	struct consumer consumers[8];
	int pairs[8][2];
	uint32_t round, i;

	for (i = 0; i < 8; i++) {
		socket_pair(SOCK_SEQPACKET, pairs[i]);
		ring->streams.next_group = (uint16_t)(i % 2);	/* taken, as after 65536 others */
		stream_open(ring, &consumers[i], prep_recv, &pairs[i][0], 2);
	}
	for (round = 0; round < 10; round++) {
		for (i = 0; i < 8; i++)
			send_number(pairs[i][1], 100 * round + i);
		for (i = 8; i-- > 0; )
			expect_number(ring, &consumers[i], 100 * round + i);
	}
	for (i = 0; i < 8; i++) {
		stream_close(ring, &consumers[i]);
		close_all(pairs[i], 2);
	}
	ring_end(ring);
}

/* ---------------------------------------------------------- room, ends -- */

TEST(streams_past_the_room_start_when_others_end)
{
	struct gyre__ring *ring = ring_open_with(8, 2);
	struct consumer consumers[3];
	struct test_pipe pipes[3];
	unsigned i;

	for (i = 0; i < 3; i++) {
		pipes[i] = test_pipe();
		stream_open(ring, &consumers[i], prep_poll, &pipes[i].r, 0);
	}
	expect_eq(consumers[2].stream.state, GYRE__STREAM_WANTING);
	expect_eq(write(pipes[2].w, "x", 1), 1);
	expect_eq(write(pipes[0].w, "x", 1), 1);
	expect_eq(next_res(ring, &consumers[0]), POLLIN);
	expect_eq(consumers[2].came, 0);
	stream_close(ring, &consumers[1]);
	expect_eq(next_res(ring, &consumers[2]), POLLIN);
	stream_close(ring, &consumers[0]);
	stream_close(ring, &consumers[2]);
	for (i = 0; i < 3; i++)
		test_pipe_close(&pipes[i]);
	ring_end(ring);
}

TEST(stream_that_waits_for_room_is_closed_at_once)
{
	struct gyre__ring *ring = ring_open_with(8, 1);
	struct consumer first, second;
	struct test_pipe pipe = test_pipe();

	stream_open(ring, &first, prep_poll, &pipe.r, 0);
	stream_open(ring, &second, prep_read_many, &pipe.r, 2);
	expect(gyre__stream_close(&second.stream));
	gyre__stream_done(&second.stream);
	stream_close(ring, &first);
	expect_eq(second.came, 0);
	test_pipe_close(&pipe);
	ring_end(ring);
}

TEST(end_of_the_drain_cancels_streams_in_flight_and_at_rest)
{
	struct gyre__ring *ring = ring_open();
	struct consumer flying, resting;
	int pair[2], i;
	struct test_pipe pipe = test_pipe();

	socket_pair(SOCK_SEQPACKET, pair);
	stream_open(ring, &flying, prep_poll, &pipe.r, 0);
	stream_open(ring, &resting, prep_recv, &pair[0], 2);
	for (i = 0; i < 3; i++)
		send_number(pair[1], (uint32_t)i);
	turn_until(ring, resting.stream.state == GYRE__STREAM_RESTING);
	gyre__ring_seal(ring, 0);
	turn_until(ring, gyre__ring_finished(ring));
	expect(gyre__stream_is_over(&flying.stream) && gyre__stream_is_over(&resting.stream));
	expect_eq(gyre__stream_status(&flying.stream), GYRE_CANCELLED);
	expect_eq(gyre__stream_status(&resting.stream), GYRE_CANCELLED);
	expect_eq(flying.came, 1);
	expect_number(ring, &resting, 0);	/* what had come is still there */
	expect_number(ring, &resting, 1);
	expect_nothing(&resting);
	ring_free(ring);
	gyre__stream_done(&flying.stream);
	gyre__stream_done(&resting.stream);
	test_pipe_close(&pipe);
	close_all(pair, 2);
}

TEST(a_sealed_ring_goes_on_with_its_streams_until_they_are_closed)
{
	struct gyre__ring *ring = ring_open();
	struct test_pipe pipe = test_pipe();
	enum gyre__refusal refusal;
	struct consumer consumer, late;
	unsigned i;
	char byte;

	stream_open(ring, &consumer, prep_poll, &pipe.r, 0);
	gyre__ring_seal(ring, GYRE_FOREVER);
	for (i = 0; i < 10; i++) {
		expect_eq(write(pipe.w, "x", 1), 1);
		expect_eq(next_res(ring, &consumer), POLLIN);
		expect_eq(read(pipe.r, &byte, 1), 1);
	}
	expect(!gyre__ring_finished(ring));
	expect(!gyre__stream_close(&consumer.stream));
	turn_until(ring, gyre__ring_finished(ring));
	gyre__stream_done(&consumer.stream);
	expect_eq(try_open(ring, &late, prep_poll, &pipe.r, 0, &refusal), -ESHUTDOWN);
	ring_free(ring);
	test_pipe_close(&pipe);
}

TEST(a_sealed_ring_with_nothing_left_takes_no_stream)
{
	struct gyre__ring *ring = ring_open();
	struct test_pipe pipe = test_pipe();
	enum gyre__refusal refusal;
	struct consumer consumer;

	gyre__ring_turn(ring);
	gyre__ring_seal(ring, GYRE_FOREVER);
	while (ring->phase == GYRE__RING_RUNNING)
		gyre__ring_turn(ring);
	expect_eq(ring->phase, GYRE__RING_DRAINING);
	expect_eq(try_open(ring, &consumer, prep_poll, &pipe.r, 0, &refusal), -ESHUTDOWN);
	turn_until(ring, gyre__ring_finished(ring));
	ring_free(ring);
	test_pipe_close(&pipe);
}

TEST(death_ends_every_stream_and_keeps_what_had_come)
{
	struct gyre__ring *ring = ring_open_with(8, 2);
	struct consumer flying, resting, wanting, late;
	struct test_pipe pipe = test_pipe();
	enum gyre__refusal refusal;
	int pair[2], i;

	socket_pair(SOCK_SEQPACKET, pair);
	stream_open(ring, &resting, prep_recv, &pair[0], 2);
	for (i = 0; i < 3; i++)
		send_number(pair[1], (uint32_t)i);
	turn_until(ring, resting.stream.state == GYRE__STREAM_RESTING);
	stream_open(ring, &flying, prep_poll, &pipe.r, 0);
	gyre__ring_turn(ring);
	stream_open(ring, &wanting, prep_poll, &pipe.r, 0);
	resting.came = 0;
	gyre__ring_die(ring, -EBADR);
	expect_eq(gyre__stream_status(&flying.stream), GYRE_WORKER_DEAD);
	expect_eq(gyre__stream_status(&resting.stream), GYRE_WORKER_DEAD);
	expect_eq(gyre__stream_status(&wanting.stream), GYRE_WORKER_DEAD);
	expect_eq(flying.came, 1);
	expect_eq(resting.came, 1);
	expect_eq(wanting.came, 1);
	expect_number(ring, &resting, 0);
	expect_number(ring, &resting, 1);
	expect_nothing(&resting);
	expect(gyre__stream_close(&resting.stream));
	expect_eq(try_open(ring, &late, prep_poll, &pipe.r, 0, &refusal), -EOWNERDEAD);
	ring_free(ring);
	gyre__stream_done(&flying.stream);
	gyre__stream_done(&resting.stream);
	gyre__stream_done(&wanting.stream);
	test_pipe_close(&pipe);
	close_all(pair, 2);
}

static void done_flag(struct gyre__waiter *waiter, struct gyre__batch *batch,
		      struct gyre__ring *ring)
{
	(void)ring;
	(void)batch;
	waiter->done = NULL;
}

/* As gyre_close_fd() does it, all of it on this thread. */
static void barrier(struct gyre__ring *ring, int fd)
{
	struct gyre__waiter waiter = { .done = done_flag };
	struct gyre__batch *batch = gyre__sys->alloc(sizeof(*batch), 128);

	batch->flags = GYRE__BATCH_CONTROL;
	batch->control = gyre__ring_barrier;
	batch->control_arg = &fd;
	batch->waiter = &waiter;
	expect(gyre__ring_control(ring, batch));
	turn_until(ring, !waiter.done);
	gyre__sys->free(batch);
}

TEST(a_stream_whose_descriptor_was_closed_never_starts_on_the_file_that_has_its_number_next)
{
	struct gyre__ring *ring = ring_open();
	struct consumer consumer, later;
	int pair[2], other[2];
	uint32_t i;

	socket_pair(SOCK_SEQPACKET, pair);
	socket_pair(SOCK_SEQPACKET, other);
	stream_open(ring, &consumer, prep_recv, &pair[0], 2);
	for (i = 0; i < 3; i++)
		send_number(pair[1], i);
	turn_until(ring, consumer.stream.state == GYRE__STREAM_RESTING);
	barrier(ring, pair[0]);
	expect_eq(dup2(other[0], pair[0]), pair[0]);
	send_number(other[1], 1000);
	expect_number(ring, &consumer, 0);
	expect_number(ring, &consumer, 1);
	expect_eq(next_res(ring, &consumer), -EBADF);
	expect(gyre__stream_is_over(&consumer.stream));
	gyre__stream_done(&consumer.stream);
	stream_open(ring, &later, prep_recv, &pair[0], 2);	/* that one means the new file */
	expect_number(ring, &later, 1000);
	stream_close(ring, &later);
	close_all(pair, 2);
	close_all(other, 2);
	ring_end(ring);
}

static void close_and_free(struct gyre__stream *stream)
{
	struct consumer *consumer = gyre__container_of(stream, struct consumer, stream);

	consumer->came++;
	if (!gyre__stream_close(stream))
		return;
	gyre__stream_done(stream);
	gyre__free(consumer);
}

TEST(came_may_close_and_free_its_stream)
{
	struct gyre__ring *ring = ring_open();
	struct test_pipe pipe = test_pipe();
	enum gyre__refusal refusal;
	unsigned i;

	for (i = 0; i < 10; i++) {
		struct consumer *consumer = gyre__zalloc(sizeof(*consumer));

		expect(consumer);
		consumer->stream.came = close_and_free;
		expect_eq(gyre__stream_open(ring, &consumer->stream, prep_poll, &pipe.r, 0, 0,
					    &refusal), 0);
	}
	expect_eq(write(pipe.w, "x", 1), 1);
	turn_until(ring, gyre__list_is_empty(&ring->streams.all) && ring->table.live <= 1);
	ring_end(ring);
	test_pipe_close(&pipe);
}

/* ------------------------------------------------------------ refusals -- */

static void prep_accept_once(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_accept(sqe, *(int *)fd, NULL, NULL, 0);
}

static void prep_accept_direct(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_multishot_accept_direct(sqe, *(int *)fd, NULL, NULL, 0);
}

static void prep_accept_address(struct io_uring_sqe *sqe, void *fd)
{
	static struct sockaddr address;
	static socklen_t len;

	io_uring_prep_multishot_accept(sqe, *(int *)fd, &address, &len, 0);
}

static void prep_accept_linked(struct io_uring_sqe *sqe, void *fd)
{
	prep_accept(sqe, fd);
	sqe->flags |= IOSQE_IO_LINK;
}

static void prep_accept_registered(struct io_uring_sqe *sqe, void *fd)
{
	prep_accept(sqe, fd);
	sqe->flags |= IOSQE_FIXED_FILE;
}

static void prep_accept_as_somebody(struct io_uring_sqe *sqe, void *fd)
{
	prep_accept(sqe, fd);
	sqe->personality = 1;
}

static void prep_poll_once(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_poll_add(sqe, *(int *)fd, POLLIN);
}

static void prep_poll_level(struct io_uring_sqe *sqe, void *fd)
{
	prep_poll(sqe, fd);
	sqe->len |= 1u << 3;
}

static void prep_poll_update(struct io_uring_sqe *sqe, void *fd)
{
	prep_poll(sqe, fd);
	sqe->len |= IORING_POLL_UPDATE_EVENTS;
}

static void prep_recv_once(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_recv(sqe, *(int *)fd, NULL, 0, 0);
}

static void prep_recv_bundle(struct io_uring_sqe *sqe, void *fd)
{
	prep_recv(sqe, fd);
	sqe->ioprio |= 1u << 4;
}

static void prep_recv_somewhere(struct io_uring_sqe *sqe, void *fd)
{
	static char memory[64];

	io_uring_prep_recv_multishot(sqe, *(int *)fd, memory, sizeof(memory), 0);
}

static void prep_recv_group(struct io_uring_sqe *sqe, void *fd)
{
	prep_recv(sqe, fd);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = 1;
}

static const struct {
	const char *what;
	gyre_prep_fn *prep;
	size_t buffer_size;
	unsigned buffers;
	enum gyre__refusal refusal;
} refused[] = {
	{ "nothing", prep_nothing, 0, 0, GYRE__REFUSED_BLANK },
	{ "a no-op", prep_nop, 0, 0, GYRE__REFUSED_NO_STREAM },
	{ "MSG_RING", prep_forbidden, 0, 0, GYRE__REFUSED_NO_STREAM },
	{ "one accept", prep_accept_once, 0, 0, GYRE__REFUSED_NO_STREAM },
	{ "direct accept", prep_accept_direct, 0, 0, GYRE__REFUSED_DIRECT },
	{ "accept with an address", prep_accept_address, 0, 0, GYRE__REFUSED_STREAM_FIELDS },
	{ "linked accept", prep_accept_linked, 0, 0, GYRE__REFUSED_STREAM_FIELDS },
	{ "registered accept", prep_accept_registered, 0, 0, GYRE__REFUSED_STREAM_FIELDS },
	{ "another's accept", prep_accept_as_somebody, 0, 0, GYRE__REFUSED_PERSONALITY },
	{ "accept with buffers", prep_accept, 64, 4, GYRE__REFUSED_STREAM_BUFFERS },
	{ "one poll", prep_poll_once, 0, 0, GYRE__REFUSED_NO_STREAM },
	{ "poll by level", prep_poll_level, 0, 0, GYRE__REFUSED_NO_STREAM },
	{ "update of a poll", prep_poll_update, 0, 0, GYRE__REFUSED_NO_STREAM },
	{ "poll with buffers", prep_poll, 64, 4, GYRE__REFUSED_STREAM_BUFFERS },
	{ "one receive", prep_recv_once, 64, 4, GYRE__REFUSED_NO_STREAM },
	{ "bundled receive", prep_recv_bundle, 64, 4, GYRE__REFUSED_NO_STREAM },
	{ "receive somewhere", prep_recv_somewhere, 64, 4, GYRE__REFUSED_STREAM_FIELDS },
	{ "receive from a group", prep_recv_group, 64, 4, GYRE__REFUSED_STREAM_FIELDS },
	{ "receive without buffers", prep_recv, 0, 0, GYRE__REFUSED_STREAM_BUFFERS },
	{ "receive with empty buffers", prep_recv, 0, 4, GYRE__REFUSED_STREAM_BUFFERS },
	{ "too many buffers", prep_recv, 1, GYRE__STREAM_BUFFERS_MAX + 1,
	  GYRE__REFUSED_STREAM_BUFFERS },
	{ "too large buffers", prep_recv, GYRE__STREAM_BYTES_MAX / 2 + 1, 2,
	  GYRE__REFUSED_STREAM_BUFFERS },
	{ "read without buffers", prep_read_many, 0, 0, GYRE__REFUSED_STREAM_BUFFERS },
};

TEST(what_is_no_stream_is_refused_and_leaves_nothing)
{
	struct gyre__ring *ring = ring_open();
	enum gyre__refusal refusal;
	struct consumer consumer;
	int pair[2];
	unsigned i;

	socket_pair(SOCK_STREAM, pair);
	memset(&consumer, 0, sizeof(consumer));
	for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		test_row("%s", refused[i].what);
		refusal = GYRE__ACCEPTED;
		expect_eq(gyre__stream_open(ring, &consumer.stream, refused[i].prep, &pair[0],
					    refused[i].buffer_size, refused[i].buffers, &refusal),
			  -EINVAL);
		expect_eq(refusal, refused[i].refusal);
		expect(gyre__list_is_empty(&ring->streams.all));
	}
	expect_eq(ring->table.live, 0);
	close_all(pair, 2);
	ring_end(ring);
}

TEST(streams_of_the_rings_own_descriptors_are_refused)
{
	struct gyre__ring *ring = ring_open();
	int own[] = { ring->wake_fd, ring->tomb_fd, ring->uring.ring_fd };
	enum gyre__refusal refusal;
	struct consumer consumer;
	unsigned i;

	for (i = 0; i < 3; i++) {
		refusal = GYRE__ACCEPTED;
		expect_eq(try_open(ring, &consumer, prep_poll, &own[i], 0, &refusal), -EINVAL);
		expect_eq(refusal, GYRE__REFUSED_DESCRIPTOR);
	}
	ring_end(ring);
}

TEST(a_kernel_without_multishot_is_told_by_what_came_with_it)
{
	struct gyre__ring *ring = ring_open();
	static const struct {
		gyre_prep_fn *prep;
		unsigned buffers, witness;
	} rows[] = {
		{ prep_accept, 0, IORING_OP_SOCKET },
		{ prep_recv, 4, IORING_OP_SEND_ZC },
		{ prep_read_many, 4, READ_MULTISHOT },
	};
	enum gyre__refusal refusal;
	struct consumer consumer;
	int fd = 0;
	unsigned i;

	for (i = 0; i < 3; i++) {
		refusal = GYRE__ACCEPTED;
		ring->features.opcodes[0] &= ~(UINT64_C(1) << rows[i].witness);
		expect_eq(try_open(ring, &consumer, rows[i].prep, &fd, rows[i].buffers, &refusal),
			  -EINVAL);
		expect_eq(refusal, GYRE__REFUSED_NO_MULTISHOT);
	}
	ring->features.features = 0;
	expect_eq(try_open(ring, &consumer, prep_poll, &fd, 0, &refusal), -EINVAL);
	expect_eq(refusal, GYRE__REFUSED_NO_MULTISHOT);
	ring_end(ring);
}

/* Each step of an open may fail, and then nothing is left of it: the harness looks. */
static void open_failing(enum gyre__fault_call call, int error)
{
	struct gyre__ring *ring = ring_open();
	enum gyre__refusal refusal;
	struct consumer consumer;
	int pair[2];

	socket_pair(SOCK_STREAM, pair);
	gyre__fault_set(call, 0, 1, error);
	expect_eq(try_open(ring, &consumer, prep_recv, &pair[0], 4, &refusal), error);
	expect_eq(gyre__fault_hits(call), 1);
	expect(gyre__list_is_empty(&ring->streams.all));
	stream_open(ring, &consumer, prep_recv, &pair[0], 4);
	stream_close(ring, &consumer);
	close_all(pair, 2);
	ring_end(ring);
}

TEST(a_step_of_the_open_that_fails_leaves_nothing)
{
	gyre__fault_install();
	open_failing(GYRE__FAULT_alloc, -ENOMEM);
	open_failing(GYRE__FAULT_mmap, -ENOMEM);
	open_failing(GYRE__FAULT_uring_register, -ENOMEM);
	gyre__fault_remove();
}

/* --------------------------------------------------------------- races -- */

struct traffic {
	struct listener listener;
	_Atomic bool stop;
};

static void connect_until_stopped(void *arg, unsigned number)
{
	struct traffic *traffic = arg;

	(void)number;
	while (!atomic_load(&traffic->stop)) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		expect_ge(fd, 0);
		/* Refused once the listener is closed, which also ends a wait for its backlog. */
		expect(connect(fd, (const struct sockaddr *)&traffic->listener.address,
			       traffic->listener.len) == 0 || atomic_load(&traffic->stop));
		close(fd);
	}
}

TEST(closes_that_race_with_connections_leak_no_descriptor)
{
	struct gyre__ring *ring = ring_open();
	struct traffic traffic = { .listener = listener_open() };
	uint64_t state = test_seed();
	struct consumer consumer;
	struct test_crew crew;
	unsigned times, i;

	test_crew_start(&crew, 1, connect_until_stopped, &traffic);
	for (times = test_times(500); times > 0; times--) {
		stream_open(ring, &consumer, prep_accept, &traffic.listener.fd, 0);
		for (i = test_random_below(&state, 4); i > 0; i--)
			gyre__ring_turn(ring);
		for (i = test_random_below(&state, 4); i > 0; i--)
			close(next_res(ring, &consumer));
		stream_close(ring, &consumer);
	}
	atomic_store(&traffic.stop, true);
	close(traffic.listener.fd);
	test_crew_join(&crew);
	ring_end(ring);
}

struct chatter {
	int fd;
	uint32_t count;
};

static void send_count(void *arg, unsigned number)
{
	const struct chatter *chatter = arg;
	uint32_t i;

	(void)number;
	for (i = 0; i < chatter->count; i++)
		send_number(chatter->fd, i);
	shutdown(chatter->fd, SHUT_WR);
}

TEST(a_sender_that_is_faster_than_the_buffers_loses_nothing)
{
	struct gyre__ring *ring = ring_open();
	struct chatter chatter = { .count = test_times(20000) };
	struct consumer consumer;
	struct test_crew crew;
	uint32_t i;
	int pair[2];

	socket_pair(SOCK_SEQPACKET, pair);
	chatter.fd = pair[1];
	stream_open(ring, &consumer, prep_recv, &pair[0], 8);
	test_crew_start(&crew, 1, send_count, &chatter);
	for (i = 0; i < chatter.count; i++)
		expect_number(ring, &consumer, i);
	expect_eq(next_res(ring, &consumer), 0);
	test_crew_join(&crew);
	gyre__stream_done(&consumer.stream);
	close_all(pair, 2);
	ring_end(ring);
}

/* ---------------------------------------------------------------- dump -- */

struct on_worker {
	struct consumer consumer;
	int fd;
	int rc;
	bool over;
};

static bool control_open(struct gyre__ring *ring, struct gyre__batch *batch)
{
	struct on_worker *on_worker = batch->control_arg;
	enum gyre__refusal refusal;

	on_worker->rc = try_open(ring, &on_worker->consumer, prep_poll, &on_worker->fd, 0,
				 &refusal);
	return true;
}

static bool control_close(struct gyre__ring *ring, struct gyre__batch *batch)
{
	struct on_worker *on_worker = batch->control_arg;

	(void)ring;
	if (!on_worker->consumer.stream.closed)
		gyre__stream_close(&on_worker->consumer.stream);
	if (!gyre__stream_is_over(&on_worker->consumer.stream))
		return false;
	gyre__stream_done(&on_worker->consumer.stream);
	return true;
}

TEST(dump_shows_streams)
{
	struct gyre *rt = test_open_workers(1);
	struct test_pipe pipe = test_pipe(), out = test_pipe();
	struct on_worker on_worker = { .fd = pipe.r };
	struct gyre__thread *self;
	char line[64], *text;

	/* Makes this thread's record. */
	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	self = gyre__sys->self_get();
	expect(gyre__bridge_control(self, rt->crew->worker[0], control_open, &on_worker));
	expect_eq(on_worker.rc, 0);
	expect_status(gyre_dump(rt, out.w), GYRE_OK);
	close(out.w);
	text = test_slurp(out.r);
	snprintf(line, sizeof(line), "POLL_ADD fd %d, in flight, since", pipe.r);
	expect_contains(text, line);
	snprintf(line, sizeof(line), "stream POLL_ADD fd %d: in flight, 0 results", pipe.r);
	expect_contains(text, line);
	free(text);
	expect(gyre__bridge_control(self, rt->crew->worker[0], control_close, &on_worker));
	gyre_free(rt);
	close(out.r);
	test_pipe_close(&pipe);
}

TEST_MAIN()
