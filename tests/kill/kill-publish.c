/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a publisher is killed, or thrown out, after any one instruction of a publish?
 *
 * The library's own publisher runs in a stepped child over a lane in shared memory. After each
 * instruction the lane is copied as the killed process would leave it, and the survivors read the
 * copy: every record whose publish had returned, in order, then the one in flight wholly or not at
 * all. The ring is full of words that look like valid headers, so whoever looks at a word that
 * nobody has stored is found out.
 *
 * A part of the processes is really killed. Another part is thrown out, replaced by a publisher
 * that gets its slot in the subscriber's cursor, and then goes on: what it had published stays
 * whole until its readers have read it, and nothing of others changes.
 *
 * Built with -DSHMB_MUTATE_*, publisher and ring have a mistake in them, and this test must fail.
 */

#include "tests/kill/mutate.h"

#include "lib/copy.h"
#include <shmbroker/ring.h>

#ifdef SHMB_MUTATE_PAYLOAD
/* The last payload of a call is copied when the call has published it. */
static void *late_to;
static const void *late_from;
static uint32_t late_len;
#define shmb_copy(to, from, len) (late_to = (to), late_from = (from), late_len = (len))
#endif
#ifdef SHMB_MUTATE_BATCH
/* Each record of a batch becomes visible by itself. */
#define shmb_lane_commit(writer, len, type, more) \
	((void)(more), (shmb_lane_commit)((writer), (len), (type), 0))
#endif

struct shmb_member;

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason);
static int learn(struct shmb_member *member);
#define shmb_member_report     accuse
#define shmb_member_enter_slow learn

#include "tests/publisher-files.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/kill/step.h"

#define RING_LEN  4096u
#define LANE_LEN  (SHMB_BLOCK_LEN + RING_LEN)
#define LEN_MAX	  (RING_LEN / 2 - 16)
#define BATCH	  7u
#define SEQUENCE  0x2fffcull /* the 16 bits in the header wrap in the middle of it all */
#define POSITION  (64ull * RING_LEN)
#define N_RECORDS 640u

/* Bytes between the offsets that have them; all others have snapshots only. */
#define ZOMBIE_STRIDE 256u
#define KILL_STRIDE   256u
#define QUICK_DIVISOR 25u

enum op {
	OP_SEND,
	OP_WRAP, /* the same, and it does not fit in front of the end of the ring */
	OP_MANY,
	OP_LOAN,
	OP_CANCEL,
	OP_DROP, /* a publisher that drops what does not fit */
	N_OPS
};

enum fill {
	FILL_EMPTY, /* the reliable reader has caught up */
	FILL_PART, /* it is a few records behind */
	FILL_FULL, /* almost a ring behind */
	FILL_LAP, /* only lossy readers, which are being overwritten */
	N_FILLS
};

/* One call that is stepped: @count records of the lengths @lens. */
struct call {
	enum op op;
	uint32_t count;
	uint32_t lens[BATCH];
};

static const struct call calls[] = {
	{ OP_SEND, 1, { 0 } },
	{ OP_SEND, 1, { 8 } },
	{ OP_SEND, 1, { 56 } },
	{ OP_SEND, 1, { 1000 } },
	{ OP_SEND, 1, { LEN_MAX } },
	{ OP_MANY, BATCH, { 0, 0, 0, 0, 0, 0, 0 } },
	{ OP_MANY, BATCH, { 8, 8, 8, 8, 8, 8, 8 } },
	{ OP_MANY, BATCH, { 56, 56, 56, 56, 56, 56, 56 } },
	{ OP_MANY, BATCH, { 1000, 1000, 1000, 1000, 1000, 1000, 1000 } },
	/* Half a ring, then the longest record: the batch must not run into its own start. */
	{ OP_MANY, BATCH, { 1016, 1016, LEN_MAX, 8, 0, 56, 1000 } },
	{ OP_LOAN, 1, { 56 } },
	{ OP_LOAN, 1, { 1000 } },
	{ OP_CANCEL, 1, { 1000 } },
	{ OP_DROP, 1, { 1000 } },
};

