/* SPDX-License-Identifier: MIT */
/* Jobs: trees of tasks that sleep, call, join, cancel and panic; and threads that wait for them. */
#include "scenario.h"

#include "deadline.h"
#include "job.h"

#define CALLERS_MAX	12
#define DEPTH_MAX	3	/* jobs of jobs of jobs */
#define ARG_BYTES	32

static struct {
	struct gyre *rt, *other;	/* other: of jobs that visit; NULL: there is none */
	struct sim_thread *threads[CALLERS_MAX];
	unsigned count, workers, rounds;
	int pipe[2], file;
	bool patient;			/* somebody closes: what never ends by itself is welcome */
	bool stubborn;			/* some tasks do not stop when they are told */
	bool closes_inside;		/* a task may be the one who closes */
	unsigned panics;		/* in 1000 steps */
	/* No job sees what another has left: not so where there are two runtimes. */
	bool zero;
} play;

static int run_task(void *arg);
static void run_job(struct sim_job *job, struct sim_task *waiter);
static void spawn_job(struct sim_job *job, struct sim_task *waiter);

static void begin(bool patient)
{
	memset(&play, 0, sizeof(play));
	sim_jobs_begin();
	play.count = sim_many(1 + (unsigned)sim_random(3),
			      4 + (unsigned)sim_random(CALLERS_MAX - 3));
	play.workers = 1 + (unsigned)sim_random(sim_many(2, 4));
	play.rounds = sim_many(2, 5);
	play.patient = patient;
	play.panics = sim_chance(400) ? 30 : 0;
	sim_scenario_pipe(play.pipe);
	play.file = sim_scenario_file("the contents of a file, forty bytes long", 40);
}

static void end(void)
{
	sim_jobs_end();
	sim_scenario_close(play.pipe[0]);
	sim_scenario_close(play.pipe[1]);
	sim_scenario_close(play.file);
}

static uint64_t some_time(void)
{
	return 1 + sim_random(sim_chance(500) ? 10 * SIM_US :
			      sim_chance(800) ? 100 * SIM_US : SIM_MS);
}

/* ------------------------------------------------- what a task may do -- */

static void task_sleeps(struct sim_task *task)
{
	/*
	 * What a defer waits for, only the end of its own runtime's drain ends: not that of the
	 * other's.
	 */
	bool endless = task->job->endless && !(task->shielded && play.other);
	uint64_t ns = endless && sim_chance(200) ? GYRE_FOREVER : some_time();
	enum gyre_status status;

	sim_task_waits(task);
	status = gyre_sleep(ns);
	sim_check_told(status);
	sim_task_goes_on(task);
	sim_task_has_slept(task, ns, status);
}

static void task_yields(struct sim_task *task)
{
	sim_task_waits(task);
	gyre_yield();
	sim_task_goes_on(task);
}

/* Some op; true: it might never end by itself. */
static bool roll_op(struct sim_task *task, unsigned i)
{
	struct sim_call *call = &task->calls[i];
	uint32_t len = 1 + (uint32_t)sim_random(sizeof(task->bytes[i]));

	switch (sim_random(7)) {
	case 0:
	case 1:
		sim_call_init(call, IORING_OP_NOP, -1, NULL, 0, 0);
		return false;
	case 2:
		sim_call_init(call, IORING_OP_READ, play.file, task->bytes[i], len, sim_random(40));
		return false;
	case 3:
		sim_call_init(call, IORING_OP_WRITE, play.pipe[1], task->bytes[i], len, 0);
		return true;
	case 4:
		sim_call_timeout(call, &task->ts[i], some_time());
		return false;
	default:
		sim_call_init(call, IORING_OP_READ, play.pipe[0], task->bytes[i], len, 0);
		return true;
	}
}

