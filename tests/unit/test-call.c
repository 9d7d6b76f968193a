/* SPDX-License-Identifier: Apache-2.0 */

/* Call channels through the public API, against an embedded broker, and at random against a model. */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/fixture.h"

static struct shmb_channel *channel;
static uint8_t bytes[1u << 17];

static struct shmb_channel *calls_of(struct shmb_client *of, uint32_t lane_len)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL,
						.lane_len = lane_len,
						.backing = backing_of_run() };
	struct shmb_channel *opened = NULL;

	ok(shmb_channel_open(of, "test/call", 9, &options, &opened));
	return opened;
}

static void set_up_channel(void)
{
	set_up();
	channel = calls_of(client, 1u << 14);
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

static struct shmb_caller *caller_of(struct shmb_channel *of, uint32_t flags)
{
	struct shmb_caller_options options = { .options_len = sizeof(options), .flags = flags };
	struct shmb_caller *caller = NULL;

	ok(shmb_caller_open(of, &options, &caller));
	return caller;
}

static struct shmb_server *server_of(struct shmb_channel *of)
{
	struct shmb_server *server = NULL;

	ok(shmb_server_open(of, NULL, &server));
	return server;
}

/* What a caller starts a server gets, in one process: the call as the server names it. */
static int32_t take(struct shmb_server *server, uint64_t expected)
{
	uint64_t value = 0;
	int32_t len = shmb_server_recv(server, &value, sizeof(value), 4000 * MS);

	ck_assert_msg(len == 8, "recv: %d (%s)", len, why());
	ck_assert_uint_eq(value, expected);
	return shmb_server_view(server)->call;
}

static int32_t start(struct shmb_caller *caller, uint64_t value, int64_t timeout_ns)
{
	int32_t call = shmb_caller_start(caller, 7, &value, sizeof(value), timeout_ns);

	ck_assert_msg(call > 0, "start: %d (%s)", call, why());
	return call;
}

static void reply(struct shmb_server *server, int32_t call, uint64_t value, uint32_t flags)
{
	ok(shmb_server_reply(server, call, 9, &value, sizeof(value), flags, 4000 * MS));
}

static void receive(struct shmb_caller *caller, int32_t call, uint64_t expected, bool more)
{
	uint64_t value = 0;
	int32_t len = shmb_caller_recv(caller, call, &value, sizeof(value), 4000 * MS);

	ck_assert_msg(len == 8, "recv: %d (%s)", len, why());
	ck_assert_uint_eq(value, expected);
	ck_assert_uint_eq(shmb_caller_view(caller)->type, 9);
	ck_assert_uint_eq(shmb_caller_view(caller)->more, more);
	if (call)
		ck_assert_int_eq(shmb_caller_view(caller)->call, call);
}

/* Nothing comes, and what the broker has had to say has been heard. */
static void arm_server(struct shmb_server *server)
{
	int32_t armed;

	do {
		ok(shmb_client_ping(client, 4000 * MS));
		refused(shmb_server_recv(server, bytes, 8, 0), -ETIMEDOUT);
		armed = shmb_server_arm(server);
	} while (armed == 1);
	ck_assert_int_eq(armed, 0);
}

static void arm_caller(struct shmb_caller *caller)
{
	int32_t armed;

	do {
		ok(shmb_client_ping(client, 4000 * MS));
		refused(shmb_caller_recv(caller, 0, bytes, 8, 0), -ETIMEDOUT);
		armed = shmb_caller_arm(caller);
	} while (armed == 1);
	ck_assert_int_eq(armed, 0);
}

/* ---- one caller, one server -------------------------------------------------------------------- */

START_TEST(a_call_is_answered)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0);
	struct shmb_call_view *view = shmb_server_view(server);
	struct shmb_caller_stats callers;
	struct shmb_server_stats servers;
	struct shmb_channel_info info;

	ok(shmb_channel_wait_members(channel, 1, 1, 4000 * MS));
	for (uint64_t i = 1; i <= 20000; i++) {
		int32_t call = start(caller, i, 60000 * MS), asked = take(server, i);

		ck_assert_uint_eq(view->type, 7);
		ck_assert_int_eq((int)view->pid, (int)getpid());
		ck_assert_uint_eq(view->uid, getuid());
		ck_assert_uint_ne(view->deadline_ns, 0);
		ck_assert_int_eq(shmb_server_cancelled(server, asked), 0);
		reply(server, asked, 2 * i, 0);
		/* One end, never two. */
		refused(shmb_server_reply(server, asked, 0, &i, 8, 0, 0), -ENOENT);
		refused(shmb_server_cancelled(server, asked), -ENOENT);
		receive(caller, call, 2 * i, false);
		refused(shmb_caller_recv(caller, call, bytes, 8, 0), -ENOENT);
	}
	ok(shmb_caller_stats(caller, &callers, sizeof(callers)));
	ok(shmb_server_stats(server, &servers, sizeof(servers)));
	ck_assert_uint_eq(callers.calls, 20000);
	ck_assert_uint_eq(callers.replies, 20000);
	ck_assert_uint_eq(callers.n_open, 0);
	ck_assert_uint_eq(callers.n_servers, 1);
	ck_assert_uint_eq(servers.requests, 20000);
	ck_assert_uint_eq(servers.n_open, 0);
	ck_assert_uint_eq(servers.n_callers, 1);
	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.pattern, SHMB_CHANNEL_CALL);
	ck_assert_uint_eq(info.n_publishers, 1);
	ck_assert_uint_eq(info.n_subscribers, 1);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(wrong_use_is_refused)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0), *none = NULL;
	struct shmb_server *no_server = NULL;
	struct shmb_channel *stream = channel_of(client, "test/stream", 4096), *other = NULL;
	struct shmb_publisher *publisher = NULL;
	struct shmb_subscriber *subscriber = NULL;
	struct shmb_channel_info info;
	int32_t call;

	ok(shmb_channel_info(channel, &info, sizeof(info)));
	refused(shmb_caller_call(caller, 4096, bytes, 1, bytes, 1, 0), -EINVAL);
	refused(shmb_caller_call(caller, 0, NULL, 1, bytes, 1, 0), -EINVAL);
	refused(shmb_caller_call(caller, 0, bytes, info.record_len_max + 1, bytes, 1, MS),
		-EMSGSIZE);
	says("8168 bytes, not 8169");
	refused(shmb_caller_call(caller, 0, bytes, UINT32_MAX, bytes, 1, MS), -EMSGSIZE);
	refused(shmb_caller_wait(caller, UINT32_MAX, MS), -EMSGSIZE);
	refused(shmb_caller_recv(caller, 0, bytes, 1, 0), -ENOENT);
	refused(shmb_caller_recv(caller, 1, bytes, 1, 0), -ENOENT);
	refused(shmb_caller_recv(caller, -1, bytes, 1, 0), -ENOENT);
	refused(shmb_caller_cancel(caller, 1), -ENOENT);
	refused(shmb_server_recv(server, bytes, 1, 0), -ETIMEDOUT);
	refused(shmb_server_reply(server, 1, 0, bytes, 1, 0, 0), -ENOENT);
	refused(shmb_server_reply(server, 1, 0, bytes, 1, 2, 0), -EINVAL);
	refused(shmb_server_end(server, 0, 0), -ENOENT);
	refused(shmb_server_fail(server, 1, 1, "no", 2, 0), -ENOENT);
	refused(shmb_server_fail(server, 1, 1, (char *)bytes, 1025, 0), -EINVAL);
	/* The longest request, and the longest reply. */
	call = shmb_caller_start(caller, 4095, bytes, info.record_len_max, 4000 * MS);
	ok(call);
	refused(shmb_server_recv(server, bytes, info.record_len_max - 1, 4000 * MS), -EMSGSIZE);
	ck_assert_uint_eq(shmb_server_view(server)->len, info.record_len_max);
	ck_assert_int_eq(shmb_server_recv(server, bytes, info.record_len_max, 4000 * MS),
			 (int)info.record_len_max);
	ck_assert_uint_eq(shmb_server_view(server)->type, 4095);
	refused(shmb_server_reply(server, shmb_server_view(server)->call, 0, bytes,
				  info.record_len_max + 1, 0, 0),
		-EMSGSIZE);
	ok(shmb_server_reply(server, shmb_server_view(server)->call, 0, bytes, info.record_len_max,
			     0, 4000 * MS));
	refused(shmb_caller_recv(caller, call, bytes, 5, 4000 * MS), -EMSGSIZE);
	ck_assert_uint_eq(shmb_caller_view(caller)->len, info.record_len_max);
	ck_assert_int_eq(shmb_caller_recv(caller, call, bytes, sizeof(bytes), 0),
			 (int)info.record_len_max);
	/* Calls, records and values are of different channels. */
	refused(shmb_publisher_open(channel, NULL, &publisher), -EOPNOTSUPP);
	refused(shmb_subscriber_open(channel, NULL, &subscriber), -EOPNOTSUPP);
	refused(shmb_caller_open(stream, NULL, &none), -EOPNOTSUPP);
	refused(shmb_server_open(stream, NULL, &no_server), -EOPNOTSUPP);
	refused(shmb_channel_open(client, "test/call", 9, NULL, &other), -EPROTOTYPE);
	says("pattern");
	ok(shmb_channel_close(stream));
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(replies_can_be_many)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0);
	int32_t call = start(caller, 1, SHMB_FOREVER), asked = take(server, 1);
	uint64_t value = 3;

	ck_assert_uint_eq(shmb_server_view(server)->deadline_ns, 0);
	reply(server, asked, 10, SHMB_REPLY_MORE);
	receive(caller, call, 10, true);
	reply(server, asked, 11, SHMB_REPLY_MORE);
	reply(server, asked, 12, 0);
	receive(caller, call, 11, true);
	receive(caller, 0, 12, false);
	/* Or none at the end. */
	call = start(caller, 2, SHMB_FOREVER), asked = take(server, 2);
	reply(server, asked, 13, SHMB_REPLY_MORE);
	ok(shmb_server_end(server, asked, 0));
	refused(shmb_server_end(server, asked, 0), -ENOENT);
	receive(caller, call, 13, true);
	refused(shmb_caller_recv(caller, call, bytes, 8, 4000 * MS), -ENODATA);
	refused(shmb_caller_recv(caller, call, bytes, 8, 0), -ENOENT);
	/* Or a failure. */
	call = start(caller, 3, SHMB_FOREVER), asked = take(server, 3);
	ok(shmb_server_fail(server, asked, -42, "not today", 9, 0));
	refused(shmb_caller_recv(caller, call, bytes, 5, 4000 * MS), -EREMOTEIO);
	says("not today");
	ck_assert_int_eq(shmb_caller_view(caller)->code, -42);
	ck_assert_uint_eq(shmb_caller_view(caller)->len, 9);
	ck_assert_int_eq(memcmp(bytes, "not t", 5), 0);
	/* A stream is paced by who reads it. */
	call = start(caller, 4, SHMB_FOREVER), asked = take(server, 4);
	while (shmb_server_reply(server, asked, 0, bytes, 1000, SHMB_REPLY_MORE, 0) == 0)
		value++;
	ck_assert_uint_gt(value, 10);
	refused(shmb_server_reply(server, asked, 0, bytes, 1000, SHMB_REPLY_MORE, MS), -ETIMEDOUT);
	while (value-- > 3)
		ck_assert_int_eq(shmb_caller_recv(caller, call, bytes, 1000, 0), 1000);
	refused(shmb_caller_recv(caller, call, bytes, 1000, MS), -ETIMEDOUT);
	reply(server, asked, 14, 0);
	receive(caller, call, 14, false);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(calls_are_independent)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0);
	int32_t calls[64], asked[64];

	for (uint64_t i = 0; i < 64; i++)
		calls[i] = start(caller, i, SHMB_FOREVER);
	for (uint64_t i = 0; i < 64; i++)
		asked[i] = take(server, i);
	/* In any order, asked for in any other. */
	for (uint64_t i = 0; i < 64; i++)
		reply(server, asked[i * 13 % 64], i * 13 % 64, 0);
	refused(shmb_caller_recv(caller, calls[0], bytes, 1, 4000 * MS), -EMSGSIZE);
	for (uint64_t i = 0; i < 60; i++)
		receive(caller, calls[i * 7 % 64], i * 7 % 64, false);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(shmb_caller_recv(caller, 0, bytes, 8, 0), 8);
	refused(shmb_caller_recv(caller, 0, bytes, 8, 0), -ENOENT);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

