/* SPDX-License-Identifier: MIT */
/*
 * A list through its members, both ways round and in a circle, so that each may
 * leave it without knowing which list it is in. One thread's.
 */
#ifndef GYRE_RING_LIST_H
#define GYRE_RING_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* The list itself, or a member's place in it. Zero: a member that is in none. */
struct gyre__list {
	struct gyre__list *next, *prev;
};

static inline void gyre__list_init(struct gyre__list *list)
{
	list->next = list->prev = list;
}

static inline bool gyre__list_is_empty(const struct gyre__list *list)
{
	return list->next == list;
}

static inline bool gyre__list_has(const struct gyre__list *member)
{
	return member->next != NULL;
}

/* At the end. */
static inline void gyre__list_push(struct gyre__list *list, struct gyre__list *member)
{
	member->next = list;
	member->prev = list->prev;
	list->prev->next = member;
	list->prev = member;
}

/* From whichever list it is in, if any. */
static inline void gyre__list_remove(struct gyre__list *member)
{
	if (!gyre__list_has(member))
		return;
	member->prev->next = member->next;
	member->next->prev = member->prev;
	member->next = member->prev = NULL;
}

#endif
