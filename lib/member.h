/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_MEMBER_H
#define SHMB_LIB_MEMBER_H

/*
 * What publishers and subscribers have in common: being a member of a channel, hearing of peers
 * that come and go, and sleeping on an fd.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/ring.h>

#include "lib/api.h"
#include "lib/channel.h"
#include "lib/ringer.h"

/**
 * struct shmb_doorbell - an fd this member can be woken by
 * @fd:		fd
 * @kind:	SHMB_FD_EVENTFD or SHMB_FD_SOCKET
 * @generation: grows with each new one, of the member or of the pair
 * @pair_id:	of a doorbell that only one pair uses, else 0
 */
struct shmb_doorbell {
	int fd;
	uint32_t kind;
	uint32_t generation;
	uint64_t pair_id;
};

/**
 * struct shmb_member - base of struct shmb_publisher and struct shmb_subscriber
 * @resumable:	    in the client's list
 * @inbox:	    of its events
 * @client:	    of the channel
 * @channel:	    it is a member of
 * @fork_guard:	    1 in the process that made it
 * @epoch:	    the channel's epoch word
 * @seen_epoch:	    up to which the inbox has been emptied
 * @seen_wake:	    of the broker's bell, before the inbox was last emptied
 * @id:		    as the broker calls it
 * @role:	    SHMB_ROLE_*
 * @flags:	    SHMB_MEMBER_*
 * @history:	    subscriber: how many earlier records it wants of each publisher
 * @partner_id:	    publisher: the one subscriber that reads its lane; 0: all of the channel
 * @reply_to:	    publisher with a partner: our subscriber that waits for the answers
 * @evict_after_ms: subscriber: how long it may hold a publisher up without moving; 0: for ever
 * @slot:	    in the channel
 * @own:	    the segment it writes
 * @own_id:	    of that segment
 * @move:	    the broker's GRANT of another segment, to be moved to; NULL: none
 * @next:	    that segment, once it is mapped
 * @next_id:	    of that segment
 * @asked:	    the broker was asked to tell the peers of it
 * @answered:	    and has said that it does
 * @staged:	    PAIR events for that segment
 * @pinned:	    must not move now
 * @evicted:	    the broker has thrown it out
 * @changes:	    counts peers that came or went
 * @noted_epoch:    of whoever acts on that by itself: the epoch when it last did
 * @noted_changes:  and @changes
 * @doorbells:	    fds it can be woken by
 * @n_doorbells:    of @doorbells
 * @doorbell_changes: counts changes of @doorbells
 * @epoll_fd:	    sleeps on the doorbells and the control socket; -1 until needed
 * @watch_error:    why not all of that is in there; 0: it is
 * @epoll_connections: which connection's socket is in there
 * @on_pair:	    a peer came, or its ringer changed
 * @on_unpair:	    a peer went
 * @on_arena:	    a publisher has one more arena; may be NULL
 * @on_doorbell:    there is a new doorbell, and it is polled; may be NULL
 * @on_granted:	    a segment to move to is mapped, at @to: fill what the peers see as soon as they are
 *		    told of it; may be NULL
 * @on_prepare:	    the member is about to move: fill what it moves to. 0 or -ENOMEM
 * @knows:	    is there a pair with this peer? NULL: a pair that was staged does no harm to it
 * @is_complete:    do these PAIR events for the segment that it moves to replace all pairs that matter?
 * @on_move:	    go on in @own, which is another one now; @before is the caller's; the peers will
 *		    hear of it with a PAIR that replaces theirs
 */
struct shmb_member {
	struct shmb_resumable resumable;
	struct shmb_inbox inbox;
	struct shmb_client *client;
	struct shmb_channel *channel;
	const uint8_t *fork_guard;
	const uint64_t *epoch;
	uint64_t seen_epoch;
	uint32_t seen_wake;
	uint64_t id;
	uint32_t role;
	uint32_t flags;
	uint32_t history;
	uint64_t partner_id;
	uint64_t reply_to;
	uint32_t evict_after_ms;
	uint32_t slot;
	struct shmb_map own;
	uint64_t own_id;
	struct shmb_event *move;
	struct shmb_map next;
	uint64_t next_id;
	bool asked;
	bool answered;
	struct shmb_event *staged;
	bool pinned;
	bool evicted;
	uint32_t changes;
	uint64_t noted_epoch;
	uint32_t noted_changes;
	struct shmb_doorbell *doorbells;
	uint32_t n_doorbells;
	uint32_t doorbell_changes;
	int epoll_fd;
	int watch_error;
	uint32_t epoll_connections;
	int (*on_pair)(struct shmb_member *member, struct shmb_event *event);
	void (*on_unpair)(struct shmb_member *member, const struct shmb_msg_unpair *unpair);
	int (*on_arena)(struct shmb_member *member, struct shmb_event *event);
	void (*on_doorbell)(struct shmb_member *member);
	void (*on_granted)(struct shmb_member *member, void *to);
	int (*on_prepare)(struct shmb_member *member, void *to);
	bool (*knows)(struct shmb_member *member, uint64_t peer_id);
	bool (*is_complete)(const struct shmb_member *member, const struct shmb_event *staged);
	void (*on_move)(struct shmb_member *member, struct shmb_map *before);
};

