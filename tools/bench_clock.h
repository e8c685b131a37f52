/* SPDX-License-Identifier: MIT */
/*
 * Two clocks. bench_now_ns() is CLOCK_MONOTONIC, for windows and time-outs.
 * bench_ticks() stamps each operation, so it must be cheap: the time stamp
 * counter where it can be trusted, else CLOCK_MONOTONIC again.
 */
#ifndef BENCH_CLOCK_H
#define BENCH_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#include <x86intrin.h>
#define BENCH_HAVE_TSC	1
#endif

#define BENCH_NS_PER_S	UINT64_C(1000000000)

/* Written once by bench_clock_init(), before any other thread exists. */
struct bench_clock {
	bool tsc;
	double ns_per_tick;
};
extern struct bench_clock bench_clock;

/* Takes 50 ms where there is a time stamp counter to calibrate. */
void bench_clock_init(void);

static inline uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * BENCH_NS_PER_S + (uint64_t)now.tv_nsec;
}

static inline uint64_t bench_ticks(void)
{
#ifdef BENCH_HAVE_TSC
	if (bench_clock.tsc)
		return __rdtsc();
#endif
	return bench_now_ns();
}

/* Between two passes of a loop that spins. */
static inline void bench_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

static inline struct timespec bench_timespec(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / BENCH_NS_PER_S),
		.tv_nsec = (long)(ns % BENCH_NS_PER_S),
	};

	return ts;
}

void bench_sleep_until(uint64_t deadline_ns);

#endif
