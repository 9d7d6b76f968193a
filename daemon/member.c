/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "lib/clock.h"
#include "lib/fd.h"
#include "lib/queue.h"

#include "daemon/arena.h"
#include "daemon/channel.h"
#include "daemon/directory.h"
#include "daemon/fence.h"
#include "daemon/idle.h"
#include "daemon/key.h"
#include "daemon/member.h"
#include "daemon/pair.h"
#include "daemon/view.h"

#define SLOTS_MIN   4u
#define PATIENCE_NS (1000 * 1000000ull)
/* Generations of one broker begin above those of its predecessors. */
#define GENERATION_SHIFT 12

uint64_t member_segment_len(const struct channel *channel, uint32_t role)
{
	if (role == SHMB_ROLE_PUBLISHER)
		return SHMB_BLOCK_LEN + (uint64_t)channel->lane_len;
	return shmb_cursor_len(channel->pattern, channel->max_publishers);
}

/* Has it values of keys? */
static bool has_keys(const struct member *member)
{
	return member->channel->pattern == SHMB_PATTERN_STATE &&
	       member->role == SHMB_ROLE_PUBLISHER && member->flags & SHMB_MEMBER_ACTIVE;
}

static struct segment_spec member_spec(const struct member *member, uint64_t id, uint32_t backing)
{
	bool publisher = member->role == SHMB_ROLE_PUBLISHER;

	return (struct segment_spec){
		.kind = publisher ? SHMB_SEGMENT_LANE : SHMB_SEGMENT_CURSOR,
		.backing = backing,
		.id = id,
		.owner_id = member->eviction->member_id,
		.len = member_segment_len(member->channel, member->role),
	};
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
	member->partner_id = entry->partner_id;
	member->reply_to = entry->reply_to;
	member->evict_after_ms = entry->evict_after_ms;
	member->doorbell = -1;
	member->generation = (uint32_t)registry_epoch(&broker->registry) << GENERATION_SHIFT;
	list_init(&member->pairs);
	list_init(&member->arenas);
	list_init(&member->client_link);
	r = member_charge(member, member_segment_len(channel, member->role));
	if (r == 0)
		r = doorbell_new(member);
	if (r < 0)
		return r;
	member->eviction = view_new(client, NULL, 0, entry->id);
	member->move = view_new(client, NULL, 0, entry->id);
	if (!member->eviction || !member->move)
		return -ENOMEM;
	member->move->mover = member;
	return 0;
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

	broker_unregister(broker, &member->object);
	arena_free_all(member);
	segment_destroy(&member->object.segment);
	segment_destroy(&member->next);
	if (member->charged) {
		quota_release(member->client->user, QUOTA_MEMBERS, 1);
		quota_release(member->client->user, QUOTA_BYTES, member->charged);
	}
	shmb_fd_close(member->doorbell);
	view_free(member->eviction);
	view_free(member->move);
	free(member);
}

