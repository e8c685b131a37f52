/* SPDX-License-Identifier: MIT */
/*
 * Stacks: what they give, what they cost, what lies below them, and what becomes
 * of the memory of those that are idle.
 */
#define _GNU_SOURCE
#include "workers/stack.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"
#include "workers/fiber.h"

#define KIB	((size_t)1 << 10)
#define MIB	((size_t)1 << 20)
#define GIB	((size_t)1 << 30)
#define USUAL	(64 * KIB)
#define PAGE	((size_t)sysconf(_SC_PAGESIZE))

static size_t usable(const struct gyre__stack *stack)
{
	return (size_t)((const char *)stack - (const char *)stack->base);
}

static char *top_page(const struct gyre__stack *stack)
{
	return (char *)((uintptr_t)stack & -(uintptr_t)PAGE);
}

/* Bytes of a line of /proc/self/statm: 0 is address space, 1 what lies in memory. */
static size_t statm(unsigned field)
{
	unsigned long value[2];
	FILE *file = fopen("/proc/self/statm", "re");

	expect(file);
	expect_eq(fscanf(file, "%lu %lu", &value[0], &value[1]), 2);
	fclose(file);
	return value[field] * PAGE;
}

static unsigned mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned count = 0;
	int c;

	expect(file);
	while ((c = getc(file)) != EOF)
		count += c == '\n';
	fclose(file);
	return count;
}

/* 0: unknown. */
static unsigned mappings_max(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned max = 0;

	if (!file)
		return 0;
	expect_eq(fscanf(file, "%u", &max), 1);
	fclose(file);
	return max;
}

static size_t in_memory(const struct gyre__stack *stack, size_t size)
{
	size_t count = 0, i, pages = size / PAGE;
	unsigned char *vec = malloc(pages);

	expect(vec);
	expect_eq(mincore(stack->base, size, vec), 0);
	for (i = 0; i < pages; i++)
		count += vec[i] & 1;
	free(vec);
	return count * PAGE;
}

/* Whether this kernel has guards that split no mapping. */
static bool has_guards(void)
{
	struct gyre__stacks stacks;

	gyre__stacks_init(&stacks);
	gyre__stack_put(&stacks, gyre__stack_get(&stacks, USUAL));
	gyre__stacks_done(&stacks);
	return !stacks.guards_refused;
}

/* Writes to each page that lies less than so many bytes below the record. */
static void use(struct gyre__stack *stack, size_t bytes)
{
	char *at = (char *)stack - 1;

	for (; at >= (char *)stack->base && (size_t)((char *)stack - at) <= bytes; at -= PAGE)
		*(volatile char *)at = 1;
	if (bytes >= usable(stack))
		*(volatile char *)stack->base = 1;
}

/* ------------------------------------------------------------------ sizes -- */

TEST(a_stack_has_what_was_asked_for_less_its_overhead)
{
	static const size_t sizes[] = {
		1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 32 * KIB, 40000, 64 * KIB, 65537, MIB,
		8 * MIB, 100 * MIB, GIB - 1, GIB,
	};
	struct gyre__stacks stacks;
	struct gyre__stack *stack;
	unsigned i;

	gyre__stacks_init(&stacks);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		test_row("%zu bytes", sizes[i]);
		stack = gyre__stack_get(&stacks, sizes[i]);
		expect(stack);
		expect_eq((uintptr_t)stack % GYRE__STACK_COLOUR_BYTES, 0);
		expect_eq((uintptr_t)stack->base % PAGE, 0);
		expect_ge(usable(stack) + GYRE__STACK_OVERHEAD_MAX, sizes[i]);
		if (sizes[i] > 16 * KIB)
			expect_lt(usable(stack), 2 * sizes[i]);
		*(char *)stack->base = 1;
		*((char *)stack - 1) = 1;
		gyre__stack_put(&stacks, stack);
	}
	gyre__stacks_done(&stacks);
}

TEST(a_size_that_cannot_be_had_gives_NULL)
{
	static const size_t sizes[] = { GIB + 1, 2 * GIB, SIZE_MAX / 2, SIZE_MAX - 1, SIZE_MAX };
	struct gyre__stacks stacks;
	unsigned i;

	gyre__stacks_init(&stacks);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		test_row("%zu bytes", sizes[i]);
		expect(!gyre__stack_get(&stacks, sizes[i]));
	}
	gyre__stacks_done(&stacks);
}

TEST(sizes_of_one_class_share_their_stacks_and_others_do_not)
{
	struct gyre__stacks stacks;
	struct gyre__stack *stack;

	gyre__stacks_init(&stacks);
	stack = gyre__stack_get(&stacks, 40000);
	gyre__stack_put(&stacks, stack);
	expect(gyre__stack_get(&stacks, USUAL) == stack);
	gyre__stack_put(&stacks, stack);
	gyre__stack_put(&stacks, gyre__stack_get(&stacks, USUAL + 1));
	expect(gyre__stack_get(&stacks, 33 * KIB) == stack);
	gyre__stack_put(&stacks, stack);
	gyre__stacks_done(&stacks);
}

