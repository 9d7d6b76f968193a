/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a publisher of a queue is killed after any one instruction of hearing that a worker has gone,
 * and giving to another one what it has left? In one scenario the records are so long that the last one is
 * written over the place where that worker stood; in the other one a second worker goes afterwards, and
 * leaves a record that lies between those of the first.
 *
 * The library's own publisher runs in a stepped child. After each instruction the broker, which has heard
 * of both deaths, looks at what is left: each record that was not done is either still the first worker's
 * or the heir's, never both, never nobody's, and no other one is; the heir's are whole. Once the publisher
 * has said that all of it is with others nothing is left of those that have gone.
 *
 * Built with -DSHMB_MUTATE_*, the publisher has a mistake in it, and this test must fail.
 */

#include "tests/kill/mutate.h"

#include <shmbroker/ring.h>

struct shmb_member;

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason);
static int learn(struct shmb_member *member);
static void note_drained(struct shmb_member *member, uint64_t pair_id);
#define shmb_member_report     accuse
#define shmb_member_enter_slow learn
#define shmb_member_drained    note_drained

#include "lib/queue.c"

#undef SLOT

#include "tests/publisher-files.h"

#include <stdio.h>
#include <sys/mman.h>

#include "tests/kill/step.h"

#define RING_LEN 4096u
#define POSITION (64ull * RING_LEN)
#define SEQUENCE 0x2fffdull
#define HEIR	 8u
#define PAIR	 10u /* and the next one */
#define N_LEFT	 2u
#define N_JOBS	 7u
#define OF_NEXT	 4u /* the job of the second worker */

static struct step_row rows[1] = {
	{ .name = "give anew", .min = { 50000, 0, 780, 0 } },
};

static struct stage {
	_Alignas(4096) uint8_t lane[SHMB_BLOCK_LEN + RING_LEN];
	_Alignas(4096) struct shmb_cursor_segment cursor;
	struct shmb_cursor_lane slot;
	_Alignas(64) struct shmb_cursor_work work; /* of the heir */
	_Alignas(4096) struct shmb_bell_segment bell;
	struct shmb_publisher publisher;
	struct pub_queue queue;
	struct pub_pair pair;
	struct shmb_worker worker;
	struct left {
		_Alignas(4096) struct shmb_bell_segment bell;
		struct shmb_cursor_work work;
		struct shmb_cursor_lane slot;
		struct pub_pair pair;
		struct shmb_worker worker;
		bool drained;
	} left[N_LEFT];
	uint32_t n_left;
	struct pub_sleeper sleeper;
	struct shmb_ticket orphans[4 * SHMB_QUEUE_CREDIT_MAX];
	uint64_t epoch;
	uint8_t fork_guard;
	uint64_t heir_start;
	uint64_t heir_sequence;
} * stage;

static struct step step;

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason)
{
	(void)member;
	(void)pair_id;
	(void)reason;
	step_fail(&step, "an honest worker is accused");
}

static int learn(struct shmb_member *member)
{
	(void)member;
	return 0;
}

static void note_drained(struct shmb_member *member, uint64_t pair_id)
{
	(void)member;
	stage->left[pair_id - PAIR].drained = true;
}

static void run_call(void *context)
{
	(void)context;
	for (uint32_t i = 0; i < stage->n_left; i++) {
		pub_orphan(&stage->publisher, &stage->left[i].pair, PAIR + i);
		pub_give_all_anew(&stage->publisher);
	}
}

/* ---- before the call --------------------------------------------------------------------------- */

static bool is_done(uint32_t i)
{
	return i == 1 || i == 3;
}

static uint32_t len_of(uint32_t i)
{
	if (is_done(i) || i == OF_NEXT)
		return 40;
	return stage->n_left == 1 ? 200 + 80 * i : 200 + 40 * i;
}

static uint64_t worker_of(const struct left *left)
{
	return HEIR + 1 + (uint64_t)(left - stage->left);
}

