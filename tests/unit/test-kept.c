/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Publishers that come and end while a reliable subscriber cannot hear of them: the broker keeps their
 * lanes until it has read them, or has died. Nothing is lost, nothing comes twice, nothing stays.
 */

#include <errno.h>
#include <sys/mman.h>

#include <shmbroker/layout.h>

#include "tests/unit/daemon.h"

struct record {
	uint32_t publisher;
	uint32_t number;
};

#define PUBLISHERS_MAX 256

static char instance[17];

/* What a subscriber has got of each publisher. */
static uint32_t got[PUBLISHERS_MAX];

static void set_up_kept(void)
{
	set_up_dir();
	read_instance(instance);
	memset(got, 0, sizeof(got));
}

static void tear_down_kept(void)
{
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
	tear_down_dir();
}

static void restart_daemon(void)
{
	kill_daemon();
	start_daemon();
}

#include "tests/unit/kept.h"

struct side {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
};

static struct side come(void)
{
	struct side side = { .client = connect_to(address) };

	side.channel = channel_of(side.client, "kept", 4096);
	side.publisher = publisher_of(side.channel, 0);
	return side;
}

static void publish(const struct side *side, uint32_t publisher, uint32_t first, uint32_t end)
{
	for (uint32_t i = first; i < end; i++) {
		struct record record = { publisher, i };

		ok(shmb_publisher_send_wait(side->publisher, &record, sizeof(record), 5000 * MS));
	}
}

static void end(const struct side *side)
{
	unsigned n = count_entries(SHMB_ENTRY_CLIENT, 0);

	ok(shmb_publisher_close(side->publisher));
	ok(shmb_channel_close(side->channel));
	ok(shmb_client_close(side->client));
	/* The broker has heard it all. */
	await_entries(SHMB_ENTRY_CLIENT, 0, n - 1);
}

static void come_and_end(uint32_t publisher, uint32_t n_records)
{
	struct side side = come();

	publish(&side, publisher, 0, n_records);
	end(&side);
}

static void receive_all(struct shmb_subscriber *subscriber, uint32_t n_records)
{
	struct record record;

	for (uint32_t i = 0; i < n_records; i++) {
		ok(shmb_subscriber_wait(subscriber, 10000 * MS));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &record, sizeof(record)),
				 sizeof(record));
		ck_assert_uint_lt(record.publisher, PUBLISHERS_MAX);
		ck_assert_uint_eq(record.number, got[record.publisher]);
		ck_assert_uint_eq(record.number, shmb_subscriber_view(subscriber)->sequence);
		got[record.publisher]++;
	}
}

/* It has heard of so many, and needs no broker to read what they have left. */
static void await_known(struct shmb_subscriber *subscriber, uint32_t n_publishers)
{
	struct shmb_subscriber_stats stats = { 0 };

	for (int i = 0; i < 10000 && stats.n_publishers != n_publishers; i++) {
		usleep(1000);
		ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	}
	ck_assert_uint_eq(stats.n_publishers, n_publishers);
}

static void receive_nothing(struct shmb_subscriber *subscriber)
{
	struct record record;

	refused(shmb_subscriber_wait(subscriber, 100 * MS), -ETIMEDOUT);
	refused(shmb_subscriber_recv(subscriber, &record, sizeof(record)), -EAGAIN);
}

struct reader {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_subscriber *subscriber;
};

static struct reader reader_of(uint32_t flags)
{
	struct reader reader = { .client = connect_to(address) };

	reader.channel = channel_of(reader.client, "kept", 4096);
	reader.subscriber = subscriber_of(reader.channel, flags);
	return reader;
}

static void close_reader(struct reader *reader)
{
	ok(shmb_subscriber_close(reader->subscriber));
	ok(shmb_channel_close(reader->channel));
	ok(shmb_client_close(reader->client));
}

/* ---- away after a restart ------------------------------------------------------------------------ */

START_TEST(who_comes_and_ends_while_a_subscriber_is_away_is_heard_of)
{
	struct reader reader = reader_of(0);

	for (uint32_t round = 0; round < 3; round++) {
		restart_daemon();
		come_and_end(round, 5);
		keeps(1);
		receive_all(reader.subscriber, 5);
		receive_nothing(reader.subscriber);
		keeps(0);
	}
	close_reader(&reader);
}
END_TEST

