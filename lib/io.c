/* SPDX-License-Identifier: MIT */
/*
 * The usual calls, and where they run.
 *
 * On a thread that may block, one plain operation without a time-out is the
 * plain system call in that thread: it has been measured to be no worse, always,
 * as the thread is there anyway. GYRE_ROUTE=ring sends them all to a worker. In a
 * task all go to the ring but for a read that the page cache holds.
 * Each call is described once, in a struct from which either way is taken.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>

#include "bridge.h"
#include "durable.h"
#include "elsewhere.h"
#include "offload.h"
#include "ring/ring.h"

#define RW_COUNT_MAX	((size_t)0x7ffff000)	/* what read(2) and write(2) move at most */
#define SECTOR		512

/* In 80 bytes: so many are cleared by plain stores. */
struct io_call {
	const char *function;
	int fd;
	int flags;
	char *buf;			/* writes only read it */
	size_t len;
	off_t offset;			/* -1: where the descriptor stands */
	const struct iovec *iov;
	int iovcnt;
	bool trivial;			/* nothing to move, or more than a call can: no ring */
	const char *path;
	mode_t mode;
	unsigned mask;
	struct statx *statx;
};

/* A kind of call: as an SQE, as a system call, and what both must refuse alike. */
struct io_kind {
	gyre_prep_fn *prep;
	ssize_t (*here)(const struct io_call *call);
	/* For the ring only; 0 or a negative errno. */
	int (*check)(const struct io_call *call);
	bool cached;			/* the page cache may have it */
};

/* A hint to poll for completions, which a ring that is made to sleep cannot take. */
static int without_hints(int rw_flags)
{
	return rw_flags & ~RWF_HIPRI;
}

/* That the kernel has read from the vector shows that it is one. */
static size_t wanted(const struct io_call *call)
{
	size_t len = call->len;
	int i;

	for (i = 0; i < call->iovcnt; i++)
		len += call->iov[i].iov_len;
	return len;
}

/*
 * In a task: whatever may block goes to the ring. What the page cache holds cannot,
 * but only a try shows whether it does; and a read past the page cache must not
 * even be tried, as it is waited for. Nor one that moves the descriptor's place, from
 * where the ring would have to read again what the try had read in part.
 */
static bool read_from_cache(const struct io_call *call, ssize_t *ret_res)
{
	struct iovec one = { call->buf, call->len };
	ssize_t res;

	if (call->offset < 0 || !gyre__thread_reads_cache(call->fd))
		return false;
	res = gyre__sys->preadv2(call->fd, call->iovcnt ? call->iov : &one,
				 call->iovcnt ? call->iovcnt : 1, call->offset,
				 without_hints(call->flags) | RWF_NOWAIT);
	if (res == -EOPNOTSUPP)
		gyre__thread_note_no_cache(call->fd);
	if (res == -EOPNOTSUPP || res == -EAGAIN || (res > 0 && (size_t)res < wanted(call)))
		return false;		/* or the rest of it is not there */
	*ret_res = res;
	return true;
}

static bool runs_here(const struct gyre__thread *self, const struct gyre *rt,
		      const struct io_call *call)
{
	if (gyre__likely(!self->task))
		return rt->route != GYRE__ROUTE_RING || call->trivial;
	return rt->route == GYRE__ROUTE_CALLER || call->trivial;
}

static ssize_t run(struct gyre__thread *self, struct gyre *rt, const struct io_kind *kind,
		   struct io_call *call)
{
	struct gyre__home *home = gyre__thread_home(self, rt);
	ssize_t res = 0;

	gyre__count(&home->calls, 1);
	if (gyre__likely(runs_here(self, rt, call))) {
		gyre__count(&home->calls_in_caller, 1);
		res = kind->here(call);
		gyre__thread_succeed(self);
		return res;
	}
	if (kind->cached && rt->route == GYRE__ROUTE_AUTO && read_from_cache(call, &res)) {
		gyre__count(&home->calls_in_caller, 1);
		gyre__thread_succeed(self);
		return res;
	}
	if (kind->check)
		res = kind->check(call);
	if (res < 0) {
		gyre__thread_succeed(self);
		return res;
	}
	return gyre__bridge_call(self, rt, call->function, kind->prep, call, 0);
}

/* The whole of a call: in, run, out. */
static inline ssize_t io_call(struct gyre *rt, const struct io_kind *kind, struct io_call *call)
{
	struct gyre__thread *self;
	enum gyre_status status = gyre__runtime_enter(call->function, &rt, &self);
	ssize_t res;

	if (gyre__unlikely(status != GYRE_OK))
		return gyre_status_errno(status);
	res = run(self, rt, kind, call);
	gyre__thread_leave(self);
	return res;
}

static bool is_trivial(size_t len)
{
	return len == 0 || len > RW_COUNT_MAX;
}

