/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Two publishers of one channel: what the urgent one sends last is received first, although the other
 * one's records have waited for longer.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#include "price.h"

static struct shmb_channel *channel;

static void fail(const char *what)
{
	char why[256];

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static struct shmb_publisher *open_publisher(uint32_t priority)
{
	struct shmb_publisher_options options = { .options_len = sizeof(options),
						  .priority = priority };
	struct shmb_publisher *publisher;

	if (shmb_publisher_open(channel, &options, &publisher) < 0)
		fail("publish");
	return publisher;
}

/* Whose they are the instrument says here. */
static void send(struct shmb_publisher *publisher, uint32_t instrument, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct price price = { .instrument = instrument, .number = i, .price = 100 };

		if (shmb_publisher_send(publisher, &price, sizeof(price)) < 0)
			fail("send");
	}
}

int main(void)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.schema = &price_schema,
						.schema_len = sizeof(price_schema) };
	struct shmb_publisher *usual, *urgent;
	struct shmb_subscriber *subscriber;
	struct shmb_client *client;
	struct price price;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/priorities", 18, &options, &channel) < 0)
		fail("example/priorities");
	if (shmb_subscriber_open(channel, NULL, &subscriber) < 0)
		fail("subscribe");
	usual = open_publisher(0);
	urgent = open_publisher(SHMB_PRIORITY_MAX);

	send(usual, 0, 4);
	send(urgent, 7, 2);
	while (shmb_subscriber_recv(subscriber, &price, sizeof(price)) >= 0)
		printf("priority %" PRIu32 ", number %" PRIu32 "\n", price.instrument,
		       price.number);

	shmb_publisher_close(urgent);
	shmb_publisher_close(usual);
	shmb_subscriber_close(subscriber);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
