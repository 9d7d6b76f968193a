/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the broker tells members: each event lies in the inbox of its member until that member's thread takes
 * it out. What a member need not hear of any more is taken back.
 */

#include "lib/inbox.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <shmbroker/ring.h>

#include "lib/client.h"
#include "lib/error.h"
#include "lib/fd.h"

/* Its length has been checked. */
static void take_pair(struct shmb_event *event, const struct shmb_message *message)
{
	memcpy(&event->pair, message->body, sizeof(event->pair));
	if (message->body_len > sizeof(event->pair))
		memcpy(&event->peer, message->body + sizeof(event->pair), sizeof(event->peer));
}

struct shmb_event *shmb_event_new(struct shmb_received *received)
{
	const struct shmb_message *message = &received->message;
	struct shmb_event *event = calloc(1, sizeof(*event));

	if (!event)
		return NULL;
	event->type = message->type;
	if (message->type == SHMB_MSG_PAIR)
		take_pair(event, message);
	else if (message->type == SHMB_MSG_UNPAIR)
		memcpy(&event->unpair, message->body, sizeof(event->unpair));
	else if (message->type == SHMB_MSG_ARENA)
		memcpy(&event->arena, message->body, sizeof(event->arena));
	event->n_fds = message->fd_count;
	for (uint32_t i = 0; i < SHMB_PACKET_FDS_MAX; i++) {
		event->fds[i] = received->fds[i];
		received->fds[i] = -1;
	}
	if (message->fd_count)
		memcpy(event->descriptors, message->descriptors,
		       message->fd_count * sizeof(event->descriptors[0]));
	return event;
}

void shmb_event_free(struct shmb_event *event)
{
	if (!event)
		return;
	for (uint32_t i = 0; i < SHMB_PACKET_FDS_MAX; i++)
		shmb_fd_close(event->fds[i]);
	free(event);
}

int shmb_event_find(const struct shmb_event *event, uint16_t role)
{
	for (uint32_t i = 0; i < event->n_fds; i++)
		if (event->descriptors[i].role == role && event->fds[i] >= 0)
			return (int)i;
	return -1;
}

void shmb_inbox_add(struct shmb_client *client, struct shmb_inbox *inbox, uint64_t member_id)
{
	inbox->member_id = member_id;
	inbox->first = NULL;
	inbox->end = &inbox->first;
	inbox->next = client->inboxes;
	client->inboxes = inbox;
}

void shmb_inbox_remove(struct shmb_client *client, struct shmb_inbox *inbox)
{
	struct shmb_inbox **at = &client->inboxes;

	while (*at && *at != inbox)
		at = &(*at)->next;
	if (*at)
		*at = inbox->next;
	while (inbox->first) {
		struct shmb_event *event = inbox->first;

		inbox->first = event->next;
		shmb_event_free(event);
	}
	free(inbox->pairs);
	inbox->pairs = NULL;
	inbox->n_pairs = inbox->cap_pairs = 0;
}

