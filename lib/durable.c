/* SPDX-License-Identifier: MIT */
/*
 * Durable writes, and flushes that several callers share.
 *
 * A *party* is one call, on its caller's stack. Of one file, one flush runs at a
 * time: its party *leads*. Who comes meanwhile, with what it has written, waits
 * behind the leader. When the flush is over, those whom it covered are told, and
 * the first of those who came later leads the next one. A flush covers parties
 * that were there when it started and mean the same descriptor: the kernel tells
 * each open file of a failure once, so another's OK may not be this one's.
 *
 * That only one runs is also what makes an OK worth something: of two flushes
 * side by side, one may be told of a failure, and the other that all is well.
 */
#define _GNU_SOURCE
#include "durable.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "bridge.h"
#include "elsewhere.h"
#include "method.h"
#include "offload.h"
#include "text.h"

#define PIECE_MAX	((size_t)0x7ffff000)	/* what one system call moves at most */
#define SAMPLE_MAX	((size_t)64 << 10)	/* longer writes teach nothing about others */
#define LANES		16			/* lists of leaders, by inode */

/* What a party wakes up as. */
enum role {
	WRITES,		/* no more than its write is over */
	WAITS,		/* behind a leader */
	LEADS,		/* the next flush is its own to start */
	TOLD		/* somebody else's flush covered it: res and status are there */
};

struct party {
	struct gyre__thread *self;
	struct gyre *rt;
	const char *function;
	int fd;
	uint64_t device, inode;
	bool has_medium;		/* else no flush of it can fail */

	/* What is written. */
	const char *buf;
	size_t len, done;
	off_t offset;
	int rw_flags;
	bool by_ring;
	/* By its write, beside others: to be noted when it leaves. */
	bool flushes_itself;
	bool written;			/* all of it, and then flushed */
	struct iovec piece;
	/* Told that a ring has written the last piece, and joins the flushes on its behalf. */
	struct gyre__waiter writer;
	bool joins;			/* its last piece, if it is one for the ring, does so */

	/* How it is flushed; under the lock until the party is told. */
	bool full;			/* fsync, not fdatasync */
	/* Each of its writes flushes: it waits for its turn before it writes. */
	bool writes_alone;
	bool found_failed;		/* before: nothing was flushed */
	/* Just now: that of a flush that failed, or may have, unheard. */
	int flush_error;
	enum role role;
	int res;
	enum gyre_status status;
	enum gyre_effect effect;	/* of the flush, where res < 0 */
	struct party *next;		/* in a lane, behind a leader, or in a group */
	struct party *first, *last;	/* a leader's: who waits behind it */
	struct party *group;		/* a leader's: whom its flush covers besides */

	/* From before it writes to its answer; under the lock. */
	struct party *inside_next, *inside_prev;
	uint64_t arrival;		/* n-th that came */
	bool settled;			/* its bytes are flushed: what fails later is not its own */
	int doomed;			/* a flush of its file has failed meanwhile, with this */
};

struct gyre__durable {
	union gyre__mutex lock;		/* of all but failed */
	struct party *lanes[LANES];	/* leaders */
	struct party *inside[LANES];	/* all parties */
	uint64_t arrivals;
	struct gyre__methods methods;
	uint64_t writes, flushes, shared, flushes_failed;
	uint64_t by_method[GYRE__METHODS];
	struct gyre__failed failed;
};

static void lock(struct gyre__durable *durable)
{
	gyre__sys->mutex_lock(&durable->lock);
}

static void unlock(struct gyre__durable *durable)
{
	gyre__sys->mutex_unlock(&durable->lock);
}

/* ------------------------------------------------------------- parties -- */

static unsigned lane_number(const struct party *party)
{
	return (unsigned)((party->inode ^ party->device) % LANES);
}

static bool same_file(const struct party *a, const struct party *b)
{
	return a->inode == b->inode && a->device == b->device;
}

/* A block device is the same by whatever node it was opened. */
static void name_file(struct party *party, const struct stat *st)
{
	party->device = S_ISBLK(st->st_mode) ? st->st_rdev : st->st_dev;
	party->inode = S_ISBLK(st->st_mode) ? 0 : st->st_ino;
	party->has_medium = gyre__has_medium(st->st_mode);
}

/* Under the lock, before anything is written. */
static void party_enter(struct gyre__durable *durable, struct party *party)
{
	struct party **first = &durable->inside[lane_number(party)];

	party->arrival = ++durable->arrivals;
	party->inside_prev = NULL;
	party->inside_next = *first;
	if (*first)
		(*first)->inside_prev = party;
	*first = party;
}

