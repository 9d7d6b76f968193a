/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a publisher and a subscriber run at the same time, and one of them is killed meanwhile?
 *
 * The first one is stopped after each instruction of its call. The other one makes its whole call
 * on the same shared memory, and then the first one is gone, or goes on: all interleavings with one
 * preemption. At some offsets there are two: wherever the first one has stored something, the other
 * one is stepped, too; after each of its instructions the first one runs to the end of its call,
 * then the other one does. Then whoever is left goes on: no record is torn, lost or there twice,
 * and nobody sleeps on although there is something for it to do and nobody has rung.
 *
 * They also meet, with some history; and one of them moves to another segment meanwhile, as both
 * have been told to by the broker.
 *
 * Built with -DSHMB_MUTATE_*, one of them has a mistake in it, and this test must fail.
 */

#include "tests/kill/mutate.h"

#include "lib/bell.h"
#include "lib/clock.h"
#include "lib/fd.h"
#include "lib/member.h"

#include <stdlib.h>

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason);
static int stage_map(struct shmb_map *map, int token);
static void *stage_lane(void);
static uint64_t next_ns(void);
static void sleep_in_lane(void);
static void ring_publisher_bell(void);
#define shmb_member_report accuse

/* Nobody sleeps here: a publisher that would is left as it is then, and time goes by quickly. */
#define shmb_member_epoll(member) ((void)(member), 0)
#define shmb_clock_now_ns()	  next_ns()
#define shmb_member_sleep(member, t) \
	do {                         \
		(void)(t);           \
		sleep_in_lane();     \
		return;              \
	} while (0)

/* The segments are on the stage, and named by what stands for an fd. */
#define shmb_map_reader(map, fd, descriptor, kind) ((void)(descriptor), stage_map((map), (fd)))
#define shmb_map_writer(map, fd, descriptor, kind) ((void)(descriptor), stage_map((map), (fd)))
#define shmb_map_deinit(map)			   ((void)(map))

#ifdef SHMB_MUTATE_HISTORY
#include "lib/history.h"
/* A late subscriber begins with a record that it is told to be another one. */
#define shmb_history_start(writer, n, position, sequence) \
	((shmb_history_start)((writer), (n), (position), (sequence)), --*(sequence))
#endif

#include "tests/publisher-files.h"

#undef shmb_clock_now_ns
#undef shmb_member_sleep

#define free(pointer)	 ((void)(pointer))
#define calloc(n, len)	 stage_lane()
#define realloc(at, len) NULL

#ifdef SHMB_MUTATE_RECHECK
/* A lossy subscriber believes what it has copied. */
#define shmb_lane_lapped(reader) ((void)(reader), 0)
#endif
#ifdef SHMB_MUTATE_LOOK
/* A subscriber looks once more, then says that it sleeps. */
static uint32_t *late_word;
static uint32_t late_asleep;
#define shmb_bell_announce(word, asleep) (late_word = (word), late_asleep = (asleep))
#endif

/* A name that both have, and what calls of this test do not reach. */
#define prepare(member)		 prepare_subscriber(member)
#define shmb_ringer_ring(ringer) ((void)(ringer), ring_publisher_bell())
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include "tests/subscriber-files.h"
#pragma GCC diagnostic pop
#undef free
#undef calloc
#undef realloc

#include <stdio.h>
#include <sys/mman.h>

#include "tests/kill/step.h"

#define RING_LEN  1024u
#define LANE_LEN  (SHMB_BLOCK_LEN + RING_LEN)
#define POSITION  (64ull * RING_LEN)
#define SEQUENCE  0x2fff4ull /* the 16 bits in the header wrap soon */
#define N_RECORDS 400u
#define LEN_MAX	  300u
#define N_CALL	  3u /* records of a call of many */

#define QUICK_STRIDE  36u /* of a sample: so many times fewer offsets */
#define QUICK_DIVISOR 48u
#define TWICE_STRIDE  128u /* bytes between the offsets at which both are stepped */

enum side {
	PUBLISHER,
	SUBSCRIBER,
	N_SIDES
};

