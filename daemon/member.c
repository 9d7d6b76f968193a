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
#include "daemon/keep.h"
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

static struct segment_spec member_spec(const struct member *member, uint64_t owner_id, uint64_t id,
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

static uint32_t slots_max(const struct channel *channel, uint32_t role)
{
	return role == SHMB_ROLE_PUBLISHER
		       ? shmb_cursor_slots(channel->pattern, channel->max_publishers)
		       : channel->max_subscribers;
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

/* Workers of a queue mark in it what they have done for a publisher that has gone. */
static bool slot_is_kept(const struct channel *channel, uint32_t role, uint32_t slot)
{
	struct list *link, *safe;

	if (role != SHMB_ROLE_PUBLISHER || channel->pattern != SHMB_PATTERN_QUEUE)
		return false;
	list_for_each(link, safe,
		      &channel->kept) if (list_entry(link, struct member, client_link)->slot ==
					  slot) return true;
	return false;
}

/* A free slot, leaving @spare others. */
static int slot_find(const struct channel *channel, uint32_t role, uint32_t spare,
		     uint32_t *ret_slot)
{
	for (uint32_t slot = 0; slot < slots_max(channel, role); slot++) {
		if ((slot < channel->n_slots[role - 1] && channel->slots[role - 1][slot]) ||
		    slot_is_kept(channel, role, slot) || spare-- > 0)
			continue;
		*ret_slot = slot;
		return 0;
	}
	return -EUSERS;
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

/* Everything but its segment and entry. What fails leaves a member for member_discard(). */
static int member_init(struct member *member, struct channel *channel, struct client *client,
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

static struct list *kept_list(const struct member *member)
{
	return member->role == SHMB_ROLE_PUBLISHER ? &member->channel->kept
						   : &member->channel->kept_workers;
}

/* Somebody has come or gone: what is left may have to go to others. */
static void note_estate(struct channel *channel)
{
	if (channel->pattern == SHMB_PATTERN_QUEUE && list_empty(&channel->estate_link))
		list_append(&channel->broker->estates, &channel->estate_link);
}

/* Now it is found. */
static int member_insert(struct member *member, uint64_t id)
{
	struct channel *channel = member->channel;
	struct broker *broker = channel->broker;
	int r;

	r = table_add(&broker->objects, &member->object.node, id);
	if (r < 0)
		return r;
	if (member_is_kept(member)) {
		list_append(kept_list(member), &member->client_link);
		return 0;
	}
	list_append(&member->client->members, &member->client_link);
	channel->slots[member->role - 1][member->slot] = member;
	channel->n_members[member->role - 1]++;
	broker->n_members++;
	idle_check(broker);
	return 0;
}

static void member_discard(struct member *member)
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

/* A member with a segment, made with @flags, whose name @entry gets, and with that entry. */
static int member_create(struct channel *channel, struct client *client,
			 struct shmb_registry_entry *entry, uint32_t flags,
			 struct member **ret_member)
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
	r = slot_find(channel, role, channel->pattern == SHMB_PATTERN_QUEUE && publisher,
		      &entry.slot);
	if (r == 0)
		r = slots_reserve(channel, role, entry.slot);
	if (r < 0)
		return r;
	entry.id = registry_next_id(&channel->broker->registry);
	r = member_create(channel, client, &entry, 0, ret_member);
	if (r == 0)
		(*ret_member)->present = true;
	return r;
}

int member_adopt(struct channel *channel, struct client *client,
		 const struct shmb_registry_entry *entry, uint32_t slot)
{
	bool publisher = entry->kind == SHMB_ENTRY_PUBLISHER;
	uint32_t role = publisher ? SHMB_ROLE_PUBLISHER : SHMB_ROLE_SUBSCRIBER;
	struct broker *broker = channel->broker;
	struct segment_spec spec;
	struct member *member;
	int r;

	/* Its client never heard that it was announced, and will ask anew. */
	if (!(entry->flags & SHMB_MEMBER_ACTIVE) || entry->slot >= slots_max(channel, role) ||
	    entry->segment_len != member_segment_len(channel, role) ||
	    (!client && !publisher && channel->pattern != SHMB_PATTERN_QUEUE))
		return -EINVAL;
	r = client ? slots_reserve(channel, role, entry->slot) : 0;
	if (r < 0)
		return r;
	if (client && channel->slots[role - 1][entry->slot])
		return -EINVAL;
	member = calloc(1, sizeof(*member));
	if (!member)
		return -ENOMEM;
	r = member_init(member, channel, client, entry);
	if (r == 0) {
		spec = member_spec(member, entry->id,
				   entry->segment_id ? entry->segment_id : entry->id,
				   entry->backing);
		r = segment_adopt(&broker->maker, (const char *)entry->segment, &spec,
				  &member->object.segment);
	}
	/* Those who have mapped it go on with it until its client has moved to another one. */
	if (r == -ENOENT && entry->backing == SHMB_MEMORY_SEALED && client)
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
	if (!client)
		return 0;
	channel->n_active[role - 1]++;
	if (has_keys(member) && !segment_exists(&member->object.segment))
		key_drop_copies(channel, entry->id);
	return 0;
}

int member_copy(const struct pair *of, bool last, struct member **ret_member)
{
	struct channel *channel = of->members[0]->channel;
	struct shmb_registry_entry entry = {
		.kind = SHMB_ENTRY_PUBLISHER,
		.channel_id = object_id(&channel->object),
		.segment_len = member_segment_len(channel, SHMB_ROLE_PUBLISHER),
		.flags = SHMB_MEMBER_KEPT,
		.uid = of->members[0]->uid,
		.backing = channel->backing,
		.reply_to = object_id(&of->object),
	};
	int r;

	/* One slot is left for who gives up its own. */
	r = slot_find(channel, SHMB_ROLE_PUBLISHER, !last, &entry.slot);
	if (r < 0)
		return r;
	entry.id = entry.kept_id = registry_next_id(&channel->broker->registry);
	return member_create(channel, NULL, &entry, SEGMENT_ALLOCATE, ret_member);
}

void member_settle_copy(struct member *copy)
{
	struct list *link, *safe;

	/* After its pairs. Killed before: a successor makes another copy; after: it finds all of this. */
	copy->flags |= SHMB_MEMBER_ACTIVE;
	registry_set_flags(&copy->channel->broker->registry, copy->object.entry, copy->flags);
	list_for_each(link, safe, &copy->pairs)
		pair_announce(list_entry(link, struct pair, member_links[0]));
	channel_changed(copy->channel);
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

	if (!(entry->flags & SHMB_MEMBER_ACTIVE))
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

	list_for_each(link, safe, &member->pairs)
	{
		struct pair *pair = list_entry(link, struct pair, member_links[member->role - 1]);
		struct member *peer = pair->members[member->role == SHMB_ROLE_PUBLISHER];

		pair_free(pair, leaver, reason);
		member_put(peer);
	}
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
		r = other ? pair_new(member, peer, member->user)
			  : pair_new(peer, member, member->user);
	}
	return r;
}

/* Who comes late gets what those who have gone have left, on a channel that keeps it. */
static int pairs_create_history(struct member *subscriber)
{
	struct list *link, *safe;
	int r = 0;

	if (subscriber->role != SHMB_ROLE_SUBSCRIBER || !subscriber->history)
		return 0;
	list_for_each(link, safe, &subscriber->channel->kept)
	{
		struct member *publisher = list_entry(link, struct member, client_link);

		if (r == 0 && publisher->flags & SHMB_MEMBER_HISTORY &&
		    keep_fits(publisher, subscriber))
			r = pair_new(publisher, subscriber, subscriber->user);
	}
	return r;
}

/*
 * Ends what pairs_create() has made, or what was there before: pairs from @first on, or up to it. A
 * kept lane is read from whatever cursor its reader has, and what a kept worker has left its publisher
 * has in any lane.
 */
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
		else if (!from && !seen && !member_is_kept(pair->members[0]) &&
			 !member_is_kept(pair->members[1]))
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
	spec = member_spec(member, object_id(&member->object), registry_next_id(&broker->registry),
			   member->channel->backing);
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
			if (channel->slots[role][i] && channel->slots[role][i]->uid != uid)
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
	if (r == 0)
		r = pairs_create_history(member);
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
	if (member->role == SHMB_ROLE_SUBSCRIBER)
		note_estate(member->channel);
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

/* Not among those any more that come and go. */
static void member_leave(struct member *member)
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

static void member_remove(struct member *member)
{
	struct channel *channel = member->channel;

	/* First of all, so that a successor does not take up what is half gone. */
	broker_unregister(channel->broker, &member->object);
	table_remove(&channel->broker->objects, &member->object.node);
	member_discard(member);
	channel_put(channel);
}

void member_put(struct member *member)
{
	if (!member_is_kept(member) || !list_empty(&member->pairs) ||
	    member->flags & SHMB_MEMBER_HISTORY)
		return;
	list_remove(&member->client_link);
	member_remove(member);
}

/* From now on it is there for its pairs only. */
static void drop_history(struct member *publisher)
{
	if (!(publisher->flags & SHMB_MEMBER_HISTORY))
		return;
	publisher->flags &= ~SHMB_MEMBER_HISTORY;
	registry_set_flags(&publisher->channel->broker->registry, publisher->object.entry,
			   publisher->flags);
	member_put(publisher);
}

void member_drop_history(struct channel *channel)
{
	struct list *link, *safe;

	list_for_each(link, safe, &channel->kept)
		drop_history(list_entry(link, struct member, client_link));
}

bool member_make_room(void *data, const struct quota_user *user)
{
	struct broker *broker = data;
	struct member *oldest = NULL;
	struct list *link, *safe, *inner, *inner_safe;

	list_for_each(link, safe, &broker->channels)
	{
		struct channel *channel = list_entry(link, struct channel, link);

		list_for_each(inner, inner_safe, &channel->kept)
		{
			struct member *publisher = list_entry(inner, struct member, client_link);

			if (publisher->user == user && publisher->flags & SHMB_MEMBER_HISTORY &&
			    list_empty(&publisher->pairs) &&
			    (!oldest || publisher->kept_id < oldest->kept_id))
				oldest = publisher;
		}
	}
	if (oldest)
		drop_history(oldest);
	return oldest != NULL;
}

/* Of those who have gone together so many records are history as of each who is there. */
static void trim_history(struct channel *channel)
{
	uint32_t n_records = 0, n_lanes = 0;
	struct list *link, *before;

	for (link = channel->kept.prev, before = link->prev; link != &channel->kept;
	     link = before, before = link->prev) {
		struct member *publisher = list_entry(link, struct member, client_link);

		if (!(publisher->flags & SHMB_MEMBER_HISTORY))
			continue;
		n_lanes++;
		if (n_records >= channel->history || n_lanes > channel->max_publishers)
			drop_history(publisher);
		else
			n_records += publisher->n_records;
	}
}

static bool any_owed(const struct member *member)
{
	unsigned mine = member->role - 1;
	struct list *link, *safe;

	list_for_each(link, safe, &member->pairs) if (keep_owed(list_entry(link, struct pair,
									   member_links[mine]),
								mine)) return true;
	return false;
}

/* Why the segment of one that goes has to stay: SHMB_MEMBER_KEPT, and _HISTORY; 0: it has not. */
static uint32_t kept_flags(struct member *publisher, uint32_t reason)
{
	uint32_t pattern = publisher->channel->pattern;

	if (!(publisher->flags & SHMB_MEMBER_ACTIVE) ||
	    (pattern != SHMB_PATTERN_STREAM && pattern != SHMB_PATTERN_QUEUE) ||
	    (pattern == SHMB_PATTERN_STREAM && publisher->role != SHMB_ROLE_PUBLISHER))
		return 0;
	publisher->n_records = reason == SHMB_GONE_EVICTED ? 0 : keep_n_records(publisher);
	if (publisher->n_records)
		return SHMB_MEMBER_KEPT | SHMB_MEMBER_HISTORY;
	return any_owed(publisher) ? SHMB_MEMBER_KEPT : 0;
}

/* Those of its pairs stay for which its segment is kept. */
static void keep_pairs(struct member *member, uint32_t reason)
{
	unsigned mine = member->role - 1;
	struct list *link, *safe;

	list_for_each(link, safe, &member->pairs)
	{
		struct pair *pair = list_entry(link, struct pair, member_links[mine]);
		struct member *peer = pair->members[!mine];

		if (keep_owed(pair, mine)) {
			pair_keep(pair, mine);
			continue;
		}
		pair_free(pair, member, reason);
		member_put(peer);
	}
}

/* Behind those who have gone before. */
static void insert_kept(struct member *publisher)
{
	struct list *kept = kept_list(publisher), *before = kept->prev;

	while (before != kept &&
	       list_entry(before, struct member, client_link)->kept_id > publisher->kept_id)
		before = before->prev;
	/* In front of the one that comes behind it. */
	list_append(before->next, &publisher->client_link);
}

static void settle_kept(struct member *member)
{
	struct registry *registry = &member->channel->broker->registry;
	uint32_t flags = member->flags | SHMB_MEMBER_KEPT;

	member->n_records = keep_n_records(member);
	if (!(member->flags & SHMB_MEMBER_KEPT)) {
		/* Killed before: a successor finds as many of its pairs, or fewer. */
		keep_pairs(member, SHMB_GONE_DIED);
		member->kept_id = registry_next_id(registry);
		flags |= member->n_records ? SHMB_MEMBER_HISTORY : 0;
		registry_keep(registry, member->object.entry, flags, member->kept_id);
		member->flags = flags;
	}
	list_remove(&member->client_link);
	insert_kept(member);
}

static void settle_list(struct list *kept)
{
	struct list unsorted, *link, *safe;

	list_init(&unsorted);
	list_for_each(link, safe, kept)
	{
		list_remove(link);
		list_append(&unsorted, link);
	}
	/* Those that are not needed go later: none of the others in this list may go meanwhile. */
	while (!list_empty(&unsorted))
		settle_kept(list_entry(unsorted.next, struct member, client_link));
}

void member_settle_kept(struct channel *channel)
{
	struct list *link, *safe;

	channel->busy = true;
	settle_list(&channel->kept);
	settle_list(&channel->kept_workers);
	list_for_each(link, safe, &channel->kept)
		member_put(list_entry(link, struct member, client_link));
	list_for_each(link, safe, &channel->kept_workers)
		member_put(list_entry(link, struct member, client_link));
	trim_history(channel);
	channel->busy = false;
	note_estate(channel);
}

/* Ends all pairs whose subscriber has gone, too. */
static void forget_left(struct channel *channel)
{
	struct list *link, *safe, *inner, *inner_safe;

	list_for_each(link, safe, &channel->kept)
	{
		struct member *publisher = list_entry(link, struct member, client_link);

		list_for_each(inner, inner_safe, &publisher->pairs) pair_free(
			list_entry(inner, struct pair, member_links[0]), NULL, SHMB_GONE_DIED);
	}
}

void member_drop_left(struct channel *channel)
{
	struct list *link, *safe;

	forget_left(channel);
	list_for_each(link, safe, &channel->kept)
		member_put(list_entry(link, struct member, client_link));
	list_for_each(link, safe, &channel->kept_workers)
		member_put(list_entry(link, struct member, client_link));
}

static void forget_list(struct list *kept)
{
	struct list *link, *safe;

	list_for_each(link, safe, kept)
	{
		struct member *member = list_entry(link, struct member, client_link);

		list_remove(&member->client_link);
		table_remove(&member->channel->broker->objects, &member->object.node);
		member_discard(member);
	}
}

void member_forget_kept(struct channel *channel)
{
	forget_left(channel);
	forget_list(&channel->kept);
	forget_list(&channel->kept_workers);
}

static void evict(struct member *member)
{
	view_gone(member->eviction, member->present, SHMB_GONE_EVICTED);
	member->eviction = NULL;
	/* Before the epoch moves: it is not among the members any more that are told then. */
	view_flush(member->client, false);
}

/* It goes, its segment stays. */
static void member_keep(struct member *member, uint32_t flags, uint32_t reason)
{
	struct channel *channel = member->channel;
	struct broker *broker = channel->broker;

	member->kept_id = registry_next_id(&broker->registry);
	/*
	 * Killed before: a successor finds its client dead, and keeps it, or the client has still to
	 * say that it has gone. After: it finds it kept.
	 */
	registry_keep(&broker->registry, member->object.entry, member->flags | flags,
		      member->kept_id);
	keep_pairs(member, reason);
	if (reason == SHMB_GONE_EVICTED)
		evict(member);
	member_leave(member);
	member->flags |= flags;
	member->client = NULL;
	member->present = false;
	list_append(kept_list(member), &member->client_link);
	segment_destroy(&member->next);
	member->doorbell = shmb_fd_close(member->doorbell);
	view_free(member->eviction);
	view_free(member->move);
	member->eviction = member->move = NULL;
	log_line(&broker->log, LOG_INFO,
		 member->role == SHMB_ROLE_PUBLISHER ? "lane-kept" : "marks-kept",
		 "member=%llu channel=%llu uid=%u", (unsigned long long)object_id(&member->object),
		 (unsigned long long)object_id(&channel->object), member->uid);
	channel_changed(channel);
	trim_history(channel);
	note_estate(channel);
	member_put(member);
}

void member_free(struct member *member, uint32_t reason)
{
	struct channel *channel = member->channel;
	struct broker *broker = channel->broker;
	bool active = member->flags & SHMB_MEMBER_ACTIVE;
	uint32_t kept;

	/* Killed before its entry is removed: a successor disclaims what is left. */
	if (has_keys(member))
		key_disclaim_all(channel, object_id(&member->object), &member->object.segment);
	if (member->client->dead && member->role == SHMB_ROLE_PUBLISHER) {
		fence_segment(member, &member->object.segment);
		arena_fence_all(member);
	}
	kept = kept_flags(member, reason);
	if (kept) {
		member_keep(member, kept, reason);
		idle_check(broker);
		return;
	}
	/* First of all, so that a successor does not take up what is half gone. */
	broker_unregister(broker, &member->object);
	pairs_free(member, member, reason);
	if (reason == SHMB_GONE_EVICTED)
		evict(member);
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
