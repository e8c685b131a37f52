/* SPDX-License-Identifier: MIT */
/*
 * The comparisons that the project holds itself to, with its goals. `quick` and
 * `full` differ in how long they look; full also looks at other people's ways,
 * where these are here.
 */
#include "bench.h"

#include <string.h>
#include <sys/stat.h>

#define BLOCK		4096
#define BATCH		32
#define SPIN_NS		100000
#define RATE		1000
#define SUITE_ENGINES	4
#define CASE_GOALS	4
#define SUITE_PEERS	4

struct suite {
	const char *name;
	double seconds;
	double warmup;
	unsigned rounds;
	bool full;
};

static const struct suite suites[] = {
	{ "quick", 0.4, 0.1, 5, false },
	{ "full", 2, 0.25, 5, true },
};

/* A goal without the number of its case, which is its place in the table. */
struct suite_goal {
	const struct bench_engine *engine;	/* NULL: no more goals */
	const struct bench_engine *against;
	enum bench_metric metric;
	enum bench_sense sense;
	double limit;
	double limit_slow;
	double ns;				/* instead of a limit */
};

struct suite_case {
	enum bench_work work;
	unsigned callers;
	unsigned batch;
	bool once;				/* in a full that nobody has shortened, one round */
	bool direct;
	double rate;
	uint64_t spin_ns;
	const struct bench_engine *engines[SUITE_ENGINES];	/* the first is the base */
	struct suite_goal goals[CASE_GOALS];
	const struct bench_engine *peers[SUITE_PEERS];		/* that gyre is held against */
};

#define AT_LEAST(engine, against, limit) \
	{ &(engine), &(against), BENCH_OPS, BENCH_AT_LEAST, (limit), 0, 0 }
#define TOLD(engine, against) \
	{ &(engine), &(against), BENCH_OPS, BENCH_TOLD, 0, 0, 0 }
/* On a machine where bench_boost takes BENCH_SWITCH_NS. */
#define NS_AT_MOST(engine, ns) \
	{ &(engine), &bench_boost, BENCH_P50, BENCH_AT_MOST, 0, 0, (ns) }

