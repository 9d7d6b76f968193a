/* SPDX-License-Identifier: Apache-2.0 */

/* Records that carry file descriptors. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "tests/unit/daemon.h"

#define LANE_LEN 16384u
#define MAX_FDS	 64u
#define LONG_MS	 3600000u

static struct shmb_channel *channel;

static struct shmb_channel_options fd_options(void)
{
	return (struct shmb_channel_options){ .options_len = sizeof(struct shmb_channel_options),
					      .flags = SHMB_CHANNEL_CREATE,
					      .lane_len = LANE_LEN,
					      .max_fds = MAX_FDS,
					      .backing = backing_of_run() };
}

static struct shmb_channel *channel_with(const struct shmb_channel_options *options,
					 const char *name)
{
	struct shmb_channel *made = NULL;

	ok(shmb_channel_open(client, name, (uint32_t)strlen(name), options, &made));
	return made;
}

static void set_up_channel(void)
{
	struct shmb_channel_options options = fd_options();

	set_up();
	channel = channel_with(&options, "test/fds");
}

static void tear_down_channel(void)
{
	ok(shmb_channel_close(channel));
	tear_down();
}

/* A file that says which one it is. */
static int make_file(uint64_t value)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, &value, sizeof(value)), sizeof(value));
	return fd;
}

static void check_file(int fd, uint64_t value)
{
	uint64_t found = 0;

	ck_assert_int_eq(pread(fd, &found, sizeof(found), 0), sizeof(found));
	ck_assert_uint_eq(found, value);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

/* A record with files value, value + 1, ... */
static int32_t send_files(struct shmb_publisher *publisher, uint64_t value, uint32_t n)
{
	int32_t fds[MAX_FDS] = { 0 }, result;

	for (uint32_t i = 0; i < n; i++)
		fds[i] = make_file(value + i);
	result = shmb_publisher_send_fds(publisher, &value, sizeof(value), 0, fds, n);
	/* They stay this process's own. */
	for (uint32_t i = 0; i < n; i++) {
		check_file(fds[i], value + i);
		close(fds[i]);
	}
	return result;
}

static int32_t recv_value(struct shmb_subscriber *subscriber, uint64_t *value)
{
	return shmb_subscriber_recv(subscriber, value, sizeof(*value));
}

static void expect_value(struct shmb_subscriber *subscriber, uint64_t value)
{
	uint64_t got = 0;

	ck_assert_msg(recv_value(subscriber, &got) == sizeof(got), "%s", why());
	ck_assert_uint_eq(got, value);
}

static void expect_files(struct shmb_subscriber *subscriber, uint64_t value, uint32_t n)
{
	int32_t fds[MAX_FDS];

	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->n_fds, n);
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->n_fds_lost, 0);
	ck_assert_msg(shmb_subscriber_take_fds(subscriber, fds, MAX_FDS) == (int32_t)n, "%s",
		      why());
	for (uint32_t i = 0; i < n; i++) {
		check_file(fds[i], value + i);
		close(fds[i]);
	}
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->n_fds, 0);
	ck_assert_int_eq(shmb_subscriber_take_fds(subscriber, fds, MAX_FDS), 0);
}

static void expect(struct shmb_subscriber *subscriber, uint64_t value, uint32_t n)
{
	expect_value(subscriber, value);
	expect_files(subscriber, value, n);
}

static uint64_t lost_by(struct shmb_subscriber *subscriber)
{
	struct shmb_subscriber_stats stats;

	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	return stats.fds_lost;
}

static uint64_t lost_of(struct shmb_publisher *publisher)
{
	struct shmb_publisher_stats stats;

	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	return stats.fds_lost;
}

static unsigned n_open(void)
{
	uint8_t open[GATE_FDS_MAX] = { 0 }, none[GATE_FDS_MAX] = { 0 };

	return gate_fds(open, none, 0);
}

