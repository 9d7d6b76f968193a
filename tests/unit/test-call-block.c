/* SPDX-License-Identifier: Apache-2.0 */

/* Requests and replies of any length, lent and held, through the public API against an embedded broker. */

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/fixture.h"

#define KIB	       1024u
#define MIB	       (1024u * KIB)
#define RECORD_LEN_MAX MIB
#define INLINE_LEN_MAX 2000u
#define N_BLOCKS       4u
#define N_HOLDS	       3u
#define KEPT_LEN       (64 * KIB)
#define PATIENCE       (20000 * MS)

static struct shmb_channel *channel;
static uint64_t out[2 * MIB / 8], in[2 * MIB / 8];

static struct shmb_channel *calls_of(struct shmb_client *of, const char *name,
				     const struct shmb_channel_options *wanted)
{
	struct shmb_channel_options options = *wanted;
	struct shmb_channel *opened = NULL;

	options.options_len = sizeof(options);
	options.flags = SHMB_CHANNEL_CREATE;
	options.pattern = SHMB_CHANNEL_CALL;
	options.backing = backing_of_run();
	ok(shmb_channel_open(of, name, (uint32_t)strlen(name), &options, &opened));
	return opened;
}

static const struct shmb_channel_options usual = {
	.lane_len = 16 * KIB,
	.record_len_max = RECORD_LEN_MAX,
	.inline_len_max = INLINE_LEN_MAX,
	.arena_len = N_BLOCKS * (RECORD_LEN_MAX + 4096),
	.max_holds = N_HOLDS,
};

