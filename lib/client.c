/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_client: finding a broker, the one connection, requests, events, and coming back after
 * a broker restart. There is no thread behind it: whoever needs the broker, or sees that it has
 * something to say, takes the lock and reads the socket.
 *
 * When the connection ends nothing else does: lanes are between publishers and subscribers. The
 * next call that looks at the broker tries to reconnect, joins with the token it was given, and
 * asks for everything it has again; the broker then tells what has changed meanwhile.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/api.h"
#include "lib/bell.h"
#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/fork.h"
#include "lib/keyfile.h"
#include "lib/options.h"
#include "lib/runtime.h"
#include "lib/spawn.h"

#define DEFAULT_TIMEOUT_NS 5000000000ll
#define RETRY_MIN_NS	   1000000ull
#define RETURN_PATIENCE_NS 20000000ull /* a broker that runs answers sooner */
#define RETRY_MAX_NS	   500000000ull
#define BACKLOG_NS	   1000000000ull
#define RECEIVE_SLICE_NS   20000000ull
#define BACKLOG_SLICE_NS   20000ull

/* ---- events ------------------------------------------------------------------------------------ */

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

void shmb_client_add(struct shmb_client *client, struct shmb_resumable *resumable)
{
	struct shmb_resumable **at = &client->resumables;

	while (*at)
		at = &(*at)->next;
	resumable->next = NULL;
	*at = resumable;
}

