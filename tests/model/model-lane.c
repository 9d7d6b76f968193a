/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Lanes under the model checker: ring.h itself, with a ring of 64 bytes. Whatever the interleaving,
 * the memory and the moment of the writer's death, a reliable reader gets every record whole and
 * once, and a lossy one knows exactly what it has missed.
 */

#ifndef MODEL_N_MARKS
#define MODEL_N_MARKS 4u
#endif

#include "tests/model/model.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

#if MODEL_N_MARKS > 1
/* One by one, the last one behind a pad. */
static const uint8_t lens_wrap[] = { 8, 16, 16 };
/* The first three fill the ring; the fourth lies where the first one did. */
static const uint8_t lens_full[] = { 16, 16, 0, 8 };
#endif
static const uint8_t lens_one[] = { 8 };
static const uint8_t lens_two[] = { 16 };
static const uint8_t lens_batch[] = { 0, 8 };

static unsigned int n_reads;
static uint64_t n_received, n_lost;

#if MODEL_N_MARKS > 1
/* ---- reliable ---------------------------------------------------------------------------------- */

/* As the publisher's claim(). */
static uint8_t *claim(void)
{
	uint8_t *payload = model_claim();

	for (int tries = 0; !payload && tries < 2; tries++) {
		model_limit(shmb_cursor_position(&cursor.slot));
		payload = model_claim();
	}
	return payload;
}

static void write_singles(void)
{
	for (int i = 0; i < 4; i++) {
		uint8_t *payload = claim();

		if (!payload)
			return;
		model_commit(payload, 0);
	}
}

/* As shmb_publisher_send_many(). */
static void write_batch(void)
{
	for (int i = 0; i < 4; i++) {
		uint8_t *payload = claim();

		if (!payload) {
			model_flush();
			payload = claim();
			if (!payload)
				break;
		}
		model_commit(payload, 1);
	}
	model_flush();
}

static void read_reliably(void)
{
	for (unsigned int i = 0; i < n_reads; i++)
		model_receive();
}

/* Everything that became visible, as a whole, is there. */
static void check_reliable(void)
{
	while (model_receive())
		continue;
	if (reader.sequence != n_certain && reader.sequence != n_perhaps)
		dfs_fail("neither all nor nothing of a publication");
}

static void begin_reliable(const uint8_t *lens, unsigned int n, unsigned int n_before)
{
	model_begin(lens, n);
	dfs_ignore(&lane.segment.position_hint);
	dfs_ignore(&lane.segment.sequence_hint);
	dfs_ignore(&cursor.slot.sequence);
	/* Intent and marks are for others. */
	dfs_ignore(&lane.segment.intent);
	for (unsigned int i = 0; i < MODEL_N_MARKS; i++) {
		dfs_ignore(&lane.segment.marks[i].position);
		dfs_ignore(&lane.segment.marks[i].sequence);
	}
	model_limit(0);
	for (unsigned int i = 0; i < n_before; i++) {
		model_commit(claim(), 0);
		model_receive();
	}
	n_reads = 6;
}

static void set_up_singles(void)
{
	begin_reliable(lens_wrap, N(lens_wrap), 0);
}

static void set_up_full(void)
{
	begin_reliable(lens_full, N(lens_full), 0);
	for (int i = 0; i < 3; i++)
		model_commit(claim(), 0);
}

static void set_up_batch(void)
{
	begin_reliable(lens_batch, N(lens_batch), 3);
}

static void set_up_batch_wrap(void)
{
	begin_reliable(lens_two, N(lens_two), 1);
}

#endif
/* ---- lossy ------------------------------------------------------------------------------------- */

static void write_for_all(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		uint8_t *payload = model_claim();

		if (payload)
			model_commit(payload, 0);
	}
}

static void write_lap(void)
{
	write_for_all(4);
}

static void write_two(void)
{
	write_for_all(2);
}

static void write_lossy_batch(void)
{
	for (int i = 0; i < 2; i++) {
		uint8_t *payload = model_claim();

		if (payload)
			model_commit(payload, 1);
	}
	model_flush();
}

/* As shmb_subscriber_recv(): a record that was lapped while it was copied does not count. */
static int receive_lossy(void)
{
	uint64_t words[RING_LEN / 8] = { 0 };
	struct shmb_record record;
	int result = shmb_lane_peek_lossy(&reader, &record, &n_lost);

	if (result < 0)
		dfs_fail("bytes that cannot be a record");
	if (result <= 0)
		return 0;
	model_copy(words, &record);
	if (shmb_lane_lapped(&reader))
		return 1;
	shmb_lane_skip(&reader, &record);
	dfs_settle();
	model_judge(words, &record, reader.sequence - 1);
	n_received++;
	if (n_received + n_lost != reader.sequence)
		dfs_fail("the loss is not exact");
	return 1;
}

static void read_lossily(void)
{
	for (unsigned int i = 0; i < n_reads; i++)
		receive_lossy();
}

/* As shmb_subscriber_release() when the records were overwritten. */
static void read_and_resync(void)
{
	uint64_t lost;

	for (unsigned int i = 0; i < n_reads; i++) {
		if (!shmb_lane_lapped(&reader))
			continue;
		if (shmb_lane_resync(&reader, &lost) == 0)
			n_lost += lost;
		else if (MODEL_N_MARKS > 1)
			dfs_fail("lapped, and no mark to go on from");
		return;
	}
}

/* ---- evicted ------------------------------------------------------------------------------------ */

static struct shmb_bell_segment bell;
static bool is_lossy;

/* As the publisher's evict(), and what it writes then. */
static void evict_and_write(void)
{
	shmb_bell_evict(&bell);
	write_for_all(2);
}

