/* SPDX-License-Identifier: MIT */
/*
 * Switching stacks, and who follows a program by its stack.
 *
 * What a pair of switches costs is told by the last test, and not judged:
 *
 *	GYRE_TEST_ONLY=told GYRE_TEST_LENGTH=20 tests/test-fiber
 *
 * With -DTEST_FIBER_ALONE, fiber.c and its assembly this is a program of its
 * own, without libcheck, liburing and the library: for fiber-aarch64.sh.
 */
#include "workers/fiber.h"

#include <execinfo.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "harness.h"
#include "ring/sys.h"

#if TEST_UNDER_ASAN
#include <sanitizer/asan_interface.h>
#elif TEST_UNDER_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#define STACK_SIZE	(64u * 1024)
#define SMALL_STACK	(16u * 1024)	/* with room for the frames of sanitizers */

static char *map_stack(size_t size)
{
	char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	expect(stack != MAP_FAILED);
	return stack;
}

static void unmap_stack(char *stack, size_t size)
{
	expect_eq(munmap(stack, size), 0);
}

/* The test's own stack, and one guest on a stack of its own. */
struct pair {
	struct gyre__fiber host, guest;
	char *stack;
	size_t size;
	unsigned times;
	uint64_t value;
	void *ptr;
	long long counted;
};

static void pair_open(struct pair *pair, size_t size, gyre__fiber_fn *fn)
{
	memset(pair, 0, sizeof(*pair));
	pair->size = size;
	pair->stack = map_stack(size);
	gyre__fiber_init_thread(&pair->host);
	gyre__fiber_init(&pair->guest, pair->stack, size, fn, pair);
}

static void pair_close(struct pair *pair)
{
	gyre__fiber_done(&pair->guest);
	gyre__fiber_done(&pair->host);
	unmap_stack(pair->stack, pair->size);
}

static void exit_at_once(void *arg)
{
	struct pair *pair = arg;

	pair->value++;
	gyre__fiber_exit_to(&pair->guest, &pair->host);
}

/*
 * The sanitizer that looks on, if one does, knows which stack this is: ASan by
 * its bounds, TSan by a name of its own, which is the same at each call with the
 * same id, NULL at first.
 */
static void expect_stack_is_known(void **id)
{
#if TEST_UNDER_ASAN
	expect_str(__asan_locate_address(__builtin_frame_address(0), NULL, 0, NULL, NULL), "stack");
#elif TEST_UNDER_TSAN
	if (!*id)
		*id = __tsan_get_current_fiber();
	expect(*id == __tsan_get_current_fiber());
#endif
	(void)id;
}

/* ------------------------------------------------------- there and back -- */

TEST(fiber_runs_when_first_switched_to_and_not_before)
{
	struct pair pair;

	pair_open(&pair, STACK_SIZE, exit_at_once);
	expect_eq(pair.value, 0);
	gyre__fiber_switch(&pair.host, &pair.guest);
	expect_eq(pair.value, 1);
	pair_close(&pair);
}

TEST(fiber_that_never_ran_is_done_without_a_word)
{
	struct pair pair;

	pair_open(&pair, STACK_SIZE, exit_at_once);
	pair_close(&pair);
	expect_eq(pair.value, 0);
}

/* Several sums at once, so that some live in registers and some on the stack. */
struct sums {
	uint64_t a, b, c, d, e;
	double f;
};

static uint64_t sums_of(const struct sums *sums)
{
	return sums->a ^ sums->b ^ sums->c ^ sums->d ^ sums->e ^ (uint64_t)sums->f;
}

static uint64_t sum_up(struct gyre__fiber *self, struct gyre__fiber *other, unsigned times,
		       uint64_t start)
{
	struct sums s = { start, start + 1, start + 2, start + 3, start + 4, (double)start };
	unsigned i;

	for (i = 0; i < times; i++) {
		s.a = s.a * 31 + i;
		s.b = s.b * 37 + s.a;
		s.c = s.c * 41 + s.b;
		s.d = s.d * 43 + s.c;
		s.e = s.e * 47 + s.d;
		s.f = s.f * 0.5 + (double)(s.e & 0xffff);
		if (other)
			gyre__fiber_switch(self, other);
	}
	return sums_of(&s);
}

static void sum_up_as_guest(void *arg)
{
	struct pair *pair = arg;

	pair->value = sum_up(&pair->guest, &pair->host, pair->times, 1000);
	gyre__fiber_exit_to(&pair->guest, &pair->host);
}

