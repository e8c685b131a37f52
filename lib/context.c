/* SPDX-License-Identifier: MIT */
/*
 * Copy on write, twice: contexts share their pairs, as owners share a context.
 * So a value that gyre_context_get() has given out stays where it is when
 * another name is set, though the context around it may have become another.
 *
 * A context with one owner is changed where it is: nobody else can come to own
 * it but through that owner. Both kinds of count work in the same way.
 */
#include "context.h"

#include <gyre.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "ring/atomic.h"
#include "ring/sys.h"
#include "thread.h"

/* Never changed once it is made. */
struct pair {
	_Atomic unsigned owners;	/* contexts that have it */
	size_t bytes;			/* of name and value, without what ends them */
	const char *value;
	char name[];
};

struct gyre__context {
	_Atomic unsigned owners;
	unsigned count;
	size_t bytes;
	struct pair *pairs[GYRE__CONTEXT_PAIRS_MAX];	/* as they came */
};

/* Where the context of who calls is kept. NULL: in a prep closure, which is nobody's. */
static struct gyre__context **slot(struct gyre__thread *self)
{
	return gyre__thread_is_in_prep(self) ? NULL : &self->context;
}

/* For who only looks: a thread or task without a record has no context. */
static struct gyre__context *current(void)
{
	struct gyre__thread *self = gyre__thread_look();
	struct gyre__context **at = self ? slot(self) : NULL;

	return at ? *at : NULL;
}

/* ---------------------------------------------------------------- owners -- */

static void own(_Atomic unsigned *owners)
{
	/* Relaxed: who owns it passes it on by ways that have an order of their own. */
	gyre__fetch_add(owners, 1, relaxed);
}

/* True: that was the last one, and all that the others did with it is over. */
static bool disown(_Atomic unsigned *owners)
{
	/* Release pairs with acquire: of who owned it before, with who frees or changes it. */
	return gyre__fetch_sub(owners, 1, acq_rel) == 1;
}

static struct pair *pair_share(struct pair *pair)
{
	own(&pair->owners);
	return pair;
}

static void pair_drop(struct pair *pair)
{
	if (disown(&pair->owners))
		gyre__free(pair);
}

static struct pair *pair_new(const char *name, size_t name_len, const char *value, size_t value_len)
{
	struct pair *pair = gyre__zalloc(sizeof(*pair) + name_len + value_len + 2);
	char *copy;

	if (!pair)
		return NULL;
	gyre__store(&pair->owners, 1, relaxed);	/* nobody else's yet */
	pair->bytes = name_len + value_len;
	memcpy(pair->name, name, name_len);
	copy = pair->name + name_len + 1;
	memcpy(copy, value, value_len);
	pair->value = copy;
	return pair;
}

struct gyre__context *gyre__context_share(struct gyre__context *context)
{
	if (context)
		own(&context->owners);
	return context;
}

void gyre__context_drop(struct gyre__context *context)
{
	unsigned i;

	if (!context || !disown(&context->owners))
		return;
	for (i = 0; i < context->count; i++)
		pair_drop(context->pairs[i]);
	gyre__free(context);
}

static struct gyre__context *context_copy(const struct gyre__context *from)
{
	struct gyre__context *context = gyre__zalloc(sizeof(*context));

	if (!context)
		return NULL;
	gyre__store(&context->owners, 1, relaxed);	/* nobody else's yet */
	if (!from)
		return context;
	for (; context->count < from->count; context->count++)
		context->pairs[context->count] = pair_share(from->pairs[context->count]);
	context->bytes = from->bytes;
	return context;
}

/* The slot's context, made the caller's own: empty, a copy, or as it is. NULL: no memory. */
static struct gyre__context *context_own(struct gyre__context **at)
{
	struct gyre__context *before = *at, *context;

	/* Acquire: what other owners read, they have read. Pairs with the release in disown(). */
	if (before && gyre__load(&before->owners, acquire) == 1)
		return before;
	context = context_copy(before);
	if (!context)
		return NULL;
	*at = context;
	gyre__context_drop(before);
	return context;
}

/* -------------------------------------------------------------- changes -- */

/* The pair's place; count where there is none. */
static unsigned find(const struct gyre__context *context, const char *name)
{
	unsigned i = 0;

	while (i < context->count && strcmp(context->pairs[i]->name, name) != 0)
		i++;
	return i;
}

static enum gyre_status refuse_memory(void)
{
	return gyre__fail("gyre_context_set", GYRE_NO_MEMORY, "out of memory");
}

static enum gyre_status add_pair(struct gyre__context **at, struct pair *pair)
{
	unsigned i = *at ? find(*at, pair->name) : 0, count = *at ? (*at)->count : 0;
	size_t bytes = (*at ? (*at)->bytes : 0) - (i < count ? (*at)->pairs[i]->bytes : 0);
	struct gyre__context *context;

