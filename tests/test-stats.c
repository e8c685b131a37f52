/* SPDX-License-Identifier: MIT */
/* The figures add up, each format can be read by those it is for, the dump tells what hangs. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helpers.h"

/* ------------------------------------------------------------- adding up -- */

TEST(figures_of_a_new_runtime_are_zero)
{
	struct gyre *rt = test_open_workers(3);
	struct gyre_stats stats = test_stats(rt);

	expect_eq(stats.size, sizeof(stats));
	expect_eq(stats.workers_alive, 3);
	expect_eq(stats.workers_dead, 0);
	expect_eq(stats.calls + stats.ops_submitted + stats.ops_completed, 0);
	expect_eq(stats.ops_failed + stats.ops_cancelled + stats.ops_timed_out, 0);
	expect_eq(stats.inflight + stats.queued + stats.calls_in_caller, 0);
	expect_eq(stats.jobs_started + stats.tasks_started + stats.arena_bytes, 0);
	gyre_free(rt);
}

static void work_in_every_way(void *arg, unsigned number)
{
	struct gyre *rt = arg;
	struct gyre_op ops[20];
	unsigned i, j;
	char byte;
	struct test_io bad = { test_closed_fd(), &byte, 1, 0 };

	(void)number;
	for (i = 0; i < 20; i++) {
		for (j = 0; j < 20; j++)
			ops[j] = test_op(prep_nop, NULL);
		expect_status(gyre_callv(rt, ops, 20), GYRE_OK);
		expect_status(gyre_call(rt, prep_read, &bad, NULL), GYRE_OK);
	}
}

TEST(what_was_accepted_was_answered)
{
	struct gyre *rt = test_open_workers(2);
	struct gyre_stats stats;

	test_crew_run(8, work_in_every_way, rt);
	stats = test_stats(rt);
	expect_eq(stats.calls, 8 * 20 * 2);
	expect_eq(stats.ops_submitted, 8 * 20 * 21);
	expect_eq(stats.ops_completed, 8 * 20 * 21);
	expect_eq(stats.ops_failed, 8 * 20);
	expect_eq(stats.ops_cancelled + stats.ops_timed_out, 0);
	expect_eq(stats.inflight + stats.queued, 0);
	expect_eq(stats.replies_spun + stats.replies_slept, 8 * 20 * 2);
	expect_eq(stats.wakeups_sent + stats.wakeups_elided, 8 * 20 * 2);
	expect_gt(stats.enters, 0);
	gyre_free(rt);
}

/* ops_submitted and ops_completed speak of the kernel: what it never had is in neither. */
TEST(what_the_kernel_never_had_is_not_counted_as_its_own)
{
	struct gyre *rt = test_open_workers(1);
	struct gyre_stats stats;
	unsigned i;

	for (i = 0; i < 10; i++)
		gyre_call(rt, prep_forbidden, NULL, NULL);
	stats = test_stats(rt);
	expect_eq(stats.calls, 10);
	expect_eq(stats.ops_submitted, 0);
	expect_eq(stats.ops_completed, 0);
	expect_eq(stats.ops_failed, 0);
	gyre_free(rt);
}

TEST(counters_never_go_back)
{
	struct gyre *rt = test_open_workers(2);
	struct gyre_stats before = test_stats(rt), now;
	struct test_crew crew;

	test_crew_start(&crew, 4, work_in_every_way, rt);
	do {
		now = test_stats(rt);
		expect(now.calls >= before.calls);
		expect(now.ops_submitted >= before.ops_submitted);
		expect(now.ops_completed >= before.ops_completed);
		expect(now.enters >= before.enters);
		expect(now.replies_spun >= before.replies_spun);
		before = now;
	} while (now.calls < 4 * 20 * 2);
	test_crew_join(&crew);
	gyre_free(rt);
}

static void call_three_times(void *arg, unsigned number)
{
	unsigned i;

	(void)number;
	for (i = 0; i < 3; i++)
		expect_status(gyre_call(arg, prep_nop, NULL, NULL), GYRE_OK);
}

TEST(calls_of_threads_that_have_gone_still_count)
{
	struct gyre *rt = test_open_workers(1);
	unsigned i;

	for (i = 0; i < 10; i++)
		test_crew_run(4, call_three_times, rt);
	expect_eq(test_stat(rt, calls), 120);
	gyre_free(rt);
}

TEST(figures_after_close_are_the_final_ones)
{
	struct gyre *rt = test_open_workers(2);
	struct gyre_stats stats;

	call_three_times(rt, 0);
	gyre_close(rt);
	stats = test_stats(rt);
	expect_eq(stats.calls, 3);
	expect_eq(stats.ops_completed, 3);
	expect_eq(stats.workers_alive, 0);
	expect_eq(stats.workers_dead, 0);
	gyre_free(rt);
}

