/* SPDX-License-Identifier: MIT */
#include "ledger.h"

#include <string.h>

#include "file.h"
#include "kernel.h"
#include "sched.h"

#define WRITES_MAX	120
#define NAME_STEP	37	/* from one byte of a write to the next */
#define NAMES		251	/* a prime: so many writes can be told apart at one place */
#define HOLE		NAMES	/* nobody's: never written, or past the end */
#define FIRST		0	/* what the file held at first */

enum write_state { OPEN, NOTHING, MAYBE, DONE };

struct sim_write {
	struct sim_data *data;
	enum write_state state;
	enum sim_promise promise;
	bool whole;		/* it was answered with all that it asked for */
	uint64_t from, to;	/* to: as asked for, then as answered */
	uint64_t begun, ended;
	uint64_t durable;	/* sectors that no power cut may take back */
	/* Sectors that were lost to a failed flush before they were durable. */
	uint64_t lost;
	uint64_t seen_to;	/* how far anybody has seen it; 0: nobody has */
};

/* What is known of a file. */
struct page {
	struct sim_data *data;
	size_t first_len;
	unsigned handed, told, unsure;	/* failures of flushes: by the kernel, to callers */
	uint64_t failed;		/* when one was told that has to stick */
	uint64_t reset;			/* what began before it sticks no more */
};

static struct {
	uint64_t now;			/* counts begins and answers */
	struct page pages[SIM_DATA_MAX];	/* by the file's number; data NULL: not followed */
	struct sim_write *writes;
	unsigned count;
} ledger;

void sim_ledger_begin(void)
{
	memset(&ledger, 0, sizeof(ledger));
}

/* --------------------------------------------------------------- names -- */

static unsigned char name_at(unsigned name, uint64_t at)
{
	return (unsigned char)(1 + (name + NAME_STEP * at) % NAMES);
}

static unsigned name_of(unsigned char byte, uint64_t at)
{
	return byte ? (unsigned)((byte - 1 + NAMES - NAME_STEP * at % NAMES) % NAMES) : HOLE;
}

static struct sim_data *data_of(int fd)
{
	struct sim_file *file = sim_file_get(fd);

	if (!file || file->kind != SIM_FILE_DATA)
		sim_fail("the scenario uses a descriptor that is no file");
	return file->handle.data;
}

static struct page *page_of(int fd)
{
	return &ledger.pages[data_of(fd)->number];
}

/* --------------------------------------------------------------- checks -- */

/* What is looked at: bytes from one place of a file to another. */
struct view {
	const struct page *page;
	const unsigned char *bytes;	/* the first of them is the one at from */
	uint64_t from, to;
	const char *what;
	bool image;			/* of a medium; else a read, that began at */
	uint64_t begun;
};

/* Must this write, or one after it, be all that the view shows of its place? */
static bool settled(const struct sim_write *write, const struct view *view, uint64_t from,
		    uint64_t to)
{
	if (write->data != view->page->data || write->from >= to || write->to <= from)
		return false;
	if (!view->image)
		return write->state == DONE && write->ended <= view->begun;
	if (write->from > from)
		from = write->from;
	if (write->to < to)
		to = write->to;
	return write->durable & sim_sectors(from, to);
}

/* Bytes from here to there are of something that ended at this time: is that too old? */
static void check_age(const struct view *view, uint64_t from, uint64_t to, uint64_t ended,
		      unsigned name)
{
	unsigned i;

	for (i = 0; i < ledger.count; i++) {
		const struct sim_write *write = &ledger.writes[i];

		if (write->begun > ended && settled(write, view, from, to))
			sim_fail(view->image ?
				 "N3: write %u was answered as durable, and %s shows write %u at "
				 "%llu..%llu of file %u" :
				 "N2: write %u was answered, and %s shows write %u at %llu..%llu "
				 "of file %u",
				 i + 1, view->what, name, (unsigned long long)from,
				 (unsigned long long)to, view->page->data->number);
	}
}

static void check_run(const struct view *view, uint64_t from, uint64_t to, unsigned name)
{
	struct sim_write *write;

	if (name == FIRST || name == HOLE) {
		if (name == FIRST ? to > view->page->first_len : from < view->page->first_len)
			sim_fail("N2: %s shows garbage at %llu..%llu of file %u", view->what,
				 (unsigned long long)from, (unsigned long long)to,
				 view->page->data->number);
		check_age(view, from, to, 0, name);
		return;
	}
	write = name <= ledger.count ? &ledger.writes[name - 1] : NULL;
	if (write && write->state == NOTHING)
		sim_fail("N2: write %u was answered as not done at all, and %s shows it", name,
			 view->what);
	if (!write || write->data != view->page->data || from < write->from ||
	    to > write->to)
		sim_fail("N2: %s shows garbage at %llu..%llu of file %u, as of write %u",
			 view->what, (unsigned long long)from, (unsigned long long)to,
			 view->page->data->number, name);
	if (write->state == NOTHING)
		sim_fail("N2: write %u was answered with effect NONE, and %s shows it", name,
			 view->what);
	if (write->seen_to < to)
		write->seen_to = to;
	check_age(view, from, to, write->ended, name);
}

