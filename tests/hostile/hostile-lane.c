/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A publisher that attaches like any other and then scribbles into its own lane and bells, while
 * honest subscribers read. They must never crash, never stay in a call, and go on to receive every
 * record of the honest publisher; who breaks the layout is reported once and thrown out.
 */

#include <shmbroker/ring.h>

/* The publisher's own struct, to get at its mappings. */
#include "lib/pub-internal.h"

#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/copy.h"

#include "tests/hostile/hostile.h"

#define ATTACK_NS 150000000ull
#define N_READERS 3

/* ---- the hostile publisher ---------------------------------------------------------------------- */

static uint8_t *ring_of(struct shmb_publisher *publisher)
{
	return publisher->writer.ring;
}

static void put(struct shmb_publisher *publisher, uint64_t offset, uint64_t word)
{
	SHMB_STORE(shmb_lane_word(ring_of(publisher), offset & publisher->writer.mask & ~7ull),
		   word);
}

static uint64_t header_of(const struct shmb_publisher *publisher, uint64_t len)
{
	return SHMB_RECORD_VALID | len | publisher->writer.sequence << SHMB_RECORD_SEQ_SHIFT;
}

static void random_bytes(struct shmb_publisher *publisher)
{
	put(publisher, random_u64() >> 20, random_u64());
}

/* The length changes while it is looked at. */
static void toggle_length(struct shmb_publisher *publisher)
{
	put(publisher, publisher->writer.position, header_of(publisher, 32));
	put(publisher, publisher->writer.position, header_of(publisher, 0x10000));
}

static void forge_length(struct shmb_publisher *publisher)
{
	put(publisher, publisher->writer.position, header_of(publisher, SHMB_RECORD_LEN_MASK));
}

static void forge_sequence(struct shmb_publisher *publisher)
{
	put(publisher, publisher->writer.position, header_of(publisher, 8) ^ 1ull << 63);
}

static void forge_flags(struct shmb_publisher *publisher)
{
	put(publisher, publisher->writer.position,
	    header_of(publisher, 8) | SHMB_RECORD_EXT | SHMB_RECORD_BLOCK);
}

/* From every offset a pad to the end, and at the start one over all of the ring. */
static void pads_everywhere(struct shmb_publisher *publisher)
{
	for (uint64_t offset = 0; offset < LANE_LEN; offset += 8)
		put(publisher, offset,
		    SHMB_RECORD_VALID | SHMB_RECORD_PAD | (LANE_LEN - offset - 8));
}

/* Empty records for ever: no rule is broken, and every call must still end. */
static void flood(struct shmb_publisher *publisher)
{
	for (uint64_t offset = 0; offset < LANE_LEN; offset += 8) {
		put(publisher, publisher->writer.position, header_of(publisher, 0));
		publisher->writer.position += 8;
		publisher->writer.sequence++;
	}
}

/* A record that says that its payload lies in a block. */
static void put_descriptor(struct shmb_publisher *publisher, uint32_t arena, uint32_t page,
			   uint32_t len)
{
	put(publisher, publisher->writer.position + 8, (uint64_t)page << 32 | arena);
	put(publisher, publisher->writer.position + 16, len);
	put(publisher, publisher->writer.position, header_of(publisher, 16) | SHMB_RECORD_BLOCK);
}

static void forge_page(struct shmb_publisher *publisher)
{
	put_descriptor(publisher, 0, (uint32_t)random_u64() | 1u << 20, 1);
}

static void forge_block_len(struct shmb_publisher *publisher)
{
	put_descriptor(publisher, 0, 0, LANE_LEN + 1 + (uint32_t)(random_u64() >> 36));
}

static void forge_arena(struct shmb_publisher *publisher)
{
	put_descriptor(publisher, 1 + (uint32_t)(random_u64() >> 44), 0, 8);
}

/* It changes while it is looked at. */
static void toggle_descriptor(struct shmb_publisher *publisher)
{
	uint64_t at = publisher->writer.position;

	put_descriptor(publisher, 0, 0, 8);
	put(publisher, at + 8, (uint64_t)UINT32_MAX << 32);
	put(publisher, at + 16, UINT32_MAX);
	put(publisher, at + 8, 0);
	put(publisher, at + 16, random_u64() % LANE_LEN);
}

