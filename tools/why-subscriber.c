/* SPDX-License-Identifier: Apache-2.0 */

/* Subscribers that are behind, and the publishers that have no space for that. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/why.h"

static bool is_lossy(const struct inspect_item *subscriber)
{
	return subscriber->entry.flags & SHMB_MEMBER_LOSSY;
}

/* What one subscriber has not read, of all publishers together. */
struct backlog {
	const struct inspect_item *worst; /* pair */
	uint64_t records;
	uint64_t len;
	uint64_t read; /* records read between the pictures */
	bool is_old; /* some of it was there in the first picture */
};

static struct backlog backlog_of(const struct why *why, const struct inspect_item *subscriber)
{
	const struct inspect_item *pair = NULL;
	struct backlog backlog = { 0 };

	while ((pair = inspect_next(&why->now, pair, SHMB_ENTRY_PAIR,
				    subscriber->entry.channel_id))) {
		const struct inspect_item *before = why_pair_before(why, pair);

		if (pair->entry.subscriber_id != subscriber->entry.id || !pair->is_read)
			continue;
		backlog.records += pair->pair.lag_records;
		backlog.len += pair->pair.lag_len;
		if (before && pair->pair.sequence > before->pair.sequence)
			backlog.read += pair->pair.sequence - before->pair.sequence;
		if (before && before->pair.lag_len && pair->pair.lag_len)
			backlog.is_old = true;
		if (!backlog.worst || pair->pair.lag_len > backlog.worst->pair.lag_len)
			backlog.worst = pair;
	}
	return backlog;
}

/* Since when has it slept, if it sleeps? */
static uint64_t asleep_ns(const struct why *why, const struct inspect_item *subscriber)
{
	return subscriber->is_read && subscriber->cursor.sleep_mode != SHMB_SLEEP_AWAKE
		       ? why_age_of(subscriber->cursor.updated_ns, why->now_ns)
		       : 0;
}

/* A record in the lane takes at most half of it: whoever is less behind holds nobody up. */
static bool is_held(const struct why *why, const struct inspect_item *publisher, uint64_t lag_len)
{
	const struct shmb_registry_entry *entry = &why->channel->entry;
	/* Of blocks there may be a few only, and some dozens of records with fds. */
	uint64_t enough = entry->blocks.arena_len || entry->max_fds ? 0 : entry->lane_len / 2;

	return publisher->is_read && lag_len > enough &&
	       (publisher->lane.is_waiting || publisher->lane.full_since_ns);
}

/* The reliable subscriber that is furthest behind a publisher. */
static const struct inspect_item *slowest_of(const struct why *why,
					     const struct inspect_item *publisher)
{
	const struct inspect_item *pair = NULL, *slowest = NULL;

	if (inspect_is_kept(publisher))
		return NULL;
	while ((pair = inspect_next(&why->now, pair, SHMB_ENTRY_PAIR,
				    publisher->entry.channel_id))) {
		const struct inspect_item *subscriber;

		if (pair->entry.publisher_id != publisher->entry.id || !pair->is_read ||
		    pair->pair.is_evicted ||
		    (slowest && pair->pair.lag_len <= slowest->pair.lag_len))
			continue;
		subscriber =
			inspect_find(&why->now, SHMB_ENTRY_SUBSCRIBER, pair->entry.subscriber_id);
		if (subscriber && !is_lossy(subscriber))
			slowest = pair;
	}
	return slowest;
}

struct held {
	const struct inspect_item *publisher; /* for longest */
	const struct inspect_item *pair; /* of that one */
	uint32_t n;
};

/* Those that one subscriber holds up. */
static struct held held_by(const struct why *why, const struct inspect_item *subscriber,
			   const struct inspect_item *const *slowest)
{
	const struct inspect_item *publisher = NULL;
	struct held held = { 0 };

	for (uint32_t i = 0; (publisher = inspect_next(&why->now, publisher, SHMB_ENTRY_PUBLISHER,
						       why->channel->entry.id));
	     i++) {
		const struct inspect_item *pair = slowest[i];

		if (!pair || pair->entry.subscriber_id != subscriber->entry.id ||
		    !is_held(why, publisher, pair->pair.lag_len))
			continue;
		held.n++;
		if (!held.publisher ||
		    publisher->lane.full_since_ns < held.publisher->lane.full_since_ns) {
			held.publisher = publisher;
			held.pair = pair;
		}
	}
	return held;
}

