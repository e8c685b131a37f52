/* SPDX-License-Identifier: MIT */
/*
 * The library's own buffers: mapped, kept from forked children, known to every
 * ring and registered where memlock allows, kept for reuse when given back.
 */
#ifndef GYRE_LIB_BUFFER_H
#define GYRE_LIB_BUFFER_H

#include <gyre.h>

/* Reported under gyre_open. */
enum gyre_status gyre__buffer_pool_open(struct gyre *rt);
/* After the crew has stopped: nothing is in flight any more. NULL is fine. */
void gyre__buffer_pool_close(struct gyre *rt);
/* In a forked child: the mappings are not there. */
void gyre__buffer_pool_forget(struct gyre *rt);

#endif
