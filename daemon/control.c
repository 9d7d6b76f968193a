/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include <sodium.h>

#include <shmbroker/schema.h>

#include "lib/block.h"
#include "lib/call.h"
#include "lib/extension.h"
#include "lib/history.h"
#include "lib/name.h"
#include "lib/queue.h"

#include "daemon/arena.h"
#include "daemon/channel.h"
#include "daemon/client.h"
#include "daemon/control.h"
#include "daemon/estate.h"
#include "daemon/key.h"
#include "daemon/member.h"
#include "daemon/pair.h"
#include "daemon/view.h"

/**
 * struct request - a request and the answer that its handler makes
 * @connection: from whom
 * @client:	NULL before JOIN
 * @message:	the request
 * @type:	of the answer, OK if the handler does not say
 * @body:	of the answer
 * @body_len:	of the answer
 * @parcel:	rides with the answer
 * @granted:	member whose doorbell rides with the answer
 * @resumed:	tell it of its pairs after the answer
 * @limit:	-EDQUOT: which limit was reached; -EBUSY: pid of whose it is; -EPERM: the longest
 *		evict_after_ms; -EDOM: the highest priority
 * @asked:	-EDQUOT, -EPERM, -EDOM: by which number
 * @mismatch:	-EPROTOTYPE: the channel that has another schema
 */
struct request {
	struct connection *connection;
	struct client *client;
	const struct shmb_message *message;
	uint32_t type;
	union {
		struct shmb_msg_joined joined;
		struct shmb_msg_opened opened;
		struct shmb_msg_grant grant;
		struct shmb_msg_claimed claimed;
	} body;
	uint32_t body_len;
	struct parcel parcel;
	struct member *granted;
	bool resumed;
	uint64_t limit;
	uint64_t asked;
	const struct channel *mismatch;
};

static const struct {
	int error;
	uint32_t code;
} codes[] = {
	{ EACCES, SHMB_CODE_DENIED_OR_UNKNOWN },
	{ EPERM, SHMB_CODE_HOLD },
	{ EDOM, SHMB_CODE_PRIORITY },
	{ ERANGE, SHMB_CODE_FDS },
	{ ENOENT, SHMB_CODE_DENIED_OR_UNKNOWN },
	{ EDQUOT, SHMB_CODE_QUOTA },
	{ EUSERS, SHMB_CODE_QUOTA },
	{ EINVAL, SHMB_CODE_BAD_REQUEST },
	{ EALREADY, SHMB_CODE_BAD_REQUEST },
	{ EBUSY, SHMB_CODE_BUSY },
	{ ESTALE, SHMB_CODE_GONE },
	{ EPROTOTYPE, SHMB_CODE_SCHEMA },
	{ ENOTTY, SHMB_CODE_PATTERN },
	{ EEXIST, SHMB_CODE_EXISTS },
	{ ENOSPC, SHMB_CODE_NO_MEMORY },
	{ ENOMEM, SHMB_CODE_NO_MEMORY },
	{ EFBIG, SHMB_CODE_NO_MEMORY },
	{ EMFILE, SHMB_CODE_NO_FDS },
	{ ENFILE, SHMB_CODE_NO_FDS },
};

static uint32_t code_of(int error)
{
	for (size_t i = 0; i < SHMB_ARRAY_LEN(codes); i++)
		if (codes[i].error == -error)
			return codes[i].code;
	return SHMB_CODE_INTERNAL;
}

static struct policy_subject subject_of(const struct connection *connection)
{
	return (struct policy_subject){
		.uid = connection->peer.uid,
		.gid = connection->peer.gid,
		.groups = connection->peer.groups,
		.n_groups = connection->peer.n_groups,
		.key = connection->key,
	};
}

static bool request_permits(const struct request *request, uint32_t op, const void *name,
			    uint32_t name_len)
{
	struct policy_subject subject = subject_of(request->connection);

	return policy_check(request->connection->broker->policy, &subject, op, name, name_len,
			    NULL);
}

/* Takes over the fixed part of the body. */
static int request_body(const struct request *request, void *body, uint32_t len)
{
	if (request->message->body_len != len)
		return -EINVAL;
	memcpy(body, request->message->body, len);
	return 0;
}

