/* SPDX-License-Identifier: MIT */
#include "job.h"

#include <stdio.h>

#include "deadline.h"
#include "workers/task.h"

#define JOBS_SMALL	24
#define JOBS_LARGE	160
#define TASKS_SMALL	64
#define TASKS_LARGE	480

static struct {
	struct sim_job *jobs;
	struct sim_task *tasks;
	unsigned job_count, task_count;
} all;

struct sim_states sim_states;

void sim_jobs_begin(void)
{
	sim_states = (struct sim_states){ false, false };
	memset(&all, 0, sizeof(all));
	all.jobs = sim_kernel_alloc(sim_many(JOBS_SMALL, JOBS_LARGE) * sizeof(all.jobs[0]));
	all.tasks = sim_kernel_alloc(sim_many(TASKS_SMALL, TASKS_LARGE) * sizeof(all.tasks[0]));
}

struct sim_job *sim_job_new(unsigned depth)
{
	struct sim_job *job;

	if (all.job_count == sim_many(JOBS_SMALL, JOBS_LARGE))
		return NULL;
	job = &all.jobs[all.job_count++];
	job->id = all.job_count;
	job->depth = depth;
	job->first = sim_task_new(job, NULL);
	return job->first ? job : NULL;
}

struct sim_task *sim_task_new(struct sim_job *job, struct sim_task *parent)
{
	struct sim_task *task;

	if (all.task_count == sim_many(TASKS_SMALL, TASKS_LARGE))
		return NULL;
	task = &all.tasks[all.task_count++];
	task->id = all.task_count;
	task->job = job;
	task->parent = parent;
	task->result = (int)task->id * 1000 + (int)sim_random(1000);
	return task;
}

/* -------------------------------------------------------------- reasons -- */

static bool may_be_cancelled(const struct sim_task *task);

/* For its answer. */
static bool job_may_be_cancelled(const struct sim_job *job)
{
	return job->cancel_asked || sim_drain_is_over() || sim_death_happened() ||
	       (job->waiter && may_be_cancelled(job->waiter));
}

static bool is_over_time(const struct sim_job *job)
{
	return job->timeout_ns && sim_now_ns() >= gyre__deadline(job->start_ns, job->timeout_ns);
}

static bool may_be_cancelled(const struct sim_task *task)
{
	const struct sim_job *job = task->job;

	return task->cancel_asked || job_may_be_cancelled(job) || is_over_time(job) ||
	       job->panicked || job->first_over ||
	       (task->joiner && may_be_cancelled(task->joiner)) ||
	       (task->parent && task->parent->joins_all && may_be_cancelled(task->parent));
}

/* ---------------------------------------------------------------- tasks -- */

/* Bytes of the job's arena, which nobody else may have: not while it lives. */
static void check_mark(const struct sim_task *task)
{
	unsigned i;

	for (i = 0; task->mark && i < SIM_MARK_BYTES; i++)
		if (task->mark[i] != (char)(task->id + i))
			sim_fail("task %u: somebody has written into its job's memory", task->id);
}

static void make_mark(struct sim_task *task)
{
	unsigned i;

	task->mark = gyre_alloc(SIM_MARK_BYTES);
	for (i = 0; task->mark && i < SIM_MARK_BYTES; i++)
		task->mark[i] = (char)(task->id + i);
}

bool sim_task_is_cancelled(struct sim_task *task)
{
	if (!gyre_cancelled()) {
		if (task->cancelled_ns)
			sim_fail("task %u was cancelled, and is not any more", task->id);
		task->uncancelled_ns = sim_now_ns();
		return false;
	}
	if (!task->cancelled_ns) {
		sim_reach(SIM_TASK_CANCELLED);
		sim_trace("task %u finds itself cancelled", task->id);
		task->cancelled_ns = sim_now_ns();
	}
	if (!may_be_cancelled(task))
		sim_fail("task %u is cancelled, and nobody has asked", task->id);
	return true;
}

void sim_task_waits(struct sim_task *task)
{
	sim_task_is_cancelled(task);
	task->wait_ns = sim_now_ns();
	task->refusals = sim_deadline_refusals();
}

void sim_task_goes_on(struct sim_task *task)
{
	if (task->over || task->job->answered)
		sim_fail("task %u goes on after its end", task->id);
	if (task->cancelled_ns && !task->shielded &&
	    task->wait_ns >= task->cancelled_ns + GYRE__GRACE_NS)
		sim_fail("task %u goes on after its grace", task->id);
	check_mark(task);
	sim_task_is_cancelled(task);
}

/* Each of those who were in time to end it, and did not. */
static void check_slept(const struct sim_task *task, uint64_t due_ns, const char *what)
{
	sim_deadline_task(task->id, due_ns > task->wait_ns ? due_ns : task->wait_ns, task->refusals,
			  what);
}

