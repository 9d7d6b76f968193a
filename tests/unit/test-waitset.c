/* SPDX-License-Identifier: Apache-2.0 */

/* Wait sets over io_uring and epoll, against an embedded broker. */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/subscriber.h"

#include "tests/unit/fixture.h"

#define N_CHANNELS 40

static struct shmb_channel *channels[N_CHANNELS];
static struct shmb_subscriber *subscribers[N_CHANNELS];
static struct shmb_publisher *publishers[N_CHANNELS];
static struct shmb_waitset *waitset;

/* Even runs use what there is, odd ones epoll. */
static void open_waitset(int run)
{
	if (run & 1)
		setenv("SHMBROKER_IO", "epoll", 1);
	ok(shmb_waitset_open(client, &waitset));
}

static void set_up_channels(void)
{
	set_up();
	for (int i = 0; i < N_CHANNELS; i++) {
		char name[24];

		snprintf(name, sizeof(name), "test/%d", i);
		channels[i] = channel_of(client, name, 4096);
		subscribers[i] = subscriber_of(channels[i], 0);
		publishers[i] = publisher_of(channels[i], 0);
	}
}

static void tear_down_channels(void)
{
	ok(shmb_waitset_close(waitset));
	for (int i = 0; i < N_CHANNELS; i++) {
		ok(shmb_publisher_close(publishers[i]));
		ok(shmb_subscriber_close(subscribers[i]));
		ok(shmb_channel_close(channels[i]));
	}
	tear_down();
}

static void add_all(void)
{
	for (uint64_t i = 0; i < N_CHANNELS; i++)
		ok(shmb_waitset_add(waitset, subscribers[i], i));
}

START_TEST(it_says_who_is_ready)
{
	struct shmb_ready ready[N_CHANNELS];
	uint64_t value;

	open_waitset(_i);
	add_all();
	refused(shmb_waitset_wait(waitset, ready, N_CHANNELS, 0), -ETIMEDOUT);
	for (uint64_t i = 0; i < 2000; i++) {
		uint64_t which = (i * 7) % N_CHANNELS;

		ok(shmb_publisher_send(publishers[which], &i, 8));
		ck_assert_int_eq(shmb_waitset_wait(waitset, ready, N_CHANNELS, 1000 * MS), 1);
		ck_assert_uint_eq(ready[0].cookie, which);
		ck_assert_uint_eq(ready[0].kind, SHMB_READY_SUBSCRIBER);
		/* Not emptied: it is reported again. */
		ck_assert_int_eq(shmb_waitset_wait(waitset, ready, N_CHANNELS, 1000 * MS), 1);
		ck_assert_int_eq(shmb_subscriber_recv(subscribers[which], &value, 8), 8);
		ck_assert_uint_eq(value, i);
	}
	refused(shmb_waitset_wait(waitset, ready, N_CHANNELS, 1 * MS), -ETIMEDOUT);
}
END_TEST

START_TEST(it_is_fair_when_asked_for_few)
{
	struct shmb_ready ready[3];
	int seen[N_CHANNELS] = { 0 };

	open_waitset(_i);
	add_all();
	for (int i = 0; i < N_CHANNELS; i++)
		ok(shmb_publisher_send(publishers[i], "x", 1));
	for (int n = 0; n < 10 * N_CHANNELS;) {
		int32_t got = shmb_waitset_wait(waitset, ready, 3, 1000 * MS);

		ck_assert_int_ge(got, 1);
		for (int i = 0; i < got; i++, n++)
			seen[ready[i].cookie]++;
	}
	for (int i = 0; i < N_CHANNELS; i++)
		ck_assert_int_ge(seen[i], 9);
}
END_TEST

/* One that always has something does not keep the others from being heard. */
START_TEST(a_busy_one_starves_nobody)
{
	struct shmb_ready ready[4];
	bool heard = false;

	open_waitset(_i);
	add_all();
	refused(shmb_waitset_wait(waitset, ready, 4, 0), -ETIMEDOUT);
	ok(shmb_publisher_send(publishers[0], "x", 1));
	ck_assert_int_eq(shmb_waitset_wait(waitset, ready, 4, 1000 * MS), 1);
	ok(shmb_publisher_send(publishers[1], "x", 1));
	for (int i = 0; i < 1000 && !heard; i++) {
		int32_t got = shmb_waitset_wait(waitset, ready, 4, 1000 * MS);

		ok(got);
		while (got-- > 0)
			heard |= ready[got].cookie == 1;
	}
	ck_assert(heard);
}
END_TEST

