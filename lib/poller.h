/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_POLLER_H
#define SHMB_LIB_POLLER_H

/*
 * Waiting for many fds, for wait sets: a small io_uring of multishot polls, or epoll. Both do the
 * same; the choice is made when the poller is opened, and a ring that the kernel refuses later is
 * replaced by epoll on the spot.
 */

#include <stdbool.h>
#include <stdint.h>

struct shmb_poller;

/**
 * struct shmb_poller_ops - one back end
 * @name:  as shown to users
 * @open:  returns 0, -ENOSYS or another negative errno value; the poller may be half made then
 * @close: of what open() made
 * @add:   @edge: report each change once; else as long as it lasts
 * @remove: the cookie is not reported any more
 * @wait:  fills cookies and poll(2) events; returns how many, 0 at the deadline, or an error
 */
struct shmb_poller_ops {
	const char *name;
	int (*open)(struct shmb_poller *poller);
	void (*close)(struct shmb_poller *poller);
	int (*add)(struct shmb_poller *poller, int fd, uint32_t events, bool edge, uint64_t cookie);
	int (*remove)(struct shmb_poller *poller, int fd, uint64_t cookie);
	int (*wait)(struct shmb_poller *poller, uint64_t *cookies, uint32_t *events, int max,
		    uint64_t deadline_ns);
};

/**
 * struct shmb_poller - embedded in a wait set
 * @ops:      back end
 * @epoll_fd: of the epoll back end, else -1
 * @ring:     of the io_uring back end
 */
struct shmb_poller {
	const struct shmb_poller_ops *ops;
	int epoll_fd;
	struct shmb_poller_ring *ring;
};

extern const struct shmb_poller_ops shmb_poller_epoll;
extern const struct shmb_poller_ops shmb_poller_uring; /* open() says -ENOSYS if not built in */

#endif