enum row {
	ROW_RECV,
	ROW_MANY,
	ROW_ROOM,
	ROW_LOSSY,
	ROW_SLEEP,
	ROW_SPACE,
	ROW_MEET,
	ROW_MOVE,
	ROW_FOLLOW,
	ROW_CURSOR,
	N_ROWS
};

static struct step_row rows[N_ROWS] = {
	[ROW_RECV] = { .name = "send x recv", .min = { 42000, 55000 } },
	[ROW_MANY] = { .name = "send_many x recv_many", .min = { 95000, 145000 } },
	[ROW_ROOM] = { .name = "send, ring full x peek, release", .min = { 58000, 70000 } },
	[ROW_LOSSY] = { .name = "send, lap x lossy recv", .min = { 100000, 185000 } },
	[ROW_SLEEP] = { .name = "send x announce a sleep", .min = { 48000, 65000 } },
	[ROW_SPACE] = { .name = "wait for space x recv", .min = { 55000, 65000 } },
	[ROW_MEET] = { .name = "meet, with history x recv", .min = { 95000, 95000 } },
	[ROW_MOVE] = { .name = "move to another lane, send x recv", .min = { 150000, 150000 } },
	[ROW_FOLLOW] = { .name = "send x follow to another lane, recv", .min = { 75000, 75000 } },
	[ROW_CURSOR] = { .name = "meet again, send x move to another cursor, recv",
			 .min = { 160000, 160000 } },
};

/* The segments, and the private state of both, so that a rewind is one copy. */
struct stage {
	_Alignas(64) uint8_t lane[LANE_LEN];
	struct shmb_cursor_segment cursor;
	struct shmb_cursor_lane slot;
	struct shmb_bell_segment bell;
	_Alignas(64) uint8_t next_lane[LANE_LEN];
	struct shmb_cursor_segment next_cursor;
	struct shmb_cursor_lane next_slot;
	struct shmb_bell_segment next_bell;
	uint8_t shared_end;
	_Alignas(64) struct shmb_publisher publisher;
	struct pub_pair pair[2];
	struct pub_sleeper sleeper[2];
	_Alignas(64) struct shmb_subscriber subscriber;
	struct sub_lane sub_lane, next_sub_lane;
	struct sub_lane *sub_lane_array[2];
	struct sub_cursor spare;
	struct shmb_event move, staged, told;
	struct shmb_channel channel;
	uint64_t epoch;
	uint64_t now_ns;
	uint64_t first; /* number of the first record that has not been received */
	uint64_t n_sent; /* records whose publish had returned before the calls */
	uint64_t n_received;
	enum row row;
	uint8_t fork_guard;
	bool accused;
	bool waits; /* the publisher sleeps until there is room */
	bool asleep; /* so does the subscriber, until there is a record */
	uint32_t n_rung; /* how often the subscriber has rung */
	int32_t sent, got; /* what the calls returned */
	uint32_t lens[N_CALL];
	uint8_t out[N_CALL * LEN_MAX];
};

enum token {
	TOKEN_LANE,
	TOKEN_CURSOR,
	TOKEN_BELL,
	TOKEN_NEXT_LANE,
	TOKEN_NEXT_CURSOR,
	TOKEN_NEXT_BELL,
};

#define PUBLISHER_ID  20u
#define SUBSCRIBER_ID 30u
#define HISTORY	      5u

_Static_assert(offsetof(struct stage, slot) - offsetof(struct stage, cursor) == SHMB_BLOCK_LEN, "");
_Static_assert(offsetof(struct stage, next_slot) - offsetof(struct stage, next_cursor) ==
		       SHMB_BLOCK_LEN,
	       "");

/* For the library's member-event.c: there is no broker, and what it has said is on the stage. */
int __wrap_shmb_client_drain(struct shmb_client *client);
void __wrap_shmb_event_free(struct shmb_event *event);
static struct shmb_bell_segment broker_bell;
static struct shmb_client nobody = { .lock = PTHREAD_MUTEX_INITIALIZER, .bell = &broker_bell };

