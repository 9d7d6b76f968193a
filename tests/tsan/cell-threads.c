/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Both sides of a cell as threads on one mapping, as in lane-threads.c. A reader copies first and asks
 * then whether the bytes were overwritten meanwhile, which ThreadSanitizer takes for a race; so here
 * the writer waits until a value has been read before it overwrites it.
 */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/tsan/weak.h"

#include <shmbroker/cell.h>

#define CELL_LEN 1024u
#define N_VALUES 20000u

static _Alignas(64) uint8_t cell[CELL_LEN];
static uint64_t n_read;

static uint32_t len_of(uint64_t version)
{
	return 8 + (uint32_t)version * 37 % 300;
}

static void *write_cell(void *unused)
{
	uint8_t value[512];

	(void)unused;
	for (uint64_t version = 1; version <= N_VALUES; version++) {
		memset(value, (int)version & 0xff, len_of(version));
		shmb_cell_write(cell, CELL_LEN, version & 1, version, version + 7, value,
				len_of(version));
		while (__atomic_load_n(&n_read, __ATOMIC_ACQUIRE) != version)
			usleep(1);
	}
	return NULL;
}

static void *read_cell(void *unused)
{
	uint64_t version, term;
	uint8_t value[512];

	(void)unused;
	for (uint64_t number = 1; number <= N_VALUES;) {
		int len = shmb_cell_read(cell, CELL_LEN, value, sizeof(value), &version, &term);

		if (len < 0 || version != number) {
			usleep(1);
			continue;
		}
		if ((uint32_t)len != len_of(number) || term != number + 7 ||
		    value[0] != (number & 0xff) || value[len - 1] != (number & 0xff))
			exit(3);
		__atomic_store_n(&n_read, number, __ATOMIC_RELEASE);
		number++;
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[2];

	pthread_create(&threads[0], NULL, write_cell, NULL);
	pthread_create(&threads[1], NULL, read_cell, NULL);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	puts("all values came");
	return 0;
}
