/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A subscriber that attaches like any other and then scribbles into its own cursor. The honest
 * publisher must never overwrite what the honest subscriber has not read, never crash or stay in a
 * call, and get on at once where the liar has been thrown out.
 */

#include <shmbroker/ring.h>

/* The subscriber's own struct, to get at its mappings. */
#include "lib/sub-internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/clock.h"

#include "tests/hostile/hostile.h"

#define ATTACK_NS 150000000ull

/* ---- the hostile subscriber --------------------------------------------------------------------- */

static void lie(struct shmb_subscriber *subscriber, uint64_t position)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i]->attached)
			SHMB_STORE_RELEASE(&subscriber->lanes[i]->slot->position, position);
}

static uint64_t true_position(const struct shmb_subscriber *subscriber)
{
	return subscriber->n_lanes ? subscriber->lanes[0]->reader.position : 0;
}

static void beyond(struct shmb_subscriber *subscriber)
{
	lie(subscriber, true_position(subscriber) + (1ull << 40));
}

static void far_beyond(struct shmb_subscriber *subscriber)
{
	lie(subscriber, UINT64_MAX & ~7ull);
}

static void backwards(struct shmb_subscriber *subscriber)
{
	lie(subscriber, 0);
}

static void unaligned(struct shmb_subscriber *subscriber)
{
	lie(subscriber, true_position(subscriber) + 3);
}

static void random_position(struct shmb_subscriber *subscriber)
{
	lie(subscriber, random_u64());
}

static void toggle_sleep(struct shmb_subscriber *subscriber)
{
	SHMB_STORE(&subscriber->cursor->sleep, (uint32_t)random_u64());
}

/* Neither asleep by futex nor by fd, in ever new epochs: each publish looks at it. */
static void sleep_for_ever(struct shmb_subscriber *subscriber)
{
	SHMB_STORE(&subscriber->cursor->sleep, ++subscriber->sleep_epoch << 2 | 3);
}

static void forge_pair(struct shmb_subscriber *subscriber)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		SHMB_STORE(&subscriber->lanes[i]->slot->pair_id, random_u64());
}

static void scribble_header(struct shmb_subscriber *subscriber)
{
	uint64_t *words = (uint64_t *)(void *)subscriber->cursor;

	SHMB_STORE(&words[random_u64() % (sizeof(struct shmb_segment_header) / 8)], random_u64());
}

static void scribble_all(struct shmb_subscriber *subscriber)
{
	uint64_t *words = (uint64_t *)(void *)subscriber->cursor;

	SHMB_STORE(&words[random_u64() % (subscriber->member.own.len / 8)], random_u64());
	random_position(subscriber);
}

/* As if it held all that it can name. */
static void scribble_holds(struct shmb_subscriber *subscriber)
{
	struct shmb_cursor_hold *hold = &subscriber->cursor->holds[random_u64() % SHMB_HOLDS_MAX];
	uint32_t page = (uint32_t)(random_u64() % 1024);

	SHMB_STORE(&hold->block, random_u64() & 1 ? random_u64() : shmb_hold_name(0, 0, page));
}

/* Reads nothing at all: reliable, so it may hold the publisher up, and is no liar. */
static void idle(struct shmb_subscriber *subscriber)
{
	(void)subscriber;
}

static const struct attack {
	const char *name;
	void (*scribble)(struct shmb_subscriber *subscriber);
	bool is_crime;
} attacks[] = {
	{ "position beyond", beyond, true },
	{ "position far beyond", far_beyond, true },
	{ "position backwards", backwards, true },
	{ "position unaligned", unaligned, true },
	{ "random position", random_position, true },
	{ "toggled sleep word", toggle_sleep, false },
	{ "never-ending sleep", sleep_for_ever, false },
	{ "forged pair", forge_pair, false },
	{ "scribbled segment header", scribble_header, false },
	{ "scribbled holds", scribble_holds, false },
	{ "reads nothing", idle, false },
	{ "everything scribbled", scribble_all, true },
};

