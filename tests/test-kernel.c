/* SPDX-License-Identifier: MIT */
/*
 * What the library relies on the kernel for, each fact for itself, on a ring
 * without the library: a kernel that behaves otherwise fails the test of that
 * name, and the message says what in the library is wrong then. The table in
 * ARCHITECTURE.md lists the same facts.
 *
 * Where a fact is that something never happens, or that an order is open, the
 * test is of what follows from it: nothing here waits to see nothing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL	0x00000100
#endif

#define ERESTARTSYS	512	/* the kernel's own: no errno.h has it */

/* What the library asks for first; see setup_flags in ring/ring.c. */
#define OURS	(IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | \
		 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG)
#define NOWHERE	((uint64_t)-1)

static const char *facts[128];
static unsigned fact_count;

/* A test named as the fact that it is about; relies_: what in the library stands on it. */
#define FACT(name_, relies_) \
	static void name_##_fact(void); \
	__attribute__((__constructor__)) static void name_##_list(void) \
	{ \
		facts[fact_count++] = #name_; \
	} \
	TEST(name_) \
	{ \
		test_row("relied on by %s", relies_); \
		name_##_fact(); \
	} \
	static void name_##_fact(void)

/* -------------------------------------------------------------- helpers -- */

static void open_ring(struct io_uring *ring, unsigned entries, unsigned cq_entries, unsigned flags)
{
	struct io_uring_params params = { .flags = flags, .cq_entries = cq_entries };
	int rc;

	if (cq_entries)
		params.flags |= IORING_SETUP_CQSIZE;
	rc = io_uring_queue_init_params(entries, ring, &params);
	if (rc == -ENOSYS || rc == -EPERM || rc == -EACCES)
		test_skip("this machine allows no io_uring: %s", strerror(-rc));
	if (rc == -EINVAL && (flags & ~(unsigned)IORING_SETUP_R_DISABLED))
		test_skip("this kernel is too old for the set-up flags %#x", flags);
	expect_eq(rc, 0);
}

static struct io_uring_sqe *next_sqe(struct io_uring *ring, uint64_t user_data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	expect(sqe);
	memset(sqe, 0, sizeof(*sqe));
	sqe->user_data = user_data;
	return sqe;
}

/* liburing's prep functions leave user_data and, in some versions, flags at zero: said after. */
#define add(ring_, user_data_, flags_, prep_, ...) \
	do { \
		struct io_uring_sqe *sqe_ = next_sqe((ring_), 0); \
\
		io_uring_prep_##prep_(sqe_, ##__VA_ARGS__); \
		sqe_->flags |= (flags_); \
		sqe_->user_data = (user_data_); \
	} while (0)

/* An opcode that no kernel knows. */
static void add_unknown(struct io_uring *ring, uint64_t user_data, unsigned flags)
{
	struct io_uring_sqe *sqe = next_sqe(ring, user_data);

	sqe->opcode = 0xff;
	sqe->flags = (uint8_t)flags;
}

static void publish(struct io_uring *ring)
{
	ring->sq.sqe_head = ring->sq.sqe_tail;
	io_uring_smp_store_release(ring->sq.ktail, ring->sq.sqe_tail);
}

/* As the library does it: all that is filled is in sight, to_submit of it is meant. */
static int enter(struct io_uring *ring, unsigned to_submit, unsigned min_complete, unsigned flags)
{
	publish(ring);
	return io_uring_enter((unsigned)ring->ring_fd, to_submit, min_complete, flags, NULL);
}

static unsigned consumed(const struct io_uring *ring)
{
	return io_uring_smp_load_acquire(ring->sq.khead);
}

static void submit(struct io_uring *ring, unsigned count)
{
	expect_eq(enter(ring, count, 0, 0), count);
}

struct answer {
	uint64_t user_data;
	int res;
	unsigned flags;
};

static struct answer take(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	struct answer answer;

	expect_eq(io_uring_wait_cqe(ring, &cqe), 0);
	answer = (struct answer){ cqe->user_data, cqe->res, cqe->flags };
	io_uring_cqe_seen(ring, cqe);
	return answer;
}

/* The next CQE is this one. */
#define expect_cqe(ring_, user_data_, res_) \
	do { \
		struct answer answer_ = take(ring_); \
\
		expect_eq(answer_.user_data, (user_data_)); \
		expect_eq(answer_.res, (res_)); \
	} while (0)

/* The results of the next count CQEs, by their user_data, which is below count + 1. */
static void take_all(struct io_uring *ring, unsigned count, int *ret_results)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		struct answer answer = take(ring);

		expect_le(answer.user_data, count);
		ret_results[answer.user_data] = answer.res;
	}
}

static void enable(struct io_uring *ring)
{
	expect_eq(io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0),
		  0);
}

/* Puts what DESCRIPTION means at the number fd, where something else was. */
static void put_at(int fd, int other)
{
	expect_eq(dup3(other, fd, O_CLOEXEC), fd);
}

struct on_thread {
	struct io_uring *ring;
	int rc[3];
};

/* ------------------------------------------------------------ set-up -- */

FACT(unknown_set_up_flags_are_refused_with_EINVAL,
     "ring_setup() in ring/ring.c: it leaves flags away in steps, and only on that errno")
{
	struct io_uring_params params = { .flags = 1u << 31 };
	struct io_uring ring;

	open_ring(&ring, 4, 0, 0);
	io_uring_queue_exit(&ring);
	expect_eq(syscall(__NR_io_uring_setup, 4, &params), -1);
	expect_eq(errno, EINVAL);
}

FACT(the_features_that_the_library_needs_are_there,
     "ring_setup() in ring/ring.c: it refuses a kernel without them")
{
	struct io_uring ring;

	open_ring(&ring, 4, 0, 0);
	expect(ring.features & IORING_FEAT_SINGLE_MMAP);
	expect(ring.features & IORING_FEAT_NODROP);
	expect(ring.features & IORING_FEAT_SUBMIT_STABLE);
	expect(ring.features & IORING_FEAT_EXT_ARG);
	io_uring_queue_exit(&ring);
}

FACT(both_queues_are_as_large_as_asked_for_or_the_next_power_of_two,
     "setup_patiently() in ring/ring.c: each op in flight has a place in the completion queue; "
     "gyre__ring_memlock() adds it up")
{
	struct io_uring ring;

	open_ring(&ring, 5, 33, OURS);
	expect_eq(ring.sq.ring_entries, 8);
	expect_eq(ring.cq.ring_entries, 64);
	io_uring_queue_exit(&ring);
}

FACT(the_ring_closes_on_exec,
     "ring/fork.c: nothing else closes a ring in a program that is started")
{
	struct io_uring ring;

	open_ring(&ring, 4, 0, OURS);
	expect(fcntl(ring.ring_fd, F_GETFD) & FD_CLOEXEC);
	io_uring_queue_exit(&ring);
}

FACT(the_probe_knows_what_the_kernel_knows,
     "gyre__probe_opcodes(): opcodes that it does not list are answered GYRE_UNSUPPORTED")
{
	struct io_uring_probe *probe = calloc(1, sizeof(*probe) + 256 * sizeof(probe->ops[0]));
	struct io_uring ring;
	unsigned i;

	expect(probe);
	open_ring(&ring, 4, 0, 0);
	expect_eq(io_uring_register((unsigned)ring.ring_fd, IORING_REGISTER_PROBE, probe, 256), 0);
	expect_gt(probe->ops_len, IORING_OP_ASYNC_CANCEL);
	for (i = 0; i < probe->ops_len; i++)
		expect_eq(probe->ops[i].op, i);
	expect(probe->ops[IORING_OP_READ].flags & IO_URING_OP_SUPPORTED);
	expect(probe->ops[IORING_OP_ASYNC_CANCEL].flags & IO_URING_OP_SUPPORTED);
	for (i = probe->ops_len; i < 256; i += 16) {
		next_sqe(&ring, i)->opcode = (uint8_t)i;
		submit(&ring, 1);
		expect_cqe(&ring, i, -EINVAL);
	}
	io_uring_queue_exit(&ring);
	free(probe);
}

static void submit_there(void *arg, unsigned number)
{
	struct on_thread *there = arg;

	(void)number;
	there->rc[0] = enter(there->ring, 1, 0, 0);
	there->rc[1] = enter(there->ring, 0, 0, IORING_ENTER_GETEVENTS);
	there->rc[2] = io_uring_register((unsigned)there->ring->ring_fd, IORING_REGISTER_PROBE,
					 NULL, 0);
}

FACT(a_ring_with_one_issuer_refuses_other_threads_with_EEXIST,
     "the law \"Only its worker touches a ring\": the kernel would catch whoever broke it")
{
	struct io_uring ring;
	struct on_thread there = { .ring = &ring };

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, nop);
	test_crew_run(1, submit_there, &there);
	expect_eq(there.rc[0], -EEXIST);
	expect_eq(there.rc[1], -EEXIST);
	expect_eq(there.rc[2], -EEXIST);
	expect_eq(consumed(&ring), 0);
	submit(&ring, 1);
	expect_cqe(&ring, 1, 0);
	io_uring_queue_exit(&ring);
}

static void enable_there(void *arg, unsigned number)
{
	struct on_thread *there = arg;

	(void)number;
	enable(there->ring);
	there->rc[0] = enter(there->ring, 1, 1, IORING_ENTER_GETEVENTS);
}

