/* SPDX-License-Identifier: MIT */
#include "elsewhere.h"

#include "offload.h"

/* The arguments of any of these, and what came of it. */
struct call {
	struct gyre *rt;
	int fd;
	const void *buf;
	size_t len;
	off_t offset;
	struct gyre_buffer **ret_buffer;
	enum gyre_format format;
	int (*on_fd)(struct gyre *rt, int fd);
	ssize_t res;
	enum gyre_status status;
};

static enum gyre_status make(const char *function, struct call *call, enum gyre__call_kind kind,
			     void (*fn)(void *arg))
{
	struct gyre__thread *self = gyre__thread_self();

	if (!call->rt)
		call->rt = self->runtime;
	return gyre__elsewhere(function, self, kind, fn, call);
}

static void write_durable(void *arg)
{
	struct call *call = arg;

	call->res = gyre_write_durable(call->rt, call->fd, call->buf, call->len, call->offset);
}

ssize_t gyre__write_durable_elsewhere(struct gyre *rt, int fd, const void *buf, size_t len,
				      off_t offset)
{
	struct call call = { .rt = rt, .fd = fd, .buf = buf, .len = len, .offset = offset };
	enum gyre_status status = make("gyre_write_durable", &call, GYRE__CALL_BRIEF,
				       write_durable);

	return status == GYRE_OK ? call.res : gyre_status_errno(status);
}

static void on_fd(void *arg)
{
	struct call *call = arg;

	call->res = call->on_fd(call->rt, call->fd);
}

static int make_on_fd(const char *function, struct gyre *rt, int fd,
		      int (*fn)(struct gyre *rt, int fd))
{
	struct call call = { .rt = rt, .fd = fd, .on_fd = fn };
	enum gyre_status status = make(function, &call, GYRE__CALL_BRIEF, on_fd);

	return status == GYRE_OK ? (int)call.res : gyre_status_errno(status);
}

int gyre__durable_reset_elsewhere(struct gyre *rt, int fd)
{
	return make_on_fd("gyre_durable_reset", rt, fd, gyre_durable_reset);
}

int gyre__fsync_elsewhere(struct gyre *rt, int fd)
{
	return make_on_fd("gyre_fsync", rt, fd, gyre_fsync);
}

int gyre__fdatasync_elsewhere(struct gyre *rt, int fd)
{
	return make_on_fd("gyre_fdatasync", rt, fd, gyre_fdatasync);
}

int gyre__close_fd_elsewhere(struct gyre *rt, int fd)
{
	return make_on_fd("gyre_close_fd", rt, fd, gyre_close_fd);
}

static void buffer_get(void *arg)
{
	struct call *call = arg;

	call->status = gyre_buffer_get(call->rt, call->len, call->ret_buffer);
}

enum gyre_status gyre__buffer_get_elsewhere(struct gyre *rt, size_t len, struct gyre_buffer **ret)
{
	struct call call = { .rt = rt, .len = len, .ret_buffer = ret };
	enum gyre_status status = make("gyre_buffer_get", &call, GYRE__CALL_BRIEF, buffer_get);

	return status == GYRE_OK ? call.status : status;
}

static void dump(void *arg)
{
	struct call *call = arg;

	call->status = gyre_dump(call->rt, call->fd);
}

enum gyre_status gyre__dump_elsewhere(struct gyre *rt, int fd)
{
	struct call call = { .rt = rt, .fd = fd };
	enum gyre_status status = make("gyre_dump", &call, GYRE__CALL_LASTING, dump);

	return status == GYRE_OK ? call.status : status;
}

static void stats_write(void *arg)
{
	struct call *call = arg;

	call->status = gyre_stats_write(call->rt, call->fd, call->format);
}

enum gyre_status gyre__stats_write_elsewhere(struct gyre *rt, int fd, enum gyre_format format)
{
	struct call call = { .rt = rt, .fd = fd, .format = format };
	enum gyre_status status = make("gyre_stats_write", &call, GYRE__CALL_LASTING, stats_write);

	return status == GYRE_OK ? call.status : status;
}
