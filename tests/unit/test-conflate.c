/* SPDX-License-Identifier: Apache-2.0 */

/* Subscribers that receive only the newest record of each key, against a model that remembers all. */

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include "lib/newest.h"
#include "tests/unit/fixture.h"

#define LANE_LEN     16384u
#define N_PUBLISHERS 6
#define N_KEYS	     9u
#define KEY_OFFSET   12u
#define KEY_LEN	     3u
#define N_SENT_MAX   60000u

static struct shmb_channel *channel;

struct record {
	uint64_t number;
	uint32_t pad;
	uint8_t key[KEY_LEN];
	uint8_t rest[49];
};

/* What the model knows of a record: all with the same @kind supersede each other. */
struct sent {
	uint8_t kind; /* 0: too short to have a key */
	uint8_t len;
};

struct source {
	struct shmb_publisher *publisher;
	uint64_t id;
	uint64_t n_sent;
	uint64_t next; /* the first that was neither received nor stepped over */
	struct sent sent[N_SENT_MAX];
};

static struct source sources[N_PUBLISHERS];
static uint64_t model_conflated, model_received, total_sent;

static struct shmb_channel *channel_with(const char *name, uint32_t flags, uint32_t ttl_ms)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE | flags,
						.lane_len = LANE_LEN,
						.ttl_ms = ttl_ms,
						.backing = backing_of_run() };
	struct shmb_channel *made = NULL;

	ok(shmb_channel_open(client, name, (uint32_t)strlen(name), &options, &made));
	return made;
}

static struct shmb_subscriber *conflating(struct shmb_channel *of, uint32_t flags, uint32_t offset,
					  uint32_t len)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .flags = flags,
						   .conflate_offset = offset,
						   .conflate_len = len };
	struct shmb_subscriber *subscriber = NULL;

	ok(shmb_subscriber_open(of, &options, &subscriber));
	return subscriber;
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

static struct shmb_subscriber_stats stats_of(struct shmb_subscriber *subscriber)
{
	struct shmb_subscriber_stats stats;

	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	return stats;
}

/* ---- the model ---------------------------------------------------------------------------------- */

static bool is_superseded(const struct source *source, uint64_t number)
{
	uint8_t kind = source->sent[number].kind;

	for (uint64_t later = number + 1; kind && later < source->n_sent; later++)
		if (source->sent[later].kind == kind)
			return true;
	return false;
}

static void join_or_leave(void)
{
	struct source *source = &sources[rand() % N_PUBLISHERS];
	struct shmb_publisher_stats stats;

	if (source->publisher) {
		ok(shmb_publisher_close(source->publisher));
		source->publisher = NULL;
	} else if (source->next == source->n_sent) {
		source->next = source->n_sent = 0;
		source->publisher = publisher_of(channel, 0);
		ok(shmb_publisher_stats(source->publisher, &stats, sizeof(stats)));
		source->id = stats.publisher_id;
	}
	ok(shmb_client_ping(client, 60000 * MS));
}

static bool send_one(struct source *source)
{
	struct record record = { .number = source->n_sent };
	uint32_t key = (uint32_t)rand() % N_KEYS, type = rand() % 5 == 0;
	uint32_t len = KEY_OFFSET + KEY_LEN + (uint32_t)rand() % 49;
	struct sent *sent = &source->sent[source->n_sent];
	int32_t result;

	if (rand() % 20 == 0)
		len = 8 + (uint32_t)rand() % (KEY_OFFSET + KEY_LEN - 8);
	record.pad = (uint32_t)rand(); /* before the key, and not of it */
	record.key[key % KEY_LEN] = (uint8_t)(key + 1);
	memset(record.rest, rand(), sizeof(record.rest));
	result = shmb_publisher_send_typed(source->publisher, &record, len, type);
	if (result == -EAGAIN)
		return false;
	ok(result);
	sent->kind = len < KEY_OFFSET + KEY_LEN ? 0 : (uint8_t)(1 + key + N_KEYS * type);
	sent->len = (uint8_t)len;
	source->n_sent++;
	total_sent++;
	return true;
}

