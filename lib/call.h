/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_CALL_H
#define SHMB_LIB_CALL_H

/* The words of calls: what comes before the payload of a record, and the channel's servers. */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <shmbroker/ring.h>

#define SHMB_CALL_LANE_LEN_DEFAULT (1u << 18) /* there are two for each caller of each server */
#define SHMB_CALL_LANES_DEFAULT	   1024u
#define SHMB_CALL_MEMBERS_DEFAULT  256u

/* What a failure takes at most. It always lies in the lane. */
#define SHMB_CALL_FAILURE_LEN_MAX (SHMB_CALL_TEXT_LEN_MAX + 4u)

/* The longest request or reply. */
static inline uint32_t shmb_call_len_max(uint32_t lane_len, const struct shmb_block_limits *blocks)
{
	return blocks->arena_len ? blocks->record_len_max
				 : shmb_record_len_max(lane_len) - SHMB_CALL_HEADER_LEN;
}

/**
 * shmb_call_lens() - how long the requests and replies of a typed call channel are
 * @schema:	     has been checked
 * @ret_request_len: stores the bytes of each request; 0: they are untyped
 * @ret_reply_len:   stores the bytes of each reply; 0: they are untyped
 *
 * Return: 0; -EINVAL: it is another schema than of a struct of the structs request and reply.
 */
int shmb_call_lens(const void *schema, uint32_t *ret_request_len, uint32_t *ret_reply_len);

/* Do they fit into a lane, or into the longest block? Returns 0 or -EINVAL. */
int shmb_call_lens_fit(uint32_t lane_len, const struct shmb_block_limits *blocks,
		       uint32_t request_len, uint32_t reply_len);

/* Where the servers of a call channel are in its segment. */
static inline uint64_t shmb_call_servers_offset(uint32_t schema_len)
{
	return (SHMB_BLOCK_LEN + (uint64_t)schema_len + 63) & ~(uint64_t)63;
}

/*
 * The broker says of a slot which server is in it, and stores nothing but 0 if none is. Killed between any
 * two of these: no server is seen there, until a successor settles it.
 */
static inline void shmb_call_server_store(struct shmb_call_server *server, uint64_t id,
					  uint32_t uid, uint32_t pid)
{
	SHMB_STORE(&server->id, 0);
	if (!id)
		return;
	/* AM: pairs with AN in shmb_call_server_load(): who sees what follows sees that the id has gone. */
	SHMB_FENCE_RELEASE();
	SHMB_STORE(&server->uid, uid);
	SHMB_STORE(&server->pid, pid);
	/* AM: pairs with AN in shmb_call_server_load(): the rest of the entry is there. */
	SHMB_STORE_RELEASE(&server->id, id);
}

/* Returns its id, with user and process of that very one; 0: there is none, or it is just changing. */
static inline uint64_t shmb_call_server_load(const struct shmb_call_server *server,
					     uint32_t *ret_uid, uint32_t *ret_pid)
{
	/* AN: pairs with AM in shmb_call_server_store(): the rest is that of this id, or newer. */
	uint64_t id = SHMB_LOAD_ACQUIRE(&server->id);

	*ret_uid = SHMB_LOAD(&server->uid);
	*ret_pid = SHMB_LOAD(&server->pid);
	/* AN: pairs with AM in shmb_call_server_store(): if it is newer, the id below is not the same. */
	SHMB_FENCE_ACQUIRE();
	return id == SHMB_LOAD(&server->id) ? id : 0;
}

/*
 * Milliseconds are enough for who reads a deadline: the caller itself knows better. The coarse clock
 * is up to a tick behind, takes a third of the time, and is never behind itself.
 */
static inline uint64_t shmb_call_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/*
 * A deadline farther away than this is none to the server: an hour. A server may take a time that is
 * an hour old for now when it looks what the low bits mean.
 */
#define SHMB_CALL_DEADLINE_MAX_MS (SHMB_CALL_DEADLINE_MASK / 4)

/* The deadline in a request's word. Never too early: expired there means expired here. */
static inline uint64_t shmb_call_deadline_of(int64_t timeout_ns)
{
	/* What the coarse clock is behind, and what the division takes away. */
	const uint64_t slack_ms = 12;
	uint64_t ms, timeout_ms = (uint64_t)timeout_ns / 1000000u;

	if (timeout_ns < 0 || timeout_ms + slack_ms > SHMB_CALL_DEADLINE_MAX_MS)
		return 0;
	ms = (shmb_call_now_ms() + timeout_ms + slack_ms) & SHMB_CALL_DEADLINE_MASK;
	return ms ? ms : 1;
}

/* How many ms are left of a request's deadline, which is not 0; negative: it has passed. */
static inline int64_t shmb_call_left_ms(uint64_t deadline, uint64_t now_ms)
{
	uint32_t left = (uint32_t)(deadline - now_ms) & SHMB_CALL_DEADLINE_MASK;

	return left <= SHMB_CALL_DEADLINE_MASK / 2 ? (int64_t)left
						   : (int64_t)left - SHMB_CALL_DEADLINE_MASK - 1;
}

static inline uint32_t shmb_call_record_type(uint32_t kind, uint32_t type)
{
	return kind << SHMB_CALL_KIND_SHIFT | type;
}

#endif
