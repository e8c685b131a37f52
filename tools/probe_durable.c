/* SPDX-License-Identifier: MIT */
/*
 * Which way of making a write durable is faster here: pwrite() and then
 * fdatasync(), or one pwritev2() with RWF_DSYNC. Neither is everywhere. The
 * two take turns, with one thread and with many, each overwriting blocks of
 * its own that are already there.
 */
#include "probe.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define ROUNDS		7u
#define ROUND_NS	UINT64_C(40000000)
/* Less than this is no difference, nor is what a second round contradicts. */
#define CLEARLY		1.1
#define BLOCKS		16u		/* of each thread */

_Static_assert(PROBE_DURABLE_THREADS * BLOCKS * PROBE_BLOCK < PROBE_SCRATCH,
	       "the writers' blocks are not those of the tries");

struct round {
	int fd;
	enum probe_durable method;
	uint64_t end_ns;
	_Atomic uint64_t writes;
	_Atomic int error;
};

struct writer {
	struct round *round;
	unsigned index;
	pthread_t thread;
	bool started;
};

static int write_durably(const struct round *round, char *block, off_t offset)
{
	struct iovec iov = { .iov_base = block, .iov_len = PROBE_BLOCK };

	if (pwritev2(round->fd, &iov, 1, offset, round->method == PROBE_DSYNC ? RWF_DSYNC : 0) < 0)
		return -errno;
	if (round->method == PROBE_FDATASYNC && fdatasync(round->fd) < 0)
		return -errno;
	return 0;
}

static void *writer_main(void *arg)
{
	struct writer *writer = arg;
	struct round *round = writer->round;
	char block[PROBE_BLOCK];
	unsigned i = 0;

	memset(block, 'd', sizeof(block));
	do {
		unsigned number = writer->index * BLOCKS + i++ % BLOCKS;
		int rc;

		memcpy(block, &i, sizeof(i));
		rc = write_durably(round, block, (off_t)number * PROBE_BLOCK);
		if (rc < 0) {
			atomic_store(&round->error, rc);
			break;
		}
		atomic_fetch_add(&round->writes, 1);
	} while (bench_now_ns() < round->end_ns);
	return NULL;
}

/* Microseconds that a thread waits for a write; NAN when one failed. */
static double run_round(int fd, enum probe_durable method, unsigned threads)
{
	struct round round = { .fd = fd, .method = method };
	struct writer writers[PROBE_DURABLE_THREADS];
	uint64_t since = bench_now_ns(), took;
	unsigned i;

	round.end_ns = since + ROUND_NS;
	for (i = 0; i < threads; i++) {
		writers[i] = (struct writer){ .round = &round, .index = i };
		writers[i].started = pthread_create(&writers[i].thread, NULL, writer_main,
						    &writers[i]) == 0;
		if (!writers[i].started)
			atomic_store(&round.error, -EAGAIN);
	}
	for (i = 0; i < threads; i++)
		if (writers[i].started)
			pthread_join(writers[i].thread, NULL);
	took = bench_now_ns() - since;
	if (atomic_load(&round.error) < 0 || atomic_load(&round.writes) == 0)
		return NAN;
	return (double)took / 1e3 * threads / (double)atomic_load(&round.writes);
}

static void judge(struct probe_path *path, unsigned which, double *ratios)
{
	path->ratio[which] = probe_span_of(ratios, ROUNDS).median;
	path->faster[which] = PROBE_DURABLES;
	if (path->ratio[which] > CLEARLY && ratios[1] > 1)
		path->faster[which] = PROBE_DSYNC;
	else if (path->ratio[which] < 1 / CLEARLY && ratios[ROUNDS - 2] < 1)
		path->faster[which] = PROBE_FDATASYNC;
}

static void compare(struct probe *probe, unsigned which, unsigned threads)
{
	double values[PROBE_DURABLES][ROUNDS], ratios[ROUNDS];
	char text[96];
	unsigned round, method;

	for (round = 0; round < ROUNDS; round++) {
		snprintf(text, sizeof(text),
			 "measuring durable writes, %u thread%s, round %u of %u", threads,
			 threads == 1 ? "" : "s", round + 1, ROUNDS);
		probe_progress(probe, text);
		for (method = 0; method < PROBE_DURABLES; method++)
			values[method][round] = run_round(probe->path.fd, method, threads);
		ratios[round] = values[PROBE_FDATASYNC][round] / values[PROBE_DSYNC][round];
	}
	for (method = 0; method < PROBE_DURABLES; method++)
		probe->path.durable[method][which] = probe_span_of(values[method], ROUNDS);
	judge(&probe->path, which, ratios);
}

void probe_ask_durable(struct probe *probe)
{
	compare(probe, 0, 1);
	compare(probe, 1, PROBE_DURABLE_THREADS);
}