/* A pipe whose reading end says when nobody has its writing end any more. */
static int send_pipe(struct shmb_publisher *publisher, uint64_t value)
{
	int ends[2];

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	ok(shmb_publisher_send_fds(publisher, &value, sizeof(value), 0, &ends[1], 1));
	close(ends[1]);
	return ends[0];
}

static bool is_closed(int reading)
{
	struct pollfd look = { .fd = reading, .events = POLLIN };

	return poll(&look, 1, 0) == 1 && look.revents & POLLHUP;
}

START_TEST(as_many_as_were_sent_come_with_their_record)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	unsigned before;

	for (uint32_t n = 0; n <= MAX_FDS; n++) {
		ok(send_files(publisher, 100 * n, n));
		expect(subscriber, 100 * n, n);
	}
	before = n_open();
	for (uint64_t i = 0; i < 200; i++) {
		ok(send_files(publisher, i, i % 3));
		if (i % 7 == 6)
			for (uint64_t k = i - 6; k <= i; k++)
				expect(subscriber, k, k % 3);
	}
	ck_assert_uint_eq(n_open(), before);
	ck_assert_uint_eq(lost_by(subscriber), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(each_subscriber_gets_its_own_from_each_publisher)
{
	struct shmb_subscriber *subscribers[3];
	struct shmb_publisher *publishers[2];
	uint64_t value;

	for (int i = 0; i < 3; i++)
		subscribers[i] = subscriber_of(channel, i == 2 ? SHMB_SUBSCRIBER_LOSSY : 0);
	for (int i = 0; i < 2; i++)
		publishers[i] = publisher_of(channel, 0);
	for (uint64_t round = 0; round < 20; round++) {
		for (uint64_t i = 0; i < 2; i++)
			ok(send_files(publishers[i], 1000 * i + round * 2, 2));
		for (int i = 0; i < 3; i++)
			for (int k = 0; k < 2; k++) {
				ck_assert_int_eq(recv_value(subscribers[i], &value), 8);
				expect_files(subscribers[i], value, 2);
			}
	}
	for (int i = 0; i < 3; i++)
		ok(shmb_subscriber_close(subscribers[i]));
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_eq(lost_of(publishers[i]), 0);
		ok(shmb_publisher_close(publishers[i]));
	}
}
END_TEST

/* Nor are they opened here before. */
START_TEST(what_is_not_taken_is_closed_with_the_next_call)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t value;
	unsigned before;
	int reading[3];

	ok(send_files(publisher, 0, 1));
	expect(subscriber, 0, 1);
	before = n_open();
	for (unsigned i = 0; i < 3; i++)
		reading[i] = send_pipe(publisher, i);
	expect_value(subscriber, 0);
	ck_assert_uint_eq(n_open(), before + 3);
	ck_assert(!is_closed(reading[0]));
	expect_value(subscriber, 1);
	ck_assert(is_closed(reading[0]));
	ck_assert(!is_closed(reading[1]));
	expect_value(subscriber, 2);
	ck_assert(is_closed(reading[1]));
	refused(recv_value(subscriber, &value), -EAGAIN);
	ck_assert(is_closed(reading[2]));
	/* Nor does it keep what it has never received. */
	close(reading[0]);
	reading[0] = send_pipe(publisher, 3);
	ok(shmb_subscriber_close(subscriber));
	ck_assert(is_closed(reading[0]));
	for (unsigned i = 0; i < 3; i++)
		close(reading[i]);
	ok(shmb_publisher_close(publisher));
}
END_TEST

