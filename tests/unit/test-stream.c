/* SPDX-License-Identifier: Apache-2.0 */

/* Publishers and subscribers through the public API, against an embedded broker. */

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/fixture.h"

static struct shmb_channel *channel;

static void set_up_channel(void)
{
	set_up();
	channel = channel_of(client, "test/stream", 4096);
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

static uint64_t amount(uint64_t n)
{
	return getenv("SHMB_TEST_QUICK") ? n / 10 : n;
}

START_TEST(what_is_sent_arrives_in_order)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t value;

	for (uint64_t i = 0, n = amount(100000); i < n; i++) {
		ok(shmb_publisher_send(publisher, &i, sizeof(i)));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), 8);
		ck_assert_uint_eq(value, i);
		ck_assert_uint_eq(shmb_subscriber_view(subscriber)->sequence, i);
	}
	refused(shmb_subscriber_recv(subscriber, &value, sizeof(value)), -EAGAIN);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(every_length_arrives_whole)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint8_t out[2048], in[2048];

	for (uint32_t len = 0; len <= 2032; len++) {
		memset(out, (int)(len * 7), sizeof(out));
		ok(shmb_publisher_send_typed(publisher, out, len, len & 0xffff));
		memset(in, 0, sizeof(in));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, in, sizeof(in)), (int)len);
		ck_assert_mem_eq(in, out, len);
		ck_assert_uint_eq(shmb_subscriber_view(subscriber)->type, len & 0xffff);
	}
	refused(shmb_publisher_send(publisher, out, 2033), -EMSGSIZE);
	says("2032");
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_full_lane_refuses_and_loses_nothing)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = 0, got = 0, value;

	for (int round = 0; round < 100; round++) {
		while (shmb_publisher_send(publisher, &sent, sizeof(sent)) == 0)
			sent++;
		refused(shmb_publisher_send(publisher, &sent, sizeof(sent)), -EAGAIN);
		refused(shmb_publisher_wait(publisher, 8, 1 * MS), -ETIMEDOUT);
		while (shmb_subscriber_recv(subscriber, &value, sizeof(value)) == 8)
			ck_assert_uint_eq(value, got++);
		ck_assert_uint_eq(got, sent);
	}
	ck_assert_uint_gt(sent, 100 * 200);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(dropping_the_newest_is_counted)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, SHMB_PUBLISHER_DROP_NEWEST);
	struct shmb_publisher_stats stats;
	uint64_t value, got = 0;

	for (uint64_t i = 0; i < 1000; i++)
		ok(shmb_publisher_send(publisher, &i, sizeof(i)));
	while (shmb_subscriber_recv(subscriber, &value, sizeof(value)) == 8)
		ck_assert_uint_eq(value, got++);
	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.published, got);
	ck_assert_uint_eq(stats.published + stats.dropped, 1000);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_lossy_subscriber_counts_exactly_what_it_lost)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_LOSSY);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t sent = 0, got = 0, next = 0, value;

	srand(1);
	for (uint64_t round = 0, n_rounds = amount(2000); round < n_rounds; round++) {
		for (int n = rand() % 700; n > 0; n--) {
			ok(shmb_publisher_send(publisher, &sent, sizeof(sent)));
			sent++;
		}
		for (int n = rand() % 300; n > 0; n--) {
			if (shmb_subscriber_recv(subscriber, &value, sizeof(value)) != 8)
				break;
			ck_assert_uint_ge(value, next);
			next = value + 1;
			got++;
			ck_assert_uint_eq(got + view->lost, next);
		}
	}
	while (shmb_subscriber_recv(subscriber, &value, sizeof(value)) == 8)
		got++;
	ck_assert_uint_eq(got + view->lost, sent);
	ck_assert_uint_gt(view->lost, 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* Whoever was overtaken gets what is left of a publisher, also when that has gone meanwhile. */
START_TEST(a_lossy_subscriber_reads_the_last_ring_of_who_has_gone)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_LOSSY);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t sent, got = 0, value = 0;

	for (sent = 0; sent < 20000; sent++) {
		ok(shmb_publisher_send(publisher, &sent, sizeof(sent)));
		if (sent == 0)
			got += shmb_subscriber_recv(subscriber, &value, sizeof(value)) == 8;
	}
	ok(shmb_publisher_close(publisher));
	/* It hears that before it looks at the lane again. */
	ok(shmb_client_ping(client, 5000 * MS));
	while (shmb_subscriber_recv(subscriber, &value, sizeof(value)) == 8)
		got++;
	ck_assert_uint_eq(value, sent - 1);
	ck_assert_uint_gt(view->lost, 0);
	ck_assert_uint_eq(got + view->lost, sent);
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

