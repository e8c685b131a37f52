/* SPDX-License-Identifier: MIT */
#include "sanitize.h"

#include <liburing.h>
#include <stddef.h>

#include "ring.h"
#include "sys.h"

/* What an opcode's row checks besides the SQE's common fields. */
enum rule {
	REFUSED = 0,
	PLAIN,		/* ioprio must be zero, nothing else matters to others */
	PRIORITY,	/* ioprio is an I/O priority, which the kernel checks */
	NOP,		/* may inject a result; touches no file */
	POLL,		/* one shot: len holds its flags */
	TIMER,		/* a plain timer: one shot, counts no completions */
	FIXED,		/* PRIORITY, in one of the library's registered buffers */
	DIRECT,		/* file_index must be zero: the result is a plain descriptor */
	SPLICE,		/* no registered descriptors */
	SOCKET,		/* ioprio holds flags: POLL_FIRST only */
	ZERO_COPY	/* SOCKET, and a report of use; two CQEs, one reply */
};

/*
 * Flags and opcodes newer than the oldest liburing we build with, by value:
 * which opcodes there are is the kernel's to say, at run time.
 */
#define NOP_INJECT_RESULT	(1u << 0)
#define NOP_TASK_WORK		(1u << 4)
#define POLL_LEVEL		(1u << 3)
/* ABS, BOOTTIME, REALTIME, ETIME_SUCCESS. */
#define TIMER_FLAGS		((1u << 0) | (1u << 2) | (1u << 3) | (1u << 5))
#define SPLICE_FIXED_IN		(1u << 31)
#define SOCKET_POLL_FIRST	(1u << 0)
#define SEND_FIXED_BUFFER	(1u << 2)
#define SEND_REPORT_USAGE	(1u << 3)

struct row {
	const char *name;
	enum rule rule;
	const char *why;	/* for REFUSED */
};

#define NAMES_OTHERS	"it names other ops of the ring by their user_data"
#define OWN_FUNCTION	"it gives more than one result"
#define RING_STATE	"it changes the ring's own tables"

