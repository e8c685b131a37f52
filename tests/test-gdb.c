/* SPDX-License-Identifier: MIT */
/*
 * tools/gyre-gdb.py on this very process, alive and as a core, while ops of
 * known kinds are stuck in it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"
#include "ring/sys_fault.h"

#define HOUR_NS	(3600 * UINT64_C(1000000000))

/* One runtime with an op of each kind, one that has no room, one that has died. */
struct scene {
	struct gyre *stuck, *full, *dead;
	struct test_pipe pipes[4];
	pthread_t threads[4];
	char dir[32];
};

static struct gyre *scene_open(const char *name, unsigned inflight_max)
{
	struct gyre_options options = GYRE_OPTIONS_INIT;

	options.name = name;
	options.workers = 1;
	options.inflight_max = inflight_max;
	options.spin_ns = GYRE_SPIN_NEVER;
	options.drain_ns = 0;
	return test_open(&options);
}

static void *wait_for_a_read(void *arg)
{
	struct scene *scene = arg;
	char byte;
	struct test_io io = { scene->pipes[0].r, &byte, 1, TEST_IO_HERE };
	int res;

	expect_status(gyre_call(scene->stuck, prep_read, &io, &res), GYRE_OK);
	expect_eq(res, 1);
	return NULL;
}

static void *wait_for_a_poll(void *arg)
{
	struct scene *scene = arg;
	struct gyre_op ops[2] = {
		test_op(prep_nop, NULL),
		test_op(prep_poll_in, &scene->pipes[1].r),
	};

	ops[1].timeout_ns = HOUR_NS;
	expect_status(gyre_callv(scene->stuck, ops, 2), GYRE_OK);
	return NULL;
}

static void *fill_the_room(void *arg)
{
	struct scene *scene = arg;

	expect_status(gyre_call(scene->full, prep_poll_in, &scene->pipes[2].r, NULL), GYRE_OK);
	return NULL;
}

static void *wait_for_room(void *arg)
{
	struct scene *scene = arg;
	struct gyre_op ops[3] = {
		test_op(prep_nop, NULL), test_op(prep_nop, NULL), test_op(prep_nop, NULL),
	};

	expect_status(gyre_callv(scene->full, ops, 3), GYRE_OK);
	return NULL;
}

static void scene_start(struct scene *scene, unsigned i, void *(*fn)(void *))
{
	expect_eq(pthread_create(&scene->threads[i], NULL, fn, scene), 0);
}

/* What a worker has left to do: it sleeps in the kernel. */
static bool sleeps(const char *name)
{
	char state[32];
	int tid;

	expect_eq(test_find_thread(name, &tid), 1);
	test_thread_status(tid, "State", state, sizeof(state));
	return strchr(state, 'S') != NULL;
}

static struct scene *scene_set(void)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	unsigned i;

	expect(scene);
	strcpy(scene->dir, "/tmp/test-gdb-XXXXXX");
	expect(mkdtemp(scene->dir));
	for (i = 0; i < 4; i++)
		scene->pipes[i] = test_pipe();
	gyre__fault_install();
	scene->stuck = scene_open("stuck", 0);
	scene->full = scene_open("full", 1);
	scene->dead = scene_open("dead", 0);
	gyre__fault_set_on("dead-0", GYRE__FAULT_uring_enter, 0, GYRE__FAULT_FOREVER, -EBADR);
	expect_status(gyre_call(scene->dead, prep_nop, NULL, NULL), GYRE_WORKER_DEAD);

	scene_start(scene, 0, wait_for_a_read);
	scene_start(scene, 1, wait_for_a_poll);
	scene_start(scene, 2, fill_the_room);
	await(test_stat(scene->stuck, inflight) == 2 && test_stat(scene->full, inflight) == 1);
	scene_start(scene, 3, wait_for_room);
	await(test_stat(scene->full, queued) == 3);
	await(sleeps("stuck-0") && sleeps("full-0"));
	return scene;
}

static void scene_end(struct scene *scene)
{
	unsigned i;

	for (i = 0; i < 3; i++)
		expect_eq(write(scene->pipes[i].w, "x", 1), 1);
	for (i = 0; i < 4; i++)
		pthread_join(scene->threads[i], NULL);
	gyre_free(scene->stuck);
	gyre_free(scene->full);
	gyre_free(scene->dead);
	gyre__fault_remove();
	for (i = 0; i < 4; i++)
		test_pipe_close(&scene->pipes[i]);
	expect_eq(rmdir(scene->dir), 0);
	free(scene);
}

/*
 * What gdb says; free() it. It stops this process meanwhile: so it writes into a
 * file, as nobody would empty a pipe.
 */
static char *gdb(const struct scene *scene, const char *arguments)
{
	char *command, path[64], *said;
	int fd, rc;

	snprintf(path, sizeof(path), "%s/said", scene->dir);
	expect(asprintf(&command,
			"gdb -nx -batch -iex 'set debuginfod enabled off' %s >%s 2>&1 </dev/null",
			arguments, path) > 0);
	rc = system(command);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	expect(fd >= 0);
	said = test_slurp(fd);
	close(fd);
	unlink(path);
	free(command);
	if (rc != 0)
		test_note("gdb ended with %d: %s", rc, said);
	return said;
}