/* Under the lock, last of all. What a failed flush may have taken along is not OK. */
static void party_leave(struct gyre__durable *durable, struct party *party)
{
	if (party->inside_prev)
		party->inside_prev->inside_next = party->inside_next;
	else
		durable->inside[lane_number(party)] = party->inside_next;
	if (party->inside_next)
		party->inside_next->inside_prev = party->inside_prev;
	if (party->doomed && party->res >= 0) {
		party->res = party->doomed;
		party->status = GYRE_OK;
		party->effect = GYRE_EFFECT_UNKNOWN;
		party->found_failed = true;
	}
}

/*
 * Under the lock: culprit's flush has failed, and so has its file. All who are
 * inside with it may have lost what they have written, though somebody should
 * reset it before they come to look. In one step: a reset comes before it or after.
 */
static void fail_file(struct gyre__durable *durable, const struct party *culprit)
{
	struct party *party;

	gyre__failed_mark(&durable->failed, culprit->fd, culprit->flush_error);
	durable->flushes_failed++;
	for (party = durable->inside[lane_number(culprit)]; party; party = party->inside_next)
		if (party != culprit && !party->settled && same_file(party, culprit))
			party->doomed = culprit->flush_error;
}

/* ------------------------------------------------------------- flushes -- */

static struct party **lane_of(struct gyre__durable *durable, const struct party *party)
{
	return &durable->lanes[lane_number(party)];
}

/* Under the lock: who flushes party's file; NULL: nobody does. */
static struct party *leader_of(struct gyre__durable *durable, const struct party *party)
{
	struct party *leader = *lane_of(durable, party);

	while (leader && !same_file(leader, party))
		leader = leader->next;
	return leader;
}

static void lane_add(struct gyre__durable *durable, struct party *leader)
{
	struct party **lane = lane_of(durable, leader);

	leader->next = *lane;
	*lane = leader;
}

static void lane_remove(struct gyre__durable *durable, struct party *leader)
{
	struct party **at = lane_of(durable, leader);

	while (*at != leader)
		at = &(*at)->next;
	*at = leader->next;
}

/* Under the lock. */
static void stand_behind(struct party *leader, struct party *party)
{
	party->next = NULL;
	if (leader->first)
		leader->last->next = party;
	else
		leader->first = party;
	leader->last = party;
}

/* Leads the flushes of its file; or it stands behind who does, and false: it will be told. */
static bool join_row(struct gyre__durable *durable, struct party *party)
{
	struct party *leader;

	lock(durable);
	leader = leader_of(durable, party);
	party->role = leader ? WAITS : LEADS;
	if (leader)
		stand_behind(leader, party);
	else
		lane_add(durable, party);
	unlock(durable);
	return !leader;
}

/*
 * Leads the flushes of its file, or waits behind who does. Everything that the
 * party has written is written by now. False: another's flush has covered it.
 */
static bool join_flush(struct gyre__durable *durable, struct party *party)
{
	struct gyre__reply *reply = &party->self->reply;

	gyre__reply_expect(reply);
	if (join_row(durable, party)) {
		gyre__reply_forget(reply);
		return true;
	}
	gyre__reply_await(reply);
	GYRE_ASSERT(party->role != WAITS);
	return party->role == LEADS;
}

/* Under the lock, before the flush starts: all who wait and mean its descriptor are covered. */
static void gather_group(struct party *leader)
{
	struct party *party = leader->first, *next;

	leader->first = leader->last = NULL;
	for (; party; party = next) {
		next = party->next;
		if (party->fd == leader->fd && !party->writes_alone) {
			party->next = leader->group;
			leader->group = party;
			leader->full |= party->full;
		} else {
			stand_behind(leader, party);
		}
	}
}

static void tell_group(struct party *leader, struct gyre__bell_round *round)
{
	struct party *party, *next;

	for (party = leader->group; party; party = next) {
		next = party->next;	/* told, it is gone */
		party->res = leader->res;
		party->status = leader->status;
		party->effect = leader->effect;
		party->found_failed = leader->found_failed;
		party->role = TOLD;
		gyre__reply_give_in(&party->self->reply, round);
	}
}

/*
 * The file system knows no RWF_DSYNC, and has written nothing; with O_DSYNC, no other way is as
 * good.
 */