/* So many may one caller alone have open at a server of a channel of 256 members: see server.c. */
#define ONE_CALLERS_SHARE (2048 / 256 + 1024)

START_TEST(nobody_uses_up_all_calls)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *greedy = caller_of(channel, 0), *other = caller_of(channel, 0);
	struct shmb_server_stats stats;
	int32_t first = 0, call;
	uint64_t n = 0;

	while (n < ONE_CALLERS_SHARE) {
		start(greedy, n, SHMB_FOREVER);
		call = take(server, n++);
		first = first ? first : call;
	}
	/* It is not heard any more, and feels it in the end. Others are. */
	call = shmb_caller_start(greedy, 0, bytes, 1000, SHMB_FOREVER);
	ok(call);
	refused(shmb_server_recv(server, bytes, sizeof(bytes), 0), -ETIMEDOUT);
	refused(shmb_server_recv(server, bytes, sizeof(bytes), 20 * MS), -ETIMEDOUT);
	while ((call = shmb_caller_start(greedy, 0, bytes, 1000, 0)) > 0)
		;
	refused(call, -ETIMEDOUT);
	says("calls of this caller open");
	ok(shmb_server_stats(server, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.n_held, 1);
	ck_assert_uint_eq(stats.n_open, ONE_CALLERS_SHARE);
	for (uint64_t i = 0; i < 100; i++) {
		call = start(other, i, SHMB_FOREVER);
		reply(server, take(server, i), i, 0);
		receive(other, call, i, false);
	}
	/* With each that ends one more is heard. */
	reply(server, first, 1, 0);
	ck_assert_int_eq(shmb_server_recv(server, bytes, sizeof(bytes), 4000 * MS), 1000);
	refused(shmb_server_recv(server, bytes, sizeof(bytes), 0), -ETIMEDOUT);
	/* What lies open for who has gone is of no use. */
	ok(shmb_caller_close(greedy));
	for (int rounds = 0; rounds < 5; rounds++) {
		greedy = caller_of(channel, 0);
		for (n = 0; n < ONE_CALLERS_SHARE; n++) {
			start(greedy, n, SHMB_FOREVER);
			take(server, n);
		}
		ok(shmb_caller_close(greedy));
	}
	call = start(other, 7, SHMB_FOREVER);
	reply(server, take(server, 7), 7, 0);
	receive(other, call, 7, false);
	ok(shmb_caller_close(other));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(what_nobody_waits_for_makes_room)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *greedy = caller_of(channel, 0);
	struct pollfd fd = { .fd = shmb_server_fd(server), .events = POLLIN };
	int32_t kept = 0;

	ok(fd.fd);
	for (uint64_t n = 0; n < ONE_CALLERS_SHARE; n++) {
		start(greedy, n, n < 2 ? SHMB_FOREVER : 100 * MS);
		kept = take(server, n);
	}
	start(greedy, 5, SHMB_FOREVER);
	/* In time its calls end by themselves, whatever the server does with them. */
	kept -= ONE_CALLERS_SHARE - 1;
	take(server, 5);
	ck_assert_int_eq(shmb_server_cancelled(server, kept), 0);
	/* An event loop hears of what it has not been told of. */
	for (uint64_t n = 0; n < ONE_CALLERS_SHARE - 3; n++) {
		start(greedy, n, SHMB_FOREVER);
		take(server, n);
	}
	start(greedy, 6, SHMB_FOREVER);
	arm_server(server);
	ck_assert_int_eq(poll(&fd, 1, 0), 0);
	reply(server, kept, 1, 0);
	ck_assert_int_eq(poll(&fd, 1, 4000), 1);
	take(server, 6);
	ok(shmb_caller_close(greedy));
	ok(shmb_server_close(server));
}
END_TEST

