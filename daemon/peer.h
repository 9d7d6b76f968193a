/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_PEER_H
#define SHMB_DAEMON_PEER_H

/* Which process is at the other end of a socket, and is it still that process? */

#include <stdbool.h>
#include <stdint.h>

/**
 * struct peer - credentials of a connection, as the kernel gave them when it was made
 * @uid:      user
 * @gid:      group
 * @pid:      for display and re-adoption; 0: not in our pid namespace
 * @pidfd:    readable when the process is dead
 * @start:    start time of the process, as in /proc/PID/stat; 0: unknown
 * @inode:    of the pidfd where pidfds have unique ones, else 0
 * @groups:   supplementary groups
 * @n_groups: length of @groups
 */
struct peer {
	uint32_t uid;
	uint32_t gid;
	uint32_t pid;
	int pidfd;
	uint64_t start;
	uint64_t inode;
	uint32_t *groups;
	uint32_t n_groups;
};

/**
 * peer_read() - who connected?
 * @fd:	  connected socket
 * @peer: filled; give to peer_deinit()
 *
 * Return: 0; -ESRCH: it is dead already; another negative errno value.
 */
int peer_read(int fd, struct peer *peer);

/**
 * peer_reopen() - find a process again
 * @pid:   its pid then
 * @start: its start time then
 * @inode: its pidfd's inode then, 0: unknown
 *
 * Return: a pidfd; -ESRCH: it is dead, whoever has its pid now; another negative errno value.
 */
int peer_reopen(uint32_t pid, uint64_t start, uint64_t inode);

/**
 * peer_identify() - what peer_reopen() needs to find a process again
 * @pid:       pid
 * @pidfd:     of the same process, which has not been waited for
 * @ret_start: stores its start time
 * @ret_inode: stores the inode of its pidfd, or 0
 *
 * Return: 0 or a negative errno value.
 */
int peer_identify(uint32_t pid, int pidfd, uint64_t *ret_start, uint64_t *ret_inode);

/* Has the process of a pidfd ended? */
bool peer_is_dead(int pidfd);

void peer_deinit(struct peer *peer);

#endif
