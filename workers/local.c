/* SPDX-License-Identifier: MIT */
#include "local.h"

#include <string.h>

#include "job.h"
#include "ring/sys.h"
#include "task.h"

#define ROOM_FIRST	16

/* ------------------------------------------------------------- entries -- */

/* Where it was found last, on whichever worker: a hint that is always checked. */
static _Atomic uint64_t *hint_of(struct gyre_local *local)
{
	return (_Atomic uint64_t *)&local->internal[0];
}

static struct gyre__local_entry *find(const struct gyre__locals *locals, struct gyre_local *local)
{
	uint64_t hint = gyre__load(hint_of(local), relaxed);
	uint32_t i;

	if (gyre__likely(hint < locals->count && locals->entries[hint]->local == local))
		return locals->entries[hint];
	for (i = 0; i < locals->count; i++)
		if (locals->entries[i]->local == local) {
			gyre__store(hint_of(local), i, relaxed);
			return locals->entries[i];
		}
	return NULL;
}

static bool grow(struct gyre__locals *locals)
{
	uint32_t room = locals->room ? 2 * locals->room : ROOM_FIRST;
	struct gyre__local_entry **entries;

	if (locals->count < locals->room)
		return true;
	if (room > GYRE__LOCALS_MAX)
		return false;
	/* Both lists in one: the entries, and behind them those that are there. */
	entries = gyre__zalloc(2 * room * sizeof(entries[0]));
	if (!entries)
		return false;
	if (locals->count) {
		memcpy(entries, locals->entries, locals->count * sizeof(entries[0]));
		memcpy(entries + room, locals->made, locals->made_count * sizeof(entries[0]));
	}
	gyre__free(locals->entries);
	locals->entries = entries;
	locals->made = entries + room;
	locals->room = room;
	return true;
}

static struct gyre__local_entry *add(struct gyre__locals *locals, struct gyre_local *local)
{
	struct gyre__local_entry *entry;

	if (!grow(locals))
		return NULL;
	entry = gyre__zalloc(sizeof(*entry));
	if (!entry)
		return NULL;
	entry->local = local;
	locals->entries[locals->count++] = entry;
	return entry;
}

void gyre__locals_done(struct gyre__locals *locals)
{
	uint32_t i;

	for (i = 0; i < locals->count; i++)
		gyre__free(locals->entries[i]);
	gyre__free(locals->entries);
	*locals = (struct gyre__locals){ 0 };
}

/* -------------------------------------------------------------- making -- */

static void let_them_look(struct gyre__local_entry *entry)
{
	struct gyre__task *task;

	while ((task = entry->waiting)) {
		entry->waiting = task->top->local_next;
		task->local_waits = NULL;
		gyre__task_ready(task);
	}
}

void gyre__local_abandon(struct gyre__task *task)
{
	struct gyre__local_entry *entry = task->local_makes;

	task->local_makes = entry->outer;
	entry->state = GYRE__LOCAL_EMPTY;
	entry->maker = NULL;
	let_them_look(entry);
}

/*
 * Its waits are a task's like others. The functions are copied first: what is made is destroyed by
 * them.
 */
static enum gyre_status make(struct gyre__task *task, struct gyre__local_entry *entry)
{
	struct gyre__tasks *tasks = task->home;
	void *value;

	entry->state = GYRE__LOCAL_CREATING;
	entry->maker = task;
	entry->copy = *entry->local;
	entry->outer = task->local_makes;
	task->local_makes = entry;
	value = entry->copy.create(entry->copy.arg);
	if (!value) {
		gyre__local_abandon(task);
		return GYRE_SYSTEM;
	}
	task->local_makes = entry->outer;
	entry->value = value;
	entry->state = GYRE__LOCAL_THERE;
	entry->maker = NULL;
	entry->since_ns = gyre__sys->now_ns();
	if (tasks->locals.made_count == 0)
		tasks->ring->guests++;
	tasks->locals.made[tasks->locals.made_count++] = entry;
	let_them_look(entry);
	return GYRE_OK;
}

static void interrupt_wait(struct gyre__task *task, struct gyre__wait *wait)
{
	struct gyre__task **at = &task->local_waits->waiting;

	(void)wait;
	gyre__waits_lock();
	while (*at != task)
		at = &(*at)->top->local_next;
	*at = task->top->local_next;
	gyre__waits_unlock();
	task->local_waits = NULL;
	gyre__task_ready(task);
}

/* False: the maker waits for task. */
static bool wait_for_maker(struct gyre__task *task, struct gyre__local_entry *entry)
{
	struct gyre__wait wait = { .what = "gyre_local_get", .interrupt = interrupt_wait };
	bool circle;

	gyre__waits_lock();
	circle = task->home->hooks.is_circle(entry->maker, task);
	if (!circle) {
		task->local_waits = entry;
		task->top->local_next = entry->waiting;
		entry->waiting = task;
	}
	gyre__waits_unlock();
	if (!circle)
		gyre__task_park(task, &wait);
	return !circle;
}

enum gyre_status gyre__local_get(struct gyre__task *task, struct gyre_local *local, void **ret)
{
	struct gyre__tasks *tasks = task->home;
	struct gyre__local_entry *entry = find(&tasks->locals, local);
	enum gyre_status status;

	if (!entry)
		entry = add(&tasks->locals, local);
	if (!entry)
		return GYRE_NO_MEMORY;
	while (gyre__unlikely(entry->state != GYRE__LOCAL_THERE)) {
		if (tasks->locals.ending)
			return GYRE_CLOSED;
		if (entry->state == GYRE__LOCAL_EMPTY) {
			status = make(task, entry);
			if (status != GYRE_OK)
				return status;
			continue;
		}
		if (entry->maker == task)
			return GYRE_WOULD_DEADLOCK;
		status = gyre__task_may_wait(task);
		if (status != GYRE_OK)
			return status;
		if (entry->state == GYRE__LOCAL_CREATING && !wait_for_maker(task, entry))
			return GYRE_WOULD_DEADLOCK;
	}
	*ret = entry->value;
	return GYRE_OK;
}

/* ----------------------------------------------------------------- end -- */

static void destroy_locals(struct gyre__tasks *tasks)
{
	struct gyre__locals *locals = &tasks->locals;

	if (locals->made_count == 0)
		return;
	while (locals->made_count) {
		struct gyre__local_entry *entry = locals->made[--locals->made_count];

		/* First: while destroy waits, nobody else gets what it takes apart. */
		entry->state = GYRE__LOCAL_EMPTY;
		if (entry->copy.destroy)
			entry->copy.destroy(entry->value);
	}
	tasks->ring->guests--;
}

/* What the states of keys have asked for outlives them. */
static void destroy_all(struct gyre__tasks *tasks)
{
	gyre__states_end(tasks);
	destroy_locals(tasks);
}

static int end_task(void *arg)
{
	struct gyre__tasks *tasks = arg;

	/* As defers are: they may wait while there is time. A panic would leave others there. */
	tasks->running->task->shielded = true;
	tasks->running->task->may_not_panic = true;
	destroy_all(tasks);
	return 0;
}

bool gyre__locals_end(struct gyre__tasks *tasks)
{
	if (tasks->locals.ending ||
	    gyre__likely(tasks->locals.made_count == 0 && !gyre__states_are_left(tasks)))
		return false;
	tasks->locals.ending = true;
	/* Without memory for a task they are destroyed all the same, and must not wait. */
	if (!gyre__job_start_own(tasks, end_task, tasks, NULL))
		destroy_all(tasks);
	return true;
}
