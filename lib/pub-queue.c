/* SPDX-License-Identifier: Apache-2.0 */

/* Queues: who gets a record, and what becomes of those of a worker that has gone. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/copy.h"
#include "lib/pub-internal.h"

#define LOOK_EVERY 8u /* records, when all workers have some: a look is a cache miss for each */

void pub_free_queue(struct pub_queue *queue)
{
	if (queue)
		free(queue->orphans);
	free(queue);
}

int pub_reserve_orphans(struct pub_queue *queue, uint32_t n_workers)
{
	uint32_t needed = queue->n_orphans + n_workers * SHMB_QUEUE_CREDIT_MAX;
	struct shmb_ticket *orphans;

	if (needed <= queue->cap_orphans)
		return 0;
	orphans = realloc(queue->orphans, 2 * needed * sizeof(*orphans));
	if (!orphans)
		return shmb_fail(-ENOMEM, "no memory for the records of a worker");
	queue->orphans = orphans;
	queue->cap_orphans = 2 * needed;
	return 0;
}

/* How much a worker has done; a number that cannot be true leaves the last one. */
static void read_done(struct shmb_publisher *publisher, struct pub_pair *pair)
{
	struct shmb_worker *worker = pair->worker;
	uint64_t before = worker->done;
	bool possible;

	if (!pair->slot || (!pair->attached && !shmb_cursor_started(pair->slot, pair->id)))
		return;
	pair->attached = true;
	possible = shmb_worker_look(worker, pair->work);
	/* Another publisher's by now, if we were thrown out and do not know: as with its position. */
	if (possible && shmb_cursor_is_ours(pair->slot, pair->id))
		return;
	worker->done = before;
	if (!pair->accused) {
		shmb_member_report(&publisher->member, pair->id, EBADMSG);
		pair->accused = true;
	}
}

/* Where the oldest orphan is, for us and for who looks when we are dead. */
static void note_orphans(struct shmb_publisher *publisher)
{
	struct pub_queue *queue = publisher->queue;
	uint64_t from = SHMB_NO_ORPHANS;

	for (uint32_t i = 0; i < queue->n_orphans; i++)
		if (queue->orphans[i].position < from)
			from = queue->orphans[i].position;
	if (from == queue->orphans_from)
		return;
	queue->orphans_from = from;
	shmb_orphans_begin(publisher->writer.lane, from);
}

void pub_limit_queue(struct shmb_publisher *publisher)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	struct pub_queue *queue = publisher->queue;
	uint64_t ring_len = writer->mask + 1, reserve = ring_len / 4;

	note_orphans(publisher);
	queue->limit = writer->limit;
	if (queue->orphans_from != SHMB_NO_ORPHANS &&
	    queue->orphans_from + ring_len - 8 < queue->limit)
		queue->limit = queue->orphans_from + ring_len - 8;
	writer->limit = queue->limit == UINT64_MAX ? UINT64_MAX
			: queue->limit > reserve   ? queue->limit - reserve
						   : 0;
}

static bool any_orphan(const struct pub_queue *queue, uint64_t pair_id)
{
	for (uint32_t i = 0; i < queue->n_orphans; i++)
		if (queue->orphans[i].pair_id == pair_id)
			return true;
	return false;
}

void pub_settle_orphans(struct shmb_publisher *publisher, uint64_t kept_id)
{
	if (kept_id && !any_orphan(publisher->queue, kept_id))
		shmb_member_drained(&publisher->member, kept_id);
}

void pub_orphan(struct shmb_publisher *publisher, struct pub_pair *pair, uint64_t kept_id)
{
	struct pub_queue *queue = publisher->queue;
	uint32_t first = queue->n_orphans;

	queue->chosen = NULL;
	/*
	 * AH: pairs with AF in the subscriber's check_heard(): one that lives, but was thrown out, sees that
	 * if we do not see its marks.
	 */
	shmb_fence();
	read_done(publisher, pair);
	queue->n_orphans += shmb_worker_undone(pair->worker, pair->attached ? pair->work : NULL,
					       &queue->orphans[queue->n_orphans]);
	while (first < queue->n_orphans)
		queue->orphans[first++].pair_id = kept_id;
	note_orphans(publisher);
	shmb_bell_orphan(pair->bell_words);
}

static uint32_t credit_of(const struct pub_pair *pair)
{
	uint32_t credit = pair->words && !pub_has_left(pair) ? SHMB_LOAD(&pair->words->credit) : 0;

	return credit < SHMB_QUEUE_CREDIT_MAX ? credit : SHMB_QUEUE_CREDIT_MAX;
}

