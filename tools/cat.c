/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl cat: print the records of a channel as they come.
 *
 * Output is flushed whenever there is nothing more to receive, before it sleeps: a reader of the
 * pipe gets each record at once, and a burst still goes out in large writes. Signals and the end
 * of that reader come through the same wait set as the records.
 */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/cat.h"
#include "tools/command.h"
#include "tools/print.h"

enum {
	COOKIE_SUBSCRIBER = 1,
	COOKIE_SIGNAL,
	COOKIE_STDOUT,
};

enum {
	KEY_HISTORY = 0x200,
	KEY_EVICT_AFTER,
	KEY_CONFLATE,
};

#define RETRY_NS 100000000 /* how often --wait looks for the channel */

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* Nanoseconds until --timeout: 0 when it has passed. */
static int64_t left_ns(const struct cat *cat)
{
	int64_t left;

	if (cat->deadline_ns == 0)
		return SHMB_FOREVER;
	left = cat->deadline_ns - now_ns();
	return left > 0 ? left : 0;
}

/* Sleep for a moment: 0, or CAT_STOPPED by a signal, or CAT_TIMED_OUT. */
static int pause_for_retry(struct cat *cat)
{
	struct pollfd poll_fd = { .fd = cat->signal_fd, .events = POLLIN };
	int64_t left = left_ns(cat);
	int64_t ns = left >= 0 && left < RETRY_NS ? left : RETRY_NS;

	if (left == 0)
		return CAT_TIMED_OUT;
	return poll(&poll_fd, 1, ns / 1000000 + 1) > 0 ? CAT_STOPPED : 0;
}

static int open_channel(struct cat *cat)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_ANY_SCHEMA,
						.pattern = cat->pattern };
	bool has_said = false;
	int status;
	int32_t r;

	for (;;) {
		r = shmb_channel_open(cat->client, cat->channel, strlen(cat->channel), &options,
				      &cat->handle);
		if (r != -ENOENT || !cat->is_waiting)
			break;
		if (!has_said)
			complain("waiting for %s", cat->channel);
		has_said = true;
		status = pause_for_retry(cat);
		if (status)
			return status;
	}
	if (r == -ENOENT) {
		complain("there is no channel '%s' (--wait waits for it)", cat->channel);
		return 1;
	}
	return r < 0 ? command_failed("cannot open the channel", r) : 0;
}

/* In turns, so that a signal ends it. */
static int wait_for_publishers(struct cat *cat)
{
	int32_t r;
	int status;

	while ((r = shmb_channel_wait_members(cat->handle, cat->wait_publishers, 0, 0)) ==
	       -ETIMEDOUT) {
		status = pause_for_retry(cat);
		if (status)
			return status;
	}
	return r < 0 ? command_failed("cannot wait for publishers", r) : 0;
}

static int read_schema(struct cat *cat)
{
	char schema[SHMB_SCHEMA_LEN_MAX];
	struct shmb_channel_info info;
	int32_t r;

	shmb_channel_info(cat->handle, &info, sizeof(info));
	cat->cap = info.record_len_max;
	cat->data = malloc(cat->cap);
	r = shmb_channel_schema(cat->handle, schema, sizeof(schema));
	if (!cat->data || r < 0)
		return command_failed("cannot read the channel's schema", r < 0 ? r : -ENOMEM);
	cat->is_typed = r > 0;
	if (cat->is_typed && decode_init(&cat->decode, schema, r) < 0) {
		complain("the channel's schema is broken: %s; showing bytes", cat->decode.why);
		cat->is_typed = false;
	}
	return 0;
}

