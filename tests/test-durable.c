/* SPDX-License-Identifier: MIT */
/*
 * gyre_write_durable, gyre_durable_reset, and the law that a failed flush stays
 * failed, on every way that a flush can be asked for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"
#include "lib/durable.h"
#include "lib/runtime.h"
#include "ring/failed.h"
#include "ring/sys_fault.h"

#define BLOCK	4096u

static const char *const routes[] = { "auto", "caller", "ring" };

static struct gyre *open_routed(const char *route)
{
	struct gyre *rt;

	setenv("GYRE_ROUTE", route, 1);
	rt = test_open_workers(1);
	unsetenv("GYRE_ROUTE");
	return rt;
}

static struct gyre *open_faulty(const char *route)
{
	gyre__fault_install();
	return open_routed(route);
}

static void close_faulty(struct gyre *rt)
{
	gyre_free(rt);
	gyre__fault_remove();
}

/* A file on a file system that takes O_DIRECT; skips where this directory's does not. */
static int direct_file(size_t len)
{
	int fd = test_file(len), direct;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	close(fd);
	if (direct < 0)
		test_skip("the temporary directory's file system does not do O_DIRECT");
	return direct;
}

static void prep_fsync(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_fsync(sqe, *(int *)fd, 0);
}

/* ---------------------------------------------------------------- success -- */

TEST(durable_write_is_there_on_every_route)
{
	char text[] = "written to stay", back[sizeof(text)];
	unsigned i;

	for (i = 0; i < 3; i++) {
		struct gyre *rt = open_routed(routes[i]);
		int fd = test_file(10);

		test_row("%s", routes[i]);
		expect_eq(gyre_write_durable(rt, fd, text, sizeof(text), 5000), sizeof(text));
		expect_status(gyre_last_status(), GYRE_OK);
		expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
		expect_contains(gyre_last_error(), "no error");
		expect_eq(pread(fd, back, sizeof(back), 5000), sizeof(back));
		expect_str(back, text);
		expect_eq(test_stat(rt, durable_writes), 1);
		expect_eq(test_stat(rt, durable_flushes), 1);
		expect_eq(gyre_write_durable(rt, fd, NULL, 0, 0), 0);
		expect_eq(test_stat(rt, durable_flushes), 1);
		close(fd);
		gyre_free(rt);
	}
}