START_TEST(a_reliable_subscriber_holds_up_and_loses_none)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t sent = 0, got = 0;
	int32_t result;

	for (int round = 0; round < 3; round++) {
		while ((result = send_files(publisher, sent, 1)) == 0)
			sent++;
		refused(result, -EAGAIN);
		says("earlier file descriptors");
		ck_assert_uint_ge(sent - got, 16);
		refused(shmb_publisher_wait(publisher, 8, 1 * MS), -ETIMEDOUT);
		says("file descriptors");
		/* Records without any still fit. */
		ok(shmb_publisher_send(publisher, &sent, sizeof(sent)));
		for (; got < sent; got++)
			expect(subscriber, got, 1);
		expect(subscriber, sent, 0);
		ok(shmb_publisher_wait(publisher, 8, 5000 * MS));
	}
	ck_assert_uint_eq(lost_by(subscriber), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* As a user that has to keep to limits. */
static void send_too_many(void)
{
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publisher;
	struct rlimit limit = { 128, 128 };
	uint64_t sent = 0;
	int32_t result;

	if (setgid(54321) < 0 || setuid(54321) < 0)
		_exit(1);
	set_up_channel();
	subscriber = subscriber_of(channel, 0);
	publisher = publisher_of(channel, 0);
	/* What is open stays open. */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	while ((result = send_files(publisher, sent, 4)) == 0)
		sent++;
	refused(result, -EAGAIN);
	ck_assert_uint_le(sent, 33);
	/* Whoever tries again until his time is up does not do so for ever, nor in circles. */
	for (int i = 0; i < 10000 && shmb_publisher_wait(publisher, 8, 0) != -ETIMEDOUT; i++)
		refused(send_files(publisher, sent, 4), -EAGAIN);
	says("in time");
	ok(shmb_publisher_wait(publisher, 8, 10000 * MS));
	refused(send_files(publisher, sent, 4), -EAGAIN);
	for (uint64_t i = 0; i < sent; i++)
		expect(subscriber, i, 4);
	while ((result = send_files(publisher, sent, 4)) == -EAGAIN)
		ok(shmb_publisher_wait(publisher, 8, 10000 * MS));
	ok(result);
	expect(subscriber, sent, 4);
	ck_assert_uint_eq(lost_by(subscriber) + lost_of(publisher), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	tear_down_channel();
	_exit(0);
}

START_TEST(what_the_kernel_refuses_is_tried_again)
{
	int status = -1;
	pid_t pid;

	/* What others of this user have on their way counts, too: it takes one that nobody else is. */
	if (geteuid() != 0)
		return;
	pid = fork();
	if (pid == 0)
		send_too_many();
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* One of two is slow: the other gets each record once, and has nothing too much. */
START_TEST(what_is_refused_reaches_nobody)
{
	struct shmb_subscriber *quick = subscriber_of(channel, 0);
	struct shmb_subscriber *slow = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, SHMB_PUBLISHER_DROP_NEWEST);
	struct shmb_publisher_stats stats;
	uint64_t value;
	int reading;

	for (uint64_t i = 0; i < 300; i++) {
		ok(send_files(publisher, i, 1));
		if (recv_value(quick, &value) == 8)
			expect_files(quick, value, 1);
	}
	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	ck_assert_uint_gt(stats.dropped, 0);
	ck_assert_uint_eq(stats.published + stats.dropped, 300);
	ck_assert_uint_eq(stats.fds_lost, 0);
	for (uint64_t i = 0; i < stats.published; i++) {
		ck_assert_int_eq(recv_value(slow, &value), 8);
		expect_files(slow, value, 1);
	}
	reading = send_pipe(publisher, 1);
	expect_value(slow, 1);
	expect_value(quick, 1);
	refused(recv_value(slow, &value), -EAGAIN);
	refused(recv_value(quick, &value), -EAGAIN);
	ck_assert(is_closed(reading));
	close(reading);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(quick));
	ok(shmb_subscriber_close(slow));
}
END_TEST

START_TEST(a_lossy_subscriber_holds_nobody_up_and_counts)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_LOSSY);
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t value, got = 0, lost = 0;

	for (uint64_t i = 0; i < 2000; i++)
		ok(send_files(publisher, i, 1));
	ck_assert_uint_gt(lost_of(publisher), 1000);
	while (recv_value(subscriber, &value) == 8) {
		got++;
		lost += view->n_fds_lost;
		ck_assert_uint_eq(view->n_fds + view->n_fds_lost, 1);
		if (view->n_fds)
			expect_files(subscriber, value, 1);
	}
	ck_assert_uint_eq(got + view->lost, 2000);
	ck_assert_uint_gt(lost, 0);
	ck_assert_uint_eq(lost_by(subscriber), lost);
	/* It goes on as if nothing had been. */
	ok(send_files(publisher, 7, 3));
	expect(subscriber, 7, 3);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(who_comes_late_gets_records_without_theirs)
{
	struct shmb_channel_options options = fd_options();
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publisher;
	struct shmb_channel *late;
	const struct shmb_view *view;
	int32_t fds[2];

	options.history = 10;
	late = channel_with(&options, "test/late");
	publisher = publisher_of(late, 0);
	for (uint64_t i = 0; i < 10; i++)
		ok(send_files(publisher, i, i % 2 ? 2 : 0));
	subscriber = subscriber_of(late, 0);
	ok(send_files(publisher, 10, 2));
	view = shmb_subscriber_view(subscriber);
	for (uint64_t i = 0; i < 10; i++) {
		expect_value(subscriber, i);
		ck_assert_uint_eq(view->n_fds, 0);
		ck_assert_uint_eq(view->n_fds_lost, i % 2 ? 2 : 0);
		ck_assert_int_eq(shmb_subscriber_take_fds(subscriber, fds, 2), 0);
	}
	expect(subscriber, 10, 2);
	ck_assert_uint_eq(lost_by(subscriber), 10);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(late));
}
END_TEST

