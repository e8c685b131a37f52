/* SPDX-License-Identifier: MIT */
/* What a runtime is opened with: the caller's options over the environment over defaults. */
#include <gyre.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "lib/options.h"
#include "ring/sys.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

/* Each option: where it stands, its variable, its default and its limits. */
static const struct row {
	const char *field;
	const char *variable;	/* NULL: none */
	uint64_t fallback;
	uint64_t min, max;
	size_t in, out, width;	/* in struct gyre_options, in the settings */
} rows[] = {
#define ROW(field, variable, fallback, min, max) \
	{ #field, variable, fallback, min, max, \
	  offsetof(struct gyre_options, field), offsetof(struct gyre__settings, field), \
	  sizeof(((struct gyre_options *)0)->field) }
	ROW(workers, "GYRE_WORKERS", 0, 1, 1024),
	ROW(ring_entries, "GYRE_RING_ENTRIES", 256, 1, 32768),
	ROW(inflight_max, "GYRE_INFLIGHT_MAX", 2048, 1, 65536),
	ROW(spin_ns, "GYRE_SPIN_NS", UINT64_MAX, 1, UINT64_MAX),
	ROW(stack_size, "GYRE_STACK_SIZE", 64 * KIB, 16 * KIB, GIB),
	ROW(arena_max, "GYRE_ARENA_MAX", 64 * MIB, 4096, SIZE_MAX),
	ROW(mode, "GYRE_MODE", GYRE_MODE_FRESH, GYRE_MODE_FRESH, GYRE_MODE_POOLED),
	ROW(pool_size, "GYRE_POOL_SIZE", 1000, 1, 1000000),
	ROW(drain_ns, NULL, 5 * GYRE__NS_PER_S, 1, UINT64_MAX),
	ROW(stall_ns, NULL, 0, 1, UINT64_MAX),
	ROW(offload_threads, "GYRE_OFFLOAD_THREADS", 16, 1, 1024),
};

static const char *const variables[] = {
	"GYRE_WORKERS", "GYRE_RING_ENTRIES", "GYRE_INFLIGHT_MAX", "GYRE_SPIN_NS",
	"GYRE_STACK_SIZE", "GYRE_ARENA_MAX", "GYRE_MODE", "GYRE_POOL_SIZE",
	"GYRE_OFFLOAD_THREADS", "GYRE_ROUTE",
};

/* Not the environment that the tests happen to run in. */
static void clear_environment(void)
{
	size_t i;

	for (i = 0; i < COUNT(variables); i++)
		unsetenv(variables[i]);
}

static uint64_t get(const void *base, size_t at, size_t width)
{
	uint32_t narrow;
	uint64_t wide;

	if (width == sizeof(narrow)) {
		memcpy(&narrow, (const char *)base + at, width);
		return narrow;
	}
	memcpy(&wide, (const char *)base + at, width);
	return wide;
}

static void put(void *base, size_t at, size_t width, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;

	memcpy((char *)base + at, width == sizeof(narrow) ? (void *)&narrow : (void *)&value,
	       width);
}

static struct gyre__settings resolve(const struct gyre_options *options)
{
	struct gyre__settings settings;

	memset(&settings, 0xa5, sizeof(settings));
	if (gyre__options_resolve(options, &settings) != GYRE_OK)
		test_fail("refused: %s", gyre_last_error());
	return settings;
}

/* Refused, in words that contain part, and the settings are left alone. */
static void expect_refused(const struct gyre_options *options, const char *part)
{
	struct gyre__settings settings, before;

	memset(&settings, 0xa5, sizeof(settings));
	before = settings;
	expect_eq(gyre__options_resolve(options, &settings), GYRE_INVALID);
	expect_eq(gyre_last_status(), GYRE_INVALID);
	expect_eq(gyre_last_effect(), GYRE_EFFECT_NONE);
	expect_contains(gyre_last_error(), "gyre_open");
	expect_contains(gyre_last_error(), part);
	expect(memcmp(&settings, &before, sizeof(settings)) == 0);
}

static const struct gyre__sys *honest;
static struct gyre__sys bent;
static unsigned cpus;

static unsigned count_cpus(void)
{
	return cpus;
}

/* ------------------------------------------------------------ defaults -- */

