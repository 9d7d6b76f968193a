/* SPDX-License-Identifier: Apache-2.0 */

/* Prints the ticks that publish (of any language) sends, until none has come for two seconds. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#include "tick.h"

static void fail(const char *what)
{
	char why[256];

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

int main(void)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.schema = &tick_schema,
						.schema_len = sizeof(tick_schema) };
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_subscriber *subscriber;
	int32_t result;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/ticks", 13, &options, &channel) < 0)
		fail("example/ticks");
	if (shmb_subscriber_open(channel, NULL, &subscriber) < 0)
		fail("subscribe");

	while ((result = shmb_subscriber_wait(subscriber, 2000000000)) == 0) {
		struct tick tick;

		/* Several records may be there after one wait. */
		while ((result = shmb_subscriber_recv(subscriber, &tick, sizeof(tick))) >= 0)
			printf("%" PRIu32 " at %.2f\n", tick.count, tick.price);
		if (result != -EAGAIN)
			fail("receive");
	}
	if (result != -ETIMEDOUT)
		fail("wait");

	shmb_subscriber_close(subscriber);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
