/* SPDX-License-Identifier: MIT */
/*
 * Streams: each has a pipe, a thread that writes to it, and one that opens the
 * stream, takes what came() has told it of, and closes it, as a task on its
 * worker would: by controls that run between two turns. What a pipe's reading
 * end is to an accept: see shot_accept() in uring.c.
 */
#include "scenario.h"

#include "lib/bridge.h"
#include "ring/ring.h"
#include "ring/stream.h"

#define STREAMS_MAX	6
#define READ_MULTISHOT	49
#define BUFFER_SIZE	8

struct user {
	struct gyre__stream stream;
	struct gyre__worker *worker;
	struct gyre__thread *self;
	uint8_t opcode;
	unsigned buffers;
	int pipe[2];
	unsigned total, written, seen;	/* bytes: what is to come, has gone in, has come out */
	bool patient;			/* does not close before its end */
	bool endless;			/* and only the runtime's close brings that */
	int rc;
	bool news, over, closing, drained;
	int last;			/* the last result that was taken */
	const unsigned char *lent;	/* what the last take has lent, and what was in it */
	unsigned char copy[BUFFER_SIZE];
	unsigned lent_len;
	struct sim_thread *writer, *taker;
};

static struct {
	struct gyre *rt;
	struct user users[STREAMS_MAX];
	unsigned count;
	bool closes;			/* the runtime is closed while streams are open */
} play;

static void came(struct gyre__stream *stream)
{
	struct user *user = gyre__container_of(stream, struct user, stream);

	if (user->over)
		sim_fail("a stream is told of after its end");
	user->news = true;
	user->over = gyre__stream_is_over(stream);
	sim_wake(user);
}

static void prep(struct io_uring_sqe *sqe, void *arg)
{
	const struct user *user = arg;

	switch (user->opcode) {
	case READ_MULTISHOT:
		io_uring_prep_rw(READ_MULTISHOT, sqe, user->pipe[0], NULL, 0, (uint64_t)-1);
		break;
	case IORING_OP_ACCEPT:
		io_uring_prep_multishot_accept(sqe, user->pipe[0], NULL, NULL, 0);
		break;
	default:
		io_uring_prep_poll_multishot(sqe, user->pipe[0], POLLIN);
	}
}

static bool control_open(struct gyre__ring *ring, struct gyre__batch *batch)
{
	struct user *user = batch->control_arg;
	enum gyre__refusal refusal;

	user->stream.came = came;
	user->rc = gyre__stream_open(ring, &user->stream, prep, user, BUFFER_SIZE, user->buffers,
				     &refusal);
	return true;
}

/* ------------------------------------------------------------- results -- */

/* Bytes come in the order of their values, and each of them once. */
static void check_bytes(struct user *user, const unsigned char *bytes, unsigned len)
{
	unsigned i;

	for (i = 0; i < len; i++, user->seen++)
		if (bytes[i] != (unsigned char)user->seen)
			sim_fail("byte %u of a stream is %u", user->seen, bytes[i]);
}

static void check_lent(struct user *user)
{
	if (user->lent && memcmp(user->lent, user->copy, user->lent_len) != 0)
		sim_fail("a buffer changes while it is lent to who took it");
	user->lent = NULL;
}

static void read_pipe(struct user *user)
{
	unsigned char bytes[BUFFER_SIZE];
	ssize_t n;

	while ((n = sim_file_read(sim_file_get(user->pipe[0]), bytes, sizeof(bytes), 0)) > 0)
		check_bytes(user, bytes, (unsigned)n);
}

static void note_result(struct user *user, struct gyre__result result, const void *data)
{
	sim_trace("stream of %s: %s", sim_op_name(user->opcode), sim_result(result.res));
	sim_note((uint64_t)(uint32_t)result.res);
	user->last = result.res;
	if (result.res < 0)
		return;
	if (user->opcode == IORING_OP_ACCEPT) {
		user->seen++;
		if (sim_scenario_close(result.res) < 0)
			sim_fail("a descriptor that was accepted is none");
	} else if (user->opcode == IORING_OP_POLL_ADD) {
		read_pipe(user);
	} else if (result.res > 0) {
		check_bytes(user, data, (unsigned)result.res);
		user->lent = data;
		user->lent_len = (unsigned)result.res;
		memcpy(user->copy, data, user->lent_len);
	}
}

