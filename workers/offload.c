/* SPDX-License-Identifier: MIT */
/*
 * All that threads share here is under the pool's lock. An idle helper waits in
 * a poll of its own eventfd, in a stack of which the latest is woken first.
 *
 * Who takes a helper off that stack writes its eventfd, both under the lock: so
 * a helper that finds itself told has been written to, and one that is not told
 * never will be, and may go. None of them waits longer than its idle time,
 * whatever became of a wake-up.
 *
 * A helper that ends by itself is joined by the next one that does, the last one
 * by close(): no more than one is ever left over.
 */
#include "offload.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#include "ring/atomic.h"
#include "ring/sys.h"

struct helper {
	struct gyre__offload *pool;
	struct helper *next_idle;	/* under the lock */
	bool told;			/* under the lock: its eventfd was written */
	/* Its own; under the lock while it is idle; -1: ends instead of sleeping. */
	int eventfd;
	unsigned number;
	uintptr_t thread;		/* for who joins it */
	char name[16];
};

struct gyre__offload {
	union gyre__mutex closing;	/* held through close(); taken before the lock */
	union gyre__mutex lock;		/* of all that follows up to config */
	struct gyre__offload_work *first, *last;	/* if any is queued, somebody lives */
	struct helper *idle;		/* the latest first */
	struct helper *ended;		/* by itself, and not joined yet */
	unsigned live, idle_count;
	/* For good; from then on helpers[] and ended are the closer's. */
	bool closed;

	struct gyre__offload_config config;	/* never changed */
	char name[10];			/* cut so that "-hNNNN" still fits into a thread's name */
	struct helper *helpers[];	/* by number; under the lock */
};

static void lock(struct gyre__offload *pool)
{
	gyre__sys->mutex_lock(&pool->lock);
}

static void unlock(struct gyre__offload *pool)
{
	gyre__sys->mutex_unlock(&pool->lock);
}

/* --------------------------------------------------------------- helpers -- */

/* First the number, then the descriptor: a forked child must not close a stranger's. */
static void helper_close_eventfd(struct helper *helper)
{
	int fd = helper->eventfd;

	helper->eventfd = -1;
	if (fd >= 0)
		gyre__sys->close(fd);
}

static void helper_join(struct helper *helper)
{
	if (!helper)
		return;
	gyre__sys->thread_join(helper->thread);
	gyre__free(helper);
}

static void idle_add(struct gyre__offload *pool, struct helper *helper)
{
	helper->told = false;
	helper->next_idle = pool->idle;
	pool->idle = helper;
	pool->idle_count++;
}

static void idle_remove(struct gyre__offload *pool, struct helper *helper)
{
	struct helper **at = &pool->idle;

	while (*at != helper)
		at = &(*at)->next_idle;
	*at = helper->next_idle;
	pool->idle_count--;
}

/* Under the lock. Not again where the host has closed it: a stranger may have its number next. */
static bool helper_tell(struct helper *helper)
{
	int rc = helper->eventfd < 0 ? -EBADF : gyre__sys->eventfd_write(helper->eventfd);

	if (rc == -EBADF)
		helper->eventfd = -1;
	return rc >= 0;
}

/* Under the lock. False: there is none, or none that can be woken before its time is over. */
static bool tell_idle(struct gyre__offload *pool)
{
	struct helper *helper = pool->idle;

	while (helper && !helper_tell(helper))
		helper = helper->next_idle;
	if (!helper)
		return false;
	idle_remove(pool, helper);
	helper->told = true;
	return true;
}

/* Until somebody writes. 0: somebody has, and it is empty again. */
static int await_eventfd(int eventfd, uint64_t idle_ns)
{
	uint64_t now_ns = gyre__sys->now_ns(), deadline_ns = gyre__deadline(now_ns, idle_ns);
	struct pollfd pollfd = { .fd = eventfd, .events = POLLIN };
	int rc;

	do {
		rc = gyre__sys->poll(&pollfd, 1, deadline_ns - now_ns);
		now_ns = gyre__sys->now_ns();
	} while (rc == -EINTR && now_ns < deadline_ns);
	if (rc <= 0)
		return rc < 0 ? rc : -ETIME;
	return pollfd.revents & POLLNVAL ? -EBADF : gyre__sys->eventfd_read(eventfd);
}

