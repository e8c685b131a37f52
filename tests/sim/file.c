/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "file.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "kernel.h"
#include "ledger.h"
#include "sched.h"

#define FLUSHES_MAX	32

struct sim_file_faults sim_file_faults;

static struct {
	struct sim_data *data[SIM_DATA_MAX];
	unsigned data_count;
	struct sim_flush *flushes[FLUSHES_MAX];	/* made as they are needed, and used again */
	unsigned flush_count;
} files;

/* Dice for files are thrown only where there are some. */
static void roll_faults(void)
{
	static const int full[] = { -ENOSPC, -EDQUOT, -EFBIG };
	bool quiet = sim_chance(300);

	sim_file_faults = (struct sim_file_faults){
		.flush_fails = quiet || sim_chance(300) ? 0 : (unsigned)sim_random(400) + 1,
		.write_fails = quiet || sim_chance(500) ? 0 : (unsigned)sim_random(100) + 1,
		.short_write = quiet || sim_chance(500) ? 0 : (unsigned)sim_random(300) + 1,
		.written_back = sim_chance(300) ? 0 : (unsigned)sim_random(600) + 1,
		.power_cut = sim_chance(200) ? 0 : (unsigned)sim_random(150) + 1,
		.room = sim_chance(800) ? SIM_DATA_BYTES : 1 + sim_random(SIM_DATA_BYTES),
		.full = full[sim_random(3)],
		.rolled = true,
	};
}

void sim_files_begin(void)
{
	memset(&files, 0, sizeof(files));
	sim_file_faults.rolled = false;
}

struct sim_data *sim_data_new(const void *bytes, size_t len)
{
	struct sim_data *data;

	if (files.data_count == SIM_DATA_MAX)
		sim_fail("the simulated machine has too few files with contents");
	if (!sim_file_faults.rolled)
		roll_faults();
	data = sim_kernel_alloc(sizeof(*data));
	data->number = files.data_count;
	data->len = data->medium_len = len;
	memcpy(data->cache, bytes, len);
	memcpy(data->medium, bytes, len);
	files.data[files.data_count++] = data;
	return data;
}

/* As errseq_t has it: an error that nobody has been told yet is the newcomer's, too. */
void sim_handle_open(struct sim_handle *handle, struct sim_data *data, bool sync_writes)
{
	handle->data = data;
	handle->sync_writes = sync_writes;
	handle->errors_told = data->errors;
	if (data->errors && !data->error_told)
		handle->errors_told--;
}

/* -------------------------------------------------------------- sectors -- */

uint64_t sim_sectors(uint64_t from, uint64_t to)
{
	uint64_t first = from / SIM_SECTOR, end = (to + SIM_SECTOR - 1) / SIM_SECTOR;
	uint64_t below = end >= SIM_SECTORS ? UINT64_MAX : (UINT64_C(1) << end) - 1;

	return first >= SIM_SECTORS || from >= to ? 0 : below & ~((UINT64_C(1) << first) - 1);
}

/* The lowest of the set, which is not empty; and the set without it. */
static unsigned take_sector(uint64_t *set)
{
	unsigned sector = (unsigned)__builtin_ctzll(*set);

	*set &= *set - 1;
	return sector;
}

static void put_on_medium(struct sim_data *data, unsigned sector, const unsigned char *bytes,
			  uint32_t version)
{
	memcpy(data->medium + sector * SIM_SECTOR, bytes + sector * SIM_SECTOR, SIM_SECTOR);
	data->medium_version[sector] = version;
	if (version == data->version[sector])
		data->dirty &= ~(UINT64_C(1) << sector);
}

static void write_back(struct sim_data *data, uint64_t sectors)
{
	unsigned sector;

	for (sectors &= data->dirty; sectors;) {
		sector = take_sector(&sectors);
		if (sim_chance(sim_file_faults.written_back))
			put_on_medium(data, sector, data->cache, data->version[sector]);
	}
}

/* The device fails: some of these dirty sectors got there, and the others count as clean. */
static void give_up(struct sim_data *data, uint64_t sectors)
{
	uint64_t lost = 0;
	unsigned sector;

	sim_reach(SIM_FLUSH_FAILED);
	while (sectors) {
		sector = take_sector(&sectors);
		if (sim_chance(300))
			put_on_medium(data, sector, data->cache, data->version[sector]);
		else
			lost |= UINT64_C(1) << sector;
	}
	data->dirty &= ~lost;
	data->lost |= lost;
	data->error = sim_chance(700) ? -EIO : -ENOSPC;
	data->errors++;
	data->error_told = false;
	sim_ledger_lost(data, lost);
}

