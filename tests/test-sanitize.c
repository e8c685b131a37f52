/* SPDX-License-Identifier: MIT */
/*
 * ring/sanitize: the allow-list, written down a second time and from the other
 * side: here stands what a stranger may do, and everything else must be refused.
 */
#include <liburing.h>
#include <string.h>

#include "helpers.h"
#include "ring/ring.h"
#include "ring/sanitize.h"
#include "ring/sys.h"

#define RING_FD	100
#define WAKE_FD	101
#define TOMB_FD	102
#define BUFFER_INDEX	3

static char buffer_memory[8192] __attribute__((__aligned__(4096)));
static char foreign_memory[8192];

static struct gyre__buffer_row row = {
	.data = buffer_memory,
	.len = sizeof(buffer_memory),
	.index = BUFFER_INDEX,
	.held = 1,
};
static struct gyre__buffer_row *buffer_rows[] = { &row };

/* What sanitize looks at: descriptors, buffers, and a kernel that knows everything. */
static struct gyre__ring *ring_to_ask(void)
{
	static struct gyre__ring ring;

	memset(&ring, 0, sizeof(ring));
	ring.uring.ring_fd = RING_FD;
	ring.wake_fd = WAKE_FD;
	ring.tomb_fd = TOMB_FD;
	ring.buffers.rows = buffer_rows;
	ring.buffers.count = ring.buffers.size = 1;
	memset(ring.features.opcodes, 0xff, sizeof(ring.features.opcodes));
	gyre__sanitize_prepare(&ring);
	return &ring;
}

static enum gyre__refusal ask(const struct io_uring_sqe *sqe)
{
	static const struct gyre__ring *ring;	/* made once: it is asked millions of times */
	enum gyre__refusal refusal;

	if (!ring)
		ring = ring_to_ask();
	refusal = gyre__sanitize(ring, sqe);
	/* The short way and the long one: never two opinions. */
	expect_eq(gyre__sanitize_fully(ring, sqe), refusal);
	return refusal;
}

/* A harmless SQE of this opcode: a fixed one with its own buffer. */
static struct io_uring_sqe harmless(unsigned opcode)
{
	struct io_uring_sqe sqe;

	memset(&sqe, 0, sizeof(sqe));
	sqe.opcode = (uint8_t)opcode;
	sqe.fd = 5;
	if (opcode == IORING_OP_READ_FIXED || opcode == IORING_OP_WRITE_FIXED) {
		sqe.addr = (uintptr_t)buffer_memory;
		sqe.len = 4096;
		sqe.buf_index = BUFFER_INDEX;
	}
	return sqe;
}

/* Every opcode that a stranger may use, and the bits that its ioprio may have. */
static const struct {
	unsigned opcode;
	unsigned ioprio;
} allowed[] = {
	{ 0, 0 },		/* NOP */
	{ 1, 0xffff },		/* READV: an I/O priority, as the kernel sees fit */
	{ 2, 0xffff },		/* WRITEV */
	{ 3, 0 },		/* FSYNC */
	{ 4, 0xffff },		/* READ_FIXED */
	{ 5, 0xffff },		/* WRITE_FIXED */
	{ 6, 0 },		/* POLL_ADD */
	{ 8, 0 },		/* SYNC_FILE_RANGE */
	{ 9, 1 },		/* SENDMSG: POLL_FIRST */
	{ 10, 1 },		/* RECVMSG */
	{ 11, 0 },		/* TIMEOUT */
	{ 13, 0 },		/* ACCEPT */
	{ 16, 0 },		/* CONNECT */
	{ 17, 0 },		/* FALLOCATE */
	{ 18, 0 },		/* OPENAT */
	{ 19, 0 },		/* CLOSE */
	{ 21, 0 },		/* STATX */
	{ 22, 0xffff },		/* READ */
	{ 23, 0xffff },		/* WRITE */
	{ 24, 0 },		/* FADVISE */
	{ 25, 0 },		/* MADVISE */
	{ 26, 1 },		/* SEND */
	{ 27, 1 },		/* RECV */
	{ 28, 0 },		/* OPENAT2 */
	{ 29, 0 },		/* EPOLL_CTL */
	{ 30, 0 },		/* SPLICE */
	{ 33, 0 },		/* TEE */
	{ 34, 0 },		/* SHUTDOWN */
	{ 35, 0 },		/* RENAMEAT */
	{ 36, 0 },		/* UNLINKAT */
	{ 37, 0 },		/* MKDIRAT */
	{ 38, 0 },		/* SYMLINKAT */
	{ 39, 0 },		/* LINKAT */
	{ 41, 0 },		/* FSETXATTR */
	{ 42, 0 },		/* SETXATTR */
	{ 43, 0 },		/* FGETXATTR */
	{ 44, 0 },		/* GETXATTR */
	{ 45, 0 },		/* SOCKET */
	{ 47, 1 | 8 },		/* SEND_ZC: POLL_FIRST, REPORT_USAGE; FIXED_BUF below */
	{ 48, 1 | 8 },		/* SENDMSG_ZC */
	{ 50, 0 },		/* WAITID */
	{ 51, 0 },		/* FUTEX_WAIT */
	{ 52, 0 },		/* FUTEX_WAKE */
	{ 53, 0 },		/* FUTEX_WAITV */
	{ 55, 0 },		/* FTRUNCATE */
	{ 56, 0 },		/* BIND */
	{ 57, 0 },		/* LISTEN */
	{ 59, 0 },		/* EPOLL_WAIT */
	{ 62, 0 },		/* PIPE */
};

