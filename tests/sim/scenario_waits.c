/* SPDX-License-Identifier: MIT */
/* Several who wait for one job, in threads and in tasks. */
#include "scenario.h"

#include "failures.h"
#include "job.h"
#include "ring/sys_fault.h"

#define WAITERS_MAX	6

static uint64_t some_time(void)
{
	return 1 + sim_random(sim_chance(500) ? 10 * SIM_US : 100 * SIM_US);
}

/*
 * A job that ends when a gate is opened, which the last of those does who have
 * only looked in: until then a wait for it cannot be answered, and after it only
 * the owner of the handle waits.
 */
static struct {
	struct gyre *rt;
	struct sim_job *job;
	unsigned workers;
	unsigned others;	/* who may still look in */
	unsigned inside, entered;
	bool ready, open;
} gate;

static int wait_for_gate(void *arg)
{
	struct sim_task *task = arg;

	if (!sim_task_begins(task))
		return task->result;
	gate.ready = true;
	while (!gate.open && !sim_task_is_cancelled(task)) {
		uint64_t ns = 1 + sim_random(40 * SIM_US);

		sim_task_waits(task);
		sim_task_has_slept(task, ns, gyre_sleep(ns));
		sim_task_goes_on(task);
	}
	return sim_task_returns(task);
}

/* In a thread or in a task. True: it has ended, and the handle is gone. */
static bool look_in(uint64_t timeout_ns)
{
	uint64_t start_ns = sim_now_ns();
	unsigned before = gate.entered++;
	bool shared = gate.inside++ > 0;
	enum gyre_status status;
	int result = -1;

	sim_trace("waits for job %u, %llu ns at most", gate.job->id,
		  (unsigned long long)timeout_ns);
	status = gyre_job_wait(gate.job->handle, timeout_ns, &result);
	gate.inside--;
	shared |= gate.entered != before + 1;
	if (status == GYRE_BUSY && !sim_pointer_get())
		return false;	/* no memory to note it in */
	sim_check_told(status);
	if (status != GYRE_BUSY) {
		if (gate.ready && !gate.open)
			sim_fail("job %u cannot have ended, and a wait for it is answered %s",
				 gate.job->id, gyre_status_name(status));
		gate.job->handle = NULL;
		sim_job_answered(gate.job, status, gyre_last_effect(), result, start_ns);
		return true;
	}
	sim_reach(shared ? SIM_JOB_SHARED : SIM_JOB_BUSY);
	if (!shared && (timeout_ns == GYRE_FOREVER || sim_now_ns() < start_ns + timeout_ns) &&
	    !sim_fault_happened())
		sim_fail("job %u: somebody else is said to wait for it, and nobody does",
			 gate.job->id);
	return false;
}

static int own(void *arg)
{
	(void)arg;
	while (gate.job->handle && !look_in(sim_chance(600) ? GYRE_FOREVER : some_time())) {
		if (gate.open && sim_call_has_failed()) {
			gyre_job_detach(gate.job->handle);
			gate.job->handle = NULL;
			break;
		}
		gyre_sleep(sim_random(20 * SIM_US));
	}
	return 0;
}

static int look_in_as_other(void *arg)
{
	unsigned i, times = 1 + (unsigned)sim_random(3);

	(void)arg;
	for (i = 0; i < times; i++) {
		look_in(sim_chance(100) ? 0 : some_time());
		gyre_sleep(sim_random(20 * SIM_US));
	}
	return 0;
}

/* Two tasks of one job, at the same handle. */
static int look_in_twice(void *arg)
{
	gyre_go(look_in_as_other, arg, NULL);
	look_in_as_other(arg);
	gyre_join_all();
	return 0;
}

static void in_task(gyre_task_fn *fn)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;
	enum gyre_status status;

	options.worker = sim_chance(500) ? GYRE_WORKER(sim_random(gate.workers)) : 0;
	status = gyre_block_on(gate.rt, fn, NULL, &options, NULL);
	if (status != GYRE_OK && !sim_fault_happened())
		sim_fail("gyre_block_on: %s", gyre_last_error());
}

static void owner_main(void *arg)
{
	(void)arg;
	if (sim_chance(500))
		in_task(own);
	own(NULL);	/* where no task could */
}

static void other_main(void *arg)
{
	(void)arg;
	if (sim_chance(600))
		in_task(sim_chance(300) ? look_in_twice : look_in_as_other);
	else
		look_in_as_other(NULL);
	gate.open = --gate.others == 0;
}

/* False: it never begins, and that was told. */
static bool gate_is_there(void)
{
	struct gyre_job_options options = GYRE_JOB_OPTIONS_INIT;
	enum gyre_status status;

	options.worker = sim_chance(500) ? GYRE_WORKER(sim_random(gate.workers)) : 0;
	status = gyre_spawn(gate.rt, wait_for_gate, gate.job->first, &options, &gate.job->handle);
	sim_check_told(status);
	if (status != GYRE_OK) {
		sim_job_answered(gate.job, status, gyre_last_effect(), -1, sim_now_ns());
		return false;
	}
	gate.job->taken = true;
	while (!gate.ready) {
		if (look_in(0))
			return false;
		sim_sleep(1 + sim_random(20 * SIM_US));
	}
	return true;
}

static void wait_at_the_gate(void)
{
	struct sim_thread *threads[WAITERS_MAX];
	unsigned count = gate.others + 1, i;

	for (i = 0; i < count; i++)
		threads[i] = sim_spawn(i ? "other" : "owner", i ? other_main : owner_main, NULL);
	for (i = 0; i < count; i++)
		sim_join(threads[i]);
}

void scenario_waiters(void *arg)
{
	(void)arg;
	memset(&gate, 0, sizeof(gate));
	sim_jobs_begin();
	gate.workers = 1 + (unsigned)sim_random(2);
	gate.others = sim_many(1 + (unsigned)sim_random(3), WAITERS_MAX - 1);
	/* Where the job's worker dies, who is the first to come back takes the handle away. */
	if (sim_failures_of(GYRE__FAULT_uring_enter))
		gate.others = 0;
	gate.open = gate.others == 0;
	if (sim_open_for_jobs(gate.workers, GYRE_FOREVER, &gate.rt)) {
		gate.job = sim_job_new(0);
		if (gate_is_there())
			wait_at_the_gate();
		sim_close_runtime(gate.rt);
		gyre_free(gate.rt);
	}
	sim_jobs_end();
}