static void expect_defaults(const struct gyre__settings *settings)
{
	size_t i;

	for (i = 0; i < COUNT(rows); i++) {
		test_row("%s", rows[i].field);
		if (strcmp(rows[i].field, "workers") != 0)
			expect_eq(get(settings, rows[i].out, rows[i].width), rows[i].fallback);
	}
	expect_ge(settings->workers, 1);
	expect_str(settings->name, "gyre");
	expect_eq(settings->flags, 0);
	expect(!settings->state);
	expect_eq(settings->route, GYRE__ROUTE_AUTO);
}

TEST(no_options_are_all_defaults)
{
	struct gyre__settings settings;

	clear_environment();
	settings = resolve(NULL);
	expect_defaults(&settings);
}

TEST(blank_options_are_all_defaults)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;
	struct gyre__settings settings;

	clear_environment();
	settings = resolve(&options);
	expect_defaults(&settings);
}

TEST(workers_follow_the_cpus_when_nobody_says)
{
	static const struct {
		unsigned cpus, workers;
	} counts[] = {
		{ 0, 1 }, { 1, 1 }, { 2, 1 }, { 3, 1 }, { 4, 1 }, { 7, 1 }, { 8, 2 }, { 64, 16 },
		{ 255, 63 }, { 256, 64 }, { 1024, 64 }, { UINT_MAX, 64 },
	};
	size_t i;

	clear_environment();
	honest = gyre__sys;
	bent = *honest;
	bent.cpu_count = count_cpus;
	gyre__sys = &bent;
	for (i = 0; i < COUNT(counts); i++) {
		test_row("%u CPUs", counts[i].cpus);
		cpus = counts[i].cpus;
		expect_eq(resolve(NULL).workers, counts[i].workers);
	}
	gyre__sys = honest;
}

/* -------------------------------------------------------------- values -- */

TEST(explicit_values_are_taken_up_to_their_limits)
{
	size_t i;

	clear_environment();
	for (i = 0; i < COUNT(rows); i++) {
		const uint64_t values[] = { rows[i].min, rows[i].max };
		size_t k;

		for (k = 0; k < COUNT(values); k++) {
			struct gyre_options options = GYRE_OPTIONS_INIT;
			struct gyre__settings settings;

			test_row("%s %llu", rows[i].field, (unsigned long long)values[k]);
			put(&options, rows[i].in, rows[i].width, values[k]);
			settings = resolve(&options);
			expect_eq(get(&settings, rows[i].out, rows[i].width), values[k]);
		}
	}
}

TEST(explicit_values_past_their_limits_are_refused_by_name)
{
	size_t i;

	clear_environment();
	for (i = 0; i < COUNT(rows); i++) {
		uint64_t most = rows[i].width == 4 ? UINT32_MAX : UINT64_MAX;
		const uint64_t values[] = { rows[i].min - 1, rows[i].max + 1, 1 << 30, most };
		size_t k;

		for (k = 0; k < COUNT(values); k++) {
			struct gyre_options options = GYRE_OPTIONS_INIT;

			if (values[k] == 0 ||
			    (values[k] >= rows[i].min && values[k] <= rows[i].max))
				continue;
			test_row("%s %llu", rows[i].field, (unsigned long long)values[k]);
			put(&options, rows[i].in, rows[i].width, values[k]);
			expect_refused(&options, rows[i].field);
		}
	}
}

TEST(name_is_cut_so_that_a_number_still_fits)
{
	static const struct {
		const char *given, *used;
	} names[] = {
		{ NULL, "gyre" }, { "", "gyre" }, { "db", "db" }, { "elevenbytes", "elevenbytes" },
		{ "twelve-bytes", "twelve-byte" },
		{ "a name that is very much longer than a thread's", "a name that" },
	};
	struct gyre_options options = GYRE_OPTIONS_INIT;
	size_t i;

	clear_environment();
	for (i = 0; i < COUNT(names); i++) {
		test_row("%s", names[i].given ? names[i].given : "NULL");
		options.name = names[i].given;
		expect_str(resolve(&options).name, names[i].used);
	}
}

