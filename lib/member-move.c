/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Moving to another segment, as the broker has told the member to. What is said for the new segment
 * before the member is there is staged.
 */

#include <errno.h>

#include "lib/error.h"
#include "lib/member-internal.h"

/*
 * What was staged for a segment that we do not move to after all. Two that know each other go on with
 * what they have: in a pair that is new a publisher would say that it writes the new segment. But of
 * others, and of lanes, this may be the only word: the broker that spoke it is gone, and perhaps the
 * segments with it.
 */
static void take_back_staged(struct shmb_member *member)
{
	struct shmb_event *event = member->staged, *next;

	member->staged = NULL;
	for (; event; event = next) {
		next = event->next;
		if (event->type == SHMB_MSG_PAIR && member->knows &&
		    member->knows(member, event->pair.peer_id)) {
			shmb_member_forget_pair(member, event->pair.pair_id);
			shmb_event_free(event);
		} else if (event->type == SHMB_MSG_UNPAIR && member->knows &&
			   event->unpair.reason == SHMB_GONE_MOVED) {
			shmb_event_free(event);
		} else {
			if (event->type == SHMB_MSG_PAIR)
				event->pair.segment = 0;
			shmb_member_handle_event(member, event);
		}
	}
}

/* The broker does not know what it granted any more, or we may not have it. */
static void forget_move(struct shmb_member *member)
{
	shmb_map_deinit(&member->next);
	shmb_event_free(member->move);
	member->move = NULL;
	member->asked = member->answered = false;
	take_back_staged(member);
}

/* Another segment is to be moved to. A later word of the broker replaces an earlier one. */
struct shmb_event *shmb_member_take_move(struct shmb_member *member, struct shmb_event *event)
{
	int index = shmb_event_find(event, SHMB_FD_ROLE_OWN);

	if (index < 0)
		return event;
	forget_move(member);
	member->move = event;
	member->next_id = event->descriptors[index].segment_id;
	return NULL;
}

static bool is_staged(const struct shmb_member *member, uint64_t pair_id)
{
	const struct shmb_event *at = member->staged;

	while (at && (at->type != SHMB_MSG_PAIR || at->pair.pair_id != pair_id))
		at = at->next;
	return at != NULL;
}

/*
 * A pair for the segment that we move to waits until we have, and so does the end of the pair that
 * it replaces, and its own: the two may know each other by another pair until then.
 */
struct shmb_event *shmb_member_take_staged(struct shmb_member *member, struct shmb_event *event)
{
	bool wanted = event->type == SHMB_MSG_PAIR
			      ? event->pair.segment == (uint32_t)member->next_id
			      : (event->unpair.reason == SHMB_GONE_MOVED && member->staged) ||
					is_staged(member, event->unpair.pair_id);
	struct shmb_event **end = &member->staged;

	if (!member->asked || !wanted)
		return event;
	while (*end)
		end = &(*end)->next;
	event->next = NULL;
	*end = event;
	return NULL;
}

static int map_next(struct shmb_member *member)
{
	struct shmb_event *move = member->move;
	int index = shmb_event_find(move, SHMB_FD_ROLE_OWN);

	if (member->next.base)
		return 0;
	if (index < 0 || move->descriptors[index].segment_len != shmb_member_own_len(member))
		return shmb_fail(-EPROTO, "the broker's grant does not fit the channel");
	return shmb_map_writer(&member->next, move->fds[index], &move->descriptors[index],
			       shmb_member_own_kind(member));
}

/*
 * Over the very connection that brought the grant, or else another broker would take it for
 * another segment.
 */
static int activate_next(struct shmb_member *member)
{
	struct shmb_client *client = member->client;
	struct shmb_msg_id request = { .id = member->id };
	int result = -ENOTCONN;

	pthread_mutex_lock(&client->lock);
	if (client->connected && client->connections == member->move->connection) {
		client->resuming = true;
		result = shmb_client_request_ok(client, SHMB_MSG_ACTIVATE, &request,
						sizeof(request));
		client->resuming = false;
		/* Without an answer we do not know what the broker thinks: it says so anew. */
		if (result == -ETIMEDOUT)
			shmb_client_hang_up(client);
	}
	pthread_mutex_unlock(&client->lock);
	return result;
}

/* A shortage may pass, and the grant still holds. */
static bool is_shortage(int result)
{
	return result == -ENOSPC || result == -ENOMEM || result == -EMFILE || result == -EDQUOT;
}

/* Returns true if the broker may have told the peers. */
static bool ask(struct shmb_member *member)
{
	int result = map_next(member);

	if (result == 0) {
		if (member->on_granted)
			member->on_granted(member, member->next.base);
		member->asked = true;
		result = activate_next(member);
		member->answered = result == 0;
	}
	if (result == 0 || result == -ENOTCONN || result == -ETIMEDOUT)
		return member->asked;
	member->asked = false;
	if (!is_shortage(result))
		forget_move(member);
	return false;
}

/* The broker that granted it is gone. */
static bool is_over(struct shmb_member *member)
{
	struct shmb_client *client = member->client;
	bool over;

	pthread_mutex_lock(&client->lock);
	over = !client->connected || client->connections != member->move->connection;
	pthread_mutex_unlock(&client->lock);
	return over;
}

/*
 * Moves to another segment, in two steps. First the broker is asked to tell the peers of it; each
 * subscriber is told before its publisher. Once the member knows that all are told it goes on in the
 * new one, until then in the old one. So if the broker dies, all go on in one that all have.
 *
 * Killed before the new one is in use: peers read the old one to its end, and find nothing in the
 * new one; after: the new one holds what they have not read.
 *
 * Returns true if more news may have come.
 */
bool shmb_member_move(struct shmb_member *member)
{
	struct shmb_map before = member->own;
	struct shmb_event *staged;

	if (!member->move || member->pinned || member->evicted)
		return false;
	if (!member->asked)
		return ask(member);
	if (!member->is_complete(member, member->staged)) {
		if (is_over(member))
			forget_move(member);
		return false;
	}
	if (member->on_prepare(member, member->next.base) < 0)
		return false;
	staged = member->staged;
	member->staged = NULL;
	member->own = member->next;
	member->own_id = member->next_id;
	member->next = (struct shmb_map){ 0 };
	forget_move(member);
	member->on_move(member, &before);
	shmb_member_handle_events(member, staged);
	return true;
}
