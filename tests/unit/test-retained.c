/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Channels that stay although nobody uses them, and the history of publishers that have gone: what a
 * late subscriber gets of it, over restarts of the broker, too, and when it is given up.
 */

#include <errno.h>
#include <sys/mman.h>

#include <shmbroker/layout.h>

#include "tests/unit/daemon.h"

#define NAME	   "retained"
#define N_HISTORY  5u
#define PUBLISHERS 8u

struct record {
	uint32_t publisher;
	uint32_t number;
};

static char instance[17];

static void set_up_retained(void)
{
	set_up_dir();
	read_instance(instance);
}

static void tear_down_retained(void)
{
	struct shmb_client *own = connect_to(address);

	ok(shmb_channel_remove(own, NAME, strlen(NAME)));
	ok(shmb_client_close(own));
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
	tear_down_dir();
}

static void restart_daemon(int signal)
{
	kill(daemon_pid, signal);
	ck_assert_int_eq(waitpid(daemon_pid, NULL, 0), daemon_pid);
	start_daemon();
}

#include "tests/unit/kept.h"

/* The broker has heard it all. */
static void leave(struct shmb_client *own)
{
	unsigned n = count_entries(SHMB_ENTRY_CLIENT, 0);

	ok(shmb_client_close(own));
	await_entries(SHMB_ENTRY_CLIENT, 0, n - 1);
}

static struct shmb_channel *open_channel(struct shmb_client *of, uint32_t flags, uint32_t pattern)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = flags,
						.pattern = pattern,
						.backing = backing_of_run() };
	struct shmb_channel *channel = NULL;

	if (pattern == SHMB_CHANNEL_STREAM) {
		options.lane_len = 4096;
		options.history = N_HISTORY;
	}
	ok(shmb_channel_open(of, NAME, strlen(NAME), &options, &channel));
	return channel;
}

/* One that comes, publishes records from 0 on, and goes. Their lengths differ. */
static void come_and_go(uint32_t number, uint32_t n_records)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel =
		open_channel(own, SHMB_CHANNEL_CREATE | SHMB_CHANNEL_RETAIN, SHMB_CHANNEL_STREAM);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint8_t bytes[200] = { 0 };

	for (uint32_t i = 0; i < n_records; i++) {
		struct record record = { number, i };

		memcpy(bytes, &record, sizeof(record));
		ok(shmb_publisher_send_wait(publisher, bytes, 8 + i * 37 % 190, 5000 * MS));
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	leave(own);
}

struct reader {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_subscriber *subscriber;
};

static struct reader reader_of(uint32_t flags)
{
	struct reader reader = { .client = connect_to(address) };

	reader.channel = open_channel(reader.client, 0, SHMB_CHANNEL_STREAM);
	reader.subscriber = subscriber_of(reader.channel, flags);
	return reader;
}

static void close_reader(struct reader *reader)
{
	ok(shmb_subscriber_close(reader->subscriber));
	ok(shmb_channel_close(reader->channel));
	leave(reader->client);
}

/* Of each publisher the records from the first to the end, in order; nothing else. */
static void gets(struct shmb_subscriber *subscriber, const uint32_t first[PUBLISHERS],
		 const uint32_t end[PUBLISHERS])
{
	uint32_t next[PUBLISHERS];
	uint8_t bytes[200];
	int32_t len;

	memcpy(next, first, sizeof(next));
	while (shmb_subscriber_wait(subscriber, 100 * MS) == 0) {
		struct record record;

		len = shmb_subscriber_recv(subscriber, bytes, sizeof(bytes));
		ok(len);
		memcpy(&record, bytes, sizeof(record));
		ck_assert_uint_lt(record.publisher, PUBLISHERS);
		ck_assert_uint_eq(record.number, next[record.publisher]);
		ck_assert_uint_eq(shmb_subscriber_view(subscriber)->sequence, record.number);
		ck_assert_int_eq(len, (int32_t)(8 + record.number * 37 % 190));
		next[record.publisher]++;
	}
	for (uint32_t i = 0; i < PUBLISHERS; i++)
		ck_assert_msg(next[i] == end[i], "of publisher %u came all before %u, not %u", i,
			      next[i], end[i]);
}

