/* SPDX-License-Identifier: Apache-2.0 */

/* shmctl show --json. Names of members of these objects are stable; new ones may be added. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/look.h"
#include "tools/print.h"
#include "tools/show.h"

static void set_u64(json_t *object, const char *name, uint64_t value)
{
	json_object_set_new(object, name, print_json_u64(value));
}

static void set_text(json_t *object, const char *name, const void *text, size_t len)
{
	json_object_set_new(object, name, print_json_text(text, len));
}

static void set_segment(json_t *object, const struct shmb_registry_entry *entry)
{
	if (entry->segment[0])
		json_object_set_new(object, "segment", json_string((const char *)entry->segment));
	set_u64(object, "segment_len", entry->segment_len);
}

static json_t *schema_to_json(const struct decode *decode)
{
	json_t *schema = json_object(), *fields = json_array();
	char type[32];

	set_text(schema, "name", decode->head.name,
		 strnlen(decode->head.name, SHMB_SCHEMA_NAME_LEN));
	set_u64(schema, "record_len", decode->head.record_len);
	for (uint32_t i = 0; i < decode->head.n_fields; i++) {
		const struct shmb_schema_field *from = &decode->fields[i];
		json_t *field = json_object();

		decode_type_name(from, type);
		set_text(field, "name", from->name, strnlen(from->name, SHMB_FIELD_NAME_LEN));
		json_object_set_new(field, "type", json_string(type));
		set_u64(field, "offset", from->offset);
		set_u64(field, "size", from->size);
		set_u64(field, "count", from->count);
		if (from->parent != SHMB_FIELD_NO_PARENT)
			set_u64(field, "parent", from->parent);
		json_array_append_new(fields, field);
	}
	json_object_set_new(schema, "fields", fields);
	return schema;
}

static void set_process(json_t *object, const struct inspect *inspect, uint64_t client_id)
{
	const struct inspect_item *client = inspect_find(inspect, SHMB_ENTRY_CLIENT, client_id);
	char *command;

	set_u64(object, "client", client_id);
	if (!client)
		return;
	set_text(object, "label", client->entry.name, client->entry.name_len);
	set_u64(object, "pid", client->entry.pid);
	set_u64(object, "uid", client->entry.uid);
	set_u64(object, "gid", client->entry.gid);
	json_object_set_new(object, "alive", json_boolean(look_is_alive(&client->entry)));
	command = look_command_line(&client->entry);
	if (command && *command)
		json_object_set_new(object, "command", json_string(command));
	free(command);
}

static json_t *member_to_json(const struct inspect *inspect, const struct inspect_item *item)
{
	json_t *object = json_object();

	set_u64(object, "id", item->entry.id);
	set_process(object, inspect, item->entry.client_id);
	json_object_set_new(object, "role", json_string(look_role(inspect, item)));
	json_object_set_new(object, "active", json_boolean(item->entry.flags & SHMB_MEMBER_ACTIVE));
	set_u64(object, "slot", item->entry.slot);
	set_segment(object, &item->entry);
	return object;
}

/* Of one that has gone: who it was, and which subscribers its lane is kept for. */
static void set_kept(json_t *object, const struct inspect *inspect, const struct inspect_item *item)
{
	const struct inspect_item *pair = NULL;
	json_t *owed = json_array();

	set_u64(object, "pid", item->entry.pid);
	set_u64(object, "uid", item->entry.uid);
	json_object_set_new(object, "alive", json_false());
	while ((pair = inspect_next(inspect, pair, SHMB_ENTRY_PAIR, item->entry.channel_id)))
		if (pair->entry.publisher_id == item->entry.id)
			json_array_append_new(owed, print_json_u64(pair->entry.subscriber_id));
	json_object_set_new(object, "kept_for", owed);
	json_object_set_new(object, "kept_for_late",
			    json_boolean(item->entry.flags & SHMB_MEMBER_HISTORY));
}

static json_t *blocks_to_json(const struct shmb_block_limits *limits)
{
	json_t *object = json_object();

	set_u64(object, "record_len_max", limits->record_len_max);
	set_u64(object, "inline_len_max", limits->inline_len_max);
	set_u64(object, "arena_len", limits->arena_len);
	set_u64(object, "max_holds", limits->max_holds);
	json_object_set_new(object, "huge_pages",
			    json_boolean(limits->flags & SHMB_ARENA_HUGE_PAGES));
	if (limits->numa_node)
		set_u64(object, "numa_node", limits->numa_node - 1);
	return object;
}

