/* SPDX-License-Identifier: Apache-2.0 */

/* Queues through the public API, against an embedded broker, and at random against a model. */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/fixture.h"

#define LANE_LEN 65536u

static struct shmb_channel *channel;

static struct shmb_channel *queue_named(struct shmb_client *of, const char *name)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_QUEUE,
						.lane_len = LANE_LEN,
						.backing = backing_of_run() };
	struct shmb_channel *opened = NULL;

	ok(shmb_channel_open(of, name, (uint32_t)strlen(name), &options, &opened));
	return opened;
}

static void set_up_channel(void)
{
	set_up();
	channel = queue_named(client, "test/queue");
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

static struct shmb_subscriber *worker_of(struct shmb_channel *of, uint32_t credit,
					 uint32_t max_attempts)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .credit = credit,
						   .max_attempts = max_attempts };
	struct shmb_subscriber *worker = NULL;

	ok(shmb_subscriber_open(of, &options, &worker));
	return worker;
}

static void give(struct shmb_publisher *publisher, uint64_t id)
{
	ok(shmb_publisher_send_wait(publisher, &id, sizeof(id), 4000 * MS));
}

/* Takes a record that must come. */
static uint64_t take(struct shmb_subscriber *worker)
{
	uint64_t id = 0;

	ok(shmb_subscriber_wait(worker, 4000 * MS));
	ck_assert_int_eq(shmb_subscriber_take(worker, &id, sizeof(id)), sizeof(id));
	return id;
}

static uint64_t job_of(struct shmb_subscriber *worker)
{
	return shmb_subscriber_view(worker)->term;
}

static void take_nothing(struct shmb_subscriber *worker)
{
	uint64_t id;

	refused(shmb_subscriber_take(worker, &id, sizeof(id)), -EAGAIN);
}

START_TEST(each_record_is_for_one_worker)
{
	struct shmb_subscriber *workers[3];
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint32_t taken[3] = { 0 };
	static uint8_t seen[30000];

	memset(seen, 0, sizeof(seen));
	for (int i = 0; i < 3; i++)
		workers[i] = worker_of(channel, 0, 0);
	for (uint64_t sent = 0, n = 0; n < sizeof(seen);) {
		for (int i = 0; i < 50 && sent < sizeof(seen); i++)
			if (shmb_publisher_send(publisher, &sent, sizeof(sent)) == 0)
				sent++;
		for (int i = 0; i < 3; i++) {
			uint64_t ids[64], jobs[64];
			int32_t count = shmb_subscriber_take_many(workers[i], ids, sizeof(ids),
								  NULL, jobs, 64);

			for (int32_t k = 0; k < count; k++)
				ck_assert_uint_eq(seen[ids[k]]++, 0);
			if (count <= 0)
				continue;
			ok(shmb_subscriber_done_many(workers[i], jobs, (uint32_t)count));
			taken[i] += (uint32_t)count;
			n += (uint32_t)count;
		}
	}
	ok(shmb_publisher_wait_done(publisher, 0));
	for (int i = 0; i < 3; i++) {
		take_nothing(workers[i]);
		ck_assert_uint_gt(taken[i], sizeof(seen) / 4);
		ok(shmb_subscriber_close(workers[i]));
	}
	ok(shmb_publisher_close(publisher));
}
END_TEST

