/* SPDX-License-Identifier: MIT */
/*
 * Store buffers: what a thread has stored, and others do not see yet.
 *
 * The library's atomic stores go through here (ring/atomic.h, GYRE_SIM). On a
 * machine of kind SIM_TSO (x86-64's) they leave a thread's buffer in their
 * order. On one of kind SIM_PSO a relaxed store may overtake what was stored
 * before it, in other words; a release store keeps all of that before it. In
 * both, a read-modify-write, a seq_cst store, an entry of the kernel and a lock
 * empty the buffer first. Plain stores are seen at once, and so are the words
 * that the kernel shares and the counters.
 */
#ifndef GYRE_SIM_MEMORY_H
#define GYRE_SIM_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "sched.h"

#define SIM_THREADS_MAX	40

void sim_memory_prepare(void);		/* once, before all */
/* course: a seed of its own, as what is buffered must not move any other dice. */
void sim_memory_begin(enum sim_memory kind, uint64_t course);
const char *sim_memory_name(void);
/* How long stores linger, for whoever reads along. */
uint64_t sim_memory_longest_ns(void);

/* From one thread to another: each sees its own stores. */
void sim_memory_switch(struct sim_thread *from, struct sim_thread *to);
/* The running thread's buffer is emptied. */
void sim_memory_drain(void);
/* What has lingered long enough. */
uint64_t sim_memory_next_ns(void);
void sim_memory_run(uint64_t now_ns);

#endif