static void set_up_channel(void)
{
	set_up();
	channel = calls_of(client, "test/long-calls", &usual);
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

static struct shmb_caller *caller_of(struct shmb_channel *of)
{
	struct shmb_caller *caller = NULL;

	ok(shmb_caller_open(of, NULL, &caller));
	return caller;
}

static struct shmb_server *server_of(struct shmb_channel *of)
{
	struct shmb_server *server = NULL;

	ok(shmb_server_open(of, NULL, &server));
	return server;
}

/* Words that tell which message it is, and where in it they are. */
static void fill(void *data, uint32_t len, uint64_t number)
{
	uint64_t *words = data;

	for (uint32_t i = 0; i < len / 8; i++)
		words[i] = number << 32 | i;
}

static void check_words(const void *data, uint32_t len, uint64_t number)
{
	const uint64_t *words = data;
	uint32_t i = 0;

	ck_assert_uint_eq((uintptr_t)data % 8, 0);
	while (i < len / 8 && words[i] == (number << 32 | i))
		i++;
	ck_assert_msg(i == len / 8, "word %u of message %llu is %llx", i,
		      (unsigned long long)number, i < len / 8 ? (unsigned long long)words[i] : 0);
}

static void *loan_of(const struct shmb_call_view *view)
{
	return (void *)(uintptr_t)view->data;
}

static int32_t start(struct shmb_caller *caller, uint32_t len, uint64_t number)
{
	int32_t call;

	fill(out, len, number);
	call = shmb_caller_start(caller, 7, out, len, PATIENCE);
	ck_assert_msg(call > 0, "start: %d (%s)", call, why());
	return call;
}

/* Returns the call as the server names it. */
static int32_t take(struct shmb_server *server, uint32_t len, uint64_t number)
{
	ck_assert_int_eq(shmb_server_recv(server, in, sizeof(in), PATIENCE), (int32_t)len);
	check_words(in, len, number);
	ck_assert_uint_eq(shmb_server_view(server)->type, 7);
	return shmb_server_view(server)->call;
}

static void reply(struct shmb_server *server, int32_t call, uint32_t len, uint64_t number,
		  uint32_t flags)
{
	fill(out, len, number);
	ok(shmb_server_reply(server, call, 9, out, len, flags, PATIENCE));
}

static void receive(struct shmb_caller *caller, int32_t call, uint32_t len, uint64_t number)
{
	ck_assert_int_eq(shmb_caller_recv(caller, call, in, sizeof(in), PATIENCE), (int32_t)len);
	check_words(in, len, number);
	ck_assert_uint_eq(shmb_caller_view(caller)->type, 9);
}

static int32_t receive_hold(struct shmb_caller *caller, int32_t call, uint32_t len, uint64_t number)
{
	int32_t hold = shmb_caller_recv_hold(caller, call, PATIENCE);

	ck_assert_msg(hold >= 0, "recv_hold: %d (%s)", hold, why());
	ck_assert_uint_eq(shmb_caller_view(caller)->len, len);
	check_words(loan_of(shmb_caller_view(caller)), len, number);
	return hold;
}

static int32_t take_hold(struct shmb_server *server, uint32_t len, uint64_t number)
{
	int32_t hold = shmb_server_recv_hold(server, PATIENCE);

	ck_assert_msg(hold >= 0, "recv_hold: %d (%s)", hold, why());
	ck_assert_uint_eq(shmb_server_view(server)->len, len);
	check_words(loan_of(shmb_server_view(server)), len, number);
	return hold;
}

/* ---- copies ------------------------------------------------------------------------------------ */

START_TEST(every_length_arrives_whole)
{
	static const uint32_t lens[] = {
		0,    8,       1024,	  INLINE_LEN_MAX,     INLINE_LEN_MAX + 8, 4096,
		4104, 8 * KIB, 100 * KIB, RECORD_LEN_MAX - 8, MIB / 2 + 8,	  RECORD_LEN_MAX,
	};
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel);
	uint64_t number = 0;

	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
			uint32_t back = lens[(i * 5 + round) % (sizeof(lens) / sizeof(*lens))];
			int32_t call = start(caller, lens[i], ++number);
			int32_t asked = take(server, lens[i], number);

			reply(server, asked, back, number + 1000, SHMB_REPLY_MORE);
			reply(server, asked, lens[i], number + 2000, 0);
			receive(caller, call, back, number + 1000);
			receive(caller, 0, lens[i], number + 2000);
		}
	}
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(limits_are_told_and_kept)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel);
	struct shmb_channel_options wrong = usual;
	struct shmb_channel *other = NULL;
	struct shmb_channel_info info;
	char text[1024];
	int32_t call;

	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.record_len_max, RECORD_LEN_MAX);
	ck_assert_uint_eq(info.inline_len_max, INLINE_LEN_MAX);
	ck_assert_uint_eq(info.max_holds, N_HOLDS);
	refused(shmb_caller_start(caller, 7, out, RECORD_LEN_MAX + 1, PATIENCE), -EMSGSIZE);
	says("1048576 bytes, not 1048577");
	refused(shmb_caller_loan(caller, RECORD_LEN_MAX + 1, PATIENCE), -EMSGSIZE);
	refused(shmb_caller_wait(caller, RECORD_LEN_MAX + 1, PATIENCE), -EMSGSIZE);
	ok(shmb_caller_wait(caller, RECORD_LEN_MAX, PATIENCE));
	/* What is too long for its buffer stays. */
	call = start(caller, 64 * KIB, 1);
	refused(shmb_server_recv(server, in, 8, PATIENCE), -EMSGSIZE);
	ck_assert_uint_eq(shmb_server_view(server)->len, 64 * KIB);
	reply(server, take(server, 64 * KIB, 1), 80 * KIB, 2, 0);
	refused(shmb_caller_recv(caller, call, in, 8, PATIENCE), -EMSGSIZE);
	ck_assert_uint_eq(shmb_caller_view(caller)->len, 80 * KIB);
	receive(caller, call, 80 * KIB, 2);
	/* A failure needs no block. */
	memset(text, 'x', sizeof(text));
	call = start(caller, 8, 3);
	ok(shmb_server_fail(server, take(server, 8, 3), 5, text, sizeof(text), PATIENCE));
	refused(shmb_caller_recv_hold(caller, call, PATIENCE), -EREMOTEIO);
	ck_assert_int_eq(shmb_caller_view(caller)->code, 5);
	/* A lane must have room for one. */
	wrong.inline_len_max = 1;
	other = calls_of(client, "test/other", &wrong);
	ok(shmb_channel_info(other, &info, sizeof(info)));
	ck_assert_uint_eq(info.inline_len_max, 1028);
	ok(shmb_channel_close(other));
	wrong.inline_len_max = 16 * KIB;
	wrong.options_len = sizeof(wrong);
	wrong.flags = SHMB_CHANNEL_CREATE;
	wrong.pattern = SHMB_CHANNEL_CALL;
	refused(shmb_channel_open(client, "test/wrong", 10, &wrong, &other), -EINVAL);
	says("8168 bytes");
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(a_short_record_len_max_leaves_room_for_failures)
{
	struct shmb_channel *narrow =
		calls_of(client, "test/narrow",
			 &(struct shmb_channel_options){ .lane_len = 4096, .record_len_max = 64 });
	struct shmb_server *server = server_of(narrow);
	struct shmb_caller *caller = caller_of(narrow);
	char text[1024];
	int32_t call;

	memset(text, 'x', sizeof(text));
	refused(shmb_caller_start(caller, 7, out, 72, PATIENCE), -EMSGSIZE);
	call = start(caller, 64, 1);
	ok(shmb_server_fail(server, take(server, 64, 1), 5, text, sizeof(text), PATIENCE));
	refused(shmb_caller_recv(caller, call, in, sizeof(in), PATIENCE), -EREMOTEIO);
	ck_assert_uint_eq(shmb_caller_view(caller)->len, sizeof(text));
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
	ok(shmb_channel_close(narrow));
}
END_TEST

