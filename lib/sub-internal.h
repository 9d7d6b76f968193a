/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_SUB_INTERNAL_H
#define SHMB_LIB_SUB_INTERNAL_H

/*
 * What the files of a subscriber share, and nobody else sees: its structures, and what each of the
 * files does for the others. What other modules need of subscribers is in subscriber.h.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/api.h"
#include "lib/bell.h"
#include "lib/error.h"
#include "lib/fds.h"
#include "lib/hold.h"
#include "lib/member.h"
#include "lib/queue.h"
#include "lib/subscriber.h"

#define SUB_BURST   16u /* records of one lane before the next one has its turn */
#define SUB_HOT_MAX 16u /* lanes that are looked at each time */

/**
 * struct sub_lane - a publisher whose lane we read
 * @pair_id:	  of the pair
 * @publisher_id: whose lane it is
 * @lane:	  holds the lane
 * @bell:	  holds @bell_words
 * @bell_words:	  the publisher rings it; says where we begin
 * @history:	  without a bell: so many records before its end
 * @reader:	  where we are
 * @slot:	  our position as the publisher sees it
 * @ringer:	  wakes the publisher when it waits for space
 * @space_rung:	  its sleep word for which we have rung
 * @attached:	  @reader is set
 * @words:	  the cursor that @slot is in
 * @successor:	  holds the same publisher's records, and later ones; NULL: none
 * @follows:	  is another one's successor, and not read yet
 * @end:	  of a publisher that has gone: no more than one ring is read, whoever writes it
 * @gone:	  the publisher has gone: read to the end, then forget
 * @caught_up:	  we had been lapped when it went, and have moved @end since
 * @unguarded:	  it lives on, and does not wait for us any more
 * @watched:	  it does not wait for us, or may stop to
 * @lossy:	  it does not wait for us
 * @stamp:	  of an ordered channel: when the record was published that is next
 * @waived:	  of an ordered channel: an announced stamp that is not waited for any more
 * @n_waived:	  of an ordered channel: how often that was so
 * @left:	  of a state channel: nothing refers to it any more
 * @jobs:	  of a queue: the records for us; else NULL
 * @number:	  slot of the publisher
 * @stalled_ns:	  since when the next record's arena has not come; 0: it has
 * @priority:	  of its publisher
 * @conflation:	  where records of a key follow each other; NULL: all are received
 * @finished:	  never read again: it broke the layout, or has overwritten what was left to read
 * @peer:	  of a private lane
 * @ends:	  over which the fds come that its records carry
 * @fds:	  as the extension of the record says that was looked at last
 * @fds_passed:	  packets up to this one were taken off, or are of no use
 * @kept:	  the broker keeps it, until it is told that we have read it
 * @next_drained: an earlier one that was, and that it may have to be told of again
 */
struct sub_lane {
	uint64_t pair_id;
	uint64_t publisher_id;
	struct shmb_map lane;
	struct shmb_map bell;
	const struct shmb_bell_segment *bell_words;
	uint32_t history;
	struct shmb_lane_reader reader;
	struct shmb_cursor_lane *slot;
	struct shmb_ringer ringer;
	uint32_t space_rung;
	struct shmb_cursor_segment *words;
	struct sub_lane *successor;
	uint64_t stamp;
	uint64_t waived;
	uint32_t n_waived;
	uint64_t end;
	bool follows;
	bool attached;
	bool gone;
	bool caught_up;
	bool unguarded;
	bool watched;
	bool lossy;
	bool left;
	bool finished;
	uint32_t priority;
	struct sub_conflation *conflation;
	struct shmb_jobs *jobs;
	uint32_t number;
	uint64_t stalled_ns;
	struct shmb_peer peer;
	struct shmb_fds_ends ends;
	uint64_t fds;
	uint64_t fds_passed;
	bool kept;
	struct sub_lane *next_drained;
};

/**
 * struct sub_cursor - a cursor that we have moved away from, while lanes still use it
 * @next: older one
 * @map:  holds it
 */
struct sub_cursor {
	struct sub_cursor *next;
	struct shmb_map map;
};

