/* SPDX-License-Identifier: MIT */
#include "reply.h"

#include <errno.h>
#include <poll.h>

#include "ring.h"
#include "sys.h"

#define ASLEEP	UINT64_C(1)
#define POLL_NS	(50 * GYRE__NS_PER_US)

/*
 * Owner thread of ring. Whoever spins sees the word change and goes; whoever
 * has set ASLEEP is in read(eventfd) until the ring's wake list is flushed,
 * which is why its descriptor is still good then and nothing else of it is.
 */
static void reply_give(struct gyre__waiter *waiter, struct gyre__batch *batch,
		       struct gyre__ring *ring)
{
	struct gyre__reply *reply = gyre__container_of(waiter, struct gyre__reply, waiter);
	int eventfd = reply->eventfd;

	reply->odd = batch && batch->odd;
	/* Release: results and verdicts. Pairs with the acquire in reply_is_there(). */
	if (gyre__fetch_add(&reply->word, 2, acq_rel) & ASLEEP) {
		if (ring)
			gyre__ring_wake_later(ring, eventfd);
		else
			gyre__ring_tell(eventfd);
	} else if (ring)
		gyre__count(&ring->counters.replies_spun, 1);
}

static bool reply_is_there(struct gyre__reply *reply)
{
	return gyre__load(&reply->word, acquire) >> 1 == reply->expected;
}

int gyre__reply_init(struct gyre__reply *reply)
{
	int fd = gyre__sys->eventfd();

	if (fd < 0)
		return fd;
	reply->eventfd = fd;
	reply->waiter.done = reply_give;
	reply->waiter.line = reply;
	return 0;
}

void gyre__reply_done(struct gyre__reply *reply)
{
	if (gyre__reply_is_made(reply))
		gyre__sys->close(reply->eventfd);
	reply->eventfd = -1;
}

static bool reply_spin(struct gyre__reply *reply, struct gyre__spin *spin,
		       const struct gyre__pace *pace, uint64_t budget_ns)
{
	struct gyre__spinning spinning;

	gyre__spin_start(spin, budget_ns, &spinning);
	do {
		if (!reply_is_there(reply))
			continue;
		gyre__spin_won(spin, &spinning);
		return true;
	} while (gyre__spin_once(&spinning, pace));
	gyre__spin_lost(spin, &spinning);
	return false;
}

static void reply_poll(struct gyre__reply *reply)
{
	while (!reply_is_there(reply))
		gyre__sys->sleep_ns(POLL_NS);
}

/*
 * The worker has found ASLEEP, or will: its one write of the eventfd is waited for and taken out.
 */
static void reply_take_wakeup(struct gyre__reply *reply)
{
	if (gyre__sys->eventfd_read(reply->eventfd) < 0) {
		reply_poll(reply);
		reply->eventfd = -1;
	}
	GYRE_ASSERT(reply_is_there(reply));
	gyre__store(&reply->word, reply->expected << 1, relaxed);
}

/*
 * Goes to sleep unless the reply has come meanwhile. The eventfd is written
 * once for each ASLEEP that the worker finds, so none is left over. A host that
 * closed our descriptor behind our back costs speed, not the reply.
 *
 * Where it cannot be read, the write may be yet to come: so the descriptor is
 * neither closed nor slept in again. The thread's next call makes another.
 */
static void reply_sleep(struct gyre__reply *reply)
{
	uint64_t word = (reply->expected - 1) << 1;

	if (!gyre__reply_is_made(reply)) {
		reply_poll(reply);
		return;
	}
	if (!gyre__cas(&reply->word, &word, word | ASLEEP, acq_rel))
		return;
	reply_take_wakeup(reply);
}

/* What a sleep teaches: of wake-ups to all, of spinning to this caller. */
static void reply_sleep_and_learn(struct gyre__reply *reply, struct gyre__spin *spin,
				  struct gyre__pace *pace)
{
	uint64_t fell_asleep_ns = gyre__sys->now_ns(), now_ns, told_ns;

	reply_sleep(reply);
	now_ns = gyre__sys->now_ns();
	told_ns = gyre__load(&pace->told_ns, relaxed);
	if (told_ns > fell_asleep_ns && told_ns <= now_ns)
		gyre__pace_note_wake(pace, now_ns - told_ns);
	gyre__spin_slept_ns(spin, pace, now_ns - fell_asleep_ns);
}

void gyre__reply_wait(struct gyre__reply *reply, struct gyre__spin *spin, struct gyre__pace *pace,
		      bool cold)
{
	uint64_t budget_ns = gyre__spin_budget(spin, pace, cold);

	if (gyre__likely(budget_ns && reply_spin(reply, spin, pace, budget_ns)))
		return;
	if (!reply_is_there(reply))
		reply_sleep_and_learn(reply, spin, pace);
}

void gyre__reply_give(struct gyre__reply *reply)
{
	int eventfd = reply->eventfd;

	/* Release: the answer. Pairs with the acquire in reply_is_there(). */
	if (gyre__fetch_add(&reply->word, 2, acq_rel) & ASLEEP)
		gyre__ring_tell(eventfd);
}

void gyre__reply_await(struct gyre__reply *reply)
{
	if (!reply_is_there(reply))
		reply_sleep(reply);
}

/* Until the eventfd is written or the time is over; what the kernel says of it decides nothing. */
static void reply_doze(struct gyre__reply *reply, uint64_t wait_ns)
{
	struct pollfd pollfd = { .fd = reply->eventfd, .events = POLLIN };

	if (!gyre__reply_is_made(reply) || gyre__sys->poll(&pollfd, 1, wait_ns) < 0)
		gyre__sys->sleep_ns(wait_ns < POLL_NS ? wait_ns : POLL_NS);
}

/*
 * ASLEEP is taken back by compare-and-swap: where that fails, the reply has come
 * and the eventfd is, or will be, written: reply_sleep() takes that out again.
 */
bool gyre__reply_await_until(struct gyre__reply *reply, uint64_t deadline_ns)
{
	uint64_t word = (reply->expected - 1) << 1, now_ns = gyre__sys->now_ns();
	bool asleep = gyre__reply_is_made(reply) &&
		      gyre__cas(&reply->word, &word, word | ASLEEP, acq_rel);

	while (!reply_is_there(reply) && now_ns < deadline_ns) {
		reply_doze(reply, deadline_ns - now_ns);
		now_ns = gyre__sys->now_ns();
	}
	word = (reply->expected - 1) << 1 | ASLEEP;
	if (asleep && !gyre__cas(&reply->word, &word, word & ~ASLEEP, acq_rel))
		reply_take_wakeup(reply);
	return reply_is_there(reply);
}
