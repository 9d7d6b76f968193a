/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include <shmbroker/cell.h>

#include "lib/block.h"
#include "lib/call.h"
#include "lib/history.h"

#include "daemon/channel.h"
#include "daemon/directory.h"
#include "daemon/idle.h"
#include "daemon/view.h"

static const struct segment_spec channel_spec = {
	.kind = SHMB_SEGMENT_CHANNEL,
	.backing = SHMB_MEMORY_POSIX,
};

#define PAGE_LEN 4096u

/* The key makes it impossible to choose names that collide. */
static uint64_t name_hash(const struct broker *broker, const void *name, uint32_t name_len)
{
	uint64_t hash;

	_Static_assert(sizeof(hash) == crypto_shorthash_BYTES, "");
	_Static_assert(sizeof(broker->name_key) == crypto_shorthash_KEYBYTES, "");
	crypto_shorthash((unsigned char *)&hash, name, name_len, broker->name_key);
	return hash;
}

static uint64_t segment_len(uint32_t pattern, uint32_t schema_len, uint32_t max_keys,
			    uint32_t lane_len, uint32_t max_subscribers)
{
	uint64_t len = SHMB_BLOCK_LEN + (uint64_t)schema_len;

	if (pattern == SHMB_PATTERN_CALL)
		len = shmb_call_servers_offset(schema_len) +
		      (uint64_t)max_subscribers * sizeof(struct shmb_call_server);
	/* Room for the values of all keys, so that none is lost for want of it when somebody dies. */
	if (max_keys)
		len = shmb_state_cells_offset(schema_len, max_keys) + lane_len;
	return (len + PAGE_LEN - 1) & ~(uint64_t)(PAGE_LEN - 1);
}

static uint64_t channel_segment_len(const struct channel *channel)
{
	return segment_len(channel->pattern, channel->schema_len, channel->max_keys,
			   channel->lane_len, channel->max_subscribers);
}

struct channel *channel_find(const struct broker *broker, const void *name, uint32_t name_len)
{
	struct table_node *node;

	node = table_find(&broker->names, name_hash(broker, name, name_len));
	for (; node; node = table_next(node)) {
		struct channel *channel = shmb_container_of(node, struct channel, by_name);

		if (channel->name_len == name_len && memcmp(channel->name, name, name_len) == 0)
			return channel;
	}
	return NULL;
}

/* A channel object without segment and entry, in both tables. */
static struct channel *channel_alloc(struct broker *broker, uint64_t id, const void *name,
				     uint32_t name_len)
{
	struct channel *channel = calloc(1, sizeof(*channel));

	if (!channel)
		return NULL;
	channel->object.kind = SHMB_ENTRY_CHANNEL;
	channel->object.entry = REGISTRY_NO_ENTRY;
	channel->broker = broker;
	channel->name_len = name_len;
	memcpy(channel->name, name, name_len);
	list_init(&channel->openings);
	list_init(&channel->kept);
	list_init(&channel->kept_workers);
	list_init(&channel->estate_link);
	list_init(&channel->epoch_link);
	if (table_add(&broker->objects, &channel->object.node, id) < 0)
		goto fail;
	if (table_add(&broker->names, &channel->by_name, name_hash(broker, name, name_len)) < 0) {
		table_remove(&broker->objects, &channel->object.node);
		goto fail;
	}
	list_append(&broker->channels, &channel->link);
	return channel;
fail:
	free(channel);
	return NULL;
}

static int channel_charge(struct channel *channel, struct quota_user *user)
{
	uint64_t len = channel_segment_len(channel);

	if (quota_charge(user, QUOTA_CHANNELS, 1) < 0)
		return -EDQUOT;
	if (quota_charge(user, QUOTA_BYTES, len) < 0) {
		quota_release(user, QUOTA_CHANNELS, 1);
		return -EDQUOT;
	}
	user->n_refs++;
	channel->user = user;
	return 0;
}

/* Before anybody else has it. */
static void channel_fill(struct channel *channel, const void *schema)
{
	struct shmb_channel_segment *map = channel->object.segment.map;

	map->channel_id = object_id(&channel->object);
	map->pattern = channel->pattern;
	map->max_keys = channel->max_keys;
	map->lane_len = channel->lane_len;
	map->max_publishers = channel->max_publishers;
	map->max_subscribers = channel->max_subscribers;
	map->history = channel->history;
	map->blocks = channel->blocks;
	map->ttl_ms = channel->ttl_ms;
	map->ordered = channel->ordered;
	map->max_fds = channel->max_fds;
	map->schema_len = channel->schema_len;
	map->name_len = channel->name_len;
	map->backing = channel->backing;
	map->retained = channel->retained;
	memcpy(map->name, channel->name, channel->name_len);
	if (channel->schema_len)
		memcpy((uint8_t *)map + SHMB_BLOCK_LEN, schema, channel->schema_len);
	channel->map = map;
}

