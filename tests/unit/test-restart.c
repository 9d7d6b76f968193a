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
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/map.h"

#include "tests/unit/fixture.h"

int __real_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);
int __wrap_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);

static char dir[] = "/tmp/shmb-restart.XXXXXX";
static char address[64];
static pid_t daemon_pid;
static bool replace_broker;

/* What the children tell the parent. */
static struct {
	uint64_t sent;
	uint64_t received;
	uint64_t joined;
	uint32_t stop;
} * shared;

/* Long enough for whoever comes next on a busy machine, short enough to wait for its end. */
#define IDLE_EXIT "2"

static void start_daemon(void)
{
	const char *top = getenv("top_builddir");
	char program[4096], number[16], answer[256] = "";
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	snprintf(program, sizeof(program), "%s/shmbrokerd", top ? top : ".");
	snprintf(number, sizeof(number), "%d", ends[1]);
	daemon_pid = fork();
	if (daemon_pid == 0) {
		close(ends[0]);
		execl(program, "shmbrokerd", "--user", "--directory", dir, "--ready-fd", number,
		      "--idle-exit", IDLE_EXIT, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	ck_assert_int_gt(read(ends[0], answer, sizeof(answer) - 1), 0);
	ck_assert_str_eq(answer, "ready\n");
	close(ends[0]);
}

static void kill_daemon(void)
{
	kill(daemon_pid, SIGKILL);
	ck_assert_int_eq(waitpid(daemon_pid, NULL, 0), daemon_pid);
}

static void wait_daemon(void)
{
	int status;

	for (int i = 0; i < 100; i++) {
		if (waitpid(daemon_pid, &status, WNOHANG) == daemon_pid) {
			ck_assert_int_eq(status, 0);
			return;
		}
		usleep(100000);
	}
	ck_abort_msg("the idle daemon did not exit");
}

/* Objects of this broker in /dev/shm. */
static int count_objects(const char *instance)
{
	DIR *shm = opendir("/dev/shm");
	struct dirent *entry;
	char prefix[32];
	int n = 0;

	snprintf(prefix, sizeof(prefix), "shmb.%s", instance);
	while ((entry = readdir(shm)))
		n += !strncmp(entry->d_name, prefix, strlen(prefix));
	closedir(shm);
	return n;
}

static void read_instance(char instance[17])
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/broker.lock", dir);
	fd = open(path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(read(fd, instance, 16), 16);
	instance[16] = '\0';
	close(fd);
}

static void set_up_dir(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(address, sizeof(address), "%s/control.sock", dir);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	start_daemon();
}

static void tear_down_dir(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static void publish_until_stopped(void)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = channel_of(own, "restart/data", 65536);
	struct shmb_publisher *publisher = publisher_of(channel, 0);

	ok(shmb_channel_wait_members(channel, 1, 1, 10000 * MS));
	for (uint64_t i = 0; !__atomic_load_n(&shared->stop, __ATOMIC_RELAXED); i++) {
		ok(shmb_publisher_send_wait(publisher, &i, sizeof(i), 20000 * MS));
		__atomic_store_n(&shared->sent, i + 1, __ATOMIC_RELEASE);
		if (i % 64 == 0)
			usleep(500);
	}
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
	uint64_t next = 0, value;

	while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED) ||
	       next < __atomic_load_n(&shared->sent, __ATOMIC_ACQUIRE)) {
		int32_t result = shmb_subscriber_wait(subscriber, 100 * MS);

		ck_assert(result == 0 || result == -ETIMEDOUT);
		while (shmb_subscriber_recv(subscriber, &value, 8) == 8) {
			ck_assert_uint_eq(value, next);
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
	uint64_t first, value;

	ok(shmb_subscriber_wait(subscriber, 10000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, &first, 8), 8);
	for (uint64_t i = 1; i < 100; i++) {
		ok(shmb_subscriber_wait(subscriber, 10000 * MS));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, 8), 8);
		ck_assert_uint_eq(value, first + i);
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
		alarm(100);
		child();
	}
	return pid;
}

