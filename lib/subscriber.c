/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_subscriber: the lanes of all publishers of a channel, read in turns.
 *
 * Each lane is read by ring.h; the cursor tells the publishers how far. Sleeping is announced in
 * one word of the cursor, and announced means: from here on whoever publishes rings. Peers that
 * have gone are read to their end before they are forgotten.
 */

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/ahead.h"
#include "lib/api.h"
#include "lib/bell.h"
#include "lib/clock.h"
#include "lib/copy.h"
#include "lib/error.h"
#include "lib/extension.h"
#include "lib/fd.h"
#include "lib/history.h"
#include "lib/hold.h"
#include "lib/options.h"
#include "lib/queue.h"
#include "lib/subscriber.h"

#define BURST		16u /* records of one lane before the next one has its turn */
#define HOT_MAX		16u /* lanes that are looked at each time */
#define COLD_LOOKS	8u /* looks at the others after each burst */
#define FUTEX_LANES_MAX 7u /* more are waited for by fd */
#define SPIN_DEFAULT_NS 50000u
#define SPIN_TRUST_NS	1000000u /* first guess of how long records take to come: do not spin */
#define SPIN_PROBE	64u /* one wait of so many spins, whatever experience says */
#define YIELD_NS	200000u /* who was away for longer has yielded to a stranger */
#define YIELD_HITS	64u /* so many that were good lessen the fear of strangers */
#define YIELD_STRANGER	6u /* as bad as so many yields in vain */
#define YIELD_PAUSE_MAX 12u /* at worst one wait of 4096 yields */
#define BACKSTOP_NS	5000000000ull
#define ARENA_NS	1000000000ull /* an arena that has not come by then never will */
#define ORDER_WAIT_NS	100000000ull /* for who has stamped a record and not published it */
#define ORDER_TRIES	8u /* looks at all lanes while they change, and one more for each lane */
#define ORDER_WAIVERS	3u /* who has let us wait in vain so often is not waited for any more */

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

struct futex_wait { /* struct futex_waitv of newer headers */
	uint64_t value;
	uint64_t address;
	uint32_t flags;
	uint32_t reserved;
};

#define FUTEX_WAIT_32_SHARED 2u /* FUTEX_32, not private */

/**
 * struct sub_lane - a publisher whose lane we read
 * @pair_id:	  of the pair
 * @publisher_id: whose lane it is
 * @lane:	  holds the lane
 * @bell:	  holds @bell_words
 * @bell_words:	  the publisher rings it; says where we begin
 * @history:	  without a bell: so many records before its end
 * @reader:	  where we are
 * @slot:	  our position as the publisher sees it
 * @ringer:	  wakes the publisher when it waits for space
 * @space_rung:	  its sleep word for which we have rung
 * @attached:	  @reader is set
 * @words:	  the cursor that @slot is in
 * @successor:	  holds the same publisher's records, and later ones; NULL: none
 * @follows:	  is another one's successor, and not read yet
 * @end:	  of a publisher that has gone: no more than one ring is read, whoever writes it
 * @gone:	  the publisher has gone: read to the end, then forget
 * @caught_up:	  we had been lapped when it went, and have moved @end since
 * @unguarded:	  it lives on, and does not wait for us any more
 * @watched:	  it does not wait for us, or may stop to
 * @lossy:	  it does not wait for us
 * @stamp:	  of an ordered channel: when the record was published that is next
 * @waived:	  of an ordered channel: an announced stamp that is not waited for any more
 * @n_waived:	  of an ordered channel: how often that was so
 * @left:	  of a state channel: nothing refers to it any more
 * @jobs:	  of a queue: the records for us; else NULL
 * @number:	  slot of the publisher
 * @stalled_ns:	  since when the next record's arena has not come; 0: it has
 * @finished:	  never read again: it broke the layout, or has overwritten what was left to read
 * @peer:	  of a private lane
 * @kept:	  the broker keeps it, until it is told that we have read it
 * @next_drained: an earlier one that was, and that it may have to be told of again
 */
struct sub_lane {
	uint64_t pair_id;
	uint64_t publisher_id;
	struct shmb_map lane;
	struct shmb_map bell;
	const struct shmb_bell_segment *bell_words;
	uint32_t history;
	struct shmb_lane_reader reader;
	struct shmb_cursor_lane *slot;
	struct shmb_ringer ringer;
	uint32_t space_rung;
	struct shmb_cursor_segment *words;
	struct sub_lane *successor;
	uint64_t stamp;
	uint64_t waived;
	uint32_t n_waived;
	uint64_t end;
	bool follows;
	bool attached;
	bool gone;
	bool caught_up;
	bool unguarded;
	bool watched;
	bool lossy;
	bool left;
	bool finished;
	struct shmb_jobs *jobs;
	uint32_t number;
	uint64_t stalled_ns;
	struct shmb_peer peer;
	bool kept;
	struct sub_lane *next_drained;
};

/**
 * struct sub_cursor - a cursor that we have moved away from, while lanes still use it
 * @next: older one
 * @map:  holds it
 */
struct sub_cursor {
	struct sub_cursor *next;
	struct shmb_map map;
};

struct shmb_subscriber {
	struct shmb_member member;
	struct shmb_view view;
	struct shmb_cursor_segment *cursor;
	struct sub_cursor *cursors; /* earlier ones */
	struct sub_cursor *spare; /* so that moving needs no memory */
	struct sub_lane *drained; /* kept lanes that were read: nothing of them is mapped */
	struct sub_lane *only; /* see recv_only(); NULL: unknown */
	struct sub_lane **lanes;
	uint32_t n_lanes;
	uint32_t cap_lanes;
	uint32_t n_hot; /* the first so many of @lanes */
	uint32_t cold; /* which of the others is looked at next */
	uint32_t current;
	uint32_t burst;
	bool was_cold; /* the last burst was of a lane that had been cold */
	uint32_t lane_changes;
	uint32_t record_len; /* of every record, its extension included; 0: untyped */
	uint32_t ext_len; /* bytes before each payload */
	uint64_t ttl_ns; /* older records are skipped; 0: none */
	bool ordered;
	uint64_t stamp; /* of an ordered channel: of the latest record received */
	uint64_t held_ns; /* since when a record waits for its turn in that order; 0: none does */
	bool lossy;
	bool failed; /* a lane was found corrupt: the next call says so */
	uint64_t evicted_by; /* publisher that does not wait any more: the next call says so */
	struct sub_lane *untold; /* its publisher is not told yet how far we are */
	struct sub_lane *peeked;
	uint32_t n_peeked;
	uint64_t received;
	uint64_t lost;
	uint64_t expired;
	uint64_t disordered;
	uint32_t sleep_epoch;
	uint32_t spin_ns;
	uint64_t gap_ns; /* how long waits take, smoothed */
	uint32_t waits;
	uint32_t yield_pause; /* waits that sleep without yielding first */
	uint32_t yield_misses; /* yields in a row that brought nothing */
	uint32_t yield_strangers; /* yields to somebody who ran for long; forgiven slowly */
	uint32_t yield_hits; /* yields that brought a record, since a stranger ran */
	bool no_waitv;
	uint64_t sleeps;
	uint64_t backstops;
	void *waitset;
	struct shmb_state_reader *state; /* NULL: not a state channel */
	bool queue; /* records are taken, done or failed */
	uint32_t credit;
	uint32_t attempt; /* of the record that was last looked at */
	uint32_t max_attempts; /* 0: no limit */
	uint32_t n_job_lanes; /* so far */
	struct shmb_channel *dead_channel;
	struct shmb_publisher *dead; /* where records go that have failed too often */
	struct shmb_holder *holder; /* NULL: the channel has no blocks */
	struct shmb_foreign_arena *found; /* where the record lies that was looked at last */
	uint32_t found_page;
	struct shmb_hold *peeked_hold; /* of a block that is peeked at; NULL: of nothing */
	bool private; /* a call channel: each lane is for us alone */
};

/* The bell of a lane that has none: nobody rings it. */
static const struct shmb_bell_segment no_bell;

static struct shmb_subscriber *to_subscriber(struct shmb_member *member)
{
	return shmb_container_of(member, struct shmb_subscriber, member);
}

/* ---- publishers that come and go --------------------------------------------------------------- */

static struct sub_lane *find_lane(struct shmb_subscriber *subscriber, uint64_t pair_id)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i]->pair_id == pair_id)
			return subscriber->lanes[i];
	return NULL;
}

static void unmap_lane(struct sub_lane *lane)
{
	shmb_map_deinit(&lane->lane);
	shmb_map_deinit(&lane->bell);
	shmb_ringer_deinit(&lane->ringer);
	free(lane->jobs);
	lane->jobs = NULL;
}

static void free_lane(struct sub_lane *lane)
{
	unmap_lane(lane);
	free(lane);
}

/*
 * The broker need not keep it any more. It may die before it hears that, and its successor show us the
 * lane once more: until it says that it has let go of it, we remember that we have read it.
 */
static void drain_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	unmap_lane(lane);
	lane->next_drained = subscriber->drained;
	subscriber->drained = lane;
	shmb_member_drained(&subscriber->member, lane->pair_id);
}

/* Where the lane of that pair is in the list, or where that ends. */
static struct sub_lane **find_drained(struct shmb_subscriber *subscriber, uint64_t pair_id)
{
	struct sub_lane **at = &subscriber->drained;

	while (*at && (*at)->pair_id != pair_id)
		at = &(*at)->next_drained;
	return at;
}

static void forget_drained(struct sub_lane **at)
{
	struct sub_lane *lane = *at;

	*at = lane->next_drained;
	free(lane);
}

static void set_hot(struct shmb_subscriber *subscriber)
{
	subscriber->n_hot = subscriber->n_lanes < HOT_MAX ? subscriber->n_lanes : HOT_MAX;
}

static bool cursor_is_used(const struct shmb_subscriber *subscriber,
			   const struct sub_cursor *cursor)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i]->words == cursor->map.base)
			return true;
	return false;
}

static void free_cursors(struct shmb_subscriber *subscriber)
{
	struct sub_cursor **at = &subscriber->cursors, *cursor;

	while ((cursor = *at)) {
		if (cursor_is_used(subscriber, cursor)) {
			at = &cursor->next;
			continue;
		}
		*at = cursor->next;
		shmb_map_deinit(&cursor->map);
		free(cursor);
	}
}

/* A sleep word for each publisher that looks at an earlier cursor. */
static void store_sleep(struct shmb_subscriber *subscriber, uint32_t sleep)
{
	const struct sub_cursor *cursor;

	for (cursor = subscriber->cursors; shmb_unlikely(cursor != NULL); cursor = cursor->next)
		SHMB_STORE(&((struct shmb_cursor_segment *)cursor->map.base)->sleep, sleep);
}

static bool has_other_lane(const struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i] != lane &&
		    subscriber->lanes[i]->publisher_id == lane->publisher_id)
			return true;
	return false;
}

static void remove_lane(struct shmb_subscriber *subscriber, uint32_t index)
{
	struct sub_lane *lane = subscriber->lanes[index];

	if (subscriber->holder && !has_other_lane(subscriber, lane))
		shmb_holder_forget(subscriber->holder, lane->publisher_id);
	/* One that has gone need not be told, and what follows a lane takes its position over. */
	if (subscriber->untold == lane)
		subscriber->untold = NULL;
	shmb_member_drop_doorbells(&subscriber->member, lane->pair_id);
	/* Keep the order: whoever has waited longest is next. */
	memmove(&subscriber->lanes[index], &subscriber->lanes[index + 1],
		(subscriber->n_lanes - index - 1) * sizeof(subscriber->lanes[0]));
	subscriber->n_lanes--;
	set_hot(subscriber);
	subscriber->lane_changes++;
	if (subscriber->cold > index)
		subscriber->cold--;
	if (subscriber->current > index)
		subscriber->current--;
	if (subscriber->current >= subscriber->n_hot)
		subscriber->current = 0;
	subscriber->burst = 0;
	if (shmb_unlikely(subscriber->cursors != NULL))
		free_cursors(subscriber);
	if (lane->kept)
		drain_lane(subscriber, lane);
	else
		free_lane(lane);
}

static int map_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		    struct shmb_event *event)
{
	const struct shmb_channel *channel = subscriber->member.channel;
	int peer = shmb_event_find(event, SHMB_FD_ROLE_PEER);
	int bell = shmb_event_find(event, SHMB_FD_ROLE_BELL);
	int result;

	if (peer < 0 || (bell < 0 && !lane->kept) || event->pair.slot >= channel->max_publishers ||
	    event->pair.lane_len != channel->lane_len ||
	    event->descriptors[peer].segment_len != SHMB_BLOCK_LEN + (uint64_t)channel->lane_len)
		return shmb_fail(-EPROTO, "the broker announced a publisher that does not fit the "
					  "channel");
	result = shmb_map_reader(&lane->lane, event->fds[peer], &event->descriptors[peer],
				 SHMB_SEGMENT_LANE);
	if (result == 0 && bell >= 0)
		result = shmb_map_reader(&lane->bell, event->fds[bell], &event->descriptors[bell],
					 SHMB_SEGMENT_BELL);
	if (result < 0)
		return result;
	lane->bell_words = bell < 0 ? &no_bell : lane->bell.base;
	lane->history = event->pair.history;
	lane->words = subscriber->cursor;
	lane->number = event->pair.slot;
	lane->slot = (struct shmb_cursor_lane *)(void *)((uint8_t *)subscriber->cursor +
							 SHMB_BLOCK_LEN) +
		     event->pair.slot;
	if (!subscriber->queue)
		return 0;
	lane->jobs = calloc(1, sizeof(*lane->jobs));
	if (!lane->jobs)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	lane->jobs->lane = ++subscriber->n_job_lanes;
	if (lane->gone)
		return 0;
	lane->jobs->work =
		(void *)((uint8_t *)subscriber->cursor +
			 shmb_cursor_work_offset(channel->max_publishers, event->pair.slot));
	return 0;
}