START_TEST(what_a_publisher_has_sent_outlives_it)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t value;

	for (uint64_t i = 0; i < 5; i++)
		ok(send_files(publisher, i, 2));
	ok(shmb_publisher_close(publisher));
	for (uint64_t i = 0; i < 4; i++)
		expect(subscriber, i, 2);
	/* Those of the last one also when its lane has gone. */
	expect_value(subscriber, 4);
	refused(shmb_subscriber_wait(subscriber, 1 * MS), -ETIMEDOUT);
	expect_files(subscriber, 4, 2);
	refused(recv_value(subscriber, &value), -EAGAIN);
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(peeked_at_they_can_be_taken_and_stay_if_the_peek_is_forgotten)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t value;

	ok(send_files(publisher, 1, 1));
	ok(send_files(publisher, 2, 2));
	ok(send_files(publisher, 3, 3));
	ck_assert_int_eq(shmb_subscriber_peek(subscriber, 8), 1);
	ck_assert_uint_eq(view->n_fds, 1);
	ok(shmb_subscriber_release(subscriber, 0));
	ck_assert_int_eq(shmb_subscriber_peek(subscriber, 8), 1);
	expect_files(subscriber, 1, 1);
	ok(shmb_subscriber_release(subscriber, 0));
	/* They were taken, and are not lost. */
	ck_assert_int_eq(shmb_subscriber_peek(subscriber, 8), 1);
	ck_assert_uint_eq(view->n_fds + view->n_fds_lost, 0);
	ok(shmb_subscriber_release(subscriber, 1));
	ck_assert_int_eq(shmb_subscriber_peek(subscriber, 8), 1);
	ok(shmb_subscriber_release(subscriber, 1));
	expect_files(subscriber, 2, 2);
	ck_assert_int_eq(shmb_subscriber_peek(subscriber, 8), 1);
	ok(shmb_subscriber_release(subscriber, 1));
	refused(recv_value(subscriber, &value), -EAGAIN);
	ck_assert_uint_eq(lost_by(subscriber), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(in_a_batch_they_come_alone)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t values[8];

	for (uint64_t i = 0; i < 8; i++)
		ok(send_files(publisher, i, i == 3 || i == 4 ? 2 : 0));
	ck_assert_int_eq(shmb_subscriber_recv_many(subscriber, values, sizeof(values), NULL, 8), 3);
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->n_fds, 0);
	for (uint64_t i = 3; i < 5; i++) {
		ck_assert_int_eq(
			shmb_subscriber_recv_many(subscriber, values, sizeof(values), NULL, 8), 1);
		ck_assert_uint_eq(values[0], i);
		expect_files(subscriber, i, 2);
	}
	ck_assert_int_eq(shmb_subscriber_recv_many(subscriber, values, sizeof(values), NULL, 8), 3);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(without_room_they_stay)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct rlimit before, none;
	int32_t fds[4];
	int free_fd;

	ok(send_files(publisher, 9, 4));
	refused(shmb_subscriber_recv(subscriber, NULL, 0), -EMSGSIZE);
	expect_value(subscriber, 9);
	refused(shmb_subscriber_take_fds(subscriber, fds, 3), -EMSGSIZE);
	says("4 file descriptors");
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	free_fd = dup(0);
	close(free_fd);
	/* Room for two of the four. */
	none = (struct rlimit){ (rlim_t)free_fd + 2, before.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	refused(shmb_subscriber_take_fds(subscriber, fds, 4), -EMFILE);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert_int_eq(dup(0), free_fd);
	close(free_fd);
	expect_files(subscriber, 9, 4);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(a_loan_can_carry_them)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t value = 5;
	int32_t fds[2] = { make_file(5), make_file(6) }, bad = 1 << 20;

	ok(shmb_publisher_loan(publisher, 8));
	memcpy((void *)(uintptr_t)shmb_publisher_view(publisher)->data, &value, 8);
	refused(shmb_publisher_publish_fds(publisher, 8, &bad, 1), -EBADF);
	refused(shmb_publisher_publish_fds(publisher, 9, fds, 2), -EINVAL);
	ok(shmb_publisher_publish_fds(publisher, 8, fds, 2));
	expect(subscriber, 5, 2);
	ok(shmb_publisher_loan(publisher, 8));
	memcpy((void *)(uintptr_t)shmb_publisher_view(publisher)->data, &value, 8);
	ok(shmb_publisher_publish_fds(publisher, 8, NULL, 0));
	expect(subscriber, 5, 0);
	close(fds[0]);
	close(fds[1]);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* Nobody reads what has expired, but its fds do not hold up those of others. */
START_TEST(what_is_stepped_over_is_closed)
{
	struct shmb_channel_options options = fd_options();
	struct shmb_subscriber_options key = { .options_len = sizeof(key), .conflate_len = 1 };
	struct shmb_subscriber *subscriber = NULL;
	struct shmb_publisher *publisher;
	struct shmb_channel *made;
	uint64_t value = 0;
	int32_t result;
	int reading;

	options.ttl_ms = _i ? LONG_MS : 20;
	made = channel_with(&options, "test/stepped-over");
	ok(shmb_subscriber_open(made, _i ? &key : NULL, &subscriber));
	publisher = publisher_of(made, 0);
	reading = send_pipe(publisher, 256);
	while ((result = send_files(publisher, 256, 1)) == 0)
		;
	refused(result, -EAGAIN);
	usleep(30000);
	if (_i)
		expect(subscriber, 256, 1); /* the newest */
	else
		refused(shmb_subscriber_wait(subscriber, 0), -ETIMEDOUT);
	ck_assert(is_closed(reading));
	close(reading);
	ok(send_files(publisher, 512, 1));
	if (recv_value(subscriber, &value) == 8) /* it may have expired */
		expect_files(subscriber, 512, 1);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(made));
}
END_TEST

