/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One broker of the system, processes of several users: what the rules allow and what they do not,
 * and records from one user to another, in every way to wait, while processes and the broker die.
 * Between users each pair rings by socket pairs of its own, which no other test makes.
 */

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/system/place.h"
#include "tests/unit/jobs.h"

#define CHANNEL	 "data/stream"
#define LANE_LEN 16384u
#define PATIENCE (20000 * MS)

/* Numbers of records: the last one of the first publisher, and all of those that die. */
#define LAST   (1ull << 40)
#define MORTAL (1ull << 41)

static const char rules[] =
	"socket-mode = '0666'\n"
	"rule \"publishers\" { channel = { 'data/**' } uid = { '1001' }\n"
	"	allow = { 'create', 'publish' } }\n"
	"rule \"subscribers\" { channel = { 'data/**' } uid = { '1002' } allow = { 'subscribe' } }\n"
	"rule \"patience\" { channel = { 'held/*' } uid = { '1001' } evict-after = 'unlimited'\n"
	"	priority = '3'\n"
	"	allow = { 'create', 'publish', 'subscribe' } }\n"
	"rule \"impatience\" { channel = { 'held/lossy' } allow = { 'subscribe' } evict-after = '0' }\n"
	"rule \"some patience\" { channel = { 'held/*' } allow = { 'subscribe' } evict-after = '500' }\n"
	"rule \"passing\" { channel = { 'passed/*' } uid = { '1001' } fds = '2'\n"
	"	allow = { 'create', 'publish', 'subscribe' } }\n"
	"rule \"taking\" { channel = { 'passed/*' } uid = { '1002' } allow = { 'subscribe' } }\n"
	"rule \"together\" { channel = { 'shared/*' } gid = { '2001' }\n"
	"	allow = { 'create', 'publish', 'subscribe' } }\n"
	"rule \"never\" { channel = { '*/secret' } uid = { '1002' }\n"
	"	deny = { 'publish', 'subscribe', 'inspect' } }\n";

enum waiting {
	WAIT_SPIN,
	WAIT_FUTEX,
	WAIT_FD,
	WAIT_SET_EPOLL,
	WAIT_SET_URING,
	N_WAITING
};

/* What the processes tell each other. */
static struct {
	enum waiting waiting;
	uint64_t n_records;
	uint64_t sent;
	uint64_t received;
	uint64_t joined;
	uint64_t is_through;
	uint64_t longest_ns;
	uint32_t round;
	uint32_t stop;
	uint32_t ready;
	uint32_t n_fds[2][2];
} * shared;

struct record {
	uint64_t number;
	uint64_t mixed[3];
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static struct record record_of(uint64_t number)
{
	return (struct record){ number, { mix(number), mix(~number), mix(number * 3) } };
}

static bool quick(void)
{
	return getenv("SHMB_TEST_QUICK") != NULL;
}

static bool told_to_stop(void)
{
	return __atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE);
}

static void stop_all(void)
{
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELEASE);
}

static void set_up_users(void)
{
	place_set_up();
	place_configure(rules);
	place_start();
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(shared, MAP_FAILED);
}

/* ---- rules ------------------------------------------------------------------------------------- */

/* The channel may not be there yet. */
static struct shmb_channel *channel_found(struct shmb_client *of, const char *name)
{
	struct shmb_channel_options options = { .options_len = sizeof(options) };
	struct shmb_channel *channel = NULL;
	int32_t result = -ENOENT;

	for (int i = 0; i < 2000 && result == -ENOENT; i++) {
		if (i)
			usleep(5000);
		result = shmb_channel_open(of, name, (uint32_t)strlen(name), &options, &channel);
	}
	ok(result);
	return channel;
}

static void hold_channels(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *one = channel_of(own, CHANNEL, LANE_LEN);
	struct shmb_channel *two = channel_of(own, "data/secret", LANE_LEN);

	__atomic_store_n(&shared->ready, 1, __ATOMIC_RELEASE);
	while (!told_to_stop())
		usleep(1000);
	ok(shmb_channel_close(one));
	ok(shmb_channel_close(two));
	ok(shmb_client_close(own));
}

/* Both answers, and both sentences. */
static void looks_absent(struct shmb_client *own, const char *name, uint32_t flags)
{
	char denied[512];

	refused(place_open(own, name, flags), -ENOENT);
	snprintf(denied, sizeof(denied), "%s", why());
	refused(place_open(own, "data/no-such-one", flags & ~SHMB_CHANNEL_CREATE), -ENOENT);
	ck_assert_str_eq(denied, why());
}

static void be_stranger(void)
{
	struct shmb_client *own = connect_to(place.address);

	for (uint32_t flags = 0; flags < 8; flags++) {
		looks_absent(own, CHANNEL, flags);
		looks_absent(own, "data/secret", flags);
		looks_absent(own, "data/new", flags);
		looks_absent(own, "shared/new", flags);
	}
	ok(shmb_client_close(own));
}

