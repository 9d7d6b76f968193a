/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmbroker through its public API, linked as everybody links it: two processes with a client
 * each, a channel per direction. Fan-out and fan-in keep all handles of a side in its one process,
 * so that they cost what lanes cost, not what sharing a CPU costs.
 */

#include <errno.h>
#include <string.h>

#include "ends.h"

enum flavour {
	SINGLE,
	BATCH,
	ZERO_COPY,
};

/* ---- one record -------------------------------------------------------------------------------- */

static inline void send(struct shmb_publisher *publisher, struct bench_ends *ends, uint32_t size,
			uint64_t value)
{
	int32_t result;

	memcpy(ends->buffer, &value, sizeof(value));
	while ((result = shmb_publisher_send(publisher, ends->buffer, size)) == -EAGAIN)
		bench_pause();
	if (result < 0)
		bench_die("cannot send: %s", bench_last_error());
}

static inline bool try_receive(struct shmb_subscriber *subscriber, struct bench_ends *ends,
			       uint32_t size, uint64_t *ret_value)
{
	int32_t result = shmb_subscriber_recv(subscriber, ends->buffer, size);

	if (result == -EAGAIN)
		return false;
	if (result != (int32_t)size)
		bench_die("cannot receive: %s", bench_last_error());
	memcpy(ret_value, ends->buffer, sizeof(*ret_value));
	return true;
}

static inline uint64_t receive(struct bench_workload *work)
{
	struct bench_ends *ends = work->state;
	struct shmb_subscriber *subscriber = ends->subscribers[0];
	uint64_t value;

	while (!try_receive(subscriber, ends, work->size, &value)) {
		if (!work->sleeps)
			bench_pause();
		else if (shmb_subscriber_wait(subscriber, SHMB_FOREVER) < 0)
			bench_die("cannot wait: %s", bench_last_error());
	}
	return value;
}

/* How many system calls publishers make to wake somebody, where nobody sleeps. */
static void count_rings(struct bench_workload *work)
{
	struct bench_ends *ends = work->state;
	struct shmb_publisher_stats stats;

	shmb_publisher_stats(ends->publishers[0], &stats, sizeof(stats));
	if (!work->sleeps) {
		*bench.rings += stats.rings - ends->rings;
		*bench.published += stats.published - ends->published;
	}
	ends->rings = stats.rings;
	ends->published = stats.published;
}

/* ---- to and fro -------------------------------------------------------------------------------- */

static int open_both_ways(struct bench_workload *work, unsigned int side)
{
	uint32_t flags = work->sleeps ? SHMB_SUBSCRIBER_NO_SPIN : 0;
	struct shmb_channel *there, *back;

	if (!bench_new_ends(work))
		return -1;
	there = bench_channel(work, "there");
	back = there ? bench_channel(work, "back") : NULL;
	if (!back)
		return -1;
	if (bench_add_publishers(work, side == 0 ? there : back, 1) < 0 ||
	    bench_add_subscribers(work, side == 0 ? back : there, 1, flags) < 0)
		return -1;
	return bench_wait_members(work, there, 1, 1) < 0 ? -1
							 : bench_wait_members(work, back, 1, 1);
}

static double ping(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < ops; i++) {
		send(ends->publishers[0], ends, work->size, i);
		sum += receive(work);
	}
	bench_check_sum(work, sum, ops);
	count_rings(work);
	return 0;
}

static double pong(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;

	for (uint64_t i = 0; i < ops; i++)
		send(ends->publishers[0], ends, work->size, receive(work));
	return 0;
}

static const struct bench_driver rtt = { .open = open_both_ways, .run = { ping, pong } };

/* ---- one way ----------------------------------------------------------------------------------- */

static int open_one_way(struct bench_workload *work, unsigned int side)
{
	struct shmb_channel *channel;
	int result;

	if (!bench_new_ends(work))
		return -1;
	channel = bench_channel(work, "there");
	if (!channel)
		return -1;
	result = side == 0 ? bench_add_publishers(work, channel, work->n_publishers)
			   : bench_add_subscribers(work, channel, work->n_subscribers, 0);
	return result < 0
		       ? -1
		       : bench_wait_members(work, channel, work->n_publishers, work->n_subscribers);
}

static double produce(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;

	for (uint64_t i = 0; i < ops; i++)
		send(ends->publishers[0], ends, work->size, i);
	count_rings(work);
	return 0;
}

static double consume(struct bench_workload *work, uint64_t ops)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < ops; i++)
		sum += receive(work);
	bench_check_sum(work, sum, ops);
	return 0;
}

static double produce_batches(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;
	uint64_t i = 0;

	while (i < ops) {
		uint32_t n = 0;
		int32_t result;

		for (uint64_t value = i; n < BENCH_BATCH; n++, value++)
			memcpy(ends->buffer + (size_t)n * work->size, &value, sizeof(value));
		for (n = 0; n < BENCH_BATCH;) {
			result = shmb_publisher_send_many(ends->publishers[0],
							  ends->buffer + (size_t)n * work->size,
							  work->size, NULL, BENCH_BATCH - n);
			if (result < 0 && result != -EAGAIN)
				bench_die("cannot send: %s", bench_last_error());
			if (result > 0)
				n += (uint32_t)result;
			else
				bench_pause();
		}
		i += n;
	}
	count_rings(work);
	return 0;
}

