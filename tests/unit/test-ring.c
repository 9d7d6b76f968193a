/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The lane, through ring.h alone. The reader's mapping is read-only and stands between pages that
 * may not be touched, so that a reader which writes, or reads outside, is killed on the spot.
 */

#include <shmbroker/ring.h>

#include <check.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE	 4096u
#define RING_LEN 4096u
#define LEN_MAX	 (RING_LEN / 2 - 16)
#define FAR	 (1000ull * RING_LEN)

/* One lane, mapped by its writer and by its readers. */
struct lane {
	struct shmb_lane_segment *own;
	const struct shmb_lane_segment *seen;
	uint32_t ring_len;
};

/* Check's own assertions write down each success; there are too many of them here. */
#define must(expression)                                                                           \
	do {                                                                                       \
		if (!(expression))                                                                 \
			ck_abort_msg("%s: lane at %llu, record %llu; reader at %llu, record %llu", \
				     #expression, (unsigned long long)writer.position,             \
				     (unsigned long long)writer.sequence,                          \
				     (unsigned long long)reader.position,                          \
				     (unsigned long long)reader.sequence);                         \
	} while (0)

static struct lane lane;
static struct shmb_lane_writer writer;
static struct shmb_lane_reader reader;
static uint64_t random_state = 1;

static uint64_t random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(random_u64() >> 16) % n;
}

/* ---- records ----------------------------------------------------------------------------------- */

static uint8_t byte_of(uint64_t sequence, uint32_t i)
{
	uint64_t mixed = (sequence + 1) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)((mixed >> (8 * (i & 7))) + (i >> 3));
}

static void fill(uint8_t *payload, uint64_t sequence, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		payload[i] = byte_of(sequence, i);
}

static bool is_whole(const uint8_t *payload, uint64_t sequence, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		if (payload[i] != byte_of(sequence, i))
			return false;
	return true;
}

static bool publish(uint32_t len, uint32_t type, int more)
{
	uint8_t *payload = shmb_lane_claim(&writer, len);

	if (!payload)
		return false;
	fill(payload, writer.sequence, len);
	shmb_lane_commit(&writer, len, type, more);
	return true;
}

/* The next record is this one, whole. */
static void receive(uint64_t sequence, uint32_t len, uint32_t type)
{
	struct shmb_record record;

	must(shmb_lane_peek(&reader, &record) == 1);
	must(reader.sequence == sequence);
	must(record.len == len);
	must(record.type == type);
	must(record.span == shmb_record_span(len));
	must(is_whole(record.data, sequence, len));
	shmb_lane_skip(&reader, &record);
}

static void nothing_there(void)
{
	struct shmb_record record;

	must(shmb_lane_peek(&reader, &record) == 0);
}

/* ---- the lane ---------------------------------------------------------------------------------- */