FACT(a_disabled_ring_belongs_to_whoever_enables_it,
     "gyre__ring_enable(): the opener makes the ring, its worker enables it")
{
	struct io_uring ring;
	struct on_thread there = { .ring = &ring };

	open_ring(&ring, 4, 0, OURS | IORING_SETUP_R_DISABLED);
	add(&ring, 1, 0, nop);
	test_crew_run(1, enable_there, &there);
	expect_eq(there.rc[0], 1);
	expect_cqe(&ring, 1, 0);
	expect_eq(enter(&ring, 0, 0, IORING_ENTER_GETEVENTS), -EEXIST);
	io_uring_queue_exit(&ring);
}

FACT(a_disabled_ring_can_be_registered_with_by_who_will_not_own_it,
     "ring_open_kernel_side() in ring/ring.c: probe and tombstone are the opener's, and so "
     "are their errors")
{
	struct io_uring ring;
	struct on_thread there = { .ring = &ring };
	struct io_uring_probe *probe = calloc(1, sizeof(*probe) + 8 * sizeof(probe->ops[0]));
	struct test_pipe tomb = test_pipe();

	expect(probe);
	open_ring(&ring, 4, 0, OURS | IORING_SETUP_R_DISABLED);
	expect_eq(io_uring_register((unsigned)ring.ring_fd, IORING_REGISTER_PROBE, probe, 8), 0);
	expect_eq(io_uring_register((unsigned)ring.ring_fd, IORING_REGISTER_FILES, &tomb.w, 1), 0);
	add(&ring, 1, 0, nop);
	test_crew_run(1, enable_there, &there);
	expect_eq(there.rc[0], 1);
	io_uring_queue_exit(&ring);
	test_pipe_close(&tomb);
	free(probe);
}

/* ------------------------------------------------------------ submit -- */

FACT(a_refused_submission_leaves_the_sqe_in_the_ring,
     "enter() in ring/turn.c: what was refused stays in place and is tried again, and "
     "death.c: what the head has not passed never happened")
{
	struct io_uring ring;

	open_ring(&ring, 4, 0, OURS | IORING_SETUP_R_DISABLED);
	add(&ring, 1, 0, nop);
	expect_eq(enter(&ring, 1, 0, 0), -EBADFD);
	expect_eq(consumed(&ring), 0);
	enable(&ring);
	submit(&ring, 1);
	expect_eq(consumed(&ring), 1);
	expect_cqe(&ring, 1, 0);
	io_uring_queue_exit(&ring);
}

FACT(the_head_of_the_submission_queue_says_how_many_were_taken,
     "enter() in ring/turn.c: it reads nothing else")
{
	struct io_uring ring;
	int results[4];

	open_ring(&ring, 4, 0, 0);
	add_unknown(&ring, 1, 0);
	add(&ring, 2, 0, nop);
	add(&ring, 3, 0, nop);
	/* Without SUBMIT_ALL a bad SQE ends the submission: a part is taken, itself included. */
	expect_eq(enter(&ring, 3, 0, 0), 1);
	expect_eq(consumed(&ring), 1);
	submit(&ring, 2);
	expect_eq(consumed(&ring), 3);
	take_all(&ring, 3, results);
	expect_eq(results[1], -EINVAL);
	expect_eq(results[2], 0);
	expect_eq(results[3], 0);
	io_uring_queue_exit(&ring);
}

FACT(fewer_may_be_submitted_than_are_filled,
     "gyre__fault_partial(), by which the tests cut submissions in two")
{
	struct io_uring ring;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, nop);
	add(&ring, 2, 0, nop);
	submit(&ring, 1);
	expect_eq(consumed(&ring), 1);
	expect_cqe(&ring, 1, 0);
	submit(&ring, 1);
	expect_cqe(&ring, 2, 0);
	io_uring_queue_exit(&ring);
}

FACT(with_SUBMIT_ALL_a_bad_sqe_does_not_stop_the_others,
     "setup_flags in ring/ring.c: without it each bad closure would cost its neighbours an enter")
{
	struct io_uring ring;
	int results[4];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, nop);
	add_unknown(&ring, 2, 0);
	add(&ring, 3, 0, nop);
	submit(&ring, 3);
	take_all(&ring, 3, results);
	expect_eq(results[1], 0);
	expect_eq(results[2], -EINVAL);
	expect_eq(results[3], 0);
	io_uring_queue_exit(&ring);
}

FACT(an_enter_that_cannot_wait_has_submitted_nevertheless,
     "enter() in ring/turn.c: an op is in flight whatever the call answers")
{
	struct io_uring ring;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, nop);
	publish(&ring);
	expect_eq(io_uring_enter2((unsigned)ring.ring_fd, 1, 1,
				  IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, NULL, 1), 1);
	expect_eq(consumed(&ring), 1);
	expect_cqe(&ring, 1, 0);
	io_uring_queue_exit(&ring);
}

FACT(an_sqe_is_read_at_submit_and_not_again,
     "gyre__ring_blank_sqe(): it fills the place of an op that may still wait for its turn")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	char first = 0, second = 0;
	int results[3];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, IOSQE_IO_LINK, read, pipe.r, &first, 1, NOWHERE);
	add(&ring, 2, 0, read, pipe.r, &second, 1, NOWHERE);
	submit(&ring, 2);
	memset(ring.sq.sqes, 0xff, 4 * sizeof(ring.sq.sqes[0]));
	expect_eq(write(pipe.w, "ab", 2), 2);
	take_all(&ring, 2, results);
	expect_eq(results[1], 1);
	expect_eq(results[2], 1);
	expect_eq(first, 'a');
	expect_eq(second, 'b');
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

FACT(what_an_sqe_points_to_besides_its_data_is_read_at_submit,
     "the contract of a prep closure: its timespec or vector may lie on the closure's stack")
{
	struct __kernel_timespec ts = { .tv_nsec = 1 };
	struct test_pipe pipe = test_pipe();
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct io_uring ring;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, timeout, &ts, 0, 0);
	submit(&ring, 1);
	ts.tv_sec = 3600;
	expect_cqe(&ring, 1, -ETIME);
	add(&ring, 2, 0, readv, pipe.r, &iov, 1, NOWHERE);
	submit(&ring, 1);
	iov = (struct iovec){ NULL, 0 };
	expect_eq(write(pipe.w, "a", 1), 1);
	expect_cqe(&ring, 2, 1);
	expect_eq(byte, 'a');
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

/* ------------------------------------------------------- completions -- */

FACT(completions_that_find_no_room_are_kept_and_given_out_in_order,
     "ARCHITECTURE.md, Room: reserved ops and second CQEs may overflow the queue; enter() asks "
     "for events")
{
	const unsigned count = 200;
	struct io_uring ring;
	unsigned i, seen = 0;

	open_ring(&ring, 4, 8, OURS);
	for (i = 0; i < count; i++) {
		add(&ring, i, 0, nop);
		submit(&ring, 1);
	}
	expect_eq(io_uring_cq_ready(&ring), 8);
	expect(io_uring_smp_load_acquire(ring.sq.kflags) & IORING_SQ_CQ_OVERFLOW);
	expect_eq(io_uring_smp_load_acquire(ring.cq.koverflow), 0);
	while (seen < count) {
		struct io_uring_cqe *cqe;
		unsigned head, n = 0;

		io_uring_for_each_cqe(&ring, head, cqe)
			expect_eq(cqe->user_data, seen + n++);
		expect_gt(n, 0);
		io_uring_cq_advance(&ring, n);
		seen += n;
		expect_eq(enter(&ring, 0, 0, IORING_ENTER_GETEVENTS), 0);
	}
	expect_eq(io_uring_cq_ready(&ring), 0);
	expect(!(io_uring_smp_load_acquire(ring.sq.kflags) & IORING_SQ_CQ_OVERFLOW));
	io_uring_queue_exit(&ring);
}

FACT(deferred_work_is_told_by_a_flag_and_done_by_an_enter_for_events,
     "work_is_queued() in ring/turn.c: a worker that spins looks at the flag and enters for it")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	char byte;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, read, pipe.r, &byte, 1, NOWHERE);
	submit(&ring, 1);
	expect(!(io_uring_smp_load_acquire(ring.sq.kflags) & IORING_SQ_TASKRUN));
	expect_eq(write(pipe.w, "a", 1), 1);
	expect(io_uring_smp_load_acquire(ring.sq.kflags) & IORING_SQ_TASKRUN);
	expect_eq(io_uring_cq_ready(&ring), 0);		/* nobody but the owner makes CQEs */
	expect_eq(enter(&ring, 0, 0, IORING_ENTER_GETEVENTS), 0);
	expect_eq(io_uring_cq_ready(&ring), 1);
	expect(!(io_uring_smp_load_acquire(ring.sq.kflags) & IORING_SQ_TASKRUN));
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

FACT(poll_of_a_ring_promises_no_completion,
     "the wake-up's design: an eventfd that we write, and nobody polls a ring")
{
	struct test_pipe pipe = test_pipe();
	struct pollfd pollfd = { .events = POLLIN };
	struct io_uring ring;
	char byte;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, read, pipe.r, &byte, 1, NOWHERE);
	submit(&ring, 1);
	expect_eq(write(pipe.w, "a", 1), 1);
	pollfd.fd = ring.ring_fd;
	expect_eq(poll(&pollfd, 1, 0), 1);
	expect_eq(io_uring_cq_ready(&ring), 0);
	expect_cqe(&ring, 1, 1);
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

static int sleep_in(struct io_uring *ring, const struct __kernel_timespec *ts)
{
	struct io_uring_getevents_arg arg = { .ts = (uintptr_t)ts };

	publish(ring);
	return io_uring_enter2((unsigned)ring->ring_fd, 0, 1,
			       IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, (void *)&arg,
			       sizeof(arg));
}

