/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_BELL_H
#define SHMB_LIB_BELL_H

/*
 * The words between a publisher and a subscriber that are not the lane: who sleeps, who has rung,
 * where to begin, how far one is. Labels continue those of ring.h.
 *
 *	word	       | stored by  | loaded by	      | order		      | labels
 *	---------------+------------+-----------------+-----------------------+--------
 *	bell attached  | publisher  | subscriber      | release -> acquire    | K -> L
 *	cursor pair id | subscriber | publisher	      | release -> acquire    | N -> M
 *	cursor slot    | subscriber | publisher	      | fence -> acquire      | W -> X
 *	space wait     | publisher  | subscriber      | fence <-> fence	      | O <-> P
 *	bell evicted   | publisher  | subscriber      | fence -> fence	      | AG -> AH
 *
 * They are apart from the structures of either side so that the model tests run the same lines.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/ring.h>

/* ---- sleeping and ringing ---------------------------------------------------------------------- */

/**
 * shmb_bell_announce() - say that we sleep; then look once more, then sleep
 * @word:   our sleep word
 * @asleep: epoch and mode
 *
 * Killed while it is set: peers ring for a process that is gone, once each.
 */
static inline void shmb_bell_announce(uint32_t *word, uint32_t asleep)
{
	SHMB_STORE(word, asleep);
	/*
	 * J: pairs with I in shmb_bell_published(): either the peer sees our word, or we see what
	 * it has stored before. O: pairs with P, the same fence of a subscriber that goes to sleep.
	 */
	shmb_fence();
}

/* After the records are visible, before shmb_bell_due(). */
static inline void shmb_bell_published(void)
{
	/*
	 * I: pairs with J in shmb_bell_announce(): either we see the sleep word, or its owner sees
	 * our records.
	 */
	shmb_fence();
}

/**
 * shmb_bell_due() - does somebody sleep for whom we have not rung?
 * @word:      the sleep word
 * @rung:      its value when we last rang
 * @ret_sleep: its value
 */
static inline bool shmb_bell_due(const uint32_t *word, uint32_t rung, uint32_t *ret_sleep)
{
	uint32_t sleep = SHMB_LOAD(word);

	*ret_sleep = sleep;
	return (sleep & SHMB_SLEEP_MODE_MASK) != SHMB_SLEEP_AWAKE && sleep != rung;
}

/*
 * Before the futex wake: a sleeper that has not slept yet finds the word changed. Killed between the
 * two: the broker wakes the peers of a dead process.
 */
static inline void shmb_bell_bump(struct shmb_bell_segment *bell)
{
	SHMB_STORE(&bell->wake, SHMB_LOAD(&bell->wake) + 1);
}

/* ---- where a subscriber begins ----------------------------------------------------------------- */

static inline void shmb_bell_start(struct shmb_bell_segment *bell, uint64_t position,
				   uint64_t sequence)
{
	SHMB_STORE(&bell->start_position, position);
	SHMB_STORE(&bell->start_sequence, sequence);
	/*
	 * K: pairs with L in shmb_bell_started(). Killed before: the subscriber has nothing to read
	 * from us, and there was nothing.
	 */
	SHMB_STORE_RELEASE(&bell->attached, 1);
}

/* Does the publisher know of us? Then where do we begin? */
static inline bool shmb_bell_started(const struct shmb_bell_segment *bell, uint64_t *ret_position,
				     uint64_t *ret_sequence)
{
	/* L: pairs with K in shmb_bell_start(): the start is there. */
	if (!SHMB_LOAD_ACQUIRE(&bell->attached))
		return false;
	*ret_position = SHMB_LOAD(&bell->start_position);
	*ret_sequence = SHMB_LOAD(&bell->start_sequence);
	return true;
}

/* ---- a subscriber that is not waited for any more ---------------------------------------------- */

/*
 * The publisher stops waiting for a reliable subscriber, before it overwrites what that one has not
 * read. The subscriber may have been stopped anywhere, and go on any time.
 * Killed before: it was not lapped; after: it believes that it may be.
 */
static inline void shmb_bell_evict(struct shmb_bell_segment *bell)
{
	SHMB_STORE(&bell->evicted, 1);
	/* AG: pairs with AH in shmb_bell_evicted(): who reads what is stored from now on sees it. */
	SHMB_FENCE_RELEASE();
}

/* Asked after a record was looked at or copied: if not, it was whole. */
static inline bool shmb_bell_evicted(const struct shmb_bell_segment *bell)
{
	/* AH: pairs with AG in shmb_bell_evict(). */
	SHMB_FENCE_ACQUIRE();
	return SHMB_LOAD(&bell->evicted) != 0;
}

/* ---- a worker that has gone --------------------------------------------------------------------- */

/* Nothing that workers have left who have gone is to be given to others. */
#define SHMB_NO_ORPHANS UINT64_MAX

