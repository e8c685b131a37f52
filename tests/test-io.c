/* SPDX-License-Identifier: MIT */
/*
 * The pread family. First against the system calls themselves: every call with
 * every argument on every kind of descriptor, by every route, must answer what
 * the plain call answers and leave behind what it leaves behind. Then what the
 * plain calls do not have.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

static const char *const routes[] = { "caller", "ring", "auto" };
#define ROUTES	3

static struct gyre *open_with_route(const char *route)
{
	struct gyre *rt;

	setenv("GYRE_ROUTE", route, 1);
	rt = test_open_workers(1);
	unsetenv("GYRE_ROUTE");
	return rt;
}

/* -------------------------------------- what a call may be made on -- */

struct subject {
	int fd;
	int view;	/* another way to what it holds; -1: none */
	int other;	/* kept open besides; -1: none */
};

static struct subject subject_of(int fd, int view, int other)
{
	return (struct subject){ fd, view, other };
}

/* A file of 100 bytes, opened in this way, and looked at in another. */
static struct subject file_opened(int flags)
{
	int view = test_file(100);

	return subject_of(test_reopen(view, flags), view, -1);
}

static struct subject a_file(void) { return file_opened(O_RDWR); }
static struct subject a_read_only_file(void) { return file_opened(O_RDONLY); }
static struct subject a_write_only_file(void) { return file_opened(O_WRONLY); }
static struct subject an_append_file(void) { return file_opened(O_RDWR | O_APPEND); }
static struct subject a_nonblocking_file(void) { return file_opened(O_RDWR | O_NONBLOCK); }
static struct subject a_path(void) { return file_opened(O_PATH); }

static struct subject a_file_in_its_middle(void)
{
	struct subject subject = file_opened(O_RDWR);

	expect_eq(lseek(subject.fd, 50, SEEK_SET), 50);
	return subject;
}

static struct subject an_empty_file(void)
{
	int view = test_file(0);

	return subject_of(test_reopen(view, O_RDWR), view, -1);
}

static struct subject a_memfd(void)
{
	int fd = memfd_create("gyre", MFD_CLOEXEC);

	expect_eq(write(fd, "memory", 6), 6);
	return subject_of(fd, test_reopen(fd, O_RDONLY), -1);
}

static struct subject device(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	expect_ge(fd, 0);
	return subject_of(fd, -1, -1);
}

static struct subject dev_null(void) { return device("/dev/null", O_RDWR); }
static struct subject dev_zero(void) { return device("/dev/zero", O_RDWR); }
static struct subject dev_full(void) { return device("/dev/full", O_RDWR); }
static struct subject a_directory(void) { return device("/", O_RDONLY | O_DIRECTORY); }
static struct subject a_proc_file(void) { return device("/proc/version", O_RDONLY); }

static struct subject a_pipe_with_five_bytes(void)
{
	struct test_pipe pipe = test_pipe();

	expect_eq(write(pipe.w, "fives", 5), 5);
	return subject_of(pipe.r, -1, pipe.w);
}

static struct subject a_pipe_at_its_end(void)
{
	struct test_pipe pipe = test_pipe();

	close(pipe.w);
	return subject_of(pipe.r, -1, -1);
}

static struct subject a_pipe_to_write(void)
{
	struct test_pipe pipe = test_pipe();

	return subject_of(pipe.w, -1, pipe.r);
}

static struct subject a_broken_pipe(void)
{
	struct test_pipe pipe = test_pipe();

	close(pipe.r);
	return subject_of(pipe.w, -1, -1);
}

static struct subject a_socket_with_five_bytes(void)
{
	int fds[2];

	expect_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	expect_eq(write(fds[1], "fives", 5), 5);
	return subject_of(fds[0], -1, fds[1]);
}

static struct subject a_socket_without_a_peer(void)
{
	int fds[2];

	expect_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	close(fds[1]);
	return subject_of(fds[0], -1, -1);
}

static struct subject a_socket_never_connected(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	expect_ge(fd, 0);
	return subject_of(fd, -1, -1);
}

static struct subject a_listening_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	expect_ge(fd, 0);
	/* a name that the kernel picks */
	expect_eq(bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
	expect_eq(listen(fd, 1), 0);
	return subject_of(fd, -1, -1);
}

static struct subject an_eventfd(void) { return subject_of(eventfd(3, EFD_CLOEXEC), -1, -1); }
static struct subject an_epoll(void) { return subject_of(epoll_create1(EPOLL_CLOEXEC), -1, -1); }

static struct subject a_timerfd_that_is_due(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct itimerspec at_once = { .it_value = { .tv_nsec = 1 } };
	struct pollfd ready = { fd, POLLIN, 0 };

	expect_eq(timerfd_settime(fd, 0, &at_once, NULL), 0);
	expect_eq(poll(&ready, 1, -1), 1);
	return subject_of(fd, -1, -1);
}

static struct subject nothing(void) { return subject_of(test_closed_fd(), -1, -1); }
static struct subject minus_one(void) { return subject_of(-1, -1, -1); }
static struct subject at_fdcwd(void) { return subject_of(AT_FDCWD, -1, -1); }
static struct subject int_max(void) { return subject_of(INT_MAX, -1, -1); }
static struct subject int_min(void) { return subject_of(INT_MIN, -1, -1); }

static const struct {
	const char *name;
	struct subject (*make)(void);
} subjects[] = {
#define SUBJECT(name) { #name, name }
	SUBJECT(a_file), SUBJECT(a_read_only_file), SUBJECT(a_write_only_file),
	SUBJECT(an_append_file), SUBJECT(a_nonblocking_file), SUBJECT(a_path),
	SUBJECT(a_file_in_its_middle), SUBJECT(an_empty_file), SUBJECT(a_memfd),
	SUBJECT(dev_null), SUBJECT(dev_zero), SUBJECT(dev_full), SUBJECT(a_directory),
	SUBJECT(a_proc_file), SUBJECT(a_pipe_with_five_bytes), SUBJECT(a_pipe_at_its_end),
	SUBJECT(a_pipe_to_write), SUBJECT(a_broken_pipe), SUBJECT(a_socket_with_five_bytes),
	SUBJECT(a_socket_without_a_peer), SUBJECT(a_socket_never_connected),
	SUBJECT(a_listening_socket), SUBJECT(an_eventfd), SUBJECT(an_epoll),
	SUBJECT(a_timerfd_that_is_due), SUBJECT(nothing), SUBJECT(minus_one), SUBJECT(at_fdcwd),
	SUBJECT(int_max), SUBJECT(int_min),
};

static void close_if_open(int fd)
{
	if (fd >= 0 && fd != INT_MAX)
		close(fd);
}

static void subject_close(const struct subject *subject)
{
	close_if_open(subject->fd);
	close_if_open(subject->view);
	close_if_open(subject->other);
}

/* --------------------------------------------- what a call may be -- */

struct arguments {
	int fd;
	char *buf;
	size_t len;
	off_t offset;
	struct iovec *iov;
	int iovcnt;
	int flags;
	struct statx *statx;
};

/* rt NULL: the system call itself, with its errno as the result. */
typedef ssize_t call_fn(struct gyre *rt, const struct arguments *a);

static ssize_t plain(ssize_t n)
{
	return n < 0 ? -errno : n;
}

