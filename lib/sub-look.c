/* SPDX-License-Identifier: Apache-2.0 */

/* What is seldom needed to find the next record: see sub-look.h. */

#include <errno.h>

#include "lib/clock.h"
#include "lib/sub-look.h"

#define COLD_LOOKS 8u /* looks at the others after each burst */

int sub_look_specially(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		       struct shmb_record *record)
{
	return subscriber->look(subscriber, lane, record);
}

struct sub_lane *sub_next_specially(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	return subscriber->next(subscriber, record);
}

void sub_condemn(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	lane->finished = true;
	subscriber->failed = true;
	subscriber->member.noted_changes--; /* that is news */
	if (!lane->gone)
		shmb_member_report(&subscriber->member, lane->pair_id, EBADMSG);
}

void sub_count_lost(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint64_t lost)
{
	if (!lost)
		return;
	subscriber->lost += lost;
	subscriber->view.lost = subscriber->lost;
	if (!lane->gone) {
		SHMB_STORE(&lane->slot->lost, SHMB_LOAD(&lane->slot->lost) + lost);
	} else if (!lane->caught_up) {
		/* The ring that is left begins here. Once: it may be one that goes on writing. */
		lane->caught_up = true;
		lane->end = lane->reader.position + subscriber->member.channel->lane_len;
	}
}

/* Its publisher says it in the bell of the newest pair that it knows. */
static bool is_evicted(const struct sub_lane *lane)
{
	for (; lane; lane = lane->successor)
		if (shmb_bell_evicted(lane->bell_words))
			return true;
	return false;
}

/* We may be lapped from now on, or have been. */
static SHMB_SELDOM void become_lossy(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	lane->lossy = true;
	subscriber->evicted_by = lane->publisher_id;
}

bool sub_check_overwritten(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	const struct shmb_member *member = &subscriber->member;

	if (!lane->lossy && !lane->unguarded) {
		if (SHMB_LOAD(member->epoch) != member->seen_epoch) {
			shmb_member_sync(&subscriber->member);
			if (member->evicted)
				sub_unguard_lanes(subscriber);
		}
		if (lane->watched && is_evicted(lane))
			become_lossy(subscriber, lane);
		if (!lane->lossy && !lane->unguarded)
			return false;
	}
	if (!shmb_lane_lapped(&lane->reader))
		return false;
	lane->finished |= lane->unguarded;
	return true;
}

int sub_look_watched(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		     struct shmb_record *record)
{
	uint64_t position = lane->reader.position, lost = 0;
	int result;

	if (!lane->lossy) {
		result = shmb_lane_peek(&lane->reader, record);
		if (!sub_was_overwritten(subscriber, lane))
			return result;
		/* A step over a pad counts only if the pad was whole. */
		lane->reader.position = position;
		if (!lane->lossy)
			return 0;
	}
	result = shmb_lane_peek_lossy(&lane->reader, record, &lost);
	sub_count_lost(subscriber, lane, lost);
	return result;
}

int sub_look_for_job(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		     struct shmb_record *record)
{
	uint64_t start = lane->reader.position;
	int result;

	for (;;) {
		result = shmb_lane_peek(&lane->reader, record);
		if (result == 1)
			result = shmb_jobs_accept(lane->jobs, subscriber->member.id, record,
						  &subscriber->attempt);
		else
			break;
		if (result != 0)
			break;
		/* An honest publisher cannot have more than a ring that we have not read. */
		if (lane->reader.position - start > lane->reader.mask)
			return -EBADMSG;
		shmb_lane_skip(&lane->reader, record);
	}
	if (lane->reader.position != start)
		sub_store_cursor(subscriber, lane);
	return result;
}

int sub_look_twice(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		   struct shmb_record *record, int result)
{
	if (result == 1 && record->flags)
		result = sub_find_block(subscriber, lane, record);
	if (result == 0 ||
	    (result == 1 && (!subscriber->record_len || record->len == subscriber->record_len)))
		return result;
	/* What we had is others' by now, and named so: it is not missing. */
	if (!sub_was_overwritten(subscriber, lane) && !(lane->jobs && lane->unguarded))
		sub_condemn(subscriber, lane);
	return 0;
}

