/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_BENCH_LANE_H
#define SHMB_BENCH_LANE_H

/*
 * The reference lane: the algorithm of the library's lanes and nothing else. One writer, one
 * reader, no membership, no history, no statistics, no handles; everything inline. What the public
 * API costs on top of the algorithm is its distance from this.
 *
 * The reader polls the header of the next record; the writer zeroes the header behind a record
 * before it publishes the record, caches how far it may go, and looks at the reader's sleep word,
 * behind a full fence, after each publication. The reader stores its position only when an eighth
 * of the ring has been read, or when it finds nothing more.
 */

#include <stdint.h>

#include "bench.h"

#define LANE_VALID (1ull << 31)
#define LANE_PAD   (1ull << 30)
#define LANE_LEN   0x0fffffffull

/* What the two sides share, besides the ring: a line pair each. */
struct lane_words {
	_Alignas(128) uint64_t head;
	uint32_t asleep;
	_Alignas(128) uint64_t hint;
};

struct lane_writer {
	struct lane_words *words;
	uint8_t *ring;
	uint64_t mask, position, limit, hinted;
	uint64_t batch_header, batch_offset;
	uint32_t woken;
};

struct lane_reader {
	struct lane_words *words;
	const uint8_t *ring;
	uint64_t mask, position, stored;
	uint32_t len_max;
};

struct lane_record {
	const uint8_t *data;
	uint32_t len;
	uint64_t span;
};

static inline uint64_t *lane_word(uint8_t *ring, uint64_t offset)
{
	return (uint64_t *)(void *)(ring + offset);
}

static inline void lane_store(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline void lane_publish(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline void lane_fence(void)
{
#if defined(__x86_64__)
	__asm__ volatile("lock; orl $0, -64(%%rsp)" ::: "memory", "cc");
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

static inline uint64_t lane_span(uint64_t len)
{
	return (len + 15) & ~7ull;
}

/* Is there room up to @end, now that the reader may have moved? */
static __attribute__((noinline, cold)) bool lane_refresh(struct lane_writer *writer, uint64_t end)
{
	uint64_t head = __atomic_load_n(&writer->words->head, __ATOMIC_ACQUIRE);

	if (head <= writer->position && head + writer->mask + 1 - 8 > writer->limit)
		writer->limit = head + writer->mask + 1 - 8;
	return end <= writer->limit;
}

static __attribute__((noinline, cold)) bool lane_wrap(struct lane_writer *writer, uint64_t span)
{
	uint64_t offset = writer->position & writer->mask, rest = writer->mask + 1 - offset;
	uint64_t end = writer->position + rest + span;

	if (end > writer->limit && !lane_refresh(writer, end))
		return false;
	lane_store(lane_word(writer->ring, 0), 0);
	lane_publish(lane_word(writer->ring, offset), LANE_VALID | LANE_PAD | (rest - 8));
	writer->position += rest;
	return true;
}

/* Returns where the payload goes, NULL if the ring is full. */
static inline uint8_t *lane_claim(struct lane_writer *writer, uint32_t len)
{
	uint64_t span = lane_span(len);

	if (__builtin_expect((writer->position & writer->mask) + span > writer->mask + 1, 0) &&
	    !lane_wrap(writer, span))
		return NULL;
	if (__builtin_expect(writer->position + span > writer->limit, 0) &&
	    !lane_refresh(writer, writer->position + span))
		return NULL;
	return writer->ring + (writer->position & writer->mask) + 8;
}

static inline void lane_flush(struct lane_writer *writer)
{
	if (!writer->batch_header)
		return;
	lane_publish(lane_word(writer->ring, writer->batch_offset), writer->batch_header);
	writer->batch_header = 0;
}

/* With @more the record stays invisible until lane_flush(). */
static inline void lane_commit(struct lane_writer *writer, uint32_t len, bool more)
{
	uint64_t offset = writer->position & writer->mask, header = LANE_VALID | len;

	writer->position += lane_span(len);
	lane_store(lane_word(writer->ring, writer->position & writer->mask), 0);
	if (writer->batch_header) {
		lane_store(lane_word(writer->ring, offset), header);
	} else if (more) {
		writer->batch_header = header;
		writer->batch_offset = offset;
	} else {
		lane_publish(lane_word(writer->ring, offset), header);
	}
	if (__builtin_expect(writer->position - writer->hinted > writer->mask / 8, 0)) {
		writer->hinted = writer->position;
		lane_store(&writer->words->hint, writer->position);
	}
}

/* After a publication: does the reader sleep? */
static inline bool lane_must_wake(struct lane_writer *writer)
{
	uint32_t asleep;

	lane_fence();
	asleep = __atomic_load_n(&writer->words->asleep, __ATOMIC_RELAXED);
	if (__builtin_expect(!(asleep & 1) || asleep == writer->woken, 1))
		return false;
	writer->woken = asleep;
	return true;
}

/* Returns false if there is no record. */
static inline bool lane_peek(struct lane_reader *reader, struct lane_record *record)
{
	for (;;) {
		uint64_t offset = reader->position & reader->mask;
		const uint64_t *word = (const uint64_t *)(const void *)(reader->ring + offset);
		uint64_t header = __atomic_load_n(word, __ATOMIC_ACQUIRE);

		if (!(header & LANE_VALID)) {
			if (reader->stored != reader->position)
				lane_publish(&reader->words->head, reader->position);
			reader->stored = reader->position;
			return false;
		}
		record->len = header & LANE_LEN;
		record->span = lane_span(record->len);
		if (__builtin_expect(record->span > reader->mask + 1 - offset, 0))
			bench_die("the reference lane is corrupt");
		if (__builtin_expect(!(header & LANE_PAD), 1)) {
			if (__builtin_expect(record->len > reader->len_max, 0))
				bench_die("the reference lane is corrupt");
			record->data = reader->ring + offset + 8;
			return true;
		}
		reader->position += record->span;
	}
}

static inline void lane_release(struct lane_reader *reader, const struct lane_record *record)
{
	reader->position += record->span;
	if (__builtin_expect(reader->position - reader->stored > reader->mask / 8, 0)) {
		reader->stored = reader->position;
		lane_publish(&reader->words->head, reader->position);
	}
}

#endif