static struct stage *stage;
static struct step steps[N_SIDES];
static struct step *stopped = steps; /* the one that is first */
static struct {
	uint64_t after, from; /* a pad may lie between the two */
} positions[N_RECORDS];
static uint8_t payloads[N_RECORDS][LEN_MAX];

/* ---- records: the length and the place of each follow from its number --------------------------- */

static uint32_t len_of(uint64_t index)
{
	static const uint32_t lens[] = { 56, 8, 0, 200, 24, 100, 8, 296, 64 };

	return lens[index % SHMB_ARRAY_LEN(lens)];
}

static void place_records(uint64_t position)
{
	for (uint32_t i = 0; i < N_RECORDS; i++) {
		uint64_t span = shmb_record_span(len_of(i)), rest = RING_LEN - position % RING_LEN;

		positions[i].after = position;
		positions[i].from = position + (span > rest ? rest : 0);
		position = positions[i].from + span;
	}
}

/* Before there are children, which have a copy. */
static void fill_payloads(void)
{
	for (uint32_t i = 0; i < N_RECORDS; i++)
		for (uint32_t at = 0; at < len_of(i); at++)
			payloads[i][at] =
				(uint8_t)(((i + 1) * 0x9e3779b97f4a7c15ull >> (at & 7) * 8) + at);
}

static void check_record(const uint8_t *data, uint32_t len, uint64_t index)
{
	if (index >= N_RECORDS || len != len_of(index) || memcmp(data, payloads[index], len))
		step_fail(stopped, "record %llu is torn", (unsigned long long)index);
}

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason)
{
	(void)member;
	(void)pair_id;
	(void)reason;
	stage->accused = true;
}

int __wrap_shmb_client_drain(struct shmb_client *client)
{
	(void)client;
	return 0;
}

void __wrap_shmb_event_free(struct shmb_event *event)
{
	(void)event;
}

static int stage_map(struct shmb_map *map, int token)
{
	void *bases[] = { stage->lane,	    &stage->cursor,	 &stage->bell,
			  stage->next_lane, &stage->next_cursor, &stage->next_bell };

	*map = (struct shmb_map){ .base = bases[token] };
	return 0;
}

/* The only memory that a subscriber asks for. */
static void *stage_lane(void)
{
	return memset(&stage->next_sub_lane, 0, sizeof(stage->next_sub_lane));
}

static uint64_t next_ns(void)
{
	return stage->now_ns += ARM_LOOK_NS / 2 + 1;
}

static void sleep_in_lane(void)
{
	stage->waits = true;
}

static void ring_publisher_bell(void)
{
	stage->n_rung++;
}

/* ---- the calls --------------------------------------------------------------------------------- */

static int32_t send_next(void)
{
	uint64_t index = stage->publisher.writer.sequence - SEQUENCE;

	return shmb_publisher_send(&stage->publisher, payloads[index], len_of(index));
}

static void run_publisher(void *context)
{
	uint64_t index = stage->publisher.writer.sequence - SEQUENCE;
	static uint8_t many[N_CALL * LEN_MAX];
	uint32_t lens[N_CALL], len = 0;

	(void)context;
	switch (stage->row) {
	case ROW_MEET:
	case ROW_CURSOR:
		pub_on_pair(&stage->publisher.member, &stage->told);
		stage->sent = send_next();
		break;
	case ROW_MOVE:
		shmb_member_sync(&stage->publisher.member);
		stage->sent = send_next();
		break;
	case ROW_MANY:
		for (uint32_t i = 0; i < N_CALL; i++) {
			lens[i] = len_of(index + i);
			memcpy(many + len, payloads[index + i], lens[i]);
			len += lens[i];
		}
		stage->sent = shmb_publisher_send_many(&stage->publisher, many, 0, lens, N_CALL);
		break;
	case ROW_SPACE:
		stage->sent = -EAGAIN;
		if (!fits(&stage->publisher, len_of(index)))
			sleep_until(&stage->publisher, fits, len_of(index), 0);
		break;
	default:
		stage->sent = send_next();
		break;
	}
}

