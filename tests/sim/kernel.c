/* SPDX-License-Identifier: MIT */
/*
 * Memory, descriptors, clock, threads. Every entry of the table is a point at
 * which threads may switch; whatever the man pages allow to fail, fails now and
 * then. What the library has is counted, so that the end of a seed can tell
 * what it forgot.
 */
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "coverage.h"
#include "ledger.h"
#include "memory.h"
#include "ring/atomic.h"
#include "sched.h"

#define ARENA_BYTES	(1u << 25)
#define BLOCKS_MAX	4096
#define FILES_MAX	96
#define FD_FIRST	3
#define PIPES_MAX	24
#define DEAD_BYTE	0xdd
#define STACK_BYTES	(64u << 10)	/* of a task, where nobody asks for another size */
#define GRAIN		256u		/* blocks begin and end at multiples of it */
#define PAGE_BYTES	4096u		/* and what is mapped begins at one of it */
#define RELAX_NS	(2 * SIM_US)	/* a pause costs more than it does, to keep seeds small */

struct block {
	char *ptr;
	size_t len;
	bool live, mapped, ring;
};

/* Who sleeps in a futex: on its own stack, and the channel that it is blocked on. */
struct sleeper {
	struct sleeper *next;
	const _Atomic uint32_t *word;
	uint32_t bits;
	bool woken;
};

/* By grain: was freed, and is never given out again in this seed. */
struct graves {
	size_t used;
	bool dead[ARENA_BYTES / GRAIN];
	bool stack[ARENA_BYTES / GRAIN];	/* is or was one of a task */
};

struct sim_faults sim_faults;

static struct {
	char *arena;
	size_t used;
	struct graves *graves;
	struct block *blocks;		/* BLOCKS_MAX of them */
	unsigned block_count;
	struct sim_file files[FILES_MAX];
	struct sim_file *fds[FILES_MAX];
	struct sim_pipe pipes[PIPES_MAX];
	unsigned pipe_count;
	struct sleeper *sleepers;
	unsigned failable;		/* calls so far that could have failed */
	unsigned threads_live;		/* started by the library */
	unsigned mappings_excused;
	bool fds_excused[FILES_MAX];
} kernel;

const struct gyre__sys *gyre__sys = &gyre__sys_sim;
const void *sim_zalloc_caller;

void gyre__assert_failed(const char *cond, const char *file, int line)
{
	sim_fail("assertion failed: %s at %s:%d", cond, file, line);
}

void *gyre__zalloc(size_t size)
{
	sim_zalloc_caller = __builtin_return_address(0);
	return gyre__sys->alloc(size, 16);
}

void gyre__free(void *ptr)
{
	gyre__sys->free(ptr);
}

/* -------------------------------------------------------------- faults -- */

static unsigned rate(unsigned max)
{
	return sim_chance(500) ? 0 : (unsigned)sim_random(max) + 1;
}

static void roll_faults(bool deadly)
{
	sim_faults = (struct sim_faults){
		.eintr = rate(200), .eagain = rate(200), .ebusy = rate(100), .partial = rate(400),
		.op_errno = rate(300), .short_io = rate(400), .slow = rate(300),
		.cancel_miss = rate(300), .cancel_late = rate(300), .cut_off = rate(300),
		.interrupt = rate(400),
		.fail_at = sim_chance(350) ? (unsigned)sim_random(60) + 1 : 0,
		.stall = rate(100),
		.post_directly = sim_chance(300),
		.old = sim_chance(200),
		.post_inline = rate(500),
	};
	if (deadly) {
		sim_faults.ebadr = rate(40);
		sim_faults.fatal = rate(40);
	}
}

int sim_failure(const char *call, const int *errnos)
{
	unsigned count = 0;
	int error;

	if (++kernel.failable != sim_faults.fail_at)
		return 0;
	while (errnos[count])
		count++;
	error = errnos[sim_random(count)];
	sim_trace("%s fails: %s", call, sim_result(-error));
	sim_reach_failure(call);
	sim_excuse_fault();
	return -error;
}

/* -------------------------------------------------------------- memory -- */

void *sim_kernel_alloc(size_t size)
{
	char *ptr;

	kernel.used = (kernel.used + GRAIN - 1) & ~(size_t)(GRAIN - 1);
	if (kernel.used + size > ARENA_BYTES)
		sim_fail("the simulated machine has too little memory");
	ptr = kernel.arena + kernel.used;
	kernel.used += size;
	memset(ptr, 0, size);
	return ptr;
}