static void publish(struct shmb_lane_writer *writer)
{
	for (uint32_t i = 0; i < N_JOBS; i++) {
		struct left *left = &stage->left[stage->n_left > 1 && i == OF_NEXT];
		struct shmb_ticket ticket = { .len = len_of(i), .type = i };
		uint8_t *payload = shmb_lane_claim(writer, ticket.len + 16);
		uint64_t number = left->worker.sent;

		ticket.position = writer->position;
		if (!number)
			left->slot = (struct shmb_cursor_lane){ .position = writer->position,
								.sequence = writer->sequence };
		shmb_worker_address(&left->worker, payload, worker_of(left), &ticket);
		memset(payload + 16, (int)i + 1, ticket.len);
		shmb_lane_commit(writer, ticket.len + 16, i, 0);
		left->work.marks[number] = number << SHMB_QUEUE_MARK_NUMBER_SHIFT | 1 |
					   (is_done(i) ? SHMB_QUEUE_MARK_DONE : 0);
	}
}

/* Those that have gone are where their first record is, the heir is not behind its publisher. */
static void prepare_pairs(const struct shmb_lane_writer *writer)
{
	stage->cursor.credit = SHMB_QUEUE_CREDIT_MAX;
	for (uint32_t i = 0; i < stage->n_left; i++) {
		struct left *left = &stage->left[i];

		left->slot.pair_id = PAIR + i;
		left->pair = (struct pub_pair){ .id = PAIR + i,
						.peer_id = worker_of(left),
						.slot = &left->slot,
						.bell_words = &left->bell,
						.attached = true,
						.head = left->slot.position,
						.work = &left->work,
						.worker = &left->worker };
	}
	stage->slot = (struct shmb_cursor_lane){ .position = stage->heir_start,
						 .sequence = stage->heir_sequence,
						 .pair_id = PAIR + N_LEFT };
	stage->pair = (struct pub_pair){ .id = PAIR + N_LEFT,
					 .peer_id = HEIR,
					 .words = &stage->cursor,
					 .slot = &stage->slot,
					 .bell_words = &stage->bell,
					 .attached = true,
					 .head = writer->position,
					 .work = &stage->work,
					 .worker = &stage->worker };
}

static void prepare_stage(uint32_t offset, uint32_t n_left)
{
	struct shmb_publisher *publisher = &stage->publisher;
	struct shmb_lane_writer *writer = &publisher->writer;

	memset(stage, 0, sizeof(*stage));
	stage->n_left = n_left;
	stage->fork_guard = 1;
	publisher->member.fork_guard = &stage->fork_guard;
	publisher->member.epoch = &stage->epoch;
	publisher->ext_len = 16;
	publisher->queue = &stage->queue;
	stage->queue.orphans = stage->orphans;
	stage->queue.cap_orphans = SHMB_ARRAY_LEN(stage->orphans);
	shmb_lane_writer_init(writer, (void *)stage->lane, RING_LEN);
	writer->position = POSITION + offset;
	writer->sequence = SEQUENCE;
	writer->intent = writer->position + 8;
	writer->record_flags = SHMB_RECORD_EXT;
	*shmb_lane_word(writer->ring, offset) = 0;
	stage->sleeper.sleep = &stage->cursor.sleep;
	publisher->pairs = &stage->pair;
	publisher->sleepers = &stage->sleeper;
	publisher->n_pairs = publisher->cap_pairs = 1;
	publish(writer);
	stage->heir_start = writer->position;
	stage->heir_sequence = writer->sequence;
	prepare_pairs(writer);
	writer->limit = 0;
}

/* ---- after the kill ---------------------------------------------------------------------------- */

/* Where those of a worker are: as the broker's keep_marks(). Returns whether there may be any. */
static bool skip_to_orphans(const struct left *left, struct shmb_lane_mark *at)
{
	const struct shmb_lane_segment *lane = (const void *)stage->lane;
	uint64_t header;

	if (!left->bell.orphaned || lane->orphans_from <= at->position)
		return true;
	if (lane->orphans_from == SHMB_NO_ORPHANS)
		return false;
	memcpy(&header, stage->lane + SHMB_BLOCK_LEN + lane->orphans_from % RING_LEN,
	       sizeof(header));
	*at = (struct shmb_lane_mark){ lane->orphans_from, header >> SHMB_RECORD_SEQ_SHIFT };
	return true;
}

