/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_MAP_H
#define SHMB_LIB_MAP_H

/* Mappings of segments: exact, guarded, not inherited by children, not in core dumps. */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/protocol.h>

/**
 * struct shmb_map - one mapped segment
 * @base: first byte, NULL if nothing is mapped
 * @len:  bytes
 */
struct shmb_map {
	void *base;
	uint64_t len;
};

/**
 * shmb_map_reader() - map a received segment for reading
 * @map:	 filled
 * @fd:		 stays the caller's
 * @descriptor:	 that came with it; verified
 * @kind:	 SHMB_SEGMENT_* it must be
 *
 * Return: 0; -EPROTO: not what the descriptor says; -EBADMSG: not a segment of that kind, or of
 *	   another layout version or byte order; -ENOMEM; each with a sentence.
 */
int shmb_map_reader(struct shmb_map *map, int fd, const struct shmb_fd_descriptor *descriptor,
		    uint32_t kind);

/**
 * shmb_map_writer() - allocate and map a segment that this process will write
 * @map:	 filled
 * @fd:		 stays the caller's
 * @descriptor:	 that came with it; verified
 * @kind:	 SHMB_SEGMENT_* it must be
 *
 * All memory is allocated here, in pieces, so that a shortage is an error now and never a SIGBUS.
 *
 * Return: as shmb_map_reader(); -ENOSPC: no room in /dev/shm or in the memory control group.
 */
int shmb_map_writer(struct shmb_map *map, int fd, const struct shmb_fd_descriptor *descriptor,
		    uint32_t kind);

/**
 * shmb_map_arena() - shmb_map_writer() for an arena
 * @map:	filled
 * @fd:		stays the caller's
 * @descriptor: that came with it; verified
 * @limits:	say what kind of memory it is to be
 *
 * Return: as shmb_map_writer(); -EINVAL: there is no such NUMA node.
 */
int shmb_map_arena(struct shmb_map *map, int fd, const struct shmb_fd_descriptor *descriptor,
		   const struct shmb_block_limits *limits);

/* Is there a NUMA node of this number? Returns 0 or -EINVAL. */
int shmb_map_check_node(uint32_t node);

/* Unmaps what is mapped. */
void shmb_map_deinit(struct shmb_map *map);

#endif
