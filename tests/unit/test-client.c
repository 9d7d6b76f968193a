/* SPDX-License-Identifier: Apache-2.0 */

/* Connecting, channels and schemas: what is refused, and what the refusal says. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/fixture.h"

struct tick {
	uint64_t time_ns;
	double price;
	uint32_t count;
	int32_t side;
};

struct tock {
	uint64_t time_ns;
	double price;
	uint32_t count;
	uint32_t side;
};

SHMB_SCHEMA(tick_schema, struct tick, "test.tick", SHMB_FIELD(struct tick, time_ns),
	    SHMB_FIELD(struct tick, price), SHMB_FIELD(struct tick, count),
	    SHMB_FIELD(struct tick, side));
SHMB_SCHEMA(tock_schema, struct tock, "test.tick", SHMB_FIELD(struct tock, time_ns),
	    SHMB_FIELD(struct tock, price), SHMB_FIELD(struct tock, count),
	    SHMB_FIELD(struct tock, side));

static int32_t open_channel(const char *name, uint32_t flags, const void *schema, uint32_t len,
			    struct shmb_channel **channel)
{
	struct shmb_channel_options options = {
		.options_len = sizeof(options), .flags = flags, .schema = schema, .schema_len = len
	};

	return shmb_channel_open(client, name, (uint32_t)strlen(name), &options, channel);
}

START_TEST(bad_names_are_refused)
{
	static const char *const names[] = { "",    "/", "a/",	 "/a", "a//b", "A",
					     "a b", "ä", "a\nb", "*",  "..",   "a/../b" };
	struct shmb_channel *channel;
	char longest[130];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		refused(shmb_channel_open(client, names[i], (uint32_t)strlen(names[i]), NULL,
					  &channel),
			-EINVAL);
	memset(longest, 'x', sizeof(longest));
	refused(shmb_channel_open(client, longest, 129, NULL, &channel), -EINVAL);
	says("128");
	ok(shmb_channel_open(client, longest, 128, NULL, &channel));
	ok(shmb_channel_close(channel));
	refused(shmb_channel_open(client, NULL, 1, NULL, &channel), -EINVAL);
}
END_TEST

START_TEST(impossible_limits_are_refused)
{
	static const uint32_t lane_lens[] = { 1, 4095, 5000, 2048, 0x80000001u };
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE };
	struct shmb_channel *channel;

	for (size_t i = 0; i < sizeof(lane_lens) / sizeof(lane_lens[0]); i++) {
		options.lane_len = lane_lens[i];
		refused(shmb_channel_open(client, "x", 1, &options, &channel), -EINVAL);
		says("lane_len");
	}
	options.lane_len = 0;
	options.max_publishers = 4097;
	refused(shmb_channel_open(client, "x", 1, &options, &channel), -EINVAL);
	says("4096");
	options.max_publishers = 0;
	options.flags = 1 << 9;
	refused(shmb_channel_open(client, "x", 1, &options, &channel), -EINVAL);
	options.options_len = 3;
	refused(shmb_channel_open(client, "x", 1, &options, &channel), -EINVAL);
}
END_TEST

/* A program that was built with an older or newer header. */
START_TEST(options_of_other_versions_are_understood)
{
	struct {
		struct shmb_channel_options known;
		uint64_t unknown;
	} newer = { .known = { .options_len = sizeof(newer),
			       .flags = SHMB_CHANNEL_CREATE,
			       .lane_len = 8192 } };
	struct shmb_channel_options older = { .options_len = 8,
					      .flags = SHMB_CHANNEL_CREATE,
					      .lane_len = 77 };
	struct shmb_channel *channel;
	struct shmb_channel_info info;

	ok(shmb_channel_open(client, "newer", 5, &newer.known, &channel));
	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.lane_len, 8192);
	ok(shmb_channel_close(channel));
	newer.unknown = 1;
	refused(shmb_channel_open(client, "newer", 5, &newer.known, &channel), -EINVAL);
	says("does not know");
	/* What lies behind the length that it gave is not looked at. */
	ok(shmb_channel_open(client, "older", 5, &older, &channel));
	ok(shmb_channel_close(channel));
}
END_TEST

