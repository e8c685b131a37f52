/* SPDX-License-Identifier: MIT */
/*
 * gyre_dump: what is under way, as seen by the workers themselves: ops, jobs,
 * tasks, locals. Each is sent a control that writes its own down between two
 * turns, so that what is shown of one worker is true at one moment.
 */
#include "dump.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bridge.h"
#include "durable.h"
#include "elsewhere.h"
#include "offload.h"
#include "ring/ring.h"
#include "ring/sanitize.h"
#include "ring/stream.h"
#include "text.h"
#include "workers/job.h"
#include "workers/offload.h"
#include "workers/keys.h"

static const char *const phase_names[] = {
	[GYRE__RING_RUNNING] = "running",
	[GYRE__RING_DRAINING] = "draining",
	[GYRE__RING_CANCELLING] = "cancelling what outlasted the drain",
	[GYRE__RING_BURIED] = "dead, and its tasks are leaving",
	[GYRE__RING_DEAD] = "dead",
	[GYRE__RING_ENDED] = "ended",
};

static void dump_op(struct gyre__text *text, const struct gyre__ring *ring,
		    const struct gyre__op *op, uint64_t now_ns)
{
	uint64_t age_ns = now_ns > op->since_ns ? now_ns - op->since_ns : 0;

	gyre__text_add(text, "  op %" PRIu32 " %s", gyre__op_slot(&ring->table, op),
		       gyre__opcode_name(op->opcode));
	if (op->fd >= 0)
		gyre__text_add(text, " fd %d", op->fd);
	gyre__text_add(text, ", %s, since %" PRIu64 ".%03" PRIu64 " ms",
		       gyre__op_state_name((enum gyre__op_state)op->state),
		       age_ns / GYRE__NS_PER_MS, age_ns / GYRE__NS_PER_US % 1000);
	if (op->batch)
		gyre__text_add(text, ", %" PRIu32 " of %" PRIu32 " in its call", op->index + 1,
			       op->batch->count);
	if (op->timer != GYRE__NO_SLOT) {
		uint64_t due_ns = ring->timers.heap[op->timer].deadline_ns;

		gyre__text_add(text, ", due in %" PRIu64 " ms",
			       due_ns > now_ns ? (due_ns - now_ns) / GYRE__NS_PER_MS : 0);
	}
	gyre__text_add(text, "\n");
}

/* All of them, with or without an op in flight. */
static void dump_streams(struct gyre__text *text, const struct gyre__ring *ring)
{
	const struct gyre__list *all = &ring->streams.all;
	struct gyre__list *member;

	for (member = all->next; member && member != all; member = member->next) {
		const struct gyre__stream *stream = gyre__stream_of_all(member);

		gyre__text_add(text, "  stream %s fd %d: %s, %" PRIu32 " results not taken",
			       gyre__opcode_name(stream->sqe.opcode), stream->sqe.fd,
			       gyre__stream_state_name((enum gyre__stream_state)stream->state),
			       stream->count);
		if (stream->op != GYRE__NO_SLOT)
			gyre__text_add(text, ", op %" PRIu32, stream->op);
		if (stream->buffers)
			gyre__text_add(text, ", %" PRIu32 " of %" PRIu32 " buffers free",
				       stream->given - stream->used, stream->buffers);
		gyre__text_add(text, "\n");
	}
}

static void dump_waiting(struct gyre__text *text, const struct gyre__ring *ring)
{
	const struct gyre__batch *batch;
	uint32_t batches = 0;
	uint64_t ops = 0;

	for (batch = ring->waiting.head; batch; batch = batch->queue_next) {
		batches++;
		ops += batch->count - batch->started;
	}
	if (batches)
		gyre__text_add(text, "  %" PRIu64 " ops of %" PRIu32 " calls wait for room "
			       "(inflight_max %u)\n", ops, batches, ring->config.inflight_max);
}

