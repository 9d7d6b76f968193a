/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Both sides of a lane as threads on one mapping, which is the only way in which ThreadSanitizer can
 * see a race between them: to it, two mappings of a segment are two memories. Built once as the code
 * is, and once for each memory order that matters with that order weakened: WEAK names the word, and
 * then there must be a race.
 */

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tsan/weak.h"

#include "lib/bell.h"

#define LANE_LEN  4096u
#define N_RECORDS 20000u

static _Alignas(4096) uint8_t memory[SHMB_BLOCK_LEN + LANE_LEN];
static struct shmb_cursor_lane slot;
static struct shmb_bell_segment bell;
static uint64_t start_was; /* written before K, read after L, as a plain variable */

static uint32_t len_of(uint32_t number)
{
	return 8 + number * 37 % 300;
}

static void *write_lane(void *unused)
{
	struct shmb_lane_writer writer;
	uint8_t record[512];

	(void)unused;
	shmb_lane_writer_init(&writer, (void *)memory, LANE_LEN);
	start_was = 1;
	shmb_bell_start(&bell, 0, 0);
	while (!shmb_cursor_started(&slot, 7))
		usleep(1);
	for (uint32_t number = 0; number < N_RECORDS;) {
		uint32_t len = len_of(number);
		uint8_t *payload;

		writer.limit = shmb_cursor_position(&slot) + LANE_LEN - 8;
		payload = shmb_lane_claim(&writer, len);
		if (!payload) {
			usleep(1);
			continue;
		}
		memset(record, (int)number & 0xff, len);
		memcpy(payload, record, len);
		/* Two records are one batch, then one is alone. */
		shmb_lane_commit(&writer, len, 0, number % 3 == 0 && number + 1 < N_RECORDS);
		if (number % 3 == 0 && len_of(number + 1) > 200)
			shmb_lane_flush(&writer);
		number++;
	}
	shmb_lane_flush(&writer);
	return NULL;
}

static void *read_lane(void *unused)
{
	struct shmb_lane_reader reader;
	struct shmb_record record;
	uint64_t position, sequence;
	uint8_t copy[512];

	(void)unused;
	while (!shmb_bell_started(&bell, &position, &sequence))
		usleep(1);
	if (start_was != 1)
		abort();
	shmb_lane_reader_init(&reader, (void *)memory, LANE_LEN, position, sequence);
	shmb_cursor_start(&slot, 7);
	for (uint32_t number = 0; number < N_RECORDS;) {
		int result = shmb_lane_peek(&reader, &record);

		if (result < 0)
			exit(3);
		if (result == 0) {
			usleep(1);
			continue;
		}
		memcpy(copy, record.data, record.len);
		if (record.len != len_of(number) || copy[0] != (number & 0xff) ||
		    copy[record.len - 1] != (number & 0xff))
			exit(3);
		shmb_lane_skip(&reader, &record);
		shmb_cursor_store(&slot, reader.position, reader.sequence);
		number++;
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[2];

	pthread_create(&threads[0], NULL, write_lane, NULL);
	pthread_create(&threads[1], NULL, read_lane, NULL);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	puts("all records came");
	return 0;
}
