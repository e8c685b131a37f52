/* SPDX-License-Identifier: MIT */
/*
 * From the command line to a plan. All that is nonsense in itself is refused
 * here, with a sentence and exit status 2; what depends on the file, in
 * bench_target.c.
 */
#include "bench.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CALLER_COUNTS_MAX	16u

#define DEFAULT_SIZE		(UINT64_C(256) << 20)
#define DEFAULT_BLOCK		4096u
#define DEFAULT_BATCH		32u
#define DEFAULT_SECONDS		1.0
#define DEFAULT_WARMUP		0.2
#define DEFAULT_ROUNDS		5u

#define SIZE_MAX_BYTES		(UINT64_C(1) << 44)
#define SPIN_MAX_NS		UINT64_C(60000000000)
#define RATE_MAX		UINT64_C(1000000)
#define WORKERS_MAX		1024u

/* As given; 0, NULL or a negative number where it was not. */
struct args {
	int work;			/* enum bench_work */
	const struct bench_engine *engines[BENCH_ENGINES_MAX];
	unsigned engine_count;
	const struct bench_engine *ratio_to;
	unsigned callers[CALLER_COUNTS_MAX];
	unsigned caller_counts;
	unsigned batch;
	uint64_t block_size;
	uint64_t size;
	bool direct;
	uint64_t spin_ns;
	uint64_t rate;
	const char *suite;
	const char *path;
	bool compare;
	unsigned options;		/* how many were given */
};