/* ---- channels ------------------------------------------------------------------------------------- */

START_TEST(it_stays_until_it_is_removed)
{
	struct shmb_channel_options none = { .options_len = sizeof(none) };
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = open_channel(own, SHMB_CHANNEL_CREATE, SHMB_CHANNEL_STREAM);
	struct shmb_channel_info info;

	/* Not before somebody wants it. */
	refused(shmb_channel_remove(own, NAME, strlen(NAME)), -EINVAL);
	says("not retained");
	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.retained, 0);
	ok(shmb_channel_close(channel));
	refused(shmb_channel_open(own, NAME, strlen(NAME), &none, &channel), -ENOENT);
	for (int i = 0; i < 2; i++) {
		channel = open_channel(own, SHMB_CHANNEL_CREATE, SHMB_CHANNEL_STREAM);
		ok(shmb_channel_close(open_channel(own, SHMB_CHANNEL_RETAIN, SHMB_CHANNEL_STREAM)));
		ok(shmb_channel_info(channel, &info, sizeof(info)));
		ck_assert_uint_eq(info.retained, 1);
		ok(shmb_channel_close(channel));
		leave(own);
		restart_daemon(i ? SIGTERM : SIGKILL);
		/* Longer than the broker stays without anybody. */
		usleep(2500000);
		own = connect_to(address);
		channel = open_channel(own, 0, SHMB_CHANNEL_STREAM);
		ok(shmb_channel_info(channel, &info, sizeof(info)));
		ck_assert_uint_eq(info.retained, 1);
		ck_assert_uint_eq(info.history, N_HISTORY);
		/* Who has it open may go on. */
		ok(shmb_channel_remove(own, NAME, strlen(NAME)));
		ok(shmb_channel_info(channel, &info, sizeof(info)));
		ck_assert_uint_eq(info.retained, 0);
		ok(shmb_channel_close(open_channel(own, 0, SHMB_CHANNEL_STREAM)));
		ok(shmb_channel_close(channel));
		refused(shmb_channel_open(own, NAME, strlen(NAME), &none, &channel), -ENOENT);
		refused(shmb_channel_remove(own, NAME, strlen(NAME)), -ENOENT);
	}
	channel = open_channel(own, SHMB_CHANNEL_CREATE | SHMB_CHANNEL_RETAIN, SHMB_CHANNEL_STREAM);
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

START_TEST(values_stay_with_it)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel =
		open_channel(own, SHMB_CHANNEL_CREATE | SHMB_CHANNEL_RETAIN, SHMB_CHANNEL_STATE);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber;
	char text[8] = "";

	ck_assert_int_eq(shmb_publisher_claim(publisher, "k", 1), 0);
	ok(shmb_publisher_put(publisher, 0, "value", 6));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	leave(own);
	restart_daemon(SIGKILL);
	own = connect_to(address);
	channel = open_channel(own, 0, SHMB_CHANNEL_STATE);
	subscriber = subscriber_of(channel, 0);
	ck_assert_int_eq(shmb_subscriber_find(subscriber, "k", 1), 0);
	ck_assert_int_eq(shmb_subscriber_get(subscriber, 0, text, sizeof(text)), 6);
	ck_assert_str_eq(text, "value");
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

/* ---- history -------------------------------------------------------------------------------------- */