START_TEST(existing_and_missing_channels_are_told_apart)
{
	struct shmb_channel *channel, *again;

	refused(open_channel("x", 0, NULL, 0, &channel), -ENOENT);
	ok(open_channel("x", SHMB_CHANNEL_CREATE | SHMB_CHANNEL_EXCLUSIVE, NULL, 0, &channel));
	refused(open_channel("x", SHMB_CHANNEL_CREATE | SHMB_CHANNEL_EXCLUSIVE, NULL, 0, &again),
		-EEXIST);
	ok(open_channel("x", 0, NULL, 0, &again));
	refused(shmb_client_close(client), -EBUSY);
	ok(shmb_channel_close(channel));
	ok(shmb_channel_close(again));
	ok(shmb_client_ping(client, 1000 * MS));
	/* Nobody has it open any more. */
	refused(open_channel("x", 0, NULL, 0, &channel), -ENOENT);
}
END_TEST

START_TEST(a_schema_that_differs_is_refused_with_the_field)
{
	struct shmb_channel *channel, *again;
	uint8_t copy[SHMB_SCHEMA_LEN_MAX];

	ok(open_channel("x", SHMB_CHANNEL_CREATE, &tick_schema, sizeof(tick_schema), &channel));
	refused(open_channel("x", SHMB_CHANNEL_CREATE, &tock_schema, sizeof(tock_schema), &again),
		-EPROTOTYPE);
	says("side");
	says("i32");
	says("u32");
	refused(open_channel("x", SHMB_CHANNEL_CREATE, NULL, 0, &again), -EPROTOTYPE);
	says("test.tick");
	ok(open_channel("x", SHMB_CHANNEL_ANY_SCHEMA, NULL, 0, &again));
	ck_assert_int_eq(shmb_channel_schema(again, copy, sizeof(copy)), sizeof(tick_schema));
	ck_assert_mem_eq(copy, &tick_schema, sizeof(tick_schema));
	ok(shmb_channel_close(again));
	ok(shmb_channel_close(channel));
	ok(open_channel("y", SHMB_CHANNEL_CREATE, NULL, 0, &channel));
	refused(open_channel("y", 0, &tick_schema, sizeof(tick_schema), &again), -EPROTOTYPE);
	says("untyped");
	ok(shmb_channel_close(channel));
	memcpy(copy, &tick_schema, sizeof(tick_schema));
	copy[0] ^= 1;
	refused(open_channel("z", SHMB_CHANNEL_CREATE, copy, sizeof(tick_schema), &channel),
		-EINVAL);
}
END_TEST

START_TEST(a_typed_channel_takes_only_its_struct)
{
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct tick tick = { 1, 2, 3, 4 };

	ok(open_channel("x", SHMB_CHANNEL_CREATE, &tick_schema, sizeof(tick_schema), &channel));
	publisher = publisher_of(channel, 0);
	ok(shmb_publisher_send(publisher, &tick, sizeof(tick)));
	refused(shmb_publisher_send(publisher, &tick, sizeof(tick) - 1), -EINVAL);
	says("24");
	refused(shmb_publisher_loan(publisher, 8), -EINVAL);
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
}
END_TEST

