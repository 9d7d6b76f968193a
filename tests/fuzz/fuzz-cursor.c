/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A publisher whose subscribers change their cursors between any two of its loads. Whatever they
 * write, a position that has been read once is never taken back, the lane is never written further
 * than a ring beyond the slowest, each liar is reported once, and no call takes long.
 */

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

#include "lib/member.h"
static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason);
#define shmb_member_report accuse
#include "tests/publisher-files.h"

#define RING_LEN 4096u
#define N_PAIRS	 3u

static struct fuzz_script script;
static struct {
	_Alignas(4096) uint8_t lane[SHMB_BLOCK_LEN + RING_LEN];
	struct shmb_cursor_segment cursors[N_PAIRS];
	struct shmb_cursor_lane slots[N_PAIRS];
	struct shmb_bell_segment bells[N_PAIRS];
	struct pub_pair pairs[N_PAIRS];
	struct pub_sleeper sleepers[N_PAIRS];
	struct shmb_publisher publisher;
	uint32_t n_accused[N_PAIRS];
	uint32_t n_loads;
} stage;

static void accuse(struct shmb_member *member, uint64_t pair_id, uint32_t reason)
{
	(void)member;
	FUZZ_CHECK(pair_id >= 1 && pair_id <= N_PAIRS && reason == EBADMSG);
	FUZZ_CHECK(stage.n_accused[pair_id - 1]++ == 0);
}

/* The subscribers' turn, before each load of what they write. */
static void scribble(const void *word)
{
	uint64_t slot = ((uintptr_t)word - (uintptr_t)stage.slots) / sizeof(stage.slots[0]);
	uint64_t cursor = ((uintptr_t)word - (uintptr_t)stage.cursors) / sizeof(stage.cursors[0]);

	if (cursor < N_PAIRS) {
		stage.n_loads++;
		stage.cursors[cursor].sleep = (uint32_t)fuzz_number(&script, 1);
		return;
	}
	if (slot >= N_PAIRS)
		return;
	stage.n_loads++;
	switch (fuzz_number(&script, 1) % 8) {
	case 0: /* honest: it has read everything */
		stage.slots[slot].position = stage.publisher.writer.position;
		break;
	case 1:
		stage.slots[slot].position = stage.pairs[slot].head + fuzz_number(&script, 2);
		break;
	case 2:
		stage.slots[slot].position = stage.pairs[slot].head - fuzz_number(&script, 1);
		break;
	case 3:
		stage.slots[slot].position = fuzz_number(&script, 8);
		break;
	case 4:
		stage.slots[slot].pair_id ^= fuzz_number(&script, 1);
		break;
	}
}

static void prepare_stage(void)
{
	static const uint8_t guard = 1;
	static const uint64_t epoch;
	struct shmb_publisher *publisher = &stage.publisher;
	uint64_t position = fuzz_number(&script, 4) * 8;

	memset(&stage, 0, sizeof(stage));
	publisher->member.fork_guard = &guard;
	publisher->member.epoch = &epoch;
	publisher->record_len_max = shmb_record_len_max(RING_LEN);
	publisher->inline_len_max = UINT32_MAX;
	publisher->pairs = stage.pairs;
	publisher->sleepers = stage.sleepers;
	publisher->n_pairs = N_PAIRS;
	shmb_lane_writer_init(&publisher->writer, (void *)stage.lane, RING_LEN);
	publisher->writer.position = position;
	publisher->writer.limit = 0;
	for (uint32_t i = 0; i < N_PAIRS; i++) {
		stage.slots[i] = (struct shmb_cursor_lane){ .position = position };
		stage.slots[i].pair_id = i + 1;
		stage.pairs[i] = (struct pub_pair){ .id = i + 1,
						    .words = &stage.cursors[i],
						    .slot = &stage.slots[i],
						    .bell_words = &stage.bells[i],
						    .lossy = i == N_PAIRS - 1,
						    .head = position };
		stage.sleepers[i].sleep = &stage.cursors[i].sleep;
	}
}

static void call(struct shmb_publisher *publisher)
{
	static const uint8_t data[4 * RING_LEN];
	uint32_t len = (uint32_t)fuzz_number(&script, 2) % (RING_LEN / 2 + 64);

	switch (fuzz_number(&script, 1) % 4) {
	case 0:
		shmb_publisher_send(publisher, data, len);
		break;
	case 1:
		shmb_publisher_send_many(publisher, data, len % 512, NULL, 16);
		break;
	case 2:
		if (shmb_publisher_loan(publisher, len) == 0)
			shmb_publisher_publish(publisher, len / 2);
		break;
	default:
		pub_refresh_limit(publisher);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct shmb_publisher *publisher = &stage.publisher;

	script = (struct fuzz_script){ data, size };
	prepare_stage();
	for (int n = 0; n < 256 && script.left; n++) {
		uint64_t heads[N_PAIRS];

		for (uint32_t i = 0; i < N_PAIRS; i++)
			heads[i] = stage.pairs[i].head;
		stage.n_loads = 0;
		call(publisher);
		FUZZ_CHECK(stage.n_loads <= 16 * 8 * N_PAIRS);
		for (uint32_t i = 0; i < N_PAIRS; i++) {
			FUZZ_CHECK(stage.pairs[i].head >= heads[i]);
			FUZZ_CHECK(stage.pairs[i].head <= publisher->writer.position);
			FUZZ_CHECK(stage.pairs[i].lossy ||
				   publisher->writer.position - stage.pairs[i].head <=
					   RING_LEN - 8);
		}
	}
	return 0;
}