TEST(known_flags_are_taken_and_unknown_ones_refused)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;
	unsigned bit;

	clear_environment();
	options.flags = GYRE_PIN_WORKERS | GYRE_ZERO_ARENAS;
	expect_eq(resolve(&options).flags, options.flags);
	for (bit = 2; bit < 32; bit++) {
		options.flags = 1u << bit | GYRE_PIN_WORKERS;
		test_row("bit %u", bit);
		expect_refused(&options, "flags");
	}
}

TEST(reserved_must_be_zero)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;

	clear_environment();
	options.reserved = 1;
	expect_refused(&options, "reserved");
}

/* --------------------------------------------------------------- sizes -- */

/* Options of some later version: what this one knows, then more. */
struct later {
	struct gyre_options known;
	unsigned char more[8192];
};

TEST(options_of_the_wrong_size_are_refused)
{
	static const size_t sizes[] = {
		0, 1, sizeof(size_t), sizeof(struct gyre_options) - 1, 4097, 1 << 30, SIZE_MAX,
	};
	static struct later later;
	size_t i;

	clear_environment();
	for (i = 0; i < COUNT(sizes); i++) {
		test_row("size %zu", sizes[i]);
		later.known.size = sizes[i];
		expect_refused(&later.known, "size");
	}
}

TEST(larger_options_are_taken_while_the_rest_is_zero)
{
	static struct later later;
	size_t size;

	clear_environment();
	later.known.ring_entries = 8;
	for (size = sizeof(later.known); size <= 4096; size += 101) {
		test_row("size %zu", size);
		later.known.size = size;
		expect_eq(resolve(&later.known).ring_entries, 8);
	}
}

TEST(larger_options_with_something_of_tomorrow_are_refused)
{
	static struct later later;
	size_t last;

	clear_environment();
	later.known.size = 4096;
	last = 4096 - sizeof(later.known) - 1;
	later.more[0] = 1;
	expect_refused(&later.known, "newer library");
	later.more[0] = 0;
	later.more[last] = 0x80;
	expect_refused(&later.known, "newer library");
	later.more[last] = 0;
	later.more[last + 1] = 1;
	resolve(&later.known);
}

TEST(misaligned_options_are_read_all_the_same)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;
	char bytes[sizeof(options) + 1];

	clear_environment();
	options.inflight_max = 77;
	memcpy(bytes + 1, &options, sizeof(options));
	expect_eq(resolve((void *)(bytes + 1)).inflight_max, 77);
}

/* --------------------------------------------------------------- state -- */

static void *state_create(const char *key, void *arg)
{
	(void)key;
	return arg;
}

static void state_destroy(void *state, void *arg)
{
	(void)state;
	(void)arg;
}

TEST(state_is_handed_on_in_every_mode)
{
	struct gyre_state_type state = {
		.size = sizeof(state), .create = state_create, .destroy = state_destroy,
	};
	struct gyre_options options = GYRE_OPTIONS_INIT;
	int mode;

	clear_environment();
	options.state = &state;
	for (mode = GYRE_MODE_DEFAULT; mode <= GYRE_MODE_POOLED; mode++) {
		options.mode = (enum gyre_mode)mode;
		expect(resolve(&options).state == &state);
	}
}

TEST(modes_need_no_state)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;

	clear_environment();
	options.mode = GYRE_MODE_SHARED;
	expect_eq(resolve(&options).mode, GYRE_MODE_SHARED);
	options.mode = GYRE_MODE_POOLED;
	expect_eq(resolve(&options).mode, GYRE_MODE_POOLED);
}

TEST(state_that_is_not_whole_is_refused)
{
	static const struct {
		size_t size;
		int create, destroy;
		const char *part;
	} states[] = {
		{ 0, 1, 1, "size" },
		{ sizeof(struct gyre_state_type) - 1, 1, 1, "size" },
		{ 4097, 1, 1, "size" },
		{ SIZE_MAX, 1, 1, "size" },
		{ sizeof(struct gyre_state_type), 0, 1, "create" },
		{ sizeof(struct gyre_state_type), 1, 0, "destroy" },
		{ sizeof(struct gyre_state_type), 0, 0, "create" },
	};
	struct gyre_options options = GYRE_OPTIONS_INIT;
	struct gyre_state_type state = { 0 };
	size_t i;

	clear_environment();
	options.state = &state;
	for (i = 0; i < COUNT(states); i++) {
		test_row("row %zu", i);
		state.size = states[i].size;
		state.create = states[i].create ? state_create : NULL;
		state.destroy = states[i].destroy ? state_destroy : NULL;
		expect_refused(&options, states[i].part);
	}
}

