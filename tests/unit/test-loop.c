/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The event loop: the same cases on both back ends. Most clients live in the same loop as the
 * server, as a watch on their end of the socket.
 */

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/loop.h"

#define MSEC	   1000000ULL
#define MAX_PACKET 4096

static const enum loop_backend backends[] = { LOOP_EPOLL, LOOP_URING };

/* One connection under test: its loop, the client's end, and what happened. */
struct peer {
	struct loop *loop;
	struct loop_conn *conn;
	struct loop_conn **more;
	int client;
	int n_packets;
	int n_writable;
	int n_closed;
	int error;
	int todo;
	int next;
	bool echo;
	bool close_in_packet;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static uint64_t cpu_ns(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000U +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000U;
}

static int n_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static struct loop *begin(int i)
{
	struct loop *loop = NULL;
	int r = loop_new(backends[i], &loop);

	if (backends[i] == LOOP_URING && r < 0) {
		printf("io_uring: %s, case skipped\n", strerror(-r));
		return NULL;
	}
	ck_assert_int_eq(r, 0);
	return loop;
}

static void stop(void *data)
{
	loop_stop(data, 0);
}

/* Run for a time, or until somebody stops the loop. Return: its code, -ETIME after the time. */
static void timed_out(void *data)
{
	loop_stop(data, -ETIME);
}

static int run_for(struct loop *loop, uint64_t ms)
{
	struct loop_timer *timer;
	int r;

	ck_assert_int_eq(loop_timer_at(loop, now_ns() + ms * MSEC, timed_out, loop, &timer), 0);
	r = loop_run(loop);
	loop_timer_cancel(timer);
	return r;
}

static void peer_packet(void *data, const void *packet, size_t len)
{
	struct peer *peer = data;

	peer->n_packets++;
	if (peer->echo)
		ck_assert_int_eq(loop_conn_send(peer->conn, packet, len, NULL, 0), 0);
	if (peer->close_in_packet) {
		peer->conn = loop_conn_close(peer->conn);
		loop_stop(peer->loop, 0);
	}
}

static void peer_writable(void *data)
{
	struct peer *peer = data;

	peer->n_writable++;
}

static void peer_closed(void *data, int error)
{
	struct peer *peer = data;

	peer->n_closed++;
	peer->error = error;
	peer->conn = loop_conn_close(peer->conn);
	loop_stop(peer->loop, 0);
}

static const struct loop_conn_ops peer_ops = {
	.max_packet = MAX_PACKET,
	.on_packet = peer_packet,
	.on_writable = peer_writable,
	.on_closed = peer_closed,
};

static void peer_open(struct peer *peer, struct loop *loop, const struct loop_conn_ops *ops)
{
	int fds[2];

	*peer = (struct peer){ .loop = loop };
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
	peer->client = fds[1];
	ck_assert_int_eq(loop_conn_new(loop, fds[0], ops, peer, &peer->conn), 0);
}

static void peer_close(struct peer *peer)
{
	peer->conn = loop_conn_close(peer->conn);
	if (peer->client >= 0)
		close(peer->client);
}

static int send_fd(int sock, int fd, size_t len)
{
	char bytes[16] = "fd";
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .header = { .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS,
				  .cmsg_len = CMSG_LEN(sizeof(int)) } };
	struct iovec iov = { .iov_base = bytes, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Return: the fd that came with the next packet, -1 for none. */
static int recv_fd(int sock, char *bytes, size_t size)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = bytes, .iov_len = size };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	int fd = -1;

	ck_assert_int_gt(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT), 0);
	if (CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

static int listen_any(struct sockaddr_un *addr, socklen_t *len)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un any = { .sun_family = AF_UNIX };

	/* An address without a name: the kernel chooses an abstract one. */
	ck_assert_int_eq(bind(fd, (void *)&any, sizeof(sa_family_t)), 0);
	ck_assert_int_eq(listen(fd, 512), 0);
	*len = sizeof(*addr);
	ck_assert_int_eq(getsockname(fd, (void *)addr, len), 0);
	return fd;
}

static int connect_to(const struct sockaddr_un *addr, socklen_t len)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(connect(fd, (const void *)addr, len), 0);
	return fd;
}

/* Packets. */

START_TEST(packets_come_back_whole_from_an_echo)
{
	struct loop *loop = begin(_i);
	struct peer peer;
	char bytes[MAX_PACKET];
	char back[MAX_PACKET + 1];
	size_t sizes[] = { 1, 100, MAX_PACKET };

	if (!loop)
		return;
	peer_open(&peer, loop, &peer_ops);
	peer.echo = true;
	memset(bytes, 'x', sizeof(bytes));
	for (size_t i = 0; i < 3; i++)
		ck_assert_int_gt(send(peer.client, bytes, sizes[i], 0), 0);
	ck_assert_int_eq(run_for(loop, 50), -ETIME);
	ck_assert_int_eq(peer.n_packets, 3);
	ck_assert(loop_conn_idle(peer.conn));
	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(recv(peer.client, back, sizeof(back), 0), sizes[i]);
	peer_close(&peer);
	loop_free(loop);
}
END_TEST

