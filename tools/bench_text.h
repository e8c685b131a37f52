/* SPDX-License-Identifier: MIT */
#ifndef BENCH_TEXT_H
#define BENCH_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Text for people. Each gives buf. */
char *bench_text_count(char *buf, size_t size, double value);		/* 1,234,567 */
char *bench_text_bytes(char *buf, size_t size, uint64_t bytes);	/* 256 MiB */
char *bench_text_figure(char *buf, size_t size, double value);		/* 1.23, 123.4, - */

#endif
