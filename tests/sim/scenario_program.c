/* SPDX-License-Identifier: MIT */
/*
 * One thread that calls each function once, both ways: what the failure loops
 * need, so that every call out of the library is made by somebody.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "failures.h"
#include "ring/sys_fault.h"
#include "scenario.h"

#define BYTES		16
#define FILE_BYTES	40

static struct {
	struct gyre *rt;
	int pipe[2], file;
	char bytes[4][BYTES];
	struct sim_call calls[4], left;	/* the last may fly on after its answer */
	struct gyre_op ops[4];
	struct __kernel_timespec ts;
	bool on_ring;			/* GYRE_ROUTE */
} play;

/* Could the simulated kernel have answered this by its own dice? */
static bool is_dice(int error)
{
	switch (error) {
	case -EINTR:
	case -ENOENT:			/* it has no paths */
	case -EIO:
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return true;
	case -ENOMEM:
	case -EAGAIN:
		return play.on_ring;
	default:
		return false;
	}
}

/* What a function of the pread() family has answered; before: failures met until then. */
static void check_io(const char *what, ssize_t res, unsigned before)
{
	bool met = sim_failures_met() != before;
	enum gyre_status status = gyre_last_status();
	int passed_on = sim_failures_passed_on();

	sim_trace("%s: %zd", what, res);
	/* The whole of a read or write may be got at in more than one go. */
	if (res >= 0 && met && passed_on && passed_on != -EINTR && passed_on != -EAGAIN)
		sim_fail("%s: %zd, though a system call failed", what, res);
	/* A flush that has failed stays failed. */
	met |= sim_failures_of(GYRE__FAULT_fsync) || sim_failures_of(GYRE__FAULT_fdatasync);
	if (res >= 0 || (met && res == passed_on) || is_dice((int)res))
		return;
	if (!sim_pointer_get() && sim_fault_happened() && res == -ENOMEM)
		return;
	if (status == GYRE_OK || res != gyre_status_errno(status))
		sim_fail("%s: %zd, which nobody said, and %s", what, res, gyre_status_name(status));
	if (status != GYRE_UNSUPPORTED && !sim_fault_happened())
		sim_fail("%s: %s, and nothing has failed", what, gyre_status_name(status));
	sim_check_told(status);
}

/* Which file it is concerns a durable write only once some file has failed. */
static void write_durably(const char *bytes)
{
	unsigned before = sim_failures_met();
	ssize_t res = gyre_write_durable(play.rt, play.file, bytes, BYTES, 0);

	check_io("gyre_write_durable", res, res >= 0 ? sim_failures_met() : before);
}

/* A look that fails on its way makes it tell those who are inside, of whom there are none. */
static void reset(void)
{
	unsigned before = sim_failures_met();
	int res = gyre_durable_reset(play.rt, play.file);

	check_io("gyre_durable_reset", res, res >= 0 ? sim_failures_met() : before);
}