static unsigned sqe_len(const struct io_call *call)
{
	return (unsigned)call->len;	/* the rest is trivial */
}

/*
 * What pread(2) refuses and the ring would not: there, a negative offset has a
 * meaning of its own, and pipes and sockets just ignore it.
 */
static int check_offset(const struct io_call *call)
{
	struct stat st;
	int rc;

	if (call->offset < 0)
		return -EINVAL;
	rc = gyre__sys->fstat(call->fd, &st);
	if (rc < 0)
		return rc;
	/* Pipes, sockets, and the kernel's anonymous files, which are of no type at all. */
	return S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || (st.st_mode & S_IFMT) == 0 ?
	       -ESPIPE : 0;
}

static int check_vector(const struct io_call *call)
{
	if (call->iovcnt < 0 || call->iovcnt > IOV_MAX || call->offset < -1)
		return -EINVAL;
	return call->offset == -1 ? 0 : check_offset(call);
}

/* -------------------------------------------------------- read and write -- */

static void prep_read(struct io_uring_sqe *sqe, void *arg)
{
	const struct io_call *call = arg;

	io_uring_prep_read(sqe, call->fd, call->buf, sqe_len(call), (uint64_t)call->offset);
}

static void prep_write(struct io_uring_sqe *sqe, void *arg)
{
	const struct io_call *call = arg;

	io_uring_prep_write(sqe, call->fd, call->buf, sqe_len(call), (uint64_t)call->offset);
}

static ssize_t here_read(const struct io_call *call)
{
	return gyre__sys->read(call->fd, call->buf, call->len);
}

static ssize_t here_write(const struct io_call *call)
{
	return gyre__sys->write(call->fd, call->buf, call->len);
}

static ssize_t here_pread(const struct io_call *call)
{
	return gyre__sys->pread(call->fd, call->buf, call->len, call->offset);
}

static ssize_t here_pwrite(const struct io_call *call)
{
	return gyre__sys->pwrite(call->fd, call->buf, call->len, call->offset);
}

static const struct io_kind kind_read = { prep_read, here_read, NULL, false };
static const struct io_kind kind_write = { prep_write, here_write, NULL, false };
static const struct io_kind kind_pread = { prep_read, here_pread, check_offset, true };
static const struct io_kind kind_pwrite = { prep_write, here_pwrite, check_offset, false };

/* Again and again: a descriptor with O_NONBLOCK is waited for. */
static ssize_t call_and_wait(struct gyre *rt, const struct io_kind *kind, struct io_call *call,
			     short events)
{
	ssize_t res;
	int ready;

	while ((res = io_call(rt, kind, call)) == -EAGAIN && gyre_last_status() == GYRE_OK) {
		ready = gyre_poll(rt, call->fd, events, GYRE_FOREVER);
		if (ready < 0)
			return ready;
	}
	return res;
}

ssize_t gyre_read(struct gyre *rt, int fd, void *buf, size_t len)
{
	struct io_call call = { .trivial = is_trivial(len), .function = __func__, .fd = fd,
				.buf = buf, .len = len, .offset = -1 };

	return call_and_wait(rt, &kind_read, &call, POLLIN);
}

ssize_t gyre_write(struct gyre *rt, int fd, const void *buf, size_t len)
{
	struct io_call call = { .trivial = is_trivial(len), .function = __func__, .fd = fd,
				.buf = (char *)(uintptr_t)buf, .len = len, .offset = -1 };

	return call_and_wait(rt, &kind_write, &call, POLLOUT);
}

ssize_t gyre_pread(struct gyre *rt, int fd, void *buf, size_t len, off_t offset)
{
	struct io_call call = { .trivial = is_trivial(len), .function = __func__, .fd = fd,
				.buf = buf, .len = len, .offset = offset };

	return io_call(rt, &kind_pread, &call);
}

ssize_t gyre_pwrite(struct gyre *rt, int fd, const void *buf, size_t len, off_t offset)
{
	struct io_call call = { .trivial = is_trivial(len), .function = __func__, .fd = fd,
				.buf = (char *)(uintptr_t)buf, .len = len, .offset = offset };

	return io_call(rt, &kind_pwrite, &call);
}

/* ---------------------------------------------------------------- vectors -- */

static void prep_readv(struct io_uring_sqe *sqe, void *arg)
{
	const struct io_call *call = arg;

	io_uring_prep_readv2(sqe, call->fd, call->iov, (unsigned)call->iovcnt,
			     (uint64_t)call->offset, without_hints(call->flags));
}

static void prep_writev(struct io_uring_sqe *sqe, void *arg)
{
	const struct io_call *call = arg;

	io_uring_prep_writev2(sqe, call->fd, call->iov, (unsigned)call->iovcnt,
			      (uint64_t)call->offset, without_hints(call->flags));
}

