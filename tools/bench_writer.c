/* SPDX-License-Identifier: MIT */
#include "bench_writer.h"

#include <math.h>

static void json_newline(struct json *json)
{
	unsigned i;

	fputc('\n', json->file);
	for (i = 0; i < json->depth; i++)
		fputs("  ", json->file);
}

static void json_text(struct json *json, const char *text)
{
	const unsigned char *at;

	fputc('"', json->file);
	for (at = (const unsigned char *)text; *at; at++) {
		if (*at == '"' || *at == '\\')
			fprintf(json->file, "\\%c", *at);
		else if (*at < 0x20)
			fprintf(json->file, "\\u%04x", *at);
		else
			fputc(*at, json->file);
	}
	fputc('"', json->file);
}

static void json_key(struct json *json, const char *key)
{
	if (!json->first)
		fputc(',', json->file);
	if (json->depth > 0)
		json_newline(json);
	json->first = false;
	if (!key)
		return;
	json_text(json, key);
	fputs(": ", json->file);
}

void json_open(struct json *json, const char *key, char bracket)
{
	json_key(json, key);
	fputc(bracket, json->file);
	json->depth++;
	json->first = true;
}

void json_close(struct json *json, char bracket)
{
	json->depth--;
	if (!json->first)
		json_newline(json);
	fputc(bracket, json->file);
	json->first = false;
}

void json_string(struct json *json, const char *key, const char *value)
{
	json_key(json, key);
	if (value)
		json_text(json, value);
	else
		fputs("null", json->file);
}

void json_integer(struct json *json, const char *key, uint64_t value)
{
	json_key(json, key);
	fprintf(json->file, "%llu", (unsigned long long)value);
}

void json_number(struct json *json, const char *key, double value)
{
	json_key(json, key);
	if (isfinite(value))
		fprintf(json->file, "%.9g", value);
	else
		fputs("null", json->file);
}

void json_bool(struct json *json, const char *key, bool value)
{
	json_key(json, key);
	fputs(value ? "true" : "false", json->file);
}