#define CHECK_IO(call) \
	do { \
		unsigned before_ = sim_failures_met(); \
		ssize_t res_ = (call); \
\
		check_io(#call, res_, before_); \
	} while (0)

static void check_status(const char *what, enum gyre_status status)
{
	sim_trace("%s: %s", what, gyre_status_name(status));
	sim_check_told(status);
	if (status == GYRE_OK || sim_fault_happened())
		return;
	if (status != GYRE_SYSTEM || !is_dice(-errno))
		sim_fail("%s: %s, and nothing has failed", what, gyre_last_error());
}

#define CHECK_STATUS(call)	check_status(#call, (call))

/* Past the end of the file: -EINVAL after a first piece is taken for the end, too. */
static void read_to_the_end(void)
{
	unsigned before = sim_failures_met();
	ssize_t res = gyre_pread_full(play.rt, play.file, play.bytes[0], BYTES, FILE_BYTES - 10);

	if (res < 0 || res > BYTES)
		check_io("gyre_pread_full at the end", res, before);
}

static void read_and_write(void)
{
	struct iovec iov = { play.bytes[0], BYTES };
	struct gyre *rt = play.rt;
	char *bytes = play.bytes[0];
	struct statx stx;
	int fd;

	sim_lend(play.bytes, sizeof(play.bytes), NULL);
	sim_lend(&iov, sizeof(iov), NULL);
	sim_lend(&stx, sizeof(stx), NULL);
	CHECK_IO(gyre_write(rt, play.pipe[1], bytes, 8));
	CHECK_IO(gyre_poll(rt, play.pipe[1], POLLOUT, GYRE_FOREVER));
	CHECK_IO(gyre_poll(rt, play.pipe[0], POLLIN, 20 * SIM_US));
	sim_scenario_write(play.pipe[1], "enough for everybody", 20);
	CHECK_IO(gyre_read(rt, play.pipe[0], bytes, 4));
	CHECK_IO(gyre_pread(rt, play.file, bytes, BYTES, 0));
	CHECK_IO(gyre_pwrite(rt, play.file, bytes, BYTES, 4));
	CHECK_IO(gyre_pread_full(rt, play.file, bytes, BYTES, 0));
	read_to_the_end();
	CHECK_IO(gyre_pwrite_full(rt, play.file, bytes, BYTES, 0));
	CHECK_IO(gyre_preadv2(rt, play.file, &iov, 1, 0, 0));
	CHECK_IO(gyre_pwritev2(rt, play.file, &iov, 1, 0, 0));
	CHECK_IO(gyre_fsync(rt, play.file));
	CHECK_IO(gyre_fdatasync(rt, play.file));
	write_durably(bytes);
	reset();
	CHECK_IO(gyre_fallocate(rt, play.file, 0, 0, BYTES));
	CHECK_IO(gyre_statx(rt, AT_FDCWD, "a path", 0, STATX_SIZE, &stx));
	CHECK_IO(fd = gyre_openat(rt, AT_FDCWD, "a path", O_RDONLY, 0));
	if (fd >= 0)
		sim_scenario_close(fd);
	sim_take_back(&stx);
	sim_take_back(&iov);
	sim_take_back(play.bytes);
}

/* A chain, a time-out, and something that is not to be cancelled. */
static void send_many(void)
{
	memset(play.ops, 0, sizeof(play.ops));
	sim_call_init(&play.calls[0], IORING_OP_WRITE, play.file, play.bytes[0], BYTES, 0);
	sim_call_init(&play.calls[1], IORING_OP_FSYNC, play.file, NULL, 0, 0);
	sim_call_init(&play.calls[2], IORING_OP_READ, play.pipe[0], play.bytes[2], BYTES, 0);
	sim_call_timeout(&play.calls[3], &play.ts, 30 * SIM_US);
	play.ops[0].flags = GYRE_OP_LINK;
	play.ops[2].timeout_ns = 50 * SIM_US;
	sim_call_many(play.rt, play.calls, play.ops, 4);
	if (gyre_op_cancel(play.rt, &play.ops[0]) == GYRE_OK)
		sim_fail("what is answered was cancelled");
}

static void leave_in_a_buffer(void)
{
	struct gyre_buffer *buffer;
	enum gyre_status status = gyre_buffer_get(play.rt, BYTES, &buffer);

	check_status("gyre_buffer_get", status);
	if (status != GYRE_OK)
		return;
	memset(play.ops, 0, sizeof(play.ops));
	sim_call_init(&play.left, IORING_OP_READ, play.pipe[0], gyre_buffer_data(buffer), BYTES, 0);
	play.ops[0].flags = GYRE_OP_LEAVE;
	play.ops[0].timeout_ns = 20 * SIM_US;
	sim_call_many(play.rt, &play.left, play.ops, 1);
	gyre_buffer_put(buffer);
}

static void look_around(void)
{
	struct gyre_stats stats = { .size = sizeof(stats) };
	int other = sim_scenario_file("to be closed", 12);

	CHECK_STATUS(gyre_stats_get(play.rt, &stats));
	CHECK_STATUS(gyre_stats_write(play.rt, play.file, GYRE_FORMAT_JSON));
	CHECK_STATUS(gyre_dump(play.rt, play.file));
	CHECK_IO(gyre_close_fd(play.rt, other));
	if (sim_file_get(other))
		sim_scenario_close(other);	/* it was refused, before anything was closed */
}

/* What has failed once must not be felt any more. */
static void call_as_usual(void)
{
	bool over = sim_failures_over();
	enum gyre_status status;

	sim_call_init(&play.calls[0], IORING_OP_NOP, -1, NULL, 0, 0);
	status = sim_call_one(play.rt, &play.calls[0]);
	if (over && status != GYRE_OK && !sim_death_happened())
		sim_fail("a failure is over, and still a call is answered %s", gyre_last_error());
}

static void set_another(const char *name, const char *value, void *arg)
{
	(void)arg;
	if (strcmp(name, "name") == 0 && strcmp(value, "value") == 0)
		sim_check_told(gyre_context_set("another", value));
}

/* Alone, and while it is shared. */
static void use_the_context(void)
{
	enum gyre_status status = gyre_context_set("name", "value");

	sim_check_told(status);
	if (status == GYRE_OK && !gyre_context_get("name"))
		sim_fail("the context has lost what was set");
	if (status != GYRE_OK && (status != GYRE_NO_MEMORY || !sim_fault_happened()))
		sim_fail("gyre_context_set: %s, and nothing has failed", gyre_status_name(status));
	gyre_context_each(set_another, NULL);
	if (status == GYRE_OK && !gyre_context_get("name"))
		sim_fail("the context has lost what was set before");
	if (sim_chance(500))
		gyre_context_clear();
}

void scenario_program(void *arg)
{
	(void)arg;
	memset(&play, 0, sizeof(play));
	play.on_ring = sim_chance(400);
	setenv("GYRE_ROUTE", play.on_ring ? "ring" : "caller", 1);
	sim_scenario_pipe(play.pipe);
	use_the_context();
	play.file = sim_scenario_file("the contents of a file, forty bytes long", FILE_BYTES);
	if (sim_open(1 + (unsigned)sim_random(2), sim_random(SIM_MS), &play.rt)) {
		call_as_usual();
		read_and_write();
		send_many();
		leave_in_a_buffer();
		look_around();
		call_as_usual();
		sim_close_runtime(play.rt);
		gyre_free(play.rt);
	}
	sim_scenario_close(play.pipe[0]);
	sim_scenario_close(play.pipe[1]);
	sim_scenario_close(play.file);
	unsetenv("GYRE_ROUTE");
}

/* ------------------------------------------------------ and a job's tasks -- */

#define BIG	((size_t)256 << 10)	/* more than an arena's chunk: mapped by itself */
#define MANY	70		/* of so many stacks that come back, one is looked at */

static void *make_value(void *arg)
{
	return arg;
}

static void destroy_value(void *value)
{
	(void)value;
}

static struct gyre_local local = GYRE_LOCAL_INIT(make_value, destroy_value, &play);

static void prep_polls(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_poll_multishot(sqe, play.pipe[0], POLLIN);
}

static void read_in_a_task(void)
{
	unsigned before = sim_failures_met();
	ssize_t res;

	sim_lend(play.bytes, sizeof(play.bytes), NULL);
	res = gyre_pread(play.rt, play.file, play.bytes[0], BYTES, 0);
	sim_take_back(play.bytes);
	/* Whether the page cache has it is asked first, and the ring if that cannot be told. */
	check_io("gyre_pread in a task", res, res >= 0 ? sim_failures_met() : before);
}

static int do_nothing(void *arg)
{
	(void)arg;
	return 0;
}

static int use_a_task(void *arg)
{
	struct gyre_stream *stream;
	enum gyre_status status;
	unsigned i;
	void *value;

	(void)arg;
	for (i = 0; i < MANY; i++) {
		CHECK_STATUS(gyre_go(do_nothing, NULL, NULL));
		gyre_yield();
	}
	if (!gyre_alloc(BIG))
		CHECK_STATUS(gyre_last_status());
	CHECK_STATUS(gyre_local_get(&local, &value));
	read_in_a_task();
	status = gyre_stream_open(prep_polls, NULL, &stream);
	check_status("gyre_stream_open", status);
	if (status == GYRE_OK)
		gyre_stream_close(stream);
	return 0;
}

void scenario_program_task(void *arg)
{
	(void)arg;
	memset(&play, 0, sizeof(play));
	memset(local.internal, 0, sizeof(local.internal));
	play.on_ring = true;		/* a task's calls are the ring's */
	sim_scenario_pipe(play.pipe);
	play.file = sim_scenario_file("the contents of a file, forty bytes long", FILE_BYTES);
	if (sim_open(1, sim_random(SIM_MS), &play.rt)) {
		CHECK_STATUS(gyre_block_on(play.rt, use_a_task, NULL, NULL, NULL));
		sim_close_runtime(play.rt);
		gyre_free(play.rt);
	}
	sim_scenario_close(play.pipe[0]);
	sim_scenario_close(play.pipe[1]);
	sim_scenario_close(play.file);
}