/* On its own worker, on another one, or on another runtime's. */
static void task_calls(struct sim_task *task)
{
	unsigned count = 1 + (unsigned)sim_random(SIM_TASK_OPS), i;
	uint32_t worker = sim_chance(400) ? GYRE_WORKER(sim_random(play.workers)) : 0;
	struct gyre *rt = play.other && sim_chance(500) ? play.other : play.rt;
	bool one = !worker && sim_chance(300);

	memset(task->ops, 0, sizeof(task->ops));
	for (i = 0; i < count; i++) {
		bool never = roll_op(task, i);

		if ((never && !(task->job->endless && sim_chance(300))) || sim_chance(200))
			task->ops[i].timeout_ns = some_time();
		task->ops[i].worker = worker;
		one &= !task->ops[i].timeout_ns;
		task->calls[i].bound = true;
	}
	if (rt != play.rt)
		task->ops[0].worker = 0, task->ops[SIM_TASK_OPS - 1].worker = 0;
	sim_task_waits(task);
	if (one)
		sim_call_one(rt, &task->calls[0]);
	else
		sim_call_many(rt, task->calls, task->ops, count);
	sim_task_goes_on(task);
}

static struct sim_task *task_starts(struct sim_task *task)
{
	struct sim_task *child = sim_task_new(task->job, task);
	enum gyre_status status;

	if (!child)
		return NULL;
	status = gyre_go(run_task, child, sim_chance(700) ? &child->handle : NULL);
	sim_check_told(status);
	if (status != GYRE_OK) {
		if (status != GYRE_NO_MEMORY || !sim_fault_happened())
			sim_fail("gyre_go: %s", gyre_last_error());
		child->handle = NULL;
		return NULL;
	}
	task->job->live++;
	return child->handle ? child : NULL;
}

static void task_joins(struct sim_task *task, struct sim_task *child)
{
	enum gyre_status status;
	int result = -1;

	if (!child || !child->handle)
		return;
	child->joiner = task;
	sim_task_waits(task);
	status = gyre_join(child->handle, &result);
	sim_check_told(status);
	child->handle = NULL;
	sim_task_joined(child, status, result);
	sim_task_goes_on(task);
}

/* What it has started has ended after that, and cannot be joined any more. */
static void task_joins_all(struct sim_task *task, struct sim_task **child)
{
	enum gyre_status status;

	task->joins_all = true;
	sim_task_waits(task);
	status = gyre_join_all();
	sim_check_told(status);
	if (status != GYRE_OK && !(status == GYRE_CANCELLED && gyre_cancelled()))
		sim_fail("gyre_join_all: %s", gyre_last_error());
	task->joins_all = false;
	if (*child && !(*child)->over)
		sim_fail("all were joined, and task %u goes on", (*child)->id);
	if (*child)
		(*child)->handle = NULL;
	*child = NULL;
	sim_task_goes_on(task);
}

static void task_cancels(struct sim_task *child)
{
	if (!child || !child->handle)
		return;
	sim_trace("cancels task %u", child->id);
	child->cancel_asked = true;
	gyre_task_cancel(child->handle);
}

static void wait_in_defer(void *arg)
{
	struct sim_task *task = arg;

	task->shielded = true;
	task_sleeps(task);
}

static void task_defers(struct sim_task *task)
{
	if (gyre_defer(wait_in_defer, task) != GYRE_OK && !sim_fault_happened())
		sim_fail("gyre_defer: %s", gyre_last_error());
}

/* Memory of the job's own: where that was asked for, nobody else's bytes are in it. */
static void task_allocates(void)
{
	size_t size = 1 + sim_random(sim_chance(900) ? 200 : 20000), i;
	char *ptr = gyre_alloc(size);

	for (i = 0; ptr && play.zero && i < size; i++)
		if (ptr[i])
			sim_fail("a job finds another job's bytes in its memory");
	if (ptr)
		memset(ptr, 0x5c, size);
	else if (!sim_fault_happened())
		sim_fail("gyre_alloc: %s", gyre_last_error());
}

