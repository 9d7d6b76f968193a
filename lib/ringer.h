/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_RINGER_H
#define SHMB_LIB_RINGER_H

/* Waking a peer that sleeps on an fd. */

#include <stdbool.h>
#include <stdint.h>

#include "lib/inbox.h"

/**
 * struct shmb_ringer_fd - an fd to wake a peer with
 * @fd:		fd
 * @kind:	SHMB_FD_EVENTFD or SHMB_FD_SOCKET
 * @generation: of the peer's doorbell that it rings
 */
struct shmb_ringer_fd {
	int fd;
	uint32_t kind;
	uint32_t generation;
};

/**
 * struct shmb_ringer - the fds to wake a peer with
 * @n:	 of @fds
 * @fds: oldest first; more than one only after a broker restart
 *
 * A restarted broker cannot find the doorbells of its predecessor, so it makes new ones. The peer
 * may be killed, or the broker again, before both sides have theirs. So each side says which
 * doorbell it listens to and which one it rings, and keeps the old ones until both words agree.
 */
struct shmb_ringer {
	uint32_t n;
	struct shmb_ringer_fd *fds;
};

/* Ring a peer that sleeps on an fd: system calls that never block. */
void shmb_ringer_ring(const struct shmb_ringer *ringer);

/* Takes the ringer out of a PAIR event. Without memory, or if it is none, the old one is kept. */
void shmb_ringer_add(struct shmb_ringer *ringer, struct shmb_event *event);

/* Forget the ringers older than that of @generation, if it is there. Returns the oldest in use. */
uint32_t shmb_ringer_settle(struct shmb_ringer *ringer, uint32_t generation);

/* Do the peers have different users, and the pair sockets of its own? */
static inline bool shmb_ringer_is_socket(const struct shmb_ringer *ringer)
{
	return ringer->n && ringer->fds[0].kind == SHMB_FD_SOCKET;
}

/* Forget the oldest one; there is one. */
void shmb_ringer_drop_oldest(struct shmb_ringer *ringer);

/*
 * Is the event's fd at @index what it is said to be, and something that can be rung? 0, or a negative errno
 * value with a sentence.
 */
int shmb_ringer_verify(const struct shmb_event *event, int index);

void shmb_ringer_deinit(struct shmb_ringer *ringer);

#endif