static ssize_t do_read(struct gyre *rt, const struct arguments *a)
{
	return rt ? gyre_read(rt, a->fd, a->buf, a->len) : plain(read(a->fd, a->buf, a->len));
}

static ssize_t do_write(struct gyre *rt, const struct arguments *a)
{
	return rt ? gyre_write(rt, a->fd, a->buf, a->len) : plain(write(a->fd, a->buf, a->len));
}

static ssize_t do_pread(struct gyre *rt, const struct arguments *a)
{
	return rt ? gyre_pread(rt, a->fd, a->buf, a->len, a->offset) :
		    plain(pread(a->fd, a->buf, a->len, a->offset));
}

static ssize_t do_pwrite(struct gyre *rt, const struct arguments *a)
{
	return rt ? gyre_pwrite(rt, a->fd, a->buf, a->len, a->offset) :
		    plain(pwrite(a->fd, a->buf, a->len, a->offset));
}

/* Of libc's, the ones that fall back where flags are 0 would hide what the kernel says. */
static ssize_t do_preadv2(struct gyre *rt, const struct arguments *a)
{
	return rt ? gyre_preadv2(rt, a->fd, a->iov, a->iovcnt, a->offset, a->flags) :
		    plain(syscall(SYS_preadv2, a->fd, a->iov, (long)a->iovcnt, (long)a->offset, 0L,
				  (long)a->flags));
}

static ssize_t do_pwritev2(struct gyre *rt, const struct arguments *a)
{
	return rt ? gyre_pwritev2(rt, a->fd, a->iov, a->iovcnt, a->offset, a->flags) :
		    plain(syscall(SYS_pwritev2, a->fd, a->iov, (long)a->iovcnt, (long)a->offset,
				  0L, (long)a->flags));
}

static ssize_t do_fsync(struct gyre *rt, const struct arguments *a)
{
	return rt ? gyre_fsync(rt, a->fd) : plain(fsync(a->fd));
}

static ssize_t do_fdatasync(struct gyre *rt, const struct arguments *a)
{
	return rt ? gyre_fdatasync(rt, a->fd) : plain(fdatasync(a->fd));
}

static ssize_t do_fallocate(struct gyre *rt, const struct arguments *a)
{
	return rt ? gyre_fallocate(rt, a->fd, a->flags, a->offset, (off_t)a->len) :
		    plain(fallocate(a->fd, a->flags, a->offset, (off_t)a->len));
}

static ssize_t do_statx(struct gyre *rt, const struct arguments *a)
{
	unsigned mask = (unsigned)a->len;

	return rt ? gyre_statx(rt, a->fd, a->buf, a->flags, mask, a->statx) :
		    plain(syscall(SYS_statx, a->fd, a->buf, a->flags, mask, a->statx));
}

static ssize_t do_openat(struct gyre *rt, const struct arguments *a)
{
	int fd = rt ? gyre_openat(rt, a->fd, a->buf, a->flags, (mode_t)a->len) :
		      (int)plain(syscall(SYS_openat, a->fd, a->buf, a->flags, (mode_t)a->len));

	if (fd < 0)
		return fd;
	/* Not its number, but what it is. */
	a->statx->stx_mode = (uint16_t)(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_DIRECTORY));
	a->statx->stx_mask = (uint32_t)fcntl(fd, F_GETFD);
	close(fd);
	return 1;
}

static ssize_t do_close(struct gyre *rt, const struct arguments *a)
{
	int fd = a->fd >= 0 && a->fd < 100000 ? dup(a->fd) : a->fd;

	if (a->fd >= 0 && fd < 0)
		fd = a->fd;
	errno = 4711;
	return rt ? gyre_close_fd(rt, fd) : plain(close(fd));
}

#define BUF_LEN	256
#define NULL_BUF	((char *)1)		/* in a row: NULL; the row's own buffer otherwise */
#define BAD_BUF		((char *)8)		/* an address that nobody has */

struct row {
	const char *what;
	call_fn *fn;
	size_t len;
	off_t offset;
	int flags;
	int iovcnt;
	char *buf;
};