struct shmb_subscriber {
	struct shmb_member member;
	struct shmb_view view;
	struct shmb_cursor_segment *cursor;
	struct sub_cursor *cursors; /* earlier ones */
	struct sub_cursor *spare; /* so that moving needs no memory */
	struct sub_lane *drained; /* kept lanes that were read: nothing of them is mapped */
	struct sub_lane *only; /* see recv_only(); NULL: unknown */
	struct sub_lane **lanes;
	uint32_t n_lanes;
	uint32_t cap_lanes;
	uint32_t n_hot; /* the first so many of @lanes */
	uint32_t cold; /* which of the others is looked at next */
	uint32_t current;
	uint32_t burst;
	bool was_cold; /* the last burst was of a lane that had been cold */
	uint32_t lane_changes;
	uint32_t record_len; /* of every record, its extension included; 0: untyped */
	uint32_t ext_len; /* bytes before each payload */
	uint64_t ttl_ns; /* older records are skipped; 0: none */
	/* The next record of a lane, and of all; NULL: as it comes, and in turns. */
	int (*look)(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		    struct shmb_record *record);
	struct sub_lane *(*next)(struct shmb_subscriber *subscriber, struct shmb_record *record);
	struct sub_levels *levels; /* NULL: no two publishers had different priorities yet */
	uint32_t key_offset; /* where the key is of which only the newest record is received */
	uint32_t key_len; /* 0: all are */
	bool ordered;
	uint64_t stamp; /* of an ordered channel: of the latest record received */
	uint64_t held_ns; /* since when a record waits for its turn in that order; 0: none does */
	bool lossy;
	bool failed; /* a lane was found corrupt: the next call says so */
	uint64_t evicted_by; /* publisher that does not wait any more: the next call says so */
	struct sub_lane *untold; /* its publisher is not told yet how far we are */
	struct sub_lane *peeked;
	uint32_t n_peeked;
	uint64_t received;
	uint64_t lost;
	uint64_t expired;
	uint64_t conflated;
	uint64_t disordered;
	uint32_t max_fds; /* that a record may carry */
	struct sub_lane *fds_lane; /* of the record whose fds can be taken; NULL: @fds_left */
	struct shmb_fds_ends fds_left; /* of a lane that was removed meanwhile */
	uint64_t fds_number; /* of their packet */
	uint32_t n_fds; /* how many there are; 0: none can be taken */
	bool fds_kept; /* their record is looked at once more if they are not taken */
	uint64_t fds_lost;
	uint32_t sleep_epoch;
	uint32_t spin_ns;
	uint64_t gap_ns; /* how long waits take, smoothed */
	uint32_t waits;
	uint32_t yield_pause; /* waits that sleep without yielding first */
	uint32_t yield_misses; /* yields in a row that brought nothing */
	uint32_t yield_strangers; /* yields to somebody who ran for long; forgiven slowly */
	uint32_t yield_hits; /* yields that brought a record, since a stranger ran */
	bool no_waitv;
	uint64_t sleeps;
	uint64_t backstops;
	void *waitset;
	struct shmb_state_reader *state; /* NULL: not a state channel */
	bool queue; /* records are taken, done or failed */
	uint32_t credit;
	uint32_t attempt; /* of the record that was last looked at */
	uint32_t max_attempts; /* 0: no limit */
	uint32_t n_job_lanes; /* so far */
	struct shmb_channel *dead_channel;
	struct shmb_publisher *dead; /* where records go that have failed too often */
	struct shmb_holder *holder; /* NULL: the channel has no blocks */
	struct shmb_foreign_arena *found; /* where the record lies that was looked at last */
	uint32_t found_page;
	struct shmb_hold *peeked_hold; /* of a block that is peeked at; NULL: of nothing */
	bool private; /* a call channel: each lane is for us alone, each record begins with a word */
	uint64_t found_head; /* of the record whose block was looked for last: that word */
};

static inline struct shmb_subscriber *to_subscriber(struct shmb_member *member)
{
	return shmb_container_of(member, struct shmb_subscriber, member);
}

/* ---- sub-lane.c --------------------------------------------------------------------------------- */

void sub_free_lane(struct sub_lane *lane);

void sub_forget_drained(struct sub_lane **at);

void sub_remove_lane(struct shmb_subscriber *subscriber, uint32_t index);

/* Use the newest doorbell that the publisher listens to, and tell it which. */
void sub_settle_ringer(struct shmb_subscriber *subscriber, struct sub_lane *lane);

int sub_on_pair(struct shmb_member *member, struct shmb_event *event);

void sub_on_unpair(struct shmb_member *member, const struct shmb_msg_unpair *unpair);

/* We were thrown out. What had come can still be read, as long as it is there. */
void sub_unguard_lanes(struct shmb_subscriber *subscriber);

/* Read a lane from there on. */
void sub_begin_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint64_t position,
		    uint64_t sequence);

