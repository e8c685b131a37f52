/* SPDX-License-Identifier: MIT */
#include "reply.h"

#include "ring.h"
#include "sys.h"

#define ASLEEP	UINT64_C(1)

/*
 * Owner thread of ring. Whoever spins sees the word change and goes; and whoever
 * has set ASLEEP looks from time to time, and may go just as well. So the seat is
 * read before: the record may be gone by the time that its bell is rung.
 */
static void reply_give(struct gyre__waiter *waiter, struct gyre__batch *batch,
		       struct gyre__ring *ring)
{
	struct gyre__reply *reply = gyre__container_of(waiter, struct gyre__reply, waiter);
	unsigned seat = reply->seat;

	reply->odd = batch && batch->odd;
	/* Release: results and verdicts. Pairs with the acquire in reply_is_there(). */
	if (gyre__fetch_add(&reply->word, 2, acq_rel) & ASLEEP) {
		if (ring)
			gyre__ring_wake_later(ring, seat);
		else
			gyre__bell_ring(seat);
	} else if (ring)
		gyre__count(&ring->counters.replies_spun, 1);
}

void gyre__reply_init(struct gyre__reply *reply, unsigned number)
{
	reply->seat = gyre__bell_seat(number);
	reply->waiter.done = reply_give;
	reply->waiter.line = reply;
}

static bool reply_is_there(struct gyre__reply *reply)
{
	return gyre__load(&reply->word, acquire) >> 1 == reply->expected;
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

/*
 * Goes to sleep unless the reply has come meanwhile. Whoever gives it finds ASLEEP
 * and rings the bell, once, after this look at it: what the look has seen is old
 * by then, however late the wait begins. False: deadline_ns has come, and no reply.
 *
 * ASLEEP is taken back by compare-and-swap where the time is over: if that fails,
 * the reply has come in the last moment. Its bell may ring for nobody, which is no harm.
 */
static bool reply_sleep_until(struct gyre__reply *reply, uint64_t deadline_ns)
{
	const uint64_t awake = (reply->expected - 1) << 1;
	uint64_t word = awake;
	uint32_t seen = gyre__bell_look(reply->seat);

	/* Release: after the look. Pairs with the addition of who gives, and then rings. */
	if (!gyre__cas(&reply->word, &word, awake | ASLEEP, acq_rel)) {
		GYRE_ASSERT(reply_is_there(reply));
		return true;
	}
	while (!reply_is_there(reply)) {
		word = awake | ASLEEP;
		if (!gyre__bell_wait(reply->seat, seen, deadline_ns) &&
		    gyre__cas(&reply->word, &word, awake, acq_rel))
			return false;
		seen = gyre__bell_look(reply->seat);
	}
	gyre__store(&reply->word, reply->expected << 1, relaxed);
	return true;
}

/* What a sleep teaches: of wake-ups to all, of spinning to this caller. */
static void reply_sleep_and_learn(struct gyre__reply *reply, struct gyre__spin *spin,
				  struct gyre__pace *pace)
{
	uint64_t fell_asleep_ns = gyre__sys->now_ns(), now_ns, told_ns;

	reply_sleep_until(reply, GYRE__NEVER);
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

void gyre__reply_give_in(struct gyre__reply *reply, struct gyre__bell_round *round)
{
	unsigned seat = reply->seat;

	/* Release: the answer. Pairs with the acquire in reply_is_there(). */
	if (gyre__fetch_add(&reply->word, 2, acq_rel) & ASLEEP)
		gyre__bell_add(round, seat);
}

void gyre__reply_give(struct gyre__reply *reply)
{
	struct gyre__bell_round round = { 0 };

	gyre__reply_give_in(reply, &round);
	if (round.any)
		gyre__bell_ring_all(&round);
}

void gyre__reply_await(struct gyre__reply *reply)
{
	gyre__reply_await_until(reply, GYRE__NEVER);
}

bool gyre__reply_await_until(struct gyre__reply *reply, uint64_t deadline_ns)
{
	return reply_is_there(reply) || reply_sleep_until(reply, deadline_ns);
}