void sim_task_has_slept(struct sim_task *task, uint64_t ns, enum gyre_status status)
{
	uint64_t due_ns = gyre__deadline(task->wait_ns, ns);
	const struct sim_job *job = task->job;

	sim_trace("task %u has slept: %s", task->id, gyre_status_name(status));
	if (status == GYRE_OK && sim_now_ns() < due_ns)
		sim_fail("task %u: its sleep is over too early", task->id);
	if (status == GYRE_CANCELLED && !gyre_cancelled())
		sim_fail("task %u: its sleep was cancelled, and it was not", task->id);
	if (status != GYRE_OK && status != GYRE_CANCELLED)
		sim_fail("task %u: no such answer of a sleep: %s", task->id,
			 gyre_status_name(status));
	check_slept(task, due_ns, "the end of its sleep is");
	if (task->shielded)
		return;
	if (job->timeout_ns)
		check_slept(task, gyre__deadline(job->start_ns, job->timeout_ns),
			    "after its job's time-out, the cancel is");
	if (job->cancelled_ns)
		check_slept(task, job->cancelled_ns,
			    "after its job's cancel, the end of its sleep is");
	check_slept(task, sim_deadline_drained_ns(), "after the drain, the end of its sleep is");
}

/* The last of its defers. */
static void leave(void *arg)
{
	struct sim_task *task = arg;
	struct sim_job *job = task->job;
	unsigned i;

	if (task->over)
		sim_fail("task %u ends twice", task->id);
	check_mark(task);
	if (!task->returned && !task->panics) {
		sim_reach(SIM_TASK_DROPPED);
		sim_trace("task %u is dropped", task->id);
		if (sim_now_ns() - task->uncancelled_ns < GYRE__GRACE_NS)
			sim_fail("task %u is dropped before its grace is over", task->id);
		for (i = 0; i < SIM_TASK_OPS; i++)
			if (task->calls[i].lent)
				sim_call_dropped(&task->calls[i]);
	}
	task->over = true;
	if (task == job->first) {
		job->first_over = true;
		job->returned = task->returned;
		job->result = task->result;
	}
	job->live--;
	job->over_ns = job->ended_ns = sim_now_ns();
	sim_deadline_job_ended();
}

bool sim_task_begins(struct sim_task *task)
{
	struct sim_job *job = task->job;

	if (task->begun)
		sim_fail("task %u runs twice", task->id);
	task->begun = true;
	if (job->answered)
		sim_fail("task %u begins after its job's end", task->id);
	sim_trace("task %u of job %u begins on worker %d", task->id, job->id,
		  gyre_current_worker());
	if (task == job->first) {
		job->begun++;
		job->live++;
		sim_deadline_begins(job->id);
	}
	task->uncancelled_ns = task->cancelled_ns = 0;
	sim_task_is_cancelled(task);
	if (gyre_defer(leave, task) != GYRE_OK) {
		if (!sim_fault_happened())
			sim_fail("task %u: no memory, and nothing has failed", task->id);
		task->returned = true;
		leave(task);
		return false;
	}
	make_mark(task);
	return true;
}

int sim_task_returns(struct sim_task *task)
{
	check_mark(task);
	sim_trace("task %u returns", task->id);
	task->returned = task->shielded = true;
	return task->result;
}

void sim_task_panics(struct sim_task *task)
{
	sim_reach(SIM_JOB_PANIC);
	sim_trace("task %u panics", task->id);
	task->panics = task->shielded = task->job->panicked = true;
	gyre_panic("job %u has had enough", task->job->id);
}

void sim_task_joined(struct sim_task *task, enum gyre_status status, int result)
{
	sim_trace("task %u is joined: %s", task->id, gyre_status_name(status));
	if (!task->over)
		sim_fail("task %u is joined before its end", task->id);
	if (status == GYRE_OK && (!task->returned || result != task->result))
		sim_fail("task %u is joined with another's result", task->id);
	if (status == GYRE_CANCELLED && task->returned)
		sim_fail("task %u has returned, and its joiner is told that it was dropped",
			 task->id);
	if (status != GYRE_OK && status != GYRE_CANCELLED)
		sim_fail("task %u is joined: %s", task->id, gyre_last_error());
}

/* ----------------------------------------------------------------- jobs -- */

void sim_job_has_given_back(struct sim_job *job)
{
	job->ended_ns = sim_now_ns();
}

void sim_job_cancel(struct sim_job *job)
{
	sim_trace("cancels job %u", job->id);
	job->cancel_asked = true;
	gyre_job_cancel(job->handle);
	job->cancelled_ns = sim_now_ns();
}

static void check_job_ok(const struct sim_job *job, enum gyre_effect effect, int result)
{
	sim_reach(SIM_JOB_OK);
	if (!job->begun || !job->returned)
		sim_fail("job %u: OK, but it has not returned", job->id);
	if (result != job->result)
		sim_fail("job %u: OK with %d, but it said %d", job->id, result, job->result);
	if (job->panicked)
		sim_fail("job %u: OK, but it has panicked", job->id);
	if (effect != GYRE_EFFECT_DONE)
		sim_fail("job %u: OK, and its effect is not DONE", job->id);
}