static bool dsync_is_refused(const struct party *party)
{
	return party->rw_flags && party->res == -EOPNOTSUPP && party->status == GYRE_OK &&
	       party->done == 0 && !party->writes_alone;
}

/* The flush is over and what it came to is noted: tells whom it covered, and who is next. */
static void hand_over(struct gyre__durable *durable, struct party *leader)
{
	struct gyre__bell_round round = { 0 };
	struct party *next, *party;

	lock(durable);
	next = leader->first;
	lane_remove(durable, leader);
	if (next) {
		next->first = next->next;
		next->last = next->first ? leader->last : NULL;
		next->role = LEADS;
		lane_add(durable, next);
	}
	durable->flushes += !leader->found_failed && !dsync_is_refused(leader);
	if (leader->flush_error)
		fail_file(durable, leader);
	leader->settled = leader->res >= 0;
	for (party = leader->group; party && leader->settled; party = party->next) {
		party->settled = true;
		durable->shared++;
	}
	unlock(durable);
	/* First who leads, as all that come now wait for that flush to begin. */
	if (next)
		gyre__reply_give(&next->self->reply);
	tell_group(leader, &round);
	gyre__bell_ring_all(&round);
}

static void prep_flush(struct io_uring_sqe *sqe, void *arg)
{
	const struct party *party = arg;

	io_uring_prep_fsync(sqe, party->fd, party->full ? 0 : IORING_FSYNC_DATASYNC);
}

/* What a flush, or a write that flushes, has ended with makes of its file. 0: nothing. */
static int error_of(const struct party *party)
{
	if (!party->has_medium)
		return 0;
	if (party->status != GYRE_OK)	/* cut off, it may have failed, unheard */
		return party->effect == GYRE_EFFECT_UNKNOWN ? -EIO : 0;
	if (party->found_failed || !(party->rw_flags ? gyre__is_write_failure(party->res) :
							gyre__is_flush_failure(party->res)))
		return 0;
	return party->res;
}

static void flush_by_ring(struct party *leader)	/* where the law is kept as well */
{
	leader->res = (int)gyre__bridge_call_device(leader->self, leader->rt, leader->function,
						    prep_flush, leader, NULL);
	leader->status = leader->self->last_status;
	leader->effect = leader->self->last_effect;
	leader->found_failed = leader->status == GYRE_OK && leader->effect == GYRE_EFFECT_NONE;
}

static void flush_here(struct party *leader)
{
	leader->res = leader->full ? gyre__sys->fsync(leader->fd) :
				     gyre__sys->fdatasync(leader->fd);
}

/* One flush, never repeated, and what it means: by the law of failed flushes. */
static void flush(struct gyre__failed *failed, struct party *leader)
{
	int error = gyre__failed_look(failed, leader->fd);

	leader->status = GYRE_OK;
	leader->effect = GYRE_EFFECT_DONE;
	if (error) {
		leader->effect = GYRE_EFFECT_NONE;
		leader->found_failed = true;
		leader->res = error;
		return;
	}
	if (leader->by_ring)
		flush_by_ring(leader);
	else
		flush_here(leader);
	leader->flush_error = error_of(leader);
	/* A ring would forgive that the descriptor is closed by now. */
	if (leader->res >= 0) {
		leader->res = gyre__failed_look_open(failed, leader->fd);
		leader->found_failed = leader->res < 0;
	}
}

static void lead(struct gyre__durable *durable, struct party *leader)
{
	lock(durable);
	gather_group(leader);
	unlock(durable);
	flush(&durable->failed, leader);
	hand_over(durable, leader);
}

static void flush_together(struct gyre__durable *durable, struct party *party)
{
	if (join_flush(durable, party))
		lead(durable, party);
}

/* ----------------------------------------------------- fsync, fdatasync -- */

/* A failure of the flush, for the party that is told of it. */
static int report_flush(const struct party *party, enum gyre_effect effect)
{
	if (party->status != GYRE_OK)
		gyre__fail_effect(party->function, party->status, effect, "the flush: %s",
				  gyre_status_text(party->status));
	else if (party->found_failed && party->res == -EBADF)
		gyre__remark(party->function, effect,
			     "the descriptor was closed meanwhile, and flushes of some files have "
			     "failed: whether of this one, cannot be told");
	else if (party->found_failed)
		gyre__remark(party->function, effect,
			     "a flush of this file has failed before (%s), and what it covered may "
			     "be lost: gyre_durable_reset() once that is mended",
			     strerror(-party->res));
	else
		gyre__remark(party->function, effect, "the flush failed (%s)%s",
			     strerror(-party->res),
			     party->has_medium && gyre__is_flush_failure(party->res) ?
			     ": what it covered may be lost, and further flushes of this file fail "
			     "until gyre_durable_reset()" : "");
	return party->res;
}

