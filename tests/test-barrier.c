/* SPDX-License-Identifier: MIT */
/*
 * gyre_close_fd and ops whose descriptor the kernel looks up late: each must
 * meet its own file, and the next owner of the number none of them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helpers.h"
#include "lib/runtime.h"
#include "ring/sanitize.h"

#define FTRUNCATE	55	/* newer than the oldest liburing we build with */
#define LEN		8192
#define OPENERS		40

static struct gyre *open_small(unsigned ring_entries, unsigned inflight_max)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1,
					.ring_entries = ring_entries,
					.inflight_max = inflight_max };

	return test_open(&options);
}

/* ------------------------------------------------- the kernel's threads -- */

/*
 * Opens of a fifo that has no reader, which fill the threads that the kernel
 * gives to a ring: at most one for each of its entries, of which there are few.
 */
struct full {
	struct gyre *rt;
	char dir[64], fifo[80];
	struct gyre_op ops[OPENERS];
	pthread_t caller;
	int reader;
};

static void prep_open_fifo(struct io_uring_sqe *sqe, void *arg)
{
	/* O_CREAT: given to a thread at once */
	io_uring_prep_openat(sqe, AT_FDCWD, arg, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static void *call_openers(void *arg)
{
	struct full *full = arg;

	expect_status(gyre_callv(full->rt, full->ops, OPENERS), GYRE_OK);
	return NULL;
}

static void full_start(struct full *full)
{
	unsigned i;

	full->rt = open_small(8, 0);
	snprintf(full->dir, sizeof(full->dir), "/tmp/gyre-test-XXXXXX");
	expect(mkdtemp(full->dir));
	snprintf(full->fifo, sizeof(full->fifo), "%s/fifo", full->dir);
	expect_eq(mkfifo(full->fifo, 0600), 0);
	for (i = 0; i < OPENERS; i++)
		full->ops[i] = test_op(prep_open_fifo, full->fifo);
	expect_eq(pthread_create(&full->caller, NULL, call_openers, full), 0);
	await(test_stat(full->rt, inflight) == OPENERS);
}

static void full_release(struct full *full)
{
	full->reader = open(full->fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	expect_ge(full->reader, 0);
}

static void full_end(struct full *full)
{
	unsigned i;

	pthread_join(full->caller, NULL);
	for (i = 0; i < OPENERS; i++) {
		expect_ge(full->ops[i].res, 0);
		close(full->ops[i].res);
	}
	close(full->reader);
	unlink(full->fifo);
	rmdir(full->dir);
	gyre_free(full->rt);
}

/* --------------------------------------- an op, its file, its next owner -- */

struct late {
	struct gyre *rt;
	int fd, own, next;		/* fd is a copy of own, and later of next */
	struct gyre_op ops[2];
	unsigned op_count;
	unsigned char buf[LEN];
	pthread_t caller, closer;
	atomic_bool calls, closes, closed;
};

static void prep_ftruncate(struct io_uring_sqe *sqe, void *arg)
{
	const struct late *late = arg;

	io_uring_prep_rw(FTRUNCATE, sqe, late->fd, NULL, 0, 0);
}

static void prep_punch_hole(struct io_uring_sqe *sqe, void *arg)
{
	const struct late *late = arg;

	io_uring_prep_fallocate(sqe, late->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LEN);
}

static void prep_fsync(struct io_uring_sqe *sqe, void *arg)
{
	const struct late *late = arg;

	io_uring_prep_fsync(sqe, late->fd, 0);
}

static void prep_read_async(struct io_uring_sqe *sqe, void *arg)
{
	struct late *late = arg;

	io_uring_prep_read(sqe, late->fd, late->buf, LEN, TEST_IO_HERE);
	sqe->flags |= IOSQE_ASYNC;
}

static void prep_read_own(struct io_uring_sqe *sqe, void *arg)
{
	struct late *late = arg;

	io_uring_prep_read(sqe, late->fd, late->buf, LEN, 0);
}

static void *call_late(void *arg)
{
	struct late *late = arg;

	gyre_callv(late->rt, late->ops, late->op_count);
	return NULL;
}

/* Once it is closed, the number is somebody else's at once. */
static void *close_and_pass_on(void *arg)
{
	struct late *late = arg;

	atomic_store(&late->closes, true);
	expect_eq(gyre_close_fd(late->rt, late->fd), 0);
	expect_eq(dup3(late->next, late->fd, O_CLOEXEC), late->fd);
	atomic_store(&late->closed, true);
	return NULL;
}

static void late_init(struct late *late, struct gyre *rt, int next)
{
	memset(late, 0, sizeof(*late));
	late->rt = rt;
	late->own = test_file(LEN);
	late->next = next;
	late->fd = fcntl(late->own, F_DUPFD_CLOEXEC, 800);	/* where nothing else lands */
	expect_ge(late->fd, 0);
}

static void late_call(struct late *late, unsigned inflight, unsigned queued)
{
	expect_eq(pthread_create(&late->caller, NULL, call_late, late), 0);
	await(test_stat(late->rt, inflight) == inflight && test_stat(late->rt, queued) == queued);
}

/* A while in which a barrier that does not hold would let the close through. */
static void late_close(struct late *late)
{
	unsigned i;

	expect_eq(pthread_create(&late->closer, NULL, close_and_pass_on, late), 0);
	await(atomic_load(&late->closes));
	for (i = 0; i < 50 && !atomic_load(&late->closed); i++)
		usleep(1000);
}

static void late_join(struct late *late)
{
	pthread_join(late->caller, NULL);
	pthread_join(late->closer, NULL);
}

static void late_done(struct late *late)
{
	close(late->own);
	close(late->next);
	close(late->fd);
}

static bool all_zero(int fd)
{
	unsigned char bytes[LEN];
	unsigned i;

	expect_eq(pread(fd, bytes, LEN, 0), LEN);
	for (i = 0; i < LEN; i++)
		if (bytes[i])
			return false;
	return true;
}

static void expect_untouched(int fd)
{
	unsigned char bytes[LEN];

	expect_eq(lseek(fd, 0, SEEK_END), LEN);
	expect_eq(pread(fd, bytes, LEN, 0), LEN);
	expect_bytes(bytes, LEN, 0);
}

/* The op is behind the openers when its descriptor is closed and given on. */
static void close_behind_openers(struct late *late, gyre_prep_fn *prep, int next)
{
	struct full full;
	bool early;

	full_start(&full);
	late_init(late, full.rt, next);
	late->op_count = 1;
	late->ops[0] = test_op(prep, late);
	late_call(late, OPENERS + 1, 0);
	late_close(late);
	early = atomic_load(&late->closed);
	full_release(&full);
	late_join(late);
	full_end(&full);
	if (early)
		test_note("gyre_close_fd came back while the op was in flight");
}

TEST(ftruncate_that_waits_for_a_thread_of_the_kernels_meets_its_own_file)
{
	struct gyre *rt = test_open_workers(1);
	struct late late;
	enum gyre_status status;

	late_init(&late, rt, -1);
	status = gyre_call(rt, prep_ftruncate, &late, NULL);
	close(late.own);
	close(late.fd);
	gyre_free(rt);
	if (status == GYRE_UNSUPPORTED)
		test_skip("this kernel has no IORING_OP_FTRUNCATE");
	close_behind_openers(&late, prep_ftruncate, test_file(LEN));
	expect_untouched(late.next);
	expect_op(&late.ops[0], GYRE_OK, 0, GYRE_EFFECT_DONE);
	expect_eq(lseek(late.own, 0, SEEK_END), 0);
	late_done(&late);
}

TEST(fallocate_that_waits_for_a_thread_of_the_kernels_meets_its_own_file)
{
	int fd = test_file(LEN);
	struct late late;
	int rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LEN);

	close(fd);
	if (rc < 0)
		test_skip("holes cannot be punched into temporary files here");
	close_behind_openers(&late, prep_punch_hole, test_file(LEN));
	expect_untouched(late.next);
	expect_op(&late.ops[0], GYRE_OK, 0, GYRE_EFFECT_DONE);
	expect(all_zero(late.own));
	late_done(&late);
}

/* A pipe cannot be synced: that is how to see which file it was. */
TEST(fsync_that_waits_for_a_thread_of_the_kernels_meets_its_own_file)
{
	struct test_pipe pipe = test_pipe();
	struct late late;

	close_behind_openers(&late, prep_fsync, dup(pipe.r));
	expect_op(&late.ops[0], GYRE_OK, 0, GYRE_EFFECT_DONE);
	late_done(&late);
	test_pipe_close(&pipe);
}

/* Of a silent pipe: nothing but the flag holds up the close. */
TEST(read_with_iosqe_async_meets_its_own_file)
{
	struct test_pipe silent = test_pipe();
	struct gyre *rt = test_open_workers(1);
	struct late late;

	late_init(&late, rt, test_file(LEN));
	expect_eq(dup3(silent.r, late.fd, O_CLOEXEC), late.fd);
	late.op_count = 1;
	late.ops[0] = test_op(prep_read_async, &late);
	late_call(&late, 1, 0);
	late_close(&late);
	expect(!atomic_load(&late.closed));
	expect_eq(write(silent.w, "own", 3), 3);
	late_join(&late);
	expect_op(&late.ops[0], GYRE_OK, 3, GYRE_EFFECT_DONE);
	late_done(&late);
	test_pipe_close(&silent);
	gyre_free(rt);
}

/* ------------------------------------------------------- chains and room -- */

TEST(later_op_of_a_chain_meets_its_own_file)
{
	struct test_pipe silent = test_pipe(), pipe = test_pipe();
	char byte;
	struct test_io io = { silent.r, &byte, 1, TEST_IO_HERE };
	struct gyre *rt = test_open_workers(1);
	struct late late;

	late_init(&late, rt, dup(pipe.w));
	late.op_count = 2;
	late.ops[0] = test_op(prep_read, &io);
	late.ops[0].flags = GYRE_OP_LINK;
	late.ops[1] = test_op(prep_read_own, &late);
	late_call(&late, 2, 0);
	late_close(&late);
	expect(!atomic_load(&late.closed));
	expect_eq(write(silent.w, "x", 1), 1);
	late_join(&late);
	expect_op(&late.ops[1], GYRE_OK, LEN, GYRE_EFFECT_DONE);
	expect_bytes(late.buf, LEN, 0);
	late_done(&late);
	test_pipe_close(&silent);
	test_pipe_close(&pipe);
	gyre_free(rt);
}

static void read_silence(void *arg, unsigned number)
{
	struct late *late = arg;
	struct test_pipe *pipe = late->ops[0].user;
	char byte;
	struct test_io io = { pipe->r, &byte, 1, TEST_IO_HERE };

	(void)number;
	expect_status(gyre_call(late->rt, prep_read, &io, NULL), GYRE_OK);
}

TEST(op_that_waits_for_room_when_its_descriptor_is_closed_meets_its_own_file)
{
	struct test_pipe silent = test_pipe(), pipe = test_pipe();
	struct gyre *rt = open_small(2, 2);
	struct test_crew crew;
	struct late late;

	late_init(&late, rt, dup(pipe.w));
	late.op_count = 1;
	late.ops[0] = test_op(prep_read_own, &late);
	late.ops[0].user = &silent;
	test_crew_start(&crew, 2, read_silence, &late);
	await(test_stat(rt, inflight) == 2);
	late_call(&late, 2, 1);
	late_close(&late);
	expect(!atomic_load(&late.closed));
	expect_eq(write(silent.w, "xx", 2), 2);
	late_join(&late);
	test_crew_join(&crew);
	expect_op(&late.ops[0], GYRE_OK, LEN, GYRE_EFFECT_DONE);
	expect_bytes(late.buf, LEN, 0);
	late_done(&late);
	test_pipe_close(&silent);
	test_pipe_close(&pipe);
	gyre_free(rt);
}

/* ------------------------------------------------- what does not hold up -- */

static void *read_pipe_once(void *arg)
{
	struct late *late = arg;

	expect_status(gyre_callv(late->rt, late->ops, 1), GYRE_OK);
	return NULL;
}

TEST(op_that_holds_its_file_does_not_hold_up_the_close_and_goes_on)
{
	struct test_pipe silent = test_pipe();
	char byte = 0;
	struct test_io io = { silent.r, &byte, 1, TEST_IO_HERE };
	struct late late = { .rt = test_open_workers(2) };

	late.ops[0] = test_op(prep_read, &io);
	expect_eq(pthread_create(&late.caller, NULL, read_pipe_once, &late), 0);
	await(test_stat(late.rt, inflight) == 1);
	expect_eq(gyre_close_fd(late.rt, silent.r), 0);
	silent.r = -1;
	expect_eq(write(silent.w, "x", 1), 1);
	pthread_join(late.caller, NULL);
	expect_op(&late.ops[0], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_eq(byte, 'x');
	test_pipe_close(&silent);
	gyre_free(late.rt);
}

TEST(worker_that_sleeps_with_nothing_under_way_needs_no_barrier)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 2,
					.spin_ns = GYRE_SPIN_NEVER };
	struct gyre *rt = test_open(&options);
	uint64_t wakeups;
	unsigned i;
	int fd;

	expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_OK);
	for (i = 0; i < 2; i++)
		await(gyre__ring_is_idle(&rt->crew->worker[i]->ring));
	wakeups = test_stat(rt, wakeups_sent);
	fd = test_file(1);
	expect_eq(gyre_close_fd(rt, fd), 0);
	expect_eq(fcntl(fd, F_GETFD), -1);
	expect_eq(test_stat(rt, wakeups_sent), wakeups);
	gyre_free(rt);
}

