/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_CLIENT_INTERNAL_H
#define SHMB_LIB_CLIENT_INTERNAL_H

/*
 * What the files of a client do for each other, and for nobody else. All with the client locked, or not
 * open yet.
 */

#include <stdbool.h>
#include <stdint.h>

#include "lib/client.h"

#define CLIENT_RETRY_MIN_NS	1000000ull
#define CLIENT_RECEIVE_SLICE_NS 20000000ull

/* ---- client-hear.c ----------------------------------------------------------------------------- */

/* Has the broker a successor, and has not said its last word? Nothing that it says counts. */
bool shmb_client_is_replaced(const struct shmb_client *client);

/*
 * As shmb_connection_receive(), with an eye on who the broker is, and on what was lost.
 * -ENOTCONN: it was replaced, or has died.
 */
int shmb_client_receive(struct shmb_client *client, struct shmb_received *received,
			uint64_t deadline_ns);

/*
 * Take in one message, if one has come: an event, or an answer that nobody waits for. @received is room
 * for it; nothing is left there. Returns as shmb_client_receive().
 */
int shmb_client_take_one(struct shmb_client *client, struct shmb_received *received,
			 uint64_t deadline_ns);

/* ---- client-request.c -------------------------------------------------------------------------- */

/* Takes an answer that nobody waits for, and gives back what it brings. */
void shmb_client_take_late(struct shmb_client *client, struct shmb_received *received);

/* shmb_client_request() on a connection that works: it is not made again. */
int shmb_client_round_trip(struct shmb_client *client, uint32_t type, const void *body,
			   uint32_t body_len, uint32_t reply_type, uint32_t reply_len,
			   struct shmb_received *received);

/* ---- client-connect.c -------------------------------------------------------------------------- */

/*
 * Connect and join. 0: then shmb_client.stale says that the broker has forgotten us; else why not, with a
 * sentence. -ETIMEDOUT: the attempt may be pending, and the next call goes on with it.
 */
int shmb_client_connect_once(struct shmb_client *client, uint64_t deadline_ns);

/* The same, starting the user's broker if there is none and it may be started. */
int shmb_client_connect_or_start(struct shmb_client *client, uint64_t deadline_ns);

/* The same for a client that is being opened: a broker that dies meanwhile is waited for. */
int shmb_client_connect_first(struct shmb_client *client);

/* ---- client-resume.c --------------------------------------------------------------------------- */

/*
 * Come back after the connection has ended, if it is time to try. -ENOTCONN: there is no broker now;
 * -ESTALE: the broker has forgotten us.
 */
int shmb_client_reconnect(struct shmb_client *client);

/* Says once more what was closed and the broker has not answered. */
void shmb_client_say_farewells(struct shmb_client *client);

#endif