static const struct suite_case cases[] = {
	{ BENCH_NOP, 1, 1, .engines = { &bench_floor, &bench_gyre, &bench_own_ring },
	  .goals = { AT_LEAST(bench_gyre, bench_floor, 0.80), TOLD(bench_gyre, bench_own_ring) } },
	{ BENCH_NOP, 2, 1, .engines = { &bench_condvar, &bench_gyre },
	  .goals = { AT_LEAST(bench_gyre, bench_condvar, 3.5),
		     { &bench_gyre, NULL, BENCH_SHARE, BENCH_AT_LEAST, 0.90, 0, 0 } } },
	{ BENCH_NOP, 8, 1, .engines = { &bench_condvar, &bench_gyre },
	  .goals = { AT_LEAST(bench_gyre, bench_condvar, 3.5),
		     { &bench_gyre, NULL, BENCH_SHARE, BENCH_AT_LEAST, 0.90, 0, 0 } } },
	{ BENCH_NOP, 64, 1, .engines = { &bench_condvar, &bench_gyre },
	  .goals = { AT_LEAST(bench_gyre, bench_condvar, 3.5),
		     { &bench_gyre, NULL, BENCH_SHARE, BENCH_AT_LEAST, 0.90, 0, 0 } } },
	{ BENCH_NOP, 1, 1, .rate = RATE, .engines = { &bench_own_ring, &bench_gyre },
	  .goals = { { &bench_gyre, NULL, BENCH_CPU_PERCENT, BENCH_AT_MOST, 5, 0, 0 },
		     { &bench_own_ring, NULL, BENCH_CPU_PERCENT, BENCH_TOLD, 0, 0, 0 } } },
	{ BENCH_NOP, 1, 1, .spin_ns = GYRE_SPIN_NEVER, .engines = { &bench_condvar, &bench_gyre },
	  .goals = { TOLD(bench_gyre, bench_condvar),
		     { &bench_gyre, NULL, BENCH_AWAKE, BENCH_TOLD, 0, 0, 0 } } },
	{ BENCH_BATCH, 1, BATCH, .engines = { &bench_raw, &bench_gyre, &bench_floor },
	  .goals = { { &bench_gyre, &bench_raw, BENCH_OPS, BENCH_AT_LEAST, 0.75, 0.55, 0 } } },

	/* From the page cache. */
	{ BENCH_RANDREAD, 1, 1, .engines = { &bench_threads, &bench_gyre, &bench_task },
	  .goals = { AT_LEAST(bench_gyre, bench_threads, 0.90),
		     AT_LEAST(bench_task, bench_threads, 0.85) } },
	{ BENCH_RANDREAD, 32, 1, .engines = { &bench_threads, &bench_gyre },
	  .goals = { AT_LEAST(bench_gyre, bench_threads, 0.90) } },

	/* From the device. */
	{ BENCH_RANDREAD, 1, 1, .direct = true, .engines = { &bench_threads, &bench_gyre },
	  .goals = { AT_LEAST(bench_gyre, bench_threads, 0.97) } },
	{ BENCH_RANDREAD, 8, 1, .direct = true, .engines = { &bench_threads, &bench_gyre },
	  .goals = { AT_LEAST(bench_gyre, bench_threads, 0.97) } },
	{ BENCH_RANDREAD, 32, 1, .direct = true,
	  .engines = { &bench_threads, &bench_gyre, &bench_gyre_ring },
	  .goals = { AT_LEAST(bench_gyre, bench_threads, 0.97),
		     AT_LEAST(bench_gyre_ring, bench_threads, 0.75),
		     { &bench_gyre_ring, &bench_threads, BENCH_CPU_US, BENCH_AT_MOST, 2.5, 0, 0 } },
	  .peers = { &bench_libuv, &bench_posixaio, &bench_fio_uring, &bench_fio_libaio } },
	{ BENCH_RANDREAD, 32, 1, .direct = true, .engines = { &bench_raw, &bench_task },
	  .goals = { AT_LEAST(bench_task, bench_raw, 0.95) } },
	{ BENCH_RANDREAD, 128, 1, .direct = true, .engines = { &bench_threads, &bench_gyre },
	  .goals = { AT_LEAST(bench_gyre, bench_threads, 0.97) } },
	{ BENCH_RANDREAD, 1, 1, .direct = true, .spin_ns = SPIN_NS,
	  .engines = { &bench_threads, &bench_gyre_ring },
	  .goals = { AT_LEAST(bench_gyre_ring, bench_threads, 1.20) } },
	{ BENCH_RANDREAD, 1, BATCH, .direct = true,
	  .engines = { &bench_raw_batch, &bench_gyre, &bench_raw },
	  .goals = { AT_LEAST(bench_gyre, bench_raw_batch, 0.95), TOLD(bench_gyre, bench_raw) },
	  .peers = { &bench_libuv, &bench_posixaio, &bench_fio_uring, &bench_fio_libaio } },

	/* Tasks: what they cost themselves. */
	{ BENCH_YIELD, 1, 1,
	  .engines = { &bench_boost, &bench_ucontext, &bench_fiber, &bench_task },
	  .goals = { NS_AT_MOST(bench_fiber, 12), NS_AT_MOST(bench_task, 24),
		     TOLD(bench_task, bench_ucontext) } },
	{ BENCH_GO, 1, 1, .engines = { &bench_boost, &bench_pthread, &bench_task },
	  .goals = { NS_AT_MOST(bench_task, 80), TOLD(bench_task, bench_pthread) } },
	{ BENCH_GO, 1, 100, .engines = { &bench_boost, &bench_task },
	  .goals = { NS_AT_MOST(bench_task, 45) } },
	{ BENCH_JOB, 1, 1, .engines = { &bench_boost, &bench_gyre_nop, &bench_gyre, &bench_task },
	  .goals = { NS_AT_MOST(bench_task, 200),
		     AT_LEAST(bench_gyre, bench_gyre_nop, 1 / 1.15) } },
	{ BENCH_ALLOC, 1, 1, .engines = { &bench_boost, &bench_malloc, &bench_task },
	  .goals = { NS_AT_MOST(bench_task, 3), TOLD(bench_task, bench_malloc) } },
	{ BENCH_SLEEPERS, 100000, 1, .engines = { &bench_task },
	  .goals = { { &bench_task, NULL, BENCH_RSS, BENCH_AT_MOST, 4.6 * 1024, 0, 0 } } },
	{ BENCH_SLEEPERS, 1000000, 1, .once = true, .engines = { &bench_task },
	  .goals = { { &bench_task, NULL, BENCH_RSS, BENCH_AT_MOST, 4.6 * 1024, 0, 0 } } },

	/* Written, too: only to a temporary file. */
	{ BENCH_DURABLE, 8, 1, .engines = { &bench_threads, &bench_gyre },
	  .goals = { TOLD(bench_gyre, bench_threads) },
	  .peers = { &bench_libuv, &bench_posixaio } },
	{ BENCH_MIXED, 8, 1, .engines = { &bench_threads, &bench_gyre },
	  .goals = { TOLD(bench_gyre, bench_threads) } },
};

#define CASES	(sizeof(cases) / sizeof(cases[0]))

/* boost.context may not be here. */
static const struct bench_engine *stand_in(const struct bench_engine *engine)
{
	return engine == &bench_boost && engine->missing ? &bench_ucontext : engine;
}

