/* SPDX-License-Identifier: MIT */
/*
 * What this kernel, and its policy, allow: asked of the kernel, never guessed
 * from its version.
 */
#ifndef GYRE_RING_PROBE_H
#define GYRE_RING_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GYRE__OPCODES	256

/* Of one ring, from its set-up. */
struct gyre__features {
	uint32_t setup_flags;			/* IORING_SETUP_* that were accepted */
	uint32_t features;			/* IORING_FEAT_* */
	uint64_t opcodes[GYRE__OPCODES / 64];	/* bit set: the kernel knows the opcode */
};

static inline bool gyre__features_has(const struct gyre__features *features, uint8_t opcode)
{
	return features->opcodes[opcode / 64] >> (opcode % 64) & 1;
}

/* Asks which opcodes the ring's kernel knows; before or by its owner. */
int gyre__probe_opcodes(int ring_fd, struct gyre__features *ret);

/*
 * A sentence on why io_uring_setup() was refused with error (a negative errno)
 * and what to change: the sysctl, a seccomp filter, an old kernel.
 */
void gyre__probe_explain(int error, char *text, size_t size);

#endif
