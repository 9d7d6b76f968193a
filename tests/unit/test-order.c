/* SPDX-License-Identifier: Apache-2.0 */

/* Ordered channels: several publishers at once, and every subscriber sees the same. */

/* The publisher's own functions, to stop between stamping and publishing. */
#include "lib/pub-send.c"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/fixture.h"

#define LANE_LEN     65536u
#define N_PUBLISHERS 4
#define N_EACH_MAX   20000u

struct record {
	uint32_t from;
	uint32_t number;
};

static struct shmb_channel *channel;

static struct shmb_channel *ordered(struct shmb_client *of, uint32_t history)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE | SHMB_CHANNEL_ORDERED,
						.lane_len = LANE_LEN,
						.history = history,
						.backing = backing_of_run() };
	struct shmb_channel *made = NULL;

	ok(shmb_channel_open(of, "test/order", 10, &options, &made));
	return made;
}

static void set_up_channel(void)
{
	set_up();
	channel = ordered(client, 0);
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

static uint64_t disordered_of(struct shmb_subscriber *subscriber)
{
	struct shmb_subscriber_stats stats;

	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	return stats.disordered;
}

/* The next record, however long it takes. */
static struct record receive(struct shmb_subscriber *subscriber)
{
	struct record record = { 0 };
	int32_t result;

	do {
		ok(shmb_subscriber_wait(subscriber, 60000 * MS));
		result = shmb_subscriber_recv(subscriber, &record, sizeof(record));
	} while (result == -EAGAIN);
	ck_assert_int_eq(result, sizeof(record));
	return record;
}

START_TEST(what_one_thread_sends_through_several_publishers_comes_in_that_order)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, _i ? SHMB_SUBSCRIBER_LOSSY : 0);
	struct shmb_publisher *publishers[N_PUBLISHERS];
	struct shmb_channel_info info;
	uint64_t last = 0;

	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.ordered, 1);
	for (uint32_t i = 0; i < N_PUBLISHERS; i++)
		publishers[i] = publisher_of(channel, 0);
	srand(3);
	for (uint32_t round = 0, next = 0; round < 500; round++) {
		uint32_t n = (uint32_t)rand() % 40;

		for (uint32_t i = 0; i < n; i++) {
			struct record record = { .number = next + i };
			struct shmb_publisher *at = publishers[rand() % N_PUBLISHERS];

			if (rand() % 2) {
				ok(shmb_publisher_send(at, &record, sizeof(record)));
				continue;
			}
			ok(shmb_publisher_loan(at, sizeof(record)));
			memcpy((void *)(uintptr_t)shmb_publisher_view(at)->data, &record,
			       sizeof(record));
			ok(shmb_publisher_publish(at, sizeof(record)));
		}
		for (; n > 0; n--, next++) {
			ck_assert_uint_eq(receive(subscriber).number, next);
			ck_assert_uint_gt(shmb_subscriber_view(subscriber)->term, last);
			last = shmb_subscriber_view(subscriber)->term;
		}
	}
	ck_assert_uint_eq(disordered_of(subscriber), 0);
	for (uint32_t i = 0; i < N_PUBLISHERS; i++)
		ok(shmb_publisher_close(publishers[i]));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(batches_and_peeks_keep_the_order)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *a = publisher_of(channel, 0), *b = publisher_of(channel, 0);
	uint64_t values[4] = { 0, 1, 2, 3 }, more[2] = { 4, 5 }, got[6];
	const struct shmb_view *view = shmb_subscriber_view(subscriber);

	for (int round = 0; round < 300; round++) {
		ck_assert_int_eq(shmb_publisher_send_many(a, values, 8, NULL, 4), 4);
		ck_assert_int_eq(shmb_publisher_send_many(b, more, 8, NULL, 2), 2);
		if (round % 2) {
			ck_assert_int_eq(
				shmb_subscriber_recv_many(subscriber, got, sizeof(got), NULL, 6),
				6);
		} else {
			for (int i = 0; i < 6; i++) {
				ck_assert_int_eq(shmb_subscriber_peek(subscriber, 10), 1);
				memcpy(&got[i], (const void *)(uintptr_t)view->data, 8);
				ok(shmb_subscriber_release(subscriber, 1));
			}
		}
		for (uint64_t i = 0; i < 6; i++)
			ck_assert_uint_eq(got[i], i);
	}
	ok(shmb_publisher_close(a));
	ok(shmb_publisher_close(b));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* ---- at the same time ---------------------------------------------------------------------------- */

static uint64_t turn; /* counts what was sent by whoever sends because of another */

/* Of each publisher. */
static uint32_t n_each(void)
{
	return getenv("SHMB_TEST_QUICK") ? N_EACH_MAX / 5 : N_EACH_MAX;
}

