/* SPDX-License-Identifier: MIT */
#ifndef GYRE_LIB_DUMP_H
#define GYRE_LIB_DUMP_H

struct gyre__tasks;

/*
 * For struct gyre__task_hooks, on the worker: the time to drain is over, and what
 * is alive is about to be cancelled. Writes it down, for gyre_dump() after the close.
 */
void gyre__dump_outlasting(struct gyre__tasks *tasks);

#endif