/* The publisher says where we begin, once it knows of us. */
SHMB_SELDOM bool sub_attach_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane);

SHMB_SELDOM void sub_wake_publisher(struct shmb_subscriber *subscriber, struct sub_lane *lane,
				    uint32_t sleep);

/*
 * Has another publisher got the slot? The broker gives it away when its owner has gone, which we
 * may hear of later than of the next one, or of the last of several lanes only.
 */
SHMB_SELDOM bool sub_slot_is_taken(const struct shmb_subscriber *subscriber,
				   const struct sub_lane *lane);

/* ---- sub-successor.c ---------------------------------------------------------------------------- */

/*
 * Our marks, and how far we are, are in that cursor, too, where no publisher looks yet: the broker does if
 * both of us die.
 */
void sub_mirror(const struct sub_lane *lane, struct shmb_cursor_lane *slot,
		struct shmb_cursor_work *work);

/* The publisher may look at the slot of a lane that we do not read yet, and sleep there. */
void sub_store_ahead(struct shmb_subscriber *subscriber, const struct sub_lane *lane);

/* As sub_look_at(), of a lane that is left: its publisher has gone, or goes on in another one. */
SHMB_SELDOM int sub_look_at_leaving(struct shmb_subscriber *subscriber, struct sub_lane *lane,
				    struct shmb_record *record);

/* ---- sub-cursor.c ------------------------------------------------------------------------------- */

void sub_free_cursors(struct shmb_subscriber *subscriber);

/* A sleep word for each publisher that looks at an earlier cursor. */
void sub_store_sleep(struct shmb_subscriber *subscriber, uint32_t sleep);

/*
 * Close the doorbells that no publisher can ring any more. A publisher moves on to newer ones only,
 * and may be about to take any that we have announced: so only those older than all in use go.
 */
void sub_retire_doorbells(struct shmb_subscriber *subscriber);

/* Publishers ring the newest doorbell that we say we listen to. Killed before: the older one. */
void sub_on_doorbell(struct shmb_member *member);

/* The broker looks at what we have done in the cursor that we move to, as soon as it hears of that. */
void sub_on_granted(struct shmb_member *member, void *to);

int sub_on_prepare(struct shmb_member *member, void *to);

/* One proves it: no publisher is told before we are told of all. */
bool sub_is_complete(const struct shmb_member *member, const struct shmb_event *staged);

void sub_on_move(struct shmb_member *member, struct shmb_map *before);

/* ---- sub-look.c --------------------------------------------------------------------------------- */

/* What @look and @next of the subscriber say, out of the way of all others. */
SHMB_SELDOM int sub_look_specially(struct shmb_subscriber *subscriber, struct sub_lane *lane,
				   struct shmb_record *record);
SHMB_SELDOM struct sub_lane *sub_next_specially(struct shmb_subscriber *subscriber,
						struct shmb_record *record);

SHMB_SELDOM void sub_condemn(struct shmb_subscriber *subscriber, struct sub_lane *lane);

void sub_count_lost(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint64_t lost);

/* The slow part of sub_was_overwritten(). */
bool sub_check_overwritten(struct shmb_subscriber *subscriber, struct sub_lane *lane);

/* From a publisher that does not wait for us, or may have stopped to without our knowing it yet. */
__attribute__((__noinline__)) int sub_look_watched(struct shmb_subscriber *subscriber,
						   struct sub_lane *lane,
						   struct shmb_record *record);

/* As shmb_lane_peek(), stepping over what is for other workers. */
__attribute__((__noinline__)) int sub_look_for_job(struct shmb_subscriber *subscriber,
						   struct sub_lane *lane,
						   struct shmb_record *record);

/* A record that is not what most are. As sub_look(). */
__attribute__((__noinline__)) int sub_look_twice(struct shmb_subscriber *subscriber,
						 struct sub_lane *lane, struct shmb_record *record,
						 int result);

/*
 * The next record of a lane whose records can expire, its payload only. What was published before this
 * call lies in one ring; who publishes more than that what is too old already is not followed further.
 */
__attribute__((__noinline__)) int sub_look_extended(struct shmb_subscriber *subscriber,
						    struct sub_lane *lane,
						    struct shmb_record *record);

/*
 * Of many lanes, those that have had records lately are hot and looked at each time; each of the
 * others is a cache line and a page that most often has nothing. A few of them are looked at after
 * each burst, so that busy lanes do not starve them, and all of them before we say that there is
 * nothing. One that has a record changes places with the lane whose turn it is, which is then last
 * in the queue of the cold ones: all get the same share.
 */