static const struct row rows[] = {
	[0] = { "NOP", NOP, NULL },
	[1] = { "READV", PRIORITY, NULL },
	[2] = { "WRITEV", PRIORITY, NULL },
	[3] = { "FSYNC", PLAIN, NULL },
	[4] = { "READ_FIXED", FIXED, NULL },
	[5] = { "WRITE_FIXED", FIXED, NULL },
	[6] = { "POLL_ADD", POLL, NULL },
	[7] = { "POLL_REMOVE", REFUSED, NAMES_OTHERS },
	[8] = { "SYNC_FILE_RANGE", PLAIN, NULL },
	[9] = { "SENDMSG", SOCKET, NULL },
	[10] = { "RECVMSG", SOCKET, NULL },
	[11] = { "TIMEOUT", TIMER, NULL },
	[12] = { "TIMEOUT_REMOVE", REFUSED, NAMES_OTHERS },
	[13] = { "ACCEPT", DIRECT, NULL },
	[14] = { "ASYNC_CANCEL", REFUSED, NAMES_OTHERS },
	[15] = { "LINK_TIMEOUT", REFUSED,
		 "it belongs to a link; gyre_op.timeout_ns does its work" },
	[16] = { "CONNECT", PLAIN, NULL },
	[17] = { "FALLOCATE", PLAIN, NULL },
	[18] = { "OPENAT", DIRECT, NULL },
	[19] = { "CLOSE", DIRECT, NULL },
	[20] = { "FILES_UPDATE", REFUSED, RING_STATE },
	[21] = { "STATX", PLAIN, NULL },
	[22] = { "READ", PRIORITY, NULL },
	[23] = { "WRITE", PRIORITY, NULL },
	[24] = { "FADVISE", PLAIN, NULL },
	[25] = { "MADVISE", PLAIN, NULL },
	[26] = { "SEND", SOCKET, NULL },
	[27] = { "RECV", SOCKET, NULL },
	[28] = { "OPENAT2", DIRECT, NULL },
	[29] = { "EPOLL_CTL", PLAIN, NULL },
	[30] = { "SPLICE", SPLICE, NULL },
	[31] = { "PROVIDE_BUFFERS", REFUSED, RING_STATE },
	[32] = { "REMOVE_BUFFERS", REFUSED, RING_STATE },
	[33] = { "TEE", SPLICE, NULL },
	[34] = { "SHUTDOWN", PLAIN, NULL },
	[35] = { "RENAMEAT", PLAIN, NULL },
	[36] = { "UNLINKAT", PLAIN, NULL },
	[37] = { "MKDIRAT", PLAIN, NULL },
	[38] = { "SYMLINKAT", PLAIN, NULL },
	[39] = { "LINKAT", PLAIN, NULL },
	[40] = { "MSG_RING", REFUSED, "it posts completions to rings" },
	[41] = { "FSETXATTR", PLAIN, NULL },
	[42] = { "SETXATTR", PLAIN, NULL },
	[43] = { "FGETXATTR", PLAIN, NULL },
	[44] = { "GETXATTR", PLAIN, NULL },
	[45] = { "SOCKET", DIRECT, NULL },
	[46] = { "URING_CMD", REFUSED, "what it does is its driver's secret" },
	[47] = { "SEND_ZC", ZERO_COPY, NULL },
	[48] = { "SENDMSG_ZC", ZERO_COPY, NULL },
	[49] = { "READ_MULTISHOT", REFUSED, OWN_FUNCTION },
	[50] = { "WAITID", PLAIN, NULL },
	[51] = { "FUTEX_WAIT", PLAIN, NULL },
	[52] = { "FUTEX_WAKE", PLAIN, NULL },
	[53] = { "FUTEX_WAITV", PLAIN, NULL },
	[54] = { "FIXED_FD_INSTALL", REFUSED, RING_STATE },
	[55] = { "FTRUNCATE", PLAIN, NULL },
	[56] = { "BIND", PLAIN, NULL },
	[57] = { "LISTEN", PLAIN, NULL },
	[58] = { "RECV_ZC", REFUSED, OWN_FUNCTION },
	[59] = { "EPOLL_WAIT", PLAIN, NULL },
	[60] = { "READV_FIXED", REFUSED, "its vector would have to be copied to be checked" },
	[61] = { "WRITEV_FIXED", REFUSED, "its vector would have to be copied to be checked" },
	[62] = { "PIPE", DIRECT, NULL },
};

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static const struct row *row_of(uint8_t opcode)
{
	return opcode < ROW_COUNT && rows[opcode].name ? &rows[opcode] : NULL;
}

const char *gyre__opcode_name(uint8_t opcode)
{
	const struct row *row = row_of(opcode);

	return row ? row->name : "UNKNOWN";
}

const char *gyre__opcode_refused(uint8_t opcode)
{
	const struct row *row = row_of(opcode);

	if (!row)
		return "this version of the library does not know it";
	return row->rule == REFUSED ? row->why : NULL;
}

static bool flags_within(unsigned flags, unsigned allowed)
{
	return !(flags & ~allowed);
}

/* Who reads the wake-up or closes the ring hurts everybody on it. */
static bool is_ours(const struct gyre__ring *ring, int fd)
{
	return fd >= 0 && (fd == ring->wake_fd || fd == ring->uring.ring_fd || fd == ring->tomb_fd);
}

/*
 * Not every opcode has a descriptor in sqe->fd: here it is a domain, a process, flags or nothing.
 */
static bool names_descriptor(uint8_t opcode)
{
	switch (opcode) {
	case 0:		/* NOP */
	case 11:	/* TIMEOUT */
	case 25:	/* MADVISE */
	case 45:	/* SOCKET */
	case 50:	/* WAITID */
	case 51:	/* FUTEX_WAIT */
	case 52:	/* FUTEX_WAKE */
	case 53:	/* FUTEX_WAITV */
	case 62:	/* PIPE */
		return false;
	default:
		return true;
	}
}

static enum gyre__refusal refuse_unless(bool fine, enum gyre__refusal refusal)
{
	return gyre__likely(fine) ? GYRE__ACCEPTED : refusal;
}

