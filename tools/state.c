/* SPDX-License-Identifier: Apache-2.0 */

/* shmctl get, set and watch: the keys of a state channel. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/layout.h>

#include "tools/command.h"
#include "tools/decode.h"
#include "tools/print.h"

enum {
	KEY_HOLD = 0x200,
	KEY_RETAIN,
	KEY_MAX_KEYS,
	KEY_VALUE_LEN,
};

/**
 * struct state_tool - one run of a command
 * @channel:	name
 * @keys:	from the command line; set: key and value
 * @n_keys:	of them
 * @limit:	watch: end after so many changes, 0: never
 * @timeout_ns:	watch: fail when nothing changes for so long
 * @max_keys, @value_len: set: of a new channel
 * @hold:	set: stay
 * @retain:	set: the channel shall stay
 * @client, @handle, @subscriber, @publisher: opened
 * @info:	of the channel
 * @is_typed:	values are described by @decode
 * @value:	room for one
 */
struct state_tool {
	const char *channel;
	char **keys;
	int n_keys;
	uint64_t limit;
	int64_t timeout_ns;
	bool hold;
	bool retain;
	uint32_t max_keys;
	uint32_t value_len;
	struct shmb_client *client;
	struct shmb_channel *handle;
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publisher;
	struct shmb_channel_info info;
	bool is_typed;
	struct decode decode;
	uint8_t *value;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct state_tool *tool = state->input;