/* ---- types -------------------------------------------------------------------------------------- */

struct query {
	uint32_t id;
};

struct quote {
	double price;
	uint32_t count;
	uint32_t flags;
};

struct lookup {
	struct query request;
	struct quote reply;
};

SHMB_SCHEMA(lookup_schema, struct lookup, "test.lookup", SHMB_STRUCT(struct lookup, request),
	    SHMB_FIELD_IN(0, struct query, id), SHMB_STRUCT(struct lookup, reply),
	    SHMB_FIELD_IN(2, struct quote, price), SHMB_FIELD_IN(2, struct quote, count),
	    SHMB_FIELD_IN(2, struct quote, flags));

static int32_t open_typed(const void *schema, uint32_t len, uint32_t flags, uint32_t lane_len,
			  struct shmb_channel **ret_channel)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE | flags,
						.schema = schema,
						.schema_len = len,
						.lane_len = lane_len,
						.pattern = SHMB_CHANNEL_CALL,
						.backing = backing_of_run() };

	return shmb_channel_open(client, "test/typed", 10, &options, ret_channel);
}

START_TEST(types_are_checked)
{
	struct {
		struct shmb_schema head;
		struct shmb_schema_field fields[6];
	} other;
	struct shmb_channel *typed = NULL, *second = NULL;
	struct shmb_channel_info info;
	struct shmb_server *server;
	struct shmb_caller *caller;
	struct query query = { 7 };
	struct quote quote = { 1.5, 2, 3 };
	int32_t call;

	/* What a call channel cannot have. */
	memcpy(&other, &lookup_schema, sizeof(other));
	strcpy(other.fields[2].name, "answer");
	refused(open_typed(&other, sizeof(other), 0, 0, &typed), -EINVAL);
	says("'answer'");
	ok(open_typed(&lookup_schema, sizeof(lookup_schema), 0, 0, &typed));
	/* The field is named, with where it is. */
	memcpy(&other, &lookup_schema, sizeof(other));
	other.fields[4].kind = SHMB_KIND_I32;
	refused(open_typed(&other, sizeof(other), 0, 0, &second), -EPROTOTYPE);
	says("reply.count");
	memcpy(&other, &lookup_schema, sizeof(other));
	other.fields[1].kind = SHMB_KIND_F32;
	refused(open_typed(&other, sizeof(other), 0, 0, &second), -EPROTOTYPE);
	says("request.id");
	refused(open_typed(NULL, 0, 0, 0, &second), -EPROTOTYPE);
	says("test.lookup");
	ok(open_typed(NULL, 0, SHMB_CHANNEL_ANY_SCHEMA, 0, &second));
	ck_assert_int_eq(shmb_channel_schema(second, bytes, sizeof(bytes)), sizeof(lookup_schema));
	ck_assert_int_eq(memcmp(bytes, &lookup_schema, sizeof(lookup_schema)), 0);
	ok(shmb_channel_info(typed, &info, sizeof(info)));
	ck_assert_uint_eq(info.request_len, sizeof(query));
	ck_assert_uint_eq(info.reply_len, sizeof(quote));
	ck_assert_uint_eq(info.record_len, 0);
	server = server_of(second);
	caller = caller_of(typed, 0);
	refused(shmb_caller_start(caller, 0, bytes, sizeof(query) + 1, MS), -EINVAL);
	says("4 bytes, not 5");
	refused(shmb_caller_call(caller, 0, NULL, 0, &quote, sizeof(quote), MS), -EINVAL);
	call = shmb_caller_start(caller, 0, &query, sizeof(query), SHMB_FOREVER);
	ok(call);
	query.id = 0;
	ck_assert_int_eq(shmb_server_recv(server, &query, sizeof(query), 4000 * MS), sizeof(query));
	ck_assert_uint_eq(query.id, 7);
	refused(shmb_server_reply(server, shmb_server_view(server)->call, 0, &quote, 3, 0, 0),
		-EINVAL);
	says("16 bytes, not 3");
	ok(shmb_server_reply(server, shmb_server_view(server)->call, 0, &quote, sizeof(quote),
			     SHMB_REPLY_MORE, 0));
	/* What a failure says is text. */
	ok(shmb_server_fail(server, shmb_server_view(server)->call, 1, "no", 2, 0));
	quote.price = 0;
	ck_assert_int_eq(shmb_caller_recv(caller, call, &quote, sizeof(quote), 4000 * MS),
			 sizeof(quote));
	ck_assert(quote.price == 1.5);
	refused(shmb_caller_recv(caller, call, &quote, sizeof(quote), 4000 * MS), -EREMOTEIO);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
	ok(shmb_channel_close(second));
	ok(shmb_channel_close(typed));
}
END_TEST

