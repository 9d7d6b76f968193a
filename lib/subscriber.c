/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_subscriber: the lanes of all publishers of a channel, read in turns.
 *
 * Each lane is read by ring.h; the cursor tells the publishers how far. Sleeping is announced in
 * one word of the cursor, and announced means: from here on whoever publishes rings. Peers that
 * have gone are read to their end before they are forgotten.
 *
 * This file opens and closes it. sub-lane.c has the lanes that come and go, sub-look.h the way to the next
 * record, sub-recv.c receiving, sub-wait.c waiting for it; the others what only some channels have.
 */

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "lib/channel.h"
#include "lib/error.h"
#include "lib/options.h"
#include "lib/sub-internal.h"

#define SPIN_DEFAULT_NS 50000u
#define SPIN_TRUST_NS	1000000u /* first guess of how long records take to come: do not spin */

static void prepare(struct shmb_member *member)
{
	to_subscriber(member)->cursor = member->own.base;
	SHMB_STORE(&to_subscriber(member)->cursor->credit, to_subscriber(member)->credit);
	sub_on_doorbell(member);
}

/* On one CPU the publisher cannot run while we spin. */
static bool one_cpu(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1;
}

static int open_subscriber(struct shmb_channel *channel,
			   const struct shmb_subscriber_options *options, uint32_t flags,
			   struct shmb_subscriber **ret_subscriber)
{
	struct shmb_subscriber *subscriber;
	int result;

	subscriber = calloc(1, sizeof(*subscriber));
	if (!subscriber)
		return shmb_fail(-ENOMEM, "no memory for a subscriber");
	subscriber->private = channel->pattern == SHMB_PATTERN_CALL;
	subscriber->lossy = options->flags & SHMB_SUBSCRIBER_LOSSY;
	if (!(options->flags & SHMB_SUBSCRIBER_NO_HISTORY))
		subscriber->member.history = options->history ? options->history : UINT32_MAX;
	subscriber->member.evict_after_ms = options->evict_after_ms;
	subscriber->spin_ns = options->spin_ns ? options->spin_ns : SPIN_DEFAULT_NS;
	if (options->flags & SHMB_SUBSCRIBER_NO_SPIN || one_cpu())
		subscriber->spin_ns = 0;
	subscriber->gap_ns = SPIN_TRUST_NS;
	subscriber->ext_len = channel->ext_len;
	subscriber->key_offset = options->conflate_offset;
	subscriber->key_len = options->conflate_len;
	subscriber->ordered = channel->ordered;
	subscriber->max_fds = channel->max_fds;
	if (subscriber->key_len)
		subscriber->look = sub_look_conflated;
	else if (subscriber->ext_len)
		subscriber->look = sub_look_extended;
	if (subscriber->ordered)
		subscriber->next = sub_next_ordered;
	subscriber->ttl_ns = channel->ttl_ms * 1000000ull;
	subscriber->record_len = channel->record_len ? channel->record_len + channel->ext_len : 0;
	subscriber->member.role = SHMB_ROLE_SUBSCRIBER;
	subscriber->member.flags = flags | (subscriber->lossy ? SHMB_MEMBER_LOSSY : 0);
	subscriber->member.on_pair = sub_on_pair;
	subscriber->member.on_unpair = sub_on_unpair;
	subscriber->member.on_arena = sub_on_arena;
	subscriber->member.on_doorbell = sub_on_doorbell;
	subscriber->member.on_granted = sub_on_granted;
	subscriber->member.on_prepare = sub_on_prepare;
	subscriber->member.is_complete = sub_is_complete;
	subscriber->member.on_move = sub_on_move;
	subscriber->member.channel = channel;
	if (channel->pattern == SHMB_PATTERN_QUEUE) {
		result = sub_open_queue(subscriber, channel, options);
		if (result < 0) {
			free(subscriber);
			return result;
		}
	}
	if (channel->blocks.arena_len) {
		subscriber->holder = calloc(1, sizeof(*subscriber->holder));
		if (!subscriber->holder) {
			free(subscriber);
			return shmb_fail(-ENOMEM, "no memory for a subscriber");
		}
		subscriber->holder->limits = channel->blocks;
	}
	if (channel->pattern == SHMB_PATTERN_STATE) {
		/* As if it always peeked: there is nothing to receive. */
		subscriber->n_peeked = 1;
		subscriber->state = shmb_state_reader_new(subscriber);
		if (!subscriber->state) {
			free(subscriber);
			return shmb_fail(-ENOMEM, "no memory for a subscriber");
		}
	}
	result = shmb_member_open(&subscriber->member, channel, prepare);
	if (result < 0) {
		sub_close_dead(subscriber);
		shmb_state_reader_free(subscriber->state);
		shmb_holder_free(subscriber->holder, false);
		free(subscriber);
		return result;
	}
	*ret_subscriber = subscriber;
	return 0;
}

