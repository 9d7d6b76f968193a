/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/system/newcomer.h"

#include <errno.h>
#include <poll.h>

#include "tests/unit/fixture.h"

#define LANE_LEN 16384u

struct newcomer {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	struct shmb_waitset *waitset;
};

/* A record through each way to wait. */
static int newcomer_talks(struct newcomer *newcomer, int64_t patience_ns)
{
	struct pollfd entry = { .events = POLLIN };
	struct shmb_ready ready;
	char text[8] = "";
	int result;

	result = shmb_publisher_send(newcomer->publisher, "works", 6);
	if (result == 0)
		result = shmb_subscriber_wait(newcomer->subscriber, patience_ns);
	if (result == 0)
		result = shmb_subscriber_recv(newcomer->subscriber, text, sizeof(text));
	if (result >= 0)
		ck_assert_str_eq(text, "works");
	if (result >= 0)
		result =
			shmb_subscriber_wait(newcomer->subscriber, 2 * MS) == -ETIMEDOUT ? 0 : -EIO;
	if (result >= 0)
		result = shmb_subscriber_fd(newcomer->subscriber);
	entry.fd = result;
	if (result >= 0)
		result = shmb_subscriber_arm(newcomer->subscriber);
	if (result >= 0)
		result = shmb_publisher_send(newcomer->publisher, "again", 6);
	if (result >= 0)
		poll(&entry, 1, 20);
	if (result >= 0)
		result = shmb_waitset_open(newcomer->client, &newcomer->waitset);
	if (result >= 0)
		result = shmb_waitset_add(newcomer->waitset, newcomer->subscriber, 1);
	if (result >= 0)
		result = shmb_waitset_wait(newcomer->waitset, &ready, 1, patience_ns);
	if (result >= 0)
		result = shmb_subscriber_recv(newcomer->subscriber, text, sizeof(text));
	if (result >= 0)
		ck_assert_str_eq(text, "again");
	return result < 0 ? result : 0;
}

/* The first failure ends it. */
static int newcomer_open(struct newcomer *newcomer, const char *address, uint32_t backing,
			 int64_t patience_ns)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .connect_timeout_ns = patience_ns,
					       .address = address,
					       .address_len = (uint32_t)strlen(address) };
	struct shmb_subscriber_options sleepy = { .options_len = sizeof(sleepy),
						  .flags = SHMB_SUBSCRIBER_NO_SPIN };
	struct shmb_channel_options create = { .options_len = sizeof(create),
					       .flags = SHMB_CHANNEL_CREATE,
					       .lane_len = LANE_LEN,
					       .backing = backing };
	int result;

	*newcomer = (struct newcomer){ 0 };
	result = shmb_client_open(&options, &newcomer->client);
	if (result == 0)
		result = shmb_channel_open(newcomer->client, "newcomer", 8, &create,
					   &newcomer->channel);
	if (result == 0)
		result = shmb_publisher_open(newcomer->channel, NULL, &newcomer->publisher);
	if (result == 0)
		result = shmb_subscriber_open(newcomer->channel, &sleepy, &newcomer->subscriber);
	return result == 0 ? newcomer_talks(newcomer, patience_ns) : result;
}

static void newcomer_close(struct newcomer *newcomer)
{
	shmb_waitset_close(newcomer->waitset);
	shmb_subscriber_close(newcomer->subscriber);
	shmb_publisher_close(newcomer->publisher);
	shmb_channel_close(newcomer->channel);
	shmb_client_close(newcomer->client);
}

int newcomer_comes_and_goes(const char *address, uint32_t backing, int64_t patience_ns)
{
	struct newcomer newcomer;
	int result = newcomer_open(&newcomer, address, backing, patience_ns);

	if (result < 0)
		ck_assert_msg(strlen(why()) > 5 && !strchr(why(), '\n'),
			      "%d: \"%s\" is no sentence", result, why());
	newcomer_close(&newcomer);
	return result;
}
