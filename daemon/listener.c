/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/fd.h"

#include "daemon/listener.h"
#include "daemon/peer.h"

#define BACKLOG 512

/*
 * The lock keeps two brokers out of one directory, but not out of one address. A name that nobody
 * answers to is that of a broker that was killed.
 */
static int check_free(int fd, const char *path, bool replace)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct peer peer = { .pidfd = -1 };
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0
				       : shmb_fail(-errno, "%s: %s", path, strerrordesc_np(errno));
	if (!S_ISSOCK(st.st_mode))
		return shmb_fail(-EADDRINUSE, "%s: exists, and is no socket", path);
	if (replace)
		return 0;
	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == ECONNREFUSED || errno == ENOENT)
			return 0;
	} else {
		/* A killed broker's socket goes on accepting until its io_uring is torn down. */
		r = peer_read(fd, &peer);
		peer_deinit(&peer);
		if (r == -ESRCH)
			return 0;
	}
	return shmb_fail(-EADDRINUSE, "%s: somebody listens there already", path);
}

/* With a socket of its own: one that was connected cannot listen. */
static int address_check(const char *path, bool replace)
{
	int r, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return shmb_fail(-errno, "no socket: %s", strerrordesc_np(errno));
	r = check_free(fd, path, replace);
	shmb_fd_close(fd);
	return r;
}

int listener_open(const char *path, uint32_t mode, bool replace, bool (*gate)(void *data),
		  void *data)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, n, r = 0;

	/* It gets its name when it listens, so that nobody finds a socket that refuses. */
	n = snprintf(address.sun_path, sizeof(address.sun_path), "%s.n", path);
	if (n < 0 || (size_t)n >= sizeof(address.sun_path))
		return shmb_fail(-ENAMETOOLONG, "%s: too long for a socket's path", path);
	r = address_check(path, replace);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return shmb_fail(-errno, "no socket: %s", strerrordesc_np(errno));
	unlink(address.sun_path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(address.sun_path, mode) < 0 || listen(fd, BACKLOG) < 0)
		r = shmb_fail(-errno, "%s: %s", path, strerrordesc_np(errno));
	/* Stopped behind the gate and replaced: the other one has removed this name. */
	if (r == 0 && !gate(data))
		r = shmb_fail(-ESTALE, "%s: another broker has taken our place", path);
	if (r == 0 && rename(address.sun_path, path) < 0)
		r = shmb_fail(-errno, "%s: %s", path, strerrordesc_np(errno));
	if (r == 0)
		return fd;
	unlink(address.sun_path);
	shmb_fd_close(fd);
	return r;
}

int listener_check(int fd)
{
	socklen_t len = sizeof(int);
	int domain, type, listening;

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening)
		return shmb_fail(-EINVAL, "fd %d is not a listening SOCK_SEQPACKET socket", fd);
	return 0;
}