static void look_and_release(struct shmb_subscriber *subscriber)
{
	int32_t n = shmb_subscriber_peek(subscriber, N_CALL);

	for (int32_t i = 0; i < n; i++) {
		const uint8_t *data = (const uint8_t *)(uintptr_t)subscriber->view.data;

		stage->lens[i] = subscriber->view.len;
		memcpy(stage->out + (uint32_t)i * subscriber->view.len,
		       data + (uint32_t)i * subscriber->view.stride, subscriber->view.len);
	}
	stage->got = n;
	if (n > 0 && shmb_subscriber_release(subscriber, (uint32_t)n) < 0)
		stage->got = -EPROTO;
}

static void recv_one(struct shmb_subscriber *subscriber)
{
	stage->got = shmb_subscriber_recv(subscriber, stage->out, sizeof(stage->out));
	stage->lens[0] = (uint32_t)stage->got;
	if (stage->got >= 0)
		stage->got = 1;
}

static void run_subscriber(void *context)
{
	struct shmb_subscriber *subscriber = &stage->subscriber;

	(void)context;
	switch (stage->row) {
	case ROW_MANY:
		stage->got = shmb_subscriber_recv_many(subscriber, stage->out, sizeof(stage->out),
						       stage->lens, N_CALL);
		break;
	case ROW_ROOM:
		look_and_release(subscriber);
		break;
	case ROW_SLEEP:
		stage->got = -EAGAIN;
		stage->asleep = arm(subscriber, SHMB_SLEEP_FUTEX) == 0;
#ifdef SHMB_MUTATE_LOOK
		SHMB_STORE(late_word, late_asleep);
#endif
		break;
	case ROW_CURSOR:
		shmb_member_sync(&subscriber->member);
		recv_one(subscriber);
		break;
	default:
		recv_one(subscriber);
		break;
	}
}

/* ---- before the calls -------------------------------------------------------------------------- */

static void prepare_lane(uint64_t position)
{
	struct shmb_lane_segment *lane = (struct shmb_lane_segment *)(void *)stage->lane;
	struct shmb_lane_writer *writer = &stage->publisher.writer;

	shmb_lane_writer_init(writer, lane, RING_LEN);
	writer->position = position;
	writer->sequence = SEQUENCE;
	writer->intent = position + 8;
	lane->intent = writer->intent;
	lane->marks[0] = (struct shmb_lane_mark){ position, SEQUENCE };
	writer->next_mark = 1;
	/* Wherever a reader looks too early, it finds a header that it would believe. */
	for (uint32_t i = 0; i < RING_LEN; i += 8)
		*shmb_lane_word(writer->ring, i) =
			SHMB_RECORD_VALID | 8 | (SEQUENCE + i % 64) << SHMB_RECORD_SEQ_SHIFT;
	*shmb_lane_word(writer->ring, position % RING_LEN) = 0;
	writer->limit = 0;
	shmb_bell_start(&stage->bell, position, SEQUENCE);
}

#ifdef SHMB_MUTATE_PREPARE
/* What it moves to does not hold what its subscriber has not read yet. */
static int forget_to_prepare(struct shmb_member *member, void *to)
{
	(void)member;
	(void)to;
	return 0;
}
#define pub_on_prepare forget_to_prepare
#endif

static void prepare_publisher(bool lossy)
{
	struct shmb_publisher *publisher = &stage->publisher;

	publisher->member.fork_guard = &stage->fork_guard;
	publisher->member.epoch = &stage->epoch;
	publisher->record_len_max = shmb_record_len_max(RING_LEN);
	publisher->inline_len_max = UINT32_MAX;
	publisher->full_sequence = UINT64_MAX;
	stage->pair[0] = (struct pub_pair){ .id = 1,
					    .peer_id = SUBSCRIBER_ID,
					    .words = &stage->cursor,
					    .slot = &stage->slot,
					    .bell_words = &stage->bell,
					    .lossy = lossy,
					    .head = publisher->writer.position,
					    .start_position = publisher->writer.position,
					    .start_sequence = publisher->writer.sequence };
	stage->sleeper[0].sleep = &stage->cursor.sleep;
	publisher->pairs = stage->pair;
	publisher->sleepers = stage->sleeper;
	publisher->n_pairs = 1;
	publisher->cap_pairs = 2;
	publisher->member.channel = &stage->channel;
	publisher->member.client = &nobody;
	publisher->member.own = (struct shmb_map){ stage->lane, LANE_LEN };
	publisher->member.own_id = 1;
	publisher->member.on_pair = pub_on_pair;
	publisher->member.on_prepare = pub_on_prepare;
	publisher->member.is_complete = pub_is_complete;
	publisher->member.on_move = pub_on_move;
}

