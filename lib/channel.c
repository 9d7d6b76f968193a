/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_channel: opening a channel by name, its schema, and who is there. Everything that
 * decides sizes comes from the broker's sealed answer; the segment is only looked at for the epoch
 * and the counts.
 */

#include "lib/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <shmbroker/cell.h>

#include "lib/api.h"
#include "lib/block.h"
#include "lib/call.h"
#include "lib/clock.h"
#include "lib/error.h"
#include "lib/extension.h"
#include "lib/history.h"
#include "lib/name.h"
#include "lib/options.h"
#include "lib/queue.h"

#define STATE_KEYS_DEFAULT	64u
#define STATE_VALUE_LEN_DEFAULT 232u
#define MEMBER_LOOK_NS		5000000ull

#define INLINE_LEN_DEFAULT (16u << 10) /* see libshmbroker(3): from here on a block is faster */
#define HOLDS_DEFAULT	   4u
#define ARENA_LEN_MIN	   (4ull << 20) /* of the default */

static int check_options(const struct shmb_channel_options *options)
{
	uint32_t known = SHMB_CHANNEL_CREATE | SHMB_CHANNEL_EXCLUSIVE | SHMB_CHANNEL_ANY_SCHEMA |
			 SHMB_CHANNEL_ORDERED | SHMB_CHANNEL_RETAIN;

	if (options->flags & ~known)
		return shmb_fail(-EINVAL, "unknown channel flags 0x%x", options->flags & ~known);
	if (options->pattern && options->pattern != SHMB_PATTERN_STREAM &&
	    options->pattern != SHMB_PATTERN_QUEUE && options->pattern != SHMB_PATTERN_CALL &&
	    options->pattern != SHMB_PATTERN_STATE)
		return shmb_fail(-EINVAL, "there is no pattern %u", options->pattern);
	if (options->max_keys > SHMB_STATE_KEYS_MAX)
		return shmb_fail(-EINVAL, "a channel has at most %u keys, not %u",
				 SHMB_STATE_KEYS_MAX, options->max_keys);
	if (options->lane_len & (options->lane_len - 1) ||
	    (options->lane_len && options->lane_len < SHMB_LANE_LEN_MIN))
		return shmb_fail(-EINVAL, "lane_len is a power of two from %u to %u, not %u",
				 SHMB_LANE_LEN_MIN, SHMB_LANE_LEN_MAX, options->lane_len);
	if (options->max_publishers > 4096 || options->max_subscribers > 4096)
		return shmb_fail(-EINVAL,
				 "a channel has at most 4096 publishers and 4096 "
				 "subscribers, not %u and %u",
				 options->max_publishers, options->max_subscribers);
	if (options->backing > SHMB_BACKING_SEALED)
		return shmb_fail(-EINVAL, "unknown backing %u", options->backing);
	if (!options->schema_len)
		return 0;
	if (!options->schema)
		return shmb_fail(-EINVAL, "schema_len is %u but schema is NULL",
				 options->schema_len);
	return shmb_schema_check(options->schema, options->schema_len);
}

/* What a caller or a server could not send. The options have been checked. */
static int check_call_lens(const struct shmb_channel_options *options,
			   const struct shmb_block_limits *blocks)
{
	uint32_t lane_len = options->lane_len ? options->lane_len : SHMB_CALL_LANE_LEN_DEFAULT;
	uint32_t request_len, reply_len;
	int result;

	if (!options->schema_len || options->pattern != SHMB_PATTERN_CALL)
		return 0;
	result = shmb_call_lens(options->schema, &request_len, &reply_len);
	return result < 0 ? result : shmb_call_lens_fit(lane_len, blocks, request_len, reply_len);
}

static bool has_blocks(const struct shmb_channel_options *options)
{
	return options->record_len_max || options->arena_len || options->inline_len_max ||
	       options->max_holds || options->block_flags || options->numa_node;
}

