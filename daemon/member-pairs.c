/* SPDX-License-Identifier: Apache-2.0 */

/* The pairs of a member, from its activation on. */

#include <errno.h>

#include "daemon/channel.h"
#include "daemon/directory.h"
#include "daemon/keep.h"
#include "daemon/key.h"
#include "daemon/member-internal.h"
#include "daemon/member.h"
#include "daemon/pair.h"

void member_free_pairs(struct member *member, const struct member *leaver, uint32_t reason)
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

int member_create_pairs(struct member *member)
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

void member_drop_pairs(struct member *member, struct list *first, bool from)
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

		if (member && member_has_keys(member) && !member_usable(member))
			key_copy_all(channel, object_id(&member->object), &member->object.segment);
	}
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
		r = member_create_pairs(member);
	if (r == 0)
		r = pairs_create_history(member);
	/* The channel may have been sealed since it was attached. */
	if (r == 0)
		r = member_prepare(member);
	if (r == 0)
		r = segment_restrict(&member->object.segment);
	if (r < 0) {
		member_free_pairs(member, NULL, SHMB_GONE_DETACHED);
		return r;
	}
	/* After its pairs: a successor that finds an active member finds all of them. */
	member->flags |= SHMB_MEMBER_ACTIVE;
	registry_set_flags(&broker->registry, member->object.entry, member->flags);
	member->channel->n_active[member->role - 1]++;
	if (member->role == SHMB_ROLE_SUBSCRIBER)
		member_note_estate(member->channel);
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
		r = member_new_doorbell(member);
	member->present = r == 0;
	if (r == 0 && member->role == SHMB_ROLE_SUBSCRIBER && member_all_present(member->channel))
		member_prepare_publishers(member->channel);
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
