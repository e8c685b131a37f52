/* SPDX-License-Identifier: MIT */
#include "worker.h"

#include <errno.h>

#include "job.h"
#include "ring/sys.h"

#define START_POLL_NS	(20 * GYRE__NS_PER_US)

static int worker_begin(struct gyre__worker *worker)
{
	int rc;

	if (worker->pin) {
		rc = gyre__sys->thread_pin(worker->number);
		if (rc < 0)
			return rc;
	}
	rc = worker->hooks.begin(worker, worker->hooks.arg);
	if (rc < 0)
		return rc;
	rc = gyre__ring_enable(&worker->ring);
	if (rc < 0) {
		gyre__tasks_end(&worker->tasks);
		worker->hooks.finish(worker, worker->hooks.arg);
	}
	return rc;
}

/* The ring takes no more of what its tasks want: the end of its drain, or its own. */
static bool end_jobs(struct gyre__worker *worker)
{
	if (gyre__likely(worker->ring.phase < GYRE__RING_CANCELLING) ||
	    worker->tasks.end_reason != GYRE_OK)
		return false;
	worker->tasks.hooks.outlasting(&worker->tasks);
	gyre__jobs_end(&worker->tasks, worker->ring.phase == GYRE__RING_CANCELLING ?
		       GYRE_CANCELLED : GYRE_WORKER_DEAD);
	return true;
}

/* Between two waits. False: there was nothing to do. */
static bool worker_turn(struct gyre__worker *worker)
{
	bool did = gyre__ring_turn(&worker->ring);

	did |= end_jobs(worker);
	if (gyre__unlikely(worker->ring.sealed) && worker->tasks.jobs_live == 0)
		did |= gyre__locals_end(&worker->tasks);
	did |= gyre__tasks_run(&worker->tasks);
	return did;
}

static void worker_main(void *arg)
{
	struct gyre__worker *worker = arg;
	int rc = worker_begin(worker);

	/* Release: all that the start has set up. Pairs with gyre__worker_wait_until_up(). */
	gyre__store(&worker->up, rc < 0 ? rc : 1, release);
	if (rc < 0)
		return;
	while (!gyre__ring_finished(&worker->ring))
		if (!worker_turn(worker))
			gyre__ring_wait(&worker->ring);
	gyre__tasks_end(&worker->tasks);
	worker->hooks.finish(worker, worker->hooks.arg);
	gyre__store(&worker->up, -ESHUTDOWN, release);
}

int gyre__worker_start(struct gyre__worker *worker)
{
	int rc = gyre__sys->thread_start(worker->name, worker_main, worker, &worker->thread);

	worker->joinable = rc >= 0;
	return rc;
}

int gyre__worker_wait_until_up(struct gyre__worker *worker)
{
	int up;

	while ((up = gyre__load(&worker->up, acquire)) == 0)
		gyre__sys->sleep_ns(START_POLL_NS);
	return up < 0 ? up : 0;
}

void gyre__worker_join(struct gyre__worker *worker)
{
	if (worker->joinable)
		gyre__sys->thread_join(worker->thread);
	worker->joinable = false;
}