/* A registered buffer is whoever's holds it; none may be read past its end. */
static enum gyre__refusal check_fixed(const struct gyre__ring *ring, const struct io_uring_sqe *sqe)
{
	const struct gyre__buffer_row *row;

	row = gyre__buffers_find(&ring->buffers, sqe->addr, sqe->len);
	return refuse_unless(row && row->index == (int)sqe->buf_index, GYRE__REFUSED_FIXED_BUFFER);
}

static enum gyre__refusal check_zero_copy(const struct gyre__ring *ring,
					  const struct io_uring_sqe *sqe)
{
	if (!flags_within(sqe->ioprio, SOCKET_POLL_FIRST | SEND_FIXED_BUFFER | SEND_REPORT_USAGE))
		return GYRE__REFUSED_OP_FLAGS;
	if (!(sqe->ioprio & SEND_FIXED_BUFFER))
		return GYRE__ACCEPTED;
	/* A message's vector may point anywhere: only a plain send can be checked. */
	return sqe->opcode == IORING_OP_SEND_ZC ? check_fixed(ring, sqe) :
						  GYRE__REFUSED_FIXED_BUFFER;
}

static enum gyre__refusal check_splice(const struct gyre__ring *ring,
				       const struct io_uring_sqe *sqe)
{
	if (is_ours(ring, sqe->splice_fd_in))
		return GYRE__REFUSED_DESCRIPTOR;
	return refuse_unless(sqe->ioprio == 0 && !(sqe->splice_flags & SPLICE_FIXED_IN),
			     GYRE__REFUSED_OP_FLAGS);
}

static enum gyre__refusal check_rule(const struct gyre__ring *ring, const struct io_uring_sqe *sqe,
				     enum rule rule)
{
	switch (rule) {
	case REFUSED:
		return GYRE__REFUSED_OPCODE;
	case PLAIN:
		return refuse_unless(sqe->ioprio == 0, GYRE__REFUSED_OP_FLAGS);
	case PRIORITY:
		return GYRE__ACCEPTED;
	case NOP:
		return refuse_unless(sqe->ioprio == 0 &&
				     flags_within(sqe->rw_flags, NOP_INJECT_RESULT | NOP_TASK_WORK),
				     GYRE__REFUSED_OP_FLAGS);
	case POLL:
		return refuse_unless(sqe->ioprio == 0 && flags_within(sqe->len, POLL_LEVEL),
				     GYRE__REFUSED_OP_FLAGS);
	case TIMER:
		return refuse_unless(sqe->ioprio == 0 && sqe->off == 0 &&
				     flags_within(sqe->timeout_flags, TIMER_FLAGS),
				     GYRE__REFUSED_OP_FLAGS);
	case FIXED:
		return check_fixed(ring, sqe);
	case DIRECT:
		if (sqe->file_index != 0)
			return GYRE__REFUSED_DIRECT;
		return refuse_unless(sqe->ioprio == 0, GYRE__REFUSED_OP_FLAGS);
	case SPLICE:
		return check_splice(ring, sqe);
	case SOCKET:
		return refuse_unless(flags_within(sqe->ioprio, SOCKET_POLL_FIRST),
				     GYRE__REFUSED_OP_FLAGS);
	case ZERO_COPY:
		return check_zero_copy(ring, sqe);
	}
	return GYRE__REFUSED_OPCODE;
}

/* Rules that zeros in ioprio and in the opcode's flags satisfy, whatever the other fields hold. */
static bool zeros_will_do(enum rule rule)
{
	return rule == PLAIN || rule == PRIORITY || rule == NOP || rule == SOCKET;
}

/*
 * Opcodes that the kernel starts within the submit, with their file in hand, or
 * that have none. All others it may give to threads of its own, which look the
 * descriptor up when they come to it; one that is not listed here counts as such.
 */
static bool file_is_taken_at_submit(uint8_t opcode)
{
	switch (opcode) {
	case 1: case 2: case 4: case 5: case 22: case 23:	/* reads and writes */
	case 6:							/* POLL_ADD */
	case 9: case 10: case 26: case 27: case 47: case 48:	/* sends and receives */
	case 13: case 16: case 56: case 57:			/* ACCEPT, CONNECT, BIND, LISTEN */
	case 59:						/* EPOLL_WAIT */
		return true;
	default:
		return !names_descriptor(opcode);
	}
}