static void set_nodes(json_t *object, const struct shmb_registry_entry *client,
		      const struct shmb_registry_entry *arena)
{
	uint64_t lens[LOOK_NODES_MAX];
	json_t *nodes;

	if (!look_node_lens(client, arena, lens))
		return;
	nodes = json_object();
	for (uint32_t node = 0; node < LOOK_NODES_MAX; node++) {
		char name[16];

		snprintf(name, sizeof(name), "%" PRIu32, node);
		if (lens[node])
			set_u64(nodes, name, lens[node]);
	}
	json_object_set_new(object, "node_lens", nodes);
}

static json_t *arenas_to_json(const struct inspect *inspect, const struct inspect_item *publisher)
{
	const struct inspect_item *item = NULL, *client;
	json_t *arenas = json_array();
	uint64_t huge_len;

	client = inspect_find(inspect, SHMB_ENTRY_CLIENT, publisher->entry.client_id);
	while ((item = inspect_next(inspect, item, SHMB_ENTRY_ARENA,
				    publisher->entry.channel_id))) {
		json_t *object;

		if (item->entry.publisher_id != publisher->entry.id)
			continue;
		object = json_object();
		set_u64(object, "number", item->entry.slot);
		set_segment(object, &item->entry);
		if (client && look_huge_len(&client->entry, &item->entry, &huge_len))
			set_u64(object, "huge_len", huge_len);
		if (client)
			set_nodes(object, &client->entry, &item->entry);
		json_array_append_new(arenas, object);
	}
	return arenas;
}

static json_t *holds_to_json(const struct inspect *inspect, const struct inspect_item *subscriber)
{
	json_t *holds = json_array();

	for (uint32_t i = 0; i < subscriber->cursor.n_holds; i++) {
		const struct shmb_cursor_hold *hold = &subscriber->cursor.holds[i];
		const struct inspect_item *publisher =
			inspect_holdee(inspect, subscriber->entry.channel_id, hold);
		json_t *object = json_object();

		if (publisher)
			set_u64(object, "publisher", publisher->entry.id);
		set_u64(object, "record", hold->sequence);
		set_u64(object, "len", hold->len);
		set_u64(object, "since_ns", hold->since_ns);
		json_array_append_new(holds, object);
	}
	return holds;
}

static json_t *publisher_to_json(const struct inspect *inspect, const struct inspect_item *item)
{
	json_t *object = member_to_json(inspect, item);

	if (item->entry.partner_id) {
		set_u64(object, "partner", item->entry.partner_id);
		set_u64(object, "reply_to", item->entry.reply_to);
	}
	set_u64(object, "priority", inspect_priority(item));
	json_object_set_new(object, "kept", json_boolean(inspect_is_kept(item)));
	if (inspect_is_kept(item))
		set_kept(object, inspect, item);
	if (!item->is_read)
		return object;
	set_u64(object, "records", item->lane.sequence);
	set_u64(object, "position", item->lane.position);
	set_u64(object, "refused", item->lane.refused);
	set_u64(object, "dropped", item->lane.dropped);
	set_u64(object, "evicted", item->lane.evicted);
	set_u64(object, "rings", item->lane.rings);
	json_object_set_new(object, "trusting",
			    json_boolean(item->entry.flags & SHMB_MEMBER_TRUSTING));
	json_object_set_new(object, "waiting", json_boolean(item->lane.is_waiting));
	json_object_set_new(object, "arenas", arenas_to_json(inspect, item));
	return object;
}

static json_t *pair_to_json(const struct inspect_item *pair, bool is_queue)
{
	json_t *object = json_object();

	set_u64(object, "pair", pair->entry.id);
	set_u64(object, "publisher", pair->entry.publisher_id);
	set_segment(object, &pair->entry);
	json_object_set_new(object, "connected", json_boolean(pair->is_read));
	if (!pair->is_read)
		return object;
	set_u64(object, "records", pair->pair.sequence);
	set_u64(object, "position", pair->pair.position);
	set_u64(object, "lag_bytes", pair->pair.lag_len);
	set_u64(object, "lag_records", pair->pair.lag_records);
	set_u64(object, "lost", pair->pair.lost);
	if (is_queue) {
		set_u64(object, "done", pair->pair.done);
		set_u64(object, "in_work", pair->pair.in_work);
		set_u64(object, "attempts", pair->pair.attempts);
	}
	set_u64(object, "expired", pair->pair.expired);
	set_u64(object, "conflated", pair->pair.conflated);
	json_object_set_new(object, "evicted", json_boolean(pair->pair.is_evicted));
	return object;
}

