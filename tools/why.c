/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl why: who or what holds a channel up, in sentences. Two pictures, a moment apart, tell what
 * moves; registry, lanes and cursors who waits for whom; /proc what the process is doing.
 */

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/command.h"
#include "tools/inspect.h"
#include "tools/look.h"
#include "tools/print.h"
#include "tools/process.h"

#define MOMENT_NS    200000000
#define CAUSE_LEN    1024
#define CAUSES_MAX   16
#define WHO_LEN	     256
#define DURATION_LEN 32

/* From the most important on. */
enum rank {
	RANK_FULL, /* a publisher has no space */
	RANK_DEAD, /* a member whose process has ended */
	RANK_SLEPT, /* asleep, although there are records */
	RANK_EVICTED, /* held a publisher up for too long: is lossy now */
	RANK_UNREAD, /* does not read what is there */
	RANK_BROKER,
	RANK_KEPT, /* what a publisher that has gone has left waits for somebody */
	RANK_JOINING,
	RANK_ALONE, /* no publisher, or no subscriber */
	RANK_SLOW, /* reads, but is far behind; has work that it does not get done */
	RANK_IDLE, /* nothing is published */
	RANK_FLOWS,
};

static const char *const rank_names[] = {
	"full", "dead",	   "slept", "evicted", "unread", "broker",
	"kept", "joining", "alone", "slow",    "idle",	 "flows"
};

/**
 * struct cause - one of the things that can hold a channel up
 * @rank: how important
 * @text: sentence, not escaped
 * @json: the same in parts
 */
struct cause {
	enum rank rank;
	char text[CAUSE_LEN];
	json_t *json;
};

/**
 * struct why - what is found out about a channel
 * @now:      the second picture
 * @before:   the first one
 * @channel:  in @now
 * @sum:      of @channel, now and before
 * @causes:   sorted by rank in the end
 * @n_causes: of @causes
 * @now_ns:   CLOCK_MONOTONIC of @now
 */
struct why {
	struct inspect now;
	struct inspect before;
	const struct inspect_item *channel;
	struct inspect_sum sum[2];
	struct cause causes[CAUSES_MAX];
	uint32_t n_causes;
	uint64_t now_ns;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static const char *print_duration(char text[DURATION_LEN], uint64_t ns)
{
	double seconds = (double)ns / 1e9;

	if (seconds < 120)
		snprintf(text, DURATION_LEN, "%.1f s", seconds);
	else if (seconds < 7200)
		snprintf(text, DURATION_LEN, "%.0f min", seconds / 60);
	else
		snprintf(text, DURATION_LEN, "%.1f h", seconds / 3600);
	return text;
}

/* 0: a time that was never noted, or that a liar has noted. */
static uint64_t age_of(uint64_t then_ns, uint64_t now_ns)
{
	return then_ns && then_ns <= now_ns ? now_ns - then_ns : 0;
}

/* Returns NULL if there are enough that matter more. What comes first of a rank stays first. */
__attribute__((__format__(__printf__, 3, 4))) static struct cause *
add_cause(struct why *why, enum rank rank, const char *format, ...)
{
	struct cause *cause;
	va_list args;

	if (why->n_causes == CAUSES_MAX && why->causes[CAUSES_MAX - 1].rank <= rank)
		return NULL;
	if (why->n_causes == CAUSES_MAX)
		json_decref(why->causes[--why->n_causes].json);
	cause = &why->causes[why->n_causes];
	while (cause > why->causes && cause[-1].rank > rank) {
		*cause = cause[-1];
		cause--;
	}
	why->n_causes++;
	*cause = (struct cause){ .rank = rank, .json = json_object() };
	va_start(args, format);
	vsnprintf(cause->text, sizeof(cause->text), format, args);
	va_end(args);
	json_object_set_new(cause->json, "cause", json_string(rank_names[rank]));
	json_object_set_new(cause->json, "sentence",
			    print_json_text(cause->text, strlen(cause->text)));
	return cause;
}

static void set_u64(struct cause *cause, const char *name, uint64_t value)
{
	if (cause)
		json_object_set_new(cause->json, name, print_json_u64(value));
}

/* ---- members and their processes --------------------------------------------------------------- */

static const struct inspect_item *client_of(const struct why *why,
					    const struct inspect_item *member)
{
	return inspect_find(&why->now, SHMB_ENTRY_CLIENT, member->entry.client_id);
}

/* "subscriber 17 (pid 4712 aggregate)" */
static const char *print_who(char text[WHO_LEN], const struct why *why,
			     const struct inspect_item *member)
{
	const struct inspect_item *client = client_of(why, member);

	if (client)
		snprintf(text, WHO_LEN, "%s %" PRIu64 " (pid %" PRIu32 " %.*s)",
			 look_role(&why->now, member), member->entry.id, client->entry.pid,
			 (int)client->entry.name_len, (const char *)client->entry.name);
	else
		snprintf(text, WHO_LEN, "%s %" PRIu64, look_role(&why->now, member),
			 member->entry.id);
	return text;
}

static void look_process(const struct why *why, const struct inspect_item *member,
			 struct process *process)
{
	const struct inspect_item *client = client_of(why, member);