/* May it do without all but the newest record of each key? */
static int check_conflation(const struct shmb_channel *channel,
			    const struct shmb_subscriber_options *options)
{
	uint64_t end = (uint64_t)options->conflate_offset + options->conflate_len;

	if (!options->conflate_len)
		return options->conflate_offset
			       ? shmb_fail(-EINVAL, "conflate_offset %u, but conflate_len is 0",
					   options->conflate_offset)
			       : 0;
	if (channel->pattern == SHMB_PATTERN_QUEUE)
		return shmb_fail(-EINVAL, "records of a queue are work: none supersedes another");
	if (channel->pattern == SHMB_PATTERN_STATE)
		return shmb_fail(-EINVAL, "a state channel has only the newest value of each key: "
					  "there is nothing to conflate");
	if (channel->blocks.arena_len)
		return shmb_fail(-EINVAL,
				 "a subscriber of a channel with blocks cannot conflate records");
	if (options->conflate_len > SHMB_CONFLATE_LEN_MAX)
		return shmb_fail(-EINVAL, "a key has at most %u bytes, not %u",
				 SHMB_CONFLATE_LEN_MAX, options->conflate_len);
	if (channel->record_len && end > channel->record_len)
		return shmb_fail(-EINVAL,
				 "the key would end at byte %llu, a record of this channel has %u",
				 (unsigned long long)end, channel->record_len);
	return 0;
}

SHMB_API int32_t shmb_subscriber_open(struct shmb_channel *channel,
				      const struct shmb_subscriber_options *given,
				      struct shmb_subscriber **ret_subscriber)
{
	uint32_t known =
		SHMB_SUBSCRIBER_LOSSY | SHMB_SUBSCRIBER_NO_SPIN | SHMB_SUBSCRIBER_NO_HISTORY;
	struct shmb_subscriber_options options;
	int result;

	if (!channel || !ret_subscriber)
		return shmb_fail(-EINVAL, "channel or ret_subscriber is NULL");
	if (!*channel->client->fork_guard)
		return shmb_fail(-ECHILD, "this channel belongs to the parent process");
	result = shmb_options_take(&options, sizeof(options), given, "subscriber");
	if (result < 0)
		return result;
	if (options.flags & ~known)
		return shmb_fail(-EINVAL, "unknown subscriber flags 0x%x", options.flags);
	if (options.flags & SHMB_SUBSCRIBER_LOSSY && options.evict_after_ms)
		return shmb_fail(
			-EINVAL,
			"a lossy subscriber holds nobody up: there is nothing to evict it from");
	if (options.evict_after_ms && channel->blocks.arena_len)
		return shmb_fail(-EINVAL,
				 "a subscriber of a channel with blocks cannot be evicted");
	if (channel->pattern == SHMB_PATTERN_CALL)
		return shmb_fail(-EOPNOTSUPP, "a call channel has callers and servers");
	result = check_conflation(channel, &options);
	return result < 0 ? result : open_subscriber(channel, &options, 0, ret_subscriber);
}