struct frame {
	uint64_t words[32 * KIB];
};

struct frames {
	struct frame request;
	struct frame reply;
};

SHMB_SCHEMA(schema, struct frames, "test.frames", SHMB_STRUCT(struct frames, request),
	    SHMB_ARRAY_IN(0, struct frame, words), SHMB_STRUCT(struct frames, reply),
	    SHMB_ARRAY_IN(2, struct frame, words));

START_TEST(types_may_be_longer_than_lanes)
{
	struct shmb_channel_options typed = usual;
	struct shmb_server *server;
	struct shmb_caller *caller;
	struct shmb_channel *of, *none = NULL;
	const uint32_t len = sizeof(struct frame);

	typed.schema = &schema;
	typed.schema_len = sizeof(schema);
	of = calls_of(client, "test/typed", &typed);
	server = server_of(of);
	caller = caller_of(of);
	refused(shmb_caller_loan(caller, len - 8, PATIENCE), -EINVAL);
	ok(shmb_caller_loan(caller, len, PATIENCE));
	fill(loan_of(shmb_caller_view(caller)), len, 1);
	refused(shmb_caller_start_loan(caller, 7, len - 8, PATIENCE), -EINVAL);
	ok(shmb_caller_start_loan(caller, 7, len, PATIENCE));
	reply(server, take(server, len, 1), len, 2, 0);
	receive(caller, 0, len, 2);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
	ok(shmb_channel_close(of));
	typed.record_len_max = len - 8;
	typed.options_len = sizeof(typed);
	typed.flags = SHMB_CHANNEL_CREATE;
	typed.pattern = SHMB_CHANNEL_CALL;
	refused(shmb_channel_open(client, "test/typed", 10, &typed, &none), -EINVAL);
	says("record_len_max of 262136");
}
END_TEST

/* ---- loans and holds --------------------------------------------------------------------------- */

