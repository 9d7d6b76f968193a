/* SPDX-License-Identifier: Apache-2.0 */

/* Records that lie in blocks, and holds, through the public API, against an embedded broker. */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/fixture.h"

#define KIB		1024u
#define MIB		(1024u * KIB)
#define RECORD_LEN_MAX	(1u * MIB)
#define INLINE_LEN_MAX	(4u * KIB)
#define BUFFER_LEN	(2u * MIB)
#define WHOLE_LEN_OF(n) ((n) * sizeof(uint64_t))

static struct shmb_channel *channel;
static uint64_t out[BUFFER_LEN / 8], in[BUFFER_LEN / 8];

static struct shmb_channel *blocks_of(struct shmb_client *of, const char *name,
				      const struct shmb_channel_options *wanted)
{
	struct shmb_channel_options options = *wanted;
	struct shmb_channel *opened = NULL;

	options.options_len = sizeof(options);
	options.flags = SHMB_CHANNEL_CREATE;
	options.backing = backing_of_run();
	ok(shmb_channel_open(of, name, (uint32_t)strlen(name), &options, &opened));
	return opened;
}

static const struct shmb_channel_options usual = {
	.lane_len = 64 * KIB,
	.record_len_max = RECORD_LEN_MAX,
	.inline_len_max = INLINE_LEN_MAX,
	.arena_len = 8 * (RECORD_LEN_MAX + 4096),
	.max_holds = 3,
};

static void set_up_channel(void)
{
	set_up();
	channel = blocks_of(client, "test/blocks", &usual);
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

/* A record of words that tell which one it is, and where in it they are. */
static void fill(uint64_t *words, uint32_t len, uint64_t number)
{
	for (uint32_t i = 0; i < len / 8; i++)
		words[i] = number << 32 | i;
}

static void check_words(const void *data, uint32_t len, uint64_t number)
{
	const uint64_t *words = data;
	uint32_t i = 0;

	/* One assertion: each of them is a system call. */
	while (i < len / 8 && words[i] == (number << 32 | i))
		i++;
	ck_assert_msg(i == len / 8, "word %u of record %llu is %llx", i, (unsigned long long)number,
		      i < len / 8 ? (unsigned long long)words[i] : 0);
}

static void send_one(struct shmb_publisher *publisher, uint32_t len, uint64_t number)
{
	fill(out, len, number);
	ok(shmb_publisher_send(publisher, out, len));
}

static void recv_one(struct shmb_subscriber *subscriber, uint32_t len, uint64_t number)
{
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, in, sizeof(in)), (int32_t)len);
	check_words(in, len, number);
}

static const void *view_data(struct shmb_subscriber *subscriber)
{
	return (const void *)(uintptr_t)shmb_subscriber_view(subscriber)->data;
}

static struct shmb_publisher_stats stats_of(struct shmb_publisher *publisher)
{
	struct shmb_publisher_stats stats;

	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	return stats;
}

/* ---- sending and receiving ---------------------------------------------------------------------- */

