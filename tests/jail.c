/* SPDX-License-Identifier: MIT */
/*
 * Runs a command that may not do everything.
 *
 * usage: jail [no-lock] [no-tmpfile] [CALL=ANSWER]... -- COMMAND [ARGUMENT...]
 * CALL: io_uring_setup, io_uring_enter, io_uring_register; ANSWER: EPERM, ENOSYS,
 * or kill. no-lock: without the right to lock memory beyond the limit. no-tmpfile:
 * as if no file system knew O_TMPFILE.
 * Exit status 77 when the jail cannot be built here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CANNOT	77

static const struct {
	const char *name;
	unsigned value;
} calls[] = {
	{ "io_uring_setup", __NR_io_uring_setup },
	{ "io_uring_enter", __NR_io_uring_enter },
	{ "io_uring_register", __NR_io_uring_register },
}, answers[] = {
	{ "EPERM", SECCOMP_RET_ERRNO | EPERM },
	{ "ENOSYS", SECCOMP_RET_ERRNO | ENOSYS },
	{ "kill", SECCOMP_RET_KILL_PROCESS },
};

static int install(struct sock_filter *code, unsigned count)
{
	struct sock_fprog program = { .len = (unsigned short)count, .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int refuse(unsigned call, unsigned answer)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, answer),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	return install(code, sizeof(code) / sizeof(code[0]));
}

/* The flags are the third argument; its lower half comes first on the machines that we know. */
static int refuse_tmpfile(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	return install(code, sizeof(code) / sizeof(code[0]));
}

/* "CALL=ANSWER" */
static int refuse_by_name(const char *text)
{
	const char *equals = strchr(text, '=');
	size_t call, answer;

	for (call = 0; equals && call < 3; call++)
		for (answer = 0; answer < 3; answer++)
			if (strncmp(text, calls[call].name, (size_t)(equals - text)) == 0 &&
			    strcmp(equals + 1, answers[answer].name) == 0)
				return refuse(calls[call].value, answers[answer].value);
	errno = EINVAL;
	return -1;
}

/* What execve() may not give back, it takes away. */
static int drop_lock(void)
{
	if (prctl(PR_CAPBSET_READ, CAP_IPC_LOCK, 0, 0, 0) == 0 || geteuid() != 0)
		return 0;
	return prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
}

static int apply(const char *text)
{
	if (strcmp(text, "no-lock") == 0)
		return drop_lock();
	if (strcmp(text, "no-tmpfile") == 0)
		return refuse_tmpfile();
	return refuse_by_name(text);
}

int main(int argc, char **argv)
{
	int i, rc = 0;

	for (i = 1; i < argc && rc == 0 && strcmp(argv[i], "--") != 0; i++)
		rc = apply(argv[i]);
	if (rc < 0 || i + 1 >= argc) {
		perror("jail");
		return CANNOT;
	}
	execvp(argv[i + 1], argv + i + 1);
	perror(argv[i + 1]);
	return CANNOT;
}
