/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_INBOX_H
#define SHMB_LIB_INBOX_H

/*
 * Events, and where they lie until the member that they are for takes them: its thread does that when it
 * sees that the channel's epoch has moved.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/protocol.h>

#include "lib/connection.h"

struct shmb_client;

/**
 * struct shmb_event - something the broker told one member
 * @next:	 in the inbox
 * @type:	 SHMB_MSG_PAIR, _UNPAIR, _ARENA, _EVICTED or _GRANT (a new doorbell after a restart)
 * @pair:	 of a PAIR
 * @peer:	 of a PAIR of a private lane, else zeroes
 * @unpair:	 of an UNPAIR
 * @arena:	 of an ARENA
 * @generation:	 of a GRANT's doorbell
 * @connection:	 over which it came, as in shmb_client.connections
 * @is_first:	 the first that is said of its pair
 * @n_fds:	 of @fds
 * @fds:	 that came with it; taken ones are set to -1
 * @descriptors: of @fds
 */
struct shmb_event {
	struct shmb_event *next;
	uint32_t type;
	struct shmb_msg_pair pair;
	struct shmb_msg_pair_private peer;
	struct shmb_msg_unpair unpair;
	struct shmb_msg_arena arena;
	uint32_t generation;
	uint32_t connection;
	bool is_first;
	uint32_t n_fds;
	int fds[SHMB_PACKET_FDS_MAX];
	struct shmb_fd_descriptor descriptors[SHMB_PACKET_FDS_MAX];
};

/* A pair, and the member at its other end. */
struct shmb_known_pair {
	uint64_t id;
	uint64_t peer_id;
};

/**
 * struct shmb_inbox - what the broker has said to one member; client locked
 * @next:	in the client's list
 * @member_id:	whose it is
 * @first:	oldest event
 * @end:	where the next one goes
 * @pairs:	pairs that the member knows or will know when it has emptied the inbox
 * @n_pairs:	of @pairs
 * @cap_pairs:	room in @pairs
 * @wake_fd:	eventfd for a member whose event loop has to know of events; -1: none
 */
struct shmb_inbox {
	struct shmb_inbox *next;
	uint64_t member_id;
	struct shmb_event *first;
	struct shmb_event **end;
	struct shmb_known_pair *pairs;
	uint32_t n_pairs;
	uint32_t cap_pairs;
	int wake_fd;
};

/* Begin and end to receive events for a member. Client locked. */
void shmb_inbox_add(struct shmb_client *client, struct shmb_inbox *inbox, uint64_t member_id);
void shmb_inbox_remove(struct shmb_client *client, struct shmb_inbox *inbox);

/* Adds an event and remembers its pair. Returns 0 or -ENOMEM, then the event stays the caller's. */
int shmb_inbox_put(struct shmb_inbox *inbox, struct shmb_event *event);

/* Makes an event of what was received, taking over its fds. NULL: no memory. */
struct shmb_event *shmb_event_new(struct shmb_received *received);

/* The member has done with a pair. Client locked. */
void shmb_inbox_forget(struct shmb_inbox *inbox, uint64_t pair_id);

/* Takes all events out of an inbox, oldest first. Client locked. */
struct shmb_event *shmb_inbox_take(struct shmb_inbox *inbox);

/* Takes the fd of a role out of an event. Returns its index in the event, or -1. */
int shmb_event_find(const struct shmb_event *event, uint16_t role);

/* Frees an event and closes the fds that nobody took. NULL is allowed. */
void shmb_event_free(struct shmb_event *event);

/* Puts an event where its member will find it. Client locked. Returns 0 or -ENOMEM, with a sentence. */
int shmb_inbox_deliver(struct shmb_client *client, struct shmb_received *received);

#endif