/* --------------------------------------------------------- environment -- */

static const struct row *row_of(const char *field)
{
	size_t i;

	for (i = 0; i < COUNT(rows); i++)
		if (strcmp(rows[i].field, field) == 0)
			return &rows[i];
	test_fail("no row %s", field);
}

TEST(environment_overrides_defaults)
{
	static const struct {
		const char *field, *variable, *text;
		uint64_t value;
	} good[] = {
		{ "workers", "GYRE_WORKERS", "1", 1 },
		{ "workers", "GYRE_WORKERS", "1024", 1024 },
		{ "ring_entries", "GYRE_RING_ENTRIES", "32768", 32768 },
		{ "ring_entries", "GYRE_RING_ENTRIES", "0", 256 },
		{ "ring_entries", "GYRE_RING_ENTRIES", "", 256 },
		{ "ring_entries", "GYRE_RING_ENTRIES", "0000000000000000000000512", 512 },
		{ "inflight_max", "GYRE_INFLIGHT_MAX", "65536", 65536 },
		{ "spin_ns", "GYRE_SPIN_NS", "auto", GYRE_SPIN_AUTO },
		{ "spin_ns", "GYRE_SPIN_NS", "never", GYRE_SPIN_NEVER },
		{ "spin_ns", "GYRE_SPIN_NS", "20000", 20000 },
		{ "spin_ns", "GYRE_SPIN_NS", "18446744073709551615", UINT64_MAX },
		{ "stack_size", "GYRE_STACK_SIZE", "16384", 16 * KIB },
		{ "stack_size", "GYRE_STACK_SIZE", "128k", 128 * KIB },
		{ "stack_size", "GYRE_STACK_SIZE", "128K", 128 * KIB },
		{ "stack_size", "GYRE_STACK_SIZE", "1G", GIB },
		{ "arena_max", "GYRE_ARENA_MAX", "4k", 4096 },
		{ "arena_max", "GYRE_ARENA_MAX", "3M", 3 * MIB },
		{ "mode", "GYRE_MODE", "fresh", GYRE_MODE_FRESH },
		{ "mode", "GYRE_MODE", "shared", GYRE_MODE_SHARED },
		{ "mode", "GYRE_MODE", "pooled", GYRE_MODE_POOLED },
		{ "mode", "GYRE_MODE", "", GYRE_MODE_FRESH },
		{ "pool_size", "GYRE_POOL_SIZE", "1000000", 1000000 },
		{ "offload_threads", "GYRE_OFFLOAD_THREADS", "1024", 1024 },
	};
	struct gyre__settings settings;
	size_t i;

	for (i = 0; i < COUNT(good); i++) {
		const struct row *row = row_of(good[i].field);

		test_row("%s=%s", good[i].variable, good[i].text);
		clear_environment();
		setenv(good[i].variable, good[i].text, 1);
		settings = resolve(NULL);
		expect_eq(get(&settings, row->out, row->width), good[i].value);
	}
}