/* The kernel's own flusher has come by, maybe: whoever flushes next is told how it went. */
static void run_flusher(struct sim_data *data)
{
	if (!data->dirty || !sim_chance(sim_file_faults.written_back / 4))
		return;
	sim_trace("the flusher comes by file %u", data->number);
	if (sim_chance(sim_file_faults.flush_fails))
		give_up(data, data->dirty);
	else
		write_back(data, data->dirty);
}

void sim_data_write_back(struct sim_data *data, uint64_t offset, uint64_t len)
{
	write_back(data, sim_sectors(offset, len ? offset + len : SIM_DATA_BYTES));
}

/* ------------------------------------------------------ reads and writes -- */

ssize_t sim_data_read(const struct sim_data *data, void *buf, size_t len, uint64_t offset)
{
	if (offset >= data->len)
		return 0;
	if (len > data->len - offset)
		len = data->len - offset;
	memcpy(buf, data->cache + offset, len);
	return (ssize_t)len;
}

ssize_t sim_data_write(struct sim_data *data, const void *buf, size_t len, uint64_t offset)
{
	static const int errnos[] = { -EIO, -ENOSPC, -EDQUOT };
	uint64_t sectors;
	unsigned sector;

	if (len == 0)
		return 0;
	if (offset >= sim_file_faults.room) {
		sim_reach(SIM_FILE_FULL);
		return sim_file_faults.full;
	}
	if (sim_chance(sim_file_faults.write_fails))
		return errnos[sim_random(3)];
	if (len > sim_file_faults.room - offset)
		len = sim_file_faults.room - offset;
	if (len > 1 && sim_chance(sim_file_faults.short_write))
		len = 1 + sim_random(len - 1);
	sectors = sim_sectors(offset, offset + len);
	run_flusher(data);
	write_back(data, sectors);	/* as they were, if they are to get there at all */
	memcpy(data->cache + offset, buf, len);
	if (data->len < offset + len)
		data->len = offset + len;
	data->writers++;
	data->dirty |= sectors;
	data->lost &= ~sectors;
	while (sectors) {
		sector = take_sector(&sectors);
		data->version[sector]++;
		data->writer[sector] = data->writers;
	}
	sim_ledger_moment("a write");
	return (ssize_t)len;
}

bool sim_is_sync_write(const struct sim_handle *handle, int rw_flags)
{
	if (!handle->data)
		return false;
	if (rw_flags & (RWF_DSYNC | RWF_SYNC))
		sim_reach(SIM_RWF_DSYNC);
	else if (handle->sync_writes)
		sim_reach(SIM_O_DSYNC);
	else
		return false;
	return true;
}

/* --------------------------------------------------------------- flushes -- */

static struct sim_flush *flush_new(void)
{
	unsigned i;

	for (i = 0; i < files.flush_count; i++)
		if (!files.flushes[i]->handle)
			return files.flushes[i];
	if (files.flush_count == FLUSHES_MAX)
		sim_fail("the simulated machine has too few flushes");
	files.flushes[files.flush_count] = sim_kernel_alloc(sizeof(struct sim_flush));
	return files.flushes[files.flush_count++];
}

struct sim_flush *sim_flush_start(struct sim_handle *handle, uint64_t offset, uint64_t len,
				  uint64_t *ret_end_ns)
{
	struct sim_data *data = handle->data;
	struct sim_flush *flush = flush_new();

	flush->handle = handle;
	flush->sectors = data->dirty & sim_sectors(offset, len ? offset + len : SIM_DATA_BYTES);
	flush->len = data->len;
	memcpy(flush->version, data->version, sizeof(flush->version));
	memcpy(flush->bytes, data->cache, sizeof(flush->bytes));
	*ret_end_ns = sim_now_ns() + sim_random(sim_chance(100) ? 5 * SIM_MS : 20 * SIM_US);
	sim_trace("a flush of file %u starts: sectors %llx", data->number,
		  (unsigned long long)flush->sectors);
	sim_ledger_moment("a flush's start");
	return flush;
}

