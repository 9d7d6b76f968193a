/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The client's control connection. Packets are checked before they mean anything: lengths, then
 * the seal, then that exactly the fds came that the sealed record announces. A connection that has
 * failed once is never used again; client-connect.c opens a new one.
 */

#include "lib/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <shmbroker/version.h>

#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"

#ifndef PIDFS_MAGIC
#define PIDFS_MAGIC 0x50494446 /* Linux 6.9 */
#endif

/* A process closes its sockets a moment before it is dead, which is longer where many want to run. */
#define DYING_MS	 10
#define DYING_MS_PATIENT 200

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* A killed broker's socket goes on accepting until the kernel has torn its io_uring down. */
static bool listener_is_dead(int pidfd, int wait_ms)
{
	struct pollfd entry = { .fd = pidfd, .events = POLLIN };

	return pidfd >= 0 && poll(&entry, 1, wait_ms) == 1;
}

/* The other end is closed. Did its process end, or does it live and not want us? */
static int gone(struct shmb_connection *connection, uint64_t deadline_ns)
{
	int wait_ms = connection->patient ? DYING_MS_PATIENT : DYING_MS;

	connection->died = listener_is_dead(connection->listener, deadline_ns ? wait_ms : 0);
	return shmb_fail(-ENOTCONN, connection->died ? "the broker has died"
						     : "the broker has closed the connection");
}

/*
 * Wait until the socket is ready, or the broker has died: the kernel may take tens of milliseconds
 * to tell us so through the socket, while it tears down the broker's io_uring. Returns 0, -EAGAIN at
 * the deadline, -ENOTCONN.
 */
static int wait_ready(struct shmb_connection *connection, short events, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd entries[] = { { .fd = connection->fd, .events = events },
					    { .fd = connection->listener, .events = POLLIN } };
		uint64_t now = deadline_ns ? shmb_clock_now_ns() : 0;
		uint64_t left = shmb_clock_left_ns(deadline_ns, now);
		struct timespec timeout = shmb_clock_timespec(left);
		int n;

		/* The socket may call itself ready, and still not take or give what we want. */
		if (left == 0)
			return -EAGAIN;
		n = ppoll(entries, 2, deadline_ns == UINT64_MAX ? NULL : &timeout, NULL);
		if (n > 0 && entries[0].revents)
			return 0;
		if (n > 0)
			return gone(connection, deadline_ns);
		if (n == 0 || errno != EINTR)
			return -EAGAIN;
	}
}

/* connect(2) says the same of a socket that was left behind and of what never was one. */
static bool is_socket(const char *path)
{
	struct stat status;

	return stat(path, &status) < 0 || S_ISSOCK(status.st_mode);
}

static int connect_socket(const char *address, uint64_t deadline_ns)
{
	struct sockaddr_un peer = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(address) >= sizeof(peer.sun_path))
		return shmb_fail(-ENAMETOOLONG, "%s: longer than the %zu bytes of a socket path",
				 address, sizeof(peer.sun_path) - 1);
	strcpy(peer.sun_path, address);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return shmb_fail(-errno, "cannot make a socket: %s", strerror(errno));
	while (connect(fd, (struct sockaddr *)&peer, sizeof(peer)) < 0) {
		int result = -errno;
		struct timespec pause = { .tv_nsec = 1000000 };

		if (result == -EINTR)
			continue;
		/* The queue of a busy broker is full: there is nothing to poll for. */
		if (result == -EAGAIN && shmb_clock_now_ns() < deadline_ns) {
			nanosleep(&pause, NULL);
			continue;
		}
		shmb_fd_close(fd);
		if (result == -EAGAIN)
			result = -ETIMEDOUT;
		if (result == -EPROTOTYPE)
			return shmb_fail(-ECONNREFUSED, "%s: not a broker's socket", address);
		if (result == -ECONNREFUSED)
			return shmb_fail(result, "%s: %s", address,
					 is_socket(address) ? "nobody listens there"
							    : "not a socket");
		return shmb_fail(result, "%s: %s", address, strerror(-result));
	}
	return fd;
}

/* The process that listens, as a pidfd; -1 if this pid namespace does not know it. */
static int listener_of(int fd)
{
	struct ucred listener = { 0 };
	socklen_t len = sizeof(int);
	int pidfd = -1;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0)
		return pidfd;
	len = sizeof(listener);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &listener, &len) < 0 || listener.pid <= 0)
		return -1;
	return (int)syscall(SYS_pidfd_open, listener.pid, 0);
}

static uint64_t own_pidfd_inode(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct statfs fs;
	struct stat status;
	uint64_t inode = 0;

	/* Before pidfs all pidfds had one inode, which identifies nobody. */
	if (fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == PIDFS_MAGIC && fstat(fd, &status) == 0)
		inode = status.st_ino;
	shmb_fd_close(fd);
	return inode;
}

