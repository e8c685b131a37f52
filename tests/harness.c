/* SPDX-License-Identifier: MIT */
/*
 * One srunner a test, so that each result is written as it comes. The child
 * that libcheck forks runs the test in a fresh thread, joins it, and then looks
 * for leaks: what the library keeps for a calling thread goes with that thread.
 *
 * Parent and child share a page: the child says there that it was skipped and
 * why, and that it came to its end; a child that exits on its way is a failure.
 */
#define _GNU_SOURCE
#include "harness.h"

#include <check.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "leak.h"

#define TIMEOUT_S	(TEST_UNDER_SANITIZER ? 60 : 30)
#define SLOW_MS		1000	/* told, not judged */

struct shared {
	atomic_int finished;
	atomic_int skipped;
	char sentence[512];
	char row[256];		/* which row of a table, "" for none; under row_lock */
	char notes[8192];
	atomic_size_t notes_len;
};

static struct test *first_test, **last_test = &first_test;
static struct test *current;
static struct shared *shared;
static uint64_t seed;
static pthread_mutex_t row_lock = PTHREAD_MUTEX_INITIALIZER;

/* A thread that a test starts in a child forked off many threads is the test's own business. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

void test_register(struct test *test)
{
	*last_test = test;
	last_test = &test->next;
}

static bool forks(void)
{
	const char *mode = getenv("CK_FORK");

	return !mode || strcmp(mode, "no") != 0;
}

static uint64_t number_from_env(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* ------------------------------------------------- what tests call -- */

void test_fail_at(const char *file, int line, const char *format, ...)
{
	char text[1024];
	int len = 0;
	va_list args;

	pthread_mutex_lock(&row_lock);
	if (shared->row[0])
		len = snprintf(text, sizeof(text), "[%s] ", shared->row);
	pthread_mutex_unlock(&row_lock);
	va_start(args, format);
	vsnprintf(text + len, sizeof(text) - (size_t)len, format, args);
	va_end(args);
	if (!forks()) {
		fprintf(stderr, "%s: %s:%d: %s\n", current->name, file, line, text);
		abort();
	}
	ck_abort_msg("%s:%d: %s", file, line, text);
	_exit(1);
}

void test_row(const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&row_lock);
	va_start(args, format);
	vsnprintf(shared->row, sizeof(shared->row), format, args);
	va_end(args);
	pthread_mutex_unlock(&row_lock);
}

void test_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(shared->sentence, sizeof(shared->sentence), format, args);
	va_end(args);
	atomic_store(&shared->skipped, 1);
	pthread_exit(NULL);
}

void test_note(const char *format, ...)
{
	char text[512];
	size_t at;
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text) - 1, format, args);
	va_end(args);
	if (len < 0)
		return;
	if ((size_t)len > sizeof(text) - 2)
		len = sizeof(text) - 2;
	text[len++] = '\n';
	at = atomic_fetch_add(&shared->notes_len, (size_t)len);
	if (at + (size_t)len < sizeof(shared->notes))
		memcpy(shared->notes + at, text, (size_t)len);
}

unsigned test_times(unsigned count)
{
	uint64_t times = count;

	if (TEST_UNDER_SANITIZER)
		times /= 5;
	times *= number_from_env("GYRE_TEST_LENGTH", 1);
	return times ? (unsigned)times : 1;
}

