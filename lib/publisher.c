/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_publisher: one lane, and the subscribers that read it.
 *
 * Publishing is plain stores into the lane and one release store (ring.h); then one fence and a
 * look at each subscriber's sleep word. Cursors are read only when the cached limit is used up.
 * Membership is taken in at the start of a call, when the channel's epoch has moved, so a new
 * reliable subscriber is known before anything it was promised could be overwritten.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#include "lib/ahead.h"
#include "lib/api.h"
#include "lib/arena.h"
#include "lib/bell.h"
#include "lib/clock.h"
#include "lib/copy.h"
#include "lib/error.h"
#include "lib/extension.h"
#include "lib/fd.h"
#include "lib/history.h"
#include "lib/member.h"
#include "lib/options.h"
#include "lib/publisher.h"
#include "lib/queue.h"

/* One process sleeps on a bell, with few threads; a hostile one may queue thousands. */
#define WAKE_MAX 8

/* How long a publisher that waits for space looks at the cursors itself after it has armed. */
#define ARM_LOOK_NS 5000ull

#define NS_PER_MS 1000000ull

/* A publisher that waits for space looks again this often, whatever happens. */
#define SPACE_BACKSTOP_NS 10000000ull

/**
 * struct pub_pair - a subscriber that reads our lane
 * @id:	      of the pair
 * @peer_id:  the subscriber's
 * @cursor:   holds @words
 * @before:   the cursor that it may still tell its holds in, until it begins to use @words
 * @unknown:  there may be more such cursors: it may hold anything until then
 * @words:    the subscriber's cursor, read-only; NULL: it will move to one before it reads from us
 * @slot:     our slot in it, or NULL
 * @bell:     holds @bell_words
 * @bell_words: the bell we ring
 * @ringer:   rings it when it sleeps on an fd
 * @lossy:    it does not hold us back, or not any more
 * @evicted:  it did, for too long
 * @evict_after_ns: how long it may hold us up without moving; 0: for ever
 * @stuck_head: where it was when it was last found to hold us up
 * @stuck_ns: since when it has been there
 * @looked_ns: when that was last looked at
 * @attached: it has taken over our start position, so its own position counts
 * @accused:  the broker has been told that its cursor lies
 * @head:     it has read up to here
 * @start_position, @start_sequence: where it begins
 * @work:     of a queue: its marks for our records; NULL: as @slot
 * @worker:   of a queue: what we have given it; else NULL
 */
struct pub_pair {
	uint64_t id;
	uint64_t peer_id;
	struct shmb_map cursor;
	struct shmb_map before;
	bool unknown;
	const struct shmb_cursor_segment *words;
	const struct shmb_cursor_lane *slot;
	struct shmb_map bell;
	struct shmb_bell_segment *bell_words;
	struct shmb_ringer ringer;
	bool lossy;
	bool evicted;
	bool attached;
	bool accused;
	uint64_t evict_after_ns;
	uint64_t stuck_head;
	uint64_t stuck_ns;
	uint64_t looked_ns;
	uint64_t head;
	uint64_t start_position;
	uint64_t start_sequence;
	const struct shmb_cursor_work *work;
	struct shmb_worker *worker;
};

/**
 * struct sleeper - what a publish looks at for each subscriber, packed
 * @sleep: its sleep word
 * @rung:  the sleep word for which we have rung
 * @quiet: of a queue: there is nothing for it
 */
struct sleeper {
	const uint32_t *sleep;
	uint32_t rung;
	bool quiet;
};

/**
 * struct queue - what a publisher of a queue knows beside its workers
 * @orphans:	 records of workers that have gone: they are given to others, the oldest first
 * @n_orphans:	 of them
 * @cap_orphans: room for all that could become some
 * @turn:	 of two workers that have as little to do, who gets the next record
 * @looks:	 records since we last looked how far the workers are
 * @chosen:	 who gets the record that is claimed; NULL: to be chosen anew
 * @limit:	 how far the orphan may go that holds up the ring; all others leave it room
 */
struct queue {
	struct shmb_ticket *orphans;
	uint32_t n_orphans;
	uint32_t cap_orphans;
	uint32_t turn;
	uint32_t looks;
	struct pub_pair *chosen;
	uint64_t limit;
};

struct shmb_publisher {
	struct shmb_member member;
	struct shmb_lane_writer writer;
	struct shmb_view view;
	struct sleeper *sleepers;
	struct pub_pair *pairs;
	uint32_t n_pairs;
	uint32_t cap_pairs;
	uint32_t record_len_max;
	uint32_t record_len;
	uint32_t ext_len; /* bytes before each payload */
	bool ordered;
	uint64_t stamp; /* of the last record */
	uint32_t flags;
	uint32_t loan_len;
	uint32_t ahead_max; /* longest publication to prepare for, see ahead.h */
	bool loaned;
	bool polled; /* its fd was asked for: calls that do not wait arm it */
	uint32_t space_epoch;
	uint64_t full_sequence; /* as the lane says it; all ones: never full */
	uint64_t dropped;
	uint64_t refused;
	uint64_t rings;
	uint32_t evicted; /* subscribers that it has stopped waiting for */
	bool may_evict; /* there are, or were, some that it will not wait for for ever */
	struct shmb_state_writer *state; /* NULL: not a state channel */
	struct queue *queue; /* NULL: not a queue */
	struct shmb_arena *arena; /* NULL: the channel has no blocks */
	uint32_t inline_len_max; /* longer records lie in blocks */
	struct shmb_block
		*block; /* where the record lies that is being written; NULL: in the lane */
	struct shmb_block_descriptor *descriptor; /* of it, in the lane */
	bool no_block; /* none was free for the last long record */
	int shortage; /* why not; 0: one will be */
};

static struct shmb_publisher *to_publisher(struct shmb_member *member)
{
	return shmb_container_of(member, struct shmb_publisher, member);
}

static inline void ring_sleepers(struct shmb_publisher *publisher);
static void ring_laggard(struct shmb_publisher *publisher, uint32_t i);

/* ---- subscribers that come and go -------------------------------------------------------------- */

static struct pub_pair *find_pair(struct shmb_publisher *publisher, uint64_t id)
{
	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		if (publisher->pairs[i].id == id)
			return &publisher->pairs[i];
	return NULL;
}

/* The pair that a new one of the same subscriber replaces. */
static struct pub_pair *find_peer(struct shmb_publisher *publisher, uint64_t peer_id)
{
	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		if (publisher->pairs[i].peer_id == peer_id)
			return &publisher->pairs[i];
	return NULL;
}

/* So that no worker can go without leaving us its records. */
static int reserve_orphans(struct queue *queue, uint32_t n_workers)
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

static int reserve_pair(struct shmb_publisher *publisher)
{
	uint32_t cap = publisher->cap_pairs ? 2 * publisher->cap_pairs : 4;
	struct sleeper *sleepers;
	struct pub_pair *pairs;

	if (publisher->queue && reserve_orphans(publisher->queue, publisher->n_pairs + 1) < 0)
		return -ENOMEM;
	if (publisher->n_pairs < publisher->cap_pairs)
		return 0;
	pairs = realloc(publisher->pairs, cap * sizeof(*pairs));
	if (pairs)
		publisher->pairs = pairs;
	sleepers = realloc(publisher->sleepers, cap * sizeof(*sleepers));
	if (sleepers)
		publisher->sleepers = sleepers;
	if (!pairs || !sleepers)
		return shmb_fail(-ENOMEM, "no memory for a subscriber");
	publisher->cap_pairs = cap;
	return 0;
}

static void deinit_pair(struct pub_pair *pair)
{
	shmb_map_deinit(&pair->cursor);
	shmb_map_deinit(&pair->before);
	shmb_map_deinit(&pair->bell);
	shmb_ringer_deinit(&pair->ringer);
	free(pair->worker);
}

static int map_pair(struct shmb_publisher *publisher, struct pub_pair *pair,
		    struct shmb_event *event)
{
	int cursor = shmb_event_find(event, SHMB_FD_ROLE_PEER);
	int bell = shmb_event_find(event, SHMB_FD_ROLE_BELL);
	const struct shmb_channel *channel = publisher->member.channel;
	uint64_t cursor_len = shmb_cursor_len(channel->pattern, channel->max_publishers);
	bool blind = event->pair.flags & SHMB_PAIR_BLIND;
	int result = 0;