static void prepare_reader(bool lossy)
{
	struct shmb_subscriber *subscriber = &stage->subscriber;

	stage->channel.lane_len = RING_LEN;
	stage->channel.max_publishers = 1;
	subscriber->member.client = &nobody;
	subscriber->member.own = (struct shmb_map){ &stage->cursor, SHMB_BLOCK_LEN };
	subscriber->member.own_id = 1;
	subscriber->member.on_pair = sub_on_pair;
	subscriber->member.on_prepare = sub_on_prepare;
	subscriber->member.is_complete = sub_is_complete;
	subscriber->member.on_move = sub_on_move;
	subscriber->spare = &stage->spare;
	subscriber->cap_lanes = 2;
	subscriber->member.fork_guard = &stage->fork_guard;
	subscriber->member.epoch = &stage->epoch;
	subscriber->member.channel = &stage->channel;
	subscriber->cursor = &stage->cursor;
	subscriber->lanes = stage->sub_lane_array;
	subscriber->lossy = lossy;
	stage->sub_lane_array[0] = &stage->sub_lane;
	stage->sub_lane = (struct sub_lane){ .pair_id = 1,
					     .publisher_id = PUBLISHER_ID,
					     .lane.base = stage->lane,
					     .bell_words = &stage->bell,
					     .words = &stage->cursor,
					     .slot = &stage->slot,
					     .lossy = lossy,
					     .watched = lossy };
	subscriber->n_lanes = 1;
	set_hot(subscriber);
	sub_attach_lane(subscriber, &stage->sub_lane);
}

/* What the broker says to one of the two of the pair. */
static void announce(struct shmb_event *event, uint64_t id, bool publisher, enum token peer,
		     enum token bell)
{
	*event = (struct shmb_event){
		.type = SHMB_MSG_PAIR,
		.pair = { .pair_id = id,
			  .peer_id = publisher ? SUBSCRIBER_ID : PUBLISHER_ID,
			  .lane_len = RING_LEN,
			  .history = HISTORY },
		.n_fds = 2,
		.fds = { (int)peer, (int)bell },
		.descriptors = { { .role = SHMB_FD_ROLE_PEER,
				   .segment_len = publisher ? SHMB_BLOCK_LEN + sizeof(stage->slot)
							    : LANE_LEN },
				 { .role = SHMB_FD_ROLE_BELL } },
	};
}

/* The broker has granted another segment, was asked to tell of it, and has told. */
static void prepare_move(struct shmb_member *member, void *to)
{
	member->move = &stage->move;
	member->next = (struct shmb_map){ to, member->own.len };
	member->next_id = 2;
	member->asked = member->answered = true;
	member->staged = &stage->staged;
}

static void prepare_moves(enum row row)
{
	struct shmb_subscriber *subscriber = &stage->subscriber;

	if (row == ROW_CURSOR) {
		announce(&stage->staged, 2, false, TOKEN_LANE, TOKEN_NEXT_BELL);
		announce(&stage->told, 2, true, TOKEN_NEXT_CURSOR, TOKEN_NEXT_BELL);
		prepare_move(&subscriber->member, &stage->next_cursor);
		return;
	}
	if (row != ROW_MOVE && row != ROW_FOLLOW)
		return;
	/* The subscriber was told first. */
	announce(&stage->told, 2, false, TOKEN_NEXT_LANE, TOKEN_NEXT_BELL);
	sub_on_pair(&subscriber->member, &stage->told);
	announce(&stage->staged, 2, true, TOKEN_CURSOR, TOKEN_NEXT_BELL);
	prepare_move(&stage->publisher.member, stage->next_lane);
	if (row == ROW_FOLLOW)
		shmb_member_sync(&stage->publisher.member);
}

