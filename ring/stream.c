/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "sys.h"
#include "turn.h"

#define RESULTS_AT_FIRST	(GYRE__STREAM_FULL / 4)	/* a power of two */
#define PAGE			4096u

#define BIT(state) (1u << GYRE__STREAM_##state)

static const uint8_t edges[GYRE__STREAM_STATES] = {
	[GYRE__STREAM_OVER] = BIT(WANTING),
	[GYRE__STREAM_WANTING] = BIT(FLYING) | BIT(OVER),
	[GYRE__STREAM_FLYING] = BIT(PAUSING) | BIT(RESTING) | BIT(ENDING) | BIT(OVER),
	[GYRE__STREAM_PAUSING] = BIT(RESTING) | BIT(ENDING) | BIT(OVER),
	[GYRE__STREAM_RESTING] = BIT(WANTING) | BIT(OVER),
	[GYRE__STREAM_ENDING] = BIT(OVER),
};

static const char *const state_names[GYRE__STREAM_STATES] = {
	[GYRE__STREAM_OVER] = "over",
	[GYRE__STREAM_WANTING] = "waits for room",
	[GYRE__STREAM_FLYING] = "in flight",
	[GYRE__STREAM_PAUSING] = "pausing",
	[GYRE__STREAM_RESTING] = "rests until results are taken",
	[GYRE__STREAM_ENDING] = "ending",
};

const char *gyre__stream_state_name(enum gyre__stream_state state)
{
	GYRE_ASSERT(state < GYRE__STREAM_STATES);
	return state_names[state];
}

static void set_state(struct gyre__stream *stream, enum gyre__stream_state to)
{
	GYRE_ASSERT(edges[stream->state] & (1u << to));
	stream->state = (uint8_t)to;
}

static uint32_t power_of_two(uint32_t at_least)
{
	uint32_t size = 1;

	while (size < at_least)
		size *= 2;
	return size;
}

/* ------------------------------------------------------------- buffers -- */

/* Release, in the store: the kernel reads the tail (acquire) and then the buffers before it. */
static void give_buffer(struct gyre__stream *stream, uint32_t number)
{
	struct io_uring_buf *slots = (struct io_uring_buf *)stream->buf_ring;
	struct io_uring_buf *slot = &slots[stream->given & (power_of_two(stream->buffers) - 1)];

	slot->addr = (uintptr_t)(stream->data + number * stream->buffer_size);
	slot->len = (uint32_t)stream->buffer_size;
	slot->bid = (uint16_t)number;
	stream->given++;
	gyre__store_shared(&stream->buf_ring->tail, (uint16_t)stream->given);
}

/* Mapped, not allocated: the kernel wants pages, and what is never used costs no memory. */
static int map_buffers(struct gyre__stream *stream)
{
	size_t ring_bytes = power_of_two(stream->buffers) * sizeof(struct io_uring_buf);
	void *base;
	int rc;

	ring_bytes = (ring_bytes + PAGE - 1) / PAGE * PAGE;
	stream->mapped = ring_bytes + stream->buffers * stream->buffer_size;
	rc = gyre__sys->mmap(stream->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0, &base);
	if (rc < 0)
		return rc;
	stream->buf_ring = base;
	stream->data = (char *)base + ring_bytes;
	return 0;
}

/* Under the next number that no other stream of the ring has, which the kernel knows best. */
static int register_buffers(struct gyre__ring *ring, struct gyre__stream *stream)
{
	struct io_uring_buf_reg reg = {
		.ring_addr = (uintptr_t)stream->buf_ring,
		.ring_entries = power_of_two(stream->buffers),
	};
	uint32_t tries;
	int rc = -EEXIST;

	for (tries = 0; rc == -EEXIST && tries <= UINT16_MAX; tries++) {
		reg.bgid = ring->streams.next_group++;
		rc = gyre__sys->uring_register(ring->uring.ring_fd, IORING_REGISTER_PBUF_RING,
					       &reg, 1);
	}
	stream->group = reg.bgid;
	return rc < 0 ? rc : 0;
}

