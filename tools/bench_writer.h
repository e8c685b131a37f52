/* SPDX-License-Identifier: MIT */
/* JSON, written as it comes: whoever opens a bracket closes it. */
#ifndef BENCH_WRITER_H
#define BENCH_WRITER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
	FILE *file;
	unsigned depth;
	bool first;		/* in its object or array */
};

/* key NULL, here and below: an element of an array, or the whole. bracket: '{' or '['. */
void json_open(struct json *json, const char *key, char bracket);
void json_close(struct json *json, char bracket);
/* value NULL: null. */
void json_string(struct json *json, const char *key, const char *value);
void json_integer(struct json *json, const char *key, uint64_t value);
/* A value that is not finite: null. */
void json_number(struct json *json, const char *key, double value);
void json_bool(struct json *json, const char *key, bool value);

#endif