START_TEST(in_one_order_they_come_with_theirs)
{
	struct shmb_channel_options options = fd_options();
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publishers[3];
	struct shmb_channel *made;

	options.flags |= SHMB_CHANNEL_ORDERED;
	made = channel_with(&options, "test/ordered");
	subscriber = subscriber_of(made, 0);
	for (int i = 0; i < 3; i++)
		publishers[i] = publisher_of(made, 0);
	for (uint64_t i = 0; i < 30; i++)
		ok(send_files(publishers[i % 3], i, i % 4));
	for (uint64_t i = 0; i < 30; i++)
		expect(subscriber, i, i % 4);
	for (int i = 0; i < 3; i++)
		ok(shmb_publisher_close(publishers[i]));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(made));
}
END_TEST

START_TEST(who_holds_them_up_for_too_long_is_evicted)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .evict_after_ms = 50 };
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *subscriber = NULL;
	struct shmb_publisher_stats stats;
	uint64_t value = 0;

	ok(shmb_subscriber_open(channel, &options, &subscriber));
	while (send_files(publisher, value, 1) == 0)
		value++;
	ok(shmb_publisher_wait(publisher, 8, 60000 * MS));
	ok(send_files(publisher, value, 1));
	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.n_evicted, 1);
	refused(recv_value(subscriber, &value), -ENOBUFS);
	for (uint64_t i = 0; recv_value(subscriber, &value) == 8; i++)
		ck_assert_uint_eq(value, i);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
	static const uint32_t patterns[] = { SHMB_CHANNEL_QUEUE, SHMB_CHANNEL_CALL,
					     SHMB_CHANNEL_STATE };
	struct shmb_channel_options options = fd_options();
	struct shmb_publisher *publisher = publisher_of(channel, 0), *plain;
	struct shmb_channel *none = NULL, *other;
	struct shmb_channel_info info;
	int32_t fds[MAX_FDS + 1] = { 0 };

	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.max_fds, MAX_FDS);
	ck_assert_uint_eq(info.record_len_max, LANE_LEN / 2 - 32);
	refused(shmb_publisher_send_fds(publisher, "", 0, 0, fds, MAX_FDS + 1), -EINVAL);
	says("at most 64");
	refused(shmb_publisher_send_fds(publisher, "", 0, 0, NULL, 1), -EINVAL);
	fds[0] = -1;
	refused(shmb_publisher_send_fds(publisher, "", 0, 0, fds, 1), -EBADF);
	says("-1");
	ok(shmb_publisher_close(publisher));

	options.max_fds++;
	refused(shmb_channel_open(client, "test/none", 9, &options, &none), -EINVAL);
	options.max_fds = 1;
	options.record_len_max = 100000;
	refused(shmb_channel_open(client, "test/none", 9, &options, &none), -EINVAL);
	options.record_len_max = 0;
	for (unsigned i = 0; i < 3; i++) {
		options.pattern = patterns[i];
		options.lane_len = 0;
		refused(shmb_channel_open(client, "test/none", 9, &options, &none), -EINVAL);
		says("of a stream carry");
		options.max_fds = 0;
		other = channel_with(&options, "test/other");
		options.max_fds = 1;
		if (options.pattern != SHMB_CHANNEL_CALL) {
			publisher = publisher_of(other, 0);
			fds[0] = 0;
			ck_assert_int_lt(
				shmb_publisher_send_fds(publisher, "12345678", 8, 0, fds, 1), 0);
			ok(shmb_publisher_close(publisher));
		}
		ok(shmb_channel_close(other));
	}
	other = channel_of(client, "test/plain", LANE_LEN);
	plain = publisher_of(other, 0);
	fds[0] = 0;
	refused(shmb_publisher_send_fds(plain, "", 0, 0, fds, 1), -EOPNOTSUPP);
	says("max_fds");
	ok(shmb_publisher_close(plain));
	ok(shmb_channel_close(other));
}
END_TEST

