/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Starts the per-user broker as a process of its own session, twice forked, so that no child is
 * left for the host process to reap. Between fork and exec only async-signal-safe calls are made,
 * since the host may have threads.
 */

#include "lib/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"

#define N_CANDIDATES 8

/* Paths to try, NULL-terminated; @room holds those that had to be built. */
static void candidates(const char *paths[N_CANDIDATES + 1], char room[N_CANDIDATES][PATH_MAX])
{
	const char *chosen = secure_getenv("SHMBROKER_DAEMON");
	const char *search = secure_getenv("PATH");
	int n = 0;

	if (chosen) {
		paths[n++] = chosen;
		paths[n] = NULL;
		return;
	}
	paths[n++] = SHMB_SBINDIR "/shmbrokerd";
	while (search && *search && n < N_CANDIDATES) {
		size_t len = strcspn(search, ":");

		/* A relative entry of $PATH would run what lies in the current directory. */
		if (*search == '/' && len + sizeof("/shmbrokerd") <= PATH_MAX) {
			snprintf(room[n], PATH_MAX, "%.*s/shmbrokerd", (int)len, search);
			if (access(room[n], X_OK) == 0) {
				paths[n] = room[n];
				n++;
			}
		}
		search += len;
		search += *search == ':';
	}
	paths[n] = NULL;
}

/* In the grandchild: become the broker. */
static void run_broker(const char *const *paths, int ready_fd)
{
	char number[] = { (char)('0' + 3), 0 };
	char *arguments[] = { (char *)"shmbrokerd", (char *)"--user", (char *)"--ready-fd", number,
			      NULL };
	int null = open("/dev/null", O_RDWR);
	sigset_t none;

	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
		_exit(127);
	/* dup2() onto itself would keep close-on-exec. */
	if (ready_fd == 3)
		fcntl(3, F_SETFD, 0);
	else if (dup2(ready_fd, 3) < 0)
		_exit(127);
	if (syscall(SYS_close_range, 4, ~0u, 0) < 0)
		for (int fd = 4; fd < 65536; fd++)
			close(fd);
	for (int number_of = 1; number_of < NSIG; number_of++)
		signal(number_of, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (chdir("/") < 0)
		_exit(127);
	for (; *paths; paths++)
		execv(*paths, arguments);
	dprintf(3, "error: no shmbrokerd found\n");
	_exit(127);
}

static int read_answer(int fd, char *answer, size_t cap, uint64_t deadline_ns)
{
	size_t len = 0;

	while (len < cap - 1 && !memchr(answer, '\n', len)) {
		struct pollfd entry = { .fd = fd, .events = POLLIN };
		struct timespec left =
			shmb_clock_timespec(shmb_clock_left_ns(deadline_ns, shmb_clock_now_ns()));
		int n = ppoll(&entry, 1, &left, NULL);
		ssize_t got;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -ETIMEDOUT;
		got = read(fd, answer + len, cap - 1 - len);
		if (got <= 0)
			break;
		len += (size_t)got;
	}
	answer[len] = '\0';
	answer[strcspn(answer, "\n")] = '\0';
	return 0;
}

/* Where its libraries cannot be opened, for example, it does not come to saying so to us. */
static int fail_without_reason(void)
{
	struct rlimit fds = { 0 };

	getrlimit(RLIMIT_NOFILE, &fds);
	return shmb_fail(
		-ECONNREFUSED,
		"the broker ended before it could say why: run shmbrokerd --user to see it (here "
		"a process may have %llu file descriptors)",
		(unsigned long long)fds.rlim_cur);
}

int shmb_spawn_broker(uint64_t deadline_ns)
{
	char(*room)[PATH_MAX] = malloc(sizeof(char[N_CANDIDATES][PATH_MAX]));
	const char *paths[N_CANDIDATES + 1];
	char answer[256];
	int ends[2], result;
	pid_t pid;

	if (!room)
		return shmb_fail(-ENOMEM, "no memory to start a broker");
	candidates(paths, room);
	if (pipe2(ends, O_CLOEXEC) < 0) {
		free(room);
		return shmb_fail(-errno, "no pipe to start a broker: %s", strerror(errno));
	}
	pid = fork();
	if (pid == 0) {
		setsid();
		if (fork() == 0)
			run_broker(paths, ends[1]);
		_exit(0);
	}
	result = pid < 0 ? -errno : 0;
	shmb_fd_close(ends[1]);
	/* The host may reap its children itself, or ignore them: any outcome will do. */
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (result == 0)
		result = read_answer(ends[0], answer, sizeof(answer), deadline_ns);
	shmb_fd_close(ends[0]);
	free(room);
	if (result == -ETIMEDOUT)
		return shmb_fail(result, "the broker that was started does not get ready");
	if (result < 0)
		return shmb_fail(result, "cannot start a broker: %s", strerror(-result));
	if (!strcmp(answer, "ready") || strstr(answer, "already"))
		return 0;
	if (strstr(answer, "no shmbrokerd found"))
		return shmb_fail(-ENOENT,
				 "no broker is running, and there is no shmbrokerd to start "
				 "(in %s, $PATH or $SHMBROKER_DAEMON)",
				 SHMB_SBINDIR);
	return answer[0] ? shmb_fail(-ECONNREFUSED, "the broker did not start: %s", answer)
			 : fail_without_reason();
}
