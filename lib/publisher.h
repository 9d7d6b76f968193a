/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_PUBLISHER_H
#define SHMB_LIB_PUBLISHER_H

/* What putting values, and calls, need of publishers. */

#include <shmbroker/shmbroker.h>

#include "lib/member.h"

struct shmb_state_writer;

/*
 * What a publisher of a state channel has instead of a ring, see state.c; free() frees it. The member
 * need only know its channel. Returns NULL without memory.
 */
struct shmb_state_writer *shmb_state_writer_new(struct shmb_member *member);

/* Its cells; NULL: the channel is no state channel, or @publisher is NULL. */
struct shmb_state_writer *shmb_publisher_state(struct shmb_publisher *publisher);

/* Counts a value that was put, and wakes who sleeps. */
void shmb_publisher_changed(struct shmb_publisher *publisher);

/**
 * shmb_publisher_open_private() - open the end of a private lane
 * @channel:	   call channel
 * @flags:	   SHMB_PUBLISHER_TRUSTING or 0
 * @partner_id:	   the one subscriber that reads it
 * @reply_to:	   our subscriber that waits for the answers
 * @ret_publisher: stores the publisher
 *
 * Return: as shmb_publisher_open(); -ESTALE: the partner has gone.
 */
int shmb_publisher_open_private(struct shmb_channel *channel, uint32_t flags, uint64_t partner_id,
				uint64_t reply_to, struct shmb_publisher **ret_publisher);

/*
 * shmb_publisher_send_typed() of a record that begins with @head. Returns as that does, if @data is
 * NULL only for @len 0.
 */
int32_t shmb_publisher_send_headed(struct shmb_publisher *publisher, uint64_t head,
				   const void *data, uint32_t len, uint32_t type);

/*
 * Publishes what shmb_publisher_loan() has lent of a private lane, @len bytes of it at most, as a record
 * that begins with @head. Returns 0; -ESTALE: the publisher has been thrown out, the loan stays.
 */
int32_t shmb_publisher_publish_headed(struct shmb_publisher *publisher, uint64_t head, uint32_t len,
				      uint32_t type);

/* Takes in news. Returns 0, -ESTALE or -ECHILD. */
int shmb_publisher_sync(struct shmb_publisher *publisher);

/* Subscribers that it served when it last took in news. */
uint32_t shmb_publisher_n_pairs(const struct shmb_publisher *publisher);

#endif
