/* SPDX-License-Identifier: MIT */
#include "task.h"

#include <errno.h>
#include <string.h>

#include "job.h"
#include "ring/sys.h"

#define SLOTS_FIRST	64
#define WAKERS_POLL_NS	(20 * GYRE__NS_PER_US)

/* ------------------------------------------------------------- handles -- */

static bool slots_grow(struct gyre__tasks *tasks)
{
	uint32_t room = tasks->slots_room ? 2 * tasks->slots_room : SLOTS_FIRST;
	struct gyre__task_slot *slots;

	if (room > GYRE__TASKS_MAX)
		return false;
	slots = gyre__zalloc(room * sizeof(*slots));
	if (!slots)
		return false;
	if (tasks->slots_used)
		memcpy(slots, tasks->slots, tasks->slots_used * sizeof(*slots));
	gyre__free(tasks->slots);
	tasks->slots = slots;
	tasks->slots_room = room;
	return true;
}

/* GYRE__NO_HANDLE: no memory. */
static uint32_t slot_take(struct gyre__tasks *tasks, struct gyre__task *owner)
{
	uint32_t index = tasks->slots_free;
	struct gyre__task_slot *slot;

	if (index != GYRE__NO_HANDLE) {
		slot = &tasks->slots[index];
		tasks->slots_free = slot->next;
	} else {
		if (tasks->slots_used == tasks->slots_room && !slots_grow(tasks))
			return GYRE__NO_HANDLE;
		index = tasks->slots_used++;
		slot = &tasks->slots[index];
	}
	slot->owner = owner;
	slot->generation++;
	slot->ended = false;
	return index;
}

/* A job's list of ended slots: a ring through next and prev, of which it knows one member. */
static void list_add(struct gyre__tasks *tasks, uint32_t *list, uint32_t index)
{
	struct gyre__task_slot *slots = tasks->slots;
	uint32_t first = *list;

	if (first == GYRE__NO_HANDLE) {
		slots[index].next = slots[index].prev = index;
		*list = index;
		return;
	}
	slots[index].next = first;
	slots[index].prev = slots[first].prev;
	slots[slots[first].prev].next = index;
	slots[first].prev = index;
}

void gyre__task_forget_ended(struct gyre__tasks *tasks, struct gyre__job *job,
			     const struct gyre__task *parent)
{
	uint32_t *list = gyre__job_unjoined(job), index = *list, left = 0, i;

	if (index == GYRE__NO_HANDLE)
		return;
	do
		left++;
	while ((index = tasks->slots[index].next) != *list);
	for (i = 0; i < left; i++) {
		struct gyre__task_slot *slot = &tasks->slots[index];

		index = slot->next;
		if (!parent || slot->parent == parent->serial)
			gyre__task_slot_free(tasks, slot);
	}
}

/* ----------------------------------------------------------- the switch -- */

static void ready_push(struct gyre__tasks *tasks, struct gyre__task *task)
{
	task->pooled.link = NULL;
	if (tasks->ready_tail)
		tasks->ready_tail->pooled.link = task;
	else
		tasks->ready_head = task;
	tasks->ready_tail = task;
}

static inline struct gyre__task *ready_take(struct gyre__tasks *tasks)
{
	struct gyre__task *task = tasks->ready_head;

	tasks->ready_head = task->pooled.link;
	if (!tasks->ready_head)
		tasks->ready_tail = NULL;
	return task;
}

/* The next to run, while it is the tasks' turn; NULL: the scheduler's. */
static inline struct gyre__task *take_turn(struct gyre__tasks *tasks)
{
	if (gyre__unlikely(!tasks->ready_head || tasks->budget == 0))
		return NULL;
	tasks->budget--;
	return ready_take(tasks);
}

static void task_main(void *arg);
static void alarm_due(struct gyre__alarm *alarm);

static void make_fiber(struct gyre__task *task)
{
	struct gyre__task_top *top = task->top;
	char *base = top->stack->base;

	gyre__fiber_init_with(&task->fiber, base, (size_t)((char *)top - base), task_main, task,
			      &task->control);
}