	*process = (struct process){ .word = "unknown", .text = "is unknown" };
	if (client)
		process_look(process, client->entry.pid, client->entry.process_start);
}

static void set_member(struct cause *cause, const struct why *why,
		       const struct inspect_item *member)
{
	const struct inspect_item *client = client_of(why, member);
	struct process process;
	json_t *object;

	if (!cause)
		return;
	object = json_object();
	look_process(why, member, &process);
	json_object_set_new(object, "id", print_json_u64(member->entry.id));
	if (client) {
		json_object_set_new(object, "pid", print_json_u64(client->entry.pid));
		json_object_set_new(object, "label",
				    print_json_text(client->entry.name, client->entry.name_len));
	}
	json_object_set_new(object, "process", json_string(process.word));
	json_object_set_new(object, "doing", print_json_text(process.text, strlen(process.text)));
	json_object_set_new(cause->json, look_role(&why->now, member), object);
}

/* ---- who is behind whom ------------------------------------------------------------------------- */

static bool is_lossy(const struct inspect_item *subscriber)
{
	return subscriber->entry.flags & SHMB_MEMBER_LOSSY;
}

/* The pair as it was in the first picture, if both of its positions could be read then. */
static const struct inspect_item *pair_before(const struct why *why,
					      const struct inspect_item *pair)
{
	const struct inspect_item *before =
		inspect_find(&why->before, SHMB_ENTRY_PAIR, pair->entry.id);

	return before && before->is_read ? before : NULL;
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
		const struct inspect_item *before = pair_before(why, pair);

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
		       ? age_of(subscriber->cursor.updated_ns, why->now_ns)
		       : 0;
}

/* ---- publishers that have no space --------------------------------------------------------------- */

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
	char who[WHO_LEN], whom[WHO_LEN], since[DURATION_LEN], more[64] = "", reads[128];
	const struct inspect_item *publisher = held->publisher;
	struct backlog backlog = backlog_of(why, subscriber);
	uint64_t full_ns = age_of(publisher->lane.full_since_ns, why->now_ns);
	uint64_t slept_ns = asleep_ns(why, subscriber);
	struct process process;
	struct cause *cause;

	if (held->n > 1)
		snprintf(more, sizeof(more), " and %" PRIu32 " more", held->n - 1);
	print_duration(since, full_ns);
	look_process(why, subscriber, &process);
	if (backlog.read)
		snprintf(reads, sizeof(reads), "reads, but slowly");
	else
		snprintf(reads, sizeof(reads), "has not read for %s", since);
	cause = add_cause(why, RANK_FULL,
			  "%s%s %s since %s: reliable %s is %" PRIu64 " bytes (%" PRIu64
			  " records) behind and %s; that process %s",
			  print_who(who, why, publisher), more,
			  publisher->lane.is_waiting ? "waits for space"
			  : publisher->lane.dropped  ? "drops records, or is refused,"
						     : "is refused",
			  since, print_who(whom, why, subscriber), held->pair->pair.lag_len,
			  held->pair->pair.lag_records, reads, process.text);
	set_member(cause, why, publisher);
	set_member(cause, why, subscriber);
	set_u64(cause, "held_publishers", held->n);
	set_u64(cause, "since_ns", full_ns);
	set_u64(cause, "lag_bytes", held->pair->pair.lag_len);
	set_u64(cause, "lag_records", held->pair->pair.lag_records);
	if (slept_ns)
		set_u64(cause, "asleep_ns", slept_ns);
}

