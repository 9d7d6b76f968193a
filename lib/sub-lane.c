/* SPDX-License-Identifier: Apache-2.0 */

/* Publishers that come and go, and their lanes with them. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "lib/extension.h"
#include "lib/fd.h"
#include "lib/history.h"
#include "lib/sub-internal.h"

/* The bell of a lane that has none: nobody rings it. */
static const struct shmb_bell_segment no_bell;

static struct sub_lane *find_lane(struct shmb_subscriber *subscriber, uint64_t pair_id)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i]->pair_id == pair_id)
			return subscriber->lanes[i];
	return NULL;
}

static void unmap_lane(struct sub_lane *lane)
{
	shmb_map_deinit(&lane->lane);
	shmb_map_deinit(&lane->bell);
	shmb_ringer_deinit(&lane->ringer);
	shmb_fds_deinit(&lane->ends);
	free(lane->jobs);
	lane->jobs = NULL;
	sub_conflation_free(lane->conflation);
	lane->conflation = NULL;
}

void sub_free_lane(struct sub_lane *lane)
{
	unmap_lane(lane);
	free(lane);
}

/*
 * The broker need not keep it any more. It may die before it hears that, and its successor show us the
 * lane once more: until it says that it has let go of it, we remember that we have read it.
 */
static void drain_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	unmap_lane(lane);
	lane->next_drained = subscriber->drained;
	subscriber->drained = lane;
	shmb_member_drained(&subscriber->member, lane->pair_id);
}

/* Where the lane of that pair is in the list, or where that ends. */
static struct sub_lane **find_drained(struct shmb_subscriber *subscriber, uint64_t pair_id)
{
	struct sub_lane **at = &subscriber->drained;

	while (*at && (*at)->pair_id != pair_id)
		at = &(*at)->next_drained;
	return at;
}

void sub_forget_drained(struct sub_lane **at)
{
	struct sub_lane *lane = *at;

	*at = lane->next_drained;
	free(lane);
}

static void set_hot(struct shmb_subscriber *subscriber)
{
	subscriber->n_hot = subscriber->n_lanes < SUB_HOT_MAX ? subscriber->n_lanes : SUB_HOT_MAX;
}

static bool has_other_lane(const struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i] != lane &&
		    subscriber->lanes[i]->publisher_id == lane->publisher_id)
			return true;
	return false;
}

void sub_remove_lane(struct shmb_subscriber *subscriber, uint32_t index)
{
	struct sub_lane *lane = subscriber->lanes[index];

	if (subscriber->holder && !has_other_lane(subscriber, lane))
		shmb_holder_forget(subscriber->holder, lane->publisher_id);
	/* One that has gone need not be told, and what follows a lane takes its position over. */
	if (subscriber->untold == lane)
		subscriber->untold = NULL;
	shmb_member_drop_doorbells(&subscriber->member, lane->pair_id);
	sub_leave_fds(subscriber, lane);
	/* Keep the order: whoever has waited longest is next. */
	memmove(&subscriber->lanes[index], &subscriber->lanes[index + 1],
		(subscriber->n_lanes - index - 1) * sizeof(subscriber->lanes[0]));
	subscriber->n_lanes--;
	set_hot(subscriber);
	subscriber->lane_changes++;
	sub_settle_levels(subscriber);
	if (subscriber->cold > index)
		subscriber->cold--;
	if (subscriber->current > index)
		subscriber->current--;
	if (subscriber->current >= subscriber->n_hot)
		subscriber->current = 0;
	subscriber->burst = 0;
	if (shmb_unlikely(subscriber->cursors != NULL))
		sub_free_cursors(subscriber);
	if (lane->kept)
		drain_lane(subscriber, lane);
	else
		sub_free_lane(lane);
}

