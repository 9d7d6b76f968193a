/* SPDX-License-Identifier: Apache-2.0 */

/* Publishers of different priorities, against a model that knows what each of them has sent. */

#include <errno.h>
#include <stdbool.h>

#include "tests/unit/fixture.h"

#define LANE_LEN     65536u
#define N_PUBLISHERS 24
#define N_PENDING    2000u
#define TURN	     16u /* records of one publisher while another one of the same priority waits */

static struct shmb_channel *channel;

/* A publisher, or one that has gone and has left something. */
struct source {
	struct shmb_publisher *publisher; /* NULL: there is none, or it has gone */
	uint64_t id; /* 0: nothing of it is left */
	uint32_t priority;
	uint64_t sent;
	uint64_t received;
};

static struct source sources[N_PUBLISHERS];
static uint32_t in_a_row;
static uint64_t last_id;

static struct shmb_channel *channel_with(const char *name, uint32_t pattern, uint32_t flags)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE | flags,
						.pattern = pattern,
						.lane_len = pattern == SHMB_CHANNEL_STATE
								    ? 0
								    : LANE_LEN,
						.backing = backing_of_run() };
	struct shmb_channel *made = NULL;

	ok(shmb_channel_open(client, name, (uint32_t)strlen(name), &options, &made));
	return made;
}

static void set_up_stream(void)
{
	set_up();
	channel = channel_with("test/priority", SHMB_CHANNEL_STREAM, 0);
}

static void set_up_queue(void)
{
	set_up();
	channel = channel_with("test/priority", SHMB_CHANNEL_QUEUE, 0);
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

static struct shmb_publisher *urgent_publisher(struct shmb_channel *of, uint32_t priority)
{
	struct shmb_publisher_options options = { .options_len = sizeof(options),
						  .priority = priority };
	struct shmb_publisher *publisher = NULL;

	ok(shmb_publisher_open(of, &options, &publisher));
	return publisher;
}

/* All that the broker has said is taken in. */
static void settle(void)
{
	ok(shmb_client_ping(client, 60000 * MS));
}

static uint64_t pending(const struct source *source)
{
	return source->id ? source->sent - source->received : 0;
}

static void join_or_leave(void)
{
	struct source *source = &sources[rand() % N_PUBLISHERS];
	struct shmb_publisher_stats stats;

	if (source->publisher) {
		ok(shmb_publisher_close(source->publisher));
		source->publisher = NULL;
	} else if (!pending(source)) {
		*source = (struct source){ .priority = (uint32_t)rand() % 8 };
		source->publisher = urgent_publisher(channel, source->priority);
		ok(shmb_publisher_stats(source->publisher, &stats, sizeof(stats)));
		source->id = stats.publisher_id;
	}
	in_a_row = 0; /* turns may begin anew then */
	settle();
}

static void send_some(void)
{
	struct source *source = &sources[rand() % N_PUBLISHERS];

	for (int n = rand() % 60; source->publisher && n > 0; n--) {
		int32_t result =
			shmb_publisher_send(source->publisher, &source->sent, sizeof(source->sent));

		if (result == -EAGAIN)
			return;
		ok(result);
		source->sent++;
	}
}

static struct source *source_of(uint64_t id)
{
	for (unsigned i = 0; i < N_PUBLISHERS; i++)
		if (sources[i].id == id)
			return &sources[i];
	ck_abort_msg("a record of nobody");
}

/* It has come from where it should have, and nobody of the same priority waits for too long. */
static void check_turn(uint64_t id, uint64_t value)
{
	struct source *source = source_of(id);
	bool others = false;

	ck_assert_uint_eq(value, source->received);
	for (unsigned i = 0; i < N_PUBLISHERS; i++) {
		ck_assert_msg(!pending(&sources[i]) || sources[i].priority <= source->priority,
			      "a record of priority %u before one of %u", source->priority,
			      sources[i].priority);
		others |= &sources[i] != source && sources[i].priority == source->priority &&
			  pending(&sources[i]);
	}
	in_a_row = !others ? 0 : id == last_id ? in_a_row + 1 : 1;
	last_id = id;
	ck_assert_uint_le(in_a_row, TURN);
	source->received++;
}

/* Returns whether there was one. */
static bool receive_one(struct shmb_subscriber *subscriber, bool queue)
{
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint64_t value = UINT64_MAX;
	int32_t result;

	/* Who only looks uses up nobody's turn. */
	for (int n = rand() % 3; n > 0; n--)
		(void)shmb_subscriber_wait(subscriber, 0);
	result = queue ? shmb_subscriber_take(subscriber, &value, sizeof(value))
		       : shmb_subscriber_recv(subscriber, &value, sizeof(value));
	if (result == -EAGAIN)
		return false;
	ck_assert_int_eq(result, sizeof(value));
	check_turn(view->publisher_id, value);
	if (queue)
		ok(shmb_subscriber_done(subscriber, view->term));
	return true;
}

static void receive_many(struct shmb_subscriber *subscriber)
{
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	int32_t n = shmb_subscriber_peek(subscriber, 1 + (uint32_t)rand() % 5);

	if (n == -EAGAIN)
		return;
	ok(n);
	for (int32_t i = 0; i < n; i++) {
		uint64_t value;

		memcpy(&value, (const uint8_t *)(uintptr_t)view->data + (uint32_t)i * view->stride,
		       sizeof(value));
		in_a_row = 0; /* those of a peek are one look */
		check_turn(view->publisher_id, value);
	}
	in_a_row = 0;
	ok(shmb_subscriber_release(subscriber, (uint32_t)n));
}

static void play(bool queue)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	int rounds = getenv("SHMB_TEST_QUICK") ? 300 : 1500;

	srand(11);
	memset(sources, 0, sizeof(sources));
	for (int round = 0; round < rounds; round++) {
		if (rand() % 3 == 0)
			join_or_leave();
		for (int n = rand() % 6; n > 0; n--)
			send_some();
		for (int n = rand() % 120; n > 0 && receive_one(subscriber, queue); n--)
			;
		if (!queue)
			receive_many(subscriber);
	}
	while (receive_one(subscriber, queue))
		;
	for (unsigned i = 0; i < N_PUBLISHERS; i++) {
		ck_assert_uint_eq(pending(&sources[i]), 0);
		ok(shmb_publisher_close(sources[i].publisher));
	}
	ok(shmb_subscriber_close(subscriber));
}

