/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_QUEUE_H
#define SHMB_LIB_QUEUE_H

/*
 * What a publisher of a queue knows of a worker, and a worker of a lane. Each record is addressed to
 * one worker by its publisher; all workers read the lane, and step over what is not for them. Labels
 * continue those of state.c.
 *
 *	word	    | stored by | loaded by | order		 | labels
 *	------------+-----------+-----------+--------------------+---------
 *	work done   | worker	| publisher | fence -> acquire	 | W -> AG
 *	work marks  | worker	| publisher | fence <-> fence	 | AF <-> AH
 *
 * A worker that moves to another cursor, or whose publisher moves to another lane, stores its marks
 * in both, as it does with its position: see Y and Z in pub-pair.c and sub-successor.c.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/ring.h>

#define SHMB_QUEUE_CREDIT_DEFAULT 32u

/* A record of a queue may have an eighth of the lane: what is given anew needs room, see pub-queue.c. */
static inline uint32_t shmb_queue_record_len_max(uint32_t lane_len)
{
	uint64_t len = lane_len / 8 - SHMB_RECORD_HEADER_LEN - sizeof(struct shmb_queue_address);

	return len < SHMB_RECORD_LEN_MASK ? (uint32_t)len : (uint32_t)SHMB_RECORD_LEN_MASK;
}

/* Slots of a cursor. Those of publishers that have gone stay theirs until their work is done. */
static inline uint32_t shmb_cursor_slots(uint32_t pattern, uint32_t max_publishers)
{
	return max_publishers + (pattern == SHMB_PATTERN_QUEUE ? SHMB_QUEUE_KEPT_MAX : 0);
}

/* Bytes of a cursor. */
static inline uint64_t shmb_cursor_len(uint32_t pattern, uint32_t max_publishers)
{
	uint64_t len = sizeof(struct shmb_cursor_lane);

	if (pattern == SHMB_PATTERN_QUEUE)
		len += sizeof(struct shmb_cursor_work);
	return SHMB_BLOCK_LEN + shmb_cursor_slots(pattern, max_publishers) * len;
}

/* Where the marks for the publisher of a slot begin, in bytes from the start of the cursor. */
static inline uint64_t shmb_cursor_work_offset(uint32_t max_publishers, uint32_t slot)
{
	uint64_t n_slots = shmb_cursor_slots(SHMB_PATTERN_QUEUE, max_publishers);

	return SHMB_BLOCK_LEN + n_slots * sizeof(struct shmb_cursor_lane) +
	       slot * sizeof(struct shmb_cursor_work);
}

/* ---- the publisher's side ---------------------------------------------------------------------- */

/**
 * struct shmb_ticket - a record that is not known to be done
 * @position: of its header
 * @pair_id:  of the worker that has left it, if the broker keeps that worker's marks; else 0
 * @len:      bytes of its payload
 * @type:     the application's
 * @attempts: how often it had been handed out when it was published
 */
struct shmb_ticket {
	uint64_t position;
	uint64_t pair_id;
	uint32_t len;
	uint32_t type;
	uint32_t attempts;
};

/**
 * struct shmb_worker - a subscriber as one publisher sees it
 * @sent:    records for it
 * @done:    of them done, all before this one
 * @tickets: of those that are not
 * @marks:   what it had marked in a cursor that it is leaving, until it uses the next one
 */
struct shmb_worker {
	uint64_t sent;
	uint64_t done;
	struct shmb_ticket tickets[SHMB_QUEUE_CREDIT_MAX];
	uint64_t marks[SHMB_QUEUE_CREDIT_MAX];
};

/* A record for this worker is published: writes the address in front of its payload. */
void shmb_worker_address(struct shmb_worker *worker, void *payload, uint64_t worker_id,
			 const struct shmb_ticket *ticket);

/* Looks how many are done. Returns false if that cannot be true. */
bool shmb_worker_look(struct shmb_worker *worker, const struct shmb_cursor_work *work);

/* It leaves this cursor: what it stores from now on, and in which order, the caller knows. */
void shmb_worker_note(struct shmb_worker *worker, const struct shmb_cursor_work *work);

/**
 * shmb_worker_undone() - what a worker has left that has gone
 * @worker: as we know it
 * @work:   what it has stored; NULL: it has not begun to use this cursor
 * @undone: room for SHMB_QUEUE_CREDIT_MAX tickets, in the order in which they were published
 *
 * Return: how many.
 */
uint32_t shmb_worker_undone(struct shmb_worker *worker, const struct shmb_cursor_work *work,
			    struct shmb_ticket *undone);

