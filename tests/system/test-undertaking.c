/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Who is dead, and who only looks so: forked children that outlive a client, stopped and frozen
 * processes, zombies, reused process ids, process-id and time namespaces. The dead are known by the
 * kernel's word alone; their records are read to the last one, their memory comes back, and nobody
 * waits for them. The living lose nothing, however long they stand still.
 */

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "tests/system/process.h"

#define LANE_LEN 16384u
#define PATIENCE (20000 * MS)

static struct process daemon_process;
static struct shmb_channel *channel;
static struct shmb_subscriber *subscriber;
static unsigned objects_alone; /* with only our own members */

/* What the processes tell each other. */
static struct {
	uint64_t sent;
	uint64_t received;
	uint32_t n_records; /* to send, 0: for ever */
	uint32_t stop;
	uint32_t done;
	pid_t pid;
	pid_t child;
} * shared;

static int is_quick(void)
{
	return getenv("SHMB_TEST_QUICK") != NULL;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool is_segment(const char *name, const char *target)
{
	char prefix[32];

	/* Sealed ones have no name: the broker has them open. */
	if (target)
		return strncmp(target, "/memfd:shmb", 11) == 0;
	snprintf(prefix, sizeof(prefix), "shmb.%016llx.",
		 (unsigned long long)daemon_process.instance);
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

static unsigned segments_in(const char *dir, bool links, uint64_t *blocks)
{
	char path[300], target[64];
	DIR *opened = opendir(dir);
	struct dirent *found;
	struct stat status;
	unsigned n = 0;

	while (opened && (found = readdir(opened))) {
		ssize_t len = 0;

		snprintf(path, sizeof(path), "%s/%s", dir, found->d_name);
		if (links)
			len = readlink(path, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = '\0';
		if (!is_segment(found->d_name, links ? target : NULL))
			continue;
		n++;
		if (blocks && stat(path, &status) == 0)
			*blocks += (uint64_t)status.st_blocks;
	}
	if (opened)
		closedir(opened);
	return n;
}

/* Segments of the broker, with a name or without. Adds what they take. */
static unsigned segments(uint64_t *blocks)
{
	char fds[32];

	snprintf(fds, sizeof(fds), "/proc/%d/fd", daemon_process.pid);
	return segments_in("/dev/shm", false, blocks) + segments_in(fds, true, blocks);
}

static uint64_t blocks(void)
{
	uint64_t all = 0;

	segments(&all);
	return all;
}

/* Others change the directory meanwhile: once all of it was listed twice. */
static void blocks_become(uint64_t wanted)
{
	for (int i = 0; i < 1000 && blocks() != wanted; i++)
		usleep(1000);
	ck_assert_uint_eq(blocks(), wanted);
}

static void set_up_undertaking(void)
{
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(shared, MAP_FAILED);
	daemon_process = process_begin(NULL);
	client = connect_to(daemon_process.address);
	channel = channel_of(client, "graves", LANE_LEN);
	subscriber = subscriber_of(channel, 0);
	objects_alone = segments(NULL);
}

static void tear_down_undertaking(void)
{
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(client));
	process_end(&daemon_process);
	munmap(shared, 4096);
}

/* A subscriber that has read a lane to its end before it hears that this was the end says so with
 * the next call.
 */
static void objects_become(unsigned wanted)
{
	for (int i = 0; i < 5000 && segments(NULL) != wanted; i++) {
		if (subscriber)
			shmb_subscriber_wait(subscriber, 0);
		usleep(1000);
	}
	ck_assert_uint_eq(segments(NULL), wanted);
}

static void becomes(const uint64_t *number, uint64_t wanted)
{
	for (int i = 0; i < 20000 && __atomic_load_n(number, __ATOMIC_ACQUIRE) < wanted; i++)
		usleep(1000);
	ck_assert_uint_ge(__atomic_load_n(number, __ATOMIC_ACQUIRE), wanted);
}

/* ---- children ---------------------------------------------------------------------------------- */

static pid_t run(void (*child)(void))
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60);
		child();
		_exit(0);
	}
	return pid;
}

