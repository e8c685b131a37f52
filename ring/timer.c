/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "timer.h"

#include <sys/mman.h>

#include "sys.h"

/* Mapped like the op table, and as large: an op that may fly may have a timer. */
int gyre__timers_open(struct gyre__timers *timers, uint32_t max)
{
	void *heap;
	int rc = gyre__sys->mmap(max * sizeof(struct gyre__timer), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &heap);

	if (rc < 0)
		return rc;
	timers->heap = heap;
	timers->count = 0;
	timers->max = max;
	return 0;
}

void gyre__timers_close(struct gyre__timers *timers)
{
	if (timers->heap)
		gyre__sys->munmap(timers->heap, timers->max * sizeof(struct gyre__timer));
	timers->heap = NULL;
}

static void heap_place(struct gyre__timers *timers, struct gyre__op_table *table, uint32_t at,
		       struct gyre__timer timer)
{
	timers->heap[at] = timer;
	table->ops[timer.slot].timer = at;
}

static void heap_up(struct gyre__timers *timers, struct gyre__op_table *table, uint32_t at,
		    struct gyre__timer timer)
{
	while (at > 0) {
		uint32_t parent = (at - 1) / 2;

		if (timers->heap[parent].deadline_ns <= timer.deadline_ns)
			break;
		heap_place(timers, table, at, timers->heap[parent]);
		at = parent;
	}
	heap_place(timers, table, at, timer);
}

static void heap_down(struct gyre__timers *timers, struct gyre__op_table *table, uint32_t at,
		      struct gyre__timer timer)
{
	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= timers->count)
			break;
		if (child + 1 < timers->count &&
		    timers->heap[child + 1].deadline_ns < timers->heap[child].deadline_ns)
			child++;
		if (timer.deadline_ns <= timers->heap[child].deadline_ns)
			break;
		heap_place(timers, table, at, timers->heap[child]);
		at = child;
	}
	heap_place(timers, table, at, timer);
}

/* Puts timer where at is free: up or down, whichever way it belongs. */
static void heap_settle(struct gyre__timers *timers, struct gyre__op_table *table, uint32_t at,
			struct gyre__timer timer)
{
	if (at > 0 && timer.deadline_ns < timers->heap[(at - 1) / 2].deadline_ns)
		heap_up(timers, table, at, timer);
	else
		heap_down(timers, table, at, timer);
}

void gyre__timer_arm(struct gyre__timers *timers, struct gyre__op_table *table,
		     struct gyre__op *op, uint64_t deadline_ns)
{
	struct gyre__timer timer = { deadline_ns, gyre__op_slot(table, op) };

	if (op->timer == GYRE__NO_SLOT) {
		GYRE_ASSERT(timers->count < timers->max);
		heap_up(timers, table, timers->count++, timer);
	} else {
		heap_settle(timers, table, op->timer, timer);
	}
}

void gyre__timer_remove(struct gyre__timers *timers, struct gyre__op_table *table,
			struct gyre__op *op)
{
	uint32_t at = op->timer;
	struct gyre__timer last;

	op->timer = GYRE__NO_SLOT;
	last = timers->heap[--timers->count];
	if (at < timers->count)
		heap_settle(timers, table, at, last);
}
