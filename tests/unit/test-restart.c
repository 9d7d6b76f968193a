/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The daemon is killed and started again while processes exchange records. Nothing may be lost or
 * come twice, nobody may need to be told, and in the end nothing may be left.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/map.h"

#include "tests/unit/daemon.h"
#include "tests/unit/jobs.h"

int __real_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);
int __wrap_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);

static bool replace_broker;

/* What the children tell the parent. */
static struct {
	uint64_t sent;
	uint64_t received;
	uint64_t joined;
	uint32_t stop;
	uint32_t all_sent; /* the publisher has stopped */
} * shared;

static void set_up_shared(void)
{
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	set_up_dir();
}

struct record {
	uint64_t number;
	uint64_t check;
};

static struct record record_of(uint64_t number)
{
	return (struct record){ number, (number ^ number >> 29) * 0x9e3779b97f4a7c15ull };
}

/* ---- a service manager that keeps fds ----------------------------------------------------------- */

#define STORED_MAX 256

static struct {
	char path[64];
	int socket;
	struct {
		char name[64];
		int fd;
	} stored[STORED_MAX];
	int n_stored;
	unsigned n_taken;
} manager = { .socket = -1 };

static int find_stored(const char *name)
{
	int i = 0;

	while (i < manager.n_stored && strcmp(manager.stored[i].name, name) != 0)
		i++;
	return i;
}

static void drop_stored(int i)
{
	if (i == manager.n_stored)
		return;
	close(manager.stored[i].fd);
	manager.stored[i] = manager.stored[--manager.n_stored];
}

/* Takes in what the daemon has said. */
static void manage(void)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	char text[256], name[64];
	struct iovec iov = { .iov_base = text, .iov_len = sizeof(text) - 1 };

	for (;;) {
		struct msghdr message = { .msg_iov = &iov,
					  .msg_iovlen = 1,
					  .msg_control = control,
					  .msg_controllen = sizeof(control) };
		ssize_t n = recvmsg(manager.socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);

		if (n < 0)
			return;
		text[n] = '\0';
		if (sscanf(text, "FDSTORE=1\nFDNAME=%63s", name) == 1 && head) {
			ck_assert_int_lt(manager.n_stored, STORED_MAX);
			memcpy(&manager.stored[manager.n_stored].fd, CMSG_DATA(head), sizeof(int));
			strcpy(manager.stored[manager.n_stored++].name, name);
			manager.n_taken++;
		} else if (sscanf(text, "FDSTOREREMOVE=1\nFDNAME=%63s", name) == 1) {
			drop_stored(find_stored(name));
		}
	}
}

/* In the child that becomes the daemon. */
static void pass_stored(void)
{
	char names[STORED_MAX * 64] = "", number[16];
	int copies[STORED_MAX];

	setenv("NOTIFY_SOCKET", manager.path, 1);
	/* Out of the way first. */
	for (int i = 0; i < manager.n_stored; i++)
		copies[i] = fcntl(manager.stored[i].fd, F_DUPFD, 400);
	for (int i = 0; i < manager.n_stored; i++) {
		dup2(copies[i], 3 + i);
		close(copies[i]);
		strcat(names, i ? ":" : "");
		strcat(names, manager.stored[i].name);
	}
	snprintf(number, sizeof(number), "%d", getpid());
	setenv("LISTEN_PID", number, 1);
	snprintf(number, sizeof(number), "%d", manager.n_stored);
	setenv("LISTEN_FDS", number, 1);
	setenv("LISTEN_FDNAMES", names, 1);
}

static void start_manager(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	snprintf(manager.path, sizeof(manager.path), "%s/notify", dir);
	strcpy(at.sun_path, manager.path);
	manager.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	pass_fds = pass_stored;
	ck_assert_int_eq(bind(manager.socket, (struct sockaddr *)&at, sizeof(at)), 0);
}

static void stop_manager(void)
{
	close(manager.socket);
	manager.socket = -1;
	pass_fds = NULL;
}

/* One that keeps nothing, so that sealed segments are lost with the broker and all have to move. */
static void pass_nothing(void)
{
	setenv("NOTIFY_SOCKET", "@shmb-nobody", 1);
}

/*
 * Brokers of both kinds follow each other. But a subscriber that has not come back yet does not have what
 * its publisher has got for its blocks meanwhile, and never gets it if that is lost then.
 */
static void start_keeping(bool keeps)
{
	pass_fds = keeps && !getenv("SHMB_TEST_BLOCKS") ? NULL : pass_nothing;
	start_daemon();
}