static int sync_inside(struct party *party)
{
	struct gyre__durable *durable = party->rt->durable;
	struct gyre__home *home = gyre__thread_home(party->self, party->rt);
	struct stat st;
	int rc;

	gyre__count(&home->calls, 1);
	party->by_ring = party->rt->route == GYRE__ROUTE_RING;
	if (!party->by_ring)
		gyre__count(&home->calls_in_caller, 1);
	rc = gyre__sys->fstat(party->fd, &st);
	if (rc < 0) {
		gyre__remark(party->function, GYRE_EFFECT_DONE, "the descriptor %d: %s", party->fd,
			     strerror(-rc));
		return rc;
	}
	name_file(party, &st);
	lock(durable);
	party_enter(durable, party);
	unlock(durable);
	flush_together(durable, party);
	lock(durable);
	party_leave(durable, party);
	unlock(durable);
	if (party->res < 0)
		return report_flush(party, party->effect);
	gyre__thread_succeed(party->self);
	return 0;
}

static int sync_call(struct gyre *rt, int fd, bool full, const char *function)
{
	struct party party = { .function = function, .fd = fd, .full = full };
	enum gyre_status status = gyre__runtime_enter(function, &rt, &party.self);
	int res;

	if (status != GYRE_OK)
		return gyre_status_errno(status);
	party.rt = rt;
	res = sync_inside(&party);
	gyre__thread_leave(party.self);
	return res;
}

int gyre_fsync(struct gyre *rt, int fd)
{
	if (gyre__must_go_elsewhere())
		return gyre__fsync_elsewhere(rt, fd);
	return sync_call(rt, fd, true, __func__);
}

int gyre_fdatasync(struct gyre *rt, int fd)
{
	if (gyre__must_go_elsewhere())
		return gyre__fdatasync_elsewhere(rt, fd);
	return sync_call(rt, fd, false, __func__);
}

/* ------------------------------------------------------------- writing -- */

static void prep_write(struct io_uring_sqe *sqe, void *arg)
{
	const struct party *party = arg;

	io_uring_prep_write(sqe, party->fd, party->piece.iov_base, (unsigned)party->piece.iov_len,
			    (uint64_t)party->offset + party->done);
	sqe->rw_flags = party->rw_flags;
}

/*
 * Owner thread of ring. The bytes are written: their caller sleeps on until a flush
 * has covered them, or it is his to lead one.
 */
static void join_written(struct gyre__waiter *waiter, struct gyre__batch *batch,
			 struct gyre__ring *ring)
{
	struct party *party = gyre__container_of(waiter, struct party, writer);
	struct gyre__reply *reply = &party->self->reply;
	bool written = !reply->one_verdict && reply->one.res == (int32_t)party->piece.iov_len;

	if (!written || join_row(party->rt->durable, party))
		reply->waiter.done(&reply->waiter, batch, ring);
}

static ssize_t write_piece(struct party *party)
{
	size_t left = party->len - party->done;
	bool joins;
	ssize_t n;

	party->piece.iov_base = (void *)(uintptr_t)(party->buf + party->done);
	party->piece.iov_len = left < PIECE_MAX ? left : PIECE_MAX;
	if (!party->by_ring)
		return gyre__sys->pwritev2(party->fd, &party->piece, 1,
					   party->offset + (off_t)party->done, party->rw_flags);
	joins = party->joins && party->piece.iov_len == left;
	n = gyre__bridge_call_device(party->self, party->rt, party->function, prep_write, party,
				     joins ? &party->writer : NULL);
	if (joins && party->role != WRITES)
		return (ssize_t)left;
	party->status = party->self->last_status;
	if (party->status == GYRE_WORKER_DEAD && party->self->last_effect == GYRE_EFFECT_NONE &&
	    party->rt->route != GYRE__ROUTE_RING) {
		/* All workers are dead: the way is free, not forced. */
		party->by_ring = false;
		party->status = GYRE_OK;
		return write_piece(party);
	}
	return n;
}

