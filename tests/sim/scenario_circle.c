/* SPDX-License-Identifier: MIT */
/*
 * Tasks that wait for each other's ends however they like: by joins, for jobs, on
 * helpers, by closing or freeing runtimes. Nobody waits for ever; and what is
 * refused is a circle, by what each has said of itself before it waited.
 */
#include "scenario.h"

#define RUNTIMES_MAX	3
#define JOBS_MAX	8
#define TASKS_MAX	32
#define DEPTH_MAX	2

enum waits { FOR_NOTHING = 0, FOR_JOB, FOR_TASK, FOR_CHILDREN, FOR_RUNTIME };

struct job;

struct wait {
	enum waits kind;
	bool on_helper, owns;		/* owns what it waits for */
	const struct job *job;
	const struct task *task;
	unsigned runtime;
	uint64_t until_ns;
};

struct task {
	struct job *job;
	struct task *parent;
	struct gyre_task *handle;	/* NULL: has none, or somebody joins it */
	bool on_helper;
	uint64_t over_ns;
	struct wait now, before;	/* what it waits for, and has waited for last */
	unsigned mark;
};

struct job {
	struct gyre_job *handle;	/* NULL: somebody waits for it, or has */
	struct task *first;
	unsigned runtime, depth;
};

static struct {
	struct gyre *rts[RUNTIMES_MAX];
	unsigned count, workers;
	bool closes, frees;		/* by tasks */
	bool claimed[RUNTIMES_MAX];	/* frees: somebody uses it who is no task of it */
	bool settled[RUNTIMES_MAX], freed[RUNTIMES_MAX];
	struct job jobs[JOBS_MAX];
	struct task tasks[TASKS_MAX];
	unsigned jobs_used, tasks_used, marks;
	uint64_t since_ns;		/* what is asked about began then */
} play;

/* -------------------------------------------------------------- the oracle -- */

static bool task_leads_to(struct task *from, const struct task *to);

/* What is over by now may not have been when the wait was refused. */
static bool lives(const struct task *task)
{
	return task->over_ns >= play.since_ns;
}

static bool is_on(const struct wait *wait)
{
	return wait->kind != FOR_NOTHING && wait->until_ns >= play.since_ns;
}

static bool holds(const struct task *task, unsigned depth);

/* Does a cancel, which goes down to what is waited for, leave somebody waiting there? */
static bool wait_holds(const struct task *task, const struct wait *wait, unsigned depth)
{
	unsigned i;

	if (!is_on(wait))
		return false;
	if (wait->on_helper || wait->kind == FOR_RUNTIME)
		return true;
	if (wait->kind == FOR_TASK)
		return holds(wait->task, depth + 1);
	for (i = 0; i < play.tasks_used; i++) {
		const struct task *other = &play.tasks[i];

		if (lives(other) && ((wait->kind == FOR_CHILDREN && other->parent == task) ||
				     (wait->owns && other->job == wait->job)) &&
		    holds(other, depth + 1))
			return true;
	}
	return false;
}

static bool holds(const struct task *task, unsigned depth)
{
	return depth < TASKS_MAX && (wait_holds(task, &task->now, depth) ||
				     wait_holds(task, &task->before, depth));
}

/* One of those that live and match leads there. NULL and RUNTIMES_MAX match all. */
static bool any_leads_to(const struct job *job, const struct task *parent, unsigned runtime,
			 const struct task *to)
{
	unsigned i;

	for (i = 0; i < play.tasks_used; i++) {
		struct task *task = &play.tasks[i];

		if (lives(task) && (!parent || task->parent == parent) &&
		    (runtime == RUNTIMES_MAX || task->job->runtime == runtime) &&
		    (!job || (task->job == job && (task == job->first || holds(task, 0)))) &&
		    task_leads_to(task, to))
			return true;
	}
	return false;
}

static bool wait_leads_to(const struct task *from, const struct wait *wait, const struct task *to)
{
	if (!is_on(wait))
		return false;
	switch (wait->kind) {
	case FOR_JOB:
		return any_leads_to(wait->job, NULL, RUNTIMES_MAX, to);
	case FOR_TASK:
		return task_leads_to((struct task *)(uintptr_t)wait->task, to);
	case FOR_CHILDREN:
		return any_leads_to(NULL, from, RUNTIMES_MAX, to);
	default:
		return any_leads_to(NULL, NULL, wait->runtime, to);
	}
}

static bool task_leads_to(struct task *from, const struct task *to)
{
	if (from == to)
		return true;
	if (from->mark == play.marks)
		return false;
	from->mark = play.marks;
	return wait_leads_to(from, &from->now, to) || wait_leads_to(from, &from->before, to);
}

static void begins_to_wait(struct task *task, struct wait wait)
{
	wait.on_helper = task->on_helper;
	wait.until_ns = UINT64_MAX;
	task->before = task->now;
	task->now = wait;
}

