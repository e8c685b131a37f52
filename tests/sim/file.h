/* SPDX-License-Identifier: MIT */
/*
 * Data files, with what a power cut leaves of them.
 *
 * A file has two layers: the cache, which is what reads see, and the medium,
 * which is what the next boot finds. Between them lie dirty sectors. A sector
 * reaches the medium whole, at any time, before or after any other: writes
 * vanish, tear and change places. What a flush covered when it started is on the
 * medium once it has ended well. A flush that fails leaves what it covered clean
 * all the same, as Linux does: each descriptor is told once, and later flushes
 * succeed although the bytes are nowhere but in the cache.
 *
 * A disk that says yes and has nothing is not in the model: no caller could tell.
 */
#ifndef GYRE_SIM_FILE_H
#define GYRE_SIM_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SIM_SECTOR	16
#define SIM_SECTORS	64		/* a set of them is one word */
#define SIM_DATA_BYTES	(SIM_SECTOR * SIM_SECTORS)
#define SIM_DATA_MAX	12		/* files in a seed */

/* What several descriptors may have open. */
struct sim_data {
	unsigned number;
	size_t len, medium_len;
	uint64_t dirty;			/* sectors that are to come */
	/* Sectors that a flush has given up: clean, but not there. */
	uint64_t lost;
	uint32_t version[SIM_SECTORS], medium_version[SIM_SECTORS];
	uint32_t writer[SIM_SECTORS];	/* which write made it what it is: for the counters */
	uint32_t writers;
	unsigned char cache[SIM_DATA_BYTES], medium[SIM_DATA_BYTES];
	int error;			/* of the flush that failed last */
	unsigned errors;		/* how many have */
	bool error_told;		/* to some descriptor: those opened later are not told */
};

/* One open of it. */
struct sim_handle {
	struct sim_data *data;
	bool sync_writes;		/* O_DSYNC */
	unsigned errors_told;
};

/* A flush under way. */
struct sim_flush {
	struct sim_handle *handle;	/* NULL: the flush is free */
	uint64_t sectors;
	size_t len;
	uint32_t version[SIM_SECTORS];
	unsigned char bytes[SIM_DATA_BYTES];
};

/* What goes wrong with files in this seed, and how often: of 1000. */
struct sim_file_faults {
	unsigned flush_fails, write_fails, short_write, written_back, power_cut;
	size_t room;			/* bytes in a file at which the device is full */
	int full;			/* the errno that says so */
	bool rolled;
};
extern struct sim_file_faults sim_file_faults;

void sim_files_begin(void);

/* The sectors that hold bytes from here to there. */
uint64_t sim_sectors(uint64_t from, uint64_t to);

/* A new file that holds this, on the medium, too. */
struct sim_data *sim_data_new(const void *bytes, size_t len);
void sim_handle_open(struct sim_handle *handle, struct sim_data *data, bool sync_writes);

ssize_t sim_data_read(const struct sim_data *data, void *buf, size_t len, uint64_t offset);
/* All of it or its beginning, or a negative errno and nothing. */
ssize_t sim_data_write(struct sim_data *data, const void *buf, size_t len, uint64_t offset);

/* Does a write with these RWF_* answer only when it is durable? */
bool sim_is_sync_write(const struct sim_handle *handle, int rw_flags);

/* From where to where; to the end of the file where len is 0. When it is over: *ret_end_ns. */
struct sim_flush *sim_flush_start(struct sim_handle *handle, uint64_t offset, uint64_t len,
				  uint64_t *ret_end_ns);
/* 0, or the negative errno that this handle has to be told. */
int sim_flush_end(struct sim_flush *flush);
/* sync_file_range(2): something is written back, and nothing is promised. */
void sim_data_write_back(struct sim_data *data, uint64_t offset, uint64_t len);

/* The file as a power cut now might leave it; bytes past its end are zeros. */
void sim_data_image(const struct sim_data *data, unsigned char ret[SIM_DATA_BYTES]);
/* The least that any power cut from now on can leave of it. */
void sim_data_least(const struct sim_data *data, unsigned char ret[SIM_DATA_BYTES]);

#endif
