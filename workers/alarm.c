/* SPDX-License-Identifier: MIT */
#include "alarm.h"

#include <string.h>

#include "ring/sys.h"

#define ROOM_FIRST	64
/* Half as deep as a binary heap, and the four lie on one cache line. */
#define BRANCHES	4

void gyre__alarms_done(struct gyre__alarms *alarms)
{
	GYRE_ASSERT(alarms->count == 0);
	gyre__free(alarms->heap);
	*alarms = (struct gyre__alarms){ 0 };
}

bool gyre__alarms_grow(struct gyre__alarms *alarms)
{
	struct gyre__alarm_entry *heap;
	uint32_t room = alarms->room ? 2 * alarms->room : ROOM_FIRST;

	heap = gyre__zalloc(room * sizeof(*heap));
	if (!heap)
		return false;
	if (alarms->count)
		memcpy(heap, alarms->heap, alarms->count * sizeof(*heap));
	gyre__free(alarms->heap);
	alarms->heap = heap;
	alarms->room = room;
	return true;
}

static void put(struct gyre__alarms *alarms, uint32_t place, struct gyre__alarm_entry entry)
{
	alarms->heap[place] = entry;
	entry.alarm->place = place;
}

static void sift_up(struct gyre__alarms *alarms, uint32_t place, struct gyre__alarm_entry entry)
{
	while (place > 0) {
		uint32_t above = (place - 1) / BRANCHES;

		if (alarms->heap[above].at_ns <= entry.at_ns)
			break;
		put(alarms, place, alarms->heap[above]);
		place = above;
	}
	put(alarms, place, entry);
}

static void sift_down(struct gyre__alarms *alarms, uint32_t place, struct gyre__alarm_entry entry)
{
	for (;;) {
		uint32_t first = place * BRANCHES + 1, least = first, i;

		if (first >= alarms->count)
			break;
		for (i = first + 1; i < first + BRANCHES && i < alarms->count; i++)
			if (alarms->heap[i].at_ns < alarms->heap[least].at_ns)
				least = i;
		if (entry.at_ns <= alarms->heap[least].at_ns)
			break;
		put(alarms, place, alarms->heap[least]);
		place = least;
	}
	put(alarms, place, entry);
}

void gyre__alarm_unset(struct gyre__alarms *alarms, struct gyre__alarm *alarm)
{
	uint32_t place = alarm->place;
	struct gyre__alarm_entry last;

	if (place == GYRE__ALARM_UNSET)
		return;
	alarm->place = GYRE__ALARM_UNSET;
	last = alarms->heap[--alarms->count];
	if (place == alarms->count)
		return;
	if (place > 0 && alarms->heap[(place - 1) / BRANCHES].at_ns > last.at_ns)
		sift_up(alarms, place, last);
	else
		sift_down(alarms, place, last);
}

void gyre__alarm_set(struct gyre__alarms *alarms, struct gyre__alarm *alarm, uint64_t at_ns)
{
	struct gyre__alarm_entry entry = { at_ns, alarm };

	gyre__alarm_unset(alarms, alarm);
	GYRE_ASSERT(alarms->count < alarms->reserved);
	sift_up(alarms, alarms->count++, entry);
}

bool gyre__alarms_run(struct gyre__alarms *alarms, uint64_t now_ns)
{
	bool did = false;

	while (alarms->count && alarms->heap[0].at_ns <= now_ns) {
		struct gyre__alarm *alarm = alarms->heap[0].alarm;

		gyre__alarm_unset(alarms, alarm);
		alarm->due(alarm);
		did = true;
	}
	return did;
}
