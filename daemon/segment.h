/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_SEGMENT_H
#define SHMB_DAEMON_SEGMENT_H

/*
 * Shared-memory objects: making, finding again, opening for others, removing. The broker maps only
 * what it writes itself (channels and the bells of clients); at what a client writes it looks with
 * read(2) and fstat(2).
 *
 * There are two backings, and nobody above this file cares which one a segment has. A POSIX object
 * has a name, by which a restarted broker finds it. A sealed one is a memfd that we hold open: it
 * can neither shrink nor grow, once its writer has mapped it nobody else can write it, and when the
 * writer has died one more seal proves that nobody can. It lasts as long as somebody has it: we,
 * the service manager's store, or whoever has mapped it.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/layout.h>

#include "daemon/opener.h"
#include "daemon/store.h"

#define SEGMENT_ALLOCATE (1u << 0) /* have all of its memory now */
#define SEGMENT_MAP	 (1u << 1) /* and map it for writing */

/**
 * struct segment_maker - what all segments of a broker share
 * @instance: of the broker
 * @opener:   opens for writing
 * @store:    keeps fds while we are not there; may be NULL
 */
struct segment_maker {
	uint64_t instance;
	struct opener *opener;
	struct store *store;
};

/**
 * struct segment_spec - what a segment is to be
 * @kind:     SHMB_SEGMENT_*
 * @backing:  SHMB_MEMORY_POSIX or _SEALED
 * @id:	      unique in the instance
 * @owner_id: of the object that owns it
 * @len:      bytes, a multiple of 4096
 * @flags:    SEGMENT_*
 */
struct segment_spec {
	uint32_t kind;
	uint32_t backing;
	uint64_t id;
	uint64_t owner_id;
	uint64_t len;
	unsigned flags;
};

/**
 * struct segment - one shared-memory object
 * @name: of the object, or "memfd:" and its inode; "" if there is none
 * @kind: SHMB_SEGMENT_*
 * @backing: SHMB_MEMORY_POSIX or _SEALED
 * @id:	  of the segment
 * @len:  bytes
 * @inode: so that another object under its name is noticed
 * @map:  NULL, or its bytes
 * @fd:	  sealed: the memfd
 * @seals: sealed: F_SEAL_* that it has
 * @store: sealed: keeps @fd
 * @instance: of the broker
 */
struct segment {
	char name[SHMB_SEGMENT_NAME_LEN_MAX];
	uint32_t kind;
	uint32_t backing;
	uint64_t id;
	uint64_t len;
	uint64_t inode;
	void *map;
	int fd;
	uint32_t seals;
	struct store *store;
	uint64_t instance;
};

static inline bool segment_exists(const struct segment *segment)
{
	return segment->name[0] != '\0';
}

/**
 * segment_create() - make one
 * @maker:   maker
 * @spec:    what it is to be
 * @segment: filled
 *
 * Return: 0; -ENOSPC, -ENOMEM, -EMFILE, -ENFILE, another negative errno value: nothing is left.
 */
int segment_create(const struct segment_maker *maker, const struct segment_spec *spec,
		   struct segment *segment);

/**
 * segment_adopt() - take over one that an earlier broker made
 * @maker:   maker
 * @name:    of the object, NUL-terminated
 * @spec:    what it must be; of its flags only SEGMENT_MAP counts
 * @segment: filled
 *
 * Return: 0; -ENOENT; -EINVAL: it is something else; another negative errno value: there is none.
 */
int segment_adopt(const struct segment_maker *maker, const char *name,
		  const struct segment_spec *spec, struct segment *segment);

/* An fd to read it, or a negative errno value. */
int segment_open_read(const struct segment *segment);

/* Copies bytes of a segment that somebody else writes. Returns 0 or a negative errno value. */
int segment_read(const struct segment *segment, void *to, size_t len, uint64_t offset);

/* An fd to write it that cannot truncate it (where the kernel can do that), or a negative errno. */
int segment_open_write(const struct segment_maker *maker, const struct segment *segment);

/* Does it still have its length, and memory for all of it? Returns 0, -ENOMEM or -EINVAL. */
int segment_check_allocated(const struct segment *segment);

/**
 * segment_restrict() - its one writer has mapped it: nobody else shall be able to
 * @segment: segment
 *
 * Return: 0, also where the backing or the kernel cannot do that; -EPERM: a hostile writer has
 *	   sealed the seals.
 */
int segment_restrict(struct segment *segment);

/**
 * segment_fence() - its writer has died: let its bytes be final
 * @segment: segment
 *
 * Return: 0: the kernel says that nobody can write it; -EBUSY: somebody has it mapped for writing;
 *	   -EPERM: a hostile writer has sealed the seals; -EOPNOTSUPP: the backing cannot do that.
 */
int segment_fence(struct segment *segment);

/* Takes it over, leaving @from without one. */
void segment_move(struct segment *segment, struct segment *from);

/*
 * One more hold on a sealed one, which is only let go of with segment_release(). Returns 0 or a
 * negative errno value.
 */
int segment_hold(struct segment *segment, const struct segment *of);

/* Unmaps it and lets go of it; the object stays, as far as it can. */
void segment_release(struct segment *segment);

/* As that, and it is not ours any more: whoever adopts it next finds it as it was. */
void segment_forget(struct segment *segment);

/* Lets go of it and removes it; those who have mapped it keep its memory. */
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