static int open_waitset(struct cat *cat)
{
	struct stat st;
	int32_t r = shmb_waitset_open(cat->client, &cat->waitset);

	if (r >= 0)
		r = shmb_waitset_add(cat->waitset, cat->subscriber, COOKIE_SUBSCRIBER);
	if (r >= 0)
		r = shmb_waitset_add_fd(cat->waitset, cat->signal_fd, POLLIN, COOKIE_SIGNAL);
	/* Notice at once when the reader of our pipe has gone, not at the next record. */
	if (r >= 0 && fstat(STDOUT_FILENO, &st) == 0 &&
	    (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		r = shmb_waitset_add_fd(cat->waitset, STDOUT_FILENO, 0, COOKIE_STDOUT);
	return r < 0 ? command_failed("cannot wait", r) : 0;
}

/* Where the key is: of a field by its name, else as it is given. */
static int find_key(struct cat *cat, struct shmb_subscriber_options *options)
{
	unsigned offset, len;
	int end = 0;

	if (!cat->conflate)
		return 0;
	if (sscanf(cat->conflate, "%u:%u%n", &offset, &len, &end) == 2 && len > 0 &&
	    !cat->conflate[end]) {
		options->conflate_offset = offset;
		options->conflate_len = len;
		return 0;
	}
	if (!cat->is_typed) {
		complain(
			"--conflate: records have no fields here: OFFSET:LEN says where the key is");
		return 1;
	}
	if (decode_find(&cat->decode, cat->conflate, &options->conflate_offset,
			&options->conflate_len) < 0) {
		complain("--conflate: %s", cat->decode.why);
		return 1;
	}
	return 0;
}

static int open_all(struct cat *cat)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options) };
	int32_t r;
	int status;

	if (command_connect(&cat->client))
		return 1;
	status = open_channel(cat);
	if (status)
		return status;
	if (read_schema(cat))
		return 1;
	status = wait_for_publishers(cat);
	if (status)
		return status;
	options.flags = (cat->is_lossy ? SHMB_SUBSCRIBER_LOSSY : 0) |
			(cat->history == 0 ? SHMB_SUBSCRIBER_NO_HISTORY : 0);
	options.history = cat->history;
	options.credit = cat->credit;
	options.max_attempts = cat->max_attempts;
	options.evict_after_ms = cat->evict_after_ms;
	if (find_key(cat, &options))
		return 1;
	r = shmb_subscriber_open(cat->handle, &options, &cat->subscriber);
	if (r < 0)
		return command_failed("cannot subscribe", r);
	cat->view = shmb_subscriber_view(cat->subscriber);
	return open_waitset(cat);
}

/* What it was not shown. */
static void tell_skipped(struct cat *cat)
{
	struct shmb_subscriber_stats stats = { 0 };

	if (!cat->subscriber || shmb_subscriber_stats(cat->subscriber, &stats, sizeof(stats)) < 0)
		return;
	if (stats.expired)
		complain("skipped %" PRIu64 " records that were too old", stats.expired);
	if (stats.conflated)
		complain("skipped %" PRIu64 " records that newer ones superseded", stats.conflated);
}

static void close_all(struct cat *cat)
{
	tell_skipped(cat);
	if (cat->waitset && cat->subscriber)
		shmb_waitset_remove(cat->waitset, cat->subscriber);
	shmb_waitset_close(cat->waitset);
	shmb_subscriber_close(cat->subscriber);
	shmb_channel_close(cat->handle);
	shmb_client_close(cat->client);
	close(cat->signal_fd);
	free(cat->data);
}

static void tell_losses(struct cat *cat)
{
	if (cat->view->lost == cat->lost)
		return;
	complain("lost %" PRIu64 " records: we were too slow", cat->view->lost - cat->lost);
	cat->lost = cat->view->lost;
}

/* Print what is there. 0: nothing more now; else we are done. */
static int drain(struct cat *cat)
{
	int32_t r;

	while (cat->limit == 0 || cat->n_records < cat->limit) {
		r = cat->receive(cat);
		tell_losses(cat);
		if (r == -EAGAIN)
			return 0;
		if (r == -ENOBUFS) {
			command_failed("a publisher goes on without us", r);
			continue;
		}
		if (r == -EBADMSG) {
			command_failed("a publisher is ignored from now on", r);
			cat->has_failed = true;
			continue;
		}
		if (r < 0)
			return command_failed("cannot receive", r);
		cat->n_records++;
		if (cat->deal_with(cat, r))
			return 1;
	}
	return CAT_STOPPED;
}

static int follow(struct cat *cat)
{
	struct shmb_ready ready[3];
	int32_t n;
	int status;

	for (;;) {
		status = drain(cat);
		if (fflush(stdout) || status)
			return status ? status : 1;
		n = shmb_waitset_wait(cat->waitset, ready, 3, left_ns(cat));
		if (n == -ETIMEDOUT)
			return CAT_TIMED_OUT;
		if (n < 0 && n != -EINTR)
			return command_failed("cannot wait", n);
		for (int32_t i = 0; i < n; i++) {
			if (ready[i].cookie != COOKIE_SUBSCRIBER)
				return CAT_STOPPED;
		}
	}
}