static bool may(unsigned opcode, unsigned ioprio)
{
	unsigned i;

	for (i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
		if (allowed[i].opcode == opcode)
			return !(ioprio & ~allowed[i].ioprio);
	return false;
}

static void expect_as_listed(unsigned opcode, unsigned flags, unsigned personality, unsigned ioprio)
{
	struct io_uring_sqe sqe = harmless(opcode);
	bool fine = may(opcode, ioprio) && personality == 0 && !(flags & ~(unsigned)IOSQE_ASYNC);

	/* SEND_ZC's fixed buffer has a test of its own */
	if (opcode == 47 && ioprio == 4)
		return;
	sqe.flags = (uint8_t)flags;
	sqe.personality = (uint16_t)personality;
	sqe.ioprio = (uint16_t)ioprio;
	if ((ask(&sqe) == GYRE__ACCEPTED) != fine)
		test_fail("opcode %u, flags %#x, personality %u, ioprio %#x: %s", opcode, flags,
			  personality, ioprio, gyre__refusal_text(ask(&sqe)));
}

TEST(every_opcode_with_every_flag_personality_and_ioprio_gets_what_the_list_says)
{
	static const unsigned personalities[] = { 0, 1, 0xffff };
	unsigned opcode, flags, ioprio_bit, p;

	for (opcode = 0; opcode < 256; opcode++)
		for (flags = 0; flags < 256; flags++)
			for (p = 0; p < 3; p++)
				for (ioprio_bit = 0; ioprio_bit <= 16; ioprio_bit++)
					expect_as_listed(opcode, flags, personalities[p],
							 1u << ioprio_bit & 0xffff);
}

TEST(blank_sqe_is_told_from_a_forbidden_one)
{
	struct io_uring_sqe blank = harmless(GYRE__BLANK_OPCODE);
	struct io_uring_sqe forbidden = harmless(IORING_OP_ASYNC_CANCEL);
	struct io_uring_sqe unheard_of = harmless(200);

	expect_eq(ask(&blank), GYRE__REFUSED_BLANK);
	expect_eq(ask(&forbidden), GYRE__REFUSED_OPCODE);
	expect_eq(ask(&unheard_of), GYRE__REFUSED_OPCODE);
}

TEST(opcode_that_is_fine_but_unknown_to_the_kernel_is_unsupported)
{
	struct gyre__ring *ring = ring_to_ask();
	struct io_uring_sqe sqe = harmless(IORING_OP_SEND_ZC);

	memset(ring->features.opcodes, 0, sizeof(ring->features.opcodes));
	expect_eq(gyre__sanitize(ring, &sqe), GYRE__REFUSED_UNSUPPORTED);
	sqe.opcode = IORING_OP_MSG_RING;
	expect_eq(gyre__sanitize(ring, &sqe), GYRE__REFUSED_OPCODE);
	ring_to_ask();		/* the other tests' kernel, where all run in one process */
}

/* One field of an otherwise harmless SQE, by its offset and width. */
#define FIELD(name)	offsetof(struct io_uring_sqe, name), \
			sizeof(((struct io_uring_sqe *)0)->name)

static const struct {
	const char *what;
	unsigned opcode;
	size_t at, width;
	uint64_t value;
	enum gyre__refusal refusal;
} field_rows[] = {
	{ "poll, level-triggered", IORING_OP_POLL_ADD, FIELD(len), 8, GYRE__ACCEPTED },
	{ "poll, multishot", IORING_OP_POLL_ADD, FIELD(len), 1, GYRE__REFUSED_OP_FLAGS },
	{ "poll, update of events", IORING_OP_POLL_ADD, FIELD(len), 2, GYRE__REFUSED_OP_FLAGS },
	{ "poll, update of user_data", IORING_OP_POLL_ADD, FIELD(len), 4, GYRE__REFUSED_OP_FLAGS },
	{ "poll, bits of tomorrow", IORING_OP_POLL_ADD, FIELD(len), 1u << 31,
	  GYRE__REFUSED_OP_FLAGS },
	{ "timeout, absolute", IORING_OP_TIMEOUT, FIELD(timeout_flags), 1, GYRE__ACCEPTED },
	{ "timeout, boottime", IORING_OP_TIMEOUT, FIELD(timeout_flags), 4, GYRE__ACCEPTED },
	{ "timeout, realtime", IORING_OP_TIMEOUT, FIELD(timeout_flags), 8, GYRE__ACCEPTED },
	{ "timeout, success", IORING_OP_TIMEOUT, FIELD(timeout_flags), 32, GYRE__ACCEPTED },
	{ "timeout, update", IORING_OP_TIMEOUT, FIELD(timeout_flags), 2, GYRE__REFUSED_OP_FLAGS },
	{ "timeout, update of a link's", IORING_OP_TIMEOUT, FIELD(timeout_flags), 16,
	  GYRE__REFUSED_OP_FLAGS },
	{ "timeout, multishot", IORING_OP_TIMEOUT, FIELD(timeout_flags), 64,
	  GYRE__REFUSED_OP_FLAGS },
	{ "timeout that counts completions", IORING_OP_TIMEOUT, FIELD(off), 1,
	  GYRE__REFUSED_OP_FLAGS },
	{ "nop, injected result", IORING_OP_NOP, FIELD(rw_flags), 1, GYRE__ACCEPTED },
	{ "nop, by task work", IORING_OP_NOP, FIELD(rw_flags), 16, GYRE__ACCEPTED },
	{ "nop, on a file", IORING_OP_NOP, FIELD(rw_flags), 2, GYRE__REFUSED_OP_FLAGS },
	{ "nop, on a registered file", IORING_OP_NOP, FIELD(rw_flags), 4, GYRE__REFUSED_OP_FLAGS },
	{ "nop, on a registered buffer", IORING_OP_NOP, FIELD(rw_flags), 8,
	  GYRE__REFUSED_OP_FLAGS },
	{ "nop, wide completion", IORING_OP_NOP, FIELD(rw_flags), 32, GYRE__REFUSED_OP_FLAGS },
	{ "accept into the table", IORING_OP_ACCEPT, FIELD(file_index), 1, GYRE__REFUSED_DIRECT },
	{ "accept into any place", IORING_OP_ACCEPT, FIELD(file_index), UINT32_MAX,
	  GYRE__REFUSED_DIRECT },
	{ "accept, multishot", IORING_OP_ACCEPT, FIELD(ioprio), 1, GYRE__REFUSED_OP_FLAGS },
	{ "openat into the table", IORING_OP_OPENAT, FIELD(file_index), 1, GYRE__REFUSED_DIRECT },
	{ "openat2 into the table", IORING_OP_OPENAT2, FIELD(file_index), 1, GYRE__REFUSED_DIRECT },
	{ "socket into the table", IORING_OP_SOCKET, FIELD(file_index), 1, GYRE__REFUSED_DIRECT },
	{ "close in the table", IORING_OP_CLOSE, FIELD(file_index), 1, GYRE__REFUSED_DIRECT },
	{ "pipe into the table", 62, FIELD(file_index), 1, GYRE__REFUSED_DIRECT },
	{ "recv, multishot", IORING_OP_RECV, FIELD(ioprio), 2, GYRE__REFUSED_OP_FLAGS },
	{ "recvmsg, multishot", IORING_OP_RECVMSG, FIELD(ioprio), 2, GYRE__REFUSED_OP_FLAGS },
	{ "recv, bundle", IORING_OP_RECV, FIELD(ioprio), 16, GYRE__REFUSED_OP_FLAGS },
	{ "send, bundle", IORING_OP_SEND, FIELD(ioprio), 16, GYRE__REFUSED_OP_FLAGS },
	{ "splice from a registered file", IORING_OP_SPLICE, FIELD(splice_flags), 1u << 31,
	  GYRE__REFUSED_OP_FLAGS },
	{ "tee from a registered file", IORING_OP_TEE, FIELD(splice_flags), 1u << 31,
	  GYRE__REFUSED_OP_FLAGS },
	{ "splice from the ring", IORING_OP_SPLICE, FIELD(splice_fd_in), RING_FD,
	  GYRE__REFUSED_DESCRIPTOR },
	{ "splice from the wake-up", IORING_OP_SPLICE, FIELD(splice_fd_in), WAKE_FD,
	  GYRE__REFUSED_DESCRIPTOR },
	{ "splice from the tombstone", IORING_OP_SPLICE, FIELD(splice_fd_in), TOMB_FD,
	  GYRE__REFUSED_DESCRIPTOR },
	{ "read of the ring", IORING_OP_READ, FIELD(fd), RING_FD, GYRE__REFUSED_DESCRIPTOR },
	{ "read of the wake-up", IORING_OP_READ, FIELD(fd), WAKE_FD, GYRE__REFUSED_DESCRIPTOR },
	{ "write to the wake-up", IORING_OP_WRITE, FIELD(fd), WAKE_FD, GYRE__REFUSED_DESCRIPTOR },
	{ "close of the ring", IORING_OP_CLOSE, FIELD(fd), RING_FD, GYRE__REFUSED_DESCRIPTOR },
	{ "close of the wake-up", IORING_OP_CLOSE, FIELD(fd), WAKE_FD, GYRE__REFUSED_DESCRIPTOR },
	{ "close of the tombstone", IORING_OP_CLOSE, FIELD(fd), TOMB_FD, GYRE__REFUSED_DESCRIPTOR },
	{ "poll of the ring", IORING_OP_POLL_ADD, FIELD(fd), RING_FD, GYRE__REFUSED_DESCRIPTOR },
	/* In these, fd is no descriptor: a domain, a process id, flags of a futex. */
	{ "socket of a domain that looks like the ring", IORING_OP_SOCKET, FIELD(fd), RING_FD,
	  GYRE__ACCEPTED },
	{ "waitid for a process that looks like the ring", 50, FIELD(fd), RING_FD, GYRE__ACCEPTED },
	{ "futex wait with flags that look like the ring", 51, FIELD(fd), RING_FD, GYRE__ACCEPTED },
	{ "futex wake with flags that look like the ring", 52, FIELD(fd), RING_FD, GYRE__ACCEPTED },
	{ "no descriptor", IORING_OP_READ, FIELD(fd), (uint32_t)-1, GYRE__ACCEPTED },
	{ "fixed read with another buffer's index", IORING_OP_READ_FIXED, FIELD(buf_index),
	  BUFFER_INDEX + 1, GYRE__REFUSED_FIXED_BUFFER },
	{ "fixed read into foreign memory", IORING_OP_READ_FIXED, FIELD(addr), 0,
	  GYRE__REFUSED_FIXED_BUFFER },
	{ "fixed read past the end", IORING_OP_READ_FIXED, FIELD(len), sizeof(buffer_memory) + 1,
	  GYRE__REFUSED_FIXED_BUFFER },
	{ "fixed read of all", IORING_OP_READ_FIXED, FIELD(len), sizeof(buffer_memory),
	  GYRE__ACCEPTED },
	{ "fixed read of a huge length", IORING_OP_READ_FIXED, FIELD(len), UINT32_MAX,
	  GYRE__REFUSED_FIXED_BUFFER },
	{ "fixed write with another buffer's index", IORING_OP_WRITE_FIXED, FIELD(buf_index), 0,
	  GYRE__REFUSED_FIXED_BUFFER },
	{ "fixed write past the end", IORING_OP_WRITE_FIXED, FIELD(len), sizeof(buffer_memory) + 1,
	  GYRE__REFUSED_FIXED_BUFFER },
};

TEST(each_field_that_could_hurt_others_is_refused_and_its_harmless_sister_is_not)
{
	size_t i;

	for (i = 0; i < sizeof(field_rows) / sizeof(field_rows[0]); i++) {
		struct io_uring_sqe sqe = harmless(field_rows[i].opcode);

		test_row("%s", field_rows[i].what);
		/* little end first, as on every machine that this is built for */
		memcpy((char *)&sqe + field_rows[i].at, &field_rows[i].value, field_rows[i].width);
		expect_eq(ask(&sqe), field_rows[i].refusal);
	}
}

TEST(zero_copy_send_from_a_registered_buffer_must_be_that_buffer)
{
	struct io_uring_sqe sqe = harmless(IORING_OP_SEND_ZC);

	sqe.ioprio = 4;		/* IORING_RECVSEND_FIXED_BUF */
	sqe.addr = (uintptr_t)buffer_memory + 100;
	sqe.len = 100;
	sqe.buf_index = BUFFER_INDEX;
	expect_eq(ask(&sqe), GYRE__ACCEPTED);
	sqe.addr = (uintptr_t)foreign_memory;
	expect_eq(ask(&sqe), GYRE__REFUSED_FIXED_BUFFER);
	sqe.addr = (uintptr_t)buffer_memory;
	sqe.buf_index++;
	expect_eq(ask(&sqe), GYRE__REFUSED_FIXED_BUFFER);
	sqe = harmless(IORING_OP_SENDMSG_ZC);
	sqe.ioprio = 4;
	expect_eq(ask(&sqe), GYRE__REFUSED_FIXED_BUFFER);
}

TEST(memory_that_wraps_round_is_in_no_buffer)
{
	struct io_uring_sqe sqe = harmless(IORING_OP_READ_FIXED);

	sqe.addr = UINT64_MAX - 10;
	sqe.len = 4096;
	expect_eq(ask(&sqe), GYRE__REFUSED_FIXED_BUFFER);
	sqe.addr = (uintptr_t)buffer_memory - 1;
	sqe.len = 2;
	expect_eq(ask(&sqe), GYRE__REFUSED_FIXED_BUFFER);
}

TEST(every_refusal_has_a_sentence_and_every_opcode_a_name_or_a_reason)
{
	unsigned i;

	for (i = 0; i < GYRE__REFUSALS; i++)
		expect_gt(strlen(gyre__refusal_text((enum gyre__refusal)i)), 5);
	for (i = 0; i < 256; i++) {
		expect(gyre__opcode_name((uint8_t)i));
		test_row("opcode %u", i);
		if (may(i, 0))
			expect(!gyre__opcode_refused((uint8_t)i));
		else
			expect(gyre__opcode_refused((uint8_t)i));
	}
	expect_str(gyre__opcode_name(IORING_OP_READ), "READ");
	expect_str(gyre__opcode_name(255), "UNKNOWN");
}

/* Fixed numbers in the list, against those of the header that we are built with. */
TEST(opcode_names_are_those_of_the_kernels_header)
{
	static const struct {
		unsigned opcode;
		const char *name;
	} names[] = {
#define NAME(name) { IORING_OP_##name, #name }
		NAME(NOP), NAME(READV), NAME(WRITEV), NAME(FSYNC), NAME(READ_FIXED),
		NAME(WRITE_FIXED), NAME(POLL_ADD), NAME(POLL_REMOVE), NAME(SYNC_FILE_RANGE),
		NAME(SENDMSG), NAME(RECVMSG), NAME(TIMEOUT), NAME(TIMEOUT_REMOVE), NAME(ACCEPT),
		NAME(ASYNC_CANCEL), NAME(LINK_TIMEOUT), NAME(CONNECT), NAME(FALLOCATE),
		NAME(OPENAT), NAME(CLOSE), NAME(FILES_UPDATE), NAME(STATX), NAME(READ),
		NAME(WRITE), NAME(FADVISE), NAME(MADVISE), NAME(SEND), NAME(RECV), NAME(OPENAT2),
		NAME(EPOLL_CTL), NAME(SPLICE), NAME(PROVIDE_BUFFERS), NAME(REMOVE_BUFFERS),
		NAME(TEE), NAME(SHUTDOWN), NAME(RENAMEAT), NAME(UNLINKAT), NAME(MKDIRAT),
		NAME(SYMLINKAT), NAME(LINKAT), NAME(MSG_RING), NAME(FSETXATTR), NAME(SETXATTR),
		NAME(FGETXATTR), NAME(GETXATTR), NAME(SOCKET), NAME(URING_CMD), NAME(SEND_ZC),
		NAME(SENDMSG_ZC),
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		expect_str(gyre__opcode_name((uint8_t)names[i].opcode), names[i].name);
}

TEST_MAIN()
