/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_SUBSCRIBER_H
#define SHMB_LIB_SUBSCRIBER_H

/* What wait sets need of subscribers. */

#include <shmbroker/shmbroker.h>

#include "lib/member.h"

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