/* The byte that follows this one in the same run. */
static unsigned char name_next(unsigned char byte)
{
	unsigned next = byte + NAME_STEP;

	if (byte == 0)
		return 0;
	return (unsigned char)(next > NAMES ? next - NAMES : next);
}

static void check_view(const struct view *view)
{
	const unsigned char *bytes = view->bytes;
	uint64_t at = view->from, from;

	while (at < view->to) {
		from = at;
		do
			at++;
		while (at < view->to &&
		       bytes[at - view->from] == name_next(bytes[at - 1 - view->from]));
		check_run(view, from, at, name_of(bytes[from - view->from], from));
	}
}

static void check_image(const struct page *page, const unsigned char *bytes, const char *what)
{
	struct view view = { .page = page, .bytes = bytes, .to = page->data->len, .what = what,
			     .image = true };

	check_view(&view);
}

/* What was just promised has to be there already: whatever else may be, or not. */
static void check_promise(const struct page *page)
{
	unsigned char bytes[SIM_DATA_BYTES];

	sim_data_least(page->data, bytes);
	check_image(page, bytes, "the medium");
}

void sim_power_cut(void)
{
	unsigned char bytes[SIM_DATA_BYTES];
	unsigned i;

	sim_reach(SIM_POWER_CUT);
	for (i = 0; i < SIM_DATA_MAX; i++)
		if (ledger.pages[i].data) {
			sim_data_image(ledger.pages[i].data, bytes);
			check_image(&ledger.pages[i], bytes, "a power cut");
		}
}

void sim_ledger_moment(const char *where)
{
	if (!ledger.writes || !sim_chance(sim_file_faults.power_cut))
		return;
	sim_trace("the power is cut in thought: %s", where);
	sim_power_cut();
}

/* --------------------------------------------------------------- writes -- */

int sim_ledger_file(size_t len, bool sync_writes)
{
	unsigned char bytes[SIM_DATA_BYTES];
	struct page *page;
	size_t at;
	int fd;

	for (at = 0; at < len; at++)
		bytes[at] = name_at(FIRST, at);
	if (!ledger.writes)
		ledger.writes = sim_kernel_alloc(WRITES_MAX * sizeof(ledger.writes[0]));
	fd = sim_scenario_file(bytes, len);
	sim_file_get(fd)->handle.sync_writes = sync_writes;
	page = page_of(fd);
	page->data = data_of(fd);
	page->first_len = len;
	return fd;
}

int sim_ledger_reopen(int fd, bool sync_writes)
{
	int again = sim_scenario_reopen(fd);

	sim_file_get(again)->handle.sync_writes = sync_writes;
	return again;
}

struct sim_write *sim_write_begin(int fd, void *buf, size_t len, uint64_t offset,
				  enum sim_promise promise)
{
	struct sim_write *write;
	unsigned char *bytes = buf;
	size_t i;

	if (ledger.count == WRITES_MAX)
		sim_fail("the scenario writes too often");
	write = &ledger.writes[ledger.count++];
	*write = (struct sim_write){
		.data = data_of(fd), .promise = promise, .from = offset, .to = offset + len,
		.begun = ++ledger.now, .ended = SIM_NEVER,
	};
	for (i = 0; i < len; i++)
		bytes[i] = name_at(ledger.count, offset + i);
	sim_trace("write %u: file %u, %llu..%llu", ledger.count, write->data->number,
		  (unsigned long long)write->from, (unsigned long long)write->to);
	return write;
}

static unsigned number_of(const struct sim_write *write)
{
	return (unsigned)(write - ledger.writes) + 1;
}

/* No byte past this may ever have been there, nor be there from now on. */
static void cut_off(struct sim_write *write, uint64_t to, const char *answer)
{
	if (write->seen_to > to)
		sim_fail("N2: write %u was answered with %s, and its bytes up to %llu have been "
			 "seen",
			 number_of(write), answer, (unsigned long long)write->seen_to);
	write->to = to;
}

static void note_flush(struct page *page, enum gyre_effect effect, ssize_t res)
{
	if (effect == GYRE_EFFECT_UNKNOWN)
		page->unsure++;
	else if (effect == GYRE_EFFECT_DONE && res < 0)
		page->told++;
}

/* All that a power cut may not take back any more. */
static void hold(struct sim_write *write, enum sim_promise promise)
{
	uint64_t sectors = sim_sectors(write->from, write->to);

	write->durable |= promise == SIM_TO_THE_END ? sectors : sectors & ~write->lost;
}

