/* SPDX-License-Identifier: Apache-2.0 */

/* A publisher of a queue, and a worker of it, in a soak. */

#include "soak.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#define MS	    1000000ll
#define PATIENCE_MS 30000 /* of a submitter that has time */
#define N_HELD	    8u /* jobs that a worker has at a time */

static struct shmb_client *client;
static struct shmb_channel *queue;

static bool connect_and_open(struct history *history, unsigned number)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = history->address,
					       .connect_timeout_ns = 2000 * MS };
	struct shmb_channel_options wanted = { .options_len = sizeof(wanted),
					       .flags = SHMB_CHANNEL_CREATE,
					       .pattern = SHMB_CHANNEL_QUEUE,
					       .lane_len = LANE_LEN,
					       .backing = number % N_CHANNELS ? SHMB_BACKING_SEALED
									      : SHMB_BACKING_AUTO };
	const char *name = number % N_CHANNELS ? "soak/jobs/1" : "soak/jobs/0";

	options.address_len = (uint32_t)strlen(history->address);
	if (shmb_client_open(&options, &client) < 0)
		return false;
	if (shmb_channel_open(client, name, (uint32_t)strlen(name), &wanted, &queue) == 0)
		return true;
	shmb_client_close(client);
	return false;
}

static void close_all(void)
{
	shmb_channel_close(queue);
	shmb_client_close(client);
}

static bool submitters_end(struct history *history, unsigned number)
{
	return soak_is_set(&history->leave[number]) || soak_is_set(&history->stop);
}

/* Sends jobs, and waits until they are done, if it is left in peace. */
static void submit(struct history *history, unsigned number, struct batch *mine,
		   struct shmb_publisher *publisher, uint64_t random)
{
	uint32_t id = (uint32_t)(mine - history->batches);
	uint8_t record[RECORD_MAX];
	int32_t result = 0;
	uint64_t sent = 0;

	while (!submitters_end(history, number) && sent < N_JOBS &&
	       (result == 0 || result == -ETIMEDOUT)) {
		uint32_t len = soak_fill(record, id, sent);

		__atomic_store_n(&mine->tried, sent + 1, __ATOMIC_RELEASE);
		result = shmb_publisher_send_wait(publisher, record, len, 200 * MS);
		sent += result == 0;
		if (soak_random(&random) % 64 == 0)
			soak_nap((long)(soak_random(&random) % 4));
	}
	for (int ms = 0; ms < PATIENCE_MS && (result == 0 || result == -ETIMEDOUT); ms += 200) {
		result = shmb_publisher_wait_done(publisher, 200 * MS);
		if (result == 0) {
			__atomic_store_n(&mine->finished, sent, __ATOMIC_RELEASE);
			break;
		}
	}
}

void soak_submitter(struct history *history, unsigned number, uint64_t random)
{
	while (!submitters_end(history, number)) {
		struct shmb_publisher *publisher;
		uint32_t id;

		if (!connect_and_open(history, number)) {
			soak_nap(20);
			continue;
		}
		id = __atomic_fetch_add(&history->n_batches, 1, __ATOMIC_SEQ_CST);
		if (id >= N_BATCHES)
			_exit(3);
		if (shmb_publisher_open(queue, NULL, &publisher) == 0) {
			submit(history, number, &history->batches[id], publisher, random);
			shmb_publisher_close(publisher);
		} else {
			soak_nap(20);
		}
		close_all();
	}
}

/* Which job is it? Returns its batch, or NULL. */
static struct batch *judge(struct history *history, const uint8_t *record, int32_t len,
			   uint64_t *ret_number)
{
	uint8_t expected[RECORD_MAX];
	uint32_t id;

	memcpy(&id, record, sizeof(id));
	memcpy(ret_number, record + 8, sizeof(*ret_number));
	if (id >= N_BATCHES || *ret_number >= N_JOBS)
		return NULL;
	if (soak_fill(expected, id, *ret_number) != (uint32_t)len ||
	    memcmp(record, expected, (size_t)len) != 0)
		history->batches[id].torn++;
	return &history->batches[id];
}

/* Jobs that a hand has in work; it ends them in any order. */
struct held {
	struct batch *batch;
	uint64_t number;
	uint64_t job;
};

/* It was handed one. */
static void begin(struct history *history, struct shmb_subscriber *worker, const uint8_t *record,
		  int32_t len, struct held *held)
{
	held->job = shmb_subscriber_view(worker)->term;
	held->batch = judge(history, record, len, &held->number);
	if (!held->batch)
		_exit(5);
	if (__atomic_load_n(&held->batch->done[held->number], __ATOMIC_ACQUIRE))
		__atomic_fetch_add(&held->batch->again, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&held->batch->begun[held->number], 1, __ATOMIC_RELEASE);
}

/* Returns as done() or fail(). */
static int32_t end(struct shmb_subscriber *worker, const struct held *held, uint64_t *random)
{
	int32_t result;

	if (soak_random(random) % 64 == 0)
		soak_nap((long)(soak_random(random) % 4));
	if (soak_random(random) % 16 == 0)
		return shmb_subscriber_fail(worker, held->job);
	result = shmb_subscriber_done(worker, held->job);
	if (result == 0)
		__atomic_store_n(&held->batch->done[held->number], 1, __ATOMIC_RELEASE);
	return result;
}

static void work(struct history *history, unsigned number, struct shmb_subscriber *worker,
		 uint64_t random)
{
	uint8_t record[RECORD_MAX];
	struct held held[N_HELD];
	int32_t result = 0;
	uint32_t n = 0;

	while (result != -ESTALE && result != -ENOTCONN && !soak_is_set(&history->leave[number]) &&
	       !soak_is_set(&history->drain)) {
		result =
			n < N_HELD ? shmb_subscriber_take(worker, record, sizeof(record)) : -EAGAIN;
		if (result >= 0) {
			begin(history, worker, record, result, &held[n++]);
		} else if (result == -EAGAIN && n &&
			   (n == N_HELD || soak_random(&random) % 4 == 0)) {
			uint32_t i = (uint32_t)(soak_random(&random) % n);

			result = end(worker, &held[i], &random);
			held[i] = held[--n];
		} else if (result == -EAGAIN) {
			shmb_subscriber_wait(worker, n ? 1 * MS : 50 * MS);
		}
	}
}

void soak_hand(struct history *history, unsigned number, uint64_t random)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options), .credit = 32 };

	while (!soak_is_set(&history->leave[number]) && !soak_is_set(&history->drain)) {
		struct shmb_subscriber *worker;

		if (!connect_and_open(history, number)) {
			soak_nap(20);
			continue;
		}
		if (shmb_subscriber_open(queue, &options, &worker) == 0) {
			work(history, number, worker, soak_random(&random));
			shmb_subscriber_close(worker);
		} else {
			soak_nap(20);
		}
		close_all();
	}
}