START_TEST(one_side_can_be_bytes)
{
	struct reply_only {
		struct quote reply;
	};
	SHMB_SCHEMA(schema, struct reply_only, "test.reply", SHMB_STRUCT(struct reply_only, reply),
		    SHMB_FIELD_IN(0, struct quote, price), SHMB_FIELD_IN(0, struct quote, count),
		    SHMB_FIELD_IN(0, struct quote, flags));
	struct long_reply {
		struct {
			uint8_t body[4096];
		} reply;
	};
	SHMB_SCHEMA(too_long, struct long_reply, "test.long", SHMB_STRUCT(struct long_reply, reply),
		    { .name = "body",
		      .size = 1,
		      .count = 4096,
		      .parent = 0,
		      .kind = SHMB_KIND_U8,
		      .align = 1 });
	struct shmb_channel *typed = NULL;
	struct shmb_channel_info info;
	struct shmb_caller *caller;

	refused(open_typed(&too_long, sizeof(too_long), 0, 4096, &typed), -EINVAL);
	says("lane_len");
	ok(open_typed(&schema, sizeof(schema), 0, 0, &typed));
	ok(shmb_channel_info(typed, &info, sizeof(info)));
	ck_assert_uint_eq(info.request_len, 0);
	ck_assert_uint_eq(info.reply_len, sizeof(struct quote));
	caller = caller_of(typed, SHMB_CALLER_FAIL_FAST);
	refused(shmb_caller_start(caller, 0, bytes, 5, MS), -EHOSTUNREACH);
	ok(shmb_caller_close(caller));
	ok(shmb_channel_close(typed));
}
END_TEST

/* ---- time and cancelling ------------------------------------------------------------------------ */

START_TEST(time_runs_out)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0);
	struct shmb_caller_stats callers;
	struct shmb_server_stats servers;
	int32_t call, asked;

	refused(shmb_caller_call(caller, 0, bytes, 8, bytes, 8, 30 * MS), -ETIMEDOUT);
	usleep(40000);
	/* It is not handed out, and there is nothing behind it. */
	refused(shmb_server_recv(server, bytes, 8, 0), -ETIMEDOUT);
	ok(shmb_server_stats(server, &servers, sizeof(servers)));
	ck_assert_uint_eq(servers.expired, 1);
	/* While it is worked on. */
	call = start(caller, 1, 500 * MS);
	asked = take(server, 1);
	refused(shmb_caller_recv(caller, call, bytes, 8, MS), -ETIMEDOUT);
	refused(shmb_caller_recv(caller, 0, bytes, 8, MS), -ETIMEDOUT);
	refused(shmb_caller_recv(caller, 0, bytes, 8, 4000 * MS), -ETIME);
	ck_assert_int_eq(shmb_caller_view(caller)->call, call);
	refused(shmb_caller_recv(caller, call, bytes, 8, 0), -ENOENT);
	ck_assert_int_eq(shmb_server_cancelled(server, asked), 1);
	refused(shmb_server_reply(server, asked, 0, bytes, 8, 0, 0), -ECANCELED);
	refused(shmb_server_reply(server, asked, 0, bytes, 8, 0, 0), -ENOENT);
	/* A reply that is too late is dropped, and the next call is not mixed up with it. */
	call = start(caller, 2, 500 * MS);
	asked = take(server, 2);
	refused(shmb_caller_recv(caller, call, bytes, 8, 4000 * MS), -ETIME);
	reply(server, asked, 22, 0);
	call = start(caller, 3, SHMB_FOREVER);
	asked = take(server, 3);
	reply(server, asked, 33, 0);
	receive(caller, call, 33, false);
	ok(shmb_caller_stats(caller, &callers, sizeof(callers)));
	ck_assert_uint_eq(callers.timeouts, 3);
	ck_assert_uint_eq(callers.late, 1);
	ck_assert_uint_eq(callers.n_open, 0);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(a_call_is_cancelled)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0);
	int32_t call = start(caller, 1, SHMB_FOREVER), other = start(caller, 2, SHMB_FOREVER);
	int32_t asked = take(server, 1), third;
	struct shmb_server_stats servers;

	ck_assert_int_eq(shmb_server_cancelled(server, asked), 0);
	ok(shmb_caller_cancel(caller, call));
	refused(shmb_caller_cancel(caller, call), -ENOENT);
	third = start(caller, 3, SHMB_FOREVER);
	ck_assert_int_eq(shmb_server_cancelled(server, asked), 1);
	refused(shmb_server_end(server, asked, 0), -ECANCELED);
	/* What was read ahead comes in its order, but for what was cancelled meanwhile. */
	ok(shmb_caller_cancel(caller, other));
	start(caller, 4, SHMB_FOREVER);
	refused(shmb_server_cancelled(server, asked), -ENOENT);
	asked = take(server, 3);
	reply(server, asked, 30, 0);
	receive(caller, third, 30, false);
	take(server, 4);
	ok(shmb_server_stats(server, &servers, sizeof(servers)));
	ck_assert_uint_eq(servers.cancelled, 2);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(cancelling_needs_no_room)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0);
	int32_t calls[64], n = 0;

	while (shmb_caller_wait(caller, 1000, 0) == 0)
		ok(calls[n++] = shmb_caller_start(caller, 0, bytes, 1000, SHMB_FOREVER));
	refused(shmb_caller_start(caller, 0, bytes, 1000, 0), -ETIMEDOUT);
	ck_assert_int_gt(n, 8);
	refused(shmb_caller_wait(caller, 1000, 20 * MS), -ETIMEDOUT);
	for (int i = 0; i < n; i++)
		ok(shmb_caller_cancel(caller, calls[i]));
	refused(shmb_caller_recv(caller, calls[0], bytes, 8, 0), -ENOENT);
	ck_assert_int_eq(shmb_server_recv(server, bytes, 1000, 0), 1000);
	/* There is room now: with the next call they are told. */
	start(caller, 5, SHMB_FOREVER);
	ck_assert_int_eq(shmb_server_cancelled(server, shmb_server_view(server)->call), 1);
	take(server, 5);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