#define N_CLIENTS 200

struct crowd {
	struct loop *loop;
	struct peer peers[N_CLIENTS];
	int n;
};

static void crowd_accepted(void *data, int fd)
{
	struct crowd *crowd = data;
	struct peer *peer = &crowd->peers[crowd->n++];

	*peer = (struct peer){ .loop = crowd->loop, .client = -1, .echo = true };
	ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	ck_assert_int_ne(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_eq(loop_conn_new(crowd->loop, fd, &peer_ops, peer, &peer->conn), 0);
}

static int n_served(const struct crowd *crowd)
{
	int n = 0;

	for (int i = 0; i < crowd->n; i++)
		n += crowd->peers[i].n_packets;
	return n;
}

static int n_closed(const struct crowd *crowd)
{
	int n = 0;

	for (int i = 0; i < crowd->n; i++)
		n += crowd->peers[i].n_closed;
	return n;
}

START_TEST(two_hundred_clients_are_served)
{
	struct loop *loop = begin(_i);
	struct loop_listener *listener;
	static struct crowd crowd;
	struct sockaddr_un addr;
	int clients[N_CLIENTS];
	int before = n_fds();
	socklen_t len;
	int fd;

	if (!loop)
		return;
	crowd = (struct crowd){ .loop = loop };
	fd = listen_any(&addr, &len);
	ck_assert_int_eq(loop_listen(loop, fd, crowd_accepted, &crowd, &listener), 0);
	for (int i = 0; i < N_CLIENTS; i++) {
		clients[i] = connect_to(&addr, len);
		ck_assert_int_eq(send(clients[i], &i, sizeof(i), 0), sizeof(i));
	}
	for (int tries = 0; tries < 100 && n_served(&crowd) < N_CLIENTS; tries++)
		run_for(loop, 100);
	run_for(loop, 50);
	ck_assert_int_eq(crowd.n, N_CLIENTS);
	for (int i = 0; i < N_CLIENTS; i++) {
		int back = -1;

		ck_assert_int_eq(recv(clients[i], &back, sizeof(back), 0), sizeof(back));
		ck_assert_int_eq(back, i);
		close(clients[i]);
	}
	/* Each close stops the loop after its batch. */
	for (int tries = 0; tries < 1000 && n_closed(&crowd) < N_CLIENTS; tries++)
		run_for(loop, 50);
	for (int i = 0; i < N_CLIENTS; i++) {
		ck_assert_int_eq(crowd.peers[i].n_closed, 1);
		ck_assert_int_eq(crowd.peers[i].error, 0);
	}
	loop_unlisten(listener);
	run_for(loop, 10);
	clients[0] = connect_to(&addr, len);
	run_for(loop, 10);
	ck_assert_int_eq(crowd.n, N_CLIENTS);
	close(clients[0]);
	close(fd);
	/* The loop's spare. */
	ck_assert_int_le(n_fds(), before + 1);
	loop_free(loop);
}
END_TEST

#define N_SENDS 1000

static void fill(void *data)
{
	struct peer *peer = data;
	int packet[256] = { 0 };
	int r = 0;

	while (peer->next < peer->todo) {
		packet[0] = peer->next;
		r = loop_conn_send(peer->conn, packet, sizeof(packet), NULL, 0);
		if (r < 0)
			break;
		peer->next++;
	}
	ck_assert(r == 0 || r == -ENOBUFS);
}

static void read_in_order(void *data)
{
	struct peer *peer = data;
	int packet[256];

	if (recv(peer->client, packet, sizeof(packet), 0) < 0)
		return;
	ck_assert_int_eq(packet[0], peer->n_packets);
	if (++peer->n_packets == peer->todo)
		loop_stop(peer->loop, 0);
}

START_TEST(a_thousand_packets_keep_their_order_through_a_full_socket)
{
	static const struct loop_conn_ops ops = {
		.max_packet = MAX_PACKET,
		.on_packet = peer_packet,
		.on_writable = fill,
		.on_closed = peer_closed,
	};
	struct loop *loop = begin(_i);
	struct loop_watch *watch;
	struct peer peer;

	if (!loop)
		return;
	peer_open(&peer, loop, &ops);
	peer.todo = N_SENDS;
	fill(&peer);
	/* Fill the socket and the queue before the first read. */
	ck_assert_int_eq(run_for(loop, 30), -ETIME);
	ck_assert(!loop_conn_idle(peer.conn));
	ck_assert_int_lt(peer.next, N_SENDS);
	ck_assert_int_eq(loop_watch(loop, peer.client, false, read_in_order, &peer, &watch), 0);
	ck_assert_int_eq(run_for(loop, 5000), 0);
	ck_assert_int_eq(peer.n_packets, N_SENDS);
	loop_unwatch(watch);
	peer_close(&peer);
	loop_free(loop);
}
END_TEST

START_TEST(the_queue_is_bounded_in_records_and_bytes)
{
	struct loop *loop = begin(_i);
	static char big[LOOP_QUEUE_BYTES + 1];
	struct peer peer;
	int fds[LOOP_PACKET_FDS + 1] = { 0 };
	int n = 0;

	if (!loop)
		return;
	peer_open(&peer, loop, &peer_ops);
	ck_assert_int_eq(loop_conn_send(peer.conn, "", 0, NULL, 0), -EINVAL);
	ck_assert_int_eq(loop_conn_send(peer.conn, "x", 1, fds, LOOP_PACKET_FDS + 1), -EINVAL);
	ck_assert_int_eq(loop_conn_send(peer.conn, big, sizeof(big), NULL, 0), -ENOBUFS);
	while (loop_conn_send(peer.conn, "x", 1, NULL, 0) == 0)
		n++;
	ck_assert_int_ge(n, LOOP_QUEUE_RECORDS);
	ck_assert_int_eq(loop_conn_send(peer.conn, "x", 1, NULL, 0), -ENOBUFS);
	peer_close(&peer);

	peer_open(&peer, loop, &peer_ops);
	while (loop_conn_send(peer.conn, big, 4096, NULL, 0) == 0)
		;
	ck_assert_int_eq(loop_conn_send(peer.conn, big, 4096, NULL, 0), -ENOBUFS);
	ck_assert_int_eq(run_for(loop, 20), -ETIME);
	peer_close(&peer);
	loop_free(loop);
}
END_TEST

START_TEST(a_client_that_reads_no_replies_is_not_read_from)
{
	struct loop *loop = begin(_i);
	struct peer peer;
	int sent = 0;
	int got = 0;
	char bytes[1024] = { 0 };

	if (!loop)
		return;
	peer_open(&peer, loop, &peer_ops);
	peer.echo = true;
	/* peer_packet() would fail the test on -ENOBUFS. */
	for (int i = 0; i < 20; i++) {
		while (send(peer.client, bytes, sizeof(bytes), 0) > 0)
			sent++;
		ck_assert_int_eq(run_for(loop, 5), -ETIME);
	}
	ck_assert_int_lt(peer.n_packets, sent);
	for (int i = 0; i < 50 && got < sent; i++) {
		while (recv(peer.client, bytes, sizeof(bytes), 0) > 0)
			got++;
		ck_assert_int_eq(run_for(loop, 5), -ETIME);
	}
	ck_assert_int_eq(got, sent);
	ck_assert_int_gt(peer.n_writable, 0);
	peer_close(&peer);
	loop_free(loop);
}
END_TEST

/* File descriptors. */

static int memfd_with(const char *text)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	ck_assert_int_eq(write(fd, text, strlen(text)), strlen(text));
	return fd;
}

