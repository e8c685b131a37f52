/* SPDX-License-Identifier: MIT */
/*
 * Circles of waits.
 *
 * Who waits is a task, or a helper on behalf of its caller, which waits for it. From
 * who is about to wait a walk goes up: to who joins that task, or waits for the
 * worker local that it makes; to the caller of a helper; to who waits for the end
 * of its job, or is next in line for a state that this one has or waits
 * for; to who closes its runtime. Where it comes to what is to be waited
 * for, the wait would never end.
 *
 * Who waits for room in a pool waits for any of those who have some. That ends, but
 * where each of these waits for somebody who waits for room, with the wait that is
 * about to begin. So where the walk has met one of them, another goes up from all
 * who wait for room; nobody else can have made the difference (is_room_stuck()).
 *
 * The end of a job waits for its first task. The others are cancelled then: so it
 * waits for one of them only where that wait holds on. A cancel goes down through
 * joins and gyre_block_on(), and ends gyre_job_wait() and gyre_local_get(), but not
 * in a defer, and it does not reach helpers at all. A close waits for all tasks,
 * and cancels them in the end, defers or not.
 *
 * Waits that end by themselves, at a time-out, are no part of any circle.
 *
 * The lock. A walk reads tasks of other workers, all of which wait for the one
 * that it has started from. What leads up from such a task (who joins it, who waits
 * for its locals or its end, whether its parent joins it) is changed under the lock
 * alone. From a task that waits for nobody's end no walk comes by, so most joins
 * take no lock: gyre__task_is_tangled() tells them. Such a wait is noted under the
 * lock, or handed over with a job that starts, and what had led up to the task
 * before is then seen by whoever comes that way.
 */
#include "circle.h"

#include "offload.h"
#include "runtime.h"
#include "workers/job.h"
#include "workers/local.h"
#include "workers/keys.h"

/* Whether who waits goes on once it is cancelled; of who is met twice, the most. */
enum firm {
	GIVES_WAY = 0,
	HOLDS_ON,		/* in a defer: until a close is tired of it */
	HOLDS			/* whatever is cancelled */
};

/* What is to be waited for: one of these. */
struct aim {
	const struct gyre_job *job;
	const struct gyre__task *task, *parent;
	bool cancels;			/* task */
	const struct gyre *rt;
	const struct gyre__line *line;	/* any job that stands in it */
	const struct gyre__keys *room;	/* whoever has some of it */
};

struct walk {
	uint64_t number;
	struct gyre__thread *first, *last;	/* met, and not looked at yet */
	bool found;			/* what is to be waited for */
	bool room;			/* somebody has room that others may wait for */
};

static uint64_t walks;		/* under the lock */

/* To be looked at, once for each degree of firmness. Without recursion: there may be thousands. */
static void meet(struct walk *walk, struct gyre__thread *who, enum firm firm)
{
	if (who->walk == walk->number && who->firm >= firm)
		return;
	who->firm = (uint8_t)firm;
	if (who->walk == walk->number && who->walk_pending)
		return;
	who->walk = walk->number;
	who->walk_pending = true;
	who->walk_next = NULL;
	if (walk->last)
		walk->last->walk_next = who;
	else
		walk->first = who;
	walk->last = who;
}

static struct gyre__thread *take(struct walk *walk)
{
	struct gyre__thread *who = walk->first;

	if (!who)
		return NULL;
	walk->first = who->walk_next;
	if (!walk->first)
		walk->last = NULL;
	who->walk_pending = false;
	return who;
}

static enum firm at_least(enum firm a, enum firm b)
{
	return a > b ? a : b;
}

/* who waits for the end of what from belongs to. passes_on: its cancel is handed on there. */
static void meet_waiter(struct walk *walk, const struct gyre__thread *from,
			struct gyre__thread *who, bool passes_on)
{
	enum firm firm = passes_on ? (enum firm)from->firm : GIVES_WAY;

	if (!who->task)
		firm = HOLDS;
	else if (who->task->shielded)
		firm = at_least(firm, HOLDS_ON);
	/* The close of another runtime does not hurry what is no task of it. */
	if (firm == HOLDS_ON && !who->task->shielded && who->runtime != from->runtime)
		firm = HOLDS;
	meet(walk, who, firm);
}