START_TEST(slots_run_out_and_come_back)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = 4096,
						.max_publishers = 3,
						.max_subscribers = 2 };
	struct shmb_publisher *publishers[3], *publisher;
	struct shmb_subscriber *subscribers[2], *subscriber;
	struct shmb_channel *channel;
	struct shmb_channel_info info;

	ok(shmb_channel_open(client, "x", 1, &options, &channel));
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 3; i++)
			ok(shmb_publisher_open(channel, NULL, &publishers[i]));
		refused(shmb_publisher_open(channel, NULL, &publisher), -EDQUOT);
		for (int i = 0; i < 2; i++)
			ok(shmb_subscriber_open(channel, NULL, &subscribers[i]));
		refused(shmb_subscriber_open(channel, NULL, &subscriber), -EDQUOT);
		ok(shmb_channel_info(channel, &info, sizeof(info)));
		ck_assert_uint_eq(info.n_publishers, 3);
		ck_assert_uint_eq(info.n_subscribers, 2);
		ck_assert_uint_eq(info.record_len_max, 2032);
		refused(shmb_channel_close(channel), -EBUSY);
		for (int i = 0; i < 3; i++)
			ok(shmb_publisher_close(publishers[i]));
		for (int i = 0; i < 2; i++)
			ok(shmb_subscriber_close(subscribers[i]));
		/* Closing does not wait for the broker; a round trip behind it does. */
		ok(shmb_client_ping(client, 1000 * MS));
		refused(shmb_channel_wait_members(channel, 1, 0, 1 * MS), -ETIMEDOUT);
	}
	ok(shmb_channel_close(channel));
}
END_TEST

START_TEST(a_place_without_a_broker_is_told)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = "/nonexistent/control.sock",
					       .address_len = 25 };
	struct shmb_client *other;
	char dir[] = "/tmp/shmb-test.XXXXXX", path[64];
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd;

	refused(shmb_client_open(&options, &other), -ENOENT);
	says("/nonexistent");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/control.sock", dir);
	options.address = path;
	options.address_len = (uint32_t)strlen(path);
	refused(shmb_client_open(&options, &other), -ENOENT);
	/* One of the right kind whose owner is no broker. */
	strcpy(name.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	listen(fd, 1);
	options.connect_timeout_ns = 100 * MS;
	refused(shmb_client_open(&options, &other), -ENOENT);
	says("not a broker's socket");
	close(fd);
	unlink(path);
	/* A socket of another kind, and one that nobody listens on. */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	listen(fd, 1);
	ck_assert_int_lt(shmb_client_open(&options, &other), 0);
	close(fd);
	ck_assert_int_lt(shmb_client_open(&options, &other), 0);
	unlink(path);
	rmdir(dir);
	options.address = "relative";
	options.address_len = 8;
	refused(shmb_client_open(&options, &other), -EINVAL);
	options.address_len = 200;
	refused(shmb_client_open(&options, &other), -EINVAL);
}
END_TEST

/* Nobody is asked for, so the user's own broker is to be started. */
START_TEST(a_broker_that_does_not_start_is_told)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .connect_timeout_ns = 4000 * MS };
	struct shmb_client *other = NULL;
	char dir[] = "/tmp/shmb-test-XXXXXX";

	/* Where the system has one, it is that one's. */
	if (access("/run/shmbroker/control.sock", F_OK) == 0)
		return;
	ck_assert_ptr_nonnull(mkdtemp(dir));
	setenv("XDG_RUNTIME_DIR", dir, 1);
	unsetenv("SHMBROKER_ADDRESS");
	setenv("SHMBROKER_DAEMON", "/nonexistent/shmbrokerd", 1);
	refused(shmb_client_open(&options, &other), -ENOENT);
	says("no shmbrokerd to start");
	setenv("SHMBROKER_DAEMON", "/bin/true", 1);
	refused(shmb_client_open(&options, &other), -ECONNREFUSED);
	says("before it could say why");
	ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

START_TEST(another_key_than_the_brokers_is_refused)
{
	struct shmb_broker *second;
	struct shmb_client_options options = { .options_len = sizeof(options) };
	struct shmb_client *other;
	char key[256];

	ok(shmb_broker_start(NULL, &second));
	options.address = shmb_broker_address(broker);
	options.address_len = (uint32_t)strlen(options.address);
	snprintf(key, sizeof(key), "%s", shmb_broker_address(second));
	strcpy(strrchr(key, '/'), "/broker.pub");
	options.broker_key_file = key;
	refused(shmb_client_open(&options, &other), -EKEYREJECTED);
	options.broker_key_file = NULL;
	ok(shmb_client_open(&options, &other));
	ok(shmb_client_close(other));
	ok(shmb_broker_stop(second));
}
END_TEST

