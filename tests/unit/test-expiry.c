/* SPDX-License-Identifier: Apache-2.0 */

/* Records of channels with a time to live. */

#include <errno.h>
#include <time.h>

#include "tests/unit/fixture.h"

#define LANE_LEN 4096u
#define LONG_MS	 3600000u

static struct shmb_channel *channel;

static struct shmb_channel *channel_with(const char *name, uint32_t ttl_ms, uint32_t history)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN,
						.history = history,
						.ttl_ms = ttl_ms,
						.backing = backing_of_run() };
	struct shmb_channel *made = NULL;

	ok(shmb_channel_open(client, name, (uint32_t)strlen(name), &options, &made));
	return made;
}

static void set_up_short(void)
{
	set_up();
	channel = channel_with("test/expiry", 20, 50);
}

static void set_up_long(void)
{
	set_up();
	channel = channel_with("test/expiry", LONG_MS, 50);
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

static void sleep_ms(long ms)
{
	struct timespec pause = { .tv_nsec = ms * 1000000 };

	nanosleep(&pause, NULL);
}

static uint64_t expired_of(struct shmb_subscriber *subscriber)
{
	struct shmb_subscriber_stats stats;

	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	return stats.expired;
}

static void send_some(struct shmb_publisher *publisher, uint64_t from, uint64_t n)
{
	for (uint64_t i = from; i < from + n; i++)
		ok(shmb_publisher_send(publisher, &i, sizeof(i)));
}

START_TEST(what_is_too_old_is_skipped_and_counted)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, _i ? SHMB_SUBSCRIBER_LOSSY : 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t value;
	int32_t result;

	send_some(publisher, 0, 60);
	sleep_ms(30);
	refused(shmb_subscriber_recv(subscriber, &value, sizeof(value)), -EAGAIN);
	ck_assert_uint_eq(expired_of(subscriber), 60);
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->lost, 0);
	/* It has made room, and the numbers go on. */
	send_some(publisher, 60, 60);
	while ((result = shmb_subscriber_recv(subscriber, &value, sizeof(value))) == 8)
		ck_assert_uint_eq(shmb_subscriber_view(subscriber)->sequence, value);
	refused(result, -EAGAIN);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* Nobody is told that there is something when all of it is too old. */