/* Use the newest doorbell that the publisher listens to, and tell it which. */
static void settle_ringer(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	const struct shmb_lane_segment *words = lane->lane.base;
	uint32_t used;

	if (shmb_ringer_is_socket(&lane->ringer))
		/* T: pairs with U in the publisher's settle_ringer(): it rings the newer one now. */
		used = shmb_member_settle_sockets(
			&subscriber->member, &lane->ringer, lane->pair_id,
			SHMB_LOAD_ACQUIRE(&lane->bell_words->doorbell_generation));
	else
		used = shmb_ringer_settle(&lane->ringer, SHMB_LOAD(&words->doorbell_generation));
	/*
	 * U: pairs with T in the publisher's sockets_of_peer(): what we rang before is on the old
	 * socket, and the position for it in the slot. Killed before: it keeps a doorbell too many.
	 */
	if (lane->attached && !lane->gone)
		SHMB_STORE_RELEASE(&lane->slot->doorbell_generation, used);
}

/* The newest lane of a publisher. */
static struct sub_lane *find_publisher(struct shmb_subscriber *subscriber, uint64_t id)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i]->publisher_id == id && !subscriber->lanes[i]->successor)
			return subscriber->lanes[i];
	return NULL;
}

static void withdraw_holds(struct shmb_subscriber *subscriber, const struct sub_lane *lane);

static void set_gone(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	if (lane->gone)
		return;
	withdraw_holds(subscriber, lane);
	lane->gone = lane->peer.gone = true;
	if (lane->jobs)
		lane->jobs->work = NULL; /* it may be another publisher's by now */
	lane->end = lane->reader.position + subscriber->member.channel->lane_len;
	shmb_member_drop_doorbells(&subscriber->member, lane->pair_id);
}

/* A pair that we know, or have known. */
static void on_same_pair(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			 struct shmb_event *event)
{
	if (!(event->pair.flags & SHMB_PAIR_GONE)) {
		shmb_ringer_add(&lane->ringer, event);
		settle_ringer(subscriber, lane);
		return;
	}
	lane->kept = true;
	/* One that is followed by another is read until that one takes over. */
	if (!lane->successor)
		set_gone(subscriber, lane);
}

static int on_pair(struct shmb_member *member, struct shmb_event *event)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);
	struct sub_lane *lane = find_lane(subscriber, event->pair.pair_id), *before;
	int result;

	subscriber->only = NULL;
	if (lane) {
		on_same_pair(subscriber, lane, event);
		return 0;
	}
	if (*find_drained(subscriber, event->pair.pair_id)) {
		shmb_member_drained(member, event->pair.pair_id);
		return 0;
	}
	if (subscriber->n_lanes == subscriber->cap_lanes) {
		uint32_t cap = subscriber->cap_lanes ? 2 * subscriber->cap_lanes : 4;
		struct sub_lane **grown =
			realloc(subscriber->lanes, cap * sizeof(struct sub_lane *));

		if (!grown)
			return shmb_fail(-ENOMEM, "no memory for a publisher");
		subscriber->lanes = grown;
		subscriber->cap_lanes = cap;
	}
	lane = calloc(1, sizeof(*lane));
	if (!lane)
		return shmb_fail(-ENOMEM, "no memory for a publisher");
	lane->pair_id = event->pair.pair_id;
	lane->publisher_id = event->pair.peer_id;
	lane->kept = lane->gone = lane->peer.gone = event->pair.flags & SHMB_PAIR_GONE;
	lane->peer.reply_to = event->peer.reply_to;
	lane->peer.uid = event->peer.uid;
	lane->peer.pid = event->peer.pid;
	lane->lossy = subscriber->lossy;
	lane->watched = subscriber->lossy || member->evict_after_ms;
	result = map_lane(subscriber, lane, event);
	if (result < 0) {
		free_lane(lane);
		return result;
	}
	shmb_ringer_add(&lane->ringer, event);
	before = find_publisher(subscriber, lane->publisher_id);
	if (before) {
		before->successor = lane;
		/* What becomes of the publisher the new pair will tell. */
		before->gone = before->peer.gone = false;
		lane->follows = true;
	}
	subscriber->lanes[subscriber->n_lanes++] = lane;
	set_hot(subscriber);
	subscriber->lane_changes++;
	return 0;
}

/* As one of our holds is to be seen by publishers, in each cursor that one of them may look at. */
static void tell_hold(struct shmb_subscriber *subscriber, const struct shmb_hold *hold)
{
	struct shmb_cursor_segment *cursor = subscriber->cursor;
	const struct sub_cursor *at = subscriber->cursors;
	uint32_t i = (uint32_t)(hold - subscriber->holder->holds);

	for (;;) {
		if (hold->words.block) {
			SHMB_STORE(&cursor->holds[i].since_ns, hold->words.since_ns);
			SHMB_STORE(&cursor->holds[i].sequence, hold->words.sequence);
			SHMB_STORE(&cursor->holds[i].len, hold->words.len);
			SHMB_STORE(&cursor->holds[i].block, hold->words.block);
		} else {
			shmb_block_let_go(&cursor->holds[i]);
		}
		if (shmb_likely(!at))
			return;
		cursor = at->map.base;
		at = at->next;
	}
}

/* Its slot may become another one's, who must not believe that we hold blocks of its own. */
static void withdraw_holds(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	for (uint32_t i = 0; subscriber->holder && i <= SHMB_HOLDS_MAX; i++) {
		struct shmb_hold *hold = &subscriber->holder->holds[i];

		if (!hold->used || hold->publisher_id != lane->publisher_id)
			continue;
		hold->unguarded |= lane->unguarded;
		if (!hold->words.block)
			continue;
		hold->words.block = 0;
		tell_hold(subscriber, hold);
	}
}

/* Its publisher lives, and gives them to others. */
static void give_up_jobs(struct sub_lane *lane)
{
	lane->finished = true;
	lane->jobs->done = lane->jobs->next;
	lane->jobs->n_failed = lane->jobs->n_dead = 0;
}

static void on_unpair(struct shmb_member *member, const struct shmb_msg_unpair *unpair)
{
	struct sub_lane *lane = find_lane(to_subscriber(member), unpair->pair_id);
	struct sub_lane **drained = find_drained(to_subscriber(member), unpair->pair_id);

	to_subscriber(member)->only = NULL;
	if (*drained)
		forget_drained(drained);
	if (lane)
		lane->kept = false;
	/* One that is followed by another is read until that one takes over. */
	if (!lane || lane->successor)
		return;
	lane->unguarded |= unpair->reason == SHMB_GONE_PARTED;
	set_gone(to_subscriber(member), lane);
	if (lane->jobs && lane->unguarded)
		give_up_jobs(lane);
}

/* Its records may be in a lane that we have not been told of yet. */
static int on_arena(struct shmb_member *member, struct shmb_event *event)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);
	int index = shmb_event_find(event, SHMB_FD_ROLE_PEER);

	if (!subscriber->holder || index < 0)
		return shmb_fail(-EPROTO, "the broker announced an arena without its segment");
	return shmb_holder_add(subscriber->holder, event->arena.publisher_id, event->arena.number,
			       event->fds[index], &event->descriptors[index]);
}

/* We were thrown out. What had come can still be read, as long as it is there. */
static void unguard_lanes(struct shmb_subscriber *subscriber)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		subscriber->lanes[i]->unguarded = true;
		set_gone(subscriber, subscriber->lanes[i]);
	}
}

/* The slot is ours now. Whose it was has gone, though we may not have been told; it reads no marks. */
static void part_marks(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *other = subscriber->lanes[i];

		if (other->publisher_id != lane->publisher_id &&
		    other->jobs->work == lane->jobs->work)
			other->jobs->work = NULL;
	}
}

/* Read a lane from there on. */
static void begin_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint64_t position,
		       uint64_t sequence)
{
	const struct shmb_channel *channel = subscriber->member.channel;

	shmb_lane_reader_init(&lane->reader, lane->lane.base, channel->lane_len, position,
			      sequence);
	lane->reader.record_flags =
		lane->jobs ? (uint32_t)SHMB_RECORD_EXT : shmb_ext_record_flags(channel->ext_len);
	lane->attached = true;
	lane->end = lane->reader.position + channel->lane_len;
}

/* The publisher says where we begin, once it knows of us. */
static SHMB_SELDOM bool attach_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	uint64_t position, sequence;

	if (lane->bell_words == &no_bell)
		shmb_history_start_left(lane->lane.base, subscriber->member.channel->lane_len,
					lane->history, &position, &sequence);
	else if (!shmb_bell_started(lane->bell_words, &position, &sequence))
		return false;
	begin_lane(subscriber, lane, position, sequence);
	if (lane->gone) {
		/* The slot may be somebody else's by now. */
		if (lane->jobs)
			lane->jobs->work = NULL;
		return true;
	}
	shmb_cursor_vacate(lane->slot);
	SHMB_STORE(&lane->slot->position, lane->reader.position);
	SHMB_STORE(&lane->slot->sequence, sequence);
	SHMB_STORE(&lane->slot->lost, 0);
	SHMB_STORE(&lane->slot->expired, 0);
	if (lane->jobs) {
		part_marks(subscriber, lane);
		shmb_jobs_clear(lane->jobs->work);
	}
	settle_ringer(subscriber, lane);
	shmb_cursor_start(lane->slot, lane->pair_id);
	return true;
}

/* ---- reading ----------------------------------------------------------------------------------- */

static SHMB_SELDOM void wake_publisher(struct shmb_subscriber *subscriber, struct sub_lane *lane,
				       uint32_t sleep)
{
	lane->space_rung = sleep;
	if (lane->ringer.n > 1)
		settle_ringer(subscriber, lane);
	shmb_ringer_ring(&lane->ringer);
}

static inline void ring_publisher(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	const struct shmb_lane_segment *words = lane->lane.base;
	uint32_t sleep;

	if (shmb_unlikely(shmb_bell_due(&words->space_wait, lane->space_rung, &sleep)))
		wake_publisher(subscriber, lane, sleep);
}

/*
 * Has another publisher got the slot? The broker gives it away when its owner has gone, which we
 * may hear of later than of the next one, or of the last of several lanes only.
 */
static SHMB_SELDOM bool slot_is_taken(const struct shmb_subscriber *subscriber,
				      const struct sub_lane *lane)
{
	uint64_t owner = SHMB_LOAD(&lane->slot->pair_id);

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		const struct sub_lane *other = subscriber->lanes[i];

		if (other->pair_id == owner && other->slot == lane->slot)
			return other->publisher_id != lane->publisher_id;
	}
	return false;
}

/* The marks for a publisher are in another cursor, too, or in the same one for another pair. */
static void copy_marks(const struct shmb_subscriber *subscriber, const struct shmb_jobs *jobs,
		       const struct sub_lane *to)
{
	uint64_t owner = SHMB_LOAD(&to->slot->pair_id);
	bool ours = false;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		ours |= subscriber->lanes[i]->pair_id == owner &&
			subscriber->lanes[i]->publisher_id == to->publisher_id;
	if (!ours)
		shmb_jobs_clear(to->jobs->work);
	shmb_jobs_publish(jobs, to->jobs->work);
}

/* What is behind this the publisher must keep. */
static inline void store_position(const struct sub_lane *lane, struct shmb_cursor_lane *slot)
{
	uint64_t position = lane->reader.position, sequence = lane->reader.sequence;

	if (shmb_unlikely(lane->jobs != NULL))
		shmb_jobs_low(lane->jobs, &lane->reader, &position, &sequence);
	shmb_cursor_store(slot, position, sequence);
}

/* The publisher may look at the slot of a lane that we do not read yet, and sleep there. */
static void store_ahead(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	uint64_t position, sequence;

	/*
	 * Z: pairs with Y in the publisher's replace_pair(): either we see the new bell, or it has
	 * seen what we have just stored in the old slot.
	 */
	shmb_fence();
	for (struct sub_lane *at = lane->successor; at; at = at->successor) {
		if (at->gone || slot_is_taken(subscriber, at) ||
		    !shmb_bell_started(at->bell_words, &position, &sequence))
			continue;
		if (lane->jobs)
			copy_marks(subscriber, lane->jobs, at);
		store_position(lane, at->slot);
		shmb_cursor_start(at->slot, at->pair_id);
		ring_publisher(subscriber, at);
	}
}

/* Tell the publisher how far we are. */
static inline void store_cursor(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	if (shmb_unlikely(lane->gone))
		return;
	if (shmb_unlikely(SHMB_LOAD(&lane->slot->pair_id) != lane->pair_id) &&
	    slot_is_taken(subscriber, lane))
		return;
	store_position(lane, lane->slot);
	ring_publisher(subscriber, lane);
	if (shmb_unlikely(lane->successor != NULL))
		store_ahead(subscriber, lane);
}

