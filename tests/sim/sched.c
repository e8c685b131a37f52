/* SPDX-License-Identifier: MIT */
#include "sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/fiber.h"

#define THREADS_MAX	16
#define STACK_BYTES	(128 * 1024)
#define STEPS_MAX	UINT64_C(400000)	/* a seed takes a few thousand: past this nobody gets on */
#define POINT_NS	20
#define CHANGES_MAX	4			/* priority change points of a seed */

enum thread_state { UNUSED, RUNNABLE, BLOCKED, ENDED };

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
	uint64_t deadline_ns;
	bool timed_out;
	void *pointer;
	void (*at_exit)(void *value);
};

static struct {
	struct sim_thread threads[THREADS_MAX];
	unsigned count, alive;
	struct sim_thread *self;
	struct gyre__fiber home;
	jmp_buf end;
	uint64_t random[2];
	uint64_t now_ns, next_event_ns;
	uint64_t steps;
	uint64_t hash;
	bool verbose;
	bool by_priority;
	unsigned switch_mask;		/* 2^n - 1: one point in 2^n switches, where chance rules */
	uint64_t change_at[CHANGES_MAX];
	unsigned changes, low;
	const struct sim_events *events;
	struct sim_outcome *outcome;
} sim;

/* ---------------------------------------------------------------- dice -- */

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* xoroshiro128+ */
static uint64_t roll(void)
{
	uint64_t a = sim.random[0], b = sim.random[1], result = a + b;

	b ^= a;
	sim.random[0] = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
	sim.random[1] = (b << 37) | (b >> 27);
	return result;
}

uint64_t sim_random(uint64_t n)
{
	return n ? (uint64_t)(((unsigned __int128)roll() * n) >> 64) : 0;
}

bool sim_chance(unsigned per_mille)
{
	return per_mille && sim_random(1000) < per_mille;
}

/* --------------------------------------------------------------- story -- */

void sim_note(uint64_t value)
{
	sim.hash = (sim.hash ^ value) * UINT64_C(1099511628211);
}

bool sim_verbose(void)
{
	return sim.verbose;
}

void sim_say(const char *format, ...)
{
	va_list args;

	printf("%10llu.%03llu us  %-10s ", (unsigned long long)(sim.now_ns / 1000),
	       (unsigned long long)(sim.now_ns % 1000), sim.self ? sim.self->name : "-");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

void sim_fail(const char *format, ...)
{
	struct sim_thread *self = sim.self;
	va_list args;

	va_start(args, format);
	vsnprintf(sim.outcome->reason, sizeof(sim.outcome->reason), format, args);
	va_end(args);
	sim_trace("FAILED: %s", sim.outcome->reason);
	sim.outcome->failed = true;
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
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s waits for %s",
						 used ? "; " : "", sim.threads[i].name,
						 sim.threads[i].why);
	sim_fail("blocked for ever: %s", text);
}

/* ----------------------------------------------------------- scheduler -- */

uint64_t sim_now_ns(void)
{
	return sim.now_ns;
}

/* Kernel events that are due happen between two steps of the threads. */
static void run_events(void)
{
	if (sim.next_event_ns <= sim.now_ns)
		sim.events->run(sim.now_ns);
	sim.next_event_ns = sim.events->next_ns();
}

void sim_pass_ns(uint64_t ns)
{
	sim.now_ns += ns;
	if (sim.events->next_ns() <= sim.now_ns)
		sim.events->run(sim.now_ns);
	sim.next_event_ns = sim.events->next_ns();
}

static bool can_run(struct sim_thread *thread)
{
	if (thread->state == BLOCKED && thread->deadline_ns <= sim.now_ns) {
		thread->timed_out = true;
		thread->state = RUNNABLE;
	}
	return thread->state == RUNNABLE;
}

static struct sim_thread *pick(void)
{
	struct sim_thread *able[THREADS_MAX], *best = NULL;
	unsigned count = 0, i;

	for (i = 0; i < sim.count; i++) {
		struct sim_thread *thread = &sim.threads[i];

		if (!can_run(thread))
			continue;
		able[count++] = thread;
		if (!best || thread->priority > best->priority)
			best = thread;
	}
	if (count <= 1 || sim.by_priority)
		return best;
	return able[sim_random(count)];
}

/* Nobody can run: on to the next thing that happens by itself. */
static void jump(void)
{
	uint64_t next_ns = sim.events->next_ns();
	unsigned i;

	for (i = 0; i < sim.count; i++)
		if (sim.threads[i].state == BLOCKED && sim.threads[i].deadline_ns < next_ns)
			next_ns = sim.threads[i].deadline_ns;
	if (next_ns == SIM_NEVER)
		fail_blocked();
	if (next_ns > sim.now_ns)
		sim.now_ns = next_ns;
}

static struct sim_thread *choose_next(void)
{
	struct sim_thread *next;

