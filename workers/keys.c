/* SPDX-License-Identifier: MIT */
#include "keys.h"

#include <string.h>

#include "job.h"
#include "ring/sys.h"
#include "task.h"

#define BUCKETS_FIRST	64

/* What is to be done about it once the lock is let go. */
struct after {
	struct gyre__task *ready;	/* has got room */
	struct gyre__keyed *gone;
	struct gyre__keys_side *send;	/* nudges to these, through send_next */
};

static struct gyre__keys *crowded;	/* under gyre__waits_lock() */

struct gyre__keys *gyre__keys_crowded(void)
{
	return crowded;
}

/* ---------------------------------------------------------------- table -- */

static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

static uint64_t hash_of(const char *key, size_t len)
{
	uint64_t hash = mix(0, len), word;

	for (; len >= sizeof(word); key += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, key, sizeof(word));
		hash = mix(hash, word);
	}
	word = 0;
	memcpy(&word, key, len);
	return mix(hash, word);
}

static struct gyre__keyed **bucket_of(const struct gyre__keys *pool, uint64_t hash)
{
	return &pool->table[hash & (pool->buckets - 1)];
}

/* Without memory to grow chains get longer, and that is all. */
static bool table_grow(struct gyre__keys *pool)
{
	uint32_t buckets = pool->buckets ? 2 * pool->buckets : BUCKETS_FIRST, i;
	struct gyre__keyed **old = pool->table, **table, *keyed;
	uint32_t old_buckets = pool->buckets;

	if (pool->keys < pool->buckets || pool->buckets > UINT32_MAX / 2)
		return true;
	table = gyre__zalloc(buckets * sizeof(table[0]));
	if (!table)
		return old;
	pool->table = table;
	pool->buckets = buckets;
	for (i = 0; i < old_buckets; i++)
		while ((keyed = old[i])) {
			old[i] = keyed->chain;
			keyed->chain = *bucket_of(pool, keyed->hash);
			*bucket_of(pool, keyed->hash) = keyed;
		}
	gyre__free(old);
	return true;
}

static void table_remove(struct gyre__keyed *keyed)
{
	struct gyre__keyed **at = bucket_of(keyed->pool, keyed->hash);

	if (!keyed->known)
		return;
	while (*at != keyed)
		at = &(*at)->chain;
	*at = keyed->chain;
	keyed->known = false;
	keyed->pool->keys--;
}

/* ----------------------------------------------------------------- idle -- */

static void idle_push(struct gyre__keyed *keyed)
{
	struct gyre__keys *pool = keyed->pool;

	keyed->idle = true;
	keyed->newer = NULL;
	keyed->older = pool->newest;
	if (pool->newest)
		pool->newest->newer = keyed;
	else
		pool->oldest = keyed;
	pool->newest = keyed;
}

static void idle_remove(struct gyre__keyed *keyed)
{
	struct gyre__keys *pool = keyed->pool;

	if (!keyed->idle)
		return;
	if (keyed->older)
		keyed->older->newer = keyed->newer;
	else
		pool->oldest = keyed->newer;
	if (keyed->newer)
		keyed->newer->older = keyed->older;
	else
		pool->newest = keyed->older;
	keyed->idle = false;
}

/* Nothing is made there any more, and what is there is destroyed as it ends. */
static bool is_gone(const struct gyre__keys_side *side)
{
	return side->ended || gyre__load(&side->tasks->ring->dead, relaxed);
}

static void unknow(struct gyre__keyed *keyed)
{
	table_remove(keyed);
	idle_remove(keyed);
}

static struct gyre__keyed *find(struct gyre__keys *pool, uint64_t hash, const char *key,
				size_t len)
{
	struct gyre__keyed *keyed = pool->table ? *bucket_of(pool, hash) : NULL;

	while (keyed && (keyed->hash != hash || keyed->len != len ||
			 memcmp(keyed->key, key, len) != 0))
		keyed = keyed->chain;
	if (!keyed || !is_gone(keyed->side))
		return keyed;
	unknow(keyed);
	return NULL;
}

/* ----------------------------------------------------------------- room -- */

/* Under the lock; written with relaxed stores, for gyre__keys_is_wanted(). */
static uint32_t wanting(struct gyre__keys *pool)
{
	return gyre__load(&pool->wanting, relaxed);
}

/* Both locks. */
static void wants_push(struct gyre__keyed *keyed)
{
	struct gyre__keys *pool = keyed->pool;

	if (!pool->wants_first) {
		pool->crowded_next = crowded;
		crowded = pool;
	}
	keyed->wants = true;
	keyed->wants_next = NULL;
	keyed->wants_prev = pool->wants_last;
	if (pool->wants_last)
		pool->wants_last->wants_next = keyed;
	else
		pool->wants_first = keyed;
	pool->wants_last = keyed;
	gyre__store(&pool->wanting, wanting(pool) + 1, relaxed);
}