#define TRUST_LEN 32768u

/* Lanes of that length that this process could write. */
static unsigned writable_lanes(void)
{
	unsigned long begin, end;
	char line[512], mode[5];
	unsigned n = 0;
	FILE *maps = fopen("/proc/self/maps", "re");

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %4s", &begin, &end, mode) == 3 &&
		    end - begin == lane_of_run(TRUST_LEN) + SHMB_BLOCK_LEN && !strcmp(mode, "rw-s"))
			n++;
	if (maps)
		fclose(maps);
	return n;
}

START_TEST(only_who_trusts_lets_others_map_its_lane_writable)
{
	struct shmb_channel *trust = channel_of(client, "test/trust", TRUST_LEN);
	struct shmb_subscriber *subscriber = subscriber_of(trust, 0);
	struct shmb_publisher *publisher = publisher_of(trust, _i ? SHMB_PUBLISHER_TRUSTING : 0);
	bool sealed = backing_of_run() == SHMB_BACKING_SEALED;
	uint64_t value = 0;

	ok(shmb_publisher_send(publisher, &value, sizeof(value)));
	ok(shmb_subscriber_wait(subscriber, 10000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), sizeof(value));
	ck_assert_uint_eq(writable_lanes(), _i && !sealed ? 2 : 1);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(trust));
}
END_TEST