static void publish_until_stopped(void)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "restart/data", 65536);
	struct shmb_publisher *publisher = publisher_of(channel, 0);

	ok(shmb_channel_wait_members(channel, 1, 1, 10000 * MS));
	for (uint64_t i = 0; !__atomic_load_n(&shared->stop, __ATOMIC_RELAXED); i++) {
		struct record record = record_of(i);

		ok(shmb_publisher_send_wait(publisher, &record, sizeof(record), 20000 * MS));
		__atomic_store_n(&shared->sent, i + 1, __ATOMIC_RELEASE);
		if (i % 64 == 0)
			usleep(500);
	}
	__atomic_store_n(&shared->all_sent, 1, __ATOMIC_RELEASE);
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	_exit(0);
}

static void receive_until_all(void)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "restart/data", 65536);
	struct shmb_subscriber *subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_NO_SPIN);
	struct shmb_subscriber_stats stats;
	struct record record, wanted;
	uint64_t next = 0;

	while (!__atomic_load_n(&shared->all_sent, __ATOMIC_ACQUIRE) ||
	       next < __atomic_load_n(&shared->sent, __ATOMIC_ACQUIRE)) {
		int32_t result = shmb_subscriber_wait(subscriber, 100 * MS);

		ck_assert(result == 0 || result == -ETIMEDOUT);
		while (shmb_subscriber_recv(subscriber, &record, sizeof(record)) ==
		       sizeof(record)) {
			wanted = record_of(next);
			ck_assert_uint_eq(record.number, next);
			ck_assert_uint_eq(record.check, wanted.check);
			__atomic_store_n(&shared->received, ++next, __ATOMIC_RELAXED);
		}
	}
	ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
	ck_assert_uint_eq(stats.backstops, 0);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	_exit(0);
}

/* Somebody who comes after a restart meets the others as if nothing had been. */
static void join_and_leave(void)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "restart/data", 65536);
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	struct record first, record;

	/* On a busy machine a broker may never live long enough, until it is killed no more. */
	ok(shmb_subscriber_wait(subscriber, 60000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, &first, sizeof(first)), sizeof(first));
	for (uint64_t i = 1; i < 100; i++) {
		ok(shmb_subscriber_wait(subscriber, 60000 * MS));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &record, sizeof(record)),
				 sizeof(record));
		ck_assert_uint_eq(record.number, first.number + i);
	}
	__atomic_add_fetch(&shared->joined, 1, __ATOMIC_RELAXED);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	_exit(0);
}

static pid_t run(void (*child)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		/* A failed assertion must end this process, not run the parent's test again. */
		alarm(200);
		child();
	}
	return pid;
}

static void finished(pid_t pid)
{
	int status;

	/* A service manager reads what it is told. */
	while (waitpid(pid, &status, WNOHANG) != pid) {
		manage();
		usleep(500);
	}
	ck_assert_msg(status == 0, "a child ended with status 0x%x", status);
}

/* Also without a broker. */
static void records_flow(int round)
{
	uint64_t before = __atomic_load_n(&shared->received, __ATOMIC_RELAXED);

	for (int i = 0; i < 20000; i++) {
		manage();
		if (__atomic_load_n(&shared->received, __ATOMIC_RELAXED) > before + 64)
			return;
		usleep(1000);
	}
	ck_abort_msg("round %d: nothing flows", round);
}

START_TEST(a_killed_broker_is_not_missed)
{
	int rounds = getenv("SHMB_TEST_QUICK") ? 8 : 200;
	pid_t subscriber = run(receive_until_all), publisher = run(publish_until_stopped);
	char instance[17];

	read_instance(instance);
	srand(7);
	/* Both need a broker to begin with. */
	while (__atomic_load_n(&shared->received, __ATOMIC_RELAXED) < 100)
		usleep(1000);
	for (int i = 0; i < rounds; i++) {
		usleep((useconds_t)(rand() % 20000));
		kill_daemon();
		records_flow(i);
		usleep((useconds_t)(rand() % 20000));
		start_keeping(i % 4 < 2);
		if (i % 4 == 3)
			finished(run(join_and_leave));
	}
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELAXED);
	finished(publisher);
	finished(subscriber);
	ck_assert_uint_eq(shared->received, shared->sent);
	ck_assert_uint_gt(shared->sent, 1000);
	ck_assert_uint_eq(shared->joined, (uint64_t)rounds / 4);
	printf("counted: %d brokers killed under load\n", rounds);
	printf("counted: %llu records compared\n", (unsigned long long)shared->received);
	fflush(stdout);
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
}
END_TEST

START_TEST(who_dies_with_the_broker_is_buried_by_the_next)
{
	pid_t subscriber = run(receive_until_all), publisher = run(publish_until_stopped);
	char instance[17];

	read_instance(instance);
	while (__atomic_load_n(&shared->received, __ATOMIC_RELAXED) < 100)
		usleep(1000);
	kill_daemon();
	kill(publisher, SIGKILL);
	kill(subscriber, SIGKILL);
	waitpid(publisher, NULL, 0);
	waitpid(subscriber, NULL, 0);
	ck_assert_int_gt(count_objects(instance), 3);
	start_daemon();
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
}
END_TEST