int member_new(struct channel *channel, struct client *client, const struct shmb_msg_attach *attach,
	       const struct shmb_msg_attach_private *private, struct member **ret_member)
{
	uint32_t role = attach->role;
	bool publisher = role == SHMB_ROLE_PUBLISHER;
	struct broker *broker = client->broker;
	struct shmb_registry_entry entry = {
		.kind = publisher ? SHMB_ENTRY_PUBLISHER : SHMB_ENTRY_SUBSCRIBER,
		.channel_id = object_id(&channel->object),
		.client_id = object_id(&client->object),
		.segment_len = member_segment_len(channel, role),
		.flags = attach->flags,
		.history = attach->history < channel->history ? attach->history : channel->history,
		.evict_after_ms = attach->evict_after_ms,
		.backing = channel->backing,
		.partner_id = private->partner_id,
		.reply_to = private->reply_to,
	};
	struct segment_spec spec;
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
	if (r == 0) {
		spec = member_spec(member, entry.id, entry.backing);
		r = segment_create(&broker->maker, &spec, &member->object.segment);
	}
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

int member_adopt(struct channel *channel, struct client *client,
		 const struct shmb_registry_entry *entry, uint32_t slot)
{
	bool publisher = entry->kind == SHMB_ENTRY_PUBLISHER;
	uint32_t role = publisher ? SHMB_ROLE_PUBLISHER : SHMB_ROLE_SUBSCRIBER;
	struct broker *broker = client->broker;
	struct segment_spec spec;
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
	if (r == 0) {
		spec = member_spec(member, entry->segment_id ? entry->segment_id : entry->id,
				   entry->backing);
		r = segment_adopt(&broker->maker, (const char *)entry->segment, &spec,
				  &member->object.segment);
	}
	/* Those who have mapped it go on with it until its client has moved to another one. */
	if (r == -ENOENT && entry->backing == SHMB_MEMORY_SEALED)
		r = 0;
	if (r == 0)
		r = member_insert(member, entry->id);
	if (r < 0) {
		segment_forget(&member->object.segment);
		member_discard(member);
		return r;
	}
	member->object.entry = slot;
	member->flags |= SHMB_MEMBER_ACTIVE;
	channel->n_active[role - 1]++;
	if (has_keys(member) && !segment_exists(&member->object.segment))
		key_drop_copies(channel, entry->id);
	return 0;
}

void member_inherit(struct channel *channel, const struct shmb_registry_entry *entry)
{
	struct segment_spec spec = {
		.kind = SHMB_SEGMENT_LANE,
		.backing = entry->backing,
		.id = entry->segment_id ? entry->segment_id : entry->id,
		.owner_id = entry->id,
		.len = member_segment_len(channel, SHMB_ROLE_PUBLISHER),
	};
	struct segment segment = { 0 };

	if (channel->pattern != SHMB_PATTERN_STATE || entry->kind != SHMB_ENTRY_PUBLISHER ||
	    !(entry->flags & SHMB_MEMBER_ACTIVE))
		return;
	if (segment_adopt(&channel->broker->maker, (const char *)entry->segment, &spec, &segment) <
	    0)
		segment.name[0] = '\0';
	key_disclaim_all(channel, entry->id, &segment);
	/* Its entry goes next, and then an object of that name is swept. */
	if (segment.backing == SHMB_MEMORY_SEALED)
		segment_destroy(&segment);
	else
		segment_release(&segment);
}

static void pairs_free(struct member *member, const struct member *leaver, uint32_t reason)
{
	struct list *link, *safe;

	list_for_each(link, safe, &member->pairs) pair_free(
		list_entry(link, struct pair, member_links[member->role - 1]), leaver, reason);
}

static struct pair *pair_of(const struct member *member, const struct member *peer)
{
	return member->role == SHMB_ROLE_PUBLISHER ? pair_find(member, peer)
						   : pair_find(peer, member);
}

/*
 * A pair with each peer. Where one of the two has still to move, the publisher is told all the same
 * and holds what is for the subscriber; two that have one already go on with it meanwhile.
 */
static int pairs_create(struct member *member)
{
	unsigned other = member->role == SHMB_ROLE_PUBLISHER;
	struct channel *channel = member->channel;
	struct member *peer;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < channel->n_slots[other]; i++) {
		peer = channel->slots[other][i];
		if (!peer || !(peer->flags & SHMB_MEMBER_ACTIVE) ||
		    !(other ? member_meets(member, peer) : member_meets(peer, member)) ||
		    (!other && !member_usable(peer) && pair_of(member, peer)))
			continue;
		r = other ? pair_new(member, peer, member->client->user)
			  : pair_new(peer, member, member->client->user);
	}
	return r;
}

/* Ends what pairs_create() has made, or what was there before: pairs from @first on, or up to it. */
static void pairs_drop(struct member *member, struct list *first, bool from)
{
	struct list *link, *safe;
	bool seen = false;

	list_for_each(link, safe, &member->pairs)
	{
		struct pair *pair = list_entry(link, struct pair, member_links[member->role - 1]);
		struct member *peer = pair->members[member->role == SHMB_ROLE_PUBLISHER];

		seen = seen || link == first;
		if (from && seen)
			pair_free(pair, NULL, SHMB_GONE_DETACHED);
		else if (!from && !seen && pair_of(member, peer) != pair)
			pair_free(pair, NULL, SHMB_GONE_MOVED);
		else if (!from && !seen)
			pair_set_stale(pair);
	}
}

/* A new subscriber cannot have the segments of these; the epoch has moved. */
static void copy_unusable(const struct channel *channel)
{
	for (uint32_t i = 0; i < channel->n_slots[0]; i++) {
		const struct member *member = channel->slots[0][i];

		if (member && has_keys(member) && !member_usable(member))
			key_copy_all(channel, object_id(&member->object), &member->object.segment);
	}
}

