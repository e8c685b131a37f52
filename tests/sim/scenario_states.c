/* SPDX-License-Identifier: MIT */
/* Jobs that run on states: each seen by one at a time, made and destroyed once. */
#include "scenario.h"

#include "deadline.h"
#include "job.h"

#define CALLERS_MAX	8
#define DEPTH_MAX	3
#define WORKERS_MAX	4
#define STATES_MAX	512

struct sim_state {
	bool there, shared, in_callback;
	int worker;
	const struct sim_job *user;	/* NULL: nobody since it was made or reset */
};

static struct {
	struct gyre *rt;
	unsigned workers, count, rounds;
	unsigned fails, panics;		/* of 1000 creates */
	bool patient;			/* somebody closes while they run */
	struct sim_state states[STATES_MAX];
	unsigned made, destroyed;
	const struct sim_state *shared[WORKERS_MAX];	/* of each worker */
} play;

static int run_task(void *arg);

static uint64_t some_time(void)
{
	return 1 + sim_random(sim_chance(700) ? 10 * SIM_US : 100 * SIM_US);
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

static void *create_state(const char *key, void *arg)
{
	struct sim_state *state;

	(void)arg;
	if (key)
		sim_fail("a state is made for a key");
	wait_in_callback(some_time());
	if (sim_chance(play.panics)) {
		sim_states.panicked = true;
		gyre_panic("no state can be had");
	}
	if (sim_chance(play.fails) || play.made == STATES_MAX) {
		sim_states.failed = true;
		return NULL;
	}
	sim_reach(SIM_STATE_MADE);
	state = &play.states[play.made++];
	*state = (struct sim_state){ .there = true, .worker = gyre_current_worker() };
	sim_trace("state %u is made on worker %d", play.made, state->worker);
	return state;
}

/* Nobody is on it, and nobody gets it until the callback has returned. */
static void begin_callback(struct sim_state *state, const char *what)
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
	struct sim_state *state = value;

	(void)arg;
	sim_reach(SIM_STATE_RESET);
	if (!state->shared || !state->user)
		sim_fail("a state is reset that nobody has used");
	begin_callback(state, "reset");
	state->user = NULL;
}

static void destroy_state(void *value, void *arg)
{
	struct sim_state *state = value;

	(void)arg;
	if (state->shared && !sim_is_closed() && !sim_death_happened())
		sim_fail("the state of a worker is destroyed, and that has not ended");
	if (!state->shared && state->user && state->user->answered)
		sim_fail("job %u was answered before its state is destroyed", state->user->id);
	begin_callback(state, "destroy");
	state->there = false;
	play.destroyed++;
	if (state->shared)
		play.shared[state->worker] = NULL;
	else if (state->user)
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
	const struct sim_state *state = gyre_state();

	if (!state || !state->there || state->in_callback)
		sim_fail("task %u runs without a state", task->id);
	if (state->user != task->job)
		sim_fail("task %u finds another job on its state", task->id);
}

static void take_state(const struct sim_task *first)
{
	struct sim_state *state = gyre_state();

	if (!state || !state->there || state->in_callback || state->user)
		sim_fail("job %u begins on no state, or on one that is not ready", first->job->id);
	if (state->worker != gyre_current_worker())
		sim_fail("job %u begins on the state of another worker", first->job->id);
	state->user = first->job;
	state->shared = first->job->mode == GYRE_MODE_SHARED;
	if (!state->shared)
		return;
	if (play.shared[state->worker] && play.shared[state->worker] != state)
		sim_fail("a worker has two states to share");
	play.shared[state->worker] = state;
}

static void check_answered(const struct sim_job *job)
{
	unsigned i;

	for (i = 0; i < play.made; i++)
		if (play.states[i].there && !play.states[i].shared && play.states[i].user == job)
			sim_fail("job %u is answered, and its state is still there", job->id);
}

static void answered(struct sim_job *job, enum gyre_status status, int result, uint64_t since_ns)
{
	if (status == GYRE_WOULD_DEADLOCK)
		sim_reach(SIM_STATE_CIRCLE);
	sim_check_told(status);
	sim_job_answered(job, status, gyre_last_effect(), result, since_ns);
	check_answered(job);
}

