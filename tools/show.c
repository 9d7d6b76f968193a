/* SPDX-License-Identifier: Apache-2.0 */

/* shmctl show: all about one channel, for people. show-json.c does it for programs. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/command.h"
#include "tools/decode.h"
#include "tools/inspect.h"
#include "tools/look.h"
#include "tools/print.h"
#include "tools/show.h"

const char *show_sleep_mode(uint32_t mode)
{
	switch (mode) {
	case SHMB_SLEEP_AWAKE:
		return "awake";
	case SHMB_SLEEP_FUTEX:
		return "asleep on futexes";
	case SHMB_SLEEP_FD:
		return "asleep on an fd";
	default:
		return "in an unknown state";
	}
}

int show_schema(const struct inspect *inspect, const struct inspect_item *channel,
		struct decode *decode)
{
	uint32_t len = channel->entry.schema_len;
	char table[SHMB_SCHEMA_LEN_MAX];
	char why[INSPECT_WHY_LEN];

	if (len > sizeof(table) ||
	    inspect_segment(inspect, channel, SHMB_BLOCK_LEN, table, len, why) < 0) {
		complain("cannot read the schema: %s", len > sizeof(table) ? "too long" : why);
		return 1;
	}
	if (decode_init(decode, table, len) < 0) {
		complain("the channel's schema is broken: %s", decode->why);
		return 1;
	}
	return 0;
}

static void print_bytes(const char *name, uint64_t len)
{
	char text[16];

	print_size(text, len);
	printf("%s: %" PRIu64 " bytes", name, len);
	if (len >= 1024)
		printf(" (%s)", text);
	putchar('\n');
}

static void print_fields(const struct decode *decode)
{
	static const char *const titles[] = { "    FIELD", ">OFFSET", ">SIZE", "TYPE" };
	struct table table;
	char type[32];

	table_init(&table, titles, 4, false);
	for (uint32_t i = 0; i < decode->head.n_fields; i++) {
		const struct shmb_schema_field *field = &decode->fields[i];
		uint32_t parent = field->parent, offset = field->offset;
		int depth = 2;

		/* Parents come first in the table, so this ends. */
		for (; parent != SHMB_FIELD_NO_PARENT; parent = decode->fields[parent].parent) {
			offset += decode->fields[parent].offset;
			depth++;
		}
		decode_type_name(field, type);
		table_add(&table, "%*s%.40s", depth * 2, "", field->name);
		table_add(&table, "%" PRIu32, offset);
		table_add(&table, "%" PRIu64, (uint64_t)field->size * field->count);
		table_add(&table, "%s", type);
	}
	table_print(&table, stdout);
	table_deinit(&table);
}

static void print_blocks(const struct shmb_block_limits *limits)
{
	printf("  long records: at most %" PRIu32 " bytes, in blocks from %" PRIu32 " bytes on\n",
	       limits->record_len_max, limits->inline_len_max + 1);
	printf("  blocks: at most %" PRIu64 " bytes of each publisher\n", limits->arena_len);
	printf("  holds: at most %" PRIu32 " of each subscriber\n", limits->max_holds);
	if (limits->flags & SHMB_ARENA_HUGE_PAGES)
		puts("  huge pages: asked for; each arena below says what it got");
	if (limits->numa_node)
		printf("  NUMA node: %" PRIu32 " asked for; each arena below says what it got\n",
		       limits->numa_node - 1);
}

static void print_channel(const struct inspect *inspect, const struct inspect_item *channel,
			  struct decode *decode)
{
	const struct shmb_registry_entry *entry = &channel->entry;
	time_t created = entry->created_ns / 1000000000;
	char pattern[24], when[32];
	struct inspect_sum sum;
	struct tm tm;

