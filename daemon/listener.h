/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_LISTENER_H
#define SHMB_DAEMON_LISTENER_H

/* The socket that clients connect to. */

#include <stdbool.h>
#include <stdint.h>

/**
 * listener_open() - make a socket that listens at a path
 * @path: replaced if there is something, so the caller holds the lock of its directory
 * @mode: permissions
 * @replace: also if somebody answers there
 * @gate: asked before the socket gets its name: is the place still the caller's?
 * @data: for @gate
 *
 * Return: the socket; -ENAMETOOLONG; -ESTALE: it is not; another negative errno value; with a
 *	   sentence.
 */
int listener_open(const char *path, uint32_t mode, bool replace, bool (*gate)(void *data),
		  void *data);

/* Is this a listening local SOCK_SEQPACKET socket, as inherited? Returns 0 or -EINVAL. */
int listener_check(int fd);

#endif
