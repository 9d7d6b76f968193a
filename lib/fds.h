/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_FDS_H
#define SHMB_LIB_FDS_H

/*
 * The sockets over which the fds that records carry go from a publisher to a subscriber: see struct
 * shmb_fds_packet. The broker gives each of the two an end of a socketpair, and another one whenever
 * one of them has come back to it, since it cannot know whether the one before has arrived.
 *
 * Neither need know which of its ends the other has got. The publisher uses the oldest that works: one
 * whose other end nobody has any more says so. The subscriber looks at all of its own.
 */

#include <stdbool.h>
#include <stdint.h>

#include "lib/client.h"

#define SHMB_FDS_ENDS_MAX 4u

/**
 * struct shmb_fds_ends - our ends of these sockets
 * @n:	 of @fds
 * @fds: oldest first
 */
struct shmb_fds_ends {
	uint32_t n;
	int fds[SHMB_FDS_ENDS_MAX];
};

/* Takes the end out of a PAIR event. If there is none, or it is no such socket, nothing happens. */
void shmb_fds_add(struct shmb_fds_ends *ends, struct shmb_event *event);

/* All of @from go behind those of @to. */
void shmb_fds_append(struct shmb_fds_ends *to, struct shmb_fds_ends *from);

void shmb_fds_deinit(struct shmb_fds_ends *ends);

/* ---- publisher ---------------------------------------------------------------------------------- */

/* Has the subscriber taken enough of what was sent that a packet will find room? */
bool shmb_fds_has_room(struct shmb_fds_ends *ends);

/**
 * shmb_fds_send() - send one packet
 * @ends:   ends; those that nobody listens to any more are closed
 * @number: of the packet
 * @fds:    @n_fds of them
 * @n_fds:  1 to SHMB_FDS_MAX
 *
 * Context: one system call, which does not block.
 * Return: 0; -EAGAIN: no room, too many fds on their way, no memory, or nobody listens; -EBADF; -EINVAL;
 *	   another negative errno value.
 */
int shmb_fds_send(struct shmb_fds_ends *ends, uint64_t number, const int32_t *fds, uint32_t n_fds);

/* ---- subscriber --------------------------------------------------------------------------------- */

/**
 * shmb_fds_find() - find a packet
 * @ends:   ends; those that nobody writes to any more are closed once they are empty
 * @number: of the packet. Those with lower ones are taken off, and their fds never opened
 *
 * Return: the index of the end where it is next, or -ENOENT.
 */
int shmb_fds_find(struct shmb_fds_ends *ends, uint64_t number);

/**
 * shmb_fds_take() - open the fds of the packet that is next
 * @ends:  ends
 * @index: as shmb_fds_find() has said
 * @fds:   room for @n_fds
 * @n_fds: so many must ride with it, at most SHMB_FDS_MAX
 *
 * Return: 0; -EMFILE: no room for them, they are still there; -EBADMSG: it was something else, and is
 *	   gone. If it fails, nothing was opened.
 */
int shmb_fds_take(struct shmb_fds_ends *ends, uint32_t index, int32_t *fds, uint32_t n_fds);

#endif
