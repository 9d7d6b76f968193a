/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A publisher of a state channel is killed at every single instruction of a put. Whatever it was at,
 * the key has the value before or the new one, whole, and a reader finds it at once.
 */

#include "tests/kill/mutate.h"

#include <shmbroker/cell.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/kill/step.h"

#define CELL_LEN 512u

/* Which slot is written: always the same would be that of the last value. */
#ifdef SHMB_MUTATE_ONE_SLOT
#define SLOT(version) 0u
#else
#define SLOT(version) ((uint32_t)(version)&1)
#endif

/* One process puts, under the eyes of the other. */
static struct {
	_Alignas(64) uint8_t cell[CELL_LEN];
	uint64_t version;
	uint32_t len;
} * stage;

static struct step step;
static uint32_t before_len;

static struct step_row rows[1] = {
	{ .name = "put", .min = { [STEP_SNAPSHOT] = 500 } },
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
	shmb_cell_write(stage->cell, CELL_LEN, SLOT(stage->version), stage->version,
			stage->version + 7, value, stage->len);
}

/* What would be left if it were killed here. Returns the version. */
static uint64_t judge(void)
{
	uint8_t value[CELL_LEN], expected[CELL_LEN];
	uint64_t version, term;
	uint32_t len;
	int got = shmb_cell_read(stage->cell, CELL_LEN, value, sizeof(value), &version, &term);

	rows[0].n[STEP_SNAPSHOT]++;
	if (stage->version == 1 && got == -ENODATA)
		return 0;
	if (got < 0)
		step_fail(&step, "a reader gets %d", got);
	if (version != stage->version && version + 1 != stage->version)
		step_fail(&step, "version %llu of %llu", (unsigned long long)version,
			  (unsigned long long)stage->version);
	len = version == stage->version ? stage->len : before_len;
	fill(expected, version, len);
	if ((uint32_t)got != len || term != version + 7 || memcmp(value, expected, len) != 0)
		step_fail(&step, "version %llu is not what was put", (unsigned long long)version);
	return version;
}

static void step_put(uint32_t len)
{
	uint64_t last = 0, version;

	stage->version++;
	stage->len = len;
	step_begin(&step);
	do {
		version = judge();
		if (version < last)
			step_fail(&step, "version %llu came after version %llu",
				  (unsigned long long)version, (unsigned long long)last);
		last = version;
	} while (step_next(&step));
	if (judge() != stage->version)
		step_fail(&step, "the value is not there after the put");
	before_len = len;
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);

	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (stage == MAP_FAILED)
		return EXIT_FAILURE;
	step_start(&step, put, NULL);
	for (uint32_t len = 0; len <= shmb_cell_value_len_max(CELL_LEN); len += quick ? 29 : 1)
		step_put(len);
	step_kill(&step);
	step_table("kill-cell", rows, 1, 1);
	return EXIT_SUCCESS;
}
