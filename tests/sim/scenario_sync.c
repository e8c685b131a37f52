/* SPDX-License-Identifier: MIT */
/*
 * Callers that write and flush, on files of their own and on one that they
 * share, by system calls and through the ring, while the power is cut in thought.
 * OK of a flush means durable, effect NONE means that nothing of it is anywhere.
 */
#include "scenario.h"

#include <stdlib.h>
#include <sys/uio.h>

#include "ledger.h"

#define CALLERS_MAX	8
#define BATCH_MAX	3
#define BYTES_MAX	80
#define REACH		(SIM_DATA_BYTES / 4)	/* they are to get in each other's way */

/* Where a call goes, and what its OK is worth. */
struct target {
	int fd;
	bool sync_writes;
	enum sim_promise promise;
};

/* An op of a batch, as the ledger knows it. */
struct entry {
	struct sim_write *write;
	struct sim_sync sync;
};

struct caller {
	struct target own, *target;
	struct sim_call calls[BATCH_MAX];
	struct gyre_op ops[BATCH_MAX];
	struct entry entries[BATCH_MAX];
	unsigned char bytes[BATCH_MAX][BYTES_MAX];
	struct iovec iov;
};

static struct {
	struct gyre *rt;
	struct caller callers[CALLERS_MAX];
	unsigned count, rounds;
	struct target shared[2];	/* one file, opened twice */
} play;

/* After a failure, or where there may have been one, nobody else may be blamed. */
static void note_answer(struct target *target, enum gyre_effect effect, ssize_t res)
{
	if (effect == GYRE_EFFECT_UNKNOWN || (effect == GYRE_EFFECT_DONE && res < 0))
		target->promise = SIM_AS_KERNEL;
}

static enum sim_promise promise_of(const struct target *target, bool durable)
{
	return durable || target->sync_writes ? target->promise : SIM_NOT_DURABLE;
}

static void roll_place(size_t *ret_len, uint64_t *ret_offset)
{
	*ret_len = 1 + sim_random(BYTES_MAX);
	*ret_offset = sim_random(REACH);
	if (sim_chance(300)) {
		*ret_len = (*ret_len + SIM_SECTOR - 1) & ~(size_t)(SIM_SECTOR - 1);
		*ret_offset &= ~(uint64_t)(SIM_SECTOR - 1);
	}
}

/* ------------------------------------------------------ the usual calls -- */

static enum gyre_effect effect_of(ssize_t res)
{
	return res >= 0 ? GYRE_EFFECT_DONE : gyre_last_effect();
}

static void write_usual(struct caller *caller)
{
	struct target *target = caller->target;
	unsigned how = (unsigned)sim_random(3);
	enum gyre_effect effect;
	struct sim_write *write;
	uint64_t offset;
	size_t len;
	ssize_t res;

	roll_place(&len, &offset);
	write = sim_write_begin(target->fd, caller->bytes[0], len, offset,
				promise_of(target, how == 2));
	caller->iov = (struct iovec){ caller->bytes[0], len };
	sim_lend(caller->bytes[0], len, NULL);
	sim_lend(&caller->iov, sizeof(caller->iov), NULL);
	if (how == 0)
		res = gyre_pwrite(play.rt, target->fd, caller->bytes[0], len, (off_t)offset);
	else if (how == 1)
		res = gyre_pwrite_full(play.rt, target->fd, caller->bytes[0], len, (off_t)offset);
	else
		res = gyre_pwritev2(play.rt, target->fd, &caller->iov, 1, (off_t)offset, RWF_DSYNC);
	effect = effect_of(res);
	/* Whatever the kernel said of the last piece, others may have been written before it. */
	if (how == 1 && res < 0 && effect == GYRE_EFFECT_DONE)
		effect = GYRE_EFFECT_UNKNOWN;
	sim_take_back(&caller->iov);
	sim_take_back(caller->bytes[0]);
	note_answer(target, effect, res);
	sim_write_done(write, effect, res);
}

static void sync_usual(struct caller *caller)
{
	struct target *target = caller->target;
	struct sim_sync sync = sim_sync_begin(target->fd);
	int res = sim_chance(500) ? gyre_fsync(play.rt, target->fd) :
				    gyre_fdatasync(play.rt, target->fd);

	sim_synced(&sync, effect_of(res), res, target->promise);
	note_answer(target, effect_of(res), res);
}

