/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include "daemon/key.h"

static struct shmb_state_key *key_at(const struct channel *channel, uint32_t index)
{
	uint8_t *base = (uint8_t *)channel->map + key_offset(channel->schema_len);

	return (struct shmb_state_key *)(void *)base + index;
}

int key_claim(struct channel *channel, uint64_t id, const void *name, uint32_t key_len,
	      uint32_t *ret_index, uint64_t *ret_owner)
{
	struct shmb_state_key *key = NULL;
	uint32_t index;

	for (index = 0; index < channel->max_keys; index++) {
		key = key_at(channel, index);
		if (!key->key_len ||
		    (key->key_len == key_len && memcmp(key->key, name, key_len) == 0))
			break;
	}
	if (index == channel->max_keys)
		return -EUSERS;
	*ret_index = index;
	*ret_owner = key->owner;
	if (key->owner)
		return key->owner == id ? 0 : -EBUSY;
	if (!key->key_len) {
		memcpy(key->key, name, key_len);
		/* Killed before: the entry is free still. pairs with the acquire load of a reader */
		__atomic_store_n(&key->key_len, key_len, __ATOMIC_RELEASE);
	}
	/* Killed between the two: a term was skipped. */
	__atomic_store_n(&key->term, registry_next_id(&channel->broker->registry),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&key->owner, id, __ATOMIC_RELAXED);
	return 0;
}

struct shmb_state_key *key_owned(const struct channel *channel, uint32_t index, uint64_t id)
{
	struct shmb_state_key *key;

	if (index >= channel->max_keys)
		return NULL;
	key = key_at(channel, index);
	return key->owner == id ? key : NULL;
}

void key_set_source(struct shmb_state_key *key)
{
	/*
	 * Killed before: the last value is where it was, and the owner tries again. pairs with the
	 * acquire load of a reader: the value was in the cell before the owner told us
	 */
	__atomic_store_n(&key->source, key->owner, __ATOMIC_RELEASE);
}

void key_disclaim(struct shmb_state_key *key)
{
	/* Killed before: the successor finds its owner gone, or is told again. */
	__atomic_store_n(&key->owner, 0, __ATOMIC_RELAXED);
}

void key_disclaim_all(const struct channel *channel, uint64_t id)
{
	for (uint32_t i = 0; i < channel->max_keys; i++)
		if (key_at(channel, i)->owner == id)
			key_disclaim(key_at(channel, i));
}

bool key_has_source(const struct channel *channel, uint64_t id)
{
	for (uint32_t i = 0; i < channel->max_keys; i++)
		if (key_at(channel, i)->source == id)
			return true;
	return false;
}

void key_forget_source(const struct channel *channel, uint64_t id)
{
	for (uint32_t i = 0; i < channel->max_keys; i++)
		if (key_at(channel, i)->source == id)
			__atomic_store_n(&key_at(channel, i)->source, 0, __ATOMIC_RELAXED);
}

/* A publisher of the channel, or NULL. */
static const struct member *find_publisher(const struct channel *channel, uint64_t id)
{
	struct object *object = broker_find(channel->broker, id, SHMB_ENTRY_PUBLISHER);
	const struct member *member;

	member = object ? shmb_container_of(object, struct member, object) : NULL;
	return member && member->channel == channel ? member : NULL;
}

void key_settle(const struct channel *channel)
{
	for (uint32_t i = 0; i < channel->max_keys; i++) {
		struct shmb_state_key *key = key_at(channel, i);
		const struct member *owner = find_publisher(channel, key->owner);

		if (key->owner && (!owner || owner->flags & SHMB_MEMBER_RETIRED))
			key_disclaim(key);
		if (key->source && !find_publisher(channel, key->source))
			__atomic_store_n(&key->source, 0, __ATOMIC_RELAXED);
	}
}