	inspect_sum(inspect, channel, &sum);
	look_pattern(entry->pattern, pattern);
	print_safe(stdout, "channel: %.*s", (int)entry->name_len, (const char *)entry->name);
	printf("\n  id: %" PRIu64 "\n  pattern: %s\n", entry->id, pattern);
	if (localtime_r(&created, &tm) && strftime(when, sizeof(when), "%F %T %z", &tm))
		printf("  created: %s by uid %" PRIu32 "\n", when, entry->uid);
	printf("  backing: %s\n", look_backing(entry));
	if (entry->flags & SHMB_ENTRY_RETAINED)
		puts("  retained: yes, until it is removed");
	if (entry->pattern == SHMB_PATTERN_STATE)
		printf("  keys: at most %" PRIu32 ", cells of %" PRIu32 " bytes\n", entry->max_keys,
		       entry->max_keys ? entry->lane_len / entry->max_keys : 0);
	else
		print_bytes("  lane", entry->lane_len);
	print_bytes("  memory", sum.segments_len);
	printf("  segment: %s (%" PRIu64 " bytes)\n", (const char *)entry->segment,
	       entry->segment_len);
	if (channel->is_read)
		printf("  epoch: %" PRIu64 "\n", channel->channel.epoch);
	if (entry->pattern == SHMB_PATTERN_CALL)
		printf("  callers: %" PRIu32 ", servers: %" PRIu32 ", of at most %" PRIu32
		       " together\n  private lanes: %" PRIu32 " of at most %" PRIu32 "\n",
		       sum.n_subscribers - sum.n_servers, sum.n_servers, entry->max_subscribers,
		       sum.n_publishers, entry->max_publishers);
	else
		printf("  publishers: %" PRIu32 " of at most %" PRIu32 "\n  subscribers: %" PRIu32
		       " of at most %" PRIu32 "\n",
		       sum.n_publishers, entry->max_publishers, sum.n_subscribers,
		       entry->max_subscribers);
	if (sum.n_kept)
		printf("  kept: lanes of %" PRIu32 " publishers that have gone\n", sum.n_kept);
	if (entry->blocks.arena_len)
		print_blocks(&entry->blocks);
	if (entry->pattern == SHMB_PATTERN_STREAM)
		printf("  history: %" PRIu32 " records of each publisher\n", entry->history);
	if (entry->flags & SHMB_ENTRY_ORDERED)
		puts("  order: one for the records of all publishers");
	if (entry->ttl_ms)
		printf("  ttl: %" PRIu32 " ms\n", entry->ttl_ms);
	if (entry->max_fds)
		printf("  fds: at most %" PRIu32 " with a record\n", entry->max_fds);
	if (!decode) {
		puts(entry->schema_len			    ? "  schema: unreadable"
		     : entry->pattern == SHMB_PATTERN_STATE ? "  schema: none, values are bytes"
		     : entry->pattern == SHMB_PATTERN_CALL
			     ? "  schema: none, requests and replies are bytes"
			     : "  schema: none, records are bytes");
		return;
	}
	printf("  schema: %.48s, %" PRIu32 " bytes a record\n", decode->head.name,
	       decode->head.record_len);
	print_fields(decode);
}

static const char *state_of(const struct shmb_registry_entry *entry)
{
	if (!(entry->flags & SHMB_MEMBER_KEPT))
		return entry->flags & SHMB_MEMBER_ACTIVE ? "" : " (joining)";
	if (entry->kind == SHMB_ENTRY_SUBSCRIBER)
		return " (has gone, its marks are kept)";
	return entry->client_id ? " (has gone, its lane is kept)"
				: " (the broker's, of what workers have left)";
}

static void print_member(const struct inspect *inspect, const struct inspect_item *member,
			 const char *role)
{
	const struct shmb_registry_entry *entry = &member->entry;
	const struct inspect_item *client;
	char *command;

	printf("\n%s: %" PRIu64 "%s%s%s\n", role, entry->id,
	       entry->flags & SHMB_MEMBER_LOSSY ? " (lossy)" : "",
	       entry->flags & SHMB_MEMBER_TRUSTING ? " (trusting)" : "", state_of(entry));
	client = inspect_find(inspect, SHMB_ENTRY_CLIENT, entry->client_id);
	if (inspect_is_kept(member) && entry->pid) {
		printf("  process: was pid %" PRIu32 ", uid %" PRIu32 "\n", entry->pid, entry->uid);
	} else if (client) {
		command = look_command_line(&client->entry);
		print_safe(stdout,
			   "  process: %.*s, pid %" PRIu32 ", uid %" PRIu32 ", gid %" PRIu32,
			   (int)client->entry.name_len, (const char *)client->entry.name,
			   client->entry.pid, client->entry.uid, client->entry.gid);
		puts(look_is_alive(&client->entry) ? "" : " (has ended)");
		if (command && *command)
			printf("  command: %s\n", command); /* escaped already */
		free(command);
	}
	printf("  segment: %s (%" PRIu64 " bytes), slot %" PRIu32 "\n",
	       entry->segment[0] ? (const char *)entry->segment : "without a name",
	       entry->segment_len, entry->slot);
}