/* offset and iovcnt are those of calls with vectors; a vector's pieces are len bytes each. */
static const struct row rows[] = {
	{ "read 5", do_read, .len = 5 },
	{ "read 0", do_read, .len = 0 },
	{ "read 8", do_read, .len = 8 },
	{ "read 200", do_read, .len = 200 },
	{ "read to NULL", do_read, .len = 5, .buf = NULL_BUF },
	{ "read 0 to NULL", do_read, .len = 0, .buf = NULL_BUF },
	{ "read to nowhere", do_read, .len = 5, .buf = BAD_BUF },
	{ "read of SSIZE_MAX", do_read, .len = SSIZE_MAX },
	{ "read of SIZE_MAX", do_read, .len = SIZE_MAX },
	{ "write 3", do_write, .len = 3 },
	{ "write 8", do_write, .len = 8 },
	{ "write 0", do_write, .len = 0 },
	{ "write from NULL", do_write, .len = 5, .buf = NULL_BUF },
	{ "write 0 from NULL", do_write, .len = 0, .buf = NULL_BUF },
	{ "write from nowhere", do_write, .len = 5, .buf = BAD_BUF },
	{ "write of SIZE_MAX", do_write, .len = SIZE_MAX },
	{ "pread 5 at 0", do_pread, .len = 5, .offset = 0 },
	{ "pread 8 at 3", do_pread, .len = 8, .offset = 3 },
	{ "pread 200 at 50", do_pread, .len = 200, .offset = 50 },
	{ "pread 0 at 0", do_pread, .len = 0, .offset = 0 },
	{ "pread at the end", do_pread, .len = 5, .offset = 100 },
	{ "pread past the end", do_pread, .len = 5, .offset = 5000 },
	{ "pread at -1", do_pread, .len = 5, .offset = -1 },
	{ "pread at -2", do_pread, .len = 5, .offset = -2 },
	{ "pread 0 at -1", do_pread, .len = 0, .offset = -1 },
	{ "pread at INT64_MIN", do_pread, .len = 5, .offset = INT64_MIN },
	{ "pread at INT64_MAX", do_pread, .len = 5, .offset = INT64_MAX },
	{ "pread at INT64_MAX - 3", do_pread, .len = 5, .offset = INT64_MAX - 3 },
	{ "pread to NULL", do_pread, .len = 5, .buf = NULL_BUF },
	{ "pread to nowhere", do_pread, .len = 5, .buf = BAD_BUF },
	{ "pread of SIZE_MAX", do_pread, .len = SIZE_MAX },
	{ "pwrite 5 at 0", do_pwrite, .len = 5 },
	{ "pwrite 5 at 98", do_pwrite, .len = 5, .offset = 98 },
	{ "pwrite 0 at 0", do_pwrite, .len = 0 },
	{ "pwrite at -1", do_pwrite, .len = 5, .offset = -1 },
	{ "pwrite at -2", do_pwrite, .len = 5, .offset = -2 },
	{ "pwrite at INT64_MAX", do_pwrite, .len = 5, .offset = INT64_MAX },
	{ "pwrite from NULL", do_pwrite, .len = 5, .buf = NULL_BUF },
	{ "pwrite from nowhere", do_pwrite, .len = 5, .buf = BAD_BUF },
	{ "pwrite of SIZE_MAX", do_pwrite, .len = SIZE_MAX },
	{ "preadv2 3 x 10 at 0", do_preadv2, .len = 10, .iovcnt = 3 },
	{ "preadv2 3 x 10 here", do_preadv2, .len = 10, .iovcnt = 3, .offset = -1 },
	{ "preadv2 3 x 40 at 50", do_preadv2, .len = 40, .iovcnt = 3, .offset = 50 },
	{ "preadv2 3 x 40 here", do_preadv2, .len = 40, .iovcnt = 3, .offset = -1 },
	{ "preadv2 1 x 8 here", do_preadv2, .len = 8, .iovcnt = 1, .offset = -1 },
	{ "preadv2 1 x 0 at 0", do_preadv2, .len = 0, .iovcnt = 1 },
	{ "preadv2 of nothing", do_preadv2, .len = 10, .iovcnt = 0 },
	{ "preadv2 of nothing here", do_preadv2, .len = 10, .iovcnt = 0, .offset = -1 },
	{ "preadv2 of -1", do_preadv2, .len = 10, .iovcnt = -1 },
	{ "preadv2 of INT_MIN", do_preadv2, .len = 10, .iovcnt = INT_MIN },
	{ "preadv2 of 1024", do_preadv2, .len = 0, .iovcnt = 1024 },
	{ "preadv2 of 1025", do_preadv2, .len = 0, .iovcnt = 1025 },
	{ "preadv2 of INT_MAX", do_preadv2, .len = 0, .iovcnt = INT_MAX },
	{ "preadv2 at -2", do_preadv2, .len = 10, .iovcnt = 1, .offset = -2 },
	{ "preadv2 at INT64_MIN", do_preadv2, .len = 10, .iovcnt = 1, .offset = INT64_MIN },
	{ "preadv2 of NULL", do_preadv2, .len = 10, .iovcnt = 2, .buf = NULL_BUF },
	{ "preadv2 of nowhere", do_preadv2, .len = 10, .iovcnt = 2, .buf = BAD_BUF },
	{ "preadv2 NOWAIT", do_preadv2, .len = 10, .iovcnt = 1, .flags = RWF_NOWAIT },
	{ "preadv2 NOWAIT here", do_preadv2, .len = 10, .iovcnt = 1, .offset = -1,
	  .flags = RWF_NOWAIT },
	{ "preadv2 HIPRI", do_preadv2, .len = 10, .iovcnt = 1, .flags = RWF_HIPRI },
	{ "preadv2 DSYNC", do_preadv2, .len = 10, .iovcnt = 1, .flags = RWF_DSYNC },
	{ "preadv2 APPEND", do_preadv2, .len = 10, .iovcnt = 1, .flags = RWF_APPEND },
	{ "preadv2 unheard-of flag", do_preadv2, .len = 10, .iovcnt = 1, .flags = 1 << 30 },
	{ "preadv2 all flags", do_preadv2, .len = 10, .iovcnt = 1, .flags = -1 },
	{ "pwritev2 3 x 10 at 0", do_pwritev2, .len = 10, .iovcnt = 3 },
	{ "pwritev2 3 x 10 here", do_pwritev2, .len = 10, .iovcnt = 3, .offset = -1 },
	{ "pwritev2 1 x 8 here", do_pwritev2, .len = 8, .iovcnt = 1, .offset = -1 },
	{ "pwritev2 of nothing", do_pwritev2, .len = 10, .iovcnt = 0 },
	{ "pwritev2 of -1", do_pwritev2, .len = 10, .iovcnt = -1 },
	{ "pwritev2 of 1025", do_pwritev2, .len = 0, .iovcnt = 1025 },
	{ "pwritev2 at -2", do_pwritev2, .len = 10, .iovcnt = 1, .offset = -2 },
	{ "pwritev2 of NULL", do_pwritev2, .len = 10, .iovcnt = 2, .buf = NULL_BUF },
	{ "pwritev2 of nowhere", do_pwritev2, .len = 10, .iovcnt = 2, .buf = BAD_BUF },
	{ "pwritev2 DSYNC", do_pwritev2, .len = 10, .iovcnt = 1, .flags = RWF_DSYNC },
	{ "pwritev2 SYNC here", do_pwritev2, .len = 10, .iovcnt = 1, .offset = -1,
	  .flags = RWF_SYNC },
	{ "pwritev2 APPEND", do_pwritev2, .len = 10, .iovcnt = 1, .flags = RWF_APPEND },
	{ "pwritev2 APPEND here", do_pwritev2, .len = 10, .iovcnt = 1, .offset = -1,
	  .flags = RWF_APPEND },
	{ "pwritev2 HIPRI", do_pwritev2, .len = 10, .iovcnt = 1, .flags = RWF_HIPRI },
	{ "pwritev2 unheard-of flag", do_pwritev2, .len = 10, .iovcnt = 1, .flags = 1 << 30 },
	{ "pwritev2 unheard-of flag here", do_pwritev2, .len = 10, .iovcnt = 1, .offset = -1,
	  .flags = 1 << 30 },
	{ "fsync", do_fsync, .len = 0 },
	{ "fdatasync", do_fdatasync, .len = 0 },
	{ "fallocate 200", do_fallocate, .len = 200 },
	{ "fallocate 200, size kept", do_fallocate, .len = 200, .flags = FALLOC_FL_KEEP_SIZE },
	{ "fallocate a hole", do_fallocate, .len = 50,
	  .flags = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE },
	{ "fallocate a hole, alone", do_fallocate, .len = 50, .flags = FALLOC_FL_PUNCH_HOLE },
	{ "fallocate 0", do_fallocate, .len = 0 },
	{ "fallocate -1", do_fallocate, .len = (size_t)-1 },
	{ "fallocate at -1", do_fallocate, .len = 10, .offset = -1 },
	{ "fallocate past all ends", do_fallocate, .len = 10, .offset = INT64_MAX - 3 },
	{ "fallocate unheard-of mode", do_fallocate, .len = 10, .flags = 1 << 30 },
	{ "statx of itself", do_statx, .flags = AT_EMPTY_PATH,
	  .len = STATX_TYPE | STATX_MODE | STATX_NLINK },
	{ "statx of itself, not asked for", do_statx, .len = STATX_TYPE },
	{ "statx of NULL", do_statx, .len = STATX_TYPE, .buf = NULL_BUF },
	{ "statx of nowhere", do_statx, .len = STATX_TYPE, .buf = BAD_BUF },
	{ "statx unheard-of flags", do_statx, .flags = 1 << 30, .len = STATX_TYPE },
	{ "statx unheard-of mask", do_statx, .flags = AT_EMPTY_PATH, .len = 1u << 31 },
	{ "openat of \"\"", do_openat, .flags = O_RDONLY },
	{ "openat of NULL", do_openat, .flags = O_RDONLY, .buf = NULL_BUF },
	{ "openat of nowhere", do_openat, .flags = O_RDONLY, .buf = BAD_BUF },
	{ "close", do_close, .len = 0 },
};

/* -------------------------------------------------- what came of it -- */