/* ---- coming and going --------------------------------------------------------------------------- */

START_TEST(a_server_that_goes_ends_its_calls)
{
	struct shmb_server *server = server_of(channel), *other;
	struct shmb_caller *caller = caller_of(channel, 0), *fast;
	struct shmb_caller_stats stats;
	int32_t call = start(caller, 1, SHMB_FOREVER), second = start(caller, 2, SHMB_FOREVER);
	int32_t asked = take(server, 1);

	/* What it has answered counts. */
	reply(server, asked, 10, 0);
	take(server, 2);
	ok(shmb_server_close(server));
	refused(shmb_caller_recv(caller, second, bytes, 8, 4000 * MS), -ECONNRESET);
	receive(caller, call, 10, false);
	ok(shmb_caller_stats(caller, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.resets, 1);
	ck_assert_uint_eq(stats.n_servers, 0);
	/* Nobody is there, until somebody comes. */
	refused(shmb_caller_call(caller, 0, bytes, 8, bytes, 8, 20 * MS), -ETIMEDOUT);
	says("no server");
	refused(shmb_caller_wait(caller, 8, 20 * MS), -ETIMEDOUT);
	fast = caller_of(channel, SHMB_CALLER_FAIL_FAST);
	refused(shmb_caller_call(fast, 0, bytes, 8, bytes, 8, SHMB_FOREVER), -EHOSTUNREACH);
	other = server_of(channel);
	ok(shmb_caller_wait(caller, 8, 4000 * MS));
	refused(shmb_caller_wait(caller, UINT32_MAX - 8, 0), -EMSGSIZE);
	call = start(caller, 3, SHMB_FOREVER);
	reply(other, take(other, 3), 30, 0);
	receive(caller, call, 30, false);
	ok(shmb_caller_close(fast));
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(other));
}
END_TEST

START_TEST(a_caller_that_goes_cancels_its_calls)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0), *other = caller_of(channel, 0);
	int32_t asked;

	start(caller, 1, SHMB_FOREVER);
	start(caller, 2, SHMB_FOREVER);
	asked = take(server, 1);
	ok(shmb_caller_close(caller));
	for (int i = 0; i < 4000 && shmb_server_cancelled(server, asked) == 0; i++)
		usleep(1000);
	ck_assert_int_eq(shmb_server_cancelled(server, asked), 1);
	refused(shmb_server_reply(server, asked, 0, bytes, 8, 0, 0), -ECONNRESET);
	start(other, 3, SHMB_FOREVER);
	take(server, 3);
	ok(shmb_caller_close(other));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(the_idlest_server_is_asked)
{
	struct shmb_server *servers[3] = { server_of(channel), server_of(channel),
					   server_of(channel) };
	struct shmb_caller *caller = caller_of(channel, 0);
	uint64_t value;

	for (uint64_t i = 0; i < 9; i++)
		start(caller, i, SHMB_FOREVER);
	/* Three each; whoever answers gets the next. */
	for (int i = 0; i < 3; i++)
		for (int k = 0; k < 3; k++)
			ck_assert_int_eq(shmb_server_recv(servers[i], &value, 8, 4000 * MS), 8);
	refused(shmb_server_recv(servers[1], &value, 8, 0), -ETIMEDOUT);
	reply(servers[1], shmb_server_view(servers[1])->call, 5, 0);
	ck_assert_int_eq(shmb_caller_recv(caller, 0, bytes, 8, 4000 * MS), 8);
	start(caller, 100, SHMB_FOREVER);
	take(servers[1], 100);
	ok(shmb_caller_close(caller));
	for (int i = 0; i < 3; i++)
		ok(shmb_server_close(servers[i]));
}
END_TEST

/* Answers with twice the number, until told 0. */
static void *serve(void *data)
{
	struct shmb_server *server = data;
	uint64_t value = 1;

	while (value) {
		int32_t len = shmb_server_recv(server, &value, sizeof(value), SHMB_FOREVER);

		ck_assert_msg(len == 8, "recv: %d (%s)", len, why());
		value *= 2;
		ok(shmb_server_reply(server, shmb_server_view(server)->call, 0, &value,
				     sizeof(value), 0, SHMB_FOREVER));
	}
	return NULL;
}

