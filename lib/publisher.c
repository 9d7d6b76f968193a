/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_publisher: one lane, and the subscribers that read it.
 *
 * Publishing is plain stores into the lane and one release store (ring.h); then one fence and a
 * look at each subscriber's sleep word. Cursors are read only when the cached limit is used up.
 * Membership is taken in at the start of a call, when the channel's epoch has moved, so a new
 * reliable subscriber is known before anything it was promised could be overwritten.
 *
 * This file opens and closes it. pub-pair.c has the subscribers that come and go, pub-send.c publishing,
 * pub-space.c and pub-wait.c room in the lane; the others what only some channels have.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/ahead.h"
#include "lib/call.h"
#include "lib/channel.h"
#include "lib/extension.h"
#include "lib/options.h"
#include "lib/pub-internal.h"

int shmb_publisher_sync(struct shmb_publisher *publisher)
{
	/* Something may have come that has moved no epoch. */
	if (SHMB_LOAD(publisher->member.fork_guard) &&
	    shmb_unlikely(SHMB_LOAD(&publisher->member.inbox.first) != NULL))
		shmb_member_sync(&publisher->member);
	return shmb_member_enter(&publisher->member);
}

uint32_t shmb_publisher_n_pairs(const struct shmb_publisher *publisher)
{
	return publisher->n_pairs;
}

static void prepare(struct shmb_member *member)
{
	struct shmb_publisher *publisher = to_publisher(member);

	shmb_lane_writer_init(&publisher->writer, member->own.base, member->channel->lane_len);
	publisher->writer.record_flags = shmb_ext_record_flags(publisher->ext_len);
	pub_on_doorbell(member);
}

static int open_publisher(struct shmb_channel *channel, uint32_t flags, uint32_t priority,
			  uint64_t partner_id, uint64_t reply_to,
			  struct shmb_publisher **ret_publisher)
{
	struct shmb_publisher *publisher = calloc(1, sizeof(*publisher));
	int result;

	if (!publisher)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	publisher->flags = flags;
	publisher->member.partner_id = partner_id;
	publisher->member.reply_to = reply_to;
	publisher->record_len = channel->record_len;
	publisher->ext_len = channel->ext_len;
	publisher->ordered = channel->ordered;
	publisher->max_fds = channel->max_fds;
	publisher->record_len_max = shmb_record_len_max(channel->lane_len) - channel->ext_len;
	publisher->full_sequence = UINT64_MAX;
	publisher->ahead_max = shmb_ahead_copy_max();
	shmb_copier_init(&publisher->copier, channel->lane_len);
	publisher->member.channel = channel;
	result = pub_open_arena(publisher, channel);
	if (result < 0) {
		free(publisher);
		return result;
	}
	if (channel->pattern == SHMB_PATTERN_CALL) {
		publisher->head_len = SHMB_CALL_HEADER_LEN;
		publisher->record_len_max = shmb_call_len_max(channel->lane_len, &channel->blocks);
		/* What callers and servers send has been checked, unless it is a failure. */
		if (publisher->record_len_max < SHMB_CALL_FAILURE_LEN_MAX)
			publisher->record_len_max = SHMB_CALL_FAILURE_LEN_MAX;
	}
	if (channel->pattern == SHMB_PATTERN_STATE) {
		/* No record has this length: whoever sends is told. */
		publisher->record_len = UINT32_MAX;
		publisher->state = shmb_state_writer_new(&publisher->member);
		if (!publisher->state) {
			free(publisher);
			return shmb_fail(-ENOMEM, "no memory for a publisher");
		}
	}
	if (channel->pattern == SHMB_PATTERN_QUEUE) {
		publisher->record_len_max = shmb_queue_record_len_max(channel->lane_len);
		publisher->ext_len = sizeof(struct shmb_queue_address);
		publisher->queue = calloc(1, sizeof(*publisher->queue));
		if (!publisher->queue) {
			free(publisher);
			return shmb_fail(-ENOMEM, "no memory for a publisher");
		}
	}
	publisher->member.role = SHMB_ROLE_PUBLISHER;
	publisher->member.flags = (flags & SHMB_PUBLISHER_TRUSTING ? SHMB_MEMBER_TRUSTING : 0) |
				  priority << SHMB_MEMBER_PRIORITY_SHIFT;
	publisher->member.on_pair = pub_on_pair;
	publisher->member.on_unpair = pub_on_unpair;
	publisher->member.on_doorbell = pub_on_doorbell;
	publisher->member.on_granted = pub_on_granted;
	publisher->member.on_prepare = pub_on_prepare;
	publisher->member.knows = pub_knows;
	publisher->member.is_complete = pub_is_complete;
	publisher->member.on_move = pub_on_move;
	result = shmb_member_open(&publisher->member, channel, prepare);
	if (result < 0) {
		pub_free_queue(publisher->queue);
		shmb_arena_free(publisher->arena);
		free(publisher->state);
		free(publisher);
		return result;
	}
	publisher->view.publisher_id = publisher->member.id;
	*ret_publisher = publisher;
	return 0;
}

