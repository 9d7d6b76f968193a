/* SPDX-License-Identifier: Apache-2.0 */

/* Receiving: copying records out, or looking at them where they lie. */

#include <errno.h>
#include <sched.h>

#include "lib/copy.h"
#include "lib/error.h"
#include "lib/sub-look.h"

/* Once, and before anything else is received. */
static SHMB_SELDOM int say_evicted(struct shmb_subscriber *subscriber)
{
	subscriber->view.publisher_id = subscriber->evicted_by;
	subscriber->evicted_by = 0;
	return shmb_fail(
		-ENOBUFS,
		"publisher %llu has waited for %u ms, and does not wait for this subscriber "
		"any more, which is lossy from now on: %llu records are lost so far",
		(unsigned long long)subscriber->view.publisher_id,
		subscriber->member.evict_after_ms, (unsigned long long)subscriber->lost);
}

int sub_nothing(struct shmb_subscriber *subscriber)
{
	if (shmb_unlikely(subscriber->evicted_by))
		return say_evicted(subscriber);
	/* Whoever has announced an earlier record is about to publish it. */
	if (shmb_unlikely(subscriber->held_ns))
		sched_yield();
	if (!subscriber->failed)
		return -EAGAIN;
	subscriber->failed = false;
	return shmb_fail(-EBADMSG, "a publisher wrote bytes that cannot be records: it is not read "
				   "any more");
}

/* Why a record cannot be received just now. */
static int busy(const struct shmb_subscriber *subscriber)
{
	if (subscriber->state)
		return shmb_fail(-EOPNOTSUPP, "a state channel has values to get, not records");
	if (subscriber->queue)
		return shmb_fail(-EOPNOTSUPP, "records of a queue are taken, not received");
	return shmb_fail(-EBUSY, "records are peeked at: release them first");
}

/* Copies a record out. Returns false if it was overwritten meanwhile. */
static inline __attribute__((__always_inline__)) bool take(struct shmb_subscriber *subscriber,
							   struct sub_lane *lane,
							   const struct shmb_record *record,
							   void *data)
{
	shmb_copy(data, record->data, record->len);
	if (shmb_unlikely(sub_was_overwritten(subscriber, lane)))
		return false;
	if (shmb_unlikely(record->flags) && !sub_block_was_whole(subscriber, lane, record))
		return false;
	shmb_lane_skip(&lane->reader, record);
	subscriber->received++;
	sub_note_order(subscriber, lane);
	if (shmb_unlikely(subscriber->max_fds))
		sub_meet_fds(subscriber, lane);
	return true;
}

/* From one publisher or any number of them, whatever has become of them. */
static __attribute__((noinline)) int32_t recv_any(struct shmb_subscriber *subscriber, void *data,
						  uint32_t cap)
{
	struct shmb_record record;
	struct sub_lane *lane;
	int result = sub_enter(subscriber);

	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_unlikely(subscriber->n_peeked))
		return busy(subscriber);
	if (shmb_unlikely(subscriber->max_fds))
		sub_forget_fds(subscriber);
	do {
		lane = sub_next_record(subscriber, &record);
		if (!lane || shmb_unlikely(subscriber->evicted_by))
			return sub_nothing(subscriber);
		sub_describe(subscriber, lane, &record);
		if (shmb_unlikely(record.len > cap || !data)) {
			if (record.len)
				return shmb_fail(-EMSGSIZE,
						 "the record has %u bytes, the buffer %u",
						 record.len, data ? cap : 0);
			data = &record; /* an empty record needs no room */
		}
	} while (!take(subscriber, lane, &record, data));
	sub_store_cursor(subscriber, lane);
	if (subscriber->n_lanes == 1 && !subscriber->failed && !subscriber->look &&
	    sub_is_plain(lane))
		subscriber->only = lane;
	return (int32_t)record.len;
}

/*
 * From the one publisher that there is, where nothing about it is special: the way of a record from
 * its arrival to the caller's answer, and the round of who polls for it, have nothing to decide. What
 * may change that forgets @only, and recv_any() finds it again. Whatever is unusual starts over there.
 */
