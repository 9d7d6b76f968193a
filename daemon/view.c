/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/fd.h"

#include "daemon/bell.h"
#include "daemon/connection.h"
#include "daemon/view.h"

#define RETRY_NS    (100 * 1000000ull)
#define EPOCH_SHIFT 32

struct view *view_new(struct client *client, struct pair *pair, uint64_t pair_id,
		      uint64_t member_id)
{
	struct view *view = calloc(1, sizeof(*view));

	if (!view)
		return NULL;
	list_init(&view->dirty_link);
	view->client = client;
	view->pair = pair;
	view->pair_id = pair_id;
	view->member_id = member_id;
	return view;
}

void view_free(struct view *view)
{
	if (!view)
		return;
	list_remove(&view->dirty_link);
	free(view);
}

void view_mark(struct view *view)
{
	if (view->client->connection && list_empty(&view->dirty_link))
		list_append(&view->client->dirty, &view->dirty_link);
}

struct arena *view_next_arena(const struct view *view)
{
	const struct pair *pair = view->pair;
	struct list *link, *safe;

	if (!pair || view != pair->views[1])
		return NULL;
	list_for_each(link, safe, &pair->members[0]->arenas)
	{
		struct arena *arena = list_entry(link, struct arena, link);

		/* What could be cut off is not for other users: they came after it had to be sealed. */
		if (arena->active && arena->number >= view->next_arena &&
		    (arena->object.segment.backing == pair->members[0]->channel->backing ||
		     !pair_is_cross(pair)))
			return arena;
	}
	return NULL;
}

void view_unmark(struct view *view)
{
	list_remove(&view->dirty_link);
}

void view_gone(struct view *view, bool present, uint32_t reason)
{
	bool eviction = view->pair_id == 0;

	view->pair = NULL;
	view->reason = reason;
	if (view->client->connection && present && (view->shown || eviction))
		view_mark(view);
	else
		view_free(view);
}

int view_deny(struct client *client, uint64_t pair_id, uint64_t member_id)
{
	struct view *view = view_new(client, NULL, pair_id, member_id);

	if (!view)
		return -ENOMEM;
	view->shown = true;
	view_gone(view, true, SHMB_GONE_DIED);
	return 0;
}

void view_drop_denials(struct client *client, uint64_t member_id)
{
	struct list *link, *safe;

	list_for_each(link, safe, &client->dirty)
	{
		struct view *view = list_entry(link, struct view, dirty_link);

		if (!view->pair && view->pair_id && view->member_id == member_id)
			view_free(view);
	}
}

/* What the receiver waits on and rings with, if this pair has sockets of its own. */
static int add_sockets(struct parcel *parcel, struct pair *pair, unsigned mine)
{
	int r;

	r = parcel_add_fd(parcel, pair->sockets[!mine][1], SHMB_FD_SOCKET, SHMB_FD_ROLE_RINGER);
	if (r == 0)
		r = parcel_add_fd(parcel, pair->sockets[mine][0], SHMB_FD_SOCKET,
				  SHMB_FD_ROLE_DOORBELL);
	return r;
}

static void drop_sockets(struct pair *pair, unsigned mine)
{
	pair->sockets[!mine][1] = shmb_fd_close(pair->sockets[!mine][1]);
	pair->sockets[mine][0] = shmb_fd_close(pair->sockets[mine][0]);
}

void view_move_epoch(struct channel *channel)
{
	/* One broker counts above its predecessors, also above one that was stopped and counts on. */
	if (!channel->epoch)
		channel->epoch = channel->broker->registry.epoch << EPOCH_SHIFT;
	/*
	 * pairs with the acquire load of the epoch in every publish and receive, and with the acquire
	 * fence of a subscriber that has read a record
	 */
	__atomic_store_n(&channel->map->epoch, ++channel->epoch, __ATOMIC_RELEASE);
}

