/* SPDX-License-Identifier: Apache-2.0 */

/* Records that lie in blocks: finding, pinning and holding them. */

#include <errno.h>
#include <stdlib.h>

#include "lib/clock.h"
#include "lib/copy.h"
#include "lib/error.h"
#include "lib/sub-internal.h"

/* An arena that has not come by then never will: longer than a busy machine needs for it. */
#define ARENA_NS 5000000000ull

void sub_tell_hold(struct shmb_subscriber *subscriber, const struct shmb_hold *hold)
{
	struct shmb_cursor_segment *cursor = subscriber->cursor;
	const struct sub_cursor *at = subscriber->cursors;
	uint32_t i = (uint32_t)(hold - subscriber->holder->holds);

	for (;;) {
		if (hold->words.block) {
			SHMB_STORE(&cursor->holds[i].since_ns, hold->words.since_ns);
			SHMB_STORE(&cursor->holds[i].sequence, hold->words.sequence);
			SHMB_STORE(&cursor->holds[i].len, hold->words.len);
			SHMB_STORE(&cursor->holds[i].block, hold->words.block);
		} else {
			shmb_block_let_go(&cursor->holds[i]);
		}
		if (shmb_likely(!at))
			return;
		cursor = at->map.base;
		at = at->next;
	}
}

void sub_withdraw_holds(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	for (uint32_t i = 0; subscriber->holder && i <= SHMB_HOLDS_MAX; i++) {
		struct shmb_hold *hold = &subscriber->holder->holds[i];

		if (!hold->used || hold->publisher_id != lane->publisher_id)
			continue;
		hold->unguarded |= lane->unguarded;
		if (!hold->words.block)
			continue;
		hold->words.block = 0;
		sub_tell_hold(subscriber, hold);
	}
}

int sub_on_arena(struct shmb_member *member, struct shmb_event *event)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);
	int index = shmb_event_find(event, SHMB_FD_ROLE_PEER);

	if (!subscriber->holder || index < 0)
		return shmb_fail(-EPROTO, "the broker announced an arena without its segment");
	return shmb_holder_add(subscriber->holder, event->arena.publisher_id, event->arena.number,
			       event->fds[index], &event->descriptors[index]);
}

/* Its publisher does not wait for us: the block of the next record is used again already. */
static void pass_by(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		    const struct shmb_record *record)
{
	if (!subscriber->lossy) {
		lane->finished = true;
		return;
	}
	shmb_lane_skip(&lane->reader, record);
	sub_count_lost(subscriber, lane, 1);
}

bool sub_block_is_gone(const struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	return (subscriber->lossy || lane->unguarded) &&
	       shmb_block_gone(lane->lane.base, lane->reader.position);
}

/* We are told of an arena before its publisher uses it, unless the broker dies in between. */
static int stall(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	uint64_t now = shmb_clock_now_ns();

	if (!lane->stalled_ns)
		lane->stalled_ns = now;
	if (shmb_client_retry_at_ns(subscriber->member.client) != UINT64_MAX)
		lane->stalled_ns = now;
	if (now - lane->stalled_ns < ARENA_NS)
		return 0;
	lane->finished = true;
	subscriber->failed = true;
	if (!lane->gone)
		shmb_member_report(&subscriber->member, lane->pair_id, 0);
	return 0;
}

int sub_find_block(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		   struct shmb_record *record)
{
	uint32_t head_len = subscriber->private ? SHMB_CALL_HEADER_LEN : 0;
	uint64_t left = lane->reader.mask / record->span + 1;
	int result = 1;

	while (result == 1 && record->flags) {
		if (!subscriber->holder ||
		    record->len != head_len + sizeof(struct shmb_block_descriptor))
			return -EBADMSG;
		if (head_len)
			subscriber->found_head =
				SHMB_LOAD((const uint64_t *)(const void *)record->data);
		record->data += head_len;
		result = shmb_holder_find(subscriber->holder, lane->publisher_id, record,
					  &subscriber->found, &subscriber->found_page);
		if (shmb_unlikely(sub_block_is_gone(subscriber, lane))) {
			pass_by(subscriber, lane, record);
			if (lane->finished || !--left)
				return 0;
			result = sub_look_watched(subscriber, lane, record);
			continue;
		}
		if (shmb_unlikely(result == 0))
			return stall(subscriber, lane);
		lane->stalled_ns = 0;
		return result == 1 ? 1 : -EBADMSG;
	}
	return result;
}

bool sub_block_was_whole(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			 const struct shmb_record *record)
{
	if (shmb_likely(!sub_block_is_gone(subscriber, lane)))
		return true;
	pass_by(subscriber, lane, record);
	return false;
}

