/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_BENCH_ENDS_H
#define SHMB_BENCH_ENDS_H

/* Opening the library's handles for a workload. */

#include <shmbroker/shmbroker.h>

#include "bench.h"

#define BENCH_FAN_MAX 8u

/**
 * struct bench_ends - what a side has of a workload's channels
 * @publishers:	 to the other side
 * @subscribers: from it
 * @n_publishers: of @publishers
 * @n_subscribers: of @subscribers
 * @rings:	 system calls that the first publisher had made at the last look
 * @published:	 records
 * @buffer:	 a batch of records
 */
struct bench_ends {
	struct shmb_publisher *publishers[BENCH_FAN_MAX];
	struct shmb_subscriber *subscribers[BENCH_FAN_MAX];
	uint32_t n_publishers;
	uint32_t n_subscribers;
	uint64_t rings;
	uint64_t published;
	uint8_t *buffer;
};

/* The process's client, opened on first use. NULL after bench_skip(). */
struct shmb_client *bench_client(struct bench_workload *work);

/* Opens the channel of a workload. @suffix tells several apart. NULL after bench_skip(). */
struct shmb_channel *bench_channel(struct bench_workload *work, const char *suffix);

/* Fills work->state with an empty struct bench_ends. NULL after bench_skip(). */
struct bench_ends *bench_new_ends(struct bench_workload *work);

/* Adds publishers or subscribers. They return 0, or -1 after bench_skip(). */
int bench_add_publishers(struct bench_workload *work, struct shmb_channel *channel, uint32_t n);
int bench_add_subscribers(struct bench_workload *work, struct shmb_channel *channel, uint32_t n,
			  uint32_t flags);

/* Waits until so many are there. Returns 0, or -1 after bench_skip(). */
int bench_wait_members(struct bench_workload *work, struct shmb_channel *channel,
		       uint32_t publishers, uint32_t subscribers);

/* The sentence behind the last failure of the library. */
const char *bench_last_error(void);

#endif
