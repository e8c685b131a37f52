/* SPDX-License-Identifier: MIT */
/*
 * A thin layer on libcheck: each test runs in a process of its own, in a thread
 * of its own, with the leak check around it, and is reported as one line of TAP.
 *
 *	TEST(call_after_close_says_closed)
 *	{
 *		...
 *		expect_status(gyre_call(rt, prep_nop, NULL, NULL), GYRE_CLOSED);
 *	}
 *
 *	TEST_MAIN()
 *
 * The environment: CK_FORK=no runs the tests in this process, where a failed
 * expectation aborts, for a debugger. GYRE_TEST_ONLY=text runs the tests whose
 * name contains text. GYRE_TEST_SIDE_BY_SIDE=1 runs all of them at once.
 * GYRE_TEST_SEED=n repeats a randomised run. GYRE_TEST_LENGTH=n makes the soaks
 * n times as long. CK_TIMEOUT_MULTIPLIER, as in libcheck.
 */
#ifndef GYRE_TESTS_HARNESS_H
#define GYRE_TESTS_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_THREAD__)
#define TEST_UNDER_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define TEST_UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEST_UNDER_TSAN 1
#elif __has_feature(address_sanitizer)
#define TEST_UNDER_ASAN 1
#endif
#endif
#ifndef TEST_UNDER_TSAN
#define TEST_UNDER_TSAN 0
#endif
#ifndef TEST_UNDER_ASAN
#define TEST_UNDER_ASAN 0
#endif
#define TEST_UNDER_SANITIZER (TEST_UNDER_TSAN || TEST_UNDER_ASAN)

struct test {
	const char *name;
	void (*fn)(void);
	struct test *next;
};

void test_register(struct test *test);
int test_main(const char *file);

/* Registers itself; tests run in the order of the file. */
#define TEST(name_) \
	static void name_(void); \
	__attribute__((__constructor__)) static void name_##_register(void) \
	{ \
		static struct test test = { #name_, name_, NULL }; \
\
		test_register(&test); \
	} \
	static void name_(void)

#define TEST_MAIN() \
	int main(void) \
	{ \
		return test_main(__FILE__); \
	}

/* Ends the test as skipped, for what this machine lacks. From the test's own thread. */
void test_skip(const char *format, ...)
	__attribute__((__noreturn__, __format__(__printf__, 1, 2)));

/* From any thread, and from forked children of the test. */
void test_fail_at(const char *file, int line, const char *format, ...)
	__attribute__((__noreturn__, __format__(__printf__, 3, 4)));
#define test_fail(...) test_fail_at(__FILE__, __LINE__, __VA_ARGS__)

/* Which row of a table this is, for the message of a failure. */
void test_row(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));

/* Written as a TAP comment: figures that are told, not judged. */
void test_note(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));

/* A loop count: a fifth under a sanitizer, times GYRE_TEST_LENGTH. At least 1. */
unsigned test_times(unsigned count);

/* The seed of this run and test, and numbers from it. State is the caller's: one a thread. */
uint64_t test_seed(void);
uint64_t test_random(uint64_t *state);
/* 0 to below */
unsigned test_random_below(uint64_t *state, unsigned below);

#define expect(cond) \
	((cond) ? (void)0 : test_fail("expected: %s", #cond))

/* The texts come along, as a macro's argument is expanded on its way. */
#define expect_int_(got_, op_, want_, got_text_, want_text_) \
	do { \
		long long test_got_ = (long long)(got_); \
		long long test_want_ = (long long)(want_); \
\
		if (!(test_got_ op_ test_want_)) \
			test_fail("%s is %lld, expected %s %lld (%s)", got_text_, test_got_, #op_, \
				  test_want_, want_text_); \
	} while (0)
#define expect_eq(got, want) expect_int_(got, ==, want, #got, #want)
#define expect_ne(got, want) expect_int_(got, !=, want, #got, #want)
#define expect_lt(got, want) expect_int_(got, <, want, #got, #want)
#define expect_le(got, want) expect_int_(got, <=, want, #got, #want)
#define expect_gt(got, want) expect_int_(got, >, want, #got, #want)
#define expect_ge(got, want) expect_int_(got, >=, want, #got, #want)

#define expect_str(got_, want_) \
	test_expect_str_at(__FILE__, __LINE__, #got_, (got_), (want_))
#define expect_contains(got_, part_) \
	test_expect_contains_at(__FILE__, __LINE__, #got_, (got_), (part_))
void test_expect_str_at(const char *file, int line, const char *what, const char *got,
			const char *want);
void test_expect_contains_at(const char *file, int line, const char *what, const char *got,
			     const char *part);

#endif