/* Its stack, which was promised; where nobody leaves one to it. */
void gyre__task_settle(struct gyre__task *task)
{
	struct gyre__tasks *tasks = task->home;
	struct gyre__stack *stack = gyre__stack_take(&tasks->stacks, task->stack_class);
	size_t size = sizeof(struct gyre__task_top) + tasks->hooks.upper_size;
	struct gyre__task_top *top = (void *)(((uintptr_t)stack - size) &
					      -(uintptr_t)_Alignof(struct gyre__task_top));

	top->task = task;
	top->stack = stack;
	gyre__alarm_init(&top->alarm, alarm_due);
	task->top = top;
	make_fiber(task);
}

/* What runs from now on, for whoever looks from another thread. */
static void note_turn(struct gyre__tasks *tasks, const struct gyre__task *task)
{
	uint64_t now_ns = gyre__sys->now_ns();

	if (tasks->since_ns && now_ns - tasks->since_ns > tasks->stall_ns)
		gyre__count(&tasks->counters.stalls, 1);
	tasks->since_ns = task ? now_ns : 0;
	gyre__store(&tasks->stalled, task ? task->fn : NULL, relaxed);
	gyre__store(&tasks->stalled_ns, tasks->since_ns, relaxed);
}

static inline void begin_turn(struct gyre__tasks *tasks, struct gyre__task *task)
{
	struct gyre__running *running = tasks->running;

	/*
	 * Apart from the next store: the compiler would make one of both, through a vector,
	 * which the next look at the task waits for.
	 */
	running->task = task;
	if (gyre__unlikely(tasks->stall_ns))
		note_turn(tasks, task);
	running->arena = task->arena;
	task->state = GYRE__TASK_RUNNING;
	*tasks->error = task->error;
}

static inline struct gyre__fiber *turn_to(struct gyre__tasks *tasks, struct gyre__task *task)
{
	struct gyre__running *running = tasks->running;

	if (!task) {
		if (gyre__unlikely(tasks->stall_ns))
			note_turn(tasks, NULL);
		running->task = NULL;
		running->arena = NULL;
		return &tasks->scheduler;
	}
	if (gyre__unlikely(!task->top))
		gyre__task_settle(task);
	begin_turn(tasks, task);
	return &task->fiber;
}

/* Some time after the switch away from the last task that has ended: gives its stack back. */
static inline void bury_ended(struct gyre__tasks *tasks)
{
	struct gyre__task *task = tasks->ended;

	if (gyre__likely(!task))
		return;
	tasks->ended = NULL;
	gyre__fiber_done(&task->fiber);
	gyre__stack_put(&tasks->stacks, task->top->stack);
	gyre__pool_put(&tasks->records, &task->pooled);
}

/*
 * From task, whose state is settled, to whoever comes next; returns with its next
 * turn. The switch is the last that is done here, and in most that call this: then
 * it returns straight to whoever waits.
 */
static inline void hand_over(struct gyre__tasks *tasks, struct gyre__task *task)
{
	struct gyre__task *next = take_turn(tasks);

	if (next == task) {
		task->state = GYRE__TASK_RUNNING;
		return;
	}
	task->error = *tasks->error;
	gyre__fiber_switch(&task->fiber, turn_to(tasks, next));
}

bool gyre__tasks_run(struct gyre__tasks *tasks)
{
	bool did = false;

	if (tasks->alarms.count)
		did = gyre__alarms_run(&tasks->alarms, gyre__sys->now_ns());
	if (tasks->ready_head) {
		tasks->budget = GYRE__TASK_BUDGET - 1;
		gyre__fiber_switch(&tasks->scheduler, turn_to(tasks, ready_take(tasks)));
		bury_ended(tasks);
		did = true;
	}
	tasks->ring->guest_deadline_ns = gyre__alarms_next(&tasks->alarms);
	tasks->ring->guests_ready = tasks->ready_head != NULL;
	return did;
}

/* ---------------------------------------------------------------- waits -- */

static union gyre__mutex waits_mutex = GYRE__MUTEX_INIT;

void gyre__waits_lock(void)
{
	gyre__sys->mutex_lock(&waits_mutex);
}

void gyre__waits_unlock(void)
{
	gyre__sys->mutex_unlock(&waits_mutex);
}