/* The options have been checked, but for these. */
static int choose_blocks(const struct shmb_channel_options *options,
			 struct shmb_block_limits *limits)
{
	uint32_t pattern = options->pattern ? options->pattern : SHMB_PATTERN_STREAM;
	uint32_t lane_len = options->lane_len		   ? options->lane_len
			    : pattern == SHMB_PATTERN_CALL ? SHMB_CALL_LANE_LEN_DEFAULT
							   : SHMB_LANE_LEN_DEFAULT;
	uint32_t inline_max = shmb_block_inline_max(pattern, lane_len), inline_len;
	uint64_t block_len = (1 + shmb_block_pages(options->record_len_max)) * SHMB_ARENA_PAGE_LEN;
	uint64_t arena_len = 8 * block_len > ARENA_LEN_MIN ? 8 * block_len : ARENA_LEN_MIN;

	if (!has_blocks(options))
		return 0;
	if (pattern != SHMB_PATTERN_STREAM && pattern != SHMB_PATTERN_CALL)
		return shmb_fail(-EINVAL, "only streams and calls have blocks for long records");
	if (!options->record_len_max || options->record_len_max > SHMB_ARENA_RECORD_LEN_MAX)
		return shmb_fail(-EINVAL, "with blocks record_len_max is 1 to %u, not %u",
				 SHMB_ARENA_RECORD_LEN_MAX, options->record_len_max);
	if (options->arena_len &&
	    (options->arena_len < block_len || options->arena_len > SHMB_ARENA_LEN_MAX))
		return shmb_fail(-EINVAL,
				 "for records of %u bytes arena_len is %llu to %llu, not %llu",
				 options->record_len_max, (unsigned long long)block_len,
				 (unsigned long long)SHMB_ARENA_LEN_MAX,
				 (unsigned long long)options->arena_len);
	if (options->inline_len_max > inline_max)
		return shmb_fail(-EINVAL, "a lane of %u bytes holds records of %u bytes, not %u",
				 lane_len, inline_max, options->inline_len_max);
	if (options->max_holds > SHMB_HOLDS_MAX)
		return shmb_fail(-EINVAL, "a subscriber holds at most %u records, not %u",
				 SHMB_HOLDS_MAX, options->max_holds);
	if (options->block_flags & ~SHMB_BLOCKS_HUGE_PAGES)
		return shmb_fail(-EINVAL, "unknown block_flags 0x%x", options->block_flags);
	if (options->numa_node && shmb_map_check_node(options->numa_node - 1) < 0)
		return -EINVAL;
	if (options->arena_len)
		arena_len = shmb_block_pages(options->arena_len) * SHMB_ARENA_PAGE_LEN;
	inline_len = options->inline_len_max	       ? options->inline_len_max
		     : inline_max < INLINE_LEN_DEFAULT ? inline_max
						       : INLINE_LEN_DEFAULT;
	if (inline_len < shmb_block_inline_min(pattern))
		inline_len = shmb_block_inline_min(pattern);
	*limits = (struct shmb_block_limits){
		.arena_len = arena_len,
		.record_len_max = options->record_len_max,
		.inline_len_max = inline_len,
		.max_holds = options->max_holds ? options->max_holds : HOLDS_DEFAULT,
		.flags = options->block_flags,
		.numa_node = options->numa_node,
	};
	return 0;
}

