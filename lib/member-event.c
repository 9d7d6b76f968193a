/* SPDX-License-Identifier: Apache-2.0 */

/* Hearing of peers that come and go, and telling the broker of them. */

#include <errno.h>

#include "lib/bell.h"
#include "lib/error.h"
#include "lib/member-internal.h"

/* A restarted broker is not asked for it any more. */
void shmb_member_forget_pair(struct shmb_member *member, uint64_t id)
{
	pthread_mutex_lock(&member->client->lock);
	shmb_inbox_forget(&member->inbox, id);
	pthread_mutex_unlock(&member->client->lock);
}

void shmb_member_handle_event(struct shmb_member *member, struct shmb_event *event)
{
	int result;

	member->changes++;
	switch (event->type) {
	case SHMB_MSG_PAIR:
		if (event->pair.segment && event->pair.segment != (uint32_t)member->own_id) {
			event = shmb_member_take_staged(member, event);
			if (event)
				shmb_member_forget_pair(member, event->pair.pair_id);
			break;
		}
		result = shmb_member_add_doorbell(member, event, event->pair.pair_id);
		if (result == 0)
			result = member->on_pair(member, event);
		/* It stays unserved; the sentence is there for whoever asks. */
		if (result < 0)
			shmb_member_report(member, event->pair.pair_id,
					   result == -EBADMSG ? EBADMSG : 0);
		break;
	case SHMB_MSG_UNPAIR:
		event = shmb_member_take_staged(member, event);
		if (!event)
			break;
		member->on_unpair(member, &event->unpair);
		shmb_member_forget_pair(member, event->unpair.pair_id);
		break;
	case SHMB_MSG_EVICTED:
		member->evicted = true;
		break;
	case SHMB_MSG_ARENA:
		if (member->on_arena && member->on_arena(member, event) < 0)
			shmb_member_report(member, event->arena.pair_id, 0);
		break;
	case SHMB_MSG_GRANT:
		if (shmb_member_add_doorbell(member, event, 0) == 0 && member->on_doorbell)
			member->on_doorbell(member);
		event = shmb_member_take_move(member, event);
		break;
	}
	shmb_event_free(event);
}

void shmb_member_handle_events(struct shmb_member *member, struct shmb_event *events)
{
	while (events) {
		struct shmb_event *event = events;

		events = event->next;
		shmb_member_handle_event(member, event);
	}
}

static void sync_once(struct shmb_member *member)
{
	struct shmb_client *client = member->client;
	/* Q: pairs with the broker's release in channel_changed(): its messages were sent before. */
	uint64_t epoch = SHMB_LOAD_ACQUIRE(member->epoch);
	/*
	 * R: pairs with the broker's release in bell_ring(): what it rang for is on the socket. What
	 * comes later moves the word again.
	 */
	uint32_t wake = SHMB_LOAD_ACQUIRE(&client->bell->wake);
	struct shmb_event *events;
	bool heard, overdue;

	pthread_mutex_lock(&client->lock);
	heard = shmb_client_drain(client) == 0 || client->stale;
	overdue = client->overdue;
	if (client->stale)
		member->evicted = true;
	events = shmb_inbox_take(&member->inbox);
	pthread_mutex_unlock(&client->lock);

	shmb_member_handle_events(member, events);
	/*
	 * What could not be done yet is tried again with the next call. And a broker that has moved the
	 * epoch cannot be heard without a connection, or later than anybody waits for it: who is busy
	 * never sleeps until it is time to look for the broker again, nor until that rings, and must ask
	 * with each call.
	 */
	if (heard)
		member->seen_epoch = member->move || overdue ? ~epoch : epoch;
	member->seen_wake = wake;
}

void shmb_member_sync(struct shmb_member *member)
{
	do
		sync_once(member);
	while (shmb_member_move(member));
}

int shmb_member_enter_slow(struct shmb_member *member)
{
	if (!SHMB_LOAD(member->fork_guard))
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	if (SHMB_LOAD(member->epoch) != member->seen_epoch)
		shmb_member_sync(member);
	if (member->evicted)
		return shmb_fail(-ESTALE,
				 "the broker has thrown this %s out: close it and open a "
				 "new one",
				 member->role == SHMB_ROLE_PUBLISHER ? "publisher" : "subscriber");
	return 0;
}

static void tell_of_pair(struct shmb_member *member, uint32_t type, uint64_t pair_id,
			 uint32_t reason)
{
	struct shmb_msg_report report = { .pair_id = pair_id,
					  .member_id = member->id,
					  .reason = reason };

	pthread_mutex_lock(&member->client->lock);
	shmb_client_tell(member->client, type, &report, sizeof(report));
	pthread_mutex_unlock(&member->client->lock);
}

void shmb_member_report(struct shmb_member *member, uint64_t pair_id, uint32_t reason)
{
	tell_of_pair(member, SHMB_MSG_REPORT, pair_id, reason);
}

void shmb_member_overtakes(struct shmb_member *member, uint64_t pair_id)
{
	tell_of_pair(member, SHMB_MSG_OVERTAKE, pair_id, 0);
}

void shmb_member_drained(struct shmb_member *member, uint64_t pair_id)
{
	tell_of_pair(member, SHMB_MSG_DRAINED, pair_id, 0);
}
