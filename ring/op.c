/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "op.h"

#include <string.h>
#include <sys/mman.h>

#include "sys.h"

#define BIT(state) (1u << GYRE__OP_##state)

const uint8_t gyre__op_edges[GYRE__OP_STATES] = {
	[GYRE__OP_FREE] = BIT(FLYING),
	[GYRE__OP_FLYING] = BIT(ASKED) | BIT(HELD) | BIT(DONE),
	[GYRE__OP_ASKED] = BIT(CANCELLING) | BIT(HELD) | BIT(LEFT) | BIT(DONE),
	[GYRE__OP_CANCELLING] = BIT(HELD) | BIT(LEFT) | BIT(DONE),
	[GYRE__OP_HELD] = BIT(DONE),
	[GYRE__OP_LEFT] = BIT(DONE),
	[GYRE__OP_DONE] = BIT(FREE),
};

static const char *const op_state_names[GYRE__OP_STATES] = {
	[GYRE__OP_FREE] = "free",
	[GYRE__OP_FLYING] = "in flight",
	[GYRE__OP_ASKED] = "cancel wanted",
	[GYRE__OP_CANCELLING] = "cancelling",
	[GYRE__OP_HELD] = "held by the kernel",
	[GYRE__OP_LEFT] = "left at its time-out",
	[GYRE__OP_DONE] = "done",
};

const char *gyre__op_state_name(enum gyre__op_state state)
{
	GYRE_ASSERT(state < GYRE__OP_STATES);
	return op_state_names[state];
}

/* Mapped, not allocated: a slot that is never used costs no memory. */
static int op_table_map(size_t len, void **ret)
{
	return gyre__sys->mmap(len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
			       ret);
}

int gyre__op_table_open(struct gyre__op_table *table, uint32_t inflight_max, uint32_t reserved)
{
	uint32_t size = inflight_max + reserved;
	void *ops, *more;
	int rc;

	rc = op_table_map(size * sizeof(struct gyre__op), &ops);
	if (rc < 0)
		return rc;
	rc = op_table_map(size * sizeof(struct gyre__op_more), &more);
	if (rc < 0) {
		gyre__sys->munmap(ops, size * sizeof(struct gyre__op));
		return rc;
	}
	table->ops = ops;
	table->more = more;
	table->size = size;
	table->reserved = reserved;
	table->used = 0;
	table->free = GYRE__NO_SLOT;
	return 0;
}

void gyre__op_table_close(struct gyre__op_table *table)
{
	if (!table->ops)
		return;
	gyre__sys->munmap(table->ops, table->size * sizeof(struct gyre__op));
	gyre__sys->munmap(table->more, table->size * sizeof(struct gyre__op_more));
	table->ops = NULL;
}
