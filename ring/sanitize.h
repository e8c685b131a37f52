/* SPDX-License-Identifier: MIT */
/*
 * What a stranger's closure may ask of a ring that it shares with others: the
 * allow-list, one row an opcode. ARCHITECTURE.md has the list with the reasons.
 */
#ifndef GYRE_RING_SANITIZE_H
#define GYRE_RING_SANITIZE_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#include "ring.h"
#include "sys.h"

/* The opcode of a blank SQE: what a closure that sets nothing leaves behind. */
#define GYRE__BLANK_OPCODE	0xff

enum gyre__refusal {
	GYRE__ACCEPTED = 0,
	GYRE__REFUSED_EARLY,		/* by the call itself: a field of struct gyre_op */
	GYRE__REFUSED_BLANK,		/* the closure set no opcode */
	GYRE__REFUSED_OPCODE,
	GYRE__REFUSED_SQE_FLAGS,
	GYRE__REFUSED_PERSONALITY,
	/* Multishot, fixed descriptors, a count of completions ... */
	GYRE__REFUSED_OP_FLAGS,
	GYRE__REFUSED_DIRECT,		/* a result in the table of registered files */
	GYRE__REFUSED_FIXED_BUFFER,	/* a registered buffer that is none, or memory outside it */
	GYRE__REFUSED_DESCRIPTOR,	/* one of the ring's own */
	GYRE__REFUSED_LEAVE,		/* GYRE_OP_LEAVE with memory that is not a gyre_buffer's */
	GYRE__REFUSED_CHAIN,		/* longer than the ring, or ends in a link */
	GYRE__REFUSED_UNSUPPORTED,	/* allowed, but this kernel does not know it */
	/* Of a stream: not an opcode, or not the flag, that gives many results. */
	GYRE__REFUSED_NO_STREAM,
	GYRE__REFUSED_STREAM_FIELDS,	/* of a stream: a field is set that is the library's */
	/* Of a stream: it has buffers and may not, or the other way round. */
	GYRE__REFUSED_STREAM_BUFFERS,
	/* Of a stream: allowed, but this kernel gives one result only. */
	GYRE__REFUSED_NO_MULTISHOT,
	GYRE__REFUSALS
};

/* Of an opcode, in ring->traits[]. */
/* Zeros in what gyre__sanitize() looks at are all it asks for. */
#define GYRE__TRAIT_HARMLESS	1
/* The kernel looks its descriptors up some time after the submit. */
#define GYRE__TRAIT_LATE_FILE	2

/* Any thread, once a ring's features are known. */
void gyre__sanitize_prepare(struct gyre__ring *ring);

/* Owner thread. The same for the one op of a stream, which has rules of its own. */
enum gyre__refusal gyre__sanitize_stream(const struct gyre__ring *ring,
					 const struct io_uring_sqe *sqe, bool buffers);

/* The whole check. */
enum gyre__refusal gyre__sanitize_fully(const struct gyre__ring *ring,
					const struct io_uring_sqe *sqe);

/*
 * Owner thread, after a prep closure ran. Most closures set an opcode whose row
 * asks for no more than zeros in all fields that could hurt others, and have them.
 */
static inline enum gyre__refusal gyre__sanitize(const struct gyre__ring *ring,
						const struct io_uring_sqe *sqe)
{
	if (gyre__likely((ring->traits[sqe->opcode] & GYRE__TRAIT_HARMLESS) &&
			 sqe->fd != ring->uring.ring_fd && sqe->fd != ring->wake_fd &&
			 sqe->fd != ring->tomb_fd &&
			 !(sqe->flags | sqe->ioprio | sqe->personality) && sqe->rw_flags == 0))
		return GYRE__ACCEPTED;
	return gyre__sanitize_fully(ring, sqe);
}

/*
 * May an op of this opcode, with sqe_fd in its SQE, mean descriptor fd? Some have
 * a second descriptor elsewhere in the SQE, which nobody keeps: they may mean any.
 */
bool gyre__sqe_may_name(uint8_t opcode, int sqe_fd, int fd);

/* One sentence on it. */
const char *gyre__refusal_text(enum gyre__refusal refusal);

/* The opcode's name as io_uring.h has it, less its prefix; "UNKNOWN". */
const char *gyre__opcode_name(uint8_t opcode);

/* Why an opcode is refused; NULL: it is allowed. */
const char *gyre__opcode_refused(uint8_t opcode);

#endif