START_TEST(batches_keep_order_and_lengths)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint8_t out[1024], in[1024];
	uint32_t lens[16], got_lens[16];

	for (uint32_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 31);
	for (int round = 0; round < 2000; round++) {
		uint32_t total = 0;

		for (int i = 0; i < 16; i++)
			total += lens[i] = (uint32_t)(round * 7 + i * 13) % 60;
		ck_assert_int_eq(shmb_publisher_send_many(publisher, out, 0, lens, 16), 16);
		ck_assert_int_eq(
			shmb_subscriber_recv_many(subscriber, in, sizeof(in), got_lens, 16), 16);
		ck_assert_mem_eq(got_lens, lens, sizeof(lens));
		ck_assert_mem_eq(in, out, total);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_batch_larger_than_the_lane_goes_in_part)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t values[1000], in[1000];
	int32_t sent, got;

	for (uint64_t i = 0; i < 1000; i++)
		values[i] = i;
	sent = shmb_publisher_send_many(publisher, values, 8, NULL, 1000);
	ck_assert_int_gt(sent, 200);
	ck_assert_int_lt(sent, (int)lane_of_run(4096) / 16);
	refused(shmb_publisher_send_many(publisher, values, 8, NULL, 1000), -EAGAIN);
	got = shmb_subscriber_recv_many(subscriber, in, sizeof(in), NULL, 1000);
	ck_assert_int_eq(got, sent);
	ck_assert_mem_eq(in, values, (size_t)got * 8);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_loan_is_published_or_cancelled)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const struct shmb_view *view = shmb_publisher_view(publisher);
	char in[64];

	for (int round = 0; round < 1000; round++) {
		ok(shmb_publisher_loan(publisher, 40));
		memset((void *)(uintptr_t)view->data, 'x', 40);
		refused(shmb_publisher_loan(publisher, 8), -EBUSY);
		refused(shmb_publisher_send(publisher, in, 8), -EBUSY);
		ok(shmb_publisher_cancel(publisher));
		refused(shmb_publisher_publish(publisher, 1), -EINVAL);
		ok(shmb_publisher_loan(publisher, 48));
		memset((void *)(uintptr_t)view->data, 'y', 48);
		refused(shmb_publisher_publish(publisher, 49), -EINVAL);
		ok(shmb_publisher_publish(publisher, 33));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, in, sizeof(in)), 33);
		ck_assert_int_eq(in[0], 'y');
		ck_assert_int_eq(in[32], 'y');
	}
	refused(shmb_subscriber_recv(subscriber, in, sizeof(in)), -EAGAIN);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(records_can_be_looked_at_where_they_lie)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t next = 0, seen = 0;

	for (int round = 0; round < 1000; round++) {
		for (int i = 0; i < 20; i++, next++)
			ok(shmb_publisher_send(publisher, &next, sizeof(next)));
		while (seen < next) {
			int32_t n = shmb_subscriber_peek(subscriber, 7);
			char in[8];

			ck_assert_int_ge(n, 1);
			ck_assert_int_le(n, 7);
			ck_assert_int_eq(shmb_subscriber_peek(subscriber, 3), n);
			refused(shmb_subscriber_recv(subscriber, in, 8), -EBUSY);
			refused(shmb_subscriber_release(subscriber, (uint32_t)n + 1), -EINVAL);
			for (int32_t i = 0; i < n; i++) {
				const uint64_t *at =
					(const uint64_t *)(uintptr_t)(view->data +
								      (uint64_t)i * view->stride);

				ck_assert_uint_eq(*at, seen + (uint64_t)i);
			}
			/* Forget one in four times: the same records come again. */
			if (round % 4 == 0 && seen % 3 == 0 && n > 1) {
				ok(shmb_subscriber_release(subscriber, 1));
				seen++;
			} else {
				ok(shmb_subscriber_release(subscriber, (uint32_t)n));
				seen += (uint32_t)n;
			}
		}
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(every_subscriber_gets_every_record_of_every_publisher)
{
	struct shmb_subscriber *subscribers[5];
	struct shmb_publisher *publishers[5];
	uint64_t next[5][5] = { 0 };

	for (int i = 0; i < 5; i++)
		subscribers[i] = subscriber_of(channel, 0);
	for (int i = 0; i < 5; i++)
		publishers[i] = publisher_of(channel, 0);
	for (uint64_t n = 0; n < 5000; n++) {
		for (uint64_t p = 0; p < 5; p++) {
			uint64_t record[2] = { p, n };

			ok(shmb_publisher_send(publishers[p], record, sizeof(record)));
		}
		for (int s = 0; s < 5; s++)
			for (int i = 0; i < 5; i++) {
				uint64_t record[2];

				ck_assert_int_eq(shmb_subscriber_recv(subscribers[s], record, 16),
						 16);
				ck_assert_uint_eq(record[1], next[s][record[0]]++);
			}
	}
	for (int i = 0; i < 5; i++) {
		ok(shmb_publisher_close(publishers[i]));
		ok(shmb_subscriber_close(subscribers[i]));
	}
}
END_TEST

START_TEST(a_publisher_that_leaves_is_read_to_its_end)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_subscriber_stats stats;
	uint64_t value;

	for (uint64_t round = 0; round < 50; round++) {
		struct shmb_publisher *publisher = publisher_of(channel, 0);

		for (uint64_t i = 0; i < 10; i++)
			ok(shmb_publisher_send(publisher, &i, sizeof(i)));
		ok(shmb_publisher_close(publisher));
		ok(shmb_client_ping(client, 1000 * MS));
		for (uint64_t i = 0; i < 10; i++) {
			ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, 8), 8);
			ck_assert_uint_eq(value, i);
		}
		refused(shmb_subscriber_recv(subscriber, &value, 8), -EAGAIN);
	}
	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.n_publishers, 0);
	ck_assert_uint_eq(stats.received, 500);
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* One call goes on from a publisher that has gone, and is forgotten meanwhile, to the next. */
START_TEST(one_call_reads_over_the_end_of_a_publisher)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *first = publisher_of(channel, 0);
	struct shmb_publisher *second = publisher_of(channel, 0);
	uint64_t values[8] = { 0 };

	for (uint64_t i = 0; i < 5; i++)
		ok(shmb_publisher_send(i < 3 ? first : second, &i, sizeof(i)));
	ok(shmb_publisher_close(first));
	/* Until the broker has told us. */
	ok(shmb_client_ping(client, 1000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv_many(subscriber, values, sizeof(values), NULL, 8), 5);
	for (uint64_t i = 0; i < 5; i++)
		ck_assert_uint_eq(values[i], i);
	ok(shmb_publisher_close(second));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_subscriber_gets_what_is_published_after_it_opened)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = 0, value;

	for (int round = 0; round < 200; round++) {
		struct shmb_subscriber *subscriber;

		for (int i = 0; i < 30; i++, sent++)
			ok(shmb_publisher_send(publisher, &sent, sizeof(sent)));
		subscriber = subscriber_of(channel, round & 1 ? SHMB_SUBSCRIBER_LOSSY : 0);
		for (uint64_t i = 0; i < 30; i++)
			ok(shmb_publisher_send(publisher, &(uint64_t){ sent + i }, 8));
		for (uint64_t i = 0; i < 30; i++) {
			ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, 8), 8);
			ck_assert_uint_eq(value, sent + i);
		}
		sent += 30;
		ok(shmb_subscriber_close(subscriber));
	}
	ok(shmb_publisher_close(publisher));
}
END_TEST