static void *publish_all(void *data)
{
	uint64_t count = *(uint64_t *)data;

	for (uint64_t i = 0; i < count; i++) {
		if (i % 50 == 0)
			usleep(200);
		for (int c = 0; c < N_CHANNELS; c++)
			if (shmb_publisher_send_wait(publishers[c], &i, 8, 20000 * MS) < 0)
				return (void *)1;
	}
	return NULL;
}

START_TEST(no_wake_up_is_lost_over_many)
{
	struct shmb_ready ready[8];
	uint64_t next[N_CHANNELS] = { 0 }, count = 3000, value;
	struct shmb_subscriber_stats stats;
	pthread_t thread;
	void *result;

	open_waitset(_i);
	add_all();
	ck_assert_int_eq(pthread_create(&thread, NULL, publish_all, &count), 0);
	for (uint64_t n = 0; n < count * N_CHANNELS;) {
		int32_t got = shmb_waitset_wait(waitset, ready, 8, 20000 * MS);

		ok(got);
		for (int i = 0; i < got; i++)
			while (shmb_subscriber_recv(subscribers[ready[i].cookie], &value, 8) == 8) {
				ck_assert_uint_eq(value, next[ready[i].cookie]++);
				n++;
			}
	}
	pthread_join(thread, &result);
	ck_assert_ptr_null(result);
	for (int i = 0; i < N_CHANNELS; i++) {
		ok(shmb_subscriber_stats(subscribers[i], &stats, sizeof(stats)));
		ck_assert_uint_eq(stats.backstops, 0);
	}
}
END_TEST

START_TEST(fds_of_the_caller_are_waited_for_too)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	struct shmb_ready ready[4];
	uint64_t value;

	open_waitset(_i);
	add_all();
	ok(shmb_waitset_add_fd(waitset, fd, POLLIN, 1000));
	refused(shmb_waitset_add_fd(waitset, fd, POLLIN, 1), -EEXIST);
	refused(shmb_waitset_wait(waitset, ready, 4, 5 * MS), -ETIMEDOUT);
	eventfd_write(fd, 1);
	for (int i = 0; i < 3; i++) {
		/* Level-triggered: it stays ready until it is read. */
		ck_assert_int_eq(shmb_waitset_wait(waitset, ready, 4, 1000 * MS), 1);
		ck_assert_uint_eq(ready[0].cookie, 1000);
		ck_assert_uint_eq(ready[0].kind, SHMB_READY_FD);
		ck_assert_uint_eq(ready[0].events & POLLIN, POLLIN);
	}
	eventfd_read(fd, &value);
	/* One more may have been on its way. */
	shmb_waitset_wait(waitset, ready, 4, 0);
	refused(shmb_waitset_wait(waitset, ready, 4, 5 * MS), -ETIMEDOUT);
	ok(shmb_waitset_remove_fd(waitset, fd));
	eventfd_write(fd, 1);
	refused(shmb_waitset_wait(waitset, ready, 4, 5 * MS), -ETIMEDOUT);
	refused(shmb_waitset_remove_fd(waitset, fd), -ENOENT);
	close(fd);
	refused(shmb_waitset_add_fd(waitset, fd, POLLIN, 0), -EBADF);
}
END_TEST

START_TEST(a_foreign_loop_can_poll_it)
{
	struct shmb_ready ready[4];
	struct pollfd entry = { .events = POLLIN };
	uint64_t value;

	open_waitset(_i);
	add_all();
	entry.fd = shmb_waitset_fd(waitset);
	ok(entry.fd);
	ck_assert_str_eq(shmb_waitset_backend(waitset), "epoll");
	for (uint64_t i = 0; i < 500; i++) {
		uint64_t which = i % N_CHANNELS;

		while (shmb_waitset_wait(waitset, ready, 4, 0) > 0)
			while (shmb_subscriber_recv(subscribers[ready[0].cookie], &value, 8) == 8)
				;
		ck_assert_int_eq(poll(&entry, 1, 0), 0);
		ok(shmb_publisher_send(publishers[which], &i, 8));
		ck_assert_int_eq(poll(&entry, 1, 1000), 1);
		ck_assert_int_eq(shmb_waitset_wait(waitset, ready, 4, 0), 1);
		ck_assert_uint_eq(ready[0].cookie, which);
		ck_assert_int_eq(shmb_subscriber_recv(subscribers[which], &value, 8), 8);
	}
}
END_TEST