static struct channel *find_channel(const struct request *request, uint64_t id)
{
	struct object *object = broker_find(request->connection->broker, id, SHMB_ENTRY_CHANNEL);

	return object ? shmb_container_of(object, struct channel, object) : NULL;
}

/* A member of this client, or NULL. */
static struct member *find_member(const struct request *request, uint64_t id)
{
	struct broker *broker = request->connection->broker;
	struct object *object = broker_find(broker, id, SHMB_ENTRY_PUBLISHER);
	struct member *member;

	if (!object)
		object = broker_find(broker, id, SHMB_ENTRY_SUBSCRIBER);
	if (!object)
		return NULL;
	member = shmb_container_of(object, struct member, object);
	return member->client == request->client ? member : NULL;
}

/* An arena of this client's, or NULL. */
static struct arena *find_arena(const struct request *request, uint64_t id)
{
	struct object *object = broker_find(request->connection->broker, id, SHMB_ENTRY_ARENA);
	struct arena *arena = object ? shmb_container_of(object, struct arena, object) : NULL;

	return arena && arena->member->client == request->client ? arena : NULL;
}

static int handle_join(struct request *request)
{
	struct connection *connection = request->connection;
	struct broker *broker = connection->broker;
	struct client *client = NULL;
	uint8_t token[SHMB_TOKEN_LEN];
	struct shmb_msg_join join;
	int r;

	if (request->client)
		return -EINVAL;
	r = request_body(request, &join, sizeof(join));
	if (r < 0)
		return r;
	memcpy(token, join.token, sizeof(token));
	if (join.client_id)
		client = client_rejoin(connection, join.client_id, token);
	if (!client) {
		r = client_new(connection, token, &client);
		if (r < 0)
			return r;
	}
	request->client = client;
	request->type = SHMB_MSG_JOINED;
	request->body.joined = (struct shmb_msg_joined){
		.client_id = object_id(&client->object),
		.instance = broker->maker.instance,
		.broker_epoch = registry_epoch(&broker->registry),
	};
	memcpy(request->body.joined.token, token, sizeof(token));
	request->body_len = sizeof(request->body.joined);
	return parcel_add_segment(&request->parcel, &broker->maker, &client->object.segment,
				  SHMB_FD_READ, SHMB_FD_ROLE_BELL);
}

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
	struct policy_subject subject = subject_of(request->connection);
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

static int handle_open(struct request *request)
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

static int handle_close(struct request *request)
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
	channel = find_channel(request, id.id);
	return channel ? channel_close(channel, request->client) : -ENOENT;
}

/* Its creator may, if it may create it again, and an administrator. */
static int handle_remove(struct request *request)
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

static void explain_quota(struct request *request, const struct channel *channel, uint32_t role,
			  int error)
{
	const struct quota_user *user = request->client->user;
	uint64_t len = member_segment_len(channel, role);

	if (error == -EUSERS) {
		request->limit = channel->n_members[role - 1];
		/* So many that have gone have still to be done with. */
		if (role == SHMB_ROLE_PUBLISHER && request->limit < channel->max_publishers)
			request->limit =
				shmb_cursor_slots(channel->pattern, channel->max_publishers) - 1;
		request->asked = request->limit + 1;
	} else if (user->used[QUOTA_MEMBERS] >= user->limits.max[QUOTA_MEMBERS]) {
		request->limit = user->limits.max[QUOTA_MEMBERS];
		request->asked = user->used[QUOTA_MEMBERS] + 1;
	} else if (channel->max_fds &&
		   user->used[QUOTA_FD_PAIRS] >= user->limits.max[QUOTA_FD_PAIRS]) {
		request->limit = user->limits.max[QUOTA_FD_PAIRS];
		request->asked = user->used[QUOTA_FD_PAIRS] + 1;
	} else {
		request->limit = user->limits.max[QUOTA_BYTES];
		request->asked = user->used[QUOTA_BYTES] + len;
	}
}

