/* SPDX-License-Identifier: Apache-2.0 */

/* State channels through the public API, against an embedded broker, and at random against a model. */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/cell.h>

#include "tests/unit/fixture.h"

static struct shmb_channel *channel;

static struct shmb_channel *state_of(struct shmb_client *of, uint32_t max_keys, uint32_t value_len)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_STATE,
						.max_keys = max_keys,
						.value_len = value_len,
						.backing = backing_of_run() };
	struct shmb_channel *opened = NULL;

	ok(shmb_channel_open(of, "test/state", 10, &options, &opened));
	return opened;
}

static void set_up_channel(void)
{
	set_up();
	channel = state_of(client, 8, 8);
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

/* The latest value of a key, which must be there. */
static uint64_t value_of(struct shmb_subscriber *subscriber, uint32_t key)
{
	uint64_t value = 0;

	ok(shmb_subscriber_get(subscriber, key, &value, sizeof(value)));
	return value;
}

START_TEST(the_latest_value_is_read)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_view *view = shmb_subscriber_view(subscriber);
	int32_t key = shmb_publisher_claim(publisher, "height", 6);
	uint64_t value;

	ok(key);
	ck_assert_int_eq(shmb_subscriber_find(subscriber, "height", 6), key);
	refused(shmb_subscriber_find(subscriber, "weight", 6), -ENOENT);
	refused(shmb_subscriber_get(subscriber, (uint32_t)key, &value, 8), -ENODATA);
	for (uint64_t i = 1; i <= 100000; i++) {
		ok(shmb_publisher_put(publisher, (uint32_t)key, &i, sizeof(i)));
		ck_assert_uint_eq(value_of(subscriber, (uint32_t)key), i);
		ck_assert_uint_eq(view->sequence, i);
		ck_assert_uint_eq(view->term, shmb_publisher_view(publisher)->term);
	}
	ok(shmb_publisher_erase(publisher, (uint32_t)key));
	refused(shmb_subscriber_get(subscriber, (uint32_t)key, &value, 8), -ENODATA);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(wrong_use_is_refused)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_channel_info info;
	struct shmb_channel *other = NULL;
	char long_key[65] = { 1 }, bytes[256] = { 0 };
	int32_t key = shmb_publisher_claim(publisher, long_key, 64);

	ok(key);
	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.pattern, SHMB_CHANNEL_STATE);
	ck_assert_uint_eq(info.max_keys, 8);
	ck_assert_uint_ge(info.value_len_max, 8);
	refused(shmb_publisher_claim(publisher, long_key, 65), -EINVAL);
	refused(shmb_publisher_claim(publisher, long_key, 0), -EINVAL);
	refused(shmb_publisher_put(publisher, (uint32_t)key, bytes, info.value_len_max + 1),
		-EMSGSIZE);
	refused(shmb_publisher_put(publisher, (uint32_t)key + 1, bytes, 1), -EPERM);
	refused(shmb_publisher_put(publisher, UINT32_MAX, bytes, 1), -EPERM);
	refused(shmb_publisher_disclaim(publisher, (uint32_t)key + 1), -EPERM);
	refused(shmb_subscriber_get(subscriber, 1, bytes, 1), -EINVAL);
	refused(shmb_subscriber_key(subscriber, UINT32_MAX, bytes, 1), -EINVAL);
	refused(shmb_subscriber_next(subscriber), -EAGAIN);
	/* Records and values are of different channels. */
	refused(shmb_publisher_send(publisher, "x", 1), -EOPNOTSUPP);
	refused(shmb_publisher_send(publisher, "", 0), -EOPNOTSUPP);
	refused(shmb_publisher_loan(publisher, 8), -EOPNOTSUPP);
	refused(shmb_subscriber_recv(subscriber, bytes, 1), -EOPNOTSUPP);
	refused(shmb_subscriber_recv_many(subscriber, bytes, 1, NULL, 1), -EOPNOTSUPP);
	refused(shmb_subscriber_peek(subscriber, 1), -EOPNOTSUPP);
	refused(shmb_subscriber_release(subscriber, 1), -EOPNOTSUPP);
	refused(shmb_channel_open(client, "test/state", 10, NULL, &other), -EPROTOTYPE);
	says("pattern");
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(streams_have_no_keys)
{
	struct shmb_channel *stream = channel_of(client, "test/stream", 4096);
	struct shmb_publisher *publisher = publisher_of(stream, 0);
	struct shmb_subscriber *subscriber = subscriber_of(stream, 0);

	refused(shmb_publisher_claim(publisher, "a", 1), -EOPNOTSUPP);
	refused(shmb_publisher_put(publisher, 0, "a", 1), -EOPNOTSUPP);
	refused(shmb_subscriber_find(subscriber, "a", 1), -EOPNOTSUPP);
	refused(shmb_subscriber_snapshot(subscriber, NULL, 0), -EOPNOTSUPP);
	refused(shmb_subscriber_next(subscriber), -EOPNOTSUPP);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(stream));
}
END_TEST