/* Its memory is that of its successor by now, and so are its clients. */
START_TEST(a_stopped_broker_that_wakes_up_after_it_was_replaced_harms_nobody)
{
	pid_t subscriber = run(receive_until_all), publisher = run(publish_until_stopped), old;
	int status;

	while (__atomic_load_n(&shared->received, __ATOMIC_RELAXED) < 100)
		usleep(1000);
	for (int i = 0; i < 3; i++) {
		old = daemon_pid;
		kill(old, SIGSTOP);
		/* A directory that somebody has tidied up. */
		if (i == 2) {
			char path[64];

			snprintf(path, sizeof(path), "%s/broker.lock", dir);
			ck_assert_int_eq(unlink(path), 0);
		}
		start_program(daemon_path(), "--replace");
		finished(run(join_and_leave));
		kill(old, SIGCONT);
		/* It was asked to go before it was replaced, and finds that it need not tidy up. */
		ck_assert_int_eq(waitpid(old, &status, 0), old);
		ck_assert(WIFEXITED(status));
		finished(run(join_and_leave));
		ok(shmb_client_close(connect_to(address)));
		records_flow(i);
	}
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELAXED);
	finished(publisher);
	finished(subscriber);
	ck_assert_uint_eq(shared->received, shared->sent);
	wait_daemon();
}
END_TEST

START_TEST(a_newer_build_takes_over_under_load)
{
	pid_t subscriber = run(receive_until_all), publisher = run(publish_until_stopped), old;
	int rounds = getenv("SHMB_TEST_QUICK") ? 4 : 20, status;
	char path[64], command[4200], instance[17];

	read_instance(instance);
	while (__atomic_load_n(&shared->received, __ATOMIC_RELAXED) < 100)
		usleep(1000);
	snprintf(path, sizeof(path), "%s/newer", dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(command, sizeof(command), "cp '%s' %s/newer/shmbrokerd", daemon_path(), dir);
	ck_assert_int_eq(system(command), 0);
	snprintf(path, sizeof(path), "%s/newer/shmbrokerd", dir);
	for (int i = 0; i < rounds; i++) {
		usleep((useconds_t)(rand() % 20000));
		old = daemon_pid;
		start_program(i % 2 ? daemon_path() : path, "--replace");
		ck_assert_int_eq(waitpid(old, &status, 0), old);
		ck_assert_int_eq(status, 0);
		finished(run(join_and_leave));
	}
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELAXED);
	finished(publisher);
	finished(subscriber);
	ck_assert_uint_eq(shared->received, shared->sent);
	ck_assert_uint_eq(shared->joined, (uint64_t)rounds);
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
}
END_TEST

/* The broker hears of who has left a little later than the leaver's parent. */
static void manager_keeps(int wanted)
{
	/* Arenas come as they are needed. */
	if (getenv("SHMB_TEST_BLOCKS") && wanted) {
		ck_assert_int_gt(manager.n_stored, wanted);
		return;
	}
	for (int i = 0; i < 5000 && manager.n_stored != wanted; i++) {
		usleep(1000);
		manage();
	}
	ck_assert_int_eq(manager.n_stored, wanted);
}

/* With its fds kept, a sealed lane stays the same lane. */
START_TEST(what_the_service_manager_keeps_is_taken_over_as_it_is)
{
	pid_t subscriber, publisher;
	unsigned taken;

	kill_daemon();
	start_manager();
	start_daemon();
	setenv("SHMB_TEST_BACKING", "sealed", 1);
	subscriber = run(receive_until_all);
	publisher = run(publish_until_stopped);
	while (__atomic_load_n(&shared->received, __ATOMIC_RELAXED) < 100)
		usleep(1000);
	manage();
	manager_keeps(3); /* lane, cursor, bell */
	taken = manager.n_taken;
	for (int i = 0; i < 5; i++) {
		kill_daemon();
		start_daemon();
		usleep(100000);
		records_flow(i);
		if (!getenv("SHMB_TEST_BLOCKS"))
			ck_assert_uint_eq(manager.n_taken, taken);
	}
	finished(run(join_and_leave));
	manage();
	if (!getenv("SHMB_TEST_BLOCKS"))
		ck_assert_uint_eq(manager.n_taken, taken + 2);
	manager_keeps(3);
	/* And if it loses them, all move to new ones. */
	kill_daemon();
	while (manager.n_stored)
		drop_stored(0);
	start_daemon();
	finished(run(join_and_leave));
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELAXED);
	finished(publisher);
	finished(subscriber);
	ck_assert_uint_eq(shared->received, shared->sent);
	wait_daemon();
	manage();
	manager_keeps(0);
	stop_manager();
}
END_TEST