static void toggle_floor(struct shmb_publisher *publisher)
{
	put_descriptor(publisher, 0, 0, 8);
	SHMB_STORE(&publisher->writer.lane->block_floor, UINT64_MAX);
	SHMB_STORE(&publisher->writer.lane->block_floor, random_u64() >> 50);
}

/* Its own words, and those that say whether it is of any use. */
static void scribble_arena(struct shmb_publisher *publisher)
{
	const struct shmb_arena_part *part = publisher->arena->parts;

	put_descriptor(publisher, 0, 0, LANE_LEN);
	for (uint32_t i = 0; part && i < 32; i++)
		SHMB_STORE((uint64_t *)part->map.base + random_u64() % (2 * SHMB_BLOCK_LEN / 8),
			   random_u64() & 1 ? 1 : random_u64());
}

static void scribble_marks(struct shmb_publisher *publisher)
{
	struct shmb_lane_segment *lane = publisher->writer.lane;
	struct shmb_lane_mark *mark = &lane->marks[random_u64() % SHMB_LANE_N_MARKS];
	uint64_t near = publisher->writer.position + random_u64() % (8 * LANE_LEN);

	SHMB_STORE(&mark->position, random_u64() & 1 ? near & ~7ull : random_u64());
	SHMB_STORE(&mark->sequence, random_u64() & 1 ? near / 16 : random_u64());
	SHMB_STORE(&lane->intent, random_u64() & 1 ? near : random_u64());
}

static void toggle_intent(struct shmb_publisher *publisher)
{
	SHMB_STORE(&publisher->writer.lane->intent, UINT64_MAX);
	SHMB_STORE(&publisher->writer.lane->intent, 0);
}

static void scribble_hints(struct shmb_publisher *publisher)
{
	struct shmb_lane_segment *lane = publisher->writer.lane;

	SHMB_STORE(&lane->position_hint, random_u64());
	SHMB_STORE(&lane->sequence_hint, random_u64());
	SHMB_STORE(&lane->dropped, random_u64());
	SHMB_STORE(&lane->space_wait, (uint32_t)random_u64());
}

static void scribble_header(struct shmb_publisher *publisher)
{
	uint64_t *words = (uint64_t *)(void *)publisher->writer.lane;

	SHMB_STORE(&words[random_u64() % (sizeof(struct shmb_segment_header) / 8)], random_u64());
}

/* Where the subscriber begins, whether it is waited for, wake words and doorbells. */
static void scribble_bells(struct shmb_publisher *publisher)
{
	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		struct shmb_bell_segment *bell = publisher->pairs[i].bell_words;

		SHMB_STORE(&bell->start_position, random_u64());
		SHMB_STORE(&bell->start_sequence, random_u64());
		SHMB_STORE(&bell->doorbell_generation, (uint32_t)random_u64());
		SHMB_STORE(&bell->attached, (uint32_t)random_u64() & 1);
		SHMB_STORE(&bell->wake, (uint32_t)random_u64());
		SHMB_STORE(&bell->evicted, (uint32_t)random_u64() & 3);
		syscall(SYS_futex, &bell->wake, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
}

static void scribble_all(struct shmb_publisher *publisher)
{
	uint64_t *words = (uint64_t *)(void *)publisher->writer.lane;

	SHMB_STORE(&words[random_u64() % ((SHMB_BLOCK_LEN + LANE_LEN) / 8)], random_u64());
	scribble_bells(publisher);
}

static const struct attack {
	const char *name;
	void (*scribble)(struct shmb_publisher *publisher);
	bool is_crime; /* it breaks the layout wherever the subscribers are */
	bool needs_blocks;
} attacks[] = {
	{ "random bytes", random_bytes, true, false },
	{ "toggled length", toggle_length, false, false },
	{ "forged length", forge_length, true, false },
	{ "forged sequence", forge_sequence, true, false },
	{ "forged flags", forge_flags, true, false },
	{ "pads everywhere", pads_everywhere, true, false },
	{ "flood of empty records", flood, false, false },
	{ "forged page of a block", forge_page, true, true },
	{ "forged length of a block", forge_block_len, true, true },
	{ "forged arena", forge_arena, false, true },
	{ "toggled descriptor", toggle_descriptor, false, true },
	{ "toggled floor", toggle_floor, false, true },
	{ "scribbled arena", scribble_arena, false, true },
	{ "scribbled marks", scribble_marks, false, false },
	{ "toggled intent", toggle_intent, false, false },
	{ "scribbled hints", scribble_hints, false, false },
	{ "scribbled segment header", scribble_header, false, false },
	{ "scribbled bells", scribble_bells, false, false },
	{ "everything scribbled", scribble_all, true, false },
};

/* Of streams without blocks a subscriber may be evicted. */
static struct shmb_channel *open_plain(struct shmb_client *client)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN };
	struct shmb_channel *channel;

	must(shmb_channel_open(client, CHANNEL, (uint32_t)strlen(CHANNEL), &options, &channel),
	     "channel");
	return channel;
}

