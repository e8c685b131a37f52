/* SPDX-License-Identifier: MIT */
/*
 * A scratch file, and what its file system does with it. The file has no name,
 * or loses it at once, so it goes with the process, however that ends.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define ALIGN_MAX	PROBE_BLOCK

static void __attribute__((__format__(__printf__, 2, 3)))
refuse(struct probe *probe, const char *format, ...)
{
	char *to = probe->path.error;
	int n = snprintf(to, PROBE_SENTENCE, "%.200s: ", probe->plan.path);
	va_list args;

	va_start(args, format);
	vsnprintf(to + n, PROBE_SENTENCE - (size_t)n, format, args);
	va_end(args);
}

/* ------------------------------------------------------ the scratch file -- */

static int open_and_unlink(const char *dir)
{
	static const char name[] = "/gyre-probe-XXXXXX";
	char path[PATH_MAX + sizeof(name)];
	sigset_t all, before;
	int fd, error;

	snprintf(path, sizeof(path), "%s%s", dir, name);
	/* No signal may come between a name that is there and one that is gone. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	fd = mkostemp(path, O_CLOEXEC);
	error = errno;
	if (fd >= 0)
		unlink(path);
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return fd;
}

static void refuse_by_errno(struct probe *probe, int error)
{
	switch (error) {
	case EROFS:
		refuse(probe, "is on a file system that is mounted read-only: name another "
		       "directory, or mount -o remount,rw");
		break;
	case EACCES:
	case EPERM:
		refuse(probe, "no file may be made there by this user (%s): name a directory that "
		       "can be written", strerror(error));
		break;
	case ENOSPC:
	case EDQUOT:
		refuse(probe, "no room for a scratch file of %u KiB (%s): free some, or name a "
		       "directory on another file system", (unsigned)(PROBE_SCRATCH / 1024),
		       strerror(error));
		break;
	case EMFILE:
		refuse(probe, "there is no descriptor left for a scratch file: raise RLIMIT_NOFILE "
		       "by ulimit -n");
		break;
	default:
		refuse(probe, "no scratch file can be made there: %s", strerror(error));
	}
}

/* Every byte is there, on the medium: what follows overwrites, and changes no size. */
static int fill(int fd)
{
	char block[PROBE_BLOCK];
	uint64_t offset = 0;
	ssize_t n;

	memset(block, 'g', sizeof(block));
	while (offset < PROBE_SCRATCH) {
		n = pwrite(fd, block, sizeof(block), (off_t)offset);
		if (n == 0)
			return -EIO;
		if (n > 0)
			offset += (uint64_t)n;
		else if (errno != EINTR)
			return -errno;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

void probe_path_open(struct probe *probe)
{
	struct probe_path *path = &probe->path;
	struct stat st;
	int rc;

	path->fd = -1;
	rc = stat(probe->plan.path, &st);
	if (rc < 0 && errno == ENOENT) {
		refuse(probe, "there is no such directory: make it, or name another");
		return;
	}
	if ((rc == 0 && !S_ISDIR(st.st_mode)) || (rc < 0 && errno == ENOTDIR)) {
		refuse(probe, "is not a directory: --path wants one, in which to make a file");
		return;
	}
	if (rc < 0) {
		refuse(probe, "cannot be looked at: %s", strerror(errno));
		return;
	}
	path->fd = open(probe->plan.path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	path->tmpfile = path->fd >= 0 ? PROBE_YES : PROBE_NO;
	if (path->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL ||
			     errno == ENOENT))
		path->fd = open_and_unlink(probe->plan.path);
	if (path->fd < 0) {
		refuse_by_errno(probe, errno);
		return;
	}
	rc = fill(path->fd);
	if (rc < 0)
		refuse_by_errno(probe, -rc);
}

void probe_path_close(struct probe *probe)
{
	if (probe->path.fd >= 0)
		close(probe->path.fd);
	probe->path.fd = -1;
}

void probe_path_forget(const struct probe *probe)
{
	fdatasync(probe->path.fd);
	posix_fadvise(probe->path.fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* ---------------------------------------------------------------- NOWAIT -- */

/* What a call gave: a length, or a negative errno. */
static int answer_of(ssize_t n)
{
	return n < 0 ? -errno : (int)n;
}

static int read_nowait(int fd)
{
	char block[PROBE_BLOCK];
	struct iovec iov = { .iov_base = block, .iov_len = sizeof(block) };

	return answer_of(preadv2(fd, &iov, 1, PROBE_TRY_OFFSET, RWF_NOWAIT));
}

static void ask_nowait(struct probe *probe)
{
	struct probe_path *path = &probe->path;
	char block[PROBE_BLOCK];

	path->nowait_cached = pread(path->fd, block, sizeof(block), PROBE_TRY_OFFSET) < 0 ?
			      -errno : read_nowait(path->fd);
	probe_path_forget(probe);
	path->nowait_uncached = read_nowait(path->fd);
	if (path->nowait_cached < 0)
		probe_lack(probe, "nowait", false, "this file system does not answer reads with "
			   "RWF_NOWAIT (%s), so nobody can tell beforehand whether a read would "
			   "wait, and reads on a ring go to the kernel's own threads: ext4, XFS "
			   "and Btrfs do",
			   probe_error_name(path->nowait_cached));
}

/* -------------------------------------------------------------- O_DIRECT -- */

static int set_direct(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	return fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

/*
 * The smallest power of two that works; 0: none does. memory: that of the buffer, else the file's.
 */
static unsigned find_alignment(int fd, char *buf, bool memory)
{
	unsigned align;

	for (align = 1; align <= ALIGN_MAX; align *= 2) {
		ssize_t n = memory ? pread(fd, buf + align, PROBE_BLOCK, 0) :
				     pread(fd, buf, align, align);

		if (n > 0)
			return align;
	}
	return 0;
}

static bool told_alignment(struct probe_path *path)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(path->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN) && stx.stx_dio_offset_align > 0) {
		path->direct_memory = stx.stx_dio_mem_align;
		path->direct_offset = stx.stx_dio_offset_align;
		return true;
	}
#else
	(void)path;
#endif
	return false;
}

static void ask_dsync(struct probe_path *path, char *buf, int *ret)
{
	struct iovec iov = { .iov_base = buf, .iov_len = PROBE_BLOCK };

	memset(buf, 'g', PROBE_BLOCK);
	*ret = answer_of(pwritev2(path->fd, &iov, 1, PROBE_TRY_OFFSET, RWF_DSYNC));
}

static void ask_direct(struct probe_path *path, char *buf)
{
	path->direct = PROBE_NO;
	path->direct_dsync = -EINVAL;
	if (set_direct(path->fd, true) < 0)
		return;
	if (pread(path->fd, buf, PROBE_BLOCK, 0) == PROBE_BLOCK) {
		path->direct = PROBE_YES;
		path->direct_told = told_alignment(path);
		if (!path->direct_told) {
			path->direct_memory = find_alignment(path->fd, buf, true);
			path->direct_offset = find_alignment(path->fd, buf, false);
		}
		ask_dsync(path, buf, &path->direct_dsync);
	}
	set_direct(path->fd, false);
}

static void lack_direct(struct probe *probe)
{
	const struct probe_path *path = &probe->path;

	if (path->direct == PROBE_NO)
		probe_lack(probe, "direct", false, "this file system does not do O_DIRECT: ext4, "
			   "XFS and Btrfs do, tmpfs from Linux 6.6 on");
	else if (path->direct_dsync < 0)
		probe_lack(probe, "direct_dsync", false, "O_DIRECT writes with RWF_DSYNC are "
			   "refused here (%s): use fdatasync",
			   probe_error_name(path->direct_dsync));
	if (path->dsync < 0)
		probe_lack(probe, "dsync", false, "writes with RWF_DSYNC are refused here (%s): "
			   "use fdatasync", probe_error_name(path->dsync));
	if (path->direct == PROBE_YES && !path->direct_told)
		probe_lack(probe, "dioalign", false, "statx() does not tell the alignment that "
			   "O_DIRECT wants here, which was found by trying: Linux 6.1 or later "
			   "tells it, for ext4, XFS and block devices");
}

void probe_ask_path(struct probe *probe)
{
	struct probe_path *path = &probe->path;
	char *buf;

	probe_progress(probe, "asking the file system");
	ask_nowait(probe);
	buf = mmap(NULL, (size_t)PROBE_BLOCK + 2 * ALIGN_MAX, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		return;
	ask_dsync(path, buf, &path->dsync);
	ask_direct(path, buf);
	lack_direct(probe);
	munmap(buf, (size_t)PROBE_BLOCK + 2 * ALIGN_MAX);
}