static int open_buffers(struct gyre__ring *ring, struct gyre__stream *stream)
{
	uint32_t i;
	int rc = map_buffers(stream);

	if (rc == 0)
		rc = register_buffers(ring, stream);
	if (rc < 0)
		return rc;
	for (i = 0; i < stream->buffers; i++)
		give_buffer(stream, i);
	stream->sqe.flags |= IOSQE_BUFFER_SELECT;
	stream->sqe.buf_group = stream->group;
	return 0;
}

/* Nothing of the kernel's names the group any more. A refusal costs its number only. */
static void unregister_buffers(struct gyre__ring *ring, struct gyre__stream *stream)
{
	struct io_uring_buf_reg reg = { .bgid = stream->group };

	if (stream->buffers && ring->uring.ring_fd >= 0)	/* else it has gone with its ring */
		gyre__sys->uring_register(ring->uring.ring_fd, IORING_UNREGISTER_PBUF_RING, &reg,
					  1);
}

/* ------------------------------------------------------------- results -- */

static bool grow(struct gyre__stream *stream)
{
	uint32_t size = 2 * stream->size;
	struct gyre__result *results;
	uint32_t i;

	if (size == 0)	/* buffers are there to be used: as many results as may ever come */
		size = stream->buffers || stream->max < RESULTS_AT_FIRST ? stream->max :
									   RESULTS_AT_FIRST;
	if (size > stream->max)
		return false;
	results = gyre__zalloc(size * sizeof(*results));
	if (!results)
		return false;
	for (i = 0; i < stream->count; i++)
		results[i] = stream->results[(stream->head + i) & (stream->size - 1)];
	gyre__free(stream->results);
	stream->results = results;
	stream->head = 0;
	stream->size = size;
	return true;
}

/* Nobody will have it: a descriptor is closed. */
static void discard(struct gyre__stream *stream, struct gyre__result result)
{
	if (stream->sqe.opcode == IORING_OP_ACCEPT && result.res >= 0)
		gyre__sys->close(result.res);
}

static void discard_all(struct gyre__stream *stream)
{
	for (; stream->count > 0; stream->count--)
		discard(stream, stream->results[stream->head++ & (stream->size - 1)]);
}

/*
 * There is no place for it. What a poll says can be said together with what it
 * said last; anything else is lost, and the stream will end and say so.
 */
static void lose(struct gyre__stream *stream, struct gyre__result result)
{
	if (stream->sqe.opcode == IORING_OP_POLL_ADD && result.res >= 0) {
		stream->results[(stream->head + stream->count - 1) & (stream->size - 1)].res |=
			result.res;
		return;
	}
	discard(stream, result);
	stream->lost = true;
}

static void keep(struct gyre__stream *stream, struct gyre__result result)
{
	if (stream->count == stream->size && !grow(stream))
		lose(stream, result);
	else
		stream->results[(stream->head + stream->count++) & (stream->size - 1)] = result;
}

static void tell_later(struct gyre__ring *ring, struct gyre__stream *stream)
{
	if (!gyre__list_has(&stream->in_news))
		gyre__list_push(&ring->streams.news, &stream->in_news);
}

/*
 * A completion was lost, and it may have been one of this stream's: what came in
 * after it would be told as if there were no gap. The kernel counts before it
 * posts another (acquire, in the walk's load of the tail), and says so to an
 * enter only later.
 */
static bool may_have_a_gap(const struct gyre__ring *ring, const struct gyre__stream *stream)
{
	return stream->buffers && gyre__load_shared(ring->uring.cq.koverflow) != 0;
}

bool gyre__stream_note(struct gyre__ring *ring, struct gyre__op *op, const struct io_uring_cqe *cqe)
{
	struct gyre__stream *stream = gyre__op_more(&ring->table, op)->stream;

	stream->used += !!(cqe->flags & IORING_CQE_F_BUFFER);
	if (!(cqe->flags & IORING_CQE_F_MORE))
		return false;
	stream->fed = true;
	if (!may_have_a_gap(ring, stream))
		keep(stream, (struct gyre__result){ cqe->res, cqe->flags });
	tell_later(ring, stream);
	return true;
}