static void write_eventfd(void *arg, unsigned number)
{
	(void)number;
	expect_eq(eventfd_write(*(int *)arg, 1), 0);
}

FACT(a_read_of_an_eventfd_ends_the_owners_sleep,
     "arm_wake() in ring/turn.c: it is the only thing that wakes a worker")
{
	int fd = eventfd(0, EFD_CLOEXEC);
	struct test_crew crew;
	struct io_uring ring;
	uint64_t value = 0;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, read, fd, &value, sizeof(value), 0);
	submit(&ring, 1);
	test_crew_start(&crew, 1, write_eventfd, &fd);
	expect_eq(sleep_in(&ring, NULL), 0);	/* no timespec: for ever */
	test_crew_join(&crew);
	expect_cqe(&ring, 1, sizeof(value));
	expect_eq(value, 1);
	io_uring_queue_exit(&ring);
	close(fd);
}

FACT(an_eventfd_that_was_written_before_is_read_at_once,
     "go_to_sleep() in ring/turn.c: a pusher may write before the read has reached the kernel")
{
	int fd = eventfd(0, EFD_CLOEXEC);
	struct io_uring ring;
	uint64_t value = 0;

	open_ring(&ring, 4, 0, OURS);
	expect_eq(eventfd_write(fd, 1), 0);
	expect_eq(eventfd_write(fd, 1), 0);
	add(&ring, 1, 0, read, fd, &value, sizeof(value), 0);
	submit(&ring, 1);
	expect_eq(sleep_in(&ring, NULL), 0);
	expect_cqe(&ring, 1, sizeof(value));
	expect_eq(value, 2);
	io_uring_queue_exit(&ring);
	close(fd);
}

FACT(a_futex_that_has_changed_is_not_slept_in,
     "reply_sleep_until() in ring/reply.c: a bell that was rung since the look ends the sleep")
{
	_Atomic uint32_t word = 1;

	expect_eq(gyre__sys_kernel.futex_wait(&word, 0, 1, GYRE__NEVER), -EAGAIN);
}

FACT(a_futex_that_nobody_wakes_is_slept_in_until_a_point_of_the_monotonic_clock,
     "gyre__bell_wait(): it takes a deadline, and no time")
{
	uint64_t deadline_ns = gyre__sys_kernel.now_ns() + 2 * GYRE__NS_PER_MS;
	_Atomic uint32_t word = 0;

	while (gyre__sys_kernel.futex_wait(&word, 0, 1, deadline_ns) != -ETIMEDOUT)
		;
	expect_ge(gyre__sys_kernel.now_ns(), deadline_ns);
}

static void sleep_in_a_futex(void *arg, unsigned number)
{
	while (gyre__sys_kernel.futex_wait(arg, 0, number < 2 ? 1 : 4, GYRE__NEVER) != 0)
		;
}

FACT(one_wake_of_a_futex_wakes_up_all_who_sleep_for_its_bits_and_nobody_else,
     "gyre__bell_ring_all(): a seat is a bit, and one call wakes up all of a turn")
{
	_Atomic uint32_t word = 0;
	struct test_crew crew;
	unsigned woken = 0;

	test_crew_start(&crew, 5, sleep_in_a_futex, &word);
	while (woken < 3)	/* as they come to sleep */
		woken += (unsigned)gyre__sys_kernel.futex_wake(&word, 2 | 4);
	expect_eq(woken, 3);
	expect_eq(gyre__sys_kernel.futex_wake(&word, 4 | 8), 0);
	while (woken < 5)
		woken += (unsigned)gyre__sys_kernel.futex_wake(&word, 1);
	expect_eq(woken, 5);
	test_crew_join(&crew);
}

FACT(a_wait_that_is_over_by_its_deadline_says_ETIME,
     "sleep_until() in ring/turn.c: deadlines need no timer ops")
{
	const struct __kernel_timespec ts = { .tv_nsec = 1000 };
	struct io_uring ring;

	open_ring(&ring, 4, 0, OURS);
	expect_eq(sleep_in(&ring, &ts), -ETIME);
	add(&ring, 1, 0, nop);
	submit(&ring, 1);
	expect_eq(sleep_in(&ring, &ts), 0);	/* what is there counts first */
	expect_cqe(&ring, 1, 0);
	io_uring_queue_exit(&ring);
}

struct disturber {
	pthread_t sleeper;
	atomic_int over;
};

static void disturb(void *arg, unsigned number)
{
	struct disturber *disturber = arg;

	(void)number;
	while (!atomic_load(&disturber->over)) {
		pthread_kill(disturber->sleeper, SIGUSR1);
		sched_yield();
	}
}

static void ignore_signal(int number)
{
	(void)number;
}

FACT(a_signal_ends_a_wait_with_EINTR,
     "enter() in ring/turn.c: it goes on; and workers block all signals for it")
{
	struct disturber disturber = { .sleeper = pthread_self() };
	struct sigaction action = { .sa_handler = ignore_signal };
	struct test_crew crew;
	struct io_uring ring;

	open_ring(&ring, 4, 0, OURS);
	expect_eq(sigaction(SIGUSR1, &action, NULL), 0);
	test_crew_start(&crew, 1, disturb, &disturber);
	expect_eq(sleep_in(&ring, NULL), -EINTR);
	atomic_store(&disturber.over, 1);
	test_crew_join(&crew);
	io_uring_queue_exit(&ring);
}

FACT(a_read_of_what_has_O_NONBLOCK_waits_or_says_EAGAIN,
     "call_and_wait() in lib/io.c: it polls after an -EAGAIN, and takes any other answer for one")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	struct answer answer;
	char byte;

	open_ring(&ring, 4, 0, OURS);
	expect_eq(fcntl(pipe.r, F_SETFL, O_NONBLOCK), 0);
	add(&ring, 1, 0, read, pipe.r, &byte, 1, NOWHERE);
	submit(&ring, 1);
	expect_eq(write(pipe.w, "a", 1), 1);
	answer = take(&ring);
	expect(answer.res == 1 || answer.res == -EAGAIN);
	expect_eq(test_pipe_holds(&pipe), answer.res == 1 ? 0 : 1);
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

FACT(a_write_to_a_broken_pipe_says_EPIPE_where_signals_are_blocked,
     "kernel_thread_start(): workers block SIGPIPE, or a closed peer would end the program")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	sigset_t all;

	open_ring(&ring, 4, 0, OURS);
	sigfillset(&all);
	expect_eq(pthread_sigmask(SIG_SETMASK, &all, NULL), 0);
	close(pipe.r);
	pipe.r = -1;
	add(&ring, 1, 0, write, pipe.w, "a", 1, NOWHERE);
	add(&ring, 2, IOSQE_ASYNC, write, pipe.w, "a", 1, NOWHERE);
	submit(&ring, 2);
	expect_eq(take(&ring).res, -EPIPE);
	expect_eq(take(&ring).res, -EPIPE);
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

FACT(RWF_NOSIGNAL_is_either_refused_or_kept,
     "kernel_pwritev2() in ring/sys_kernel.c: it blocks the signal itself where the flag is "
     "refused")
{
	struct test_pipe pipe = test_pipe();
	struct iovec iov = { (void *)(uintptr_t)"a", 1 };
	ssize_t n;

	expect(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
	n = pwritev2(pipe.w, &iov, 1, -1, RWF_NOSIGNAL);
	if (n < 0)
		expect(errno == EOPNOTSUPP || errno == EINVAL);
	else
		expect_eq(n, 1);
	if (n == 1) {
		close(pipe.r);
		pipe.r = -1;
		expect_eq(pwritev2(pipe.w, &iov, 1, -1, RWF_NOSIGNAL), -1);
		expect_eq(errno, EPIPE);
	}
	test_pipe_close(&pipe);
}

static void open_connection(int ret[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, len) < 0 ||
	    listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &len) < 0 ||
	    connect(ret[0], (struct sockaddr *)&address, len) < 0)
		test_skip("this machine has no loopback network");
	ret[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	expect_ge(ret[1], 0);
	close(listener);
}

FACT(a_zero_copy_send_has_two_completions_of_which_the_second_says_so,
     "note_cqe() in ring/turn.c: the op is HELD, and its memory lent, until the second")
{
	struct answer answer;
	struct io_uring ring;
	int ends[2];

	open_ring(&ring, 4, 0, OURS);
	open_connection(ends);
	add(&ring, 1, 0, send_zc, ends[0], "abc", 3, 0, 0);
	submit(&ring, 1);
	answer = take(&ring);
	if (answer.res == -EOPNOTSUPP || answer.res == -EINVAL)
		test_skip("this kernel sends nothing without copying");
	expect_eq(answer.res, 3);
	expect(answer.flags & IORING_CQE_F_MORE);
	expect(!(answer.flags & IORING_CQE_F_NOTIF));
	answer = take(&ring);
	expect_eq(answer.user_data, 1);
	expect(answer.flags & IORING_CQE_F_NOTIF);
	expect(!(answer.flags & IORING_CQE_F_MORE));
	io_uring_queue_exit(&ring);
	close(ends[0]);
	close(ends[1]);
}

/* ------------------------------------------------------------ cancel -- */

FACT(a_cancel_of_what_is_not_there_says_ENOENT,
     "complete_cancel() in ring/cancel.c: a late cancel is no error, and hits nobody else")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	char byte;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, UINT64_C(7) << 32 | 1, 0, read, pipe.r, &byte, 1, NOWHERE);
	add(&ring, 2, 0, cancel64, UINT64_C(8) << 32 | 1, 0);	/* the slot's next generation */
	submit(&ring, 2);
	expect_cqe(&ring, 2, -ENOENT);
	expect_eq(write(pipe.w, "a", 1), 1);
	expect_cqe(&ring, UINT64_C(7) << 32 | 1, 1);
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

