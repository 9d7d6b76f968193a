/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_CLIENT_H
#define SHMB_LIB_CLIENT_H

/*
 * The control side of a process: one connection, shared by all its handles under one lock. Events
 * that come in are put into the inbox of the member they are for: see inbox.h.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/shmbroker.h>

#include "lib/connection.h"
#include "lib/inbox.h"
#include "lib/map.h"

/**
 * struct shmb_resumable - what must be asked for again after a broker restart
 * @next:   in the client's list, in the order of opening
 * @channel_id: of a channel; 0: a member
 * @resume: returns 0; -ESTALE: the broker has forgotten it. Client locked
 */
struct shmb_resumable {
	struct shmb_resumable *next;
	uint64_t channel_id;
	int (*resume)(struct shmb_resumable *resumable);
};

/* A DETACH or CLOSE that the broker has not answered yet. */
struct shmb_farewell {
	uint32_t type;
	uint32_t request_id;
	struct shmb_msg_id body;
};

/**
 * struct shmb_client - see shmbroker.h
 * @lock:	    guards everything below; the bell is read without it
 * @fork_guard:	    1 in the process that made it
 * @connection:	    to the broker
 * @connected:	    @connection works
 * @pending:	    @connection waits for the broker's first answer
 * @connections:    how many there have been: whoever polls the socket compares
 * @retry_at_ns:    no new attempt to connect before
 * @fd_shortages:   how often something of the broker's could not come for want of an fd
 * @tried_wake:	    of the bell, at the last attempt
 * @retry_delay_ns: doubles with each failure
 * @next_request_id: of the next request
 * @farewells:	    what was closed and may have to be told once more, to the next broker
 * @n_farewells:    of them
 * @resuming:	    a reconnection is under way
 * @overdue:	    what the broker owes was waited for in vain: it may be stopped
 * @overdue_wake:   of the bell, then
 * @stale:	    the broker has forgotten us: the handles are of no more use
 * @id:		    as the broker calls us
 * @instance:	    of the broker
 * @broker_epoch:   of the broker we are connected to
 * @token:	    proves that it is us when we come back
 * @bell_map:	    holds @bell
 * @bell:	    the broker's bell, read-only
 * @resumables:	    open channels, publishers and subscribers
 * @inboxes:	    of the publishers and subscribers
 * @n_children:	    open channels and wait sets
 * @keypair:	    ours
 * @flags:	    SHMB_CLIENT_*
 * @start:	    may start the user's broker
 * @timeout_ns:	    for connecting and for requests
 * @address:	    of the socket
 * @broker_key_file: public key of the broker
 * @label:	    for display
 */
struct shmb_client {
	pthread_mutex_t lock;
	const uint8_t *fork_guard;
	struct shmb_connection connection;
	bool connected;
	bool pending;
	uint32_t connections;
	uint64_t retry_at_ns;
	uint64_t fd_shortages;
	uint32_t tried_wake;
	uint64_t retry_delay_ns;
	uint32_t next_request_id;
	struct shmb_farewell *farewells;
	uint32_t n_farewells;
	bool resuming;
	bool overdue;
	uint32_t overdue_wake;
	bool stale;
	uint64_t id;
	uint64_t instance;
	uint64_t broker_epoch;
	uint8_t token[SHMB_TOKEN_LEN];
	struct shmb_map bell_map;
	const struct shmb_bell_segment *bell;
	struct shmb_resumable *resumables;
	struct shmb_inbox *inboxes;
	uint32_t n_children;
	struct shmb_noise_keypair keypair;
	uint32_t flags;
	bool start;
	int64_t timeout_ns;
	char address[108];
	char broker_key_file[4096];
	char label[SHMB_LABEL_LEN_MAX + 1];
};

/**
 * shmb_client_request() - one round trip to the broker
 * @client:	client, locked
 * @type:	SHMB_MSG_* of the request
 * @body:	@body_len bytes
 * @body_len:	bytes
 * @reply_type: SHMB_MSG_* that is expected
 * @reply_len:	bytes of body that it must have at least
 * @received:	filled; deinit it before the next receive
 *
 * Return: 0; -ENOTCONN: no broker now, ask again later; else the broker's refusal; each with a
 *	   sentence.
 */
int shmb_client_request(struct shmb_client *client, uint32_t type, const void *body,
			uint32_t body_len, uint32_t reply_type, uint32_t reply_len,
			struct shmb_received *received);

/* The same for requests whose reply says nothing. */
int shmb_client_request_ok(struct shmb_client *client, uint32_t type, const void *body,
			   uint32_t body_len);

/* Tell the broker something without waiting for its reply, if there is a broker. Locked. */
void shmb_client_tell(struct shmb_client *client, uint32_t type, const void *body,
		      uint32_t body_len);

/* Gives up the connection: who needs the broker reconnects. Locked. */
void shmb_client_hang_up(struct shmb_client *client);

/* Tells the broker that a member or channel is closed, and the next one if it does not answer. */
void shmb_client_farewell(struct shmb_client *client, uint32_t type, uint64_t id);

/**
 * shmb_client_drain() - take in all that the broker has sent
 * @client: client, locked
 *
 * Reads until the socket is empty and the bell says that the broker owes nothing more, or says for too
 * long that it does: then shmb_client.overdue is set. Reconnects if the connection has ended and it is
 * time for an attempt.
 *
 * Return: 0; -ENOTCONN: there is no broker now (what had come was taken in).
 */
int shmb_client_drain(struct shmb_client *client);

/* Open and close what is resumed after a restart. Client locked. */
void shmb_client_add(struct shmb_client *client, struct shmb_resumable *resumable);
void shmb_client_remove(struct shmb_client *client, struct shmb_resumable *resumable);

/* When to try to reconnect: UINT64_MAX while connected. Any thread, unlocked. */
uint64_t shmb_client_retry_at_ns(struct shmb_client *client);

/* For whoever waits in vain: compared before and after, they say that it may be for want of an fd. */
uint64_t shmb_client_fd_shortages(struct shmb_client *client);

#endif