struct outcome {
	ssize_t result;
	char buf[BUF_LEN];
	struct statx statx;
	off_t position;
	off_t size;
	char held[BUF_LEN];
	ssize_t holds;
	int errno_changed;
	enum gyre_status status;
};

static void observe(const struct subject *subject, struct outcome *outcome)
{
	struct stat st;
	int bytes;

	outcome->position = subject->fd >= 0 ? lseek(subject->fd, 0, SEEK_CUR) : -1;
	if (subject->view >= 0) {
		expect_eq(fstat(subject->view, &st), 0);
		outcome->size = st.st_size;
		outcome->holds = pread(subject->view, outcome->held, BUF_LEN, 0);
	}
	if (subject->other >= 0 && ioctl(subject->fd, FIONREAD, &bytes) == 0)
		outcome->holds = bytes;
	/* Times and device numbers are nobody's answer. */
	memset(&outcome->statx.stx_atime, 0, 4 * sizeof(outcome->statx.stx_atime));
	outcome->statx.stx_ino = outcome->statx.stx_blocks = 0;
	outcome->statx.stx_nlink = 0;
}

static void make_call(struct gyre *rt, const struct row *row, const struct subject *subject,
		      struct outcome *outcome)
{
	static const char letters[BUF_LEN] = "\1\0\0\0\0\0\0\0letters that a write writes";
	struct iovec iov[3] = { { outcome->buf, row->len },
				{ outcome->buf + row->len, row->len },
				{ outcome->buf + 2 * row->len, row->len } };
	struct iovec *many = calloc(1025, sizeof(*many));
	struct arguments a = { .fd = subject->fd, .len = row->len, .offset = row->offset,
			       .iov = row->iovcnt > 3 ? many : iov, .iovcnt = row->iovcnt,
			       .flags = row->flags, .buf = outcome->buf,
			       .statx = &outcome->statx };

	memset(outcome, 0, sizeof(*outcome));
	memset(outcome->buf, 0xee, BUF_LEN);
	if (row->fn == do_write || row->fn == do_pwrite || row->fn == do_pwritev2)
		memcpy(outcome->buf, letters, BUF_LEN);
	if (row->fn == do_statx || row->fn == do_openat)
		outcome->buf[0] = '\0';
	if (row->buf == NULL_BUF) {
		a.buf = NULL;
		a.iov = NULL;
	} else if (row->buf == BAD_BUF) {
		a.buf = BAD_BUF;
		a.iov = (struct iovec *)(void *)BAD_BUF;
	}
	errno = 4711;
	outcome->result = row->fn(rt, &a);
	if (rt && errno != 4711)
		outcome->errno_changed = 1;
	outcome->status = rt ? gyre_last_status() : GYRE_OK;
	free(many);
}

static void run_case(struct gyre *rt, unsigned s, const struct row *row, struct outcome *outcome)
{
	struct subject subject = subjects[s].make();

	make_call(rt, row, &subject, outcome);
	observe(&subject, outcome);
	subject_close(&subject);
}

struct in_task {
	unsigned subject;
	const struct row *row;
	struct outcome *outcome;
};

static int task_case(void *arg)
{
	const struct in_task *in_task = arg;

	run_case(gyre_current(), in_task->subject, in_task->row, in_task->outcome);
	return 0;
}

/*
 * A device without an end would write all over us. And an epoll descriptor has
 * no read at all, but can be polled: the ring waits for it to become readable,
 * and only then finds out.
 */
static bool cannot_be_tried(unsigned s, const struct row *row, bool ring)
{
	bool moves = row->fn != do_fsync && row->fn != do_fdatasync && row->fn != do_fallocate &&
		     row->fn != do_statx && row->fn != do_openat && row->fn != do_close;

	if (ring && moves && subjects[s].make == an_epoll)
		return true;
	return row->len > BUF_LEN &&
	       (subjects[s].make == dev_zero || subjects[s].make == dev_full);
}

/*
 * What differs first, in words; NULL: nothing does. Where several arguments are
 * wrong, the ring may look at another one first: any refusal will do there.
 */
static const char *difference(const struct outcome *got, const struct outcome *want, bool ring)
{
	static char text[80];

	if (got->result != want->result && !(ring && got->result < 0 && want->result < 0)) {
		snprintf(text, sizeof(text), "answers %zd, the system call %zd", got->result,
			 want->result);
		return text;
	}
	if (got->position != want->position)
		return "leaves the file elsewhere";
	if (got->size != want->size || got->holds != want->holds ||
	    memcmp(got->held, want->held, BUF_LEN) != 0)
		return "leaves other contents";
	if (memcmp(got->buf, want->buf, BUF_LEN) != 0)
		return "gives other bytes";
	if (memcmp(&got->statx, &want->statx, sizeof(got->statx)) != 0)
		return "tells other things of the file";
	if (got->errno_changed)
		return "changes errno";
	if (got->status != GYRE_OK)
		return "takes the kernel's answer for the runtime's";
	return NULL;
}

/* What differs on one kind of descriptor; NULL: nothing does. */
static const char *compare(struct gyre *rt, bool in_task, bool ring, unsigned s,
			   const struct row *row)
{
	struct outcome want, got;
	struct in_task arg = { s, row, &got };

	/* The plain call may raise SIGPIPE; the library's may not. */
	signal(SIGPIPE, SIG_IGN);
	run_case(NULL, s, row, &want);
	signal(SIGPIPE, SIG_DFL);
	if (in_task)
		test_block_on(rt, task_case, &arg);
	else
		run_case(rt, s, row, &got);
	return difference(&got, &want, ring);
}

/* One line for each row that differs anywhere, and the test fails in the end. */
static void compare_everything(const char *route, bool in_task)
{
	const unsigned count = sizeof(subjects) / sizeof(subjects[0]);
	const bool ring = strcmp(route, "ring") == 0 || (in_task && strcmp(route, "auto") == 0);
	struct gyre *rt = open_with_route(route);
	unsigned s, r, rows_that_differ = 0;

	for (r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		char first[160] = "";
		unsigned differ = 0;

		for (s = 0; s < count; s++) {
			const char *differs;

			test_row("%s on %s by %s", rows[r].what, subjects[s].name, route);
			differs = cannot_be_tried(s, &rows[r], ring) ?
				  NULL : compare(rt, in_task, ring, s, &rows[r]);
			if (differs && differ++ == 0)
				snprintf(first, sizeof(first), "%s %s", subjects[s].name, differs);
		}
		if (differ)
			test_note("%s by %s differs on %u descriptors, %s", rows[r].what, route,
				  differ, first);
		rows_that_differ += differ > 0;
	}
	gyre_free(rt);
	test_row("%s", route);
	expect_eq(rows_that_differ, 0);
}

TEST(every_call_on_every_descriptor_answers_as_the_system_call_does_by_the_caller)
{
	compare_everything("caller", false);
}

TEST(every_call_on_every_descriptor_answers_as_the_system_call_does_by_the_ring)
{
	compare_everything("ring", false);
}

TEST(every_call_on_every_descriptor_answers_as_the_system_call_does_by_itself)
{
	compare_everything("auto", false);
}

TEST(every_call_on_every_descriptor_answers_in_a_task_as_the_system_call_does_by_the_caller)
{
	compare_everything("caller", true);
}

