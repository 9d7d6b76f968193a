/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_BLOCK_H
#define SHMB_LIB_BLOCK_H

/*
 * The words that decide when a block may be used again. Labels continue those of bell.h.
 *
 *	word	       | stored by  | loaded by	      | order		      | labels
 *	---------------+------------+-----------------+-----------------------+--------
 *	block floor    | publisher  | subscribers     | fence <-> fence	      | BA <-> BB
 *	block floor    | publisher  | lossy readers   | fence -> fence	      | BA -> BC
 *	hold	       | subscriber | publisher       | release -> acquire    | BD -> BE
 *
 * A reliable subscriber's position protects what lies behind it. To keep a block for longer it stores
 * a hold, and then its position: who sees the position sees the hold. A lossy subscriber's position
 * protects nothing. It stores the hold, fences, and looks at the floor; the publisher stores the floor,
 * fences, and looks at the holds: one of the two sees the other. If both do, the subscriber gives up
 * the record, and the publisher keeps the block until the hold is gone.
 *
 * A publisher killed anywhere in here leaves blocks that nobody writes any more. A subscriber killed
 * anywhere in here leaves holds that count until the broker says that it has gone.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/ring.h>

#include "lib/call.h"

static inline uint64_t shmb_block_pages(uint64_t len)
{
	return (len + SHMB_ARENA_PAGE_LEN - 1) / SHMB_ARENA_PAGE_LEN;
}

/* The longest payload that a lane can hold: calls have a word before it. */
static inline uint32_t shmb_block_inline_max(uint32_t pattern, uint32_t lane_len)
{
	return shmb_record_len_max(lane_len) -
	       (pattern == SHMB_PATTERN_CALL ? SHMB_CALL_HEADER_LEN : 0);
}

/* Failures of calls lie in lanes. */
static inline uint32_t shmb_block_inline_min(uint32_t pattern)
{
	return pattern == SHMB_PATTERN_CALL ? SHMB_CALL_FAILURE_LEN_MAX : 0;
}

/* May a channel with lanes of this length have such blocks? All zeroes: it has none. */
static inline bool shmb_block_limits_valid(const struct shmb_block_limits *limits, uint32_t pattern,
					   uint32_t lane_len)
{
	if (limits->zero || limits->numa_node > SHMB_ARENA_NUMA_NODE_MAX + 1 ||
	    limits->flags & ~SHMB_ARENA_HUGE_PAGES)
		return false;
	if (!limits->arena_len)
		return !limits->record_len_max && !limits->inline_len_max && !limits->max_holds &&
		       !limits->flags && !limits->numa_node;
	return (pattern == SHMB_PATTERN_STREAM || pattern == SHMB_PATTERN_CALL) &&
	       limits->record_len_max && limits->record_len_max <= SHMB_ARENA_RECORD_LEN_MAX &&
	       limits->inline_len_max <= shmb_block_inline_max(pattern, lane_len) &&
	       limits->inline_len_max >= shmb_block_inline_min(pattern) &&
	       limits->arena_len <= SHMB_ARENA_LEN_MAX &&
	       limits->arena_len % SHMB_ARENA_PAGE_LEN == 0 &&
	       limits->arena_len >=
		       (1 + shmb_block_pages(limits->record_len_max)) * SHMB_ARENA_PAGE_LEN &&
	       limits->max_holds <= SHMB_HOLDS_MAX;
}

/* How a hold names a block. */
static inline uint64_t shmb_hold_name(uint32_t slot, uint32_t arena, uint32_t page)
{
	return SHMB_HOLD_VALID | (uint64_t)slot << SHMB_HOLD_SLOT_SHIFT |
	       (uint64_t)arena << SHMB_HOLD_ARENA_SHIFT | page;
}

/* ---- the publisher's side ---------------------------------------------------------------------- */

/* Blocks of records that begin before @floor are to be used again: look at all holds next. */
static inline void shmb_block_raise_floor(struct shmb_lane_segment *lane, uint64_t floor)
{
	SHMB_STORE(&lane->block_floor, floor);
	/*
	 * BA: pairs with BB in shmb_block_keep(): either it sees the floor, or we see its hold; and
	 * with BC in shmb_block_gone(): who reads what is stored below sees the floor. Killed behind
	 * it: some lossy subscriber believes a record lost that is still there.
	 */
	shmb_fence();
}

/* Does a subscriber hold this block? */
static inline bool shmb_block_is_held(const struct shmb_cursor_segment *cursor, uint32_t n_holds,
				      uint64_t name)
{
	for (uint32_t i = 0; i < n_holds; i++) {
		/* BE: pairs with BD in shmb_block_let_go(): it has done with what it held. */
		if (SHMB_LOAD_ACQUIRE(&cursor->holds[i].block) == name)
			return true;
	}
	return false;
}

/* ---- the subscriber's side --------------------------------------------------------------------- */

/* Is the block of the record at this position kept for us, by a hold that has just been stored? */
static inline bool shmb_block_keep(const struct shmb_lane_segment *lane, uint64_t position)
{
	/* BB: pairs with BA in shmb_block_raise_floor(): we see the floor, or it sees our hold. */
	shmb_fence();
	return SHMB_LOAD(&lane->block_floor) <= position;
}

/* May what was read from the block of the record at this position be of another one? */
static inline bool shmb_block_gone(const struct shmb_lane_segment *lane, uint64_t position)
{
	/* BC: pairs with BA in shmb_block_raise_floor(): if we read new bytes, we see the floor. */
	SHMB_FENCE_ACQUIRE();
	return SHMB_LOAD(&lane->block_floor) > position;
}

/* Killed before: the hold counts until the broker says that we have gone. */
static inline void shmb_block_let_go(struct shmb_cursor_hold *hold)
{
	/* BD: pairs with BE in shmb_block_is_held(): we have done with what it names. */
	SHMB_STORE_RELEASE(&hold->block, 0);
}

#endif