/* They have never met; the publisher has published for others. */
static void part(void)
{
	stage->publisher.n_pairs = 0;
	stage->pair[0] = (struct pub_pair){ 0 };
	memset(&stage->bell, 0, sizeof(stage->bell));
	memset(&stage->slot, 0, sizeof(stage->slot));
	stage->sub_lane.attached = false;
	stage->sub_lane.reader = (struct shmb_lane_reader){ 0 };
	announce(&stage->told, 1, true, TOKEN_CURSOR, TOKEN_BELL);
}

static void must_send(void)
{
	if (send_next() != 0)
		step_fail(stopped, "the ring cannot be prepared");
}

static void prepare_stage(uint32_t offset, enum row row)
{
	const struct shmb_lane_writer *writer = &stage->publisher.writer;
	uint64_t start = POSITION + offset;

	memset(stage, 0, sizeof(*stage));
	stage->fork_guard = 1;
	stage->row = row;
	place_records(start);
	prepare_lane(start);
	prepare_publisher(row == ROW_LOSSY);
	prepare_reader(row == ROW_LOSSY);
	switch (row) {
	case ROW_ROOM:
	case ROW_SPACE:
		while (fits(&stage->publisher, len_of(writer->sequence - SEQUENCE)))
			must_send();
		break;
	case ROW_LOSSY:
		/* From a third of a lap before it is overwritten to a whole one behind. */
		for (uint32_t i = 0; i < 8 + (offset / 8 + 4) % 16; i++)
			must_send();
		break;
	case ROW_SLEEP:
		break;
	case ROW_MEET:
		part();
		for (uint32_t i = 0; i < offset / 8 % 32; i++)
			must_send();
		break;
	default:
		for (uint32_t i = 0; i < offset / 8 % 3; i++)
			must_send();
		/* Who moves may have a full ring. */
		while (row >= ROW_MOVE && offset / 8 % 4 == 3 &&
		       fits(&stage->publisher, len_of(writer->sequence - SEQUENCE)))
			must_send();
		break;
	}
	prepare_moves(row);
	stage->n_sent = writer->sequence - SEQUENCE;
}

/* ---- after the calls --------------------------------------------------------------------------- */

/* It has this record in its hands: the next one, or one behind those that it knows it has lost. */
static void receive(const uint8_t *data, uint32_t len, uint64_t index)
{
	check_record(data, len, index);
	/* Of the history it gets the last records, but no more than half a ring. */
	if (stage->row == ROW_MEET && !stage->n_received && index + HISTORY >= stage->n_sent &&
	    index <= stage->n_sent)
		stage->first = index;
	if (index < stage->first || (index > stage->first && stage->row != ROW_LOSSY))
		step_fail(stopped, "record %llu comes, not %llu", (unsigned long long)index,
			  (unsigned long long)stage->first);
	stage->first = index + 1;
	stage->n_received++;
}

static void receive_call(void)
{
	uint64_t index = stage->subscriber.view.sequence - SEQUENCE;
	const uint8_t *out = stage->out;

	if (stage->got < 0 && stage->got != -EAGAIN)
		step_fail(stopped, "receiving returned %d", stage->got);
	for (int32_t i = 0; i < stage->got; i++) {
		receive(out, stage->lens[i], index + (uint32_t)i);
		out += stage->lens[i];
	}
}

static void receive_all(void)
{
	int32_t result;

	while ((result = shmb_subscriber_recv(&stage->subscriber, stage->out,
					      sizeof(stage->out))) >= 0)
		receive(stage->out, (uint32_t)result, stage->subscriber.view.sequence - SEQUENCE);
	if (result != -EAGAIN)
		step_fail(stopped, "the subscriber does not go on: %d", result);
	if (stage->row != ROW_MEET && stage->n_received + stage->subscriber.lost != stage->first)
		step_fail(stopped, "%llu records received, %llu lost: are not %llu",
			  (unsigned long long)stage->n_received,
			  (unsigned long long)stage->subscriber.lost,
			  (unsigned long long)stage->first);
}