/* ------------------------------------------------------------------ JSON -- */

/* As much of a parser as it takes to believe it: all of the grammar, nothing kept but numbers. */
struct json {
	const char *at;
	const char *text;
	char path[128];		/* "/sum/calls" */
	const char *wanted;
	double found;
	unsigned times;		/* that the wanted path came up */
	unsigned members;	/* names in all */
};

static void json_value(struct json *json);

static void json_fail(const struct json *json, const char *what)
{
	test_fail("JSON: %s at byte %td: %.30s", what, json->at - json->text, json->at);
}

static void json_space(struct json *json)
{
	while (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r')
		json->at++;
}

static void json_expect(struct json *json, char c)
{
	json_space(json);
	if (*json->at != c)
		json_fail(json, "another character expected");
	json->at++;
}

static bool json_take(struct json *json, char c)
{
	json_space(json);
	if (*json->at != c)
		return false;
	json->at++;
	return true;
}

static void json_string(struct json *json, char *ret, size_t len)
{
	size_t n = 0;

	json_expect(json, '"');
	while (*json->at != '"') {
		if ((unsigned char)*json->at < 0x20)
			json_fail(json, "a raw control character, or no end, in a string");
		if (*json->at == '\\' && !strchr("\"\\/bfnrtu", *++json->at))
			json_fail(json, "a bad escape");
		if (n + 1 < len)
			ret[n++] = *json->at;
		json->at++;
	}
	json->at++;
	ret[n] = '\0';
}

static void json_enter(struct json *json, const char *name, size_t *ret_len)
{
	*ret_len = strlen(json->path);
	snprintf(json->path + *ret_len, sizeof(json->path) - *ret_len, "/%s", name);
}

static void json_object(struct json *json)
{
	char name[64];
	size_t len;

	if (json_take(json, '}'))
		return;
	do {
		json_space(json);
		json_string(json, name, sizeof(name));
		json_expect(json, ':');
		json->members++;
		json_enter(json, name, &len);
		json_value(json);
		json->path[len] = '\0';
	} while (json_take(json, ','));
	json_expect(json, '}');
}

static void json_array(struct json *json)
{
	char name[16];
	unsigned i = 0;
	size_t len;

	if (json_take(json, ']'))
		return;
	do {
		snprintf(name, sizeof(name), "%u", i++);
		json_enter(json, name, &len);
		json_value(json);
		json->path[len] = '\0';
	} while (json_take(json, ','));
	json_expect(json, ']');
}

static void json_number(struct json *json)
{
	const char *start = json->at;
	double value;
	char *end;

	if (*json->at != '-' && !isdigit((unsigned char)*json->at))
		json_fail(json, "no value");
	value = strtod(json->at, &end);
	if (start[0] == '0' && isdigit((unsigned char)start[1]))
		json_fail(json, "a leading zero");
	json->at = end;
	if (json->wanted && strcmp(json->path, json->wanted) == 0) {
		json->found = value;
		json->times++;
	}
}

static void json_value(struct json *json)
{
	char text[256];

	json_space(json);
	if (json_take(json, '{'))
		json_object(json);
	else if (json_take(json, '['))
		json_array(json);
	else if (*json->at == '"')
		json_string(json, text, sizeof(text));
	else
		json_number(json);
}

/* The number at path, which must be there once; or just parses all of it. */
static struct json json_parse(const char *text, const char *path)
{
	struct json json = { .at = text, .text = text, .wanted = path };

	json_value(&json);
	json_space(&json);
	if (*json.at)
		json_fail(&json, "something after the end");
	return json;
}

static uint64_t json_figure(const char *text, const char *path)
{
	struct json json = json_parse(text, path);

	if (json.times != 1)
		test_fail("%s comes up %u times", path, json.times);
	return (uint64_t)json.found;
}

static char *written(struct gyre *rt, enum gyre_format format)
{
	int fd = test_file(0);
	char *text;

	expect_status(gyre_stats_write(rt, fd, format), GYRE_OK);
	text = test_slurp(fd);
	close(fd);
	return text;
}

TEST(json_parses_and_agrees_with_the_struct)
{
	struct gyre *rt = test_open_workers(3);
	struct gyre_stats stats;
	char path[64], *text;
	uint64_t sum = 0;
	unsigned i;

	test_crew_run(8, work_in_every_way, rt);
	stats = test_stats(rt);
	text = written(rt, GYRE_FORMAT_JSON);
	expect_eq(json_figure(text, "/sum/calls"), stats.calls);
	expect_eq(json_figure(text, "/sum/ops_submitted"), stats.ops_submitted);
	expect_eq(json_figure(text, "/sum/ops_completed"), stats.ops_completed);
	expect_eq(json_figure(text, "/sum/ops_failed"), stats.ops_failed);
	expect_eq(json_figure(text, "/sum/inflight"), 0);
	expect_eq(json_figure(text, "/sum/workers_alive"), 3);
	for (i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "/workers/%u/ops_completed", i);
		sum += json_figure(text, path);
	}
	expect_eq(sum, stats.ops_completed);
	expect_contains(text, gyre_version());
	free(text);
	gyre_free(rt);
}

