/* SPDX-License-Identifier: MIT */
#include "method.h"

#include <string.h>

#include "ring/sys.h"

#define START_ROUNDS	3	/* phases of each method before any is believed */
#define START_PART	2	/* and so much of a phase these are */
#define PAUSE_FIRST	16	/* phases before another method is tried; doubled each time */
#define PAUSE_MAX	128
#define PAUSE_AGAIN	2	/* when the last try was good news */
#define LEAD_PERCENT	10	/* so much faster has another to be before it takes over */
#define ALIKE_PERCENT	10	/* methods whose times differ by less are told apart by their CPU */
/* So much more CPU takes the one in use, for another to take over. */
#define THRIFT_PERCENT	25
#define HOPELESS_PERCENT	50	/* a phase so much slower than the best ends early: */
#define HOPELESS_PART	4	/* after this part of its writes */
#define FIGURE_MAX	UINT32_MAX	/* of two figures the product fits */

static const struct {
	const char *name;
	uint32_t callers_max;
	uint32_t phase_len;
} classes[GYRE__METHOD_CLASSES] = {
	{ "1-2 callers", 2, 32 },
	{ "3-23 callers", 23, 256 },
	{ "24 callers or more", UINT32_MAX, 1024 },
};

static const char *const names[GYRE__METHODS] = {
	[GYRE__METHOD_HERE] = "RWF_DSYNC in the caller",
	[GYRE__METHOD_RING] = "RWF_DSYNC through the ring",
	[GYRE__METHOD_GROUP] = "write, then a shared fdatasync",
	[GYRE__METHOD_JOIN] = "write through the ring, then a shared fdatasync",
};

const char *gyre__method_name(enum gyre__method method)
{
	return names[method];
}

const char *gyre__method_class_name(unsigned class)
{
	return classes[class].name;
}

/* A device that is new takes the place of the one that was idle for longest; NULL: none is idle. */
static struct gyre__device *find_device(struct gyre__methods *methods, uint64_t number)
{
	struct gyre__device *device, *oldest = NULL;

	for (device = methods->devices; device < methods->devices + GYRE__METHOD_DEVICES;
	     device++) {
		if (device->used && device->device == number)
			return device;
		if (device->inside == 0 && (!oldest || device->used < oldest->used))
			oldest = device;
	}
	if (oldest) {
		memset(oldest, 0, sizeof(*oldest));
		oldest->device = number;
	}
	return oldest;
}

static unsigned class_of(uint32_t inside)
{
	unsigned class = 0;

	while (inside > classes[class].callers_max)
		class++;
	return class;
}

/* The lowest method that was offered and had the fewest rounds. */
static enum gyre__method least_tried(const struct gyre__lesson *lesson, unsigned offered)
{
	enum gyre__method method, least = GYRE__METHODS;

	for (method = 0; method < GYRE__METHODS; method++)
		if ((offered & GYRE__METHOD_BIT(method)) &&
		    (least == GYRE__METHODS || lesson->rounds[method] < lesson->rounds[least]))
			least = method;
	return least;
}

/* The fastest; of those that are as good as that, the one that takes the least CPU. */
static enum gyre__method best(const struct gyre__lesson *lesson, unsigned offered)
{
	enum gyre__method method, chosen = GYRE__METHODS;
	uint64_t fastest_ns = UINT64_MAX;

	for (method = 0; method < GYRE__METHODS; method++)
		if ((offered & GYRE__METHOD_BIT(method)) && lesson->cost_ns[method] < fastest_ns)
			fastest_ns = lesson->cost_ns[method];
	for (method = 0; method < GYRE__METHODS; method++)
		if ((offered & GYRE__METHOD_BIT(method)) &&
		    lesson->cost_ns[method] <= fastest_ns + fastest_ns * ALIKE_PERCENT / 100 &&
		    (chosen == GYRE__METHODS || lesson->cpu_ns[method] < lesson->cpu_ns[chosen]))
			chosen = method;
	return chosen;
}

