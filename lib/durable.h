/* SPDX-License-Identifier: MIT */
/*
 * gyre_write_durable, and the flushes of gyre_fsync and gyre_fdatasync, which it
 * shares; what each device has taught about the fastest way. See "Durable
 * writes" in ARCHITECTURE.md.
 *
 * Modelled in tests/models/durable.pml: join_row(), lead() and hand_over().
 */
#ifndef GYRE_LIB_DURABLE_H
#define GYRE_LIB_DURABLE_H

#include <gyre.h>

#include "ring/failed.h"

struct gyre__durable;
struct gyre__text;

/* GYRE_OK with *ret, or reported as gyre_open()'s failure. */
enum gyre_status gyre__durable_open(struct gyre__durable **ret);
void gyre__durable_close(struct gyre__durable *durable);

/* What the runtime's rings share of it. */
struct gyre__failed *gyre__durable_failed(struct gyre__durable *durable);

/*
 * Returns once all who use fd have left that are inside now: who waits for a
 * flush means by it the file that it was when he came.
 */
void gyre__durable_let_finish(struct gyre__durable *durable, int fd);

void gyre__durable_stats(struct gyre__durable *durable, struct gyre_stats *ret);
/* What was learnt, and which files have failed, for gyre_dump(). */
void gyre__durable_dump(struct gyre__durable *durable, struct gyre__text *text);

#endif