/* Is it us the broker sees, or somebody who relays our packets? */
static int check_peer_view(const struct shmb_handshake_2_payload *broker,
			   const struct shmb_handshake_1_payload *own)
{
	if (own->own_pidfd_inode && broker->peer_pidfd_inode) {
		if (own->own_pidfd_inode == broker->peer_pidfd_inode)
			return 0;
		return shmb_fail(-EKEYREJECTED, "the broker sees another process than this one: "
						"somebody relays the connection");
	}
	if (broker->peer_pid == own->own_pid && broker->peer_uid == own->own_uid)
		return 0;
	return shmb_fail(-EKEYREJECTED,
			 "the broker sees pid %u of uid %u, this is pid %u of uid %u",
			 broker->peer_pid, broker->peer_uid, own->own_pid, own->own_uid);
}

static int send_packet(struct shmb_connection *connection, const void *packet, size_t len,
		       uint64_t deadline_ns)
{
	for (;;) {
		int result;

		if (send(connection->fd, packet, len, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
			return 0;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return gone(connection, deadline_ns);
		result = wait_ready(connection, POLLOUT, deadline_ns);
		if (result == -EAGAIN)
			return shmb_fail(-ETIMEDOUT, "the broker does not read");
		if (result < 0)
			return result;
	}
}

/* Were the fds lost because we have no room, or because there were more than any packet has? */
static bool no_fd_left(int fd)
{
	int probe = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	shmb_fd_close(probe);
	return probe < 0;
}

/* One packet and the fds with it. Returns its length, or as shmb_connection_receive(). */
static int receive_packet(struct shmb_connection *connection, int *fds, uint32_t *ret_n_fds,
			  uint64_t deadline_ns)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * SHMB_PACKET_FDS_MAX)];
	} control;
	struct iovec data = { connection->packet, sizeof(connection->packet) };
	struct msghdr header = { .msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = control.room,
				 .msg_controllen = sizeof(control.room) };
	bool truncated;
	ssize_t len;
	int result;

	*ret_n_fds = 0;
	for (;;) {
		len = recvmsg(connection->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (len >= 0)
			break;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return gone(connection, deadline_ns);
		if (!deadline_ns)
			return -EAGAIN;
		result = wait_ready(connection, POLLIN, deadline_ns);
		if (result < 0)
			return result;
	}
	truncated = header.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
			int fd;

			memcpy(&fd, (char *)c + at, sizeof(fd));
			if (*ret_n_fds < SHMB_PACKET_FDS_MAX)
				fds[(*ret_n_fds)++] = fd;
			else
				shmb_fd_close(fd);
		}
	}
	if (len == 0)
		return gone(connection, deadline_ns);
	if (truncated && no_fd_left(connection->fd))
		return shmb_fail(-EMFILE, "no file descriptor is free for what the broker sent");
	if (truncated)
		return shmb_fail(-EPROTO, "a packet or its fds did not arrive whole");
	return (int)len;
}

static struct shmb_handshake_1_payload own_payload(const char *label)
{
	struct shmb_handshake_1_payload payload = {
		.library_version = SHMB_ABI_VERSION,
		.own_pidfd_inode = own_pidfd_inode(),
		.own_uid = getuid(),
		.own_pid = (uint32_t)getpid(),
	};

	memcpy(payload.label, label, strnlen(label, sizeof(payload.label)));
	return payload;
}

/*
 * A broker closes without a word on whoever it does not let in, or a key it does not hold; on some
 * before they have said anything.
 */
static int hung_up(const struct shmb_connection *connection)
{
	if (connection->died)
		return shmb_fail(-ENOTCONN, "the broker died while it was connected to");
	return shmb_fail(-EKEYREJECTED, "the broker refused the connection: it has another key "
					"than its broker.pub says, or this user or key is not "
					"let in, or it is too busy");
}

static int say_hello(struct shmb_connection *connection, const struct shmb_noise_keypair *own,
		     const uint8_t *broker_key, const char *label, uint64_t deadline_ns)
{
	struct shmb_handshake_1_payload payload = own_payload(label);
	struct shmb_handshake_1 first;
	int result;

	result = shmb_session_connect(&connection->session, own, broker_key, &payload, &first);
	if (result == 0)
		result = send_packet(connection, &first, sizeof(first), deadline_ns);
	return result == -ENOTCONN ? hung_up(connection) : result;
}