TEST(a_file_is_known_by_what_fstat_says_of_it)
{
	int fds[] = { test_file(1234), open("/dev/null", O_RDWR | O_CLOEXEC),
		      open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
	struct stat ours, theirs;
	unsigned i;

	for (i = 0; i < 3; i++) {
		expect_eq(fstat(fds[i], &theirs), 0);
		expect_eq(gyre__sys->fstat(fds[i], &ours), 0);
		expect_eq(ours.st_mode, theirs.st_mode);
		expect_eq(ours.st_dev, theirs.st_dev);
		expect_eq(ours.st_rdev, theirs.st_rdev);
		expect_eq(ours.st_ino, theirs.st_ino);
		expect_eq(ours.st_size, theirs.st_size);
		close(fds[i]);
	}
	expect_eq(gyre__sys->fstat(test_closed_fd(), &ours), -EBADF);
}

TEST(descriptors_that_flush_each_write_anyway_will_do)
{
	static const int flags[] = { O_DSYNC, O_SYNC };
	struct gyre *rt = open_routed("auto");
	unsigned i, n;

	for (i = 0; i < 2; i++) {
		int fd = test_file(10), again = test_reopen(fd, O_RDWR | flags[i]);

		for (n = 0; n < 200; n++)
			expect_eq(gyre_write_durable(rt, again, "abc", 3, n), 3);
		close(fd);
		close(again);
	}
	expect_eq(test_stat(rt, durable_by_group), 0);
	gyre_free(rt);
}

TEST(every_method_is_tried_and_one_is_learnt)
{
	struct gyre *rt = open_routed("auto");
	int fd = direct_file(64 * BLOCK), out;
	struct gyre_stats stats;
	void *block;
	char *text;
	unsigned i;

	expect_eq(posix_memalign(&block, BLOCK, BLOCK), 0);
	memset(block, 'x', BLOCK);
	for (i = 0; i < 12 * 32; i++)
		expect_eq(gyre_write_durable(rt, fd, block, BLOCK, i % 64 * BLOCK), BLOCK);
	stats = test_stats(rt);
	/* Three phases of 16 writes each, of which a quarter may do. */
	expect_ge(stats.durable_by_dsync, 12);
	expect_eq(stats.durable_by_ring, 0);	/* of no use to one caller */
	expect_ge(stats.durable_by_group, 12);
	expect_eq(stats.durable_writes, 384);
	expect_eq(stats.durable_flushes, 384);
	out = memfd_create("dump", MFD_CLOEXEC);
	expect_status(gyre_dump(rt, out), GYRE_OK);
	text = test_slurp(out);
	expect_contains(text, "O_DIRECT, 1-2 callers: now ");
	expect_contains(text, "us a write");
	free(text);
	close(out);
	free(block);
	close(fd);
	gyre_free(rt);
}

/* ----------------------------------------------------------------- misuse -- */

static void expect_refused(struct gyre *rt, int fd, const void *buf, size_t len, off_t offset,
			   int error, enum gyre_effect effect, const char *words)
{
	expect_eq(gyre_write_durable(rt, fd, buf, len, offset), error);
	expect_eq(gyre_last_effect(), effect);
	expect_contains(gyre_last_error(), "gyre_write_durable: ");
	expect_contains(gyre_last_error(), words);
	expect(gyre_last_status() != GYRE_OK || error != -EINVAL || effect == GYRE_EFFECT_DONE);
}

TEST(what_cannot_be_durable_is_refused_in_words)
{
	struct gyre *rt = open_routed("auto");
	int fd = test_file(10), append = test_reopen(fd, O_RDWR | O_APPEND);
	int reads = test_reopen(fd, O_RDONLY), dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct test_pipe pipe = test_pipe();

	expect_refused(rt, append, "x", 1, 0, -EINVAL, GYRE_EFFECT_NONE, "O_APPEND");
	expect_refused(rt, pipe.w, "x", 1, 0, -ESPIPE, GYRE_EFFECT_NONE, "pipe");
	expect_refused(rt, reads, "x", 1, 0, -EBADF, GYRE_EFFECT_NONE, "not open for writing");
	expect_refused(rt, dir, "x", 1, 0, -EISDIR, GYRE_EFFECT_NONE, "directory");
	expect_refused(rt, null_fd, "x", 1, 0, -EINVAL, GYRE_EFFECT_NONE, "character device");
	expect_refused(rt, -1, "x", 1, 0, -EBADF, GYRE_EFFECT_NONE, "not open");
	expect_refused(rt, test_closed_fd(), "x", 1, 0, -EBADF, GYRE_EFFECT_NONE, "not open");
	expect_refused(rt, fd, "x", 1, -1, -EINVAL, GYRE_EFFECT_NONE, "negative");
	expect_refused(rt, fd, "x", (size_t)SSIZE_MAX + 1, 0, -EINVAL, GYRE_EFFECT_NONE,
		       "past the end");
	expect_refused(rt, fd, "x", 2, INT64_MAX - 1, -EINVAL, GYRE_EFFECT_NONE, "past the end");
	expect_refused(rt, append, NULL, 0, 0, -EINVAL, GYRE_EFFECT_NONE, "O_APPEND");
	expect_refused(rt, fd, NULL, 1, 0, -EFAULT, GYRE_EFFECT_DONE, "Bad address");
	expect_eq(test_stat(rt, durable_failed_files), 0);
	expect_eq(gyre_write_durable(rt, fd, "x", 1, 0), 1);
	expect_eq(gyre_durable_reset(rt, test_closed_fd()), -EBADF);
	expect_contains(gyre_last_error(), "gyre_durable_reset: ");
	test_pipe_close(&pipe);
	close(append);
	close(reads);
	close(dir);
	close(null_fd);
	close(fd);
	gyre_free(rt);
}

TEST(unaligned_direct_write_is_refused_and_harms_nobody)
{
	unsigned i;

	for (i = 0; i < 3; i++) {
		struct gyre *rt = open_routed(routes[i]);
		int fd = direct_file(2 * BLOCK);
		static char buf[3];

		test_row("%s", routes[i]);
		expect_refused(rt, fd, buf, 3, 1, -EINVAL, GYRE_EFFECT_DONE, "O_DIRECT");
		expect_eq(test_stat(rt, durable_failed_files), 0);
		close(fd);
		gyre_free(rt);
	}
}

static void write_past_the_limit(void *arg)
{
	int fd = *(int *)arg;
	struct gyre *rt = test_open_workers(1);
	struct stat st;

	test_limit(RLIMIT_FSIZE, 8192);
	expect_eq(gyre_write_durable(rt, fd, "within", 6, 8000), 6);
	expect_refused(rt, fd, "beyond the limit", 16, 8190, -EFBIG, GYRE_EFFECT_NONE,
		       "RLIMIT_FSIZE");
	expect_eq(fstat(fd, &st), 0);
	expect_eq(st.st_size, 8006);
	/* What is longer already may not be written there, either. */
	test_limit(RLIMIT_FSIZE, 4096);
	expect_refused(rt, fd, "beyond the limit", 16, 5000, -EFBIG, GYRE_EFFECT_NONE,
		       "RLIMIT_FSIZE");
	expect_eq(gyre_write_durable(rt, fd, "within", 6, 4000), 6);
	gyre_free(rt);
}

TEST(a_file_that_may_not_grow_is_no_signal)
{
	int fd = test_file(10);

	test_in_child(write_past_the_limit, &fd);
	close(fd);
}

TEST(deleted_file_is_written_like_any_other)
{
	char path[] = "/tmp/gyre-durable-XXXXXX";
	struct gyre *rt = open_routed("auto");
	int fd = mkostemp(path, O_CLOEXEC);

	expect_ge(fd, 0);
	unlink(path);
	expect_eq(gyre_write_durable(rt, fd, "gone", 4, 0), 4);
	close(fd);
	gyre_free(rt);
}

/* ------------------------------------------------------ a flush that fails -- */

/* Whatever flushes fd's file fails with error, and what does not still works. */
static void expect_failed(struct gyre *rt, int fd, int error)
{
	struct gyre_op op = test_op(prep_fsync, &fd);

	expect_eq(gyre_write_durable(rt, fd, "x", 1, 0), error);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_status(gyre_last_status(), GYRE_OK);
	expect_contains(gyre_last_error(), "gyre_durable_reset");
	expect_eq(gyre_fsync(rt, fd), error);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_eq(gyre_fdatasync(rt, fd), error);
	expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
	expect_op(&op, GYRE_OK, error, GYRE_EFFECT_NONE);
	expect_eq(gyre_pwrite(rt, fd, "x", 1, 0), 1);
}

static void expect_well(struct gyre *rt, int fd)
{
	struct gyre_op op = test_op(prep_fsync, &fd);

	expect_eq(gyre_fsync(rt, fd), 0);
	expect_eq(gyre_fdatasync(rt, fd), 0);
	expect_eq(gyre_write_durable(rt, fd, "x", 1, 0), 1);
	expect_status(gyre_callv(rt, &op, 1), GYRE_OK);
	expect_op(&op, GYRE_OK, 0, GYRE_EFFECT_DONE);
}

static const struct {
	const char *name;
	enum gyre__fault_call call;
	int error;
} failures[] = {
	{ "fsync", GYRE__FAULT_fsync, -EIO },
	{ "fdatasync", GYRE__FAULT_fdatasync, -ENOSPC },
	{ "write", GYRE__FAULT_pwritev2, -EIO },
};

TEST(a_failed_flush_fails_the_file_and_no_other_until_the_reset)
{
	unsigned i;

	for (i = 0; i < 3; i++) {
		struct gyre *rt = open_faulty("auto");
		int fd = test_file(10), other = test_file(10), again = test_reopen(fd, O_RDWR);
		ssize_t res;

		test_row("%s", failures[i].name);
		gyre__fault_set(failures[i].call, 0, 1, failures[i].error);
		res = i == 0 ? gyre_fsync(rt, fd) : i == 1 ? gyre_fdatasync(rt, fd) :
		      gyre_write_durable(rt, fd, "x", 1, 0);
		expect_eq(res, failures[i].error);
		expect_eq(gyre_last_effect(), i == 2 ? GYRE_EFFECT_UNKNOWN : GYRE_EFFECT_DONE);
		expect_contains(gyre_last_error(), "gyre_durable_reset");
		expect_eq(gyre__fault_count(failures[i].call), 1);
		expect_eq(test_stat(rt, durable_failed_files), 1);
		expect_eq(test_stat(rt, durable_failed), 1);
		expect_failed(rt, fd, failures[i].error);
		expect_failed(rt, again, failures[i].error);
		expect_eq(gyre__fault_count(failures[i].call), 1);
		expect_well(rt, other);
		expect_eq(gyre_durable_reset(rt, other), 0);
		expect_failed(rt, fd, failures[i].error);
		expect_eq(gyre_durable_reset(rt, again), 0);
		expect_eq(test_stat(rt, durable_failed_files), 0);
		expect_well(rt, fd);
		close(fd);
		close(again);
		close(other);
		close_faulty(rt);
	}
}

TEST(a_hard_link_is_the_same_file)
{
	char path[] = "/tmp/gyre-durable-XXXXXX", link_path[sizeof(path) + 2];
	struct gyre *rt = open_faulty("auto");
	int fd = mkostemp(path, O_CLOEXEC), linked;

	snprintf(link_path, sizeof(link_path), "%s-2", path);
	expect_eq(link(path, link_path), 0);
	linked = open(link_path, O_RDWR | O_CLOEXEC);
	unlink(path);
	unlink(link_path);
	gyre__fault_set(GYRE__FAULT_fsync, 0, 1, -EIO);
	expect_eq(gyre_fsync(rt, fd), -EIO);
	expect_failed(rt, linked, -EIO);
	close(fd);
	close(linked);
	close_faulty(rt);
}

TEST(refused_and_interrupted_flushes_fail_nothing)
{
	static const int errors[] = { -EBADF, -ECANCELED, -EINTR };
	struct gyre *rt = open_faulty("auto");
	int fd = test_file(10);
	unsigned i;

	for (i = 0; i < 3; i++) {
		gyre__fault_set(GYRE__FAULT_fsync, 0, 1, errors[i]);
		expect_eq(gyre_fsync(rt, fd), errors[i]);
		expect_eq(gyre_last_effect(), GYRE_EFFECT_DONE);
		expect_well(rt, fd);
		gyre__fault_clear();
	}
	expect_eq(test_stat(rt, durable_failed_files), 0);
	close(fd);
	close_faulty(rt);
}

/* File systems hand on what their device or server said, whatever that was. */
TEST(any_errno_of_a_flush_that_was_tried_fails_the_file)
{
	static const int errors[] = { -EACCES, -EPERM, -EROFS, -EINVAL, -EOPNOTSUPP, -EDQUOT };
	struct gyre *rt = open_faulty("auto");
	unsigned i;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		int fd = test_file(10);

		gyre__fault_set(GYRE__FAULT_fsync, 0, 1, errors[i]);
		expect_eq(gyre_fsync(rt, fd), errors[i]);
		expect_failed(rt, fd, errors[i]);
		expect_eq(gyre_durable_reset(rt, fd), 0);
		expect_well(rt, fd);
		gyre__fault_clear();
		close(fd);
	}
	close_faulty(rt);
}

