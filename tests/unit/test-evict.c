/* SPDX-License-Identifier: Apache-2.0 */

/* Reliable subscribers that hold a publisher up for too long. */

#include <errno.h>
#include <stdbool.h>
#include <time.h>

#include "tests/unit/fixture.h"

#define LANE_LEN 4096u

static struct shmb_channel *channel;
static const uint64_t nobody = UINT64_MAX;

static void set_up_channel(void)
{
	set_up();
	channel = channel_of(client, "test/evict", LANE_LEN);
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

static struct shmb_subscriber *evictable(uint32_t after_ms)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .evict_after_ms = after_ms };
	struct shmb_subscriber *subscriber = NULL;

	ok(shmb_subscriber_open(channel, &options, &subscriber));
	return subscriber;
}

static void sleep_ms(long ms)
{
	struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&pause, NULL);
}

static uint32_t n_evicted(struct shmb_publisher *publisher)
{
	struct shmb_publisher_stats stats;

	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	return stats.n_evicted;
}

static uint64_t fill(struct shmb_publisher *publisher)
{
	uint64_t sent = 0;

	while (shmb_publisher_send(publisher, &sent, sizeof(sent)) == 0)
		sent++;
	return sent;
}

/* It is told once, by whom; the records that are left come in order, and none is missing in between. */
static void check_evicted(struct shmb_subscriber *subscriber, uint64_t by, uint64_t got,
			  uint64_t sent)
{
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t value, next = got;

	ok(shmb_subscriber_wait(subscriber, 0));
	refused(shmb_subscriber_recv(subscriber, &value, sizeof(value)), -ENOBUFS);
	says("lossy from now on");
	if (by != nobody)
		ck_assert_uint_eq(view->publisher_id, by);
	while (shmb_subscriber_recv(subscriber, &value, sizeof(value)) == 8) {
		ck_assert_uint_ge(value, next);
		next = value + 1;
		got++;
		ck_assert_uint_eq(got + view->lost, next);
	}
	ck_assert_uint_eq(got + view->lost, sent);
}

