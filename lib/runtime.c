/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "runtime.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "buffer.h"
#include "circle.h"
#include "durable.h"
#include "dump.h"
#include "jobs.h"
#include "offload.h"
#include "ring/probe.h"
#include "workers/offload.h"
#include "workers/keys.h"

#define GUARD_BYTES	4096

/* ------------------------------------------------------------ the door -- */

static enum gyre_status refuse_closed(const char *function, const struct gyre *rt)
{
	if (gyre__runtime_is_forked(rt))
		return gyre__fail(function, GYRE_CLOSED,
				  "the runtime belongs to the parent of this forked process: open "
				  "another here");
	return gyre__fail(function, GYRE_CLOSED, "the runtime is closed");
}

static enum gyre_status refuse_no_reactor(const char *function)
{
	return gyre__fail(function, GYRE_NO_REACTOR, "no reactor running on this thread: outside a "
			  "task of a runtime, name the runtime instead of NULL");
}

/* seq_cst, as in gyre__runtime_enter(): a visitor is counted before it looks at closed. */
static bool begin_visit(struct gyre__thread *self, struct gyre *rt)
{
	gyre__fetch_add(&rt->visitors, 1, seq_cst);
	self->visits = rt;
	return !gyre__load(&rt->closed, seq_cst) && !gyre__runtime_is_forked(rt);
}

void gyre__thread_end_visit(struct gyre__thread *self)
{
	struct gyre *rt = self->visits;

	if (!rt)
		return;
	self->visits = NULL;
	gyre__runtime_end_visit(rt);
}

void gyre__runtime_end_visit(struct gyre *rt)
{
	/* Release: as in gyre__thread_leave(). */
	gyre__fetch_sub(&rt->visitors, 1, release);
}

static enum gyre_status enter_from_task(const char *function, struct gyre *rt,
					struct gyre__thread *self)
{
	enum gyre_status status = gyre__task_may_wait(self->task);

	if (status != GYRE_OK)
		return gyre__fail(function, status, "%s", status == GYRE_CANCELLED ?
				  "the task was cancelled: it is to return" :
				  "the worker of this task has died");
	gyre__store(&self->inside, rt, relaxed);	/* read by itself alone */
	if (rt == self->runtime)
		return GYRE_OK;
	if (begin_visit(self, rt))
		return GYRE_OK;
	status = refuse_closed(function, rt);
	gyre__thread_leave(self);
	return status;
}

/* A helper that does something for a task of rt: may go on for as long as the task may. */
static bool serves_its_job(const struct gyre__thread *self, const struct gyre *rt)
{
	return self->helps == rt && self->serves && !gyre__runtime_is_forked(rt);
}

enum gyre_status gyre__runtime_enter(const char *function, struct gyre **rt,
				     struct gyre__thread **ret_self)
{
	struct gyre__thread *self = gyre__thread_self();

	if (gyre__unlikely(!self))
		return GYRE_NO_MEMORY;
	*ret_self = self;
	if (gyre__unlikely(self->worker)) {
		if (!self->task)
			return gyre__fail(function, GYRE_WOULD_DEADLOCK, "a prep closure may not "
					  "wait: its worker is the one that would have to answer");
		if (!*rt)
			*rt = self->runtime;
		return enter_from_task(function, *rt, self);
	}
	if (gyre__unlikely(!*rt))
		return refuse_no_reactor(function);
	/* seq_cst, before the look at closed: gyre_free() closes before it looks at inside. */
	gyre__store(&self->inside, *rt, seq_cst);
	if (gyre__unlikely(gyre__load(&(*rt)->closed, seq_cst) || gyre__runtime_is_forked(*rt)) &&
	    !serves_its_job(self, *rt)) {
		enum gyre_status status = refuse_closed(function, *rt);

		gyre__thread_leave(self);
		return status;
	}
	return GYRE_OK;
}

enum gyre_status gyre__runtime_look(const char *function, struct gyre **rt)
{
	struct gyre__thread *self = gyre__thread_self();

	if (!self)
		return GYRE_NO_MEMORY;
	if (!*rt)
		*rt = self->runtime;
	if (!*rt)
		return refuse_no_reactor(function);
	if (gyre__runtime_is_forked(*rt))
		return refuse_closed(function, *rt);
	if (self->task && *rt != self->runtime)
		begin_visit(self, *rt);
	gyre__store(&self->inside, *rt, seq_cst);
	return GYRE_OK;
}

