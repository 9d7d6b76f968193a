/* SPDX-License-Identifier: Apache-2.0 */

/* Members that move to another segment: their channel is sealed, or the one they had is lost. */

#include <errno.h>
#include <string.h>

#include "lib/clock.h"

#include "daemon/arena.h"
#include "daemon/channel.h"
#include "daemon/key.h"
#include "daemon/member-internal.h"
#include "daemon/member.h"
#include "daemon/pair.h"
#include "daemon/view.h"

#define PATIENCE_NS (1000 * 1000000ull)

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

int member_move(struct member *member)
{
	struct list *last = member->pairs.prev, *link, *safe;
	int r;

	r = segment_check_allocated(&member->next);
	if (r == 0)
		r = member_create_pairs(member);
	if (r == 0)
		r = segment_restrict(&member->next);
	if (r == 0)
		r = move_entry(member);
	if (r < 0) {
		member_drop_pairs(member, last->next, true);
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
	member_drop_pairs(member, last->next, false);
	channel_changed(member->channel);
	return 0;
}

bool member_all_present(const struct channel *channel)
{
	for (uint32_t i = 0; i < channel->n_slots[1]; i++) {
		const struct member *member = channel->slots[1][i];

		if (member && member->flags & SHMB_MEMBER_ACTIVE && !member->present)
			return false;
	}
	return true;
}

void member_prepare_publishers(struct channel *channel)
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
	member_prepare_publishers(channel);
	channel_changed(channel);
}

/*
 * Lanes flow without us; a publisher that had moved while a subscriber does not know where to would
 * be read no more if we died now.
 */
bool member_must_wait(struct member *publisher)
{
	struct channel *channel = publisher->channel;

	if (channel->hurry || member_all_present(channel))
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
	if (member->role == SHMB_ROLE_PUBLISHER && member_must_wait(member))
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
	if (member_has_keys(member))
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