static inline int32_t recv_only(struct shmb_subscriber *subscriber, struct sub_lane *lane,
				void *data, uint32_t cap)
{
	const struct shmb_member *member = &subscriber->member;
	struct shmb_record record;
	int result = shmb_lane_peek(&lane->reader, &record);

	if (!result) {
		shmb_expect(&lane->reader, subscriber->view.len);
		return -EAGAIN;
	}
	if (shmb_unlikely(result < 0 || record.flags || record.len > cap || !data ||
			  (subscriber->record_len && record.len != subscriber->record_len)))
		return recv_any(subscriber, data, cap);
	sub_describe(subscriber, lane, &record);
	shmb_copy(data, record.data, record.len);
	/* V: pairs with the release of the epoch, as in sub_was_overwritten(). */
	SHMB_FENCE_ACQUIRE();
	if (shmb_unlikely(SHMB_LOAD(member->epoch) != member->seen_epoch))
		return recv_any(subscriber, data, cap);
	shmb_lane_skip(&lane->reader, &record);
	subscriber->received++;
	shmb_cursor_store(lane->slot, lane->reader.position, lane->reader.sequence);
	sub_ring_publisher(subscriber, lane);
	return (int32_t)record.len;
}

SHMB_API int32_t shmb_subscriber_recv(struct shmb_subscriber *subscriber, void *data, uint32_t cap)
{
	if (shmb_unlikely(!subscriber || !subscriber->only ||
			  !shmb_member_is_settled(&subscriber->member)))
		return recv_any(subscriber, data, cap);
	return recv_only(subscriber, subscriber->only, data, cap);
}

/* In a batch a publisher is told once for all records in a row. */
static inline void tell_untold(struct shmb_subscriber *subscriber)
{
	if (subscriber->untold)
		sub_store_cursor(subscriber, subscriber->untold);
	subscriber->untold = NULL;
}

SHMB_API int32_t shmb_subscriber_recv_many(struct shmb_subscriber *subscriber, void *data,
					   uint32_t cap, uint32_t *lens, uint32_t max)
{
	struct sub_lane *lane;
	struct shmb_record record;
	uint8_t *to = data;
	bool alone = false;
	uint32_t n = 0;
	int result = sub_enter(subscriber);

	if (result < 0)
		return result;
	if (!data || max == 0 || max > INT32_MAX)
		return shmb_fail(-EINVAL, "data is NULL, or max %u is not 1 to %d", max, INT32_MAX);
	if (subscriber->n_peeked)
		return busy(subscriber);
	if (shmb_unlikely(subscriber->max_fds))
		sub_forget_fds(subscriber);
	while (n < max) {
		lane = sub_next_record(subscriber, &record);
		if (subscriber->untold != lane)
			tell_untold(subscriber);
		if (!lane || shmb_unlikely(subscriber->evicted_by))
			break;
		if (shmb_unlikely(record.len > cap)) {
			if (n)
				break;
			sub_describe(subscriber, lane, &record);
			return shmb_fail(-EMSGSIZE, "the record has %u bytes, the buffer %u",
					 record.len, cap);
		}
		/* What carries fds comes alone. */
		alone = sub_carries_fds(subscriber, lane);
		if (shmb_unlikely(alone) && n)
			break;
		if (n == 0)
			sub_describe(subscriber, lane, &record);
		if (shmb_unlikely(!take(subscriber, lane, &record, to)))
			continue;
		subscriber->untold = lane;
		if (lens)
			lens[n] = record.len;
		to += record.len;
		cap -= record.len;
		n++;
		if (shmb_unlikely(alone))
			break;
	}
	tell_untold(subscriber);
	return n ? (int32_t)n : sub_nothing(subscriber);
}

/* How many records of the same length follow each other, from the first on, at most @max. */
static uint32_t count_run(const struct sub_lane *lane, const struct shmb_record *first,
			  uint32_t ext_len, uint32_t max)
{
	struct shmb_lane_reader reader = lane->reader;
	struct shmb_record record = *first;
	uint32_t n = 0;

	do {
		const uint8_t *end = record.data + record.span;

		shmb_lane_skip(&reader, &record);
		n++;
		if (n == max || shmb_lane_peek(&reader, &record) != 1 ||
		    record.data + ext_len != end || record.flags)
			break;
		record.data = end;
		/* Later records are not older. */
	} while (record.len == first->len + ext_len);
	return n;
}

