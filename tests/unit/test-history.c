/* SPDX-License-Identifier: Apache-2.0 */

/* Late subscribers and the records from before them, through the public API. */

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include <shmbroker/ring.h>

#include "lib/history.h"

#include "tests/unit/fixture.h"

#define LANE_LEN      4096u
#define N_SUBSCRIBERS 6u

static struct shmb_channel *history_channel(const char *name, uint32_t history)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN,
						.history = history,
						.backing = backing_of_run() };
	struct shmb_channel *channel = NULL;

	ok(shmb_channel_open(client, name, (uint32_t)strlen(name), &options, &channel));
	return channel;
}

static struct shmb_subscriber *late(struct shmb_channel *channel, uint32_t flags, uint32_t history)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .flags = flags,
						   .history = history };
	struct shmb_subscriber *subscriber = NULL;

	ok(shmb_subscriber_open(channel, &options, &subscriber));
	return subscriber;
}

static void send_numbers(struct shmb_publisher *publisher, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		ok(shmb_publisher_send(publisher, &i, sizeof(i)));
}

static void gets_numbers(struct shmb_subscriber *subscriber, uint64_t from, uint64_t to)
{
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t value;

	for (uint64_t i = from; i < to; i++) {
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), 8);
		ck_assert_uint_eq(value, i);
		ck_assert_uint_eq(view->sequence, i);
	}
	refused(shmb_subscriber_recv(subscriber, &value, sizeof(value)), -EAGAIN);
	ck_assert_uint_eq(view->lost, 0);
}

START_TEST(a_late_subscriber_gets_the_last_records)
{
	struct shmb_channel *channel = history_channel("test/history", 10);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *all, *three, *none, *more, *lossy;
	struct shmb_channel_info info;

	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.history, 10);
	send_numbers(publisher, 0, 1000);
	all = late(channel, 0, 0);
	three = late(channel, 0, 3);
	more = late(channel, 0, 99);
	none = late(channel, SHMB_SUBSCRIBER_NO_HISTORY, 0);
	lossy = late(channel, SHMB_SUBSCRIBER_LOSSY, 0);
	send_numbers(publisher, 1000, 1002);
	gets_numbers(all, 990, 1002);
	gets_numbers(three, 997, 1002);
	gets_numbers(more, 990, 1002);
	gets_numbers(none, 1000, 1002);
	gets_numbers(lossy, 990, 1002);
	ok(shmb_subscriber_close(all));
	ok(shmb_subscriber_close(three));
	ok(shmb_subscriber_close(more));
	ok(shmb_subscriber_close(none));
	ok(shmb_subscriber_close(lossy));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
}
END_TEST

START_TEST(there_is_no_more_history_than_records)
{
	struct shmb_channel *channel = history_channel("test/history", 10);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *early = late(channel, 0, 0), *subscriber;

	send_numbers(publisher, 0, 4);
	gets_numbers(early, 0, 4);
	subscriber = late(channel, 0, 0);
	send_numbers(publisher, 4, 5);
	gets_numbers(subscriber, 0, 5);
	gets_numbers(early, 4, 5);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_subscriber_close(early));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
}
END_TEST

START_TEST(more_than_half_a_lane_is_refused)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN,
						.history = LANE_LEN / 16 + 1 };
	struct shmb_channel *channel = NULL;

	refused(shmb_channel_open(client, "test/long", 9, &options, &channel), -EINVAL);
	says("256");
	options.history--;
	ok(shmb_channel_open(client, "test/long", 9, &options, &channel));
	ok(shmb_channel_close(channel));
	for (uint32_t len = 0; len <= shmb_record_len_max(LANE_LEN); len++) {
		uint64_t n = shmb_history_max(LANE_LEN, len), span = shmb_record_span(len);

		/* With a pad, as long as one can be, between two of them. */
		ck_assert_uint_le(n * span + (n > 1 ? span - 8 : 0), LANE_LEN / 2);
		ck_assert_uint_ge(n, 1);
	}
}
END_TEST