static void *publish_all(void *data)
{
	struct shmb_client *own = connect_to(shmb_broker_address(broker));
	struct shmb_channel *mine = ordered(own, 0);
	struct shmb_publisher *publisher = publisher_of(mine, 0);
	struct record record = { .from = (uint32_t)(uintptr_t)data };

	ok(shmb_channel_wait_members(mine, N_PUBLISHERS, 2, 60000 * MS));
	for (; record.number < n_each(); record.number++)
		ok(shmb_publisher_send_wait(publisher, &record, sizeof(record), 60000 * MS));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(mine));
	ok(shmb_client_close(own));
	return NULL;
}

struct reader {
	pthread_t thread;
	struct shmb_subscriber *subscriber;
	struct record got[N_PUBLISHERS * N_EACH_MAX];
};

static void *receive_all(void *data)
{
	struct reader *reader = data;

	for (uint32_t i = 0; i < N_PUBLISHERS * n_each(); i++)
		reader->got[i] = receive(reader->subscriber);
	return NULL;
}

START_TEST(all_subscribers_see_the_same_order)
{
	static struct reader readers[2];
	pthread_t publishers[N_PUBLISHERS];
	uint32_t next[N_PUBLISHERS] = { 0 };

	for (int i = 0; i < 2; i++) {
		readers[i].subscriber = subscriber_of(channel, 0);
		ck_assert_int_eq(pthread_create(&readers[i].thread, NULL, receive_all, &readers[i]),
				 0);
	}
	for (uintptr_t i = 0; i < N_PUBLISHERS; i++)
		ck_assert_int_eq(pthread_create(&publishers[i], NULL, publish_all, (void *)i), 0);
	for (int i = 0; i < N_PUBLISHERS; i++)
		pthread_join(publishers[i], NULL);
	for (int i = 0; i < 2; i++) {
		pthread_join(readers[i].thread, NULL);
		ck_assert_uint_eq(disordered_of(readers[i].subscriber), 0);
		ok(shmb_subscriber_close(readers[i].subscriber));
	}
	for (uint32_t i = 0; i < N_PUBLISHERS * n_each(); i++) {
		const struct record *record = &readers[0].got[i];

		ck_assert_uint_eq(record->from, readers[1].got[i].from);
		ck_assert_uint_eq(record->number, readers[1].got[i].number);
		ck_assert_uint_eq(record->number, next[record->from]++);
	}
}
END_TEST

static void *publish_in_turns(void *data)
{
	uint64_t me = (uint64_t)(uintptr_t)data;
	struct shmb_client *own = connect_to(shmb_broker_address(broker));
	struct shmb_channel *mine = ordered(own, 0);
	struct shmb_publisher *publisher = publisher_of(mine, 0);
	uint64_t at;

	ok(shmb_channel_wait_members(mine, N_PUBLISHERS, 1, 60000 * MS));
	while ((at = __atomic_load_n(&turn, __ATOMIC_ACQUIRE)) < n_each()) {
		struct record record = { .number = (uint32_t)at };

		if (at % N_PUBLISHERS != me) {
			usleep(1);
			continue;
		}
		ok(shmb_publisher_send_wait(publisher, &record, sizeof(record), 60000 * MS));
		__atomic_store_n(&turn, at + 1, __ATOMIC_RELEASE);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(mine));
	ok(shmb_client_close(own));
	return NULL;
}

