/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_SEGMENT_H
#define SHMB_DAEMON_SEGMENT_H

/*
 * Shared-memory objects: making, finding again, opening for others, removing. The broker maps only
 * what it writes itself (channels and the bells of clients); at what a client writes it looks with
 * read(2) and fstat(2).
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/layout.h>

#include "daemon/opener.h"

#define SEGMENT_ALLOCATE (1u << 0) /* have all of its memory now */
#define SEGMENT_MAP	 (1u << 1) /* and map it for writing */

/**
 * struct segment_maker - what all segments of a broker share
 * @instance: of the broker
 * @opener:   opens for writing
 */
struct segment_maker {
	uint64_t instance;
	struct opener *opener;
};

/**
 * struct segment - one shared-memory object
 * @name: of the object, "" if there is none
 * @kind: SHMB_SEGMENT_*
 * @id:	  of the segment, and of what owns it
 * @len:  bytes
 * @inode: so that another object under its name is noticed
 * @map:  NULL, or its bytes
 */
struct segment {
	char name[SHMB_SEGMENT_NAME_LEN_MAX];
	uint32_t kind;
	uint64_t id;
	uint64_t len;
	uint64_t inode;
	void *map;
};

/**
 * segment_create() - make one
 * @maker:   maker
 * @kind:    SHMB_SEGMENT_*
 * @id:	     of the object that owns it
 * @len:     bytes, a multiple of 4096
 * @flags:   SEGMENT_*
 * @segment: filled
 *
 * Return: 0; -ENOSPC, -ENOMEM, -EMFILE, -ENFILE, another negative errno value: nothing is left.
 */
int segment_create(const struct segment_maker *maker, uint32_t kind, uint64_t id, uint64_t len,
		   unsigned flags, struct segment *segment);

/**
 * segment_adopt() - take over one that an earlier broker made
 * @maker:   maker
 * @name:    of the object, NUL-terminated
 * @kind:    what it must be
 * @id:	     whose it must be
 * @len:     how long it must be
 * @flags:   SEGMENT_MAP
 * @segment: filled
 *
 * Return: 0; -ENOENT; -EINVAL: it is something else; another negative errno value.
 */
int segment_adopt(const struct segment_maker *maker, const char *name, uint32_t kind, uint64_t id,
		  uint64_t len, unsigned flags, struct segment *segment);

/* An fd to read it, or a negative errno value. */
int segment_open_read(const struct segment *segment);

/* An fd to write it that cannot truncate it (where the kernel can do that), or a negative errno. */
int segment_open_write(const struct segment_maker *maker, const struct segment *segment);

/* Does it still have its length, and memory for all of it? Returns 0, -ENOMEM or -EINVAL. */
int segment_check_allocated(const struct segment *segment);

/* Unmaps it; the object stays. */
void segment_release(struct segment *segment);

/* Unmaps and removes it; those who have mapped it keep its memory. */
void segment_destroy(struct segment *segment);

/**
 * segment_allocate() - have memory for a part of a file
 * @fd:	    of a shared-memory object
 * @offset: where it begins
 * @len:    bytes
 *
 * Return: 0; -ENOSPC; -ENOMEM; another negative errno value.
 */
int segment_allocate(int fd, uint64_t offset, uint64_t len);

/* Maps the first @len bytes for writing; children of this process do not see it. NULL: no memory. */
void *segment_map(int fd, uint64_t len);

#endif