static void explain_full(struct why *why, const struct inspect_item *subscriber,
			 const struct held *held)
{
	char who[WHY_WHO_LEN], whom[WHY_WHO_LEN], since[WHY_DURATION_LEN], more[64] = "",
									   reads[128];
	const struct inspect_item *publisher = held->publisher;
	struct backlog backlog = backlog_of(why, subscriber);
	uint64_t full_ns = why_age_of(publisher->lane.full_since_ns, why->now_ns);
	uint64_t slept_ns = asleep_ns(why, subscriber);
	struct process process;
	struct cause *cause;

	if (held->n > 1)
		snprintf(more, sizeof(more), " and %" PRIu32 " more", held->n - 1);
	why_print_duration(since, full_ns);
	why_look_process(why, subscriber, &process);
	if (backlog.read)
		snprintf(reads, sizeof(reads), "reads, but slowly");
	else
		snprintf(reads, sizeof(reads), "has not read for %s", since);
	cause = why_add_cause(why, RANK_FULL,
			      "%s%s %s since %s: reliable %s is %" PRIu64 " bytes (%" PRIu64
			      " records) behind and %s; that process %s",
			      why_print_who(who, why, publisher), more,
			      publisher->lane.is_waiting ? "waits for space"
			      : publisher->lane.dropped	 ? "drops records, or is refused,"
							 : "is refused",
			      since, why_print_who(whom, why, subscriber), held->pair->pair.lag_len,
			      held->pair->pair.lag_records, reads, process.text);
	why_set_member(cause, why, publisher);
	why_set_member(cause, why, subscriber);
	why_set_u64(cause, "held_publishers", held->n);
	why_set_u64(cause, "since_ns", full_ns);
	why_set_u64(cause, "lag_bytes", held->pair->pair.lag_len);
	why_set_u64(cause, "lag_records", held->pair->pair.lag_records);
	if (slept_ns)
		why_set_u64(cause, "asleep_ns", slept_ns);
}

static void explain_unread(struct why *why, const struct inspect_item *subscriber,
			   const struct backlog *backlog)
{
	const struct inspect_item *before =
		inspect_find(&why->before, SHMB_ENTRY_SUBSCRIBER, subscriber->entry.id);
	uint64_t slept_ns = asleep_ns(why, subscriber);
	char who[WHY_WHO_LEN], since[WHY_DURATION_LEN];
	struct process process;
	struct cause *cause;
	bool has_slept;

	why_look_process(why, subscriber, &process);
	why_print_who(who, why, subscriber);
	has_slept = slept_ns && !process.is_still && before && before->is_read &&
		    before->cursor.sleep == subscriber->cursor.sleep;
	if (has_slept)
		cause = why_add_cause(why, RANK_SLEPT,
				      "%s has been asleep for %s although %" PRIu64
				      " records (%" PRIu64 " bytes) are there: a wake-up is on its "
				      "way or was lost, it looks again by itself within 5 s; that "
				      "process %s",
				      who, why_print_duration(since, slept_ns), backlog->records,
				      backlog->len, process.text);
	else
		cause = why_add_cause(why, RANK_UNREAD,
				      "%s%s has %" PRIu64 " records (%" PRIu64
				      " bytes) to read and reads none; that process %s",
				      is_lossy(subscriber) ? "lossy " : "", who, backlog->records,
				      backlog->len, process.text);
	why_set_member(cause, why, subscriber);
	why_set_u64(cause, "lag_bytes", backlog->len);
	why_set_u64(cause, "lag_records", backlog->records);
	if (slept_ns)
		why_set_u64(cause, "asleep_ns", slept_ns);
}

static void explain_slow(struct why *why, const struct inspect_item *subscriber,
			 const struct backlog *backlog)
{
	struct process process;
	struct cause *cause;
	char who[WHY_WHO_LEN];

	why_look_process(why, subscriber, &process);
	cause = why_add_cause(why, RANK_SLOW,
			      "%s%s reads, but is %" PRIu64 " records (%" PRIu64
			      " bytes) behind; that process %s",
			      is_lossy(subscriber) ? "lossy " : "",
			      why_print_who(who, why, subscriber), backlog->records, backlog->len,
			      process.text);
	why_set_member(cause, why, subscriber);
	why_set_u64(cause, "lag_bytes", backlog->len);
	why_set_u64(cause, "lag_records", backlog->records);
}