static SHMB_SELDOM void condemn(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	lane->finished = true;
	subscriber->failed = true;
	subscriber->member.noted_changes--; /* that is news */
	if (!lane->gone)
		shmb_member_report(&subscriber->member, lane->pair_id, EBADMSG);
}

static void count_lost(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint64_t lost)
{
	if (!lost)
		return;
	subscriber->lost += lost;
	subscriber->view.lost = subscriber->lost;
	if (!lane->gone) {
		SHMB_STORE(&lane->slot->lost, SHMB_LOAD(&lane->slot->lost) + lost);
	} else if (!lane->caught_up) {
		/* The ring that is left begins here. Once: it may be one that goes on writing. */
		lane->caught_up = true;
		lane->end = lane->reader.position + subscriber->member.channel->lane_len;
	}
}

/* Its publisher says it in the bell of the newest pair that it knows. */
static bool is_evicted(const struct sub_lane *lane)
{
	for (; lane; lane = lane->successor)
		if (shmb_bell_evicted(lane->bell_words))
			return true;
	return false;
}

/* We may be lapped from now on, or have been. */
static SHMB_SELDOM void become_lossy(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	lane->lossy = true;
	subscriber->evicted_by = lane->publisher_id;
}

/* The slow part of was_overwritten(). */
static bool check_overwritten(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	const struct shmb_member *member = &subscriber->member;

	if (!lane->lossy && !lane->unguarded) {
		if (SHMB_LOAD(member->epoch) != member->seen_epoch) {
			shmb_member_sync(&subscriber->member);
			if (member->evicted)
				unguard_lanes(subscriber);
		}
		if (lane->watched && is_evicted(lane))
			become_lossy(subscriber, lane);
		if (!lane->lossy && !lane->unguarded)
			return false;
	}
	if (!shmb_lane_lapped(&lane->reader))
		return false;
	lane->finished |= lane->unguarded;
	return true;
}

/*
 * May what we have just read have been overwritten meanwhile? The publisher of a reliable subscriber
 * overwrites nothing that is unread, until the broker has told it that the two are parted. By then
 * the epoch has moved, and we have been told, too.
 */
static inline bool was_overwritten(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	/*
	 * V: pairs with the broker's release of the epoch in view_move_epoch(), by way of E in
	 * shmb_lane_raise_intent(): if we read the publisher's next lap, we see that it has moved.
	 */
	SHMB_FENCE_ACQUIRE();
	if (shmb_likely(SHMB_LOAD(subscriber->member.epoch) == subscriber->member.seen_epoch &&
			!lane->watched && !lane->unguarded))
		return false;
	return check_overwritten(subscriber, lane);
}

/* From a publisher that does not wait for us, or may have stopped to without our knowing it yet. */
static __attribute__((__noinline__)) int
look_watched(struct shmb_subscriber *subscriber, struct sub_lane *lane, struct shmb_record *record)
{
	uint64_t position = lane->reader.position, lost = 0;
	int result;

	if (!lane->lossy) {
		result = shmb_lane_peek(&lane->reader, record);
		if (!was_overwritten(subscriber, lane))
			return result;
		/* A step over a pad counts only if the pad was whole. */
		lane->reader.position = position;
		if (!lane->lossy)
			return 0;
	}
	result = shmb_lane_peek_lossy(&lane->reader, record, &lost);
	count_lost(subscriber, lane, lost);
	return result;
}

/* As shmb_lane_peek(), stepping over what is for other workers. */
static __attribute__((__noinline__)) int
look_for_job(struct shmb_subscriber *subscriber, struct sub_lane *lane, struct shmb_record *record)
{
	uint64_t start = lane->reader.position;
	int result;

	for (;;) {
		result = shmb_lane_peek(&lane->reader, record);
		if (result == 1)
			result = shmb_jobs_accept(lane->jobs, subscriber->member.id, record,
						  &subscriber->attempt);
		else
			break;
		if (result != 0)
			break;
		/* An honest publisher cannot have more than a ring that we have not read. */
		if (lane->reader.position - start > lane->reader.mask)
			return -EBADMSG;
		shmb_lane_skip(&lane->reader, record);
	}
	if (lane->reader.position != start)
		store_cursor(subscriber, lane);
	return result;
}

/* ---- blocks ------------------------------------------------------------------------------------ */

/* Its publisher does not wait for us: the block of the next record is used again already. */
static void pass_by(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		    const struct shmb_record *record)
{
	if (!subscriber->lossy) {
		lane->finished = true;
		return;
	}
	shmb_lane_skip(&lane->reader, record);
	count_lost(subscriber, lane, 1);
}

static bool block_is_gone(const struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	return (subscriber->lossy || lane->unguarded) &&
	       shmb_block_gone(lane->lane.base, lane->reader.position);
}

/* We are told of an arena before its publisher uses it, unless the broker dies in between. */
static int stall(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	uint64_t now = shmb_clock_now_ns();

	if (!lane->stalled_ns)
		lane->stalled_ns = now;
	if (shmb_client_retry_at_ns(subscriber->member.client) != UINT64_MAX)
		lane->stalled_ns = now;
	if (now - lane->stalled_ns < ARENA_NS)
		return 0;
	lane->finished = true;
	subscriber->failed = true;
	if (!lane->gone)
		shmb_member_report(&subscriber->member, lane->pair_id, 0);
	return 0;
}

/*
 * The payload of a record that is only a descriptor. Those whose blocks are gone are passed by, at
 * most as many as a ring can hold. Returns 1, 0 or -EBADMSG.
 */
static __attribute__((__noinline__)) int
find_block(struct shmb_subscriber *subscriber, struct sub_lane *lane, struct shmb_record *record)
{
	uint64_t left = lane->reader.mask / record->span + 1;
	int result = 1;

	while (result == 1 && record->flags) {
		if (!subscriber->holder)
			return -EBADMSG;
		result = shmb_holder_find(subscriber->holder, lane->publisher_id, record,
					  &subscriber->found, &subscriber->found_page);
		if (shmb_unlikely(block_is_gone(subscriber, lane))) {
			pass_by(subscriber, lane, record);
			if (lane->finished || !--left)
				return 0;
			result = look_watched(subscriber, lane, record);
			continue;
		}
		if (shmb_unlikely(result == 0))
			return stall(subscriber, lane);
		lane->stalled_ns = 0;
		return result == 1 ? 1 : -EBADMSG;
	}
	return result;
}

/* What we have read of a block was whole. If not, the record is lost. */
static bool block_was_whole(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			    const struct shmb_record *record)
{
	if (shmb_likely(!block_is_gone(subscriber, lane)))
		return true;
	pass_by(subscriber, lane, record);
	return false;
}

/* Nobody uses the block of the record that was looked at for something else while we peek. */
static bool pin_block(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		      const struct shmb_record *record)
{
	struct shmb_hold *hold = shmb_holder_take(subscriber->holder);

	hold->peeked = true;
	hold->publisher_id = lane->publisher_id;
	hold->unguarded = lane->unguarded;
	hold->arena = subscriber->found;
	hold->arena->n_users++;
	hold->words.sequence = lane->reader.sequence;
	hold->words.len = record->len;
	subscriber->peeked_hold = hold;
	/* A reliable subscriber's position protects it. */
	if (!subscriber->lossy || lane->gone)
		return true;
	hold->words.since_ns = shmb_clock_now_ns();
	hold->words.block =
		shmb_hold_name(lane->number, hold->arena->number, subscriber->found_page);
	tell_hold(subscriber, hold);
	if (shmb_block_keep(lane->lane.base, lane->reader.position))
		return true;
	pass_by(subscriber, lane, record);
	return false;
}

/* Done with looking at it, or with holding it. */
static void let_go(struct shmb_subscriber *subscriber, struct shmb_hold *hold)
{
	if (hold->words.block) {
		hold->words.block = 0;
		tell_hold(subscriber, hold);
	}
	shmb_holder_give(subscriber->holder, hold);
}

static void unpin(struct shmb_subscriber *subscriber)
{
	if (subscriber->peeked_hold)
		let_go(subscriber, subscriber->peeked_hold);
	subscriber->peeked_hold = NULL;
}

/* A record that is not what most are. As look(). */
static __attribute__((__noinline__)) int look_twice(struct shmb_subscriber *subscriber,
						    struct sub_lane *lane,
						    struct shmb_record *record, int result)
{
	if (result == 1 && record->flags)
		result = find_block(subscriber, lane, record);
	if (result == 0 ||
	    (result == 1 && (!subscriber->record_len || record->len == subscriber->record_len)))
		return result;
	if (!was_overwritten(subscriber, lane))
		condemn(subscriber, lane);
	return 0;
}

/* The next record of one lane as it lies there, extension and all. Returns 1 or 0. */
static inline int look_raw(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			   struct shmb_record *record)
{
	int result;

	if (shmb_unlikely(!lane->attached) && (lane->finished || !attach_lane(subscriber, lane)))
		return 0;
	if (shmb_unlikely(lane->finished))
		return 0;
	if (shmb_unlikely(lane->jobs != NULL))
		result = look_for_job(subscriber, lane, record);
	else if (shmb_unlikely(lane->watched))
		result = look_watched(subscriber, lane, record);
	else
		result = shmb_lane_peek(&lane->reader, record);
	if (!result)
		shmb_expect(&lane->reader, subscriber->view.len);
	if (shmb_unlikely(result < 0 ||
			  (result && (record->flags || (subscriber->record_len &&
							record->len != subscriber->record_len)))))
		return look_twice(subscriber, lane, record, result);
	return result;
}

/* Is it too old? Its publisher may say what it likes, but the future is not. */
static bool is_expired(const struct shmb_subscriber *subscriber, const struct shmb_record *record,
		       uint64_t now_ns)
{
	const struct shmb_record_ext *ext = (const void *)record->data;
	uint64_t published_ns = SHMB_LOAD(&ext->published_ns);

	return subscriber->ttl_ns && published_ns < now_ns &&
	       now_ns - published_ns > subscriber->ttl_ns;
}

/*
 * The next record of a lane whose records can expire, its payload only. What was published before this
 * call lies in one ring; who publishes more than that what is too old already is not followed further.
 */
static __attribute__((__noinline__)) int
look_extended(struct shmb_subscriber *subscriber, struct sub_lane *lane, struct shmb_record *record)
{
	uint64_t now_ns = 0, expired = 0, expired_len = 0;
	int result;

	while ((result = look_raw(subscriber, lane, record)) > 0) {
		if (shmb_unlikely(record->len < subscriber->ext_len)) {
			if (!was_overwritten(subscriber, lane))
				condemn(subscriber, lane);
			result = 0;
			break;
		}
		if (!now_ns && subscriber->ttl_ns)
			now_ns = shmb_clock_now_ns();
		if (shmb_likely(!is_expired(subscriber, record, now_ns)))
			break;
		if (was_overwritten(subscriber, lane))
			continue;
		shmb_lane_skip(&lane->reader, record);
		expired++;
		expired_len += record->span;
		if (expired_len > lane->reader.mask) {
			result = 0;
			break;
		}
	}
	if (shmb_unlikely(expired)) {
		subscriber->expired += expired;
		if (!lane->gone)
			SHMB_STORE(&lane->slot->expired, SHMB_LOAD(&lane->slot->expired) + expired);
		store_cursor(subscriber, lane);
	}
	if (result > 0) {
		const struct shmb_record_ext *ext = (const void *)record->data;

		lane->stamp = SHMB_LOAD(&ext->published_ns);
		if (shmb_unlikely(!lane->stamp))
			lane->stamp = 1; /* 0: there is no record */
		record->data += subscriber->ext_len;
		record->len -= subscriber->ext_len;
	}
	return result;
}

/* The next record of one lane. Returns 1 or 0; a lane that is finished has none. */
static inline int look(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		       struct shmb_record *record)
{
	if (shmb_unlikely(subscriber->ext_len))
		return look_extended(subscriber, lane, record);
	return look_raw(subscriber, lane, record);
}

static void next_turn(struct shmb_subscriber *subscriber)
{
	subscriber->burst = 0;
	if (++subscriber->current >= subscriber->n_hot)
		subscriber->current = 0;
}

/* ---- lanes that follow others ------------------------------------------------------------------ */

static uint32_t lane_index(const struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	uint32_t i = 0;

	while (subscriber->lanes[i] != lane)
		i++;
	return i;
}

/* Go on in @next where we are in @lane: a lane that follows another one has all of its bytes. */
static void carry_over(struct shmb_subscriber *subscriber, const struct sub_lane *lane,
		       struct sub_lane *next)
{
	next->finished = lane->finished;
	next->lossy = lane->lossy;
	if (!lane->attached)
		return;
	if (lane->jobs) {
		struct shmb_cursor_work *work = next->jobs->work;

		*next->jobs = *lane->jobs;
		next->jobs->work = slot_is_taken(subscriber, next) ? NULL : work;
		if (next->jobs->work)
			copy_marks(subscriber, next->jobs, next);
	}
	begin_lane(subscriber, next, lane->reader.position, lane->reader.sequence);
	if (next->gone || slot_is_taken(subscriber, next))
		return;
	SHMB_STORE(&next->slot->lost, SHMB_LOAD(&lane->slot->lost));
	SHMB_STORE(&next->slot->expired, SHMB_LOAD(&lane->slot->expired));
	store_position(next, next->slot);
	settle_ringer(subscriber, next);
	shmb_cursor_start(next->slot, next->pair_id);
}