static bool has_blocks; /* the channel */
static uint32_t running; /* of attacks */

static void scribble(void *publisher)
{
	attacks[running].scribble(publisher);
}

static char attack(const char *address, uint32_t number)
{
	struct shmb_client *client = connect_client(address);
	struct shmb_channel *channel = has_blocks ? open_channel(client) : open_plain(client);
	struct shmb_publisher *publisher;
	char result;

	running = number;
	must(shmb_publisher_open(channel, NULL, &publisher), "publisher");
	for (uint32_t i = 0; i < 100; i++)
		shmb_publisher_send(publisher, &i, sizeof(i));
	if (has_blocks) {
		must(shmb_publisher_loan(publisher, LANE_LEN), "an arena");
		must(shmb_publisher_publish(publisher, LANE_LEN), "a long record");
	}
	result = evil_scribble(&publisher->member, scribble, publisher,
			       (attacks[number].is_crime ? 20 : 1) * ATTACK_NS);
	return evil_leave(client, channel, publisher, NULL, result);
}

/* ---- the honest side --------------------------------------------------------------------------- */

/**
 * struct reader - an honest subscriber
 * @subscriber: its handle
 * @honest_id:	of the publisher that is to be trusted
 * @n_honest:	records it has had from it
 * @n_accused:	times it was told of a publisher that broke the layout
 */
struct reader {
	struct shmb_subscriber *subscriber;
	uint64_t honest_id;
	uint64_t n_honest;
	uint32_t n_accused;
};

static void take_record(struct reader *reader, const void *data, uint32_t len)
{
	struct honest record;

	if (shmb_subscriber_view(reader->subscriber)->publisher_id != reader->honest_id)
		return;
	if (len != sizeof(record))
		fail("an honest record has %u bytes", len);
	memcpy(&record, data, sizeof(record));
	if (!is_honest(&record, reader->n_honest))
		fail("honest record %llu is wrong", (unsigned long long)reader->n_honest);
	reader->n_honest++;
}

static int32_t receive(struct reader *reader)
{
	static uint8_t data[LANE_LEN];
	int32_t result;

	call_begins();
	result = shmb_subscriber_recv(reader->subscriber, data, sizeof(data));
	call_ends("recv");
	if (result >= 0)
		take_record(reader, data, (uint32_t)result);
	return result;
}

/* All bytes that the view names are touched. */
static int32_t look(struct reader *reader)
{
	const struct shmb_view *view = shmb_subscriber_view(reader->subscriber);
	static uint8_t data[4 * LANE_LEN];
	int32_t n, result;

	call_begins();
	n = shmb_subscriber_peek(reader->subscriber, 8);
	if (n > 0 && (uint64_t)view->stride * view->count > LANE_LEN)
		fail("%u records of %u bytes in a lane of %u", view->count, view->stride, LANE_LEN);
	for (int32_t i = 0; i < n; i++)
		shmb_copy(data + (uint32_t)i * view->len,
			  (const uint8_t *)(uintptr_t)view->data + (uint32_t)i * view->stride,
			  view->len);
	result = n > 0 ? shmb_subscriber_release(reader->subscriber, (uint32_t)n) : n;
	call_ends("peek and release");
	for (int32_t i = 0; result == 0 && i < n; i++)
		take_record(reader, data + (uint32_t)i * view->len, view->len);
	return result == -ESTALE ? 0 : result;
}

