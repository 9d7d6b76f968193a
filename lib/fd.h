/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_FD_H
#define SHMB_LIB_FD_H

/* Closing, describing and checking file descriptors. */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/protocol.h>

/**
 * shmb_fd_close() - close an fd if there is one
 * @fd: or -1
 *
 * Return: -1, so that callers can write fd = shmb_fd_close(fd). errno is kept.
 */
int shmb_fd_close(int fd);

/**
 * shmb_fd_describe() - say what an fd is, for the one that will receive it
 * @fd:	       fd
 * @kind:      SHMB_FD_*
 * @access:    SHMB_FD_READ or SHMB_FD_READ_WRITE
 * @role:      SHMB_FD_ROLE_*
 * @segment_id: of a segment, else 0
 * @descriptor: filled
 *
 * Return: 0 or a negative errno value of fstat(2).
 */
int shmb_fd_describe(int fd, uint8_t kind, uint8_t access, uint16_t role, uint64_t segment_id,
		     struct shmb_fd_descriptor *descriptor);

/**
 * shmb_fd_verify() - is a received fd what its descriptor says?
 * @fd:		received
 * @descriptor: from the authenticated record it rode with
 *
 * Checks type, device and inode, owner (if this user namespace maps it), size, seals, access mode.
 *
 * Return: 0; -EPROTO with a sentence that says which check failed.
 */
int shmb_fd_verify(int fd, const struct shmb_fd_descriptor *descriptor);

/* Has a call failed for want of a file descriptor, and not because of the file? */
static inline bool shmb_fd_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/*
 * Does it say of the thing itself that it is gone, or not what it should be? Every other error may
 * be over a moment later, or be about the caller.
 */
static inline bool shmb_fd_conclusive(int error)
{
	return error == ENOENT || error == ESRCH || error == EINVAL || error == EEXIST;
}

#endif