static void *block_new(size_t size, bool mapped)
{
	struct block *block = &kernel.blocks[kernel.block_count];

	if (kernel.block_count == BLOCKS_MAX)
		sim_fail("the simulated machine has too few blocks of memory");
	kernel.block_count++;
	if (mapped)
		kernel.used = (kernel.used + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
	block->ptr = sim_kernel_alloc(size);
	block->len = size;
	block->live = true;
	block->mapped = mapped;
	block->ring = false;
	return block->ptr;
}

static struct block *block_find(const void *ptr)
{
	unsigned i = kernel.block_count;

	while (i-- > 0)
		if (kernel.blocks[i].ptr == ptr && kernel.blocks[i].live)
			return &kernel.blocks[i];
	return NULL;
}

bool sim_kernel_owns(uint64_t addr, size_t len)
{
	unsigned i;

	for (i = 0; i < kernel.block_count; i++) {
		const struct block *block = &kernel.blocks[i];

		if (block->live && addr >= (uintptr_t)block->ptr &&
		    addr + len <= (uintptr_t)block->ptr + block->len)
			return true;
	}
	return false;
}

static void note_stack(const char *ptr, size_t len)
{
	size_t first = (size_t)(ptr - kernel.arena) / GRAIN;
	size_t end = first + (len + GRAIN - 1) / GRAIN;

	memset(&kernel.graves->stack[first], true, end - first);
	if (kernel.graves->used < end)
		kernel.graves->used = end;
}

/*
 * Does the caller's stack lie in there? The library only looks into those that
 * are idle. What it gives back is the lower end of one: the whole is meant.
 */
static void check_not_mine(const void *ptr, size_t len, const char *what)
{
	if (sim_kernel_is_stack(ptr) && len < STACK_BYTES)
		len = STACK_BYTES;
	if ((uintptr_t)__builtin_frame_address(0) - (uintptr_t)ptr < len)
		sim_fail("the stack on which somebody runs is given back (%s)", what);
}

static void block_end(struct block *block)
{
	size_t first = (size_t)(block->ptr - kernel.arena) / GRAIN, i;

	block->live = false;
	if (!block->ring)	/* the kernel's own, of which this was a view */
		memset(block->ptr, DEAD_BYTE, block->len);
	for (i = 0; i * GRAIN < block->len; i++)
		kernel.graves->dead[first + i] = true;
	if (kernel.graves->used < first + i)
		kernel.graves->used = first + i;
}

bool sim_kernel_is_stack(const volatile void *ptr)
{
	size_t offset = (uintptr_t)ptr - (uintptr_t)kernel.arena;

	return offset < ARENA_BYTES && kernel.graves->stack[offset / GRAIN];
}

bool sim_kernel_is_freed(const volatile void *ptr)
{
	size_t offset = (uintptr_t)ptr - (uintptr_t)kernel.arena;

	return offset < ARENA_BYTES && kernel.graves->dead[offset / GRAIN];
}

/* Behind every atomic of the library. */
void gyre__sim_point(const char *where, const volatile void *ptr)
{
	sim_step(where);
	if (sim_kernel_is_freed(ptr))
		sim_fail("memory is used after it was freed: %s", where);
}

static void *sim_alloc(size_t size, size_t align)
{
	(void)align;	/* all blocks have the most that anybody asks for */
	sim_point("alloc");
	if (sim_failure("alloc", (const int[]){ ENOMEM, 0 })) {
		sim_reach(SIM_ALLOC_FAILED);
		return NULL;
	}
	return block_new(size, false);
}

static void sim_free(void *ptr)
{
	struct block *block;

	if (!ptr)
		return;
	sim_point("free");
	block = block_find(ptr);
	if (!block || block->mapped)
		sim_fail("free() of what is not allocated");
	if (sim_uring_uses(block->ptr, block->len))
		sim_fail("memory is freed that the kernel still uses");
	block_end(block);
}

static int sim_mmap(size_t len, int prot, int flags, int fd, off_t offset, void **ret)
{
	struct sim_file *file;
	int rc;

	(void)prot;
	sim_point("mmap");
	rc = sim_failure("mmap", (const int[]){ ENOMEM, EAGAIN, 0 });
	if (rc < 0)
		return rc;
	if (flags & MAP_ANONYMOUS) {
		*ret = block_new(len, true);
		if (flags & MAP_STACK)
			note_stack(*ret, len);
		return 0;
	}
	file = sim_file_get(fd);
	if (!file || file->kind != SIM_FILE_RING)
		return -EBADF;
	rc = sim_uring_mmap(file->number, offset, len, ret);
	if (rc < 0)
		return rc;
	if (kernel.block_count == BLOCKS_MAX)
		sim_fail("the simulated machine has too few blocks of memory");
	kernel.blocks[kernel.block_count++] = (struct block){ *ret, len, true, true, true };
	return 0;
}

static int sim_munmap(void *ptr, size_t len)
{
	struct block *block;

	sim_point("munmap");
	block = block_find(ptr);
	if (!block || !block->mapped || block->len != len)
		sim_fail("munmap() of what is not mapped");
	if (!block->ring && sim_uring_uses(ptr, len))
		sim_fail("memory is unmapped that the kernel still uses");
	block_end(block);
	return 0;
}

static int sim_madvise(void *ptr, size_t len, int advice)
{
	int rc;

	sim_point("madvise");
	rc = sim_failure("madvise", (const int[]){ ENOMEM, EAGAIN, 0 });
	if (advice == MADV_DONTNEED)
		check_not_mine(ptr, len, "madvise");
	if (rc == 0 && advice == MADV_DONTNEED)
		memset(ptr, 0, len);
	return rc;
}

static int sim_mprotect(void *ptr, size_t len, int prot)
{
	(void)ptr;
	(void)len;
	(void)prot;
	return 0;
}

/* A page that holds anything but zeros was touched. */
static int sim_mincore(void *ptr, size_t len, unsigned char *ret)
{
	const char *at = ptr, *end = at + len;
	size_t i;

	sim_point("mincore");
	check_not_mine(ptr, len, "mincore");
	for (; at < end; at += PAGE_BYTES) {
		for (i = 0; i < PAGE_BYTES && at[i] == 0; i++)
			;
		*ret++ = i < PAGE_BYTES;
	}
	return 0;
}

/* --------------------------------------------------------------- files -- */

struct sim_file *sim_file_get(int fd)
{
	return fd >= FD_FIRST && fd < FD_FIRST + FILES_MAX ? kernel.fds[fd - FD_FIRST] : NULL;
}

struct sim_file *sim_file_new(enum sim_file_kind kind)
{
	unsigned i;

	for (i = 0; i < FILES_MAX; i++)
		if (kernel.files[i].kind == SIM_FILE_FREE) {
			memset(&kernel.files[i], 0, sizeof(kernel.files[i]));
			kernel.files[i].kind = kind;
			kernel.files[i].refs = 1;
			return &kernel.files[i];
		}
	sim_fail("the simulated machine has too few files");
}

void sim_file_ref(struct sim_file *file)
{
	file->refs++;
}

void sim_file_unref(struct sim_file *file)
{
	if (--file->refs > 0)
		return;
	if (file->kind == SIM_FILE_PIPE) {
		*(file->writes ? &file->pipe->writers : &file->pipe->readers) -= 1;
		sim_file_changed(file);
	}
	if (file->kind == SIM_FILE_RING)
		sim_uring_closed(file->number);
	file->kind = SIM_FILE_FREE;
}

/* The lowest free number, as on Linux: who closes too early meets its next owner. */
int sim_file_open(struct sim_file *file)
{
	int i;

	for (i = 0; i < FILES_MAX; i++)
		if (!kernel.fds[i]) {
			kernel.fds[i] = file;
			return i + FD_FIRST;
		}
	return -EMFILE;
}

/* What waiting threads have in common: the pipe, or the file itself. */
static const void *file_channel(const struct sim_file *file)
{
	return file->pipe ? (const void *)file->pipe : (const void *)file;
}

void sim_file_changed(struct sim_file *file)
{
	sim_wake(file_channel(file));
	sim_uring_file_changed(file);
}

static ssize_t pipe_read(struct sim_file *file, void *buf, size_t len)
{
	struct sim_pipe *pipe = file->pipe;

	if (file->writes)
		return -EBADF;
	if (len == 0)
		return 0;
	if (pipe->len == 0)
		return pipe->writers ? -EAGAIN : 0;
	if (len > pipe->len)
		len = pipe->len;
	memcpy(buf, pipe->bytes, len);
	memmove(pipe->bytes, pipe->bytes + len, pipe->len - len);
	pipe->len -= (unsigned)len;
	return (ssize_t)len;
}

static ssize_t pipe_write(struct sim_file *file, const void *buf, size_t len)
{
	struct sim_pipe *pipe = file->pipe;

	if (!file->writes)
		return -EBADF;
	if (len == 0)
		return 0;
	if (!pipe->readers)
		return -EPIPE;
	if (pipe->len == SIM_PIPE_BYTES)
		return -EAGAIN;
	if (len > SIM_PIPE_BYTES - pipe->len)
		len = SIM_PIPE_BYTES - pipe->len;
	memcpy(pipe->bytes + pipe->len, buf, len);
	pipe->len += (unsigned)len;
	return (ssize_t)len;
}

ssize_t sim_file_read(struct sim_file *file, void *buf, size_t len, uint64_t offset)
{
	ssize_t n = -EINVAL;

	if (file->kind == SIM_FILE_EVENTFD) {
		if (len < 8)
			return -EINVAL;
		if (file->count == 0)
			return -EAGAIN;
		memcpy(buf, &file->count, 8);
		file->count = 0;
		n = 8;
	} else if (file->kind == SIM_FILE_PIPE) {
		n = pipe_read(file, buf, len);
	} else if (file->kind == SIM_FILE_DATA) {
		return sim_data_read(file->handle.data, buf, len, offset);
	}
	if (n > 0)
		sim_file_changed(file);
	return n;
}

ssize_t sim_file_write(struct sim_file *file, const void *buf, size_t len, uint64_t offset)
{
	ssize_t n = -EINVAL;

	if (file->kind == SIM_FILE_EVENTFD) {
		uint64_t value;

		if (len != 8)
			return len ? -EINVAL : 0;
		memcpy(&value, buf, 8);
		file->count += value;
		n = 8;
	} else if (file->kind == SIM_FILE_PIPE) {
		n = pipe_write(file, buf, len);
	} else if (file->kind == SIM_FILE_DATA) {
		return sim_data_write(file->handle.data, buf, len, offset);
	}
	if (n > 0)
		sim_file_changed(file);
	return n;
}

unsigned sim_file_poll(const struct sim_file *file)
{
	switch (file->kind) {
	case SIM_FILE_EVENTFD:
		return POLLOUT | (file->count ? POLLIN : 0);
	case SIM_FILE_PIPE:
		if (file->writes)
			return (file->pipe->len < SIM_PIPE_BYTES ? POLLOUT : 0) |
			       (file->pipe->readers ? 0 : POLLERR);
		return (file->pipe->len ? POLLIN : 0) | (file->pipe->writers ? 0 : POLLHUP);
	default:
		return POLLIN | POLLOUT;
	}
}

static int pipe_make(int ret[2], bool scenarios)
{
	struct sim_file *ends[2];
	unsigned i;

	if (kernel.pipe_count == PIPES_MAX)
		sim_fail("the simulated machine has too few pipes");
	for (i = 0; i < 2; i++) {
		ends[i] = sim_file_new(SIM_FILE_PIPE);
		ends[i]->pipe = &kernel.pipes[kernel.pipe_count];
		ends[i]->writes = i == 1;
		ends[i]->scenarios = scenarios;
		ret[i] = sim_file_open(ends[i]);
	}
	*ends[0]->pipe = (struct sim_pipe){ .readers = 1, .writers = 1 };
	kernel.pipe_count++;
	return 0;
}

static int file_close(int fd)
{
	struct sim_file *file = sim_file_get(fd);

	if (!file)
		return -EBADF;
	kernel.fds[fd - FD_FIRST] = NULL;
	sim_file_unref(file);
	return 0;
}

/* --------------------------------------------------------- descriptors -- */

static int sim_eventfd(void)
{
	int rc;

	sim_point("eventfd");
	rc = sim_failure("eventfd", (const int[]){ EMFILE, ENFILE, ENOMEM, 0 });
	return rc < 0 ? rc : sim_file_open(sim_file_new(SIM_FILE_EVENTFD));
}

static int sim_eventfd_read(int fd)
{
	struct sim_file *file;
	uint64_t value;
	ssize_t n;

	sim_point("read of an eventfd");
	for (;;) {
		file = sim_file_get(fd);
		if (!file)
			return -EBADF;
		n = sim_file_read(file, &value, sizeof(value), 0);
		if (n != -EAGAIN)
			return n < 0 ? (int)n : 0;
		sim_block(file_channel(file), "its eventfd", SIM_NEVER);
	}
}

static void sys_sleep_ns(uint64_t ns);

static int sim_eventfd_write(int fd)
{
	struct sim_file *file;
	uint64_t one = 1;

	sim_point("write of an eventfd");
	/* Who is about to wake somebody may be kept from it. */
	if (sim_chance(sim_faults.stall))
		sys_sleep_ns(1 + sim_random(100 * SIM_US));
	file = sim_file_get(fd);
	if (!file || file->kind != SIM_FILE_EVENTFD)
		sim_fail("an eventfd is written (%d) that is none any more", fd);
	sim_trace("writes eventfd %d", fd);
	sim_file_write(file, &one, sizeof(one), 0);
	return 0;
}

static int sim_pipe(int ret[2])
{
	int rc;

	sim_point("pipe");
	rc = sim_failure("pipe", (const int[]){ EMFILE, ENFILE, 0 });
	return rc < 0 ? rc : pipe_make(ret, false);
}

static int sim_close(int fd)
{
	sim_point("close");
	sim_trace("closes %d", fd);
	return file_close(fd);
}

static int sim_fstat(int fd, struct stat *ret)
{
	struct sim_file *file = sim_file_get(fd);

	if (!file)
		return -EBADF;
	memset(ret, 0, sizeof(*ret));
	ret->st_mode = S_IFIFO;
	if (file->kind == SIM_FILE_DATA) {
		ret->st_mode = S_IFREG;
		ret->st_ino = file->handle.data->number + 1;
		ret->st_size = (off_t)file->handle.data->len;
	}
	return 0;
}

/* ------------------------------------------------------------- futexes -- */

static void sleeper_remove(const struct sleeper *sleeper)
{
	struct sleeper **at = &kernel.sleepers;

	while (*at != sleeper)
		at = &(*at)->next;
	*at = sleeper->next;
}

/* Between the look at the word and the sleep nothing comes, as the kernel has it under a lock. */
static int sim_futex_wait(_Atomic uint32_t *word, uint32_t seen, uint32_t bits,
			  uint64_t deadline_ns)
{
	struct sleeper sleeper = { .word = word, .bits = bits };
	uint64_t until_ns = deadline_ns;
	bool over;

	sim_point("futex_wait");
	if (atomic_load(word) != seen)
		return -EAGAIN;
	if (sim_now_ns() >= deadline_ns)
		return -ETIMEDOUT;
	if (sim_chance(sim_faults.eintr))	/* it ends before its time, and for nothing */
		until_ns = gyre__deadline(sim_now_ns(), 1 + sim_random(100 * SIM_US));
	if (until_ns > deadline_ns)
		until_ns = deadline_ns;
	sleeper.next = kernel.sleepers;
	kernel.sleepers = &sleeper;
	over = sim_block(&sleeper, SIM_BELL, until_ns);
	sleeper_remove(&sleeper);
	if (sleeper.woken || !over)
		return 0;
	if (until_ns == deadline_ns)
		return -ETIMEDOUT;
	sim_reach(SIM_WOKEN_FOR_NOTHING);
	return sim_chance(500) ? -EINTR : 0;
}

static int sim_futex_wake(_Atomic uint32_t *word, uint32_t bits)
{
	struct sleeper *sleeper;
	int woken = 0;

	sim_point("futex_wake");
	if (sim_chance(sim_faults.stall))	/* see sim_eventfd_write() */
		sys_sleep_ns(1 + sim_random(100 * SIM_US));
	for (sleeper = kernel.sleepers; sleeper; sleeper = sleeper->next)
		if (sleeper->word == word && sleeper->bits & bits && !sleeper->woken) {
			sleeper->woken = true;
			sim_wake(sleeper);
			woken++;
		}
	sim_trace("wakes %d of %#x", woken, bits);
	return woken;
}

/* In the caller's own thread, from offset to the end where len is 0. */
static int flush_and_wait(struct sim_file *file, uint64_t offset, uint64_t len)
{
	struct sim_flush *flush;
	uint64_t end_ns;
	int error;

	sim_file_ref(file);
	flush = sim_flush_start(&file->handle, offset, len, &end_ns);
	sim_block(flush, "a flush", end_ns);
	error = sim_flush_end(flush);
	sim_file_unref(file);
	return error;
}

/* A plain read or write in the caller's own thread: waits as long as it takes. */
static ssize_t transfer(int fd, void *buf, size_t len, off_t offset, bool writes, int rw_flags)
{
	struct sim_file *file;
	ssize_t n;
	int error;

	sim_point(writes ? "write" : "read");
	for (;;) {
		file = sim_file_get(fd);
		if (!file)
			return -EBADF;
		if (sim_chance(sim_faults.eintr))
			return -EINTR;
		if (len > 1 && sim_chance(sim_faults.short_io))
			len = 1 + sim_random(len - 1);
		n = writes ? sim_file_write(file, buf, len, (uint64_t)offset) :
			     sim_file_read(file, buf, len, (uint64_t)offset);
		if (n != -EAGAIN)
			break;
		sim_block(file_channel(file), writes ? "room in a pipe" : "data or end of a pipe",
			  SIM_NEVER);
	}
	if (!writes || n <= 0 || !sim_is_sync_write(&file->handle, rw_flags))
		return n;
	error = flush_and_wait(file, (uint64_t)offset, (uint64_t)n);
	return error ? error : n;
}

static ssize_t sim_read(int fd, void *buf, size_t len)
{
	return transfer(fd, buf, len, 0, false, 0);
}

static ssize_t sim_write(int fd, const void *buf, size_t len)
{
	return transfer(fd, (void *)(uintptr_t)buf, len, 0, true, 0);
}

static ssize_t sim_pread(int fd, void *buf, size_t len, off_t offset)
{
	return transfer(fd, buf, len, offset, false, 0);
}

static ssize_t sim_pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	return transfer(fd, (void *)(uintptr_t)buf, len, offset, true, 0);
}

