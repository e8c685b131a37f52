/* SPDX-License-Identifier: MIT */
/*
 * A slab is one mapping of many stacks of a size. Each slot of it is a guard and
 * above that a stack:
 *
 *	| guard | stack 0 ... record | guard | stack 1 ... record | ...
 *
 * Slots are carved one by one, in order, when a stack is promised and no idle one
 * is to spare: carving makes the guard, and touches nothing else. It is made without splitting the
 * mapping where the kernel can do that; elsewhere each guard is a mapping of its
 * own, and the limit of mappings (vm.max_map_count) ends it at some 32,000.
 *
 * Nothing but the top page of a stack is touched from here, other than to clear
 * it. Where a stack is given back to the kernel its record goes, too: the slab
 * remembers the slot.
 */
#include "stack.h"

#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102	/* Linux 6.13 */
#endif

#ifndef GYRE_SIM
#define SLAB_COUNT_FIRST	64
#define SLAB_BYTES_FIRST	((size_t)8 << 20)
#define SLAB_BYTES_MAX		((size_t)64 << 20)
#else	/* the simulated machine is small, and its guards guard nothing */
#define SLAB_COUNT_FIRST	2
#define SLAB_BYTES_FIRST	((size_t)256 << 10)
#define SLAB_BYTES_MAX		((size_t)512 << 10)
#endif
/* Pages of one look; a stack that has a gap of so many is not looked at below it. */
#define LOOK_PAGES		256

struct gyre__stack_slab {
	struct gyre__stack_slab *next;
	struct gyre__stack_slab *next_cold;
	char *base;
	unsigned count;
	unsigned carved;		/* slots [0, carved) are stacks */
	unsigned cold_count;
	/* Slots of idle stacks without memory, a stack of numbers. */
	uint16_t cold[];
};

/* ----------------------------------------------------------------- slabs -- */

static size_t slot_bytes(const struct gyre__stacks *stacks, const struct gyre__stack_class *class)
{
	return stacks->guard + class->size;
}

/* Address space may be scarce where there is a limit of it: asks for less and less. */
static int map_slab(size_t slot, unsigned *count, void **ret)
{
	int rc;

	for (;;) {
		rc = gyre__sys->mmap(*count * slot, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK,
				     -1, 0, ret);
		if (rc >= 0 || *count == 1)
			return rc;
		*count /= 2;
	}
}

static struct gyre__stack_slab *slab_open(struct gyre__stacks *stacks,
					  struct gyre__stack_class *class)
{
	size_t slot = slot_bytes(stacks, class);
	unsigned count = class->slab_count;
	struct gyre__stack_slab *slab;
	void *base;

	if (map_slab(slot, &count, &base) < 0)
		return NULL;
	slab = gyre__zalloc(sizeof(*slab) + count * sizeof(slab->cold[0]));
	if (!slab) {
		gyre__sys->munmap(base, count * slot);
		return NULL;
	}
	/* Or a touched page would bring 511 others. A kernel without huge pages refuses. */
	gyre__sys->madvise(base, count * slot, MADV_NOHUGEPAGE);
	slab->base = base;
	slab->count = count;
	slab->next = class->slabs;
	class->slabs = slab;
	class->slab_count = 2 * count < class->slab_count_max ? 2 * count : class->slab_count_max;
	return slab;
}

static struct gyre__stack *stack_at(const struct gyre__stacks *stacks, unsigned class,
				    const struct gyre__stack_slab *slab, unsigned slot)
{
	char *top = slab->base + (slot + 1) * slot_bytes(stacks, &stacks->classes[class]);

	return (void *)(top - (1 + slot % GYRE__STACK_COLOURS) * GYRE__STACK_COLOUR_BYTES);
}

/* ---------------------------------------------------------------- guards -- */

static int make_guard(struct gyre__stacks *stacks, char *guard)
{
	int rc;

	if (!stacks->guards_refused) {
		rc = gyre__sys->madvise(guard, stacks->guard, MADV_GUARD_INSTALL);
		if (rc >= 0)
			return 0;
		/* It is too old, or all memory is to be locked: so it will be the next time. */
		stacks->guards_refused = rc == -EINVAL;
	}
	return gyre__sys->mprotect(guard, stacks->guard, PROT_NONE);
}