static void be_subscriber(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_found(own, CHANNEL);
	struct shmb_publisher *publisher;

	refused(shmb_publisher_open(channel, NULL, &publisher), -ENOENT);
	ok(shmb_subscriber_close(subscriber_of(channel, 0)));
	ok(shmb_channel_close(channel));
	refused(place_open(own, "data/mine", SHMB_CHANNEL_CREATE), -ENOENT);
	/* One rule that denies wins. */
	looks_absent(own, "data/secret", 0);
	ok(shmb_client_close(own));
}

static void be_publisher(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_found(own, CHANNEL);
	struct shmb_subscriber *subscriber;

	refused(shmb_subscriber_open(channel, NULL, &subscriber), -ENOENT);
	ok(shmb_publisher_close(publisher_of(channel, 0)));
	ok(shmb_channel_close(channel));
	refused(place_open(own, "other/new", SHMB_CHANNEL_CREATE), -ENOENT);
	ok(shmb_client_close(own));
}

static void be_in_the_group(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_of(own, "shared/one", LANE_LEN);

	ok(shmb_publisher_close(publisher_of(channel, 0)));
	ok(shmb_subscriber_close(subscriber_of(channel, 0)));
	ok(shmb_channel_close(channel));
	/* '*' is one part of a name. */
	refused(place_open(own, "shared/one/two", SHMB_CHANNEL_CREATE), -ENOENT);
	refused(place_open(own, "shared", SHMB_CHANNEL_CREATE), -ENOENT);
	ok(shmb_client_close(own));
}

START_TEST(each_user_may_do_what_the_rules_say_and_nothing_else)
{
	pid_t holder = place_run_as(UID_PUBLISHER, 0, hold_channels);

	place_until(&shared->ready, holder);
	place_finished(place_run_as(UID_STRANGER, 0, be_stranger));
	place_finished(place_run_as(UID_SUBSCRIBER, 0, be_subscriber));
	place_finished(place_run_as(UID_PUBLISHER, 0, be_publisher));
	place_finished(place_run_as(UID_STRANGER, GID_SHARED, be_in_the_group));
	stop_all();
	place_finished(holder);
}
END_TEST

/* ---- how long publishers may be held up ---------------------------------------------------------- */

static int32_t publish_with(struct shmb_channel *channel, uint32_t priority)
{
	struct shmb_publisher_options options = { .options_len = sizeof(options),
						  .priority = priority };
	struct shmb_publisher *publisher;
	int32_t result = shmb_publisher_open(channel, &options, &publisher);

	if (result == 0)
		ok(shmb_publisher_close(publisher));
	return result;
}

static void hold_patiently(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *some = channel_of(own, "held/some", LANE_LEN);
	struct shmb_channel *lossy = channel_of(own, "held/lossy", LANE_LEN);

	/* For this user an earlier rule counts. */
	ok(shmb_subscriber_close(subscriber_of(some, 0)));
	ok(shmb_subscriber_close(subscriber_of(lossy, 0)));
	refused(publish_with(some, 4), -EACCES);
	says("at most 3");
	ok(publish_with(some, 3));
	__atomic_store_n(&shared->ready, 1, __ATOMIC_RELEASE);
	while (!told_to_stop())
		usleep(1000);
	ok(shmb_channel_close(some));
	ok(shmb_channel_close(lossy));
	ok(shmb_client_close(own));
}

static int32_t subscribe_as(struct shmb_channel *channel, uint32_t flags, uint32_t evict_after_ms)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .flags = flags,
						   .evict_after_ms = evict_after_ms };
	struct shmb_subscriber *subscriber;
	int32_t result = shmb_subscriber_open(channel, &options, &subscriber);

	if (result == 0)
		ok(shmb_subscriber_close(subscriber));
	return result;
}

static void be_impatient(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *some = channel_found(own, "held/some");
	struct shmb_channel *lossy = channel_found(own, "held/lossy");

	refused(subscribe_as(some, 0, 0), -EACCES);
	says("500 ms");
	refused(subscribe_as(some, 0, 501), -EACCES);
	ok(subscribe_as(some, 0, 500));
	ok(subscribe_as(some, SHMB_SUBSCRIBER_LOSSY, 0));
	refused(subscribe_as(lossy, 0, 0), -EACCES);
	says("only lossily");
	refused(subscribe_as(lossy, 0, 1), -EACCES);
	ok(subscribe_as(lossy, SHMB_SUBSCRIBER_LOSSY, 0));
	ok(shmb_channel_close(some));
	ok(shmb_channel_close(lossy));
	ok(shmb_client_close(own));
}

START_TEST(a_rule_says_how_long_subscribers_may_hold_publishers_up)
{
	pid_t holder = place_run_as(UID_PUBLISHER, 0, hold_patiently);

	place_until(&shared->ready, holder);
	place_finished(place_run_as(UID_SUBSCRIBER, 0, be_impatient));
	stop_all();
	place_finished(holder);
	place_says("event=request-refused uid=1002");
}
END_TEST

/* ---- file descriptors ---------------------------------------------------------------------------- */

#define N_PASSED 300u

