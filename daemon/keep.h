/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_KEEP_H
#define SHMB_DAEMON_KEEP_H

/*
 * Lanes of publishers that have gone, kept for those who still need them.
 *
 * A subscriber that has mapped a lane reads it to its end whatever becomes of its publisher. One that
 * has not, because it is busy, stopped, without fds, or not back yet after a restart of the broker,
 * would never hear of a publisher that comes and ends meanwhile. So such a publisher stays, without a
 * client and without a slot: a kept lane. It stays for its pairs, which are those that still need it:
 * each of their subscribers is shown the lane as that of a publisher that has gone, reads it to its
 * end, and says so, which ends the pair. A subscriber that goes ends its pairs as well. The last of
 * them takes the lane along.
 *
 * On a queue a worker marks what it has done for a publisher that has gone where it did before, in a
 * slot of its cursor that stays that publisher's, and is done with a lane when it is done with all records
 * for it. Likewise a worker that goes stays, its marks kept for the publisher, which looks at them, gives
 * to others what is left, and says so. If both go, see estate.h.
 *
 * On a retained channel with a history it stays for whoever comes later, too, until there is so much
 * of those who have gone after it that it is history no more, or its user has need of the memory.
 *
 * Nothing of this is known to the broker alone: the registry has the publisher, and the pairs.
 */

#include "daemon/model.h"

/**
 * keep_owed() - is there something for the subscriber in the lane, now that one of the two goes?
 * @pair:   of an active publisher and an active subscriber
 * @leaver: role - 1 of who goes
 *
 * Return: false if the subscriber has the lane, or was promised nothing, or if the lane is empty for
 *	   it or cannot be given to it any more. On a queue: false if all behind which it stands is
 *	   done; but if the publisher lives, and has heard of the two, it is the publisher's to say. In
 *	   doubt it is owed.
 */
bool keep_owed(const struct pair *pair, unsigned leaver);

/**
 * keep_marks() - how far a worker is with the lane of a publisher
 * @pair:     of a queue
 * @ret_at:   stores where it stands: what lies before is done, or not for it
 * @ret_work: stores its marks of what lies behind
 *
 * Return: 1; 0: it was never given anything; -EMFILE, another negative errno value.
 */
int keep_marks(const struct pair *pair, struct shmb_lane_mark *ret_at,
	       struct shmb_cursor_work *ret_work);

/* Is it a lane that its readers may have, although the channel may be sealed since? */
bool keep_fits(const struct member *publisher, const struct member *subscriber);

/* How many records of a publisher that goes are history of its channel? */
uint32_t keep_n_records(const struct member *publisher);

#endif
