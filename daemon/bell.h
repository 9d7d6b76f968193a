/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_BELL_H
#define SHMB_DAEMON_BELL_H

/* The bell of each client, which the broker rings when it has sent something. */

#include "daemon/model.h"

/* Wakes those threads of the client that sleep on its bell. */
void bell_ring(struct client *client);

/* Does the broker owe the client messages that are not in its socket yet? */
void bell_set_backlog(struct client *client, bool backlog);

/* Says whose connection counts. */
void bell_set_epoch(struct client *client);

#endif