__attribute__((noinline)) struct sub_lane *sub_look_at_cold(struct shmb_subscriber *subscriber,
							    uint32_t n, struct shmb_record *record);

/* Where all lanes have a record now and then, in turns, the cold one that is next has one. */
struct sub_lane *sub_guess_cold(struct shmb_subscriber *subscriber, struct shmb_record *record);

/* The turn of a lane is over: a cold one has one in its place, then it is the next one's. */
struct sub_lane *sub_end_burst(struct shmb_subscriber *subscriber, struct shmb_record *record);

/* ---- sub-conflate.c ----------------------------------------------------------------------------- */

/* As sub_look(), of a subscriber that conflates. */
int sub_look_conflated(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		       struct shmb_record *record);

/* For a new lane. Returns NULL without memory. */
struct sub_conflation *sub_conflation_new(const struct shmb_subscriber *subscriber);

void sub_conflation_free(struct sub_conflation *conflation);

/* ---- sub-priority.c ----------------------------------------------------------------------------- */

/* As sub_next_record(), of publishers with different priorities. */
struct sub_lane *sub_next_of_levels(struct shmb_subscriber *subscriber, struct shmb_record *record);

/* Before a lane of that priority is added, for which there is room in the list. Returns 0 or -ENOMEM. */
int sub_reserve_level(struct shmb_subscriber *subscriber, uint32_t priority);

/* A lane has come or gone. */
void sub_settle_levels(struct shmb_subscriber *subscriber);

void sub_levels_free(struct sub_levels *levels);

/* ---- sub-order.c -------------------------------------------------------------------------------- */

/*
 * The next record in the order of all. Whoever joins with an earlier one has been announced by then: its
 * stamp is of a time after the broker has moved the epoch.
 */
SHMB_SELDOM struct sub_lane *sub_next_ordered(struct shmb_subscriber *subscriber,
					      struct shmb_record *record);

/* ---- sub-block.c -------------------------------------------------------------------------------- */

/* As one of our holds is to be seen by publishers, in each cursor that one of them may look at. */
void sub_tell_hold(struct shmb_subscriber *subscriber, const struct shmb_hold *hold);

/* Its slot may become another one's, who must not believe that we hold blocks of its own. */
void sub_withdraw_holds(struct shmb_subscriber *subscriber, const struct sub_lane *lane);

/* Its records may be in a lane that we have not been told of yet. */
int sub_on_arena(struct shmb_member *member, struct shmb_event *event);

bool sub_block_is_gone(const struct shmb_subscriber *subscriber, const struct sub_lane *lane);

/*
 * The payload of a record that is only a descriptor. Those whose blocks are gone are passed by, at
 * most as many as a ring can hold. Returns 1, 0 or -EBADMSG.
 */
__attribute__((__noinline__)) int sub_find_block(struct shmb_subscriber *subscriber,
						 struct sub_lane *lane, struct shmb_record *record);

/* What we have read of a block was whole. If not, the record is lost. */
bool sub_block_was_whole(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			 const struct shmb_record *record);

/* Nobody uses the block of the record that was looked at for something else while we peek. */
bool sub_pin_block(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		   const struct shmb_record *record);

void sub_unpin(struct shmb_subscriber *subscriber);

/* ---- sub-fds.c ---------------------------------------------------------------------------------- */

/* What came with the record before is not asked for any more. */
SHMB_SELDOM void sub_forget_fds(struct shmb_subscriber *subscriber);

/* A record was received, or is peeked at: what came with it? The view says so. */
SHMB_SELDOM void sub_meet_fds(struct shmb_subscriber *subscriber, struct sub_lane *lane);

/* The record that was looked at is stepped over, and nobody will ask for what came with it. */
SHMB_SELDOM void sub_pass_fds(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			      uint64_t fds);

/* The lane is removed: what can be taken stays. */
void sub_leave_fds(struct shmb_subscriber *subscriber, struct sub_lane *lane);

/* From @lane, and those between, to the successor @next. */
void sub_carry_fds(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		   struct sub_lane *next);

/* Does the record that was looked at carry some? */
static inline bool sub_carries_fds(const struct shmb_subscriber *subscriber,
				   const struct sub_lane *lane)
{
	return shmb_unlikely(subscriber->max_fds) && lane->fds & SHMB_FDS_COUNT_MASK;
}

/* ---- sub-recv.c --------------------------------------------------------------------------------- */

int sub_nothing(struct shmb_subscriber *subscriber);

