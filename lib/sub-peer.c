/* SPDX-License-Identifier: Apache-2.0 */

/* Private lanes: each of them is a peer of its own, see link.c. */

#include <errno.h>

#include "lib/sub-look.h"

struct shmb_peer *shmb_subscriber_peer(struct shmb_subscriber *subscriber, uint32_t index)
{
	struct sub_lane *lane = subscriber->lanes[index];

	return lane->finished ? NULL : &lane->peer;
}

void shmb_subscriber_hold_back(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			       bool held)
{
	peer->held = held;
	subscriber->only = NULL;
}

int shmb_subscriber_note(struct shmb_subscriber *subscriber)
{
	uint64_t epoch;

	if (!SHMB_LOAD(subscriber->member.fork_guard))
		return shmb_member_enter_slow(&subscriber->member);
	epoch = SHMB_LOAD(subscriber->member.epoch);
	subscriber->only = NULL;
	shmb_member_sync(&subscriber->member);
	subscriber->member.noted_epoch = epoch;
	subscriber->member.noted_changes = subscriber->member.changes;
	return 0;
}

static __attribute__((noinline)) int
look_any(struct shmb_subscriber *subscriber, struct shmb_record *record, struct sub_lane **ret_lane)
{
	int result = sub_enter(subscriber);

	if (result < 0)
		return result;
	do {
		*ret_lane = sub_next_record(subscriber, record);
		if (!*ret_lane) {
			subscriber->failed =
				false; /* its peer is not heard of any more, that is all */
			return 0;
		}
	} while (sub_was_overwritten(subscriber, *ret_lane));
	if (subscriber->n_lanes == 1 && !subscriber->failed && sub_is_plain(*ret_lane))
		subscriber->only = *ret_lane;
	return 1;
}

int shmb_subscriber_look(struct shmb_subscriber *subscriber, struct shmb_record *record,
			 struct shmb_peer **ret_peer)
{
	struct sub_lane *lane = subscriber->only;
	int result = -EAGAIN;

	if (shmb_likely(lane && shmb_member_is_settled(&subscriber->member)))
		result = shmb_lane_peek(&lane->reader, record);
	if (shmb_unlikely(result < 0))
		result = look_any(subscriber, record, &lane);
	else if (!result)
		shmb_expect(&lane->reader, subscriber->view.len);
	if (result > 0)
		*ret_peer = &lane->peer;
	return result;
}

bool shmb_subscriber_pass(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			  const struct shmb_record *record)
{
	struct sub_lane *lane = shmb_container_of(peer, struct sub_lane, peer);

	if (shmb_unlikely(sub_was_overwritten(subscriber, lane)))
		return false;
	subscriber->view.len = record->len;
	shmb_lane_skip(&lane->reader, record);
	subscriber->received++;
	sub_store_cursor(subscriber, lane);
	return true;
}

void shmb_subscriber_count_quick(struct shmb_subscriber *subscriber)
{
	subscriber->gap_ns -= subscriber->gap_ns / 8;
}

bool shmb_subscriber_spins(const struct shmb_subscriber *subscriber)
{
	return subscriber->spin_ns != 0;
}

void shmb_subscriber_accuse(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			    uint32_t rule)
{
	struct sub_lane *lane = shmb_container_of(peer, struct sub_lane, peer);

	lane->finished = true;
	subscriber->only = NULL;
	subscriber->member.noted_changes--;
	if (!lane->gone)
		shmb_member_report(&subscriber->member, lane->pair_id, rule);
}
