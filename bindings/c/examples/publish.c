/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Publishes a tick every millisecond on a typed channel, for five seconds or as long as asked for.
 * Run subscribe (of any language) beside it. No broker needs to be started before.
 */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

int main(int argc, char **argv)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.schema = &tick_schema,
						.schema_len = sizeof(tick_schema) };
	unsigned int count = argc > 1 ? (unsigned int)atoi(argv[1]) : 5000;
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/ticks", 13, &options, &channel) < 0)
		fail("example/ticks");
	if (shmb_publisher_open(channel, NULL, &publisher) < 0)
		fail("publish");

	for (unsigned int i = 0; i < count; i++) {
		struct timespec now, pause = { .tv_nsec = 1000000 };
		struct tick tick = { .count = i, .price = 100 + i * 0.25 };

		clock_gettime(CLOCK_MONOTONIC, &now);
		tick.time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
		/* Waits up to a second for a subscriber that is a whole ring behind. */
		if (shmb_publisher_send_wait(publisher, &tick, sizeof(tick), 1000000000) < 0)
			fail("send");
		nanosleep(&pause, NULL);
	}

	shmb_publisher_close(publisher);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
