/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Members: what publishers and subscribers share. This file has joining and leaving. Attaching is two
 * round trips: ATTACH makes the broker create our segment, we allocate and map it (so that our own
 * control group pays and a shortage is our own error), ACTIVATE makes it known to the others.
 *
 * member-event.c hears of peers, member-move.c moves to another segment, member-doorbell.c has the fds
 * that the member is woken by, and member-sleep.c sleeps on them.
 */

#include "lib/member.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bell.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/member-internal.h"
#include "lib/queue.h"

#define RESUME_MAX 1000u /* pairs that fit into a packet */

uint32_t shmb_member_own_kind(const struct shmb_member *member)
{
	return member->role == SHMB_ROLE_PUBLISHER ? SHMB_SEGMENT_LANE : SHMB_SEGMENT_CURSOR;
}

uint64_t shmb_member_own_len(const struct shmb_member *member)
{
	const struct shmb_channel *channel = member->channel;

	if (member->role == SHMB_ROLE_PUBLISHER)
		return SHMB_BLOCK_LEN + (uint64_t)channel->lane_len;
	return shmb_cursor_len(channel->pattern, channel->max_publishers);
}

static int attach(struct shmb_member *member)
{
	struct shmb_channel *channel = member->channel;
	struct shmb_msg_attach request = { .channel_id = channel->id,
					   .role = member->role,
					   .flags = member->flags,
					   .history = member->history,
					   .evict_after_ms = member->evict_after_ms };
	struct shmb_msg_attach_private private = { .partner_id = member->partner_id,
						   .reply_to = member->reply_to };
	uint8_t body[sizeof(request) + sizeof(private)];
	uint32_t body_len = member->partner_id ? sizeof(body) : sizeof(request);
	struct shmb_received received;
	struct shmb_msg_grant grant;
	struct shmb_event *event = NULL;
	int result, index;

	memcpy(body, &request, sizeof(request));
	memcpy(body + sizeof(request), &private, sizeof(private));
	result = shmb_client_request(channel->client, SHMB_MSG_ATTACH, body, body_len,
				     SHMB_MSG_GRANT, sizeof(grant), &received);
	if (result == 0) {
		memcpy(&grant, received.message.body, sizeof(grant));
		event = shmb_event_new(&received);
		if (!event)
			result = shmb_fail(-ENOMEM, "no memory for a member");
	}
	shmb_received_deinit(&received);
	if (result < 0)
		return result;
	member->id = grant.member_id;
	member->slot = grant.slot;
	event->generation = grant.doorbell_generation;
	index = shmb_event_find(event, SHMB_FD_ROLE_OWN);
	if (index < 0 || event->descriptors[index].segment_len != shmb_member_own_len(member) ||
	    grant.slot >= (member->role == SHMB_ROLE_PUBLISHER
				   ? shmb_cursor_slots(channel->pattern, channel->max_publishers)
				   : channel->max_subscribers))
		result = shmb_fail(-EPROTO, "the broker's grant does not fit the channel");
	else
		result = shmb_map_writer(&member->own, event->fds[index],
					 &event->descriptors[index], shmb_member_own_kind(member));
	if (result == 0) {
		member->own_id = event->descriptors[index].segment_id;
		result = shmb_member_add_doorbell(member, event, 0);
	}
	shmb_event_free(event);
	return result;
}

/* A broker that does not hear us, because it is killed just now, has a successor that looks here. */
static void mark_left(const struct shmb_member *member)
{
	void *const own[] = { member->own.base, member->next.base };

	for (size_t i = 0; i < SHMB_ARRAY_LEN(own); i++) {
		if (own[i] && member->role == SHMB_ROLE_PUBLISHER)
			shmb_lane_leave(own[i]);
		else if (own[i])
			shmb_cursor_leave(own[i]);
	}
}

/* Client locked. */
static void leave(struct shmb_member *member)
{
	if (member->id)
		shmb_client_farewell(member->client, SHMB_MSG_DETACH, member->id);
}

static void deinit(struct shmb_member *member)
{
	shmb_map_deinit(&member->own);
	shmb_map_deinit(&member->next);
	shmb_event_free(member->move);
	while (member->staged) {
		struct shmb_event *event = member->staged;

		member->staged = event->next;
		shmb_event_free(event);
	}
	member->move = NULL;
	while (member->n_doorbells)
		shmb_member_remove_doorbell(member, member->n_doorbells - 1);
	free(member->doorbells);
	member->doorbells = NULL;
	member->epoll_fd = shmb_fd_close(member->epoll_fd);
	member->inbox.wake_fd = shmb_fd_close(member->inbox.wake_fd);
}