static int reply_grant(struct request *request, struct member *member)
{
	request->type = SHMB_MSG_GRANT;
	request->body.grant = (struct shmb_msg_grant){
		.member_id = object_id(&member->object),
		.segment_len = member->object.segment.len,
		.slot = member->slot,
		.doorbell_generation = member->generation,
	};
	request->body_len = sizeof(request->body.grant);
	request->granted = member;
	/* Of a member that has come back and has to move: where to. */
	if (segment_exists(&member->next)) {
		int r = parcel_add_segment(&request->parcel, &member->client->broker->maker,
					   &member->next, SHMB_FD_READ_WRITE, SHMB_FD_ROLE_OWN);

		if (r < 0)
			return r;
		view_unmark(member->move);
	}
	return parcel_add_fd(&request->parcel, member->doorbell, SHMB_FD_EVENTFD,
			     SHMB_FD_ROLE_DOORBELL);
}

/* A subscriber of a channel that has been announced, or NULL. */
static struct member *find_subscriber(const struct channel *channel, uint64_t id)
{
	struct object *object = broker_find(channel->broker, id, SHMB_ENTRY_SUBSCRIBER);
	struct member *member = object ? shmb_container_of(object, struct member, object) : NULL;

	return member && member->channel == channel && member->flags & SHMB_MEMBER_ACTIVE ? member
											  : NULL;
}

/*
 * Callers send, so they need what publishers need; servers receive. A private lane is its client's as
 * caller or as server, as the subscriber is at which it waits for answers.
 */
static int attach_check_call(const struct request *request, const struct channel *channel,
			     const struct shmb_msg_attach *attach,
			     const struct shmb_msg_attach_private *private, uint32_t *ret_op)
{
	const struct member *partner, *mine;
	bool server = attach->flags & SHMB_MEMBER_SERVER;

	if (attach->history || attach->evict_after_ms || attach->flags & SHMB_MEMBER_PRIORITY_MASK)
		return -EINVAL;
	if (attach->role == SHMB_ROLE_PUBLISHER) {
		partner = find_subscriber(channel, private->partner_id);
		mine = find_subscriber(channel, private->reply_to);
		if (!partner || !mine || mine->client != request->client)
			return -ESTALE;
		server = mine->flags & SHMB_MEMBER_SERVER;
		if (server == !!(partner->flags & SHMB_MEMBER_SERVER))
			return -EINVAL;
	} else if (attach->flags & SHMB_MEMBER_LOSSY || private->partner_id || private->reply_to) {
		return -EINVAL;
	}
	*ret_op = server ? POLICY_SUBSCRIBE : POLICY_PUBLISH;
	return 0;
}

/* May there be such a member? Stores what its client must be permitted. */
static int attach_check(const struct request *request, const struct channel *channel,
			const struct shmb_msg_attach *attach,
			const struct shmb_msg_attach_private *private, uint32_t *ret_op)
{
	bool publisher = attach->role == SHMB_ROLE_PUBLISHER;

	if (channel->pattern == SHMB_PATTERN_CALL)
		return attach_check_call(request, channel, attach, private, ret_op);
	if (private->partner_id || private->reply_to || attach->flags & SHMB_MEMBER_SERVER)
		return -EINVAL;
	if (attach->flags & SHMB_MEMBER_PRIORITY_MASK &&
	    (channel->ordered || channel->pattern == SHMB_PATTERN_STATE))
		return -EINVAL;
	*ret_op = publisher ? POLICY_PUBLISH : POLICY_SUBSCRIBE;
	return 0;
}

/* Whatever the channel is. */
static int attach_body(const struct request *request, struct shmb_msg_attach *attach,
		       struct shmb_msg_attach_private *private)
{
	const uint8_t *body = request->message->body;

	if (request->message->body_len == sizeof(*attach) + sizeof(*private))
		memcpy(private, body + sizeof(*attach), sizeof(*private));
	else if (request->message->body_len != sizeof(*attach))
		return -EINVAL;
	memcpy(attach, body, sizeof(*attach));
	if (attach->role == SHMB_ROLE_PUBLISHER)
		return attach->flags & ~(SHMB_MEMBER_TRUSTING | SHMB_MEMBER_PRIORITY_MASK) ||
				       attach->history || attach->evict_after_ms
			       ? -EINVAL
			       : 0;
	if (attach->role != SHMB_ROLE_SUBSCRIBER ||
	    attach->flags & ~(SHMB_MEMBER_LOSSY | SHMB_MEMBER_SERVER))
		return -EINVAL;
	/* It holds nobody up. */
	return attach->flags & SHMB_MEMBER_LOSSY && attach->evict_after_ms ? -EINVAL : 0;
}

