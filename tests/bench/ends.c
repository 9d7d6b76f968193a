/* SPDX-License-Identifier: Apache-2.0 */

/* Opening the library's handles: a client per process, a channel per workload and direction. */

#include "ends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_NS 5000000000ll

const char *bench_last_error(void)
{
	static char text[256];

	shmb_last_error(text, sizeof(text));
	return text;
}

struct shmb_client *bench_client(struct bench_workload *work)
{
	static struct shmb_client *client;
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .flags = SHMB_CLIENT_NO_START,
					       .address = bench.address,
					       .address_len = (uint32_t)strlen(bench.address) };

	if (client)
		return client;
	if (!bench.address[0])
		bench_skip(work, "no broker");
	else if (shmb_client_open(&options, &client) < 0)
		bench_skip(work, "%.90s", bench_last_error());
	return client;
}

struct shmb_channel *bench_channel(struct bench_workload *work, const char *suffix)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = work->pattern,
						.lane_len = bench_ring_len(work->size) };
	struct shmb_client *client = bench_client(work);
	struct shmb_channel *channel = NULL;
	char name[2 * BENCH_NAME_LEN_MAX];

	if (!client)
		return NULL;
	snprintf(name, sizeof(name), "bench/%s/%s", work->name, suffix);
	if (shmb_channel_open(client, name, (uint32_t)strlen(name), &options, &channel) < 0)
		bench_skip(work, "%.90s", bench_last_error());
	return channel;
}

struct bench_ends *bench_new_ends(struct bench_workload *work)
{
	struct bench_ends *ends = calloc(1, sizeof(*ends));

	work->state = ends;
	if (ends)
		ends->buffer = aligned_alloc(4096, (size_t)(work->size + 4096) / 4096 * 4096 *
							   BENCH_BATCH);
	if (!ends || !ends->buffer) {
		bench_skip(work, "no memory");
		return NULL;
	}
	memset(ends->buffer, 0, (size_t)work->size * BENCH_BATCH);
	return ends;
}

int bench_add_publishers(struct bench_workload *work, struct shmb_channel *channel, uint32_t n)
{
	struct shmb_publisher_options options = { .options_len = sizeof(options),
						  .flags = work->trusting ? SHMB_PUBLISHER_TRUSTING
									  : 0 };
	struct bench_ends *ends = work->state;

	for (uint32_t i = 0; i < n; i++)
		if (shmb_publisher_open(channel, &options,
					&ends->publishers[ends->n_publishers++]) < 0)
			return bench_skip(work, "%.90s", bench_last_error());
	return 0;
}

int bench_add_subscribers(struct bench_workload *work, struct shmb_channel *channel, uint32_t n,
			  uint32_t flags)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options), .flags = flags };
	struct bench_ends *ends = work->state;

	for (uint32_t i = 0; i < n; i++)
		if (shmb_subscriber_open(channel, &options,
					 &ends->subscribers[ends->n_subscribers++]) < 0)
			return bench_skip(work, "%.90s", bench_last_error());
	return 0;
}

int bench_wait_members(struct bench_workload *work, struct shmb_channel *channel,
		       uint32_t publishers, uint32_t subscribers)
{
	if (shmb_channel_wait_members(channel, publishers, subscribers, WAIT_NS) < 0)
		return bench_skip(work, "%.90s", bench_last_error());
	return 0;
}
