/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The words beside a lane under the model checker: lib/bell.h itself, with a futex. Nobody sleeps
 * while there is something for him, whenever the other side is killed, and both sides agree where a
 * subscriber begins. What is mirrored here are the loops around those lines: sleep_futex() and
 * sub_attach_lane() of the subscriber, pub_ring_sleepers(), pub_read_head() and sleep_until() of the
 * publisher. The bounded sleep behind which the product hides a lost wake-up is left out.
 */

#define MODEL_N_MARKS 4u

#include "tests/model/model.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

#define PAIR_ID	  7u
#define N_RECORDS 2u
#define ROUNDS	  8 /* of a loop that ends by itself */

enum {
	PUBLISHER,
	SUBSCRIBER,
	BROKER
};

/* By the publisher for the subscriber, the other way round, and by the broker. */
static struct shmb_bell_segment bell, space_bell, broker_bell;
static const uint8_t lens[] = { 8 };
static uint64_t begin_position, begin_sequence;
static uint64_t head;
static unsigned int n_records;
static uint32_t rung, space_rung;
static bool attached;

/* ---- publisher --------------------------------------------------------------------------------- */

static void ring_sleeper(void)
{
	uint32_t sleep;

	shmb_bell_published();
	if (!shmb_bell_due(&cursor.segment.sleep, rung, &sleep))
		return;
	rung = sleep;
	shmb_bell_bump(&bell);
	dfs_futex_wake(&bell.wake);
}

static void publish(void)
{
	for (unsigned int i = 0; i < n_records; i++) {
		uint8_t *payload = model_claim();

		if (!payload)
			return;
		model_commit(payload, 0);
		ring_sleeper();
	}
}

static void read_head(void)
{
	uint64_t position;

	if (!shmb_cursor_started(&cursor.slot, PAIR_ID))
		return;
	position = shmb_cursor_position(&cursor.slot);
	if (!shmb_cursor_is_ours(&cursor.slot, PAIR_ID))
		dfs_fail("the publisher takes its own slot for somebody else's");
	if (position < head || position > writer.position || position & 7)
		dfs_fail("the publisher accuses an honest subscriber");
	head = position;
}

static void start_and_publish(void)
{
	shmb_bell_start(&bell, writer.position, writer.sequence);
	head = writer.position;
	model_limit(head);
	for (int tries = 0; tries < 4; tries++) {
		uint8_t *payload = model_claim();

		if (payload) {
			model_commit(payload, 0);
			continue;
		}
		read_head();
		model_limit(head);
	}
}

/* Thrown out, and its slot is being given to another pair. */
static void heed_the_slot(void)
{
	for (int i = 0; i < 2; i++) {
		uint64_t position = shmb_cursor_position(&cursor.slot);

		if (shmb_cursor_is_ours(&cursor.slot, PAIR_ID) && position != head)
			dfs_fail("a publisher takes another's position for its own");
	}
}

static bool fits(void)
{
	model_limit(shmb_cursor_position(&cursor.slot));
	return writer.position + shmb_record_span(model_len(writer.sequence)) <= writer.limit;
}

static void wait_for_space(void)
{
	for (uint32_t epoch = 1; epoch < ROUNDS && !fits(); epoch++) {
		/* A doorbell remembers: what was rung since we last slept wakes at once. */
		uint32_t wake = SHMB_LOAD(&space_bell.wake);

		shmb_bell_announce(&lane.segment.space_wait, epoch << 2 | SHMB_SLEEP_FUTEX);
		if (!fits())
			dfs_futex_wait(&(struct dfs_wait){ &space_bell.wake, wake }, 1);
		SHMB_STORE(&lane.segment.space_wait, epoch << 2 | SHMB_SLEEP_AWAKE);
	}
}

/* ---- subscriber -------------------------------------------------------------------------------- */

static void ring_publisher(void)
{
	uint32_t sleep;

	if (!shmb_bell_due(&lane.segment.space_wait, space_rung, &sleep))
		return;
	space_rung = sleep;
	shmb_bell_bump(&space_bell);
	dfs_futex_wake(&space_bell.wake);
}

static bool ready(void)
{
	struct shmb_record record;

	return shmb_lane_peek(&reader, &record) != 0;
}

/* As shmb_subscriber_wait() between two receives. */
static void sleep_once(uint32_t epoch, uint32_t seen_wake)
{
	struct dfs_wait waits[] = { { &broker_bell.wake, seen_wake }, { &bell.wake, 0 } };

	waits[1].value = SHMB_LOAD(&bell.wake);
	shmb_bell_announce(&cursor.segment.sleep, epoch << 2 | SHMB_SLEEP_FUTEX);
	ring_publisher();
	if (!ready())
		dfs_futex_wait(waits, N(waits));
	SHMB_STORE(&cursor.segment.sleep, epoch << 2 | SHMB_SLEEP_AWAKE);
}

static void receive_and_sleep(void)
{
	for (uint32_t epoch = 1; epoch < ROUNDS; epoch++) {
		/* R: as shmb_member_sync() does, with nothing on the socket. */
		uint32_t seen_wake = SHMB_LOAD_ACQUIRE(&broker_bell.wake);

		while (model_receive())
			ring_publisher();
		if (reader.sequence >= begin_sequence + n_records)
			return;
		sleep_once(epoch, seen_wake);
	}
}