START_TEST(wrong_use_is_refused)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber_options options = { .options_len = sizeof(options), .credit = 65 };
	struct shmb_channel_options stream = { .options_len = sizeof(stream) };
	struct shmb_channel_info info;
	struct shmb_channel *other;
	struct shmb_subscriber *worker;
	struct shmb_publisher *streaming;
	uint64_t id = 1, jobs[2];
	uint8_t large[LANE_LEN / 8];

	refused(shmb_subscriber_open(channel, &options, &worker), -EINVAL);
	options.credit = 0;
	options.flags = SHMB_SUBSCRIBER_LOSSY;
	refused(shmb_subscriber_open(channel, &options, &worker), -EINVAL);
	refused(shmb_channel_open(client, "test/queue", 10, &stream, &other), -EPROTOTYPE);
	refused(shmb_publisher_send(publisher, &id, sizeof(id)), -EAGAIN);
	says("credit");
	refused(shmb_publisher_send_wait(publisher, &id, sizeof(id), 1 * MS), -ETIMEDOUT);
	worker = worker_of(channel, 0, 0);
	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.pattern, SHMB_CHANNEL_QUEUE);
	ck_assert_uint_eq(info.record_len_max, LANE_LEN / 8 - 24);
	refused(shmb_publisher_send(publisher, large, info.record_len_max + 1), -EMSGSIZE);
	ok(shmb_publisher_send(publisher, large, info.record_len_max));
	refused(shmb_subscriber_recv(worker, large, sizeof(large)), -EOPNOTSUPP);
	refused(shmb_subscriber_peek(worker, 1), -EOPNOTSUPP);
	refused(shmb_subscriber_release(worker, 1), -EOPNOTSUPP);
	refused(shmb_subscriber_take(worker, &id, sizeof(id)), -EMSGSIZE);
	ok(shmb_subscriber_take(worker, large, sizeof(large)));
	jobs[0] = job_of(worker);
	jobs[1] = jobs[0] + 1;
	refused(shmb_subscriber_done(worker, jobs[1]), -ENOENT);
	refused(shmb_subscriber_done_many(worker, jobs, 2), -ENOENT);
	refused(shmb_publisher_wait_done(publisher, 1 * MS), -ETIMEDOUT);
	ok(shmb_subscriber_done(worker, jobs[0]));
	refused(shmb_subscriber_done(worker, jobs[0]), -ENOENT);
	refused(shmb_subscriber_fail(worker, jobs[0]), -ENOENT);
	ok(shmb_publisher_wait_done(publisher, 1 * MS));
	ok(shmb_subscriber_close(worker));
	ok(shmb_publisher_close(publisher));

	other = channel_of(client, "test/stream", 0);
	streaming = publisher_of(other, 0);
	worker = subscriber_of(other, 0);
	refused(shmb_publisher_wait_done(streaming, 0), -EOPNOTSUPP);
	refused(shmb_subscriber_take(worker, &id, sizeof(id)), -EOPNOTSUPP);
	refused(shmb_subscriber_done(worker, 1), -EOPNOTSUPP);
	ok(shmb_subscriber_close(worker));
	ok(shmb_publisher_close(streaming));
	ok(shmb_channel_close(other));
}
END_TEST

START_TEST(credit_is_kept)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *worker = worker_of(channel, 3, 0);
	uint64_t id, jobs[3];

	for (id = 0; id < 3; id++)
		ok(shmb_publisher_send(publisher, &id, sizeof(id)));
	refused(shmb_publisher_send(publisher, &id, sizeof(id)), -EAGAIN);
	for (int i = 0; i < 3; i++) {
		ck_assert_uint_eq(take(worker), i);
		jobs[i] = job_of(worker);
	}
	/* Any order; the first of them gives credit, since the ones before it are known by number. */
	ok(shmb_subscriber_done(worker, jobs[2]));
	ok(shmb_subscriber_done(worker, jobs[1]));
	refused(shmb_publisher_send(publisher, &id, sizeof(id)), -EAGAIN);
	ok(shmb_subscriber_done(worker, jobs[0]));
	for (id = 0; id < 3; id++)
		ok(shmb_publisher_send(publisher, &id, sizeof(id)));
	refused(shmb_publisher_send(publisher, &id, sizeof(id)), -EAGAIN);
	ok(shmb_subscriber_close(worker));
	ok(shmb_publisher_close(publisher));
}
END_TEST

START_TEST(a_loan_is_for_one_worker)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *worker = worker_of(channel, 1, 0);
	uint64_t id = 77;

	ok(shmb_publisher_loan(publisher, 16));
	memcpy((void *)(uintptr_t)shmb_publisher_view(publisher)->data, &id, sizeof(id));
	ok(shmb_publisher_publish(publisher, sizeof(id)));
	refused(shmb_publisher_loan(publisher, 16), -EAGAIN);
	ck_assert_uint_eq(take(worker), 77);
	ok(shmb_subscriber_done(worker, job_of(worker)));
	ok(shmb_publisher_loan(publisher, 16));
	ok(shmb_publisher_cancel(publisher));
	ok(shmb_publisher_wait_done(publisher, 0));
	ok(shmb_subscriber_close(worker));
	ok(shmb_publisher_close(publisher));
}
END_TEST

