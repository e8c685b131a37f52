/* SPDX-License-Identifier: MIT */
/* lib/method: which way is learnt, from writes that take as long as the test says. */
#include <string.h>

#include "helpers.h"
#include "lib/method.h"
#include "ring/sys.h"

#define DEVICE	7u
#define ALL	(GYRE__METHOD_BIT(GYRE__METHOD_HERE) | GYRE__METHOD_BIT(GYRE__METHOD_RING) | \
		 GYRE__METHOD_BIT(GYRE__METHOD_GROUP) | GYRE__METHOD_BIT(GYRE__METHOD_JOIN))
#define FEW	8u		/* callers: the class in the middle */
#define ENOUGH	20000u		/* writes, until the start is over and others were tried again */
#define NEARLY_ALL	(ENOUGH * (FEW - 2) / FEW * 90 / 100)

static const struct gyre__sys *before;
static struct gyre__sys table;
static uint64_t now_ns, cpu_ns;

static uint64_t told_now_ns(void)
{
	return now_ns;
}

static uint64_t told_cpu_ns(void)
{
	return cpu_ns;
}

/* A device: what a call takes by each method while FEW are under way, and what it costs. */
struct device {
	struct gyre__methods methods;
	uint64_t takes_ns[GYRE__METHODS], costs_ns[GYRE__METHODS];
	uint32_t used[GYRE__METHODS];
};

static void device_begin(struct device *device, uint64_t here_ns, uint64_t ring_ns,
			 uint64_t group_ns, uint64_t join_ns)
{
	enum gyre__method method;

	memset(device, 0, sizeof(*device));
	device->takes_ns[GYRE__METHOD_HERE] = here_ns;
	device->takes_ns[GYRE__METHOD_RING] = ring_ns;
	device->takes_ns[GYRE__METHOD_GROUP] = group_ns;
	device->takes_ns[GYRE__METHOD_JOIN] = join_ns;
	for (method = 0; method < GYRE__METHODS; method++)
		device->costs_ns[method] = 1000;
	before = gyre__sys;
	table = *before;
	table.now_ns = told_now_ns;
	table.cpu_ns = told_cpu_ns;
	gyre__sys = &table;
	now_ns = cpu_ns = 1;
}

static void device_end(void)
{
	gyre__sys = before;
}

/* Callers in step: all begin, then all end. Counts who used what, without the first of many. */
static void device_write(struct device *device, uint32_t writes, unsigned callers)
{
	struct gyre__choice choices[64];
	uint64_t began_ns;
	unsigned i;

	memset(device->used, 0, sizeof(device->used));
	for (; writes >= callers; writes -= callers) {
		began_ns = now_ns;
		for (i = 0; i < callers; i++)
			gyre__method_choose(&device->methods, DEVICE, true, ALL, &choices[i]);
		for (i = 0; i < callers; i++) {
			device->used[choices[i].method] += callers < FEW || choices[i].class > 0;
			now_ns = began_ns + device->takes_ns[choices[i].method];
			cpu_ns += device->costs_ns[choices[i].method];
			gyre__method_done(&choices[i], true);
		}
	}
}

TEST(the_fastest_way_is_found_and_kept)
{
	struct device device;
	unsigned i;

	for (i = 0; i < GYRE__METHODS; i++) {
		test_row("%u", i);
		device_begin(&device, 150000, 150000, 150000, 150000);
		device.takes_ns[i] = 100000;
		device_write(&device, ENOUGH, FEW);
		device_write(&device, ENOUGH, FEW);
		expect_ge(device.used[i], NEARLY_ALL);
		device_end();
	}
}

TEST(a_way_that_is_much_slower_is_hardly_used)
{
	struct device device;

	device_begin(&device, 100000, 900000, 900000, 900000);
	device_write(&device, ENOUGH, FEW);
	expect_ge(device.used[GYRE__METHOD_RING], 1);
	expect_ge(device.used[GYRE__METHOD_GROUP], 1);
	expect_ge(device.used[GYRE__METHOD_JOIN], 1);
	/* 3 phases each, and a few tries after, of a quarter of 256 and who was under way. */
	expect_ge(1400, device.used[GYRE__METHOD_RING] + device.used[GYRE__METHOD_GROUP] +
			device.used[GYRE__METHOD_JOIN]);
	device_end();
}

TEST(one_or_two_callers_are_not_sent_to_a_ring)
{
	struct device device;

	device_begin(&device, 100000, 10, 100000, 10);
	device_write(&device, ENOUGH, 1);
	expect_eq(device.used[GYRE__METHOD_RING], 0);
	expect_eq(device.used[GYRE__METHOD_JOIN], 0);
	device_end();
}

TEST(ways_that_are_as_fast_are_told_apart_by_their_cpu)
{
	struct device device;

	device_begin(&device, 100000, 102000, 104000, 106000);
	device.costs_ns[GYRE__METHOD_GROUP] = 500;
	device_write(&device, ENOUGH, FEW);
	device_write(&device, ENOUGH, FEW);
	expect_ge(device.used[GYRE__METHOD_GROUP], NEARLY_ALL);
	device.costs_ns[GYRE__METHOD_RING] = 200;
	device_write(&device, 10 * ENOUGH, FEW);
	device_write(&device, ENOUGH, FEW);
	expect_ge(device.used[GYRE__METHOD_RING], NEARLY_ALL);
	device_end();
}

TEST(what_slows_all_ways_alike_changes_nothing)
{
	struct device device;
	enum gyre__method method;
	unsigned round;

	device_begin(&device, 100000, 130000, 130000, 130000);
	device_write(&device, ENOUGH, FEW);
	for (round = 0; round < 6; round++) {
		for (method = 0; method < GYRE__METHODS; method++)
			device.takes_ns[method] = round % 2 ? device.takes_ns[method] / 5 :
							      device.takes_ns[method] * 5;
		device_write(&device, ENOUGH, FEW);
		expect_ge(device.used[GYRE__METHOD_HERE], NEARLY_ALL);
	}
	device_end();
}

TEST(a_way_that_has_become_faster_is_found)
{
	struct device device;

	device_begin(&device, 100000, 200000, 200000, 200000);
	device_write(&device, ENOUGH, FEW);
	device.takes_ns[GYRE__METHOD_GROUP] = 50000;
	device_write(&device, 10 * ENOUGH, FEW);
	device_write(&device, ENOUGH, FEW);
	expect_ge(device.used[GYRE__METHOD_GROUP], NEARLY_ALL);
	device_end();
}

TEST_MAIN()