/**
 * shmb_member_open() - become a member
 * @member:  role, flags and callbacks are set, the rest is zero; filled
 * @channel: channel
 * @prepare: called when the member's own segment is mapped and nobody else knows it yet
 *
 * Return: 0; as of shmb_publisher_open(); nothing is left on failure.
 */
int shmb_member_open(struct shmb_member *member, struct shmb_channel *channel,
		     void (*prepare)(struct shmb_member *member));

/* Leaves the channel; the callbacks are not called any more. */
void shmb_member_close(struct shmb_member *member);

/**
 * shmb_member_sync() - take in what the broker has said since
 * @member: member
 *
 * The member may have another segment afterwards.
 *
 * Context: the thread that uses the member; may block while another thread talks to the broker.
 */
void shmb_member_sync(struct shmb_member *member);

/* Has the broker said something that the member has not taken in? Any word of it will do. */
static inline bool shmb_member_has_news(const struct shmb_member *member)
{
	return SHMB_LOAD(&member->inbox.first) != NULL ||
	       SHMB_LOAD(&member->client->bell->wake) != member->seen_wake;
}

/* Tell the broker that the peer of a pair broke the layout. */
void shmb_member_report(struct shmb_member *member, uint64_t pair_id, uint32_t reason);

/* Tell the broker that the subscriber of a pair is not waited for any more. */
void shmb_member_overtakes(struct shmb_member *member, uint64_t pair_id);
/* Tell the broker that a lane which it keeps has been read to its end. */
void shmb_member_drained(struct shmb_member *member, uint64_t pair_id);

/* The fd to sleep on. Returns it, or a negative errno value. */
int shmb_member_epoll(struct shmb_member *member);

/*
 * The same for who does not sleep in this library: also what another thread has heard of the broker for
 * this member makes it readable.
 */
int shmb_member_poll_fd(struct shmb_member *member);

/**
 * shmb_member_sleep() - sleep until a doorbell rings, the broker speaks, or the deadline
 * @member:	 armed
 * @deadline_ns: when to wake up anyway
 *
 * Consumes the wake-up. Return: 1: woken, or it was time to look for a broker; 0: deadline.
 */
int shmb_member_sleep(struct shmb_member *member, uint64_t deadline_ns);

/* Take the wake-ups that have come, or the fd would stay readable. Returns as shmb_member_sleep(). */
static inline int shmb_member_take_wakes(struct shmb_member *member)
{
	return shmb_member_sleep(member, 0);
}

/* Empty the doorbells that need it (sockets). */
void shmb_member_drain_doorbells(struct shmb_member *member);

/* Close own doorbells older than @oldest, but for the newest. */
void shmb_member_retire_doorbells(struct shmb_member *member, uint32_t oldest);

/* Close the doorbells that only this pair has rung. */
void shmb_member_drop_doorbells(struct shmb_member *member, uint64_t pair_id);

/* The newest of the member's own doorbells. */
uint32_t shmb_member_doorbell_generation(const struct shmb_member *member);

/**
 * shmb_member_settle_sockets() - forget the sockets of earlier brokers
 * @member:	member
 * @ringer:	of a pair with sockets of its own
 * @pair_id:	of that pair
 * @generation: the newest that the peer says it has got
 *
 * Ringer and doorbell of one generation come together. A peer that has those of @generation listens
 * to it and rings it; if we have them too, older ones are of no use. If we do not, one of the older
 * ones may be all that we have in common.
 * Return: the newest that we have got.
 */
uint32_t shmb_member_settle_sockets(struct shmb_member *member, struct shmb_ringer *ringer,
				    uint64_t pair_id, uint32_t generation);

/*
 * May the handle be used, and is it up to date? Hot: two loads of lines that rarely change.
 * The sentence of a failure is set.
 */
int shmb_member_enter_slow(struct shmb_member *member);

static inline bool shmb_member_is_settled(const struct shmb_member *member)
{
	/*
	 * Q: pairs with the broker's release of the epoch in channel_changed(): relaxed is
	 * enough here, since the slow path loads it again with acquire before it uses anything.
	 */
	return SHMB_LOAD(member->fork_guard) && SHMB_LOAD(member->epoch) == member->seen_epoch &&
	       !member->evicted;
}

/* Has anything been heard of the channel's members that was not noted? */
static inline bool shmb_member_is_news(const struct shmb_member *member)
{
	/* A child has no mappings, and is told so. */
	return !SHMB_LOAD(member->fork_guard) || SHMB_LOAD(member->epoch) != member->noted_epoch ||
	       member->changes != member->noted_changes;
}

static inline int shmb_member_enter(struct shmb_member *member)
{
	return shmb_likely(shmb_member_is_settled(member)) ? 0 : shmb_member_enter_slow(member);
}

#endif