TEST(what_has_no_medium_takes_no_place_among_the_failed)
{
	struct gyre *rt = open_faulty("auto");
	unsigned i;

	for (i = 0; i <= GYRE__FAILED_MAX; i++) {
		struct test_pipe pipe = test_pipe();

		expect_eq(gyre_fsync(rt, pipe.r), -EINVAL);
		expect(!strstr(gyre_last_error(), "gyre_durable_reset"));
		test_pipe_close(&pipe);
	}
	expect_eq(test_stat(rt, durable_failed_files), 0);
	expect_eq(test_stat(rt, durable_failed), 0);
	close_faulty(rt);
}

/* Two writes and the flush of a file that has failed, linked: what is behind it never runs. */
TEST(a_chain_breaks_at_the_flush_of_a_failed_file)
{
	struct gyre *rt = open_faulty("auto");
	int fd = test_file(10);
	struct test_io io = { fd, (char[]){ "ab" }, 2, 0 };
	struct gyre_op ops[3] = { test_op(prep_write, &io), test_op(prep_fsync, &fd),
				  test_op(prep_write, &io) };

	gyre__fault_set(GYRE__FAULT_fsync, 0, 1, -EIO);
	expect_eq(gyre_fsync(rt, fd), -EIO);
	ops[0].flags = ops[1].flags = GYRE_OP_LINK;
	gyre_callv(rt, ops, 3);
	expect_op(&ops[0], GYRE_OK, 2, GYRE_EFFECT_DONE);
	expect_op(&ops[1], GYRE_OK, -EIO, GYRE_EFFECT_NONE);
	expect_op(&ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_NONE);
	close(fd);
	close_faulty(rt);
}