TEST(malformed_environment_is_refused_by_name_with_what_it_takes)
{
	static const struct {
		const char *variable, *text, *takes;
	} bad[] = {
		{ "GYRE_WORKERS", "1025", "from 1 to 1024" },
		{ "GYRE_WORKERS", "1073741824", "from 1 to 1024" },
		{ "GYRE_WORKERS", "-1", "from 1 to 1024" },
		{ "GYRE_WORKERS", "+1", "from 1 to 1024" },
		{ "GYRE_WORKERS", " 1", "from 1 to 1024" },
		{ "GYRE_WORKERS", "1 ", "from 1 to 1024" },
		{ "GYRE_WORKERS", "1k", "from 1 to 1024" },
		{ "GYRE_WORKERS", "0x4", "from 1 to 1024" },
		{ "GYRE_WORKERS", "two", "from 1 to 1024" },
		{ "GYRE_WORKERS", "4294967297", "from 1 to 1024" },
		{ "GYRE_WORKERS", "18446744073709551617", "from 1 to 1024" },
		{ "GYRE_RING_ENTRIES", "32769", "from 1 to 32768" },
		{ "GYRE_INFLIGHT_MAX", "65537", "from 1 to 65536" },
		{ "GYRE_SPIN_NS", "sometimes", "auto, never, or a number" },
		{ "GYRE_SPIN_NS", "Auto", "auto, never, or a number" },
		{ "GYRE_SPIN_NS", "1.5", "auto, never, or a number" },
		{ "GYRE_SPIN_NS", "18446744073709551616", "auto, never, or a number" },
		{ "GYRE_STACK_SIZE", "16383", "from 16384 to 1073741824" },
		{ "GYRE_STACK_SIZE", "2G", "from 16384 to 1073741824" },
		{ "GYRE_STACK_SIZE", "64kB", "k, M or G" },
		{ "GYRE_STACK_SIZE", "64 k", "k, M or G" },
		{ "GYRE_STACK_SIZE", "k", "k, M or G" },
		{ "GYRE_STACK_SIZE", "64m", "k, M or G" },
		{ "GYRE_ARENA_MAX", "4095", "from 4096" },
		{ "GYRE_ARENA_MAX", "17179869184G", "from 4096" },
		{ "GYRE_MODE", "0", "fresh, shared or pooled" },
		{ "GYRE_MODE", "1", "fresh, shared or pooled" },
		{ "GYRE_MODE", "Fresh", "fresh, shared or pooled" },
		{ "GYRE_MODE", "default", "fresh, shared or pooled" },
		{ "GYRE_POOL_SIZE", "1000001", "from 1 to 1000000" },
		{ "GYRE_OFFLOAD_THREADS", "1025", "from 1 to 1024" },
		{ "GYRE_ROUTE", "0", "auto, ring or caller" },
		{ "GYRE_ROUTE", "rings", "auto, ring or caller" },
	};
	size_t i;

	for (i = 0; i < COUNT(bad); i++) {
		test_row("%s=%s", bad[i].variable, bad[i].text);
		clear_environment();
		setenv(bad[i].variable, bad[i].text, 1);
		expect_refused(NULL, bad[i].variable);
		expect_contains(gyre_last_error(), bad[i].text);
		expect_contains(gyre_last_error(), bad[i].takes);
	}
}

TEST(explicit_values_override_the_environment_whatever_it_says)
{
	size_t i;

	for (i = 0; i < COUNT(rows); i++) {
		struct gyre_options options = GYRE_OPTIONS_INIT;
		struct gyre__settings settings;
		const char *const texts[] = { "17", "nonsense" };
		size_t k;

		if (!rows[i].variable)
			continue;
		put(&options, rows[i].in, rows[i].width, rows[i].max - 1);
		for (k = 0; k < COUNT(texts); k++) {
			test_row("%s=%s", rows[i].variable, texts[k]);
			clear_environment();
			setenv(rows[i].variable, texts[k], 1);
			settings = resolve(&options);
			expect_eq(get(&settings, rows[i].out, rows[i].width), rows[i].max - 1);
		}
	}
}

TEST(a_very_long_value_is_refused_with_its_beginning)
{
	static char text[100001];

	clear_environment();
	memset(text, '9', sizeof(text) - 1);
	setenv("GYRE_INFLIGHT_MAX", text, 1);
	expect_refused(NULL, "GYRE_INFLIGHT_MAX is \"9999999999");
	expect_lt(strlen(gyre_last_error()), 1000);
	expect_contains(gyre_last_error(), "from 1 to 65536");
}

TEST(route_comes_from_the_environment_alone)
{
	static const struct {
		const char *text;
		enum gyre__route route;
	} routes[] = {
		{ "", GYRE__ROUTE_AUTO }, { "auto", GYRE__ROUTE_AUTO },
		{ "ring", GYRE__ROUTE_RING }, { "caller", GYRE__ROUTE_CALLER },
	};
	size_t i;

	clear_environment();
	for (i = 0; i < COUNT(routes); i++) {
		test_row("\"%s\"", routes[i].text);
		setenv("GYRE_ROUTE", routes[i].text, 1);
		expect_eq(resolve(NULL).route, routes[i].route);
	}
}

TEST_MAIN()
