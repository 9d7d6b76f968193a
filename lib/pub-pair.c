/* SPDX-License-Identifier: Apache-2.0 */

/* Subscribers that come and go, and moving to another segment with them. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fd.h"
#include "lib/history.h"
#include "lib/pub-internal.h"

#define NS_PER_MS 1000000ull

static struct pub_pair *find_pair(struct shmb_publisher *publisher, uint64_t id)
{
	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		if (publisher->pairs[i].id == id)
			return &publisher->pairs[i];
	return NULL;
}

/* The pair that a new one of the same subscriber replaces. */
static struct pub_pair *find_peer(struct shmb_publisher *publisher, uint64_t peer_id)
{
	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		if (publisher->pairs[i].peer_id == peer_id)
			return &publisher->pairs[i];
	return NULL;
}

static int reserve_pair(struct shmb_publisher *publisher)
{
	uint32_t cap = publisher->cap_pairs ? 2 * publisher->cap_pairs : 4;
	struct pub_sleeper *sleepers;
	struct pub_pair *pairs;

	if (publisher->queue && pub_reserve_orphans(publisher->queue, publisher->n_pairs + 1) < 0)
		return -ENOMEM;
	if (publisher->n_pairs < publisher->cap_pairs)
		return 0;
	pairs = realloc(publisher->pairs, cap * sizeof(*pairs));
	if (pairs)
		publisher->pairs = pairs;
	sleepers = realloc(publisher->sleepers, cap * sizeof(*sleepers));
	if (sleepers)
		publisher->sleepers = sleepers;
	if (!pairs || !sleepers)
		return shmb_fail(-ENOMEM, "no memory for a subscriber");
	publisher->cap_pairs = cap;
	return 0;
}

void pub_deinit_pair(struct pub_pair *pair)
{
	shmb_map_deinit(&pair->cursor);
	shmb_map_deinit(&pair->before);
	shmb_map_deinit(&pair->bell);
	shmb_ringer_deinit(&pair->ringer);
	shmb_fds_deinit(&pair->ends);
	free(pair->worker);
}

static int map_pair(struct shmb_publisher *publisher, struct pub_pair *pair,
		    struct shmb_event *event)
{
	int cursor = shmb_event_find(event, SHMB_FD_ROLE_PEER);
	int bell = shmb_event_find(event, SHMB_FD_ROLE_BELL);
	const struct shmb_channel *channel = publisher->member.channel;
	uint64_t cursor_len = shmb_cursor_len(channel->pattern, channel->max_publishers);
	bool blind = event->pair.flags & SHMB_PAIR_BLIND;
	int result = 0;

	if (bell < 0 ||
	    (!blind && (cursor < 0 || event->descriptors[cursor].segment_len != cursor_len)))
		return shmb_fail(-EPROTO, "the broker announced a subscriber without its segments");
	if (!blind)
		result = shmb_map_reader(&pair->cursor, event->fds[cursor],
					 &event->descriptors[cursor], SHMB_SEGMENT_CURSOR);
	if (result == 0)
		result = shmb_map_writer(&pair->bell, event->fds[bell], &event->descriptors[bell],
					 SHMB_SEGMENT_BELL);
	if (result < 0)
		return result;
	pair->bell_words = pair->bell.base;
	if (blind)
		return 0;
	pair->words = pair->cursor.base;
	pair->slot = (const struct shmb_cursor_lane *)(const void *)((const uint8_t *)pair->words +
								     SHMB_BLOCK_LEN) +
		     publisher->member.slot;
	if (publisher->queue)
		pair->work = (const void *)((const uint8_t *)pair->words +
					    shmb_cursor_work_offset(channel->max_publishers,
								    publisher->member.slot));
	return 0;
}

void pub_on_doorbell(struct shmb_member *member)
{
	struct shmb_publisher *publisher = to_publisher(member);
	uint32_t oldest = UINT32_MAX;

	/* What a subscriber may still ring stays open; it moves on to newer ones only. */
	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		const struct pub_pair *pair = &publisher->pairs[i];
		uint32_t used = pair->attached ? SHMB_LOAD(&pair->slot->doorbell_generation) : 0;

		if (used < oldest && !shmb_ringer_is_socket(&pair->ringer))
			oldest = used;
	}
	shmb_member_retire_doorbells(member, oldest);
	SHMB_STORE(&publisher->writer.lane->doorbell_generation,
		   shmb_member_doorbell_generation(member));
}

/* Before the subscriber has taken its slot, the slot speaks of somebody else. */
static uint32_t sockets_of_peer(const struct pub_pair *pair)
{
	/* M: pairs with N in the subscriber's sub_attach_lane(). */
	if (!pair->slot || SHMB_LOAD_ACQUIRE(&pair->slot->pair_id) != pair->id)
		return 0;
	/* T: pairs with U in the subscriber's sub_settle_ringer(): it rings the newer one from now on. */
	return SHMB_LOAD_ACQUIRE(&pair->slot->doorbell_generation);
}