static void bury(pid_t pid, int wanted)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == wanted, "a child ended with status 0x%x", status);
}

static void publish(void)
{
	struct shmb_client *own = connect_to(daemon_process.address);
	struct shmb_channel *graves = channel_of(own, "graves", LANE_LEN);
	struct shmb_publisher *publisher = publisher_of(graves, 0);

	shared->pid = getpid();
	ok(shmb_channel_wait_members(graves, 1, 1, PATIENCE));
	for (uint64_t i = 0; !shared->n_records || i < shared->n_records; i++) {
		if (__atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE))
			return;
		ok(shmb_publisher_send_wait(publisher, &i, sizeof(i), PATIENCE));
		__atomic_store_n(&shared->sent, i + 1, __ATOMIC_RELEASE);
		if (!shared->n_records)
			usleep(100);
	}
	__atomic_store_n(&shared->done, 1, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

static void receive(void)
{
	struct shmb_client *own = connect_to(daemon_process.address);
	struct shmb_channel *graves = channel_of(own, "graves", LANE_LEN);
	struct shmb_subscriber *reader = subscriber_of(graves, SHMB_SUBSCRIBER_NO_SPIN);
	uint64_t next = 0, value;

	__atomic_store_n(&shared->done, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE)) {
		if (shmb_subscriber_wait(reader, 100 * MS) < 0)
			continue;
		ck_assert_int_eq(shmb_subscriber_recv(reader, &value, sizeof(value)), 8);
		ck_assert_uint_eq(value, next);
		__atomic_store_n(&shared->received, ++next, __ATOMIC_RELEASE);
	}
}

static void child_is_done(void)
{
	for (int i = 0; i < 20000 && !__atomic_load_n(&shared->done, __ATOMIC_ACQUIRE); i++)
		usleep(1000);
	ck_assert_uint_eq(shared->done, 1);
}

/* All that a publisher has sent comes, also when it has been dead for long. */
static void drains(uint64_t n)
{
	uint64_t value;

	for (uint64_t i = 0; i < n; i++) {
		ok(shmb_subscriber_wait(subscriber, PATIENCE));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), 8);
		ck_assert_uint_eq(value, i);
	}
	refused(shmb_subscriber_recv(subscriber, &value, sizeof(value)), -EAGAIN);
}

/* ---- the dead --------------------------------------------------------------------------------- */

START_TEST(the_lane_of_the_dead_is_read_to_its_end_and_then_freed)
{
	pid_t pid;

	shared->n_records = 200;
	pid = run(publish);
	child_is_done();
	kill(pid, SIGKILL);
	bury(pid, SIGKILL);
	/* Long after the broker has buried it. */
	usleep(100000);
	drains(200);
	objects_become(objects_alone);
}
END_TEST

static void publish_and_fork(void)
{
	pid_t child;

	shared->n_records = 50;
	child = fork();
	if (child == 0) {
		/* A child that was forked before is no client; one that is forked later neither. */
		for (;;)
			pause();
	}
	shared->child = child;
	publish();
}

/* The child has the socket, the fds and, but for MADV_DONTFORK, the memory of the dead. */
static void fork_and_publish(void)
{
	struct shmb_client *own = connect_to(daemon_process.address);
	struct shmb_channel *graves = channel_of(own, "graves", LANE_LEN);
	struct shmb_publisher *publisher = publisher_of(graves, 0);
	pid_t child;

	ok(shmb_channel_wait_members(graves, 1, 1, PATIENCE));
	for (uint64_t i = 0; i < 50; i++)
		ok(shmb_publisher_send_wait(publisher, &i, sizeof(i), PATIENCE));
	child = fork();
	if (child == 0) {
		uint64_t value = 99;

		prctl(PR_SET_PDEATHSIG, 0);
		/* Whatever it tries with what it has inherited is refused. */
		if (shmb_publisher_send(publisher, &value, sizeof(value)) >= 0)
			_exit(1);
		shared->child = getpid();
		__atomic_store_n(&shared->done, 1, __ATOMIC_RELEASE);
		for (;;)
			pause();
	}
	for (;;)
		pause();
}

