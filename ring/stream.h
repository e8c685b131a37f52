/* SPDX-License-Identifier: MIT */
/*
 * A stream: one multishot op, and the many results that it gives, until it is
 * closed. The owner's, all of it.
 *
 * The closure runs once, at the open. What it filled is kept, and goes to the
 * kernel again whenever the kernel has ended the op and more may come: so what
 * the SQE names, its descriptor before all, must stay until the stream is over.
 *
 * Results wait in a FIFO of the stream's own. Where the results have buffers,
 * those bound it: once the last is used the kernel stops, and begins again when
 * some are given back. Else the op is ended when GYRE__STREAM_FULL results wait,
 * and begins again when half of them are taken.
 */
#ifndef GYRE_RING_STREAM_H
#define GYRE_RING_STREAM_H

#include <gyre.h>
#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "batch.h"
#include "list.h"
#include "ring.h"
#include "sanitize.h"

#ifndef GYRE__STREAM_FULL	/* fewer in the simulation, which has no time for so many */
/* Results that wait, before the op is ended for now. */
#define GYRE__STREAM_FULL		256
#endif
/* Buffers of one stream: the kernel's own bound. */
#define GYRE__STREAM_BUFFERS_MAX	32768
#define GYRE__STREAM_BYTES_MAX		(1u << 30)	/* of all its buffers together */

enum gyre__stream_state {
	GYRE__STREAM_OVER = 0,	/* the kernel has nothing of it, and will get nothing */
	GYRE__STREAM_WANTING,	/* its op starts as soon as there is room */
	GYRE__STREAM_FLYING,	/* its op is in flight */
	GYRE__STREAM_PAUSING,	/* in flight; its end was asked for, as too many results wait */
	GYRE__STREAM_RESTING,	/* nothing in flight until results are taken */
	GYRE__STREAM_ENDING,	/* in flight; its end was asked for, for good */
	GYRE__STREAM_STATES
};

#define GYRE__NO_BUFFER	UINT32_MAX

struct gyre__stream {
	/*
	 * Set by the user before the open. Owner thread, after the walk over the
	 * completion queue: there is something to take, or the stream is over.
	 * May take, close, and, once it is over, free the stream.
	 */
	void (*came)(struct gyre__stream *stream);

	struct gyre__ring *ring;
	struct gyre__list in_all, in_wanting, in_news;	/* of ring->streams */
	struct io_uring_sqe sqe;		/* as the closure filled it */
	/* Batches that had come before it: see gyre__streams_note_close(). */
	uint64_t arrival;
	uint32_t op;				/* slot of its op in flight, or GYRE__NO_SLOT */
	/* Enum gyre__stream_state; stream.c has its setter. */
	uint8_t state;
	uint8_t status;				/* enum gyre_status: why it is over, or ending */
	bool closed : 1;			/* nobody takes results any more */
	bool lost : 1;				/* a result could not be kept */
	/* Its op has given something since it was started. */
	bool fed : 1;
	/* Its number may be somebody else's: no op may start with it. */
	bool fd_closed : 1;

	struct gyre__result *results;		/* a FIFO: count from head on */
	uint32_t head, count, size, max;	/* size is a power of two and may grow up to max */

	/* What the kernel takes buffers from; then the buffers. */
	struct io_uring_buf_ring *buf_ring;
	size_t mapped;
	char *data;
	size_t buffer_size;
	uint32_t buffers;			/* 0: it has none */
	uint32_t given, used;			/* to the kernel, and by it: counted for ever */
	uint32_t held;				/* lent to who took last, or GYRE__NO_BUFFER */
	uint16_t group;
};

/*
 * Runs prep and starts what it filled. buffers 0: none. 0: it is open. Else
 * nothing is left of it: -EINVAL, *ret_refusal saying why, -ESHUTDOWN where
 * the ring takes nothing more, -EOWNERDEAD where it has died, or what the
 * kernel said.
 */
int gyre__stream_open(struct gyre__ring *ring, struct gyre__stream *stream, gyre_prep_fn *prep,
		      void *arg, size_t buffer_size, uint32_t buffers,
		      enum gyre__refusal *ret_refusal);

/*
 * The next result; false: none is there now. *ret_data: the buffer that it came
 * in, valid until the next take, or NULL.
 */
bool gyre__stream_take(struct gyre__stream *stream, struct gyre__result *ret,
		       const void **ret_data);

/*
 * Nobody takes any more: asks for the end. True: it is over; false: came() tells
 * when it is. Descriptors that were accepted and not taken are closed.
 */
bool gyre__stream_close(struct gyre__stream *stream);

/* Frees what it holds, once it is over. */
void gyre__stream_done(struct gyre__stream *stream);

/* No more will come. What has come can still be taken. */
static inline bool gyre__stream_is_over(const struct gyre__stream *stream)
{
	return stream->state == GYRE__STREAM_OVER;
}

/* Why it is over. GYRE_OK: the kernel has ended it, and the last result says why. */
static inline enum gyre_status gyre__stream_status(const struct gyre__stream *stream)
{
	return (enum gyre_status)stream->status;
}

const char *gyre__stream_state_name(enum gyre__stream_state state);

/* ---------------------------------------------------- for the ring's parts -- */

static inline struct gyre__stream *gyre__stream_of_all(struct gyre__list *member)
{
	return gyre__container_of(member, struct gyre__stream, in_all);
}

/* The walk: a CQE of a stream's op. True: more follow, and this one is taken care of. */
bool gyre__stream_note(struct gyre__ring *ring, struct gyre__op *op,
		       const struct io_uring_cqe *cqe);

/* Starts the ops that wait for room. True: something was done. */
bool gyre__streams_start(struct gyre__ring *ring);

/* There are such, and there is room. */
bool gyre__streams_could_start(const struct gyre__ring *ring);

/* Calls came() of each that has news. True: something was done. */
bool gyre__streams_tell(struct gyre__ring *ring);

/* All are to end, as the drain is over. */
void gyre__streams_cancel_all(struct gyre__ring *ring);

/* fd is about to be closed: streams that came before this arrival do not start with it again. */
void gyre__streams_note_close(struct gyre__ring *ring, int fd, uint64_t arrival);

/* The ring is dead, and the kernel has let go of op. */
void gyre__stream_bury(struct gyre__ring *ring, struct gyre__op *op, bool seen_by_kernel);
/* The same of all that are left, once the ops are buried. */
void gyre__streams_bury(struct gyre__ring *ring);

#endif
