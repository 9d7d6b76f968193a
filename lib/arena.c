/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/error.h"

#define GROW_MIN_PAGES 256u /* a first part has room for so much more than was asked for */
#define PART_PAGES_MAX ((1u << SHMB_HOLD_ARENA_SHIFT) - 1)
#define RETRY_NS       100000000ull /* after a refusal */
#define MOVE_NS	       1000000ull /* while we are about to move */

struct shmb_arena *shmb_arena_new(struct shmb_member *member,
				  const struct shmb_block_limits *limits)
{
	struct shmb_arena *arena = calloc(1, sizeof(*arena));

	if (!arena)
		return NULL;
	arena->member = member;
	arena->limits = *limits;
	arena->published_end = &arena->published;
	return arena;
}

static void free_blocks(struct shmb_block *block)
{
	while (block) {
		struct shmb_block *next = block->next;

		free(block);
		block = next;
	}
}

void shmb_arena_abandon(struct shmb_arena *arena)
{
	for (struct shmb_arena_part *at = arena ? arena->parts : NULL; at; at = at->next)
		at->map.base = NULL;
}

void shmb_arena_free(struct shmb_arena *arena)
{
	if (!arena)
		return;
	free_blocks(arena->free);
	free_blocks(arena->published);
	free_blocks(arena->held);
	while (arena->parts) {
		struct shmb_arena_part *part = arena->parts;

		arena->parts = part->next;
		shmb_map_deinit(&part->map);
		free(part);
	}
	free(arena);
}

/* ---- parts ------------------------------------------------------------------------------------- */

static uint64_t part_len(const struct shmb_arena_part *part)
{
	return SHMB_BLOCK_LEN + (uint64_t)part->n_pages * SHMB_ARENA_PAGE_LEN;
}

static void drop_blocks_of(struct shmb_arena *arena, const struct shmb_arena_part *part)
{
	struct shmb_block **at = &arena->free;

	while (*at) {
		struct shmb_block *block = *at;

		if (block->part == part) {
			*at = block->next;
			free(block);
		} else {
			at = &block->next;
		}
	}
}

/* Nobody reads from it any more, and the broker is told. */
static void drop_part(struct shmb_arena *arena, struct shmb_arena_part **at)
{
	struct shmb_client *client = arena->member->client;
	struct shmb_arena_part *part = *at;

	*at = part->next;
	drop_blocks_of(arena, part);
	if (!part->retired)
		arena->len -= part_len(part);
	pthread_mutex_lock(&client->lock);
	shmb_client_farewell(client, SHMB_MSG_DETACH, part->id);
	pthread_mutex_unlock(&client->lock);
	/* A subscriber that hears of the next one lets go of this. Killed before: it has gone, too. */
	SHMB_STORE(&((struct shmb_arena_segment *)part->map.base)->retired, 1);
	shmb_map_deinit(&part->map);
	free(part);
}

/* Retired parts that are empty. */
static void trim(struct shmb_arena *arena)
{
	struct shmb_arena_part **at = &arena->parts;

	while (*at) {
		if ((*at)->retired && (*at)->n_used == 0)
			drop_part(arena, at);
		else
			at = &(*at)->next;
	}
}

/* ---- free blocks ------------------------------------------------------------------------------- */

/*
 * Lengths are rounded up to one of four in each doubling, so that records of nearly the same length
 * use each other's blocks.
 */
static uint32_t pages_for(const struct shmb_arena *arena, uint32_t len)
{
	uint32_t pages = len ? (uint32_t)shmb_block_pages(len) : 1;
	uint32_t most = (uint32_t)shmb_block_pages(arena->limits.record_len_max);
	uint32_t step = 1;

	while (step * 8 < pages)
		step *= 2;
	pages = (pages + step - 1) / step * step;
	return pages < most ? pages : most;
}

static bool is_before(const struct shmb_block *a, const struct shmb_block *b)
{
	return a->part == b->part ? a->page < b->page : a->part->number < b->part->number;
}

static struct shmb_block *merge(struct shmb_block *a, struct shmb_block *b)
{
	struct shmb_block *first = NULL, **end = &first;

	while (a && b) {
		struct shmb_block **least = is_before(a, b) ? &a : &b;

		*end = *least;
		end = &(*least)->next;
		*least = *end;
	}
	*end = a ? a : b;
	return first;
}

/* By where they are. */
static struct shmb_block *sort(struct shmb_block *list)
{
	struct shmb_block *runs[32] = { NULL };
	unsigned i, n = 0;

