/* SPDX-License-Identifier: MIT */
/* Callers that share workers: plain calls, time-outs, cancels, chains, a close in the middle. */
#include "scenario.h"

#define CALLERS_MAX	24
#define BATCH_MAX	16
#define CROWD		24

struct caller {
	struct sim_call calls[BATCH_MAX];
	struct gyre_op ops[BATCH_MAX];
	struct __kernel_timespec ts[BATCH_MAX];
	char bytes[BATCH_MAX][32];
	unsigned rounds;
	bool endless;
};

struct crowd {
	struct sim_call calls[CROWD];
	struct gyre_op ops[CROWD];
	char bytes[CROWD][8];
};

static struct {
	struct gyre *rt;
	struct caller *callers;
	struct sim_thread *threads[CALLERS_MAX];
	unsigned count, batch_max;
	int pipe[2], file;
	bool chains;		/* link some ops */
	bool patient;		/* wait without end: somebody closes */
	uint64_t done;		/* NOPs answered with OK */
} play;

static void begin(bool chains, bool patient)
{
	memset(&play, 0, sizeof(play));
	play.count = sim_many(3, 16 + (unsigned)sim_random(CALLERS_MAX - 16 + 1));
	play.batch_max = sim_many(4, BATCH_MAX);
	play.callers = sim_kernel_alloc(play.count * sizeof(play.callers[0]));
	play.chains = chains;
	play.patient = patient;
	sim_scenario_pipe(play.pipe);
	play.file = sim_scenario_file("the contents of a file, forty bytes long", 40);
}

static void end(void)
{
	sim_scenario_close(play.pipe[0]);
	sim_scenario_close(play.pipe[1]);
	sim_scenario_close(play.file);
}

/* Some op; true: it might never end by itself. */
static bool roll_call(struct caller *caller, unsigned i)
{
	struct sim_call *call = &caller->calls[i];
	uint32_t len = 1 + (uint32_t)sim_random(sizeof(caller->bytes[i]));

	if (sim_chance(30)) {
		sim_call_wrong(call);
		return false;
	}
	switch (sim_random(9)) {
	case 0:
		sim_call_init(call, IORING_OP_NOP, -1, NULL, 0, 0);
		return false;
	case 1:
		sim_call_init(call, IORING_OP_READ, play.file, caller->bytes[i], len,
			      sim_random(40));
		return false;
	case 2:
		sim_call_init(call, IORING_OP_WRITE, play.file, caller->bytes[i], len,
			      sim_random(40));
		return false;
	case 3:
		sim_call_init(call, IORING_OP_READ, play.pipe[0], caller->bytes[i], len, 0);
		return true;
	case 4:
		sim_call_init(call, IORING_OP_WRITE, play.pipe[1], caller->bytes[i], len, 0);
		return true;
	case 5:
		sim_call_init(call, IORING_OP_FSYNC, play.file, NULL, 0, 0);
		return false;
	case 6:
		sim_call_init(call, IORING_OP_POLL_ADD, play.pipe[sim_random(2)], NULL, 0,
			      sim_chance(500) ? POLLIN : POLLOUT);
		return true;
	case 7:
		sim_call_init(call, IORING_OP_SEND_ZC, play.pipe[1], caller->bytes[i], len, 0);
		return true;
	default:
		sim_call_timeout(call, &caller->ts[i], sim_random(SIM_MS));
		return false;
	}
}

static uint64_t roll_timeout(void)
{
	return 1 + sim_random(sim_chance(500) ? 20 * SIM_US : 5 * SIM_MS);
}

static void call_batch(struct caller *caller)
{
	unsigned count = 1 + (unsigned)sim_random(play.batch_max), i, first = 0;
	bool endless, chained = false, plain = sim_chance(300);

	memset(caller->ops, 0, sizeof(caller->ops));
	for (i = 0; i < count; i++) {
		struct gyre_op *op = &caller->ops[i];

		endless = roll_call(caller, i);
		if (!chained)
			first = i;
		chained = play.chains && !plain && i + 1 < count && sim_chance(600);
		if (chained)
			op->flags |= GYRE_OP_LINK;
		if (!plain && sim_chance(100))
			op->flags |= GYRE_OP_NOWAIT;
		if ((endless && !play.patient) || (!plain && sim_chance(400)))
			caller->ops[first].timeout_ns = roll_timeout();
	}
	sim_call_many(play.rt, caller->calls, caller->ops, count);
}

static void call_one(struct caller *caller)
{
	while (roll_call(caller, 0) && !play.patient)
		;
	sim_call_one(play.rt, &caller->calls[0]);
}

static void caller_main(void *arg)
{
	struct caller *caller = arg;
	unsigned i;

	for (i = 0; i < caller->rounds; i++)
		if (sim_chance(300))
			call_one(caller);
		else
			call_batch(caller);
}

