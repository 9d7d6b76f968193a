/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/fd.h"

#include "daemon/pair.h"
#include "daemon/view.h"

#define BELL_LEN sizeof(struct shmb_bell_segment)
/* So that some dozens of packets find room, however the machine is tuned. */
#define FDS_BUFFER_LEN 65536
/* Generations of one broker begin above those of its predecessors. */
#define GENERATION_SHIFT 12

static struct segment_spec bell_spec(uint64_t id, uint32_t backing, unsigned flags)
{
	return (struct segment_spec){ .kind = SHMB_SEGMENT_BELL,
				      .backing = backing,
				      .id = id,
				      .owner_id = id,
				      .len = BELL_LEN,
				      .flags = flags };
}

static struct broker *broker_of(const struct pair *pair)
{
	return pair->members[0]->channel->broker;
}

static void close_sockets(int sockets[2][2])
{
	for (unsigned i = 0; i < 4; i++)
		sockets[i / 2][i % 2] = shmb_fd_close(sockets[i / 2][i % 2]);
}

/* Both directions are made anew: an end that was sent cannot be had back. */
static int make_sockets(struct pair *pair)
{
	int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
	int sockets[2][2] = { { -1, -1 }, { -1, -1 } };

	if (!pair_is_cross(pair) || member_is_kept(pair->members[0]) ||
	    member_is_kept(pair->members[1]))
		return 0;
	if (socketpair(AF_UNIX, type, 0, sockets[0]) < 0 ||
	    socketpair(AF_UNIX, type, 0, sockets[1]) < 0) {
		int r = -errno;

		close_sockets(sockets);
		return r;
	}
	close_sockets(pair->sockets);
	memcpy(pair->sockets, sockets, sizeof(sockets));
	pair->generation++;
	return 0;
}

static void close_fds(struct pair *pair)
{
	for (unsigned i = 0; i < 2; i++)
		pair->fds[i] = shmb_fd_close(pair->fds[i]);
}

/*
 * The socket for the fds that records carry, which never come here. Only the publisher sends. One whose
 * end for the member that has come back (-1: nobody has) was not sent yet is still good; what was sent
 * may have got lost on the way.
 */
static int make_fds(struct pair *pair, int back)
{
	const int buffer_len = FDS_BUFFER_LEN;
	int fds[2];

	if (!pair->members[0]->channel->max_fds || member_is_kept(pair->members[0]) ||
	    member_is_kept(pair->members[1]) || (back >= 0 && pair->fds[back] >= 0))
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		return -errno;
	shutdown(fds[0], SHUT_RD);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &buffer_len, sizeof(buffer_len));
	close_fds(pair);
	memcpy(pair->fds, fds, sizeof(fds));
	return 0;
}

/* Everything but its segment and its registry entry. */
static int pair_init(struct pair *pair, struct member *publisher, struct member *subscriber,
		     uint64_t id)
{
	struct member *members[2] = { publisher, subscriber };
	struct broker *broker = publisher->channel->broker;
	int r;

	pair->object.kind = SHMB_ENTRY_PAIR;
	pair->object.entry = REGISTRY_NO_ENTRY;
	pair->generation = (uint32_t)registry_epoch(&broker->registry) << GENERATION_SHIFT;
	memset(pair->sockets, 0xff, sizeof(pair->sockets));
	memset(pair->fds, 0xff, sizeof(pair->fds));
	for (unsigned i = 0; i < 2; i++) {
		pair->members[i] = members[i];
		list_init(&pair->member_links[i]);
		if (member_is_kept(members[i]))
			continue;
		pair->views[i] =
			view_new(members[i]->client, pair, id, object_id(&members[i]->object));
		if (!pair->views[i])
			return -ENOMEM;
	}
	r = make_sockets(pair);
	if (r == 0)
		r = make_fds(pair, -1);
	if (r == 0)
		r = table_add(&broker->objects, &pair->object.node, id);
	if (r < 0)
		return r;
	list_append(&publisher->pairs, &pair->member_links[0]);
	list_append(&subscriber->pairs, &pair->member_links[1]);
	return 0;
}

static void pair_discard(struct pair *pair)
{
	segment_destroy(&pair->object.segment);
	close_sockets(pair->sockets);
	close_fds(pair);
	view_free(pair->views[0]);
	view_free(pair->views[1]);
	free(pair);
}

/* One of those whose records may carry fds? */
static uint64_t n_fd_pairs(const struct pair *pair)
{
	return pair->members[0]->channel->max_fds ? 1 : 0;
}

static int pair_charge(struct pair *pair, struct quota_user *user)
{
	if (quota_charge(user, QUOTA_FD_PAIRS, n_fd_pairs(pair)) < 0)
		return -EDQUOT;
	if (quota_charge(user, QUOTA_BYTES, BELL_LEN) < 0) {
		quota_release(user, QUOTA_FD_PAIRS, n_fd_pairs(pair));
		return -EDQUOT;
	}
	user->n_refs++;
	pair->user = user;
	return 0;
}

