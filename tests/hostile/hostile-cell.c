/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A publisher of a state channel that claims a key like any other and then scribbles into its own cells,
 * while honest subscribers read. They must never crash, never stay in a call, and read every value of
 * the honest publisher's key; what is read of the hostile one's fits the buffer. The broker inherits
 * what it leaves, and then the key works for an honest successor.
 */

#include <shmbroker/cell.h>

/* The publisher's own struct, to get at its mappings. */
#include "lib/pub-internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/hostile/hostile.h"

#define ATTACK_NS 100000000ull
#define N_KEYS	  4u
#define VALUE_LEN sizeof(struct honest)

static struct shmb_channel *open_state(struct shmb_client *client)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_STATE,
						.max_keys = N_KEYS,
						.value_len = VALUE_LEN };
	struct shmb_channel *channel = NULL;

	must(shmb_channel_open(client, CHANNEL, (uint32_t)strlen(CHANNEL), &options, &channel),
	     "channel");
	return channel;
}

/* ---- the hostile publisher ---------------------------------------------------------------------- */

static struct shmb_cell_slot *slot_of(struct shmb_publisher *publisher, uint32_t key, uint32_t slot)
{
	uint32_t cell_len = shmb_channel_cell_len(publisher->member.channel);
	uint8_t *cells = (uint8_t *)publisher->member.own.base + SHMB_BLOCK_LEN;

	return (void *)(cells + key * cell_len + slot * (cell_len / 2));
}

static struct shmb_cell_slot *any_slot(struct shmb_publisher *publisher)
{
	return slot_of(publisher, (uint32_t)(random_u64() % N_KEYS), (uint32_t)random_u64() & 1);
}

static void random_bytes(struct shmb_publisher *publisher)
{
	uint64_t *words = (uint64_t *)(void *)publisher->writer.lane;

	SHMB_STORE(&words[SHMB_BLOCK_LEN / 8 +
			  random_u64() % (publisher->member.channel->lane_len / 8)],
		   random_u64());
}

static void forge_length(struct shmb_publisher *publisher)
{
	struct shmb_cell_slot *slot = any_slot(publisher);

	SHMB_STORE(&slot->len, (uint32_t)random_u64());
	SHMB_STORE(&slot->version, random_u64() % 8 + 1);
}

/* The length changes while it is looked at. */
static void toggle_length(struct shmb_publisher *publisher)
{
	struct shmb_cell_slot *slot = any_slot(publisher);

	SHMB_STORE(&slot->version, 9);
	SHMB_STORE(&slot->len, 8);
	SHMB_STORE(&slot->len, UINT32_MAX);
	SHMB_STORE(&slot->len, SHMB_CELL_NO_VALUE);
}

/* Nobody can go on counting from there. */
static void forge_version(struct shmb_publisher *publisher)
{
	struct shmb_cell_slot *slot = any_slot(publisher);

	SHMB_STORE(&slot->len, 8);
	SHMB_STORE(&slot->version, UINT64_MAX - random_u64() % 4);
}

/* Never done: each try of a reader is in vain. */
static void run_on(struct shmb_publisher *publisher)
{
	for (uint32_t i = 0; i < 100; i++)
		SHMB_STORE(&slot_of(publisher, i % N_KEYS, i & 1)->version, random_u64());
}

static void scribble_hints(struct shmb_publisher *publisher)
{
	struct shmb_lane_segment *lane = publisher->writer.lane;

	SHMB_STORE(&lane->position_hint, random_u64());
	SHMB_STORE(&lane->sequence_hint, random_u64());
	SHMB_STORE(&lane->space_wait, (uint32_t)random_u64());
}

static void scribble_all(struct shmb_publisher *publisher)
{
	uint64_t *words = (uint64_t *)(void *)publisher->writer.lane;
	uint64_t len = SHMB_BLOCK_LEN + publisher->member.channel->lane_len;

	SHMB_STORE(&words[random_u64() % (len / 8)], random_u64());
	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		struct shmb_bell_segment *bell = publisher->pairs[i].bell_words;

		SHMB_STORE(&bell->start_position, random_u64());
		SHMB_STORE(&bell->attached, (uint32_t)random_u64() & 1);
		SHMB_STORE(&bell->wake, (uint32_t)random_u64());
	}
}

static const struct attack {
	const char *name;
	void (*scribble)(struct shmb_publisher *publisher);
} attacks[] = {
	{ "random bytes", random_bytes },	  { "forged length", forge_length },
	{ "toggled length", toggle_length },	  { "forged version", forge_version },
	{ "versions that run on", run_on },	  { "scribbled hints", scribble_hints },
	{ "everything scribbled", scribble_all },
};

static uint32_t running; /* of attacks */

static void scribble(void *publisher)
{
	attacks[running].scribble(publisher);
}

