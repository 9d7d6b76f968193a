/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_MODEL_H
#define SHMB_TESTS_MODEL_H

/*
 * What the models share: a lane whose ring is as small as ring.h allows, a writer and a reader of
 * records that tell by their bytes which they are. The code under test is the product's.
 */

#include <stdbool.h>
#include <stdint.h>

#include "tests/model/dfs.h"

#include <shmbroker/layout.h>

/* Few marks, so that they are used again soon. */
#undef SHMB_LANE_N_MARKS
#define SHMB_LANE_N_MARKS MODEL_N_MARKS

#include <shmbroker/ring.h>

/* Each of these fences is a site of its own. */
#define shmb_fence() dfs_fence(DFS_SEQ_CST, DFS_HERE("fence"))

#include "lib/bell.h"

#define RING_LEN 64u

static struct {
	struct shmb_lane_segment segment;
	uint64_t ring[RING_LEN / 8];
} lane __attribute__((__unused__));

static struct {
	struct shmb_cursor_segment segment;
	struct shmb_cursor_lane slot;
} cursor __attribute__((__unused__));

static struct shmb_lane_writer writer __attribute__((__unused__));
static struct shmb_lane_reader reader __attribute__((__unused__));
static uint64_t n_certain; /* records that are visible */
static uint64_t n_perhaps; /* and with the publication that is under way */
static const uint8_t *model_lens; /* of the records, over and over */
static unsigned int n_model_lens;

static inline uint32_t model_len(uint64_t sequence)
{
	return model_lens[sequence % n_model_lens];
}

static inline uint64_t model_word(uint64_t sequence, unsigned int i)
{
	/* Whatever is taken for a header looks like one. */
	return SHMB_RECORD_VALID | sequence << 40 | i << 4 | 1;
}

/* Starts a scenario: a writer that nothing limits, and a reader where it begins. */
static inline void model_begin(const uint8_t *lens, unsigned int n)
{
	model_lens = lens;
	n_model_lens = n;
	shmb_lane_writer_init(&writer, &lane.segment, RING_LEN);
	shmb_lane_reader_init(&reader, &lane.segment, RING_LEN, 0, 0);
	n_certain = n_perhaps = 0;
}

/* Is there room for the next record? */
static inline uint8_t *model_claim(void)
{
	return shmb_lane_claim(&writer, model_len(writer.sequence));
}

/* Write the claimed record. */
static inline void model_commit(uint8_t *payload, int more)
{
	uint64_t *words = (uint64_t *)(void *)payload;
	uint64_t sequence = writer.sequence;
	uint32_t len = model_len(sequence);

	for (unsigned int i = 0; i < len / 8; i++)
		SHMB_STORE(&words[i], model_word(sequence, i));
	n_perhaps = sequence + 1;
	shmb_lane_commit(&writer, len, (uint32_t)sequence, more);
	if (!more)
		n_certain = sequence + 1;
}

static inline void model_flush(void)
{
	shmb_lane_flush(&writer);
	n_certain = n_perhaps;
}

/* Copy a record as the library does. */
static inline void model_copy(uint64_t *words, const struct shmb_record *record)
{
	const uint64_t *data = (const uint64_t *)(const void *)record->data;

	for (unsigned int i = 0; i < record->len / 8; i++)
		dfs_copy(&words[i], &data[i]);
}

/* Is it the record with this number? */
static inline void model_judge(const uint64_t *words, const struct shmb_record *record,
			       uint64_t sequence)
{
	if (record->len != model_len(sequence) || record->type != (sequence & 0xffff))
		dfs_fail("not the record that it should be");
	for (unsigned int i = 0; i < record->len / 8; i++)
		if (words[i] != model_word(sequence, i))
			dfs_fail("a torn or stale record");
}

/* Take a record that cannot be overwritten, and say so in the cursor. Returns as peek(). */
static inline int model_receive(void)
{
	uint64_t words[RING_LEN / 8] = { 0 };
	struct shmb_record record;
	int result = shmb_lane_peek(&reader, &record);

	if (result < 0)
		dfs_fail("bytes that cannot be a record");
	if (result <= 0)
		return 0;
	model_copy(words, &record);
	shmb_lane_skip(&reader, &record);
	shmb_cursor_store(&cursor.slot, reader.position, reader.sequence);
	dfs_settle();
	model_judge(words, &record, reader.sequence - 1);
	return 1;
}

/* As the publisher's pub_refresh_limit(), with one reader. */
static inline void model_limit(uint64_t head)
{
	writer.limit = head + RING_LEN - 8;
}

#endif