static int check_priority(const struct shmb_channel *channel, uint32_t priority)
{
	_Static_assert(SHMB_PRIORITY_MAX == SHMB_MEMBER_PRIORITY_MASK >> SHMB_MEMBER_PRIORITY_SHIFT,
		       "");
	if (priority > SHMB_PRIORITY_MAX)
		return shmb_fail(-EINVAL, "a priority is 0 to %u, not %u", SHMB_PRIORITY_MAX,
				 priority);
	if (priority && channel->ordered)
		return shmb_fail(-EINVAL,
				 "the records of an ordered channel come in one order: none "
				 "has priority");
	if (priority && channel->pattern == SHMB_PATTERN_STATE)
		return shmb_fail(-EINVAL,
				 "the values of a state channel are read in any order: none has "
				 "priority");
	return 0;
}

SHMB_API int32_t shmb_publisher_open(struct shmb_channel *channel,
				     const struct shmb_publisher_options *given,
				     struct shmb_publisher **ret_publisher)
{
	struct shmb_publisher *publisher = NULL;
	struct shmb_publisher_options options;
	int result;

	if (!channel || !ret_publisher)
		return shmb_fail(-EINVAL, "channel or ret_publisher is NULL");
	if (!*channel->client->fork_guard)
		return shmb_fail(-ECHILD, "this channel belongs to the parent process");
	result = shmb_options_take(&options, sizeof(options), given, "publisher");
	if (result < 0)
		return result;
	if (options.flags & ~(SHMB_PUBLISHER_DROP_NEWEST | SHMB_PUBLISHER_TRUSTING))
		return shmb_fail(-EINVAL, "unknown publisher flags 0x%x", options.flags);
	if (channel->pattern == SHMB_PATTERN_CALL)
		return shmb_fail(-EOPNOTSUPP, "a call channel has callers and servers");
	result = check_priority(channel, options.priority);
	if (result == 0)
		result = open_publisher(channel, options.flags, options.priority, 0, 0, &publisher);
	if (result == 0)
		result = pub_fill_arena(publisher, options.arena_len);
	if (result < 0) {
		shmb_publisher_close(publisher);
		return result;
	}
	*ret_publisher = publisher;
	return 0;
}

int shmb_publisher_open_private(struct shmb_channel *channel, uint32_t flags, uint64_t partner_id,
				uint64_t reply_to, struct shmb_publisher **ret_publisher)
{
	return open_publisher(channel, flags, 0, partner_id, reply_to, ret_publisher);
}

SHMB_API int32_t shmb_publisher_close(struct shmb_publisher *publisher)
{
	if (!publisher)
		return 0;
	/* In a forked child the mappings are not there to be unmapped. */
	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		struct pub_pair *pair = &publisher->pairs[i];

		if (!*publisher->member.fork_guard)
			pair->cursor.base = pair->before.base = pair->bell.base = NULL;
		pub_deinit_pair(pair);
	}
	if (!*publisher->member.fork_guard)
		shmb_arena_abandon(publisher->arena);
	shmb_member_close(&publisher->member);
	shmb_arena_free(publisher->arena);
	free(publisher->pairs);
	free(publisher->sleepers);
	pub_free_queue(publisher->queue);
	free(publisher->state);
	free(publisher);
	return 0;
}

SHMB_API struct shmb_view *shmb_publisher_view(struct shmb_publisher *publisher)
{
	return publisher ? &publisher->view : NULL;
}

SHMB_API int32_t shmb_publisher_stats(struct shmb_publisher *publisher,
				      struct shmb_publisher_stats *stats, uint32_t cap)
{
	struct shmb_publisher_stats all = { 0 };

	if (!publisher || !stats)
		return shmb_fail(-EINVAL, "publisher or stats is NULL");
	all.publisher_id = publisher->member.id;
	all.published = publisher->writer.sequence;
	all.published_len = publisher->writer.position;
	all.dropped = publisher->dropped;
	all.refused = publisher->refused;
	all.rings = publisher->rings;
	all.n_subscribers = publisher->n_pairs;
	all.n_evicted = publisher->evicted;
	all.backstops = publisher->backstops;
	all.fds_lost = publisher->fds_lost;
	if (publisher->arena && *publisher->member.fork_guard) {
		pub_look_at_held(publisher);
		all.n_blocks = pub_count_blocks(publisher->arena->published);
		all.n_held = pub_count_blocks(publisher->arena->held);
		all.arena_len = publisher->arena->len;
	}
	memcpy(stats, &all, cap < sizeof(all) ? cap : sizeof(all));
	return 0;
}