uint64_t test_random(uint64_t *state)
{
	uint64_t x;

	/* splitmix64 */
	*state += UINT64_C(0x9e3779b97f4a7c15);
	x = *state;
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

unsigned test_random_below(uint64_t *state, unsigned below)
{
	return (unsigned)(test_random(state) % below);
}

uint64_t test_seed(void)
{
	uint64_t mixed = seed;
	const char *c;

	for (c = current->name; *c; c++)
		mixed = (mixed ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
	return mixed;
}

void test_expect_str_at(const char *file, int line, const char *what, const char *got,
			const char *want)
{
	if (!got || strcmp(got, want) != 0)
		test_fail_at(file, line, "%s is \"%s\", expected \"%s\"", what,
			     got ? got : "(NULL)", want);
}

void test_expect_contains_at(const char *file, int line, const char *what, const char *got,
			     const char *part)
{
	if (!got || !strstr(got, part))
		test_fail_at(file, line, "%s is \"%s\", expected \"%s\" in it", what,
			     got ? got : "(NULL)", part);
}

/* ---------------------------------------------------- in the child -- */

static void *run_nothing(void *arg)
{
	return arg;
}

static void *run_body(void *arg)
{
	(void)arg;
	current->fn();
	return NULL;
}

static void join_thread(void *(*fn)(void *arg))
{
	pthread_t thread;
	int rc = pthread_create(&thread, NULL, fn, NULL);

	if (rc != 0)
		test_fail("the test's thread: %s", strerror(rc));
	pthread_join(thread, NULL);
}

static void run_current(void)
{
	char report[2048];
	struct leak *leak;
	unsigned leaks;

	/* One heap for all threads, so that new mappings are not the allocator's. */
	mallopt(M_ARENA_MAX, 1);
	/* The first thread brings things with it that stay: a sanitizer's own. */
	join_thread(run_nothing);
	shared->row[0] = '\0';
	leak = leak_before();
	join_thread(run_body);
	shared->row[0] = '\0';
	leaks = leak_after(leak, report, sizeof(report));
	if (leaks && !atomic_load(&shared->skipped))
		test_fail("%u leaked: %s", leaks, report);
	atomic_store(&shared->finished, 1);
}

START_TEST(runs_current)
{
	(void)_i;
	run_current();
}
END_TEST

/* --------------------------------------------------- in the parent -- */

static bool chosen(const struct test *test)
{
	const char *only = getenv("GYRE_TEST_ONLY");
	const char *exactly = getenv("GYRE_TEST_EXACTLY");

	if (exactly)
		return strcmp(test->name, exactly) == 0;
	return !only || strstr(test->name, only);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* One line: newlines would end the TAP comment. */
static void print_comment(const char *text)
{
	fputs("# ", stdout);
	for (; *text; text++) {
		putchar(*text);
		if (*text == '\n' && text[1])
			fputs("# ", stdout);
	}
	putchar('\n');
}

static void reset_shared(void)
{
	atomic_store(&shared->finished, 0);
	atomic_store(&shared->skipped, 0);
	shared->row[0] = '\0';
	memset(shared->notes, 0, sizeof(shared->notes));
	atomic_store(&shared->notes_len, 0);
}

static bool report(unsigned number, SRunner *runner, unsigned took_ms)
{
	TestResult **results = srunner_results(runner);
	bool failed = srunner_ntests_failed(runner) > 0 || srunner_ntests_run(runner) != 1;
	bool skipped = !failed && atomic_load(&shared->skipped);
	bool cut_off = !failed && !skipped && !atomic_load(&shared->finished);

	if (failed)
		print_comment(results[0] ? tr_msg(results[0]) : "it did not run");
	if (failed && shared->row[0])
		print_comment(shared->row);
	if (cut_off)
		print_comment("the test's process ended before the test did");
	if (shared->notes[0])
		print_comment(shared->notes);
	if (took_ms >= SLOW_MS)
		printf("# took %u ms\n", took_ms);
	printf("%s %u - %s", failed || cut_off ? "not ok" : "ok", number, current->name);
	if (skipped)
		printf(" # SKIP %s", shared->sentence);
	putchar('\n');
	fflush(stdout);
	free(results);
	return !failed && !cut_off;
}

static bool run(struct test *test, unsigned number)
{
	Suite *suite = suite_create("gyre");
	TCase *tcase = tcase_create(test->name);
	uint64_t started_ms;
	SRunner *runner;
	bool passed;

	current = test;
	reset_shared();
	tcase_add_test(tcase, runs_current);
	tcase_set_timeout(tcase, TIMEOUT_S);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_set_fork_status(runner, forks() ? CK_FORK : CK_NOFORK);
	started_ms = now_ms();
	srunner_run_all(runner, CK_SILENT);
	passed = report(number, runner, (unsigned)(now_ms() - started_ms));
	srunner_free(runner);
	return passed;
}

static int run_all(void)
{
	struct test *test;
	unsigned count = 0, failed = 0;

	for (test = first_test; test; test = test->next)
		count += chosen(test);
	printf("1..%u\n# seed %llu (GYRE_TEST_SEED)\n", count, (unsigned long long)seed);
	fflush(stdout);
	count = 0;
	for (test = first_test; test; test = test->next)
		if (chosen(test) && !run(test, ++count))
			failed++;
	return failed > 0;
}

/* Each test in a program of its own, all at the same time. */
static int run_side_by_side(void)
{
	struct test *test;
	unsigned failed = 0;
	int wait_status;

	unsetenv("GYRE_TEST_SIDE_BY_SIDE");
	for (test = first_test; test; test = test->next) {
		if (!chosen(test))
			continue;
		fflush(stdout);
		if (fork() == 0) {
			setenv("GYRE_TEST_EXACTLY", test->name, 1);
			setenv("CK_TIMEOUT_MULTIPLIER", "4", 0);
			execl("/proc/self/exe", "test", (char *)NULL);
			_exit(127);
		}
	}
	while (wait(&wait_status) > 0)
		if (wait_status != 0)
			failed++;
	printf("# %u failed\n", failed);
	return failed > 0;
}

int test_main(const char *file)
{
	(void)file;
	seed = number_from_env("GYRE_TEST_SEED", ((uint64_t)getpid() << 32) ^ (uint64_t)time(NULL));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED) {
		printf("Bail out! no memory to share: %s\n", strerror(errno));
		return 1;
	}
	if (getenv("GYRE_TEST_SIDE_BY_SIDE"))
		return run_side_by_side();
	return run_all();
}