/* Who holds blocks of a publisher that has none left. */
static void judge_holds(struct why *why, const struct inspect_item *subscriber)
{
	const struct inspect_item *publisher = NULL;

	while (subscriber->is_read &&
	       (publisher = inspect_next(&why->now, publisher, SHMB_ENTRY_PUBLISHER,
					 why->channel->entry.id))) {
		char who[WHY_WHO_LEN], whom[WHY_WHO_LEN], since[WHY_DURATION_LEN],
			held[WHY_DURATION_LEN];
		uint64_t len = 0, longest_ns = 0;
		struct process process;
		struct cause *cause;
		uint32_t n = 0;

		for (uint32_t i = 0; i < subscriber->cursor.n_holds; i++) {
			const struct shmb_cursor_hold *hold = &subscriber->cursor.holds[i];
			uint64_t age_ns = why_age_of(hold->since_ns, why->now_ns);

			if (inspect_holdee(&why->now, why->channel->entry.id, hold) != publisher)
				continue;
			len += hold->len;
			longest_ns = age_ns > longest_ns ? age_ns : longest_ns;
			n++;
		}
		if (!n || !publisher->is_read ||
		    (!publisher->lane.is_waiting && !publisher->lane.full_since_ns))
			continue;
		why_look_process(why, subscriber, &process);
		why_print_duration(since, why_age_of(publisher->lane.full_since_ns, why->now_ns));
		cause = why_add_cause(why, RANK_FULL,
				      "%s has had no room since %s: %s holds %" PRIu32
				      " blocks of it (%" PRIu64
				      " bytes), one for %s; that process %s",
				      why_print_who(who, why, publisher), since,
				      why_print_who(whom, why, subscriber), n, len,
				      why_print_duration(held, longest_ns), process.text);
		why_set_member(cause, why, publisher);
		why_set_member(cause, why, subscriber);
		why_set_u64(cause, "held_blocks", n);
		why_set_u64(cause, "held_bytes", len);
		why_set_u64(cause, "held_ns", longest_ns);
	}
}

/* Of one subscriber: how many publishers do not wait for it any more? */
static void explain_evicted(struct why *why, const struct inspect_item *subscriber)
{
	const struct inspect_item *pair = NULL, *publisher, *first = NULL;
	char who[WHY_WHO_LEN], whom[WHY_WHO_LEN], more[64] = "";
	uint64_t lost = 0;
	uint32_t n = 0;
	struct process process;
	struct cause *cause;

	while ((pair = inspect_next(&why->now, pair, SHMB_ENTRY_PAIR,
				    subscriber->entry.channel_id))) {
		if (pair->entry.subscriber_id != subscriber->entry.id || !pair->is_read ||
		    !pair->pair.is_evicted)
			continue;
		publisher = inspect_find(&why->now, SHMB_ENTRY_PUBLISHER, pair->entry.publisher_id);
		if (!publisher)
			continue;
		if (!n++)
			first = publisher;
		lost += pair->pair.lost;
	}
	if (!n)
		return;
	if (n > 1)
		snprintf(more, sizeof(more), " and %" PRIu32 " more", n - 1);
	why_look_process(why, subscriber, &process);
	cause = why_add_cause(why, RANK_EVICTED,
			      "%s%s waited for %s for %" PRIu32
			      " ms and evicted it: it is lossy now, and knows of %" PRIu64
			      " records that it has lost; that process %s",
			      why_print_who(who, why, first), more,
			      why_print_who(whom, why, subscriber),
			      subscriber->entry.evict_after_ms, lost, process.text);
	why_set_member(cause, why, first);
	why_set_member(cause, why, subscriber);
	why_set_u64(cause, "evicting_publishers", n);
	why_set_u64(cause, "lost", lost);
}

static void judge_subscriber(struct why *why, const struct inspect_item *subscriber,
			     const struct inspect_item *const *slowest)
{
	struct held held = held_by(why, subscriber, slowest);
	struct backlog backlog = backlog_of(why, subscriber);

	explain_evicted(why, subscriber);
	judge_holds(why, subscriber);
	if (held.n)
		explain_full(why, subscriber, &held);
	else if (backlog.len && !backlog.read && backlog.is_old)
		explain_unread(why, subscriber, &backlog);
	else if (backlog.worst && backlog.worst->pair.lag_len > why->channel->entry.lane_len / 2)
		explain_slow(why, subscriber, &backlog);
}

void why_judge_subscribers(struct why *why)
{
	const struct inspect_item *publisher = NULL, *subscriber = NULL;
	const struct inspect_item **slowest;
	uint32_t n = 0;

	slowest = calloc(why->sum[1].n_publishers + why->sum[1].n_kept + 1,
			 sizeof(struct inspect_item *));
	if (!slowest)
		return;
	while ((publisher = inspect_next(&why->now, publisher, SHMB_ENTRY_PUBLISHER,
					 why->channel->entry.id)))
		slowest[n++] = slowest_of(why, publisher);
	while ((subscriber = inspect_next(&why->now, subscriber, SHMB_ENTRY_SUBSCRIBER,
					  why->channel->entry.id)))
		judge_subscriber(why, subscriber, slowest);
	free(slowest);
}
