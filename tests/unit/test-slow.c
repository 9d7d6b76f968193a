/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A broker that stands still for longer than anybody waits for it, and then goes on: what it says late
 * is heard, and what was closed meanwhile is gone.
 */

#include <errno.h>
#include <poll.h>

#include "lib/bell.h"
#include "lib/client.h"

#include "tests/unit/daemon.h"

#define N_CLOGS_MAX 5000

static char instance[17];

static void set_up_slow(void)
{
	set_up_dir();
	read_instance(instance);
}

static void tear_down_slow(void)
{
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
	tear_down_dir();
}

static void stop_daemon(void)
{
	int status;

	kill(daemon_pid, SIGSTOP);
	ck_assert_int_eq(waitpid(daemon_pid, &status, WUNTRACED), daemon_pid);
	ck_assert(WIFSTOPPED(status));
}

static uint32_t count_subscribers(struct shmb_publisher *publisher)
{
	struct shmb_publisher_stats stats;

	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	return stats.n_subscribers;
}

/* Until the broker can say nothing more to somebody who does not listen. */
static void make_deaf(struct shmb_client *deaf, struct shmb_client *other,
		      struct shmb_channel *channel)
{
	int n = 0;

	while (SHMB_LOAD_ACQUIRE(&deaf->bell->backlog) != shmb_bell_backlog(deaf->broker_epoch)) {
		ck_assert_int_lt(n++, N_CLOGS_MAX);
		ok(shmb_subscriber_close(subscriber_of(channel, SHMB_SUBSCRIBER_LOSSY)));
		ok(shmb_client_ping(other, 20000 * MS));
	}
}

/* Also by a publisher that is busy, and never sleeps; and that waits for it no more than once. */
START_TEST(what_is_said_late_is_heard)
{
	struct shmb_client *own = connect_to(address), *other = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "slow", 4096);
	struct shmb_channel *theirs = channel_of(other, "slow", 4096);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *late;
	uint64_t number = 0, got = 0;

	make_deaf(own, other, theirs);
	late = subscriber_of(theirs, SHMB_SUBSCRIBER_LOSSY);
	ok(shmb_client_ping(other, 20000 * MS));
	stop_daemon();
	for (int i = 0; i < 500; i++)
		ok(shmb_publisher_send(publisher, &number, sizeof(number)));
	ck_assert_uint_eq(count_subscribers(publisher), 0);
	kill(daemon_pid, SIGCONT);
	number = 1;
	for (int i = 0; i < 20000 && count_subscribers(publisher) != 1; i++) {
		ok(shmb_publisher_send(publisher, &number, sizeof(number)));
		usleep(1000);
	}
	ck_assert_uint_eq(count_subscribers(publisher), 1);
	ok(shmb_publisher_send(publisher, &number, sizeof(number)));
	ok(shmb_subscriber_wait(late, 10000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(late, &got, sizeof(got)), sizeof(got));
	ck_assert_uint_eq(got, 1);
	ok(shmb_subscriber_close(late));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(theirs));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(other));
	ok(shmb_client_close(own));
}
END_TEST

static pid_t wake_daemon_after(useconds_t us)
{
	pid_t pid = fork();

	if (pid == 0) {
		usleep(us);
		kill(daemon_pid, SIGCONT);
		_exit(0);
	}
	return pid;
}

/* The broker would keep it until this process ends, which goes on. */
START_TEST(who_closes_while_it_is_busy_is_gone)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "slow", 4096);
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	pid_t waker;

	kill_daemon();
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	start_daemon();
	stop_daemon();
	waker = wake_daemon_after(1000000);
	ok(shmb_client_close(own));
	ck_assert_int_eq(waitpid(waker, NULL, 0), waker);
}
END_TEST

static struct shmb_channel *state_of(struct shmb_client *of)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_STATE };
	struct shmb_channel *channel = NULL;

	ok(shmb_channel_open(of, "slow/state", 10, &options, &channel));
	return channel;
}

