/* SPDX-License-Identifier: MIT */
/*
 * Stacks of fibers, each with a guard below it, carved from large mappings and
 * pooled by their worker. Owner thread only, but for the counters.
 *
 * A stack that sleeps costs one page of memory, and address space: a million of
 * them fit into one process, whatever its limit of mappings. Idle ones stay as
 * they are, for the next; those past a bound are given back to the kernel, and
 * only their addresses are kept.
 *
 * Nothing here is kept from a forked child: a task may be who forks, and its
 * child goes on where it stood.
 */
#ifndef GYRE_WORKERS_STACK_H
#define GYRE_WORKERS_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/atomic.h"
#include "ring/sys.h"

/* What can be had: powers of two. Smaller sizes are rounded up, larger ones refused. */
#define GYRE__STACK_SIZE_MIN	((size_t)16 << 10)
#define GYRE__STACK_SIZE_MAX	((size_t)1 << 30)
#define GYRE__STACK_CLASSES	17

/* Idle stacks of one class that keep their memory: so many, and so many bytes of them. */
#define GYRE__STACKS_HOT_MAX		256
#define GYRE__STACKS_HOT_BYTES_MAX	((size_t)16 << 20)
/* What an idle stack that was found to be deeper keeps. */
#define GYRE__STACK_HOT_BYTES		((size_t)16 << 10)
/*
 * One put in so many looks how deep its stack was used: the first number at first
 * and after a surprise, twice as many each time without one, up to the second.
 */
#define GYRE__STACK_LOOK_EVERY		64
#define GYRE__STACK_LOOK_EVERY_MAX	1024

/*
 * A frame that is larger than the guard steps over it; below the guard's size
 * whatever is touched first lies in it. A page more than the largest frame that
 * is covered, as a frame begins anywhere in a page.
 */
#define GYRE__STACK_FRAME_MAX		((size_t)64 << 10)

/*
 * Records lie at one of several places below the top of their stacks, or the
 * hottest lines of all stacks would have the same few places in the caches.
 */
#define GYRE__STACK_COLOURS		8
#define GYRE__STACK_COLOUR_BYTES	128
#define GYRE__STACK_OVERHEAD_MAX	(GYRE__STACK_COLOURS * GYRE__STACK_COLOUR_BYTES)

struct gyre__stack_slab;

/* Lies in the top page of its stack, aligned to GYRE__STACK_COLOUR_BYTES. */
struct gyre__stack {
	struct gyre__stack *next;	/* while it is idle; else its user's */
	void *base;			/* usable is [base, (char *)stack) */
	struct gyre__stack_slab *slab;
	uint16_t slot;			/* which of the slab's it is */
	uint16_t class;
};
_Static_assert(sizeof(struct gyre__stack) <= GYRE__STACK_COLOUR_BYTES,
	       "a colour's place holds the record");

struct gyre__stack_class {
	struct gyre__stack *hot;	/* idle and in memory, the latest first */
	unsigned hot_count, hot_max;
	/* Idle, hot or cold, and promised to nobody. */
	unsigned spare;
	unsigned slab_count, slab_count_max;	/* stacks of the next slab, and of the largest */
	size_t size;			/* of a stack, its record included */
	/* Depth, as the last look found it: one page to what is kept. */
	size_t usual;
	struct gyre__stack_slab *slabs;	/* the newest first: only that has room to carve */
	struct gyre__stack_slab *cold;	/* those that have idle stacks without memory */
};

struct gyre__stacks {
	/* Set after init, before the first get: no user sees another's bytes. */
	bool zero;
	bool guards_refused;	/* this kernel knows no guards that are cheaper than mappings */
	unsigned until_look;	/* puts until one looks */
	unsigned look_every;
	size_t page;
	size_t guard;
	size_t keep;		/* GYRE__STACK_HOT_BYTES, or a page where that is larger */
	/* Read by any thread; each for itself, so relaxed on both sides. */
	_Atomic uint64_t live;		/* given out */
	_Atomic uint64_t cached;	/* idle, with their memory */
	_Atomic uint64_t high_water;	/* the deepest use that was seen, in bytes from the top */
	struct gyre__stack_class classes[GYRE__STACK_CLASSES];
};

