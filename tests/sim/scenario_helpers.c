/* SPDX-License-Identifier: MIT */
/*
 * A runtime's few helpers, asked by threads, by tasks and by each other, while
 * they wait for who asks: for jobs, for other helpers, for closes of runtimes.
 * Nobody waits for ever; what is refused has found all of them waiting; and what
 * the library needs a helper for itself does not wait for functions of users'.
 */
#include "scenario.h"

#include "deadline.h"
#include "failures.h"

#define RUNTIMES_MAX	3
#define HELPERS_MAX	2
#define JOBS_MAX	8
#define CALLERS_MAX	3
#define DEPTH_MAX	3
#define SHORT_NS_MAX	(50 * SIM_US)
/* A function of a user's that takes its time; and what no brief call waits for. */
#define LONG_NS		(20 * SIM_MS)
#define LATE_NS		(5 * SIM_MS)

/* Where a step is made. */
struct place {
	unsigned runtime, depth;
	bool in_task, on_helper;	/* neither: a thread of the program's */
};

static struct {
	struct gyre *rts[RUNTIMES_MAX];
	unsigned count, helpers[RUNTIMES_MAX];
	unsigned running[RUNTIMES_MAX];	/* functions, on its helpers */
	unsigned waiting[RUNTIMES_MAX];	/* its helpers that wait, or are about to, or just have */
	uint64_t all_wait_ns[RUNTIMES_MAX];	/* the latest moment at which all did; 0: none */
	/* Calls of its tasks that may last: now, and in all. */
	unsigned lasting[RUNTIMES_MAX], lasted[RUNTIMES_MAX];
	bool closing[RUNTIMES_MAX];
	struct job {
		struct gyre_job *handle;	/* NULL: somebody waits for it, or has */
		struct place place;
	} jobs[JOBS_MAX];
	unsigned jobs_used;
	bool slow;			/* more of what lasts */
	int file;
} play;

/* -------------------------------------------------------------- the oracle -- */

static void begin_wait(const struct place *place)
{
	unsigned nth = place->runtime;

	if (++play.waiting[nth] >= play.helpers[nth])
		play.all_wait_ns[nth] = SIM_NEVER;
}

static void end_wait(const struct place *place)
{
	unsigned nth = place->runtime;

	if (play.waiting[nth]-- == play.helpers[nth])
		play.all_wait_ns[nth] = sim_now_ns();
}

static bool all_have_waited(unsigned runtime, uint64_t since_ns)
{
	return play.all_wait_ns[runtime] >= since_ns && play.all_wait_ns[runtime];
}

/* What asks for a helper of a runtime was told. */
static void check_refusal(const char *what, enum gyre_status status, unsigned runtime,
			  uint64_t since_ns)
{
	if (status == GYRE_OK)
		return;
	if (status == GYRE_WOULD_DEADLOCK) {
		sim_reach(SIM_HELPERS_ALL_WAIT);
		if (!all_have_waited(runtime, since_ns))
			sim_fail("%s is refused, and not all helpers wait", what);
		return;
	}
	if (!(status == GYRE_CLOSED && play.closing[runtime]) && !sim_fault_happened())
		sim_fail("%s: %s, and nothing has failed", what, gyre_status_name(status));
}

/* ---------------------------------------------------------------- steps -- */

static void make_steps(const struct place *place);

struct asked {
	struct place place;		/* of the function */
	unsigned runs;
};

static int run_offloaded(void *arg)
{
	struct asked *asked = arg;
	unsigned nth = asked->place.runtime;

	if (asked->runs++)
		sim_fail("an offloaded function runs twice");
	if (++play.running[nth] > play.helpers[nth])
		sim_fail("more functions run at once than there may be helpers");
	make_steps(&asked->place);
	play.running[nth]--;
	return 0;
}