TEST(every_call_on_every_descriptor_answers_in_a_task_as_the_system_call_does_by_the_ring)
{
	compare_everything("ring", true);
}

TEST(every_call_on_every_descriptor_answers_in_a_task_as_the_system_call_does_by_itself)
{
	compare_everything("auto", true);
}

/* ----------------------------------------------------- routes are used -- */

TEST(route_decides_where_calls_run_and_the_statistics_tell)
{
	struct gyre *rt = open_with_route("ring");
	int fd = test_file(100);
	char byte;

	expect_eq(gyre_pread(rt, fd, &byte, 1, 0), 1);
	expect_eq(test_stat(rt, calls), 1);
	expect_eq(test_stat(rt, calls_in_caller), 0);
	expect_eq(test_stat(rt, ops_submitted), 1);
	gyre_free(rt);
	rt = open_with_route("caller");
	expect_eq(gyre_pread(rt, fd, &byte, 1, 0), 1);
	expect_eq(test_stat(rt, calls), 1);
	expect_eq(test_stat(rt, calls_in_caller), 1);
	expect_eq(test_stat(rt, ops_submitted), 0);
	gyre_free(rt);
	close(fd);
}

/* ------------------------------------------------ what waits, by route -- */

struct waiting {
	struct gyre *rt;
	struct test_pipe pipe;
	atomic_int done;
	ssize_t n;
	char buf[8];
};

static void *read_and_wait(void *arg)
{
	struct waiting *waiting = arg;

	waiting->n = gyre_read(waiting->rt, waiting->pipe.r, waiting->buf, 8);
	atomic_store(&waiting->done, 1);
	return NULL;
}

TEST(read_waits_on_a_pipe_that_does_not_block)
{
	unsigned r;

	for (r = 0; r < ROUTES; r++) {
		struct waiting waiting = { .rt = open_with_route(routes[r]) };
		pthread_t thread;
		uint64_t calls;

		test_row("%s", routes[r]);
		waiting.pipe = test_pipe();
		expect_eq(fcntl(waiting.pipe.r, F_SETFL, O_NONBLOCK), 0);
		expect_eq(pthread_create(&thread, NULL, read_and_wait, &waiting), 0);
		/* the read found nothing, and it waits by poll */
		do
			calls = test_stat(waiting.rt, calls);
		while (calls < 2 && test_stat(waiting.rt, inflight) == 0);
		expect_eq(atomic_load(&waiting.done), 0);
		expect_eq(write(waiting.pipe.w, "hello", 5), 5);
		pthread_join(thread, NULL);
		expect_eq(waiting.n, 5);
		expect_eq(memcmp(waiting.buf, "hello", 5), 0);
		test_pipe_close(&waiting.pipe);
		gyre_free(waiting.rt);
	}
}

static void *write_and_wait(void *arg)
{
	struct waiting *waiting = arg;

	waiting->n = gyre_write(waiting->rt, waiting->pipe.w, "x", 1);
	atomic_store(&waiting->done, 1);
	return NULL;
}

TEST(write_waits_for_room_in_a_pipe_that_does_not_block)
{
	static char full[65536];
	unsigned r;

	for (r = 0; r < ROUTES; r++) {
		struct waiting waiting = { .rt = open_with_route(routes[r]) };
		pthread_t thread;

		test_row("%s", routes[r]);
		waiting.pipe = test_pipe();
		expect_eq(fcntl(waiting.pipe.w, F_SETFL, O_NONBLOCK), 0);
		while (write(waiting.pipe.w, full, sizeof(full)) > 0)
			;
		expect_eq(pthread_create(&thread, NULL, write_and_wait, &waiting), 0);
		await(test_stat(waiting.rt, calls) > 0);
		expect_eq(atomic_load(&waiting.done), 0);
		expect_gt(read(waiting.pipe.r, full, sizeof(full)), 0);
		pthread_join(thread, NULL);
		expect_eq(waiting.n, 1);
		test_pipe_close(&waiting.pipe);
		gyre_free(waiting.rt);
	}
}

TEST(poll_tells_what_holds)
{
	unsigned r;

	for (r = 0; r < ROUTES; r++) {
		struct gyre *rt = open_with_route(routes[r]);
		struct test_pipe pipe = test_pipe();

		test_row("%s", routes[r]);
		expect_eq(gyre_poll(rt, pipe.w, POLLOUT, GYRE_FOREVER), POLLOUT);
		expect_eq(gyre_poll(rt, pipe.w, POLLOUT, 0), POLLOUT);
		expect_eq(gyre_poll(rt, pipe.r, POLLIN, 0), 0);
		expect_eq(gyre_poll(rt, pipe.r, POLLIN, 1), 0);
		expect_eq(gyre_poll(rt, pipe.r, POLLIN, 3000000), 0);
		expect_eq(write(pipe.w, "x", 1), 1);
		expect_eq(gyre_poll(rt, pipe.r, POLLIN | POLLPRI, 1000000000), POLLIN);
		close(pipe.w);
		expect_eq(gyre_poll(rt, pipe.r, POLLIN, GYRE_FOREVER), POLLIN | POLLHUP);
		expect_eq(gyre_poll(rt, pipe.r, 0, GYRE_FOREVER), POLLHUP);
		pipe.w = -1;
		expect_eq(gyre_poll(rt, test_closed_fd(), POLLIN, GYRE_FOREVER), -EBADF);
		expect_eq(gyre_poll(rt, -1, POLLIN, GYRE_FOREVER), -EBADF);
		expect_eq(gyre_poll(rt, INT_MIN, POLLIN, 0), -EBADF);
		/* always ready */
		close(pipe.r);
		pipe.r = test_file(1);
		expect_eq(gyre_poll(rt, pipe.r, POLLIN | POLLOUT, GYRE_FOREVER), POLLIN | POLLOUT);
		test_pipe_close(&pipe);
		gyre_free(rt);
	}
}

static void *poll_and_wait(void *arg)
{
	struct waiting *waiting = arg;

	waiting->n = gyre_poll(waiting->rt, waiting->pipe.r, POLLIN, 20000000000);
	return NULL;
}

TEST(poll_wakes_when_it_comes_true)
{
	unsigned r;

	for (r = 0; r < ROUTES; r++) {
		struct waiting waiting = { .rt = open_with_route(routes[r]) };
		pthread_t thread;

		waiting.pipe = test_pipe();
		expect_eq(pthread_create(&thread, NULL, poll_and_wait, &waiting), 0);
		await(test_stat(waiting.rt, calls) == 1);
		expect_eq(write(waiting.pipe.w, "x", 1), 1);
		pthread_join(thread, NULL);
		expect_eq(waiting.n, POLLIN);
		test_pipe_close(&waiting.pipe);
		gyre_free(waiting.rt);
	}
}

/* ---------------------------------------------------------- in full -- */

#define FULL_LEN	100000

