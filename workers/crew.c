/* SPDX-License-Identifier: MIT */
#include "crew.h"

#include <errno.h>
#include <stdio.h>

#include "keys.h"
#include "ring/sys.h"

static struct gyre__worker *worker_new(const struct gyre__crew_config *config, unsigned number)
{
	struct gyre__worker *worker = gyre__sys->alloc(sizeof(*worker),
						       _Alignof(struct gyre__worker));

	if (!worker)
		return NULL;
	worker->number = number;
	worker->pin = config->pin;
	worker->hooks = config->hooks;
	snprintf(worker->name, sizeof(worker->name), "%s-%u", config->name, number);
	return worker;
}

/* Makes the n-th worker and its ring, without a thread yet. */
static int crew_add(struct gyre__crew *crew, const struct gyre__crew_config *config,
		    const char **ret_step)
{
	struct gyre__worker *worker = worker_new(config, crew->count);
	int rc;

	*ret_step = "memory for a worker";
	if (!worker)
		return -ENOMEM;
	rc = gyre__ring_open(&worker->ring, &config->ring, ret_step);
	if (rc < 0) {
		gyre__free(worker);
		return rc;
	}
	gyre__tasks_init(&worker->tasks, &worker->ring, &config->tasks);
	worker->tasks.pooled = gyre__keys_side(config->tasks.pool, worker->number, &worker->tasks);
	crew->worker[crew->count++] = worker;
	return 0;
}

static int crew_start_threads(struct gyre__crew *crew, const char **ret_step, unsigned *ret_worker)
{
	unsigned i;
	int rc;

	*ret_step = "thread start";
	for (i = 0; i < crew->count; i++) {
		*ret_worker = i;
		rc = gyre__worker_start(crew->worker[i]);
		if (rc < 0)
			return rc;
	}
	*ret_step = "start of a worker in its thread";
	for (i = 0; i < crew->count; i++) {
		*ret_worker = i;
		rc = gyre__worker_wait_until_up(crew->worker[i]);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int gyre__crew_start(const struct gyre__crew_config *config, const char **ret_step,
		     unsigned *ret_worker, struct gyre__crew **ret)
{
	struct gyre__crew *crew;
	int rc = 0;

	*ret_step = "memory for the workers";
	*ret_worker = 0;
	crew = gyre__zalloc(sizeof(*crew) + config->workers * sizeof(crew->worker[0]));
	if (!crew)
		return -ENOMEM;
	while (crew->count < config->workers && rc == 0) {
		*ret_worker = crew->count;
		rc = crew_add(crew, config, ret_step);
	}
	if (rc == 0)
		rc = crew_start_threads(crew, ret_step, ret_worker);
	if (rc < 0) {
		gyre__crew_stop(crew, 0);
		gyre__crew_free(crew);
		return rc;
	}
	*ret = crew;
	return 0;
}

void gyre__crew_stop(struct gyre__crew *crew, uint64_t drain_ns)
{
	unsigned i;

	for (i = 0; i < crew->count; i++)
		gyre__ring_seal(&crew->worker[i]->ring, drain_ns);
	for (i = 0; i < crew->count; i++) {
		gyre__worker_join(crew->worker[i]);
		gyre__tasks_wait_for_wakers(&crew->worker[i]->tasks);
	}
	for (i = 0; i < crew->count; i++)
		gyre__ring_let_go(&crew->worker[i]->ring);
}

void gyre__crew_free(struct gyre__crew *crew)
{
	unsigned i;

	for (i = 0; i < crew->count; i++) {
		gyre__ring_close(&crew->worker[i]->ring);
		gyre__free(crew->worker[i]->tasks.outlasted);
		gyre__free(crew->worker[i]);
	}
	gyre__free(crew);
}

static bool fit(struct gyre__worker *worker, bool relieved)
{
	return !gyre__worker_is_dead(worker) &&
	       (!relieved || !gyre__load(&worker->ring.overloaded, relaxed));
}

/* First one that has room, then any that lives; from *sticky on, so that callers spread. */
struct gyre__worker *gyre__crew_choose_other(struct gyre__crew *crew, unsigned *sticky)
{
	int relieved;
	unsigned i, step;

	for (relieved = 1; relieved >= 0; relieved--)
		for (step = 0; step < crew->count; step++) {
			i = (*sticky + step) % crew->count;
			if (fit(crew->worker[i], relieved)) {
				*sticky = i;
				return crew->worker[i];
			}
		}
	return NULL;
}
