/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The daemon as a service: sockets that a service manager passes, what it tells the manager,
 * signals, and a configuration with mistakes.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/place.h"

#define USAGE_EXIT 64

static int notify_fd = -1;

/* ---- the service manager ----------------------------------------------------------------------- */

static int bound(int type, const char *path, mode_t mode)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	unlink(path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(chmod(path, mode), 0);
	return fd;
}

static int listening(int type, const char *path)
{
	int fd = bound(type, path, 0666);

	ck_assert_int_eq(listen(fd, 64), 0);
	return fd;
}

static void listen_to_daemon(void)
{
	struct timeval patience = { .tv_sec = 10 };

	notify_fd = bound(SOCK_DGRAM, place_path("notify"), 0666);
	setsockopt(notify_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setenv("NOTIFY_SOCKET", place_path("notify"), 1);
}

static void stop_listening(void)
{
	if (notify_fd >= 0)
		close(notify_fd);
	notify_fd = -1;
	place_tear_down();
}

static void notified(const char *wanted)
{
	char text[64] = "";

	ck_assert_msg(recv(notify_fd, text, sizeof(text) - 1, 0) > 0, "no %s", wanted);
	ck_assert_str_eq(text, wanted);
}

/* Waits for the end that it was told to make. */
static int ended(pid_t pid)
{
	int status = -1;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

START_TEST(tells_the_service_manager_that_it_is_ready_and_that_it_stops)
{
	listen_to_daemon();
	place_start();
	notified("READY=1");
	ok(shmb_client_close(connect_to(place.address)));
	ck_assert_int_eq(place_end(SIGTERM), 0);
	notified("STOPPING=1");
	ck_assert_int_lt(access(place.address, F_OK), 0);
}
END_TEST

START_TEST(feeds_the_watchdog)
{
	listen_to_daemon();
	setenv("WATCHDOG_USEC", "100000", 1);
	place_start();
	notified("READY=1");
	for (int i = 0; i < 5; i++)
		notified("WATCHDOG=1");
}
END_TEST

static const char *const start_args[] = { "--config", place.conf, NULL };

START_TEST(listens_on_the_socket_that_it_was_passed)
{
	const char *args[] = { "--config", place.conf, "--directory", place.run, NULL };
	int fd = listening(SOCK_SEQPACKET, place.address);
	pid_t pid;

	listen_to_daemon();
	pid = place_spawn(args, fd, "1");
	/* The socket is there before the daemon is: who comes early waits for it. */
	ok(shmb_client_close(connect_to(place.address)));
	notified("READY=1");
	kill(pid, SIGTERM);
	ck_assert_int_eq(ended(pid), 0);
	/* It is the manager's socket: the next daemon shall have it. */
	ck_assert_int_eq(access(place.address, F_OK), 0);
	pid = place_spawn(args, fd, "1");
	ok(shmb_client_close(connect_to(place.address)));
	kill(pid, SIGTERM);
	ck_assert_int_eq(ended(pid), 0);
	unlink(place.address);
	close(fd);
}
END_TEST

START_TEST(takes_its_directory_from_the_socket_if_nothing_else_says)
{
	int fd = listening(SOCK_SEQPACKET, place.address);
	pid_t pid = place_spawn(start_args, fd, "1");

	ok(shmb_client_close(connect_to(place.address)));
	ck_assert_int_eq(access(place_path("run/broker.pub"), R_OK), 0);
	kill(pid, SIGTERM);
	ck_assert_int_eq(ended(pid), 0);
	unlink(place.address);
	close(fd);
}
END_TEST

START_TEST(refuses_sockets_of_other_kinds)
{
	const char *args[] = { "--config", place.conf, "--directory", place.run, NULL };
	const char *path = place_path("run/odd.sock");
	int ends[2];
	int fds[] = { listening(SOCK_STREAM, path), bound(SOCK_DGRAM, path, 0666),
		      bound(SOCK_SEQPACKET, path, 0666), socket(AF_INET, SOCK_STREAM, 0),
		      open("/dev/null", O_RDWR) };

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		ck_assert_int_eq(place_fails(args, fds[i], "1"), EXIT_FAILURE);
		ck_assert_msg(place_has_said("fd 3"), "%zu: %s", i, place_said(false));
		place_said(true);
		close(fds[i]);
	}
	unlink(path);
	/* A socket without a name, and more or less than one. */
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	ck_assert_int_eq(place_fails(args, ends[0], "1"), EXIT_FAILURE);
	ck_assert(place_has_said("fd 3 has no path"));
	ck_assert_int_eq(place_fails(args, ends[0], "2"), EXIT_FAILURE);
	ck_assert(place_has_said("one socket is wanted, 2 were passed"));
	close(ends[0]);
	close(ends[1]);
}
END_TEST

START_TEST(refuses_an_address_that_is_not_that_of_the_socket)
{
	const char *args[] = { "--config", place.conf, "--address", place_path("run/other.sock"),
			       NULL };
	int fd = listening(SOCK_SEQPACKET, place.address);

	ck_assert_int_eq(place_fails(args, fd, "1"), EXIT_FAILURE);
	place_says("other.sock");
	unlink(place.address);
	close(fd);
}
END_TEST

START_TEST(ignores_sockets_that_are_for_another_process)
{
	setenv("LISTEN_PID", "1", 1);
	setenv("LISTEN_FDS", "1", 1);
	place_start();
	ok(shmb_client_close(connect_to(place.address)));
}
END_TEST

/* ---- signals ----------------------------------------------------------------------------------- */

#define MAY_ALL(channel) \
	"rule \"one\" { channel = { '" channel "' } allow = { 'create', 'publish' } }\n"

START_TEST(follows_new_rules_at_sighup_and_keeps_the_old_ones_if_they_have_a_mistake)
{
	struct shmb_client *own;

	place_configure("socket-mode = '0666'\n" MAY_ALL("a/**"));
	place_start();
	own = connect_to(place.address);
	ok(place_open(own, "a/x", SHMB_CHANNEL_CREATE));
	refused(place_open(own, "b/x", SHMB_CHANNEL_CREATE), -ENOENT);

	place_configure("socket-mode = '0666'\n" MAY_ALL("b/**"));
	kill(place.broker, SIGHUP);
	place_says("event=reloaded rules=1");
	ok(place_open(own, "b/x", SHMB_CHANNEL_CREATE));
	refused(place_open(own, "a/x", SHMB_CHANNEL_CREATE), -ENOENT);

	place_configure("socket-mode = '0666'\n\n" MAY_ALL("a/**") "colour = 'red'\n");
	kill(place.broker, SIGHUP);
	place_says("event=reload-failed");
	place_says("shmbrokerd.conf:4: ");
	place_says("colour");
	ok(place_open(own, "b/x", SHMB_CHANNEL_CREATE));
	refused(place_open(own, "a/x", SHMB_CHANNEL_CREATE), -ENOENT);

	/* A file that is gone is no file without rules. */
	ck_assert_int_eq(unlink(place.conf), 0);
	place_said(true);
	kill(place.broker, SIGHUP);
	place_says("event=reload-failed");
	ok(place_open(own, "b/x", SHMB_CHANNEL_CREATE));
	ok(shmb_client_close(own));
}
END_TEST

START_TEST(a_reload_takes_nothing_away_that_was_granted)
{
	struct shmb_client *own;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;

	place_configure("socket-mode = '0666'\n" MAY_ALL("a/**"));
	place_start();
	own = connect_to(place.address);
	channel = channel_of(own, "a/x", 4096);
	publisher = publisher_of(channel, 0);
	place_configure("socket-mode = '0666'\n");
	kill(place.broker, SIGHUP);
	place_says("event=reloaded rules=0");
	ok(shmb_publisher_send(publisher, "x", 1));
	ok(shmb_publisher_close(publisher));
	refused(shmb_publisher_open(channel, NULL, &publisher), -ENOENT);
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

/* ---- configuration ----------------------------------------------------------------------------- */

static const struct {
	const char *text;
	const char *says;
} mistakes[] = {
	{ "idle-exit = 1\ncolour = 'red'\n", "shmbrokerd.conf:2: " },
	{ "rule \"a\" {\n\tchannel = { 'a' }\n\tallow = { 'fly' }\n}\n", "fly" },
	{ "rule \"a\" {\n\tchanel = { 'a' }\n}\n", "shmbrokerd.conf:2: " },
	{ "quota \"default\" {\n\tchannels = 'many'\n}\n", "many" },
	{ "rule \"a\" {\n\tchannel = { 'a' }\n", "shmbrokerd.conf:" },
};

START_TEST(refuses_to_start_with_a_mistake_and_says_where_it_is)
{
	const char *args[] = { "--config", place.conf, "--directory", place.run, NULL };

	place_configure(mistakes[_i].text);
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	ck_assert_msg(place_has_said(mistakes[_i].says), "it says: %s", place_said(false));
	ck_assert_msg(place_has_said("shmbrokerd.conf:"), "it says: %s", place_said(false));
}
END_TEST

START_TEST(refuses_a_configuration_that_others_can_change)
{
	const char *args[] = { "--config", place.conf, "--directory", place.run, NULL };

	ck_assert_int_eq(chmod(place.conf, 0666), 0);
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("lets others change");
	ck_assert_int_eq(chmod(place.conf, 0644), 0);
	ck_assert_int_eq(chown(place.conf, UID_STRANGER, UID_STRANGER), 0);
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("belongs to uid 1003");
	ck_assert_int_eq(unlink(place.conf), 0);
	ck_assert_int_eq(mkfifo(place.conf, 0644), 0);
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("not a regular file");
}
END_TEST

START_TEST(refuses_a_configuration_that_it_was_told_to_read_and_is_not_there)
{
	const char *args[] = { "--config", place_path("none.conf"), "--directory", place.run,
			       NULL };

	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("none.conf: No such file");
}
END_TEST

START_TEST(lets_nobody_do_anything_without_the_default_configuration)
{
	const char *args[] = { "--directory", place.run, "--ready-fd", "3", NULL };
	struct shmb_client *own;
	char answer[16] = "";
	int ends[2];

	if (access(SHMB_SYSCONFDIR "/shmbroker/shmbrokerd.conf", F_OK) == 0)
		return; /* this machine has one */
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	place.broker = place_spawn(args, ends[1], NULL);
	close(ends[1]);
	ck_assert_int_gt(read(ends[0], answer, sizeof(answer) - 1), 0);
	close(ends[0]);
	ck_assert_str_eq(answer, "ready\n");
	place_says("event=no-configuration");
	/* Root may connect, as to any socket, and no more. */
	own = connect_to(place.address);
	refused(place_open(own, "a", SHMB_CHANNEL_CREATE), -ENOENT);
	ok(shmb_client_close(own));
}
END_TEST

START_TEST(takes_nothing_from_the_environment_into_the_configuration)
{
	const char *args[] = { "--config", place.conf, "--directory", place.run, NULL };

	setenv("MODE", "0666", 1);
	place_configure("socket-mode = \"${MODE}\"\n");
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("shmbrokerd.conf:1: a variable of the environment");
	place_said(true);
	/* Without quotation marks as well. */
	place_configure("# it's a comment\n/*\n*/\nsocket-mode = ${MODE}\n");
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("shmbrokerd.conf:4: a variable of the environment");
	/* In comments it is harmless; between single quotes it is no mode. */
	place_configure("# \"${MODE}\"\n// ${MODE}\nsocket-mode = '${MODE}'\n");
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("not a mode of a socket: \"${MODE}\"");
}
END_TEST

START_TEST(is_refused_where_a_broker_runs_already)
{
	const char *args[] = { "--config", place.conf, "--directory", place.run, NULL };

	place_start();
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("already running");
	/* The first one is none the worse for it. */
	ok(shmb_client_close(connect_to(place.address)));
}
END_TEST

/* Two directories, one socket: it belongs to the first. */
START_TEST(is_refused_at_an_address_where_another_broker_listens)
{
	const char *args[] = { "--config",  place.conf,	   "--directory", place_path("run/b"),
			       "--address", place.address, NULL };
	pid_t pid;

	place_start();
	pid = place.broker;
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("already");
	ck_assert_int_eq(kill(pid, 0), 0);
	ok(shmb_client_close(connect_to(place.address)));
}
END_TEST

START_TEST(replaces_nothing_that_is_not_a_socket)
{
	const char *args[] = { "--config",  place.conf, "--directory", place.run,
			       "--address", place.conf, NULL };

	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("exists, and is no socket");
}
END_TEST

/* A process of its own: one that lives on would be expected back by the next broker. */
static void visit(void)
{
	ok(shmb_client_close(connect_to(place.address)));
}

START_TEST(takes_over_the_address_of_a_broker_that_was_killed)
{
	place_start();
	for (int i = 0; i < 20; i++) {
		place_end(SIGKILL);
		ck_assert_int_eq(access(place.address, F_OK), 0);
		place_start();
		place_finished(place_run_as(UID_STRANGER, 0, visit));
	}
}
END_TEST

START_TEST(refuses_a_directory_that_others_can_change)
{
	const char *args[] = { "--config", place.conf, "--directory", place.run, NULL };

	ck_assert_int_eq(chmod(place.run, 0777), 0);
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("can be written by others");
	ck_assert_int_eq(chmod(place.run, 0755), 0);
	ck_assert_int_eq(chown(place.run, UID_STRANGER, UID_STRANGER), 0);
	ck_assert_int_eq(place_fails(args, -1, NULL), EXIT_FAILURE);
	place_says("uid 1003");
}
END_TEST

START_TEST(gives_its_files_the_modes_that_they_need)
{
	struct stat st;

	umask(0);
	place_configure("socket-mode = '0620'\n");
	place_start();
	ck_assert_int_eq(stat(place.address, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0620);
	ck_assert_uint_eq(st.st_uid, UID_BROKER);
	ck_assert_int_eq(stat(place_path("run/broker.key"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(stat(place_path("run/broker.pub"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0644);
}
END_TEST

START_TEST(says_what_is_wrong_with_its_options)
{
	const char *args[] = { "--io", "fast", NULL };

	ck_assert_int_eq(place_fails(args, -1, NULL), USAGE_EXIT);
	place_says("fast");
}
END_TEST

static void add_tests(TCase *manager, TCase *signals, TCase *conf)
{
	tcase_add_test(manager, tells_the_service_manager_that_it_is_ready_and_that_it_stops);
	tcase_add_test(manager, feeds_the_watchdog);
	tcase_add_test(manager, listens_on_the_socket_that_it_was_passed);
	tcase_add_test(manager, takes_its_directory_from_the_socket_if_nothing_else_says);
	tcase_add_test(manager, refuses_sockets_of_other_kinds);
	tcase_add_test(manager, refuses_an_address_that_is_not_that_of_the_socket);
	tcase_add_test(manager, ignores_sockets_that_are_for_another_process);
	tcase_add_test(signals,
		       follows_new_rules_at_sighup_and_keeps_the_old_ones_if_they_have_a_mistake);
	tcase_add_test(signals, a_reload_takes_nothing_away_that_was_granted);
	tcase_add_loop_test(conf, refuses_to_start_with_a_mistake_and_says_where_it_is, 0,
			    sizeof(mistakes) / sizeof(mistakes[0]));
	tcase_add_test(conf, refuses_a_configuration_that_others_can_change);
	tcase_add_test(conf, refuses_a_configuration_that_it_was_told_to_read_and_is_not_there);
	tcase_add_test(conf, lets_nobody_do_anything_without_the_default_configuration);
	tcase_add_test(conf, takes_nothing_from_the_environment_into_the_configuration);
	tcase_add_test(conf, is_refused_where_a_broker_runs_already);
	tcase_add_test(conf, is_refused_at_an_address_where_another_broker_listens);
	tcase_add_test(conf, replaces_nothing_that_is_not_a_socket);
	tcase_add_test(conf, takes_over_the_address_of_a_broker_that_was_killed);
	tcase_add_test(conf, refuses_a_directory_that_others_can_change);
	tcase_add_test(conf, gives_its_files_the_modes_that_they_need);
	tcase_add_test(conf, says_what_is_wrong_with_its_options);
}

int main(void)
{
	TCase *cases[] = { gated_case("manager"), gated_case("signals"),
			   gated_case("configuration") };
	int result;

	place_need_root("test-service");
	for (int i = 0; i < 3; i++)
		tcase_add_checked_fixture(cases[i], place_set_up, stop_listening);
	add_tests(cases[0], cases[1], cases[2]);
	result = run_suite("service", cases, 3);
	place_sweep();
	return result;
}