START_TEST(what_fails_comes_again_and_is_buried_at_last)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *worker = worker_of(channel, 0, 3);
	struct shmb_channel *dead = queue_named(client, "test/queue" SHMB_QUEUE_DEAD);
	struct shmb_subscriber *undertaker;

	give(publisher, 1);
	give(publisher, 2);
	for (uint32_t attempt = 1; attempt <= 3; attempt++) {
		ck_assert_uint_eq(take(worker), 1);
		ck_assert_uint_eq(shmb_subscriber_view(worker)->attempt, attempt);
		ok(shmb_subscriber_fail(worker, job_of(worker)));
		if (attempt > 1)
			continue;
		/* What was not tried yet comes first. */
		ck_assert_uint_eq(take(worker), 2);
		ok(shmb_subscriber_done(worker, job_of(worker)));
	}
	/* There is nobody for dead letters: the publisher keeps it. */
	take_nothing(worker);
	refused(shmb_publisher_wait_done(publisher, 1 * MS), -ETIMEDOUT);
	undertaker = worker_of(dead, 0, 0);
	take_nothing(worker);
	ok(shmb_publisher_wait_done(publisher, 4000 * MS));
	ck_assert_uint_eq(take(undertaker), 1);
	ok(shmb_subscriber_done(undertaker, job_of(undertaker)));
	ok(shmb_subscriber_close(undertaker));
	ok(shmb_subscriber_close(worker));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(dead));
}
END_TEST

START_TEST(what_a_worker_leaves_others_get)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *leaver = worker_of(channel, 0, 0), *heir;

	for (uint64_t id = 0; id < 20; id++)
		give(publisher, id);
	for (uint64_t id = 0; id < 10; id++) {
		ck_assert_uint_eq(take(leaver), id);
		if (id % 2)
			ok(shmb_subscriber_done(leaver, job_of(leaver)));
	}
	heir = worker_of(channel, 0, 0);
	ok(shmb_subscriber_close(leaver));
	ok(shmb_client_ping(client, 4000 * MS));
	refused(shmb_publisher_wait_done(publisher, 0), -ETIMEDOUT);
	for (uint64_t id = 0; id < 20; id++) {
		if (id < 10 && id % 2)
			continue;
		ck_assert_uint_eq(take(heir), id);
		ck_assert_uint_eq(shmb_subscriber_view(heir)->attempt, id < 10 ? 2 : 1);
		ok(shmb_subscriber_done(heir, job_of(heir)));
	}
	take_nothing(heir);
	ok(shmb_publisher_wait_done(publisher, 0));
	ok(shmb_subscriber_close(heir));
	ok(shmb_publisher_close(publisher));
}
END_TEST

/* The whole ring is what a worker holds that leaves; it goes on all the same, in any order. */
START_TEST(a_full_lane_is_given_anew)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *leaver = worker_of(channel, 64, 0), *heir;
	uint8_t record[LANE_LEN / 8 - 24], copy[sizeof(record)];
	uint32_t n = 0;

	memset(record, 0, sizeof(record));
	while (shmb_publisher_send(publisher, record, 1000 + 613 * (n % 11)) == 0)
		record[0] = (uint8_t)++n;
	ck_assert_uint_gt(n, 8);
	heir = worker_of(channel, 64, 0);
	ok(shmb_subscriber_close(leaver));
	for (uint32_t i = 0; i < n; i++) {
		int32_t len;

		for (int tries = 0;
		     tries < 100 &&
		     (len = shmb_subscriber_take(heir, copy, sizeof(copy))) == -EAGAIN;
		     tries++)
			shmb_publisher_wait_done(publisher, 1 * MS);
		ck_assert_int_eq(len, (int)(1000 + 613 * (i % 11)));
		ck_assert_uint_eq(copy[0], i);
		ok(shmb_subscriber_done(heir, job_of(heir)));
	}
	ok(shmb_publisher_wait_done(publisher, 0));
	ok(shmb_subscriber_close(heir));
	ok(shmb_publisher_close(publisher));
}
END_TEST

