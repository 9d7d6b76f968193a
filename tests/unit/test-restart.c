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
	gate_watch(instance);
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

struct record {
	uint64_t number;
	uint64_t check;
};

static struct record record_of(uint64_t number)
{
	return (struct record){ number, (number ^ number >> 29) * 0x9e3779b97f4a7c15ull };
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

	while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED) ||
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

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "a child ended with status 0x%x", status);
}

static void flows_without_broker(int round)
{
	uint64_t before = __atomic_load_n(&shared->received, __ATOMIC_RELAXED);

	for (int i = 0; i < 10000; i++) {
		if (__atomic_load_n(&shared->received, __ATOMIC_RELAXED) > before + 64)
			return;
		usleep(1000);
	}
	ck_abort_msg("round %d: nothing flows without the broker", round);
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
		flows_without_broker(i);
		usleep((useconds_t)(rand() % 20000));
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
	TCase *cases[] = { gated_case("restart") };

	tcase_add_checked_fixture(cases[0], set_up_dir, tear_down_dir);
	tcase_set_timeout(cases[0], 240);
	tcase_add_test(cases[0], a_killed_broker_is_not_missed);
	tcase_add_test(cases[0], who_dies_with_the_broker_is_buried_by_the_next);
	tcase_add_test(cases[0], who_opens_a_member_while_the_broker_is_replaced_only_waits);
	tcase_add_test(cases[0], what_is_closed_without_a_broker_is_gone_when_there_is_one_again);
	tcase_add_test(cases[0], a_killed_broker_forgets_no_history);
	tcase_add_test(cases[0], an_idle_broker_leaves_nothing);
	tcase_add_test(cases[0], a_second_broker_in_the_same_place_is_refused);
	return run_suite("restart", cases, 1);
}
