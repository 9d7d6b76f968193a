/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Members: what publishers and subscribers share. Attaching is two round trips: ATTACH makes the
 * broker create our segment, we allocate and map it (so that our own control group pays and a
 * shortage is our own error), ACTIVATE makes it known to the others.
 */

#include "lib/member.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/bell.h"
#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/queue.h"

#define COOKIE_CONTROL UINT64_MAX
#define COOKIE_INBOX   (UINT64_MAX - 1)

#define RESUME_MAX 1000u /* pairs that fit into a packet */

/* ---- ringers and doorbells --------------------------------------------------------------------- */

static void ring_fd(int fd, uint32_t kind)
{
	static const uint64_t one = 1;
	ssize_t ignored;

	/*
	 * Whatever goes wrong, the sleeper has been rung before or is gone. An eventfd is only used
	 * inside one uid, since whoever holds it could make the write block.
	 */
	if (kind == SHMB_FD_EVENTFD)
		ignored = write(fd, &one, sizeof(one));
	else
		ignored = send(fd, &one, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)ignored;
}

void shmb_ringer_ring(const struct shmb_ringer *ringer)
{
	for (uint32_t i = 0; i < ringer->n; i++)
		ring_fd(ringer->fds[i].fd, ringer->fds[i].kind);
}

static void drop_oldest(struct shmb_ringer *ringer)
{
	shmb_fd_close(ringer->fds[0].fd);
	ringer->n--;
	memmove(&ringer->fds[0], &ringer->fds[1], ringer->n * sizeof(ringer->fds[0]));
}

uint32_t shmb_ringer_settle(struct shmb_ringer *ringer, uint32_t generation)
{
	uint32_t older = 0;

	/*
	 * That very one: an older one that we have been given the peer may never have seen, if the
	 * broker died between the two of us.
	 */
	while (older < ringer->n && ringer->fds[older].generation != generation)
		older++;
	if (older == ringer->n)
		older = 0;
	while (older-- > 0)
		drop_oldest(ringer);
	return ringer->n ? ringer->fds[0].generation : 0;
}

void shmb_ringer_deinit(struct shmb_ringer *ringer)
{
	while (ringer->n)
		drop_oldest(ringer);
	free(ringer->fds);
	ringer->fds = NULL;
}

int shmb_event_find(const struct shmb_event *event, uint16_t role)
{
	for (uint32_t i = 0; i < event->n_fds; i++)
		if (event->descriptors[i].role == role && event->fds[i] >= 0)
			return (int)i;
	return -1;
}

/* Is it what it is said to be, and something that can be rung? Other files could block a write. */
static int verify_bell(const struct shmb_event *event, int index)
{
	const struct shmb_fd_descriptor *descriptor = &event->descriptors[index];

	if (descriptor->kind != SHMB_FD_EVENTFD && descriptor->kind != SHMB_FD_SOCKET)
		return shmb_fail(-EPROTO, "the broker gave a doorbell of kind %u",
				 descriptor->kind);
	return shmb_fd_verify(event->fds[index], descriptor);
}

void shmb_ringer_add(struct shmb_ringer *ringer, struct shmb_event *event)
{
	int index = shmb_event_find(event, SHMB_FD_ROLE_RINGER);
	struct shmb_ringer_fd *grown;

	if (index < 0 || verify_bell(event, index) < 0)
		return;
	if (ringer->n && ringer->fds[ringer->n - 1].generation >= event->pair.doorbell_generation)
		return; /* told twice: that one works */
	grown = realloc(ringer->fds, (ringer->n + 1) * sizeof(*grown));
	if (!grown)
		return;
	ringer->fds = grown;
	grown[ringer->n++] = (struct shmb_ringer_fd){
		.fd = event->fds[index],
		.kind = event->descriptors[index].kind,
		.generation = event->pair.doorbell_generation,
	};
	event->fds[index] = -1;
}