/* The publisher goes on as far as the cursor allows; the dead one's successor finds all of it. */
static void succeed_subscriber(void)
{
	const struct shmb_lane_writer *writer = &stage->publisher.writer;
	uint64_t position = stage->slot.position, lost = 0;
	const struct pub_pair *pair = stage->publisher.pairs;
	struct shmb_lane_reader reader;
	struct shmb_record record;
	uint32_t index = 0;
	int result;

	/* Nobody has read anything, if they have not met. */
	if (stage->row == ROW_MEET && stage->slot.pair_id != 1)
		return;
	if (stage->row == ROW_CURSOR && pair->slot == &stage->next_slot && pair->slot->pair_id == 2)
		position = pair->slot->position;
	/* Behind the record before it, where a pad may come, or directly in front of it. */
	while (index < N_RECORDS && positions[index].after != position &&
	       positions[index].from != position)
		index++;
	if (index == N_RECORDS)
		step_fail(stopped, "the cursor is at no record");
	for (uint32_t i = 0; i < 40 && send_next() == 0; i++)
		;
	shmb_lane_reader_init(&reader, writer->lane, RING_LEN, position, SEQUENCE + index);
	while ((result = stage->row == ROW_LOSSY ? shmb_lane_peek_lossy(&reader, &record, &lost)
						 : shmb_lane_peek(&reader, &record)) == 1) {
		check_record(record.data, record.len, reader.sequence - SEQUENCE);
		shmb_lane_skip(&reader, &record);
	}
	if (result < 0 || reader.sequence != writer->sequence)
		step_fail(stopped, "the successor finds %llu of %llu records",
			  (unsigned long long)(reader.sequence - SEQUENCE),
			  (unsigned long long)(writer->sequence - SEQUENCE));
}

static void check_awake(void)
{
	uint64_t next = stage->publisher.writer.sequence - SEQUENCE;

	if (stage->asleep && next > stage->first && !stage->bell.wake)
		step_fail(stopped, "the subscriber sleeps, and nobody has rung");
	if (stage->waits && !stage->n_rung && fits(&stage->publisher, len_of(next)))
		step_fail(stopped, "the publisher sleeps, and nobody has rung");
}

/* The broker says that it has died, of the pair that was told last. */
static void bury_publisher(void)
{
	const struct sub_lane *lane = find_publisher(&stage->subscriber, PUBLISHER_ID);
	struct shmb_msg_unpair unpair = { .reason = SHMB_GONE_DIED };

	if (!lane)
		return;
	unpair.pair_id = lane->pair_id;
	sub_on_unpair(&stage->subscriber.member, &unpair);
}

/* Both calls are over, or one is and the other one's process is @gone. */
static void judge(enum side gone)
{
	uint64_t n = stage->row == ROW_MANY ? N_CALL : 1;

	if (stage->accused)
		step_fail(stopped, "an honest one is accused");
	if (gone == SUBSCRIBER) {
		succeed_subscriber();
		return;
	}
	receive_call();
	if (gone == N_SIDES)
		check_awake();
	receive_all();
	if (gone == PUBLISHER) {
		bury_publisher();
		receive_all();
		if (stage->subscriber.n_lanes)
			step_fail(stopped, "the lane of the dead is there for ever");
		if (stage->row == ROW_MEET && !stage->n_received)
			return;
		if (stage->first != stage->n_sent && stage->first != stage->n_sent + n)
			step_fail(stopped, "%llu records are there",
				  (unsigned long long)stage->first);
		return;
	}
	n = stage->sent < 0 ? 0 : n;
	if (stage->sent < 0 && stage->sent != -EAGAIN)
		step_fail(stopped, "sending returned %d", stage->sent);
	if (stage->first != stage->n_sent + n)
		step_fail(stopped, "%llu of %llu records have come",
			  (unsigned long long)stage->first,
			  (unsigned long long)(stage->n_sent + n));
	for (uint32_t i = 0; i < 3; i++) {
		if (send_next() != 0)
			step_fail(stopped, "the publisher does not go on");
		receive_all();
	}
	if (stage->first != stage->n_sent + n + 3)
		step_fail(stopped, "the subscriber does not get what is new");
}