/* May it hold publishers up for as long as it wants to? */
static int check_hold(struct request *request, const struct channel *channel,
		      const struct shmb_msg_attach *attach)
{
	struct policy_subject subject = subject_of(request->connection);
	uint32_t max_ms;

	if (attach->role != SHMB_ROLE_SUBSCRIBER || attach->flags & SHMB_MEMBER_LOSSY ||
	    channel->pattern != SHMB_PATTERN_STREAM)
		return 0;
	max_ms = policy_evict_after_ms(request->connection->broker->policy, &subject,
				       (const char *)channel->name, channel->name_len);
	if (max_ms == POLICY_EVICT_NEVER ||
	    (attach->evict_after_ms && attach->evict_after_ms <= max_ms))
		return 0;
	request->limit = max_ms;
	request->asked = attach->evict_after_ms;
	return -EPERM;
}

/* May it be received before those of others? */
static int check_priority(struct request *request, const struct channel *channel,
			  const struct shmb_msg_attach *attach)
{
	uint32_t priority =
		(attach->flags & SHMB_MEMBER_PRIORITY_MASK) >> SHMB_MEMBER_PRIORITY_SHIFT;
	struct policy_subject subject = subject_of(request->connection);
	uint32_t max;

	if (!priority)
		return 0;
	max = policy_priority_max(request->connection->broker->policy, &subject,
				  (const char *)channel->name, channel->name_len);
	if (priority <= max)
		return 0;
	request->limit = max;
	request->asked = priority;
	return -EDOM;
}

static int handle_attach(struct request *request)
{
	struct shmb_msg_attach_private private = { 0 };
	struct shmb_msg_attach attach;
	struct channel *channel;
	struct member *member;
	uint32_t op;
	int r;

	r = attach_body(request, &attach, &private);
	if (r < 0)
		return r;
	channel = find_channel(request, attach.channel_id);
	if (!channel || !channel_is_open(channel, request->client))
		return -ENOENT;
	r = attach_check(request, channel, &attach, &private, &op);
	if (r < 0)
		return r;
	if (!request_permits(request, op, channel->name, channel->name_len))
		return -EACCES;
	r = check_hold(request, channel, &attach);
	if (r == 0)
		r = check_priority(request, channel, &attach);
	if (r == 0)
		r = member_choose_backing(channel, request->client->uid);
	if (r == 0)
		r = member_new(channel, request->client, &attach, &private, &member);
	if (r < 0) {
		if (r == -EDQUOT || r == -EUSERS)
			explain_quota(request, channel, attach.role, r);
		return r;
	}
	r = parcel_add_segment(&request->parcel, &request->connection->broker->maker,
			       &member->object.segment, SHMB_FD_READ_WRITE, SHMB_FD_ROLE_OWN);
	if (r == 0)
		r = reply_grant(request, member);
	if (r < 0) {
		request->granted = NULL;
		member_free(member, SHMB_GONE_DETACHED);
	}
	return r;
}

static int handle_activate(struct request *request)
{
	struct member *member;
	struct arena *arena;
	struct shmb_msg_id id;
	int r;

	r = request_body(request, &id, sizeof(id));
	if (r < 0)
		return r;
	arena = find_arena(request, id.id);
	if (arena)
		return arena_activate(arena);
	member = find_member(request, id.id);
	if (!member)
		return -ESTALE;
	/*
	 * It was announced, and then whoever did so could not say it: a broker that was killed, or a
	 * connection that ended. Its client has no doorbell of ours, and begins anew.
	 */
	if (member->flags & SHMB_MEMBER_ACTIVE && !member->present) {
		member_free(member, SHMB_GONE_DETACHED);
		return -ESTALE;
	}
	r = member_activate(member);
	if (r == -EDQUOT)
		explain_quota(request, member->channel, member->role, r);
	return r;
}

static int handle_detach(struct request *request)
{
	struct member *member;
	struct arena *arena;
	struct shmb_msg_id id;
	int r;

	r = request_body(request, &id, sizeof(id));
	if (r < 0)
		return r;
	arena = find_arena(request, id.id);
	if (arena) {
		struct channel *channel = arena->member->channel;

		arena_free(arena);
		channel_changed(channel);
		return 0;
	}
	member = find_member(request, id.id);
	if (!member)
		return -ESTALE;
	member_free(member, SHMB_GONE_DETACHED);
	return 0;
}