static int map_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		    struct shmb_event *event)
{
	const struct shmb_channel *channel = subscriber->member.channel;
	int peer = shmb_event_find(event, SHMB_FD_ROLE_PEER);
	int bell = shmb_event_find(event, SHMB_FD_ROLE_BELL);
	int result;

	if (peer < 0 || (bell < 0 && !lane->kept) ||
	    event->pair.slot >= shmb_cursor_slots(channel->pattern, channel->max_publishers) ||
	    event->pair.lane_len != channel->lane_len ||
	    event->descriptors[peer].segment_len != SHMB_BLOCK_LEN + (uint64_t)channel->lane_len)
		return shmb_fail(-EPROTO, "the broker announced a publisher that does not fit the "
					  "channel");
	result = shmb_map_reader(&lane->lane, event->fds[peer], &event->descriptors[peer],
				 SHMB_SEGMENT_LANE);
	if (result == 0 && bell >= 0)
		result = shmb_map_reader(&lane->bell, event->fds[bell], &event->descriptors[bell],
					 SHMB_SEGMENT_BELL);
	if (result < 0)
		return result;
	lane->bell_words = bell < 0 ? &no_bell : lane->bell.base;
	lane->history = event->pair.history;
	lane->words = subscriber->cursor;
	lane->number = event->pair.slot;
	lane->slot = sub_slot_in(subscriber->cursor, lane);
	if (subscriber->key_len) {
		lane->conflation = sub_conflation_new(subscriber);
		return lane->conflation
			       ? 0
			       : shmb_fail(-ENOMEM, "no memory for the keys of a publisher");
	}
	if (!subscriber->queue)
		return 0;
	lane->jobs = calloc(1, sizeof(*lane->jobs));
	if (!lane->jobs)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	lane->jobs->lane = ++subscriber->n_job_lanes;
	if (!lane->gone || lane->kept)
		lane->jobs->work = sub_work_in(subscriber->cursor, channel, lane);
	return 0;
}

void sub_settle_ringer(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	const struct shmb_lane_segment *words = lane->lane.base;
	uint32_t used;

	if (shmb_ringer_is_socket(&lane->ringer))
		/* T: pairs with U in the publisher's pub_settle_ringer(): it rings the newer one now. */
		used = shmb_member_settle_sockets(
			&subscriber->member, &lane->ringer, lane->pair_id,
			SHMB_LOAD_ACQUIRE(&lane->bell_words->doorbell_generation));
	else
		used = shmb_ringer_settle(&lane->ringer, SHMB_LOAD(&words->doorbell_generation));
	/*
	 * U: pairs with T in the publisher's sockets_of_peer(): what we rang before is on the old
	 * socket, and the position for it in the slot. Killed before: it keeps a doorbell too many.
	 */
	if (lane->attached && !lane->gone)
		SHMB_STORE_RELEASE(&lane->slot->doorbell_generation, used);
}

/* The newest lane of a publisher. */
static struct sub_lane *find_publisher(struct shmb_subscriber *subscriber, uint64_t id)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i]->publisher_id == id && !subscriber->lanes[i]->successor)
			return subscriber->lanes[i];
	return NULL;
}

static void set_gone(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	if (lane->gone)
		return;
	sub_withdraw_holds(subscriber, lane);
	lane->gone = lane->peer.gone = true;
	/* It may be another publisher's by now, unless the broker looks there for what we have done. */
	if (lane->jobs && !lane->kept)
		lane->jobs->work = NULL;
	lane->end = lane->reader.position + subscriber->member.channel->lane_len;
	shmb_member_drop_doorbells(&subscriber->member, lane->pair_id);
}

/* A pair that we know, or have known. */
static void on_same_pair(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			 struct shmb_event *event)
{
	shmb_fds_add(&lane->ends, event);
	if (!(event->pair.flags & SHMB_PAIR_GONE)) {
		shmb_ringer_add(&lane->ringer, event);
		sub_settle_ringer(subscriber, lane);
		return;
	}
	lane->kept = true;
	/* One that is followed by another is read until that one takes over. */
	if (!lane->successor)
		set_gone(subscriber, lane);
}

int sub_on_pair(struct shmb_member *member, struct shmb_event *event)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);
	struct sub_lane *lane = find_lane(subscriber, event->pair.pair_id), *before;
	int result;

	subscriber->only = NULL;
	if (lane) {
		on_same_pair(subscriber, lane, event);
		return 0;
	}
	if (*find_drained(subscriber, event->pair.pair_id)) {
		shmb_member_drained(member, event->pair.pair_id);
		return 0;
	}
	if (subscriber->n_lanes == subscriber->cap_lanes) {
		uint32_t cap = subscriber->cap_lanes ? 2 * subscriber->cap_lanes : 4;
		struct sub_lane **grown =
			realloc(subscriber->lanes, cap * sizeof(struct sub_lane *));

		if (!grown)
			return shmb_fail(-ENOMEM, "no memory for a publisher");
		subscriber->lanes = grown;
		subscriber->cap_lanes = cap;
	}
	lane = calloc(1, sizeof(*lane));
	if (!lane)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	lane->pair_id = event->pair.pair_id;
	lane->publisher_id = event->pair.peer_id;
	lane->kept = lane->gone = lane->peer.gone = event->pair.flags & SHMB_PAIR_GONE;
	lane->peer.reply_to = event->peer.reply_to;
	lane->peer.uid = event->peer.uid;
	lane->peer.pid = event->peer.pid;
	lane->lossy = subscriber->lossy;
	lane->watched = subscriber->lossy || member->evict_after_ms;
	lane->priority =
		(event->pair.flags & SHMB_MEMBER_PRIORITY_MASK) >> SHMB_MEMBER_PRIORITY_SHIFT;
	result = sub_reserve_level(subscriber, lane->priority);
	if (result == 0)
		result = map_lane(subscriber, lane, event);
	if (result < 0) {
		sub_free_lane(lane);
		return result;
	}
	shmb_ringer_add(&lane->ringer, event);
	shmb_fds_add(&lane->ends, event);
	before = find_publisher(subscriber, lane->publisher_id);
	if (before) {
		before->successor = lane;
		/* What becomes of the publisher the new pair will tell. */
		before->gone = before->peer.gone = false;
		lane->follows = true;
	}
	subscriber->lanes[subscriber->n_lanes++] = lane;
	set_hot(subscriber);
	subscriber->lane_changes++;
	sub_settle_levels(subscriber);
	return 0;
}

