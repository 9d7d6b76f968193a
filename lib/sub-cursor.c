/* SPDX-License-Identifier: Apache-2.0 */

/* The cursor: what publishers are told in it, and moving to another one. */

#include <errno.h>
#include <stdlib.h>

#include "lib/error.h"
#include "lib/sub-internal.h"

static bool cursor_is_used(const struct shmb_subscriber *subscriber,
			   const struct sub_cursor *cursor)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i]->words == cursor->map.base)
			return true;
	return false;
}

void sub_free_cursors(struct shmb_subscriber *subscriber)
{
	struct sub_cursor **at = &subscriber->cursors, *cursor;

	while ((cursor = *at)) {
		if (cursor_is_used(subscriber, cursor)) {
			at = &cursor->next;
			continue;
		}
		*at = cursor->next;
		shmb_map_deinit(&cursor->map);
		free(cursor);
	}
}

void sub_store_sleep(struct shmb_subscriber *subscriber, uint32_t sleep)
{
	const struct sub_cursor *cursor;

	for (cursor = subscriber->cursors; shmb_unlikely(cursor != NULL); cursor = cursor->next)
		SHMB_STORE(&((struct shmb_cursor_segment *)cursor->map.base)->sleep, sleep);
}

void sub_retire_doorbells(struct shmb_subscriber *subscriber)
{
	uint32_t oldest = UINT32_MAX;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		const struct shmb_bell_segment *bell = subscriber->lanes[i]->bell_words;
		uint32_t used = SHMB_LOAD(&bell->doorbell_generation);

		if (!subscriber->lanes[i]->gone && used < oldest &&
		    !shmb_ringer_is_socket(&subscriber->lanes[i]->ringer))
			oldest = used;
	}
	shmb_member_retire_doorbells(&subscriber->member, oldest);
}

void sub_on_doorbell(struct shmb_member *member)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);
	uint32_t generation = shmb_member_doorbell_generation(member);

	sub_retire_doorbells(subscriber);
	SHMB_STORE(&subscriber->cursor->doorbell_generation, generation);
	for (struct sub_cursor *at = subscriber->cursors; at; at = at->next)
		SHMB_STORE(&((struct shmb_cursor_segment *)at->map.base)->doorbell_generation,
			   generation);
}

int sub_on_prepare(struct shmb_member *member, void *to)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);

	(void)to; /* zeroes: each pair brings its position along */
	if (!subscriber->spare)
		subscriber->spare = calloc(1, sizeof(struct sub_cursor));
	return subscriber->spare ? 0 : shmb_fail(-ENOMEM, "no memory for a cursor");
}

void sub_on_granted(struct shmb_member *member, void *to)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		const struct sub_lane *lane = subscriber->lanes[i];

		if (sub_is_marked(lane) && lane->attached && !lane->follows)
			sub_mirror(lane, sub_slot_in(to, lane),
				   sub_work_in(to, member->channel, lane));
	}
}

/* Lanes that the broker keeps get no other pair for the cursor that we have moved to. */
static void move_kept(struct shmb_subscriber *subscriber)
{
	struct shmb_cursor_segment *cursor = subscriber->cursor;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (!lane->gone || !sub_is_marked(lane))
			continue;
		lane->words = cursor;
		lane->slot = sub_slot_in(cursor, lane);
		lane->jobs->work = sub_work_in(cursor, subscriber->member.channel, lane);
		if (lane->attached)
			sub_mirror(lane, lane->slot, lane->jobs->work);
	}
}

bool sub_is_complete(const struct shmb_member *member, const struct shmb_event *staged)
{
	return member->answered || staged;
}

void sub_on_move(struct shmb_member *member, struct shmb_map *before)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);
	struct sub_cursor *old = subscriber->spare;
	uint32_t sleep = SHMB_LOAD(&subscriber->cursor->sleep);

	subscriber->only = NULL;
	subscriber->spare = NULL;
	old->map = *before;
	old->next = subscriber->cursors;
	subscriber->cursors = old;
	subscriber->cursor = member->own.base;
	SHMB_STORE(&subscriber->cursor->sleeps, subscriber->sleeps);
	SHMB_STORE(&subscriber->cursor->backstops, subscriber->backstops);
	SHMB_STORE(&subscriber->cursor->credit, subscriber->credit);
	/* Before a publisher believes that we look there: see shmb_cursor_start(). */
	for (uint32_t i = 0; subscriber->holder && i <= SHMB_HOLDS_MAX; i++)
		if (subscriber->holder->holds[i].words.block)
			sub_tell_hold(subscriber, &subscriber->holder->holds[i]);
	move_kept(subscriber);
	sub_on_doorbell(member);
	/* We may be about to sleep: then the look that follows comes after this, as after any other. */
	shmb_bell_announce(&subscriber->cursor->sleep, sleep);
	sub_free_cursors(subscriber);
	subscriber->lane_changes++;
}