void sim_write_done(struct sim_write *write, enum gyre_effect effect, ssize_t res)
{
	struct page *page = &ledger.pages[write->data->number];

	write->ended = ++ledger.now;
	sim_trace("write %u is answered: effect %d, %zd", number_of(write), (int)effect, res);
	if (write->promise != SIM_NOT_DURABLE)
		note_flush(page, effect, res);
	if (effect == GYRE_EFFECT_NONE) {
		cut_off(write, 0, "effect NONE");
		write->state = NOTHING;
	} else if (effect == GYRE_EFFECT_UNKNOWN) {
		write->state = MAYBE;
	} else if (res >= 0) {
		if ((uint64_t)res > write->to - write->from)
			sim_fail("N2: write %u was answered with more than it asked for",
				 number_of(write));
		write->whole = (uint64_t)res == write->to - write->from;
		cut_off(write, write->from + (uint64_t)res, "fewer bytes");
		write->state = DONE;
		if (write->promise != SIM_NOT_DURABLE) {
			hold(write, write->promise);
			check_promise(page);
		}
	} else if (write->promise == SIM_NOT_DURABLE) {
		cut_off(write, 0, "an errno");
		write->state = NOTHING;
	} else {
		write->state = MAYBE;	/* written, and then the flush failed */
	}
	sim_ledger_moment("a write's answer");
}

/* --------------------------------------------------------------- flushes -- */

struct sim_sync sim_sync_begin(int fd)
{
	return (struct sim_sync){ .data = data_of(fd), .begun = ++ledger.now };
}

void sim_sync_covers(struct sim_sync *sync, struct sim_write *write)
{
	if (sync->own_count == SIM_COVERED_MAX)
		sim_fail("the scenario's flush covers too many writes of its own");
	sync->own[sync->own_count++] = write;
}

void sim_synced(const struct sim_sync *sync, enum gyre_effect effect, int res,
		enum sim_promise promise)
{
	struct page *page = &ledger.pages[sync->data->number];
	unsigned i;

	ledger.now++;
	sim_trace("a flush of file %u is answered: effect %d, %d", sync->data->number, (int)effect,
		  res);
	note_flush(page, effect, res);
	if (effect == GYRE_EFFECT_DONE && res >= 0) {
		for (i = 0; i < ledger.count; i++) {
			struct sim_write *write = &ledger.writes[i];

			if (write->data == sync->data && write->state == DONE &&
			    write->ended <= sync->begun)
				hold(write, promise);
		}
		for (i = 0; i < sync->own_count; i++) {
			/* Where a ring died, the write's own answer may have been lost. */
			if (sync->own[i]->state == MAYBE)
				continue;
			if (!sync->own[i]->whole)
				sim_fail("N2: a flush was answered OK, and not all of write %u "
					 "before it in its chain",
					 number_of(sync->own[i]));
			hold(sync->own[i], promise);
		}
		check_promise(page);
	}
	sim_ledger_moment("a flush's answer");
}

void sim_ledger_lost(struct sim_data *data, uint64_t sectors)
{
	unsigned i;

	for (i = 0; i < ledger.count; i++)
		if (ledger.writes[i].data == data)
			ledger.writes[i].lost |= sectors & ~ledger.writes[i].durable;
}

void sim_ledger_handed(struct sim_data *data)
{
	ledger.pages[data->number].handed++;
}

/* --------------------------------------------------------- what has to stick -- */

uint64_t sim_durable_begin(void)
{
	return ++ledger.now;
}

void sim_durable_told(int fd, uint64_t begun, ssize_t res)
{
	struct page *page = page_of(fd);

	if (res < 0 && begun > page->reset)
		page->failed = ++ledger.now;
	else if (res >= 0 && page->failed && begun > page->failed)
		sim_fail("N3: file %u has failed, and a call that came later is OK",
			 page->data->number);
}

void sim_durable_reset(int fd)
{
	struct page *page = page_of(fd);

	page->failed = 0;
	page->reset = ++ledger.now;
}

/* --------------------------------------------------------------- reads -- */

uint64_t sim_read_begin(void)
{
	return ++ledger.now;
}

void sim_read_done(int fd, uint64_t begun, const void *buf, ssize_t res, uint64_t offset)
{
	struct page *page = page_of(fd);
	struct view view = { .page = page, .bytes = buf, .from = offset,
			     .to = offset + (uint64_t)(res > 0 ? res : 0), .what = "a read",
			     .begun = begun };

	check_view(&view);
}

void sim_ledger_check_end(void)
{
	unsigned i;

	sim_power_cut();
	for (i = 0; i < SIM_DATA_MAX; i++) {
		struct page *page = &ledger.pages[i];
		struct view view = { .page = page, .what = "the cache", .begun = ledger.now };

		if (!page->data)
			continue;
		view.bytes = page->data->cache;
		view.to = page->data->len;
		check_view(&view);
		check_promise(page);
		if (page->handed > page->told + page->unsure)
			sim_fail("N3: the kernel told of %u failed flushes of file %u, callers "
				 "were told of %u",
				 page->handed, i, page->told);
	}
}