START_TEST(short_and_long_records_arrive_in_order)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t number = 0;

	srand(1);
	for (int round = 0; round < 300; round++) {
		uint32_t lens[4];

		for (unsigned i = 0; i < 4; i++) {
			lens[i] = (uint32_t)rand() %
				  (rand() % 2 ? 2 * INLINE_LEN_MAX : RECORD_LEN_MAX);
			lens[i] &= ~7u;
			send_one(publisher, lens[i], number + i);
		}
		for (unsigned i = 0; i < 4; i++) {
			recv_one(subscriber, lens[i], number + i);
			ck_assert_uint_eq(shmb_subscriber_view(subscriber)->sequence, number + i);
		}
		number += 4;
	}
	refused(shmb_subscriber_recv(subscriber, in, sizeof(in)), -EAGAIN);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(every_length_around_a_limit_arrives_whole)
{
	static const uint32_t limits[] = { INLINE_LEN_MAX, 8 * KIB, 64 * KIB, RECORD_LEN_MAX - 8 };
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);

	for (unsigned i = 0; i < 4; i++) {
		for (uint32_t len = limits[i] - 8; len <= limits[i] + 8; len++) {
			memset(out, (int)(len * 7), len);
			ok(shmb_publisher_send_typed(publisher, out, len, len & 0xffff));
			memset(in, 0, len + 1);
			ck_assert_int_eq(shmb_subscriber_recv(subscriber, in, sizeof(in)),
					 (int)len);
			ck_assert_mem_eq(in, out, len);
			ck_assert_uint_eq(((uint8_t *)in)[len], 0);
			ck_assert_uint_eq(shmb_subscriber_view(subscriber)->type, len & 0xffff);
		}
	}
	refused(shmb_publisher_send(publisher, out, RECORD_LEN_MAX + 1), -EMSGSIZE);
	says("record_len_max");
	ok(shmb_publisher_send(publisher, out, RECORD_LEN_MAX));
	refused(shmb_subscriber_recv(subscriber, in, RECORD_LEN_MAX - 1), -EMSGSIZE);
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->len, RECORD_LEN_MAX);
	ok(shmb_subscriber_recv(subscriber, in, RECORD_LEN_MAX));
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(batches_mix_short_and_long_ones)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint32_t lens[6] = { 8, 64 * KIB, 16, 128 * KIB, 64 * KIB, 8 }, got[6];
	uint8_t *at = (uint8_t *)out;

	for (unsigned i = 0; i < 6; i++) {
		fill((uint64_t *)(void *)at, lens[i], i);
		at += lens[i];
	}
	ck_assert_int_eq(shmb_publisher_send_many(publisher, out, 0, lens, 6), 6);
	ck_assert_int_eq(shmb_subscriber_recv_many(subscriber, in, sizeof(in), got, 6), 6);
	at = (uint8_t *)in;
	for (unsigned i = 0; i < 6; i++) {
		ck_assert_uint_eq(got[i], lens[i]);
		check_words(at, lens[i], i);
		at += lens[i];
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_loan_is_where_the_record_lies)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const struct shmb_view *lent = shmb_publisher_view(publisher);
	uint64_t first = 0;

	for (uint64_t i = 0; i < 100; i++) {
		ok(shmb_publisher_loan(publisher, 256 * KIB));
		ck_assert_uint_eq(lent->len, 256 * KIB);
		ck_assert_uint_eq(lent->data % 4096, 0);
		/* What was read is in the cache: it is used again at once. */
		if (i == 0)
			first = lent->data;
		ck_assert_uint_eq(lent->data, first);
		fill((uint64_t *)(uintptr_t)lent->data, 128 * KIB, i);
		ok(shmb_publisher_publish(publisher, 128 * KIB));
		ck_assert_int_eq(shmb_subscriber_peek(subscriber, 10), 1);
		ck_assert_uint_eq(shmb_subscriber_view(subscriber)->len, 128 * KIB);
		check_words(view_data(subscriber), 128 * KIB, i);
		ck_assert_int_eq(shmb_subscriber_peek(subscriber, 10), 1);
		ok(shmb_subscriber_release(subscriber, 1));
	}
	ok(shmb_publisher_loan(publisher, 256 * KIB));
	ok(shmb_publisher_cancel(publisher));
	refused(shmb_subscriber_peek(subscriber, 1), -EAGAIN);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_full_arena_refuses_and_loses_nothing)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = 0, got = 0;

	for (int round = 0; round < 20; round++) {
		fill(out, RECORD_LEN_MAX, sent);
		while (shmb_publisher_send(publisher, out, RECORD_LEN_MAX) == 0)
			fill(out, RECORD_LEN_MAX, ++sent);
		refused(shmb_publisher_send(publisher, out, RECORD_LEN_MAX), -EAGAIN);
		says("blocks");
		refused(shmb_publisher_wait(publisher, RECORD_LEN_MAX, 1 * MS), -ETIMEDOUT);
		/* Short ones still find room in the lane. */
		if (round % 2)
			send_one(publisher, 8, sent++);
		while (got < sent)
			recv_one(subscriber, round % 2 && got == sent - 1 ? 8 : RECORD_LEN_MAX,
				 got),
				got++;
	}
	ck_assert_uint_ge(sent, 20 * 6);
	ck_assert_uint_le(stats_of(publisher).arena_len, usual.arena_len);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

static void *release_later(void *data)
{
	struct shmb_subscriber *subscriber = data;

	for (int i = 0; i < 20; i++) {
		usleep(2000);
		ok(shmb_subscriber_wait(subscriber, 5000 * MS));
		ok(shmb_subscriber_recv(subscriber, in, sizeof(in)));
	}
	return NULL;
}