/* The subscriber has been told, so now its publisher may be. It must be awake by then. */
static void tell_publisher(const struct view *subscriber, struct client *publisher)
{
	struct channel *channel = subscriber->pair->members[1]->channel;
	struct broker *broker = channel->broker;

	bell_set_backlog(subscriber->client, true);
	bell_ring(subscriber->client);
	if (publisher == subscriber->client)
		return;
	if (list_empty(&publisher->flush_link))
		list_append(&broker->flushes, &publisher->flush_link);
	if (list_empty(&channel->epoch_link))
		list_append(&broker->epochs, &channel->epoch_link);
}

/* A publisher may let the subscribers of its own user map its lane as it does. */
static uint8_t lane_access(const struct pair *pair)
{
	const struct member *publisher = pair->members[0];

	if (!(publisher->flags & SHMB_MEMBER_TRUSTING) || pair_is_cross(pair) ||
	    member_is_kept(publisher) || publisher->object.segment.backing == SHMB_MEMORY_SEALED)
		return SHMB_FD_READ;
	return SHMB_FD_READ_WRITE;
}

/* The publisher's worker has gone, and what it has marked is kept until the publisher has seen to it. */
static int send_parting(struct view *view)
{
	struct shmb_msg_unpair body = {
		.pair_id = view->known_id ? view->known_id : view->pair_id,
		.member_id = view->member_id,
		.reason = SHMB_GONE_DIED,
		.kept = 1,
	};
	int r = connection_send(view->client->connection, SHMB_MSG_UNPAIR, 0, &body, sizeof(body),
				NULL);

	if (r == 0)
		view->due = false;
	return r;
}

static int send_pair(struct view *view)
{
	struct pair *pair = view->pair;
	unsigned mine = pair->members[0]->object.node.key == view->member_id ? 0 : 1;
	struct member *me = pair->members[mine], *peer = pair->members[!mine];
	struct segment_maker *maker = &view->client->broker->maker;
	bool publisher = me->role == SHMB_ROLE_PUBLISHER, blind = publisher && !member_usable(peer);
	bool gone = member_is_kept(peer);
	bool private = !publisher && peer->partner_id;
	struct shmb_msg_pair pair_body = {
		.pair_id = view->pair_id,
		.member_id = view->member_id,
		.peer_id = object_id(&peer->object),
		.role = me->role,
		.flags = (pair->members[1]->flags & SHMB_MEMBER_LOSSY ? SHMB_PAIR_LOSSY : 0) |
			 (blind ? SHMB_PAIR_BLIND : 0) |
			 (publisher && !member_usable(me) ? SHMB_PAIR_MOVE : 0) |
			 (private ? SHMB_PAIR_PRIVATE : 0) | (gone ? SHMB_PAIR_GONE : 0) |
			 (publisher ? 0 : peer->flags & SHMB_MEMBER_PRIORITY_MASK),
		.slot = pair->members[0]->slot,
		.lane_len = me->channel->lane_len,
		.doorbell_generation = pair_is_cross(pair) ? pair->generation : peer->generation,
		.segment = gone ? 0 : (uint32_t)me->object.segment.id,
		.history = pair->members[1]->history,
		.evict_after_ms = pair->members[1]->evict_after_ms,
	};
	struct shmb_msg_pair_private private_body = {
		.reply_to = peer->reply_to,
		.uid = peer->uid,
		.pid = gone ? 0 : peer->client->pid,
	};
	uint8_t body[sizeof(pair_body) + sizeof(private_body)];
	uint32_t body_len = private ? sizeof(body) : sizeof(pair_body);
	struct parcel parcel = { 0 };
	int r = 0;

	memcpy(body, &pair_body, sizeof(pair_body));
	memcpy(body + sizeof(pair_body), &private_body, sizeof(private_body));

	if (!blind)
		r = parcel_add_segment(&parcel, maker, &peer->object.segment,
				       publisher ? SHMB_FD_READ : lane_access(pair),
				       SHMB_FD_ROLE_PEER);
	if (r == 0 && segment_exists(&pair->object.segment))
		r = parcel_add_segment(&parcel, maker, &pair->object.segment,
				       publisher ? SHMB_FD_READ_WRITE : SHMB_FD_READ,
				       SHMB_FD_ROLE_BELL);
	if (r == 0 && !gone && pair_is_cross(pair))
		r = add_sockets(&parcel, pair, mine);
	else if (r == 0 && !gone)
		r = parcel_add_fd(&parcel, peer->doorbell, SHMB_FD_EVENTFD, SHMB_FD_ROLE_RINGER);
	if (r == 0 && pair->fds[mine] >= 0)
		r = parcel_add_fd(&parcel, pair->fds[mine], SHMB_FD_PACKETS, SHMB_FD_ROLE_FDS);
	if (r == 0)
		r = connection_send(view->client->connection, SHMB_MSG_PAIR, 0, body, body_len,
				    &parcel);
	parcel_deinit(&parcel);
	if (r < 0)
		return r;
	pair->fds[mine] = shmb_fd_close(pair->fds[mine]);
	if (pair_is_cross(pair))
		drop_sockets(pair, mine);
	view->due = false;
	view->shown = true;
	view->known_id = 0;
	return 0;
}

