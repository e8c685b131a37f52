/* SPDX-License-Identifier: MIT */
/*
 * Jobs that run on the states of keys: each seen by one at a time, one for a key, no
 * more than there is room for, and everybody who wants one gets his turn.
 */
#include "scenario.h"

#include <stdio.h>

#include "deadline.h"
#include "job.h"

#define CALLERS_MAX	8
#define DEPTH_MAX	3
#define KEYS_MAX	8
#define JOBS_MAX	160
#define STATES_MAX	1024

struct pool_state {
	bool there, in_callback;
	int worker;
	unsigned key;
	const struct sim_job *user;	/* NULL: nobody since it was made or reset */
};

static struct {
	struct gyre *rt;
	unsigned workers, count, rounds, keys, size;
	unsigned fails, panics;		/* of 1000 creates */
	bool patient;			/* somebody closes while they run */
	unsigned there;			/* states, and creates under way */
	struct pool_state states[STATES_MAX];
	unsigned made;
	unsigned key_of[JOBS_MAX + 1];	/* by the job's id */
	unsigned caller_of[JOBS_MAX + 1];	/* that has spawned it; 0: somebody else */
	unsigned latest[CALLERS_MAX + 1][KEYS_MAX];	/* of his that has begun */
} play;

static int run_task(void *arg);
static void run_job(struct sim_job *job, struct sim_task *waiter);

static uint64_t some_time(void)
{
	return 1 + sim_random(sim_chance(700) ? 10 * SIM_US : 100 * SIM_US);
}

/* Two at the same time may be there of a key, or more of all, then only. */
static bool is_excused(void)
{
	return sim_is_closed() || sim_death_happened();
}

/* ------------------------------------------------------------- callbacks -- */

static enum gyre_status wait_in_callback(uint64_t ns)
{
	enum gyre_status status = GYRE_OK;

	if (gyre_state())
		sim_fail("a callback of a state finds one");
	if (sim_chance(500))
		status = gyre_sleep(ns);
	if (sim_chance(300))
		gyre_yield();
	return status;
}

static struct pool_state *find_state(unsigned key)
{
	unsigned i;

	for (i = 0; i < play.made; i++)
		if (play.states[i].there && play.states[i].key == key)
			return &play.states[i];
	return NULL;
}

/* A create that is left by a panic or a drop has made nothing. */
static void leave_create(void *arg)
{
	if (*(bool *)arg)
		play.there--;
	*(bool *)arg = false;
}

static void *create_state(const char *key, void *arg)
{
	static bool under_way[STATES_MAX];
	struct pool_state *state;
	bool *mine = &under_way[play.made];

	(void)arg;
	if (!key || key[0] != 'k' || key[1] < 'a' || (unsigned)(key[1] - 'a') >= play.keys)
		sim_fail("a state is made for no key of anybody's");
	if (find_state((unsigned)(key[1] - 'a')) && !is_excused())
		sim_fail("a key gets another state while it has one");
	if (play.made == STATES_MAX) {
		sim_states.failed = true;
		return NULL;
	}
	play.made++;
	*mine = false;
	if (gyre_defer(leave_create, mine) == GYRE_OK) {
		*mine = true;
		if (++play.there > play.size && !is_excused())
			sim_fail("%u states are there, and there is room for %u", play.there,
				 play.size);
	}
	state = &play.states[mine - under_way];
	*state = (struct pool_state){ .key = (unsigned)(key[1] - 'a'),
				      .worker = gyre_current_worker() };
	wait_in_callback(some_time());
	if (sim_chance(play.panics)) {
		sim_states.panicked = true;
		gyre_panic("no state can be had");
	}
	if (sim_chance(play.fails)) {
		sim_states.failed = true;
		leave_create(mine);
		return NULL;
	}
	if (find_state(state->key) && !is_excused())
		sim_fail("two states of a key are made at the same time");
	sim_reach(SIM_STATE_MADE);
	leave_create(mine);
	play.there++;
	state->there = true;
	sim_trace("state %u of key %u is made on worker %d", play.made, state->key,
		  state->worker);
	return state;
}

/* Nobody is on it, and nobody gets it until the callback has returned. */
static void begin_callback(struct pool_state *state, const char *what)
{
	/* What only the end of the drain ends. */
	uint64_t ns = play.patient && sim_chance(50) ? GYRE_FOREVER : some_time();

	if (!state->there || state->in_callback)
		sim_fail("%s of a state that is not there", what);
	if (state->worker != gyre_current_worker())
		sim_fail("%s of a state on another worker than its own", what);
	if (state->user && (state->user->live || !state->user->first_over))
		sim_fail("%s of a state while job %u is on it", what, state->user->id);
	state->in_callback = true;
	if (wait_in_callback(ns) != GYRE_OK && !sim_drain_is_over() && !sim_fault_happened())
		sim_fail("%s of a state is cut short", what);
	state->in_callback = false;
}

static void reset_state(void *value, void *arg)
{
	struct pool_state *state = value;

	(void)arg;
	sim_reach(SIM_STATE_RESET);
	if (!state->user)
		sim_fail("a state is reset that nobody has used");
	begin_callback(state, "reset");
	state->user = NULL;
}

