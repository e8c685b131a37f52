/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "helpers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AWAIT_TURNS	200000		/* of 100 us and more */

/* -------------------------------------------------------- expecting -- */

void test_expect_status_at(const char *file, int line, const char *what, enum gyre_status got,
			   enum gyre_status want)
{
	if (got != want)
		test_fail_at(file, line, "%s is %s, expected %s (last error: %s)", what,
			     gyre_status_name(got), gyre_status_name(want), gyre_last_error());
}

static const char *effect_name(enum gyre_effect effect)
{
	static const char *const names[] = { "NONE", "UNKNOWN", "DONE" };

	return effect <= GYRE_EFFECT_DONE ? names[effect] : "?";
}

void test_expect_op_at(const char *file, int line, const char *what, const struct gyre_op *op,
		       enum gyre_status status, int res, enum gyre_effect effect)
{
	if (op->status != status || op->res != res || op->effect != effect)
		test_fail_at(file, line,
			     "%s is %s, res %d, effect %s; expected %s, res %d, effect %s", what,
			     gyre_status_name(op->status), op->res, effect_name(op->effect),
			     gyre_status_name(status), res, effect_name(effect));
}

void test_await_turn(unsigned *turns, const char *file, int line, const char *what)
{
	static const struct timespec pause = { .tv_nsec = 50 * 1000 };

	if (++*turns > AWAIT_TURNS)
		test_fail_at(file, line, "waited in vain for: %s", what);
	if (*turns < 100)
		sched_yield();
	else
		nanosleep(&pause, NULL);
}

/* ---------------------------------------------------------- runtimes -- */

struct gyre *test_open(const struct gyre_options *options)
{
	struct gyre *rt = NULL;
	enum gyre_status status = gyre_open(options, &rt);

	if (status != GYRE_OK)
		test_fail("gyre_open: %s: %s", gyre_status_name(status), gyre_last_error());
	expect(rt);
	return rt;
}

struct gyre *test_open_workers(unsigned workers)
{
	struct gyre_options options = { .size = sizeof(options), .workers = workers };

	return test_open(&options);
}

struct gyre_stats test_stats(struct gyre *rt)
{
	struct gyre_stats stats = { .size = sizeof(stats) };

	expect_status(gyre_stats_get(rt, &stats), GYRE_OK);
	return stats;
}

static bool thread_file_line(int tid, const char *file, char *ret, size_t len)
{
	char path[64];
	FILE *stream;
	bool got;

	snprintf(path, sizeof(path), "/proc/self/task/%d/%s", tid, file);
	stream = fopen(path, "re");
	if (!stream)
		return false;
	got = fgets(ret, (int)len, stream) != NULL;
	fclose(stream);
	if (got)
		ret[strcspn(ret, "\n")] = '\0';
	return got;
}

char *test_dump(struct gyre *rt)
{
	int fd = test_file(0);
	char *text;

	expect_status(gyre_dump(rt, fd), GYRE_OK);
	text = test_slurp(fd);
	close(fd);
	return text;
}

unsigned test_find_thread(const char *name, int *ret_tid)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned found = 0;
	struct dirent *entry;
	char comm[32];

	expect(dir);
	while ((entry = readdir(dir))) {
		int tid = atoi(entry->d_name);

		if (tid <= 0 || !thread_file_line(tid, "comm", comm, sizeof(comm)) ||
		    strcmp(comm, name) != 0)
			continue;
		if (found++ == 0 && ret_tid)
			*ret_tid = tid;
	}
	closedir(dir);
	return found;
}

void test_thread_status(int tid, const char *key, char *ret, size_t len)
{
	size_t key_len = strlen(key);
	char path[64], line[512];
	FILE *stream;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	stream = fopen(path, "re");
	expect(stream);
	ret[0] = '\0';
	while (fgets(line, sizeof(line), stream))
		if (strncmp(line, key, key_len) == 0 && line[key_len] == ':') {
			char *value = line + key_len + 1 + strspn(line + key_len + 1, " \t");

			value[strcspn(value, "\n")] = '\0';
			snprintf(ret, len, "%s", value);
		}
	fclose(stream);
}

/* ------------------------------------------------------------- preps -- */

void prep_nop(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
}

void prep_read(struct io_uring_sqe *sqe, void *test_io)
{
	const struct test_io *io = test_io;

	io_uring_prep_read(sqe, io->fd, io->buf, io->len, io->offset);
}