static int handle_extend(struct request *request)
{
	const struct quota_user *user = request->client->user;
	struct shmb_msg_extend extend;
	struct member *member;
	struct arena *arena;
	int r;

	r = request_body(request, &extend, sizeof(extend));
	if (r < 0)
		return r;
	member = find_member(request, extend.member_id);
	if (!member)
		return -ESTALE;
	r = extend.zero ? -EINVAL : arena_new(member, extend.number, extend.segment_len, &arena);
	if (r == -EDQUOT) {
		request->limit = user->limits.max[QUOTA_BYTES];
		request->asked = user->used[QUOTA_BYTES] + extend.segment_len;
		if (request->asked <= request->limit)
			request->limit = request->asked = member->channel->blocks.arena_len;
	}
	if (r < 0)
		return r;
	request->type = SHMB_MSG_GRANT;
	request->body.grant = (struct shmb_msg_grant){
		.member_id = object_id(&arena->object),
		.segment_len = extend.segment_len,
		.slot = extend.number,
	};
	request->body_len = sizeof(request->body.grant);
	r = parcel_add_segment(&request->parcel, &request->connection->broker->maker,
			       &arena->object.segment, SHMB_FD_READ_WRITE, SHMB_FD_ROLE_OWN);
	if (r < 0)
		arena_free(arena);
	return r;
}

/* One of the member's pairs, or NULL. */
static struct pair *find_pair(const struct request *request, const struct member *member,
			      uint64_t id)
{
	struct object *object = broker_find(request->connection->broker, id, SHMB_ENTRY_PAIR);
	struct pair *pair = object ? shmb_container_of(object, struct pair, object) : NULL;

	return pair && pair->members[member->role - 1] == member ? pair : NULL;
}

/* The pair of a member and a peer that may not exist, or NULL. */
static struct pair *find_pair_with(const struct request *request, const struct member *member,
				   uint64_t peer_id)
{
	bool publisher = member->role == SHMB_ROLE_PUBLISHER;
	struct object *object =
		broker_find(request->connection->broker, peer_id,
			    publisher ? SHMB_ENTRY_SUBSCRIBER : SHMB_ENTRY_PUBLISHER);
	struct member *peer = object ? shmb_container_of(object, struct member, object) : NULL;

	if (!peer)
		return NULL;
	return publisher ? pair_find(member, peer) : pair_find(peer, member);
}

static int resume_pair(struct request *request, struct member *member, uint64_t id,
		       uint64_t peer_id)
{
	struct pair *pair = find_pair(request, member, id);
	struct view *view;

	/* A broker that has died may have put another one in its place. */
	if (!pair)
		pair = find_pair_with(request, member, peer_id);
	if (!pair)
		return view_deny(request->client, id, object_id(&member->object));
	view = pair->views[member->role - 1];
	/* The newest that it knows. */
	if (object_id(&pair->object) != id && id > view->known_id)
		view->known_id = id;
	/* It may not be shown soon, but the client will have to be told when it ends. */
	view->shown = true;
	return 0;
}

/* What the client says of its pairs: those that are gone it has to be told of. */
static int resume_pairs(struct request *request, struct member *member, uint32_t n_pairs)
{
	const uint8_t *ids = request->message->body + sizeof(struct shmb_msg_resume);
	const uint8_t *peers = ids + n_pairs * sizeof(uint64_t);
	bool with_peers = peers < request->message->body + request->message->body_len;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n_pairs; i++) {
		uint64_t id, peer_id = 0;

		memcpy(&id, ids + i * sizeof(id), sizeof(id));
		if (with_peers)
			memcpy(&peer_id, peers + i * sizeof(peer_id), sizeof(peer_id));
		r = resume_pair(request, member, id, peer_id);
	}
	return r;
}