/* Half a lane: what the broker would refuse without saying why. The options have been checked. */
static int check_history(const struct shmb_channel_options *options)
{
	uint32_t lane_len = options->lane_len ? options->lane_len : SHMB_LANE_LEN_DEFAULT;
	struct shmb_schema head = { 0 };
	uint32_t history_max, ext_len;

	if (options->schema_len)
		memcpy(&head, options->schema, sizeof(head));
	if (options->pattern == SHMB_PATTERN_STATE && options->history)
		return shmb_fail(-EINVAL, "a state channel has values, not a history");
	if (options->pattern == SHMB_PATTERN_QUEUE && options->history)
		return shmb_fail(-EINVAL, "a queue has no history: its records are for one worker");
	if (options->pattern == SHMB_PATTERN_CALL && options->history)
		return shmb_fail(-EINVAL,
				 "a call channel has no history: a call is for one server");
	if (options->pattern > SHMB_PATTERN_STREAM && options->ttl_ms)
		return shmb_fail(-EINVAL, "only records of a stream expire");
	if (options->pattern > SHMB_PATTERN_STREAM && options->flags & SHMB_CHANNEL_ORDERED)
		return shmb_fail(-EINVAL, "only records of a stream have one order");
	if (options->pattern > SHMB_PATTERN_STREAM && options->max_fds)
		return shmb_fail(-EINVAL, "only records of a stream carry file descriptors");
	if (options->max_fds > SHMB_FDS_MAX)
		return shmb_fail(-EINVAL, "a record carries at most %u file descriptors, not %u",
				 SHMB_FDS_MAX, options->max_fds);
	ext_len = shmb_ext_len(options->ttl_ms, options->flags & SHMB_CHANNEL_ORDERED,
			       options->max_fds);
	if (ext_len && has_blocks(options))
		return shmb_fail(-EINVAL,
				 "records in blocks neither expire nor have one order, nor "
				 "do they carry file descriptors");
	/* Records may be short although the longest are not: those in blocks take 24 bytes. */
	history_max =
		shmb_history_max(lane_len, has_blocks(options) ? 0 : head.record_len + ext_len);
	if (options->history > history_max)
		return shmb_fail(-EINVAL,
				 "half a lane of %u bytes holds a history of %u records of this "
				 "channel, not %u: create it with a larger lane_len",
				 lane_len, history_max, options->history);
	return 0;
}

/* The broker said that its channel differs from ours: say where. */
static int explain_mismatch(const struct shmb_message *message, uint32_t pattern,
			    const void *schema, uint32_t schema_len)
{
	const uint8_t *theirs = message->body + sizeof(struct shmb_msg_error);
	struct shmb_msg_error error;
	uint32_t theirs_len = message->body_len - (uint32_t)sizeof(struct shmb_msg_error);

	memcpy(&error, message->body, sizeof(error));
	if (error.code == SHMB_CODE_PATTERN)
		return shmb_fail(-EPROTOTYPE,
				 "the channel has another pattern: it is no %s channel",
				 pattern == SHMB_PATTERN_STATE	 ? "state"
				 : pattern == SHMB_PATTERN_CALL	 ? "call"
				 : pattern == SHMB_PATTERN_QUEUE ? "queue"
								 : "stream");
	if (!theirs_len)
		return shmb_fail(-EPROTOTYPE, "the channel is untyped, you have a schema");
	if (!schema_len)
		return shmb_fail(-EPROTOTYPE, "the channel has the schema '%.*s', you have none",
				 (int)SHMB_SCHEMA_NAME_LEN,
				 theirs_len >= sizeof(struct shmb_schema)
					 ? ((const struct shmb_schema *)(const void *)theirs)->name
					 : "?");
	if (shmb_schema_compare(theirs, theirs_len, schema, schema_len) == -EPROTOTYPE)
		return -EPROTOTYPE;
	return shmb_fail(-EPROTOTYPE, "the channel has another schema");
}

static int take_schema(struct shmb_channel *channel, uint32_t schema_len)
{
	struct shmb_schema head;

	if (!schema_len)
		return 0;
	if (schema_len > SHMB_SCHEMA_LEN_MAX || channel->map.len < SHMB_BLOCK_LEN + schema_len)
		return shmb_fail(-EPROTO, "the channel's schema does not fit into its segment");
	channel->schema = malloc(schema_len);
	if (!channel->schema)
		return shmb_fail(-ENOMEM, "no memory for a schema");
	memcpy(channel->schema, (const uint8_t *)channel->segment + SHMB_BLOCK_LEN, schema_len);
	if (shmb_schema_check(channel->schema, schema_len) < 0)
		return -EPROTO;
	memcpy(&head, channel->schema, sizeof(head));
	channel->schema_len = schema_len;
	if (channel->pattern != SHMB_PATTERN_CALL)
		channel->record_len = head.record_len;
	else if (shmb_call_lens(channel->schema, &channel->request_len, &channel->reply_len) < 0)
		return -EPROTO;
	return 0;
}

