/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The process that keeps sealed segments while there is no broker: what it keeps and for how long, who can
 * get at it, and that nothing is lost as long as one of the two lives.
 */

#include <errno.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "daemon/keeper.h"
#include "daemon/store.h"

#include "tests/unit/daemon.h"

#define N_FDS_MAX 64

/* Longer than any keeper takes for anything here. */
#define PATIENCE 20000

static char instance[17];

/* ---- /proc ------------------------------------------------------------------------------------- */

/* Its memfds that are kept under our names. */
static int count_kept(pid_t pid)
{
	char path[64], target[64];
	struct dirent *found;
	int n = 0;
	DIR *dir_fds;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir_fds = opendir(path);
	while (dir_fds && (found = readdir(dir_fds))) {
		ssize_t len = readlinkat(dirfd(dir_fds), found->d_name, target, sizeof(target) - 1);

		target[len > 0 ? len : 0] = '\0';
		n += strncmp(target, "/memfd:shmb-", 12) == 0;
	}
	if (dir_fds)
		closedir(dir_fds);
	return n;
}

static void await_kept(pid_t pid, int wanted)
{
	int n = count_kept(pid);

	/* One that has just come is there twice. */
	for (int i = 0; i < PATIENCE && n != wanted; i++) {
		usleep(1000);
		n = count_kept(pid);
	}
	ck_assert_int_eq(n, wanted);
}

static bool is_deaf(pid_t pid)
{
	char path[64], target[8];

	snprintf(path, sizeof(path), "/proc/%d/fd/0", pid);
	return readlink(path, target, sizeof(target)) < 0 && errno == ENOENT;
}

/* The keeper of our daemon; 0: there is none. */
static pid_t find_keeper(void)
{
	char path[300], line[256], wanted[64];
	struct dirent *found;
	DIR *proc = opendir("/proc");
	pid_t pid = 0;

	snprintf(wanted, sizeof(wanted), "/shmb.%s.registry", instance);
	while ((found = readdir(proc))) {
		ssize_t n;
		int fd;

		snprintf(path, sizeof(path), "/proc/%s/cmdline", found->d_name);
		fd = atoi(found->d_name) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		n = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);
		if (fd >= 0)
			close(fd);
		line[n > 0 ? n : 0] = '\0';
		/* "shmb-keeper", "--keep", and the name */
		if (n > 20 && strcmp(line, "shmb-keeper") == 0 && strcmp(line + 19, wanted) == 0)
			pid = atoi(found->d_name);
	}
	closedir(proc);
	return pid;
}

/* Returns it, if there should be one. */
static pid_t await_keeper(bool wanted)
{
	pid_t pid = find_keeper();

	for (int i = 0; i < PATIENCE / 10 && (pid != 0) != wanted; i++) {
		usleep(10000);
		pid = find_keeper();
	}
	ck_assert_int_eq(pid != 0, wanted);
	return pid;
}

/* ---- a keeper alone ---------------------------------------------------------------------------- */

static struct {
	pid_t pid;
	int fd;
	char registry[64];
} alone;

