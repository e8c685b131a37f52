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
 * Loading a control word is slow, and nearly always all fibers have the same:
 * each is loaded only where it differs. The low six bits of mxcsr are flags,
 * which no call keeps. The way back is a jump and not a return, as the CPU would
 * guess the latter from its own stack of calls, and wrongly each time; notrack,
 * since what it jumps to follows a call and has no endbr64.
 */
	.globl	gyre__fiber_swap
	.hidden	gyre__fiber_swap
	.type	gyre__fiber_swap, @function
	.p2align 4
gyre__fiber_swap:
	.cfi_startproc
	endbr64
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
	movl	(%rsp), %eax
	movzwl	4(%rsp), %ecx

	/* From here on it is the other's stack, with the same layout. */
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	xorl	(%rsp), %eax
	testl	$~0x3f, %eax
	jnz	.Lload_mxcsr
.Lmxcsr_is_right:
	cmpw	4(%rsp), %cx
	jne	.Lload_x87_control
.Lx87_control_is_right:
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
	popq	%rcx
	.cfi_adjust_cfa_offset -8
	.cfi_register rip, rcx
	notrack jmp *%rcx

	.cfi_adjust_cfa_offset 64
	.cfi_offset rip, -8
	.cfi_offset rbp, -16
	.cfi_offset rbx, -24
	.cfi_offset r12, -32
	.cfi_offset r13, -40
	.cfi_offset r14, -48
	.cfi_offset r15, -56
.Lload_mxcsr:
	ldmxcsr	(%rsp)
	jmp	.Lmxcsr_is_right
.Lload_x87_control:
	fldcw	4(%rsp)
	jmp	.Lx87_control_is_right
	.cfi_endproc
	.size	gyre__fiber_swap, . - gyre__fiber_swap

/*
 * Where the first switch to a fiber leads, with the stack empty: rbx(r12), which
 * does not return. Nobody has called this, and whoever walks the stack is told so.
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
	call	*%rbx
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
