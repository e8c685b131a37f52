/* SPDX-License-Identifier: MIT */
/*
 * Hand-overs without gyre: what it replaces (a worker behind a mutex and
 * condition variables), and what no hand-over can beat (two flags that both
 * ends stare at).
 */
#include "bench.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

/* The thread at the other end, and how it tells that it is there. */
struct server {
	pthread_t thread;
	sem_t up;
	struct io_uring ring;
	unsigned entries;	/* of its ring; 0: it needs none */
	int rc;			/* of its set-up; valid after up */
};

/* Server thread, first thing. */
static int server_arrive(struct server *server)
{
	if (server->entries > 0)
		server->rc = bench_ring_open(server->entries, &server->ring);
	sem_post(&server->up);
	return server->rc;
}

/* Server thread, last thing. */
static void server_depart(struct server *server)
{
	if (server->entries > 0)
		io_uring_queue_exit(&server->ring);
}

/* Main thread. Returns when the thread is there, or -1 after a fault. */
static int server_start(struct bench_run *run, struct server *server, unsigned entries,
			void *(*start)(void *arg), void *arg)
{
	int rc;

	server->entries = entries;
	server->rc = 0;
	sem_init(&server->up, 0, 0);
	rc = pthread_create(&server->thread, NULL, start, arg);
	if (rc != 0) {
		errno = rc;
		bench_fault(run, "%s: no thread: %m (errno %d)", run->engine->name, rc);
		goto out_sem;
	}
	while (sem_wait(&server->up) < 0)
		;
	if (server->rc == 0)
		return 0;
	pthread_join(server->thread, NULL);
	errno = -server->rc;
	bench_fault(run, "%s: no ring of %u entries: %m (errno %d)%s", run->engine->name, entries,
		    -server->rc, bench_ring_hint(-server->rc));
out_sem:
	sem_destroy(&server->up);
	return -1;
}

static void server_join(struct server *server)
{
	pthread_join(server->thread, NULL);
	sem_destroy(&server->up);
}

static int server_fault(struct bench_caller *caller, int rc)
{
	errno = -rc;
	return bench_fault(caller->run, "%s: io_uring_enter failed: %m (errno %d)",
			   caller->run->engine->name, -rc);
}

/* ------------------------------------------------------------ condvar -- */

/* What one caller waits for. */
struct job {
	alignas(BENCH_ALIGN) struct job *next;	/* the queue's, under its lock */
	struct bench_caller *caller;
	pthread_mutex_t lock;			/* of what follows */
	pthread_cond_t cond;
	bool done;
	int rc;
};

struct condvar {
	pthread_mutex_t lock;			/* of the queue */
	pthread_cond_t cond;
	struct job *head, **tail;
	bool stop;
	struct server server;
	unsigned job_count;
	struct job *jobs;			/* one for each caller */
};

/* Worker. NULL: stop. */
static struct job *condvar_take(struct condvar *condvar)
{
	struct job *job;

	pthread_mutex_lock(&condvar->lock);
	while (!condvar->head && !condvar->stop)
		pthread_cond_wait(&condvar->cond, &condvar->lock);
	job = condvar->head;
	if (job) {
		condvar->head = job->next;
		if (!condvar->head)
			condvar->tail = &condvar->head;
	}
	pthread_mutex_unlock(&condvar->lock);
	return job;
}

/* Worker. NOPs go through its ring, like everybody's; the rest are plain calls. */
static int condvar_execute(struct condvar *condvar, struct job *job)
{
	struct bench_caller *caller = job->caller;
	unsigned i;

	if (condvar->server.entries > 0)
		return bench_ring_call(&condvar->server.ring, caller->ops, caller->op_count);
	for (i = 0; i < caller->op_count; i++)
		bench_op_call(&caller->ops[i]);
	return 0;
}

static void *condvar_serve(void *arg)
{
	struct condvar *condvar = arg;
	struct job *job;
	int rc;

	if (server_arrive(&condvar->server) < 0)
		return NULL;
	while ((job = condvar_take(condvar)) != NULL) {
		rc = condvar_execute(condvar, job);
		pthread_mutex_lock(&job->lock);
		job->rc = rc;
		job->done = true;
		pthread_mutex_unlock(&job->lock);
		/* After the lock, or the caller would wake to wait for it. Jobs outlive this. */
		pthread_cond_signal(&job->cond);
	}
	server_depart(&condvar->server);
	return NULL;
}

static void condvar_free(struct condvar *condvar)
{
	unsigned i;

	for (i = 0; i < condvar->job_count; i++) {
		pthread_cond_destroy(&condvar->jobs[i].cond);
		pthread_mutex_destroy(&condvar->jobs[i].lock);
	}
	free(condvar->jobs);
	pthread_cond_destroy(&condvar->cond);
	pthread_mutex_destroy(&condvar->lock);
	free(condvar);
}

static struct condvar *condvar_new(unsigned callers)
{
	struct condvar *condvar = calloc(1, sizeof(*condvar));
	unsigned i;

	if (!condvar)
		return NULL;
	condvar->jobs = aligned_alloc(BENCH_ALIGN, callers * sizeof(struct job));
	if (!condvar->jobs) {
		free(condvar);
		return NULL;
	}
	pthread_mutex_init(&condvar->lock, NULL);
	pthread_cond_init(&condvar->cond, NULL);
	condvar->tail = &condvar->head;
	condvar->job_count = callers;
	memset(condvar->jobs, 0, callers * sizeof(struct job));
	for (i = 0; i < callers; i++) {
		pthread_mutex_init(&condvar->jobs[i].lock, NULL);
		pthread_cond_init(&condvar->jobs[i].cond, NULL);
	}
	return condvar;
}

