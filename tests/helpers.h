/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the library share: preps for the usual operations, pipes
 * that answer only when told to, threads that start together, and waiting for
 * an event instead of for a time.
 */
#ifndef GYRE_TESTS_HELPERS_H
#define GYRE_TESTS_HELPERS_H

#include <gyre.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>

#include "harness.h"

/* -------------------------------------------------------- expecting -- */

#define expect_status(got, want) \
	test_expect_status_at(__FILE__, __LINE__, #got, (got), (want))
void test_expect_status_at(const char *file, int line, const char *what, enum gyre_status got,
			   enum gyre_status want);

#define expect_op(op, status, res, effect) \
	test_expect_op_at(__FILE__, __LINE__, #op, (op), (status), (res), (effect))
void test_expect_op_at(const char *file, int line, const char *what, const struct gyre_op *op,
		       enum gyre_status status, int res, enum gyre_effect effect);

/*
 * Waits for cond to come true, as something else makes it. What never comes
 * fails the test by name instead of by its time-out.
 */
#define await(cond) \
	do { \
		unsigned test_turns_ = 0; \
\
		while (!(cond)) \
			test_await_turn(&test_turns_, __FILE__, __LINE__, #cond); \
	} while (0)
void test_await_turn(unsigned *turns, const char *file, int line, const char *what);

/* ---------------------------------------------------------- runtimes -- */

/* Opened, or the test fails with gyre_last_error(). */
struct gyre *test_open(const struct gyre_options *options);
struct gyre *test_open_workers(unsigned workers);

struct gyre_stats test_stats(struct gyre *rt);
#define test_stat(rt, field)	(test_stats(rt).field)

/* What gyre_dump() writes; free() it. */
char *test_dump(struct gyre *rt);

/* The ids of this process's threads whose name is NAME: how many, *ret the first. */
unsigned test_find_thread(const char *name, int *ret_tid);

/* The rest of the line "KEY:" in /proc/self/task/TID/status. */
void test_thread_status(int tid, const char *key, char *ret, size_t len);

/* ------------------------------------------------------------- preps -- */

struct test_io {
	int fd;
	void *buf;
	unsigned len;
	uint64_t offset;
};
#define TEST_IO_HERE	((uint64_t)-1)		/* pipes and sockets: no offset */

void prep_nop(struct io_uring_sqe *sqe, void *arg);
void prep_read(struct io_uring_sqe *sqe, void *test_io);
void prep_write(struct io_uring_sqe *sqe, void *test_io);
void prep_timeout(struct io_uring_sqe *sqe, void *kernel_timespec);
void prep_poll_in(struct io_uring_sqe *sqe, void *fd);
void prep_nothing(struct io_uring_sqe *sqe, void *arg);
void prep_forbidden(struct io_uring_sqe *sqe, void *arg);	/* MSG_RING */

/* A NOP that notes on which thread its prep has run. */
struct test_witness {
	pid_t tid;
	char name[16];
};
void prep_witness(struct io_uring_sqe *sqe, void *test_witness);

/* All zero but for prep and arg. */
struct gyre_op test_op(gyre_prep_fn *prep, void *arg);

/* --------------------------------------------------------------- jobs -- */

/* As a job of rt, which must end well: what fn returned. */
int test_block_on(struct gyre *rt, gyre_task_fn *fn, void *arg);
struct gyre_job *test_spawn(struct gyre *rt, gyre_task_fn *fn, void *arg);
struct gyre_job *test_spawn_on(struct gyre *rt, unsigned worker, gyre_task_fn *fn, void *arg);
#define expect_job(job, status) \
	expect_status(gyre_job_wait((job), GYRE_FOREVER, NULL), (status))

/* Returns arg, as a number. */
int test_task_return(void *number);
/* Yields until somebody sets the flag, and returns 3. */
int test_task_until(void *atomic_uint_flag);
/* Counts itself in, sleeps until it is cancelled, and returns 0. NULL: uncounted. */
int test_task_sleep(void *atomic_uint_here);
/* The same, but sleeps again whatever it is told: it has to be dropped. */
int test_task_refuse(void *atomic_uint_here);

/* ------------------------------------------------------------- files -- */

struct test_pipe {
	int r, w;
};
/* Answers no read until it is written to, which nobody does unasked. */
struct test_pipe test_pipe(void);
void test_pipe_close(struct test_pipe *pipe);
/* Non-blocking look: how many bytes lie in it. */
int test_pipe_holds(const struct test_pipe *pipe);

/* A file without a name, opened for both, whose byte n is test_byte(n). */
int test_file(size_t len);
unsigned char test_byte(uint64_t offset);
void expect_bytes(const void *buf, size_t len, uint64_t offset);

/* A second descriptor of the same file, with flags of its own. */
int test_reopen(int fd, int flags);
/* How many descriptors are open, with the one that counting takes. */
unsigned test_count_fds(void);

/* Raises or lowers nothing but the soft limit. */
void test_limit(int resource, uint64_t soft);
/* A number that no open descriptor has. */
int test_closed_fd(void);

/* ----------------------------------------------- threads, processes -- */

#define TEST_CREW_MAX	128

typedef void test_crew_fn(void *arg, unsigned number);

struct test_crew {
	unsigned count;
	test_crew_fn *fn;
	void *arg;
	pthread_barrier_t start;
	pthread_t threads[TEST_CREW_MAX];
};

/* Threads that begin at the same moment, once all of them are there. */
void test_crew_start(struct test_crew *crew, unsigned count, test_crew_fn *fn, void *arg);
void test_crew_join(struct test_crew *crew);
void test_crew_run(unsigned count, test_crew_fn *fn, void *arg);

/* Runs fn in a forked child; its failed expectations are the test's. */
void test_in_child(void (*fn)(void *arg), void *arg);
/* The same, and as an ordinary user in the child: without capabilities. */
void test_in_child_as_nobody(void (*fn)(void *arg), void *arg);

/* Runs fn in a forked child that must fall over an assert of the library. */
void test_asserts(void (*fn)(void *arg), void *arg);

/* What fd yields up to its end, NUL-terminated; free() it. Rewinds a file first. */
char *test_slurp(int fd);

#endif
