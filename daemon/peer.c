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

/* Start time of a process in clock ticks since boot. */
static int start_of(uint32_t pid, uint64_t *ret_start)
{
	char path[32], text[1024];
	char *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	*ret_start = 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	do
		n = read(fd, text, sizeof(text) - 1);
	while (n < 0 && errno == EINTR);
	shmb_fd_close(fd);
	if (n <= 0)
		return n < 0 ? -errno : -ESRCH;
	text[n] = '\0';
	/* The command name, field 2, can contain anything, also parentheses. */
	p = strrchr(text, ')');
	for (int field = 2; p && field < STAT_FIELD_START; field++) {
		p = strchr(p, ' ');
		if (p)
			p++;
	}
	if (p)
		*ret_start = strtoull(p, NULL, 10);
	return 0;
}

static int inode_of(int pidfd, uint64_t *ret_inode)
{
	struct statfs fs;
	struct stat st;

	if (fstatfs(pidfd, &fs) < 0 || fstat(pidfd, &st) < 0)
		return -errno;
	/* Before pidfs all pidfds shared one inode, which identifies nothing. */
	*ret_inode = fs.f_type == PIDFS_MAGIC ? st.st_ino : 0;
	return 0;
}

bool peer_is_dead(int pidfd)
{
	struct pollfd poller = { .fd = pidfd, .events = POLLIN };

	return poll(&poller, 1, 0) == 1;
}

/* All of them or an error: a rule that denies a group must not be missed. */
static int read_groups(int fd, struct peer *peer)
{
	uint32_t few[64];
	socklen_t len = sizeof(few);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, few, &len) == 0) {
		if (len == 0)
			return 0;
		peer->groups = malloc(len);
		if (!peer->groups)
			return -ENOMEM;
		memcpy(peer->groups, few, len);
	} else if (errno == ERANGE) {
		peer->groups = malloc(len);
		if (!peer->groups)
			return -ENOMEM;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer->groups, &len) < 0)
			return -errno;
	} else {
		/* Before Linux 4.13, and for a peer that has none. */
		return errno == ENOPROTOOPT || errno == ENODATA ? 0 : -errno;
	}
	peer->n_groups = len / sizeof(uint32_t);
	return 0;
}

int peer_read(int fd, struct peer *peer)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int pidfd, r;

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
	/* A peer that is known by less than it could be would not be known after a restart. */
	r = peer->pid ? start_of(peer->pid, &peer->start) : 0;
	/* Where /proc is hidden from us it stays unknown. */
	if (r == -ENOENT || r == -EACCES)
		r = 0;
	if (r == 0)
		r = inode_of(pidfd, &peer->inode);
	/* Only now is it certain that the start time is that of the process of the pidfd. */
	if (r == 0 && peer_is_dead(pidfd))
		r = -ESRCH;
	if (r == 0)
		r = read_groups(fd, peer);
	if (r < 0)
		peer_deinit(peer);
	return r;
}

int peer_reopen(uint32_t pid, uint64_t start, uint64_t inode)
{
	uint64_t start_now, inode_now = 0;
	int pidfd, r;

	if (pid == 0 || (start == 0 && inode == 0))
		return -ESRCH;
	pidfd = open_pidfd(pid);
	if (pidfd < 0)
		return pidfd;
	r = start_of(pid, &start_now);
	if (r == 0 && inode)
		r = inode_of(pidfd, &inode_now);
	if (r == 0 && (start_now != start || (inode && inode_now != inode)))
		r = -ESRCH;
	if (peer_is_dead(pidfd))
		r = -ESRCH;
	if (r < 0) {
		shmb_fd_close(pidfd);
		return r;
	}
	return pidfd;
}

int peer_identify(uint32_t pid, int pidfd, uint64_t *ret_start, uint64_t *ret_inode)
{
	int r = start_of(pid, ret_start);

	return r == 0 ? inode_of(pidfd, ret_inode) : r;
}

void peer_deinit(struct peer *peer)
{
	peer->pidfd = shmb_fd_close(peer->pidfd);
	free(peer->groups);
	peer->groups = NULL;
	peer->n_groups = 0;
}