TEST(locals_outlive_a_million_switches_there_and_back)
{
	struct pair pair;
	uint64_t sum;

	pair_open(&pair, STACK_SIZE, sum_up_as_guest);
	pair.times = test_times(1000000);
	sum = sum_up(&pair.host, &pair.guest, pair.times, 5);
	gyre__fiber_switch(&pair.host, &pair.guest);
	expect_eq(sum, sum_up(NULL, NULL, pair.times, 5));
	expect_eq(pair.value, sum_up(NULL, NULL, pair.times, 1000));
	pair_close(&pair);
}

/* ------------------------------------------------------------ registers -- */

/*
 * Fills every register that a call keeps from seed, switches, and says how many
 * of them came back changed.
 */
#if defined(__x86_64__) && defined(__LP64__)
unsigned long test_fiber_changed(struct gyre__fiber *from, struct gyre__fiber *to, uint64_t seed);
__asm__(".text\n"
	".type test_fiber_changed, @function\n"
	"test_fiber_changed:\n"
	"	endbr64\n"
	"	pushq %rbp\n	pushq %rbx\n	pushq %r12\n"
	"	pushq %r13\n	pushq %r14\n	pushq %r15\n"
	"	pushq %rdx\n"
	"	leaq 1(%rdx), %rbp\n	leaq 2(%rdx), %rbx\n	leaq 3(%rdx), %r12\n"
	"	leaq 4(%rdx), %r13\n	leaq 5(%rdx), %r14\n	leaq 6(%rdx), %r15\n"
	"	call gyre__fiber_switch\n"
	"	popq %rdx\n"
	"	xorl %eax, %eax\n"
	"	leaq 1(%rdx), %rcx\n	cmpq %rcx, %rbp\n"
	"	setne %cl\n	movzbl %cl, %ecx\n	addq %rcx, %rax\n"
	"	leaq 2(%rdx), %rcx\n	cmpq %rcx, %rbx\n"
	"	setne %cl\n	movzbl %cl, %ecx\n	addq %rcx, %rax\n"
	"	leaq 3(%rdx), %rcx\n	cmpq %rcx, %r12\n"
	"	setne %cl\n	movzbl %cl, %ecx\n	addq %rcx, %rax\n"
	"	leaq 4(%rdx), %rcx\n	cmpq %rcx, %r13\n"
	"	setne %cl\n	movzbl %cl, %ecx\n	addq %rcx, %rax\n"
	"	leaq 5(%rdx), %rcx\n	cmpq %rcx, %r14\n"
	"	setne %cl\n	movzbl %cl, %ecx\n	addq %rcx, %rax\n"
	"	leaq 6(%rdx), %rcx\n	cmpq %rcx, %r15\n"
	"	setne %cl\n	movzbl %cl, %ecx\n	addq %rcx, %rax\n"
	"	popq %r15\n	popq %r14\n	popq %r13\n"
	"	popq %r12\n	popq %rbx\n	popq %rbp\n"
	"	ret\n"
	".size test_fiber_changed, . - test_fiber_changed\n");
#define CAN_FILL_REGISTERS 1
#elif defined(__aarch64__) && defined(__LP64__)
unsigned long test_fiber_changed(struct gyre__fiber *from, struct gyre__fiber *to, uint64_t seed);
#define FILL(n, x, d)	"	add x" #x ", x2, #" #n "\n	fmov d" #d ", x" #x "\n"
#define FILL_X(n, x)	"	add x" #x ", x2, #" #n "\n"
#define LOOK(n, x)	"	add x9, x2, #" #n "\n	cmp x9, x" #x "\n	cinc x0, x0, ne\n"
#define LOOK_D(n, d)	"	add x9, x2, #" #n "\n	fmov x10, d" #d "\n" \
			"	cmp x9, x10\n	cinc x0, x0, ne\n"
__asm__(".text\n"
	".type test_fiber_changed, %function\n"
	"test_fiber_changed:\n"
	"	hint #34\n"		/* bti c */
	"	sub sp, sp, #176\n"
	"	stp x19, x20, [sp, #0]\n	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n		stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n	stp d14, d15, [sp, #144]\n"
	"	str x2, [sp, #160]\n"
	FILL(1, 19, 8) FILL(2, 20, 9) FILL(3, 21, 10) FILL(4, 22, 11)
	FILL(5, 23, 12) FILL(6, 24, 13) FILL(7, 25, 14) FILL(8, 26, 15)
	FILL_X(9, 27) FILL_X(10, 28) FILL_X(11, 29)
	"	bl gyre__fiber_switch\n"
	"	ldr x2, [sp, #160]\n"
	"	mov x0, #0\n"
	LOOK(1, 19) LOOK(2, 20) LOOK(3, 21) LOOK(4, 22) LOOK(5, 23) LOOK(6, 24) LOOK(7, 25)
	LOOK(8, 26) LOOK(9, 27) LOOK(10, 28) LOOK(11, 29)
	LOOK_D(1, 8) LOOK_D(2, 9) LOOK_D(3, 10) LOOK_D(4, 11)
	LOOK_D(5, 12) LOOK_D(6, 13) LOOK_D(7, 14) LOOK_D(8, 15)
	"	ldp x19, x20, [sp, #0]\n	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n		ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #176\n"
	"	ret\n"
	".size test_fiber_changed, . - test_fiber_changed\n");
