/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A reader of a lane whose writer changes it between any two loads. The ring ends at a page that
 * faults, and every answer is checked: a record lies in the ring, none is longer than the longest,
 * positions and sequence numbers only grow, and no call takes more than its few loads.
 */

#include <sys/mman.h>

#include <shmbroker/layout.h>

#include "tests/fuzz/fuzz.h"

static void scribble(const void *word);

#define SHMB_LOAD(pointer)		   (scribble(pointer), __atomic_load_n((pointer), __ATOMIC_RELAXED))
#define SHMB_LOAD_ACQUIRE(pointer)	   (scribble(pointer), __atomic_load_n((pointer), __ATOMIC_ACQUIRE))
#define SHMB_STORE(pointer, value)	   __atomic_store_n((pointer), (value), __ATOMIC_RELAXED)
#define SHMB_STORE_RELEASE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)
#define SHMB_FENCE_ACQUIRE()		   __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define SHMB_FENCE_RELEASE()		   __atomic_thread_fence(__ATOMIC_RELEASE)

#include <shmbroker/ring.h>

/* The subscriber's own functions, over the same lane. */
#include "lib/member.h"
static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason);
#define shmb_member_report accuse
#include "tests/subscriber-files.h"

#define RING_LEN  4096u
#define PAGE	  4096u
#define LOADS_MAX (8u * (2 + 2 + 3 * SHMB_LANE_N_MARKS))

static struct fuzz_script script;
static uint8_t *lane; /* first block and ring, with pages that fault around them */
static struct shmb_lane_reader *current;
static uint32_t n_loads, n_accused;
static volatile uint8_t sink;

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason)
{
	(void)member;
	FUZZ_CHECK(pair_id == 1 && reason == EBADMSG);
	n_accused++;
}

static void put(uint64_t offset, uint64_t word)
{
	*(uint64_t *)(void *)(lane + offset % (PAGE + RING_LEN) / 8 * 8) = word;
}

/* A header that the reader expects where it is, of a length that need not be true. */
static uint64_t header(uint64_t len)
{
	return SHMB_RECORD_VALID | (len & SHMB_RECORD_LEN_MASK) |
	       current->sequence << SHMB_RECORD_SEQ_SHIFT;
}

static void scribble_mark(void)
{
	struct shmb_lane_segment *words = (void *)lane;
	uint32_t i = (uint32_t)fuzz_number(&script, 1) % SHMB_LANE_N_MARKS;

	words->marks[i].position = current->position + fuzz_number(&script, 2) * 8;
	words->marks[i].sequence = current->sequence + fuzz_number(&script, 1);
	words->intent = words->marks[i].position + fuzz_number(&script, 2);
}

/* The writer's turn, before each load. */
static void scribble(const void *word)
{
	uint64_t offset = (uintptr_t)word - (uintptr_t)lane;

	if (offset >= PAGE + RING_LEN || !current)
		return;
	n_loads++;
	switch (fuzz_number(&script, 1) % 16) {
	case 1:
		put(offset, header(fuzz_number(&script, 1)));
		break;
	case 2:
		put(offset, header(fuzz_number(&script, 4)));
		break;
	case 3:
		put(offset, SHMB_RECORD_VALID | SHMB_RECORD_PAD | (PAGE + RING_LEN - offset - 8));
		break;
	case 4:
		put(offset, fuzz_number(&script, 8));
		break;
	case 5:
		put(fuzz_number(&script, 2), fuzz_number(&script, 8));
		break;
	case 6:
		scribble_mark();
		break;
	case 7:
		((struct shmb_lane_segment *)(void *)lane)->intent = fuzz_number(&script, 8);
		break;
	}
}

static void check_record(const struct shmb_lane_reader *reader, const struct shmb_record *record)
{
	uint64_t at = (uint64_t)(record->data - reader->ring);

	FUZZ_CHECK(at >= 8 && at <= RING_LEN && at % 8 == 0);
	FUZZ_CHECK(record->len <= RING_LEN / 2 - 16 && record->len <= RING_LEN - at);
	FUZZ_CHECK(record->span == shmb_record_span(record->len));
	FUZZ_CHECK((reader->position & reader->mask) == at - 8);
	for (uint32_t i = 0; i < record->len; i++)
		sink = record->data[i];
}

