/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl pub: publish records from the command line, stdin or a file.
 *
 * Unless told otherwise a full lane blocks it, so a slow reliable subscriber slows the shell pipe
 * before it and nothing is lost on the way.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/command.h"
#include "tools/decode.h"
#include "tools/print.h"
#include "tools/pub.h"

enum {
	KEY_CHUNK = 0x200,
	KEY_RATE,
	KEY_WAIT,
	KEY_HISTORY,
	KEY_QUEUE,
	KEY_ORDERED,
	KEY_TTL,
	KEY_WHEN_FULL,
	KEY_RETAIN,
	KEY_PRIORITY,
};

/* What to do when the lane is full: "block", "block:SECONDS", "fail" or "drop-newest". */
static void parse_when_full(struct argp_state *state, const char *arg, struct pub *pub)
{
	pub->full_timeout_ns = SHMB_FOREVER;
	pub->drops_newest = false;
	if (strncmp(arg, "block:", 6) == 0)
		pub->full_timeout_ns = command_seconds(state, "--when-full", arg + 6) * 1e9;
	else if (strcmp(arg, "fail") == 0)
		pub->full_timeout_ns = 0;
	else if (strcmp(arg, "drop-newest") == 0)
		pub->drops_newest = true;
	else if (strcmp(arg, "block") != 0)
		argp_error(state, "--when-full: block, block:SECONDS, fail or drop-newest");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct pub *pub = state->input;

	switch (key) {
	case 'f':
		pub->file = arg;
		return 0;
	case 'j':
		common.is_json = true;
		return 0;
	case 'r':
		pub->is_raw = true;
		return 0;
	case KEY_CHUNK:
		pub->chunk = command_number(state, "--chunk", arg, 1, 1u << 30);
		pub->is_raw = true;
		return 0;
	case KEY_RATE:
		pub->rate = strtod(arg, &arg);
		if (*arg || !(pub->rate > 0 && pub->rate <= 1e9))
			argp_error(state, "--rate: not a number of records a second");
		return 0;
	case KEY_QUEUE:
		pub->is_queue = true;
		return 0;
	case KEY_HISTORY:
		pub->history = command_number(state, "--history", arg, 1, UINT32_MAX);
		return 0;
	case KEY_ORDERED:
		pub->is_ordered = true;
		return 0;
	case KEY_TTL:
		pub->ttl_ms = command_number(state, "--ttl", arg, 1, UINT32_MAX);
		return 0;
	case KEY_WHEN_FULL:
		parse_when_full(state, arg, pub);
		return 0;
	case KEY_RETAIN:
		pub->is_retained = true;
		return 0;
	case KEY_PRIORITY:
		pub->priority = command_number(state, "--priority", arg, 0, SHMB_PRIORITY_MAX);
		return 0;
	case KEY_WAIT:
		pub->wait_subscribers =
			command_number(state, "--wait-for-subscribers", arg, 0, UINT32_MAX);
		return 0;
	case ARGP_KEY_ARG:
		if (!pub->channel)
			pub->channel = arg;
		else
			pub->records[pub->n_records++] = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which channel?");
		return 0;
	case ARGP_KEY_SUCCESS:
		if (pub->file && pub->n_records > 0)
			argp_error(state, "records come from --file or from arguments, not both");
		if (pub->is_raw && common.is_json)
			argp_error(state, "--raw and --json exclude each other");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int open_channel(struct pub *pub)
{
	struct shmb_channel_options options = {
		.options_len = sizeof(options),
		.flags = SHMB_CHANNEL_CREATE | SHMB_CHANNEL_ANY_SCHEMA |
			 (pub->is_ordered ? SHMB_CHANNEL_ORDERED : 0) |
			 (pub->is_retained ? SHMB_CHANNEL_RETAIN : 0),
		.history = pub->history,
		.pattern = pub->is_queue ? SHMB_CHANNEL_QUEUE : SHMB_CHANNEL_STREAM,
		.ttl_ms = pub->ttl_ms,
	};
	char schema[SHMB_SCHEMA_LEN_MAX];
	struct shmb_channel_info info;
	int32_t r;

	r = shmb_channel_open(pub->client, pub->channel, strlen(pub->channel), &options,
			      &pub->handle);
	/* What is there may be a queue. */
	if (r == -EPROTOTYPE && options.pattern == SHMB_CHANNEL_STREAM) {
		options.pattern = SHMB_CHANNEL_QUEUE;
		options.history = 0;
		r = shmb_channel_open(pub->client, pub->channel, strlen(pub->channel), &options,
				      &pub->handle);
	}
	if (r < 0)
		return command_failed("cannot open the channel", r);
	shmb_channel_info(pub->handle, &info, sizeof(info));
	pub->record_len_max = info.record_len_max;
	pub->is_queue = info.pattern == SHMB_CHANNEL_QUEUE;
	r = shmb_channel_schema(pub->handle, schema, sizeof(schema));
	if (r < 0)
		return command_failed("cannot read the channel's schema", r);
	pub->is_typed = r > 0;
	if (pub->is_typed && decode_init(&pub->decode, schema, r) < 0) {
		complain("the channel's schema is broken: %s", pub->decode.why);
		return 1;
	}
	return 0;
}

static int open_all(struct pub *pub)
{
	struct shmb_publisher_options options = {
		.options_len = sizeof(options),
		.flags = pub->drops_newest ? SHMB_PUBLISHER_DROP_NEWEST : 0,
		.priority = pub->priority,
	};
	int32_t r;

	if (command_connect(&pub->client) || open_channel(pub))
		return 1;
	r = shmb_publisher_open(pub->handle, &options, &pub->publisher);
	if (r < 0)
		return command_failed("cannot publish", r);
	if (pub->wait_subscribers > 0) {
		r = shmb_channel_wait_members(pub->handle, 0, pub->wait_subscribers, SHMB_FOREVER);
		if (r < 0)
			return command_failed("cannot wait for subscribers", r);
	}
	return 0;
}

static void close_all(struct pub *pub)
{
	struct shmb_publisher_stats stats = { 0 };

	if (pub->publisher) {
		shmb_publisher_stats(pub->publisher, &stats, sizeof(stats));
		if (stats.published > 0 && stats.n_subscribers == 0 && !pub->has_had_subscriber &&
		    !pub->is_queue)
			complain(
				"nobody subscribes to %s: the records are gone (--wait-for-subscribers "
				"waits)",
				pub->channel);
		if (stats.dropped > 0)
			complain("dropped %" PRIu64 " records: the channel was full",
				 stats.dropped);
	}
	shmb_publisher_close(pub->publisher);
	shmb_channel_close(pub->handle);
	shmb_client_close(pub->client);
}

/* Keep to --rate without drift: each record has its own time. */
static void pace(struct pub *pub)
{
	double due;
	struct timespec at;

	if (pub->rate <= 0)
		return;
	if (pub->n_sent == 0)
		clock_gettime(CLOCK_MONOTONIC, &pub->start);
	due = pub->start.tv_nsec / 1e9 + pub->n_sent / pub->rate;
	at.tv_sec = pub->start.tv_sec + (time_t)due;
	at.tv_nsec = (due - (time_t)due) * 1e9;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
		;
}

int pub_send(struct pub *pub, const void *data, size_t len)
{
	struct shmb_publisher_stats stats;
	int32_t r;

	pace(pub);
	if (len > pub->record_len_max) {
		complain("record %" PRIu64 " has %zu bytes; on this channel at most %" PRIu32
			 " fit",
			 pub->n_sent + 1, len, pub->record_len_max);
		return 1;
	}
	if (pub->drops_newest || pub->full_timeout_ns == 0)
		r = shmb_publisher_send(pub->publisher, data, len);
	else
		r = shmb_publisher_send_wait(pub->publisher, data, len, pub->full_timeout_ns);
	if (r < 0)
		return command_failed("cannot publish", r);
	if (pub->n_sent++ == 0 && shmb_publisher_stats(pub->publisher, &stats, sizeof(stats)) == 0)
		pub->has_had_subscriber = stats.n_subscribers > 0;
	return 0;
}

/* Once we have gone, nobody gives to others what a worker leaves. */
static int wait_done(struct pub *pub)
{
	int32_t r = pub->is_queue ? shmb_publisher_wait_done(pub->publisher, SHMB_FOREVER) : 0;

	return r < 0 ? command_failed("cannot wait for the workers", r) : 0;
}

int command_pub(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "file", 'f', "FILE", 0, "Read records from FILE, a line each ('-': stdin)", 0 },
		{ "json", 'j', NULL, 0, "Each record must be JSON", 0 },
		{ "raw", 'r', NULL, 0,
		  "Input is the bytes of records: on a typed channel record after record", 0 },
		{ "chunk", KEY_CHUNK, "BYTES", 0, "Cut raw input into records of this length", 0 },
		{ "history", KEY_HISTORY, "N", 0,
		  "If the channel is created: late subscribers get the last N records of each "
		  "publisher",
		  0 },
		{ "queue", KEY_QUEUE, NULL, 0, "If the channel is created: as a queue", 0 },
		{ "ordered", KEY_ORDERED, NULL, 0,
		  "If the channel is created: one order for the records of all publishers", 0 },
		{ "ttl", KEY_TTL, "MS", 0,
		  "If the channel is created: subscribers skip records that are older than this",
		  0 },
		{ "retain", KEY_RETAIN, NULL, 0,
		  "Let the channel stay until 'shmctl rm', with what publishers have left", 0 },
		{ "priority", KEY_PRIORITY, "N", 0,
		  "0 (the default) to 7: subscribers receive what has the highest first", 0 },
		{ "rate", KEY_RATE, "N", 0, "Publish at most N records a second", 0 },
		{ "when-full", KEY_WHEN_FULL, "WHAT", 0,
		  "block (the default), block:SECONDS, fail, or drop-newest", 0 },
		{ "wait-for-subscribers", KEY_WAIT, "N", 0,
		  "First wait until so many subscribers are there", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "CHANNEL [RECORD...]",
		.doc = "Publish each RECORD, or each line of stdin. A channel that does not exist "
		       "is created, untyped: a record is the bytes of its text. On a typed channel "
		       "a record is 'field=value ...' or a JSON object.\vWith --json each record "
		       "must be JSON. When the channel is full, pub waits for its subscribers, "
		       "unless --when-full says otherwise. On a queue it waits for a worker for "
		       "each record, and at the end until all are done.",
		.children = common_children,
		.help_filter = command_help_filter,
	};
	struct pub *pub = calloc(1, sizeof(*pub));
	int status;

	if (pub)
		pub->records = calloc(argc, sizeof(pub->records[0]));
	if (!pub || !pub->records) {
		complain("out of memory");
		free(pub);
		return 1;
	}
	pub->full_timeout_ns = SHMB_FOREVER;
	argp_parse(&argp, argc, argv, 0, NULL, pub);
	status = open_all(pub);
	if (!status)
		status = pub_input(pub);
	if (!status)
		status = wait_done(pub);
	close_all(pub);
	free(pub->records);
	free(pub);
	return status;
}