START_TEST(sleepers_are_woken)
{
	struct shmb_client *own = connect_to(shmb_broker_address(broker));
	struct shmb_channel *there = calls_of(own, 0);
	struct shmb_server *server = server_of(there);
	struct shmb_caller *caller = caller_of(channel, 0);
	int n = getenv("SHMB_TEST_QUICK") ? 500 : 5000;
	uint64_t value;
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, serve, server), 0);
	for (int i = n; i >= 0; i--) {
		uint64_t request = (uint64_t)i;

		if (i % 100 == 0)
			usleep(2000); /* both sleep by now */
		ck_assert_int_eq(shmb_caller_call(caller, 0, &request, 8, &value, 8, SHMB_FOREVER),
				 8);
		ck_assert_uint_eq(value, 2 * request);
	}
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
	ok(shmb_channel_close(there));
	ok(shmb_client_close(own));
}
END_TEST

/* ---- system calls ------------------------------------------------------------------------------- */

/* Of this thread. */
static __thread struct {
	uint32_t wakes;
	uint32_t waits;
	uint32_t yields;
	uint32_t others;
} count;

int __real_sched_yield(void);
int __wrap_sched_yield(void);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len);
ssize_t __real_send(int fd, const void *data, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t len, int flags);

long __wrap_syscall(long number, ...)
{
	long args[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		args[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_futex)
		count.wakes++;
	else if (number == SYS_futex_waitv)
		count.waits++;
	else
		count.others++;
	return __real_syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

int __wrap_sched_yield(void)
{
	count.yields++;
	return __real_sched_yield();
}

ssize_t __wrap_write(int fd, const void *data, size_t len)
{
	count.others++;
	return __real_write(fd, data, len);
}

ssize_t __wrap_send(int fd, const void *data, size_t len, int flags)
{
	count.others++;
	return __real_send(fd, data, len, flags);
}

#define N_COUNTED 500u

/*
 * One to wake the other side and one to wait, as with bare futexes; or, on one CPU, one to let the other
 * side run. Some calls may go otherwise: yielding is tried now and then, the broker may speak.
 */
static void check_count(const char *side)
{
	uint32_t all = count.wakes + count.waits + count.yields + count.others;

	printf("%s: %u wakes, %u waits, %u yields, %u others\n", side, count.wakes, count.waits,
	       count.yields, count.others);
	ck_assert_msg(all <= 2 * N_COUNTED + N_COUNTED / 2 && count.others <= N_COUNTED / 10,
		      "%s: %u wakes, %u waits, %u yields, %u others for %u calls", side,
		      count.wakes, count.waits, count.yields, count.others, N_COUNTED);
}

static void *serve_counted(void *data)
{
	struct shmb_server *server = data;
	uint64_t value;

	for (uint32_t i = 0; i <= N_COUNTED; i++) {
		ck_assert_int_eq(shmb_server_recv(server, &value, sizeof(value), SHMB_FOREVER), 8);
		ok(shmb_server_reply(server, shmb_server_view(server)->call, 0, &value,
				     sizeof(value), 0, SHMB_FOREVER));
		/* The first one meets the caller. */
		if (i == 0)
			memset(&count, 0, sizeof(count));
	}
	check_count("server");
	return NULL;
}

START_TEST(sleepers_take_two_system_calls_each)
{
	struct shmb_server_options options = { .options_len = sizeof(options),
					       .flags = SHMB_SERVER_NO_SPIN };
	struct shmb_client *own = connect_to(shmb_broker_address(broker));
	struct shmb_channel *there = calls_of(own, 0);
	struct shmb_server *server = NULL;
	struct shmb_caller *caller;
	pthread_t thread;
	uint64_t value;

	ok(shmb_server_open(there, &options, &server));
	caller = caller_of(channel, SHMB_CALLER_NO_SPIN);
	ck_assert_int_eq(pthread_create(&thread, NULL, serve_counted, server), 0);
	for (uint64_t i = 0; i <= N_COUNTED; i++) {
		ck_assert_int_eq(shmb_caller_call(caller, 0, &i, 8, &value, 8, SHMB_FOREVER), 8);
		ck_assert_uint_eq(value, i);
		if (i == 0)
			memset(&count, 0, sizeof(count));
	}
	check_count("caller");
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
	ok(shmb_channel_close(there));
	ok(shmb_client_close(own));
}
END_TEST

START_TEST(event_loops_are_told)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0);
	struct pollfd fds[2] = { { .fd = shmb_caller_fd(caller), .events = POLLIN },
				 { .fd = shmb_server_fd(server), .events = POLLIN } };
	int32_t call;

	ok(fds[0].fd);
	ok(fds[1].fd);
	arm_server(server);
	ck_assert_int_eq(poll(fds + 1, 1, 0), 0);
	call = start(caller, 1, SHMB_FOREVER);
	ck_assert_int_eq(poll(fds + 1, 1, 4000), 1);
	take(server, 1);
	arm_caller(caller);
	ck_assert_int_eq(poll(fds, 1, 0), 0);
	reply(server, shmb_server_view(server)->call, 2, 0);
	ck_assert_int_eq(poll(fds, 1, 4000), 1);
	ck_assert_int_eq(shmb_caller_arm(caller), 1);
	receive(caller, call, 2, false);
	/* And of a server that goes. */
	call = start(caller, 3, SHMB_FOREVER);
	arm_caller(caller);
	ok(shmb_server_close(server));
	ck_assert_int_eq(poll(fds, 1, 4000), 1);
	refused(shmb_caller_recv(caller, call, bytes, 8, 4000 * MS), -ECONNRESET);
	ok(shmb_caller_close(caller));
}
END_TEST