/* -------------------------------------------------------- several at once -- */

TEST(two_threads_that_close_different_descriptors_at_once_are_both_held_up)
{
	struct test_pipe pipe = test_pipe();
	struct late late[2];
	struct full full;
	unsigned i;

	full_start(&full);
	for (i = 0; i < 2; i++) {
		late_init(&late[i], full.rt, dup(pipe.r));
		late[i].op_count = 1;
		late[i].ops[0] = test_op(prep_fsync, &late[i]);
		late_call(&late[i], OPENERS + 1 + i, 0);
	}
	for (i = 0; i < 2; i++)
		late_close(&late[i]);
	for (i = 0; i < 2; i++)
		expect(!atomic_load(&late[i].closed));
	full_release(&full);
	for (i = 0; i < 2; i++) {
		late_join(&late[i]);
		expect_op(&late[i].ops[0], GYRE_OK, 0, GYRE_EFFECT_DONE);
		late_done(&late[i]);
	}
	full_end(&full);
	test_pipe_close(&pipe);
}

/* Each in a thread of its own: an op on a descriptor, and its end, again and again. */
static void open_sync_and_close(void *arg, unsigned number)
{
	struct late late;
	unsigned i;

	(void)number;
	memset(&late, 0, sizeof(late));
	for (i = 0; i < test_times(100); i++) {
		late.fd = test_file(1);
		expect_status(gyre_call(arg, prep_fsync, &late, NULL), GYRE_OK);
		expect_eq(gyre_close_fd(arg, late.fd), 0);
	}
}

