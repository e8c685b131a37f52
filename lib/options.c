/* SPDX-License-Identifier: MIT */
/*
 * The options are copied first, whole and as bytes, so that the caller's struct
 * is read once, whatever its size and alignment. Then each row of a table takes
 * one field of the copy from what the caller gave to what will be used: the
 * field if it is not zero, else its environment variable, else its default.
 */
#define _GNU_SOURCE
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring/sys.h"
#include "thread.h"

#define FUNCTION "gyre_open"

/* Each version's size of the struct, for programs that were compiled then. */
#define OPTIONS_SIZE_0_1 (offsetof(struct gyre_options, reserved) + sizeof(unsigned))
#define STATE_SIZE_0_1 (offsetof(struct gyre_state_type, arg) + sizeof(void *))
#define STRUCT_SIZE_MAX 4096

/* A new field has its row in option_rows, or its own lines in check_options. */
_Static_assert(sizeof(void *) != 8 || sizeof(struct gyre_options) == 96,
	       "struct gyre_options has grown: handle the new field");
_Static_assert(sizeof(void *) != 8 || sizeof(struct gyre_state_type) == 40,
	       "struct gyre_state_type has grown: handle the new field");

#define WORKERS_DEFAULT_MAX	64u
#define WORKERS_CPUS_EACH	4u

struct word {
	const char *text;
	uint64_t value;
};

static const struct word no_words[] = { { NULL, 0 } };
static const struct word spin_words[] = {
	{ "auto", GYRE_SPIN_AUTO }, { "never", GYRE_SPIN_NEVER }, { NULL, 0 }
};
static const struct word mode_words[] = {
	{ "fresh", GYRE_MODE_FRESH }, { "shared", GYRE_MODE_SHARED },
	{ "pooled", GYRE_MODE_POOLED }, { NULL, 0 }
};
static const struct word route_words[] = {
	{ "auto", GYRE__ROUTE_AUTO }, { "ring", GYRE__ROUTE_RING },
	{ "caller", GYRE__ROUTE_CALLER }, { NULL, 0 }
};

/* What the environment may say besides the row's words. */
enum syntax {
	WORD,			/* nothing */
	NUMBER,			/* decimal digits */
	SIZE			/* the same, and k, M or G */
};

struct option {
	const char *field;
	const char *variable;	/* NULL: the environment has no say */
	uint64_t fallback;
	uint64_t min, max;	/* what is allowed besides 0 */
	const struct word *words;
	enum syntax syntax;
	unsigned short at, width;	/* in struct gyre_options */
};

#define AT(field) offsetof(struct gyre_options, field), \
	sizeof(((struct gyre_options *)0)->field)

static const struct option option_rows[] = {
	{ "workers", "GYRE_WORKERS", 0, 1, GYRE__WORKERS_MAX,
		no_words, NUMBER, AT(workers) },
	{ "ring_entries", "GYRE_RING_ENTRIES", 256, 1, GYRE__RING_ENTRIES_MAX,
		no_words, NUMBER, AT(ring_entries) },
	{ "inflight_max", "GYRE_INFLIGHT_MAX", 2048, 1, GYRE__INFLIGHT_MAX,
		no_words, NUMBER, AT(inflight_max) },
	{ "spin_ns", "GYRE_SPIN_NS", GYRE_SPIN_AUTO, 1, UINT64_MAX,
		spin_words, NUMBER, AT(spin_ns) },
	{ "stack_size", "GYRE_STACK_SIZE", 64 << 10, 16 << 10, 1 << 30,
		no_words, SIZE, AT(stack_size) },
	{ "arena_max", "GYRE_ARENA_MAX", 64 << 20, 4096, SIZE_MAX,
		no_words, SIZE, AT(arena_max) },
	{ "mode", "GYRE_MODE", GYRE_MODE_FRESH, GYRE_MODE_FRESH, GYRE_MODE_POOLED,
		mode_words, WORD, AT(mode) },
	{ "pool_size", "GYRE_POOL_SIZE", 1000, 1, 1000000,
		no_words, NUMBER, AT(pool_size) },
	{ "drain_ns", NULL, 5 * GYRE__NS_PER_S, 1, UINT64_MAX,
		no_words, NUMBER, AT(drain_ns) },
	{ "offload_threads", "GYRE_OFFLOAD_THREADS", 16, 1, 1024,
		no_words, NUMBER, AT(offload_threads) },
};

static const struct option route_row = {
	.variable = "GYRE_ROUTE", .words = route_words, .syntax = WORD,
};