/* As the broker may give it. */
static bool geometry_valid(const struct shmb_msg_opened *opened)
{
	uint32_t len = opened->lane_len, max_keys = opened->max_keys;

	if (opened->pattern == SHMB_PATTERN_STREAM || opened->pattern == SHMB_PATTERN_QUEUE ||
	    opened->pattern == SHMB_PATTERN_CALL)
		return len >= SHMB_LANE_LEN_MIN && len <= SHMB_LANE_LEN_MAX && !(len & (len - 1)) &&
		       opened->history <= shmb_history_max(len, 0);
	return opened->pattern == SHMB_PATTERN_STATE && max_keys && opened->history == 0 &&
	       opened->ttl_ms == 0 && opened->ordered == 0 && opened->max_fds == 0 &&
	       max_keys <= SHMB_STATE_KEYS_MAX && len <= SHMB_CELLS_LEN_MAX &&
	       len % max_keys == 0 && len / max_keys >= SHMB_CELL_LEN_MIN &&
	       len / max_keys % SHMB_CELL_LEN_MIN == 0;
}

static int take_opened(struct shmb_channel *channel, struct shmb_received *received)
{
	const struct shmb_message *message = &received->message;
	struct shmb_msg_opened opened;
	int result;

	memcpy(&opened, message->body, sizeof(opened));
	if (message->fd_count != 1 || message->descriptors[0].role != SHMB_FD_ROLE_PEER)
		return shmb_fail(-EPROTO, "the broker gave no channel segment");
	if (!geometry_valid(&opened) || opened.max_publishers > 4096 ||
	    opened.max_subscribers > 4096 || opened.max_fds > SHMB_FDS_MAX ||
	    !shmb_block_limits_valid(&opened.blocks, opened.pattern, opened.lane_len))
		return shmb_fail(-EPROTO, "the broker gave impossible limits");
	result = shmb_map_reader(&channel->map, received->fds[0], &message->descriptors[0],
				 SHMB_SEGMENT_CHANNEL);
	if (result < 0)
		return result;
	channel->segment = channel->map.base;
	channel->id = channel->resumable.channel_id = opened.channel_id;
	channel->pattern = opened.pattern;
	channel->max_keys = opened.max_keys;
	channel->lane_len = opened.lane_len;
	channel->max_publishers = opened.max_publishers;
	channel->max_subscribers = opened.max_subscribers;
	channel->history = opened.history;
	channel->blocks = opened.blocks;
	channel->ttl_ms = opened.ttl_ms;
	channel->ordered = opened.ordered;
	channel->max_fds = opened.max_fds;
	channel->ext_len = shmb_ext_len(opened.ttl_ms, opened.ordered, opened.max_fds);
	result = take_schema(channel, opened.schema_len);
	if (result == 0 && opened.pattern == SHMB_PATTERN_CALL &&
	    channel->map.len < shmb_call_servers_offset(channel->schema_len) +
				       opened.max_subscribers * sizeof(struct shmb_call_server))
		return shmb_fail(-EPROTO, "the channel's servers do not fit into its segment");
	if (result == 0 && opened.pattern == SHMB_PATTERN_STATE &&
	    channel->map.len <
		    shmb_state_cells_offset(channel->schema_len, opened.max_keys) + opened.lane_len)
		return shmb_fail(-EPROTO, "the channel's keys do not fit into its segment");
	return result;
}

/* Sends OPEN with the channel's name and a schema behind it. Client locked. */
static int request_open(struct shmb_channel *channel, struct shmb_msg_open *request,
			const void *schema, struct shmb_received *received)
{
	uint8_t body[sizeof(*request) + SHMB_SCHEMA_LEN_MAX];

	request->name_len = channel->name_len;
	memcpy(request->name, channel->name, channel->name_len);
	memcpy(body, request, sizeof(*request));
	if (request->schema_len)
		memcpy(body + sizeof(*request), schema, request->schema_len);
	return shmb_client_request(channel->client, SHMB_MSG_OPEN, body,
				   (uint32_t)sizeof(*request) + request->schema_len,
				   SHMB_MSG_OPENED, sizeof(struct shmb_msg_opened), received);
}

