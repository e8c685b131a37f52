/* SPDX-License-Identifier: MIT */
/*
 * The file that is read or written. One that the user names is opened for
 * writing only when --overwrite says so. A temporary one loses its name as
 * soon as it is open, so that it goes with the process, however that ends.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CHUNK	(UINT64_C(1) << 20)

/* ------------------------------------------------------------- pattern -- */

/* splitmix64 of the word's number: no two blocks alike, nothing to compress. */
static uint64_t pattern_word(uint64_t number)
{
	uint64_t x = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (x ^ (x >> 31)) | 1;
}

void bench_pattern_fill(void *buf, size_t len, uint64_t offset)
{
	char *to = buf;

	while (len > 0) {
		uint64_t word = pattern_word(offset / sizeof(word));
		size_t skip = offset % sizeof(word);
		size_t n = sizeof(word) - skip < len ? sizeof(word) - skip : len;

		memcpy(to, (const char *)&word + skip, n);
		to += n;
		offset += n;
		len -= n;
	}
}

int bench_target_check(const struct bench_target *target, const void *buf, size_t len,
		       uint64_t offset)
{
	char *wanted = malloc(len);
	ssize_t n = (ssize_t)len;
	int rc;

	if (!wanted)
		return -ENOMEM;
	if (target->pattern && !target->written)
		bench_pattern_fill(wanted, len, offset);
	else
		n = pread(target->fd, wanted, len, (off_t)offset);
	if (n < 0)
		rc = -errno;
	else
		rc = (size_t)n == len && memcmp(wanted, buf, len) == 0;
	free(wanted);
	return rc;
}

/* ------------------------------------------------------ temporary file -- */

static int write_pattern(int fd, uint64_t size)
{
	char *chunk = malloc(CHUNK);
	uint64_t offset = 0;
	int rc = 0;

	if (!chunk)
		return -ENOMEM;
	while (offset < size && rc == 0) {
		size_t len = size - offset < CHUNK ? (size_t)(size - offset) : CHUNK;
		ssize_t n;

		bench_pattern_fill(chunk, len, offset);
		n = pwrite(fd, chunk, len, (off_t)offset);
		if (n < 0 && errno != EINTR)
			rc = -errno;
		else if (n > 0)
			offset += (uint64_t)n;
	}
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	free(chunk);
	return rc;
}

/* A full file system is other people's trouble too: asked before, not found out. */
static int check_room(const char *dir, uint64_t size)
{
	struct statvfs fs;
	char need[32], have[32];

	if (statvfs(dir, &fs) < 0)
		return bench_complain("%s: %s", dir, strerror(errno));
	if (fs.f_blocks > 0 && (uint64_t)fs.f_bavail * fs.f_frsize < size)
		return bench_complain("%s: no room for a temporary file of %s, only %s is free",
				      dir, bench_text_bytes(need, sizeof(need), size),
				      bench_text_bytes(have, sizeof(have),
						       (uint64_t)fs.f_bavail * fs.f_frsize));
	return 0;
}

static int open_direct(const char *path, int flags, struct bench_target *target)
{
	target->direct_fd = open(path, flags | O_DIRECT | O_CLOEXEC);
	if (target->direct_fd >= 0)
		return 0;
	if (errno == EINVAL)
		return bench_complain("%s: this file system does not do O_DIRECT; name a file or "
				      "directory on another one", target->name);
	return bench_complain("%s: cannot be opened with O_DIRECT: %s", target->name,
			      strerror(errno));
}

static int open_temporary(const struct bench_plan *plan, bool direct, struct bench_target *target)
{
	static const char name[] = "/gyre-bench-XXXXXX";
	char path[PATH_MAX + sizeof(name)];
	int rc = 0;

	if (check_room(target->name, plan->size) < 0)
		return -1;
	snprintf(path, sizeof(path), "%s%s", target->name, name);
	target->fd = mkostemp(path, O_CLOEXEC);
	if (target->fd < 0)
		return bench_complain("%s: no temporary file can be made here: %s",
				      target->name, strerror(errno));
	if (direct)
		rc = open_direct(path, O_RDWR, target);
	unlink(path);
	if (rc < 0)
		return rc;
	target->temporary = true;
	target->pattern = true;
	target->size = plan->size;
	rc = write_pattern(target->fd, plan->size);
	if (rc < 0)
		return bench_complain("%s: the temporary file cannot be written: %s", target->name,
				      strerror(-rc));
	return 0;
}

/* ---------------------------------------------------------- user's file -- */

