/* SPDX-License-Identifier: Apache-2.0 */

/* The reference lane of lane.h, doing what the library is asked to do. */

#include <stdlib.h>

#include "lane.h"

/* What both sides see of one lane. */
struct shared {
	struct lane_words words;
	_Alignas(4096) uint8_t ring[];
};

/**
 * struct ends - a side's lanes
 * @writer: to the other side
 * @reader: from it
 * @buffer: a record or a batch
 */
struct ends {
	struct lane_writer writer;
	struct lane_reader reader;
	uint8_t *buffer;
};

typedef uint64_t vector __attribute__((__vector_size__(32), __aligned__(1), __may_alias__));

/* Any multiple of 8. Not memcpy(), for which some alignments are a cliff on some processors. */
static inline void copy(uint8_t *to, const uint8_t *from, uint32_t len)
{
	uint32_t i = 0;

	for (; len - i >= 128; i += 128) {
		vector a = *(const vector *)(from + i), b = *(const vector *)(from + i + 32);
		vector c = *(const vector *)(from + i + 64), d = *(const vector *)(from + i + 96);

		*(vector *)(to + i) = a;
		*(vector *)(to + i + 32) = b;
		*(vector *)(to + i + 64) = c;
		*(vector *)(to + i + 96) = d;
	}
	for (; i < len; i += 8) {
		*(volatile uint64_t *)(void *)(to + i) =
			*(const volatile uint64_t *)(const void *)(from + i);
	}
}

static size_t shared_len(const struct bench_workload *work)
{
	return sizeof(struct shared) + bench_ring_len(work->size);
}

static int open_ends(struct bench_workload *work, unsigned int side)
{
	struct shared *there = work->area;
	struct shared *back = (void *)((uint8_t *)work->area + shared_len(work));
	struct shared *to = side == 0 ? there : back, *from = side == 0 ? back : there;
	uint64_t ring_len = bench_ring_len(work->size);
	struct ends *ends = calloc(1, sizeof(*ends));

	work->state = ends;
	if (ends)
		ends->buffer = aligned_alloc(4096, (size_t)(work->size + 4096) / 4096 * 4096 *
							   BENCH_BATCH);
	if (!ends || !ends->buffer)
		return bench_skip(work, "no memory");
	ends->writer.words = &to->words;
	ends->writer.ring = to->ring;
	ends->writer.mask = ring_len - 1;
	ends->writer.limit = ring_len - 8;
	ends->reader.words = &from->words;
	ends->reader.ring = from->ring;
	ends->reader.mask = ring_len - 1;
	ends->reader.len_max = (uint32_t)ring_len / 2 - 16;
	return 0;
}

static inline void send(struct ends *ends, uint32_t size, uint64_t value, bool more)
{
	uint8_t *data;

	while (!(data = lane_claim(&ends->writer, size))) {
		lane_flush(&ends->writer);
		bench_pause();
	}
	*(uint64_t *)(void *)ends->buffer = value;
	copy(data, ends->buffer, size);
	lane_commit(&ends->writer, size, more);
	if (more)
		return;
	lane_flush(&ends->writer);
	if (lane_must_wake(&ends->writer))
		bench_die("nobody sleeps on the reference lane");
}

static inline uint64_t receive(struct ends *ends)
{
	struct lane_record record;

	while (!lane_peek(&ends->reader, &record))
		bench_pause();
	copy(ends->buffer, record.data, record.len);
	lane_release(&ends->reader, &record);
	return *(uint64_t *)(void *)ends->buffer;
}

static double ping(struct bench_workload *work, uint64_t ops)
{
	struct ends ends = *(struct ends *)work->state;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < ops; i++) {
		send(&ends, work->size, i, false);
		sum += receive(&ends);
	}
	bench_check_sum(work, sum, ops);
	*(struct ends *)work->state = ends;
	return 0;
}

static double pong(struct bench_workload *work, uint64_t ops)
{
	struct ends ends = *(struct ends *)work->state;

	for (uint64_t i = 0; i < ops; i++)
		send(&ends, work->size, receive(&ends), false);
	*(struct ends *)work->state = ends;
	return 0;
}

static double produce(struct bench_workload *work, uint64_t ops)
{
	struct ends ends = *(struct ends *)work->state;

	for (uint64_t i = 0; i < ops; i++)
		send(&ends, work->size, i, (i + 1) % work->batch);
	*(struct ends *)work->state = ends;
	return 0;
}

static double consume(struct bench_workload *work, uint64_t ops)
{
	struct ends ends = *(struct ends *)work->state;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < ops; i++)
		sum += receive(&ends);
	bench_check_sum(work, sum, ops);
	*(struct ends *)work->state = ends;
	return 0;
}

static const struct bench_driver rtt = { .open = open_ends, .run = { ping, pong } };
static const struct bench_driver stream = { .open = open_ends, .run = { produce, consume } };

static void add(const char *group, const char *contender, const char *label, uint32_t size,
		const struct bench_driver *driver, uint32_t batch)
{
	struct bench_workload *work;

	work = bench_add(group, NULL, contender, label, driver, size);
	work->batch = batch;
	work->area_len = 2 * shared_len(work);
}

void bench_add_lane(void)
{
	for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_rtt_sizes); i++)
		add("rtt", "lane", "reference lane", bench_rtt_sizes[i], &rtt, 1);
	for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_stream_sizes); i++) {
		add("stream", "lane", "reference lane", bench_stream_sizes[i], &stream, 1);
		if (bench_stream_sizes[i] <= 1016)
			add("stream", "lane-16", "reference lane, batches of 16",
			    bench_stream_sizes[i], &stream, BENCH_BATCH);
	}
}
