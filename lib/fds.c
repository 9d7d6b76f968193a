/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/fds.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/error.h"
#include "lib/fd.h"
#include "lib/member.h"

/* A publisher that keeps to the rules cannot have more on their way; whoever sends more is not followed. */
#define LOOKS_MAX 1024u

union control {
	struct cmsghdr align;
	uint8_t bytes[CMSG_SPACE(SHMB_FDS_MAX * sizeof(int))];
};

static void drop(struct shmb_fds_ends *ends, uint32_t index)
{
	shmb_fd_close(ends->fds[index]);
	ends->n--;
	memmove(&ends->fds[index], &ends->fds[index + 1], (ends->n - index) * sizeof(ends->fds[0]));
}

/*
 * The oldest is the one that is used as long as it works, and the newest the next one if it does not. Of
 * those between the other may have some and not others, as it has heard of them later.
 */
static void append(struct shmb_fds_ends *ends, int fd)
{
	if (ends->n == SHMB_FDS_ENDS_MAX)
		drop(ends, 1);
	ends->fds[ends->n++] = fd;
}

void shmb_fds_add(struct shmb_fds_ends *ends, struct shmb_event *event)
{
	int index = shmb_event_find(event, SHMB_FD_ROLE_FDS);

	if (index < 0 || event->descriptors[index].kind != SHMB_FD_PACKETS ||
	    shmb_fd_verify(event->fds[index], &event->descriptors[index]) < 0)
		return;
	append(ends, event->fds[index]);
	event->fds[index] = -1;
}

void shmb_fds_append(struct shmb_fds_ends *to, struct shmb_fds_ends *from)
{
	for (uint32_t i = 0; i < from->n; i++)
		append(to, from->fds[i]);
	from->n = 0;
}

void shmb_fds_deinit(struct shmb_fds_ends *ends)
{
	while (ends->n)
		drop(ends, ends->n - 1);
}

/* ---- publisher ---------------------------------------------------------------------------------- */

bool shmb_fds_has_room(struct shmb_fds_ends *ends)
{
	while (ends->n) {
		struct pollfd look = { .fd = ends->fds[0], .events = POLLOUT };

		if (poll(&look, 1, 0) < 0)
			return false;
		if (!(look.revents & (POLLHUP | POLLERR)))
			return look.revents & POLLOUT;
		drop(ends, 0);
	}
	return false;
}

static int send_packet(int fd, const struct msghdr *message)
{
	ssize_t n;

	do
		n = sendmsg(fd, message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int shmb_fds_send(struct shmb_fds_ends *ends, uint64_t number, const int32_t *fds, uint32_t n_fds)
{
	struct shmb_fds_packet packet = { .number = number, .n_fds = n_fds };
	struct iovec iov = { .iov_base = &packet, .iov_len = sizeof(packet) };
	union control control = { 0 };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control.bytes,
				  .msg_controllen = CMSG_SPACE(n_fds * sizeof(int)) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	int result = -EPIPE;

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(head), fds, n_fds * sizeof(int));
	while (ends->n) {
		result = send_packet(ends->fds[0], &message);
		if (result != -EPIPE && result != -ECONNRESET)
			break;
		drop(ends, 0);
	}
	switch (result) {
	case -EPIPE: /* the broker brings another end, or word that it has gone */
	case -ECONNRESET:
	case -ETOOMANYREFS:
	case -ENOBUFS:
	case -ENOMEM:
		return -EAGAIN;
	default:
		return result;
	}
}

/* ---- subscriber --------------------------------------------------------------------------------- */

/* The packet that is next, without its fds. Returns its bytes; 0: there will be none; -EAGAIN: none. */
static ssize_t look(int fd, struct shmb_fds_packet *packet)
{
	ssize_t n;

	do
		n = recv(fd, packet, sizeof(*packet), MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN ? -EAGAIN : 0;
}

/* Without room for its fds the kernel opens none of them. */
static void discard(int fd)
{
	struct shmb_fds_packet packet;
	ssize_t n;

	do
		n = recv(fd, &packet, sizeof(packet), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
}

int shmb_fds_find(struct shmb_fds_ends *ends, uint64_t number)
{
	uint32_t i = 0, looks = 0;

	while (i < ends->n && looks++ < LOOKS_MAX) {
		struct shmb_fds_packet packet;
		ssize_t n = look(ends->fds[i], &packet);

		if (n == 0)
			drop(ends, i);
		else if (n < 0)
			i++;
		else if (n != sizeof(packet) || packet.number < number)
			discard(ends->fds[i]);
		else if (packet.number == number)
			return (int)i;
		else
			i++;
	}
	return -ENOENT;
}

static void close_all(const int32_t *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		shmb_fd_close(fds[i]);
}

/* Those that were opened, at most @cap. Whatever else comes along is none of ours. */
static uint32_t collect(struct msghdr *message, int32_t *fds, uint32_t cap)
{
	uint32_t n = 0;

	for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head;
	     head = CMSG_NXTHDR(message, head)) {
		const uint8_t *from = CMSG_DATA(head);

		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t len = head->cmsg_len - CMSG_LEN(0); len >= sizeof(int);
		     len -= sizeof(int), from += sizeof(int)) {
			int fd;

			memcpy(&fd, from, sizeof(fd));
			if (n < cap)
				fds[n++] = fd;
			else
				shmb_fd_close(fd);
		}
	}
	return n;
}

int shmb_fds_take(struct shmb_fds_ends *ends, uint32_t index, int32_t *fds, uint32_t n_fds)
{
	struct shmb_fds_packet packet = { 0 };
	struct iovec iov = { .iov_base = &packet, .iov_len = sizeof(packet) };
	union control control = { 0 };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control.bytes,
				  .msg_controllen = CMSG_LEN(n_fds * sizeof(int)) };
	int fd = ends->fds[index];
	int32_t opened[SHMB_FDS_MAX];
	uint32_t n;
	ssize_t len;

	/* Looked at first, so that what finds no room here is not gone. */
	do
		len = recvmsg(fd, &message, MSG_DONTWAIT | MSG_PEEK | MSG_CMSG_CLOEXEC);
	while (len < 0 && errno == EINTR);
	n = len < 0 ? 0 : collect(&message, opened, n_fds);
	/* Fewer than there was room for, and there were more: the kernel found no place for the rest. */
	if (len >= 0 && n < n_fds && message.msg_flags & MSG_CTRUNC) {
		close_all(opened, n);
		return shmb_fail(-EMFILE,
				 "no room for %u more file descriptors in this process: they stay "
				 "where they are",
				 n_fds);
	}
	discard(fd);
	if (n != n_fds || message.msg_flags & (MSG_CTRUNC | MSG_TRUNC) || packet.n_fds != n_fds) {
		close_all(opened, n);
		return shmb_fail(-EBADMSG,
				 "a record names %u file descriptors, and others came with it",
				 n_fds);
	}
	memcpy(fds, opened, n * sizeof(fds[0]));
	return 0;
}
