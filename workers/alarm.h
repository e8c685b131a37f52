/* SPDX-License-Identifier: MIT */
/*
 * Alarms: moments at which something of a worker's wants to be looked at, in one
 * heap. Owner thread only. There is always room to set one: whoever owns alarms
 * reserves their places first, when a refusal still hurts nobody.
 */
#ifndef GYRE_WORKERS_ALARM_H
#define GYRE_WORKERS_ALARM_H

#include <stdbool.h>
#include <stdint.h>

#define GYRE__ALARM_UNSET	UINT32_MAX

struct gyre__alarm {
	uint32_t place;				/* in the heap, or GYRE__ALARM_UNSET */
	void (*due)(struct gyre__alarm *alarm);	/* it is unset by then, and may be set again */
};

struct gyre__alarm_entry {
	uint64_t at_ns;
	struct gyre__alarm *alarm;
};

struct gyre__alarms {
	/* Each entry has up to four behind it, none of them earlier. */
	struct gyre__alarm_entry *heap;
	uint32_t count, room, reserved;
};

void gyre__alarms_done(struct gyre__alarms *alarms);

/* One more alarm may be set. False: no memory. Given back by gyre__alarms_release(). */
bool gyre__alarms_grow(struct gyre__alarms *alarms);
static inline bool gyre__alarms_reserve(struct gyre__alarms *alarms)
{
	if (__builtin_expect(alarms->reserved == alarms->room, 0) && !gyre__alarms_grow(alarms))
		return false;
	alarms->reserved++;
	return true;
}
static inline void gyre__alarms_release(struct gyre__alarms *alarms)
{
	alarms->reserved--;
}

static inline void gyre__alarm_init(struct gyre__alarm *alarm,
				    void (*due)(struct gyre__alarm *alarm))
{
	alarm->place = GYRE__ALARM_UNSET;
	alarm->due = due;
}

/* Set or moved. */
void gyre__alarm_set(struct gyre__alarms *alarms, struct gyre__alarm *alarm, uint64_t at_ns);
/* Unset, if it is set. */
void gyre__alarm_unset(struct gyre__alarms *alarms, struct gyre__alarm *alarm);

/* When it is due; UINT64_MAX: it is not set. */
static inline uint64_t gyre__alarm_at(const struct gyre__alarms *alarms,
				      const struct gyre__alarm *alarm)
{
	return alarm->place == GYRE__ALARM_UNSET ? UINT64_MAX : alarms->heap[alarm->place].at_ns;
}

/* When the next is due; UINT64_MAX: none is set. */
static inline uint64_t gyre__alarms_next(const struct gyre__alarms *alarms)
{
	return alarms->count ? alarms->heap[0].at_ns : UINT64_MAX;
}

/* Runs what is due at now_ns. True: something was. */
bool gyre__alarms_run(struct gyre__alarms *alarms, uint64_t now_ns);

#endif
