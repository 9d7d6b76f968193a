/* SPDX-License-Identifier: Apache-2.0 */

/* The epoll back end of wait sets; also the only one whose fd a foreign event loop can poll. */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/api.h"
#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/poller.h"

static int epoll_open(struct shmb_poller *poller)
{
	poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (poller->epoll_fd < 0)
		return shmb_fail(-errno, "no epoll fd for a wait set: %s", strerror(errno));
	return 0;
}

static void epoll_close(struct shmb_poller *poller)
{
	poller->epoll_fd = shmb_fd_close(poller->epoll_fd);
}

static int epoll_add(struct shmb_poller *poller, int fd, uint32_t events, bool edge,
		     uint64_t cookie)
{
	struct epoll_event event = { .events = events | (edge ? (uint32_t)EPOLLET : 0),
				     .data.u64 = cookie };

	if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return shmb_fail(-errno, "fd %d cannot be in a wait set: %s", fd, strerror(errno));
	return 0;
}

static int epoll_remove(struct shmb_poller *poller, int fd, uint64_t cookie)
{
	(void)cookie;
	return epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0 ? -errno : 0;
}

static int epoll_wait_until(struct shmb_poller *poller, uint64_t *cookies, uint32_t *ready, int max,
			    uint64_t deadline_ns)
{
	struct epoll_event events[64];
	uint64_t left = deadline_ns ? shmb_clock_left_ns(deadline_ns, shmb_clock_now_ns()) : 0;
	struct __kernel_timespec timeout = shmb_clock_kernel_timespec(left);
	uint64_t ms = (left + 999999) / 1000000;
	int n = -1;

	if (max > (int)SHMB_ARRAY_LEN(events))
		max = SHMB_ARRAY_LEN(events);
	errno = ENOSYS;
#ifdef SYS_epoll_pwait2
	n = (int)syscall(SYS_epoll_pwait2, poller->epoll_fd, events, max, &timeout, NULL, 0);
#endif
	if (n < 0 && errno == ENOSYS)
		n = epoll_wait(poller->epoll_fd, events, max, ms > 1 << 30 ? 1 << 30 : (int)ms);
	for (int i = 0; i < n; i++) {
		cookies[i] = events[i].data.u64;
		ready[i] = events[i].events;
	}
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return n;
}

const struct shmb_poller_ops shmb_poller_epoll = {
	.name = "epoll",
	.open = epoll_open,
	.close = epoll_close,
	.add = epoll_add,
	.remove = epoll_remove,
	.wait = epoll_wait_until,
};
