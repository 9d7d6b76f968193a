/* SPDX-License-Identifier: Apache-2.0 */

/* Members that are kept after they have gone, and copies of what is left of them: see keep.h. */

#include "lib/fd.h"

#include "daemon/channel.h"
#include "daemon/keep.h"
#include "daemon/member-internal.h"
#include "daemon/member.h"
#include "daemon/pair.h"
#include "daemon/view.h"

struct list *member_kept_list(const struct member *member)
{
	return member->role == SHMB_ROLE_PUBLISHER ? &member->channel->kept
						   : &member->channel->kept_workers;
}

void member_note_estate(struct channel *channel)
{
	if (channel->pattern == SHMB_PATTERN_QUEUE && list_empty(&channel->estate_link))
		list_append(&channel->broker->estates, &channel->estate_link);
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

uint32_t member_kept_flags(struct member *publisher, uint32_t reason)
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

void member_keep(struct member *member, uint32_t flags, uint32_t reason)
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
		member_evict(member);
	member_leave(member);
	member->flags |= flags;
	member->client = NULL;
	member->present = false;
	list_append(member_kept_list(member), &member->client_link);
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
	member_note_estate(channel);
	member_put(member);
}

/* Behind those who have gone before. */
static void insert_kept(struct member *publisher)
{
	struct list *kept = member_kept_list(publisher), *before = kept->prev;

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
	member_note_estate(channel);
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
	r = member_find_slot(channel, SHMB_ROLE_PUBLISHER, !last, &entry.slot);
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
