/* SPDX-License-Identifier: Apache-2.0 */

/* Requests and their answers, refusals and late ones too; and farewells, whose answers nobody waits for. */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/api.h"
#include "lib/client-internal.h"
#include "lib/clock.h"
#include "lib/error.h"

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
void shmb_client_take_late(struct shmb_client *client, struct shmb_received *received)
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
		uint64_t slice_ns =
			left_ns < CLIENT_RECEIVE_SLICE_NS ? left_ns : CLIENT_RECEIVE_SLICE_NS;
		struct timespec slice = shmb_clock_timespec(slice_ns);
		int n, result;

		if (shmb_client_is_replaced(client))
			return shmb_fail(-ENOTCONN, "the broker has been replaced");
		n = ppoll(&poll_fd, 1, &slice, NULL);
		if ((n < 0 && errno == EINTR) || (n == 0 && slice_ns < left_ns))
			continue;
		/* Whatever is wrong with the socket, sending says it. */
		if (n < 0 || poll_fd.revents & ~POLLIN)
			return 0;
		if (n == 0)
			return -EAGAIN;
		result = shmb_client_take_one(client, &received, 0);
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

	while (shmb_client_take_one(client, &received, 0) == 0)
		;
}

/* One request on a connection that works. Events that come first are delivered. */
int shmb_client_round_trip(struct shmb_client *client, uint32_t type, const void *body,
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
		result = shmb_client_receive(client, received, deadline);
		if (result < 0)
			break;
		if (received->message.request_id == request_id)
			break;
		if (received->message.request_id == 0)
			result = shmb_inbox_deliver(client, received);
		else
			shmb_client_take_late(client, received);
		shmb_received_deinit(received);
	}
	/* -EAGAIN: a late answer will have a number that nobody waits for. */
	if (result == -EAGAIN || result == -ETIMEDOUT)
		return shmb_fail(-ETIMEDOUT, "the broker did not answer within %lld ms",
				 (long long)client->timeout_ns / 1000000);
	if (result < 0) {
		shmb_client_hang_up(client);
		return result;
	}
	if (received->message.type == SHMB_MSG_ERROR) {
		/* The caller may want to see what rides behind the error. */
		return refusal(&received->message);
	}
	if (received->message.type != reply_type || received->message.body_len < reply_len) {
		shmb_received_deinit(received);
		shmb_client_hang_up(client);
		return shmb_fail(-EPROTO,
				 "the broker answered request %u with message %u of %u bytes", type,
				 received->message.type, received->message.body_len);
	}
	return 0;
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
			result = client->resuming ? -ENOTCONN : shmb_client_reconnect(client);
		if (client->connected)
			result = shmb_client_round_trip(client, type, body, body_len, reply_type,
							reply_len, received);
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
		shmb_client_hang_up(client);
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