int shmb_subscriber_open_private(struct shmb_channel *channel,
				 const struct shmb_subscriber_options *options, uint32_t flags,
				 struct shmb_subscriber **ret_subscriber)
{
	return open_subscriber(channel, options, flags, ret_subscriber);
}

/* Publishers need not wait for the broker, which may be gone, to know that nobody reads any more. */
static void leave(struct shmb_subscriber *subscriber)
{
	for (struct sub_cursor *at = subscriber->cursors; at; at = at->next)
		shmb_cursor_leave(at->map.base);
	shmb_cursor_leave(subscriber->cursor);
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (!subscriber->lanes[i]->gone)
			sub_ring_publisher(subscriber, subscriber->lanes[i]);
}

SHMB_API int32_t shmb_subscriber_close(struct shmb_subscriber *subscriber)
{
	bool abandon;

	if (!subscriber)
		return 0;
	abandon = !*subscriber->member.fork_guard;
	if (subscriber->waitset)
		return shmb_fail(-EBUSY, "the subscriber is in a wait set: remove it first");
	if (*subscriber->member.fork_guard)
		leave(subscriber);
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		/* In a forked child the mappings are not there to be unmapped. */
		if (!*subscriber->member.fork_guard)
			subscriber->lanes[i]->lane.base = subscriber->lanes[i]->bell.base = NULL;
		sub_free_lane(subscriber->lanes[i]);
	}
	subscriber->n_lanes = 0;
	while (subscriber->drained)
		sub_forget_drained(&subscriber->drained);
	for (struct sub_cursor *at = subscriber->cursors; at; at = at->next)
		if (!*subscriber->member.fork_guard)
			at->map.base = NULL;
	sub_free_cursors(subscriber);
	free(subscriber->spare);
	shmb_fds_deinit(&subscriber->fds_left);
	shmb_member_close(&subscriber->member);
	free(subscriber->lanes);
	sub_levels_free(subscriber->levels);
	sub_close_dead(subscriber);
	shmb_state_reader_free(subscriber->state);
	shmb_holder_free(subscriber->holder, abandon);
	free(subscriber);
	return 0;
}

SHMB_API struct shmb_view *shmb_subscriber_view(struct shmb_subscriber *subscriber)
{
	return subscriber ? &subscriber->view : NULL;
}

struct shmb_member *shmb_subscriber_member(struct shmb_subscriber *subscriber)
{
	return &subscriber->member;
}

int shmb_subscriber_set_waitset(struct shmb_subscriber *subscriber, void *waitset)
{
	if (waitset && subscriber->waitset)
		return shmb_fail(-EEXIST, "the subscriber is in a wait set already");
	subscriber->waitset = waitset;
	return 0;
}

SHMB_API int32_t shmb_subscriber_stats(struct shmb_subscriber *subscriber,
				       struct shmb_subscriber_stats *stats, uint32_t cap)
{
	struct shmb_subscriber_stats all = { 0 };
	int result = sub_enter(subscriber);

	if (result < 0)
		return result;
	if (!stats)
		return shmb_fail(-EINVAL, "stats is NULL");
	all.subscriber_id = subscriber->member.id;
	all.received = subscriber->received;
	all.lost = subscriber->lost;
	all.expired = subscriber->expired;
	all.conflated = subscriber->conflated;
	all.disordered = subscriber->disordered;
	all.fds_lost = subscriber->fds_lost;
	all.sleeps = subscriber->sleeps;
	all.backstops = subscriber->backstops;
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];
		const struct shmb_lane_segment *words = lane->lane.base;
		uint64_t published;

		all.n_publishers += !lane->follows;
		if (subscriber->state || lane->follows ||
		    (!lane->attached && !sub_attach_lane(subscriber, lane)))
			continue;
		published = SHMB_LOAD(&words->sequence_hint);
		if (published > lane->reader.sequence)
			all.pending += published - lane->reader.sequence;
	}
	memcpy(stats, &all, cap < sizeof(all) ? cap : sizeof(all));
	return 0;
}