static int condvar_open(struct bench_run *run)
{
	struct condvar *condvar = condvar_new(run->caller_count);
	unsigned entries = bench_case_uses_file(run->kase) ? 0 : run->op_count;

	if (!condvar)
		return bench_fault(run, "condvar: no memory for %u callers", run->caller_count);
	if (server_start(run, &condvar->server, entries, condvar_serve, condvar) < 0) {
		condvar_free(condvar);
		return -1;
	}
	run->state = condvar;
	return 0;
}

static void condvar_close(struct bench_run *run)
{
	struct condvar *condvar = run->state;

	pthread_mutex_lock(&condvar->lock);
	condvar->stop = true;
	pthread_cond_signal(&condvar->cond);
	pthread_mutex_unlock(&condvar->lock);
	server_join(&condvar->server);
	condvar_free(condvar);
}

static int condvar_join(struct bench_caller *caller)
{
	struct condvar *condvar = caller->run->state;
	struct job *job = &condvar->jobs[caller->index];

	job->caller = caller;
	caller->state = job;
	return 0;
}

static void condvar_push(struct condvar *condvar, struct job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&condvar->lock);
	*condvar->tail = job;
	condvar->tail = &job->next;
	pthread_mutex_unlock(&condvar->lock);
	pthread_cond_signal(&condvar->cond);
}

static int condvar_wait(struct job *job)
{
	int rc;

	pthread_mutex_lock(&job->lock);
	while (!job->done)
		pthread_cond_wait(&job->cond, &job->lock);
	job->done = false;
	rc = job->rc;
	pthread_mutex_unlock(&job->lock);
	return rc;
}

static int condvar_step(struct bench_caller *caller)
{
	unsigned i;
	int rc;

	for (i = 0; i < caller->op_count; i++)
		bench_op_next(caller, &caller->ops[i]);
	condvar_push(caller->run->state, caller->state);
	rc = condvar_wait(caller->state);
	if (rc < 0)
		return server_fault(caller, rc);
	for (i = 0; i < caller->op_count; i++)
		if (!bench_op_good(&caller->ops[i]))
			return bench_op_fault(caller, &caller->ops[i]);
	return 0;
}

const struct bench_engine bench_condvar = {
	.name = "condvar",
	.about = "a worker thread behind mutex and condition variable, replies likewise",
	.works = BENCH_ON_NOPS | BENCH_ON_FILE,
	.open = condvar_open,
	.close = condvar_close,
	.join = condvar_join,
	.step = condvar_step,
};

/* -------------------------------------------------------------- floor -- */

#define FLOOR_STOP	UINT64_MAX

/* Each flag has one writer, counts up, and is alone on its line. */
struct floor {
	alignas(BENCH_ALIGN) _Atomic uint64_t asked;	/* the caller's, at the end main's */
	alignas(BENCH_ALIGN) _Atomic uint64_t answered;	/* the server's */
	int rc;						/* published by answered */
	alignas(BENCH_ALIGN) struct server server;
	struct bench_op nop;
};

static void *floor_serve(void *arg)
{
	struct floor *floor = arg;
	uint64_t asked, seen = 0;

	if (server_arrive(&floor->server) < 0)
		return NULL;
	for (;;) {
		/* Pairs with the release in floor_step() and floor_close(). */
		asked = atomic_load_explicit(&floor->asked, memory_order_acquire);
		if (asked == FLOOR_STOP)
			break;
		if (asked == seen) {
			bench_relax();
			continue;
		}
		floor->rc = bench_ring_call(&floor->server.ring, &floor->nop, 1);
		seen = asked;
		/* Pairs with the acquire in floor_step(). */
		atomic_store_explicit(&floor->answered, seen, memory_order_release);
	}
	server_depart(&floor->server);
	return NULL;
}

static int floor_open(struct bench_run *run)
{
	struct floor *floor = aligned_alloc(BENCH_ALIGN, sizeof(*floor));

	if (!floor)
		return bench_fault(run, "floor: no memory");
	memset(floor, 0, sizeof(*floor));
	floor->nop.kind = BENCH_OP_NOP;
	if (server_start(run, &floor->server, 1, floor_serve, floor) < 0) {
		free(floor);
		return -1;
	}
	run->state = floor;
	return 0;
}

static void floor_close(struct bench_run *run)
{
	struct floor *floor = run->state;

	atomic_store_explicit(&floor->asked, FLOOR_STOP, memory_order_release);
	server_join(&floor->server);
	free(floor);
}

static int floor_step(struct bench_caller *caller)
{
	struct floor *floor = caller->run->state;
	uint64_t ticket = atomic_load_explicit(&floor->asked, memory_order_relaxed) + 1;

	atomic_store_explicit(&floor->asked, ticket, memory_order_release);
	while (atomic_load_explicit(&floor->answered, memory_order_acquire) != ticket)
		bench_relax();
	return floor->rc < 0 ? server_fault(caller, floor->rc) : 0;
}

const struct bench_engine bench_floor = {
	.name = "floor",
	.about = "two flags, both ends spinning, one NOP a call: no hand-over is faster",
	.works = BENCH_ON_NOPS,
	.one_caller = true,
	.open = floor_open,
	.close = floor_close,
	.step = floor_step,
};
