/* SPDX-License-Identifier: MIT */
/*
 * gyre-differ: small programs of io_uring ops, made from a seed, run on the
 * kernel and on the simulated one. What the kernel does must be among what the
 * simulated one may do.
 */
#ifndef GYRE_SIM_DIFFER_H
#define GYRE_SIM_DIFFER_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/sys.h"

#define DIFFER_OPS	10
#define DIFFER_STEPS	16
#define DIFFER_BYTES	64	/* what an op's own buffer holds, and a pipe in all */
#define DIFFER_FILE	256	/* how far the file goes */
#define DIFFER_FILE_LEN	40	/* and at first */

/* What an op's descriptor means. */
enum differ_thing {
	DIFFER_PIPE_A_R, DIFFER_PIPE_A_W, DIFFER_PIPE_B_R, DIFFER_PIPE_B_W, DIFFER_EVENTFD,
	DIFFER_DATA, DIFFER_NOTHING, DIFFER_THINGS
};

struct differ_op {
	uint8_t opcode, flags;
	bool sure;		/* ends without anybody's help */
	enum differ_thing thing;
	uint32_t len;
	uint64_t off;		/* or nanoseconds, poll events, the cancel's target by its number */
};

enum differ_what {
	DIFFER_SUBMIT,		/* the next number ops */
	DIFFER_WAIT,		/* for all that is sure */
	DIFFER_WRITE,		/* number bytes to thing, from outside */
	DIFFER_CLOSE,		/* thing's descriptor */
	DIFFER_REPLACE		/* the same, and its number becomes an empty pipe's */
};

struct differ_step {
	enum differ_what what;
	enum differ_thing thing;
	unsigned number;
};

struct differ_program {
	uint64_t seed;
	unsigned setup;			/* flags of the ring */
	unsigned entries;		/* of both queues */
	bool ends_by_close;		/* pipes are closed before what is left is cancelled */
	bool on_disk;			/* its file, if the world has one; else in memory */
	unsigned op_count, step_count;
	struct differ_op ops[DIFFER_OPS];
	struct differ_step steps[DIFFER_STEPS];
};

/*
 * What is seen of a run, compared as bytes. The order of all CQEs is not part of
 * it: ops that have nothing to do with each other may come in any.
 */
struct differ_outcome {
	int32_t res[DIFFER_OPS];
	uint32_t flags[DIFFER_OPS];
	int32_t steps[DIFFER_STEPS];		/* what the step's call said */
	uint32_t taken[DIFFER_STEPS];		/* the head of the submission queue after it */
	uint8_t read[DIFFER_OPS][DIFFER_BYTES];
	uint8_t pipe[2][2 * DIFFER_BYTES];	/* what is left in them */
	int32_t pipe_len[2];
	uint64_t count;				/* of the eventfd */
	uint8_t data[DIFFER_FILE];
	int32_t data_len;
	uint32_t hangs;
	/* For an op of a chain: did the one before it come first? For a cancel: did its target? */
	uint8_t second[DIFFER_OPS];
};

/* Where a program runs. */
struct differ_world {
	const struct gyre__sys *sys;
	int (*pipe)(int ret[2]);
	int (*file)(const void *data, size_t len, bool on_disk);
	void (*between)(void);		/* between two steps */
};

void differ_generate(uint64_t seed, struct differ_program *ret);
void differ_print(const struct differ_program *program);
void differ_print_outcome(const struct differ_program *program,
			  const struct differ_outcome *outcome);

/* 0, or why the world cannot run it: a negative errno. */
int differ_run(const struct differ_world *world, const struct differ_program *program,
	       struct differ_outcome *ret);

#endif
