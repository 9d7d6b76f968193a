/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Arenas come and go with the publisher that writes them. They are made, allocated by their client,
 * announced and found again as lanes are; but subscribers who know the publisher get them one by one.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/arena.h"
#include "daemon/channel.h"
#include "daemon/fence.h"
#include "daemon/view.h"

static struct segment_spec arena_spec(const struct member *publisher, uint64_t id, uint32_t backing,
				      uint64_t len)
{
	return (struct segment_spec){
		.kind = SHMB_SEGMENT_ARENA,
		.backing = backing,
		.id = id,
		.owner_id = object_id(&publisher->object),
		.len = len,
	};
}

static struct broker *broker_of(const struct arena *arena)
{
	return arena->member->channel->broker;
}

/* In order of numbers; entries of the registry are in no order. Returns false if it is there. */
static bool arena_link(struct member *publisher, struct arena *arena)
{
	struct list *before = &publisher->arenas, *link, *safe;

	list_for_each(link, safe, &publisher->arenas)
	{
		uint32_t number = list_entry(link, struct arena, link)->number;

		if (number == arena->number)
			return false;
		if (number > arena->number) {
			before = link;
			break;
		}
	}
	list_append(before, &arena->link);
	return true;
}

/* An arena without segment and entry, which pays already. */
static struct arena *arena_alloc(struct member *publisher, uint64_t id, uint32_t number,
				 uint64_t len, int *ret_error)
{
	struct arena *arena = calloc(1, sizeof(*arena));

	*ret_error = -ENOMEM;
	if (!arena)
		return NULL;
	arena->object.kind = SHMB_ENTRY_ARENA;
	arena->object.entry = REGISTRY_NO_ENTRY;
	arena->member = publisher;
	arena->number = number;
	if (table_add(&publisher->channel->broker->objects, &arena->object.node, id) < 0)
		goto fail;
	if (quota_charge(publisher->user, QUOTA_BYTES, len) < 0) {
		*ret_error = -EDQUOT;
		table_remove(&publisher->channel->broker->objects, &arena->object.node);
		goto fail;
	}
	if (!arena_link(publisher, arena)) {
		*ret_error = -EINVAL;
		quota_release(publisher->user, QUOTA_BYTES, len);
		table_remove(&publisher->channel->broker->objects, &arena->object.node);
		goto fail;
	}
	arena->charged = len;
	return arena;
fail:
	free(arena);
	return NULL;
}

/* What the publisher has already, and the highest number. */
static uint64_t arenas_len(const struct member *publisher, uint32_t *ret_next)
{
	struct list *link, *safe;
	uint64_t len = 0;

	*ret_next = 0;
	list_for_each(link, safe, &publisher->arenas)
	{
		struct arena *arena = list_entry(link, struct arena, link);

		if (!arena->left)
			len += arena->charged;
		*ret_next = arena->number + 1;
	}
	return len;
}

int arena_new(struct member *publisher, uint32_t number, uint64_t len, struct arena **ret_arena)
{
	struct broker *broker = publisher->channel->broker;
	uint64_t limit = publisher->channel->blocks.arena_len, used;
	struct segment_spec spec;
	struct arena *arena;
	uint32_t next;
	uint64_t id;
	int r;

	if (!(publisher->flags & SHMB_MEMBER_ACTIVE) || publisher->role != SHMB_ROLE_PUBLISHER)
		return -EINVAL;
	if (!member_usable(publisher) || segment_exists(&publisher->next))
		return -EBUSY;
	used = arenas_len(publisher, &next);
	if (len <= SHMB_BLOCK_LEN || len % SHMB_ARENA_PAGE_LEN || number < next ||
	    number > SHMB_ARENA_NUMBER_MAX)
		return -EINVAL;
	if (len > limit || used > limit - len)
		return -EDQUOT;
	id = registry_next_id(&broker->registry);
	arena = arena_alloc(publisher, id, number, len, &r);
	if (!arena)
		return r;
	spec = arena_spec(publisher, id, publisher->channel->backing, len);
	r = segment_create(&broker->maker, &spec, &arena->object.segment);
	if (r < 0) {
		arena_free(arena);
		return r;
	}
	*ret_arena = arena;
	return 0;
}