/* ---- a broker that dies ------------------------------------------------------------------------- */

static void set_up_daemon(void)
{
	struct shmb_channel_options options = fd_options();
	char instance[17];

	set_up_dir();
	read_instance(instance);
	client = connect_to(address);
	channel = channel_with(&options, "test/fds");
}

static void tear_down_daemon(void)
{
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(client));
	wait_daemon();
	tear_down_dir();
}

static void send_patiently(struct shmb_publisher *publisher, uint64_t value, uint32_t n)
{
	int32_t result;

	while ((result = send_files(publisher, value, n)) == -EAGAIN)
		shmb_publisher_wait(publisher, 8, 10000 * MS);
	ok(result);
}

static void expect_patiently(struct shmb_subscriber *subscriber, uint64_t value, uint32_t n)
{
	ok(shmb_subscriber_wait(subscriber, 10000 * MS));
	expect(subscriber, value, n);
}

/* The client speaks with the daemon that is there now. */
static void meet_daemon(struct shmb_client *of, struct shmb_channel *its)
{
	for (int i = 0; i < 10000 && !shmb_client_connected(of); i++) {
		shmb_channel_wait_members(its, 2000, 2000, 1 * MS);
		usleep(1000);
	}
	ck_assert_int_eq(shmb_client_connected(of), 1);
}