/* One record of some length, so that the ring is used up soon. */
static void give_long(struct shmb_publisher *publisher, uint64_t id)
{
	static uint64_t record[64];

	record[0] = id;
	ok(shmb_publisher_send_wait(publisher, record, sizeof(record), 4000 * MS));
}

static uint64_t take_long(struct shmb_subscriber *worker)
{
	uint64_t record[64] = { 0 };

	ok(shmb_subscriber_wait(worker, 4000 * MS));
	ck_assert_int_eq(shmb_subscriber_take(worker, record, sizeof(record)), sizeof(record));
	return record[0];
}

/*
 * A worker leaves what it has had for long and what it has just been given. Its publisher gives the old
 * ones to another, and so has written more than a lap behind where that worker was, before it goes, too.
 */
START_TEST(what_is_left_a_lap_later_others_get)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *leaver = worker_of(channel, 64, 0), *helper, *heir;
	bool seen[66] = { false };

	for (uint64_t id = 0; id < 64; id++)
		give_long(publisher, id);
	helper = worker_of(channel, 1, 0);
	for (uint64_t id = 100; id < 122; id++) {
		give_long(publisher, id);
		ck_assert_uint_eq(take_long(helper), id);
		ok(shmb_subscriber_done(helper, job_of(helper)));
	}
	ok(shmb_subscriber_close(helper));
	ok(shmb_client_ping(client, 4000 * MS));
	for (uint64_t id = 0; id < 2; id++) {
		ck_assert_uint_eq(take_long(leaver), id);
		ok(shmb_subscriber_done(leaver, job_of(leaver)));
		give_long(publisher, 64 + id);
	}
	ok(shmb_subscriber_close(leaver));
	heir = worker_of(channel, 62, 0);
	ok(shmb_client_ping(client, 4000 * MS));
	refused(shmb_publisher_wait_done(publisher, 0), -ETIMEDOUT);
	ok(shmb_publisher_close(publisher));
	for (int n = 0; n < 64; n++) {
		uint64_t id = take_long(heir);

		ck_assert(id >= 2 && id < 66);
		ck_assert_msg(!seen[id], "%llu comes twice", (unsigned long long)id);
		seen[id] = true;
		ok(shmb_subscriber_done(heir, job_of(heir)));
	}
	take_nothing(heir);
	ok(shmb_subscriber_close(heir));
}
END_TEST

START_TEST(a_publisher_may_leave_first)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *workers[2];
	uint64_t jobs[2][5];

	for (int i = 0; i < 2; i++)
		workers[i] = worker_of(channel, 0, 0);
	for (uint64_t id = 0; id < 10; id++)
		give(publisher, id);
	for (int i = 0; i < 2; i++) {
		take(workers[i]);
		jobs[i][0] = job_of(workers[i]);
	}
	ok(shmb_publisher_close(publisher));
	for (int i = 0; i < 2; i++) {
		for (int k = 1; k < 5; k++) {
			take(workers[i]);
			jobs[i][k] = job_of(workers[i]);
		}
		take_nothing(workers[i]);
		ok(shmb_subscriber_fail(workers[i], jobs[i][2]));
		take(workers[i]);
		ck_assert_uint_eq(shmb_subscriber_view(workers[i])->attempt, 2);
		ok(shmb_subscriber_done_many(workers[i], jobs[i], 5));
		take_nothing(workers[i]);
		ok(shmb_subscriber_close(workers[i]));
	}
}
END_TEST