TEST(pread_full_reads_to_the_end_of_len_or_of_the_file)
{
	unsigned char *buf = malloc(FULL_LEN + 1000);
	int fd = test_file(FULL_LEN);
	unsigned r;

	expect(buf);
	for (r = 0; r < ROUTES; r++) {
		struct gyre *rt = open_with_route(routes[r]);

		test_row("%s", routes[r]);
		expect_eq(gyre_pread_full(rt, fd, buf, FULL_LEN, 0), FULL_LEN);
		expect_bytes(buf, FULL_LEN, 0);
		expect_eq(gyre_pread_full(rt, fd, buf, FULL_LEN + 1000, 0), FULL_LEN);
		expect_eq(gyre_pread_full(rt, fd, buf, 1000, FULL_LEN - 300), 300);
		expect_bytes(buf, 300, FULL_LEN - 300);
		expect_eq(gyre_pread_full(rt, fd, buf, 1000, FULL_LEN), 0);
		expect_eq(gyre_pread_full(rt, fd, buf, 1000, FULL_LEN + 1), 0);
		expect_eq(gyre_pread_full(rt, fd, buf, 0, 0), 0);
		expect_eq(gyre_pread_full(rt, fd, buf, 1, -1), -EINVAL);
		expect_eq(gyre_pread_full(rt, test_closed_fd(), buf, 1, 0), -EBADF);
		expect_eq(gyre_pread_full(rt, fd, NULL, 1, 0), -EFAULT);
		gyre_free(rt);
	}
	close(fd);
	free(buf);
}

TEST(pwrite_full_writes_all_of_len)
{
	unsigned char *buf = malloc(FULL_LEN), *got = malloc(FULL_LEN);
	unsigned r, i;

	expect(buf);
	expect(got);
	for (i = 0; i < FULL_LEN; i++)
		buf[i] = test_byte(i);
	for (r = 0; r < ROUTES; r++) {
		struct gyre *rt = open_with_route(routes[r]);
		int fd = test_file(0), read_only = test_reopen(fd, O_RDONLY);

		test_row("%s", routes[r]);
		expect_eq(gyre_pwrite_full(rt, fd, buf, FULL_LEN, 0), FULL_LEN);
		expect_eq(pread(fd, got, FULL_LEN, 0), FULL_LEN);
		expect_bytes(got, FULL_LEN, 0);
		expect_eq(gyre_pwrite_full(rt, fd, buf, 0, 0), 0);
		expect_eq(gyre_pwrite_full(rt, fd, buf, 1, -1), -EINVAL);
		expect_eq(gyre_pwrite_full(rt, fd, buf, SIZE_MAX, 0), -EINVAL);
		expect_eq(gyre_pwrite_full(rt, read_only, buf, 1, 0), -EBADF);
		expect_eq(gyre_pwrite_full(rt, fd, NULL, 1, 0), -EFAULT);
		close(read_only);
		close(fd);
		gyre_free(rt);
	}
	free(buf);
	free(got);
}

/* The kernel cuts what crosses the file size limit, and refuses what lies past it. */
static void write_into_the_size_limit(void *arg)
{
	const char *route = arg;
	struct gyre *rt = open_with_route(route);
	char buf[1000] = "";
	int fd = test_file(0);

	signal(SIGXFSZ, SIG_IGN);
	test_limit(1 /* RLIMIT_FSIZE */, 1500);
	expect_eq(gyre_pwrite(rt, fd, buf, 1000, 1000), 500);
	expect_eq(gyre_pwrite_full(rt, fd, buf, 1000, 1000), -EFBIG);
	expect_eq(gyre_last_status(), GYRE_OK);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
	gyre_free(rt);
	close(fd);
}

TEST(pwrite_full_that_is_cut_short_for_good_is_an_error)
{
	unsigned r;

	for (r = 0; r < ROUTES; r++) {
		test_row("%s", routes[r]);
		test_in_child(write_into_the_size_limit, (void *)(uintptr_t)routes[r]);
	}
}

/* Short counts of the kernel's: the call in the caller's thread is made to move 7 bytes each. */
static const struct gyre__sys *sys_before;

static ssize_t pread_in_sevens(int fd, void *buf, size_t len, off_t offset)
{
	return sys_before->pread(fd, buf, len < 7 ? len : 7, offset);
}

static ssize_t pwrite_in_sevens(int fd, const void *buf, size_t len, off_t offset)
{
	return sys_before->pwrite(fd, buf, len < 7 ? len : 7, offset);
}

TEST(full_calls_go_on_after_each_short_count)
{
	unsigned char buf[1000], got[1000];
	struct gyre__sys sevens;
	struct gyre *rt;
	unsigned i;
	int fd;

	sys_before = gyre__sys;
	sevens = *gyre__sys;
	sevens.pread = pread_in_sevens;
	sevens.pwrite = pwrite_in_sevens;
	gyre__sys = &sevens;
	rt = open_with_route("caller");
	fd = test_file(0);
	for (i = 0; i < sizeof(buf); i++)
		buf[i] = test_byte(i);
	expect_eq(gyre_pwrite(rt, fd, buf, 100, 0), 7);
	expect_eq(gyre_pwrite_full(rt, fd, buf, 1000, 0), 1000);
	expect_eq(gyre_pread_full(rt, fd, got, 1000, 0), 1000);
	expect_bytes(got, 1000, 0);
	expect_eq(gyre_pread_full(rt, fd, got, 1000, 995), 5);
	gyre_free(rt);
	gyre__sys = sys_before;
	close(fd);
}

static struct gyre *to_be_closed;

static void *close_it(void *arg)
{
	(void)arg;
	gyre_close(to_be_closed);
	return NULL;
}

/* Writes a piece; then the runtime is closed before the next one. */
static ssize_t pwrite_before_the_close(int fd, const void *buf, size_t len, off_t offset)
{
	pthread_t closer;

	expect_eq(pthread_create(&closer, NULL, close_it, NULL), 0);
	pthread_join(closer, NULL);
	return pwrite_in_sevens(fd, buf, len, offset);
}

TEST(pwrite_full_that_a_close_cuts_in_two_does_not_say_that_nothing_was_done)
{
	struct gyre__sys closing;
	char buf[100] = "";
	int fd = test_file(0);

	sys_before = gyre__sys;
	closing = *gyre__sys;
	closing.pwrite = pwrite_before_the_close;
	gyre__sys = &closing;
	to_be_closed = open_with_route("caller");
	expect_eq(gyre_pwrite_full(to_be_closed, fd, buf, 100, 0), -ESHUTDOWN);
	expect_eq(gyre_last_status(), GYRE_CLOSED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_UNKNOWN);
	expect_eq(gyre_pwrite_full(to_be_closed, fd, buf, 100, 0), -ESHUTDOWN);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	gyre_free(to_be_closed);
	gyre__sys = sys_before;
	close(fd);
}

TEST(full_calls_go_on_after_an_interruption_and_stop_at_an_error)
{
	int fd = test_file(100);
	unsigned char buf[100];
	struct gyre *rt;

	gyre__fault_install();
	rt = open_with_route("caller");
	gyre__fault_set(GYRE__FAULT_pread, 0, 3, -EINTR);
	expect_eq(gyre_pread_full(rt, fd, buf, 100, 0), 100);
	expect_bytes(buf, 100, 0);
	gyre__fault_set(GYRE__FAULT_pread, 0, 1, -EIO);
	expect_eq(gyre_pread_full(rt, fd, buf, 100, 0), -EIO);
	expect_eq(gyre_last_status(), GYRE_OK);
	gyre__fault_set(GYRE__FAULT_pwrite, 0, 3, -EINTR);
	expect_eq(gyre_pwrite_full(rt, fd, buf, 100, 0), 100);
	gyre__fault_set(GYRE__FAULT_pwrite, 0, 1, -ENOSPC);
	expect_eq(gyre_pwrite_full(rt, fd, buf, 100, 0), -ENOSPC);
	gyre_free(rt);
	gyre__fault_remove();
	close(fd);
}

