/* SPDX-License-Identifier: MIT */
/*
 * gyre_stream_*: a task takes the results of a multishot op one by one.
 *
 * A stream belongs to the job that has opened it, and is used by its tasks. The
 * job does not end before its streams have: those that are open when its last
 * task has left are closed then, and the arena waits for them.
 */
#include <errno.h>

#include "jobs.h"
#include "ring/stream.h"
#include "runtime.h"
#include "thread.h"

struct gyre_stream {
	struct gyre__stream stream;
	struct gyre__held held;		/* by its job */
	struct gyre__task *waiting;	/* in next or close, parked; NULL: nobody */
	const void *data;		/* of the last result; NULL: none */
	bool orphaned;			/* its job ends, and nobody but that waits for it */
};

static void stream_free(struct gyre_stream *stream)
{
	gyre__stream_done(&stream->stream);
	gyre__free(stream);
}

/* Owner, from the turn of the ring. */
static void came(struct gyre__stream *ring_stream)
{
	struct gyre_stream *stream = gyre__container_of(ring_stream, struct gyre_stream, stream);
	struct gyre__task *waiting = stream->waiting;

	if (stream->orphaned && gyre__stream_is_over(ring_stream)) {
		struct gyre__job *job = stream->held.job;

		gyre__job_let_go(&stream->held);
		stream_free(stream);
		gyre__job_may_finish(job);
	} else if (waiting) {
		stream->waiting = NULL;
		gyre__task_ready(waiting);
	}
}

/* The job's last task has left. */
static void release(struct gyre__held *held)
{
	struct gyre_stream *stream = gyre__container_of(held, struct gyre_stream, held);

	stream->orphaned = true;
	if (!gyre__stream_close(&stream->stream))
		return;
	gyre__job_let_go(held);
	stream_free(stream);
}

/* ---------------------------------------------------------------- open -- */

static enum gyre_status report_open(const char *function, int rc, enum gyre__refusal refusal)
{
	switch (rc) {
	case -EINVAL:
		return gyre__fail(function, refusal == GYRE__REFUSED_UNSUPPORTED ||
				  refusal == GYRE__REFUSED_NO_MULTISHOT ? GYRE_UNSUPPORTED :
				  GYRE_INVALID, "%s", gyre__refusal_text(refusal));
	case -ESHUTDOWN:
		return gyre__fail(function, GYRE_CANCELLED, "the runtime's time to drain is over");
	case -EOWNERDEAD:
		return gyre__fail(function, GYRE_WORKER_DEAD, "the worker of this task has died");
	default:
		return gyre__fail_system(function, rc, "a stream with its buffers");
	}
}

/* The closure runs here, and is a prep closure like others: whatever it calls finds no task. */
static int open_on_ring(struct gyre__task *task, struct gyre_stream *stream, gyre_prep_fn *prep,
			void *arg, size_t buffer_size, unsigned buffers,
			enum gyre__refusal *ret_refusal)
{
	struct gyre__running *running = task->home->running, before = *running;
	int rc;

	*running = (struct gyre__running){ NULL, NULL };
	rc = gyre__stream_open(task->home->ring, &stream->stream, prep, arg, buffer_size, buffers,
			       ret_refusal);
	*running = before;
	return rc;
}

static enum gyre_status open_stream(const char *function, gyre_prep_fn *prep, void *arg,
				    size_t buffer_size, unsigned buffers, struct gyre_stream **ret)
{
	struct gyre__task *task = gyre__current_task();
	enum gyre__refusal refusal = GYRE__ACCEPTED;
	struct gyre_stream *stream;
	int rc;

	if (!task)
		return gyre__refuse_no_task(function);
	if (!prep || !ret)
		return gyre__fail(function, GYRE_INVALID, "%s is NULL", prep ? "ret" : "prep");
	stream = gyre__zalloc(sizeof(*stream));
	if (!stream)
		return gyre__fail(function, GYRE_NO_MEMORY, "out of memory for a stream");
	stream->stream.came = came;
	rc = open_on_ring(task, stream, prep, arg, buffer_size, buffers, &refusal);
	if (rc < 0) {
		gyre__free(stream);
		return report_open(function, rc, refusal);
	}
	gyre__job_hold(task->job, &stream->held, release);
	*ret = stream;
	gyre__thread_succeed(gyre__thread_of_task(task));
	return GYRE_OK;
}

