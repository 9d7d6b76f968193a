/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a worker of a queue is killed after any one instruction of a take, a done or a fail?
 *
 * The library's own subscriber runs in a stepped child. After each instruction its publisher, which has
 * heard of the death, looks at what the worker has left: each record is either as it was before the
 * call, or as the call leaves it; none that is done comes again, none that is not done is forgotten or
 * lies where the publisher may overwrite it, and each counts as handed out before the application
 * has it.
 *
 * Built with -DSHMB_MUTATE_*, the worker has a mistake in it, and this test must fail.
 */

#include "tests/kill/mutate.h"

struct shmb_member;

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason);
static int learn(struct shmb_member *member);
#define shmb_member_report     accuse
#define shmb_member_enter_slow learn

#include "lib/queue.c"

#undef SLOT

#ifdef SHMB_MUTATE_LOW
/* The position is how far it has read, whatever is still in work. */
#define shmb_jobs_low(jobs, reader, ret_position, ret_sequence) ((void)(jobs))
#endif

#include "tests/subscriber-files.h"

#include <stdio.h>
#include <sys/mman.h>

#include "tests/kill/step.h"

#define RING_LEN  4096u
#define POSITION  (64ull * RING_LEN)
#define SEQUENCE  0x2fffdull
#define WORKER	  7u
#define OTHER	  8u
#define PAIR	  10u
#define N_JOBS	  6u
#define NOT_TAKEN 0
#define DONE	  (-1)

enum op {
	OP_TAKE,
	OP_TAKE_MANY,
	OP_DONE_FIRST,
	OP_DONE_LATER,
	OP_DONE_MANY,
	OP_FAIL,
	OP_RETAKE,
	N_OPS
};

static struct step_row rows[N_OPS] = {
	[OP_TAKE] = { .name = "take", .min = { 4000, 0, 100, 100 } },
	[OP_TAKE_MANY] = { .name = "take_many", .min = { 8000, 0, 200, 200 } },
	[OP_DONE_FIRST] = { .name = "done, the oldest", .min = { 2000, 0, 50, 50 } },
	[OP_DONE_LATER] = { .name = "done, another", .min = { 2000, 0, 50, 50 } },
	[OP_DONE_MANY] = { .name = "done_many", .min = { 3000, 0, 100, 100 } },
	[OP_FAIL] = { .name = "fail", .min = { 2000, 0, 50, 50 } },
	[OP_RETAKE] = { .name = "take what has failed", .min = { 4000, 0, 100, 100 } },
};

/* How often each record has been handed out, before the call and after it, or that it is done. */
static const int story[N_OPS][2][N_JOBS] = {
	[OP_TAKE] = { { 1, 1 }, { 1, 1, 1 } },
	[OP_TAKE_MANY] = { { 1, 1 }, { 1, 1, 1, 1, 1 } },
	[OP_DONE_FIRST] = { { 1, 1, 1, 1 }, { DONE, 1, 1, 1 } },
	[OP_DONE_LATER] = { { 1, 1, 1, 1 }, { 1, 1, DONE, 1 } },
	[OP_DONE_MANY] = { { 1, 1, DONE, 1 }, { DONE, DONE, DONE, 1 } },
	[OP_FAIL] = { { 1, 1, 1, 1 }, { 1, 1, 1, 1 } },
	[OP_RETAKE] = { { 1, 1, 1, 1, 1, 1 }, { 1, 2, 1, 1, 1, 1 } },
};

static struct stage {
	_Alignas(4096) uint8_t lane[SHMB_BLOCK_LEN + RING_LEN];
	_Alignas(4096) struct shmb_cursor_segment cursor;
	struct shmb_cursor_lane slot;
	_Alignas(64) struct shmb_cursor_work work;
	_Alignas(4096) struct shmb_bell_segment bell;
	struct shmb_subscriber subscriber;
	struct sub_lane sub_lane;
	struct sub_lane *sub_lane_array[1];
	struct shmb_jobs jobs;
	struct shmb_channel channel;
	uint64_t epoch;
	uint8_t fork_guard;
	enum op op;
	int32_t result;
	uint64_t taken[N_JOBS];
	uint8_t out[RING_LEN];
} * stage;

static struct step step;
static struct shmb_worker worker; /* as its publisher sees it */

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason)
{
	(void)member;
	(void)pair_id;
	(void)reason;
	step_fail(&step, "an honest publisher is accused");
}

/* There is no broker here that could say so. */
static int learn(struct shmb_member *member)
{
	member->evicted |= SHMB_LOAD(member->epoch) != 0;
	member->seen_epoch = SHMB_LOAD(member->epoch);
	return member->evicted ? -ESTALE : 0;
}

/* ---- the child --------------------------------------------------------------------------------- */