static int handle_resume(struct request *request)
{
	const struct shmb_message *message = request->message;
	struct shmb_msg_resume resume;
	struct member *member;
	int r;

	if (message->body_len < sizeof(resume))
		return -EINVAL;
	memcpy(&resume, message->body, sizeof(resume));
	if (resume.n_pairs > SHMB_PACKET_LEN_MAX ||
	    (message->body_len != sizeof(resume) + resume.n_pairs * sizeof(uint64_t) &&
	     message->body_len != sizeof(resume) + 2 * resume.n_pairs * sizeof(uint64_t)))
		return -EINVAL;
	member = find_member(request, resume.member_id);
	if (!member || object_id(&member->channel->object) != resume.channel_id)
		return -ESTALE;
	view_drop_denials(request->client, resume.member_id);
	if (resume.segment && (uint32_t)member->object.segment.id != resume.segment)
		member_lose(member, resume.segment);
	r = member_resume(member);
	/* After the pairs that are shown anew: one of them may replace one that is gone. */
	if (r == 0)
		r = resume_pairs(request, member, resume.n_pairs);
	if (r < 0)
		return r;
	request->resumed = true;
	return reply_grant(request, member);
}

/*
 * A report is an accusation that the broker cannot check. Inside one user it is believed: the
 * member is thrown out. From another user it only parts the two, or else any subscriber could
 * silence any publisher; and so does reason 0: the reporter itself had no memory or fds for it.
 */
static int handle_report(struct request *request)
{
	struct broker *broker = request->connection->broker;
	struct member *member, *accused;
	struct shmb_msg_report report;
	struct pair *pair;
	bool believed;
	int r;

	r = request_body(request, &report, sizeof(report));
	if (r < 0)
		return r;
	member = find_member(request, report.member_id);
	/* Gone by itself meanwhile: so much the better. */
	pair = member ? find_pair(request, member, report.pair_id) : NULL;
	if (!pair)
		return 0;
	accused = pair->members[member->role == SHMB_ROLE_PUBLISHER];
	if (member_is_kept(accused))
		return 0; /* its lane stays until the reporter can have it */
	believed = report.reason &&
		   (request->client->uid == 0 || request->client->uid == accused->client->uid);
	log_line(&broker->log, LOG_WARNING, believed ? "member-evicted" : "pair-severed",
		 "member=%llu pid=%u uid=%u reporter=%llu reporter_pid=%u rule=%u",
		 (unsigned long long)object_id(&accused->object), accused->client->pid,
		 accused->client->uid, (unsigned long long)report.member_id, request->client->pid,
		 report.reason);
	if (believed) {
		member_free(accused, SHMB_GONE_EVICTED);
	} else {
		struct channel *channel = member->channel;

		pair_free(pair, NULL, SHMB_GONE_PARTED);
		channel_changed(channel);
	}
	return 0;
}

/*
 * A publisher has stopped waiting for a subscriber, as that one has agreed to. Nobody has to be told:
 * the two know from their bell. This is for whoever looks for the reason of a loss.
 */
static int handle_overtake(struct request *request)
{
	struct member *member, *subscriber;
	struct shmb_msg_report report;
	struct pair *pair;
	int r;

	r = request_body(request, &report, sizeof(report));
	if (r < 0)
		return r;
	member = find_member(request, report.member_id);
	pair = member ? find_pair(request, member, report.pair_id) : NULL;
	if (!pair || pair->evicted || member_is_kept(pair->members[1]))
		return 0;
	subscriber = pair->members[1];
	if (member->role != SHMB_ROLE_PUBLISHER || !subscriber->evict_after_ms)
		return -EINVAL;
	pair->evicted = true;
	log_line(
		&request->connection->broker->log, LOG_WARNING, "subscriber-evicted",
		"channel=%llu member=%llu pid=%u uid=%u publisher=%llu publisher_pid=%u after_ms=%u",
		(unsigned long long)object_id(&member->channel->object),
		(unsigned long long)object_id(&subscriber->object), subscriber->client->pid,
		subscriber->client->uid, (unsigned long long)report.member_id, request->client->pid,
		subscriber->evict_after_ms);
	return 0;
}

/* A pair that the member knows by this id, which may be that of an earlier one of the two; or NULL. */
static struct pair *find_known_pair(const struct request *request, const struct member *member,
				    uint64_t id)
{
	struct pair *known = find_pair(request, member, id);
	unsigned mine = member->role - 1;
	struct list *link, *safe;

	list_for_each(link, safe, &member->pairs)
	{
		struct pair *pair = list_entry(link, struct pair, member_links[mine]);

		if (!known && pair->views[mine]->known_id == id)
			known = pair;
	}
	return known;
}