START_TEST(a_key_has_one_writer)
{
	struct shmb_publisher *first = publisher_of(channel, 0), *second = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_view *view = shmb_subscriber_view(subscriber);
	int32_t key = shmb_publisher_claim(first, "k", 1);
	uint64_t value = 1, term;
	char pid[32];

	ok(key);
	term = shmb_publisher_view(first)->term;
	refused(shmb_publisher_claim(second, "k", 1), -EBUSY);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	says(pid);
	/* Again is no mistake, and changes nothing. */
	ck_assert_int_eq(shmb_publisher_claim(first, "k", 1), key);
	ck_assert_uint_eq(shmb_publisher_view(first)->term, term);
	ok(shmb_publisher_put(first, (uint32_t)key, &value, sizeof(value)));
	ok(shmb_publisher_disclaim(first, (uint32_t)key));
	refused(shmb_publisher_put(first, (uint32_t)key, &value, sizeof(value)), -EPERM);

	ck_assert_int_eq(shmb_publisher_claim(second, "k", 1), key);
	ck_assert_uint_gt(shmb_publisher_view(second)->term, term);
	/* Until the new owner has put something, the last value stays. */
	ck_assert_uint_eq(value_of(subscriber, (uint32_t)key), 1);
	ck_assert_uint_eq(view->term, term);
	value = 2;
	ok(shmb_publisher_put(second, (uint32_t)key, &value, sizeof(value)));
	ck_assert_uint_eq(value_of(subscriber, (uint32_t)key), 2);
	ck_assert_uint_gt(view->term, term);
	ok(shmb_publisher_close(first));
	ck_assert_uint_eq(value_of(subscriber, (uint32_t)key), 2);
	ok(shmb_publisher_close(second));
	ck_assert_uint_eq(value_of(subscriber, (uint32_t)key), 2);
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(values_outlive_their_writers)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *late;
	struct shmb_channel_info info;
	uint64_t value = 77;
	int32_t key = shmb_publisher_claim(publisher, "k", 1);
	char name[64];

	ok(key);
	ok(shmb_publisher_put(publisher, (uint32_t)key, &value, sizeof(value)));
	ok(shmb_publisher_close(publisher));
	late = subscriber_of(channel, 0);
	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.n_publishers, 0);
	ck_assert_uint_eq(value_of(late, (uint32_t)key), 77);
	ck_assert_int_eq(shmb_subscriber_key(late, (uint32_t)key, name, sizeof(name)), 1);
	ck_assert_int_eq(name[0], 'k');
	ck_assert_uint_eq(shmb_subscriber_view(late)->publisher_id, 0);
	ok(shmb_subscriber_close(late));
	/* Writers that come and go take each other's place: none of them keeps a slot. */
	for (int i = 0; i < 200; i++) {
		publisher = publisher_of(channel, 0);
		ck_assert_int_eq(shmb_publisher_claim(publisher, "k", 1), key);
		value++;
		ok(shmb_publisher_put(publisher, (uint32_t)key, &value, sizeof(value)));
		ok(shmb_publisher_close(publisher));
	}
	late = subscriber_of(channel, 0);
	ck_assert_uint_eq(value_of(late, (uint32_t)key), 277);
	ok(shmb_subscriber_close(late));
}
END_TEST