/* On to the medium: what was there at the start or, by dice, what has come since. */
static void flush_sectors(struct sim_data *data, const struct sim_flush *flush)
{
	uint64_t sectors = flush->sectors & data->dirty;
	unsigned sector;

	while (sectors) {
		sector = take_sector(&sectors);
		if (data->version[sector] != flush->version[sector] && sim_chance(500))
			put_on_medium(data, sector, data->cache, data->version[sector]);
		else if (data->medium_version[sector] < flush->version[sector])
			put_on_medium(data, sector, flush->bytes, flush->version[sector]);
	}
	if (data->medium_len < flush->len)
		data->medium_len = flush->len;
}

/* What has been written to since the start stays dirty. */
static uint64_t unchanged_sectors(const struct sim_data *data, const struct sim_flush *flush)
{
	uint64_t sectors = flush->sectors & data->dirty, unchanged = 0;
	unsigned sector;

	while (sectors) {
		sector = take_sector(&sectors);
		if (data->version[sector] == flush->version[sector])
			unchanged |= UINT64_C(1) << sector;
	}
	return unchanged;
}

static int tell_error(struct sim_handle *handle)
{
	struct sim_data *data = handle->data;

	if (handle->errors_told == data->errors) {
		if (data->lost)
			sim_reach(SIM_FLUSH_LIED);
		return 0;
	}
	handle->errors_told = data->errors;
	data->error_told = true;
	sim_ledger_handed(data);
	return data->error;
}

int sim_flush_end(struct sim_flush *flush)
{
	struct sim_handle *handle = flush->handle;
	struct sim_data *data = handle->data;
	int error;

	if (sim_chance(sim_file_faults.flush_fails)) {
		give_up(data, unchanged_sectors(data, flush));
	} else {
		flush_sectors(data, flush);
	}
	flush->handle = NULL;
	error = tell_error(handle);
	sim_trace("a flush of file %u ends: %d", data->number, error);
	sim_ledger_moment("a flush's end");
	return error;
}

/* ---------------------------------------------------------------- images -- */

void sim_data_least(const struct sim_data *data, unsigned char ret[SIM_DATA_BYTES])
{
	memset(ret, 0, SIM_DATA_BYTES);
	memcpy(ret, data->medium, data->medium_len);
}

/* What the image shows of the difference: for the counters. */
static void count_image(const struct sim_data *data, uint64_t taken)
{
	uint64_t left = data->dirty & ~taken, all = data->dirty;
	uint32_t first_left = UINT32_MAX, last_taken = 0;
	unsigned sector;

	if (!left)
		return;
	sim_reach(SIM_IMAGE_LACKS);
	while (all) {
		sector = take_sector(&all);
		if (left & UINT64_C(1) << sector) {
			if (data->writer[sector] < first_left)
				first_left = data->writer[sector];
		} else if (data->writer[sector] > last_taken) {
			last_taken = data->writer[sector];
		}
	}
	if (first_left < last_taken)
		sim_reach(SIM_IMAGE_REORDERED);
	for (sector = 0; sector + 1 < SIM_SECTORS; sector++)
		if ((data->dirty >> sector & 3) == 3 &&
		    data->writer[sector] == data->writer[sector + 1] &&
		    ((taken >> sector & 1) != (taken >> (sector + 1) & 1))) {
			sim_reach(SIM_IMAGE_TORN);
			break;
		}
}

void sim_data_image(const struct sim_data *data, unsigned char ret[SIM_DATA_BYTES])
{
	unsigned per_mille = sim_chance(300) ? 0 : (unsigned)sim_random(1001);
	uint64_t dirty = data->dirty, taken = 0;
	size_t len = data->medium_len;
	unsigned sector;

	if (len < data->len && sim_chance(per_mille))
		len = data->len;
	memcpy(ret, data->medium, SIM_DATA_BYTES);
	while (dirty) {
		sector = take_sector(&dirty);
		if (!sim_chance(per_mille))
			continue;
		taken |= UINT64_C(1) << sector;
		memcpy(ret + sector * SIM_SECTOR, data->cache + sector * SIM_SECTOR, SIM_SECTOR);
	}
	memset(ret + len, 0, SIM_DATA_BYTES - len);
	count_image(data, taken);
}
