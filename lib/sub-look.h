/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_SUB_LOOK_H
#define SHMB_LIB_SUB_LOOK_H

/*
 * The way to the next record: from the word where it will appear to the lane whose turn it is. It is
 * short and inline where most records come along; what is seldom needed is in sub-look.c.
 */

#include "lib/ahead.h"
#include "lib/sub-internal.h"

/* The next record of one lane as it lies there, extension and all. Returns 1 or 0. */
static inline __attribute__((__always_inline__)) int
sub_look_raw(struct shmb_subscriber *subscriber, struct sub_lane *lane, struct shmb_record *record)
{
	int result;

	if (shmb_unlikely(!lane->attached) &&
	    (lane->finished || !sub_attach_lane(subscriber, lane)))
		return 0;
	if (shmb_unlikely(lane->finished || lane->peer.held))
		return 0;
	if (shmb_unlikely(lane->jobs != NULL))
		result = sub_look_for_job(subscriber, lane, record);
	else if (shmb_unlikely(lane->watched))
		result = sub_look_watched(subscriber, lane, record);
	else
		result = shmb_lane_peek(&lane->reader, record);
	if (!result)
		shmb_expect(&lane->reader, subscriber->view.len);
	if (shmb_unlikely(result < 0 ||
			  (result && (record->flags || (subscriber->record_len &&
							record->len != subscriber->record_len)))))
		return sub_look_twice(subscriber, lane, record, result);
	return result;
}

/* The next record of one lane. Returns 1 or 0; a lane that is finished has none. */
static inline __attribute__((__always_inline__)) int
sub_look(struct shmb_subscriber *subscriber, struct sub_lane *lane, struct shmb_record *record)
{
	if (shmb_unlikely(subscriber->look != NULL))
		return sub_look_specially(subscriber, lane, record);
	return sub_look_raw(subscriber, lane, record);
}

/* Has its publisher gone? Perhaps before it wrote to what was to follow. */
static inline bool sub_is_last(const struct sub_lane *lane)
{
	if (shmb_likely(!lane->gone && !lane->successor) || lane->follows)
		return false;
	return lane->gone || lane->successor->gone;
}

/* Returns 1: the lane has a record. 0: it has none. -1: it, or others, are not there any more. */
static inline __attribute__((__always_inline__)) int
sub_look_at(struct shmb_subscriber *subscriber, struct sub_lane *lane, struct shmb_record *record)
{
	if (shmb_unlikely(lane->gone || lane->follows || lane->successor))
		return sub_look_at_leaving(subscriber, lane, record);
	return sub_look(subscriber, lane, record);
}

static inline void sub_next_turn(struct shmb_subscriber *subscriber)
{
	subscriber->burst = 0;
	if (++subscriber->current >= subscriber->n_hot)
		subscriber->current = 0;
}

/* The next record of any lane, in turns. Returns its lane, or NULL if there is none. */
static inline __attribute__((__always_inline__)) struct sub_lane *
sub_next_record(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	uint32_t changes, left;
	struct sub_lane *lane;
	int found;

	if (shmb_unlikely(subscriber->next != NULL))
		return sub_next_specially(subscriber, record);
	do {
		changes = subscriber->lane_changes;
		for (left = subscriber->n_hot; left > 0; left--) {
			if (shmb_unlikely(subscriber->burst >= SUB_BURST)) {
				lane = sub_end_burst(subscriber, record);
				if (lane)
					return lane;
			}
			lane = subscriber->lanes[subscriber->current];
			found = sub_look_at(subscriber, lane, record);
			if (shmb_likely(found > 0)) {
				subscriber->burst++;
				return lane;
			}
			if (shmb_unlikely(found < 0))
				break;
			sub_next_turn(subscriber);
			if (shmb_unlikely(subscriber->n_lanes > SUB_HOT_MAX) &&
			    left == subscriber->n_hot) {
				lane = sub_guess_cold(subscriber, record);
				if (lane)
					return lane;
			}
		}
		if (shmb_unlikely(subscriber->n_lanes > SUB_HOT_MAX) && left == 0) {
			/* The lane that was hot for longest makes room: the cold ones stay in order. */
			sub_next_turn(subscriber);
			lane = sub_look_at_cold(subscriber, subscriber->n_lanes - SUB_HOT_MAX,
						record);
			if (lane)
				return lane;
		}
		/* If some were removed, others have moved to where we had looked already. */
	} while (shmb_unlikely(changes != subscriber->lane_changes));
	return NULL;
}

static inline void sub_describe(struct shmb_subscriber *subscriber, const struct sub_lane *lane,
				const struct shmb_record *record)
{
	subscriber->view.len = record->len;
	subscriber->view.type = record->type;
	subscriber->view.sequence = lane->reader.sequence;
	subscriber->view.publisher_id = lane->publisher_id;
	if (shmb_unlikely(subscriber->ordered))
		subscriber->view.term = lane->stamp;
}

/* Records of an ordered channel have been received: do they come behind later ones? */
static inline void sub_note_order(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	if (shmb_likely(!subscriber->ordered))
		return;
	if (lane->stamp < subscriber->stamp)
		subscriber->disordered++;
	else
		subscriber->stamp = lane->stamp;
}

static inline bool sub_is_plain(const struct sub_lane *lane)
{
	return lane->attached && !lane->gone && !lane->unguarded && !lane->watched &&
	       !lane->finished && !lane->follows && !lane->successor && !lane->reader.record_flags;
}

#endif
