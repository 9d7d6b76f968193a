/* SPDX-License-Identifier: Apache-2.0 */

/* The keeper itself: see keeper.h. It serves its standard input, and nobody else can reach it. */

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/fd.h"

#include "daemon/keeper.h"
#include "daemon/segment.h"
#include "daemon/store.h"

#define LOOK_MS	    1000
#define LOOK_MS_MAX 16000

struct keeping {
	struct store store;
	char registry[SHMB_SEGMENT_NAME_LEN_MAX + 16];
	int signal_fd;
	bool deaf;
};

/* Nothing that it has is in its way when it is asked for: it may be looked into, and has no rights. */
static void become(const char *registry, struct keeping *keeping)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };
	struct rlimit limit;
	sigset_t set;

	prctl(PR_SET_NAME, "shmb-keeper");
	prctl(PR_SET_DUMPABLE, 1);
	syscall(SYS_capset, &head, none);
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0);
	if (chdir("/") < 0)
		_exit(EXIT_FAILURE);
	/* As many as its broker, which may have been short of them. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	/* SIGIO: what we look at is opened by a successor at the same time. */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigdelset(&set, SIGIO);
	keeping->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	snprintf(keeping->registry, sizeof(keeping->registry), "/dev/shm%s", registry);
}

static void drop(struct keeping *keeping, const char *name)
{
	for (uint32_t i = 0; i < keeping->store.n_fds; i++) {
		struct stored_fd *stored = &keeping->store.fds[i];

		if (stored->fd < 0 || strcmp(stored->name, name) != 0)
			continue;
		shmb_fd_close(stored->fd);
		*stored = keeping->store.fds[--keeping->store.n_fds];
		return;
	}
}

/* For reading only, so that it is not one of those who can write it. */
static void keep(struct keeping *keeping, const char *name, int fd)
{
	char path[40];
	int own;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDONLY | O_CLOEXEC);
	if (own < 0)
		return;
	drop(keeping, name);
	if (store_note(&keeping->store, name, own) < 0)
		shmb_fd_close(own);
}

/* Returns whether there may be more. */
static bool take_in(struct keeping *keeping)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	char text[256], name[64];
	struct iovec iov = { .iov_base = text, .iov_len = sizeof(text) - 1 };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(STDIN_FILENO, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *head = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
	int fd = -1;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return errno == EINTR;
	if (n <= 0) {
		keeping->deaf = true;
		return false;
	}
	text[n] = '\0';
	if (head)
		memcpy(&fd, CMSG_DATA(head), sizeof(fd));
	if (fd >= 0 && sscanf(text, "FDSTORE=1\nFDNAME=%63s", name) == 1)
		keep(keeping, name, fd);
	else if (sscanf(text, "FDSTOREREMOVE=1\nFDNAME=%63s", name) == 1)
		drop(keeping, name);
	shmb_fd_close(fd);
	return true;
}

/* Until the broker has gone, or another one wants what there is. */
static void listen_to_broker(struct keeping *keeping)
{
	struct pollfd pollers[] = { { .fd = STDIN_FILENO, .events = POLLIN },
				    { .fd = keeping->signal_fd, .events = POLLIN } };

	while (!keeping->deaf) {
		if (poll(pollers, 2, -1) < 0 && errno != EINTR)
			break;
		/* What was said before the signal came is there. */
		keeping->deaf = pollers[1].revents != 0;
		while (take_in(keeping))
			;
	}
	/* Without it a successor knows that nothing is on the way. */
	close(STDIN_FILENO);
}

/* Has somebody who lives mapped one of them for writing? Everybody who has one has one such. */
static bool is_used(const struct keeping *keeping)
{
	for (uint32_t i = 0; i < keeping->store.n_fds; i++) {
		int fd = keeping->store.fds[i].fd;

		/* A file that can be written has no such lease; we do not want it. */
		if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN)
			return true;
		fcntl(fd, F_SETLEASE, F_UNLCK);
	}
	return false;
}

/* A successor takes what it wants, and kills us then. */
static void wait_for_successor(const struct keeping *keeping, int linger_ms)
{
	uint64_t end = shmb_clock_now_ns() + (uint64_t)linger_ms * 1000000;
	int pause_ms = LOOK_MS;

	while (keeping->store.n_fds && access(keeping->registry, F_OK) == 0) {
		if (shmb_clock_now_ns() > end && !is_used(keeping))
			return;
		poll(NULL, 0, pause_ms);
		if (pause_ms < LOOK_MS_MAX)
			pause_ms *= 2;
	}
}

int keeper_main(const char *registry, int linger_ms)
{
	struct keeping keeping = { .signal_fd = -1 };

	become(registry, &keeping);
	listen_to_broker(&keeping);
	wait_for_successor(&keeping, linger_ms);
	return EXIT_SUCCESS;
}
