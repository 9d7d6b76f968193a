/* SPDX-License-Identifier: Apache-2.0 */

/* Lanes that follow others: a publisher goes on in another segment, with all that is in the old one. */

#include "lib/sub-look.h"

/* The marks for a publisher are in another cursor, too, or in the same one for another pair. */
static void copy_marks(const struct shmb_subscriber *subscriber, const struct shmb_jobs *jobs,
		       const struct sub_lane *to)
{
	uint64_t owner = SHMB_LOAD(&to->slot->pair_id);
	bool ours = false;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		ours |= subscriber->lanes[i]->pair_id == owner &&
			subscriber->lanes[i]->publisher_id == to->publisher_id;
	if (!ours)
		shmb_jobs_clear(to->jobs->work);
	shmb_jobs_publish(jobs, to->jobs->work);
}

void sub_mirror(const struct sub_lane *lane, struct shmb_cursor_lane *slot,
		struct shmb_cursor_work *work)
{
	if (SHMB_LOAD(&slot->pair_id) != lane->pair_id) {
		shmb_cursor_vacate(slot);
		shmb_jobs_clear(work);
	}
	shmb_jobs_publish(lane->jobs, work);
	sub_store_position(lane, slot);
	shmb_cursor_start(slot, lane->pair_id);
}

void sub_store_ahead(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	uint64_t position, sequence;

	/*
	 * Z: pairs with Y in the publisher's replace_pair(): either we see the new bell, or it has
	 * seen what we have just stored in the old slot.
	 */
	shmb_fence();
	for (struct sub_lane *at = lane->successor; at; at = at->successor) {
		if (at->gone || sub_slot_is_taken(subscriber, at))
			continue;
		if (!shmb_bell_started(at->bell_words, &position, &sequence)) {
			/* Nobody but the broker, which has our newest cursor, should both of us die. */
			if (lane->jobs && at->slot != lane->slot)
				sub_mirror(lane, at->slot, at->jobs->work);
			continue;
		}
		if (lane->jobs)
			copy_marks(subscriber, lane->jobs, at);
		sub_store_position(lane, at->slot);
		shmb_cursor_start(at->slot, at->pair_id);
		sub_ring_publisher(subscriber, at);
	}
}

static uint32_t lane_index(const struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	uint32_t i = 0;

	while (subscriber->lanes[i] != lane)
		i++;
	return i;
}

/* Go on in @next where we are in @lane: a lane that follows another one has all of its bytes. */
static void carry_over(struct shmb_subscriber *subscriber, const struct sub_lane *lane,
		       struct sub_lane *next)
{
	next->finished = lane->finished;
	next->lossy = lane->lossy;
	if (!lane->attached)
		return;
	if (lane->jobs) {
		struct shmb_cursor_work *work = next->jobs->work;

		*next->jobs = *lane->jobs;
		next->jobs->work = sub_slot_is_taken(subscriber, next) ? NULL : work;
		if (next->jobs->work)
			copy_marks(subscriber, next->jobs, next);
	}
	sub_begin_lane(subscriber, next, lane->reader.position, lane->reader.sequence);
	if (next->gone || sub_slot_is_taken(subscriber, next))
		return;
	SHMB_STORE(&next->slot->lost, SHMB_LOAD(&lane->slot->lost));
	SHMB_STORE(&next->slot->expired, SHMB_LOAD(&lane->slot->expired));
	SHMB_STORE(&next->slot->conflated, SHMB_LOAD(&lane->slot->conflated));
	sub_store_position(next, next->slot);
	sub_settle_ringer(subscriber, next);
	shmb_cursor_start(next->slot, next->pair_id);
}

/*
 * Takes the newest successor that the publisher writes by now. What it had stored before is in both.
 * @finished: nothing is left in the lane, and what follows it will not be written any more.
 */
static bool take_over(struct shmb_subscriber *subscriber, struct sub_lane *lane, bool finished)
{
	struct sub_lane *next = finished ? lane->successor : NULL, *at;
	uint64_t position, sequence;

	/* L: pairs with K in the publisher's replace_pair(): the lane holds all up to its start. */
	for (at = lane->successor; at; at = at->successor)
		if (shmb_bell_started(at->bell_words, &position, &sequence))
			next = at;
	if (!next)
		return false;
	if (!lane->attached)
		sub_attach_lane(subscriber, lane);
	carry_over(subscriber, lane, next);
	sub_carry_fds(subscriber, lane, next);
	next->follows = false;
	/* In its place, so that its turn comes when it would have come. */
	subscriber->lanes[lane_index(subscriber, next)] = lane;
	subscriber->lanes[lane_index(subscriber, lane)] = next;
	for (at = lane; at != next; at = lane) {
		lane = at->successor;
		sub_remove_lane(subscriber, lane_index(subscriber, at));
	}
	subscriber->lane_changes++;
	return true;
}

/* Nothing is left in a lane whose publisher has gone. */
static void end_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	if (!lane->successor || !take_over(subscriber, lane, true))
		sub_remove_lane(subscriber, lane_index(subscriber, lane));
}

/* Is something of it not done yet? */
static bool has_jobs(const struct sub_lane *lane)
{
	return lane->jobs && lane->jobs->done < lane->jobs->next;
}

int sub_look_at_leaving(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			struct shmb_record *record)
{
	bool last;

	if (lane->follows)
		return 0;
	if (lane->successor && take_over(subscriber, lane, false))
		return -1;
	/* Known before we look: its publisher stores nothing more. */
	last = sub_is_last(lane);
	if (sub_look(subscriber, lane, record) &&
	    (!lane->gone || lane->reader.position < lane->end))
		return 1;
	if (!last || has_jobs(lane))
		return 0;
	end_lane(subscriber, lane);
	return -1;
}
