/* SPDX-License-Identifier: MIT */
/*
 * The table's first filling: the kernel itself.
 *
 * System calls are made raw, for three reasons: the wrappers of libc are
 * cancellation points, they speak errno, and some of the calls have none.
 */
#define _GNU_SOURCE
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#endif

#include "atomic.h"

#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL	0x00000100	/* Linux 6.18: -EPIPE without the SIGPIPE */
#endif

#ifndef GYRE_SIM	/* the simulated kernel has its own */
const struct gyre__sys *gyre__sys = &gyre__sys_kernel;

static const char *volatile gyre__assert_text;	/* for whoever opens the core */

void gyre__assert_failed(const char *cond, const char *file, int line)
{
	gyre__assert_text = cond;
	(void)file;
	(void)line;
	abort();
}

void *gyre__zalloc(size_t size)
{
	return gyre__sys->alloc(size, 16);
}

void gyre__free(void *ptr)
{
	gyre__sys->free(ptr);
}
#endif

/*
 * A raw system call: the result, or a negative errno, and errno as it was. What the
 * CPU has guessed by is gone after one, so that each return costs: where it is known
 * how, the instruction itself.
 */
#if defined(__x86_64__) && defined(__LP64__)
#define raw(...)	raw_of_six(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define raw_of_six(number, a, b, c, d, e, f, ...) \
	raw_six((number), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static inline long raw_six(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}
#else
#define raw(...) \
	({ \
		int saved_errno_ = errno; \
		long result_ = syscall(__VA_ARGS__); \
\
		result_ >= 0 ? result_ : raw_failed(saved_errno_); \
	})

static long raw_failed(int saved_errno)
{
	long result = -errno;

	errno = saved_errno;
	return result;
}
#endif

/* ---------------------------------------------------------- io_uring -- */

static int kernel_uring_setup(unsigned entries, struct io_uring_params *params)
{
	return (int)raw(__NR_io_uring_setup, entries, params);
}

#ifdef HAVE_VALGRIND_VALGRIND_H
static bool under_valgrind;

static void look_for_valgrind(void) __attribute__((__constructor__));
static void look_for_valgrind(void)
{
	under_valgrind = RUNNING_ON_VALGRIND != 0;
}

/*
 * valgrind runs one thread at a time, and that of Debian 12 does not know that this call may wait:
 * no other thread would ever run again. So it looks, lets the others run for a while, and looks
 * again; that nothing has come by then is for the caller as if a signal had.
 */
static int enter_under_valgrind(int fd, unsigned to_submit, unsigned flags, void *arg,
				size_t arg_size)
{
	const struct timespec moment = { .tv_nsec = 100000 };
	int submitted = io_uring_enter2((unsigned)fd, to_submit, 0, flags, arg, arg_size), rc;

	if (submitted < 0 || (unsigned)submitted < to_submit)
		return submitted;
	raw(SYS_clock_nanosleep, (long)CLOCK_MONOTONIC, 0L, &moment, NULL);
	rc = io_uring_enter2((unsigned)fd, 0, 0, flags, arg, arg_size);
	return submitted ? submitted : rc;
}
#endif

static int kernel_uring_enter(int fd, unsigned to_submit, unsigned min_complete, unsigned flags,
			      void *arg, size_t arg_size)
{
#ifdef HAVE_VALGRIND_VALGRIND_H
	if (__builtin_expect(under_valgrind && min_complete > 0, 0))
		return enter_under_valgrind(fd, to_submit, flags, arg, arg_size);
#endif
	return io_uring_enter2((unsigned)fd, to_submit, min_complete, flags, arg, arg_size);
}

static int kernel_uring_register(int fd, unsigned opcode, void *arg, unsigned count)
{
	return io_uring_register((unsigned)fd, opcode, arg, count);
}

/* ------------------------------------------------------------ memory -- */

static void *kernel_alloc(size_t size, size_t align)
{
	int saved_errno = errno;
	void *ptr = NULL;

	if (align <= 16)
		ptr = calloc(1, size);
	else if (posix_memalign(&ptr, align, size) == 0)
		memset(ptr, 0, size);
	else
		ptr = NULL;
	errno = saved_errno;
	return ptr;
}

static void kernel_free(void *ptr)
{
	free(ptr);
}

static int kernel_mmap(size_t len, int prot, int flags, int fd, off_t offset, void **ret)
{
	int saved_errno = errno;
	void *ptr = mmap(NULL, len, prot, flags, fd, offset);
	int rc = errno;

	errno = saved_errno;
	if (ptr == MAP_FAILED)
		return -rc;
	*ret = ptr;
	return 0;
}

static int kernel_munmap(void *ptr, size_t len)
{
	return (int)raw(SYS_munmap, ptr, len);
}

static int kernel_madvise(void *ptr, size_t len, int advice)
{
	return (int)raw(SYS_madvise, ptr, len, advice);
}

static int kernel_mprotect(void *ptr, size_t len, int prot)
{
	return (int)raw(SYS_mprotect, ptr, len, prot);
}

static int kernel_mincore(void *ptr, size_t len, unsigned char *ret)
{
	return (int)raw(SYS_mincore, ptr, len, ret);
}

/* ------------------------------------------------------- descriptors -- */

static int kernel_eventfd(void)
{
	return (int)raw(SYS_eventfd2, 0, EFD_CLOEXEC);
}

static int kernel_eventfd_read(int fd)
{
	uint64_t value;
	long n;

	do
		n = raw(SYS_read, fd, &value, sizeof(value));
	while (n == -EINTR);
	return n < 0 ? (int)n : 0;
}

static int kernel_eventfd_write(int fd)
{
	uint64_t one = 1;
	long n;

	do
		n = raw(SYS_write, fd, &one, sizeof(one));
	while (n == -EINTR);
	return n < 0 ? (int)n : 0;
}

static int kernel_pipe(int ret[2])
{
	return (int)raw(SYS_pipe2, ret, O_CLOEXEC);
}

static int kernel_close(int fd)
{
	return (int)raw(SYS_close, fd);
}

/*
 * fstat(2) asks for the times as well. Where these are multigrain (Linux 6.13),
 * the next write then has to make new ones, and a flush after it may have the
 * inode to write, each time instead of once a tick.
 */
static int kernel_fstat(int fd, struct stat *ret)
{
	struct statx st;
	int rc = (int)raw(SYS_statx, fd, "", AT_EMPTY_PATH,
			  STATX_TYPE | STATX_MODE | STATX_INO | STATX_SIZE, &st);

	if (rc < 0)
		return rc;
	memset(ret, 0, sizeof(*ret));
	ret->st_mode = st.stx_mode;
	ret->st_dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	ret->st_rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor);
	ret->st_ino = st.stx_ino;
	ret->st_size = (off_t)st.stx_size;
	return 0;
}