/* With which of the sockets does not matter, nor that there are more of them with each broker. */
START_TEST(they_go_on_over_a_restart_of_the_broker)
{
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_subscriber *late;
	uint64_t value = 0, got = 0;
	unsigned before = n_open();

	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 5; i++)
			send_patiently(publisher, value++, 2);
		kill_daemon();
		/* Without a broker. */
		for (int i = 0; i < 5; i++)
			send_patiently(publisher, value++, 1);
		for (int i = 0; i < 7; i++, got++)
			expect_patiently(subscriber, got, got % 15 < 5 ? 2 : 1);
		start_daemon();
		if (round % 2)
			meet_daemon(client, channel);
		for (int i = 0; i < 5; i++)
			send_patiently(publisher, value++, 1);
		while (got < value) {
			expect_patiently(subscriber, got, got % 15 < 5 ? 2 : 1);
			got++;
		}
		ck_assert_uint_lt(n_open(), before + 24);
	}
	/* Who comes later has only the newest. */
	late = subscriber_of(channel, 0);
	send_patiently(publisher, 7, 3);
	expect_patiently(late, 7, 3);
	expect_patiently(subscriber, 7, 3);
	ok(shmb_subscriber_close(late));
	ck_assert_uint_eq(lost_by(subscriber) + lost_of(publisher), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
}
END_TEST

/* Each of the two has sockets of brokers that the other one has never heard of. */
START_TEST(one_of_them_sleeps_over_many_brokers)
{
	struct shmb_client *other = connect_to(address);
	struct shmb_channel_options options = fd_options();
	struct shmb_channel *others = NULL;
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publisher;
	uint64_t value = 0, got = 0;
	bool sleeps = _i;

	ok(shmb_channel_open(other, "test/fds", 8, &options, &others));
	subscriber = subscriber_of(others, 0);
	publisher = publisher_of(channel, 0);
	for (int round = 0; round < 5; round++) {
		kill_daemon();
		start_daemon();
		if (sleeps) {
			meet_daemon(client, channel);
			send_patiently(publisher, value++, 1);
		} else {
			meet_daemon(other, others);
			refused(recv_value(subscriber, &got), -EAGAIN);
		}
	}
	for (int i = 0; i < 3; i++)
		send_patiently(publisher, value++, 2);
	for (got = 0; got < value; got++)
		expect_patiently(subscriber, got, got < value - 3 ? 1 : 2);
	ck_assert_uint_eq(lost_by(subscriber) + lost_of(publisher), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(others));
	ok(shmb_client_close(other));
}
END_TEST

/* ---- what a broker allows ----------------------------------------------------------------------- */

static const char rules[] =
	"rule 'none' { channel = { 'none/*' } fds = '0' }\n"
	"rule 'two' { channel = { 'two/*' } fds = '2' }\n"
	"rule 'all' { channel = { '**' } allow = { 'create', 'publish', 'subscribe' } }\n"
	"quota 'default' { fd-pairs = '2' }\n";

static void set_up_rules(void)
{
	static char path[64];
	char instance[17];
	FILE *file;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(address, sizeof(address), "%s/control.sock", dir);
	snprintf(path, sizeof(path), "%s/rules.conf", dir);
	file = fopen(path, "w");
	fputs(rules, file);
	fclose(file);
	config_file = path;
	start_daemon();
	read_instance(instance);
	client = connect_to(address);
}