START_TEST(a_forked_child_does_not_keep_its_parent_alive)
{
	pid_t pid = run(_i ? publish_and_fork : fork_and_publish);

	child_is_done();
	kill(pid, SIGKILL);
	bury(pid, SIGKILL);
	drains(50);
	objects_become(objects_alone);
	ck_assert_int_eq(kill(shared->child, 0), 0);
	kill(shared->child, SIGKILL);
}
END_TEST

START_TEST(a_zombie_is_dead)
{
	siginfo_t info;
	pid_t pid;

	shared->n_records = 20;
	pid = run(publish);
	child_is_done();
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	drains(20);
	objects_become(objects_alone);
	ck_assert_int_eq(kill(pid, 0), 0); /* it is still there */
	bury(pid, SIGKILL);
}
END_TEST

/* A reliable subscriber that is dead must not hold its publisher back, in whatever state it is. */
START_TEST(who_waits_for_the_dead_is_woken)
{
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	uint64_t value = 0, since;
	pid_t pid;

	ok(shmb_subscriber_close(subscriber));
	subscriber = NULL;
	pid = run(receive);
	child_is_done();
	ok(shmb_channel_wait_members(channel, 1, 1, PATIENCE));
	kill(pid, SIGSTOP);
	while (shmb_publisher_send(publisher, &value, sizeof(value)) == 0)
		value++;
	refused(shmb_publisher_send_wait(publisher, &value, sizeof(value), 200 * MS), -ETIMEDOUT);
	kill(pid, SIGKILL);
	since = now_ns();
	ok(shmb_publisher_send_wait(publisher, &value, sizeof(value), PATIENCE));
	printf("woken %llu us after the kill\n", (unsigned long long)(now_ns() - since) / 1000);
	fflush(stdout);
	bury(pid, SIGKILL);
	ok(shmb_publisher_close(publisher));
	subscriber = subscriber_of(channel, 0);
}
END_TEST

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Returns when it is dead: what the kernel takes for that is not the broker's. */
static void dies(pid_t pid)
{
	struct pollfd death = { .fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };

	ck_assert_int_ge(death.fd, 0);
	kill(pid, SIGKILL);
	ck_assert_int_eq(poll(&death, 1, 10000), 1);
	close(death.fd);
}

START_TEST(memory_comes_back_after_a_death)
{
	int n = is_quick() ? 20 : 200;
	uint64_t times[200], before = blocks();

	shared->n_records = 1;
	for (int i = 0; i < n; i++) {
		uint64_t since, value;
		pid_t pid;

		shared->done = 0;
		pid = run(publish);
		child_is_done();
		ok(shmb_subscriber_wait(subscriber, PATIENCE));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &value, sizeof(value)), 8);
		ck_assert_uint_gt(blocks(), before);
		dies(pid);
		since = now_ns();
		while (segments(NULL) != objects_alone && now_ns() < since + 5 * 1000000000ull)
			usleep(100); /* on a processor of two, do not keep the broker from its work */
		times[i] = now_ns() - since;
		blocks_become(before);
		ck_assert_uint_eq(segments(NULL), objects_alone);
		bury(pid, SIGKILL);
	}
	qsort(times, (size_t)n, sizeof(times[0]), compare);
	printf("memory back after a death: p50 %.2f ms, p99 %.2f ms, longest %.2f ms of %d\n",
	       (double)times[n / 2] / 1e6, (double)times[n * 99 / 100] / 1e6,
	       (double)times[n - 1] / 1e6, n);
	fflush(stdout);
}
END_TEST

/* ---- the living ------------------------------------------------------------------------------- */

static void (*halt)(pid_t pid);
static void (*go_on)(pid_t pid);
static char frozen[128];
static const char *thaw_text;