/* Who has his answer finds it counted. */
static void check_counted(void)
{
	struct gyre_stats stats = { .size = sizeof(stats) };
	uint64_t done = play.done;

	if (gyre_stats_get(play.rt, &stats) == GYRE_OK && stats.ops_completed < done)
		sim_fail("%llu calls were answered, and the statistics know of %llu",
			 (unsigned long long)done, (unsigned long long)stats.ops_completed);
}

static void nop_main(void *arg)
{
	struct caller *caller = arg;
	unsigned i;

	for (i = 0; i < caller->rounds; i++) {
		sim_call_init(&caller->calls[0], IORING_OP_NOP, -1, NULL, 0, 0);
		if (sim_call_one(play.rt, &caller->calls[0]) == GYRE_OK)
			play.done++;
		check_counted();
	}
}

static void start_callers(sim_fn *fn, unsigned rounds)
{
	unsigned i;

	for (i = 0; i < play.count; i++) {
		char name[16] = "caller-a";

		name[7] = (char)('a' + i);
		play.callers[i].rounds = rounds;
		play.threads[i] = sim_spawn(name, fn, &play.callers[i]);
	}
}

static void join_callers(void)
{
	unsigned i;

	for (i = 0; i < play.count; i++)
		sim_join(play.threads[i]);
}

/* Somebody who gets in the callers' way. */
static void meddle(void)
{
	unsigned i, times = (unsigned)sim_random(sim_many(8, 40));

	for (i = 0; i < times; i++) {
		struct caller *caller = &play.callers[sim_random(play.count)];

		switch (sim_random(4)) {
		case 0:
			sim_sleep(sim_random(sim_chance(500) ? 50 * SIM_US : SIM_MS));
			break;
		case 1:
			sim_scenario_write(play.pipe[1], "some bytes in the pipe",
					   1 + sim_random(22));
			break;
		default:
			sim_trace("cancels an op");
			sim_cancel(play.rt, &caller->ops[sim_random(play.batch_max)]);
		}
	}
}

void scenario_nops(void *arg)
{
	(void)arg;
	begin(false, false);
	if (sim_open(sim_many(1, 4), 0, &play.rt)) {
		start_callers(nop_main, sim_many(3, 12));
		join_callers();
		sim_close_runtime(play.rt);
		gyre_free(play.rt);
	}
	end();
}

static void play_calls(bool chains, unsigned workers, bool close_early)
{
	begin(chains, close_early);
	if (sim_open(workers, sim_random(2 * SIM_MS), &play.rt)) {
		start_callers(caller_main, sim_many(2, 6));
		meddle();
		if (!close_early)
			join_callers();
		sim_close_runtime(play.rt);
		if (close_early)
			join_callers();
		gyre_free(play.rt);
	}
	end();
}

void scenario_calls(void *arg)
{
	(void)arg;
	play_calls(false, 1 + (unsigned)sim_random(sim_many(2, 6)), sim_chance(300));
}

void scenario_chains(void *arg)
{
	(void)arg;
	play_calls(true, sim_many(1, 3), sim_chance(300));
}

/* A kernel that is always short of memory cuts chains, and gives time to cancel what was cut. */
void scenario_cut_chains(void *arg)
{
	(void)arg;
	sim_faults.partial = 500;
	sim_faults.eagain = 300;
	play_calls(true, 1, sim_chance(500));
}

static void closer_main(void *arg)
{
	(void)arg;
	sim_sleep(sim_random(100 * SIM_US));
	sim_close_runtime(play.rt);
}

void scenario_close_race(void *arg)
{
	struct sim_thread *closer;

	(void)arg;
	begin(sim_chance(300), true);
	if (sim_open(1 + (unsigned)sim_random(sim_many(2, 6)), sim_random(2 * SIM_MS), &play.rt)) {
		start_callers(caller_main, sim_many(2, 6));
		closer = sim_spawn("closer", closer_main, NULL);
		sim_sleep(sim_random(100 * SIM_US));
		if (sim_chance(500))
			meddle();
		sim_close_runtime(play.rt);
		sim_join(closer);
		join_callers();
		gyre_free(play.rt);
	}
	end();
}

void scenario_death(void *arg)
{
	(void)arg;
	play_calls(sim_chance(500), sim_many(2, 4), sim_chance(500));
}

/* --------------------------------------- what only one thing can end -- */

static void wait_main(void *arg)
{
	struct caller *caller = arg;

	sim_call_init(&caller->calls[0], IORING_OP_READ, play.pipe[0], caller->bytes[0], 32, 0);
	memset(caller->ops, 0, sizeof(caller->ops));
	sim_call_many(play.rt, caller->calls, caller->ops, 1);
}

/* Between two looks; where many are needed, they are needed for long. */
static void sleep_longer(uint64_t *pause_ns)
{
	sim_sleep(1 + sim_random(*pause_ns));
	if (*pause_ns < 10 * SIM_MS)
		*pause_ns += *pause_ns / 8;
}