START_TEST(late_subscribers_get_the_history_of_those_who_have_gone)
{
	static const uint32_t first[PUBLISHERS] = { [2] = 995 }, end[PUBLISHERS] = { [2] = 1000 };
	static const uint32_t first_2[PUBLISHERS] = { [2] = 995 },
			      end_2[PUBLISHERS] = { [2] = 1000, [3] = 4 };
	static const uint32_t none[PUBLISHERS] = { 0 };
	struct reader reader, lossy, without;

	come_and_go(0, 3);
	come_and_go(1, 100);
	/* Laps later, and so many that those before are history no more. */
	come_and_go(2, 1000);
	keeps(1);
	reader = reader_of(0);
	gets(reader.subscriber, first, end);
	/* One more, less than a history: the one before stays. Those who are there get all of it. */
	come_and_go(3, 4);
	keeps(2);
	lossy = reader_of(SHMB_SUBSCRIBER_LOSSY);
	gets(lossy.subscriber, first_2, end_2);
	without = reader_of(SHMB_SUBSCRIBER_NO_HISTORY);
	gets(without.subscriber, none, none);
	gets(reader.subscriber, none, (const uint32_t[PUBLISHERS]){ [3] = 4 });
	close_reader(&reader);
	close_reader(&lossy);
	close_reader(&without);
	/* One that has published nothing leaves nothing. */
	come_and_go(4, 0);
	keeps(2);
}
END_TEST

START_TEST(their_history_outlives_brokers)
{
	static const uint32_t first[PUBLISHERS] = { [1] = 295 },
			      end[PUBLISHERS] = { [1] = 300, [2] = 2 };
	static const uint32_t none[PUBLISHERS] = { 0 };
	struct reader reader;

	come_and_go(0, 4);
	come_and_go(1, 300);
	restart_daemon(SIGKILL);
	come_and_go(2, 2);
	restart_daemon(SIGTERM);
	keeps(2);
	reader = reader_of(0);
	/* Before it has looked, and after. */
	restart_daemon(SIGKILL);
	gets(reader.subscriber, first, end);
	restart_daemon(SIGKILL);
	gets(reader.subscriber, none, none);
	close_reader(&reader);
	keeps(2);
}
END_TEST

START_TEST(priorities_outlive_brokers)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel =
		open_channel(own, SHMB_CHANNEL_CREATE | SHMB_CHANNEL_RETAIN, SHMB_CHANNEL_STREAM);
	struct shmb_publisher_options options = { .options_len = sizeof(options), .priority = 7 };
	struct shmb_publisher *low = publisher_of(channel, 0), *high = NULL;
	struct reader reader;
	uint32_t value = 0, got;

	ok(shmb_publisher_open(channel, &options, &high));
	restart_daemon(SIGKILL);
	reader = reader_of(0);
	ok(shmb_publisher_send_wait(low, &value, 4, 60000 * MS));
	ok(shmb_publisher_send_wait(high, &value, 4, 60000 * MS));
	/* They hear of each other with their next calls. It knows both when it has something of both. */
	for (unsigned n = 0; n < 2;) {
		ok(shmb_publisher_wait(low, 4, 60000 * MS));
		ok(shmb_publisher_wait(high, 4, 60000 * MS));
		if (shmb_subscriber_wait(reader.subscriber, 10 * MS) == 0)
			n += shmb_subscriber_recv(reader.subscriber, &got, 4) == 4;
	}
	for (value = 3; value < 6; value++)
		ok(shmb_publisher_send(low, &value, 4));
	for (value = 0; value < 3; value++)
		ok(shmb_publisher_send(high, &value, 4));
	for (value = 0; value < 6; value++) {
		ck_assert_int_eq(shmb_subscriber_recv(reader.subscriber, &got, 4), 4);
		ck_assert_uint_eq(got, value);
	}
	close_reader(&reader);
	ok(shmb_publisher_close(low));
	ok(shmb_publisher_close(high));
	ok(shmb_channel_close(channel));
	leave(own);
}
END_TEST

static void publish_for_ever(void)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel =
		open_channel(own, SHMB_CHANNEL_CREATE | SHMB_CHANNEL_RETAIN, SHMB_CHANNEL_STREAM);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint8_t bytes[200] = { 0 };

	alarm(60);
	for (uint32_t i = 0;; i++) {
		struct record record = { 0, i };

		memcpy(bytes, &record, sizeof(record));
		/* Not in the middle of what Check is told. */
		if (shmb_publisher_send(publisher, bytes, 8 + i * 37 % 190) < 0)
			_exit(1);
		if (i == 1000)
			kill(getppid(), SIGUSR1);
	}
}

static void on_signal(int number)
{
	(void)number;
}

