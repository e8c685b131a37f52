/* SPDX-License-Identifier: MIT */
/*
 * A simulated machine's threads, clock and dice.
 *
 * Threads are fibers in one thread of this process: at each point at which a
 * real machine could switch (every atomic, every call into the kernel) the
 * seeded scheduler says who goes on. The clock is virtual: it moves a little at
 * each point, and jumps to the next event when nobody can run. What happens is
 * a function of the seed and of nothing else.
 *
 * Everything that was decided has a name: a switch is "thread 2 at its 40th
 * step, to thread 3", a throw of the dice is "thread 2's 17th". A run can be
 * recorded by these names, and be run again from a script of them, with some
 * left out: that is how a failing run is shrunk (shrink.c).
 */
#ifndef GYRE_SIM_SCHED_H
#define GYRE_SIM_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_NEVER	UINT64_MAX
#define SIM_US		UINT64_C(1000)
#define SIM_MS		UINT64_C(1000000)
#define SIM_S		UINT64_C(1000000000)

struct sim_thread;
typedef void sim_fn(void *arg);

/* What moves without any thread: the kernel's completions. */
struct sim_events {
	uint64_t (*next_ns)(void);	/* SIM_NEVER: nothing is due */
	void (*run)(uint64_t now_ns);	/* what is due; may wake threads, never blocks */
};

struct sim_outcome {
	bool failed;
	bool blocked;		/* it failed as nobody could go on */
	bool stuck;		/* that, or nobody got on */
	const char *oracle;	/* which check failed: the same text for the same check */
	char reason[512];
	uint64_t hash;		/* of everything that was decided and done: equal for equal seeds */
	uint64_t steps;
	uint64_t events;	/* noted in the hash: what makes a trace long */
};

/* What a machine may do with a store: see memory.c. */
enum sim_memory { SIM_MEMORY_BY_SEED, SIM_SC, SIM_TSO, SIM_PSO };

/* thread goes no further than its own step number at: to goes on. */
struct sim_switch {
	uint32_t at;
	uint16_t thread, to;
};

#define SIM_SWITCHES_MAX	(1u << 17)
#define SIM_THROWS_MAX		(1u << 18)

/* What was decided, or what is to be: switches in their order, and throws of the dice. */
struct sim_course {
	uint32_t switch_count, throw_count;
	bool too_long;				/* more than there is room for */
	struct sim_switch switches[SIM_SWITCHES_MAX];
	/* Recorded: those that fell on anything but zero. In a script: those that are to. */
	uint64_t throws[SIM_THROWS_MAX];
};

struct sim_setup {
	uint64_t seed;
	enum sim_memory memory;
	bool large;			/* more of everything */
	unsigned verbose;		/* 1: tells the story on stdout; 2: each step of it */
	const struct sim_course *script;	/* NULL: the seed decides */
	struct sim_course *record;		/* NULL: nobody wants to know */
};

/* Once, before all: memory that is kept between runs. */
void sim_prepare(void);

/*
 * Runs fn(arg) as thread 1 and whatever it starts, until all have ended;
 * then finish(), outside of any thread.
 */
void sim_run(const struct sim_setup *setup, const struct sim_events *events, sim_fn *fn, void *arg,
	     void (*finish)(void), struct sim_outcome *ret);

/* The size of this run: what a scenario or the kernel has so many of. */
bool sim_large(void);

/* The dice: [0, n); and true in so many of 1000. Zero and false are the simplest of worlds. */
uint64_t sim_random(uint64_t n);
bool sim_chance(unsigned per_mille);
/* So many of 1000 stores linger: for 1 to 2^octaves; the others for 0. */
uint64_t sim_linger(unsigned per_mille, unsigned octaves);

/* This run may take so many times as long as others before it is said that nobody gets on. */
void sim_allow_steps(unsigned times);

uint64_t sim_now_ns(void);
void sim_pass_ns(uint64_t ns);

/* A point at which another thread may be let run; where: for the reader of the trace. */
void sim_step(const char *where);
/* The same for a call into the kernel, or a lock: before it, all that was stored is seen by all. */
void sim_point(const char *where);
/* The same for somebody who has nothing better to do: others come first. */
void sim_relax(const char *where);

/* Waits until somebody wakes the channel; true: the deadline came first. */
bool sim_block(const void *channel, const char *why, uint64_t deadline_ns);
void sim_wake(const void *channel);

/* NULL: too many. The name is copied. */
struct sim_thread *sim_spawn(const char *name, sim_fn *fn, void *arg);
void sim_join(struct sim_thread *thread);
struct sim_thread *sim_self(void);
unsigned sim_thread_id(const struct sim_thread *thread);
const struct sim_thread *sim_thread_at(unsigned id);
const char *sim_thread_name(const struct sim_thread *thread);
unsigned sim_thread_count(void);
bool sim_on_a_stack(const volatile void *ptr);
/* What it is blocked in, in the words of sim_block(); NULL: it is not. */
const char *sim_thread_waits_for(const struct sim_thread *thread);
/* The thread's one pointer, and what is done with it at the thread's end. */
void *sim_pointer_get(void);
void sim_pointer_set(void *value, void (*at_exit)(void *value));

/* The seed has failed: ends the run, from whatever depth. */
__attribute__((__noreturn__, __format__(__printf__, 1, 2)))
void sim_fail(const char *format, ...);

/* Notes an event in the hash, and where somebody reads along, in words. */
void sim_note(uint64_t value);
extern unsigned sim_verbose;
__attribute__((__format__(__printf__, 1, 2)))
void sim_say(const char *format, ...);
const char *sim_result(int res);	/* a number, or an errno's name: good until the next */
#define sim_trace(...) \
	do { \
		if (__builtin_expect(sim_verbose, 0)) \
			sim_say(__VA_ARGS__); \
	} while (0)

#endif