/* Their lanes are those of publishers that are there no more when the next broker comes. */
START_TEST(kept_lanes_outlive_brokers)
{
	struct reader reader = reader_of(0);

	restart_daemon();
	for (uint32_t i = 0; i < 3; i++) {
		come_and_end(i, 5);
		keeps(i + 1);
		restart_daemon();
		ck_assert_uint_eq(count_entries(SHMB_ENTRY_PUBLISHER, SHMB_MEMBER_KEPT), i + 1);
	}
	receive_all(reader.subscriber, 15);
	receive_nothing(reader.subscriber);
	keeps(0);
	close_reader(&reader);
}
END_TEST

static void publish_and_stay(void)
{
	struct side side = come();

	publish(&side, 0, 0, 100);
	raise(SIGSTOP);
	_exit(1);
}

static pid_t run(void (*child)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		alarm(100);
		child();
	}
	return pid;
}

static void await_stop(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
	ck_assert(WIFSTOPPED(status));
}

static void kill_child(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
}

START_TEST(who_dies_without_a_broker_is_heard_of)
{
	struct reader reader = reader_of(0);
	pid_t publisher;

	restart_daemon();
	publisher = run(publish_and_stay);
	await_stop(publisher);
	kill_daemon();
	kill_child(publisher);
	start_daemon();
	ck_assert_uint_eq(count_entries(SHMB_ENTRY_PUBLISHER, SHMB_MEMBER_KEPT), 1);
	receive_all(reader.subscriber, 100);
	receive_nothing(reader.subscriber);
	keeps(0);
	close_reader(&reader);
}
END_TEST

/* One that the subscriber has read from needs no help: the subscriber has its lane. */
START_TEST(who_is_known_is_not_kept)
{
	struct reader reader = reader_of(0);
	struct side side = come();

	publish(&side, 0, 0, 10);
	receive_all(reader.subscriber, 5);
	end(&side);
	keeps(0);
	restart_daemon();
	receive_all(reader.subscriber, 5);
	receive_nothing(reader.subscriber);
	close_reader(&reader);
}
END_TEST

/* Many at once, more than the channel has slots, one after the other. */
START_TEST(slots_are_free_for_the_next_ones)
{
	enum {
		N = 80
	};
	struct reader reader = reader_of(0);

	restart_daemon();
	for (uint32_t i = 0; i < N; i++)
		come_and_end(i, 3);
	keeps(N);
	receive_all(reader.subscriber, 3 * N);
	receive_nothing(reader.subscriber);
	keeps(0);
	close_reader(&reader);
}
END_TEST

/* The broker may die before it hears that a lane has been read, or while it is. */
START_TEST(nothing_comes_twice)
{
	struct reader reader = reader_of(0);

	restart_daemon();
	come_and_end(0, 5);
	come_and_end(1, 5);
	keeps(2);
	receive_all(reader.subscriber, 3);
	/* The broker tells of one after the other, and must have told of both. */
	await_known(reader.subscriber, 2);
	kill_daemon();
	receive_all(reader.subscriber, 7);
	refused(shmb_subscriber_wait(reader.subscriber, 0), -ETIMEDOUT);
	start_daemon();
	receive_nothing(reader.subscriber);
	keeps(0);
	come_and_end(2, 5);
	restart_daemon();
	receive_all(reader.subscriber, 5);
	receive_nothing(reader.subscriber);
	keeps(0);
	close_reader(&reader);
}
END_TEST

static void subscribe_and_stay(void)
{
	reader_of(0);
	raise(SIGSTOP);
	_exit(1);
}

START_TEST(they_go_with_the_last_who_needs_them)
{
	pid_t stopped[2] = { run(subscribe_and_stay), run(subscribe_and_stay) };
	struct reader reader;

	await_stop(stopped[0]);
	await_stop(stopped[1]);
	reader = reader_of(0);
	restart_daemon();
	come_and_end(0, 5);
	come_and_end(1, 5);
	keeps(2);
	kill_child(stopped[0]);
	receive_all(reader.subscriber, 10);
	receive_nothing(reader.subscriber);
	keeps(2);
	kill_child(stopped[1]);
	keeps(0);
	close_reader(&reader);
}
END_TEST

