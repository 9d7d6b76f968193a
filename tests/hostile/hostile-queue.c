/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A worker of a queue that scribbles into its own marks, and a publisher that scribbles into its own
 * lane, beside honest ones; and one that is both, and leaves what it has scribbled to the broker, which
 * hands on what it finds there. These must never crash and never stay in a call; what the honest publisher
 * sends comes to the honest worker whole and once, or goes to the hostile one; and what comes from the
 * hostile one fits the buffer.
 */

/* The publisher's own struct, to get at its mappings. */
#include "lib/pub-internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/clock.h"
#include "lib/subscriber.h"

#include "tests/hostile/hostile.h"

#define ATTACK_NS 100000000ull
#define N_MAX	  (1u << 24)

static struct shmb_channel *open_queue(struct shmb_client *client)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_QUEUE,
						.lane_len = LANE_LEN };
	struct shmb_channel *channel = NULL;

	must(shmb_channel_open(client, CHANNEL, (uint32_t)strlen(CHANNEL), &options, &channel),
	     "channel");
	return channel;
}

/* ---- the hostile side --------------------------------------------------------------------------- */

static struct shmb_cursor_work *any_work(struct shmb_member *member)
{
	uint32_t max = member->channel->max_publishers;

	/* Of the first publishers more often than of those that are not there. */
	return (void *)((uint8_t *)member->own.base +
			shmb_cursor_work_offset(max, (uint32_t)(random_u64() % 3)));
}

static void forge_marks(struct shmb_member *member)
{
	struct shmb_cursor_work *work = any_work(member);
	uint64_t number = random_u64() % 200;

	SHMB_STORE(&work->marks[random_u64() % SHMB_QUEUE_CREDIT_MAX],
		   number << SHMB_QUEUE_MARK_NUMBER_SHIFT | (random_u64() & 0x1ffff));
}

static void forge_done(struct shmb_member *member)
{
	SHMB_STORE(&any_work(member)->done, random_u64() >> (random_u64() % 64));
}

static void forge_credit(struct shmb_member *member)
{
	SHMB_STORE(&((struct shmb_cursor_segment *)member->own.base)->credit,
		   (uint32_t)random_u64());
}

static void scribble_cursor(struct shmb_member *member)
{
	uint64_t *words = member->own.base;
	uint64_t first = sizeof(struct shmb_segment_header) / 8;

	SHMB_STORE(&words[first + random_u64() % (member->own.len / 8 - first)], random_u64());
}

static void forge_address(struct shmb_member *member)
{
	struct shmb_publisher *publisher = to_publisher(member);
	uint32_t offset = (uint32_t)(random_u64() % (LANE_LEN / 8));
	uint64_t *words = (uint64_t *)(void *)publisher->writer.ring;

	if (publisher->n_pairs)
		SHMB_STORE(&words[offset],
			   publisher->pairs[random_u64() % publisher->n_pairs].peer_id);
}

static void forge_number(struct shmb_member *member)
{
	uint64_t *words = (uint64_t *)(void *)to_publisher(member)->writer.ring;

	SHMB_STORE(&words[random_u64() % (LANE_LEN / 8)],
		   random_u64() % 70 | random_u64() % 3 << 32);
}

static void forge_header(struct shmb_member *member)
{
	uint64_t *words = (uint64_t *)(void *)to_publisher(member)->writer.ring;
	uint64_t sequence = to_publisher(member)->writer.sequence - random_u64() % 8;

	SHMB_STORE(&words[random_u64() % (LANE_LEN / 8)],
		   SHMB_RECORD_VALID | SHMB_RECORD_EXT | random_u64() % 40 |
			   sequence << SHMB_RECORD_SEQ_SHIFT);
}

static void scribble_lane(struct shmb_member *member)
{
	uint64_t *words = (uint64_t *)(void *)to_publisher(member)->writer.ring;

	SHMB_STORE(&words[random_u64() % (LANE_LEN / 8)], random_u64());
}

/* What a broker looks at to find out how far a worker is with the lane of a publisher. */
static void forge_slot(struct shmb_member *member)
{
	uint32_t n_slots = shmb_cursor_slots(SHMB_PATTERN_QUEUE, member->channel->max_publishers);
	struct shmb_cursor_lane *slots = (void *)((uint8_t *)member->own.base + SHMB_BLOCK_LEN);
	struct shmb_cursor_lane *slot = &slots[random_u64() % 4 % n_slots];

	if (random_u64() % 2)
		SHMB_STORE(&slot->position, random_u64() % (4 * LANE_LEN));
	else
		SHMB_STORE(&slot->sequence, random_u64() % 64);
}