void pub_settle_ringer(struct shmb_member *member, struct pub_pair *pair)
{
	uint32_t used;

	if (shmb_ringer_is_socket(&pair->ringer))
		used = shmb_member_settle_sockets(member, &pair->ringer, pair->id,
						  sockets_of_peer(pair));
	else
		used = shmb_ringer_settle(&pair->ringer,
					  pair->words ? SHMB_LOAD(&pair->words->doorbell_generation)
						      : 0);
	/*
	 * U: pairs with T in the subscriber's sub_settle_ringer(): what we rang before is on the old
	 * socket, and the record for it in the lane. Killed before: it keeps a doorbell too many.
	 */
	SHMB_STORE_RELEASE(&pair->bell_words->doorbell_generation, used);
}

uint64_t pub_read_head(struct shmb_publisher *publisher, struct pub_pair *pair)
{
	uint64_t head;

	if (!pair->slot)
		return pair->head;
	if (!pair->attached && !shmb_cursor_started(pair->slot, pair->id))
		return pair->head;
	pair->attached = true;
	head = shmb_cursor_position(pair->slot);
	if (shmb_cursor_is_ours(pair->slot, pair->id) && head >= pair->head &&
	    head <= publisher->writer.position && !(head & 7)) {
		pair->head = head;
	} else if (!pair->accused) {
		shmb_member_report(&publisher->member, pair->id, EBADMSG);
		pair->accused = true;
	}
	return pair->head;
}

/* Whose cursor we do not have yet does not sleep on us. */
static struct pub_sleeper sleeper_of(const struct pub_pair *pair)
{
	static const uint32_t awake = SHMB_SLEEP_AWAKE;

	return (struct pub_sleeper){ .sleep = pair->words ? &pair->words->sleep : &awake };
}

/*
 * The same subscriber with another segment of its own, or of ours. It takes its position along, and
 * until it says so in its new slot the old one holds.
 */
static struct pub_pair *replace_pair(struct shmb_publisher *publisher, struct pub_pair *pair,
				     struct pub_pair *fresh)
{
	bool accused = pair->accused;

	fresh->lossy |= pair->lossy;
	fresh->evicted = pair->evicted;
	if (fresh->evicted)
		shmb_bell_evict(fresh->bell_words);
	/* Who has never read from us yet begins where it would have; who has, goes on where it is. */
	fresh->start_position = pair->start_position;
	fresh->start_sequence = pair->start_sequence;
	shmb_bell_start(fresh->bell_words, fresh->start_position, fresh->start_sequence);
	/*
	 * Y: pairs with Z in the subscriber's sub_store_ahead(): either it sees the new bell and stores
	 * its position in the new slot, too, or we see here what it has stored in the old one.
	 */
	shmb_fence();
	/* In a slot that both have, the fresh pair may have its position by now: that is no lie. */
	pair->accused = true;
	fresh->head = pub_read_head(publisher, pair);
	fresh->accused = accused;
	/* It has not moved yet, and goes on in the cursor that we know. */
	if (!fresh->slot) {
		fresh->cursor = pair->cursor;
		fresh->words = pair->words;
		fresh->slot = pair->slot;
		fresh->work = pair->work;
		fresh->before = pair->before;
		fresh->unknown = pair->unknown;
		pair->cursor.base = pair->before.base = NULL;
	} else if (publisher->arena && pair->slot) {
		/* What it holds it tells in its new cursor before it takes the slot there. */
		fresh->unknown = pair->before.base || pair->unknown;
		fresh->before = pair->cursor;
		pair->cursor.base = NULL;
	}
	/* As with the position: what it has marked until now is in the old one, or in both. */
	if (pair->worker && pair->attached)
		shmb_worker_note(pair->worker, pair->work);
	fresh->worker = pair->worker;
	pair->worker = NULL;
	/* What it has not taken yet is where it was sent. */
	shmb_fds_append(&pair->ends, &fresh->ends);
	fresh->ends = pair->ends;
	pair->ends.n = 0;
	shmb_member_drop_doorbells(&publisher->member, pair->id);
	pub_deinit_pair(pair);
	publisher->sleepers[pair - publisher->pairs] = sleeper_of(fresh);
	*pair = *fresh;
	return pair;
}

static struct pub_pair *meet(struct shmb_publisher *publisher, struct pub_pair *fresh,
			     const struct shmb_msg_pair *news)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	struct pub_pair *pair = &publisher->pairs[publisher->n_pairs];

	shmb_history_start(writer, news->history, &fresh->start_position, &fresh->start_sequence);
	if (publisher->arena && news->flags & SHMB_PAIR_MOVE)
		shmb_arena_leave(publisher->arena);
	if (publisher->arena && shmb_arena_retire(publisher->arena)) {
		publisher->arena->floor = writer->position;
		publisher->arena->floor_sequence = writer->sequence;
	}
	/* Of what lies before, some blocks are not there any more, or not for this subscriber. */
	if (publisher->arena && fresh->start_position < publisher->arena->floor) {
		fresh->start_position = publisher->arena->floor;
		fresh->start_sequence = publisher->arena->floor_sequence;
	}
	fresh->head = fresh->start_position;
	publisher->sleepers[publisher->n_pairs++] = sleeper_of(fresh);
	*pair = *fresh;
	shmb_bell_start(pair->bell_words, pair->start_position, pair->start_sequence);
	return pair;
}