/* Until one cancel was accepted, or there is nothing to cancel. */
static void cancel_patiently(struct caller *caller)
{
	uint64_t pause_ns = 5 * SIM_US;
	enum gyre_status status;

	do {
		status = sim_cancel(play.rt, &caller->ops[0]);
		if (status != GYRE_OK)
			sleep_longer(&pause_ns);
	} while (status != GYRE_OK && !caller->calls[0].answered);
}

/* Each caller waits for bytes that never come: one cancel that was accepted has to end it. */
static void play_cancels(unsigned workers)
{
	unsigned i;

	begin(false, true);
	if (sim_open(workers, GYRE_FOREVER, &play.rt)) {
		start_callers(wait_main, 1);
		for (i = 0; i < play.count; i++)
			cancel_patiently(&play.callers[i]);
		join_callers();
		sim_close_runtime(play.rt);
		gyre_free(play.rt);
	}
	end();
}

void scenario_cancel_only(void *arg)
{
	(void)arg;
	play_cancels(1);
}

/* The same while a worker dies: the cancel has to follow the op to the other. */
void scenario_cancel_death(void *arg)
{
	(void)arg;
	sim_faults.fatal = sim_faults.fatal ? 300 : 0;
	play_cancels(2);
}

/*
 * Nothing fails and nothing is slow, and ops that nobody ends take up the room:
 * whoever has a time-out must be told so on time, wherever his op waits.
 */
static void late_main(void *arg)
{
	struct caller *caller = arg;
	unsigned i, count;

	if (caller->endless) {
		wait_main(caller);
		return;
	}
	for (; caller->rounds > 0; caller->rounds--) {
		count = 1 + (unsigned)sim_random(play.batch_max);
		memset(caller->ops, 0, sizeof(caller->ops));
		for (i = 0; i < count; i++) {
			sim_call_init(&caller->calls[i], IORING_OP_READ, play.pipe[0],
				      caller->bytes[i], 32, 0);
			caller->ops[i].timeout_ns = 1 + sim_random(20 * SIM_MS);
		}
		sim_call_many(play.rt, caller->calls, caller->ops, count);
	}
}

void scenario_on_time(void *arg)
{
	unsigned i;

	(void)arg;
	sim_faults = (struct sim_faults){ .post_directly = sim_faults.post_directly };
	sim_expect_punctual();
	begin(false, true);
	if (sim_open(1, 1 + sim_random(SIM_MS), &play.rt)) {
		play.callers[0].endless = true;
		start_callers(late_main, 2);
		for (i = 1; i < play.count; i++)
			sim_join(play.threads[i]);
		sim_close_runtime(play.rt);
		sim_join(play.threads[0]);
		gyre_free(play.rt);
	}
	end();
}

/* Many ops whose time is up at once: their cancels wait for slots of the library's own. */
static void crowd_main(void *arg)
{
	unsigned sends = sim_chance(600) ? 700 : 100, i;
	struct crowd *crowd = arg;

	memset(crowd, 0, sizeof(*crowd));
	for (i = 0; i < CROWD; i++) {
		if (sim_chance(sends))
			sim_call_init(&crowd->calls[i], IORING_OP_SEND_ZC, play.pipe[1],
				      crowd->bytes[i], 2, 0);
		else
			sim_call_init(&crowd->calls[i], IORING_OP_READ, play.pipe[0],
				      crowd->bytes[i], 8, 0);
		if (sim_chance(900))
			crowd->ops[i].timeout_ns = 20 * SIM_US + sim_random(10 * SIM_US);
	}
	sim_call_many(play.rt, crowd->calls, crowd->ops, CROWD);
}

void scenario_crowd(void *arg)
{
	static struct crowd crowd;
	struct sim_thread *thread;

	(void)arg;
	begin(false, true);
	if (sim_open_sized(1, CROWD, sim_random(SIM_MS), &play.rt)) {
		thread = sim_spawn("crowd", crowd_main, &crowd);
		sim_sleep(sim_random(100 * SIM_US));
		sim_close_runtime(play.rt);
		sim_join(thread);
		gyre_free(play.rt);
	}
	end();
}

/*
 * A caller is inside when the runtime is freed: it has to wait until that one
 * has left. One caller, as a second might find no room, and never be seen inside.
 */
void scenario_free(void *arg)
{
	uint64_t pause_ns = 5 * SIM_US;
	struct sim_thread *thread;
	struct caller *caller;

	(void)arg;
	begin(false, true);
	caller = &play.callers[0];
	if (sim_open(1, sim_random(SIM_MS), &play.rt)) {
		thread = sim_spawn("caller", wait_main, caller);
		while (!caller->calls[0].prepared && !caller->calls[0].answered)
			sleep_longer(&pause_ns);
		sim_excuse_close();
		gyre_free(play.rt);
		sim_join(thread);
	}
	end();
}