struct flow {
	struct shmb_publisher *publisher;
	uint64_t count;
	useconds_t pause_us;
};

static void *publish_flow(void *data)
{
	struct flow *flow = data;

	for (uint64_t i = 0; i < flow->count; i++) {
		if (flow->pause_us && i % 16 == 0)
			usleep(flow->pause_us);
		if (shmb_publisher_send_wait(flow->publisher, &i, sizeof(i), 20000 * MS) < 0)
			return (void *)1;
	}
	return NULL;
}

/* Both sides sleep and wake all the time; a lost wake-up shows as a slow test and in the counter. */
START_TEST(no_wake_up_is_lost)
{
	struct shmb_subscriber *subscriber =
		subscriber_of(channel, _i & 1 ? SHMB_SUBSCRIBER_NO_SPIN : 0);
	struct flow flow = { publisher_of(channel, 0), _i < 2 ? amount(300000) : 3000,
			     _i < 2 ? 0 : 200 };
	struct shmb_subscriber_stats stats;
	pthread_t thread;
	void *result;

	ck_assert_int_eq(pthread_create(&thread, NULL, publish_flow, &flow), 0);
	for (uint64_t i = 0; i < flow.count;) {
		uint64_t value;

		ok(shmb_subscriber_wait(subscriber, 20000 * MS));
		while (shmb_subscriber_recv(subscriber, &value, 8) == 8)
			ck_assert_uint_eq(value, i++);
	}
	pthread_join(thread, &result);
	ck_assert_ptr_null(result);
	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.backstops, 0);
	ok(shmb_publisher_close(flow.publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* More publishers than the futex sleeper takes: it sleeps on its fd. */
START_TEST(many_publishers_wake_one_subscriber)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_NO_SPIN);
	struct flow flows[12];
	struct shmb_subscriber_stats stats;
	pthread_t threads[12];

	for (int i = 0; i < 12; i++) {
		flows[i] = (struct flow){ publisher_of(channel, 0), 2000, 300 };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, publish_flow, &flows[i]), 0);
	}
	for (int n = 0; n < 12 * 2000;) {
		uint64_t value;

		ok(shmb_subscriber_wait(subscriber, 20000 * MS));
		while (shmb_subscriber_recv(subscriber, &value, 8) == 8)
			n++;
	}
	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.backstops, 0);
	for (int i = 0; i < 12; i++) {
		pthread_join(threads[i], NULL);
		ok(shmb_publisher_close(flows[i].publisher));
	}
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_wait_times_out_in_time)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	refused(shmb_subscriber_wait(subscriber, 50 * MS), -ETIMEDOUT);
	clock_gettime(CLOCK_MONOTONIC, &b);
	ck_assert_int_ge((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec, 50 * MS);
	refused(shmb_subscriber_wait(subscriber, 0), -ETIMEDOUT);
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_forked_child_is_told_so)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	int status;
	pid_t pid;

	if (getenv("SHMB_TEST_EMULATED")) { /* it wipes no page on fork */
		ok(shmb_publisher_close(publisher));
		ok(shmb_subscriber_close(subscriber));
		return;
	}
	pid = fork();
	if (pid == 0) {
		char byte;
		int wrong = shmb_publisher_send(publisher, "x", 1) != -ECHILD;

		wrong += shmb_subscriber_recv(subscriber, &byte, 1) != -ECHILD;
		wrong += shmb_subscriber_wait(subscriber, 0) != -ECHILD;
		wrong += shmb_client_ping(client, MS) != -ECHILD;
		wrong += shmb_publisher_close(publisher) != 0;
		wrong += shmb_subscriber_close(subscriber) != 0;
		wrong += shmb_channel_close(channel) != 0;
		wrong += shmb_client_close(client) != 0;
		_exit(wrong);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	/* What the child closed is its own. */
	ok(shmb_publisher_send(publisher, "x", 1));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, (char[1]){ 0 }, 1), 1);
	ok(shmb_client_ping(client, 1000 * MS));
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* A process that is killed: what it had published arrives, then it is forgotten. */
START_TEST(a_killed_publisher_is_read_to_its_end)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_channel_info info;
	uint64_t value;
	pid_t pid = fork();

	if (pid == 0) {
		struct shmb_client *own = connect_to(shmb_broker_address(broker));
		struct shmb_publisher *publisher =
			publisher_of(channel_of(own, "test/stream", 0), 0);

		for (uint64_t i = 0; i < 100; i++)
			ok(shmb_publisher_send(publisher, &i, sizeof(i)));
		kill(getpid(), SIGKILL);
	}
	for (uint64_t i = 0; i < 100; i++) {
		while (shmb_subscriber_recv(subscriber, &value, 8) != 8)
			ok(shmb_subscriber_wait(subscriber, 5000 * MS));
		ck_assert_uint_eq(value, i);
	}
	waitpid(pid, NULL, 0);
	do
		ok(shmb_channel_info(channel, &info, sizeof(info)));
	while (info.n_publishers);
	refused(shmb_subscriber_wait(subscriber, 1 * MS), -ETIMEDOUT);
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* A subscriber that is killed no longer holds a publisher back. */
START_TEST(a_killed_subscriber_frees_the_lane)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	pid_t pid = fork();

	if (pid == 0) {
		struct shmb_client *own = connect_to(shmb_broker_address(broker));

		subscriber_of(channel_of(own, "test/stream", 0), 0);
		pause();
		_exit(0);
	}
	ok(shmb_channel_wait_members(channel, 1, 1, 5000 * MS));
	while (shmb_publisher_send(publisher, "12345678", 8) == 0)
		;
	kill(pid, SIGKILL);
	/* Nobody reads any more: the wait ends because the broker says so. */
	ok(shmb_publisher_send_wait(publisher, "12345678", 8, 5000 * MS));
	waitpid(pid, NULL, 0);
	ok(shmb_publisher_close(publisher));
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("records"), tcase_create("members"),
			   tcase_create("waiting") };

	for (int i = 0; i < 3; i++) {
		tcase_add_checked_fixture(cases[i], set_up_channel, tear_down_channel);
		tcase_set_timeout(cases[i], 60);
	}
	tcase_add_test(cases[0], what_is_sent_arrives_in_order);
	tcase_add_test(cases[0], every_length_arrives_whole);
	tcase_add_test(cases[0], a_full_lane_refuses_and_loses_nothing);
	tcase_add_test(cases[0], dropping_the_newest_is_counted);
	tcase_add_test(cases[0], a_lossy_subscriber_counts_exactly_what_it_lost);
	tcase_add_test(cases[0], a_lossy_subscriber_reads_the_last_ring_of_who_has_gone);
	tcase_add_loop_test(cases[0], only_who_trusts_lets_others_map_its_lane_writable, 0, 2);
	tcase_add_test(cases[0], batches_keep_order_and_lengths);
	tcase_add_test(cases[0], a_batch_larger_than_the_lane_goes_in_part);
	tcase_add_test(cases[0], a_loan_is_published_or_cancelled);
	tcase_add_test(cases[0], records_can_be_looked_at_where_they_lie);
	tcase_add_test(cases[1], every_subscriber_gets_every_record_of_every_publisher);
	tcase_add_test(cases[1], a_publisher_that_leaves_is_read_to_its_end);
	tcase_add_test(cases[1], one_call_reads_over_the_end_of_a_publisher);
	tcase_add_test(cases[1], a_subscriber_gets_what_is_published_after_it_opened);
	tcase_add_test(cases[1], a_forked_child_is_told_so);
	tcase_add_test(cases[1], a_killed_publisher_is_read_to_its_end);
	tcase_add_test(cases[1], a_killed_subscriber_frees_the_lane);
	tcase_add_loop_test(cases[2], no_wake_up_is_lost, 0, 4);
	tcase_add_test(cases[2], many_publishers_wake_one_subscriber);
	tcase_add_test(cases[2], a_wait_times_out_in_time);
	return run_suite("stream", cases, 3);
}
