/* SPDX-License-Identifier: MIT */
/*
 * The ring's life: set-up, its owner's arrival, teardown; and what other
 * threads may do to it. Turning it is turn.c's, its death death.c's.
 *
 * The io_uring is set up here, through the table of system calls, and described
 * to liburing in a struct io_uring, whose inline half we then use. It is made
 * disabled by whoever opens it, so that all errors are open's, and enabled by
 * its owner, as the kernel binds the ring to the thread that does that.
 *
 * Modelled in tests/models/: gyre__ring_send() in inbox.pml and close.pml,
 * gyre__ring_control() and gyre__ring_seal() in seal.pml, gyre__ring_poke() in
 * cancel.pml.
 */
#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "sanitize.h"
#include "sys.h"
#include "turn.h"

#define MEMLOCK_RETRY_NS	(500 * GYRE__NS_PER_MS)
#define MEMLOCK_PAUSE_NS	(10 * GYRE__NS_PER_MS)

#define TELL_NS_FIRST		(50 * GYRE__NS_PER_US)
#define TELL_NS_MAX		(10 * GYRE__NS_PER_MS)

#define FEATURES_NEEDED	(IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | \
			 IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG)

/* What is asked for at first, and what is left away, in order, where it is refused. */
static const unsigned setup_flags[] = {
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL,
	0,
};

#define SETUP_STEPS (sizeof(setup_flags) / sizeof(setup_flags[0]))

/*
 * -ENOMEM is tried again for a while: what closed rings held is given back by
 * the kernel up to a quarter of a second late.
 */
static int setup_patiently(struct gyre__ring *ring, unsigned flags, struct io_uring_params *params)
{
	const struct gyre__ring_config *config = &ring->config;
	uint64_t give_up_ns = 0;
	int fd;

	for (;;) {
		memset(params, 0, sizeof(*params));
		params->flags = flags | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE;
		params->cq_entries = config->inflight_max > config->entries ?
				     config->inflight_max : config->entries;
		gyre__fork_hold();
		fd = gyre__sys->uring_setup(config->entries, params);
		if (fd >= 0)
			ring->uring.ring_fd = fd;
		gyre__fork_release();
		if (fd != -ENOMEM)
			return fd;
		if (give_up_ns == 0)
			give_up_ns = gyre__sys->now_ns() + MEMLOCK_RETRY_NS;
		if (gyre__sys->now_ns() >= give_up_ns)
			return fd;
		gyre__sys->sleep_ns(MEMLOCK_PAUSE_NS);
	}
}

static int ring_setup(struct gyre__ring *ring, struct io_uring_params *params)
{
	size_t step;
	int fd = -EINVAL;

	for (step = 0; step < SETUP_STEPS && fd == -EINVAL; step++)
		fd = setup_patiently(ring, setup_flags[step], params);
	if (fd < 0)
		return fd;
	ring->uring.flags = params->flags;
	ring->uring.features = params->features;
	ring->features.setup_flags = params->flags;
	ring->features.features = params->features;
	return (params->features & FEATURES_NEEDED) == FEATURES_NEEDED ? 0 : -ENOSYS;
}

static int map_shared(struct gyre__ring *ring, size_t len, off_t offset, void **ret)
{
	int rc = gyre__sys->mmap(len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
				 ring->uring.ring_fd, offset, ret);

	if (rc < 0)
		return rc;
	/* A forked child that shared these could wreck the parent's ring. */
	rc = gyre__sys->madvise(*ret, len, MADV_DONTFORK);
	if (rc < 0)
		gyre__sys->munmap(*ret, len);
	return rc;
}

/* Says in liburing's terms where everything lies. */
static void describe(struct gyre__ring *ring, const struct io_uring_params *p, char *base)
{
	struct io_uring_sq *sq = &ring->uring.sq;
	struct io_uring_cq *cq = &ring->uring.cq;
	unsigned i;

	sq->khead = (unsigned *)(base + p->sq_off.head);
	sq->ktail = (unsigned *)(base + p->sq_off.tail);
	sq->kflags = (unsigned *)(base + p->sq_off.flags);
	sq->kdropped = (unsigned *)(base + p->sq_off.dropped);
	sq->array = (unsigned *)(base + p->sq_off.array);
	sq->ring_mask = *(unsigned *)(base + p->sq_off.ring_mask);
	sq->ring_entries = p->sq_entries;
	/* The array maps each place to the SQE of the same number, for good. */
	for (i = 0; i < p->sq_entries; i++)
		sq->array[i] = i;

	cq->khead = (unsigned *)(base + p->cq_off.head);
	cq->ktail = (unsigned *)(base + p->cq_off.tail);
	cq->koverflow = (unsigned *)(base + p->cq_off.overflow);
	cq->cqes = (struct io_uring_cqe *)(base + p->cq_off.cqes);
	cq->ring_mask = *(unsigned *)(base + p->cq_off.ring_mask);
	cq->ring_entries = p->cq_entries;
}