enum gyre_status gyre_stream_open(gyre_prep_fn *prep, void *arg, struct gyre_stream **ret)
{
	return open_stream(__func__, prep, arg, 0, 0, ret);
}

enum gyre_status gyre_stream_open_buffers(gyre_prep_fn *prep, void *arg, size_t buffer_size,
					  unsigned buffers, struct gyre_stream **ret)
{
	if (buffer_size == 0 || buffers == 0)
		return gyre__fail(__func__, GYRE_INVALID, "%s is 0",
				  buffers ? "buffer_size" : "buffers");
	return open_stream(__func__, prep, arg, buffer_size, buffers, ret);
}

/* ---------------------------------------------------------------- next -- */

static enum gyre_status report_over(const struct gyre_stream *stream)
{
	enum gyre_status status = gyre__stream_status(&stream->stream);

	if (status == GYRE_OK)
		return gyre__fail("gyre_stream_next", GYRE_CLOSED, "the stream is at its end");
	return gyre__fail("gyre_stream_next", status, "%s", gyre_status_text(status));
}

static enum gyre_status check_use(const char *function, const struct gyre__task *task,
				  const struct gyre_stream *stream)
{
	if (!stream)
		return gyre__fail(function, GYRE_INVALID, "stream is NULL");
	if (stream->held.job != task->job)
		return gyre__fail(function, GYRE_INVALID, "the stream belongs to another job");
	if (stream->waiting)
		return gyre__fail(function, GYRE_INVALID,
				  "another task waits for this stream already");
	return GYRE_OK;
}

struct next_wait {
	struct gyre__wait wait;
	struct gyre_stream *stream;
};

static void interrupt_next(struct gyre__task *task, struct gyre__wait *wait)
{
	gyre__container_of(wait, struct next_wait, wait)->stream->waiting = NULL;
	gyre__task_ready(task);
}

static void wait_for_news(struct gyre__task *task, struct gyre_stream *stream)
{
	struct next_wait wait = {
		.wait = { .what = "gyre_stream_next", .interrupt = interrupt_next },
		.stream = stream,
	};

	stream->waiting = task;
	gyre__task_park(task, &wait.wait);
}

enum gyre_status gyre_stream_next(struct gyre_stream *stream, int *ret_res, uint32_t *ret_cqe_flags)
{
	struct gyre__task *task = gyre__current_task();
	struct gyre__result result;
	enum gyre_status status;

	if (!task)
		return gyre__refuse_no_task(__func__);
	status = check_use(__func__, task, stream);
	if (status != GYRE_OK)
		return status;
	stream->data = NULL;
	while (!gyre__stream_take(&stream->stream, &result, &stream->data)) {
		if (gyre__stream_is_over(&stream->stream))
			return report_over(stream);
		status = gyre__task_may_wait(task);
		if (status != GYRE_OK)
			return gyre__fail(__func__, status, "the task was cancelled");
		wait_for_news(task, stream);
	}
	if (ret_res)
		*ret_res = result.res;
	if (ret_cqe_flags)
		*ret_cqe_flags = result.cqe_flags;
	gyre__thread_succeed(gyre__thread_of_task(task));
	return GYRE_OK;
}

const void *gyre_stream_data(struct gyre_stream *stream)
{
	return stream ? stream->data : NULL;
}

/* --------------------------------------------------------------- close -- */

void gyre_stream_close(struct gyre_stream *stream)
{
	struct gyre__task *task = gyre__current_task();
	struct gyre__wait wait = { .what = __func__ };

	if (!stream || !task || check_use(__func__, task, stream) != GYRE_OK)
		return;
	if (!gyre__stream_close(&stream->stream))
		while (!gyre__stream_is_over(&stream->stream)) {
			stream->waiting = task;
			gyre__task_park(task, &wait);
		}
	gyre__job_let_go(&stream->held);
	stream_free(stream);
}
