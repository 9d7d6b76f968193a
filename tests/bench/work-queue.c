/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Jobs from one publisher to two workers, taken, done, and said to be done. Both workers are in one
 * process, so that it costs what queues cost, not what sharing a CPU costs.
 */

#include <errno.h>
#include <string.h>

#include "ends.h"

#define N_WORKERS 2u

static int open_queue(struct bench_workload *work, unsigned int side)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options), .credit = 64 };
	struct bench_ends *ends = bench_new_ends(work);
	struct shmb_channel *channel = ends ? bench_channel(work, "jobs") : NULL;

	if (!channel || (side == 0 && bench_add_publishers(work, channel, 1) < 0))
		return -1;
	for (; side == 1 && ends->n_subscribers < N_WORKERS; ends->n_subscribers++)
		if (shmb_subscriber_open(channel, &options,
					 &ends->subscribers[ends->n_subscribers]) < 0)
			return bench_skip(work, "%.90s", bench_last_error());
	return bench_wait_members(work, channel, 1, N_WORKERS);
}

static double submit(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;
	uint32_t batch = work->batch ? work->batch : 1, n;

	for (uint64_t i = 0; i < ops;) {
		for (uint32_t k = 0; k < batch; k++) {
			uint64_t value = i + k;

			memcpy(ends->buffer + (size_t)k * work->size, &value, sizeof(value));
		}
		for (n = 0; n < batch;) {
			int32_t result = shmb_publisher_send_many(
				ends->publishers[0], ends->buffer + (size_t)n * work->size,
				work->size, NULL, batch - n);

			if (result < 0 && result != -EAGAIN)
				bench_die("cannot send: %s", bench_last_error());
			if (result > 0)
				n += (uint32_t)result;
			else
				bench_pause();
		}
		i += n;
	}
	return 0;
}

/* Some jobs of one worker. Returns how many. */
static uint32_t work_on(struct bench_workload *work, struct shmb_subscriber *worker, uint64_t *sum)
{
	struct bench_ends *ends = work->state;
	uint32_t batch = work->batch ? work->batch : 1;
	uint64_t jobs[BENCH_BATCH], value;
	int32_t n = shmb_subscriber_take_many(worker, ends->buffer, work->size * batch, NULL, jobs,
					      batch);

	if (n == -EAGAIN) {
		bench_pause();
		return 0;
	}
	if (n < 0)
		bench_die("cannot take: %s", bench_last_error());
	for (int32_t i = 0; i < n; i++) {
		memcpy(&value, ends->buffer + (size_t)i * work->size, sizeof(value));
		*sum += value;
	}
	if (shmb_subscriber_done_many(worker, jobs, (uint32_t)n) < 0)
		bench_die("cannot be done: %s", bench_last_error());
	return (uint32_t)n;
}

static double work_on_all(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;
	uint64_t sum = 0, done = 0;

	while (done < ops)
		for (uint32_t i = 0; i < ends->n_subscribers; i++)
			done += work_on(work, ends->subscribers[i], &sum);
	bench_check_sum(work, sum, ops);
	return 0;
}

static const struct bench_driver driver = { .open = open_queue, .run = { submit, work_on_all } };

void bench_add_queue(void)
{
	struct bench_workload *work =
		bench_add("queue", "1-2", "shmb", "jobs to 2 workers", &driver, 56);

	work->pattern = SHMB_CHANNEL_QUEUE;
	work = bench_add("queue", "1-2", "shmb-16", "jobs to 2 workers, batches of 16", &driver,
			 56);
	work->pattern = SHMB_CHANNEL_QUEUE;
	work->batch = BENCH_BATCH;
}