/* Takes some, or all that there is. */
static void take_some(struct user *user)
{
	unsigned times = sim_chance(300) ? 1 + (unsigned)sim_random(3) : 1000;
	struct gyre__result result;
	const void *data;

	if (user->stream.state == GYRE__STREAM_RESTING)
		sim_reach(SIM_PAUSED);
	while (times-- > 0) {
		check_lent(user);
		if (!gyre__stream_take(&user->stream, &result, &data)) {
			user->drained = user->over;
			return;
		}
		note_result(user, result, data);
	}
	user->news = true;
}

static bool control_take(struct gyre__ring *ring, struct gyre__batch *batch)
{
	(void)ring;
	take_some(batch->control_arg);
	return true;
}

static bool control_close(struct gyre__ring *ring, struct gyre__batch *batch)
{
	struct user *user = batch->control_arg;

	(void)ring;
	if (!user->over && gyre__stream_close(&user->stream))
		user->over = true;
	sim_wake(user);
	return true;
}

/* ------------------------------------------------------------- threads -- */

static void writer_main(void *arg)
{
	struct user *user = arg;
	unsigned char bytes[24];
	unsigned len, i;
	int n;

	while (user->written < user->total && !user->over) {
		len = 1 + (unsigned)sim_random(sizeof(bytes));
		if (len > user->total - user->written)
			len = user->total - user->written;
		for (i = 0; i < len; i++)
			bytes[i] = (unsigned char)(user->written + i);
		n = sim_scenario_write(user->pipe[1], bytes, len);
		if (n > 0)
			user->written += (unsigned)n;
		if (n < 0 || sim_chance(500))
			sim_sleep(1 + sim_random(sim_chance(500) ? 20 * SIM_US : 200 * SIM_US));
	}
	while (user->endless && !user->over)
		sim_block(user, "somebody to end its stream", SIM_NEVER);
	sim_scenario_close(user->pipe[1]);
}

/* All that its writer will ever write has come, as far as such a stream can tell. */
static bool has_all(const struct user *user)
{
	return user->opcode != READ_MULTISHOT && !user->endless && user->seen == user->total;
}

static void wait_for_news(struct user *user)
{
	while (!user->news && !user->over)
		sim_block(user, "what comes of its stream", SIM_NEVER);
	user->news = false;
	if (sim_chance(300))
		sim_sleep(1 + sim_random(100 * SIM_US));
}