#define CAN_FILL_REGISTERS 1
#endif

#ifdef CAN_FILL_REGISTERS
static void fill_registers(void *arg)
{
	struct pair *pair = arg;
	unsigned i;

	for (i = 0; i < 1000; i++)
		pair->counted += (long long)test_fiber_changed(&pair->guest, &pair->host,
							       UINT64_C(0x4045000000000000) +
								       16 * i);
	gyre__fiber_exit_to(&pair->guest, &pair->host);
}
#endif

TEST(registers_that_a_call_keeps_are_kept)
{
#ifdef CAN_FILL_REGISTERS
	struct pair pair;
	long long changed = 0;
	unsigned i;

	pair_open(&pair, STACK_SIZE, fill_registers);
	for (i = 0; i < 1001; i++)
		changed += (long long)test_fiber_changed(&pair.host, &pair.guest,
							 UINT64_C(0x7012000000000000) - 16 * i);
	expect_eq(changed, 0);
	expect_eq(pair.counted, 0);
	pair_close(&pair);
#else
	test_skip("this test knows the registers of x86-64 and aarch64 only");
#endif
}

/* The rounding mode of each unit: 0 to nearest, 1 down, 2 up, 3 to zero, as x86 counts them. */
#if defined(__x86_64__)
static void set_rounding(unsigned sse, unsigned x87)
{
	uint16_t control;

	__builtin_ia32_ldmxcsr((__builtin_ia32_stmxcsr() & ~0x6000u) | sse << 13);
	__asm__ volatile("fnstcw %0" : "=m"(control));
	control = (uint16_t)((control & ~0x0c00u) | x87 << 10);
	__asm__ volatile("fldcw %0" : : "m"(control));
}

static unsigned get_rounding(void)
{
	uint16_t control;

	__asm__ volatile("fnstcw %0" : "=m"(control));
	return (__builtin_ia32_stmxcsr() >> 13 & 3) | (control >> 10 & 3u) << 4;
}
#define ROUNDING(sse, x87)	((sse) | (x87) << 4)
#define CAN_ROUND 1
#elif defined(__aarch64__)
/* fpcr counts otherwise: 1 up, 2 down. One unit. */
static void set_rounding(unsigned mode, unsigned unused)
{
	uint64_t fpcr;

	(void)unused;
	mode = mode == 1 ? 2 : mode == 2 ? 1 : mode;
	__asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
	fpcr = (fpcr & ~(UINT64_C(3) << 22)) | (uint64_t)mode << 22;
	__asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
}

static unsigned get_rounding(void)
{
	uint64_t fpcr;
	unsigned mode;

	__asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
	mode = fpcr >> 22 & 3;
	return mode == 1 ? 2 : mode == 2 ? 1 : mode;
}
#define ROUNDING(mode, unused)	(mode)
#define CAN_ROUND 1
#endif

#ifdef CAN_ROUND
/* Not inlined: the compiler thinks that a division can be moved past a change of the mode. */
static double __attribute__((__noinline__)) third(void)
{
	volatile double one = 1, three = 3;

	return one / three;
}

static void round_down(void *arg)
{
	struct pair *pair = arg;
	double down;

	pair->value = get_rounding();
	set_rounding(1, 3);
	down = third();
	gyre__fiber_switch(&pair->guest, &pair->host);
	pair->counted = get_rounding();
	pair->times = third() == down;
	gyre__fiber_exit_to(&pair->guest, &pair->host);
}
#endif

TEST(rounding_modes_are_each_fibers_own_and_begin_as_they_were_at_init)
{
#ifdef CAN_ROUND
	struct pair pair;
	double nearest, up;

	nearest = third();
	set_rounding(2, 1);
	up = third();
	expect(up >= nearest);		/* not >: valgrind always rounds to nearest */
	pair_open(&pair, STACK_SIZE, round_down);
	gyre__fiber_switch(&pair.host, &pair.guest);
	expect_eq(pair.value, ROUNDING(2, 1));
	expect_eq(get_rounding(), ROUNDING(2, 1));
	expect(third() == up);
	set_rounding(0, 0);
	gyre__fiber_switch(&pair.host, &pair.guest);
	expect_eq(pair.counted, ROUNDING(1, 3));
	expect(pair.times);
	expect_eq(get_rounding(), ROUNDING(0, 0));
	expect(third() == nearest);
	pair_close(&pair);
#else
	test_skip("this test knows the rounding modes of x86-64 and aarch64 only");
#endif
}

