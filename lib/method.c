/* SPDX-License-Identifier: MIT */
#include "method.h"

#include <string.h>

#include "ring/sys.h"

#define START_ROUNDS	4	/* phases of each method before any is believed */
#define EXPLORE_EVERY	128	/* phases */
#define LEAD_PERCENT	10	/* so much faster has another to be before it takes over */
#define ALIKE_PERCENT	5	/* methods whose times differ by less are told apart by their CPU */

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

	for (device = methods->devices; device < methods->devices + GYRE__METHOD_DEVICES; device++) {
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

/* The one in use, until another is clearly better: devices are noisy, and changes cost. */
static enum gyre__method prefer(struct gyre__lesson *lesson, unsigned offered)
{
	enum gyre__method method = best(lesson, offered), before = lesson->preferred;
	uint64_t cost_ns = lesson->cost_ns[method];

	if (!lesson->has_preferred || !(offered & GYRE__METHOD_BIT(before)) ||
	    cost_ns + cost_ns * LEAD_PERCENT / 100 < lesson->cost_ns[before])
		lesson->preferred = method;
	lesson->has_preferred = true;
	return lesson->preferred;
}

static enum gyre__method next_method(struct gyre__lesson *lesson, unsigned offered)
{
	enum gyre__method untried = least_tried(lesson, offered), preferred;
	unsigned others;

	if (lesson->rounds[untried] < START_ROUNDS)
		return untried;
	preferred = prefer(lesson, offered);
	if (++lesson->since_explored < EXPLORE_EVERY)
		return preferred;
	lesson->since_explored = 0;
	others = offered & ~GYRE__METHOD_BIT(preferred);
	return others ? least_tried(lesson, others) : preferred;
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

static void begin_phase(struct gyre__lesson *lesson, unsigned offered)
{
	lesson->method = next_method(lesson, offered);
	lesson->phase++;
	lesson->count = 0;
	lesson->sum_ns = 0;
	lesson->cpu_start_ns = gyre__sys->cpu_ns();
}

static void end_phase(struct gyre__lesson *lesson)
{
	uint64_t cpu_ns = gyre__sys->cpu_ns() - lesson->cpu_start_ns;
	enum gyre__method method = lesson->method;
	uint32_t round = lesson->rounds[method];

	average_in(&lesson->cost_ns[method], lesson->sum_ns / lesson->count, round);
	average_in(&lesson->cpu_ns[method], cpu_ns / lesson->count, round);
	lesson->rounds[method]++;
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
		offered &= ~GYRE__METHOD_BIT(GYRE__METHOD_RING);
	ret->offered = offered;
	if (lesson->phase == 0)
		begin_phase(lesson, offered);
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
	lesson->sum_ns += (gyre__sys->now_ns() - choice->start_ns) / choice->inside;
	if (++lesson->count < classes[choice->class].phase_len)
		return;
	end_phase(lesson);
	begin_phase(lesson, choice->offered);
}