/* since_ns: when it began to. */
static void has_waited(struct task *task, enum gyre_status status, uint64_t since_ns)
{
	const struct wait *wait = &task->now;

	task->now.until_ns = sim_now_ns();
	if (status != GYRE_WOULD_DEADLOCK)
		return;
	play.marks++;
	play.since_ns = since_ns;
	sim_reach(SIM_CIRCLE_REFUSED);
	if (!(wait->kind == FOR_JOB && wait->job == task->job) && !wait_leads_to(task, wait, task))
		sim_fail("a wait is refused that is in no circle: %s", gyre_last_error());
	/* It has not waited at all. */
	task->now.kind = FOR_NOTHING;
}

/* ---------------------------------------------------------------- waits -- */

static int run_task(void *arg);

static unsigned number_of(const struct task *task)
{
	return (unsigned)(task - play.tasks);
}

static struct task *task_new(struct job *job, struct task *parent)
{
	struct task *task = play.tasks_used < TASKS_MAX ? &play.tasks[play.tasks_used++] : NULL;

	if (task) {
		task->job = job;
		task->parent = parent;
		task->over_ns = UINT64_MAX;
	}
	return task;
}

static struct job *job_new(unsigned runtime, unsigned depth)
{
	struct job *job = play.jobs_used < JOBS_MAX ? &play.jobs[play.jobs_used] : NULL;

	if (!job)
		return NULL;
	job->first = task_new(job, NULL);
	if (!job->first)
		return NULL;
	play.jobs_used++;
	job->runtime = runtime;
	job->depth = depth;
	return job;
}

static struct gyre_job_options some_worker(void)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;

	options.worker = sim_chance(700) ? GYRE_WORKER(sim_random(play.workers)) : 0;
	return options;
}

/* Takes the handle for so long as it waits. */
static enum gyre_status wait_for(struct task *task, struct job *job, uint64_t timeout_ns)
{
	struct gyre_job *handle = job->handle;
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;

	sim_trace("task %u of job %u waits for job %u%s", number_of(task),
		  number_of(task->job->first), number_of(job->first),
		  task->on_helper ? " on a helper" : "");
	job->handle = NULL;
	if (timeout_ns == GYRE_FOREVER)
		begins_to_wait(task, (struct wait){ .kind = FOR_JOB, .job = job });
	status = gyre_job_wait(handle, timeout_ns, NULL);
	if (timeout_ns == GYRE_FOREVER)
		has_waited(task, status, start_ns);
	else if (status == GYRE_WOULD_DEADLOCK)
		sim_fail("a wait that ends by itself is refused");
	if (status == GYRE_BUSY || status == GYRE_WOULD_DEADLOCK)
		job->handle = handle;
	return status;
}

static void task_waits_for_job(struct task *task)
{
	struct job *job = &play.jobs[sim_random(play.jobs_used)];
	bool briefly = sim_chance(200);
	enum gyre_status status;

	if (!job->handle)
		return;
	status = wait_for(task, job, briefly ? sim_random(SIM_MS) : GYRE_FOREVER);
	if (status == GYRE_BUSY && !briefly && !gyre_cancelled() && !sim_fault_happened())
		sim_fail("gyre_job_wait: %s", gyre_last_error());
}

static int wait_on_helper(void *arg)
{
	struct task *task = arg;
	struct job *job = &play.jobs[sim_random(play.jobs_used)];

	if (job->handle)
		wait_for(task, job, GYRE_FOREVER);
	return 0;
}

static void close_one(struct task *task)
{
	unsigned runtime = (unsigned)sim_random(play.count);
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;

	if (play.frees && play.claimed[runtime])
		return;
	sim_excuse_close();
	sim_trace("task %u of runtime %u closes runtime %u%s", number_of(task), task->job->runtime,
		  runtime, task->on_helper ? " on a helper" : "");
	begins_to_wait(task, (struct wait){ .kind = FOR_RUNTIME, .runtime = runtime });
	if (play.frees && (task->on_helper || runtime != task->job->runtime)) {
		play.claimed[runtime] = true;
		gyre_free(play.rts[runtime]);
		status = gyre_last_status();
		play.freed[runtime] = status != GYRE_WOULD_DEADLOCK;
		play.settled[runtime] = true;
	} else {
		status = gyre_close(play.rts[runtime]);
	}
	has_waited(task, status, start_ns);
}

static int close_on_helper(void *task)
{
	close_one(task);
	return 0;
}

static void task_offloads(struct task *task, gyre_task_fn *fn)
{
	enum gyre_status status;

	task->on_helper = true;
	status = gyre_offload(NULL, fn, task, NULL);
	task->on_helper = false;
	sim_check_told(status);
}

static void task_blocks_on(struct task *task)
{
	struct gyre_job_options options = some_worker();
	unsigned runtime = play.closes ? task->job->runtime : (unsigned)sim_random(play.count);
	unsigned depth = task->job->depth + 1;
	struct job *job = depth <= DEPTH_MAX ? job_new(runtime, depth) : NULL;
	enum gyre_status status;

	if (!job)
		return;
	sim_trace("task %u of job %u runs job %u", number_of(task), number_of(task->job->first),
		  number_of(job->first));
	begins_to_wait(task, (struct wait){ .kind = FOR_JOB, .job = job, .owns = true });
	status = gyre_block_on(play.rts[runtime], run_task, job->first, &options, NULL);
	if (status == GYRE_WOULD_DEADLOCK)
		sim_fail("gyre_block_on: %s", gyre_last_error());
	has_waited(task, status, 0);
	job->first->over_ns = sim_now_ns();
}