/* All of it: res is 0, or the negative errno of the piece that failed. */
static void write_all(struct party *party)
{
	ssize_t n;

	party->res = 0;
	party->status = GYRE_OK;
	while (party->done < party->len) {
		n = write_piece(party);
		/*
		 * Before the first byte, is what the kernel means by it; a flush it may mean, too.
		 */
		if (n == -EINTR && party->status == GYRE_OK && !party->rw_flags &&
		    (!party->by_ring || party->self->last_effect == GYRE_EFFECT_DONE))
			continue;
		if (n == 0)
			n = -EIO;
		if (n < 0) {
			party->res = (int)n;
			return;
		}
		party->done += (size_t)n;
	}
}

/* A write that flushes has ended: its own failure is noted, and another's is its own. */
static void judge_dsync(struct gyre__failed *failed, struct party *party)
{
	party->effect = party->self->last_effect;
	party->flush_error = error_of(party);
	if (party->res >= 0) {
		party->res = gyre__failed_look_open(failed, party->fd);
		party->found_failed = party->res < 0;
	}
}

static ssize_t report_write(const struct party *party)
{
	enum gyre_effect effect = GYRE_EFFECT_UNKNOWN;

	if (party->status != GYRE_OK) {
		if (party->done == 0 && party->self->last_effect == GYRE_EFFECT_NONE)
			effect = GYRE_EFFECT_NONE;
		gyre__fail_effect(party->function, party->status, effect, "%s",
				  gyre_status_text(party->status));
	} else if (party->found_failed) {
		report_flush(party, effect);
	} else if (party->rw_flags && gyre__is_write_failure(party->res)) {
		gyre__remark(party->function, effect,
			     "the write or its flush failed (%s): what it covered may be lost, and "
			     "durable writes and flushes of this file fail until "
			     "gyre_durable_reset()",
			     strerror(-party->res));
	} else {
		if (party->done == 0 && party->res != -EINTR && !gyre__is_write_failure(party->res))
			effect = GYRE_EFFECT_DONE;
		gyre__remark(party->function, effect,
			     "the write failed after %zu of %zu bytes (%s)%s",
			     party->done, party->len, strerror(-party->res), party->res == -EINVAL ?
			     ": with O_DIRECT, address, length and offset must be multiples of the "
			     "device's block" : "");
	}
	return party->res;
}

/* ------------------------------------------------------------- methods -- */

/*
 * By RWF_DSYNC, as many side by side as there are callers: each flushes what it
 * wrote itself. False: it is refused, and nothing was written.
 */
static bool write_dsync(struct gyre__durable *durable, struct party *party)
{
	party->rw_flags = RWF_DSYNC;
	write_all(party);
	if (dsync_is_refused(party))
		return false;
	party->flushes_itself = true;
	judge_dsync(&durable->failed, party);
	return true;
}

/*
 * The same to the page cache, where one such write may be told of a failure that
 * is another's: it leads the flushes of its file. False: somebody else does, or it
 * is refused, and nothing was written. With O_DSYNC every write flushes, and has to wait.
 */
static bool write_dsync_alone(struct gyre__durable *durable, struct party *party)
{
	struct party *leader = NULL;

	if (party->writes_alone) {
		join_flush(durable, party);	/* nobody else's flush is good enough */
	} else {
		lock(durable);
		leader = leader_of(durable, party);
		if (!leader)
			lane_add(durable, party);
		unlock(durable);
	}
	if (leader)
		return false;
	party->rw_flags = RWF_DSYNC;
	write_all(party);
	if (dsync_is_refused(party)) {
		hand_over(durable, party);
		return false;
	}
	judge_dsync(&durable->failed, party);
	hand_over(durable, party);
	return true;
}

static void write_by(struct gyre__durable *durable, struct party *party,
		     enum gyre__method *method, bool direct)
{
	bool forced = party->rt->route == GYRE__ROUTE_RING;

	party->by_ring = forced || *method == GYRE__METHOD_RING || *method == GYRE__METHOD_JOIN;
	if (*method == GYRE__METHOD_HERE || *method == GYRE__METHOD_RING) {
		if (direct ? write_dsync(durable, party) : write_dsync_alone(durable, party))
			return;
		*method = GYRE__METHOD_GROUP;
		party->by_ring = forced;
	}
	party->rw_flags = 0;
	party->writer = (struct gyre__waiter){ .done = join_written, .line = &party->self->reply };
	party->joins = party->by_ring;
	party->role = WRITES;
	write_all(party);
	party->joins = false;
	if (party->role == WRITES && party->res < 0)
		return;
	party->written = true;
	party->by_ring = forced;
	if (party->role == LEADS)
		lead(durable, party);
	else if (party->role != TOLD)
		flush_together(durable, party);
}