bool sub_pin_block(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		   const struct shmb_record *record)
{
	struct shmb_hold *hold = shmb_holder_take(subscriber->holder);

	hold->peeked = true;
	hold->publisher_id = lane->publisher_id;
	hold->unguarded = lane->unguarded;
	hold->arena = subscriber->found;
	hold->arena->n_users++;
	hold->words.sequence = lane->reader.sequence;
	hold->words.len = record->len;
	subscriber->peeked_hold = hold;
	/* A reliable subscriber's position protects it. */
	if (!subscriber->lossy || lane->gone)
		return true;
	hold->words.since_ns = shmb_clock_now_ns();
	hold->words.block =
		shmb_hold_name(lane->number, hold->arena->number, subscriber->found_page);
	sub_tell_hold(subscriber, hold);
	if (shmb_block_keep(lane->lane.base, lane->reader.position))
		return true;
	pass_by(subscriber, lane, record);
	return false;
}

/* Done with looking at it, or with holding it. */
static void let_go(struct shmb_subscriber *subscriber, struct shmb_hold *hold)
{
	if (hold->words.block) {
		hold->words.block = 0;
		sub_tell_hold(subscriber, hold);
	}
	shmb_holder_give(subscriber->holder, hold);
}

void sub_unpin(struct shmb_subscriber *subscriber)
{
	if (subscriber->peeked_hold)
		let_go(subscriber, subscriber->peeked_hold);
	subscriber->peeked_hold = NULL;
}

/* What lies in the lane cannot stay there. */
static int copy_peeked(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		       struct shmb_hold *hold)
{
	uint32_t len = subscriber->view.len;

	hold->copy = malloc(len ? len : 1);
	if (!hold->copy)
		return shmb_fail(-ENOMEM, "no memory for a record of %u bytes", len);
	shmb_copy(hold->copy, (const void *)(uintptr_t)subscriber->view.data, len);
	if (!sub_peek_was_whole(subscriber, lane))
		return shmb_fail(-ESTALE, "the record was overwritten while you looked at it");
	hold->publisher_id = lane->publisher_id;
	hold->words.len = len;
	subscriber->view.data = (uint64_t)(uintptr_t)hold->copy;
	return 0;
}

/* Its block is told of in the cursor, before the position says that we have passed it. */
static int keep_peeked(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		       struct shmb_hold *hold)
{
	uint64_t offset = subscriber->view.data - (uint64_t)(uintptr_t)hold->arena->map.base;

	if (!sub_peek_was_whole(subscriber, lane))
		return shmb_fail(-ESTALE, "the record was overwritten while you looked at it");
	hold->peeked = false;
	hold->unguarded |= lane->unguarded;
	if (hold->words.block || lane->gone)
		return 0;
	hold->words.since_ns = shmb_clock_now_ns();
	hold->words.block =
		shmb_hold_name(lane->number, hold->arena->number,
			       (uint32_t)((offset - SHMB_BLOCK_LEN) / SHMB_ARENA_PAGE_LEN));
	sub_tell_hold(subscriber, hold);
	return 0;
}

SHMB_API int32_t shmb_subscriber_hold(struct shmb_subscriber *subscriber)
{
	int result = sub_enter_peeked(subscriber);
	struct shmb_holder *holder;
	struct shmb_hold *hold;
	struct sub_lane *lane;

	if (result < 0)
		return result;
	if (!subscriber->n_peeked)
		return shmb_fail(-EINVAL, "nothing is peeked at");
	holder = subscriber->holder;
	if (!holder || holder->n_holds == holder->limits.max_holds)
		return shmb_fail(-EDQUOT, "the channel allows each subscriber %u holds",
				 holder ? holder->limits.max_holds : 0);
	lane = subscriber->peeked;
	hold = subscriber->peeked_hold;
	if (hold) {
		result = keep_peeked(subscriber, lane, hold);
	} else {
		hold = shmb_holder_take(holder);
		result = copy_peeked(subscriber, lane, hold);
	}
	if (result < 0) {
		let_go(subscriber, hold);
		subscriber->peeked_hold = NULL;
		if (result == -ESTALE) {
			subscriber->n_peeked = 0;
			subscriber->peeked = NULL;
		}
		return result;
	}
	subscriber->peeked_hold = NULL;
	subscriber->view.count = 1;
	holder->n_holds++;
	sub_step_over(subscriber, lane, 1);
	sub_store_cursor(subscriber, lane);
	return (int32_t)(hold - holder->holds);
}

SHMB_API int32_t shmb_subscriber_unhold(struct shmb_subscriber *subscriber, uint32_t hold)
{
	int result = sub_enter_peeked(subscriber);
	struct shmb_holder *holder;
	struct shmb_hold *held;
	uint64_t publisher_id;
	bool stale;

	if (result < 0)
		return result;
	holder = subscriber->holder;
	held = holder && hold <= SHMB_HOLDS_MAX ? &holder->holds[hold] : NULL;
	if (!held || !held->used || held->peeked)
		return shmb_fail(-ENOENT, "there is no hold %u", hold);
	stale = held->arena && (held->unguarded || subscriber->member.evicted);
	publisher_id = held->publisher_id;
	let_go(subscriber, held);
	holder->n_holds--;
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i]->publisher_id == publisher_id &&
		    !subscriber->lanes[i]->gone)
			sub_ring_publisher(subscriber, subscriber->lanes[i]);
	if (stale)
		return shmb_fail(-ESTALE,
				 "the broker has thrown the subscriber out: the record may "
				 "have been overwritten");
	return 0;
}