/* ------------------------------------------------------------- nesting -- */

#define DEPTH		3
#define NEST_TIMES	100

struct nest {
	unsigned level;
	struct gyre__fiber *self, *host;
	uint64_t *visits;	/* by level */
};

/* Hosts the next level as a thread would host it, then goes back, NEST_TIMES over. */
static void nest_main(void *arg)
{
	struct nest *nest = arg;
	struct gyre__fiber here, inner;
	struct nest below = { nest->level + 1, &inner, &here, nest->visits };
	char *stack = NULL;
	unsigned i;

	if (nest->level < DEPTH) {
		stack = map_stack(STACK_SIZE);
		gyre__fiber_init_thread(&here);
		gyre__fiber_init(&inner, stack, STACK_SIZE, nest_main, &below);
	}
	for (i = 0; i < NEST_TIMES; i++) {
		nest->visits[nest->level]++;
		if (stack)
			gyre__fiber_switch(&here, &inner);
		gyre__fiber_switch(nest->self, nest->host);
	}
	if (stack) {
		gyre__fiber_switch(&here, &inner);	/* to its end */
		gyre__fiber_done(&inner);
		gyre__fiber_done(&here);
		unmap_stack(stack, STACK_SIZE);
	}
	gyre__fiber_exit_to(nest->self, nest->host);
}

TEST(fibers_host_fibers_three_deep)
{
	uint64_t visits[DEPTH + 1] = { 0 };
	struct gyre__fiber here, inner;
	struct nest nest = { 1, &inner, &here, visits };
	char *stack = map_stack(STACK_SIZE);
	unsigned i;

	gyre__fiber_init_thread(&here);
	gyre__fiber_init(&inner, stack, STACK_SIZE, nest_main, &nest);
	for (i = 0; i < NEST_TIMES + 1; i++)
		gyre__fiber_switch(&here, &inner);
	for (i = 1; i <= DEPTH; i++)
		expect_eq(visits[i], NEST_TIMES);
	gyre__fiber_done(&inner);
	gyre__fiber_done(&here);
	unmap_stack(stack, STACK_SIZE);
}

/* A simulated thread, and a task on it that lets the simulator run. */
struct sim {
	struct gyre__fiber scheduler, thread;
	struct gyre__fiber worker, task;	/* worker names the same stack as thread */
	char *task_stack;
	unsigned turns;
	void *scheduler_id, *thread_id, *task_id;	/* as a sanitizer names them */
};

/* Frames worth poisoning. */
static unsigned use_frame(unsigned depth)
{
	volatile char frame[256];

	frame[0] = (char)depth;
	frame[sizeof(frame) - 1] = 1;
	return depth ? use_frame(depth - 1) + (unsigned)frame[sizeof(frame) - 1] : 0;
}

static void sim_task(void *arg)
{
	struct sim *sim = arg;
	unsigned i;

	for (i = 0; i < 10; i++) {
		expect_stack_is_known(&sim->task_id);
		expect_eq(use_frame(10), 10);
		/* The outer one, from here. */
		gyre__fiber_switch(&sim->thread, &sim->scheduler);
		expect_stack_is_known(&sim->task_id);
		sim->turns++;
		gyre__fiber_switch(&sim->task, &sim->worker);
	}
	gyre__fiber_exit_to(&sim->task, &sim->worker);
}

static void sim_thread(void *arg)
{
	struct sim *sim = arg;
	unsigned i;

	gyre__fiber_init_thread(&sim->worker);
	gyre__fiber_init(&sim->task, sim->task_stack, STACK_SIZE, sim_task, sim);
	for (i = 0; i < 11; i++) {
		expect_stack_is_known(&sim->thread_id);
		expect_eq(use_frame(10), 10);
		gyre__fiber_switch(&sim->worker, &sim->task);
	}
	gyre__fiber_done(&sim->task);
	gyre__fiber_done(&sim->worker);
	gyre__fiber_exit_to(&sim->thread, &sim->scheduler);
}

