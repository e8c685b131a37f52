/* SPDX-License-Identifier: MIT */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys.h"

int gyre__probe_opcodes(int ring_fd, struct gyre__features *ret)
{
	const size_t size = sizeof(struct io_uring_probe) +
			    GYRE__OPCODES * sizeof(struct io_uring_probe_op);
	struct io_uring_probe *probe = gyre__zalloc(size);
	unsigned i;
	int rc;

	if (!probe)
		return -ENOMEM;
	rc = gyre__sys->uring_register(ring_fd, IORING_REGISTER_PROBE, probe, GYRE__OPCODES);
	if (rc >= 0) {
		memset(ret->opcodes, 0, sizeof(ret->opcodes));
		for (i = 0; i < probe->ops_len; i++)
			if (probe->ops[i].flags & IO_URING_OP_SUPPORTED)
				ret->opcodes[probe->ops[i].op / 64] |=
					UINT64_C(1) << (probe->ops[i].op % 64);
		rc = 0;
	}
	gyre__free(probe);
	return rc;
}

/* A small file of procfs as a string; the empty string if it cannot be read. */
static void read_small_file(const char *path, char *text, size_t size)
{
	ssize_t n = 0;
	int fd = gyre__sys->openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);

	if (fd >= 0) {
		n = gyre__sys->read(fd, text, size - 1);
		gyre__sys->close(fd);
	}
	text[n > 0 ? n : 0] = '\0';
}

static bool seccomp_filters_us(void)
{
	char status[4096];
	const char *line;

	read_small_file("/proc/self/status", status, sizeof(status));
	line = strstr(status, "\nSeccomp:");
	return line && strtol(line + strlen("\nSeccomp:"), NULL, 10) == 2;
}

void gyre__probe_explain(int error, char *text, size_t size)
{
	char disabled[16];
	long level;

	read_small_file("/proc/sys/kernel/io_uring_disabled", disabled, sizeof(disabled));
	level = strtol(disabled, NULL, 10);
	if (error == -EPERM && level == 2)
		snprintf(text, size, "io_uring is switched off on this machine: "
			 "set the sysctl kernel.io_uring_disabled to 0");
	else if (error == -EPERM && level == 1 && !seccomp_filters_us())
		snprintf(text, size,
			 "the sysctl kernel.io_uring_disabled is 1 and this process is not "
			 "privileged: set it to 0, or kernel.io_uring_group to a group of this "
			 "process");
	else if (seccomp_filters_us())
		snprintf(text, size,
			 "a seccomp filter refuses io_uring_setup (%s): allow io_uring_setup, "
			 "io_uring_enter and io_uring_register in the container's seccomp profile",
			 error == -EPERM ? "EPERM" : "ENOSYS");
	else if (error == -ENOSYS)
		snprintf(text, size, "this kernel has no io_uring: Linux 5.11 or later with "
			 "CONFIG_IO_URING is needed");
	else
		snprintf(text, size, "io_uring_setup was refused by a security policy: look at the "
			 "rules of its security module (AppArmor, SELinux)");
}