static void task_closes(void)
{
	enum gyre_status status;

	sim_excuse_close();
	sim_trace("closes its own runtime");
	status = gyre_close(play.rt);
	sim_check_told(status);
	if (status != GYRE_WOULD_DEADLOCK)
		sim_fail("gyre_close in a task: %s", gyre_status_name(status));
}

static void task_runs_job(struct sim_task *task)
{
	struct sim_job *job = task->job->depth < DEPTH_MAX ?
			      sim_job_new(task->job->depth + 1) : NULL;

	if (!job)
		return;
	sim_task_waits(task);
	if (sim_chance(500))
		run_job(job, task);
	else
		spawn_job(job, task);
	sim_task_goes_on(task);
}

static void one_step(struct sim_task *task, struct sim_task **child)
{
	if (sim_chance(play.panics))
		sim_task_panics(task);
	if (play.closes_inside && sim_chance(20))
		task_closes();
	switch (sim_random(12)) {
	case 0:
	case 1:
		task_sleeps(task);
		break;
	case 2:
		task_yields(task);
		break;
	case 3:
	case 4:
		task_calls(task);
		break;
	case 5:
	case 6:
		*child = task_starts(task);
		break;
	case 7:
		if (sim_chance(700))
			task_joins(task, *child);
		else
			task_joins_all(task, child);
		break;
	case 8:
		task_cancels(*child);
		break;
	case 9:
		task_runs_job(task);
		break;
	case 10:
		task_allocates();
		break;
	default:
		if (sim_chance(300))
			task_defers(task);
		else
			task_calls(task);
	}
}

/* It works between its waits, and takes no notice of anything: so it is dropped at one of them. */
static void be_stubborn(struct sim_task *task)
{
	uint64_t ns;
	unsigned i;

	for (i = 0; i < 60 && !task->over; i++) {
		ns = sim_random(8 * SIM_MS);
		sim_pass_ns(ns);
		sim_deadline_burnt(ns);
		if (sim_chance(500))
			task_yields(task);
		else
			task_sleeps(task);
	}
}

static int run_task(void *arg)
{
	struct sim_task *task = arg, *child = NULL;
	unsigned steps = (unsigned)sim_random(sim_many(5, 8)), i;

	if (!sim_task_begins(task))
		return task->result;
	if (play.stubborn && sim_chance(500))
		be_stubborn(task);
	/* Some go on for a while: all that they ask for then is refused. */
	for (i = 0; i < steps && (!sim_task_is_cancelled(task) || sim_chance(300)); i++)
		one_step(task, &child);
	return sim_task_returns(task);
}

/* -------------------------------------------- what is done with a job -- */

struct job_arg {
	struct sim_task *task;
	char bytes[ARG_BYTES];
};

static int run_copied(void *arg)
{
	struct job_arg *copy = arg;
	unsigned i;

	for (i = 0; i < ARG_BYTES; i++)
		if (copy->bytes[i] != (char)(copy->task->id ^ i))
			sim_fail("job %u has not got its argument", copy->task->job->id);
	return run_task(copy->task);
}

static void fill_arg(struct job_arg *arg, struct sim_task *task)
{
	unsigned i;

	arg->task = task;
	for (i = 0; i < ARG_BYTES; i++)
		arg->bytes[i] = (char)(task->id ^ i);
}

static struct gyre_job_options roll_options(struct sim_job *job, bool copied)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;

	options.name = sim_chance(300) ? "a job" : NULL;
	options.worker = sim_chance(500) ? GYRE_WORKER(sim_random(play.workers)) : 0;
	options.timeout_ns = sim_chance(300) ? some_time() : 0;
	options.arg_size = copied ? sizeof(struct job_arg) : 0;
	job->timeout_ns = options.timeout_ns;
	job->start_ns = sim_now_ns();
	job->endless = play.patient && sim_chance(300);
	return options;
}

static struct gyre *roll_runtime(void)
{
	return play.other && sim_chance(400) ? play.other : play.rt;
}

