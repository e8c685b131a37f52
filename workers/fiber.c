/* SPDX-License-Identifier: MIT */
/*
 * Three ways to switch stacks: fiber_x86_64.S, fiber_aarch64.S, and ucontext
 * for every other CPU. What they have in common is that a fiber that does not
 * run has its registers on top of its own stack, and fiber->sp points there.
 *
 * ucontext enters the kernel twice a switch for the signal mask. It is the
 * fallback for all that, not setjmp(), as it alone is sure to keep the control
 * words of a floating-point unit that this file has never heard of.
 * -DGYRE_FIBER_UCONTEXT, given to every file of a build, asks for it on any CPU.
 *
 * The rest of this file tells those who follow a program by its stack: ASan
 * learns of each switch before and after it, TSan right before it, valgrind of
 * each stack. Between telling and switching no call may begin or end: TSan would
 * count it for the wrong fiber. Hence ALWAYS_INLINE.
 */
#include "fiber.h"

#include "ring/sys.h"

#if defined(GYRE_FIBER_UCONTEXT) || !defined(__LP64__)
#define FIBER_UCONTEXT 1
#elif defined(__x86_64__)
#define FIBER_X86_64 1
#elif defined(__aarch64__)
#define FIBER_AARCH64 1
#else
#define FIBER_UCONTEXT 1
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define FIBER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#elif __has_feature(thread_sanitizer)
#define FIBER_TSAN 1
#endif
#endif

#ifdef FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef FIBER_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#endif
#ifdef FIBER_UCONTEXT
#include <ucontext.h>
#endif

#define FIBER_ALIGN	16	/* of the stack pointer, as each of the ABIs wants it */
#define ALWAYS_INLINE	inline __attribute__((__always_inline__))

/* ------------------------------------------------------ who wants to know -- */

#if defined(FIBER_ASAN)

static ALWAYS_INLINE void tell_init(struct gyre__fiber *fiber)
{
	fiber->told.stack = fiber->stack;
	fiber->told.size = fiber->size;
	fiber->told.fake_stack = NULL;
	/* What ran here before and never returned has left its frames poisoned. */
	if (fiber->stack)
		__asan_unpoison_memory_region(fiber->stack, fiber->size);
}

static ALWAYS_INLINE void tell_done(struct gyre__fiber *fiber)
{
	if (fiber->stack)
		__asan_unpoison_memory_region(fiber->stack, fiber->size);
}

static ALWAYS_INLINE void tell_leave(struct gyre__fiber *from, struct gyre__fiber *to,
				     void **ret_fake_stack)
{
	to->told.before = from;
	__sanitizer_start_switch_fiber(ret_fake_stack, to->told.stack, to->told.size);
}

/*
 * ASan says what was left by the switch that ends here: for a thread's own
 * stack the only cheap way to know, and the only right one where fibers nest.
 */
static ALWAYS_INLINE void tell_arrived(struct gyre__fiber *fiber)
{
	struct gyre__fiber *before = fiber->told.before;

	__sanitizer_finish_switch_fiber(fiber->told.fake_stack, &before->told.stack,
					&before->told.size);
}

#elif defined(FIBER_TSAN)

static ALWAYS_INLINE void tell_init(struct gyre__fiber *fiber)
{
	fiber->told.tsan_own = fiber->stack ? __tsan_create_fiber(0) : NULL;
	fiber->told.tsan = fiber->told.tsan_own;
}

static ALWAYS_INLINE void tell_done(struct gyre__fiber *fiber)
{
	if (fiber->told.tsan_own)
		__tsan_destroy_fiber(fiber->told.tsan_own);
	fiber->told.tsan_own = NULL;
}

/* Flags of 0: what from has done happened before what to does. */
static ALWAYS_INLINE void tell_leave(struct gyre__fiber *from, struct gyre__fiber *to,
				     void **ret_fake_stack)
{
	(void)ret_fake_stack;
	from->told.tsan = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(to->told.tsan, 0);
}

static ALWAYS_INLINE void tell_arrived(struct gyre__fiber *fiber)
{
	(void)fiber;
}

#else

static ALWAYS_INLINE void tell_init(struct gyre__fiber *fiber)
{
	(void)fiber;
}

static ALWAYS_INLINE void tell_done(struct gyre__fiber *fiber)
{
	(void)fiber;
}

static ALWAYS_INLINE void tell_leave(struct gyre__fiber *from, struct gyre__fiber *to,
				     void **ret_fake_stack)
{
	(void)from;
	(void)to;
	(void)ret_fake_stack;
}

static ALWAYS_INLINE void tell_arrived(struct gyre__fiber *fiber)
{
	(void)fiber;
}

#endif

/*
 * To ask valgrind takes as long as a switch does, and the answer never changes: it
 * is asked for once, before there are threads. No atomic: the simulator switches
 * threads at each of those, and a fiber that is being made cannot be switched to.
 */