/* For whom a lane is kept. */
static void print_owed(const struct inspect *inspect, const struct inspect_item *publisher)
{
	const struct inspect_item *pair = NULL, *subscriber, *client;

	while ((pair = inspect_next(inspect, pair, SHMB_ENTRY_PAIR, publisher->entry.channel_id))) {
		if (pair->entry.publisher_id != publisher->entry.id)
			continue;
		subscriber =
			inspect_find(inspect, SHMB_ENTRY_SUBSCRIBER, pair->entry.subscriber_id);
		client = subscriber ? inspect_find(inspect, SHMB_ENTRY_CLIENT,
						   subscriber->entry.client_id)
				    : NULL;
		printf("  kept for: subscriber %" PRIu64, pair->entry.subscriber_id);
		if (client)
			printf(", pid %" PRIu32, client->entry.pid);
		putchar('\n');
	}
	if (publisher->entry.flags & SHMB_MEMBER_HISTORY)
		puts("  kept for: late subscribers");
}

/* From which nodes an arena's memory has come. */
static void print_nodes(const struct shmb_registry_entry *client,
			const struct shmb_registry_entry *arena)
{
	uint64_t lens[LOOK_NODES_MAX];

	if (!look_node_lens(client, arena, lens))
		return;
	for (uint32_t node = 0; node < LOOK_NODES_MAX; node++)
		if (lens[node])
			printf(", %" PRIu64 " of node %" PRIu32, lens[node], node);
}

static void print_arenas(const struct inspect *inspect, const struct inspect_item *publisher)
{
	const struct inspect_item *client, *item = NULL;
	uint64_t len = 0, huge_len;
	uint32_t n = 0;

	client = inspect_find(inspect, SHMB_ENTRY_CLIENT, publisher->entry.client_id);
	while ((item = inspect_next(inspect, item, SHMB_ENTRY_ARENA,
				    publisher->entry.channel_id))) {
		if (item->entry.publisher_id != publisher->entry.id)
			continue;
		printf("  arena %" PRIu32 ": %s (%" PRIu64 " bytes", item->entry.slot,
		       (const char *)item->entry.segment, item->entry.segment_len);
		if (client && look_huge_len(&client->entry, &item->entry, &huge_len))
			printf(", %" PRIu64 " of them in huge pages", huge_len);
		if (client)
			print_nodes(&client->entry, &item->entry);
		puts(")");
		len += item->entry.segment_len;
		n++;
	}
	if (n)
		print_bytes("  memory for blocks", len);
}

static void print_publisher(const struct inspect *inspect, const struct inspect_item *item,
			    bool is_state)
{
	print_member(inspect, item, look_role(inspect, item));
	if (item->entry.partner_id)
		printf("  private: to %" PRIu64 ", answers go to %" PRIu64 "\n",
		       item->entry.partner_id, item->entry.reply_to);
	if (item->entry.flags & SHMB_MEMBER_PRIORITY_MASK)
		printf("  priority: %" PRIu32 "\n", inspect_priority(item));
	if (inspect_is_kept(item))
		print_owed(inspect, item);
	if (!item->is_read)
		return;
	if (is_state) {
		printf("  put: %" PRIu64 " values\n", item->lane.sequence);
	} else {
		printf("  published: %" PRIu64 " records, position %" PRIu64 "\n",
		       item->lane.sequence, item->lane.position);
		printf("  lane full: %" PRIu64 " refused, %" PRIu64 " dropped, %" PRIu64
		       " subscribers evicted%s\n",
		       item->lane.refused, item->lane.dropped, item->lane.evicted,
		       item->lane.is_waiting ? "; waits for space now" : "");
	}
	printf("  wake-ups sent: %" PRIu64 "\n", item->lane.rings);
	print_arenas(inspect, item);
}

static void print_holds(const struct inspect *inspect, const struct inspect_item *subscriber)
{
	struct timespec now;
	uint64_t now_ns;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	for (uint32_t i = 0; i < subscriber->cursor.n_holds; i++) {
		const struct shmb_cursor_hold *hold = &subscriber->cursor.holds[i];
		const struct inspect_item *publisher =
			inspect_holdee(inspect, subscriber->entry.channel_id, hold);

		printf("  holds: record %" PRIu64 " of publisher %" PRIu64 ", %" PRIu32 " bytes",
		       hold->sequence, publisher ? publisher->entry.id : 0, hold->len);
		if (hold->since_ns && hold->since_ns <= now_ns)
			printf(", for %.1f s", (double)(now_ns - hold->since_ns) / 1e9);
		putchar('\n');
	}
}

