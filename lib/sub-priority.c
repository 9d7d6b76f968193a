/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Publishers of different priorities: as long as one of a higher priority has a record, none of a lower
 * one is looked at. Those of the same priority have their turns, as on a channel where all are equal.
 */

#include <errno.h>
#include <stdlib.h>

#include "lib/error.h"
#include "lib/sub-look.h"

/**
 * struct sub_level - the lanes of one priority
 * @first:	  of them, in sub_levels.lanes
 * @n:		  of them
 * @turn:	  whose turn it is
 * @publisher_id: of that one: it keeps its turn when others come and go
 * @sequence:	  where that one was when its turn began
 */
struct sub_level {
	uint32_t first;
	uint32_t n;
	uint32_t turn;
	uint64_t publisher_id;
	uint64_t sequence;
};

/**
 * struct sub_levels - the lanes of a subscriber by their priorities
 * @changes: lane_changes of the subscriber when they were last sorted
 * @cap:     of @lanes
 * @lanes:   of one level after the other
 * @levels:  by priority
 */
struct sub_levels {
	uint32_t changes;
	uint32_t cap;
	struct sub_lane **lanes;
	struct sub_level levels[SHMB_PRIORITY_MAX + 1];
};

void sub_levels_free(struct sub_levels *levels)
{
	if (levels)
		free(levels->lanes);
	free(levels);
}

int sub_reserve_level(struct shmb_subscriber *subscriber, uint32_t priority)
{
	struct sub_levels *levels = subscriber->levels;
	struct sub_lane **lanes;

	if (!levels && (!subscriber->n_lanes || subscriber->lanes[0]->priority == priority))
		return 0;
	if (!levels)
		levels = subscriber->levels = calloc(1, sizeof(*levels));
	if (!levels)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	if (levels->cap >= subscriber->cap_lanes)
		return 0;
	lanes = realloc(levels->lanes, subscriber->cap_lanes * sizeof(struct sub_lane *));
	if (!lanes)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	levels->lanes = lanes;
	levels->cap = subscriber->cap_lanes;
	return 0;
}

void sub_settle_levels(struct shmb_subscriber *subscriber)
{
	bool equal = true;

	if (shmb_likely(!subscriber->levels) || subscriber->ordered)
		return;
	for (uint32_t i = 1; i < subscriber->n_lanes && equal; i++)
		equal = subscriber->lanes[i]->priority == subscriber->lanes[0]->priority;
	subscriber->next = equal ? NULL : sub_next_of_levels;
	/* Nothing points to a lane that has gone. */
	subscriber->levels->changes = subscriber->lane_changes - 1;
}

static void give_turn(struct sub_levels *levels, struct sub_level *level, uint32_t turn)
{
	const struct sub_lane *lane = levels->lanes[level->first + turn];

	level->turn = turn;
	level->publisher_id = lane->publisher_id;
	level->sequence = lane->reader.sequence;
}

/* Whose turn it was keeps it, if it is still there. */
static void sort(struct shmb_subscriber *subscriber)
{
	struct sub_levels *levels = subscriber->levels;
	uint32_t first = 0;

	for (uint32_t i = 0; i <= SHMB_PRIORITY_MAX; i++)
		levels->levels[i].n = 0;
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		levels->levels[subscriber->lanes[i]->priority].n++;
	for (uint32_t i = 0; i <= SHMB_PRIORITY_MAX; i++) {
		struct sub_level *level = &levels->levels[i];

		level->first = first;
		first += level->n;
		if (level->turn >= level->n)
			level->turn = 0;
		level->n = 0;
	}
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];
		struct sub_level *level = &levels->levels[lane->priority];

		if (lane->publisher_id == level->publisher_id)
			level->turn = level->n;
		levels->lanes[level->first + level->n++] = lane;
	}
	for (uint32_t i = 0; i <= SHMB_PRIORITY_MAX; i++) {
		struct sub_level *level = &levels->levels[i];

		if (level->n &&
		    levels->lanes[level->first + level->turn]->publisher_id != level->publisher_id)
			give_turn(levels, level, level->turn);
	}
	levels->changes = subscriber->lane_changes;
}

/* Turns are counted in records, not in looks: who only waits looks, too. */
static struct sub_lane *next_of_level(struct shmb_subscriber *subscriber, struct sub_level *level,
				      struct shmb_record *record)
{
	struct sub_levels *levels = subscriber->levels;

	uint32_t n = level->n;
	bool any = false;

	/* Twice, if some had a record, but were at the end of their turns. */
	for (uint32_t i = 0; i < n || (any && i < 2 * n); i++) {
		struct sub_lane *lane = levels->lanes[level->first + level->turn];
		int found = sub_look_at(subscriber, lane, record);

		if (shmb_unlikely(found < 0))
			return NULL;
		if (found && lane->reader.sequence - level->sequence < SUB_BURST)
			return lane;
		any |= found;
		give_turn(levels, level, level->turn + 1 < n ? level->turn + 1 : 0);
	}
	return NULL;
}

struct sub_lane *sub_next_of_levels(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	struct sub_levels *levels = subscriber->levels;
	uint32_t changes;

	do {
		if (shmb_unlikely(levels->changes != subscriber->lane_changes))
			sort(subscriber);
		changes = subscriber->lane_changes;
		for (uint32_t i = SHMB_PRIORITY_MAX + 1; i-- > 0;) {
			struct sub_lane *lane =
				next_of_level(subscriber, &levels->levels[i], record);

			if (lane)
				return lane;
			if (shmb_unlikely(changes != subscriber->lane_changes))
				break;
		}
	} while (shmb_unlikely(changes != subscriber->lane_changes));
	return NULL;
}