/* Did it end for a reason, and with all that it should have given? */
static void check_end(const struct user *user)
{
	static const int fine[] = { -EIO, -ENOSPC, -ENOMEM, -EAGAIN, -EMFILE };
	enum gyre_status status = gyre__stream_status(&user->stream);
	bool excused = user->closing || !user->drained;
	unsigned i;

	sim_trace("stream of %s is over: %s", sim_op_name(user->opcode), gyre_status_name(status));
	if (status == GYRE_CANCELLED && !user->closing && !play.closes)
		sim_fail("a stream is CANCELLED, and nobody has");
	if (status == GYRE_WORKER_DEAD && !sim_death_happened())
		sim_fail("a stream says WORKER_DEAD, and none is");
	/* Or more has come than there may be room for, as cancels missed. */
	if (status == GYRE_NO_MEMORY && !sim_call_has_failed() &&
	    (user->opcode != IORING_OP_ACCEPT || user->stream.size < user->stream.max))
		sim_fail("a stream says NO_MEMORY, and nothing has failed");
	if (status != GYRE_OK || excused)
		return;
	if (user->last == 0 && user->opcode == READ_MULTISHOT) {
		if (user->seen != user->total)
			sim_fail("a stream is at its end with %u of %u bytes", user->seen,
				 user->total);
		return;
	}
	for (i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		excused |= user->last == fine[i];
	if (!excused)
		sim_fail("a stream has ended with %s", sim_result(user->last));
}

static void close_stream(struct user *user)
{
	user->closing = true;
	user->lent = NULL;
	sim_trace("closes the stream of %s", sim_op_name(user->opcode));
	gyre__bridge_control(user->self, user->worker, control_close, user);
	while (!user->over)	/* if no control went through, its ring's end has told it */
		sim_block(user, "its stream's end", SIM_NEVER);
}

static void use_stream(struct user *user)
{
	while (!user->drained) {
		if (!user->patient && sim_chance(100))
			break;
		if (has_all(user) && !user->over)
			break;
		wait_for_news(user);
		if (!gyre__bridge_control(user->self, user->worker, control_take, user)) {
			while (!user->over)
				sim_block(user, "the end of its ring", SIM_NEVER);
			take_some(user);
		}
	}
	if (!user->over)
		close_stream(user);
	check_end(user);
	check_lent(user);
	gyre__stream_done(&user->stream);
}

static void check_open(const struct user *user)
{
	if (user->rc == -ESHUTDOWN && !play.closes)
		sim_fail("a stream is refused by a ring that nobody has closed");
	if (user->rc == -EOWNERDEAD && !sim_death_happened())
		sim_fail("a stream is refused by a dead ring, and none is");
	if (user->rc < 0 && user->rc != -ESHUTDOWN && user->rc != -EOWNERDEAD &&
	    !sim_call_has_failed())
		sim_fail("a stream cannot be opened: %s", sim_result(user->rc));
}

/* The record that a control needs is made by a thread's first call. */
static void taker_main(void *arg)
{
	struct user *user = arg;
	struct sim_call call;

	sim_call_init(&call, IORING_OP_NOP, -1, NULL, 0, 0);
	user->rc = -ESHUTDOWN;
	user->worker = play.rt->crew->worker[0];
	if (sim_call_one(play.rt, &call) == GYRE_OK) {
		user->self = gyre__sys->self_get();
		if (gyre__bridge_control(user->self, user->worker, control_open, user))
			check_open(user);
	}
	if (user->rc == 0)
		use_stream(user);
	user->over = true;	/* the writer has nobody to write for */
	sim_wake(user);
}

/* ----------------------------------------------------------- scenarios -- */

static void user_start(struct user *user, unsigned number)
{
	static const uint8_t opcodes[] = { READ_MULTISHOT, READ_MULTISHOT, IORING_OP_POLL_ADD,
					   IORING_OP_ACCEPT };
	char name[16] = "taker-a";

	user->opcode = opcodes[sim_random(sizeof(opcodes))];
	user->buffers = user->opcode == READ_MULTISHOT ? 1 + (unsigned)sim_random(5) : 0;
	user->total = user->opcode == IORING_OP_ACCEPT ? (unsigned)sim_random(20) :
							 (unsigned)sim_random(sim_many(80, 300));
	user->endless = play.closes && sim_chance(300);
	user->patient = user->endless || sim_chance(600);
	sim_scenario_pipe(user->pipe);
	name[6] = (char)('a' + number);
	user->taker = sim_spawn(name, taker_main, user);
	memcpy(name, "maker", 5);
	user->writer = sim_spawn(name, writer_main, user);
}

static void join_users(void)
{
	unsigned i;

	for (i = 0; i < play.count; i++) {
		sim_join(play.users[i].taker);
		sim_join(play.users[i].writer);
		sim_scenario_close(play.users[i].pipe[0]);
	}
}

static void play_streams(void)
{
	unsigned i;

	memset(&play, 0, sizeof(play));
	play.closes = sim_chance(300);
	if (!sim_open(1, play.closes ? 1 + sim_random(2 * SIM_MS) : GYRE_FOREVER, &play.rt))
		return;
	play.count = 1 + (unsigned)sim_random(sim_many(2, STREAMS_MAX));
	for (i = 0; i < play.count; i++)
		user_start(&play.users[i], i);
	if (play.closes) {
		sim_sleep(sim_random(SIM_MS));
		sim_close_runtime(play.rt);
	}
	for (i = 0; i < play.count; i++) {	/* if the close has failed, nobody else ends them */
		play.users[i].endless = false;
		sim_wake(&play.users[i]);
	}
	join_users();
	sim_close_runtime(play.rt);
	gyre_free(play.rt);
}

void scenario_streams(void *arg)
{
	(void)arg;
	play_streams();
}

void scenario_streams_death(void *arg)
{
	(void)arg;
	play_streams();
}
