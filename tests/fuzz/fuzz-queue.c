/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A publisher of a queue whose worker changes its marks between any two loads of them, and a worker
 * that is sent any addresses. The publisher never gives a record to others that it has not sent, nor
 * one twice, and never takes a number of done records back; the worker has never more in work than its
 * marks can tell.
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

#include "lib/queue.c"

#define WORKER 7u

static struct fuzz_script script;
static struct shmb_cursor_work work, other_work;
static struct shmb_worker worker;
static struct shmb_jobs jobs;

/* The worker's turn, before each load of what it writes. */
static void scribble(const void *word)
{
	uint64_t number = worker.done + fuzz_number(&script, 1) % 80;

	if ((const uint8_t *)word < (const uint8_t *)&work ||
	    (const uint8_t *)word >= (const uint8_t *)(&work + 1))
		return;
	switch (fuzz_number(&script, 1) % 8) {
	case 0: /* honest: all of it is done */
		work.done = worker.sent;
		break;
	case 1:
		work.done = number;
		break;
	case 2:
		work.done = fuzz_number(&script, 8);
		break;
	case 3:
		work.marks[number % SHMB_QUEUE_CREDIT_MAX] = fuzz_number(&script, 8);
		break;
	default:
		work.marks[number % SHMB_QUEUE_CREDIT_MAX] =
			number << SHMB_QUEUE_MARK_NUMBER_SHIFT | fuzz_number(&script, 3);
	}
}

/* ---- the publisher ------------------------------------------------------------------------------ */

static void send_one(void)
{
	struct shmb_ticket ticket = { .position = 8 * worker.sent,
				      .len = (uint32_t)worker.sent,
				      .attempts = (uint32_t)fuzz_number(&script, 1) };
	uint8_t payload[sizeof(struct shmb_queue_address)];

	if (worker.sent - worker.done < SHMB_QUEUE_CREDIT_MAX)
		shmb_worker_address(&worker, payload, WORKER, &ticket);
}

static void look(void)
{
	uint64_t before = worker.done;
	bool possible = shmb_worker_look(&worker, &work);

	FUZZ_CHECK(worker.done >= before && worker.done <= worker.sent);
	FUZZ_CHECK(possible || worker.done == before);
}

/* It goes: what has it left? */
static void bury(bool known)
{
	struct shmb_ticket undone[SHMB_QUEUE_CREDIT_MAX];
	struct shmb_worker before = worker;
	uint32_t n = shmb_worker_undone(&worker, known ? &work : NULL, undone);
	uint64_t last = 0;

	FUZZ_CHECK(worker.done >= before.done && worker.done <= worker.sent);
	FUZZ_CHECK(n <= worker.sent - worker.done);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t number = undone[i].position / 8;
		const struct shmb_ticket *sent = &before.tickets[SLOT(number)];

		FUZZ_CHECK(number >= worker.done && number < worker.sent);
		FUZZ_CHECK(i == 0 || undone[i].position > last);
		FUZZ_CHECK(undone[i].len == sent->len && undone[i].attempts >= sent->attempts &&
			   undone[i].attempts <= sent->attempts + 0xffff);
		last = undone[i].position;
	}
	memset(&worker, 0, sizeof(worker));
}

/* ---- the worker --------------------------------------------------------------------------------- */

static void check_jobs(void)
{
	uint32_t failed = 0, dead = 0;

	FUZZ_CHECK(jobs.done <= jobs.next && jobs.next - jobs.done <= SHMB_QUEUE_CREDIT_MAX);
	for (uint64_t number = jobs.done; number < jobs.next; number++) {
		failed += jobs.jobs[SLOT(number)].state == SHMB_JOB_FAILED;
		dead += jobs.jobs[SLOT(number)].state == SHMB_JOB_DEAD;
	}
	FUZZ_CHECK(jobs.n_failed == failed && jobs.n_dead == dead);
	FUZZ_CHECK(!jobs.work || jobs.work->done == jobs.done);
}

static void accept_one(void)
{
	_Alignas(8) uint8_t bytes[64] = { 0 };
	struct shmb_queue_address address = { .worker = WORKER, .number = (uint32_t)jobs.next };
	struct shmb_record record = { .data = bytes };
	struct shmb_lane_reader reader = { .position = 8 * jobs.next, .sequence = jobs.next };
	uint32_t attempt = 0;
	int result;

	memcpy(bytes, &address, sizeof(address));
	if (fuzz_number(&script, 1) % 4 == 3)
		fuzz_mutate(&script, bytes, sizeof(address));
	record.len = (uint32_t)fuzz_number(&script, 1) % (sizeof(bytes) + 1);
	if (record.len == 0)
		record.len = sizeof(bytes);
	result = shmb_jobs_accept(&jobs, WORKER, &record, &attempt);
	FUZZ_CHECK(result == 1 || result == 0 || result == -EBADMSG);
	if (result != 1)
		return;
	FUZZ_CHECK(attempt > 0 && record.data == bytes + sizeof(address) &&
		   record.len <= sizeof(bytes) - sizeof(address));
	shmb_jobs_take(&jobs, &reader, attempt);
}

static void end_one(void)
{
	uint32_t number = (uint32_t)(jobs.done + fuzz_number(&script, 1) % 80 - 4);
	uint64_t what = fuzz_number(&script, 1) % 4, position, sequence;
	struct shmb_lane_reader reader = { .position = 8 * jobs.next };
	struct shmb_job *job;

	if (what == 3) {
		job = shmb_jobs_first(&jobs, SHMB_JOB_FAILED, &number);
		if (job)
			shmb_jobs_retake(&jobs, number);
	} else if (shmb_jobs_find(&jobs, number)) {
		shmb_jobs_set(&jobs, number,
			      what == 0	  ? SHMB_JOB_DONE
			      : what == 1 ? SHMB_JOB_FAILED
					  : SHMB_JOB_DEAD);
	}
	shmb_jobs_low(&jobs, &reader, &position, &sequence);
	FUZZ_CHECK(position <= reader.position);
	FUZZ_CHECK(jobs.done == jobs.next || position == 8 * jobs.done);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	script = (struct fuzz_script){ data, size };
	memset(&work, 0, sizeof(work));
	memset(&other_work, 0, sizeof(other_work));
	memset(&worker, 0, sizeof(worker));
	memset(&jobs, 0, sizeof(jobs));
	jobs.work = &other_work;
	for (int n = 0; n < 1024 && script.left; n++) {
		switch (fuzz_number(&script, 1) % 8) {
		case 0:
		case 1:
			send_one();
			break;
		case 2:
			look();
			break;
		case 3:
			bury(fuzz_number(&script, 1) & 1);
			break;
		case 4:
		case 5:
			accept_one();
			break;
		case 6:
			shmb_worker_note(&worker, &work);
			break;
		default:
			end_one();
		}
		check_jobs();
	}
	return 0;
}