START_TEST(a_publisher_waits_for_a_block)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	pthread_t reader;

	ck_assert_int_eq(pthread_create(&reader, NULL, release_later, subscriber), 0);
	for (int i = 0; i < 20; i++)
		ok(shmb_publisher_send_wait(publisher, out, RECORD_LEN_MAX, 5000 * MS));
	pthread_join(reader, NULL);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------------- */

START_TEST(arenas_grow_as_they_are_needed)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t len = 0;

	ck_assert_uint_eq(stats_of(publisher).arena_len, 0);
	send_one(publisher, 8, 0);
	ck_assert_uint_eq(stats_of(publisher).arena_len, 0);
	for (uint64_t i = 1; i <= 6; i++) {
		send_one(publisher, RECORD_LEN_MAX, i);
		ck_assert_uint_ge(stats_of(publisher).arena_len, len);
		len = stats_of(publisher).arena_len;
		ck_assert_uint_ge(len, i * RECORD_LEN_MAX);
		ck_assert_uint_le(len, usual.arena_len);
		ck_assert_uint_eq(stats_of(publisher).n_blocks, i);
	}
	recv_one(subscriber, 8, 0);
	for (uint64_t i = 1; i <= 6; i++)
		recv_one(subscriber, RECORD_LEN_MAX, i);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(memory_of_one_length_serves_another)
{
	static const struct shmb_channel_options tight = {
		.lane_len = 256 * KIB,
		.record_len_max = RECORD_LEN_MAX,
		.inline_len_max = 1 * KIB,
		.arena_len = 2 * (RECORD_LEN_MAX + 4096),
	};
	struct shmb_channel *tight_channel = blocks_of(client, "test/tight", &tight);
	struct shmb_subscriber *subscriber = subscriber_of(tight_channel, 0);
	struct shmb_publisher *publisher = publisher_of(tight_channel, 0);
	uint64_t sent = 0, got = 0;

	srand(3);
	for (int round = 0; round < 60; round++) {
		uint32_t len =
			round % 2 ? RECORD_LEN_MAX : 8 * KIB + 8 * KIB * (uint32_t)(rand() % 4);
		uint64_t n = 0;

		fill(out, len, sent);
		while (shmb_publisher_send(publisher, out, len) == 0) {
			fill(out, len, ++sent);
			n++;
		}
		ck_assert_uint_ge(n, 1);
		while (got < sent)
			recv_one(subscriber, len, got++);
		ck_assert_uint_le(stats_of(publisher).arena_len, tight.arena_len);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(tight_channel));
}
END_TEST

START_TEST(memory_can_be_ready_from_the_start)
{
	struct shmb_publisher_options options = { .options_len = sizeof(options),
						  .arena_len = 4 * MIB };
	struct shmb_publisher *publisher;

	ok(shmb_publisher_open(channel, &options, &publisher));
	ck_assert_uint_ge(stats_of(publisher).arena_len, 4 * MIB);
	ok(shmb_publisher_close(publisher));
	options.arena_len = usual.arena_len + 1;
	refused(shmb_publisher_open(channel, &options, &publisher), -EINVAL);
	says("bytes of blocks");
}
END_TEST

START_TEST(impossible_options_are_refused)
{
	static const struct {
		struct shmb_channel_options options;
		const char *says;
	} bad[] = {
		{ { .arena_len = 4096 }, "record_len_max" },
		{ { .record_len_max = 1u << 31 }, "record_len_max" },
		{ { .record_len_max = MIB, .arena_len = MIB }, "arena_len" },
		{ { .record_len_max = MIB, .lane_len = 4096, .inline_len_max = 4096 }, "lane" },
		{ { .record_len_max = MIB, .max_holds = 65 }, "64" },
		{ { .record_len_max = MIB, .block_flags = 2 }, "block_flags" },
		{ { .record_len_max = MIB, .numa_node = 1000 }, "NUMA node 999" },
		{ { .record_len_max = MIB, .pattern = SHMB_CHANNEL_STATE }, "only streams" },
		{ { .record_len_max = MIB, .pattern = SHMB_CHANNEL_QUEUE }, "only streams" },
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct shmb_channel_options options = bad[i].options;
		struct shmb_channel *none;

		options.options_len = sizeof(options);
		options.flags = SHMB_CHANNEL_CREATE;
		refused(shmb_channel_open(client, "test/bad", 8, &options, &none), -EINVAL);
		says(bad[i].says);
	}
}
END_TEST

