/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "lib/fd.h"

#include "daemon/bell.h"
#include "daemon/channel.h"
#include "daemon/idle.h"
#include "daemon/key.h"
#include "daemon/member.h"
#include "daemon/pair.h"
#include "daemon/view.h"

#define SLOTS_MIN 4u
/* Generations of one broker begin above those of its predecessors. */
#define GENERATION_SHIFT 12

uint64_t member_segment_len(const struct channel *channel, uint32_t role)
{
	if (role == SHMB_ROLE_PUBLISHER)
		return SHMB_BLOCK_LEN + (uint64_t)channel->lane_len;
	return SHMB_BLOCK_LEN + (uint64_t)channel->max_publishers * sizeof(struct shmb_cursor_lane);
}

static uint32_t slots_max(const struct channel *channel, uint32_t role)
{
	return role == SHMB_ROLE_PUBLISHER ? channel->max_publishers : channel->max_subscribers;
}

/* Makes room for a slot. */
static int slots_reserve(struct channel *channel, uint32_t role, uint32_t slot)
{
	uint32_t have = channel->n_slots[role - 1], n = have ? have : SLOTS_MIN;
	struct member **slots;

	if (slot < have)
		return 0;
	while (n <= slot)
		n *= 2;
	slots = realloc(channel->slots[role - 1], n * sizeof(struct member *));
	if (!slots)
		return -ENOMEM;
	memset(slots + have, 0, (n - have) * sizeof(struct member *));
	channel->slots[role - 1] = slots;
	channel->n_slots[role - 1] = n;
	return 0;
}

static int slot_find(struct channel *channel, uint32_t role, uint32_t *ret_slot)
{
	uint32_t slot = 0;

	while (slot < channel->n_slots[role - 1] && channel->slots[role - 1][slot])
		slot++;
	if (slot >= slots_max(channel, role))
		return -EUSERS;
	*ret_slot = slot;
	return slots_reserve(channel, role, slot);
}

static int doorbell_new(struct member *member)
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

static int member_charge(struct member *member, uint64_t len)
{
	struct quota_user *user = member->client->user;

	if (quota_charge(user, QUOTA_MEMBERS, 1) < 0)
		return -EDQUOT;
	if (quota_charge(user, QUOTA_BYTES, len) < 0) {
		quota_release(user, QUOTA_MEMBERS, 1);
		return -EDQUOT;
	}
	member->charged = len;
	return 0;
}

/* Everything but its segment and entry. What fails leaves a member for member_discard(). */
static int member_init(struct member *member, struct channel *channel, struct client *client,
		       const struct shmb_registry_entry *entry)
{
	struct broker *broker = client->broker;
	int r;

	member->object.kind = entry->kind;
	member->object.entry = REGISTRY_NO_ENTRY;
	member->client = client;
	member->channel = channel;
	member->role =
		entry->kind == SHMB_ENTRY_PUBLISHER ? SHMB_ROLE_PUBLISHER : SHMB_ROLE_SUBSCRIBER;
	member->slot = entry->slot;
	member->flags = entry->flags & ~SHMB_MEMBER_ACTIVE;
	member->history = entry->history;
	member->doorbell = -1;
	member->generation = (uint32_t)registry_epoch(&broker->registry) << GENERATION_SHIFT;
	list_init(&member->pairs);
	list_init(&member->client_link);
	r = member_charge(member, member_segment_len(channel, member->role));
	if (r == 0)
		r = doorbell_new(member);
	if (r < 0)
		return r;
	member->eviction = view_new(client, NULL, 0, entry->id);
	return member->eviction ? 0 : -ENOMEM;
}

/* Now it is found. */
static int member_insert(struct member *member, uint64_t id)
{
	struct channel *channel = member->channel;
	struct broker *broker = member->client->broker;
	int r;

	r = table_add(&broker->objects, &member->object.node, id);
	if (r < 0)
		return r;
	list_append(&member->client->members, &member->client_link);
	channel->slots[member->role - 1][member->slot] = member;
	channel->n_members[member->role - 1]++;
	broker->n_members++;
	idle_check(broker);
	return 0;
}

static void member_discard(struct member *member)
{
	struct broker *broker = member->client->broker;

	registry_remove(&broker->registry, member->object.entry);
	segment_destroy(&member->object.segment);
	if (member->charged) {
		quota_release(member->client->user, QUOTA_MEMBERS, 1);
		quota_release(member->client->user, QUOTA_BYTES, member->charged);
	}
	shmb_fd_close(member->doorbell);
	view_free(member->eviction);
	free(member);
}