/* As many as the last half of the lane holds: the other half is the publisher's. */
START_TEST(a_late_subscriber_that_never_reads_leaves_half_a_lane)
{
	struct shmb_channel *channel = history_channel("test/history", LANE_LEN / 16);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber;
	uint64_t n = 0;

	send_numbers(publisher, 0, 1000);
	subscriber = late(channel, 0, 0);
	while (shmb_publisher_send(publisher, &n, sizeof(n)) == 0)
		n++;
	ck_assert_uint_ge(n, LANE_LEN / 2 / 16 - 1);
	ck_assert_uint_le(n, LANE_LEN / 2 / 16 + 1);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
}
END_TEST

START_TEST(the_largest_record_is_kept)
{
	struct shmb_channel *channel = history_channel("test/history", 1);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber;
	uint8_t data[LANE_LEN / 2 - 16], got[LANE_LEN / 2 - 16];

	for (int i = 0; i < 50; i++) {
		memset(data, i, sizeof(data));
		ok(shmb_publisher_send(publisher, data, sizeof(data)));
		if (i % 3)
			ok(shmb_publisher_send(publisher, data, sizeof(data) - 8 * (uint32_t)i));
		subscriber = late(channel, 0, 0);
		ok(shmb_publisher_wait(publisher, 0, 0));
		ck_assert_int_gt(shmb_subscriber_recv(subscriber, got, sizeof(got)), 0);
		ck_assert_uint_eq(got[0], i);
		refused(shmb_subscriber_recv(subscriber, got, sizeof(got)), -EAGAIN);
		ok(shmb_subscriber_close(subscriber));
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
}
END_TEST

/* What a loan may be writing right now is no history. */
START_TEST(a_loan_that_is_out_is_not_handed_out)
{
	struct shmb_channel *channel = history_channel("test/history", LANE_LEN / 16);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const struct shmb_view *view = shmb_publisher_view(publisher);
	struct shmb_subscriber *subscriber;
	uint64_t value, next, n = 0;
	uint8_t large[LANE_LEN / 2 - 16];

	for (uint64_t round = 0; round < 300; round++, n++) {
		send_numbers(publisher, n, n + round % 7);
		n += round % 7;
		/* Until it is known that the last subscriber has gone. */
		ok(shmb_publisher_wait(publisher, sizeof(large), 10000 * MS));
		ok(shmb_publisher_loan(publisher, sizeof(large)));
		memset((void *)(uintptr_t)view->data, 0xff, sizeof(large));
		/* A lossy one takes what may be overwritten for lost. */
		subscriber = late(channel, round & 1 ? SHMB_SUBSCRIBER_LOSSY : 0, 0);
		refused(shmb_publisher_wait(publisher, 0, 0), -EBUSY); /* it attaches here */
		for (next = 0; shmb_subscriber_recv(subscriber, large, sizeof(large)) == 8;) {
			memcpy(&value, large, sizeof(value));
			ck_assert(next == 0 || value == next);
			next = value + 1;
		}
		ck_assert(next == 0 || next == n);
		ck_assert_uint_eq(shmb_subscriber_view(subscriber)->lost, 0);
		memcpy((void *)(uintptr_t)view->data, &n, sizeof(n));
		ok(shmb_publisher_publish(publisher, sizeof(n)));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), 8);
		ck_assert_uint_eq(value, n);
		ok(shmb_subscriber_close(subscriber));
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
}
END_TEST

static void *receive_one(void *arg)
{
	uint64_t value = 0;

	ok(shmb_subscriber_wait(arg, 10000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(arg, &value, sizeof(value)), 8);
	return (void *)(uintptr_t)value;
}

/* The publisher publishes nothing more: its next call alone hands out the history, and rings. */
START_TEST(a_sleeping_late_subscriber_is_woken)
{
	struct shmb_channel *channel = history_channel("test/history", 1);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct timespec nap = { .tv_nsec = 20 * MS };
	struct shmb_subscriber *subscriber;
	struct shmb_subscriber_stats stats;
	pthread_t thread;
	void *value;

	send_numbers(publisher, 0, 8);
	subscriber = late(channel, SHMB_SUBSCRIBER_NO_SPIN, 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, receive_one, subscriber), 0);
	nanosleep(&nap, NULL);
	ok(shmb_publisher_wait(publisher, 0, 0));
	ck_assert_int_eq(pthread_join(thread, &value), 0);
	ck_assert_uint_eq((uintptr_t)value, 7);
	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.backstops, 0);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
}
END_TEST

