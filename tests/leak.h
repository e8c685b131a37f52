/* SPDX-License-Identifier: MIT */
/*
 * Did a test leave something behind? Descriptors, threads, mappings, and what
 * the library has allocated through its table, before against after.
 *
 * Threads may take a moment to leave the process after they were joined, and
 * the kernel's own threads for a ring longer still: those are waited for.
 */
#ifndef GYRE_TESTS_LEAK_H
#define GYRE_TESTS_LEAK_H

#include <stddef.h>

struct leak;

/* Remembers what there is now, and counts allocations from here on. No runtime may be open. */
struct leak *leak_before(void);

/*
 * What is there now and was not before, or the other way round; each in words
 * in report. How many; 0: all is as it was. Frees leak.
 * A check may lie within another.
 */
unsigned leak_after(struct leak *leak, char *report, size_t len);

/* Allocations of the library that live now. */
unsigned leak_allocations(void);

/* Mappings are compared; under a sanitizer, which maps on its own, they are not. */
int leak_sees_mappings(void);

/* How long to wait for threads to leave. */
void leak_set_patience_ms(unsigned ms);

#endif
