/* SPDX-License-Identifier: MIT */
/*
 * Other people's ways of doing I/O from a thread, where gyre-bench was built
 * with them. Each caller has a loop or a descriptor of its own, as one loop or
 * one descriptor for all would line the callers up behind each other.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MIN	4u
#define THREADS_MAX	1024u		/* libuv's own limit */

/*
 * For their pools, which are made once for the whole process: a thread for
 * each operation that any case of the plan has under way.
 */
static unsigned __attribute__((__unused__)) threads_for(const struct bench_plan *plan)
{
	unsigned i, threads = THREADS_MIN;

	for (i = 0; i < plan->case_count; i++)
		if (plan->cases[i].callers * plan->cases[i].batch > threads)
			threads = plan->cases[i].callers * plan->cases[i].batch;
	return threads < THREADS_MAX ? threads : THREADS_MAX;
}

/* -------------------------------------------------------------- libuv -- */

#ifdef BENCH_LIBUV
#include <uv.h>

#define POOL_VARIABLE	"UV_THREADPOOL_SIZE"

struct uv_op {
	union {
		uv_fs_t fs;
		uv_work_t work;
	} req;
	struct bench_op *op;
	struct uv_caller *caller;
};

struct uv_caller {
	uv_loop_t loop;
	unsigned left;			/* of the call: operations without an answer */
	struct uv_op ops[];
};

/* Unless the user has a wish. Main thread, while there is no other. */
static int uv_open(struct bench_run *run)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", threads_for(run->plan));
	if (setenv(POOL_VARIABLE, text, 0) < 0)
		return bench_fault(run, "no memory for an environment variable");
	return 0;
}

static int uv_join(struct bench_caller *caller)
{
	struct uv_caller *uv = calloc(1, sizeof(*uv) + caller->op_count * sizeof(uv->ops[0]));
	unsigned i;
	int rc;

	if (!uv)
		return bench_fault(caller->run, "no memory for a batch of %u", caller->op_count);
	rc = uv_loop_init(&uv->loop);
	if (rc < 0) {
		free(uv);
		return bench_fault(caller->run, "libuv: no loop: %s", uv_strerror(rc));
	}
	for (i = 0; i < caller->op_count; i++) {
		uv->ops[i].op = &caller->ops[i];
		uv->ops[i].caller = uv;
	}
	caller->state = uv;
	return 0;
}

static void uv_leave(struct bench_caller *caller)
{
	struct uv_caller *uv = caller->state;

	uv_loop_close(&uv->loop);
	free(uv);
}

static void uv_fs_done(uv_fs_t *req)
{
	struct uv_op *op = req->data;

	op->op->res = (int32_t)req->result;
	op->caller->left--;
	uv_fs_req_cleanup(req);
}

static void uv_fs_durable(uv_fs_t *req)
{
	struct uv_op *op = req->data;

	if (req->result < 0)
		op->op->res = (int32_t)req->result;
	op->caller->left--;
	uv_fs_req_cleanup(req);
}

/* Written, and now to be flushed by the same request. */
static void uv_fs_written(uv_fs_t *req)
{
	struct uv_op *op = req->data;
	int rc;

	op->op->res = (int32_t)req->result;
	uv_fs_req_cleanup(req);
	if (op->op->res >= 0) {
		rc = uv_fs_fdatasync(&op->caller->loop, req, op->op->fd, uv_fs_durable);
		if (rc == 0)
			return;
		op->op->res = rc;
	}
	op->caller->left--;
}

static void uv_work(uv_work_t *req)
{
	(void)req;
}

static void uv_work_done(uv_work_t *req, int status)
{
	struct uv_op *op = req->data;

	op->op->res = status;
	op->caller->left--;
}

static int uv_start(struct uv_caller *uv, struct uv_op *op)
{
	uv_buf_t buf = uv_buf_init(op->op->buf, op->op->len);
	int64_t offset = (int64_t)op->op->offset;

	switch (op->op->kind) {
	case BENCH_OP_READ:
		op->req.fs.data = op;
		return uv_fs_read(&uv->loop, &op->req.fs, op->op->fd, &buf, 1, offset, uv_fs_done);
	case BENCH_OP_WRITE:
		op->req.fs.data = op;
		return uv_fs_write(&uv->loop, &op->req.fs, op->op->fd, &buf, 1, offset, uv_fs_done);
	case BENCH_OP_DURABLE:
		op->req.fs.data = op;
		return uv_fs_write(&uv->loop, &op->req.fs, op->op->fd, &buf, 1, offset,
				   uv_fs_written);
	default:
		op->req.work.data = op;
		return uv_queue_work(&uv->loop, &op->req.work, uv_work, uv_work_done);
	}
}

static int uv_step(struct bench_caller *caller)
{
	struct uv_caller *uv = caller->state;
	unsigned i;
	int rc = 0;

	for (i = 0; i < caller->op_count && rc == 0; i++) {
		bench_op_next(caller, &caller->ops[i]);
		rc = uv_start(uv, &uv->ops[i]);
		uv->left += rc == 0;
	}
	while (uv->left > 0)
		uv_run(&uv->loop, UV_RUN_ONCE);
	if (rc < 0)
		return bench_fault(caller->run, "libuv: a request was refused: %s",
				   uv_strerror(rc));
	for (i = 0; i < caller->op_count; i++)
		if (!bench_op_good(&caller->ops[i]))
			return bench_op_fault(caller, &caller->ops[i]);
	return 0;
}
#else
static const char *uv_missing(void)
{
	return "gyre-bench was built without libuv (configure --with-libuv)";
}
#endif

