/* SPDX-License-Identifier: MIT */
/*
 * Threads that push work to a pool of helpers, while others close it. What was
 * accepted has run once when a close returns, soon after its push, and on no
 * more threads than were allowed.
 */
#include "scenario.h"

#include "workers/offload.h"

#define PUSHERS_MAX	6
#define ROUNDS_MAX	4
#define WORKS_MAX	(PUSHERS_MAX * ROUNDS_MAX)
#define WORK_NS_MAX	(50 * SIM_US)
#define SHORT_NS_MAX	(100 * SIM_US)
#define LONG_NS		SIM_S
/* All works one after another, and all that may be in their way. */
#define LATE_NS		(100 * SIM_MS)

enum stage { UNUSED, PUSHED, RUNS, DONE };

static struct {
	struct gyre__offload *pool;
	unsigned threads_max, rounds, closers;
	uint64_t idle_ns;
	struct entry {
		struct gyre__offload_work work;
		enum stage stage;
		bool accepted;
		unsigned number;	/* of its pusher's */
		uint64_t pushed_ns;
	} entries[WORKS_MAX];
	unsigned running, begun, finished;
	bool closed;			/* a close has returned */
	unsigned last_begun[PUSHERS_MAX];
} play;

static struct entry *entry_at(unsigned pusher, unsigned round)
{
	return &play.entries[pusher * ROUNDS_MAX + round];
}

/* Its last step makes the entry somebody else's: nothing may use it any more. */
static void run_work(struct gyre__offload_work *work)
{
	struct entry *entry = gyre__container_of(work, struct entry, work);
	unsigned pusher = (unsigned)(entry - play.entries) / ROUNDS_MAX;

	if (entry->stage != PUSHED)
		sim_fail("offloaded work runs that was not pushed, or twice");
	if (play.closed)
		sim_fail("offloaded work runs after the pool was closed");
	if (++play.running > play.threads_max)
		sim_fail("offloaded work runs on more threads than were allowed");
	if (play.threads_max == 1 && entry->number != play.last_begun[pusher] + 1)
		sim_fail("offloaded work has overtaken other work");
	if (sim_now_ns() - entry->pushed_ns > LATE_NS && !sim_fault_happened())
		sim_fail("offloaded work has waited too long");
	play.last_begun[pusher] = entry->number;
	entry->stage = RUNS;
	sim_sleep(sim_random(WORK_NS_MAX));
	play.running--;
	entry->stage = DONE;
	memset(work, 0xa5, sizeof(*work));
}

static int begin_helper(void *arg)
{
	(void)arg;
	if (sim_chance(100))
		return -ENOMEM;
	play.begun++;
	return 0;
}

static void finish_helper(void *arg)
{
	(void)arg;
	if (play.closed)
		sim_fail("a helper goes on after the pool was closed");
	play.finished++;
}

/* False: the pool is closed. */
static bool push(unsigned pusher, unsigned round, unsigned *number)
{
	struct entry *entry = entry_at(pusher, round);
	bool closed = play.closed;
	int rc;

	entry->work.run = run_work;
	entry->stage = PUSHED;
	entry->number = *number + 1;
	entry->pushed_ns = sim_now_ns();
	rc = gyre__offload_push(play.pool, &entry->work, NULL);
	sim_trace("pushes work %u: %s", (unsigned)(entry - play.entries), sim_result(rc));
	if (rc == 0) {
		++*number;
		entry->accepted = true;
		if (closed)
			sim_fail("offloaded work was accepted after the pool was closed");
		return true;
	}
	if (entry->stage != PUSHED)
		sim_fail("offloaded work that was refused has run");
	entry->stage = UNUSED;
	if (rc == -ESHUTDOWN && !play.closers)
		sim_fail("offloaded work is refused as after a close, and nobody closes");
	if (rc != -ESHUTDOWN && !sim_fault_happened())
		sim_fail("offloaded work is refused: %d, and nothing has failed", rc);
	return rc != -ESHUTDOWN;
}

static void pusher_main(void *arg)
{
	unsigned pusher = (unsigned)(uintptr_t)arg, number = 0, round;

	for (round = 0; round < play.rounds; round++) {
		if (!push(pusher, round, &number))
			return;
		/* At once, sooner or later, or just as a helper's time is over. */
		if (sim_chance(300))
			sim_sleep(play.idle_ns < LONG_NS ? play.idle_ns : SHORT_NS_MAX);
		else if (sim_chance(700))
			sim_sleep(sim_random(2 * SHORT_NS_MAX));
	}
}

static void close_pool(void)
{
	uint64_t start_ns = sim_now_ns();
	unsigned i, idle;

	play.closers++;
	gyre__offload_close(play.pool);
	if (sim_now_ns() - start_ns > LATE_NS && !sim_fault_happened())
		sim_fail("the close of the pool has taken too long");
	if (gyre__offload_threads(play.pool, &idle) != 0 || idle != 0)
		sim_fail("helpers are left after the pool was closed");
	for (i = 0; i < WORKS_MAX; i++)
		if (play.entries[i].accepted && play.entries[i].stage != DONE)
			sim_fail("the pool is closed, and work %u has not run", i);
	if (play.begun != play.finished)
		sim_fail("the pool is closed, and a helper has not finished");
	play.closed = true;
}

static void closer_main(void *arg)
{
	(void)arg;
	sim_sleep(sim_random(4 * SHORT_NS_MAX));
	close_pool();
}

static void start_pushers(unsigned count, struct sim_thread **threads)
{
	char name[] = "pusher-a";
	unsigned i;

	for (i = 0; i < count; i++, name[7]++)
		threads[i] = sim_spawn(name, pusher_main, (void *)(uintptr_t)i);
}

void scenario_offload(void *arg)
{
	struct sim_thread *pushers[PUSHERS_MAX], *closer = NULL;
	struct gyre__offload_config config = {
		.name = "sim", .begin = begin_helper, .finish = finish_helper,
	};
	unsigned count = sim_many(3, PUSHERS_MAX), i;
	int rc;

	(void)arg;
	memset(&play, 0, sizeof(play));
	play.rounds = sim_many(3, ROUNDS_MAX);
	play.threads_max = 1 + (unsigned)sim_random(3);
	config.threads_max = play.threads_max;
	play.idle_ns = config.idle_ns = sim_chance(500) ? LONG_NS : 1 + sim_random(SHORT_NS_MAX);
	rc = gyre__offload_open(&config, &play.pool);
	if (rc < 0) {
		if (!sim_fault_happened())
			sim_fail("gyre__offload_open: %d, and nothing has failed", rc);
		return;
	}
	start_pushers(count, pushers);
	if (sim_chance(400))
		closer = sim_spawn("closer", closer_main, NULL);
	if (sim_chance(300))
		closer_main(NULL);
	for (i = 0; i < count; i++)
		sim_join(pushers[i]);
	if (closer)
		sim_join(closer);
	close_pool();
	gyre__offload_free(play.pool);
}
