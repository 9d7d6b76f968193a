/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_KEY_H
#define SHMB_DAEMON_KEY_H

#include "daemon/model.h"

/*
 * The keys of a state channel: who may write each of them, and in whose segment its value is. They
 * live in the channel's segment alone, so a successor finds them there. Nothing here moves the
 * channel's epoch.
 */

/* Where the directory begins in the channel's segment. */
static inline uint64_t key_offset(uint32_t schema_len)
{
	return (SHMB_BLOCK_LEN + (uint64_t)schema_len + 63) & ~(uint64_t)63;
}

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

/* From now on the value is in the owner's segment. */
void key_set_source(struct shmb_state_key *key);

/* Nobody may write it now; its value stays. */
void key_disclaim(struct shmb_state_key *key);

/* Disclaims all keys of a publisher. */
void key_disclaim_all(const struct channel *channel, uint64_t id);

/* Is the value of some key in this publisher's segment? */
bool key_has_source(const struct channel *channel, uint64_t id);

/* The segment goes, and the values in it. */
void key_forget_source(const struct channel *channel, uint64_t id);

/* After a restart: forgets publishers that are not there any more. */
void key_settle(const struct channel *channel);

#endif