static void check_memfd(int fd, const char *text)
{
	char bytes[16] = "";

	ck_assert_int_ge(fd, 0);
	ck_assert_int_gt(pread(fd, bytes, sizeof(bytes) - 1, 0), 0);
	ck_assert_str_eq(bytes, text);
	close(fd);
}

START_TEST(an_fd_may_be_closed_right_after_sending_it)
{
	struct loop *loop = begin(_i);
	char bytes[1024] = { 0 };
	struct peer peer;
	int before;
	int first;
	int fd;

	if (!loop)
		return;
	before = n_fds();
	for (int full = 0; full < 2; full++) {
		int n = 0;

		peer_open(&peer, loop, &peer_ops);
		/* With a full socket and queue the packet waits; without, it goes at once. */
		while (full && n < 140) {
			/* A slow loop has not emptied the queue yet. */
			if (loop_conn_send(peer.conn, bytes, sizeof(bytes), NULL, 0) < 0)
				run_for(loop, 5);
			else if (++n % 40 == 0)
				run_for(loop, 5);
		}
		if (full)
			run_for(loop, 5);
		first = fd = memfd_with("right");
		ck_assert_int_eq(loop_conn_send(peer.conn, "f", 1, &fd, 1), 0);
		ck_assert_int_eq(loop_conn_idle(peer.conn), !full);
		close(fd);
		fd = memfd_with("wrong");
		ck_assert_int_eq(fd, first);
		for (int i = 0; i < n; i++) {
			if (recv(peer.client, bytes, sizeof(bytes), 0) < 0) {
				run_for(loop, 5);
				i--;
			}
		}
		run_for(loop, 5);
		check_memfd(recv_fd(peer.client, bytes, sizeof(bytes)), "right");
		close(fd);
		peer_close(&peer);
	}
	run_for(loop, 20);
	ck_assert_int_eq(n_fds(), before);
	loop_free(loop);
}
END_TEST