/* Its publisher lives, and gives them to others. */
static void give_up_jobs(struct sub_lane *lane)
{
	lane->finished = true;
	lane->jobs->done = lane->jobs->next;
	lane->jobs->n_failed = lane->jobs->n_dead = 0;
}

void sub_on_unpair(struct shmb_member *member, const struct shmb_msg_unpair *unpair)
{
	struct sub_lane *lane = find_lane(to_subscriber(member), unpair->pair_id);
	struct sub_lane **drained = find_drained(to_subscriber(member), unpair->pair_id);

	to_subscriber(member)->only = NULL;
	if (*drained)
		sub_forget_drained(drained);
	if (lane)
		lane->kept = false;
	/* One that is followed by another is read until that one takes over. */
	if (!lane || lane->successor)
		return;
	lane->unguarded |= unpair->reason == SHMB_GONE_PARTED;
	set_gone(to_subscriber(member), lane);
	if (lane->jobs)
		lane->jobs->work = NULL;
	if (lane->jobs && lane->unguarded)
		give_up_jobs(lane);
}

void sub_unguard_lanes(struct shmb_subscriber *subscriber)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		subscriber->lanes[i]->unguarded = true;
		set_gone(subscriber, subscriber->lanes[i]);
	}
}

/* The slot is ours now. Whose it was has gone, though we may not have been told; it reads no marks. */
static void part_marks(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *other = subscriber->lanes[i];

		if (other->publisher_id != lane->publisher_id &&
		    other->jobs->work == lane->jobs->work)
			other->jobs->work = NULL;
	}
}

void sub_begin_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint64_t position,
		    uint64_t sequence)
{
	const struct shmb_channel *channel = subscriber->member.channel;

	shmb_lane_reader_init(&lane->reader, lane->lane.base, channel->lane_len, position,
			      sequence);
	lane->reader.record_flags =
		lane->jobs ? (uint32_t)SHMB_RECORD_EXT : shmb_ext_record_flags(channel->ext_len);
	lane->attached = true;
	lane->end = lane->reader.position + channel->lane_len;
}

bool sub_attach_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	uint64_t position, sequence;

	if (lane->bell_words == &no_bell && lane->jobs)
		position = sequence = 0; /* a copy that the broker has made, all of which counts */
	else if (lane->bell_words == &no_bell)
		shmb_history_start_left(lane->lane.base, subscriber->member.channel->lane_len,
					lane->history, &position, &sequence);
	else if (!shmb_bell_started(lane->bell_words, &position, &sequence))
		return false;
	sub_begin_lane(subscriber, lane, position, sequence);
	/* The slot may be somebody else's by now. */
	if (lane->gone && !sub_is_marked(lane))
		return true;
	shmb_cursor_vacate(lane->slot);
	SHMB_STORE(&lane->slot->position, lane->reader.position);
	SHMB_STORE(&lane->slot->sequence, sequence);
	SHMB_STORE(&lane->slot->lost, 0);
	SHMB_STORE(&lane->slot->expired, 0);
	SHMB_STORE(&lane->slot->conflated, 0);
	if (lane->jobs) {
		part_marks(subscriber, lane);
		shmb_jobs_clear(lane->jobs->work);
	}
	sub_settle_ringer(subscriber, lane);
	shmb_cursor_start(lane->slot, lane->pair_id);
	return true;
}

void sub_wake_publisher(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint32_t sleep)
{
	lane->space_rung = sleep;
	if (lane->ringer.n > 1)
		sub_settle_ringer(subscriber, lane);
	shmb_ringer_ring(&lane->ringer);
}

bool sub_slot_is_taken(const struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	uint64_t owner = SHMB_LOAD(&lane->slot->pair_id);

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		const struct sub_lane *other = subscriber->lanes[i];

		if (other->pair_id == owner && other->slot == lane->slot)
			return other->publisher_id != lane->publisher_id;
	}
	return false;
}
