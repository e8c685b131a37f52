/* SPDX-License-Identifier: MIT */
/*
 * Programs for gyre-differ. They wait only for what is sure to come: the
 * generator knows of each op whether it can end without help from outside. So no
 * run can hang, and what is open is small.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "differ.h"

#define HOUR_NS		(UINT64_C(3600) * 1000000000)
#define UNKNOWN_OPCODE	0xff

/* What the generator knows of the world at this point of the program. */
struct maker {
	uint64_t random;
	struct differ_program *program;
	unsigned written[2];		/* to each pipe, at most */
	bool closed[DIFFER_THINGS], replaced[DIFFER_THINGS];
	unsigned ops_max;
	bool waited;			/* for all that is sure so far */
	bool any_closed;
};

static unsigned below(struct maker *maker, unsigned n)
{
	uint64_t z = maker->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (unsigned)(((z ^ (z >> 31)) >> 32) * n >> 32);
}

static bool one_in(struct maker *maker, unsigned n)
{
	return below(maker, n) == 0;
}

static enum differ_thing some_thing(struct maker *maker)
{
	static const uint8_t weights[] = {
		DIFFER_PIPE_A_R, DIFFER_PIPE_A_R, DIFFER_PIPE_A_R, DIFFER_PIPE_A_W, DIFFER_PIPE_A_W,
		DIFFER_PIPE_B_R, DIFFER_PIPE_B_W, DIFFER_EVENTFD, DIFFER_EVENTFD, DIFFER_DATA,
		DIFFER_DATA, DIFFER_DATA, DIFFER_NOTHING,
	};

	return weights[below(maker, sizeof(weights))];
}

/* Where reading makes sense, mostly. */
static enum differ_thing some_source(struct maker *maker)
{
	static const uint8_t weights[] = {
		DIFFER_PIPE_A_R, DIFFER_PIPE_A_R, DIFFER_PIPE_B_R, DIFFER_EVENTFD, DIFFER_DATA,
		DIFFER_DATA,
	};

	return one_in(maker, 10) ? some_thing(maker) : weights[below(maker, sizeof(weights))];
}

static enum differ_thing some_sink(struct maker *maker)
{
	static const uint8_t weights[] = {
		DIFFER_PIPE_A_W, DIFFER_PIPE_A_W, DIFFER_PIPE_B_W, DIFFER_EVENTFD, DIFFER_DATA,
		DIFFER_DATA,
	};

	return one_in(maker, 10) ? some_thing(maker) : weights[below(maker, sizeof(weights))];
}

/* No pipe may ever be full: how much fits into one is not for us to say. */
static uint32_t len_for_pipe(struct maker *maker, unsigned pipe, uint32_t len)
{
	if (maker->written[pipe] + len >= DIFFER_BYTES)
		len = DIFFER_BYTES - 1 - maker->written[pipe];
	maker->written[pipe] += len;
	return len;
}

static uint32_t some_len(struct maker *maker, enum differ_thing thing)
{
	uint32_t len = one_in(maker, 10) ? 0 : 1 + below(maker, 12);

	if (thing == DIFFER_EVENTFD)
		return one_in(maker, 8) ? len : 8;
	return one_in(maker, 6) ? 4 * len : len;
}

static void make_write(struct maker *maker, struct differ_op *op)
{
	op->opcode = IORING_OP_WRITE;
	op->thing = some_sink(maker);
	op->len = some_len(maker, op->thing);
	op->off = op->thing == DIFFER_DATA ? below(maker, 2 * DIFFER_FILE_LEN) : 0;
	if (op->thing == DIFFER_PIPE_A_W || op->thing == DIFFER_PIPE_B_W)
		op->len = len_for_pipe(maker, op->thing == DIFFER_PIPE_B_W, op->len);
}

static void make_op(struct maker *maker, struct differ_op *op, unsigned number)
{
	op->thing = DIFFER_NOTHING;
	switch (below(maker, 16)) {
	case 0: case 1: case 2: case 3: case 4:
		op->opcode = IORING_OP_READ;
		op->thing = some_source(maker);
		op->len = some_len(maker, op->thing);
		op->off = op->thing == DIFFER_DATA ? below(maker, DIFFER_FILE_LEN + 8) : 0;
		break;
	case 5: case 6: case 7: case 8:
		make_write(maker, op);
		break;
	case 9:
		op->opcode = IORING_OP_FSYNC;
		op->thing = some_thing(maker);
		break;
	case 10:
		op->opcode = IORING_OP_POLL_ADD;
		op->thing = some_thing(maker);
		op->off = one_in(maker, 3) ? POLLOUT : one_in(maker, 4) ? POLLIN | POLLOUT : POLLIN;
		break;
	case 11:
		op->opcode = IORING_OP_TIMEOUT;
		op->off = one_in(maker, 2) ? HOUR_NS : below(maker, 2) * 20000;
		break;
	case 12: case 13: case 14:
		if (number > 0) {
			op->opcode = IORING_OP_ASYNC_CANCEL;
			op->off = one_in(maker, 10) ? DIFFER_OPS : below(maker, number);
			break;
		}
		/* fall through */
	default:
		op->opcode = one_in(maker, 4) ? UNKNOWN_OPCODE : IORING_OP_NOP;
	}
}

