/* SPDX-License-Identifier: Apache-2.0 */

/* Ordered channels: one order for the records of all lanes. */

#include "lib/clock.h"
#include "lib/sub-look.h"

#define ORDER_WAIT_NS 100000000ull /* for who has stamped a record and not published it */
#define ORDER_TRIES   8u /* looks at all lanes while they change, and one more for each lane */
#define ORDER_WAIVERS 3u /* who has let us wait in vain so often is not waited for any more */

/* Times are unique in a lane; the same time in two lanes counts in the order of their publishers. */
static bool is_before(const struct sub_lane *lane, const struct sub_lane *other)
{
	return lane->stamp < other->stamp ||
	       (lane->stamp == other->stamp && lane->publisher_id < other->publisher_id);
}

/* May a record before that of @first come from a lane that had none? The clock has passed its time. */
static bool is_awaited(const struct sub_lane *lane, const struct sub_lane *first)
{
	const struct shmb_lane_segment *words = lane->lane.base;
	/* AL: pairs with AK in withdraw_stamp(): if nothing is on its way, what was has come. */
	uint64_t bound = SHMB_LOAD_ACQUIRE(&words->order_bound);

	if (bound == 0 || lane->gone || lane->finished || lane->n_waived >= ORDER_WAIVERS)
		return false;
	return bound <= first->stamp && bound != lane->waived;
}

/* The lane with the earliest record, and that record. Returns NULL if there is none. */
static struct sub_lane *find_first(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	struct sub_lane *first = NULL;
	struct shmb_record found;
	uint32_t i = 0;

	while (i < subscriber->n_lanes) {
		struct sub_lane *lane = subscriber->lanes[i];
		int result = sub_look_at(subscriber, lane, &found);

		if (shmb_unlikely(result < 0)) {
			first = NULL; /* others have moved to where we had looked already */
			i = 0;
			continue;
		}
		if (result == 0)
			lane->stamp = 0;
		else if (!first || is_before(lane, first)) {
			first = lane;
			*record = found;
		}
		i++;
	}
	return first;
}

/*
 * Is it the turn of the first one? Not while a publisher has announced an earlier record, or one has
 * come meanwhile: 0; -1: look again.
 */
static int is_due(struct shmb_subscriber *subscriber, const struct sub_lane *first)
{
	struct shmb_record record;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (lane == first || lane->stamp || lane->follows)
			continue;
		/* In this order: what was announced before we look has come, or is still announced. */
		if (is_awaited(lane, first))
			return 0;
		if (sub_look_at(subscriber, lane, &record))
			return -1;
	}
	return 1;
}

/* Nobody waits for long for who has stopped just there. */
static bool is_patient(struct shmb_subscriber *subscriber, const struct sub_lane *first,
		       uint64_t now_ns)
{
	if (!subscriber->held_ns)
		subscriber->held_ns = now_ns;
	if (now_ns - subscriber->held_ns < ORDER_WAIT_NS)
		return true;
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];
		const struct shmb_lane_segment *words = lane->lane.base;

		if (lane == first || lane->stamp || lane->gone)
			continue;
		lane->waived = SHMB_LOAD(&words->order_bound);
		lane->n_waived += lane->waived && lane->waived <= first->stamp;
	}
	subscriber->held_ns = 0;
	return false;
}

struct sub_lane *sub_next_ordered(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	struct sub_lane *first = NULL;
	uint64_t now_ns = 0;
	int due = -1;

	for (uint32_t tries = 0; tries < ORDER_TRIES + subscriber->n_lanes && due < 0; tries++) {
		first = find_first(subscriber, record);
		if (!first) {
			subscriber->held_ns = 0;
			return NULL;
		}
		/* So that whoever stamps later has a later stamp, and not the same. */
		do
			now_ns = shmb_clock_now_ns();
		while (shmb_unlikely(now_ns == first->stamp));
		/* AJ: pairs with AI in the publisher's announce_stamp(): what is not seen below is later. */
		shmb_fence();
		if (shmb_unlikely(SHMB_LOAD(subscriber->member.epoch) !=
				  subscriber->member.seen_epoch))
			shmb_member_sync(&subscriber->member);
		else
			due = is_due(subscriber, first);
	}
	if (shmb_unlikely(due <= 0) && is_patient(subscriber, first, now_ns))
		return NULL;
	subscriber->held_ns = 0;
	return first;
}