static void set_up_alone(void)
{
	sigset_t deafening;
	int ends[2], fd;

	snprintf(alone.registry, sizeof(alone.registry), "/shmb-test-keeper.%d", getpid());
	fd = shm_open(alone.registry, O_RDWR | O_CREAT, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	alone.pid = fork();
	if (alone.pid == 0) {
		alarm(60);
		sigemptyset(&deafening);
		sigaddset(&deafening, SIGUSR1);
		sigprocmask(SIG_BLOCK, &deafening, NULL);
		dup2(ends[1], 0);
		_exit(keeper_main(alone.registry, 0));
	}
	close(ends[1]);
	alone.fd = ends[0];
}

static void tear_down_alone(void)
{
	close(alone.fd);
	shm_unlink(alone.registry);
}

static void ends_well(void)
{
	int status;

	ck_assert_int_eq(waitpid(alone.pid, &status, 0), alone.pid);
	ck_assert_int_eq(status, 0);
}

static int memfd(uint64_t id)
{
	char name[64];
	int fd;

	store_name(7, id, name);
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ck_assert_int_eq(ftruncate(fd, 4096), 0);
	return fd;
}

static void say(const char *what, uint64_t id, int fd)
{
	char name[64], text[128];

	store_name(7, id, name);
	snprintf(text, sizeof(text), "%s=1\nFDNAME=%s\n", what, name);
	ck_assert_int_eq(store_send(alone.fd, NULL, 0, text, fd), 0);
}

static void store_one(uint64_t id)
{
	int fd = memfd(id);

	say("FDSTORE", id, fd);
	close(fd);
}

/* As a client has it. */
static int write_one(int fd)
{
	char path[40];
	int own;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(own, 0);
	return own;
}

static void hang_up(void)
{
	close(alone.fd);
	alone.fd = -1;
}

START_TEST(it_keeps_what_it_is_given_until_it_is_told_not_to)
{
	for (uint64_t i = 1; i <= 5; i++)
		store_one(i);
	await_kept(alone.pid, 5);
	store_one(3); /* another one in its place */
	say("FDSTOREREMOVE", 4, -1);
	say("FDSTOREREMOVE", 4, -1);
	await_kept(alone.pid, 4);
	for (uint64_t i = 1; i <= 5; i++)
		say("FDSTOREREMOVE", i, -1);
	await_kept(alone.pid, 0);
	/* Its broker lives, and may have something for it soon. */
	store_one(6);
	await_kept(alone.pid, 1);
	say("FDSTOREREMOVE", 6, -1);
	hang_up();
	ends_well();
}
END_TEST

START_TEST(what_makes_no_sense_changes_nothing)
{
	char text[300];
	int fd = memfd(1);

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	store_one(1);
	ck_assert_int_eq(store_send(alone.fd, NULL, 0, text, fd), 0);
	ck_assert_int_eq(store_send(alone.fd, NULL, 0, "FDSTORE=1\nFDNAME=shmb-1-1\n", -1), 0);
	ck_assert_int_eq(store_send(alone.fd, NULL, 0, "READY=1", fd), 0);
	ck_assert_int_eq(store_send(alone.fd, NULL, 0, "FDSTORE=1\nFDNAME=", fd), 0);
	close(fd);
	store_one(2);
	await_kept(alone.pid, 2);
	say("FDSTOREREMOVE", 1, -1);
	say("FDSTOREREMOVE", 2, -1);
	hang_up();
	ends_well();
}
END_TEST

/* Neither a reader nor the keeper itself counts. */
START_TEST(without_a_broker_it_waits_for_who_can_write)
{
	int fd = memfd(1), own = write_one(fd), status;
	void *writer;

	writer = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
	ck_assert_ptr_ne(writer, MAP_FAILED);
	close(own);
	say("FDSTORE", 1, fd);
	close(fd);
	store_one(2);
	hang_up();
	usleep(2500000);
	ck_assert_int_eq(waitpid(alone.pid, &status, WNOHANG), 0);
	ck_assert_int_eq(count_kept(alone.pid), 2);
	munmap(writer, 4096);
	ends_well();
}
END_TEST

START_TEST(without_a_registry_it_ends)
{
	int fd = memfd(1), own = write_one(fd);

	say("FDSTORE", 1, fd);
	hang_up();
	shm_unlink(alone.registry);
	ends_well();
	close(own);
	close(fd);
}
END_TEST

/* What was said before it is heard, what is said afterwards is not. */
START_TEST(a_successor_makes_it_deaf)
{
	int fd = memfd(1), own = write_one(fd);

	say("FDSTORE", 1, fd);
	await_kept(alone.pid, 1);
	kill(alone.pid, SIGSTOP);
	for (uint64_t i = 2; i <= 20; i++)
		store_one(i);
	kill(alone.pid, SIGUSR1);
	kill(alone.pid, SIGCONT);
	for (int i = 0; i < PATIENCE && !is_deaf(alone.pid); i++)
		usleep(1000);
	ck_assert(is_deaf(alone.pid));
	ck_assert_int_eq(count_kept(alone.pid), 20);
	ck_assert_int_eq(store_send(alone.fd, NULL, 0, "FDSTOREREMOVE=1\nFDNAME=x", -1), -EPIPE);
	close(own);
	close(fd);
	kill(alone.pid, SIGKILL);
	waitpid(alone.pid, NULL, 0);
}
END_TEST

static void try_to_get_in(pid_t pid)
{
	char path[64];
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
		_exit(77);
	for (int fd = 0; fd < N_FDS_MAX; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
		if (open(path, O_RDONLY) >= 0 || errno != EACCES)
			_exit(1);
		if (syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0 || errno != EPERM)
			_exit(2);
	}
	if (kill(pid, SIGUSR1) == 0 || ptrace(PTRACE_ATTACH, pid, NULL, NULL) == 0)
		_exit(3);
	_exit(0);
}

START_TEST(another_user_gets_nothing)
{
	int status;
	pid_t pid;

	store_one(1);
	await_kept(alone.pid, 1);
	pid = fork();
	if (pid == 0)
		try_to_get_in(alone.pid);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	/* Who is not root cannot become somebody else. */
	ck_assert_int_eq(WEXITSTATUS(status), geteuid() == 0 ? 0 : 77);
	ck_assert_int_eq(count_kept(alone.pid), 1);
	say("FDSTOREREMOVE", 1, -1);
	hang_up();
	ends_well();
}
END_TEST

/* ---- a broker's -------------------------------------------------------------------------------- */

static void set_up_daemon(void)
{
	set_up_dir();
	read_instance(instance);
}

static void tear_down_daemon(void)
{
	wait_daemon();
	/* It has been killed, but may not have heard of that on a busy machine. */
	await_keeper(false);
	ck_assert_int_eq(count_objects(instance), 0);
	tear_down_dir();
}

static struct shmb_channel *sealed(struct shmb_client *of, const char *name)
{
	setenv("SHMB_TEST_BACKING", "sealed", 1);
	return channel_of(of, name, 4096);
}

START_TEST(who_needs_none_has_none)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publisher;
	struct shmb_channel *channel;

	setenv("SHMB_TEST_BACKING", "posix", 1);
	channel = channel_of(own, "posix", 4096);
	publisher = publisher_of(channel, 0);
	ck_assert_int_eq(find_keeper(), 0);
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	channel = sealed(own, "sealed");
	publisher = publisher_of(channel, 0);
	subscriber = subscriber_of(channel, 0);
	await_kept(await_keeper(true), 3); /* lane, cursor, bell */
	ok(shmb_subscriber_close(subscriber));
	await_kept(await_keeper(true), 1);
	ok(shmb_publisher_close(publisher));
	await_keeper(false);
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

static void publish(struct shmb_publisher *publisher, uint64_t number)
{
	ok(shmb_publisher_send_wait(publisher, &number, sizeof(number), 20000 * MS));
}

static void receive(struct shmb_subscriber *subscriber, uint64_t wanted)
{
	uint64_t number = 0;

	ok(shmb_subscriber_wait(subscriber, 20000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, &number, sizeof(number)), 8);
	ck_assert_uint_eq(number, wanted);
}

/* The lane is the same one as long as somebody has it. */
START_TEST(one_of_the_two_may_be_killed_and_both)
{
	struct shmb_client *own = connect_to(address), *other = connect_to(address);
	struct shmb_channel *channel = sealed(own, "a"), *theirs = sealed(other, "a");
	struct shmb_subscriber *subscriber = subscriber_of(theirs, 0);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	int rounds = getenv("SHMB_TEST_QUICK") ? 3 : 12;
	uint64_t n = 0;

	for (int i = 0; i < rounds; i++) {
		pid_t keeper = await_keeper(true);

		/* If all was lost the two move with what they do next. */
		for (int k = 0; k < PATIENCE / 10 && count_kept(keeper) != 3; k++) {
			publish(publisher, n);
			receive(subscriber, n++);
			usleep(10000);
			/* That of the last broker may be on its way out. */
			keeper = await_keeper(true);
		}
		await_kept(keeper, 3);
		publish(publisher, n);
		if (i % 3 != 1)
			kill(keeper, SIGKILL);
		if (i % 3 == 0) { /* the broker has another one soon */
			pid_t next = keeper;

			while (next == keeper || !next) {
				usleep(1000);
				next = find_keeper();
			}
			await_kept(next, 3);
		} else {
			kill_daemon();
			publish(publisher, ++n);
			start_daemon();
		}
		publish(publisher, ++n);
		for (uint64_t k = n - (i % 3 ? 2 : 1); k <= n; k++)
			receive(subscriber, k);
		n++;
		/* Both have come back. */
		ok(shmb_client_ping(own, 20000 * MS));
		ok(shmb_client_ping(other, 20000 * MS));
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_channel_close(theirs));
	ok(shmb_client_close(own));
	ok(shmb_client_close(other));
}
END_TEST

/* What a stopped keeper is told waits; a broker does not wait for it for ever. */
START_TEST(a_stopped_keeper_is_replaced)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = sealed(own, "a");
	struct shmb_subscriber *subscriber = subscriber_of(channel, 0);
	pid_t keeper = await_keeper(true);

	kill(keeper, SIGSTOP);
	for (int i = 0; i < 2000 && find_keeper() == keeper; i++)
		ok(shmb_publisher_close(publisher_of(channel, 0)));
	ck_assert_int_ne(find_keeper(), keeper);
	await_kept(await_keeper(true), 1);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("alone"), gated_case("daemon") };

	tcase_add_checked_fixture(cases[0], set_up_alone, tear_down_alone);
	tcase_set_timeout(cases[0], 60);
	tcase_add_test(cases[0], it_keeps_what_it_is_given_until_it_is_told_not_to);
	tcase_add_test(cases[0], what_makes_no_sense_changes_nothing);
	tcase_add_test(cases[0], without_a_broker_it_waits_for_who_can_write);
	tcase_add_test(cases[0], without_a_registry_it_ends);
	tcase_add_test(cases[0], a_successor_makes_it_deaf);
	tcase_add_test(cases[0], another_user_gets_nothing);
	tcase_add_checked_fixture(cases[1], set_up_daemon, tear_down_daemon);
	tcase_set_timeout(cases[1], 120);
	tcase_add_test(cases[1], who_needs_none_has_none);
	tcase_add_test(cases[1], one_of_the_two_may_be_killed_and_both);
	tcase_add_test(cases[1], a_stopped_keeper_is_replaced);
	return run_suite("keeper", cases, 2);
}