/* ------------------------------------------------------------------- get -- */

static int take_cold(struct gyre__stack_class *class, struct gyre__stack_slab **ret)
{
	struct gyre__stack_slab *slab = class->cold;
	int slot = slab->cold[--slab->cold_count];

	if (slab->cold_count == 0)
		class->cold = slab->next_cold;
	*ret = slab;
	return slot;
}

static void add_cold(struct gyre__stack_class *class, struct gyre__stack_slab *slab, unsigned slot)
{
	slab->cold[slab->cold_count] = (uint16_t)slot;
	if (slab->cold_count++ == 0) {
		slab->next_cold = class->cold;
		class->cold = slab;
	}
}

bool gyre__stack_promise_slow(struct gyre__stacks *stacks, unsigned number)
{
	struct gyre__stack_class *class = &stacks->classes[number];
	struct gyre__stack_slab *slab = class->slabs;

	if (!slab || slab->carved == slab->count)
		slab = slab_open(stacks, class);
	if (!slab)
		return false;
	if (make_guard(stacks, slab->base + slab->carved * slot_bytes(stacks, class)) < 0)
		return false;
	add_cold(class, slab, slab->carved++);
	return true;
}

struct gyre__stack *gyre__stack_take_slow(struct gyre__stacks *stacks, unsigned number)
{
	struct gyre__stack_class *class = &stacks->classes[number];
	struct gyre__stack_slab *slab;
	struct gyre__stack *stack;
	int slot;

	GYRE_ASSERT(class->cold);
	slot = take_cold(class, &slab);
	stack = stack_at(stacks, number, slab, (unsigned)slot);
	stack->next = NULL;
	stack->base = slab->base + (unsigned)slot * slot_bytes(stacks, class) + stacks->guard;
	stack->slab = slab;
	stack->slot = (uint16_t)slot;
	stack->class = (uint16_t)number;
	gyre__count(&stacks->live, 1);
	return stack;
}

/* ------------------------------------------------------------------- put -- */

/*
 * How deep a stack was used, in bytes from its top: down to the lowest page that
 * lies in memory. What was swapped out is missed. 0: the kernel does not tell.
 */
static size_t find_depth(struct gyre__stacks *stacks, const struct gyre__stack *stack)
{
	size_t size = stacks->classes[stack->class].size;
	size_t left = size, depth = 0, len, pages, i;
	unsigned char in_memory[LOOK_PAGES];
	bool found;

	do {
		len = left < LOOK_PAGES * stacks->page ? left : LOOK_PAGES * stacks->page;
		left -= len;
		if (gyre__sys->mincore((char *)stack->base + left, len, in_memory) < 0)
			return 0;
		found = false;
		pages = len / stacks->page;
		for (i = pages; i-- > 0;) {
			if (!(in_memory[i] & 1))
				continue;
			found = true;
			depth = size - left - i * stacks->page;
		}
	} while (found && left > 0);
	return depth;
}

/* The same, learning from it. It costs a microsecond or two. */
static size_t look(struct gyre__stacks *stacks, const struct gyre__stack *stack)
{
	struct gyre__stack_class *class = &stacks->classes[stack->class];
	size_t depth = find_depth(stacks, stack);

	class->usual = depth < stacks->page ? stacks->page : depth < stacks->keep ? depth :
		       stacks->keep;
	if (depth > stacks->keep)
		stacks->look_every = GYRE__STACK_LOOK_EVERY;
	if (depth > gyre__load(&stacks->high_water, relaxed)) {
		stacks->look_every = GYRE__STACK_LOOK_EVERY;
		gyre__store(&stacks->high_water, depth, relaxed);
	}
	return depth;
}

static bool look_is_due(struct gyre__stacks *stacks)
{
	if (stacks->until_look > 0)
		return false;
	if (stacks->look_every < GYRE__STACK_LOOK_EVERY_MAX)
		stacks->look_every *= 2;
	return true;
}


/* Everything below the top bytes; false: it is there as before. */
static bool give_back_below(struct gyre__stacks *stacks, struct gyre__stack *stack, size_t top)
{
	size_t size = stacks->classes[stack->class].size;

	return size <= top || gyre__sys->madvise(stack->base, size - top, MADV_DONTNEED) >= 0;
}