/* One call of the reader's functions, and what must hold after it. */
static void step(struct shmb_lane_reader *reader, struct shmb_record *record, int *have)
{
	struct shmb_lane_reader before = *reader;
	uint64_t op = fuzz_number(&script, 1) % 4, lost = 0;
	int result = 0;

	n_loads = 0;
	if (op == 0)
		result = shmb_lane_peek(reader, record);
	else if (op == 1)
		result = shmb_lane_peek_lossy(reader, record, &lost);
	else if (op == 2)
		shmb_lane_resync(reader, &lost);
	else if (*have)
		shmb_lane_skip(reader, record);
	FUZZ_CHECK(n_loads <= LOADS_MAX && (op != 0 || n_loads <= 2));
	FUZZ_CHECK(result == 0 || result == 1 || result == -EBADMSG);
	if (result == 1)
		check_record(reader, record);
	if (op == 0)
		FUZZ_CHECK(reader->position - before.position <= RING_LEN);
	if (op == 1 || op == 2)
		FUZZ_CHECK(reader->sequence - before.sequence == lost);
	/* A position near 2^64 may wrap; what matters is that it never steps back. */
	if (before.position < UINT64_MAX - 2 * RING_LEN)
		FUZZ_CHECK(reader->position >= before.position);
	FUZZ_CHECK(reader->position % 8 == 0 && reader->mask == before.mask);
	*have = op < 2 && result == 1;
}

static void run_reader(void)
{
	struct shmb_lane_reader reader;
	struct shmb_record record = { 0 };
	int have = 0;

	shmb_lane_reader_init(&reader, (void *)lane, RING_LEN, fuzz_number(&script, 4),
			      fuzz_number(&script, 2));
	current = &reader;
	for (int i = 0; i < 64 && script.left; i++)
		step(&reader, &record, &have);
	current = NULL;
}

/* The same under the library's calls. What they take out is never more than there is room for. */
static void run_calls(struct shmb_subscriber *subscriber)
{
	static uint8_t data[RING_LEN];
	uint32_t lens[8];
	int32_t n = 0;

	switch (fuzz_number(&script, 1) % 3) {
	case 0:
		n = shmb_subscriber_recv(subscriber, data,
					 (uint32_t)fuzz_number(&script, 2) % RING_LEN);
		break;
	case 1:
		n = shmb_subscriber_recv_many(subscriber, data, sizeof(data), lens, 8);
		for (int32_t i = 0; i < n; i++)
			FUZZ_CHECK(lens[i] <= RING_LEN / 2 - 16);
		break;
	default:
		n = shmb_subscriber_peek(subscriber, 8);
		if (n > 0) {
			const struct shmb_view *view = &subscriber->view;
			uint64_t end = (uint64_t)view->stride * (view->count - 1) + view->len;
			const uint8_t *from = (const uint8_t *)(uintptr_t)view->data;

			FUZZ_CHECK(view->count == (uint32_t)n && n <= 8);
			FUZZ_CHECK(from >= lane + PAGE && from + end <= lane + PAGE + RING_LEN);
			shmb_subscriber_release(subscriber, (uint32_t)fuzz_number(&script, 1) %
								    ((uint32_t)n + 1));
		}
	}
	FUZZ_CHECK(n_loads <= 16 * LOADS_MAX);
}

static void run_subscriber(bool lossy)
{
	static const uint8_t guard = 1;
	static const uint64_t epoch;
	struct shmb_cursor_segment cursor = { 0 };
	struct shmb_cursor_lane slot = { 0 };
	struct shmb_channel channel = { .lane_len = RING_LEN };
	struct shmb_bell_segment bell = { .attached = 1,
					  .start_position = fuzz_number(&script, 8),
					  .start_sequence = fuzz_number(&script, 2) };
	struct sub_lane sub = { .pair_id = 1, .bell_words = &bell, .slot = &slot };
	struct sub_lane *subs[1] = { &sub };
	struct shmb_subscriber subscriber = {
		.lanes = subs, .n_lanes = 1, .cursor = &cursor, .lossy = lossy
	};

	set_hot(&subscriber);
	sub.lane.base = lane;
	subscriber.member.fork_guard = &guard;
	subscriber.member.epoch = &epoch;
	subscriber.member.channel = &channel;
	n_accused = 0;
	current = &sub.reader;
	for (int i = 0; i < 64 && script.left; i++) {
		uint64_t before = sub.reader.sequence;

		n_loads = 0;
		run_calls(&subscriber);
		if (i)
			FUZZ_CHECK(sub.reader.sequence >= before);
	}
	FUZZ_CHECK(n_accused <= 1 && (n_accused == 0 || sub.finished));
	current = NULL;
}

static void map_stage(void)
{
	uint8_t *room = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	FUZZ_CHECK(room != MAP_FAILED);
	lane = room + PAGE;
	FUZZ_CHECK(mprotect(lane, PAGE + RING_LEN, PROT_READ | PROT_WRITE) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t mode;

	script = (struct fuzz_script){ data, size };
	if (!lane)
		map_stage();
	memset(lane, 0, PAGE + RING_LEN);
	mode = fuzz_number(&script, 1) % 4;
	if (mode < 2)
		run_reader();
	else
		run_subscriber(mode == 3);
	return 0;
}