static struct source *source_of(uint64_t id)
{
	for (unsigned i = 0; i < N_PUBLISHERS; i++)
		if (sources[i].id == id)
			return &sources[i];
	ck_abort_msg("a record of nobody");
}

/* A reliable subscriber: all before it were superseded. A lossy one may have lost some of them. */
static void check(const struct shmb_view *view, const struct record *record, int32_t len,
		  bool lossy)
{
	struct source *source = source_of(view->publisher_id);

	ck_assert_uint_eq(record->number, view->sequence);
	ck_assert_uint_ge(record->number, source->next);
	ck_assert_uint_lt(record->number, source->n_sent);
	ck_assert_uint_eq((uint32_t)len, source->sent[record->number].len);
	ck_assert_msg(!is_superseded(source, record->number), "record %llu has been superseded",
		      (unsigned long long)record->number);
	for (; source->next < record->number; source->next++) {
		model_conflated++;
		ck_assert_msg(lossy || is_superseded(source, source->next),
			      "record %llu was the newest", (unsigned long long)source->next);
	}
	source->next++;
	model_received++;
}

static bool receive_one(struct shmb_subscriber *subscriber, bool lossy)
{
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	struct record record = { 0 };
	int32_t result;

	for (int n = rand() % 3; n > 0; n--)
		(void)shmb_subscriber_wait(subscriber, 0);
	if (rand() % 4 == 0) {
		result = shmb_subscriber_peek(subscriber, 1 + (uint32_t)rand() % 4);
		if (result == -EAGAIN)
			return false;
		ck_assert_int_eq(result, 1);
		memcpy(&record, (const void *)(uintptr_t)view->data, view->len);
		check(view, &record, (int32_t)view->len, lossy);
		ok(shmb_subscriber_release(subscriber, 1));
		return true;
	}
	result = shmb_subscriber_recv(subscriber, &record, sizeof(record));
	if (result == -EAGAIN)
		return false;
	ok(result);
	check(view, &record, result, lossy);
	return true;
}

static void play(uint32_t flags)
{
	bool lossy = flags & SHMB_SUBSCRIBER_LOSSY;
	struct shmb_subscriber *subscriber = conflating(channel, flags, KEY_OFFSET, KEY_LEN);
	int rounds = getenv("SHMB_TEST_QUICK") ? 200 : 700;
	struct shmb_subscriber_stats stats;

	srand(5);
	for (int round = 0; round < rounds; round++) {
		if (rand() % 6 == 0)
			join_or_leave();
		for (int n = rand() % 10; n > 0; n--) {
			struct source *source = &sources[rand() % N_PUBLISHERS];

			for (int k = rand() % (lossy ? 400 : 60); source->publisher && k > 0; k--)
				if (source->n_sent == N_SENT_MAX || !send_one(source))
					break;
		}
		for (int n = rand() % 40; n > 0 && receive_one(subscriber, lossy); n--)
			;
	}
	while (receive_one(subscriber, lossy))
		;
	stats = stats_of(subscriber);
	ck_assert_uint_eq(stats.received, model_received);
	ck_assert_uint_eq(stats.received + stats.conflated + stats.lost, total_sent);
	ck_assert_uint_gt(stats.conflated, 0);
	if (lossy)
		ck_assert_uint_gt(stats.lost, 0);
	else
		ck_assert_uint_eq(stats.lost, 0);
	for (unsigned i = 0; i < N_PUBLISHERS; i++)
		ok(shmb_publisher_close(sources[i].publisher));
	ok(shmb_subscriber_close(subscriber));
}

static void set_up_stream(void)
{
	set_up();
	channel = channel_with("test/conflate", 0, 0);
}

/* Each record has 16 bytes before its payload. */
static void set_up_extended(void)
{
	set_up();
	channel = channel_with("test/conflate", 0, 3600000);
}

START_TEST(only_the_newest_of_each_key_comes_whoever_joins_and_leaves)
{
	play(_i ? SHMB_SUBSCRIBER_LOSSY : 0);
}
END_TEST

/* ---- at the same time ---------------------------------------------------------------------------- */

#define N_FAST 300000u

struct tick {
	uint32_t key;
	uint32_t number;
};

