/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Listening sockets of the loop.
 *
 * Running out of fds must neither stop the broker from ever accepting again nor make it spin on a
 * backlog it cannot empty: a few clients are accepted into a spare fd and closed, then there is a
 * pause.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/loop-internal.h"
#include "daemon/loop.h"

#define SHED_BATCH 16

bool fd_refuses_rights(int fd)
{
	socklen_t len = sizeof(int);
	int on = 1;

	return getsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &on, &len) == 0 && !on;
}

void fd_refuse_rights(int fd)
{
	int off = 0;

	/* Before Linux 6.16 there is no such option. */
	setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
}

void loop_close_peer(struct loop *loop, int fd)
{
	if (fd_refuses_rights(fd))
		close(fd);
	else
		reaper_close(loop, fd);
}

static int spare_open(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/*
 * No fd is left for a client. Without this it would sit in the backlog and think that it is being
 * served.
 */
static void listener_shed(struct loop_listener *listener)
{
	struct loop *loop = listener->source.loop;

	if (loop->spare_fd < 0)
		loop->spare_fd = spare_open();
	for (int i = 0; i < SHED_BATCH && loop->spare_fd >= 0; i++) {
		int fd;

		close(loop->spare_fd);
		fd = accept4(listener->source.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			loop_close_peer(loop, fd);
		loop->spare_fd = spare_open();
		if (fd < 0)
			break;
	}
}

void listener_accepted(struct loop_listener *listener, int result, bool more)
{
	struct loop_source *source = &listener->source;

	if (result >= 0) {
		listener->accepted(listener->data, result);
	} else if (result != -ECONNABORTED && result != -EINTR) {
		if (result == -EMFILE || result == -ENFILE)
			listener_shed(listener);
		if (!more)
			source_retry(source);
		return;
	}
	if (!more && !source->closed)
		source_want(source, OP_ACCEPT);
}

int loop_listen(struct loop *loop, int fd, void (*accepted)(void *data, int fd), void *data,
		struct loop_listener **ret)
{
	struct loop_listener *listener;
	int flags = fcntl(fd, F_GETFL);
	int r;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	if (loop->spare_fd < 0)
		loop->spare_fd = spare_open();
	if (loop->spare_fd < 0)
		return loop->spare_fd;
	/* Connections inherit it. */
	fd_refuse_rights(fd);

	listener = malloc(sizeof(*listener));
	if (!listener)
		return -ENOMEM;
	r = source_init(&listener->source, loop, SOURCE_LISTENER, fd);
	if (r < 0) {
		free(listener);
		return r;
	}
	listener->accepted = accepted;
	listener->data = data;
	source_want(&listener->source, OP_ACCEPT);
	*ret = listener;
	return 0;
}

struct loop_listener *loop_unlisten(struct loop_listener *listener)
{
	if (listener)
		source_close(&listener->source);
	return NULL;
}