START_TEST(a_channel_says_what_it_has)
{
	struct shmb_channel_info info;

	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.record_len_max, RECORD_LEN_MAX);
	ck_assert_uint_eq(info.inline_len_max, INLINE_LEN_MAX);
	ck_assert_uint_eq(info.arena_len, usual.arena_len);
	ck_assert_uint_eq(info.max_holds, 3);
}
END_TEST

START_TEST(node_0_and_huge_pages_can_be_asked_for)
{
	static const struct shmb_channel_options wanted = { .record_len_max = 4 * MIB,
							    .block_flags = SHMB_BLOCKS_HUGE_PAGES,
							    .numa_node = 1 };
	struct shmb_channel *huge = blocks_of(client, "test/huge", &wanted);
	struct shmb_subscriber *subscriber = subscriber_of(huge, 0);
	struct shmb_publisher *publisher = publisher_of(huge, 0);

	for (uint64_t i = 0; i < 20; i++) {
		send_one(publisher, BUFFER_LEN, i);
		recv_one(subscriber, BUFFER_LEN, i);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(huge));
}
END_TEST

/* ---- coming and going --------------------------------------------------------------------------- */

START_TEST(who_comes_later_gets_the_arenas_that_there_are)
{
	struct shmb_subscriber *first = subscriber_of(channel, 0), *second;
	struct shmb_publisher *publisher = publisher_of(channel, 0);

	for (uint64_t i = 0; i < 4; i++)
		send_one(publisher, RECORD_LEN_MAX, i);
	second = subscriber_of(channel, 0);
	for (uint64_t i = 0; i < 4; i++)
		recv_one(first, RECORD_LEN_MAX, i);
	for (uint64_t i = 4; i < 40; i++) {
		send_one(publisher, RECORD_LEN_MAX, i);
		recv_one(first, RECORD_LEN_MAX, i);
		recv_one(second, RECORD_LEN_MAX, i);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(first));
	ok(shmb_subscriber_close(second));
}
END_TEST

START_TEST(what_a_publisher_has_left_can_be_read)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);

	for (uint64_t i = 0; i < 4; i++)
		send_one(publisher, RECORD_LEN_MAX, i);
	ok(shmb_publisher_close(publisher));
	for (uint64_t i = 0; i < 4; i++)
		recv_one(subscriber, RECORD_LEN_MAX, i);
	refused(shmb_subscriber_recv(subscriber, in, sizeof(in)), -EAGAIN);
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(history_is_as_long_as_there_are_blocks)
{
	static const struct shmb_channel_options with_history = {
		.lane_len = 64 * KIB,
		.record_len_max = RECORD_LEN_MAX,
		.arena_len = 4 * (RECORD_LEN_MAX + 4096),
		.history = 8,
	};
	struct shmb_channel *old = blocks_of(client, "test/history", &with_history);
	struct shmb_publisher *publisher = publisher_of(old, 0);
	struct shmb_subscriber *subscriber;
	uint64_t first = 0;

	/* Short ones have room for all of it. */
	for (uint64_t i = 0; i < 50; i++)
		send_one(publisher, 64 * KIB, i);
	subscriber = subscriber_of(old, 0);
	refused(shmb_publisher_wait(publisher, RECORD_LEN_MAX + 1, 0), -EMSGSIZE);
	for (uint64_t i = 42; i < 50; i++)
		recv_one(subscriber, 64 * KIB, i);
	ok(shmb_subscriber_close(subscriber));
	/* Of long ones there are fewer, but nobody waits for room. */
	for (uint64_t i = 50; i < 70; i++)
		send_one(publisher, RECORD_LEN_MAX, i);
	subscriber = subscriber_of(old, 0);
	refused(shmb_publisher_wait(publisher, RECORD_LEN_MAX + 1, 0), -EMSGSIZE);
	while (shmb_subscriber_recv(subscriber, in, sizeof(in)) >= 0) {
		uint64_t number = shmb_subscriber_view(subscriber)->sequence;

		if (!first)
			first = number;
		check_words(in, RECORD_LEN_MAX, number);
	}
	ck_assert_uint_ge(first, 66);
	ck_assert_uint_le(first, 69);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(old));
}
END_TEST