void gyre__runtime_leave(struct gyre *rt)
{
	struct gyre__thread *self = gyre__thread_self();

	GYRE_ASSERT(gyre__load(&self->inside, relaxed) == rt);
	gyre__thread_leave(self);
}

/* What to look at. EAGAIN is of threads that cannot be started. */
static const char *hint_for(int error)
{
	if (error == -EMFILE)
		return " (raise RLIMIT_NOFILE: a worker holds three descriptors)";
	if (error == -EAGAIN)
		return " (see RLIMIT_NPROC, RLIMIT_AS and pids.max of the cgroup)";
	return "";
}

enum gyre_status gyre__fail_system(const char *function, int error, const char *step)
{
	if (error == -ENOMEM)
		return gyre__fail(function, GYRE_NO_MEMORY, "%s: out of memory", step);
	errno = -error;
	return gyre__fail(function, GYRE_SYSTEM, "%s failed: %s%s", step, strerror(-error),
			  hint_for(error));
}

/* ------------------------------------------------------- open and close -- */

/* In a worker's thread: it gets a record that knows whose worker it is. */
static int begin_worker(struct gyre__worker *worker, void *arg)
{
	struct gyre__thread *self = gyre__thread_self();

	if (!self)
		return -ENOMEM;
	self->runtime = arg;
	self->worker = worker;
	gyre__tasks_begin(&worker->tasks, &self->running);
	return 0;
}

static void finish_worker(struct gyre__worker *worker, void *arg)
{
	struct gyre__thread *self = gyre__self();

	(void)arg;
	GYRE_ASSERT(self->worker == worker);
	self->runtime = NULL;
	self->worker = NULL;
}

/* Says in words what a start that failed lacked, and what to change. */
static enum gyre_status refuse_start(const struct gyre__crew_config *config, int error,
				     const char *step, unsigned worker)
{
	char reason[192];

	if (strcmp(step, "io_uring_setup") != 0)
		return gyre__fail_system("gyre_open", error, step);
	if (error == -EPERM || error == -EACCES || error == -ENOSYS) {
		gyre__probe_explain(error, reason, sizeof(reason));
		return gyre__fail("gyre_open", GYRE_UNSUPPORTED, "%s", reason);
	}
	if (error == -ENOMEM)
		return gyre__fail("gyre_open", GYRE_NO_MEMORY,
				  "the kernel has no memory for ring %u of %u: each locks %zu KiB "
				  "of RLIMIT_MEMLOCK, which counts all rings of this user: raise "
				  "it, or lower ring_entries, inflight_max or workers",
				  worker + 1, config->workers,
				  gyre__ring_memlock(&config->ring) / 1024);
	if (error == -EINVAL)
		return gyre__fail("gyre_open", GYRE_UNSUPPORTED,
				  "io_uring_setup: this kernel lacks what is needed: Linux 5.11 or "
				  "later");
	return gyre__fail_system("gyre_open", error, step);
}

static enum gyre_status start_crew(struct gyre *rt)
{
	const struct gyre__settings *settings = &rt->settings;
	const struct gyre__crew_config config = {
		.name = settings->name,
		.workers = settings->workers,
		.pin = settings->flags & GYRE_PIN_WORKERS,
		.ring = {
			.entries = settings->ring_entries,
			.inflight_max = settings->inflight_max,
			.spin_ns = settings->spin_ns,
			.failed = gyre__durable_failed(rt->durable),
		},
		.hooks = { begin_worker, finish_worker, rt },
		.tasks = {
			.stall_ns = settings->stall_ns,
			.zero = settings->flags & GYRE_ZERO_ARENAS,
			.arena_max = settings->arena_max,
			.state_type = settings->state,
			.pool = rt->pool,
			.hooks = { GYRE__THREAD_TASK_SIZE, gyre__jobs_begin_one,
				   gyre__is_circle, gyre__thread_task_done,
				   gyre__dump_outlasting, gyre__circle_with_line,
				   gyre__circle_with_room },
		},
	};
	const char *step;
	unsigned worker;
	int rc = gyre__crew_start(&config, &step, &worker, &rt->crew);

	return rc < 0 ? refuse_start(&config, rc, step, worker) : GYRE_OK;
}

/* A page of one word that the kernel clears in every child, however it was forked. */
static int make_guard(struct gyre *rt)
{
	static _Atomic uint32_t last_id;
	void *guard;
	int rc = gyre__sys->mmap(GUARD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				 -1, 0, &guard);

	if (rc < 0)
		return rc;
	rc = gyre__sys->madvise(guard, GUARD_BYTES, MADV_WIPEONFORK);
	if (rc < 0) {
		gyre__sys->munmap(guard, GUARD_BYTES);
		return rc;
	}
	do
		rt->id = gyre__fetch_add(&last_id, 1, relaxed) + 1;
	while (rt->id == 0);
	*(uint32_t *)guard = rt->id;
	rt->guard = guard;
	return 0;
}