START_TEST(nothing_is_copied)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel);
	const uint32_t lens[] = { 8, INLINE_LEN_MAX, 64 * KIB, RECORD_LEN_MAX };

	for (uint64_t n = 1; n <= 200; n++) {
		uint32_t len = lens[n % 4], back = lens[n / 4 % 4];
		int32_t call, asked, hold;

		ok(shmb_caller_loan(caller, len, PATIENCE));
		ck_assert_uint_eq(shmb_caller_view(caller)->len, len);
		if (len > INLINE_LEN_MAX)
			ck_assert_uint_eq(shmb_caller_view(caller)->data % 4096, 0);
		fill(loan_of(shmb_caller_view(caller)), len, n);
		/* Nobody sees it before. */
		refused(shmb_server_recv(server, in, sizeof(in), 0), -ETIMEDOUT);
		call = shmb_caller_start_loan(caller, 7, len, PATIENCE);
		ok(call);
		hold = take_hold(server, len, n);
		asked = shmb_server_view(server)->call;
		ck_assert_uint_eq(shmb_server_view(server)->type, 7);
		ok(shmb_server_loan(server, asked, back, PATIENCE));
		ck_assert_int_eq(shmb_server_view(server)->call, asked);
		fill(loan_of(shmb_server_view(server)), back, n + 1000);
		ok(shmb_server_reply_loan(server, 9, back, 0));
		ok(shmb_server_unhold(server, (uint32_t)hold));
		refused(shmb_server_unhold(server, (uint32_t)hold), -ENOENT);
		hold = receive_hold(caller, n % 2 ? call : 0, back, n + 1000);
		ck_assert_int_eq(shmb_caller_view(caller)->call, call);
		ck_assert_uint_eq(shmb_caller_view(caller)->type, 9);
		ck_assert_uint_eq(shmb_caller_view(caller)->more, 0);
		ok(shmb_caller_unhold(caller, (uint32_t)hold));
		refused(shmb_caller_recv(caller, call, in, 8, 0), -ENOENT);
	}
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

/* The oldest is held, while more go by than there is memory for. */
START_TEST(what_is_held_stays_while_others_go_on)
{
	const struct shmb_call_view *view;
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel);
	const void *request, *answer;
	int32_t hold, asked, kept;

	start(caller, RECORD_LEN_MAX, 1);
	hold = take_hold(server, RECORD_LEN_MAX, 1);
	asked = shmb_server_view(server)->call;
	request = loan_of(shmb_server_view(server));
	reply(server, asked, RECORD_LEN_MAX, 2, 0);
	kept = receive_hold(caller, 0, RECORD_LEN_MAX, 2);
	view = shmb_caller_view(caller);
	answer = loan_of(view);
	for (uint64_t n = 3; n < 3 + 4 * N_BLOCKS; n++) {
		start(caller, RECORD_LEN_MAX, n);
		reply(server, take(server, RECORD_LEN_MAX, n), RECORD_LEN_MAX, n + 1000, 0);
		receive(caller, 0, RECORD_LEN_MAX, n + 1000);
		check_words(request, RECORD_LEN_MAX, 1);
		check_words(answer, RECORD_LEN_MAX, 2);
	}
	ok(shmb_server_unhold(server, (uint32_t)hold));
	ok(shmb_caller_unhold(caller, (uint32_t)kept));
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(holds_are_limited)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel);
	int32_t holds[N_HOLDS], call;

	for (uint32_t i = 0; i < N_HOLDS; i++) {
		/* One of them lies in the lane. */
		start(caller, i ? RECORD_LEN_MAX : 8, i);
		holds[i] = take_hold(server, i ? RECORD_LEN_MAX : 8, i);
	}
	start(caller, RECORD_LEN_MAX, N_HOLDS);
	refused(shmb_server_recv_hold(server, PATIENCE), -EDQUOT);
	says("3 holds");
	/* All other blocks are in use: there is room when one is let go of. */
	start(caller, RECORD_LEN_MAX, N_HOLDS + 1);
	refused(shmb_caller_wait(caller, RECORD_LEN_MAX, 20 * MS), -ETIMEDOUT);
	refused(shmb_caller_start(caller, 7, out, RECORD_LEN_MAX, 20 * MS), -ETIMEDOUT);
	refused(shmb_caller_loan(caller, RECORD_LEN_MAX, 20 * MS), -ETIMEDOUT);
	call = start(caller, 8, N_HOLDS + 2);
	ok(shmb_caller_cancel(caller, call));
	ok(shmb_server_unhold(server, (uint32_t)holds[1]));
	ok(shmb_caller_wait(caller, RECORD_LEN_MAX, PATIENCE));
	holds[1] = take_hold(server, RECORD_LEN_MAX, N_HOLDS);
	/* Those that are left go with the server. */
	ok(shmb_server_close(server));
	ok(shmb_caller_close(caller));
}
END_TEST