TEST(closes_in_the_middle_of_late_ops_of_others_all_come_back)
{
	struct gyre *rt = test_open_workers(2);

	test_crew_run(4, open_sync_and_close, rt);
	expect_eq(test_stat(rt, inflight), 0);
	gyre_free(rt);
}

/* --------------------------------------------------------- the allow-list -- */

enum when { AT_SUBMIT, LATE, NO_FILE };

/* Written from the kernel's side: who starts within the submit, with the file in hand. */
static const struct {
	unsigned opcode;
	const char *name;
	enum when when;
} opcodes[] = {
	{ 0, "NOP", NO_FILE },
	{ 1, "READV", AT_SUBMIT },
	{ 2, "WRITEV", AT_SUBMIT },
	{ 3, "FSYNC", LATE },
	{ 4, "READ_FIXED", AT_SUBMIT },
	{ 5, "WRITE_FIXED", AT_SUBMIT },
	{ 6, "POLL_ADD", AT_SUBMIT },
	{ 8, "SYNC_FILE_RANGE", LATE },
	{ 9, "SENDMSG", AT_SUBMIT },
	{ 10, "RECVMSG", AT_SUBMIT },
	{ 11, "TIMEOUT", NO_FILE },
	{ 13, "ACCEPT", AT_SUBMIT },
	{ 16, "CONNECT", AT_SUBMIT },
	{ 17, "FALLOCATE", LATE },
	{ 18, "OPENAT", LATE },
	{ 19, "CLOSE", LATE },
	{ 21, "STATX", LATE },
	{ 22, "READ", AT_SUBMIT },
	{ 23, "WRITE", AT_SUBMIT },
	{ 24, "FADVISE", LATE },
	{ 25, "MADVISE", NO_FILE },
	{ 26, "SEND", AT_SUBMIT },
	{ 27, "RECV", AT_SUBMIT },
	{ 28, "OPENAT2", LATE },
	{ 29, "EPOLL_CTL", LATE },
	{ 30, "SPLICE", LATE },
	{ 33, "TEE", LATE },
	{ 34, "SHUTDOWN", LATE },
	{ 35, "RENAMEAT", LATE },
	{ 36, "UNLINKAT", LATE },
	{ 37, "MKDIRAT", LATE },
	{ 38, "SYMLINKAT", LATE },
	{ 39, "LINKAT", LATE },
	{ 41, "FSETXATTR", LATE },
	{ 42, "SETXATTR", LATE },
	{ 43, "FGETXATTR", LATE },
	{ 44, "GETXATTR", LATE },
	{ 45, "SOCKET", NO_FILE },
	{ 47, "SEND_ZC", AT_SUBMIT },
	{ 48, "SENDMSG_ZC", AT_SUBMIT },
	{ 50, "WAITID", NO_FILE },
	{ 51, "FUTEX_WAIT", NO_FILE },
	{ 52, "FUTEX_WAKE", NO_FILE },
	{ 53, "FUTEX_WAITV", NO_FILE },
	{ 55, "FTRUNCATE", LATE },
	{ 56, "BIND", AT_SUBMIT },
	{ 57, "LISTEN", AT_SUBMIT },
	{ 59, "EPOLL_WAIT", AT_SUBMIT },
	{ 62, "PIPE", NO_FILE },
};

TEST(each_allowed_opcode_takes_its_file_at_the_submit_or_counts_as_late)
{
	static struct gyre__ring ring;
	bool listed[GYRE__OPCODES] = { false };
	unsigned i;

	memset(ring.features.opcodes, 0xff, sizeof(ring.features.opcodes));
	gyre__sanitize_prepare(&ring);
	for (i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++) {
		unsigned opcode = opcodes[i].opcode;

		test_row("%s", opcodes[i].name);
		listed[opcode] = true;
		expect_str(gyre__opcode_name((uint8_t)opcode), opcodes[i].name);
		expect(!gyre__opcode_refused((uint8_t)opcode));
		expect_eq(!!(ring.traits[opcode] & GYRE__TRAIT_LATE_FILE), opcodes[i].when == LATE);
	}
	/* What nobody has thought about counts as late. */
	for (i = 0; i < GYRE__OPCODES; i++) {
		test_row("opcode %u", i);
		if (!listed[i]) {
			expect(gyre__opcode_refused((uint8_t)i));
			expect(ring.traits[i] & GYRE__TRAIT_LATE_FILE);
		}
	}
}

TEST_MAIN()