/*
 * Under the lock, but not while it sleeps. False: nobody has told it anything.
 * An eventfd that is not empty afterwards would end each later sleep, so it goes.
 */
static bool helper_sleep(struct helper *helper)
{
	struct gyre__offload *pool = helper->pool;
	int fd = helper->eventfd, rc;

	idle_add(pool, helper);
	unlock(pool);
	rc = await_eventfd(fd, pool->config.idle_ns);
	lock(pool);
	if (rc == -EBADF)
		helper->eventfd = -1;
	if (!helper->told) {
		idle_remove(pool, helper);
		return false;
	}
	if (rc < 0)
		helper_close_eventfd(helper);
	return true;
}

static struct gyre__offload_work *take_work(struct gyre__offload *pool)
{
	struct gyre__offload_work *work = pool->first;

	if (work)
		pool->first = work->next;
	return work;
}

/* Under the lock, but not while work runs. Until there is none, and the helper's time is over. */
static void helper_work(struct helper *helper, bool may_sleep)
{
	struct gyre__offload *pool = helper->pool;
	struct gyre__offload_work *work;
	bool stays;

	do {
		while ((work = take_work(pool))) {
			unlock(pool);
			work->run(work);
			lock(pool);
		}
		stays = may_sleep && !pool->closed && helper->eventfd >= 0 && helper_sleep(helper);
	} while (stays || pool->first);
}

/* Under the lock, as its last. Who has ended before, and is to be joined now; NULL: nobody. */
static struct helper *helper_leave(struct helper *helper)
{
	struct gyre__offload *pool = helper->pool;
	struct helper *before = NULL;

	pool->live--;
	if (!pool->closed) {
		pool->helpers[helper->number] = NULL;
		before = pool->ended;
		pool->ended = helper;
	}
	return before;
}

static void helper_main(void *arg)
{
	struct helper *helper = arg, *before;
	struct gyre__offload *pool = helper->pool;
	const struct gyre__offload_config *config = &pool->config;
	bool begun;
	int fd = gyre__sys->eventfd();

	helper->eventfd = fd < 0 ? -1 : fd;
	begun = !config->begin || config->begin(config->arg) >= 0;
	lock(pool);
	if (begun || pool->live == 1)
		helper_work(helper, begun);
	before = helper_leave(helper);
	unlock(pool);
	if (begun && config->finish)
		config->finish(config->arg);
	helper_close_eventfd(helper);
	helper_join(before);
}

static unsigned free_number(const struct gyre__offload *pool)
{
	unsigned number = 0;

	while (pool->helpers[number])
		number++;
	return number;
}

/* Under the lock, which its thread waits for. -EDEADLK: there may be no more of them. */
static int helper_start(struct gyre__offload *pool)
{
	struct helper *helper;
	int rc;

	if (pool->live == pool->config.threads_max)
		return -EDEADLK;
	helper = gyre__zalloc(sizeof(*helper));
	if (!helper)
		return -ENOMEM;
	helper->pool = pool;
	helper->eventfd = -1;
	helper->number = free_number(pool);
	snprintf(helper->name, sizeof(helper->name), "%s-%c%u", pool->name, pool->config.letter,
		 helper->number);
	rc = gyre__sys->thread_start(helper->name, helper_main, helper, &helper->thread);
	if (rc < 0) {
		gyre__free(helper);
		return rc;
	}
	pool->helpers[helper->number] = helper;
	pool->live++;
	return 0;
}

/* ------------------------------------------------------------------ pool -- */