/* ---- subscribers --------------------------------------------------------------------------------- */

static void explain_unread(struct why *why, const struct inspect_item *subscriber,
			   const struct backlog *backlog)
{
	const struct inspect_item *before =
		inspect_find(&why->before, SHMB_ENTRY_SUBSCRIBER, subscriber->entry.id);
	uint64_t slept_ns = asleep_ns(why, subscriber);
	char who[WHO_LEN], since[DURATION_LEN];
	struct process process;
	struct cause *cause;
	bool has_slept;

	look_process(why, subscriber, &process);
	print_who(who, why, subscriber);
	has_slept = slept_ns && !process.is_still && before && before->is_read &&
		    before->cursor.sleep == subscriber->cursor.sleep;
	if (has_slept)
		cause = add_cause(why, RANK_SLEPT,
				  "%s has been asleep for %s although %" PRIu64 " records (%" PRIu64
				  " bytes) are there: a wake-up is on its "
				  "way or was lost, it looks again by itself within 5 s; that "
				  "process %s",
				  who, print_duration(since, slept_ns), backlog->records,
				  backlog->len, process.text);
	else
		cause = add_cause(why, RANK_UNREAD,
				  "%s%s has %" PRIu64 " records (%" PRIu64
				  " bytes) to read and reads none; that process %s",
				  is_lossy(subscriber) ? "lossy " : "", who, backlog->records,
				  backlog->len, process.text);
	set_member(cause, why, subscriber);
	set_u64(cause, "lag_bytes", backlog->len);
	set_u64(cause, "lag_records", backlog->records);
	if (slept_ns)
		set_u64(cause, "asleep_ns", slept_ns);
}

static void explain_slow(struct why *why, const struct inspect_item *subscriber,
			 const struct backlog *backlog)
{
	struct process process;
	struct cause *cause;
	char who[WHO_LEN];

	look_process(why, subscriber, &process);
	cause = add_cause(why, RANK_SLOW,
			  "%s%s reads, but is %" PRIu64 " records (%" PRIu64
			  " bytes) behind; that process %s",
			  is_lossy(subscriber) ? "lossy " : "", print_who(who, why, subscriber),
			  backlog->records, backlog->len, process.text);
	set_member(cause, why, subscriber);
	set_u64(cause, "lag_bytes", backlog->len);
	set_u64(cause, "lag_records", backlog->records);
}

/* Who holds blocks of a publisher that has none left. */
static void judge_holds(struct why *why, const struct inspect_item *subscriber)
{
	const struct inspect_item *publisher = NULL;

	while (subscriber->is_read &&
	       (publisher = inspect_next(&why->now, publisher, SHMB_ENTRY_PUBLISHER,
					 why->channel->entry.id))) {
		char who[WHO_LEN], whom[WHO_LEN], since[DURATION_LEN], held[DURATION_LEN];
		uint64_t len = 0, longest_ns = 0;
		struct process process;
		struct cause *cause;
		uint32_t n = 0;

		for (uint32_t i = 0; i < subscriber->cursor.n_holds; i++) {
			const struct shmb_cursor_hold *hold = &subscriber->cursor.holds[i];
			uint64_t age_ns = age_of(hold->since_ns, why->now_ns);

			if (inspect_holdee(&why->now, why->channel->entry.id, hold) != publisher)
				continue;
			len += hold->len;
			longest_ns = age_ns > longest_ns ? age_ns : longest_ns;
			n++;
		}
		if (!n || !publisher->is_read ||
		    (!publisher->lane.is_waiting && !publisher->lane.full_since_ns))
			continue;
		look_process(why, subscriber, &process);
		print_duration(since, age_of(publisher->lane.full_since_ns, why->now_ns));
		cause = add_cause(why, RANK_FULL,
				  "%s has had no room since %s: %s holds %" PRIu32
				  " blocks of it (%" PRIu64 " bytes), one for %s; that process %s",
				  print_who(who, why, publisher), since,
				  print_who(whom, why, subscriber), n, len,
				  print_duration(held, longest_ns), process.text);
		set_member(cause, why, publisher);
		set_member(cause, why, subscriber);
		set_u64(cause, "held_blocks", n);
		set_u64(cause, "held_bytes", len);
		set_u64(cause, "held_ns", longest_ns);
	}
}