/* The registry speaks of the segment that the member moves to. */
static int move_entry(struct member *member)
{
	struct registry *registry = &member->client->broker->registry;
	struct shmb_registry_entry entry;
	uint32_t slot, before = member->object.entry;
	int r;

	if (!registry_get(registry, before, &entry))
		return -ESTALE;
	entry.segment_id = member->next.id;
	entry.backing = member->next.backing;
	memcpy(entry.segment, member->next.name, sizeof(entry.segment));
	r = registry_add(registry, &entry, &slot);
	if (r < 0)
		return r;
	member->object.entry = slot;
	/* Killed between the two: a successor takes either, and finds out which its client has. */
	if (registry_remove(registry, before))
		return 0;
	segment_forget(&member->next);
	return -ESTALE;
}

/*
 * Its client has mapped the next segment, and copied into it what has to go on. Nothing refers to
 * the old one from now on but those who have mapped it, and they are told.
 */
static int member_move(struct member *member)
{
	struct list *last = member->pairs.prev, *link, *safe;
	int r;

	r = segment_check_allocated(&member->next);
	if (r == 0)
		r = pairs_create(member);
	if (r == 0)
		r = segment_restrict(&member->next);
	if (r == 0)
		r = move_entry(member);
	if (r < 0) {
		pairs_drop(member, last->next, true);
		return r;
	}
	segment_destroy(&member->object.segment);
	segment_move(&member->object.segment, &member->next);
	arena_leave_all(member);
	view_unmark(member->move);
	for (link = last->next, safe = link->next; link != &member->pairs;
	     link = safe, safe = link->next)
		pair_announce(list_entry(link, struct pair, member_links[member->role - 1]));
	/* After the new ones, so that nobody is without its peer in between. */
	pairs_drop(member, last->next, false);
	channel_changed(member->channel);
	return 0;
}

/* Are all subscribers there, to be told of a new lane before anything is written to it? */
static bool all_present(const struct channel *channel)
{
	for (uint32_t i = 0; i < channel->n_slots[1]; i++) {
		const struct member *member = channel->slots[1][i];

		if (member && member->flags & SHMB_MEMBER_ACTIVE && !member->present)
			return false;
	}
	return true;
}

/* Who fails has it tried again when its client comes back. */
static void prepare_publishers(struct channel *channel)
{
	for (uint32_t i = 0; i < channel->n_slots[0]; i++) {
		struct member *member = channel->slots[0][i];

		if (member && member->flags & SHMB_MEMBER_ACTIVE && member->present)
			member_prepare(member);
	}
}

static void on_patience(void *data)
{
	struct channel *channel = data;

	channel->hurry = true;
	prepare_publishers(channel);
	channel_changed(channel);
}

/*
 * Lanes flow without us; a publisher that had moved while a subscriber does not know where to would
 * be read no more if we died now. So it waits for those who are coming back, but not for long.
 */
static bool must_wait(struct member *publisher)
{
	struct channel *channel = publisher->channel;

	if (channel->hurry || all_present(channel))
		return false;
	return channel->patience ||
	       loop_timer_at(channel->broker->loop, shmb_clock_now_ns() + PATIENCE_NS, on_patience,
			     channel, &channel->patience) == 0;
}

int member_prepare(struct member *member)
{
	struct broker *broker = member->client->broker;
	struct segment_spec spec;
	int r;

	if (member_usable(member) || segment_exists(&member->next))
		return 0;
	if (member->role == SHMB_ROLE_PUBLISHER && must_wait(member))
		return 0;
	spec = member_spec(member, registry_next_id(&broker->registry), member->channel->backing);
	r = segment_create(&broker->maker, &spec, &member->next);
	if (r == 0 && member->present)
		view_mark(member->move);
	return r;
}

void member_lose(struct member *member, uint32_t id)
{
	struct list *link, *safe;

	segment_destroy(&member->object.segment);
	member->object.segment.id = id;
	if (has_keys(member))
		key_drop_copies(member->channel, object_id(&member->object));
	if (member->role != SHMB_ROLE_PUBLISHER)
		return;
	list_for_each(link, safe, &member->pairs)
		pair_set_stale(list_entry(link, struct pair, member_links[member->role - 1]));
}

