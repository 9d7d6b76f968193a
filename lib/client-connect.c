/* SPDX-License-Identifier: Apache-2.0 */

/* Connecting: to the broker that is there or has to be started, and joining it as who we are. */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "lib/client-internal.h"
#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/keyfile.h"
#include "lib/runtime.h"
#include "lib/spawn.h"

#define RETURN_PATIENCE_NS 20000000ull /* a broker that runs answers sooner */

void shmb_client_hang_up(struct shmb_client *client)
{
	if (!client->connected)
		return;
	client->connected = client->overdue = false;
	shmb_connection_close(&client->connection);
	__atomic_store_n(&client->retry_at_ns, 0, __ATOMIC_RELAXED);
	client->retry_delay_ns = CLIENT_RETRY_MIN_NS;
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
	result = shmb_client_round_trip(client, SHMB_MSG_JOIN, &request, sizeof(request),
					SHMB_MSG_JOINED, sizeof(joined), &received);
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
		uint64_t slice = deadline_ns ? shmb_clock_now_ns() + CLIENT_RECEIVE_SLICE_NS : 0;

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

int shmb_client_connect_once(struct shmb_client *client, uint64_t deadline_ns)
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
		shmb_client_hang_up(client);
	return result;
}

static bool nobody_there(int result)
{
	return result == -ENOENT || result == -ECONNREFUSED;
}

/* Connect, starting the user's broker if there is none and it may be started. */
int shmb_client_connect_or_start(struct shmb_client *client, uint64_t deadline_ns)
{
	int result = shmb_client_connect_once(client, deadline_ns);

	if (!nobody_there(result) || !client->start)
		return result;
	result = shmb_spawn_broker(deadline_ns);
	/* A broker that was just going away, or one that lost the race to the lock. */
	for (int tries = 0; result == 0 && tries < 50; tries++) {
		struct timespec pause = { .tv_nsec = 10000000 };

		result = shmb_client_connect_once(client, deadline_ns);
		if (!nobody_there(result) || shmb_clock_now_ns() >= deadline_ns)
			return result;
		nanosleep(&pause, NULL);
		result = shmb_spawn_broker(deadline_ns);
	}
	return result;
}

/* The first connection. A broker that dies meanwhile is being restarted, or so we hope. */
int shmb_client_connect_first(struct shmb_client *client)
{
	uint64_t deadline = shmb_clock_deadline_ns(client->timeout_ns);
	bool died = false;

	for (;;) {
		struct timespec pause = { .tv_nsec = 5000000 };
		int result = shmb_client_connect_or_start(client, deadline);

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