/* ---- against a model that remembers everything ------------------------------------------------- */

#define N_REMEMBERED 65536u

/* @pads: what was refused in front of a record may have left a pad that long. */
struct model {
	uint32_t lens[N_REMEMBERED];
	uint32_t pads[N_REMEMBERED];
	uint64_t n;
};

static uint64_t n_handed_out;

struct joined {
	struct shmb_subscriber *subscriber;
	uint64_t next;
	bool is_lossy;
};

static void fill(uint8_t *data, uint32_t len, uint64_t number)
{
	for (uint32_t i = 0; i < len; i++)
		data[i] = (uint8_t)(number * 131 + i);
}

/* With longer records than SHMB_HISTORY_SPAN_MAX, fewer may come. */
static uint32_t len_max;

static uint32_t random_len(void)
{
	uint32_t max = rand() % 8 ? 64 : len_max;

	return (uint32_t)rand() % (max + 1);
}

static void send_batch(struct shmb_publisher *publisher, struct model *model)
{
	static uint8_t data[64 * LANE_LEN];
	uint32_t lens[64], count = 1 + (uint32_t)rand() % 64, at = 0;
	int32_t sent;

	for (uint32_t i = 0; i < count; i++) {
		lens[i] = (uint32_t)rand() % 64;
		fill(data + at, lens[i], model->n + i);
		at += lens[i];
	}
	sent = shmb_publisher_send_many(publisher, data, 0, lens, count);
	ck_assert(sent > 0 || sent == -EAGAIN);
	for (int32_t i = 0; i < sent; i++)
		model->lens[model->n++] = lens[i];
	if (sent < (int32_t)count)
		model->pads[model->n] += 72;
}

static void send_one(struct shmb_publisher *publisher, struct model *model)
{
	uint8_t data[LANE_LEN];
	uint32_t len = random_len();
	int32_t result;

	fill(data, len, model->n);
	result = shmb_publisher_send(publisher, data, len);
	ck_assert(result == 0 || result == -EAGAIN);
	if (result == 0)
		model->lens[model->n++] = len;
	else
		model->pads[model->n] += (uint32_t)shmb_record_span(len);
}

/* The first record that must come at least: the last ones whose bytes surely lie in half a lane. */
static uint64_t first_due(const struct model *model, uint32_t history)
{
	uint64_t len = model->pads[model->n], first = model->n, longest = 0;

	if (len_max + 8 > SHMB_HISTORY_SPAN_MAX(LANE_LEN))
		return first;

	while (first > 0 && model->n - first < history) {
		uint64_t span = shmb_record_span(model->lens[first - 1]);

		/* One pad may lie between them, shorter than the record behind it. */
		len += span + model->pads[first - 1];
		if (len + longest > LANE_LEN / 2)
			break;
		longest = span > longest ? span : longest;
		first--;
	}
	return first;
}

static void join(struct shmb_channel *channel, struct shmb_publisher *publisher,
		 struct model *model, uint32_t history, struct joined *joined)
{
	const struct shmb_view *view;
	uint32_t wanted = (uint32_t)rand() % 3 ? 0 : 1 + (uint32_t)rand() % 20;
	uint32_t due = wanted && wanted < history ? wanted : history;
	int32_t result;