START_TEST(changes_are_told_once)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0), *late;
	uint64_t value = 0;
	uint32_t keys[4];
	bool told[4] = { false };

	for (int i = 0; i < 4; i++) {
		char name = (char)('a' + i);
		int32_t key = shmb_publisher_claim(publisher, &name, 1);

		ok(key);
		keys[i] = (uint32_t)key;
		refused(shmb_subscriber_next(subscriber), -EAGAIN);
	}
	refused(shmb_subscriber_wait(subscriber, 1 * MS), -ETIMEDOUT);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 4; i++)
			ok(shmb_publisher_put(publisher, keys[i], &value, sizeof(value)));
	late = subscriber_of(channel, 0);
	for (int i = 0; i < 4; i++) {
		int32_t key = shmb_subscriber_next(subscriber);

		ok(shmb_subscriber_wait(late, 1000 * MS));
		ok(shmb_subscriber_next(late));
		ok(key);
		ck_assert(!told[key]);
		told[key] = true;
	}
	refused(shmb_subscriber_next(subscriber), -EAGAIN);
	refused(shmb_subscriber_next(late), -EAGAIN);
	/* What has been read is known. */
	ok(shmb_publisher_put(publisher, keys[2], &value, sizeof(value)));
	value_of(subscriber, keys[2]);
	refused(shmb_subscriber_next(subscriber), -EAGAIN);
	/* One key: others do not count, and are not forgotten. */
	ok(shmb_publisher_put(publisher, keys[1], &value, sizeof(value)));
	refused(shmb_subscriber_wait_key(subscriber, keys[2], 1 * MS), -ETIMEDOUT);
	ok(shmb_subscriber_wait_key(subscriber, keys[1], 1 * MS));
	ck_assert_int_eq(shmb_subscriber_next(subscriber), (int)keys[1]);
	ok(shmb_subscriber_close(late));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
}
END_TEST

START_TEST(a_snapshot_has_every_value)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	_Alignas(8) uint8_t bytes[8 * 64];
	struct shmb_state_value head;
	uint8_t *at = bytes;
	uint32_t keys[8], needed;

	for (int i = 0; i < 8; i++) {
		char name = (char)('a' + i);

		keys[i] = (uint32_t)shmb_publisher_claim(publisher, &name, 1);
		/* One never has a value, one is erased, the others have that many bytes. */
		if (i != 7)
			ok(shmb_publisher_put(publisher, keys[i], "abcdefgh", (uint32_t)i));
	}
	ok(shmb_publisher_erase(publisher, keys[6]));
	refused(shmb_publisher_claim(publisher, "one too many", 12), -EDQUOT);
	says("all 8 keys");
	refused(shmb_subscriber_snapshot(subscriber, NULL, 0), -EMSGSIZE);
	needed = shmb_subscriber_view(subscriber)->len;
	ck_assert_uint_eq(needed, 6 * 32 + 5 * 8);
	refused(shmb_subscriber_snapshot(subscriber, bytes, needed - 1), -EMSGSIZE);
	ck_assert_int_eq(shmb_subscriber_snapshot(subscriber, bytes, needed), 6);
	for (uint32_t i = 0; i < 6; i++) {
		memcpy(&head, at, sizeof(head));
		ck_assert_uint_eq(head.key, keys[i]);
		ck_assert_uint_eq(head.len, i);
		ck_assert_uint_eq(head.version, 1);
		ck_assert_mem_eq(at + sizeof(head), "abcdefgh", i);
		at += sizeof(head) + ((i + 7) & ~7u);
	}
	ok(shmb_subscriber_next(subscriber));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
}
END_TEST

static void *put_later(void *data)
{
	struct shmb_publisher *publisher = data;
	uint64_t value = 5;

	usleep(20000);
	ok(shmb_publisher_put(publisher, 0, &value, sizeof(value)));
	return NULL;
}