START_TEST(who_is_forked_has_nothing)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel, 0);
	int status;
	pid_t child;

	start(caller, 1, SHMB_FOREVER);
	take(server, 1);
	child = fork();
	if (child == 0) {
		bool all = shmb_caller_call(caller, 0, bytes, 1, bytes, 1, MS) == -ECHILD &&
			   shmb_server_recv(server, bytes, 1, MS) == -ECHILD &&
			   shmb_server_reply(server, shmb_server_view(server)->call, 0, bytes, 1, 0,
					     0) == -ECHILD &&
			   shmb_caller_close(caller) == 0 && shmb_server_close(server) == 0;

		_exit(all ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	reply(server, shmb_server_view(server)->call, 1, 0);
	receive(caller, 0, 1, false);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

/* ---- random joins, leaves and deaths, against a model ------------------------------------------- */

#define SERVERS	       3
#define CALLERS	       3
#define OPEN_MAX_CALLS 8
#define LEN_MAX_CALLS  (32u << 10)

/* What a server does with a request is in its low byte; the rest is its number. */
enum deed {
	ANSWER,
	STREAM, /* three replies */
	END, /* one reply, then none */
	FAIL,
	KEEP, /* never answer */
	DIE, /* be killed */
	LEAVE, /* close the server, open another */
	N_DEEDS
};

/* Or with blocks: then messages are of many lengths, and lent and held by turns. */
static bool is_long;

static struct shmb_channel *model_channel_of(struct shmb_client *of)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL,
						.lane_len = 1u << 14,
						.backing = backing_of_run(),
						.record_len_max = is_long ? LEN_MAX_CALLS : 0 };
	struct shmb_channel *opened = NULL;

	ok(shmb_channel_open(of, "test/model", 10, &options, &opened));
	return opened;
}

/* Everything that is said of a value has its length, and is made of it. */
static uint32_t len_of(uint64_t value)
{
	return is_long ? 8 * (1 +
			      (uint32_t)(value * 0x9e3779b97f4a7c15u >> 40) % (LEN_MAX_CALLS / 8))
		       : 8;
}

static void stretch(uint64_t *words, uint64_t value)
{
	for (uint32_t i = 0; i < len_of(value) / 8; i++)
		words[i] = value;
}

/* Returns the value, or 0 if there is anything else. */
static uint64_t value_of(const struct shmb_call_view *view, const void *data)
{
	const uint64_t *words = data;
	uint64_t value = view->len >= 8 ? words[0] : 0;

	if (view->len != len_of(value))
		return 0;
	for (uint32_t i = 0; i < view->len / 8; i++)
		if (words[i] != value)
			return 0;
	return value;
}

static const void *place_of(const struct shmb_call_view *view, bool held)
{
	return held ? (const void *)(uintptr_t)view->data : bytes;
}

static uint64_t hear(struct shmb_server *server)
{
	bool hold = is_long && rand() % 2;
	int32_t result = hold ? shmb_server_recv_hold(server, SHMB_FOREVER)
			      : shmb_server_recv(server, bytes, sizeof(bytes), SHMB_FOREVER);
	uint64_t value;

	if (result < 0)
		abort();
	value = value_of(shmb_server_view(server), place_of(shmb_server_view(server), hold));
	if (!value || (hold && shmb_server_unhold(server, (uint32_t)result) < 0))
		abort();
	return value;
}

static void answer(struct shmb_server *server, int32_t call, uint64_t value, uint32_t flags)
{
	if (is_long && rand() % 2 &&
	    shmb_server_loan(server, call, len_of(value), 1000 * MS) == 0) {
		stretch((uint64_t *)(uintptr_t)shmb_server_view(server)->data, value);
		shmb_server_reply_loan(server, 9, len_of(value), flags);
		return;
	}
	stretch((uint64_t *)(void *)bytes, value);
	shmb_server_reply(server, call, 9, bytes, len_of(value), flags, 1000 * MS);
}

static _Noreturn void serve_at_random(void)
{
	struct shmb_client *own = connect_to(shmb_broker_address(broker));
	struct shmb_channel *there = model_channel_of(own);
	struct shmb_server *server = server_of(there);

	for (;;) {
		uint64_t value = hear(server);
		int32_t call = shmb_server_view(server)->call;

		switch ((enum deed)(value & 0xff)) {
		case STREAM:
			for (int i = 0; i < 2; i++)
				answer(server, call, value, SHMB_REPLY_MORE);
			answer(server, call, value, 0);
			break;
		case END:
			answer(server, call, value, SHMB_REPLY_MORE);
			shmb_server_end(server, call, 1000 * MS);
			break;
		case FAIL:
			shmb_server_fail(server, call, (int32_t)(value >> 8), "x", 1, 1000 * MS);
			break;
		case KEEP:
			break;
		case DIE:
			raise(SIGKILL);
			break;
		case LEAVE:
			shmb_server_close(server);
			server = server_of(there);
			break;
		default:
			answer(server, call, value, 0);
			break;
		}
	}
}

/* A call as it should be. */
struct expected {
	int32_t call; /* 0: none */
	uint64_t value;
	int left; /* replies */
};

static struct {
	struct shmb_channel *channel;
	pid_t servers[SERVERS];
	struct shmb_caller *callers[CALLERS];
	struct expected calls[CALLERS][OPEN_MAX_CALLS];
	uint64_t n_ends, n_resets, n_times;
} model;

static const int replies_of[N_DEEDS] = { 1, 3, 1, 0, 0, 0, 0 };

static void start_server(int i)
{
	model.servers[i] = fork();
	if (model.servers[i] == 0)
		serve_at_random();
}

static void restart_dead_servers(void)
{
	for (int i = 0; i < SERVERS; i++)
		if (waitpid(model.servers[i], NULL, WNOHANG) == model.servers[i])
			start_server(i);
}

static struct expected *find_expected(int caller, int32_t call)
{
	for (int i = 0; i < OPEN_MAX_CALLS; i++)
		if (model.calls[caller][i].call == call)
			return &model.calls[caller][i];
	ck_abort_msg("call %d is not open", call);
}

/* Something has come of a call: may it? */
static void check(int k, int32_t result, uint64_t value)
{
	const struct shmb_call_view *view = shmb_caller_view(model.callers[k]);
	struct expected *expected = find_expected(k, view->call);
	enum deed deed = (enum deed)(expected->value & 0xff);
	bool over = true;

	if (result >= 0) {
		ck_assert_uint_eq(value, expected->value);
		ck_assert_int_gt(expected->left, 0);
		expected->left--;
		over = !view->more;
		ck_assert_int_eq(over, expected->left == 0 && deed != END);
	} else if (result == -ENODATA) {
		ck_assert_int_eq(deed, END);
		ck_assert_int_eq(expected->left, 0);
	} else if (result == -EREMOTEIO) {
		ck_assert_int_eq(deed, FAIL);
		ck_assert_int_eq(view->code, (int32_t)(expected->value >> 8));
	} else if (result == -ETIME) {
		model.n_times++;
	} else {
		ck_assert_msg(result == -ECONNRESET, "recv: %d (%s)", result, why());
		model.n_resets++;
	}
	if (over) {
		model.n_ends++;
		expected->call = 0;
	}
}

