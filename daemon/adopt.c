/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/clock.h"
#include "lib/fd.h"

#include "daemon/adopt.h"
#include "daemon/arena.h"
#include "daemon/bell.h"
#include "daemon/channel.h"
#include "daemon/client.h"
#include "daemon/directory.h"
#include "daemon/estate.h"
#include "daemon/key.h"
#include "daemon/member.h"
#include "daemon/pair.h"

#define SHM_DIR "/dev/shm"

static struct member *find_member(struct broker *broker, uint64_t id, uint32_t kind)
{
	struct object *object = broker_find(broker, id, kind);

	return object ? shmb_container_of(object, struct member, object) : NULL;
}

static int adopt_member(struct broker *broker, const struct shmb_registry_entry *entry,
			uint32_t slot)
{
	struct object *channel = broker_find(broker, entry->channel_id, SHMB_ENTRY_CHANNEL);
	struct object *client = broker_find(broker, entry->client_id, SHMB_ENTRY_CLIENT);
	struct channel *place = channel ? shmb_container_of(channel, struct channel, object) : NULL;

	if (!place)
		return -ESRCH;
	if (client && !(entry->flags & SHMB_MEMBER_KEPT))
		return member_adopt(place, shmb_container_of(client, struct client, object), entry,
				    slot);
	if (entry->kind != SHMB_ENTRY_PUBLISHER && place->pattern != SHMB_PATTERN_QUEUE)
		return -ESRCH;
	if (place->pattern != SHMB_PATTERN_STATE)
		return member_adopt(place, NULL, entry, slot);
	/* Of values only the last ones count, and those are copied: no segment is kept for them. */
	member_inherit(place, entry);
	return -ESRCH;
}

static int adopt_pair(struct broker *broker, const struct shmb_registry_entry *entry, uint32_t slot)
{
	struct member *publisher, *subscriber;
	struct pair *other;

	publisher = find_member(broker, entry->publisher_id, SHMB_ENTRY_PUBLISHER);
	subscriber = find_member(broker, entry->subscriber_id, SHMB_ENTRY_SUBSCRIBER);
	if (!publisher || !subscriber || publisher->channel != subscriber->channel ||
	    !member_meets(publisher, subscriber))
		return -ESRCH;
	/* Killed while the newer one took the place of the older. */
	other = pair_find(publisher, subscriber);
	if (other && object_id(&other->object) > entry->id)
		return -EEXIST;
	if (other)
		pair_free(other, NULL, SHMB_GONE_MOVED);
	return pair_adopt(publisher, subscriber, entry, slot);
}

/* One that is lost takes the lane along: the publisher moves, and gets others. */
static int adopt_arena(struct broker *broker, const struct shmb_registry_entry *entry,
		       uint32_t slot)
{
	struct member *publisher = find_member(broker, entry->publisher_id, SHMB_ENTRY_PUBLISHER);
	int r = publisher ? arena_adopt(publisher, entry, slot) : -ESRCH;

	if (r == -ENOENT)
		member_lose(publisher, (uint32_t)publisher->object.segment.id);
	return r;
}

static int adopt_entry(struct broker *broker, const struct shmb_registry_entry *entry,
		       uint32_t slot)
{
	if (table_find(&broker->objects, entry->id))
		return -EEXIST;
	switch (entry->kind) {
	case SHMB_ENTRY_CLIENT:
		return client_adopt(broker, entry, slot);
	case SHMB_ENTRY_CHANNEL:
		return channel_adopt(broker, entry, slot);
	case SHMB_ENTRY_PUBLISHER:
	case SHMB_ENTRY_SUBSCRIBER:
		return adopt_member(broker, entry, slot);
	case SHMB_ENTRY_ARENA:
		return adopt_arena(broker, entry, slot);
	default:
		return adopt_pair(broker, entry, slot);
	}
}

/* What an entry refers to is of a lower kind, so it has been adopted or given up by then. */
static int adopt_kind(struct broker *broker, uint32_t kind, uint32_t *n_adopted,
		      uint32_t *n_dropped)
{
	struct shmb_registry_entry entry;
	int r;

	for (uint32_t slot = 0; slot < broker->registry.n_entries; slot++) {
		if (!registry_get(&broker->registry, slot, &entry) || entry.kind != kind)
			continue;
		r = adopt_entry(broker, &entry, slot);
		if (r == 0) {
			++*n_adopted;
			continue;
		}
		/* The entry stays, for a broker that can see what is behind it. */
		if (!shmb_fd_conclusive(-r))
			return r;
		log_line(&broker->log, LOG_INFO, "not-adopted", "kind=%u id=%llu error=%d", kind,
			 (unsigned long long)entry.id, -r);
		/* Its segment is swept, since no entry names it then. */
		registry_remove(&broker->registry, slot);
		++*n_dropped;
	}
	return 0;
}

typedef char segment_name[SHMB_SEGMENT_NAME_LEN_MAX];

