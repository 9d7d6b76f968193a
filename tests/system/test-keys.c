/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Rules that ask for a key: made by shmctl keygen, registered with the broker, named in a rule,
 * held by a client.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/place.h"

static const char rules[] = "socket-mode = '0666'\n"
			    "rule \"any\" { channel = { 'key/*' } key = { 'alice', 'carol' }\n"
			    "	allow = { 'create', 'publish' } }\n"
			    "rule \"both\" { channel = { 'both/*' } key = { 'alice' }\n"
			    "	uid = { '1001' } allow = { 'create' } }\n";

/* Makes top/NAME.key, which that user owns, and registers NAME if wanted. */
static void make_key(const char *name, uint32_t uid, bool registered)
{
	const char *top = getenv("top_builddir");
	char command[5000], path[PLACE_PATH_MAX];

	snprintf(path, sizeof(path), "%.90s/%s.key", place.top, name);
	snprintf(command, sizeof(command), "%s/shmctl keygen --name %s --public %.90s/%s/%s.pub %s",
		 top ? top : ".", name, place.top, registered ? "clients.d" : ".", name, path);
	ck_assert_int_eq(system(command), 0);
	ck_assert_int_eq(chown(path, uid, uid), 0);
}

static void set_up_keys(void)
{
	place_set_up();
	make_key("alice", UID_PUBLISHER, true);
	make_key("carol", UID_SUBSCRIBER, true);
	make_key("mallory", UID_PUBLISHER, false);
	place_configure(rules);
	place_start();
}

/* A client with a key; NULL: with one that it makes itself. Closes it again. */
static int32_t try_open(const char *key, const char *channel)
{
	struct shmb_client *own;
	int32_t result;

	if (key)
		setenv("SHMBROKER_KEY", place_path(key), 1);
	else
		unsetenv("SHMBROKER_KEY");
	own = connect_to(place.address);
	result = place_open(own, channel, SHMB_CHANNEL_CREATE);
	ok(shmb_client_close(own));
	return result;
}

static void be_user_with_keys(void)
{
	ok(try_open("alice.key", "key/a"));
	ok(try_open("alice.key", "both/a"));
	refused(try_open("mallory.key", "key/a"), -ENOENT);
	refused(try_open("mallory.key", "both/a"), -ENOENT);
	refused(try_open(NULL, "key/a"), -ENOENT);
	refused(try_open("alice.key", "other"), -ENOENT);
}

static void be_user_with_another_key(void)
{
	ok(try_open("carol.key", "key/a"));
	/* The key that the rule names belongs to somebody else, and so does the user. */
	refused(try_open("carol.key", "both/a"), -ENOENT);
}

START_TEST(a_rule_asks_for_the_key_that_it_names)
{
	place_finished(place_run_as(UID_PUBLISHER, 0, be_user_with_keys));
	place_finished(place_run_as(UID_SUBSCRIBER, 0, be_user_with_another_key));
}
END_TEST

static void be_user_with_a_stolen_key(void)
{
	ok(try_open("alice.key", "key/a"));
	refused(try_open("alice.key", "both/a"), -ENOENT);
}

START_TEST(a_stolen_key_is_not_enough_where_a_rule_asks_for_the_user_too)
{
	ck_assert_int_eq(chown(place_path("alice.key"), UID_STRANGER, UID_STRANGER), 0);
	place_finished(place_run_as(UID_STRANGER, 0, be_user_with_a_stolen_key));
}
END_TEST

static int32_t open_with(const char *key)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = place.address,
					       .address_len = (uint32_t)strlen(place.address),
					       .key_file = key };
	struct shmb_client *own;
	int32_t result = shmb_client_open(&options, &own);

	if (result == 0)
		ok(shmb_client_close(own));
	return result;
}