static struct shmb_channel *passing_channel(struct shmb_client *of, const char *name,
					    uint32_t max_fds, int32_t expected)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN,
						.max_fds = max_fds };
	struct shmb_channel *made = NULL;

	refused(shmb_channel_open(of, name, (uint32_t)strlen(name), &options, &made), expected);
	return made;
}

/* A record and the file that says the same. */
static int32_t pass_one(struct shmb_publisher *publisher, uint64_t number)
{
	int fd = memfd_create("passed", MFD_CLOEXEC);
	int32_t result;

	ck_assert_int_eq(write(fd, &number, sizeof(number)), sizeof(number));
	result = shmb_publisher_send_fds(publisher, &number, sizeof(number), 0, &fd, 1);
	close(fd);
	return result;
}

/* Returns the number of the next one, which has come with its file; 0: there is none. */
static uint64_t take_one(struct shmb_subscriber *subscriber)
{
	uint64_t number = 0, found = 0;
	int32_t fd, result = shmb_subscriber_recv(subscriber, &number, sizeof(number));

	if (result == -EAGAIN)
		return 0;
	ck_assert_msg(result == sizeof(number), "%d: %s", result, why());
	ck_assert_msg(shmb_subscriber_take_fds(subscriber, &fd, 1) == 1, "record %llu: %u lost: %s",
		      (unsigned long long)number, shmb_subscriber_view(subscriber)->n_fds_lost,
		      why());
	ck_assert_int_eq(pread(fd, &found, sizeof(found), 0), sizeof(found));
	ck_assert_uint_eq(found, number);
	close(fd);
	return number;
}

/* Its channel is sealed when the other user comes, and it moves while records flow. */
static void pass_files(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *passed = passing_channel(own, "passed/files", 2, 0);
	struct shmb_subscriber *subscriber = subscriber_of(passed, 0);
	struct shmb_publisher *publisher = publisher_of(passed, 0);
	uint64_t number = 1, got = 0, taken;

	passing_channel(own, "passed/many", 3, -EACCES);
	says("at most 2");
	passing_channel(own, "data/files", 1, -EACCES);
	says("no file descriptors");
	while (!told_to_stop()) {
		int32_t result = pass_one(publisher, number);

		if (result == 0)
			number++;
		else
			ck_assert_msg(result == -EAGAIN, "%d: %s", result, why());
		while ((taken = take_one(subscriber)))
			ck_assert_uint_eq(taken, ++got);
		if (number == 20)
			__atomic_store_n(&shared->ready, 1, __ATOMIC_RELEASE);
		if (result < 0)
			shmb_publisher_wait(publisher, 8, 10 * MS);
	}
	while (got < number - 1 && shmb_subscriber_wait(subscriber, PATIENCE) == 0)
		while ((taken = take_one(subscriber)))
			ck_assert_uint_eq(taken, ++got);
	ck_assert_uint_eq(got, number - 1);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(passed));
	ok(shmb_client_close(own));
}

static void take_files(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *passed = channel_found(own, "passed/files");
	struct shmb_subscriber *subscriber = subscriber_of(passed, 0);
	uint64_t before = 0;

	for (unsigned n = 0; n < (quick() ? N_PASSED / 10 : N_PASSED);) {
		uint64_t number;

		ok(shmb_subscriber_wait(subscriber, PATIENCE));
		number = take_one(subscriber);
		if (!number)
			continue;
		/* All of them from the first on. */
		ck_assert(!before || number == before + 1);
		before = number;
		n++;
	}
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(passed));
	ok(shmb_client_close(own));
}

START_TEST(files_are_passed_on_to_another_user)
{
	pid_t holder = place_run_as(UID_PUBLISHER, 0, pass_files);

	place_until(&shared->ready, holder);
	for (int i = 0; i < 3; i++)
		place_finished(place_run_as(UID_SUBSCRIBER, 0, take_files));
	stop_all();
	place_finished(holder);
}
END_TEST

static void be_kept_out(void)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = place.address,
					       .address_len = (uint32_t)strlen(place.address) };
	struct shmb_client *own;

	refused(shmb_client_open(&options, &own), -EACCES);
}

START_TEST(who_may_not_use_the_socket_is_told_so)
{
	place_configure("socket-mode = '0600'\n");
	ck_assert_int_eq(place_end(SIGTERM), 0);
	place_start();
	place_finished(place_run_as(UID_STRANGER, 0, be_kept_out));
}
END_TEST

/* ---- records from user to user ----------------------------------------------------------------- */

static void publish_all(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_of(own, CHANNEL, LANE_LEN);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_publisher_stats stats;

	ok(shmb_channel_wait_members(channel, 1, 1, PATIENCE));
	for (uint64_t i = 0; i < shared->n_records; i++) {
		struct record record = record_of(i);

		ok(shmb_publisher_send_wait(publisher, &record, sizeof(record), PATIENCE));
		if (i % 1024 == 0)
			usleep(200); /* so that the subscriber falls asleep */
		if (i == shared->n_records / 2)
			usleep(200000); /* on the busiest machine, too */
	}
	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.n_subscribers, 1);
	if (shared->waiting != WAIT_SPIN)
		ck_assert_uint_gt(stats.rings, 0);
	printf("waiting %d: rung %llu times\n", (int)shared->waiting,
	       (unsigned long long)stats.rings);
	fflush(stdout);
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}

