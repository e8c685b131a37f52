/* SPDX-License-Identifier: MIT */
/* ring/op: slots, generations, room, and the table of states. */
#include <string.h>

#include "helpers.h"
#include "ring/op.h"
#include "ring/sys.h"

#define INFLIGHT_MAX	8
#define RESERVED	2

static struct gyre__op_table table_open(void)
{
	struct gyre__op_table table;

	memset(&table, 0, sizeof(table));
	expect_eq(gyre__op_table_open(&table, INFLIGHT_MAX, RESERVED), 0);
	return table;
}

static void op_end(struct gyre__op_table *table, struct gyre__op *op, bool library)
{
	gyre__op_set_state(op, GYRE__OP_DONE);
	gyre__op_put(table, op, library);
}

TEST(callers_room_ends_before_the_slots_that_are_reserved)
{
	struct gyre__op_table table = table_open();
	struct gyre__op *ops[INFLIGHT_MAX], *own[RESERVED];
	unsigned i;

	for (i = 0; i < INFLIGHT_MAX; i++) {
		expect_eq(gyre__op_table_room(&table), INFLIGHT_MAX - i);
		ops[i] = gyre__op_get(&table, false);
	}
	expect_eq(gyre__op_table_room(&table), 0);
	expect_eq(gyre__op_table_library_room(&table), RESERVED);
	for (i = 0; i < RESERVED; i++)
		own[i] = gyre__op_get(&table, true);
	expect_eq(gyre__op_table_library_room(&table), 0);
	expect_eq(gyre__op_table_room(&table), 0);
	for (i = 0; i < RESERVED; i++)
		op_end(&table, own[i], true);
	for (i = 0; i < INFLIGHT_MAX; i++)
		op_end(&table, ops[i], false);
	expect_eq(gyre__op_table_room(&table), INFLIGHT_MAX);
	expect_eq(table.live, 0);
	gyre__op_table_close(&table);
}

TEST(user_data_finds_its_op_and_no_later_one_in_the_same_slot)
{
	struct gyre__op_table table = table_open();
	struct gyre__op *first = gyre__op_get(&table, false), *second;
	uint64_t stale = gyre__op_user_data(&table, first);

	expect(gyre__op_find(&table, stale) == first);
	op_end(&table, first, false);
	expect(!gyre__op_find(&table, stale));
	second = gyre__op_get(&table, false);
	expect(second == first);
	expect(!gyre__op_find(&table, stale));
	expect(gyre__op_find(&table, gyre__op_user_data(&table, second)) == second);
	op_end(&table, second, false);
	gyre__op_table_close(&table);
}

TEST(user_data_from_nowhere_finds_nothing)
{
	struct gyre__op_table table = table_open();
	static const uint64_t strange[] = { 0, 1, INFLIGHT_MAX + RESERVED, UINT32_MAX,
					    UINT64_C(1) << 32, UINT64_MAX };
	unsigned i;

	for (i = 0; i < sizeof(strange) / sizeof(strange[0]); i++)
		expect(!gyre__op_find(&table, strange[i]));
	gyre__op_table_close(&table);
}

TEST(generation_wraps_without_a_stale_match)
{
	struct gyre__op_table table = table_open();
	struct gyre__op *op = gyre__op_get(&table, false);
	uint64_t stale;

	op->generation = UINT32_MAX;
	stale = gyre__op_user_data(&table, op);
	op_end(&table, op, false);
	op = gyre__op_get(&table, false);
	expect_eq(op->generation, 0);
	expect(!gyre__op_find(&table, stale));
	expect(gyre__op_find(&table, gyre__op_user_data(&table, op)) == op);
	op_end(&table, op, false);
	gyre__op_table_close(&table);
}

TEST(list_gives_ops_in_the_order_they_were_pushed)
{
	struct gyre__op_table table = table_open();
	struct gyre__op *ops[INFLIGHT_MAX];
	struct gyre__op_list list;
	unsigned i;

	gyre__op_list_init(&list);
	for (i = 0; i < INFLIGHT_MAX; i++) {
		ops[i] = gyre__op_get(&table, false);
		gyre__op_list_push(&table, &list, ops[i]);
	}
	for (i = 0; i < INFLIGHT_MAX; i++)
		expect(gyre__op_list_take(&table, &list) == ops[i]);
	expect(!gyre__op_list_take(&table, &list));
	for (i = 0; i < INFLIGHT_MAX; i++)
		op_end(&table, ops[i], false);
	gyre__op_table_close(&table);
}

/* The whole of the state machine, once more, in words: what may follow what. */
static const struct {
	enum gyre__op_state from, to;
} edges[] = {
	{ GYRE__OP_FREE, GYRE__OP_FLYING },
	{ GYRE__OP_FLYING, GYRE__OP_ASKED },
	{ GYRE__OP_FLYING, GYRE__OP_HELD },
	{ GYRE__OP_FLYING, GYRE__OP_DONE },
	{ GYRE__OP_ASKED, GYRE__OP_CANCELLING },
	{ GYRE__OP_ASKED, GYRE__OP_HELD },
	{ GYRE__OP_ASKED, GYRE__OP_LEFT },
	{ GYRE__OP_ASKED, GYRE__OP_DONE },
	{ GYRE__OP_CANCELLING, GYRE__OP_HELD },
	{ GYRE__OP_CANCELLING, GYRE__OP_LEFT },
	{ GYRE__OP_CANCELLING, GYRE__OP_DONE },
	{ GYRE__OP_HELD, GYRE__OP_DONE },
	{ GYRE__OP_LEFT, GYRE__OP_DONE },
	{ GYRE__OP_DONE, GYRE__OP_FREE },
};

static bool edge_is_allowed(enum gyre__op_state from, enum gyre__op_state to)
{
	unsigned i;

	for (i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
		if (edges[i].from == from && edges[i].to == to)
			return true;
	return false;
}

struct step {
	enum gyre__op_state from, to;
};

static void take_step(void *arg)
{
	const struct step *step = arg;
	struct gyre__op op;

	memset(&op, 0, sizeof(op));
	op.state = (uint8_t)step->from;
	gyre__op_set_state(&op, step->to);
	expect_eq(op.state, step->to);
}

TEST(states_follow_each_other_as_the_table_says_and_no_other_way)
{
	struct step step;
	unsigned from, to;

	for (from = 0; from < GYRE__OP_STATES; from++)
		for (to = 0; to < GYRE__OP_STATES; to++) {
			step = (struct step){ (enum gyre__op_state)from, (enum gyre__op_state)to };
			test_row("%s to %s", gyre__op_state_name(step.from),
				 gyre__op_state_name(step.to));
			if (edge_is_allowed(step.from, step.to))
				take_step(&step);
			else
				test_asserts(take_step, &step);
		}
}

TEST_MAIN()