int member_new(struct channel *channel, struct client *client, uint32_t role, uint32_t flags,
	       uint32_t history, struct member **ret_member)
{
	bool publisher = role == SHMB_ROLE_PUBLISHER;
	struct broker *broker = client->broker;
	struct shmb_registry_entry entry = {
		.kind = publisher ? SHMB_ENTRY_PUBLISHER : SHMB_ENTRY_SUBSCRIBER,
		.channel_id = object_id(&channel->object),
		.client_id = object_id(&client->object),
		.segment_len = member_segment_len(channel, role),
		.flags = flags,
		.history = history < channel->history ? history : channel->history,
	};
	struct member *member;
	int r;

	r = slot_find(channel, role, &entry.slot);
	if (r < 0)
		return r;
	member = calloc(1, sizeof(*member));
	if (!member)
		return -ENOMEM;
	entry.id = registry_next_id(&broker->registry);
	r = member_init(member, channel, client, &entry);
	if (r == 0)
		r = segment_create(&broker->maker,
				   publisher ? SHMB_SEGMENT_LANE : SHMB_SEGMENT_CURSOR, entry.id,
				   entry.segment_len, 0, &member->object.segment);
	memcpy(entry.segment, member->object.segment.name, sizeof(entry.segment));
	if (r == 0)
		r = registry_add(&broker->registry, &entry, &member->object.entry);
	if (r == 0)
		r = member_insert(member, entry.id);
	if (r < 0) {
		member_discard(member);
		return r;
	}
	member->present = true;
	*ret_member = member;
	return 0;
}

static void member_release(struct member *member)
{
	member_free(member, SHMB_GONE_DETACHED);
}

/* Nobody counts it any more, but its segment stays. */
static void retire(struct member *member)
{
	struct channel *channel = member->channel;
	struct broker *broker = member->client->broker;
	struct list *link, *safe;

	member->flags |= SHMB_MEMBER_RETIRED;
	registry_set_flags(&broker->registry, member->object.entry, member->flags);
	member->present = false;
	list_for_each(link, safe, &member->pairs)
		list_remove(&list_entry(link, struct pair, member_links[0])->views[0]->dirty_link);
	channel->n_members[member->role - 1]--;
	channel->n_active[member->role - 1]--;
	channel->release = member_release;
	broker->n_members--;
}

/* What it was about to say to somebody who sleeps, the broker says. */
static void ring_peers(struct member *member)
{
	struct list *link, *safe;

	list_for_each(link, safe, &member->pairs)
		bell_ring(list_entry(link, struct pair, member_links[0])->members[1]->client);
}

static void tell_evicted(struct member *member, uint32_t reason)
{
	if (reason != SHMB_GONE_EVICTED || !member->eviction)
		return;
	view_gone(member->eviction, member->present, reason);
	member->eviction = NULL;
	/* Before the epoch moves: it is not among the members any more that are told then. */
	view_flush(member->client, false);
}

/* A publisher goes: may others claim its keys, and does it hold values that nobody else has? */
static bool keeps_values(const struct member *member)
{
	const struct channel *channel = member->channel;

	if (channel->pattern != SHMB_PATTERN_STATE || member->role != SHMB_ROLE_PUBLISHER ||
	    !(member->flags & SHMB_MEMBER_ACTIVE))
		return false;
	key_disclaim_all(channel, object_id(&member->object));
	if (member->flags & SHMB_MEMBER_RETIRED || member->client->broker->stopping) {
		key_forget_source(channel, object_id(&member->object));
		return false;
	}
	return key_has_source(channel, object_id(&member->object));
}

