/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Compares each picture that publish-frames (of any language) sends with the one two before it,
 * which it holds meanwhile, until none has come for two seconds. Nobody copies a picture.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <shmbroker/shmbroker.h>

#include "frame.h"

#define N_HELD 3u

/**
 * struct held - a picture that is kept
 * @hold:  as the library calls it
 * @frame: where it lies
 */
struct held {
	uint32_t hold;
	const struct frame *frame;
};

static void fail(const char *what)
{
	char why[256];

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static uint32_t n_different(const struct frame *a, const struct frame *b)
{
	uint32_t n = 0;

	for (uint32_t x = 0; x < FRAME_WIDTH; x++)
		n += a->pixels[0][x] != b->pixels[0][x];
	return n;
}

/* The next picture, which stays where it is until shmb_subscriber_unhold(). Returns 0 or -EAGAIN. */
static int32_t hold_next(struct shmb_subscriber *subscriber, struct held *held)
{
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	int32_t result = shmb_subscriber_peek(subscriber, 1);

	if (result > 0)
		result = shmb_subscriber_hold(subscriber);
	if (result == -EAGAIN)
		return result;
	if (result < 0)
		fail("hold");
	if (view->len != FRAME_LEN) {
		fprintf(stderr, "a picture of %" PRIu32 " bytes\n", view->len);
		exit(1);
	}
	held->hold = (uint32_t)result;
	held->frame = (const struct frame *)(uintptr_t)view->data;
	return 0;
}

int main(void)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.record_len_max = FRAME_LEN,
						.max_holds = N_HELD };
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_subscriber *subscriber;
	struct held ring[N_HELD];
	uint32_t n = 0;
	int32_t result;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, FRAME_CHANNEL, sizeof(FRAME_CHANNEL) - 1, &options,
			      &channel) < 0)
		fail(FRAME_CHANNEL);
	if (shmb_subscriber_open(channel, NULL, &subscriber) < 0)
		fail("subscribe");

	while ((result = shmb_subscriber_wait(subscriber, 2000000000)) == 0) {
		struct held *oldest = &ring[n % N_HELD], before = *oldest;

		/* Room for the new one first: the channel allows no more than these. */
		if (n >= N_HELD && shmb_subscriber_unhold(subscriber, before.hold) < 0)
			fail("unhold");
		if (hold_next(subscriber, oldest) < 0)
			fail("receive");
		if (n >= N_HELD - 1) {
			const struct frame *first = ring[(n + 1) % N_HELD].frame;

			printf("%" PRIu32 ": %" PRIu32 " columns differ from %" PRIu32 "\n",
			       oldest->frame->count, n_different(oldest->frame, first),
			       first->count);
		}
		n++;
	}
	if (result != -ETIMEDOUT)
		fail("wait");

	shmb_subscriber_close(subscriber);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