TEST(json_of_a_thousand_workers_parses)
{
	unsigned workers = TEST_UNDER_SANITIZER ? 20 : 200;
	struct gyre_options options = { .size = sizeof(options), .workers = workers,
					.ring_entries = 1, .inflight_max = 1 };
	struct gyre *rt = test_open(&options);
	char *text = written(rt, GYRE_FORMAT_JSON), path[64];

	snprintf(path, sizeof(path), "/workers/%u/worker", workers - 1);
	expect_eq(json_figure(text, path), workers - 1);
	free(text);
	gyre_free(rt);
}

/* ------------------------------------------------------------ Prometheus -- */

static bool is_metric_name(const char *name, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != ':')
			return false;
	return len > 0 && !isdigit((unsigned char)name[0]);
}

/* NAME or NAME{label="value"}, a space, a number, the end of the line. */
static void check_sample(const char *line, const char *type_of, const char *type)
{
	size_t len = strcspn(line, "{ ");
	const char *at = line + len;
	char *end;

	if (!is_metric_name(line, len) || strncmp(line, type_of, len) != 0 || type_of[len])
		test_fail("a sample without its TYPE before it: %s", line);
	if (*at == '{') {
		at += strlen("{worker=\"");
		expect(strncmp(line + len, "{worker=\"", 9) == 0 && isdigit((unsigned char)*at));
		strtoul(at, &end, 10);
		expect(end[0] == '"' && end[1] == '}');
		at = end + 2;
	}
	expect_eq(*at, ' ');
	strtod(at + 1, &end);
	expect(end > at + 1);
	expect_eq(*end, '\0');
	/* counters are named so, gauges are not */
	expect_eq(strcmp(type, "counter") == 0,
		  len > 6 && strncmp(line + len - 6, "_total", 6) == 0);
}

TEST(prometheus_text_is_what_prometheus_reads)
{
	struct gyre *rt = test_open_workers(2);
	char *text, *line, *save, name[64] = "", type[16] = "";
	unsigned samples = 0, types = 0;

	test_crew_run(2, work_in_every_way, rt);
	text = written(rt, GYRE_FORMAT_PROMETHEUS);
	expect_eq(text[strlen(text) - 1], '\n');
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		test_row("%s", line);
		if (strncmp(line, "# HELP ", 7) == 0)
			continue;
		if (sscanf(line, "# TYPE %63s %15s", name, type) == 2) {
			expect(strcmp(type, "counter") == 0 || strcmp(type, "gauge") == 0);
			expect(strncmp(name, "gyre_", 5) == 0);
			types++;
			continue;
		}
		expect(line[0] != '#');
		check_sample(line, name, type);
		samples++;
	}
	expect_gt(types, 10);
	expect_ge(samples, types);
	free(text);
	gyre_free(rt);
}

static double prometheus_sum(const char *text, const char *name)
{
	size_t len = strlen(name);
	double sum = 0;
	const char *at;

	for (at = text; (at = strstr(at, name)); at += len)
		if ((at == text || at[-1] == '\n') && (at[len] == ' ' || at[len] == '{'))
			sum += strtod(strchr(at, ' '), NULL);
	return sum;
}

TEST(prometheus_figures_agree_with_the_struct)
{
	struct gyre *rt = test_open_workers(2);
	struct gyre_stats stats;
	char *text;

	test_crew_run(4, work_in_every_way, rt);
	stats = test_stats(rt);
	text = written(rt, GYRE_FORMAT_PROMETHEUS);
	expect_eq(prometheus_sum(text, "gyre_calls_total"), stats.calls);
	expect_eq(prometheus_sum(text, "gyre_ops_completed_total"), stats.ops_completed);
	expect_eq(prometheus_sum(text, "gyre_ops_failed_total"), stats.ops_failed);
	expect_eq(prometheus_sum(text, "gyre_workers_alive"), 2);
	free(text);
	gyre_free(rt);
}

/* ------------------------------------------------------------------ text -- */

TEST(text_has_a_line_for_each_figure_and_a_column_for_each_worker)
{
	struct gyre *rt = test_open_workers(2);
	char *text;

	call_three_times(rt, 0);
	text = written(rt, GYRE_FORMAT_TEXT);
	expect_contains(text, "ops_submitted");
	expect_contains(text, "inflight");
	expect_contains(text, "worker 0");
	expect_contains(text, "worker 1");
	expect_contains(text, gyre_version());
	free(text);
	gyre_free(rt);
}