/* Both locks. */
static void wants_remove(struct gyre__keyed *keyed)
{
	struct gyre__keys *pool = keyed->pool, **at = &crowded;

	if (keyed->wants_prev)
		keyed->wants_prev->wants_next = keyed->wants_next;
	else
		pool->wants_first = keyed->wants_next;
	if (keyed->wants_next)
		keyed->wants_next->wants_prev = keyed->wants_prev;
	else
		pool->wants_last = keyed->wants_prev;
	keyed->wants = false;
	gyre__store(&pool->wanting, wanting(pool) - 1, relaxed);
	if (pool->wants_first)
		return;
	while (*at != pool)
		at = &(*at)->crowded_next;
	*at = pool->crowded_next;
}

/* keyed has room, or had: the next who wants some gets it. queue: and is to come again. */
static void pass_room(struct gyre__keyed *keyed, bool queue, struct gyre__task **ret_ready)
{
	struct gyre__keys *pool = keyed->pool;
	struct gyre__keyed *next;

	gyre__waits_lock();
	keyed->has_room = false;
	if (queue)
		wants_push(keyed);
	next = pool->wants_first;
	if (next) {
		wants_remove(next);
		next->has_room = true;
		*ret_ready = next->waiter;
		next->waiter = NULL;
	} else {
		pool->rooms--;
	}
	gyre__waits_unlock();
}

static void take_room_or_want(struct gyre__keyed *keyed)
{
	struct gyre__keys *pool = keyed->pool;

	gyre__waits_lock();
	if (pool->rooms < pool->size) {
		pool->rooms++;
		keyed->has_room = true;
	} else {
		wants_push(keyed);
	}
	gyre__waits_unlock();
}

static void nudge(struct gyre__keyed *keyed, struct after *after)
{
	struct gyre__keys_side *side = keyed->side;

	keyed->users++;
	keyed->nudge_next = NULL;
	if (side->nudge_last)
		side->nudge_last->nudge_next = keyed;
	else
		side->nudge_first = keyed;
	side->nudge_last = keyed;
	if (side->nudged)
		return;
	side->nudged = true;
	side->send_next = after->send;
	after->send = side;
}

/*
 * As many idle states are told to go as room is wanted, the least recently used
 * first. By who has changed one of the numbers.
 */
static void balance(struct gyre__keys *pool, struct after *after)
{
	struct gyre__keyed *oldest;

	while (wanting(pool) > pool->promised && (oldest = pool->oldest)) {
		idle_remove(oldest);
		if (is_gone(oldest->side)) {	/* it goes anyway */
			table_remove(oldest);
			continue;
		}
		pool->promised++;
		nudge(oldest, after);
	}
}

static struct gyre__keyed *take_nudges(struct gyre__keys_side *side)
{
	struct gyre__keyed *first;

	gyre__sys->mutex_lock(&side->pool->lock);
	first = side->nudge_first;
	side->nudge_first = side->nudge_last = NULL;
	side->nudged = false;
	gyre__sys->mutex_unlock(&side->pool->lock);
	return first;
}

/* Its worker has ended since, and with it what was to go. */
static void nudge_in_vain(struct gyre__keys_side *side)
{
	struct gyre__keyed *keyed, *next;

	for (keyed = take_nudges(side); keyed; keyed = next) {
		next = keyed->nudge_next;
		gyre__keys_take_back(keyed);
		gyre__keys_leave(keyed, false, NULL);
	}
}

static bool control_nudge(struct gyre__ring *ring, struct gyre__batch *batch)
{
	struct gyre__keys_side *side = batch->control_arg;
	struct gyre__keyed *keyed, *next;

	(void)ring;
	for (keyed = take_nudges(side); keyed; keyed = next) {
		next = keyed->nudge_next;
		gyre__state_evict(side->tasks, keyed);
	}
	return false;
}

static void unlock_and(struct gyre__keys *pool, const struct after *after,
		       struct gyre__ring *ring)
{
	struct gyre__keys_side *side, *next;

	gyre__sys->mutex_unlock(&pool->lock);
	if (after->ready)
		gyre__task_wake(after->ready, ring);
	gyre__free(after->gone);
	for (side = after->send; side; side = next) {
		next = side->send_next;
		if (!gyre__ring_control(side->tasks->ring, &side->nudge))
			nudge_in_vain(side);
	}
}

/* ------------------------------------------------------------- entering -- */