static struct gyre_job_options roll_options(struct sim_job *job)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;

	job->mode = sim_chance(650) ? GYRE_MODE_SHARED : GYRE_MODE_FRESH;
	options.mode = job->mode;
	options.worker = sim_chance(600) ? GYRE_WORKER(sim_random(play.workers)) : 0;
	options.timeout_ns = sim_chance(200) ? some_time() : 0;
	job->timeout_ns = options.timeout_ns;
	job->start_ns = sim_now_ns();
	return options;
}

static void run_job(struct sim_job *job, struct sim_task *waiter)
{
	struct gyre_job_options options = roll_options(job);
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;
	int result = -1;

	job->waiter = waiter;
	status = gyre_block_on(play.rt, run_task, job->first, &options, &result);
	answered(job, status, result, start_ns);
}

/* A thread, which nobody waits for. */
static void spawn_job(struct sim_job *job)
{
	struct gyre_job_options options = roll_options(job);
	enum gyre_status status = gyre_spawn(play.rt, run_task, job->first, &options, &job->handle);
	uint64_t start_ns = sim_now_ns();
	int result = -1;

	if (status != GYRE_OK) {
		answered(job, status, result, start_ns);
		return;
	}
	job->taken = true;
	if (sim_chance(500))
		sim_sleep(some_time());
	if (sim_chance(500))
		sim_job_cancel(job);
	start_ns = sim_now_ns();
	status = gyre_job_wait(job->handle, GYRE_FOREVER, &result);
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

static void sleep_in_defer(void *arg)
{
	struct sim_task *task = arg;

	task->shielded = true;
	check_state(task);
	sleep_a_while(task);
	check_state(task);
}

static int run_task(void *arg)
{
	struct sim_task *task = arg;
	unsigned steps = (unsigned)sim_random(4), i;

	if (task == task->job->first)
		take_state(task);
	if (!sim_task_begins(task))
		return task->result;
	if (sim_chance(200) && gyre_defer(sleep_in_defer, task) != GYRE_OK && !sim_fault_happened())
		sim_fail("gyre_defer: %s", gyre_last_error());
	for (i = 0; i < steps && !sim_task_is_cancelled(task); i++) {
		check_state(task);
		if (sim_chance(20))
			sim_task_panics(task);
		if (sim_chance(500))
			sleep_a_while(task);
		else if (sim_chance(500))
			run_nested(task);
		else
			start_sibling(task);
	}
	check_state(task);
	return sim_task_returns(task);
}

/* --------------------------------------------------------------- callers -- */

static void caller_main(void *arg)
{
	struct sim_job *job;
	unsigned i;

	(void)arg;
	for (i = 0; i < play.rounds && (job = sim_job_new(0)); i++)
		if (sim_chance(500))
			run_job(job, NULL);
		else
			spawn_job(job);
}

static void play_states(bool patient)
{
	struct sim_thread *threads[CALLERS_MAX];
	unsigned i;

	memset(&play, 0, sizeof(play));
	sim_jobs_begin();
	play.patient = patient;
	play.workers = 1 + (unsigned)sim_random(sim_many(2, WORKERS_MAX));
	play.count = sim_many(1 + (unsigned)sim_random(4), CALLERS_MAX);
	play.rounds = sim_many(3, 5);
	play.fails = sim_chance(300) ? 200 : 0;
	play.panics = sim_chance(200) ? 100 : 0;
	if (sim_open_with_states(play.workers, patient ? some_time() : 0, &type, &play.rt)) {
		for (i = 0; i < play.count; i++)
			threads[i] = sim_spawn("caller", caller_main, NULL);
		for (i = 0; !patient && i < play.count; i++)
			sim_join(threads[i]);
		if (patient)
			sim_sleep(5 * some_time());
		sim_close_runtime(play.rt);
		for (i = 0; patient && i < play.count; i++)
			sim_join(threads[i]);
		gyre_free(play.rt);
	}
	if (play.made != play.destroyed)
		sim_fail("%u states were made, and %u destroyed", play.made, play.destroyed);
	sim_jobs_end();
}

void scenario_states(void *arg)
{
	(void)arg;
	play_states(false);
}

void scenario_states_close(void *arg)
{
	(void)arg;
	play_states(true);
}

void scenario_states_death(void *arg)
{
	(void)arg;
	play_states(sim_chance(500));
}
