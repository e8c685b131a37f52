/* SPDX-License-Identifier: MIT */
#include "buffers.h"

#include <errno.h>
#include <string.h>

#include "ring.h"
#include "sys.h"

#define ROWS_AT_FIRST	16

static int buffers_grow(struct gyre__ring_buffers *buffers)
{
	uint32_t size = buffers->size ? 2 * buffers->size : ROWS_AT_FIRST;
	struct gyre__buffer_row **rows;

	if (buffers->count < buffers->size)
		return 0;
	rows = gyre__zalloc(size * sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	if (buffers->count)
		memcpy(rows, buffers->rows, buffers->count * sizeof(*rows));
	gyre__free(buffers->rows);
	buffers->rows = rows;
	buffers->size = size;
	return 0;
}

/* iov {NULL, 0} empties the slot. */
static int buffers_update(struct gyre__ring *ring, int index, struct iovec iov)
{
	struct io_uring_rsrc_update2 update = {
		.offset = (unsigned)index,
		.data = (uintptr_t)&iov,
		.nr = 1,
	};
	int rc = gyre__sys->uring_register(ring->uring.ring_fd, IORING_REGISTER_BUFFERS_UPDATE,
					   &update, sizeof(update));

	return rc < 0 ? rc : 0;
}

/* The table of slots, empty, on first use: most programs never register one. */
static int buffers_make_table(struct gyre__ring *ring)
{
	struct io_uring_rsrc_register table = {
		.nr = GYRE__BUFFERS_MAX,
		.flags = IORING_RSRC_REGISTER_SPARSE,
	};
	int rc;

	if (ring->buffers.table_made)
		return 0;
	rc = gyre__sys->uring_register(ring->uring.ring_fd, IORING_REGISTER_BUFFERS2, &table,
				       sizeof(table));
	if (rc < 0)
		return rc;
	ring->buffers.table_made = true;
	return 0;
}

int gyre__buffers_add(struct gyre__ring *ring, struct gyre__buffer_row *row, bool register_it)
{
	struct gyre__ring_buffers *buffers = &ring->buffers;
	int rc;

	gyre__ring_assert_owner(ring);
	rc = buffers_grow(buffers);
	if (rc < 0)
		return rc;
	if (register_it) {
		rc = buffers_make_table(ring);
		if (rc == 0)
			rc = buffers_update(ring, row->index,
					    (struct iovec){ row->data, row->len });
		if (rc < 0)
			return rc;
	}
	buffers->rows[buffers->count++] = row;
	return 0;
}

void gyre__buffers_remove(struct gyre__ring *ring, struct gyre__buffer_row *row)
{
	struct gyre__ring_buffers *buffers = &ring->buffers;
	uint32_t i;

	gyre__ring_assert_owner(ring);
	for (i = 0; i < buffers->count; i++)
		if (buffers->rows[i] == row)
			break;
	if (i == buffers->count)
		return;
	buffers->rows[i] = buffers->rows[--buffers->count];
	if (row->index >= 0)
		buffers_update(ring, row->index, (struct iovec){ NULL, 0 });
}

void gyre__buffers_done(struct gyre__ring_buffers *buffers)
{
	gyre__free(buffers->rows);
	memset(buffers, 0, sizeof(*buffers));
}

struct gyre__buffer_row *gyre__buffers_find(const struct gyre__ring_buffers *buffers,
					    uint64_t addr, uint64_t len)
{
	uint32_t i;

	for (i = 0; i < buffers->count; i++) {
		struct gyre__buffer_row *row = buffers->rows[i];
		uint64_t base = (uintptr_t)row->data;

		if (addr >= base && addr - base <= row->len && len <= row->len - (addr - base))
			return gyre__load(&row->held, acquire) ? row : NULL;
	}
	return NULL;
}