int member_adopt(struct channel *channel, struct client *client,
		 const struct shmb_registry_entry *entry, uint32_t slot)
{
	bool publisher = entry->kind == SHMB_ENTRY_PUBLISHER;
	uint32_t role = publisher ? SHMB_ROLE_PUBLISHER : SHMB_ROLE_SUBSCRIBER;
	struct broker *broker = client->broker;
	struct member *member;
	int r;

	/* Its client never heard that it was announced, and will ask anew. */
	if (!(entry->flags & SHMB_MEMBER_ACTIVE) || entry->slot >= slots_max(channel, role) ||
	    entry->segment_len != member_segment_len(channel, role))
		return -EINVAL;
	r = slots_reserve(channel, role, entry->slot);
	if (r < 0)
		return r;
	if (channel->slots[role - 1][entry->slot])
		return -EINVAL;
	member = calloc(1, sizeof(*member));
	if (!member)
		return -ENOMEM;
	r = member_init(member, channel, client, entry);
	if (r == 0)
		r = segment_adopt(&broker->maker, (const char *)entry->segment,
				  publisher ? SHMB_SEGMENT_LANE : SHMB_SEGMENT_CURSOR, entry->id,
				  entry->segment_len, 0, &member->object.segment);
	if (r == 0)
		r = member_insert(member, entry->id);
	if (r < 0) {
		member_discard(member);
		return r;
	}
	member->object.entry = slot;
	member->flags |= SHMB_MEMBER_ACTIVE;
	channel->n_active[role - 1]++;
	if (client->bury || member->flags & SHMB_MEMBER_RETIRED)
		retire(member);
	return 0;
}

static void pairs_free(struct member *member, const struct member *leaver, uint32_t reason)
{
	struct list *link, *safe;

	list_for_each(link, safe, &member->pairs) pair_free(
		list_entry(link, struct pair, member_links[member->role - 1]), leaver, reason);
}

static int pairs_create(struct member *member)
{
	unsigned other = member->role == SHMB_ROLE_PUBLISHER;
	struct channel *channel = member->channel;
	struct member *peer;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < channel->n_slots[other]; i++) {
		peer = channel->slots[other][i];
		if (!peer || !(peer->flags & SHMB_MEMBER_ACTIVE))
			continue;
		r = other ? pair_new(member, peer, member->client->user)
			  : pair_new(peer, member, member->client->user);
	}
	return r;
}

int member_activate(struct member *member)
{
	struct broker *broker = member->client->broker;
	struct list *link, *safe;
	int r;

	if (member->flags & SHMB_MEMBER_ACTIVE)
		return -EALREADY;
	r = segment_check_allocated(&member->object.segment);
	if (r == 0)
		r = pairs_create(member);
	if (r < 0) {
		pairs_free(member, NULL, SHMB_GONE_DETACHED);
		return r;
	}
	/* After its pairs: a successor that finds an active member finds all of them. */
	member->flags |= SHMB_MEMBER_ACTIVE;
	registry_set_flags(&broker->registry, member->object.entry, member->flags);
	member->channel->n_active[member->role - 1]++;
	list_for_each(link, safe, &member->pairs)
		pair_announce(list_entry(link, struct pair, member_links[member->role - 1]));
	channel_changed(member->channel);
	return 0;
}

int member_resume(struct member *member)
{
	struct list *link, *safe;
	bool fresh = member->given;
	int r = 0;

	if (fresh)
		r = doorbell_new(member);
	member->present = r == 0;
	list_for_each(link, safe, &member->pairs)
	{
		if (r < 0)
			break;
		r = pair_renew(list_entry(link, struct pair, member_links[member->role - 1]),
			       member, fresh);
	}
	return r;
}

void member_announce(struct member *member)
{
	/* Its pairs follow the answer that it waits for: the epoch makes it look for them. */
	channel_changed(member->channel);
}

void member_free(struct member *member, uint32_t reason)
{
	struct channel *channel = member->channel;
	struct client *client = member->client;
	struct broker *broker = client->broker;

	if (keeps_values(member)) {
		tell_evicted(member, reason);
		retire(member);
		channel_changed(channel);
		ring_peers(member);
		/* The last word: this may be the end of the channel, and of all who are retired. */
		channel_put(channel);
		idle_check(broker);
		return;
	}
	/* First of all, so that a successor does not take up what is half gone. */
	registry_remove(&broker->registry, member->object.entry);
	member->object.entry = REGISTRY_NO_ENTRY;
	pairs_free(member, member, reason);
	tell_evicted(member, reason);
	table_remove(&broker->objects, &member->object.node);
	list_remove(&member->client_link);
	channel->slots[member->role - 1][member->slot] = NULL;
	if (!(member->flags & SHMB_MEMBER_RETIRED)) {
		channel->n_members[member->role - 1]--;
		broker->n_members--;
		channel->n_active[member->role - 1] -= !!(member->flags & SHMB_MEMBER_ACTIVE);
	}
	if (member->flags & SHMB_MEMBER_ACTIVE)
		channel_changed(channel);
	member_discard(member);
	if (client->bury && list_empty(&client->members) && !broker->stopping)
		client->bury(client);
	channel_put(channel);
	idle_check(broker);
}
