/* SPDX-License-Identifier: MIT */
/*
 * Files whose flush has failed. Linux tells such a failure once and counts the
 * data as clean from then on: a later fsync of the same file may well succeed
 * and mean nothing. So it is kept here, by inode (device, number, time of
 * birth), until somebody who knows what became of the data says so.
 *
 * Nothing is ever forgotten for want of room: where the table is full, or an
 * inode cannot be told, every file counts as failed.
 *
 * Any thread. While nothing has failed, a look is one relaxed load.
 */
#ifndef GYRE_RING_FAILED_H
#define GYRE_RING_FAILED_H

#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"
#include "sys.h"

#define GYRE__FAILED_MAX	256

struct gyre__inode {
	uint64_t device, number;
	int64_t birth_s;
	uint32_t birth_ns;
};

struct gyre__failed_row {
	struct gyre__inode inode;
	int32_t error;
};

struct gyre__failed {
	/* Rows and full: what a look asks first. Relaxed: who was told of a failure finds it. */
	_Atomic uint32_t any;
	union gyre__mutex lock;
	uint32_t used;
	int32_t full;			/* the error of an inode that found no row: everybody's */
	struct gyre__failed_row rows[GYRE__FAILED_MAX];
};

void gyre__failed_init(struct gyre__failed *failed);
void gyre__failed_done(struct gyre__failed *failed);

/* Of stat's mode: is there anything that a flush can lose? Not of pipes and sockets. */
bool gyre__has_medium(unsigned mode);

/*
 * Can this answer of fsync(2) come from a flush that was tried and failed? A
 * file system hands on whatever errno its device or server gave, so nearly any
 * can; not those of a descriptor that is none, and of flushes that were
 * interrupted, which lose nothing.
 */
bool gyre__is_flush_failure(int error);

/*
 * The same of a write that flushes, or goes to the device: not those that its
 * arguments are refused with before anything is written.
 */
bool gyre__is_write_failure(int error);

/* The flush of fd's file has failed with error. Nothing, if it has no medium. */
void gyre__failed_mark(struct gyre__failed *failed, int fd, int error);

/*
 * 0, or the negative errno that the flush of fd's file has failed with, or with
 * which it cannot be told. 0 as well if fd is not open: the call that comes next
 * will say so.
 */
int gyre__failed_find(struct gyre__failed *failed, int fd);

/* The same when no call comes any more: -EBADF if fd is not open, as nobody else says so. */
int gyre__failed_find_open(struct gyre__failed *failed, int fd);

static inline int gyre__failed_look(struct gyre__failed *failed, int fd)
{
	return gyre__likely(gyre__load(&failed->any, relaxed) == 0) ?
	       0 : gyre__failed_find(failed, fd);
}

static inline int gyre__failed_look_open(struct gyre__failed *failed, int fd)
{
	return gyre__likely(gyre__load(&failed->any, relaxed) == 0) ?
	       0 : gyre__failed_find_open(failed, fd);
}

/*
 * 0; -ENOSPC: every file counts as failed, and so does this one still; or a negative errno of
 * statx().
 */
int gyre__failed_forget(struct gyre__failed *failed, int fd);

#endif
