/* SPDX-License-Identifier: MIT */
/*
 * Memory holds what the running thread sees: its own stores are there. When it
 * stops, those that still sit in its buffer are taken back, and the next
 * thread's are put in place. So a thread's loads need no look into any buffer,
 * and a plain access cannot bypass one.
 *
 * Each store throws the dice for how long it lingers; zero is not at all.
 */
#include "memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"
#include "ring/atomic.h"

#define STORES_MAX	16
#define LINGER_NS	32u	/* one or two steps */

struct store {
	volatile void *ptr;
	unsigned size;
	bool release;
	uint64_t before, value;		/* before: what the others see, while the thread runs */
	uint64_t since_ns, due_ns;
	bool hidden;			/* others have run and not seen it */
	const char *where;
};

struct buffer {
	struct store stores[STORES_MAX];
	unsigned count;
};

static struct buffer *buffers;		/* by thread number */

static struct {
	enum sim_memory kind;
	unsigned lazy;			/* of 1000 stores, so many linger */
	unsigned octaves;		/* and up to LINGER_NS << octaves */
	unsigned used;			/* threads that ever had something in theirs */
	uint64_t next_ns;
	struct store coming;
	bool lingers;
} memory;

static const char *const kind_names[] = {
	[SIM_SC] = "sc", [SIM_TSO] = "tso", [SIM_PSO] = "pso",
};

static uint64_t read_word(const volatile void *ptr, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, (const void *)(uintptr_t)ptr, size);
	return value;
}

static void write_word(volatile void *ptr, unsigned size, uint64_t value)
{
	memcpy((void *)(uintptr_t)ptr, &value, size);
}

static struct buffer *buffer_of(const struct sim_thread *thread)
{
	return &buffers[sim_thread_id(thread)];
}

static bool overlap(const struct store *a, const struct store *b)
{
	uintptr_t x = (uintptr_t)a->ptr, y = (uintptr_t)b->ptr;

	return x < y + b->size && y < x + a->size;
}

/* It leaves the buffer: from here on everybody sees it. */
static void let_out(unsigned number, unsigned nth)
{
	struct buffer *buffer = &buffers[number];
	const struct store *store = &buffer->stores[nth];
	struct sim_thread *self = sim_self();
	struct buffer *mine = self ? buffer_of(self) : NULL;
	unsigned i;

	if (sim_kernel_is_freed(store->ptr))
		sim_fail("memory is freed before a store to it was over: %s", store->where);
	if (buffer != mine) {
		for (i = 0; mine && i < mine->count; i++)
			if (overlap(&mine->stores[i], store))
				break;
		if (mine && i < mine->count)
			mine->stores[i].before = store->value;
		else
			write_word(store->ptr, store->size, store->value);
	}
	if (sim_verbose && store->hidden)
		sim_say("(only now others see what %s stored %llu ns ago: %s, value %llx)",
			sim_thread_name(sim_thread_at(number)),
			(unsigned long long)(sim_now_ns() - store->since_ns), store->where,
			(unsigned long long)store->value);
	sim_note(number);
	buffer->count--;
	memmove(&buffer->stores[nth], &buffer->stores[nth + 1],
		(buffer->count - nth) * sizeof(*store));
}

/* Nothing that has to be seen before it is still there. */
static bool may_go(const struct buffer *buffer, unsigned nth)
{
	const struct store *store = &buffer->stores[nth];
	unsigned i;

	if (nth == 0)
		return true;
	if (memory.kind != SIM_PSO || store->release)
		return false;
	for (i = 0; i < nth; i++)
		if (overlap(&buffer->stores[i], store))
			return false;
	return true;
}

static void let_out_due(unsigned number, uint64_t now_ns)
{
	struct buffer *buffer = &buffers[number];
	unsigned i = 0;

	while (i < buffer->count) {
		if (buffer->stores[i].due_ns <= now_ns && may_go(buffer, i)) {
			let_out(number, i);
			i = 0;
		} else {
			i++;
		}
	}
	/* What waits for one before it looks again when that one's time has come. */
	for (i = 0; i < buffer->count; i++)
		if (may_go(buffer, i) && buffer->stores[i].due_ns < memory.next_ns)
			memory.next_ns = buffer->stores[i].due_ns;
}

uint64_t sim_memory_next_ns(void)
{
	return memory.next_ns;
}