START_TEST(a_client_that_sends_an_fd_is_closed_and_the_fd_not_kept)
{
	struct loop *loop = begin(_i);
	struct peer peer;
	int pipe_fds[2];
	int before;
	char byte;

	if (!loop)
		return;
	before = n_fds();
	for (size_t len = 0; len <= 2; len += 2) {
		int fds[2];

		/* Queued before the loop sees the socket, as after socket activation. */
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
		ck_assert_int_eq(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
		peer = (struct peer){ .loop = loop, .client = fds[1] };
		ck_assert_int_eq(send(fds[1], "ok", 2, 0), 2);
		ck_assert_int_eq(send_fd(fds[1], pipe_fds[1], len), 0);
		close(pipe_fds[1]);
		ck_assert_int_eq(loop_conn_new(loop, fds[0], &peer_ops, &peer, &peer.conn), 0);
		ck_assert_int_eq(run_for(loop, 1000), 0);
		ck_assert_int_eq(peer.n_packets, 1);
		ck_assert_int_eq(peer.n_closed, 1);
		ck_assert_int_eq(peer.error, -EPROTO);
		peer_close(&peer);
		/* The last write end goes, if late: a thread, or the kernel's, closes it. */
		for (int i = 0; i < 500 && read(pipe_fds[0], &byte, 1) < 0; i++)
			run_for(loop, 20);
		ck_assert_int_eq(read(pipe_fds[0], &byte, 1), 0);
		close(pipe_fds[0]);
	}
	ck_assert_int_eq(n_fds(), before);
	loop_free(loop);
}
END_TEST

START_TEST(clients_of_a_listener_cannot_send_fds)
{
	struct loop *loop = begin(_i);
	struct loop_listener *listener;
	static struct crowd crowd;
	struct sockaddr_un addr;
	socklen_t len;
	int client;
	int fd;
	int r;

	if (!loop)
		return;
	crowd = (struct crowd){ .loop = loop };
	fd = listen_any(&addr, &len);
	ck_assert_int_eq(loop_listen(loop, fd, crowd_accepted, &crowd, &listener), 0);
	client = connect_to(&addr, len);
	r = send_fd(client, fd, 2);
	if (r == -EPERM) {
		ck_assert_int_eq(send(client, "ok", 2, 0), 2);
		ck_assert_int_eq(run_for(loop, 20), -ETIME);
		ck_assert_int_eq(crowd.peers[0].n_packets, 1);
	} else {
		/* Linux before 6.16. */
		ck_assert_int_eq(r, 0);
		ck_assert_int_eq(run_for(loop, 1000), 0);
		ck_assert_int_eq(crowd.peers[0].error, -EPROTO);
	}
	close(client);
	close(fd);
	loop_free(loop);
}
END_TEST

/* A TCP socket whose last close blocks for 3 s. */
static int lingering_socket(int *ret_other)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 3 };
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t len = sizeof(addr);
	static char bytes[65536];
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(server, (void *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(server, 1), 0);
	ck_assert_int_eq(getsockname(server, (void *)&addr, &len), 0);
	ck_assert_int_eq(connect(fd, (void *)&addr, len), 0);
	*ret_other = accept4(server, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	close(server);
	return fd;
}

START_TEST(an_fd_that_lingers_does_not_stop_the_loop)
{
	struct loop *loop = begin(_i);
	struct peer peer;
	uint64_t start;
	int fds[2];
	int other;
	int tcp;

	if (!loop)
		return;
	tcp = lingering_socket(&other);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	ck_assert_int_eq(send_fd(fds[1], tcp, 2), 0);
	close(tcp);
	start = now_ns();
	peer = (struct peer){ .loop = loop, .client = fds[1] };
	ck_assert_int_eq(loop_conn_new(loop, fds[0], &peer_ops, &peer, &peer.conn), 0);
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_int_eq(peer.error, -EPROTO);
	ck_assert_int_eq(run_for(loop, 50), -ETIME);
	peer_close(&peer);
	loop_free(loop);
	ck_assert_uint_lt(now_ns() - start, 1000 * MSEC);
	close(other);
}
END_TEST

/* Ends. */

START_TEST(a_packet_that_is_too_long_closes_the_connection)
{
	struct loop *loop = begin(_i);
	char bytes[MAX_PACKET + 1] = { 0 };
	struct peer peer;

	if (!loop)
		return;
	peer_open(&peer, loop, &peer_ops);
	ck_assert_int_eq(send(peer.client, bytes, sizeof(bytes), 0), sizeof(bytes));
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_int_eq(peer.n_packets, 0);
	ck_assert_int_eq(peer.error, -EMSGSIZE);
	peer_close(&peer);
	loop_free(loop);
}
END_TEST

START_TEST(an_empty_packet_closes_the_connection)
{
	struct loop *loop = begin(_i);
	struct peer peer;

	if (!loop)
		return;
	peer_open(&peer, loop, &peer_ops);
	ck_assert_int_eq(send(peer.client, "", 0, 0), 0);
	ck_assert_int_eq(send(peer.client, "x", 1, 0), 1);
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_int_eq(peer.n_packets, 0);
	ck_assert_int_eq(peer.n_closed, 1);
	ck_assert_int_eq(peer.error, 0);
	/* The other end sees it although the fd may be closed later. */
	ck_assert_int_le(send(peer.client, "x", 1, MSG_NOSIGNAL), 0);
	peer_close(&peer);
	loop_free(loop);
}
END_TEST

START_TEST(what_was_sent_before_the_client_left_still_arrives)
{
	struct loop *loop = begin(_i);
	struct peer peer;

	if (!loop)
		return;
	peer_open(&peer, loop, &peer_ops);
	ck_assert_int_eq(send(peer.client, "a", 1, 0), 1);
	ck_assert_int_eq(send(peer.client, "b", 1, 0), 1);
	close(peer.client);
	peer.client = -1;
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_int_eq(peer.n_packets, 2);
	ck_assert_int_eq(peer.n_closed, 1);
	ck_assert_int_eq(peer.error, 0);
	peer_close(&peer);
	loop_free(loop);
}
END_TEST

ssize_t __real_recv(int fd, void *bytes, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t len, int flags);

static int recv_error; /* of the next recv() */

ssize_t __wrap_recv(int fd, void *bytes, size_t len, int flags)
{
	if (!recv_error)
		return __real_recv(fd, bytes, len, flags);
	errno = recv_error;
	recv_error = 0;
	return -1;
}

/* Between the look at a packet and taking it off the socket. */
START_TEST(no_packet_comes_twice_because_the_client_leaves)
{
	static const int errors[] = { ECONNRESET, EINTR, EAGAIN };
	struct loop *loop = begin(_i);

	if (!loop)
		return;
	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		struct peer peer;

		peer_open(&peer, loop, &peer_ops);
		ck_assert_int_eq(send(peer.client, "a", 1, 0), 1);
		ck_assert_int_eq(send(peer.client, "b", 1, 0), 1);
		close(peer.client);
		peer.client = -1;
		recv_error = errors[i];
		ck_assert_int_eq(run_for(loop, 1000), 0);
		ck_assert_int_eq(recv_error, 0);
		ck_assert_int_eq(peer.n_packets, 2);
		ck_assert_int_eq(peer.n_closed, 1);
		ck_assert_int_eq(peer.error, 0);
		peer_close(&peer);
	}
	loop_free(loop);
}
END_TEST