error_t cat_parse(int key, char *arg, struct argp_state *state)
{
	struct cat *cat = state->input;

	switch (key) {
	case 'n':
		cat->limit = command_number(state, "--count", arg, 1, UINT64_MAX);
		return 0;
	case 'x':
		cat->is_hex = true;
		return 0;
	case 'r':
		cat->is_raw = true;
		return 0;
	case 'l':
		cat->is_lossy = true;
		return 0;
	case KEY_HISTORY:
		cat->history = command_number(state, "--history", arg, 0, UINT32_MAX);
		return 0;
	case KEY_EVICT_AFTER:
		cat->evict_after_ms = command_number(state, "--evict-after", arg, 1, UINT32_MAX);
		return 0;
	case KEY_CONFLATE:
		cat->conflate = arg;
		return 0;
	case CAT_KEY_WAIT_FOR_PUBLISHERS:
		cat->wait_publishers =
			command_number(state, "--wait-for-publishers", arg, 0, UINT32_MAX);
		return 0;
	case 'w':
		cat->is_waiting = true;
		return 0;
	case 't':
		cat->deadline_ns = now_ns() + 1 + command_seconds(state, "--timeout", arg) * 1e9;
		return 0;
	case ARGP_KEY_ARG:
		if (cat->channel)
			argp_error(state, "one channel at a time");
		cat->channel = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which channel? 'shmctl ls' lists them");
		return 0;
	case ARGP_KEY_SUCCESS:
		if (cat->is_hex + cat->is_raw + common.is_json > 1)
			argp_error(state, "--hex, --raw and --json exclude each other");
		if (cat->is_lossy && cat->evict_after_ms)
			argp_error(state, "--lossy and --evict-after exclude each other");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int cat_run(struct cat *cat)
{
	sigset_t signals;
	int status;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	cat->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (cat->signal_fd < 0) {
		complain("cannot wait for signals: %m");
		return 1;
	}
	status = open_all(cat);
	if (!status)
		status = follow(cat);
	close_all(cat);
	if (status == CAT_TIMED_OUT && cat->limit > 0) {
		complain("timed out after %" PRIu64 " of %" PRIu64 " records", cat->n_records,
			 cat->limit);
		return 1;
	}
	return status == CAT_STOPPED || status == CAT_TIMED_OUT ? cat->has_failed : status;
}

static int32_t receive(struct cat *cat)
{
	return shmb_subscriber_recv(cat->subscriber, cat->data, cat->cap);
}

static int deal_with(struct cat *cat, uint32_t len)
{
	cat_print(cat, len, stdout);
	return ferror(stdout) != 0;
}

int command_cat(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "count", 'n', "COUNT", 0, "End after so many records", 0 },
		{ "hex", 'x', NULL, 0, "Print payloads as hexadecimal digits", 0 },
		{ "raw", 'r', NULL, 0, "Write payloads as they are, one after the other", 0 },
		{ "history", KEY_HISTORY, "N", 0,
		  "Begin with at most N records of the channel's history (0: none; else all)", 0 },
		{ "lossy", 'l', NULL, 0, "Never slow publishers down: rather lose records", 0 },
		{ "evict-after", KEY_EVICT_AFTER, "MS", 0,
		  "Hold no publisher up for longer than this without reading: be lossy then", 0 },
		{ "conflate", KEY_CONFLATE, "FIELD", 0,
		  "Of several records of a publisher that wait and have this field (or the bytes "
		  "OFFSET:LEN) in common, print only the newest",
		  0 },
		{ "timeout", 't', "SECONDS", 0, "End after this time", 0 },
		{ "wait", 'w', NULL, 0, "Wait until the channel exists", 0 },
		{ "wait-for-publishers", CAT_KEY_WAIT_FOR_PUBLISHERS, "N", 0,
		  "First wait until so many publishers are there", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = cat_parse,
		.args_doc = "CHANNEL",
		.doc = "Print the records of a channel as they come, a line each: fields by name "
		       "where the channel has a schema, else text with control characters escaped."
		       "\vWithout --lossy it is a reliable subscriber: a publisher waits while it "
		       "is slow. A --timeout is a failure only before COUNT records have come.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};
	struct cat *cat = calloc(1, sizeof(*cat));
	int status;

	if (!cat) {
		complain("out of memory");
		return 1;
	}
	cat->history = UINT32_MAX;
	cat->receive = receive;
	cat->deal_with = deal_with;
	argp_parse(&argp, argc, argv, 0, NULL, cat);
	status = cat_run(cat);
	free(cat);
	return status;
}
