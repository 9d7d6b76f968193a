/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_HOLD_H
#define SHMB_LIB_HOLD_H

/*
 * What a subscriber knows of blocks: the arenas of its publishers, and which blocks it holds. The
 * holds are kept here and told in the cursor, or in several while the subscriber moves.
 */

#include <stdbool.h>
#include <stdint.h>

#include "lib/block.h"
#include "lib/map.h"

/**
 * struct shmb_foreign_arena - an arena of a publisher
 * @next:	  in the list
 * @publisher_id: whose it is
 * @number:	  as records name it
 * @n_users:	  holds, and a record that is peeked at
 * @left:	  its publisher has gone
 * @map:	  of it, read-only
 */
struct shmb_foreign_arena {
	struct shmb_foreign_arena *next;
	uint64_t publisher_id;
	uint32_t number;
	uint32_t n_users;
	bool left;
	struct shmb_map map;
};

/**
 * struct shmb_hold - a record that is kept
 * @used:	  there is one
 * @peeked:	  it is only being looked at
 * @unguarded:	  its publisher does not look at our holds any more
 * @publisher_id: whose it is
 * @arena:	  where it lies; NULL: in @copy
 * @copy:	  of a record that was in the lane
 * @words:	  as the cursor tells it; block is 0 if there is nobody to be told
 */
struct shmb_hold {
	bool used;
	bool peeked;
	bool unguarded;
	uint64_t publisher_id;
	struct shmb_foreign_arena *arena;
	void *copy;
	struct shmb_cursor_hold words;
};

/**
 * struct shmb_holder - all of it
 * @arenas:  of all publishers
 * @limits:  of the channel
 * @n_holds: of @holds, but for the one that is only being looked at
 * @holds:   by number
 */
struct shmb_holder {
	struct shmb_foreign_arena *arenas;
	struct shmb_block_limits limits;
	uint32_t n_holds;
	struct shmb_hold holds[SHMB_HOLDS_MAX + 1];
};

/**
 * shmb_holder_add() - there is one more arena
 * @holder:	  holder
 * @publisher_id: whose it is
 * @number:	  of it; told twice it is ignored
 * @fd:		  stays the caller's
 * @descriptor:	  that came with it
 *
 * Return: 0; else as shmb_map_reader().
 */
int shmb_holder_add(struct shmb_holder *holder, uint64_t publisher_id, uint32_t number, int fd,
		    const struct shmb_fd_descriptor *descriptor);

/**
 * shmb_holder_find() - where a record's block is
 * @holder:	  holder
 * @publisher_id: whose record it is
 * @record:	  as shmb_lane_peek() has found it; with the payload's data and len afterwards
 * @ret_arena:	  stores where it lies
 * @ret_page:	  stores the page
 *
 * Return: 1; 0: its arena may be still to come; -ESTALE: its arena has gone; -EBADMSG: it cannot be.
 */
int shmb_holder_find(const struct shmb_holder *holder, uint64_t publisher_id,
		     struct shmb_record *record, struct shmb_foreign_arena **ret_arena,
		     uint32_t *ret_page);

/* A hold that is free; there is one for each that is allowed, and one to look at a record. */
struct shmb_hold *shmb_holder_take(struct shmb_holder *holder);

/* It is not used any more, and no cursor tells of it. */
void shmb_holder_give(struct shmb_holder *holder, struct shmb_hold *hold);

/* The arenas of a publisher that has gone are kept for as long as something in them is held. */
void shmb_holder_forget(struct shmb_holder *holder, uint64_t publisher_id);

/* Frees all; with @abandon, in a forked child, the mappings are not there to be unmapped. */
void shmb_holder_free(struct shmb_holder *holder, bool abandon);

#endif