START_TEST(a_killed_publisher_loses_nothing_that_a_worker_has)
{
	struct shmb_subscriber *workers[2];
	uint8_t seen[40] = { 0 };
	int ready[2];
	char byte;
	pid_t pid;

	for (int i = 0; i < 2; i++)
		workers[i] = worker_of(channel, 0, 0);
	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		struct shmb_client *own = connect_to(shmb_broker_address(broker));
		struct shmb_publisher *publisher = publisher_of(queue_named(own, "test/queue"), 0);

		for (uint64_t id = 0; id < sizeof(seen); id++)
			give(publisher, id);
		if (write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	for (int i = 0; i < 2; i++)
		seen[take(workers[i])]++;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	for (int i = 0; i < 2; i++) {
		uint64_t first = job_of(workers[i]);

		for (int k = 1; k < 20; k++) {
			seen[take(workers[i])]++;
			ok(shmb_subscriber_done(workers[i], job_of(workers[i])));
		}
		take_nothing(workers[i]);
		ok(shmb_subscriber_done(workers[i], first));
		ok(shmb_subscriber_close(workers[i]));
	}
	for (size_t id = 0; id < sizeof(seen); id++)
		ck_assert_uint_eq(seen[id], 1);
}
END_TEST

/* How a wait set sleeps does not matter; the loop runs both with what the kernel has. */
START_TEST(a_wait_set_waits_for_work)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *workers[2];
	struct shmb_waitset *set;
	struct shmb_ready ready;
	uint64_t id, n = 0;

	setenv("SHMBROKER_IO", _i ? "epoll" : "uring", 1);
	if (shmb_waitset_open(client, &set) < 0) {
		ck_assert_int_eq(_i, 0); /* no io_uring here */
		unsetenv("SHMBROKER_IO");
		ok(shmb_publisher_close(publisher));
		return;
	}
	unsetenv("SHMBROKER_IO");
	for (uint64_t i = 0; i < 2; i++) {
		workers[i] = worker_of(channel, 4, 0);
		ok(shmb_waitset_add(set, workers[i], i));
	}
	refused(shmb_waitset_wait(set, &ready, 1, 1 * MS), -ETIMEDOUT);
	for (uint64_t sent = 0; n < 500;) {
		if (sent < 500 && shmb_publisher_send(publisher, &sent, sizeof(sent)) == 0) {
			sent++;
			continue;
		}
		ck_assert_int_eq(shmb_waitset_wait(set, &ready, 1, 4000 * MS), 1);
		ok(shmb_subscriber_take(workers[ready.cookie], &id, sizeof(id)));
		ok(shmb_subscriber_done(workers[ready.cookie], job_of(workers[ready.cookie])));
		n++;
	}
	refused(shmb_waitset_wait(set, &ready, 1, 1 * MS), -ETIMEDOUT);
	for (int i = 0; i < 2; i++) {
		ok(shmb_waitset_remove(set, workers[i]));
		ok(shmb_subscriber_close(workers[i]));
	}
	ok(shmb_waitset_close(set));
	ok(shmb_publisher_close(publisher));
}
END_TEST

/* Whoever looks at the fd may find that nothing has changed; but not for ever. */
static void await_quiet(struct shmb_publisher *publisher, struct pollfd *poll_fd)
{
	for (int tries = 0; poll(poll_fd, 1, 0); tries++) {
		ck_assert_int_lt(tries, 100);
		ok(shmb_publisher_wait_done(publisher, 0));
	}
}

static void *send_later(void *data)
{
	usleep(30000);
	give(data, 5);
	return NULL;
}

START_TEST(a_sleeper_is_woken)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *worker = worker_of(channel, 1, 0);
	struct shmb_subscriber_stats stats;
	pthread_t thread;

	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(pthread_create(&thread, NULL, send_later, publisher), 0);
		ck_assert_uint_eq(take(worker), 5);
		pthread_join(thread, NULL);
		ok(shmb_subscriber_done(worker, job_of(worker)));
	}
	ok(shmb_subscriber_stats(worker, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.backstops, 0);
	ok(shmb_subscriber_close(worker));
	ok(shmb_publisher_close(publisher));
}
END_TEST