void gyre__task_ready(struct gyre__task *task)
{
	GYRE_ASSERT(task->state == GYRE__TASK_PARKED);
	task->state = GYRE__TASK_READY;
	ready_push(task->home, task);
}

void gyre__task_stop_waiting(struct gyre__task *task, struct gyre__wait *wait)
{
	(void)wait;
	gyre__task_ready(task);
}

static bool control_wake(struct gyre__ring *ring, struct gyre__batch *batch)
{
	(void)ring;
	gyre__task_ready(batch->control_arg);
	return false;
}

void gyre__task_wake(struct gyre__task *task, struct gyre__ring *ring)
{
	struct gyre__batch *batch = &task->top->far_wake;
	struct gyre__tasks *tasks = task->home;
	struct gyre__ring *home = tasks->ring;
	bool sent;

	if (ring == home) {
		gyre__task_ready(task);
		return;
	}
	batch->count = 0;
	batch->flags = GYRE__BATCH_CONTROL | GYRE__BATCH_RETAINED;
	batch->control = control_wake;
	batch->control_arg = task;
	/*
	 * Its worker does not end before its tasks have. But this one may do so at once,
	 * and the worker's memory go, while its wake-up is still to be written.
	 */
	gyre__fetch_add(&tasks->wakers, 1, relaxed);	/* seen with the batch */
	sent = gyre__ring_control(home, batch);
	GYRE_ASSERT(sent);
	/* Release: done with it. Pairs with the load in gyre__tasks_wait_for_wakers(). */
	gyre__fetch_sub(&tasks->wakers, 1, release);
}

static void waiter_done(struct gyre__waiter *waiter, struct gyre__batch *batch,
			struct gyre__ring *ring)
{
	(void)batch;
	gyre__task_wake(gyre__container_of(waiter, struct gyre__task_waiter, waiter)->task, ring);
}

void gyre__task_waiter_init(struct gyre__task_waiter *waiter, struct gyre__task *task)
{
	waiter->waiter.done = waiter_done;
	waiter->waiter.line = waiter;
	waiter->task = task;
}

void gyre__task_park(struct gyre__task *task, struct gyre__wait *wait)
{
	struct gyre__tasks *tasks = task->home;

	wait->since_ns = tasks->ring->now_ns;
	task->wait = wait;
	task->state = GYRE__TASK_PARKED;
	hand_over(tasks, task);
}

static void alarm_due(struct gyre__alarm *alarm)
{
	struct gyre__task *task = gyre__container_of(alarm, struct gyre__task_top, alarm)->task;
	struct gyre__wait *wait = task->wait;

	if (task->state != GYRE__TASK_PARKED || (wait->withdraw && !wait->withdraw(task, wait)))
		return;
	task->alarmed = true;
	gyre__task_ready(task);
}

bool gyre__task_park_until(struct gyre__task *task, struct gyre__wait *wait, uint64_t at_ns)
{
	struct gyre__tasks *tasks = task->home;

	task->alarmed = false;
	if (at_ns != GYRE__NEVER)
		gyre__alarm_set(&tasks->alarms, &task->top->alarm, at_ns);
	gyre__task_park(task, wait);
	gyre__alarm_unset(&tasks->alarms, &task->top->alarm);
	return !task->alarmed;
}

void gyre__task_yield(struct gyre__task *task)
{
	struct gyre__tasks *tasks = task->home;

	task->state = GYRE__TASK_READY;
	ready_push(tasks, task);
	hand_over(tasks, task);
}

enum gyre_status gyre__task_may_wait_cancelled(struct gyre__task *task)
{
	const struct gyre__ring *ring = task->home->ring;

	if (task->shielded && ring->phase < GYRE__RING_CANCELLING)
		return GYRE_OK;
	if (!task->shielded && gyre__sys->now_ns() - task->cancel_ns >= GYRE__GRACE_NS)
		gyre__task_finish(task, GYRE__TASK_DROPPED, 0);
	gyre__task_yield(task);
	return ring->phase >= GYRE__RING_BURIED ? GYRE_WORKER_DEAD : GYRE_CANCELLED;
}