/* ---- holds -------------------------------------------------------------------------------------- */

static int32_t hold_one(struct shmb_subscriber *subscriber, const void **ret_data)
{
	int32_t hold;

	ok(shmb_subscriber_peek(subscriber, 1));
	hold = shmb_subscriber_hold(subscriber);
	ok(hold);
	*ret_data = view_data(subscriber);
	return hold;
}

static void holds_stay(uint32_t flags)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, flags);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const void *data[3];
	int32_t holds[3];

	for (uint64_t i = 0; i < 3; i++) {
		send_one(publisher, RECORD_LEN_MAX, i);
		holds[i] = hold_one(subscriber, &data[i]);
	}
	for (uint64_t i = 3; i < 40; i++) {
		send_one(publisher, RECORD_LEN_MAX, i);
		recv_one(subscriber, RECORD_LEN_MAX, i);
	}
	if (!flags)
		ck_assert_uint_eq(stats_of(publisher).n_held, 3);
	/* There are no more. */
	send_one(publisher, RECORD_LEN_MAX, 40);
	ok(shmb_subscriber_peek(subscriber, 1));
	refused(shmb_subscriber_hold(subscriber), -EDQUOT);
	says("3 holds");
	ok(shmb_subscriber_release(subscriber, 1));
	for (uint64_t i = 0; i < 3; i++) {
		check_words(data[i], RECORD_LEN_MAX, i);
		ok(shmb_subscriber_unhold(subscriber, (uint32_t)holds[i]));
		refused(shmb_subscriber_unhold(subscriber, (uint32_t)holds[i]), -ENOENT);
	}
	for (uint64_t i = 41; i < 60; i++) {
		send_one(publisher, RECORD_LEN_MAX, i);
		recv_one(subscriber, RECORD_LEN_MAX, i);
	}
	if (!flags) {
		/* All memory is in use again. */
		while (shmb_publisher_send(publisher, out, RECORD_LEN_MAX) == 0)
			;
		ck_assert_uint_eq(stats_of(publisher).n_held, 0);
	}
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->lost, 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}

START_TEST(what_is_held_stays)
{
	holds_stay(0);
}
END_TEST

START_TEST(what_a_lossy_subscriber_holds_stays)
{
	holds_stay(SHMB_SUBSCRIBER_LOSSY);
}
END_TEST

START_TEST(a_short_record_is_held_as_a_copy)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const void *data;
	int32_t hold;

	send_one(publisher, 64, 7);
	hold = hold_one(subscriber, &data);
	for (uint64_t i = 0; i < 10000; i++) {
		send_one(publisher, 64, i);
		recv_one(subscriber, 64, i);
	}
	check_words(data, 64, 7);
	ok(shmb_subscriber_unhold(subscriber, (uint32_t)hold));
	refused(shmb_subscriber_hold(subscriber), -EINVAL);
	refused(shmb_subscriber_unhold(subscriber, 1000), -ENOENT);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(what_is_held_outlives_its_publisher)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0), *next;
	const void *data;
	int32_t hold;

	send_one(publisher, RECORD_LEN_MAX, 5);
	hold = hold_one(subscriber, &data);
	ok(shmb_publisher_close(publisher));
	/* The next one has the same slot, and numbers its arenas and pages in the same way. */
	next = publisher_of(channel, 0);
	for (uint64_t i = 0; i < 20; i++) {
		send_one(next, RECORD_LEN_MAX, i);
		recv_one(subscriber, RECORD_LEN_MAX, i);
	}
	ck_assert_uint_eq(stats_of(next).n_held, 0);
	check_words(data, RECORD_LEN_MAX, 5);
	ok(shmb_subscriber_unhold(subscriber, (uint32_t)hold));
	ok(shmb_publisher_close(next));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(who_is_closed_holds_nothing)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_subscriber *other = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const void *data;

	for (uint64_t i = 0; i < 3; i++) {
		send_one(publisher, RECORD_LEN_MAX, i);
		hold_one(subscriber, &data);
		recv_one(other, RECORD_LEN_MAX, i);
	}
	ok(shmb_subscriber_close(subscriber));
	for (uint64_t i = 3; i < 30; i++) {
		send_one(publisher, RECORD_LEN_MAX, i);
		recv_one(other, RECORD_LEN_MAX, i);
	}
	while (shmb_publisher_send(publisher, out, RECORD_LEN_MAX) == 0)
		;
	ck_assert_uint_eq(stats_of(publisher).n_held, 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(other));
}
END_TEST