static bool is_less(uint64_t ns, uint64_t than_ns, unsigned percent)
{
	return ns + ns * percent / 100 < than_ns;
}

/* Is a method with such figures clearly better than the one in use? Changes cost. */
static bool beats_preferred(const struct gyre__lesson *lesson, uint64_t cost_ns, uint64_t cpu_ns)
{
	uint64_t preferred_ns = lesson->cost_ns[lesson->preferred];

	return is_less(cost_ns, preferred_ns, LEAD_PERCENT) ||
	       (cost_ns <= preferred_ns + preferred_ns * ALIKE_PERCENT / 100 &&
		is_less(cpu_ns, lesson->cpu_ns[lesson->preferred], THRIFT_PERCENT));
}

/* The one in use, until another is clearly better. */
static enum gyre__method prefer(struct gyre__lesson *lesson, unsigned offered)
{
	enum gyre__method method = best(lesson, offered);

	if (lesson->has_preferred && (offered & GYRE__METHOD_BIT(lesson->preferred)) &&
	    !beats_preferred(lesson, lesson->cost_ns[method], lesson->cpu_ns[method]))
		return lesson->preferred;
	lesson->preferred = method;
	lesson->has_preferred = true;
	lesson->promising = GYRE__METHODS;
	lesson->since_explored = 0;
	lesson->pause = PAUSE_FIRST;
	return method;
}

static enum gyre__method next_method(struct gyre__lesson *lesson, unsigned offered)
{
	enum gyre__method untried = least_tried(lesson, offered), preferred;
	unsigned others;

	if (lesson->rounds[untried] < START_ROUNDS)
		return untried;
	preferred = prefer(lesson, offered);
	others = offered & ~GYRE__METHOD_BIT(preferred);
	if (++lesson->since_explored <= lesson->pause || !others)
		return preferred;
	lesson->since_explored = 0;
	return others & GYRE__METHOD_BIT(lesson->promising) ? lesson->promising :
							      least_tried(lesson, others);
}

/* Another than the one in use was tried: soon again if that was good news, later if it was not. */
static void note_trial(struct gyre__lesson *lesson, uint64_t cost_ns, uint64_t cpu_ns)
{
	bool promising = beats_preferred(lesson, cost_ns, cpu_ns);

	lesson->promising = promising ? lesson->method : GYRE__METHODS;
	if (promising)
		lesson->pause = PAUSE_AGAIN;
	else if (lesson->pause < PAUSE_FIRST)
		lesson->pause = PAUSE_FIRST;
	else if (lesson->pause < PAUSE_MAX)
		lesson->pause *= 2;
}

static uint64_t capped(uint64_t figure)
{
	return figure < FIGURE_MAX ? figure : FIGURE_MAX;
}

/*
 * At the start the best of some phases counts, since that is when threads are made
 * and files are cold. Later a quarter of it is the newest, to follow a device that
 * others use as well. No one phase makes it more than a quarter as much again.
 */
static void average_in(uint64_t *average, uint64_t value, uint32_t round)
{
	if (round == 0 || (round < START_ROUNDS && value < *average))
		*average = value;
	else if (round >= START_ROUNDS)
		*average = (3 * *average + (value < 2 * *average ? value : 2 * *average)) / 4;
}

/*
 * What slows the method in use, or speeds it up, is taken to do so to the others
 * as well: figures of other times than these say only how methods compare.
 */
static void note_figure(const struct gyre__lesson *lesson, uint64_t *figures, uint64_t value)
{
	enum gyre__method method, measured = lesson->method;
	uint64_t before = figures[measured];

	average_in(&figures[measured], value, lesson->rounds[measured]);
	if (!lesson->has_preferred || measured != lesson->preferred || before == 0)
		return;
	for (method = 0; method < GYRE__METHODS; method++)
		if (method != measured)
			figures[method] = capped((figures[method] * figures[measured] +
						  before / 2) / before);
}