static int32_t put(struct shmb_caller *caller, uint64_t value, int64_t timeout_ns)
{
	int32_t result;

	if (!is_long || rand() % 2) {
		stretch((uint64_t *)(void *)bytes, value);
		return shmb_caller_start(caller, 0, bytes, len_of(value), timeout_ns);
	}
	do {
		result = shmb_caller_loan(caller, len_of(value), timeout_ns);
		if (result < 0)
			return result;
		stretch((uint64_t *)(uintptr_t)shmb_caller_view(caller)->data, value);
		if (rand() % 8 == 0)
			ok(shmb_caller_cancel_loan(caller));
		else
			result = shmb_caller_start_loan(caller, 0, len_of(value), timeout_ns);
		/* The server that was to get it has died. */
	} while (result == 0 || result == -ECONNRESET);
	return result;
}

static void step_start(int k, uint64_t n)
{
	struct expected *expected = find_expected(k, 0);
	enum deed deed = (enum deed)(rand() % N_DEEDS);
	/* Deaths are rarer than answers. */
	uint64_t value;
	int32_t call;

	if (deed >= KEEP && rand() % 4)
		deed = ANSWER;
	value = n << 8 | deed;
	call = put(model.callers[k], value, deed == KEEP ? 20 * MS : 20000 * MS);
	if (call == -ETIMEDOUT && deed == KEEP)
		return; /* all servers were dead */
	ck_assert_msg(call > 0, "start: %d (%s)", call, why());
	*expected = (struct expected){ call, value, replies_of[deed] };
}

static int n_open(int k)
{
	int n = 0;

	for (int i = 0; i < OPEN_MAX_CALLS; i++)
		n += model.calls[k][i].call != 0;
	return n;
}

static void step_receive(int k, int64_t timeout_ns)
{
	struct shmb_caller *caller = model.callers[k];
	bool hold = is_long && rand() % 2;
	int32_t result = hold ? shmb_caller_recv_hold(caller, 0, timeout_ns)
			      : shmb_caller_recv(caller, 0, bytes, sizeof(bytes), timeout_ns);

	if (result == -ETIMEDOUT) {
		ck_assert_int_eq(timeout_ns, 0);
		return;
	}
	check(k, result,
	      result >= 0
		      ? value_of(shmb_caller_view(caller), place_of(shmb_caller_view(caller), hold))
		      : 0);
	if (hold && result >= 0)
		ok(shmb_caller_unhold(caller, (uint32_t)result));
}

static void step(uint64_t n)
{
	int k = rand() % CALLERS, what = rand() % 100, i = rand() % OPEN_MAX_CALLS;

	restart_dead_servers();
	if (!model.callers[k]) {
		model.callers[k] = caller_of(model.channel, 0);
	} else if (what < 45 && n_open(k) < OPEN_MAX_CALLS) {
		step_start(k, n);
	} else if (what < 85 && n_open(k)) {
		step_receive(k, what < 60 ? 0 : 30000 * MS);
	} else if (what < 93 && model.calls[k][i].call) {
		ok(shmb_caller_cancel(model.callers[k], model.calls[k][i].call));
		model.calls[k][i].call = 0;
	} else if (what < 95) {
		ok(shmb_caller_close(model.callers[k]));
		model.callers[k] = NULL;
		memset(model.calls[k], 0, sizeof(model.calls[k]));
	} else if (what < 97) {
		kill(model.servers[rand() % SERVERS], SIGKILL);
	}
}

START_TEST(random_joins_leaves_and_deaths)
{
	int steps = getenv("SHMB_TEST_QUICK") ? 200 : 2000;
	unsigned seed = (unsigned)time(NULL);

	printf("seed %u\n", seed);
	srand(seed);
	is_long = _i;
	model.channel = model_channel_of(client);
	for (int i = 0; i < SERVERS; i++)
		start_server(i);
	for (int n = 1; n <= steps; n++)
		step((uint64_t)n);
	/* Every call ends. */
	for (int k = 0; k < CALLERS; k++) {
		while (n_open(k)) {
			restart_dead_servers();
			step_receive(k, 30000 * MS);
		}
		ok(shmb_caller_close(model.callers[k]));
	}
	for (int i = 0; i < SERVERS; i++) {
		kill(model.servers[i], SIGKILL);
		waitpid(model.servers[i], NULL, 0);
	}
	ok(shmb_channel_close(model.channel));
	printf("%llu ends, %llu resets, %llu timeouts\n", (unsigned long long)model.n_ends,
	       (unsigned long long)model.n_resets, (unsigned long long)model.n_times);
}
END_TEST

int main(void)
{
	TCase *cases[1] = { tcase_create("call") };

	tcase_set_timeout(cases[0], 120);
	tcase_add_checked_fixture(cases[0], set_up_channel, tear_down_channel);
	tcase_add_test(cases[0], a_call_is_answered);
	tcase_add_test(cases[0], wrong_use_is_refused);
	tcase_add_test(cases[0], replies_can_be_many);
	tcase_add_test(cases[0], calls_are_independent);
	tcase_add_test(cases[0], nobody_uses_up_all_calls);
	tcase_add_test(cases[0], what_nobody_waits_for_makes_room);
	tcase_add_test(cases[0], types_are_checked);
	tcase_add_test(cases[0], one_side_can_be_bytes);
	tcase_add_test(cases[0], time_runs_out);
	tcase_add_test(cases[0], a_call_is_cancelled);
	tcase_add_test(cases[0], cancelling_needs_no_room);
	tcase_add_test(cases[0], a_server_that_goes_ends_its_calls);
	tcase_add_test(cases[0], a_caller_that_goes_cancels_its_calls);
	tcase_add_test(cases[0], the_idlest_server_is_asked);
	tcase_add_test(cases[0], sleepers_are_woken);
	tcase_add_test(cases[0], sleepers_take_two_system_calls_each);
	tcase_add_test(cases[0], event_loops_are_told);
	tcase_add_test(cases[0], who_is_forked_has_nothing);
	/* Without blocks, and with. */
	tcase_add_loop_test(cases[0], random_joins_leaves_and_deaths, 0, 2);
	return run_suite("call", cases, 1);
}