static void halt_by_signal(pid_t pid)
{
	kill(pid, SIGSTOP);
}

static void go_on_by_signal(pid_t pid)
{
	kill(pid, SIGCONT);
}

static int write_file(const char *dir, const char *name, const char *text)
{
	char path[256];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : write(fd, text, strlen(text));
	if (fd >= 0)
		close(fd);
	return n < 0 ? -1 : 0;
}

static void halt_by_freezer(pid_t pid)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", pid);
	ck_assert_int_eq(write_file(frozen, "cgroup.procs", number), 0);
	ck_assert_int_eq(thaw_text[0] == '0' ? write_file(frozen, "cgroup.freeze", "1")
					     : write_file(frozen, "freezer.state", "FROZEN"),
			 0);
}

static void go_on_by_freezer(pid_t pid)
{
	(void)pid;
	ck_assert_int_eq(write_file(frozen, thaw_text[0] == '0' ? "cgroup.freeze" : "freezer.state",
				    thaw_text),
			 0);
}

/* A group with a freezer, of version 2 or 1; 0 if there is none for us. */
static int make_frozen(int version)
{
	static const char *const roots[2][2] = {
		{ "/sys/fs/cgroup", "/sys/fs/cgroup/unified" },
		{ "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/freezer" },
	};

	thaw_text = version == 2 ? "0" : "THAWED";
	for (int i = 0; i < 2; i++) {
		char path[160];

		snprintf(frozen, sizeof(frozen), "%s/shmb-test.%d", roots[version == 1][i],
			 getpid());
		if (mkdir(frozen, 0755) < 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", frozen,
			 version == 2 ? "cgroup.freeze" : "freezer.state");
		if (access(path, W_OK) == 0)
			return 1;
		rmdir(frozen);
	}
	return 0;
}

static int choose_way(int way)
{
	halt = way ? halt_by_freezer : halt_by_signal;
	go_on = way ? go_on_by_freezer : go_on_by_signal;
	if (!way || make_frozen(way == 1 ? 2 : 1))
		return 1;
	printf("no freezer of control groups version %d here, case skipped\n", way == 1 ? 2 : 1);
	fflush(stdout);
	return 0;
}

static void remove_frozen(int way)
{
	for (int i = 0; way && i < 200 && rmdir(frozen) < 0; i++)
		usleep(10000);
}

START_TEST(who_stands_still_is_waited_for)
{
	struct shmb_publisher *publisher;
	uint64_t value = 0;
	unsigned objects;
	pid_t pid;

	if (!choose_way(_i))
		return;
	ok(shmb_subscriber_close(subscriber));
	publisher = publisher_of(channel, 0);
	pid = run(receive);
	child_is_done();
	ok(shmb_channel_wait_members(channel, 1, 1, PATIENCE));
	objects = segments(NULL);
	halt(pid);
	usleep(50000);
	while (shmb_publisher_send(publisher, &value, sizeof(value)) == 0)
		value++;
	refused(shmb_publisher_send_wait(publisher, &value, sizeof(value), 1000 * MS), -ETIMEDOUT);
	ck_assert_uint_eq(segments(NULL), objects);
	go_on(pid);
	ok(shmb_publisher_send_wait(publisher, &value, sizeof(value), PATIENCE));
	becomes(&shared->received, value + 1);
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELEASE);
	bury(pid, 0);
	remove_frozen(_i);
	ok(shmb_publisher_close(publisher));
	subscriber = subscriber_of(channel, 0);
}
END_TEST

/*
 * What a broker grants when nobody waits for it any more goes back as soon as the client hears of
 * it, and if it hears nothing because it has left, at once.
 */