void sim_memory_run(uint64_t now_ns)
{
	unsigned i;

	memory.next_ns = SIM_NEVER;
	for (i = 1; i <= memory.used; i++)
		let_out_due(i, now_ns);
}

void sim_memory_drain(void)
{
	struct sim_thread *self = sim_self();

	if (memory.kind == SIM_SC || !self)
		return;
	while (buffer_of(self)->count > 0)
		let_out(sim_thread_id(self), 0);
}

static void take_out_of_sight(struct buffer *buffer)
{
	unsigned i = buffer->count;

	while (i-- > 0) {
		struct store *store = &buffer->stores[i];

		/* A plain store has come after it: that is what everybody sees. */
		if (read_word(store->ptr, store->size) != store->value) {
			buffer->count--;
			memmove(store, store + 1, (buffer->count - i) * sizeof(*store));
			continue;
		}
		write_word(store->ptr, store->size, store->before);
		store->hidden = true;
	}
}

static void put_in_sight(struct buffer *buffer)
{
	unsigned i;

	for (i = 0; i < buffer->count; i++) {
		struct store *store = &buffer->stores[i];

		store->before = read_word(store->ptr, store->size);
		write_word(store->ptr, store->size, store->value);
	}
}

void sim_memory_switch(struct sim_thread *from, struct sim_thread *to)
{
	if (memory.kind == SIM_SC)
		return;
	take_out_of_sight(buffer_of(from));
	put_in_sight(buffer_of(to));
}

/* -------------------------------------------------- ring/atomic.h's half -- */

void gyre__sim_rmw(const char *where, const volatile void *ptr)
{
	gyre__sim_point(where, ptr);
	sim_memory_drain();
}

void gyre__sim_store_begin(const char *where, volatile void *ptr, unsigned size, int order)
{
	struct sim_thread *self = sim_self();
	struct buffer *buffer;
	uint64_t ns;

	gyre__sim_point(where, ptr);
	memory.lingers = false;
	if (memory.kind == SIM_SC || !self)
		return;
	buffer = buffer_of(self);
	ns = sim_linger(memory.lazy, memory.octaves) * LINGER_NS;
	/* A dead frame's words are somebody else's soon: what lies on a stack never lingers. */
	if (order == memory_order_seq_cst || (ns == 0 && buffer->count == 0) ||
	    sim_on_a_stack(ptr) || sim_kernel_is_stack(ptr)) {
		sim_memory_drain();
		return;
	}
	if (buffer->count == STORES_MAX)
		let_out(sim_thread_id(self), 0);
	memory.lingers = true;
	memory.coming = (struct store){
		.ptr = ptr, .size = size, .release = order != memory_order_relaxed,
		.before = read_word(ptr, size), .since_ns = sim_now_ns(),
		.due_ns = sim_now_ns() + ns,
		.where = where,
	};
}

void gyre__sim_store_end(void)
{
	struct store *store = &memory.coming;
	struct buffer *buffer;

	if (!memory.lingers)
		return;
	buffer = buffer_of(sim_self());
	store->value = read_word(store->ptr, store->size);
	buffer->stores[buffer->count++] = *store;
	if (memory.used < sim_thread_id(sim_self()))
		memory.used = sim_thread_id(sim_self());
	if (store->due_ns < memory.next_ns)
		memory.next_ns = store->due_ns;
}

/* ---------------------------------------------------------- begin, end -- */

void sim_memory_prepare(void)
{
	buffers = calloc(SIM_THREADS_MAX + 1, sizeof(*buffers));
	if (!buffers)
		abort();
}

void sim_memory_begin(enum sim_memory kind, uint64_t course)
{
	unsigned i;

	if (kind == SIM_MEMORY_BY_SEED)
		kind = course % 8 < 5 ? SIM_SC : course % 8 < 7 ? SIM_TSO : SIM_PSO;
	for (i = 0; i <= SIM_THREADS_MAX; i++)
		buffers[i].count = 0;
	memory.kind = kind;
	memory.lazy = (course >> 8) % 2 ? 1000 : 200;
	memory.octaves = 1 + (unsigned)((course >> 16) % 14);
	memory.used = 0;
	memory.next_ns = SIM_NEVER;
}

const char *sim_memory_name(void)
{
	return kind_names[memory.kind];
}

uint64_t sim_memory_longest_ns(void)
{
	return memory.kind == SIM_SC ? 0 : (uint64_t)LINGER_NS << memory.octaves;
}