static uint32_t entry_flags(const struct channel *channel)
{
	return (channel->backing == SHMB_MEMORY_SEALED ? SHMB_ENTRY_SEALED : 0) |
	       (channel->ordered ? SHMB_ENTRY_ORDERED : 0) |
	       (channel->retained ? SHMB_ENTRY_RETAINED : 0);
}

static int channel_register(struct channel *channel, uint32_t uid)
{
	struct shmb_registry_entry entry = {
		.kind = SHMB_ENTRY_CHANNEL,
		.id = object_id(&channel->object),
		.segment_len = channel->object.segment.len,
		.uid = uid,
		.pattern = channel->pattern,
		.max_keys = channel->max_keys,
		.lane_len = channel->lane_len,
		.max_publishers = channel->max_publishers,
		.max_subscribers = channel->max_subscribers,
		.history = channel->history,
		.blocks = channel->blocks,
		.ttl_ms = channel->ttl_ms,
		.max_fds = channel->max_fds,
		.schema_len = channel->schema_len,
		.name_len = channel->name_len,
		.backing = channel->wanted,
		.flags = entry_flags(channel),
	};

	memcpy(entry.segment, channel->object.segment.name, sizeof(entry.segment));
	memcpy(entry.name, channel->name, channel->name_len);
	return registry_add(&channel->broker->registry, &entry, &channel->object.entry);
}

int channel_new(struct broker *broker, struct quota_user *user, uint32_t uid,
		const struct shmb_msg_open *open, const void *schema, struct channel **ret_channel)
{
	struct segment_spec spec = channel_spec;
	struct channel *channel;
	int r;

	channel = channel_alloc(broker, registry_next_id(&broker->registry), open->name,
				open->name_len);
	if (!channel)
		return -ENOMEM;
	channel->pattern = open->pattern;
	channel->max_keys = open->max_keys;
	channel->lane_len = open->lane_len;
	channel->max_publishers = open->max_publishers;
	channel->max_subscribers = open->max_subscribers;
	channel->history = open->history;
	channel->blocks = open->blocks;
	channel->ttl_ms = open->ttl_ms;
	channel->ordered = open->flags & SHMB_OPEN_ORDERED;
	channel->max_fds = open->max_fds;
	channel->schema_len = open->schema_len;
	channel->wanted = open->backing;
	channel->backing =
		open->backing == SHMB_MEMORY_SEALED ? SHMB_MEMORY_SEALED : SHMB_MEMORY_POSIX;
	spec.id = spec.owner_id = object_id(&channel->object);
	spec.len = channel_segment_len(channel);
	spec.flags = SEGMENT_ALLOCATE | SEGMENT_MAP;
	r = channel_charge(channel, user);
	if (r == 0)
		r = segment_create(&broker->maker, &spec, &channel->object.segment);
	if (r == 0) {
		channel_fill(channel, schema);
		r = channel_register(channel, uid);
	}
	if (r < 0) {
		channel_free(channel, false);
		return r;
	}
	*ret_channel = channel;
	return 0;
}

bool channel_geometry_valid(uint32_t pattern, uint32_t lane_len, uint32_t max_keys)
{
	if (pattern == SHMB_PATTERN_STREAM || pattern == SHMB_PATTERN_QUEUE ||
	    pattern == SHMB_PATTERN_CALL)
		return lane_len >= SHMB_LANE_LEN_MIN && lane_len <= SHMB_LANE_LEN_MAX &&
		       (lane_len & (lane_len - 1)) == 0 && max_keys == 0;
	return pattern == SHMB_PATTERN_STATE && max_keys && max_keys <= SHMB_STATE_KEYS_MAX &&
	       lane_len <= SHMB_CELLS_LEN_MAX && lane_len % max_keys == 0 &&
	       lane_len / max_keys >= SHMB_CELL_LEN_MIN &&
	       lane_len / max_keys <= SHMB_CELL_LEN_MAX &&
	       lane_len / max_keys % SHMB_CELL_LEN_MIN == 0;
}

uint32_t channel_history_max(uint32_t pattern, uint32_t lane_len, uint32_t record_len)
{
	return pattern == SHMB_PATTERN_STREAM ? shmb_history_max(lane_len, record_len) : 0;
}