START_TEST(what_is_granted_too_late_is_given_back)
{
	struct shmb_client_options hasty = { .options_len = sizeof(hasty),
					     .connect_timeout_ns = 50 * MS,
					     .address = daemon_process.address,
					     .address_len =
						     (uint32_t)strlen(daemon_process.address) };
	struct shmb_channel_options create = { .options_len = sizeof(create),
					       .flags = SHMB_CHANNEL_CREATE };
	struct shmb_publisher *publisher;
	struct shmb_client *late = NULL;
	struct shmb_channel *open, *kept;

	/* A slow machine may need more than so little time for it. */
	for (int i = 0; i < 50 && !late; i++)
		shmb_client_open(&hasty, &late);
	ck_assert_ptr_nonnull(late);
	kept = channel_of(client, "late", LANE_LEN);
	objects_become(objects_alone + 2);
	ck_assert_int_eq(kill(daemon_process.pid, SIGSTOP), 0);
	refused(shmb_channel_open(late, "late", 4, &create, &open), -ETIMEDOUT);
	refused(shmb_channel_open(late, "later", 5, &create, &open), -ETIMEDOUT);
	ck_assert_int_eq(kill(daemon_process.pid, SIGCONT), 0);
	if (_i == 0) {
		while (shmb_client_ping(late, 5000 * MS) < 0)
			;
		objects_become(objects_alone + 2);
		while (shmb_channel_open(late, "late", 4, &create, &open) < 0)
			;
		ck_assert_int_eq(kill(daemon_process.pid, SIGSTOP), 0);
		refused(shmb_publisher_open(open, NULL, &publisher), -ETIMEDOUT);
		ck_assert_int_eq(kill(daemon_process.pid, SIGCONT), 0);
		while (shmb_client_ping(late, 5000 * MS) < 0)
			;
		objects_become(objects_alone + 2);
		ok(shmb_channel_close(open));
	}
	ok(shmb_client_close(late));
	objects_become(objects_alone + 1);
	ok(shmb_channel_close(kept));
}
END_TEST

/* One that is killed while it is frozen: version 1 lets it die only when it thaws. */
START_TEST(who_is_killed_while_frozen_is_dead_once_the_kernel_says_so)
{
	pid_t pid;

	if (!choose_way(_i))
		return;
	shared->n_records = 30;
	pid = run(publish);
	child_is_done();
	halt(pid);
	usleep(50000);
	kill(pid, SIGKILL);
	drains(30);
	if (_i == 2) {
		usleep(200000);
		ck_assert_uint_gt(segments(NULL), objects_alone);
		go_on(pid);
	}
	bury(pid, SIGKILL);
	objects_become(objects_alone);
	remove_frozen(_i);
}
END_TEST

/* ---- process ids ------------------------------------------------------------------------------ */

static int set_last_pid(pid_t pid)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", pid - 1);
	return write_file("/proc/sys/kernel", "ns_last_pid", number);
}

static void sleep_for_ever(void)
{
	for (;;)
		pause();
}