/* The time a write at which a phase of this method need not go on; 0: it is to. */
static uint64_t find_limit(const struct gyre__lesson *lesson)
{
	uint64_t least_ns = UINT64_MAX;
	enum gyre__method method;

	if (lesson->has_preferred && lesson->method == lesson->preferred)
		return 0;
	for (method = 0; method < GYRE__METHODS; method++)
		if (method != lesson->method && lesson->rounds[method] &&
		    lesson->cost_ns[method] < least_ns)
			least_ns = lesson->cost_ns[method];
	return least_ns == UINT64_MAX ? 0 : least_ns + least_ns * HOPELESS_PERCENT / 100;
}

static void begin_phase(struct gyre__lesson *lesson, unsigned offered, uint32_t inside)
{
	lesson->method = next_method(lesson, offered);
	lesson->phase++;
	lesson->count = 0;
	lesson->settling = 2 * inside;
	lesson->sum_ns = 0;
	lesson->limit_ns = find_limit(lesson);
	lesson->cpu_start_ns = gyre__sys->cpu_ns();
}

static bool phase_is_over(const struct gyre__lesson *lesson, unsigned class)
{
	uint32_t len = classes[class].phase_len;

	if (lesson->rounds[lesson->method] < START_ROUNDS)
		len /= START_PART;
	return lesson->count >= len ||
	       (lesson->limit_ns && lesson->count >= len / HOPELESS_PART &&
		lesson->sum_ns > lesson->count * lesson->limit_ns);
}

static void end_phase(struct gyre__lesson *lesson)
{
	uint64_t cost_ns = capped(lesson->sum_ns / lesson->count);
	uint64_t cpu_ns = capped((gyre__sys->cpu_ns() - lesson->cpu_start_ns) / lesson->count);

	if (lesson->has_preferred && lesson->method != lesson->preferred)
		note_trial(lesson, cost_ns, cpu_ns);
	note_figure(lesson, lesson->cost_ns, cost_ns);
	note_figure(lesson, lesson->cpu_ns, cpu_ns);
	lesson->rounds[lesson->method]++;
}

void gyre__method_choose(struct gyre__methods *methods, uint64_t number, bool direct,
			 unsigned offered, struct gyre__choice *ret)
{
	struct gyre__device *device = find_device(methods, number);
	struct gyre__lesson *lesson;

	memset(ret, 0, sizeof(*ret));
	ret->offered = offered;
	ret->device = device;
	ret->method = offered & GYRE__METHOD_BIT(GYRE__METHOD_HERE) ? GYRE__METHOD_HERE :
								       GYRE__METHOD_RING;
	if (!device)
		return;
	device->used = ++methods->choices;
	ret->inside = ++device->inside;
	ret->class = class_of(ret->inside);
	lesson = &device->lessons[direct][ret->class];
	/* For one or two callers the way to a worker and back is longer than what it saves. */
	if (ret->class == 0 && (offered & GYRE__METHOD_BIT(GYRE__METHOD_HERE)))
		offered &= ~(GYRE__METHOD_BIT(GYRE__METHOD_RING) |
			     GYRE__METHOD_BIT(GYRE__METHOD_JOIN));
	ret->offered = offered;
	if (lesson->phase == 0)
		begin_phase(lesson, offered, device->inside);
	if (offered & GYRE__METHOD_BIT(lesson->method)) {
		ret->lesson = lesson;
		ret->method = lesson->method;
		ret->phase = lesson->phase;
	}
	ret->start_ns = gyre__sys->now_ns();
}

void gyre__method_done(struct gyre__choice *choice, bool learn)
{
	struct gyre__lesson *lesson = choice->lesson;

	if (!choice->device)
		return;
	choice->device->inside--;
	if (!learn || !lesson || lesson->phase != choice->phase)
		return;
	if (lesson->settling) {
		if (--lesson->settling == 0)
			lesson->cpu_start_ns = gyre__sys->cpu_ns();
		return;
	}
	lesson->sum_ns += (gyre__sys->now_ns() - choice->start_ns) / choice->inside;
	lesson->count++;
	if (!phase_is_over(lesson, choice->class))
		return;
	end_phase(lesson);
	begin_phase(lesson, choice->offered, choice->device->inside);
}
