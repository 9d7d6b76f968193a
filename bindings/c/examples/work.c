/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Factors the numbers that submit (of any language) sends, until none has come for two seconds. What
 * it has not done when it is killed other workers get.
 */

#include <errno.h>
#include <inttypes.h>
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

static void work(const struct task *task)
{
	uint64_t number = task->number;

	printf("%" PRIu64 " =", number);
	for (uint64_t divisor = 2; divisor * divisor <= number;) {
		if (number % divisor) {
			divisor++;
			continue;
		}
		printf(" %" PRIu64 " *", divisor);
		number /= divisor;
	}
	printf(" %" PRIu64 "\n", number);
}

int main(void)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.schema = &task_schema,
						.schema_len = sizeof(task_schema),
						.pattern = SHMB_CHANNEL_QUEUE };
	struct shmb_client *client;
	struct shmb_channel *queue;
	struct shmb_subscriber *worker;
	struct task task;
	int32_t result;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/numbers", 15, &options, &queue) < 0)
		fail("example/numbers");
	if (shmb_subscriber_open(queue, NULL, &worker) < 0)
		fail("work");

	while ((result = shmb_subscriber_wait(worker, 2000000000)) == 0) {
		result = shmb_subscriber_take(worker, &task, sizeof(task));
		if (result == -EAGAIN)
			continue;
		if (result < 0)
			fail("take");
		work(&task);
		/* Also shmb_subscriber_fail(): then it comes again. */
		if (shmb_subscriber_done(worker, shmb_subscriber_view(worker)->term) < 0)
			fail("done");
	}
	if (result != -ETIMEDOUT)
		fail("wait");

	shmb_subscriber_close(worker);
	shmb_channel_close(queue);
	shmb_client_close(client);
	return 0;
}