START_TEST(a_client_that_leaves_while_the_queue_is_full_is_noticed)
{
	struct loop *loop = begin(_i);
	char bytes[1024] = { 0 };
	struct peer peer;

	if (!loop)
		return;
	peer_open(&peer, loop, &peer_ops);
	for (int i = 0; i < 20; i++) {
		while (loop_conn_send(peer.conn, bytes, sizeof(bytes), NULL, 0) == 0)
			;
		run_for(loop, 2);
	}
	ck_assert_int_eq(peer.n_closed, 0);
	close(peer.client);
	peer.client = -1;
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_int_eq(peer.n_closed, 1);
	peer_close(&peer);
	loop_free(loop);
}
END_TEST

START_TEST(a_connection_may_be_closed_in_its_own_callback)
{
	struct loop *loop = begin(_i);
	struct peer peer;
	char byte;

	if (!loop)
		return;
	peer_open(&peer, loop, &peer_ops);
	peer.close_in_packet = true;
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(send(peer.client, "x", 1, 0), 1);
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_int_eq(run_for(loop, 10), -ETIME);
	ck_assert_int_eq(peer.n_packets, 1);
	ck_assert_int_eq(peer.n_closed, 0);
	ck_assert_int_le(recv(peer.client, &byte, 1, 0), 0);
	peer_close(&peer);
	loop_free(loop);
}
END_TEST

START_TEST(a_new_object_hears_nothing_of_the_one_before)
{
	struct loop *loop = begin(_i);
	struct peer peers[16];
	int before;

	if (!loop)
		return;
	before = n_fds();
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 16; i++)
			peer_open(&peers[i], loop, &peer_ops);
		if (round % 2)
			run_for(loop, 0);
		for (int i = 0; i < 16; i++) {
			send(peers[i].client, "x", 1, 0);
			peer_close(&peers[i]);
			ck_assert_int_eq(peers[i].n_closed, 0);
			/* The same fds and slots again, before the kernel heard of the close. */
			peer_open(&peers[i], loop, &peer_ops);
		}
		run_for(loop, 0);
		for (int i = 0; i < 16; i++) {
			ck_assert_int_eq(peers[i].n_packets, 0);
			ck_assert_int_eq(peers[i].n_closed, 0);
			peer_close(&peers[i]);
		}
	}
	run_for(loop, 30);
	ck_assert_int_eq(n_fds(), before);
	loop_free(loop);
}
END_TEST

START_TEST(freeing_a_loop_frees_what_is_still_open)
{
	struct loop *loop = begin(_i);
	struct loop_listener *listener;
	struct loop_timer *timer;
	struct sockaddr_un addr;
	struct peer peer;
	socklen_t len;
	int before;
	int fd;

	if (!loop)
		return;
	before = n_fds();
	fd = listen_any(&addr, &len);
	ck_assert_int_eq(loop_listen(loop, fd, crowd_accepted, NULL, &listener), 0);
	ck_assert_int_eq(loop_timer_at(loop, UINT64_MAX, stop, loop, &timer), 0);
	peer_open(&peer, loop, &peer_ops);
	ck_assert_int_eq(loop_conn_send(peer.conn, "x", 1, &fd, 1), 0);
	ck_assert_int_eq(run_for(loop, 5), -ETIME);
	ck_assert_int_eq(loop_conn_send(peer.conn, "x", 1, NULL, 0), 0);
	loop_free(loop);
	close(peer.client);
	close(fd);
	ck_assert_int_lt(n_fds(), before);
}
END_TEST