START_TEST(what_is_sent_because_of_another_comes_behind_it)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	pthread_t publishers[N_PUBLISHERS];

	turn = 0;
	for (uintptr_t i = 0; i < N_PUBLISHERS; i++)
		ck_assert_int_eq(pthread_create(&publishers[i], NULL, publish_in_turns, (void *)i),
				 0);
	for (uint32_t i = 0; i < n_each(); i++)
		ck_assert_uint_eq(receive(subscriber).number, i);
	for (int i = 0; i < N_PUBLISHERS; i++)
		pthread_join(publishers[i], NULL);
	ck_assert_uint_eq(disordered_of(subscriber), 0);
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* Killed anywhere, also between stamping and publishing: nobody waits for it. */
START_TEST(who_is_killed_holds_nobody_up)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t id = 0;
	struct record record = { .from = 1 };
	struct shmb_publisher_stats stats;

	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	id = stats.publisher_id;
	for (int round = 0; round < (getenv("SHMB_TEST_QUICK") ? 5 : 20); round++) {
		pid_t child = fork();

		if (child == 0) {
			struct shmb_client *own = connect_to(shmb_broker_address(broker));
			struct shmb_publisher *mine = publisher_of(ordered(own, 0), 0);
			struct record theirs = { .from = 2 };

			/* Killed while it says that it is well it would leave half a message. */
			while (shmb_publisher_send_wait(mine, &theirs, sizeof(theirs),
							SHMB_FOREVER) == 0)
				theirs.number++;
			_exit(1);
		}
		for (int i = 0; i < 2000; i++)
			receive(subscriber);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		ok(shmb_publisher_send(publisher, &record, sizeof(record)));
		while (receive(subscriber).from != 1)
			;
		ck_assert_uint_eq(shmb_subscriber_view(subscriber)->publisher_id, id);
	}
	ck_assert_uint_eq(disordered_of(subscriber), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* ---- one that stops just there -------------------------------------------------------------------- */

static uint8_t *stamp_only(struct shmb_publisher *publisher, uint32_t number)
{
	struct record record = { .number = number };
	uint8_t *payload = claim_record(publisher, sizeof(record));

	ck_assert_ptr_nonnull(payload);
	memcpy(payload, &record, sizeof(record));
	announce_stamp(publisher);
	extend(publisher, payload);
	return payload;
}

static void publish_stamped(struct shmb_publisher *publisher)
{
	shmb_lane_commit(&publisher->writer, sizeof(struct record) + publisher->ext_len, 0, 0);
	withdraw_stamp(publisher);
	pub_ring_sleepers(publisher);
}

static void send_number(struct shmb_publisher *publisher, uint32_t number)
{
	struct record record = { .number = number };

	ok(shmb_publisher_send(publisher, &record, sizeof(record)));
}

START_TEST(a_record_that_was_stamped_before_is_waited_for)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *a = publisher_of(channel, 0), *b = publisher_of(channel, 0);
	struct record record;

	send_number(a, 0);
	send_number(b, 1);
	ck_assert_uint_eq(receive(subscriber).number, 0);
	ck_assert_uint_eq(receive(subscriber).number, 1);
	stamp_only(a, 2);
	send_number(b, 3);
	refused(shmb_subscriber_recv(subscriber, &record, sizeof(record)), -EAGAIN);
	publish_stamped(a);
	ck_assert_uint_eq(receive(subscriber).number, 2);
	ck_assert_uint_eq(receive(subscriber).number, 3);
	/* Announced, and stamped only then: it comes behind. */
	announce_stamp(a);
	send_number(b, 4);
	refused(shmb_subscriber_recv(subscriber, &record, sizeof(record)), -EAGAIN);
	withdraw_stamp(a);
	send_number(a, 5);
	ck_assert_uint_eq(receive(subscriber).number, 4);
	ck_assert_uint_eq(receive(subscriber).number, 5);
	ck_assert_uint_eq(disordered_of(subscriber), 0);
	ok(shmb_publisher_close(a));
	ok(shmb_publisher_close(b));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(who_has_stopped_there_is_not_waited_for_for_long)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *a = publisher_of(channel, 0), *b = publisher_of(channel, 0);

	send_number(a, 0);
	ck_assert_uint_eq(receive(subscriber).number, 0);
	stamp_only(a, 1);
	for (uint32_t i = 2; i < 100; i++)
		send_number(b, i);
	/* Once: then it is known. */
	for (uint32_t i = 2; i < 100; i++)
		ck_assert_uint_eq(receive(subscriber).number, i);
	ck_assert_uint_eq(disordered_of(subscriber), 0);
	publish_stamped(a);
	ck_assert_uint_eq(receive(subscriber).number, 1);
	ck_assert_uint_eq(disordered_of(subscriber), 1);
	/* One that does so for fun, again and again. */
	for (uint32_t i = 0; i < 50; i++) {
		SHMB_STORE(&a->writer.lane->order_bound, i + 1);
		send_number(b, i);
		ck_assert_uint_eq(receive(subscriber).number, i);
	}
	ok(shmb_publisher_close(a));
	ok(shmb_publisher_close(b));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_state_channel_has_no_order)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE | SHMB_CHANNEL_ORDERED,
						.pattern = SHMB_CHANNEL_STATE };
	struct shmb_channel *none = NULL;

	refused(shmb_channel_open(client, "test/none", 9, &options, &none), -EINVAL);
	says("one order");
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("order");

	tcase_add_checked_fixture(tcase, set_up_channel, tear_down_channel);
	tcase_set_timeout(tcase, 240);
	tcase_add_loop_test(
		tcase, what_one_thread_sends_through_several_publishers_comes_in_that_order, 0, 2);
	tcase_add_test(tcase, batches_and_peeks_keep_the_order);
	tcase_add_test(tcase, all_subscribers_see_the_same_order);
	tcase_add_test(tcase, what_is_sent_because_of_another_comes_behind_it);
	tcase_add_test(tcase, who_is_killed_holds_nobody_up);
	tcase_add_test(tcase, a_record_that_was_stamped_before_is_waited_for);
	tcase_add_test(tcase, who_has_stopped_there_is_not_waited_for_for_long);
	tcase_add_test(tcase, a_state_channel_has_no_order);
	return run_suite("order", &tcase, 1);
}