/* What will do for this descriptor, on this route. */
static unsigned methods_for(const struct party *party, int fd_flags)
{
	const struct gyre *rt = party->rt;
	unsigned offered = rt->route == GYRE__ROUTE_RING ? GYRE__METHOD_BIT(GYRE__METHOD_RING) :
							   GYRE__METHOD_BIT(GYRE__METHOD_HERE);

	/*
	 * The ring gives writes to the page cache to threads of the kernel's, one at a
	 * time. And who writes for a task may do so while a runtime drains, whose rings
	 * take nothing from outside any more.
	 */
	if (rt->route == GYRE__ROUTE_AUTO && (fd_flags & O_DIRECT) && !party->self->serves)
		offered |= GYRE__METHOD_BIT(GYRE__METHOD_RING);
	if (fd_flags & O_DSYNC)		/* it flushes each write anyway */
		return offered;
	if (offered & GYRE__METHOD_BIT(GYRE__METHOD_RING))
		offered |= GYRE__METHOD_BIT(GYRE__METHOD_JOIN);
	if (rt->route != GYRE__ROUTE_RING)
		offered |= GYRE__METHOD_BIT(GYRE__METHOD_GROUP);
	return offered;
}

static ssize_t write_checked(struct party *party, int fd_flags)
{
	struct gyre__durable *durable = party->rt->durable;
	struct gyre__choice choice;
	enum gyre__method method;

	lock(durable);
	party_enter(durable, party);
	gyre__method_choose(&durable->methods, party->device, fd_flags & O_DIRECT,
			    methods_for(party, fd_flags), &choice);
	unlock(durable);
	method = choice.method;
	write_by(durable, party, &method, fd_flags & O_DIRECT);
	if (!party->by_ring)
		gyre__count(&gyre__thread_home(party->self, party->rt)->calls_in_caller, 1);
	lock(durable);
	if (party->flushes_itself) {
		durable->flushes++;
		if (party->flush_error)
			fail_file(durable, party);
	}
	party_leave(durable, party);
	durable->writes += party->res >= 0;
	durable->by_method[method] += party->res >= 0;
	gyre__method_done(&choice, party->res >= 0 && method == choice.method &&
			  party->len <= SAMPLE_MAX);
	unlock(durable);
	if (party->res < 0)
		return party->written ? report_flush(party, GYRE_EFFECT_UNKNOWN) :
					report_write(party);
	gyre__thread_succeed(party->self);
	return (ssize_t)party->len;
}

/* --------------------------------------------------------------- checks -- */

static int refuse(const struct party *party, int error, const char *why)
{
	if (error == -EINVAL)
		gyre__fail(party->function, GYRE_INVALID, "%s", why);
	else
		gyre__remark(party->function, GYRE_EFFECT_NONE, "%s", why);
	return error;
}

static int check_range(const struct party *party)
{
	if (party->offset < 0)
		return refuse(party, -EINVAL, "the offset is negative");
	if (party->len > (size_t)SSIZE_MAX ||
	    party->len > (uint64_t)INT64_MAX - (uint64_t)party->offset)
		return refuse(party, -EINVAL, "offset and length reach past the end of all files");
	return 0;
}

static int check_kind(const struct party *party, const struct stat *st)
{
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	if (S_ISDIR(st->st_mode))
		return refuse(party, -EISDIR,
			      "the descriptor is a directory's: gyre_fsync() flushes one");
	if (S_ISCHR(st->st_mode))
		return refuse(party, -EINVAL,
			      "the descriptor is a character device's, which is not flushed");
	return refuse(party, -ESPIPE,
		      "the descriptor is a pipe's, a socket's or the like: nothing of it is kept");
}

static int check_flags(const struct party *party, int flags)
{
	if (flags < 0)
		return refuse(party, flags, "the descriptor's flags cannot be read");
	if ((flags & O_PATH) || (flags & O_ACCMODE) == O_RDONLY)
		return refuse(party, -EBADF, "the descriptor is not open for writing");
	if (flags & O_APPEND)
		return refuse(party, -EINVAL,
			      "the descriptor is open with O_APPEND, and would write somewhere "
			      "else than at the offset");
	return 0;
}