static struct step_row rows[N_OPS] = {
	[OP_SEND] = { .name = "send", .min = { 800000, 0, 28000, 28000 } },
	[OP_WRAP] = { .name = "send, wrap", .min = { 150000, 0, 5000, 4500 } },
	[OP_MANY] = { .name = "send_many", .min = { 600000, 0, 26000, 13000 } },
	[OP_LOAN] = { .name = "loan, publish", .min = { 320000, 0, 11000, 10000 } },
	[OP_CANCEL] = { .name = "loan, cancel, send", .min = { 170000, 0, 5500, 5500 } },
	[OP_DROP] = { .name = "send, drop newest", .min = { 180000, 0, 6500, 6000 } },
};

/* What tracer and child share: the segments, and the publisher's private state for convenience. */
struct stage {
	_Alignas(4096) uint8_t lane[LANE_LEN];
	_Alignas(4096) struct shmb_cursor_segment cursor;
	struct shmb_cursor_lane slot;
	_Alignas(4096) struct shmb_bell_segment bell;
	_Alignas(4096) struct shmb_publisher publisher;
	struct pub_pair pair;
	struct pub_sleeper sleeper;
	uint64_t epoch;
	uint8_t fork_guard;
	struct call call;
	int32_t result;
	bool accused;
	uint8_t payload[BATCH * LEN_MAX];
};

/* What has been published, in order; those of the call under way follow. */
struct expected {
	uint64_t position; /* at or before its header */
	uint32_t len;
	uint32_t type;
};

static struct stage *stage;
static struct step step;
static struct expected expected[N_RECORDS];
static uint32_t n_published, n_in_flight;
static uint32_t seen_counts; /* bit n: n records of the call were visible at some instant */
static uint64_t n_states;

/* ---- records ----------------------------------------------------------------------------------- */

static uint8_t byte_of(uint64_t sequence, uint32_t i)
{
	uint64_t mixed = (sequence + 1) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)((mixed >> (8 * (i & 7))) + (i >> 3));
}

static void fill_payload(uint8_t *payload, uint64_t sequence, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		payload[i] = byte_of(sequence, i);
}

static void check_record(const struct shmb_record *record, uint64_t sequence)
{
	const struct expected *want = &expected[sequence - SEQUENCE];

	if (sequence - SEQUENCE >= n_published + n_in_flight)
		step_fail(&step, "record %llu does not exist", (unsigned long long)sequence);
	if (record->len != want->len || record->type != want->type)
		step_fail(&step, "record %llu has %u bytes, type %u, not %u, %u",
			  (unsigned long long)sequence, record->len, record->type, want->len,
			  want->type);
	for (uint32_t i = 0; i < record->len; i++)
		if (record->data[i] != byte_of(sequence, i))
			step_fail(&step, "byte %u of record %llu is torn", i,
				  (unsigned long long)sequence);
}

/* Nobody lies here. With a limit that is wrong, the mistake is to be found in the ring. */
static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason)
{
	(void)member;
	(void)pair_id;
	(void)reason;
#ifndef SHMB_MUTATE_LIMIT
	stage->accused = true;
#endif
}

/* There is no broker here that could say so. */
static int learn(struct shmb_member *member)
{
	member->evicted = true;
	return -ESTALE;
}

/* ---- the child --------------------------------------------------------------------------------- */

static void call_loan(struct shmb_publisher *publisher, uint32_t len)
{
	if (stage->call.op == OP_CANCEL) {
		if (shmb_publisher_loan(publisher, len) == 0) {
			memset((void *)(uintptr_t)publisher->view.data, 0xff, len);
			shmb_publisher_cancel(publisher);
		}
		/* What was cancelled leaves nothing: the same room is used by a smaller one. */
		stage->result = shmb_publisher_send(publisher, stage->payload, 8);
		return;
	}
	stage->result = shmb_publisher_loan(publisher, len);
	if (stage->result == 0) {
		memcpy((void *)(uintptr_t)publisher->view.data, stage->payload, len);
		stage->result = shmb_publisher_publish(publisher, len);
	}
}