static void interrupt(struct gyre__task *task)
{
	if (task->state == GYRE__TASK_PARKED && task->wait->interrupt)
		task->wait->interrupt(task, task->wait);
}

/*
 * To interrupt a wait may cancel others, and that others again, along chains of
 * joins and of jobs. They take turns here, not on the stack, which may be a task's.
 */
void gyre__task_cancel(struct gyre__task *task)
{
	struct gyre__tasks *tasks = task->home;

	if (gyre__task_is_cancelled(task))
		return;
	task->cancel_ns = gyre__sys->now_ns() | 1;	/* never 0 */
	if (task->shielded)
		return;
	task->next_to_interrupt = tasks->to_interrupt;
	tasks->to_interrupt = task;
	if (tasks->interrupting)
		return;
	tasks->interrupting = true;
	while ((task = tasks->to_interrupt)) {
		tasks->to_interrupt = task->next_to_interrupt;
		interrupt(task);
	}
	tasks->interrupting = false;
}

void gyre__task_hurry(struct gyre__task *task)
{
	gyre__task_cancel(task);
	if (task->shielded)
		interrupt(task);
}

/* ------------------------------------------------------ beginning and end -- */

/*
 * A defer that panics is left by a jump to here, so any number of them needs no more
 * stack than one. True: one has.
 */
__attribute__((__noinline__))
static bool run_defers(struct gyre__task *task)
{
	struct gyre__defer *defer;
	jmp_buf base;

	task->top->base = &base;
	task->has_base = true;
	if (setjmp(base) != 0) {
		task->base_left = true;
		while (task->local_makes)
			gyre__local_abandon(task);
	}
	while ((defer = task->defers)) {
		task->defers = defer->next;
		defer->fn(defer->arg);
	}
	task->has_base = false;
	return task->base_left;
}

static void leave_parent(struct gyre__task *task)
{
	struct gyre__task *parent = task->parent;

	if (!parent)
		return;
	if (task->child_prev)
		task->child_prev->child_next = task->child_next;
	else
		parent->children = task->child_next;
	if (task->child_next)
		task->child_next->child_prev = task->child_prev;
	if (!parent->children && parent->joins_all)
		gyre__task_ready(parent);
}

/* They live on, as the job's. */
static void leave_children(struct gyre__task *task)
{
	struct gyre__task *child;

	for (child = task->children; child; child = child->child_next) {
		bool tangled = gyre__task_is_tangled(child);

		if (gyre__unlikely(tangled))
			gyre__waits_lock();
		child->parent = NULL;
		if (gyre__unlikely(tangled))
			gyre__waits_unlock();
	}
	task->children = NULL;
}

/* What is to be told of its end to those who want it. */
static void tell_joiner(struct gyre__task *task, enum gyre__task_end end, int result)
{
	struct gyre__tasks *tasks = task->home;
	struct gyre__task *joiner = task->joiner;
	struct gyre__task_slot *slot;

	if (task->handle == GYRE__NO_HANDLE)
		return;
	if (joiner) {
		joiner->top->joined_end = end;
		joiner->top->joined_result = result;
		joiner->joining = NULL;
		gyre__task_slot_release(tasks, task->handle);
		gyre__task_ready(joiner);
		return;
	}
	slot = &tasks->slots[task->handle];
	slot->owner = task->job;
	slot->ended = true;
	slot->end = (uint8_t)end;
	slot->result = result;
	slot->parent = task->parent ? task->parent->serial : 0;
	list_add(tasks, gyre__job_unjoined(task->job), task->handle);
}

/* All but its leaving. The job may be gone after this. */
static inline void end_task(struct gyre__task *task, enum gyre__task_end end, int result)
{
	struct gyre__tasks *tasks = task->home;

	while (gyre__unlikely(task->local_makes))
		gyre__local_abandon(task);
	task->shielded = true;
	if (gyre__unlikely(task->defers) && run_defers(task)) {
		end = GYRE__TASK_PANICKED;
		result = 0;
	}
	if (gyre__unlikely(task->job->state)) {
		gyre__state_destroy(task);
		if (task->defers)	/* which destroy has asked for */
			run_defers(task);
	}
	tell_joiner(task, end, result);
	leave_children(task);
	leave_parent(task);
	if (task->upper_made)
		tasks->hooks.upper_done(task);
	gyre__alarms_release(&tasks->alarms);
	gyre__count(&tasks->counters.live, -UINT64_C(1));
	task->state = GYRE__TASK_ENDED;
	gyre__job_task_ended(task->job, task, end, result);
}

