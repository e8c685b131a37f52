/* SPDX-License-Identifier: MIT */
/*
 * A histogram of latencies, log-linear: exact below 128, from there on 64
 * steps to each doubling, so a value is known to 1/64, about 1.6 %.
 *
 * Each thread fills one of its own; they are merged when the threads are gone.
 */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include <stdint.h>

#define BENCH_HIST_SUB_BITS	6
#define BENCH_HIST_SUB		(1u << BENCH_HIST_SUB_BITS)
/* One row of steps for each possible highest bit, and one for what is smaller than a row. */
#define BENCH_HIST_BUCKETS	((64 - BENCH_HIST_SUB_BITS + 1) * BENCH_HIST_SUB)

struct bench_hist {
	uint64_t count;
	uint64_t max;
	uint64_t bucket[BENCH_HIST_BUCKETS];
};

static inline unsigned bench_hist_index(uint64_t value)
{
	unsigned shift;

	if (value < BENCH_HIST_SUB)
		return (unsigned)value;
	shift = 63u - (unsigned)__builtin_clzll(value) - BENCH_HIST_SUB_BITS;
	return shift * BENCH_HIST_SUB + (unsigned)(value >> shift);
}

/* n operations that took value each: a batch's operations all take as long as the batch. */
static inline void bench_hist_add(struct bench_hist *hist, uint64_t value, uint64_t n)
{
	hist->bucket[bench_hist_index(value)] += n;
	hist->count += n;
	if (value > hist->max)
		hist->max = value;
}

void bench_hist_merge(struct bench_hist *into, const struct bench_hist *from);

/* The value that a share of 0..1 of all values does not exceed; 0 when there are none. */
double bench_hist_quantile(const struct bench_hist *hist, double share);

#endif