static int kernel_fd_flags(int fd)
{
	return (int)raw(SYS_fcntl, fd, F_GETFL, 0);
}

static uint64_t kernel_file_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ?
	       UINT64_MAX : limit.rlim_cur;
}

/* ------------------------------------------------------------ futexes -- */

static int kernel_futex_wait(_Atomic uint32_t *word, uint32_t seen, uint32_t bits,
			     uint64_t deadline_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / GYRE__NS_PER_S),
		.tv_nsec = (long)(deadline_ns % GYRE__NS_PER_S),
	};

	return (int)raw(SYS_futex, word, (long)(FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG), (long)seen,
			deadline_ns == GYRE__NEVER ? NULL : &ts, NULL, (long)bits);
}

static int kernel_futex_wake(_Atomic uint32_t *word, uint32_t bits)
{
	return (int)raw(SYS_futex, word, (long)(FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG),
			(long)INT_MAX, NULL, NULL, (long)bits);
}

/* ---------------------------------------------------- routed to here -- */

/* 64-bit offsets travel in one register on every machine that we build for. */
_Static_assert(sizeof(long) == 8 || sizeof(off_t) == 4, "64-bit only: offsets need splitting");

static ssize_t kernel_read(int fd, void *buf, size_t len)
{
	return raw(SYS_read, fd, buf, len);
}

/* A write that may raise SIGPIPE: write() where there is no vector, else pwritev2(). */
struct loud_write {
	int fd;
	const void *buf;
	size_t len;
	const struct iovec *iov;
	int count;
	off_t offset;
	int flags;
};

static ssize_t loud_write(const struct loud_write *w)
{
	if (!w->iov)
		return raw(SYS_write, w->fd, w->buf, w->len);
	return raw(SYS_pwritev2, w->fd, w->iov, (long)w->count, (long)w->offset, 0L,
		   (long)w->flags);
}

/* Blocks the signal, and takes it away again if it was this write that raised it. */
static ssize_t write_sigpipe_blocked(const struct loud_write *w)
{
	static const struct timespec at_once;
	sigset_t sigpipe, before, pending;
	int was_pending;
	ssize_t n;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
	was_pending = sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE);
	n = loud_write(w);
	if (n == -EPIPE && !was_pending)
		raw(SYS_rt_sigtimedwait, &sigpipe, NULL, &at_once, (long)(_NSIG / 8));
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return n;
}