static uint64_t field_get(const struct gyre_options *options, const struct option *row)
{
	uint32_t narrow;
	uint64_t wide;

	if (row->width == sizeof(narrow)) {
		memcpy(&narrow, (const char *)options + row->at, sizeof(narrow));
		return narrow;
	}
	GYRE_ASSERT(row->width == sizeof(wide));
	memcpy(&wide, (const char *)options + row->at, sizeof(wide));
	return wide;
}

static void field_set(struct gyre_options *options, const struct option *row, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;

	if (row->width == sizeof(narrow))
		memcpy((char *)options + row->at, &narrow, sizeof(narrow));
	else
		memcpy((char *)options + row->at, &value, sizeof(value));
}

/* "auto, never, or a number from 1 to 1024" */
static void describe(const struct option *row, char *ret, size_t size)
{
	const struct word *word;
	int len = 0;

	ret[0] = '\0';
	for (word = row->words; word->text; word++) {
		const char *before = word == row->words ? "" : ", ";

		if (row->syntax == WORD && !word[1].text)
			before = " or ";
		len += snprintf(ret + len, size - (size_t)len, "%s%s", before, word->text);
	}
	if (row->syntax == WORD)
		return;
	len += snprintf(ret + len, size - (size_t)len, "%sa %s", len ? ", or " : "",
			row->syntax == SIZE ? "size (k, M or G may follow)" : "number");
	if (row->max == UINT64_MAX)
		snprintf(ret + len, size - (size_t)len, " from %llu on",
			 (unsigned long long)row->min);
	else
		snprintf(ret + len, size - (size_t)len, " from %llu to %llu",
			 (unsigned long long)row->min, (unsigned long long)row->max);
}

/* Decimal digits and, for a size, at most one letter. 0, or -1 for anything else. */
static int parse_number(const char *text, enum syntax syntax, uint64_t *ret)
{
	uint64_t value = 0;
	unsigned shift = 0;

	if (*text < '0' || *text > '9')
		return -1;
	for (; *text >= '0' && *text <= '9'; text++) {
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return -1;
	}
	if (syntax == SIZE && *text) {
		if (*text == 'k' || *text == 'K')
			shift = 10;
		else if (*text == 'M')
			shift = 20;
		else if (*text == 'G')
			shift = 30;
		else
			return -1;
		text++;
	}
	if (*text || value > UINT64_MAX >> shift)
		return -1;
	*ret = value << shift;
	return 0;
}

static int parse(const struct option *row, const char *text, uint64_t *ret)
{
	const struct word *word;

	for (word = row->words; word->text; word++) {
		if (strcmp(word->text, text) == 0) {
			*ret = word->value;
			return 0;
		}
	}
	return row->syntax == WORD ? -1 : parse_number(text, row->syntax, ret);
}

static int allowed(const struct option *row, uint64_t value)
{
	return value == 0 || (value >= row->min && value <= row->max);
}

/* *ret is left alone where the variable says nothing. */
static enum gyre_status from_environment(const struct option *row, uint64_t *ret)
{
	const char *text = secure_getenv(row->variable);
	char accepts[128];
	uint64_t value;

	if (!text || !*text)
		return GYRE_OK;
	if (parse(row, text, &value) == 0 && (row->syntax == WORD || allowed(row, value))) {
		*ret = value;
		return GYRE_OK;
	}
	describe(row, accepts, sizeof(accepts));
	return gyre__fail(FUNCTION, GYRE_INVALID,
			  "the environment variable %s is \"%.40s\"; it takes %s",
			  row->variable, text, accepts);
}

static enum gyre_status resolve_field(struct gyre_options *options, const struct option *row)
{
	uint64_t value = field_get(options, row);
	enum gyre_status status;
	char accepts[128];

	if (!allowed(row, value)) {
		describe(row, accepts, sizeof(accepts));
		return gyre__fail(FUNCTION, GYRE_INVALID,
				  "the option %s is %llu; it takes %s, or 0 for the default",
				  row->field, (unsigned long long)value, accepts);
	}
	if (value == 0 && row->variable) {
		status = from_environment(row, &value);
		if (status != GYRE_OK)
			return status;
	}
	if (value == 0)
		value = row->fallback;
	field_set(options, row, value);
	return GYRE_OK;
}

/*
 * The law of structs that start with their size: copies what both sides know.
 * what names the struct for the text.
 */