	joined->is_lossy = rand() % 3 == 0;
	joined->subscriber = late(channel, joined->is_lossy ? SHMB_SUBSCRIBER_LOSSY : 0, wanted);
	refused(shmb_publisher_wait(publisher, shmb_record_len_max(LANE_LEN) + 1, 0), -EMSGSIZE);
	joined->next = model->n;
	result = shmb_subscriber_peek(joined->subscriber, 1);
	if (result == -EAGAIN) {
		ck_assert_uint_eq(first_due(model, due), model->n);
		return;
	}
	n_handed_out++;
	ck_assert_int_eq(result, 1);
	view = shmb_subscriber_view(joined->subscriber);
	joined->next = view->sequence;
	ok(shmb_subscriber_release(joined->subscriber, 0));
	ck_assert_uint_le(joined->next, first_due(model, due));
	ck_assert_uint_le(model->n - joined->next, due);
}

static void receive(struct joined *joined, const struct model *model, uint32_t max)
{
	const struct shmb_view *view = shmb_subscriber_view(joined->subscriber);
	uint8_t data[LANE_LEN], expected[LANE_LEN];
	uint64_t lost = view->lost;

	for (; max > 0; max--) {
		int32_t len = shmb_subscriber_recv(joined->subscriber, data, sizeof(data));

		joined->next += view->lost - lost;
		lost = view->lost;
		if (len == -EAGAIN) {
			ck_assert_uint_eq(joined->next, model->n);
			return;
		}
		ck_assert(joined->is_lossy || lost == 0);
		ck_assert_uint_eq(view->sequence, joined->next);
		ck_assert_int_eq(len, (int32_t)model->lens[joined->next]);
		fill(expected, (uint32_t)len, joined->next);
		ck_assert_mem_eq(data, expected, (size_t)len);
		joined->next++;
	}
}

START_TEST(random_joins_get_what_a_model_says)
{
	static struct model model;
	uint32_t history = (uint32_t[]){ 1, 5, 40, LANE_LEN / 16 }[_i % 4];
	struct shmb_channel *channel = history_channel("test/history", history);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	int rounds = getenv("SHMB_TEST_QUICK") ? 3000 : 20000;
	struct joined joined[N_SUBSCRIBERS] = { 0 };

	srand((unsigned int)_i + 1);
	memset(&model, 0, sizeof(model));
	len_max = _i < 4 ? SHMB_HISTORY_SPAN_MAX(LANE_LEN) - 8 : shmb_record_len_max(LANE_LEN);
	for (int round = 0; round < rounds && model.n < N_REMEMBERED - 64; round++) {
		struct joined *one = &joined[(uint32_t)rand() % N_SUBSCRIBERS];
		int what = rand() % 100;

		if (what < 40) {
			send_one(publisher, &model);
		} else if (what < 45) {
			send_batch(publisher, &model);
		} else if (!one->subscriber) {
			join(channel, publisher, &model, history, one);
		} else if (what < 95) {
			receive(one, &model, (uint32_t)rand() % 30);
		} else {
			ok(shmb_subscriber_close(one->subscriber));
			one->subscriber = NULL;
		}
	}
	ck_assert_uint_gt(model.n, 500);
	ck_assert_uint_gt(n_handed_out, 50);
	for (uint32_t i = 0; i < N_SUBSCRIBERS; i++) {
		if (joined[i].subscriber)
			receive(&joined[i], &model, UINT32_MAX);
		ok(shmb_subscriber_close(joined[i].subscriber));
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
}
END_TEST

int main(void)
{
	TCase *tests = tcase_create("history");

	tcase_set_timeout(tests, 120);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, a_late_subscriber_gets_the_last_records);
	tcase_add_test(tests, there_is_no_more_history_than_records);
	tcase_add_test(tests, more_than_half_a_lane_is_refused);
	tcase_add_test(tests, a_late_subscriber_that_never_reads_leaves_half_a_lane);
	tcase_add_test(tests, the_largest_record_is_kept);
	tcase_add_test(tests, a_loan_that_is_out_is_not_handed_out);
	tcase_add_test(tests, a_sleeping_late_subscriber_is_woken);
	tcase_add_loop_test(tests, random_joins_get_what_a_model_says, 0, 8);
	return run_suite("history", (TCase *[]){ tests }, 1);
}
