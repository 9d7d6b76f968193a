/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/queue.h"

#include <errno.h>
#include <string.h>

#define SLOT(number) ((number) % SHMB_QUEUE_CREDIT_MAX)

_Static_assert((SHMB_QUEUE_CREDIT_MAX & (SHMB_QUEUE_CREDIT_MAX - 1)) == 0,
	       "numbers of 32 bits may wrap");

/* ---- the publisher's side ---------------------------------------------------------------------- */

void shmb_worker_address(struct shmb_worker *worker, void *payload, uint64_t worker_id,
			 const struct shmb_ticket *ticket)
{
	struct shmb_queue_address address = { .worker = worker_id,
					      .number = (uint32_t)worker->sent,
					      .attempts = ticket->attempts };

	memcpy(payload, &address, sizeof(address));
	worker->tickets[SLOT(worker->sent)] = *ticket;
	worker->sent++;
}

bool shmb_worker_look(struct shmb_worker *worker, const struct shmb_cursor_work *work)
{
	/*
	 * AG: pairs with W in shmb_cursor_vacate(): if this is another pair's number, who then looks
	 * whose slot it is sees that it has been left. Else it only counts: the marks are looked at
	 * when their worker is dead, and the position says what may be overwritten.
	 */
	uint64_t done = SHMB_LOAD_ACQUIRE(&work->done);

	if (done < worker->done || done > worker->sent)
		return false;
	worker->done = done;
	return true;
}

void shmb_worker_note(struct shmb_worker *worker, const struct shmb_cursor_work *work)
{
	shmb_worker_look(worker, work);
	for (uint32_t i = 0; i < SHMB_QUEUE_CREDIT_MAX; i++)
		worker->marks[i] = SHMB_LOAD(&work->marks[i]);
}

uint32_t shmb_worker_undone(struct shmb_worker *worker, const struct shmb_cursor_work *work,
			    struct shmb_ticket *undone)
{
	uint32_t n = 0;

	if (work)
		shmb_worker_look(worker, work);
	for (uint64_t number = worker->done; number < worker->sent; number++) {
		struct shmb_ticket *ticket = &undone[n];
		uint64_t mark =
			work ? SHMB_LOAD(&work->marks[SLOT(number)]) : worker->marks[SLOT(number)];
		bool known = mark >> SHMB_QUEUE_MARK_NUMBER_SHIFT == (uint32_t)number;

		if (known && mark & SHMB_QUEUE_MARK_DONE)
			continue;
		*ticket = worker->tickets[SLOT(number)];
		/* Not handed out: the mark is that of an earlier one, or of number 0 and zero. */
		if (known)
			ticket->attempts += mark & 0xffff;
		n++;
	}
	return n;
}

void shmb_giving_begin(struct shmb_lane_segment *lane, uint64_t from, uint64_t to)
{
	/*
	 * Killed behind any of these: there is no record at @to yet, so none is given. Only who has heard
	 * of the death looks here, and sees all that was stored.
	 */
	SHMB_STORE(&lane->given_to, 0);
	/* pairs with nothing: the compiler must keep the order of these */
	SHMB_FENCE_RELEASE();
	SHMB_STORE(&lane->given_from, from);
	/* pairs with nothing, as that one */
	SHMB_FENCE_RELEASE();
	SHMB_STORE(&lane->given_to, to);
}

void shmb_giving_end(uint8_t *payload)
{
	struct shmb_queue_address *address = (void *)payload;

	/*
	 * AM: pairs with V in sub_was_overwritten(): a worker that was thrown out, and finds its number
	 * missing, sees that the epoch has moved. Killed before: the lane says that the record is given;
	 * after: the record says it, too.
	 */
	SHMB_STORE_RELEASE(&address->worker, 0);
}

/* ---- when both have gone ----------------------------------------------------------------------- */

int shmb_left_add(struct shmb_left *left, const struct shmb_record *record, uint64_t position)
{
	struct shmb_queue_address address;
	struct shmb_ticket *ticket;
	uint64_t mark;

	if (record->len < sizeof(address))
		return -EBADMSG;
	/* The publisher was killed before it could say so at the first one. */
	if (position == left->given_to)
		for (uint32_t i = 0; i < left->n; i++)
			if (left->tickets[i].position == left->given_from)
				memmove(&left->tickets[i], &left->tickets[i + 1],
					(--left->n - i) * sizeof(left->tickets[0]));
	memcpy(&address, record->data, sizeof(address));
	if (address.worker != left->worker)
		return 0;
	if (address.number - (uint32_t)left->work.done >= SHMB_QUEUE_CREDIT_MAX)
		return 0; /* it lies between others that are not done, and is */
	mark = left->work.marks[SLOT(address.number)];
	/* Not handed out: the mark is that of an earlier one, or of number 0 and zero. */
	if (mark >> SHMB_QUEUE_MARK_NUMBER_SHIFT != address.number)
		mark = 0;
	if (mark & SHMB_QUEUE_MARK_DONE)
		return 0;
	if (left->n == SHMB_QUEUE_CREDIT_MAX)
		return -EBADMSG;
	ticket = &left->tickets[left->n++];
	*ticket = (struct shmb_ticket){ .position = position,
					.len = record->len - (uint32_t)sizeof(address),
					.type = record->type,
					.attempts = address.attempts };
	ticket->attempts += mark & 0xffff;
	return 0;
}

/* ---- the worker's side ------------------------------------------------------------------------- */

