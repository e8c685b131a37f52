/* SPDX-License-Identifier: MIT */
#include "bench_clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#ifdef BENCH_HAVE_TSC
#include <cpuid.h>
#endif

#define CALIBRATION_NS	UINT64_C(50000000)

struct bench_clock bench_clock = { .tsc = false, .ns_per_tick = 1.0 };

void bench_sleep_until(uint64_t deadline_ns)
{
	struct timespec ts = bench_timespec(deadline_ns);

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

#ifdef BENCH_HAVE_TSC

/*
 * The counter must tick at one rate whatever the CPU's frequency and idle
 * state (the invariant bit), and alike on every CPU, since threads migrate.
 * Of the second only the kernel knows: it keeps its own time by the counter,
 * or by a hypervisor's clock made of it, only where it has found that true.
 */
static bool tsc_is_trusted(void)
{
	static const char path[] =
		"/sys/devices/system/clocksource/clocksource0/current_clocksource";
	unsigned eax, ebx, ecx, edx;
	char name[64] = "";
	FILE *file;

	if (!__get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) || !(edx & (1u << 8)))
		return false;
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(name, sizeof(name), file))
		name[0] = '\0';
	fclose(file);
	name[strcspn(name, "\n")] = '\0';
	return strcmp(name, "tsc") == 0 || strcmp(name, "kvm-clock") == 0 ||
	       strcmp(name, "hyperv_clocksource_tsc_page") == 0;
}

void bench_clock_init(void)
{
	uint64_t start_ns, start, end_ns, end;

	if (!tsc_is_trusted())
		return;
	start_ns = bench_now_ns();
	start = __rdtsc();
	bench_sleep_until(start_ns + CALIBRATION_NS);
	end_ns = bench_now_ns();
	end = __rdtsc();
	if (end <= start)
		return;
	bench_clock.ns_per_tick = (double)(end_ns - start_ns) / (double)(end - start);
	bench_clock.tsc = true;
}

#else

void bench_clock_init(void)
{
}

#endif