/*
 * A lane that was kept has been read to its end, or what a worker has left was given to others. Who asks
 * again is told again, too.
 */
static int handle_drained(struct request *request)
{
	struct shmb_msg_report drained;
	struct member *member, *peer;
	struct pair *pair;
	int r;

	r = request_body(request, &drained, sizeof(drained));
	if (r < 0)
		return r;
	member = find_member(request, drained.member_id);
	pair = member ? find_known_pair(request, member, drained.pair_id) : NULL;
	if (!pair)
		return 0;
	peer = pair->members[member->role == SHMB_ROLE_PUBLISHER];
	if (!member_is_kept(peer))
		return -EINVAL;
	pair_free(pair, NULL, SHMB_GONE_DETACHED);
	member_put(peer);
	return 0;
}

static int handle_claim(struct request *request)
{
	struct shmb_msg_claim claim;
	struct shmb_state_key *key;
	struct channel *channel;
	struct member *member;
	struct object *object;
	uint32_t index;
	uint64_t owner;
	int r;

	r = request_body(request, &claim, sizeof(claim));
	if (r < 0)
		return r;
	if (claim.zero || !claim.key_len || claim.key_len > sizeof(claim.key) ||
	    !sodium_is_zero(claim.key + claim.key_len, sizeof(claim.key) - claim.key_len))
		return -EINVAL;
	member = find_member(request, claim.member_id);
	if (!member)
		return -ESTALE;
	channel = member->channel;
	if (registry_is_superseded(&channel->broker->registry))
		return -ESTALE;
	if (channel->pattern != SHMB_PATTERN_STATE || member->role != SHMB_ROLE_PUBLISHER ||
	    !(member->flags & SHMB_MEMBER_ACTIVE))
		return -EINVAL;
	r = key_claim(channel, claim.member_id, claim.key, claim.key_len, &index, &owner);
	if (r == -EUSERS) {
		request->limit = channel->max_keys;
		request->asked = request->limit + 1;
	} else if (r == -EBUSY) {
		object = broker_find(channel->broker, owner, SHMB_ENTRY_PUBLISHER);
		if (object)
			request->limit =
				shmb_container_of(object, struct member, object)->client->pid;
	}
	if (r < 0)
		return r;
	/* We were stopped and replaced, and our successor has given it to somebody else. */
	key = key_owned(channel, index, claim.member_id);
	if (!key)
		return -ESTALE;
	request->type = SHMB_MSG_CLAIMED;
	request->body.claimed = (struct shmb_msg_claimed){
		.term = key->term,
		.version = key_version(channel, index),
		.index = index,
	};
	request->body_len = sizeof(request->body.claimed);
	return 0;
}

/* The key of a request; NULL if its publisher has not claimed it. */
static int request_key(struct request *request, struct member **ret_member,
		       struct shmb_state_key **ret_key, uint32_t *ret_index)
{
	struct shmb_msg_key body;
	int r;

	r = request_body(request, &body, sizeof(body));
	if (r < 0)
		return r;
	*ret_member = find_member(request, body.member_id);
	if (!*ret_member || registry_is_superseded(&(*ret_member)->channel->broker->registry))
		return -ESTALE;
	if (body.zero || body.index >= (*ret_member)->channel->max_keys)
		return -EINVAL;
	*ret_key = key_owned((*ret_member)->channel, body.index, body.member_id);
	*ret_index = body.index;
	return 0;
}

static int handle_source(struct request *request)
{
	struct shmb_state_key *key;
	struct member *member;
	uint32_t index;
	int r;

	r = request_key(request, &member, &key, &index);
	if (r == 0 && !key)
		r = -EINVAL;
	if (r < 0 || key->source)
		return r;
	key_set_source(key);
	channel_changed(member->channel);
	return 0;
}

static int handle_disclaim(struct request *request)
{
	struct shmb_state_key *key;
	struct member *member;
	uint32_t index;
	int r;

	r = request_key(request, &member, &key, &index);
	/* A broker that was killed has done it, and could not say so. */
	if (r < 0 || !key)
		return r;
	key_disclaim(member->channel, index, &member->object.segment);
	channel_changed(member->channel);
	return 0;
}