TEST(nothing_is_mapped_before_the_first_stack)
{
	size_t before = statm(0);
	struct gyre__stacks stacks;

	gyre__stacks_init(&stacks);
	expect_eq(statm(0), before);
	gyre__stacks_done(&stacks);
}

TEST(the_stack_that_was_used_last_is_given_out_first)
{
	struct gyre__stack *stack[3];
	struct gyre__stacks stacks;
	unsigned i;

	gyre__stacks_init(&stacks);
	for (i = 0; i < 3; i++)
		stack[i] = gyre__stack_get(&stacks, USUAL);
	for (i = 0; i < 3; i++)
		gyre__stack_put(&stacks, stack[i]);
	for (i = 3; i-- > 0;)
		expect(gyre__stack_get(&stacks, USUAL) == stack[i]);
	for (i = 0; i < 3; i++)
		gyre__stack_put(&stacks, stack[i]);
	gyre__stacks_done(&stacks);
}

TEST(neighbours_have_their_records_at_different_places)
{
	struct gyre__stack *stack[GYRE__STACK_COLOURS];
	bool seen[GYRE__STACK_COLOURS] = { false };
	struct gyre__stacks stacks;
	size_t below_top;
	unsigned i;

	gyre__stacks_init(&stacks);
	for (i = 0; i < GYRE__STACK_COLOURS; i++) {
		stack[i] = gyre__stack_get(&stacks, USUAL);
		below_top = PAGE - (uintptr_t)stack[i] % PAGE;
		expect_le(below_top, GYRE__STACK_OVERHEAD_MAX);
		seen[below_top / GYRE__STACK_COLOUR_BYTES - 1] = true;
	}
	for (i = 0; i < GYRE__STACK_COLOURS; i++) {
		expect(seen[i]);
		gyre__stack_put(&stacks, stack[i]);
	}
	gyre__stacks_done(&stacks);
}

TEST(counters_tell_who_is_out_and_who_is_idle)
{
	enum { COUNT = GYRE__STACKS_HOT_MAX + 10 };
	struct gyre__stack *stack[COUNT];
	struct gyre__stacks stacks;
	unsigned i;

	gyre__stacks_init(&stacks);
	for (i = 0; i < COUNT; i++)
		stack[i] = gyre__stack_get(&stacks, USUAL);
	expect_eq(stacks.live, COUNT);
	expect_eq(stacks.cached, 0);
	for (i = 0; i < COUNT; i++)
		gyre__stack_put(&stacks, stack[i]);
	expect_eq(stacks.live, 0);
	expect_eq(stacks.cached, GYRE__STACKS_HOT_MAX);
	for (i = 0; i < COUNT; i++)
		stack[i] = gyre__stack_get(&stacks, USUAL);
	expect_eq(stacks.live, COUNT);
	expect_eq(stacks.cached, 0);
	for (i = 0; i < COUNT; i++)
		gyre__stack_put(&stacks, stack[i]);
	gyre__stacks_done(&stacks);
}

