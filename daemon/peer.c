/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/fd.h"

#include "daemon/peer.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#ifndef PIDFS_MAGIC
#define PIDFS_MAGIC 0x50494446 /* Linux 6.9 */
#endif

#define STAT_FIELD_START 22

static int open_pidfd(uint32_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

/* Start time of a process in clock ticks since boot, 0: unknown. */
static uint64_t start_of(uint32_t pid)
{
	char path[32], text[1024];
	char *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	shmb_fd_close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	/* The command name, field 2, can contain anything, also parentheses. */
	p = strrchr(text, ')');
	for (int field = 2; p && field < STAT_FIELD_START; field++) {
		p = strchr(p, ' ');
		if (p)
			p++;
	}
	return p ? strtoull(p, NULL, 10) : 0;
}

static uint64_t inode_of(int pidfd)
{
	struct statfs fs;
	struct stat st;

	/* Before pidfs all pidfds shared one inode, which identifies nothing. */
	if (fstatfs(pidfd, &fs) < 0 || fs.f_type != PIDFS_MAGIC || fstat(pidfd, &st) < 0)
		return 0;
	return st.st_ino;
}

static bool process_dead(int pidfd)
{
	struct pollfd poller = { .fd = pidfd, .events = POLLIN };

	return poll(&poller, 1, 0) == 1;
}

static void read_groups(int fd, struct peer *peer)
{
	uint32_t few[64];
	socklen_t len = sizeof(few);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, few, &len) == 0 && len > 0) {
		peer->groups = malloc(len);
		if (!peer->groups)
			return;
		memcpy(peer->groups, few, len);
	} else if (errno == ERANGE) {
		peer->groups = malloc(len);
		if (!peer->groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer->groups, &len))
			return;
	} else {
		return;
	}
	peer->n_groups = len / sizeof(uint32_t);
}

int peer_read(int fd, struct peer *peer)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int pidfd;

	*peer = (struct peer){ .pidfd = -1 };
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	peer->uid = cred.uid;
	peer->gid = cred.gid;
	peer->pid = (uint32_t)cred.pid;
	len = sizeof(pidfd);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) < 0) {
		if (errno != ENOPROTOOPT && errno != EINVAL)
			return -errno;
		/* An older kernel: the pid may be another process's by now, but then a dead one's. */
		pidfd = open_pidfd(peer->pid);
		if (pidfd < 0)
			return pidfd;
	}
	peer->pidfd = pidfd;
	fcntl(pidfd, F_SETFD, FD_CLOEXEC);
	peer->start = peer->pid ? start_of(peer->pid) : 0;
	peer->inode = inode_of(pidfd);
	/* Only now is it certain that the start time is that of the process of the pidfd. */
	if (process_dead(pidfd)) {
		peer_deinit(peer);
		return -ESRCH;
	}
	read_groups(fd, peer);
	return 0;
}

int peer_reopen(uint32_t pid, uint64_t start, uint64_t inode)
{
	int pidfd;

	if (pid == 0 || (start == 0 && inode == 0))
		return -ESRCH;
	pidfd = open_pidfd(pid);
	if (pidfd < 0)
		return pidfd == -EINVAL ? -ESRCH : pidfd;
	if (start_of(pid) != start || (inode && inode_of(pidfd) != inode) || process_dead(pidfd)) {
		shmb_fd_close(pidfd);
		return -ESRCH;
	}
	return pidfd;
}

void peer_deinit(struct peer *peer)
{
	peer->pidfd = shmb_fd_close(peer->pidfd);
	free(peer->groups);
	peer->groups = NULL;
	peer->n_groups = 0;
}
