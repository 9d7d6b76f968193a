/* SPDX-License-Identifier: Apache-2.0 */

/* Requests for channels. */

#include <errno.h>
#include <string.h>

#include <shmbroker/schema.h>

#include "lib/block.h"
#include "lib/call.h"
#include "lib/extension.h"
#include "lib/history.h"
#include "lib/name.h"

#include "daemon/channel.h"
#include "daemon/member.h"
#include "daemon/request.h"

/* Of a schema that has been checked; 0: there is none. */
static uint32_t record_len(const void *schema, uint32_t schema_len)
{
	struct shmb_schema head = { 0 };

	if (schema_len)
		memcpy(&head, schema, sizeof(head));
	return head.record_len;
}

/* Fills in defaults. */
static int open_check(struct shmb_msg_open *open, const void *schema, uint32_t schema_len)
{
	uint32_t known = SHMB_OPEN_CREATE | SHMB_OPEN_EXCLUSIVE | SHMB_OPEN_ANY_SCHEMA |
			 SHMB_OPEN_ORDERED | SHMB_OPEN_RETAIN;
	uint32_t ext_len =
		shmb_ext_len(open->ttl_ms, open->flags & SHMB_OPEN_ORDERED, open->max_fds);
	uint32_t request_len = 0, reply_len = 0;

	if ((open->flags & ~known) || open->max_fds > SHMB_FDS_MAX ||
	    (ext_len && open->pattern != SHMB_PATTERN_STREAM) ||
	    open->backing > SHMB_MEMORY_SEALED || open->name_len > SHMB_NAME_LEN_MAX ||
	    open->schema_len != schema_len)
		return -EINVAL;
	if (shmb_name_check((const char *)open->name, open->name_len) < 0)
		return -EINVAL;
	if (schema_len && shmb_schema_check(schema, schema_len) < 0)
		return -EINVAL;
	if (schema_len && open->pattern == SHMB_PATTERN_CALL &&
	    shmb_call_lens(schema, &request_len, &reply_len) < 0)
		return -EINVAL;
	if (!open->lane_len && open->pattern != SHMB_PATTERN_STATE)
		open->lane_len = open->pattern == SHMB_PATTERN_CALL ? SHMB_CALL_LANE_LEN_DEFAULT
								    : SHMB_LANE_LEN_DEFAULT;
	if (!open->max_publishers)
		open->max_publishers = open->pattern == SHMB_PATTERN_CALL ? SHMB_CALL_LANES_DEFAULT
									  : CHANNEL_MEMBERS_DEFAULT;
	if (!open->max_subscribers)
		open->max_subscribers = open->pattern == SHMB_PATTERN_CALL
						? SHMB_CALL_MEMBERS_DEFAULT
						: CHANNEL_MEMBERS_DEFAULT;
	if (!channel_geometry_valid(open->pattern, open->lane_len, open->max_keys) ||
	    open->max_publishers > CHANNEL_MEMBERS_MAX ||
	    open->max_subscribers > CHANNEL_MEMBERS_MAX || (open->blocks.arena_len && ext_len) ||
	    !shmb_block_limits_valid(&open->blocks, open->pattern, open->lane_len) ||
	    open->history > channel_history_max(open->pattern, open->lane_len,
						open->blocks.arena_len
							? 0
							: record_len(schema, schema_len) + ext_len))
		return -EINVAL;
	return open->pattern == SHMB_PATTERN_CALL
		       ? shmb_call_lens_fit(open->lane_len, &open->blocks, request_len, reply_len)
		       : 0;
}

static int open_existing(struct request *request, struct channel *channel,
			 const struct shmb_msg_open *open, const void *schema)
{
	/* Absent and forbidden look the same. */
	if (!request_permits(request, POLICY_PUBLISH, channel->name, channel->name_len) &&
	    !request_permits(request, POLICY_SUBSCRIBE, channel->name, channel->name_len) &&
	    !request_permits(request, POLICY_INSPECT, channel->name, channel->name_len))
		return -EACCES;
	if (open->flags & SHMB_OPEN_EXCLUSIVE)
		return -EEXIST;
	if (open->flags & SHMB_OPEN_RETAIN && !channel->retained &&
	    !request_permits(request, POLICY_CREATE, channel->name, channel->name_len))
		return -EACCES;
	if (open->pattern != channel->pattern)
		return -ENOTTY;
	if (open->flags & SHMB_OPEN_ANY_SCHEMA)
		return 0;
	if (!channel->schema_len && !open->schema_len)
		return 0;
	if (!channel->schema_len || !open->schema_len ||
	    shmb_schema_compare(channel_schema(channel), channel->schema_len, schema,
				open->schema_len) < 0) {
		request->mismatch = channel;
		return -EPROTOTYPE;
	}
	return 0;
}