static void *publish_fast(void *arg)
{
	struct shmb_publisher *publisher = arg;
	uint32_t n = getenv("SHMB_TEST_QUICK") ? N_FAST / 10 : N_FAST;

	for (uint32_t i = 1; i <= n; i++) {
		struct tick tick = { .key = i * 2654435761u >> 29, .number = i };

		if (shmb_publisher_send_wait(publisher, &tick, sizeof(tick), 60000 * MS) < 0)
			return (void *)1;
	}
	return NULL;
}

START_TEST(a_slow_reader_of_a_fast_publisher_ends_with_the_newest_of_all)
{
	struct shmb_subscriber *subscriber =
		conflating(channel, _i ? SHMB_SUBSCRIBER_LOSSY : 0, 0, 4);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint32_t n = getenv("SHMB_TEST_QUICK") ? N_FAST / 10 : N_FAST, latest[8] = { 0 };
	uint32_t expected[8] = { 0 };
	struct shmb_subscriber_stats stats = { 0 };
	pthread_t thread;
	void *failed;

	for (uint32_t i = 1; i <= n; i++)
		expected[i * 2654435761u >> 29] = i;
	ok(shmb_client_ping(client, 60000 * MS));
	ck_assert_int_eq(pthread_create(&thread, NULL, publish_fast, publisher), 0);
	do {
		struct tick tick;
		int32_t result = shmb_subscriber_recv(subscriber, &tick, sizeof(tick));

		if (result == -EAGAIN) {
			ok(shmb_subscriber_wait(subscriber, 60000 * MS));
			continue;
		}
		ck_assert_int_eq(result, sizeof(tick));
		ck_assert_uint_lt(tick.key, 8);
		ck_assert_uint_gt(tick.number, latest[tick.key]);
		latest[tick.key] = tick.number;
		for (volatile int slow = rand() % 2000; slow > 0; slow--)
			;
		stats = stats_of(subscriber);
	} while (stats.received + stats.conflated + stats.lost < n);
	pthread_join(thread, &failed);
	ck_assert_ptr_null(failed);
	ck_assert_uint_eq(stats.received + stats.conflated + stats.lost, n);
	ck_assert_mem_eq(latest, expected, sizeof(latest));
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* ---- the table ------------------------------------------------------------------------------------ */

/* More keys than it has room for at first; those of records that were passed make room. */
START_TEST(the_table_grows_and_forgets)
{
	struct shmb_newest newest;
	struct shmb_newest_key key = { .words = { 0 } };

	shmb_newest_init(&newest, 8);
	for (uint64_t i = 0; i < 100000; i++) {
		key.words[1] = i;
		ok(shmb_newest_note(&newest, &key, i, i > 500 ? i - 500 : 0));
		for (uint64_t back = 0; back <= i && back < 500; back += 71) {
			key.words[1] = i - back;
			ck_assert(!shmb_newest_supersedes(&newest, &key, i - back));
			ck_assert(i == back || shmb_newest_supersedes(&newest, &key, i - back - 1));
		}
	}
	ck_assert_uint_le(newest.cap, 4096);
	shmb_newest_clear(&newest);
	ck_assert(!shmb_newest_supersedes(&newest, &key, 0));
	/* All of them count: it is full some time, and says so. */
	for (uint64_t i = 0; i <= 1u << 20; i++) {
		key.words[1] = i;
		if (shmb_newest_note(&newest, &key, i, 0) == -ENOMEM)
			break;
	}
	ck_assert_uint_lt(key.words[1], 1u << 20);
	key.words[1] = 1;
	ck_assert(shmb_newest_supersedes(&newest, &key, 0));
	shmb_newest_deinit(&newest);
}
END_TEST

/* ---- where it makes no sense ---------------------------------------------------------------------- */

static void no_conflation(const struct shmb_channel_options *options, uint32_t len,
			  const char *sentence)
{
	struct shmb_subscriber_options how = { .options_len = sizeof(how), .conflate_len = len };
	struct shmb_subscriber *none = NULL;
	struct shmb_channel *made = NULL;

	ok(shmb_channel_open(client, "test/other", 10, options, &made));
	refused(shmb_subscriber_open(made, &how, &none), -EINVAL);
	says(sentence);
	ck_assert_ptr_null(none);
	ok(shmb_channel_close(made));
}

struct pair {
	uint32_t a;
	uint32_t b;
};
SHMB_SCHEMA(pair_schema, struct pair, "test.pair", SHMB_FIELD(struct pair, a),
	    SHMB_FIELD(struct pair, b));

START_TEST(what_cannot_be_conflated_says_so)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE };
	struct shmb_subscriber_options how = { .options_len = sizeof(how), .conflate_offset = 4 };
	struct shmb_subscriber *none = NULL;

	no_conflation(&options, SHMB_CONFLATE_LEN_MAX + 1, "at most 64 bytes");
	options.pattern = SHMB_CHANNEL_QUEUE;
	no_conflation(&options, 8, "a queue are work");
	options.pattern = SHMB_CHANNEL_STATE;
	no_conflation(&options, 8, "state channel");
	options.pattern = SHMB_CHANNEL_STREAM;
	options.record_len_max = 1 << 20;
	no_conflation(&options, 8, "blocks");
	options.record_len_max = 0;
	options.schema = &pair_schema;
	options.schema_len = sizeof(pair_schema);
	no_conflation(&options, 9, "of this channel has 8");
	refused(shmb_subscriber_open(channel, &how, &none), -EINVAL);
	says("conflate_len is 0");
}
END_TEST