/* Was what was peeked at there all the time? A block is, also if the lane has gone on meanwhile. */
bool sub_peek_was_whole(struct shmb_subscriber *subscriber, struct sub_lane *lane);

int sub_enter_peeked(const struct shmb_subscriber *subscriber);

/* The first @count of those that were peeked at are done with. */
void sub_step_over(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint32_t count);

/* ---- sub-worker.c ------------------------------------------------------------------------------- */

/* A lane with a record that has failed and is to be handed out again, or NULL. */
struct sub_lane *sub_next_failed(const struct shmb_subscriber *subscriber);

/* Those that found no room. */
void sub_bury_again(struct shmb_subscriber *subscriber);

void sub_close_dead(struct shmb_subscriber *subscriber);

int sub_open_queue(struct shmb_subscriber *subscriber, struct shmb_channel *channel,
		   const struct shmb_subscriber_options *options);

/* ---- telling the publisher how far we are ------------------------------------------------------- */

static inline void sub_ring_publisher(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	const struct shmb_lane_segment *words = lane->lane.base;
	uint32_t sleep;

	if (shmb_unlikely(shmb_bell_due(&words->space_wait, lane->space_rung, &sleep)))
		sub_wake_publisher(subscriber, lane, sleep);
}

/* Where the slot of a lane is in a cursor. */
static inline struct shmb_cursor_lane *sub_slot_in(struct shmb_cursor_segment *cursor,
						   const struct sub_lane *lane)
{
	return (struct shmb_cursor_lane *)(void *)((uint8_t *)cursor + SHMB_BLOCK_LEN) +
	       lane->number;
}

/* And its marks. */
static inline struct shmb_cursor_work *sub_work_in(struct shmb_cursor_segment *cursor,
						   const struct shmb_channel *channel,
						   const struct sub_lane *lane)
{
	return (struct shmb_cursor_work *)(void *)((uint8_t *)cursor +
						   shmb_cursor_work_offset(channel->max_publishers,
									   lane->number));
}

/* Is it the lane of a queue, and does somebody look at our marks, should we die? */
static inline bool sub_is_marked(const struct sub_lane *lane)
{
	return lane->jobs && lane->jobs->work;
}

/* What is behind this the publisher must keep. */
static inline void sub_store_position(const struct sub_lane *lane, struct shmb_cursor_lane *slot)
{
	uint64_t position = lane->reader.position, sequence = lane->reader.sequence;

	if (shmb_unlikely(lane->jobs != NULL))
		shmb_jobs_low(lane->jobs, &lane->reader, &position, &sequence);
	shmb_cursor_store(slot, position, sequence);
}

/* Tell the publisher how far we are. */
static inline void sub_store_cursor(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	if (shmb_unlikely(lane->gone)) {
		/* For the broker, should we die. */
		if (sub_is_marked(lane))
			sub_store_position(lane, lane->slot);
		return;
	}
	if (shmb_unlikely(SHMB_LOAD(&lane->slot->pair_id) != lane->pair_id) &&
	    sub_slot_is_taken(subscriber, lane))
		return;
	sub_store_position(lane, lane->slot);
	sub_ring_publisher(subscriber, lane);
	if (shmb_unlikely(lane->successor != NULL))
		sub_store_ahead(subscriber, lane);
}

/*
 * May what we have just read have been overwritten meanwhile? The publisher of a reliable subscriber
 * overwrites nothing that is unread, until the broker has told it that the two are parted. By then
 * the epoch has moved, and we have been told, too.
 */
static inline bool sub_was_overwritten(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	/*
	 * V: pairs with the broker's release of the epoch in view_move_epoch(), by way of E in
	 * shmb_lane_raise_intent(): if we read the publisher's next lap, we see that it has moved.
	 */
	SHMB_FENCE_ACQUIRE();
	if (shmb_likely(SHMB_LOAD(subscriber->member.epoch) == subscriber->member.seen_epoch &&
			!lane->watched && !lane->unguarded))
		return false;
	return sub_check_overwritten(subscriber, lane);
}

static inline int sub_enter(struct shmb_subscriber *subscriber)
{
	int result;

	if (shmb_unlikely(!subscriber))
		return shmb_fail(-EINVAL, "subscriber is NULL");
	subscriber->only = NULL;
	result = shmb_member_enter(&subscriber->member);
	/* What a worker has had others get when it is thrown out. */
	if (shmb_likely(result != -ESTALE || !subscriber->n_lanes || subscriber->queue))
		return result;
	sub_unguard_lanes(subscriber);
	return 0;
}

#endif