static void run_call(void *context)
{
	const struct call *call = &stage->call;
	struct shmb_publisher *publisher = &stage->publisher;

	(void)context;
	switch (call->op) {
	case OP_SEND:
	case OP_WRAP:
	case OP_DROP:
		stage->result = shmb_publisher_send_typed(publisher, stage->payload, call->lens[0],
							  call->lens[0] & 0xffff);
		break;
	case OP_MANY:
		stage->result = shmb_publisher_send_many(publisher, stage->payload, 0, call->lens,
							 call->count);
		break;
	case OP_LOAN:
	case OP_CANCEL:
		call_loan(publisher, call->lens[0]);
		break;
	case N_OPS:
		break;
	}
#ifdef SHMB_MUTATE_PAYLOAD
	if (late_to)
		memcpy(late_to, late_from, late_len);
	late_to = NULL;
#endif
}

/* ---- before the call --------------------------------------------------------------------------- */

static void reset_stage(uint32_t offset)
{
	struct shmb_lane_segment *lane = (struct shmb_lane_segment *)(void *)stage->lane;
	struct shmb_publisher *publisher = &stage->publisher;
	struct shmb_lane_writer *writer = &publisher->writer;

	memset(stage, 0, sizeof(*stage));
	stage->fork_guard = 1;
	publisher->member.fork_guard = &stage->fork_guard;
	publisher->member.epoch = &stage->epoch;
	publisher->record_len_max = shmb_record_len_max(RING_LEN);
	publisher->inline_len_max = UINT32_MAX;
	shmb_lane_writer_init(writer, lane, RING_LEN);
	writer->position = POSITION + offset;
	writer->sequence = SEQUENCE;
	writer->intent = writer->position + 8;
	lane->intent = writer->intent;
	lane->marks[0] = (struct shmb_lane_mark){ writer->position, SEQUENCE };
	writer->next_mark = 1;
	/* Wherever a reader looks too early, it finds a header that it would believe. */
	for (uint32_t i = 0; i < RING_LEN; i += 8)
		*shmb_lane_word(writer->ring, i) =
			SHMB_RECORD_VALID | 8 | (SEQUENCE + i % 64) << SHMB_RECORD_SEQ_SHIFT;
	*shmb_lane_word(writer->ring, offset) = 0;
	n_published = 0;
	n_in_flight = 0;
	seen_counts = 0;
}

static void add_pair(enum fill fill, bool asleep)
{
	struct shmb_publisher *publisher = &stage->publisher;

	stage->slot = (struct shmb_cursor_lane){ .position = publisher->writer.position,
						 .sequence = publisher->writer.sequence,
						 .pair_id = 1 };
	stage->pair = (struct pub_pair){ .id = 1,
					 .words = &stage->cursor,
					 .slot = &stage->slot,
					 .bell_words = &stage->bell,
					 .lossy = fill == FILL_LAP,
					 .head = publisher->writer.position };
	stage->cursor.sleep = asleep ? 1 << 2 | SHMB_SLEEP_FUTEX : SHMB_SLEEP_AWAKE;
	stage->sleeper.sleep = &stage->cursor.sleep;
	publisher->pairs = &stage->pair;
	publisher->sleepers = &stage->sleeper;
	publisher->n_pairs = 1;
	publisher->cap_pairs = 1;
	publisher->writer.limit = 0;
}

static void publish_before(uint32_t len)
{
	struct shmb_lane_writer *writer = &stage->publisher.writer;
	struct expected *want = &expected[n_published];
	uint8_t *payload;

	want->position = writer->position;
	payload = pub_claim(&stage->publisher, len);
	if (!payload || n_published + BATCH >= N_RECORDS)
		step_fail(&step, "the ring cannot be prepared");
	fill_payload(payload, writer->sequence, len);
	want->len = len;
	want->type = 9;
	n_published++;
	(shmb_lane_commit)(writer, len, want->type, 0);
}

static void prepare_ring(enum fill fill)
{
	static const uint32_t some[] = { 8, 0, 24, 100, 56 };
	struct shmb_publisher *publisher = &stage->publisher;
	uint32_t len = 0;

	switch (fill) {
	case FILL_EMPTY:
		break;
	case FILL_PART:
		for (uint32_t i = 0; i < SHMB_ARRAY_LEN(some); i++)
			publish_before(some[i]);
		break;
	case FILL_FULL:
		while (fits(publisher, 0))
			publish_before(0);
		break;
	case FILL_LAP:
		while (publisher->writer.position < POSITION + 3 * RING_LEN)
			publish_before(len = (len + 40) % 264);
		break;
	case N_FILLS:
		break;
	}
}