static void send_and_receive(struct shmb_publisher *publisher, struct shmb_subscriber *subscriber)
{
	char text[8] = "";

	ok(shmb_publisher_send_wait(publisher, "hello", 6, 5000 * MS));
	ok(shmb_subscriber_wait(subscriber, 5000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, text, sizeof(text)), 6);
	ck_assert_str_eq(text, "hello");
}

static void publish_number(struct shmb_publisher *publisher, uint64_t number)
{
	ok(shmb_publisher_send_wait(publisher, &number, sizeof(number), 5000 * MS));
}

static void receive_number(struct shmb_subscriber *subscriber, uint64_t number)
{
	uint64_t value = 0;

	ok(shmb_subscriber_wait(subscriber, 5000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), 8);
	ck_assert_uint_eq(value, number);
	ck_assert_uint_eq(shmb_subscriber_view(subscriber)->sequence, number);
}

/* A record that is looked at, one that is being written, and what each has not read yet. */
START_TEST(what_members_have_in_hand_when_the_broker_is_replaced_stays_theirs)
{
	struct shmb_client *own = connect_to(address), *other = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "a", 4096);
	struct shmb_channel *theirs = channel_of(other, "a", 4096);
	struct shmb_subscriber *slow = subscriber_of(theirs, 0);
	struct shmb_subscriber *lossy = subscriber_of(theirs, SHMB_SUBSCRIBER_LOSSY);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t *loan, n = 0;
	uint64_t value;

	publish_number(publisher, n++);
	receive_number(slow, 0);
	receive_number(lossy, 0);
	for (int i = 0; i < 8; i++) {
		uint64_t first = n;

		publish_number(publisher, n++);
		publish_number(publisher, n++);
		ck_assert_int_ge(shmb_subscriber_peek(slow, 1), 1);
		ok(shmb_publisher_loan(publisher, 8));
		loan = (void *)(uintptr_t)shmb_publisher_view(publisher)->data;
		kill_daemon();
		start_keeping(i % 4 < 2);
		ok(shmb_client_ping(own, 5000 * MS));
		ok(shmb_client_ping(other, 5000 * MS));
		*loan = n++;
		ok(shmb_publisher_publish(publisher, 8));
		memcpy(&value, (void *)(uintptr_t)shmb_subscriber_view(slow)->data, 8);
		ck_assert_uint_eq(value, first);
		ok(shmb_subscriber_release(slow, 1));
		/* A ring and a half: the publisher waits for who has still to move. */
		for (int k = 0; k < 100; k++) {
			publish_number(publisher, n++);
			receive_number(slow, first + 1 + (uint64_t)k);
			receive_number(lossy, first + (uint64_t)k);
		}
		for (uint64_t k = first + 101; k < n; k++)
			receive_number(slow, k);
		for (uint64_t k = first + 100; k < n; k++)
			receive_number(lossy, k);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(slow));
	ok(shmb_subscriber_close(lossy));
	ok(shmb_channel_close(channel));
	ok(shmb_channel_close(theirs));
	ok(shmb_client_close(own));
	ok(shmb_client_close(other));
	wait_daemon();
}
END_TEST

/* In the middle of opening a member: after the broker has made it, before it is active. */
int __wrap_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind)
{
	if (replace_broker) {
		replace_broker = false;
		kill_daemon();
		start_daemon();
	}
	return __real_shmb_map_writer(map, fd, descriptor, kind);
}

START_TEST(who_opens_a_member_while_the_broker_is_replaced_only_waits)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "a", 4096);
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publisher;
	char instance[17];

	read_instance(instance);
	replace_broker = true;
	subscriber = subscriber_of(channel, 0);
	ck_assert(!replace_broker);
	replace_broker = true;
	publisher = publisher_of(channel, 0);
	ck_assert(!replace_broker);
	send_and_receive(publisher, subscriber);
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
}
END_TEST

/* Nor does a publisher wait for a reliable subscriber that has been closed, until there is one. */
START_TEST(what_is_closed_without_a_broker_is_gone_when_there_is_one_again)
{
	struct shmb_client *own = connect_to(address), *other = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "a", 4096);
	struct shmb_channel *again = channel_of(own, "a", 4096);
	struct shmb_channel *theirs = channel_of(other, "a", 4096);
	struct shmb_subscriber *closed = subscriber_of(channel, 0);
	struct shmb_subscriber *subscriber = subscriber_of(again, 0);
	struct shmb_publisher *publisher = publisher_of(theirs, 0);
	char instance[17];

	read_instance(instance);
	send_and_receive(publisher, subscriber);
	kill_daemon();
	ok(shmb_subscriber_close(closed));
	ok(shmb_channel_close(channel));
	/* Many times what the lane holds. */
	for (int i = 0; i < 2000; i++)
		send_and_receive(publisher, subscriber);
	start_daemon();
	/* Nothing happens behind a program's back: its next use of the broker tells. */
	ok(shmb_client_ping(own, 5000 * MS));
	for (int i = 0; i < 2000; i++)
		send_and_receive(publisher, subscriber);
	kill_daemon();
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(again));
	ok(shmb_publisher_close(publisher));
	start_daemon();
	ok(shmb_client_close(own));
	ok(shmb_channel_close(theirs));
	ok(shmb_client_close(other));
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
}
END_TEST