/* Returns whether it is watched. Nobody sleeps on what is not: see shmb_member_epoll(). */
static bool watch(struct shmb_member *member, int fd, uint64_t cookie)
{
	/* Edge-triggered: an eventfd is never read, each write wakes once. */
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u64 = cookie };

	if (member->epoll_fd < 0 || epoll_ctl(member->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ||
	    errno == EEXIST)
		return true;
	member->watch_error = errno;
	return false;
}

static int add_doorbell(struct shmb_member *member, struct shmb_event *event, uint64_t pair_id)
{
	int index = shmb_event_find(event, SHMB_FD_ROLE_DOORBELL);
	struct shmb_doorbell *grown;
	int result;

	if (index < 0)
		return 0;
	result = verify_bell(event, index);
	if (result < 0)
		return result;
	grown = realloc(member->doorbells, (member->n_doorbells + 1) * sizeof(*grown));
	if (!grown)
		return shmb_fail(-ENOMEM, "no memory for a doorbell");
	member->doorbells = grown;
	grown[member->n_doorbells++] = (struct shmb_doorbell){
		.fd = event->fds[index],
		.kind = event->descriptors[index].kind,
		.generation = event->type == SHMB_MSG_GRANT ? event->generation
							    : event->pair.doorbell_generation,
		.pair_id = pair_id,
	};
	watch(member, event->fds[index], (uint64_t)event->fds[index]);
	event->fds[index] = -1;
	member->doorbell_changes++;
	return 0;
}

static void remove_doorbell(struct shmb_member *member, uint32_t index)
{
	shmb_fd_close(member->doorbells[index].fd);
	member->doorbells[index] = member->doorbells[--member->n_doorbells];
	member->doorbell_changes++;
}

void shmb_member_drop_doorbells(struct shmb_member *member, uint64_t pair_id)
{
	for (uint32_t i = member->n_doorbells; i-- > 0;)
		if (member->doorbells[i].pair_id == pair_id)
			remove_doorbell(member, i);
}

uint32_t shmb_member_doorbell_generation(const struct shmb_member *member)
{
	uint32_t newest = 0;

	for (uint32_t i = 0; i < member->n_doorbells; i++)
		if (!member->doorbells[i].pair_id && member->doorbells[i].generation > newest)
			newest = member->doorbells[i].generation;
	return newest;
}

void shmb_member_retire_doorbells(struct shmb_member *member, uint32_t oldest)
{
	uint32_t newest = shmb_member_doorbell_generation(member);

	for (uint32_t i = member->n_doorbells; i-- > 0;)
		if (!member->doorbells[i].pair_id && member->doorbells[i].generation < newest &&
		    member->doorbells[i].generation < oldest)
			remove_doorbell(member, i);
}

uint32_t shmb_member_settle_sockets(struct shmb_member *member, struct shmb_ringer *ringer,
				    uint64_t pair_id, uint32_t generation)
{
	uint32_t known = 0;

	while (known < ringer->n && ringer->fds[known].generation != generation)
		known++;
	if (known && known < ringer->n) {
		while (known--)
			drop_oldest(ringer);
		for (uint32_t i = member->n_doorbells; i-- > 0;)
			if (member->doorbells[i].pair_id == pair_id &&
			    member->doorbells[i].generation < generation)
				remove_doorbell(member, i);
	}
	return ringer->n ? ringer->fds[ringer->n - 1].generation : 0;
}

void shmb_member_drain_doorbells(struct shmb_member *member)
{
	char bytes[64];

	for (uint32_t i = 0; i < member->n_doorbells; i++)
		if (member->doorbells[i].kind == SHMB_FD_SOCKET)
			while (recv(member->doorbells[i].fd, bytes, sizeof(bytes), MSG_DONTWAIT) ==
			       (ssize_t)sizeof(bytes))
				;
}

/* ---- joining and leaving ----------------------------------------------------------------------- */

static uint32_t own_kind(const struct shmb_member *member)
{
	return member->role == SHMB_ROLE_PUBLISHER ? SHMB_SEGMENT_LANE : SHMB_SEGMENT_CURSOR;
}