/* Who waits has a record: it has been made before. */
static struct gyre__thread *record_of(struct gyre__task *task)
{
	GYRE_ASSERT(task->upper_made);
	return (struct gyre__thread *)(void *)task->top->upper;
}

static void meet_closers(struct walk *walk, const struct gyre *rt, enum firm firm)
{
	const struct gyre__closer *closer;

	if (firm != HOLDS && rt->settings.drain_ns != GYRE_FOREVER)
		return;
	for (closer = rt->closers; closer; closer = closer->next)
		meet(walk, closer->self, HOLDS);
}

static void look_up_from_helper(struct walk *walk, const struct gyre__thread *helper,
				const struct aim *aim)
{
	struct gyre__thread *caller = gyre__offload_caller(helper);

	if (aim->rt && helper->helps == aim->rt)
		walk->found = true;
	if (caller && gyre__waiting_party(caller))
		meet(walk, caller, HOLDS);
	meet_closers(walk, helper->helps, HOLDS);
}

/* What is joined lives on the worker of who asks, and may be cancelled: then some waits end. */
static bool is_aimed_at(const struct gyre__thread *self, const struct aim *aim)
{
	const struct gyre__task *task = self->task;

	if (aim->rt)
		return self->runtime == aim->rt;
	if (task != aim->task && (!aim->parent || task->parent != aim->parent))
		return false;
	return self->firm != GIVES_WAY || task->shielded ||
	       !(aim->cancels || gyre__task_is_cancelled(task));
}

/* Who has room in a pool keeps it until the end of its job, and is counted once. */
static void note_room(struct walk *walk, const struct gyre__job *job, const struct aim *aim)
{
	struct gyre__keyed *keyed = job->keyed;
	struct gyre__keys *pool;

	if (!keyed || !keyed->has_room || keyed->line.first != job ||
	    keyed->walk == walk->number)
		return;
	pool = keyed->pool;
	if (pool->walk != walk->number)
		pool->walk_met = 0;
	pool->walk = keyed->walk = walk->number;
	pool->walk_met++;
	walk->room |= pool->wants_first || aim->room == pool;
}

static void look_up_from_task(struct walk *walk, const struct gyre__thread *self,
			      const struct aim *aim)
{
	struct gyre__task *task = self->task, *waiter;
	const struct gyre__local_entry *entry;
	const struct gyre_job *handle = task->job->handle;
	struct gyre__thread *waited_by;

	walk->found |= is_aimed_at(self, aim);
	if (task->joiner)
		meet_waiter(walk, self, record_of(task->joiner), true);
	if (task->parent && task->parent->joins_all)
		meet_waiter(walk, self, record_of(task->parent), true);
	for (entry = task->local_makes; entry; entry = entry->outer)
		for (waiter = entry->waiting; waiter; waiter = waiter->top->local_next)
			meet_waiter(walk, self, record_of(waiter), false);
	meet_closers(walk, self->runtime, (enum firm)self->firm);
	if (!task->is_first && self->firm == GIVES_WAY)
		return;
	walk->found |= handle == aim->job || (aim->line && aim->line == task->job->line);
	note_room(walk, task->job, aim);
	if (task->job->line_next)
		meet_waiter(walk, self, record_of(task->job->line_next->first), false);
	/* Acquire: what had led up to who waits. Pairs with the stores in lib/jobs.c. */
	waited_by = gyre__load(&handle->waited_by, acquire);
	if (waited_by)
		meet_waiter(walk, self, waited_by, handle->owned);
}

static void look_up(struct walk *walk, const struct gyre__thread *who, const struct aim *aim)
{
	if (who->task)
		look_up_from_task(walk, who, aim);
	else
		look_up_from_helper(walk, who, aim);
}

/* Up from all who wait for room in the pools that are in doubt, as if self waited already. */
static void walk_up_from_room(struct gyre__thread *self, enum firm firm, const struct aim *aim)
{
	struct walk walk = { .number = ++walks };
	const struct gyre__keyed *keyed;
	const struct gyre__keys *pool;
	struct gyre__thread *who;

	for (pool = gyre__keys_crowded(); pool; pool = pool->crowded_next) {
		if (!pool->walk_doubts)
			continue;
		for (keyed = pool->wants_first; keyed; keyed = keyed->wants_next)
			if (keyed->waiter)
				meet(&walk, record_of(keyed->waiter), GIVES_WAY);
		if (pool == aim->room)
			meet(&walk, self, firm);
	}
	while ((who = take(&walk))) {
		look_up(&walk, who, aim);
		if (walk.found)
			meet(&walk, self, firm);
		walk.found = false;
	}
}