/* In one order for all: of each publisher the newest, and still in that order. */
START_TEST(an_ordered_channel_stays_in_order)
{
	struct shmb_channel *ordered = channel_with("test/ordered", SHMB_CHANNEL_ORDERED, 0);
	struct shmb_subscriber *subscriber = conflating(ordered, 0, 0, 4);
	struct shmb_publisher *publishers[] = { publisher_of(ordered, 0),
						publisher_of(ordered, 0) };
	uint32_t latest[2][4] = { { 0 } }, last = 0, n = 0;
	struct shmb_subscriber_stats stats;
	struct tick tick;

	ok(shmb_client_ping(client, 60000 * MS));
	srand(3);
	for (uint32_t i = 1; i <= 200; i++) {
		unsigned from = (unsigned)rand() % 2;

		tick = (struct tick){ .key = (uint32_t)rand() % 4, .number = i };
		latest[from][tick.key] = i;
		ok(shmb_publisher_send(publishers[from], &tick, sizeof(tick)));
	}
	while (shmb_subscriber_recv(subscriber, &tick, sizeof(tick)) == sizeof(tick)) {
		ck_assert_uint_gt(tick.number, last);
		ck_assert(latest[0][tick.key] == tick.number || latest[1][tick.key] == tick.number);
		last = tick.number;
		n++;
	}
	ck_assert_uint_eq(n, 8);
	stats = stats_of(subscriber);
	ck_assert_uint_eq(stats.conflated, 192);
	ck_assert_uint_eq(stats.disordered, 0);
	for (unsigned i = 0; i < 2; i++)
		ok(shmb_publisher_close(publishers[i]));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(ordered));
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("stream"), tcase_create("extended") };

	tcase_add_checked_fixture(cases[0], set_up_stream, tear_down_channel);
	tcase_add_loop_test(cases[0], only_the_newest_of_each_key_comes_whoever_joins_and_leaves, 0,
			    2);
	tcase_add_loop_test(cases[0], a_slow_reader_of_a_fast_publisher_ends_with_the_newest_of_all,
			    0, 2);
	tcase_add_test(cases[0], the_table_grows_and_forgets);
	tcase_add_test(cases[0], what_cannot_be_conflated_says_so);
	tcase_add_test(cases[0], an_ordered_channel_stays_in_order);
	tcase_add_checked_fixture(cases[1], set_up_extended, tear_down_channel);
	tcase_add_loop_test(cases[1], only_the_newest_of_each_key_comes_whoever_joins_and_leaves, 0,
			    2);
	for (int i = 0; i < 2; i++)
		tcase_set_timeout(cases[i], 120);
	return run_suite("conflate", cases, 2);
}