/*
 * Takes the newest successor that the publisher writes by now. What it had stored before is in both.
 * @finished: nothing is left in the lane, and what follows it will not be written any more.
 */
static bool take_over(struct shmb_subscriber *subscriber, struct sub_lane *lane, bool finished)
{
	struct sub_lane *next = finished ? lane->successor : NULL, *at;
	uint64_t position, sequence;

	/* L: pairs with K in the publisher's replace_pair(): the lane holds all up to its start. */
	for (at = lane->successor; at; at = at->successor)
		if (shmb_bell_started(at->bell_words, &position, &sequence))
			next = at;
	if (!next)
		return false;
	if (!lane->attached)
		attach_lane(subscriber, lane);
	carry_over(subscriber, lane, next);
	next->follows = false;
	/* In its place, so that its turn comes when it would have come. */
	subscriber->lanes[lane_index(subscriber, next)] = lane;
	subscriber->lanes[lane_index(subscriber, lane)] = next;
	for (at = lane; at != next; at = lane) {
		lane = at->successor;
		remove_lane(subscriber, lane_index(subscriber, at));
	}
	subscriber->lane_changes++;
	return true;
}

/* Has its publisher gone? Perhaps before it wrote to what was to follow. */
static inline bool is_last(const struct sub_lane *lane)
{
	if (shmb_likely(!lane->gone && !lane->successor) || lane->follows)
		return false;
	return lane->gone || lane->successor->gone;
}

/* Nothing is left in a lane whose publisher has gone. */
static void end_lane(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	if (!lane->successor || !take_over(subscriber, lane, true))
		remove_lane(subscriber, lane_index(subscriber, lane));
}

/* Is something of it not done yet? */
static bool has_jobs(const struct sub_lane *lane)
{
	return lane->jobs && lane->jobs->done < lane->jobs->next;
}

/* As look_at(), of a lane that is left: its publisher has gone, or goes on in another one. */
static SHMB_SELDOM int look_at_leaving(struct shmb_subscriber *subscriber, struct sub_lane *lane,
				       struct shmb_record *record)
{
	bool last;

	if (lane->follows)
		return 0;
	if (lane->successor && take_over(subscriber, lane, false))
		return -1;
	/* Known before we look: its publisher stores nothing more. */
	last = is_last(lane);
	if (look(subscriber, lane, record) && (!lane->gone || lane->reader.position < lane->end))
		return 1;
	if (!last || has_jobs(lane))
		return 0;
	end_lane(subscriber, lane);
	return -1;
}

/* Returns 1: the lane has a record. 0: it has none. -1: it, or others, are not there any more. */
static inline int look_at(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			  struct shmb_record *record)
{
	if (shmb_unlikely(lane->gone || lane->follows || lane->successor))
		return look_at_leaving(subscriber, lane, record);
	return look(subscriber, lane, record);
}

/* ---- state channels ---------------------------------------------------------------------------- */

struct shmb_state_reader *shmb_subscriber_state(struct shmb_subscriber *subscriber)
{
	return subscriber ? subscriber->state : NULL;
}

uint32_t shmb_subscriber_n_lanes(const struct shmb_subscriber *subscriber)
{
	return subscriber->n_lanes;
}

/*
 * Nothing is read from it any more: its publisher has gone, or puts into a newer segment that we have
 * been told of, and rings the bell that came with it.
 */
static bool is_left(const struct sub_lane *lane)
{
	uint64_t position, sequence;

	for (const struct sub_lane *at = lane; at; at = at->successor) {
		if (at->gone)
			return true;
		/* L: pairs with K in the publisher's replace_pair(): all of its values are there. */
		if (at != lane && shmb_bell_started(at->bell_words, &position, &sequence))
			return true;
	}
	return false;
}

const struct shmb_lane_segment *shmb_subscriber_lane(struct shmb_subscriber *subscriber,
						     uint32_t index, uint64_t *ret_publisher_id,
						     bool *ret_moving)
{
	struct sub_lane *lane = subscriber->lanes[index];

	*ret_moving = lane->successor != NULL;
	lane->left |= is_left(lane);
	if (lane->left)
		return NULL;
	if (!lane->attached)
		attach_lane(subscriber, lane);
	*ret_publisher_id = lane->publisher_id;
	return lane->lane.base;
}

/* Its successor, if it has one, is the first of that publisher then. */
bool shmb_subscriber_forget_left(struct shmb_subscriber *subscriber)
{
	bool any = false;

	for (uint32_t i = 0; i < subscriber->n_lanes;) {
		struct sub_lane *lane = subscriber->lanes[i];

		/* The order is kept: whoever follows it stands behind it. */
		if (!lane->follows && lane->left) {
			if (lane->successor)
				lane->successor->follows = false;
			remove_lane(subscriber, i);
			any = true;
		} else {
			i++;
		}
	}
	return any;
}

bool shmb_subscriber_any_left(const struct shmb_subscriber *subscriber)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (is_left(subscriber->lanes[i]))
			return true;
	return false;
}

/* ---- turns ------------------------------------------------------------------------------------- */

/*
 * Of many lanes, those that have had records lately are hot and looked at each time; each of the
 * others is a cache line and a page that most often has nothing. A few of them are looked at after
 * each burst, so that busy lanes do not starve them, and all of them before we say that there is
 * nothing. One that has a record changes places with the lane whose turn it is, which is then last
 * in the queue of the cold ones: all get the same share.
 */
static __attribute__((noinline)) struct sub_lane *
look_at_cold(struct shmb_subscriber *subscriber, uint32_t n, struct shmb_record *record)
{
	for (; n > 0 && subscriber->n_lanes > HOT_MAX; n--) {
		struct sub_lane *lane;
		int found;

		if (subscriber->cold < HOT_MAX || subscriber->cold >= subscriber->n_lanes)
			subscriber->cold = HOT_MAX;
		lane = subscriber->lanes[subscriber->cold];
		found = look_at(subscriber, lane, record);
		if (found > 0) {
			subscriber->lanes[subscriber->cold++] =
				subscriber->lanes[subscriber->current];
			subscriber->lanes[subscriber->current] = lane;
			subscriber->burst = 1;
			return lane;
		}
		if (shmb_likely(found == 0))
			subscriber->cold++;
	}
	return NULL;
}

/* Where all lanes have a record now and then, in turns, the cold one that is next has one. */
static struct sub_lane *guess_cold(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	uint32_t cold = subscriber->cold;
	struct sub_lane *lane = look_at_cold(subscriber, 1, record);

	/* In vain: it is still next. */
	if (!lane)
		subscriber->cold = cold;
	return lane;
}

/* The turn of a lane is over: a cold one has one in its place, then it is the next one's. */
static struct sub_lane *end_burst(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	struct sub_lane *lane = NULL;

	if (subscriber->n_lanes > HOT_MAX && !subscriber->was_cold)
		lane = look_at_cold(subscriber, COLD_LOOKS, record);
	subscriber->was_cold = lane != NULL;
	if (!lane)
		next_turn(subscriber);
	return lane;
}

/* ---- one order for all lanes -------------------------------------------------------------------- */

/* Times are unique in a lane; the same time in two lanes counts in the order of their publishers. */
static bool is_before(const struct sub_lane *lane, const struct sub_lane *other)
{
	return lane->stamp < other->stamp ||
	       (lane->stamp == other->stamp && lane->publisher_id < other->publisher_id);
}

/* May a record before that of @first come from a lane that had none? The clock has passed its time. */
static bool is_awaited(const struct sub_lane *lane, const struct sub_lane *first)
{
	const struct shmb_lane_segment *words = lane->lane.base;
	/* AL: pairs with AK in withdraw_stamp(): if nothing is on its way, what was has come. */
	uint64_t bound = SHMB_LOAD_ACQUIRE(&words->order_bound);

	if (bound == 0 || lane->gone || lane->finished || lane->n_waived >= ORDER_WAIVERS)
		return false;
	return bound <= first->stamp && bound != lane->waived;
}

/* The lane with the earliest record, and that record. Returns NULL if there is none. */
static struct sub_lane *find_first(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	struct sub_lane *first = NULL;
	struct shmb_record found;
	uint32_t i = 0;

	while (i < subscriber->n_lanes) {
		struct sub_lane *lane = subscriber->lanes[i];
		int result = look_at(subscriber, lane, &found);

		if (shmb_unlikely(result < 0)) {
			first = NULL; /* others have moved to where we had looked already */
			i = 0;
			continue;
		}
		if (result == 0)
			lane->stamp = 0;
		else if (!first || is_before(lane, first)) {
			first = lane;
			*record = found;
		}
		i++;
	}
	return first;
}

/*
 * Is it the turn of the first one? Not while a publisher has announced an earlier record, or one has
 * come meanwhile: 0; -1: look again.
 */
static int is_due(struct shmb_subscriber *subscriber, const struct sub_lane *first)
{
	struct shmb_record record;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (lane == first || lane->stamp || lane->follows)
			continue;
		/* In this order: what was announced before we look has come, or is still announced. */
		if (is_awaited(lane, first))
			return 0;
		if (look_at(subscriber, lane, &record))
			return -1;
	}
	return 1;
}

/* Nobody waits for long for who has stopped just there. */
static bool is_patient(struct shmb_subscriber *subscriber, const struct sub_lane *first,
		       uint64_t now_ns)
{
	if (!subscriber->held_ns)
		subscriber->held_ns = now_ns;
	if (now_ns - subscriber->held_ns < ORDER_WAIT_NS)
		return true;
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];
		const struct shmb_lane_segment *words = lane->lane.base;

		if (lane == first || lane->stamp || lane->gone)
			continue;
		lane->waived = SHMB_LOAD(&words->order_bound);
		lane->n_waived += lane->waived && lane->waived <= first->stamp;
	}
	subscriber->held_ns = 0;
	return false;
}

/*
 * The next record in the order of all. Whoever joins with an earlier one has been announced by then: its
 * stamp is of a time after the broker has moved the epoch.
 */
static SHMB_SELDOM struct sub_lane *next_ordered(struct shmb_subscriber *subscriber,
						 struct shmb_record *record)
{
	struct sub_lane *first = NULL;
	uint64_t now_ns = 0;
	int due = -1;

	for (uint32_t tries = 0; tries < ORDER_TRIES + subscriber->n_lanes && due < 0; tries++) {
		first = find_first(subscriber, record);
		if (!first) {
			subscriber->held_ns = 0;
			return NULL;
		}
		/* So that whoever stamps later has a later stamp, and not the same. */
		do
			now_ns = shmb_clock_now_ns();
		while (shmb_unlikely(now_ns == first->stamp));
		/* AJ: pairs with AI in the publisher's announce_stamp(): what is not seen below is later. */
		shmb_fence();
		if (shmb_unlikely(SHMB_LOAD(subscriber->member.epoch) !=
				  subscriber->member.seen_epoch))
			shmb_member_sync(&subscriber->member);
		else
			due = is_due(subscriber, first);
	}
	if (shmb_unlikely(due <= 0) && is_patient(subscriber, first, now_ns))
		return NULL;
	subscriber->held_ns = 0;
	return first;
}

/* ---- the next one ------------------------------------------------------------------------------- */

/* The next record of any lane, in turns. Returns its lane, or NULL if there is none. */
static inline __attribute__((__always_inline__)) struct sub_lane *
next_record(struct shmb_subscriber *subscriber, struct shmb_record *record)
{
	uint32_t changes, left;
	struct sub_lane *lane;
	int found;

	if (shmb_unlikely(subscriber->ordered))
		return next_ordered(subscriber, record);
	do {
		changes = subscriber->lane_changes;
		for (left = subscriber->n_hot; left > 0; left--) {
			if (shmb_unlikely(subscriber->burst >= BURST)) {
				lane = end_burst(subscriber, record);
				if (lane)
					return lane;
			}
			lane = subscriber->lanes[subscriber->current];
			found = look_at(subscriber, lane, record);
			if (shmb_likely(found > 0)) {
				subscriber->burst++;
				return lane;
			}
			if (shmb_unlikely(found < 0))
				break;
			next_turn(subscriber);
			if (shmb_unlikely(subscriber->n_lanes > HOT_MAX) &&
			    left == subscriber->n_hot) {
				lane = guess_cold(subscriber, record);
				if (lane)
					return lane;
			}
		}
		if (shmb_unlikely(subscriber->n_lanes > HOT_MAX) && left == 0) {
			/* The lane that was hot for longest makes room: the cold ones stay in order. */
			next_turn(subscriber);
			lane = look_at_cold(subscriber, subscriber->n_lanes - HOT_MAX, record);
			if (lane)
				return lane;
		}
		/* If some were removed, others have moved to where we had looked already. */
	} while (shmb_unlikely(changes != subscriber->lane_changes));
	return NULL;
}

static struct sub_lane *next_failed(const struct shmb_subscriber *subscriber);
static void bury_again(struct shmb_subscriber *subscriber);

/* Once, and before anything else is received. */
static SHMB_SELDOM int say_evicted(struct shmb_subscriber *subscriber)
{
	subscriber->view.publisher_id = subscriber->evicted_by;
	subscriber->evicted_by = 0;
	return shmb_fail(
		-ENOBUFS,
		"publisher %llu has waited for %u ms, and does not wait for this subscriber "
		"any more, which is lossy from now on: %llu records are lost so far",
		(unsigned long long)subscriber->view.publisher_id,
		subscriber->member.evict_after_ms, (unsigned long long)subscriber->lost);
}