static json_t *subscriber_to_json(const struct inspect *inspect, const struct inspect_item *item,
				  bool is_queue)
{
	json_t *object = member_to_json(inspect, item), *lanes = json_array();
	const struct inspect_item *pair = NULL;

	json_object_set_new(object, "lossy", json_boolean(item->entry.flags & SHMB_MEMBER_LOSSY));
	set_u64(object, "evict_after_ms", item->entry.evict_after_ms);
	set_u64(object, "history", item->entry.history);
	if (item->is_read) {
		json_object_set_new(object, "sleeping",
				    json_boolean(item->cursor.sleep_mode != SHMB_SLEEP_AWAKE));
		json_object_set_new(object, "state",
				    json_string(show_sleep_mode(item->cursor.sleep_mode)));
		set_u64(object, "sleeps", item->cursor.sleeps);
		set_u64(object, "backstops", item->cursor.backstops);
		if (is_queue)
			set_u64(object, "credit", item->cursor.credit);
		json_object_set_new(object, "holds", holds_to_json(inspect, item));
	}
	while ((pair = inspect_next(inspect, pair, SHMB_ENTRY_PAIR, item->entry.channel_id))) {
		if (pair->entry.subscriber_id == item->entry.id)
			json_array_append_new(lanes, pair_to_json(pair, is_queue));
	}
	json_object_set_new(object, "lanes", lanes);
	return object;
}

int show_as_json(const struct inspect *inspect, const struct inspect_item *channel,
		 struct decode *decode)
{
	const struct shmb_registry_entry *entry = &channel->entry;
	json_t *object = json_object(), *publishers = json_array(), *subscribers = json_array();
	const struct inspect_item *item = NULL;
	struct inspect_sum sum;
	char pattern[24];

	inspect_sum(inspect, channel, &sum);
	look_pattern(entry->pattern, pattern);
	set_text(object, "name", entry->name, entry->name_len);
	set_u64(object, "id", entry->id);
	json_object_set_new(object, "pattern", json_string(pattern));
	set_u64(object, "created_ns", entry->created_ns);
	set_u64(object, "uid", entry->uid);
	json_object_set_new(object, "backing", json_string(look_backing(entry)));
	json_object_set_new(object, "retained", json_boolean(entry->flags & SHMB_ENTRY_RETAINED));
	set_u64(object, "lane_len", entry->lane_len);
	set_u64(object, "max_publishers", entry->max_publishers);
	set_u64(object, "max_subscribers", entry->max_subscribers);
	set_u64(object, "history", entry->history);
	set_u64(object, "ttl_ms", entry->ttl_ms);
	json_object_set_new(object, "ordered", json_boolean(entry->flags & SHMB_ENTRY_ORDERED));
	set_u64(object, "max_fds", entry->max_fds);
	if (entry->pattern == SHMB_PATTERN_STATE)
		set_u64(object, "max_keys", entry->max_keys);
	if (entry->blocks.arena_len)
		json_object_set_new(object, "blocks", blocks_to_json(&entry->blocks));
	set_u64(object, "memory", sum.segments_len);
	set_segment(object, entry);
	json_object_set_new(object, "schema", decode ? schema_to_json(decode) : json_null());
	while ((item = inspect_next(inspect, item, SHMB_ENTRY_PUBLISHER, entry->id)))
		json_array_append_new(publishers, publisher_to_json(inspect, item));
	while ((item = inspect_next(inspect, item, SHMB_ENTRY_SUBSCRIBER, entry->id)))
		json_array_append_new(
			subscribers,
			subscriber_to_json(inspect, item, entry->pattern == SHMB_PATTERN_QUEUE));
	json_object_set_new(object, "publishers", publishers);
	json_object_set_new(object, "subscribers", subscribers);
	return print_json(object, JSON_INDENT(2));
}
