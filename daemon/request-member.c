/* SPDX-License-Identifier: Apache-2.0 */

/* Requests for members of a channel, and for their arenas. */

#include <errno.h>
#include <string.h>

#include "lib/queue.h"

#include "daemon/arena.h"
#include "daemon/channel.h"
#include "daemon/member.h"
#include "daemon/request.h"

/* An arena of this client's, or NULL. */
static struct arena *find_arena(const struct request *request, uint64_t id)
{
	struct object *object = broker_find(request->connection->broker, id, SHMB_ENTRY_ARENA);
	struct arena *arena = object ? shmb_container_of(object, struct arena, object) : NULL;

	return arena && arena->member->client == request->client ? arena : NULL;
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
	struct policy_subject subject = request_subject(request->connection);
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
	struct policy_subject subject = request_subject(request->connection);
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

int request_handle_attach(struct request *request)
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
	channel = request_find_channel(request, attach.channel_id);
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
		r = request_grant(request, member);
	if (r < 0) {
		request->granted = NULL;
		member_free(member, SHMB_GONE_DETACHED);
	}
	return r;
}

int request_handle_activate(struct request *request)
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
	member = request_find_member(request, id.id);
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

int request_handle_detach(struct request *request)
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
	member = request_find_member(request, id.id);
	if (!member)
		return -ESTALE;
	member_free(member, SHMB_GONE_DETACHED);
	return 0;
}

int request_handle_extend(struct request *request)
{
	const struct quota_user *user = request->client->user;
	struct shmb_msg_extend extend;
	struct member *member;
	struct arena *arena;
	int r;

	r = request_body(request, &extend, sizeof(extend));
	if (r < 0)
		return r;
	member = request_find_member(request, extend.member_id);
	if (!member)
		return -ESTALE;
	/* What it puts there, who does not know it cannot read. */
	r = extend.zero ? -EINVAL
	    : member_must_wait(member)
		    ? -EBUSY
		    : arena_new(member, extend.number, extend.segment_len, &arena);
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