const struct bench_engine bench_libuv = {
	.name = "libuv",
	.about = "a loop in each caller's thread: uv_queue_work(), uv_fs_read() and so on",
	.works = BENCH_ON_NOPS | BENCH_ON_FILE,
#ifdef BENCH_LIBUV
	.open = uv_open,
	.join = uv_join,
	.step = uv_step,
	.leave = uv_leave,
#else
	.missing = uv_missing,
#endif
};

/* ----------------------------------------------------------- posixaio -- */

#ifdef BENCH_POSIXAIO
#include <aio.h>

struct aio_caller {
	struct aiocb **list;
	struct aiocb ops[];
};

/* Heeded before the first request only. */
static int aio_open(struct bench_run *run)
{
#ifdef __GLIBC__
	struct aioinit init = {
		.aio_threads = (int)threads_for(run->plan),
		.aio_num = (int)threads_for(run->plan),
		.aio_idle_time = 1,
	};

	aio_init(&init);
#else
	(void)run;
#endif
	return 0;
}

static void aio_leave(struct bench_caller *caller)
{
	struct aio_caller *aio = caller->state;
	unsigned i;

	for (i = 0; i < caller->op_count; i++)
		if (aio->ops[i].aio_fildes >= 0)
			close(aio->ops[i].aio_fildes);
	free(aio->list);
	free(aio);
}

static void aio_set_op(struct aiocb *cb, const struct bench_op *op)
{
	cb->aio_fildes = dup(op->fd);
	cb->aio_buf = op->buf;
	cb->aio_nbytes = op->len;
	cb->aio_sigevent.sigev_notify = SIGEV_NONE;
}

static int aio_join(struct bench_caller *caller)
{
	struct aio_caller *aio = calloc(1, sizeof(*aio) + caller->op_count * sizeof(aio->ops[0]));
	unsigned i, without = 0;

	if (!aio)
		return bench_fault(caller->run, "no memory for a batch of %u", caller->op_count);
	caller->state = aio;
	aio->list = calloc(caller->op_count, sizeof(struct aiocb *));
	for (i = 0; i < caller->op_count; i++) {
		aio_set_op(&aio->ops[i], &caller->ops[i]);
		without += aio->ops[i].aio_fildes < 0;
	}
	if (without > 0 || !aio->list) {
		aio_leave(caller);
		return bench_fault(caller->run, "posixaio: caller %u lacks descriptors or memory; "
				   "each operation takes one (ulimit -n)", caller->index);
	}
	for (i = 0; i < caller->op_count; i++)
		aio->list[i] = &aio->ops[i];
	return 0;
}

/* Answered or not: the kernel's, or rather glibc's, no longer. */
static void aio_wait(struct aiocb *cb, struct bench_op *op)
{
	const struct aiocb *const list[] = { cb };
	int error;

	while ((error = aio_error(cb)) == EINPROGRESS)
		aio_suspend(list, 1, NULL);
	op->res = error ? -error : (int32_t)aio_return(cb);
}

/* Flushes what was written and must be durable; all at once, then waits for all. */
static void aio_flush(struct bench_caller *caller)
{
	struct aio_caller *aio = caller->state;
	struct bench_op *op = caller->ops, flush;
	unsigned i;

	for (i = 0; i < caller->op_count; i++)
		if (op[i].kind == BENCH_OP_DURABLE && op[i].res >= 0 &&
		    aio_fsync(O_DSYNC, &aio->ops[i]) < 0)
			op[i].res = -errno;
	for (i = 0; i < caller->op_count; i++) {
		if (op[i].kind != BENCH_OP_DURABLE || op[i].res < 0)
			continue;
		aio_wait(&aio->ops[i], &flush);
		if (flush.res < 0)
			op[i].res = flush.res;
	}
}

/* One by aio_read() or aio_write(), several by one lio_listio(). */
static int aio_step(struct bench_caller *caller)
{
	struct aio_caller *aio = caller->state;
	unsigned i;
	int rc;

	for (i = 0; i < caller->op_count; i++) {
		bench_op_next(caller, &caller->ops[i]);
		aio->ops[i].aio_offset = (off_t)caller->ops[i].offset;
		aio->ops[i].aio_lio_opcode = caller->ops[i].kind == BENCH_OP_READ ? LIO_READ :
										    LIO_WRITE;
	}
	if (caller->op_count > 1)
		rc = lio_listio(LIO_WAIT, aio->list, (int)caller->op_count, NULL);
	else if (caller->ops[0].kind == BENCH_OP_READ)
		rc = aio_read(&aio->ops[0]);
	else
		rc = aio_write(&aio->ops[0]);
	/* EIO: some have failed, which each of them tells; EINTR: all are under way. */
	if (rc < 0 && (caller->op_count == 1 || (errno != EIO && errno != EINTR)))
		return bench_fault(caller->run, "posixaio: a request was refused: %m");
	for (i = 0; i < caller->op_count; i++)
		aio_wait(&aio->ops[i], &caller->ops[i]);
	aio_flush(caller);
	for (i = 0; i < caller->op_count; i++)
		if (!bench_op_good(&caller->ops[i]))
			return bench_op_fault(caller, &caller->ops[i]);
	return 0;
}
#else
static const char *aio_missing(void)
{
	return "gyre-bench was built without POSIX aio (configure --with-posixaio)";
}
#endif

const struct bench_engine bench_posixaio = {
	.name = "posixaio",
	.about = "aio_read(), aio_write() and lio_listio() of the C library",
	.works = BENCH_ON_FILE,
#ifdef BENCH_POSIXAIO
	.open = aio_open,
	.join = aio_join,
	.step = aio_step,
	.leave = aio_leave,
#else
	.missing = aio_missing,
#endif
};