	if (bell < 0 ||
	    (!blind && (cursor < 0 || event->descriptors[cursor].segment_len != cursor_len)))
		return shmb_fail(-EPROTO, "the broker announced a subscriber without its segments");
	if (!blind)
		result = shmb_map_reader(&pair->cursor, event->fds[cursor],
					 &event->descriptors[cursor], SHMB_SEGMENT_CURSOR);
	if (result == 0)
		result = shmb_map_writer(&pair->bell, event->fds[bell], &event->descriptors[bell],
					 SHMB_SEGMENT_BELL);
	if (result < 0)
		return result;
	pair->bell_words = pair->bell.base;
	if (blind)
		return 0;
	pair->words = pair->cursor.base;
	pair->slot = (const struct shmb_cursor_lane *)(const void *)((const uint8_t *)pair->words +
								     SHMB_BLOCK_LEN) +
		     publisher->member.slot;
	if (publisher->queue)
		pair->work = (const void *)((const uint8_t *)pair->words +
					    shmb_cursor_work_offset(channel->max_publishers,
								    publisher->member.slot));
	return 0;
}

/* Subscribers ring the newest doorbell that we say we listen to. Killed before: the older one. */
static void on_doorbell(struct shmb_member *member)
{
	struct shmb_publisher *publisher = to_publisher(member);
	uint32_t oldest = UINT32_MAX;

	/* What a subscriber may still ring stays open; it moves on to newer ones only. */
	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		const struct pub_pair *pair = &publisher->pairs[i];
		uint32_t used = pair->attached ? SHMB_LOAD(&pair->slot->doorbell_generation) : 0;

		if (used < oldest && !shmb_ringer_is_socket(&pair->ringer))
			oldest = used;
	}
	shmb_member_retire_doorbells(member, oldest);
	SHMB_STORE(&publisher->writer.lane->doorbell_generation,
		   shmb_member_doorbell_generation(member));
}

/* Before the subscriber has taken its slot, the slot speaks of somebody else. */
static uint32_t sockets_of_peer(const struct pub_pair *pair)
{
	/* M: pairs with N in the subscriber's attach_lane(). */
	if (!pair->slot || SHMB_LOAD_ACQUIRE(&pair->slot->pair_id) != pair->id)
		return 0;
	/* T: pairs with U in the subscriber's settle_ringer(): it rings the newer one from now on. */
	return SHMB_LOAD_ACQUIRE(&pair->slot->doorbell_generation);
}

/* Use the newest doorbell that the subscriber listens to, and tell it which. */
static void settle_ringer(struct shmb_member *member, struct pub_pair *pair)
{
	uint32_t used;

	if (shmb_ringer_is_socket(&pair->ringer))
		used = shmb_member_settle_sockets(member, &pair->ringer, pair->id,
						  sockets_of_peer(pair));
	else
		used = shmb_ringer_settle(&pair->ringer,
					  pair->words ? SHMB_LOAD(&pair->words->doorbell_generation)
						      : 0);
	/*
	 * U: pairs with T in the subscriber's settle_ringer(): what we rang before is on the old
	 * socket, and the record for it in the lane. Killed before: it keeps a doorbell too many.
	 */
	SHMB_STORE_RELEASE(&pair->bell_words->doorbell_generation, used);
}

/* How far a reliable subscriber has read; a position that cannot be true leaves the last one. */
static uint64_t read_head(struct shmb_publisher *publisher, struct pub_pair *pair)
{
	uint64_t head;

	if (!pair->slot)
		return pair->head;
	if (!pair->attached && !shmb_cursor_started(pair->slot, pair->id))
		return pair->head;
	pair->attached = true;
	head = shmb_cursor_position(pair->slot);
	if (shmb_cursor_is_ours(pair->slot, pair->id) && head >= pair->head &&
	    head <= publisher->writer.position && !(head & 7)) {
		pair->head = head;
	} else if (!pair->accused) {
		shmb_member_report(&publisher->member, pair->id, EBADMSG);
		pair->accused = true;
	}
	return pair->head;
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

/* Whose cursor we do not have yet does not sleep on us. */
static struct sleeper sleeper_of(const struct pub_pair *pair)
{
	static const uint32_t awake = SHMB_SLEEP_AWAKE;

	return (struct sleeper){ .sleep = pair->words ? &pair->words->sleep : &awake };
}

/*
 * The same subscriber with another segment of its own, or of ours. It takes its position along, and
 * until it says so in its new slot the old one holds.
 */
static struct pub_pair *replace_pair(struct shmb_publisher *publisher, struct pub_pair *pair,
				     struct pub_pair *fresh)
{
	bool accused = pair->accused;

	fresh->lossy |= pair->lossy;
	fresh->evicted = pair->evicted;
	if (fresh->evicted)
		shmb_bell_evict(fresh->bell_words);
	/* Who has never read from us yet begins where it would have; who has, goes on where it is. */
	fresh->start_position = pair->start_position;
	fresh->start_sequence = pair->start_sequence;
	shmb_bell_start(fresh->bell_words, fresh->start_position, fresh->start_sequence);
	/*
	 * Y: pairs with Z in the subscriber's store_ahead(): either it sees the new bell and stores
	 * its position in the new slot, too, or we see here what it has stored in the old one.
	 */
	shmb_fence();
	/* In a slot that both have, the fresh pair may have its position by now: that is no lie. */
	pair->accused = true;
	fresh->head = read_head(publisher, pair);
	fresh->accused = accused;
	/* It has not moved yet, and goes on in the cursor that we know. */
	if (!fresh->slot) {
		fresh->cursor = pair->cursor;
		fresh->words = pair->words;
		fresh->slot = pair->slot;
		fresh->work = pair->work;
		fresh->before = pair->before;
		fresh->unknown = pair->unknown;
		pair->cursor.base = pair->before.base = NULL;
	} else if (publisher->arena && pair->slot) {
		/* What it holds it tells in its new cursor before it takes the slot there. */
		fresh->unknown = pair->before.base || pair->unknown;
		fresh->before = pair->cursor;
		pair->cursor.base = NULL;
	}
	/* As with the position: what it has marked until now is in the old one, or in both. */
	if (pair->worker && pair->attached)
		shmb_worker_note(pair->worker, pair->work);
	fresh->worker = pair->worker;
	pair->worker = NULL;
	shmb_member_drop_doorbells(&publisher->member, pair->id);
	deinit_pair(pair);
	publisher->sleepers[pair - publisher->pairs] = sleeper_of(fresh);
	*pair = *fresh;
	return pair;
}

static struct pub_pair *meet(struct shmb_publisher *publisher, struct pub_pair *fresh,
			     const struct shmb_msg_pair *news)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	struct pub_pair *pair = &publisher->pairs[publisher->n_pairs];

	shmb_history_start(writer, news->history, &fresh->start_position, &fresh->start_sequence);
	if (publisher->arena && news->flags & SHMB_PAIR_MOVE)
		shmb_arena_leave(publisher->arena);
	if (publisher->arena && shmb_arena_retire(publisher->arena)) {
		publisher->arena->floor = writer->position;
		publisher->arena->floor_sequence = writer->sequence;
	}
	/* Of what lies before, some blocks are not there any more, or not for this subscriber. */
	if (publisher->arena && fresh->start_position < publisher->arena->floor) {
		fresh->start_position = publisher->arena->floor;
		fresh->start_sequence = publisher->arena->floor_sequence;
	}
	fresh->head = fresh->start_position;
	publisher->sleepers[publisher->n_pairs++] = sleeper_of(fresh);
	*pair = *fresh;
	shmb_bell_start(pair->bell_words, pair->start_position, pair->start_sequence);
	return pair;
}

