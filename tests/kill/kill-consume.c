/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a subscriber is killed, or thrown out, after any one instruction of a receive?
 *
 * The library's own subscriber runs in a stepped child; the only shared bytes it writes are its
 * cursor's. After each instruction that changed them the rest of the story is played on a copy: the
 * publisher believes the cursor and fills its ring up to that limit; then whoever takes over from
 * the cursor's position still finds every record that the dead process had not had in its hands,
 * whole and in order.
 *
 * A part of the processes is really killed. Another part is thrown out, or evicted by publishers that
 * have waited for it long enough: they go on and overwrite what it had not received, then it goes on. It
 * changes nothing but its own cursor, and what it hands to its application is whole all the same. One
 * that was evicted also knows exactly what it has lost.
 *
 * Built with -DSHMB_MUTATE_*, the subscriber has a mistake in it, and this test must fail.
 */

#include "tests/kill/mutate.h"

#include "lib/copy.h"

#ifdef SHMB_MUTATE_ACK
/* The last payload of a call is copied when the publisher has been told that it may go. */
static void *late_to;
static const void *late_from;
static uint32_t late_len;
#define shmb_copy(to, from, len) (late_to = (to), late_from = (from), late_len = (len))
#endif

struct shmb_member;

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason);
static void hear(struct shmb_member *member);
static int learn(struct shmb_member *member);
#define shmb_member_report     accuse
#define shmb_member_sync       hear
#define shmb_member_enter_slow learn

#include <stdlib.h>

#include "lib/map.h"

/* The lanes are on the stage. */
#define free(pointer)	     ((void)(pointer))
#define shmb_map_deinit(map) ((void)(map))

#include "tests/subscriber-files.h"

#undef free

#include <stdio.h>
#include <sys/mman.h>

#include "tests/kill/step.h"

#define RING_LEN  4096u
#define LANE_LEN  (SHMB_BLOCK_LEN + RING_LEN)
#define POSITION  (64ull * RING_LEN)
#define SEQUENCE  0x2fffdull
#define N_LANES	  2u
#define N_BEFORE  6u /* records of each lane before the call */
#define N_RECORDS 600u
#define OUT_LEN	  (2 * RING_LEN)

/* Bytes between the offsets that have them; all others have snapshots only. */
#define ZOMBIE_STRIDE 128u
#define KILL_STRIDE   256u
#define QUICK_DIVISOR 45u

enum op {
	OP_RECV,
	OP_RECV_MANY,
	OP_RELEASE_ALL,
	OP_RELEASE_ONE,
	OP_KEEP,
	OP_SLEEP,
	N_OPS
};

static struct step_row rows[N_OPS] = {
	[OP_RECV] = { .name = "recv", .min = { 54000, 0, 3000, 8500 } },
	[OP_RECV_MANY] = { .name = "recv_many", .min = { 500000, 0, 31000, 66000 } },
	[OP_RELEASE_ALL] = { .name = "peek, release", .min = { 100000, 0, 5800, 14000 } },
	[OP_RELEASE_ONE] = { .name = "peek, release one of them",
			     .min = { 100000, 0, 5800, 14000 } },
	[OP_KEEP] = { .name = "peek, release none", .min = { 90000, 0, 5200, 13000 } },
	[OP_SLEEP] = { .name = "announce a sleep, wake", .min = { 50000, 0, 2900, 8000 } },
};

struct stage {
	_Alignas(4096) uint8_t lanes[N_LANES][LANE_LEN];
	_Alignas(4096) struct shmb_cursor_segment cursor;
	struct shmb_cursor_lane slots[N_LANES];
	_Alignas(4096) struct shmb_bell_segment bells[N_LANES];
	struct shmb_subscriber subscriber;
	struct sub_lane sub_lanes[N_LANES];
	struct sub_lane *sub_lane_array[N_LANES];
	struct shmb_channel channel;
	uint64_t epoch;
	uint8_t fork_guard;
	enum op op;
	bool evictable;
	bool looked; /* the application has seen what it peeked at */
	bool accused;
	int32_t result;
	uint32_t lens[16];
	uint8_t out[OUT_LEN];
};

static struct stage *stage;
static struct step step;
static struct {
	uint64_t from, to; /* a pad may lie between the two */
} positions[N_LANES][N_RECORDS];
static struct shmb_lane_writer writers[N_LANES];
static uint64_t n_states;

