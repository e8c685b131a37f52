/* SPDX-License-Identifier: MIT */
/*
 * Switching stacks on aarch64. See fiber.c; nothing of this is in objects for
 * other CPUs, so that every build may list every source.
 */
#if defined(__aarch64__) && defined(__LP64__)
#if !defined(GYRE_FIBER_UCONTEXT)

	.text

/*
 * void gyre__fiber_swap(void **ret_sp, void *sp)
 *
 * Saves on the stack what a call keeps, in the layout of struct first_frame,
 * and goes on with what was saved at sp. fpcr, which is slow to write, is
 * written only where the two differ.
 *
 * The address to return to is signed with the stack pointer where the CPU can do
 * that, and a landing pad for an indirect call into the bargain; older ones take
 * both hints for no-ops.
 */
	.globl	gyre__fiber_swap
	.hidden	gyre__fiber_swap
	.type	gyre__fiber_swap, %function
	.p2align 4
gyre__fiber_swap:
	.cfi_startproc
	hint	#25			/* paciasp */
	.cfi_negate_ra_state
	sub	sp, sp, #176
	.cfi_def_cfa_offset 176
	stp	x19, x20, [sp, #0]
	stp	x21, x22, [sp, #16]
	stp	x23, x24, [sp, #32]
	stp	x25, x26, [sp, #48]
	stp	x27, x28, [sp, #64]
	stp	x29, x30, [sp, #80]
	stp	d8, d9, [sp, #96]
	stp	d10, d11, [sp, #112]
	stp	d12, d13, [sp, #128]
	stp	d14, d15, [sp, #144]
	.cfi_offset x19, -176
	.cfi_offset x20, -168
	.cfi_offset x21, -160
	.cfi_offset x22, -152
	.cfi_offset x23, -144
	.cfi_offset x24, -136
	.cfi_offset x25, -128
	.cfi_offset x26, -120
	.cfi_offset x27, -112
	.cfi_offset x28, -104
	.cfi_offset x29, -96
	.cfi_offset x30, -88
	.cfi_offset d8, -80
	.cfi_offset d9, -72
	.cfi_offset d10, -64
	.cfi_offset d11, -56
	.cfi_offset d12, -48
	.cfi_offset d13, -40
	.cfi_offset d14, -32
	.cfi_offset d15, -24
	mrs	x9, fpcr
	str	x9, [sp, #160]

	/* From here on it is the other's stack, with the same layout. */
	mov	x10, sp
	str	x10, [x0]
	mov	sp, x1
.Lresume:
	ldr	x11, [sp, #160]
	cmp	x9, x11
	b.eq	1f
	msr	fpcr, x11
1:
	ldp	x19, x20, [sp, #0]
	ldp	x21, x22, [sp, #16]
	ldp	x23, x24, [sp, #32]
	ldp	x25, x26, [sp, #48]
	ldp	x27, x28, [sp, #64]
	ldp	x29, x30, [sp, #80]
	ldp	d8, d9, [sp, #96]
	ldp	d10, d11, [sp, #112]
	ldp	d12, d13, [sp, #128]
	ldp	d14, d15, [sp, #144]
	add	sp, sp, #176
	.cfi_def_cfa_offset 0
	.cfi_restore x19
	.cfi_restore x20
	.cfi_restore x21
	.cfi_restore x22
	.cfi_restore x23
	.cfi_restore x24
	.cfi_restore x25
	.cfi_restore x26
	.cfi_restore x27
	.cfi_restore x28
	.cfi_restore x29
	.cfi_restore x30
	.cfi_restore d8
	.cfi_restore d9
	.cfi_restore d10
	.cfi_restore d11
	.cfi_restore d12
	.cfi_restore d13
	.cfi_restore d14
	.cfi_restore d15
	hint	#29			/* autiasp */
	.cfi_negate_ra_state
	ret
	.cfi_endproc
	.size	gyre__fiber_swap, . - gyre__fiber_swap

/* void gyre__fiber_resume(void *sp): the second half alone. */
	.globl	gyre__fiber_resume
	.hidden	gyre__fiber_resume
	.type	gyre__fiber_resume, %function
	.p2align 4
gyre__fiber_resume:
	.cfi_startproc
	.cfi_undefined x30
	hint	#34			/* bti c */
	mrs	x9, fpcr
	mov	sp, x0
	b	.Lresume
	.cfi_endproc
	.size	gyre__fiber_resume, . - gyre__fiber_resume

/*
 * Where the first switch to a fiber leads, with the stack empty: x20(x19), which
 * does not return. Nobody has called this, and whoever walks the stack is told so.
 */
	.globl	gyre__fiber_begin
	.hidden	gyre__fiber_begin
	.type	gyre__fiber_begin, %function
	.p2align 4
	.cfi_startproc
	.cfi_undefined x30
	nop			/* who walks the stack looks one byte before the address */
gyre__fiber_begin:
	mov	x0, x19
	blr	x20
	brk	#1
	.cfi_endproc
	.size	gyre__fiber_begin, . - gyre__fiber_begin

#endif

/* Nothing here keeps a program from branch protection. */
	.section .note.gnu.property, "a"
	.p2align 3
	.word	4			/* of the name */
	.word	16			/* of the property */
	.word	5			/* NT_GNU_PROPERTY_TYPE_0 */
	.asciz	"GNU"
	.word	0xc0000000		/* GNU_PROPERTY_AARCH64_FEATURE_1_AND */
	.word	4
	.word	3			/* BTI, PAC */
	.word	0

/* Not to take from the program what its other objects are ready for. */
#elif defined(__x86_64__) && defined(__LP64__) && defined(__CET__)
	.section .note.gnu.property, "a"
	.p2align 3
	.long	4
	.long	16
	.long	5
	.asciz	"GNU"
	.long	0xc0000002		/* GNU_PROPERTY_X86_FEATURE_1_AND */
	.long	4
	.long	__CET__
	.long	0
#endif

	.section .note.GNU-stack, "", %progbits