START_TEST(who_dies_holds_nothing)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	char address[108];
	pid_t pid;

	strcpy(address, shmb_broker_address(broker));
	pid = fork();
	if (pid == 0) {
		struct shmb_client *own = connect_to(address);
		struct shmb_channel *same = blocks_of(own, "test/blocks", &usual);
		struct shmb_subscriber *subscriber = subscriber_of(same, 0);
		const void *data;

		alarm(60);
		for (uint64_t i = 0; i < 3; i++) {
			ok(shmb_subscriber_wait(subscriber, 20000 * MS));
			hold_one(subscriber, &data);
		}
		kill(getpid(), SIGKILL);
	}
	ok(shmb_channel_wait_members(channel, 1, 1, 20000 * MS));
	for (uint64_t i = 0; i < 3; i++)
		send_one(publisher, RECORD_LEN_MAX, i);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ok(shmb_channel_wait_members(channel, 1, 0, 20000 * MS));
	for (int i = 0; i < 1000 && stats_of(publisher).n_subscribers; i++) {
		usleep(2000);
		ok(shmb_publisher_wait(publisher, 8, 1000 * MS));
	}
	for (uint64_t i = 3; i < 30; i++)
		send_one(publisher, RECORD_LEN_MAX, i);
	ck_assert_uint_eq(stats_of(publisher).n_held, 0);
	ok(shmb_publisher_close(publisher));
}
END_TEST

/* ---- lossy -------------------------------------------------------------------------------------- */

