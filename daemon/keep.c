/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/keep.h"

/* Its position is in the slot of its cursor once it reads the lane, and so it has mapped it. */
static bool is_taken(const struct pair *pair)
{
	uint64_t offset =
		SHMB_BLOCK_LEN + (uint64_t)pair->members[0]->slot * sizeof(struct shmb_cursor_lane);
	struct shmb_cursor_lane slot;

	return segment_read(&pair->members[1]->object.segment, &slot, sizeof(slot), offset) &&
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

	if (!segment_read(segment, &lane, sizeof(lane), 0))
		return false;
	if (lane.position_hint) {
		/* Where the two had another pair before it went on where it was. */
		if (pair->replaces || !segment_read(&pair->object.segment, &bell, sizeof(bell), 0))
			return false;
		if (!bell.attached)
			return true;
		start = bell.start_position & mask & ~(uint64_t)7;
	}
	return segment_read(segment, &word, sizeof(word), SHMB_BLOCK_LEN + start) && word == 0;
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
	    !segment_read(segment, &lane, sizeof(lane), 0))
		return 0;
	/* Killed before it had noted its first one. */
	if (!lane.sequence_hint)
		return segment_read(segment, &word, sizeof(word), SHMB_BLOCK_LEN) && word != 0;
	return lane.sequence_hint < channel->history ? (uint32_t)lane.sequence_hint
						     : channel->history;
}

bool keep_owed(const struct pair *pair)
{
	const struct member *subscriber = pair->members[1];

	return subscriber->flags & SHMB_MEMBER_ACTIVE && !(subscriber->flags & SHMB_MEMBER_LOSSY) &&
	       !pair->stale && keep_fits(pair->members[0], subscriber) && !is_taken(pair) &&
	       !is_empty(pair);
}