static void wait_on_fd(struct shmb_subscriber *subscriber)
{
	struct pollfd entry = { .fd = shmb_subscriber_fd(subscriber), .events = POLLIN };
	int32_t armed = shmb_subscriber_arm(subscriber);

	ok(armed);
	if (armed == 0)
		ck_assert_msg(poll(&entry, 1, 20000) == 1, "a wake-up was lost");
}

static void wait_for_record(struct shmb_subscriber *subscriber, struct shmb_waitset *waitset)
{
	struct shmb_ready ready;

	if (waitset)
		ok(shmb_waitset_wait(waitset, &ready, 1, PATIENCE));
	else if (shared->waiting == WAIT_FD)
		wait_on_fd(subscriber);
	else
		ok(shmb_subscriber_wait(subscriber, PATIENCE));
}

static void receive_all_with(struct shmb_subscriber *subscriber, struct shmb_waitset *waitset)
{
	struct shmb_subscriber_stats stats;
	struct record record, wanted;

	for (uint64_t i = 0; i < shared->n_records; i++) {
		int32_t result;

		while ((result = shmb_subscriber_recv(subscriber, &record, sizeof(record))) ==
		       -EAGAIN)
			wait_for_record(subscriber, waitset);
		ck_assert_int_eq(result, sizeof(record));
		wanted = record_of(i);
		ck_assert_msg(!memcmp(&record, &wanted, sizeof(record)), "record %llu is %llu",
			      (unsigned long long)i, (unsigned long long)record.number);
		if (i % 8192 == 8191)
			usleep(1000); /* so that the publisher waits for space */
	}
	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.backstops, 0);
	ck_assert_uint_eq(stats.lost, 0);
}

static void receive_all(void)
{
	uint32_t flags = shared->waiting == WAIT_FUTEX ? SHMB_SUBSCRIBER_NO_SPIN : 0;
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_found(own, CHANNEL);
	struct shmb_subscriber *subscriber = subscriber_of(channel, flags);
	struct shmb_waitset *waitset = NULL;
	struct shmb_channel_info info;

	if (shared->waiting == WAIT_SET_EPOLL || shared->waiting == WAIT_SET_URING) {
		setenv("SHMBROKER_IO", shared->waiting == WAIT_SET_EPOLL ? "epoll" : "auto", 1);
		ok(shmb_waitset_open(own, &waitset));
		ok(shmb_waitset_add(waitset, subscriber, 1));
	}
	receive_all_with(subscriber, waitset);
	/* Two users: the broker has chosen by itself. */
	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.backing, SHMB_BACKING_SEALED);
	if (waitset) {
		ok(shmb_waitset_remove(waitset, subscriber));
		ok(shmb_waitset_close(waitset));
	}
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}

START_TEST(every_record_arrives_however_the_other_user_waits)
{
	pid_t subscriber, publisher;

	shared->waiting = (enum waiting)_i;
	shared->n_records = quick() ? 20000 : 100000;
	publisher = place_run_as(UID_PUBLISHER, 0, publish_all);
	subscriber = place_run_as(UID_SUBSCRIBER, 0, receive_all);
	place_finished(publisher);
	place_finished(subscriber);
}
END_TEST

/* Fills the lane, and sleeps until the subscriber has made room. */
static void publish_blocked(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_of(own, CHANNEL, LANE_LEN);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct shmb_publisher_stats stats;
	uint64_t number = 0;
	char block[1024] = "";

	ok(shmb_channel_wait_members(channel, 1, 1, PATIENCE));
	for (uint32_t round = 1; round <= 40; round++) {
		while (shmb_publisher_send(publisher, block, sizeof(block)) == 0)
			number++;
		__atomic_store_n(&shared->round, round, __ATOMIC_RELEASE);
		ok(shmb_publisher_send_wait(publisher, block, sizeof(block), PATIENCE));
	}
	ck_assert_uint_gt(number, 10);
	/* One that nobody rings finds the room by itself. It may also do so while it is being rung. */
	ok(shmb_publisher_stats(publisher, &stats, sizeof(stats)));
	ck_assert_msg(stats.backstops < 20, "%llu of 40 times nobody rang",
		      (unsigned long long)stats.backstops);
	stop_all();
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}

static void take_slowly(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_found(own, CHANNEL);
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	uint32_t round = 0;
	char block[1024];

	while (!told_to_stop()) {
		uint32_t next = __atomic_load_n(&shared->round, __ATOMIC_ACQUIRE);

		if (next == round) {
			usleep(100);
			continue;
		}
		round = next;
		usleep(3000); /* now it sleeps */
		while (shmb_subscriber_recv(subscriber, block, sizeof(block)) > 0)
			;
	}
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}

