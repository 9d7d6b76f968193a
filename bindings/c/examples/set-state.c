/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Puts the pose of a robot ten times a second, for a minute or as often as asked for:
 * set-state [COUNT [ROBOT]]. Run watch-state (of any language) beside it, at any time: it sees the
 * latest pose at once.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#include "pose.h"

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
						.schema = &pose_schema,
						.schema_len = sizeof(pose_schema),
						.pattern = SHMB_CHANNEL_STATE };
	unsigned int count = argc > 1 ? (unsigned int)atoi(argv[1]) : 600;
	const char *robot = argc > 2 ? argv[2] : "left";
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	int32_t key;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/poses", 13, &options, &channel) < 0)
		fail("example/poses");
	if (shmb_publisher_open(channel, NULL, &publisher) < 0)
		fail("publish");
	/* Fails if another process puts its pose. */
	key = shmb_publisher_claim(publisher, robot, (uint32_t)strlen(robot));
	if (key < 0)
		fail(robot);

	for (unsigned int i = 0; i < count; i++) {
		struct timespec now, pause = { .tv_nsec = 100000000 };
		struct pose pose = { .x = i * 0.1, .y = 1 - i * 0.1 };

		clock_gettime(CLOCK_MONOTONIC, &now);
		pose.time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
		if (shmb_publisher_put(publisher, (uint32_t)key, &pose, sizeof(pose)) < 0)
			fail("put");
		nanosleep(&pause, NULL);
	}

	shmb_publisher_close(publisher);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