static bool entry_valid(const struct shmb_registry_entry *entry)
{
	return channel_geometry_valid(entry->pattern, entry->lane_len, entry->max_keys) &&
	       entry->max_publishers && entry->max_publishers <= CHANNEL_MEMBERS_MAX &&
	       entry->max_subscribers && entry->max_subscribers <= CHANNEL_MEMBERS_MAX &&
	       entry->history <= channel_history_max(entry->pattern, entry->lane_len, 0) &&
	       shmb_block_limits_valid(&entry->blocks, entry->pattern, entry->lane_len) &&
	       entry->name_len && entry->max_fds <= SHMB_FDS_MAX &&
	       ((!entry->ttl_ms && !(entry->flags & SHMB_ENTRY_ORDERED) && !entry->max_fds) ||
		entry->pattern == SHMB_PATTERN_STREAM) &&
	       entry->segment_len == segment_len(entry->pattern, entry->schema_len, entry->max_keys,
						 entry->lane_len, entry->max_subscribers) &&
	       entry->backing <= SHMB_MEMORY_SEALED;
}

int channel_adopt(struct broker *broker, const struct shmb_registry_entry *entry, uint32_t slot)
{
	struct segment_spec spec = channel_spec;
	struct quota_user *user;
	struct channel *channel;
	int r;

	if (!entry_valid(entry) || channel_find(broker, entry->name, entry->name_len))
		return -EINVAL;
	channel = channel_alloc(broker, entry->id, entry->name, entry->name_len);
	user = quota_user_get(&broker->quota, entry->uid);
	if (!channel || !user) {
		r = -ENOMEM;
		goto out;
	}
	channel->pattern = entry->pattern;
	channel->max_keys = entry->max_keys;
	channel->lane_len = entry->lane_len;
	channel->max_publishers = entry->max_publishers;
	channel->max_subscribers = entry->max_subscribers;
	channel->history = entry->history;
	channel->blocks = entry->blocks;
	channel->ttl_ms = entry->ttl_ms;
	channel->ordered = entry->flags & SHMB_ENTRY_ORDERED;
	channel->max_fds = entry->max_fds;
	channel->schema_len = entry->schema_len;
	channel->wanted = entry->backing;
	channel->backing =
		entry->flags & SHMB_ENTRY_SEALED ? SHMB_MEMORY_SEALED : SHMB_MEMORY_POSIX;
	channel->retained = entry->flags & SHMB_ENTRY_RETAINED;
	broker->n_retained += channel->retained;
	spec.id = entry->id;
	spec.len = entry->segment_len;
	spec.flags = SEGMENT_MAP;
	r = channel_charge(channel, user);
	if (r == 0)
		r = segment_adopt(&broker->maker, (const char *)entry->segment, &spec,
				  &channel->object.segment);
	if (r == 0) {
		channel->map = channel->object.segment.map;
		/* Killed between the entry and this: the entry is what counts. */
		__atomic_store_n(&channel->map->backing, channel->backing, __ATOMIC_RELAXED);
		__atomic_store_n(&channel->map->retained, channel->retained, __ATOMIC_RELAXED);
		channel->object.entry = slot;
		channel->adopted = true;
	}
out:
	quota_user_put(&broker->quota, user);
	if (r < 0 && channel)
		channel_free(channel, true);
	return r;
}

static struct opening *opening_find(const struct channel *channel, const struct client *client)
{
	struct list *link, *safe;

	list_for_each(link, safe, &client->openings)
	{
		struct opening *opening = list_entry(link, struct opening, client_link);

		if (opening->channel == channel)
			return opening;
	}
	return NULL;
}

bool channel_is_open(const struct channel *channel, const struct client *client)
{
	return opening_find(channel, client) != NULL;
}

int channel_open(struct channel *channel, struct client *client)
{
	struct opening *opening = opening_find(channel, client);

	if (opening) {
		opening->count++;
		return 0;
	}
	opening = calloc(1, sizeof(*opening));
	if (!opening)
		return -ENOMEM;
	opening->client = client;
	opening->channel = channel;
	opening->count = 1;
	list_append(&client->openings, &opening->client_link);
	list_append(&channel->openings, &opening->channel_link);
	return 0;
}

static void opening_free(struct opening *opening)
{
	struct channel *channel = opening->channel;

	list_remove(&opening->client_link);
	list_remove(&opening->channel_link);
	free(opening);
	channel_put(channel);
}

int channel_close(struct channel *channel, struct client *client)
{
	struct opening *opening = opening_find(channel, client);

	if (!opening)
		return -ENOENT;
	/* 0: a client that has come back says that it will not reopen it. */
	if (opening->count <= 1)
		opening_free(opening);
	else
		opening->count--;
	return 0;
}