static int nothing(struct shmb_subscriber *subscriber)
{
	if (shmb_unlikely(subscriber->evicted_by))
		return say_evicted(subscriber);
	/* Whoever has announced an earlier record is about to publish it. */
	if (shmb_unlikely(subscriber->held_ns))
		sched_yield();
	if (!subscriber->failed)
		return -EAGAIN;
	subscriber->failed = false;
	return shmb_fail(-EBADMSG, "a publisher wrote bytes that cannot be records: it is not read "
				   "any more");
}

/* Why a record cannot be received just now. */
static int busy(const struct shmb_subscriber *subscriber)
{
	if (subscriber->state)
		return shmb_fail(-EOPNOTSUPP, "a state channel has values to get, not records");
	if (subscriber->queue)
		return shmb_fail(-EOPNOTSUPP, "records of a queue are taken, not received");
	return shmb_fail(-EBUSY, "records are peeked at: release them first");
}

static inline int enter(struct shmb_subscriber *subscriber)
{
	int result;

	if (shmb_unlikely(!subscriber))
		return shmb_fail(-EINVAL, "subscriber is NULL");
	subscriber->only = NULL;
	result = shmb_member_enter(&subscriber->member);
	/* What a worker has had others get when it is thrown out. */
	if (shmb_likely(result != -ESTALE || !subscriber->n_lanes || subscriber->queue))
		return result;
	unguard_lanes(subscriber);
	return 0;
}

static inline void describe(struct shmb_subscriber *subscriber, const struct sub_lane *lane,
			    const struct shmb_record *record)
{
	subscriber->view.len = record->len;
	subscriber->view.type = record->type;
	subscriber->view.sequence = lane->reader.sequence;
	subscriber->view.publisher_id = lane->publisher_id;
	if (shmb_unlikely(subscriber->ordered))
		subscriber->view.term = lane->stamp;
}

/* Records of an ordered channel have been received: do they come behind later ones? */
static inline void note_order(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	if (shmb_likely(!subscriber->ordered))
		return;
	if (lane->stamp < subscriber->stamp)
		subscriber->disordered++;
	else
		subscriber->stamp = lane->stamp;
}

/* Copies a record out. Returns false if it was overwritten meanwhile. */
static inline bool take(struct shmb_subscriber *subscriber, struct sub_lane *lane,
			const struct shmb_record *record, void *data)
{
	shmb_copy(data, record->data, record->len);
	if (shmb_unlikely(was_overwritten(subscriber, lane)))
		return false;
	if (shmb_unlikely(record->flags) && !block_was_whole(subscriber, lane, record))
		return false;
	shmb_lane_skip(&lane->reader, record);
	subscriber->received++;
	note_order(subscriber, lane);
	return true;
}

static bool is_plain(const struct sub_lane *lane)
{
	return lane->attached && !lane->gone && !lane->unguarded && !lane->watched &&
	       !lane->finished && !lane->follows && !lane->successor && !lane->reader.record_flags;
}

/* From one publisher or any number of them, whatever has become of them. */
static __attribute__((noinline)) int32_t recv_any(struct shmb_subscriber *subscriber, void *data,
						  uint32_t cap)
{
	struct shmb_record record;
	struct sub_lane *lane;
	int result = enter(subscriber);

	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_unlikely(subscriber->n_peeked))
		return busy(subscriber);
	do {
		lane = next_record(subscriber, &record);
		if (!lane || shmb_unlikely(subscriber->evicted_by))
			return nothing(subscriber);
		describe(subscriber, lane, &record);
		if (shmb_unlikely(record.len > cap || !data)) {
			if (record.len)
				return shmb_fail(-EMSGSIZE,
						 "the record has %u bytes, the buffer %u",
						 record.len, data ? cap : 0);
			data = &record; /* an empty record needs no room */
		}
	} while (!take(subscriber, lane, &record, data));
	store_cursor(subscriber, lane);
	if (subscriber->n_lanes == 1 && !subscriber->failed && is_plain(lane))
		subscriber->only = lane;
	return (int32_t)record.len;
}

/*
 * From the one publisher that there is, where nothing about it is special: the way of a record from
 * its arrival to the caller's answer, and the round of who polls for it, have nothing to decide. What
 * may change that forgets @only, and recv_any() finds it again. Whatever is unusual starts over there.
 */
static inline int32_t recv_only(struct shmb_subscriber *subscriber, struct sub_lane *lane,
				void *data, uint32_t cap)
{
	const struct shmb_member *member = &subscriber->member;
	struct shmb_record record;
	int result = shmb_lane_peek(&lane->reader, &record);

	if (!result) {
		shmb_expect(&lane->reader, subscriber->view.len);
		return -EAGAIN;
	}
	if (shmb_unlikely(result < 0 || record.flags || record.len > cap || !data ||
			  (subscriber->record_len && record.len != subscriber->record_len)))
		return recv_any(subscriber, data, cap);
	describe(subscriber, lane, &record);
	shmb_copy(data, record.data, record.len);
	/* V: pairs with the release of the epoch, as in was_overwritten(). */
	SHMB_FENCE_ACQUIRE();
	if (shmb_unlikely(SHMB_LOAD(member->epoch) != member->seen_epoch))
		return recv_any(subscriber, data, cap);
	shmb_lane_skip(&lane->reader, &record);
	subscriber->received++;
	shmb_cursor_store(lane->slot, lane->reader.position, lane->reader.sequence);
	ring_publisher(subscriber, lane);
	return (int32_t)record.len;
}

SHMB_API int32_t shmb_subscriber_recv(struct shmb_subscriber *subscriber, void *data, uint32_t cap)
{
	if (shmb_unlikely(!subscriber || !subscriber->only ||
			  !shmb_member_is_settled(&subscriber->member)))
		return recv_any(subscriber, data, cap);
	return recv_only(subscriber, subscriber->only, data, cap);
}

/* In a batch a publisher is told once for all records in a row. */
static inline void tell_untold(struct shmb_subscriber *subscriber)
{
	if (subscriber->untold)
		store_cursor(subscriber, subscriber->untold);
	subscriber->untold = NULL;
}

SHMB_API int32_t shmb_subscriber_recv_many(struct shmb_subscriber *subscriber, void *data,
					   uint32_t cap, uint32_t *lens, uint32_t max)
{
	struct sub_lane *lane;
	struct shmb_record record;
	uint8_t *to = data;
	uint32_t n = 0;
	int result = enter(subscriber);

	if (result < 0)
		return result;
	if (!data || max == 0 || max > INT32_MAX)
		return shmb_fail(-EINVAL, "data is NULL, or max %u is not 1 to %d", max, INT32_MAX);
	if (subscriber->n_peeked)
		return busy(subscriber);
	while (n < max) {
		lane = next_record(subscriber, &record);
		if (subscriber->untold != lane)
			tell_untold(subscriber);
		if (!lane || shmb_unlikely(subscriber->evicted_by))
			break;
		if (shmb_unlikely(record.len > cap)) {
			if (n)
				break;
			describe(subscriber, lane, &record);
			return shmb_fail(-EMSGSIZE, "the record has %u bytes, the buffer %u",
					 record.len, cap);
		}
		if (n == 0)
			describe(subscriber, lane, &record);
		if (shmb_unlikely(!take(subscriber, lane, &record, to)))
			continue;
		subscriber->untold = lane;
		if (lens)
			lens[n] = record.len;
		to += record.len;
		cap -= record.len;
		n++;
	}
	tell_untold(subscriber);
	return n ? (int32_t)n : nothing(subscriber);
}

/* ---- looking without copying ------------------------------------------------------------------- */

/* How many records of the same length follow each other, from the first on, at most @max. */
static uint32_t count_run(const struct sub_lane *lane, const struct shmb_record *first,
			  uint32_t ext_len, uint32_t max)
{
	struct shmb_lane_reader reader = lane->reader;
	struct shmb_record record = *first;
	uint32_t n = 0;

	do {
		const uint8_t *end = record.data + record.span;

		shmb_lane_skip(&reader, &record);
		n++;
		if (n == max || shmb_lane_peek(&reader, &record) != 1 ||
		    record.data + ext_len != end || record.flags)
			break;
		record.data = end;
		/* Later records are not older. */
	} while (record.len == first->len + ext_len);
	return n;
}

SHMB_API int32_t shmb_subscriber_peek(struct shmb_subscriber *subscriber, uint32_t max)
{
	struct shmb_record record;
	struct sub_lane *lane;
	uint32_t n;
	int result = enter(subscriber);

	if (result < 0)
		return result;
	if (max == 0)
		return shmb_fail(-EINVAL, "max is 0");
	if (subscriber->n_peeked)
		return subscriber->state || subscriber->queue ? busy(subscriber)
							      : (int32_t)subscriber->n_peeked;
	do {
		unpin(subscriber);
		lane = next_record(subscriber, &record);
		if (!lane || shmb_unlikely(subscriber->evicted_by))
			return nothing(subscriber);
		/* Of an ordered channel the next one may be another publisher's. */
		n = max == 1 || record.flags || subscriber->ordered
			    ? 1
			    : count_run(lane, &record, subscriber->ext_len,
					max > INT32_MAX ? INT32_MAX : max);
	} while (was_overwritten(subscriber, lane) ||
		 (record.flags && !pin_block(subscriber, lane, &record)));
	describe(subscriber, lane, &record);
	subscriber->view.data = (uint64_t)(uintptr_t)record.data;
	subscriber->view.count = n;
	subscriber->view.stride = (uint32_t)record.span;
	subscriber->peeked = lane;
	subscriber->n_peeked = n;
	return (int32_t)n;
}

/* Was what was peeked at there all the time? A block is, also if the lane has gone on meanwhile. */
static bool peek_was_whole(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	uint64_t lost = 0;

	if (subscriber->peeked_hold) {
		if (subscriber->lossy || !block_is_gone(subscriber, lane))
			return true;
		lane->finished = true;
		return false;
	}
	if (!was_overwritten(subscriber, lane))
		return true;
	if (lane->lossy && shmb_lane_resync(&lane->reader, &lost) == 0)
		count_lost(subscriber, lane, lost);
	return false;
}

static int enter_peeked(const struct shmb_subscriber *subscriber)
{
	if (!subscriber)
		return shmb_fail(-EINVAL, "subscriber is NULL");
	if (!*subscriber->member.fork_guard)
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	return subscriber->state || subscriber->queue ? busy(subscriber) : 0;
}

/* The first @count of those that were peeked at are done with. */
static void step_over(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint32_t count)
{
	/* All of them have the stride that the view says; it is ours, not the publisher's. */
	lane->reader.position += (uint64_t)count * subscriber->view.stride;
	lane->reader.sequence += count;
	subscriber->received += count;
	note_order(subscriber, lane);
	subscriber->n_peeked = 0;
	subscriber->peeked = NULL;
}

SHMB_API int32_t shmb_subscriber_release(struct shmb_subscriber *subscriber, uint32_t count)
{
	int result = enter_peeked(subscriber);
	struct sub_lane *lane;
	bool whole;

	if (result < 0)
		return result;
	if (count > subscriber->n_peeked)
		return shmb_fail(-EINVAL, "%u records are peeked at, not %u", subscriber->n_peeked,
				 count);
	lane = subscriber->peeked;
	whole = count == 0 || peek_was_whole(subscriber, lane);
	unpin(subscriber);
	if (count == 0 || !whole) {
		subscriber->n_peeked = 0;
		subscriber->peeked = NULL;
		return whole ? 0
			     : shmb_fail(-ESTALE,
					 "the records were overwritten while you looked at them");
	}
	step_over(subscriber, lane, count);
	store_cursor(subscriber, lane);
	return 0;
}

/* ---- queues ------------------------------------------------------------------------------------ */

static int enter_queue(struct shmb_subscriber *subscriber)
{
	int result = enter(subscriber);

	if (shmb_likely(result == 0) && shmb_unlikely(!subscriber->queue))
		return shmb_fail(-EOPNOTSUPP, "the channel is not a queue");
	return result;
}

/* A lane with a record that has failed and is to be handed out again, or NULL. */
static struct sub_lane *next_failed(const struct shmb_subscriber *subscriber)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (shmb_unlikely(subscriber->lanes[i]->jobs->n_failed) &&
		    !subscriber->lanes[i]->follows)
			return subscriber->lanes[i];
	return NULL;
}

/* The lane of a job, or NULL. */
static struct sub_lane *find_job(const struct shmb_subscriber *subscriber, uint64_t job)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (!lane->follows && lane->jobs->lane == job >> 32)
			return shmb_jobs_find(lane->jobs, (uint32_t)job) ? lane : NULL;
	}
	return NULL;
}

/* The bytes of a record that was taken before; its publisher keeps them. */
static int look_back(struct sub_lane *lane, const struct shmb_job *job, struct shmb_record *record)
{
	struct shmb_lane_reader reader = lane->reader;

	reader.position = job->position;
	reader.sequence = job->sequence;
	if (shmb_lane_peek(&reader, record) != 1 || reader.position != job->position ||
	    record->len < sizeof(struct shmb_queue_address))
		return -EBADMSG;
	record->data += sizeof(struct shmb_queue_address);
	record->len -= (uint32_t)sizeof(struct shmb_queue_address);
	return 0;
}

