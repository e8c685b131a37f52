/* SPDX-License-Identifier: MIT */
/*
 * The table of engines, what they share, and those that need no ring of ours:
 * plain system calls, and gyre itself.
 */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct bench_engine *const bench_engines[] = {
	&bench_threads,
	&bench_threads_fdatasync,
	&bench_gyre,
	&bench_gyre_ring,
	&bench_own_ring,
	&bench_raw,
	&bench_raw_batch,
	&bench_condvar,
	&bench_floor,
	&bench_gyre_nop,
	&bench_task,
	&bench_fiber,
	&bench_boost,
	&bench_ucontext,
	&bench_pthread,
	&bench_malloc,
	&bench_libuv,
	&bench_posixaio,
	&bench_fio_uring,
	&bench_fio_libaio,
	&bench_fio_psync,
	NULL,
};

const struct bench_engine *bench_engine_find(const char *name)
{
	const struct bench_engine *const *engine;

	for (engine = bench_engines; *engine; engine++)
		if (strcmp(name, (*engine)->name) == 0)
			break;
	return *engine;
}

int bench_op_fault(struct bench_caller *caller, const struct bench_op *op)
{
	static const char *const names[] = {
		[BENCH_OP_NOP] = "NOP",
		[BENCH_OP_READ] = "read",
		[BENCH_OP_WRITE] = "write",
		[BENCH_OP_DURABLE] = "durable write",
	};
	struct bench_run *run = caller->run;
	char why[PATH_MAX + BENCH_TEXT];

	if (op->kind != BENCH_OP_NOP && !bench_target_whole(run->target, why, sizeof(why)))
		return bench_fault(run, "%s", why);
	if (op->res < 0) {
		errno = -op->res;
		return bench_fault(run, "%s: a %s of %u bytes at %llu failed: %m (errno %d)",
				   run->engine->name, names[op->kind], op->len,
				   (unsigned long long)op->offset, -op->res);
	}
	return bench_fault(run, "%s: a %s at %llu gave %d of %u bytes", run->engine->name,
			   names[op->kind], (unsigned long long)op->offset, op->res, op->len);
}

void bench_op_call(struct bench_op *op)
{
	struct iovec iov = { op->buf, op->len };
	ssize_t n = 0;

	switch (op->kind) {
	case BENCH_OP_NOP:
		break;
	case BENCH_OP_READ:
		n = pread(op->fd, op->buf, op->len, (off_t)op->offset);
		break;
	case BENCH_OP_WRITE:
		n = pwrite(op->fd, op->buf, op->len, (off_t)op->offset);
		break;
	case BENCH_OP_DURABLE:
		n = pwritev2(op->fd, &iov, 1, (off_t)op->offset, RWF_DSYNC);
		break;
	}
	op->res = n < 0 ? -errno : (int32_t)n;
}

/* ------------------------------------------------------------ threads -- */

static int threads_step(struct bench_caller *caller)
{
	unsigned i;

	for (i = 0; i < caller->op_count; i++) {
		struct bench_op *op = &caller->ops[i];

		bench_op_next(caller, op);
		bench_op_call(op);
		if (!bench_op_good(op))
			return bench_op_fault(caller, op);
	}
	return 0;
}

const struct bench_engine bench_threads = {
	.name = "threads",
	.about = "pread(), pwrite(), RWF_DSYNC in each caller's own thread",
	.works = BENCH_ON_FILE,
	.step = threads_step,
};

static int threads_fdatasync_step(struct bench_caller *caller)
{
	unsigned i;

	for (i = 0; i < caller->op_count; i++) {
		struct bench_op *op = &caller->ops[i];
		ssize_t n;

		bench_op_next(caller, op);
		n = pwrite(op->fd, op->buf, op->len, (off_t)op->offset);
		op->res = n < 0 ? -errno : (int32_t)n;
		if (n >= 0 && fdatasync(op->fd) < 0)
			op->res = -errno;
		if (!bench_op_good(op))
			return bench_op_fault(caller, op);
	}
	return 0;
}

const struct bench_engine bench_threads_fdatasync = {
	.name = "fdatasync",
	.about = "pwrite() and fdatasync() in each caller's own thread",
	.works = BENCH_WORK_BIT(BENCH_DURABLE),
	.step = threads_fdatasync_step,
};

/* --------------------------------------------------------------- gyre -- */

#define ROUTE_VARIABLE	"GYRE_ROUTE"

/*
 * The route is no option of gyre_open() but a variable that it reads. Main
 * thread, while there is no other: setenv() would race a getenv() there.
 */
static enum gyre_status open_routed(const struct gyre_options *options, const char *route,
				    struct gyre **ret)
{
	const char *set = getenv(ROUTE_VARIABLE);
	char *saved = NULL;
	enum gyre_status status = GYRE_NO_MEMORY;

	if (set) {
		saved = strdup(set);
		if (!saved)
			return status;
	}
	if (setenv(ROUTE_VARIABLE, route, 1) < 0)
		goto out_free;
	status = gyre_open(options, ret);
	if (saved)
		setenv(ROUTE_VARIABLE, saved, 1);
	else
		unsetenv(ROUTE_VARIABLE);
out_free:
	free(saved);
	return status;
}

/* The text names the function, the reason and a hint. */
static int gyre_fault(struct bench_run *run, enum gyre_status status)
{
	return bench_fault(run, "%s: %s: %s", run->engine->name, gyre_status_name(status),
			   gyre_last_error());
}

static int gyre_start(struct bench_run *run, const char *route)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;
	struct gyre *rt = NULL;
	enum gyre_status status;

	options.workers = run->plan->workers;
	options.spin_ns = run->kase->spin_ns;
	status = open_routed(&options, route, &rt);
	if (status != GYRE_OK)
		return gyre_fault(run, status);
	run->state = rt;
	return 0;
}