static void forge_given(struct shmb_member *member)
{
	const struct shmb_publisher *publisher = to_publisher(member);
	struct shmb_lane_segment *lane = publisher->writer.lane;

	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		SHMB_STORE(&publisher->pairs[i].bell_words->orphaned, random_u64() % 3);
	SHMB_STORE(&lane->given_from, random_u64() % (2 * LANE_LEN));
	SHMB_STORE(&lane->given_to, random_u64() % (2 * LANE_LEN));
	SHMB_STORE(&lane->orphans_from,
		   random_u64() % 4 ? random_u64() % (2 * LANE_LEN) : random_u64());
}

static const struct attack {
	const char *name;
	bool publisher;
	void (*scribble)(struct shmb_member *member); /* NULL: both, with all of these */
} attacks[] = {
	{ "what both leave", true, NULL },
	{ "forged marks", false, forge_marks },
	{ "forged done", false, forge_done },
	{ "forged credit", false, forge_credit },
	{ "scribbled cursor", false, scribble_cursor },
	{ "forged addresses", true, forge_address },
	{ "forged numbers", true, forge_number },
	{ "forged headers", true, forge_header },
	{ "scribbled lane", true, scribble_lane },
};

static char attack_as_worker(struct shmb_channel *channel, const struct attack *attack)
{
	uint64_t end = shmb_clock_now_ns() + ATTACK_NS, record[32];
	struct shmb_subscriber *worker;
	bool evicted = false;

	must(shmb_subscriber_open(channel, NULL, &worker), "worker");
	while (!evicted && shmb_clock_now_ns() < end) {
		int32_t len = shmb_subscriber_take(worker, record, sizeof(record));

		evicted = len == -ESTALE;
		for (uint32_t n = 0; !evicted && n < 16; n++)
			attack->scribble(shmb_subscriber_member(worker));
	}
	shmb_subscriber_close(worker);
	return evicted ? EVIL_EVICTED : EVIL_GAVE_UP;
}

static char attack_as_publisher(struct shmb_channel *channel, const struct attack *attack)
{
	uint64_t end = shmb_clock_now_ns() + ATTACK_NS, record[32] = { UINT64_MAX };
	struct shmb_publisher *publisher;
	bool evicted = false;

	must(shmb_publisher_open(channel, NULL, &publisher), "publisher");
	while (!evicted && shmb_clock_now_ns() < end) {
		int32_t result = shmb_publisher_send(publisher, record,
						     (uint32_t)(random_u64() % sizeof(record)));

		evicted = result == -ESTALE;
		/* Some of it is believed before it is found out. */
		if (!evicted && random_u64() % 2048 == 0)
			attack->scribble(&publisher->member);
	}
	shmb_publisher_close(publisher);
	return evicted ? EVIL_EVICTED : EVIL_GAVE_UP;
}

static void scribble_both(struct shmb_publisher *publisher, struct shmb_subscriber *worker)
{
	static void (*const ways[])(struct shmb_member *) = {
		forge_address, forge_number, forge_header, scribble_lane,   forge_given,
		forge_marks,   forge_done,   forge_slot,   scribble_cursor, forge_slot,
	};

	for (uint64_t n = random_u64() % 12; n > 0; n--) {
		uint64_t way = random_u64() % SHMB_ARRAY_LEN(ways);

		ways[way](way < 5 ? &publisher->member : shmb_subscriber_member(worker));
	}
}

/* A publisher that sends to its own worker, too, and both go. */
static char attack_as_both(struct shmb_channel *channel)
{
	uint64_t end = shmb_clock_now_ns() + 2 * ATTACK_NS, record[32] = { UINT64_MAX };

	while (shmb_clock_now_ns() < end) {
		struct shmb_publisher *publisher = NULL;
		struct shmb_subscriber *worker = NULL;

		must(shmb_subscriber_open(channel, NULL, &worker), "worker");
		if (shmb_publisher_open(channel, NULL, &publisher) == 0) {
			for (uint64_t n = random_u64() % 80; n > 0; n--)
				shmb_publisher_send(publisher, record,
						    (uint32_t)(random_u64() % sizeof(record)));
			for (uint64_t n = random_u64() % 20; n > 0; n--)
				shmb_subscriber_take(worker, record, sizeof(record));
			scribble_both(publisher, worker);
		}
		shmb_publisher_close(publisher);
		shmb_subscriber_close(worker);
	}
	return EVIL_GAVE_UP;
}

