/* SPDX-License-Identifier: MIT */
/*
 * A worker: a named thread that owns one ring, turns it until it is sealed and
 * drained, or dies, and runs its tasks between two turns.
 */
#ifndef GYRE_WORKERS_WORKER_H
#define GYRE_WORKERS_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/ring.h"
#include "task.h"

struct gyre__worker;

/* What the floor above does in a worker's own thread. */
struct gyre__worker_hooks {
	/* Before the first turn; begins worker->tasks. A negative errno stops the start. */
	int (*begin)(struct gyre__worker *worker, void *arg);
	/* After the last. */
	void (*finish)(struct gyre__worker *worker, void *arg);
	void *arg;
};

struct gyre__worker {
	struct gyre__ring ring;
	struct gyre__tasks tasks;
	struct gyre__worker_hooks hooks;
	/* 0: starting; 1: turns; negative errno: could not, or has ended. */
	_Atomic int up;
	unsigned number;
	bool pin;			/* to the CPU of its number */
	bool joinable;
	uintptr_t thread;
	char name[16];
};

/* Starts the thread of a worker whose ring is open. Negative errno: no thread. */
int gyre__worker_start(struct gyre__worker *worker);

/* Waits until it turns; a negative errno if it could not. */
int gyre__worker_wait_until_up(struct gyre__worker *worker);

/* Waits for its thread, which must have been told to end. */
void gyre__worker_join(struct gyre__worker *worker);

static inline bool gyre__worker_is_dead(struct gyre__worker *worker)
{
	return gyre__load(&worker->ring.dead, relaxed);
}

#endif