TEST(outer_fiber_left_from_within_an_inner_one_goes_on_there)
{
	char *stack = map_stack(STACK_SIZE);
	struct sim sim = { .task_stack = map_stack(STACK_SIZE) };
	unsigned i;

	gyre__fiber_init_thread(&sim.scheduler);
	gyre__fiber_init(&sim.thread, stack, STACK_SIZE, sim_thread, &sim);
	for (i = 0; i < 10; i++) {
		expect_stack_is_known(&sim.scheduler_id);
		gyre__fiber_switch(&sim.scheduler, &sim.thread);
		expect_eq(sim.turns, i);
	}
	gyre__fiber_switch(&sim.scheduler, &sim.thread);
	expect_stack_is_known(&sim.scheduler_id);
	expect_eq(sim.turns, 10);
	if (TEST_UNDER_TSAN) {
		expect(sim.scheduler_id != sim.thread_id);
		expect(sim.thread_id != sim.task_id);
		expect(sim.scheduler_id != sim.task_id);
	}
	gyre__fiber_done(&sim.thread);
	gyre__fiber_done(&sim.scheduler);
	unmap_stack(stack, STACK_SIZE);
	unmap_stack(sim.task_stack, STACK_SIZE);
}

/* ----------------------------------------------------------- many of them -- */

#define MANY	1000

struct crowd;

struct member {
	struct gyre__fiber fiber;
	struct crowd *crowd;
	unsigned nth;
	uint64_t visits;
};

struct crowd {
	struct gyre__fiber host;
	struct member *members;
	unsigned count, rounds;
	uint64_t order;		/* a checksum of who ran after whom */
};

static struct gyre__fiber *crowd_next(struct crowd *crowd, unsigned nth)
{
	return nth + 1 < crowd->count ? &crowd->members[nth + 1].fiber : &crowd->host;
}

static void take_turns(void *arg)
{
	struct member *member = arg;
	struct crowd *crowd = member->crowd;
	unsigned i;

	for (i = 1;; i++) {
		member->visits++;
		crowd->order = crowd->order * 31 + member->nth;
		if (i == crowd->rounds)
			gyre__fiber_exit_to(&member->fiber, crowd_next(crowd, member->nth));
		gyre__fiber_switch(&member->fiber, crowd_next(crowd, member->nth));
	}
}

TEST(a_thousand_fibers_take_turns)
{
	struct crowd crowd = { .count = MANY, .rounds = test_times(50) };
	char *stacks = map_stack(MANY * SMALL_STACK);
	uint64_t order = 0;
	unsigned i, j;

	crowd.members = calloc(MANY, sizeof(*crowd.members));
	gyre__fiber_init_thread(&crowd.host);
	for (i = 0; i < MANY; i++) {
		crowd.members[i].crowd = &crowd;
		crowd.members[i].nth = i;
		gyre__fiber_init(&crowd.members[i].fiber, stacks + i * SMALL_STACK, SMALL_STACK,
				 take_turns, &crowd.members[i]);
	}
	for (j = 0; j < crowd.rounds; j++) {
		gyre__fiber_switch(&crowd.host, &crowd.members[0].fiber);
		for (i = 0; i < MANY; i++)
			order = order * 31 + i;
	}
	expect_eq(crowd.order, order);
	for (i = 0; i < MANY; i++) {
		expect_eq(crowd.members[i].visits, crowd.rounds);
		gyre__fiber_done(&crowd.members[i].fiber);
	}
	gyre__fiber_done(&crowd.host);
	free(crowd.members);
	unmap_stack(stacks, MANY * SMALL_STACK);
}

/* Each starts the next on its way, and the last one goes home. */
struct chain {
	struct gyre__fiber host, links[8];
	char *stacks;
	unsigned started;
};

static void start_next(void *arg)
{
	struct chain *chain = arg;
	unsigned self = chain->started++;

	if (self + 1 == 8)
		gyre__fiber_exit_to(&chain->links[self], &chain->host);
	gyre__fiber_init(&chain->links[self + 1], chain->stacks + (self + 1) * STACK_SIZE,
			 STACK_SIZE, start_next, chain);
	gyre__fiber_exit_to(&chain->links[self], &chain->links[self + 1]);
}

TEST(fibers_are_started_by_fibers)
{
	struct chain chain = { .stacks = map_stack(8 * STACK_SIZE) };
	unsigned i;

	gyre__fiber_init_thread(&chain.host);
	gyre__fiber_init(&chain.links[0], chain.stacks, STACK_SIZE, start_next, &chain);
	gyre__fiber_switch(&chain.host, &chain.links[0]);
	expect_eq(chain.started, 8);
	for (i = 0; i < 8; i++)
		gyre__fiber_done(&chain.links[i]);
	gyre__fiber_done(&chain.host);
	unmap_stack(chain.stacks, 8 * STACK_SIZE);
}

