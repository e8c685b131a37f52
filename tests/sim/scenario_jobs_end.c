/* SPDX-License-Identifier: MIT */
/*
 * Jobs that only one thing can end: a cancel, whatever they wait for; or that visit what is freed.
 */
#include "scenario.h"

#include "job.h"

#define JOBS_MAX	6
#define DEPTH_MAX	4

static struct {
	struct gyre *rt, *other;
	struct sim_job *jobs[JOBS_MAX];
	unsigned workers;
	int pipe[2];
} play;

static void begin(void)
{
	memset(&play, 0, sizeof(play));
	sim_jobs_begin();
	sim_faults.op_errno = 0;	/* only one thing is to end an op */
	play.workers = 1 + (unsigned)sim_random(2);
	sim_scenario_pipe(play.pipe);
}

static void end(void)
{
	sim_jobs_end();
	sim_scenario_close(play.pipe[0]);
	sim_scenario_close(play.pipe[1]);
}

static int wait_for_ever(void *arg);

static void sleep_for_ever(struct sim_task *task)
{
	enum gyre_status status = gyre_sleep(GYRE_FOREVER);

	sim_task_goes_on(task);
	sim_task_has_slept(task, GYRE_FOREVER, status);
}

static void read_for_ever(struct sim_task *task)
{
	sim_call_init(&task->calls[0], IORING_OP_READ, play.pipe[0], task->bytes[0], 8, 0);
	memset(task->ops, 0, sizeof(task->ops));
	if (sim_chance(500))
		task->ops[0].worker = GYRE_WORKER(sim_random(play.workers));
	task->calls[0].bound = true;
	sim_call_many(play.rt, task->calls, task->ops, 1);
	sim_task_goes_on(task);
}

static void join_for_ever(struct sim_task *task, bool all)
{
	struct sim_task *child = sim_task_new(task->job, task);
	enum gyre_status status;
	int result = -1;

	if (!child || gyre_go(wait_for_ever, child, &child->handle) != GYRE_OK) {
		sleep_for_ever(task);
		return;
	}
	task->job->live++;
	if (all) {
		task->joins_all = true;
		gyre_join_all();
		task->joins_all = false;
	} else {
		child->joiner = task;
		status = gyre_join(child->handle, &result);
		sim_task_joined(child, status, result);
	}
	sim_task_goes_on(task);
}

static struct gyre_job_options some_worker(void)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;

	options.worker = sim_chance(700) ? GYRE_WORKER(sim_random(play.workers)) : 0;
	return options;
}

/* The task's cancel goes on to the job, which has to end before the task may. */
static void block_for_ever(struct sim_task *task, struct sim_job *job)
{
	struct gyre_job_options options = some_worker();
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;
	int result = -1;

	job->waiter = task;
	status = gyre_block_on(play.rt, wait_for_ever, job->first, &options, &result);
	sim_job_answered(job, status, gyre_last_effect(), result, start_ns);
	sim_task_goes_on(task);
}

/* The task's cancel ends the wait, and nothing else. */
static void wait_for_job_for_ever(struct sim_task *task, struct sim_job *job)
{
	struct gyre_job_options options = some_worker();
	enum gyre_status status = gyre_spawn(play.rt, wait_for_ever, job->first, &options,
					     &job->handle);
	uint64_t start_ns = sim_now_ns();
	int result = -1;

	if (status != GYRE_OK) {
		job->waiter = task;
		sim_job_answered(job, status, gyre_last_effect(), result, start_ns);
		return;
	}
	job->taken = true;
	status = gyre_job_wait(job->handle, GYRE_FOREVER, &result);
	if (status != GYRE_BUSY) {
		sim_job_answered(job, status, gyre_last_effect(), result, start_ns);
		return;
	}
	sim_task_goes_on(task);
	sim_job_cancel(job);
	gyre_job_detach(job->handle);
}