/*
 * For the next user to find nothing. The top stays in memory, as far as stacks are
 * usually used; all below it is given back, whether it was used or not.
 */
static void clear(struct gyre__stacks *stacks, struct gyre__stack *stack)
{
	const struct gyre__stack_class *class = &stacks->classes[stack->class];
	char *from = stack->base;

	if (give_back_below(stacks, stack, class->usual))
		from += class->size - class->usual;
	memset(from, 0, (size_t)((char *)stack - from));
}

static void push_hot(struct gyre__stacks *stacks, struct gyre__stack *stack)
{
	struct gyre__stack_class *class = &stacks->classes[stack->class];

	stack->next = class->hot;
	class->hot = stack;
	class->hot_count++;
	gyre__count(&stacks->cached, 1);
}

/* The record goes with the rest. */
static void push_cold(struct gyre__stacks *stacks, struct gyre__stack *stack)
{
	add_cold(&stacks->classes[stack->class], stack->slab, stack->slot);
	if (!give_back_below(stacks, stack, 0) && stacks->zero)
		memset(stack->base, 0, (size_t)((char *)stack - (char *)stack->base));
}

void gyre__stack_put_slow(struct gyre__stacks *stacks, struct gyre__stack *stack)
{
	struct gyre__stack_class *class = &stacks->classes[stack->class];
	bool full = class->hot_count >= class->hot_max;
	bool due = look_is_due(stacks);
	size_t depth = 0;

	gyre__count(&stacks->live, -1);
	class->spare++;
	/* Of a class that keeps none each one is looked at: so large stacks are few. */
	if (due || class->hot_max == 0)
		depth = look(stacks, stack);
	if (due)
		stacks->until_look = stacks->look_every;
	if (full) {
		push_cold(stacks, stack);
		return;
	}
	if (stacks->zero)
		clear(stacks, stack);
	else if (depth == 0 || depth > stacks->keep || class->size > LOOK_PAGES * stacks->page)
		give_back_below(stacks, stack, stacks->keep);
	push_hot(stacks, stack);
}

/* -------------------------------------------------------- init and done -- */

static unsigned between(size_t value, unsigned least, unsigned most)
{
	return value < least ? least : value > most ? most : (unsigned)value;
}

void gyre__stacks_init(struct gyre__stacks *stacks)
{
	struct gyre__stack_class *class;
	unsigned i;

	memset(stacks, 0, sizeof(*stacks));
	stacks->until_look = stacks->look_every = GYRE__STACK_LOOK_EVERY;
	stacks->page = getauxval(AT_PAGESZ);
	stacks->guard = GYRE__STACK_FRAME_MAX + stacks->page;
	stacks->keep = GYRE__STACK_HOT_BYTES;
	if (stacks->keep < stacks->page)
		stacks->keep = stacks->page;
#ifdef GYRE_SIM
	stacks->guard = stacks->page;
#endif
	for (i = 0; i < GYRE__STACK_CLASSES; i++) {
		class = &stacks->classes[i];
		class->size = GYRE__STACK_SIZE_MIN << i;
		if (class->size < stacks->page)
			class->size = stacks->page;
		class->usual = stacks->page;
		class->hot_max = between(GYRE__STACKS_HOT_BYTES_MAX / class->size, 0,
					 GYRE__STACKS_HOT_MAX);
		class->slab_count = between(SLAB_BYTES_FIRST / slot_bytes(stacks, class), 1,
					    SLAB_COUNT_FIRST);
		class->slab_count_max = between(SLAB_BYTES_MAX / slot_bytes(stacks, class), 1,
						UINT16_MAX);
	}
}

void gyre__stacks_done(struct gyre__stacks *stacks)
{
	struct gyre__stack_slab *slab, *next;
	unsigned i;

	GYRE_ASSERT(gyre__load(&stacks->live, relaxed) == 0);
	for (i = 0; i < GYRE__STACK_CLASSES; i++) {
		size_t slot = slot_bytes(stacks, &stacks->classes[i]);

		for (slab = stacks->classes[i].slabs; slab; slab = next) {
			next = slab->next;
			gyre__sys->munmap(slab->base, slab->count * slot);
			gyre__free(slab);
		}
		stacks->classes[i].slabs = NULL;
	}
}