static enum gyre_status copy_sized(const char *what, const void *from, size_t size_0_1,
				   void *to, size_t known)
{
	size_t size, i;

	memcpy(&size, from, sizeof(size));
	if (size < size_0_1)
		return gyre__fail(FUNCTION, GYRE_INVALID,
				  "the size in struct %s is %zu, version 0.1 has %zu; set it to "
				  "sizeof(struct %s)",
				  what, size, size_0_1, what);
	if (size > STRUCT_SIZE_MAX)
		return gyre__fail(FUNCTION, GYRE_INVALID,
				  "the size in struct %s is %zu, more than %d; set it to "
				  "sizeof(struct %s)",
				  what, size, STRUCT_SIZE_MAX, what);
	for (i = known; i < size; i++) {
		if (((const char *)from)[i])
			return gyre__fail(FUNCTION, GYRE_INVALID,
					  "struct %s has something set at byte %zu, and gyre %s "
					  "knows %zu; the program needs a newer library",
					  what, i, gyre_version(), known);
	}
	memcpy(to, from, size < known ? size : known);
	return GYRE_OK;
}

static enum gyre_status check_state(const struct gyre_state_type *state)
{
	struct gyre_state_type copy = { 0 };
	enum gyre_status status;

	if (!state)
		return GYRE_OK;
	status = copy_sized("gyre_state_type", state, STATE_SIZE_0_1, &copy, sizeof(copy));
	if (status != GYRE_OK)
		return status;
	if (!copy.create || !copy.destroy)
		return gyre__fail(FUNCTION, GYRE_INVALID,
				  "struct gyre_state_type has no %s; only reset may be NULL",
				  copy.create ? "destroy" : "create");
	return GYRE_OK;
}

static enum gyre_status check_options(const struct gyre_options *options)
{
	const unsigned known = GYRE_PIN_WORKERS | GYRE_ZERO_ARENAS;

	if (options->flags & ~known)
		return gyre__fail(FUNCTION, GYRE_INVALID,
				  "the option flags has 0x%x, which gyre %s does not know",
				  options->flags & ~known, gyre_version());
	if (options->reserved)
		return gyre__fail(FUNCTION, GYRE_INVALID,
				  "the option reserved is %u; it must be 0, "
				  "as GYRE_OPTIONS_INIT makes it", options->reserved);
	return check_state(options->state);
}

/* Measured: a worker feeds several CPUs of callers, and a second one on two CPUs adds nothing. */
static unsigned default_workers(void)
{
	unsigned workers = gyre__sys->cpu_count() / WORKERS_CPUS_EACH;

	if (workers < 1)
		return 1;
	return workers < WORKERS_DEFAULT_MAX ? workers : WORKERS_DEFAULT_MAX;
}

static void settings_fill(struct gyre__settings *settings, const struct gyre_options *options,
			  enum gyre__route route)
{
	const char *name = options->name && *options->name ? options->name : "gyre";

	memset(settings, 0, sizeof(*settings));
	memcpy(settings->name, name, strnlen(name, sizeof(settings->name) - 1));
	settings->workers = options->workers ? options->workers : default_workers();
	settings->ring_entries = options->ring_entries;
	settings->inflight_max = options->inflight_max;
	settings->flags = options->flags;
	settings->spin_ns = options->spin_ns;
	settings->stack_size = options->stack_size;
	settings->arena_max = options->arena_max;
	settings->mode = options->mode;
	settings->pool_size = options->pool_size;
	settings->state = options->state;
	settings->drain_ns = options->drain_ns;
	settings->stall_ns = options->stall_ns;
	settings->offload_threads = options->offload_threads;
	settings->route = route;
}

enum gyre_status gyre__options_resolve(const struct gyre_options *options,
				       struct gyre__settings *ret)
{
	struct gyre_options copy = GYRE_OPTIONS_INIT;
	uint64_t route = GYRE__ROUTE_AUTO;
	enum gyre_status status;
	size_t i;

	if (options) {
		status = copy_sized("gyre_options", options, OPTIONS_SIZE_0_1,
				    &copy, sizeof(copy));
		if (status != GYRE_OK)
			return status;
	}
	status = check_options(&copy);
	if (status != GYRE_OK)
		return status;
	for (i = 0; i < sizeof(option_rows) / sizeof(option_rows[0]); i++) {
		status = resolve_field(&copy, &option_rows[i]);
		if (status != GYRE_OK)
			return status;
	}
	status = from_environment(&route_row, &route);
	if (status != GYRE_OK)
		return status;
	settings_fill(ret, &copy, (enum gyre__route)route);
	return GYRE_OK;
}