static ssize_t sim_vector(int fd, const struct iovec *iov, int count, off_t offset, bool writes,
			  int rw_flags)
{
	if (count != 1)
		return -EOPNOTSUPP;
	return transfer(fd, iov->iov_base, iov->iov_len, offset < 0 ? 0 : offset, writes, rw_flags);
}

static ssize_t sim_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return sim_vector(fd, iov, count, offset, false, flags);
}

static ssize_t sim_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return sim_vector(fd, iov, count, offset, true, flags);
}

static int sim_poll(struct pollfd *fds, unsigned count, uint64_t timeout_ns)
{
	uint64_t deadline_ns = gyre__deadline(sim_now_ns(), timeout_ns);
	struct sim_file *file;

	sim_point("poll");
	for (;;) {
		file = sim_file_get(fds[0].fd);
		if (!file || count != 1)
			return -EINVAL;
		fds[0].revents = (short)(sim_file_poll(file) &
					 ((unsigned)fds[0].events | POLLERR | POLLHUP));
		if (fds[0].revents)
			return 1;
		if (sim_block(file_channel(file), "readiness", deadline_ns))
			return 0;
	}
}

static int sim_fsync(int fd)
{
	struct sim_file *file;

	sim_point("fsync");
	file = sim_file_get(fd);
	if (!file)
		return -EBADF;
	return file->kind == SIM_FILE_DATA ? flush_and_wait(file, 0, 0) : -EINVAL;
}