/* Does it end without anybody's help? */
static bool is_sure(const struct maker *maker, const struct differ_op *op)
{
	if (maker->closed[op->thing] && !maker->replaced[op->thing])
		return true;
	if (maker->replaced[op->thing])
		return op->opcode != IORING_OP_READ && op->opcode != IORING_OP_POLL_ADD;
	switch (op->opcode) {
	case IORING_OP_READ:
		return op->thing == DIFFER_NOTHING || op->thing == DIFFER_DATA || op->len == 0;
	case IORING_OP_POLL_ADD:
		return op->thing == DIFFER_NOTHING || op->thing == DIFFER_DATA ||
		       (op->thing == DIFFER_EVENTFD && (op->off & POLLOUT));
	case IORING_OP_TIMEOUT:
		return op->off != HOUR_NS;
	default:
		return true;
	}
}

static void make_ops(struct maker *maker, unsigned count)
{
	struct differ_program *program = maker->program;
	bool chained = false;
	unsigned i;

	for (i = 0; i < count; i++) {
		struct differ_op *op = &program->ops[program->op_count];

		make_op(maker, op, program->op_count++);
		if (one_in(maker, 6) && op->opcode != IORING_OP_TIMEOUT)
			op->flags |= IOSQE_ASYNC;
		op->sure = is_sure(maker, op) && (!chained || (op - 1)->sure);
		maker->waited = false;
		chained = i + 1 < count && one_in(maker, 3);
		if (chained || (i + 1 == count && one_in(maker, 20)))
			op->flags |= IOSQE_IO_LINK;
	}
}

static struct differ_step *add_step(struct maker *maker, enum differ_what what)
{
	struct differ_step *step = &maker->program->steps[maker->program->step_count++];

	step->what = what;
	return step;
}

static void make_submit(struct maker *maker)
{
	unsigned room = maker->ops_max - maker->program->op_count, count;

	if (room == 0)
		return;
	count = 1 + below(maker, room < 4 ? room : 4);
	make_ops(maker, count);
	add_step(maker, DIFFER_SUBMIT)->number = count;
}

static void make_outside(struct maker *maker)
{
	static const enum differ_thing things[] = { DIFFER_PIPE_A_W, DIFFER_PIPE_B_W,
						    DIFFER_EVENTFD };
	enum differ_thing thing;
	struct differ_step *step;
	uint32_t len = 8;

	thing = things[below(maker, 3)];
	if (thing != DIFFER_EVENTFD)
		len = len_for_pipe(maker, thing == DIFFER_PIPE_B_W, 1 + below(maker, 10));
	if (len == 0 || maker->closed[thing])
		return;
	step = add_step(maker, DIFFER_WRITE);
	step->thing = thing;
	step->number = len;
}

/*
 * A file that is replaced while an op may still look it up could leave a wait
 * without its CQE: only once all that is sure has come. And its number has to be
 * the lowest that is free.
 */
static void make_close(struct maker *maker)
{
	enum differ_thing thing = (enum differ_thing)below(maker, DIFFER_NOTHING);
	bool replace = maker->waited && !maker->any_closed && one_in(maker, 2);

	if (maker->closed[thing])
		return;
	maker->closed[thing] = maker->any_closed = true;
	maker->replaced[thing] = replace;
	add_step(maker, replace ? DIFFER_REPLACE : DIFFER_CLOSE)->thing = thing;
}

static void make_wait(struct maker *maker)
{
	if (!maker->waited)
		add_step(maker, DIFFER_WAIT);
	maker->waited = true;
}

/* Disks take their time to sync, and there are thousands of programs. */
static bool may_be_on_disk(struct maker *maker)
{
	unsigned i;

	for (i = 0; i < maker->program->op_count; i++)
		if (maker->program->ops[i].opcode == IORING_OP_FSYNC)
			return one_in(maker, 40);
	return one_in(maker, 3);
}