/* Too often handed out. It goes where the dead letters are, or waits for room there. */
static void bury(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint32_t number,
		 const struct shmb_record *record)
{
	bool buried = shmb_publisher_send_typed(subscriber->dead, record->data, record->len,
						record->type) == 0;

	/* Killed between the two: it is among the dead letters, and comes there once more. */
	shmb_jobs_set(lane->jobs, number, buried ? SHMB_JOB_DONE : SHMB_JOB_DEAD);
	store_cursor(subscriber, lane);
}

/* Those that found no room. */
static void bury_again(struct shmb_subscriber *subscriber)
{
	struct shmb_record record;
	struct shmb_job *job;
	uint32_t number;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (shmb_likely(!lane->jobs->n_dead))
			continue;
		job = shmb_jobs_first(lane->jobs, SHMB_JOB_DEAD, &number);
		if (job && look_back(lane, job, &record) == 0)
			bury(subscriber, lane, number, &record);
	}
}

static bool is_dead(const struct shmb_subscriber *subscriber, uint32_t attempt)
{
	return subscriber->dead && attempt > subscriber->max_attempts;
}

/* The publisher may look at the marks in another cursor by now. */
static void tell_ahead(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	if (shmb_unlikely(lane->successor != NULL))
		store_ahead(subscriber, lane);
}

/* A record that has failed, once more. Returns 1, 0: there is none; -EMSGSIZE. */
static int retake(struct shmb_subscriber *subscriber, void *data, uint32_t cap)
{
	struct sub_lane *lane;
	struct shmb_record record;
	struct shmb_job *job;
	uint32_t number = 0;

	while ((lane = next_failed(subscriber))) {
		job = shmb_jobs_first(lane->jobs, SHMB_JOB_FAILED, &number);
		if (look_back(lane, job, &record) < 0) {
			shmb_jobs_set(lane->jobs, number, SHMB_JOB_DONE);
			condemn(subscriber, lane);
			continue;
		}
		if (is_dead(subscriber, job->attempt + 1)) {
			bury(subscriber, lane, number, &record);
			continue;
		}
		describe(subscriber, lane, &record);
		if (record.len > cap)
			return -EMSGSIZE;
		shmb_copy(data, record.data, record.len);
		shmb_jobs_retake(lane->jobs, number);
		tell_ahead(subscriber, lane);
		subscriber->view.sequence = job->sequence;
		subscriber->view.attempt = job->attempt;
		subscriber->view.term = (uint64_t)lane->jobs->lane << 32 | number;
		return 1;
	}
	return 0;
}

/* The next record for us. Returns 1, 0: there is none; -EMSGSIZE. The view says which. */
static int take_job(struct shmb_subscriber *subscriber, void *data, uint32_t cap)
{
	struct shmb_record record;
	struct sub_lane *lane;
	uint32_t number;

	while ((lane = next_record(subscriber, &record))) {
		uint32_t attempt = subscriber->attempt;
		bool dead = is_dead(subscriber, attempt);

		describe(subscriber, lane, &record);
		if (shmb_unlikely(record.len > cap && !dead))
			return -EMSGSIZE;
		number = shmb_jobs_take(lane->jobs, &lane->reader, attempt);
		if (!dead)
			shmb_copy(data, record.data, record.len);
		shmb_lane_skip(&lane->reader, &record);
		tell_ahead(subscriber, lane);
		if (shmb_unlikely(dead)) {
			bury(subscriber, lane, number, &record);
			continue;
		}
		subscriber->received++;
		subscriber->view.attempt = attempt;
		subscriber->view.term = (uint64_t)lane->jobs->lane << 32 | number;
		return 1;
	}
	/* After all others, so that one that fails for ever does not keep us from them. */
	return retake(subscriber, data, cap);
}

SHMB_API int32_t shmb_subscriber_take(struct shmb_subscriber *subscriber, void *data, uint32_t cap)
{
	int result = enter_queue(subscriber);

	if (shmb_unlikely(result < 0))
		return result;
	if (cap && !data)
		return shmb_fail(-EINVAL, "data is NULL");
	bury_again(subscriber);
	result = take_job(subscriber, data, cap);
	if (shmb_likely(result == 1))
		return (int32_t)subscriber->view.len;
	if (result == 0)
		return nothing(subscriber);
	return shmb_fail(-EMSGSIZE, "the record has %u bytes, the buffer %u", subscriber->view.len,
			 cap);
}

SHMB_API int32_t shmb_subscriber_take_many(struct shmb_subscriber *subscriber, void *data,
					   uint32_t cap, uint32_t *lens, uint64_t *jobs,
					   uint32_t max)
{
	uint8_t *to = data;
	uint32_t n = 0;
	int result = enter_queue(subscriber);

	if (result < 0)
		return result;
	if (!data || !jobs || max == 0 || max > INT32_MAX)
		return shmb_fail(-EINVAL, "data or jobs is NULL, or max %u is not 1 to %d", max,
				 INT32_MAX);
	bury_again(subscriber);
	while (n < max && (result = take_job(subscriber, to, cap)) == 1) {
		if (lens)
			lens[n] = subscriber->view.len;
		jobs[n++] = subscriber->view.term;
		to += subscriber->view.len;
		cap -= subscriber->view.len;
	}
	if (n)
		return (int32_t)n;
	if (result == 0)
		return nothing(subscriber);
	return shmb_fail(-EMSGSIZE, "the record has %u bytes, the buffer %u", subscriber->view.len,
			 cap);
}

/*
 * The marks of these are stored. Were we thrown out, or parted from their publisher, before it could see
 * them? Then others get what they are of.
 */
static int check_heard(struct shmb_subscriber *subscriber, const uint64_t *jobs, uint32_t count)
{
	struct shmb_member *member = &subscriber->member;
	int result;

	/*
	 * AF: pairs with AH in the publisher's orphan(): either it sees the marks, or we see that the
	 * broker has moved the epoch, which it does before it says that the two are parted.
	 */
	shmb_fence();
	if (shmb_likely(SHMB_LOAD(member->epoch) == member->seen_epoch))
		return 0;
	result = shmb_member_enter_slow(member);
	for (uint32_t i = 0; result == 0 && i < subscriber->n_lanes; i++) {
		const struct sub_lane *lane = subscriber->lanes[i];

		for (uint32_t k = 0; k < count && lane->unguarded; k++)
			if (lane->jobs->lane == jobs[k] >> 32)
				return shmb_fail(-ENOENT, "job %llu is others' by now",
						 (unsigned long long)jobs[k]);
	}
	return result;
}

/* Ends some jobs. All of them must be ours, or nothing happens. */
static int end_jobs(struct shmb_subscriber *subscriber, const uint64_t *jobs, uint32_t count,
		    enum shmb_job_state state)
{
	struct sub_lane *lane = NULL;
	int result = enter_queue(subscriber);

	if (result < 0)
		return result;
	if (count && !jobs)
		return shmb_fail(-EINVAL, "jobs is NULL");
	for (uint32_t i = 0; i < count; i++)
		if (!find_job(subscriber, jobs[i]))
			return shmb_fail(-ENOENT, "job %llu is not in work here",
					 (unsigned long long)jobs[i]);
	for (uint32_t i = 0; i < count; i++) {
		struct sub_lane *next = find_job(subscriber, jobs[i]);

		if (lane && lane != next)
			store_cursor(subscriber, lane);
		lane = next;
		/* The same one twice. */
		if (lane)
			shmb_jobs_set(lane->jobs, (uint32_t)jobs[i], state);
	}
	if (lane)
		store_cursor(subscriber, lane);
	return check_heard(subscriber, jobs, count);
}

SHMB_API int32_t shmb_subscriber_done(struct shmb_subscriber *subscriber, uint64_t job)
{
	return end_jobs(subscriber, &job, 1, SHMB_JOB_DONE);
}

SHMB_API int32_t shmb_subscriber_done_many(struct shmb_subscriber *subscriber, const uint64_t *jobs,
					   uint32_t count)
{
	return end_jobs(subscriber, jobs, count, SHMB_JOB_DONE);
}

SHMB_API int32_t shmb_subscriber_fail(struct shmb_subscriber *subscriber, uint64_t job)
{
	return end_jobs(subscriber, &job, 1, SHMB_JOB_FAILED);
}

/* ---- holding ----------------------------------------------------------------------------------- */

/* What lies in the lane cannot stay there. */
static int copy_peeked(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		       struct shmb_hold *hold)
{
	uint32_t len = subscriber->view.len;

	hold->copy = malloc(len ? len : 1);
	if (!hold->copy)
		return shmb_fail(-ENOMEM, "no memory for a record of %u bytes", len);
	shmb_copy(hold->copy, (const void *)(uintptr_t)subscriber->view.data, len);
	if (!peek_was_whole(subscriber, lane))
		return shmb_fail(-ESTALE, "the record was overwritten while you looked at it");
	hold->publisher_id = lane->publisher_id;
	hold->words.len = len;
	subscriber->view.data = (uint64_t)(uintptr_t)hold->copy;
	return 0;
}

/* Its block is told of in the cursor, before the position says that we have passed it. */
static int keep_peeked(struct shmb_subscriber *subscriber, struct sub_lane *lane,
		       struct shmb_hold *hold)
{
	uint64_t offset = subscriber->view.data - (uint64_t)(uintptr_t)hold->arena->map.base;

	if (!peek_was_whole(subscriber, lane))
		return shmb_fail(-ESTALE, "the record was overwritten while you looked at it");
	hold->peeked = false;
	hold->unguarded |= lane->unguarded;
	if (hold->words.block || lane->gone)
		return 0;
	hold->words.since_ns = shmb_clock_now_ns();
	hold->words.block =
		shmb_hold_name(lane->number, hold->arena->number,
			       (uint32_t)((offset - SHMB_BLOCK_LEN) / SHMB_ARENA_PAGE_LEN));
	tell_hold(subscriber, hold);
	return 0;
}

SHMB_API int32_t shmb_subscriber_hold(struct shmb_subscriber *subscriber)
{
	int result = enter_peeked(subscriber);
	struct shmb_holder *holder;
	struct shmb_hold *hold;
	struct sub_lane *lane;

	if (result < 0)
		return result;
	if (!subscriber->n_peeked)
		return shmb_fail(-EINVAL, "nothing is peeked at");
	holder = subscriber->holder;
	if (!holder || holder->n_holds == holder->limits.max_holds)
		return shmb_fail(-EDQUOT, "the channel allows each subscriber %u holds",
				 holder ? holder->limits.max_holds : 0);
	lane = subscriber->peeked;
	hold = subscriber->peeked_hold;
	if (hold) {
		result = keep_peeked(subscriber, lane, hold);
	} else {
		hold = shmb_holder_take(holder);
		result = copy_peeked(subscriber, lane, hold);
	}
	if (result < 0) {
		let_go(subscriber, hold);
		subscriber->peeked_hold = NULL;
		if (result == -ESTALE) {
			subscriber->n_peeked = 0;
			subscriber->peeked = NULL;
		}
		return result;
	}
	subscriber->peeked_hold = NULL;
	subscriber->view.count = 1;
	holder->n_holds++;
	step_over(subscriber, lane, 1);
	store_cursor(subscriber, lane);
	return (int32_t)(hold - holder->holds);
}

SHMB_API int32_t shmb_subscriber_unhold(struct shmb_subscriber *subscriber, uint32_t hold)
{
	int result = enter_peeked(subscriber);
	struct shmb_holder *holder;
	struct shmb_hold *held;
	uint64_t publisher_id;
	bool stale;

	if (result < 0)
		return result;
	holder = subscriber->holder;
	held = holder && hold <= SHMB_HOLDS_MAX ? &holder->holds[hold] : NULL;
	if (!held || !held->used || held->peeked)
		return shmb_fail(-ENOENT, "there is no hold %u", hold);
	stale = held->arena && (held->unguarded || subscriber->member.evicted);
	publisher_id = held->publisher_id;
	let_go(subscriber, held);
	holder->n_holds--;
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (subscriber->lanes[i]->publisher_id == publisher_id &&
		    !subscriber->lanes[i]->gone)
			ring_publisher(subscriber, subscriber->lanes[i]);
	if (stale)
		return shmb_fail(-ESTALE,
				 "the broker has thrown the subscriber out: the record may "
				 "have been overwritten");
	return 0;
}

/* ---- private lanes ------------------------------------------------------------------------------ */

struct shmb_peer *shmb_subscriber_peer(struct shmb_subscriber *subscriber, uint32_t index)
{
	struct sub_lane *lane = subscriber->lanes[index];

	return lane->finished ? NULL : &lane->peer;
}

int shmb_subscriber_note(struct shmb_subscriber *subscriber)
{
	uint64_t epoch;

	if (!SHMB_LOAD(subscriber->member.fork_guard))
		return shmb_member_enter_slow(&subscriber->member);
	epoch = SHMB_LOAD(subscriber->member.epoch);
	subscriber->only = NULL;
	shmb_member_sync(&subscriber->member);
	subscriber->member.noted_epoch = epoch;
	subscriber->member.noted_changes = subscriber->member.changes;
	return 0;
}

static __attribute__((noinline)) int
look_any(struct shmb_subscriber *subscriber, struct shmb_record *record, struct sub_lane **ret_lane)
{
	int result = enter(subscriber);

	if (result < 0)
		return result;
	do {
		*ret_lane = next_record(subscriber, record);
		if (!*ret_lane) {
			subscriber->failed =
				false; /* its peer is not heard of any more, that is all */
			return 0;
		}
	} while (was_overwritten(subscriber, *ret_lane));
	if (subscriber->n_lanes == 1 && !subscriber->failed && is_plain(*ret_lane))
		subscriber->only = *ret_lane;
	return 1;
}