/* Leaves its stack to next, or the scheduler. Comes back no more than gyre__fiber_exit_to(). */
static inline void leave(struct gyre__tasks *tasks, struct gyre__task *task,
			 struct gyre__task *next)
{
	bury_ended(tasks);
	tasks->ended = task;
	gyre__fiber_exit_to(&task->fiber, turn_to(tasks, next));
}

/*
 * task has ended, and returned to its first frame: who is next and has not begun
 * does so on its stack, all of which is in the cache, and without a switch.
 */
static inline bool follow(struct gyre__tasks *tasks, struct gyre__task *task,
			  struct gyre__task *next)
{
	if (!next || next->top ||
	    !gyre__stack_pass_on(&tasks->stacks, task->top->stack, next->stack_class))
		return false;
	gyre__stack_unpromise(&tasks->stacks, next->stack_class);
	next->top = task->top;
	next->top->task = next;
	gyre__fiber_follow(&task->fiber, &next->fiber, &next->control);
	gyre__pool_put(&tasks->records, &task->pooled);
	begin_turn(tasks, next);
	return true;
}

void gyre__task_finish(struct gyre__task *task, enum gyre__task_end end, int result)
{
	if (task->has_base)
		longjmp(*task->top->base, 1);
	end_task(task, end, result);
	leave(task->home, task, take_turn(task->home));
	gyre__assert_failed("a task that has ended never goes on", __FILE__, __LINE__);
}

static void task_main(void *arg)
{
	struct gyre__task *task = arg, *next;
	struct gyre__tasks *tasks = task->home;

	for (;;) {
		if (gyre__unlikely(task->needs_state))
			gyre__state_take(task);
		end_task(task, GYRE__TASK_RETURNED, task->fn(task->arg));
		next = take_turn(tasks);
		if (!follow(tasks, task, next))
			break;
		task = next;
	}
	leave(tasks, task, next);
}

static void join_parent(struct gyre__task *task, struct gyre__task *parent)
{
	task->parent = parent;
	if (!parent)
		return;
	task->child_prev = NULL;
	task->child_next = parent->children;
	if (parent->children)
		parent->children->child_prev = task;
	parent->children = task;
}

static void task_init(struct gyre__task *task, struct gyre__job *job, gyre_task_fn *fn, void *arg)
{
	struct gyre__tasks *tasks = job->home;

	task->home = tasks;
	task->job = job;
	task->arena = &job->arena;
	task->fn = fn;
	task->arg = arg;
	task->children = NULL;
	task->joiner = task->joining = NULL;
	task->local_makes = task->local_waits = NULL;
	task->defers = NULL;
	task->handle = GYRE__NO_HANDLE;
	task->serial = ++tasks->serials;
	task->error = 0;
	task->stack_class = (uint8_t)job->stack_class;
	task->state = GYRE__TASK_READY;
	task->shielded = false;
	task->alarmed = false;
	task->joins_all = false;
	task->has_base = false;
	task->base_left = false;
	task->is_first = false;
	task->awaits = false;
	task->upper_made = false;
	task->needs_state = false;
	task->may_not_panic = false;
}

/* The record, and the stack, of who has ended last; both are in the cache. */
static inline struct gyre__task *task_again(struct gyre__tasks *tasks, unsigned stack_class)
{
	struct gyre__task *task = tasks->ended;

	if (!task || !gyre__stack_pass_on(&tasks->stacks, task->top->stack, stack_class))
		return NULL;
	tasks->ended = NULL;
	gyre__fiber_done(&task->fiber);
	return task;
}

/* A record, with a stack promised to it. NULL: no memory. */
static inline struct gyre__task *task_new(struct gyre__tasks *tasks, unsigned stack_class)
{
	struct gyre__task *task;

	bury_ended(tasks);
	if (gyre__unlikely(!gyre__stack_promise(&tasks->stacks, stack_class)))
		return NULL;
	task = gyre__pool_take(&tasks->records);
	if (gyre__likely(task))
		task->top = NULL;
	else
		gyre__stack_unpromise(&tasks->stacks, stack_class);
	return task;
}

