/* SPDX-License-Identifier: MIT */
/*
 * The only door out of the library: kernel, clock, threads, memory.
 *
 * Nothing else in ring/, workers/ and lib/ enters the kernel, allocates, reads
 * a clock or keeps a thread-local; tools/check-layers holds us to it. One table
 * so that the whole library runs unchanged over the kernel (sys_kernel.c), over
 * a kernel whose calls fail on demand (sys_fault.c, tests only), and over a
 * simulated one.
 *
 * Entries answer a result >= 0 or a negative errno, and leave errno alone. None
 * of them is a cancellation point of pthread_cancel().
 */
#ifndef GYRE_RING_SYS_H
#define GYRE_RING_SYS_H

#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

struct io_uring_params;
struct statx;

/* Big enough for the mutex of any filling of the table; zero is not a mutex. */
union gyre__mutex {
	pthread_mutex_t kernel;
	uint64_t other[6];
};
#define GYRE__MUTEX_INIT { PTHREAD_MUTEX_INITIALIZER }

typedef void gyre__thread_fn(void *arg);

struct gyre__sys {
	/* io_uring */
	int (*uring_setup)(unsigned entries, struct io_uring_params *params);
	int (*uring_enter)(int fd, unsigned to_submit, unsigned min_complete, unsigned flags,
			   void *arg, size_t arg_size);
	int (*uring_register)(int fd, unsigned opcode, void *arg, unsigned count);

	/* memory; alloc gives zeroed memory or NULL */
	void *(*alloc)(size_t size, size_t align);
	void (*free)(void *ptr);
	int (*mmap)(size_t len, int prot, int flags, int fd, off_t offset, void **ret);
	int (*munmap)(void *ptr, size_t len);
	int (*madvise)(void *ptr, size_t len, int advice);
	int (*mprotect)(void *ptr, size_t len, int prot);
	int (*mincore)(void *ptr, size_t len, unsigned char *ret);	/* a byte for each page */

	/* descriptors */
	int (*eventfd)(void);
	int (*eventfd_read)(int fd);		/* blocks until written */
	int (*eventfd_write)(int fd);
	int (*pipe)(int ret[2]);
	int (*close)(int fd);
	int (*fstat)(int fd, struct stat *ret);	/* type, mode, devices, inode, size; zeros else */
	int (*fd_flags)(int fd);		/* O_*, as fcntl(F_GETFL) has them */
	uint64_t (*file_limit)(void);		/* RLIMIT_FSIZE; UINT64_MAX: none */

	/*
	 * A word that this process sleeps in, while it is still what was seen: until it
	 * is woken for one of these bits (0, be it for nothing), or CLOCK_MONOTONIC has
	 * come to deadline_ns (UINT64_MAX: never).
	 */
	int (*futex_wait)(_Atomic uint32_t *word, uint32_t seen, uint32_t bits,
			  uint64_t deadline_ns);
	/* All who sleep for one of them. */
	int (*futex_wake)(_Atomic uint32_t *word, uint32_t bits);

	/* what a call may be routed to, in the caller's own thread */
	ssize_t (*read)(int fd, void *buf, size_t len);
	/* Like pwritev2, raises no SIGPIPE. */
	ssize_t (*write)(int fd, const void *buf, size_t len);
	ssize_t (*pread)(int fd, void *buf, size_t len, off_t offset);
	ssize_t (*pwrite)(int fd, const void *buf, size_t len, off_t offset);
	ssize_t (*preadv2)(int fd, const struct iovec *iov, int count, off_t offset, int flags);
	ssize_t (*pwritev2)(int fd, const struct iovec *iov, int count, off_t offset, int flags);
	/* UINT64_MAX: for ever. */
	int (*poll)(struct pollfd *fds, unsigned count, uint64_t timeout_ns);
	int (*fsync)(int fd);
	int (*fdatasync)(int fd);
	int (*openat)(int dirfd, const char *path, int flags, mode_t mode);
	int (*statx)(int dirfd, const char *path, int flags, unsigned mask, struct statx *ret);
	int (*fallocate)(int fd, int mode, off_t offset, off_t len);

	/* time */
	uint64_t (*now_ns)(void);		/* CLOCK_MONOTONIC */
	uint64_t (*cpu_ns)(void);		/* CLOCK_PROCESS_CPUTIME_ID */
	void (*relax)(void);			/* one turn of a busy loop */
	void (*yield)(void);			/* lets another thread run */
	void (*sleep_ns)(uint64_t ns);

	/* threads: started with every signal blocked; names are cut to 15 bytes */
	int (*thread_start)(const char *name, gyre__thread_fn *fn, void *arg, uintptr_t *ret);
	void (*thread_join)(uintptr_t thread);
	int (*thread_pin)(unsigned nth_cpu);	/* the calling thread, to its n-th allowed CPU */
	unsigned (*cpu_count)(void);		/* that this process may use */
	/* The calling thread's one pointer; NULL at first. */
	void *(*self_get)(void);
	int (*self_set)(void *value, void (*at_exit)(void *value));
	uint64_t (*thread_id)(void);
	void (*mutex_init)(union gyre__mutex *mutex);
	void (*mutex_done)(union gyre__mutex *mutex);
	void (*mutex_lock)(union gyre__mutex *mutex);
	void (*mutex_unlock)(union gyre__mutex *mutex);
	int (*at_fork)(void (*prepare)(void), void (*parent)(void), void (*child)(void));
};

extern const struct gyre__sys gyre__sys_kernel;

/* The filling in use. Changed by tests only, while no runtime is open. */
extern const struct gyre__sys *gyre__sys;

/*
 * The calling thread's one pointer. Every public function asks for it first, so
 * it is read past the table, but where threads are simulated.
 */
#ifdef GYRE_SIM
#define gyre__self()	(gyre__sys->self_get())
#else
/* initial-exec: one instruction, and 8 bytes of static TLS are always to be had. */
extern __thread void *gyre__self_value
	__attribute__((__tls_model__("initial-exec"), __visibility__("hidden")));
#define gyre__self()	(gyre__self_value)
#endif

/* Zeroed memory or NULL; aligned for any type. */
void *gyre__zalloc(size_t size);
void gyre__free(void *ptr);

/*
 * Asserts stay on in release builds: past a broken invariant the library could
 * only lose or corrupt somebody's data, so the process ends there, silently but
 * for the core: the expression is in gyre__assert_text for whoever opens it.
 */
#define GYRE_ASSERT(cond) \
	(__builtin_expect(!!(cond), 1) ? (void)0 : gyre__assert_failed(#cond, __FILE__, __LINE__))
void gyre__assert_failed(const char *cond, const char *file, int line)
	__attribute__((__noreturn__, __cold__));

#define gyre__likely(cond)	__builtin_expect(!!(cond), 1)
#define gyre__unlikely(cond)	__builtin_expect(!!(cond), 0)
#define gyre__container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define GYRE__NS_PER_US	UINT64_C(1000)
#define GYRE__NS_PER_MS	UINT64_C(1000000)
#define GYRE__NS_PER_S	UINT64_C(1000000000)
#define GYRE__NEVER	UINT64_MAX

/* A deadline that saturates: now + GYRE_FOREVER is never. */
static inline uint64_t gyre__deadline(uint64_t now_ns, uint64_t timeout_ns)
{
	return timeout_ns > GYRE__NEVER - now_ns ? GYRE__NEVER : now_ns + timeout_ns;
}

#endif