static void *map_between_fences(int fd, size_t len, int protection)
{
	uint8_t *room = mmap(NULL, len + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(room != MAP_FAILED);
	must(mmap(room + PAGE, len, protection, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED);
	return room + PAGE;
}

static void make_lane(uint32_t ring_len)
{
	size_t len = SHMB_BLOCK_LEN + ring_len;
	int fd = memfd_create("lane", MFD_CLOEXEC);

	must(fd >= 0);
	must(ftruncate(fd, (off_t)len) == 0);
	lane.own = map_between_fences(fd, len, PROT_READ | PROT_WRITE);
	lane.seen = map_between_fences(fd, len, PROT_READ);
	lane.ring_len = ring_len;
	close(fd);
	shmb_lane_writer_init(&writer, lane.own, ring_len);
	shmb_lane_reader_init(&reader, lane.seen, ring_len, 0, 0);
}

static void set_up(void)
{
	must(sysconf(_SC_PAGESIZE) == PAGE);
	make_lane(RING_LEN);
}

static void tear_down(void)
{
	size_t len = SHMB_BLOCK_LEN + lane.ring_len + 2 * PAGE;

	munmap((uint8_t *)lane.own - PAGE, len);
	munmap((uint8_t *)(uintptr_t)lane.seen - PAGE, len);
}

/* As if the lane had come to @position with everything read. All words but the zero look valid. */
static void start_at(uint64_t position, uint64_t sequence)
{
	for (uint32_t i = 0; i < lane.ring_len; i += 8)
		*shmb_lane_word(writer.ring, i) =
			SHMB_RECORD_VALID | 8 | (sequence + i % 32) << SHMB_RECORD_SEQ_SHIFT;
	*shmb_lane_word(writer.ring, position & writer.mask) = 0;
	memset(lane.own->marks, 0, sizeof(lane.own->marks));
	writer.position = position;
	writer.sequence = sequence;
	writer.limit = UINT64_MAX;
	writer.intent = position + 8;
	writer.zeroed = 0;
	lane.own->intent = writer.intent;
	lane.own->marks[0] = (struct shmb_lane_mark){ position, sequence };
	writer.next_mark = 1;
	reader.position = position;
	reader.sequence = sequence;
}

/* ---- plain -------------------------------------------------------------------------------------- */

START_TEST(every_length_arrives)
{
	for (uint32_t round = 0; round < 3; round++)
		for (uint32_t len = 0; len <= LEN_MAX; len++) {
			must(publish(len, len & 0xffff, 0));
			receive(writer.sequence - 1, len, len & 0xffff);
			nothing_there();
		}
	must(lane.seen->position_hint == writer.position);
	must(lane.seen->sequence_hint == writer.sequence);
}
END_TEST

START_TEST(record_arrives_at_every_offset)
{
	static const uint32_t lens[] = { 0,    1,	    7,		 8,	      9,
					 15,   16,	    17,		 56,	      63,
					 64,   65,	    120,	 1000,	      1001,
					 1016, LEN_MAX - 9, LEN_MAX - 8, LEN_MAX - 1, LEN_MAX };

	for (uint32_t offset = 0; offset < RING_LEN; offset += 8)
		for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
			start_at(FAR + offset, 77);
			writer.limit = writer.position + RING_LEN - 8;
			must(publish(lens[i], 3, 0));
			receive(77, lens[i], 3);
			nothing_there();
			must(reader.position == writer.position);
		}
}
END_TEST

START_TEST(full_lane_refuses_and_keeps_what_is_unread)
{
	for (uint32_t len = 0; len <= LEN_MAX; len += len < 80 ? 1 : 97)
		for (uint32_t offset = 0; offset < RING_LEN; offset += 200) {
			uint64_t n = 0;

			start_at(FAR + offset, 5);
			writer.limit = reader.position + RING_LEN - 8;
			while (publish(len, 0, 0))
				n++;
			must(n >= 1);
			must(writer.position <= writer.limit);
			must(writer.position + 2 * shmb_record_span(len) + RING_LEN / 2 >
			     writer.limit);
			for (uint64_t i = 0; i < n; i++)
				receive(5 + i, len, 0);
			nothing_there();
		}
}
END_TEST

START_TEST(limit_is_exact_to_the_word)
{
	for (uint32_t len = 0; len <= LEN_MAX; len += 8) {
		start_at(FAR, 0);
		writer.limit = FAR + shmb_record_span(len) - 8;
		must(!publish(len, 0, 0));
		nothing_there();
		writer.limit += 8;
		must(publish(len, 0, 0));
		receive(0, len, 0);
	}
}
END_TEST

START_TEST(zero_ahead_does_not_outlive_payload_over_it)
{
	for (uint32_t offset = 0; offset < RING_LEN; offset += 8)
		for (uint32_t before = 0; before <= 64; before += 8) {
			uint8_t *payload;

			start_at(FAR + offset, 9);
			must(publish(before, 0, 0));
			receive(9, before, 0);
			payload = shmb_lane_claim(&writer, 200);
			must(payload);
			memset(payload, 0xff, 200);
			fill(payload, 10, before);
			shmb_lane_commit(&writer, before, 0, 0);
			receive(10, before, 0);
			nothing_there();
		}
}
END_TEST

START_TEST(zero_ahead_stays_below_limit_and_intent)
{
	uint64_t unread, *word;

	for (uint32_t len = 0; len <= 120; len += 8)
		for (int with_limit = 0; with_limit < 2; with_limit++) {
			uint64_t span = shmb_record_span(len);

			start_at(FAR, 0);
			word = shmb_lane_word(writer.ring, 2 * span & writer.mask);
			unread = *word;
			/* Room for one record and its 0, not for another one. */
			if (with_limit)
				writer.limit = FAR + 2 * span - 8;
			else
				writer.intent = FAR + 2 * span;
			must(publish(len, 0, 0));
			must(*word == unread);
			receive(0, len, 0);
		}
}
END_TEST

START_TEST(largest_record_fits_into_an_empty_ring)
{
	must(shmb_record_len_max(SHMB_LANE_LEN_MIN) == 2032);
	must(shmb_record_len_max(1u << 20) == (1u << 19) - 16);
	must(shmb_record_len_max(SHMB_LANE_LEN_MAX) == SHMB_RECORD_LEN_MASK);
	for (uint32_t offset = 0; offset < RING_LEN; offset += 8) {
		start_at(FAR + offset, 1);
		writer.limit = writer.position + RING_LEN - 8;
		must(publish(LEN_MAX, 0xffff, 0));
		receive(1, LEN_MAX, 0xffff);
	}
}
END_TEST

START_TEST(sequence_goes_on_past_16_bits)
{
	for (uint64_t base = 0; base < 3; base++) {
		start_at(FAR, (base << 16) + 0xfff0);
		for (uint64_t i = 0; i < 64; i++) {
			must(publish(20, 0, 0));
			receive((base << 16) + 0xfff0 + i, 20, 0);
		}
	}
}
END_TEST

START_TEST(every_type_arrives)
{
	for (uint32_t type = 0; type <= 0xffff; type++) {
		must(publish(8, type, 0));
		receive(type, 8, type);
	}
}
END_TEST

/* ---- batches ------------------------------------------------------------------------------------ */

START_TEST(batch_is_invisible_until_it_is_flushed)
{
	static const uint32_t lens[] = { 0, 8, 56, 200 };

	for (uint32_t offset = 0; offset < RING_LEN; offset += 8)
		for (int i = 0; i < 4; i++) {
			start_at(FAR + offset, 0xfffe);
			for (uint32_t n = 0; n < 7; n++) {
				must(publish(lens[i], n, 1));
				nothing_there();
			}
			shmb_lane_flush(&writer);
			for (uint32_t n = 0; n < 7; n++)
				receive(0xfffe + n, lens[i], n);
			nothing_there();
		}
}
END_TEST

START_TEST(last_commit_of_a_batch_publishes_it)
{
	start_at(FAR, 0);
	must(publish(8, 0, 1));
	must(publish(8, 0, 1));
	nothing_there();
	must(publish(8, 0, 0));
	for (uint64_t n = 0; n < 3; n++)
		receive(n, 8, 0);
	nothing_there();
}
END_TEST

START_TEST(batch_never_runs_into_its_own_start)
{
	for (uint32_t offset = 0; offset < RING_LEN; offset += 8)
		for (uint32_t len = 8; len <= LEN_MAX; len += 88) {
			uint64_t n = 0;

			start_at(FAR + offset, 0);
			while (publish(len, 0, 1))
				n++;
			must(writer.position + 8 <= writer.batch_position + RING_LEN);
			/* A pad may stand in front of it. */
			reader.position = writer.batch_position;
			shmb_lane_flush(&writer);
			for (uint64_t i = 0; i < n; i++)
				receive(i, len, 0);
			nothing_there();
			must(publish(len, 0, 0));
			receive(n, len, 0);
		}
}
END_TEST

/* A lossy reader that is lapped meanwhile waits where the batch begins, and may miss none of it. */
START_TEST(batch_is_invisible_to_a_lapped_reader)
{
	for (uint32_t offset = 0; offset < RING_LEN; offset += 8) {
		struct shmb_record record;
		uint64_t lost = 0;

		start_at(FAR + offset, 0);
		for (int i = 0; i < 100; i++)
			must(publish(120, 0, 0));
		while (publish(248, 0, 1)) {
			struct shmb_lane_reader lossy = reader;

			lost = 0;
			while (shmb_lane_peek_lossy(&lossy, &record, &lost) == 1)
				shmb_lane_skip(&lossy, &record);
			must(lossy.sequence == 100);
			must(shmb_lane_lapped(&lossy) == 0);
		}
	}
}
END_TEST

/* ---- hostile bytes ----------------------------------------------------------------------------- */

static void put_header(uint64_t position, uint64_t header)
{
	*shmb_lane_word(writer.ring, position & writer.mask) = header;
}

/* Whatever the header says, the reader stays inside the ring. Returns what peek() said. */
static int survive(uint32_t offset, uint64_t header)
{
	static uint8_t out[RING_LEN];
	struct shmb_record record;
	uint64_t lost = 0;
	int result;

	put_header(offset, header);
	reader.position = FAR + offset;
	reader.sequence = 42;
	result = shmb_lane_peek(&reader, &record);
	must(result == 0 || result == 1 || result == -EBADMSG);
	if (result == 1) {
		must(record.len <= LEN_MAX);
		must(record.data >= reader.ring + 8);
		must(record.data + record.len <= reader.ring + RING_LEN);
		memcpy(out, record.data, record.len);
		shmb_lane_skip(&reader, &record);
	}
	must(reader.position <= FAR + offset + 2 * RING_LEN);
	reader.position = FAR + offset;
	reader.sequence = 42;
	shmb_lane_peek_lossy(&reader, &record, &lost);
	return result;
}

START_TEST(impossible_header_never_leads_outside)
{
	static const uint64_t lens[] = {
		0,    1,    7,	  8,	2031, 2032,  2033,
		4080, 4087, 4088, 4089, 4096, 65536, SHMB_RECORD_LEN_MASK
	};
	static const uint64_t numbers[] = { 0, 1, 41, 42, 43, 0x7fff, 0xffff };

	for (uint32_t offset = 0; offset < RING_LEN; offset += 8)
		for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
			for (uint64_t flags = 0; flags < 16; flags++)
				for (size_t j = 0; j < sizeof(numbers) / sizeof(numbers[0]); j++)
					survive(offset,
						lens[i] | flags << 28 |
							numbers[j] << SHMB_RECORD_SEQ_SHIFT);
}
END_TEST

START_TEST(random_header_never_leads_outside)
{
	for (int i = 0; i < 1000000; i++) {
		uint64_t header = random_u64();

		if (i & 1) /* often enough the sequence is right */
			header = (header & 0xffffffff) | 42ull << SHMB_RECORD_SEQ_SHIFT;
		if (i & 2)
			header = (header & ~SHMB_RECORD_LEN_MASK) | SHMB_RECORD_VALID | below(5000);
		survive(8 * below(RING_LEN / 8), header);
	}
}
END_TEST

START_TEST(each_rule_of_a_header_is_kept)
{
	uint64_t good = SHMB_RECORD_VALID | 42ull << SHMB_RECORD_SEQ_SHIFT;

	must(survive(0, good | 8) == 1);
	must(survive(0, (good | 8) & ~SHMB_RECORD_VALID) == 0);
	must(survive(0, good | LEN_MAX) == 1);
	must(survive(0, good | (LEN_MAX + 1)) == -EBADMSG);
	must(survive(RING_LEN - 64, good | 56) == 1);
	must(survive(RING_LEN - 64, good | 57) == -EBADMSG);
	must(survive(0, good | 8 | SHMB_RECORD_EXT) == -EBADMSG);
	must(survive(0, good | 8 | SHMB_RECORD_BLOCK) == -EBADMSG);
	must(survive(0, good + (1ull << SHMB_RECORD_SEQ_SHIFT)) == -EBADMSG);
	must(survive(0, good - (1ull << SHMB_RECORD_SEQ_SHIFT)) == -EBADMSG);
	/* A pad must reach exactly to the end. */
	put_header(0, 0);
	must(survive(RING_LEN - 64, good | SHMB_RECORD_PAD | 56) == 0);
	must(survive(RING_LEN - 64, good | SHMB_RECORD_PAD | 48) == -EBADMSG);
	must(survive(RING_LEN - 64, good | SHMB_RECORD_PAD | 64) == -EBADMSG);
}
END_TEST

START_TEST(pads_that_form_a_loop_are_refused)
{
	/* The first fills the end, the second the whole ring: for ever, if one believed it. */
	put_header(0, SHMB_RECORD_VALID | SHMB_RECORD_PAD | (RING_LEN - 8));
	must(survive(RING_LEN - 128, SHMB_RECORD_VALID | SHMB_RECORD_PAD | 120) == -EBADMSG);
}
END_TEST

START_TEST(random_marks_never_harm_a_lapped_reader)
{
	for (int i = 0; i < 200000; i++) {
		uint64_t lost = 0, sequence = reader.sequence;
		struct shmb_record record;
		int result;

		lane.own->intent = i & 1 ? random_u64() : FAR + below(8 * RING_LEN);
		for (uint32_t k = 0; k < SHMB_LANE_N_MARKS; k++) {
			lane.own->marks[k].position =
				i & 2 ? random_u64() : FAR + below(8 * RING_LEN);
			lane.own->marks[k].sequence = i & 4 ? random_u64() : below(5000);
		}
		put_header(8ull * below(RING_LEN / 8), random_u64());
		result = shmb_lane_peek_lossy(&reader, &record, &lost);
		must(result == 0 || result == 1 || result == -EBADMSG);
		must((reader.position & 7) == 0);
		must(reader.sequence - sequence == lost);
		if (i % 64 == 0)
			shmb_lane_reader_init(&reader, lane.seen, RING_LEN, FAR, 0);
	}
}
END_TEST

static uint64_t n_stress;

/* ---- lossy readers ------------------------------------------------------------------------------ */

/**
 * struct lossy - a reader that may be lapped
 * @at:	      where it is
 * @received: records it has
 * @lost:     records it knows it has missed
 */
struct lossy {
	struct shmb_lane_reader at;
	uint64_t received;
	uint64_t lost;
};

/* A batch that has become too long is flushed. */
static void publish_anyhow(uint32_t len, int more)
{
	if (publish(len, 0, more))
		return;
	shmb_lane_flush(&writer);
	must(publish(len, 0, more));
}

/* Takes one record, with @meanwhile calls of the publisher between the look and the copy. */
static bool take_lossy(struct lossy *lossy, uint32_t meanwhile)
{
	static uint8_t out[RING_LEN];
	struct shmb_record record;
	int result = shmb_lane_peek_lossy(&lossy->at, &record, &lossy->lost);

	must(result >= 0);
	if (result == 0)
		return false;
	memcpy(out, record.data, record.len / 2);
	while (meanwhile--)
		publish_anyhow(below(300), below(3) == 0);
	memcpy(out + record.len / 2, record.data + record.len / 2, record.len - record.len / 2);
	if (shmb_lane_lapped(&lossy->at))
		return true;
	must(is_whole(out, lossy->at.sequence, record.len));
	shmb_lane_skip(&lossy->at, &record);
	lossy->received++;
	return true;
}

START_TEST(losses_are_counted_exactly)
{
	for (uint32_t round = 0; round < n_stress / 1250; round++) {
		uint32_t hurry = 1 + below(40);
		struct lossy lossy = { 0 };

		random_state = 1000 * (uint64_t)_i + round + 1;
		start_at(FAR + 8ull * below(512), 0);
		lossy.at = reader;
		for (int i = 0; i < 300; i++) {
			for (uint32_t n = below(hurry); n > 0; n--)
				publish_anyhow(below(hurry * 20), below(4) == 0);
			take_lossy(&lossy, below(4) ? 0 : below(hurry));
			must(lossy.received + lossy.lost == lossy.at.sequence);
		}
		shmb_lane_flush(&writer);
		while (take_lossy(&lossy, 0))
			;
		must(lossy.at.position == writer.position);
		must(lossy.received + lossy.lost == writer.sequence);
	}
}
END_TEST

START_TEST(reader_that_keeps_up_loses_nothing)
{
	struct lossy lossy = { .at = reader };

	for (uint32_t i = 0; i < 100000; i++) {
		must(publish(below(LEN_MAX + 1), 0, 0));
		must(take_lossy(&lossy, 0));
	}
	must(lossy.received == 100000);
	must(lossy.lost == 0);
}
END_TEST

START_TEST(lapped_reader_waits_while_marks_are_rewritten)
{
	struct shmb_lane_mark marks[SHMB_LANE_N_MARKS];
	struct shmb_record record;
	uint64_t lost = 0;

	for (int i = 0; i < 200; i++)
		must(publish(56, 0, 0));
	memcpy(marks, lane.own->marks, sizeof(marks));
	for (uint32_t i = 0; i < SHMB_LANE_N_MARKS; i++)
		lane.own->marks[i].position = UINT64_MAX;
	must(shmb_lane_lapped(&reader) == 1);
	must(shmb_lane_resync(&reader, &lost) == -EAGAIN);
	must(shmb_lane_peek_lossy(&reader, &record, &lost) == 0);
	must(lost == 0);
	must(reader.position == 0);
	memcpy(lane.own->marks, marks, sizeof(marks));
	must(shmb_lane_peek_lossy(&reader, &record, &lost) == 1);
	must(lost > 0);
	must(is_whole(record.data, lost, 56));
}
END_TEST

START_TEST(resync_needs_a_newer_mark)
{
	uint64_t lost = 0;

	start_at(FAR, 10);
	must(shmb_lane_resync(&reader, &lost) == -EAGAIN);
	must(reader.position == FAR);
	must(reader.sequence == 10);
	/* Older, unaligned, ahead of the intent, or with a number that goes back. */
	lane.own->marks[0] = (struct shmb_lane_mark){ FAR - 8, 11 };
	must(shmb_lane_resync(&reader, &lost) == -EAGAIN);
	lane.own->intent = FAR + 64;
	lane.own->marks[0] = (struct shmb_lane_mark){ FAR + 20, 11 };
	must(shmb_lane_resync(&reader, &lost) == -EAGAIN);
	lane.own->marks[0] = (struct shmb_lane_mark){ FAR + 72, 11 };
	must(shmb_lane_resync(&reader, &lost) == -EAGAIN);
	lane.own->marks[0] = (struct shmb_lane_mark){ FAR + 16, 9 };
	must(shmb_lane_resync(&reader, &lost) == -EAGAIN);
	lane.own->marks[0] = (struct shmb_lane_mark){ FAR + 16, 12 };
	must(shmb_lane_resync(&reader, &lost) == 0);
	must(lost == 2);
	must(reader.position == FAR + 16);
}
END_TEST

START_TEST(resync_leaves_room_before_the_next_lap)
{
	uint64_t lost = 0;

	for (int i = 0; i < 1000; i++)
		must(publish(56, 0, 0));
	must(shmb_lane_resync(&reader, &lost) == 0);
	must(lane.seen->intent - reader.position <= RING_LEN - RING_LEN / 4);
	must(lane.seen->intent - reader.position >= RING_LEN / 2);
}
END_TEST

/* ---- at the same time ---------------------------------------------------------------------------- */

/* What the two sides share besides the lane. */
struct meeting {
	_Alignas(128) uint64_t cursor;
	_Alignas(128) uint32_t done;
};

static struct meeting *meeting;

static uint32_t stress_len(uint64_t sequence)
{
	uint64_t mixed = (sequence + 7) * 0xd1342543de82ef95ull;

	return (uint32_t)(mixed >> 40) % (mixed >> 60 ? 120 : LEN_MAX + 1);
}

static void set_up_stress(void)
{
	set_up();
	meeting = mmap(NULL, sizeof(*meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	must(meeting != MAP_FAILED);
	n_stress = getenv("SHMB_TEST_QUICK") ? 100000 : 500000;
}

static void tear_down_stress(void)
{
	munmap(meeting, sizeof(*meeting));
	tear_down();
}

static void *publish_all(void *unused)
{
	while (writer.sequence < n_stress) {
		/* Now and then three at once. */
		int more = writer.sequence % 8 < 2 && writer.sequence + 1 < n_stress;

		if (publish(stress_len(writer.sequence), 0, more))
			continue;
		shmb_lane_flush(&writer);
		if (writer.limit != UINT64_MAX)
			writer.limit = SHMB_LOAD_ACQUIRE(&meeting->cursor) + RING_LEN - 8;
		usleep(1);
	}
	SHMB_STORE_RELEASE(&meeting->done, 1);
	return unused;
}

static void *receive_all(void *unused)
{
	struct shmb_record record;

	while (reader.sequence < n_stress) {
		int result = shmb_lane_peek(&reader, &record);

		if (result == 0) {
			usleep(1);
			continue;
		}
		if (result < 0 || record.len != stress_len(reader.sequence) ||
		    !is_whole(record.data, reader.sequence, record.len))
			return &reader;
		shmb_lane_skip(&reader, &record);
		SHMB_STORE_RELEASE(&meeting->cursor, reader.position);
	}
	return unused;
}

START_TEST(two_threads_exchange_every_byte)
{
	pthread_t thread;

	writer.limit = RING_LEN - 8;
	must(pthread_create(&thread, NULL, publish_all, NULL) == 0);
	must(receive_all(NULL) == NULL);
	pthread_join(thread, NULL);
	nothing_there();
}
END_TEST

/* Reads in a process of its own until it has seen the last record. Its exit status says how. */
static int receive_lossy(void)
{
	static uint8_t out[RING_LEN];
	struct shmb_record record;
	uint64_t received = 0, lost = 0;

	while (reader.sequence < n_stress) {
		int result = shmb_lane_peek_lossy(&reader, &record, &lost);

		if (result < 0)
			return 2;
		if (result == 0) {
			usleep(1);
			continue;
		}
		memcpy(out, record.data, record.len);
		if (shmb_lane_lapped(&reader))
			continue;
		if (record.len != stress_len(reader.sequence) ||
		    !is_whole(out, reader.sequence, record.len))
			return 3;
		shmb_lane_skip(&reader, &record);
		received++;
	}
	return received + lost == n_stress ? 0 : 4;
}

static int wait_exit(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

START_TEST(processes_exchange_every_byte)
{
	pid_t reliable, lossy;

	writer.limit = RING_LEN - 8;
	reliable = fork();
	if (reliable == 0)
		_exit(receive_all(NULL) != NULL);
	lossy = fork();
	if (lossy == 0)
		_exit(receive_lossy());
	publish_all(NULL);
	must(wait_exit(reliable) == 0);
	must(wait_exit(lossy) == 0);
}
END_TEST

START_TEST(lossy_process_is_lapped_and_counts)
{
	pid_t lossy = fork();

	if (lossy == 0)
		_exit(receive_lossy());
	publish_all(NULL);
	must(wait_exit(lossy) == 0);
}
END_TEST

static TCase *plain_case(void)
{
	TCase *tc = tcase_create("plain");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, every_length_arrives);
	tcase_add_test(tc, record_arrives_at_every_offset);
	tcase_add_test(tc, full_lane_refuses_and_keeps_what_is_unread);
	tcase_add_test(tc, limit_is_exact_to_the_word);
	tcase_add_test(tc, largest_record_fits_into_an_empty_ring);
	tcase_add_test(tc, sequence_goes_on_past_16_bits);
	tcase_add_test(tc, zero_ahead_does_not_outlive_payload_over_it);
	tcase_add_test(tc, zero_ahead_stays_below_limit_and_intent);
	tcase_add_test(tc, every_type_arrives);
	tcase_add_test(tc, batch_is_invisible_until_it_is_flushed);
	tcase_add_test(tc, last_commit_of_a_batch_publishes_it);
	tcase_add_test(tc, batch_never_runs_into_its_own_start);
	tcase_add_test(tc, batch_is_invisible_to_a_lapped_reader);
	return tc;
}

static TCase *hostile_case(void)
{
	TCase *tc = tcase_create("hostile");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, impossible_header_never_leads_outside);
	tcase_add_test(tc, random_header_never_leads_outside);
	tcase_add_test(tc, each_rule_of_a_header_is_kept);
	tcase_add_test(tc, pads_that_form_a_loop_are_refused);
	tcase_add_test(tc, random_marks_never_harm_a_lapped_reader);
	return tc;
}

static TCase *lossy_case(void)
{
	TCase *tc = tcase_create("lossy");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_loop_test(tc, losses_are_counted_exactly, 0, 4);
	tcase_add_test(tc, reader_that_keeps_up_loses_nothing);
	tcase_add_test(tc, lapped_reader_waits_while_marks_are_rewritten);
	tcase_add_test(tc, resync_needs_a_newer_mark);
	tcase_add_test(tc, resync_leaves_room_before_the_next_lap);
	return tc;
}

static TCase *stress_case(void)
{
	TCase *tc = tcase_create("stress");

	tcase_add_checked_fixture(tc, set_up_stress, tear_down_stress);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, two_threads_exchange_every_byte);
	tcase_add_test(tc, processes_exchange_every_byte);
	tcase_add_test(tc, lossy_process_is_lapped_and_counts);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("ring");
	SRunner *runner;
	int failed;

	suite_add_tcase(suite, plain_case());
	suite_add_tcase(suite, hostile_case());
	suite_add_tcase(suite, lossy_case());
	suite_add_tcase(suite, stress_case());
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