static void offload(const struct place *place)
{
	unsigned nth = (unsigned)sim_random(play.count);
	struct asked asked = { .place = { nth, place->depth + 1, .on_helper = true } };
	uint64_t start_ns = sim_now_ns();
	enum gyre_status status;

	if (place->depth == DEPTH_MAX)
		return;
	if (place->on_helper)
		begin_wait(place);
	status = gyre_offload(play.rts[nth], run_offloaded, &asked, NULL);
	sim_trace("gyre_offload to runtime %u: %s", nth, gyre_status_name(status));
	if (place->on_helper)
		end_wait(place);
	sim_check_told(status);
	if (asked.runs != (status == GYRE_OK))
		sim_fail("an offloaded function has run %u times, and its caller is told %s",
			 asked.runs, gyre_status_name(status));
	check_refusal("an offload", status, nth, start_ns);
}

static void wait_for_job(const struct place *place)
{
	struct job *job = &play.jobs[sim_random(play.jobs_used)];
	struct gyre_job *handle = job->handle;
	enum gyre_status status;

	if (!handle)
		return;
	job->handle = NULL;
	if (place->on_helper)
		begin_wait(place);
	status = gyre_job_wait(handle, GYRE_FOREVER, NULL);
	sim_trace("gyre_job_wait: %s", gyre_status_name(status));
	if (place->on_helper)
		end_wait(place);
	if (status == GYRE_BUSY || status == GYRE_WOULD_DEADLOCK)
		job->handle = handle;
	if (status == GYRE_WOULD_DEADLOCK)
		sim_reach(SIM_CIRCLE_REFUSED);
}

static int run_task(void *arg)
{
	make_steps(arg);
	return 0;
}

static void block_on(const struct place *place)
{
	unsigned nth = (unsigned)sim_random(play.count);
	struct place inner = { nth, place->depth + 1, .in_task = true };
	enum gyre_status status;

	if (place->depth == DEPTH_MAX)
		return;
	if (place->on_helper)
		begin_wait(place);
	status = gyre_block_on(play.rts[nth], run_task, &inner, NULL, NULL);
	if (place->on_helper)
		end_wait(place);
	sim_check_told(status);
	if (status != GYRE_OK && !sim_fault_happened() && !play.closing[nth])
		sim_fail("gyre_block_on: %s", gyre_last_error());
}

static void begin_lasting(const struct place *place)
{
	play.lasting[place->runtime]++;
	play.lasted[place->runtime]++;
}

/* Where a task asks, it may be one of its runtime's helpers that waits. */
static void close_one(const struct place *place, unsigned nth)
{
	sim_excuse_close();
	play.closing[nth] = true;
	sim_trace("runtime %u is closed from runtime %u", nth, place->runtime);
	begin_wait(place);
	if (place->in_task)
		begin_lasting(place);
	sim_check_told(gyre_close(play.rts[nth]));
	if (place->in_task)
		play.lasting[place->runtime]--;
	end_wait(place);
}

/* Each refusal of a submission meanwhile may have made the worker pause. */
static bool is_late(uint64_t start_ns, uint64_t refusals)
{
	uint64_t pauses_ns = (sim_deadline_refusals() - refusals) * SIM_LATE_REFUSAL_NS;

	return sim_now_ns() - start_ns > LATE_NS + pauses_ns && !sim_fault_happened();
}

static void call_briefly(void)
{
	uint64_t start_ns = sim_now_ns(), refusals = sim_deadline_refusals();
	struct gyre_buffer *buffer;
	enum gyre_status status = gyre_buffer_get(NULL, 64, &buffer);

	sim_trace("gyre_buffer_get: %s", gyre_status_name(status));
	sim_check_told(status);
	if (status == GYRE_OK)
		gyre_buffer_put(buffer);
	else if (!sim_fault_happened())
		sim_fail("a brief call is refused: %s", gyre_last_error());
	if (is_late(start_ns, refusals))
		sim_fail("a brief call has waited for others than the kernel");
}

