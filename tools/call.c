/* SPDX-License-Identifier: Apache-2.0 */

/* shmctl call: one request, and all that comes back. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command.h"
#include "tools/decode.h"
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
 * @requests:	how requests are made of; head.record_len 0: of bytes
 * @replies:	how replies are
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
	struct decode requests;
	struct decode replies;
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

/* What requests and replies look like, if the channel says so. */
static int take_schema(struct call_tool *tool)
{
	uint8_t schema[SHMB_SCHEMA_LEN_MAX];
	struct decode whole;
	int32_t len = shmb_channel_schema(tool->handle, schema, sizeof(schema));

	if (len <= 0)
		return len < 0 ? command_failed("cannot read the schema", len) : 0;
	if (decode_init(&whole, schema, (uint32_t)len) < 0) {
		complain("the channel's schema is broken: %s", whole.why);
		return 1;
	}
	decode_part(&tool->requests, &whole, "request");
	decode_part(&tool->replies, &whole, "reply");
	return 0;
}

static int open_caller(struct call_tool *tool)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_ANY_SCHEMA,
						.pattern = SHMB_CHANNEL_CALL };
	struct shmb_channel_info info;
	int32_t r;

	if (command_connect(&tool->client))
		return 1;
	r = shmb_channel_open(tool->client, tool->channel, (uint32_t)strlen(tool->channel),
			      &options, &tool->handle);
	if (r < 0)
		return command_failed("cannot open the channel", r);
	if (take_schema(tool))
		return 1;
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

static json_t *reply_to_json(const struct call_tool *tool, int32_t len)
{
	return tool->replies.head.record_len ? decode_to_json(&tool->replies, tool->reply)
					     : print_json_text(tool->reply, (size_t)len);
}

static int print_reply(const struct call_tool *tool, int32_t len)
{
	const struct shmb_call_view *view = shmb_caller_view(tool->caller);

	if (common.is_json)
		return print_json(json_pack("{s:o, s:i, s:b, s:i}", "reply",
					    reply_to_json(tool, len), "type", (int)view->type,
					    "more", view->more != 0, "pid", (int)view->pid),
				  JSON_COMPACT);
	if (tool->replies.head.record_len)
		decode_to_text(&tool->replies, tool->reply, stdout);
	else
		print_escaped(stdout, tool->reply, (size_t)len);
	putchar('\n');
	return fflush(stdout) ? 1 : 0;
}

/* The request as fields or as JSON. Returns its bytes to free(), or NULL with a complaint. */
static uint8_t *make_request(struct call_tool *tool)
{
	const char *text = tool->request ? tool->request : "";
	bool is_json = common.is_json ? *text : text[strspn(text, " \t")] == '{';
	uint8_t *request = calloc(1, tool->requests.head.record_len);
	json_error_t error;
	json_t *object;
	int r;

	if (!request) {
		complain("out of memory");
		return NULL;
	}
	if (is_json) {
		object = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
		r = object ? decode_from_json(&tool->requests, object, request) : -EINVAL;
		if (!object)
			snprintf(tool->requests.why, sizeof(tool->requests.why), "%s", error.text);
		json_decref(object);
	} else {
		r = decode_from_text(&tool->requests, text, request);
	}
	if (r == 0)
		return request;
	complain("request: %s", tool->requests.why);
	free(request);
	return NULL;
}

/* Returns the call, or an error; 0: it was complained about. */
static int32_t start(struct call_tool *tool)
{
	const char *text = tool->request ? tool->request : "";
	uint8_t *request;
	int32_t id;

	if (!tool->requests.head.record_len)
		return shmb_caller_start(tool->caller, tool->type, text, (uint32_t)strlen(text),
					 tool->timeout_ns);
	request = make_request(tool);
	if (!request)
		return 0;
	id = shmb_caller_start(tool->caller, tool->type, request, tool->requests.head.record_len,
			       tool->timeout_ns);
	free(request);
	return id;
}

static int call(struct call_tool *tool)
{
	const struct shmb_call_view *view = shmb_caller_view(tool->caller);
	int32_t id = start(tool), len;

	if (id <= 0)
		return id ? command_failed("cannot call", id) : 1;
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
		       "its replies on a line. On a typed channel REQUEST is field=value ... or a JSON "
		       "object, and replies are printed the same way.",
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