/* waiter: in whose task; NULL: in a thread. */
static void run_job(struct sim_job *job, struct sim_task *waiter)
{
	bool copied = sim_chance(400);
	struct gyre_job_options options = roll_options(job, copied);
	uint64_t start_ns = sim_now_ns();
	struct gyre *rt = roll_runtime();
	enum gyre_status status;
	struct job_arg arg;
	int result = -1;

	fill_arg(&arg, job->first);
	if (rt != play.rt)
		options.worker = 0;
	job->waiter = waiter;
	job->endless &= !waiter || waiter->job->endless;
	sim_trace("gyre_block_on of job %u, time-out %llu ns", job->id,
		  (unsigned long long)job->timeout_ns);
	status = gyre_block_on(rt, copied ? run_copied : run_task, copied ? (void *)&arg :
			       (void *)job->first, &options, &result);
	sim_check_told(status);
	sim_job_answered(job, status, gyre_last_effect(), result, start_ns);
}

/* True: it has ended, and its handle is gone. */
static bool wait_for(struct sim_job *job, uint64_t timeout_ns)
{
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;
	int result = -1;

	sim_trace("waits for job %u, %llu ns at most", job->id, (unsigned long long)timeout_ns);
	status = gyre_job_wait(job->handle, timeout_ns, &result);
	if (status == GYRE_BUSY && !sim_pointer_get())
		return false;	/* no memory to note it in */
	sim_check_told(status);
	if (status != GYRE_BUSY) {
		job->handle = NULL;
		sim_job_answered(job, status, gyre_last_effect(), result, start_ns);
		return true;
	}
	sim_reach(SIM_JOB_BUSY);
	sim_trace("job %u goes on", job->id);
	if (timeout_ns == GYRE_FOREVER && !gyre_cancelled() && !sim_fault_happened())
		sim_fail("job %u: nobody waits for it any more, and it has not ended", job->id);
	if (timeout_ns != GYRE_FOREVER && sim_now_ns() < start_ns + timeout_ns &&
	    !gyre_cancelled() && !sim_fault_happened())
		sim_fail("job %u: the wait for it is over too early", job->id);
	return false;
}

static void detach(struct sim_job *job)
{
	sim_trace("detaches job %u", job->id);
	gyre_job_detach(job->handle);
	job->handle = NULL;
}

/* A task that is dropped while it waits does not come back to give the handle up. */
static void detach_deferred(void *arg)
{
	struct sim_job *job = arg;

	if (job->handle)
		detach(job);
}

/* A while at a time, with a cancel in between. */
static void wait_patiently(struct sim_job *job)
{
	unsigned i, times = (unsigned)sim_random(3);

	for (i = 0; i < times; i++) {
		if (wait_for(job, sim_chance(200) ? 0 : some_time()))
			return;
		if (sim_chance(200))
			sim_job_cancel(job);
	}
	if (sim_chance(150)) {
		detach(job);
		return;
	}
	if (job->endless && sim_chance(700))
		sim_job_cancel(job);
	while (!wait_for(job, GYRE_FOREVER))
		if (gyre_cancelled() || sim_call_has_failed()) {
			detach(job);
			return;
		}
}

static void spawn_job(struct sim_job *job, struct sim_task *waiter)
{
	bool copied = sim_chance(400), handled = sim_chance(850);
	struct gyre_job_options options = roll_options(job, copied);
	struct gyre *rt = roll_runtime();
	enum gyre_status status;
	struct job_arg arg;

	fill_arg(&arg, job->first);
	if (rt != play.rt)
		options.worker = 0;
	job->endless &= !waiter || waiter->job->endless;
	sim_trace("gyre_spawn of job %u, time-out %llu ns", job->id,
		  (unsigned long long)job->timeout_ns);
	status = gyre_spawn(rt, copied ? run_copied : run_task, copied ? (void *)&arg :
			    (void *)job->first, &options, handled ? &job->handle : NULL);
	sim_check_told(status);
	if (status != GYRE_OK) {
		job->waiter = waiter;	/* if it was cancelled, so is this */
		sim_job_answered(job, status, gyre_last_effect(), -1, sim_now_ns());
		return;
	}
	job->taken = true;
	if (!handled)
		return;
	if (waiter && gyre_defer(detach_deferred, job) != GYRE_OK) {
		detach(job);
		return;
	}
	if (sim_chance(300))
		sim_job_cancel(job);
	if (sim_chance(150))
		detach(job);
	else
		wait_patiently(job);
}

