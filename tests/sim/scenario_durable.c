/* SPDX-License-Identifier: MIT */
/*
 * gyre_write_durable, gyre_fsync and gyre_fdatasync of several callers on two
 * files, one of them through two descriptors, while flushes fail and the power
 * is cut in thought. An OK is durable whatever anybody else is told; a failure
 * sticks for its file, and for no other, until the reset.
 */
#include "failures.h"
#include "ring/sys_fault.h"
#include "scenario.h"

#include <stdlib.h>

#include "file.h"
#include "ledger.h"

#define CALLERS		4
#define ROUNDS		5
#define DESCRIPTORS	3	/* of file 0, of file 0 again, of file 1 */
#define BYTES_MAX	80
#define REACH		(SIM_DATA_BYTES / 4)

struct caller {
	unsigned char bytes[BYTES_MAX];
};

static struct {
	struct gyre *rt;
	struct caller callers[CALLERS];
	int fds[DESCRIPTORS];
	bool resets;		/* somebody may reset: then a failure may stop to stick */
	/* By the file's number. */
	unsigned resets_begun[SIM_DATA_MAX], resets_ended[SIM_DATA_MAX];
} play;

static enum gyre_effect effect_of(ssize_t res)
{
	return res >= 0 ? GYRE_EFFECT_DONE : gyre_last_effect();
}

/* The file has failed, and not just this call: which is said in words. */
static bool tells_failure(void)
{
	return gyre_last_status() == GYRE_OK && strstr(gyre_last_error(), "gyre_durable_reset");
}

/* A failure needs a reason: a flush of this very file that failed, or a write that might be one. */
static void check_reason(int fd, ssize_t res)
{
	const struct sim_file *file = sim_file_get(fd);

	if (res < 0 && gyre_last_status() == GYRE_OK && file->handle.data->errors == 0 &&
	    !sim_fault_happened() && !sim_file_faults.write_fails && !sim_file_faults.full)
		sim_fail("file %u is told to have failed with %zd, and no flush of it has",
			 file->handle.data->number, res);
}

/* A call that has to fail if one of its file has been told of a failure. */
struct begun {
	uint64_t when;
	unsigned resets;
	bool during_one;
};

static unsigned number_of(int fd)
{
	return sim_file_get(fd)->handle.data->number;
}

static struct begun begin(int fd)
{
	unsigned number = number_of(fd);

	return (struct begun){
		.when = sim_durable_begin(), .resets = play.resets_begun[number],
		.during_one = play.resets_ended[number] != play.resets_begun[number],
	};
}

static void reset(int fd)
{
	unsigned number = number_of(fd);

	play.resets_begun[number]++;
	if (gyre_durable_reset(play.rt, fd) == 0) {
		sim_trace("file %u is reset", number);
		sim_durable_reset(fd);
	}
	play.resets_ended[number]++;
}

/* A reset counts from some moment of it: who overlaps with one proves nothing. */
static void note(int fd, struct begun begun, ssize_t res)
{
	check_reason(fd, res);
	if (begun.during_one || begun.resets != play.resets_begun[number_of(fd)])
		return;
	/* Who could not find out which file it is says no, and has nothing against the file. */
	if (res < 0 && sim_failures_of(GYRE__FAULT_statx))
		return;
	if (res >= 0 || tells_failure())
		sim_durable_told(fd, begun.when, res);
}

static void write_durably(struct caller *caller, int fd)
{
	uint64_t offset = sim_random(REACH);
	struct begun begun = begin(fd);
	size_t len = 1 + sim_random(BYTES_MAX);
	struct sim_write *write = sim_write_begin(fd, caller->bytes, len, offset, SIM_TO_THE_END);
	enum gyre_effect effect;
	ssize_t res;

	sim_lend(caller->bytes, len, NULL);
	res = gyre_write_durable(play.rt, fd, caller->bytes, len, (off_t)offset);
	effect = effect_of(res);
	sim_take_back(caller->bytes);
	if (res >= 0 && (size_t)res != len)
		sim_fail("gyre_write_durable wrote %zd bytes of %zu", res, len);
	note(fd, begun, res);
	sim_write_done(write, effect, res);
}

