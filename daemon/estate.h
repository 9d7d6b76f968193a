/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_ESTATE_H
#define SHMB_DAEMON_ESTATE_H

/*
 * What is left on a queue when a publisher has gone, and a worker that has not done all it was given.
 *
 * While one of the two is there it sees to the rest: see keep.h. When both are gone nobody else can, so
 * the broker does: it reads the lane and the marks, which nobody writes any more, and copies what is not
 * done into a lane of its own, addressed to the workers that are there. To them that lane is as any
 * other of a publisher that has gone. If one of them goes before all is done, the broker copies again.
 *
 * Without a worker the lane and the marks wait for one, as long as there is the channel.
 *
 * What is left of many pairs goes into one copy, in the order of the ids of the pairs, as much as a lane
 * can hold. The copy is there, for a successor as for the workers, from the moment at which its entry
 * becomes active. The entry says up to which pair it holds what was left; a successor ends these, if both
 * of them had gone before the copy came.
 */

#include "daemon/model.h"

/* Sees to all that members have left who have gone since. Called when nobody holds on to any of them. */
void estate_settle(struct broker *broker);

/* After a restart, before member_settle_kept(): ends what has been copied already. */
void estate_adopt(struct channel *channel);

#endif
