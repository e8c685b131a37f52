/* SPDX-License-Identifier: MIT */
#include "failed.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#define NO_MEDIUM	1	/* of inode_of(): neither 0 nor an errno */

void gyre__failed_init(struct gyre__failed *failed)
{
	gyre__sys->mutex_init(&failed->lock);
}

void gyre__failed_done(struct gyre__failed *failed)
{
	gyre__sys->mutex_done(&failed->lock);
}

bool gyre__is_flush_failure(int error)
{
	return error < 0 && error != -EBADF && error != -EINTR && error != -ECANCELED;
}

bool gyre__is_write_failure(int error)
{
	switch (error) {
	case -EINVAL: case -EISDIR: case -ESPIPE: case -EFAULT: case -ETXTBSY: case -EFBIG:
	case -EOVERFLOW: case -EOPNOTSUPP: case -ENOSYS: case -EAGAIN:
		return false;
	default:
		return gyre__is_flush_failure(error);
	}
}

bool gyre__has_medium(unsigned mode)
{
	return S_ISREG(mode) || S_ISBLK(mode) || S_ISDIR(mode);
}

/* What is in the caches will do: an open file keeps its identity. NO_MEDIUM: it cannot fail. */
static int inode_of(int fd, struct gyre__inode *ret)
{
	struct statx st;
	int rc = gyre__sys->statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
				  STATX_TYPE | STATX_INO | STATX_BTIME, &st);

	if (rc < 0)
		return rc;
	if (!gyre__has_medium(st.stx_mode))
		return NO_MEDIUM;
	memset(ret, 0, sizeof(*ret));
	if (S_ISBLK(st.stx_mode)) {	/* by whatever node it was opened */
		ret->device = makedev(st.stx_rdev_major, st.stx_rdev_minor);
		return 0;
	}
	ret->device = makedev(st.stx_dev_major, st.stx_dev_minor);
	ret->number = st.stx_ino;
	if (st.stx_mask & STATX_BTIME) {
		ret->birth_s = st.stx_btime.tv_sec;
		ret->birth_ns = st.stx_btime.tv_nsec;
	}
	return 0;
}

/* Not every file system knows it at all times; then number and device must do. */
static bool has_birth(const struct gyre__inode *inode)
{
	return inode->birth_s || inode->birth_ns;
}

/* Under the lock. NULL: it has none. */
static struct gyre__failed_row *row_of(struct gyre__failed *failed, const struct gyre__inode *inode)
{
	uint32_t i;

	for (i = 0; i < failed->used; i++) {
		const struct gyre__inode *other = &failed->rows[i].inode;

		if (other->number == inode->number && other->device == inode->device &&
		    (!has_birth(other) || !has_birth(inode) ||
		     (other->birth_s == inode->birth_s && other->birth_ns == inode->birth_ns)))
			return &failed->rows[i];
	}
	return NULL;
}

/* Under the lock. */
static void publish(struct gyre__failed *failed)
{
	gyre__store(&failed->any, failed->used + (failed->full != 0), relaxed);
}

void gyre__failed_mark(struct gyre__failed *failed, int fd, int error)
{
	struct gyre__inode inode;
	int rc = inode_of(fd, &inode);

	if (rc == NO_MEDIUM)
		return;
	gyre__sys->mutex_lock(&failed->lock);
	if (rc < 0 || (!row_of(failed, &inode) && failed->used == GYRE__FAILED_MAX)) {
		if (failed->full == 0)
			failed->full = error;
	} else if (!row_of(failed, &inode)) {
		failed->rows[failed->used++] = (struct gyre__failed_row){ inode, error };
	}
	publish(failed);
	gyre__sys->mutex_unlock(&failed->lock);
}

int gyre__failed_find_open(struct gyre__failed *failed, int fd)
{
	const struct gyre__failed_row *row;
	struct gyre__inode inode;
	int rc = inode_of(fd, &inode), error;

	if (rc == NO_MEDIUM)
		return 0;
	gyre__sys->mutex_lock(&failed->lock);
	row = rc == 0 ? row_of(failed, &inode) : NULL;
	error = row ? row->error : rc < 0 ? rc : failed->full;
	gyre__sys->mutex_unlock(&failed->lock);
	return error;
}

int gyre__failed_find(struct gyre__failed *failed, int fd)
{
	int error = gyre__failed_find_open(failed, fd);

	return error == -EBADF ? 0 : error;
}

int gyre__failed_forget(struct gyre__failed *failed, int fd)
{
	struct gyre__failed_row *row;
	struct gyre__inode inode;
	int rc = inode_of(fd, &inode);

	if (rc < 0 || rc == NO_MEDIUM)
		return rc < 0 ? rc : 0;
	gyre__sys->mutex_lock(&failed->lock);
	row = row_of(failed, &inode);
	if (row)
		*row = failed->rows[--failed->used];
	if (failed->full)
		rc = -ENOSPC;
	publish(failed);
	gyre__sys->mutex_unlock(&failed->lock);
	return rc;
}