START_TEST(what_came_early_is_held_as_well)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel);
	int32_t first = start(caller, 8, 1), second = start(caller, 8, 2), hold, kept;
	const void *early;

	reply(server, take(server, 8, 1), 100 * KIB, 3, 0);
	reply(server, take(server, 8, 2), 8, 4, 0);
	/* The first reply is put aside for the second. */
	receive(caller, second, 8, 4);
	hold = receive_hold(caller, first, 100 * KIB, 3);
	early = loan_of(shmb_caller_view(caller));
	/* So are requests, for who asks whether one was cancelled. */
	first = start(caller, 100 * KIB, 5);
	second = take(server, 100 * KIB, 5);
	start(caller, 100 * KIB, 6);
	ck_assert_int_eq(shmb_server_cancelled(server, second), 0);
	kept = take_hold(server, 100 * KIB, 6);
	check_words(early, 100 * KIB, 3);
	ok(shmb_server_unhold(server, (uint32_t)kept));
	ok(shmb_caller_unhold(caller, (uint32_t)hold));
	refused(shmb_caller_unhold(caller, (uint32_t)hold), -ENOENT);
	refused(shmb_caller_unhold(caller, UINT32_MAX), -ENOENT);
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

START_TEST(wrong_use_of_loans_is_refused)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel);
	int32_t call, asked, other;

	refused(shmb_caller_loan(NULL, 8, 0), -EINVAL);
	refused(shmb_caller_start_loan(caller, 7, 8, 0), -EINVAL);
	refused(shmb_caller_cancel_loan(caller), -EINVAL);
	refused(shmb_server_reply_loan(server, 7, 8, 0), -EINVAL);
	refused(shmb_server_cancel_loan(server), -EINVAL);
	refused(shmb_server_loan(server, 1, 8, 0), -ENOENT);
	for (uint32_t len = 64; len <= 64 * KIB; len *= KIB) {
		call = start(caller, 8, 1);
		other = start(caller, 8, 2);
		ok(shmb_caller_loan(caller, len, PATIENCE));
		refused(shmb_caller_loan(caller, len, PATIENCE), -EBUSY);
		refused(shmb_caller_start(caller, 7, out, 8, PATIENCE), -EBUSY);
		refused(shmb_caller_wait(caller, 8, PATIENCE), -EBUSY);
		refused(shmb_caller_start_loan(caller, 7, len + 1, 0), -EINVAL);
		refused(shmb_caller_start_loan(caller, 4096, len, 0), -EINVAL);
		/* Replies come meanwhile. */
		asked = take(server, 8, 1);
		ok(shmb_server_loan(server, asked, len, 0));
		refused(shmb_server_loan(server, asked, len, 0), -EBUSY);
		refused(shmb_server_reply(server, asked, 9, out, 8, 0, 0), -EBUSY);
		refused(shmb_server_reply_loan(server, 9, len + 1, 0), -EINVAL);
		refused(shmb_server_reply_loan(server, 9, len, 2), -EINVAL);
		/* And less may be sent than was lent. */
		fill(loan_of(shmb_server_view(server)), 16, 3);
		ok(shmb_server_reply_loan(server, 9, 16, SHMB_REPLY_MORE));
		ok(shmb_server_loan(server, asked, len, 0));
		ok(shmb_server_cancel_loan(server));
		reply(server, asked, 8, 4, 0);
		receive(caller, call, 16, 3);
		receive(caller, call, 8, 4);
		/* Whoever is cancelled meanwhile is told when the loan is not out any more. */
		ok(shmb_caller_cancel(caller, other));
		asked = take(server, 8, 2);
		ck_assert_int_eq(shmb_server_cancelled(server, asked), 0);
		ok(shmb_caller_cancel_loan(caller));
		call = start(caller, 8, 5);
		ck_assert_int_eq(shmb_server_cancelled(server, asked), 1);
		refused(shmb_server_loan(server, asked, len, 0), -ECANCELED);
		reply(server, take(server, 8, 5), 8, 6, 0);
		receive(caller, call, 8, 6);
	}
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

