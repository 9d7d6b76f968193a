/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/adopt.h"
#include "daemon/bell.h"
#include "daemon/channel.h"
#include "daemon/client.h"
#include "daemon/clock.h"
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

	if (!channel || !client)
		return -ESRCH;
	return member_adopt(shmb_container_of(channel, struct channel, object),
			    shmb_container_of(client, struct client, object), entry, slot);
}

static int adopt_pair(struct broker *broker, const struct shmb_registry_entry *entry, uint32_t slot)
{
	struct member *publisher, *subscriber;

	publisher = find_member(broker, entry->publisher_id, SHMB_ENTRY_PUBLISHER);
	subscriber = find_member(broker, entry->subscriber_id, SHMB_ENTRY_SUBSCRIBER);
	if (!publisher || !subscriber || publisher->channel != subscriber->channel)
		return -ESRCH;
	return pair_adopt(publisher, subscriber, entry, slot);
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
	default:
		return adopt_pair(broker, entry, slot);
	}
}

/* What an entry refers to is of a lower kind, so it has been adopted or given up by then. */
static void adopt_kind(struct broker *broker, uint32_t kind, uint32_t *n_adopted,
		       uint32_t *n_dropped)
{
	struct shmb_registry_entry entry;

	for (uint32_t slot = 0; slot < broker->registry.n_entries; slot++) {
		if (!registry_get(&broker->registry, slot, &entry) || entry.kind != kind)
			continue;
		if (adopt_entry(broker, &entry, slot) == 0) {
			++*n_adopted;
			continue;
		}
		/* Its segment is swept, since no entry names it then. */
		registry_remove(&broker->registry, slot);
		++*n_dropped;
	}
}

static bool is_known(const struct broker *broker, const char *name)
{
	struct shmb_registry_entry entry;

	for (uint32_t slot = 0; slot < broker->registry.n_entries; slot++)
		if (registry_get(&broker->registry, slot, &entry) &&
		    strcmp((const char *)entry.segment, name) == 0)
			return true;
	return strcmp(broker->registry.name, name) == 0;
}

void adopt_sweep(struct broker *broker)
{
	char prefix[32], name[NAME_MAX + 2];
	struct dirent *found;
	size_t len;
	DIR *dir;

	len = (size_t)snprintf(prefix, sizeof(prefix), "shmb.%016llx.",
			       (unsigned long long)broker->maker.instance);
	dir = opendir(SHM_DIR);
	if (!dir)
		return;
	while ((found = readdir(dir))) {
		if (strncmp(found->d_name, prefix, len) != 0)
			continue;
		snprintf(name, sizeof(name), "/%s", found->d_name);
		if (!is_known(broker, name))
			shm_unlink(name);
	}
	closedir(dir);
}

/* A member may have been announced just when the broker died: it has all its pairs, or gets them. */
static void complete_pairs(struct broker *broker)
{
	struct list *link, *safe;

	list_for_each (link, safe, &broker->channels) {
		struct channel *channel = list_entry(link, struct channel, link);
		uint64_t wanted = (uint64_t)channel->n_active[0] * channel->n_active[1];
		uint64_t have = 0;

		for (uint32_t i = 0; i < channel->n_slots[0]; i++) {
			struct list *inner, *inner_safe;

			if (!channel->slots[0][i])
				continue;
			list_for_each (inner, inner_safe, &channel->slots[0][i]->pairs)
				have++;
		}
		if (have != wanted)
			log_line(&broker->log, LOG_WARNING, "pairs-missing",
				 "channel=%llu have=%llu wanted=%llu",
				 (unsigned long long)object_id(&channel->object),
				 (unsigned long long)have, (unsigned long long)wanted);
	}
}

static void on_adoption_end(void *data)
{
	struct broker *broker = data;
	struct list *link, *safe;

	broker->adoption = loop_timer_cancel(broker->adoption);
	list_for_each (link, safe, &broker->channels) {
		struct channel *channel = list_entry(link, struct channel, link);

		channel->adopted = false;
		channel_put(channel);
	}
}

int adopt_all(struct broker *broker)
{
	uint32_t n_adopted = 0, n_dropped = 0;
	struct list *link, *safe;
	int r;

	for (uint32_t kind = SHMB_ENTRY_CLIENT; kind <= SHMB_ENTRY_PAIR; kind++)
		adopt_kind(broker, kind, &n_adopted, &n_dropped);
	adopt_sweep(broker);
	complete_pairs(broker);
	r = loop_timer_at(broker->loop, clock_ns() + broker->config.away_ns, on_adoption_end,
			  broker, &broker->adoption);
	if (r < 0)
		return r;
	list_for_each (link, safe, &broker->clients)
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

	list_for_each (link, safe, &broker->channels)
		channel_changed(list_entry(link, struct channel, link));
	list_for_each (link, safe, &broker->clients)
		bell_ring(list_entry(link, struct client, link));
}