FACT(a_cancelled_read_takes_nothing_and_both_are_answered,
     "verdict_of() in ring/finish.c and the two op slots that a cancel takes")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	int results[3];
	char byte = 0;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, read, pipe.r, &byte, 1, NOWHERE);
	submit(&ring, 1);
	add(&ring, 2, 0, cancel64, 1, 0);
	submit(&ring, 1);
	take_all(&ring, 2, results);
	expect_eq(results[1], -ECANCELED);
	expect_eq(results[2], 0);
	expect_eq(write(pipe.w, "a", 1), 1);
	expect_eq(test_pipe_holds(&pipe), 1);
	expect_eq(byte, 0);
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

FACT(a_cancels_own_answer_may_come_before_its_targets,
     "complete_cancel() in ring/cancel.c: it decides nothing, only the target's CQE frees memory")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	char byte;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, read, pipe.r, &byte, 1, NOWHERE);
	add(&ring, 2, 0, cancel64, 1, 0);
	submit(&ring, 2);
	/* One says that it worked; whoever freed the read's memory now would be wrong. */
	expect_eq(io_uring_cq_ready(&ring), 1);
	expect_cqe(&ring, 2, 0);
	expect_eq(io_uring_cq_ready(&ring), 0);
	expect_cqe(&ring, 1, -ECANCELED);
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

/* An op that its thread of the kernel's is blocked in: an open of a pipe that nobody writes. */
struct fifo {
	char dir[32], path[48];
};

static void make_fifo(struct fifo *fifo)
{
	strcpy(fifo->dir, "/tmp/gyre-test-XXXXXX");
	expect(mkdtemp(fifo->dir));
	snprintf(fifo->path, sizeof(fifo->path), "%s/fifo", fifo->dir);
	expect_eq(mkfifo(fifo->path, 0600), 0);
}

static void remove_fifo(const struct fifo *fifo)
{
	expect_eq(unlink(fifo->path), 0);
	expect_eq(rmdir(fifo->dir), 0);
}

/* A file whose lease is broken by whoever opens it, and who then waits until it is given back. */
struct leased {
	char path[32];
	int fd;
};

static void make_leased(struct leased *leased)
{
	strcpy(leased->path, "/tmp/gyre-test-XXXXXX");
	leased->fd = mkostemp(leased->path, O_CLOEXEC);
	expect_ge(leased->fd, 0);
	expect(signal(SIGIO, SIG_IGN) != SIG_ERR);
}

static void take_lease(const struct leased *leased)
{
	if (fcntl(leased->fd, F_SETLEASE, F_WRLCK) < 0) {
		unlink(leased->path);
		test_skip("this machine's file system has no leases: %s", strerror(errno));
	}
}

static void remove_leased(const struct leased *leased)
{
	expect_eq(unlink(leased->path), 0);
	close(leased->fd);
}

/* Sends a cancel of op 1: what that answered. True: op 1 is over, with *ret_res. */
static bool cancel_running(struct io_uring *ring, int *ret_said, int *ret_res)
{
	bool over = false, said = false;

	add(ring, 2, 0, cancel64, 1, 0);
	submit(ring, 1);
	while (!said || io_uring_cq_ready(ring) > 0) {
		struct answer answer = take(ring);

		*(answer.user_data == 1 ? ret_res : ret_said) = answer.res;
		over |= answer.user_data == 1;
		said |= answer.user_data == 2;
		expect_eq(enter(ring, 0, 0, IORING_ENTER_GETEVENTS), 0);
	}
	return over;
}

/* Cancels as the library does: until the op is over. */
static void cancel_open(struct io_uring *ring, const struct leased *leased)
{
	int said, again, res;
	bool over;

	take_lease(leased);
	add(ring, 1, IOSQE_ASYNC, openat, AT_FDCWD, leased->path, O_RDONLY | O_CLOEXEC, 0);
	submit(ring, 1);
	/* The kernel's thread has come so far that it waits for the lease, or is about to. */
	await(fcntl(leased->fd, F_GETLEASE) == F_RDLCK);
	over = cancel_running(ring, &said, &res);
	/* The kernel looks again after it has interrupted the op, which may be gone by then. */
	if (said != -EALREADY && said != -ENOENT)
		test_fail("a cancel of what runs says %d", said);
	await(over || (over = cancel_running(ring, &again, &res)));
	if (res != -ECANCELED && res != -EINTR && res != -ERESTARTSYS)
		test_fail("the op that was cancelled says %d", res);
	expect_eq(fcntl(leased->fd, F_SETLEASE, F_UNLCK), 0);
}

FACT(a_cancel_of_what_runs_in_a_thread_says_EALREADY_or_ENOENT_and_interrupts_it,
     "rearm() in ring/cancel.c and verdict_of() in ring/finish.c: after a cancel this counts as "
     "cancelled, also where the kernel lets an errno of its own out; an interruption may get "
     "lost, so the cancel is repeated")
{
	struct leased leased;
	struct io_uring ring;
	unsigned i;

	open_ring(&ring, 4, 0, OURS);
	make_leased(&leased);
	for (i = 0; i < 20; i++)
		cancel_open(&ring, &leased);
	io_uring_queue_exit(&ring);
	remove_leased(&leased);
}

FACT(a_cancel_passes_over_an_op_whose_turn_in_its_chain_has_not_come,
     "fire() in ring/cancel.c: the cancel is repeated, and aims at the chain's running op")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	int results[4];
	char bytes[2];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, IOSQE_IO_LINK, read, pipe.r, &bytes[0], 1, NOWHERE);
	add(&ring, 2, 0, read, pipe.r, &bytes[1], 1, NOWHERE);
	add(&ring, 3, 0, cancel64, 2, 0);
	submit(&ring, 3);
	expect_cqe(&ring, 3, -ENOENT);
	add(&ring, 3, 0, cancel64, 1, 0);
	submit(&ring, 1);
	take_all(&ring, 3, results);
	expect_eq(results[1], -ECANCELED);
	expect_eq(results[2], -ECANCELED);
	expect_eq(results[3], 0);
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

/* ------------------------------------------------------------ chains -- */

FACT(a_chain_runs_in_order,
     "GYRE_OP_LINK")
{
	int fd = test_file(0);
	struct io_uring ring;
	char bytes[3] = "";
	int results[4];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, IOSQE_IO_LINK | IOSQE_ASYNC, write, fd, "abc", 3, 0);
	add(&ring, 2, IOSQE_IO_LINK, fsync, fd, 0);
	add(&ring, 3, 0, read, fd, bytes, 3, 0);
	submit(&ring, 3);
	take_all(&ring, 3, results);
	expect_eq(results[1], 3);
	expect_eq(results[2], 0);
	expect_eq(results[3], 3);
	expect_eq(memcmp(bytes, "abc", 3), 0);
	io_uring_queue_exit(&ring);
	close(fd);
}

FACT(an_op_that_fails_cancels_the_rest_of_its_chain_and_nothing_else,
     "chained_verdict() in ring/finish.c: -ECANCELED behind a failure had no effect")
{
	int fd = test_file(0);
	struct io_uring ring;
	int results[5];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, IOSQE_IO_LINK, read, test_closed_fd(), NULL, 1, 0);
	add(&ring, 2, IOSQE_IO_LINK, write, fd, "abc", 3, 0);
	add(&ring, 3, 0, write, fd, "abc", 3, 0);
	add(&ring, 4, 0, nop);
	submit(&ring, 4);
	take_all(&ring, 4, results);
	expect_eq(results[1], -EBADF);
	expect_eq(results[2], -ECANCELED);
	expect_eq(results[3], -ECANCELED);
	expect_eq(results[4], 0);
	expect_eq(lseek(fd, 0, SEEK_END), 0);
	io_uring_queue_exit(&ring);
	close(fd);
}

FACT(a_failed_fsync_does_not_break_a_chain,
     "chained_verdict() in ring/finish.c: behind a failure, -ECANCELED alone proves nothing; and "
     "GYRE_OP_LINK in gyre.h says so")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	int results[3];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, IOSQE_IO_LINK, fsync, pipe.r, 0);
	add(&ring, 2, 0, nop);
	submit(&ring, 2);
	take_all(&ring, 2, results);
	expect_eq(results[1], -EINVAL);
	expect_eq(results[2], 0);
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

FACT(a_short_read_breaks_a_chain,
     "ARCHITECTURE.md, Chains: the op behind a short one is answered GYRE_CANCELLED, NONE")
{
	int fd = test_file(10);
	struct io_uring ring;
	char bytes[20];
	int results[3];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, IOSQE_IO_LINK, read, fd, bytes, 20, 0);
	add(&ring, 2, 0, write, fd, "abc", 3, 10);
	submit(&ring, 2);
	take_all(&ring, 2, results);
	expect_eq(results[1], 10);
	expect_eq(results[2], -ECANCELED);
	expect_eq(lseek(fd, 0, SEEK_END), 10);
	io_uring_queue_exit(&ring);
	close(fd);
}

FACT(an_sqe_that_is_refused_cancels_all_of_its_chain_before_any_of_it_runs,
     "chained_verdict() in ring/finish.c: -ECANCELED of a chain's first op says UNKNOWN, never "
     "DONE")
{
	int fd = test_file(0);
	struct io_uring ring;
	int results[4];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, IOSQE_IO_LINK, write, fd, "abc", 3, 0);
	add_unknown(&ring, 2, IOSQE_IO_LINK);
	add(&ring, 3, 0, nop);
	submit(&ring, 3);
	take_all(&ring, 3, results);
	expect_eq(results[1], -ECANCELED);
	expect_eq(results[2], -EINVAL);
	expect_eq(results[3], -ECANCELED);
	expect_eq(lseek(fd, 0, SEEK_END), 0);
	io_uring_queue_exit(&ring);
	close(fd);
}