static void task_starts(struct task *task)
{
	struct task *child = task_new(task->job, task);

	if (child && gyre_go(run_task, child, &child->handle) != GYRE_OK)
		child->over_ns = sim_now_ns();
}

static void task_joins(struct task *task)
{
	struct task *other = &play.tasks[sim_random(play.tasks_used)];
	struct gyre_task *handle = other->handle;
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;

	if (!handle || other->job != task->job)
		return;
	sim_trace("task %u of job %u joins task %u", number_of(task), number_of(task->job->first),
		  number_of(other));
	other->handle = NULL;
	begins_to_wait(task, (struct wait){ .kind = FOR_TASK, .task = other });
	status = gyre_join(handle, NULL);
	has_waited(task, status, start_ns);
	if (status == GYRE_WOULD_DEADLOCK)
		other->handle = handle;
}

static void task_joins_all(struct task *task)
{
	uint64_t start_ns = sim_now_ns();
	unsigned i;

	sim_trace("task %u of job %u joins all", number_of(task), number_of(task->job->first));
	begins_to_wait(task, (struct wait){ .kind = FOR_CHILDREN });
	has_waited(task, gyre_join_all(), start_ns);
	for (i = 0; i < play.tasks_used; i++)
		if (play.tasks[i].parent == task && play.tasks[i].over_ns != UINT64_MAX)
			play.tasks[i].handle = NULL;
}

static void one_step(struct task *task)
{
	switch (sim_random(play.closes ? 10 : 8)) {
	case 0:
		gyre_sleep(sim_random(50 * SIM_US));
		break;
	case 1:
		task_starts(task);
		break;
	case 2:
		task_joins(task);
		break;
	case 3:
		task_joins_all(task);
		break;
	case 4:
		task_blocks_on(task);
		break;
	case 5:
		task_offloads(task, wait_on_helper);
		break;
	case 6:
	case 7:
		task_waits_for_job(task);
		break;
	case 8:
		close_one(task);
		break;
	default:
		task_offloads(task, close_on_helper);
	}
}

static int run_task(void *arg)
{
	struct task *task = arg;
	unsigned steps = 1 + (unsigned)sim_random(sim_many(3, 6)), i;

	for (i = 0; i < steps && !gyre_cancelled(); i++)
		one_step(task);
	task->over_ns = sim_now_ns();
	return 0;
}

/* ----------------------------------------------------------------- main -- */

static void spawn_all(unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		struct gyre_job_options options = some_worker();
		struct job *job = job_new(i % play.count, 0);
		struct gyre_job *handle;
		enum gyre_status status;

		if (!job)
			return;
		status = gyre_spawn(play.rts[job->runtime], run_task, job->first, &options,
				    &handle);
		if (status != GYRE_OK)
			job->first->over_ns = sim_now_ns();
		else
			job->handle = handle;
	}
}

static void end_all(void)
{
	unsigned i;

	for (i = 0; i < play.count; i++) {
		if (play.claimed[i]) {
			while (!play.settled[i])
				sim_sleep(20 * SIM_US);
			if (play.freed[i])
				continue;
		}
		play.claimed[i] = true;
		sim_excuse_close();
		sim_trace("main closes runtime %u", i);
		if (gyre_close(play.rts[i]) != GYRE_OK && !sim_fault_happened())
			sim_fail("gyre_close: %s", gyre_last_error());
	}
}

static void let_go(void)
{
	unsigned i;

	for (i = 0; i < play.jobs_used; i++)
		if (play.jobs[i].handle)
			gyre_job_detach(play.jobs[i].handle);
	for (i = 0; i < play.count; i++)
		if (!play.freed[i])
			gyre_free(play.rts[i]);
}

static void play_circles(bool closes)
{
	unsigned count = 1 + (unsigned)sim_random(RUNTIMES_MAX), i;
	uint64_t drain_ns = sim_chance(600) ? GYRE_FOREVER : sim_random(SIM_MS);

	memset(&play, 0, sizeof(play));
	play.closes = closes;
	play.frees = closes && sim_chance(500);
	play.workers = 1 + (unsigned)sim_random(2);
	for (i = 0; i < count; i++)
		if (sim_open_for_jobs(play.workers, drain_ns, &play.rts[play.count]))
			play.count++;
	memset(play.claimed, true, sizeof(play.claimed));
	if (play.count)
		spawn_all(2 + (unsigned)sim_random(sim_many(2, 4)));
	memset(play.claimed, false, sizeof(play.claimed));
	end_all();
	let_go();
}

void scenario_circles(void *arg)
{
	(void)arg;
	play_circles(false);
}

void scenario_circles_close(void *arg)
{
	(void)arg;
	play_circles(true);
}