/* Bytes of ring that the call takes from where the publisher is, pads included. */
static uint64_t call_span(const struct call *call)
{
	uint64_t start = stage->publisher.writer.position, position = start;

	for (uint32_t i = 0; i < call->count; i++) {
		uint64_t span = shmb_record_span(call->lens[i]);
		uint64_t rest = RING_LEN - position % RING_LEN;

		position += (span > rest ? rest : 0) + span;
	}
	return position - start;
}

/* The reader of a full ring has made exactly the room that the call needs, or 8 bytes less. */
static void make_room(const struct call *call, bool enough)
{
	uint64_t span = call_span(call) - (enough ? 0 : 8);

	if (span > RING_LEN - 8)
		span = RING_LEN - 8;
	stage->slot.position += span;
	stage->slot.sequence += span / 8;
}

static void prepare_call(const struct call *call)
{
	uint64_t sequence = stage->publisher.writer.sequence;
	uint8_t *payload = stage->payload;

	stage->call = *call;
	if (call->op == OP_DROP)
		stage->publisher.flags = SHMB_PUBLISHER_DROP_NEWEST;
	n_in_flight = call->count;
	for (uint32_t i = 0; i < call->count; i++) {
		struct expected *want = &expected[n_published + i];

		want->len = call->op == OP_CANCEL ? 8 : call->lens[i];
		want->type =
			call->op == OP_SEND || call->op == OP_DROP ? call->lens[i] & 0xffff : 0;
		fill_payload(payload, sequence + i, want->len);
		payload += want->len;
	}
	expected[n_published].position = stage->publisher.writer.position;
}

/* ---- after the kill ---------------------------------------------------------------------------- */

/* A reliable reader that has read up to the cursor. Returns how many records there are in all. */
static uint64_t read_reliable(const struct shmb_lane_segment *lane)
{
	struct shmb_lane_reader reader;
	struct shmb_record record;
	int result;

	shmb_lane_reader_init(&reader, lane, RING_LEN, stage->slot.position, stage->slot.sequence);
	while ((result = shmb_lane_peek(&reader, &record)) == 1) {
		check_record(&record, reader.sequence);
		shmb_lane_skip(&reader, &record);
	}
	if (result < 0)
		step_fail(&step, "record %llu: the bytes left behind are no record",
			  (unsigned long long)reader.sequence);
	return reader.sequence - SEQUENCE;
}

/* A lossy reader that has read @first records. Returns how many there are in all. */
static uint64_t read_lossy(const struct shmb_lane_segment *lane, uint32_t first, uint64_t *lost)
{
	struct shmb_lane_reader reader;
	struct shmb_record record;
	uint64_t received = 0;
	int result;

	*lost = 0;
	shmb_lane_reader_init(&reader, lane, RING_LEN, expected[first].position, SEQUENCE + first);
	while ((result = shmb_lane_peek_lossy(&reader, &record, lost)) == 1) {
		check_record(&record, reader.sequence);
		shmb_lane_skip(&reader, &record);
		received++;
	}
	if (result < 0)
		step_fail(&step, "record %llu: lossy: the bytes left behind are no record",
			  (unsigned long long)reader.sequence);
	if (shmb_lane_lapped(&reader))
		step_fail(&step, "a lossy reader at %u never catches up", first);
	if (first + received + *lost != reader.sequence - SEQUENCE)
		step_fail(&step, "%u + %llu records, %llu lost: are not %llu", first,
			  (unsigned long long)received, (unsigned long long)*lost,
			  (unsigned long long)(reader.sequence - SEQUENCE));
	return reader.sequence - SEQUENCE;
}

/* May a call that publishes @n records in the end have shown @seen of them before? */
static bool may_be_seen(uint32_t seen, uint32_t n)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < stage->call.count; i++)
		sum += (uint32_t)shmb_record_span(stage->call.lens[i]);
	/* A batch of more than half the ring is published in parts. */
	return seen == 0 || seen == n || (sum > RING_LEN / 2 && seen < n);
}

