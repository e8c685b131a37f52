/* SPDX-License-Identifier: MIT */
/*
 * One run: one engine doing one case once.
 *
 * Main makes the engine, then the callers. Each caller sets itself up in its
 * own thread (a ring belongs to its thread, memory to who touches it first)
 * and waits at the gate. When all have arrived main opens it and moves the
 * phase: warm, measure, stop. It alone writes the phase, but for a fault,
 * which stops the run from any thread. What a caller counts is its own until
 * it has been joined, but for `done`.
 */
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define CALLER_STACK		(512u * 1024u)
#define TICK_NS			UINT64_C(200000000)
/* A paced caller looks so often whether it is time to leave. */
#define NAP_MAX_NS		UINT64_C(50000000)
#define CHECKED_OPS_MAX		64u
/* No operation takes so long: one that does has been lost. */
#define LEAVE_PATIENCE_NS	UINT64_C(30000000000)

/*
 * A run that failed may have left memory to the kernel, and the program ends
 * anyway: it is kept, not freed. volatile, for leak checkers to find it here.
 */
static struct bench_run *volatile failed_run;

int bench_fault(struct bench_run *run, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	pthread_mutex_lock(&run->lock);
	if (run->fault[0] == '\0') {
		vsnprintf(run->fault, sizeof(run->fault), format, args);
		atomic_store_explicit(&run->phase, BENCH_STOP, memory_order_relaxed);
		pthread_cond_broadcast(&run->cond);
	}
	pthread_mutex_unlock(&run->lock);
	va_end(args);
	return -1;
}

/* ------------------------------------------------------------- callers -- */

static void caller_set_op(struct bench_caller *caller, unsigned i, size_t stride)
{
	const struct bench_run *run = caller->run;
	struct bench_op *op = &caller->ops[i];

	if (!bench_case_uses_file(run->kase)) {
		op->kind = BENCH_OP_NOP;
		return;
	}
	op->kind = run->kase->work == BENCH_DURABLE ? BENCH_OP_DURABLE :
		   run->kase->work == BENCH_RANDWRITE ? BENCH_OP_WRITE : BENCH_OP_READ;
	op->fd = run->kase->direct ? run->target->direct_fd : run->target->fd;
	op->len = (uint32_t)run->kase->block_size;
	op->buf = (char *)caller->buffers + i * stride;
	/* Touched here, so that no page is faulted in while the clock runs. */
	memset(op->buf, (int)(caller->index % 255 + 1), stride);
}

static int caller_make_ops(struct bench_caller *caller)
{
	size_t stride = bench_buffer_size(caller->run->kase);
	unsigned i;

	caller->ops = calloc(caller->op_count, sizeof(*caller->ops));
	if (!caller->ops)
		goto no_memory;
	if (bench_case_uses_file(caller->run->kase)) {
		caller->buffers = aligned_alloc(BENCH_PAGE, stride * caller->op_count);
		if (!caller->buffers)
			goto no_memory;
	}
	for (i = 0; i < caller->op_count; i++)
		caller_set_op(caller, i, stride);
	return 0;

no_memory:
	return bench_fault(caller->run, "no memory for the buffers of caller %u", caller->index);
}

/* Waits until every caller has arrived, or there was a fault. */
static void caller_gate(struct bench_run *run)
{
	pthread_mutex_lock(&run->lock);
	run->arrived++;
	pthread_cond_broadcast(&run->cond);
	while (atomic_load_explicit(&run->phase, memory_order_relaxed) == BENCH_HOLD)
		pthread_cond_wait(&run->cond, &run->lock);
	pthread_mutex_unlock(&run->lock);
}

/* One time stamp a call: the end of one is the start of the next. */
static void caller_loop(struct bench_caller *caller)
{
	int (*step)(struct bench_caller *caller) = caller->run->engine->step;
	uint64_t now, since = bench_ticks();
	bool going = true;

	while (going && step(caller) == 0) {
		now = bench_ticks();
		going = bench_note(caller, since, now, caller->op_count);
		since = now;
	}
}

/* False when the run ended first. */
static bool caller_nap(const struct bench_caller *caller, uint64_t due_ns)
{
	uint64_t now = bench_now_ns();

	while (now < due_ns) {
		if (atomic_load_explicit(&caller->run->phase, memory_order_relaxed) == BENCH_STOP)
			return false;
		bench_sleep_until(due_ns - now > NAP_MAX_NS ? now + NAP_MAX_NS : due_ns);
		now = bench_now_ns();
	}
	return true;
}