static const uint32_t lens_before[2][N_BEFORE] = { { 56, 56, 8, 0, 700, 24 },
						   { 0, 900, 100, 100, 8, 64 } };

/* ---- records ----------------------------------------------------------------------------------- */

static uint32_t len_of(uint32_t lane, uint64_t index)
{
	return index < N_BEFORE ? lens_before[lane][index] : (uint32_t)(index * 24 % 200);
}

static uint8_t byte_of(uint32_t lane, uint64_t index, uint32_t i)
{
	uint64_t mixed = (2 * index + lane + 1) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)((mixed >> (8 * (i & 7))) + (i >> 3));
}

static bool is_whole(const uint8_t *data, uint32_t lane, uint64_t index)
{
	for (uint32_t i = 0; i < len_of(lane, index); i++)
		if (data[i] != byte_of(lane, index, i))
			return false;
	return true;
}

static bool publish(struct shmb_lane_writer *writer, uint32_t lane)
{
	uint64_t index = writer->sequence - SEQUENCE;
	uint64_t from = writer->position;
	uint8_t *payload = shmb_lane_claim(writer, len_of(lane, index));

	if (!payload || index >= N_RECORDS)
		return false;
	for (uint32_t i = 0; i < len_of(lane, index); i++)
		payload[i] = byte_of(lane, index, i);
	positions[lane][index].from = from;
	positions[lane][index].to = writer->position;
	shmb_lane_commit(writer, len_of(lane, index), 0, 0);
	return true;
}

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason)
{
	(void)member;
	(void)pair_id;
	(void)reason;
	stage->accused = true;
}

/* There is no broker here that could say so. */
static void hear(struct shmb_member *member)
{
	member->evicted |= SHMB_LOAD(member->epoch) != 0;
	member->seen_epoch = SHMB_LOAD(member->epoch);
}

static int learn(struct shmb_member *member)
{
	hear(member);
	return member->evicted ? -ESTALE : 0;
}

/* ---- the child --------------------------------------------------------------------------------- */

