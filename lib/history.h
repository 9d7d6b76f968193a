/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_HISTORY_H
#define SHMB_LIB_HISTORY_H

/*
 * Where a late subscriber begins: some records before the publisher's position.
 *
 * Nothing is kept for it. The marks that lapped readers go on at are record boundaries of the whole
 * last lap, with their record counts, so publishing costs the same with and without history. Marks are
 * a sixteenth of the ring apart, or as far as a pad and the record behind it. Half a ring can always be
 * found if no record takes more than SHMB_HISTORY_SPAN_MAX, or if all are of one length.
 */

#include <stdint.h>

#include <shmbroker/ring.h>

#define SHMB_HISTORY_SPAN_MAX(lane_len) ((lane_len) / 16 * 3)

/**
 * shmb_history_max() - how many records a channel may keep for late subscribers
 * @lane_len:	bytes of a ring
 * @record_len: bytes of every record; 0: they may be as short as an empty one
 *
 * So many fit into half a lane, also if a pad lies between them. The other half is what a late
 * subscriber leaves to the publisher before it has read anything.
 */
static inline uint32_t shmb_history_max(uint32_t lane_len, uint32_t record_len)
{
	uint64_t n = (lane_len / 2 + 8) / shmb_record_span(record_len);

	return n > 2 ? (uint32_t)n - 1 : 1;
}

/**
 * shmb_history_start() - find the boundary of the last records
 * @writer:	  no batch is open; a loan may be out
 * @n_records:	  how many, 0: none
 * @ret_position: stores where they begin
 * @ret_sequence: stores the number of records before that
 *
 * They are fewer if there were no more, or if the others are not whole in the ring, or do not lie in
 * its last half, or no mark leads to them.
 *
 * Context: walks the headers behind one mark, at most half the ring's.
 */
void shmb_history_start(const struct shmb_lane_writer *writer, uint32_t n_records,
			uint64_t *ret_position, uint64_t *ret_sequence);

/**
 * shmb_history_start_left() - the same for a lane whose publisher has gone
 * @lane:	  lane, of whoever
 * @lane_len:	  bytes of its ring, from the grant
 * @n_records:	  how many
 * @ret_position: stores where they begin: a boundary, unless the publisher has lied
 * @ret_sequence: stores the number of records before that
 *
 * Context: walks at most one ring, and half a ring.
 */
void shmb_history_start_left(const struct shmb_lane_segment *lane, uint32_t lane_len,
			     uint32_t n_records, uint64_t *ret_position, uint64_t *ret_sequence);

#endif