START_TEST(a_subscriber_alone_can_be_polled_too)
{
	struct pollfd entry = { .events = POLLIN };
	uint64_t value;

	open_waitset(_i);
	entry.fd = shmb_subscriber_fd(subscribers[0]);
	ok(entry.fd);
	for (uint64_t i = 0; i < 500; i++) {
		ck_assert_int_eq(shmb_subscriber_arm(subscribers[0]), 0);
		ck_assert_int_eq(poll(&entry, 1, 0), 0);
		ok(shmb_publisher_send(publishers[0], &i, 8));
		ck_assert_int_eq(poll(&entry, 1, 1000), 1);
		ck_assert_int_eq(shmb_subscriber_arm(subscribers[0]), 1);
		ck_assert_int_eq(shmb_subscriber_recv(subscribers[0], &value, 8), 8);
	}
}
END_TEST

START_TEST(members_come_and_go)
{
	struct shmb_ready ready[4];
	struct shmb_publisher *second;

	open_waitset(_i);
	add_all();
	refused(shmb_waitset_add(waitset, subscribers[0], 1), -EEXIST);
	refused(shmb_subscriber_close(subscribers[0]), -EBUSY);
	refused(shmb_waitset_wait(waitset, ready, 4, 1 * MS), -ETIMEDOUT);
	/* A publisher that comes while everything is armed. */
	second = publisher_of(channels[3], 0);
	ok(shmb_publisher_send(second, "hello", 5));
	ck_assert_int_eq(shmb_waitset_wait(waitset, ready, 4, 1000 * MS), 1);
	ck_assert_uint_eq(ready[0].cookie, 3);
	ok(shmb_publisher_close(second));
	ok(shmb_waitset_remove(waitset, subscribers[3]));
	refused(shmb_waitset_remove(waitset, subscribers[3]), -ENOENT);
	refused(shmb_waitset_wait(waitset, ready, 4, 1 * MS), -ETIMEDOUT);
}
END_TEST

static void *wait_once(void *data)
{
	struct shmb_ready ready;

	(void)data;
	return (void *)(intptr_t)shmb_waitset_wait(waitset, &ready, 1, 5000 * MS);
}

/* A ring belongs to one thread; the wait set does not. */
START_TEST(it_may_move_to_another_thread)
{
	struct shmb_ready ready[4];
	pthread_t thread;
	void *result;

	open_waitset(_i);
	add_all();
	refused(shmb_waitset_wait(waitset, ready, 4, 1 * MS), -ETIMEDOUT);
	ck_assert_int_eq(pthread_create(&thread, NULL, wait_once, NULL), 0);
	usleep(20000);
	ok(shmb_publisher_send(publishers[5], "x", 1));
	pthread_join(thread, &result);
	ck_assert_int_eq((int)(intptr_t)result, 1);
}
END_TEST

int __real_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);

static bool is_short; /* the kernel has no memory to watch more */

int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
	if (!is_short || op != EPOLL_CTL_ADD)
		return __real_epoll_ctl(epoll_fd, op, fd, event);
	errno = ENOMEM;
	return -1;
}

static void *send_soon(void *data)
{
	usleep(50000);
	ok(shmb_publisher_send(data, "x", 1));
	return NULL;
}

/* Whoever cannot watch a doorbell does not sleep as if it did. */
START_TEST(doorbells_that_cannot_be_watched_delay_nobody)
{
	struct shmb_ready ready;
	uint64_t since;
	pthread_t thread;
	char byte;

	setenv("SHMBROKER_IO", "epoll", 1);
	ok(shmb_waitset_open(client, &waitset));
	ok(shmb_waitset_add(waitset, subscribers[0], 0));
	refused(shmb_waitset_wait(waitset, &ready, 1, 1 * MS), -ETIMEDOUT);
	/* As after a broker has come that has given it another one. */
	shmb_subscriber_member(subscribers[0])->doorbell_changes++;
	is_short = true;
	since = shmb_clock_now_ns();
	pthread_create(&thread, NULL, send_soon, publishers[0]);
	ck_assert_int_eq(shmb_waitset_wait(waitset, &ready, 1, 10000 * MS), 1);
	ck_assert_uint_lt(shmb_clock_now_ns() - since, 3000 * MS);
	pthread_join(thread, NULL);
	ck_assert_int_eq(shmb_subscriber_recv(subscribers[0], &byte, 1), 1);
	is_short = false;
	refused(shmb_waitset_wait(waitset, &ready, 1, 1 * MS), -ETIMEDOUT);
	ok(shmb_publisher_send(publishers[0], "y", 1));
	ck_assert_int_eq(shmb_waitset_wait(waitset, &ready, 1, 3000 * MS), 1);

	is_short = true;
	refused(shmb_subscriber_fd(subscribers[1]), -ENOMEM);
	says("doorbell");
	refused(shmb_subscriber_fd(subscribers[1]), -ENOMEM);
	is_short = false;
	ok(shmb_subscriber_fd(subscribers[1]));
	ok(shmb_subscriber_arm(subscribers[1]));
	ok(shmb_publisher_send(publishers[1], "z", 1));
	ck_assert_int_eq(
		poll(&(struct pollfd){ .fd = shmb_subscriber_fd(subscribers[1]), .events = POLLIN },
		     1, 3000),
		1);
}
END_TEST