struct slow_reader {
	struct gyre *rt;
	struct test_pipe pipe;
};

static void *write_into_a_full_pipe(void *arg)
{
	struct slow_reader *reader = arg;

	expect_status(gyre_stats_write(reader->rt, reader->pipe.w, GYRE_FORMAT_JSON), GYRE_OK);
	close(reader->pipe.w);
	reader->pipe.w = -1;
	return NULL;
}

TEST(statistics_are_written_whole_into_a_pipe_that_is_read_slowly)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 100, .ring_entries = 1,
					.inflight_max = 1 };
	struct slow_reader reader = { .pipe = test_pipe() };
	pthread_t thread;
	char *text;

	options.workers = TEST_UNDER_SANITIZER ? 20 : 100;
	reader.rt = test_open(&options);
	expect_eq(fcntl(reader.pipe.w, F_SETFL, O_NONBLOCK), 0);
	expect_ge(fcntl(reader.pipe.w, F_SETPIPE_SZ, 4096), 0);
	expect_eq(pthread_create(&thread, NULL, write_into_a_full_pipe, &reader), 0);
	text = test_slurp(reader.pipe.r);
	pthread_join(thread, NULL);
	expect_eq(json_figure(text, "/sum/workers_alive"), options.workers);
	free(text);
	test_pipe_close(&reader.pipe);
	gyre_free(reader.rt);
}

/* ------------------------------------------------------------------ dump -- */

struct hanging {
	struct gyre *rt;
	struct test_pipe pipe;
	struct gyre_op ops[3];
	pthread_t caller;
};

static void *hang(void *arg)
{
	struct hanging *hanging = arg;
	char byte[3];
	struct test_io io[3];
	unsigned i;

	for (i = 0; i < 3; i++) {
		io[i] = (struct test_io){ hanging->pipe.r, &byte[i], 1, TEST_IO_HERE };
		hanging->ops[i] = test_op(prep_read, &io[i]);
	}
	hanging->ops[1].timeout_ns = UINT64_C(3600) * 1000000000;
	expect_status(gyre_callv(hanging->rt, hanging->ops, 3), GYRE_OK);
	return NULL;
}

TEST(dump_tells_what_hangs_on_which_descriptor_in_which_state_and_since_when)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 2, .inflight_max = 2 };
	struct hanging hanging = { .rt = test_open(&options), .pipe = test_pipe() };
	char fd[32], *text;

	expect_eq(pthread_create(&hanging.caller, NULL, hang, &hanging), 0);
	await(test_stat(hanging.rt, inflight) == 2 && test_stat(hanging.rt, queued) == 1);
	text = test_dump(hanging.rt);
	snprintf(fd, sizeof(fd), "fd %d", hanging.pipe.r);
	expect_contains(text, "READ");
	expect_contains(text, fd);
	expect_contains(text, "in flight");
	expect_contains(text, " ms");
	expect_contains(text, "due in 3");		/* of 3,600,000 ms, a little less */
	expect_contains(text, "inflight_max 2");
	expect_contains(text, "worker 0");
	expect_contains(text, "worker 1");
	free(text);
	expect_eq(write(hanging.pipe.w, "xyz", 3), 3);
	pthread_join(hanging.caller, NULL);
	text = test_dump(hanging.rt);
	expect(!strstr(text, fd));
	expect(!strstr(text, "READ"));
	free(text);
	test_pipe_close(&hanging.pipe);
	gyre_free(hanging.rt);
}

TEST(dump_after_close_tells_that_the_workers_have_ended)
{
	struct gyre *rt = test_open_workers(2);
	char *text;

	gyre_close(rt);
	text = test_dump(rt);
	expect_contains(text, "closed");
	expect_contains(text, "ended");
	free(text);
	gyre_free(rt);
}

struct dumping {
	struct gyre *rt;
	int fd;
};

static void dump_or_work(void *arg, unsigned number)
{
	struct dumping *dumping = arg;
	unsigned i;

	if (number > 1) {
		work_in_every_way(dumping->rt, number);
		return;
	}
	for (i = 0; i < 50; i++) {
		expect_status(gyre_dump(dumping->rt, dumping->fd), GYRE_OK);
		expect_status(gyre_stats_write(dumping->rt, dumping->fd, GYRE_FORMAT_TEXT),
			      GYRE_OK);
	}
}

TEST(dumps_in_the_middle_of_traffic_disturb_nobody)
{
	struct dumping dumping = { test_open_workers(2), open("/dev/null", O_WRONLY | O_CLOEXEC) };

	test_crew_run(6, dump_or_work, &dumping);
	expect_eq(test_stat(dumping.rt, ops_completed), 4 * 20 * 21);
	close(dumping.fd);
	gyre_free(dumping.rt);
}

TEST_MAIN()