/*
 * Where what they have left begins from now on. For the broker, should this publisher go, too: it looks
 * when all stores have been made.
 * Killed before: what lies there was not overwritten yet; after: nothing that lies before is needed.
 */
static inline void shmb_orphans_begin(struct shmb_lane_segment *lane, uint64_t position)
{
	/* pairs with nothing: the compiler must keep the order of this and what is overwritten */
	SHMB_FENCE_RELEASE();
	SHMB_STORE(&lane->orphans_from, position);
	/* pairs with nothing, as that one */
	SHMB_FENCE_RELEASE();
}

/*
 * The publisher has heard of the end of this worker, and where the orphans begin takes account of it.
 * Killed before: the worker's own position holds, which is not overwritten yet.
 */
static inline void shmb_bell_orphan(struct shmb_bell_segment *bell)
{
	/* pairs with nothing: the compiler must keep the order */
	SHMB_FENCE_RELEASE();
	SHMB_STORE(&bell->orphaned, 1);
}

/* ---- how far a subscriber is ------------------------------------------------------------------- */

/*
 * Before the slot takes the numbers of another pair. Killed behind it: the publisher counts us from
 * its own start position, until the broker tells it that we have gone.
 */
static inline void shmb_cursor_vacate(struct shmb_cursor_lane *slot)
{
	SHMB_STORE(&slot->pair_id, 0);
	/* W: pairs with X in shmb_cursor_is_ours(): who sees the new numbers sees the new id. */
	SHMB_FENCE_RELEASE();
}

/* Take over the start. What else belongs to the pair has been stored. */
static inline void shmb_cursor_start(struct shmb_cursor_lane *slot, uint64_t pair_id)
{
	/*
	 * N: pairs with M in shmb_cursor_started(). Killed before: the publisher counts us from its
	 * own start position, until the broker tells it that we have gone.
	 */
	SHMB_STORE_RELEASE(&slot->pair_id, pair_id);
}

static inline bool shmb_cursor_started(const struct shmb_cursor_lane *slot, uint64_t pair_id)
{
	/* M: pairs with N in shmb_cursor_start(): the position is there before the id. */
	return SHMB_LOAD_ACQUIRE(&slot->pair_id) == pair_id;
}

/* Killed before: some records come twice, to our successor. */
static inline void shmb_cursor_store(struct shmb_cursor_lane *slot, uint64_t position,
				     uint64_t sequence)
{
	SHMB_STORE(&slot->sequence, sequence);
	/* C: pairs with D in shmb_cursor_position(): we are done with what lies before. */
	SHMB_STORE_RELEASE(&slot->position, position);
}

static inline uint64_t shmb_cursor_position(const struct shmb_cursor_lane *slot)
{
	/* D: pairs with C in shmb_cursor_store(): the subscriber is done with what lies before. */
	return SHMB_LOAD_ACQUIRE(&slot->position);
}

/*
 * Whose position has just been read? A publisher that was thrown out and does not know it yet may
 * see that of the one which has its slot now, and must not take it for permission to overwrite what
 * is still being read. A publisher that was not sees it only of a subscriber that lies.
 */
static inline bool shmb_cursor_is_ours(const struct shmb_cursor_lane *slot, uint64_t pair_id)
{
	/*
	 * X: pairs with W in shmb_cursor_vacate(): if D saw a position of another pair, this sees
	 * that the slot has been left.
	 */
	return SHMB_LOAD(&slot->pair_id) == pair_id;
}

/*
 * What a broker's bell says while the broker owes messages. Of one of another epoch it says nothing: it
 * was stopped and replaced, and has stored late.
 */
static inline uint32_t shmb_bell_backlog(uint64_t broker_epoch)
{
	return (uint32_t)broker_epoch << 1 | 1;
}

/*
 * Nobody reads any more. Killed before: publishers wait until the broker tells them that we have
 * gone; there may be none.
 */
static inline void shmb_cursor_leave(struct shmb_cursor_segment *cursor)
{
	/* AA: pairs with AB in shmb_cursor_left(): we are done with all that is in the lanes. */
	SHMB_STORE_RELEASE(&cursor->left, 1);
}

/* The same for a publisher. Killed before: the broker hears that its process has ended. */
static inline void shmb_lane_leave(struct shmb_lane_segment *lane)
{
	/* AM: pairs with the pread(2) in the broker's segment_read(): all that was published is there. */
	SHMB_STORE_RELEASE(&lane->left, 1);
}

static inline bool shmb_cursor_left(const struct shmb_cursor_segment *cursor)
{
	/* AB: pairs with AA in shmb_cursor_leave(): the subscriber is done with what is there. */
	return SHMB_LOAD_ACQUIRE(&cursor->left) == 1;
}

#endif