TEST(more_failed_files_than_can_be_told_apart_fail_all)
{
	struct gyre *rt = open_faulty("auto");
	int fds[GYRE__FAILED_MAX + 1], other = test_file(1);
	unsigned i;

	for (i = 0; i <= GYRE__FAILED_MAX; i++)
		fds[i] = test_file(1);
	gyre__fault_set(GYRE__FAULT_fsync, 0, GYRE__FAILED_MAX + 1, -EIO);
	for (i = 0; i < GYRE__FAILED_MAX; i++)
		expect_eq(gyre_fsync(rt, fds[i]), -EIO);
	expect_eq(gyre_fdatasync(rt, other), 0);
	expect_eq(gyre_fsync(rt, fds[GYRE__FAILED_MAX]), -EIO);
	expect_failed(rt, other, -EIO);
	expect_eq(gyre_durable_reset(rt, other), -ENOSPC);
	expect_contains(gyre_last_error(), "open another runtime");
	expect_eq(gyre_durable_reset(rt, fds[0]), -ENOSPC);
	expect_failed(rt, fds[0], -EIO);
	for (i = 0; i <= GYRE__FAILED_MAX; i++)
		close(fds[i]);
	close(other);
	close_faulty(rt);
}

TEST(a_file_that_failed_and_cannot_be_named_fails_all)
{
	struct gyre *rt = open_faulty("auto");
	int fd = test_file(1), other = test_file(1);

	gyre__fault_set(GYRE__FAULT_fsync, 0, 1, -EIO);
	gyre__fault_set(GYRE__FAULT_statx, 0, 1, -ENOMEM);
	expect_eq(gyre_fsync(rt, fd), -EIO);
	expect_failed(rt, other, -EIO);
	close(fd);
	close(other);
	close_faulty(rt);
}

/* ------------------------------------------------------------------ groups -- */

#define MEMBERS	6

/* Stops the first fdatasync until it is let go. */
struct gate {
	struct gyre *rt;
	int fd;
	atomic_uint flushes;		/* that have begun */
	atomic_bool open;
	int first_error;		/* what the stopped one comes to */
	ssize_t res[MEMBERS];
};

static int stop_at_gate(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	struct gate *gate = arg;

	(void)call;
	(void)fd;
	(void)site;
	if (atomic_fetch_add(&gate->flushes, 1) > 0)
		return 0;
	await(atomic_load(&gate->open));
	return gate->first_error;
}

static void write_at_gate(void *arg, unsigned number)
{
	struct gate *gate = arg;

	if (number == 0) {
		gate->res[0] = gyre_fdatasync(gate->rt, gate->fd);
		return;
	}
	await(atomic_load(&gate->flushes) == 1);
	gate->res[number] = number % 2 ? gyre_fdatasync(gate->rt, gate->fd) :
			    gyre_write_durable(gate->rt, gate->fd, "abc", 3, number);
}

/* All but the one that is stopped sleep behind it. */
static void open_when_all_wait(struct gate *gate)
{
	await(gyre__fault_count(GYRE__FAULT_futex_wait) >= MEMBERS - 1);
	atomic_store(&gate->open, true);
}

static void run_at_gate(struct gate *gate, const char *route)
{
	struct test_crew crew;

	gate->rt = open_faulty(route);
	gate->fd = test_file(10);
	gyre__fault_hook(GYRE__FAULT_fdatasync, stop_at_gate, gate);
	test_crew_start(&crew, MEMBERS, write_at_gate, gate);
	open_when_all_wait(gate);
	test_crew_join(&crew);
	gyre__fault_hook(GYRE__FAULT_fdatasync, NULL, NULL);
}

TEST(who_comes_during_a_flush_waits_for_the_next_and_shares_it)
{
	struct gate gate = { 0 };
	unsigned i;

	run_at_gate(&gate, "caller");
	for (i = 0; i < MEMBERS; i++)
		expect_eq(gate.res[i], i == 0 || i % 2 ? 0 : 3);
	/* One for the first, one for all the others. */
	expect_eq(atomic_load(&gate.flushes), 2);
	expect_eq(test_stat(gate.rt, durable_flushes), 2);
	expect_eq(test_stat(gate.rt, durable_shared), MEMBERS - 2);
	close(gate.fd);
	close_faulty(gate.rt);
}