/* There is nothing to open but what says whether io_uring is allowed: it is. */
static int sim_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	int ends[2];

	(void)dirfd;
	(void)flags;
	(void)mode;
	if (strncmp(path, "/proc/", 6) != 0)
		return -ENOENT;
	pipe_make(ends, false);
	sim_scenario_write(ends[1], "0\n", 2);
	file_close(ends[1]);
	return ends[0];
}

/* Of a descriptor only, which says who the file is. */
static int sim_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *ret)
{
	struct sim_file *file = sim_file_get(dirfd);

	(void)mask;
	sim_point("statx");
	if (*path || !(flags & AT_EMPTY_PATH))
		return -ENOENT;
	if (!file)
		return -EBADF;
	memset(ret, 0, sizeof(*ret));
	ret->stx_mode = S_IFIFO;
	if (file->kind == SIM_FILE_DATA) {
		ret->stx_mask = STATX_TYPE | STATX_INO | STATX_SIZE | STATX_BTIME;
		ret->stx_mode = S_IFREG;
		ret->stx_ino = file->handle.data->number + 1;
		ret->stx_size = file->handle.data->len;
		ret->stx_btime.tv_sec = 1;
	}
	return 0;
}

static int sim_fd_flags(int fd)
{
	const struct sim_file *file;

	sim_point("fcntl");
	file = sim_file_get(fd);
	if (!file)
		return -EBADF;
	return O_RDWR | (file->kind == SIM_FILE_DATA && file->handle.sync_writes ? O_DSYNC : 0);
}

