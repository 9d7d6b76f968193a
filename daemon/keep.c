/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "lib/bell.h"
#include "lib/queue.h"

#include "daemon/keep.h"

static uint64_t slot_offset(const struct member *publisher)
{
	return SHMB_BLOCK_LEN + (uint64_t)publisher->slot * sizeof(struct shmb_cursor_lane);
}

/* Its position is in the slot of its cursor once it reads the lane, and so it has mapped it. */
static bool is_taken(const struct pair *pair)
{
	struct shmb_cursor_lane slot;

	return segment_read(&pair->members[1]->object.segment, &slot, sizeof(slot),
			    slot_offset(pair->members[0])) == 0 &&
	       slot.pair_id == object_id(&pair->object);
}

/*
 * Is there no record behind the place where the subscriber begins? Whoever lies here has written the
 * records, too.
 */
static bool is_empty(const struct pair *pair)
{
	const struct segment *segment = &pair->members[0]->object.segment;
	uint64_t mask = (uint64_t)pair->members[0]->channel->lane_len - 1, start = 0, word;
	struct shmb_lane_segment lane;
	struct shmb_bell_segment bell;

	if (segment_read(segment, &lane, sizeof(lane), 0) < 0)
		return false;
	if (lane.position_hint) {
		/* Where the two had another pair before it went on where it was. */
		if (pair->replaces ||
		    segment_read(&pair->object.segment, &bell, sizeof(bell), 0) < 0)
			return false;
		if (!bell.attached)
			return true;
		start = bell.start_position & mask & ~(uint64_t)7;
	}
	return segment_read(segment, &word, sizeof(word), SHMB_BLOCK_LEN + start) == 0 && word == 0;
}

/* A lane that its writer could cut off goes to readers of the same user only. */
bool keep_fits(const struct member *publisher, const struct member *subscriber)
{
	return segment_exists(&publisher->object.segment) &&
	       (member_usable(publisher) || publisher->uid == subscriber->uid);
}

uint32_t keep_n_records(const struct member *publisher)
{
	const struct channel *channel = publisher->channel;
	const struct segment *segment = &publisher->object.segment;
	struct shmb_lane_segment lane;
	uint64_t word;

	if (!channel->retained || !channel->history ||
	    segment_read(segment, &lane, sizeof(lane), 0) < 0)
		return 0;
	/* Killed before it had noted its first one. */
	if (!lane.sequence_hint)
		return segment_read(segment, &word, sizeof(word), SHMB_BLOCK_LEN) == 0 && word != 0;
	return lane.sequence_hint < channel->history ? (uint32_t)lane.sequence_hint
						     : channel->history;
}

/* Was the slot stored for this pair, or for an earlier one of the same two? Ids grow. */
static bool is_theirs(const struct pair *pair, const struct shmb_cursor_lane *slot)
{
	return slot->pair_id > object_id(&pair->members[0]->object) &&
	       slot->pair_id <= object_id(&pair->object);
}

/*
 * Where its worker was, that may be overwritten: its publisher has heard of its end, and keeps the orphans
 * only. Returns 1; 0: there is none of them.
 */
static int skip_to_orphans(const struct pair *pair, struct shmb_lane_mark *at)
{
	const struct segment *segment = &pair->members[0]->object.segment;
	uint64_t mask = (uint64_t)pair->members[0]->channel->lane_len - 1, header;
	struct shmb_lane_segment lane;
	int r = segment_read(segment, &lane, sizeof(lane), 0);

	if (r < 0 || lane.orphans_from == SHMB_NO_ORPHANS)
		return r;
	if (lane.orphans_from <= at->position)
		return 1;
	r = segment_read(segment, &header, sizeof(header),
			 SHMB_BLOCK_LEN + (lane.orphans_from & mask & ~(uint64_t)7));
	at->position = lane.orphans_from;
	at->sequence = header >> SHMB_RECORD_SEQ_SHIFT;
	return r < 0 ? r : 1;
}

int keep_marks(const struct pair *pair, struct shmb_lane_mark *ret_at,
	       struct shmb_cursor_work *ret_work)
{
	const struct member *publisher = pair->members[0];
	const struct segment *cursor = &pair->members[1]->object.segment;
	uint64_t work =
		shmb_cursor_work_offset(publisher->channel->max_publishers, publisher->slot);
	bool has_bell = segment_exists(&pair->object.segment);
	struct shmb_bell_segment bell = { 0 };
	struct shmb_cursor_lane slot;
	int r;

	*ret_at = (struct shmb_lane_mark){ 0 };
	memset(ret_work, 0, sizeof(*ret_work));
	r = segment_read(cursor, &slot, sizeof(slot), slot_offset(publisher));
	if (r == 0 && has_bell)
		r = segment_read(&pair->object.segment, &bell, sizeof(bell), 0);
	if (r < 0)
		return r;
	if (is_theirs(pair, &slot)) {
		*ret_at = (struct shmb_lane_mark){ slot.position, slot.sequence };
		r = segment_read(cursor, ret_work, sizeof(*ret_work), work);
	} else if (!has_bell) {
		return publisher->reply_to != 0; /* a copy is read from its beginning */
	} else if (!bell.attached) {
		return 0;
	} else {
		*ret_at = (struct shmb_lane_mark){ bell.start_position, bell.start_sequence };
	}
	if (r == 0 && bell.orphaned == 1)
		return skip_to_orphans(pair, ret_at);
	return r < 0 ? r : 1;
}

/* Is there anything behind what the worker has done? It may be for others. */
static bool is_worked_off(const struct pair *pair)
{
	uint64_t mask = (uint64_t)pair->members[0]->channel->lane_len - 1, word;
	struct shmb_cursor_work work;
	struct shmb_lane_mark at;
	int r = keep_marks(pair, &at, &work);

	if (r <= 0)
		return r == 0;
	return segment_read(&pair->members[0]->object.segment, &word, sizeof(word),
			    SHMB_BLOCK_LEN + (at.position & mask & ~(uint64_t)7)) == 0 &&
	       word == 0;
}

bool keep_owed(const struct pair *pair, unsigned leaver)
{
	const struct member *publisher = pair->members[0], *subscriber = pair->members[1];

	if (!(subscriber->flags & SHMB_MEMBER_ACTIVE) || subscriber->flags & SHMB_MEMBER_LOSSY ||
	    pair->stale)
		return false;
	if (publisher->channel->pattern == SHMB_PATTERN_QUEUE) {
		if (!segment_exists(&publisher->object.segment) ||
		    !segment_exists(&subscriber->object.segment))
			return false;
		/* It may be about to give it more. */
		if (leaver == 1 && !member_is_kept(publisher))
			return pair->views[0]->shown || !publisher->present;
		return !is_worked_off(pair);
	}
	return keep_fits(publisher, subscriber) && !is_taken(pair) && !is_empty(pair);
}
