/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_CLIENT_H
#define SHMB_DAEMON_CLIENT_H

#include "daemon/model.h"

/**
 * client_new() - a connection joins
 * @connection: its handshake is done
 * @token:	stores the token with which the client may come back
 * @ret_client: stores the client
 *
 * Return: 0; -EDQUOT; -ENOSPC; -ENOMEM; -EMFILE; another negative errno value.
 */
int client_new(struct connection *connection, uint8_t token[SHMB_TOKEN_LEN],
	       struct client **ret_client);

/**
 * client_rejoin() - a connection says that it is a client that was here before
 * @connection: its handshake is done
 * @id:		of that client
 * @token:	its token
 *
 * An older connection of that client is closed.
 *
 * Return: the client; NULL: it is not known, or this is not it.
 */
struct client *client_rejoin(struct connection *connection, uint64_t id,
			     const uint8_t token[SHMB_TOKEN_LEN]);

/* Takes over what an earlier broker has noted, if its process lives. */
int client_adopt(struct broker *broker, const struct shmb_registry_entry *entry, uint32_t slot);

/* Its connection is gone, its process perhaps not. */
void client_disconnected(struct client *client);

/* Something it had is gone: is it away and without members? */
void client_check_away(struct client *client);

/* Forgets a client with all it has: it is dead, or nothing is left of it. */
void client_free(struct client *client);

/* Is there a client that is not only kept for what it has left? */
bool client_any_alive(const struct broker *broker);

#endif