#ifdef HAVE_VALGRIND_VALGRIND_H
static bool under_valgrind;

static void look_for_valgrind(void) __attribute__((__constructor__));
static void look_for_valgrind(void)
{
	under_valgrind = RUNNING_ON_VALGRIND != 0;
}
#endif

static ALWAYS_INLINE void tell_valgrind_init(struct gyre__fiber *fiber)
{
#ifdef HAVE_VALGRIND_VALGRIND_H
	if (gyre__unlikely(under_valgrind))
		fiber->valgrind_id = VALGRIND_STACK_REGISTER(fiber->stack,
							     (char *)fiber->stack +
							     fiber->size);
#else
	(void)fiber;
#endif
}

static ALWAYS_INLINE void tell_valgrind_done(struct gyre__fiber *fiber)
{
#ifdef HAVE_VALGRIND_VALGRIND_H
	if (gyre__unlikely(under_valgrind) && fiber->stack)
		VALGRIND_STACK_DEREGISTER(fiber->valgrind_id);
#else
	(void)fiber;
#endif
}

/* Does any of them follow just now? Else only sp is ever read of a fiber that has begun. */
static ALWAYS_INLINE bool is_told(void)
{
#if defined(FIBER_ASAN) || defined(FIBER_TSAN)
	return true;
#elif defined(HAVE_VALGRIND_VALGRIND_H)
	return gyre__unlikely(under_valgrind);
#else
	return false;
#endif
}

/* --------------------------------------------------------- the first step -- */

/*
 * The first frame of every fiber, entered by its first switch. Should fn return,
 * the process ends in an instruction that is none.
 */
static void fiber_main(struct gyre__fiber *fiber)
{
	tell_arrived(fiber);
	fiber->fn(fiber->arg);
}

#ifndef FIBER_UCONTEXT
/* Saves what a call keeps, *ret_sp being where, and goes on with what lies at sp. */
void gyre__fiber_swap(void **ret_sp, void *sp);

/* The same without saving anything: what runs is left for good. */
void gyre__fiber_resume(void *sp);

/* Where the first switch to a fiber leads: calls the function that first_frame names. */
void gyre__fiber_begin(void);

static ALWAYS_INLINE void swap(struct gyre__fiber *from, struct gyre__fiber *to)
{
	gyre__fiber_swap(&from->sp, to->sp);
}

static ALWAYS_INLINE void leave(struct gyre__fiber *from, struct gyre__fiber *to)
{
	(void)from;
	gyre__fiber_resume(to->sp);
}
#endif

#if defined(FIBER_X86_64)

/* As gyre__fiber_swap() pushes them. */
struct first_frame {
	uint32_t mxcsr;
	uint16_t x87_control;
	uint16_t unused;
	uint64_t r15;
	uint64_t r14;
	uint64_t r13;
	struct gyre__fiber *r12;		/* handed to rbx */
	void (*rbx)(struct gyre__fiber *fiber);
	uint64_t rbp;				/* 0: the chain of frames ends here */
	void (*rip)(void);
};
_Static_assert(sizeof(struct first_frame) == 64, "fiber_x86_64.S knows this layout");

static void make_first_frame(struct gyre__fiber *fiber, char *top,
			     const struct gyre__fiber_control *control)
{
	struct first_frame *frame = (void *)(top - sizeof(*frame));

	*frame = (struct first_frame){
		.mxcsr = control->word[0],
		.x87_control = (uint16_t)control->word[1],
		.r12 = fiber,
		.rbx = fiber_main,
		.rip = gyre__fiber_begin,
	};
	fiber->sp = frame;
}

static ALWAYS_INLINE void load_control(const struct gyre__fiber_control *control)
{
	__asm__ volatile("ldmxcsr %0" : : "m"(control->word[0]));
	__asm__ volatile("fldcw %0" : : "m"(control->word[1]));
}

#elif defined(FIBER_AARCH64)

/* As gyre__fiber_swap() stores them. */
struct first_frame {
	struct gyre__fiber *x19;		/* handed to x20 */
	void (*x20)(struct gyre__fiber *fiber);
	uint64_t x21_to_x28[8];
	uint64_t x29;				/* 0: the chain of frames ends here */
	uint64_t x30;
	uint64_t d8_to_d15[8];
	uint64_t fpcr;
	uint64_t unused;
};
_Static_assert(sizeof(struct first_frame) == 176, "fiber_aarch64.S knows this layout");

/*
 * An address to return to, signed for a frame whose stack pointer was top, as
 * gyre__fiber_swap() will authenticate it. A no-op where the CPU signs nothing.
 */
