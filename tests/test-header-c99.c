/* SPDX-License-Identifier: MIT */
/*
 * gyre.h by itself, first and alone, as pedantic C99; and what programs that
 * were compiled against version 0.1 rely on: numbers and layouts.
 */
#include <gyre.h>

#include <stdio.h>
#include <string.h>

static int number, failed;

static void ok(int passed, const char *what)
{
	printf("%s %d - %s\n", passed ? "ok" : "not ok", ++number, what);
	failed |= !passed;
}

static void prep(struct io_uring_sqe *sqe, void *arg)
{
	(void)sqe;
	(void)arg;
}

static int numbers_are_as_they_were(void)
{
	return GYRE_OK == 0 && GYRE_WORKER_DEAD == 1 && GYRE_RESPONSE_LOST == 2 &&
	       GYRE_TIMED_OUT == 3 && GYRE_CANCELLED == 4 && GYRE_CLOSED == 5 && GYRE_BUSY == 6 &&
	       GYRE_NO_REACTOR == 7 && GYRE_WOULD_DEADLOCK == 8 && GYRE_FROZEN == 9 &&
	       GYRE_NOT_FOUND == 10 && GYRE_EXISTS == 11 && GYRE_INVALID == 12 &&
	       GYRE_NO_MEMORY == 13 && GYRE_UNSUPPORTED == 14 && GYRE_SYSTEM == 15 &&
	       GYRE_EFFECT_NONE == 0 && GYRE_EFFECT_UNKNOWN == 1 && GYRE_EFFECT_DONE == 2 &&
	       GYRE_MODE_DEFAULT == 0 && GYRE_MODE_FRESH == 1 && GYRE_MODE_SHARED == 2 &&
	       GYRE_MODE_POOLED == 3 && GYRE_FORMAT_JSON == 0 && GYRE_FORMAT_PROMETHEUS == 1 &&
	       GYRE_FORMAT_TEXT == 2 && GYRE_OP_LINK == 1 && GYRE_OP_NOWAIT == 2 &&
	       GYRE_OP_LEAVE == 4 && GYRE_WORKER(0) == 1 && GYRE_WORKER(7) == 8 &&
	       GYRE_PIN_WORKERS == 1 && GYRE_ZERO_ARENAS == 2 && GYRE_SPIN_NEVER == 1 &&
	       GYRE_SPIN_AUTO == UINT64_MAX && GYRE_FOREVER == UINT64_MAX;
}

/* On machines with 64-bit pointers; the others have layouts of their own. */
static int layouts_are_as_they_were(void)
{
	if (sizeof(void *) != 8)
		return 1;
	return sizeof(struct gyre_op) == 168 && offsetof(struct gyre_op, timeout_ns) == 16 &&
	       offsetof(struct gyre_op, flags) == 24 && offsetof(struct gyre_op, res) == 32 &&
	       offsetof(struct gyre_op, status) == 40 && offsetof(struct gyre_op, user) == 48 &&
	       offsetof(struct gyre_op, internal) == 72 &&
	       offsetof(struct gyre_options, name) == 8 &&
	       offsetof(struct gyre_options, spin_ns) == 32 &&
	       offsetof(struct gyre_options, drain_ns) == 72 &&
	       sizeof(struct gyre_options) == 96 && sizeof(struct gyre_state_type) == 40 &&
	       offsetof(struct gyre_stats, calls) == 8 &&
	       sizeof(struct gyre_stats) == 46 * 8;
}

static int calls_can_be_made(void)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;
	struct gyre_op op;
	struct gyre *rt = NULL;
	struct iovec iov = { NULL, 0 };
	char byte;

	memset(&op, 0, sizeof(op));
	op.prep = prep;
	options.workers = 1u << 30;
	return gyre_open(&options, &rt) == GYRE_INVALID &&
	       gyre_callv(NULL, &op, 1) == GYRE_NO_REACTOR && op.status == GYRE_NO_REACTOR &&
	       gyre_pread(NULL, 0, &byte, 1, 0) < 0 &&
	       gyre_preadv2(NULL, 0, &iov, 1, 0, 0) < 0 &&
	       gyre_last_error() != NULL && gyre_close(NULL) == GYRE_OK &&
	       strcmp(gyre_status_name(GYRE_WORKER_DEAD), "WORKER_DEAD") == 0 &&
	       strncmp(gyre_version(), "0.", 2) == 0;
}

int main(void)
{
	printf("1..3\n");
	ok(numbers_are_as_they_were(), "numbers_are_as_they_were");
	ok(layouts_are_as_they_were(), "layouts_are_as_they_were");
	ok(calls_can_be_made(), "calls_can_be_made");
	return failed;
}