int shmb_subscriber_look(struct shmb_subscriber *subscriber, struct shmb_record *record,
			 struct shmb_peer **ret_peer)
{
	struct sub_lane *lane = subscriber->only;
	int result = -EAGAIN;

	if (shmb_likely(lane && shmb_member_is_settled(&subscriber->member)))
		result = shmb_lane_peek(&lane->reader, record);
	if (shmb_unlikely(result < 0))
		result = look_any(subscriber, record, &lane);
	else if (!result)
		shmb_expect(&lane->reader, subscriber->view.len);
	if (result > 0)
		*ret_peer = &lane->peer;
	return result;
}

bool shmb_subscriber_pass(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			  const struct shmb_record *record)
{
	struct sub_lane *lane = shmb_container_of(peer, struct sub_lane, peer);

	if (shmb_unlikely(was_overwritten(subscriber, lane)))
		return false;
	subscriber->view.len = record->len;
	shmb_lane_skip(&lane->reader, record);
	subscriber->received++;
	store_cursor(subscriber, lane);
	return true;
}

void shmb_subscriber_count_quick(struct shmb_subscriber *subscriber)
{
	subscriber->gap_ns -= subscriber->gap_ns / 8;
}

bool shmb_subscriber_spins(const struct shmb_subscriber *subscriber)
{
	return subscriber->spin_ns != 0;
}

void shmb_subscriber_accuse(struct shmb_subscriber *subscriber, struct shmb_peer *peer,
			    uint32_t rule)
{
	struct sub_lane *lane = shmb_container_of(peer, struct sub_lane, peer);

	lane->finished = true;
	subscriber->only = NULL;
	subscriber->member.noted_changes--;
	if (!lane->gone)
		shmb_member_report(&subscriber->member, lane->pair_id, rule);
}

/* ---- waiting ----------------------------------------------------------------------------------- */

int shmb_subscriber_ready(struct shmb_subscriber *subscriber)
{
	struct shmb_record record;
	int result;

	if (subscriber && subscriber->private && shmb_member_is_news(&subscriber->member))
		return shmb_member_enter(&subscriber->member) == -ECHILD ? -ECHILD : 1;
	result = enter(subscriber);
	if (result < 0)
		return result;
	/* Another thread of this client may have read what is for us. */
	if (shmb_unlikely(SHMB_LOAD(&subscriber->member.inbox.first) != NULL))
		shmb_member_sync(&subscriber->member);
	if (subscriber->state)
		return shmb_state_reader_ready(subscriber->state);
	/* There may be somebody for the dead letters by now. */
	if (shmb_unlikely(subscriber->dead != NULL))
		bury_again(subscriber);
	if (subscriber->failed || subscriber->evicted_by ||
	    (subscriber->n_peeked && !subscriber->queue) ||
	    (subscriber->queue && next_failed(subscriber)))
		return 1;
	if (next_record(subscriber, &record)) {
		/* Only looked at: its turn is not over. */
		subscriber->burst -= !subscriber->ordered;
		return 1;
	}
	return subscriber->failed || subscriber->evicted_by || subscriber->held_ns;
}

/* Publishers that armed while our position was on its way look stuck: nobody sleeps before this. */
static void ring_publishers(struct shmb_subscriber *subscriber)
{
	/* P: pairs with O in the publisher's sleep_until(), after the fence of arm(). */
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (lane->gone)
			continue;
		/* The publisher may have been behind us when we heard of a new socket. */
		if (shmb_unlikely(lane->ringer.n > 1))
			settle_ringer(subscriber, lane);
		ring_publisher(subscriber, lane);
	}
}

static int arm(struct shmb_subscriber *subscriber, uint32_t mode)
{
	uint32_t asleep = ++subscriber->sleep_epoch << 2 | mode;

	store_sleep(subscriber, asleep);
	shmb_bell_announce(&subscriber->cursor->sleep, asleep);
	ring_publishers(subscriber);
	return shmb_subscriber_ready(subscriber);
}

/*
 * Close the doorbells that no publisher can ring any more. A publisher moves on to newer ones only,
 * and may be about to take any that we have announced: so only those older than all in use go.
 */
static void retire_doorbells(struct shmb_subscriber *subscriber)
{
	uint32_t oldest = UINT32_MAX;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		const struct shmb_bell_segment *bell = subscriber->lanes[i]->bell_words;
		uint32_t used = SHMB_LOAD(&bell->doorbell_generation);

		if (!subscriber->lanes[i]->gone && used < oldest &&
		    !shmb_ringer_is_socket(&subscriber->lanes[i]->ringer))
			oldest = used;
	}
	shmb_member_retire_doorbells(&subscriber->member, oldest);
}

/* Publishers ring the newest doorbell that we say we listen to. Killed before: the older one. */
static void on_doorbell(struct shmb_member *member)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);
	uint32_t generation = shmb_member_doorbell_generation(member);

	retire_doorbells(subscriber);
	SHMB_STORE(&subscriber->cursor->doorbell_generation, generation);
	for (struct sub_cursor *at = subscriber->cursors; at; at = at->next)
		SHMB_STORE(&((struct shmb_cursor_segment *)at->map.base)->doorbell_generation,
			   generation);
}

static int subscriber_on_prepare(struct shmb_member *member, void *to)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);

	(void)to; /* zeroes: each pair brings its position along */
	if (!subscriber->spare)
		subscriber->spare = calloc(1, sizeof(struct sub_cursor));
	return subscriber->spare ? 0 : shmb_fail(-ENOMEM, "no memory for a cursor");
}

/* One proves it: no publisher is told before we are told of all. */
static bool subscriber_is_complete(const struct shmb_member *member,
				   const struct shmb_event *staged)
{
	return member->answered || staged;
}

static void subscriber_on_move(struct shmb_member *member, struct shmb_map *before)
{
	struct shmb_subscriber *subscriber = to_subscriber(member);
	struct sub_cursor *old = subscriber->spare;
	uint32_t sleep = SHMB_LOAD(&subscriber->cursor->sleep);

	subscriber->only = NULL;
	subscriber->spare = NULL;
	old->map = *before;
	old->next = subscriber->cursors;
	subscriber->cursors = old;
	subscriber->cursor = member->own.base;
	SHMB_STORE(&subscriber->cursor->sleeps, subscriber->sleeps);
	SHMB_STORE(&subscriber->cursor->backstops, subscriber->backstops);
	SHMB_STORE(&subscriber->cursor->credit, subscriber->credit);
	/* Before a publisher believes that we look there: see shmb_cursor_start(). */
	for (uint32_t i = 0; subscriber->holder && i <= SHMB_HOLDS_MAX; i++)
		if (subscriber->holder->holds[i].words.block)
			tell_hold(subscriber, &subscriber->holder->holds[i]);
	on_doorbell(member);
	/* We may be about to sleep: then the look that follows comes after this, as after any other. */
	shmb_bell_announce(&subscriber->cursor->sleep, sleep);
	free_cursors(subscriber);
	subscriber->lane_changes++;
}

int shmb_subscriber_arm_fd(struct shmb_subscriber *subscriber)
{
	if (shmb_unlikely(subscriber->member.n_doorbells > 1))
		retire_doorbells(subscriber);
	return arm(subscriber, SHMB_SLEEP_FD);
}

void shmb_subscriber_disarm(struct shmb_subscriber *subscriber)
{
	uint32_t awake = subscriber->sleep_epoch << 2 | SHMB_SLEEP_AWAKE;

	store_sleep(subscriber, awake);
	SHMB_STORE(&subscriber->cursor->sleep, awake);
}

static void count_sleep(struct shmb_subscriber *subscriber, uint64_t now_ns)
{
	subscriber->sleeps++;
	SHMB_STORE(&subscriber->cursor->sleeps, subscriber->sleeps);
	SHMB_STORE(&subscriber->cursor->updated_ns, now_ns);
}

/*
 * Sleep on the wake words of all bells, ours from the broker included. Their values are read
 * before arming, so a ring that comes between is not slept through. Returns 1 woken, 0 deadline,
 * -ENOSYS if the kernel cannot.
 */
static int sleep_futex(struct shmb_subscriber *subscriber, uint64_t now_ns, uint64_t deadline)
{
	struct futex_wait waits[FUTEX_LANES_MAX + 1];
	const uint32_t *broker = &subscriber->member.client->bell->wake;
	struct __kernel_timespec until = shmb_clock_kernel_timespec(deadline);
	uint32_t changes = subscriber->lane_changes, n = 0;
	long woken;

	/* As of when we last read the socket: what the broker has said since must not be slept on. */
	waits[n++] = (struct futex_wait){ .value = subscriber->member.seen_wake,
					  .address = (uint64_t)(uintptr_t)broker,
					  .flags = FUTEX_WAIT_32_SHARED };
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		const uint32_t *wake = &subscriber->lanes[i]->bell_words->wake;

		waits[n++] = (struct futex_wait){ .value = SHMB_LOAD(wake),
						  .address = (uint64_t)(uintptr_t)wake,
						  .flags = FUTEX_WAIT_32_SHARED };
	}
	if (arm(subscriber, SHMB_SLEEP_FUTEX))
		return 1;
	if (subscriber->lane_changes != changes)
		return 1; /* a publisher came or went while we armed */
	count_sleep(subscriber, now_ns);
	woken = syscall(SYS_futex_waitv, waits, n, 0, &until, CLOCK_MONOTONIC);
	if (woken < 0 && (errno == ENOSYS || errno == EPERM))
		return -ENOSYS;
	return woken >= 0 || errno != ETIMEDOUT;
}

static int sleep_fd(struct shmb_subscriber *subscriber, uint64_t now_ns, uint64_t deadline)
{
	int result = shmb_member_epoll(&subscriber->member);

	if (result < 0)
		return result;
	if (shmb_subscriber_arm_fd(subscriber))
		return 1;
	count_sleep(subscriber, now_ns);
	return shmb_member_sleep(&subscriber->member, deadline);
}

/* Sleep once, bounded. Returns 0 or an error that keeps it from sleeping. */
static int sleep_once(struct shmb_subscriber *subscriber, uint64_t now_ns, uint64_t deadline)
{
	uint64_t backstop = now_ns + BACKSTOP_NS;
	bool bounded = backstop < deadline;
	int woken = -ENOSYS;

	if (bounded)
		deadline = backstop;
	/* Without a broker nobody rings its bell: the fd sleeper looks for a new one. */
	if (!subscriber->no_waitv && subscriber->n_lanes <= FUTEX_LANES_MAX &&
	    shmb_client_retry_at_ns(subscriber->member.client) == UINT64_MAX) {
		woken = sleep_futex(subscriber, now_ns, deadline);
		subscriber->no_waitv = woken == -ENOSYS;
	}
	if (woken == -ENOSYS)
		woken = sleep_fd(subscriber, now_ns, deadline);
	shmb_subscriber_disarm(subscriber);
	if (woken < 0)
		return woken;
	if (woken == 0 && bounded) {
		/* Did the backstop find what a ring should have told? */
		if (shmb_subscriber_ready(subscriber) == 1)
			shmb_subscriber_count_backstop(subscriber);
		/* A futex sleeper does not see the socket: look whether the broker is still there. */
		shmb_member_sync(&subscriber->member);
	} else if (woken == 1) {
		/* Perhaps it was the broker, with something that moves no epoch. */
		if (shmb_member_has_news(&subscriber->member))
			shmb_member_sync(&subscriber->member);
	}
	return 0;
}

/* Poll for a while, if experience says that it is worth it. Returns as shmb_subscriber_ready(). */
static int spin(struct shmb_subscriber *subscriber, uint64_t start_ns, uint64_t deadline)
{
	uint64_t end = start_ns + subscriber->spin_ns;
	int result = 0;

	/* Now and then try it all the same: a partner that sleeps looks slow because we do. */
	if (subscriber->gap_ns > subscriber->spin_ns && ++subscriber->waits % SPIN_PROBE)
		return 0;
	do {
		for (int i = 0; i < 32 && !result; i++) {
			shmb_pause();
			result = shmb_subscriber_ready(subscriber);
		}
	} while (!result && shmb_clock_now_ns() < (end < deadline ? end : deadline));
	return result;
}

/*
 * Let others on our CPU run before we sleep. If the publisher is one of them, the record is there
 * when we run again, and nobody had to be put to sleep and woken. If it is not, this is in vain,
 * and tried ever more rarely, and all the more so if a stranger ran for long meanwhile.
 * Returns as shmb_subscriber_ready().
 */
static int yield(struct shmb_subscriber *subscriber, uint64_t now_ns)
{
	uint32_t *misses;
	int result;
	bool slow;

	if (subscriber->yield_pause) {
		subscriber->yield_pause--;
		return 0;
	}
	sched_yield();
	result = shmb_subscriber_ready(subscriber);
	slow = shmb_clock_now_ns() - now_ns > YIELD_NS;
	if (result && !slow) {
		subscriber->yield_misses = 0;
		if (++subscriber->yield_hits % YIELD_HITS == 0 && subscriber->yield_strangers)
			subscriber->yield_strangers--;
		return result;
	}
	misses = slow ? &subscriber->yield_strangers : &subscriber->yield_misses;
	*misses += slow ? YIELD_STRANGER : 1;
	if (*misses > YIELD_PAUSE_MAX)
		*misses = YIELD_PAUSE_MAX;
	if (slow)
		subscriber->yield_hits = 0;
	subscriber->yield_pause = (1u << *misses) - 1;
	return result;
}