static void needs_gdb(void)
{
	if (!getenv("GYRE_TEST_SRCDIR"))
		test_skip("GYRE_TEST_SRCDIR does not say where tools/gyre-gdb.py is");
	if (system("gdb -nx -batch -ex 'python print(gdb.VERSION)' >/dev/null 2>&1") != 0)
		test_skip("there is no gdb with Python");
	/* Not only our children may look at us, which some systems insist on. */
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
}

/* Skips where nobody may attach. */
static char *gdb_attached(struct scene *scene, const char *commands)
{
	char *arguments, *said;

	expect(asprintf(&arguments, "-p %d -ex 'source %s/tools/gyre-gdb.py' %s", (int)getpid(),
			getenv("GYRE_TEST_SRCDIR"), commands) > 0);
	said = gdb(scene, arguments);
	free(arguments);
	if (strstr(said, "ptrace: Operation not permitted")) {
		free(said);
		scene_end(scene);
		test_skip("ptrace is not permitted here");
	}
	return said;
}

/* Live says how old everything is, a core how old it is at least. */
static void expect_scene(const struct scene *scene, const char *said, bool live)
{
	char want[128];

	expect_contains(said, "\"stuck\", 1 worker\n");
	snprintf(want, sizeof(want), ": READ fd %d, flying, for %s", scene->pipes[0].r,
		 live ? "" : ">= ");
	expect_contains(said, want);
	expect_contains(said, " ms, 1 of 1 by prep_read, for thread ");
	expect_contains(said, " in gyre_call, called by wait_for_a_read at ");
	snprintf(want, sizeof(want), ": POLL_ADD fd %d, flying, for ", scene->pipes[1].r);
	expect_contains(said, want);
	expect_contains(said, live ? ", due in 35" : ", due in <= 3");
	expect_contains(said, ", 2 of 2 by prep_poll_in, for thread ");
	expect_contains(said, " in gyre_callv, called by wait_for_a_poll at ");
	expect_contains(said, "  full-0: 3 of 3 ops wait for room, for thread ");
	expect_contains(said, " in gyre_callv, called by wait_for_room at ");

	expect_contains(said, "  worker 0 stuck-0: asleep, thread ");
	expect_contains(said, "    inbox 0, in flight 2 of 2048, waiting 0 batches with 0 ops, "
			      "held 0");
	expect_contains(said, "    inbox 0, in flight 1 of 1, waiting 1 batches with 3 ops, held "
			      "0");
	expect_contains(said, "  worker 0 dead-0: dead of EBADR, no thread\n");
	expect_contains(said, " ops_submitted=");
	expect_contains(said, "printed: {by prep_poll_in, timeout 3600 s, under way}");
	expect_contains(said, "printed: {asleep, 0 batches}");
	expect(!strstr(said, "Traceback") && !strstr(said, "Error"));
}

static const char look[] =
	"-ex gyre-ops -ex gyre-workers "
	"-ex 'python for r in records():\n"
	" if number(r[\"batch\"][\"ops\"]) and number(r[\"batch\"][\"count\"]) == 2: "
	"print(\"printed:\", r[\"batch\"][\"ops\"][1].format_string())' "
	"-ex 'python for r in records():\n"
	" if number(r[\"worker\"]) and text(r[\"worker\"][\"name\"]) == \"stuck-0\": "
	"print(\"printed:\", r[\"worker\"][\"ring\"][\"inbox\"].format_string())' ";

TEST(a_live_process_shows_each_op_and_worker)
{
	struct scene *scene;
	char *said;

	needs_gdb();
	scene = scene_set();
	said = gdb_attached(scene, look);
	expect_scene(scene, said, true);
	free(said);
	scene_end(scene);
}

TEST(a_core_shows_each_op_and_worker)
{
	struct scene *scene;
	char *said, *text;

	if (TEST_UNDER_SANITIZER)
		test_skip("a sanitizer's shadow makes a core of terabytes");
	needs_gdb();
	scene = scene_set();
	expect(asprintf(&text, "-ex 'gcore %s/core'", scene->dir) > 0);
	free(gdb_attached(scene, text));
	free(text);
	expect(asprintf(&text, "/proc/%d/exe %s/core -ex 'source %s/tools/gyre-gdb.py' %s",
			(int)getpid(), scene->dir, getenv("GYRE_TEST_SRCDIR"), look) > 0);
	said = gdb(scene, text);
	free(text);
	expect(asprintf(&text, "%s/core", scene->dir) > 0);
	expect_eq(unlink(text), 0);
	free(text);
	expect_contains(said, "a core: times are those of its last look at the clock\n");
	expect_scene(scene, said, false);
	free(said);
	scene_end(scene);
}

TEST(a_program_that_never_called_the_library_is_told)
{
	struct scene scene = { .dir = "/tmp/test-gdb-XXXXXX" };
	char *said, *text;

	needs_gdb();
	expect(mkdtemp(scene.dir));
	expect(asprintf(&text, "-ex 'source %s/tools/gyre-gdb.py' -ex gyre-ops -ex gyre-workers",
			getenv("GYRE_TEST_SRCDIR")) > 0);
	said = gdb(&scene, text);
	free(text);
	expect_contains(said, "no debug information of libgyre");
	expect(!strstr(said, "Traceback"));
	free(said);
	expect_eq(rmdir(scene.dir), 0);
}

TEST_MAIN()