/* An event loop that has nothing to send: its fd tells it all that there is to do. */
START_TEST(an_idle_publisher_is_told_at_once)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *leaver = worker_of(channel, 1, 0), *worker;
	struct pollfd poll_fd = { .events = POLLIN };
	uint64_t id;

	poll_fd.fd = shmb_publisher_fd(publisher);
	ok(poll_fd.fd);
	give(publisher, 1);
	take(leaver);
	refused(shmb_publisher_wait_done(publisher, 0), -ETIMEDOUT);
	while (poll(&poll_fd, 1, 0)) /* the broker may have had something to say */
		refused(shmb_publisher_wait_done(publisher, 0), -ETIMEDOUT);
	/* Nobody is there to get it. */
	ok(shmb_subscriber_close(leaver));
	ck_assert_int_eq(poll(&poll_fd, 1, 4000), 1);
	refused(shmb_publisher_wait_done(publisher, 0), -ETIMEDOUT);
	/* Until somebody comes. */
	worker = worker_of(channel, 1, 0);
	while (shmb_subscriber_take(worker, &id, sizeof(id)) == -EAGAIN) {
		ck_assert_int_eq(poll(&poll_fd, 1, 4000), 1);
		refused(shmb_publisher_wait_done(publisher, 0), -ETIMEDOUT);
	}
	ck_assert_uint_eq(id, 1);
	ck_assert_uint_eq(shmb_subscriber_view(worker)->attempt, 2);
	/* The broker answers that it need not keep the marks of the first one any more. */
	ok(shmb_client_ping(client, 4000 * MS));
	while (poll(&poll_fd, 1, 0))
		refused(shmb_publisher_wait_done(publisher, 0), -ETIMEDOUT);
	/* And it is told that all is done. */
	ok(shmb_subscriber_done(worker, job_of(worker)));
	ck_assert_int_eq(poll(&poll_fd, 1, 4000), 1);
	ok(shmb_publisher_wait_done(publisher, 0));
	await_quiet(publisher, &poll_fd);
	/* The same for room. */
	give(publisher, 2);
	refused(shmb_publisher_wait(publisher, 8, 0), -ETIMEDOUT);
	ck_assert_uint_eq(take(worker), 2);
	ok(shmb_subscriber_done(worker, job_of(worker)));
	ck_assert_int_eq(poll(&poll_fd, 1, 4000), 1);
	ok(shmb_publisher_wait(publisher, 8, 0));
	ok(shmb_subscriber_close(worker));
	ok(shmb_publisher_close(publisher));
}
END_TEST

/* ---- processes against a model ----------------------------------------------------------------- */

#define WORKERS	   4
#define PUBLISHERS 3
#define IDS_MAX	   8192

enum op {
	TAKE,
	DONE,
	FAIL,
	LEAVE
};

struct order {
	enum op op;
	uint64_t job;
};

struct answer {
	int32_t result;
	uint64_t id;
	uint64_t job;
	uint32_t attempt;
};

struct held {
	uint64_t id;
	uint64_t job;
};

static struct {
	pid_t pids[WORKERS];
	int sockets[WORKERS];
	struct held held[WORKERS][IDS_MAX];
	uint32_t n_held[WORKERS];
	struct shmb_publisher *publishers[PUBLISHERS];
	int8_t holder[IDS_MAX]; /* -1: nobody */
	bool done[IDS_MAX];
	uint32_t attempts[IDS_MAX];
	uint64_t n_ids;
	uint64_t n_done;
} model;

/* Of different lengths, so that lanes fill up and wrap. */
static uint32_t len_of(uint64_t id)
{
	return 8 + (uint32_t)(id * 137 % 1500);
}

static void answer_orders(int fd)
{
	static uint64_t record[256];
	struct shmb_client *own = connect_to(shmb_broker_address(broker));
	struct shmb_channel *queue = queue_named(own, "test/queue");
	struct shmb_subscriber *worker = worker_of(queue, 8, 0);
	struct order order;

	while (read(fd, &order, sizeof(order)) == sizeof(order)) {
		struct answer answer = { 0 };

		switch (order.op) {
		case TAKE:
			answer.result = shmb_subscriber_take(worker, record, sizeof(record));
			answer.id = record[0];
			answer.job = job_of(worker);
			answer.attempt = shmb_subscriber_view(worker)->attempt;
			break;
		case DONE:
			answer.result = shmb_subscriber_done(worker, order.job);
			break;
		case FAIL:
			answer.result = shmb_subscriber_fail(worker, order.job);
			break;
		case LEAVE:
			answer.result = shmb_subscriber_close(worker);
			worker = worker_of(queue, 8, 0);
			break;
		}
		if (write(fd, &answer, sizeof(answer)) != sizeof(answer))
			break;
	}
	_exit(0);
}