static int on_pair(struct shmb_member *member, struct shmb_event *event)
{
	struct shmb_publisher *publisher = to_publisher(member);
	struct pub_pair *pair = find_pair(publisher, event->pair.pair_id), *before;
	struct pub_pair fresh = { .id = event->pair.pair_id, .peer_id = event->pair.peer_id };
	int result;

	if (!pair) {
		result = reserve_pair(publisher);
		if (result == 0)
			result = map_pair(publisher, &fresh, event);
		if (result < 0) {
			deinit_pair(&fresh);
			return result;
		}
		fresh.lossy = event->pair.flags & SHMB_PAIR_LOSSY;
		fresh.evict_after_ns = event->pair.evict_after_ms * NS_PER_MS;
		publisher->may_evict |= fresh.evict_after_ns != 0;
		before = find_peer(publisher, fresh.peer_id);
		if (publisher->queue && !before)
			fresh.worker = calloc(1, sizeof(*fresh.worker));
		if (publisher->queue && !before && !fresh.worker) {
			deinit_pair(&fresh);
			return shmb_fail(-ENOMEM, "no memory for a worker");
		}
		pair = before ? replace_pair(publisher, before, &fresh)
			      : meet(publisher, &fresh, &event->pair);
	}
	shmb_ringer_add(&pair->ringer, event);
	settle_ringer(member, pair);
	publisher->writer.limit = 0; /* somebody new may be slowest: look before the next record */
	if (publisher->queue)
		publisher->queue->chosen = NULL;
	if (pair->head != publisher->writer.position)
		ring_sleepers(publisher); /* it has history to read, whatever comes next */
	return 0;
}

/* What the worker has not done is to be given to others. The ring keeps it until then. */
static void orphan(struct shmb_publisher *publisher, struct pub_pair *pair)
{
	struct queue *queue = publisher->queue;

	queue->chosen = NULL;
	/*
	 * AH: pairs with AF in the subscriber's check_heard(): one that lives, but was thrown out, sees that
	 * if we do not see its marks.
	 */
	shmb_fence();
	read_done(publisher, pair);
	queue->n_orphans += shmb_worker_undone(pair->worker, pair->attached ? pair->work : NULL,
					       &queue->orphans[queue->n_orphans]);
}

static void on_unpair(struct shmb_member *member, const struct shmb_msg_unpair *unpair)
{
	struct shmb_publisher *publisher = to_publisher(member);
	struct pub_pair *pair = find_pair(publisher, unpair->pair_id);

	if (!pair)
		return;
	if (publisher->queue)
		orphan(publisher, pair);
	shmb_member_drop_doorbells(member, pair->id);
	deinit_pair(pair);
	publisher->n_pairs--;
	publisher->sleepers[pair - publisher->pairs] = publisher->sleepers[publisher->n_pairs];
	*pair = publisher->pairs[publisher->n_pairs];
	publisher->writer.limit = 0;
}

/* Values are read from both as soon as subscribers are told: see put() in state.c. */
static void publisher_on_granted(struct shmb_member *member, void *to)
{
	if (to_publisher(member)->state)
		memcpy((uint8_t *)to + SHMB_BLOCK_LEN,
		       (const uint8_t *)member->own.base + SHMB_BLOCK_LEN,
		       member->own.len - SHMB_BLOCK_LEN);
}

/* All but the header, which is the broker's: positions, marks, intent, hints and the ring. */
static int publisher_on_prepare(struct shmb_member *member, void *to)
{
	const size_t skip = sizeof(struct shmb_segment_header);

	if (to_publisher(member)->state) {
		memcpy((uint8_t *)to + skip, (const uint8_t *)member->own.base + skip,
		       SHMB_BLOCK_LEN - skip);
		return 0;
	}
	memcpy((uint8_t *)to + skip, (const uint8_t *)member->own.base + skip,
	       member->own.len - skip);
	return 0;
}

static bool publisher_knows(struct shmb_member *member, uint64_t peer_id)
{
	return find_peer(to_publisher(member), peer_id) != NULL;
}

/* Those who read the old lane must all know of the new one before we leave it. */
static bool publisher_is_complete(const struct shmb_member *member, const struct shmb_event *staged)
{
	const struct shmb_publisher *publisher =
		shmb_container_of(member, const struct shmb_publisher, member);

	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		const struct shmb_event *at = staged;

		while (at && at->pair.peer_id != publisher->pairs[i].peer_id)
			at = at->next;
		if (!at)
			return false;
	}
	return member->answered || staged;
}

static void publisher_on_move(struct shmb_member *member, struct shmb_map *before)
{
	struct shmb_publisher *publisher = to_publisher(member);
	struct shmb_lane_writer *writer = &publisher->writer;

	writer->lane = member->own.base;
	writer->ring = (uint8_t *)member->own.base + SHMB_BLOCK_LEN;
	shmb_map_deinit(before);
	if (publisher->arena)
		shmb_arena_leave(publisher->arena);
	SHMB_STORE(&writer->lane->space_wait, publisher->space_epoch << 2 | SHMB_SLEEP_AWAKE);
	on_doorbell(member);
}

/* ---- space ------------------------------------------------------------------------------------- */

/* It was closed, and the broker has not told us yet. */
static bool has_left(const struct pub_pair *pair)
{
	return pair->words && shmb_cursor_left(pair->words);
}

/*
 * Orphans are kept, too. Whatever is published leaves room for the longest record and a pad, or else
 * an orphan that holds up the ring could not be moved out of its way.
 */
static void limit_queue(struct shmb_publisher *publisher)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	struct queue *queue = publisher->queue;
	uint64_t ring_len = writer->mask + 1, reserve = ring_len / 4;

	queue->limit = writer->limit;
	for (uint32_t i = 0; i < queue->n_orphans; i++)
		if (queue->orphans[i].position + ring_len - 8 < queue->limit)
			queue->limit = queue->orphans[i].position + ring_len - 8;
	writer->limit = queue->limit == UINT64_MAX ? UINT64_MAX
			: queue->limit > reserve   ? queue->limit - reserve
						   : 0;
}

/* Look at all cursors. The limit stays where a reader that lies has stopped. */
static void refresh_limit(struct shmb_publisher *publisher)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	uint64_t limit = UINT64_MAX;

	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		uint64_t head;

		/* The subscriber may have been behind us when we heard of a new socket. */
		if (shmb_unlikely(publisher->pairs[i].ringer.n > 1))
			settle_ringer(&publisher->member, &publisher->pairs[i]);
		/* A worker that was closed has left us what it has not done. */
		if (publisher->pairs[i].lossy ||
		    (has_left(&publisher->pairs[i]) && !publisher->queue))
			continue;
		head = read_head(publisher, &publisher->pairs[i]);
		/* The ring, less the zero word behind the last record. */
		if (head + writer->mask + 1 - 8 < limit)
			limit = head + writer->mask + 1 - 8;
		/* Who has nothing to do sleeps, and does not step over what is for others. */
		if (shmb_unlikely(publisher->queue &&
				  writer->position - head > (writer->mask + 1) / 4))
			ring_laggard(publisher, i);
	}
	writer->limit = limit;
	if (publisher->queue)
		limit_queue(publisher);
}

/* Where a record of this length would end, a pad before it included. */
static uint64_t end_of(const struct shmb_lane_writer *writer, uint64_t len)
{
	uint64_t span = shmb_record_span(len);
	uint64_t rest = writer->mask + 1 - (writer->position & writer->mask);

	return writer->position + (span > rest ? rest : 0) + span;
}

/* ---- subscribers that hold it up for too long -------------------------------------------------- */

/*
 * Has it not moved for as long as it may? Time in which we were stopped ourselves, while we waited for
 * it, does not count: it may have been stopped with us.
 */
static bool is_stuck(struct pub_pair *pair, uint64_t now_ns, bool waiting)
{
	bool was_away = waiting && now_ns - pair->looked_ns > pair->evict_after_ns / 2 &&
			now_ns - pair->looked_ns > 10 * SPACE_BACKSTOP_NS;

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

/*
 * The cursors have been read, and a record that ends at @end does not fit: is that the fault of
 * subscribers that have not moved for too long? Returns true if there is room now.
 */
static SHMB_SELDOM bool evict_stuck(struct shmb_publisher *publisher, uint64_t end, bool waiting)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	uint64_t now = shmb_clock_now_ns();
	bool any = false;

	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		struct pub_pair *pair = &publisher->pairs[i];

		if (!pair->evict_after_ns || pair->lossy || has_left(pair) ||
		    end <= pair->head + writer->mask + 1 - 8)
			continue;
		if (is_stuck(pair, now, waiting)) {
			evict(publisher, pair);
			any = true;
		}
	}
	if (any)
		refresh_limit(publisher);
	return end <= writer->limit;
}