START_TEST(a_sleeper_is_woken)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_NO_SPIN);
	struct shmb_subscriber_stats stats;
	struct shmb_waitset *waitset;
	struct shmb_ready ready[1];
	pthread_t thread;

	ok(shmb_publisher_claim(publisher, "k", 1));
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(pthread_create(&thread, NULL, put_later, publisher), 0);
		ok(shmb_subscriber_wait(subscriber, 4000 * MS));
		pthread_join(thread, NULL);
		ck_assert_uint_eq(value_of(subscriber, 0), 5);
	}
	ok(shmb_waitset_open(client, &waitset));
	ok(shmb_waitset_add(waitset, subscriber, 9));
	refused(shmb_waitset_wait(waitset, ready, 1, 1 * MS), -ETIMEDOUT);
	ck_assert_int_eq(pthread_create(&thread, NULL, put_later, publisher), 0);
	ck_assert_int_eq(shmb_waitset_wait(waitset, ready, 1, 4000 * MS), 1);
	ck_assert_uint_eq(ready[0].cookie, 9);
	pthread_join(thread, NULL);
	ok(shmb_waitset_close(waitset));
	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.backstops, 0);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
}
END_TEST

/* ---- torn values ------------------------------------------------------------------------------- */

#define TORN_LEN 4096

static bool stop;

static void *put_always(void *data)
{
	struct shmb_publisher *publisher = data;
	uint8_t bytes[TORN_LEN];

	for (int i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
		memset(bytes, i, sizeof(bytes));
		ok(shmb_publisher_put(publisher, 0, bytes, 1 + (uint32_t)i % TORN_LEN));
	}
	return NULL;
}

START_TEST(no_value_is_torn)
{
	struct shmb_client *own = connect_to(shmb_broker_address(broker));
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_STATE,
						.max_keys = 1,
						.value_len = TORN_LEN,
						.backing = backing_of_run() };
	struct shmb_channel *wide;
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publisher;
	uint64_t version = 0;
	uint8_t bytes[TORN_LEN];
	pthread_t thread;
	int read = 0;

	ok(shmb_channel_open(own, "test/wide", 9, &options, &wide));
	subscriber = subscriber_of(wide, 0);
	publisher = publisher_of(wide, 0);
	ok(shmb_publisher_claim(publisher, "k", 1));
	ok(shmb_publisher_put(publisher, 0, "", 0));
	ck_assert_int_eq(pthread_create(&thread, NULL, put_always, publisher), 0);
	for (int i = 0; i < 100000; i++) {
		int32_t len = shmb_subscriber_get(subscriber, 0, bytes, sizeof(bytes));

		if (len == -EAGAIN)
			continue;
		ok(len);
		read++;
		ck_assert_uint_ge(shmb_subscriber_view(subscriber)->sequence, version);
		version = shmb_subscriber_view(subscriber)->sequence;
		ck_assert(len < 2 || memcmp(bytes, bytes + 1, (size_t)len - 1) == 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	ck_assert_int_gt(read, 1000);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(wide));
	ok(shmb_client_close(own));
}
END_TEST

/* ---- at random, against a model ---------------------------------------------------------------- */

#define WRITERS 4
#define READERS 3
#define KEYS	6

enum op {
	CLAIM,
	PUT,
	DISCLAIM,
	ERASE,
	LEAVE
};

struct command {
	enum op op;
	uint32_t key;
	uint64_t value;
};

struct answer {
	int32_t result;
	uint64_t term;
};

/* A process with one publisher; does as it is told, until it is killed. */
static _Noreturn void writer(int fd)
{
	struct shmb_client *own = connect_to(shmb_broker_address(broker));
	struct shmb_channel *state = state_of(own, 8, 8);
	struct shmb_publisher *publisher = publisher_of(state, 0);
	struct command command;

	for (;;) {
		struct answer answer = { 0 };
		char name = 0;

		if (read(fd, &command, sizeof(command)) != sizeof(command))
			_exit(1);
		name = (char)('A' + command.key);
		if (command.op == CLAIM)
			answer.result = shmb_publisher_claim(publisher, &name, 1);
		else if (command.op == PUT)
			answer.result = shmb_publisher_put(publisher, command.key, &command.value,
							   sizeof(command.value));
		else if (command.op == ERASE)
			answer.result = shmb_publisher_erase(publisher, command.key);
		else if (command.op == DISCLAIM)
			answer.result = shmb_publisher_disclaim(publisher, command.key);
		else
			answer.result = shmb_publisher_close(publisher);
		answer.term = shmb_publisher_view(command.op == LEAVE ? NULL : publisher)
				      ? shmb_publisher_view(publisher)->term
				      : 0;
		if (command.op == LEAVE)
			publisher = publisher_of(state, 0);
		if (write(fd, &answer, sizeof(answer)) != sizeof(answer))
			_exit(1);
	}
}