static uint32_t judge(enum fill fill)
{
	static _Alignas(4096) uint8_t copy[LANE_LEN];
	const struct shmb_lane_segment *lane = (const struct shmb_lane_segment *)(void *)copy;
	uint64_t n, lost;

	memcpy(copy, stage->lane, LANE_LEN);
	n_states++;
	n = read_lossy(lane, n_published, &lost);
	if (lost && stage->call.op != OP_MANY)
		step_fail(&step, "a reader that had caught up lost %llu records",
			  (unsigned long long)lost);
	if (n < n_published || n > n_published + n_in_flight)
		step_fail(&step, "%llu records of %u", (unsigned long long)n, n_published);
	if (read_lossy(lane, n_published / 2, &lost) != n || read_lossy(lane, 0, &lost) != n)
		step_fail(&step, "lossy readers disagree about the end");
	if (fill != FILL_LAP && read_reliable(lane) != n)
		step_fail(&step, "the reliable reader and the lossy one disagree about the end");
	if (lane->sequence_hint > SEQUENCE + n)
		step_fail(&step, "the hint is ahead of the records");
	seen_counts |= 1u << (n - n_published);
	return (uint32_t)(n - n_published);
}

static bool sleeps(uint32_t word)
{
	return (word & SHMB_SLEEP_MODE_MASK) != SHMB_SLEEP_AWAKE;
}

static void check_end(enum fill fill)
{
	uint32_t seen = judge(fill);
	uint32_t wanted = stage->call.op == OP_MANY ? (uint32_t)stage->result : stage->result == 0;

	if (stage->accused)
		step_fail(&step, "the publisher accuses an honest reader");
	if (stage->result < 0 && stage->result != -EAGAIN)
		step_fail(&step, "the call returned %d", stage->result);
	if (stage->result == -EAGAIN || ((struct shmb_lane_segment *)(void *)stage->lane)->dropped)
		wanted = 0;
	if (seen && sleeps(stage->cursor.sleep) && !stage->bell.wake)
		step_fail(&step, "nobody has rung for the one that sleeps");
	if (seen != wanted)
		step_fail(&step, "the call returned %d, %u records are there", stage->result, seen);
	for (uint32_t i = 0; i <= BATCH; i++)
		if (seen_counts & 1u << i && !may_be_seen(i, wanted))
			step_fail(&step, "%u of %u records were visible for a while", i, wanted);
}

static bool prepare_stage(uint32_t offset, enum fill fill, const struct call *call)
{
	reset_stage(offset);
	add_pair(fill, offset / 8 % 2);
	prepare_ring(fill);
	if (fill == FILL_FULL)
		make_room(call, offset % 64);
	prepare_call(call);
	/* A refusal is long, since it writes a sentence, and always the same. */
	return offset % 64 == 0 || call->op == OP_DROP || fits(&stage->publisher, call->lens[0]);
}

/* ---- the zombie -------------------------------------------------------------------------------- */

/* All but its payload is given back by a rewind. */
#define REWIND_LEN offsetof(struct stage, payload)

/*
 * It is thrown out. Its readers still have all of its records in front of them, and another
 * publisher has its slot in the cursor: with numbers that the zombie would believe, or not.
 */
static void replace(uint32_t n)
{
	const struct shmb_lane_writer *writer = &stage->publisher.writer;
	const uint64_t positions[] = {
		writer->position, writer->position - 8,	    0,
		UINT64_MAX - 7,	  stage->slot.position + 8, writer->position + 64
	};

	/* In the order in which a subscriber takes a slot for another pair. */
	shmb_cursor_vacate(&stage->slot);
	stage->slot.position = positions[n % SHMB_ARRAY_LEN(positions)];
	stage->slot.sequence = 7;
	if (n / SHMB_ARRAY_LEN(positions) % 2)
		shmb_cursor_start(&stage->slot, 2);
	stage->cursor.sleep = 9 << 2 | SHMB_SLEEP_FD;
	stage->epoch++;
}