static ssize_t here_preadv2(const struct io_call *call)
{
	return gyre__sys->preadv2(call->fd, call->iov, call->iovcnt, call->offset, call->flags);
}

static ssize_t here_pwritev2(const struct io_call *call)
{
	return gyre__sys->pwritev2(call->fd, call->iov, call->iovcnt, call->offset, call->flags);
}

static const struct io_kind kind_preadv2 = { prep_readv, here_preadv2, check_vector, true };
static const struct io_kind kind_pwritev2 = { prep_writev, here_pwritev2, check_vector, false };

ssize_t gyre_preadv2(struct gyre *rt, int fd, const struct iovec *iov, int iovcnt, off_t offset,
		     int flags)
{
	struct io_call call = { .trivial = iovcnt == 0, .function = __func__, .fd = fd,
				.iov = iov, .iovcnt = iovcnt,
				.offset = offset, .flags = flags };

	return io_call(rt, &kind_preadv2, &call);
}

ssize_t gyre_pwritev2(struct gyre *rt, int fd, const struct iovec *iov, int iovcnt, off_t offset,
		      int flags)
{
	struct io_call call = { .trivial = iovcnt == 0, .function = __func__, .fd = fd,
				.iov = iov, .iovcnt = iovcnt,
				.offset = offset, .flags = flags };

	return io_call(rt, &kind_pwritev2, &call);
}

/* --------------------------------------------------------------- in full -- */

/*
 * Direct reads cannot go on from the odd place where a file ends: -EINVAL there
 * is the end of the file, if that is where it is.
 */
static bool ends_before(int fd, off_t offset)
{
	struct stat st;

	return offset % SECTOR != 0 && gyre__sys->fstat(fd, &st) == 0 && st.st_size <= offset;
}

ssize_t gyre_pread_full(struct gyre *rt, int fd, void *buf, size_t len, off_t offset)
{
	struct io_call call = { .function = __func__, .fd = fd };
	size_t done = 0;
	ssize_t res;

	if (len > SSIZE_MAX)
		len = SSIZE_MAX;
	do {
		call.buf = (char *)buf + done;
		call.len = len - done;
		call.offset = offset + (off_t)done;
		res = io_call(rt, &kind_pread, &call);
		if (res == -EINTR && gyre_last_status() == GYRE_OK)
			continue;
		if (res == -EINVAL && done > 0 && ends_before(fd, call.offset))
			break;
		if (res < 0)
			return res;
		done += (size_t)res;
	} while (res != 0 && done < len);
	return (ssize_t)done;
}

/* Of the piece that failed nothing may be there; of the whole, the pieces before it are. */
static void note_pieces(void)
{
	struct gyre__thread *self = gyre__thread_self();

	if (self && self->last_effect == GYRE_EFFECT_NONE)
		self->last_effect = GYRE_EFFECT_UNKNOWN;
}

ssize_t gyre_pwrite_full(struct gyre *rt, int fd, const void *buf, size_t len, off_t offset)
{
	struct io_call call = { .function = __func__, .fd = fd };
	size_t done = 0;
	ssize_t res;

	if (len > SSIZE_MAX)
		return -EINVAL;
	do {
		call.buf = (char *)(uintptr_t)buf + done;
		call.len = len - done;
		call.offset = offset + (off_t)done;
		res = io_call(rt, &kind_pwrite, &call);
		/* Interrupted before the first byte is all that -EINTR of pwrite(2) means. */
		if (res == -EINTR && gyre_last_effect() == GYRE_EFFECT_DONE)
			continue;
		if (res < 0) {
			if (done > 0)
				note_pieces();
			return res;
		}
		done += (size_t)res;
	} while (done < len && res != 0);
	return done < len ? -EIO : (ssize_t)done;
}

/* ----------------------------------------------------------------- open … -- */

static void prep_openat(struct io_uring_sqe *sqe, void *arg)
{
	const struct io_call *call = arg;

	io_uring_prep_openat(sqe, call->fd, call->path, call->flags, call->mode);
}

static void prep_statx(struct io_uring_sqe *sqe, void *arg)
{
	const struct io_call *call = arg;

	io_uring_prep_statx(sqe, call->fd, call->path, call->flags, call->mask, call->statx);
}

static void prep_fallocate(struct io_uring_sqe *sqe, void *arg)
{
	const struct io_call *call = arg;

	io_uring_prep_fallocate(sqe, call->fd, call->flags, call->offset, (off_t)call->len);
}

static ssize_t here_openat(const struct io_call *call)
{
	return gyre__sys->openat(call->fd, call->path, call->flags, call->mode);
}

static ssize_t here_statx(const struct io_call *call)
{
	return gyre__sys->statx(call->fd, call->path, call->flags, call->mask, call->statx);
}