/* So many calls a second. One that is late does not make the next ones hurry. */
static void caller_loop_paced(struct bench_caller *caller)
{
	const struct bench_run *run = caller->run;
	uint64_t period = (uint64_t)((double)BENCH_NS_PER_S / run->kase->rate);
	/* Spread over the period: callers that fire together are another load. */
	uint64_t due = bench_now_ns() + period / run->caller_count * caller->index;
	uint64_t now, since;
	bool going = true;

	while (going && caller_nap(caller, due)) {
		since = bench_ticks();
		if (run->engine->step(caller) < 0)
			break;
		going = bench_note(caller, since, bench_ticks(), caller->op_count);
		now = bench_now_ns();
		due = due + period > now ? due + period : now;
	}
}

static void *caller_main(void *arg)
{
	struct bench_caller *caller = arg;
	struct bench_run *run = caller->run;
	const struct bench_engine *engine = run->engine;
	bool joined = caller_make_ops(caller) == 0 && (!engine->join || engine->join(caller) == 0);

	caller_gate(run);
	if (joined && run->kase->rate > 0)
		caller_loop_paced(caller);
	else if (joined && engine->loop)
		engine->loop(caller);
	else if (joined)
		caller_loop(caller);
	if (joined && engine->leave)
		engine->leave(caller);
	pthread_mutex_lock(&run->lock);
	run->left++;
	pthread_cond_broadcast(&run->cond);
	pthread_mutex_unlock(&run->lock);
	return NULL;
}

/* ---------------------------------------------------------- make, undo -- */

static void run_free(struct bench_run *run)
{
	unsigned i;

	if (run->fault[0] != '\0') {
		failed_run = run;
		return;
	}
	for (i = 0; run->callers && i < run->caller_count && run->callers[i]; i++) {
		free(run->callers[i]->buffers);
		free(run->callers[i]->ops);
		free(run->callers[i]);
	}
	free(run->callers);
	pthread_cond_destroy(&run->cond);
	pthread_mutex_destroy(&run->lock);
	free(run);
}

static struct bench_caller *caller_new(struct bench_run *run, unsigned index)
{
	struct bench_caller *caller = aligned_alloc(BENCH_ALIGN, sizeof(*caller));

	if (!caller)
		return NULL;
	memset(caller, 0, sizeof(*caller));
	caller->run = run;
	caller->index = index;
	caller->op_count = run->op_count;
	caller->random = UINT64_C(0x9e3779b97f4a7c15) * (index + 1);
	caller->blocks = run->blocks;
	caller->next_block = run->blocks / run->caller_count * index;
	caller->sequential = run->kase->work == BENCH_READ;
	caller->mixed = run->kase->work == BENCH_MIXED;
	return caller;
}

static void run_init_lock(struct bench_run *run)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&run->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&run->cond, &attr);
	pthread_condattr_destroy(&attr);
}

static struct bench_run *run_new(const struct bench_plan *plan, const struct bench_case *kase,
				 const struct bench_engine *engine,
				 const struct bench_target *target)
{
	struct bench_run *run = aligned_alloc(BENCH_ALIGN, sizeof(*run));
	unsigned i;

	if (!run)
		return NULL;
	memset(run, 0, sizeof(*run));
	atomic_init(&run->phase, BENCH_HOLD);
	run->plan = plan;
	run->kase = kase;
	run->engine = engine;
	run->target = target;
	run->blocks = bench_case_uses_file(kase) ? target->size / kase->block_size : 0;
	run->caller_count = engine->one_thread ? 1 : kase->callers;
	run->op_count = engine->one_thread ? kase->callers * kase->batch : kase->batch;
	if (engine->one_caller)
		run->op_count = 1;
	run->block = 1;
	run->in_caller = NAN;
	run->awake = NAN;
	run_init_lock(run);
	run->callers = calloc(run->caller_count, sizeof(*run->callers));
	for (i = 0; run->callers && i < run->caller_count; i++) {
		run->callers[i] = caller_new(run, i);
		if (!run->callers[i])
			break;
	}
	if (i == run->caller_count)
		return run;
	run_free(run);
	return NULL;
}

static void run_start_callers(struct bench_run *run)
{
	pthread_attr_t attr;
	unsigned i;
	int rc = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, CALLER_STACK);
	for (i = 0; i < run->caller_count && rc == 0; i++) {
		rc = pthread_create(&run->callers[i]->thread, &attr, caller_main, run->callers[i]);
		run->callers[i]->started = rc == 0;
	}
	pthread_attr_destroy(&attr);
	if (rc != 0) {
		errno = rc;
		bench_fault(run, "no thread for caller %u of %u: %m (errno %d)", i,
			    run->caller_count, rc);
	}
}

/*
 * False, after a fault, when some are still in their calls: then nothing that
 * they use may be taken from under them, and all that is left is to say so.
 */