static int compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Names of all segments that entries name, sorted. NULL: no memory, or there are none. */
static segment_name *known_names(const struct broker *broker, size_t *ret_n)
{
	segment_name *names = calloc(broker->registry.n_entries, sizeof(segment_name));
	struct shmb_registry_entry entry;

	*ret_n = 0;
	if (!names)
		return NULL;
	for (uint32_t slot = 0; slot < broker->registry.n_entries; slot++)
		if (registry_get(&broker->registry, slot, &entry))
			memcpy(names[(*ret_n)++], entry.segment, sizeof(segment_name));
	qsort(names, *ret_n, sizeof(segment_name), compare_names);
	return names;
}

void adopt_sweep(struct broker *broker)
{
	char prefix[32], name[NAME_MAX + 2];
	segment_name *known;
	struct dirent *found;
	size_t len, n_known;
	DIR *dir;

	len = (size_t)snprintf(prefix, sizeof(prefix), "shmb.%016llx.",
			       (unsigned long long)broker->maker.instance);
	known = known_names(broker, &n_known);
	dir = known ? opendir(SHM_DIR) : NULL;
	while (dir && (found = readdir(dir))) {
		if (strncmp(found->d_name, prefix, len) != 0)
			continue;
		snprintf(name, sizeof(name), "/%s", found->d_name);
		if (strcmp(name, broker->registry.name) == 0 ||
		    bsearch(name, known, n_known, sizeof(segment_name), compare_names))
			continue;
		/* After its name was read: it may be a successor's, of which we know nothing. */
		if (registry_is_superseded(&broker->registry))
			break;
		shm_unlink(name);
	}
	if (dir)
		closedir(dir);
	free(known);
}

/* If its lane or the bell is lost, they are paired anew once the publisher has a lane again. */
static int complete_pair(struct member *publisher, struct member *subscriber)
{
	struct pair *pair = pair_find(publisher, subscriber);
	bool usable = member_usable(publisher);
	int r;

	if (pair && !usable)
		pair_set_stale(pair);
	if (pair && (!usable || !pair->stale))
		return 0;
	r = pair_new(publisher, subscriber, publisher->user);
	if (r == 0 && pair)
		pair_free(pair, NULL, SHMB_GONE_MOVED);
	return r;
}

/*
 * Active members have all their pairs, unless a segment of a pair was lost. Then the two get a new
 * one, and go on where they were if they know each other, else where the publisher is.
 */
static int complete_pairs(struct channel *channel)
{
	struct member *publisher, *subscriber;
	int r;

	for (uint32_t i = 0; i < channel->n_slots[0]; i++) {
		for (uint32_t k = 0; k < channel->n_slots[1]; k++) {
			publisher = channel->slots[0][i];
			subscriber = channel->slots[1][k];
			if (!publisher || !subscriber || !member_meets(publisher, subscriber))
				continue;
			r = complete_pair(publisher, subscriber);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static void on_adoption_end(void *data)
{
	struct broker *broker = data;
	struct list *link, *safe;

	broker->adoption = loop_timer_cancel(broker->adoption);
	list_for_each(link, safe, &broker->channels)
	{
		struct channel *channel = list_entry(link, struct channel, link);

		channel->adopted = false;
		channel_put(channel);
	}
	estate_settle(broker);
}

int adopt_all(struct broker *broker)
{
	uint32_t n_adopted = 0, n_dropped = 0;
	struct list *link, *safe;
	int r = 0;

	for (uint32_t kind = SHMB_ENTRY_CLIENT; r == 0 && kind <= SHMB_ENTRY_ARENA; kind++)
		r = adopt_kind(broker, kind, &n_adopted, &n_dropped);
	if (r < 0)
		return r;
	adopt_sweep(broker);
	store_sweep(broker->maker.store);
	list_for_each(link, safe, &broker->channels)
	{
		struct channel *channel = list_entry(link, struct channel, link);

		r = complete_pairs(channel);
		if (r < 0)
			return r;
		estate_adopt(channel);
		member_settle_kept(channel);
		if (channel->pattern == SHMB_PATTERN_STATE)
			key_settle(channel);
		else if (channel->pattern == SHMB_PATTERN_CALL)
			directory_settle(channel);
	}
	list_for_each(link, safe, &broker->clients)
		member_free_left(list_entry(link, struct client, link));
	r = loop_timer_at(broker->loop, shmb_clock_now_ns() + broker->config.away_ns,
			  on_adoption_end, broker, &broker->adoption);
	if (r < 0)
		return r;
	list_for_each(link, safe, &broker->clients)
		client_check_away(list_entry(link, struct client, link));
	/* Nobody is left who could come back for a channel. */
	if (list_empty(&broker->clients))
		on_adoption_end(broker);
	log_line(&broker->log, LOG_NOTICE, "adopted", "entries=%u dropped=%u", n_adopted,
		 n_dropped);
	return 0;
}

void adopt_announce(struct broker *broker)
{
	struct list *link, *safe;

	list_for_each(link, safe, &broker->clients)
		bell_set_epoch(list_entry(link, struct client, link));
	list_for_each(link, safe, &broker->channels)
		channel_changed(list_entry(link, struct channel, link));
	estate_settle(broker);
	list_for_each(link, safe, &broker->clients)
		bell_ring(list_entry(link, struct client, link));
}