static void find_left(struct shmb_left *left, uint64_t worker, const struct shmb_cursor_work *work,
		      const struct shmb_lane_mark *at)
{
	const struct shmb_lane_segment *lane = (const void *)stage->lane;
	struct shmb_lane_reader reader;
	struct shmb_record record;
	int result;

	memset(left, 0, sizeof(*left));
	left->worker = worker;
	left->work = *work;
	left->given_from = lane->given_from;
	left->given_to = lane->given_to;
	shmb_lane_reader_init(&reader, lane, RING_LEN, at->position, at->sequence);
	reader.record_flags = (uint32_t)SHMB_RECORD_EXT;
	while ((result = shmb_lane_peek(&reader, &record)) == 1) {
		if (shmb_left_add(left, &record, reader.position) < 0)
			step_fail(&step, "a record that nobody honest has written");
		shmb_lane_skip(&reader, &record);
	}
	if (result < 0)
		step_fail(&step, "the lane is corrupt");
}

static bool is_whole(const struct shmb_ticket *ticket)
{
	const uint8_t *payload =
		stage->lane + SHMB_BLOCK_LEN + ticket->position % RING_LEN + 8 + 16;

	for (uint32_t i = 0; i < ticket->len; i++)
		if (payload[i] != ticket->type + 1)
			return false;
	return ticket->len == len_of(ticket->type);
}

static void count(const struct shmb_left *left, uint32_t *found)
{
	for (uint32_t i = 0; i < left->n; i++) {
		const struct shmb_ticket *ticket = &left->tickets[i];

		if (ticket->type >= N_JOBS || is_done(ticket->type))
			step_fail(&step, "record %u is done, or never was", ticket->type);
		if (ticket->attempts != 1)
			step_fail(&step, "record %u counts %u attempts", ticket->type,
				  ticket->attempts);
		if (!is_whole(ticket))
			step_fail(&step, "record %u is not whole", ticket->type);
		found[ticket->type]++;
	}
}

static void judge(bool ended)
{
	struct shmb_lane_mark at = { stage->heir_start, stage->heir_sequence };
	uint32_t found[N_JOBS] = { 0 };
	static struct shmb_left found_left;

	find_left(&found_left, HEIR, &stage->work, &at);
	count(&found_left, found);
	for (uint32_t i = 0; i < stage->n_left; i++) {
		const struct left *left = &stage->left[i];

		at = (struct shmb_lane_mark){ left->slot.position, left->slot.sequence };
		if (ended && !left->drained)
			step_fail(&step, "it never says that all is given away");
		if (!skip_to_orphans(left, &at))
			continue;
		find_left(&found_left, worker_of(left), &left->work, &at);
		count(&found_left, found);
		if (left->drained && found_left.n)
			step_fail(&step, "all is said to be given away, and %u are not",
				  found_left.n);
	}
	for (uint32_t i = 0; i < N_JOBS; i++)
		if (found[i] != !is_done(i))
			step_fail(&step, "record %u is found %u times", i, found[i]);
}

static void step_call(uint32_t offset, uint32_t n_left)
{
	static uint8_t before[sizeof(stage->lane)];
	bool running = true;

	step_begin(&step);
	snprintf(step.scenario, sizeof(step.scenario), "offset %u, %u gone", offset, n_left);
	prepare_stage(offset, n_left);
	judge(false);
	while (running) {
		if (rows[0].n[STEP_SNAPSHOT] % 64 == 0 && !STEP_SANITIZED) {
			step_kill_pid(&step, step_fork(&step));
			rows[0].n[STEP_KILL]++;
		}
		memcpy(before, stage->lane, sizeof(before));
		running = step_next(&step);
		rows[0].n[STEP_SNAPSHOT]++;
		if (memcmp(before, stage->lane, sizeof(before)))
			judge(false);
	}
	judge(true);
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);

	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (stage == MAP_FAILED)
		return EXIT_FAILURE;
	step_start(&step, run_call, NULL);
	for (uint32_t offset = 0; offset < RING_LEN; offset += quick ? 8 * 256 : 8 * 64)
		for (uint32_t n_left = 1; n_left <= N_LEFT; n_left++)
			step_call(offset, n_left);
	step_kill(&step);
	step_table("kill-giving", rows, 1, quick ? 4 : 1);
	return EXIT_SUCCESS;
}