/* Killed anywhere, also while there is no broker: the last ones come, to the very last. */
START_TEST(the_history_of_the_killed_is_whole)
{
	uint8_t bytes[200];

	signal(SIGUSR1, on_signal);
	for (int i = 0; i < 10; i++) {
		struct record record = { 0 };
		uint32_t n = 0, next = 0;
		struct reader reader;
		pid_t pid = fork();

		if (pid == 0)
			publish_for_ever();
		pause();
		usleep((useconds_t)(i * 777));
		if (i % 2)
			kill(daemon_pid, SIGSTOP);
		kill(pid, SIGKILL);
		ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
		if (i % 2) {
			kill_daemon();
			start_daemon();
		}
		keeps(1);
		reader = reader_of(0);
		while (shmb_subscriber_wait(reader.subscriber, n ? 50 * MS : 5000 * MS) == 0) {
			ok(shmb_subscriber_recv(reader.subscriber, bytes, sizeof(bytes)));
			memcpy(&record, bytes, sizeof(record));
			ck_assert(n == 0 || record.number == next);
			ck_assert_uint_eq(shmb_subscriber_view(reader.subscriber)->sequence,
					  record.number);
			next = record.number + 1;
			n++;
		}
		ck_assert_uint_eq(n, N_HISTORY);
		ck_assert_uint_ge(next, 1000);
		close_reader(&reader);
	}
}
END_TEST

START_TEST(removing_gives_it_back)
{
	static const uint32_t first[PUBLISHERS] = { [0] = 15 }, end[PUBLISHERS] = { [0] = 20 };
	static const uint32_t none[PUBLISHERS] = { 0 };
	struct reader reader, late;

	come_and_go(0, 20);
	reader = reader_of(0);
	ok(shmb_channel_remove(reader.client, NAME, strlen(NAME)));
	late = reader_of(0);
	/* What was promised comes all the same. */
	gets(reader.subscriber, first, end);
	gets(late.subscriber, none, none);
	keeps(0);
	close_reader(&late);
	ok(shmb_channel_close(
		open_channel(reader.client, SHMB_CHANNEL_RETAIN, SHMB_CHANNEL_STREAM)));
	close_reader(&reader);
}
END_TEST

/* A user who has need of the memory gets it back, the oldest first. */
START_TEST(quotas_come_first)
{
	static const char rules[] = "quota \"default\" { shm-bytes = '48K' }\n"
				    "rule \"all\" { channel = { '**' } allow = { 'create', "
				    "'publish', 'subscribe' } }\n";
	static const uint32_t first[PUBLISHERS] = { 0 },
			      end[PUBLISHERS] = { [2] = 1, [3] = 1, [4] = 1, [5] = 1 };
	struct reader reader;
	char path[64];
	FILE *file;

	kill_daemon();
	snprintf(path, sizeof(path), "%s/rules.conf", dir);
	file = fopen(path, "w");
	fputs(rules, file);
	fclose(file);
	config_file = path;
	start_daemon();
	config_file = NULL;
	/* A client, the channel and a lane beside those that are kept. */
	for (uint32_t i = 0; i < 6; i++)
		come_and_go(i, 1);
	keeps(5);
	/* It needs as much as a lane, and its client half of that. */
	reader = reader_of(0);
	keeps(4);
	gets(reader.subscriber, first, end);
	close_reader(&reader);
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("retained") };

	tcase_add_checked_fixture(cases[0], set_up_retained, tear_down_retained);
	tcase_set_timeout(cases[0], 60);
	tcase_add_test(cases[0], it_stays_until_it_is_removed);
	tcase_add_test(cases[0], values_stay_with_it);
	tcase_add_test(cases[0], late_subscribers_get_the_history_of_those_who_have_gone);
	tcase_add_test(cases[0], their_history_outlives_brokers);
	tcase_add_test(cases[0], priorities_outlive_brokers);
	tcase_add_test(cases[0], the_history_of_the_killed_is_whole);
	tcase_add_test(cases[0], removing_gives_it_back);
	tcase_add_test(cases[0], quotas_come_first);
	return run_suite("retained", cases, 1);
}
