/* SPDX-License-Identifier: MIT */
/*
 * Reads JSON into a tree: reports of our own, and what fio prints. Takes what
 * RFC 8259 allows and nothing else, of at most BENCH_JSON_SIZE_MAX bytes.
 */
#ifndef BENCH_PARSE_H
#define BENCH_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#define BENCH_JSON_SIZE_MAX	(64u << 20)
#define BENCH_JSON_DEPTH_MAX	64u

enum bench_value_kind {
	BENCH_VALUE_NULL,
	BENCH_VALUE_BOOL,	/* number: 0 or 1 */
	BENCH_VALUE_NUMBER,
	BENCH_VALUE_STRING,
	BENCH_VALUE_ARRAY,
	BENCH_VALUE_OBJECT
};

struct bench_value {
	enum bench_value_kind kind;
	char *key;			/* of an object's member; else NULL */
	double number;
	char *string;
	struct bench_value *first;	/* of an array or object */
	struct bench_value *next;	/* its sibling */
};

/*
 * The whole of text. NULL, with what is wrong and where in why, when it is no
 * JSON or there is no memory.
 */
struct bench_value *bench_value_parse(const char *text, size_t len, char *why, size_t size);
/* NULL is fine. */
void bench_value_free(struct bench_value *value);

/* Of an object, a member; NULL when there is none, or value is no object (or NULL). */
const struct bench_value *bench_value_get(const struct bench_value *value, const char *key);
/* A member's number; NAN when there is none. */
double bench_value_number(const struct bench_value *value, const char *key);
/* A member's string; NULL when there is none. */
const char *bench_value_string(const struct bench_value *value, const char *key);

#endif
