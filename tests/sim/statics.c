/* SPDX-License-Identifier: MIT */
#include "statics.h"

#include <stdlib.h>
#include <string.h>

#include "kernel.h"
#include "sched.h"

/* The linker's: all that this program keeps in statics, the library's included. */
extern char __data_start[], _end[];
static char *statics_at_first;

void sim_statics_back(void)
{
	size_t len = (size_t)(_end - __data_start);
	char *copy;

	if (!statics_at_first) {
		sim_prepare();
		sim_kernel_prepare();
		copy = malloc(len);
		if (!copy)
			abort();
		statics_at_first = copy;
		memcpy(copy, __data_start, len);
	}
	memcpy(__data_start, statics_at_first, len);
}
