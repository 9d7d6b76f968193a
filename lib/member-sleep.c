/* SPDX-License-Identifier: Apache-2.0 */

/* Sleeping on fds: the doorbells, the control socket, and what another thread has heard of the broker. */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/error.h"
#include "lib/member-internal.h"

#define COOKIE_CONTROL UINT64_MAX
#define COOKIE_INBOX   (UINT64_MAX - 1)

/* The control socket is another one after each reconnection; its old fd left the set by itself. */
static void watch_control(struct shmb_member *member)
{
	struct shmb_client *client = member->client;

	pthread_mutex_lock(&client->lock);
	if (client->connected && member->epoll_connections != client->connections &&
	    shmb_member_watch(member, client->connection.fd, COOKIE_CONTROL))
		member->epoll_connections = client->connections;
	pthread_mutex_unlock(&client->lock);
}

/* Those that are watched already stay so. */
static void watch_doorbells(struct shmb_member *member)
{
	member->watch_error = 0;
	for (uint32_t i = 0; i < member->n_doorbells; i++)
		shmb_member_watch(member, member->doorbells[i].fd,
				  (uint64_t)member->doorbells[i].fd);
}

int shmb_member_epoll(struct shmb_member *member)
{
	if (member->epoll_fd < 0) {
		member->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
		if (member->epoll_fd < 0)
			return shmb_fail(-errno, "no epoll fd to sleep on: %s", strerror(errno));
		watch_doorbells(member);
		member->epoll_connections = 0;
	} else if (member->watch_error) {
		watch_doorbells(member);
	}
	if (__atomic_load_n(&member->client->connections, __ATOMIC_RELAXED) !=
	    member->epoll_connections)
		watch_control(member);
	if (member->watch_error)
		return shmb_fail(-member->watch_error, "a doorbell cannot be slept on: %s",
				 strerror(member->watch_error));
	return member->epoll_fd;
}

int shmb_member_poll_fd(struct shmb_member *member)
{
	int fd = member->inbox.wake_fd < 0 ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;
	int result;

	if (fd < 0 && member->inbox.wake_fd < 0)
		return shmb_fail(-errno, "no eventfd to be told by: %s", strerror(errno));
	if (fd >= 0) {
		pthread_mutex_lock(&member->client->lock);
		member->inbox.wake_fd = fd;
		pthread_mutex_unlock(&member->client->lock);
	}
	result = shmb_member_epoll(member);
	if (result >= 0 && !shmb_member_watch(member, member->inbox.wake_fd, COOKIE_INBOX))
		return shmb_fail(-member->watch_error, "an inbox cannot be slept on: %s",
				 strerror(member->watch_error));
	return result;
}

static int wait_events(int epoll_fd, struct epoll_event *events, int max, uint64_t left_ns)
{
	struct __kernel_timespec timeout = shmb_clock_kernel_timespec(left_ns);
	uint64_t ms = (left_ns + 999999) / 1000000;
	int n = -1;

#ifdef SYS_epoll_pwait2
	n = (int)syscall(SYS_epoll_pwait2, epoll_fd, events, max, &timeout, NULL, 0);
	if (n >= 0 || errno != ENOSYS)
		return n;
#endif
	return epoll_wait(epoll_fd, events, max, ms > 1 << 30 ? 1 << 30 : (int)ms);
}

int shmb_member_sleep(struct shmb_member *member, uint64_t deadline_ns)
{
	struct epoll_event events[8];
	uint64_t now, retry_at;
	int n, fd = shmb_member_epoll(member);
	bool control = false, retry = false;

	if (fd < 0)
		return fd;
	retry_at = shmb_client_retry_at_ns(member->client);
	now = deadline_ns ? shmb_clock_now_ns() : 0;
	if (deadline_ns > retry_at) {
		retry = true;
		deadline_ns = retry_at > now ? retry_at : now;
	}
	n = wait_events(fd, events, SHMB_ARRAY_LEN(events), shmb_clock_left_ns(deadline_ns, now));
	for (int i = 0; i < n; i++)
		control |= events[i].data.u64 >= COOKIE_INBOX;
	shmb_member_drain_doorbells(member);
	/* The broker speaks, or has gone, or it is time to look for a new one. */
	if (control || retry_at != UINT64_MAX)
		shmb_member_sync(member);
	/* Before the caller arms what came with it. */
	if (member->watch_error && shmb_member_epoll(member) < 0)
		return -member->watch_error;
	/* Time to look for a broker is not the caller's deadline, at which it would suspect a loss. */
	return n > 0 || retry;
}
