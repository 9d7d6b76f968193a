/* SPDX-License-Identifier: Apache-2.0 */

/* Workers of a queue: what they have in work, and the publishers that wait for them. */

#include <inttypes.h>

#include "tools/why.h"

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
		const struct inspect_item *before = why_pair_before(why, pair);

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
	uint64_t since_ns = why_age_of(publisher->lane.full_since_ns, why->now_ns);
	char who[WHY_WHO_LEN], whom[WHY_WHO_LEN], since[WHY_DURATION_LEN];
	struct process process;
	struct cause *cause;

	if (load.oldest)
		worker = inspect_find(&why->now, SHMB_ENTRY_SUBSCRIBER,
				      load.oldest->entry.subscriber_id);
	why_print_duration(since, since_ns);
	if (worker) {
		why_look_process(why, worker, &process);
		cause = why_add_cause(why, RANK_FULL,
				      "%s %s since %s: no worker has credit; %" PRIu64
				      " records are in work, the oldest at %s; that process %s",
				      why_print_who(who, why, publisher),
				      publisher->lane.is_waiting ? "waits" : "is refused", since,
				      load.in_work, why_print_who(whom, why, worker), process.text);
		why_set_member(cause, why, worker);
	} else {
		cause = why_add_cause(
			why, RANK_FULL, "%s %s since %s: %s", why_print_who(who, why, publisher),
			publisher->lane.is_waiting ? "waits" : "is refused", since,
			load.n_workers ? "no worker takes its records" : "there is no worker");
	}
	why_set_member(cause, why, publisher);
	why_set_u64(cause, "since_ns", since_ns);
	why_set_u64(cause, "in_work", load.in_work);
}

void why_judge_workers(struct why *why)
{
	const struct inspect_item *member = NULL;
	struct process process;
	struct cause *cause;
	char who[WHY_WHO_LEN];

	while ((member = inspect_next(&why->now, member, SHMB_ENTRY_PUBLISHER,
				      why->channel->entry.id)))
		if (member->is_read && !inspect_is_kept(member) && member->lane.full_since_ns)
			explain_no_credit(why, member);
	while ((member = inspect_next(&why->now, member, SHMB_ENTRY_SUBSCRIBER,
				      why->channel->entry.id))) {
		struct load load = load_of(why, NULL, member);

		if (inspect_is_kept(member) || !load.in_work || load.moves)
			continue;
		why_look_process(why, member, &process);
		cause = why_add_cause(why, RANK_SLOW,
				      "%s has %" PRIu64
				      " records in work and has done none just now; "
				      "that process %s",
				      why_print_who(who, why, member), load.in_work, process.text);
		why_set_member(cause, why, member);
		why_set_u64(cause, "in_work", load.in_work);
	}
}