static uint64_t sim_file_limit(void)
{
	return UINT64_MAX;
}

static int sim_fallocate(int fd, int mode, off_t offset, off_t len)
{
	(void)mode;
	(void)offset;
	(void)len;
	return sim_file_get(fd) ? 0 : -EBADF;
}

/* ---------------------------------------------------- time and threads -- */

static uint64_t sys_now_ns(void)
{
	sim_step("now_ns");	/* without an entry of the kernel */
	return sim_now_ns();
}

static void sys_relax(void)
{
	uint64_t end_ns = sim_now_ns() + RELAX_NS;

	/* Others may run meanwhile, or pause, too: not one after the other. */
	sim_relax("relax");
	if (sim_now_ns() < end_ns)
		sim_pass_ns(end_ns - sim_now_ns());
}

static void sys_sleep_ns(uint64_t ns)
{
	static const char nobody;

	sim_block(&nobody, "some time to pass", gyre__deadline(sim_now_ns(), ns ? ns : 1));
}

static int sys_thread_start(const char *name, gyre__thread_fn *fn, void *arg, uintptr_t *ret)
{
	struct sim_thread *thread;
	int rc;

	sim_point("thread_start");
	/* Instead of another call that would fail later: no more than one does. */
	if (sim_faults.fail_thread && --sim_faults.fail_thread == 0 &&
	    (!sim_faults.fail_at || sim_faults.fail_at > kernel.failable))
		sim_faults.fail_at = kernel.failable + 1;
	rc = sim_failure("thread_start", (const int[]){ EAGAIN, EPERM, ENOMEM, 0 });
	if (rc < 0)
		return rc;
	thread = sim_spawn(name, fn, arg);
	if (!thread)
		return -EAGAIN;
	kernel.threads_live++;
	*ret = (uintptr_t)thread;
	return 0;
}