TEST(who_waits_behind_a_flush_that_fails_is_told_and_flushes_nothing)
{
	struct gate gate = { .first_error = -EIO };
	unsigned i;

	run_at_gate(&gate, "caller");
	for (i = 0; i < MEMBERS; i++)
		expect_eq(gate.res[i], -EIO);
	expect_eq(atomic_load(&gate.flushes), 1);
	expect_eq(test_stat(gate.rt, durable_failed), 1);
	expect_failed(gate.rt, gate.fd, -EIO);
	close(gate.fd);
	close_faulty(gate.rt);
}

/* The first passes, the second, which all the others share, fails: all of them are told. */
static int fail_the_second(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	struct gate *gate = arg;
	unsigned number = atomic_load(&gate->flushes);
	int rc = stop_at_gate(call, fd, site, arg);

	return number == 1 ? -ENOSPC : rc;
}

TEST(a_shared_flush_that_fails_is_told_to_all_whom_it_covered)
{
	struct gate gate = { 0 };
	struct test_crew crew;
	unsigned i;

	gate.rt = open_faulty("caller");
	gate.fd = test_file(10);
	gyre__fault_hook(GYRE__FAULT_fdatasync, fail_the_second, &gate);
	test_crew_start(&crew, MEMBERS, write_at_gate, &gate);
	open_when_all_wait(&gate);
	test_crew_join(&crew);
	expect_eq(gate.res[0], 0);
	for (i = 1; i < MEMBERS; i++)
		expect_eq(gate.res[i], -ENOSPC);
	expect_eq(atomic_load(&gate.flushes), 2);
	gyre__fault_hook(GYRE__FAULT_fdatasync, NULL, NULL);
	close(gate.fd);
	close_faulty(gate.rt);
}

/* -------------------------------------- resets and closes in the middle -- */

/* Who flushes at the gate, who comes behind it, and what happens to them meanwhile. */
struct meanwhile {
	struct gate gate;
	pthread_t behind;
	/* It is about to look whether its file has failed; and may. */
	atomic_bool looks, go_on;
	atomic_uint pauses;		/* of the one that closes */
	atomic_bool closed, early;
	int rc;
};

static void flush_and_write(void *arg, unsigned number)
{
	struct meanwhile *meanwhile = arg;
	struct gate *gate = &meanwhile->gate;

	if (number == 0) {
		gate->res[0] = gyre_fdatasync(gate->rt, gate->fd);
		return;
	}
	meanwhile->behind = pthread_self();
	await(atomic_load(&gate->flushes) == 1);
	gate->res[1] = gyre_write_durable(gate->rt, gate->fd, "abc", 3, 0);
}

/* One flushes and is stopped in it, the other has written and waits behind it. */
static void start_meanwhile(struct meanwhile *meanwhile, struct test_crew *crew)
{
	struct gate *gate = &meanwhile->gate;

	if (!gate->rt)
		gate->rt = open_faulty("caller");
	gate->fd = test_file(10);
	gyre__fault_hook(GYRE__FAULT_fdatasync, stop_at_gate, gate);
	test_crew_start(crew, 2, flush_and_write, meanwhile);
	await(gyre__fault_count(GYRE__FAULT_futex_wait) >= 1);
}

static void end_meanwhile(struct meanwhile *meanwhile)
{
	gyre__fault_hook(GYRE__FAULT_fdatasync, NULL, NULL);
	close(meanwhile->gate.fd);
	close_faulty(meanwhile->gate.rt);
}

/* It asks which file it is only once some file has failed. */
static int stop_who_looks(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	struct meanwhile *meanwhile = arg;

	(void)call;
	(void)fd;
	(void)site;
	if (!pthread_equal(pthread_self(), meanwhile->behind))
		return 0;
	atomic_store(&meanwhile->looks, true);
	await(atomic_load(&meanwhile->go_on));
	return 0;
}

TEST(who_has_written_before_a_flush_failed_is_told_although_the_file_is_reset)
{
	struct meanwhile meanwhile = { .gate.first_error = -EIO };
	struct test_crew crew;

	start_meanwhile(&meanwhile, &crew);
	gyre__fault_hook(GYRE__FAULT_statx, stop_who_looks, &meanwhile);
	atomic_store(&meanwhile.gate.open, true);
	await(atomic_load(&meanwhile.looks));
	expect_eq(gyre_durable_reset(meanwhile.gate.rt, meanwhile.gate.fd), 0);
	atomic_store(&meanwhile.go_on, true);
	test_crew_join(&crew);
	gyre__fault_hook(GYRE__FAULT_statx, NULL, NULL);
	expect_eq(meanwhile.gate.res[0], -EIO);
	expect_eq(meanwhile.gate.res[1], -EIO);
	expect_eq(atomic_load(&meanwhile.gate.flushes), 2);	/* it looked, and saw nothing */
	expect_eq(test_stat(meanwhile.gate.rt, durable_failed_files), 0);
	expect_well(meanwhile.gate.rt, meanwhile.gate.fd);
	end_meanwhile(&meanwhile);
}

/* A ring marks a file and knows of no durable write. */
TEST(a_reset_tells_all_who_are_inside_of_what_a_ring_has_noted)
{
	struct meanwhile meanwhile = { .rc = 0 };
	struct test_crew crew;

	start_meanwhile(&meanwhile, &crew);
	gyre__failed_mark(gyre__durable_failed(meanwhile.gate.rt->durable), meanwhile.gate.fd,
			  -ENOSPC);
	expect_eq(gyre_durable_reset(meanwhile.gate.rt, meanwhile.gate.fd), 0);
	atomic_store(&meanwhile.gate.open, true);
	test_crew_join(&crew);
	expect_eq(meanwhile.gate.res[0], -ENOSPC);
	expect_eq(meanwhile.gate.res[1], -ENOSPC);
	expect_well(meanwhile.gate.rt, meanwhile.gate.fd);
	end_meanwhile(&meanwhile);
}

