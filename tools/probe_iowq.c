/* SPDX-License-Identifier: MIT */
/*
 * Which operations the kernel gives to threads of its own, instead of doing
 * them within io_uring_enter() or when the device reports. Such a hand-over
 * costs microseconds, so the plain system call is then no worse.
 *
 * These threads belong to the thread that submits, appear among the threads of
 * its process, and stay for seconds after their work. So each job is done by a
 * thread and a ring that are new, and looked for is a thread "iou-wrk-TID".
 */
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

const struct probe_job_about probe_jobs[PROBE_JOBS] = {
	[PROBE_JOB_NOP] = { "NOP", "nop" },
	[PROBE_JOB_READ_CACHED] = { "read, in the page cache", "read_cached" },
	[PROBE_JOB_READ_UNCACHED] = { "read, not in the page cache", "read_uncached" },
	[PROBE_JOB_READ_DIRECT] = { "read, O_DIRECT", "read_direct" },
	[PROBE_JOB_WRITE] = { "write", "write" },
	[PROBE_JOB_WRITE_DIRECT] = { "write, O_DIRECT", "write_direct" },
	[PROBE_JOB_FSYNC] = { "fsync", "fsync" },
	[PROBE_JOB_FALLOCATE] = { "fallocate", "fallocate" },
	[PROBE_JOB_OPENAT] = { "openat, existing", "openat" },
	[PROBE_JOB_OPENAT_CREATE] = { "openat, creating", "openat_create" },
	[PROBE_JOB_STATX] = { "statx", "statx" },
};

struct task {
	const struct probe *probe;
	enum probe_job job;
	void *buf;
	struct statx stx;
	struct probe_job_result result;
};

static bool has_kernel_thread(pid_t tid)
{
	char wanted[32], path[64 + NAME_MAX], name[32];
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	bool found = false;

	/* Names are cut after 15 bytes, numbers of threads are not longer than 7. */
	snprintf(wanted, sizeof(wanted), "iou-wrk-%d\n", (int)tid);
	while (dir && !found && (entry = readdir(dir)) != NULL) {
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		found = fgets(name, sizeof(name), file) && strcmp(name, wanted) == 0;
		fclose(file);
	}
	if (dir)
		closedir(dir);
	return found;
}

static bool is_direct(enum probe_job job)
{
	return job == PROBE_JOB_READ_DIRECT || job == PROBE_JOB_WRITE_DIRECT;
}

static void prepare(struct io_uring_sqe *sqe, struct task *task)
{
	const char *dir = task->probe->plan.path;
	int fd = task->probe->path.fd;

	switch (task->job) {
	case PROBE_JOB_READ_CACHED:
	case PROBE_JOB_READ_UNCACHED:
	case PROBE_JOB_READ_DIRECT:
		io_uring_prep_read(sqe, fd, task->buf, PROBE_BLOCK, PROBE_TRY_OFFSET);
		break;
	case PROBE_JOB_WRITE:
	case PROBE_JOB_WRITE_DIRECT:
		io_uring_prep_write(sqe, fd, task->buf, PROBE_BLOCK, PROBE_TRY_OFFSET);
		break;
	case PROBE_JOB_FSYNC:
		io_uring_prep_fsync(sqe, fd, 0);
		break;
	case PROBE_JOB_FALLOCATE:
		io_uring_prep_fallocate(sqe, fd, FALLOC_FL_KEEP_SIZE, PROBE_SCRATCH, PROBE_BLOCK);
		break;
	case PROBE_JOB_OPENAT:
		io_uring_prep_openat(sqe, AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
		break;
	case PROBE_JOB_OPENAT_CREATE:
		io_uring_prep_openat(sqe, AT_FDCWD, dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		break;
	case PROBE_JOB_STATX:
		io_uring_prep_statx(sqe, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &task->stx);
		break;
	default:
		io_uring_prep_nop(sqe);
		break;
	}
}

static bool opens(enum probe_job job)
{
	return job == PROBE_JOB_OPENAT || job == PROBE_JOB_OPENAT_CREATE;
}

static void *task_main(void *arg)
{
	struct task *task = arg;
	struct io_uring_cqe *cqe;
	struct io_uring uring;

	if (probe_ring_open(task->probe, &uring) < 0)
		return NULL;
	prepare(io_uring_get_sqe(&uring), task);
	if (io_uring_submit_and_wait(&uring, 1) == 1 && io_uring_wait_cqe(&uring, &cqe) == 0) {
		task->result.res = cqe->res;
		task->result.punted = has_kernel_thread((pid_t)syscall(__NR_gettid)) ? PROBE_YES :
										      PROBE_NO;
		if (opens(task->job) && cqe->res >= 0)
			close(cqe->res);
		io_uring_cqe_seen(&uring, cqe);
	}
	io_uring_queue_exit(&uring);
	return NULL;
}

/*
 * The file as the job wants it: in the page cache, or out of it, where O_DIRECT has no conflicts.
 */
static void get_ready(const struct task *task)
{
	int fd = task->probe->path.fd;

	if (task->job == PROBE_JOB_READ_UNCACHED || is_direct(task->job))
		probe_path_forget(task->probe);
	else if (pread(fd, task->buf, PROBE_BLOCK, PROBE_TRY_OFFSET) < 0)
		return;
	if (is_direct(task->job))
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT);
}

static bool can_do(const struct probe *probe, enum probe_job job)
{
	if (is_direct(job))
		return probe->path.direct == PROBE_YES;
	return job != PROBE_JOB_OPENAT_CREATE || probe->path.tmpfile == PROBE_YES;
}

static void do_job(struct probe *probe, enum probe_job job, void *buf)
{
	struct task task = { .probe = probe, .job = job, .buf = buf };
	int fd = probe->path.fd;
	pthread_t thread;

	get_ready(&task);
	if (pthread_create(&thread, NULL, task_main, &task) == 0)
		pthread_join(thread, NULL);
	if (is_direct(job))
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT);
	probe->path.job[job] = task.result;
}

void probe_ask_iowq(struct probe *probe)
{
	unsigned job;
	void *buf;

	/* Before Linux 5.12 these threads were the kernel's own, and not to be seen. */
	if (probe->ring.setup_error < 0 || probe->ring.enter_error < 0 ||
	    !(probe->ring.features & IORING_FEAT_NATIVE_WORKERS))
		return;
	probe_progress(probe, "looking for the kernel's own threads");
	buf = mmap(NULL, PROBE_BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		return;
	memset(buf, 'g', PROBE_BLOCK);
	probe->path.jobs_known = true;
	for (job = 0; job < PROBE_JOBS; job++)
		if (can_do(probe, job))
			do_job(probe, job, buf);
	munmap(buf, PROBE_BLOCK);
}