START_TEST(a_publisher_that_waits_for_space_is_rung_by_the_other_user)
{
	pid_t publisher = place_run_as(UID_PUBLISHER, 0, publish_blocked);
	pid_t subscriber = place_run_as(UID_SUBSCRIBER, 0, take_slowly);

	place_finished(publisher);
	place_finished(subscriber);
}
END_TEST

/* ---- coming, going, dying ---------------------------------------------------------------------- */

static uint32_t count_fds(void)
{
	DIR *fds = opendir("/proc/self/fd");
	uint32_t n = 0;

	while (readdir(fds))
		n++;
	closedir(fds);
	return n;
}

static void publish_until_stopped(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_of(own, CHANNEL, LANE_LEN);
	struct shmb_publisher *publisher = publisher_of(channel, 0);

	ok(shmb_channel_wait_members(channel, 1, 1, PATIENCE));
	shared->n_fds[0][0] = count_fds();
	for (uint64_t i = 0, last = 0; !last; i++) {
		struct record record;

		last = told_to_stop() ? LAST : 0;
		record = record_of(i | last);
		ok(shmb_publisher_send_wait(publisher, &record, sizeof(record), PATIENCE));
		__atomic_store_n(&shared->sent, i + 1, __ATOMIC_RELEASE);
		if (i % 64 == 0)
			usleep(500);
	}
	shared->n_fds[0][1] = count_fds();
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}

/* The records of the first publisher are complete; those of others come and go. */
static void receive_until_all(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_found(own, CHANNEL);
	struct shmb_subscriber *subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_NO_SPIN);
	struct shmb_subscriber_stats stats;
	uint64_t next = 0, before = 0, last = 0;
	struct record record, wanted;

	while (!last) {
		if (shared->waiting == WAIT_FD)
			wait_on_fd(subscriber);
		else
			ok(shmb_subscriber_wait(subscriber, PATIENCE));
		while (shmb_subscriber_recv(subscriber, &record, sizeof(record)) > 0) {
			uint64_t now = now_ns();

			wanted = record_of(record.number);
			ck_assert(!memcmp(&record, &wanted, sizeof(record)));
			if (record.number & MORTAL)
				continue;
			if (next == 0)
				shared->n_fds[1][0] = count_fds();
			last = record.number & LAST;
			if (before && now - before > shared->longest_ns)
				shared->longest_ns = now - before;
			before = now;
			ck_assert_uint_eq(record.number, next | last);
			__atomic_store_n(&shared->received, ++next, __ATOMIC_RELAXED);
		}
	}
	shared->n_fds[1][1] = count_fds();
	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.backstops, 0);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}

static void join_and_leave(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_found(own, CHANNEL);
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct record record;
	uint64_t n = 0, next = 0;

	while (n < 100) {
		ok(shmb_subscriber_wait(subscriber, PATIENCE));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &record, sizeof(record)),
				 sizeof(record));
		if (record.number & MORTAL)
			continue;
		ck_assert_uint_eq(record.number, n++ ? next : record.number);
		next = record.number + 1;
	}
	__atomic_add_fetch(&shared->joined, 1, __ATOMIC_RELAXED);
	if (shared->joined % 2)
		kill(getpid(), SIGKILL); /* a reliable subscriber that is dead holds nobody back */
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}

static void publish_and_die(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *channel = channel_of(own, CHANNEL, LANE_LEN);
	struct shmb_publisher *publisher = publisher_of(channel, 0);

	ok(shmb_channel_wait_members(channel, 1, 1, PATIENCE));
	for (uint64_t i = 0; i < 500; i++) {
		struct record record = record_of(i | MORTAL);

		ok(shmb_publisher_send_wait(publisher, &record, sizeof(record), PATIENCE));
	}
	kill(getpid(), SIGKILL);
}

static void ended_or_killed(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0 || status == SIGKILL, "a child ended with status 0x%x", status);
}

static void finish_stream(pid_t publisher, pid_t subscriber)
{
	stop_all();
	place_finished(publisher);
	place_finished(subscriber);
	ck_assert_uint_eq(shared->received, shared->sent);
}

START_TEST(others_come_and_go_and_die_and_the_stream_flows)
{
	pid_t publisher, subscriber;

	shared->waiting = _i ? WAIT_FD : WAIT_FUTEX;
	publisher = place_run_as(UID_PUBLISHER, 0, publish_until_stopped);
	subscriber = place_run_as(UID_SUBSCRIBER, 0, receive_until_all);
	while (__atomic_load_n(&shared->received, __ATOMIC_ACQUIRE) < 100)
		usleep(1000);
	for (int i = 0; i < (quick() ? 6 : 30); i++) {
		pid_t reader = place_run_as(UID_SUBSCRIBER, 0, join_and_leave);
		pid_t writer = place_run_as(UID_PUBLISHER, 0, publish_and_die);

		ended_or_killed(writer);
		ended_or_killed(reader);
	}
	ck_assert_uint_ge(shared->joined, quick() ? 6 : 30);
	finish_stream(publisher, subscriber);
}
END_TEST

