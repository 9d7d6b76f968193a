/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a publisher of a queue is killed after any one instruction of giving to another worker what one
 * has left that has gone?
 *
 * The library's own publisher runs in a stepped child. After each instruction the broker, which has heard
 * of both deaths, looks at what is left: each record that was not done is either still the first worker's
 * or the heir's, never both, never nobody's, and no other one is; the heir's are whole. Once the publisher
 * has said that all of it is with others nothing is left of the first.
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
#define WORKER	 7u
#define HEIR	 8u
#define PAIR	 10u
#define N_JOBS	 6u

static struct step_row rows[1] = {
	{ .name = "give anew", .min = { 15000, 0, 220, 0 } },
};

static struct stage {
	_Alignas(4096) uint8_t lane[SHMB_BLOCK_LEN + RING_LEN];
	_Alignas(4096) struct shmb_cursor_segment cursor;
	struct shmb_cursor_lane slot;
	_Alignas(64) struct shmb_cursor_work work; /* of the heir */
	struct shmb_cursor_work left_work; /* of the first worker */
	_Alignas(4096) struct shmb_bell_segment bell;
	struct shmb_publisher publisher;
	struct pub_queue queue;
	struct pub_pair pair;
	struct shmb_worker worker;
	struct pub_sleeper sleeper;
	struct shmb_ticket orphans[4 * SHMB_QUEUE_CREDIT_MAX];
	uint64_t epoch;
	uint8_t fork_guard;
	uint64_t drained;
	uint64_t start;
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
	stage->drained = pair_id;
}

static void run_call(void *context)
{
	(void)context;
	pub_give_all_anew(&stage->publisher);
}

/* ---- before the call --------------------------------------------------------------------------- */

static uint32_t len_of(uint32_t i)
{
	return 8 + i * 56 % 300;
}

static bool is_done(uint32_t i)
{
	return i == 1 || i == 3;
}

/* What the first worker was given, and has not done, are the publisher's to give. */
static void publish(struct shmb_lane_writer *writer)
{
	struct shmb_worker first = { 0 };

	for (uint32_t i = 0; i < N_JOBS; i++) {
		struct shmb_ticket ticket = { .len = len_of(i), .type = i };
		uint8_t *payload = shmb_lane_claim(writer, ticket.len + 16);

		ticket.position = writer->position;
		shmb_worker_address(&first, payload, WORKER, &ticket);
		memset(payload + 16, (int)i + 1, ticket.len);
		shmb_lane_commit(writer, ticket.len + 16, i, 0);
		stage->left_work.marks[i] = (uint64_t)i << SHMB_QUEUE_MARK_NUMBER_SHIFT | 1 |
					    (is_done(i) ? SHMB_QUEUE_MARK_DONE : 0);
	}
	stage->queue.n_orphans = shmb_worker_undone(&first, &stage->left_work, stage->orphans);
	for (uint32_t i = 0; i < stage->queue.n_orphans; i++)
		stage->orphans[i].pair_id = PAIR;
}

static void prepare_stage(uint32_t offset)
{
	struct shmb_publisher *publisher = &stage->publisher;
	struct shmb_lane_writer *writer = &publisher->writer;

	memset(stage, 0, sizeof(*stage));
	stage->fork_guard = 1;
	publisher->member.fork_guard = &stage->fork_guard;
	publisher->member.epoch = &stage->epoch;
	publisher->ext_len = 16;
	publisher->queue = &stage->queue;
	stage->queue.orphans = stage->orphans;
	stage->queue.cap_orphans = SHMB_ARRAY_LEN(stage->orphans);
	shmb_lane_writer_init(writer, (void *)stage->lane, RING_LEN);
	writer->position = stage->start = POSITION + offset;
	writer->sequence = SEQUENCE;
	writer->intent = writer->position + 8;
	writer->record_flags = SHMB_RECORD_EXT;
	*shmb_lane_word(writer->ring, offset) = 0;
	stage->cursor.credit = SHMB_QUEUE_CREDIT_MAX;
	stage->slot = (struct shmb_cursor_lane){ .position = writer->position,
						 .sequence = writer->sequence,
						 .pair_id = PAIR + 1 };
	stage->pair = (struct pub_pair){ .id = PAIR + 1,
					 .peer_id = HEIR,
					 .words = &stage->cursor,
					 .slot = &stage->slot,
					 .bell_words = &stage->bell,
					 .attached = true,
					 .head = writer->position,
					 .work = &stage->work,
					 .worker = &stage->worker };
	stage->sleeper.sleep = &stage->cursor.sleep;
	publisher->pairs = &stage->pair;
	publisher->sleepers = &stage->sleeper;
	publisher->n_pairs = publisher->cap_pairs = 1;
	publish(writer);
	writer->limit = 0;
}

/* ---- after the kill ---------------------------------------------------------------------------- */

static void find_left(struct shmb_left *left, uint64_t worker, const struct shmb_cursor_work *work)
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
	shmb_lane_reader_init(&reader, lane, RING_LEN, stage->start, SEQUENCE);
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

static void judge(bool ended)
{
	static struct shmb_left first, heir;
	uint32_t found[N_JOBS] = { 0 };

	find_left(&first, WORKER, &stage->left_work);
	find_left(&heir, HEIR, &stage->work);
	for (uint32_t i = 0; i < first.n + heir.n; i++) {
		const struct shmb_ticket *ticket =
			i < first.n ? &first.tickets[i] : &heir.tickets[i - first.n];

		if (ticket->type >= N_JOBS || is_done(ticket->type))
			step_fail(&step, "record %u is done, or never was", ticket->type);
		if (ticket->attempts != 1)
			step_fail(&step, "record %u counts %u attempts", ticket->type,
				  ticket->attempts);
		if (!is_whole(ticket))
			step_fail(&step, "record %u is not whole", ticket->type);
		found[ticket->type]++;
	}
	for (uint32_t i = 0; i < N_JOBS; i++)
		if (found[i] != !is_done(i))
			step_fail(&step, "record %u is found %u times", i, found[i]);
	if ((ended || stage->drained) && first.n)
		step_fail(&step, "all is said to be given away, and %u are not", first.n);
	if (ended && stage->drained != PAIR)
		step_fail(&step, "it never says that all is given away");
}

static void step_call(uint32_t offset)
{
	static uint8_t before[sizeof(stage->lane)];
	bool running = true;

	step_begin(&step);
	snprintf(step.scenario, sizeof(step.scenario), "offset %u", offset);
	prepare_stage(offset);
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
		step_call(offset);
	step_kill(&step);
	step_table("kill-giving", rows, 1, quick ? 4 : 1);
	return EXIT_SUCCESS;
}