/* A process that gets exactly this id; 0: others were faster every time. */
static pid_t run_as_pid(pid_t wanted, void (*child)(void))
{
	for (int i = 0; i < 50; i++) {
		pid_t pid;

		if (set_last_pid(wanted) < 0)
			return 0;
		pid = run(child);
		if (pid == wanted)
			return pid;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return 0;
}

static void restart_broker(pid_t between, pid_t *ret_impostor)
{
	process_kill(&daemon_process);
	if (between) {
		kill(between, SIGKILL);
		bury(between, SIGKILL);
		*ret_impostor = run_as_pid(between, sleep_for_ever);
	}
	process_start(&daemon_process, NULL, NULL);
}

START_TEST(another_process_with_the_same_id_is_not_taken_for_the_dead)
{
	pid_t pid, impostor = 0;

	shared->n_records = 30;
	pid = run(publish);
	child_is_done();
	if (_i) {
		restart_broker(pid, &impostor);
	} else {
		kill(pid, SIGKILL);
		bury(pid, SIGKILL);
		impostor = run_as_pid(pid, sleep_for_ever);
	}
	drains(30);
	ok(shmb_client_ping(client, PATIENCE));
	/* It hears that the publisher has gone, and says that it has read all. */
	for (int i = 0; i < 50 && segments(NULL) != objects_alone; i++)
		refused(shmb_subscriber_wait(subscriber, 100 * MS), -ETIMEDOUT);
	objects_become(objects_alone);
	if (!impostor)
		printf("no process could be given the id of another, checked without\n");
	fflush(stdout);
	if (impostor) {
		ck_assert_int_eq(kill(impostor, 0), 0);
		kill(impostor, SIGKILL);
		bury(impostor, SIGKILL);
	}
}
END_TEST

static void publish_in_namespace(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		publish();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		kill(getpid(), SIGKILL);
	_exit(WEXITSTATUS(status));
}

static void unshare_and_publish(void)
{
	if (unshare(CLONE_NEWPID) < 0)
		_exit(77);
	publish_in_namespace();
}

/* In a namespace of its own the publisher is process 1. */
START_TEST(clients_in_another_pid_namespace_live_and_die)
{
	pid_t pid;

	shared->n_records = 30;
	pid = run(unshare_and_publish);
	child_is_done();
	ck_assert_int_eq(shared->pid, 1);
	if (_i)
		restart_broker(0, NULL);
	ok(shmb_client_ping(client, PATIENCE));
	usleep(100000);
	ck_assert_uint_gt(segments(NULL), objects_alone);
	kill(pid, SIGKILL); /* and with it, by its parent-death signal, the publisher */
	bury(pid, SIGKILL);
	drains(30);
	objects_become(objects_alone);
}
END_TEST

static void unshare_time_and_publish(void)
{
	if (unshare(CLONE_NEWTIME) < 0 || write_file("/proc/self", "timens_offsets",
						     "monotonic 100000 0\nboottime 100000 0\n") < 0)
		_exit(77);
	publish_in_namespace();
}

START_TEST(a_client_with_another_clock_is_served_as_any_other)
{
	int status;
	pid_t pid;

	shared->n_records = 5000; /* the publisher has to wait for us */
	pid = run(unshare_time_and_publish);
	usleep(20000);
	if (waitpid(pid, &status, WNOHANG) == pid) {
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 77, "0x%x", status);
		printf("no time namespaces here, case skipped\n");
		return;
	}
	drains(5000);
	if (_i)
		restart_broker(0, NULL);
	ok(shmb_client_ping(client, PATIENCE));
	kill(pid, SIGKILL);
	bury(pid, SIGKILL);
	objects_become(objects_alone);
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("dead"), gated_case("living"), gated_case("ids") };

	if (geteuid() != 0) {
		printf("SKIP: only root can freeze processes and choose their ids\n");
		return 77;
	}
	for (int i = 0; i < 3; i++) {
		tcase_add_checked_fixture(cases[i], set_up_undertaking, tear_down_undertaking);
		tcase_set_timeout(cases[i], 90);
	}
	tcase_add_test(cases[0], the_lane_of_the_dead_is_read_to_its_end_and_then_freed);
	tcase_add_loop_test(cases[0], a_forked_child_does_not_keep_its_parent_alive, 0, 2);
	tcase_add_test(cases[0], a_zombie_is_dead);
	tcase_add_test(cases[0], who_waits_for_the_dead_is_woken);
	tcase_add_test(cases[0], memory_comes_back_after_a_death);
	tcase_add_loop_test(cases[1], who_stands_still_is_waited_for, 0, 3);
	tcase_add_loop_test(cases[1], what_is_granted_too_late_is_given_back, 0, 2);
	tcase_add_loop_test(cases[1], who_is_killed_while_frozen_is_dead_once_the_kernel_says_so, 0,
			    3);
	tcase_add_loop_test(cases[2], another_process_with_the_same_id_is_not_taken_for_the_dead, 0,
			    2);
	tcase_add_loop_test(cases[2], clients_in_another_pid_namespace_live_and_die, 0, 2);
	tcase_add_loop_test(cases[2], a_client_with_another_clock_is_served_as_any_other, 0, 2);
	return run_suite("undertaking", cases, 3);
}