static void write_plainly(struct caller *caller, int fd)
{
	uint64_t offset = sim_random(REACH);
	size_t len = 1 + sim_random(BYTES_MAX);
	struct sim_write *write = sim_write_begin(fd, caller->bytes, len, offset, SIM_NOT_DURABLE);
	ssize_t res;

	sim_lend(caller->bytes, len, NULL);
	res = gyre_pwrite(play.rt, fd, caller->bytes, len, (off_t)offset);
	sim_take_back(caller->bytes);
	sim_write_done(write, effect_of(res), res);
}

static void flush(int fd)
{
	struct begun begun = begin(fd);
	struct sim_sync sync = sim_sync_begin(fd);
	int res = sim_chance(500) ? gyre_fsync(play.rt, fd) : gyre_fdatasync(play.rt, fd);
	enum gyre_effect effect = effect_of(res);

	note(fd, begun, res);
	/* Somebody who was told of a failure may have reset it since: only a new write counts. */
	sim_synced(&sync, effect, res, SIM_AS_KERNEL);
}

static void caller_main(void *arg)
{
	struct caller *caller = arg;
	unsigned round;

	for (round = 0; round < ROUNDS; round++) {
		int fd = play.fds[sim_random(DESCRIPTORS)];

		/* Who was told of a failure may mend it, or somebody else's. */
		if (play.resets && gyre_last_effect() != GYRE_EFFECT_DONE && sim_chance(300))
			reset(fd);
		switch (sim_random(6)) {
		case 0:
			/* With O_DSYNC it would be told of a failure that nobody else then is. */
			if (!sim_file_get(fd)->handle.sync_writes)
				write_plainly(caller, fd);
			break;
		case 1:
			flush(fd);
			break;
		default:
			write_durably(caller, fd);
		}
	}
}

static void meddle(void)
{
	unsigned i, times = (unsigned)sim_random(6);

	for (i = 0; i < times; i++) {
		sim_sleep(sim_random(sim_chance(700) ? 30 * SIM_US : SIM_MS));
		if (!play.resets || sim_chance(700)) {
			sim_power_cut();
			continue;
		}
		reset(play.fds[sim_random(DESCRIPTORS)]);
	}
}

static bool open_runtime(unsigned workers)
{
	bool opened;

	if (sim_chance(300))
		setenv("GYRE_ROUTE", "ring", 1);
	opened = sim_open(workers, sim_random(2 * SIM_MS), &play.rt);
	unsetenv("GYRE_ROUTE");
	return opened;
}

static void play_durable(unsigned workers)
{
	static const char *const names[CALLERS] = { "writer-a", "writer-b", "writer-c",
						    "writer-d" };
	struct sim_thread *threads[CALLERS];
	bool close_early = sim_chance(200);
	unsigned i;

	memset(&play, 0, sizeof(play));
	play.resets = sim_chance(400);
	play.fds[0] = sim_ledger_file(REACH, sim_chance(200));
	play.fds[1] = sim_ledger_reopen(play.fds[0], sim_chance(200));
	play.fds[2] = sim_ledger_file(sim_random(REACH), sim_chance(200));
	if (open_runtime(workers)) {
		for (i = 0; i < CALLERS; i++)
			threads[i] = sim_spawn(names[i], caller_main, &play.callers[i]);
		meddle();
		if (close_early)
			sim_close_runtime(play.rt);
		for (i = 0; i < CALLERS; i++)
			sim_join(threads[i]);
		if (!close_early)
			sim_close_runtime(play.rt);
		gyre_free(play.rt);
	}
	sim_ledger_check_end();
	for (i = 0; i < DESCRIPTORS; i++)
		sim_scenario_close(play.fds[i]);
}

void scenario_durable(void *arg)
{
	(void)arg;
	play_durable(1 + (unsigned)sim_random(2));
}

void scenario_durable_death(void *arg)
{
	(void)arg;
	play_durable(2);
}