static struct shmb_channel *state_of(struct shmb_client *of)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_STATE,
						.backing = backing_of_run() };
	struct shmb_channel *channel = NULL;

	ok(shmb_channel_open(of, "restart/state", 13, &options, &channel));
	return channel;
}

/* Claims a key, and puts a value until it is killed. Counts in shared->sent what is sure. */
static void put_until_killed(void)
{
	struct shmb_publisher *publisher = publisher_of(state_of(connect_to(address)), 0);
	int32_t key = shmb_publisher_claim(publisher, "k", 1);

	ok(key);
	for (uint64_t i = 1;; i++) {
		ok(shmb_publisher_put(publisher, (uint32_t)key, &i, sizeof(i)));
		__atomic_store_n(&shared->sent, i, __ATOMIC_RELEASE);
		usleep(100);
	}
}

static uint64_t state_value(struct shmb_subscriber *subscriber)
{
	int32_t key = shmb_subscriber_find(subscriber, "k", 1), len = -EAGAIN;
	uint64_t value = 0;

	ok(key);
	for (int tries = 0; len == -EAGAIN && tries < 10000; tries++) {
		len = shmb_subscriber_get(subscriber, (uint32_t)key, &value, sizeof(value));
		if (len == -EAGAIN)
			usleep(1000);
	}
	ok(len);
	return value;
}

START_TEST(claims_and_values_survive_the_broker)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = state_of(own);
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0), *late;
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	int rounds = getenv("SHMB_TEST_QUICK") ? 3 : 15;
	uint64_t value, term = 0;
	char instance[17];

	read_instance(instance);
	for (int i = 0; i < rounds; i++) {
		pid_t writer = run(put_until_killed);
		int32_t key = -EBUSY;

		while (__atomic_load_n(&shared->sent, __ATOMIC_ACQUIRE) < 20)
			usleep(1000);
		kill_daemon();
		/* Who dies while there is none to see it; what is sealed somebody must have. */
		if (i % 3 == 0 && (backing_of_run() != SHMB_BACKING_SEALED || !pass_fds))
			kill(writer, SIGKILL);
		start_keeping(i % 2 == 0);
		if (i % 3 == 1) { /* who lives on keeps what it has claimed */
			refused(shmb_publisher_claim(publisher, "k", 1), -EBUSY);
			kill_daemon();
			start_daemon();
		}
		if (backing_of_run() == SHMB_BACKING_SEALED) {
			late = subscriber_of(channel, 0);
			ck_assert_uint_gt(state_value(late), 0); /* it has moved */
			ok(shmb_subscriber_close(late));
		}
		kill(writer, SIGKILL);
		waitpid(writer, NULL, 0);
		value = state_value(subscriber);
		ck_assert_uint_ge(value, shared->sent);
		ck_assert_uint_le(value, shared->sent + 1);
		late = subscriber_of(channel, 0);
		ck_assert_uint_eq(state_value(late), value);
		ok(shmb_subscriber_close(late));
		for (int tries = 0; key == -EBUSY && tries < 10000; tries++) {
			key = shmb_publisher_claim(publisher, "k", 1);
			if (key == -EBUSY)
				usleep(1000);
		}
		ok(key);
		ck_assert_uint_gt(shmb_publisher_view(publisher)->term, term);
		term = shmb_publisher_view(publisher)->term;
		ck_assert_uint_eq(state_value(subscriber), value);
		if (i % 2) {
			value = 1000000;
			ok(shmb_publisher_put(publisher, (uint32_t)key, &value, sizeof(value)));
			ck_assert_uint_eq(state_value(subscriber), value);
			ck_assert_uint_eq(shmb_subscriber_view(subscriber)->term, term);
		}
		ok(shmb_publisher_disclaim(publisher, (uint32_t)key));
		shared->sent = 0;
	}
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
}
END_TEST

static struct jobs *jobs;

static void work_until_killed(void)
{
	struct shmb_channel *queue =
		jobs_queue(connect_to(address), "restart/queue", backing_of_run());
	struct shmb_subscriber *worker;

	ok(shmb_subscriber_open(queue, NULL, &worker));
	__atomic_fetch_add(&shared->joined, 1, __ATOMIC_RELEASE);
	for (;;)
		jobs_do(jobs, worker, 1000 * MS);
}

/* It has to find a broker. */
static pid_t start_worker(void)
{
	uint64_t joined = __atomic_load_n(&shared->joined, __ATOMIC_ACQUIRE);
	pid_t pid = run(work_until_killed);

	while (__atomic_load_n(&shared->joined, __ATOMIC_ACQUIRE) == joined)
		usleep(1000);
	return pid;
}

