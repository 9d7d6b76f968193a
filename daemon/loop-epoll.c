/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The loop on epoll, for where io_uring is missing or forbidden.
 *
 * Level-triggered: what a turn leaves undone is reported again. An fd is registered only while
 * something is wanted of it, because EPOLLHUP cannot be masked.
 */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/loop-internal.h"

#define EVENTS	     64
#define ACCEPT_BATCH 64

struct engine_epoll {
	int fd;
	struct epoll_event events[EVENTS];
};

static int epoll_open(struct loop *loop)
{
	struct engine_epoll *engine = calloc(1, sizeof(*engine));

	if (!engine)
		return -ENOMEM;
	engine->fd = epoll_create1(EPOLL_CLOEXEC);
	if (engine->fd < 0) {
		int r = -errno;

		free(engine);
		return r;
	}
	loop->engine_data = engine;
	return 0;
}

static void epoll_close(struct loop *loop)
{
	struct engine_epoll *engine = loop->engine_data;

	close(engine->fd);
	free(engine);
}

static int epoll_set(struct loop_source *source, uint32_t events)
{
	struct engine_epoll *engine = source->loop->engine_data;
	struct epoll_event event = { .events = events, .data.u64 = source_token(source) };
	int op;

	if (events == source->events)
		return 0;
	if (!events)
		op = EPOLL_CTL_DEL;
	else if (source->events)
		op = EPOLL_CTL_MOD;
	else
		op = EPOLL_CTL_ADD;
	if (epoll_ctl(engine->fd, op, source->fd, &event) < 0)
		return -errno;
	source->events = events;
	return 0;
}

static int epoll_sync(struct loop_source *source)
{
	uint32_t events = 0;
	int r;

	if (source->closed)
		return 0;
	if (source->wanted & (OP_ACCEPT | OP_RECV | OP_POLL))
		events |= EPOLLIN;
	if (source->wanted & OP_SEND)
		events |= EPOLLOUT;
	r = epoll_set(source, events);
	if (r < 0) {
		int op = source->wanted & -source->wanted;

		source_complete(source, (enum source_op)op, r, false);
	}
	return 0;
}

static void epoll_drop(struct loop_source *source)
{
	epoll_set(source, 0);
	source_bury(source);
}

static void epoll_accept(struct loop_source *source)
{
	for (int i = 0; i < ACCEPT_BATCH && source->wanted & OP_ACCEPT; i++) {
		int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0) {
			if (errno != EAGAIN)
				source_complete(source, OP_ACCEPT, -errno, false);
			break;
		}
		source_complete(source, OP_ACCEPT, fd, true);
	}
}

static void epoll_recv(struct loop_source *source)
{
	struct loop_conn *conn = conn_of(source);
	int flags = conn_prepare_recv(conn);
	ssize_t n = recvmsg(source->fd, &conn->recv_msg, flags | MSG_DONTWAIT);

	if (n >= 0 || errno != EAGAIN)
		source_complete(source, OP_RECV, n < 0 ? -errno : (int)n, false);
}

static void epoll_send(struct loop_source *source)
{
	struct loop_conn *conn = conn_of(source);
	int flags = conn_prepare_send(conn);
	ssize_t n = sendmsg(source->fd, &conn->send_msg, flags | MSG_DONTWAIT);

	if (n >= 0 || errno != EAGAIN)
		source_complete(source, OP_SEND, n < 0 ? -errno : (int)n, false);
}

/* A callback may change what the source wants, or close it: then it wants nothing. */
static void epoll_dispatch(struct loop_source *source, uint32_t events)
{
	uint32_t end = events & (EPOLLHUP | EPOLLERR);

	if (source->wanted & OP_ACCEPT)
		epoll_accept(source);
	if (source->wanted & OP_POLL)
		source_complete(source, OP_POLL, 0, false);
	if (source->wanted & OP_SEND && (events & EPOLLOUT || end))
		epoll_send(source);
	if (source->wanted & OP_RECV && (events & EPOLLIN || end))
		epoll_recv(source);
}

static int epoll_timeout(uint64_t now, uint64_t deadline)
{
	uint64_t ms;

	if (deadline == UINT64_MAX)
		return -1;
	if (deadline <= now)
		return 0;
	/* Rounded up: waking early would mean waking twice. */
	ms = (deadline - now + 999999) / 1000000;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

static int epoll_wait_events(struct loop *loop, uint64_t deadline)
{
	struct engine_epoll *engine = loop->engine_data;
	int n;

	loop->now = clock_now_ns();
	n = epoll_wait(engine->fd, engine->events, EVENTS, epoll_timeout(loop->now, deadline));
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	loop->now = clock_now_ns();
	for (int i = 0; i < n; i++) {
		struct loop_source *source = source_find(loop, engine->events[i].data.u64);

		if (!loop_may_go_on(loop))
			break;
		if (source && !source->closed)
			epoll_dispatch(source, engine->events[i].events);
	}
	return 0;
}

const struct loop_engine loop_engine_epoll = {
	.name = "epoll",
	.send_at_once = true,
	.open = epoll_open,
	.close = epoll_close,
	.sync = epoll_sync,
	.drop = epoll_drop,
	.wait = epoll_wait_events,
};