static void add_goal(struct bench_plan *plan, const struct suite_goal *goal)
{
	const struct bench_engine *against = stand_in(goal->against);
	double peer_ns = against == &bench_boost ? BENCH_SWITCH_NS : BENCH_SWAPCONTEXT_NS;

	plan->goals[plan->goal_count++] = (struct bench_goal) {
		.kase = plan->case_count,
		.engine = goal->engine,
		.against = against,
		.metric = goal->metric,
		.sense = goal->sense,
		.limit = goal->ns > 0 ? goal->ns / peer_ns : goal->limit,
		.limit_slow = goal->limit_slow,
		.ns = goal->ns,
	};
}

static void add_peers(struct bench_plan *plan, struct bench_case *kase,
		      const struct suite_case *from)
{
	char why[BENCH_TEXT];
	unsigned i;

	for (i = 0; i < SUITE_PEERS && from->peers[i]; i++) {
		struct suite_goal told = TOLD(bench_gyre, *from->peers[i]);

		if (bench_case_refusal(kase, from->peers[i], why, sizeof(why)))
			continue;
		kase->engines[kase->engine_count++] = from->peers[i];
		add_goal(plan, &told);
	}
}

/* What takes nanoseconds, and in one thread, needs no long look. */
static double seconds_of(const struct bench_plan *plan, enum bench_work work)
{
	return work == BENCH_YIELD || work == BENCH_GO || work == BENCH_ALLOC ? plan->seconds / 4 :
										plan->seconds;
}

static void add_engines(struct bench_case *kase, const struct suite_case *from)
{
	unsigned i;

	for (i = 0; i < SUITE_ENGINES && from->engines[i]; i++) {
		const struct bench_engine *engine = stand_in(from->engines[i]);

		/* The one that stands in may be there already. */
		if (bench_case_find(kase, engine) == kase->engine_count)
			kase->engines[kase->engine_count++] = engine;
	}
}

/* As many as this machine and build have room for. */
static unsigned fewer_sleepers(const struct suite_case *from)
{
	if (from->work != BENCH_SLEEPERS || from->callers <= bench_sleepers_max())
		return from->callers;
	return bench_sleepers_max();
}

static void add_case(struct bench_plan *plan, const struct suite_case *from,
		     const struct suite *suite)
{
	struct bench_case *kase = &plan->cases[plan->case_count];
	unsigned i;

	memset(kase, 0, sizeof(*kase));
	kase->work = from->work;
	kase->callers = fewer_sleepers(from);
	kase->batch = from->batch;
	kase->vectored = from->batch > 1;
	kase->direct = from->direct;
	kase->block_size = BLOCK;
	kase->rate = from->rate;
	kase->spin_ns = from->spin_ns;
	kase->seconds = seconds_of(plan, from->work);
	kase->rounds = from->once ? 1 : plan->rounds;
	add_engines(kase, from);
	bench_case_name(kase);
	for (i = 0; i < CASE_GOALS && from->goals[i].engine; i++)
		add_goal(plan, &from->goals[i]);
	if (suite->full)
		add_peers(plan, kase, from);
	plan->case_count++;
}

/* Not to a file of the user's. */
static bool may_write(const struct bench_plan *plan)
{
	struct stat st;

	return !plan->path || stat(plan->path, &st) < 0 || S_ISDIR(st.st_mode);
}

static bool has_case(const struct bench_plan *plan, const struct suite *suite,
		     const struct suite_case *from)
{
	if (from->once && (!suite->full || plan->seconds < suite->seconds ||
			   fewer_sleepers(from) < from->callers))
		return false;
	return !bench_work_writes(from->work) || may_write(plan);
}

bool bench_suite_fill(struct bench_plan *plan, const char *name)
{
	const struct suite *suite = NULL;
	size_t i;

	_Static_assert(CASES <= BENCH_CASES_MAX, "the plan holds every case of a suite");
	_Static_assert(CASES * (CASE_GOALS + SUITE_PEERS) <= BENCH_GOALS_MAX, "and every goal");
	_Static_assert(SUITE_ENGINES + SUITE_PEERS <= BENCH_ENGINES_MAX, "and every engine");
	for (i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
		if (strcmp(suites[i].name, name) == 0)
			suite = &suites[i];
	if (!suite)
		return false;
	plan->suite = suite->name;
	if (plan->seconds <= 0)
		plan->seconds = suite->seconds;
	if (plan->warmup < 0)
		plan->warmup = suite->warmup;
	if (plan->rounds == 0)
		plan->rounds = suite->rounds;
	plan->case_count = 0;
	plan->goal_count = 0;
	for (i = 0; i < CASES; i++)
		if (has_case(plan, suite, &cases[i]))
			add_case(plan, &cases[i], suite);
	return true;
}