static void *run_crowd(void *arg)
{
	struct crowd *crowd = arg;
	char *stacks = map_stack(crowd->count * SMALL_STACK);
	unsigned i, j;

	gyre__fiber_init_thread(&crowd->host);
	for (i = 0; i < crowd->count; i++) {
		crowd->members[i].crowd = crowd;
		crowd->members[i].nth = i;
		gyre__fiber_init(&crowd->members[i].fiber, stacks + i * SMALL_STACK, SMALL_STACK,
				 take_turns, &crowd->members[i]);
	}
	for (j = 0; j < crowd->rounds; j++)
		gyre__fiber_switch(&crowd->host, &crowd->members[0].fiber);
	for (i = 0; i < crowd->count; i++)
		gyre__fiber_done(&crowd->members[i].fiber);
	gyre__fiber_done(&crowd->host);
	unmap_stack(stacks, crowd->count * SMALL_STACK);
	return NULL;
}

#ifdef CAN_ROUND
/* One after the other on one stack, of which only the first was made. */
struct followers {
	struct pair pair;
	struct gyre__fiber second;
	struct gyre__fiber_control control;
};

static void followed(void *arg)
{
	struct followers *followers = arg;
	struct pair *pair = &followers->pair;

	gyre__fiber_switch(&pair->guest, &pair->host);
	set_rounding(1, 3);
	pair->value++;
	gyre__fiber_follow(&pair->guest, &followers->second, &followers->control);
	pair->guest.sp = NULL;
	pair->counted = get_rounding();
	for (;;) {
		gyre__fiber_switch(&followers->second, &pair->host);
		if (++pair->times == 3)
			gyre__fiber_exit_to(&followers->second, &pair->host);
	}
}

TEST(who_follows_on_a_stack_goes_on_there_and_is_switched_to_by_its_own_name)
{
	static struct followers followers;
	struct pair *pair = &followers.pair;
	unsigned i;

	if (!gyre__fiber_control_get(&followers.control))
		test_skip("here, only who is made has control words of its own");
	pair_open(pair, STACK_SIZE, followed);
	pair->guest.arg = &followers;
	gyre__fiber_switch(&pair->host, &pair->guest);
	set_rounding(2, 1);
	gyre__fiber_control_get(&followers.control);
	set_rounding(0, 0);
	gyre__fiber_switch(&pair->host, &pair->guest);
	expect_eq(pair->value, 1);
	expect_eq(pair->counted, ROUNDING(2, 1));
	for (i = 0; i < 3; i++)
		gyre__fiber_switch(&pair->host, &followers.second);
	expect_eq(pair->times, 3);
	expect_eq(get_rounding(), ROUNDING(0, 0));
	gyre__fiber_done(&followers.second);
	gyre__fiber_done(&pair->host);
	unmap_stack(pair->stack, pair->size);
}
#endif

TEST(two_threads_have_fibers_of_their_own_at_once)
{
	struct member members[2][20];
	struct crowd crowds[2];
	pthread_t threads[2];
	unsigned i, j;

	memset(members, 0, sizeof(members));
	for (i = 0; i < 2; i++) {
		crowds[i] = (struct crowd){ .members = members[i], .count = 20,
					    .rounds = test_times(10000) };
		expect_eq(pthread_create(&threads[i], NULL, run_crowd, &crowds[i]), 0);
	}
	for (i = 0; i < 2; i++)
		expect_eq(pthread_join(threads[i], NULL), 0);
	expect_eq(crowds[0].order, crowds[1].order);
	for (i = 0; i < 2; i++)
		for (j = 0; j < 20; j++)
			expect_eq(members[i][j].visits, crowds[i].rounds);
}

/* ----------------------------------------------------------- their stacks -- */

static void leave_a_mess(void *arg)
{
	struct pair *pair = arg;
	char frame[1000];

	memset(frame, (int)pair->value, sizeof(frame));
	pair->ptr = frame;
	pair->value++;
	gyre__fiber_exit_to(&pair->guest, &pair->host);
}

TEST(stack_is_free_as_soon_as_its_fiber_has_exited)
{
	unsigned times = test_times(5000), i;
	struct pair pair;

	pair_open(&pair, STACK_SIZE, leave_a_mess);
	for (i = 0; i < times; i++) {
		gyre__fiber_switch(&pair.host, &pair.guest);
		gyre__fiber_done(&pair.guest);
		memset(pair.stack, 0xa5, i % 64 ? 4096 : pair.size);
		memset(&pair.guest, 0xa5, sizeof(pair.guest));
		gyre__fiber_init(&pair.guest, pair.stack, pair.size - 8 * (i % 5), leave_a_mess,
				 &pair);
	}
	expect_eq(pair.value, times);
	pair_close(&pair);
}