/* ------------------------------------------------------------ callers -- */

static void caller_main(void *arg)
{
	struct sim_job *job;
	unsigned i;

	(void)arg;
	for (i = 0; i < play.rounds; i++) {
		job = sim_job_new(0);
		if (!job)
			return;
		if (sim_chance(500))
			run_job(job, NULL);
		else
			spawn_job(job, NULL);
	}
}

static void start_callers(void)
{
	unsigned i;

	for (i = 0; i < play.count; i++) {
		char name[16] = "caller-a";

		name[7] = (char)('a' + i);
		play.threads[i] = sim_spawn(name, caller_main, NULL);
	}
}

static void join_callers(void)
{
	unsigned i;

	for (i = 0; i < play.count; i++)
		sim_join(play.threads[i]);
}

static void meddle(void)
{
	unsigned i, times = (unsigned)sim_random(6);

	for (i = 0; i < times; i++)
		if (sim_chance(500))
			sim_sleep(some_time());
		else
			sim_scenario_write(play.pipe[1], "some bytes in the pipe",
					   1 + sim_random(22));
}

static void play_jobs(uint64_t drain_ns)
{
	if (sim_open_for_jobs(play.workers, drain_ns, &play.rt)) {
		play.zero = sim_arenas_are_zero;
		start_callers();
		meddle();
		if (!play.patient)
			join_callers();
		sim_close_runtime(play.rt);
		if (play.patient)
			join_callers();
		gyre_free(play.rt);
	}
	end();
}

void scenario_jobs(void *arg)
{
	(void)arg;
	begin(false);
	play_jobs(0);
}

void scenario_jobs_close(void *arg)
{
	(void)arg;
	begin(true);
	play.closes_inside = sim_chance(300);
	play_jobs(1 + sim_random(sim_chance(500) ? 50 * SIM_US : 2 * SIM_MS));
}

void scenario_jobs_death(void *arg)
{
	(void)arg;
	begin(sim_chance(500));
	sim_faults.fatal *= 3;		/* not all jobs live on the one that dies */
	sim_faults.ebadr *= 3;
	play_jobs(1 + sim_random(2 * SIM_MS));
}

void scenario_jobs_stubborn(void *arg)
{
	(void)arg;
	begin(true);
	play.stubborn = true;
	play.count = 1;
	play_jobs(1 + sim_random(2 * SIM_MS));
}

/* Two runtimes: jobs of each call, and start jobs, on the other. */
void scenario_jobs_apart(void *arg)
{
	uint64_t drain_ns = 1 + sim_random(2 * SIM_MS);

	(void)arg;
	begin(true);
	if (sim_open_for_jobs(play.workers, drain_ns, &play.rt)) {
		if (!sim_open_for_jobs(play.workers, drain_ns, &play.other))
			play.other = NULL;
		/* While both are open, calls do not say whose drain they have to do with. */
		sim_deadline_opened(GYRE_FOREVER);
		start_callers();
		meddle();
		sim_excuse_close();
		gyre_close(play.other);
		meddle();
		/* All that is left has to do with this one's. */
		sim_deadline_opened(drain_ns);
		sim_deadline_closing();
		gyre_close(play.rt);
		join_callers();
		gyre_free(play.other);
		gyre_free(play.rt);
	}
	end();
}