static uint64_t own_len(const struct shmb_member *member)
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
	if (index < 0 || event->descriptors[index].segment_len != own_len(member) ||
	    grant.slot >= (member->role == SHMB_ROLE_PUBLISHER
				   ? shmb_cursor_slots(channel->pattern, channel->max_publishers)
				   : channel->max_subscribers))
		result = shmb_fail(-EPROTO, "the broker's grant does not fit the channel");
	else
		result = shmb_map_writer(&member->own, event->fds[index],
					 &event->descriptors[index], own_kind(member));
	if (result == 0) {
		member->own_id = event->descriptors[index].segment_id;
		result = add_doorbell(member, event, 0);
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
		remove_doorbell(member, member->n_doorbells - 1);
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

/* ---- hearing of peers -------------------------------------------------------------------------- */

/* A restarted broker is not asked for it any more. */
static void forget_pair(struct shmb_member *member, uint64_t id)
{
	pthread_mutex_lock(&member->client->lock);
	shmb_inbox_forget(&member->inbox, id);
	pthread_mutex_unlock(&member->client->lock);
}

static void handle_event(struct shmb_member *member, struct shmb_event *event);

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
			forget_pair(member, event->pair.pair_id);
			shmb_event_free(event);
		} else if (event->type == SHMB_MSG_UNPAIR && member->knows &&
			   event->unpair.reason == SHMB_GONE_MOVED) {
			shmb_event_free(event);
		} else {
			if (event->type == SHMB_MSG_PAIR)
				event->pair.segment = 0;
			handle_event(member, event);
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
static struct shmb_event *take_move(struct shmb_member *member, struct shmb_event *event)
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
static struct shmb_event *take_staged(struct shmb_member *member, struct shmb_event *event)
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

static void handle_event(struct shmb_member *member, struct shmb_event *event)
{
	int result;

	member->changes++;
	switch (event->type) {
	case SHMB_MSG_PAIR:
		if (event->pair.segment && event->pair.segment != (uint32_t)member->own_id) {
			event = take_staged(member, event);
			if (event)
				forget_pair(member, event->pair.pair_id);
			break;
		}
		result = add_doorbell(member, event, event->pair.pair_id);
		if (result == 0)
			result = member->on_pair(member, event);
		/* It stays unserved; the sentence is there for whoever asks. */
		if (result < 0)
			shmb_member_report(member, event->pair.pair_id,
					   result == -EBADMSG ? EBADMSG : 0);
		break;
	case SHMB_MSG_UNPAIR:
		event = take_staged(member, event);
		if (!event)
			break;
		member->on_unpair(member, &event->unpair);
		forget_pair(member, event->unpair.pair_id);
		break;
	case SHMB_MSG_EVICTED:
		member->evicted = true;
		break;
	case SHMB_MSG_ARENA:
		if (member->on_arena && member->on_arena(member, event) < 0)
			shmb_member_report(member, event->arena.pair_id, 0);
		break;
	case SHMB_MSG_GRANT:
		if (add_doorbell(member, event, 0) == 0 && member->on_doorbell)
			member->on_doorbell(member);
		event = take_move(member, event);
		break;
	}
	shmb_event_free(event);
}

static void handle_events(struct shmb_member *member, struct shmb_event *events)
{
	while (events) {
		struct shmb_event *event = events;

		events = event->next;
		handle_event(member, event);
	}
}

/* ---- moving to another segment ----------------------------------------------------------------- */

static int map_next(struct shmb_member *member)
{
	struct shmb_event *move = member->move;
	int index = shmb_event_find(move, SHMB_FD_ROLE_OWN);

	if (member->next.base)
		return 0;
	if (index < 0 || move->descriptors[index].segment_len != own_len(member))
		return shmb_fail(-EPROTO, "the broker's grant does not fit the channel");
	return shmb_map_writer(&member->next, move->fds[index], &move->descriptors[index],
			       own_kind(member));
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
static bool move(struct shmb_member *member)
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
	handle_events(member, staged);
	return true;
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

	handle_events(member, events);
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
	while (move(member));
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

/* ---- sleeping on fds --------------------------------------------------------------------------- */

/* The control socket is another one after each reconnection; its old fd left the set by itself. */
static void watch_control(struct shmb_member *member)
{
	struct shmb_client *client = member->client;

	pthread_mutex_lock(&client->lock);
	if (client->connected && member->epoll_connections != client->connections &&
	    watch(member, client->connection.fd, COOKIE_CONTROL))
		member->epoll_connections = client->connections;
	pthread_mutex_unlock(&client->lock);
}

/* Those that are watched already stay so. */
static void watch_doorbells(struct shmb_member *member)
{
	member->watch_error = 0;
	for (uint32_t i = 0; i < member->n_doorbells; i++)
		watch(member, member->doorbells[i].fd, (uint64_t)member->doorbells[i].fd);
}

int shmb_member_epoll(struct shmb_member *member)
{
	if (member->epoll_fd < 0) {
		member->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
		if (member->epoll_fd < 0)
			return shmb_fail(-errno, "no epoll fd to sleep on: %s", strerror(errno));
		watch_doorbells(member);
		member->epoll_connections = 0;
	} else if (member->watch_error) {
		watch_doorbells(member);
	}
	if (__atomic_load_n(&member->client->connections, __ATOMIC_RELAXED) !=
	    member->epoll_connections)
		watch_control(member);
	if (member->watch_error)
		return shmb_fail(-member->watch_error, "a doorbell cannot be slept on: %s",
				 strerror(member->watch_error));
	return member->epoll_fd;
}

int shmb_member_poll_fd(struct shmb_member *member)
{
	int fd = member->inbox.wake_fd < 0 ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;
	int result;

	if (fd < 0 && member->inbox.wake_fd < 0)
		return shmb_fail(-errno, "no eventfd to be told by: %s", strerror(errno));
	if (fd >= 0) {
		pthread_mutex_lock(&member->client->lock);
		member->inbox.wake_fd = fd;
		pthread_mutex_unlock(&member->client->lock);
	}
	result = shmb_member_epoll(member);
	if (result >= 0 && !watch(member, member->inbox.wake_fd, COOKIE_INBOX))
		return shmb_fail(-member->watch_error, "an inbox cannot be slept on: %s",
				 strerror(member->watch_error));
	return result;
}

static int wait_events(int epoll_fd, struct epoll_event *events, int max, uint64_t left_ns)
{
	struct __kernel_timespec timeout = shmb_clock_kernel_timespec(left_ns);
	uint64_t ms = (left_ns + 999999) / 1000000;
	int n = -1;

#ifdef SYS_epoll_pwait2
	n = (int)syscall(SYS_epoll_pwait2, epoll_fd, events, max, &timeout, NULL, 0);
	if (n >= 0 || errno != ENOSYS)
		return n;
#endif
	return epoll_wait(epoll_fd, events, max, ms > 1 << 30 ? 1 << 30 : (int)ms);
}

int shmb_member_sleep(struct shmb_member *member, uint64_t deadline_ns)
{
	struct epoll_event events[8];
	uint64_t now, retry_at;
	int n, fd = shmb_member_epoll(member);
	bool control = false, retry = false;

	if (fd < 0)
		return fd;
	retry_at = shmb_client_retry_at_ns(member->client);
	now = deadline_ns ? shmb_clock_now_ns() : 0;
	if (deadline_ns > retry_at) {
		retry = true;
		deadline_ns = retry_at > now ? retry_at : now;
	}
	n = wait_events(fd, events, SHMB_ARRAY_LEN(events), shmb_clock_left_ns(deadline_ns, now));
	for (int i = 0; i < n; i++)
		control |= events[i].data.u64 >= COOKIE_INBOX;
	shmb_member_drain_doorbells(member);
	/* The broker speaks, or has gone, or it is time to look for a new one. */
	if (control || retry_at != UINT64_MAX)
		shmb_member_sync(member);
	/* Before the caller arms what came with it. */
	if (member->watch_error && shmb_member_epoll(member) < 0)
		return -member->watch_error;
	/* Time to look for a broker is not the caller's deadline, at which it would suspect a loss. */
	return n > 0 || retry;
}