static void runtime_free(struct gyre *rt)
{
	if (rt->guard)
		gyre__sys->munmap((void *)(uintptr_t)rt->guard, GUARD_BYTES);
	gyre__offload_free(rt->offload);
	gyre__offload_free(rt->reserve);
	gyre__durable_close(rt->durable);
	gyre__keys_free(rt->pool);
	gyre__sys->mutex_done(&rt->close_lock);
	gyre__free(rt);
}

static enum gyre_status open_pool(struct gyre *rt)
{
	if (!rt->settings.state)
		return GYRE_OK;
	rt->pool = gyre__keys_open(rt->settings.pool_size, rt->settings.workers);
	return rt->pool ? GYRE_OK :
			  gyre__fail("gyre_open", GYRE_NO_MEMORY, "out of memory for a pool");
}

static enum gyre_status runtime_new(const struct gyre__settings *settings, struct gyre **ret)
{
	struct gyre *rt = gyre__sys->alloc(sizeof(*rt), _Alignof(struct gyre));
	enum gyre_status status;
	int rc;

	if (!rt)
		return gyre__fail("gyre_open", GYRE_NO_MEMORY, "out of memory");
	rt->settings = *settings;
	rt->route = settings->route;
	gyre__sys->mutex_init(&rt->close_lock);
	rc = make_guard(rt);
	if (rc < 0)
		status = gyre__fail_system("gyre_open", rc, "a page that tells forks");
	else
		status = gyre__durable_open(&rt->durable);
	if (status == GYRE_OK)
		status = gyre__offload_open_for(rt);
	if (status == GYRE_OK)
		status = open_pool(rt);
	if (status == GYRE_OK)
		status = gyre__buffer_pool_open(rt);
	if (status == GYRE_OK) {
		status = start_crew(rt);
		if (status != GYRE_OK)
			gyre__buffer_pool_close(rt);
	}
	if (status != GYRE_OK) {
		runtime_free(rt);
		return status;
	}
	*ret = rt;
	return GYRE_OK;
}

struct opening {
	const struct gyre_options *options;
	struct gyre **ret;
	enum gyre_status status;
};

static void open_elsewhere(void *arg)
{
	struct opening *opening = arg;

	opening->status = gyre_open(opening->options, opening->ret);
}

enum gyre_status gyre_open(const struct gyre_options *options, struct gyre **ret)
{
	struct gyre__thread *self = gyre__thread_self();
	struct gyre__settings settings;
	enum gyre_status status;

	if (!self)
		return GYRE_NO_MEMORY;
	if (gyre__must_go_elsewhere()) {
		struct opening opening = { options, ret, GYRE_OK };

		status = gyre__elsewhere("gyre_open", self, GYRE__CALL_BRIEF, open_elsewhere,
					 &opening);
		return status == GYRE_OK ? opening.status : status;
	}
	if (!ret)
		return gyre__fail("gyre_open", GYRE_INVALID, "ret is NULL");
	if (gyre__thread_is_in_prep(self))
		return gyre__fail("gyre_open", GYRE_WOULD_DEADLOCK, "a prep closure may not wait");
	status = gyre__options_resolve(options, &settings);
	if (status == GYRE_OK)
		status = runtime_new(&settings, ret);
	if (status == GYRE_OK)
		gyre__runtime_list(*ret);
	return status == GYRE_OK ? gyre__succeed() : status;
}

/*
 * The first closer stops the crew, the others come after it and find it done. A helper
 * waits here for tasks, which may need one of its pool. self may be NULL.
 */
static void close_once(struct gyre__thread *self, struct gyre *rt)
{
	gyre__store(&rt->closed, 1, seq_cst);
	if (self)
		gyre__helper_waits(self);
	gyre__sys->mutex_lock(&rt->close_lock);
	if (!rt->stopped) {
		gyre__crew_stop(rt->crew, rt->settings.drain_ns);
		/* Tasks may have needed them until their end. */
		gyre__offload_close(rt->offload);
		gyre__offload_close(rt->reserve);
		rt->stopped = true;
	}
	gyre__sys->mutex_unlock(&rt->close_lock);
	if (self)
		gyre__helper_goes_on(self);
}