/* Readiness, timers, deferred calls. */

START_TEST(a_process_that_dies_is_reported_once)
{
	struct loop *loop = begin(_i);
	struct loop_watch *watch;
	pid_t pid;
	int fd;

	if (!loop)
		return;
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(loop_watch(loop, fd, true, stop, loop, &watch), 0);
	ck_assert_int_eq(run_for(loop, 20), -ETIME);
	kill(pid, SIGKILL);
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_int_eq(run_for(loop, 20), -ETIME);
	loop_unwatch(watch);
	/* Dead and reaped before anybody watches. */
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(loop_watch(loop, fd, true, stop, loop, &watch), 0);
	ck_assert_int_eq(run_for(loop, 1000), 0);
	loop_unwatch(watch);
	close(fd);
	loop_free(loop);
}
END_TEST

static void *write_later(void *data)
{
	const uint64_t one = 1;

	usleep(20000);
	ck_assert_int_eq(write(*(int *)data, &one, sizeof(one)), sizeof(one));
	return NULL;
}

static void stop_with_7(void *data)
{
	loop_stop(data, 7);
	loop_stop(data, 8);
}

START_TEST(another_thread_stops_the_loop_through_an_eventfd)
{
	struct loop *loop = begin(_i);
	struct loop_watch *watch;
	pthread_t thread;
	int fd;

	if (!loop)
		return;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ck_assert_int_eq(loop_watch(loop, fd, false, stop_with_7, loop, &watch), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, write_later, &fd), 0);
	ck_assert_int_eq(loop_run(loop), 7);
	pthread_join(thread, NULL);
	loop_unwatch(watch);
	close(fd);
	loop_stop(loop, 9);
	ck_assert_int_eq(loop_run(loop), 9);
	loop_free(loop);
}
END_TEST

static void count(void *data)
{
	++*(int *)data;
}

START_TEST(a_watch_reports_as_long_as_the_fd_is_readable)
{
	struct loop *loop = begin(_i);
	struct loop_watch *watch;
	uint64_t start;
	int n = 0;
	int fd;

	if (!loop)
		return;
	fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	ck_assert_int_eq(loop_watch(loop, fd, false, count, &n, &watch), 0);
	run_for(loop, 50);
	ck_assert_int_gt(n, 2);
	/* The number may mean something else at once. */
	loop_unwatch(watch);
	close(fd);
	n = 0;
	ck_assert_int_eq(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), fd);
	ck_assert_int_eq(loop_watch(loop, fd, false, count, &n, &watch), 0);
	run_for(loop, 5);
	ck_assert_int_eq(n, 0);
	loop_unwatch(watch);
	close(fd);
	/* The kernel let go of it when asked. */
	start = now_ns();
	loop_free(loop);
	ck_assert_uint_lt(now_ns() - start, 500 * MSEC);
}
END_TEST

struct order {
	struct loop *loop;
	int *n;
	int at;
	uint64_t due;
};

static void fired_in_order(void *data)
{
	struct order *order = data;

	ck_assert_int_eq((*order->n)++, order->at);
	ck_assert_uint_ge(now_ns(), order->due);
	ck_assert_uint_ge(loop_now_ns(order->loop), order->due);
}

START_TEST(timers_fire_in_order_and_cancelled_ones_never)
{
	struct loop *loop = begin(_i);
	struct loop_timer *timers[100];
	struct loop_timer *moved;
	struct loop_timer *never;
	struct order order[100];
	uint64_t start;
	int cancelled = 0;
	int n = 0;

	if (!loop)
		return;
	start = now_ns();
	for (int i = 0; i < 100; i++) {
		int at = i * 37 % 100;

		order[i] = (struct order){ loop, &n, at, start + (uint64_t)(at)*MSEC / 4 };
		ck_assert_int_eq(
			loop_timer_at(loop, order[i].due, fired_in_order, &order[i], &timers[i]),
			0);
		ck_assert_int_eq(loop_timer_at(loop, order[i].due, count, &cancelled, &never), 0);
		never = loop_timer_cancel(never);
	}
	ck_assert_int_eq(loop_timer_at(loop, UINT64_MAX, count, &cancelled, &never), 0);
	ck_assert_int_eq(loop_timer_at(loop, start, stop, loop, &moved), 0);
	loop_timer_move(moved, start + 40 * MSEC);
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_uint_ge(now_ns(), start + 40 * MSEC);
	ck_assert_int_eq(n, 100);
	ck_assert_int_eq(cancelled, 0);
	loop_timer_move(moved, 0);
	ck_assert_int_eq(run_for(loop, 1000), 0);
	for (int i = 0; i < 100; i++)
		loop_timer_cancel(timers[i]);
	loop_timer_cancel(moved);
	loop_free(loop);
}
END_TEST

struct again {
	struct loop *loop;
	struct loop_timer *timer;
	struct loop_deferred deferred;
	int n;
};

static void again(void *data)
{
	struct again *it = data;

	it->n++;
	if (it->timer)
		loop_timer_move(it->timer, 0);
	else
		loop_defer(it->loop, &it->deferred);
}

