/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_PARCEL_H
#define SHMB_DAEMON_PARCEL_H

/* The fds that ride with one message, each with its description. */

#include <shmbroker/protocol.h>

#include "daemon/segment.h"

/**
 * struct parcel - fds for one message
 * @fds:	 fds
 * @owned:	 which of them parcel_deinit() closes
 * @descriptors: what they are
 * @n_fds:	 how many
 */
struct parcel {
	int fds[SHMB_PACKET_FDS_MAX];
	bool owned[SHMB_PACKET_FDS_MAX];
	struct shmb_fd_descriptor descriptors[SHMB_PACKET_FDS_MAX];
	unsigned n_fds;
};

/**
 * parcel_add_segment() - add a segment
 * @parcel:  zeroed at first
 * @maker:   maker
 * @segment: segment
 * @access:  SHMB_FD_READ or SHMB_FD_READ_WRITE
 * @role:    SHMB_FD_ROLE_*
 *
 * Return: 0 or a negative errno value.
 */
int parcel_add_segment(struct parcel *parcel, const struct segment_maker *maker,
		       const struct segment *segment, uint8_t access, uint16_t role);

/* Adds an fd that stays the caller's. Returns 0 or a negative errno value. */
int parcel_add_fd(struct parcel *parcel, int fd, uint8_t kind, uint16_t role);

void parcel_deinit(struct parcel *parcel);

#endif