/* As sub_attach_lane(). */
static bool attach(void)
{
	uint64_t position, sequence;

	if (!shmb_bell_started(&bell, &position, &sequence))
		return false;
	if (position != begin_position || sequence != begin_sequence)
		dfs_fail("the subscriber begins elsewhere than the publisher thinks");
	shmb_lane_reader_init(&reader, &lane.segment, RING_LEN, position, sequence);
	shmb_cursor_vacate(&cursor.slot);
	SHMB_STORE(&cursor.slot.position, position);
	shmb_cursor_start(&cursor.slot, PAIR_ID);
	attached = true;
	return true;
}

static void give_the_slot_away(void)
{
	shmb_cursor_vacate(&cursor.slot);
	SHMB_STORE(&cursor.slot.position, head + 8);
	shmb_cursor_start(&cursor.slot, PAIR_ID + 1);
	shmb_cursor_store(&cursor.slot, head + 16, 1);
}

static void attach_and_receive(void)
{
	for (int tries = 0; tries < 3; tries++)
		if (attached || attach())
			model_receive();
}

/* ---- broker ------------------------------------------------------------------------------------ */

/* As bell_ring() for the peers of a client that has died. */
static void ring_for_the_dead(void)
{
	dfs_await_death();
	SHMB_STORE_RELEASE(&broker_bell.wake, SHMB_LOAD(&broker_bell.wake) + 1);
	dfs_futex_wake(&broker_bell.wake);
}

/* ---- scenarios --------------------------------------------------------------------------------- */

static void begin(unsigned int n_before)
{
	model_begin(lens, N(lens));
	dfs_ignore(&lane.segment.position_hint);
	dfs_ignore(&lane.segment.sequence_hint);
	dfs_ignore(&lane.segment.intent);
	dfs_ignore(&cursor.slot.sequence);
	for (unsigned int i = 0; i < MODEL_N_MARKS; i++) {
		dfs_ignore(&lane.segment.marks[i].position);
		dfs_ignore(&lane.segment.marks[i].sequence);
	}
	for (unsigned int i = 0; i < n_before; i++) {
		model_commit(model_claim(), 0);
		model_receive();
	}
	begin_position = writer.position;
	begin_sequence = writer.sequence;
	rung = space_rung = 0;
	n_records = N_RECORDS;
	attached = false;
}

static void set_up_bell(void)
{
	begin(0);
}

/* The slot has been somebody else's, who was elsewhere. */
static void set_up_start(void)
{
	begin(5);
	SHMB_STORE(&cursor.slot.pair_id, PAIR_ID - 1);
	SHMB_STORE(&cursor.slot.position, 16);
}

static void set_up_slot(void)
{
	begin(5);
	head = 16;
	SHMB_STORE(&cursor.slot.position, head);
	SHMB_STORE(&cursor.slot.pair_id, PAIR_ID);
}

static void check_nothing(void)
{
}

static void set_up_full(void)
{
	begin(2);
	model_limit(reader.position);
	for (unsigned int i = 0; i < 3; i++)
		model_commit(model_claim(), 0);
	n_records = 4; /* one more than there are, so that it sleeps */
}

static void check_awake(void)
{
	if (dfs_asleep(SUBSCRIBER) && ready())
		dfs_fail("a lost wake-up: the subscriber sleeps, and there is a record");
	if (dfs_asleep(PUBLISHER) && fits())
		dfs_fail("a lost wake-up: the publisher sleeps, and there is room");
}

static void check_started(void)
{
	read_head();
	if (!attached && !dfs_killed(PUBLISHER) && !attach())
		dfs_fail("the start is not there");
	if (!attached)
		return;
	while (model_receive())
		continue;
	if (reader.sequence != n_certain && reader.sequence != n_perhaps)
		dfs_fail("not everything since the start arrived");
}

static const struct dfs_scenario scenarios[] = {
	{ "bell",
	  set_up_bell,
	  { publish, receive_and_sleep },
	  check_awake,
	  0,
	  5,
	  2,
	  { 730000, 13000 } },
	{ "bell, the ringer killed",
	  set_up_bell,
	  { publish, receive_and_sleep, ring_for_the_dead },
	  check_awake,
	  1u << PUBLISHER,
	  4,
	  2,
	  { 15000000, 100000 } },
	{ "start",
	  set_up_start,
	  { start_and_publish, attach_and_receive },
	  check_started,
	  1u << PUBLISHER | 1u << SUBSCRIBER,
	  4,
	  2,
	  { 360000, 13000 } },
	{ "slot",
	  set_up_slot,
	  { heed_the_slot, give_the_slot_away },
	  check_nothing,
	  0,
	  5,
	  2,
	  { 1100, 450 } },
	{ "space",
	  set_up_full,
	  { wait_for_space, receive_and_sleep },
	  check_awake,
	  0,
	  5,
	  2,
	  { 560000, 20000 } },
};

int main(int argc, char **argv)
{
	dfs_share(&lane, sizeof(lane));
	dfs_share(&cursor, sizeof(cursor));
	dfs_share(&bell, SHMB_BLOCK_LEN / 8);
	dfs_share(&space_bell, SHMB_BLOCK_LEN / 8);
	dfs_share(&broker_bell, SHMB_BLOCK_LEN / 8);
	return dfs_main(argc, argv, scenarios, N(scenarios));
}