/* Without its state it never began: it wants one, and something kept it from that. */
static bool has_no_state(const struct sim_job *job, bool reason)
{
	return job->mode != GYRE_MODE_DEFAULT && !job->begun && reason;
}

static void check_panic(const struct sim_job *job)
{
	bool in_create = has_no_state(job, sim_states.panicked);
	char text[40];

	snprintf(text, sizeof(text), "job %u has had enough", job->id);
	if (in_create)
		snprintf(text, sizeof(text), "no state can be had");
	if (!job->panicked && !in_create)
		sim_fail("job %u: RESPONSE_LOST, and it has not panicked", job->id);
	if (!strstr(gyre_last_panic(), text) && !sim_call_has_failed())
		sim_fail("job %u has panicked, and what is told of it is: %s", job->id,
			 gyre_last_panic());
}

static void check_job_excuse(const struct sim_job *job, enum gyre_status status)
{
	switch (status) {
	case GYRE_TIMED_OUT:
		sim_reach(SIM_JOB_TIMED_OUT);
		if (!is_over_time(job))
			sim_fail("job %u: TIMED_OUT, and its time is not over", job->id);
		if (job->begun && job->over_ns < gyre__deadline(job->start_ns, job->timeout_ns))
			sim_fail("job %u: TIMED_OUT, and it had ended before", job->id);
		break;
	case GYRE_CANCELLED:
		sim_reach(SIM_JOB_CANCELLED);
		if (!job_may_be_cancelled(job))
			sim_fail("job %u: CANCELLED, and nobody has", job->id);
		break;
	case GYRE_WORKER_DEAD:
		sim_reach(SIM_JOB_DEAD);
		if (!sim_death_happened())
			sim_fail("job %u: WORKER_DEAD, and none is", job->id);
		break;
	case GYRE_CLOSED:
		if (!sim_is_closed() || job->begun)
			sim_fail("job %u: CLOSED without a reason", job->id);
		break;
	case GYRE_WOULD_DEADLOCK:
		if (!has_no_state(job, job->mode != GYRE_MODE_FRESH &&
				      (job->waiter || job->awaited)))
			sim_fail("job %u: WOULD_DEADLOCK, and nobody waits for it", job->id);
		break;
	case GYRE_SYSTEM:
		if (!has_no_state(job, sim_states.failed))
			sim_fail("job %u: SYSTEM, and no create has failed", job->id);
		break;
	case GYRE_NO_MEMORY:
		if (!sim_fault_happened() || job->begun)
			sim_fail("job %u: %s without a reason", job->id, gyre_status_name(status));
		break;
	case GYRE_RESPONSE_LOST:
		check_panic(job);
		break;
	default:
		sim_fail("job %u: no such answer: %s", job->id, gyre_status_name(status));
	}
}

void sim_job_answered(struct sim_job *job, enum gyre_status status, enum gyre_effect effect,
		      int result, uint64_t since_ns)
{
	sim_reach(SIM_JOBS);
	sim_note((uint64_t)job->id << 32 | (uint64_t)status << 8 | (uint64_t)effect);
	sim_trace("job %u is answered: %s, %d", job->id, gyre_status_name(status), result);
	if (job->answered)
		sim_fail("job %u is answered twice", job->id);
	job->answered = true;
	if (job->live)
		sim_fail("job %u is answered (%s) while %u of its tasks live", job->id,
			 gyre_status_name(status), job->live);
	if (job->begun > 1)
		sim_fail("job %u was run %u times", job->id, job->begun);
	if ((effect == GYRE_EFFECT_NONE) != !job->begun)
		sim_fail("job %u: effect NONE is %s", job->id, job->begun ? "a lie" : "not told");
	if (!job->begun)
		sim_reach(SIM_JOB_NOT_BEGUN);
	if (job->panicked && status != GYRE_RESPONSE_LOST)
		sim_fail("job %u has panicked, and is answered %s", job->id,
			 gyre_status_name(status));
	if (job->begun)
		sim_deadline_job(job->id, job->ended_ns > since_ns ? job->ended_ns : since_ns);
	if (status == GYRE_OK)
		check_job_ok(job, effect, result);
	else
		check_job_excuse(job, status);
}

static void check_job_end(const struct sim_job *job)
{
	if (job->live)
		sim_fail("job %u: %u of its tasks live after the end", job->id, job->live);
	if (job->begun > 1)
		sim_fail("job %u was run %u times", job->id, job->begun);
	if (job->taken && !job->begun &&
	    !has_no_state(job, sim_states.failed || sim_states.panicked) &&
	    !job_may_be_cancelled(job) && !is_over_time(job) && !sim_fault_happened())
		sim_fail("job %u was taken and has never run", job->id);
}

void sim_jobs_end(void)
{
	unsigned i;

	for (i = 0; i < all.job_count; i++)
		check_job_end(&all.jobs[i]);
	for (i = 0; i < all.task_count; i++)
		if (all.tasks[i].begun && !all.tasks[i].over)
			sim_fail("task %u has never ended", i + 1);
}
