/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl why: who or what holds a channel up, in sentences. Two pictures, a moment apart, tell what
 * moves; registry, lanes and cursors who waits for whom; /proc what the process is doing.
 */

#include "tools/why.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "tools/command.h"
#include "tools/look.h"
#include "tools/print.h"

static void judge_broker(struct why *why)
{
	struct process process;
	struct cause *cause = NULL;
	uint32_t pid = why->now.head.broker_pid;

	if (common.registry)
		return;
	process_look(&process, pid, 0);
	if (!look_broker()) {
		why_add_cause(
			why, RANK_BROKER,
			"no broker runs: nobody joins, leaves or is cleaned up until a client "
			"starts one; records flow on");
		return;
	}
	if (process.is_still && strcmp(process.word, "gone") != 0)
		cause = why_add_cause(why, RANK_BROKER,
				      "the broker (pid %" PRIu32 ") %s: nobody joins, leaves or is "
				      "cleaned up; records flow on",
				      pid, process.text);
	why_set_u64(cause, "pid", pid);
}

static void judge(struct why *why)
{
	bool is_state = why->channel->entry.pattern == SHMB_PATTERN_STATE;
	bool is_call = why->channel->entry.pattern == SHMB_PATTERN_CALL;
	const struct inspect_item *member = NULL;

	if (why->channel->entry.pattern == SHMB_PATTERN_QUEUE)
		why_judge_workers(why);
	else if (!is_state)
		why_judge_subscribers(why);
	while ((member = inspect_next(&why->now, member, SHMB_ENTRY_PUBLISHER,
				      why->channel->entry.id)))
		why_judge_member(why, member);
	while ((member = inspect_next(&why->now, member, SHMB_ENTRY_SUBSCRIBER,
				      why->channel->entry.id)))
		why_judge_member(why, member);
	judge_broker(why);
	if (is_state)
		why_judge_values(why);
	else if (is_call)
		why_judge_calls(why);
	else
		why_judge_traffic(why);
	/* A lane that is full says already that nothing is published. */
	if (why->n_causes > 1 && why->causes[0].rank == RANK_FULL &&
	    why->causes[why->n_causes - 1].rank == RANK_IDLE)
		json_decref(why->causes[--why->n_causes].json);
}

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
	const struct timespec moment = { .tv_nsec = WHY_MOMENT_NS };
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
	why->now_ns = why_clock_ns(CLOCK_MONOTONIC);
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
