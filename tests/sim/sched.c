/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "workers/fiber.h"

#define STACK_BYTES	(128 * 1024)
/* A seed takes a few thousand: past this nobody gets on. */
#define STEPS_SMALL	UINT64_C(400000)
#define STEPS_LARGE	UINT64_C(4000000)
#define POINT_NS	20
#define KEPT_NS		(250 * SIM_US)		/* no machine keeps a thread waiting for longer */
#define PRIORITIES	(1u << 20)		/* to begin with */
#define CHANGES_MAX	8			/* priority change points of a seed */

/* Whose dice: the kernel's on its own, each thread's, each thread's for its stores. */
#define DICE_EVENTS	0
#define DICE_STORES	SIM_THREADS_MAX
#define DICE_COUNT	(1 + 2 * SIM_THREADS_MAX)

#define GOLDEN		UINT64_C(0x9e3779b97f4a7c15)

enum thread_state { UNUSED, RUNNABLE, BLOCKED, ENDED };

struct dice {
	uint64_t base;
	uint32_t thrown;
};

struct sim_thread {
	struct gyre__fiber fiber;
	void *stack;			/* kept between seeds; used anew by each */
	enum thread_state state;
	unsigned id;
	unsigned priority;		/* the highest runs, where priorities rule */
	char name[16];
	sim_fn *fn;
	void *arg;
	const void *channel;
	const char *why;		/* it waits, for whoever asks */
	const char *where;		/* it was last */
	uint64_t deadline_ns;
	bool timed_out;
	uint64_t able_ns;		/* since when it can run, and does not */
	uint32_t steps;			/* its own */
	uint32_t next_switch;		/* of the script's */
	void *pointer;
	void (*at_exit)(void *value);
};

static struct {
	struct sim_thread threads[SIM_THREADS_MAX];
	unsigned count, alive;
	struct sim_thread *self;
	struct gyre__fiber home;
	jmp_buf end;
	const struct sim_setup *setup;
	struct dice dice[DICE_COUNT];
	uint64_t course;		/* the scheduler's own */
	bool in_events;
	uint64_t now_ns;
	uint64_t next_ns;		/* the next thing that happens without any thread */
	uint64_t steps, steps_max;
	uint64_t hash;
	bool by_priority;
	bool look;			/* somebody can run who could not: is it his turn? */
	unsigned switch_mask;		/* 2^n - 1: one point in 2^n switches, where chance rules */
	uint64_t change_at[CHANGES_MAX];
	unsigned changes, low, high;	/* the least and the greatest priority of all */
	const struct sim_events *events;
	struct sim_outcome *outcome;
} sim;

static char *stacks;			/* all threads', in one piece */
unsigned sim_verbose;

/* ---------------------------------------------------------------- dice -- */

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* The scheduler's own dice: what they say is recorded as what came of it. */
static uint64_t roll(void)
{
	return mix(sim.course += GOLDEN);
}

static bool script_has(uint64_t key)
{
	const struct sim_course *script = sim.setup->script;
	uint32_t low = 0, high = script->throw_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (script->throws[middle] < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low < script->throw_count && script->throws[low] == key;
}

/*
 * Each throw has a name that stays its own when other threads throw less. False: it is to be zero.
 */
static bool throw_dice(unsigned nth, uint64_t *ret_key, uint64_t *ret)
{
	struct dice *dice = &sim.dice[nth];

	*ret_key = (uint64_t)nth << 32 | ++dice->thrown;
	*ret = mix(dice->base + dice->thrown * GOLDEN);
	return !sim.setup->script || !script_has(*ret_key);
}

static void record_throw(uint64_t key)
{
	struct sim_course *record = sim.setup->record;

	if (!record)
		return;
	if (record->throw_count == SIM_THROWS_MAX)
		record->too_long = true;
	else
		record->throws[record->throw_count++] = key;
}

static uint64_t below(uint64_t value, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)value * n) >> 64);
}

static unsigned whose_dice(void)
{
	return sim.in_events || !sim.self ? DICE_EVENTS : sim.self->id;
}

uint64_t sim_random(uint64_t n)
{
	uint64_t key, value;

	if (n <= 1 || !throw_dice(whose_dice(), &key, &value))
		return 0;
	value = below(value, n);
	if (value)
		record_throw(key);
	return value;
}

bool sim_chance(unsigned per_mille)
{
	uint64_t key, value;

	if (!per_mille || !throw_dice(whose_dice(), &key, &value))
		return false;
	if (below(value, 1000) >= per_mille)
		return false;
	record_throw(key);
	return true;
}

