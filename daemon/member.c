/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "lib/fd.h"
#include "lib/queue.h"

#include "daemon/arena.h"
#include "daemon/channel.h"
#include "daemon/directory.h"
#include "daemon/fence.h"
#include "daemon/idle.h"
#include "daemon/key.h"
#include "daemon/member-internal.h"
#include "daemon/member.h"
#include "daemon/view.h"

/* Generations of one broker begin above those of its predecessors. */
#define GENERATION_SHIFT 12

uint64_t member_segment_len(const struct channel *channel, uint32_t role)
{
	if (role == SHMB_ROLE_PUBLISHER)
		return SHMB_BLOCK_LEN + (uint64_t)channel->lane_len;
	return shmb_cursor_len(channel->pattern, channel->max_publishers);
}

bool member_has_keys(const struct member *member)
{
	return member->channel->pattern == SHMB_PATTERN_STATE &&
	       member->role == SHMB_ROLE_PUBLISHER && member->flags & SHMB_MEMBER_ACTIVE;
}

struct segment_spec member_spec(const struct member *member, uint64_t owner_id, uint64_t id,
				uint32_t backing)
{
	bool publisher = member->role == SHMB_ROLE_PUBLISHER;

	return (struct segment_spec){
		.kind = publisher ? SHMB_SEGMENT_LANE : SHMB_SEGMENT_CURSOR,
		.backing = backing,
		.id = id,
		.owner_id = owner_id,
		.len = member_segment_len(member->channel, member->role),
	};
}

static uint32_t members_max(const struct channel *channel, uint32_t role)
{
	return role == SHMB_ROLE_PUBLISHER ? channel->max_publishers : channel->max_subscribers;
}

int member_new_doorbell(struct member *member)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	shmb_fd_close(member->doorbell);
	member->doorbell = fd;
	member->generation++;
	member->given = false;
	return 0;
}

/* What is kept takes the place of what was charged before, and is not lost for want of a quota. */
static int member_charge(struct member *member, struct quota_user *user, uint64_t len)
{
	bool kept = member_is_kept(member);

	if (kept)
		quota_owe(user, QUOTA_MEMBERS, 1);
	else if (quota_charge(user, QUOTA_MEMBERS, 1) < 0)
		return -EDQUOT;
	if (kept) {
		quota_owe(user, QUOTA_BYTES, len);
	} else if (quota_charge(user, QUOTA_BYTES, len) < 0) {
		quota_release(user, QUOTA_MEMBERS, 1);
		return -EDQUOT;
	}
	user->n_refs++;
	member->user = user;
	member->charged = len;
	return 0;
}

int member_init(struct member *member, struct channel *channel, struct client *client,
		const struct shmb_registry_entry *entry)
{
	struct broker *broker = channel->broker;
	struct quota_user *user = quota_user_get(&broker->quota, entry->uid);
	int r;

	member->object.kind = entry->kind;
	member->object.entry = REGISTRY_NO_ENTRY;
	member->client = client;
	member->channel = channel;
	member->role =
		entry->kind == SHMB_ENTRY_PUBLISHER ? SHMB_ROLE_PUBLISHER : SHMB_ROLE_SUBSCRIBER;
	member->uid = entry->uid;
	member->slot = entry->slot;
	member->flags = entry->flags & ~SHMB_MEMBER_ACTIVE;
	member->history = entry->history;
	member->kept_id = entry->kept_id;
	member->partner_id = entry->partner_id;
	member->reply_to = entry->reply_to;
	member->evict_after_ms = entry->evict_after_ms;
	member->doorbell = -1;
	member->generation = (uint32_t)registry_epoch(&broker->registry) << GENERATION_SHIFT;
	list_init(&member->pairs);
	list_init(&member->arenas);
	list_init(&member->client_link);
	r = user ? member_charge(member, user, member_segment_len(channel, member->role)) : -ENOMEM;
	quota_user_put(&broker->quota, user);
	if (r < 0 || !client)
		return r;
	r = member_new_doorbell(member);
	if (r < 0)
		return r;
	member->eviction = view_new(client, NULL, 0, entry->id);
	member->move = view_new(client, NULL, 0, entry->id);
	if (!member->eviction || !member->move)
		return -ENOMEM;
	member->move->mover = member;
	return 0;
}

int member_insert(struct member *member, uint64_t id)
{
	struct channel *channel = member->channel;
	struct broker *broker = channel->broker;
	int r;

	r = table_add(&broker->objects, &member->object.node, id);
	if (r < 0)
		return r;
	if (member_is_kept(member)) {
		list_append(member_kept_list(member), &member->client_link);
		return 0;
	}
	list_append(&member->client->members, &member->client_link);
	channel->slots[member->role - 1][member->slot] = member;
	channel->n_members[member->role - 1]++;
	broker->n_members++;
	idle_check(broker);
	return 0;
}

void member_discard(struct member *member)
{
	struct broker *broker = member->channel->broker;

	broker_unregister(broker, &member->object);
	arena_free_all(member);
	segment_destroy(&member->object.segment);
	segment_destroy(&member->next);
	if (member->charged) {
		quota_release(member->user, QUOTA_MEMBERS, 1);
		quota_release(member->user, QUOTA_BYTES, member->charged);
		quota_user_put(&broker->quota, member->user);
	}
	shmb_fd_close(member->doorbell);
	view_free(member->eviction);
	view_free(member->move);
	free(member);
}