int pair_new(struct member *publisher, struct member *subscriber, struct quota_user *user)
{
	struct broker *broker = publisher->channel->broker;
	struct pair *pair = calloc(1, sizeof(*pair));
	uint64_t id = registry_next_id(&broker->registry);
	struct shmb_registry_entry entry = {
		.kind = SHMB_ENTRY_PAIR,
		.id = id,
		.channel_id = object_id(&publisher->channel->object),
		.publisher_id = object_id(&publisher->object),
		.subscriber_id = object_id(&subscriber->object),
		.segment_len = BELL_LEN,
		.backing = publisher->channel->backing,
	};
	struct segment_spec spec = bell_spec(id, entry.backing, SEGMENT_ALLOCATE);
	bool has_bell = !member_is_kept(publisher);
	int r;

	if (!pair)
		return -ENOMEM;
	if (!has_bell)
		entry.segment_len = 0;
	pair->replaces = pair_find(publisher, subscriber) != NULL;
	r = pair_init(pair, publisher, subscriber, id);
	if (r < 0) {
		pair_discard(pair);
		return r;
	}
	r = has_bell ? pair_charge(pair, user) : 0;
	if (r == 0 && has_bell)
		r = segment_create(&broker->maker, &spec, &pair->object.segment);
	memcpy(entry.segment, pair->object.segment.name, sizeof(entry.segment));
	if (r == 0)
		r = registry_add(&broker->registry, &entry, &pair->object.entry);
	if (r < 0)
		pair_free(pair, NULL, SHMB_GONE_DETACHED);
	return r;
}

int pair_adopt(struct member *publisher, struct member *subscriber,
	       const struct shmb_registry_entry *entry, uint32_t slot)
{
	struct broker *broker = publisher->channel->broker;
	struct segment_spec spec = bell_spec(entry->id, entry->backing, 0);
	struct pair *pair = calloc(1, sizeof(*pair));
	int r;

	if (!pair)
		return -ENOMEM;
	pair->replaces = true; /* perhaps: our predecessor knew */
	r = pair_init(pair, publisher, subscriber, entry->id);
	if (r < 0) {
		pair_discard(pair);
		return r;
	}
	if (!entry->segment_len && !member_is_kept(publisher))
		r = -EINVAL;
	else
		r = entry->segment_len ? pair_charge(pair, publisher->user) : 0;
	if (r == 0 && entry->segment_len)
		r = segment_adopt(&broker->maker, (const char *)entry->segment, &spec,
				  &pair->object.segment);
	/* The bell is gone for us, but not for the two who have it. */
	if (r == -ENOENT && entry->backing == SHMB_MEMORY_SEALED) {
		pair->stale = true;
		r = 0;
	}
	if (r == 0)
		pair->object.entry = slot;
	else
		pair_free(pair, NULL, SHMB_GONE_DETACHED);
	return r;
}

struct pair *pair_find(const struct member *publisher, const struct member *subscriber)
{
	struct pair *newest = NULL;
	struct list *link, *safe;

	list_for_each(link, safe, &publisher->pairs)
	{
		struct pair *pair = list_entry(link, struct pair, member_links[0]);

		if (pair->members[1] == subscriber)
			newest = pair;
	}
	return newest;
}

void pair_set_stale(struct pair *pair)
{
	pair->stale = true;
	for (unsigned i = 0; i < 2; i++)
		if (pair->views[i])
			view_unmark(pair->views[i]);
}

void pair_keep(struct pair *pair, unsigned leaver)
{
	view_free(pair->views[leaver]);
	pair->views[leaver] = NULL;
	close_sockets(pair->sockets);
	/* What the publisher has sent is in the subscriber's end. */
	pair->fds[0] = shmb_fd_close(pair->fds[0]);
	if (leaver)
		close_fds(pair);
	/* Of a pair that it knows it has to hear once more. */
	if (pair->members[!leaver]->present) {
		pair->views[!leaver]->due = true;
		view_mark(pair->views[!leaver]);
	}
}

/* A subscriber is shown a lane that it may have; a publisher is shown all who wait for its records. */
static void pair_mark(struct pair *pair, unsigned i)
{
	const struct member *publisher = pair->members[0];

	if (pair->stale || !pair->members[i]->present ||
	    (i && !member_usable(publisher) && !member_is_kept(publisher)))
		return;
	pair->views[i]->due = true;
	view_mark(pair->views[i]);
}

void pair_announce(struct pair *pair)
{
	/* The subscriber first: see channel_changed(). */
	pair_mark(pair, 1);
	pair_mark(pair, 0);
}

int pair_renew(struct pair *pair, struct member *member, bool fresh)
{
	struct view *mine = pair->views[member->role - 1];
	int r = pair->stale ? 0 : make_sockets(pair);

	if (r == 0 && !pair->stale)
		r = make_fds(pair, (int)member->role - 1);
	if (r < 0 || pair->stale)
		return r;
	mine->shown = false;
	mine->next_arena = 0;
	if (!member_is_kept(pair->members[0]) &&
	    (fresh || pair_is_cross(pair) || pair->fds[2 - member->role] >= 0))
		pair_announce(pair);
	else
		pair_mark(pair, member->role - 1);
	return 0;
}

void pair_free(struct pair *pair, const struct member *leaver, uint32_t reason)
{
	struct broker *broker = broker_of(pair);

	/* The entry before the segment: see registry.h. */
	broker_unregister(broker, &pair->object);
	table_remove(&broker->objects, &pair->object.node);
	for (unsigned i = 0; i < 2; i++) {
		list_remove(&pair->member_links[i]);
		if (pair->members[i] == leaver)
			view_free(pair->views[i]);
		else if (pair->views[i])
			view_gone(pair->views[i], pair->members[i]->present, reason);
		pair->views[i] = NULL;
	}
	if (pair->user) {
		quota_release(pair->user, QUOTA_BYTES, BELL_LEN);
		quota_release(pair->user, QUOTA_FD_PAIRS, n_fd_pairs(pair));
		quota_user_put(&broker->quota, pair->user);
	}
	pair_discard(pair);
}
