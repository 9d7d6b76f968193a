/* SPDX-License-Identifier: Apache-2.0 */

/* What moves: records, values, calls; or that nothing does, or nobody is there. */

#include <inttypes.h>

#include "tools/why.h"

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
	char who[WHY_WHO_LEN];

	if (!publisher) {
		cause = why_add_cause(why, RANK_IDLE,
				      "nothing is published: none of %" PRIu32
				      " publishers has sent a record just now",
				      sum->n_publishers);
	} else {
		why_look_process(why, publisher, &process);
		cause = why_add_cause(why, RANK_IDLE,
				      "nothing is published: %s has sent no record just now; that "
				      "process %s",
				      why_print_who(who, why, publisher), process.text);
		why_set_member(cause, why, publisher);
	}
	why_set_u64(cause, "records", sum->records);
}

void why_judge_traffic(struct why *why)
{
	const struct inspect_sum *before = &why->sum[0], *now = &why->sum[1];
	uint64_t sent = now->records > before->records ? now->records - before->records : 0;

	if (!now->n_publishers && !now->n_subscribers)
		why_add_cause(why, RANK_ALONE, "nobody is there: no publisher and no subscriber");
	else if (!now->n_publishers)
		why_add_cause(why, RANK_ALONE,
			      "there is no publisher, but %" PRIu32 " subscriber%s",
			      now->n_subscribers, now->n_subscribers == 1 ? "" : "s");
	else if (!now->n_subscribers)
		why_add_cause(why, RANK_ALONE, "%s",
			      why->channel->entry.pattern == SHMB_PATTERN_QUEUE
				      ? "there is no worker: nothing can be sent"
				      : "there is no subscriber: what is published goes to nobody");
	if (now->n_publishers && !sent)
		explain_idle(why);
	else if (sent)
		why_set_u64(why_add_cause(why, RANK_FLOWS,
					  "records flow: %" PRIu64
					  " were published in the last %.1f s",
					  sent, WHY_MOMENT_NS / 1e9),
			    "records", sent);
}

/* Nobody holds anybody up: who puts never waits, and who gets finds what is there. */
void why_judge_values(struct why *why)
{
	const struct inspect_sum *before = &why->sum[0], *now = &why->sum[1];
	uint64_t put = now->records > before->records ? now->records - before->records : 0;
	struct cause *cause;

	if (put)
		cause = why_add_cause(why, RANK_FLOWS,
				      "values change: %" PRIu64 " were put in the last %.1f s", put,
				      WHY_MOMENT_NS / 1e9);
	else
		cause = why_add_cause(
			why, RANK_IDLE,
			"no value was put just now; those that are there can be read");
	why_set_u64(cause, "values", put);
}

/* Who waits for whom is between them; whether anybody is there is not. */
void why_judge_calls(struct why *why)
{
	const struct inspect_sum *before = &why->sum[0], *now = &why->sum[1];
	uint32_t n_callers = now->n_subscribers - now->n_servers;
	uint64_t sent = now->records > before->records ? now->records - before->records : 0;

	if (!now->n_subscribers)
		why_add_cause(why, RANK_ALONE, "nobody is there: no caller and no server");
	else if (!now->n_servers)
		why_add_cause(why, RANK_ALONE, "there is no server, but %" PRIu32 " caller%s",
			      n_callers, n_callers == 1 ? "" : "s");
	else if (!n_callers)
		why_add_cause(why, RANK_ALONE, "there is no caller");
	if (sent)
		why_set_u64(why_add_cause(why, RANK_FLOWS,
					  "calls flow: %" PRIu64
					  " requests and replies were sent in the "
					  "last %.1f s",
					  sent, WHY_MOMENT_NS / 1e9),
			    "records", sent);
	else if (now->n_servers && n_callers)
		why_add_cause(why, RANK_IDLE, "no request and no reply was sent just now");
}