static void sys_thread_join(uintptr_t thread)
{
	sim_point("thread_join");
	sim_join((struct sim_thread *)thread);
	kernel.threads_live--;
}

static int sys_thread_pin(unsigned nth_cpu)
{
	(void)nth_cpu;
	return 0;
}

static unsigned sys_cpu_count(void)
{
	return 2;
}

static int sys_self_set(void *value, void (*at_exit)(void *value))
{
	int rc = sim_failure("self_set", (const int[]){ ENOMEM, EAGAIN, 0 });

	if (rc == 0)
		sim_pointer_set(value, at_exit);
	return rc;
}

static uint64_t sys_thread_id(void)
{
	return sim_self() ? sim_thread_id(sim_self()) : 0;
}

/* other[0] is the holder's thread number; zero is free, as an initializer leaves it. */
static void sys_mutex_init(union gyre__mutex *mutex)
{
	memset(mutex, 0, sizeof(*mutex));
}

static void sys_mutex_done(union gyre__mutex *mutex)
{
	if (mutex->other[0])
		sim_fail("a mutex is destroyed that is locked");
}

static void sys_mutex_lock(union gyre__mutex *mutex)
{
	sim_point("mutex_lock");
	if (mutex->other[0] == sys_thread_id())
		sim_fail("a mutex is locked twice by one thread");
	while (mutex->other[0])
		sim_block(mutex, "a mutex", SIM_NEVER);
	mutex->other[0] = sys_thread_id();
}