bool gyre__sqe_may_name(uint8_t opcode, int sqe_fd, int fd)
{
	switch (opcode) {
	case 29:		/* EPOLL_CTL */
	case 30: case 33:	/* SPLICE, TEE */
	case 35: case 39:	/* RENAMEAT, LINKAT */
		return true;
	default:
		return sqe_fd == fd;
	}
}

void gyre__sanitize_prepare(struct gyre__ring *ring)
{
	unsigned i;

	for (i = 0; i < GYRE__OPCODES; i++)
		ring->traits[i] = file_is_taken_at_submit((uint8_t)i) ? 0 : GYRE__TRAIT_LATE_FILE;
	for (i = 0; i < ROW_COUNT; i++)
		if (zeros_will_do(rows[i].rule) && gyre__features_has(&ring->features, (uint8_t)i))
			ring->traits[i] |= GYRE__TRAIT_HARMLESS;
}

enum gyre__refusal gyre__sanitize_fully(const struct gyre__ring *ring,
					const struct io_uring_sqe *sqe)
{
	const struct row *row;

	if (gyre__unlikely(sqe->opcode >= ROW_COUNT))
		return sqe->opcode == GYRE__BLANK_OPCODE ? GYRE__REFUSED_BLANK :
							   GYRE__REFUSED_OPCODE;
	if (gyre__unlikely(sqe->flags & ~(unsigned)IOSQE_ASYNC))
		return GYRE__REFUSED_SQE_FLAGS;
	if (gyre__unlikely(sqe->personality != 0))
		return GYRE__REFUSED_PERSONALITY;
	row = &rows[sqe->opcode];
	if (gyre__unlikely(row->rule == REFUSED))
		return GYRE__REFUSED_OPCODE;
	if (gyre__unlikely(!gyre__features_has(&ring->features, sqe->opcode)))
		return GYRE__REFUSED_UNSUPPORTED;
	if (gyre__unlikely(is_ours(ring, sqe->fd) && names_descriptor(sqe->opcode)))
		return GYRE__REFUSED_DESCRIPTOR;
	return check_rule(ring, sqe, row->rule);
}

/* ------------------------------------------------------------ streams -- */

#define POLL_MULTI		(1u << 0)
#define ACCEPT_MULTI		(1u << 0)
#define RECV_MULTI		(1u << 1)

/* What may be a stream, which bits make it one, and whether it needs buffers. */
struct stream_row {
	uint8_t opcode;
	bool buffers;
	unsigned len;
	unsigned ioprio;	/* these bits and no others */
	unsigned ioprio_may;	/* but for these */
};

static const struct stream_row stream_rows[] = {
	{ 6, false, POLL_MULTI, 0, 0 },				/* POLL_ADD */
	{ 13, false, 0, ACCEPT_MULTI, 0 },			/* ACCEPT */
	{ 27, true, 0, RECV_MULTI, SOCKET_POLL_FIRST },		/* RECV */
	{ 49, true, 0, 0, 0xffff },				/* READ_MULTISHOT: a priority */
};

static const struct stream_row *stream_row_of(const struct io_uring_sqe *sqe)
{
	const struct stream_row *row;
	size_t i;

	for (i = 0; i < sizeof(stream_rows) / sizeof(stream_rows[0]); i++) {
		row = &stream_rows[i];
		if (row->opcode == sqe->opcode)
			return (sqe->ioprio & ~row->ioprio_may) == row->ioprio ? row : NULL;
	}
	return NULL;
}

/* A kernel does not say so: what came with it, or later, and can be asked for, is the witness. */
static bool kernel_has_multishot(const struct gyre__ring *ring, uint8_t opcode)
{
	switch (opcode) {
	case 6:
		return ring->features.features & IORING_FEAT_RSRC_TAGS;
	case 13:
		return gyre__features_has(&ring->features, 45);	/* SOCKET */
	case 27:
		return gyre__features_has(&ring->features, 47);	/* SEND_ZC */
	default:
		return gyre__features_has(&ring->features, opcode);
	}
}

