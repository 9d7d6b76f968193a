/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_CHANNEL_H
#define SHMB_LIB_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/cell.h>
#include <shmbroker/schema.h>

#include "lib/client.h"

/**
 * struct shmb_channel - see shmbroker.h
 * @resumable:	    in the client's list
 * @client:	    that opened it
 * @map:	    holds @segment
 * @segment:	    the broker's words, read-only
 * @id:		    of the channel
 * @pattern:	    SHMB_PATTERN_*
 * @lane_len:	    bytes of a ring or of all cells, from the broker's answer
 * @max_keys:	    of a state channel, from the broker's answer
 * @max_publishers: limit, from the broker's answer
 * @max_subscribers: limit, from the broker's answer
 * @history:	    records of each publisher that a late subscriber gets, from the broker's answer
 * @blocks:	    for long records, from the broker's answer
 * @ttl_ms:	    of records, from the broker's answer; 0: they do not expire
 * @ordered:	    its records have one order, from the broker's answer
 * @max_fds:	    so many fds may a record carry, from the broker's answer
 * @ext_len:	    bytes that come before the payload of each record
 * @record_len:	    of every record; 0: untyped
 * @request_len:    call: of every request; 0: untyped
 * @reply_len:	    call: of every reply; 0: untyped
 * @schema_len:	    bytes of @schema
 * @schema:	    the channel's, copied and checked
 * @n_members:	    open publishers and subscribers
 * @name_len:	    bytes of @name
 * @name:	    of the channel
 */
struct shmb_channel {
	struct shmb_resumable resumable;
	struct shmb_client *client;
	struct shmb_map map;
	const struct shmb_channel_segment *segment;
	uint64_t id;
	uint32_t pattern;
	uint32_t lane_len;
	uint32_t max_keys;
	uint32_t max_publishers;
	uint32_t max_subscribers;
	uint32_t history;
	struct shmb_block_limits blocks;
	uint32_t ttl_ms;
	bool ordered;
	uint32_t max_fds;
	uint32_t ext_len;
	uint32_t record_len;
	uint32_t request_len;
	uint32_t reply_len;
	uint32_t schema_len;
	uint8_t *schema;
	uint32_t n_members;
	uint32_t name_len;
	char name[SHMB_NAME_LEN_MAX];
};

/* Bytes of a cell of a state channel. */
static inline uint32_t shmb_channel_cell_len(const struct shmb_channel *channel)
{
	return channel->lane_len / channel->max_keys;
}

/* The directory of a state channel, max_keys entries. */
static inline const struct shmb_state_key *shmb_channel_keys(const struct shmb_channel *channel)
{
	const uint8_t *base = (const uint8_t *)channel->segment;

	base += shmb_state_keys_offset(channel->schema_len);
	return (const struct shmb_state_key *)(const void *)base;
}

/* The cells of those who have gone, max_keys of them. */
static inline const uint8_t *shmb_channel_cells(const struct shmb_channel *channel)
{
	return (const uint8_t *)(shmb_channel_keys(channel) + channel->max_keys);
}

#endif
