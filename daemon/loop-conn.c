/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Connections of the loop: whole packets in, a bounded queue of packets out.
 *
 * At most one receive and one send are in flight, because several sends queued on a full socket
 * arrive in any order. The fds of a queued packet are duplicates that live until it was sent. A
 * client cannot hand us an fd: there is never room for one, and where the kernel would still drop
 * it for us - which blocks for as long as the client likes - we look at a packet before taking it.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/loop-internal.h"
#include "daemon/loop.h"

#define TAKE_OFF_TRIES 1000

/* bytes: control message of control_len bytes, then the packet. */
struct conn_packet {
	struct conn_packet *next;
	size_t len;
	size_t control_len;
	unsigned char bytes[] __attribute__((__aligned__(__alignof__(struct cmsghdr))));
};

struct loop_conn *conn_of(struct loop_source *source)
{
	return (struct loop_conn *)(void *)source;
}

/* Fds of a control message made by control_fill(). */
static void control_close(unsigned char *control, size_t control_len)
{
	struct msghdr msg = { .msg_control = control, .msg_controllen = control_len };
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);

	if (!header)
		return;
	for (size_t at = 0; at < header->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
		int fd;

		memcpy(&fd, CMSG_DATA(header) + at, sizeof(fd));
		close(fd);
	}
}

static void control_fill(struct msghdr *msg, const int *fds, unsigned n_fds)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(msg);

	if (!n_fds)
		return;
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
}

static size_t control_size(unsigned n_fds)
{
	return n_fds ? CMSG_SPACE(n_fds * sizeof(int)) : 0;
}

static void packet_free(struct conn_packet *packet)
{
	control_close(packet->bytes, packet->control_len);
	free(packet);
}

static int packet_new(const void *data, size_t len, const int *fds, unsigned n_fds,
		      struct conn_packet **ret)
{
	size_t control_len = control_size(n_fds);
	struct conn_packet *packet = calloc(1, sizeof(*packet) + control_len + len);
	struct msghdr msg = { .msg_controllen = control_len };
	int dups[LOOP_PACKET_FDS];

	if (!packet)
		return -ENOMEM;
	for (unsigned i = 0; i < n_fds; i++) {
		dups[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
		if (dups[i] < 0) {
			int r = -errno;

			while (i--)
				close(dups[i]);
			free(packet);
			return r;
		}
	}
	packet->len = len;
	packet->control_len = control_len;
	msg.msg_control = packet->bytes;
	control_fill(&msg, dups, n_fds);
	memcpy(packet->bytes + control_len, data, len);
	*ret = packet;
	return 0;
}

/* Whether replies pile up, so that no more requests should be taken. */
static bool conn_clogged(const struct loop_conn *conn)
{
	return conn->n_queued > LOOP_QUEUE_RECORDS / 2 || conn->queued_bytes > LOOP_QUEUE_BYTES / 2;
}

static void conn_fail(struct loop_conn *conn, int error)
{
	if (conn->failed)
		return;
	conn->failed = true;
	conn->source.wanted = 0;
	source_dirty(&conn->source);
	conn->ops->on_closed(conn->data, error);
}

static void conn_resume(struct loop_conn *conn)
{
	if (!conn->source.closed && !conn->failed && !conn_clogged(conn))
		source_want(&conn->source, OP_RECV);
}

int conn_prepare_recv(struct loop_conn *conn)
{
	conn->recv_iov.iov_base = conn->packet;
	conn->recv_iov.iov_len = conn->ops->max_packet;
	/* No room for control messages: fds are dropped, never installed. */
	conn->recv_msg = (struct msghdr){ .msg_iov = &conn->recv_iov, .msg_iovlen = 1 };
	return MSG_CMSG_CLOEXEC | (conn->peek ? MSG_PEEK : 0);
}

int conn_prepare_send(struct loop_conn *conn)
{
	struct conn_packet *packet = conn->head;

	conn->send_iov.iov_base = packet->bytes + packet->control_len;
	conn->send_iov.iov_len = packet->len;
	conn->send_msg = (struct msghdr){
		.msg_iov = &conn->send_iov,
		.msg_iovlen = 1,
		.msg_control = packet->control_len ? packet->bytes : NULL,
		.msg_controllen = packet->control_len,
	};
	return MSG_NOSIGNAL;
}

/*
 * The packet has been looked at and brings no fds: it goes. If it stayed it would come twice. A
 * peer that has closed meanwhile resets the connection, which is reported once, in its place.
 */
static int conn_take_off(struct loop_conn *conn)
{
	for (int i = 0; i < TAKE_OFF_TRIES; i++) {
		if (recv(conn->source.fd, NULL, 0, MSG_DONTWAIT) >= 0)
			return 0;
		if (errno != EINTR && errno != ECONNRESET && errno != EAGAIN && errno != ENOMEM)
			break;
	}
	return -errno;
}

void conn_received(struct loop_conn *conn, int result)
{
	int flags = conn->recv_msg.msg_flags;

	if (conn->failed)
		return;
	/*
	 * A peer that closes with unread packets resets the connection, and the kernel says so
	 * once, before the last packets that the peer sent: they follow.
	 */
	if (result == -EINTR || result == -ECONNRESET) {
		conn_resume(conn);
		return;
	}
	if (result < 0) {
		conn_fail(conn, result);
	} else if (flags & MSG_CTRUNC) {
		conn_fail(conn, -EPROTO);
	} else if (result == 0) {
		conn_fail(conn, 0);
	} else if (flags & MSG_TRUNC) {
		conn_fail(conn, -EMSGSIZE);
	} else {
		if (conn->peek) {
			int r = conn_take_off(conn);

			if (r < 0) {
				conn_fail(conn, r);
				return;
			}
		}
		conn->ops->on_packet(conn->data, conn->packet, (size_t)result);
		conn_resume(conn);
	}
}

void conn_sent(struct loop_conn *conn, int result)
{
	struct conn_packet *packet = conn->head;

	if (conn->failed)
		return;
	if (result == -EINTR) {
		source_want(&conn->source, OP_SEND);
		return;
	}
	/* A peer that has closed may have said goodbye before: receiving finds that, then the end. */
	if (result < 0 && result != -EPIPE && result != -ECONNRESET) {
		conn_fail(conn, result);
		return;
	}
	conn->head = packet->next;
	conn->n_queued--;
	conn->queued_bytes -= packet->len;
	packet_free(packet);
	if (conn->head) {
		source_want(&conn->source, OP_SEND);
	} else {
		conn->tail = &conn->head;
		if (conn->ops->on_writable)
			conn->ops->on_writable(conn->data);
	}
	conn_resume(conn);
}

void conn_release(struct loop_conn *conn)
{
	struct conn_packet *packet;

	while ((packet = conn->head)) {
		conn->head = packet->next;
		packet_free(packet);
	}
	if (conn->peek)
		reaper_close(conn->source.loop, conn->source.fd);
	else
		close(conn->source.fd);
	free(conn);
}

int loop_conn_new(struct loop *loop, int fd, const struct loop_conn_ops *ops, void *data,
		  struct loop_conn **ret)
{
	struct loop_conn *conn = malloc(sizeof(*conn) + ops->max_packet);
	int r;