FACT(a_chain_ends_where_its_submission_ends,
     "start_chain() and cut_chain(): the rest runs on its own, so the library takes it out")
{
	struct io_uring ring;
	int results[3];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, IOSQE_IO_LINK, read, test_closed_fd(), NULL, 1, 0);
	add(&ring, 2, 0, nop);
	submit(&ring, 1);
	submit(&ring, 1);
	take_all(&ring, 2, results);
	expect_eq(results[1], -EBADF);
	expect_eq(results[2], 0);
	io_uring_queue_exit(&ring);
}

/* ------------------------------------------------------- descriptors -- */

FACT(a_read_holds_its_file_from_the_submit_on,
     "file_is_taken_at_submit() in ring/sanitize.c: gyre_close_fd() does not wait for such ops")
{
	struct test_pipe pipe = test_pipe(), other = test_pipe();
	struct io_uring ring;
	char byte = 0;

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, read, pipe.r, &byte, 1, NOWHERE);
	submit(&ring, 1);
	put_at(pipe.r, other.r);
	expect_eq(write(other.w, "no", 2), 2);
	expect_eq(write(pipe.w, "a", 1), 1);
	expect_cqe(&ring, 1, 1);
	expect_eq(byte, 'a');
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
	test_pipe_close(&other);
}

FACT(an_op_of_a_chain_looks_its_file_up_when_its_turn_comes,
     "start_chain(): late_file; gyre_close_fd() waits for chains")
{
	struct test_pipe pipe = test_pipe(), other = test_pipe();
	int fd = test_file(1);
	struct io_uring ring;
	char bytes[2] = "";
	int results[3];

	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, IOSQE_IO_LINK, read, pipe.r, &bytes[0], 1, NOWHERE);
	add(&ring, 2, 0, read, fd, &bytes[1], 1, 0);
	submit(&ring, 2);
	put_at(fd, other.r);
	expect_eq(write(other.w, "b", 1), 1);
	expect_eq(write(pipe.w, "a", 1), 1);
	take_all(&ring, 2, results);
	expect_eq(results[1], 1);
	expect_eq(results[2], 1);
	expect_eq(bytes[1], 'b');
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
	test_pipe_close(&other);
	close(fd);
}

/*
 * The ring's one thread for bounded work is kept in the open of a fifo, so what
 * comes after waits for it, and its descriptor can be given another meaning.
 */
static int result_of_late(void (*prep)(struct io_uring_sqe *sqe, int fd))
{
	unsigned workers[2] = { 1, 1 };
	struct test_pipe other = test_pipe();
	int fd = test_file(1), writer, results[3];
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	struct fifo fifo;

	open_ring(&ring, 4, 0, OURS);
	expect_eq(io_uring_register_iowq_max_workers(&ring, workers), 0);
	make_fifo(&fifo);
	add(&ring, 1, IOSQE_ASYNC, openat, AT_FDCWD, fifo.path, O_RDONLY | O_CLOEXEC, 0);
	sqe = next_sqe(&ring, 0);
	prep(sqe, fd);
	sqe->user_data = 2;
	submit(&ring, 2);
	put_at(fd, other.r);
	writer = open(fifo.path, O_WRONLY | O_CLOEXEC);
	expect_ge(writer, 0);
	take_all(&ring, 2, results);
	expect_ge(results[1], 0);
	close(results[1]);
	close(writer);
	io_uring_queue_exit(&ring);
	remove_fifo(&fifo);
	test_pipe_close(&other);
	close(fd);
	return results[2];
}

static void prep_fsync(struct io_uring_sqe *sqe, int fd)
{
	io_uring_prep_fsync(sqe, fd, 0);
}

static void prep_fallocate(struct io_uring_sqe *sqe, int fd)
{
	io_uring_prep_fallocate(sqe, fd, 0, 0, 1);
}

FACT(what_is_always_done_by_a_thread_may_look_its_file_up_there,
     "file_is_taken_at_submit() in ring/sanitize.c: it does not list fsync and fallocate")
{
	int rc = result_of_late(prep_fsync);

	/* A pipe cannot be synced; the file that the number meant at submit can. */
	expect(rc == -EINVAL || rc == 0);
	test_note("fsync looks its file up %s", rc == 0 ? "at submit" : "late");
	rc = result_of_late(prep_fallocate);
	expect(rc == -EBADF || rc == -ESPIPE || rc == 0);
	test_note("fallocate looks its file up %s", rc == 0 ? "at submit" : "late");
}

/* ------------------------------------------------------------ memory -- */

FACT(the_kernel_writes_to_whatever_lies_at_the_address_by_then,
     "the law \"Lent memory is the kernel's until the reply\"")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	expect(page != MAP_FAILED);
	open_ring(&ring, 4, 0, OURS);
	add(&ring, 1, 0, read, pipe.r, page, 1, NOWHERE);
	submit(&ring, 1);
	expect(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		    -1, 0) == page);
	expect_eq(write(pipe.w, "a", 1), 1);
	expect_cqe(&ring, 1, 1);
	expect_eq(*page, 'a');		/* the new owner's */
	io_uring_queue_exit(&ring);
	munmap(page, 4096);
	test_pipe_close(&pipe);
}

static void make_buffer_table(struct io_uring *ring)
{
	struct io_uring_rsrc_register table = { .nr = 4, .flags = IORING_RSRC_REGISTER_SPARSE };
	int rc = io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_BUFFERS2, &table,
				   sizeof(table));

	if (rc == -EINVAL)
		test_skip("this kernel has no sparse tables of buffers");
	expect_eq(rc, 0);
}

static int update_buffer(struct io_uring *ring, unsigned index, void *data, size_t len)
{
	struct iovec iov = { data, len };
	struct io_uring_rsrc_update2 update = { .offset = index, .data = (uintptr_t)&iov, .nr = 1 };

	return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_BUFFERS_UPDATE, &update,
				 sizeof(update));
}

FACT(a_slot_of_an_empty_table_of_buffers_can_be_filled_and_emptied,
     "buffers_update() and buffers_make_table() in ring/buffers.c")
{
	int fd = test_file(8);
	struct io_uring ring;
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	expect(page != MAP_FAILED);
	open_ring(&ring, 4, 0, OURS);
	make_buffer_table(&ring);
	add(&ring, 1, 0, read_fixed, fd, page, 8, 0, 2);
	submit(&ring, 1);
	expect_cqe(&ring, 1, -EFAULT);
	expect_eq(update_buffer(&ring, 2, page, 4096), 1);
	add(&ring, 2, 0, read_fixed, fd, page, 8, 0, 2);
	submit(&ring, 1);
	expect_cqe(&ring, 2, 8);
	expect_bytes(page, 8, 0);
	add(&ring, 3, 0, read_fixed, fd, page + 4090, 8, 0, 2);
	submit(&ring, 1);
	expect_cqe(&ring, 3, -EFAULT);
	expect_eq(update_buffer(&ring, 2, NULL, 0), 1);
	add(&ring, 4, 0, read_fixed, fd, page, 8, 0, 2);
	submit(&ring, 1);
	expect_cqe(&ring, 4, -EFAULT);
	io_uring_queue_exit(&ring);
	munmap(page, 4096);
	close(fd);
}

FACT(a_registered_buffer_is_its_pages_and_not_its_address,
     "lib/buffer.c: MADV_DONTFORK, and the slot is emptied before the pages are unmapped")
{
	int fd = test_file(8);
	struct io_uring ring;
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	expect(page != MAP_FAILED);
	open_ring(&ring, 4, 0, OURS);
	make_buffer_table(&ring);
	expect_eq(update_buffer(&ring, 0, page, 4096), 1);
	expect(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		    -1, 0) == page);
	add(&ring, 1, 0, read_fixed, fd, page, 8, 0, 0);
	submit(&ring, 1);
	expect_cqe(&ring, 1, 8);
	expect_eq(page[0], 0);		/* it has gone to pages that nobody sees any more */
	io_uring_queue_exit(&ring);
	munmap(page, 4096);
	close(fd);
}

static void fill_lockable_memory(void *arg)
{
	struct io_uring rings[64];
	unsigned *ret_count = arg;
	int rc = 0;

	test_limit(RLIMIT_MEMLOCK, 64 * 1024);
	*ret_count = 0;
	while (rc == 0 && *ret_count < 64) {
		rc = io_uring_queue_init(64, &rings[*ret_count], 0);
		*ret_count += rc == 0;
	}
	if (*ret_count == 64)
		return;
	expect_eq(rc, -ENOMEM);
	while (*ret_count > 0)
		io_uring_queue_exit(&rings[--*ret_count]);
	await(io_uring_queue_init(64, &rings[0], 0) == 0);
	io_uring_queue_exit(&rings[0]);
}

FACT(locked_memory_that_is_used_up_says_ENOMEM_and_comes_back_after_the_close,
     "setup_patiently() in ring/ring.c: it tries again for half a second, as it may come late")
{
	unsigned *count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			       0);
	struct io_uring ring;

	expect(count != MAP_FAILED);
	open_ring(&ring, 4, 0, 0);
	io_uring_queue_exit(&ring);
	test_in_child_as_nobody(fill_lockable_memory, count);
	if (*count == 64)
		test_note("this kernel counts no locked memory for rings");
	munmap(count, 4096);
}

/* --------------------------------------------------------- multishot -- */