static struct gyre__sys pausing;
static const struct gyre__sys *paused;
static atomic_uint *_Atomic pauses;	/* NULL: nobody counts yet */

static void count_pauses(uint64_t ns)
{
	atomic_uint *count = atomic_load(&pauses);

	if (count)
		atomic_fetch_add(count, 1);
	paused->sleep_ns(ns);
}

static int note_close(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	struct meanwhile *meanwhile = arg;

	(void)call;
	(void)site;
	if (fd != meanwhile->gate.fd)
		return 0;
	atomic_store(&meanwhile->early, !atomic_load(&meanwhile->gate.open));
	atomic_store(&meanwhile->closed, true);
	return 0;
}

static void close_meanwhile(void *arg, unsigned number)
{
	struct meanwhile *meanwhile = arg;

	(void)number;
	meanwhile->rc = gyre_close_fd(meanwhile->gate.rt, meanwhile->gate.fd);
}

TEST(gyre_close_fd_waits_for_flushes_and_for_who_waits_behind_them)
{
	struct meanwhile meanwhile = { .rc = 1 };
	struct test_crew crew, closer;

	gyre__fault_install();
	paused = gyre__sys;
	pausing = *paused;
	pausing.sleep_ns = count_pauses;
	gyre__sys = &pausing;
	meanwhile.gate.rt = open_routed("caller");
	start_meanwhile(&meanwhile, &crew);
	atomic_store(&pauses, &meanwhile.pauses);
	gyre__fault_hook(GYRE__FAULT_close, note_close, &meanwhile);
	test_crew_start(&closer, 1, close_meanwhile, &meanwhile);
	await(atomic_load(&meanwhile.pauses) > 1 || atomic_load(&meanwhile.closed));
	atomic_store(&meanwhile.gate.open, true);
	test_crew_join(&closer);
	test_crew_join(&crew);
	atomic_store(&pauses, NULL);
	gyre__fault_hook(GYRE__FAULT_close, NULL, NULL);
	gyre__fault_hook(GYRE__FAULT_fdatasync, NULL, NULL);
	expect_eq(meanwhile.rc, 0);
	expect(!atomic_load(&meanwhile.early));
	expect_eq(meanwhile.gate.res[0], 0);
	expect_eq(meanwhile.gate.res[1], 3);
	gyre_free(meanwhile.gate.rt);
	gyre__sys = paused;
	gyre__fault_remove();
}

/* ------------------------------------------------ a file system without RWF_DSYNC -- */

/* One refusal, of the write that was to flush; what follows is a plain one. */
TEST(a_write_that_may_not_flush_is_written_and_then_flushed)
{
	struct gyre *rt = open_faulty("caller");
	int fd = test_file(10);

	gyre__fault_set(GYRE__FAULT_pwritev2, 0, 1, -EOPNOTSUPP);
	expect_eq(gyre_write_durable(rt, fd, "abc", 3, 0), 3);
	expect_eq(gyre__fault_count(GYRE__FAULT_pwritev2), 2);
	expect_eq(gyre__fault_count(GYRE__FAULT_fdatasync), 1);
	expect_eq(test_stat(rt, durable_by_group), 1);
	expect_eq(test_stat(rt, durable_flushes), 1);
	expect_eq(test_stat(rt, durable_failed_files), 0);
	expect_well(rt, fd);
	close(fd);
	close_faulty(rt);
}

TEST(a_direct_write_that_may_not_flush_is_written_and_then_flushed)
{
	struct gyre *rt = open_faulty("caller");
	int fd = direct_file(BLOCK);
	void *block;

	expect_eq(posix_memalign(&block, BLOCK, BLOCK), 0);
	memset(block, 'x', BLOCK);
	gyre__fault_set(GYRE__FAULT_pwritev2, 0, 1, -EOPNOTSUPP);
	expect_eq(gyre_write_durable(rt, fd, block, BLOCK, 0), BLOCK);
	expect_eq(gyre__fault_count(GYRE__FAULT_pwritev2), 2);
	expect_eq(gyre__fault_count(GYRE__FAULT_fdatasync), 1);
	expect_eq(test_stat(rt, durable_flushes), 1);
	free(block);
	close(fd);
	close_faulty(rt);
}

/* What the worker hands to the kernel, in which RWF_DSYNC becomes a flag that no kernel knows. */
struct refusal {
	struct gyre *rt;
	unsigned refused, plain, flushes;
};

#define RWF_UNKNOWN	0x40000000

static int refuse_dsync(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	struct refusal *refusal = arg;
	struct gyre__ring *ring = &refusal->rt->crew->worker[0]->ring;
	const struct io_uring_sq *sq = &ring->uring.sq;
	unsigned i;

	for (i = *sq->khead; i != ring->sq_tail; i++) {
		struct io_uring_sqe *sqe = &sq->sqes[i & sq->ring_mask];
		bool writes = sqe->opcode == IORING_OP_WRITE || sqe->opcode == IORING_OP_WRITEV;

		if (writes && (sqe->rw_flags & RWF_DSYNC)) {
			sqe->rw_flags |= RWF_UNKNOWN;
			refusal->refused++;
		} else if (writes) {
			refusal->plain++;
		}
		refusal->flushes += sqe->opcode == IORING_OP_FSYNC;
	}
	(void)call;
	(void)fd;
	(void)site;
	return 0;
}

