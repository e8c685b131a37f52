/* SPDX-License-Identifier: MIT */
/* Descriptors that are closed under way, and buffers that are left behind. */
#include "scenario.h"

#define READERS_MAX	16
#define BUFFER_BYTES	32
#define ROUNDS_MAX	8

static struct {
	struct gyre *rt;
	struct sim_thread *threads[READERS_MAX];
	int fds[2];			/* the pipe that is closed by one while others read */
	struct sim_call calls[READERS_MAX];
	struct gyre_op ops[READERS_MAX];
	char bytes[READERS_MAX][BUFFER_BYTES];
	unsigned count, numbers[READERS_MAX];
	bool closed;
	/* The leavers' calls: each may fly on after its answer, so none is used twice. */
	struct sim_call left[READERS_MAX][ROUNDS_MAX];
	void *buffers[READERS_MAX * ROUNDS_MAX + 1];	/* those seen so far */
	unsigned buffer_count;
} play;

static void begin(void)
{
	memset(&play, 0, sizeof(play));
	play.count = sim_many(2, READERS_MAX);
	sim_scenario_pipe(play.fds);
}

static void start_all(const char *first, sim_fn *fn)
{
	unsigned i;

	for (i = 0; i < play.count; i++) {
		char name[16];

		strcpy(name, first);
		name[strlen(name) - 1] = (char)('a' + i);
		play.numbers[i] = i;
		play.threads[i] = sim_spawn(name, fn, &play.numbers[i]);
	}
}

static void join_all(void)
{
	unsigned i;

	for (i = 0; i < play.count; i++)
		sim_join(play.threads[i]);
}

/* ------------------------------------------------------ gyre_close_fd -- */

static void reader_main(void *arg)
{
	unsigned i = *(unsigned *)arg, round;

	for (round = 0; round < sim_many(3, ROUNDS_MAX) && !play.closed; round++) {
		memset(&play.ops[i], 0, sizeof(play.ops[i]));
		sim_call_init(&play.calls[i], IORING_OP_READ, play.fds[0], play.bytes[i],
			      BUFFER_BYTES, 0);
		play.calls[i].sqe_flags = sim_chance(300) ? IOSQE_ASYNC : 0;
		play.ops[i].timeout_ns = 1 + sim_random(SIM_MS);
		sim_call_many(play.rt, &play.calls[i], &play.ops[i], 1);
	}
}

/* Who sleeps until his reply comes has pushed, whether or not anybody has looked. */
static bool is_accepted(const struct sim_call *call, const struct sim_thread *thread)
{
	const char *what = sim_thread_waits_for(thread);

	return !call->answered && (call->prepared || (what && strcmp(what, SIM_BELL) == 0));
}

void scenario_close_fd(void *arg)
{
	unsigned i;
	int other, rc;

	(void)arg;
	begin();
	if (sim_open(sim_many(1, 4), 0, &play.rt)) {
		start_all("reader-a", reader_main);
		sim_sleep(sim_random(30 * SIM_US));
		if (sim_chance(500))
			sim_scenario_write(play.fds[1], "before the close", 16);
		play.closed = true;
		/* What was accepted before the close may not meet the number's next owner. */
		for (i = 0; i < play.count; i++)
			if (is_accepted(&play.calls[i], play.threads[i]))
				play.calls[i].file = sim_file_get(play.fds[0]);
		rc = gyre_close_fd(play.rt, play.fds[0]);
		if (rc < 0 && !sim_fault_happened())
			sim_fail("gyre_close_fd: %d", rc);
		for (i = 0; rc < 0 && i < play.count; i++)
			/* The scenario closes it, as nobody should. */
			play.calls[i].file = NULL;
		if (rc < 0)
			sim_scenario_close(play.fds[0]);
		other = sim_scenario_file("somebody else's file", 20);
		join_all();
		sim_close_runtime(play.rt);
		gyre_free(play.rt);
		sim_scenario_close(other);
	} else {
		sim_scenario_close(play.fds[0]);
	}
	sim_scenario_close(play.fds[1]);
}

