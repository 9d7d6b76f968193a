/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_VIEW_H
#define SHMB_DAEMON_VIEW_H

/*
 * What clients are told: not a queue of events, but the difference between what is and what they
 * know, made into messages when their socket can take them. What came and went meanwhile is never
 * mentioned, and a client that does not read costs no more memory than there are pairs.
 */

#include "daemon/model.h"

/* A view of a pair (or of an eviction: @pair NULL). NULL: no memory. */
struct view *view_new(struct client *client, struct pair *pair, uint64_t pair_id,
		      uint64_t member_id);

/* Frees it, also while something was to be told. */
void view_free(struct view *view);

/* There is something new: the client is to be told when view_flush() can. */
void view_mark(struct view *view);

/* The next arena that the client has to be told of, once it knows the pair; NULL: none. */
struct arena *view_next_arena(const struct view *view);

/* There is nothing to be told after all. */
void view_unmark(struct view *view);

/**
 * view_gone() - the pair is gone (or: the member was evicted)
 * @view:    the view; not the caller's any more
 * @present: the client knows the member, so that it has to be told if it knew the pair
 * @reason:  SHMB_GONE_*
 */
void view_gone(struct view *view, bool present, uint32_t reason);

/* Tells the client of a pair it believes in that does not exist. Returns 0 or -ENOMEM. */
int view_deny(struct client *client, uint64_t pair_id, uint64_t member_id);

/* Forgets what view_deny() has left to be told about a member: a newer list replaces it. */
void view_drop_denials(struct client *client, uint64_t member_id);

/**
 * view_flush() - tell a client as much as its socket takes
 * @client: client
 * @sent:   something was sent to it already, or has just reached its socket
 *
 * Afterwards all it has to know is in its socket, or the bell says that there is more.
 */
void view_flush(struct client *client, bool sent);

/* Whoever publishes or receives there next looks at its socket first. */
void view_move_epoch(struct channel *channel);

/* The client's connection is gone, and with it all that it has been told or was to be. */
void view_forget(struct client *client);

#endif
