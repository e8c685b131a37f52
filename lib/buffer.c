/* SPDX-License-Identifier: MIT */
/*
 * A buffer's life: made (mapped, announced to every ring, registered if all of
 * them could), held, given back, and given out again to whoever asks for that
 * size. One that an op was left with is not given out before the kernel is done
 * with it: rows count their holder and such ops, and the last one brings it back.
 *
 * What is idle is kept, up to a limit; past it, the get that finds the limit
 * passed unmaps some. Nothing here waits but the get: a put may come from a
 * prep closure or from a worker. The lock is the one that no fork() comes
 * between: a put in a forked child finds it free.
 */
#define _GNU_SOURCE
#include "buffer.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "bridge.h"
#include "elsewhere.h"
#include "offload.h"
#include "ring/buffers.h"
#include "ring/fork.h"
#include "ring/ring.h"
#include "runtime.h"

#define PAGE		((size_t)4096)
#define IDLE_BYTES_MAX	((size_t)8 << 20)
#define LEN_MAX		((size_t)1 << 30)	/* the kernel registers no larger one */

struct gyre_buffer {
	struct gyre__buffer_row row;
	struct gyre__buffer_pool *pool;
	struct gyre_buffer *next_idle;
	struct gyre_buffer *next, *prev;	/* of all */
	size_t mapped;
};

struct gyre__buffer_pool {
	struct gyre_buffer *all, *idle;
	size_t idle_bytes;
	bool zero;			/* GYRE_ZERO_ARENAS: cleared before it is given out again */
	uint64_t indexes[GYRE__BUFFERS_MAX / 64];	/* bit set: taken */
};

/* --------------------------------------------------------------- the pool -- */

static int take_index(struct gyre__buffer_pool *pool)
{
	int i;

	for (i = 0; i < GYRE__BUFFERS_MAX; i++)
		if (!(pool->indexes[i / 64] >> (i % 64) & 1)) {
			pool->indexes[i / 64] |= UINT64_C(1) << (i % 64);
			return i;
		}
	return -1;
}

static void give_index(struct gyre__buffer_pool *pool, int index)
{
	if (index >= 0)
		pool->indexes[index / 64] &= ~(UINT64_C(1) << (index % 64));
}

/* The last that used the row has let go of it: holder, or an op that was left. */
static void row_release(struct gyre__buffer_row *row)
{
	struct gyre_buffer *buffer = gyre__container_of(row, struct gyre_buffer, row);
	struct gyre__buffer_pool *pool = buffer->pool;

	gyre__fork_hold();
	buffer->next_idle = pool->idle;
	pool->idle = buffer;
	pool->idle_bytes += buffer->mapped;
	gyre__fork_release();
}

/* Takes an idle buffer of that size, or with mapped 0 any if too much is idle; NULL: none. */
static struct gyre_buffer *take_idle(struct gyre__buffer_pool *pool, size_t mapped)
{
	struct gyre_buffer **link, *buffer = NULL;

	gyre__fork_hold();
	for (link = &pool->idle; *link; link = &(*link)->next_idle)
		if (mapped ? (*link)->mapped == mapped : pool->idle_bytes > IDLE_BYTES_MAX) {
			buffer = *link;
			*link = buffer->next_idle;
			pool->idle_bytes -= buffer->mapped;
			break;
		}
	gyre__fork_release();
	return buffer;
}

static void pool_add(struct gyre__buffer_pool *pool, struct gyre_buffer *buffer)
{
	gyre__fork_hold();
	buffer->row.index = take_index(pool);
	buffer->next = pool->all;
	if (pool->all)
		pool->all->prev = buffer;
	pool->all = buffer;
	gyre__fork_release();
}

static void pool_remove(struct gyre__buffer_pool *pool, struct gyre_buffer *buffer)
{
	gyre__fork_hold();
	give_index(pool, buffer->row.index);
	if (buffer->prev)
		buffer->prev->next = buffer->next;
	else
		pool->all = buffer->next;
	if (buffer->next)
		buffer->next->prev = buffer->prev;
	gyre__fork_release();
}

enum gyre_status gyre__buffer_pool_open(struct gyre *rt)
{
	struct gyre__buffer_pool *pool = gyre__zalloc(sizeof(*pool));

	if (!pool)
		return gyre__fail("gyre_open", GYRE_NO_MEMORY, "out of memory");
	pool->zero = rt->settings.flags & GYRE_ZERO_ARENAS;
	rt->buffers = pool;
	return GYRE_OK;
}

void gyre__buffer_pool_close(struct gyre *rt)
{
	struct gyre_buffer *buffer;

	while (rt->buffers && (buffer = rt->buffers->all)) {
		rt->buffers->all = buffer->next;
		gyre__sys->munmap(buffer->row.data, buffer->mapped);
		gyre__free(buffer);
	}
	gyre__buffer_pool_forget(rt);
}

void gyre__buffer_pool_forget(struct gyre *rt)
{
	struct gyre_buffer *buffer;

	if (!rt->buffers)
		return;
	while ((buffer = rt->buffers->all)) {
		rt->buffers->all = buffer->next;
		gyre__free(buffer);
	}
	gyre__free(rt->buffers);
	rt->buffers = NULL;
}

/* ------------------------------------------------------ telling the rings -- */

struct announcement {
	struct gyre__buffer_row *row;
	bool register_it;
	int rc;
};

static bool control_add(struct gyre__ring *ring, struct gyre__batch *batch)
{
	struct announcement *announcement = batch->control_arg;

	announcement->rc = gyre__buffers_add(ring, announcement->row, announcement->register_it);
	return true;
}