/* As above, with all that goes through the ring. */
TEST(a_write_that_may_not_flush_is_written_and_then_flushed_through_the_ring)
{
	unsigned direct;

	for (direct = 0; direct < 2; direct++) {
		struct refusal refusal = { .rt = open_faulty("ring") };
		int fd = direct ? direct_file(BLOCK) : test_file(BLOCK);
		char read_back[3];
		void *block;

		test_row("%s", direct ? "O_DIRECT" : "cached");
		expect_eq(posix_memalign(&block, BLOCK, BLOCK), 0);
		memset(block, 'x', BLOCK);
		gyre__fault_hook(GYRE__FAULT_uring_enter, refuse_dsync, &refusal);
		expect_eq(gyre_write_durable(refusal.rt, fd, block, BLOCK, 0), BLOCK);
		expect_status(gyre_last_status(), GYRE_OK);
		gyre__fault_hook(GYRE__FAULT_uring_enter, NULL, NULL);
		expect_eq(test_stat(refusal.rt, durable_by_group), 1);
		expect_eq(test_stat(refusal.rt, durable_by_ring), 0);
		expect_eq(test_stat(refusal.rt, durable_flushes), 1);
		expect_eq(test_stat(refusal.rt, durable_failed_files), 0);
		expect_eq(gyre__fault_count(GYRE__FAULT_pwritev2), 0);
		expect_eq(gyre__fault_count(GYRE__FAULT_fdatasync), 0);
		free(block);
		if (!direct) {
			expect_eq(pread(fd, read_back, 3, BLOCK - 3), 3);
			expect_eq(memcmp(read_back, "xxx", 3), 0);
		}
		close(fd);
		close_faulty(refusal.rt);
		expect_eq(refusal.refused, 1);
		expect_eq(refusal.plain, 1);
		expect_eq(refusal.flushes, 1);
	}
}

#define JOINERS		16
#define JOINER_TIMES	20

struct joining {
	struct refusal refusal;
	int fd;
	char *blocks;			/* one a caller */
};

static void join_main(void *arg, unsigned number)
{
	struct joining *joining = arg;
	char *block = joining->blocks + (size_t)number * BLOCK;
	unsigned i;

	for (i = 0; i < JOINER_TIMES; i++) {
		off_t offset = (off_t)(number * JOINER_TIMES + i) * BLOCK;

		memset(block, (int)(number * JOINER_TIMES + i), BLOCK);
		expect_eq(gyre_write_durable(joining->refusal.rt, joining->fd, block, BLOCK,
					     offset), BLOCK);
	}
}

/* Whatever the ring has written joins the flushes, and each is under one of them. */
TEST(writes_through_the_ring_share_flushes)
{
	unsigned direct, i;

	for (direct = 0; direct < 2; direct++) {
		struct joining joining = { .refusal.rt = open_faulty("ring") };
		const uint64_t writes = JOINERS * JOINER_TIMES;
		struct gyre_stats stats;
		char *back;

		test_row("%s", direct ? "O_DIRECT" : "cached");
		joining.fd = direct ? direct_file(JOINERS * JOINER_TIMES * BLOCK) : test_file(0);
		expect_eq(posix_memalign((void **)&joining.blocks, BLOCK, JOINERS * BLOCK), 0);
		expect_eq(posix_memalign((void **)&back, BLOCK, BLOCK), 0);
		gyre__fault_hook(GYRE__FAULT_uring_enter, refuse_dsync, &joining.refusal);
		test_crew_run(JOINERS, join_main, &joining);
		gyre__fault_hook(GYRE__FAULT_uring_enter, NULL, NULL);
		stats = test_stats(joining.refusal.rt);
		expect_eq(stats.durable_by_group, writes);
		expect_eq(stats.durable_flushes + stats.durable_shared, writes);
		expect_eq(gyre__fault_count(GYRE__FAULT_pwritev2), 0);
		for (i = 0; i < writes; i++) {
			expect_eq(pread(joining.fd, back, BLOCK, (off_t)i * BLOCK), BLOCK);
			expect_eq((unsigned char)back[0], i % 256);
			expect_eq((unsigned char)back[BLOCK - 1], i % 256);
		}
		free(joining.blocks);
		free(back);
		close(joining.fd);
		close_faulty(joining.refusal.rt);
		expect_eq(joining.refusal.plain, writes);
		expect_eq(joining.refusal.flushes, stats.durable_flushes);
	}
}

/* With O_DSYNC each write flushes, which this one may not: its caller is told. */
TEST(a_refused_flush_is_the_callers_where_there_is_no_other_way)
{
	struct gyre *rt = open_faulty("caller");
	int fd = test_file(10), again = test_reopen(fd, O_RDWR | O_DSYNC);

	gyre__fault_set(GYRE__FAULT_pwritev2, 0, 1, -EOPNOTSUPP);
	expect_eq(gyre_write_durable(rt, again, "abc", 3, 0), -EOPNOTSUPP);
	expect_eq(gyre__fault_count(GYRE__FAULT_pwritev2), 1);
	gyre__fault_set(GYRE__FAULT_pwritev2, 0, 2, -EOPNOTSUPP);
	expect_eq(gyre_write_durable(rt, fd, "abc", 3, 0), -EOPNOTSUPP);
	expect_eq(gyre__fault_count(GYRE__FAULT_fdatasync), 0);
	expect_eq(test_stat(rt, durable_failed_files), 0);
	expect_well(rt, fd);
	close(fd);
	close(again);
	close_faulty(rt);
}