START_TEST(endless_timers_and_deferred_calls_do_not_keep_events_out)
{
	struct loop *loop = begin(_i);
	struct again it = { .loop = loop };
	struct loop_watch *watch;
	int fd;

	if (!loop)
		return;
	fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	it.deferred = (struct loop_deferred){ .run = again, .data = &it };
	loop_defer(loop, &it.deferred);
	loop_defer(loop, &it.deferred);
	ck_assert_int_eq(loop_watch(loop, fd, true, stop, loop, &watch), 0);
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_int_eq(it.n, 1);
	loop_unwatch(watch);
	loop_defer_cancel(loop, &it.deferred);
	run_for(loop, 5);
	ck_assert_int_eq(it.n, 1);

	ck_assert_int_eq(loop_timer_at(loop, 0, again, &it, &it.timer), 0);
	ck_assert_int_eq(loop_watch(loop, fd, true, stop, loop, &watch), 0);
	ck_assert_int_eq(run_for(loop, 1000), 0);
	ck_assert_int_eq(it.n, 2);
	loop_unwatch(watch);
	loop_timer_cancel(it.timer);
	close(fd);
	loop_free(loop);
}
END_TEST

/* Resources. */

START_TEST(an_idle_loop_uses_no_cpu)
{
	struct loop *loop = begin(_i);
	struct loop_listener *listener;
	struct sockaddr_un addr;
	struct rusage before;
	struct rusage after;
	struct peer peer;
	socklen_t len;
	int fd;

	if (!loop)
		return;
	fd = listen_any(&addr, &len);
	ck_assert_int_eq(loop_listen(loop, fd, crowd_accepted, NULL, &listener), 0);
	peer_open(&peer, loop, &peer_ops);
	run_for(loop, 5);
	getrusage(RUSAGE_SELF, &before);
	ck_assert_int_eq(run_for(loop, 300), -ETIME);
	getrusage(RUSAGE_SELF, &after);
	/* One sleep, with room for noise; a tick of 10 ms would be 30. */
	ck_assert_int_lt(after.ru_nvcsw - before.ru_nvcsw, 8);
	peer_close(&peer);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(accepting_recovers_from_having_no_fds_without_spinning)
{
	struct loop *loop = begin(_i);
	struct loop_listener *listener;
	static struct crowd crowd;
	struct sockaddr_un addr;
	struct rlimit limit;
	int clients[40];
	int held[1024];
	int n_held = 0;
	int shed = 0;
	socklen_t len;
	uint64_t cpu;
	char byte;
	int fd;

	if (!loop || getenv("SHMB_TEST_EMULATED")) /* it keeps no limit of fds */
		return;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = 256;
	setrlimit(RLIMIT_NOFILE, &limit);
	crowd = (struct crowd){ .loop = loop };
	fd = listen_any(&addr, &len);
	ck_assert_int_eq(loop_listen(loop, fd, crowd_accepted, &crowd, &listener), 0);
	for (int i = 0; i < 40; i++)
		clients[i] = connect_to(&addr, len);
	while (n_held < 1024 && (held[n_held] = dup(fd)) >= 0)
		n_held++;
	ck_assert_int_eq(errno, EMFILE);

	cpu = cpu_ns();
	ck_assert_int_eq(run_for(loop, 450), -ETIME);
	ck_assert_uint_lt(cpu_ns() - cpu, 100 * MSEC);
	ck_assert_int_eq(crowd.n, 0);
	for (int i = 0; i < 40; i++)
		shed += recv(clients[i], &byte, 1, 0) == 0;
	ck_assert_int_ge(shed, 16);

	while (n_held)
		close(held[--n_held]);
	close(clients[0]);
	clients[0] = connect_to(&addr, len);
	ck_assert_int_eq(send(clients[0], "x", 1, 0), 1);
	run_for(loop, 250);
	ck_assert_int_eq(recv(clients[0], &byte, 1, 0), 1);
	loop_free(loop);
	close(fd);
	for (int i = 0; i < 40; i++)
		close(clients[i]);
}
END_TEST

static int forked(int (*child)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(child());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* Return: 0 if AUTO chose epoll and works, 1 if io_uring was not refused. */
static int auto_falls_back(void)
{
	struct loop *loop = NULL;
	struct loop_timer *timer;

	if (loop_new(LOOP_URING, &loop) == 0)
		return 1;
	if (loop_new(LOOP_AUTO, &loop) < 0)
		return 2;
	if (strcmp(loop_backend_name(loop), "epoll") != 0)
		return 3;
	if (loop_timer_at(loop, 0, stop, loop, &timer) < 0 || loop_run(loop) != 0)
		return 4;
	loop_free(loop);
	return 0;
}

static int without_memlock(void)
{
	struct rlimit none = { 0 };

	if (setrlimit(RLIMIT_MEMLOCK, &none) < 0 || setresgid(65534, 65534, 65534) < 0 ||
	    setresuid(65534, 65534, 65534) < 0)
		return 5;
	return auto_falls_back();
}

START_TEST(without_locked_memory_the_loop_runs_on_epoll)
{
	int r;

	if (getuid() != 0) {
		printf("not root, case skipped\n");
		return;
	}
	r = forked(without_memlock);
	/* Not every kernel charges rings to the limit. */
	ck_assert(r == 0 || r == 1);
	if (r == 1)
		printf("rings are not charged here, case skipped\n");
}
END_TEST

static int deny(unsigned syscall_nr)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, syscall_nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = 4, .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

static int with_setup_denied(void)
{
	return deny(__NR_io_uring_setup) < 0 ? 5 : auto_falls_back();
}

static int with_register_denied(void)
{
	return deny(__NR_io_uring_register) < 0 ? 5 : auto_falls_back();
}

static int with_enter_denied(void)
{
	return deny(__NR_io_uring_enter) < 0 ? 5 : auto_falls_back();
}

START_TEST(where_a_sandbox_denies_io_uring_the_loop_runs_on_epoll)
{
	if (getenv("SHMB_TEST_EMULATED")) /* it installs no filters */
		return;
	ck_assert_int_eq(forked(with_setup_denied), 0);
	ck_assert_int_eq(forked(with_register_denied), 0);
	ck_assert_int_eq(forked(with_enter_denied), 0);
}
END_TEST

static int with_enter_denied_later(void)
{
	struct loop *loop = NULL;
	struct peer peer;

	if (loop_new(LOOP_URING, &loop) < 0)
		return 0;
	peer_open(&peer, loop, &peer_ops);
	if (run_for(loop, 5) != -ETIME)
		return 1;
	if (deny(__NR_io_uring_enter) < 0)
		return 2;
	if (run_for(loop, 5) != -EPERM)
		return 3;
	loop_free(loop);
	close(peer.client);
	return 0;
}

START_TEST(a_sandbox_put_up_later_ends_the_run_with_its_error)
{
	ck_assert_int_eq(forked(with_enter_denied_later), 0);
}
END_TEST

START_TEST(the_loop_tells_its_back_end)
{
	struct loop *loop = begin(_i);

	if (!loop)
		return;
	ck_assert_str_eq(loop_backend_name(loop), _i ? "io_uring" : "epoll");
	ck_assert_ptr_null(loop_free(loop));
	ck_assert_ptr_null(loop_free(NULL));
	ck_assert_ptr_null(loop_conn_close(NULL));
	ck_assert_ptr_null(loop_unwatch(NULL));
	ck_assert_ptr_null(loop_unlisten(NULL));
	ck_assert_ptr_null(loop_timer_cancel(NULL));
}
END_TEST

static void add_both(TCase *tcase, const TTest *test)
{
	tcase_add_loop_test(tcase, test, 0, sizeof(backends) / sizeof(backends[0]));
}

static Suite *loop_suite(void)
{
	Suite *suite = suite_create("loop");
	TCase *tcase = tcase_create("both");

	add_both(tcase, the_loop_tells_its_back_end);
	add_both(tcase, packets_come_back_whole_from_an_echo);
	add_both(tcase, two_hundred_clients_are_served);
	add_both(tcase, a_thousand_packets_keep_their_order_through_a_full_socket);
	add_both(tcase, the_queue_is_bounded_in_records_and_bytes);
	add_both(tcase, a_client_that_reads_no_replies_is_not_read_from);
	add_both(tcase, an_fd_may_be_closed_right_after_sending_it);
	add_both(tcase, a_client_that_sends_an_fd_is_closed_and_the_fd_not_kept);
	add_both(tcase, clients_of_a_listener_cannot_send_fds);
	add_both(tcase, an_fd_that_lingers_does_not_stop_the_loop);
	add_both(tcase, a_packet_that_is_too_long_closes_the_connection);
	add_both(tcase, an_empty_packet_closes_the_connection);
	add_both(tcase, what_was_sent_before_the_client_left_still_arrives);
	add_both(tcase, no_packet_comes_twice_because_the_client_leaves);
	add_both(tcase, a_client_that_leaves_while_the_queue_is_full_is_noticed);
	add_both(tcase, a_connection_may_be_closed_in_its_own_callback);
	add_both(tcase, a_new_object_hears_nothing_of_the_one_before);
	add_both(tcase, freeing_a_loop_frees_what_is_still_open);
	add_both(tcase, a_process_that_dies_is_reported_once);
	add_both(tcase, another_thread_stops_the_loop_through_an_eventfd);
	add_both(tcase, a_watch_reports_as_long_as_the_fd_is_readable);
	add_both(tcase, timers_fire_in_order_and_cancelled_ones_never);
	add_both(tcase, endless_timers_and_deferred_calls_do_not_keep_events_out);
	add_both(tcase, an_idle_loop_uses_no_cpu);
	add_both(tcase, accepting_recovers_from_having_no_fds_without_spinning);
	suite_add_tcase(suite, tcase);

	tcase = tcase_create("refused");
	tcase_add_test(tcase, without_locked_memory_the_loop_runs_on_epoll);
	tcase_add_test(tcase, where_a_sandbox_denies_io_uring_the_loop_runs_on_epoll);
	tcase_add_test(tcase, a_sandbox_put_up_later_ends_the_run_with_its_error);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(loop_suite());
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
