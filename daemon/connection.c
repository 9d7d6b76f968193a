/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/clock.h"
#include "lib/fd.h"

#include "daemon/connection.h"
#include "daemon/idle.h"

static void connection_gone(struct connection *connection)
{
	connection->events->gone(connection);
}

/* The client has proved that it holds its key, and is not half open any more. */
static void connection_settle(struct connection *connection)
{
	if (connection->half_open)
		quota_release(connection->user, QUOTA_HALF_OPEN, 1);
	connection->half_open = false;
}

static void read_boot_id(uint8_t boot_id[16])
{
	char text[37] = "";
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	memset(boot_id, 0, 16);
	if (n > 0)
		sodium_hex2bin(boot_id, 16, text, (size_t)n, "-\n", NULL, NULL);
	shmb_fd_close(fd);
}

static void send_version_reject(struct connection *connection)
{
	struct shmb_version_reject reject = {
		.header = { .kind = SHMB_PACKET_VERSION, .wire = 1, .packet_len = sizeof(reject) },
		.version_min = 1,
		.version_max = 1,
	};

	/* A hint, and the connection ends anyway: it goes out now or never. */
	send(connection->fd, &reject, sizeof(reject), MSG_DONTWAIT | MSG_NOSIGNAL);
}

/*
 * Nobody hears anything of us once we have been replaced: a successor does not know it. But what we
 * have noted before we look is known to it.
 */
static int send_packet(struct connection *connection, const void *packet, size_t len,
		       const struct parcel *parcel)
{
	if (registry_is_superseded(&connection->broker->registry))
		return -ESTALE;
	return loop_conn_send(connection->io, packet, len, parcel ? parcel->fds : NULL,
			      parcel ? parcel->n_fds : 0);
}

static int connection_answer(struct connection *connection)
{
	struct broker *broker = connection->broker;
	struct shmb_handshake_2_payload payload = {
		.flags = connection->peer.inode ? SHMB_PEER_PIDFD_INODE : 0,
		.peer_uid = connection->peer.uid,
		.peer_gid = connection->peer.gid,
		.peer_pid = connection->peer.pid,
		.broker_uid = geteuid(),
		.peer_pidfd_inode = connection->peer.inode,
		.session_id = connection->session_id,
		.instance = broker->maker.instance,
		.broker_epoch = registry_epoch(&broker->registry),
		.monotonic_ns = shmb_clock_now_ns(),
	};
	struct shmb_handshake_2 packet;
	int r;

	read_boot_id(payload.boot_id);
	r = shmb_session_accepted(&connection->session, &payload, &packet);
	if (r == 0)
		r = send_packet(connection, &packet, sizeof(packet), NULL);
	return r;
}

static void on_handshake(struct connection *connection, const void *packet, size_t len)
{
	struct broker *broker = connection->broker;
	struct shmb_handshake_1_payload payload;
	int r;

	if (!quota_admit_handshake(connection->user, shmb_clock_now_ns())) {
		log_line(&broker->log, LOG_WARNING, "handshake-rate", "uid=%u pid=%u",
			 connection->peer.uid, connection->peer.pid);
		connection_gone(connection);
		return;
	}
	r = shmb_session_accept(&connection->session, &broker->key, packet, (uint32_t)len, &payload,
				connection->key);
	if (r == -EPROTONOSUPPORT)
		send_version_reject(connection);
	if (r == 0)
		r = connection_answer(connection);
	if (r < 0) {
		connection_gone(connection);
		return;
	}
	memcpy(connection->label, payload.label, sizeof(connection->label));
	connection->state = CONNECTION_SENT;
}

static void on_ready(struct connection *connection, const struct shmb_message *message)
{
	struct shmb_msg_ready ready;

	if (message->type != SHMB_MSG_READY || message->body_len != sizeof(ready)) {
		connection_gone(connection);
		return;
	}
	memcpy(&ready, message->body, sizeof(ready));
	if (ready.session_id != connection->session_id ||
	    !sodium_is_zero(ready.zero, sizeof(ready.zero))) {
		connection_gone(connection);
		return;
	}
	connection->state = CONNECTION_READY;
	connection_settle(connection);
}

static void on_packet(void *data, const void *packet, size_t len)
{
	struct connection *connection = data;
	struct shmb_message message;
	int r;

	if (connection->state == CONNECTION_ACCEPTED) {
		on_handshake(connection, packet, len);
		return;
	}
	r = shmb_session_open(&connection->session, packet, (uint32_t)len,
			      connection->broker->plain, &message);
	/* Clients send no fds. An authentic message that is none is a client gone wrong. */
	if (r < 0 || message.fd_count != 0)
		connection_gone(connection);
	else if (connection->state == CONNECTION_SENT)
		on_ready(connection, &message);
	else
		connection->events->message(connection, &message);
}