static void dump_ring(struct gyre__text *text, const struct gyre__ring *ring)
{
	uint64_t now_ns = gyre__sys->now_ns();
	uint32_t i;

	for (i = 0; ring->table.ops && i < ring->table.used; i++) {
		const struct gyre__op *op = &ring->table.ops[i];

		/* Of the library's own, only those that hold somebody's buffer are news. */
		if (op->state != GYRE__OP_FREE &&
		    (op->batch || op->stream || op->state == GYRE__OP_LEFT))
			dump_op(text, ring, op, now_ns);
	}
	dump_streams(text, ring);
	dump_waiting(text, ring);
}

/* ---------------------------------------------------------------- tasks -- */

/*
 * So that a person finds it: FILE+OFFSET is what addr2line takes; the name, where the object tells.
 */
static void add_function(struct gyre__text *text, gyre_task_fn *fn)
{
	union {
		gyre_task_fn *fn;
		void *address;
	} u = { .fn = fn };
	const char *file;
	Dl_info info;

	if (!dladdr(u.address, &info) || !info.dli_fname) {
		gyre__text_add(text, "%p", u.address);
		return;
	}
	file = strrchr(info.dli_fname, '/');
	gyre__text_add(text, "%s%s%s+0x%zx%s", info.dli_sname ? info.dli_sname : "",
		       info.dli_sname ? " (" : "", file ? file + 1 : info.dli_fname,
		       (size_t)((char *)u.address - (char *)info.dli_fbase),
		       info.dli_sname ? ")" : "");
}

static void add_span(struct gyre__text *text, const char *what, uint64_t since_ns, uint64_t now_ns)
{
	uint64_t age_ns = now_ns > since_ns ? now_ns - since_ns : 0;

	gyre__text_add(text, ", %s %" PRIu64 ".%03" PRIu64 " ms", what, age_ns / GYRE__NS_PER_MS,
		       age_ns / GYRE__NS_PER_US % 1000);
}

static void dump_task(struct gyre__text *text, const struct gyre__task *task, uint64_t now_ns)
{
	gyre__text_add(text, "    task %" PRIu32 " ", task->serial);
	add_function(text, task->fn);
	if (task->state == GYRE__TASK_PARKED) {
		gyre__text_add(text, ", waits in %s", task->wait->what);
		add_span(text, "since", task->wait->since_ns, now_ns);
	} else {
		gyre__text_add(text, ", ready");
	}
	if (gyre__task_is_cancelled(task))
		add_span(text, "cancelled since", task->cancel_ns, now_ns);
	if (task->shielded)
		gyre__text_add(text, task->job->over ? ", gives its job's state back" :
			       ", in its defers");
	gyre__text_add(text, "\n");
}

#define KEY_SHOWN_MAX	64

/* A key may be long, and is anybody's. */
static void add_key(struct gyre__text *text, const struct gyre__keyed *keyed)
{
	char shown[KEY_SHOWN_MAX + 1];
	size_t i;

	for (i = 0; i < keyed->len && i < KEY_SHOWN_MAX; i++)
		shown[i] = (unsigned char)keyed->key[i] < ' ' ? '?' : keyed->key[i];
	shown[i] = '\0';
	gyre__text_add(text, " \"%s%s\"", shown, keyed->len > KEY_SHOWN_MAX ? "..." : "");
}

/* Where it is on its way to its state; what it waits in, its task tells. */
static const char *state_awaited(const struct gyre__job *job)
{
	bool wants_room;

	gyre__waits_lock();
	wants_room = job->keyed && job->keyed->waiter && job->keyed->waiter == job->first;
	gyre__waits_unlock();
	if (wants_room)
		return "waits for room in the pool";
	if (!job->line || job->line->first == job)
		return "creates its state";
	return job->keyed ? "waits for the state of its key" :
			    "waits for the state of its worker";
}

static void add_state(struct gyre__text *text, const struct gyre__job *job)
{
	if (job->state)
		gyre__text_add(text, ", runs on its state %p", job->state);
	else if (!job->began)
		gyre__text_add(text, ", %s", state_awaited(job));
	if (job->keyed) {
		gyre__text_add(text, ", key");
		add_key(text, job->keyed);
	}
}