static void check_zombie(const struct shmb_cursor_lane *before, const struct stage *theirs,
			 bool reliable)
{
	static _Alignas(4096) uint8_t copy[LANE_LEN];
	struct shmb_cursor_lane now = stage->slot;

	if (memcmp(&theirs->cursor, &stage->cursor, sizeof(stage->cursor)) ||
	    memcmp(&theirs->slot, &now, sizeof(now)) || theirs->epoch != stage->epoch)
		step_fail(&step, "a zombie has changed what is not its own");
	if (!reliable)
		return;
	memcpy(copy, stage->lane, LANE_LEN);
	stage->slot = *before;
	if (read_reliable((const struct shmb_lane_segment *)(void *)copy) < n_published)
		step_fail(&step, "a zombie's records are lost");
	stage->slot = now;
}

static void play_zombie(enum fill fill)
{
	static struct step_state *state;
	static struct stage before, theirs;
	static uint32_t n;
	struct shmb_cursor_lane slot = stage->slot;

	state = step_save(&step, state);
	memcpy(&before, stage, REWIND_LEN);
	replace(n++);
	memcpy(&theirs, stage, REWIND_LEN);
	step_finish(&step);
	check_zombie(&slot, &theirs, fill != FILL_LAP);
	stage->publisher.loaned = false;
	if (shmb_publisher_send(&stage->publisher, stage->payload, 0) != -ESTALE)
		step_fail(&step, "its next call does not say that it was thrown out");
	check_zombie(&slot, &theirs, fill != FILL_LAP);
	memcpy(stage, &before, REWIND_LEN);
	step_restore(&step, state);
}

/* At some offsets, the second of which leaves too little room: see prepare_stage(). */
static bool has_zombies(uint32_t offset)
{
	return offset % ZOMBIE_STRIDE == 8 || offset % (2 * ZOMBIE_STRIDE) == 0;
}

static enum op row_of(uint32_t offset, const struct call *call)
{
	bool wraps = offset % RING_LEN + shmb_record_span(call->lens[0]) > RING_LEN;

	return call->op == OP_SEND && wraps ? OP_WRAP : call->op;
}

static void step_call(uint32_t offset, enum fill fill, const struct call *call)
{
	static uint8_t before[LANE_LEN];
	uint64_t *n = rows[row_of(offset, call)].n;
	bool running = true;

	step_begin(&step);
	snprintf(step.scenario, sizeof(step.scenario), "offset %u, fill %d, call %d", offset, fill,
		 (int)(call - calls));
	if (!prepare_stage(offset, fill, call))
		return;
	judge(fill);
	memcpy(before, stage->lane, LANE_LEN);
	while (running) {
		if (has_zombies(offset) && !STEP_SANITIZED) {
			play_zombie(fill);
			n[STEP_ZOMBIE]++;
		}
		if (offset % KILL_STRIDE == 24 && !STEP_SANITIZED) {
			step_kill_pid(&step, step_fork(&step));
			n[STEP_KILL]++;
		}
		running = step_next(&step);
		n[STEP_SNAPSHOT]++;
		if (!memcmp(before, stage->lane, LANE_LEN))
			continue;
		judge(fill);
		memcpy(before, stage->lane, LANE_LEN);
	}
	check_end(fill);
}

/*
 * Every call at every offset, the long ones at every fourth. The fill goes round, so that four
 * neighbouring offsets have all of them; one call has all of them at each offset.
 */
static void step_calls(uint32_t offset, bool all)
{
	for (uint32_t i = 0; i < SHMB_ARRAY_LEN(calls); i++) {
		bool turn = calls[i].op != OP_MANY || (offset / 8 + i) % 4 == 0;

		for (uint32_t fill = 0; fill < N_FILLS; fill++)
			if (all || i == 1 || (turn && (offset / 32 + offset / 8 + i) % 4 == fill))
				step_call(offset, (enum fill)fill, &calls[i]);
	}
}

int main(int argc, char **argv)
{
	bool all = argc > 1 && !strcmp(argv[1], "--all");
	bool quick = step_quick(argc, argv);

	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (stage == MAP_FAILED)
		return EXIT_FAILURE;
	step_start(&step, run_call, NULL);
	for (uint32_t offset = 0; offset < RING_LEN; offset += quick ? 8 * 17 : 8)
		step_calls(offset, all);
	step_kill(&step);
	printf("kill-publish: %llu states judged\n", (unsigned long long)n_states);
	step_table("kill-publish", rows, N_OPS, quick ? QUICK_DIVISOR : 1);
	return EXIT_SUCCESS;
}