static void tear_down_rules(void)
{
	ok(shmb_client_close(client));
	wait_daemon();
	tear_down_dir();
	config_file = NULL;
}

START_TEST(rules_say_how_many_and_a_quota_for_how_many_pairs)
{
	struct shmb_channel_options options = fd_options();
	struct shmb_subscriber *subscribers[3] = { 0 };
	struct shmb_publisher *publisher;
	struct shmb_channel *made = NULL;

	refused(shmb_channel_open(client, "other/a", 7, &options, &made), -EACCES);
	says("carry no file descriptors");
	refused(shmb_channel_open(client, "none/a", 6, &options, &made), -EACCES);
	refused(shmb_channel_open(client, "two/a", 5, &options, &made), -EACCES);
	says("at most 2");
	options.max_fds = 2;
	made = channel_with(&options, "two/a");
	publisher = publisher_of(made, 0);
	for (int i = 0; i < 2; i++)
		subscribers[i] = subscriber_of(made, 0);
	refused(shmb_subscriber_open(made, NULL, &subscribers[2]), -EDQUOT);
	says("the limit is 2");
	ok(send_files(publisher, 3, 2));
	for (int i = 0; i < 2; i++)
		expect(subscribers[i], 3, 2);
	ok(shmb_subscriber_close(subscribers[0]));
	subscribers[0] = subscriber_of(made, 0);
	ok(send_files(publisher, 4, 1));
	for (int i = 0; i < 2; i++) {
		expect(subscribers[i], 4, 1);
		ok(shmb_subscriber_close(subscribers[i]));
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(made));
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("stream"), gated_case("restart"), gated_case("rules"),
			   gated_case("limits") };

	tcase_add_checked_fixture(cases[0], set_up_channel, tear_down_channel);
	tcase_add_test(cases[0], as_many_as_were_sent_come_with_their_record);
	tcase_add_test(cases[0], each_subscriber_gets_its_own_from_each_publisher);
	tcase_add_test(cases[0], what_is_not_taken_is_closed_with_the_next_call);
	tcase_add_test(cases[0], a_reliable_subscriber_holds_up_and_loses_none);
	tcase_add_test(cases[0], what_is_refused_reaches_nobody);
	tcase_add_test(cases[0], a_lossy_subscriber_holds_nobody_up_and_counts);
	tcase_add_test(cases[0], who_comes_late_gets_records_without_theirs);
	tcase_add_test(cases[0], what_a_publisher_has_sent_outlives_it);
	tcase_add_test(cases[0], peeked_at_they_can_be_taken_and_stay_if_the_peek_is_forgotten);
	tcase_add_test(cases[0], in_a_batch_they_come_alone);
	tcase_add_test(cases[0], without_room_they_stay);
	tcase_add_test(cases[0], a_loan_can_carry_them);
	tcase_add_loop_test(cases[0], what_is_stepped_over_is_closed, 0, 2);
	tcase_add_test(cases[0], in_one_order_they_come_with_theirs);
	tcase_add_test(cases[0], who_holds_them_up_for_too_long_is_evicted);
	tcase_add_test(cases[0], what_cannot_be_is_refused);
	tcase_add_test(cases[3], what_the_kernel_refuses_is_tried_again);
	tcase_add_checked_fixture(cases[1], set_up_daemon, tear_down_daemon);
	if (!getenv("SHMB_TEST_QUICK")) {
		tcase_add_test(cases[1], they_go_on_over_a_restart_of_the_broker);
		tcase_add_loop_test(cases[1], one_of_them_sleeps_over_many_brokers, 0, 2);
	}
	tcase_add_checked_fixture(cases[2], set_up_rules, tear_down_rules);
	if (!getenv("SHMB_TEST_QUICK") && backing_of_run() != SHMB_BACKING_SEALED)
		tcase_add_test(cases[2], rules_say_how_many_and_a_quota_for_how_many_pairs);
	for (int i = 0; i < 4; i++)
		tcase_set_timeout(cases[i], 120);
	return run_suite("fds", cases, 4);
}