static struct gyre__keyed *keyed_new(struct gyre__keys *pool, uint64_t hash, const char *key,
				     size_t len)
{
	struct gyre__keyed *keyed = gyre__zalloc(sizeof(*keyed) + len + 1);

	if (!keyed)
		return NULL;
	keyed->pool = pool;
	keyed->hash = hash;
	keyed->len = len;
	memcpy(keyed->key, key, len);
	return keyed;
}

/* The one with the fewest keys; NULL: all are gone. */
static struct gyre__keys_side *choose_side(struct gyre__keys *pool)
{
	struct gyre__keys_side *best = NULL;
	uint32_t i;

	pool->next_side = (pool->next_side + 1) % pool->workers;
	for (i = 0; i < pool->workers; i++) {
		struct gyre__keys_side *side;

		side = &pool->side[(pool->next_side + i) % pool->workers];
		if (!is_gone(side) && (!best || side->count < best->count))
			best = side;
	}
	return best;
}

/* Where a state has to go for it, on the same worker: nobody else need be woken for that. */
static struct gyre__keys_side *choose_full_side(struct gyre__keys *pool)
{
	const struct gyre__keyed *oldest = pool->oldest;

	if (pool->rooms < pool->size || !oldest || is_gone(oldest->side))
		return choose_side(pool);
	return oldest->side;
}

static void side_add(struct gyre__keys_side *side, struct gyre__keyed *keyed)
{
	keyed->side = side;
	keyed->prev = NULL;
	keyed->next = side->all;
	if (side->all)
		side->all->prev = keyed;
	side->all = keyed;
	side->count++;
}

static void side_remove(struct gyre__keyed *keyed)
{
	struct gyre__keys_side *side = keyed->side;

	if (keyed->prev)
		keyed->prev->next = keyed->next;
	else
		side->all = keyed->next;
	if (keyed->next)
		keyed->next->prev = keyed->prev;
	side->count--;
}

/* Or else they have ended. */
static bool all_are_dead(struct gyre__keys *pool)
{
	uint32_t i;

	for (i = 0; i < pool->workers; i++)
		if (!gyre__load(&pool->side[i].tasks->ring->dead, relaxed))
			return false;
	return true;
}

static enum gyre_status add(struct gyre__keys *pool, struct gyre__keyed *keyed,
			    struct gyre__tasks *only)
{
	struct gyre__keys_side *side = only ? only->pooled : choose_full_side(pool);

	if (!side)
		return all_are_dead(pool) ? GYRE_WORKER_DEAD : GYRE_CLOSED;
	if (!table_grow(pool))
		return GYRE_NO_MEMORY;
	side_add(side, keyed);
	keyed->chain = *bucket_of(pool, keyed->hash);
	*bucket_of(pool, keyed->hash) = keyed;
	keyed->known = true;
	pool->keys++;
	take_room_or_want(keyed);
	return GYRE_OK;
}

/* Its memory is got without the lock, so it is looked for again. */
static enum gyre_status add_new(struct gyre__keys *pool, struct gyre__tasks *only,
				struct gyre__keyed *fresh, struct gyre__keyed **ret,
				struct after *after)
{
	enum gyre_status status = GYRE_OK;

	*ret = find(pool, fresh->hash, fresh->key, fresh->len);
	if (!*ret) {
		status = add(pool, fresh, only);
		*ret = fresh;
		balance(pool, after);
	}
	if (*ret != fresh || status != GYRE_OK)
		after->gone = fresh;
	return status;
}

enum gyre_status gyre__keys_enter(struct gyre__keys *pool, const char *key,
				  struct gyre__tasks *only, struct gyre__keyed **ret)
{
	size_t len = strlen(key);
	uint64_t hash = hash_of(key, len);
	enum gyre_status status = GYRE_OK;
	struct after after = { NULL, NULL, NULL };
	struct gyre__keyed *keyed, *fresh;

	gyre__sys->mutex_lock(&pool->lock);
	keyed = find(pool, hash, key, len);
	if (!keyed) {
		gyre__sys->mutex_unlock(&pool->lock);
		fresh = keyed_new(pool, hash, key, len);
		if (!fresh)
			return GYRE_NO_MEMORY;
		gyre__sys->mutex_lock(&pool->lock);
		status = add_new(pool, only, fresh, &keyed, &after);
		gyre__store(&pool->in_use, 1, relaxed);	/* a figure */
	}
	if (status == GYRE_OK) {
		idle_remove(keyed);
		keyed->users++;
		*ret = keyed;
	}
	unlock_and(pool, &after, NULL);
	return status;
}

/* -------------------------------------------------------------- leaving -- */

static void end_promise(struct gyre__keyed *keyed)
{
	keyed->pool->promised -= keyed->promised;
	keyed->promised = false;
}