static void wait_with_a_frame(void *arg)
{
	struct pair *pair = arg;
	char frame[3000];

	memset(frame, 1, sizeof(frame));
	pair->ptr = frame;
	gyre__fiber_switch(&pair->guest, &pair->host);
	test_fail("nobody switches to an abandoned fiber");
}

static void fill_the_stack(void *arg)
{
	struct pair *pair = arg;
	char *frame = __builtin_frame_address(0);

	/* By libc, which a sanitizer looks over the shoulder of. */
	memset(pair->stack, 0, (size_t)(frame - pair->stack) - 4096);
	gyre__fiber_exit_to(&pair->guest, &pair->host);
}

TEST(stack_of_an_abandoned_fiber_is_as_good_as_new)
{
	struct pair pair;

	pair_open(&pair, STACK_SIZE, wait_with_a_frame);
	gyre__fiber_switch(&pair.host, &pair.guest);
	expect(pair.ptr);
	gyre__fiber_done(&pair.guest);
	gyre__fiber_init(&pair.guest, pair.stack, pair.size, fill_the_stack, &pair);
	gyre__fiber_switch(&pair.host, &pair.guest);
	pair_close(&pair);
}

static unsigned sink_to(volatile char *floor)
{
	volatile char frame[512];

	frame[0] = 1;
	if ((uintptr_t)__builtin_frame_address(0) < (uintptr_t)floor)
		return (unsigned)frame[0];
	return sink_to(floor) + (unsigned)frame[0];
}

static void sink(void *arg)
{
	struct pair *pair = arg;

	pair->value = sink_to(pair->stack + pair->size / 4);
	gyre__fiber_switch(&pair->guest, &pair->host);
	pair->value += sink_to(pair->stack + pair->size / 4);
	gyre__fiber_exit_to(&pair->guest, &pair->host);
}

TEST(deep_recursion_stays_within_the_stack)
{
	enum { margin = 4096, size = 1024 * 1024 };
	char *room = map_stack(size + 2 * margin);
	struct pair pair = { .stack = room + margin, .size = size };
	unsigned i;

	memset(room, 0x5a, margin);
	memset(room + margin + size, 0x5a, margin);
	gyre__fiber_init_thread(&pair.host);
	gyre__fiber_init(&pair.guest, pair.stack, pair.size, sink, &pair);
	gyre__fiber_switch(&pair.host, &pair.guest);
	expect_gt(pair.value, 100);
	gyre__fiber_switch(&pair.host, &pair.guest);
	for (i = 0; i < margin; i++) {
		expect_eq(room[i], 0x5a);
		expect_eq(room[margin + size + i], 0x5a);
	}
	gyre__fiber_done(&pair.guest);
	gyre__fiber_done(&pair.host);
	unmap_stack(room, size + 2 * margin);
}

static char text[128];

static void print_all(const char *format, ...)
	__attribute__((__noinline__, __format__(__printf__, 1, 2)));

static void print_all(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
}

static void print_doubles(void *arg)
{
	struct pair *pair = arg;
	_Alignas(16) volatile char aligned[16];

	pair->counted = (long long)((uintptr_t)aligned & 15);
	print_all("%.3f %d %.1Lf %g %g %g %g %g %g %g", 1.5, 7, 2.5L, 1., 2., 3., 4., 5., 6., 7.25);
	gyre__fiber_exit_to(&pair->guest, &pair->host);
}

TEST(stack_is_aligned_for_varargs_and_vectors_however_it_was_given)
{
	char *room = map_stack(STACK_SIZE + 64);
	struct pair pair;
	unsigned i;

	memset(&pair, 0, sizeof(pair));
	gyre__fiber_init_thread(&pair.host);
	for (i = 0; i < 33; i++) {
		test_row("%u past alignment", i);
		pair.stack = room + i;
		gyre__fiber_init(&pair.guest, pair.stack, STACK_SIZE, print_doubles, &pair);
		memset(text, 0, sizeof(text));
		gyre__fiber_switch(&pair.host, &pair.guest);
		gyre__fiber_done(&pair.guest);
		expect_eq(pair.counted, 0);
		expect_str(text, "1.500 7 2.5 1 2 3 4 5 6 7.25");
	}
	gyre__fiber_done(&pair.host);
	unmap_stack(room, STACK_SIZE + 64);
}

/* -------------------------------------------------------------- backtraces -- */

#define FRAMES_MAX	64