/* Workers and brokers are killed, together and one after the other. */
START_TEST(work_goes_on_without_the_broker)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *queue = jobs_queue(own, "restart/queue", backing_of_run());
	struct shmb_publisher *publisher = publisher_of(queue, 0);
	int rounds = getenv("SHMB_TEST_QUICK") ? 4 : 16;
	char instance[17];
	pid_t workers[2];
	uint64_t n = 0;

	read_instance(instance);
	jobs = jobs_new();
	for (int i = 0; i < 2; i++)
		workers[i] = start_worker();
	for (int round = 0; round < rounds; round++) {
		pid_t *victim = &workers[round / 2 % 2];

		for (int i = 0; i < 300; i++)
			jobs_send(publisher, n++);
		kill_daemon();
		for (int i = 0; i < 300; i++)
			jobs_send(publisher, n++);
		if (round % 2)
			kill(*victim, SIGKILL);
		start_keeping(round % 4 < 2);
		for (int i = 0; i < 300; i++)
			jobs_send(publisher, n++);
		kill(*victim, SIGKILL);
		waitpid(*victim, NULL, 0);
		*victim = start_worker();
		if (round % 3 == 0)
			ok(shmb_publisher_wait_done(publisher, 40000 * MS));
	}
	ok(shmb_publisher_wait_done(publisher, 40000 * MS));
	jobs_check(jobs, n);
	for (int i = 0; i < 2; i++) {
		kill(workers[i], SIGKILL);
		waitpid(workers[i], NULL, 0);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(queue));
	ok(shmb_client_close(own));
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
}
END_TEST

static struct shmb_channel *calls_of(struct shmb_client *of)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL,
						.backing = backing_of_run() };
	struct shmb_channel *channel = NULL;

	ok(shmb_channel_open(of, "restart/calls", 13, &options, &channel));
	return channel;
}

/* Answers each number with its double, some of them after a while. */
static void serve_until_killed(void)
{
	struct shmb_server *server = NULL;
	uint64_t number;

	ok(shmb_server_open(calls_of(connect_to(address)), NULL, &server));
	__atomic_fetch_add(&shared->joined, 1, __ATOMIC_RELEASE);
	for (;;) {
		int32_t len = shmb_server_recv(server, &number, sizeof(number), 1000 * MS);

		if (len == -ETIMEDOUT)
			continue;
		ok(len);
		if (number % 16 == 0)
			usleep(1000);
		number *= 2;
		ok(shmb_server_reply(server, shmb_server_view(server)->call, 0, &number,
				     sizeof(number), 0, 1000 * MS));
	}
}

static pid_t start_server(void)
{
	uint64_t joined = __atomic_load_n(&shared->joined, __ATOMIC_ACQUIRE);
	pid_t pid = run(serve_until_killed);

	while (__atomic_load_n(&shared->joined, __ATOMIC_ACQUIRE) == joined)
		usleep(1000);
	return pid;
}

#define N_STARTED 8

/* Starts some more; those that end meanwhile stay open until they are asked for. */
static void start_calls(struct shmb_caller *caller, int32_t calls[N_STARTED], uint64_t number)
{
	for (uint32_t i = 0; i < N_STARTED; i++, number++) {
		calls[i] = shmb_caller_start(caller, 0, &number, sizeof(number), 60000 * MS);
		ok(calls[i]);
	}
}

/* Returns how many were answered: the others have ended with their server. */
static uint32_t end_calls(struct shmb_caller *caller, const int32_t calls[N_STARTED],
			  uint64_t number)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < N_STARTED; i++, number++) {
		uint64_t answer = 0;
		int32_t len =
			shmb_caller_recv(caller, calls[i], &answer, sizeof(answer), 60000 * MS);

		if (len == -ECONNRESET)
			continue;
		ok(len);
		ck_assert_uint_eq(answer, 2 * number);
		n++;
	}
	return n;
}

/* The first reply of a server to a caller takes a broker, those that follow do not. */
static uint64_t meet(struct shmb_caller *caller, pid_t server, uint64_t number)
{
	bool met = false;

	while (!met) {
		uint64_t answer = 0;
		int32_t calls[N_STARTED];

		start_calls(caller, calls, number);
		for (uint32_t i = 0; i < N_STARTED; i++, number++) {
			int32_t len = shmb_caller_recv(caller, calls[i], &answer, sizeof(answer),
						       60000 * MS);

			if (len == -ECONNRESET)
				continue;
			ok(len);
			ck_assert_uint_eq(answer, 2 * number);
			met |= shmb_caller_view(caller)->pid == (uint32_t)server;
		}
	}
	return number;
}