/* Members of the channel that have to move have where to. All of them, or none. */
static int seal_channel(struct channel *channel)
{
	struct member *member;
	int r = 0;

	channel->backing = SHMB_MEMORY_SEALED;
	for (unsigned role = 0; role < 2; role++) {
		for (uint32_t i = 0; r == 0 && i < channel->n_slots[role]; i++) {
			member = channel->slots[role][i];
			if (member && member->flags & SHMB_MEMBER_ACTIVE)
				r = member_prepare(member);
		}
	}
	if (r == 0) {
		channel_set_sealed(channel);
		return 0;
	}
	channel->backing = SHMB_MEMORY_POSIX;
	for (unsigned role = 0; role < 2; role++) {
		for (uint32_t i = 0; i < channel->n_slots[role]; i++) {
			member = channel->slots[role][i];
			if (!member)
				continue;
			view_unmark(member->move);
			segment_destroy(&member->next);
		}
	}
	return r;
}

int member_choose_backing(struct channel *channel, uint32_t uid)
{
	if (channel->wanted != SHMB_MEMORY_AUTO || channel->backing == SHMB_MEMORY_SEALED)
		return 0;
	for (unsigned role = 0; role < 2; role++)
		for (uint32_t i = 0; i < channel->n_slots[role]; i++)
			if (channel->slots[role][i] && channel->slots[role][i]->client->uid != uid)
				return seal_channel(channel);
	return 0;
}

int member_activate(struct member *member)
{
	struct broker *broker = member->client->broker;
	struct list *link, *safe;
	int r;

	if (member->flags & SHMB_MEMBER_ACTIVE)
		return segment_exists(&member->next) ? member_move(member) : -EALREADY;
	r = segment_check_allocated(&member->object.segment);
	if (r == 0)
		r = pairs_create(member);
	/* The channel may have been sealed since it was attached. */
	if (r == 0)
		r = member_prepare(member);
	if (r == 0)
		r = segment_restrict(&member->object.segment);
	if (r < 0) {
		pairs_free(member, NULL, SHMB_GONE_DETACHED);
		return r;
	}
	/* After its pairs: a successor that finds an active member finds all of them. */
	member->flags |= SHMB_MEMBER_ACTIVE;
	registry_set_flags(&broker->registry, member->object.entry, member->flags);
	member->channel->n_active[member->role - 1]++;
	directory_update(member->channel, member->role, member->slot);
	list_for_each(link, safe, &member->pairs)
		pair_announce(list_entry(link, struct pair, member_links[member->role - 1]));
	channel_changed(member->channel);
	if (member->role == SHMB_ROLE_SUBSCRIBER)
		copy_unusable(member->channel);
	return 0;
}

int member_resume(struct member *member)
{
	struct list *link, *safe;
	bool fresh = member->given;
	int r = 0;

	r = member_prepare(member);
	if (r == 0 && fresh)
		r = doorbell_new(member);
	member->present = r == 0;
	if (r == 0 && member->role == SHMB_ROLE_SUBSCRIBER && all_present(member->channel))
		prepare_publishers(member->channel);
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

	/* Killed before its entry is removed: a successor disclaims what is left. */
	if (has_keys(member))
		key_disclaim_all(channel, object_id(&member->object), &member->object.segment);
	if (client->dead && member->role == SHMB_ROLE_PUBLISHER)
		fence_segment(member, &member->object.segment);
	/* First of all, so that a successor does not take up what is half gone. */
	broker_unregister(broker, &member->object);
	channel->slots[member->role - 1][member->slot] = NULL;
	directory_update(channel, member->role, member->slot);
	pairs_free(member, member, reason);
	if (reason == SHMB_GONE_EVICTED) {
		view_gone(member->eviction, member->present, reason);
		member->eviction = NULL;
		/* Before the epoch moves: it is not among the members any more that are told then. */
		view_flush(client, false);
	}
	table_remove(&broker->objects, &member->object.node);
	list_remove(&member->client_link);
	channel->n_members[member->role - 1]--;
	broker->n_members--;
	if (member->flags & SHMB_MEMBER_ACTIVE) {
		channel->n_active[member->role - 1]--;
		channel_changed(channel);
	}
	member_discard(member);
	channel_put(channel);
	idle_check(broker);
}