/* May its records carry that many? */
static int check_fds(struct request *request, const struct shmb_msg_open *open)
{
	struct policy_subject subject = request_subject(request->connection);
	uint32_t max;

	if (!open->max_fds)
		return 0;
	max = policy_fds_max(request->connection->broker->policy, &subject,
			     (const char *)open->name, open->name_len);
	if (open->max_fds <= max)
		return 0;
	request->limit = max;
	request->asked = open->max_fds;
	return -ERANGE;
}

static int open_new(struct request *request, struct shmb_msg_open *open, const void *schema,
		    struct channel **ret_channel)
{
	struct client *client = request->client;
	int r;

	if (!(open->flags & SHMB_OPEN_CREATE))
		return -ENOENT;
	if (!request_permits(request, POLICY_CREATE, open->name, open->name_len))
		return -EACCES;
	r = check_fds(request, open);
	if (r < 0)
		return r;
	open->backing = policy_backing(client->broker->policy, (const char *)open->name,
				       open->name_len, open->backing);
	r = channel_new(client->broker, client->user, client->uid, open, schema, ret_channel);
	if (r == -EDQUOT) {
		request->limit = client->user->limits.max[QUOTA_CHANNELS];
		request->asked = client->user->used[QUOTA_CHANNELS] + 1;
	}
	return r;
}

int request_handle_open(struct request *request)
{
	const struct shmb_message *message = request->message;
	const void *schema = message->body + sizeof(struct shmb_msg_open);
	struct channel *channel;
	struct shmb_msg_open open;
	bool created;
	int r;

	if (message->body_len < sizeof(open))
		return -EINVAL;
	memcpy(&open, message->body, sizeof(open));
	r = open_check(&open, schema, message->body_len - (uint32_t)sizeof(open));
	if (r < 0)
		return r;
	channel = channel_find(request->connection->broker, open.name, open.name_len);
	created = !channel;
	if (channel)
		r = open_existing(request, channel, &open, schema);
	else
		r = open_new(request, &open, schema, &channel);
	if (r < 0)
		return r;
	r = parcel_add_segment(&request->parcel, &request->connection->broker->maker,
			       &channel->object.segment, SHMB_FD_READ, SHMB_FD_ROLE_PEER);
	if (r == 0)
		r = channel_open(channel, request->client);
	if (r < 0) {
		channel_put(channel);
		return r;
	}
	if (open.flags & SHMB_OPEN_RETAIN)
		channel_set_retained(channel, true);
	request->type = SHMB_MSG_OPENED;
	request->body.opened = (struct shmb_msg_opened){
		.channel_id = object_id(&channel->object),
		.created = created,
		.pattern = channel->pattern,
		.max_keys = channel->max_keys,
		.lane_len = channel->lane_len,
		.max_publishers = channel->max_publishers,
		.max_subscribers = channel->max_subscribers,
		.schema_len = channel->schema_len,
		.history = channel->history,
		.blocks = channel->blocks,
		.ttl_ms = channel->ttl_ms,
		.ordered = channel->ordered,
		.max_fds = channel->max_fds,
	};
	request->body_len = sizeof(request->body.opened);
	return 0;
}

int request_handle_close(struct request *request)
{
	struct channel *channel;
	struct shmb_msg_id id;
	int r;

	r = request_body(request, &id, sizeof(id));
	if (r < 0)
		return r;
	if (id.id == object_id(&request->client->object)) {
		request->client->leaving = true;
		return 0;
	}
	channel = request_find_channel(request, id.id);
	return channel ? channel_close(channel, request->client) : -ENOENT;
}

/* Its creator may, if it may create it again, and an administrator. */
int request_handle_remove(struct request *request)
{
	struct shmb_msg_remove remove;
	struct channel *channel;
	bool own;
	int r;

	r = request_body(request, &remove, sizeof(remove));
	if (r < 0)
		return r;
	if (remove.zero || remove.name_len > sizeof(remove.name) ||
	    shmb_name_check((const char *)remove.name, remove.name_len) < 0)
		return -EINVAL;
	channel = channel_find(request->connection->broker, remove.name, remove.name_len);
	if (!channel)
		return -ENOENT;
	own = channel->user == request->client->user;
	if (!request_permits(request, POLICY_ADMIN, channel->name, channel->name_len) &&
	    !(own && request_permits(request, POLICY_CREATE, channel->name, channel->name_len)))
		return -EACCES;
	if (!channel->retained)
		return -EINVAL;
	log_line(&channel->broker->log, LOG_INFO, "channel-removed",
		 "channel=%llu name=%.*s uid=%u", (unsigned long long)object_id(&channel->object),
		 (int)channel->name_len, (const char *)channel->name, request->client->uid);
	/* It is there until the last of these has gone. */
	member_drop_history(channel);
	channel_set_retained(channel, false);
	channel_put(channel);
	return 0;
}
