/* SPDX-License-Identifier: MIT */
/*
 * The ledger: which write put which byte where, what its caller was told, and
 * whether reads and power cuts bear that out.
 *
 * Each write is given bytes that name it, so that any byte found anywhere says
 * whose it is. A scenario tells when a write, a flush or a read begins and what
 * came of it. At every moment of interest, by dice, the power is cut in thought:
 * an image of each medium is taken and held against the ledger, and the run goes
 * on. What may be found in one place:
 *
 * - no byte that nobody has written there (garbage);
 * - no byte of a write that was answered with effect NONE, or past the count that
 *   it was answered with;
 * - in an image, nothing older than a write that was answered as durable; in a
 *   read, nothing older than a write that was answered before the read began.
 *   Writes that were under way at the same time may come in either order.
 */
#ifndef GYRE_SIM_LEDGER_H
#define GYRE_SIM_LEDGER_H

#include <gyre.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sim_data;
struct sim_write;

/* How much an OK is worth that comes after a flush of the file has failed. */
enum sim_promise {
	SIM_NOT_DURABLE,	/* nothing: a plain write */
	SIM_AS_KERNEL,		/* the kernel's word: it may have told somebody else already */
	/* Everything: gyre_write_durable's, or who stops at the first error. */
	SIM_TO_THE_END
};

void sim_ledger_begin(void);

/* A new file that the ledger follows, len bytes long: its descriptor, with O_DSYNC if wanted. */
int sim_ledger_file(size_t len, bool sync_writes);
/* The same file, opened once more. */
int sim_ledger_reopen(int fd, bool sync_writes);

/*
 * A write of len bytes at offset begins: fills buf. Its answer goes to
 * sim_write_done(), as pwrite(2) and gyre_last_effect() have it. promise: what an
 * OK says of a power cut, as with O_DSYNC, RWF_DSYNC or gyre_write_durable().
 */
struct sim_write *sim_write_begin(int fd, void *buf, size_t len, uint64_t offset,
				  enum sim_promise promise);
void sim_write_done(struct sim_write *write, enum gyre_effect effect, ssize_t res);

/*
 * A flush of fd's file is asked for. What was answered before is covered, and
 * so is what is added by sim_sync_covers(): earlier writes of its own chain.
 */
#define SIM_COVERED_MAX	4
struct sim_sync {
	struct sim_data *data;
	uint64_t begun;
	struct sim_write *own[SIM_COVERED_MAX];
	unsigned own_count;
};
struct sim_sync sim_sync_begin(int fd);
void sim_sync_covers(struct sim_sync *sync, struct sim_write *write);
void sim_synced(const struct sim_sync *sync, enum gyre_effect effect, int res,
		enum sim_promise promise);

/* A read of fd begins (the value is sim_read_done()'s), and what came of it. */
uint64_t sim_read_begin(void);
void sim_read_done(int fd, uint64_t begun, const void *buf, ssize_t res, uint64_t offset);

/*
 * Calls whose failure has to stick, as gyre_write_durable's: once one has told
 * that a flush of fd's file failed, none that begins later may be answered OK
 * before the reset. Ask for begun before the call, and tell the result after it;
 * a negative one only where it is a flush that failed. The reset is told twice,
 * before it and after it.
 */
uint64_t sim_durable_begin(void);
void sim_durable_told(int fd, uint64_t begun, ssize_t res);
void sim_durable_reset(int fd);

/* The power is cut now, in thought. */
void sim_power_cut(void);
/* The end of a scenario: images, the cache, and whether each failure was told to somebody. */
void sim_ledger_check_end(void);

/* -------------------------------------- said by the model, in file.c -- */

/* By dice, a power cut. where: for the trace. */
void sim_ledger_moment(const char *where);
/* A flush has failed and these sectors are in the cache only. */
void sim_ledger_lost(struct sim_data *data, uint64_t sectors);
/* The kernel has told somebody of a failed flush. */
void sim_ledger_handed(struct sim_data *data);

#endif
