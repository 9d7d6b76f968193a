/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Blocks under the model checker: lib/block.h itself. Whatever the interleaving, the memory and the
 * moment of the subscriber's death, what it holds or has copied is of the record that it wanted, and
 * when it has let go of all, or was never there, the block can be used again. What is mirrored here is
 * how the publisher uses these lines in reclaim() and look_at_held(), and the subscriber in
 * sub_pin_block(), keep_peeked() and take().
 */

#include "tests/model/dfs.h"

#include <shmbroker/layout.h>
#include <shmbroker/ring.h>

/* Each of these fences is a site of its own. */
#define shmb_fence() dfs_fence(DFS_SEQ_CST, DFS_HERE("fence"))

#include "lib/bell.h"
#include "lib/block.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

#define POSITION 8u /* of the record whose block it is */
#define END	 32u
#define NAME	 (SHMB_HOLD_VALID | 1)
#define N_HOLDS	 2u
#define N_WORDS	 2u
#define LOOKS	 3

enum {
	PUBLISHER,
	SUBSCRIBER
};

static struct shmb_lane_segment lane;
static struct shmb_cursor_hold holds[N_HOLDS];
static struct shmb_cursor_lane slot;
static uint64_t block[N_WORDS]; /* 0: of the record at POSITION; 1: of a later one */
static bool reused;

/* The cursor's first block is much longer than what is looked at. */
static const struct shmb_cursor_segment *cursor(void)
{
	return (const void *)((const uint8_t *)holds - offsetof(struct shmb_cursor_segment, holds));
}

/* ---- publisher --------------------------------------------------------------------------------- */

static void use_again(void)
{
	for (unsigned int i = 0; i < N_WORDS; i++)
		SHMB_STORE(&block[i], 1);
	reused = true;
}

/* Everybody whom it waits for has passed the record. */
static void reclaim(void)
{
	shmb_block_raise_floor(&lane, END);
	for (int i = 0; i < LOOKS && !reused; i++)
		if (!shmb_block_is_held(cursor(), N_HOLDS, NAME))
			use_again();
}

static void reclaim_when_passed(void)
{
	for (int i = 0; i < LOOKS; i++)
		if (shmb_cursor_position(&slot) >= END) {
			reclaim();
			return;
		}
}

/* ---- subscriber -------------------------------------------------------------------------------- */

static void look(void)
{
	uint64_t words[N_WORDS];

	for (unsigned int i = 0; i < N_WORDS; i++)
		dfs_copy(&words[i], &block[i]);
	shmb_block_let_go(&holds[1]);
	dfs_settle();
	for (unsigned int i = 0; i < N_WORDS; i++)
		if (words[i])
			dfs_fail("what is held was overwritten");
}

/* As a lossy subscriber peeks and releases, or holds. */
static void keep_and_look(void)
{
	SHMB_STORE(&holds[1].block, NAME);
	if (shmb_block_keep(&lane, POSITION))
		look();
	else
		shmb_block_let_go(&holds[1]);
}

/* As a lossy subscriber receives. */
static void copy(void)
{
	uint64_t words[N_WORDS];
	bool gone;

	for (unsigned int i = 0; i < N_WORDS; i++)
		dfs_copy(&words[i], &block[i]);
	gone = shmb_block_gone(&lane, POSITION);
	dfs_settle();
	for (unsigned int i = 0; i < N_WORDS && !gone; i++)
		if (words[i])
			dfs_fail("what was copied is of another record");
}

/* As a reliable one holds. */
static void hold_and_pass(void)
{
	SHMB_STORE(&holds[1].block, NAME);
	shmb_cursor_store(&slot, END, 1);
	look();
}

/* As a reliable one that is done with it. */
static void look_and_pass(void)
{
	uint64_t words[N_WORDS];

	for (unsigned int i = 0; i < N_WORDS; i++)
		dfs_copy(&words[i], &block[i]);
	shmb_cursor_store(&slot, END, 1);
	dfs_settle();
	for (unsigned int i = 0; i < N_WORDS; i++)
		if (words[i])
			dfs_fail("what is read was overwritten");
}

/* ---- scenarios --------------------------------------------------------------------------------- */

static void set_up(void)
{
	reused = false;
	dfs_ignore(&slot.sequence);
}

/* With everything visible: a hold that is gone is in nobody's way. */
static void check(void)
{
	if (reused || dfs_killed(SUBSCRIBER))
		return;
	reclaim();
	if (!reused)
		dfs_fail("a block that nobody holds is lost");
}

static const struct dfs_scenario scenarios[] = {
	{ "block, kept",
	  set_up,
	  { reclaim, keep_and_look },
	  check,
	  1u << SUBSCRIBER,
	  5,
	  3,
	  { 5600, 1300 } },
	{ "block, copied", set_up, { reclaim, copy }, check, 0, 5, 3, { 620, 260 } },
	{ "block, held",
	  set_up,
	  { reclaim_when_passed, hold_and_pass },
	  check,
	  1u << SUBSCRIBER,
	  5,
	  3,
	  { 7500, 1600 } },
	{ "block, passed",
	  set_up,
	  { reclaim_when_passed, look_and_pass },
	  check,
	  0,
	  5,
	  3,
	  { 120, 80 } },
};

int main(int argc, char **argv)
{
	dfs_share(&lane, sizeof(lane));
	dfs_share(holds, sizeof(holds));
	dfs_share(&slot, sizeof(slot));
	dfs_share(block, sizeof(block));
	return dfs_main(argc, argv, scenarios, N(scenarios));
}