int member_create(struct channel *channel, struct client *client, struct shmb_registry_entry *entry,
		  uint32_t flags, struct member **ret_member)
{
	struct broker *broker = channel->broker;
	struct member *member = calloc(1, sizeof(*member));
	struct segment_spec spec;
	int r;

	if (!member)
		return -ENOMEM;
	r = member_init(member, channel, client, entry);
	if (r == 0) {
		spec = member_spec(member, entry->id, entry->id, entry->backing);
		spec.flags = flags;
		r = segment_create(&broker->maker, &spec, &member->object.segment);
	}
	memcpy(entry->segment, member->object.segment.name, sizeof(entry->segment));
	if (r == 0)
		r = registry_add(&broker->registry, entry, &member->object.entry);
	if (r == 0)
		r = member_insert(member, entry->id);
	if (r < 0) {
		member_discard(member);
		return r;
	}
	*ret_member = member;
	return 0;
}

int member_new(struct channel *channel, struct client *client, const struct shmb_msg_attach *attach,
	       const struct shmb_msg_attach_private *private, struct member **ret_member)
{
	uint32_t role = attach->role;
	bool publisher = role == SHMB_ROLE_PUBLISHER;
	struct shmb_registry_entry entry = {
		.kind = publisher ? SHMB_ENTRY_PUBLISHER : SHMB_ENTRY_SUBSCRIBER,
		.channel_id = object_id(&channel->object),
		.client_id = object_id(&client->object),
		.segment_len = member_segment_len(channel, role),
		.flags = attach->flags,
		.pid = client->pid,
		.uid = client->uid,
		.history = attach->history < channel->history ? attach->history : channel->history,
		.evict_after_ms = attach->evict_after_ms,
		.backing = channel->backing,
		.partner_id = private->partner_id,
		.reply_to = private->reply_to,
	};
	int r;

	if (channel->n_members[role - 1] >= members_max(channel, role))
		return -EUSERS;
	r = member_find_slot(channel, role, channel->pattern == SHMB_PATTERN_QUEUE && publisher,
			     &entry.slot);
	if (r == 0)
		r = member_reserve_slot(channel, role, entry.slot);
	if (r < 0)
		return r;
	entry.id = registry_next_id(&channel->broker->registry);
	r = member_create(channel, client, &entry, 0, ret_member);
	if (r == 0)
		(*ret_member)->present = true;
	return r;
}

void member_leave(struct member *member)
{
	struct channel *channel = member->channel;

	list_remove(&member->client_link);
	channel->slots[member->role - 1][member->slot] = NULL;
	directory_update(channel, member->role, member->slot);
	channel->n_members[member->role - 1]--;
	channel->broker->n_members--;
	if (member->flags & SHMB_MEMBER_ACTIVE)
		channel->n_active[member->role - 1]--;
}

void member_remove(struct member *member)
{
	struct channel *channel = member->channel;

	/* First of all, so that a successor does not take up what is half gone. */
	broker_unregister(channel->broker, &member->object);
	table_remove(&channel->broker->objects, &member->object.node);
	member_discard(member);
	channel_put(channel);
}

void member_evict(struct member *member)
{
	view_gone(member->eviction, member->present, SHMB_GONE_EVICTED);
	member->eviction = NULL;
	/* Before the epoch moves: it is not among the members any more that are told then. */
	view_flush(member->client, false);
}

void member_free(struct member *member, uint32_t reason)
{
	struct channel *channel = member->channel;
	struct broker *broker = channel->broker;
	bool active = member->flags & SHMB_MEMBER_ACTIVE;
	uint32_t kept;

	/* Killed before its entry is removed: a successor disclaims what is left. */
	if (member_has_keys(member))
		key_disclaim_all(channel, object_id(&member->object), &member->object.segment);
	if (member->client->dead && member->role == SHMB_ROLE_PUBLISHER) {
		fence_segment(member, &member->object.segment);
		arena_fence_all(member);
	}
	kept = member_kept_flags(member, reason);
	if (kept) {
		member_keep(member, kept, reason);
		idle_check(broker);
		return;
	}
	/* First of all, so that a successor does not take up what is half gone. */
	broker_unregister(broker, &member->object);
	member_free_pairs(member, member, reason);
	if (reason == SHMB_GONE_EVICTED)
		member_evict(member);
	member_leave(member);
	if (active)
		channel_changed(channel);
	member_remove(member);
	idle_check(broker);
}

/* A client can say so of its own memory only. */
static bool has_left(const struct member *member)
{
	uint64_t offset = member->role == SHMB_ROLE_PUBLISHER
				  ? offsetof(struct shmb_lane_segment, left)
				  : offsetof(struct shmb_cursor_segment, left);
	uint32_t left;

	return member->flags & SHMB_MEMBER_ACTIVE &&
	       segment_read(&member->object.segment, &left, sizeof(left), offset) == 0 && left == 1;
}

void member_free_left(struct client *client)
{
	struct list *link, *safe;

	list_for_each(link, safe, &client->members)
	{
		struct member *member = list_entry(link, struct member, client_link);

		if (has_left(member))
			member_free(member, SHMB_GONE_DETACHED);
	}
}
