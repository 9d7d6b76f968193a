/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_ARENA_H
#define SHMB_LIB_ARENA_H

/*
 * The blocks of a publisher: arenas that the broker has made for it, and who uses which of their
 * pages. All that decides is private; subscribers see only the payloads.
 *
 * Of blocks that are free the one that became so last is used first: it is still in the cache. Pages
 * are put together, and taken apart, only when no block of the length wanted is free.
 */

#include <stdbool.h>
#include <stdint.h>

#include "lib/block.h"
#include "lib/member.h"

/**
 * struct shmb_arena_part - one segment
 * @next:    older one
 * @map:     of it
 * @id:	     as the broker calls it
 * @number:  as subscribers know it
 * @n_pages: behind its first block
 * @n_used:  of them in blocks that are not free
 * @left:    only subscribers that are there now have it: the lane has moved since
 * @retired: nothing new is put there
 */
struct shmb_arena_part {
	struct shmb_arena_part *next;
	struct shmb_map map;
	uint64_t id;
	uint32_t number;
	uint32_t n_pages;
	uint32_t n_used;
	bool left;
	bool retired;
};

/**
 * struct shmb_block - some pages in a row
 * @next:     in the list that it is in
 * @part:     where they are
 * @page:     the first of them
 * @n_pages:  how many
 * @end:      published: where its record ends
 * @sequence: published: number of its record
 */
struct shmb_block {
	struct shmb_block *next;
	struct shmb_arena_part *part;
	uint32_t page;
	uint32_t n_pages;
	uint64_t end;
	uint64_t sequence;
};

/**
 * struct shmb_arena - all blocks of a publisher
 * @member:	   the publisher's
 * @limits:	   of the channel
 * @parts:	   newest first
 * @len:	   bytes of those that are not retired
 * @next_number:   of the next part
 * @free:	   the one that became free last first
 * @published:	   oldest first
 * @published_end: where the next one goes
 * @held:	   published, passed by all positions, but held when we last looked
 * @floor:	   blocks of records that begin before this position are not published any more
 * @floor_sequence: number of records before it
 * @retry_ns:	   no further part is asked for before
 */
struct shmb_arena {
	struct shmb_member *member;
	struct shmb_block_limits limits;
	struct shmb_arena_part *parts;
	uint64_t len;
	uint32_t next_number;
	struct shmb_block *free;
	struct shmb_block *published;
	struct shmb_block **published_end;
	struct shmb_block *held;
	uint64_t floor;
	uint64_t floor_sequence;
	uint64_t retry_ns;
};

/* For a publisher that is about to be opened. NULL: no memory. */
struct shmb_arena *shmb_arena_new(struct shmb_member *member,
				  const struct shmb_block_limits *limits);

/* Unmaps everything; the broker is not told. NULL is allowed. */
void shmb_arena_free(struct shmb_arena *arena);

/* In a forked child the mappings are not there to be unmapped. */
void shmb_arena_abandon(struct shmb_arena *arena);

/* Pages for @len bytes, out of what is free; NULL: there are none in a row. */
struct shmb_block *shmb_arena_take(struct shmb_arena *arena, uint32_t len);

/* Gives them back. */
void shmb_arena_give(struct shmb_arena *arena, struct shmb_block *block);

/**
 * shmb_arena_grow() - get one more part from the broker
 * @arena: arena
 * @len:   bytes that it must have room for in a row
 *
 * Parts that are empty are given back if there is no other way.
 *
 * Context: up to three round trips to the broker; does not wait for one that is not there.
 * Return: 0; -EDQUOT: the channel does not allow more, or the broker; -ENOSPC; -ENOTCONN; -EBUSY: the
 *	   publisher is about to move; else as shmb_map_writer().
 */
int shmb_arena_grow(struct shmb_arena *arena, uint64_t len);

/* Its record, number @sequence, ends at @end. */
void shmb_arena_publish(struct shmb_arena *arena, struct shmb_block *block, uint64_t end,
			uint64_t sequence);

/* The oldest published one is not that any more. */
struct shmb_block *shmb_arena_pop(struct shmb_arena *arena);

/* The lane has moved: who comes from now on cannot have the parts that there are. */
void shmb_arena_leave(struct shmb_arena *arena);

/**
 * shmb_arena_retire() - somebody has come who cannot have all parts
 * @arena: arena
 *
 * Nothing new is put into those; they go when they are empty.
 * Return: whether there are any.
 */
bool shmb_arena_retire(struct shmb_arena *arena);

static inline uint8_t *shmb_block_payload(const struct shmb_block *block)
{
	return (uint8_t *)block->part->map.base + SHMB_BLOCK_LEN +
	       (uint64_t)block->page * SHMB_ARENA_PAGE_LEN;
}

#endif