#define READ_MULTISHOT	49	/* newer than the oldest liburing */

static bool kernel_knows(struct io_uring *ring, unsigned opcode)
{
	struct io_uring_probe *probe = calloc(1, sizeof(*probe) + 256 * sizeof(probe->ops[0]));
	bool knows;

	expect(probe);
	expect_eq(io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_PROBE, probe, 256), 0);
	knows = opcode < probe->ops_len && (probe->ops[opcode].flags & IO_URING_OP_SUPPORTED);
	free(probe);
	return knows;
}

/* A ring of a kernel that knows opcode. */
static void open_ring_knowing(struct io_uring *ring, unsigned opcode, unsigned cq_entries)
{
	open_ring(ring, 4, cq_entries, OURS);
	if (!kernel_knows(ring, opcode)) {
		io_uring_queue_exit(ring);
		test_skip("this kernel has no opcode %u", opcode);
	}
}

static int listen_at(struct sockaddr_un *ret_address, socklen_t *ret_len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(ret_address, 0, sizeof(*ret_address));
	ret_address->sun_family = AF_UNIX;
	*ret_len = sizeof(*ret_address);
	expect_ge(fd, 0);
	expect_eq(bind(fd, (struct sockaddr *)ret_address, sizeof(sa_family_t)), 0);
	expect_eq(getsockname(fd, (struct sockaddr *)ret_address, ret_len), 0);
	expect_eq(listen(fd, 100), 0);
	return fd;
}

static int connect_to(const struct sockaddr_un *address, socklen_t len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	expect_ge(fd, 0);
	expect_eq(connect(fd, (const struct sockaddr *)address, len), 0);
	return fd;
}

FACT(a_multishot_accept_gives_a_completion_for_each_and_one_more_at_its_end,
     "gyre__stream_note() in ring/stream.c: F_MORE means a result, and the last CQE of all lets go")
{
	struct sockaddr_un address;
	struct io_uring ring;
	int listener, fds[10];
	struct answer answer;
	socklen_t len;
	unsigned i;

	open_ring_knowing(&ring, IORING_OP_SOCKET, 0);
	listener = listen_at(&address, &len);
	add(&ring, 1, 0, multishot_accept, listener, NULL, NULL, SOCK_CLOEXEC);
	submit(&ring, 1);
	for (i = 0; i < 10; i++) {
		fds[i] = connect_to(&address, len);
		answer = take(&ring);
		expect_ge(answer.res, 0);
		expect_eq(answer.flags & IORING_CQE_F_MORE, IORING_CQE_F_MORE);
		close(answer.res);
	}
	add(&ring, 2, 0, cancel64, 1, 0);
	submit(&ring, 1);
	for (i = 0; i < 2; i++) {
		answer = take(&ring);
		expect_eq(answer.res, answer.user_data == 1 ? -ECANCELED : 0);
		expect_eq(answer.flags & IORING_CQE_F_MORE, 0);
	}
	io_uring_queue_exit(&ring);
	for (i = 0; i < 10; i++)
		close(fds[i]);
	close(listener);
}

FACT(a_multishot_poll_says_at_its_start_what_is_so_and_then_each_edge, "gyre__stream_take() in "
								       "ring/stream.c: a poll that "
								       "begins again has missed "
								       "nothing that is still so")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	struct answer answer;
	unsigned i;
	char byte;

	open_ring(&ring, 4, 0, OURS);
	if (!(ring.features & IORING_FEAT_RSRC_TAGS)) {
		io_uring_queue_exit(&ring);
		test_skip("this kernel has no multishot polls");
	}
	expect_eq(write(pipe.w, "x", 1), 1);
	add(&ring, 1, 0, poll_multishot, pipe.r, POLLIN);
	submit(&ring, 1);
	for (i = 0; i < 10; i++) {
		answer = take(&ring);
		expect_eq(answer.res, POLLIN);
		expect_eq(answer.flags & IORING_CQE_F_MORE, IORING_CQE_F_MORE);
		expect_eq(read(pipe.r, &byte, 1), 1);
		expect_eq(write(pipe.w, "x", 1), 1);
	}
	io_uring_queue_exit(&ring);
	test_pipe_close(&pipe);
}

struct fact_buffers {
	struct io_uring_buf_ring *ring;
	char data[4][64];
	unsigned tail;
};

static int register_group(struct io_uring *ring, const struct fact_buffers *buffers, unsigned group)
{
	struct io_uring_buf_reg reg = {
		.ring_addr = (uintptr_t)buffers->ring, .ring_entries = 4, .bgid = (uint16_t)group,
	};

	return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_PBUF_RING, &reg, 1);
}

static void give_buffer(struct fact_buffers *buffers, unsigned number)
{
	struct io_uring_buf *slot = (struct io_uring_buf *)buffers->ring + buffers->tail % 4;

	slot->addr = (uintptr_t)buffers->data[number];
	slot->len = sizeof(buffers->data[number]);
	slot->bid = (uint16_t)number;
	io_uring_smp_store_release(&buffers->ring->tail, (uint16_t)++buffers->tail);
}

/* Group 7 of ring, with count buffers in it. */
static void open_group(struct io_uring *ring, struct fact_buffers *buffers, unsigned count)
{
	unsigned i;

	memset(buffers, 0, sizeof(*buffers));
	buffers->ring = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
	expect(buffers->ring != MAP_FAILED);
	expect_eq(register_group(ring, buffers, 7), 0);
	for (i = 0; i < count; i++)
		give_buffer(buffers, i);
}

static void close_group(struct fact_buffers *buffers)
{
	munmap(buffers->ring, 4096);
}

static void add_receive(struct io_uring *ring, uint64_t user_data, int fd)
{
	struct io_uring_sqe *sqe = next_sqe(ring, 0);

	io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = 7;
	sqe->user_data = user_data;
}

static void add_read_many(struct io_uring *ring, uint64_t user_data, int fd)
{
	struct io_uring_sqe *sqe = next_sqe(ring, 0);

	io_uring_prep_rw(READ_MULTISHOT, sqe, fd, NULL, 0, NOWHERE);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = 7;
	sqe->user_data = user_data;
}

/* The next CQE has byte in a buffer, which is told. */
static unsigned expect_received(struct io_uring *ring, struct fact_buffers *buffers, char byte)
{
	struct answer answer = take(ring);
	unsigned number = answer.flags >> IORING_CQE_BUFFER_SHIFT;

	expect_eq(answer.res, 1);
	expect_eq(answer.flags & (IORING_CQE_F_MORE | IORING_CQE_F_BUFFER),
		  IORING_CQE_F_MORE | IORING_CQE_F_BUFFER);
	expect_lt(number, 4);
	expect_eq(buffers->data[number][0], byte);
	return number;
}

static void expect_last(struct io_uring *ring, uint64_t user_data, int res)
{
	struct answer answer = take(ring);

	expect_eq(answer.user_data, user_data);
	expect_eq(answer.res, res);
	expect_eq(answer.flags & IORING_CQE_F_MORE, 0);
}

FACT(a_multishot_receive_without_a_buffer_ends_with_ENOBUFS_and_takes_nothing,
     "may_go_on() in ring/stream.c: it begins again where it ended, when buffers are back")
{
	struct fact_buffers buffers;
	struct io_uring ring;
	unsigned numbers[2];
	int pair[2], i;

	open_ring_knowing(&ring, IORING_OP_SEND_ZC, 0);
	open_group(&ring, &buffers, 2);
	expect_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (i = 0; i < 3; i++)
		expect_eq(send(pair[1], &"abc"[i], 1, 0), 1);
	add_receive(&ring, 1, pair[0]);
	submit(&ring, 1);
	for (i = 0; i < 2; i++)
		numbers[i] = expect_received(&ring, &buffers, "ab"[i]);
	expect_last(&ring, 1, -ENOBUFS);
	give_buffer(&buffers, numbers[0]);
	add_receive(&ring, 2, pair[0]);
	submit(&ring, 1);
	expect_eq(expect_received(&ring, &buffers, 'c'), numbers[0]);
	io_uring_queue_exit(&ring);
	close(pair[0]);
	close(pair[1]);
	close_group(&buffers);
}

FACT(a_multishot_op_says_at_the_end_of_the_file_that_it_was_the_last,
     "may_go_on() in ring/stream.c: no bytes end a stream, and it does not begin again")
{
	struct test_pipe pipe = test_pipe();
	struct fact_buffers buffers;
	struct io_uring ring;
	int pair[2];

	open_ring_knowing(&ring, READ_MULTISHOT, 0);
	open_group(&ring, &buffers, 2);
	expect_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	add_receive(&ring, 1, pair[0]);
	submit(&ring, 1);
	close(pair[1]);
	expect_last(&ring, 1, 0);
	add_read_many(&ring, 2, pipe.r);
	submit(&ring, 1);
	close(pipe.w);
	expect_last(&ring, 2, 0);
	io_uring_queue_exit(&ring);
	close(pair[0]);
	close(pipe.r);
	close_group(&buffers);
}

FACT(a_multishot_read_of_what_cannot_be_polled_is_refused,
     "ring/stream.h: that error is the stream's one result")
{
	struct fact_buffers buffers;
	int fd = test_file(10);
	struct io_uring ring;

	open_ring_knowing(&ring, READ_MULTISHOT, 0);
	open_group(&ring, &buffers, 2);
	add_read_many(&ring, 1, fd);
	submit(&ring, 1);
	expect_last(&ring, 1, -EBADFD);
	io_uring_queue_exit(&ring);
	close(fd);
	close_group(&buffers);
}

