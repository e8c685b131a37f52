/* SPDX-License-Identifier: MIT */
/* Descriptors that are closed under way, and buffers that are left behind. */
#include "scenario.h"

#define READERS		2
#define BUFFER_BYTES	32
#define ROUNDS		3

static struct {
	struct gyre *rt;
	int fds[2];			/* the pipe that is closed by one while others read */
	struct sim_call calls[READERS];
	struct gyre_op ops[READERS];
	char bytes[READERS][BUFFER_BYTES];
	bool closed;
	/* The leavers' calls: each may fly on after its answer, so none is used twice. */
	struct sim_call left[READERS][ROUNDS];
} play;

/* ------------------------------------------------------ gyre_close_fd -- */

static void reader_main(void *arg)
{
	unsigned i = *(unsigned *)arg, round;

	for (round = 0; round < ROUNDS && !play.closed; round++) {
		memset(&play.ops[i], 0, sizeof(play.ops[i]));
		sim_call_init(&play.calls[i], IORING_OP_READ, play.fds[0], play.bytes[i],
			      BUFFER_BYTES, 0);
		play.calls[i].sqe_flags = sim_chance(300) ? IOSQE_ASYNC : 0;
		play.ops[i].timeout_ns = 1 + sim_random(SIM_MS);
		sim_call_many(play.rt, &play.calls[i], &play.ops[i], 1);
	}
}

void scenario_close_fd(void *arg)
{
	struct sim_thread *threads[READERS];
	unsigned numbers[READERS] = { 0, 1 }, i;
	int other, rc;

	(void)arg;
	memset(&play, 0, sizeof(play));
	sim_scenario_pipe(play.fds);
	if (sim_open(1, 0, &play.rt)) {
		threads[0] = sim_spawn("reader-a", reader_main, &numbers[0]);
		threads[1] = sim_spawn("reader-b", reader_main, &numbers[1]);
		sim_sleep(sim_random(30 * SIM_US));
		if (sim_chance(500))
			sim_scenario_write(play.fds[1], "before the close", 16);
		play.closed = true;
		/* What was accepted before the close may not meet the number's next owner. */
		for (i = 0; i < READERS; i++)
			if (play.calls[i].prepared && !play.calls[i].answered)
				play.calls[i].file = sim_file_get(play.fds[0]);
		rc = gyre_close_fd(play.rt, play.fds[0]);
		if (rc < 0 && !sim_fault_happened())
			sim_fail("gyre_close_fd: %d", rc);
		for (i = 0; rc < 0 && i < READERS; i++)
			play.calls[i].file = NULL;	/* the scenario closes it, as nobody should */
		if (rc < 0)
			sim_scenario_close(play.fds[0]);
		other = sim_scenario_file("somebody else's file", 20);
		sim_join(threads[0]);
		sim_join(threads[1]);
		sim_close_runtime(play.rt);
		gyre_free(play.rt);
		sim_scenario_close(other);
	} else {
		sim_scenario_close(play.fds[0]);
	}
	sim_scenario_close(play.fds[1]);
}

/* ------------------------------------------------------- GYRE_OP_LEAVE -- */

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
	data = gyre_buffer_data(buffer);
	if (sim_uring_uses(data, BUFFER_BYTES))
		sim_fail("a buffer is given out that the kernel still uses");
	memset(op, 0, sizeof(*op));
	sim_call_init(call, IORING_OP_READ, play.fds[0], data, BUFFER_BYTES, 0);
	op->flags = sim_chance(800) ? GYRE_OP_LEAVE : 0;
	op->timeout_ns = 1 + sim_random(100 * SIM_US);
	sim_call_many(play.rt, call, op, 1);
	gyre_buffer_put(buffer);
}

static void leaver_main(void *arg)
{
	unsigned i = *(unsigned *)arg, round;

	for (round = 0; round < ROUNDS; round++)
		leave_once(i, round);
}

void scenario_leave(void *arg)
{
	struct sim_thread *threads[READERS];
	unsigned numbers[READERS] = { 0, 1 }, i;

	(void)arg;
	memset(&play, 0, sizeof(play));
	sim_scenario_pipe(play.fds);
	if (sim_open(1 + (unsigned)sim_random(2), sim_random(SIM_MS), &play.rt)) {
		threads[0] = sim_spawn("leaver-a", leaver_main, &numbers[0]);
		threads[1] = sim_spawn("leaver-b", leaver_main, &numbers[1]);
		for (i = 0; i < 3; i++) {
			sim_sleep(sim_random(100 * SIM_US));
			sim_scenario_write(play.fds[1], "some bytes for a leaver", 23);
		}
		sim_join(threads[0]);
		sim_join(threads[1]);
		sim_close_runtime(play.rt);
		gyre_free(play.rt);
	}
	sim_scenario_close(play.fds[0]);
	sim_scenario_close(play.fds[1]);
}
