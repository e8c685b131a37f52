/* SPDX-License-Identifier: MIT */
/*
 * A fiber: a stack of its own, and the place where its function goes on.
 *
 * Switching is a call: what a call keeps, a switch keeps (callee-saved
 * registers, the control words of the floating-point units), and no more. errno,
 * the signal mask and thread-locals are the thread's, shared by all its fibers.
 *
 * A fiber belongs to the thread that first switches to it and never leaves it.
 * Any fiber may start others and switch to any that does not run. Fibers nest:
 * inside a fiber, gyre__fiber_init_thread() names the stack that runs just
 * then, and whoever switches away from an outer fiber while an inner one runs
 * comes back to the inner one.
 */
#ifndef GYRE_WORKERS_FIBER_H
#define GYRE_WORKERS_FIBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Enough to start and to switch; what fn needs comes on top. */
#define GYRE__FIBER_STACK_MIN	8192

/* Must never return: its last act is a gyre__fiber_exit_to(). */
typedef void gyre__fiber_fn(void *arg);

/*
 * Embedded by its users, read by fiber.c and the assembly only. The same layout
 * in every build, so that no object file can disagree with another about it.
 */
struct gyre__fiber {
	/* While it does not run: its registers lie there; comes first. */
	void *sp;
	void *stack;			/* NULL: a thread's own */
	size_t size;
	gyre__fiber_fn *fn;
	void *arg;
	unsigned valgrind_id;
	struct {			/* written in sanitizer builds only */
		struct gyre__fiber *before;	/* who switched to this one */
		const void *stack;	/* ASan: what it was last left on, perhaps an inner one's */
		size_t size;
		void *fake_stack;
		void *tsan;		/* TSan: what ran when it was last left */
		void *tsan_own;		/* made by init, to be destroyed by done */
	} told;
};

/* The control words of the floating-point units, as far as a switch keeps them. */
struct gyre__fiber_control {
	uint32_t word[2];		/* x86-64: of SSE, of x87; aarch64: both are one */
};

/* The caller's. False: only a fiber that is made by the caller itself has them. */
static inline bool gyre__fiber_control_get(struct gyre__fiber_control *control)
{
#if defined(GYRE_FIBER_UCONTEXT) || !defined(__LP64__)
	control->word[0] = control->word[1] = 0;
	return false;
#elif defined(__x86_64__)
	__asm__("stmxcsr %0" : "=m"(control->word[0]));
	__asm__("fnstcw %0" : "=m"(control->word[1]));
	return true;
#elif defined(__aarch64__)
	uint64_t fpcr;

	__asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
	control->word[0] = (uint32_t)fpcr;
	control->word[1] = (uint32_t)(fpcr >> 32);
	return true;
#else
	control->word[0] = control->word[1] = 0;
	return false;
#endif
}

/*
 * A fiber that will run fn(arg) on [stack, stack + size) when it is first
 * switched to; size is at least GYRE__FIBER_STACK_MIN. It starts with the
 * floating-point control words of whoever calls this. Any thread.
 */
void gyre__fiber_init(struct gyre__fiber *fiber, void *stack, size_t size, gyre__fiber_fn *fn,
		      void *arg);

/* The same, but for the control words, which are what these were. */
void gyre__fiber_init_with(struct gyre__fiber *fiber, void *stack, size_t size,
			   gyre__fiber_fn *fn, void *arg,
			   const struct gyre__fiber_control *control);

/*
 * Who runs on from's stack goes on there as to, which has not been made, with these
 * control words: from is finished, without gyre__fiber_done().
 */
void gyre__fiber_follow(struct gyre__fiber *from, struct gyre__fiber *to,
			const struct gyre__fiber_control *control);

/*
 * Makes the calling thread's own stack a fiber, so that it can be switched from
 * and back to.
 */
void gyre__fiber_init_thread(struct gyre__fiber *fiber);

/* From the running fiber to another one. Returns when somebody switches back. */
void gyre__fiber_switch(struct gyre__fiber *from, struct gyre__fiber *to);

/*
 * The same for good: from is finished, its stack and its structure may be
 * reused once to runs. It does not return, but is not declared so: it would have
 * to be called then, where otherwise a jump does, and a call without its return
 * makes the CPU guess wrongly at each of those that follow in whoever goes on.
 */
void gyre__fiber_exit_to(struct gyre__fiber *from, struct gyre__fiber *to);

/*
 * Frees what sanitizers keep. The fiber does not run: it has exited, has never
 * been switched to, or is abandoned where it stands. Before its stack is given
 * back to where it came from.
 */
void gyre__fiber_done(struct gyre__fiber *fiber);

#endif