static void remove_for_good(struct gyre__keyed *keyed, struct after *after)
{
	table_remove(keyed);
	side_remove(keyed);
	if (keyed->has_room) {
		pass_room(keyed, false, &after->ready);
	} else {
		gyre__waits_lock();
		wants_remove(keyed);
		gyre__waits_unlock();
	}
	after->gone = keyed;
}

void gyre__keys_leave(struct gyre__keyed *keyed, bool gives, struct gyre__ring *ring)
{
	struct gyre__keys *pool = keyed->pool;
	struct after after = { NULL, NULL, NULL };

	gyre__sys->mutex_lock(&pool->lock);
	keyed->users--;
	if (gives) {
		end_promise(keyed);
		keyed->given = false;
		if (keyed->users)
			pass_room(keyed, true, &after.ready);
	}
	if (!keyed->users && !keyed->value)
		remove_for_good(keyed, &after);
	else if (!keyed->users && keyed->known)
		idle_push(keyed);
	balance(pool, &after);
	unlock_and(pool, &after, ring);
}

void gyre__keys_forget(struct gyre__keyed *keyed)
{
	gyre__sys->mutex_lock(&keyed->pool->lock);
	unknow(keyed);
	gyre__sys->mutex_unlock(&keyed->pool->lock);
}

/* ---------------------------------------------------------------- owner -- */

bool gyre__keys_asks_back(struct gyre__keyed *keyed, bool promised)
{
	struct gyre__keys *pool = keyed->pool;
	struct after after = { NULL, NULL, NULL };
	bool wanted;

	gyre__sys->mutex_lock(&pool->lock);
	pool->promised -= promised;
	wanted = keyed->has_room && wanting(pool) > pool->promised;
	if (!wanted || keyed->users == 1)
		keyed->turns = 0;
	keyed->given = wanted && (keyed->users == 1 || ++keyed->turns >= GYRE__KEYS_TURNS);
	if (keyed->given) {
		keyed->turns = 0;
		keyed->promised = true;
		pool->promised++;
	}
	balance(pool, &after);
	unlock_and(pool, &after, keyed->side->tasks->ring);
	return keyed->given;
}

void gyre__keys_giver_waits(struct gyre__keyed *keyed, struct gyre__ring *ring)
{
	struct after after = { NULL, NULL, NULL };

	gyre__sys->mutex_lock(&keyed->pool->lock);
	end_promise(keyed);
	balance(keyed->pool, &after);
	unlock_and(keyed->pool, &after, ring);
}

void gyre__keys_take_back(struct gyre__keyed *keyed)
{
	struct after after = { NULL, NULL, NULL };

	gyre__sys->mutex_lock(&keyed->pool->lock);
	keyed->pool->promised--;
	balance(keyed->pool, &after);
	unlock_and(keyed->pool, &after, NULL);
}

struct gyre__keyed *gyre__keys_end(struct gyre__keys_side *side)
{
	struct gyre__keyed *keyed;

	gyre__sys->mutex_lock(&side->pool->lock);
	side->ended = true;
	for (keyed = side->all; keyed && !keyed->value; keyed = keyed->next)
		;
	if (keyed) {
		unknow(keyed);
		keyed->users++;
	}
	gyre__sys->mutex_unlock(&side->pool->lock);
	return keyed;
}

/* ----------------------------------------------------------------- life -- */

struct gyre__keys *gyre__keys_open(uint32_t size, uint32_t workers)
{
	struct gyre__keys *pool = gyre__sys->alloc(sizeof(*pool) +
						   workers * sizeof(pool->side[0]),
						   _Alignof(struct gyre__keys));
	uint32_t i;

	if (!pool)
		return NULL;
	gyre__sys->mutex_init(&pool->lock);
	pool->size = size;
	pool->workers = workers;
	for (i = 0; i < workers; i++) {
		struct gyre__keys_side *side = &pool->side[i];

		side->pool = pool;
		side->nudge.flags = GYRE__BATCH_CONTROL | GYRE__BATCH_RETAINED;
		side->nudge.control = control_nudge;
		side->nudge.control_arg = side;
	}
	return pool;
}

struct gyre__keys_side *gyre__keys_side(struct gyre__keys *pool, unsigned worker,
					struct gyre__tasks *tasks)
{
	if (!pool)
		return NULL;
	pool->side[worker].tasks = tasks;
	return &pool->side[worker];
}

void gyre__keys_free(struct gyre__keys *pool)
{
	struct gyre__keyed *keyed;
	uint32_t i;

	if (!pool)
		return;
	for (i = 0; i < pool->workers; i++)
		while ((keyed = pool->side[i].all)) {
			pool->side[i].all = keyed->next;
			gyre__free(keyed);
		}
	gyre__free(pool->table);
	gyre__sys->mutex_done(&pool->lock);
	gyre__free(pool);
}