static double consume_batches(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;
	uint64_t sum = 0, value;

	for (uint64_t i = 0; i < ops;) {
		int32_t n = shmb_subscriber_recv_many(ends->subscribers[0], ends->buffer,
						      work->size * BENCH_BATCH, NULL, BENCH_BATCH);

		if (n == -EAGAIN) {
			bench_pause();
			continue;
		}
		if (n < 0)
			bench_die("cannot receive: %s", bench_last_error());
		for (int32_t j = 0; j < n; j++) {
			memcpy(&value, ends->buffer + (size_t)j * work->size, sizeof(value));
			sum += value;
		}
		i += (uint64_t)n;
	}
	bench_check_sum(work, sum, ops);
	return 0;
}

/* Every word of the record is written where it will be read. */
static double produce_in_place(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;
	struct shmb_publisher *publisher = ends->publishers[0];
	struct shmb_view *view = shmb_publisher_view(publisher);
	int32_t result;

	for (uint64_t i = 0; i < ops; i++) {
		uint64_t *words;

		while ((result = shmb_publisher_loan(publisher, work->size)) == -EAGAIN)
			bench_pause();
		if (result < 0)
			bench_die("cannot loan: %s", bench_last_error());
		words = (uint64_t *)(uintptr_t)view->data;
		for (uint32_t j = 0; j < work->size / 8; j++)
			words[j] = i;
		if (shmb_publisher_publish(publisher, work->size) < 0)
			bench_die("cannot publish: %s", bench_last_error());
	}
	count_rings(work);
	return 0;
}

/* And every word is read where it was written. */
static double consume_in_place(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;
	struct shmb_subscriber *subscriber = ends->subscribers[0];
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t sum = 0, words = work->size / 8;

	for (uint64_t i = 0; i < ops;) {
		int32_t n = shmb_subscriber_peek(subscriber, BENCH_BATCH);

		if (n == -EAGAIN) {
			bench_pause();
			continue;
		}
		if (n < 0)
			bench_die("cannot peek: %s", bench_last_error());
		for (int32_t j = 0; j < n; j++) {
			const uint64_t *record = (const uint64_t *)((uintptr_t)view->data +
								    (size_t)j * view->stride);

			for (uint64_t k = 0; k < words; k++)
				sum += record[k];
		}
		if (shmb_subscriber_release(subscriber, (uint32_t)n) < 0)
			bench_die("cannot release: %s", bench_last_error());
		i += (uint64_t)n;
	}
	bench_check_sum(work, sum / words, ops);
	return 0;
}

static const struct bench_driver stream[] = {
	[SINGLE] = { .open = open_one_way, .run = { produce, consume } },
	[BATCH] = { .open = open_one_way, .run = { produce_batches, consume_batches } },
	[ZERO_COPY] = { .open = open_one_way, .run = { produce_in_place, consume_in_place } },
};

/* ---- several at once --------------------------------------------------------------------------- */

static double produce_by_turns(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;

	for (uint64_t i = 0; i < ops; i++)
		send(ends->publishers[i % ends->n_publishers], ends, work->size, i);
	count_rings(work);
	return 0;
}

static double consume_each(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;
	uint64_t sum = 0, value, left = ops * ends->n_subscribers;

	while (left) {
		for (uint32_t i = 0; i < ends->n_subscribers; i++) {
			if (!try_receive(ends->subscribers[i], ends, work->size, &value)) {
				bench_pause();
				continue;
			}
			sum += value;
			left--;
		}
	}
	bench_check_sum(work, sum / ends->n_subscribers, ops);
	return 0;
}

static const struct bench_driver fan = { .open = open_one_way,
					 .run = { produce_by_turns, consume_each } };

void bench_add_shmb(void)
{
	struct bench_workload *work;

	for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_rtt_sizes); i++) {
		bench_add("rtt", NULL, "shmb", "shmbroker", &rtt, bench_rtt_sizes[i]);
		bench_add("rtt", NULL, "shmb-trusting", "shmbroker, trusting", &rtt,
			  bench_rtt_sizes[i])
			->trusting = true;
	}
	for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_stream_sizes); i++) {
		uint32_t size = bench_stream_sizes[i];

		bench_add("stream", NULL, "shmb", "shmbroker", &stream[SINGLE], size);
		bench_add("stream", NULL, "shmb-trusting", "shmbroker, trusting", &stream[SINGLE],
			  size)
			->trusting = true;
		bench_add("stream", NULL, "shmb-loan", "shmbroker, loan and peek",
			  &stream[ZERO_COPY], size);
		if (size > 16384)
			continue; /* sixteen of these are more than a ring holds */
		work = bench_add("stream", NULL, "shmb-16", "shmbroker, batches of 16",
				 &stream[BATCH], size);
		work->batch = BENCH_BATCH;
		if (size <= 1016)
			bench_compare(work, "stream/%u/lane-16", size);
	}
	bench_add_sleep("one-core", "shmb", "shmbroker", &rtt);
	bench_add_sleep("two-cores", "shmb", "shmbroker", &rtt);

	bench_add("fan", "1-1", "shmb", "shmbroker, 1 to 1", &fan, 56);
	work = bench_add("fan", "1-4", "shmb", "shmbroker, 1 to 4", &fan, 56);
	work->n_subscribers = 4;
	bench_compare(work, "fan/1-1/shmb");
	work = bench_add("fan", "4-1", "shmb", "shmbroker, 4 to 1", &fan, 56);
	work->n_publishers = 4;
	bench_compare(work, "fan/1-1/shmb");
}