/* Servers and brokers are killed, together and one after the other. */
START_TEST(calls_go_on_without_the_broker)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = calls_of(own);
	struct shmb_caller *caller = NULL;
	int rounds = getenv("SHMB_TEST_QUICK") ? 4 : 16;
	int32_t calls[2][N_STARTED];
	char instance[17];
	pid_t servers[2];
	uint64_t n = 0;

	read_instance(instance);
	for (int i = 0; i < 2; i++)
		servers[i] = start_server();
	ok(shmb_caller_open(channel, NULL, &caller));
	for (int i = 0; i < 2; i++)
		n = meet(caller, servers[i], n);
	for (int round = 0; round < rounds; round++) {
		pid_t *victim = &servers[round / 2 % 2];

		start_calls(caller, calls[0], n);
		kill_daemon();
		ck_assert_uint_eq(end_calls(caller, calls[0], n), N_STARTED);
		n += N_STARTED;
		start_calls(caller, calls[0], n);
		if (round % 2)
			kill(*victim, SIGKILL);
		start_calls(caller, calls[1], n + N_STARTED);
		start_keeping(round % 4 < 2);
		/* Who has died without a broker is found dead by the next one. */
		for (int i = 0; i < 2; i++, n += N_STARTED) {
			uint32_t answered = end_calls(caller, calls[i], n);

			ck_assert_uint_ge(answered, round % 2 ? N_STARTED / 4 : N_STARTED);
		}
		kill(*victim, SIGKILL);
		waitpid(*victim, NULL, 0);
		*victim = start_server();
		n = meet(caller, *victim, n);
	}
	for (int i = 0; i < 2; i++) {
		kill(servers[i], SIGKILL);
		waitpid(servers[i], NULL, 0);
	}
	ok(shmb_caller_close(caller));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
}
END_TEST

static void put_number(struct shmb_publisher *publisher, uint64_t value)
{
	ok(shmb_publisher_put(publisher, 0, &value, sizeof(value)));
}

/* Nobody has kept a sealed segment: who lives has to move, and until then newcomers have to wait. */
START_TEST(values_move_with_the_next_call_of_their_publisher)
{
	struct shmb_client *clients[3] = { connect_to(address), connect_to(address),
					   connect_to(address) };
	struct shmb_subscriber *old, *late;
	struct shmb_channel *channels[3];
	struct shmb_publisher *publisher;
	uint64_t n = 1, value;

	setenv("SHMB_TEST_BACKING", "sealed", 1);
	kill_daemon();
	start_keeping(false);
	for (int i = 0; i < 3; i++)
		channels[i] = state_of(clients[i]);
	publisher = publisher_of(channels[0], 0);
	old = subscriber_of(channels[1], 0);
	ck_assert_int_eq(shmb_publisher_claim(publisher, "k", 1), 0);
	put_number(publisher, n);
	for (int round = 0; round < 4; round++) {
		kill_daemon();
		start_daemon();
		late = subscriber_of(channels[2], 0);
		ck_assert_int_eq(shmb_subscriber_find(late, "k", 1), 0);
		refused(shmb_subscriber_get(late, 0, &value, sizeof(value)), -EAGAIN);
		says("on its way");
		ck_assert_uint_eq(state_value(old), n);
		/* A broker that dies in the middle of it all changes nothing. */
		if (round == 2) {
			put_number(publisher, ++n);
			ck_assert_uint_eq(state_value(old), n);
			kill_daemon();
			put_number(publisher, ++n);
			ck_assert_uint_eq(state_value(old), n);
			start_daemon();
		}
		/* A publisher waits for subscribers that have still to come back. */
		for (int i = 0; i < 3; i++)
			ok(shmb_client_ping(clients[i], 5000 * MS));
		for (int i = 0; i < 20; i++) {
			put_number(publisher, ++n);
			ck_assert_uint_eq(state_value(old), n);
			ck_assert_uint_eq(state_value(late), n);
			ck_assert_uint_eq(shmb_subscriber_view(old)->sequence,
					  shmb_subscriber_view(late)->sequence);
		}
		ck_assert_int_eq(shmb_subscriber_next(late), -EAGAIN);
		put_number(publisher, ++n);
		ok(shmb_subscriber_wait(late, 5000 * MS));
		ck_assert_int_eq(shmb_subscriber_next(late), 0);
		ok(shmb_subscriber_close(late));
	}
	ok(shmb_publisher_close(publisher));
	late = subscriber_of(channels[2], 0);
	ck_assert_uint_eq(state_value(old), n);
	ck_assert_uint_eq(state_value(late), n);
	ck_assert_uint_eq(shmb_subscriber_view(late)->sequence, n);
	ck_assert_uint_eq(shmb_subscriber_view(late)->publisher_id, 0);
	ok(shmb_subscriber_close(late));
	ok(shmb_subscriber_close(old));
	for (int i = 0; i < 3; i++) {
		ok(shmb_channel_close(channels[i]));
		ok(shmb_client_close(clients[i]));
	}
	wait_daemon();
}
END_TEST

