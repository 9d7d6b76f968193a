/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_PUB_INTERNAL_H
#define SHMB_LIB_PUB_INTERNAL_H

/*
 * What the files of a publisher share, and nobody else sees: its structures, and what each of the
 * files does for the others. What other modules need of publishers is in publisher.h.
 */

#include <errno.h>
#include <shmbroker/ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/api.h"
#include "lib/arena.h"
#include "lib/bell.h"
#include "lib/copier.h"
#include "lib/error.h"
#include "lib/fds.h"
#include "lib/member.h"
#include "lib/publisher.h"
#include "lib/queue.h"

/* A publisher that waits for space looks again this often, whatever happens. */
#define PUB_BACKSTOP_NS 10000000ull

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
 * @ends:     over which it gets fds
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
	struct shmb_fds_ends ends;
};

/**
 * struct pub_sleeper - what a publish looks at for each subscriber, packed
 * @sleep: its sleep word
 * @rung:  the sleep word for which we have rung
 * @quiet: of a queue: there is nothing for it
 */
struct pub_sleeper {
	const uint32_t *sleep;
	uint32_t rung;
	bool quiet;
};

/**
 * struct pub_queue - what a publisher of a queue knows beside its workers
 * @orphans:	 records of workers that have gone: they are given to others, the oldest first
 * @n_orphans:	 of them
 * @cap_orphans: room for all that could become some
 * @orphans_from: where the oldest of them is, as the lane says
 * @turn:	 of two workers that have as little to do, who gets the next record
 * @looks:	 records since we last looked how far the workers are
 * @chosen:	 who gets the record that is claimed; NULL: to be chosen anew
 * @limit:	 how far the orphan may go that holds up the ring; all others leave it room
 */
struct pub_queue {
	struct shmb_ticket *orphans;
	uint32_t n_orphans;
	uint32_t cap_orphans;
	uint64_t orphans_from;
	uint32_t turn;
	uint32_t looks;
	struct pub_pair *chosen;
	uint64_t limit;
};

struct shmb_publisher {
	struct shmb_member member;
	struct shmb_lane_writer writer;
	struct shmb_view view;
	struct pub_sleeper *sleepers;
	struct pub_pair *pairs;
	uint32_t n_pairs;
	uint32_t cap_pairs;
	uint32_t record_len_max;
	uint32_t record_len;
	uint32_t ext_len; /* bytes before each payload */
	uint32_t
		head_len; /* of a private lane: the word before each payload, or before its descriptor */
	bool ordered;
	uint64_t stamp; /* of the last record */
	uint32_t max_fds; /* that a record may carry */
	uint32_t n_fds; /* that the record carries which is being published */
	uint64_t fds_number; /* of the last packet with some */
	uint64_t fds_lost;
	bool fds_short; /* the last that were to be sent found no room */
	uint64_t fds_again_ns; /* the kernel refused them: not before this; 0: it did not */
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
	uint64_t backstops;
	uint32_t evicted; /* subscribers that it has stopped waiting for */
	bool may_evict; /* there are, or were, some that it will not wait for for ever */
	struct shmb_state_writer *state; /* NULL: not a state channel */
	struct pub_queue *queue; /* NULL: not a queue */
	struct shmb_arena *arena; /* NULL: the channel has no blocks */
	uint32_t inline_len_max; /* longer records lie in blocks */
	struct shmb_block
		*block; /* where the record lies that is being written; NULL: in the lane */
	struct shmb_block_descriptor *descriptor; /* of it, in the lane */
	bool no_block; /* none was free for the last long record */
	int shortage; /* why not; 0: one will be */
	struct shmb_copier copier;
};

static inline struct shmb_publisher *to_publisher(struct shmb_member *member)
{
	return shmb_container_of(member, struct shmb_publisher, member);
}

/* ---- pub-pair.c --------------------------------------------------------------------------------- */

void pub_deinit_pair(struct pub_pair *pair);

/* Subscribers ring the newest doorbell that we say we listen to. Killed before: the older one. */
void pub_on_doorbell(struct shmb_member *member);

/* Use the newest doorbell that the subscriber listens to, and tell it which. */
void pub_settle_ringer(struct shmb_member *member, struct pub_pair *pair);

/* How far a reliable subscriber has read; a position that cannot be true leaves the last one. */
uint64_t pub_read_head(struct shmb_publisher *publisher, struct pub_pair *pair);

int pub_on_pair(struct shmb_member *member, struct shmb_event *event);

void pub_on_unpair(struct shmb_member *member, const struct shmb_msg_unpair *unpair);

/* Values are read from both as soon as subscribers are told: see put() in state.c. */
void pub_on_granted(struct shmb_member *member, void *to);

/* All but the header, which is the broker's: positions, marks, intent, hints and the ring. */
int pub_on_prepare(struct shmb_member *member, void *to);

bool pub_knows(struct shmb_member *member, uint64_t peer_id);

/* Those who read the old lane must all know of the new one before we leave it. */
bool pub_is_complete(const struct shmb_member *member, const struct shmb_event *staged);

void pub_on_move(struct shmb_member *member, struct shmb_map *before);

/* ---- pub-space.c -------------------------------------------------------------------------------- */

/* Look at all cursors. The limit stays where a reader that lies has stopped. */
void pub_refresh_limit(struct shmb_publisher *publisher);

/*
 * The cursors have been read, and a record that ends at @end does not fit: is that the fault of
 * subscribers that have not moved for too long? Returns true if there is room now.
 */
SHMB_SELDOM bool pub_evict_stuck(struct shmb_publisher *publisher, uint64_t end, bool waiting);

