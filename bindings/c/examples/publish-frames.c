/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Publishes a picture of two megabytes thirty times a second, for ten seconds or as often as asked
 * for. It is drawn where subscribers look at it; nobody copies it. Run hold-frames (of any language)
 * beside it.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <shmbroker/shmbroker.h>

#include "frame.h"

static void fail(const char *what)
{
	char why[256];

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

/* A bar that moves to the right. */
static void draw(struct frame *frame, uint32_t count)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	frame->time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	frame->count = count;
	frame->zero = 0;
	memset(frame->pixels, 16, sizeof(frame->pixels));
	for (uint32_t y = 0; y < FRAME_HEIGHT; y++)
		memset(&frame->pixels[y][count * 8 % (FRAME_WIDTH - 64)], 235, 64);
}

int main(int argc, char **argv)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.record_len_max = FRAME_LEN,
						.max_holds = 3 };
	unsigned int count = argc > 1 ? (unsigned int)atoi(argv[1]) : 300;
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, FRAME_CHANNEL, sizeof(FRAME_CHANNEL) - 1, &options,
			      &channel) < 0)
		fail(FRAME_CHANNEL);
	if (shmb_publisher_open(channel, NULL, &publisher) < 0)
		fail("publish");

	for (unsigned int i = 0; i < count; i++) {
		struct timespec pause = { .tv_nsec = 33333333 };
		int32_t result = shmb_publisher_loan(publisher, FRAME_LEN);

		if (result == 0) {
			draw((struct frame *)(uintptr_t)shmb_publisher_view(publisher)->data, i);
			result = shmb_publisher_publish(publisher, FRAME_LEN);
		}
		/* A camera does not wait: what finds no room is not taken. */
		if (result < 0 && result != -EAGAIN)
			fail("publish");
		nanosleep(&pause, NULL);
	}

	shmb_publisher_close(publisher);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