uint64_t sim_linger(unsigned per_mille, unsigned octaves)
{
	uint64_t key, value;

	if (!throw_dice(DICE_STORES + sim.self->id, &key, &value))
		return 0;
	if (below(value, 1000) >= per_mille)
		return 0;
	record_throw(key);
	value = mix(value + GOLDEN);
	return 1 + below(value << 8, UINT64_C(1) << (value % octaves));
}

/* --------------------------------------------------------------- story -- */

void sim_note(uint64_t value)
{
	sim.hash = (sim.hash ^ value) * UINT64_C(1099511628211);
	sim.outcome->events++;
}

void sim_say(const char *format, ...)
{
	uint64_t ns = sim.now_ns - SIM_S;
	va_list args;

	printf("%8llu.%03llu us  %-10s ", (unsigned long long)(ns / 1000),
	       (unsigned long long)(ns % 1000),
	       sim.in_events ? "(kernel)" : sim.self ? sim.self->name : "(end)");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

const char *sim_result(int res)
{
	static char text[32];
	const char *name = res < 0 ? strerrorname_np(-res) : NULL;

	if (name)
		snprintf(text, sizeof(text), "-%s", name);
	else
		snprintf(text, sizeof(text), "%d", res);
	return text;
}

/* For whoever has to find out why. */
static void say_where_all_are(void)
{
	unsigned i;

	printf("\nwhere they are:\n");
	for (i = 0; i < sim.count; i++) {
		const struct sim_thread *thread = &sim.threads[i];

		printf("    %-10s %s %s\n", thread->name,
		       thread->state == ENDED ? "has ended" :
		       thread->state == BLOCKED ? "waits for" : "can run; was last at",
		       thread->state == ENDED ? "" :
		       thread->state == BLOCKED ? thread->why : thread->where);
	}
}

void sim_fail(const char *format, ...)
{
	struct sim_thread *self = sim.self;
	va_list args;

	va_start(args, format);
	vsnprintf(sim.outcome->reason, sizeof(sim.outcome->reason), format, args);
	va_end(args);
	sim_trace("FAILED: %s", sim.outcome->reason);
	if (sim_verbose)
		say_where_all_are();
	sim.outcome->failed = true;
	sim.outcome->oracle = format;
	if (!self)
		longjmp(sim.end, 1);
	sim.self = NULL;
	sim.alive = 0;
	gyre__fiber_switch(&self->fiber, &sim.home);	/* and never back */
	abort();
}

static void fail_blocked(void)
{
	char text[400] = "";
	size_t used = 0;
	unsigned i;

	for (i = 0; i < sim.count && used < sizeof(text); i++)
		if (sim.threads[i].state == BLOCKED)
			used += (size_t)snprintf(text + used, sizeof(text) - used,
						 "%s%s waits for %s", used ? "; " : "",
						 sim.threads[i].name, sim.threads[i].why);
	sim.outcome->blocked = sim.outcome->stuck = true;
	sim_fail("blocked for ever: %s", text);
}

/* ----------------------------------------------- what happens by itself -- */

uint64_t sim_now_ns(void)
{
	return sim.now_ns;
}

bool sim_large(void)
{
	return sim.setup->large;
}

static void make_runnable(struct sim_thread *thread)
{
	thread->state = RUNNABLE;
	thread->able_ns = sim.now_ns;
	sim.look = true;
}

static uint64_t earliest(void)
{
	uint64_t next_ns = sim.events->next_ns();
	unsigned i;

	if (sim_memory_next_ns() < next_ns)
		next_ns = sim_memory_next_ns();
	for (i = 0; i < sim.count; i++)
		if (sim.threads[i].state == BLOCKED && sim.threads[i].deadline_ns < next_ns)
			next_ns = sim.threads[i].deadline_ns;
	return next_ns;
}

/* All that is due: stores, completions, deadlines. */
static void run_events(void)
{
	unsigned i;

	if (sim_memory_next_ns() <= sim.now_ns)
		sim_memory_run(sim.now_ns);
	if (sim.events->next_ns() <= sim.now_ns) {
		sim.in_events = true;
		sim.events->run(sim.now_ns);
		sim.in_events = false;
	}
	for (i = 0; i < sim.count; i++) {
		struct sim_thread *thread = &sim.threads[i];

		if (thread->state == BLOCKED && thread->deadline_ns <= sim.now_ns) {
			thread->timed_out = true;
			make_runnable(thread);
		}
	}
	sim.next_ns = earliest();
}

/* At each step; what threads have started since may be due before next_ns says so. */
static void look_at_the_clock(void)
{
	if (sim.now_ns >= sim.next_ns || sim.now_ns >= sim_memory_next_ns() ||
	    sim.now_ns >= sim.events->next_ns())
		run_events();
}

void sim_pass_ns(uint64_t ns)
{
	sim.now_ns += ns;
	look_at_the_clock();
}

/* ----------------------------------------------------------- scheduler -- */

static struct sim_thread *pick(void)
{
	struct sim_thread *able[SIM_THREADS_MAX], *best = NULL, *kept = NULL;
	unsigned count = 0, i;

	for (i = 0; i < sim.count; i++) {
		struct sim_thread *thread = &sim.threads[i];

		if (thread->state != RUNNABLE)
			continue;
		able[count++] = thread;
		if (thread != sim.self && (!kept || thread->able_ns < kept->able_ns))
			kept = thread;
		if (!best || thread->priority > best->priority)
			best = thread;
	}
	if (sim.by_priority && kept && sim.now_ns - kept->able_ns > KEPT_NS) {
		kept->priority = ++sim.high;
		return kept;
	}
	if (count <= 1 || sim.by_priority)
		return best;
	return able[below(roll(), count)];
}

/* Whose turn it is where nobody has said anything: the next one's; NULL: nobody's. */
static struct sim_thread *next_in_turn(const struct sim_thread *self)
{
	unsigned i;

	for (i = 0; i < sim.count; i++) {
		struct sim_thread *thread = &sim.threads[(self->id + i) % sim.count];

		if (thread->state == RUNNABLE)
			return thread;
	}
	return NULL;
}

/* What the script says about this step of self's; NULL: nothing that can be. */
static struct sim_thread *scripted(struct sim_thread *self)
{
	const struct sim_course *script = sim.setup->script;
	uint32_t i;

	for (i = self->next_switch; i < script->switch_count; i++) {
		const struct sim_switch *entry = &script->switches[i];

		if (entry->thread != self->id || entry->at < self->steps)
			continue;
		self->next_switch = i;
		if (entry->at == self->steps && entry->to <= sim.count &&
		    sim.threads[entry->to - 1].state == RUNNABLE)
			return &sim.threads[entry->to - 1];
		return NULL;
	}
	self->next_switch = script->switch_count;
	return NULL;
}

static void record_switch(const struct sim_thread *self, const struct sim_thread *to)
{
	struct sim_course *record = sim.setup->record;

	if (!record)
		return;
	if (record->switch_count == SIM_SWITCHES_MAX)
		record->too_long = true;
	else
		record->switches[record->switch_count++] = (struct sim_switch){
			.at = self->steps, .thread = (uint16_t)self->id, .to = (uint16_t)to->id,
		};
}

/* self cannot or need not go on. */
static struct sim_thread *choose_next(struct sim_thread *self)
{
	struct sim_thread *next, *otherwise;

	look_at_the_clock();
	while (!next_in_turn(self)) {
		sim.next_ns = earliest();
		if (sim.next_ns == SIM_NEVER)
			fail_blocked();
		if (sim.next_ns > sim.now_ns)
			sim.now_ns = sim.next_ns;
		run_events();
	}
	otherwise = next_in_turn(self);
	next = sim.setup->script ? scripted(self) : pick();
	if (!next)
		next = otherwise;
	if (next != otherwise)
		record_switch(self, next);
	sim.look = false;
	return next;
}

static void switch_to(struct sim_thread *self, struct sim_thread *next)
{
	if (next == self)
		return;
	sim_note(next->id);
	if (sim_verbose)
		printf("                 -- %s goes on\n", next->name);
	sim_memory_switch(self, next);
	self->able_ns = sim.now_ns;
	sim.self = next;
	gyre__fiber_switch(&self->fiber, &next->fiber);
}

static void count_step(const char *where)
{
	struct sim_thread *self = sim.self;

	self->where = where;
	self->steps++;
	sim.now_ns += POINT_NS;
	if (sim_verbose > 1)
		sim_say("    %s", where);
	if (++sim.steps <= sim.steps_max)
		return;
	sim.outcome->stuck = true;
	sim_fail("nobody gets on: %llu steps, and still not done", (unsigned long long)sim.steps);
}

void sim_allow_steps(unsigned times)
{
	sim.steps_max *= times;
}

static bool change_point(void)
{
	unsigned i;

	for (i = 0; i < sim.changes; i++)
		if (sim.change_at[i] == sim.steps)
			return true;
	return false;
}

/* self could go on, but somebody else is to: who? NULL: nobody is. */
static struct sim_thread *preempted_by(struct sim_thread *self)
{
	struct sim_thread *next;

	if (sim.setup->script)
		return scripted(self);
	if (sim.by_priority) {
		if (change_point())
			self->priority = --sim.low;
		else if (!sim.look)
			return NULL;
	} else if ((roll() >> 32) & sim.switch_mask) {
		return NULL;
	}
	sim.look = false;
	next = pick();
	return next == self ? NULL : next;
}

void sim_step(const char *where)
{
	struct sim_thread *self = sim.self, *next;

	if (!self)
		return;
	count_step(where);
	look_at_the_clock();
	next = preempted_by(self);
	if (!next || next == self)
		return;
	record_switch(self, next);
	sim_trace("(is stopped before: %s)", where);
	switch_to(self, next);
}

void sim_point(const char *where)
{
	sim_step(where);
	sim_memory_drain();
}

void sim_relax(const char *where)
{
	struct sim_thread *self = sim.self;

	if (!self)
		return;
	count_step(where);
	self->priority = --sim.low;	/* else a spinner would keep out whom it waits for */
	switch_to(self, choose_next(self));
}

bool sim_block(const void *channel, const char *why, uint64_t deadline_ns)
{
	struct sim_thread *self = sim.self;

	sim_memory_drain();
	count_step(why);
	sim_trace("waits for %s", why);
	self->state = BLOCKED;
	self->channel = channel;
	self->why = why;
	self->deadline_ns = deadline_ns;
	self->timed_out = false;
	if (deadline_ns < sim.next_ns)
		sim.next_ns = deadline_ns;
	switch_to(self, choose_next(self));
	return self->timed_out;
}

void sim_wake(const void *channel)
{
	unsigned i;

	for (i = 0; i < sim.count; i++)
		if (sim.threads[i].state == BLOCKED && sim.threads[i].channel == channel)
			make_runnable(&sim.threads[i]);
}

/* ------------------------------------------------------------- threads -- */

static void thread_main(void *arg)
{
	struct sim_thread *self = arg, *next;

	self->fn(self->arg);
	if (self->pointer && self->at_exit) {
		void *value = self->pointer;

		self->pointer = NULL;
		self->at_exit(value);
	}
	sim_memory_drain();
	count_step("its end");
	sim_trace("ends");
	self->state = ENDED;
	sim_wake(self);
	if (--sim.alive == 0) {
		sim.self = NULL;
		gyre__fiber_exit_to(&self->fiber, &sim.home);
	}
	next = choose_next(self);
	sim_note(next->id);
	if (sim_verbose)
		printf("                 -- %s goes on\n", next->name);
	sim_memory_switch(self, next);
	sim.self = next;
	gyre__fiber_exit_to(&self->fiber, &next->fiber);
}

struct sim_thread *sim_spawn(const char *name, sim_fn *fn, void *arg)
{
	struct sim_thread *thread;
	void *stack;

	if (sim.count == SIM_THREADS_MAX)
		return NULL;
	sim_memory_drain();
	thread = &sim.threads[sim.count];
	stack = thread->stack;
	memset(thread, 0, sizeof(*thread));
	thread->stack = stack;
	thread->state = RUNNABLE;
	thread->id = ++sim.count;
	thread->priority = UINT32_MAX / 2 + 1 + (unsigned)below(roll(), PRIORITIES);
	thread->able_ns = sim.now_ns;
	thread->where = "its start";
	snprintf(thread->name, sizeof(thread->name), "%s", name);
	thread->fn = fn;
	thread->arg = arg;
	sim.alive++;
	sim.look = true;
	gyre__fiber_init(&thread->fiber, stack, STACK_BYTES, thread_main, thread);
	return thread;
}

void sim_join(struct sim_thread *thread)
{
	sim_memory_drain();
	while (thread->state != ENDED)
		sim_block(thread, "a thread's end", SIM_NEVER);
}

struct sim_thread *sim_self(void)
{
	return sim.self;
}

unsigned sim_thread_id(const struct sim_thread *thread)
{
	return thread->id;
}

const struct sim_thread *sim_thread_at(unsigned id)
{
	return &sim.threads[id - 1];
}

const char *sim_thread_name(const struct sim_thread *thread)
{
	return thread->name;
}

bool sim_on_a_stack(const volatile void *ptr)
{
	return (uintptr_t)ptr - (uintptr_t)stacks < (uintptr_t)SIM_THREADS_MAX * STACK_BYTES;
}

const char *sim_thread_waits_for(const struct sim_thread *thread)
{
	return thread->state == BLOCKED ? thread->why : NULL;
}

unsigned sim_thread_count(void)
{
	return sim.count;
}

void *sim_pointer_get(void)
{
	return sim.self ? sim.self->pointer : NULL;
}

void sim_pointer_set(void *value, void (*at_exit)(void *value))
{
	sim.self->pointer = value;
	sim.self->at_exit = at_exit;
}

/* ----------------------------------------------------------------- run -- */

void sim_prepare(void)
{
	unsigned i;

	stacks = malloc((size_t)SIM_THREADS_MAX * STACK_BYTES);
	if (!stacks)
		abort();
	for (i = 0; i < SIM_THREADS_MAX; i++)
		sim.threads[i].stack = stacks + (size_t)i * STACK_BYTES;
	sim_memory_prepare();
}

/* Some seeds walk by chance, others by priorities that change a few times (PCT). */
static void choose_strategy(void)
{
	bool large = sim.setup->large;
	unsigned i;

	sim.by_priority = below(roll(), 1000) < 350;
	sim.switch_mask = (2u << below(roll(), 5)) - 1;
	sim.low = UINT32_MAX / 2;
	sim.high = sim.low + 1 + PRIORITIES;
	sim.changes = (unsigned)below(roll(), (large ? CHANGES_MAX : CHANGES_MAX / 2) + 1);
	for (i = 0; i < CHANGES_MAX; i++)
		sim.change_at[i] = 1 + below(roll(), UINT64_C(64) << below(roll(), large ? 11 : 7));
}

static void say_strategy(void)
{
	unsigned i;

	printf("memory: %s", sim_memory_name());
	if (sim_memory_longest_ns())
		printf(", stores linger for up to %llu ns",
		       (unsigned long long)sim_memory_longest_ns());
	printf("\nscheduler: ");
	if (sim.setup->script)
		printf("by script, %u switches, %u throws set to zero\n",
		       sim.setup->script->switch_count, sim.setup->script->throw_count);
	else if (!sim.by_priority)
		printf("by chance, 1 point in %u lets another thread run\n", sim.switch_mask + 1);
	else
		printf("by priority, which the running thread loses at %u steps:", sim.changes);
	for (i = 0; sim.by_priority && !sim.setup->script && i < sim.changes; i++)
		printf(" %llu", (unsigned long long)sim.change_at[i]);
	printf("\n");
}

static void sim_begin(const struct sim_setup *setup, const struct sim_events *events,
		      struct sim_outcome *outcome)
{
	unsigned i;

	memset(outcome, 0, sizeof(*outcome));
	sim.outcome = outcome;
	sim.setup = setup;
	for (i = 0; i < DICE_COUNT; i++)
		sim.dice[i] = (struct dice){
			.base = mix(setup->seed + (i + 2) * UINT64_C(0xd1342543de82ef95)),
		};
	sim.course = mix(setup->seed + GOLDEN);
	sim.count = sim.alive = 0;
	sim.self = NULL;
	sim.in_events = sim.look = false;
	sim.now_ns = SIM_S;
	sim.next_ns = SIM_NEVER;
	sim.steps = 0;
	sim.steps_max = setup->large ? STEPS_LARGE : STEPS_SMALL;
	sim.hash = UINT64_C(14695981039346656037);
	sim_verbose = setup->verbose;
	sim.events = events;
	sim_memory_begin(setup->memory, mix(setup->seed ^ UINT64_C(0x6d656d6f7279)));
	choose_strategy();
	if (setup->record)
		setup->record->switch_count = setup->record->throw_count = 0;
	if (setup->record)
		setup->record->too_long = false;
	if (sim_verbose)
		say_strategy();
}

void sim_run(const struct sim_setup *setup, const struct sim_events *events, sim_fn *fn, void *arg,
	     void (*finish)(void), struct sim_outcome *ret)
{
	unsigned i;

	sim_begin(setup, events, ret);
	gyre__fiber_init_thread(&sim.home);
	sim.self = sim_spawn("main", fn, arg);
	gyre__fiber_switch(&sim.home, &sim.threads[0].fiber);
	sim.self = NULL;
	if (!ret->failed && setjmp(sim.end) == 0)
		finish();
	for (i = 0; i < sim.count; i++)
		gyre__fiber_done(&sim.threads[i].fiber);
	gyre__fiber_done(&sim.home);
	sim_note(sim.now_ns);
	ret->hash = sim.hash;
	ret->steps = sim.steps;
}