static void start_worker(int i)
{
	int sockets[2];
	struct answer ready;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	model.pids[i] = fork();
	ck_assert_int_ge(model.pids[i], 0);
	if (model.pids[i] == 0) {
		struct order none;

		close(sockets[0]);
		/* The first order only says that the parent is there. */
		if (read(sockets[1], &none, sizeof(none)) != sizeof(none) ||
		    write(sockets[1], &(struct answer){ 0 }, sizeof(struct answer)) < 0)
			_exit(1);
		answer_orders(sockets[1]);
	}
	close(sockets[1]);
	model.sockets[i] = sockets[0];
	ck_assert_int_eq(write(sockets[0], &(struct order){ 0 }, sizeof(struct order)),
			 sizeof(struct order));
	ck_assert_int_eq(read(sockets[0], &ready, sizeof(ready)), sizeof(ready));
}

static struct answer ask(int i, enum op op, uint64_t job)
{
	struct order order = { .op = op, .job = job };
	struct answer answer;

	ck_assert_int_eq(write(model.sockets[i], &order, sizeof(order)), sizeof(order));
	ck_assert_int_eq(read(model.sockets[i], &answer, sizeof(answer)), sizeof(answer));
	return answer;
}

/* It has gone: what it held can be given to others. */
static void forget_held(int i)
{
	for (uint32_t k = 0; k < model.n_held[i]; k++)
		model.holder[model.held[i][k].id] = -1;
	model.n_held[i] = 0;
}

static void kill_worker(int i)
{
	kill(model.pids[i], SIGKILL);
	waitpid(model.pids[i], NULL, 0);
	close(model.sockets[i]);
	forget_held(i);
}

/* Takes a record, if there is one, and compares it with what the model knows. */
static bool step_take(int i)
{
	struct answer answer = ask(i, TAKE, 0);

	if (answer.result == -EAGAIN)
		return false;
	ck_assert_uint_lt(answer.id, model.n_ids);
	ck_assert_int_eq(answer.result, (int)len_of(answer.id));
	ck_assert_msg(!model.done[answer.id], "%llu was done", (unsigned long long)answer.id);
	ck_assert_msg(model.holder[answer.id] < 0, "%d and %d both have %llu",
		      model.holder[answer.id], i, (unsigned long long)answer.id);
	ck_assert_uint_eq(answer.attempt, ++model.attempts[answer.id]);
	model.holder[answer.id] = (int8_t)i;
	model.held[i][model.n_held[i]++] = (struct held){ answer.id, answer.job };
	return true;
}

static void step_end(int i, enum op op)
{
	uint32_t k;
	struct held held;

	if (!model.n_held[i])
		return;
	k = (uint32_t)rand() % model.n_held[i];
	held = model.held[i][k];
	ok(ask(i, op, held.job).result);
	model.held[i][k] = model.held[i][--model.n_held[i]];
	model.holder[held.id] = -1;
	model.done[held.id] = op == DONE;
	model.n_done += op == DONE;
}

static void step_send(int p)
{
	static uint64_t record[256];
	uint64_t id = model.n_ids;

	if (id == IDS_MAX)
		return;
	record[0] = id;
	if (shmb_publisher_send(model.publishers[p], record, len_of(id)) == 0)
		model.n_ids++;
}

/* It goes without waiting: its workers do what they have, and if one of them dies others do. */
static void step_close(int p)
{
	struct shmb_publisher *next = NULL;
	int32_t result = shmb_publisher_open(channel, NULL, &next);

	/* So many that have gone may have left work, and no more. */
	if (result == -EDQUOT)
		return;
	ok(result);
	ok(shmb_publisher_close(model.publishers[p]));
	model.publishers[p] = next;
}