static char attack(const char *address, uint32_t number)
{
	struct shmb_client *client = connect_client(address);
	struct shmb_channel *channel = open_queue(client);
	const struct attack *chosen = &attacks[number];
	char result = !chosen->scribble	  ? attack_as_both(channel)
		      : chosen->publisher ? attack_as_publisher(channel, chosen)
					  : attack_as_worker(channel, chosen);

	shmb_channel_close(channel);
	shmb_client_close(client);
	return result;
}

/* ---- the honest side ---------------------------------------------------------------------------- */

static struct shmb_publisher *honest;
static struct shmb_subscriber *worker;
static uint8_t *taken; /* by number */
static uint64_t n_sent, n_taken, n_evil;

static void send_honest(void)
{
	struct honest record;
	int32_t result;

	fill_honest(&record, n_sent);
	call_begins();
	result = shmb_publisher_send(honest, &record, sizeof(record));
	call_ends("send");
	if (result != -EAGAIN)
		must(result, "send");
	n_sent += result == 0;
	if (n_sent == N_MAX)
		fail("it takes too long");
}

static void judge_record(const struct honest *record, int32_t len)
{
	const struct shmb_view *view = shmb_subscriber_view(worker);

	if (view->publisher_id != shmb_publisher_view(honest)->publisher_id) {
		n_evil++;
		return;
	}
	if (len != sizeof(*record) || record->number >= n_sent ||
	    !is_honest(record, record->number))
		fail("an honest record is torn");
	if (taken[record->number]++)
		fail("honest record %llu comes again", (unsigned long long)record->number);
	n_taken++;
}

static void take_honest(void)
{
	struct {
		struct honest record;
		uint8_t more[LANE_LEN / 8];
		uint64_t fence;
	} room = { .fence = 0x5a5a5a5a };
	int32_t len;

	call_begins();
	len = shmb_subscriber_take(worker, &room, offsetof(__typeof__(room), fence));
	call_ends("take");
	if (room.fence != 0x5a5a5a5a)
		fail("more was copied than there is room for");
	if (len == -EAGAIN || len == -EBADMSG)
		return;
	must(len, "take");
	judge_record(&room.record, len);
	call_begins();
	len = shmb_subscriber_done(worker, shmb_subscriber_view(worker)->term);
	call_ends("done");
	/* Its publisher may have been thrown out for good. */
	if (len != -ENOENT)
		must(len, "done");
}

static void withstand(struct honest_side *side, uint32_t number)
{
	uint64_t before = n_taken;
	char result = 0;

	now_testing(attacks[number].name);
	evil_attack(shmb_broker_address(side->broker), number);
	while (!result) {
		for (int i = 0; i < 4; i++)
			send_honest();
		for (int i = 0; i < 8; i++)
			take_honest();
		call_begins();
		shmb_publisher_wait_done(honest, 0);
		call_ends("wait_done");
		result = evil_result();
	}
	/* What the hostile one has left comes back, and the queue is as good as before. */
	for (int i = 0; shmb_publisher_wait_done(honest, 1000000) < 0; i++) {
		take_honest();
		if (i == 20000)
			fail("it is never done");
	}
	if (n_taken == before)
		fail("the honest worker got nothing");
}

int main(void)
{
	struct honest_side side = { 0 };

	taken = calloc(1, N_MAX);
	if (!taken)
		return EXIT_FAILURE;
	honest_begin(&side, attack, open_queue, false);
	honest = side.publisher;
	worker = side.subscribers[0];
	honest_withstand(&side, SHMB_ARRAY_LEN(attacks), withstand);
	honest_end(&side);
	free(taken);
	printf("hostile-queue: %llu honest records, %llu done here, %llu hostile ones, %llu calls, none "
	       "of them late\n",
	       (unsigned long long)n_sent, (unsigned long long)n_taken, (unsigned long long)n_evil,
	       (unsigned long long)n_calls());
	return EXIT_SUCCESS;
}