FACT(a_multishot_op_holds_its_file_from_the_submit_on,
     "gyre__ring_barrier() in ring/turn.c: gyre_close_fd() does not wait for streams")
{
	struct test_pipe pipe = test_pipe(), other = test_pipe();
	struct fact_buffers buffers;
	struct io_uring ring;
	int number;

	open_ring_knowing(&ring, READ_MULTISHOT, 0);
	open_group(&ring, &buffers, 2);
	number = dup(pipe.r);
	add_read_many(&ring, 1, number);
	submit(&ring, 1);
	put_at(number, other.r);
	expect_eq(write(other.w, "b", 1), 1);
	expect_eq(write(pipe.w, "a", 1), 1);
	expect_received(&ring, &buffers, 'a');
	io_uring_queue_exit(&ring);
	close(number);
	test_pipe_close(&pipe);
	test_pipe_close(&other);
	close_group(&buffers);
}

FACT(a_full_completion_queue_may_end_a_multishot_op_and_loses_none_of_its_results,
     "may_go_on() in ring/stream.c: a result without F_MORE counts, and the op begins again")
{
	struct sockaddr_un address;
	unsigned ends = 0, i;
	struct io_uring ring;
	int listener, fds[20];
	struct answer answer;
	socklen_t len;

	open_ring_knowing(&ring, IORING_OP_SOCKET, 4);
	listener = listen_at(&address, &len);
	for (i = 0; i < 20; i++)
		fds[i] = connect_to(&address, len);
	add(&ring, 1, 0, multishot_accept, listener, NULL, NULL, SOCK_CLOEXEC);
	submit(&ring, 1);
	for (i = 0; i < 20; i++) {
		answer = take(&ring);
		expect_ge(answer.res, 0);
		close(answer.res);
		if (answer.flags & IORING_CQE_F_MORE)
			continue;
		ends++;
		add(&ring, 1, 0, multishot_accept, listener, NULL, NULL, SOCK_CLOEXEC);
		submit(&ring, 1);
	}
	test_note("it ended %u times", ends);
	io_uring_queue_exit(&ring);
	for (i = 0; i < 20; i++)
		close(fds[i]);
	close(listener);
}

FACT(a_group_of_buffers_that_is_there_is_refused_with_EEXIST,
     "register_buffers() in ring/stream.c: it tries the next number")
{
	struct io_uring_buf_reg reg = { .bgid = 7 };
	struct fact_buffers buffers;
	struct io_uring ring;

	open_ring_knowing(&ring, IORING_OP_SOCKET, 0);
	open_group(&ring, &buffers, 2);
	expect_eq(register_group(&ring, &buffers, 7), -EEXIST);
	expect_eq(io_uring_register((unsigned)ring.ring_fd, IORING_UNREGISTER_PBUF_RING, &reg, 1),
		  0);
	expect_eq(register_group(&ring, &buffers, 7), 0);
	io_uring_queue_exit(&ring);
	close_group(&buffers);
}

FACT(a_ring_of_buffers_stays_its_owners_after_a_fork,
     "map_buffers() in ring/stream.c: it is not kept from children, and no page of it is parted")
{
	struct test_pipe go = test_pipe();
	struct fact_buffers buffers;
	struct io_uring ring;
	int pair[2], wait_status, i;
	pid_t pid;
	char byte;

	open_ring_knowing(&ring, IORING_OP_SEND_ZC, 0);
	open_group(&ring, &buffers, 1);
	expect_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	add_receive(&ring, 1, pair[0]);
	submit(&ring, 1);
	pid = fork();
	expect_ge(pid, 0);
	if (pid == 0) {		/* lives, with all its copies, while the buffers are given */
		close(go.w);
		_exit(read(go.r, &byte, 1) != 0);
	}
	for (i = 1; i < 4; i++)
		give_buffer(&buffers, (unsigned)i);
	for (i = 0; i < 4; i++) {
		expect_eq(send(pair[1], &"abcd"[i], 1, 0), 1);
		expect_eq(expect_received(&ring, &buffers, "abcd"[i]), i);
	}
	test_pipe_close(&go);
	expect_eq(waitpid(pid, &wait_status, 0), pid);
	expect_eq(wait_status, 0);
	io_uring_queue_exit(&ring);
	close(pair[0]);
	close(pair[1]);
	close_group(&buffers);
}

/* -------------------------------------------------------- end and fork -- */

static bool is_at_end(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return poll(&pollfd, 1, 0) == 1 && (pollfd.revents & POLLHUP);
}

/* A pipe whose writing end nobody has but the ring. */
static int bury_pipe(struct io_uring *ring)
{
	struct test_pipe tomb = test_pipe();

	expect_eq(io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_FILES, &tomb.w, 1), 0);
	close(tomb.w);
	return tomb.r;
}

FACT(the_tombstone_reads_its_end_when_the_kernel_has_let_go_of_a_closed_ring,
     "wait_for_kernel() in ring/death.c: callers get their memory back after that and not before")
{
	struct test_pipe pipe = test_pipe();
	struct io_uring ring;
	char bytes[2] = "";
	int tomb;

	open_ring(&ring, 4, 0, OURS);
	tomb = bury_pipe(&ring);
	add(&ring, 1, 0, read, pipe.r, &bytes[0], 1, NOWHERE);
	add(&ring, 2, IOSQE_ASYNC, read, pipe.r, &bytes[1], 1, NOWHERE);
	submit(&ring, 2);
	expect(!is_at_end(tomb));
	io_uring_queue_exit(&ring);
	expect_eq(read(tomb, &bytes[1], 1), 0);
	/* From here on, nothing of the ring's takes the data. */
	expect_eq(write(pipe.w, "ab", 2), 2);
	expect_eq(test_pipe_holds(&pipe), 2);
	expect_eq(bytes[0], 0);
	close(tomb);
	test_pipe_close(&pipe);
}

FACT(a_ring_that_a_child_has_open_lives_on_after_its_close,
     "ring/fork.c: rings are closed in a forked child, or the tombstone would never tell")
{
	struct test_pipe go = test_pipe();
	struct io_uring ring;
	char byte;
	int tomb, wait_status;
	pid_t pid;

	open_ring(&ring, 4, 0, OURS);
	tomb = bury_pipe(&ring);
	pid = fork();
	expect_ge(pid, 0);
	if (pid == 0) {
		close(go.w);
		_exit(read(go.r, &byte, 1) != 0);
	}
	io_uring_queue_exit(&ring);
	expect(!is_at_end(tomb));
	test_pipe_close(&go);
	expect_eq(read(tomb, &byte, 1), 0);
	expect_eq(waitpid(pid, &wait_status, 0), pid);
	expect_eq(wait_status, 0);
	close(tomb);
}

static void look_for_rings(void *arg)
{
	struct io_uring *ring = arg;

	expect_eq(msync(ring->sq.sqes, 4096, MS_ASYNC), -1);
	expect_eq(errno, ENOMEM);
}

FACT(a_child_does_not_have_what_was_kept_from_it,
     "map_shared() in ring/ring.c: a child that wrote to the queues would wreck its parent's ring")
{
	struct io_uring ring;

	open_ring(&ring, 4, 0, OURS);
	expect_eq(msync(ring.sq.sqes, 4096, MS_ASYNC), 0);
	expect_eq(madvise(ring.sq.sqes, 4096, MADV_DONTFORK), 0);
	test_in_child(look_for_rings, &ring);
	io_uring_queue_exit(&ring);
}

static void read_the_mark(void *arg)
{
	expect_eq(*(uint64_t *)arg, 0);
}

FACT(a_page_that_is_wiped_on_fork_reads_zero_in_a_child,
     "gyre__runtime_is_forked(): it is how a child knows that the runtime is not its own")
{
	uint64_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			      0);

	expect(page != MAP_FAILED);
	*page = 1;
	expect_eq(madvise(page, 4096, MADV_WIPEONFORK), 0);
	test_in_child(read_the_mark, page);
	expect_eq(*page, 1);
	munmap(page, 4096);
}

/* ---------------------------------------------------------------- memory -- */

#define PAGES	64

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102	/* Linux 6.13 */
#endif

/* As stacks are mapped, without access around it: nothing beside it becomes part of it. */
static char *map_pages(size_t page)
{
	char *ptr = mmap(NULL, (PAGES + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	expect(ptr != MAP_FAILED);
	expect(mmap(ptr + page, PAGES * page, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK | MAP_FIXED, -1, 0) ==
	       ptr + page);
	madvise(ptr + page, PAGES * page, MADV_NOHUGEPAGE);
	return ptr + page;
}

static void unmap_pages(char *ptr, size_t page)
{
	expect_eq(munmap(ptr - page, (PAGES + 2) * page), 0);
}

/* How many mappings lie in [from, from + len). */
static unsigned mappings_within(const char *from, size_t len)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	unsigned count = 0;
	char line[512];

	expect(file);
	while (fgets(line, sizeof(line), file)) {
		expect_eq(sscanf(line, "%lx-%lx", &start, &end), 2);
		count += start >= (uintptr_t)from && end <= (uintptr_t)from + len;
	}
	fclose(file);
	return count;
}

static bool is_in_memory(char *ptr)
{
	unsigned char vec;

	expect_eq(mincore(ptr, 1, &vec), 0);
	return vec & 1;
}

/* Whether the kernel can read there: no access is an errno, and no signal. */
static bool is_readable(const char *ptr)
{
	struct test_pipe pipe = test_pipe();
	bool readable = write(pipe.w, ptr, 1) == 1;

	expect(readable || errno == EFAULT);
	test_pipe_close(&pipe);
	return readable;
}

/* In every fourth page one. */
static void install_guards(char *ptr, size_t page)
{
	unsigned i;

	for (i = 0; i < PAGES; i += 4)
		if (madvise(ptr + i * page, page, MADV_GUARD_INSTALL) < 0) {
			expect_eq(errno, EINVAL);
			test_skip("this kernel has no MADV_GUARD_INSTALL, and says EINVAL");
		}
}

FACT(a_guard_is_refused_with_EINVAL_or_keeps_out_and_splits_no_mapping,
     "make_guard() in workers/stack.c: more stacks than there may be mappings")
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *ptr = map_pages(page);
	unsigned i;

	install_guards(ptr, page);
	for (i = 0; i < PAGES; i++)
		expect_eq(is_readable(ptr + i * page), i % 4 != 0);
	expect_eq(mappings_within(ptr, PAGES * page), 1);
	unmap_pages(ptr, page);
}

