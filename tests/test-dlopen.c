/* SPDX-License-Identifier: MIT */
/*
 * The shared library as a plug-in gets it: opened, used and closed by a program
 * that links nothing of it. GYRE_TEST_LIBRARY says where it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <gyre.h>
#include <liburing.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

struct library {
	void *handle;
	const char *(*version)(void);
	enum gyre_status (*open)(const struct gyre_options *options, struct gyre **ret);
	enum gyre_status (*close)(struct gyre *rt);
	void (*free)(struct gyre *rt);
	enum gyre_status (*call)(struct gyre *rt, gyre_prep_fn *prep, void *arg, int *ret_res);
	ssize_t (*pread)(struct gyre *rt, int fd, void *buf, size_t len, off_t offset);
	const char *(*last_error)(void);
};

static void *symbol(void *handle, const char *name)
{
	void *address = dlsym(handle, name);

	if (!address)
		test_fail("%s: %s", name, dlerror());
	return address;
}

static const char *library_path(void)
{
	const char *path = getenv("GYRE_TEST_LIBRARY");

	if (!path || access(path, R_OK) < 0)
		test_skip("GYRE_TEST_LIBRARY does not name a shared library");
	return path;
}

static struct library library_open(void)
{
	struct library library = { .handle = dlopen(library_path(), RTLD_NOW | RTLD_LOCAL) };

	if (!library.handle)
		test_fail("dlopen: %s", dlerror());
#define SYMBOL(name) *(void **)&library.name = symbol(library.handle, "gyre_" #name)
	SYMBOL(version);
	SYMBOL(open);
	SYMBOL(close);
	SYMBOL(free);
	SYMBOL(call);
	SYMBOL(pread);
	SYMBOL(last_error);
	return library;
}

static void prep_nop(struct io_uring_sqe *sqe, void *arg)
{
	(void)arg;
	io_uring_prep_nop(sqe);
}

static struct gyre *runtime_open(const struct library *library)
{
	struct gyre_options options = { .size = sizeof(options), .workers = 2 };
	struct gyre *rt = NULL;

	if (library->open(&options, &rt) != GYRE_OK)
		test_fail("gyre_open: %s", library->last_error());
	return rt;
}

static void use(const struct library *library, struct gyre *rt)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), res = 77;
	char bytes[8] = "notzero";

	expect_eq(library->call(rt, prep_nop, NULL, &res), GYRE_OK);
	expect_eq(res, 0);
	expect_eq(library->pread(rt, fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	expect_eq(bytes[0], 0);
	close(fd);
}

TEST(library_is_opened_used_and_closed)
{
	struct library library = library_open();
	struct gyre *rt = runtime_open(&library);

	expect_contains(library.version(), "0.");
	use(&library, rt);
	expect_eq(library.close(rt), GYRE_OK);
	library.free(rt);
	expect_eq(dlclose(library.handle), 0);
}

TEST(library_is_opened_and_closed_a_hundred_times)
{
	unsigned i;

	for (i = 0; i < test_times(100); i++) {
		struct library library = library_open();
		struct gyre *rt = runtime_open(&library);

		use(&library, rt);
		library.free(rt);
		expect_eq(dlclose(library.handle), 0);
	}
}

TEST(what_is_internal_cannot_be_had)
{
	static const char *const names[] = { "gyre__sys", "gyre__sys_kernel", "gyre__ring_open",
					     "gyre__inbox_seal", "gyre__fault_install" };
	struct library library = library_open();
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		test_row("%s", names[i]);
		expect(!dlsym(library.handle, names[i]));
	}
	dlclose(library.handle);
}

struct survivor {
	struct library library;
	struct gyre *rt;
	sem_t called, go;
};

static void *call_and_outlive(void *arg)
{
	struct survivor *survivor = arg;

	use(&survivor->library, survivor->rt);
	sem_post(&survivor->called);
	while (sem_wait(&survivor->go) < 0)
		expect_eq(errno, EINTR);
	return NULL;	/* and what the library keeps for this thread is freed now */
}

TEST(thread_that_called_may_end_after_the_library_was_closed)
{
	struct survivor survivor = { .library = library_open() };
	pthread_t thread;

	survivor.rt = runtime_open(&survivor.library);
	sem_init(&survivor.called, 0, 0);
	sem_init(&survivor.go, 0, 0);
	expect_eq(pthread_create(&thread, NULL, call_and_outlive, &survivor), 0);
	while (sem_wait(&survivor.called) < 0)
		expect_eq(errno, EINTR);
	survivor.library.free(survivor.rt);
	expect_eq(dlclose(survivor.library.handle), 0);
	sem_post(&survivor.go);
	pthread_join(thread, NULL);
	sem_destroy(&survivor.called);
	sem_destroy(&survivor.go);
}

static void *load_in_a_thread(void *arg)
{
	struct library library = library_open();
	struct gyre *rt = runtime_open(&library);

	use(&library, rt);
	library.free(rt);
	dlclose(library.handle);
	return arg;
}

TEST(threads_load_and_unload_it_at_the_same_time)
{
	pthread_t threads[6];
	unsigned i;

	library_path();		/* skips, where it must, from the test's own thread */
	for (i = 0; i < 6; i++)
		expect_eq(pthread_create(&threads[i], NULL, load_in_a_thread, NULL), 0);
	for (i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
}

TEST_MAIN()
