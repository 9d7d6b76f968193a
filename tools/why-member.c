/* SPDX-License-Identifier: Apache-2.0 */

/* Members: who they are, what their processes are doing, and whether they are there at all. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/look.h"
#include "tools/print.h"
#include "tools/why.h"

static const struct inspect_item *client_of(const struct why *why,
					    const struct inspect_item *member)
{
	return inspect_find(&why->now, SHMB_ENTRY_CLIENT, member->entry.client_id);
}

/* "subscriber 17 (pid 4712 aggregate)" */
const char *why_print_who(char text[WHY_WHO_LEN], const struct why *why,
			  const struct inspect_item *member)
{
	const struct inspect_item *client = client_of(why, member);

	if (client)
		snprintf(text, WHY_WHO_LEN, "%s %" PRIu64 " (pid %" PRIu32 " %.*s)",
			 look_role(&why->now, member), member->entry.id, client->entry.pid,
			 (int)client->entry.name_len, (const char *)client->entry.name);
	else
		snprintf(text, WHY_WHO_LEN, "%s %" PRIu64, look_role(&why->now, member),
			 member->entry.id);
	return text;
}

void why_look_process(const struct why *why, const struct inspect_item *member,
		      struct process *process)
{
	const struct inspect_item *client = client_of(why, member);

	*process = (struct process){ .word = "unknown", .text = "is unknown" };
	if (client)
		process_look(process, client->entry.pid, client->entry.process_start);
}

void why_set_member(struct cause *cause, const struct why *why, const struct inspect_item *member)
{
	const struct inspect_item *client = client_of(why, member);
	struct process process;
	json_t *object;

	if (!cause)
		return;
	object = json_object();
	why_look_process(why, member, &process);
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

/* The pair as it was in the first picture, if both of its positions could be read then. */
const struct inspect_item *why_pair_before(const struct why *why, const struct inspect_item *pair)
{
	const struct inspect_item *before =
		inspect_find(&why->before, SHMB_ENTRY_PAIR, pair->entry.id);

	return before && before->is_read ? before : NULL;
}

static void judge_kept(struct why *why, const struct inspect_item *publisher)
{
	const struct inspect_item *pair = NULL;

	while ((pair = inspect_next(&why->now, pair, SHMB_ENTRY_PAIR, why->channel->entry.id))) {
		const struct inspect_item *subscriber;
		struct process process;
		struct cause *cause;
		char who[WHY_WHO_LEN];

		subscriber =
			inspect_find(&why->now, SHMB_ENTRY_SUBSCRIBER, pair->entry.subscriber_id);
		if (pair->entry.publisher_id != publisher->entry.id || !subscriber)
			continue;
		if (inspect_is_kept(subscriber)) {
			cause = why_add_cause(
				why, RANK_KEPT,
				"records that publisher %" PRIu64 " and worker %" PRIu64
				" have left, which have both gone: they wait for a worker",
				publisher->entry.id, subscriber->entry.id);
			why_set_u64(cause, "kept_publisher", publisher->entry.id);
			continue;
		}
		why_look_process(why, subscriber, &process);
		cause = why_add_cause(why, RANK_KEPT,
				      "lane of publisher %" PRIu64
				      ", which has gone (it was pid %" PRIu32 ", uid %" PRIu32
				      "), kept for %s, which has %" PRIu64 " records (%" PRIu64
				      " bytes) of it to read; that process %s",
				      publisher->entry.id, publisher->entry.pid,
				      publisher->entry.uid, why_print_who(who, why, subscriber),
				      pair->pair.lag_records, pair->pair.lag_len, process.text);
		why_set_member(cause, why, subscriber);
		why_set_u64(cause, "kept_publisher", publisher->entry.id);
		why_set_u64(cause, "lag_bytes", pair->pair.lag_len);
		why_set_u64(cause, "lag_records", pair->pair.lag_records);
	}
}

void why_judge_member(struct why *why, const struct inspect_item *member)
{
	char who[WHY_WHO_LEN], since[WHY_DURATION_LEN];
	struct process process;
	struct cause *cause;

	if (inspect_is_kept(member)) {
		if (member->entry.kind == SHMB_ENTRY_PUBLISHER)
			judge_kept(why, member);
		return;
	}
	why_look_process(why, member, &process);
	if (!strcmp(process.word, "gone") || !strcmp(process.word, "zombie"))
		cause = why_add_cause(
			why, RANK_DEAD,
			"%s: that process %s, and the broker has not cleaned up after it",
			why_print_who(who, why, member), process.text);
	else if (!(member->entry.flags & SHMB_MEMBER_ACTIVE))
		cause = why_add_cause(
			why, RANK_JOINING, "%s has been joining for %s; that process %s",
			why_print_who(who, why, member),
			why_print_duration(since, why_age_of(member->entry.created_ns,
							     why_clock_ns(CLOCK_REALTIME))),
			process.text);
	else
		return;
	why_set_member(cause, why, member);
}