/* Maps nothing. */
void gyre__stacks_init(struct gyre__stacks *stacks);

/* Unmaps all; every stack must have been put. */
void gyre__stacks_done(struct gyre__stacks *stacks);

bool gyre__stack_promise_slow(struct gyre__stacks *stacks, unsigned class);
struct gyre__stack *gyre__stack_take_slow(struct gyre__stacks *stacks, unsigned class);
void gyre__stack_put_slow(struct gyre__stacks *stacks, struct gyre__stack *stack);

/* 0, or larger than what can be had, gives a number past the last class, or the first. */
static inline unsigned gyre__stack_class_of(size_t size)
{
	unsigned long last = (size - (size != 0)) | (GYRE__STACK_SIZE_MIN - 1);

	return (unsigned)(8 * sizeof(last)) - (unsigned)__builtin_clzl(last) -
	       (unsigned)__builtin_ctzl(GYRE__STACK_SIZE_MIN);
}

/*
 * One stack more of a class may be taken. It costs address space, and no memory
 * before it is taken. False: larger than can be had, no memory, no address space,
 * or the limit of mappings.
 */
static inline bool gyre__stack_promise(struct gyre__stacks *stacks, unsigned class)
{
	if (gyre__unlikely(class >= GYRE__STACK_CLASSES))
		return false;
	if (gyre__unlikely(stacks->classes[class].spare == 0))
		return gyre__stack_promise_slow(stacks, class);
	stacks->classes[class].spare--;
	return true;
}

/* It will not be taken. */
static inline void gyre__stack_unpromise(struct gyre__stacks *stacks, unsigned class)
{
	stacks->classes[class].spare++;
}

/*
 * One that was promised: the size of its class, the record and at most
 * GYRE__STACK_OVERHEAD_MAX of colouring included. What lies in it is undefined, or
 * zero where that was asked for.
 */
static inline struct gyre__stack *gyre__stack_take(struct gyre__stacks *stacks, unsigned number)
{
	struct gyre__stack_class *class = &stacks->classes[number];
	struct gyre__stack *stack = class->hot;

	if (gyre__unlikely(!stack))
		return gyre__stack_take_slow(stacks, number);
	class->hot = stack->next;
	class->hot_count--;
	gyre__count(&stacks->cached, -1);
	gyre__count(&stacks->live, 1);
	return stack;
}

/* Both: at least size bytes. NULL: there is none to be promised. */
static inline struct gyre__stack *gyre__stack_get(struct gyre__stacks *stacks, size_t size)
{
	unsigned class = gyre__stack_class_of(size);

	return gyre__stack_promise(stacks, class) ? gyre__stack_take(stacks, class) : NULL;
}

/*
 * Who has ended on stack leaves it to somebody who wants one of a class: the same as
 * if it had been put, and got by that one. False: it has to be.
 */
static inline bool gyre__stack_pass_on(struct gyre__stacks *stacks,
				       const struct gyre__stack *stack, unsigned class)
{
	if (gyre__unlikely(stack->class != class || stacks->zero || stacks->until_look <= 1))
		return false;
	stacks->until_look--;
	return true;
}

/* Not from the stack itself. */
static inline void gyre__stack_put(struct gyre__stacks *stacks, struct gyre__stack *stack)
{
	struct gyre__stack_class *class = &stacks->classes[stack->class];

	if (gyre__unlikely(--stacks->until_look == 0 || class->hot_count >= class->hot_max ||
			   stacks->zero)) {
		gyre__stack_put_slow(stacks, stack);
		return;
	}
	class->spare++;
	stack->next = class->hot;
	class->hot = stack;
	class->hot_count++;
	gyre__count(&stacks->cached, 1);
	gyre__count(&stacks->live, -1);
}

#endif