/* Of those with credit the one that has least to do, as far as we know, in turns. */
static struct pub_pair *least_loaded(struct shmb_publisher *publisher, uint64_t *ret_load)
{
	struct pub_pair *best = NULL;
	uint32_t n = publisher->n_pairs, turn = publisher->queue->turn;

	*ret_load = UINT64_MAX;
	for (uint32_t i = 0; i < n; i++) {
		struct pub_pair *pair = &publisher->pairs[turn + i < n ? turn + i : turn + i - n];
		uint64_t load = pair->worker->sent - pair->worker->done;

		if (load < *ret_load && load < credit_of(pair)) {
			*ret_load = load;
			best = pair;
		}
	}
	return best;
}

struct pub_pair *pub_choose(struct shmb_publisher *publisher)
{
	struct pub_queue *queue = publisher->queue;
	struct pub_pair *best;
	uint64_t load;

	if (queue->turn >= publisher->n_pairs)
		queue->turn = 0;
	best = least_loaded(publisher, &load);
	if (best && (load == 0 || ++queue->looks % LOOK_EVERY))
		return best;
	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		read_done(publisher, &publisher->pairs[i]);
	return least_loaded(publisher, &load);
}

void pub_address(struct shmb_publisher *publisher, struct pub_pair *pair, void *payload,
		 const struct shmb_ticket *ticket)
{
	shmb_worker_address(pair->worker, payload, pair->peer_id, ticket);
	publisher->sleepers[pair - publisher->pairs].quiet = false;
	publisher->queue->turn = (uint32_t)(pair - publisher->pairs) + 1;
}

/* The oldest orphan goes to a worker. Killed before it is published: it was never given to anybody. */
static bool give_anew(struct shmb_publisher *publisher)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	struct pub_queue *queue = publisher->queue;
	struct shmb_ticket *oldest = queue->orphans, ticket;
	struct pub_pair *pair = pub_choose(publisher);
	uint8_t *payload, *from;

	if (!pair)
		return false;
	for (uint32_t i = 1; i < queue->n_orphans; i++)
		if (queue->orphans[i].position < oldest->position)
			oldest = &queue->orphans[i];
	pub_refresh_limit(publisher);
	/*
	 * The room that is left goes to the one that holds up the ring: its place is
	 * free afterwards, so there is room for the next one. Others would use it up.
	 */
	if (queue->limit == oldest->position + writer->mask + 1 - 8)
		writer->limit = queue->limit;
	payload = shmb_lane_claim(writer, oldest->len + publisher->ext_len);
	writer->limit = 0; /* look again before the next record */
	if (!payload)
		return false;
	ticket = *oldest;
	shmb_copy(payload + publisher->ext_len,
		  writer->ring + (ticket.position & writer->mask) + SHMB_RECORD_HEADER_LEN +
			  publisher->ext_len,
		  ticket.len);
	from = writer->ring + (ticket.position & writer->mask) + SHMB_RECORD_HEADER_LEN;
	shmb_giving_begin(writer->lane, ticket.position, writer->position);
	ticket.position = writer->position;
	pub_address(publisher, pair, payload, &ticket);
	shmb_lane_commit(writer, ticket.len + publisher->ext_len, ticket.type, 0);
	shmb_giving_end(from);
	memmove(oldest, oldest + 1,
		(size_t)(&queue->orphans[--queue->n_orphans] - oldest) * sizeof(*oldest));
	pub_settle_orphans(publisher, ticket.pair_id);
	return true;
}

void pub_give_all_anew(struct shmb_publisher *publisher)
{
	while (publisher->queue->n_orphans && give_anew(publisher))
		;
	pub_ring_sleepers(publisher);
}

/* Is nothing left that a worker has not done? */
static bool all_done(struct shmb_publisher *publisher, uint32_t len)
{
	(void)len;
	/* Somebody may have credit for them by now, and not say so again. */
	if (publisher->queue->n_orphans)
		pub_give_all_anew(publisher);
	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		struct pub_pair *pair = &publisher->pairs[i];

		if (pair->worker->done != pair->worker->sent)
			read_done(publisher, pair);
		if (pair->worker->done != pair->worker->sent)
			return false;
	}
	return publisher->queue->n_orphans == 0;
}

SHMB_API int32_t shmb_publisher_wait_done(struct shmb_publisher *publisher, int64_t timeout_ns)
{
	int result;

	if (publisher && !publisher->queue)
		return shmb_fail(-EOPNOTSUPP, "the channel is not a queue");
	result = pub_wait_until(publisher, all_done, publisher ? publisher->record_len : 0,
				timeout_ns);
	if (result == -ETIMEDOUT)
		return shmb_fail(-ETIMEDOUT, "some records were not done in time");
	return result;
}
