/* SPDX-License-Identifier: MIT */
#include "bench_parse.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	const char *at;
	const char *end;
	unsigned depth;
	const char *wrong;	/* the first thing; NULL: nothing so far */
};

static bool read_value(struct reader *reader, struct bench_value *value);

static bool fail(struct reader *reader, const char *wrong)
{
	if (!reader->wrong)
		reader->wrong = wrong;
	return false;
}

static void skip_blanks(struct reader *reader)
{
	while (reader->at < reader->end && memchr(" \t\r\n", *reader->at, 4))
		reader->at++;
}

static bool next_is(struct reader *reader, char c)
{
	skip_blanks(reader);
	if (reader->at == reader->end || *reader->at != c)
		return false;
	reader->at++;
	return true;
}

static bool read_word(struct reader *reader, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(reader->end - reader->at) < len || memcmp(reader->at, word, len) != 0)
		return fail(reader, "a value was expected");
	reader->at += len;
	return true;
}

/* ------------------------------------------------------------- strings -- */

static bool read_hex(struct reader *reader, unsigned *ret)
{
	unsigned i, code = 0;

	for (i = 0; i < 4; i++) {
		const char digits[] = "0123456789abcdef";
		const char *digit;

		if (reader->at == reader->end || *reader->at == '\0')
			return fail(reader, "a string does not end");
		digit = strchr(digits, *reader->at | (*reader->at >= 'A' ? 0x20 : 0));
		if (!digit)
			return fail(reader, "\\u wants four hexadecimal digits");
		code = code * 16 + (unsigned)(digit - digits);
		reader->at++;
	}
	*ret = code;
	return true;
}

/* As UTF-8. Halves of pairs stay apart: text for people, and never ours. */
static char *put_code(char *to, unsigned code)
{
	if (code < 0x80) {
		*to++ = (char)code;
	} else if (code < 0x800) {
		*to++ = (char)(0xc0 | code >> 6);
		*to++ = (char)(0x80 | (code & 0x3f));
	} else {
		*to++ = (char)(0xe0 | code >> 12);
		*to++ = (char)(0x80 | (code >> 6 & 0x3f));
		*to++ = (char)(0x80 | (code & 0x3f));
	}
	return to;
}

static bool read_escape(struct reader *reader, char **to)
{
	static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
	const char *name;
	unsigned code;

	if (reader->at == reader->end)
		return fail(reader, "a string does not end");
	if (*reader->at == 'u') {
		reader->at++;
		if (!read_hex(reader, &code))
			return false;
		if (code == 0)
			return fail(reader, "a string holds a NUL");
		*to = put_code(*to, code);
		return true;
	}
	name = *reader->at ? strchr(names, *reader->at) : NULL;
	if (!name)
		return fail(reader, "a backslash before what needs none");
	*(*to)++ = means[name - names];
	reader->at++;
	return true;
}

/* What is read is never longer than what it is read from. */
static char *read_string(struct reader *reader)
{
	const char *quote = reader->at;
	char *string, *to;
	size_t len;

	while (quote < reader->end && *quote != '"')
		quote += *quote == '\\' && reader->end - quote > 1 ? 2 : 1;
	len = (size_t)(quote - reader->at);
	string = to = malloc(len + 1);
	if (!string) {
		fail(reader, "there is no memory for it");
		return NULL;
	}
	while (reader->at < reader->end && *reader->at != '"') {
		if ((unsigned char)*reader->at < 0x20) {
			fail(reader, "a control character in a string");
			goto out_free;
		}
		if (*reader->at != '\\')
			*to++ = *reader->at++;
		else if (reader->at++, !read_escape(reader, &to))
			goto out_free;
	}
	if (reader->at == reader->end) {
		fail(reader, "a string does not end");
		goto out_free;
	}
	reader->at++;
	*to = '\0';
	return string;

out_free:
	free(string);
	return NULL;
}

/* ------------------------------------------------------------- numbers -- */

static void skip_digits(const char **at, const char *end)
{
	while (*at < end && **at >= '0' && **at <= '9')
		(*at)++;
}

/* Where the number at reader->at ends; NULL when that is none. */
static const char *number_end(const struct reader *reader)
{
	const char *at = reader->at, *digits;

	at += at < reader->end && *at == '-';
	digits = at;
	skip_digits(&at, reader->end);
	if (at == digits || (*digits == '0' && at - digits > 1))
		return NULL;
	if (at < reader->end && *at == '.') {
		digits = ++at;
		skip_digits(&at, reader->end);
		if (at == digits)
			return NULL;
	}
	if (at < reader->end && (*at == 'e' || *at == 'E')) {
		at++;
		at += at < reader->end && (*at == '+' || *at == '-');
		digits = at;
		skip_digits(&at, reader->end);
		if (at == digits)
			return NULL;
	}
	return at;
}