static int hear_answer(struct shmb_connection *connection, int allow_relay, uint64_t deadline_ns)
{
	struct shmb_handshake_1_payload payload = own_payload("");
	struct shmb_msg_ready ready = { 0 };
	int fds[SHMB_PACKET_FDS_MAX];
	uint32_t n_fds;
	int result;

	result = receive_packet(connection, fds, &n_fds, deadline_ns);
	for (uint32_t i = 0; i < n_fds; i++)
		shmb_fd_close(fds[i]);
	if (result == -EAGAIN)
		return result;
	if (result == -ENOTCONN)
		return hung_up(connection);
	if (result < 0)
		return result;
	result = shmb_session_connected(&connection->session, connection->packet, (uint32_t)result,
					&connection->broker);
	if (result == 0 && !allow_relay)
		result = check_peer_view(&connection->broker, &payload);
	if (result < 0)
		return result;
	ready.session_id = connection->broker.session_id;
	return shmb_connection_send(connection, SHMB_MSG_READY, 0, &ready, sizeof(ready),
				    deadline_ns);
}

int shmb_connection_rouse(const char *address, uint64_t deadline_ns)
{
	return connect_socket(address, deadline_ns);
}

static void note_socket(struct shmb_connection *connection, const char *address)
{
	struct stat status;
	bool known = stat(address, &status) == 0;

	connection->socket_dev = known ? status.st_dev : 0;
	connection->socket_inode = known ? status.st_ino : 0;
}

bool shmb_connection_is_elsewhere(const struct shmb_connection *connection, const char *address)
{
	struct stat status;

	return connection->socket_inode && stat(address, &status) == 0 &&
	       S_ISSOCK(status.st_mode) &&
	       (status.st_ino != connection->socket_inode ||
		status.st_dev != connection->socket_dev);
}

int shmb_connection_begin(struct shmb_connection *connection, const char *address,
			  const struct shmb_noise_keypair *own,
			  const uint8_t broker_key[SHMB_KEY_LEN], const char *label,
			  uint64_t deadline_ns)
{
	int result;

	memset(&connection->session, 0, sizeof(connection->session));
	connection->fd = -1;
	connection->listener = -1;
	connection->died = false;
	/* Before: if it is another one by then, we look again in vain once. */
	note_socket(connection, address);
	result = connect_socket(address, deadline_ns);
	if (result < 0)
		return result;
	connection->fd = result;
	connection->listener = listener_of(connection->fd);
	if (listener_is_dead(connection->listener, 0)) {
		shmb_connection_close(connection);
		return shmb_fail(-ECONNREFUSED, "%s: the broker that listened there is dead",
				 address);
	}
	result = say_hello(connection, own, broker_key, label, deadline_ns);
	if (result < 0)
		shmb_connection_close(connection);
	return result;
}

int shmb_connection_finish(struct shmb_connection *connection, int allow_relay,
			   uint64_t deadline_ns)
{
	int result = hear_answer(connection, allow_relay, deadline_ns);

	if (result < 0 && result != -EAGAIN)
		shmb_connection_close(connection);
	return result;
}

int shmb_connection_send(struct shmb_connection *connection, uint32_t type, uint32_t request_id,
			 const void *body, uint32_t body_len, uint64_t deadline_ns)
{
	struct shmb_message message = {
		.type = type, .request_id = request_id, .body = body, .body_len = body_len
	};
	int len = shmb_session_seal(&connection->session, &message, connection->packet);

	if (len < 0)
		return shmb_fail(len, "cannot seal a message of %u bytes", body_len);
	return send_packet(connection, connection->packet, (size_t)len, deadline_ns);
}

int shmb_connection_receive(struct shmb_connection *connection, struct shmb_received *received,
			    uint64_t deadline_ns)
{
	uint32_t n_fds;
	int result;

	memset(received->fds, -1, sizeof(received->fds));
	result = receive_packet(connection, received->fds, &n_fds, deadline_ns);
	if (result >= 0) {
		result = shmb_session_open(&connection->session, connection->packet,
					   (uint32_t)result, connection->plain, &received->message);
		if (result < 0)
			shmb_fail(result, "the broker sent a packet that is not authentic");
		else if (received->message.fd_count != n_fds)
			result = shmb_fail(-EPROTO, "the broker announced %u fds, %u came",
					   received->message.fd_count, n_fds);
	}
	if (result < 0)
		shmb_received_deinit(received);
	return result;
}

void shmb_received_deinit(struct shmb_received *received)
{
	for (size_t i = 0; i < SHMB_PACKET_FDS_MAX; i++)
		received->fds[i] = shmb_fd_close(received->fds[i]);
}

void shmb_connection_close(struct shmb_connection *connection)
{
	shmb_session_deinit(&connection->session);
	connection->fd = shmb_fd_close(connection->fd);
	connection->listener = shmb_fd_close(connection->listener);
}

bool shmb_connection_is_dead(const struct shmb_connection *connection)
{
	return listener_is_dead(connection->listener, 0);
}

bool shmb_connection_is_over(const struct shmb_connection *connection)
{
	struct pollfd entry = { .fd = connection->fd };

	return shmb_connection_is_dead(connection) ||
	       (poll(&entry, 1, 0) == 1 && entry.revents & (POLLHUP | POLLERR));
}