/* The publisher sleeps on its doorbell when the only reason to wait for dies. */
START_TEST(a_publisher_is_free_when_the_subscriber_that_held_it_back_is_killed)
{
	pid_t publisher, subscriber;
	uint64_t before = 0;

	publisher = place_run_as(UID_PUBLISHER, 0, publish_until_stopped);
	subscriber = place_run_as(UID_SUBSCRIBER, 0, receive_until_all);
	while (__atomic_load_n(&shared->received, __ATOMIC_ACQUIRE) < 100)
		usleep(1000);
	kill(subscriber, SIGSTOP);
	/* A busy machine takes its time until the lane is full. */
	for (int i = 0; i < 200; i++) {
		before = __atomic_load_n(&shared->sent, __ATOMIC_ACQUIRE);
		usleep(100000);
		if (__atomic_load_n(&shared->sent, __ATOMIC_ACQUIRE) == before)
			break;
	}
	kill(subscriber, SIGKILL);
	ended_or_killed(subscriber);
	for (int i = 0; i < 1000 && __atomic_load_n(&shared->sent, __ATOMIC_ACQUIRE) == before; i++)
		usleep(1000);
	ck_assert_uint_gt(__atomic_load_n(&shared->sent, __ATOMIC_ACQUIRE), before);
	stop_all();
	place_finished(publisher);
}
END_TEST

/* ---- values ------------------------------------------------------------------------------------ */

static void open_state(struct shmb_client *of, uint32_t flags, struct shmb_channel **ret_channel)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = flags,
						.pattern = SHMB_CHANNEL_STATE };
	ok(shmb_channel_open(of, "data/state", 10, &options, ret_channel));
}

/* Puts 1, and 2 and so on when it is told to, and is killed. */
static void put_when_told(void)
{
	struct shmb_publisher *publisher;
	struct shmb_channel *channel;

	open_state(connect_to(place.address), SHMB_CHANNEL_CREATE, &channel);
	publisher = publisher_of(channel, 0);
	ck_assert_int_eq(shmb_publisher_claim(publisher, "k", 1), 0);
	for (uint64_t value = 1;; value++) {
		while (__atomic_load_n(&shared->sent, __ATOMIC_ACQUIRE) + 1 < value)
			usleep(100);
		ok(shmb_publisher_put(publisher, 0, &value, sizeof(value)));
		__atomic_store_n(&shared->ready, (uint32_t)value, __ATOMIC_RELEASE);
	}
}

static void get_value(struct shmb_subscriber *subscriber, uint64_t wanted)
{
	uint64_t value = 0;

	ck_assert_int_eq(shmb_subscriber_get(subscriber, 0, &value, sizeof(value)), sizeof(value));
	ck_assert_uint_eq(value, wanted);
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->sequence, wanted);
}

/* The publisher sits still, in a segment that another user may not have. */
static void get_values(void)
{
	struct shmb_subscriber *subscriber;
	struct shmb_channel *channel;
	struct shmb_channel_info info;

	open_state(connect_to(place.address), 0, &channel);
	subscriber = subscriber_of(channel, 0);
	ok(shmb_channel_info(channel, &info, sizeof(info)));
	ck_assert_uint_eq(info.backing, SHMB_BACKING_SEALED);
	get_value(subscriber, 1);
	for (uint64_t i = 2; i < 100; i++) {
		__atomic_store_n(&shared->sent, i - 1, __ATOMIC_RELEASE);
		ok(shmb_subscriber_wait_key(subscriber, 0, PATIENCE));
		while (__atomic_load_n(&shared->ready, __ATOMIC_ACQUIRE) < i)
			usleep(100);
		get_value(subscriber, i);
	}
	__atomic_store_n(&shared->is_through, 1, __ATOMIC_RELEASE);
	/* Now it is killed. */
	while (!told_to_stop())
		usleep(1000);
	/* The key is nobody's a moment before the value is. */
	for (int i = 0; i < 10000; i++) {
		get_value(subscriber, 99);
		if (!shmb_subscriber_view(subscriber)->publisher_id)
			break;
		usleep(1000);
	}
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->publisher_id, 0);
	ok(shmb_subscriber_key(subscriber, 0, NULL, 0));
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->publisher_id, 0);
	ok(shmb_subscriber_close(subscriber));
}

START_TEST(another_user_reads_values_whose_publisher_sits_still)
{
	pid_t publisher = place_run_as(UID_PUBLISHER, 0, put_when_told), subscriber;

	place_until(&shared->ready, publisher);
	subscriber = place_run_as(UID_SUBSCRIBER, 0, get_values);
	for (int i = 0; i < 30000 && !__atomic_load_n(&shared->is_through, __ATOMIC_ACQUIRE); i++)
		usleep(1000);
	kill(publisher, SIGKILL);
	ended_or_killed(publisher);
	stop_all();
	place_finished(subscriber);
}
END_TEST

/* ---- work -------------------------------------------------------------------------------------- */

static struct jobs *jobs;

