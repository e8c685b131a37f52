/* SPDX-License-Identifier: MIT */
#include "inbox.h"

#include "batch.h"
#include "sys.h"

_Static_assert(_Alignof(struct gyre__batch) > GYRE__INBOX_BITS, "the bits need a batch's "
								"alignment");

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

bool gyre__inbox_sleep(struct gyre__inbox *inbox, bool seal_seen, bool idle)
{
	uintptr_t word = seal_seen ? GYRE__INBOX_SEALED : 0;
	uintptr_t sleeping = GYRE__INBOX_ASLEEP | (idle ? GYRE__INBOX_IDLE : 0);

	/* Anything else in the word is news, and a seal that was not seen is, too. */
	return gyre__cas(&inbox->word, &word, word | sleeping, acq_rel);
}

struct gyre__batch *gyre__inbox_end(struct gyre__inbox *inbox)
{
	return gyre__inbox_in_order(gyre__exchange(&inbox->word,
					     GYRE__INBOX_SEALED | GYRE__INBOX_ENDED, acq_rel));
}