int pub_on_pair(struct shmb_member *member, struct shmb_event *event)
{
	struct shmb_publisher *publisher = to_publisher(member);
	struct pub_pair *pair = find_pair(publisher, event->pair.pair_id), *before;
	struct pub_pair fresh = { .id = event->pair.pair_id, .peer_id = event->pair.peer_id };
	int result;

	if (!pair) {
		result = reserve_pair(publisher);
		if (result == 0)
			result = map_pair(publisher, &fresh, event);
		if (result < 0) {
			pub_deinit_pair(&fresh);
			return result;
		}
		fresh.lossy = event->pair.flags & SHMB_PAIR_LOSSY;
		fresh.evict_after_ns = event->pair.evict_after_ms * NS_PER_MS;
		publisher->may_evict |= fresh.evict_after_ns != 0;
		before = find_peer(publisher, fresh.peer_id);
		if (publisher->queue && !before)
			fresh.worker = calloc(1, sizeof(*fresh.worker));
		if (publisher->queue && !before && !fresh.worker) {
			pub_deinit_pair(&fresh);
			return shmb_fail(-ENOMEM, "no memory for a worker");
		}
		pair = before ? replace_pair(publisher, before, &fresh)
			      : meet(publisher, &fresh, &event->pair);
	}
	shmb_ringer_add(&pair->ringer, event);
	shmb_fds_add(&pair->ends, event);
	pub_settle_ringer(member, pair);
	publisher->writer.limit = 0; /* somebody new may be slowest: look before the next record */
	if (publisher->queue)
		publisher->queue->chosen = NULL;
	if (pair->head != publisher->writer.position)
		pub_ring_sleepers(publisher); /* it has history to read, whatever comes next */
	return 0;
}

void pub_on_unpair(struct shmb_member *member, const struct shmb_msg_unpair *unpair)
{
	struct shmb_publisher *publisher = to_publisher(member);
	struct pub_pair *pair = find_pair(publisher, unpair->pair_id);
	uint64_t kept_id = publisher->queue && unpair->kept ? unpair->pair_id : 0;

	if (pair && publisher->queue)
		pub_orphan(publisher, pair, kept_id);
	/* A broker says it again to who has come back. */
	pub_settle_orphans(publisher, kept_id);
	if (!pair)
		return;
	shmb_member_drop_doorbells(member, pair->id);
	pub_deinit_pair(pair);
	publisher->n_pairs--;
	publisher->sleepers[pair - publisher->pairs] = publisher->sleepers[publisher->n_pairs];
	*pair = publisher->pairs[publisher->n_pairs];
	publisher->writer.limit = 0;
}

void pub_on_granted(struct shmb_member *member, void *to)
{
	if (to_publisher(member)->state)
		memcpy((uint8_t *)to + SHMB_BLOCK_LEN,
		       (const uint8_t *)member->own.base + SHMB_BLOCK_LEN,
		       member->own.len - SHMB_BLOCK_LEN);
}

int pub_on_prepare(struct shmb_member *member, void *to)
{
	const size_t skip = sizeof(struct shmb_segment_header);

	if (to_publisher(member)->state) {
		memcpy((uint8_t *)to + skip, (const uint8_t *)member->own.base + skip,
		       SHMB_BLOCK_LEN - skip);
		return 0;
	}
	memcpy((uint8_t *)to + skip, (const uint8_t *)member->own.base + skip,
	       member->own.len - skip);
	return 0;
}

bool pub_knows(struct shmb_member *member, uint64_t peer_id)
{
	return find_peer(to_publisher(member), peer_id) != NULL;
}

bool pub_is_complete(const struct shmb_member *member, const struct shmb_event *staged)
{
	const struct shmb_publisher *publisher =
		shmb_container_of(member, const struct shmb_publisher, member);

	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		const struct shmb_event *at = staged;

		while (at && at->pair.peer_id != publisher->pairs[i].peer_id)
			at = at->next;
		if (!at)
			return false;
	}
	return member->answered || staged;
}

void pub_on_move(struct shmb_member *member, struct shmb_map *before)
{
	struct shmb_publisher *publisher = to_publisher(member);
	struct shmb_lane_writer *writer = &publisher->writer;

	writer->lane = member->own.base;
	writer->ring = (uint8_t *)member->own.base + SHMB_BLOCK_LEN;
	shmb_map_deinit(before);
	if (publisher->arena)
		shmb_arena_leave(publisher->arena);
	SHMB_STORE(&writer->lane->space_wait, publisher->space_epoch << 2 | SHMB_SLEEP_AWAKE);
	pub_on_doorbell(member);
}