	while (list) {
		struct shmb_block *run = list;

		list = list->next;
		run->next = NULL;
		for (i = 0; i < n && runs[i]; i++) {
			run = merge(runs[i], run);
			runs[i] = NULL;
		}
		if (i == n)
			n++;
		runs[i] = run;
	}
	for (i = 0; i < n; i++)
		list = merge(runs[i], list);
	return list;
}

/* Free blocks beside each other become one. */
static void put_together(struct shmb_arena *arena)
{
	arena->free = sort(arena->free);
	for (struct shmb_block *at = arena->free; at; at = at->next) {
		struct shmb_block *next;

		while ((next = at->next) && next->part == at->part &&
		       next->page == at->page + at->n_pages) {
			at->n_pages += next->n_pages;
			at->next = next->next;
			free(next);
		}
	}
}

static struct shmb_block *unlink_block(struct shmb_block **at)
{
	struct shmb_block *block = *at;

	*at = block->next;
	block->next = NULL;
	block->part->n_used += block->n_pages;
	return block;
}

/* The shortest that is long enough, cut to length. */
static struct shmb_block *cut(struct shmb_arena *arena, uint32_t pages)
{
	struct shmb_block **best = NULL, *rest;

	for (struct shmb_block **at = &arena->free; *at; at = &(*at)->next)
		if ((*at)->n_pages >= pages && (!best || (*at)->n_pages < (*best)->n_pages))
			best = at;
	if (!best)
		return NULL;
	if ((*best)->n_pages > pages) {
		rest = malloc(sizeof(*rest));
		/* Without memory it is longer than needed. */
		if (rest) {
			*rest = **best;
			rest->page += pages;
			rest->n_pages -= pages;
			(*best)->n_pages = pages;
			(*best)->next = rest;
		}
	}
	return unlink_block(best);
}

struct shmb_block *shmb_arena_take(struct shmb_arena *arena, uint32_t len)
{
	uint32_t pages = pages_for(arena, len);

	for (struct shmb_block **at = &arena->free; *at; at = &(*at)->next)
		if ((*at)->n_pages == pages)
			return unlink_block(at);
	put_together(arena);
	return cut(arena, pages);
}

void shmb_arena_give(struct shmb_arena *arena, struct shmb_block *block)
{
	block->part->n_used -= block->n_pages;
	if (block->part->retired) {
		free(block);
		trim(arena);
		return;
	}
	block->next = arena->free;
	arena->free = block;
}

/* ---- published blocks -------------------------------------------------------------------------- */

void shmb_arena_publish(struct shmb_arena *arena, struct shmb_block *block, uint64_t end,
			uint64_t sequence)
{
	block->end = end;
	block->sequence = sequence;
	block->next = NULL;
	*arena->published_end = block;
	arena->published_end = &block->next;
}

struct shmb_block *shmb_arena_pop(struct shmb_arena *arena)
{
	struct shmb_block *block = arena->published;

	arena->published = block->next;
	if (!arena->published)
		arena->published_end = &arena->published;
	if (block->end > arena->floor) {
		arena->floor = block->end;
		arena->floor_sequence = block->sequence + 1;
	}
	block->next = NULL;
	return block;
}

/* ---- parts that come --------------------------------------------------------------------------- */

void shmb_arena_leave(struct shmb_arena *arena)
{
	for (struct shmb_arena_part *part = arena->parts; part; part = part->next)
		part->left = true;
	arena->retry_ns = 0;
}

bool shmb_arena_retire(struct shmb_arena *arena)
{
	bool any = false;

	for (struct shmb_arena_part *part = arena->parts; part; part = part->next) {
		if (!part->left)
			continue;
		any = true;
		if (part->retired)
			continue;
		part->retired = true;
		arena->len -= part_len(part);
		drop_blocks_of(arena, part);
	}
	arena->retry_ns = 0;
	trim(arena);
	return any;
}

/* Makes room under the limit. Returns whether that was possible. */
static bool make_room(struct shmb_arena *arena, uint64_t len)
{
	uint64_t possible = arena->limits.arena_len - arena->len;

	for (const struct shmb_arena_part *part = arena->parts; part; part = part->next)
		if (!part->retired && part->n_used == 0)
			possible += part_len(part);
	if (possible < len)
		return false;
	for (struct shmb_arena_part **at = &arena->parts;
	     *at && arena->limits.arena_len - arena->len < len;) {
		if (!(*at)->retired && (*at)->n_used == 0)
			drop_part(arena, at);
		else
			at = &(*at)->next;
	}
	return true;
}

/* As much as there is already, so that there are few parts. */
static uint32_t choose_pages(const struct shmb_arena *arena, uint32_t needed)
{
	uint64_t room = (arena->limits.arena_len - arena->len) / SHMB_ARENA_PAGE_LEN - 1;
	uint64_t pages = arena->len / SHMB_ARENA_PAGE_LEN;

	if (pages < GROW_MIN_PAGES)
		pages = GROW_MIN_PAGES;
	if (pages > room)
		pages = room;
	if (pages > PART_PAGES_MAX)
		pages = PART_PAGES_MAX;
	return pages > needed ? (uint32_t)pages : needed;
}