static bool has_hung_up(int fd)
{
	struct pollfd entry = { .fd = fd };

	return poll(&entry, 1, 0) == 1 && entry.revents & POLLHUP;
}

/* Nobody says any more what the epoch has moved for. */
START_TEST(a_value_is_put_without_the_broker_that_has_just_spoken)
{
	struct shmb_client *own = connect_to(address), *other = connect_to(address);
	struct shmb_channel *channel = state_of(own), *theirs = state_of(other);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber, *late;
	uint64_t value = 1, got = 0;

	subscriber = subscriber_of(theirs, 0);
	ck_assert_int_eq(shmb_publisher_claim(publisher, "k", 1), 0);
	ok(shmb_publisher_put(publisher, 0, &value, sizeof(value)));
	ck_assert_int_eq(shmb_subscriber_find(subscriber, "k", 1), 0);
	ok(shmb_subscriber_get(subscriber, 0, &got, sizeof(got)));
	late = subscriber_of(theirs, 0);
	kill_daemon();
	/* The kernel hangs up a little later. */
	for (int i = 0; i < 10000 && !has_hung_up(own->connection.fd); i++)
		usleep(1000);
	value = 2;
	ok(shmb_publisher_put(publisher, 0, &value, sizeof(value)));
	ok(shmb_subscriber_get(subscriber, 0, &got, sizeof(got)));
	ck_assert_uint_eq(got, 2);
	ok(shmb_subscriber_get(late, 0, &got, sizeof(got)));
	ck_assert_uint_eq(got, 2);
	start_daemon();
	ok(shmb_subscriber_close(late));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(theirs));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(other));
	ok(shmb_client_close(own));
}
END_TEST

#include "tests/unit/kept.h"

static void await_stop(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
	ck_assert(WIFSTOPPED(status));
}

static void close_without_a_broker(void)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "slow", 4096);
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t number = 7;

	raise(SIGSTOP);
	ok(shmb_publisher_send(publisher, &number, sizeof(number)));
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	raise(SIGSTOP);
	_exit(1);
}

/* Neither the broker hears of it, which is killed before, nor the next one; and the process goes on. */
START_TEST(what_is_closed_without_a_broker_is_gone_with_the_next_one)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "slow", 4096);
	struct shmb_subscriber *reader = subscriber_of(channel, 0);
	uint64_t got = 0;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(100);
		close_without_a_broker();
	}
	await_stop(pid);
	kill_daemon();
	kill(pid, SIGCONT);
	await_stop(pid);
	start_daemon();
	/* What it had published comes all the same. */
	ok(shmb_subscriber_wait(reader, 10000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(reader, &got, sizeof(got)), sizeof(got));
	ck_assert_uint_eq(got, 7);
	await_entries(SHMB_ENTRY_SUBSCRIBER, 0, 1);
	/* It says that it has read the lane to its end as soon as it has heard that that is one. */
	for (int i = 0; i < 10000 && count_entries(SHMB_ENTRY_PUBLISHER, 0); i++) {
		refused(shmb_subscriber_recv(reader, &got, sizeof(got)), -EAGAIN);
		usleep(1000);
	}
	keeps(0);
	await_entries(SHMB_ENTRY_PUBLISHER, 0, 0);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ok(shmb_subscriber_close(reader));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("slow") };

	tcase_add_checked_fixture(cases[0], set_up_slow, tear_down_slow);
	tcase_set_timeout(cases[0], 100);
	tcase_add_test(cases[0], what_is_said_late_is_heard);
	tcase_add_test(cases[0], who_closes_while_it_is_busy_is_gone);
	tcase_add_test(cases[0], a_value_is_put_without_the_broker_that_has_just_spoken);
	tcase_add_test(cases[0], what_is_closed_without_a_broker_is_gone_with_the_next_one);
	return run_suite("slow", cases, 1);
}