/* -------------------------------------------------------------------- soak -- */

#define SOAKERS		64
#define SLOTS		16

struct soak {
	struct gyre *rt;
	int fd[2];			/* one file, opened twice */
};

static void soak_main(void *arg, unsigned number)
{
	struct soak *soak = arg;
	uint64_t random = test_seed() + number, slot[4];
	unsigned i, times = test_times(40);
	off_t at = (off_t)(number * SLOTS * sizeof(slot));

	for (i = 0; i < times; i++) {
		off_t offset = at + (off_t)(test_random_below(&random, SLOTS) * sizeof(slot));
		uint64_t back[4] = { 0 };

		slot[0] = slot[1] = slot[2] = slot[3] = test_random(&random);
		if (i % 8 == 7)
			expect_eq(gyre_fsync(soak->rt, soak->fd[number % 2]), 0);
		expect_eq(gyre_write_durable(soak->rt, soak->fd[number % 2], slot, sizeof(slot),
					     offset),
			  sizeof(slot));
		expect_eq(pread(soak->fd[0], back, sizeof(back), offset), sizeof(back));
		expect(memcmp(back, slot, sizeof(slot)) == 0);
	}
}

TEST(many_callers_on_one_file_each_find_what_they_wrote)
{
	unsigned i;

	for (i = 0; i < 3; i++) {
		struct soak soak = { .rt = open_routed(routes[i]) };
		struct gyre_stats stats;

		soak.fd[0] = test_file(10);
		soak.fd[1] = test_reopen(soak.fd[0], O_RDWR);
		test_crew_run(SOAKERS, soak_main, &soak);
		stats = test_stats(soak.rt);
		expect_eq(stats.durable_writes, SOAKERS * test_times(40));
		expect_eq(stats.durable_by_dsync + stats.durable_by_ring + stats.durable_by_group,
			  stats.durable_writes);
		expect_eq(stats.durable_failed, 0);
		close(soak.fd[0]);
		close(soak.fd[1]);
		gyre_free(soak.rt);
	}
}

/* -------------------------------------------------------------------- kill -- */

/* Writes numbers, and says each one on the pipe once it is durable. */
static void write_until_killed(int fd, int to)
{
	struct gyre *rt = test_open_workers(1);
	uint64_t number;

	for (number = 1;; number++) {
		if (gyre_write_durable(rt, fd, &number, sizeof(number), (off_t)(number * 8)) != 8)
			_exit(1);
		if (write(to, &number, sizeof(number)) != sizeof(number))
			_exit(1);
	}
}

TEST(what_was_acknowledged_is_there_after_a_kill)
{
	unsigned round;

	for (round = 0; round < test_times(5); round++) {
		struct test_pipe pipe = test_pipe();
		uint64_t number, last = 0, found;
		int fd = test_file(8), status;
		pid_t child = fork();

		if (child == 0)
			write_until_killed(fd, pipe.w);
		close(pipe.w);
		while (last < 20 + round && read(pipe.r, &number, 8) == 8)
			last = number;
		kill(child, SIGKILL);
		while (read(pipe.r, &number, 8) == 8)
			last = number;
		expect_eq(waitpid(child, &status, 0), child);
		expect(WIFSIGNALED(status));
		for (number = 1; number <= last; number++) {
			expect_eq(pread(fd, &found, 8, (off_t)(number * 8)), 8);
			expect_eq(found, number);
		}
		close(pipe.r);
		close(fd);
	}
}

/* ------------------------------------------------- a device that is full -- */

/* In dir, and without a word. */
static int run_in(const char *dir, const char *script)
{
	char *line;
	int rc;

	expect_gt(asprintf(&line, "cd %s && { %s; } >/dev/null 2>&1", dir, script), 0);
	rc = system(line);
	free(line);
	return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static void unmount(const char *dir)
{
	run_in(dir, "umount mnt; umount under; rmdir mnt under");
	rmdir(dir);
}

/*
 * ext4 on a loop device on a tmpfs that is smaller than it: what is written is
 * taken by the page cache, and lost when it comes to be flushed.
 */
TEST(a_real_device_that_loses_data_fails_the_file_for_good)
{
	char dir[] = "/tmp/gyre-durable-XXXXXX", path[64];
	struct gyre *rt;
	static char block[1 << 20];
	ssize_t first = 0, second;
	unsigned i;
	int fd;

	if (geteuid() != 0)
		test_skip("only root can mount a device that fails");
	expect(mkdtemp(dir));
	if (run_in(dir, "mkdir under mnt && mount -t tmpfs -o size=24m none under && "
		   "truncate -s 96m under/image && mkfs.ext4 -q -E nodiscard under/image && "
		   "mount -o loop under/image mnt") != 0) {
		unmount(dir);
		test_skip("no loop device with ext4 can be mounted here");
	}
	rt = open_routed("auto");
	snprintf(path, sizeof(path), "%s/mnt/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	memset(block, 'x', sizeof(block));
	for (i = 0; i < 64 && first >= 0; i++)
		first = gyre_write_durable(rt, fd, block, sizeof(block), (off_t)i * (1 << 20));
	expect_lt(first, 0);
	test_note("the device lost what it was given: %s", gyre_last_error());
	second = gyre_fsync(rt, fd);
	expect_eq(second, first);
	expect_eq(gyre_write_durable(rt, fd, block, 1, 0), first);
	expect_eq(test_stat(rt, durable_failed_files), 1);
	close(fd);
	gyre_free(rt);
	unmount(dir);
}

TEST_MAIN()