/* After a broker restart: the same name must still be the same channel. */
static int resume(struct shmb_resumable *resumable)
{
	struct shmb_channel *channel = shmb_container_of(resumable, struct shmb_channel, resumable);
	struct shmb_msg_open request = { .flags = SHMB_OPEN_ANY_SCHEMA,
					 .pattern = channel->pattern,
					 .lane_len = channel->lane_len,
					 .max_keys = channel->max_keys };
	struct shmb_msg_opened opened = { 0 };
	struct shmb_received received;
	int result = request_open(channel, &request, NULL, &received);

	if (result == 0)
		memcpy(&opened, received.message.body, sizeof(opened));
	shmb_received_deinit(&received);
	if (result == -ENOENT || (result == 0 && opened.channel_id != channel->id))
		return -ESTALE;
	return result;
}

/* How many cells of which length the channel is to have, if it is made. */
static int ask_for_cells(struct shmb_msg_open *request, const struct shmb_channel_options *options)
{
	uint32_t value_len = options->value_len ? options->value_len : STATE_VALUE_LEN_DEFAULT;
	uint32_t cell_len;
	struct shmb_schema head;

	if (options->schema_len) {
		memcpy(&head, options->schema, sizeof(head));
		value_len = head.record_len;
	}
	request->max_keys = options->max_keys ? options->max_keys : STATE_KEYS_DEFAULT;
	cell_len = shmb_cell_len_for(value_len);
	if (!cell_len || (uint64_t)cell_len * request->max_keys > SHMB_CELLS_LEN_MAX)
		return shmb_fail(-EINVAL,
				 "values of %u bytes for %u keys are too much: twice as much, "
				 "and 48 bytes for each key, are at most %u",
				 value_len, request->max_keys, SHMB_CELLS_LEN_MAX);
	request->lane_len = cell_len * request->max_keys;
	return 0;
}

static int open_channel(struct shmb_channel *channel, const struct shmb_channel_options *options)
{
	struct shmb_msg_open request = {
		.flags = options->flags, /* SHMB_CHANNEL_* are the SHMB_OPEN_* bits */
		.pattern = options->pattern ? options->pattern : SHMB_PATTERN_STREAM,
		.lane_len = options->lane_len,
		.max_publishers = options->max_publishers,
		.max_subscribers = options->max_subscribers,
		.schema_len = options->schema_len,
		.history = options->history,
		.backing = options->backing,
		.ttl_ms = options->ttl_ms,
		.max_fds = options->max_fds,
	};
	struct shmb_received received;
	struct shmb_client *client = channel->client;
	int result = request.pattern == SHMB_PATTERN_STATE ? ask_for_cells(&request, options) : 0;

	if (result == 0)
		result = choose_blocks(options, &request.blocks);
	if (result == 0)
		result = check_call_lens(options, &request.blocks);
	if (result < 0)
		return result;
	pthread_mutex_lock(&client->lock);
	result = request_open(channel, &request, options->schema, &received);
	if (result == 0)
		result = take_opened(channel, &received);
	else if (result == -EPROTOTYPE)
		result = explain_mismatch(&received.message, request.pattern, options->schema,
					  request.schema_len);
	shmb_received_deinit(&received);
	if (result == 0) {
		shmb_client_add(client, &channel->resumable);
		client->n_children++;
	}
	pthread_mutex_unlock(&client->lock);
	return result;
}

static void free_channel(struct shmb_channel *channel)
{
	shmb_map_deinit(&channel->map);
	free(channel->schema);
	free(channel);
}

