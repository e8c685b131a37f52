/* SPDX-License-Identifier: MIT */
/* The words and numbers of the statuses, and of their numbers that are none. */
#include <ctype.h>
#include <errno.h>
#include <gyre.h>
#include <limits.h>
#include <string.h>

#include "harness.h"

static const struct {
	enum gyre_status status;
	const char *name;
	int err;
} rows[] = {
	{ GYRE_OK, "OK", 0 },
	{ GYRE_WORKER_DEAD, "WORKER_DEAD", EOWNERDEAD },
	{ GYRE_RESPONSE_LOST, "RESPONSE_LOST", ENOTRECOVERABLE },
	{ GYRE_TIMED_OUT, "TIMED_OUT", ETIMEDOUT },
	{ GYRE_CANCELLED, "CANCELLED", ECANCELED },
	{ GYRE_CLOSED, "CLOSED", ESHUTDOWN },
	{ GYRE_BUSY, "BUSY", EAGAIN },
	{ GYRE_NO_REACTOR, "NO_REACTOR", ENOTSUP },
	{ GYRE_WOULD_DEADLOCK, "WOULD_DEADLOCK", EDEADLK },
	{ GYRE_FROZEN, "FROZEN", EPERM },
	{ GYRE_NOT_FOUND, "NOT_FOUND", ENOENT },
	{ GYRE_EXISTS, "EXISTS", EEXIST },
	{ GYRE_INVALID, "INVALID", EINVAL },
	{ GYRE_NO_MEMORY, "NO_MEMORY", ENOMEM },
	{ GYRE_UNSUPPORTED, "UNSUPPORTED", ENOSYS },
	{ GYRE_SYSTEM, "SYSTEM", EIO },
};

static const int strangers[] = { -1, GYRE_SYSTEM + 1, 1000, INT_MAX, INT_MIN };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

TEST(each_status_has_its_name_and_errno)
{
	size_t i;

	expect_eq(COUNT(rows), GYRE_SYSTEM + 1);
	for (i = 0; i < COUNT(rows); i++) {
		test_row("%s", rows[i].name);
		expect_eq(rows[i].status, i);
		expect_str(gyre_status_name(rows[i].status), rows[i].name);
		expect_eq(gyre_status_errno(rows[i].status), -rows[i].err);
	}
}

TEST(each_text_is_one_sentence_of_its_own)
{
	const char *text;
	size_t i, k;

	for (i = 0; i < COUNT(rows); i++) {
		test_row("%s", rows[i].name);
		text = gyre_status_text(rows[i].status);
		expect_gt(strlen(text), 10);
		expect(isupper((unsigned char)text[0]));
		expect(text[strlen(text) - 1] == '.');
		expect(!strchr(text, '\n'));
		for (k = 0; k < i; k++)
			expect(strcmp(text, gyre_status_text(rows[k].status)) != 0);
	}
}

TEST(a_number_that_is_no_status_is_answered_too)
{
	size_t i;

	for (i = 0; i < COUNT(strangers); i++) {
		enum gyre_status status = (enum gyre_status)strangers[i];

		test_row("%d", strangers[i]);
		expect_str(gyre_status_name(status), "UNKNOWN");
		expect_contains(gyre_status_text(status), "no status");
		expect_eq(gyre_status_errno(status), -EINVAL);
	}
}

TEST(version_is_three_numbers)
{
	const char *c = gyre_version();
	int dots = 0;

	for (; *c; c++) {
		expect(isdigit((unsigned char)*c) || *c == '.');
		dots += *c == '.';
	}
	expect_eq(dots, 2);
}

TEST_MAIN()