START_TEST(a_lossy_subscriber_counts_exactly_what_it_lost)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_LOSSY);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	int rounds = getenv("SHMB_TEST_QUICK") ? 50 : 200;
	uint64_t sent = 0, got = 0, next = 0;

	srand(5);
	for (int round = 0; round < rounds; round++) {
		for (int n = rand() % 12; n > 0; n--)
			send_one(publisher, 256 * KIB, sent++);
		for (int n = rand() % 8; n > 0; n--) {
			bool looks = rand() % 2;
			int32_t result = looks ? shmb_subscriber_peek(subscriber, 1)
					       : shmb_subscriber_recv(subscriber, in, sizeof(in));

			if (result == -EAGAIN)
				break;
			ok(result);
			ck_assert_uint_ge(view->sequence, next);
			next = view->sequence + 1;
			/* While it looks nothing happens to what it sees. */
			for (int i = 0; looks && i < 40; i++)
				send_one(publisher, 256 * KIB, sent++);
			check_words(looks ? view_data(subscriber) : in, 256 * KIB, view->sequence);
			if (looks)
				ok(shmb_subscriber_release(subscriber, 1));
			got++;
			ck_assert_uint_eq(got + view->lost, next);
		}
	}
	while (shmb_subscriber_recv(subscriber, in, sizeof(in)) >= 0)
		got++;
	ck_assert_uint_eq(got + view->lost, sent);
	ck_assert_uint_gt(view->lost, 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

static bool stop;

static void *publish_on_and_on(void *data)
{
	struct shmb_publisher *publisher = data;
	const struct shmb_view *view = shmb_publisher_view(publisher);

	for (uint64_t i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
		ok(shmb_publisher_loan(publisher, 32 * KIB));
		fill((uint64_t *)(uintptr_t)view->data, 32 * KIB, i);
		ok(shmb_publisher_publish(publisher, 32 * KIB));
	}
	return NULL;
}

/* Races what one thread reads and holds against another that publishes as fast as it can. */
START_TEST(a_lossy_subscriber_never_sees_a_torn_record)
{
	static const struct shmb_channel_options narrow = { .lane_len = 4096,
							    .record_len_max = 32 * KIB,
							    .inline_len_max = 8,
							    .arena_len = 6 * 36 * KIB,
							    .max_holds = 2 };
	struct shmb_channel *racing = blocks_of(client, "test/race", &narrow);
	struct shmb_subscriber *subscriber = subscriber_of(racing, SHMB_SUBSCRIBER_LOSSY);
	struct shmb_publisher *publisher = publisher_of(racing, 0);
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	int rounds = getenv("SHMB_TEST_QUICK") ? 2000 : 20000;
	uint64_t got = 0, next = 0;
	pthread_t writer;

	stop = false;
	ck_assert_int_eq(pthread_create(&writer, NULL, publish_on_and_on, publisher), 0);
	while (rounds-- > 0) {
		int32_t hold = -1, result;

		if (rounds % 3) {
			result = shmb_subscriber_peek(subscriber, 1);
			if (result == -EAGAIN)
				continue;
			ok(result);
			check_words(view_data(subscriber), 32 * KIB, view->sequence);
			if (rounds % 3 == 1) {
				hold = shmb_subscriber_hold(subscriber);
				ok(hold);
				check_words(view_data(subscriber), 32 * KIB, view->sequence);
				ok(shmb_subscriber_unhold(subscriber, (uint32_t)hold));
			} else {
				ok(shmb_subscriber_release(subscriber, 1));
			}
		} else {
			result = shmb_subscriber_recv(subscriber, in, sizeof(in));
			if (result == -EAGAIN)
				continue;
			ok(result);
			check_words(in, 32 * KIB, view->sequence);
		}
		got++;
		ck_assert_uint_ge(view->sequence, next);
		next = view->sequence + 1;
		ck_assert_uint_eq(got + view->lost, next);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(racing));
}
END_TEST

START_TEST(a_channel_without_blocks_holds_nothing)
{
	struct shmb_channel *plain = channel_of(client, "test/plain", 4096);
	struct shmb_subscriber *subscriber = subscriber_of(plain, 0);
	struct shmb_publisher *publisher = publisher_of(plain, 0);

	if (!getenv("SHMB_TEST_BLOCKS")) {
		send_one(publisher, 8, 1);
		ok(shmb_subscriber_peek(subscriber, 1));
		refused(shmb_subscriber_hold(subscriber), -EDQUOT);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(plain));
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("records"), tcase_create("memory"), tcase_create("members"),
			   tcase_create("holds"), tcase_create("lossy") };

	for (unsigned i = 0; i < 5; i++) {
		tcase_add_checked_fixture(cases[i], set_up_channel, tear_down_channel);
		tcase_set_timeout(cases[i], 120);
	}
	tcase_add_test(cases[0], short_and_long_records_arrive_in_order);
	tcase_add_test(cases[0], every_length_around_a_limit_arrives_whole);
	tcase_add_test(cases[0], batches_mix_short_and_long_ones);
	tcase_add_test(cases[0], a_loan_is_where_the_record_lies);
	tcase_add_test(cases[0], a_full_arena_refuses_and_loses_nothing);
	tcase_add_test(cases[0], a_publisher_waits_for_a_block);
	tcase_add_test(cases[1], arenas_grow_as_they_are_needed);
	tcase_add_test(cases[1], memory_of_one_length_serves_another);
	tcase_add_test(cases[1], memory_can_be_ready_from_the_start);
	tcase_add_test(cases[1], impossible_options_are_refused);
	tcase_add_test(cases[1], a_channel_says_what_it_has);
	tcase_add_test(cases[1], node_0_and_huge_pages_can_be_asked_for);
	tcase_add_test(cases[2], who_comes_later_gets_the_arenas_that_there_are);
	tcase_add_test(cases[2], what_a_publisher_has_left_can_be_read);
	tcase_add_test(cases[2], history_is_as_long_as_there_are_blocks);
	tcase_add_test(cases[3], what_is_held_stays);
	tcase_add_test(cases[3], what_a_lossy_subscriber_holds_stays);
	tcase_add_test(cases[3], a_short_record_is_held_as_a_copy);
	tcase_add_test(cases[3], what_is_held_outlives_its_publisher);
	tcase_add_test(cases[3], who_is_closed_holds_nothing);
	tcase_add_test(cases[3], who_dies_holds_nothing);
	tcase_add_test(cases[4], a_lossy_subscriber_counts_exactly_what_it_lost);
	tcase_add_test(cases[4], a_lossy_subscriber_never_sees_a_torn_record);
	tcase_add_test(cases[4], a_channel_without_blocks_holds_nothing);
	return run_suite("block", cases, 5);
}
