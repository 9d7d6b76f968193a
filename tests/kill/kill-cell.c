/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A publisher of a state channel is killed at every single instruction of a put, and a broker at every
 * instruction of inheriting what a dead publisher has left. Whatever they were at, the key has the
 * value before or the new one, whole; a reader finds it at once; the next broker inherits it; and the
 * next publisher goes on from it.
 */

#include "tests/kill/mutate.h"

#include <shmbroker/cell.h>

/* The broker's part, with the same mistakes. */
#include "daemon/key.c"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/kill/step.h"

#define CELL_LEN  512u
#define PUBLISHER 11u
#define SUCCESSOR 12u
#define TERM	  7u

/* Which slot is written: always the same would be that of the last value. */
#ifdef SHMB_MUTATE_ONE_SLOT
#define SLOT(version) 0u
#else
#define SLOT(version) ((uint32_t)(version)&1)
#endif

/* The segment of a publisher, and what it is told to put. */
struct lane {
	uint8_t block[SHMB_BLOCK_LEN];
	uint8_t cell[CELL_LEN];
};

/* The segment of the channel. */
struct directory {
	struct shmb_channel_segment block;
	struct shmb_state_key key;
	uint8_t cell[CELL_LEN];
};

static struct {
	uint64_t version;
	uint32_t len;
} * stage;

static struct lane *lane;
static struct segment lane_segment;
static struct directory *directory, spare;
static struct channel channel = { .pattern = SHMB_PATTERN_STATE,
				  .max_keys = 1,
				  .lane_len = CELL_LEN };
static struct step step;
static uint32_t before_len;

enum {
	PUT,
	INHERIT
};

static struct step_row rows[2] = {
	{ .name = "put", .min = { [STEP_SNAPSHOT] = 500 } },
	{ .name = "inherit", .min = { [STEP_SNAPSHOT] = 500 } },
};

static void fill(uint8_t *value, uint64_t version, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		value[i] = (uint8_t)(version * 31 + i);
}

static void put(void *context)
{
	uint8_t value[CELL_LEN];

	(void)context;
	fill(value, stage->version, stage->len);
	shmb_cell_write(lane->cell, CELL_LEN, SLOT(stage->version), stage->version, TERM, value,
			stage->len);
}

static void inherit(void *context)
{
	(void)context;
	key_disclaim_all(&channel, PUBLISHER, &lane_segment);
}

/* What a reader finds. Returns the version, 0 if there is none. */
static uint64_t judge_cell(const uint8_t *cell)
{
	uint8_t value[CELL_LEN], expected[CELL_LEN];
	uint64_t version, term;
	uint32_t len;
	int got = shmb_cell_read(cell, CELL_LEN, value, sizeof(value), &version, &term);

	if (got == -ENODATA && stage->version == 1)
		return 0;
	if (got < 0)
		step_fail(&step, "a reader gets %d", got);
	if (version != stage->version && version + 1 != stage->version)
		step_fail(&step, "version %llu of %llu", (unsigned long long)version,
			  (unsigned long long)stage->version);
	len = version == stage->version ? stage->len : before_len;
	fill(expected, version, len);
	if ((uint32_t)got != len || term != TERM || memcmp(value, expected, len) != 0)
		step_fail(&step, "version %llu is not what was put", (unsigned long long)version);
	return version;
}

/* As a subscriber looks it up. */
static uint64_t judge_directory(const struct directory *from)
{
	return judge_cell(from->key.source ? lane->cell : from->cell);
}

static void reset_directory(struct directory *to)
{
	memset(&to->key, 0, sizeof(to->key) + CELL_LEN);
	to->key = (struct shmb_state_key){
		.owner = PUBLISHER, .source = PUBLISHER, .term = TERM, .key_len = 1
	};
}

/* The broker hears of the death, and somebody else claims the key. */
static void judge_successors(struct directory *of, uint64_t version)
{
	struct shmb_channel_segment *before = channel.map;
	uint8_t cell[CELL_LEN] = { 0 }, value = 1;
	const struct shmb_cell_slot *slot;

	channel.map = &of->block;
	key_disclaim_all(&channel, PUBLISHER, &lane_segment);
	if (of->key.owner || of->key.source)
		step_fail(&step, "the key is not free");
	if (version && judge_cell(of->cell) != version)
		step_fail(&step, "another version was inherited");
	of->key.owner = SUCCESSOR;
	of->key.term = TERM + 1;
	/* It goes on with the version that it is told. */
	shmb_cell_write(cell, CELL_LEN, 0, key_version(&channel, 0) + 1, TERM + 1, &value, 1);
	if (shmb_cell_current(cell, CELL_LEN, &slot) <= version)
		step_fail(&step, "the successor's version is not higher");
	channel.map = before;
}

static void step_put(uint32_t len)
{
	uint64_t last = 0, version;

	stage->version++;
	stage->len = len;
	step_begin(&step);
	do {
		version = judge_cell(lane->cell);
		rows[PUT].n[STEP_SNAPSHOT]++;
		if (version < last)
			step_fail(&step, "version %llu came after version %llu",
				  (unsigned long long)version, (unsigned long long)last);
		last = version;
		reset_directory(&spare);
		judge_successors(&spare, version);
	} while (step_next(&step));
	if (judge_cell(lane->cell) != stage->version)
		step_fail(&step, "the value is not there after the put");
	before_len = len;
}

/* The value is there; the broker that inherits it is killed. */
static void step_inherit(void)
{
	reset_directory(directory);
	/* An older value from an earlier publisher. */
	shmb_cell_write(directory->cell, CELL_LEN, 0, 1, 1, "old", 3);
	step_begin(&step);
	do {
		rows[INHERIT].n[STEP_SNAPSHOT]++;
		if (judge_directory(directory) != stage->version)
			step_fail(&step, "a reader gets an older value");
		memcpy(&spare.key, &directory->key, sizeof(spare.key) + CELL_LEN);
		judge_successors(&spare, stage->version);
	} while (step_next(&step));
	if (directory->key.owner || directory->key.source)
		step_fail(&step, "the key is not free");
}

static void *share(size_t len)
{
	void *base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED)
		exit(EXIT_FAILURE);
	return base;
}

static void make_lane(void)
{
	struct segment_spec spec = { .kind = SHMB_SEGMENT_LANE,
				     .backing = SHMB_MEMORY_SEALED,
				     .id = 1,
				     .owner_id = PUBLISHER,
				     .len = 2 * SHMB_BLOCK_LEN,
				     .flags = SEGMENT_ALLOCATE };
	struct segment_maker maker = { .instance = 1 };

	if (segment_create(&maker, &spec, &lane_segment) < 0)
		exit(EXIT_FAILURE);
	lane = mmap(NULL, sizeof(*lane), PROT_READ | PROT_WRITE, MAP_SHARED, lane_segment.fd, 0);
	if (lane == MAP_FAILED)
		exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);

	stage = share(sizeof(*stage));
	directory = share(sizeof(*directory));
	channel.map = &directory->block;
	make_lane();
	step_start(&step, put, NULL);
	for (uint32_t len = 0; len <= shmb_cell_value_len_max(CELL_LEN); len += quick ? 29 : 3)
		step_put(len);
	step_kill(&step);
	step_start(&step, inherit, NULL);
	for (int i = 0; i < (quick ? 1 : 5); i++)
		step_inherit();
	step_kill(&step);
	segment_destroy(&lane_segment);
	step_table("kill-cell", rows, 2, 1);
	return EXIT_SUCCESS;
}