static uint32_t running; /* of attacks */

static void scribble(void *subscriber)
{
	attacks[running].scribble(subscriber);
}

static char attack(const char *address, uint32_t number)
{
	struct shmb_client *client = connect_client(address);
	struct shmb_channel *channel = open_channel(client);
	uint64_t for_ns = (attacks[number].is_crime ? 20 : 1) * ATTACK_NS;
	uint64_t end = shmb_clock_now_ns() + for_ns;
	struct shmb_subscriber *subscriber;
	uint8_t data[LANE_LEN];
	uint32_t received = 0;
	char result;

	running = number;
	must(shmb_subscriber_open(channel, NULL, &subscriber), "subscriber");
	/* Honest at first, until the publisher knows it and has seen it move. */
	while (received < 200 && shmb_clock_now_ns() < end)
		received += shmb_subscriber_recv(subscriber, data, sizeof(data)) >= 0;
	result = evil_scribble(&subscriber->member, scribble, subscriber, for_ns);
	return evil_leave(client, channel, NULL, subscriber, result);
}

/* ---- the honest side --------------------------------------------------------------------------- */

static struct honest_side side;
static uint64_t n_sent, n_received;

/* Reads rarely, so that the publisher's limit is what keeps its records whole. */
static void receive_some(uint32_t n)
{
	struct honest record;
	int32_t result = 0;

	for (; n > 0 && result != -EAGAIN; n--) {
		call_begins();
		result = shmb_subscriber_recv(side.subscribers[0], &record, sizeof(record));
		call_ends("recv");
		if (result == -EAGAIN)
			break;
		must(result, "receive");
		if (result != sizeof(record) || !is_honest(&record, n_received))
			fail("record %llu was overwritten", (unsigned long long)n_received);
		n_received++;
	}
}

static bool send_one(void)
{
	struct honest record;
	int32_t result;

	fill_honest(&record, n_sent);
	call_begins();
	result = n_sent % 2 ? shmb_publisher_send(side.publisher, &record, sizeof(record))
			    : shmb_publisher_send_wait(side.publisher, &record, sizeof(record),
						       100000);
	call_ends("send");
	if (result == -EAGAIN || result == -ETIMEDOUT)
		return false;
	must(result, "send");
	n_sent++;
	return true;
}

static void withstand(struct honest_side *all, uint32_t number)
{
	char result = 0;

	now_testing(attacks[number].name);
	evil_attack(shmb_broker_address(all->broker), number);
	while (!result) {
		if (!send_one() || random_u64() % 40 == 0)
			receive_some((uint32_t)(random_u64() % 60));
		result = evil_result();
	}
	if (attacks[number].is_crime && result != EVIL_EVICTED)
		fail("it was not thrown out");
	if (!attacks[number].is_crime && result == EVIL_EVICTED && attacks[number].scribble == idle)
		fail("an idle subscriber was thrown out");
	/* More than once round the lane: as soon as the broker says so, nobody is in the way. */
	for (uint32_t i = 0; i < 2 * LANE_LEN / sizeof(struct honest); i++) {
		receive_some(8);
		must(shmb_publisher_wait(side.publisher, sizeof(struct honest), 1000000000),
		     "room");
		if (!send_one())
			fail("the publisher is still held up");
	}
	receive_some(UINT32_MAX);
	if (n_received != n_sent)
		fail("%llu of %llu records came", (unsigned long long)n_received,
		     (unsigned long long)n_sent);
}

int main(void)
{
	honest_begin(&side, attack, open_channel, false);
	honest_withstand(&side, SHMB_ARRAY_LEN(attacks), withstand);
	honest_end(&side);
	printf("hostile-cursor: %llu records, %llu calls, none of them late\n",
	       (unsigned long long)n_sent, (unsigned long long)n_calls());
	return EXIT_SUCCESS;
}
