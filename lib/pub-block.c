/* SPDX-License-Identifier: Apache-2.0 */

/* Long records lie in blocks of an arena: getting them, and taking them back. */

#include <errno.h>

#include "lib/pub-internal.h"

/* Does this subscriber hold it, or can we not know? */
static bool pair_holds(const struct shmb_publisher *publisher, struct pub_pair *pair, uint64_t name)
{
	uint32_t n = publisher->arena->limits.max_holds + 1;

	/* It has none while it does not read from us. One that was closed has none any more. */
	if (!pair->words || pub_has_left(pair))
		return false;
	if (pair->before.base && shmb_cursor_started(pair->slot, pair->id)) {
		shmb_map_deinit(&pair->before);
		pair->unknown = false;
	}
	return pair->unknown || shmb_block_is_held(pair->words, n, name) ||
	       (pair->before.base && shmb_block_is_held(pair->before.base, n, name));
}

static bool is_held(struct shmb_publisher *publisher, const struct shmb_block *block)
{
	uint64_t name = shmb_hold_name(publisher->member.slot, block->part->number, block->page);

	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		if (pair_holds(publisher, &publisher->pairs[i], name))
			return true;
	return false;
}

/* Everybody has passed it, and the floor says so. */
static void free_or_keep(struct shmb_publisher *publisher, struct shmb_block *block)
{
	struct shmb_arena *arena = publisher->arena;

	if (!is_held(publisher, block)) {
		shmb_arena_give(arena, block);
		return;
	}
	block->next = arena->held;
	arena->held = block;
}

void pub_look_at_held(struct shmb_publisher *publisher)
{
	struct shmb_block *block = publisher->arena->held;

	publisher->arena->held = NULL;
	while (block) {
		struct shmb_block *next = block->next;

		free_or_keep(publisher, block);
		block = next;
	}
}

/* All reliable subscribers have read up to here. The cursors were just looked at. */
static uint64_t slowest_head(const struct shmb_publisher *publisher)
{
	const struct shmb_lane_writer *writer = &publisher->writer;

	return writer->limit == UINT64_MAX ? writer->position
					   : writer->limit + 8 - (writer->mask + 1);
}

/* How many of the last records keep their blocks for late and lossy subscribers, if we can do so. */
static uint64_t records_to_keep(const struct shmb_publisher *publisher)
{
	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		if (publisher->pairs[i].lossy)
			return UINT64_MAX;
	return publisher->member.channel->history;
}

/*
 * Takes back the blocks of records that everybody has passed, but for those of the last @keep, and at
 * most @max of them. Returns whether there were any.
 */
static bool reclaim(struct shmb_publisher *publisher, uint64_t keep, uint32_t max)
{
	uint64_t head = slowest_head(publisher), floor = 0;
	struct shmb_arena *arena = publisher->arena;
	struct shmb_block *first = NULL, **end = &first;

	while (max-- && arena->published && arena->published->end <= head &&
	       publisher->writer.sequence - arena->published->sequence > keep) {
		struct shmb_block *block = shmb_arena_pop(arena);

		floor = block->end;
		*end = block;
		end = &block->next;
	}
	if (!first)
		return false;
	shmb_block_raise_floor(publisher->writer.lane, floor);
	while (first) {
		struct shmb_block *block = first;

		first = block->next;
		free_or_keep(publisher, block);
	}
	return true;
}

struct shmb_block *pub_get_block(struct shmb_publisher *publisher, uint32_t len)
{
	struct shmb_arena *arena = publisher->arena;
	struct shmb_block *block;
	int result;

	pub_refresh_limit(publisher);
	reclaim(publisher, records_to_keep(publisher), UINT32_MAX);
	block = shmb_arena_take(arena, len);
	if (shmb_likely(block))
		return block;
	pub_look_at_held(publisher);
	block = shmb_arena_take(arena, len);
	if (block)
		return block;
	result = shmb_arena_grow(arena, len);
	if (result == 0)
		return shmb_arena_take(arena, len);
	while (reclaim(publisher, 0, 1)) {
		block = shmb_arena_take(arena, len);
		if (block)
			return block;
	}
	/* Those of other lengths may make room now. */
	if (shmb_arena_grow(arena, len) == 0)
		return shmb_arena_take(arena, len);
	if (!arena->published && !arena->held && result != -ENOTCONN && result != -EBUSY)
		publisher->shortage = result;
	return NULL;
}

uint8_t *pub_place_block(struct shmb_publisher *publisher, uint32_t len)
{
	struct shmb_block *block;
	uint8_t *payload;

	publisher->shortage = 0;
	block = pub_get_block(publisher, len);
	publisher->no_block = !block;
	if (!block)
		return NULL;
	payload = pub_claim(publisher,
			    publisher->head_len + (uint32_t)sizeof(struct shmb_block_descriptor));
	if (!payload) {
		shmb_arena_give(publisher->arena, block);
		return NULL;
	}
	publisher->block = block;
	publisher->descriptor = (void *)(payload + publisher->head_len);
	return shmb_block_payload(block);
}

void pub_commit_block(struct shmb_publisher *publisher, uint32_t len, uint32_t type)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	struct shmb_block *block = publisher->block;

	*publisher->descriptor = (struct shmb_block_descriptor){
		.arena = block->part->number,
		.page = block->page,
		.len = len,
	};
	publisher->block = NULL;
	shmb_lane_commit_as(writer,
			    publisher->head_len + (uint32_t)sizeof(struct shmb_block_descriptor),
			    type, SHMB_RECORD_BLOCK, 0);
	shmb_arena_publish(publisher->arena, block, writer->position, writer->sequence - 1);
}

int pub_open_arena(struct shmb_publisher *publisher, struct shmb_channel *channel)
{
	publisher->inline_len_max = UINT32_MAX;
	if (!channel->blocks.arena_len)
		return 0;
	publisher->arena = shmb_arena_new(&publisher->member, &channel->blocks);
	if (!publisher->arena)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	publisher->inline_len_max = channel->blocks.inline_len_max;
	publisher->record_len_max = channel->blocks.record_len_max;
	return 0;
}

int pub_fill_arena(struct shmb_publisher *publisher, uint64_t len)
{
	if (!len)
		return 0;
	if (!publisher->arena || len > publisher->arena->limits.arena_len - SHMB_BLOCK_LEN)
		return shmb_fail(
			-EINVAL, "the channel allows each publisher %llu bytes of blocks, not %llu",
			(unsigned long long)(publisher->arena ? publisher->arena->limits.arena_len -
									SHMB_BLOCK_LEN
							      : 0),
			(unsigned long long)len);
	return shmb_arena_grow(publisher->arena, len);
}

uint32_t pub_count_blocks(const struct shmb_block *block)
{
	uint32_t n = 0;

	for (; block; block = block->next)
		n++;
	return n;
}