static SHMB_SELDOM uint8_t *claim_refreshed(struct shmb_publisher *publisher, uint32_t len)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	uint64_t end;

	refresh_limit(publisher);
	end = end_of(writer, len);
	if (end > writer->limit && publisher->may_evict)
		evict_stuck(publisher, end, false);
	return shmb_lane_claim(writer, len);
}

static inline uint8_t *claim(struct shmb_publisher *publisher, uint32_t len)
{
	uint8_t *payload = shmb_lane_claim(&publisher->writer, len);

	return shmb_likely(payload) ? payload : claim_refreshed(publisher, len);
}

/*
 * The first of a publication: a record with at least this stamp is on its way. A subscriber that does
 * not see it may deliver what was published before its look, since our stamp is of later.
 * Killed behind it: subscribers wait for the record until the broker says that we have gone.
 */
static void announce_stamp(struct shmb_publisher *publisher)
{
	if (!publisher->ordered)
		return;
	SHMB_STORE(&publisher->writer.lane->order_bound, publisher->stamp + 1);
	/* AI: pairs with AJ in next_ordered(): who does not see it has looked before we read the clock. */
	shmb_fence();
}

/* All of it is visible. */
static void withdraw_stamp(struct shmb_publisher *publisher)
{
	if (publisher->ordered)
		/* AK: pairs with AL in is_awaited(): who sees that nothing is on its way sees the record. */
		SHMB_STORE_RELEASE(&publisher->writer.lane->order_bound, 0);
}

/* Stamp the extension of the record whose payload is at @payload. */
static void extend(struct shmb_publisher *publisher, uint8_t *payload)
{
	struct shmb_record_ext *ext = (struct shmb_record_ext *)(void *)payload - 1;
	uint64_t now;

	/* No two of ours are the same. */
	do
		now = shmb_clock_now_ns();
	while (shmb_unlikely(now <= publisher->stamp && publisher->ordered));
	publisher->stamp = now;
	SHMB_STORE(&ext->published_ns, now);
	SHMB_STORE(&ext->zero, 0);
}

/* ---- ringing ----------------------------------------------------------------------------------- */

static void ring(struct shmb_publisher *publisher, uint32_t i, uint32_t sleep)
{
	struct pub_pair *pair = &publisher->pairs[i];

	publisher->sleepers[i].rung = sleep;
	if ((sleep & SHMB_SLEEP_MODE_MASK) == SHMB_SLEEP_FUTEX) {
		shmb_bell_bump(pair->bell_words);
		syscall(SYS_futex, &pair->bell_words->wake, FUTEX_WAKE, WAKE_MAX, NULL, NULL, 0);
	} else {
		if (shmb_unlikely(pair->ringer.n > 1))
			settle_ringer(&publisher->member, pair);
		shmb_ringer_ring(&pair->ringer);
	}
	publisher->rings++;
	SHMB_STORE(&publisher->writer.lane->rings, publisher->rings);
}

/* It has nothing to do, but stands in the way. It looks before it sleeps: no fence is needed. */
static void ring_laggard(struct shmb_publisher *publisher, uint32_t i)
{
	uint32_t sleep;

	if (shmb_bell_due(publisher->sleepers[i].sleep, publisher->sleepers[i].rung, &sleep))
		ring(publisher, i, sleep);
}

/* After the records are visible: wake who sleeps, once per sleep. */
static inline void ring_sleepers(struct shmb_publisher *publisher)
{
	uint32_t n = publisher->n_pairs;

	if (!n)
		return;
	shmb_bell_published();
	for (uint32_t i = 0; i < n; i++) {
		uint32_t sleep;

		if (shmb_unlikely(publisher->sleepers[i].quiet))
			continue;
		if (shmb_unlikely(shmb_bell_due(publisher->sleepers[i].sleep,
						publisher->sleepers[i].rung, &sleep)))
			ring(publisher, i, sleep);
		publisher->sleepers[i].quiet = publisher->queue != NULL;
	}
}

struct shmb_state_writer *shmb_publisher_state(struct shmb_publisher *publisher)
{
	return publisher ? publisher->state : NULL;
}

void shmb_publisher_changed(struct shmb_publisher *publisher)
{
	struct shmb_lane_writer *writer = &publisher->writer;

	writer->sequence++;
	SHMB_STORE(&writer->lane->sequence_hint, writer->sequence);
	/*
	 * Z: pairs with the acquire load in the subscriber's scan(): the value is in its cell. Killed
	 * before: the broker moves the epoch, and everybody looks at all cells.
	 */
	SHMB_STORE_RELEASE(&writer->lane->position_hint, writer->sequence);
	/*
	 * AE: pairs with the fence in the broker's key_copy_all(), which copies for those who cannot
	 * have this segment: either it sees the value, or we see that the epoch has moved, and move.
	 *
	 * Also without subscribers: one that has come meanwhile either sees the value, or we see
	 * that the epoch has moved, since the broker moves it before a subscriber can sleep.
	 */
	shmb_bell_published();
	do {
		for (uint32_t i = 0; i < publisher->n_pairs; i++) {
			uint32_t sleep;

			if (shmb_unlikely(shmb_bell_due(publisher->sleepers[i].sleep,
							publisher->sleepers[i].rung, &sleep)))
				ring(publisher, i, sleep);
		}
		if (shmb_likely(SHMB_LOAD(publisher->member.epoch) == publisher->member.seen_epoch))
			return;
		shmb_member_sync(&publisher->member);
	} while (1);
}

/* ---- queues: who gets a record ----------------------------------------------------------------- */

#define LOOK_EVERY 8u /* records, when all workers have some: a look is a cache miss for each */