/* The same errno from two sides: the last status tells whose it is. */
TEST(a_devices_error_is_told_from_the_runtimes)
{
	int fd = test_file(10);
	struct gyre *rt;
	char byte;

	gyre__fault_install();
	rt = open_with_route("caller");
	gyre__fault_set(GYRE__FAULT_pread, 0, 1, -ESHUTDOWN);
	expect_eq(gyre_pread(rt, fd, &byte, 1, 0), -ESHUTDOWN);
	expect_eq(gyre_last_status(), GYRE_OK);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
	gyre_close(rt);
	expect_eq(gyre_pread(rt, fd, &byte, 1, 0), -ESHUTDOWN);
	expect_eq(gyre_last_status(), GYRE_CLOSED);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_contains(gyre_last_error(), "gyre_pread");
	gyre_free(rt);
	gyre__fault_remove();
	close(fd);
}

TEST(dead_worker_is_told_by_the_ring_route)
{
	int fd = test_file(10);
	struct gyre *rt;
	char byte = 0;

	gyre__fault_install();
	rt = open_with_route("ring");
	gyre__fault_set(GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	expect_eq(gyre_pread(rt, fd, &byte, 1, 0), -EOWNERDEAD);
	expect_eq(gyre_last_status(), GYRE_WORKER_DEAD);
	expect_contains(gyre_last_error(), "gyre_pread");
	expect_eq(gyre_pwrite_full(rt, fd, &byte, 1, 0), -EOWNERDEAD);
	expect_eq(gyre_last_status(), GYRE_WORKER_DEAD);
	gyre_free(rt);
	gyre__fault_remove();
	close(fd);
}

/* ---------------------------------------------------------- openat etc. -- */

TEST(openat_opens_creates_and_refuses_as_the_system_call_does)
{
	unsigned r;

	for (r = 0; r < ROUTES; r++) {
		struct gyre *rt = open_with_route(routes[r]);
		char dir[] = "/tmp/gyre-test-XXXXXX";
		struct stat st;
		int dirfd, fd;

		test_row("%s", routes[r]);
		expect(mkdtemp(dir));
		dirfd = gyre_openat(rt, AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
		expect_ge(dirfd, 0);
		expect_eq(gyre_openat(rt, dirfd, "a", O_RDWR | O_CLOEXEC, 0), -ENOENT);
		fd = gyre_openat(rt, dirfd, "a", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
		expect_ge(fd, 0);
		expect_eq(fstat(fd, &st), 0);
		expect_eq(st.st_mode & 0777, 0640);
		expect(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		expect_eq(gyre_openat(rt, dirfd, "a", O_RDWR | O_CREAT | O_EXCL, 0640), -EEXIST);
		expect_eq(gyre_openat(rt, fd, "b", O_RDONLY, 0), -ENOTDIR);
		expect_eq(gyre_openat(rt, dirfd, "a", O_RDONLY | O_DIRECTORY, 0), -ENOTDIR);
		expect_eq(gyre_close_fd(rt, fd), 0);
		expect_eq(unlinkat(dirfd, "a", 0), 0);
		expect_eq(gyre_close_fd(rt, dirfd), 0);
		expect_eq(rmdir(dir), 0);
		gyre_free(rt);
	}
}

TEST(close_fd_closes_once)
{
	unsigned r;

	for (r = 0; r < ROUTES; r++) {
		struct gyre *rt = open_with_route(routes[r]);
		int fd = test_file(1);

		expect_eq(gyre_close_fd(rt, fd), 0);
		expect_eq(fcntl(fd, F_GETFD), -1);
		expect_eq(gyre_close_fd(rt, fd), -EBADF);
		expect_eq(gyre_close_fd(rt, -1), -EBADF);
		gyre_free(rt);
	}
}

/*
 * Files take turns under one number. A read that was filled before the close
 * began has the old one's byte, always; a later one has whatever it finds.
 */
struct reuse {
	struct gyre *rt;
	atomic_int fd;			/* of the generation that is open */
	/* Twice what byte 0 of the file says; odd while it changes. */
	atomic_uint generation;
	atomic_int stop;
	atomic_uint sure_reads;
};

struct generation_read {
	struct reuse *reuse;
	bool sure;			/* the SQE was filled while the file was surely open */
	unsigned asked;			/* and this was its generation */
	unsigned char got;
};

static void prep_generation(struct io_uring_sqe *sqe, void *arg)
{
	struct generation_read *read = arg;
	struct reuse *reuse = read->reuse;

	read->asked = atomic_load(&reuse->generation);
	io_uring_prep_read(sqe, atomic_load(&reuse->fd), &read->got, 1, 0);
	read->sure = read->asked % 2 == 0 && read->asked == atomic_load(&reuse->generation);
}

static void read_generations(struct reuse *reuse)
{
	while (!atomic_load(&reuse->stop)) {
		struct generation_read read = { .reuse = reuse };
		int res;

		expect_status(gyre_call(reuse->rt, prep_generation, &read, &res), GYRE_OK);
		if (!read.sure)
			continue;
		expect_eq(res, 1);
		expect_eq(read.got, (unsigned char)(read.asked / 2));
		atomic_fetch_add(&reuse->sure_reads, 1);
	}
}

static void change_generations(struct reuse *reuse)
{
	unsigned i;

	for (i = 1; i < test_times(200); i++) {
		unsigned sure_reads = atomic_load(&reuse->sure_reads);
		unsigned char byte = (unsigned char)i;
		int fd;

		/* In most rounds some read is under way when the close begins. */
		await(atomic_load(&reuse->sure_reads) > sure_reads);

		atomic_fetch_add(&reuse->generation, 1);
		expect_eq(gyre_close_fd(reuse->rt, atomic_load(&reuse->fd)), 0);
		fd = test_file(0);
		expect_eq(pwrite(fd, &byte, 1, 0), 1);
		atomic_store(&reuse->fd, fd);
		atomic_fetch_add(&reuse->generation, 1);
	}
	atomic_store(&reuse->stop, 1);
}

static void read_or_close(void *arg, unsigned number)
{
	if (number == 0)
		change_generations(arg);
	else
		read_generations(arg);
}

TEST(close_fd_racing_reads_never_gives_them_another_files_bytes)
{
	struct reuse reuse = { .rt = test_open_workers(2) };
	unsigned char zero = 0;
	int fd = test_file(0);

	expect_eq(pwrite(fd, &zero, 1, 0), 1);
	atomic_store(&reuse.fd, fd);
	test_crew_run(5, read_or_close, &reuse);
	close(atomic_load(&reuse.fd));
	gyre_free(reuse.rt);
}

/*
 * Reads that wait for room do not hold their file yet: the close has to wait
 * until they do, and all of them read what they were meant to.
 */
struct queued_reads {
	struct gyre *rt;
	int fd;
	struct gyre_op ops[20];
	struct test_io io[20];
	unsigned char bytes[20];
	atomic_int closing, closed;
};

static void *call_queued(void *arg)
{
	struct queued_reads *queued = arg;

	expect_status(gyre_callv(queued->rt, queued->ops, 20), GYRE_OK);
	return NULL;
}

static void *close_under_them(void *arg)
{
	struct queued_reads *queued = arg;

	atomic_store(&queued->closing, 1);
	expect_eq(gyre_close_fd(queued->rt, queued->fd), 0);
	atomic_store(&queued->closed, 1);
	return NULL;
}

TEST(close_fd_waits_until_earlier_ops_hold_their_file)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .inflight_max = 1 };
	struct queued_reads queued = { .rt = test_open(&options), .fd = test_file(20) };
	struct test_pipe pipe = test_pipe();
	pthread_t caller, closer;
	unsigned i;

	for (i = 0; i < 20; i++) {
		queued.io[i] = (struct test_io){ queued.fd, &queued.bytes[i], 1, i };
		queued.ops[i] = test_op(prep_read, &queued.io[i]);
	}
	queued.io[0].fd = pipe.r;		/* holds up the others */
	queued.io[0].offset = TEST_IO_HERE;
	expect_eq(pthread_create(&caller, NULL, call_queued, &queued), 0);
	await(test_stat(queued.rt, inflight) == 1 && test_stat(queued.rt, queued) == 19);
	expect_eq(pthread_create(&closer, NULL, close_under_them, &queued), 0);
	await(atomic_load(&queued.closing));
	for (i = 0; i < 100; i++) {
		sched_yield();			/* time enough for a close that does not wait */
		expect_eq(atomic_load(&queued.closed), 0);
	}
	expect_eq(write(pipe.w, &(unsigned char){ test_byte(0) }, 1), 1);
	pthread_join(caller, NULL);
	pthread_join(closer, NULL);
	for (i = 0; i < 20; i++)
		expect_op(&queued.ops[i], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_bytes(queued.bytes, 20, 0);
	test_pipe_close(&pipe);
	gyre_free(queued.rt);
}

TEST(close_fd_does_not_wait_for_a_read_that_may_never_end)
{
	struct waiting waiting = { .rt = open_with_route("ring"), .pipe = test_pipe() };
	pthread_t thread;

	expect_eq(pthread_create(&thread, NULL, read_and_wait, &waiting), 0);
	await(test_stat(waiting.rt, inflight) == 1);
	expect_eq(gyre_close_fd(waiting.rt, waiting.pipe.r), 0);
	expect_eq(fcntl(waiting.pipe.r, F_GETFD), -1);
	waiting.pipe.r = -1;
	/* The read holds its file: it still gets what is written. */
	expect_eq(write(waiting.pipe.w, "late", 4), 4);
	pthread_join(thread, NULL);
	expect_eq(waiting.n, 4);
	test_pipe_close(&waiting.pipe);
	gyre_free(waiting.rt);
}

/* ------------------------------------------------------------- signals -- */

static atomic_int sigpipes;

static void count_sigpipe(int sig)
{
	(void)sig;
	atomic_fetch_add(&sigpipes, 1);
}

static ssize_t write_broken(struct gyre *rt, int fd, unsigned way)
{
	char byte = 'x';
	struct iovec iov = { &byte, 1 };
	struct test_io io = { fd, &byte, 1, TEST_IO_HERE };
	int res;

	switch (way) {
	case 0:
		return gyre_write(rt, fd, &byte, 1);
	case 1:
		return gyre_pwritev2(rt, fd, &iov, 1, -1, 0);
	default:
		expect_status(gyre_call(rt, prep_write, &io, &res), GYRE_OK);
		return res;
	}
}

static void expect_epipe_without_signal(void)
{
	sigset_t pending;
	unsigned r, way;

	for (r = 0; r < ROUTES; r++)
		for (way = 0; way < 3; way++) {
			struct gyre *rt = open_with_route(routes[r]);
			struct test_pipe pipe = test_pipe();
			int fds[2];

			test_row("%s, way %u", routes[r], way);
			close(pipe.r);
			pipe.r = -1;
			expect_eq(write_broken(rt, pipe.w, way), -EPIPE);
			expect_eq(gyre_last_status(), GYRE_OK);
			expect_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
			close(fds[1]);
			expect_eq(write_broken(rt, fds[0], way), -EPIPE);
			close(fds[0]);
			test_pipe_close(&pipe);
			gyre_free(rt);
			expect_eq(sigpending(&pending), 0);
			expect(!sigismember(&pending, SIGPIPE));
		}
	expect_eq(atomic_load(&sigpipes), 0);
}

TEST(write_to_a_broken_pipe_is_epipe_and_the_process_lives)
{
	signal(SIGPIPE, SIG_DFL);
	expect_epipe_without_signal();
}

TEST(write_to_a_broken_pipe_runs_no_handler)
{
	signal(SIGPIPE, count_sigpipe);
	expect_epipe_without_signal();
	signal(SIGPIPE, SIG_DFL);
}

TEST(write_to_a_broken_pipe_leaves_a_pending_sigpipe_of_the_hosts_alone)
{
	struct gyre *rt = open_with_route("caller");
	struct test_pipe pipe = test_pipe();
	sigset_t sigpipe, pending;
	int sig;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &sigpipe, NULL);
	pthread_kill(pthread_self(), SIGPIPE);
	close(pipe.r);
	pipe.r = -1;
	expect_eq(gyre_write(rt, pipe.w, "x", 1), -EPIPE);
	expect_eq(sigpending(&pending), 0);
	expect(sigismember(&pending, SIGPIPE));
	expect_eq(sigwait(&sigpipe, &sig), 0);
	pthread_sigmask(SIG_UNBLOCK, &sigpipe, NULL);
	test_pipe_close(&pipe);
	gyre_free(rt);
}

/* A handler of the host's, without SA_RESTART: the plain call says EINTR, and so may we. */
static void nothing_to_do(int sig)
{
	(void)sig;
}

static void *read_one_byte(void *arg)
{
	struct waiting *waiting = arg;
	ssize_t n;

	do
		n = gyre_read(waiting->rt, waiting->pipe.r, waiting->buf, 1);
	while (n == -EINTR);
	waiting->n = n;
	atomic_store(&waiting->done, 1);
	return NULL;
}

TEST(signals_that_hit_a_waiting_caller_lose_nothing)
{
	struct sigaction action = { .sa_handler = nothing_to_do };
	unsigned r, i;

	expect_eq(sigaction(SIGUSR1, &action, NULL), 0);
	for (r = 0; r < ROUTES; r++) {
		struct waiting waiting = { .rt = open_with_route(routes[r]), .pipe = test_pipe() };
		pthread_t thread;

		expect_eq(pthread_create(&thread, NULL, read_one_byte, &waiting), 0);
		await(test_stat(waiting.rt, calls) == 1);
		for (i = 0; i < 200; i++)
			pthread_kill(thread, SIGUSR1);
		expect_eq(atomic_load(&waiting.done), 0);
		expect_eq(write(waiting.pipe.w, "x", 1), 1);
		pthread_join(thread, NULL);
		expect_eq(waiting.n, 1);
		test_pipe_close(&waiting.pipe);
		gyre_free(waiting.rt);
	}
}

TEST_MAIN()