/* Before it is opened: to open a pipe or a tape is to do something to it. */
static int check_kind(const char *name, bool write)
{
	struct stat st;

	if (stat(name, &st) < 0)
		return bench_complain("%s: %s", name, strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return bench_complain("%s is neither a file, a directory nor a block device", name);
	if (S_ISBLK(st.st_mode) && write)
		return bench_complain("%s is a block device; gyre-bench writes only to files",
				      name);
	return 0;
}

static int find_size(struct bench_target *target)
{
	struct stat st;
	int rc = fstat(target->fd, &st);

	if (rc == 0 && S_ISBLK(st.st_mode))
		rc = ioctl(target->fd, BLKGETSIZE64, &target->size);
	else if (rc == 0)
		target->size = (uint64_t)st.st_size;
	return rc < 0 ? bench_complain("%s: %s", target->name, strerror(errno)) : 0;
}

static int open_existing(bool direct, bool write, struct bench_target *target)
{
	int flags = write ? O_RDWR : O_RDONLY;

	if (check_kind(target->name, write) < 0)
		return -1;
	target->fd = open(target->name, flags | O_CLOEXEC);
	if (target->fd < 0)
		return bench_complain("%s: %s", target->name, strerror(errno));
	if (find_size(target) < 0)
		return -1;
	return direct ? open_direct(target->name, flags, target) : 0;
}

/* ------------------------------------------------------------ together -- */

/* What no option could be refused for before the file was there. */
static int check_case(const struct bench_target *target, const struct bench_case *kase)
{
	char size[32], block[32];
	uint64_t last;
	void *buf;
	ssize_t n;
	int rc = 0;

	if (!bench_case_uses_file(kase))
		return 0;
	bench_text_bytes(size, sizeof(size), target->size);
	bench_text_bytes(block, sizeof(block), kase->block_size);
	if (target->size < kase->block_size) {
		bench_complain("%s is smaller (%s) than one block (%s)", target->name, size,
			       block);
		return -BENCH_EXIT_USAGE;
	}
	if (!kase->direct)
		return 0;
	/* What alignment a device wants, one read tells. */
	buf = aligned_alloc(BENCH_PAGE, bench_buffer_size(kase));
	if (!buf)
		return bench_complain("no memory for a block of %s", block);
	last = target->size / kase->block_size - 1;
	n = pread(target->direct_fd, buf, kase->block_size, (off_t)(last * kase->block_size));
	if (n < 0)
		rc = bench_complain("%s: O_DIRECT reads of %s fail here: %s", target->name, block,
				    strerror(errno));
	free(buf);
	return rc;
}

static void choose_name(const struct bench_plan *plan, struct bench_target *target,
			bool *ret_directory)
{
	const char *dir = getenv("TMPDIR");
	struct stat st;

	*ret_directory = true;
	if (plan->path) {
		snprintf(target->name, sizeof(target->name), "%s", plan->path);
		*ret_directory = stat(plan->path, &st) == 0 && S_ISDIR(st.st_mode);
	} else {
		snprintf(target->name, sizeof(target->name), "%s", dir && *dir ? dir : ".");
	}
}

static int open_and_check(const struct bench_plan *plan, bool direct, bool write,
			  struct bench_target *target)
{
	bool directory;
	unsigned i;
	int rc;

	choose_name(plan, target, &directory);
	if (!directory && write && !plan->overwrite) {
		bench_complain("%s is no directory: a file of yours is written to only with "
			       "--overwrite, which destroys what is in it", target->name);
		return -BENCH_EXIT_USAGE;
	}
	if (directory)
		rc = open_temporary(plan, direct, target);
	else
		rc = open_existing(direct, write, target);
	for (i = 0; rc == 0 && i < plan->case_count; i++)
		rc = check_case(target, &plan->cases[i]);
	return rc;
}

int bench_target_open(const struct bench_plan *plan, struct bench_target *ret)
{
	bool direct = false, write = false;
	unsigned i;
	int rc;

	for (i = 0; i < plan->case_count; i++) {
		direct = direct || plan->cases[i].direct;
		write = write || bench_work_writes(plan->cases[i].work);
	}
	memset(ret, 0, sizeof(*ret));
	ret->fd = -1;
	ret->direct_fd = -1;
	rc = open_and_check(plan, direct, write, ret);
	if (rc < 0)
		bench_target_close(ret);
	return rc;
}

void bench_target_close(struct bench_target *target)
{
	if (target->direct_fd >= 0)
		close(target->direct_fd);
	if (target->fd >= 0)
		close(target->fd);
	target->fd = -1;
	target->direct_fd = -1;
}

/* ------------------------------------------------------- between cases -- */

static int warm(struct bench_target *target)
{
	char *chunk;
	uint64_t offset = 0;
	ssize_t n = 1;

	/* Half of memory is as much as one can hope the page cache to keep. */
	if (target->size > bench_memory_size() / 2) {
		target->cache = BENCH_CACHE_TOO_SMALL;
		return 0;
	}
	chunk = malloc(CHUNK);
	if (!chunk)
		return bench_complain("no memory to read the file once");
	while (n > 0) {
		n = pread(target->fd, chunk, CHUNK, (off_t)offset);
		if (n > 0)
			offset += (uint64_t)n;
	}
	free(chunk);
	if (n < 0)
		return bench_complain("%s: %s", target->name, strerror(errno));
	target->cache = BENCH_CACHE_WARM;
	return 0;
}

int bench_target_prepare(struct bench_target *target, const struct bench_case *kase)
{
	if (!bench_case_uses_file(kase))
		return 0;
	if (bench_work_writes(kase->work))
		target->written = true;
	if (!kase->direct) {
		if (target->cache == BENCH_CACHE_WARM || target->cache == BENCH_CACHE_TOO_SMALL)
			return 0;
		return warm(target);
	}
	/* The user's file may be in the cache for somebody's good reason. */
	if (target->temporary && target->cache != BENCH_CACHE_DROPPED) {
		posix_fadvise(target->fd, 0, 0, POSIX_FADV_DONTNEED);
		target->cache = BENCH_CACHE_DROPPED;
	}
	return 0;
}

int bench_target_settle(const struct bench_target *target, const struct bench_case *kase)
{
	if (!bench_work_writes(kase->work))
		return 0;
	if (fdatasync(target->fd) < 0)
		return bench_complain("%s: what was written cannot be flushed: %s", target->name,
				      strerror(errno));
	return 0;
}

bool bench_target_whole(const struct bench_target *target, char *buf, size_t size)
{
	char before[32], now[32];
	struct stat st;

	if (fstat(target->fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size >= target->size)
		return true;
	snprintf(buf, size, "%s has shrunk while it was measured, from %s to %s", target->name,
		 bench_text_bytes(before, sizeof(before), target->size),
		 bench_text_bytes(now, sizeof(now), (uint64_t)st.st_size));
	return false;
}