/* There is a place for one such call that nobody else can take. */
static void call_for_long(const struct place *place)
{
	uint64_t start_ns = sim_now_ns(), refusals = sim_deadline_refusals();
	enum gyre_status status;
	unsigned before;
	bool alone;

	begin_lasting(place);
	before = play.lasted[place->runtime];
	alone = play.lasting[place->runtime] == 1;
	status = gyre_stats_write(NULL, play.file, GYRE_FORMAT_TEXT);
	play.lasting[place->runtime]--;
	alone &= play.lasted[place->runtime] == before;
	sim_trace("gyre_stats_write: %s", gyre_status_name(status));
	sim_check_told(status);
	if (status == GYRE_WOULD_DEADLOCK)
		check_refusal("a call that may last", status, place->runtime, start_ns);
	if (alone && status == GYRE_WOULD_DEADLOCK && !sim_fault_happened())
		sim_fail("a call that may last is refused, and nothing else lasts");
	if (alone && is_late(start_ns, refusals))
		sim_fail("a call that may last has waited for functions of users'");
}

static void sleep_a_while(const struct place *place)
{
	uint64_t ns = sim_chance(play.slow ? 500 : 100) ? LONG_NS : sim_random(SHORT_NS_MAX);

	if (place->in_task)
		gyre_sleep(ns);
	else
		sim_sleep(ns);
}

static void make_step(const struct place *place)
{
	/* One of the last chances to wait for what is queued behind it. */
	if (place->on_helper && play.closing[place->runtime] && sim_chance(500)) {
		wait_for_job(place);
		return;
	}
	switch (sim_random(place->in_task ? 9 : 7)) {
	case 0:
		sleep_a_while(place);
		break;
	case 1:
	case 2:
	case 3:
		offload(place);
		break;
	case 4:
		wait_for_job(place);
		break;
	case 5:
		block_on(place);
		break;
	case 6:
		if ((place->in_task || place->on_helper) && sim_chance(play.slow ? 600 : 200))
			close_one(place, (unsigned)sim_random(play.count));
		break;
	case 7:
		call_briefly();
		break;
	default:
		call_for_long(place);
	}
}

static void make_steps(const struct place *place)
{
	unsigned steps = 1 + (unsigned)sim_random(sim_many(2, 3)), i;

	for (i = 0; i < steps; i++)
		make_step(place);
}

/* ----------------------------------------------------------------- main -- */

static void caller_main(void *arg)
{
	const struct place place = { .depth = 0 };

	(void)arg;
	make_steps(&place);
}

static void open_all(unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		play.helpers[play.count] = 1 + (unsigned)sim_random(HELPERS_MAX);
		if (sim_open_with_helpers(1, play.helpers[play.count], GYRE_FOREVER,
					  &play.rts[play.count]))
			play.count++;
	}
}

static void spawn_all(unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		struct job *job = &play.jobs[play.jobs_used++];
		struct gyre_job *handle;

		job->place = (struct place){ (unsigned)sim_random(play.count), .in_task = true };
		if (gyre_spawn(play.rts[job->place.runtime], run_task, &job->place, NULL,
			       &handle) == GYRE_OK)
			job->handle = handle;
		else if (!sim_fault_happened() && !play.closing[job->place.runtime])
			sim_fail("gyre_spawn: %s", gyre_last_error());
	}
}

static void close_all(void)
{
	unsigned first = (unsigned)sim_random(play.count), i;

	for (i = 0; i < play.count; i++) {
		unsigned nth = (first + i) % play.count;

		sim_excuse_close();
		play.closing[nth] = true;
		sim_trace("main closes runtime %u", nth);
		if (gyre_close(play.rts[nth]) != GYRE_OK && !sim_fault_happened())
			sim_fail("gyre_close: %s", gyre_last_error());
	}
}

static void wait_for_jobs(void)
{
	unsigned i;

	for (i = 0; i < play.jobs_used; i++) {
		struct gyre_job *handle = play.jobs[i].handle;

		play.jobs[i].handle = NULL;
		if (handle && gyre_job_wait(handle, GYRE_FOREVER, NULL) == GYRE_BUSY)
			play.jobs[i].handle = handle;
	}
}

static void let_go(void)
{
	unsigned i;

	for (i = 0; i < play.jobs_used; i++)
		if (play.jobs[i].handle)
			gyre_job_detach(play.jobs[i].handle);
	for (i = 0; i < play.count; i++)
		gyre_free(play.rts[i]);
}