static void seal(struct gyre *rt)
{
	unsigned i;

	gyre__store(&rt->closed, 1, seq_cst);
	for (i = 0; i < rt->crew->count; i++)
		gyre__ring_seal(&rt->crew->worker[i]->ring, rt->settings.drain_ns);
}

/* Its own tasks cannot wait for their end, but they can bring it about. */
static enum gyre_status close_from_inside(const char *function, struct gyre *rt,
					  const char *rest)
{
	seal(rt);
	return gyre__fail(function, GYRE_WOULD_DEADLOCK, "a task of the runtime, or one for which "
			  "such a task waits, cannot wait for its own end: the runtime takes no "
			  "more calls, and ends without it%s", rest);
}

static void close_elsewhere(void *arg)
{
	gyre_close(arg);
}

static enum gyre_status close_from_task(struct gyre__thread *self, struct gyre *rt)
{
	enum gyre_status status = gyre__elsewhere("gyre_close", self, GYRE__CALL_LASTING,
						  close_elsewhere, rt);

	if (status == GYRE_WOULD_DEADLOCK)
		seal(rt);
	return status == GYRE_OK ? self->last_status : status;
}

static void free_elsewhere(void *arg)
{
	gyre_free(arg);
}

enum gyre_status gyre_close(struct gyre *rt)
{
	struct gyre__closer closer;
	struct gyre__thread *self;

	if (!rt)
		return gyre__succeed();
	self = gyre__thread_self();
	if (!self)
		return GYRE_NO_MEMORY;
	if (gyre__thread_is_in_prep(self))
		return gyre__fail("gyre_close", GYRE_WOULD_DEADLOCK, "a prep closure may not wait");
	if (gyre__runtime_is_forked(rt))	/* nothing here is the child's to stop */
		return refuse_closed("gyre_close", rt);
	if (self->task)
		return gyre__circle_with_runtime(self, rt) ?
		       close_from_inside("gyre_close", rt, "") : close_from_task(self, rt);
	if (!gyre__closer_begin(&closer, self, rt))
		return close_from_inside("gyre_close", rt, "");
	gyre__store(&self->inside, rt, seq_cst);
	close_once(self, rt);
	gyre__closer_end(&closer, rt);
	gyre__thread_leave(self);
	return gyre__succeed();
}

static void free_in_child(struct gyre *rt)
{
	gyre__runtime_unlist(rt);
	gyre__threads_forget(rt);
	gyre__crew_free(rt->crew);
	gyre__buffer_pool_forget(rt);
	runtime_free(rt);
}

/*
 * False: nothing has been done. Where nobody is left who could wait, it is as where
 * nobody may; for want of memory or of a thread the worker itself has to wait.
 */
static bool free_from_task(struct gyre__thread *self, struct gyre *rt)
{
	enum gyre_status status = gyre__elsewhere("gyre_free", self, GYRE__CALL_MUST,
						  free_elsewhere, rt);

	if (status == GYRE_WOULD_DEADLOCK)
		seal(rt);
	return status == GYRE_OK || status == GYRE_WOULD_DEADLOCK;
}

/* self may be NULL: no record, and so neither a task nor a helper. */
static void free_here(struct gyre__thread *self, struct gyre *rt)
{
	struct gyre__closer closer;

	if (!gyre__closer_begin(&closer, self, rt)) {
		close_from_inside("gyre_free", rt, "; it is not freed");
		return;
	}
	close_once(self, rt);
	gyre__runtime_unlist(rt);
	gyre__threads_leave(rt);
	gyre__closer_end(&closer, rt);
	gyre__buffer_pool_close(rt);
	gyre__crew_free(rt->crew);
	runtime_free(rt);
	if (self)
		gyre__thread_succeed(self);
}

void gyre_free(struct gyre *rt)
{
	struct gyre__thread *self = gyre__self();

	if (!rt)
		return;
	/* It waits, and cannot say no: not in a prep, nor in a task of rt. */
	GYRE_ASSERT(!self || !self->worker || (self->running.task && self->runtime != rt));
	if (gyre__runtime_is_forked(rt)) {
		free_in_child(rt);
		return;
	}
	if (self && self->running.task)
		self = gyre__thread_of_task(self->running.task);
	if (!self || !self->task || !free_from_task(self, rt))
		free_here(self, rt);
}

/* ------------------------------------------------------------- looking -- */

unsigned gyre_worker_count(const struct gyre *rt)
{
	const struct gyre__thread *self = gyre__self();

	if (!rt)
		rt = self ? self->runtime : NULL;
	return rt ? rt->crew->count : 0;
}