static void on_writable(void *data)
{
	struct connection *connection = data;

	connection->events->writable(connection);
}

static void on_closed(void *data, int error)
{
	(void)error;
	connection_gone(data);
}

static void on_deadline(void *data)
{
	connection_gone(data);
}

static const struct loop_conn_ops conn_ops = {
	.max_packet = SHMB_PACKET_LEN_MAX,
	.on_packet = on_packet,
	.on_writable = on_writable,
	.on_closed = on_closed,
};

/* Charges everything or nothing. */
static int connection_charge(struct connection *connection)
{
	struct quota_user *user;

	user = quota_user_get(&connection->broker->quota, connection->peer.uid);
	if (!user)
		return -ENOMEM;
	if (quota_charge(user, QUOTA_CONNECTIONS, 1) < 0) {
		quota_user_put(&connection->broker->quota, user);
		return -EDQUOT;
	}
	if (quota_charge(user, QUOTA_HALF_OPEN, 1) < 0) {
		quota_release(user, QUOTA_CONNECTIONS, 1);
		quota_user_put(&connection->broker->quota, user);
		return -EDQUOT;
	}
	connection->user = user;
	connection->half_open = true;
	return 0;
}

static int connection_init(struct connection *connection, int fd)
{
	struct broker *broker = connection->broker;
	int r;

	r = peer_read(fd, &connection->peer);
	if (r < 0)
		return r;
	if (!policy_admits(broker->policy, connection->peer.uid))
		return -EACCES;
	r = connection_charge(connection);
	if (r < 0)
		return r;
	r = loop_timer_at(broker->loop, shmb_clock_now_ns() + broker->config.handshake_ns,
			  on_deadline, connection, &connection->deadline);
	if (r < 0)
		return r;
	r = loop_conn_new(broker->loop, fd, &conn_ops, connection, &connection->io);
	if (r == 0)
		connection->fd = fd;
	return r;
}

void connection_accept(struct broker *broker, int fd, const struct connection_events *events)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	int r;

	if (!connection) {
		loop_close_peer(broker->loop, fd);
		return;
	}
	connection->broker = broker;
	connection->events = events;
	connection->fd = -1;
	connection->peer.pidfd = -1;
	connection->session_id = ++broker->next_session;
	list_append(&broker->connections, &connection->link);
	broker->n_connections++;
	r = connection_init(connection, fd);
	if (r < 0) {
		log_line(&broker->log, LOG_WARNING, "connection-refused", "uid=%u pid=%u errno=%d",
			 connection->peer.uid, connection->peer.pid, -r);
		connection_close(connection);
		loop_close_peer(broker->loop, fd);
		return;
	}
	idle_check(broker);
}

int connection_send(struct connection *connection, uint32_t type, uint32_t request_id,
		    const void *body, uint32_t body_len, const struct parcel *parcel)
{
	struct shmb_noise_cipher before = connection->session.send;
	uint8_t *packet = connection->broker->packet;
	struct shmb_message message = {
		.type = type,
		.request_id = request_id,
		.body = body,
		.body_len = body_len,
		.fd_count = parcel ? parcel->n_fds : 0,
		.descriptors = parcel ? parcel->descriptors : NULL,
	};
	int r;

	r = shmb_session_seal(&connection->session, &message, packet);
	if (r >= 0)
		r = send_packet(connection, packet, (size_t)r, parcel);
	/* What was never sent has no number: its place in the sequence goes to the next packet. */
	if (r < 0)
		connection->session.send = before;
	sodium_memzero(&before, sizeof(before));
	return r;
}

void connection_joined(struct connection *connection, struct client *client)
{
	connection->deadline = loop_timer_cancel(connection->deadline);
	connection->state = CONNECTION_JOINED;
	connection->client = client;
}

void connection_abort(struct connection *connection)
{
	shutdown(connection->fd, SHUT_RDWR);
}

struct connection *connection_close(struct connection *connection)
{
	struct broker *broker = connection->broker;

	loop_conn_close(connection->io);
	loop_timer_cancel(connection->deadline);
	if (connection->user) {
		connection_settle(connection);
		quota_release(connection->user, QUOTA_CONNECTIONS, 1);
		quota_user_put(&broker->quota, connection->user);
	}
	shmb_session_deinit(&connection->session);
	peer_deinit(&connection->peer);
	list_remove(&connection->link);
	free(connection);
	broker->n_connections--;
	idle_check(broker);
	return NULL;
}
