/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Gives numbers to be factored to workers, and waits until all of them are done: submit [COUNT].
 * Run as many work (of any language) beside it as you like, at any time, and kill them as you like.
 */

#include <stdio.h>
#include <stdlib.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#include "task.h"

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
						.schema = &task_schema,
						.schema_len = sizeof(task_schema),
						.pattern = SHMB_CHANNEL_QUEUE };
	unsigned int count = argc > 1 ? (unsigned int)atoi(argv[1]) : 1000;
	struct shmb_client *client;
	struct shmb_channel *queue;
	struct shmb_publisher *publisher;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/numbers", 15, &options, &queue) < 0)
		fail("example/numbers");
	if (shmb_publisher_open(queue, NULL, &publisher) < 0)
		fail("publish");

	for (unsigned int i = 0; i < count; i++) {
		struct task task = { .number = 1001 + i };

		/* Waits until a worker has credit. */
		if (shmb_publisher_send_wait(publisher, &task, sizeof(task), SHMB_FOREVER) < 0)
			fail("send");
	}
	if (shmb_publisher_wait_done(publisher, SHMB_FOREVER) < 0)
		fail("wait");
	printf("%u tasks are done\n", count);

	shmb_publisher_close(publisher);
	shmb_channel_close(queue);
	shmb_client_close(client);
	return 0;
}
