/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/fd.h"

#include "daemon/parcel.h"

int parcel_add_segment(struct parcel *parcel, const struct segment_maker *maker,
		       const struct segment *segment, uint8_t access, uint16_t role)
{
	unsigned i = parcel->n_fds;
	int fd, r;

	fd = access == SHMB_FD_READ ? segment_open_read(segment)
				    : segment_open_write(maker, segment);
	if (fd < 0)
		return fd;
	r = shmb_fd_describe(fd, SHMB_FD_SHM, access, role, segment->id, &parcel->descriptors[i]);
	if (r < 0) {
		shmb_fd_close(fd);
		return r;
	}
	/* What is announced is what was made, whatever a client has done to the file since. */
	parcel->descriptors[i].segment_len = segment->len;
	parcel->descriptors[i].required_seals = segment->seals;
	parcel->fds[i] = fd;
	parcel->owned[i] = true;
	parcel->n_fds++;
	return 0;
}

int parcel_add_fd(struct parcel *parcel, int fd, uint8_t kind, uint16_t role)
{
	unsigned i = parcel->n_fds;
	int r;

	r = shmb_fd_describe(fd, kind, SHMB_FD_READ_WRITE, role, 0, &parcel->descriptors[i]);
	if (r < 0)
		return r;
	parcel->fds[i] = fd;
	parcel->owned[i] = false;
	parcel->n_fds++;
	return 0;
}

void parcel_deinit(struct parcel *parcel)
{
	for (unsigned i = 0; i < parcel->n_fds; i++)
		if (parcel->owned[i])
			shmb_fd_close(parcel->fds[i]);
	parcel->n_fds = 0;
}