static void look_and_release(struct shmb_subscriber *subscriber)
{
	int32_t found = shmb_subscriber_peek(subscriber, 4);
	const uint8_t *data = (const uint8_t *)(uintptr_t)subscriber->view.data;
	uint32_t n = (uint32_t)found;

	if (found < 0) {
		stage->result = found;
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		memcpy(stage->out + i * subscriber->view.len, data + i * subscriber->view.stride,
		       subscriber->view.len);
	stage->looked = true;
	if (stage->op == OP_RELEASE_ONE)
		n = 1;
	else if (stage->op == OP_KEEP)
		n = 0;
	stage->result = shmb_subscriber_release(subscriber, n);
	if (stage->result == 0)
		stage->result = (int32_t)n;
}

static void run_call(void *context)
{
	struct shmb_subscriber *subscriber = &stage->subscriber;

	(void)context;
	switch (stage->op) {
	case OP_RECV:
		stage->result = shmb_subscriber_recv(subscriber, stage->out, OUT_LEN);
		break;
	case OP_RECV_MANY:
		stage->result =
			shmb_subscriber_recv_many(subscriber, stage->out, OUT_LEN, stage->lens, 16);
		break;
	case OP_RELEASE_ALL:
	case OP_RELEASE_ONE:
	case OP_KEEP:
		look_and_release(subscriber);
		break;
	case OP_SLEEP:
		stage->result = arm(subscriber, SHMB_SLEEP_FUTEX);
		shmb_subscriber_disarm(subscriber);
		break;
	case N_OPS:
		break;
	}
#ifdef SHMB_MUTATE_ACK
	if (late_to)
		memcpy(late_to, late_from, late_len);
	late_to = NULL;
#endif
}

/* ---- before the call --------------------------------------------------------------------------- */

static void prepare_lane(uint32_t lane, uint32_t offset, bool attached)
{
	struct shmb_lane_segment *words = (struct shmb_lane_segment *)(void *)stage->lanes[lane];
	struct shmb_lane_writer *writer = &writers[lane];
	struct sub_lane *sub_lane = &stage->sub_lanes[lane];

	shmb_lane_writer_init(writer, words, RING_LEN);
	writer->position = POSITION + offset;
	writer->sequence = SEQUENCE;
	writer->intent = writer->position + 8;
	words->intent = writer->intent;
	for (uint32_t i = 0; i < RING_LEN; i += 8)
		*shmb_lane_word(writer->ring, i) =
			SHMB_RECORD_VALID | 8 | (SEQUENCE + i % 64) << SHMB_RECORD_SEQ_SHIFT;
	*shmb_lane_word(writer->ring, offset) = 0;
	stage->bells[lane].start_position = writer->position;
	stage->bells[lane].start_sequence = SEQUENCE;
	stage->bells[lane].attached = 1;
	sub_lane->pair_id = 10 + lane;
	sub_lane->publisher_id = 20 + lane;
	sub_lane->lane.base = words;
	sub_lane->bell_words = &stage->bells[lane];
	sub_lane->watched = stage->evictable;
	sub_lane->slot = &stage->slots[lane];
	stage->sub_lane_array[lane] = sub_lane;
	/* Left behind by whoever had the slot before. */
	stage->slots[lane] = (struct shmb_cursor_lane){ .position = 8, .pair_id = 3 };
	if (attached)
		sub_attach_lane(&stage->subscriber, sub_lane);
	for (uint32_t i = 0; i < N_BEFORE; i++)
		if (!publish(writer, lane))
			step_fail(&step, "the ring cannot be prepared");
}

static void prepare_stage(uint32_t offset, enum op op, bool attached, bool evictable)
{
	struct shmb_subscriber *subscriber = &stage->subscriber;

	memset(stage, 0, sizeof(*stage));
	memset(stage->out, 0xee, sizeof(stage->out));
	stage->fork_guard = 1;
	stage->op = op;
	stage->evictable = evictable;
	stage->channel.lane_len = RING_LEN;
	subscriber->member.fork_guard = &stage->fork_guard;
	subscriber->member.epoch = &stage->epoch;
	subscriber->member.channel = &stage->channel;
	subscriber->cursor = &stage->cursor;
	subscriber->lanes = stage->sub_lane_array;
	subscriber->n_lanes = N_LANES;
	set_hot(subscriber);
	for (uint32_t lane = 0; lane < N_LANES; lane++)
		prepare_lane(lane, (offset + 1000 * lane) % RING_LEN, attached);
}

/* ---- after the kill ---------------------------------------------------------------------------- */

/* How many records the cursor gives up; its position must be where a record begins. */
static uint64_t index_of(uint32_t lane, uint64_t position)
{
	if (position == writers[lane].position)
		return N_BEFORE;
	for (uint64_t i = 0; i < N_BEFORE; i++)
		if (position == positions[lane][i].from || position == positions[lane][i].to)
			return i;
	step_fail(&step, "lane %u: %llu is no record", lane, (unsigned long long)position);
}

/* The records that the cursor gives up are in the application's hands already. */
static const uint8_t *check_handed_over(const uint8_t *out, uint32_t lane, uint64_t n)
{
	if (n && stage->op >= OP_RELEASE_ALL && !stage->looked)
		step_fail(&step, "lane %u: released before the application has looked", lane);
	for (uint64_t i = 0; i < n; i++) {
		if (!is_whole(out, lane, i))
			step_fail(&step, "lane %u: record %llu is given up, not received", lane,
				  (unsigned long long)i);
		out += len_of(lane, i);
	}
	return out;
}

/* The publisher fills its ring on the copy; then a successor reads from where the cursor is. */
static void play_on(const uint8_t *left, uint32_t lane, uint64_t position, uint64_t index)
{
	static _Alignas(4096) uint8_t copy[LANE_LEN];
	struct shmb_lane_segment *words = (struct shmb_lane_segment *)(void *)copy;
	struct shmb_lane_writer writer = writers[lane];
	struct shmb_lane_reader reader;
	struct shmb_record record;

	memcpy(copy, left, LANE_LEN);
	writer.lane = words;
	writer.ring = copy + SHMB_BLOCK_LEN;
	writer.limit = position + RING_LEN - 8;
	while (publish(&writer, lane))
		;
	shmb_lane_reader_init(&reader, words, RING_LEN, position, SEQUENCE + index);
	while (shmb_lane_peek(&reader, &record) == 1) {
		if (!is_whole(record.data, lane, reader.sequence - SEQUENCE))
			step_fail(&step, "lane %u: record %llu was overwritten", lane,
				  (unsigned long long)reader.sequence);
		shmb_lane_skip(&reader, &record);
	}
	if (reader.sequence != writer.sequence)
		step_fail(&step, "lane %u: %llu of %llu records are left", lane,
			  (unsigned long long)(reader.sequence - SEQUENCE),
			  (unsigned long long)(writer.sequence - SEQUENCE));
}

/* Returns how many records the cursors give up. */
static uint64_t judge(void)
{
	const uint8_t *out = stage->out;
	uint64_t n = 0;

	n_states++;
	for (uint32_t lane = 0; lane < N_LANES; lane++) {
		const struct shmb_cursor_lane *slot = &stage->slots[lane];
		uint64_t position = stage->bells[lane].start_position;
		uint64_t index = 0;

		/* Until the slot is ours the publisher goes by the start position. */
		if (slot->pair_id == 10 + lane) {
			position = slot->position;
			index = index_of(lane, position);
		}
		out = check_handed_over(out, lane, index);
		play_on(stage->lanes[lane], lane, position, index);
		n += index;
	}
	return n;
}

static void check_end(void)
{
	static const int32_t wanted[N_OPS] = {
		[OP_RECV] = 56,	      [OP_RECV_MANY] = 12, [OP_RELEASE_ALL] = 2,
		[OP_RELEASE_ONE] = 1, [OP_KEEP] = 0,	   [OP_SLEEP] = 1
	};
	static const uint64_t gone[N_OPS] = {
		[OP_RECV] = 1, [OP_RECV_MANY] = 12, [OP_RELEASE_ALL] = 2, [OP_RELEASE_ONE] = 1
	};
	bool pad = stage->op == OP_RELEASE_ALL && stage->result == 1;

	/* The pad may come between the first two records, which are then not side by side. */
	if (stage->result != wanted[stage->op] && !pad)
		step_fail(&step, "the call returned %d", stage->result);
	if (judge() != gone[stage->op] - pad)
		step_fail(&step, "the publishers are not told what was received");
	if ((stage->cursor.sleep & SHMB_SLEEP_MODE_MASK) != SHMB_SLEEP_AWAKE)
		step_fail(&step, "it is awake and says that it sleeps");
}

/* ---- the zombie -------------------------------------------------------------------------------- */

/* It is thrown out, or evicted, and the publishers go on without regard to it. */
static void publish_on(uint32_t n, bool evict)
{
	for (uint32_t lane = 0; lane < N_LANES; lane++) {
		if (evict)
			shmb_bell_evict(&stage->bells[lane]);
		writers[lane].limit = UINT64_MAX;
		/* At first a few records, then many rounds of the ring. */
		for (uint32_t i = 0; i < n && publish(&writers[lane], lane); i++)
			;
	}
	if (!evict)
		stage->epoch++;
}

/* Which records did it get? Those of each lane in order, and whole. */
static void check_got(void)
{
	uint32_t next[N_LANES] = { 0 }, lane = (uint32_t)(stage->subscriber.view.publisher_id - 20);
	int32_t n = stage->op == OP_RECV ? stage->result >= 0 : stage->result;
	const uint8_t *out = stage->out;

	if (stage->op == OP_SLEEP)
		return;
	for (int32_t i = 0; i < n; i++) {
		uint32_t len = stage->op == OP_RECV	   ? (uint32_t)stage->result
			       : stage->op == OP_RECV_MANY ? stage->lens[i]
							   : stage->subscriber.view.len;

		/* The next of this lane, or the first of the other one. */
		if (len != len_of(lane, next[lane]) || !is_whole(out, lane, next[lane]))
			lane = !lane;
		if (len != len_of(lane, next[lane]) || !is_whole(out, lane, next[lane]))
			step_fail(&step, "a zombie hands on a torn record, %d of %d", i, n);
		next[lane]++;
		out += len;
	}
}

static void check_zombie(const uint8_t *theirs)
{
	if (memcmp(theirs, stage->lanes, sizeof(stage->lanes)) ||
	    memcmp(theirs + offsetof(struct stage, bells), stage->bells, sizeof(stage->bells)))
		step_fail(&step, "a zombie has changed what is not its own");
	if (stage->accused)
		step_fail(&step, "a zombie accuses an honest publisher");
}

/* What is left: of one that was thrown out until it is told so, of one that was evicted all. */
static void receive_rest(bool evicted)
{
	struct shmb_subscriber *subscriber = &stage->subscriber;
	int32_t result = 0, last = evicted ? -EAGAIN : -ESTALE;
	uint64_t n_published = 0;

	for (uint32_t i = 0; i <= N_LANES * N_RECORDS + 2 && result != last; i++) {
		result = shmb_subscriber_recv(subscriber, stage->out, OUT_LEN);
		if (result >= 0 &&
		    !is_whole(stage->out, (uint32_t)subscriber->view.publisher_id - 20,
			      subscriber->view.sequence - SEQUENCE))
			step_fail(&step, "a zombie receives a torn record");
	}
	if (result != last)
		step_fail(&step, "it never learns that it was %s: %d",
			  evicted ? "evicted" : "thrown out", result);
	if (!evicted)
		return;
	for (uint32_t lane = 0; lane < N_LANES; lane++) {
		n_published += writers[lane].sequence - SEQUENCE;
		if (!stage->sub_lanes[lane].lossy)
			step_fail(&step, "lane %u: it does not know that it was evicted", lane);
	}
	if (subscriber->received + subscriber->lost != n_published)
		step_fail(&step, "%llu received and %llu lost, of %llu",
			  (unsigned long long)subscriber->received,
			  (unsigned long long)subscriber->lost, (unsigned long long)n_published);
}

static void play_zombie(bool evict)
{
	static const uint32_t some[] = { 3, 40, 70, 200, 590 };
	static struct step_state *state;
	static struct stage before, theirs;
	static uint32_t turn;
	struct shmb_lane_writer kept[N_LANES];

	state = step_save(&step, state);
	memcpy(&before, stage, sizeof(before));
	memcpy(kept, writers, sizeof(kept));
	publish_on(some[turn++ % SHMB_ARRAY_LEN(some)], evict);
	memcpy(&theirs, stage, sizeof(theirs));
	step_finish(&step);
	check_got();
	check_zombie((const uint8_t *)&theirs);
	receive_rest(evict);
	check_zombie((const uint8_t *)&theirs);
	memcpy(writers, kept, sizeof(kept));
	memcpy(stage, &before, sizeof(before));
	step_restore(&step, state);
}

static void step_call(uint32_t offset, enum op op, bool attached, bool evictable)
{
	static uint8_t before[sizeof(stage->slots)];
	uint64_t *n = rows[op].n;
	bool running = true;

	step_begin(&step);
	snprintf(step.scenario, sizeof(step.scenario), "offset %u, call %d, %s%s", offset, (int)op,
		 attached ? "attached" : "fresh", evictable ? ", evictable" : "");
	prepare_stage(offset, op, attached, evictable);
	judge();
	while (running) {
		if (offset % ZOMBIE_STRIDE < 16 && !STEP_SANITIZED) {
			play_zombie(false);
			n[STEP_ZOMBIE]++;
			if (evictable)
				play_zombie(true);
			n[STEP_ZOMBIE] += evictable;
		}
		if (offset % KILL_STRIDE / 16 == 3 && !STEP_SANITIZED) {
			step_kill_pid(&step, step_fork(&step));
			n[STEP_KILL]++;
		}
		memcpy(before, stage->slots, sizeof(before));
		running = step_next(&step);
		n[STEP_SNAPSHOT]++;
		if (memcmp(before, stage->slots, sizeof(before)))
			judge();
	}
	check_end();
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);

	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (stage == MAP_FAILED)
		return EXIT_FAILURE;
	step_start(&step, run_call, NULL);
	for (uint32_t offset = 0; offset < RING_LEN; offset += quick ? 8 * 35 : 8)
		for (uint32_t op = offset / 8 % 2; op < N_OPS; op += 2)
			step_call(offset, (enum op)op, offset / 16 % 4 != 0,
				  (offset / 128 + op / 2) % 2 == 0);
	step_kill(&step);
	printf("kill-consume: %llu states judged\n", (unsigned long long)n_states);
	step_table("kill-consume", rows, N_OPS, quick ? QUICK_DIVISOR : 1);
	return EXIT_SUCCESS;
}