_Static_assert(SHMB_CHANNEL_CREATE == SHMB_OPEN_CREATE &&
		       SHMB_CHANNEL_EXCLUSIVE == SHMB_OPEN_EXCLUSIVE &&
		       SHMB_CHANNEL_ANY_SCHEMA == SHMB_OPEN_ANY_SCHEMA &&
		       SHMB_CHANNEL_ORDERED == SHMB_OPEN_ORDERED &&
		       SHMB_CHANNEL_RETAIN == SHMB_OPEN_RETAIN,
	       "the flags are passed on as they are");
_Static_assert(SHMB_BLOCKS_HUGE_PAGES == SHMB_ARENA_HUGE_PAGES, "so are these");
_Static_assert(SHMB_BACKING_AUTO == SHMB_MEMORY_AUTO && SHMB_BACKING_POSIX == SHMB_MEMORY_POSIX &&
		       SHMB_BACKING_SEALED == SHMB_MEMORY_SEALED,
	       "and so is the backing");

SHMB_API int32_t shmb_channel_open(struct shmb_client *client, const char *name, uint32_t name_len,
				   const struct shmb_channel_options *given,
				   struct shmb_channel **ret_channel)
{
	struct shmb_channel_options options;
	struct shmb_channel *channel;
	int result;

	if (!client || !name || !ret_channel)
		return shmb_fail(-EINVAL, "client, name or ret_channel is NULL");
	if (!*client->fork_guard)
		return shmb_fail(-ECHILD, "this client belongs to the parent process");
	result = shmb_name_check(name, name_len);
	if (result == 0)
		result = shmb_options_take(&options, sizeof(options), given, "channel");
	if (result == 0)
		result = check_options(&options);
	if (result == 0)
		result = check_history(&options);
	if (result < 0)
		return result;
	if (!given)
		options.flags = SHMB_CHANNEL_CREATE;
	channel = calloc(1, sizeof(*channel));
	if (!channel)
		return shmb_fail(-ENOMEM, "no memory for a channel");
	channel->client = client;
	channel->resumable.resume = resume;
	channel->name_len = name_len;
	memcpy(channel->name, name, name_len);
	result = open_channel(channel, &options);
	if (result < 0) {
		free_channel(channel);
		return result;
	}
	*ret_channel = channel;
	return 0;
}

SHMB_API int32_t shmb_channel_remove(struct shmb_client *client, const char *name,
				     uint32_t name_len)
{
	struct shmb_msg_remove request = { .name_len = name_len };
	int result;

	if (!client || !name)
		return shmb_fail(-EINVAL, "client or name is NULL");
	if (!*client->fork_guard)
		return shmb_fail(-ECHILD, "this client belongs to the parent process");
	result = shmb_name_check(name, name_len);
	if (result < 0)
		return result;
	memcpy(request.name, name, name_len);
	pthread_mutex_lock(&client->lock);
	result = shmb_client_request_ok(client, SHMB_MSG_REMOVE, &request, sizeof(request));
	pthread_mutex_unlock(&client->lock);
	if (result == -EINVAL)
		return shmb_fail(-EINVAL,
				 "the channel is not retained: it goes with its last user");
	return result;
}

SHMB_API int32_t shmb_channel_close(struct shmb_channel *channel)
{
	struct shmb_client *client;

	if (!channel)
		return 0;
	client = channel->client;
	if (!*client->fork_guard) {
		channel->map.base = NULL; /* children do not have the mapping */
		free_channel(channel);
		return 0;
	}
	pthread_mutex_lock(&client->lock);
	if (channel->n_members) {
		pthread_mutex_unlock(&client->lock);
		return shmb_fail(-EBUSY, "%u publishers and subscribers of the channel are open",
				 channel->n_members);
	}
	shmb_client_remove(client, &channel->resumable);
	shmb_client_farewell(client, SHMB_MSG_CLOSE, channel->id);
	client->n_children--;
	pthread_mutex_unlock(&client->lock);
	free_channel(channel);
	return 0;
}

SHMB_API int32_t shmb_channel_schema(struct shmb_channel *channel, void *schema, uint32_t cap)
{
	if (!channel || (cap && !schema))
		return shmb_fail(-EINVAL, "channel or schema is NULL");
	if (channel->schema_len && channel->schema_len <= cap)
		memcpy(schema, channel->schema, channel->schema_len);
	return (int32_t)channel->schema_len;
}