	run_events();
	while (!(next = pick())) {
		jump();
		run_events();
	}
	return next;
}

static void switch_from(struct sim_thread *self, const char *where)
{
	struct sim_thread *next = choose_next();

	if (next == self)
		return;
	sim_note(next->id);
	sim_trace("(%s goes on; %s stops before: %s)", next->name, self->name, where);
	sim.self = next;
	gyre__fiber_switch(&self->fiber, &next->fiber);
}

static void count_step(void)
{
	sim.now_ns += POINT_NS;
	if (++sim.steps > STEPS_MAX)
		sim_fail("nobody gets on: %llu steps, and still not done",
			 (unsigned long long)sim.steps);
}

static bool change_point(void)
{
	unsigned i;

	for (i = 0; i < sim.changes; i++)
		if (sim.change_at[i] == sim.steps)
			return true;
	return false;
}

void sim_point(const char *where)
{
	struct sim_thread *self = sim.self;

	if (!self)
		return;
	count_step();
	if (sim.by_priority) {
		if (change_point())
			self->priority = --sim.low;
		else if (sim.now_ns < sim.next_event_ns && (sim.steps & 15) != 0)
			return;
	} else if ((roll() >> 32) & sim.switch_mask) {
		if (sim.now_ns >= sim.next_event_ns)
			run_events();
		return;
	}
	switch_from(self, where);
}

void sim_relax(const char *where)
{
	struct sim_thread *self = sim.self;

	if (!self)
		return;
	count_step();
	self->priority = --sim.low;	/* else a spinner would keep out whom it waits for */
	switch_from(self, where);
}

bool sim_block(const void *channel, const char *why, uint64_t deadline_ns)
{
	struct sim_thread *self = sim.self;

	count_step();
	self->state = BLOCKED;
	self->channel = channel;
	self->why = why;
	self->deadline_ns = deadline_ns;
	self->timed_out = false;
	switch_from(self, why);
	return self->timed_out;
}

void sim_wake(const void *channel)
{
	unsigned i;

	for (i = 0; i < sim.count; i++)
		if (sim.threads[i].state == BLOCKED && sim.threads[i].channel == channel)
			sim.threads[i].state = RUNNABLE;
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
	sim_trace("ends");
	self->state = ENDED;
	sim_wake(self);
	if (--sim.alive == 0) {
		sim.self = NULL;
		gyre__fiber_exit_to(&self->fiber, &sim.home);
	}
	next = choose_next();
	sim_note(next->id);
	sim.self = next;
	gyre__fiber_exit_to(&self->fiber, &next->fiber);
}

struct sim_thread *sim_spawn(const char *name, sim_fn *fn, void *arg)
{
	struct sim_thread *thread;
	void *stack;

	if (sim.count == THREADS_MAX)
		return NULL;
	thread = &sim.threads[sim.count];
	stack = thread->stack;
	memset(thread, 0, sizeof(*thread));
	thread->stack = stack;
	thread->state = RUNNABLE;
	thread->id = ++sim.count;
	thread->priority = UINT32_MAX / 2 + 1 + (unsigned)sim_random(1u << 20);
	snprintf(thread->name, sizeof(thread->name), "%s", name);
	thread->fn = fn;
	thread->arg = arg;
	sim.alive++;
	gyre__fiber_init(&thread->fiber, stack, STACK_BYTES, thread_main, thread);
	return thread;
}

void sim_join(struct sim_thread *thread)
{
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

	for (i = 0; i < THREADS_MAX; i++) {
		sim.threads[i].stack = malloc(STACK_BYTES);
		if (!sim.threads[i].stack)
			abort();
	}
}

static void sim_begin(uint64_t seed, bool verbose, const struct sim_events *events,
		      struct sim_outcome *outcome)
{
	uint64_t state = seed;
	unsigned i;

	memset(outcome, 0, sizeof(*outcome));
	sim.outcome = outcome;
	sim.random[0] = splitmix(&state);
	sim.random[1] = splitmix(&state) | 1;
	sim.count = sim.alive = 0;
	sim.self = NULL;
	sim.now_ns = SIM_S;
	sim.next_event_ns = SIM_NEVER;
	sim.steps = 0;
	sim.hash = UINT64_C(14695981039346656037);
	sim.verbose = verbose;
	sim.events = events;
	sim.low = UINT32_MAX / 2;
	sim.by_priority = sim_chance(300);
	sim.switch_mask = (2u << sim_random(4)) - 1;
	sim.changes = (unsigned)sim_random(CHANGES_MAX + 1);
	for (i = 0; i < sim.changes; i++)
		sim.change_at[i] = sim_random(3000);
}

void sim_run(uint64_t seed, bool verbose, const struct sim_events *events, sim_fn *fn, void *arg,
	     void (*finish)(void), struct sim_outcome *ret)
{
	unsigned i;

	sim_begin(seed, verbose, events, ret);
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
