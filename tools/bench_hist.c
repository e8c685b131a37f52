/* SPDX-License-Identifier: MIT */
#include "bench_hist.h"

void bench_hist_merge(struct bench_hist *into, const struct bench_hist *from)
{
	unsigned i;

	for (i = 0; i < BENCH_HIST_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
	into->count += from->count;
	if (from->max > into->max)
		into->max = from->max;
}

/* The middle of a bucket: the guess that is wrong by the least. */
static double bucket_value(unsigned index)
{
	uint64_t lowest;
	unsigned shift;

	if (index < 2 * BENCH_HIST_SUB)
		return index;
	shift = index / BENCH_HIST_SUB - 1;
	lowest = (uint64_t)(index % BENCH_HIST_SUB + BENCH_HIST_SUB) << shift;
	return (double)lowest + (double)(UINT64_C(1) << shift) / 2;
}

double bench_hist_quantile(const struct bench_hist *hist, double share)
{
	double exact = share * (double)hist->count;
	uint64_t wanted = (uint64_t)exact;
	uint64_t passed = 0;
	double value;
	unsigned i;

	if (hist->count == 0)
		return 0;
	if (wanted == 0 || (double)wanted < exact)
		wanted++;
	for (i = 0; i < BENCH_HIST_BUCKETS; i++) {
		passed += hist->bucket[i];
		if (passed >= wanted) {
			value = bucket_value(i);
			return value < (double)hist->max ? value : (double)hist->max;
		}
	}
	return (double)hist->max;
}