static void sys_mutex_unlock(union gyre__mutex *mutex)
{
	if (mutex->other[0] != sys_thread_id())
		sim_fail("a mutex is unlocked by somebody else");
	sim_memory_drain();
	mutex->other[0] = 0;
	sim_wake(mutex);
	sim_point("mutex_unlock");
}

/* Once a process, so it may not be part of any seed. */
static int sys_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	(void)prepare;
	(void)parent;
	(void)child;
	return 0;
}

static void sys_yield(void)
{
	sim_memory_drain();
	sim_relax("yield");
}

/* -------------------------------------------------------- for scenarios -- */

int sim_scenario_pipe(int ret[2])
{
	return pipe_make(ret, true);
}

static int data_open(struct sim_data *data)
{
	struct sim_file *file = sim_file_new(SIM_FILE_DATA);

	file->scenarios = true;
	sim_handle_open(&file->handle, data, false);
	return sim_file_open(file);
}

int sim_scenario_file(const void *data, size_t len)
{
	return data_open(sim_data_new(data, len));
}

int sim_scenario_reopen(int fd)
{
	return data_open(sim_file_get(fd)->handle.data);
}

int sim_scenario_close(int fd)
{
	return file_close(fd);
}

int sim_scenario_write(int fd, const void *data, size_t len)
{
	struct sim_file *file = sim_file_get(fd);

	return file ? (int)sim_file_write(file, data, len, 0) : -EBADF;
}

/* --------------------------------------------------------- begin, end -- */

void sim_kernel_prepare(void)
{
	kernel.arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	kernel.graves = calloc(1, sizeof(*kernel.graves));
	kernel.blocks = calloc(BLOCKS_MAX, sizeof(kernel.blocks[0]));
	if (kernel.arena == MAP_FAILED || !kernel.graves || !kernel.blocks)
		abort();
	sim_uring_prepare();
}