/*
 * A record is given to another worker anew: the same bytes, at the end of the lane. Whoever looks at the
 * lane of a publisher that was killed meanwhile finds it once.
 */

/* The record at @from is about to be published once more, at @to. */
void shmb_giving_begin(struct shmb_lane_segment *lane, uint64_t from, uint64_t to);

/* It is published. @payload: of the first one, its address included. */
void shmb_giving_end(uint8_t *payload);

/* ---- when both have gone ----------------------------------------------------------------------- */

/**
 * struct shmb_left - what a worker has left in the lane of a publisher that has gone, too
 * @worker:	id of the worker
 * @work:	its marks
 * @given_from: from the lane
 * @given_to:	from the lane
 * @n:		of @tickets
 * @tickets:	what it has not done
 */
struct shmb_left {
	uint64_t worker;
	struct shmb_cursor_work work;
	uint64_t given_from;
	uint64_t given_to;
	uint32_t n;
	struct shmb_ticket tickets[SHMB_QUEUE_CREDIT_MAX];
};

/**
 * shmb_left_add() - look at the next record of the lane
 * @left:     all but @n and @tickets is set
 * @record:   as peeked at
 * @position: of its header
 *
 * To be called for all records from the worker's position on, whomever they are for.
 *
 * Return: 0; -EBADMSG: nobody honest has written that.
 */
int shmb_left_add(struct shmb_left *left, const struct shmb_record *record, uint64_t position);

/* ---- the worker's side ------------------------------------------------------------------------- */

enum shmb_job_state {
	SHMB_JOB_DONE, /* or none */
	SHMB_JOB_TAKEN,
	SHMB_JOB_FAILED, /* to be handed out again */
	SHMB_JOB_DEAD, /* waits for room among the dead letters */
};

/**
 * struct shmb_job - a record that this worker has been handed
 * @position: of its header
 * @sequence: of it in the lane
 * @attempt:  how often it has been handed to anybody, this time included
 * @handed:   of these, to us
 * @state:    enum shmb_job_state
 */
struct shmb_job {
	uint64_t position;
	uint64_t sequence;
	uint32_t attempt;
	uint16_t handed;
	uint8_t state;
};

/**
 * struct shmb_jobs - the records for us of one lane
 * @work:     what the publisher sees of it; NULL: it has gone
 * @next:     number of the next one
 * @done:     all before this one are done
 * @n_failed: jobs in that state
 * @n_dead:   jobs in that state
 * @lane:     which lane of this subscriber, from 1
 * @jobs:     from @done to @next
 */
struct shmb_jobs {
	struct shmb_cursor_work *work;
	uint64_t next;
	uint64_t done;
	uint32_t n_failed;
	uint32_t n_dead;
	uint32_t lane;
	struct shmb_job jobs[SHMB_QUEUE_CREDIT_MAX];
};

/**
 * shmb_jobs_accept() - is this record for us?
 * @jobs:	 of its lane
 * @worker_id:	 who we are
 * @record:	 as peeked at; without the address afterwards if it is
 * @ret_attempt: stores which attempt it is
 *
 * Return: 1; 0: it is for somebody else; -EBADMSG: no honest publisher has written it.
 */
int shmb_jobs_accept(const struct shmb_jobs *jobs, uint64_t worker_id, struct shmb_record *record,
		     uint32_t *ret_attempt);

/* It is handed out, for the first time. Returns its number. */
uint32_t shmb_jobs_take(struct shmb_jobs *jobs, const struct shmb_lane_reader *reader,
			uint32_t attempt);

/* It is handed out once more. */
void shmb_jobs_retake(struct shmb_jobs *jobs, uint32_t number);

/* The job of a number that has been taken, or NULL. */
struct shmb_job *shmb_jobs_find(struct shmb_jobs *jobs, uint32_t number);

/* The oldest job in a state, or NULL. */
struct shmb_job *shmb_jobs_first(struct shmb_jobs *jobs, enum shmb_job_state state,
				 uint32_t *ret_number);

/* It leaves one state for another. */
void shmb_jobs_set(struct shmb_jobs *jobs, uint32_t number, enum shmb_job_state state);

/* What the publisher must keep begins here. */
void shmb_jobs_low(const struct shmb_jobs *jobs, const struct shmb_lane_reader *reader,
		   uint64_t *ret_position, uint64_t *ret_sequence);

/* These are not another pair's marks any more. Nobody looks there. */
void shmb_jobs_clear(struct shmb_cursor_work *work);

/* Say all of it in other shared memory, too, where somebody may be looking already. */
void shmb_jobs_publish(const struct shmb_jobs *jobs, struct shmb_cursor_work *work);

#endif
