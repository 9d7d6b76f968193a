/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_CHANNEL_H
#define SHMB_DAEMON_CHANNEL_H

#include "daemon/model.h"

#define CHANNEL_MEMBERS_DEFAULT 64u
#define CHANNEL_MEMBERS_MAX	4096u

/* Finds a channel by name, or NULL. */
struct channel *channel_find(const struct broker *broker, const void *name, uint32_t name_len);

/**
 * channel_new() - make a channel
 * @broker: broker
 * @user:   pays
 * @uid:    of the creator
 * @open:   checked: its name is valid and free, its limits are final
 * @schema: open->schema_len bytes, checked
 * @ret_channel: stores the channel, which goes with its last opening or member
 *
 * Return: 0; -EDQUOT; -ENOSPC; -ENOMEM; -EMFILE; another negative errno value.
 */
int channel_new(struct broker *broker, struct quota_user *user, uint32_t uid,
		const struct shmb_msg_open *open, const void *schema, struct channel **ret_channel);

/* May a channel of this pattern have these lengths? */
bool channel_geometry_valid(uint32_t pattern, uint32_t lane_len, uint32_t max_keys);
/* The longest history of a channel; only streams have one. @record_len: 0 if untyped. */
uint32_t channel_history_max(uint32_t pattern, uint32_t lane_len, uint32_t record_len);

/* Takes over what an earlier broker has noted. */
int channel_adopt(struct broker *broker, const struct shmb_registry_entry *entry, uint32_t slot);

/* Opens it once more for a client. Returns 0 or -ENOMEM. */
int channel_open(struct channel *channel, struct client *client);

/* Undoes one channel_open(). Returns 0, or -ENOENT if the client does not have it open. */
int channel_close(struct channel *channel, struct client *client);

/* Undoes all of them. */
void channel_close_all(struct client *client);

/* The client has come back and will open again what it has open: its count begins anew. */
void channel_expect_reopening(struct client *client);

/* It had time to do so: closes what it has not opened again. */
void channel_close_expected(struct client *client);

/* Has the client opened it? */
bool channel_is_open(const struct channel *channel, const struct client *client);

/* The channel's schema, channel->schema_len bytes. */
const void *channel_schema(const struct channel *channel);

/**
 * channel_changed() - membership has changed
 * @channel: channel
 *
 * Tells the members, then moves the epoch: who sees the new epoch finds in its socket what has
 * changed, or the word that there is more to come.
 */
void channel_changed(struct channel *channel);

/* From now on what is made for its members is sealed. */
void channel_set_sealed(struct channel *channel);

/* From now on it stays although nobody uses it, or goes with its last user. */
void channel_set_retained(struct channel *channel, bool retained);

/* Has nobody a use for it, whatever is kept there? */
bool channel_is_unused(const struct channel *channel);

/* Frees it if nobody needs it. What is kept there for workers of a queue goes soon, too: see estate.h. */
void channel_put(struct channel *channel);

/* Frees it; it has no members and no openings. With @keep its segment and entry stay. */
void channel_free(struct channel *channel, bool keep);

#endif