/* The kernel would raise SIGXFSZ, however long the file is, and after a part was written. */
static int check_limit(const struct party *party, const struct stat *st)
{
	uint64_t end = (uint64_t)party->offset + party->len;

	if (!S_ISREG(st->st_mode) || end <= gyre__sys->file_limit())
		return 0;
	return refuse(party, -EFBIG, "the write would end past RLIMIT_FSIZE");
}

static ssize_t write_inside(struct party *party)
{
	struct gyre__home *home = gyre__thread_home(party->self, party->rt);
	struct stat st;
	int rc, flags;

	gyre__count(&home->calls, 1);
	rc = gyre__sys->fstat(party->fd, &st);
	if (rc < 0)
		return refuse(party, rc, "the descriptor is not open");
	flags = gyre__sys->fd_flags(party->fd);
	rc = check_range(party);
	if (rc == 0)
		rc = check_kind(party, &st);
	if (rc == 0)
		rc = check_flags(party, flags);
	if (rc == 0)
		rc = check_limit(party, &st);
	if (rc < 0)
		return rc;
	party->res = gyre__failed_look(&party->rt->durable->failed, party->fd);
	if (party->res < 0) {
		party->found_failed = true;
		return report_flush(party, GYRE_EFFECT_NONE);
	}
	if (party->len == 0) {
		gyre__thread_succeed(party->self);
		return 0;
	}
	name_file(party, &st);
	party->writes_alone = flags & O_DSYNC;
	return write_checked(party, flags);
}

ssize_t gyre_write_durable(struct gyre *rt, int fd, const void *buf, size_t len, off_t offset)
{
	struct party party = { .function = __func__, .fd = fd, .buf = buf, .len = len,
			       .offset = offset };
	enum gyre_status status;
	ssize_t res;

	if (gyre__must_go_elsewhere())
		return gyre__write_durable_elsewhere(rt, fd, buf, len, offset);
	status = gyre__runtime_enter(__func__, &rt, &party.self);
	if (gyre__unlikely(status != GYRE_OK))
		return gyre_status_errno(status);
	party.rt = rt;
	res = write_inside(&party);
	gyre__thread_leave(party.self);
	return res;
}

/*
 * Under the lock. A failure that a ring has noted is to reach those who have
 * written before and not flushed yet, although the file is forgotten now.
 */
static int doom_before_reset(struct gyre__durable *durable, int fd)
{
	int error = gyre__failed_look(&durable->failed, fd), rc;
	struct party file, *party;
	struct stat st;

	if (error == 0)
		return 0;
	rc = gyre__sys->fstat(fd, &st);
	if (rc < 0)
		return rc;
	name_file(&file, &st);
	for (party = durable->inside[lane_number(&file)]; party; party = party->inside_next)
		if (!party->settled && !party->doomed && same_file(party, &file))
			party->doomed = error;
	return 0;
}

int gyre_durable_reset(struct gyre *rt, int fd)
{
	struct gyre__thread *self;
	enum gyre_status status;
	int rc;

	if (gyre__must_go_elsewhere())
		return gyre__durable_reset_elsewhere(rt, fd);
	status = gyre__runtime_enter(__func__, &rt, &self);
	if (status != GYRE_OK)
		return gyre_status_errno(status);
	lock(rt->durable);
	rc = doom_before_reset(rt->durable, fd);
	if (rc == 0)
		rc = gyre__failed_forget(&rt->durable->failed, fd);
	unlock(rt->durable);
	gyre__thread_leave(self);
	if (rc == -ENOSPC)
		gyre__remark(__func__, GYRE_EFFECT_NONE,
			     "flushes of more than %d files have failed, and all files count as "
			     "failed: open another runtime",
			     GYRE__FAILED_MAX);
	else if (rc < 0)
		gyre__remark(__func__, GYRE_EFFECT_NONE, "the descriptor %d: %s", fd,
			     strerror(-rc));
	else
		gyre__thread_succeed(self);
	return rc;
}

/* ------------------------------------------------------ closing it under them -- */

static bool anybody_uses(struct gyre__durable *durable, int fd, uint64_t arrival)
{
	const struct party *party;
	bool found = false;
	unsigned i;

	lock(durable);
	for (i = 0; i < sizeof(durable->inside) / sizeof(durable->inside[0]); i++)
		for (party = durable->inside[i]; party; party = party->inside_next)
			found |= party->fd == fd && party->arrival <= arrival;
	unlock(durable);
	return found;
}