static uint64_t signed_for(void (*fn)(void), char *top)
{
	register uint64_t address __asm__("x17") = (uintptr_t)fn;
	register uint64_t modifier __asm__("x16") = (uintptr_t)top;

	__asm__("hint #8" : "+r"(address) : "r"(modifier));	/* pacia1716 */
	return address;
}

static uint64_t fpcr_of(const struct gyre__fiber_control *control)
{
	return control->word[0] | (uint64_t)control->word[1] << 32;
}

static void make_first_frame(struct gyre__fiber *fiber, char *top,
			     const struct gyre__fiber_control *control)
{
	struct first_frame *frame = (void *)(top - sizeof(*frame));

	*frame = (struct first_frame){
		.x19 = fiber,
		.x20 = fiber_main,
		.x30 = signed_for(gyre__fiber_begin, top),
		.fpcr = fpcr_of(control),
	};
	fiber->sp = frame;
}

static ALWAYS_INLINE void load_control(const struct gyre__fiber_control *control)
{
	__asm__ volatile("msr fpcr, %0" : : "r"(fpcr_of(control)));
}

#else

static ALWAYS_INLINE void swap(struct gyre__fiber *from, struct gyre__fiber *to)
{
	ucontext_t here;
	int rc;

	from->sp = &here;
	rc = swapcontext(&here, to->sp);
	GYRE_ASSERT(rc == 0);
}

static ALWAYS_INLINE void leave(struct gyre__fiber *from, struct gyre__fiber *to)
{
	(void)from;
	setcontext(to->sp);
}

/* makecontext() hands on nothing wider than int. */
static void begin(unsigned high, unsigned low)
{
	fiber_main((void *)(uintptr_t)((uint64_t)high << 32 | low));
	__builtin_trap();
}

/* A context has them, of whoever made it. */
static ALWAYS_INLINE void load_control(const struct gyre__fiber_control *control)
{
	(void)control;
}

static void make_first_frame(struct gyre__fiber *fiber, char *top,
			     const struct gyre__fiber_control *control)
{
	ucontext_t *context = (void *)((uintptr_t)(top - sizeof(*context)) &
				       -(uintptr_t)FIBER_ALIGN);
	uint64_t address = (uintptr_t)fiber;
	int rc;

	(void)control;
	GYRE_ASSERT((char *)context - (char *)fiber->stack >= GYRE__FIBER_STACK_MIN / 4);
	rc = getcontext(context);
	GYRE_ASSERT(rc == 0);
	context->uc_stack.ss_sp = fiber->stack;
	context->uc_stack.ss_size = (size_t)((char *)context - (char *)fiber->stack);
	context->uc_link = NULL;
	makecontext(context, (void (*)(void))begin, 2, (unsigned)(address >> 32),
		    (unsigned)address);
	fiber->sp = context;
}

#endif

/* --------------------------------------------------------------- the rest -- */

void gyre__fiber_init_with(struct gyre__fiber *fiber, void *stack, size_t size,
			   gyre__fiber_fn *fn, void *arg,
			   const struct gyre__fiber_control *control)
{
	uintptr_t top = ((uintptr_t)stack + size) & -(uintptr_t)FIBER_ALIGN;

	GYRE_ASSERT(stack);
	GYRE_ASSERT(size >= GYRE__FIBER_STACK_MIN);
	GYRE_ASSERT(fn);
	fiber->stack = stack;
	fiber->size = size;
	fiber->fn = fn;
	fiber->arg = arg;
	tell_init(fiber);
	tell_valgrind_init(fiber);
	make_first_frame(fiber, (char *)top, control);
}

void gyre__fiber_init(struct gyre__fiber *fiber, void *stack, size_t size, gyre__fiber_fn *fn,
		      void *arg)
{
	struct gyre__fiber_control control;

	gyre__fiber_control_get(&control);
	gyre__fiber_init_with(fiber, stack, size, fn, arg, &control);
}

void gyre__fiber_follow(struct gyre__fiber *from, struct gyre__fiber *to,
			const struct gyre__fiber_control *control)
{
	if (is_told())
		*to = *from;
	load_control(control);
}

void gyre__fiber_init_thread(struct gyre__fiber *fiber)
{
	*fiber = (struct gyre__fiber){ .sp = NULL };
	tell_init(fiber);
}

void gyre__fiber_switch(struct gyre__fiber *from, struct gyre__fiber *to)
{
	GYRE_ASSERT(from != to);
	tell_leave(from, to, &from->told.fake_stack);
	swap(from, to);
	tell_arrived(from);
}

void gyre__fiber_exit_to(struct gyre__fiber *from, struct gyre__fiber *to)
{
	GYRE_ASSERT(from != to);
	/* Nowhere to keep the fake stack: ASan frees it. */
	tell_leave(from, to, NULL);
	leave(from, to);
}

void gyre__fiber_done(struct gyre__fiber *fiber)
{
	tell_done(fiber);
	tell_valgrind_done(fiber);
}
