/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Conflation: of several records of a key that wait in a lane only the newest is received.
 *
 * What has come meanwhile is looked at once, ahead of the reader, and the number of the newest record
 * of each key is noted. A record that comes to its turn is stepped over if its key has a higher one.
 */

#include <stdlib.h>
#include <string.h>

#include "lib/newest.h"
#include "lib/sub-look.h"

/**
 * struct sub_conflation - of a lane
 * @ahead:  what lies before it has been looked at
 * @newest: record of each key
 */
struct sub_conflation {
	struct shmb_lane_reader ahead;
	struct shmb_newest newest;
};

struct sub_conflation *sub_conflation_new(const struct shmb_subscriber *subscriber)
{
	struct sub_conflation *conflation = calloc(1, sizeof(*conflation));

	if (conflation)
		shmb_newest_init(&conflation->newest, subscriber->key_len);
	return conflation;
}

void sub_conflation_free(struct sub_conflation *conflation)
{
	if (conflation)
		shmb_newest_deinit(&conflation->newest);
	free(conflation);
}

/* Copies it out: it may change. Records that are too short have none, and are all received. */
static bool key_of(const struct shmb_subscriber *subscriber, const struct shmb_record *record,
		   uint32_t ext_len, struct shmb_newest_key *ret_key)
{
	uint32_t words = (subscriber->key_len + 7) / 8;

	if (record->len < ext_len + (uint64_t)subscriber->key_offset + subscriber->key_len)
		return false;
	ret_key->words[0] = record->type;
	ret_key->words[words] = 0;
	memcpy(&ret_key->words[1], record->data + ext_len + subscriber->key_offset,
	       subscriber->key_len);
	return true;
}

/* A ring at most: whoever publishes faster than that is not followed further. */
static void look_ahead(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	struct sub_conflation *conflation = lane->conflation;
	struct shmb_lane_reader *ahead = &conflation->ahead;
	struct shmb_newest_key key;
	struct shmb_record record;
	uint64_t end = lane->gone ? lane->end : lane->reader.position + lane->reader.mask + 1;

	/* The first time, or it was lapped. */
	if (!ahead->ring || ahead->position < lane->reader.position)
		*ahead = lane->reader;
	while (ahead->position < end && shmb_lane_peek(ahead, &record) == 1) {
		if (key_of(subscriber, &record, subscriber->ext_len, &key) &&
		    shmb_newest_note(&conflation->newest, &key, ahead->sequence,
				     lane->reader.sequence) < 0)
			break;
		shmb_lane_skip(ahead, &record);
	}
	/* What lies ahead is whole if what comes first is. */
	if (sub_was_overwritten(subscriber, lane)) {
		shmb_newest_clear(&conflation->newest);
		*ahead = lane->reader;
	}
}

static void count_conflated(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint64_t n)
{
	subscriber->conflated += n;
	if (!lane->gone)
		SHMB_STORE(&lane->slot->conflated, SHMB_LOAD(&lane->slot->conflated) + n);
	sub_store_cursor(subscriber, lane);
}

int sub_look_conflated(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		       struct shmb_record *record)
{
	struct shmb_newest_key key;
	uint64_t n = 0;
	bool looked = false;
	int result;

	for (;;) {
		result = subscriber->ext_len ? sub_look_extended(subscriber, lane, record)
					     : sub_look_raw(subscriber, lane, record);
		if (result <= 0)
			break;
		/* Once: each of those that wait now is stepped over, or received. */
		if (!looked)
			look_ahead(subscriber, lane);
		looked = true;
		if (!key_of(subscriber, record, 0, &key) ||
		    !shmb_newest_supersedes(&lane->conflation->newest, &key, lane->reader.sequence))
			break;
		/* The key was another one, perhaps. */
		if (sub_was_overwritten(subscriber, lane))
			continue;
		shmb_lane_skip(&lane->reader, record);
		sub_pass_fds(subscriber, lane, lane->fds);
		n++;
	}
	if (n)
		count_conflated(subscriber, lane, n);
	return result;
}