static void step(void)
{
	int i = rand() % WORKERS, p = rand() % PUBLISHERS, what = rand() % 200;

	if (what < 80) {
		step_send(p);
	} else if (what < 130) {
		step_take(i);
	} else if (what < 175) {
		step_end(i, DONE);
	} else if (what < 190) {
		step_end(i, FAIL);
	} else if (what < 194) {
		ok(ask(i, LEAVE, 0).result);
		forget_held(i);
	} else if (what < 198) {
		kill_worker(i);
		start_worker(i);
	} else if (what == 198 || shmb_publisher_wait_done(model.publishers[p], 0) == 0) {
		step_close(p);
	}
}

static uint64_t count_owed(void)
{
	return model.n_ids - model.n_done;
}

/* All that is left comes, and is done. */
static void drain(void)
{
	for (int idle = 0; count_owed() && idle < 2000; idle++) {
		bool any = false;

		for (int p = 0; p < PUBLISHERS; p++)
			shmb_publisher_wait_done(model.publishers[p], 0);
		for (int i = 0; i < WORKERS; i++) {
			while (step_take(i))
				any = true;
			while (model.n_held[i])
				step_end(i, DONE);
		}
		if (any)
			idle = 0;
		else
			usleep(1000);
	}
	ck_assert_uint_eq(count_owed(), 0);
}

START_TEST(random_joins_leaves_and_deaths)
{
	int steps = getenv("SHMB_TEST_QUICK") ? 2000 : 12000;
	const char *chosen = getenv("SHMB_TEST_SEED");
	unsigned seed = chosen ? (unsigned)strtoul(chosen, NULL, 10) : (unsigned)time(NULL);

	printf("seed %u\n", seed);
	fflush(stdout);
	srand(seed);
	memset(&model, 0, sizeof(model));
	memset(model.holder, 0xff, sizeof(model.holder));
	for (int i = 0; i < WORKERS; i++)
		start_worker(i);
	for (int p = 0; p < PUBLISHERS; p++)
		model.publishers[p] = publisher_of(channel, 0);
	for (int n = 0; n < steps; n++)
		step();
	drain();
	printf("%llu records, %llu done\n", (unsigned long long)model.n_ids,
	       (unsigned long long)model.n_done);
	for (int p = 0; p < PUBLISHERS; p++) {
		ok(shmb_publisher_wait_done(model.publishers[p], 4000 * MS));
		ok(shmb_publisher_close(model.publishers[p]));
	}
	for (int i = 0; i < WORKERS; i++)
		kill_worker(i);
}
END_TEST

int main(void)
{
	TCase *cases[1] = { tcase_create("queue") };

	tcase_set_timeout(cases[0], 120);
	tcase_add_checked_fixture(cases[0], set_up_channel, tear_down_channel);
	tcase_add_test(cases[0], each_record_is_for_one_worker);
	tcase_add_test(cases[0], wrong_use_is_refused);
	tcase_add_test(cases[0], credit_is_kept);
	tcase_add_test(cases[0], a_loan_is_for_one_worker);
	tcase_add_test(cases[0], what_fails_comes_again_and_is_buried_at_last);
	tcase_add_test(cases[0], what_a_worker_leaves_others_get);
	tcase_add_test(cases[0], a_full_lane_is_given_anew);
	tcase_add_test(cases[0], what_is_left_a_lap_later_others_get);
	tcase_add_test(cases[0], a_publisher_may_leave_first);
	tcase_add_test(cases[0], a_killed_publisher_loses_nothing_that_a_worker_has);
	tcase_add_test(cases[0], an_idle_publisher_is_told_at_once);
	tcase_add_loop_test(cases[0], a_wait_set_waits_for_work, 0, 2);
	tcase_add_test(cases[0], a_sleeper_is_woken);
	tcase_add_test(cases[0], random_joins_leaves_and_deaths);
	return run_suite("queue", cases, 1);
}