START_TEST(a_hundred_clients_come_and_go)
{
	for (int i = 0; i < 100; i++) {
		struct shmb_client *other = connect_to(shmb_broker_address(broker));
		struct shmb_channel *channel = channel_of(other, "churn", 4096);
		struct shmb_publisher *publisher = publisher_of(channel, 0);
		struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
		char byte;

		ok(shmb_publisher_send(publisher, "x", 1));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &byte, 1), 1);
		ok(shmb_subscriber_close(subscriber));
		ok(shmb_publisher_close(publisher));
		ok(shmb_channel_close(channel));
		ok(shmb_client_close(other));
	}
}
END_TEST

static int n_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Its client hears of them all the same, for the sake of others in the same process. */
START_TEST(subscribers_that_come_and_go_cost_an_idle_publisher_nothing)
{
	struct shmb_client *other = connect_to(shmb_broker_address(broker));
	struct shmb_channel *channel = channel_of(client, "a", 4096);
	struct shmb_channel *theirs = channel_of(other, "a", 4096);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber;
	int before = 0, got = 0;

	for (int i = 0; i < 50; i++) {
		subscriber = subscriber_of(theirs, 0);
		ok(shmb_client_ping(client, 5000 * MS));
		ok(shmb_subscriber_close(subscriber));
		ok(shmb_client_ping(other, 5000 * MS));
		ok(shmb_client_ping(client, 5000 * MS));
		/* The first of them fills caches. */
		if (i == 5)
			before = n_fds();
	}
	ck_assert_int_le(n_fds(), before);
	/* And whoever comes then is served. */
	subscriber = subscriber_of(theirs, 0);
	ok(shmb_publisher_send(publisher, &before, sizeof(before)));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, &got, sizeof(got)), sizeof(got));
	ck_assert_int_eq(got, before);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(theirs));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(other));
}
END_TEST

START_TEST(null_is_refused_everywhere)
{
	ok(shmb_client_close(NULL));
	ok(shmb_channel_close(NULL));
	ok(shmb_publisher_close(NULL));
	ok(shmb_subscriber_close(NULL));
	ok(shmb_waitset_close(NULL));
	ok(shmb_broker_stop(NULL));
	refused(shmb_client_open(NULL, NULL), -EINVAL);
	refused(shmb_publisher_send(NULL, "", 0), -EINVAL);
	refused(shmb_publisher_send_many(NULL, "", 0, NULL, 1), -EINVAL);
	refused(shmb_publisher_loan(NULL, 0), -EINVAL);
	refused(shmb_subscriber_recv(NULL, NULL, 0), -EINVAL);
	refused(shmb_subscriber_peek(NULL, 1), -EINVAL);
	refused(shmb_subscriber_wait(NULL, 0), -EINVAL);
	refused(shmb_waitset_wait(NULL, NULL, 0, 0), -EINVAL);
	ck_assert_ptr_null(shmb_publisher_view(NULL));
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("client") };

	tcase_add_checked_fixture(cases[0], set_up, tear_down);
	tcase_set_timeout(cases[0], 60);
	tcase_add_test(cases[0], bad_names_are_refused);
	tcase_add_test(cases[0], impossible_limits_are_refused);
	tcase_add_test(cases[0], options_of_other_versions_are_understood);
	tcase_add_test(cases[0], existing_and_missing_channels_are_told_apart);
	tcase_add_test(cases[0], a_schema_that_differs_is_refused_with_the_field);
	tcase_add_test(cases[0], a_typed_channel_takes_only_its_struct);
	tcase_add_test(cases[0], slots_run_out_and_come_back);
	tcase_add_test(cases[0], a_place_without_a_broker_is_told);
	tcase_add_test(cases[0], a_broker_that_does_not_start_is_told);
	tcase_add_test(cases[0], another_key_than_the_brokers_is_refused);
	tcase_add_test(cases[0], a_hundred_clients_come_and_go);
	tcase_add_test(cases[0], subscribers_that_come_and_go_cost_an_idle_publisher_nothing);
	tcase_add_test(cases[0], null_is_refused_everywhere);
	return run_suite("client", cases, 1);
}
