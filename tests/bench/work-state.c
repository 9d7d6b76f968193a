/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What it costs to get and to put a value of a state channel, publisher and subscribers in one process:
 * no cache line travels. With a value of 8 bytes that is the call itself.
 */

#include <stdlib.h>
#include <string.h>

#include "ends.h"

enum call {
	GET,
	PUT,
};

#define N_KEYS 16u

static struct shmb_channel *open_state(struct bench_workload *work)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_STATE,
						.max_keys = N_KEYS,
						.value_len = work->size };
	struct shmb_client *client = bench_client(work);
	struct shmb_channel *channel = NULL;
	char name[2 * BENCH_NAME_LEN_MAX];

	if (!client)
		return NULL;
	snprintf(name, sizeof(name), "bench/%s", work->name);
	if (shmb_channel_open(client, name, (uint32_t)strlen(name), &options, &channel) < 0)
		bench_skip(work, "%.90s", bench_last_error());
	return channel;
}

static void put(struct bench_workload *work, uint64_t n)
{
	struct bench_ends *ends = work->state;

	for (uint64_t i = 0; i < n; i++)
		if (shmb_publisher_put(ends->publishers[0], 0, ends->buffer, work->size) < 0)
			bench_die("cannot put: %s", bench_last_error());
}

static void get(struct bench_workload *work, uint64_t n)
{
	struct bench_ends *ends = work->state;

	for (uint64_t i = 0; i < n; i++)
		if (shmb_subscriber_get(ends->subscribers[0], 0, ends->buffer, work->size) < 0)
			bench_die("cannot get: %s", bench_last_error());
}

static int open_ends(struct bench_workload *work, unsigned int side)
{
	struct shmb_channel *channel;
	struct bench_ends *ends;

	if (side == 1)
		return 0;
	ends = bench_new_ends(work);
	if (!ends)
		return -1;
	channel = open_state(work);
	if (!channel || bench_add_publishers(work, channel, 1) < 0 ||
	    bench_add_subscribers(work, channel, work->n_subscribers, 0) < 0 ||
	    bench_wait_members(work, channel, 1, work->n_subscribers) < 0)
		return -1;
	if (shmb_publisher_claim(ends->publishers[0], "key", 3) != 0)
		return bench_skip(work, "%.90s", bench_last_error());
	put(work, 1);
	return 0;
}

static double run(struct bench_workload *work, uint64_t ops)
{
	uint64_t began = bench_now_ns();

	if (work->flavour == GET)
		get(work, ops);
	else
		put(work, ops);
	return (double)(bench_now_ns() - began);
}

static double nothing(struct bench_workload *work, uint64_t ops)
{
	(void)work;
	(void)ops;
	return 0;
}

static const struct bench_driver driver = { .open = open_ends, .run = { run, nothing } };

static void add(const char *variant, const char *label, enum call call, uint32_t n_subscribers)
{
	struct bench_workload *work = bench_add("local", variant, "shmb", label, &driver, 8);

	work->place = BENCH_ALONE;
	work->flavour = call;
	work->n_subscribers = n_subscribers;
}

void bench_add_state(void)
{
	add("state-get", "get a value", GET, 1);
	add("state-put-0", "put a value, no subscriber", PUT, 0);
	add("state-put-1", "put a value, 1 subscriber awake", PUT, 1);
	add("state-put-4", "put a value, 4 subscribers awake", PUT, 4);
}