enum option_key {
	/* Past every character that getopt_long() may give. */
	OPT_WORK = 256,
	OPT_ENGINES,
	OPT_RATIO_TO,
	OPT_CALLERS,
	OPT_BATCH,
	OPT_BLOCK_SIZE,
	OPT_DIRECT,
	OPT_SIZE,
	OPT_TIME,
	OPT_WARMUP,
	OPT_ROUNDS,
	OPT_WORKERS,
	OPT_SPIN,
	OPT_RATE,
	OPT_SUITE,
	OPT_OVERWRITE,
	OPT_JSON,
	OPT_PLOT,
	OPT_FROM,
	OPT_COMPARE,
	OPT_QUIET,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{ "work", required_argument, NULL, OPT_WORK },
	{ "engines", required_argument, NULL, OPT_ENGINES },
	{ "ratio-to", required_argument, NULL, OPT_RATIO_TO },
	{ "callers", required_argument, NULL, OPT_CALLERS },
	{ "batch", required_argument, NULL, OPT_BATCH },
	{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
	{ "direct", no_argument, NULL, OPT_DIRECT },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "time", required_argument, NULL, OPT_TIME },
	{ "warmup", required_argument, NULL, OPT_WARMUP },
	{ "rounds", required_argument, NULL, OPT_ROUNDS },
	{ "workers", required_argument, NULL, OPT_WORKERS },
	{ "spin", required_argument, NULL, OPT_SPIN },
	{ "rate", required_argument, NULL, OPT_RATE },
	{ "suite", required_argument, NULL, OPT_SUITE },
	{ "overwrite", no_argument, NULL, OPT_OVERWRITE },
	{ "json", required_argument, NULL, OPT_JSON },
	{ "plot", required_argument, NULL, OPT_PLOT },
	{ "from", required_argument, NULL, OPT_FROM },
	{ "compare", no_argument, NULL, OPT_COMPARE },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static const char help_start[] =
"Usage: gyre-bench [OPTIONS] [PATH]\n"
"       gyre-bench --compare OLD NEW...\n"
"\n"
"Does the same operations in several ways, called engines, and says what each\n"
"way costs. Engines take turns within each round, so that a machine that\n"
"drifts is unfair to all of them alike.\n"
"\n"
"PATH is a file or block device to read, or a directory in which to make a\n"
"temporary file. Without PATH the temporary file is made in $TMPDIR or else the\n"
"current directory. A file of yours is never written to, but by --work\n"
"randwrite, durable and mixed with --overwrite.\n"
"\n"
"What to do:\n"
"  --work WORK         nop         a NOP a call: the price of the way itself\n"
"                      batch       a batch of NOPs a call\n"
"                      randread    a block from anywhere in the file (default)\n"
"                      batch-read  a batch of these a call\n"
"                      read        block after block, each caller from its own place\n"
"                      randwrite   a block to anywhere in the file\n"
"                      durable     the same, answered once it is durable\n"
"                      mixed       of a hundred 70 reads from anywhere, 29 writes\n"
"                                  and a durable one\n"
"                      yield       from one task to another and back\n"
"                      go          a trivial task, started and joined\n"
"                      job         a job of one trivial task\n"
"                      alloc       64 bytes of an arena\n"
"                      sleepers    many tasks, all asleep: their memory\n"
"  --callers N[,N...]  threads that call; a table for each number\n"
"                      (default: 1,8 for nop, 1 for batches and tasks, 1,32 for\n"
"                      files, 1,8,64 for durable); for sleepers how many are asleep,\n"
"                      up to 1M (default: 100k)\n"
"  --batch N           operations a call, as one gyre_callv() (default: 32 for\n"
"                      batch and batch-read, else no batch); for go tasks that are\n"
"                      all started, and then joined\n"
"  --block-size SIZE   (default: 4k)\n"
"  --direct            O_DIRECT; without it the file is read once before, so\n"
"                      that it is in the page cache\n"
"  --size SIZE         of the temporary file (default: 256M)\n"
"  --rate N            each caller makes N calls a second; latency then is that\n"
"                      of the call alone, and the price is the column CPU %\n"
"\n"
"How to measure:\n"
"  --engines LIST      which engines, separated by commas (see below)\n"
"  --ratio-to ENGINE   the one that the others are held against\n"
"  --time SECONDS      a round of each engine, fractions allowed (default: 1)\n"
"  --warmup SECONDS    before each, not counted (default: 0.2)\n"
"  --rounds N          (default: 5)\n"
"  --workers N         gyre's worker threads (default: as gyre chooses)\n"
"  --spin HOW          gyre's spinning: auto, never, or at most so many ns\n"
"  --suite quick|full  the comparisons that the project holds itself to, with\n"
"                      its goals, on a file: about 140 s, or 12 minutes;\n"
"                      full also looks at libuv, POSIX aio and fio\n"
"  --overwrite         what writes may destroy what is in the file PATH\n"
"\n"
"What to print:\n"
"  --json FILE         every round's figures; - is standard output, without tables\n"
"  --plot FILE         a page of pictures, as SVG: operations a second over\n"
"                      callers, and how latency is spread\n"
"  --from FILE         measure nothing: the tables of a report that --json wrote,\n"
"                      or with --plot its pictures\n"
"  --compare           measure nothing: hold reports against the first one, row by\n"
"                      row, and say what changed by more than the noise\n"
"  --quiet             no progress on standard error\n"
"  --help, --version\n"
"\n"
"In sizes k, M and G stand for 1024, its square and its cube, elsewhere for\n"
"1000 and so on.\n"
"\n"
"Engines:\n";

static const char help_end[] =
"\n"
"Figures are medians over the rounds, each column for itself. A ratio is that\n"
"of operations a second (with --rate: of CPU time an operation; of sleepers: of\n"
"memory), taken round by round between neighbours in time; shown are the median\n"
"of these and their range. CPU time is user and system time of the whole\n"
"process. The latency of an operation in a batch is its batch's, and of yield,\n"
"go, job by tasks, and alloc the mean of those that were timed together.\n"
"`slowest` is the operations of the slowest caller over the mean of all.\n"
"\n"
"Examples:\n"
"  gyre-bench                           random reads of a temporary file\n"
"  gyre-bench --direct --callers 1,8,32 /var/lib/db/data\n"
"  gyre-bench --work nop --callers 1,2,8,64 --engines gyre,condvar\n"
"  gyre-bench --direct --callers 1 --batch 32 --engines gyre,raw,raw-batch\n"
"  gyre-bench --work nop --callers 1 --rate 1k --engines gyre,own-ring\n"
"  gyre-bench --direct --callers 32 --engines task,raw,threads\n"
"  gyre-bench --work sleepers --callers 1M\n"
"  gyre-bench --suite quick --json result.json /srv\n"
"\n"
"Exit status: 0, 1 when something failed, 2 when the arguments make no sense.\n"
"With --compare: 0, 1 when something is slower, 2 when a report is of no use.\n";

static void __attribute__((__noreturn__, __format__(__printf__, 1, 2)))
refuse(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("gyre-bench: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(BENCH_EXIT_USAGE);
}

static void __attribute__((__noreturn__)) print_help(void)
{
	const struct bench_engine *const *engine;

	fputs(help_start, stdout);
	for (engine = bench_engines; *engine; engine++)
		printf("  %-11s %s%s\n", (*engine)->name, (*engine)->about,
		       (*engine)->missing && (*engine)->missing() ? " [not here]" : "");
	fputs(help_end, stdout);
	exit(fflush(stdout) == EOF);
}

static void __attribute__((__noreturn__)) print_version(void)
{
	printf("gyre-bench %s (liburing %s)\n", gyre_version(), bench_liburing_version());
	exit(fflush(stdout) == EOF);
}

/* ------------------------------------------------------------- numbers -- */

/* What a suffix stands for, with k = unit; 0: no such suffix. */
static uint64_t suffix_factor(const char *suffix, uint64_t unit)
{
	if (*suffix == '\0')
		return 1;
	if (suffix[1] != '\0')
		return 0;
	switch (*suffix) {
	case 'k':
	case 'K':
		return unit;
	case 'M':
		return unit * unit;
	case 'G':
		return unit * unit * unit;
	default:
		return 0;
	}
}

static uint64_t parse_number(const char *option, const char *text, uint64_t unit, uint64_t min,
			     uint64_t max)
{
	uint64_t value = 0, factor = 0;
	char *end;

	/* strtoull() would take blanks and a minus. */
	errno = 0;
	if (isdigit((unsigned char)*text)) {
		value = strtoull(text, &end, 10);
		factor = suffix_factor(end, unit);
	}
	if (errno != 0 || factor == 0 || value > max / factor || value * factor < min)
		refuse("%s wants a number from %llu to %llu, not '%s'", option,
		       (unsigned long long)min, (unsigned long long)max, text);
	return value * factor;
}

static double parse_seconds(const char *option, const char *text, double min, double max)
{
	char *end = NULL;
	double value = NAN;

	/* strtod() would take hexadecimals, infinities and a minus. */
	if (strspn(text, "0123456789.") == strlen(text))
		value = strtod(text, &end);
	if (!end || end == text || *end != '\0' || !(value >= min && value <= max))
		refuse("%s wants seconds, from %g to %g, not '%s'", option, min, max, text);
	return value;
}

static uint64_t parse_spin(const char *text)
{
	if (strcmp(text, "auto") == 0)
		return GYRE_SPIN_AUTO;
	if (strcmp(text, "never") == 0)
		return GYRE_SPIN_NEVER;
	if (!isdigit((unsigned char)*text))
		refuse("--spin wants auto, never or nanoseconds, not '%s'", text);
	return parse_number("--spin (where it is not auto or never)", text, 1000,
			    GYRE_SPIN_NEVER + 1, SPIN_MAX_NS);
}

/* --------------------------------------------------------------- names -- */

static int parse_work(const char *text)
{
	enum bench_work work = bench_work_find(text);

	if (work < BENCH_WORKS)
		return (int)work;
	refuse("--work wants nop, batch, randread, batch-read, read, randwrite, durable, mixed, "
	       "yield, go, job, alloc or sleepers, not '%s'", text);
}

static const struct bench_engine *parse_engine(const char *option, const char *text)
{
	const struct bench_engine *engine = bench_engine_find(text);

	if (engine)
		return engine;
	refuse("%s: there is no engine '%s'; --help lists them", option, text);
}

/* The next of a list; what it gives must be freed. NULL: no more. */
static char *next_item(const char **list)
{
	size_t len;
	char *item;

	if (!*list)
		return NULL;
	len = strcspn(*list, ",");
	item = strndup(*list, len);
	if (!item)
		refuse("there is no memory for the arguments");
	*list = (*list)[len] == ',' ? *list + len + 1 : NULL;
	return item;
}

static bool has_engine(const struct bench_engine *const *engines, unsigned count,
		       const struct bench_engine *engine)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (engines[i] == engine)
			return true;
	return false;
}

static void parse_engines(const char *list, struct args *args)
{
	char *item;

	args->engine_count = 0;
	while ((item = next_item(&list)) != NULL) {
		const struct bench_engine *engine = parse_engine("--engines", item);

		if (has_engine(args->engines, args->engine_count, engine))
			refuse("--engines names '%s' twice", item);
		args->engines[args->engine_count++] = engine;
		free(item);
	}
}

static void parse_callers(const char *list, struct args *args)
{
	unsigned i, callers;
	char *item;

	args->caller_counts = 0;
	while ((item = next_item(&list)) != NULL) {
		callers = (unsigned)parse_number("--callers", item, 1000, 1,
						 BENCH_SLEEPERS_MAX);
		for (i = 0; i < args->caller_counts; i++)
			if (args->callers[i] == callers)
				refuse("--callers names %u twice", callers);
		if (args->caller_counts == CALLER_COUNTS_MAX)
			refuse("--callers takes at most %u numbers", CALLER_COUNTS_MAX);
		args->callers[args->caller_counts++] = callers;
		free(item);
	}
}

/* -------------------------------------------------------------- options -- */

static void apply_work_option(int key, const char *value, struct args *args)
{
	switch (key) {
	case OPT_WORK:
		args->work = parse_work(value);
		break;
	case OPT_ENGINES:
		parse_engines(value, args);
		break;
	case OPT_RATIO_TO:
		args->ratio_to = parse_engine("--ratio-to", value);
		break;
	case OPT_CALLERS:
		parse_callers(value, args);
		break;
	case OPT_BATCH:
		args->batch = (unsigned)parse_number("--batch", value, 1000, 1, BENCH_DEPTH_MAX);
		break;
	case OPT_BLOCK_SIZE:
		args->block_size = parse_number("--block-size", value, 1024, 1, BENCH_BLOCK_MAX);
		break;
	case OPT_DIRECT:
		args->direct = true;
		break;
	case OPT_SPIN:
		args->spin_ns = parse_spin(value);
		break;
	case OPT_RATE:
		args->rate = parse_number("--rate", value, 1000, 1, RATE_MAX);
		break;
	}
}

static void apply_option(int key, const char *value, struct args *args, struct bench_plan *plan)
{
	switch (key) {
	case OPT_SIZE:
		args->size = parse_number("--size", value, 1024, 1, SIZE_MAX_BYTES);
		break;
	case OPT_TIME:
		plan->seconds = parse_seconds("--time", value, 0.01, 3600);
		break;
	case OPT_WARMUP:
		plan->warmup = parse_seconds("--warmup", value, 0, 3600);
		break;
	case OPT_ROUNDS:
		plan->rounds = (unsigned)parse_number("--rounds", value, 1000, 1, BENCH_ROUNDS_MAX);
		break;
	case OPT_WORKERS:
		plan->workers = (unsigned)parse_number("--workers", value, 1000, 1, WORKERS_MAX);
		break;
	case OPT_SUITE:
		args->suite = value;
		break;
	case OPT_OVERWRITE:
		plan->overwrite = true;
		break;
	case OPT_JSON:
		plan->json_path = value;
		break;
	case OPT_PLOT:
		plan->plot_path = value;
		break;
	case OPT_FROM:
		plan->from_path = value;
		break;
	case OPT_COMPARE:
		args->compare = true;
		break;
	case OPT_QUIET:
		plan->quiet = true;
		break;
	case OPT_HELP:
		print_help();
	case OPT_VERSION:
		print_version();
	default:
		apply_work_option(key, value, args);
	}
}

static void read_options(int argc, char **argv, struct args *args, struct bench_plan *plan)
{
	int key;

	opterr = 0;
	while ((key = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		if (key == ':')
			refuse("%s needs a value; see --help", argv[optind - 1]);
		if (key == '?')
			refuse("there is no such option, or not in this form: %s; see --help",
			       argv[optind - 1]);
		args->options++;
		apply_option(key, optarg, args, plan);
	}
	if (args->compare) {
		plan->compare = (const char *const *)argv + optind;
		plan->compare_count = (unsigned)(argc - optind);
		return;
	}
	if (optind < argc)
		args->path = argv[optind++];
	if (optind < argc)
		refuse("one PATH is enough, and '%s' is another", argv[optind]);
	if (args->path && args->path[0] == '\0')
		refuse("PATH is empty");
	if (args->path && strlen(args->path) >= PATH_MAX)
		refuse("PATH is too long");
}

/* ------------------------------------------------------ what fits together -- */

static bool on_file(int work)
{
	return BENCH_WORK_BIT(work) & BENCH_ON_FILE;
}

static void check_file_options(const struct args *args, const struct bench_plan *plan)
{
	uint64_t block = args->block_size ? args->block_size : DEFAULT_BLOCK;
	uint64_t size = args->size ? args->size : DEFAULT_SIZE;
	struct stat st;

	if (args->direct && block % 512 != 0)
		refuse("--direct needs a --block-size that is a multiple of 512, and %llu is not",
		       (unsigned long long)block);
	if (args->path && args->size && stat(args->path, &st) == 0 && !S_ISDIR(st.st_mode))
		refuse("--size is for temporary files, and %s is a file that exists", args->path);
	if (block > size && (args->size || !args->path))
		refuse("a block of %llu bytes does not fit into a file of %llu",
		       (unsigned long long)block, (unsigned long long)size);
	if (plan->overwrite && !bench_work_writes(args->work))
		refuse("--overwrite goes with --work randwrite, durable and mixed only");
	if (plan->overwrite && !args->path)
		refuse("--overwrite needs PATH, the file to overwrite");
}

static void check_nop_options(const struct args *args, const struct bench_plan *plan)
{
	const char *name = bench_work_name(args->work);

	if (args->path)
		refuse("--work %s uses no file, so what is '%s' for?", name, args->path);
	if (args->direct || args->block_size || args->size || plan->overwrite)
		refuse("--work %s uses no file: leave out --direct, --block-size, --size "
		       "and --overwrite", name);
	if (args->work == BENCH_NOP && args->batch)
		refuse("--work nop is one NOP a call; with --batch it is --work batch");
}

static void check_callers(const struct args *args)
{
	bool sleepers = args->work == BENCH_SLEEPERS;
	unsigned i;

	for (i = 0; i < args->caller_counts; i++) {
		if (args->callers[i] > BENCH_CALLERS_MAX && !sleepers)
			refuse("--callers wants numbers from 1 to %u, not %u", BENCH_CALLERS_MAX,
			       args->callers[i]);
		if (args->callers[i] > 1 && !sleepers && args->work != BENCH_JOB &&
		    BENCH_WORK_BIT(args->work) & BENCH_ON_TASKS)
			refuse("--work %s has one caller, not %u", bench_work_name(args->work),
			       args->callers[i]);
	}
}

static void check_task_options(const struct args *args)
{
	const char *name = bench_work_name(args->work);

	if (!(BENCH_WORK_BIT(args->work) & BENCH_ON_TASKS))
		return;
	if (args->batch && args->work != BENCH_GO)
		refuse("--work %s takes no --batch", name);
	if (args->rate && args->work != BENCH_JOB)
		refuse("--work %s takes no --rate", name);
}

static void check_suite_options(const struct args *args, const struct bench_plan *plan)
{
	if (args->work >= 0 || args->engine_count || args->ratio_to || args->caller_counts ||
	    args->batch || args->block_size || args->direct || args->spin_ns || args->rate ||
	    plan->overwrite)
		refuse("--suite chooses the work itself; of the other options it takes --size, "
		       "--time, --warmup, --rounds, --workers, --json, --plot and --quiet");
}

/* Options that take what was measured before. */
static void check_saved_options(const struct args *args, const struct bench_plan *plan)
{
	unsigned fitting = 1u + plan->quiet;

	if (args->compare && args->options > fitting)
		refuse("--compare measures nothing: of the other options it takes --quiet only");
	if (args->compare && plan->compare_count < 2)
		refuse("--compare wants two reports at least, the old one first");
	if (args->compare)
		return;
	if (args->options > fitting + (plan->plot_path != NULL))
		refuse("--from measures nothing: of the other options it takes --plot and --quiet "
		       "only");
	if (args->path)
		refuse("--from measures nothing, so what is '%s' for?", args->path);
}

static void check_output_options(const struct bench_plan *plan)
{
	if (plan->plot_path && plan->json_path && strcmp(plan->plot_path, plan->json_path) == 0)
		refuse("--json and --plot cannot both write to '%s'", plan->plot_path);
}

const char *bench_case_refusal(const struct bench_case *kase, const struct bench_engine *engine,
			       char *buf, size_t size)
{
	const char *missing = engine->missing ? engine->missing() : NULL;

	if (missing)
		snprintf(buf, size, "engine %s is not here: %s", engine->name, missing);
	else if (!(engine->works & BENCH_WORK_BIT(kase->work)))
		snprintf(buf, size, "engine %s cannot do --work %s", engine->name,
			 bench_work_name(kase->work));
	else if (engine->one_caller && kase->callers != 1)
		snprintf(buf, size, "engine %s is for 1 caller, not %u", engine->name,
			 kase->callers);
	else if (engine->few && kase->callers > BENCH_CALLERS_MAX)
		snprintf(buf, size, "engine %s is for at most %u, not %u", engine->name,
			 BENCH_CALLERS_MAX, kase->callers);
	else if (engine->one_op && kase->batch > 1)
		snprintf(buf, size, "engine %s does one operation a call, no batches of %u",
			 engine->name, kase->batch);
	else if (engine->one_thread && kase->rate > 0)
		snprintf(buf, size, "engine %s has no callers that could keep to a --rate",
			 engine->name);
	else if (engine->one_thread && kase->work != BENCH_SLEEPERS &&
		 (uint64_t)kase->callers * kase->batch > BENCH_DEPTH_MAX)
		snprintf(buf, size, "engine %s would need %llu operations in flight, "
			 "and a ring holds %u", engine->name,
			 (unsigned long long)kase->callers * kase->batch, BENCH_DEPTH_MAX);
	else
		return NULL;
	return buf;
}

/* ------------------------------------------------------------ the cases -- */

/*
 * What is worth comparing, and against what, where the user does not say; both
 * in order of preference.
 */
static const struct {
	const struct bench_engine *engines[BENCH_ENGINES_MAX];
	const struct bench_engine *bases[BENCH_ENGINES_MAX];
} defaults[] = {
#define DEFAULTS_NOP	0
	{ { &bench_gyre, &bench_own_ring, &bench_condvar, &bench_floor },
	  { &bench_floor, &bench_condvar, &bench_own_ring } },
#define DEFAULTS_BATCH	1
	{ { &bench_gyre, &bench_raw, &bench_raw_batch, &bench_floor },
	  { &bench_raw, &bench_raw_batch, &bench_own_ring, &bench_condvar } },
#define DEFAULTS_FILE	2
	{ { &bench_threads, &bench_gyre, &bench_gyre_ring, &bench_own_ring },
	  { &bench_threads, &bench_own_ring, &bench_raw, &bench_raw_batch, &bench_condvar } },
#define DEFAULTS_FILE_BATCH 3
	{ { &bench_threads, &bench_gyre, &bench_raw_batch, &bench_raw },
	  { &bench_raw_batch, &bench_raw, &bench_threads, &bench_own_ring, &bench_condvar } },
#define DEFAULTS_DURABLE 4
	{ { &bench_threads, &bench_threads_fdatasync, &bench_gyre, &bench_gyre_ring },
	  { &bench_threads, &bench_threads_fdatasync, &bench_own_ring, &bench_condvar } },
/* Any spinning is a loss here: against one that never does. */
#define DEFAULTS_RATE	5
	{ { &bench_gyre, &bench_own_ring, &bench_condvar },
	  { &bench_own_ring, &bench_condvar } },
#define DEFAULTS_YIELD	6
	{ { &bench_task, &bench_fiber, &bench_boost, &bench_ucontext },
	  { &bench_boost, &bench_ucontext, &bench_fiber } },
#define DEFAULTS_TASKS	7
	{ { &bench_task, &bench_pthread, &bench_malloc, &bench_gyre, &bench_gyre_nop },
	  { &bench_gyre_nop, &bench_pthread, &bench_malloc, &bench_boost, &bench_ucontext } },
};

static unsigned defaults_of(const struct bench_case *kase)
{
	if (bench_case_on_tasks(kase))
		return kase->work == BENCH_YIELD ? DEFAULTS_YIELD : DEFAULTS_TASKS;
	if (kase->work == BENCH_DURABLE && !kase->vectored)
		return DEFAULTS_DURABLE;
	if (bench_case_uses_file(kase))
		return kase->vectored && kase->rate <= 0 ? DEFAULTS_FILE_BATCH : DEFAULTS_FILE;
	if (kase->rate > 0)
		return DEFAULTS_RATE;
	return kase->vectored ? DEFAULTS_BATCH : DEFAULTS_NOP;
}

static void choose_engines(const struct args *args, struct bench_case *kase)
{
	const struct bench_engine *const *wanted = defaults[defaults_of(kase)].engines;
	char why[BENCH_TEXT];
	unsigned i;

	for (i = 0; i < args->engine_count; i++) {
		if (bench_case_refusal(kase, args->engines[i], why, sizeof(why)))
			refuse("%s", why);
		kase->engines[kase->engine_count++] = args->engines[i];
	}
	for (i = 0; args->engine_count == 0 && i < BENCH_ENGINES_MAX && wanted[i]; i++)
		if (!bench_case_refusal(kase, wanted[i], why, sizeof(why)))
			kase->engines[kase->engine_count++] = wanted[i];
}

static void choose_base(const struct args *args, struct bench_case *kase)
{
	const struct bench_engine *const *bases = defaults[defaults_of(kase)].bases;
	char why[BENCH_TEXT];
	unsigned i;

	if (args->ratio_to && !has_engine(kase->engines, kase->engine_count, args->ratio_to)) {
		if (args->engine_count > 0)
			refuse("--ratio-to names %s, which is not among --engines",
			       args->ratio_to->name);
		if (bench_case_refusal(kase, args->ratio_to, why, sizeof(why)))
			refuse("--ratio-to: %s", why);
		kase->engines[kase->engine_count++] = args->ratio_to;
	}
	if (args->ratio_to) {
		kase->base = bench_case_find(kase, args->ratio_to);
		return;
	}
	for (i = 0; i < BENCH_ENGINES_MAX && bases[i]; i++) {
		kase->base = bench_case_find(kase, bases[i]);
		if (kase->base < kase->engine_count)
			return;
	}
	kase->base = 0;
}

/* Every operation has a buffer, and who sleeps a stack. More than memory would measure swapping. */
static void check_memory(const struct bench_case *kase)
{
	size_t buffer = bench_buffer_size(kase);
	double bytes = (double)kase->callers * kase->batch * (double)buffer;
	char text[32];

	if (kase->work == BENCH_SLEEPERS && kase->callers > bench_sleepers_max())
		refuse("%u sleepers are too many here: half of memory, or what the kernel gives "
		       "a process of mappings, is enough for %u", kase->callers,
		       bench_sleepers_max());
	if (bench_case_uses_file(kase) && bytes > (double)bench_memory_size() / 2)
		refuse("%u callers with batches of %u blocks would need %s of buffers, more than "
		       "half of memory", kase->callers, kase->batch,
		       bench_text_bytes(text, sizeof(text), (uint64_t)bytes));
}

static void add_case(const struct args *args, unsigned callers, struct bench_plan *plan)
{
	struct bench_case *kase = &plan->cases[plan->case_count++];

	kase->work = args->work;
	kase->callers = callers;
	kase->vectored = args->work == BENCH_BATCH || args->work == BENCH_BATCH_READ ||
			 args->batch > 0;
	kase->batch = args->batch ? args->batch : kase->vectored ? DEFAULT_BATCH : 1;
	kase->direct = args->direct;
	if (bench_case_uses_file(kase))
		kase->block_size = args->block_size ? args->block_size : DEFAULT_BLOCK;
	kase->rate = (double)args->rate;
	kase->seconds = plan->seconds;
	kase->rounds = plan->rounds;
	kase->spin_ns = args->spin_ns;
	choose_engines(args, kase);
	choose_base(args, kase);
	check_memory(kase);
	bench_case_name(kase);
}

static void add_cases(struct args *args, struct bench_plan *plan)
{
	static const char *const callers[BENCH_WORKS] = {
		[BENCH_NOP] = "1,8",
		[BENCH_BATCH] = "1",
		[BENCH_RANDREAD] = "1,32",
		[BENCH_BATCH_READ] = "1",
		[BENCH_READ] = "1,32",
		[BENCH_RANDWRITE] = "1,32",
		[BENCH_DURABLE] = "1,8,64",
		[BENCH_MIXED] = "1,32",
		[BENCH_YIELD] = "1",
		[BENCH_GO] = "1",
		[BENCH_JOB] = "1",
		[BENCH_ALLOC] = "1",
		[BENCH_SLEEPERS] = "100k",
	};
	unsigned i;

	if (args->caller_counts == 0)
		parse_callers(callers[args->work], args);
	if (plan->seconds <= 0)
		plan->seconds = DEFAULT_SECONDS;
	if (plan->rounds == 0)
		plan->rounds = DEFAULT_ROUNDS;
	for (i = 0; i < args->caller_counts; i++)
		add_case(args, args->callers[i], plan);
	if (plan->warmup < 0)
		plan->warmup = DEFAULT_WARMUP;
}

void bench_args_parse(int argc, char **argv, struct bench_plan *ret)
{
	struct args args = { .work = -1 };

	_Static_assert(CALLER_COUNTS_MAX <= BENCH_CASES_MAX, "a case for each number of callers");
	memset(ret, 0, sizeof(*ret));
	ret->warmup = -1;
	read_options(argc, argv, &args, ret);
	ret->path = args.path;
	if (args.compare || ret->from_path) {
		check_saved_options(&args, ret);
		return;
	}
	check_output_options(ret);
	if (args.suite) {
		check_suite_options(&args, ret);
		if (!bench_suite_fill(ret, args.suite))
			refuse("--suite wants quick or full, not '%s'", args.suite);
		check_file_options(&args, ret);
	} else {
		if (args.work < 0)
			args.work = BENCH_RANDREAD;
		if (on_file(args.work))
			check_file_options(&args, ret);
		else
			check_nop_options(&args, ret);
		check_callers(&args);
		check_task_options(&args);
		add_cases(&args, ret);
	}
	ret->size = args.size ? args.size : DEFAULT_SIZE;
}
