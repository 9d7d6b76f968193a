/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_DAEMON_H
#define SHMB_TESTS_DAEMON_H

/* A daemon of a test's own, which is killed and started again, and a service manager for it. */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/fixture.h"

static char dir[] = "/tmp/shmb-daemon.XXXXXX";
static char address[64];
static pid_t daemon_pid;
/* NULL: it is this user's. */
static const char *config_file __attribute__((unused));

/* Long enough for whoever comes next on a busy machine, short enough to wait for its end. */
#define IDLE_EXIT "2"

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

static inline int find_stored(const char *name)
{
	int i = 0;

	while (i < manager.n_stored && strcmp(manager.stored[i].name, name) != 0)
		i++;
	return i;
}

static inline void drop_stored(int i)
{
	if (i == manager.n_stored)
		return;
	close(manager.stored[i].fd);
	manager.stored[i] = manager.stored[--manager.n_stored];
}

/* Takes in what the daemon has said. */
static inline void manage(void)
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

static inline void start_manager(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	snprintf(manager.path, sizeof(manager.path), "%s/notify", dir);
	strcpy(at.sun_path, manager.path);
	manager.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(manager.socket, (struct sockaddr *)&at, sizeof(at)), 0);
}

static inline void stop_manager(void)
{
	close(manager.socket);
	manager.socket = -1;
}

/* In the child that becomes the daemon: @first is where passed fds begin. */
static inline void pass_stored(int first)
{
	char names[STORED_MAX * 64] = "", number[16];
	int copies[STORED_MAX];

	setenv("NOTIFY_SOCKET", manager.path, 1);
	/* Out of the way first. */
	for (int i = 0; i < manager.n_stored; i++)
		copies[i] = fcntl(manager.stored[i].fd, F_DUPFD, 400);
	for (int i = 0; i < manager.n_stored; i++) {
		dup2(copies[i], first + i);
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

/* ---- daemons ------------------------------------------------------------------------------------ */

static inline const char *daemon_path(void)
{
	const char *top = getenv("top_builddir");
	static char program[4096];

	snprintf(program, sizeof(program), "%s/shmbrokerd", top ? top : ".");
	return program;
}

static inline void start_program(const char *program, const char *option)
{
	char number[16], answer[256] = "";
	int ends[2], ready;

	ck_assert_int_eq(pipe(ends), 0);
	daemon_pid = fork();
	if (daemon_pid == 0) {
		/* Passed fds begin at 3. */
		ready = fcntl(ends[1], F_DUPFD, 390);
		snprintf(number, sizeof(number), "%d", ready);
		close(ends[0]);
		close(ends[1]);
		if (manager.socket >= 0)
			pass_stored(3);
		execl(program, "shmbrokerd", "--directory", dir, "--ready-fd", number,
		      "--idle-exit", IDLE_EXIT, config_file ? "--allow-root" : "--user",
		      config_file ? "--config" : option, config_file, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	ck_assert_int_gt(read(ends[0], answer, sizeof(answer) - 1), 0);
	ck_assert_str_eq(answer, "ready\n");
	close(ends[0]);
}

static inline void start_daemon(void)
{
	start_program(daemon_path(), NULL);
}

static inline void kill_daemon(void)
{
	kill(daemon_pid, SIGKILL);
	ck_assert_int_eq(waitpid(daemon_pid, NULL, 0), daemon_pid);
}

static inline void wait_daemon(void)
{
	int status;

	for (int i = 0; i < 5000; i++) {
		manage();
		if (waitpid(daemon_pid, &status, WNOHANG) == daemon_pid) {
			ck_assert_int_eq(status, 0);
			return;
		}
		usleep(2000);
	}
	ck_abort_msg("the idle daemon did not exit");
}

/* Objects of this broker in /dev/shm. */
static inline int count_objects(const char *instance)
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

static inline void read_instance(char instance[17])
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

static inline void set_up_dir(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(address, sizeof(address), "%s/control.sock", dir);
	start_daemon();
}

static inline void tear_down_dir(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

#endif