/* Those of a worker, in its own thread. */
static void dump_pooled(struct gyre__text *text, const struct gyre__keys_side *side,
			uint64_t now_ns)
{
	const struct gyre__keyed *keyed;

	if (!side)
		return;
	gyre__sys->mutex_lock(&side->pool->lock);
	for (keyed = side->all; keyed; keyed = keyed->next) {
		gyre__text_add(text, "  state of key");
		add_key(text, keyed);
		if (keyed->value) {
			gyre__text_add(text, ": %p", keyed->value);
			add_span(text, "made before", keyed->since_ns, now_ns);
		} else {
			gyre__text_add(text, keyed->has_room ? ": not made yet" :
				       ": waits for room");
		}
		gyre__text_add(text, ", %" PRIu32 " job%s\n", keyed->users,
			       keyed->users == 1 ? "" : "s");
	}
	gyre__sys->mutex_unlock(&side->pool->lock);
}

static void dump_job(struct gyre__text *text, const struct gyre__job *job, uint64_t now_ns)
{
	const struct gyre__task *task;

	gyre__text_add(text, "  job %s%s%s: %" PRIu32 " task%s, %zu bytes of its arena",
		       job->name ? "\"" : "", job->name ? job->name : "without a name",
		       job->name ? "\"" : "", job->live, job->live == 1 ? "" : "s",
		       gyre__arena_used(&job->arena));
	add_span(text, "since", job->since_ns, now_ns);
	if (job->mode != GYRE_MODE_DEFAULT)
		add_state(text, job);
	if (!job->first)
		gyre__text_add(text, ", ends: its first task has returned");
	else if (job->panicked)
		gyre__text_add(text, ", ends: it has panicked");
	else if (job->reason != GYRE_OK)
		gyre__text_add(text, ", ends: %s", gyre_status_name(job->reason));
	gyre__text_add(text, "\n");
	for (task = job->tasks; task; task = task->job_next)
		dump_task(text, task, now_ns);
}

static void dump_tasks(struct gyre__text *text, const struct gyre__tasks *tasks)
{
	uint64_t now_ns = gyre__sys->now_ns();
	const struct gyre__job *job;
	uint32_t i;

	for (job = tasks->jobs; job; job = job->next)
		dump_job(text, job, now_ns);
	dump_pooled(text, tasks->pooled, now_ns);
	for (i = 0; i < tasks->locals.made_count; i++) {
		const struct gyre__local_entry *entry = tasks->locals.made[i];

		if (entry->local == &tasks->shared.local)
			gyre__text_add(text, "  state of worker %d: %p", gyre_current_worker(),
				       tasks->shared.value);
		else
			gyre__text_add(text, "  local %p of worker %d: value %p",
				       (void *)entry->local, gyre_current_worker(), entry->value);
		add_span(text, "made before", entry->since_ns, now_ns);
		gyre__text_add(text, "\n");
	}
}

/*
 * A task that hogs its worker keeps it from telling anything. With stall_ns what
 * runs can be seen from here, and is all that can be told of such a worker now.
 */
static bool dump_stall(struct gyre__text *text, struct gyre__worker *worker)
{
	struct gyre__tasks *tasks = &worker->tasks;
	uint64_t since_ns, now_ns = gyre__sys->now_ns();
	gyre_task_fn *fn;

	if (!tasks->stall_ns)
		return false;
	/* Two words that may not belong together: a wrong name is the worst of it. */
	since_ns = gyre__load(&tasks->stalled_ns, relaxed);
	fn = gyre__load(&tasks->stalled, relaxed);
	if (!fn || since_ns == 0 || now_ns < since_ns + tasks->stall_ns)
		return false;
	gyre__text_add(text, "worker %u (%s): stalled, its task ", worker->number, worker->name);
	add_function(text, fn);
	add_span(text, "has not yielded for", since_ns, now_ns);
	gyre__text_add(text, "; the rest shows once it does\n");
	return true;
}

/* What is kept of it is bounded; a runtime that is closed has no use for more. */
#define OUTLASTING_MAX	((size_t)64 << 10)