/* A broker that was killed had thrown us out, and could not say so any more. */
static int put_eviction(struct shmb_member *member)
{
	struct shmb_event *event = calloc(1, sizeof(*event));

	if (!event)
		return -ENOMEM;
	event->type = SHMB_MSG_EVICTED;
	if (shmb_inbox_put(&member->inbox, event) == 0)
		return 0;
	shmb_event_free(event);
	return -ENOMEM;
}

/* After a broker restart, client locked: the same member, with a new doorbell. */
static int resume(struct shmb_resumable *resumable)
{
	struct shmb_member *member = shmb_container_of(resumable, struct shmb_member, resumable);
	uint32_t n = member->inbox.n_pairs < RESUME_MAX ? member->inbox.n_pairs : RESUME_MAX;
	struct shmb_msg_resume request = { .member_id = member->id,
					   .channel_id = member->channel->id,
					   .n_pairs = n,
					   .segment = (uint32_t)member->own_id };
	uint64_t ids[2 * RESUME_MAX];
	uint8_t body[sizeof(request) + sizeof(ids)];
	struct shmb_received received;
	struct shmb_msg_grant grant;
	struct shmb_event *event;
	int result;

	memcpy(body, &request, sizeof(request));
	for (uint32_t i = 0; i < n; i++) {
		ids[i] = member->inbox.pairs[i].id;
		ids[n + i] = member->inbox.pairs[i].peer_id;
	}
	memcpy(body + sizeof(request), ids, 2 * n * sizeof(uint64_t));
	result = shmb_client_request(member->client, SHMB_MSG_RESUME, body,
				     (uint32_t)(sizeof(request) + 2 * n * sizeof(uint64_t)),
				     SHMB_MSG_GRANT, sizeof(grant), &received);
	if (result == 0) {
		memcpy(&grant, received.message.body, sizeof(grant));
		event = shmb_event_new(&received);
		if (event) {
			event->generation = grant.doorbell_generation;
			event->connection = member->client->connections;
		}
		if (!event || shmb_inbox_put(&member->inbox, event) < 0) {
			shmb_event_free(event);
			result = -ENOMEM;
		}
	}
	shmb_received_deinit(&received);
	return result == -ENOENT || result == -ESTALE ? put_eviction(member) : result;
}

/* Both round trips, client locked. What fails leaves nothing behind, so that it can be tried again. */
static int enter(struct shmb_member *member, void (*prepare)(struct shmb_member *member))
{
	struct shmb_client *client = member->client;
	struct shmb_msg_id request;
	int result;

	result = attach(member);
	if (result == 0) {
		prepare(member);
		/* Peers may be announced as soon as we are active, before the answer comes. */
		shmb_inbox_add(client, &member->inbox, member->id);
		member->seen_epoch = SHMB_LOAD(member->epoch);
		request.id = member->id;
		result = shmb_client_request_ok(client, SHMB_MSG_ACTIVATE, &request,
						sizeof(request));
		if (result < 0)
			shmb_inbox_remove(client, &member->inbox);
	}
	if (result < 0) {
		leave(member);
		deinit(member);
		member->id = 0;
	}
	return result;
}

int shmb_member_open(struct shmb_member *member, struct shmb_channel *channel,
		     void (*prepare)(struct shmb_member *member))
{
	struct shmb_client *client = channel->client;
	uint32_t connections;
	int result;

	member->client = client;
	member->channel = channel;
	member->fork_guard = client->fork_guard;
	member->epoch = &channel->segment->epoch;
	member->epoll_fd = -1;
	member->inbox.wake_fd = -1;
	member->resumable.resume = resume;

	pthread_mutex_lock(&client->lock);
	do {
		connections = client->connections;
		result = enter(member, prepare);
		/* A successor of the broker knows nothing of members that were not active yet. */
	} while (result == -ESTALE && !client->stale && client->connections != connections);
	if (result == 0) {
		shmb_client_add(client, &member->resumable);
		channel->n_members++;
	}
	pthread_mutex_unlock(&client->lock);
	if (result == 0)
		shmb_member_sync(member);
	return result;
}

void shmb_member_close(struct shmb_member *member)
{
	struct shmb_client *client = member->client;

	if (!*member->fork_guard) {
		/* Children do not have the mappings. */
		member->own.base = member->next.base = NULL;
		deinit(member);
		return;
	}
	mark_left(member);
	pthread_mutex_lock(&client->lock);
	shmb_client_remove(client, &member->resumable);
	shmb_inbox_remove(client, &member->inbox);
	leave(member);
	member->channel->n_members--;
	pthread_mutex_unlock(&client->lock);
	deinit(member);
}