/* What everything should be. Indices are those of the order in which keys were first claimed. */
static struct {
	pid_t pids[WRITERS];
	int fds[WRITERS];
	uint32_t n_keys;
	int index[KEYS]; /* of a name, -1: not claimed so far */
	int owner[KEYS]; /* by index, -1: nobody */
	uint64_t term[KEYS]; /* of the claim */
	bool has_value[KEYS];
	uint64_t value[KEYS];
	uint64_t last_term;
	struct shmb_subscriber *readers[READERS];
} model;

static void start_writer(int i)
{
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	model.pids[i] = fork();
	if (model.pids[i] == 0)
		writer(ends[1]);
	close(ends[1]);
	model.fds[i] = ends[0];
}

static struct answer ask(int i, enum op op, uint32_t key, uint64_t value)
{
	struct command command = { .op = op, .key = key, .value = value };
	struct answer answer;

	ck_assert_int_eq(write(model.fds[i], &command, sizeof(command)), sizeof(command));
	ck_assert_int_eq(read(model.fds[i], &answer, sizeof(answer)), sizeof(answer));
	return answer;
}

static void kill_writer(int i)
{
	kill(model.pids[i], SIGKILL);
	waitpid(model.pids[i], NULL, 0);
	close(model.fds[i]);
}

static void forget_claims(int writer_index)
{
	for (int i = 0; i < KEYS; i++)
		if (model.owner[i] == writer_index)
			model.owner[i] = -1;
}

/* Who is dead is known a moment later. */
static void wait_unowned(struct shmb_subscriber *subscriber)
{
	for (uint32_t i = 0; i < model.n_keys; i++) {
		for (int tries = 0; model.owner[i] < 0; tries++) {
			ok(shmb_subscriber_key(subscriber, i, NULL, 0));
			if (!shmb_subscriber_view(subscriber)->publisher_id)
				break;
			ck_assert_int_lt(tries, 20000);
			usleep(500);
		}
	}
}

static void check_reader(struct shmb_subscriber *subscriber)
{
	uint64_t value;

	ck_assert_int_eq(shmb_subscriber_n_keys(subscriber), (int)model.n_keys);
	for (uint32_t i = 0; i < model.n_keys; i++) {
		int32_t len = shmb_subscriber_get(subscriber, i, &value, sizeof(value));

		/* Its segment may be on its way. */
		for (int tries = 0; len == -EAGAIN && tries < 20000; tries++) {
			usleep(500);
			len = shmb_subscriber_get(subscriber, i, &value, sizeof(value));
		}
		if (!model.has_value[i]) {
			ck_assert_int_eq(len, -ENODATA);
			continue;
		}
		ck_assert_msg(len == 8, "key %u: %d (%s)", i, len, why());
		ck_assert_uint_eq(value, model.value[i]);
		ok(shmb_subscriber_key(subscriber, i, NULL, 0));
		ck_assert_int_eq(!shmb_subscriber_view(subscriber)->publisher_id,
				 model.owner[i] < 0);
	}
	while (shmb_subscriber_next(subscriber) >= 0)
		;
}