enum gyre__refusal gyre__sanitize_stream(const struct gyre__ring *ring,
					 const struct io_uring_sqe *sqe, bool buffers)
{
	const struct stream_row *row = stream_row_of(sqe);

	if (sqe->opcode == GYRE__BLANK_OPCODE)
		return GYRE__REFUSED_BLANK;
	if (!row)
		return GYRE__REFUSED_NO_STREAM;
	if (!kernel_has_multishot(ring, sqe->opcode))
		return GYRE__REFUSED_NO_MULTISHOT;
	if (sqe->personality != 0)
		return GYRE__REFUSED_PERSONALITY;
	if (is_ours(ring, sqe->fd))
		return GYRE__REFUSED_DESCRIPTOR;
	if (sqe->file_index != 0)
		return GYRE__REFUSED_DIRECT;
	if (buffers != row->buffers)
		return GYRE__REFUSED_STREAM_BUFFERS;
	if (row->opcode == IORING_OP_POLL_ADD && sqe->len != row->len)
		return GYRE__REFUSED_NO_STREAM;
	return refuse_unless(sqe->flags == 0 && sqe->addr == 0 && sqe->len == row->len &&
			     sqe->buf_index == 0 && (sqe->off == 0 || row->opcode == 49),
			     GYRE__REFUSED_STREAM_FIELDS);
}

static const char *const refusal_texts[GYRE__REFUSALS] = {
	[GYRE__ACCEPTED] = "accepted",
	[GYRE__REFUSED_EARLY] = "a field of the gyre_op is wrong: prep is NULL, a flag is unknown, "
				"reserved is not zero, it names another worker than the first op, "
				"or it is a later op of a chain and has a time-out",
	[GYRE__REFUSED_BLANK] = "the prep closure set no opcode: call one of io_uring_prep_*()",
	[GYRE__REFUSED_OPCODE] = "the prep closure set an opcode that could hurt other callers of "
				 "the ring",
	[GYRE__REFUSED_SQE_FLAGS] = "the prep closure set SQE flags other than IOSQE_ASYNC: for "
				    "links use GYRE_OP_LINK",
	[GYRE__REFUSED_PERSONALITY] = "the prep closure set a personality",
	[GYRE__REFUSED_OP_FLAGS] = "the prep closure set flags of its opcode that could hurt other "
				   "callers of the ring, such as multishot",
	[GYRE__REFUSED_DIRECT] = "the prep closure asked for a result in the table of registered "
				 "files",
	[GYRE__REFUSED_FIXED_BUFFER] = "the memory does not lie inside the registered buffer that "
				       "the prep closure names: take buf_index from "
				       "gyre_buffer_index()",
	[GYRE__REFUSED_DESCRIPTOR] = "the descriptor is one of the library's own",
	[GYRE__REFUSED_LEAVE] = "GYRE_OP_LEAVE needs one read, write, send or receive whose memory "
				"lies inside a gyre_buffer",
	[GYRE__REFUSED_CHAIN] = "the chain ends in GYRE_OP_LINK, or is longer than ring_entries or "
				"inflight_max",
	[GYRE__REFUSED_UNSUPPORTED] = "this kernel does not know the opcode",
	[GYRE__REFUSED_NO_STREAM] = "the prep closure of a stream set no multishot op: it may be "
				    "ACCEPT, POLL_ADD, RECV or READ_MULTISHOT",
	[GYRE__REFUSED_STREAM_FIELDS] = "the prep closure of a stream set SQE flags, an address, a "
					"length or a buffer group: the library sets what belongs "
					"there",
	[GYRE__REFUSED_STREAM_BUFFERS] = "a stream that receives or reads needs buffers, 1 to "
					 "32768 and at most 1 GiB of them; one that accepts or "
					 "polls has none",
	[GYRE__REFUSED_NO_MULTISHOT] = "this kernel knows the opcode, but not that it can give "
				       "many results",
};

const char *gyre__refusal_text(enum gyre__refusal refusal)
{
	GYRE_ASSERT(refusal < GYRE__REFUSALS);
	return refusal_texts[refusal];
}