START_TEST(who_was_promised_nothing_keeps_nothing)
{
	struct reader lossy = reader_of(SHMB_SUBSCRIBER_LOSSY), reader;
	struct side side;

	restart_daemon();
	side = come();
	publish(&side, 0, 0, 5);
	/* Nothing was published since it came. */
	reader = reader_of(0);
	end(&side);
	keeps(0);
	receive_nothing(reader.subscriber);
	close_reader(&reader);
	close_reader(&lossy);
}
END_TEST

/* ---- connected ----------------------------------------------------------------------------------- */

/* What a broker has sent to somebody who did not look goes with it, if another takes its place. */
START_TEST(what_was_sent_and_not_taken_is_sent_again)
{
	struct reader reader = reader_of(0);
	pid_t old = daemon_pid;
	int status;

	come_and_end(0, 5);
	keeps(1);
	kill(old, SIGSTOP);
	start_program(daemon_path(), "--replace");
	receive_all(reader.subscriber, 5);
	receive_nothing(reader.subscriber);
	keeps(0);
	kill(old, SIGCONT);
	ck_assert_int_eq(waitpid(old, &status, 0), old);
	close_reader(&reader);
}
END_TEST

START_TEST(closing_gives_them_back)
{
	struct reader reader = reader_of(0);

	come_and_end(0, 5);
	come_and_end(1, 5);
	keeps(2);
	/* In the middle of the first. */
	receive_all(reader.subscriber, 2);
	ok(shmb_subscriber_close(reader.subscriber));
	keeps(0);
	ok(shmb_channel_close(reader.channel));
	ok(shmb_client_close(reader.client));
}
END_TEST

/* ---- quotas --------------------------------------------------------------------------------------- */

START_TEST(they_are_charged_to_those_who_left_them)
{
	static const char rules[] = "quota \"default\" { shm-bytes = '72K' }\n"
				    "rule \"all\" { channel = { '**' } allow = { 'create', "
				    "'publish', 'subscribe' } }\n";
	struct reader reader = reader_of(0);
	char path[64];
	struct side side;
	FILE *file;

	kill_daemon();
	snprintf(path, sizeof(path), "%s/rules.conf", dir);
	file = fopen(path, "w");
	fputs(rules, file);
	fclose(file);
	config_file = path;
	start_daemon();
	config_file = NULL;
	for (uint32_t i = 0; i < 4; i++)
		come_and_end(i, 5);
	side.client = connect_to(address);
	side.channel = channel_of(side.client, "kept", 4096);
	refused(shmb_publisher_open(side.channel, NULL, &side.publisher), -EDQUOT);
	receive_all(reader.subscriber, 20);
	receive_nothing(reader.subscriber);
	keeps(0);
	side.publisher = publisher_of(side.channel, 0);
	end(&side);
	close_reader(&reader);
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("kept") };

	tcase_add_checked_fixture(cases[0], set_up_kept, tear_down_kept);
	tcase_set_timeout(cases[0], 60);
	tcase_add_test(cases[0], who_comes_and_ends_while_a_subscriber_is_away_is_heard_of);
	tcase_add_test(cases[0], kept_lanes_outlive_brokers);
	tcase_add_test(cases[0], who_dies_without_a_broker_is_heard_of);
	tcase_add_test(cases[0], who_is_known_is_not_kept);
	tcase_add_test(cases[0], slots_are_free_for_the_next_ones);
	tcase_add_test(cases[0], nothing_comes_twice);
	tcase_add_test(cases[0], they_go_with_the_last_who_needs_them);
	tcase_add_test(cases[0], who_was_promised_nothing_keeps_nothing);
	tcase_add_test(cases[0], what_was_sent_and_not_taken_is_sent_again);
	tcase_add_test(cases[0], closing_gives_them_back);
	tcase_add_test(cases[0], they_are_charged_to_those_who_left_them);
	return run_suite("kept", cases, 1);
}