static uint64_t job(uint32_t number)
{
	return 1ull << 32 | number;
}

static int32_t take_some(uint32_t n)
{
	return shmb_subscriber_take_many(&stage->subscriber, stage->out, sizeof(stage->out), NULL,
					 stage->taken, n);
}

static void run_call(void *context)
{
	const uint64_t two[2] = { job(1), job(0) };
	struct shmb_subscriber *subscriber = &stage->subscriber;

	(void)context;
	switch (stage->op) {
	case OP_TAKE:
		stage->result = shmb_subscriber_take(subscriber, stage->out, sizeof(stage->out));
		break;
	case OP_TAKE_MANY:
		stage->result = take_some(3);
		break;
	case OP_DONE_FIRST:
		stage->result = shmb_subscriber_done(subscriber, job(0));
		break;
	case OP_DONE_LATER:
		stage->result = shmb_subscriber_done(subscriber, job(2));
		break;
	case OP_DONE_MANY:
		stage->result = shmb_subscriber_done_many(subscriber, two, 2);
		break;
	case OP_FAIL:
		stage->result = shmb_subscriber_fail(subscriber, job(1));
		break;
	case OP_RETAKE:
		stage->result = shmb_subscriber_take(subscriber, stage->out, sizeof(stage->out));
		break;
	case N_OPS:
		break;
	}
}

/* ---- before the call --------------------------------------------------------------------------- */

/* Ours and somebody else's, in turns. */
static void publish(struct shmb_lane_writer *writer)
{
	static struct shmb_worker other;

	memset(&worker, 0, sizeof(worker));
	memset(&other, 0, sizeof(other));
	for (uint32_t i = 0; i < 2 * N_JOBS; i++) {
		struct shmb_ticket ticket = { .len = 8 + i * 24 % 100 };
		uint8_t *payload = shmb_lane_claim(writer, ticket.len + 16);

		ticket.position = writer->position;
		if (i % 2)
			shmb_worker_address(&other, payload, OTHER, &ticket);
		else
			shmb_worker_address(&worker, payload, WORKER, &ticket);
		memset(payload + 16, (int)i, ticket.len);
		shmb_lane_commit(writer, ticket.len + 16, 0, 0);
	}
}

static void prepare_lane(uint32_t offset)
{
	struct shmb_lane_segment *words = (struct shmb_lane_segment *)(void *)stage->lane;
	struct sub_lane *lane = &stage->sub_lane;
	struct shmb_lane_writer writer;

	shmb_lane_writer_init(&writer, words, RING_LEN);
	writer.position = POSITION + offset;
	writer.sequence = SEQUENCE;
	writer.intent = writer.position + 8;
	writer.record_flags = SHMB_RECORD_EXT;
	*shmb_lane_word(writer.ring, offset) = 0;
	stage->bell.start_position = writer.position;
	stage->bell.start_sequence = SEQUENCE;
	stage->bell.attached = 1;
	lane->pair_id = PAIR;
	lane->publisher_id = 20;
	lane->lane.base = words;
	lane->bell_words = &stage->bell;
	lane->slot = &stage->slot;
	lane->words = &stage->cursor;
	lane->jobs = &stage->jobs;
	lane->jobs->lane = 1;
	lane->jobs->work = &stage->work;
	stage->sub_lane_array[0] = lane;
	publish(&writer);
}

/* What has happened before the call. */
static void prepare_story(enum op op)
{
	uint32_t n = 0;

	while (n < N_JOBS && story[op][0][n] != NOT_TAKEN)
		n++;
	if (take_some(n) != (int32_t)n)
		step_fail(&step, "the story cannot begin");
	for (uint32_t i = 0; i < n; i++)
		if (story[op][0][i] == DONE)
			shmb_subscriber_done(&stage->subscriber, job(i));
	if (op == OP_RETAKE)
		shmb_subscriber_fail(&stage->subscriber, job(1));
}

static void prepare_stage(uint32_t offset, enum op op)
{
	struct shmb_subscriber *subscriber = &stage->subscriber;

	memset(stage, 0, sizeof(*stage));
	stage->fork_guard = 1;
	stage->op = op;
	stage->channel.lane_len = RING_LEN;
	subscriber->member.fork_guard = &stage->fork_guard;
	subscriber->member.epoch = &stage->epoch;
	subscriber->member.channel = &stage->channel;
	subscriber->member.id = WORKER;
	subscriber->cursor = &stage->cursor;
	subscriber->lanes = stage->sub_lane_array;
	subscriber->n_lanes = 1;
	subscriber->queue = true;
	subscriber->n_peeked = 1;
	set_hot(subscriber);
	/* Marks of whoever had the slot before, which are like ours. */
	for (uint32_t i = 0; i < SHMB_QUEUE_CREDIT_MAX; i++)
		stage->work.marks[i] =
			(uint64_t)i << SHMB_QUEUE_MARK_NUMBER_SHIFT | SHMB_QUEUE_MARK_DONE | 3;
	stage->slot.pair_id = 3;
	prepare_lane(offset);
	prepare_story(op);
}