void gyre__durable_let_finish(struct gyre__durable *durable, int fd)
{
	uint64_t arrival, pause_ns = 20 * GYRE__NS_PER_US;

	lock(durable);
	arrival = durable->arrivals;
	unlock(durable);
	while (anybody_uses(durable, fd, arrival)) {
		gyre__sys->sleep_ns(pause_ns);
		if (pause_ns < GYRE__NS_PER_MS)
			pause_ns *= 2;
	}
}

/* -------------------------------------------------------- of a runtime -- */

enum gyre_status gyre__durable_open(struct gyre__durable **ret)
{
	struct gyre__durable *durable = gyre__zalloc(sizeof(*durable));

	if (!durable)
		return gyre__fail("gyre_open", GYRE_NO_MEMORY, "out of memory");
	gyre__sys->mutex_init(&durable->lock);
	gyre__failed_init(&durable->failed);
	*ret = durable;
	return GYRE_OK;
}

void gyre__durable_close(struct gyre__durable *durable)
{
	if (!durable)
		return;
	gyre__failed_done(&durable->failed);
	gyre__sys->mutex_done(&durable->lock);
	gyre__free(durable);
}

struct gyre__failed *gyre__durable_failed(struct gyre__durable *durable)
{
	return &durable->failed;
}

void gyre__durable_stats(struct gyre__durable *durable, struct gyre_stats *ret)
{
	lock(durable);
	ret->durable_writes = durable->writes;
	ret->durable_flushes = durable->flushes;
	ret->durable_shared = durable->shared;
	ret->durable_failed = durable->flushes_failed;
	ret->durable_by_dsync = durable->by_method[GYRE__METHOD_HERE];
	ret->durable_by_ring = durable->by_method[GYRE__METHOD_RING];
	ret->durable_by_group = durable->by_method[GYRE__METHOD_GROUP] +
				durable->by_method[GYRE__METHOD_JOIN];
	unlock(durable);
	ret->durable_failed_files = gyre__load(&durable->failed.any, relaxed);
}

static void dump_lesson(struct gyre__text *text, const struct gyre__lesson *lesson, bool direct,
			unsigned class)
{
	enum gyre__method method;

	gyre__text_add(text, "  %s, %s: now %s\n", direct ? "O_DIRECT" : "cached",
		       gyre__method_class_name(class), gyre__method_name(lesson->method));
	for (method = 0; method < GYRE__METHODS; method++)
		if (lesson->rounds[method])
			gyre__text_add(text, "    %s: %" PRIu64 ".%03" PRIu64 " us a write, "
				       "%" PRIu64 " us of CPU\n", gyre__method_name(method),
				       lesson->cost_ns[method] / GYRE__NS_PER_US,
				       lesson->cost_ns[method] % GYRE__NS_PER_US,
				       lesson->cpu_ns[method] / GYRE__NS_PER_US);
}

static void dump_device(struct gyre__text *text, const struct gyre__device *device)
{
	unsigned i;

	gyre__text_add(text, "device %u:%u: %" PRIu32 " durable writes under way\n",
		       major(device->device), minor(device->device), device->inside);
	for (i = 0; i < 2 * GYRE__METHOD_CLASSES; i++) {
		unsigned class = i % GYRE__METHOD_CLASSES;
		bool direct = i / GYRE__METHOD_CLASSES;

		if (device->lessons[direct][class].phase)
			dump_lesson(text, &device->lessons[direct][class], direct, class);
	}
}

static void dump_failed(struct gyre__text *text, struct gyre__failed *failed)
{
	uint32_t i;

	gyre__sys->mutex_lock(&failed->lock);
	for (i = 0; i < failed->used; i++) {
		const struct gyre__failed_row *row = &failed->rows[i];

		gyre__text_add(text, "inode %" PRIu64 " of device %u:%u: a flush has failed: %s\n",
			       row->inode.number, major(row->inode.device),
			       minor(row->inode.device), strerror(-row->error));
	}
	if (failed->full)
		gyre__text_add(text,
			       "every file counts as failed: more than %d have, or one is "
			       "unknown\n",
			       GYRE__FAILED_MAX);
	gyre__sys->mutex_unlock(&failed->lock);
}

void gyre__durable_dump(struct gyre__durable *durable, struct gyre__text *text)
{
	unsigned i;

	lock(durable);
	for (i = 0; i < GYRE__METHOD_DEVICES; i++)
		if (durable->methods.devices[i].used)
			dump_device(text, &durable->methods.devices[i]);
	unlock(durable);
	dump_failed(text, &durable->failed);
}