static uint32_t credit_of(const struct pub_pair *pair)
{
	uint32_t credit = pair->words && !has_left(pair) ? SHMB_LOAD(&pair->words->credit) : 0;

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

/* Who gets the next record; NULL: nobody has credit. */
static struct pub_pair *choose(struct shmb_publisher *publisher)
{
	struct queue *queue = publisher->queue;
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

/* The claimed record goes to this worker. */
static void address(struct shmb_publisher *publisher, struct pub_pair *pair, void *payload,
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
	struct queue *queue = publisher->queue;
	struct shmb_ticket *oldest = queue->orphans, ticket;
	struct pub_pair *pair = choose(publisher);
	uint8_t *payload;

	if (!pair)
		return false;
	for (uint32_t i = 1; i < queue->n_orphans; i++)
		if (queue->orphans[i].position < oldest->position)
			oldest = &queue->orphans[i];
	refresh_limit(publisher);
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
	ticket.position = writer->position;
	address(publisher, pair, payload, &ticket);
	shmb_lane_commit(writer, ticket.len + publisher->ext_len, ticket.type, 0);
	memmove(oldest, oldest + 1,
		(size_t)(&queue->orphans[--queue->n_orphans] - oldest) * sizeof(*oldest));
	return true;
}

static SHMB_SELDOM void give_all_anew(struct shmb_publisher *publisher)
{
	while (publisher->queue->n_orphans && give_anew(publisher))
		;
	ring_sleepers(publisher);
}

/* ---- blocks ------------------------------------------------------------------------------------ */

/* Does this subscriber hold it, or can we not know? */
static bool pair_holds(const struct shmb_publisher *publisher, struct pub_pair *pair, uint64_t name)
{
	uint32_t n = publisher->arena->limits.max_holds + 1;

	/* It has none while it does not read from us. One that was closed has none any more. */
	if (!pair->words || has_left(pair))
		return false;
	if (pair->before.base && shmb_cursor_started(pair->slot, pair->id)) {
		shmb_map_deinit(&pair->before);
		pair->unknown = false;
	}
	return pair->unknown || shmb_block_is_held(pair->words, n, name) ||
	       (pair->before.base && shmb_block_is_held(pair->before.base, n, name));
}

static bool is_held(struct shmb_publisher *publisher, const struct shmb_block *block)
{
	uint64_t name = shmb_hold_name(publisher->member.slot, block->part->number, block->page);

	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		if (pair_holds(publisher, &publisher->pairs[i], name))
			return true;
	return false;
}

/* Everybody has passed it, and the floor says so. */
static void free_or_keep(struct shmb_publisher *publisher, struct shmb_block *block)
{
	struct shmb_arena *arena = publisher->arena;

	if (!is_held(publisher, block)) {
		shmb_arena_give(arena, block);
		return;
	}
	block->next = arena->held;
	arena->held = block;
}

/* Holds end without a word. */
static void look_at_held(struct shmb_publisher *publisher)
{
	struct shmb_block *block = publisher->arena->held;

	publisher->arena->held = NULL;
	while (block) {
		struct shmb_block *next = block->next;

		free_or_keep(publisher, block);
		block = next;
	}
}

/* All reliable subscribers have read up to here. The cursors were just looked at. */
static uint64_t slowest_head(const struct shmb_publisher *publisher)
{
	const struct shmb_lane_writer *writer = &publisher->writer;

	return writer->limit == UINT64_MAX ? writer->position
					   : writer->limit + 8 - (writer->mask + 1);
}

/* How many of the last records keep their blocks for late and lossy subscribers, if we can do so. */
static uint64_t records_to_keep(const struct shmb_publisher *publisher)
{
	for (uint32_t i = 0; i < publisher->n_pairs; i++)
		if (publisher->pairs[i].lossy)
			return UINT64_MAX;
	return publisher->member.channel->history;
}

/*
 * Takes back the blocks of records that everybody has passed, but for those of the last @keep, and at
 * most @max of them. Returns whether there were any.
 */
static bool reclaim(struct shmb_publisher *publisher, uint64_t keep, uint32_t max)
{
	uint64_t head = slowest_head(publisher), floor = 0;
	struct shmb_arena *arena = publisher->arena;
	struct shmb_block *first = NULL, **end = &first;

	while (max-- && arena->published && arena->published->end <= head &&
	       publisher->writer.sequence - arena->published->sequence > keep) {
		struct shmb_block *block = shmb_arena_pop(arena);

		floor = block->end;
		*end = block;
		end = &block->next;
	}
	if (!first)
		return false;
	shmb_block_raise_floor(publisher->writer.lane, floor);
	while (first) {
		struct shmb_block *block = first;

		first = block->next;
		free_or_keep(publisher, block);
	}
	return true;
}

/* Those that nobody needs first, then more of them, then those that somebody might still want. */
static struct shmb_block *get_block(struct shmb_publisher *publisher, uint32_t len)
{
	struct shmb_arena *arena = publisher->arena;
	struct shmb_block *block;
	int result;

	refresh_limit(publisher);
	reclaim(publisher, records_to_keep(publisher), UINT32_MAX);
	block = shmb_arena_take(arena, len);
	if (shmb_likely(block))
		return block;
	look_at_held(publisher);
	block = shmb_arena_take(arena, len);
	if (block)
		return block;
	result = shmb_arena_grow(arena, len);
	if (result == 0)
		return shmb_arena_take(arena, len);
	while (reclaim(publisher, 0, 1)) {
		block = shmb_arena_take(arena, len);
		if (block)
			return block;
	}
	/* Those of other lengths may make room now. */
	if (shmb_arena_grow(arena, len) == 0)
		return shmb_arena_take(arena, len);
	if (!arena->published && !arena->held && result != -ENOTCONN && result != -EBUSY)
		publisher->shortage = result;
	return NULL;
}

/* Memory for a long record: a block, and room in the lane for its descriptor. */
static SHMB_SELDOM uint8_t *place_block(struct shmb_publisher *publisher, uint32_t len)
{
	struct shmb_block *block;
	uint8_t *payload;

	publisher->shortage = 0;
	block = get_block(publisher, len);
	publisher->no_block = !block;
	if (!block)
		return NULL;
	payload = claim(publisher, sizeof(struct shmb_block_descriptor));
	if (!payload) {
		shmb_arena_give(publisher->arena, block);
		return NULL;
	}
	publisher->block = block;
	publisher->descriptor = (struct shmb_block_descriptor *)(void *)payload;
	return shmb_block_payload(block);
}

/* The record in the block is complete. Killed before its header is stored: the record is not there. */
static void commit_block(struct shmb_publisher *publisher, uint32_t len, uint32_t type)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	struct shmb_block *block = publisher->block;

	*publisher->descriptor = (struct shmb_block_descriptor){
		.arena = block->part->number,
		.page = block->page,
		.len = len,
	};
	publisher->block = NULL;
	shmb_lane_commit_as(writer, sizeof(struct shmb_block_descriptor), type, SHMB_RECORD_BLOCK,
			    0);
	shmb_arena_publish(publisher->arena, block, writer->position, writer->sequence - 1);
}

/* ---- publishing -------------------------------------------------------------------------------- */

static int check_len(const struct shmb_publisher *publisher, uint32_t len)
{
	if (publisher->state)
		return shmb_fail(-EOPNOTSUPP,
				 "on a state channel values are put, not records sent");
	if (publisher->record_len && len != publisher->record_len)
		return shmb_fail(-EINVAL, "a record of this channel has %u bytes, this one %u",
				 publisher->record_len, len);
	if (len > publisher->record_len_max)
		return shmb_fail(-EMSGSIZE,
				 "a record of this channel has at most %u bytes, this one "
				 "%u: create it with a larger %s",
				 publisher->record_len_max, len,
				 publisher->arena ? "record_len_max" : "lane_len");
	return 0;
}

/* Everything that must hold before a record can be written. */
static inline int enter(struct shmb_publisher *publisher, uint32_t len)
{
	int result;

	if (shmb_unlikely(!publisher))
		return shmb_fail(-EINVAL, "publisher is NULL");
	result = shmb_member_enter(&publisher->member);
	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_unlikely(publisher->loaned))
		return shmb_fail(-EBUSY, "a loan is out: publish or cancel it first");
	if (shmb_unlikely(publisher->queue && publisher->queue->n_orphans))
		give_all_anew(publisher);
	if (shmb_unlikely(len > publisher->record_len_max ||
			  (publisher->record_len && len != publisher->record_len)))
		return check_len(publisher, len);
	return 0;
}

/* For inspectors: since when is it full? Killed between: they see a time that is not yet, or too old. */
static void note_full(struct shmb_publisher *publisher)
{
	struct shmb_lane_segment *lane = publisher->writer.lane;

	if (publisher->full_sequence == publisher->writer.sequence)
		return;
	publisher->full_sequence = publisher->writer.sequence;
	SHMB_STORE(&lane->full_since_ns, shmb_clock_now_ns());
	SHMB_STORE(&lane->full_sequence, publisher->full_sequence);
}

static int refuse(struct shmb_publisher *publisher)
{
	note_full(publisher);
	publisher->refused++;
	SHMB_STORE(&publisher->writer.lane->refused, publisher->refused);
	if (publisher->queue && !choose(publisher))
		return shmb_fail_lazily(-EAGAIN, "no worker has credit for a record", 0, NULL);
	if (publisher->no_block) {
		publisher->no_block = false;
		return shmb_fail_lazily(-EAGAIN,
					"all blocks are in use or held: the publisher has ",
					publisher->arena->len, " bytes of them");
	}
	return shmb_fail_lazily(-EAGAIN, "the lane is full: a reliable subscriber is ",
				publisher->writer.mask + 1, " bytes behind");
}

/* Room for a record that somebody will get; NULL: there is none, or nobody. */
static inline uint8_t *claim_record(struct shmb_publisher *publisher, uint32_t len)
{
	uint8_t *payload;

	if (shmb_unlikely(publisher->queue != NULL)) {
		publisher->queue->chosen = choose(publisher);
		if (!publisher->queue->chosen)
			return NULL;
	}
	payload = claim(publisher, len + publisher->ext_len);
	return shmb_likely(payload) ? payload + publisher->ext_len : NULL;
}

/* As commit_record(), where something comes before the payload. */
static SHMB_SELDOM bool commit_extended(struct shmb_publisher *publisher, uint8_t *payload,
					uint32_t len, uint32_t type, int more)
{
	struct shmb_ticket ticket = { .position = publisher->writer.position,
				      .len = len,
				      .type = type };

	if (publisher->queue) {
		struct pub_pair *pair = publisher->queue->chosen;

		if (shmb_unlikely(!pair))
			pair = choose(publisher);
		if (!pair)
			return false;
		address(publisher, pair, payload - publisher->ext_len, &ticket);
	} else {
		if (!more)
			announce_stamp(publisher);
		extend(publisher, payload);
	}
	shmb_lane_commit(&publisher->writer, len + publisher->ext_len, type, more);
	if (!more)
		withdraw_stamp(publisher);
	return true;
}