static bool read_number(struct reader *reader, double *ret)
{
	const char *end = number_end(reader);
	char text[64];
	size_t len;

	if (!end)
		return fail(reader, "a value was expected");
	len = (size_t)(end - reader->at);
	if (len >= sizeof(text))
		return fail(reader, "a number is too long");
	memcpy(text, reader->at, len);
	text[len] = '\0';
	*ret = strtod(text, NULL);
	reader->at = end;
	return true;
}

/* -------------------------------------------------- arrays and objects -- */

static bool read_key(struct reader *reader, struct bench_value *member)
{
	if (!next_is(reader, '"'))
		return fail(reader, "a key in quotes was expected");
	member->key = read_string(reader);
	if (!member->key)
		return false;
	return next_is(reader, ':') || fail(reader, "a colon was expected");
}

static bool read_members(struct reader *reader, struct bench_value *value, char close)
{
	struct bench_value **link = &value->first;

	if (next_is(reader, close))
		return true;
	if (++reader->depth > BENCH_JSON_DEPTH_MAX)
		return fail(reader, "it is nested too deeply");
	do {
		*link = calloc(1, sizeof(**link));
		if (!*link)
			return fail(reader, "there is no memory for it");
		if (close == '}' && !read_key(reader, *link))
			return false;
		if (!read_value(reader, *link))
			return false;
		link = &(*link)->next;
	} while (next_is(reader, ','));
	reader->depth--;
	return next_is(reader, close) || fail(reader, "a comma or the end of a list was expected");
}

static bool read_value(struct reader *reader, struct bench_value *value)
{
	skip_blanks(reader);
	if (reader->at == reader->end)
		return fail(reader, "it ends in the middle");
	switch (*reader->at) {
	case '{':
	case '[':
		value->kind = *reader->at == '{' ? BENCH_VALUE_OBJECT : BENCH_VALUE_ARRAY;
		/* A closing bracket is two behind its opening one. */
		return read_members(reader, value, (char)(*reader->at++ + 2));
	case '"':
		value->kind = BENCH_VALUE_STRING;
		reader->at++;
		value->string = read_string(reader);
		return value->string != NULL;
	case 't':
	case 'f':
		value->kind = BENCH_VALUE_BOOL;
		value->number = *reader->at == 't';
		return read_word(reader, *reader->at == 't' ? "true" : "false");
	case 'n':
		return read_word(reader, "null");
	default:
		value->kind = BENCH_VALUE_NUMBER;
		return read_number(reader, &value->number);
	}
}

struct bench_value *bench_value_parse(const char *text, size_t len, char *why, size_t size)
{
	struct reader reader = { .at = text, .end = text + len };
	struct bench_value *value = calloc(1, sizeof(*value));
	unsigned line = 1;
	const char *at;
	bool good;

	if (!value) {
		snprintf(why, size, "there is no memory for it");
		return NULL;
	}
	good = read_value(&reader, value);
	skip_blanks(&reader);
	if (good && reader.at != reader.end)
		good = fail(&reader, "something follows its end");
	if (good)
		return value;
	/* Whatever was missed there: a file that was cut off is the usual case. */
	if (reader.at == reader.end)
		reader.wrong = "it ends in the middle";
	for (at = text; at < reader.at; at++)
		line += *at == '\n';
	snprintf(why, size, "line %u: %s", line, reader.wrong);
	bench_value_free(value);
	return NULL;
}

void bench_value_free(struct bench_value *value)
{
	while (value) {
		struct bench_value *next = value->next;

		bench_value_free(value->first);
		free(value->key);
		free(value->string);
		free(value);
		value = next;
	}
}

/* ------------------------------------------------------------- members -- */

const struct bench_value *bench_value_get(const struct bench_value *value, const char *key)
{
	const struct bench_value *member;

	if (!value || value->kind != BENCH_VALUE_OBJECT)
		return NULL;
	for (member = value->first; member; member = member->next)
		if (strcmp(member->key, key) == 0)
			return member;
	return NULL;
}

double bench_value_number(const struct bench_value *value, const char *key)
{
	const struct bench_value *member = bench_value_get(value, key);

	return member && member->kind == BENCH_VALUE_NUMBER ? member->number : NAN;
}

const char *bench_value_string(const struct bench_value *value, const char *key)
{
	const struct bench_value *member = bench_value_get(value, key);

	return member && member->kind == BENCH_VALUE_STRING ? member->string : NULL;
}