/* -------------------------------------------------------- start and end -- */

/* The kernel has nothing of it any more. */
static void finish(struct gyre__ring *ring, struct gyre__stream *stream, enum gyre_status status)
{
	GYRE_ASSERT(stream->op == GYRE__NO_SLOT);
	unregister_buffers(ring, stream);
	gyre__list_remove(&stream->in_wanting);
	gyre__list_remove(&stream->in_all);
	set_state(stream, GYRE__STREAM_OVER);
	stream->status = (uint8_t)(stream->lost ? GYRE_NO_MEMORY : status);
	tell_later(ring, stream);
}

/* Asks for the end. The status is what it will say, unless the kernel ends it first. */
static void end(struct gyre__ring *ring, struct gyre__stream *stream, enum gyre_status status)
{
	switch ((enum gyre__stream_state)stream->state) {
	case GYRE__STREAM_WANTING:
	case GYRE__STREAM_RESTING:
		finish(ring, stream, status);
		break;
	case GYRE__STREAM_FLYING:
	case GYRE__STREAM_PAUSING:
		set_state(stream, GYRE__STREAM_ENDING);
		stream->status = (uint8_t)status;
		gyre__ring_ask_end(ring, &ring->table.ops[stream->op], GYRE__OP_CANCELLED);
		break;
	case GYRE__STREAM_ENDING:
	case GYRE__STREAM_OVER:
	case GYRE__STREAM_STATES:
		break;
	}
}

/* Gives up the op: its slot is free, and the stream has none. */
static void land(struct gyre__ring *ring, struct gyre__stream *stream, struct gyre__op *op)
{
	gyre__timer_disarm(&ring->timers, &ring->table, op);
	op->stream = false;
	gyre__op_put(&ring->table, op, false);
	stream->op = GYRE__NO_SLOT;
}

static void resume(struct gyre__ring *ring, struct gyre__stream *stream);

/*
 * May another op go on where this one ended? Not after an error, nor after the
 * end of a file; but when we have ended it, when the completion queue was full,
 * or when no buffer was left. (-ENOBUFS of an op that had one all the time is
 * the socket's own.)
 */
static bool may_go_on(const struct gyre__stream *stream, const struct gyre__op *op)
{
	switch (op->res) {
	case -ECANCELED:
		return op->reason == GYRE__OP_CANCELLED;
	case -EINTR:
		return true;
	case -ENOBUFS:
		return stream->buffers && stream->fed;
	case 0:
		return !stream->buffers;
	default:
		return op->res > 0;
	}
}

static void complete(struct gyre__ring *ring, struct gyre__op *op)
{
	struct gyre__stream *stream = gyre__op_more(&ring->table, op)->stream;
	struct gyre__result result = { op->res, op->cqe_flags };
	bool goes_on = may_go_on(stream, op);

	land(ring, stream, op);
	ring->completed_calls++;
	if (gyre__unlikely(may_have_a_gap(ring, stream))) {
		finish(ring, stream, GYRE_WORKER_DEAD);
		return;
	}
	if (result.res >= 0 || !goes_on) {
		keep(stream, result);
		tell_later(ring, stream);
	}
	if (!goes_on) {
		finish(ring, stream, GYRE_OK);
	} else if (stream->state == GYRE__STREAM_ENDING) {
		finish(ring, stream, gyre__stream_status(stream));
	} else {
		set_state(stream, GYRE__STREAM_RESTING);
		resume(ring, stream);
	}
}

/* False: there is no room for its op now. */
static bool start(struct gyre__ring *ring, struct gyre__stream *stream)
{
	struct gyre__op *op;

	if (stream->fd_closed) {
		keep(stream, (struct gyre__result){ .res = -EBADF });
		finish(ring, stream, GYRE_OK);
		return true;
	}
	op = gyre__ring_start_stream(ring, &stream->sqe, complete);
	if (!op)
		return false;
	gyre__op_more(&ring->table, op)->stream = stream;
	stream->op = gyre__op_slot(&ring->table, op);
	stream->fed = false;
	gyre__list_remove(&stream->in_wanting);
	set_state(stream, GYRE__STREAM_FLYING);
	return true;
}

