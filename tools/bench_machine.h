/* SPDX-License-Identifier: MIT */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <stdint.h>

#include "bench_writer.h"

#define BENCH_TEXT	160

struct bench_machine {
	char cpu[BENCH_TEXT];
	unsigned cpus;			/* that this process may use */
	double cpu_quota;		/* of its container, in CPUs; 0: none */
	uint64_t memory;
	char kernel[BENCH_TEXT];
	char gyre[BENCH_TEXT];
	char fs[BENCH_TEXT];		/* empty when no file is used */
	char device[BENCH_TEXT];
	char device_about[BENCH_TEXT];
	char liburing[BENCH_TEXT];
	char compiler[BENCH_TEXT];
	char clock[BENCH_TEXT];
	char date[BENCH_TEXT];
	char environment[BENCH_TEXT];	/* the GYRE_* variables that are set */
};

/* fd -1: no file is used; else path is its name, or that of the directory it is in. */
void bench_machine_describe(int fd, const char *path, struct bench_machine *ret);
/* All but the file and the date, as the object "machine". */
void bench_machine_write(struct json *json, const struct bench_machine *machine);
uint64_t bench_memory_size(void);
const char *bench_liburing_version(void);

#endif