static char attack(const char *address, uint32_t number)
{
	struct shmb_client *client = connect_client(address);
	struct shmb_channel *channel = open_state(client);
	struct shmb_publisher *publisher;
	uint64_t value = 1;
	int32_t key;
	char result;

	running = number;
	must(shmb_publisher_open(channel, NULL, &publisher), "publisher");
	key = must(shmb_publisher_claim(publisher, "evil", 4), "claim");
	must(shmb_publisher_put(publisher, (uint32_t)key, &value, sizeof(value)), "put");
	result = evil_scribble(&publisher->member, scribble, publisher, ATTACK_NS);
	/* What it has left is inherited. */
	return evil_leave(client, channel, publisher, NULL, result);
}

/* ---- the honest side --------------------------------------------------------------------------- */

static struct shmb_subscriber *reader;
static uint32_t honest_key;
static uint64_t n_evil; /* values of the hostile one that were read, or refused */

static void get_honest(uint64_t number)
{
	struct honest value;
	int32_t len;

	call_begins();
	len = shmb_subscriber_get(reader, honest_key, &value, sizeof(value));
	call_ends("get");
	must(len, "get");
	if (len != sizeof(value) || !is_honest(&value, number))
		fail("the honest value %llu is wrong", (unsigned long long)number);
}

static void get_evil(void)
{
	int32_t key = shmb_subscriber_find(reader, "evil", 4), len;
	struct {
		uint8_t bytes[VALUE_LEN];
		uint64_t fence;
	} value = { .fence = 0x5a5a5a5a };

	if (key < 0)
		return;
	call_begins();
	len = shmb_subscriber_get(reader, (uint32_t)key, &value, random_u64() % (VALUE_LEN + 1));
	call_ends("get of the hostile key");
	if (value.fence != 0x5a5a5a5a || len > (int32_t)VALUE_LEN)
		fail("more was copied than there is room for");
	if (len < 0 && len != -EAGAIN && len != -EBADMSG && len != -ENODATA && len != -EMSGSIZE)
		must(len, "get of the hostile key");
	n_evil++;
}

static void look_at_all(void)
{
	_Alignas(8) static uint8_t bytes[N_KEYS * (sizeof(struct shmb_state_value) + 64) + 8];
	struct shmb_state_value head;
	uint8_t *at = bytes;
	int32_t n;

	call_begins();
	n = shmb_subscriber_snapshot(reader, bytes, sizeof(bytes) - 8);
	call_ends("snapshot");
	for (int32_t i = 0; i < n; i++) {
		memcpy(&head, at, sizeof(head));
		if (head.len > VALUE_LEN || head.key >= N_KEYS)
			fail("value %u of key %u in a snapshot", head.len, head.key);
		at += sizeof(head) + ((head.len + 7) & ~7u);
	}
	if (at > bytes + sizeof(bytes) - 8)
		fail("a snapshot that does not fit");
	for (uint32_t i = 0; i < N_KEYS; i++) {
		call_begins();
		shmb_subscriber_next(reader);
		call_ends("next");
	}
	call_begins();
	shmb_subscriber_wait_key(reader, honest_key, 1);
	call_ends("wait");
}

static void put_honest(struct shmb_publisher *publisher, uint32_t key, uint64_t number)
{
	struct honest value;

	fill_honest(&value, number);
	call_begins();
	must(shmb_publisher_put(publisher, key, &value, sizeof(value)), "put");
	call_ends("put");
}

/* The key of the hostile one is as good as any other when it has gone. */
static void succeed(struct shmb_publisher *honest, uint64_t number)
{
	uint32_t key = (uint32_t)must(shmb_publisher_claim(honest, "evil", 4), "claim");
	struct honest value;

	for (uint64_t i = 0; i < 10; i++) {
		put_honest(honest, key, number + i);
		if (must(shmb_subscriber_get(reader, key, &value, sizeof(value)), "get") !=
			    sizeof(value) ||
		    !is_honest(&value, number + i))
			fail("a successor's value is wrong");
	}
	must(shmb_publisher_disclaim(honest, key), "disclaim");
	if (must(shmb_subscriber_get(reader, key, &value, sizeof(value)), "get") != sizeof(value) ||
	    !is_honest(&value, number + 9))
		fail("a successor's value is not inherited");
}

static uint64_t n_sent;

static void withstand(struct honest_side *side, uint32_t number)
{
	char result = 0;

	now_testing(attacks[number].name);
	evil_attack(shmb_broker_address(side->broker), number);
	while (!result) {
		put_honest(side->publisher, honest_key, ++n_sent);
		get_honest(n_sent);
		get_evil();
		if (n_sent % 8 == 0)
			look_at_all();
		result = evil_result();
	}
	if (result == EVIL_GAVE_UP)
		succeed(side->publisher, n_sent);
}

int main(void)
{
	struct honest_side side = { 0 };

	honest_begin(&side, attack, open_state, false);
	reader = side.subscribers[0];
	honest_key = (uint32_t)must(shmb_publisher_claim(side.publisher, "honest", 6), "claim");
	put_honest(side.publisher, honest_key, 0);
	honest_withstand(&side, SHMB_ARRAY_LEN(attacks), withstand);
	honest_end(&side);
	printf("hostile-cell: %llu honest values, %llu looks at hostile ones, %llu calls, none of "
	       "them late\n",
	       (unsigned long long)n_sent, (unsigned long long)n_evil,
	       (unsigned long long)n_calls());
	return EXIT_SUCCESS;
}