static void read_usual(struct caller *caller)
{
	uint64_t begun = sim_read_begin(), offset;
	size_t len;
	ssize_t res;

	roll_place(&len, &offset);
	sim_lend(caller->bytes[0], len, NULL);
	res = gyre_pread(play.rt, caller->target->fd, caller->bytes[0], len, (off_t)offset);
	sim_take_back(caller->bytes[0]);
	sim_read_done(caller->target->fd, begun, caller->bytes[0], res, offset);
}

/* ------------------------------------------------------- through the ring -- */

static void add_write(struct caller *caller, unsigned i)
{
	struct target *target = caller->target;
	bool durable = sim_chance(300);
	uint64_t offset;
	size_t len;

	roll_place(&len, &offset);
	sim_call_init(&caller->calls[i], IORING_OP_WRITE, target->fd, caller->bytes[i],
		      (uint32_t)len, offset);
	caller->calls[i].rw_flags = durable ? RWF_DSYNC : 0;
	caller->entries[i].write = sim_write_begin(target->fd, caller->bytes[i], len, offset,
						   promise_of(target, durable));
}

static void add_sync(struct caller *caller, unsigned i, bool chained)
{
	struct sim_sync *sync = &caller->entries[i].sync;
	unsigned j;

	sim_call_init(&caller->calls[i], IORING_OP_FSYNC, caller->target->fd, NULL, 0, 0);
	caller->calls[i].rw_flags = sim_chance(500) ? IORING_FSYNC_DATASYNC : 0;
	caller->entries[i].write = NULL;
	*sync = sim_sync_begin(caller->target->fd);
	for (j = 0; chained && j < i; j++)
		sim_sync_covers(sync, caller->entries[j].write);
}

/* Writes before flushes, as in a chain all that a flush covers is told first. */
static void tell_batch(struct caller *caller, unsigned count)
{
	struct target *target = caller->target;
	unsigned i;

	for (i = 0; i < count; i++) {
		const struct gyre_op *op = &caller->ops[i];
		struct entry *entry = &caller->entries[i];

		if (entry->write)
			sim_write_done(entry->write, op->effect, op->res);
		else
			sim_synced(&entry->sync, op->effect, op->res, target->promise);
	}
	for (i = 0; i < count; i++)
		note_answer(target, caller->ops[i].effect, caller->ops[i].res);
}

/*
 * Some writes and a flush: a chain, which makes an order of them, or a batch
 * without any. Of two flushes that overlap the kernel tells one that they failed.
 */
static void call_batch(struct caller *caller)
{
	bool chained = sim_chance(700);
	unsigned count = 2 + (unsigned)sim_random(BATCH_MAX - 1), i;

	if (!chained)
		caller->target->promise = SIM_AS_KERNEL;
	memset(caller->ops, 0, sizeof(caller->ops));
	for (i = 0; i + 1 < count; i++) {
		add_write(caller, i);
		caller->ops[i].flags = chained ? GYRE_OP_LINK : 0;
	}
	add_sync(caller, i, chained);
	if (sim_chance(300))
		caller->ops[0].timeout_ns = 1 + sim_random(sim_chance(500) ? 20 * SIM_US : SIM_MS);
	sim_call_many(play.rt, caller->calls, caller->ops, count);
	tell_batch(caller, count);
}

/* By gyre_call, whose answer is made to look like that of a batch. */
static void call_plainly(struct caller *caller)
{
	struct gyre_op *op = &caller->ops[0];

	op->status = sim_call_one(play.rt, &caller->calls[0]);
	op->effect = gyre_last_effect();
	op->res = op->status == GYRE_OK ? caller->calls[0].res : -ECANCELED;
}

/* A write, a flush or a sync_file_range, on its own. */
static void call_alone(struct caller *caller)
{
	struct gyre_op *op = &caller->ops[0];
	bool tell = true;

	memset(op, 0, sizeof(*op));
	if (sim_chance(400)) {
		add_write(caller, 0);
	} else if (sim_chance(500)) {
		add_sync(caller, 0, false);
	} else {
		sim_call_init(&caller->calls[0], IORING_OP_SYNC_FILE_RANGE, caller->target->fd,
			      NULL, REACH, 0);
		tell = false;
	}
	caller->calls[0].sqe_flags = sim_chance(200) ? IOSQE_ASYNC : 0;
	if (sim_chance(300))
		op->timeout_ns = 1 + sim_random(sim_chance(500) ? 20 * SIM_US : SIM_MS);
	if (!op->timeout_ns && sim_chance(600))
		call_plainly(caller);
	else
		sim_call_many(play.rt, caller->calls, op, 1);
	if (tell)
		tell_batch(caller, 1);
}