static int ring_map(struct gyre__ring *ring, const struct io_uring_params *p)
{
	size_t sq_bytes = p->sq_off.array + p->sq_entries * sizeof(unsigned);
	size_t cq_bytes = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	void *base, *sqes;
	int rc;

	ring->ring_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
	ring->sqes_bytes = p->sq_entries * sizeof(struct io_uring_sqe);
	rc = map_shared(ring, ring->ring_bytes, IORING_OFF_SQ_RING, &base);
	if (rc < 0)
		return rc;
	rc = map_shared(ring, ring->sqes_bytes, IORING_OFF_SQES, &sqes);
	if (rc < 0) {
		gyre__sys->munmap(base, ring->ring_bytes);
		return rc;
	}
	ring->uring.sq.ring_ptr = base;
	ring->uring.sq.sqes = sqes;
	describe(ring, p, base);
	return 0;
}

void gyre__ring_unmap(struct gyre__ring *ring)
{
	if (!ring->uring.sq.ring_ptr)
		return;
	gyre__sys->munmap(ring->uring.sq.sqes, ring->sqes_bytes);
	gyre__sys->munmap(ring->uring.sq.ring_ptr, ring->ring_bytes);
	ring->uring.sq.ring_ptr = NULL;
}

/*
 * The tombstone: a pipe whose writing end only the ring holds, as a registered
 * file. The kernel drops it when the ring's last request is gone and no sooner,
 * so end of file at our end proves that nobody writes to anybody's buffer any
 * more: the one proof there is, once completions cannot be trusted.
 */
static int ring_bury_pipe(struct gyre__ring *ring)
{
	int ends[2];
	int rc = gyre__sys->pipe(ends);

	if (rc < 0)
		return rc;
	rc = gyre__sys->uring_register(ring->uring.ring_fd, IORING_REGISTER_FILES, &ends[1], 1);
	gyre__sys->close(ends[1]);
	if (rc < 0) {
		gyre__sys->close(ends[0]);
		return rc;
	}
	ring->tomb_fd = ends[0];
	return 0;
}

static int ring_make_tomb(struct gyre__ring *ring)
{
	int rc;

	gyre__fork_hold();	/* a child with the writing end would keep us waiting for its end */
	rc = ring_bury_pipe(ring);
	gyre__fork_release();
	return rc;
}

static int ring_open_kernel_side(struct gyre__ring *ring, const char **ret_step)
{
	struct io_uring_params params;
	int rc;

	*ret_step = "io_uring_setup";
	rc = ring_setup(ring, &params);
	if (rc < 0)
		return rc;
	*ret_step = "mmap of the ring";
	rc = ring_map(ring, &params);
	if (rc < 0)
		return rc;
	*ret_step = "io_uring_register(PROBE)";
	rc = gyre__probe_opcodes(ring->uring.ring_fd, &ring->features);
	if (rc < 0)
		return rc;
	gyre__sanitize_prepare(ring);
	*ret_step = "eventfd";
	ring->wake_fd = gyre__sys->eventfd();
	if (ring->wake_fd < 0)
		return ring->wake_fd;
	*ret_step = "pipe";
	return ring_make_tomb(ring);
}

int gyre__ring_open(struct gyre__ring *ring, const struct gyre__ring_config *config,
		    const char **ret_step)
{
	int rc;

	memset(ring, 0, sizeof(*ring));
	ring->config = *config;
	ring->uring.ring_fd = ring->uring.enter_ring_fd = -1;
	ring->wake_fd = ring->tomb_fd = -1;
	ring->fork_guard.fds[0] = &ring->uring.ring_fd;
	ring->fork_guard.fds[1] = &ring->wake_fd;
	ring->fork_guard.fds[2] = &ring->tomb_fd;
	ring->fork_guard.mapping = &ring->uring.sq.ring_ptr;
	ring->drain_deadline_ns = GYRE__NEVER;
	ring->guest_deadline_ns = GYRE__NEVER;
	ring->cpus = gyre__sys->cpu_count();
	ring->window = 1;
	gyre__op_list_init(&ring->completed);
	gyre__list_init(&ring->streams.all);
	gyre__list_init(&ring->streams.wanting);
	gyre__list_init(&ring->streams.news);
	gyre__pace_init(&ring->pace, config->spin_ns);

	*ret_step = "pthread_atfork";
	rc = gyre__fork_guard_add(&ring->fork_guard);
	if (rc < 0)
		return rc;
	*ret_step = "mmap";
	rc = gyre__op_table_open(&ring->table, config->inflight_max, GYRE__RING_RESERVED);
	if (rc == 0)
		rc = gyre__timers_open(&ring->timers, ring->table.size);
	if (rc == 0)
		rc = ring_open_kernel_side(ring, ret_step);
	if (rc < 0)
		gyre__ring_close(ring);
	return rc;
}

