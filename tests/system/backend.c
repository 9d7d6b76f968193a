/* SPDX-License-Identifier: Apache-2.0 */

/* Print how a wait set of this process sleeps; it must hear a record that way, too. */

#include <errno.h>
#include <stdio.h>

#include <shmbroker/shmbroker.h>

static int fail(const char *what)
{
	char text[512];

	shmb_last_error(text, sizeof(text));
	fprintf(stderr, "%s: %s\n", what, text);
	return 1;
}

int main(void)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE };
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publisher;
	struct shmb_waitset *waitset;
	struct shmb_channel *channel;
	struct shmb_client *client;
	struct shmb_ready ready;

	if (shmb_client_open(NULL, &client) < 0 ||
	    shmb_channel_open(client, "test/backend", 12, &options, &channel) < 0 ||
	    shmb_subscriber_open(channel, NULL, &subscriber) < 0 ||
	    shmb_publisher_open(channel, NULL, &publisher) < 0)
		return fail("open");
	if (shmb_waitset_open(client, &waitset) < 0 || shmb_waitset_add(waitset, subscriber, 1) < 0)
		return fail("wait set");
	if (shmb_waitset_wait(waitset, &ready, 1, 1000000) != -ETIMEDOUT ||
	    shmb_publisher_send(publisher, "x", 1) < 0 ||
	    shmb_waitset_wait(waitset, &ready, 1, 5000000000ll) != 1)
		return fail("wait");
	printf("%s\n", shmb_waitset_backend(waitset));
	shmb_waitset_close(waitset);
	shmb_publisher_close(publisher);
	shmb_subscriber_close(subscriber);
	shmb_channel_close(channel);
	return shmb_client_close(client) < 0;
}