static ssize_t kernel_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	const struct loud_write w = { fd, NULL, 0, iov, count, offset, flags };
	static _Atomic int unsupported;
	ssize_t n;

	/* A signal can only come of what has no offset: pipes and sockets. */
	if (offset != -1 || !iov)
		return raw(SYS_pwritev2, fd, iov, (long)count, (long)offset, 0L, (long)flags);
	if (!gyre__load(&unsupported, relaxed)) {
		n = raw(SYS_pwritev2, fd, iov, (long)count, (long)offset, 0L,
			(long)(flags | RWF_NOSIGNAL));
		if (n != -EOPNOTSUPP && n != -EINVAL)
			return n;
	}
	n = write_sigpipe_blocked(&w);
	/* Not every file that refuses the flag means that the kernel lacks it: a pipe does. */
	if (n >= 0 && flags == 0 && raw(SYS_fcntl, fd, (long)F_GETPIPE_SZ) > 0)
		gyre__store(&unsupported, 1, relaxed);
	return n;
}

static ssize_t kernel_write(int fd, const void *buf, size_t len)
{
	const struct loud_write w = { .fd = fd, .buf = buf, .len = len };
	struct iovec iov = { (void *)(uintptr_t)buf, len };

	/* Nothing, and what no vector can hold, have answers of their own. */
	if (len == 0 || len > SSIZE_MAX)
		return write_sigpipe_blocked(&w);
	return kernel_pwritev2(fd, &iov, 1, -1, 0);
}

static ssize_t kernel_pread(int fd, void *buf, size_t len, off_t offset)
{
	return raw(SYS_pread64, fd, buf, len, (long)offset);
}

static ssize_t kernel_pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	return raw(SYS_pwrite64, fd, buf, len, (long)offset);
}

static ssize_t kernel_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return raw(SYS_preadv2, fd, iov, (long)count, (long)offset, 0L, (long)flags);
}

static int kernel_poll(struct pollfd *fds, unsigned count, uint64_t timeout_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(timeout_ns / GYRE__NS_PER_S),
		.tv_nsec = (long)(timeout_ns % GYRE__NS_PER_S),
	};

	return (int)raw(SYS_ppoll, fds, (long)count, timeout_ns == GYRE__NEVER ? NULL : &ts,
			NULL, 0L);
}

static int kernel_fsync(int fd)
{
	return (int)raw(SYS_fsync, fd);
}

static int kernel_fdatasync(int fd)
{
	return (int)raw(SYS_fdatasync, fd);
}

static int kernel_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return (int)raw(SYS_openat, dirfd, path, flags, mode);
}

static int kernel_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *ret)
{
	return (int)raw(SYS_statx, dirfd, path, flags, mask, ret);
}

static int kernel_fallocate(int fd, int mode, off_t offset, off_t len)
{
	return (int)raw(SYS_fallocate, fd, (long)mode, (long)offset, (long)len);
}

/* -------------------------------------------------------------- time -- */

static uint64_t kernel_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * GYRE__NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t kernel_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * GYRE__NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void kernel_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

static void kernel_yield(void)
{
	sched_yield();
}

static void kernel_sleep_ns(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / GYRE__NS_PER_S),
		.tv_nsec = (long)(ns % GYRE__NS_PER_S),
	};

	raw(SYS_clock_nanosleep, (long)CLOCK_MONOTONIC, 0L, &ts, NULL);
}

/* ----------------------------------------------------------- threads -- */

struct thread_start {
	gyre__thread_fn *fn;
	void *arg;
	char name[16];
};

static void *thread_main(void *arg)
{
	struct thread_start start = *(struct thread_start *)arg;

	free(arg);
	pthread_setname_np(pthread_self(), start.name);
	start.fn(start.arg);
	return NULL;
}

static int kernel_thread_start(const char *name, gyre__thread_fn *fn, void *arg, uintptr_t *ret)
{
	struct thread_start *start = calloc(1, sizeof(*start));
	sigset_t all, before;
	pthread_t thread;
	int rc;

	if (!start)
		return -ENOMEM;
	start->fn = fn;
	start->arg = arg;
	strncpy(start->name, name, sizeof(start->name) - 1);

	/* A thread inherits its maker's mask: blocked before its first instruction. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&thread, NULL, thread_main, start);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0) {
		free(start);
		return -rc;
	}
	*ret = (uintptr_t)thread;
	return 0;
}

static void kernel_thread_join(uintptr_t thread)
{
	int state;

	/* pthread_join() is a cancellation point, and half a join is none. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_join((pthread_t)thread, NULL);
	pthread_setcancelstate(state, NULL);
}

static int kernel_thread_pin(unsigned nth_cpu)
{
	cpu_set_t allowed, one;
	unsigned count;
	int cpu;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return -errno;
	count = (unsigned)CPU_COUNT(&allowed);
	if (count == 0)
		return -EINVAL;
	nth_cpu %= count;
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && nth_cpu-- == 0)
			break;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return sched_setaffinity(0, sizeof(one), &one) < 0 ? -errno : 0;
}

static unsigned kernel_cpu_count(void)
{
	int saved_errno = errno;
	cpu_set_t allowed;
	long online;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
		return (unsigned)CPU_COUNT(&allowed);
	online = sysconf(_SC_NPROCESSORS_ONLN);	/* more CPUs than cpu_set_t has bits */
	errno = saved_errno;
	return online > 0 ? (unsigned)online : 1;
}

