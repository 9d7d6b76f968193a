/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_DIRECTORY_H
#define SHMB_DAEMON_DIRECTORY_H

/* The servers of a call channel, as its segment tells them to callers. */

#include "daemon/model.h"

/* A member of this slot came or goes; before the epoch moves. Of other channels nothing is told. */
void directory_update(struct channel *channel, uint32_t role, uint32_t slot);

/* All members of an adopted channel are known: those who have not come along are taken out. */
void directory_settle(struct channel *channel);

/* How many there are, as the channel's segment counts them: of a call channel callers and servers. */
void directory_count(const struct channel *channel, uint32_t *ret_n_publishers,
		     uint32_t *ret_n_subscribers);

#endif