/* It is written. Returns false if who was to get it has gone, and nobody else has credit. */
static inline bool commit_record(struct shmb_publisher *publisher, uint8_t *payload, uint32_t len,
				 uint32_t type, int more)
{
	if (shmb_unlikely(publisher->ext_len))
		return commit_extended(publisher, payload, len, type, more);
	shmb_lane_commit(&publisher->writer, len, type, more);
	return true;
}

static int full(struct shmb_publisher *publisher)
{
	if (!(publisher->flags & SHMB_PUBLISHER_DROP_NEWEST))
		return refuse(publisher);
	note_full(publisher);
	publisher->dropped++;
	SHMB_STORE(&publisher->writer.lane->dropped, publisher->dropped);
	return 0;
}

/* There is no room for a record. */
static int no_room(struct shmb_publisher *publisher, uint32_t len)
{
	if (len > publisher->inline_len_max && publisher->shortage)
		return publisher->shortage; /* with its sentence */
	return full(publisher);
}

static __attribute__((__noinline__)) int32_t
send_block(struct shmb_publisher *publisher, const void *data, uint32_t len, uint32_t type)
{
	uint8_t *payload = place_block(publisher, len);

	if (shmb_unlikely(!payload))
		return no_room(publisher, len);
	shmb_copy(payload, data, len);
	commit_block(publisher, len, type);
	ring_sleepers(publisher);
	return 0;
}

static inline void commit(struct shmb_publisher *publisher, uint32_t len, uint32_t type)
{
	shmb_lane_commit(&publisher->writer, len, type, 0);
	if (shmb_likely(len <= publisher->ahead_max))
		shmb_ahead(&publisher->writer, shmb_record_span(len));
	ring_sleepers(publisher);
}

SHMB_API int32_t shmb_publisher_send_typed(struct shmb_publisher *publisher, const void *data,
					   uint32_t len, uint32_t type)
{
	int result = enter(publisher, len);
	uint8_t *payload;

	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_unlikely((!data && len) || type > 0xffff))
		return shmb_fail(-EINVAL, "data is NULL, or type %u is over 65535", type);
	if (shmb_unlikely(len > publisher->inline_len_max))
		return send_block(publisher, data, len, type);
	payload = claim_record(publisher, len);
	if (shmb_unlikely(!payload))
		return full(publisher);
	shmb_copy(payload, data, len);
	if (shmb_unlikely(!commit_record(publisher, payload, len, type, 0)))
		return full(publisher);
	if (shmb_likely(len <= publisher->ahead_max))
		shmb_ahead(&publisher->writer, shmb_record_span(len + publisher->ext_len));
	ring_sleepers(publisher);
	return 0;
}

int32_t shmb_publisher_send_headed(struct shmb_publisher *publisher, uint64_t head,
				   const void *data, uint32_t len, uint32_t type)
{
	uint32_t whole = len < UINT32_MAX - sizeof(head) ? len + (uint32_t)sizeof(head) : len;
	int result = enter(publisher, whole);
	uint8_t *payload;

	if (shmb_unlikely(result < 0))
		return result;
	payload = claim(publisher, whole);
	if (shmb_unlikely(!payload))
		return full(publisher);
	memcpy(payload, &head, sizeof(head));
	shmb_copy(payload + sizeof(head), data, len);
	commit(publisher, whole, type);
	return 0;
}

int shmb_publisher_sync(struct shmb_publisher *publisher)
{
	/* Something may have come that has moved no epoch. */
	if (SHMB_LOAD(publisher->member.fork_guard) &&
	    shmb_unlikely(SHMB_LOAD(&publisher->member.inbox.first) != NULL))
		shmb_member_sync(&publisher->member);
	return shmb_member_enter(&publisher->member);
}

uint32_t shmb_publisher_n_pairs(const struct shmb_publisher *publisher)
{
	return publisher->n_pairs;
}

SHMB_API int32_t shmb_publisher_send(struct shmb_publisher *publisher, const void *data,
				     uint32_t len)
{
	return shmb_publisher_send_typed(publisher, data, len, 0);
}

/* Lengths first, so that nothing is sent if one of them is wrong. */
static int check_lens(const struct shmb_publisher *publisher, const uint32_t *lens, uint32_t count)
{
	int result = 0;

	for (uint32_t i = 0; lens && i < count && result == 0; i++)
		result = check_len(publisher, lens[i]);
	return result;
}

SHMB_API int32_t shmb_publisher_send_many(struct shmb_publisher *publisher, const void *data,
					  uint32_t len, const uint32_t *lens, uint32_t count)
{
	uint64_t batch_max = publisher ? (publisher->writer.mask + 1) / 2 : 0;
	const uint8_t *from = data;
	int result = enter(publisher, lens && count ? lens[0] : len);
	uint32_t sent = 0;
	uint64_t start;

	if (result == 0 && count > INT32_MAX)
		result = shmb_fail(-EINVAL, "at most %d records at once", INT32_MAX);
	if (result == 0 && !data && (lens || len))
		result = shmb_fail(-EINVAL, "data is NULL");
	if (result == 0)
		result = check_lens(publisher, lens, count);
	if (result < 0 || count == 0)
		return result;
	start = publisher->writer.position;
	announce_stamp(publisher);
	while (sent < count) {
		uint32_t this_len = lens ? lens[sent] : len;
		uint8_t *payload;

		if (shmb_unlikely(this_len > publisher->inline_len_max)) {
			/* It may take long: what comes before does not wait for it. */
			shmb_lane_flush(&publisher->writer);
			payload = place_block(publisher, this_len);
			if (!payload)
				break;
			shmb_copy(payload, from, this_len);
			commit_block(publisher, this_len, 0);
			from += this_len;
			sent++;
			continue;
		}
		payload = claim_record(publisher, this_len);
		if (shmb_unlikely(!payload)) {
			/* Readers cannot make room for a batch they do not see. */
			shmb_lane_flush(&publisher->writer);
			payload = claim_record(publisher, this_len);
			if (!payload)
				break;
		}
		shmb_copy(payload, from, this_len);
		if (shmb_unlikely(!commit_record(publisher, payload, this_len, 0, 1)))
			break;
		from += this_len;
		sent++;
		/* A batch must not run into its own start, nor keep readers waiting for ever. */
		if (shmb_unlikely(publisher->writer.position - start > batch_max)) {
			shmb_lane_flush(&publisher->writer);
			ring_sleepers(publisher);
			start = publisher->writer.position;
		}
	}
	shmb_lane_flush(&publisher->writer);
	withdraw_stamp(publisher);
	if (shmb_likely(publisher->writer.position - start <= publisher->ahead_max))
		shmb_ahead(&publisher->writer, publisher->writer.position - start);
	ring_sleepers(publisher);
	if (sent < count && publisher->flags & SHMB_PUBLISHER_DROP_NEWEST) {
		note_full(publisher);
		publisher->dropped += count - sent;
		SHMB_STORE(&publisher->writer.lane->dropped, publisher->dropped);
		return (int32_t)count;
	}
	return sent ? (int32_t)sent : refuse(publisher);
}

/* Where a record of this length goes. NULL: there is no room. */
static inline uint8_t *place(struct shmb_publisher *publisher, uint32_t len)
{
	if (shmb_unlikely(len > publisher->inline_len_max))
		return place_block(publisher, len);
	return claim_record(publisher, len);
}

SHMB_API int32_t shmb_publisher_loan(struct shmb_publisher *publisher, uint32_t len)
{
	int result = enter(publisher, len);
	uint8_t *payload;

	if (result < 0)
		return result;
	payload = place(publisher, len);
	if (!payload)
		return len > publisher->inline_len_max && publisher->shortage ? publisher->shortage
									      : refuse(publisher);
	publisher->loaned = publisher->member.pinned = true;
	publisher->loan_len = len;
	publisher->view.data = (uint64_t)(uintptr_t)payload;
	publisher->view.len = len;
	publisher->view.count = 1;
	publisher->view.sequence = publisher->writer.sequence;
	return 0;
}