/* Returns 1 if it is new. */
static int remember_pair(struct shmb_inbox *inbox, const struct shmb_msg_pair *pair)
{
	uint32_t cap = inbox->cap_pairs ? 2 * inbox->cap_pairs : 8;
	struct shmb_known_pair *grown;

	for (uint32_t i = 0; i < inbox->n_pairs; i++)
		if (inbox->pairs[i].id == pair->pair_id)
			return 0;
	if (inbox->n_pairs == inbox->cap_pairs) {
		grown = realloc(inbox->pairs, cap * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		inbox->pairs = grown;
		inbox->cap_pairs = cap;
	}
	inbox->pairs[inbox->n_pairs++] =
		(struct shmb_known_pair){ .id = pair->pair_id, .peer_id = pair->peer_id };
	return 1;
}

void shmb_inbox_forget(struct shmb_inbox *inbox, uint64_t id)
{
	for (uint32_t i = 0; i < inbox->n_pairs; i++)
		if (inbox->pairs[i].id == id) {
			inbox->pairs[i] = inbox->pairs[--inbox->n_pairs];
			return;
		}
}

static bool is_of_pair(const struct shmb_event *event, uint64_t id)
{
	return event->type == SHMB_MSG_PAIR && event->pair.pair_id == id;
}

/*
 * The first that a publisher would hear of a subscriber, by a pair that replaces no other and is
 * replaced by none: what it knows of the same subscriber goes over from one to the next.
 */
static bool is_unheard(const struct shmb_inbox *inbox, const struct shmb_event *event)
{
	if (!event->is_first || event->pair.role != SHMB_ROLE_PUBLISHER)
		return false;
	for (uint32_t i = 0; i < inbox->n_pairs; i++)
		if (inbox->pairs[i].peer_id == event->pair.peer_id &&
		    inbox->pairs[i].id != event->pair.pair_id)
			return false;
	return true;
}

/*
 * A subscriber that came and went while its publisher did nothing is forgotten, and so are the fds
 * that came with it; not a worker of whom the broker waits to hear. A publisher that came and went may
 * have left records. Returns false if the member has heard of the pair already.
 */
static bool forget_unheard(struct shmb_inbox *inbox, uint64_t id)
{
	struct shmb_event **at = &inbox->first, *event;
	bool unheard = false;

	for (event = inbox->first; event; event = event->next)
		unheard |= is_of_pair(event, id) && is_unheard(inbox, event);
	if (!unheard)
		return false;
	while ((event = *at)) {
		if (!is_of_pair(event, id)) {
			at = &event->next;
			continue;
		}
		/* The member's thread looks at the first one without the lock. */
		SHMB_STORE(at, event->next);
		shmb_event_free(event);
	}
	inbox->end = at;
	shmb_inbox_forget(inbox, id);
	return true;
}

int shmb_inbox_put(struct shmb_inbox *inbox, struct shmb_event *event)
{
	int result = event->type == SHMB_MSG_PAIR ? remember_pair(inbox, &event->pair) : 0;

	if (result < 0)
		return result;
	event->is_first = result > 0;
	event->next = NULL;
	if (event->type == SHMB_MSG_UNPAIR && event->unpair.reason != SHMB_GONE_MOVED &&
	    !event->unpair.kept && forget_unheard(inbox, event->unpair.pair_id)) {
		shmb_event_free(event);
		return 0;
	}
	/* The member's thread looks at its inbox without the lock before it takes it. */
	SHMB_STORE(inbox->end, event);
	inbox->end = &event->next;
	if (inbox->wake_fd >= 0)
		eventfd_write(inbox->wake_fd, 1);
	return 0;
}

struct shmb_event *shmb_inbox_take(struct shmb_inbox *inbox)
{
	struct shmb_event *events = inbox->first;

	SHMB_STORE(&inbox->first, NULL);
	inbox->end = &inbox->first;
	return events;
}

static uint64_t event_member(const struct shmb_message *message)
{
	uint64_t id = 0;
	uint32_t offset =
		message->type == SHMB_MSG_EVICTED  ? offsetof(struct shmb_msg_id, id)
		: message->type == SHMB_MSG_GRANT  ? offsetof(struct shmb_msg_grant, member_id)
		: message->type == SHMB_MSG_UNPAIR ? offsetof(struct shmb_msg_unpair, member_id)
		: message->type == SHMB_MSG_ARENA  ? offsetof(struct shmb_msg_arena, member_id)
						   : offsetof(struct shmb_msg_pair, member_id);
	uint32_t len = message->type == SHMB_MSG_EVICTED  ? sizeof(struct shmb_msg_id)
		       : message->type == SHMB_MSG_GRANT  ? sizeof(struct shmb_msg_grant)
		       : message->type == SHMB_MSG_UNPAIR ? sizeof(struct shmb_msg_unpair)
		       : message->type == SHMB_MSG_ARENA  ? sizeof(struct shmb_msg_arena)
							  : sizeof(struct shmb_msg_pair);

	if (message->body_len == len ||
	    (message->type == SHMB_MSG_PAIR &&
	     message->body_len == len + sizeof(struct shmb_msg_pair_private)))
		memcpy(&id, message->body + offset, sizeof(id));
	return id;
}

/* Put an event where its member will find it. Unknown members have just been closed. */
int shmb_inbox_deliver(struct shmb_client *client, struct shmb_received *received)
{
	const struct shmb_message *message = &received->message;
	struct shmb_inbox *inbox = client->inboxes;
	struct shmb_event *event;
	uint64_t id;

	if (message->type != SHMB_MSG_PAIR && message->type != SHMB_MSG_UNPAIR &&
	    message->type != SHMB_MSG_EVICTED && message->type != SHMB_MSG_GRANT &&
	    message->type != SHMB_MSG_ARENA)
		return 0;
	id = event_member(message);
	while (inbox && inbox->member_id != id)
		inbox = inbox->next;
	if (!inbox)
		return 0;
	event = shmb_event_new(received);
	if (event)
		event->connection = client->connections;
	if (event && shmb_inbox_put(inbox, event) == 0)
		return 0;
	shmb_event_free(event);
	return shmb_fail(-ENOMEM, "no memory for an event of the broker");
}