/* Without blocks there are loans of what fits into a lane, and no holds. */
START_TEST(lanes_are_lent_as_well)
{
	struct shmb_channel *plain = calls_of(
		client, "test/plain", &(struct shmb_channel_options){ .lane_len = 16 * KIB });
	struct shmb_server *server = server_of(plain);
	struct shmb_caller *caller = caller_of(plain);

	refused(shmb_caller_loan(caller, 8 * KIB, PATIENCE), -EMSGSIZE);
	for (uint64_t n = 0; n < 100; n++) {
		ok(shmb_caller_loan(caller, 8000, PATIENCE));
		fill(loan_of(shmb_caller_view(caller)), 8000, n);
		ok(shmb_caller_start_loan(caller, 7, 8000, PATIENCE));
		refused(shmb_server_recv_hold(server, 0), -EDQUOT);
		ok(shmb_server_loan(server, take(server, 8000, n), 8000, PATIENCE));
		fill(loan_of(shmb_server_view(server)), 8000, n + 1000);
		ok(shmb_server_reply_loan(server, 9, 8000, 0));
		refused(shmb_caller_recv_hold(caller, 0, 0), -EDQUOT);
		receive(caller, 0, 8000, n + 1000);
	}
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
	ok(shmb_channel_close(plain));
}
END_TEST

/* ---- deaths ------------------------------------------------------------------------------------ */

static pid_t fork_with(void (*work)(struct shmb_channel *of))
{
	pid_t child = fork();

	if (child == 0) {
		struct shmb_client *own = connect_to(shmb_broker_address(broker));

		work(calls_of(own, "test/long-calls", &usual));
		_exit(0);
	}
	return child;
}

static void kill_and_wait(pid_t child)
{
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
}

static _Noreturn void serve_long(struct shmb_channel *of)
{
	struct shmb_server *server = server_of(of);

	for (;;) {
		int32_t hold = shmb_server_recv_hold(server, SHMB_FOREVER);
		const struct shmb_call_view *view = shmb_server_view(server);

		/* Those that are short are not answered. */
		if (hold >= 0 && view->len > 8)
			shmb_server_reply(server, view->call, 9,
					  (const void *)(uintptr_t)view->data, view->len, 0,
					  PATIENCE);
		if (hold >= 0 && view->len != KEPT_LEN)
			shmb_server_unhold(server, (uint32_t)hold);
		if (hold < 0)
			usleep(1000);
	}
}

static void serve_one(struct shmb_channel *of)
{
	serve_long(of);
}

START_TEST(what_a_dead_server_said_stays)
{
	struct shmb_caller *caller = caller_of(channel);

	for (uint64_t n = 1; n <= 8; n++) {
		pid_t child = fork_with(serve_one);
		int32_t hold, unanswered;
		const void *held;

		start(caller, RECORD_LEN_MAX, n);
		hold = receive_hold(caller, 0, RECORD_LEN_MAX, n);
		held = loan_of(shmb_caller_view(caller));
		/* It dies with a request of ours, and while we write the next one. */
		unanswered = start(caller, 8, 0);
		ok(shmb_caller_loan(caller, n % 2 ? 64 : RECORD_LEN_MAX, PATIENCE));
		kill_and_wait(child);
		refused(shmb_caller_recv(caller, unanswered, in, 8, PATIENCE), -ECONNRESET);
		/* Nobody will see it, but it is still ours to write. */
		fill(loan_of(shmb_caller_view(caller)), 64, n);
		refused(shmb_caller_start_loan(caller, 7, 64, PATIENCE), -ECONNRESET);
		refused(shmb_caller_cancel_loan(caller), -EINVAL);
		check_words(held, RECORD_LEN_MAX, n);
		ok(shmb_caller_unhold(caller, (uint32_t)hold));
	}
	ok(shmb_caller_close(caller));
}
END_TEST

static void call_long(struct shmb_channel *of)
{
	struct shmb_caller *caller = caller_of(of);

	start(caller, RECORD_LEN_MAX, 1);
	ok(shmb_caller_recv(caller, 0, in, 8, SHMB_FOREVER));
}