int gyre__offload_open(const struct gyre__offload_config *config, struct gyre__offload **ret)
{
	struct gyre__offload *pool;

	if (config->threads_max == 0 || config->threads_max > GYRE__OFFLOAD_THREADS_MAX)
		return -EINVAL;
	pool = gyre__zalloc(sizeof(*pool) + config->threads_max * sizeof(pool->helpers[0]));
	if (!pool)
		return -ENOMEM;
	pool->config = *config;
	snprintf(pool->name, sizeof(pool->name), "%s", config->name);
	pool->config.name = pool->name;
	if (!pool->config.letter)
		pool->config.letter = 'h';
	if (pool->config.idle_ns == 0)
		pool->config.idle_ns = GYRE__OFFLOAD_IDLE_NS;
	gyre__sys->mutex_init(&pool->closing);
	gyre__sys->mutex_init(&pool->lock);
	*ret = pool;
	return 0;
}

static void append_work(struct gyre__offload *pool, struct gyre__offload_work *work)
{
	work->next = NULL;
	if (pool->first)
		pool->last->next = work;
	else
		pool->first = work;
	pool->last = work;
}

const _Atomic uint32_t gyre__offload_everybody = UINT32_MAX;

int gyre__offload_push(struct gyre__offload *pool, struct gyre__offload_work *work,
		       const _Atomic uint32_t *stuck)
{
	int rc = -ESHUTDOWN;

	lock(pool);
	if (!pool->closed) {
		rc = tell_idle(pool) ? 0 : helper_start(pool);
		/*
		 * Whoever lives looks into the queue before it ends. seq_cst: pairs with the
		 * add in count_waiting(). Under the lock: who counts itself after this
		 * comes to gyre__offload_relieve() later.
		 */
		if (pool->live > (stuck ? gyre__load(stuck, seq_cst) : 0))
			rc = 0;
		if (rc == 0)
			append_work(pool, work);
	}
	unlock(pool);
	return rc;
}

int gyre__offload_relieve(struct gyre__offload *pool, const _Atomic uint32_t *waiting,
			  struct gyre__offload_work **ret_left)
{
	int rc = 0;

	lock(pool);
	if (pool->first && !tell_idle(pool))
		rc = pool->closed ? -ESHUTDOWN : helper_start(pool);
	/* seq_cst: pairs with the adds in count_waiting(), the caller's own among them. */
	if (rc < 0 && pool->live > gyre__load(waiting, seq_cst))
		rc = 0;
	if (rc < 0) {
		*ret_left = pool->first;
		pool->first = NULL;
	}
	unlock(pool);
	return rc;
}

void gyre__offload_close(struct gyre__offload *pool)
{
	struct helper *helper;
	unsigned i;

	gyre__sys->mutex_lock(&pool->closing);
	lock(pool);
	pool->closed = true;
	while (tell_idle(pool))
		;
	unlock(pool);
	for (i = 0; i < pool->config.threads_max; i++) {
		helper = pool->helpers[i];
		pool->helpers[i] = NULL;
		helper_join(helper);
	}
	helper = pool->ended;
	pool->ended = NULL;
	helper_join(helper);
	gyre__sys->mutex_unlock(&pool->closing);
}

/* In a forked child only: its copy of what the parent has still in use. */
static void helper_forget(struct helper *helper)
{
	if (!helper)
		return;
	helper_close_eventfd(helper);
	gyre__free(helper);
}

void gyre__offload_free(struct gyre__offload *pool)
{
	unsigned i;

	if (!pool)
		return;
	for (i = 0; i < pool->config.threads_max; i++)
		helper_forget(pool->helpers[i]);
	helper_forget(pool->ended);
	gyre__sys->mutex_done(&pool->closing);
	gyre__sys->mutex_done(&pool->lock);
	gyre__free(pool);
}

unsigned gyre__offload_threads(struct gyre__offload *pool, unsigned *ret_idle)
{
	unsigned live;

	lock(pool);
	live = pool->live;
	*ret_idle = pool->idle_count;
	unlock(pool);
	return live;
}