static void play_all(void)
{
	struct sim_thread *callers[CALLERS_MAX];
	unsigned count = (unsigned)sim_random(CALLERS_MAX + 1), i;
	bool patient = sim_chance(600);

	spawn_all(2 + (unsigned)sim_random(sim_many(2, JOBS_MAX - 2)));
	for (i = 0; i < count; i++)
		callers[i] = sim_spawn("caller", caller_main, NULL);
	if (patient)
		wait_for_jobs();
	else
		sim_sleep(sim_random(2 * SHORT_NS_MAX));
	for (i = 0; patient && i < count; i++)
		sim_join(callers[i]);
	close_all();
	for (i = 0; !patient && i < count; i++)
		sim_join(callers[i]);
}

void scenario_helpers(void *arg)
{
	(void)arg;
	memset(&play, 0, sizeof(play));
	play.slow = sim_chance(300);
	play.file = sim_scenario_file("what is told", 12);
	open_all(1 + (unsigned)sim_random(RUNTIMES_MAX));
	/* From here on, only helpers are started. */
	if (!sim_failures_run() && sim_chance(300))
		sim_faults.fail_thread = 2 + (unsigned)sim_random(4);
	if (play.count)
		play_all();
	let_go();
	sim_scenario_close(play.file);
}

/* ------------------------------------------------------------- the reserve -- */

static int sleep_long(void *arg)
{
	(void)arg;
	sim_sleep(1 + sim_random(LONG_NS));
	return 0;
}

/* Who closes its runtime may wait for a job of the first one, and so for what that calls. */
static int last_long(void *arg)
{
	const struct place place = { .in_task = true };

	(void)arg;
	gyre_sleep(sim_random(sim_chance(500) ? SHORT_NS_MAX : LONG_NS));
	wait_for_job(&place);
	return 0;
}

/* Each of the first one's helpers is a user's for long. */
static void keep_busy(void *arg)
{
	unsigned times = 1 + (unsigned)sim_random(3), i;

	(void)arg;
	for (i = 0; i < times; i++) {
		uint64_t start_ns = sim_now_ns();

		check_refusal("an offload", gyre_offload(play.rts[0], sleep_long, NULL, NULL), 0,
			      start_ns);
	}
}

static int need_helpers(void *arg)
{
	const struct place place = { .in_task = true };
	unsigned steps = 1 + (unsigned)sim_random(4), i;

	(void)arg;
	for (i = 0; i < steps; i++) {
		unsigned kind = (unsigned)sim_random(4);

		if (kind == 0)
			gyre_sleep(sim_random(SHORT_NS_MAX));
		else if (kind == 1 && play.count > 1)
			close_one(&place, 1 + (unsigned)sim_random(play.count - 1));
		else if (kind == 2)
			call_for_long(&place);
		else
			call_briefly();
	}
	return 0;
}

static void spawn_one(unsigned runtime, gyre_task_fn *fn)
{
	struct job *job = &play.jobs[play.jobs_used++];
	struct gyre_job *handle;

	if (gyre_spawn(play.rts[runtime], fn, NULL, NULL, &handle) == GYRE_OK)
		job->handle = handle;
}

static void use_the_reserve(void)
{
	struct sim_thread *callers[CALLERS_MAX];
	unsigned count = 1 + (unsigned)sim_random(CALLERS_MAX), i;

	for (i = 0; i < count; i++)
		callers[i] = sim_spawn("caller", keep_busy, NULL);
	for (i = 1; i < play.count; i++)
		spawn_one(i, last_long);
	sim_sleep(sim_random(SHORT_NS_MAX));
	for (i = 2 + (unsigned)sim_random(4); i > 0; i--)
		spawn_one(0, need_helpers);
	wait_for_jobs();
	for (i = 0; i < count; i++)
		sim_join(callers[i]);
	close_all();
}

void scenario_helpers_reserve(void *arg)
{
	(void)arg;
	memset(&play, 0, sizeof(play));
	play.file = sim_scenario_file("what is told", 12);
	open_all(RUNTIMES_MAX);
	if (!sim_failures_run() && sim_chance(300))
		sim_faults.fail_thread = 1 + (unsigned)sim_random(4);
	if (play.count)
		use_the_reserve();
	let_go();
	sim_scenario_close(play.file);
}