static int check_usable(struct shmb_channel *channel)
{
	if (!channel)
		return shmb_fail(-EINVAL, "channel is NULL");
	if (!*channel->client->fork_guard)
		return shmb_fail(-ECHILD, "this channel belongs to the parent process");
	return 0;
}

SHMB_API int32_t shmb_channel_info(struct shmb_channel *channel, struct shmb_channel_info *info,
				   uint32_t cap)
{
	struct shmb_channel_info all = { 0 };
	int result = check_usable(channel);

	if (result < 0)
		return result;
	if (!info)
		return shmb_fail(-EINVAL, "info is NULL");
	all.lane_len = channel->lane_len;
	all.pattern = channel->pattern;
	all.max_keys = channel->max_keys;
	if (channel->pattern == SHMB_PATTERN_STATE)
		all.value_len_max = shmb_cell_value_len_max(shmb_channel_cell_len(channel));
	else if (channel->pattern == SHMB_PATTERN_QUEUE)
		all.record_len_max = shmb_queue_record_len_max(channel->lane_len);
	else if (channel->pattern == SHMB_PATTERN_CALL)
		all.record_len_max = shmb_call_len_max(channel->lane_len, &channel->blocks);
	else
		all.record_len_max =
			channel->blocks.arena_len
				? channel->blocks.record_len_max
				: shmb_record_len_max(channel->lane_len) - channel->ext_len;
	all.arena_len = channel->blocks.arena_len;
	all.inline_len_max = channel->blocks.inline_len_max;
	all.max_holds = channel->blocks.max_holds;
	all.block_flags = channel->blocks.flags;
	all.numa_node = channel->blocks.numa_node;
	all.record_len = channel->record_len;
	all.request_len = channel->request_len;
	all.reply_len = channel->reply_len;
	all.max_publishers = channel->max_publishers;
	all.max_subscribers = channel->max_subscribers;
	all.history = channel->history;
	all.ttl_ms = channel->ttl_ms;
	all.ordered = channel->ordered;
	all.max_fds = channel->max_fds;
	all.n_publishers = SHMB_LOAD(&channel->segment->n_publishers);
	all.n_subscribers = SHMB_LOAD(&channel->segment->n_subscribers);
	all.backing = SHMB_LOAD(&channel->segment->backing);
	all.retained = SHMB_LOAD(&channel->segment->retained);
	memcpy(info, &all, cap < sizeof(all) ? cap : sizeof(all));
	return 0;
}

SHMB_API int32_t shmb_channel_wait_members(struct shmb_channel *channel, uint32_t publishers,
					   uint32_t subscribers, int64_t timeout_ns)
{
	uint64_t deadline = shmb_clock_deadline_ns(timeout_ns);
	int result = check_usable(channel);

	while (result == 0) {
		uint32_t n_publishers = SHMB_LOAD(&channel->segment->n_publishers);
		uint32_t n_subscribers = SHMB_LOAD(&channel->segment->n_subscribers);
		uint64_t now = shmb_clock_now_ns();
		uint64_t left = shmb_clock_left_ns(deadline, now);
		struct timespec pause =
			shmb_clock_timespec(left < MEMBER_LOOK_NS ? left : MEMBER_LOOK_NS);

		if (n_publishers >= publishers && n_subscribers >= subscribers)
			return 0;
		if (!left)
			return shmb_fail(-ETIMEDOUT,
					 "%u publishers and %u subscribers are there, "
					 "waited for %u and %u",
					 n_publishers, n_subscribers, publishers, subscribers);
		/*
		 * Nobody rings for counts, and meeting is no hot path: look every few milliseconds.
		 * Drain, so that a broker that has been restarted meanwhile is found.
		 */
		pthread_mutex_lock(&channel->client->lock);
		shmb_client_drain(channel->client);
		pthread_mutex_unlock(&channel->client->lock);
		nanosleep(&pause, NULL);
	}
	return result;
}