static int enter_loan(struct shmb_publisher *publisher)
{
	if (!publisher)
		return shmb_fail(-EINVAL, "publisher is NULL");
	if (!*publisher->member.fork_guard)
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	if (!publisher->loaned)
		return shmb_fail(-EINVAL, "nothing is loaned");
	return 0;
}

SHMB_API int32_t shmb_publisher_publish(struct shmb_publisher *publisher, uint32_t len)
{
	int result = enter_loan(publisher);

	if (result == 0 && len > publisher->loan_len)
		result = shmb_fail(-EINVAL, "%u bytes were loaned, not %u", publisher->loan_len,
				   len);
	if (result == 0)
		result = check_len(publisher, len);
	if (result == 0)
		result = publisher->member.evicted ? shmb_member_enter_slow(&publisher->member) : 0;
	if (result < 0)
		return result;
	if (publisher->block) {
		publisher->loaned = publisher->member.pinned = false;
		commit_block(publisher, len, 0);
		ring_sleepers(publisher);
		return 0;
	}
	if (!commit_record(publisher, (uint8_t *)(uintptr_t)publisher->view.data, len, 0, 0))
		return refuse(publisher);
	publisher->loaned = publisher->member.pinned = false;
	if (shmb_likely(len <= SHMB_AHEAD_MAX))
		shmb_ahead(&publisher->writer, shmb_record_span(len));
	ring_sleepers(publisher);
	return 0;
}

SHMB_API int32_t shmb_publisher_cancel(struct shmb_publisher *publisher)
{
	int result = enter_loan(publisher);

	/* Nobody knows of the bytes behind the position: they are simply used again. */
	if (result == 0)
		publisher->loaned = publisher->member.pinned = false;
	if (result == 0 && publisher->block)
		shmb_arena_give(publisher->arena, publisher->block);
	if (result == 0)
		publisher->block = NULL;
	return result;
}

/* ---- waiting for space ------------------------------------------------------------------------- */

/* May a record be claimed? As shmb_lane_claim(), without writing anything to the lane. */
static bool fits(struct shmb_publisher *publisher, uint32_t len)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	bool lies_in_block = len > publisher->inline_len_max;
	uint64_t end = end_of(writer, lies_in_block ? sizeof(struct shmb_block_descriptor)
						    : (uint64_t)len + publisher->ext_len);

	if (publisher->queue && !choose(publisher))
		return false;
	if (shmb_unlikely(lies_in_block)) {
		struct shmb_block *block = get_block(publisher, len);

		if (!block)
			return false;
		shmb_arena_give(publisher->arena, block);
	}
	if (end <= writer->limit)
		return true;
	refresh_limit(publisher);
	return end <= writer->limit || (publisher->may_evict && evict_stuck(publisher, end, true));
}

/*
 * Say that we sleep until a reader has made progress. Readers look at our word after they have stored
 * their position but do not fence, which would cost them more than it is worth. So once armed we look
 * for longer than a store can take to become visible. Returns whether it has come.
 */
static bool arm_space(struct shmb_publisher *publisher,
		      bool (*come)(struct shmb_publisher *publisher, uint32_t len), uint32_t len)
{
	uint32_t asleep = ++publisher->space_epoch << 2 | SHMB_SLEEP_FD;
	uint64_t armed_at;
	bool fit;

	/* Killed while it is set: readers ring a process that is gone, once. */
	/* O: pairs with P in the subscriber's ring_publishers(), which fences before it sleeps. */
	shmb_bell_announce(&publisher->writer.lane->space_wait, asleep);
	armed_at = shmb_clock_now_ns();
	do
		fit = come(publisher, len);
	while (!fit && shmb_clock_now_ns() - armed_at < ARM_LOOK_NS);
	return fit;
}

/* The lane may be another one by now. */
static void disarm_space(struct shmb_publisher *publisher)
{
	SHMB_STORE(&publisher->writer.lane->space_wait,
		   publisher->space_epoch << 2 | SHMB_SLEEP_AWAKE);
}

/* A store that was not seen in that time is seen when the backstop ends the sleep. */
static void sleep_until(struct shmb_publisher *publisher,
			bool (*come)(struct shmb_publisher *publisher, uint32_t len), uint32_t len,
			uint64_t deadline)
{
	struct timespec pause = { .tv_nsec = 1000000 };

	if (shmb_member_epoll(&publisher->member) < 0) {
		/* Nobody can ring: look now and then. */
		nanosleep(&pause, NULL);
		return;
	}
	if (!arm_space(publisher, come, len)) {
		uint64_t backstop = shmb_clock_now_ns() + SPACE_BACKSTOP_NS;

		shmb_member_sleep(&publisher->member, deadline < backstop ? deadline : backstop);
	}
	disarm_space(publisher);
}

/* For who sleeps on the fd: it is not readable any more, and will be when something has changed. */
static int look_and_arm(struct shmb_publisher *publisher,
			bool (*come)(struct shmb_publisher *publisher, uint32_t len), uint32_t len)
{
	int result = shmb_member_take_wakes(&publisher->member);

	if (result >= 0)
		result = enter(publisher, len);
	if (result == 0 && !come(publisher, len) && !arm_space(publisher, come, len))
		return -ETIMEDOUT;
	disarm_space(publisher);
	return result;
}

static int wait_until(struct shmb_publisher *publisher,
		      bool (*come)(struct shmb_publisher *publisher, uint32_t len), uint32_t len,
		      int64_t timeout_ns)
{
	uint64_t deadline = 0;
	int result = enter(publisher, len);

	if (result == 0 && publisher->polled && timeout_ns == 0)
		return look_and_arm(publisher, come, len);
	while (result == 0 && !come(publisher, len)) {
		if (!deadline)
			deadline = shmb_clock_deadline_ns(timeout_ns);
		if (shmb_clock_now_ns() >= deadline)
			return -ETIMEDOUT;
		if (come == fits)
			note_full(publisher);
		sleep_until(publisher, come, len, deadline);
		result = enter(publisher, len);
	}
	return result;
}

SHMB_API int32_t shmb_publisher_fd(struct shmb_publisher *publisher)
{
	int fd;

	if (!publisher)
		return shmb_fail(-EINVAL, "publisher is NULL");
	if (!*publisher->member.fork_guard)
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	fd = shmb_member_poll_fd(&publisher->member);
	publisher->polled |= fd >= 0;
	return fd;
}

SHMB_API int32_t shmb_publisher_wait(struct shmb_publisher *publisher, uint32_t len,
				     int64_t timeout_ns)
{
	int result = wait_until(publisher, fits, len, timeout_ns);

	if (result != -ETIMEDOUT)
		return result;
	if (publisher->queue && !choose(publisher))
		return shmb_fail(-ETIMEDOUT, "no worker had credit for a record in time");
	return shmb_fail(-ETIMEDOUT, "no room for %u bytes in the lane in time", len);
}

/* Is nothing left that a worker has not done? */
static bool all_done(struct shmb_publisher *publisher, uint32_t len)
{
	(void)len;
	/* Somebody may have credit for them by now, and not say so again. */
	if (publisher->queue->n_orphans)
		give_all_anew(publisher);
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
	result = wait_until(publisher, all_done, publisher ? publisher->record_len : 0, timeout_ns);
	if (result == -ETIMEDOUT)
		return shmb_fail(-ETIMEDOUT, "some records were not done in time");
	return result;
}

static inline int32_t wait_and_send(struct shmb_publisher *publisher, const void *data,
				    uint32_t len, int64_t timeout_ns)
{
	int32_t result = shmb_publisher_wait(publisher, len, timeout_ns);

	return result < 0 ? result : shmb_publisher_send_typed(publisher, data, len, 0);
}

SHMB_API int32_t shmb_publisher_send_wait(struct shmb_publisher *publisher, const void *data,
					  uint32_t len, int64_t timeout_ns)
{
	int32_t result = wait_and_send(publisher, data, len, timeout_ns);
	uint64_t now_ns, deadline_ns;

	if (shmb_likely(result != -EAGAIN))
		return result;
	/* What there was room in has moved, or who was to get it has gone, in between. */
	deadline_ns = shmb_clock_deadline_ns(timeout_ns);
	do {
		now_ns = shmb_clock_now_ns();
		timeout_ns = deadline_ns == UINT64_MAX
				     ? -1
				     : (int64_t)shmb_clock_left_ns(deadline_ns, now_ns);
		result = wait_and_send(publisher, data, len, timeout_ns);
	} while (result == -EAGAIN && now_ns < deadline_ns);
	return result == -EAGAIN ? shmb_fail(-ETIMEDOUT, "no space in time") : result;
}