static void submit_until_stopped(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *queue = jobs_queue(own, "shared/jobs", 0);
	struct shmb_publisher *publisher = publisher_of(queue, 0);
	struct shmb_channel_info info;
	uint64_t n = 0;

	while (!told_to_stop() && n < JOBS_MAX) {
		jobs_send(publisher, n++);
		__atomic_store_n(&shared->sent, n, __ATOMIC_RELEASE);
		if (n % 16 == 0)
			usleep(200);
	}
	ok(shmb_publisher_wait_done(publisher, PATIENCE));
	__atomic_store_n(&shared->is_through, 1, __ATOMIC_RELEASE);
	ok(shmb_channel_info(queue, &info, sizeof(info)));
	ck_assert_uint_eq(info.backing, SHMB_BACKING_SEALED);
	ok(shmb_publisher_close(publisher));
}

/* Whoever sends waits until all is done, and then nothing comes any more. */
static void work_until_stopped(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *queue = jobs_queue(own, "shared/jobs", 0);
	struct shmb_subscriber *worker = subscriber_of(queue, 0);

	while (jobs_do(jobs, worker, 100 * MS) || !told_to_stop() ||
	       !__atomic_load_n(&shared->is_through, __ATOMIC_ACQUIRE))
		;
	ok(shmb_subscriber_close(worker));
}

static void wait_for_more_done(uint64_t more)
{
	uint64_t before = __atomic_load_n(&jobs->n_done, __ATOMIC_ACQUIRE), now = before;

	for (int i = 0; i < 20000 && now < before + more; i++) {
		usleep(1000);
		now = __atomic_load_n(&jobs->n_done, __ATOMIC_ACQUIRE);
	}
	ck_assert_uint_ge(now, before + more);
}

/* A queue becomes sealed when a second user's worker comes; then one of the first user is killed. */
START_TEST(workers_of_another_user_come_and_are_killed)
{
	pid_t publisher, first, second;

	jobs = jobs_new();
	publisher = place_run_as(UID_PUBLISHER, GID_SHARED, submit_until_stopped);
	first = place_run_as(UID_PUBLISHER, GID_SHARED, work_until_stopped);
	wait_for_more_done(500);
	second = place_run_as(UID_SUBSCRIBER, GID_SHARED, work_until_stopped);
	wait_for_more_done(500);
	kill(first, SIGKILL);
	ended_or_killed(first);
	wait_for_more_done(500);
	first = place_run_as(UID_PUBLISHER, GID_SHARED, work_until_stopped);
	wait_for_more_done(500);
	kill(second, SIGKILL);
	ended_or_killed(second);
	wait_for_more_done(500);
	second = place_run_as(UID_SUBSCRIBER, GID_SHARED, work_until_stopped);
	wait_for_more_done(200);
	place_end(SIGKILL);
	wait_for_more_done(200);
	place_start();
	wait_for_more_done(200);
	stop_all();
	place_finished(publisher);
	place_finished(first);
	place_finished(second);
	jobs_check(jobs, shared->sent);
}
END_TEST

static uint32_t n_workers;

static void wait_for_workers(void)
{
	struct shmb_client *own = connect_to(place.address);
	struct shmb_channel *queue = jobs_queue(own, "shared/jobs", 0);
	struct shmb_channel_info info = { 0 };

	for (int i = 0; i < 20000 && info.n_subscribers != n_workers; i++) {
		usleep(1000);
		ok(shmb_channel_info(queue, &info, sizeof(info)));
	}
	ck_assert_uint_eq(info.n_subscribers, n_workers);
	ok(shmb_channel_close(queue));
	ok(shmb_client_close(own));
}

static void until_there_are(uint32_t n)
{
	n_workers = n;
	place_finished(place_run_as(UID_PUBLISHER, GID_SHARED, wait_for_workers));
}

/*
 * What a worker has left is still with the broker when its publisher moves to sealed memory. Neither has
 * moved when the worker is killed, and the publisher hears of that when it has told of its move.
 */
START_TEST(a_worker_is_killed_before_its_publisher_has_moved)
{
	pid_t publisher, first, second;

	/* Of what happens while it is stopped, it sees first what was first. */
	place_end(SIGKILL);
	setenv("SHMBROKER_IO", "epoll", 1);
	place_start();
	unsetenv("SHMBROKER_IO");
	jobs = jobs_new();
	publisher = place_run_as(UID_PUBLISHER, GID_SHARED, submit_until_stopped);
	first = place_run_as(UID_PUBLISHER, GID_SHARED, work_until_stopped);
	wait_for_more_done(500);
	kill(first, SIGSTOP);
	kill(publisher, SIGSTOP);
	second = place_run_as(UID_SUBSCRIBER, GID_SHARED, work_until_stopped);
	until_there_are(2);
	kill(place.broker, SIGSTOP);
	kill(first, SIGKILL);
	ended_or_killed(first);
	kill(publisher, SIGCONT);
	usleep(100000);
	kill(place.broker, SIGCONT);
	wait_for_more_done(500);
	stop_all();
	place_finished(publisher);
	place_finished(second);
	jobs_check(jobs, shared->sent);
}
END_TEST

/* ---- the broker dies --------------------------------------------------------------------------- */