static bool run_join_callers(struct bench_run *run)
{
	struct timespec ts = bench_timespec(bench_now_ns() + LEAVE_PATIENCE_NS);
	unsigned i, started = 0, left;
	int rc = 0;

	for (i = 0; i < run->caller_count; i++)
		started += run->callers[i]->started;
	pthread_mutex_lock(&run->lock);
	while (run->left < started && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&run->cond, &run->lock, &ts);
	left = run->left;
	pthread_mutex_unlock(&run->lock);
	if (left < started) {
		bench_fault(run, "%s: %u of %u callers still wait for a reply after %u s",
			    run->engine->name, started - left, started,
			    (unsigned)(LEAVE_PATIENCE_NS / BENCH_NS_PER_S));
		return false;
	}
	for (i = 0; i < started; i++)
		pthread_join(run->callers[i]->thread, NULL);
	return true;
}

/* ------------------------------------------------------------- measure -- */

/* What the process has used. */
struct usage {
	uint64_t ns;		/* of time */
	double cpu_us;
	double switches;
};

static struct usage usage_now(void)
{
	struct rusage rusage;
	struct usage usage;

	usage.ns = bench_now_ns();
	getrusage(RUSAGE_SELF, &rusage);
	usage.cpu_us = (double)(rusage.ru_utime.tv_sec + rusage.ru_stime.tv_sec) * 1e6 +
		       (double)(rusage.ru_utime.tv_usec + rusage.ru_stime.tv_usec);
	usage.switches = (double)(rusage.ru_nvcsw + rusage.ru_nivcsw);
	return usage;
}

/* Main. False when there was a fault. */
static bool run_wait_callers(struct bench_run *run)
{
	bool good;

	pthread_mutex_lock(&run->lock);
	while (run->arrived < run->caller_count && run->fault[0] == '\0')
		pthread_cond_wait(&run->cond, &run->lock);
	good = run->fault[0] == '\0';
	pthread_mutex_unlock(&run->lock);
	return good;
}

/* Main. A fault is the last word: what it stopped is not set going again. */
static void run_set_phase(struct bench_run *run, enum bench_phase phase)
{
	pthread_mutex_lock(&run->lock);
	if (run->fault[0] == '\0')
		atomic_store_explicit(&run->phase, phase, memory_order_relaxed);
	pthread_cond_broadcast(&run->cond);
	pthread_mutex_unlock(&run->lock);
}

/* Main. Returns at the deadline, or at once when there was a fault. */
static void run_wait_until(struct bench_run *run, uint64_t deadline_ns)
{
	struct timespec ts = bench_timespec(deadline_ns);
	int rc = 0;

	pthread_mutex_lock(&run->lock);
	while (rc != ETIMEDOUT && run->fault[0] == '\0')
		rc = pthread_cond_timedwait(&run->cond, &run->lock, &ts);
	pthread_mutex_unlock(&run->lock);
}

static uint64_t run_done(const struct bench_run *run)
{
	uint64_t done = 0;
	unsigned i;

	for (i = 0; i < run->caller_count; i++)
		done += atomic_load_explicit(&run->callers[i]->done, memory_order_relaxed);
	return done;
}

static void run_measure(struct bench_run *run, bench_tick_fn *tick, void *arg,
			struct usage *ret_start, struct usage *ret_end)
{
	uint64_t now, end, next;

	run_set_phase(run, BENCH_WARM);
	run_wait_until(run, bench_now_ns() + (uint64_t)(run->plan->warmup * 1e9));
	*ret_start = usage_now();
	run_set_phase(run, BENCH_MEASURE);
	now = ret_start->ns;
	end = now + (uint64_t)(run->kase->seconds * 1e9);
	while (now < end && atomic_load_explicit(&run->phase, memory_order_relaxed) != BENCH_STOP) {
		next = tick && now + TICK_NS < end ? now + TICK_NS : end;
		run_wait_until(run, next);
		now = bench_now_ns();
		if (tick && now < end)
			tick(arg, run_done(run), (double)(now - ret_start->ns) / 1e9);
	}
	run_set_phase(run, BENCH_STOP);
	*ret_end = usage_now();
}

/* --------------------------------------------------------------- judge -- */

/*
 * After the callers are gone: what each one's last operations read is what the
 * file holds, what they wrote is there. Outside the window, so it costs the
 * engine nothing.
 */
