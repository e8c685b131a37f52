/* SPDX-License-Identifier: MIT */
/*
 * From one stack to another and back, without anything that schedules: the
 * library's own switch, which it does not export and which is therefore compiled
 * in once more, boost.context's and swapcontext().
 *
 * In all of them both sides switch in one and the same place, as a CPU guesses
 * where a switch leads by where it led last. The second side is left where it
 * stands when the first has seen enough.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "workers/fiber.h"

#define BLOCK		128u		/* pairs of switches between two looks at the clock */
#define STACK_SIZE	(64u * 1024u)

/* What goals in nanoseconds are held against, whatever the work. */
#define YARDSTICK	(BENCH_ON_TASKS - BENCH_WORK_BIT(BENCH_SLEEPERS))

/* Side 0 is a caller, side 1 its other one, whose stack follows. */
struct pair {
	struct gyre__fiber fiber[2];
	ucontext_t context[2];
	void *boost;			/* the side that does not run */
};

/* makecontext() hands on nothing as wide as a pointer. */
static _Thread_local struct pair *pair_of_thread;

static int pair_join(struct bench_caller *caller)
{
	/* Zeroed: no page of it is faulted in while the clock runs. */
	struct pair *pair = aligned_alloc(BENCH_ALIGN, STACK_SIZE + BENCH_PAGE);

	_Static_assert(sizeof(*pair) <= BENCH_PAGE, "the pair is on a page before the stack");
	if (!pair)
		return bench_fault(caller->run, "%s: no memory for a stack",
				   caller->run->engine->name);
	memset(pair, 0, STACK_SIZE + BENCH_PAGE);
	caller->state = pair;
	pair_of_thread = pair;
	return 0;
}

static void *stack_of(struct pair *pair)
{
	return (char *)pair + BENCH_PAGE;
}

static void pair_leave(struct bench_caller *caller)
{
	free(caller->state);
}

/* block() switches from a side BLOCK times, and is back each time. */
static void pair_loop(struct bench_caller *caller, void (*block)(struct pair *pair, unsigned side))
{
	uint64_t since = bench_ticks();

	caller->run->block = BLOCK;
	do
		block(caller->state, 0);
	while (bench_note_block(caller, &since));
}

/* ---------------------------------------------------------------- fiber -- */

/* For the asserts of workers/fiber.c, unless the library that is linked in brings its own. */
void gyre__assert_failed(const char *cond, const char *file, int line)
	__attribute__((__noreturn__, __cold__, __weak__));
void gyre__assert_failed(const char *cond, const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, cond);
	abort();
}

__attribute__((__noinline__))
static void fiber_block(struct pair *pair, unsigned side)
{
	unsigned i;

	for (i = 0; i < BLOCK; i++)
		gyre__fiber_switch(&pair->fiber[side], &pair->fiber[!side]);
}

static void fiber_other(void *arg)
{
	for (;;)
		fiber_block(arg, 1);
}

static void fiber_loop(struct bench_caller *caller)
{
	struct pair *pair = caller->state;

	gyre__fiber_init_thread(&pair->fiber[0]);
	gyre__fiber_init(&pair->fiber[1], stack_of(pair), STACK_SIZE, fiber_other, pair);
	pair_loop(caller, fiber_block);
	gyre__fiber_done(&pair->fiber[1]);
}

const struct bench_engine bench_fiber = {
	.name = "fiber",
	.about = "the switch that tasks are made of, there and back, alone",
	.works = BENCH_WORK_BIT(BENCH_YIELD),
	.one_thread = true,
	.ours = true,
	.join = pair_join,
	.loop = fiber_loop,
	.leave = pair_leave,
};

/* ---------------------------------------------------------------- boost -- */

#ifdef BENCH_BOOST
/* Of boost/context/detail/fcontext.hpp, which is C++: these have C linkage there, too. */
struct transfer {
	void *from;
	void *data;
};
struct transfer jump_fcontext(void *to, void *data);
void *make_fcontext(void *top, size_t size, void (*fn)(struct transfer transfer));

__attribute__((__noinline__))
static void boost_block(struct pair *pair, unsigned side)
{
	unsigned i;

	(void)side;
	for (i = 0; i < BLOCK; i++)
		pair->boost = jump_fcontext(pair->boost, pair).from;
}

static void boost_other(struct transfer transfer)
{
	struct pair *pair = transfer.data;

	pair->boost = transfer.from;
	for (;;)
		boost_block(pair, 1);
}

static void boost_loop(struct bench_caller *caller)
{
	struct pair *pair = caller->state;

	pair->boost = make_fcontext((char *)stack_of(pair) + STACK_SIZE, STACK_SIZE, boost_other);
	pair_loop(caller, boost_block);
}
#else
static const char *boost_missing(void)
{
	return "gyre-bench was built without boost.context (configure --with-boost-context)";
}
#endif

const struct bench_engine bench_boost = {
	.name = "boost",
	.about = "boost.context's switch there and back, whatever the work",
	.works = YARDSTICK,
	.one_thread = true,
#ifdef BENCH_BOOST
	.join = pair_join,
	.loop = boost_loop,
	.leave = pair_leave,
#else
	.missing = boost_missing,
#endif
};

/* ------------------------------------------------------------- ucontext -- */

__attribute__((__noinline__))
static void ucontext_block(struct pair *pair, unsigned side)
{
	unsigned i;

	for (i = 0; i < BLOCK; i++)
		swapcontext(&pair->context[side], &pair->context[!side]);
}

static void ucontext_other(void)
{
	for (;;)
		ucontext_block(pair_of_thread, 1);
}

static void ucontext_loop(struct bench_caller *caller)
{
	struct pair *pair = caller->state;
	ucontext_t *other = &pair->context[1];

	if (getcontext(other) < 0) {
		bench_fault(caller->run, "ucontext: getcontext() failed: %m");
		return;
	}
	other->uc_stack.ss_sp = stack_of(pair);
	other->uc_stack.ss_size = STACK_SIZE;
	makecontext(other, ucontext_other, 0);
	pair_loop(caller, ucontext_block);
}

const struct bench_engine bench_ucontext = {
	.name = "ucontext",
	.about = "swapcontext() there and back, whatever the work",
	.works = YARDSTICK,
	.one_thread = true,
	.join = pair_join,
	.loop = ucontext_loop,
	.leave = pair_leave,
};
