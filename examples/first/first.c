/* SPDX-License-Identifier: MIT */
#include <err.h>
#include <fcntl.h>
#include <gyre.h>
#include <liburing.h>
#include <stdio.h>

static void fill(struct io_uring_sqe *sqe, void *fd)
{
	io_uring_prep_fsync(sqe, *(int *)fd, IORING_FSYNC_DATASYNC);
}

int main(int argc, char **argv)
{
	int fd = open(argv[argc - 1], O_RDONLY), res = 0;
	struct gyre *rt;
	char buf[64];

	if (gyre_open(NULL, &rt) != GYRE_OK)
		errx(1, "%s", gyre_last_error());
	printf("read: %zd\n", gyre_pread(rt, fd, buf, sizeof(buf), 0));	/* a length, or -errno */
	printf("call: %s, ", gyre_status_name(gyre_call(rt, fill, &fd, &res)));
	printf("fdatasync: %d\n", res);
	gyre_free(rt);
}