/* Only now: a successor would have to ask whether anybody has mapped it. */
static int arena_register(struct arena *arena)
{
	const struct member *publisher = arena->member;
	struct shmb_registry_entry entry = {
		.kind = SHMB_ENTRY_ARENA,
		.id = object_id(&arena->object),
		.channel_id = object_id(&publisher->channel->object),
		.publisher_id = object_id(&publisher->object),
		.segment_len = arena->object.segment.len,
		.slot = arena->number,
		.backing = arena->object.segment.backing,
	};

	memcpy(entry.segment, arena->object.segment.name, sizeof(entry.segment));
	return registry_add(&broker_of(arena)->registry, &entry, &arena->object.entry);
}

/* Who can be told is told now, or the next time that its client is. */
static void mark_views(const struct member *publisher)
{
	struct list *link, *safe;

	list_for_each(link, safe, &publisher->pairs)
	{
		struct pair *pair = list_entry(link, struct pair, member_links[0]);

		if (!pair->stale && pair->members[1]->present && view_next_arena(pair->views[1]))
			view_mark(pair->views[1]);
	}
}

int arena_activate(struct arena *arena)
{
	struct member *publisher = arena->member;
	int r;

	if (arena->active)
		return -EALREADY;
	if (!member_usable(publisher) || segment_exists(&publisher->next))
		return -EBUSY;
	r = segment_check_allocated(&arena->object.segment);
	if (r == 0)
		r = segment_restrict(&arena->object.segment);
	if (r == 0)
		r = arena_register(arena);
	if (r < 0)
		return r;
	arena->active = true;
	mark_views(publisher);
	channel_changed(publisher->channel);
	return 0;
}

int arena_adopt(struct member *publisher, const struct shmb_registry_entry *entry, uint32_t slot)
{
	struct broker *broker = publisher->channel->broker;
	struct segment_spec spec =
		arena_spec(publisher, entry->id, entry->backing, entry->segment_len);
	struct arena *arena;
	int r;

	if (entry->segment_len <= SHMB_BLOCK_LEN || entry->segment_len % SHMB_ARENA_PAGE_LEN ||
	    entry->slot > SHMB_ARENA_NUMBER_MAX)
		return -EINVAL;
	arena = arena_alloc(publisher, entry->id, entry->slot, entry->segment_len, &r);
	if (!arena)
		return r;
	r = segment_adopt(&broker->maker, (const char *)entry->segment, &spec,
			  &arena->object.segment);
	if (r < 0) {
		segment_forget(&arena->object.segment);
		arena_free(arena);
		return r;
	}
	arena->object.entry = slot;
	arena->active = true;
	return 0;
}

void arena_free(struct arena *arena)
{
	struct broker *broker = broker_of(arena);

	/* The entry before the segment: see registry.h. */
	broker_unregister(broker, &arena->object);
	quota_release(arena->member->user, QUOTA_BYTES, arena->charged);
	segment_destroy(&arena->object.segment);
	table_remove(&broker->objects, &arena->object.node);
	list_remove(&arena->link);
	free(arena);
}

void arena_free_all(struct member *publisher)
{
	struct list *link, *safe;

	list_for_each(link, safe, &publisher->arenas)
	{
		arena_free(list_entry(link, struct arena, link));
	}
}

void arena_fence_all(struct member *publisher)
{
	struct list *link, *safe;

	list_for_each(link, safe, &publisher->arenas)
	{
		struct arena *arena = list_entry(link, struct arena, link);

		if (arena->active)
			fence_segment(publisher, &arena->object.segment);
	}
}

void arena_leave_all(struct member *publisher)
{
	struct list *link, *safe;

	list_for_each(link, safe, &publisher->arenas) list_entry(link, struct arena, link)->left =
		true;
}