/* ------------------------------------------------------- GYRE_OP_LEAVE -- */

static void roll_transfer(struct sim_call *call, void *data, int index)
{
	if (sim_chance(400) || index < 0)
		sim_call_init(call, IORING_OP_READ, play.fds[0], data, BUFFER_BYTES, 0);
	else if (sim_chance(500))
		sim_call_init(call, IORING_OP_READ_FIXED, play.fds[0], data, BUFFER_BYTES,
			      (uint64_t)index);
	else
		sim_call_init(call, IORING_OP_WRITE_FIXED, play.fds[1], data, BUFFER_BYTES,
			      (uint64_t)index);
}

static void *note_buffer(struct gyre_buffer *buffer)
{
	void *data = gyre_buffer_data(buffer);
	unsigned i;

	for (i = 0; i < play.buffer_count && play.buffers[i] != data; i++)
		;
	if (i == play.buffer_count)
		play.buffers[play.buffer_count++] = data;
	return data;
}

/* The kernel is done with all that was left, and some time has passed: it is there again. */
static void check_buffers_back(void)
{
	unsigned before = play.buffer_count, i;
	struct gyre_buffer *buffer;

	for (i = 0; i < before; i++)
		while (sim_uring_uses(play.buffers[i], BUFFER_BYTES))
			sim_sleep(SIM_MS);
	sim_sleep(20 * SIM_MS);
	if (before == 0 || gyre_buffer_get(play.rt, BUFFER_BYTES, &buffer) != GYRE_OK)
		return;
	note_buffer(buffer);
	if (play.buffer_count != before && !sim_fault_happened())
		sim_fail("a buffer that was left is never given out again");
	gyre_buffer_put(buffer);
}

static void leave_once(unsigned i, unsigned round)
{
	struct sim_call *call = &play.left[i][round];
	struct gyre_op *op = &play.ops[i];
	struct gyre_buffer *buffer;
	void *data;

	if (gyre_buffer_get(play.rt, BUFFER_BYTES, &buffer) != GYRE_OK) {
		if (!sim_fault_happened())
			sim_fail("gyre_buffer_get: %s", gyre_last_error());
		return;
	}
	data = note_buffer(buffer);
	if (sim_uring_uses(data, BUFFER_BYTES))
		sim_fail("a buffer is given out that the kernel still uses");
	memset(op, 0, sizeof(*op));
	roll_transfer(call, data, gyre_buffer_index(buffer));
	op->flags = sim_chance(800) ? GYRE_OP_LEAVE : 0;
	op->timeout_ns = 1 + sim_random(100 * SIM_US);
	sim_call_many(play.rt, call, op, 1);
	gyre_buffer_put(buffer);
}

static void leaver_main(void *arg)
{
	unsigned i = *(unsigned *)arg, round;

	for (round = 0; round < sim_many(3, ROUNDS_MAX); round++)
		leave_once(i, round);
}

void scenario_leave(void *arg)
{
	unsigned i, n;

	(void)arg;
	begin();
	if (sim_open(1 + (unsigned)sim_random(sim_many(2, 6)), sim_random(SIM_MS), &play.rt)) {
		start_all("leaver-a", leaver_main);
		for (i = 0; i < sim_many(10, 50); i++) {
			sim_sleep(sim_random(70 * SIM_US));
			if (sim_chance(400)) {
				sim_scenario_write(play.fds[1], "some bytes for a leaver", 23);
				continue;
			}
			n = (unsigned)sim_random(play.count);
			sim_trace("cancels the op of leaver %c", 'a' + n);
			sim_cancel(play.rt, &play.ops[n]);
		}
		join_all();
		check_buffers_back();
		sim_close_runtime(play.rt);
		gyre_free(play.rt);
	}
	sim_scenario_close(play.fds[0]);
	sim_scenario_close(play.fds[1]);
}
