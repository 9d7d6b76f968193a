/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A subscriber that was away while many prices of a few instruments came, and cares only for the
 * newest of each: the instrument is the key.
 */

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#include "price.h"

#define N_INSTRUMENTS 4u
#define N_PRICES      100u

static void fail(const char *what)
{
	char why[256];

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static void send_all(struct shmb_publisher *publisher)
{
	for (uint32_t i = 0; i < N_PRICES; i++) {
		struct price price = { .instrument = i % N_INSTRUMENTS,
				       .number = i / N_INSTRUMENTS,
				       .price = 100 + i * 0.25 };

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
	struct shmb_subscriber_options slow = {
		.options_len = sizeof(slow),
		.conflate_offset = offsetof(struct price, instrument),
		.conflate_len = sizeof(((struct price *)0)->instrument),
	};
	struct shmb_subscriber_stats stats;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	struct shmb_channel *channel;
	struct shmb_client *client;
	struct price price;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/conflate", 16, &options, &channel) < 0)
		fail("example/conflate");
	if (shmb_subscriber_open(channel, &slow, &subscriber) < 0)
		fail("subscribe");
	if (shmb_publisher_open(channel, NULL, &publisher) < 0)
		fail("publish");

	send_all(publisher);
	while (shmb_subscriber_recv(subscriber, &price, sizeof(price)) >= 0)
		printf("instrument %" PRIu32 ", number %" PRIu32 ", at %.2f\n", price.instrument,
		       price.number, price.price);
	if (shmb_subscriber_stats(subscriber, &stats, sizeof(stats)) < 0)
		fail("stats");
	printf("%" PRIu64 " older ones were skipped\n", stats.conflated);

	shmb_publisher_close(publisher);
	shmb_subscriber_close(subscriber);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