static int wait_for_ever(void *arg)
{
	struct sim_task *task = arg;
	struct sim_job *job;

	if (!sim_task_begins(task))
		return task->result;
	sim_task_waits(task);
	job = task->job->depth < DEPTH_MAX && sim_chance(500) ?
	      sim_job_new(task->job->depth + 1) : NULL;
	if (job && sim_chance(500))
		block_for_ever(task, job);
	else if (job)
		wait_for_job_for_ever(task, job);
	else if (sim_chance(300))
		join_for_ever(task, sim_chance(500));
	else if (sim_chance(500))
		sleep_for_ever(task);
	else
		read_for_ever(task);
	/* Whatever it was: only the cancel can have ended it, or what has failed. */
	if (!sim_task_is_cancelled(task) && !sim_fault_happened() && !sim_is_closed())
		sim_fail("task %u: what nothing ends has ended", task->id);
	return sim_task_returns(task);
}

static bool spawn_one(struct sim_job *job)
{
	struct gyre_job_options options = some_worker();
	enum gyre_status status = gyre_spawn(play.rt, wait_for_ever, job->first, &options,
					     &job->handle);

	job->taken = status == GYRE_OK;
	if (!job->taken)
		sim_job_answered(job, status, gyre_last_effect(), -1, sim_now_ns());
	return job->taken;
}

/* In a task that runs already, so that the cancel may come before the start. */
static int cancel_from_task(void *arg)
{
	struct sim_job *job = arg;

	while (!job->taken && !job->answered && gyre_sleep(1 + sim_random(5 * SIM_US)) == GYRE_OK)
		;
	if (job->taken)
		sim_job_cancel(job);
	return 0;
}

static void ask_one(void *arg)
{
	struct gyre_job_options options = some_worker();
	struct sim_job *job = arg;
	enum gyre_status status;

	if (sim_chance(300)) {	/* a thread that has made no call yet */
		while (!job->taken && !job->answered)
			sim_sleep(1 + sim_random(5 * SIM_US));
		if (job->taken)
			sim_job_cancel(job);
		return;
	}
	status = gyre_block_on(play.rt, cancel_from_task, job, &options, NULL);
	if (status != GYRE_OK && !sim_fault_happened())
		sim_fail("gyre_block_on: %s", gyre_last_error());
}

static void cancel_one(void *arg)
{
	struct sim_job *job = arg;
	struct sim_thread *asker = sim_chance(400) ? sim_spawn("asker", ask_one, job) : NULL;
	enum gyre_status status;
	uint64_t start_ns;
	int result = -1;

	if (asker && sim_chance(700))
		sim_sleep(sim_random(50 * SIM_US));
	if (!spawn_one(job)) {
		if (asker)
			sim_join(asker);
		return;
	}
	if (asker)
		sim_join(asker);
	else if (sim_chance(700))
		sim_sleep(sim_random(100 * SIM_US));
	if (!job->cancel_asked)
		sim_job_cancel(job);
	start_ns = sim_now_ns();
	status = gyre_job_wait(job->handle, GYRE_FOREVER, &result);
	/* Nowhere to wait; its cancel goes on. */
	if (status == GYRE_BUSY && sim_call_has_failed()) {
		gyre_job_detach(job->handle);
		return;
	}
	sim_job_answered(job, status, gyre_last_effect(), result, start_ns);
}

/* The first task leaves others behind, which nothing ends but its own end. */
static int leave_behind(void *arg)
{
	struct sim_task *task = arg, *child;
	unsigned count = 1 + (unsigned)sim_random(3), i;

	if (!sim_task_begins(task))
		return task->result;
	for (i = 0; i < count; i++) {
		child = sim_task_new(task->job, task);
		if (child && gyre_go(wait_for_ever, child, NULL) == GYRE_OK)
			task->job->live++;
	}
	if (sim_chance(700)) {
		sim_task_waits(task);
		gyre_sleep(sim_random(50 * SIM_US));
		sim_task_goes_on(task);
	}
	return sim_task_returns(task);
}