START_TEST(who_waits_waits_no_longer_than_it_has_to)
{
	struct shmb_subscriber *subscriber = evictable(50);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = fill(publisher);

	refused(shmb_publisher_send_wait(publisher, &sent, sizeof(sent), 1 * MS), -ETIMEDOUT);
	ck_assert_uint_eq(n_evicted(publisher), 0);
	for (int i = 0; i < 2000; i++, sent++)
		ok(shmb_publisher_send_wait(publisher, &sent, sizeof(sent), 60000 * MS));
	ck_assert_uint_eq(n_evicted(publisher), 1);
	check_evicted(subscriber, shmb_publisher_view(publisher)->publisher_id, 0, sent);
	ck_assert_uint_gt(shmb_subscriber_view(subscriber)->lost, 1000);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(who_does_not_wait_is_refused_until_then)
{
	struct shmb_subscriber *subscriber = evictable(30);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = fill(publisher);

	refused(shmb_publisher_send(publisher, &sent, sizeof(sent)), -EAGAIN);
	sleep_ms(40);
	/* Seldom, but longer than that: it is the subscriber that has not moved. */
	ok(shmb_publisher_send(publisher, &sent, sizeof(sent)));
	check_evicted(subscriber, nobody, 0, sent + 1);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(drops_are_counted_until_then)
{
	struct shmb_subscriber *subscriber = evictable(20);
	struct shmb_publisher *publisher = publisher_of(channel, SHMB_PUBLISHER_DROP_NEWEST);
	struct shmb_publisher_stats stats;
	uint64_t tried = 0, received = 0, value;
	int32_t result;

	while (!n_evicted(publisher)) {
		for (int i = 0; i < 300; i++, tried++)
			ok(shmb_publisher_send(publisher, &tried, sizeof(tried)));
		sleep_ms(5);
	}
	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.published + stats.dropped, tried);
	refused(shmb_subscriber_recv(subscriber, &value, sizeof(value)), -ENOBUFS);
	while ((result = shmb_subscriber_recv(subscriber, &value, sizeof(value))) == 8)
		received++;
	refused(result, -EAGAIN);
	ck_assert_uint_eq(received + shmb_subscriber_view(subscriber)->lost, stats.published);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(who_moves_is_not_evicted)
{
	struct shmb_subscriber *subscriber = evictable(5);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = fill(publisher), value, got = 0;

	/* Whatever the machine does meanwhile: it has moved between any two looks. */
	for (int i = 0; i < 30; i++) {
		while (shmb_publisher_send(publisher, &sent, sizeof(sent)) == 0)
			sent++;
		sleep_ms(8);
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), 8);
		ck_assert_uint_eq(value, got++);
	}
	while (shmb_subscriber_recv(subscriber, &value, sizeof(value)) == 8)
		ck_assert_uint_eq(value, got++);
	ck_assert_uint_eq(got, sent);
	ck_assert_uint_eq(n_evicted(publisher), 0);
	/* Time in which nobody waits for it does not count. */
	sleep_ms(20);
	ok(shmb_publisher_send(publisher, &sent, sizeof(sent)));
	ck_assert_uint_eq(n_evicted(publisher), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(only_who_waited_goes_on_without_it)
{
	struct shmb_subscriber *subscriber = evictable(10), *reliable = subscriber_of(channel, 0);
	struct shmb_publisher *busy = publisher_of(channel, 0), *quiet = publisher_of(channel, 0);
	struct shmb_publisher_stats stats;
	uint64_t sent = 0, value, counts[2] = { 0 };
	int32_t result;

	for (uint64_t i = 0; i < 100; i++)
		ok(shmb_publisher_send(quiet, &i, sizeof(i)));
	while (!n_evicted(busy)) {
		while (shmb_publisher_send(busy, &sent, sizeof(sent)) == 0)
			sent++;
		while (shmb_subscriber_recv(reliable, &value, sizeof(value)) == 8)
			;
		sleep_ms(1);
	}
	for (int i = 0; i < 1000; i++) {
		ok(shmb_publisher_send(busy, &sent, sizeof(sent)));
		sent++;
		ck_assert_int_eq(shmb_subscriber_recv(reliable, &value, sizeof(value)), 8);
	}
	ck_assert_uint_eq(n_evicted(quiet), 0);
	ok(shmb_publisher_stats(busy, &stats, sizeof(stats)));
	while ((result = shmb_subscriber_recv(subscriber, &value, sizeof(value))) != -EAGAIN) {
		bool is_busy = shmb_subscriber_view(subscriber)->publisher_id == stats.publisher_id;

		if (result == -ENOBUFS) {
			ck_assert(is_busy);
			continue;
		}
		ck_assert_int_eq(result, 8);
		if (!is_busy)
			ck_assert_uint_eq(value, counts[0]);
		counts[is_busy]++;
	}
	ck_assert_uint_eq(counts[0], 100);
	ck_assert_uint_eq(counts[1] + shmb_subscriber_view(subscriber)->lost, sent);
	/* Nothing that the other one sends is lost, now or later. */
	ck_assert_uint_gt(fill(quiet), 0);
	refused(shmb_publisher_send(quiet, &value, sizeof(value)), -EAGAIN);
	ok(shmb_publisher_close(busy));
	ok(shmb_publisher_close(quiet));
	ok(shmb_subscriber_close(reliable));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(what_is_looked_at_meanwhile_is_void)
{
	struct shmb_subscriber *subscriber = evictable(10);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = fill(publisher), value;

	ck_assert_int_eq(shmb_subscriber_peek(subscriber, 4), 4);
	for (int i = 0; i < 1000; i++, sent++)
		ok(shmb_publisher_send_wait(publisher, &sent, sizeof(sent), 60000 * MS));
	refused(shmb_subscriber_release(subscriber, 4), -ESTALE);
	refused(shmb_subscriber_recv(subscriber, &value, sizeof(value)), -ENOBUFS);
	value = 0;
	while (shmb_subscriber_recv(subscriber, &value, sizeof(value)) == 8)
		;
	ck_assert_uint_eq(value, sent - 1);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_new_subscriber_is_reliable_again)
{
	struct shmb_subscriber *subscriber = evictable(10);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = fill(publisher), value;

	ok(shmb_publisher_send_wait(publisher, &sent, sizeof(sent), 60000 * MS));
	ok(shmb_subscriber_close(subscriber));
	subscriber = evictable(60000);
	sent = fill(publisher);
	for (uint64_t i = 0; i < sent; i++) {
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), 8);
		ck_assert_uint_eq(value, i);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* At random: whatever is received, lost and still there is what was sent. */
START_TEST(received_and_lost_are_always_what_was_sent)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = 0, value;

	srand((unsigned)_i);
	for (int life = 0; life < 20; life++) {
		struct shmb_subscriber *subscriber = evictable(1);
		const struct shmb_view *view = shmb_subscriber_view(subscriber);
		uint64_t from = sent, got = 0;
		uint32_t told = 0;

		for (int round = 0; round < 40; round++) {
			for (int n = rand() % 400; n > 0; n--) {
				int32_t result = shmb_publisher_send_wait(publisher, &sent,
									  sizeof(sent), 2 * MS);

				sent += result == 0;
			}
			for (int n = rand() % 300; n > 0; n--) {
				int32_t result =
					shmb_subscriber_recv(subscriber, &value, sizeof(value));

				told += result == -ENOBUFS;
				if (result == -EAGAIN)
					break;
				if (result == -ENOBUFS)
					continue;
				ck_assert_int_eq(result, 8);
				got++;
				ck_assert_uint_eq(value, from + got + view->lost - 1);
			}
		}
		ck_assert_uint_le(told, 1);
		if (!told)
			ck_assert_uint_eq(view->lost, 0);
		ok(shmb_subscriber_close(subscriber));
	}
	ok(shmb_publisher_close(publisher));
}
END_TEST

START_TEST(makes_no_sense_for_who_is_lossy)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .flags = SHMB_SUBSCRIBER_LOSSY,
						   .evict_after_ms = 1 };
	struct shmb_subscriber *subscriber = NULL;

	refused(shmb_subscriber_open(channel, &options, &subscriber), -EINVAL);
	says("nobody");
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("evict");

	tcase_add_checked_fixture(tcase, set_up_channel, tear_down_channel);
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, who_waits_waits_no_longer_than_it_has_to);
	tcase_add_test(tcase, who_does_not_wait_is_refused_until_then);
	tcase_add_test(tcase, drops_are_counted_until_then);
	tcase_add_test(tcase, who_moves_is_not_evicted);
	tcase_add_test(tcase, only_who_waited_goes_on_without_it);
	tcase_add_test(tcase, what_is_looked_at_meanwhile_is_void);
	tcase_add_test(tcase, a_new_subscriber_is_reliable_again);
	tcase_add_loop_test(tcase, received_and_lost_are_always_what_was_sent, 0, 4);
	tcase_add_test(tcase, makes_no_sense_for_who_is_lossy);
	return run_suite("evict", &tcase, 1);
}