SHMB_API int32_t shmb_subscriber_wait(struct shmb_subscriber *subscriber, int64_t timeout_ns)
{
	int result = subscriber ? shmb_subscriber_ready(subscriber) : enter(subscriber);
	uint64_t start, now, deadline, fd_shortages;

	if (result)
		return result < 0 ? result : 0;
	fd_shortages = shmb_client_fd_shortages(subscriber->member.client);
	now = start = shmb_clock_now_ns();
	deadline = shmb_clock_deadline_ns(timeout_ns);
	if (subscriber->spin_ns) {
		result = spin(subscriber, start, deadline);
		now = shmb_clock_now_ns();
	}
	if (!result && now < deadline)
		result = yield(subscriber, now);
	while (!result && now < deadline) {
		result = sleep_once(subscriber, now, deadline);
		if (!result)
			result = shmb_subscriber_ready(subscriber);
		if (!result)
			now = shmb_clock_now_ns();
	}
	/* An eighth of the news: a few quick records in a row bring the spinning back. */
	if (subscriber->spin_ns)
		subscriber->gap_ns += (shmb_clock_now_ns() - start) / 8 - subscriber->gap_ns / 8;
	if (result > 0)
		return 0;
	if (result < 0)
		return result;
	if (shmb_client_fd_shortages(subscriber->member.client) != fd_shortages)
		return shmb_fail(-EMFILE, "no file descriptor is free for what the broker sent");
	return shmb_fail_lazily(-ETIMEDOUT, "no record came in time", 0, NULL);
}

SHMB_API int32_t shmb_subscriber_fd(struct shmb_subscriber *subscriber)
{
	if (!subscriber)
		return shmb_fail(-EINVAL, "subscriber is NULL");
	if (!*subscriber->member.fork_guard)
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	return shmb_member_epoll(&subscriber->member);
}

SHMB_API int32_t shmb_subscriber_arm(struct shmb_subscriber *subscriber)
{
	int result = enter(subscriber);

	if (result < 0)
		return result;
	result = shmb_member_take_wakes(&subscriber->member);
	if (result >= 0)
		result = shmb_subscriber_arm_fd(subscriber);
	if (result)
		shmb_subscriber_disarm(subscriber);
	return result;
}

/* ---- opening and closing ----------------------------------------------------------------------- */

static void prepare(struct shmb_member *member)
{
	to_subscriber(member)->cursor = member->own.base;
	SHMB_STORE(&to_subscriber(member)->cursor->credit, to_subscriber(member)->credit);
	on_doorbell(member);
}

/* On one CPU the publisher cannot run while we spin. */
static bool one_cpu(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1;
}

static void close_dead(struct shmb_subscriber *subscriber)
{
	shmb_publisher_close(subscriber->dead);
	shmb_channel_close(subscriber->dead_channel);
}

/* The queue of the dead letters is made as the queue itself was. */
static int open_dead(struct shmb_subscriber *subscriber, struct shmb_channel *channel)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_QUEUE,
						.schema = channel->schema,
						.schema_len = channel->schema_len,
						.lane_len = channel->lane_len };
	char name[SHMB_NAME_LEN_MAX + sizeof(SHMB_QUEUE_DEAD)];
	uint32_t suffix_len = sizeof(SHMB_QUEUE_DEAD) - 1;
	int result;

	memcpy(name, channel->name, channel->name_len);
	memcpy(name + channel->name_len, SHMB_QUEUE_DEAD, suffix_len);
	result = shmb_channel_open(channel->client, name, channel->name_len + suffix_len, &options,
				   &subscriber->dead_channel);
	if (result == 0)
		result = shmb_publisher_open(subscriber->dead_channel, NULL, &subscriber->dead);
	if (result < 0)
		close_dead(subscriber);
	return result;
}

static int open_queue(struct shmb_subscriber *subscriber, struct shmb_channel *channel,
		      const struct shmb_subscriber_options *options)
{
	if (subscriber->lossy)
		return shmb_fail(-EINVAL, "a worker of a queue cannot be lossy");
	if (subscriber->member.evict_after_ms)
		return shmb_fail(-EINVAL,
				 "a worker of a queue cannot be evicted: it would lose work");
	if (options->credit > SHMB_QUEUE_CREDIT_MAX)
		return shmb_fail(-EINVAL, "a worker has a credit of at most %u, not %u",
				 SHMB_QUEUE_CREDIT_MAX, options->credit);
	subscriber->queue = true;
	subscriber->n_peeked = 1; /* as if it always peeked: there is nothing to receive */
	subscriber->credit = options->credit ? options->credit : SHMB_QUEUE_CREDIT_DEFAULT;
	subscriber->max_attempts = options->max_attempts;
	return options->max_attempts ? open_dead(subscriber, channel) : 0;
}

static int open_subscriber(struct shmb_channel *channel,
			   const struct shmb_subscriber_options *options, uint32_t flags,
			   struct shmb_subscriber **ret_subscriber)
{
	struct shmb_subscriber *subscriber;
	int result;

	subscriber = calloc(1, sizeof(*subscriber));
	if (!subscriber)
		return shmb_fail(-ENOMEM, "no memory for a subscriber");
	subscriber->private = channel->pattern == SHMB_PATTERN_CALL;
	subscriber->lossy = options->flags & SHMB_SUBSCRIBER_LOSSY;
	if (!(options->flags & SHMB_SUBSCRIBER_NO_HISTORY))
		subscriber->member.history = options->history ? options->history : UINT32_MAX;
	subscriber->member.evict_after_ms = options->evict_after_ms;
	subscriber->spin_ns = options->spin_ns ? options->spin_ns : SPIN_DEFAULT_NS;
	if (options->flags & SHMB_SUBSCRIBER_NO_SPIN || one_cpu())
		subscriber->spin_ns = 0;
	subscriber->gap_ns = SPIN_TRUST_NS;
	subscriber->ext_len = channel->ext_len;
	subscriber->ordered = channel->ordered;
	subscriber->ttl_ns = channel->ttl_ms * 1000000ull;
	subscriber->record_len = channel->record_len ? channel->record_len + channel->ext_len : 0;
	subscriber->member.role = SHMB_ROLE_SUBSCRIBER;
	subscriber->member.flags = flags | (subscriber->lossy ? SHMB_MEMBER_LOSSY : 0);
	subscriber->member.on_pair = on_pair;
	subscriber->member.on_unpair = on_unpair;
	subscriber->member.on_arena = on_arena;
	subscriber->member.on_doorbell = on_doorbell;
	subscriber->member.on_prepare = subscriber_on_prepare;
	subscriber->member.is_complete = subscriber_is_complete;
	subscriber->member.on_move = subscriber_on_move;
	subscriber->member.channel = channel;
	if (channel->pattern == SHMB_PATTERN_QUEUE) {
		result = open_queue(subscriber, channel, options);
		if (result < 0) {
			free(subscriber);
			return result;
		}
	}
	if (channel->blocks.arena_len) {
		subscriber->holder = calloc(1, sizeof(*subscriber->holder));
		if (!subscriber->holder) {
			free(subscriber);
			return shmb_fail(-ENOMEM, "no memory for a subscriber");
		}
		subscriber->holder->limits = channel->blocks;
	}
	if (channel->pattern == SHMB_PATTERN_STATE) {
		/* As if it always peeked: there is nothing to receive. */
		subscriber->n_peeked = 1;
		subscriber->state = shmb_state_reader_new(subscriber);
		if (!subscriber->state) {
			free(subscriber);
			return shmb_fail(-ENOMEM, "no memory for a subscriber");
		}
	}
	result = shmb_member_open(&subscriber->member, channel, prepare);
	if (result < 0) {
		close_dead(subscriber);
		shmb_state_reader_free(subscriber->state);
		shmb_holder_free(subscriber->holder, false);
		free(subscriber);
		return result;
	}
	*ret_subscriber = subscriber;
	return 0;
}

SHMB_API int32_t shmb_subscriber_open(struct shmb_channel *channel,
				      const struct shmb_subscriber_options *given,
				      struct shmb_subscriber **ret_subscriber)
{
	uint32_t known =
		SHMB_SUBSCRIBER_LOSSY | SHMB_SUBSCRIBER_NO_SPIN | SHMB_SUBSCRIBER_NO_HISTORY;
	struct shmb_subscriber_options options;
	int result;

	if (!channel || !ret_subscriber)
		return shmb_fail(-EINVAL, "channel or ret_subscriber is NULL");
	if (!*channel->client->fork_guard)
		return shmb_fail(-ECHILD, "this channel belongs to the parent process");
	result = shmb_options_take(&options, sizeof(options), given, "subscriber");
	if (result < 0)
		return result;
	if (options.flags & ~known)
		return shmb_fail(-EINVAL, "unknown subscriber flags 0x%x", options.flags);
	if (options.flags & SHMB_SUBSCRIBER_LOSSY && options.evict_after_ms)
		return shmb_fail(
			-EINVAL,
			"a lossy subscriber holds nobody up: there is nothing to evict it from");
	if (options.evict_after_ms && channel->blocks.arena_len)
		return shmb_fail(-EINVAL,
				 "a subscriber of a channel with blocks cannot be evicted");
	if (channel->pattern == SHMB_PATTERN_CALL)
		return shmb_fail(-EOPNOTSUPP, "a call channel has callers and servers");
	return open_subscriber(channel, &options, 0, ret_subscriber);
}

int shmb_subscriber_open_private(struct shmb_channel *channel,
				 const struct shmb_subscriber_options *options, uint32_t flags,
				 struct shmb_subscriber **ret_subscriber)
{
	return open_subscriber(channel, options, flags, ret_subscriber);
}

/* Publishers need not wait for the broker, which may be gone, to know that nobody reads any more. */
static void leave(struct shmb_subscriber *subscriber)
{
	for (struct sub_cursor *at = subscriber->cursors; at; at = at->next)
		shmb_cursor_leave(at->map.base);
	shmb_cursor_leave(subscriber->cursor);
	for (uint32_t i = 0; i < subscriber->n_lanes; i++)
		if (!subscriber->lanes[i]->gone)
			ring_publisher(subscriber, subscriber->lanes[i]);
}

SHMB_API int32_t shmb_subscriber_close(struct shmb_subscriber *subscriber)
{
	bool abandon;

	if (!subscriber)
		return 0;
	abandon = !*subscriber->member.fork_guard;
	if (subscriber->waitset)
		return shmb_fail(-EBUSY, "the subscriber is in a wait set: remove it first");
	if (*subscriber->member.fork_guard)
		leave(subscriber);
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		/* In a forked child the mappings are not there to be unmapped. */
		if (!*subscriber->member.fork_guard)
			subscriber->lanes[i]->lane.base = subscriber->lanes[i]->bell.base = NULL;
		free_lane(subscriber->lanes[i]);
	}
	subscriber->n_lanes = 0;
	while (subscriber->drained)
		forget_drained(&subscriber->drained);
	for (struct sub_cursor *at = subscriber->cursors; at; at = at->next)
		if (!*subscriber->member.fork_guard)
			at->map.base = NULL;
	free_cursors(subscriber);
	free(subscriber->spare);
	shmb_member_close(&subscriber->member);
	free(subscriber->lanes);
	close_dead(subscriber);
	shmb_state_reader_free(subscriber->state);
	shmb_holder_free(subscriber->holder, abandon);
	free(subscriber);
	return 0;
}

SHMB_API struct shmb_view *shmb_subscriber_view(struct shmb_subscriber *subscriber)
{
	return subscriber ? &subscriber->view : NULL;
}

struct shmb_member *shmb_subscriber_member(struct shmb_subscriber *subscriber)
{
	return &subscriber->member;
}

void shmb_subscriber_count_backstop(struct shmb_subscriber *subscriber)
{
	subscriber->backstops++;
	SHMB_STORE(&subscriber->cursor->backstops, subscriber->backstops);
}

int shmb_subscriber_set_waitset(struct shmb_subscriber *subscriber, void *waitset)
{
	if (waitset && subscriber->waitset)
		return shmb_fail(-EEXIST, "the subscriber is in a wait set already");
	subscriber->waitset = waitset;
	return 0;
}

SHMB_API int32_t shmb_subscriber_stats(struct shmb_subscriber *subscriber,
				       struct shmb_subscriber_stats *stats, uint32_t cap)
{
	struct shmb_subscriber_stats all = { 0 };
	int result = enter(subscriber);

	if (result < 0)
		return result;
	if (!stats)
		return shmb_fail(-EINVAL, "stats is NULL");
	all.subscriber_id = subscriber->member.id;
	all.received = subscriber->received;
	all.lost = subscriber->lost;
	all.expired = subscriber->expired;
	all.disordered = subscriber->disordered;
	all.sleeps = subscriber->sleeps;
	all.backstops = subscriber->backstops;
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];
		const struct shmb_lane_segment *words = lane->lane.base;
		uint64_t published;

		all.n_publishers += !lane->follows;
		if (subscriber->state || lane->follows ||
		    (!lane->attached && !attach_lane(subscriber, lane)))
			continue;
		published = SHMB_LOAD(&words->sequence_hint);
		if (published > lane->reader.sequence)
			all.pending += published - lane->reader.sequence;
	}
	memcpy(stats, &all, cap < sizeof(all) ? cap : sizeof(all));
	return 0;
}