START_TEST(what_a_dead_caller_said_stays)
{
	struct shmb_server *server = server_of(channel);

	for (uint64_t n = 1; n <= 8; n++) {
		pid_t child = fork_with(call_long);
		int32_t hold = take_hold(server, RECORD_LEN_MAX, 1);
		int32_t call = shmb_server_view(server)->call, gone;
		const void *held = loan_of(shmb_server_view(server));

		ok(shmb_server_loan(server, call, n % 2 ? 64 : RECORD_LEN_MAX, PATIENCE));
		kill_and_wait(child);
		while ((gone = shmb_server_cancelled(server, call)) == 0)
			usleep(1000);
		ck_assert_int_eq(gone, 1);
		fill(loan_of(shmb_server_view(server)), 64, 2);
		refused(shmb_server_reply_loan(server, 9, 64, 0), -ECONNRESET);
		refused(shmb_server_cancel_loan(server), -EINVAL);
		check_words(held, RECORD_LEN_MAX, 1);
		ok(shmb_server_unhold(server, (uint32_t)hold));
	}
	ok(shmb_server_close(server));
}
END_TEST

/* The holds of a server that dies are free for the caller's next requests to others. */
START_TEST(holds_die_with_their_holder)
{
	struct shmb_caller *caller = caller_of(channel);

	for (int round = 0; round < 4; round++) {
		pid_t child = fork_with(serve_one);

		for (uint64_t n = 1; n <= N_HOLDS; n++) {
			start(caller, KEPT_LEN, n);
			receive(caller, 0, KEPT_LEN, n);
		}
		start(caller, 8, 0);
		kill_and_wait(child);
		refused(shmb_caller_recv(caller, 0, in, 8, PATIENCE), -ECONNRESET);
	}
	ok(shmb_caller_close(caller));
}
END_TEST

START_TEST(who_is_forked_has_nothing)
{
	struct shmb_server *server = server_of(channel);
	struct shmb_caller *caller = caller_of(channel);
	int32_t hold, status;
	pid_t child;

	start(caller, RECORD_LEN_MAX, 1);
	hold = take_hold(server, RECORD_LEN_MAX, 1);
	ok(shmb_caller_loan(caller, 64 * KIB, PATIENCE));
	ok(shmb_server_loan(server, shmb_server_view(server)->call, 64 * KIB, PATIENCE));
	child = fork();
	if (child == 0) {
		bool all = shmb_caller_start_loan(caller, 7, 8, MS) == -ECHILD &&
			   shmb_caller_cancel_loan(caller) == -ECHILD &&
			   shmb_caller_recv_hold(caller, 0, MS) == -ECHILD &&
			   shmb_server_recv_hold(server, MS) == -ECHILD &&
			   shmb_server_unhold(server, (uint32_t)hold) == -ECHILD &&
			   shmb_server_reply_loan(server, 9, 8, 0) == -ECHILD &&
			   shmb_caller_close(caller) == 0 && shmb_server_close(server) == 0;

		_exit(all ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ok(shmb_server_cancel_loan(server));
	ok(shmb_caller_cancel_loan(caller));
	ok(shmb_server_unhold(server, (uint32_t)hold));
	ok(shmb_caller_close(caller));
	ok(shmb_server_close(server));
}
END_TEST

int main(void)
{
	TCase *cases[1] = { tcase_create("call-block") };

	tcase_set_timeout(cases[0], 120);
	tcase_add_checked_fixture(cases[0], set_up_channel, tear_down_channel);
	tcase_add_test(cases[0], every_length_arrives_whole);
	tcase_add_test(cases[0], limits_are_told_and_kept);
	tcase_add_test(cases[0], a_short_record_len_max_leaves_room_for_failures);
	tcase_add_test(cases[0], types_may_be_longer_than_lanes);
	tcase_add_test(cases[0], nothing_is_copied);
	tcase_add_test(cases[0], what_is_held_stays_while_others_go_on);
	tcase_add_test(cases[0], holds_are_limited);
	tcase_add_test(cases[0], what_came_early_is_held_as_well);
	tcase_add_test(cases[0], wrong_use_of_loans_is_refused);
	tcase_add_test(cases[0], lanes_are_lent_as_well);
	tcase_add_test(cases[0], what_a_dead_server_said_stays);
	tcase_add_test(cases[0], what_a_dead_caller_said_stays);
	tcase_add_test(cases[0], holds_die_with_their_holder);
	tcase_add_test(cases[0], who_is_forked_has_nothing);
	return run_suite("call-block", cases, 1);
}