static void run_check_caller(struct bench_run *run, struct bench_caller *caller)
{
	unsigned i, count = caller->op_count < CHECKED_OPS_MAX ? caller->op_count : CHECKED_OPS_MAX;
	int rc;

	for (i = 0; i < count; i++) {
		struct bench_op *op = &caller->ops[i];
		/* Others may have written there since: only its beginning tells. */
		bool whole = op->kind == BENCH_OP_READ && !caller->mixed;
		size_t len = whole || op->len < 8 ? op->len : 8;

		/* And that only where it was the same before. */
		if (caller->mixed && !run->target->pattern)
			continue;
		rc = bench_target_check(run->target, op->buf, len, op->offset);
		if (rc < 0) {
			errno = -rc;
			bench_fault(run, "%s: cannot read block at %llu again: %m (errno %d)",
				    run->engine->name, (unsigned long long)op->offset, -rc);
		} else if (rc == 0) {
			bench_fault(run, "%s: the block at %llu is not what the file holds "
				    "(does another program write to it?)", run->engine->name,
				    (unsigned long long)op->offset);
		}
	}
}

static void run_check(struct bench_run *run)
{
	char why[PATH_MAX + BENCH_TEXT];
	unsigned i;

	if (!bench_case_uses_file(run->kase))
		return;
	if (!bench_target_whole(run->target, why, sizeof(why))) {
		bench_fault(run, "%s", why);
		return;
	}
	/* A paced caller may have left before its first operation. */
	for (i = 0; i < run->caller_count; i++)
		if (run->callers[i]->hist.count > 0)
			run_check_caller(run, run->callers[i]);
}

static void run_result(const struct bench_run *run, const struct bench_hist *hist,
		       const struct usage *start, const struct usage *end, struct bench_result *ret)
{
	double us_per_tick = bench_clock.ns_per_tick / 1e3 / run->block;
	double ops = (double)hist->count;
	double us = (double)(end->ns - start->ns) / 1e3;
	uint64_t least = UINT64_MAX;
	double *value = ret->value;
	unsigned i;

	for (i = 0; i < run->caller_count; i++)
		if (run->callers[i]->hist.count < least)
			least = run->callers[i]->hist.count;
	for (i = 0; i < BENCH_METRICS; i++)
		value[i] = NAN;
	value[BENCH_OPS] = ops / us * 1e6;
	value[BENCH_CPU_PERCENT] = (end->cpu_us - start->cpu_us) / us * 100;
	value[BENCH_IN_CALLER] = run->in_caller;
	value[BENCH_AWAKE] = run->awake;
	if (hist->count == 0)
		return;
	value[BENCH_P50] = bench_hist_quantile(hist, 0.5) * us_per_tick;
	value[BENCH_P90] = bench_hist_quantile(hist, 0.9) * us_per_tick;
	value[BENCH_P99] = bench_hist_quantile(hist, 0.99) * us_per_tick;
	value[BENCH_P999] = bench_hist_quantile(hist, 0.999) * us_per_tick;
	value[BENCH_MAX] = (double)hist->max * us_per_tick;
	value[BENCH_CPU_US] = (end->cpu_us - start->cpu_us) / ops;
	value[BENCH_SWITCHES] = (end->switches - start->switches) / ops;
	if (!run->engine->one_thread)
		value[BENCH_SHARE] = (double)least * run->caller_count / ops;
}

static void run_callers(struct bench_run *run, bench_tick_fn *tick, void *arg,
			struct bench_result *ret)
{
	struct usage start = { 0 }, end = { 0 };
	struct bench_hist *sum;
	unsigned i;

	run_start_callers(run);
	if (run_wait_callers(run))
		run_measure(run, tick, arg, &start, &end);
	if (!run_join_callers(run))
		return;
	if (run->fault[0] == '\0')
		run_check(run);
	if (run->engine->close)
		run->engine->close(run);
	sum = calloc(1, sizeof(*sum));
	if (!sum) {
		bench_fault(run, "no memory for the histogram");
		return;
	}
	for (i = 0; i < run->caller_count; i++)
		bench_hist_merge(sum, &run->callers[i]->hist);
	if (run->fault[0] == '\0')
		run_result(run, sum, &start, &end, ret);
	free(sum);
}

int bench_run(const struct bench_plan *plan, const struct bench_case *kase,
	      const struct bench_engine *engine, const struct bench_target *target,
	      bench_tick_fn *tick, void *arg, struct bench_result *ret)
{
	struct bench_run *run = run_new(plan, kase, engine, target);
	int rc = 0;

	if (!run)
		return bench_complain("no memory for %u callers", kase->callers);
	if (engine->measure && (!engine->alone || engine->alone & BENCH_WORK_BIT(kase->work)))
		engine->measure(run, ret);
	else if (!engine->open || engine->open(run) == 0)
		run_callers(run, tick, arg, ret);
	if (run->fault[0] != '\0')
		rc = bench_complain("%s", run->fault);
	run_free(run);
	return rc;
}
