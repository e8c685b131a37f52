/* SPDX-License-Identifier: MIT */
/*
 * The simulated kernel: a filling of the table in ring/sys.h. Descriptors,
 * memory, threads and faults are kernel.c's, io_uring is uring.c's.
 */
#ifndef GYRE_SIM_KERNEL_H
#define GYRE_SIM_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "file.h"
#include "oracle.h"
#include "ring/sys.h"

extern const struct gyre__sys gyre__sys_sim;

#define SIM_BELL	"its bell"		/* what who sleeps in a futex is blocked in */

/* What goes wrong in this seed, and how often: of 1000. Rolled anew for each. */
struct sim_faults {
	unsigned eintr, eagain, ebusy, partial;	/* of io_uring_enter */
	/* Of it, and it is the ring's end; at most one a seed. */
	unsigned ebadr, fatal;
	unsigned op_errno, short_io, slow;
	unsigned cancel_miss, cancel_late, cut_off;
	unsigned interrupt;			/* a cancel finds a thread of the kernel's at it */
	/* What is done within the submit has its CQE there. */
	unsigned post_inline;
	unsigned stall;				/* of threads that are about to wake another */
	unsigned fail_at;			/* the n-th call that can fail does; 0: none */
	unsigned fail_thread;			/* so does the n-th start of a thread from now on */
	bool post_directly;			/* completions need no task work */
	bool old;				/* refuses newer set-up flags */
};
extern struct sim_faults sim_faults;

/* A rule of the kernel's that is bent, to see whether gyre-differ finds it; 0: none. */
enum sim_bend {
	SIM_STRAIGHT, SIM_BEND_SHORT_LINKS, SIM_BEND_FAILED_LINKS, SIM_BEND_SYNC_LINKS,
	SIM_BEND_CANCEL_LINKED, SIM_BEND_CANCEL_TAKES, SIM_BEND_FILE_EARLY,
	SIM_BEND_POLL_DEAF, SIM_BEND_REFUSED_ALONE, SIM_BENDS
};
extern unsigned sim_bend;
extern const char *const sim_bend_names[SIM_BENDS];

void sim_kernel_prepare(void);		/* once, before all */
void sim_kernel_begin(bool deadly);	/* deadly: rings may die */
void sim_kernel_check_end(void);	/* nothing of the library's is left */
/* But for a mapping that could not be unmapped; or this descriptor, which could not be read. */
void sim_excuse_mapping(void);
void sim_excuse_descriptor(int fd);
/* Who has called gyre__zalloc() for what is allocated next; NULL: nobody. */
extern const void *sim_zalloc_caller;
bool sim_kernel_owns(uint64_t addr, size_t len);	/* live memory of the library's */
bool sim_kernel_is_freed(const volatile void *ptr);	/* it was the library's, and is no more */
bool sim_kernel_is_stack(const volatile void *ptr);	/* it lies among stacks of tasks */

/* ---------------------------------------------- files, for both halves -- */

enum sim_file_kind { SIM_FILE_FREE, SIM_FILE_EVENTFD, SIM_FILE_PIPE, SIM_FILE_DATA, SIM_FILE_RING };

#define SIM_PIPE_BYTES	64

struct sim_pipe {
	unsigned readers, writers;
	unsigned len;
	unsigned char bytes[SIM_PIPE_BYTES];
};

struct sim_file {
	enum sim_file_kind kind;
	unsigned refs;
	bool writes;			/* the pipe's writing end */
	bool scenarios;			/* not the library's */
	unsigned number;		/* of the ring */
	uint64_t count;			/* the eventfd's */
	struct sim_pipe *pipe;
	struct sim_handle handle;	/* of a file with contents */
};

/* NULL: no such descriptor. */
struct sim_file *sim_file_get(int fd);
void sim_file_ref(struct sim_file *file);
void sim_file_unref(struct sim_file *file);
int sim_file_open(struct sim_file *file);	/* its descriptor, or -EMFILE */
struct sim_file *sim_file_new(enum sim_file_kind kind);

/* Reads or writes now: a result, or -EAGAIN where one would have to wait. */
ssize_t sim_file_read(struct sim_file *file, void *buf, size_t len, uint64_t offset);
ssize_t sim_file_write(struct sim_file *file, const void *buf, size_t len, uint64_t offset);
unsigned sim_file_poll(const struct sim_file *file);
/* Something about it has changed: whoever waits for it, thread or op, looks again. */
void sim_file_changed(struct sim_file *file);

/* Is it this call's turn to fail? With one of errnos, zero-terminated; 0: no. */
int sim_failure(const char *call, const int *errnos);

/* For scenarios; negative errno. */
int sim_scenario_pipe(int ret[2]);
int sim_scenario_file(const void *data, size_t len);
int sim_scenario_reopen(int fd);		/* the same file, with a handle of its own */
int sim_scenario_close(int fd);
int sim_scenario_write(int fd, const void *data, size_t len);

/* -------------------------------------------------------------- uring.c -- */

void sim_uring_prepare(void);
void sim_uring_begin(void);
void sim_uring_check_end(void);
const char *sim_op_name(uint8_t opcode);
uint64_t sim_uring_next_ns(void);
void sim_uring_run(uint64_t now_ns);
void sim_uring_file_changed(struct sim_file *file);
void sim_uring_closed(unsigned number);		/* its descriptor is gone */
int sim_uring_mmap(unsigned number, off_t offset, size_t len, void **ret);
int sim_uring_setup(unsigned entries, struct io_uring_params *params);
void sim_uring_break(int fd);		/* an enter of it has just failed for good */
int sim_uring_enter(int fd, unsigned to_submit, unsigned min_complete, unsigned flags, void *arg,
		    size_t arg_size);
int sim_uring_register(int fd, unsigned opcode, void *arg, unsigned count);
/* Do ops that nobody waits for any more still use this memory? */
bool sim_uring_uses(const void *ptr, size_t len);
bool sim_uring_has_calls(void);			/* in flight */

/* Zeroed memory of the kernel's own, until the seed's end. */
void *sim_kernel_alloc(size_t size);

#endif
