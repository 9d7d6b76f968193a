/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keeping others from disturbing the measurement. Niceness alone does nothing where the scheduler
 * groups tasks by session (autogroup): a nice process is only nice to those of its own session. So
 * the work is done in a session of its own, and that session as a whole is preferred. All of it
 * needs privileges, and is left out without them.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define PRIORITY "-20"

static bool prefer_session(void)
{
	int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
	bool preferred;

	/* A kernel without groups: niceness is all there is. */
	if (fd < 0)
		return errno == ENOENT;
	preferred = write(fd, PRIORITY, sizeof(PRIORITY) - 1) > 0;
	close(fd);
	return preferred;
}

void bench_quiet(void)
{
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("cannot fork");
	if (pid > 0) {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
	}
	/* The terminal's signals reach only the one who waits. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	setsid();
	if (setpriority(PRIO_PROCESS, 0, -20) < 0 || !prefer_session())
		fputs("bench: not permitted to raise our priority: others disturb us more\n",
		      stderr);
}
