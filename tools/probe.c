/* SPDX-License-Identifier: MIT */
#include "probe.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum option_key {
	/* Past every character that getopt_long() may give. */
	OPT_PATH = 256,
	OPT_RING_ENTRIES,
	OPT_INFLIGHT,
	OPT_JSON,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{ "path", required_argument, NULL, OPT_PATH },
	{ "ring-entries", required_argument, NULL, OPT_RING_ENTRIES },
	{ "inflight", required_argument, NULL, OPT_INFLIGHT },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static const char help[] =
"Usage: gyre-probe [OPTIONS]\n"
"\n"
"Says what this kernel and its policy allow of what gyre uses, found out by\n"
"trying it, and for each thing that is missing how to get it. Takes half a\n"
"second, with --path some two.\n"
"\n"
"  --path DIR          what the file system of DIR does, too, on a scratch file of\n"
"                      1 MiB there that has no name and goes with the process:\n"
"                      NOWAIT, O_DIRECT, what goes to the kernel's own threads,\n"
"                      which way of making writes durable is faster\n"
"  --ring-entries N    the size of the rings that are asked about (default: 256)\n"
"  --inflight N        operations in flight on each of them (default: 2048)\n"
"  --json              for programs\n"
"  --help, --version\n"
"\n"
"Exit status: 0 when gyre runs here, 1 when it cannot, or the report cannot be\n"
"written, 2 when the arguments make no sense or DIR cannot be used.\n";

/* --------------------------------------------------------- for the others -- */

void probe_lack(struct probe *probe, const char *what, bool needed, const char *format, ...)
{
	struct probe_lack *lack;
	va_list args;

	if (probe->lack_count == PROBE_LACKS_MAX)
		return;
	lack = &probe->lacks[probe->lack_count++];
	snprintf(lack->what, sizeof(lack->what), "%s", what);
	lack->needed = needed;
	va_start(args, format);
	vsnprintf(lack->how, sizeof(lack->how), format, args);
	va_end(args);
}

bool probe_cannot(const struct probe *probe)
{
	unsigned i;

	for (i = 0; i < probe->lack_count; i++)
		if (probe->lacks[i].needed)
			return true;
	return false;
}

void probe_progress(const struct probe *probe, const char *text)
{
	if (!probe->progress)
		return;
	fprintf(stderr, "\r%s\033[K", text ? text : "");
	fflush(stderr);
}

long probe_read_number(const char *path, long otherwise)
{
	FILE *file = fopen(path, "re");
	long value;

	if (!file)
		return otherwise;
	if (fscanf(file, "%ld", &value) != 1)
		value = otherwise;
	fclose(file);
	return value;
}

long probe_read_status(const char *name, long otherwise)
{
	FILE *file = fopen("/proc/self/status", "re");
	size_t len = strlen(name);
	long value = otherwise;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, name, len) == 0 && line[len] == ':')
			value = strtol(line + len + 1, NULL, 10);
	if (file)
		fclose(file);
	return value;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

struct probe_span probe_span_of(double *values, unsigned n)
{
	struct probe_span span = { .median = NAN, .least = NAN, .most = NAN };
	unsigned i;

	for (i = 0; i < n; i++)
		if (isnan(values[i]))
			return span;
	qsort(values, n, sizeof(*values), compare);
	span.median = values[n / 2];
	span.least = values[0];
	span.most = values[n - 1];
	return span;
}

const char *probe_error_name(int error)
{
	const char *name = strerrorname_np(error < 0 ? -error : error);

	return name ? name : "an unknown error";
}

/* ------------------------------------------------------------- arguments -- */

static void __attribute__((__noreturn__, __format__(__printf__, 1, 2)))
refuse(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("gyre-probe: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(PROBE_EXIT_USAGE);
}

static unsigned parse_number(const char *option, const char *text, unsigned max)
{
	unsigned long value = 0;
	char *end = NULL;

	/* strtoul() would take blanks and a minus. */
	if (*text >= '0' && *text <= '9')
		value = strtoul(text, &end, 10);
	if (!end || *end != '\0' || value < 1 || value > max)
		refuse("%s wants a number from 1 to %u, not '%s'", option, max, text);
	return (unsigned)value;
}

static void __attribute__((__noreturn__)) print_and_exit(const char *text)
{
	fputs(text, stdout);
	exit(fflush(stdout) == EOF);
}

static void apply_option(int key, const char *value, struct probe_plan *plan)
{
	switch (key) {
	case OPT_PATH:
		if (*value == '\0' || strlen(value) >= PATH_MAX)
			refuse("--path is %s", *value ? "too long" : "empty");
		plan->path = value;
		break;
	case OPT_RING_ENTRIES:
		plan->ring_entries = parse_number("--ring-entries", value, 32768);
		break;
	case OPT_INFLIGHT:
		plan->inflight_max = parse_number("--inflight", value, 65536);
		break;
	case OPT_JSON:
		plan->json = true;
		break;
	case OPT_HELP:
		print_and_exit(help);
	case OPT_VERSION:
		printf("gyre-probe %s (liburing %s)\n", gyre_version(), bench_liburing_version());
		print_and_exit("");
	}
}

static void parse(int argc, char **argv, struct probe_plan *plan)
{
	int key;

	plan->ring_entries = PROBE_ENTRIES;
	plan->inflight_max = PROBE_INFLIGHT;
	opterr = 0;
	while ((key = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		if (key == ':')
			refuse("%s needs a value; see --help", argv[optind - 1]);
		if (key == '?')
			refuse("there is no such option, or not in this form: %s; see --help",
			       argv[optind - 1]);
		apply_option(key, optarg, plan);
	}
	if (optind < argc)
		refuse("what is '%s' for? A directory is given with --path", argv[optind]);
}

/* ------------------------------------------------------------------ main -- */

static void ask(struct probe *probe)
{
	bool path;

	if (probe->plan.path)
		probe_path_open(probe);
	path = probe->plan.path && probe->path.error[0] == '\0';
	bench_machine_describe(path ? probe->path.fd : -1, probe->plan.path, &probe->machine);
	probe_progress(probe, "asking the kernel");
	probe_ask_ring(probe);
	probe_ask_gyre(probe);
	probe_ask_limits(probe);
	probe_ask_times(probe);
	if (path) {
		probe_ask_path(probe);
		probe_ask_iowq(probe);
		probe_ask_durable(probe);
	}
	probe_path_close(probe);
	probe_progress(probe, NULL);
}

int main(int argc, char **argv)
{
	static struct probe probe = { .path = { .fd = -1 } };

	parse(argc, argv, &probe.plan);
	probe.progress = isatty(STDERR_FILENO);
	ask(&probe);
	if (probe.plan.json)
		probe_print_json(&probe);
	else
		probe_print_text(&probe);
	if (fflush(stdout) == EOF || ferror(stdout)) {
		fprintf(stderr, "gyre-probe: standard output cannot be written: %s\n",
			strerror(errno));
		return PROBE_EXIT_CANNOT;
	}
	if (probe.path.error[0] != '\0') {
		fprintf(stderr, "gyre-probe: %s\n", probe.path.error);
		return PROBE_EXIT_USAGE;
	}
	return probe.ring.runs ? 0 : PROBE_EXIT_CANNOT;
}