static void run_from_destroy(void)
{
	struct sim_job *job = sim_chance(100) ? sim_job_new(DEPTH_MAX) : NULL;

	if (!job)
		return;
	job->awaited = true;
	run_job(job, NULL);
}

static void destroy_state(void *value, void *arg)
{
	struct pool_state *state = value;

	(void)arg;
	if (!is_excused()) {
		sim_reach(SIM_STATE_EVICTED);
		if (play.keys <= play.size)
			sim_fail("a state is evicted, and there is room for all");
	}
	begin_callback(state, "destroy");
	state->in_callback = true;
	run_from_destroy();
	sim_trace("the state of key %u goes", state->key);
	state->there = false;
	play.there--;
	if (state->user && !state->user->answered)
		sim_job_has_given_back((struct sim_job *)(uintptr_t)state->user);
	sim_deadline_job_ended();
}

static const struct gyre_state_type type = {
	.size = sizeof(type), .create = create_state, .reset = reset_state,
	.destroy = destroy_state,
};

/* ----------------------------------------------------------------- tasks -- */

static void check_state(const struct sim_task *task)
{
	const struct pool_state *state = gyre_state();

	if (!state || !state->there || state->in_callback)
		sim_fail("task %u runs without a state", task->id);
	if (state->user != task->job)
		sim_fail("task %u finds another job on its state", task->id);
}

/* Of jobs with the same key that one thread has spawned, none overtakes another. */
static void check_order(const struct sim_job *job)
{
	unsigned caller = play.caller_of[job->id], *latest;

	if (!caller || is_excused())
		return;
	latest = &play.latest[caller][play.key_of[job->id]];
	if (job->id < *latest)
		sim_fail("job %u comes after job %u, which came after it", job->id, *latest);
	*latest = job->id;
}

static void take_state(const struct sim_task *first)
{
	struct pool_state *state = gyre_state();

	if (!state || !state->there || state->in_callback || state->user)
		sim_fail("job %u begins on no state, or on one that is not ready", first->job->id);
	if (state->worker != gyre_current_worker())
		sim_fail("job %u begins on the state of another worker", first->job->id);
	if (state->key != play.key_of[first->job->id])
		sim_fail("job %u begins on the state of another key", first->job->id);
	check_order(first->job);
	state->user = first->job;
}

static void answered(struct sim_job *job, enum gyre_status status, int result, uint64_t since_ns)
{
	if (status == GYRE_WOULD_DEADLOCK)
		sim_reach(SIM_STATE_CIRCLE);
	/* Either is reason enough not to run, and a worker that ends may say the latter late. */
	if (status == GYRE_WOULD_DEADLOCK || status == GYRE_CLOSED)
		job->taken = false;
	sim_check_told(status);
	sim_job_answered(job, status, gyre_last_effect(), result, since_ns);
}

/* key: room for its text, which is written over as soon as the call has returned. */
static struct gyre_job_options roll_options(struct sim_job *job, char key[3])
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;
	unsigned number = (unsigned)sim_random(play.keys);

	play.key_of[job->id] = number;
	snprintf(key, 3, "k%c", (char)('a' + number));
	job->mode = GYRE_MODE_POOLED;
	options.mode = job->mode;
	options.key = key;
	options.timeout_ns = sim_chance(150) ? some_time() : 0;
	job->timeout_ns = options.timeout_ns;
	job->start_ns = sim_now_ns();
	return options;
}

static void run_job(struct sim_job *job, struct sim_task *waiter)
{
	char key[3];
	struct gyre_job_options options = roll_options(job, key);
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;
	int result = -1;

	job->waiter = waiter;
	status = gyre_block_on(play.rt, run_task, job->first, &options, &result);
	key[1] = '!';
	answered(job, status, result, start_ns);
}

/* False: it was refused, and that is answered; a task's, because it is cancelled itself. */
static bool spawn_job(struct sim_job *job, unsigned caller, struct sim_task *task)
{
	char key[3];
	struct gyre_job_options options = roll_options(job, key);
	enum gyre_status status;

	play.caller_of[job->id] = caller;
	status = gyre_spawn(play.rt, run_task, job->first, &options, &job->handle);
	key[1] = '!';
	job->taken = status == GYRE_OK;
	if (!job->taken) {
		job->waiter = task;
		answered(job, status, -1, sim_now_ns());
	}
	return job->taken;
}

static void wait_for_job(struct sim_job *job)
{
	uint64_t start_ns = sim_now_ns();
	int result = -1;
	enum gyre_status status = gyre_job_wait(job->handle, GYRE_FOREVER, &result);

	if (status == GYRE_BUSY && sim_call_has_failed())
		gyre_job_detach(job->handle);
	else
		answered(job, status, result, start_ns);
}

static void run_nested(struct sim_task *task)
{
	struct sim_job *job = NULL;

	if (task->job->depth < DEPTH_MAX)
		job = sim_job_new(task->job->depth + 1);
	if (!job)
		return;
	sim_task_waits(task);
	run_job(job, task);
	sim_task_goes_on(task);
}