TEST(promised_stacks_are_there_whatever_fails_then_and_cost_no_memory_before)
{
	enum { COUNT = 100 };
	unsigned class = gyre__stack_class_of(USUAL), i;
	struct gyre__stack *stack[COUNT];
	struct gyre__stacks stacks;
	size_t before;

	gyre__fault_install();
	gyre__stacks_init(&stacks);
	expect(gyre__stack_promise(&stacks, class));
	before = statm(1);
	for (i = 1; i < COUNT; i++)
		expect(gyre__stack_promise(&stacks, class));
	expect_lt(statm(1) - before, COUNT / 2 * PAGE);
	expect_eq(stacks.live, 0);
	gyre__fault_set(GYRE__FAULT_mmap, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	gyre__fault_set(GYRE__FAULT_madvise, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	gyre__fault_set(GYRE__FAULT_mprotect, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	expect(!gyre__stack_promise(&stacks, class));
	for (i = 0; i < COUNT; i++) {
		stack[i] = gyre__stack_take(&stacks, class);
		expect_eq(stacks.live, i + 1);
		*(volatile char *)stack[i]->base = 1;
	}
	/* What comes back, or is not wanted, may be promised again. */
	gyre__stack_put(&stacks, stack[0]);
	expect(gyre__stack_promise(&stacks, class));
	expect(!gyre__stack_promise(&stacks, class));
	gyre__stack_unpromise(&stacks, class);
	expect(gyre__stack_get(&stacks, USUAL) == stack[0]);
	for (i = 0; i < COUNT; i++)
		gyre__stack_put(&stacks, stack[i]);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

TEST(a_stack_is_passed_on_unless_it_is_to_be_looked_at_or_cleared_or_of_another_size)
{
	unsigned class = gyre__stack_class_of(USUAL), times;
	struct gyre__stacks stacks;
	struct gyre__stack *stack;

	gyre__stacks_init(&stacks);
	stack = gyre__stack_get(&stacks, USUAL);
	expect(!gyre__stack_pass_on(&stacks, stack, class + 1));
	for (times = 1; gyre__stack_pass_on(&stacks, stack, class); times++)
		;
	expect_eq(times, GYRE__STACK_LOOK_EVERY);
	expect_eq(stacks.high_water, 0);
	gyre__stack_put(&stacks, stack);
	expect_gt(stacks.high_water, 0);
	stack = gyre__stack_get(&stacks, USUAL);
	expect(gyre__stack_pass_on(&stacks, stack, class));
	stacks.zero = true;
	expect(!gyre__stack_pass_on(&stacks, stack, class));
	gyre__stack_put(&stacks, stack);
	gyre__stacks_done(&stacks);
}

static void end_with_one_out(void *arg)
{
	gyre__stack_get(arg, USUAL);
	gyre__stacks_done(arg);
}

TEST(who_ends_with_a_stack_still_out_is_told_by_an_assert)
{
	struct gyre__stacks stacks;

	gyre__stacks_init(&stacks);
	test_asserts(end_with_one_out, &stacks);
	gyre__stacks_done(&stacks);
}

/* ----------------------------------------------------------------- guards -- */

/* Where a child died, or 0. */
struct death {
	uintptr_t address;
};

static struct death *death;

static void note_death(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	death->address = (uintptr_t)info->si_addr;
	_exit(SIGSEGV);
}

/* Runs fn(arg) in a child: the address that it died of touching, 0 if it came to its end. */
static uintptr_t dies_at(void (*fn)(void *arg), void *arg)
{
	struct sigaction action = { .sa_sigaction = note_death,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK };
	static char other_stack[64 << 10];
	stack_t alternative = { .ss_sp = other_stack, .ss_size = sizeof(other_stack) };
	uintptr_t address;
	int wait_status;
	pid_t pid;

	death = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect(death != MAP_FAILED);
	pid = fork();
	expect_ge(pid, 0);
	if (pid == 0) {
		test_limit(RLIMIT_CORE, 0);
		sigaltstack(&alternative, NULL);
		sigaction(SIGSEGV, &action, NULL);
		sigaction(SIGBUS, &action, NULL);
		fn(arg);
		_exit(0);
	}
	expect_eq(waitpid(pid, &wait_status, 0), pid);
	expect(WIFEXITED(wait_status));
	address = death->address;
	expect_eq(WEXITSTATUS(wait_status), address ? SIGSEGV : 0);
	munmap(death, PAGE);
	return address;
}

static void touch(void *ptr)
{
	*(volatile char *)ptr = 1;
}

static void look_at(void *ptr)
{
	(void)*(volatile char *)ptr;
}

/* Two neighbours, the second of them above the first. */
static void check_guards(struct gyre__stacks *stacks)
{
	struct gyre__stack *below = gyre__stack_get(stacks, USUAL);
	struct gyre__stack *above = gyre__stack_get(stacks, USUAL);
	char *base = above->base;

	expect_lt((uintptr_t)below, (uintptr_t)above);
	expect_eq(base - (char *)below->base, USUAL + GYRE__STACK_FRAME_MAX + PAGE);
	expect_eq(dies_at(touch, base - 1), (uintptr_t)base - 1);
	expect_eq(dies_at(look_at, base - 1), (uintptr_t)base - 1);
	expect_eq(dies_at(touch, base - GYRE__STACK_FRAME_MAX - PAGE),
		  (uintptr_t)base - GYRE__STACK_FRAME_MAX - PAGE);
	expect_eq(dies_at(touch, (char *)below->base - 1), (uintptr_t)below->base - 1);
	expect_eq(dies_at(touch, base), 0);
	expect_eq(dies_at(touch, (char *)below - 1), 0);
	gyre__stack_put(stacks, below);
	gyre__stack_put(stacks, above);
}

TEST(a_guard_of_64_KiB_and_a_page_lies_below_each_stack)
{
	struct gyre__stacks stacks;

	gyre__stacks_init(&stacks);
	check_guards(&stacks);
	gyre__stacks_done(&stacks);
}

TEST(where_the_kernel_knows_no_guards_mprotect_makes_them)
{
	struct gyre__stacks stacks;

	gyre__fault_install();
	gyre__fault_set(GYRE__FAULT_madvise, 0, GYRE__FAULT_FOREVER, -EINVAL);
	gyre__stacks_init(&stacks);
	check_guards(&stacks);
	/* It is asked once, and for the huge pages of the slab. */
	expect_eq(gyre__fault_hits(GYRE__FAULT_madvise), 2);
	expect_eq(gyre__fault_count(GYRE__FAULT_mprotect), 2);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

TEST(a_guard_that_is_refused_once_for_want_of_memory_is_no_old_kernel)
{
	struct gyre__stacks stacks;
	struct gyre__stack *stack[2];

	if (!has_guards())
		test_skip("this kernel has no MADV_GUARD_INSTALL");
	gyre__fault_install();
	gyre__fault_set(GYRE__FAULT_madvise, 1, 1, -ENOMEM);
	gyre__stacks_init(&stacks);
	stack[0] = gyre__stack_get(&stacks, USUAL);
	stack[1] = gyre__stack_get(&stacks, USUAL);
	expect_eq(gyre__fault_hits(GYRE__FAULT_madvise), 1);
	expect_eq(gyre__fault_count(GYRE__FAULT_mprotect), 1);
	expect_eq(dies_at(touch, (char *)stack[0]->base - 1), (uintptr_t)stack[0]->base - 1);
	expect_eq(dies_at(touch, (char *)stack[1]->base - 1), (uintptr_t)stack[1]->base - 1);
	gyre__stack_put(&stacks, stack[0]);
	gyre__stack_put(&stacks, stack[1]);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

TEST(a_guard_is_still_there_when_its_stack_was_given_back_and_taken_again)
{
	struct gyre__stacks stacks;
	struct gyre__stack *stack;
	char *base;

	gyre__stacks_init(&stacks);
	stack = gyre__stack_get(&stacks, 32 * MIB);
	base = stack->base;
	use(stack, 32 * MIB);
	gyre__stack_put(&stacks, stack);
	expect_eq(stacks.cached, 0);
	stack = gyre__stack_get(&stacks, 32 * MIB);
	expect(stack->base == base);
	expect_eq(dies_at(touch, base - 1), (uintptr_t)base - 1);
	expect_eq(dies_at(touch, base), 0);
	gyre__stack_put(&stacks, stack);
	gyre__stacks_done(&stacks);
}

/*
 * A frame of 64 KiB, whose lowest bytes are what it touches first: as a compiler
 * lays it out that does not probe page by page.
 */
#if defined(__x86_64__) || defined(__aarch64__)
struct dive {
	struct gyre__fiber host, guest;
	char *base;
	size_t left;
};

__attribute__((__noinline__)) static void step_over_a_page(void)
{
#if defined(__x86_64__)
	__asm__ volatile("movb $1, -65536(%%rsp)" : : : "memory");
#else
	__asm__ volatile("sub x9, sp, #65536\n\tstrb wzr, [x9]" : : : "x9", "memory");
#endif
}

/* Goes down in small frames until less than left bytes are there. */
__attribute__((__noinline__)) static void go_down(struct dive *dive)
{
	volatile char frame[512];

	frame[0] = 1;
	if ((char *)frame - dive->base > (ptrdiff_t)dive->left)
		go_down(dive);
	else
		step_over_a_page();
	frame[1] = frame[0];
}

static void dive_main(void *arg)
{
	struct dive *dive = arg;

	go_down(dive);
	gyre__fiber_exit_to(&dive->guest, &dive->host);
}

static void run_dive(void *arg)
{
	struct dive *dive = arg;

	gyre__fiber_switch(&dive->host, &dive->guest);
}

static uintptr_t dive_to(struct gyre__stack *stack, size_t left)
{
	struct dive dive = { .base = stack->base, .left = left };
	uintptr_t address;

	gyre__fiber_init_thread(&dive.host);
	gyre__fiber_init(&dive.guest, stack->base, usable(stack), dive_main, &dive);
	address = dies_at(run_dive, &dive);
	gyre__fiber_done(&dive.guest);
	gyre__fiber_done(&dive.host);
	return address;
}

TEST(a_frame_of_64_KiB_that_is_not_probed_hits_the_guard)
{
	struct gyre__stack *below, *above;
	struct gyre__stacks stacks;
	size_t left;

	if (TEST_UNDER_SANITIZER)
		test_skip("frames and signal stacks are others under a sanitizer");
	gyre__stacks_init(&stacks);
	below = gyre__stack_get(&stacks, 256 * KIB);
	above = gyre__stack_get(&stacks, 256 * KIB);
	for (left = 2 * KIB; left < 60 * KIB; left += 3 * KIB + 16) {
		uintptr_t address = dive_to(above, left);

		test_row("%zu bytes left", left);
		expect_lt(address, (uintptr_t)above->base);
		expect_gt(address, (uintptr_t)below + GYRE__STACK_OVERHEAD_MAX);
	}
	expect_eq(dive_to(above, 66 * KIB), 0);
	gyre__stack_put(&stacks, below);
	gyre__stack_put(&stacks, above);
	gyre__stacks_done(&stacks);
}
#endif

/* ----------------------------------------------------------------- memory -- */

TEST(a_stack_that_nobody_has_used_costs_one_page)
{
	enum { COUNT = 2000 };
	struct gyre__stack **stack = calloc(COUNT, sizeof(*stack));
	struct gyre__stacks stacks;
	unsigned i;

	expect(stack);
	gyre__stacks_init(&stacks);
	for (i = 0; i < COUNT; i++) {
		stack[i] = gyre__stack_get(&stacks, USUAL);
		expect(stack[i]);
		*((char *)stack[i] - 1) = 1;
	}
	for (i = 0; i < COUNT; i++)
		expect_eq(in_memory(stack[i], USUAL), PAGE);
	for (i = 0; i < COUNT; i++)
		gyre__stack_put(&stacks, stack[i]);
	gyre__stacks_done(&stacks);
	free(stack);
}

static void get_many(struct gyre__stacks *stacks, struct gyre__stack **stack, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		stack[i] = gyre__stack_get(stacks, USUAL);
		if (!stack[i])
			test_fail("no stack after %u", i);
		*((char *)stack[i] - 1) = 1;
	}
}

TEST(many_stacks_live_at_once_and_give_their_memory_back)
{
	unsigned count = TEST_UNDER_SANITIZER ? 20000 : 100000, i;
	size_t before, used, after, space;
	struct gyre__stack **stack;
	struct gyre__stacks stacks;
	unsigned maps;

	if (!has_guards())
		test_skip("this kernel has no MADV_GUARD_INSTALL");
	stack = malloc(count * sizeof(*stack));
	expect(stack);
	memset(stack, 0, count * sizeof(*stack));
	gyre__stacks_init(&stacks);
	maps = mappings();
	before = statm(1);
	get_many(&stacks, stack, count);
	used = statm(1) - before;
	space = statm(0);
	expect_ge(used, count * PAGE);
	if (!TEST_UNDER_SANITIZER)	/* which has a shadow of it */
		expect_lt(used, count * PAGE + count * PAGE / 4);
	if (!TEST_UNDER_SANITIZER)
		expect_lt(mappings(), maps + count / 400 + 16);
	for (i = 0; i < count; i++)
		gyre__stack_put(&stacks, stack[i]);
	after = statm(1) - before;
	if (!TEST_UNDER_SANITIZER)
		expect_lt(after, 4 * MIB + GYRE__STACKS_HOT_MAX * PAGE);
	/* And again, with some of what was given back. */
	count = GYRE__STACKS_HOT_MAX + 1000;
	get_many(&stacks, stack, count);
	expect_eq(statm(0), space);
	for (i = 0; i < count; i++)
		gyre__stack_put(&stacks, stack[i]);
	gyre__stacks_done(&stacks);
	free(stack);
}

TEST(what_was_given_back_is_all_of_it)
{
	enum { COUNT = GYRE__STACKS_HOT_MAX + 1 };
	struct gyre__stack *stack[COUNT];
	struct gyre__stacks stacks;
	unsigned i;

	gyre__stacks_init(&stacks);
	for (i = 0; i < COUNT; i++)
		stack[i] = gyre__stack_get(&stacks, USUAL);
	for (i = 0; i < COUNT; i++) {
		use(stack[i], USUAL);
		gyre__stack_put(&stacks, stack[i]);
	}
	expect_eq(stacks.cached, GYRE__STACKS_HOT_MAX);
	/* The last one's address is known to its slab alone. */
	expect_eq(in_memory(&(struct gyre__stack){ .base = top_page(stack[COUNT - 1]) }, PAGE), 0);
	for (i = 0; i < COUNT; i++)
		stack[i] = gyre__stack_get(&stacks, USUAL);
	expect(stack[COUNT - 1]);
	expect_eq(in_memory(stack[COUNT - 1], USUAL), PAGE);
	for (i = 0; i < COUNT; i++)
		gyre__stack_put(&stacks, stack[i]);
	gyre__stacks_done(&stacks);
}

TEST(large_stacks_are_kept_by_the_byte_and_the_largest_not_at_all)
{
	static const struct { size_t size; unsigned kept; } rows[] = {
		{ 16 * KIB, 256 }, { 64 * KIB, 256 }, { 128 * KIB, 128 }, { MIB, 16 },
		{ 16 * MIB, 1 }, { 32 * MIB, 0 }, { GIB, 0 },
	};
	struct gyre__stack *stack[300];
	struct gyre__stacks stacks;
	unsigned i, k, count;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		test_row("%zu bytes", rows[i].size);
		count = rows[i].kept + 2;
		gyre__stacks_init(&stacks);
		for (k = 0; k < count; k++) {
			stack[k] = gyre__stack_get(&stacks, rows[i].size);
			expect(stack[k]);
		}
		for (k = 0; k < count; k++)
			gyre__stack_put(&stacks, stack[k]);
		expect_eq(stacks.cached, rows[i].kept);
		gyre__stacks_done(&stacks);
	}
}

TEST(one_put_in_64_looks_and_trims_what_was_used_deeply)
{
	struct gyre__stacks stacks;
	struct gyre__stack *stack;
	unsigned i;

	gyre__stacks_init(&stacks);
	for (i = 0; i < GYRE__STACK_LOOK_EVERY; i++) {
		expect_eq(stacks.high_water, 0);
		stack = gyre__stack_get(&stacks, USUAL);
		use(stack, 40 * KIB);
		gyre__stack_put(&stacks, stack);
	}
	expect_eq(in_memory(stack, USUAL), GYRE__STACK_HOT_BYTES);
	expect_ge(stacks.high_water, 40 * KIB);
	expect_lt(stacks.high_water, 40 * KIB + 2 * PAGE);
	/* What is less deep stays, and does not lower it. */
	for (i = 0; i < GYRE__STACK_LOOK_EVERY; i++) {
		stack = gyre__stack_get(&stacks, USUAL);
		use(stack, 8 * KIB);
		gyre__stack_put(&stacks, stack);
	}
	expect_eq(in_memory(stack, USUAL), GYRE__STACK_HOT_BYTES);
	expect_ge(stacks.high_water, 40 * KIB);
	gyre__stacks_done(&stacks);
}

static void put_often(struct gyre__stacks *stacks, size_t depth, unsigned times)
{
	struct gyre__stack *stack;

	while (times-- > 0) {
		stack = gyre__stack_get(stacks, USUAL);
		use(stack, depth);
		gyre__stack_put(stacks, stack);
	}
}

TEST(looks_become_rare_while_they_find_nothing_new)
{
	struct gyre__stacks stacks;
	unsigned every, looks = 1;

	gyre__fault_install();
	gyre__stacks_init(&stacks);
	put_often(&stacks, KIB, GYRE__STACK_LOOK_EVERY);
	for (every = GYRE__STACK_LOOK_EVERY; every <= GYRE__STACK_LOOK_EVERY_MAX; every *= 2) {
		test_row("every %u", every);
		expect_eq(gyre__fault_count(GYRE__FAULT_mincore), looks++);
		put_often(&stacks, KIB, every);
	}
	expect_eq(gyre__fault_count(GYRE__FAULT_mincore), looks);
	put_often(&stacks, KIB, 2 * GYRE__STACK_LOOK_EVERY_MAX);
	expect_eq(gyre__fault_count(GYRE__FAULT_mincore), looks + 2);
	/* What is deeper than ever brings them back, and so does what is trimmed. */
	put_often(&stacks, 40 * KIB, GYRE__STACK_LOOK_EVERY_MAX);
	expect_eq(gyre__fault_count(GYRE__FAULT_mincore), looks + 3);
	put_often(&stacks, 40 * KIB, 5 * GYRE__STACK_LOOK_EVERY);
	expect_eq(gyre__fault_count(GYRE__FAULT_mincore), looks + 8);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

TEST(what_is_put_by_the_thousand_is_not_looked_at_one_by_one)
{
	static struct gyre__stack *taken[2000];
	struct gyre__stacks stacks;
	unsigned i;

	gyre__fault_install();
	gyre__stacks_init(&stacks);
	for (i = 0; i < 2000; i++) {
		taken[i] = gyre__stack_get(&stacks, USUAL);
		use(taken[i], 8 * KIB);
	}
	for (i = 0; i < 2000; i++)
		gyre__stack_put(&stacks, taken[i]);
	expect_gt(gyre__fault_count(GYRE__FAULT_mincore), 0);
	expect_le(gyre__fault_count(GYRE__FAULT_mincore), 2000 / GYRE__STACK_LOOK_EVERY);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

TEST(a_large_stack_is_looked_at_to_its_depth)
{
	static const size_t depths[] = { 4 * KIB, 900 * KIB, 2 * MIB, 9 * MIB, 32 * MIB };
	struct gyre__stacks stacks;
	struct gyre__stack *stack;
	unsigned i;

	gyre__stacks_init(&stacks);
	for (i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
		test_row("%zu bytes", depths[i]);
		stack = gyre__stack_get(&stacks, 32 * MIB);
		use(stack, depths[i]);
		gyre__stack_put(&stacks, stack);
		expect_ge(stacks.high_water, depths[i]);
		expect_lt(stacks.high_water, depths[i] + 2 * PAGE);
	}
	gyre__stacks_done(&stacks);
}

TEST(a_kernel_that_does_not_tell_costs_what_is_below_the_top)
{
	struct gyre__stacks stacks;
	struct gyre__stack *stack;
	unsigned i;

	gyre__fault_install();
	gyre__fault_set(GYRE__FAULT_mincore, 0, GYRE__FAULT_FOREVER, -ENOSYS);
	gyre__stacks_init(&stacks);
	for (i = 0; i < GYRE__STACK_LOOK_EVERY; i++) {
		stack = gyre__stack_get(&stacks, USUAL);
		use(stack, 40 * KIB);
		gyre__stack_put(&stacks, stack);
	}
	expect_eq(gyre__fault_hits(GYRE__FAULT_mincore), 1);
	expect_eq(stacks.high_water, 0);
	expect_eq(in_memory(stack, USUAL), GYRE__STACK_HOT_BYTES);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

/* ------------------------------------------------------------------ zero -- */

/* Whose record lies in the stack is the pool; all else must read zero. */
static void expect_zero(const struct gyre__stack *stack)
{
	const char *at = stack->base;

	if (*at == 0 && memcmp(at, at + 1, usable(stack) - 1) == 0)
		return;
	for (; at < (const char *)stack; at++)
		if (*at)
			test_fail("%zu bytes below the record lies %02x",
				  (size_t)((const char *)stack - at), (unsigned char)*at);
}

static void fill(struct gyre__stack *stack, size_t bytes)
{
	if (bytes > usable(stack))
		bytes = usable(stack);
	memset((char *)stack - bytes, 0xee, bytes);
}

/* Puts so many of each depth, and gets them all again. */
static void check_zero(struct gyre__stacks *stacks, size_t size, unsigned count)
{
	static const size_t depths[] = {
		16, 3 * KIB, 5 * KIB, 15 * KIB, 16 * KIB, 20 * KIB, 64 * KIB,
	};
	struct gyre__stack **stack = calloc(count, sizeof(*stack));
	unsigned i, k;

	expect(stack);
	for (k = 0; k < sizeof(depths) / sizeof(depths[0]); k++) {
		test_row("stacks of %zu bytes, used to %zu", size, depths[k]);
		for (i = 0; i < count; i++) {
			stack[i] = gyre__stack_get(stacks, size);
			expect(stack[i]);
			expect_zero(stack[i]);
			fill(stack[i], depths[k]);
		}
		/* With a gap above it. */
		*(char *)stack[0]->base = 1;
		for (i = 0; i < count; i++)
			gyre__stack_put(stacks, stack[i]);
	}
	for (i = 0; i < count; i++) {
		stack[i] = gyre__stack_get(stacks, size);
		expect_zero(stack[i]);
	}
	for (i = 0; i < count; i++)
		gyre__stack_put(stacks, stack[i]);
	free(stack);
}

TEST(a_pool_that_clears_shows_nobody_what_another_has_left)
{
	struct gyre__stacks stacks;

	gyre__stacks_init(&stacks);
	stacks.zero = true;
	check_zero(&stacks, 16 * KIB, 3);
	check_zero(&stacks, USUAL, 300);
	check_zero(&stacks, 2 * MIB, TEST_UNDER_SANITIZER ? 2 : 10);
	if (!TEST_UNDER_SANITIZER)
		check_zero(&stacks, 32 * MIB, 1);
	gyre__stacks_done(&stacks);
}

TEST(a_pool_that_clears_keeps_what_is_usually_used)
{
	static const struct { size_t used, stays; } rows[] = {
		{ 1, 4 }, { 6, 8 }, { 12, 16 }, { 40, 16 }, { 64, 16 },
	};
	struct gyre__stacks stacks;
	struct gyre__stack *stack;
	unsigned i, k;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		test_row("%zu KiB", rows[i].used);
		gyre__stacks_init(&stacks);
		stacks.zero = true;
		for (k = 0; k < GYRE__STACK_LOOK_EVERY + 10; k++) {
			stack = gyre__stack_get(&stacks, USUAL);
			fill(stack, rows[i].used * KIB);
			gyre__stack_put(&stacks, stack);
			if (k == 0)
				expect_eq(in_memory(stack, USUAL), PAGE);
		}
		expect_eq(in_memory(stack, USUAL), rows[i].stays * KIB);
		gyre__stacks_done(&stacks);
	}
}

TEST(it_clears_by_hand_what_the_kernel_does_not_take_back)
{
	static const enum gyre__fault_call calls[] = { GYRE__FAULT_mincore, GYRE__FAULT_madvise };
	struct gyre__stacks stacks;
	unsigned i;

	gyre__fault_install();
	for (i = 0; i < 2; i++) {
		gyre__fault_set(calls[i], 0, GYRE__FAULT_FOREVER, -EINVAL);
		gyre__stacks_init(&stacks);
		stacks.zero = true;
		check_zero(&stacks, USUAL, 300);
		expect_gt(gyre__fault_hits(calls[i]), i ? 300 : 0);
		gyre__stacks_done(&stacks);
		gyre__fault_clear();
	}
	gyre__fault_remove();
}

/* -------------------------------------------------------------- failures -- */

TEST(without_address_space_there_is_no_stack_and_later_there_is)
{
	struct gyre__stacks stacks;
	struct gyre__stack *stack;

	gyre__fault_install();
	gyre__stacks_init(&stacks);
	gyre__fault_set(GYRE__FAULT_mmap, 0, GYRE__FAULT_FOREVER, -ENOMEM);
	expect(!gyre__stack_get(&stacks, USUAL));
	expect(!gyre__stack_get(&stacks, GIB));
	expect_eq(stacks.live, 0);
	gyre__fault_clear();
	stack = gyre__stack_get(&stacks, USUAL);
	expect(stack);
	gyre__stack_put(&stacks, stack);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

TEST(a_slab_that_is_too_large_for_what_is_left_is_made_smaller)
{
	struct gyre__stacks stacks;
	struct gyre__stack *stack;

	gyre__fault_install();
	gyre__stacks_init(&stacks);
	gyre__fault_set(GYRE__FAULT_mmap, 0, 4, -ENOMEM);
	stack = gyre__stack_get(&stacks, USUAL);
	expect(stack);
	expect_eq(gyre__fault_count(GYRE__FAULT_mmap), 5);
	gyre__stack_put(&stacks, stack);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

TEST(without_memory_for_a_slabs_record_its_mapping_goes_again)
{
	size_t before = statm(0);
	struct gyre__stacks stacks;

	gyre__fault_install();
	gyre__stacks_init(&stacks);
	gyre__fault_set(GYRE__FAULT_alloc, 0, 1, -ENOMEM);
	expect(!gyre__stack_get(&stacks, USUAL));
	expect_eq(gyre__fault_count(GYRE__FAULT_munmap), 1);
	expect_eq(statm(0), before);
	gyre__stack_put(&stacks, gyre__stack_get(&stacks, USUAL));
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

TEST(without_a_guard_there_is_no_stack_and_its_place_is_taken_later)
{
	struct gyre__stack *first, *second;
	struct gyre__stacks stacks;

	gyre__fault_install();
	gyre__stacks_init(&stacks);
	first = gyre__stack_get(&stacks, USUAL);
	gyre__fault_set(GYRE__FAULT_madvise, 0, 1, -EINVAL);
	gyre__fault_set(GYRE__FAULT_mprotect, 0, 1, -ENOMEM);
	expect(!gyre__stack_get(&stacks, USUAL));
	expect_eq(stacks.live, 1);
	gyre__fault_clear();
	second = gyre__stack_get(&stacks, USUAL);
	expect_eq((char *)second->base - (char *)first->base, USUAL + GYRE__STACK_FRAME_MAX + PAGE);
	expect_eq(dies_at(touch, (char *)second->base - 1), (uintptr_t)second->base - 1);
	gyre__stack_put(&stacks, first);
	gyre__stack_put(&stacks, second);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
}

TEST(stacks_end_with_NULL_where_the_limit_of_mappings_does)
{
	enum { MAX = 40000 };
	unsigned limit = mappings_max(), count;
	struct gyre__stack **stack;
	struct gyre__stacks stacks;

	if (TEST_UNDER_SANITIZER)
		test_skip("a sanitizer falls over at that limit");
	if (limit == 0 || limit / 2 >= MAX)
		test_skip("the limit of mappings is unknown or far away");
	stack = calloc(MAX, sizeof(*stack));
	expect(stack);
	gyre__fault_install();
	gyre__fault_set(GYRE__FAULT_madvise, 0, GYRE__FAULT_FOREVER, -EINVAL);
	gyre__stacks_init(&stacks);
	for (count = 0; count < MAX; count++) {
		stack[count] = gyre__stack_get(&stacks, USUAL);
		if (!stack[count])
			break;
	}
	expect_lt(count, MAX);
	expect_gt(count, limit / 2 - 1000);
	expect_eq(stacks.live, count);
	expect(!gyre__stack_get(&stacks, USUAL));
	/* Nothing is lost by it. */
	gyre__stack_put(&stacks, stack[--count]);
	stack[count] = gyre__stack_get(&stacks, USUAL);
	expect(stack[count++]);
	while (count > 0)
		gyre__stack_put(&stacks, stack[--count]);
	gyre__stacks_done(&stacks);
	gyre__fault_remove();
	free(stack);
}

TEST_MAIN()