void gyre__dump_outlasting(struct gyre__tasks *tasks)
{
	struct gyre__text text = { 0 };

	if (tasks->jobs_live == 0 && tasks->ring->table.live == tasks->ring->table.live_library)
		return;
	dump_ring(&text, tasks->ring);
	dump_tasks(&text, tasks);
	if (text.len > OUTLASTING_MAX)
		text.data[OUTLASTING_MAX] = '\0';
	tasks->outlasted = text.data;
}

static void dump_head(struct gyre__text *text, const struct gyre__worker *worker)
{
	const struct gyre__ring *ring = &worker->ring;

	gyre__text_add(text, "worker %u (%s): %s, %" PRIu32 " ops in flight, %u SQ entries\n",
		       worker->number, worker->name, phase_names[ring->phase],
		       ring->table.live - ring->table.live_library, ring->uring.sq.ring_entries);
}

struct dump {
	struct gyre__text *text;
	const struct gyre__worker *worker;
};

static bool control_dump(struct gyre__ring *ring, struct gyre__batch *batch)
{
	const struct dump *dump = batch->control_arg;

	dump_head(dump->text, dump->worker);
	if (ring->busy_ns)
		gyre__text_add(dump->text,
			       "  the kernel refuses submissions: tried again every "
			       "%" PRIu64 " us\n", ring->busy_ns / GYRE__NS_PER_US);
	dump_ring(dump->text, ring);
	dump_tasks(dump->text, &dump->worker->tasks);
	return true;
}

/* It has ended, and changes no more. */
static void dump_ended(struct gyre__text *text, const struct gyre__worker *worker)
{
	dump_head(text, worker);
	if (worker->tasks.outlasted)
		gyre__text_add(text, "  outlasted the time to drain, and was cancelled:\n%s%s",
			       worker->tasks.outlasted,
			       strlen(worker->tasks.outlasted) == OUTLASTING_MAX ? " ...\n" : "");
}

static void dump_all(struct gyre__thread *self, struct gyre *rt, struct gyre__text *text)
{
	unsigned i, threads, idle;

	gyre__text_add(text, "gyre %s, runtime \"%s\": %u worker%s%s\n", gyre_version(),
		       rt->settings.name, rt->crew->count, rt->crew->count == 1 ? "" : "s",
		       gyre__load(&rt->closed, acquire) ? ", closed" : "");
	for (i = 0; i < rt->crew->count; i++) {
		struct dump dump = { text, rt->crew->worker[i] };

		if (dump_stall(text, rt->crew->worker[i]))
			continue;
		if (!gyre__bridge_control(self, rt->crew->worker[i], control_dump, &dump))
			dump_ended(text, rt->crew->worker[i]);
	}
	threads = gyre__offload_threads(rt->offload, &idle);
	if (threads)
		gyre__text_add(text, "helper threads: %u of %u, %u of them idle\n", threads,
			       rt->settings.offload_threads, idle);
	threads = gyre__offload_threads(rt->reserve, &idle);
	if (threads)
		gyre__text_add(text, "helper threads in reserve: %u of %u, %u of them idle\n",
			       threads, GYRE__OFFLOAD_RESERVE, idle);
	gyre__durable_dump(rt->durable, text);
}

enum gyre_status gyre_dump(struct gyre *rt, int fd)
{
	struct gyre__thread *self = gyre__thread_self();
	struct gyre__text text = { 0 };
	enum gyre_status status;

	if (gyre__must_go_elsewhere())
		return gyre__dump_elsewhere(rt, fd);
	if (self && gyre__thread_is_in_prep(self))
		return gyre__fail(__func__, GYRE_WOULD_DEADLOCK, "a prep closure may not wait");
	status = gyre__runtime_look(__func__, &rt);
	if (status != GYRE_OK)
		return status;
	self = gyre__thread_self();	/* there is one since the look */
	dump_all(self, rt, &text);
	status = gyre__text_send(&text, fd, __func__);
	gyre__text_done(&text);
	gyre__runtime_leave(rt);
	return status == GYRE_OK ? gyre__succeed() : status;
}
