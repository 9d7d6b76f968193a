/* SPDX-License-Identifier: Apache-2.0 */

/* What a state channel needs of lanes: they have cells, which state.c reads. */

#include "lib/sub-internal.h"

struct shmb_state_reader *shmb_subscriber_state(struct shmb_subscriber *subscriber)
{
	return subscriber ? subscriber->state : NULL;
}

uint32_t shmb_subscriber_n_lanes(const struct shmb_subscriber *subscriber)
{
	return subscriber->n_lanes;
}

/*
 * Nothing is read from it any more: its publisher has gone, or puts into a newer segment that we have
 * been told of, and rings the bell that came with it.
 */
static bool is_left(const struct sub_lane *lane)
{
	uint64_t position, sequence;

	for (const struct sub_lane *at = lane; at; at = at->successor) {
		if (at->gone)
			return true;
		/* L: pairs with K in the publisher's replace_pair(): all of its values are there. */
		if (at != lane && shmb_bell_started(at->bell_words, &position, &sequence))
			return true;
	}
	return false;
}

const struct shmb_lane_segment *shmb_subscriber_lane(struct shmb_subscriber *subscriber,
						     uint32_t index, uint64_t *ret_publisher_id,
						     bool *ret_moving)
{
	struct sub_lane *lane = subscriber->lanes[index];

	*ret_moving = lane->successor != NULL;
	lane->left |= is_left(lane);
	if (lane->left)
		return NULL;
	if (!lane->attached)
		sub_attach_lane(subscriber, lane);
	*ret_publisher_id = lane->publisher_id;
	return lane->lane.base;
}

/* Its successor, if it has one, is the first of that publisher then. */
bool shmb_subscriber_forget_left(struct shmb_subscriber *subscriber)
{
	bool any = false;

	for (uint32_t i = 0; i < subscriber->n_lanes;) {
		struct sub_lane *lane = subscriber->lanes[i];

		/* The order is kept: whoever follows it stands behind it. */
		if (!lane->follows && lane->left) {
			if (lane->successor)
				lane->successor->follows = false;
			sub_remove_lane(subscriber, i);
			any = true;
		} else {
			i++;
		}
	}
	return any;
}

bool shmb_subscriber_any_left(const struct shmb_subscriber *subscriber)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (is_left(subscriber->lanes[i]))
			return true;
	return false;
}