	if (i == GYRE__CONTEXT_PAIRS_MAX)
		return gyre__fail("gyre_context_set", GYRE_NO_MEMORY,
				  "a context has %u names at most: remove one, by a value of NULL",
				  GYRE__CONTEXT_PAIRS_MAX);
	if (bytes + pair->bytes > GYRE__CONTEXT_BYTES_MAX)
		return gyre__fail("gyre_context_set", GYRE_NO_MEMORY,
				  "a context has %u bytes of names and values at most: keep what "
				  "is large elsewhere, and its name here",
				  GYRE__CONTEXT_BYTES_MAX);
	context = context_own(at);
	if (!context)
		return refuse_memory();
	if (i == count)
		context->count++;
	else
		pair_drop(context->pairs[i]);
	context->pairs[i] = pair_share(pair);
	context->bytes = bytes + pair->bytes;
	return GYRE_OK;
}

static enum gyre_status remove_pair(struct gyre__context **at, const char *name)
{
	struct gyre__context *context = *at;
	unsigned i = context ? find(context, name) : 0;

	if (!context || i == context->count)
		return GYRE_OK;
	if (context->count == 1) {
		*at = NULL;
		gyre__context_drop(context);
		return GYRE_OK;
	}
	context = context_own(at);
	if (!context)
		return refuse_memory();
	context->bytes -= context->pairs[i]->bytes;
	pair_drop(context->pairs[i]);
	context->count--;
	for (; i < context->count; i++)
		context->pairs[i] = context->pairs[i + 1];
	return GYRE_OK;
}

/* The new pair is there before the old one goes: name and value may lie in that. */
static enum gyre_status set_value(struct gyre__context **at, const char *name, size_t name_len,
				  const char *value)
{
	size_t value_len = strnlen(value, GYRE__CONTEXT_VALUE_MAX + 1);
	enum gyre_status status;
	struct pair *pair;

	if (value_len > GYRE__CONTEXT_VALUE_MAX)
		return gyre__fail("gyre_context_set", GYRE_INVALID,
				  "the value of %s is longer than %u bytes",
				  name, GYRE__CONTEXT_VALUE_MAX);
	pair = pair_new(name, name_len, value, value_len);
	if (!pair)
		return refuse_memory();
	status = add_pair(at, pair);
	pair_drop(pair);
	return status;
}

enum gyre_status gyre_context_set(const char *name, const char *value)
{
	struct gyre__thread *self = gyre__thread_self();
	struct gyre__context **at = self ? slot(self) : NULL;
	size_t name_len = name ? strnlen(name, GYRE__CONTEXT_NAME_MAX + 1) : 0;
	enum gyre_status status;

	if (!self)
		return GYRE_NO_MEMORY;
	if (!at)
		return gyre__fail("gyre_context_set", GYRE_NO_REACTOR,
				  "a prep closure runs for no task and no thread: set it before "
				  "the call");
	if (name_len == 0)
		return gyre__fail("gyre_context_set", GYRE_INVALID, "name is %s",
				  name ? "empty" : "NULL");
	if (name_len > GYRE__CONTEXT_NAME_MAX)
		return gyre__fail("gyre_context_set", GYRE_INVALID, "name is longer than %u bytes",
				  GYRE__CONTEXT_NAME_MAX);
	status = value ? set_value(at, name, name_len, value) : remove_pair(at, name);
	if (status == GYRE_OK)
		gyre__thread_succeed(self);
	return status;
}

const char *gyre_context_get(const char *name)
{
	const struct gyre__context *context = current();
	unsigned i;

	if (!context || !name)
		return NULL;
	i = find(context, name);
	return i < context->count ? context->pairs[i]->value : NULL;
}

void gyre_context_clear(void)
{
	struct gyre__thread *self = gyre__thread_look();
	struct gyre__context **at = self ? slot(self) : NULL, *context;

	if (!at)
		return;
	context = *at;
	*at = NULL;
	gyre__context_drop(context);
}

void gyre__context_drop_held(struct gyre__thread *self)
{
	struct gyre__context_held *held;

	while ((held = self->context_held)) {
		self->context_held = held->outer;
		gyre__context_drop(held->context);
	}
}

/*
 * Owned meanwhile: what fn changes, it changes in a copy. And noted, for a task or an offloaded
 * function that ends in there.
 */
void gyre_context_each(void (*fn)(const char *name, const char *value, void *arg), void *arg)
{
	struct gyre__context_held held = { .context = fn ? current() : NULL };
	struct gyre__thread *self = gyre__thread_look();
	unsigned i;

	if (!held.context)
		return;
	gyre__context_share(held.context);
	held.outer = self->context_held;
	self->context_held = &held;
	for (i = 0; i < held.context->count; i++)
		fn(held.context->pairs[i]->name, held.context->pairs[i]->value, arg);
	self->context_held = held.outer;
	gyre__context_drop(held.context);
}