int gyre__ring_enable(struct gyre__ring *ring)
{
	ring->owner = gyre__sys->thread_id();
	ring->now_ns = gyre__sys->now_ns();
	return gyre__sys->uring_register(ring->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL,
					 0);
}

void gyre__ring_let_go(struct gyre__ring *ring)
{
	gyre__ring_unmap(ring);
	gyre__fork_guard_close(&ring->uring.ring_fd);
	gyre__fork_guard_close(&ring->tomb_fd);
}

void gyre__ring_close(struct gyre__ring *ring)
{
	gyre__ring_let_go(ring);
	gyre__fork_guard_close(&ring->wake_fd);
	gyre__fork_guard_remove(&ring->fork_guard);
	gyre__timers_close(&ring->timers);
	gyre__op_table_close(&ring->table);
	gyre__buffers_done(&ring->buffers);
}

size_t gyre__ring_memlock(const struct gyre__ring_config *config)
{
	unsigned sq = 1, cq = 1;

	while (sq < config->entries)
		sq *= 2;
	while (cq < config->inflight_max || cq < config->entries)
		cq *= 2;
	/* SQEs; CQEs, the SQ's array and the heads and tails, each rounded up to pages */
	return (sq * sizeof(struct io_uring_sqe) + 4095) / 4096 * 4096 +
	       (cq * sizeof(struct io_uring_cqe) + sq * sizeof(unsigned) + 192 + 4095) / 4096 *
		       4096;
}

/* ---------------------------------------------------- from other threads -- */

/*
 * A wake-up that is lost is a hang, so it is tried again. But not where there is
 * no such descriptor: the host closed it, and a stranger may have the number next.
 */
static void ring_wake(struct gyre__ring *ring)
{
	uint64_t pause_ns = TELL_NS_FIRST;
	int rc;

	gyre__fetch_add(&ring->counters.wakeups_sent, 1, relaxed);
	rc = gyre__sys->eventfd_write(ring->wake_fd);

	while (rc < 0 && rc != -EBADF && pause_ns <= TELL_NS_MAX) {
		gyre__sys->sleep_ns(pause_ns);
		pause_ns *= 2;
		rc = gyre__sys->eventfd_write(ring->wake_fd);
	}
}

enum gyre_status gyre__ring_send(struct gyre__ring *ring, struct gyre__batch *batch,
				 bool *ret_woken)
{
	enum gyre__pushed pushed = gyre__inbox_push(&ring->inbox, batch);

	*ret_woken = pushed == GYRE__PUSHED_ASLEEP;
	if (*ret_woken)
		ring_wake(ring);
	if (gyre__likely(pushed != GYRE__PUSH_SEALED))
		return GYRE_OK;
	/* Acquire: pairs with the release in gyre__ring_die(), before its seal. */
	return gyre__load(&ring->dead, acquire) ? GYRE_WORKER_DEAD : GYRE_CLOSED;
}

bool gyre__ring_control(struct gyre__ring *ring, struct gyre__batch *batch)
{
	enum gyre__pushed pushed = gyre__inbox_push_control(&ring->inbox, batch);

	if (pushed == GYRE__PUSHED_ASLEEP)
		ring_wake(ring);
	return pushed != GYRE__PUSH_SEALED;
}

/*
 * The poke is one batch that all share: who finds it already sent has nothing
 * to do, as the owner clears the flag before it looks at any ticket.
 */
void gyre__ring_poke(struct gyre__ring *ring)
{
	if (gyre__exchange(&ring->poked, 1, acq_rel) == 0)
		gyre__ring_control(ring, &ring->poke);
}

void gyre__ring_seal(struct gyre__ring *ring, uint64_t drain_ns)
{
	/* Before the seal: who sees the seal (acquire in the take) sees this. */
	gyre__store(&ring->drain_ns, drain_ns, release);
	if (gyre__inbox_seal(&ring->inbox))
		ring_wake(ring);
}