static int32_t receive_many(struct reader *reader)
{
	struct shmb_subscriber_stats stats;
	static uint8_t data[4 * LANE_LEN];
	int32_t n;

	call_begins();
	/* One record: the view describes the first one only. */
	n = shmb_subscriber_recv_many(reader->subscriber, data, sizeof(data), NULL, 1);
	call_ends("recv_many");
	if (n == 1)
		take_record(reader, data, shmb_subscriber_view(reader->subscriber)->len);
	call_begins();
	shmb_subscriber_stats(reader->subscriber, &stats, sizeof(stats));
	call_ends("stats");
	return n;
}

/* Takes what is there, with all the calls there are, for a bounded number of calls. */
static void drain(struct reader *reader)
{
	int32_t result = 0;

	for (uint32_t i = 0; i < 200 && result != -EAGAIN; i++) {
		switch (random_u64() % 3) {
		case 0:
			result = receive(reader);
			break;
		case 1:
			result = look(reader);
			break;
		default:
			result = receive_many(reader);
			break;
		}
		if (result == -EBADMSG)
			reader->n_accused++;
		else if (result != -EAGAIN && result != -ENOBUFS)
			must(result, "receive");
	}
}

/* Has it read all, and forgotten the attacker? */
static bool is_done(const struct reader *reader, uint64_t n_sent)
{
	struct shmb_subscriber_stats stats = { 0 };

	must(shmb_subscriber_stats(reader->subscriber, &stats, sizeof(stats)), "stats");
	return reader->n_honest == n_sent && stats.n_publishers == 1;
}

static struct reader readers[N_READERS];
static uint32_t n_readers, n_attackers;
static uint64_t n_sent;

/* Until it has been thrown out or has given up; the honest go on all the time. */
static void withstand(struct honest_side *side, uint32_t number)
{
	struct honest record;
	char result = 0;

	if (attacks[number].needs_blocks && !has_blocks)
		return;

	now_testing(attacks[number].name);
	n_attackers++;
	evil_attack(shmb_broker_address(side->broker), number);
	while (!result) {
		fill_honest(&record, n_sent);
		call_begins();
		if (shmb_publisher_send(side->publisher, &record, sizeof(record)) == 0)
			n_sent++;
		call_ends("send");
		for (int i = 0; i < (int)n_readers; i++)
			drain(&readers[i]);
		result = evil_result();
	}
	for (int i = 0; i < (int)n_readers; i++)
		for (uint32_t k = 0; k < 10000 && !is_done(&readers[i], n_sent); k++)
			drain(&readers[i]);
	for (int i = 0; i < (int)n_readers; i++)
		if (readers[i].n_honest != n_sent)
			fail("honest records are missing");
	/* One may be found out only while the next one is at work. */
	for (int i = 0; i < (int)n_readers; i++)
		if (readers[i].n_accused > n_attackers)
			fail("%u attackers were reported %u times", n_attackers,
			     readers[i].n_accused);
	if (attacks[number].is_crime && result != EVIL_EVICTED)
		fail("it was not thrown out");
}

static void run(bool blocks)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .evict_after_ms = 60000,
						   .conflate_offset =
							   offsetof(struct honest, number),
						   .conflate_len = sizeof(uint64_t) };
	struct shmb_subscriber *third = NULL;
	struct honest_side side = { 0 };

	has_blocks = blocks;
	n_readers = blocks ? 2 : 3;
	n_attackers = 0;
	n_sent = 0;
	honest_begin(&side, attack, blocks ? open_channel : open_plain, true);
	/*
	 * The honest publisher does not wait so long that it would have to evict the third, and none of
	 * its records has the key of another: only the attacker's supersede each other.
	 */
	if (!blocks)
		must(shmb_subscriber_open(side.channel, &options, &third), "subscriber");
	for (uint32_t i = 0; i < n_readers; i++)
		readers[i] = (struct reader){ .subscriber = i < 2 ? side.subscribers[i] : third,
					      .honest_id = side.publisher->member.id };
	honest_withstand(&side, SHMB_ARRAY_LEN(attacks), withstand);
	must(shmb_subscriber_close(third), "close");
	honest_end(&side);
	printf("hostile-lane, %s: %llu honest records, %llu calls, none of them late; %u and %u "
	       "reports\n",
	       blocks ? "with blocks" : "without", (unsigned long long)n_sent,
	       (unsigned long long)n_calls(), readers[0].n_accused, readers[1].n_accused);
}

int main(void)
{
	run(true);
	run(false);
	return EXIT_SUCCESS;
}
