/* SPDX-License-Identifier: MIT */
/* The leak check itself: finds one of each kind, and is content with none. */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "leak.h"
#include "ring/sys.h"

/* The harness has a check of its own around each test: what leaks here is undone again. */
static char report[1024];

static void *waits_for_release(void *arg)
{
	sem_t *release = arg;

	while (sem_wait(release) < 0)
		;
	return NULL;
}

static void *does_nothing(void *arg)
{
	return arg;
}

TEST(clean_code_leaks_nothing)
{
	struct leak *leak = leak_before();
	pthread_t thread;
	void *memory;
	int fds[2];

	memory = gyre__zalloc(100);
	expect(memory);
	gyre__free(memory);
	memory = mmap(NULL, 12288, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(memory, 12288);
	expect_eq(pipe(fds), 0);
	close(fds[0]);
	close(fds[1]);
	expect_eq(pthread_create(&thread, NULL, does_nothing, NULL), 0);
	pthread_join(thread, NULL);
	leak_after(leak, report, sizeof(report));
	expect_str(report, "");
}

static void *allocates_until_told(void *over)
{
	while (!atomic_load((atomic_int *)over))
		gyre__free(gyre__zalloc(100));
	return NULL;
}

TEST(child_that_is_forked_while_others_allocate_can_allocate)
{
	atomic_int over = 0;
	pthread_t thread;
	unsigned i;
	int status;

	if (TEST_UNDER_ASAN)
		test_skip("AddressSanitizer's allocator may be locked for ever in a child "
			  "that is forked while other threads allocate");
	expect_eq(pthread_create(&thread, NULL, allocates_until_told, &over), 0);
	for (i = 0; i < test_times(200); i++) {
		pid_t pid = fork();

		expect_ge(pid, 0);
		if (pid == 0) {
			gyre__free(gyre__zalloc(100));
			_exit(0);
		}
		expect_eq(waitpid(pid, &status, 0), pid);
		expect_eq(status, 0);
	}
	atomic_store(&over, 1);
	pthread_join(thread, NULL);
}

TEST(leaked_descriptor_is_found)
{
	struct leak *leak = leak_before();
	int fd = dup(0);

	expect_eq(leak_after(leak, report, sizeof(report)), 1);
	expect_contains(report, "descriptor");
	close(fd);
}

TEST(descriptor_closed_behind_ones_back_is_found)
{
	int fd = dup(0);
	struct leak *leak = leak_before();

	close(fd);
	expect_eq(leak_after(leak, report, sizeof(report)), 1);
	expect_contains(report, "was closed");
}

TEST(descriptor_that_became_another_file_is_found)
{
	int fds[2], fd = dup(0);
	struct leak *leak = leak_before();

	close(fd);
	expect_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	expect_eq(fds[0], fd);
	close(fds[1]);
	expect_eq(leak_after(leak, report, sizeof(report)), 2);
	expect_contains(report, "socket");
	close(fd);
}

TEST(leaked_thread_is_found)
{
	struct leak *leak = leak_before();
	sem_t release;
	pthread_t thread;

	leak_set_patience_ms(20);
	expect_eq(sem_init(&release, 0, 0), 0);
	expect_eq(pthread_create(&thread, NULL, waits_for_release, &release), 0);
	pthread_setname_np(thread, "straggler");
	expect_eq(leak_after(leak, report, sizeof(report)), 1);
	expect_contains(report, "straggler");
	sem_post(&release);
	pthread_join(thread, NULL);
	leak_set_patience_ms(3000);
}

TEST(leaked_allocation_is_found)
{
	struct leak *leak = leak_before();
	void *memory = gyre__zalloc(1234);

	expect_eq(leak_allocations(), 1);
	expect_eq(leak_after(leak, report, sizeof(report)), 1);
	expect_contains(report, "1234 bytes");
	gyre__free(memory);
}

TEST(one_leaked_allocation_among_many_is_found)
{
	struct leak *leak = leak_before();
	void *memory[1000];
	unsigned i;

	for (i = 0; i < 1000; i++) {
		memory[i] = gyre__zalloc(i + 1);
		expect(memory[i]);
	}
	for (i = 0; i < 1000; i++)
		if (i != 776)
			gyre__free(memory[i]);
	expect_eq(leak_after(leak, report, sizeof(report)), 1);
	expect_contains(report, "777 bytes");
	gyre__free(memory[776]);
}

TEST(leaked_mapping_is_found)
{
	struct leak *leak;
	void *memory;

	if (!leak_sees_mappings())
		test_skip("under a sanitizer, which maps on its own, mappings are not compared");
	leak = leak_before();
	memory = mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect(memory != MAP_FAILED);
	expect_ge(leak_after(leak, report, sizeof(report)), 1);
	expect_contains(report, "mapping of 12288 bytes");
	munmap(memory, 12288);
}

TEST(leaked_anonymous_mapping_is_found)
{
	struct leak *leak;
	void *memory;

	if (!leak_sees_mappings())
		test_skip("under a sanitizer, which maps on its own, mappings are not compared");
	leak = leak_before();
	memory = mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	expect(memory != MAP_FAILED);
	expect_eq(leak_after(leak, report, sizeof(report)), 1);
	expect_contains(report, "mapping of 12288 bytes");
	munmap(memory, 12288);
}

TEST_MAIN()