START_TEST(it_does_not_need_io_uring)
{
	struct rlimit none = { 0, 0 };
	struct shmb_ready ready[4];

	(void)_i;
	setrlimit(RLIMIT_MEMLOCK, &none);
	open_waitset(0);
	add_all();
	ok(shmb_publisher_send(publishers[1], "x", 1));
	ck_assert_int_eq(shmb_waitset_wait(waitset, ready, 4, 1000 * MS), 1);
}
END_TEST

/* ---- callers and servers ----------------------------------------------------------------------- */

static struct {
	struct shmb_channel *channel;
	struct shmb_caller *caller;
	struct shmb_server *server;
} calls;

static void open_calls(void)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL,
						.backing = backing_of_run() };

	ok(shmb_channel_open(client, "test/calls", 10, &options, &calls.channel));
	ok(shmb_server_open(calls.channel, NULL, &calls.server));
	ok(shmb_caller_open(calls.channel, NULL, &calls.caller));
}

static void close_calls(void)
{
	refused(shmb_caller_close(calls.caller), -EBUSY);
	refused(shmb_server_close(calls.server), -EBUSY);
	ok(shmb_waitset_remove_caller(waitset, calls.caller));
	ok(shmb_waitset_remove_server(waitset, calls.server));
	refused(shmb_waitset_remove_caller(waitset, calls.caller), -ENOENT);
	refused(shmb_waitset_remove_server(waitset, NULL), -ENOENT);
	ok(shmb_caller_close(calls.caller));
	ok(shmb_server_close(calls.server));
	ok(shmb_channel_close(calls.channel));
}

/* One step of a program with all of it in one wait set. Returns what was ready. */
static uint64_t serve_or_receive(int64_t timeout_ns, uint64_t *ret_reply)
{
	struct shmb_ready ready[4];
	int32_t n = shmb_waitset_wait(waitset, ready, 4, timeout_ns);
	uint64_t value, seen = 0;

	ck_assert_msg(n >= 0 || n == -ETIMEDOUT, "wait: %d (%s)", n, why());
	for (int32_t i = 0; i < n; i++) {
		seen |= 1u << ready[i].kind;
		if (ready[i].kind == SHMB_READY_SERVER) {
			ck_assert_uint_eq(ready[i].cookie, 1000);
			while (shmb_server_recv(calls.server, &value, 8, 0) == 8) {
				value *= 2;
				ok(shmb_server_reply(calls.server,
						     shmb_server_view(calls.server)->call, 0,
						     &value, 8, 0, 0));
			}
		} else if (ready[i].kind == SHMB_READY_CALLER) {
			ck_assert_uint_eq(ready[i].cookie, 2000);
			if (shmb_caller_recv(calls.caller, 0, ret_reply, 8, 0) != 8)
				*ret_reply = 0;
		}
	}
	return seen;
}

START_TEST(calls_are_waited_for_too)
{
	uint64_t value, reply = 0;

	open_waitset(_i);
	add_all();
	open_calls();
	ok(shmb_waitset_add_server(waitset, calls.server, 1000));
	ok(shmb_waitset_add_caller(waitset, calls.caller, 2000));
	refused(shmb_waitset_add_caller(waitset, calls.caller, 1), -EEXIST);
	refused(shmb_waitset_add_server(waitset, NULL, 1), -EINVAL);
	for (uint64_t i = 1; i <= 500; i++) {
		ok(shmb_caller_start(calls.caller, 0, &i, 8, SHMB_FOREVER));
		for (int turns = 0; reply != 2 * i && turns < 100; turns++)
			serve_or_receive(4000 * MS, &reply);
		ck_assert_uint_eq(reply, 2 * i);
	}
	/* Subscribers are beside them. */
	ok(shmb_publisher_send(publishers[3], &reply, 8));
	for (int turns = 0; turns < 100; turns++)
		if (serve_or_receive(4000 * MS, &value) & 1u << SHMB_READY_SUBSCRIBER)
			break;
	ck_assert_int_eq(shmb_subscriber_recv(subscribers[3], &value, 8), 8);
	while (serve_or_receive(0, &value))
		;
	close_calls();
}
END_TEST