/* ---- interleaving ------------------------------------------------------------------------------ */

static void (*const calls[N_SIDES])(void *context) = { run_publisher, run_subscriber };

/* The first one stands between two instructions. The other one makes its call, here. */
static void preempt_once(enum side first)
{
	static struct step_state *state;
	static struct stage before, between;

	state = step_save(&steps[first], state);
	memcpy(&before, stage, sizeof(before));
	calls[!first](NULL);
	memcpy(&between, stage, sizeof(between));
	judge(first);
	memcpy(stage, &between, sizeof(between));
	step_finish(&steps[first]);
	judge(N_SIDES);
	memcpy(stage, &before, sizeof(before));
	step_restore(&steps[first], state);
	rows[stage->row].n[STEP_SNAPSHOT]++;
	rows[stage->row].n[STEP_PAIR]++;
}

/* The same, but the other one is preempted in turn, after each instruction, until the first is done. */
static void preempt_twice(enum side first)
{
	static struct step_state *states[N_SIDES];
	static struct stage before, between;
	struct step *other = &steps[!first];

	memcpy(&before, stage, sizeof(before));
	states[first] = step_save(&steps[first], states[first]);
	step_begin(other);
	while (step_next(other)) {
		states[!first] = step_save(other, states[!first]);
		memcpy(&between, stage, sizeof(between));
		step_finish(&steps[first]);
		step_finish(other);
		judge(N_SIDES);
		memcpy(stage, &between, sizeof(between));
		step_restore(&steps[first], states[first]);
		step_restore(other, states[!first]);
		rows[stage->row].n[STEP_PAIR]++;
	}
	memcpy(stage, &before, sizeof(before));
}

static void step_pair(uint32_t offset, enum row row, enum side first, bool twice)
{
	static uint8_t before[offsetof(struct stage, shared_end)];
	bool running = true;

	stopped = &steps[first];
	step_begin(stopped);
	for (uint32_t side = 0; side < N_SIDES; side++)
		snprintf(steps[side].scenario, sizeof(steps[side].scenario),
			 "offset %u, %s, the %s is first", offset, rows[row].name,
			 first == PUBLISHER ? "publisher" : "subscriber");
	prepare_stage(offset, row);
	memset(before, 0, sizeof(before));
	while (running) {
		preempt_once(first);
		/* Between two stores it makes no difference to the other one where it stands. */
		if (twice && row < ROW_MEET && memcmp(before, stage, sizeof(before)))
			preempt_twice(first);
		memcpy(before, stage, sizeof(before));
		running = step_next(&steps[first]);
	}
}

/* A lane is copied, which takes long: not at every offset, but with a full ring at some. */
static bool has_row(uint32_t offset, enum row row)
{
	return row != ROW_MOVE || offset / 8 % 8 == 0 || offset / 8 % 8 == 3;
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);

	if (STEP_SANITIZED) {
		puts("a sanitizer's memory cannot be put back to where it was");
		return 77;
	}
	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (stage == MAP_FAILED)
		return EXIT_FAILURE;
	fill_payloads();
	for (uint32_t side = 0; side < N_SIDES; side++)
		step_start(&steps[side], calls[side], NULL);
	for (uint32_t offset = 0; offset < RING_LEN; offset += quick ? 8 * QUICK_STRIDE : 8)
		for (uint32_t i = 0; i < N_ROWS * N_SIDES; i++)
			if (has_row(offset, (enum row)(i / N_SIDES)))
				step_pair(offset, (enum row)(i / N_SIDES), (enum side)(i % N_SIDES),
					  offset % (quick ? RING_LEN : TWICE_STRIDE) == 0);
	for (uint32_t side = 0; side < N_SIDES; side++)
		step_kill(&steps[side]);
	step_table("kill-pair", rows, N_ROWS, quick ? QUICK_DIVISOR : 1);
	return EXIT_SUCCESS;
}