SHMB_API int32_t shmb_subscriber_peek(struct shmb_subscriber *subscriber, uint32_t max)
{
	struct shmb_record record;
	struct sub_lane *lane;
	uint32_t n;
	int result = sub_enter(subscriber);

	if (result < 0)
		return result;
	if (max == 0)
		return shmb_fail(-EINVAL, "max is 0");
	if (subscriber->n_peeked)
		return subscriber->state || subscriber->queue ? busy(subscriber)
							      : (int32_t)subscriber->n_peeked;
	if (shmb_unlikely(subscriber->max_fds))
		sub_forget_fds(subscriber);
	do {
		sub_unpin(subscriber);
		lane = sub_next_record(subscriber, &record);
		if (!lane || shmb_unlikely(subscriber->evicted_by))
			return sub_nothing(subscriber);
		/* Another publisher's may be the next one, or none of those that follow. */
		n = max == 1 || record.flags || subscriber->ordered || subscriber->key_len ||
				    subscriber->max_fds
			    ? 1
			    : count_run(lane, &record, subscriber->ext_len,
					max > INT32_MAX ? INT32_MAX : max);
	} while (sub_was_overwritten(subscriber, lane) ||
		 (record.flags && !sub_pin_block(subscriber, lane, &record)));
	sub_describe(subscriber, lane, &record);
	subscriber->view.data = (uint64_t)(uintptr_t)record.data;
	subscriber->view.count = n;
	subscriber->view.stride = (uint32_t)record.span;
	subscriber->peeked = lane;
	subscriber->n_peeked = n;
	if (shmb_unlikely(subscriber->max_fds)) {
		sub_meet_fds(subscriber, lane);
		subscriber->fds_kept = true;
	}
	return (int32_t)n;
}

bool sub_peek_was_whole(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	uint64_t lost = 0;

	if (subscriber->peeked_hold) {
		if (subscriber->lossy || !sub_block_is_gone(subscriber, lane))
			return true;
		lane->finished = true;
		return false;
	}
	if (!sub_was_overwritten(subscriber, lane))
		return true;
	if (lane->lossy && shmb_lane_resync(&lane->reader, &lost) == 0)
		sub_count_lost(subscriber, lane, lost);
	return false;
}

int sub_enter_peeked(const struct shmb_subscriber *subscriber)
{
	if (!subscriber)
		return shmb_fail(-EINVAL, "subscriber is NULL");
	if (!*subscriber->member.fork_guard)
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	return subscriber->state || subscriber->queue ? busy(subscriber) : 0;
}

void sub_step_over(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint32_t count)
{
	/* All of them have the stride that the view says; it is ours, not the publisher's. */
	lane->reader.position += (uint64_t)count * subscriber->view.stride;
	lane->reader.sequence += count;
	subscriber->received += count;
	subscriber->fds_kept = false;
	sub_note_order(subscriber, lane);
	subscriber->n_peeked = 0;
	subscriber->peeked = NULL;
}

SHMB_API int32_t shmb_subscriber_release(struct shmb_subscriber *subscriber, uint32_t count)
{
	int result = sub_enter_peeked(subscriber);
	struct sub_lane *lane;
	bool whole;

	if (result < 0)
		return result;
	if (count > subscriber->n_peeked)
		return shmb_fail(-EINVAL, "%u records are peeked at, not %u", subscriber->n_peeked,
				 count);
	lane = subscriber->peeked;
	whole = count == 0 || sub_peek_was_whole(subscriber, lane);
	sub_unpin(subscriber);
	if (count == 0 || !whole) {
		subscriber->n_peeked = 0;
		subscriber->peeked = NULL;
		return whole ? 0
			     : shmb_fail(-ESTALE,
					 "the records were overwritten while you looked at them");
	}
	sub_step_over(subscriber, lane, count);
	sub_store_cursor(subscriber, lane);
	return 0;
}
