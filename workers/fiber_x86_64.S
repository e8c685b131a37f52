/* SPDX-License-Identifier: MIT */
/*
 * Switching stacks on x86-64. See fiber.c; nothing of this is in objects for
 * other CPUs, so that every build may list every source.
 */
#if defined(__x86_64__) && defined(__LP64__) && !defined(GYRE_FIBER_UCONTEXT)

	.text

/*
 * void gyre__fiber_swap(void **ret_sp, void *sp)
 *
 * Saves on the stack what a call keeps, in the layout of struct first_frame,
 * and goes on with what was saved at sp.
 *
 * The control words are loaded whether they differ or not: to look would mean to
 * read back what was just stored, which takes longer.
 *
 * Two ways back. The CPU keeps a stack of calls of its own, and guesses a return
 * from it: that it leads to where this function was called from. Where it does, as
 * most fibers wait in the same few places, it is a return, and who called there is
 * guessed rightly, too. Where it does not, the guess is sure to be wrong; a jump is
 * guessed from where it led before. But it leaves a call on that stack, for which each
 * return before the next wait is guessed wrongly: up to three, the jump is no worse.
 */
	.globl	gyre__fiber_swap
	.hidden	gyre__fiber_swap
	.type	gyre__fiber_swap, @function
	.p2align 4
gyre__fiber_swap:
	.cfi_startproc
	endbr64
	movq	(%rsp), %rdx		/* where this was called from */
	pushq	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbp, 0
	pushq	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbx, 0
	pushq	%r12
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r12, 0
	pushq	%r13
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r13, 0
	pushq	%r14
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r14, 0
	pushq	%r15
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r15, 0
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	stmxcsr	(%rsp)
	fnstcw	4(%rsp)

	/* From here on it is the other's stack, with the same layout. */
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
.Lresume:
	ldmxcsr	(%rsp)
	fldcw	4(%rsp)
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	popq	%r15
	.cfi_adjust_cfa_offset -8
	.cfi_restore r15
	popq	%r14
	.cfi_adjust_cfa_offset -8
	.cfi_restore r14
	popq	%r13
	.cfi_adjust_cfa_offset -8
	.cfi_restore r13
	popq	%r12
	.cfi_adjust_cfa_offset -8
	.cfi_restore r12
	popq	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore rbx
	popq	%rbp
	.cfi_adjust_cfa_offset -8
	.cfi_restore rbp
	cmpq	%rdx, (%rsp)
	jne	.Lelsewhere
	ret

.Lelsewhere:
	popq	%rcx
	.cfi_adjust_cfa_offset -8
	.cfi_register rip, rcx
	notrack jmp *%rcx
	.cfi_endproc
	.size	gyre__fiber_swap, . - gyre__fiber_swap

/*
 * void gyre__fiber_resume(void *sp): the second half alone. Whoever called the
 * last swap is as likely to be who goes on: always a return, but to a beginning.
 */
	.globl	gyre__fiber_resume
	.hidden	gyre__fiber_resume
	.type	gyre__fiber_resume, @function
	.p2align 4
gyre__fiber_resume:
	.cfi_startproc
	endbr64
	movq	%rdi, %rsp
	.cfi_undefined rip
	leaq	gyre__fiber_begin(%rip), %rcx
	movq	56(%rsp), %rdx
	cmpq	%rcx, %rdx
	jne	.Lresume
	xorl	%edx, %edx
	jmp	.Lresume
	.cfi_endproc
	.size	gyre__fiber_resume, . - gyre__fiber_resume

/*
 * Where the first switch to a fiber leads, with the stack empty: rbx(r12), which
 * does not return. Nobody has called this, and whoever walks the stack is told so.
 * A call without the instruction, as there will be no return to match it.
 */
	.globl	gyre__fiber_begin
	.hidden	gyre__fiber_begin
	.type	gyre__fiber_begin, @function
	.p2align 4
	.cfi_startproc
	.cfi_def_cfa rsp, 0
	.cfi_undefined rip
	nop			/* who walks the stack looks one byte before the address */
gyre__fiber_begin:
	endbr64
	movq	%r12, %rdi
	leaq	.Lreturned(%rip), %rcx
	pushq	%rcx
	jmp	*%rbx
.Lreturned:
	ud2
	.cfi_endproc
	.size	gyre__fiber_begin, . - gyre__fiber_begin

/*
 * Ready for indirect branch tracking, but not for shadow stacks: those would
 * need one for each fiber. The C library then leaves them off in programs that
 * use this.
 */
#if defined(__CET__) && (__CET__ & 1)
	.section .note.gnu.property, "a"
	.p2align 3
	.long	4			/* of the name */
	.long	16			/* of the property */
	.long	5			/* NT_GNU_PROPERTY_TYPE_0 */
	.asciz	"GNU"
	.long	0xc0000002		/* GNU_PROPERTY_X86_FEATURE_1_AND */
	.long	4
	.long	1			/* IBT */
	.long	0
#endif

/* Not to take from the program what its other objects are ready for. */
#elif defined(__x86_64__) && defined(__LP64__) && defined(__CET__)
	.section .note.gnu.property, "a"
	.p2align 3
	.long	4
	.long	16
	.long	5
	.asciz	"GNU"
	.long	0xc0000002
	.long	4
	.long	__CET__
	.long	0
#elif defined(__aarch64__) && defined(__LP64__)
	.section .note.gnu.property, "a"
	.p2align 3
	.word	4
	.word	16
	.word	5
	.asciz	"GNU"
	.word	0xc0000000		/* GNU_PROPERTY_AARCH64_FEATURE_1_AND */
	.word	4
	.word	3			/* BTI, PAC */
	.word	0
#endif

	.section .note.GNU-stack, "", %progbits
