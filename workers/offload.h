/* SPDX-License-Identifier: MIT */
/*
 * The offload pool: helper threads for plain blocking work, bounded in number,
 * started when work comes and nobody is idle, gone again when none has come for
 * a while. Work starts in the order in which it was pushed.
 *
 * Any thread may push, the workers' included: a push takes a lock that is held
 * for no longer than it takes to write an eventfd or, where the pool grows, to
 * start a thread.
 *
 * Modelled in tests/models/offload.pml: gyre__offload_push(), tell_idle(),
 * helper_sleep(), helper_work(), helper_leave(), gyre__offload_close(); and in
 * tests/models/relieve.pml gyre__offload_relieve(), against the same.
 */
#ifndef GYRE_WORKERS_OFFLOAD_H
#define GYRE_WORKERS_OFFLOAD_H

#include <stdint.h>

#define GYRE__OFFLOAD_THREADS_MAX	1024	/* of one pool */
#define GYRE__OFFLOAD_IDLE_NS		UINT64_C(2000000000)

struct gyre__offload;

/* Embedded by its user; lives until run() has let go of it. */
struct gyre__offload_work {
	struct gyre__offload_work *next;	/* the pool's */
	/* On a helper thread. The last thing that it does may free work. */
	void (*run)(struct gyre__offload_work *work);
};

struct gyre__offload_config {
	const char *name;		/* threads are NAME-h0, NAME-h1 ... */
	char letter;			/* instead of the h; 0: that */
	unsigned threads_max;		/* 1 to GYRE__OFFLOAD_THREADS_MAX */
	/*
	 * In each helper's own thread, before its first work and after its last.
	 * Where begin() fails, the helper leaves its work to the others; if there
	 * are none, it does what is queued all the same, and finish() is not called.
	 */
	int (*begin)(void *arg);
	void (*finish)(void *arg);
	void *arg;
	/* How long a helper waits for work; 0: GYRE__OFFLOAD_IDLE_NS. */
	uint64_t idle_ns;
};

/* Starts no thread. The config is copied, its name too. -EINVAL, -ENOMEM. */
int gyre__offload_open(const struct gyre__offload_config *config, struct gyre__offload **ret);

extern const _Atomic uint32_t gyre__offload_everybody;

/*
 * *stuck: so many helpers are not to be counted on, as they wait for others; of
 * gyre__offload_everybody, none who has something to do. NULL: work will run.
 * -ESHUTDOWN: the pool is closed. Another negative errno: no helper is free to come
 * to it, and none could be started; -EDEADLK: as there may be no more of them.
 */
int gyre__offload_push(struct gyre__offload *pool, struct gyre__offload_work *work,
		       const _Atomic uint32_t *stuck);

/*
 * In a helper, which is about to wait for long, and stands in *waiting: what is queued
 * gets another one. 0: somebody will come to it, or there is none. Else all that are there
 * wait, and *ret_left is the list of what is to be refused. -EDEADLK: there may be no more
 * of them; -ESHUTDOWN: the pool is closed; another negative errno: none could be started.
 */
int gyre__offload_relieve(struct gyre__offload *pool, const _Atomic uint32_t *waiting,
			  struct gyre__offload_work **ret_left);

/*
 * Takes no more, runs what is queued, and returns when all threads are gone. Any
 * number of threads may call it, but no helper: each returns only then.
 */
void gyre__offload_close(struct gyre__offload *pool);

/* Frees a pool that was closed; in a forked child, any. NULL does nothing. */
void gyre__offload_free(struct gyre__offload *pool);

/* Helpers that live now, *ret_idle of them without work. */
unsigned gyre__offload_threads(struct gyre__offload *pool, unsigned *ret_idle);

#endif
