/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/history.h"

#include <stdbool.h>

/*
 * The newest whole mark that is not behind the first boundary with at least this position and this
 * sequence number, else the oldest whole one. None is half written now. What is not whole has been
 * overwritten, or a loan overwrites it now. Of a lane that somebody else has left they may be lies: none
 * leads out of the last lap.
 */
static struct shmb_lane_mark nearest_mark(const struct shmb_lane_writer *writer, uint64_t position,
					  uint64_t sequence)
{
	uint64_t ring_len = writer->mask + 1;
	struct shmb_lane_mark oldest = { writer->position, writer->sequence };
	struct shmb_lane_mark nearest = { 0, 0 };
	/* The lane's own beginning is whole. */
	bool found = writer->intent <= ring_len && writer->position <= ring_len;

	for (uint32_t i = 0; i < SHMB_LANE_N_MARKS; i++) {
		struct shmb_lane_mark mark = {
			.position = SHMB_LOAD(&writer->lane->marks[i].position),
			.sequence = SHMB_LOAD(&writer->lane->marks[i].sequence),
		};

		if (mark.position > writer->position || mark.position & 7 ||
		    writer->position - mark.position > ring_len ||
		    mark.position + ring_len < writer->intent)
			continue;
		if (mark.position < oldest.position)
			oldest = mark;
		if (mark.position > position && mark.sequence > sequence)
			continue;
		if (!found || mark.position > nearest.position)
			nearest = mark;
		found = true;
	}
	return found ? nearest : oldest;
}

/* Walks on to the first boundary with at least this position and this sequence number, or to the end. */
static void walk(const struct shmb_lane_writer *writer, struct shmb_lane_mark *at,
		 uint64_t position, uint64_t sequence)
{
	while ((at->position < position || at->sequence < sequence) &&
	       at->position < writer->position) {
		uint64_t offset = at->position & writer->mask;
		uint64_t header = SHMB_LOAD(shmb_lane_word(writer->ring, offset));

		at->position += shmb_record_span(header & SHMB_RECORD_LEN_MASK);
		at->sequence += !(header & SHMB_RECORD_PAD);
	}
}

void shmb_history_start(const struct shmb_lane_writer *writer, uint32_t n_records,
			uint64_t *ret_position, uint64_t *ret_sequence)
{
	uint64_t first = writer->sequence > n_records ? writer->sequence - n_records : 0;
	uint64_t half = (writer->mask + 1) / 2;
	uint64_t position = writer->position > half ? writer->position - half : 0;
	struct shmb_lane_mark at = { writer->position, writer->sequence };

	if (n_records)
		at = nearest_mark(writer, position, first);
	walk(writer, &at, position, first);
	*ret_position = at.position;
	*ret_sequence = at.sequence;
}

void shmb_history_start_left(const struct shmb_lane_segment *lane, uint32_t lane_len,
			     uint32_t n_records, uint64_t *ret_position, uint64_t *ret_sequence)
{
	struct shmb_lane_writer writer = {
		/* Only looked at. */
		.lane = (struct shmb_lane_segment *)(uintptr_t)lane,
		.ring = (uint8_t *)(uintptr_t)lane + SHMB_BLOCK_LEN,
		.mask = (uint64_t)lane_len - 1,
		.intent = SHMB_LOAD(&lane->intent),
	};
	struct shmb_lane_reader reader;
	struct shmb_record record;
	struct shmb_lane_mark at;
	uint64_t end;

	/* Killed between a record and the hints: it is one publication ahead of them. */
	shmb_lane_reader_init(&reader, lane, lane_len, SHMB_LOAD(&lane->position_hint),
			      SHMB_LOAD(&lane->sequence_hint));
	end = reader.position + lane_len;
	while (reader.position < end && shmb_lane_peek(&reader, &record) == 1)
		shmb_lane_skip(&reader, &record);
	writer.position = reader.position;
	/* Or between the two hints: the number is that of a mark, and what lies behind it. */
	at = nearest_mark(&writer, writer.position, UINT64_MAX);
	walk(&writer, &at, writer.position, 0);
	writer.sequence = at.sequence;
	shmb_history_start(&writer, n_records, ret_position, ret_sequence);
}
