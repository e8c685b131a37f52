/* SPDX-License-Identifier: MIT */
#include "inbox.h"

#include "batch.h"
#include "sys.h"

_Static_assert(_Alignof(struct gyre__batch) > GYRE__INBOX_BITS, "the bits need a batch's alignment");

/*
 * Release: the batch's fields are seen by whom takes it (acquire in
 * inbox_take_as()). ASLEEP and IDLE are consumed: the next pusher need not wake.
 */
static enum gyre__pushed inbox_push_unless(struct gyre__inbox *inbox, struct gyre__batch *batch,
					   uintptr_t refusing)
{
	uintptr_t word = gyre__load(&inbox->word, relaxed);

	do {
		if (gyre__unlikely(word & refusing))
			return GYRE__PUSH_SEALED;
		batch->next = (struct gyre__batch *)(word & ~GYRE__INBOX_BITS);
	} while (!gyre__cas(&inbox->word, &word,
			    (uintptr_t)batch | (word & GYRE__INBOX_SEALED), acq_rel));
	return word & GYRE__INBOX_ASLEEP ? GYRE__PUSHED_ASLEEP : GYRE__PUSHED;
}

enum gyre__pushed gyre__inbox_push(struct gyre__inbox *inbox, struct gyre__batch *batch)
{
	return inbox_push_unless(inbox, batch, GYRE__INBOX_SEALED | GYRE__INBOX_ENDED);
}

enum gyre__pushed gyre__inbox_push_control(struct gyre__inbox *inbox, struct gyre__batch *batch)
{
	return inbox_push_unless(inbox, batch, GYRE__INBOX_ENDED);
}

bool gyre__inbox_seal(struct gyre__inbox *inbox)
{
	uintptr_t word = gyre__load(&inbox->word, relaxed);

	do {
		if (word & (GYRE__INBOX_SEALED | GYRE__INBOX_ENDED))
			return false;
	} while (!gyre__cas(&inbox->word, &word,
			    (word & ~(GYRE__INBOX_ASLEEP | GYRE__INBOX_IDLE)) | GYRE__INBOX_SEALED,
			    acq_rel));
	return word & GYRE__INBOX_ASLEEP;
}

/* The stack that word points at, turned round: oldest first. */
static struct gyre__batch *inbox_in_order(uintptr_t word)
{
	struct gyre__batch *batch = (struct gyre__batch *)(word & ~GYRE__INBOX_BITS);
	struct gyre__batch *oldest = NULL;

	while (batch) {
		struct gyre__batch *next = batch->next;

		batch->next = oldest;
		oldest = batch;
		batch = next;
	}
	return oldest;
}

struct gyre__batch *gyre__inbox_take(struct gyre__inbox *inbox, bool *ret_sealed)
{
	uintptr_t word = gyre__load(&inbox->word, relaxed);

	while (!gyre__cas(&inbox->word, &word, word & GYRE__INBOX_SEALED, acq_rel))
		;
	*ret_sealed = word & GYRE__INBOX_SEALED;
	return inbox_in_order(word);
}

bool gyre__inbox_sleep(struct gyre__inbox *inbox, bool idle)
{
	uintptr_t word = gyre__load(&inbox->word, relaxed);
	uintptr_t sleeping = GYRE__INBOX_ASLEEP | (idle ? GYRE__INBOX_IDLE : 0);

	return !(word & ~GYRE__INBOX_SEALED) &&
	       gyre__cas(&inbox->word, &word, word | sleeping, acq_rel);
}

struct gyre__batch *gyre__inbox_end(struct gyre__inbox *inbox)
{
	return inbox_in_order(gyre__exchange(&inbox->word,
					     GYRE__INBOX_SEALED | GYRE__INBOX_ENDED, acq_rel));
}