/* How far a subscriber is with one publisher. */
static void print_pair(const struct inspect_item *item, uint32_t pattern)
{
	const struct inspect_pair *pair = &item->pair;

	printf("  from publisher %" PRIu64 ": ", item->entry.publisher_id);
	if (!item->is_read)
		puts("not connected yet");
	else if (pattern == SHMB_PATTERN_STATE)
		puts("values of its keys");
	else if (pattern == SHMB_PATTERN_QUEUE)
		printf("done %" PRIu64 " records, %" PRIu32
		       " in work, the oldest at position %" PRIu64 "; most attempts here %" PRIu32
		       "\n",
		       pair->done, pair->in_work, pair->position, pair->attempts);
	else
		printf("read %" PRIu64 " records, position %" PRIu64 "; behind %" PRIu64
		       " records, %" PRIu64 " bytes; lost %" PRIu64 ", expired %" PRIu64
		       ", conflated %" PRIu64 "%s\n",
		       pair->sequence, pair->position, pair->lag_records, pair->lag_len, pair->lost,
		       pair->expired, pair->conflated, pair->is_evicted ? "; evicted" : "");
	if (item->entry.segment_len)
		printf("    bell: %s (%" PRIu64 " bytes)\n",
		       item->entry.segment[0] ? (const char *)item->entry.segment
					      : "without a name",
		       item->entry.segment_len);
}

/* Does it hold publishers up? In the words of shmbroker(7). */
static void print_guard(const struct shmb_registry_entry *entry)
{
	if (entry->flags & SHMB_MEMBER_LOSSY)
		puts("  backpressure: lossy");
	else if (entry->evict_after_ms)
		printf("  backpressure: evict-after %" PRIu32 " ms\n", entry->evict_after_ms);
	else
		puts("  backpressure: reliable");
}

static void print_subscriber(const struct inspect *inspect, const struct inspect_item *item,
			     uint32_t pattern)
{
	const struct inspect_item *pair = NULL;

	print_member(inspect, item, look_role(inspect, item));
	if (pattern == SHMB_PATTERN_STREAM)
		print_guard(&item->entry);
	if (!item->is_read)
		return;
	printf("  state: %s; slept %" PRIu64 " times, %" PRIu64 " backstops\n",
	       show_sleep_mode(item->cursor.sleep_mode), item->cursor.sleeps,
	       item->cursor.backstops);
	if (pattern == SHMB_PATTERN_QUEUE)
		printf("  credit: %" PRIu32 " records of each publisher\n", item->cursor.credit);
	print_holds(inspect, item);
	while ((pair = inspect_next(inspect, pair, SHMB_ENTRY_PAIR, item->entry.channel_id))) {
		if (pair->entry.subscriber_id == item->entry.id)
			print_pair(pair, pattern);
	}
}

static int print_all(const struct inspect *inspect, const struct inspect_item *channel,
		     struct decode *decode)
{
	uint32_t pattern = channel->entry.pattern;
	const struct inspect_item *item = NULL;

	print_channel(inspect, channel, decode);
	while ((item = inspect_next(inspect, item, SHMB_ENTRY_PUBLISHER, channel->entry.id)))
		print_publisher(inspect, item, pattern == SHMB_PATTERN_STATE);
	while ((item = inspect_next(inspect, item, SHMB_ENTRY_SUBSCRIBER, channel->entry.id)))
		print_subscriber(inspect, item, pattern);
	return 0;
}

int command_show(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = command_parse_channel,
		.args_doc = "CHANNEL",
		.doc = "Show one channel: its schema, limits and memory, and each member with its "
		       "process, positions and counters.\vPositions of publishers follow their lazy "
		       "hints: they are at least so far. A backstop above 0 is a lost wake-up: "
		       "please report it.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};
	const struct inspect_item *channel;
	struct inspect inspect;
	struct decode decode;
	const char *name = NULL;
	bool has_schema;
	int status = 0;

	argp_parse(&argp, argc, argv, 0, NULL, &name);
	if (look_open(&inspect))
		return 1;
	channel = inspect_channel(&inspect, name);
	if (!channel) {
		complain("there is no channel '%s'", name);
		inspect_close(&inspect);
		return 1;
	}
	has_schema = channel->is_read && channel->entry.schema_len > 0;
	if (has_schema && show_schema(&inspect, channel, &decode)) {
		has_schema = false;
		status = 1;
	}
	status |= (common.is_json ? show_as_json : print_all)(&inspect, channel,
							      has_schema ? &decode : NULL);
	status |= look_complain_about(&inspect, channel);
	inspect_close(&inspect);
	return status;
}
