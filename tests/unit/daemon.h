/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_DAEMON_H
#define SHMB_TESTS_DAEMON_H

/* A daemon of a test's own, which is killed and started again. */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/fixture.h"

static char dir[] = "/tmp/shmb-daemon.XXXXXX";
static char address[64];
static pid_t daemon_pid;
/* NULL: it is this user's. */
static const char *config_file __attribute__((unused));

/* In the child that becomes the daemon: passes it fds from 3 on. */
static void (*pass_fds)(void) __attribute__((unused));

/* Long enough for whoever comes next on a busy machine, short enough to wait for its end. */
#define IDLE_EXIT "2"

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
		if (pass_fds)
			pass_fds();
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

	for (int i = 0; i < 20000; i++) {
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
