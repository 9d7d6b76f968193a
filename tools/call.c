/* SPDX-License-Identifier: Apache-2.0 */

/* shmctl call: one request, and all that comes back. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command.h"
#include "tools/print.h"

#define TIMEOUT_S 5.0
#define TYPE_MAX  4095u

/**
 * struct call_tool - one run
 * @channel:	name
 * @request:	from the command line, NULL: an empty one
 * @type:	of the request
 * @timeout_ns:	of the call
 * @client, @handle, @caller: opened
 * @reply:	room for one
 * @cap:	bytes of @reply
 */
struct call_tool {
	const char *channel;
	const char *request;
	uint32_t type;
	int64_t timeout_ns;
	struct shmb_client *client;
	struct shmb_channel *handle;
	struct shmb_caller *caller;
	uint8_t *reply;
	uint32_t cap;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct call_tool *tool = state->input;

	switch (key) {
	case 't':
		tool->timeout_ns = (int64_t)(command_seconds(state, "--timeout", arg) * 1e9);
		return 0;
	case 'T':
		tool->type = (uint32_t)command_number(state, "--type", arg, 0, TYPE_MAX);
		return 0;
	case ARGP_KEY_ARG:
		if (!tool->channel)
			tool->channel = arg;
		else if (!tool->request)
			tool->request = arg;
		else
			argp_error(state, "one request at a time");
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which channel?");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int open_caller(struct call_tool *tool)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.pattern = SHMB_CHANNEL_CALL };
	struct shmb_channel_info info;
	int32_t r;

	if (command_connect(&tool->client))
		return 1;
	r = shmb_channel_open(tool->client, tool->channel, (uint32_t)strlen(tool->channel),
			      &options, &tool->handle);
	if (r < 0)
		return command_failed("cannot open the channel", r);
	shmb_channel_info(tool->handle, &info, sizeof(info));
	tool->cap = info.record_len_max;
	tool->reply = malloc((size_t)tool->cap + 1);
	if (!tool->reply) {
		complain("out of memory");
		return 1;
	}
	r = shmb_caller_open(tool->handle, NULL, &tool->caller);
	return r < 0 ? command_failed("cannot call", r) : 0;
}

static int print_reply(const struct call_tool *tool, int32_t len)
{
	const struct shmb_call_view *view = shmb_caller_view(tool->caller);

	if (!common.is_json) {
		print_escaped(stdout, tool->reply, (size_t)len);
		putchar('\n');
		return fflush(stdout) ? 1 : 0;
	}
	return print_json(json_pack("{s:o, s:i, s:b, s:i}", "reply",
				    print_json_text(tool->reply, (size_t)len), "type",
				    (int)view->type, "more", view->more != 0, "pid",
				    (int)view->pid),
			  JSON_COMPACT);
}

static int call(struct call_tool *tool)
{
	const struct shmb_call_view *view = shmb_caller_view(tool->caller);
	const char *request = tool->request ? tool->request : "";
	int32_t id, len;

	id = shmb_caller_start(tool->caller, tool->type, request, (uint32_t)strlen(request),
			       tool->timeout_ns);
	if (id < 0)
		return command_failed("cannot call", id);
	do {
		len = shmb_caller_recv(tool->caller, id, tool->reply, tool->cap, SHMB_FOREVER);
		if (len >= 0 && print_reply(tool, len))
			return 1;
	} while (len >= 0 && view->more);
	return len >= 0 || len == -ENODATA ? 0 : command_failed("no reply", len);
}

int command_call(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "type", 'T', "N", 0, "Type of the request, which may be its method", 0 },
		{ "timeout", 't', "SECONDS", 0, "Give up after so long; default: 5", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "CHANNEL [REQUEST]",
		.doc = "Send the bytes of REQUEST to a server of a call channel, and print each of "
		       "its replies on a line.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};
	struct call_tool tool = { .timeout_ns = (int64_t)(TIMEOUT_S * 1e9) };
	int status;

	argp_parse(&argp, argc, argv, 0, NULL, &tool);
	status = open_caller(&tool) || call(&tool);
	shmb_caller_close(tool.caller);
	shmb_channel_close(tool.handle);
	shmb_client_close(tool.client);
	free(tool.reply);
	return status;
}
