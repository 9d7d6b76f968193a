/* SPDX-License-Identifier: Apache-2.0 */

/* Room in the lane: how far the subscribers are, and no longer waiting for those that are stuck. */

#include "lib/clock.h"
#include "lib/pub-internal.h"

void pub_refresh_limit(struct shmb_publisher *publisher)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	uint64_t limit = UINT64_MAX;

	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		uint64_t head;

		/* The subscriber may have been behind us when we heard of a new socket. */
		if (shmb_unlikely(publisher->pairs[i].ringer.n > 1))
			pub_settle_ringer(&publisher->member, &publisher->pairs[i]);
		/* A worker that was closed has left us what it has not done. */
		if (publisher->pairs[i].lossy ||
		    (pub_has_left(&publisher->pairs[i]) && !publisher->queue))
			continue;
		head = pub_read_head(publisher, &publisher->pairs[i]);
		/* The ring, less the zero word behind the last record. */
		if (head + writer->mask + 1 - 8 < limit)
			limit = head + writer->mask + 1 - 8;
		/* Who has nothing to do sleeps, and does not step over what is for others. */
		if (shmb_unlikely(publisher->queue &&
				  writer->position - head > (writer->mask + 1) / 4))
			pub_ring_laggard(publisher, i);
	}
	writer->limit = limit;
	if (publisher->queue)
		pub_limit_queue(publisher);
}

/*
 * Has it not moved for as long as it may? Time in which we were stopped ourselves, while we waited for
 * it, does not count: it may have been stopped with us.
 */
static bool is_stuck(struct pub_pair *pair, uint64_t now_ns, bool waiting)
{
	bool was_away = waiting && now_ns - pair->looked_ns > pair->evict_after_ns / 2 &&
			now_ns - pair->looked_ns > 10 * PUB_BACKSTOP_NS;

	if (pair->stuck_head != pair->head || !pair->stuck_ns || was_away) {
		pair->stuck_head = pair->head;
		pair->stuck_ns = now_ns;
	}
	pair->looked_ns = now_ns;
	return now_ns - pair->stuck_ns >= pair->evict_after_ns;
}

/*
 * Nothing is asked of the broker, which may be gone. The subscriber knows from its bell that it may be
 * lapped, and goes on as a lossy one when it wakes up; nothing of ours depends on it any more.
 */
static void evict(struct shmb_publisher *publisher, struct pub_pair *pair)
{
	shmb_bell_evict(pair->bell_words);
	pair->lossy = pair->evicted = true;
	publisher->evicted++;
	SHMB_STORE(&publisher->writer.lane->evicted, publisher->evicted);
	shmb_member_overtakes(&publisher->member, pair->id);
}

bool pub_evict_stuck(struct shmb_publisher *publisher, uint64_t end, bool waiting)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	uint64_t now = shmb_clock_now_ns();
	bool any = false;

	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		struct pub_pair *pair = &publisher->pairs[i];

		if (!pair->evict_after_ns || pair->lossy || pub_has_left(pair) ||
		    end <= pair->head + writer->mask + 1 - 8)
			continue;
		if (is_stuck(pair, now, waiting)) {
			evict(publisher, pair);
			any = true;
		}
	}
	if (any)
		pub_refresh_limit(publisher);
	return end <= writer->limit;
}

bool pub_evict_holder(struct shmb_publisher *publisher, struct pub_pair *pair, bool waiting)
{
	if (!pair->evict_after_ns)
		return false;
	pub_read_head(publisher, pair);
	if (!is_stuck(pair, shmb_clock_now_ns(), waiting))
		return false;
	evict(publisher, pair);
	publisher->writer.limit = 0;
	return true;
}

uint8_t *pub_claim_refreshed(struct shmb_publisher *publisher, uint32_t len)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	uint64_t end;

	publisher->fds_short = false; /* it is the lane that may be */
	pub_refresh_limit(publisher);
	end = pub_end_of(writer, len);
	if (end > writer->limit && publisher->may_evict)
		pub_evict_stuck(publisher, end, false);
	return shmb_lane_claim(writer, len);
}
