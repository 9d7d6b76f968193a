/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/history.h"

#include <stdbool.h>

/*
 * The newest whole mark that is not behind the first boundary with at least this position and this
 * sequence number, else the oldest whole one. We alone write them, and none is half written now. What
 * is not whole has been overwritten, or a loan overwrites it now.
 */
static struct shmb_lane_mark nearest_mark(const struct shmb_lane_writer *writer, uint64_t position,
					  uint64_t sequence)
{
	uint64_t ring_len = writer->mask + 1;
	struct shmb_lane_mark oldest = { writer->position, writer->sequence };
	struct shmb_lane_mark nearest = { 0, 0 };
	bool found = writer->intent <= ring_len; /* the lane's own beginning is whole */

	for (uint32_t i = 0; i < SHMB_LANE_N_MARKS; i++) {
		struct shmb_lane_mark mark = {
			.position = SHMB_LOAD(&writer->lane->marks[i].position),
			.sequence = SHMB_LOAD(&writer->lane->marks[i].sequence),
		};

		if (mark.position + ring_len < writer->intent)
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

void shmb_history_start(const struct shmb_lane_writer *writer, uint32_t n_records,
			uint64_t *ret_position, uint64_t *ret_sequence)
{
	uint64_t first = writer->sequence > n_records ? writer->sequence - n_records : 0;
	uint64_t half = (writer->mask + 1) / 2;
	uint64_t position = writer->position > half ? writer->position - half : 0;
	struct shmb_lane_mark at = { writer->position, writer->sequence };

	if (n_records)
		at = nearest_mark(writer, position, first);
	while ((at.position < position || at.sequence < first) && at.position < writer->position) {
		uint64_t offset = at.position & writer->mask;
		uint64_t header = SHMB_LOAD(shmb_lane_word(writer->ring, offset));

		at.position += shmb_record_span(header & SHMB_RECORD_LEN_MASK);
		at.sequence += !(header & SHMB_RECORD_PAD);
	}
	*ret_position = at.position;
	*ret_sequence = at.sequence;
}