static int handle_ping(struct request *request)
{
	return request->message->body_len == 0 ? 0 : -EINVAL;
}

static int (*const handlers[])(struct request *request) = {
	[SHMB_MSG_JOIN] = handle_join,	       [SHMB_MSG_OPEN] = handle_open,
	[SHMB_MSG_CLOSE] = handle_close,       [SHMB_MSG_ATTACH] = handle_attach,
	[SHMB_MSG_ACTIVATE] = handle_activate, [SHMB_MSG_DETACH] = handle_detach,
	[SHMB_MSG_RESUME] = handle_resume,     [SHMB_MSG_REPORT] = handle_report,
	[SHMB_MSG_PING] = handle_ping,	       [SHMB_MSG_CLAIM] = handle_claim,
	[SHMB_MSG_SOURCE] = handle_source,     [SHMB_MSG_DISCLAIM] = handle_disclaim,
	[SHMB_MSG_EXTEND] = handle_extend,     [SHMB_MSG_OVERTAKE] = handle_overtake,
	[SHMB_MSG_DRAINED] = handle_drained,   [SHMB_MSG_REMOVE] = handle_remove,
};

static int request_handle(struct request *request)
{
	uint32_t type = request->message->type;

	if (type >= SHMB_ARRAY_LEN(handlers) || !handlers[type])
		return -EINVAL;
	if (!request->client && type != SHMB_MSG_JOIN)
		return -EINVAL;
	return handlers[type](request);
}

static int reply_error(struct request *request, int error)
{
	const struct channel *mismatch = request->mismatch;
	_Alignas(8) uint8_t body[sizeof(struct shmb_msg_error) + SHMB_SCHEMA_LEN_MAX];
	struct shmb_msg_error head = {
		.code = code_of(error),
		.limit = request->limit,
		.asked = request->asked,
	};
	uint32_t len = sizeof(head);

	memcpy(body, &head, sizeof(head));
	if (mismatch && mismatch->schema_len <= SHMB_SCHEMA_LEN_MAX) {
		memcpy(body + len, channel_schema(mismatch), mismatch->schema_len);
		len += mismatch->schema_len;
	}
	if (error != -EPROTOTYPE && error != -ENOENT && error != -EEXIST && error != -ESTALE)
		log_line(&request->connection->broker->log, LOG_NOTICE, "request-refused",
			 "uid=%u pid=%u request=%u code=%u limit=%llu asked=%llu",
			 request->connection->peer.uid, request->connection->peer.pid,
			 request->message->type, head.code, (unsigned long long)head.limit,
			 (unsigned long long)head.asked);
	return connection_send(request->connection, SHMB_MSG_ERROR, request->message->request_id,
			       body, len, NULL);
}

static void on_message(struct connection *connection, const struct shmb_message *message)
{
	struct request request = {
		.connection = connection,
		.client = connection->client,
		.message = message,
		.type = SHMB_MSG_OK,
	};
	struct broker *broker = connection->broker;
	int r;

	/* Events have the number 0; an answer to such a request would look like one. */
	if (message->request_id == 0) {
		control_events.gone(connection);
		return;
	}
	r = request_handle(&request);
	if (r < 0)
		r = reply_error(&request, r);
	else
		r = connection_send(connection, request.type, message->request_id, &request.body,
				    request.body_len, &request.parcel);
	parcel_deinit(&request.parcel);
	sodium_memzero(&request.body, sizeof(request.body));
	/* An answer that cannot be sent ends the connection: the client comes back and asks anew. */
	if (r < 0) {
		connection_abort(connection);
		estate_settle(broker);
		return;
	}
	if (request.granted)
		request.granted->given = true;
	if (connection->client) {
		view_flush(connection->client, true);
		if (request.resumed)
			member_announce(request.granted);
	}
	estate_settle(broker);
}

static void on_writable(struct connection *connection)
{
	if (connection->client)
		view_flush(connection->client, true);
}

static void on_gone(struct connection *connection)
{
	struct broker *broker = connection->broker;
	struct client *client = connection->client;

	connection_close(connection);
	if (client)
		client_disconnected(client);
	estate_settle(broker);
}

const struct connection_events control_events = {
	.message = on_message,
	.writable = on_writable,
	.gone = on_gone,
};