void differ_generate(uint64_t seed, struct differ_program *ret)
{
	static const unsigned setups[] = {
		IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_SUBMIT_ALL,
		0,
	};
	struct maker maker = { .random = seed * 7919, .program = ret };

	memset(ret, 0, sizeof(*ret));
	ret->seed = seed;
	ret->setup = setups[one_in(&maker, 3) ? 1 + below(&maker, 3) : 0];
	ret->entries = one_in(&maker, 5) ? 4 : 16;
	ret->ends_by_close = one_in(&maker, 2);
	maker.ops_max = 2 + below(&maker, DIFFER_OPS - 3);
	while (ret->step_count + 1 < DIFFER_STEPS && (ret->op_count == 0 || !one_in(&maker, 8)))
		switch (below(&maker, 12)) {
		case 0: case 1: case 2: case 3: case 4:
			make_submit(&maker);
			break;
		case 5: case 6:
			make_outside(&maker);
			break;
		case 7:
			make_close(&maker);
			break;
		default:
			make_wait(&maker);
		}
	make_wait(&maker);
	ret->on_disk = may_be_on_disk(&maker);
}

/* ------------------------------------------------------------- in words -- */

static const char *const thing_names[DIFFER_THINGS] = {
	"pipe A", "pipe A (w)", "pipe B", "pipe B (w)", "the eventfd", "the file", "no descriptor",
};

static void print_op(const struct differ_program *program, unsigned number)
{
	const struct differ_op *op = &program->ops[number];

	printf("    op %u: ", number);
	switch (op->opcode) {
	case IORING_OP_READ:
	case IORING_OP_WRITE:
		printf("%s %s, %u bytes at %" PRIu64,
		       op->opcode == IORING_OP_READ ? "READ" : "WRITE", thing_names[op->thing],
		       op->len, op->off);
		break;
	case IORING_OP_FSYNC:
		printf("FSYNC %s", thing_names[op->thing]);
		break;
	case IORING_OP_POLL_ADD:
		printf("POLL_ADD %s, events %" PRIx64, thing_names[op->thing], op->off);
		break;
	case IORING_OP_TIMEOUT:
		printf("TIMEOUT %" PRIu64 " ns", op->off);
		break;
	case IORING_OP_ASYNC_CANCEL:
		printf("ASYNC_CANCEL of op %" PRIu64, op->off);
		break;
	default:
		printf("%s", op->opcode == IORING_OP_NOP ? "NOP" : "an unknown opcode");
	}
	printf("%s%s%s\n", op->flags & IOSQE_ASYNC ? ", ASYNC" : "",
	       op->flags & IOSQE_IO_LINK ? ", LINK" : "", op->sure ? "" : " (may have to wait)");
}

void differ_print(const struct differ_program *program)
{
	static const char *const names[] = { "submit", "wait", "write", "close", "replace" };
	unsigned i, number = 0, end;

	printf("program %" PRIu64 ": %u entries, set-up flags %#x, file %s; at the end %s "
	       "what is left\n",
	       program->seed, program->entries, program->setup,
	       program->on_disk ? "on disk" : "in memory",
	       program->ends_by_close ? "close the pipes and cancel" : "cancel");
	for (i = 0; i < program->step_count; i++) {
		const struct differ_step *step = &program->steps[i];

		printf("  %u: %s", i, names[step->what]);
		if (step->what == DIFFER_SUBMIT || step->what == DIFFER_WRITE)
			printf(" %u", step->number);
		if (step->what >= DIFFER_WRITE)
			printf(" %s", thing_names[step->thing]);
		printf("\n");
		if (step->what == DIFFER_SUBMIT)
			for (end = number + step->number; number < end; number++)
				print_op(program, number);
	}
}

static void print_bytes(const char *what, const uint8_t *bytes, int len)
{
	int i;

	printf("    %s:", what);
	for (i = 0; i < len; i++)
		printf(bytes[i] > ' ' && bytes[i] < 0x7f ? " %c" : " %02x", bytes[i]);
	printf("\n");
}

void differ_print_outcome(const struct differ_program *program,
			  const struct differ_outcome *outcome)
{
	unsigned i;

	printf("    results:");
	for (i = 0; i < program->op_count; i++)
		printf(" %d", outcome->res[i]);
	printf("; after what it follows:");
	for (i = 0; i < program->op_count; i++)
		printf(" %u", outcome->second[i]);
	printf("\n    steps:");
	for (i = 0; i < program->step_count; i++)
		printf(" %d/%u", outcome->steps[i], outcome->taken[i]);
	printf("; eventfd: %" PRIu64 "%s\n", outcome->count, outcome->hangs ? "; it hung" : "");
	for (i = 0; i < program->op_count; i++)
		if (outcome->res[i] > 0 && program->ops[i].opcode == IORING_OP_READ) {
			char text[16];

			snprintf(text, sizeof(text), "op %u read", i);
			print_bytes(text, outcome->read[i], outcome->res[i]);
		}
	for (i = 0; i < 2; i++)
		if (outcome->pipe_len[i] > 0)
			print_bytes(i ? "left in pipe B" : "left in pipe A", outcome->pipe[i],
				    outcome->pipe_len[i]);
	if (outcome->data_len >= 0)
		print_bytes("the file", outcome->data, outcome->data_len);
}