	if (!conn)
		return -ENOMEM;
	*conn = (struct loop_conn){ .ops = ops, .data = data };
	r = source_init(&conn->source, loop, SOURCE_CONN, fd);
	if (r < 0) {
		free(conn);
		return r;
	}
	conn->tail = &conn->head;
	conn->peek = !fd_refuses_rights(fd);
	fd_refuse_rights(fd);
	source_want(&conn->source, OP_RECV);
	*ret = conn;
	return 0;
}

/* Return: 0, -EAGAIN if the socket is full, or another error of sendmsg(2). */
static int conn_send_now(struct loop_conn *conn, const void *data, size_t len, const int *fds,
			 unsigned n_fds)
{
	union {
		struct cmsghdr align;
		unsigned char bytes[CMSG_SPACE(LOOP_PACKET_FDS * sizeof(int))];
	} control = { .bytes = { 0 } };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = n_fds ? control.bytes : NULL,
		.msg_controllen = control_size(n_fds),
	};

	control_fill(&msg, fds, n_fds);
	return sendmsg(conn->source.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int loop_conn_send(struct loop_conn *conn, const void *packet, size_t len, const int *fds,
		   unsigned n_fds)
{
	struct conn_packet *queued = NULL;
	int r;

	if (!len || n_fds > LOOP_PACKET_FDS)
		return -EINVAL;
	if (conn->failed || conn->source.closed)
		return -ENOTCONN;
	if (conn->n_queued >= LOOP_QUEUE_RECORDS || len > LOOP_QUEUE_BYTES - conn->queued_bytes)
		return -ENOBUFS;
	/* With fds it saves duplicating them. */
	if (!conn->head && (n_fds || conn->source.loop->engine->send_at_once)) {
		r = conn_send_now(conn, packet, len, fds, n_fds);
		if (r != -EAGAIN)
			return r;
	}
	r = packet_new(packet, len, fds, n_fds, &queued);
	if (r < 0)
		return r;
	*conn->tail = queued;
	conn->tail = &queued->next;
	conn->n_queued++;
	conn->queued_bytes += len;
	source_want(&conn->source, OP_SEND);
	return 0;
}

bool loop_conn_idle(const struct loop_conn *conn)
{
	return !conn->head;
}

struct loop_conn *loop_conn_close(struct loop_conn *conn)
{
	if (conn && !conn->source.closed) {
		/* Also ends what is in flight, at once; the fd itself goes when nothing is. */
		shutdown(conn->source.fd, SHUT_RDWR);
		source_close(&conn->source);
	}
	return NULL;
}