/* ---- after the kill ---------------------------------------------------------------------------- */

/* How the publisher finds each record. */
static void find_all(int found[N_JOBS])
{
	struct shmb_worker copy = worker;
	struct shmb_ticket undone[SHMB_QUEUE_CREDIT_MAX];
	bool ours = stage->slot.pair_id == PAIR;
	uint32_t n = shmb_worker_undone(&copy, ours ? &stage->work : NULL, undone);

	for (uint32_t i = 0; i < N_JOBS; i++)
		found[i] = DONE;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t i = 0;

		while (i < N_JOBS && worker.tickets[i].position != undone[k].position)
			i++;
		if (i == N_JOBS || found[i] != DONE)
			step_fail(&step, "a record that there is not, or twice");
		found[i] = (int)undone[k].attempts;
		if (ours && stage->slot.position > undone[k].position)
			step_fail(&step, "record %u may be overwritten", i);
	}
}

static void judge(bool ended)
{
	enum op op = stage->op;
	int found[N_JOBS];

	find_all(found);
	for (uint32_t i = 0; i < N_JOBS; i++) {
		if (found[i] == story[op][1][i] || (!ended && found[i] == story[op][0][i]))
			continue;
		step_fail(&step, "record %u is left as %d, it was %d and becomes %d", i, found[i],
			  story[op][0][i], story[op][1][i]);
	}
}

static void check_end(void)
{
	static const int32_t wanted[N_OPS] = {
		[OP_TAKE] = 8 + 4 * 24 % 100, [OP_TAKE_MANY] = 3, [OP_RETAKE] = 8 + 2 * 24 % 100
	};

	if (stage->result != wanted[stage->op])
		step_fail(&step, "the call returned %d", stage->result);
	if (stage->op == OP_RETAKE && stage->subscriber.view.attempt != 2)
		step_fail(&step, "attempt %u", stage->subscriber.view.attempt);
	judge(true);
}

/* It is thrown out, its publisher gives to others what it finds, and then it goes on. */
static void play_zombie(void)
{
	static struct step_state *state;
	static struct stage before;
	int found[N_JOBS];

	state = step_save(&step, state);
	memcpy(&before, stage, sizeof(before));
	find_all(found);
	stage->epoch++;
	step_finish(&step);
	for (uint32_t i = 0; i < N_JOBS; i++)
		if (stage->result == 0 && story[stage->op][1][i] == DONE && found[i] != DONE)
			step_fail(&step, "record %u is said to be done, and comes to others", i);
	if (shmb_subscriber_done(&stage->subscriber, job(0)) != -ESTALE ||
	    shmb_subscriber_take(&stage->subscriber, stage->out, sizeof(stage->out)) != -ESTALE)
		step_fail(&step, "it never learns that it was thrown out");
	memcpy(stage, &before, sizeof(before));
	step_restore(&step, state);
}

static void step_call(uint32_t offset, enum op op)
{
	static uint8_t before[sizeof(stage->slot) + sizeof(stage->work)];
	bool running = true;

	step_begin(&step);
	snprintf(step.scenario, sizeof(step.scenario), "offset %u, call %d", offset, (int)op);
	prepare_stage(offset, op);
	judge(false);
	while (running) {
		if (offset % 512 == 0 && !STEP_SANITIZED) {
			play_zombie();
			rows[op].n[STEP_ZOMBIE]++;
		}
		if (rows[op].n[STEP_SNAPSHOT] % 32 == 0 && !STEP_SANITIZED) {
			step_kill_pid(&step, step_fork(&step));
			rows[op].n[STEP_KILL]++;
		}
		memcpy(before, &stage->slot, sizeof(stage->slot));
		memcpy(before + sizeof(stage->slot), &stage->work, sizeof(stage->work));
		running = step_next(&step);
		rows[op].n[STEP_SNAPSHOT]++;
		if (memcmp(before, &stage->slot, sizeof(stage->slot)) ||
		    memcmp(before + sizeof(stage->slot), &stage->work, sizeof(stage->work)))
			judge(false);
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
	for (uint32_t offset = 0; offset < RING_LEN; offset += quick ? 8 * 128 : 8 * 8)
		for (uint32_t op = 0; op < N_OPS; op++)
			step_call(offset, (enum op)op);
	step_kill(&step);
	step_table("kill-queue", rows, N_OPS, quick ? 16 : 1);
	return EXIT_SUCCESS;
}