static int gyre_open_auto(struct bench_run *run)
{
	return gyre_start(run, "auto");
}

static int gyre_open_ring(struct bench_run *run)
{
	return gyre_start(run, "ring");
}

static void gyre_stop(struct bench_run *run)
{
	struct gyre_stats stats = { .size = sizeof(stats) };

	if (gyre_stats_get(run->state, &stats) == GYRE_OK) {
		uint64_t replies = stats.replies_spun + stats.replies_slept;

		if (stats.calls > 0)
			run->in_caller = (double)stats.calls_in_caller / (double)stats.calls;
		if (replies > 0)
			run->awake = (double)stats.replies_spun / (double)replies;
	}
	gyre_close(run->state);
	gyre_free(run->state);
}

static void gyre_prep(struct io_uring_sqe *sqe, void *arg)
{
	bench_op_prep(sqe, arg);
}

static int gyre_join_vector(struct bench_caller *caller)
{
	struct gyre_op *vector;
	unsigned i;

	if (!caller->run->kase->vectored)
		return 0;
	vector = calloc(caller->op_count, sizeof(*vector));
	if (!vector)
		return bench_fault(caller->run, "no memory for a batch of %u", caller->op_count);
	for (i = 0; i < caller->op_count; i++) {
		vector[i].prep = gyre_prep;
		vector[i].arg = &caller->ops[i];
	}
	caller->state = vector;
	return 0;
}

static void gyre_leave_vector(struct bench_caller *caller)
{
	free(caller->state);
}

/*
 * A result has come: into op only if it is a bad one, as the worker has op's
 * line to read for the next prep, and writing it would take that away.
 */
static bool gyre_res_good(struct bench_op *op, int32_t res)
{
	if (res == (int32_t)op->len)
		return true;
	op->res = res;
	return false;
}

static int gyre_step_vector(struct bench_caller *caller)
{
	struct gyre_op *vector = caller->state;
	enum gyre_status status;
	unsigned i;

	for (i = 0; i < caller->op_count; i++)
		bench_op_next(caller, &caller->ops[i]);
	status = gyre_callv(caller->run->state, vector, caller->op_count);
	if (status != GYRE_OK)
		return gyre_fault(caller->run, status);
	for (i = 0; i < caller->op_count; i++) {
		if (gyre_res_good(&caller->ops[i], vector[i].res))
			continue;
		return bench_op_fault(caller, &caller->ops[i]);
	}
	return 0;
}

static int gyre_step_one(struct bench_caller *caller)
{
	struct gyre *rt = caller->run->state;
	struct bench_op *op = caller->ops;
	enum gyre_status status;
	int res = 0;

	bench_op_next(caller, op);
	switch (op->kind) {
	case BENCH_OP_NOP:
		status = gyre_call(rt, gyre_prep, op, &res);
		if (status != GYRE_OK)
			return gyre_fault(caller->run, status);
		break;
	case BENCH_OP_READ:
		res = (int32_t)gyre_pread(rt, op->fd, op->buf, op->len, (off_t)op->offset);
		break;
	case BENCH_OP_WRITE:
		res = (int32_t)gyre_pwrite(rt, op->fd, op->buf, op->len, (off_t)op->offset);
		break;
	case BENCH_OP_DURABLE:
		res = (int32_t)gyre_write_durable(rt, op->fd, op->buf, op->len,
						  (off_t)op->offset);
		break;
	}
	if (gyre_res_good(op, res))
		return 0;
	/* The same -EIO may be a device's or a dead worker's: only gyre can tell. */
	if (res < 0 && gyre_last_status() != GYRE_OK)
		return gyre_fault(caller->run, gyre_last_status());
	return bench_op_fault(caller, op);
}

static int job_main(void *arg)
{
	(void)arg;
	return 0;
}

static int gyre_step_job(struct bench_caller *caller)
{
	enum gyre_status status = gyre_block_on(caller->run->state, job_main, NULL, NULL, NULL);

	return status == GYRE_OK ? 0 : gyre_fault(caller->run, status);
}

static int gyre_step(struct bench_caller *caller)
{
	if (caller->run->kase->work == BENCH_JOB && caller->run->engine != &bench_gyre_nop)
		return gyre_step_job(caller);
	return caller->state ? gyre_step_vector(caller) : gyre_step_one(caller);
}

const struct bench_engine bench_gyre = {
	.name = "gyre",
	.about = "gyre_call(), gyre_pread(), gyre_write_durable() and so on, routed by gyre",
	.works = BENCH_ON_NOPS | BENCH_ON_FILE | BENCH_WORK_BIT(BENCH_JOB),
	.ours = true,
	.open = gyre_open_auto,
	.close = gyre_stop,
	.join = gyre_join_vector,
	.step = gyre_step,
	.leave = gyre_leave_vector,
};

const struct bench_engine bench_gyre_ring = {
	.name = "gyre-ring",
	.about = "the same, each call forced through a worker's ring",
	.works = BENCH_ON_NOPS | BENCH_ON_FILE,
	.ours = true,
	.open = gyre_open_ring,
	.close = gyre_stop,
	.join = gyre_join_vector,
	.step = gyre_step,
	.leave = gyre_leave_vector,
};

const struct bench_engine bench_gyre_nop = {
	.name = "gyre-nop",
	.about = "gyre_call() of a NOP, to hold jobs against",
	.works = BENCH_WORK_BIT(BENCH_JOB),
	.ours = true,
	.open = gyre_open_auto,
	.close = gyre_stop,
	.step = gyre_step,
};