/* As the subscriber's check_overwritten(). */
static bool was_overwritten(void)
{
	is_lossy = is_lossy || shmb_bell_evicted(&bell);
	return is_lossy && shmb_lane_lapped(&reader);
}

/* As the subscriber's sub_look_watched() and take(). */
static int receive_watched(void)
{
	uint64_t words[RING_LEN / 8] = { 0 }, position = reader.position;
	struct shmb_record record;
	int result;

	if (is_lossy)
		return receive_lossy();
	result = shmb_lane_peek(&reader, &record);
	if (was_overwritten()) {
		reader.position = position;
		return receive_lossy();
	}
	if (result < 0)
		dfs_fail("bytes that cannot be a record");
	if (result <= 0)
		return 0;
	model_copy(words, &record);
	if (was_overwritten())
		return 1;
	shmb_lane_skip(&reader, &record);
	dfs_settle();
	model_judge(words, &record, reader.sequence - 1);
	n_received++;
	if (n_received + n_lost != reader.sequence)
		dfs_fail("the loss is not exact");
	return 1;
}

static void read_watched(void)
{
	for (unsigned int i = 0; i < n_reads; i++)
		receive_watched();
}

static void check_watched(void)
{
	while (receive_watched())
		continue;
	if (reader.sequence != n_certain && reader.sequence != n_perhaps &&
	    !(MODEL_N_MARKS == 1 && dfs_killed(0)))
		dfs_fail("the reader does not get to the end");
	if (n_received + n_lost != reader.sequence)
		dfs_fail("the loss is not exact");
}

static void check_lossy(void)
{
	while (receive_lossy())
		continue;
	/* A writer may die with one mark half rewritten. */
	if (reader.sequence != n_certain && reader.sequence != n_perhaps &&
	    !(MODEL_N_MARKS == 1 && dfs_killed(0)))
		dfs_fail("the reader does not get to the end");
	if (n_received + n_lost != reader.sequence)
		dfs_fail("the loss is not exact");
}

/* @n_before records have been written, and the reader has read @n_read of them. */
static void begin_lossy(const uint8_t *lens, unsigned int n, unsigned int n_before,
			unsigned int n_read)
{
	model_begin(lens, n);
	dfs_ignore(&lane.segment.position_hint);
	dfs_ignore(&lane.segment.sequence_hint);
	n_received = n_lost = 0;
	for (unsigned int i = 0; i < n_before; i++) {
		write_for_all(1);
		if (i < n_read)
			receive_lossy();
	}
	n_reads = 2;
}

/* The reader is the whole ring behind; marks are used again at once. */
static void set_up_behind(void)
{
	begin_lossy(lens_one, N(lens_one), 7, 4);
}

/* The next record laps the reader, and brings the first mark from which it can go on. */
static void set_up_nearly(void)
{
	begin_lossy(lens_two, N(lens_two), 4, 3);
}

static void set_up_pads(void)
{
	begin_lossy(lens_two, N(lens_two), 3, 2);
}

static void set_up_lossy_batch(void)
{
	begin_lossy(lens_batch, N(lens_batch), 7, 4);
}

/* The ring is full of what the reader has not read, but for the word that is 0. */
static void set_up_watched(void)
{
	begin_lossy(lens_one, N(lens_one), 7, 4);
	/* The intent is ahead already: nothing but the eviction itself says what comes now. */
	shmb_lane_raise_intent(&writer, writer.position + RING_LEN);
	is_lossy = false;
}

static const struct dfs_scenario scenarios[] = {
#if MODEL_N_MARKS > 1
	{ "reliable, singles and a pad",
	  set_up_singles,
	  { write_singles, read_reliably },
	  check_reliable,
	  1,
	  5,
	  3,
	  { 2100000, 70000 } },
	{ "reliable, full ring",
	  set_up_full,
	  { write_singles, read_reliably },
	  check_reliable,
	  1,
	  5,
	  2,
	  { 4000000, 80000 } },
	{ "reliable, batch",
	  set_up_batch,
	  { write_batch, read_reliably },
	  check_reliable,
	  1,
	  5,
	  3,
	  { 43000, 5000 } },
	{ "reliable, batch over a pad",
	  set_up_batch_wrap,
	  { write_batch, read_reliably },
	  check_reliable,
	  1,
	  5,
	  3,
	  { 450000, 18000 } },
#endif
	{ "lossy, a ring behind",
	  set_up_behind,
	  { write_two, read_lossily },
	  check_lossy,
	  1,
	  4,
	  2,
	  { 670000, 14000 } },
	{ "lossy, pads",
	  set_up_pads,
	  { write_two, read_lossily },
	  check_lossy,
	  1,
	  4,
	  2,
	  { 2600000, 30000 } },
	{ "lossy, batch",
	  set_up_lossy_batch,
	  { write_lossy_batch, read_lossily },
	  check_lossy,
	  1,
	  4,
	  2,
	  { 390000, 10000 } },
	{ "evicted",
	  set_up_watched,
	  { evict_and_write, read_watched },
	  check_watched,
	  1,
	  4,
	  2,
	  { 90000, 4000 } },
	{ "lossy, nearly lapped",
	  set_up_nearly,
	  { write_lap, read_and_resync },
	  check_lossy,
	  1,
	  4,
	  2,
	  { MODEL_N_MARKS > 1 ? 13000000 : 2100000, 50000 } },
};

int main(int argc, char **argv)
{
	dfs_share(&lane, sizeof(lane));
	dfs_share(&cursor, sizeof(cursor));
	dfs_share(&bell, sizeof(bell));
	return dfs_main(argc, argv, scenarios, N(scenarios));
}