static int send_arena(struct view *view, const struct arena *arena)
{
	struct shmb_msg_arena body = {
		.pair_id = view->pair_id,
		.member_id = view->member_id,
		.publisher_id = object_id(&arena->member->object),
		.number = arena->number,
	};
	struct parcel parcel = { 0 };
	int r;

	r = parcel_add_segment(&parcel, &view->client->broker->maker, &arena->object.segment,
			       SHMB_FD_READ, SHMB_FD_ROLE_PEER);
	if (r == 0)
		r = connection_send(view->client->connection, SHMB_MSG_ARENA, 0, &body,
				    sizeof(body), &parcel);
	parcel_deinit(&parcel);
	if (r == 0)
		view->next_arena = arena->number + 1;
	return r;
}

/* The pair, then the publisher's arenas, one at a time. */
static int send_some(struct view *view)
{
	struct pair *pair = view->pair;
	int r = 0;

	if (view->due && view == pair->views[0] && member_is_kept(pair->members[1]))
		r = send_parting(view);
	else if (view->due)
		r = send_pair(view);
	if (r == 0 && !view->due && view_next_arena(view) &&
	    loop_conn_idle(view->client->connection->io))
		r = send_arena(view, view_next_arena(view));
	if (r < 0 || view_next_arena(view))
		return r;
	list_remove(&view->dirty_link);
	if (view == pair->views[1] && pair->views[0] && pair->replaces &&
	    !list_empty(&pair->views[0]->dirty_link))
		tell_publisher(view, pair->members[0]->client);
	return 0;
}

/*
 * A publisher is told of a pair that replaces another after its subscriber: if we die in between,
 * it does not write what nobody reads. Who is away is told when it comes back.
 */
static bool must_wait(const struct view *view)
{
	const struct pair *pair = view->pair;

	if (!pair || !pair->replaces || view != pair->views[0] || !pair->views[1])
		return false;
	return pair->members[1]->client->connection && !list_empty(&pair->views[1]->dirty_link);
}

/*
 * The next that can be told now, or NULL. Others need not wait for a subscriber that does not read
 * what it is told; but a pair that is replaced must not go before the other has come, which may have
 * come into line later, in the place of one that was replaced itself before anybody was told of it.
 */
static struct view *next_dirty(const struct client *client)
{
	struct list *link, *safe;
	struct view *moved = NULL;
	bool waiting = false;

	list_for_each(link, safe, &client->dirty)
	{
		struct view *view = list_entry(link, struct view, dirty_link);

		if (must_wait(view))
			waiting = true;
		else if (view->pair || view->reason != SHMB_GONE_MOVED)
			return view;
		else if (!moved)
			moved = view;
	}
	return waiting ? NULL : moved;
}