/* ---- opening and closing ----------------------------------------------------------------------- */

static void prepare(struct shmb_member *member)
{
	struct shmb_publisher *publisher = to_publisher(member);

	shmb_lane_writer_init(&publisher->writer, member->own.base, member->channel->lane_len);
	publisher->writer.record_flags = shmb_ext_record_flags(publisher->ext_len);
	on_doorbell(member);
}

static void free_queue(struct queue *queue)
{
	if (queue)
		free(queue->orphans);
	free(queue);
}

static int open_arena(struct shmb_publisher *publisher, struct shmb_channel *channel)
{
	publisher->inline_len_max = UINT32_MAX;
	if (!channel->blocks.arena_len)
		return 0;
	publisher->arena = shmb_arena_new(&publisher->member, &channel->blocks);
	if (!publisher->arena)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	publisher->inline_len_max = channel->blocks.inline_len_max;
	publisher->record_len_max = channel->blocks.record_len_max;
	return 0;
}

static int fill_arena(struct shmb_publisher *publisher, uint64_t len)
{
	if (!len)
		return 0;
	if (!publisher->arena || len > publisher->arena->limits.arena_len - SHMB_BLOCK_LEN)
		return shmb_fail(
			-EINVAL, "the channel allows each publisher %llu bytes of blocks, not %llu",
			(unsigned long long)(publisher->arena ? publisher->arena->limits.arena_len -
									SHMB_BLOCK_LEN
							      : 0),
			(unsigned long long)len);
	return shmb_arena_grow(publisher->arena, len);
}

static int open_publisher(struct shmb_channel *channel, uint32_t flags, uint64_t partner_id,
			  uint64_t reply_to, struct shmb_publisher **ret_publisher)
{
	struct shmb_publisher *publisher = calloc(1, sizeof(*publisher));
	int result;

	if (!publisher)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	publisher->flags = flags;
	publisher->member.partner_id = partner_id;
	publisher->member.reply_to = reply_to;
	publisher->record_len = channel->record_len;
	publisher->ext_len = channel->ext_len;
	publisher->ordered = channel->ordered;
	publisher->record_len_max = shmb_record_len_max(channel->lane_len) - channel->ext_len;
	publisher->full_sequence = UINT64_MAX;
	publisher->ahead_max = shmb_ahead_copy_max();
	publisher->member.channel = channel;
	result = open_arena(publisher, channel);
	if (result < 0) {
		free(publisher);
		return result;
	}
	if (channel->pattern == SHMB_PATTERN_STATE) {
		/* No record has this length: whoever sends is told. */
		publisher->record_len = UINT32_MAX;
		publisher->state = shmb_state_writer_new(&publisher->member);
		if (!publisher->state) {
			free(publisher);
			return shmb_fail(-ENOMEM, "no memory for a publisher");
		}
	}
	if (channel->pattern == SHMB_PATTERN_QUEUE) {
		publisher->record_len_max = shmb_queue_record_len_max(channel->lane_len);
		publisher->ext_len = sizeof(struct shmb_queue_address);
		publisher->queue = calloc(1, sizeof(*publisher->queue));
		if (!publisher->queue) {
			free(publisher);
			return shmb_fail(-ENOMEM, "no memory for a publisher");
		}
	}
	publisher->member.role = SHMB_ROLE_PUBLISHER;
	publisher->member.flags = flags & SHMB_PUBLISHER_TRUSTING ? SHMB_MEMBER_TRUSTING : 0;
	publisher->member.on_pair = on_pair;
	publisher->member.on_unpair = on_unpair;
	publisher->member.on_doorbell = on_doorbell;
	publisher->member.on_granted = publisher_on_granted;
	publisher->member.on_prepare = publisher_on_prepare;
	publisher->member.knows = publisher_knows;
	publisher->member.is_complete = publisher_is_complete;
	publisher->member.on_move = publisher_on_move;
	result = shmb_member_open(&publisher->member, channel, prepare);
	if (result < 0) {
		free_queue(publisher->queue);
		shmb_arena_free(publisher->arena);
		free(publisher->state);
		free(publisher);
		return result;
	}
	publisher->view.publisher_id = publisher->member.id;
	*ret_publisher = publisher;
	return 0;
}

SHMB_API int32_t shmb_publisher_open(struct shmb_channel *channel,
				     const struct shmb_publisher_options *given,
				     struct shmb_publisher **ret_publisher)
{
	struct shmb_publisher *publisher = NULL;
	struct shmb_publisher_options options;
	int result;

	if (!channel || !ret_publisher)
		return shmb_fail(-EINVAL, "channel or ret_publisher is NULL");
	if (!*channel->client->fork_guard)
		return shmb_fail(-ECHILD, "this channel belongs to the parent process");
	result = shmb_options_take(&options, sizeof(options), given, "publisher");
	if (result < 0)
		return result;
	if (options.flags & ~(SHMB_PUBLISHER_DROP_NEWEST | SHMB_PUBLISHER_TRUSTING))
		return shmb_fail(-EINVAL, "unknown publisher flags 0x%x", options.flags);
	if (channel->pattern == SHMB_PATTERN_CALL)
		return shmb_fail(-EOPNOTSUPP, "a call channel has callers and servers");
	result = open_publisher(channel, options.flags, 0, 0, &publisher);
	if (result == 0)
		result = fill_arena(publisher, options.arena_len);
	if (result < 0) {
		shmb_publisher_close(publisher);
		return result;
	}
	*ret_publisher = publisher;
	return 0;
}

int shmb_publisher_open_private(struct shmb_channel *channel, uint32_t flags, uint64_t partner_id,
				uint64_t reply_to, struct shmb_publisher **ret_publisher)
{
	return open_publisher(channel, flags, partner_id, reply_to, ret_publisher);
}

SHMB_API int32_t shmb_publisher_close(struct shmb_publisher *publisher)
{
	if (!publisher)
		return 0;
	/* In a forked child the mappings are not there to be unmapped. */
	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		struct pub_pair *pair = &publisher->pairs[i];

		if (!*publisher->member.fork_guard)
			pair->cursor.base = pair->before.base = pair->bell.base = NULL;
		deinit_pair(pair);
	}
	if (!*publisher->member.fork_guard)
		shmb_arena_abandon(publisher->arena);
	shmb_member_close(&publisher->member);
	shmb_arena_free(publisher->arena);
	free(publisher->pairs);
	free(publisher->sleepers);
	free_queue(publisher->queue);
	free(publisher->state);
	free(publisher);
	return 0;
}

SHMB_API struct shmb_view *shmb_publisher_view(struct shmb_publisher *publisher)
{
	return publisher ? &publisher->view : NULL;
}

static uint32_t count_blocks(const struct shmb_block *block)
{
	uint32_t n = 0;

	for (; block; block = block->next)
		n++;
	return n;
}

SHMB_API int32_t shmb_publisher_stats(struct shmb_publisher *publisher,
				      struct shmb_publisher_stats *stats, uint32_t cap)
{
	struct shmb_publisher_stats all = { 0 };

	if (!publisher || !stats)
		return shmb_fail(-EINVAL, "publisher or stats is NULL");
	all.publisher_id = publisher->member.id;
	all.published = publisher->writer.sequence;
	all.published_len = publisher->writer.position;
	all.dropped = publisher->dropped;
	all.refused = publisher->refused;
	all.rings = publisher->rings;
	all.n_subscribers = publisher->n_pairs;
	all.n_evicted = publisher->evicted;
	if (publisher->arena && *publisher->member.fork_guard) {
		look_at_held(publisher);
		all.n_blocks = count_blocks(publisher->arena->published);
		all.n_held = count_blocks(publisher->arena->held);
		all.arena_len = publisher->arena->len;
	}
	memcpy(stats, &all, cap < sizeof(all) ? cap : sizeof(all));
	return 0;
}