void prep_write(struct io_uring_sqe *sqe, void *test_io)
{
	const struct test_io *io = test_io;

	io_uring_prep_write(sqe, io->fd, io->buf, io->len, io->offset);
}

void prep_timeout(struct io_uring_sqe *sqe, void *kernel_timespec)
{
	io_uring_prep_timeout(sqe, kernel_timespec, 0, 0);
}

void prep_poll_in(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_poll_add(sqe, *(int *)fd, POLLIN);
}

void prep_nothing(struct io_uring_sqe *sqe, void *arg)
{
	(void)sqe;
	(void)arg;
}

void prep_forbidden(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_msg_ring(sqe, 0, 0, 0, 0);
}

void prep_witness(struct io_uring_sqe *sqe, void *arg)
{
	struct test_witness *witness = arg;

	witness->tid = gettid();
	prctl(PR_GET_NAME, witness->name);
	io_uring_prep_nop(sqe);
}

struct gyre_op test_op(gyre_prep_fn *prep, void *arg)
{
	struct gyre_op op;

	memset(&op, 0, sizeof(op));
	op.prep = prep;
	op.arg = arg;
	return op;
}

/* ------------------------------------------------------------- files -- */

struct test_pipe test_pipe(void)
{
	int fds[2];

	expect_eq(pipe2(fds, O_CLOEXEC), 0);
	return (struct test_pipe){ fds[0], fds[1] };
}

