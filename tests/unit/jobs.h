/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_JOBS_H
#define SHMB_TESTS_JOBS_H

/*
 * Work of which several processes keep account in memory that they share: what was done comes no more,
 * whoever dies, and in the end all of it was done.
 */

#include <errno.h>
#include <sys/mman.h>

#include "tests/unit/fixture.h"

#define JOBS_MAX 65536u

/**
 * struct jobs - the account
 * @begun:  somebody was handed it, so often
 * @done:   it has been said to be done, and that has returned
 * @n_done: of these
 * @again:  how many came after that
 */
struct jobs {
	uint8_t begun[JOBS_MAX];
	uint8_t done[JOBS_MAX];
	uint64_t n_done;
	uint32_t again;
};

static inline struct jobs *jobs_new(void)
{
	struct jobs *jobs = mmap(NULL, sizeof(*jobs), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(jobs, MAP_FAILED);
	return jobs;
}

static inline struct shmb_channel *jobs_queue(struct shmb_client *of, const char *name,
					      uint32_t backing)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_QUEUE,
						.lane_len = 65536,
						.backing = backing };
	struct shmb_channel *channel = NULL;

	ok(shmb_channel_open(of, name, (uint32_t)strlen(name), &options, &channel));
	return channel;
}

/* Does one job, if one comes in time. Returns whether one did. */
static inline bool jobs_do(struct jobs *jobs, struct shmb_subscriber *worker, int64_t timeout_ns)
{
	uint64_t record[32];
	int32_t len = shmb_subscriber_wait(worker, timeout_ns);

	if (len == -ETIMEDOUT)
		return false;
	ok(len);
	len = shmb_subscriber_take(worker, record, sizeof(record));
	if (len == -EAGAIN)
		return false;
	ok(len);
	ck_assert_uint_lt(record[0], JOBS_MAX);
	if (__atomic_load_n(&jobs->done[record[0]], __ATOMIC_ACQUIRE))
		__atomic_fetch_add(&jobs->again, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&jobs->begun[record[0]], 1, __ATOMIC_RELAXED);
	ok(shmb_subscriber_done(worker, shmb_subscriber_view(worker)->term));
	__atomic_store_n(&jobs->done[record[0]], 1, __ATOMIC_RELEASE);
	__atomic_fetch_add(&jobs->n_done, 1, __ATOMIC_RELEASE);
	return true;
}

/* Sends one, of a length that others do not have. */
static inline void jobs_send(struct shmb_publisher *publisher, uint64_t id)
{
	uint64_t record[32] = { id };

	ok(shmb_publisher_send_wait(publisher, record, (uint32_t)(8 * (1 + id % 31)), 40000 * MS));
}

/* All of these are done. One whose worker was killed when it had just done it may not be in there. */
static inline void jobs_check(const struct jobs *jobs, uint64_t n)
{
	ck_assert_uint_eq(jobs->again, 0);
	for (uint64_t id = 0; id < n; id++)
		ck_assert_msg(jobs->begun[id], "%llu of %llu was lost", (unsigned long long)id,
			      (unsigned long long)n);
}

#endif