START_TEST(the_highest_priority_comes_first_whoever_joins_and_leaves)
{
	play(false);
}
END_TEST

START_TEST(workers_take_the_highest_priority_first)
{
	play(true);
}
END_TEST

/* What failed comes after what is new; of that again the highest first. */
START_TEST(of_what_has_failed_the_highest_priority_comes_first)
{
	struct shmb_subscriber *worker = subscriber_of(channel, 0);
	struct shmb_publisher *publishers[] = { urgent_publisher(channel, 1),
						urgent_publisher(channel, 6),
						urgent_publisher(channel, 3) };
	static const uint32_t order[] = { 6, 3, 1, 6, 3, 1 };
	uint32_t value = 1;

	settle();
	ok(shmb_publisher_send(publishers[0], &value, 4));
	value = 6;
	ok(shmb_publisher_send(publishers[1], &value, 4));
	value = 3;
	ok(shmb_publisher_send(publishers[2], &value, 4));
	for (unsigned i = 0; i < 3; i++) {
		uint64_t jobs[3];
		uint32_t lens[3], values[3];

		if (i) {
			ck_assert_int_eq(shmb_subscriber_take(worker, &value, 4), 4);
			ck_assert_uint_eq(value, order[i - 1]);
			ok(shmb_subscriber_done(worker, shmb_subscriber_view(worker)->term));
			continue;
		}
		ck_assert_int_eq(
			shmb_subscriber_take_many(worker, values, sizeof(values), lens, jobs, 3),
			3);
		ck_assert_mem_eq(values, order, sizeof(values));
		for (unsigned k = 0; k < 3; k++)
			ok(shmb_subscriber_fail(worker, jobs[k]));
	}
	for (unsigned i = 0; i < 3; i++)
		ok(shmb_publisher_close(publishers[i]));
	ok(shmb_subscriber_close(worker));
}
END_TEST

START_TEST(what_has_no_priority_says_so)
{
	struct shmb_channel *ordered =
		channel_with("test/ordered", SHMB_CHANNEL_STREAM, SHMB_CHANNEL_ORDERED);
	struct shmb_channel *state = channel_with("test/state", SHMB_CHANNEL_STATE, 0);
	struct shmb_publisher_options options = { .options_len = sizeof(options), .priority = 8 };
	struct shmb_publisher *none = NULL;

	refused(shmb_publisher_open(channel, &options, &none), -EINVAL);
	says("0 to 7, not 8");
	options.priority = 1;
	refused(shmb_publisher_open(ordered, &options, &none), -EINVAL);
	says("in one order");
	refused(shmb_publisher_open(state, &options, &none), -EINVAL);
	says("state channel");
	ck_assert_ptr_null(none);
	ok(shmb_channel_close(ordered));
	ok(shmb_channel_close(state));
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("stream"), tcase_create("queue") };

	tcase_add_checked_fixture(cases[0], set_up_stream, tear_down_channel);
	tcase_add_test(cases[0], the_highest_priority_comes_first_whoever_joins_and_leaves);
	tcase_add_test(cases[0], what_has_no_priority_says_so);
	tcase_add_checked_fixture(cases[1], set_up_queue, tear_down_channel);
	tcase_add_test(cases[1], workers_take_the_highest_priority_first);
	tcase_add_test(cases[1], of_what_has_failed_the_highest_priority_comes_first);
	for (int i = 0; i < 2; i++)
		tcase_set_timeout(cases[i], 120);
	return run_suite("priority", cases, 2);
}