/* At once if there is room: the submission that comes next, be it that of the sleep, has it. */
static void start_soon(struct gyre__ring *ring, struct gyre__stream *stream)
{
	set_state(stream, GYRE__STREAM_WANTING);
	gyre__list_push(&ring->streams.wanting, &stream->in_wanting);
	if (ring->streams.wanting.next == &stream->in_wanting)
		start(ring, stream);
}

static bool has_room(const struct gyre__stream *stream)
{
	if (stream->buffers)
		return stream->given - stream->used >= (stream->buffers + 1) / 2;
	return stream->count <= GYRE__STREAM_FULL / 2;
}

static void resume(struct gyre__ring *ring, struct gyre__stream *stream)
{
	if (stream->state == GYRE__STREAM_RESTING && has_room(stream))
		start_soon(ring, stream);
}

bool gyre__streams_start(struct gyre__ring *ring)
{
	struct gyre__list *wanting = &ring->streams.wanting;
	bool did = false;

	while (!gyre__list_is_empty(wanting)) {
		if (!start(ring,
			   gyre__container_of(wanting->next, struct gyre__stream, in_wanting)))
			break;
		did = true;
	}
	return did;
}

bool gyre__streams_could_start(const struct gyre__ring *ring)
{
	return !gyre__list_is_empty(&ring->streams.wanting) &&
	       gyre__op_table_room(&ring->table) > 0 && gyre__ring_sq_room(ring) > 0;
}

/* ------------------------------------------------------------ after the walk -- */

static void stop_for_now(struct gyre__ring *ring, struct gyre__stream *stream)
{
	set_state(stream, GYRE__STREAM_PAUSING);
	gyre__ring_ask_end(ring, &ring->table.ops[stream->op], GYRE__OP_CANCELLED);
}

/* What follows from what the walk has noted. */
static void look_after(struct gyre__ring *ring, struct gyre__stream *stream)
{
	if (stream->lost)
		end(ring, stream, GYRE_NO_MEMORY);
	if (stream->closed)
		discard_all(stream);
	else if (!stream->buffers && stream->count >= GYRE__STREAM_FULL &&
		 stream->state == GYRE__STREAM_FLYING)
		stop_for_now(ring, stream);
}

bool gyre__streams_tell(struct gyre__ring *ring)
{
	struct gyre__list *news = &ring->streams.news;
	struct gyre__stream *stream;
	bool did = false;

	while (!gyre__list_is_empty(news)) {
		stream = gyre__container_of(news->next, struct gyre__stream, in_news);
		look_after(ring, stream);
		gyre__list_remove(&stream->in_news);
		if (!stream->closed || gyre__stream_is_over(stream))
			stream->came(stream);	/* and it may be gone */
		did = true;
	}
	return did;
}

void gyre__streams_cancel_all(struct gyre__ring *ring)
{
	struct gyre__list *member, *next;

	for (member = ring->streams.all.next; member != &ring->streams.all; member = next) {
		next = member->next;
		end(ring, gyre__stream_of_all(member), GYRE_CANCELLED);
	}
}

void gyre__streams_note_close(struct gyre__ring *ring, int fd, uint64_t arrival)
{
	struct gyre__list *member;

	for (member = ring->streams.all.next; member != &ring->streams.all; member = member->next) {
		struct gyre__stream *stream = gyre__stream_of_all(member);

		if (stream->sqe.fd == fd && stream->arrival < arrival)
			stream->fd_closed = true;
	}
}

void gyre__stream_bury(struct gyre__ring *ring, struct gyre__op *op, bool seen_by_kernel)
{
	struct gyre__stream *stream = gyre__op_more(&ring->table, op)->stream;

	ring->launched -= !seen_by_kernel;
	land(ring, stream, op);
}

void gyre__streams_bury(struct gyre__ring *ring)
{
	while (!gyre__list_is_empty(&ring->streams.all))
		finish(ring, gyre__stream_of_all(ring->streams.all.next), GYRE_WORKER_DEAD);
}

