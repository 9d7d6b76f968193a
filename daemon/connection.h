/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_CONNECTION_H
#define SHMB_DAEMON_CONNECTION_H

/*
 * A control connection up to the point where messages come out of it: credentials, handshake,
 * deadlines. Until the handshake is done nothing but the handshake is ever answered.
 */

#include "daemon/model.h"
#include "daemon/parcel.h"

/**
 * struct connection_events - what the owner of connections is told
 * @message: an authentic message; @connection may be closed in here
 * @writable: everything sent so far is in the client's socket
 * @gone:    the client has closed it, or broke the protocol; connection_close() it
 */
struct connection_events {
	void (*message)(struct connection *connection, const struct shmb_message *message);
	void (*writable)(struct connection *connection);
	void (*gone)(struct connection *connection);
};

/**
 * connection_accept() - begin with a new connection, or close it if it may not be
 * @broker: broker
 * @fd:	    socket; taken over
 * @events: for the owner
 */
void connection_accept(struct broker *broker, int fd, const struct connection_events *events);

/**
 * connection_send() - send one message
 * @connection: joined, or about to be
 * @type:	SHMB_MSG_*
 * @request_id: of the request that this answers, else 0
 * @body:	@body_len bytes
 * @body_len:	bytes
 * @parcel:	fds, or NULL
 *
 * Return: 0; a negative errno value: nothing was sent, and it may be tried again.
 */
int connection_send(struct connection *connection, uint32_t type, uint32_t request_id,
		    const void *body, uint32_t body_len, const struct parcel *parcel);

/* It has joined: no deadline any more. */
void connection_joined(struct connection *connection, struct client *client);

/* Makes the connection end soon, from where it cannot be closed at once. */
void connection_abort(struct connection *connection);

/* Frees it; its client, if any, is the caller's business. Returns NULL. */
struct connection *connection_close(struct connection *connection);

#endif