START_TEST(calls_that_end_are_told_of)
{
	struct shmb_ready ready[4];
	struct shmb_server *other;
	uint64_t value = 1;
	int32_t result;

	open_waitset(_i);
	open_calls();
	ok(shmb_waitset_add_caller(waitset, calls.caller, 2000));
	while (shmb_waitset_wait(waitset, ready, 4, 0) > 0)
		shmb_caller_recv(calls.caller, 0, &value, 8, 0);
	/* By their own time. */
	ok(shmb_caller_start(calls.caller, 0, &value, 8, 50 * MS));
	do {
		ck_assert_int_eq(shmb_waitset_wait(waitset, ready, 4, 10000 * MS), 1);
		ck_assert_uint_eq(ready[0].kind, SHMB_READY_CALLER);
		result = shmb_caller_recv(calls.caller, 0, &value, 8, 0);
	} while (result == -ETIMEDOUT);
	ck_assert_int_eq(result, -ETIME);
	/* By the death of their server. */
	ok(shmb_server_open(calls.channel, NULL, &other));
	ok(shmb_server_close(calls.server));
	ok(shmb_caller_wait(calls.caller, 8, 4000 * MS));
	ok(shmb_caller_start(calls.caller, 0, &value, 8, SHMB_FOREVER));
	while (shmb_waitset_wait(waitset, ready, 4, 0) > 0)
		refused(shmb_caller_recv(calls.caller, 0, &value, 8, 0), -ETIMEDOUT);
	ok(shmb_server_close(other));
	do {
		ck_assert_int_eq(shmb_waitset_wait(waitset, ready, 4, 10000 * MS), 1);
		result = shmb_caller_recv(calls.caller, 0, &value, 8, 0);
	} while (result == -ETIMEDOUT);
	ck_assert_int_eq(result, -ECONNRESET);
	ok(shmb_server_open(calls.channel, NULL, &calls.server));
	ok(shmb_waitset_add_server(waitset, calls.server, 1000));
	close_calls();
}
END_TEST

START_TEST(a_foreign_loop_hears_of_calls)
{
	struct pollfd fd = { .events = POLLIN };
	uint64_t value, reply = 0;

	open_waitset(_i);
	open_calls();
	ok(shmb_waitset_add_server(waitset, calls.server, 1000));
	ok(shmb_waitset_add_caller(waitset, calls.caller, 2000));
	fd.fd = shmb_waitset_fd(waitset);
	ok(fd.fd);
	for (uint64_t i = 1; i <= 100; i++) {
		while (serve_or_receive(0, &value))
			;
		ok(shmb_caller_start(calls.caller, 0, &i, 8, SHMB_FOREVER));
		for (int turns = 0; reply != 2 * i && turns < 100; turns++) {
			ck_assert_int_eq(poll(&fd, 1, 4000), 1);
			serve_or_receive(0, &reply);
		}
		ck_assert_uint_eq(reply, 2 * i);
	}
	close_calls();
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("waitset") };

	tcase_add_checked_fixture(cases[0], set_up_channels, tear_down_channels);
	tcase_set_timeout(cases[0], 60);
	tcase_add_loop_test(cases[0], it_says_who_is_ready, 0, 2);
	tcase_add_loop_test(cases[0], it_is_fair_when_asked_for_few, 0, 2);
	tcase_add_loop_test(cases[0], a_busy_one_starves_nobody, 0, 2);
	tcase_add_loop_test(cases[0], no_wake_up_is_lost_over_many, 0, 2);
	tcase_add_loop_test(cases[0], fds_of_the_caller_are_waited_for_too, 0, 2);
	tcase_add_loop_test(cases[0], a_foreign_loop_can_poll_it, 0, 2);
	tcase_add_test(cases[0], a_subscriber_alone_can_be_polled_too);
	tcase_add_loop_test(cases[0], members_come_and_go, 0, 2);
	tcase_add_loop_test(cases[0], it_may_move_to_another_thread, 0, 2);
	tcase_add_test(cases[0], doorbells_that_cannot_be_watched_delay_nobody);
	tcase_add_test(cases[0], it_does_not_need_io_uring);
	tcase_add_loop_test(cases[0], calls_are_waited_for_too, 0, 2);
	tcase_add_loop_test(cases[0], calls_that_end_are_told_of, 0, 2);
	tcase_add_loop_test(cases[0], a_foreign_loop_hears_of_calls, 0, 2);
	return run_suite("waitset", cases, 1);
}
