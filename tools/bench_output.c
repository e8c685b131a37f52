/* SPDX-License-Identifier: MIT */
/* Files that are opened first and written last. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether what is there is empty, or begins as what will take its place. */
static bool is_ours(int fd, const char *mark)
{
	char start[64];
	ssize_t n = pread(fd, start, strlen(mark), 0);

	/* A pipe or a terminal holds nothing that could be lost. */
	return n <= 0 || ((size_t)n == strlen(mark) && memcmp(start, mark, (size_t)n) == 0);
}

int bench_output_open(const char *path, const char *mark, struct bench_output *ret)
{
	struct stat st;
	int fd;

	ret->path = path;
	ret->created = false;
	ret->file = path ? stdout : NULL;
	if (!path || strcmp(path, "-") == 0)
		return 0;
	/* Not yet emptied: an earlier report is better than none, should this run fail. */
	fd = open(path, (stat(path, &st) == 0 && !S_ISREG(st.st_mode) ? O_WRONLY : O_RDWR) |
			O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
		ret->created = fd >= 0;
	}
	if (fd >= 0 && !is_ours(fd, mark)) {
		close(fd);
		ret->file = NULL;
		bench_complain("%s is there already and was not written by gyre-bench: it is left "
			       "alone", path);
		return -BENCH_EXIT_USAGE;
	}
	ret->file = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (ret->file)
		return 0;
	bench_complain("%s: cannot be written: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -BENCH_EXIT_FAILED;
}

void bench_output_discard(struct bench_output *output)
{
	if (!output->file || output->file == stdout)
		return;
	fclose(output->file);
	if (output->created)
		unlink(output->path);
}

bool bench_output_is(const struct bench_output *output, const struct bench_target *target)
{
	struct stat report, file;

	return output->file && fstat(fileno(output->file), &report) == 0 &&
	       fstat(target->fd, &file) == 0 && report.st_dev == file.st_dev &&
	       report.st_ino == file.st_ino;
}

static int output_complain(const struct bench_output *output)
{
	return bench_complain("%s: cannot be written: %s", output->path, strerror(errno));
}

int bench_output_begin(struct bench_output *output)
{
	struct stat st;

	if (output->file != stdout && fstat(fileno(output->file), &st) == 0 &&
	    S_ISREG(st.st_mode) && ftruncate(fileno(output->file), 0) < 0)
		return output_complain(output);
	return 0;
}

int bench_output_end(struct bench_output *output)
{
	if (fflush(output->file) == EOF || ferror(output->file))
		return output_complain(output);
	if (output->file != stdout)
		fclose(output->file);
	output->file = NULL;
	return 0;
}