/*
 * Is there a pool in which all who have room wait for who wants some, of it or of
 * another such pool? Of all that may be one those are left out where somebody goes
 * on, until it comes out the same.
 */
static bool is_room_stuck(struct gyre__thread *self, enum firm firm, const struct aim *aim)
{
	struct gyre__keys *pool;
	bool again = true, stuck = false;

	for (pool = gyre__keys_crowded(); pool; pool = pool->crowded_next)
		pool->walk_doubts = true;
	while (again) {
		again = stuck = false;
		walk_up_from_room(self, firm, aim);
		for (pool = gyre__keys_crowded(); pool; pool = pool->crowded_next) {
			if (!pool->walk_doubts)
				continue;
			pool->walk_doubts = pool->walk == walks && pool->walk_met == pool->rooms;
			again |= !pool->walk_doubts;
			stuck |= pool->walk_doubts;
		}
	}
	return stuck;
}

/* Under the lock. Does what aim names wait for self? */
static bool is_waited_for(struct gyre__thread *self, enum firm firm, const struct aim *aim)
{
	struct walk walk = { .number = ++walks };
	struct gyre__thread *who;

	meet(&walk, self, firm);
	while (!walk.found && (who = take(&walk)))
		look_up(&walk, who, aim);
	return walk.found || (walk.room && is_room_stuck(self, firm, aim));
}

/* Of a wait that the cancel of self ends, if anything does. */
static enum firm firmness(const struct gyre__thread *self)
{
	if (!self->task)
		return HOLDS;
	return self->task->shielded ? HOLDS_ON : GIVES_WAY;
}

bool gyre__circle_with_job(struct gyre__thread *self, const struct gyre_job *handle)
{
	const struct aim aim = { .job = handle };

	return is_waited_for(self, firmness(self), &aim);
}

bool gyre__circle_with_task(struct gyre__thread *self, const struct gyre__task *target,
			    bool cancels)
{
	const struct aim aim = { .task = target, .cancels = cancels };

	return is_waited_for(self, firmness(self), &aim);
}

bool gyre__circle_with_children(struct gyre__thread *self)
{
	const struct aim aim = { .parent = self->task };

	return is_waited_for(self, firmness(self), &aim);
}

bool gyre__circle_with_line(struct gyre__task *first, const struct gyre__line *line)
{
	const struct aim aim = { .line = line };
	struct gyre__thread *self = gyre__thread_of_task(first);

	return is_waited_for(self, firmness(self), &aim);
}

bool gyre__circle_with_room(struct gyre__task *first, const struct gyre__keys *pool)
{
	const struct aim aim = { .room = pool };
	struct gyre__thread *self = gyre__thread_of_task(first);

	return is_waited_for(self, firmness(self), &aim);
}

bool gyre__is_circle(const struct gyre__task *target, struct gyre__task *task)
{
	return gyre__circle_with_task(gyre__thread_of_task(task), target, false);
}

/* -------------------------------------------------------------- closers -- */

static bool keeps_open(struct gyre__thread *self, const struct gyre *rt)
{
	const struct aim aim = { .rt = rt };

	return gyre__waiting_party(self) && is_waited_for(self, HOLDS, &aim);
}

bool gyre__circle_with_runtime(struct gyre__thread *self, const struct gyre *rt)
{
	bool circle;

	gyre__waits_lock();
	circle = keeps_open(self, rt);
	gyre__waits_unlock();
	return circle;
}

bool gyre__closer_begin(struct gyre__closer *closer, struct gyre__thread *self, struct gyre *rt)
{
	bool circle;

	closer->self = self ? gyre__waiting_party(self) : NULL;
	if (!closer->self)
		return true;
	gyre__waits_lock();
	circle = keeps_open(self, rt);
	if (!circle) {
		closer->next = rt->closers;
		rt->closers = closer;
	}
	gyre__waits_unlock();
	return !circle;
}

void gyre__closer_end(struct gyre__closer *closer, struct gyre *rt)
{
	struct gyre__closer **at = &rt->closers;

	if (!closer->self)
		return;
	gyre__waits_lock();
	while (*at != closer)
		at = &(*at)->next;
	*at = closer->next;
	gyre__waits_unlock();
}