/* The next segment of a member, which it moves to when it has mapped it. */
static int send_move(struct view *view)
{
	struct member *member = view->mover;
	struct shmb_msg_grant body = {
		.member_id = view->member_id,
		.segment_len = member->next.len,
		.slot = member->slot,
		.doorbell_generation = member->generation,
	};
	struct parcel parcel = { 0 };
	int r;

	r = parcel_add_segment(&parcel, &view->client->broker->maker, &member->next,
			       SHMB_FD_READ_WRITE, SHMB_FD_ROLE_OWN);
	if (r == 0)
		r = connection_send(view->client->connection, SHMB_MSG_GRANT, 0, &body,
				    sizeof(body), &parcel);
	parcel_deinit(&parcel);
	if (r == 0)
		view_unmark(view);
	return r;
}

static int view_send(struct view *view)
{
	struct shmb_msg_id evicted = { .id = view->member_id };
	struct shmb_msg_unpair unpair = {
		.pair_id = view->known_id ? view->known_id : view->pair_id,
		.member_id = view->member_id,
		.reason = view->reason,
	};
	int r;

	if (view->pair)
		return send_some(view);
	if (view->mover)
		return send_move(view);
	if (view->pair_id == 0)
		r = connection_send(view->client->connection, SHMB_MSG_EVICTED, 0, &evicted,
				    sizeof(evicted), NULL);
	else
		r = connection_send(view->client->connection, SHMB_MSG_UNPAIR, 0, &unpair,
				    sizeof(unpair), NULL);
	if (r == 0)
		view_free(view);
	return r;
}

static void on_retry(void *data)
{
	struct client *client = data;

	client->retry = loop_timer_cancel(client->retry);
	view_flush(client, false);
}

static void flush(struct client *client, bool sent)
{
	struct connection *connection = client->connection;
	struct view *view;
	int r = 0;

	if (!connection || registry_is_superseded(&client->broker->registry))
		return;
	while (r == 0 && loop_conn_idle(connection->io) && (view = next_dirty(client))) {
		r = view_send(view);
		sent = sent || r == 0;
		/* Somebody has removed it. Nobody will make another: others do not wait for that. */
		if (r < 0 && shmb_fd_conclusive(-r) && view->pair &&
		    member_is_kept(view->pair->members[0])) {
			view_unmark(view);
			r = 0;
		}
	}
	/* Out of fds or memory, here or in flight: nobody tells when there are some again. */
	if (r < 0 && !client->retry)
		loop_timer_at(client->broker->loop, shmb_clock_now_ns() + RETRY_NS, on_retry,
			      client, &client->retry);
	/* What has to wait for somebody else is not owed yet. */
	bell_set_backlog(client, next_dirty(client) || !loop_conn_idle(connection->io));
	if (sent)
		bell_ring(client);
}

/*
 * Who is told may set others free to be told, and these others again: they wait in line, since there
 * may be as many of them as there are clients.
 */
void view_flush(struct client *client, bool sent)
{
	struct broker *broker = client->broker;

	flush(client, sent);
	while (!list_empty(&broker->flushes)) {
		client = list_entry(broker->flushes.next, struct client, flush_link);
		list_remove(&client->flush_link);
		flush(client, false);
	}
	while (!list_empty(&broker->epochs)) {
		struct channel *channel =
			list_entry(broker->epochs.next, struct channel, epoch_link);
		list_remove(&channel->epoch_link);
		/*
		 * They have looked at their sockets in vain if that had to wait. Killed before: they
		 * are told that the two have moved on by a successor.
		 */
		view_move_epoch(channel);
	}
}

void view_forget(struct client *client)
{
	struct list *link, *safe, *inner, *inner_safe;

	client->retry = loop_timer_cancel(client->retry);
	list_for_each(link, safe, &client->dirty)
	{
		struct view *view = list_entry(link, struct view, dirty_link);

		view_unmark(view);
		if (!view->pair && !view->mover)
			view_free(view);
	}
	list_for_each(link, safe, &client->members)
	{
		struct member *member = list_entry(link, struct member, client_link);

		member->present = false;
		list_for_each(inner, inner_safe, &member->pairs)
			list_entry(inner, struct pair, member_links[member->role - 1])
				->views[member->role - 1]
				->shown = false;
	}
}