START_TEST(waiting_is_for_what_is_young)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);

	send_some(publisher, 0, 10);
	sleep_ms(30);
	refused(shmb_subscriber_wait(subscriber, 1 * MS), -ETIMEDOUT);
	ck_assert_uint_eq(expired_of(subscriber), 10);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(old_history_is_skipped)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber;
	uint64_t value;

	send_some(publisher, 0, 50);
	sleep_ms(30);
	subscriber = subscriber_of(channel, 0);
	ok(shmb_publisher_wait(publisher, 8, 0));
	refused(shmb_subscriber_recv(subscriber, &value, sizeof(value)), -EAGAIN);
	ck_assert_uint_eq(expired_of(subscriber), 50);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(what_is_young_comes_whole_whatever_its_length)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, _i ? SHMB_SUBSCRIBER_LOSSY : 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_channel_info info;
	uint8_t out[LANE_LEN], in[LANE_LEN];

	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.ttl_ms, LONG_MS);
	ck_assert_uint_eq(info.record_len_max, LANE_LEN / 2 - 32);
	for (uint32_t len = 0; len <= info.record_len_max; len++) {
		memset(out, (int)(len * 7), sizeof(out));
		ok(shmb_publisher_send_typed(publisher, out, len, len & 0xffff));
		memset(in, 0, sizeof(in));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, in, sizeof(in)), (int)len);
		ck_assert_mem_eq(in, out, len);
		ck_assert_uint_eq(shmb_subscriber_view(subscriber)->type, len & 0xffff);
		ck_assert_uint_eq(shmb_subscriber_view(subscriber)->len, len);
	}
	refused(shmb_publisher_send(publisher, out, info.record_len_max + 1), -EMSGSIZE);
	ck_assert_uint_eq(expired_of(subscriber), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(batches_loans_and_peeks_see_the_payload_only)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t values[8], got[8];
	uint32_t lens[8];
	int32_t n;

	for (int round = 0; round < 500; round++) {
		for (unsigned i = 0; i < 8; i++)
			values[i] = (uint64_t)round * 8 + i;
		ck_assert_int_eq(shmb_publisher_send_many(publisher, values, 8, NULL, 8), 8);
		ck_assert_int_eq(shmb_subscriber_recv_many(subscriber, got, sizeof(got), lens, 5),
				 5);
		ck_assert_mem_eq(got, values, 40);
		ck_assert_uint_eq(lens[4], 8);
		for (uint32_t left = 3; left;) {
			n = shmb_subscriber_peek(subscriber, left);
			ck_assert_int_gt(n, 0);
			ck_assert_uint_eq(view->len, 8);
			for (int32_t i = 0; i < n; i++)
				memcpy(&got[8 - left + (uint32_t)i],
				       (const uint8_t *)(uintptr_t)view->data +
					       (uint32_t)i * view->stride,
				       8);
			ok(shmb_subscriber_release(subscriber, (uint32_t)n));
			left -= (uint32_t)n;
		}
		ck_assert_mem_eq(&got[5], &values[5], 24);
		ok(shmb_publisher_loan(publisher, 16));
		memcpy((void *)(uintptr_t)shmb_publisher_view(publisher)->data, values, 8);
		ok(shmb_publisher_publish(publisher, 8));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, got, sizeof(got)), 8);
		ck_assert_uint_eq(got[0], values[0]);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(received_lost_and_expired_are_what_was_sent)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_LOSSY);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t sent = 0, got = 0, value;

	srand(7);
	for (int round = 0; round < 60; round++) {
		for (int n = rand() % 300; n > 0; n--, sent++)
			ok(shmb_publisher_send(publisher, &sent, sizeof(sent)));
		if (rand() % 4 == 0)
			sleep_ms(25);
		for (int n = rand() % 200; n > 0; n--) {
			if (shmb_subscriber_recv(subscriber, &value, sizeof(value)) != 8)
				break;
			got++;
			ck_assert_uint_eq(got + view->lost + expired_of(subscriber), value + 1);
		}
	}
	while (shmb_subscriber_recv(subscriber, &value, sizeof(value)) == 8)
		got++;
	ck_assert_uint_eq(got + view->lost + expired_of(subscriber), sent);
	ck_assert_uint_gt(expired_of(subscriber), 0);
	ck_assert_uint_gt(view->lost, 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_state_channel_has_no_time_to_live)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_STATE,
						.ttl_ms = 1 };
	struct shmb_channel *none = NULL;

	refused(shmb_channel_open(client, "test/none", 9, &options, &none), -EINVAL);
	says("of a stream expire");
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("short"), tcase_create("long") };

	tcase_add_checked_fixture(cases[0], set_up_short, tear_down_channel);
	tcase_add_loop_test(cases[0], what_is_too_old_is_skipped_and_counted, 0, 2);
	tcase_add_test(cases[0], waiting_is_for_what_is_young);
	tcase_add_test(cases[0], old_history_is_skipped);
	tcase_add_test(cases[0], received_lost_and_expired_are_what_was_sent);
	tcase_add_test(cases[0], a_state_channel_has_no_time_to_live);
	tcase_add_checked_fixture(cases[1], set_up_long, tear_down_channel);
	tcase_add_loop_test(cases[1], what_is_young_comes_whole_whatever_its_length, 0, 2);
	tcase_add_test(cases[1], batches_loans_and_peeks_see_the_payload_only);
	for (int i = 0; i < 2; i++)
		tcase_set_timeout(cases[i], 120);
	return run_suite("expiry", cases, 2);
}
