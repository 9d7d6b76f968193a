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

/* Takes the word off a record. In a block there is only what follows it. */
static inline uint64_t behead(const struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	uint64_t head;

	if (shmb_unlikely(record->flags))
		return subscriber->found_head;
	if (shmb_unlikely(record->len < sizeof(head))) {
		record->type = SHMB_TYPE_HEADLESS;
		return 0;
	}
	head = SHMB_LOAD((const uint64_t *)(const void *)record->data);
	record->data += sizeof(head);
	record->len -= (uint32_t)sizeof(head);
	return head;
}

int shmb_subscriber_look(struct shmb_subscriber *subscriber, struct shmb_record *record,
			 uint64_t *ret_head, struct shmb_peer **ret_peer)
{
	struct sub_lane *lane = subscriber->only;
	int result = -EAGAIN;

	_Static_assert(sizeof(*ret_head) == SHMB_CALL_HEADER_LEN, "");
	if (shmb_likely(lane && shmb_member_is_settled(&subscriber->member)))
		result = shmb_lane_peek(&lane->reader, record);
	if (shmb_unlikely(result < 0 || (result && record->flags)))
		result = look_any(subscriber, record, &lane);
	else if (!result)
		shmb_expect(&lane->reader, subscriber->view.len);
	if (result > 0) {
		*ret_head = behead(subscriber, record);
		*ret_peer = &lane->peer;
	}
	return result;
}

bool shmb_subscriber_pass(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			  const struct shmb_record *record)
{
	struct sub_lane *lane = shmb_container_of(peer, struct sub_lane, peer);

	if (shmb_unlikely(sub_was_overwritten(subscriber, lane)))
		return false;
	if (shmb_unlikely(record->flags) && !sub_block_was_whole(subscriber, lane, record))
		return false;
	/* What follows is expected to take as much of the ring. */
	subscriber->view.len = record->len + SHMB_CALL_HEADER_LEN;
	shmb_lane_skip(&lane->reader, record);
	subscriber->received++;
	sub_store_cursor(subscriber, lane);
	return true;
}

int32_t shmb_subscriber_keep(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			     const struct shmb_record *record, const void **ret_data)
{
	struct sub_lane *lane = shmb_container_of(peer, struct sub_lane, peer);
	int32_t result;

	/* As if it were peeked at. */
	if (shmb_unlikely(sub_was_overwritten(subscriber, lane)))
		return -ESTALE;
	if (subscriber->holder && record->flags && !sub_pin_block(subscriber, lane, record)) {
		sub_unpin(subscriber);
		return -ESTALE;
	}
	subscriber->view.data = (uint64_t)(uintptr_t)record->data;
	subscriber->view.len = record->len;
	subscriber->view.stride = (uint32_t)record->span;
	subscriber->peeked = lane;
	subscriber->n_peeked = 1;
	result = shmb_subscriber_hold(subscriber);
	sub_unpin(subscriber);
	subscriber->peeked = NULL;
	subscriber->n_peeked = 0;
	*ret_data = (const void *)(uintptr_t)subscriber->view.data;
	return result;
}

bool shmb_subscriber_may_keep(const struct shmb_subscriber *subscriber)
{
	const struct shmb_holder *holder = subscriber->holder;

	return holder && holder->n_holds < holder->limits.max_holds;
}

int32_t shmb_subscriber_adopt(struct shmb_subscriber *subscriber, void *memory)
{
	struct shmb_hold *hold = shmb_holder_take(subscriber->holder);

	hold->copy = memory;
	subscriber->holder->n_holds++;
	return (int32_t)(hold - subscriber->holder->holds);
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
