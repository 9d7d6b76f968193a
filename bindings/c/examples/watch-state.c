/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Prints the poses that set-state (of any language) puts, first as they are and then as they change,
 * until none has changed for two seconds.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

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

static void print(struct shmb_subscriber *subscriber, uint32_t key)
{
	char robot[64];
	struct pose pose;
	int32_t len = shmb_subscriber_key(subscriber, key, robot, sizeof(robot));
	int32_t result = shmb_subscriber_get(subscriber, key, &pose, sizeof(pose));

	if (result == -ENODATA || result == -EAGAIN)
		return; /* erased, or so busy that it changes again at once */
	if (len < 0 || result < 0)
		fail("get");
	printf("%.*s at %.2f %.2f\n", (int)len, robot, pose.x, pose.y);
}

int main(void)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.schema = &pose_schema,
						.schema_len = sizeof(pose_schema),
						.pattern = SHMB_CHANNEL_STATE };
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_subscriber *subscriber;
	int32_t result, key;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/poses", 13, &options, &channel) < 0)
		fail("example/poses");
	if (shmb_subscriber_open(channel, NULL, &subscriber) < 0)
		fail("subscribe");

	while ((result = shmb_subscriber_wait(subscriber, 2000000000)) == 0)
		while ((key = shmb_subscriber_next(subscriber)) >= 0)
			print(subscriber, (uint32_t)key);
	if (result != -ETIMEDOUT)
		fail("wait");

	shmb_subscriber_close(subscriber);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