static void be_careless(void)
{
	char path[PLACE_PATH_MAX], link[PLACE_PATH_MAX];

	snprintf(path, sizeof(path), "%.90s/mine/key", place.top);
	snprintf(link, sizeof(link), "%.90s/mine/link", place.top);
	ok(open_with(path));
	ck_assert_int_eq(chmod(path, 0644), 0);
	refused(open_with(path), -EACCES);
	ck_assert_int_eq(chmod(path, 0600), 0);
	ck_assert_int_eq(symlink(path, link), 0);
	refused(open_with(link), -EACCES);
	unlink(link);
	ck_assert_int_eq(mkfifo(link, 0600), 0);
	refused(open_with(link), -EACCES);
	refused(open_with(place_path("carol.key")), -EACCES);
	refused(open_with(place_path("none.key")), -ENOENT);
	refused(open_with(place_path("clients.d/alice.pub")), -EACCES);
}

START_TEST(a_private_key_that_others_could_read_is_not_used)
{
	ck_assert_int_eq(mkdir(place_path("mine"), 0755), 0);
	ck_assert_int_eq(rename(place_path("alice.key"), place_path("mine/key")), 0);
	ck_assert_int_eq(chown(place_path("mine"), UID_PUBLISHER, UID_PUBLISHER), 0);
	place_finished(place_run_as(UID_PUBLISHER, 0, be_careless));
}
END_TEST

static void be_revoked(void)
{
	refused(try_open("alice.key", "key/a"), -ENOENT);
}

START_TEST(a_key_that_is_named_no_more_opens_nothing_after_a_reload)
{
	place_finished(place_run_as(UID_PUBLISHER, 0, be_user_with_keys));
	place_configure("socket-mode = '0666'\n"
			"rule \"any\" { channel = { 'key/*' } key = { 'carol' }\n"
			"	allow = { 'create', 'publish' } }\n");
	kill(place.broker, SIGHUP);
	place_says("event=reloaded rules=1");
	place_finished(place_run_as(UID_PUBLISHER, 0, be_revoked));
}
END_TEST

START_TEST(a_rule_with_a_key_that_is_not_registered_is_a_mistake)
{
	place_configure("\nrule \"any\" { channel = { 'key/*' } key = { 'mallory' }\n"
			"	allow = { 'create' } }\n");
	kill(place.broker, SIGHUP);
	place_says("event=reload-failed");
	place_says("mallory.pub");
	/* One that others can write proves nothing. */
	ck_assert_int_eq(chmod(place_path("clients.d/alice.pub"), 0666), 0);
	place_configure(rules);
	place_said(true);
	kill(place.broker, SIGHUP);
	place_says("event=reload-failed");
	place_says("alice.pub");
}
END_TEST

static void distrust_broker(void)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = place.address,
					       .address_len = (uint32_t)strlen(place.address),
					       .broker_key_file =
						       place_path("clients.d/alice.pub") };
	struct shmb_client *own;

	refused(shmb_client_open(&options, &own), -EKEYREJECTED);
}

START_TEST(a_broker_with_another_key_than_expected_is_not_talked_to)
{
	place_finished(place_run_as(UID_PUBLISHER, 0, distrust_broker));
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("keys") };
	int result;

	place_need_root("test-keys");
	tcase_add_checked_fixture(cases[0], set_up_keys, place_tear_down);
	tcase_add_test(cases[0], a_rule_asks_for_the_key_that_it_names);
	tcase_add_test(cases[0], a_stolen_key_is_not_enough_where_a_rule_asks_for_the_user_too);
	tcase_add_test(cases[0], a_private_key_that_others_could_read_is_not_used);
	tcase_add_test(cases[0], a_key_that_is_named_no_more_opens_nothing_after_a_reload);
	tcase_add_test(cases[0], a_rule_with_a_key_that_is_not_registered_is_a_mistake);
	tcase_add_test(cases[0], a_broker_with_another_key_than_expected_is_not_talked_to);
	result = run_suite("keys", cases, 1);
	place_sweep();
	return result;
}