/* ------------------------------------------------------------ the threads -- */

/* Its own, under way with nobody: closed, unless the call was refused. */
static void close_own(struct caller *caller)
{
	int rc = gyre_close_fd(play.rt, caller->own.fd);

	if (rc < 0 && gyre_last_effect() != GYRE_EFFECT_NONE && !sim_fault_happened())
		sim_fail("gyre_close_fd: %d", rc);
	if (rc == 0)
		caller->own.fd = -1;
}

static void caller_main(void *arg)
{
	struct caller *caller = arg;
	unsigned round;

	for (round = 0; round < play.rounds; round++) {
		caller->target = sim_chance(500) ? &caller->own : &play.shared[sim_random(2)];
		switch (sim_random(8)) {
		case 0: case 1:
			write_usual(caller);
			break;
		case 2:
			sync_usual(caller);
			break;
		case 3:
			read_usual(caller);
			break;
		case 4: case 5:
			call_alone(caller);
			break;
		default:
			call_batch(caller);
		}
	}
	if (sim_chance(300))
		close_own(caller);
}

static void meddle(void)
{
	unsigned i, times = (unsigned)sim_random(sim_many(6, 20));

	for (i = 0; i < times; i++) {
		sim_sleep(sim_random(sim_chance(700) ? 30 * SIM_US : SIM_MS));
		if (sim_chance(500)) {
			sim_power_cut();
		} else {
			struct caller *caller = &play.callers[sim_random(play.count)];

			sim_cancel(play.rt, &caller->ops[sim_random(BATCH_MAX)]);
		}
	}
}

static void open_target(struct target *target, size_t len)
{
	target->sync_writes = sim_chance(250);
	target->fd = sim_ledger_file(len, target->sync_writes);
	target->promise = SIM_TO_THE_END;
}

static void open_files(void)
{
	unsigned i;

	for (i = 0; i < play.count; i++)
		open_target(&play.callers[i].own, sim_random(REACH));
	open_target(&play.shared[0], REACH);
	play.shared[0].promise = play.shared[1].promise = SIM_AS_KERNEL;
	play.shared[1].sync_writes = sim_chance(250);
	play.shared[1].fd = sim_ledger_reopen(play.shared[0].fd, play.shared[1].sync_writes);
}

static void close_files(void)
{
	unsigned i;

	for (i = 0; i < play.count; i++)
		if (play.callers[i].own.fd >= 0)
			sim_scenario_close(play.callers[i].own.fd);
	sim_scenario_close(play.shared[0].fd);
	sim_scenario_close(play.shared[1].fd);
}

/* The usual calls run in their threads, unless the environment sends them to a worker. */
static bool open_runtime(unsigned workers)
{
	bool opened;

	if (sim_chance(500))
		setenv("GYRE_ROUTE", "ring", 1);
	opened = sim_open(workers, sim_random(2 * SIM_MS), &play.rt);
	unsetenv("GYRE_ROUTE");
	return opened;
}

static void play_sync(unsigned workers)
{
	struct sim_thread *threads[CALLERS_MAX];
	bool close_early = sim_chance(200);
	char name[] = "writer-a";
	unsigned i;

	memset(&play, 0, sizeof(play));
	play.count = sim_many(3, CALLERS_MAX);
	play.rounds = sim_many(4, 6);
	open_files();
	if (open_runtime(workers)) {
		for (i = 0; i < play.count; i++, name[7]++)
			threads[i] = sim_spawn(name, caller_main, &play.callers[i]);
		meddle();
		if (close_early)
			sim_close_runtime(play.rt);
		for (i = 0; i < play.count; i++)
			sim_join(threads[i]);
		if (!close_early)
			sim_close_runtime(play.rt);
		gyre_free(play.rt);
	}
	sim_ledger_check_end();
	close_files();
}

void scenario_sync(void *arg)
{
	(void)arg;
	play_sync(1 + (unsigned)sim_random(sim_many(2, 4)));
}

void scenario_sync_death(void *arg)
{
	(void)arg;
	play_sync(2);
}
