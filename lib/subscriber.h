/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_SUBSCRIBER_H
#define SHMB_LIB_SUBSCRIBER_H

/* What wait sets need of subscribers. */

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
