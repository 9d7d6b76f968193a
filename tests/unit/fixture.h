/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_FIXTURE_H
#define SHMB_TESTS_FIXTURE_H

/* A broker and a client for each test, and shorthand that fails the test with the library's words. */

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#include "tests/unit/gate.h"

#define MS 1000000ll

static struct shmb_broker *broker __attribute__((unused));
static struct shmb_client *client __attribute__((unused));

static inline const char *why(void)
{
	static char text[512];

	shmb_last_error(text, sizeof(text));
	return text;
}

#define ok(expression)                                                                   \
	do {                                                                             \
		int32_t result_ = (expression);                                          \
		ck_assert_msg(result_ >= 0, "%s: %d (%s)", #expression, result_, why()); \
	} while (0)

#define refused(expression, expected)                                                             \
	do {                                                                                      \
		int32_t result_ = (expression);                                                   \
		ck_assert_msg(result_ == (expected), "%s: %d, not %s (%s)", #expression, result_, \
			      #expected, why());                                                  \
	} while (0)

/* The last refusal names the thing. */
#define says(part) ck_assert_msg(strstr(why(), part), "\"%s\" does not say \"%s\"", why(), part)

static inline struct shmb_client *connect_to(const char *address)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = address,
					       .address_len = (uint32_t)strlen(address) };
	struct shmb_client *connected = NULL;

	ok(shmb_client_open(&options, &connected));
	return connected;
}

static inline void set_up(void)
{
	ok(shmb_broker_start(NULL, &broker));
	client = connect_to(shmb_broker_address(broker));
}

static inline void tear_down(void)
{
	ok(shmb_client_close(client));
	ok(shmb_broker_stop(broker));
}

/* Which backing the channels of this run have: $SHMB_TEST_BACKING, auto if it says nothing. */
static inline uint32_t backing_of_run(void)
{
	const char *wanted = getenv("SHMB_TEST_BACKING");

	if (wanted && !strcmp(wanted, "sealed"))
		return SHMB_BACKING_SEALED;
	return wanted && !strcmp(wanted, "posix") ? SHMB_BACKING_POSIX : SHMB_BACKING_AUTO;
}

/* With records in blocks as many fit as without, although each takes 24 bytes of the lane. */
static inline uint32_t lane_of_run(uint32_t lane_len)
{
	return getenv("SHMB_TEST_BLOCKS") ? 4 * lane_len : lane_len;
}

/* $SHMB_TEST_BLOCKS: all records of more than a byte lie in blocks. */
static inline void put_into_blocks(struct shmb_channel_options *options)
{
	if (!getenv("SHMB_TEST_BLOCKS"))
		return;
	if (!options->lane_len)
		options->lane_len = 1 << 20;
	options->record_len_max = options->lane_len / 2 - 16;
	options->inline_len_max = 1;
	options->lane_len = lane_of_run(options->lane_len);
	options->arena_len = 64 << 20;
}

static inline struct shmb_channel *channel_of(struct shmb_client *of, const char *name,
					      uint32_t lane_len)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = lane_len,
						.backing = backing_of_run() };
	struct shmb_channel *channel = NULL;

	put_into_blocks(&options);

	ok(shmb_channel_open(of, name, (uint32_t)strlen(name), &options, &channel));
	return channel;
}

static inline struct shmb_publisher *publisher_of(struct shmb_channel *channel, uint32_t flags)
{
	struct shmb_publisher_options options = { .options_len = sizeof(options), .flags = flags };
	struct shmb_publisher *publisher = NULL;

	ok(shmb_publisher_open(channel, &options, &publisher));
	return publisher;
}

static inline struct shmb_subscriber *subscriber_of(struct shmb_channel *channel, uint32_t flags)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options), .flags = flags };
	struct shmb_subscriber *subscriber = NULL;

	ok(shmb_subscriber_open(channel, &options, &subscriber));
	return subscriber;
}

static inline int run_suite(const char *name, TCase **cases, int n)
{
	Suite *suite = suite_create(name);
	SRunner *runner;
	int failed;

	for (int i = 0; i < n; i++)
		suite_add_tcase(suite, cases[i]);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
