/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_SUBSCRIBER_H
#define SHMB_LIB_SUBSCRIBER_H

/* What wait sets, and calls, need of subscribers. */

#include <shmbroker/shmbroker.h>

#include "lib/member.h"

struct shmb_state_reader;

/* What a subscriber of a state channel has instead of records to read, see state.c. */
struct shmb_state_reader *shmb_state_reader_new(struct shmb_subscriber *subscriber);

struct shmb_state_reader *shmb_state_reader_free(struct shmb_state_reader *reader);

/* Has a key changed, or the one that is waited for? The member is up to date. Returns 1, 0 or an error. */
int shmb_state_reader_ready(struct shmb_state_reader *reader);

/* Its keys; NULL: the channel is no state channel, or @subscriber is NULL. */
struct shmb_state_reader *shmb_subscriber_state(struct shmb_subscriber *subscriber);

uint32_t shmb_subscriber_n_lanes(const struct shmb_subscriber *subscriber);

/*
 * The segment of a publisher; NULL: it has left it, or has gone. A publisher that is @ret_moving may
 * have several. Attaches it if that can be done.
 */
const struct shmb_lane_segment *shmb_subscriber_lane(struct shmb_subscriber *subscriber,
						     uint32_t index, uint64_t *ret_publisher_id,
						     bool *ret_moving);

/* Has a publisher left a segment that we have still mapped? */
bool shmb_subscriber_any_left(const struct shmb_subscriber *subscriber);

/* Unmaps what shmb_subscriber_lane() has found left. Returns whether there was anything. */
bool shmb_subscriber_forget_left(struct shmb_subscriber *subscriber);

/**
 * struct shmb_peer - whose private lane it is
 * @reply_to: its subscriber that waits for answers
 * @uid:      user
 * @pid:      process
 * @gone:     it has gone; what it has left in the lane can still be read
 * @held:     of whoever looks: nothing is to be read from it for now
 * @link:     of whoever looks, NULL at first
 */
struct shmb_peer {
	uint64_t reply_to;
	uint32_t uid;
	uint32_t pid;
	bool gone;
	bool held;
	void *link;
};

/* shmb_subscriber_open() for private lanes, SHMB_MEMBER_SERVER or 0. @options are only spin_ns and flags. */
int shmb_subscriber_open_private(struct shmb_channel *channel,
				 const struct shmb_subscriber_options *options, uint32_t flags,
				 struct shmb_subscriber **ret_subscriber);

/* Those whose lanes it reads: of as many as shmb_subscriber_n_lanes(); NULL: it is not read any more. */
struct shmb_peer *shmb_subscriber_peer(struct shmb_subscriber *subscriber, uint32_t index);

/* Looks at none of its lanes' records, or does again. @peer is one of them. */
void shmb_subscriber_hold_back(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			       bool held);

/*
 * Takes in what there is, and regards it as noted. While shmb_member_is_news() nobody sleeps. Returns 0
 * or -ECHILD.
 */
int shmb_subscriber_note(struct shmb_subscriber *subscriber);

/**
 * shmb_subscriber_look() - look at the next record where it lies
 * @subscriber: for private lanes
 * @record:	filled; its payload is what comes behind the word
 * @ret_head:	stores the word that the record begins with
 * @ret_peer:	stores whose it is
 *
 * Load each of its bytes once. Until shmb_subscriber_pass() or _keep() the subscriber is not used
 * otherwise, or the record is looked at anew. One that is too short to begin with a word has the type
 * SHMB_TYPE_HEADLESS.
 *
 * Return: 1; 0: there is none; -ESTALE: the broker has thrown the subscriber out; -ECHILD.
 */
int shmb_subscriber_look(struct shmb_subscriber *subscriber, struct shmb_record *record,
			 uint64_t *ret_head, struct shmb_peer **ret_peer);

#define SHMB_TYPE_HEADLESS 0xffffu

/* Be done with the record. Returns false if it was overwritten meanwhile: what was read is void. */
bool shmb_subscriber_pass(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			  const struct shmb_record *record);

/**
 * shmb_subscriber_keep() - be done with the record, and hold it
 * @subscriber: for private lanes; shmb_subscriber_may_keep()
 * @peer:	whose it is
 * @record:	as it was looked at
 * @ret_data:	stores where its payload is: where it lies if that is a block, else in a copy
 *
 * Return: the hold, for shmb_subscriber_unhold(); -ESTALE: it was overwritten meanwhile; -ENOMEM: the
 *	   record is still the next one.
 */
int32_t shmb_subscriber_keep(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			     const struct shmb_record *record, const void **ret_data);

/* May one record more be held? */
bool shmb_subscriber_may_keep(const struct shmb_subscriber *subscriber);

/* The same for a copy that was made before, which free() will free. */
int32_t shmb_subscriber_adopt(struct shmb_subscriber *subscriber, void *memory);

/* What was waited for was there at once: polling is worth it. */
void shmb_subscriber_count_quick(struct shmb_subscriber *subscriber);

/* Does it poll before it sleeps? */
bool shmb_subscriber_spins(const struct shmb_subscriber *subscriber);

/* The peer broke the rules: it is not read any more, and the broker is told. @rule 0: we cannot serve it. */
void shmb_subscriber_accuse(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			    uint32_t rule);

/* The member inside. */
struct shmb_member *shmb_subscriber_member(struct shmb_subscriber *subscriber);

/* Is there something to receive? Takes in news of peers first. Returns 1, 0, or an error. */
int shmb_subscriber_ready(struct shmb_subscriber *subscriber);

/*
 * Announce that the subscriber sleeps on its doorbell fds. Returns 1: it must not, there is
 * something; 0: it may; or an error.
 */
int shmb_subscriber_arm_fd(struct shmb_subscriber *subscriber);

/* It is awake again: nobody needs to ring. */
void shmb_subscriber_disarm(struct shmb_subscriber *subscriber);

/* A bounded sleep ended by itself and there was something: a wake-up was lost. */
void shmb_subscriber_count_backstop(struct shmb_subscriber *subscriber);

/* Enters or leaves a wait set. Returns 0 or -EEXIST. */
int shmb_subscriber_set_waitset(struct shmb_subscriber *subscriber, void *waitset);

#endif