/* ------------------------------------------------------------ the user's -- */

static int check_open(const struct gyre__ring *ring, const struct gyre__stream *stream,
		      size_t buffer_size, uint32_t buffers, enum gyre__refusal *ret_refusal)
{
	if (gyre__load(&ring->dead, relaxed))	/* which the owner has written itself */
		return -EOWNERDEAD;
	if (!gyre__ring_may_begin(ring))
		return -ESHUTDOWN;
	*ret_refusal = gyre__sanitize_stream(ring, &stream->sqe, buffers > 0);
	if (!*ret_refusal && buffers > 0 &&
	    (buffers > GYRE__STREAM_BUFFERS_MAX || buffer_size == 0 ||
	     buffer_size > GYRE__STREAM_BYTES_MAX / buffers))
		*ret_refusal = GYRE__REFUSED_STREAM_BUFFERS;
	return *ret_refusal ? -EINVAL : 0;
}

int gyre__stream_open(struct gyre__ring *ring, struct gyre__stream *stream, gyre_prep_fn *prep,
		      void *arg, size_t buffer_size, uint32_t buffers,
		      enum gyre__refusal *ret_refusal)
{
	void (*came)(struct gyre__stream *stream) = stream->came;
	int rc;

	gyre__ring_assert_owner(ring);
	memset(stream, 0, sizeof(*stream));
	stream->came = came;
	stream->ring = ring;
	stream->arrival = ring->arrivals;
	stream->op = GYRE__NO_SLOT;
	stream->held = GYRE__NO_BUFFER;
	stream->sqe.opcode = GYRE__BLANK_OPCODE;
	prep(&stream->sqe, arg);
	rc = check_open(ring, stream, buffer_size, buffers, ret_refusal);
	if (rc < 0)
		return rc;
	stream->buffer_size = buffer_size;
	stream->buffers = buffers;
	/*
	 * With buffers, one result each and the last word; else what may come until a cancel works.
	 */
	stream->max = power_of_two(buffers ? buffers + 2 :
				   GYRE__STREAM_FULL + 2 * ring->uring.cq.ring_entries);
	rc = grow(stream) ? 0 : -ENOMEM;
	if (rc == 0 && buffers)
		rc = open_buffers(ring, stream);
	if (rc < 0) {
		gyre__stream_done(stream);
		return rc;
	}
	gyre__list_push(&ring->streams.all, &stream->in_all);
	start_soon(ring, stream);
	return 0;
}

static void give_back(struct gyre__stream *stream)
{
	if (stream->held != GYRE__NO_BUFFER && !gyre__stream_is_over(stream))
		give_buffer(stream, stream->held);
	stream->held = GYRE__NO_BUFFER;
}

bool gyre__stream_take(struct gyre__stream *stream, struct gyre__result *ret, const void **ret_data)
{
	bool is_there = stream->count > 0;

	give_back(stream);
	if (is_there) {
		*ret = stream->results[stream->head++ & (stream->size - 1)];
		*ret_data = NULL;
		stream->count--;
		if (ret->cqe_flags & IORING_CQE_F_BUFFER) {
			stream->held = ret->cqe_flags >> IORING_CQE_BUFFER_SHIFT;
			GYRE_ASSERT(stream->held < stream->buffers);
			*ret_data = stream->data + stream->held * stream->buffer_size;
		}
	}
	resume(stream->ring, stream);
	return is_there;
}

bool gyre__stream_close(struct gyre__stream *stream)
{
	stream->closed = true;
	discard_all(stream);
	end(stream->ring, stream, GYRE_CANCELLED);
	if (!gyre__stream_is_over(stream))
		return false;
	gyre__list_remove(&stream->in_news);
	return true;
}

void gyre__stream_done(struct gyre__stream *stream)
{
	GYRE_ASSERT(gyre__stream_is_over(stream));
	gyre__list_remove(&stream->in_news);
	discard_all(stream);
	gyre__free(stream->results);
	stream->results = NULL;
	if (stream->buf_ring)
		gyre__sys->munmap(stream->buf_ring, stream->mapped);
	stream->buf_ring = NULL;
}