FACT(a_guard_outlives_what_is_given_back_around_it,
     "workers/stack.c: a stack that is given back and taken again is guarded as before")
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *ptr = map_pages(page);
	unsigned i;

	install_guards(ptr, page);
	expect_eq(madvise(ptr, PAGES * page, MADV_DONTNEED), 0);
	for (i = 0; i < PAGES; i++)
		expect_eq(is_readable(ptr + i * page), i % 4 != 0);
	unmap_pages(ptr, page);
}

FACT(a_page_lies_in_memory_from_its_first_use_until_it_is_given_back,
     "look() in workers/stack.c: it takes the lowest such page for the depth of a stack")
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *ptr = map_pages(page);
	unsigned i;

	for (i = 0; i < PAGES; i += 3)
		ptr[i * page + 17] = 1;
	for (i = 0; i < PAGES; i++)
		expect_eq(is_in_memory(ptr + i * page), i % 3 == 0);
	expect_eq(madvise(ptr, PAGES / 2 * page, MADV_DONTNEED), 0);
	for (i = 0; i < PAGES; i++)
		expect_eq(is_in_memory(ptr + i * page), i >= PAGES / 2 && i % 3 == 0);
	unmap_pages(ptr, page);
}

FACT(what_was_given_back_reads_zero,
     "clear() in workers/stack.c: no job finds in a stack what another has left there")
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), i;
	char *ptr = map_pages(page);

	memset(ptr, 0xee, PAGES * page);
	expect_eq(madvise(ptr, PAGES * page, MADV_DONTNEED), 0);
	for (i = 0; i < PAGES * page; i++)
		expect_eq(ptr[i], 0);
	unmap_pages(ptr, page);
}

FACT(memory_that_is_locked_is_not_given_back_and_says_EINVAL,
     "clear() and push_cold() in workers/stack.c: they clear it by hand")
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *ptr;

	if (TEST_UNDER_SANITIZER)
		test_skip("a sanitizer locks no memory");
	ptr = map_pages(page);
	*ptr = 1;
	if (mlock(ptr, page) < 0)
		test_skip("this machine allows no locked memory");
	expect_eq(madvise(ptr, page, MADV_DONTNEED), -1);
	expect_eq(errno, EINVAL);
	expect_eq(*ptr, 1);
	expect_eq(madvise(ptr, page, MADV_GUARD_INSTALL), -1);
	expect_eq(errno, EINVAL);
	unmap_pages(ptr, page);
}

static void spend_mappings(void *arg)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), len = (size_t)*(unsigned *)arg * 2 * page, at;
	char *ptr = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	expect(ptr != MAP_FAILED);
	for (at = page; at < len; at += 2 * page)
		if (mprotect(ptr + at, page, PROT_NONE) < 0)
			break;
	expect_lt(at, len);
	expect_eq(errno, ENOMEM);
}

FACT(a_guard_that_would_be_one_mapping_too_many_says_ENOMEM,
     "make_guard() in workers/stack.c: there is no stack without one")
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned limit = 0;

	if (file) {
		expect_eq(fscanf(file, "%u", &limit), 1);
		fclose(file);
	}
	if (limit == 0 || limit > 100000)
		test_skip("the limit of mappings is unknown or far away");
	if (TEST_UNDER_SANITIZER)
		test_skip("a sanitizer falls over at that limit");
	test_in_child(spend_mappings, &limit);
}

TEST(architecture_lists_each_of_these_facts)
{
	const char *dir = getenv("GYRE_TEST_SRCDIR");
	char path[512], row[128];
	unsigned i;
	char *text;
	int fd;

	if (!dir)
		test_skip("GYRE_TEST_SRCDIR does not say where the sources are");
	snprintf(path, sizeof(path), "%s/ARCHITECTURE.md", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	expect_ge(fd, 0);
	text = test_slurp(fd);
	for (i = 0; i < fact_count; i++) {
		snprintf(row, sizeof(row), "\n| `%s` |", facts[i]);
		expect_contains(text, row);
	}
	free(text);
	close(fd);
}

/* ------------------------------------------- through the library itself -- */

#define MANY	8

struct many {
	struct gyre *rt;
	struct gyre_op ops[MANY];
};

/* All of them while the kernel refuses, and it goes on only when the worker has seen them. */
static void cancel_many(void *arg, unsigned number)
{
	struct many *many = arg;
	unsigned i, hits;

	(void)number;
	await(test_stat(many->rt, inflight) == MANY);
	gyre__fault_set(GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EAGAIN);
	for (i = 0; i < MANY; i++)
		expect_status(gyre_op_cancel(many->rt, &many->ops[i]), GYRE_OK);
	hits = gyre__fault_hits(GYRE__FAULT_uring_enter);
	await(gyre__fault_hits(GYRE__FAULT_uring_enter) >= hits + 2);
	gyre__fault_clear();
}

/*
 * Eight reads and their eight cancels are sixteen completions, in a queue of
 * eight places. After the refusals, the first enter that the kernel takes asks
 * for events as well, so all of them are made at once.
 */
TEST(more_completions_than_the_queue_holds_are_all_answered)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 1, .ring_entries = MANY,
					.inflight_max = MANY };
	struct test_pipe pipe = test_pipe();
	struct test_io io[MANY];
	struct test_crew crew;
	char bytes[MANY];
	struct many many;
	unsigned i;

	gyre__fault_install();
	many.rt = test_open(&options);
	for (i = 0; i < MANY; i++) {
		io[i] = (struct test_io){ pipe.r, &bytes[i], 1, TEST_IO_HERE };
		many.ops[i] = test_op(prep_read, &io[i]);
	}
	test_crew_start(&crew, 1, cancel_many, &many);
	expect_status(gyre_callv(many.rt, many.ops, MANY), GYRE_CANCELLED);
	test_crew_join(&crew);
	for (i = 0; i < MANY; i++)
		expect_op(&many.ops[i], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	expect_gt(test_stat(many.rt, cq_overflows), 0);
	gyre_free(many.rt);
	gyre__fault_remove();
	test_pipe_close(&pipe);
}

static void prep_open_async(struct io_uring_sqe *sqe, void *path)
{
	io_uring_prep_openat(sqe, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	sqe->flags |= IOSQE_ASYNC;
}

/* An open that its time-out interrupts, whatever the kernel's thread says of it. */
TEST(an_interrupted_open_has_timed_out)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_op op;
	struct fifo fifo;

	make_fifo(&fifo);
	op = test_op(prep_open_async, fifo.path);
	op.timeout_ns = 1000000;
	expect_status(gyre_callv(rt, &op, 1), GYRE_TIMED_OUT);
	expect(op.res == -EINTR || op.res == -ECANCELED);
	expect_eq(op.effect, GYRE_EFFECT_UNKNOWN);
	remove_fifo(&fifo);
	gyre_free(rt);
}

static void prep_fsync_of(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_fsync(sqe, *(int *)fd, 0);
}

struct behind {
	struct gyre *rt;
	struct test_pipe passed;
	struct gyre_op ops[3];
};

static void cancel_last(void *arg, unsigned number)
{
	struct behind *behind = arg;

	(void)number;
	await(test_pipe_holds(&behind->passed) == 1);
	expect_status(gyre_op_cancel(behind->rt, &behind->ops[2]), GYRE_OK);
}

/* The failure in front of it has not kept it from running, so NONE would be a lie. */
TEST(a_read_behind_a_failed_fsync_that_is_cancelled_may_have_had_an_effect)
{
	struct behind behind = { test_open_workers(1), test_pipe(), { { 0 } } };
	struct test_pipe pipe = test_pipe();
	struct test_crew crew;
	char bytes[2] = "a";
	struct test_io write = { behind.passed.w, &bytes[0], 1, TEST_IO_HERE };
	struct test_io read = { pipe.r, &bytes[1], 1, TEST_IO_HERE };

	behind.ops[0] = test_op(prep_fsync_of, &pipe.r);
	behind.ops[1] = test_op(prep_write, &write);
	behind.ops[2] = test_op(prep_read, &read);
	behind.ops[0].flags = behind.ops[1].flags = GYRE_OP_LINK;
	test_crew_start(&crew, 1, cancel_last, &behind);
	expect_status(gyre_callv(behind.rt, behind.ops, 3), GYRE_CANCELLED);
	test_crew_join(&crew);
	expect_op(&behind.ops[0], GYRE_OK, -EINVAL, GYRE_EFFECT_DONE);
	expect_op(&behind.ops[1], GYRE_OK, 1, GYRE_EFFECT_DONE);
	expect_op(&behind.ops[2], GYRE_CANCELLED, -ECANCELED, GYRE_EFFECT_UNKNOWN);
	gyre_free(behind.rt);
	test_pipe_close(&behind.passed);
	test_pipe_close(&pipe);
}

TEST_MAIN()