static bool control_remove(struct gyre__ring *ring, struct gyre__batch *batch)
{
	struct announcement *announcement = batch->control_arg;

	gyre__buffers_remove(ring, announcement->row);
	return true;
}

static void retract(struct gyre__thread *self, struct gyre *rt, struct gyre_buffer *buffer)
{
	struct announcement announcement = { &buffer->row, false, 0 };
	unsigned i;

	for (i = 0; i < rt->crew->count; i++)
		gyre__bridge_control(self, rt->crew->worker[i], control_remove, &announcement);
}

/* To all rings or to none. A ring that has ended or died needs to know of nothing. */
static int announce(struct gyre__thread *self, struct gyre *rt, struct gyre_buffer *buffer)
{
	struct announcement announcement = { &buffer->row, buffer->row.index >= 0, 0 };
	unsigned i;

	for (i = 0; i < rt->crew->count && announcement.rc == 0; i++)
		if (!gyre__worker_is_dead(rt->crew->worker[i]) &&
		    !gyre__bridge_control(self, rt->crew->worker[i], control_add, &announcement))
			announcement.rc = 0;
	if (announcement.rc < 0)
		retract(self, rt, buffer);
	return announcement.rc;
}

/* --------------------------------------------------------------- a buffer -- */

static int buffer_map(struct gyre_buffer *buffer, size_t mapped)
{
	void *data;
	int rc = gyre__sys->mmap(mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
				 &data);

	if (rc < 0)
		return rc;
	/* A forked child's copy-on-write would part our view from the pinned pages. */
	rc = gyre__sys->madvise(data, mapped, MADV_DONTFORK);
	if (rc < 0) {
		gyre__sys->munmap(data, mapped);
		return rc;
	}
	buffer->row.data = data;
	buffer->mapped = mapped;
	return 0;
}

static void buffer_destroy(struct gyre__buffer_pool *pool, struct gyre_buffer *buffer)
{
	pool_remove(pool, buffer);
	gyre__sys->munmap(buffer->row.data, buffer->mapped);
	gyre__free(buffer);
}

/* Registered with every ring; if one of them cannot, with none. */
static int buffer_announce(struct gyre__thread *self, struct gyre *rt, struct gyre_buffer *buffer)
{
	struct gyre__buffer_pool *pool = rt->buffers;
	int rc = announce(self, rt, buffer);

	if (rc == 0 || buffer->row.index < 0)
		return rc;
	gyre__fork_hold();
	give_index(pool, buffer->row.index);
	buffer->row.index = -1;
	gyre__fork_release();
	return announce(self, rt, buffer);
}

static int buffer_make(struct gyre__thread *self, struct gyre *rt, size_t mapped,
		       struct gyre_buffer **ret)
{
	struct gyre_buffer *buffer = gyre__zalloc(sizeof(*buffer));
	int rc;

	if (!buffer)
		return -ENOMEM;
	rc = buffer_map(buffer, mapped);
	if (rc < 0) {
		gyre__free(buffer);
		return rc;
	}
	buffer->pool = rt->buffers;
	buffer->row.len = mapped;
	buffer->row.release = row_release;
	pool_add(rt->buffers, buffer);
	rc = buffer_announce(self, rt, buffer);
	if (rc < 0) {
		buffer_destroy(rt->buffers, buffer);
		return rc;
	}
	*ret = buffer;
	return 0;
}

static enum gyre_status buffer_get(struct gyre__thread *self, struct gyre *rt, size_t len,
				   struct gyre_buffer **ret)
{
	size_t mapped = (len + PAGE - 1) / PAGE * PAGE;
	struct gyre_buffer *buffer = take_idle(rt->buffers, mapped);
	struct gyre_buffer *spare;
	int rc;

	if (buffer && rt->buffers->zero)
		memset(buffer->row.data, 0, buffer->mapped);
	if (!buffer) {
		while ((spare = take_idle(rt->buffers, 0))) {
			retract(self, rt, spare);
			buffer_destroy(rt->buffers, spare);
		}
		rc = buffer_make(self, rt, mapped, &buffer);
		if (rc < 0)
			return gyre__fail_system("gyre_buffer_get", rc, "memory for a buffer");
	}
	gyre__store(&buffer->row.left, 1, relaxed);
	gyre__store(&buffer->row.held, 1, release);
	*ret = buffer;
	gyre__thread_succeed(self);
	return GYRE_OK;
}

enum gyre_status gyre_buffer_get(struct gyre *rt, size_t len, struct gyre_buffer **ret)
{
	struct gyre__thread *self;
	enum gyre_status status;

	if (gyre__must_go_elsewhere())
		return gyre__buffer_get_elsewhere(rt, len, ret);
	status = gyre__runtime_enter(__func__, &rt, &self);
	if (status != GYRE_OK)
		return status;
	if (!ret)
		status = gyre__fail(__func__, GYRE_INVALID, "ret is NULL");
	else if (len == 0 || len > LEN_MAX)
		status = gyre__fail(__func__, GYRE_INVALID, "a buffer has 1 byte to 1 GiB, not %zu",
				    len);
	else
		status = buffer_get(self, rt, len, ret);
	gyre__thread_leave(self);
	return status;
}

void *gyre_buffer_data(struct gyre_buffer *buffer)
{
	return buffer ? buffer->row.data : NULL;
}

int gyre_buffer_index(const struct gyre_buffer *buffer)
{
	return buffer ? buffer->row.index : -1;
}

void gyre_buffer_put(struct gyre_buffer *buffer)
{
	if (!buffer)
		return;
	gyre__store(&buffer->row.held, 0, release);
	gyre__buffer_row_unref(&buffer->row);
}