int shmb_jobs_accept(const struct shmb_jobs *jobs, uint64_t worker_id, struct shmb_record *record,
		     uint32_t *ret_attempt)
{
	struct shmb_queue_address address;

	if (record->len < sizeof(address))
		return -EBADMSG;
	/* One copy, then only that. */
	memcpy(&address, record->data, sizeof(address));
	__asm__ volatile("" ::: "memory");
	if (address.worker != worker_id)
		return 0;
	if (address.number != (uint32_t)jobs->next ||
	    jobs->next - jobs->done >= SHMB_QUEUE_CREDIT_MAX)
		return -EBADMSG;
	record->data += sizeof(address);
	record->len -= (uint32_t)sizeof(address);
	*ret_attempt = address.attempts < UINT32_MAX ? address.attempts + 1 : UINT32_MAX;
	return 1;
}

static void mark(struct shmb_jobs *jobs, uint32_t number, uint32_t done)
{
	const struct shmb_job *job = &jobs->jobs[SLOT(number)];
	uint64_t word = (uint64_t)number << SHMB_QUEUE_MARK_NUMBER_SHIFT | done | job->handed;

	/*
	 * One store. Killed before: it was not handed out, or not done; after: it was. Either way
	 * that is what its next worker is told.
	 */
	if (jobs->work)
		SHMB_STORE(&jobs->work->marks[SLOT(number)], word);
}

uint32_t shmb_jobs_take(struct shmb_jobs *jobs, const struct shmb_lane_reader *reader,
			uint32_t attempt)
{
	uint32_t number = (uint32_t)jobs->next;

	jobs->jobs[SLOT(number)] = (struct shmb_job){ .position = reader->position,
						      .sequence = reader->sequence,
						      .attempt = attempt,
						      .handed = 1,
						      .state = SHMB_JOB_TAKEN };
	jobs->next++;
	mark(jobs, number, 0);
	return number;
}

void shmb_jobs_retake(struct shmb_jobs *jobs, uint32_t number)
{
	struct shmb_job *job = &jobs->jobs[SLOT(number)];

	shmb_jobs_set(jobs, number, SHMB_JOB_TAKEN);
	job->attempt += job->attempt < UINT32_MAX;
	job->handed += job->handed < UINT16_MAX;
	mark(jobs, number, 0);
}

struct shmb_job *shmb_jobs_find(struct shmb_jobs *jobs, uint32_t number)
{
	struct shmb_job *job = &jobs->jobs[SLOT(number)];
	uint32_t age = (uint32_t)jobs->next - number;

	if (age == 0 || age > jobs->next - jobs->done || job->state != SHMB_JOB_TAKEN)
		return NULL;
	return job;
}

struct shmb_job *shmb_jobs_first(struct shmb_jobs *jobs, enum shmb_job_state state,
				 uint32_t *ret_number)
{
	for (uint64_t number = jobs->done; number < jobs->next; number++)
		if (jobs->jobs[SLOT(number)].state == state) {
			*ret_number = (uint32_t)number;
			return &jobs->jobs[SLOT(number)];
		}
	return NULL;
}

void shmb_jobs_set(struct shmb_jobs *jobs, uint32_t number, enum shmb_job_state state)
{
	struct shmb_job *job = &jobs->jobs[SLOT(number)];
	uint64_t done = jobs->done;

	jobs->n_failed -= job->state == SHMB_JOB_FAILED;
	jobs->n_failed += state == SHMB_JOB_FAILED;
	jobs->n_dead -= job->state == SHMB_JOB_DEAD;
	jobs->n_dead += state == SHMB_JOB_DEAD;
	job->state = (uint8_t)state;
	if (state != SHMB_JOB_DONE)
		return;
	mark(jobs, number, SHMB_QUEUE_MARK_DONE);
	while (done < jobs->next && jobs->jobs[SLOT(done)].state == SHMB_JOB_DONE)
		done++;
	if (done == jobs->done)
		return;
	jobs->done = done;
	/* Killed before: the marks say the same. */
	if (jobs->work)
		SHMB_STORE(&jobs->work->done, done);
}

void shmb_jobs_low(const struct shmb_jobs *jobs, const struct shmb_lane_reader *reader,
		   uint64_t *ret_position, uint64_t *ret_sequence)
{
	bool any = jobs->done < jobs->next;

	*ret_position = any ? jobs->jobs[SLOT(jobs->done)].position : reader->position;
	*ret_sequence = any ? jobs->jobs[SLOT(jobs->done)].sequence : reader->sequence;
}

void shmb_jobs_clear(struct shmb_cursor_work *work)
{
	for (uint32_t i = 0; i < SHMB_QUEUE_CREDIT_MAX; i++)
		SHMB_STORE(&work->marks[i], 0);
	SHMB_STORE(&work->done, 0);
}

void shmb_jobs_publish(const struct shmb_jobs *jobs, struct shmb_cursor_work *work)
{
	for (uint64_t number = jobs->done; number < jobs->next; number++) {
		const struct shmb_job *job = &jobs->jobs[SLOT(number)];

		SHMB_STORE(&work->marks[SLOT(number)],
			   number << SHMB_QUEUE_MARK_NUMBER_SHIFT | job->handed |
				   (job->state == SHMB_JOB_DONE ? SHMB_QUEUE_MARK_DONE : 0));
	}
	/* Killed before: nobody looks here, or the other memory says it. */
	SHMB_STORE(&work->done, jobs->done);
}