static void run_one(void *arg)
{
	struct gyre_job_options options = some_worker();
	uint64_t start_ns = sim_now_ns();
	struct sim_job *job = arg;
	enum gyre_status status;
	int result = -1;

	status = gyre_block_on(play.rt, leave_behind, job->first, &options, &result);
	sim_job_answered(job, status, gyre_last_effect(), result, start_ns);
}

void scenario_jobs_cancel(void *arg)
{
	unsigned count = sim_many(1 + (unsigned)sim_random(3), JOBS_MAX), i;
	struct sim_thread *threads[JOBS_MAX];

	(void)arg;
	begin();
	if (sim_open_for_jobs(play.workers, GYRE_FOREVER, &play.rt)) {
		for (i = 0; i < count; i++) {
			struct sim_job *job = sim_job_new(0);

			if (sim_chance(400))
				threads[i] = sim_spawn("caller", run_one, job);
			else
				threads[i] = sim_spawn("caller", cancel_one, job);
		}
		for (i = 0; i < count; i++)
			sim_join(threads[i]);
		sim_close_runtime(play.rt);
		gyre_free(play.rt);
	}
	end();
}

/* ------------------------------------------------------------- a visit -- */

static int visit(void *arg)
{
	struct sim_task *task = arg;

	if (!sim_task_begins(task))
		return task->result;
	sim_task_waits(task);
	sim_call_init(&task->calls[0], IORING_OP_READ, play.pipe[0], task->bytes[0], 8, 0);
	memset(task->ops, 0, sizeof(task->ops));
	sim_call_many(play.other, task->calls, task->ops, 1);
	sim_task_goes_on(task);
	return sim_task_returns(task);
}

static void visitor_main(void *arg)
{
	struct sim_job *job = arg;
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;
	int result = -1;

	status = gyre_block_on(play.rt, visit, job->first, NULL, &result);
	sim_job_answered(job, status, gyre_last_effect(), result, start_ns);
}

/* The other runtime is freed while a task is inside: that is waited for. */
static void free_the_visited(void)
{
	struct sim_job *job = sim_job_new(0);
	struct sim_thread *thread = sim_spawn("visitor", visitor_main, job);
	uint64_t pause_ns = 5 * SIM_US;

	while (!job->first->calls[0].prepared && !job->first->calls[0].answered && !job->answered) {
		sim_sleep(1 + sim_random(pause_ns));
		if (pause_ns < 10 * SIM_MS)
			pause_ns += pause_ns / 8;
	}
	sim_excuse_close();
	gyre_free(play.other);
	sim_join(thread);
}

static int call_far(void *arg)
{
	unsigned count = 1 + (unsigned)sim_random(3), i;
	struct sim_task *task = arg;

	if (!sim_task_begins(task))
		return task->result;
	for (i = 0; i < count && !sim_task_is_cancelled(task); i++) {
		sim_task_waits(task);
		if (sim_chance(500))
			sim_call_init(&task->calls[0], IORING_OP_NOP, -1, NULL, 0, 0);
		else
			sim_call_timeout(&task->calls[0], &task->ts[0], sim_random(10 * SIM_US));
		memset(task->ops, 0, sizeof(task->ops));
		sim_call_many(play.rt, task->calls, task->ops, 1);
		sim_task_goes_on(task);
	}
	return sim_task_returns(task);
}

/* Its task was woken by a worker of the one that stays, and that may not be done with it yet. */
static void free_the_visitors(void)
{
	struct sim_job *job = sim_job_new(0);
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;
	int result = -1;

	status = gyre_block_on(play.other, call_far, job->first, NULL, &result);
	sim_job_answered(job, status, gyre_last_effect(), result, start_ns);
	sim_excuse_close();
	gyre_free(play.other);
}

void scenario_jobs_visit(void *arg)
{
	(void)arg;
	begin();
	if (sim_open_for_jobs(1, 1 + sim_random(SIM_MS), &play.rt)) {
		if (sim_open_for_jobs(1, 1 + sim_random(SIM_MS), &play.other)) {
			if (sim_chance(500))
				free_the_visitors();
			else
				free_the_visited();
		}
		gyre_close(play.rt);
		gyre_free(play.rt);
	}
	end();
}