static const struct shmb_record_ext *ext_of(const struct shmb_record *record)
{
	return (const void *)record->data;
}

/* Is it too old? Its publisher may say what it likes, but the future is not. */
static bool is_expired(const struct shmb_subscriber *subscriber, const struct shmb_record *record,
		       uint64_t now_ns)
{
	uint64_t published_ns = SHMB_LOAD(&ext_of(record)->published_ns);

	return subscriber->ttl_ns && published_ns < now_ns &&
	       now_ns - published_ns > subscriber->ttl_ns;
}

int sub_look_extended(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		      struct shmb_record *record)
{
	uint64_t now_ns = 0, expired = 0, expired_len = 0, fds;
	int result;

	while ((result = sub_look_raw(subscriber, lane, record)) > 0) {
		if (shmb_unlikely(record->len < subscriber->ext_len)) {
			if (!sub_was_overwritten(subscriber, lane))
				sub_condemn(subscriber, lane);
			result = 0;
			break;
		}
		if (!now_ns && subscriber->ttl_ns)
			now_ns = shmb_clock_now_ns();
		if (shmb_likely(!is_expired(subscriber, record, now_ns)))
			break;
		fds = SHMB_LOAD(&ext_of(record)->fds);
		if (sub_was_overwritten(subscriber, lane))
			continue;
		shmb_lane_skip(&lane->reader, record);
		sub_pass_fds(subscriber, lane, fds);
		expired++;
		expired_len += record->span;
		if (expired_len > lane->reader.mask) {
			result = 0;
			break;
		}
	}
	if (shmb_unlikely(expired)) {
		subscriber->expired += expired;
		if (!lane->gone)
			SHMB_STORE(&lane->slot->expired, SHMB_LOAD(&lane->slot->expired) + expired);
		sub_store_cursor(subscriber, lane);
	}
	if (result > 0) {
		lane->fds = SHMB_LOAD(&ext_of(record)->fds);
		lane->stamp = SHMB_LOAD(&ext_of(record)->published_ns);
		if (shmb_unlikely(!lane->stamp))
			lane->stamp = 1; /* 0: there is no record */
		record->data += subscriber->ext_len;
		record->len -= subscriber->ext_len;
	}
	return result;
}

struct sub_lane *sub_look_at_cold(struct shmb_subscriber *subscriber, uint32_t n,
				  struct shmb_record *record)
{
	for (; n > 0 && subscriber->n_lanes > SUB_HOT_MAX; n--) {
		struct sub_lane *lane;
		int found;

		if (subscriber->cold < SUB_HOT_MAX || subscriber->cold >= subscriber->n_lanes)
			subscriber->cold = SUB_HOT_MAX;
		lane = subscriber->lanes[subscriber->cold];
		found = sub_look_at(subscriber, lane, record);
		if (found > 0) {
			subscriber->lanes[subscriber->cold++] =
				subscriber->lanes[subscriber->current];
			subscriber->lanes[subscriber->current] = lane;
			subscriber->burst = 1;
			return lane;
		}
		if (shmb_likely(found == 0))
			subscriber->cold++;
	}
	return NULL;
}

struct sub_lane *sub_guess_cold(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	uint32_t cold = subscriber->cold;
	struct sub_lane *lane = sub_look_at_cold(subscriber, 1, record);

	/* In vain: it is still next. */
	if (!lane)
		subscriber->cold = cold;
	return lane;
}

struct sub_lane *sub_end_burst(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	struct sub_lane *lane = NULL;

	if (subscriber->n_lanes > SUB_HOT_MAX && !subscriber->was_cold)
		lane = sub_look_at_cold(subscriber, COLD_LOOKS, record);
	subscriber->was_cold = lane != NULL;
	if (!lane)
		sub_next_turn(subscriber);
	return lane;
}