/* Of one subscriber: how many publishers do not wait for it any more? */
static void explain_evicted(struct why *why, const struct inspect_item *subscriber)
{
	const struct inspect_item *pair = NULL, *publisher, *first = NULL;
	char who[WHO_LEN], whom[WHO_LEN], more[64] = "";
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
	look_process(why, subscriber, &process);
	cause = add_cause(why, RANK_EVICTED,
			  "%s%s waited for %s for %" PRIu32
			  " ms and evicted it: it is lossy now, and knows of %" PRIu64
			  " records that it has lost; that process %s",
			  print_who(who, why, first), more, print_who(whom, why, subscriber),
			  subscriber->entry.evict_after_ms, lost, process.text);
	set_member(cause, why, first);
	set_member(cause, why, subscriber);
	set_u64(cause, "evicting_publishers", n);
	set_u64(cause, "lost", lost);
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

static void judge_subscribers(struct why *why)
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

/* ---- workers ------------------------------------------------------------------------------------- */

/* What one worker, or all, have of one publisher, or of all. NULL: any. */
struct load {
	const struct inspect_item *oldest; /* pair of the record in work that is furthest back */
	uint32_t n_workers;
	uint64_t in_work;
	bool moves; /* something has been done meanwhile */
};

static struct load load_of(const struct why *why, const struct inspect_item *publisher,
			   const struct inspect_item *worker)
{
	const struct inspect_item *pair = NULL;
	struct load load = { 0 };

	while ((pair = inspect_next(&why->now, pair, SHMB_ENTRY_PAIR, why->channel->entry.id))) {
		const struct inspect_item *before = pair_before(why, pair);

		if ((publisher && pair->entry.publisher_id != publisher->entry.id) ||
		    (worker && pair->entry.subscriber_id != worker->entry.id) || !pair->is_read)
			continue;
		load.n_workers++;
		load.in_work += pair->pair.in_work;
		load.moves |= !before || before->pair.done != pair->pair.done;
		if (pair->pair.in_work &&
		    (!load.oldest || pair->pair.lag_len > load.oldest->pair.lag_len))
			load.oldest = pair;
	}
	return load;
}

/* A publisher that nobody takes anything from. */
static void explain_no_credit(struct why *why, const struct inspect_item *publisher)
{
	struct load load = load_of(why, publisher, NULL);
	const struct inspect_item *worker = NULL;
	uint64_t since_ns = age_of(publisher->lane.full_since_ns, why->now_ns);
	char who[WHO_LEN], whom[WHO_LEN], since[DURATION_LEN];
	struct process process;
	struct cause *cause;

	if (load.oldest)
		worker = inspect_find(&why->now, SHMB_ENTRY_SUBSCRIBER,
				      load.oldest->entry.subscriber_id);
	print_duration(since, since_ns);
	if (worker) {
		look_process(why, worker, &process);
		cause = add_cause(why, RANK_FULL,
				  "%s %s since %s: no worker has credit; %" PRIu64
				  " records are in work, the oldest at %s; that process %s",
				  print_who(who, why, publisher),
				  publisher->lane.is_waiting ? "waits" : "is refused", since,
				  load.in_work, print_who(whom, why, worker), process.text);
		set_member(cause, why, worker);
	} else {
		cause = add_cause(
			why, RANK_FULL, "%s %s since %s: %s", print_who(who, why, publisher),
			publisher->lane.is_waiting ? "waits" : "is refused", since,
			load.n_workers ? "no worker takes its records" : "there is no worker");
	}
	set_member(cause, why, publisher);
	set_u64(cause, "since_ns", since_ns);
	set_u64(cause, "in_work", load.in_work);
}

static void judge_workers(struct why *why)
{
	const struct inspect_item *member = NULL;
	struct process process;
	struct cause *cause;
	char who[WHO_LEN];

	while ((member = inspect_next(&why->now, member, SHMB_ENTRY_PUBLISHER,
				      why->channel->entry.id)))
		if (member->is_read && !inspect_is_kept(member) && member->lane.full_since_ns)
			explain_no_credit(why, member);
	while ((member = inspect_next(&why->now, member, SHMB_ENTRY_SUBSCRIBER,
				      why->channel->entry.id))) {
		struct load load = load_of(why, NULL, member);

		if (inspect_is_kept(member) || !load.in_work || load.moves)
			continue;
		look_process(why, member, &process);
		cause = add_cause(why, RANK_SLOW,
				  "%s has %" PRIu64 " records in work and has done none just now; "
				  "that process %s",
				  print_who(who, why, member), load.in_work, process.text);
		set_member(cause, why, member);
		set_u64(cause, "in_work", load.in_work);
	}
}

/* ---- lanes that are kept -------------------------------------------------------------------------- */

static void judge_kept(struct why *why, const struct inspect_item *publisher)
{
	const struct inspect_item *pair = NULL;

	while ((pair = inspect_next(&why->now, pair, SHMB_ENTRY_PAIR, why->channel->entry.id))) {
		const struct inspect_item *subscriber;
		struct process process;
		struct cause *cause;
		char who[WHO_LEN];

		subscriber =
			inspect_find(&why->now, SHMB_ENTRY_SUBSCRIBER, pair->entry.subscriber_id);
		if (pair->entry.publisher_id != publisher->entry.id || !subscriber)
			continue;
		if (inspect_is_kept(subscriber)) {
			cause = add_cause(
				why, RANK_KEPT,
				"records that publisher %" PRIu64 " and worker %" PRIu64
				" have left, which have both gone: they wait for a worker",
				publisher->entry.id, subscriber->entry.id);
			set_u64(cause, "kept_publisher", publisher->entry.id);
			continue;
		}
		look_process(why, subscriber, &process);
		cause = add_cause(why, RANK_KEPT,
				  "lane of publisher %" PRIu64
				  ", which has gone (it was pid %" PRIu32 ", uid %" PRIu32
				  "), kept for %s, which has %" PRIu64 " records (%" PRIu64
				  " bytes) of it to read; that process %s",
				  publisher->entry.id, publisher->entry.pid, publisher->entry.uid,
				  print_who(who, why, subscriber), pair->pair.lag_records,
				  pair->pair.lag_len, process.text);
		set_member(cause, why, subscriber);
		set_u64(cause, "kept_publisher", publisher->entry.id);
		set_u64(cause, "lag_bytes", pair->pair.lag_len);
		set_u64(cause, "lag_records", pair->pair.lag_records);
	}
}

/* ---- the others ---------------------------------------------------------------------------------- */

static void judge_member(struct why *why, const struct inspect_item *member)
{
	char who[WHO_LEN], since[DURATION_LEN];
	struct process process;
	struct cause *cause;

	if (inspect_is_kept(member)) {
		if (member->entry.kind == SHMB_ENTRY_PUBLISHER)
			judge_kept(why, member);
		return;
	}
	look_process(why, member, &process);
	if (!strcmp(process.word, "gone") || !strcmp(process.word, "zombie"))
		cause = add_cause(why, RANK_DEAD,
				  "%s: that process %s, and the broker has not cleaned up after it",
				  print_who(who, why, member), process.text);
	else if (!(member->entry.flags & SHMB_MEMBER_ACTIVE))
		cause = add_cause(why, RANK_JOINING, "%s has been joining for %s; that process %s",
				  print_who(who, why, member),
				  print_duration(since, age_of(member->entry.created_ns,
							       clock_ns(CLOCK_REALTIME))),
				  process.text);
	else
		return;
	set_member(cause, why, member);
}

static void judge_broker(struct why *why)
{
	struct process process;
	struct cause *cause = NULL;
	uint32_t pid = why->now.head.broker_pid;

	if (common.registry)
		return;
	process_look(&process, pid, 0);
	if (!look_broker()) {
		add_cause(why, RANK_BROKER,
			  "no broker runs: nobody joins, leaves or is cleaned up until a client "
			  "starts one; records flow on");
		return;
	}
	if (process.is_still && strcmp(process.word, "gone") != 0)
		cause = add_cause(why, RANK_BROKER,
				  "the broker (pid %" PRIu32 ") %s: nobody joins, leaves or is "
				  "cleaned up; records flow on",
				  pid, process.text);
	set_u64(cause, "pid", pid);
}

/* The only one on the channel, to be named in a sentence; NULL if there are more. */
static const struct inspect_item *only_one(const struct why *why, uint32_t kind, uint32_t n)
{
	const struct inspect_item *item = NULL;

	if (n != 1)
		return NULL;
	do
		item = inspect_next(&why->now, item, kind, why->channel->entry.id);
	while (item && inspect_is_kept(item));
	return item;
}

static void explain_idle(struct why *why)
{
	const struct inspect_sum *sum = &why->sum[1];
	const struct inspect_item *publisher =
		only_one(why, SHMB_ENTRY_PUBLISHER, sum->n_publishers);
	struct process process;
	struct cause *cause;
	char who[WHO_LEN];

	if (!publisher) {
		cause = add_cause(why, RANK_IDLE,
				  "nothing is published: none of %" PRIu32
				  " publishers has sent a record just now",
				  sum->n_publishers);
	} else {
		look_process(why, publisher, &process);
		cause = add_cause(why, RANK_IDLE,
				  "nothing is published: %s has sent no record just now; that "
				  "process %s",
				  print_who(who, why, publisher), process.text);
		set_member(cause, why, publisher);
	}
	set_u64(cause, "records", sum->records);
}

static void judge_traffic(struct why *why)
{
	const struct inspect_sum *before = &why->sum[0], *now = &why->sum[1];
	uint64_t sent = now->records > before->records ? now->records - before->records : 0;

	if (!now->n_publishers && !now->n_subscribers)
		add_cause(why, RANK_ALONE, "nobody is there: no publisher and no subscriber");
	else if (!now->n_publishers)
		add_cause(why, RANK_ALONE, "there is no publisher, but %" PRIu32 " subscriber%s",
			  now->n_subscribers, now->n_subscribers == 1 ? "" : "s");
	else if (!now->n_subscribers)
		add_cause(why, RANK_ALONE, "%s",
			  why->channel->entry.pattern == SHMB_PATTERN_QUEUE
				  ? "there is no worker: nothing can be sent"
				  : "there is no subscriber: what is published goes to nobody");
	if (now->n_publishers && !sent)
		explain_idle(why);
	else if (sent)
		set_u64(add_cause(why, RANK_FLOWS,
				  "records flow: %" PRIu64 " were published in the last %.1f s",
				  sent, MOMENT_NS / 1e9),
			"records", sent);
}

/* Nobody holds anybody up: who puts never waits, and who gets finds what is there. */
static void judge_values(struct why *why)
{
	const struct inspect_sum *before = &why->sum[0], *now = &why->sum[1];
	uint64_t put = now->records > before->records ? now->records - before->records : 0;
	struct cause *cause;

	if (put)
		cause = add_cause(why, RANK_FLOWS,
				  "values change: %" PRIu64 " were put in the last %.1f s", put,
				  MOMENT_NS / 1e9);
	else
		cause = add_cause(why, RANK_IDLE,
				  "no value was put just now; those that are there can be read");
	set_u64(cause, "values", put);
}

/* Who waits for whom is between them; whether anybody is there is not. */
static void judge_calls(struct why *why)
{
	const struct inspect_sum *before = &why->sum[0], *now = &why->sum[1];
	uint32_t n_callers = now->n_subscribers - now->n_servers;
	uint64_t sent = now->records > before->records ? now->records - before->records : 0;

	if (!now->n_subscribers)
		add_cause(why, RANK_ALONE, "nobody is there: no caller and no server");
	else if (!now->n_servers)
		add_cause(why, RANK_ALONE, "there is no server, but %" PRIu32 " caller%s",
			  n_callers, n_callers == 1 ? "" : "s");
	else if (!n_callers)
		add_cause(why, RANK_ALONE, "there is no caller");
	if (sent)
		set_u64(add_cause(why, RANK_FLOWS,
				  "calls flow: %" PRIu64 " requests and replies were sent in the "
				  "last %.1f s",
				  sent, MOMENT_NS / 1e9),
			"records", sent);
	else if (now->n_servers && n_callers)
		add_cause(why, RANK_IDLE, "no request and no reply was sent just now");
}

static void judge(struct why *why)
{
	bool is_state = why->channel->entry.pattern == SHMB_PATTERN_STATE;
	bool is_call = why->channel->entry.pattern == SHMB_PATTERN_CALL;
	const struct inspect_item *member = NULL;

	if (why->channel->entry.pattern == SHMB_PATTERN_QUEUE)
		judge_workers(why);
	else if (!is_state)
		judge_subscribers(why);
	while ((member = inspect_next(&why->now, member, SHMB_ENTRY_PUBLISHER,
				      why->channel->entry.id)))
		judge_member(why, member);
	while ((member = inspect_next(&why->now, member, SHMB_ENTRY_SUBSCRIBER,
				      why->channel->entry.id)))
		judge_member(why, member);
	judge_broker(why);
	if (is_state)
		judge_values(why);
	else if (is_call)
		judge_calls(why);
	else
		judge_traffic(why);
	/* A lane that is full says already that nothing is published. */
	if (why->n_causes > 1 && why->causes[0].rank == RANK_FULL &&
	    why->causes[why->n_causes - 1].rank == RANK_IDLE)
		json_decref(why->causes[--why->n_causes].json);
}

/* ---- the command --------------------------------------------------------------------------------- */

static int print_causes(struct why *why)
{
	const struct shmb_registry_entry *entry = &why->channel->entry;
	json_t *root, *causes;

	if (!common.is_json) {
		for (uint32_t i = 0; i < why->n_causes; i++) {
			print_safe(stdout, "%s", why->causes[i].text);
			putchar('\n');
			json_decref(why->causes[i].json);
		}
		return 0;
	}
	root = json_object();
	causes = json_array();
	json_object_set_new(root, "name", print_json_text(entry->name, entry->name_len));
	for (uint32_t i = 0; i < why->n_causes; i++)
		json_array_append_new(causes, why->causes[i].json);
	json_object_set_new(root, "causes", causes);
	return print_json(root, JSON_INDENT(2));
}

/* The second picture, and what both say of the channel. Returns 0 or 1. */
static int look_twice(struct why *why, const char *name)
{
	const struct timespec moment = { .tv_nsec = MOMENT_NS };
	const struct inspect_item *before = inspect_channel(&why->before, name);

	if (!before) {
		complain("there is no channel '%s'", name);
		return 1;
	}
	nanosleep(&moment, NULL);
	if (look_again(&why->now)) {
		complain("%s", why->now.why);
		return 1;
	}
	why->now_ns = clock_ns(CLOCK_MONOTONIC);
	why->channel = inspect_find(&why->now, SHMB_ENTRY_CHANNEL, before->entry.id);
	if (why->channel) {
		inspect_sum(&why->before, before, &why->sum[0]);
		inspect_sum(&why->now, why->channel, &why->sum[1]);
		return 0;
	}
	complain("the channel '%s' has just been closed", name);
	inspect_close(&why->now);
	return 1;
}

int command_why(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = command_parse_channel,
		.args_doc = "CHANNEL",
		.doc = "Say who or what holds a channel up, a sentence a line, the most important "
		       "first.\vIt looks twice, a fifth of a second apart, and at what the "
		       "processes are doing.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};
	static struct why why;
	const char *name = NULL;
	int status;

	argp_parse(&argp, argc, argv, 0, NULL, &name);
	if (look_open(&why.before))
		return 1;
	status = look_twice(&why, name);
	if (status == 0) {
		judge(&why);
		status = print_causes(&why);
		status |= look_complain_about(&why.now, why.channel);
		inspect_close(&why.now);
	}
	inspect_close(&why.before);
	return status;
}