void channel_close_all(struct client *client)
{
	struct list *link, *safe;

	list_for_each(link, safe, &client->openings)
		opening_free(list_entry(link, struct opening, client_link));
}

void channel_expect_reopening(struct client *client)
{
	struct list *link, *safe;

	list_for_each(link, safe, &client->openings) list_entry(link, struct opening, client_link)
		->count = 0;
}

void channel_close_expected(struct client *client)
{
	struct list *link, *safe;

	list_for_each(link, safe, &client->openings)
	{
		struct opening *opening = list_entry(link, struct opening, client_link);

		if (opening->count == 0)
			opening_free(opening);
	}
}

const void *channel_schema(const struct channel *channel)
{
	return (const uint8_t *)channel->map + SHMB_BLOCK_LEN;
}

void channel_changed(struct channel *channel)
{
	struct shmb_channel_segment *map = channel->map;
	uint32_t n_publishers, n_subscribers;

	if (registry_is_superseded(&channel->broker->registry))
		return;
	/*
	 * Before anybody hears that two are parted. One who still reads or writes as if they were
	 * not sees the epoch move no later than what the other does about it.
	 * Killed behind it: those who look at their sockets find nothing new.
	 */
	view_move_epoch(channel);
	/*
	 * Subscribers first: when a publisher lets go of one, that one can know. Killed before the
	 * publishers are told: they write nothing for those who read already. The other way round a
	 * subscriber would never see what was written for it.
	 */
	for (unsigned role = 2; role-- > 0;)
		for (uint32_t i = 0; i < channel->n_slots[role]; i++)
			if (channel->slots[role][i])
				view_flush(channel->slots[role][i]->client, false);
	directory_count(channel, &n_publishers, &n_subscribers);
	__atomic_store_n(&map->n_publishers, n_publishers, __ATOMIC_RELAXED);
	__atomic_store_n(&map->n_subscribers, n_subscribers, __ATOMIC_RELAXED);
	/*
	 * Killed before: those who were told act on what they were told, and a successor moves the
	 * epoch.
	 */
	view_move_epoch(channel);
}

void channel_set_sealed(struct channel *channel)
{
	struct broker *broker = channel->broker;

	channel->backing = SHMB_MEMORY_SEALED;
	/* Killed before: a successor decides anew; after: it finds that its members have to move. */
	registry_set_flags(&broker->registry, channel->object.entry, entry_flags(channel));
	__atomic_store_n(&channel->map->backing, SHMB_MEMORY_SEALED, __ATOMIC_RELAXED);
	log_line(&broker->log, LOG_NOTICE, "channel-sealed", "channel=%llu name=%.*s",
		 (unsigned long long)object_id(&channel->object), (int)channel->name_len,
		 (const char *)channel->name);
}

void channel_set_retained(struct channel *channel, bool retained)
{
	struct broker *broker = channel->broker;

	if (channel->retained == retained)
		return;
	channel->retained = retained;
	broker->n_retained += retained ? 1 : -1u;
	/* Killed before: a successor finds it as it was; after: as it is. */
	registry_set_flags(&broker->registry, channel->object.entry, entry_flags(channel));
	__atomic_store_n(&channel->map->retained, retained, __ATOMIC_RELAXED);
	idle_check(broker);
}

bool channel_is_unused(const struct channel *channel)
{
	return !channel->retained && list_empty(&channel->openings) && channel->n_members[0] == 0 &&
	       channel->n_members[1] == 0 && !channel->adopted;
}

void channel_put(struct channel *channel)
{
	if (!channel_is_unused(channel) || channel->busy)
		return;
	if (list_empty(&channel->kept) && list_empty(&channel->kept_workers))
		channel_free(channel, false);
	else if (list_empty(&channel->estate_link))
		list_append(&channel->broker->estates, &channel->estate_link);
}

void channel_free(struct channel *channel, bool keep)
{
	struct broker *broker = channel->broker;

	if (keep) {
		segment_release(&channel->object.segment);
	} else {
		broker_unregister(broker, &channel->object);
		segment_destroy(&channel->object.segment);
	}
	table_remove(&broker->objects, &channel->object.node);
	table_remove(&broker->names, &channel->by_name);
	list_remove(&channel->link);
	list_remove(&channel->epoch_link);
	list_remove(&channel->estate_link);
	broker->n_retained -= channel->retained;
	loop_timer_cancel(channel->patience);
	if (channel->user) {
		quota_release(channel->user, QUOTA_CHANNELS, 1);
		quota_release(channel->user, QUOTA_BYTES, channel_segment_len(channel));
		quota_user_put(&broker->quota, channel->user);
	}
	free(channel->slots[0]);
	free(channel->slots[1]);
	free(channel);
}
