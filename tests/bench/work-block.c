/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Long records. To and fro: one is lent, published, looked at and released, and 8 bytes of it are
 * touched on either side; that must not depend on its length. Copies: what it takes to send one, next
 * to memcpy(3) into memory that is in use in the same way.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ends.h"

#define MIB	  (1024u * 1024u)
#define INLINE	  4096u
#define N_BUFFERS 4u

enum copy {
	MEMCPY,
	SEND,
	RECEIVE,
};

static struct shmb_channel *open_blocks(struct bench_workload *work, const char *suffix)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.record_len_max = work->size,
						.inline_len_max = INLINE };
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

/* ---- to and fro -------------------------------------------------------------------------------- */

static int open_both_ways(struct bench_workload *work, unsigned int side)
{
	struct bench_ends *ends = calloc(1, sizeof(*ends));
	struct shmb_channel *there, *back;

	work->state = ends;
	if (!ends)
		return bench_skip(work, "no memory");
	there = open_blocks(work, "there");
	back = there ? open_blocks(work, "back") : NULL;
	if (!back || bench_add_publishers(work, side == 0 ? there : back, 1) < 0 ||
	    bench_add_subscribers(work, side == 0 ? back : there, 1, 0) < 0)
		return -1;
	return bench_wait_members(work, there, 1, 1) < 0 ? -1
							 : bench_wait_members(work, back, 1, 1);
}

static void publish(struct bench_workload *work, uint64_t value)
{
	struct bench_ends *ends = work->state;
	struct shmb_publisher *publisher = ends->publishers[0];
	int32_t result;

	while ((result = shmb_publisher_loan(publisher, work->size)) == -EAGAIN)
		bench_pause();
	if (result < 0)
		bench_die("cannot loan: %s", bench_last_error());
	*(uint64_t *)(uintptr_t)shmb_publisher_view(publisher)->data = value;
	if (shmb_publisher_publish(publisher, work->size) < 0)
		bench_die("cannot publish: %s", bench_last_error());
}

static uint64_t look(struct bench_workload *work)
{
	struct bench_ends *ends = work->state;
	struct shmb_subscriber *subscriber = ends->subscribers[0];
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t value;
	int32_t result;

	while ((result = shmb_subscriber_peek(subscriber, 1)) == -EAGAIN)
		bench_pause();
	if (result < 0 || view->len != work->size)
		bench_die("cannot peek: %s", bench_last_error());
	value = *(const uint64_t *)(uintptr_t)view->data;
	if (shmb_subscriber_release(subscriber, 1) < 0)
		bench_die("cannot release: %s", bench_last_error());
	return value;
}

static double ping(struct bench_workload *work, uint64_t ops)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < ops; i++) {
		publish(work, i);
		sum += look(work);
	}
	bench_check_sum(work, sum, ops);
	return 0;
}

static double pong(struct bench_workload *work, uint64_t ops)
{
	for (uint64_t i = 0; i < ops; i++)
		publish(work, look(work));
	return 0;
}

static const struct bench_driver rtt = { .open = open_both_ways, .run = { ping, pong } };

/* ---- copies ------------------------------------------------------------------------------------ */

struct copies {
	struct bench_ends ends;
	uint8_t *from;
	uint8_t *to;
};

static int open_copies(struct bench_workload *work, unsigned int side)
{
	struct copies *copies;
	struct shmb_channel *channel;
	size_t len = work->size;

	if (side == 1)
		return 0;
	copies = calloc(1, sizeof(*copies));
	work->state = copies;
	if (!copies || !(copies->from = aligned_alloc(4096, len)))
		return bench_skip(work, "no memory");
	memset(copies->from, 1, len);
	copies->to = bench_share(len);
	if (work->flavour == MEMCPY)
		return 0;
	channel = open_blocks(work, "here");
	if (!channel || bench_add_publishers(work, channel, 1) < 0 ||
	    bench_add_subscribers(work, channel, 1, 0) < 0)
		return -1;
	return bench_wait_members(work, channel, 1, 1);
}

static double copy(struct bench_workload *work, uint64_t ops)
{
	struct copies *copies = work->state;
	uint64_t began = bench_now_ns();

	for (uint64_t i = 0; i < ops; i++) {
		memcpy(copies->to, copies->from, work->size);
		/* Somebody may look at it. */
		__asm__ volatile("" : : "r"(copies->to) : "memory");
	}
	return (double)(bench_now_ns() - began);
}

/* Whoever is not measured does not touch the record. */
static double copy_in_or_out(struct bench_workload *work, uint64_t ops)
{
	struct copies *copies = work->state;
	struct shmb_publisher *publisher = copies->ends.publishers[0];
	struct shmb_subscriber *subscriber = copies->ends.subscribers[0];
	int32_t result;
	uint64_t began = bench_now_ns();

	for (uint64_t i = 0; i < ops; i++) {
		if (work->flavour == SEND) {
			result = shmb_publisher_send(publisher, copies->from, work->size);
		} else {
			result = shmb_publisher_loan(publisher, work->size);
			if (result == 0)
				result = shmb_publisher_publish(publisher, work->size);
		}
		if (result == 0 && work->flavour == SEND) {
			result = shmb_subscriber_peek(subscriber, 1);
			if (result == 1)
				result = shmb_subscriber_release(subscriber, 1);
		} else if (result == 0) {
			result = shmb_subscriber_recv(subscriber, copies->to, work->size);
		}
		if (result < 0)
			bench_die("%s: %s", work->name, bench_last_error());
	}
	return (double)(bench_now_ns() - began);
}

static double nothing(struct bench_workload *work, uint64_t ops)
{
	(void)work;
	(void)ops;
	return 0;
}

static const struct bench_driver drivers[] = {
	[MEMCPY] = { .open = open_copies, .run = { copy, nothing } },
	[SEND] = { .open = open_copies, .run = { copy_in_or_out, nothing } },
	[RECEIVE] = { .open = open_copies, .run = { copy_in_or_out, nothing } },
};

static void add_copy(const char *contender, const char *label, enum copy flavour, uint32_t size)
{
	struct bench_workload *work =
		bench_add("copy", NULL, contender, label, &drivers[flavour], size);

	work->place = BENCH_ALONE;
	work->flavour = flavour;
	if (flavour != MEMCPY)
		bench_compare(work, "copy/%u/memcpy", size);
}

void bench_add_block(void)
{
	static const uint32_t sizes[] = { 4096, 65536, MIB, 64 * MIB };
	static const uint32_t copied[] = { MIB, 16 * MIB };

	for (size_t i = 0; i < BENCH_ARRAY_LEN(sizes); i++)
		bench_compare(bench_add("block", NULL, "shmb", "loan, publish, peek, release", &rtt,
					sizes[i]),
			      "block/4096/shmb");
	for (size_t i = 0; i < BENCH_ARRAY_LEN(copied); i++) {
		add_copy("memcpy", "memcpy(3)", MEMCPY, copied[i]);
		add_copy("send", "send, into a block", SEND, copied[i]);
		add_copy("recv", "recv, out of a block", RECEIVE, copied[i]);
	}
}