struct gyre *gyre_current(void)
{
	const struct gyre__thread *self = gyre__self();

	return self ? self->runtime : NULL;
}

int gyre_current_worker(void)
{
	const struct gyre__thread *self = gyre__self();

	return self && self->worker ? (int)self->worker->number : -1;
}

static void add_tasks(struct gyre__tasks *tasks, struct gyre_stats *stats)
{
	struct gyre__task_counters *counters = &tasks->counters;
	uint64_t arena_max = gyre__load(&tasks->chunks.bytes_max, relaxed);
	uint64_t stack_max = gyre__load(&tasks->stacks.high_water, relaxed);

	stats->jobs_started += gyre__load(&counters->jobs_started, relaxed);
	stats->jobs_finished += gyre__load(&counters->jobs_finished, relaxed);
	stats->jobs_panicked += gyre__load(&counters->jobs_panicked, relaxed);
	stats->jobs_cancelled += gyre__load(&counters->jobs_cancelled, relaxed);
	stats->jobs_running += gyre__load(&counters->jobs_running, relaxed);
	stats->tasks_started += gyre__load(&counters->started, relaxed);
	stats->tasks_live += gyre__load(&counters->live, relaxed);
	stats->tasks_leftover += gyre__load(&counters->leftover, relaxed);
	stats->stalls += gyre__load(&counters->stalls, relaxed);
	stats->pool_cached += gyre__load(&counters->pool_cached, relaxed);
	stats->pool_hits += gyre__load(&counters->pool_hits, relaxed);
	stats->pool_misses += gyre__load(&counters->pool_misses, relaxed);
	stats->pool_evictions += gyre__load(&counters->pool_evictions, relaxed);
	stats->pool_waits += gyre__load(&counters->pool_waits, relaxed);
	stats->arena_bytes += gyre__load(&tasks->chunks.bytes, relaxed);
	if (stats->arena_bytes_max < arena_max)
		stats->arena_bytes_max = arena_max;
	if (stats->stack_bytes_max < stack_max)
		stats->stack_bytes_max = stack_max;
	stats->stacks_live += gyre__load(&tasks->stacks.live, relaxed);
	stats->stacks_cached += gyre__load(&tasks->stacks.cached, relaxed);
}

static void add_worker(struct gyre__worker *worker, struct gyre_stats *stats)
{
	struct gyre__ring_counters *counters = &worker->ring.counters;
	uint64_t batches = gyre__load(&counters->batches, relaxed);
	uint64_t sent = gyre__load(&counters->wakeups_sent, relaxed);

	stats->ops_submitted += gyre__load(&counters->ops_submitted, relaxed);
	stats->ops_completed += gyre__load(&counters->ops_completed, relaxed);
	stats->ops_failed += gyre__load(&counters->ops_failed, relaxed);
	stats->ops_cancelled += gyre__load(&counters->ops_cancelled, relaxed);
	stats->ops_timed_out += gyre__load(&counters->ops_timed_out, relaxed);
	stats->inflight += gyre__load(&counters->inflight, relaxed);
	stats->queued += gyre__load(&counters->queued, relaxed);
	stats->enters += gyre__load(&counters->enters, relaxed);
	stats->wakeups_sent += sent;
	stats->wakeups_elided += batches > sent ? batches - sent : 0;
	stats->replies_spun += gyre__load(&counters->replies_spun, relaxed);
	stats->replies_slept += gyre__load(&counters->replies_slept, relaxed);
	stats->cq_overflows += gyre__load(&counters->cq_overflows, relaxed);
	add_tasks(&worker->tasks, stats);
	if (gyre__worker_is_dead(worker))
		stats->workers_dead++;
	else if (gyre__load(&worker->up, relaxed) == 1)
		stats->workers_alive++;
}

void gyre__runtime_stats(struct gyre *rt, int worker, struct gyre_stats *ret)
{
	unsigned i;

	memset(ret, 0, sizeof(*ret));
	ret->size = sizeof(*ret);
	if (worker >= 0) {
		add_worker(rt->crew->worker[worker], ret);
		return;
	}
	for (i = 0; i < rt->crew->count; i++)
		add_worker(rt->crew->worker[i], ret);
	gyre__threads_count(rt, &ret->calls, &ret->calls_in_caller);
	gyre__durable_stats(rt->durable, ret);
	/* Relaxed: a figure. */
	if (rt->pool && (rt->settings.mode == GYRE_MODE_POOLED ||
			 gyre__load(&rt->pool->in_use, relaxed)))
		ret->pool_size = rt->pool->size;
}