void sim_kernel_begin(bool deadly)
{
	kernel.used = 0;
	kernel.block_count = 0;
	memset(kernel.graves->dead, 0, kernel.graves->used);
	memset(kernel.graves->stack, 0, kernel.graves->used);
	kernel.graves->used = 0;
	kernel.pipe_count = 0;
	kernel.sleepers = NULL;
	kernel.failable = kernel.threads_live = kernel.mappings_excused = 0;
	memset(kernel.fds_excused, 0, sizeof(kernel.fds_excused));
	memset(kernel.files, 0, sizeof(kernel.files));
	memset(kernel.fds, 0, sizeof(kernel.fds));
	roll_faults(deadly);
	sim_files_begin();
	sim_ledger_begin();
	sim_uring_begin();
}

/* What is freed is given out once a seed, so it stays as it was. */
static void check_dead(const struct block *block)
{
	size_t i;

	if ((unsigned char)block->ptr[0] == DEAD_BYTE &&
	    memcmp(block->ptr, block->ptr + 1, block->len - 1) == 0)
		return;
	for (i = 0; i < block->len; i++)
		if ((unsigned char)block->ptr[i] != DEAD_BYTE)
			sim_fail("memory is written after it was freed: byte %zu of %zu", i,
				 block->len);
}

void sim_excuse_mapping(void)
{
	kernel.mappings_excused++;
}

void sim_excuse_descriptor(int fd)
{
	if (fd >= FD_FIRST && fd < FD_FIRST + FILES_MAX)
		kernel.fds_excused[fd - FD_FIRST] = true;
}

static void check_block(unsigned number)
{
	const struct block *block = &kernel.blocks[number];

	if (!block->live) {
		if (!block->ring)
			check_dead(block);
		return;
	}
	if (block->mapped && kernel.mappings_excused > 0) {
		kernel.mappings_excused--;
		return;
	}
	sim_fail("%zu bytes are left %s after the end (block %u)", block->len,
		 block->mapped ? "mapped" : "allocated", number);
}

void sim_kernel_check_end(void)
{
	unsigned i;

	for (i = 0; i < kernel.block_count; i++)
		check_block(i);
	for (i = 0; i < FILES_MAX; i++)
		if (kernel.fds[i] && !kernel.fds_excused[i])
			sim_fail("descriptor %u is left open after the end%s", i + FD_FIRST,
				 kernel.fds[i]->scenarios ? " by the scenario" : "");
	if (kernel.threads_live)
		sim_fail("%u threads were not joined", kernel.threads_live);
	sim_uring_check_end();
}

const struct gyre__sys gyre__sys_sim = {
	.uring_setup = sim_uring_setup,
	.uring_enter = sim_uring_enter,
	.uring_register = sim_uring_register,
	.alloc = sim_alloc,
	.free = sim_free,
	.mmap = sim_mmap,
	.munmap = sim_munmap,
	.madvise = sim_madvise,
	.mprotect = sim_mprotect,
	.mincore = sim_mincore,
	.eventfd = sim_eventfd,
	.eventfd_read = sim_eventfd_read,
	.eventfd_write = sim_eventfd_write,
	.pipe = sim_pipe,
	.close = sim_close,
	.fstat = sim_fstat,
	.fd_flags = sim_fd_flags,
	.file_limit = sim_file_limit,
	.futex_wait = sim_futex_wait,
	.futex_wake = sim_futex_wake,
	.read = sim_read,
	.write = sim_write,
	.pread = sim_pread,
	.pwrite = sim_pwrite,
	.preadv2 = sim_preadv2,
	.pwritev2 = sim_pwritev2,
	.poll = sim_poll,
	.fsync = sim_fsync,
	.fdatasync = sim_fsync,
	.openat = sim_openat,
	.statx = sim_statx,
	.fallocate = sim_fallocate,
	.now_ns = sys_now_ns,
	.cpu_ns = sys_now_ns,
	.relax = sys_relax,
	.yield = sys_yield,
	.sleep_ns = sys_sleep_ns,
	.thread_start = sys_thread_start,
	.thread_join = sys_thread_join,
	.thread_pin = sys_thread_pin,
	.cpu_count = sys_cpu_count,
	.self_get = sim_pointer_get,
	.self_set = sys_self_set,
	.thread_id = sys_thread_id,
	.mutex_init = sys_mutex_init,
	.mutex_done = sys_mutex_done,
	.mutex_lock = sys_mutex_lock,
	.mutex_unlock = sys_mutex_unlock,
	.at_fork = sys_at_fork,
};