/* It opens a library for that at its first call, which is no leak of a test's. */
__attribute__((__constructor__)) static void learn_to_walk(void)
{
	void *frames[FRAMES_MAX];

	backtrace(frames, FRAMES_MAX);
}

static int __attribute__((__noinline__)) frames_from(volatile unsigned depth)
{
	void *frames[FRAMES_MAX];
	volatile int count = depth ? frames_from(depth - 1) : backtrace(frames, FRAMES_MAX);

	return count;
}

static void walk_the_stack(void *arg)
{
	struct pair *pair = arg;

	pair->counted = frames_from(0);
	pair->value = (uint64_t)frames_from(10);
	gyre__fiber_exit_to(&pair->guest, &pair->host);
}

static int __attribute__((__noinline__)) walk_from(struct pair *pair, volatile unsigned depth)
{
	volatile int count = 0;

	if (depth)
		count = walk_from(pair, depth - 1);
	else
		gyre__fiber_switch(&pair->host, &pair->guest);
	return count;
}

TEST(backtrace_ends_where_its_fiber_began)
{
	struct pair pair;

	pair_open(&pair, STACK_SIZE, walk_the_stack);
	walk_from(&pair, 20);
	/* walk_the_stack, frames_from, and what the switch adds: none of walk_from's twenty. */
	expect_ge(pair.counted, 3);
	expect_le(pair.counted, 8);
	expect_eq(pair.value, pair.counted + 10);
	pair_close(&pair);
}

/* -------------------------------------------------------------------- time -- */

static void bounce(void *arg)
{
	struct pair *pair = arg;

	for (;;)
		gyre__fiber_switch(&pair->guest, &pair->host);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

TEST(price_of_a_switch_is_told)
{
	unsigned times = test_times(1000000), lives = test_times(10000), i;
	double began, took;
	struct pair pair;

	pair_open(&pair, STACK_SIZE, bounce);
	gyre__fiber_switch(&pair.host, &pair.guest);
	began = now();
	for (i = 0; i < times; i++)
		gyre__fiber_switch(&pair.host, &pair.guest);
	took = now() - began;
	test_note("a pair of switches: %.1f ns", took / times);
	gyre__fiber_done(&pair.guest);

	gyre__fiber_init(&pair.guest, pair.stack, pair.size, exit_at_once, &pair);
	began = now();
	for (i = 0; i < lives; i++) {
		gyre__fiber_switch(&pair.host, &pair.guest);
		gyre__fiber_done(&pair.guest);
		gyre__fiber_init(&pair.guest, pair.stack, pair.size, exit_at_once, &pair);
	}
	took = now() - began;
	test_note("a whole life: %.1f ns", took / lives);
	pair_close(&pair);
}

/* -------------------------------------------------------- a harness, alone -- */

#ifdef TEST_FIBER_ALONE
#include <sys/wait.h>
#include <unistd.h>

static struct test *first_test, **last_test = &first_test;

void test_register(struct test *test)
{
	*last_test = test;
	last_test = &test->next;
}

static void say(const char *format, va_list args) __attribute__((__format__(__printf__, 1, 0)));

static void say(const char *format, va_list args)
{
	printf("# ");
	vprintf(format, args);
	printf("\n");
	fflush(stdout);
}

void test_fail_at(const char *file, int line, const char *format, ...)
{
	va_list args;

	printf("# %s:%d:\n", file, line);
	va_start(args, format);
	say(format, args);
	va_end(args);
	_exit(1);
}

void test_note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
}

void test_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
	_exit(0);
}

void test_row(const char *format, ...)
{
	(void)format;
}

/* An emulator is slow. */
unsigned test_times(unsigned count)
{
	return count / 10 + 1;
}

void test_expect_str_at(const char *file, int line, const char *what, const char *got,
			const char *want)
{
	if (strcmp(got, want) != 0)
		test_fail_at(file, line, "%s is \"%s\", expected \"%s\"", what, got, want);
}

void gyre__assert_failed(const char *cond, const char *file, int line)
{
	test_fail_at(file, line, "assert: %s", cond);
}

/* Each test in a process of its own. */
int test_main(const char *file)
{
	unsigned count = 0, failed = 0;
	struct test *test;
	int status;

	(void)file;
	for (test = first_test; test; test = test->next) {
		fflush(stdout);
		if (fork() == 0) {
			test->fn();
			_exit(0);
		}
		if (wait(&status) < 0)
			status = -1;
		count++;
		failed += status != 0;
		printf("%s %u - %s\n", status ? "not ok" : "ok", count, test->name);
	}
	printf("1..%u\n", count);
	return failed != 0;
}
#endif

TEST_MAIN()