static ssize_t here_fallocate(const struct io_call *call)
{
	return gyre__sys->fallocate(call->fd, call->flags, call->offset, (off_t)call->len);
}

static const struct io_kind kind_openat = { prep_openat, here_openat, NULL, false };
static const struct io_kind kind_statx = { prep_statx, here_statx, NULL, false };
static const struct io_kind kind_fallocate = { prep_fallocate, here_fallocate, NULL, false };

int gyre_openat(struct gyre *rt, int dirfd, const char *path, int flags, mode_t mode)
{
	struct io_call call = { .function = __func__, .fd = dirfd, .path = path, .flags = flags,
				.mode = mode };

	return (int)io_call(rt, &kind_openat, &call);
}

int gyre_statx(struct gyre *rt, int dirfd, const char *path, int flags, unsigned mask,
	       struct statx *buf)
{
	struct io_call call = { .function = __func__, .fd = dirfd, .path = path, .flags = flags,
				.mask = mask, .statx = buf };

	return (int)io_call(rt, &kind_statx, &call);
}

int gyre_fallocate(struct gyre *rt, int fd, int mode, off_t offset, off_t len)
{
	struct io_call call = { .function = __func__, .fd = fd, .flags = mode, .offset = offset,
				.len = (size_t)len };

	return (int)io_call(rt, &kind_fallocate, &call);
}

/* ------------------------------------------------------------------ poll -- */

static void prep_poll(struct io_uring_sqe *sqe, void *arg)
{
	const struct io_call *call = arg;

	io_uring_prep_poll_add(sqe, call->fd, (unsigned)call->flags);
}

static ssize_t poll_here(int fd, short events, uint64_t timeout_ns)
{
	struct pollfd pollfd = { fd, events, 0 };
	int n = gyre__sys->poll(&pollfd, 1, timeout_ns);

	if (n < 0)
		return n;
	return pollfd.revents & POLLNVAL ? -EBADF : pollfd.revents;
}

/* A time-out of zero is a look: on the ring, the shortest that there is. */
static ssize_t poll_on_ring(struct gyre__thread *self, struct gyre *rt, struct io_call *call,
			    uint64_t timeout_ns)
{
	ssize_t res;

	if (timeout_ns == GYRE_FOREVER)
		timeout_ns = 0;
	else if (timeout_ns == 0)
		timeout_ns = 1;
	res = gyre__bridge_call(self, rt, call->function, prep_poll, call, timeout_ns);
	if (self->last_status == GYRE_TIMED_OUT) {
		gyre__thread_succeed(self);
		return 0;
	}
	return res;
}

int gyre_poll(struct gyre *rt, int fd, short events, uint64_t timeout_ns)
{
	struct io_call call = { .function = __func__, .fd = fd, .flags = (unsigned short)events };
	struct gyre__thread *self;
	enum gyre_status status = gyre__runtime_enter(__func__, &rt, &self);
	struct gyre__home *home;
	ssize_t res;

	if (status != GYRE_OK)
		return gyre_status_errno(status);
	home = gyre__thread_home(self, rt);
	gyre__count(&home->calls, 1);
	if (fd >= 0 && (self->task || rt->route == GYRE__ROUTE_RING)) {
		res = poll_on_ring(self, rt, &call, timeout_ns);
	} else {
		gyre__count(&home->calls_in_caller, 1);
		res = fd < 0 ? -EBADF : poll_here(fd, events, timeout_ns);
		gyre__thread_succeed(self);
	}
	gyre__thread_leave(self);
	return (int)res;
}

/* ----------------------------------------------------------------- close -- */

/*
 * What was submitted earlier must not meet the descriptor's next owner: a
 * barrier goes through every inbox, and the close comes after all of them. A
 * worker that sleeps with nothing under way needs none.
 */
int gyre_close_fd(struct gyre *rt, int fd)
{
	struct gyre__thread *self;
	enum gyre_status status;
	unsigned i;
	int res = -EBADF;

	if (gyre__must_go_elsewhere())
		return gyre__close_fd_elsewhere(rt, fd);
	status = gyre__runtime_enter(__func__, &rt, &self);
	if (status != GYRE_OK)
		return gyre_status_errno(status);
	gyre__count(&gyre__thread_home(self, rt)->calls, 1);
	if (fd >= 0) {
		gyre__durable_let_finish(rt->durable, fd);
		for (i = 0; i < rt->crew->count; i++)
			if (!gyre__ring_is_idle(&rt->crew->worker[i]->ring))
				gyre__bridge_control(self, rt->crew->worker[i], gyre__ring_barrier,
						     &fd);
		res = gyre__sys->close(fd);
	}
	gyre__thread_succeed(self);
	gyre__thread_leave(self);
	return res;
}