	switch (key) {
	case 'n':
		tool->limit = command_number(state, "--count", arg, 1, UINT64_MAX);
		return 0;
	case 't':
		tool->timeout_ns = (int64_t)(command_seconds(state, "--timeout", arg) * 1e9);
		return 0;
	case KEY_HOLD:
		tool->hold = true;
		return 0;
	case KEY_RETAIN:
		tool->retain = true;
		return 0;
	case KEY_MAX_KEYS:
		tool->max_keys =
			(uint32_t)command_number(state, "--max-keys", arg, 1, SHMB_STATE_KEYS_MAX);
		return 0;
	case KEY_VALUE_LEN:
		tool->value_len =
			(uint32_t)command_number(state, "--value-len", arg, 1, SHMB_CELL_LEN_MAX);
		return 0;
	case ARGP_KEY_ARG:
		if (!tool->channel)
			tool->channel = arg;
		else
			tool->keys[tool->n_keys++] = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which channel?");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int open_channel(struct state_tool *tool, uint32_t flags)
{
	struct shmb_channel_options options = {
		.options_len = sizeof(options),
		.flags = SHMB_CHANNEL_ANY_SCHEMA | flags,
		.pattern = SHMB_CHANNEL_STATE,
		.max_keys = tool->max_keys,
		.value_len = tool->value_len,
	};
	char schema[SHMB_SCHEMA_LEN_MAX];
	int32_t r;

	if (command_connect(&tool->client))
		return 1;
	r = shmb_channel_open(tool->client, tool->channel, (uint32_t)strlen(tool->channel),
			      &options, &tool->handle);
	if (r < 0)
		return command_failed("cannot open the channel", r);
	shmb_channel_info(tool->handle, &tool->info, sizeof(tool->info));
	r = shmb_channel_schema(tool->handle, schema, sizeof(schema));
	if (r < 0)
		return command_failed("cannot read the channel's schema", r);
	tool->is_typed = r > 0;
	if (tool->is_typed && decode_init(&tool->decode, schema, (uint32_t)r) < 0) {
		complain("the channel's schema is broken: %s", tool->decode.why);
		return 1;
	}
	tool->value = malloc((size_t)tool->info.value_len_max + 1);
	if (!tool->value) {
		complain("out of memory");
		return 1;
	}
	return 0;
}

static int print_value(struct state_tool *tool, uint32_t key, int32_t len)
{
	const struct shmb_view *view = shmb_subscriber_view(tool->subscriber);
	uint64_t version = view->sequence, term = view->term;
	char name[SHMB_STATE_KEY_LEN_MAX];
	int32_t name_len = shmb_subscriber_key(tool->subscriber, key, name, sizeof(name));
	json_t *value;

	if (name_len < 0)
		return command_failed("cannot read a key", name_len);
	if (!common.is_json) {
		print_escaped(stdout, name, (size_t)name_len);
		putchar('\t');
		if (len >= 0 && tool->is_typed)
			decode_to_text(&tool->decode, tool->value, stdout);
		else if (len >= 0)
			print_escaped(stdout, tool->value, (size_t)len);
		putchar('\n');
		return fflush(stdout) ? 1 : 0;
	}
	value = len < 0		 ? json_null()
		: tool->is_typed ? decode_to_json(&tool->decode, tool->value)
				 : print_json_text(tool->value, (size_t)len);
	return print_json(json_pack("{s:o, s:o, s:o, s:o, s:b}", "key",
				    print_json_text(name, (size_t)name_len), "value", value,
				    "version", print_json_u64(version), "term",
				    print_json_u64(term), "owned", view->publisher_id != 0),
			  JSON_COMPACT);
}

/* Returns 0, or 1 after a complaint. A key without a value is printed only if @always. */
static int print_key(struct state_tool *tool, uint32_t key, bool always)
{
	int32_t len = -EAGAIN;
	struct timespec pause = { .tv_nsec = 1000000 };

	for (int tries = 0; len == -EAGAIN && tries < 1000; tries++) {
		len = shmb_subscriber_get(tool->subscriber, key, tool->value,
					  tool->info.value_len_max);
		if (len == -EAGAIN)
			nanosleep(&pause, NULL);
	}
	if (len == -ENODATA && !always)
		return 0;
	if (len < 0 && len != -ENODATA)
		return command_failed("cannot read a value", len);
	return print_value(tool, key, len);
}

static int get(struct state_tool *tool)
{
	int32_t n = shmb_subscriber_n_keys(tool->subscriber), key;
	char text[SHMB_STATE_KEY_LEN_MAX];
	int status = 0;

	for (int32_t i = 0; tool->n_keys == 0 && i < n; i++)
		status |= print_key(tool, (uint32_t)i, false);
	for (int i = 0; i < tool->n_keys; i++) {
		key = shmb_subscriber_find(tool->subscriber, tool->keys[i],
					   (uint32_t)strlen(tool->keys[i]));
		if (key < 0 ||
		    shmb_subscriber_get(tool->subscriber, (uint32_t)key, text, 0) == -ENODATA) {
			complain("%s has no value", tool->keys[i]);
			status = 1;
			continue;
		}
		status |= print_key(tool, (uint32_t)key, true);
	}
	return status;
}

/* Is it one of those on the command line? */
static bool is_wanted(struct state_tool *tool, uint32_t key)
{
	char name[SHMB_STATE_KEY_LEN_MAX];
	int32_t len = shmb_subscriber_key(tool->subscriber, key, name, sizeof(name));

	for (int i = 0; i < tool->n_keys; i++)
		if (len == (int32_t)strlen(tool->keys[i]) && !memcmp(name, tool->keys[i], len))
			return true;
	return tool->n_keys == 0;
}

static int watch(struct state_tool *tool)
{
	uint64_t n = 0;

	while (!tool->limit || n < tool->limit) {
		int32_t key = shmb_subscriber_next(tool->subscriber), r;

		if (key >= 0 && is_wanted(tool, (uint32_t)key)) {
			if (print_key(tool, (uint32_t)key, true))
				return 1;
			n++;
		}
		if (key >= 0)
			continue;
		if (key != -EAGAIN)
			return command_failed("cannot watch", key);
		r = shmb_subscriber_wait(tool->subscriber, tool->timeout_ns);
		if (r < 0)
			return command_failed("no change", r);
	}
	return 0;
}

static int run_reader(struct state_tool *tool, int (*function)(struct state_tool *tool))
{
	int32_t r;

	if (open_channel(tool, 0))
		return 1;
	r = shmb_subscriber_open(tool->handle, NULL, &tool->subscriber);
	if (r < 0)
		return command_failed("cannot subscribe", r);
	return function(tool);
}

/* The bytes of the value on the command line. Returns their number, or -1 after a complaint. */
static int64_t make_value(struct state_tool *tool)
{
	size_t len = strlen(tool->keys[1]);

	if (tool->is_typed) {
		if (decode_from_text(&tool->decode, tool->keys[1], tool->value) < 0) {
			complain("%s", tool->decode.why);
			return -1;
		}
		return tool->decode.head.record_len;
	}
	if (len > tool->info.value_len_max) {
		complain("the value has %zu bytes; on this channel at most %" PRIu32 " fit", len,
			 tool->info.value_len_max);
		return -1;
	}
	memcpy(tool->value, tool->keys[1], len);
	return (int64_t)len;
}

static int set(struct state_tool *tool)
{
	int64_t len;
	int32_t r;

	if (open_channel(tool, SHMB_CHANNEL_CREATE | (tool->retain ? SHMB_CHANNEL_RETAIN : 0)))
		return 1;
	len = make_value(tool);
	if (len < 0)
		return 1;
	r = shmb_publisher_open(tool->handle, NULL, &tool->publisher);
	if (r < 0)
		return command_failed("cannot publish", r);
	r = shmb_publisher_claim(tool->publisher, tool->keys[0], (uint32_t)strlen(tool->keys[0]));
	if (r < 0)
		return command_failed("cannot claim the key", r);
	r = shmb_publisher_put(tool->publisher, (uint32_t)r, tool->value, (uint32_t)len);
	if (r < 0)
		return command_failed("cannot put the value", r);
	while (tool->hold)
		pause();
	shmb_channel_info(tool->handle, &tool->info, sizeof(tool->info));
	if (tool->info.n_subscribers == 0 && tool->info.n_publishers == 1 && !tool->info.retained)
		complain("nobody else publishes or subscribes on %s: unless somebody has it open, "
			 "the value is gone (--hold or --retain keeps it)",
			 tool->channel);
	return 0;
}

static int run(const struct argp *argp, int argc, char **argv, int n_args,
	       int (*function)(struct state_tool *tool))
{
	struct state_tool tool = { .timeout_ns = SHMB_FOREVER };
	int status;

	tool.keys = calloc((size_t)argc, sizeof(tool.keys[0]));
	if (!tool.keys) {
		complain("out of memory");
		return 1;
	}
	argp_parse(argp, argc, argv, 0, NULL, &tool);
	if (n_args && tool.n_keys != n_args) {
		complain("set needs a channel, a key and a value");
		free(tool.keys);
		return EXIT_USAGE;
	}
	status = function == set ? set(&tool) : run_reader(&tool, function);
	shmb_publisher_close(tool.publisher);
	shmb_subscriber_close(tool.subscriber);
	shmb_channel_close(tool.handle);
	shmb_client_close(tool.client);
	free(tool.value);
	free(tool.keys);
	return status;
}

int command_get(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse,
		.args_doc = "CHANNEL [KEY...]",
		.doc = "Print the latest value of each KEY of a state channel, or of all keys.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};

	return run(&argp, argc, argv, 0, get);
}

int command_watch(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "count", 'n', "N", 0, "End after N changes", 0 },
		{ "timeout", 't', "SECONDS", 0, "Fail when nothing has changed for so long", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "CHANNEL [KEY...]",
		.doc = "Print the value of each KEY of a state channel, or of all keys, first as it "
		       "is and then whenever it has changed. Only the latest counts: of several "
		       "changes in a row some may not be seen.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};

	return run(&argp, argc, argv, 0, watch);
}

int command_set(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "hold", KEY_HOLD, NULL, 0, "Stay, so that key and channel do", 0 },
		{ "retain", KEY_RETAIN, NULL, 0, "Let the channel stay until 'shmctl rm'", 0 },
		{ "max-keys", KEY_MAX_KEYS, "N", 0, "Keys of a channel that does not exist yet",
		  0 },
		{ "value-len", KEY_VALUE_LEN, "BYTES", 0,
		  "Longest value of a channel that does not exist yet", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "CHANNEL KEY VALUE",
		.doc = "Put VALUE as the latest value of KEY; fails if another process has claimed "
		       "it. A channel that does not exist is created, untyped: a value is the bytes "
		       "of its text. On a typed channel it is 'field=value ...'.",
		.children = common_children,
		.help_filter = command_help_filter,
	};

	return run(&argp, argc, argv, 2, set);
}