static void step_claim(int i, uint32_t name)
{
	struct answer answer = ask(i, CLAIM, name, 0);
	int index = model.index[name];

	if (index < 0) {
		index = model.index[name] = (int)model.n_keys++;
		model.owner[index] = -1;
	}
	if (model.owner[index] >= 0 && model.owner[index] != i) {
		ck_assert_int_eq(answer.result, -EBUSY);
		return;
	}
	ck_assert_int_eq(answer.result, index);
	if (model.owner[index] == i) {
		ck_assert_uint_eq(answer.term, model.term[index]);
	} else {
		ck_assert_uint_gt(answer.term, model.last_term);
		model.last_term = model.term[index] = answer.term;
	}
	model.owner[index] = i;
}

static void step_put(int i, uint32_t index, enum op op, uint64_t value)
{
	struct answer answer = ask(i, op, index, value);
	bool mine = index < model.n_keys && model.owner[index] == i;

	ck_assert_int_eq(answer.result, mine ? 0 : -EPERM);
	if (!mine)
		return;
	if (op == DISCLAIM) {
		model.owner[index] = -1;
		return;
	}
	/* Somebody who waits is told. */
	for (int k = 0; k < READERS; k++)
		if (model.readers[k])
			ok(shmb_subscriber_wait_key(model.readers[k], index, 4000 * MS));
	model.has_value[index] = op == PUT;
	model.value[index] = value;
}

static void step(uint64_t n)
{
	int i = rand() % WRITERS, k = rand() % READERS, what = rand() % 100;
	uint32_t key = (uint32_t)rand() % KEYS;

	if (what < 25) {
		step_claim(i, key);
	} else if (what < 75) {
		step_put(i, key, PUT, n);
	} else if (what < 80) {
		step_put(i, key, DISCLAIM, 0);
	} else if (what < 83) {
		step_put(i, key, ERASE, 0);
	} else if (what < 87) {
		ck_assert_int_eq(ask(i, LEAVE, 0, 0).result, 0);
		forget_claims(i);
	} else if (what < 92) {
		kill_writer(i);
		forget_claims(i);
		start_writer(i);
	} else if (model.readers[k]) {
		ok(shmb_subscriber_close(model.readers[k]));
		model.readers[k] = NULL;
	} else {
		model.readers[k] = subscriber_of(channel, 0);
	}
}

START_TEST(random_joins_leaves_and_deaths)
{
	struct shmb_subscriber *judge = subscriber_of(channel, 0);
	int steps = getenv("SHMB_TEST_QUICK") ? 200 : 1500;
	unsigned seed = (unsigned)time(NULL);

	printf("seed %u\n", seed);
	srand(seed);
	memset(model.index, 0xff, sizeof(model.index));
	memset(model.owner, 0xff, sizeof(model.owner));
	for (int i = 0; i < WRITERS; i++)
		start_writer(i);
	for (int n = 1; n <= steps; n++) {
		step((uint64_t)n);
		wait_unowned(judge);
		check_reader(judge);
		for (int i = 0; i < READERS; i++)
			if (model.readers[i])
				check_reader(model.readers[i]);
	}
	for (int i = 0; i < WRITERS; i++)
		kill_writer(i);
	forget_claims(0), forget_claims(1), forget_claims(2), forget_claims(3);
	wait_unowned(judge);
	check_reader(judge);
	for (int i = 0; i < READERS; i++)
		ok(shmb_subscriber_close(model.readers[i]));
	ok(shmb_subscriber_close(judge));
}
END_TEST

int main(void)
{
	TCase *cases[1] = { tcase_create("state") };

	tcase_set_timeout(cases[0], 120);
	tcase_add_checked_fixture(cases[0], set_up_channel, tear_down_channel);
	tcase_add_test(cases[0], the_latest_value_is_read);
	tcase_add_test(cases[0], wrong_use_is_refused);
	tcase_add_test(cases[0], streams_have_no_keys);
	tcase_add_test(cases[0], a_key_has_one_writer);
	tcase_add_test(cases[0], values_outlive_their_writers);
	tcase_add_test(cases[0], changes_are_told_once);
	tcase_add_test(cases[0], a_snapshot_has_every_value);
	tcase_add_test(cases[0], a_sleeper_is_woken);
	tcase_add_test(cases[0], no_value_is_torn);
	tcase_add_test(cases[0], random_joins_leaves_and_deaths);
	return run_suite("state", cases, 1);
}
