/* SPDX-License-Identifier: MIT */
/* ring/sys_fault: the faults happen when, where and as often as they were asked for. */
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

TEST(calls_pass_while_no_rule_stands)
{
	void *memory;
	int fd;

	gyre__fault_install();
	fd = gyre__sys->eventfd();
	expect_ge(fd, 0);
	expect_eq(gyre__sys->close(fd), 0);
	memory = gyre__zalloc(10);
	expect(memory);
	gyre__free(memory);
	expect_eq(gyre__fault_count(GYRE__FAULT_eventfd), 1);
	expect_eq(gyre__fault_hits(GYRE__FAULT_eventfd), 0);
	gyre__fault_remove();
}

TEST(rule_skips_then_fails_then_lets_pass)
{
	static const int expected[] = { 0, 0, -EMFILE, -EMFILE, -EMFILE, 0 };
	unsigned i;
	int fd;

	gyre__fault_install();
	gyre__fault_set(GYRE__FAULT_eventfd, 2, 3, -EMFILE);
	for (i = 0; i < 6; i++) {
		fd = gyre__sys->eventfd();
		expect_eq(fd < 0 ? fd : 0, expected[i]);
		if (fd >= 0)
			gyre__sys->close(fd);
	}
	expect_eq(gyre__fault_count(GYRE__FAULT_eventfd), 6);
	expect_eq(gyre__fault_hits(GYRE__FAULT_eventfd), 3);
	gyre__fault_remove();
}

TEST(rule_without_end_fails_until_it_is_cleared)
{
	unsigned i;
	int fd;

	gyre__fault_install();
	gyre__fault_set(GYRE__FAULT_eventfd, 0, GYRE__FAULT_FOREVER, -ENFILE);
	for (i = 0; i < 100; i++)
		expect_eq(gyre__sys->eventfd(), -ENFILE);
	gyre__fault_clear();
	fd = gyre__sys->eventfd();
	expect_ge(fd, 0);
	gyre__sys->close(fd);
	gyre__fault_remove();
}

TEST(failing_allocation_gives_null)
{
	gyre__fault_install();
	gyre__fault_set(GYRE__FAULT_alloc, 0, 1, -ENOMEM);
	expect(!gyre__zalloc(10));
	gyre__fault_remove();
}

TEST(rules_stand_side_by_side)
{
	int fds[2];

	gyre__fault_install();
	gyre__fault_set(GYRE__FAULT_pipe, 0, 1, -EMFILE);
	gyre__fault_set(GYRE__FAULT_pipe, 1, 1, -ENFILE);
	gyre__fault_set(GYRE__FAULT_eventfd, 0, 1, -ENOMEM);
	expect_eq(gyre__sys->pipe(fds), -EMFILE);
	expect_eq(gyre__sys->pipe(fds), -ENFILE);
	expect_eq(gyre__sys->eventfd(), -ENOMEM);
	gyre__fault_remove();
}

TEST(rule_for_a_descriptor_leaves_others_alone)
{
	struct gyre__fault_rule rule = {
		.call = GYRE__FAULT_fsync,
		.times = GYRE__FAULT_FOREVER,
		.error = -EIO,
	};
	int bad = test_file(10), good = test_file(10);

	gyre__fault_install();
	rule.fd = bad;
	gyre__fault_add(&rule);
	expect_eq(gyre__sys->fsync(bad), -EIO);
	expect_eq(gyre__sys->fsync(good), 0);
	gyre__fault_remove();
	close(bad);
	close(good);
}

static void *fails_there(void *arg)
{
	(void)arg;
	pthread_setname_np(pthread_self(), "unlucky-7");
	expect_eq(gyre__sys->eventfd(), -EMFILE);
	return NULL;
}

TEST(rule_for_a_thread_leaves_others_alone)
{
	pthread_t thread;
	int fd;

	gyre__fault_install();
	gyre__fault_set_on("unlucky", GYRE__FAULT_eventfd, 0, GYRE__FAULT_FOREVER, -EMFILE);
	fd = gyre__sys->eventfd();
	expect_ge(fd, 0);
	gyre__sys->close(fd);
	expect_eq(pthread_create(&thread, NULL, fails_there, NULL), 0);
	pthread_join(thread, NULL);
	gyre__fault_remove();
}

static int raise_rule(enum gyre__fault_call call, int fd, const void *site, void *arg)
{
	(void)fd;
	(void)site;
	if ((*(unsigned *)arg)++ == 1)
		gyre__fault_set(call, 0, 1, -EINTR);
	return 0;
}

TEST(hook_runs_before_the_call_and_may_make_it_fail)
{
	unsigned calls = 0;
	struct stat st;

	gyre__fault_install();
	gyre__fault_hook(GYRE__FAULT_fstat, raise_rule, &calls);
	expect_eq(gyre__sys->fstat(0, &st), 0);
	expect_eq(gyre__sys->fstat(0, &st), -EINTR);
	gyre__fault_hook(GYRE__FAULT_fstat, NULL, NULL);
	expect_eq(gyre__sys->fstat(0, &st), 0);
	expect_eq(calls, 2);
	gyre__fault_remove();
}

TEST(partial_submit_takes_what_it_says_and_the_rest_later)
{
	struct io_uring uring;
	unsigned i;

	gyre__fault_install();
	gyre__fault_partial(0, 1, 3);
	expect_eq(io_uring_queue_init(8, &uring, 0), 0);
	for (i = 0; i < 8; i++)
		io_uring_prep_nop(io_uring_get_sqe(&uring));
	*uring.sq.ktail += 8;		/* as it is in the library: tail out, then enter */
	expect_eq(gyre__sys->uring_enter(uring.ring_fd, 8, 0, 0, NULL, 0), 3);
	expect_eq(*uring.sq.khead, 3);
	expect_eq(gyre__sys->uring_enter(uring.ring_fd, 5, 0, 0, NULL, 0), 5);
	expect_eq(io_uring_cq_ready(&uring), 8);
	io_uring_queue_exit(&uring);
	gyre__fault_remove();
}

TEST(every_call_has_a_name)
{
	unsigned i;

	for (i = 0; i < GYRE__FAULT_CALLS; i++)
		expect(gyre__fault_name((enum gyre__fault_call)i));
}

TEST_MAIN()