/* Takes back either. */
static void task_drop(struct gyre__tasks *tasks, struct gyre__task *task)
{
	if (task->top)
		gyre__stack_put(&tasks->stacks, task->top->stack);
	else
		gyre__stack_unpromise(&tasks->stacks, task->stack_class);
	gyre__pool_put(&tasks->records, &task->pooled);
}

/* Where it will begin, with the control words of the caller. */
static inline void begin_later(struct gyre__task *task)
{
	bool kept = gyre__fiber_control_get(&task->control);

	if (task->top)
		make_fiber(task);
	else if (!kept)
		gyre__task_settle(task);
}

struct gyre__task *gyre__task_start(struct gyre__job *job, struct gyre__task *parent,
				    gyre_task_fn *fn, void *arg, struct gyre_task **ret_handle)
{
	struct gyre__tasks *tasks = job->home;
	struct gyre__task *task;

	if (!gyre__alarms_reserve(&tasks->alarms))
		return NULL;
	task = task_again(tasks, job->stack_class);
	if (!task)
		task = task_new(tasks, job->stack_class);
	if (gyre__unlikely(!task))
		goto out_alarm;
	task_init(task, job, fn, arg);
	if (ret_handle) {
		task->handle = slot_take(tasks, task);
		if (gyre__unlikely(task->handle == GYRE__NO_HANDLE))
			goto out_task;
		*ret_handle = gyre__task_handle(tasks, task->handle);
	}
	join_parent(task, parent);
	gyre__job_task_begins(job, task);
	begin_later(task);
	gyre__count(&tasks->counters.started, 1);
	gyre__count(&tasks->counters.live, 1);
	ready_push(tasks, task);
	return task;

out_task:
	task_drop(tasks, task);
out_alarm:
	gyre__alarms_release(&tasks->alarms);
	return NULL;
}

/* --------------------------------------------------------- all of them -- */

void gyre__tasks_init(struct gyre__tasks *tasks, struct gyre__ring *ring,
		      const struct gyre__tasks_config *config)
{
	static _Atomic uint32_t last_tag;

	tasks->ring = ring;
	tasks->hooks = config->hooks;
	tasks->stall_ns = config->stall_ns;
	tasks->arena_max = config->arena_max;
	tasks->state_type = config->state_type;
	gyre__shared_state_init(tasks);
	tasks->slots_free = GYRE__NO_HANDLE;
	/* Relaxed: a number that no other worker has, and nothing else. */
	tasks->tag = ((gyre__fetch_add(&last_tag, 1, relaxed) + 1) & GYRE__TASK_TAG_MASK)
		     << GYRE__TASK_TAG_SHIFT;
	gyre__pool_init(&tasks->records, sizeof(struct gyre__task));
	gyre__stacks_init(&tasks->stacks);
	tasks->stacks.zero = config->zero;
	gyre__chunks_init(&tasks->chunks, config->zero);
}

void gyre__tasks_wait_for_wakers(struct gyre__tasks *tasks)
{
	while (gyre__load(&tasks->wakers, acquire))
		gyre__sys->sleep_ns(WAKERS_POLL_NS);
}

void gyre__tasks_begin(struct gyre__tasks *tasks, struct gyre__running *running)
{
	tasks->running = running;
	tasks->error = &errno;
	gyre__fiber_init_thread(&tasks->scheduler);
}

void gyre__tasks_end(struct gyre__tasks *tasks)
{
	GYRE_ASSERT(tasks->jobs_live == 0);
	GYRE_ASSERT(!tasks->ready_head);
	gyre__fiber_done(&tasks->scheduler);
	gyre__locals_done(&tasks->locals);
	gyre__stacks_done(&tasks->stacks);
	gyre__pool_done(&tasks->records);
	gyre__chunks_done(&tasks->chunks);
	gyre__alarms_done(&tasks->alarms);
	gyre__free(tasks->slots);
	tasks->slots = NULL;
}
