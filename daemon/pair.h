/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_PAIR_H
#define SHMB_DAEMON_PAIR_H

#include "daemon/model.h"

/**
 * pair_new() - let a publisher and a subscriber share memory
 * @publisher:	of the channel
 * @subscriber: of the same channel
 * @user:	pays for the bell; with a publisher that is kept there is none
 *
 * Nobody is told yet: see pair_announce().
 *
 * Return: 0; -EDQUOT; -ENOSPC; -ENOMEM; -EMFILE; another negative errno value.
 */
int pair_new(struct member *publisher, struct member *subscriber, struct quota_user *user);

/*
 * Takes over what an earlier broker has noted. Returns as pair_new(), or as segment_adopt(); a sealed
 * bell that nobody has kept makes a stale pair.
 */
int pair_adopt(struct member *publisher, struct member *subscriber,
	       const struct shmb_registry_entry *entry, uint32_t slot);

/* The pair of these two, the newest if there are several; NULL: none. */
struct pair *pair_find(const struct member *publisher, const struct member *subscriber);

/* Tells nobody of it who does not know it yet. */
void pair_set_stale(struct pair *pair);

/*
 * The member of that role - 1 goes, but its segment is kept for the other: a subscriber is shown the lane
 * as that of a publisher that has gone, a publisher hears that it may look at the marks.
 */
void pair_keep(struct pair *pair, unsigned leaver);

/* Marks the views of those who know their member. */
void pair_announce(struct pair *pair);

/**
 * pair_renew() - one of the two has come back without its fds
 * @pair:   pair
 * @member: who came back; present
 * @fresh:  with a new doorbell, so that the other has to be told, too
 *
 * Return: 0, -EMFILE, -ENFILE, -ENOMEM.
 */
int pair_renew(struct pair *pair, struct member *member, bool fresh);

/**
 * pair_free() - end it
 * @pair:   pair
 * @leaver: the member that goes and need not be told; NULL: tell both
 * @reason: SHMB_GONE_*, for the other
 */
void pair_free(struct pair *pair, const struct member *leaver, uint32_t reason);

#endif