static void close_if_open(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void test_pipe_close(struct test_pipe *pipe)
{
	close_if_open(&pipe->r);
	close_if_open(&pipe->w);
}

int test_pipe_holds(const struct test_pipe *pipe)
{
	int bytes = -1;

	expect_eq(ioctl(pipe->r, FIONREAD, &bytes), 0);
	return bytes;
}

unsigned char test_byte(uint64_t offset)
{
	return (unsigned char)(offset * 167 + (offset >> 8) * 13 + 7);
}

int test_file(size_t len)
{
	const char *dir = getenv("TMPDIR");
	unsigned char *bytes = malloc(len + 1);
	size_t i;
	int fd;

	expect(bytes);
	fd = open(dir && *dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0) {
		char path[] = "/tmp/gyre-test-XXXXXX";

		fd = mkostemp(path, O_CLOEXEC);
		expect_ge(fd, 0);
		unlink(path);
	}
	for (i = 0; i < len; i++)
		bytes[i] = test_byte(i);
	expect_eq(pwrite(fd, bytes, len, 0), len);
	free(bytes);
	return fd;
}

void expect_bytes(const void *buf, size_t len, uint64_t offset)
{
	const unsigned char *bytes = buf;
	size_t i;

	for (i = 0; i < len; i++)
		if (bytes[i] != test_byte(offset + i))
			test_fail("byte %zu of %zu is %02x, expected %02x", i, len, bytes[i],
				  test_byte(offset + i));
}

void test_limit(int resource, uint64_t soft)
{
	struct rlimit limit;

	expect_eq(getrlimit((__rlimit_resource_t)resource, &limit), 0);
	limit.rlim_cur = soft;
	expect_eq(setrlimit((__rlimit_resource_t)resource, &limit), 0);
}

int test_reopen(int fd, int flags)
{
	char path[64];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	expect_ge(again, 0);
	return again;
}

unsigned test_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	expect(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

int test_closed_fd(void)
{
	/* Past every limit: one closed just now might be another thread's by then. */
	return INT_MAX;
}

/* ----------------------------------------------- threads, processes -- */

struct crew_member {
	struct test_crew *crew;
	unsigned number;
};

static void *crew_member_main(void *arg)
{
	struct crew_member member = *(struct crew_member *)arg;

	free(arg);
	pthread_barrier_wait(&member.crew->start);
	member.crew->fn(member.crew->arg, member.number);
	return NULL;
}

void test_crew_start(struct test_crew *crew, unsigned count, test_crew_fn *fn, void *arg)
{
	unsigned i;

	expect_le(count, TEST_CREW_MAX);
	crew->count = count;
	crew->fn = fn;
	crew->arg = arg;
	pthread_barrier_init(&crew->start, NULL, count);
	for (i = 0; i < count; i++) {
		struct crew_member *member = malloc(sizeof(*member));

		expect(member);
		*member = (struct crew_member){ crew, i };
		expect_eq(pthread_create(&crew->threads[i], NULL, crew_member_main, member), 0);
	}
}

void test_crew_join(struct test_crew *crew)
{
	unsigned i;

	for (i = 0; i < crew->count; i++)
		pthread_join(crew->threads[i], NULL);
	pthread_barrier_destroy(&crew->start);
}

void test_crew_run(unsigned count, test_crew_fn *fn, void *arg)
{
	struct test_crew crew;

	test_crew_start(&crew, count, fn, arg);
	test_crew_join(&crew);
}

void test_in_child(void (*fn)(void *arg), void *arg)
{
	int wait_status;
	pid_t pid = fork();

	expect_ge(pid, 0);
	if (pid == 0) {
		fn(arg);
		_exit(0);
	}
	while (waitpid(pid, &wait_status, 0) < 0)
		expect_eq(errno, EINTR);
	if (WIFSIGNALED(wait_status))
		test_fail("the child died of signal %d", WTERMSIG(wait_status));
	if (wait_status != 0)
		_exit(1);	/* it has told why */
}

void test_asserts(void (*fn)(void *arg), void *arg)
{
	int wait_status;
	pid_t pid = fork();

	expect_ge(pid, 0);
	if (pid == 0) {
		test_limit(RLIMIT_CORE, 0);
		signal(SIGABRT, SIG_DFL);
		fn(arg);
		_exit(0);
	}
	while (waitpid(pid, &wait_status, 0) < 0)
		expect_eq(errno, EINTR);
	if (!WIFSIGNALED(wait_status) || WTERMSIG(wait_status) != SIGABRT)
		test_fail("expected a failed assert, the child ended with %x", wait_status);
}

struct as_nobody {
	void (*fn)(void *arg);
	void *arg;
};

static void become_nobody(void *arg)
{
	const struct as_nobody *as_nobody = arg;
	uid_t nobody = 65534;

	expect_eq(setgroups(0, NULL), 0);
	expect_eq(setresgid(nobody, nobody, nobody), 0);
	expect_eq(setresuid(nobody, nobody, nobody), 0);
	as_nobody->fn(as_nobody->arg);
}

void test_in_child_as_nobody(void (*fn)(void *arg), void *arg)
{
	struct as_nobody as_nobody = { fn, arg };

	if (geteuid() == 0)
		test_in_child(become_nobody, &as_nobody);
	else
		test_in_child(fn, arg);
}

char *test_slurp(int fd)
{
	size_t used = 0, size = 1 << 16;
	char *text = malloc(size);
	ssize_t n;

	expect(text);
	lseek(fd, 0, SEEK_SET);
	while ((n = read(fd, text + used, size - 1 - used)) > 0) {
		used += (size_t)n;
		if (used == size - 1) {
			size *= 2;
			text = realloc(text, size);
			expect(text);
		}
	}
	expect_eq(n, 0);
	text[used] = '\0';
	return text;
}

/* --------------------------------------------------------------- jobs -- */

int test_block_on(struct gyre *rt, gyre_task_fn *fn, void *arg)
{
	enum gyre_status status;
	int result = -4711;

	status = gyre_block_on(rt, fn, arg, NULL, &result);
	if (status != GYRE_OK)
		test_fail("gyre_block_on: %s", gyre_last_error());
	return result;
}

struct gyre_job *test_spawn(struct gyre *rt, gyre_task_fn *fn, void *arg)
{
	struct gyre_job *job = NULL;

	if (gyre_spawn(rt, fn, arg, NULL, &job) != GYRE_OK)
		test_fail("gyre_spawn: %s", gyre_last_error());
	return job;
}

struct gyre_job *test_spawn_on(struct gyre *rt, unsigned worker, gyre_task_fn *fn, void *arg)
{
	struct gyre_job_options options = { .size = sizeof(options),
					    .worker = GYRE_WORKER(worker) };
	struct gyre_job *job = NULL;

	if (gyre_spawn(rt, fn, arg, &options, &job) != GYRE_OK)
		test_fail("gyre_spawn: %s", gyre_last_error());
	return job;
}

int test_task_return(void *arg)
{
	return (int)(intptr_t)arg;
}

int test_task_until(void *arg)
{
	while (!atomic_load((atomic_uint *)arg))
		gyre_yield();
	return 3;
}

int test_task_sleep(void *arg)
{
	if (arg)
		atomic_fetch_add((atomic_uint *)arg, 1);
	expect_status(gyre_sleep(GYRE_FOREVER), GYRE_CANCELLED);
	return 0;
}

int test_task_refuse(void *arg)
{
	if (arg)
		atomic_fetch_add((atomic_uint *)arg, 1);
	for (;;)
		gyre_sleep(GYRE_FOREVER);
}