static void finished(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "a child ended with status 0x%x", status);
}

START_TEST(a_killed_broker_is_not_missed)
{
	int rounds = getenv("SHMB_TEST_QUICK") ? 5 : 40;
	pid_t subscriber = run(receive_until_all), publisher = run(publish_until_stopped);
	char instance[17];

	read_instance(instance);
	srand(7);
	for (int i = 0; i < rounds; i++) {
		uint64_t before, after;

		usleep((useconds_t)(rand() % 30000));
		kill_daemon();
		before = __atomic_load_n(&shared->received, __ATOMIC_RELAXED);
		usleep((useconds_t)(20000 + rand() % 50000));
		after = __atomic_load_n(&shared->received, __ATOMIC_RELAXED);
		if (i > 2)
			ck_assert_msg(after > before, "round %d: nothing flows without the broker",
				      i);
		start_daemon();
		if (i % 4 == 3)
			finished(run(join_and_leave));
	}
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELAXED);
	finished(publisher);
	finished(subscriber);
	ck_assert_uint_eq(shared->received, shared->sent);
	ck_assert_uint_gt(shared->sent, 1000);
	ck_assert_uint_eq(shared->joined, (uint64_t)rounds / 4);
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

static void send_and_receive(struct shmb_publisher *publisher, struct shmb_subscriber *subscriber)
{
	char text[8] = "";

	ok(shmb_publisher_send_wait(publisher, "hello", 6, 5000 * MS));
	ok(shmb_subscriber_wait(subscriber, 5000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, text, sizeof(text)), 6);
	ck_assert_str_eq(text, "hello");
}

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

/* Else a publisher would wait for ever for a reliable subscriber that has long been closed. */
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
						.pattern = SHMB_CHANNEL_STATE };
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
		if (i % 3 == 0) /* who dies while there is none to see it */
			kill(writer, SIGKILL);
		start_daemon();
		if (i % 3 == 1) { /* who lives on keeps what it has claimed */
			refused(shmb_publisher_claim(publisher, "k", 1), -EBUSY);
			kill_daemon();
			start_daemon();
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
						.history = 3 };
	struct shmb_subscriber_options two = { .options_len = sizeof(two), .history = 2 };
	struct shmb_client *own = connect_to(address);
	struct shmb_subscriber *before, *after;
	struct shmb_publisher *publisher;
	struct shmb_channel *channel;
	uint64_t i;

	ok(shmb_channel_open(own, "test/history", 12, &options, &channel));
	publisher = publisher_of(channel, 0);
	for (i = 0; i < 9; i++)
		ok(shmb_publisher_send(publisher, &i, sizeof(i)));
	ok(shmb_subscriber_open(channel, &two, &before));
	kill_daemon();
	start_daemon();
	after = subscriber_of(channel, 0);
	ok(shmb_publisher_send(publisher, &i, sizeof(i)));
	gets_numbers(before, 7, 10);
	gets_numbers(after, 6, 10);
	ok(shmb_subscriber_close(before));
	ok(shmb_subscriber_close(after));
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
	TCase *cases[] = { tcase_create("restart") };

	tcase_add_checked_fixture(cases[0], set_up_dir, tear_down_dir);
	tcase_set_timeout(cases[0], 120);
	tcase_add_test(cases[0], a_killed_broker_is_not_missed);
	tcase_add_test(cases[0], who_dies_with_the_broker_is_buried_by_the_next);
	tcase_add_test(cases[0], who_opens_a_member_while_the_broker_is_replaced_only_waits);
	tcase_add_test(cases[0], what_is_closed_without_a_broker_is_gone_when_there_is_one_again);
	tcase_add_test(cases[0], a_killed_broker_forgets_no_history);
	tcase_add_test(cases[0], claims_and_values_survive_the_broker);
	tcase_add_test(cases[0], an_idle_broker_leaves_nothing);
	tcase_add_test(cases[0], a_second_broker_in_the_same_place_is_refused);
	return run_suite("restart", cases, 1);
}