/* Client locked. Without a broker there is nothing to wait for: records flow in what there is. */
static int request(struct shmb_client *client, uint32_t type, const void *body, uint32_t body_len,
		   uint32_t reply_type, uint32_t reply_len, struct shmb_received *received)
{
	bool resuming = client->resuming;
	int result;

	client->resuming = true;
	result = shmb_client_request(client, type, body, body_len, reply_type, reply_len, received);
	client->resuming = resuming;
	return result;
}

/* Both round trips. Client locked. */
static int get_part(struct shmb_arena *arena, struct shmb_arena_part *part)
{
	struct shmb_client *client = arena->member->client;
	struct shmb_msg_extend extend = { .member_id = arena->member->id,
					  .segment_len = part_len(part),
					  .number = part->number };
	struct shmb_received received;
	struct shmb_msg_grant grant;
	struct shmb_msg_id id;
	int result;

	result = request(client, SHMB_MSG_EXTEND, &extend, sizeof(extend), SHMB_MSG_GRANT,
			 sizeof(grant), &received);
	if (result == 0) {
		memcpy(&grant, received.message.body, sizeof(grant));
		part->id = grant.member_id;
		if (received.message.fd_count != 1 ||
		    received.message.descriptors[0].role != SHMB_FD_ROLE_OWN ||
		    received.message.descriptors[0].segment_len != extend.segment_len)
			result = shmb_fail(-EPROTO, "the broker gave another arena than was asked "
						    "for");
		else
			result = shmb_map_arena(&part->map, received.fds[0],
						&received.message.descriptors[0], &arena->limits);
	}
	shmb_received_deinit(&received);
	if (result == 0) {
		SHMB_STORE(&((struct shmb_arena_segment *)part->map.base)->number, part->number);
		id.id = part->id;
		result = request(client, SHMB_MSG_ACTIVATE, &id, sizeof(id), SHMB_MSG_OK, 0,
				 &received);
		shmb_received_deinit(&received);
	}
	/* Whatever has come of it, nobody has heard of it from us. */
	if (result < 0 && part->id)
		shmb_client_farewell(client, SHMB_MSG_DETACH, part->id);
	return result;
}

int shmb_arena_grow(struct shmb_arena *arena, uint64_t len)
{
	uint64_t now = shmb_clock_now_ns();
	struct shmb_client *client = arena->member->client;
	struct shmb_arena_part *part;
	struct shmb_block *block;
	uint32_t needed = len > arena->limits.record_len_max ? (uint32_t)shmb_block_pages(len)
							     : pages_for(arena, (uint32_t)len);
	int result;

	if (now < arena->retry_ns)
		return -EBUSY;
	if (arena->next_number > SHMB_ARENA_NUMBER_MAX ||
	    !make_room(arena, SHMB_BLOCK_LEN + (uint64_t)needed * SHMB_ARENA_PAGE_LEN))
		return shmb_fail_lazily(-EDQUOT, "the channel allows each publisher ",
					arena->limits.arena_len, " bytes of arenas");
	part = calloc(1, sizeof(*part));
	block = calloc(1, sizeof(*block));
	if (!part || !block) {
		free(part);
		free(block);
		return shmb_fail(-ENOMEM, "no memory for an arena");
	}
	part->n_pages = choose_pages(arena, needed);
	pthread_mutex_lock(&client->lock);
	/* A number is used up with the first word of it: without a broker there are many tries. */
	if (client->connected)
		part->number = arena->next_number++;
	result = client->connected ? get_part(arena, part) : -ENOTCONN;
	/* Perhaps there is room for what is needed, if not for more. */
	if ((result == -ENOSPC || result == -EDQUOT) && part->n_pages > needed) {
		shmb_map_deinit(&part->map);
		part->id = 0;
		part->number = arena->next_number++;
		part->n_pages = needed;
		result = get_part(arena, part);
	}
	pthread_mutex_unlock(&client->lock);
	if (result < 0) {
		if (result != -ENOTCONN)
			arena->retry_ns = now + (result == -EBUSY ? MOVE_NS : RETRY_NS);
		shmb_map_deinit(&part->map);
		free(part);
		free(block);
		return result;
	}
	part->next = arena->parts;
	arena->parts = part;
	arena->len += part_len(part);
	*block = (struct shmb_block){ .part = part, .n_pages = part->n_pages };
	block->next = arena->free;
	arena->free = block;
	return 0;
}