#ifdef GYRE_SIM
static __thread void *gyre__self_value;
#else
__thread void *gyre__self_value;
#endif
static pthread_key_t self_key;
static pthread_once_t self_once = PTHREAD_ONCE_INIT;
static int self_key_error;
static void (*_Atomic self_at_exit)(void *value);

static void self_exit(void *value)
{
	void (*at_exit)(void *value) = gyre__load(&self_at_exit, acquire);

	gyre__self_value = NULL;
	if (at_exit)
		at_exit(value);
}

static void self_make_key(void)
{
	self_key_error = -pthread_key_create(&self_key, self_exit);
}

static void *kernel_self_get(void)
{
	return gyre__self_value;
}

static int kernel_self_set(void *value, void (*at_exit)(void *value))
{
	int rc;

	pthread_once(&self_once, self_make_key);
	if (self_key_error)
		return self_key_error;
	gyre__store(&self_at_exit, at_exit, release);
	rc = -pthread_setspecific(self_key, value);
	if (rc == 0)
		gyre__self_value = value;
	return rc;
}

static uint64_t kernel_thread_id(void)
{
	return (uint64_t)raw(SYS_gettid);
}

static void kernel_mutex_init(union gyre__mutex *mutex)
{
	pthread_mutex_init(&mutex->kernel, NULL);
}

static void kernel_mutex_done(union gyre__mutex *mutex)
{
	pthread_mutex_destroy(&mutex->kernel);
}

static void kernel_mutex_lock(union gyre__mutex *mutex)
{
	int rc = pthread_mutex_lock(&mutex->kernel);

	GYRE_ASSERT(rc == 0);
}

static void kernel_mutex_unlock(union gyre__mutex *mutex)
{
	int rc = pthread_mutex_unlock(&mutex->kernel);

	GYRE_ASSERT(rc == 0);
}

static int kernel_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return -pthread_atfork(prepare, parent, child);
}

const struct gyre__sys gyre__sys_kernel = {
	.uring_setup = kernel_uring_setup,
	.uring_enter = kernel_uring_enter,
	.uring_register = kernel_uring_register,
	.alloc = kernel_alloc,
	.free = kernel_free,
	.mmap = kernel_mmap,
	.munmap = kernel_munmap,
	.madvise = kernel_madvise,
	.mprotect = kernel_mprotect,
	.mincore = kernel_mincore,
	.eventfd = kernel_eventfd,
	.eventfd_read = kernel_eventfd_read,
	.eventfd_write = kernel_eventfd_write,
	.pipe = kernel_pipe,
	.close = kernel_close,
	.fstat = kernel_fstat,
	.fd_flags = kernel_fd_flags,
	.file_limit = kernel_file_limit,
	.futex_wait = kernel_futex_wait,
	.futex_wake = kernel_futex_wake,
	.read = kernel_read,
	.write = kernel_write,
	.pread = kernel_pread,
	.pwrite = kernel_pwrite,
	.preadv2 = kernel_preadv2,
	.pwritev2 = kernel_pwritev2,
	.poll = kernel_poll,
	.fsync = kernel_fsync,
	.fdatasync = kernel_fdatasync,
	.openat = kernel_openat,
	.statx = kernel_statx,
	.fallocate = kernel_fallocate,
	.now_ns = kernel_now_ns,
	.cpu_ns = kernel_cpu_ns,
	.relax = kernel_relax,
	.yield = kernel_yield,
	.sleep_ns = kernel_sleep_ns,
	.thread_start = kernel_thread_start,
	.thread_join = kernel_thread_join,
	.thread_pin = kernel_thread_pin,
	.cpu_count = kernel_cpu_count,
	.self_get = kernel_self_get,
	.self_set = kernel_self_set,
	.thread_id = kernel_thread_id,
	.mutex_init = kernel_mutex_init,
	.mutex_done = kernel_mutex_done,
	.mutex_lock = kernel_mutex_lock,
	.mutex_unlock = kernel_mutex_unlock,
	.at_fork = kernel_at_fork,
};