START_TEST(an_idle_broker_leaves_nothing)
{
	char instance[17];
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "a", 4096);

	read_instance(instance);
	ok(shmb_publisher_close(publisher_of(channel, 0)));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	wait_daemon();
	ck_assert_int_eq(count_objects(instance), 0);
	ck_assert_int_lt(access(address, F_OK), 0);
}
END_TEST

static void gets_numbers(struct shmb_subscriber *subscriber, uint64_t from, uint64_t to)
{
	uint64_t value;

	for (uint64_t i = from; i < to; i++) {
		ok(shmb_subscriber_wait(subscriber, 10000 * MS));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), 8);
		ck_assert_uint_eq(value, i);
	}
	refused(shmb_subscriber_recv(subscriber, &value, sizeof(value)), -EAGAIN);
}

/* Neither how much the channel keeps, nor how much a subscriber wants that is not served yet. */
START_TEST(a_killed_broker_forgets_no_history)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = 4096,
						.history = 3,
						.backing = backing_of_run() };
	struct shmb_subscriber_options two = { .options_len = sizeof(two), .history = 2 };
	struct shmb_client *own = connect_to(address);
	struct shmb_subscriber *before, *after, *later;
	struct shmb_publisher *publisher;
	struct shmb_channel *channel;
	uint64_t i;

	ok(shmb_channel_open(own, "test/history", 12, &options, &channel));
	publisher = publisher_of(channel, 0);
	for (i = 0; i < 1000; i++) /* several laps */
		ok(shmb_publisher_send(publisher, &i, sizeof(i)));
	ok(shmb_subscriber_open(channel, &two, &before));
	kill_daemon();
	start_daemon();
	after = subscriber_of(channel, 0);
	ok(shmb_publisher_send(publisher, &i, sizeof(i)));
	gets_numbers(before, 998, 1001);
	gets_numbers(after, 997, 1001);
	ok(shmb_subscriber_close(before));
	ok(shmb_subscriber_close(after));
	/* Laps later, in a lane that has moved if it was sealed. */
	for (i = 1001; i < 2000; i++) /* the broker may not have said yet that the two are gone */
		ok(shmb_publisher_send_wait(publisher, &i, sizeof(i), 10000 * MS));
	later = subscriber_of(channel, 0);
	ok(shmb_publisher_send(publisher, &i, sizeof(i)));
	gets_numbers(later, 1997, 2001);
	ok(shmb_subscriber_close(later));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	wait_daemon();
}
END_TEST

START_TEST(a_second_broker_in_the_same_place_is_refused)
{
	const char *top = getenv("top_builddir");
	char command[4200], answer[512] = "";
	FILE *output;

	snprintf(command, sizeof(command), "%s/shmbrokerd --user --directory %s 2>&1",
		 top ? top : ".", dir);
	output = popen(command, "r");
	ck_assert_ptr_nonnull(fgets(answer, sizeof(answer), output));
	ck_assert_int_ne(pclose(output), 0);
	ck_assert_msg(strstr(answer, "already") != NULL, "it says: %s", answer);
	/* The first one is none the worse for it. */
	ok(shmb_client_close(connect_to(address)));
	wait_daemon();
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("restart") };

	tcase_add_checked_fixture(cases[0], set_up_shared, tear_down_dir);
	tcase_set_timeout(cases[0], 240);
	tcase_add_test(cases[0], a_killed_broker_is_not_missed);
	tcase_add_test(cases[0], who_dies_with_the_broker_is_buried_by_the_next);
	tcase_add_test(cases[0],
		       what_members_have_in_hand_when_the_broker_is_replaced_stays_theirs);
	tcase_add_test(cases[0], who_opens_a_member_while_the_broker_is_replaced_only_waits);
	tcase_add_test(cases[0], what_is_closed_without_a_broker_is_gone_when_there_is_one_again);
	tcase_add_test(cases[0], a_killed_broker_forgets_no_history);
	tcase_add_test(cases[0], a_stopped_broker_that_wakes_up_after_it_was_replaced_harms_nobody);
	tcase_add_test(cases[0], a_newer_build_takes_over_under_load);
	tcase_add_test(cases[0], what_the_service_manager_keeps_is_taken_over_as_it_is);
	tcase_add_test(cases[0], claims_and_values_survive_the_broker);
	tcase_add_test(cases[0], work_goes_on_without_the_broker);
	tcase_add_test(cases[0], calls_go_on_without_the_broker);
	tcase_add_test(cases[0], values_move_with_the_next_call_of_their_publisher);
	tcase_add_test(cases[0], an_idle_broker_leaves_nothing);
	tcase_add_test(cases[0], a_second_broker_in_the_same_place_is_refused);
	return run_suite("restart", cases, 1);
}