void shmb_client_remove(struct shmb_client *client, struct shmb_resumable *resumable)
{
	struct shmb_resumable **at = &client->resumables;

	while (*at && *at != resumable)
		at = &(*at)->next;
	if (*at)
		*at = resumable->next;
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
static int deliver(struct shmb_client *client, struct shmb_received *received)
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

/* ---- connection -------------------------------------------------------------------------------- */

static void disconnect(struct shmb_client *client)
{
	if (!client->connected)
		return;
	client->connected = client->overdue = false;
	shmb_connection_close(&client->connection);
	__atomic_store_n(&client->retry_at_ns, 0, __ATOMIC_RELAXED);
	client->retry_delay_ns = RETRY_MIN_NS;
}

void shmb_client_hang_up(struct shmb_client *client)
{
	disconnect(client);
}

static const struct {
	int32_t result;
	const char *text;
} refusals[] = {
	[SHMB_CODE_DENIED_OR_UNKNOWN] = { -ENOENT, "there is none, or this user may not have it" },
	[SHMB_CODE_QUOTA] = { -EDQUOT, "over the quota" },
	[SHMB_CODE_BAD_REQUEST] = { -EINVAL, "the broker calls it a bad request" },
	[SHMB_CODE_BUSY] = { -EBUSY, "the broker is busy" },
	[SHMB_CODE_INTERNAL] = { -EIO, "the broker failed inside" },
	[SHMB_CODE_GONE] = { -ESTALE, "it is gone" },
	[SHMB_CODE_SCHEMA] = { -EPROTOTYPE, "the channel has another schema" },
	[SHMB_CODE_EXISTS] = { -EEXIST, "it exists" },
	[SHMB_CODE_NO_MEMORY] = { -ENOSPC, "the broker finds no memory, or no room in /dev/shm" },
	[SHMB_CODE_NO_FDS] = { -EMFILE, "the broker has no file descriptor left" },
	[SHMB_CODE_PATTERN] = { -EPROTOTYPE, "the channel has another pattern" },
	[SHMB_CODE_HOLD] = { -EACCES, "policy lets it subscribe only lossily" },
	[SHMB_CODE_PRIORITY] = { -EACCES, "policy lets it have no priority" },
	[SHMB_CODE_FDS] = { -EACCES,
			    "policy lets records of this channel carry no file descriptors" },
};

static int refusal(const struct shmb_message *message)
{
	struct shmb_msg_error error;

	if (message->body_len < sizeof(error))
		return shmb_fail(-EPROTO, "the broker sent a short error");
	memcpy(&error, message->body, sizeof(error));
	if (error.code == 0 || error.code >= SHMB_ARRAY_LEN(refusals))
		return shmb_fail(-EPROTO, "the broker refused with the unknown code %u",
				 error.code);
	if (error.code == SHMB_CODE_QUOTA && error.limit)
		return shmb_fail(-EDQUOT, "over the quota: asked for %llu, the limit is %llu",
				 (unsigned long long)error.asked, (unsigned long long)error.limit);
	if (error.code == SHMB_CODE_BUSY && error.limit)
		return shmb_fail(-EBUSY, "process %llu has claimed the key",
				 (unsigned long long)error.limit);
	if (error.code == SHMB_CODE_HOLD && error.limit)
		return shmb_fail(
			-EACCES,
			"policy lets it hold publishers up for %llu ms: subscribe lossily, "
			"or with an evict_after_ms of at most that",
			(unsigned long long)error.limit);
	if (error.code == SHMB_CODE_FDS && error.limit)
		return shmb_fail(-EACCES,
				 "policy lets records of this channel carry at most %llu file "
				 "descriptors",
				 (unsigned long long)error.limit);
	if (error.code == SHMB_CODE_PRIORITY && error.limit)
		return shmb_fail(-EACCES, "policy lets it publish with a priority of at most %llu",
				 (unsigned long long)error.limit);
	return shmb_fail(refusals[error.code].result, "%s", refusals[error.code].text);
}

/*
 * An answer that nobody waits for. The broker has heard a farewell; or it comes too late: what it
 * brings goes back, or the broker would keep it for as long as we are here.
 */
static void take_late(struct shmb_client *client, struct shmb_received *received)
{
	const struct shmb_message *message = &received->message;
	uint32_t type = 0;
	uint64_t id = 0;

	for (uint32_t i = 0; i < client->n_farewells; i++)
		if (client->farewells[i].request_id == message->request_id) {
			client->farewells[i] = client->farewells[--client->n_farewells];
			break;
		}
	if (message->type == SHMB_MSG_OPENED && message->body_len >= sizeof(id))
		type = SHMB_MSG_CLOSE;
	else if (message->type == SHMB_MSG_GRANT && message->body_len >= sizeof(id))
		type = SHMB_MSG_DETACH;
	_Static_assert(offsetof(struct shmb_msg_opened, channel_id) == 0, "");
	_Static_assert(offsetof(struct shmb_msg_grant, member_id) == 0, "");
	if (type)
		memcpy(&id, message->body, sizeof(id));
	shmb_received_deinit(received);
	if (type)
		shmb_client_farewell(client, type, id);
}

/*
 * Has another broker taken the place of the one we are connected to? A lower epoch is what one that
 * was stopped and replaced while it began has stored late.
 */
static bool has_successor(const struct shmb_client *client)
{
	uint64_t epoch;

	/* Who has never joined has no bell that would say so. */
	if (!client->bell)
		return shmb_connection_is_elsewhere(&client->connection, client->address);
	/* S: pairs with the broker's release in bell_set_epoch(). */
	epoch = SHMB_LOAD_ACQUIRE(&client->bell->broker_epoch);
	return shmb_unlikely(client->broker_epoch && epoch > client->broker_epoch);
}

/*
 * One that was replaced may be stopped, and wake up any time: nothing that it says counts. But one
 * that has died said it all before, and its successor does not tell of those who have died meanwhile.
 */
static bool is_replaced(const struct shmb_client *client)
{
	return has_successor(client) && !shmb_connection_is_over(&client->connection);
}

/* As shmb_connection_receive(), with an eye on who the broker is, and on what was lost. */
static int receive(struct shmb_client *client, struct shmb_received *received, uint64_t deadline_ns)
{
	int result;

	do {
		uint64_t slice = deadline_ns ? shmb_clock_now_ns() + RECEIVE_SLICE_NS : 0;
		bool last = has_successor(client);

		if (is_replaced(client))
			return shmb_fail(-ENOTCONN, "the broker has been replaced");
		result = shmb_connection_receive(&client->connection, received,
						 slice < deadline_ns ? slice : deadline_ns);
		/* The kernel may close the sockets of a dead process, and say so, much later. */
		if (result == -EAGAIN && last)
			return shmb_fail(-ENOTCONN, "the broker has died");
	} while (result == -EAGAIN && deadline_ns && shmb_clock_now_ns() < deadline_ns);
	if (result == -EMFILE)
		__atomic_fetch_add(&client->fd_shortages, 1, __ATOMIC_RELAXED);
	return result;
}

uint64_t shmb_client_fd_shortages(struct shmb_client *client)
{
	return __atomic_load_n(&client->fd_shortages, __ATOMIC_RELAXED);
}

/* Take in one message, if one has come: an event, or an answer that nobody waits for. */
static int take_one(struct shmb_client *client, struct shmb_received *received,
		    uint64_t deadline_ns)
{
	int result = receive(client, received, deadline_ns);

	if (result < 0)
		return result;
	if (received->message.request_id == 0)
		result = deliver(client, received);
	else
		take_late(client, received);
	shmb_received_deinit(received);
	return result;
}

/*
 * Wait until a request can be sent. The broker does not read while it cannot send to us, so what it
 * sends must be taken in meanwhile: or we would wait for each other.
 */
static int make_room(struct shmb_client *client, uint64_t deadline_ns)
{
	struct shmb_received received;

	for (;;) {
		struct pollfd poll_fd = { .fd = client->connection.fd, .events = POLLIN | POLLOUT };
		uint64_t left_ns = shmb_clock_left_ns(deadline_ns, shmb_clock_now_ns());
		/* A broker that has stopped may be replaced meanwhile. */
		uint64_t slice_ns = left_ns < RECEIVE_SLICE_NS ? left_ns : RECEIVE_SLICE_NS;
		struct timespec slice = shmb_clock_timespec(slice_ns);
		int n, result;

		if (is_replaced(client))
			return shmb_fail(-ENOTCONN, "the broker has been replaced");
		n = ppoll(&poll_fd, 1, &slice, NULL);
		if ((n < 0 && errno == EINTR) || (n == 0 && slice_ns < left_ns))
			continue;
		/* Whatever is wrong with the socket, sending says it. */
		if (n < 0 || poll_fd.revents & ~POLLIN)
			return 0;
		if (n == 0)
			return -EAGAIN;
		result = take_one(client, &received, 0);
		if (result < 0 && (result != -EAGAIN || !left_ns))
			return result;
	}
}

/*
 * The connection takes nothing more, but what the broker had said before is there: peers were told
 * that we know it, and go by that.
 */
static void hear_last_words(struct shmb_client *client)
{
	struct shmb_received received;

	while (take_one(client, &received, 0) == 0)
		;
}

/* One request on a connection that works. Events that come first are delivered. */
static int round_trip(struct shmb_client *client, uint32_t type, const void *body,
		      uint32_t body_len, uint32_t reply_type, uint32_t reply_len,
		      struct shmb_received *received)
{
	uint64_t deadline = shmb_clock_deadline_ns(client->timeout_ns);
	uint32_t request_id;
	int result;

	/* Callers close what has come even if nothing has. */
	memset(received->fds, -1, sizeof(received->fds));
	received->message.type = 0;
	if (++client->next_request_id == 0)
		client->next_request_id = 1;
	request_id = client->next_request_id;
	result = make_room(client, deadline);
	if (result == 0) {
		result = shmb_connection_send(&client->connection, type, request_id, body, body_len,
					      deadline);
		if (result == -ENOTCONN)
			hear_last_words(client);
	}
	while (result == 0) {
		result = receive(client, received, deadline);
		if (result < 0)
			break;
		if (received->message.request_id == request_id)
			break;
		if (received->message.request_id == 0)
			result = deliver(client, received);
		else
			take_late(client, received);
		shmb_received_deinit(received);
	}
	/* -EAGAIN: a late answer will have a number that nobody waits for. */
	if (result == -EAGAIN || result == -ETIMEDOUT)
		return shmb_fail(-ETIMEDOUT, "the broker did not answer within %lld ms",
				 (long long)client->timeout_ns / 1000000);
	if (result < 0) {
		disconnect(client);
		return result;
	}
	if (received->message.type == SHMB_MSG_ERROR) {
		/* The caller may want to see what rides behind the error. */
		return refusal(&received->message);
	}
	if (received->message.type != reply_type || received->message.body_len < reply_len) {
		shmb_received_deinit(received);
		disconnect(client);
		return shmb_fail(-EPROTO,
				 "the broker answered request %u with message %u of %u bytes", type,
				 received->message.type, received->message.body_len);
	}
	return 0;
}

/* Map the bell that came with JOINED, or keep the one we have if it is the same. */
static int take_bell(struct shmb_client *client, struct shmb_received *received)
{
	const struct shmb_message *message = &received->message;
	struct shmb_map map;
	int result;

	if (message->fd_count != 1 || message->descriptors[0].role != SHMB_FD_ROLE_BELL)
		return shmb_fail(-EPROTO, "the broker gave no bell");
	result = shmb_map_reader(&map, received->fds[0], &message->descriptors[0],
				 SHMB_SEGMENT_BELL);
	if (result < 0)
		return result;
	/* Another thread may sleep on the old mapping; a restarted broker has the same bell. */
	if (client->bell) {
		shmb_map_deinit(&map);
		return 0;
	}
	client->bell_map = map;
	client->bell = map.base;
	return 0;
}

/*
 * The broker does not know us any more. Whoever has nothing open has lost nothing by that, and goes
 * on as a new client; no other thread looks at its bell.
 */
static void begin_anew(struct shmb_client *client)
{
	if (client->n_children) {
		client->stale = true;
		return;
	}
	shmb_map_deinit(&client->bell_map);
	client->bell = NULL;
}

static int join(struct shmb_client *client)
{
	struct shmb_msg_join request = { .client_id = client->id };
	struct shmb_received received;
	struct shmb_msg_joined joined;
	int result;

	/* It may be stopped before it answers. */
	client->broker_epoch = client->connection.broker.broker_epoch;
	memset(received.fds, -1, sizeof(received.fds));
	memcpy(request.token, client->token, sizeof(request.token));
	result = round_trip(client, SHMB_MSG_JOIN, &request, sizeof(request), SHMB_MSG_JOINED,
			    sizeof(joined), &received);
	if (result < 0) {
		shmb_received_deinit(&received);
		return result;
	}
	memcpy(&joined, received.message.body, sizeof(joined));
	if (client->id && (joined.client_id != client->id || joined.instance != client->instance))
		begin_anew(client);
	if (!client->stale)
		result = take_bell(client, &received);
	shmb_received_deinit(&received);
	if (result < 0 || client->stale)
		return result;
	client->id = joined.client_id;
	client->instance = joined.instance;
	client->broker_epoch = joined.broker_epoch;
	memcpy(client->token, joined.token, sizeof(client->token));
	return 0;
}

static bool hung_up(int fd)
{
	struct pollfd entry = { .fd = fd, .events = POLLIN };

	return poll(&entry, 1, 0) == 1;
}

/*
 * A service manager may hold the socket of a broker that has never run. The broker is started when
 * somebody connects, and makes its key only then.
 */
static int await_key(struct shmb_client *client, uint8_t key[SHMB_KEY_LEN], uint64_t deadline_ns)
{
	struct timespec pause = { .tv_nsec = 2000000 };
	int fd = shmb_connection_rouse(client->address, deadline_ns);
	bool over;
	int result;

	if (fd < 0)
		return fd;
	do {
		nanosleep(&pause, NULL);
		/* In this order: a broker that hangs up has made its key before. */
		over = hung_up(fd) || shmb_clock_now_ns() >= deadline_ns;
		result = shmb_keyfile_load_public(client->broker_key_file, key);
	} while (result == -ENOENT && !over);
	if (result == -ENOENT)
		result = shmb_fail(-ENOENT, "%s: not a broker's socket, or the broker has no %s",
				   client->address, client->broker_key_file);
	shmb_fd_close(fd);
	return result;
}

static int begin(struct shmb_client *client, uint64_t deadline_ns)
{
	uint8_t broker_key[SHMB_KEY_LEN];
	char dir[sizeof(client->address)];
	char *slash;
	int result;

	strcpy(dir, client->address);
	slash = strrchr(dir, '/');
	if (slash == dir)
		slash[1] = '\0';
	else
		*slash = '\0';
	result = shmb_runtime_check_dir(dir);
	if (result == 0)
		result = shmb_keyfile_load_public(client->broker_key_file, broker_key);
	if (result == -ENOENT && client->connections == 0)
		result = await_key(client, broker_key, deadline_ns);
	if (result == 0)
		result = shmb_connection_begin(&client->connection, client->address,
					       &client->keypair, broker_key, client->label,
					       deadline_ns);
	return result;
}

/*
 * Whoever comes back has lanes that flow, and must not keep them waiting: a service manager may
 * hold the socket of a broker that is yet to be started. So the connection is left as it is, and
 * the next attempt looks whether the answer has come.
 */
static int finish(struct shmb_client *client, uint64_t deadline_ns)
{
	bool relay = client->flags & SHMB_CLIENT_ALLOW_RELAY;
	bool elsewhere = false;
	int result;

	do {
		uint64_t slice = deadline_ns ? shmb_clock_now_ns() + RECEIVE_SLICE_NS : 0;

		result = shmb_connection_finish(&client->connection, relay,
						slice < deadline_ns ? slice : deadline_ns);
		if (result < 0)
			elsewhere =
				shmb_connection_is_elsewhere(&client->connection, client->address);
	} while (result == -EAGAIN && !elsewhere && deadline_ns &&
		 shmb_clock_now_ns() < deadline_ns);
	if (result == -EAGAIN && client->id && !elsewhere)
		return shmb_fail(-ETIMEDOUT, "the broker does not answer yet");
	client->pending = false;
	/* It was stopped, perhaps, and will never answer; or it has woken up, and has hung up. */
	if (result < 0 && elsewhere) {
		shmb_connection_close(&client->connection);
		client->connection.died = true;
		return shmb_fail(-ENOTCONN, "the broker was replaced while it was connected to");
	}
	if (result == -EAGAIN) {
		shmb_connection_close(&client->connection);
		return shmb_fail(-ETIMEDOUT, "the broker does not answer");
	}
	return result;
}

static int connect_once(struct shmb_client *client, uint64_t deadline_ns)
{
	uint64_t patience_ns = shmb_clock_now_ns() + RETURN_PATIENCE_NS;
	int result;

	if (client->pending) {
		result = finish(client, 0);
	} else {
		client->connection.patient = !client->id;
		result = begin(client, deadline_ns);
		client->pending = result == 0;
		if (result == 0)
			result = finish(client, client->id && patience_ns < deadline_ns
							? patience_ns
							: deadline_ns);
	}
	if (result < 0)
		return result;
	client->connected = true;
	client->connections++;
	result = join(client);
	if (result < 0)
		disconnect(client);
	return result;
}

static bool nobody_there(int result)
{
	return result == -ENOENT || result == -ECONNREFUSED;
}

/* Connect, starting the user's broker if there is none and it may be started. */
static int connect_or_start(struct shmb_client *client, uint64_t deadline_ns)
{
	int result = connect_once(client, deadline_ns);

	if (!nobody_there(result) || !client->start)
		return result;
	result = shmb_spawn_broker(deadline_ns);
	/* A broker that was just going away, or one that lost the race to the lock. */
	for (int tries = 0; result == 0 && tries < 50; tries++) {
		struct timespec pause = { .tv_nsec = 10000000 };

		result = connect_once(client, deadline_ns);
		if (!nobody_there(result) || shmb_clock_now_ns() >= deadline_ns)
			return result;
		nanosleep(&pause, NULL);
		result = shmb_spawn_broker(deadline_ns);
	}
	return result;
}

static int resume_all(struct shmb_client *client)
{
	int result = 0;

	client->resuming = true;
	for (struct shmb_resumable *at = client->resumables; at && result == 0; at = at->next)
		result = at->resume(at);
	client->resuming = false;
	return result;
}

static bool is_open(const struct shmb_client *client, uint64_t channel_id)
{
	for (const struct shmb_resumable *at = client->resumables; at; at = at->next)
		if (at->channel_id == channel_id)
			return true;
	return false;
}

/*
 * What was closed meanwhile: the broker would keep it until this process ends, and a reliable
 * subscriber that nobody reads stops its publishers. A channel counts handles from what was
 * resumed: one that is still open is not closed.
 */
static void say_farewells(struct shmb_client *client)
{
	uint32_t n = client->n_farewells;
	struct shmb_farewell *farewells = client->farewells;

	client->farewells = NULL;
	client->n_farewells = 0;
	for (uint32_t i = 0; i < n; i++)
		if (farewells[i].type != SHMB_MSG_CLOSE || !is_open(client, farewells[i].body.id))
			shmb_client_farewell(client, farewells[i].type, farewells[i].body.id);
	free(farewells);
}

/* Come back after the connection has ended, if it is time to try. */
static int reconnect(struct shmb_client *client)
{
	uint64_t now = shmb_clock_now_ns();
	uint32_t wake = client->bell ? SHMB_LOAD(&client->bell->wake) : 0;
	int result;

	if (client->stale)
		return shmb_fail(-ESTALE, "the broker has forgotten this client: open it anew");
	/* A broker that has started rings the bells of all it has adopted: then do not wait. */
	if (now < client->retry_at_ns && wake == client->tried_wake)
		return shmb_fail(-ENOTCONN, "there is no broker now at %s", client->address);
	client->tried_wake = wake;
	result = connect_or_start(client, now + 1000000000ull);
	if (result == 0 && !client->stale)
		result = resume_all(client);
	if (result == 0 && !client->stale) {
		say_farewells(client);
		return 0;
	}
	/* As somebody else we must not go on over this connection. */
	disconnect(client);
	if (result == -ESTALE)
		client->stale = true;
	if (client->stale)
		return reconnect(client);
	/* Whoever sleeps wakes up for the next attempt, so attempts must get rare. */
	client->retry_delay_ns = client->retry_delay_ns * 2 > RETRY_MAX_NS
					 ? RETRY_MAX_NS
					 : client->retry_delay_ns * 2;
	__atomic_store_n(&client->retry_at_ns, shmb_clock_now_ns() + client->retry_delay_ns,
			 __ATOMIC_RELAXED);
	return shmb_fail(-ENOTCONN, "there is no broker now at %s", client->address);
}

uint64_t shmb_client_retry_at_ns(struct shmb_client *client)
{
	/* A hint for how long to sleep: any mixture of old and new values will do. */
	if (__atomic_load_n(&client->connected, __ATOMIC_RELAXED) ||
	    __atomic_load_n(&client->stale, __ATOMIC_RELAXED))
		return UINT64_MAX;
	return __atomic_load_n(&client->retry_at_ns, __ATOMIC_RELAXED);
}

int shmb_client_request(struct shmb_client *client, uint32_t type, const void *body,
			uint32_t body_len, uint32_t reply_type, uint32_t reply_len,
			struct shmb_received *received)
{
	uint64_t deadline = shmb_clock_deadline_ns(client->timeout_ns);
	int result = 0;

	memset(received->fds, -1, sizeof(received->fds));
	received->message.type = 0;
	for (;;) {
		if (!client->connected)
			result = client->resuming ? -ENOTCONN : reconnect(client);
		if (client->connected)
			result = round_trip(client, type, body, body_len, reply_type, reply_len,
					    received);
		/*
		 * A broker that is being restarted: its successor answers the same request. But
		 * not while resuming: the lanes flow, and their threads wait for us.
		 */
		if (result != -ENOTCONN || client->resuming || shmb_clock_now_ns() >= deadline)
			return result;
		struct timespec pause = { .tv_nsec = 2000000 };

		nanosleep(&pause, NULL);
	}
}

int shmb_client_request_ok(struct shmb_client *client, uint32_t type, const void *body,
			   uint32_t body_len)
{
	struct shmb_received received;
	int result = shmb_client_request(client, type, body, body_len, SHMB_MSG_OK, 0, &received);

	shmb_received_deinit(&received);
	return result;
}

void shmb_client_tell(struct shmb_client *client, uint32_t type, const void *body,
		      uint32_t body_len)
{
	uint64_t deadline = shmb_clock_deadline_ns(client->timeout_ns);
	int result;

	if (!client->connected)
		return;
	if (++client->next_request_id == 0)
		client->next_request_id = 1;
	result = make_room(client, deadline);
	if (result == 0) {
		result = shmb_connection_send(&client->connection, type, client->next_request_id,
					      body, body_len, deadline);
		if (result == -ENOTCONN)
			hear_last_words(client);
	}
	if (result < 0)
		disconnect(client);
}

void shmb_client_farewell(struct shmb_client *client, uint32_t type, uint64_t id)
{
	struct shmb_farewell farewell = { .type = type, .body.id = id };
	struct shmb_farewell *grown;

	shmb_client_tell(client, type, &farewell.body, sizeof(farewell.body));
	farewell.request_id = client->next_request_id;
	grown = realloc(client->farewells, (client->n_farewells + 1) * sizeof(*grown));
	if (!grown)
		return; /* it ends with the process */
	client->farewells = grown;
	grown[client->n_farewells++] = farewell;
}

/*
 * Messages that belong to the epoch we have seen may still be to come: until when to wait for the
 * next one. Returns 0 if the broker owes nothing.
 */
static uint64_t backlog_deadline(struct shmb_client *client, uint64_t *give_up, uint64_t *slice)
{
	uint32_t wake = SHMB_LOAD(&client->bell->wake);
	uint64_t now;

	/* R: pairs with the broker's release of backlog in bell_set_backlog(). */
	if (SHMB_LOAD_ACQUIRE(&client->bell->backlog) != shmb_bell_backlog(client->broker_epoch)) {
		client->overdue = false;
		return 0;
	}
	now = shmb_clock_now_ns();
	/* A broker that is stopped keeps nobody waiting a second time. When it goes on it rings. */
	if (!*give_up)
		*give_up = client->overdue && wake == client->overdue_wake ? now : now + BACKLOG_NS;
	/* The last message may be here already and only the word not yet: look again soon. */
	*slice = *slice ? 2 * *slice : BACKLOG_SLICE_NS;
	if (now >= *give_up) {
		client->overdue = true;
		client->overdue_wake = wake;
		return 0;
	}
	return now + *slice < *give_up ? now + *slice : *give_up;
}

int shmb_client_drain(struct shmb_client *client)
{
	struct shmb_received received;
	uint64_t give_up = 0, slice = 0;
	int result = client->connected ? 0 : reconnect(client);

	while (result == 0) {
		uint64_t deadline = backlog_deadline(client, &give_up, &slice);

		result = take_one(client, &received, deadline);
		if (result == -EAGAIN) {
			if (!deadline)
				return 0;
			result = 0;
			continue;
		}
		if (result == 0)
			slice = 0;
		if (result < 0) {
			disconnect(client);
			result = reconnect(client);
		}
	}
	return result;
}

/* ---- public ------------------------------------------------------------------------------------ */

/* The command's name, for shmctl. */
static void default_label(char *label, size_t cap)
{
	int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? 0 : read(fd, label, cap - 1);

	shmb_fd_close(fd);
	label[len > 0 ? len : 0] = '\0';
	label[strcspn(label, "\n")] = '\0';
}

/* Which broker: the one that was named, the system's, or the user's own. */
static int choose_address(struct shmb_client *client, const struct shmb_client_options *options)
{
	const char *chosen = secure_getenv("SHMBROKER_ADDRESS");
	char dir[sizeof(client->address)];
	int result;

	if (options->address) {
		if (options->address_len == 0 || options->address_len >= sizeof(client->address))
			return shmb_fail(-EINVAL, "an address has 1 to %zu bytes, not %u",
					 sizeof(client->address) - 1, options->address_len);
		memcpy(client->address, options->address, options->address_len);
		client->address[options->address_len] = '\0';
	} else if (chosen && *chosen) {
		if (strlen(chosen) >= sizeof(client->address))
			return shmb_fail(-EINVAL, "SHMBROKER_ADDRESS is longer than %zu bytes",
					 sizeof(client->address) - 1);
		strcpy(client->address, chosen);
	} else if (access(SHMB_SYSTEM_DIR "/" SHMB_SOCKET_FILE, F_OK) == 0) {
		strcpy(client->address, SHMB_SYSTEM_DIR "/" SHMB_SOCKET_FILE);
	} else {
		result = shmb_runtime_user_dir(dir, sizeof(dir));
		if (result == 0)
			result = shmb_runtime_join(client->address, sizeof(client->address), dir,
						   SHMB_SOCKET_FILE);
		if (result < 0)
			return shmb_fail(result,
					 "the user's runtime directory has too long a name");
		client->start = !(client->flags & SHMB_CLIENT_NO_START);
	}
	if (client->address[0] != '/')
		return shmb_fail(-EINVAL, "%s: an address is an absolute path", client->address);
	return 0;
}

static int choose_keys(struct shmb_client *client, const struct shmb_client_options *options)
{
	const char *own = options->key_file;
	const char *slash = strrchr(client->address, '/');

	if (!own)
		own = secure_getenv("SHMBROKER_KEY");
	if (options->broker_key_file) {
		if (strlen(options->broker_key_file) >= sizeof(client->broker_key_file))
			return shmb_fail(-ENAMETOOLONG, "the broker key file has too long a name");
		strcpy(client->broker_key_file, options->broker_key_file);
	} else {
		snprintf(client->broker_key_file, sizeof(client->broker_key_file), "%.*s/%s",
			 (int)(slash - client->address), client->address, SHMB_PUBLIC_FILE);
	}
	if (own && *own)
		return shmb_keyfile_load_private(own, &client->keypair);
	return shmb_noise_keypair_generate(&client->keypair);
}

static int take_options(struct shmb_client *client, const struct shmb_client_options *options)
{
	if (options->flags & ~(SHMB_CLIENT_NO_START | SHMB_CLIENT_ALLOW_RELAY))
		return shmb_fail(-EINVAL, "unknown client flags 0x%x", options->flags);
	if (options->label && options->label_len > SHMB_LABEL_LEN_MAX)
		return shmb_fail(-EINVAL, "a label has at most %u bytes, not %u",
				 SHMB_LABEL_LEN_MAX, options->label_len);
	if (options->label) {
		memcpy(client->label, options->label, options->label_len);
		client->label[options->label_len] = '\0';
	} else {
		default_label(client->label, sizeof(client->label));
	}
	client->timeout_ns =
		options->connect_timeout_ns ? options->connect_timeout_ns : DEFAULT_TIMEOUT_NS;
	client->flags = options->flags;
	return 0;
}

static int init(struct shmb_client *client, const struct shmb_client_options *given)
{
	struct shmb_client_options options;
	int result;

	client->connection.fd = client->connection.listener = -1;
	client->retry_delay_ns = RETRY_MIN_NS;
	result = shmb_options_take(&options, sizeof(options), given, "client");
	if (result == 0)
		result = take_options(client, &options);
	if (result < 0)
		return result;
	if (sodium_init() < 0)
		return shmb_fail(-EIO, "libsodium does not start");
	client->fork_guard = shmb_fork_guard();
	if (!client->fork_guard)
		return shmb_fail(-ENOMEM, "no memory for a client");
	result = choose_address(client, &options);
	if (result == 0)
		result = choose_keys(client, &options);
	return result;
}

static void deinit(struct shmb_client *client)
{
	shmb_connection_close(&client->connection);
	shmb_map_deinit(&client->bell_map);
	sodium_memzero(&client->keypair, sizeof(client->keypair));
	sodium_memzero(client->token, sizeof(client->token));
	pthread_mutex_destroy(&client->lock);
	free(client->farewells);
	free(client);
}

/* The first connection. A broker that dies meanwhile is being restarted, or so we hope. */
static int connect_first(struct shmb_client *client)
{
	uint64_t deadline = shmb_clock_deadline_ns(client->timeout_ns);
	bool died = false;

	for (;;) {
		struct timespec pause = { .tv_nsec = 5000000 };
		int result = connect_or_start(client, deadline);

		died |= result == -ENOTCONN &&
			(client->connection.died ||
			 shmb_connection_is_elsewhere(&client->connection, client->address));
		if (result == 0 || !died || (result != -ENOTCONN && !nobody_there(result)))
			return result;
		if (shmb_clock_now_ns() >= deadline)
			return shmb_fail(-ECONNREFUSED,
					 "%s: the broker died while it was connected to, and no "
					 "other has come",
					 client->address);
		nanosleep(&pause, NULL);
	}
}

SHMB_API int32_t shmb_client_open(const struct shmb_client_options *options,
				  struct shmb_client **ret_client)
{
	struct shmb_client *client;
	int result;

	if (!ret_client)
		return shmb_fail(-EINVAL, "ret_client is NULL");
	client = calloc(1, sizeof(*client));
	if (!client)
		return shmb_fail(-ENOMEM, "no memory for a client");
	pthread_mutex_init(&client->lock, NULL);
	result = init(client, options);
	if (result == 0)
		result = connect_first(client);
	if (result < 0) {
		deinit(client);
		return result;
	}
	*ret_client = client;
	return 0;
}

/*
 * The broker hears it before it hears that we hang up, and does not wait for us to come back: it may
 * have opened something for us that we have never heard of.
 */
static void say_goodbye(struct shmb_client *client)
{
	struct shmb_msg_id self = { .id = client->id };
	struct timespec pause = { .tv_nsec = 2000000 };
	uint64_t deadline;
	int result = 0;

	if (client->timeout_ns < 0 || client->timeout_ns > DEFAULT_TIMEOUT_NS)
		client->timeout_ns = DEFAULT_TIMEOUT_NS;
	deadline = shmb_clock_deadline_ns(client->timeout_ns);
	if (client->connected && !shmb_connection_is_dead(&client->connection))
		shmb_client_tell(client, SHMB_MSG_CLOSE, &self, sizeof(self));
	else
		disconnect(client);
	/* It was replaced meanwhile, or is there again. */
	while (!client->connected && shmb_clock_now_ns() < deadline) {
		result = connect_once(client, deadline);
		/* It is there, and busy. */
		if (result == -ETIMEDOUT && client->pending && nanosleep(&pause, NULL) == 0)
			continue;
		if (result < 0 || client->stale)
			return;
		say_farewells(client);
		shmb_client_tell(client, SHMB_MSG_CLOSE, &self, sizeof(self));
	}
}

SHMB_API int32_t shmb_client_close(struct shmb_client *client)
{
	if (!client)
		return 0;
	if (*client->fork_guard && client->n_children)
		return shmb_fail(-EBUSY, "%u channels or wait sets of the client are open",
				 client->n_children);
	/* In a forked child the mappings are not there, and the socket is the parent's. */
	if (!*client->fork_guard)
		client->bell_map.base = NULL;
	else if (client->id && !client->stale)
		say_goodbye(client);
	/* A child that was forked meanwhile may keep the socket open for long. */
	if (*client->fork_guard && client->connection.fd >= 0)
		shutdown(client->connection.fd, SHUT_RDWR);
	deinit(client);
	return 0;
}

SHMB_API int32_t shmb_client_ping(struct shmb_client *client, int64_t timeout_ns)
{
	int64_t usual;
	int result;

	if (!client)
		return shmb_fail(-EINVAL, "client is NULL");
	if (!*client->fork_guard)
		return shmb_fail(-ECHILD, "this client belongs to the parent process");
	pthread_mutex_lock(&client->lock);
	usual = client->timeout_ns;
	client->timeout_ns = timeout_ns;
	result = shmb_client_request_ok(client, SHMB_MSG_PING, NULL, 0);
	client->timeout_ns = usual;
	pthread_mutex_unlock(&client->lock);
	return result;
}

SHMB_API int32_t shmb_client_connected(struct shmb_client *client)
{
	int32_t connected;

	if (!client)
		return shmb_fail(-EINVAL, "client is NULL");
	if (!*client->fork_guard)
		return shmb_fail(-ECHILD, "this client belongs to the parent process");
	pthread_mutex_lock(&client->lock);
	connected = shmb_client_drain(client) == 0;
	pthread_mutex_unlock(&client->lock);
	return connected;
}