/* What it waits for may have come before it in line, or want room that it has. */
static void spawn_and_wait(struct sim_task *task)
{
	struct sim_job *job = NULL;
	enum gyre_status status;
	int result = -1;
	uint64_t start_ns;

	if (task->job->depth < DEPTH_MAX)
		job = sim_job_new(task->job->depth + 1);
	if (!job)
		return;
	sim_task_waits(task);
	if (spawn_job(job, 0, task)) {
		if (sim_chance(500))
			gyre_yield();
		start_ns = sim_now_ns();
		job->awaited = true;
		status = gyre_job_wait(job->handle, GYRE_FOREVER, &result);
		/* It may be the job's own answer, or that of the wait, which does not begin. */
		if (strstr(gyre_last_error(), "the handle is still good")) {
			if (status == GYRE_WOULD_DEADLOCK)
				sim_reach(SIM_STATE_CIRCLE);
			sim_job_cancel(job);
			gyre_job_detach(job->handle);
		} else {
			answered(job, status, result, start_ns);
		}
	}
	sim_task_goes_on(task);
}

static void start_sibling(struct sim_task *task)
{
	struct sim_task *child = sim_task_new(task->job, task);

	if (child && gyre_go(run_task, child, NULL) == GYRE_OK)
		task->job->live++;
}

static void sleep_a_while(struct sim_task *task)
{
	uint64_t ns = some_time();
	enum gyre_status status;

	sim_task_waits(task);
	status = gyre_sleep(ns);
	sim_task_goes_on(task);
	sim_task_has_slept(task, ns, status);
}

static int run_task(void *arg)
{
	struct sim_task *task = arg;
	unsigned steps = (unsigned)sim_random(3), i;

	if (task == task->job->first)
		take_state(task);
	if (!sim_task_begins(task))
		return task->result;
	for (i = 0; i < steps && !sim_task_is_cancelled(task); i++) {
		check_state(task);
		if (sim_chance(20))
			sim_task_panics(task);
		if (sim_chance(400))
			sleep_a_while(task);
		else if (sim_chance(500))
			run_nested(task);
		else if (sim_chance(300))
			spawn_and_wait(task);
		else
			start_sibling(task);
	}
	check_state(task);
	return sim_task_returns(task);
}

/* --------------------------------------------------------------- callers -- */

#define AT_ONCE_MAX	4

static void spawn_some(unsigned caller)
{
	struct sim_job *jobs[AT_ONCE_MAX];
	unsigned count = 0, i;

	while (count < AT_ONCE_MAX && sim_chance(800) && (jobs[count] = sim_job_new(0)))
		if (spawn_job(jobs[count], caller, NULL))
			count++;
	if (sim_chance(300))
		sim_sleep(some_time());
	if (count && sim_chance(400))
		sim_job_cancel(jobs[sim_random(count)]);
	for (i = 0; i < count; i++)
		wait_for_job(jobs[i]);
}

static void caller_main(void *arg)
{
	unsigned caller = (unsigned)(uintptr_t)arg, i;
	struct sim_job *job;

	for (i = 0; i < play.rounds; i++)
		if (sim_chance(500))
			spawn_some(caller);
		else if ((job = sim_job_new(0)))
			run_job(job, NULL);
}

static void play_pool(bool patient)
{
	struct sim_thread *threads[CALLERS_MAX];
	unsigned i;

	memset(&play, 0, sizeof(play));
	sim_jobs_begin();
	play.patient = patient;
	play.workers = 1 + (unsigned)sim_random(sim_many(3, 5));
	play.count = sim_many(1 + (unsigned)sim_random(4), CALLERS_MAX);
	play.rounds = sim_many(3, 5);
	play.keys = 1 + (unsigned)sim_random(sim_many(4, KEYS_MAX));
	play.size = 1 + (unsigned)sim_random(sim_many(3, KEYS_MAX));
	play.fails = sim_chance(300) ? 200 : 0;
	play.panics = sim_chance(200) ? 100 : 0;
	if (sim_open_with_pool(play.workers, patient ? some_time() : 0, &type, play.size,
			       &play.rt)) {
		for (i = 0; i < play.count; i++)
			threads[i] = sim_spawn("caller", caller_main, (void *)(uintptr_t)(i + 1));
		for (i = 0; !patient && i < play.count; i++)
			sim_join(threads[i]);
		if (patient)
			sim_sleep(5 * some_time());
		sim_close_runtime(play.rt);
		for (i = 0; patient && i < play.count; i++)
			sim_join(threads[i]);
		gyre_free(play.rt);
	}
	for (i = 0; i < play.made; i++)
		if (play.states[i].there)
			sim_fail("the state of key %u is never destroyed", play.states[i].key);
	sim_jobs_end();
}

void scenario_pool(void *arg)
{
	(void)arg;
	play_pool(false);
}

void scenario_pool_close(void *arg)
{
	(void)arg;
	play_pool(true);
}

void scenario_pool_death(void *arg)
{
	(void)arg;
	play_pool(sim_chance(500));
}