/* It holds us up otherwise. Returns true if that is over because it has done so for too long. */
bool pub_evict_holder(struct shmb_publisher *publisher, struct pub_pair *pair, bool waiting);

SHMB_SELDOM uint8_t *pub_claim_refreshed(struct shmb_publisher *publisher, uint32_t len);

/* ---- pub-bell.c --------------------------------------------------------------------------------- */

void pub_ring(struct shmb_publisher *publisher, uint32_t i, uint32_t sleep);

/* It has nothing to do, but stands in the way. It looks before it sleeps: no fence is needed. */
void pub_ring_laggard(struct shmb_publisher *publisher, uint32_t i);

/* ---- pub-queue.c -------------------------------------------------------------------------------- */

/* So that no worker can go without leaving us its records. */
int pub_reserve_orphans(struct pub_queue *queue, uint32_t n_workers);

/*
 * What the worker has not done is to be given to others. The ring keeps it until then, and, if there is a
 * @kept_id, the broker the worker's marks: should we die, others get what we have not given away.
 */
void pub_orphan(struct shmb_publisher *publisher, struct pub_pair *pair, uint64_t kept_id);

/* If all that is left of that pair is with others, or there is nothing, its marks are of no more use. */
void pub_settle_orphans(struct shmb_publisher *publisher, uint64_t kept_id);

/*
 * Orphans are kept, too. Whatever is published leaves room for the longest record and a pad, or else
 * an orphan that holds up the ring could not be moved out of its way.
 */
void pub_limit_queue(struct shmb_publisher *publisher);

/* Who gets the next record; NULL: nobody has credit. */
struct pub_pair *pub_choose(struct shmb_publisher *publisher);

/* The claimed record goes to this worker. */
void pub_address(struct shmb_publisher *publisher, struct pub_pair *pair, void *payload,
		 const struct shmb_ticket *ticket);

SHMB_SELDOM void pub_give_all_anew(struct shmb_publisher *publisher);

void pub_free_queue(struct pub_queue *queue);

/* ---- pub-block.c -------------------------------------------------------------------------------- */

/* Holds end without a word. */
void pub_look_at_held(struct shmb_publisher *publisher);

/* Those that nobody needs first, then more of them, then those that somebody might still want. */
struct shmb_block *pub_get_block(struct shmb_publisher *publisher, uint32_t len);

/* Memory for a long record: a block, and room in the lane for its descriptor. */
SHMB_SELDOM uint8_t *pub_place_block(struct shmb_publisher *publisher, uint32_t len);

/* The record in the block is complete. Killed before its header is stored: the record is not there. */
void pub_commit_block(struct shmb_publisher *publisher, uint32_t len, uint32_t type);

int pub_open_arena(struct shmb_publisher *publisher, struct shmb_channel *channel);

int pub_fill_arena(struct shmb_publisher *publisher, uint64_t len);

uint32_t pub_count_blocks(const struct shmb_block *block);

/* ---- pub-fds.c ---------------------------------------------------------------------------------- */

/* May a record carry these? Returns 0, -EOPNOTSUPP, -EINVAL or -EBADF. */
int pub_check_fds(const struct shmb_publisher *publisher, const int32_t *fds, uint32_t n_fds);

/* Could fds be sent to all reliable subscribers, if that is what was last refused? */
SHMB_SELDOM bool pub_fds_fit(struct shmb_publisher *publisher, bool waiting);

/*
 * Send all subscribers what the record that is published next carries. Returns 0; -EAGAIN: nothing was
 * sent, with no sentence; another negative errno value.
 */
SHMB_SELDOM int pub_send_packets(struct shmb_publisher *publisher, const int32_t *fds,
				 uint32_t n_fds);

/* ---- pub-send.c --------------------------------------------------------------------------------- */

int pub_check_len(const struct shmb_publisher *publisher, uint32_t len);

/* For inspectors: since when is it full? Killed between: they see a time that is not yet, or too old. */
void pub_note_full(struct shmb_publisher *publisher);

/* ---- pub-wait.c --------------------------------------------------------------------------------- */

int pub_wait_until(struct shmb_publisher *publisher,
		   bool (*come)(struct shmb_publisher *publisher, uint32_t len), uint32_t len,
		   int64_t timeout_ns);

/* ---- what every record comes along -------------------------------------------------------------- */

/* It was closed, and the broker has not told us yet. */
static inline bool pub_has_left(const struct pub_pair *pair)
{
	return pair->words && shmb_cursor_left(pair->words);
}

/* Where a record of this length would end, a pad before it included. */
static inline uint64_t pub_end_of(const struct shmb_lane_writer *writer, uint64_t len)
{
	uint64_t span = shmb_record_span(len);
	uint64_t rest = writer->mask + 1 - (writer->position & writer->mask);

	return writer->position + (span > rest ? rest : 0) + span;
}

static inline uint8_t *pub_claim(struct shmb_publisher *publisher, uint32_t len)
{
	uint8_t *payload = shmb_lane_claim(&publisher->writer, len);

	return shmb_likely(payload) ? payload : pub_claim_refreshed(publisher, len);
}

/* After the records are visible: wake who sleeps, once per sleep. */
static inline void pub_ring_sleepers(struct shmb_publisher *publisher)
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
			pub_ring(publisher, i, sleep);
		publisher->sleepers[i].quiet = publisher->queue != NULL;
	}
}

/* Everything that must hold before a record can be written. */
static inline int pub_enter(struct shmb_publisher *publisher, uint32_t len)
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
		pub_give_all_anew(publisher);
	if (shmb_unlikely(len > publisher->record_len_max ||
			  (publisher->record_len && len != publisher->record_len)))
		return pub_check_len(publisher, len);
	return 0;
}

#endif
