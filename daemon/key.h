/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_KEY_H
#define SHMB_DAEMON_KEY_H

#include "daemon/model.h"

/*
 * The keys of a state channel: who may write each of them, and where its value is. They live in the
 * channel's segment alone, so a successor finds them there.
 *
 * A publisher puts values into its own segment. When it gives a key up, goes or dies, the broker
 * inherits the value: it copies it into the channel's cell of that key, which it alone writes. So
 * nothing of a publisher has to be kept, and the segment of whoever has gone is nobody's concern.
 *
 * Nothing here moves the channel's epoch.
 */

/**
 * key_claim() - let a publisher write a key
 * @channel:   state channel
 * @id:	       of the publisher
 * @key:       its key_len bytes
 * @key_len:   1 to SHMB_STATE_KEY_LEN_MAX
 * @ret_index: stores where it is
 * @ret_owner: stores whose it is, if that is somebody else
 *
 * Return: 0, also if it was the publisher's before; -EBUSY: it is somebody else's; -EUSERS: the
 *	   channel has no room for another key.
 */
int key_claim(struct channel *channel, uint64_t id, const void *key, uint32_t key_len,
	      uint32_t *ret_index, uint64_t *ret_owner);

/* The entry if the publisher may write this key, or NULL. */
struct shmb_state_key *key_owned(const struct channel *channel, uint32_t index, uint64_t id);

/* Version of the last value that the channel itself has for a key. */
uint64_t key_version(const struct channel *channel, uint32_t index);

/* From now on the value is in the owner's segment. */
void key_set_source(struct shmb_state_key *key);

/**
 * key_disclaim() - inherit the value of a key, which is nobody's then
 * @channel: state channel
 * @index:   of a key that has an owner
 * @segment: of the owner; if it cannot be read, the key has no value any more
 */
void key_disclaim(const struct channel *channel, uint32_t index, const struct segment *segment);

/* key_disclaim() for all keys of a publisher. */
void key_disclaim_all(const struct channel *channel, uint64_t id, const struct segment *segment);

/*
 * The publisher's segment cannot be given to everybody just now: the channel's cells get copies of its
 * values. They hold until its next put, before which it moves to a segment that can be given.
 */
void key_copy_all(const struct channel *channel, uint64_t id, const struct segment *segment);

/* The publisher's segment cannot be read any more: copies of its values may be out of date. */
void key_drop_copies(const struct channel *channel, uint64_t id);

/* After a restart: disclaims what was claimed by somebody who is not there any more. */
void key_settle(const struct channel *channel);

#endif
