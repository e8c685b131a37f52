/* SPDX-License-Identifier: MIT */
/*
 * Every atomic of the library goes through these macros: plain C11 here, and
 * one place to make each of them a point where a simulated scheduler may
 * switch threads. The order is written out at each use (relaxed, acquire,
 * release, acq_rel, seq_cst), and so is the line that it pairs with.
 */
#ifndef GYRE_RING_ATOMIC_H
#define GYRE_RING_ATOMIC_H

#include <stdatomic.h>

#define gyre__load(ptr, order) \
	atomic_load_explicit((ptr), memory_order_##order)
#define gyre__store(ptr, value, order) \
	atomic_store_explicit((ptr), (value), memory_order_##order)
#define gyre__exchange(ptr, value, order) \
	atomic_exchange_explicit((ptr), (value), memory_order_##order)
#define gyre__fetch_add(ptr, value, order) \
	atomic_fetch_add_explicit((ptr), (value), memory_order_##order)
#define gyre__fetch_sub(ptr, value, order) \
	atomic_fetch_sub_explicit((ptr), (value), memory_order_##order)
/* Where it fails, what was found instead has been acquired. */
#define gyre__cas(ptr, expected, value, order) \
	atomic_compare_exchange_strong_explicit((ptr), (expected), (value), \
						memory_order_##order, memory_order_acquire)

/*
 * One writer, any reader, each value for itself: counters and gauges, on which
 * nothing depends but what gyre_stats_get() says.
 */
#ifndef GYRE_WITHOUT_STATISTICS
#define gyre__count(ptr, n) \
	gyre__store((ptr), gyre__load((ptr), relaxed) + (n), relaxed)
#define gyre__show(ptr, value) \
	gyre__store((ptr), (value), relaxed)
#else
#define gyre__count(ptr, n)		((void)(ptr), (void)(n))
#define gyre__show(ptr, value)		((void)(ptr), (void)(value))
#endif

/*
 * Words that the kernel shares with us are plain integers in liburing's
 * structures; these give them the same treatment.
 */
#define gyre__load_shared(ptr)		__atomic_load_n((ptr), __ATOMIC_ACQUIRE)
#define gyre__store_shared(ptr, value)	__atomic_store_n((ptr), (value), __ATOMIC_RELEASE)

#ifdef GYRE_SIM
/*
 * The simulation build (tests/sim): before each of them the seeded scheduler
 * may switch threads, and then looks whether the word is still anybody's. A
 * store may sit in its thread's store buffer for a while; whatever changes a
 * word by looking at it empties the buffer first. Counters are left alone, as
 * nothing is decided by them, and so are the kernel's words.
 */
void gyre__sim_point(const char *where, const volatile void *ptr);
void gyre__sim_rmw(const char *where, const volatile void *ptr);
void gyre__sim_store_begin(const char *where, volatile void *ptr, unsigned size, int order);
void gyre__sim_store_end(void);
/* For the account of what was reached. */
void gyre__sim_edge(unsigned from, unsigned to);

#define GYRE__SIM_TEXT_(line)	#line
#define GYRE__SIM_TEXT(line)	GYRE__SIM_TEXT_(line)
#define gyre__sim_here(what)	what " " __FILE__ ":" GYRE__SIM_TEXT(__LINE__)

#undef gyre__load
#define gyre__load(ptr, order) \
	(gyre__sim_point(gyre__sim_here("load"), (ptr)), \
	 atomic_load_explicit((ptr), memory_order_##order))
#undef gyre__store
#define gyre__store(ptr, value, order) \
	__extension__ ({ \
		__typeof__(value) gyre__stored = (value); \
		gyre__sim_store_begin(gyre__sim_here("store"), (ptr), sizeof(*(ptr)), \
				      memory_order_##order); \
		atomic_store_explicit((ptr), gyre__stored, memory_order_##order); \
		gyre__sim_store_end(); \
	})
#undef gyre__exchange
#define gyre__exchange(ptr, value, order) \
	(gyre__sim_rmw(gyre__sim_here("exchange"), (ptr)), \
	 atomic_exchange_explicit((ptr), (value), memory_order_##order))
#undef gyre__fetch_add
#define gyre__fetch_add(ptr, value, order) \
	(gyre__sim_rmw(gyre__sim_here("fetch_add"), (ptr)), \
	 atomic_fetch_add_explicit((ptr), (value), memory_order_##order))
#undef gyre__fetch_sub
#define gyre__fetch_sub(ptr, value, order) \
	(gyre__sim_rmw(gyre__sim_here("fetch_sub"), (ptr)), \
	 atomic_fetch_sub_explicit((ptr), (value), memory_order_##order))
#undef gyre__cas
#define gyre__cas(ptr, expected, value, order) \
	(gyre__sim_rmw(gyre__sim_here("cas"), (ptr)), \
	 atomic_compare_exchange_strong_explicit((ptr), (expected), (value), \
						 memory_order_##order, memory_order_acquire))
#undef gyre__count
#define gyre__count(ptr, n) \
	atomic_store_explicit((ptr), atomic_load_explicit((ptr), memory_order_relaxed) + (n), \
			      memory_order_relaxed)
#undef gyre__load_shared
#define gyre__load_shared(ptr) \
	(gyre__sim_point(gyre__sim_here("load_shared"), (ptr)), \
	 __atomic_load_n((ptr), __ATOMIC_ACQUIRE))
#undef gyre__store_shared
#define gyre__store_shared(ptr, value) \
	(gyre__sim_point(gyre__sim_here("store_shared"), (ptr)), \
	 __atomic_store_n((ptr), (value), __ATOMIC_RELEASE))
#else
#define gyre__sim_edge(from, to)	((void)0)
#endif

/*
 * A hint: this line is about to be written. Spelled out for x86-64, where the
 * compiler, asked for the oldest of its CPUs, makes a plain prefetch of it.
 */
static inline void gyre__prefetch_for_write(const void *ptr)
{
#if defined(__x86_64__)
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)ptr));
#else
	__builtin_prefetch(ptr, 1);
#endif
}

/*
 * What two threads write in turn gets a line of its own; a pair of them, as
 * prefetchers fetch lines in pairs.
 */
#define GYRE__CACHE_LINE	64
#define GYRE__OWN_LINE		__attribute__((__aligned__(2 * GYRE__CACHE_LINE)))

#endif