START_TEST(a_killed_broker_is_not_missed_by_processes_of_several_users)
{
	int rounds = quick() ? 8 : 30;
	pid_t publisher, subscriber;

	shared->waiting = _i ? WAIT_FD : WAIT_FUTEX;
	publisher = place_run_as(UID_PUBLISHER, 0, publish_until_stopped);
	subscriber = place_run_as(UID_SUBSCRIBER, 0, receive_until_all);
	while (__atomic_load_n(&shared->received, __ATOMIC_ACQUIRE) < 100)
		usleep(1000);
	srand(7);
	for (int i = 0; i < rounds; i++) {
		uint64_t before;

		usleep((useconds_t)(rand() % 30000));
		place_end(SIGKILL);
		before = __atomic_load_n(&shared->received, __ATOMIC_RELAXED);
		usleep((useconds_t)(20000 + rand() % 30000));
		for (int k = 0; k < 10000; k++) {
			if (__atomic_load_n(&shared->received, __ATOMIC_RELAXED) > before)
				break;
			usleep(1000);
		}
		ck_assert_msg(__atomic_load_n(&shared->received, __ATOMIC_RELAXED) > before,
			      "round %d: nothing flows without the broker", i);
		place_start();
		if (i % 4 == 3)
			ended_or_killed(place_run_as(UID_SUBSCRIBER, 0, join_and_leave));
	}
	ck_assert_uint_eq(shared->joined, (uint64_t)rounds / 4);
	usleep(100000);
	finish_stream(publisher, subscriber);
	/* The doorbells of brokers that are long dead are not kept for ever. */
	for (int i = 0; i < 2; i++)
		ck_assert_msg(shared->n_fds[i][1] <= shared->n_fds[i][0] + 8,
			      "%s: %u fds have become %u", i ? "subscriber" : "publisher",
			      shared->n_fds[i][0], shared->n_fds[i][1]);
}
END_TEST

/* A service manager goes on listening for a broker that is dead. */
START_TEST(nobody_waits_while_the_service_manager_starts_a_new_broker)
{
	const char *args[] = { "--config", place.conf, "--directory", place.run, NULL };
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	pid_t publisher, subscriber;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(place_end(SIGTERM), 0);
	ck_assert_uint_lt(strlen(place.address), sizeof(at.sun_path));
	memcpy(at.sun_path, place.address, strlen(place.address));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(chmod(place.address, 0666), 0);
	ck_assert_int_eq(listen(fd, 64), 0);
	place.broker = place_spawn(args, fd, "1");
	shared->waiting = _i ? WAIT_FD : WAIT_FUTEX;
	publisher = place_run_as(UID_PUBLISHER, 0, publish_until_stopped);
	subscriber = place_run_as(UID_SUBSCRIBER, 0, receive_until_all);
	while (__atomic_load_n(&shared->received, __ATOMIC_ACQUIRE) < 100)
		usleep(1000);
	place_end(SIGKILL);
	shared->longest_ns = 0;
	usleep(2500000);
	place.broker = place_spawn(args, fd, "1");
	usleep(300000);
	finish_stream(publisher, subscriber);
	ck_assert_msg(shared->longest_ns < 2000 * (uint64_t)MS, "the stream stood for %llu ms",
		      (unsigned long long)shared->longest_ns / MS);
	ck_assert_int_eq(place_end(SIGTERM), 0);
	unlink(place.address);
	close(fd);
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("rules"), gated_case("records"), gated_case("deaths") };
	int result;

	place_need_root("test-users");
	for (int i = 0; i < 3; i++) {
		tcase_add_checked_fixture(cases[i], set_up_users, place_tear_down);
		tcase_set_timeout(cases[i], 60);
	}
	tcase_add_test(cases[0], each_user_may_do_what_the_rules_say_and_nothing_else);
	tcase_add_test(cases[0], a_rule_says_how_long_subscribers_may_hold_publishers_up);
	tcase_add_test(cases[0], files_are_passed_on_to_another_user);
	tcase_add_test(cases[0], who_may_not_use_the_socket_is_told_so);
	tcase_add_loop_test(cases[1], every_record_arrives_however_the_other_user_waits, 0,
			    N_WAITING);
	tcase_add_test(cases[1], a_publisher_that_waits_for_space_is_rung_by_the_other_user);
	tcase_add_test(cases[1], another_user_reads_values_whose_publisher_sits_still);
	tcase_add_test(cases[2], workers_of_another_user_come_and_are_killed);
	tcase_add_test(cases[2], a_worker_is_killed_before_its_publisher_has_moved);
	tcase_add_loop_test(cases[2], others_come_and_go_and_die_and_the_stream_flows, 0, 2);
	tcase_add_test(cases[2],
		       a_publisher_is_free_when_the_subscriber_that_held_it_back_is_killed);
	tcase_add_loop_test(cases[2], a_killed_broker_is_not_missed_by_processes_of_several_users,
			    0, 2);
	tcase_add_loop_test(cases[2], nobody_waits_while_the_service_manager_starts_a_new_broker, 0,
			    2);
	result = run_suite("users", cases, 3);
	place_sweep();
	return result;
}
