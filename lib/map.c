/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Mapping of received segments. Nothing is mapped before its fd has been verified against the
 * authenticated descriptor, and the header is looked at only then. A guard page stands on each
 * side, so that running off a segment faults instead of reading a neighbour.
 */

#include "lib/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <shmbroker/ring.h>
#include <shmbroker/version.h>

#include "lib/control-group.h"
#include "lib/error.h"
#include "lib/fd.h"

#define PIECE_LEN (16ull << 20) /* a fallocate of more could not be interrupted for long */

#define SMALL_LEN (256ull << 10) /* not worth asking the control group for */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

static const char *const kind_names[] = { "?",	    "registry", "channel", "lane",
					  "cursor", "bell",	"arena" };

static int check_header(const struct shmb_map *map, uint32_t kind,
			const struct shmb_fd_descriptor *descriptor)
{
	const struct shmb_segment_header *header = map->base;
	uint32_t version = SHMB_LOAD(&header->version);

	if (SHMB_LOAD(&header->byte_order) != SHMB_BYTE_ORDER)
		return shmb_fail(-EBADMSG, "the segment was made with another byte order");
	if (SHMB_LOAD(&header->magic) != SHMB_SEGMENT_MAGIC)
		return shmb_fail(-EBADMSG, "not a shmbroker segment");
	if (version != SHMB_LAYOUT_VERSION)
		return shmb_fail(-EBADMSG, "the segment has layout version %u, this library %u",
				 version, SHMB_LAYOUT_VERSION);
	if (SHMB_LOAD(&header->kind) != kind ||
	    SHMB_LOAD(&header->segment_len) != descriptor->segment_len ||
	    SHMB_LOAD(&header->segment_id) != descriptor->segment_id)
		return shmb_fail(-EBADMSG, "the segment is not the %s that was granted",
				 kind_names[kind]);
	return 0;
}

/* A 32-bit process can be asked for more than it can address. */
static uint8_t *reserve(uint64_t whole, uint64_t len)
{
	void *room = MAP_FAILED;

	if (whole <= SIZE_MAX)
		room = mmap(NULL, (size_t)whole, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room != MAP_FAILED)
		return room;
	/* With mlockall(MCL_FUTURE); whoever may lock more can try again. */
	if (errno == EAGAIN) {
		shmb_fail(-ENOMEM,
			  "RLIMIT_MEMLOCK does not let a segment of %llu bytes be locked in memory",
			  (unsigned long long)len);
		return NULL;
	}
	shmb_fail(-ENOMEM, "no address space for a segment of %llu bytes in this %zu-bit process",
		  (unsigned long long)len, sizeof(void *) * 8);
	return NULL;
}

/* One reservation with guard pages, the segment in the middle of it. */
static int map_fd(struct shmb_map *map, int fd, uint64_t len, int protection)
{
	uint64_t guard = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t whole = (len + guard - 1) / guard * guard + 2 * guard;
	uint8_t *room = reserve(whole, len);

	if (!room)
		return -ENOMEM;
	if (mmap(room + guard, len, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		int result = shmb_fail(-errno, "cannot map a segment of %llu bytes: %s",
				       (unsigned long long)len, strerror(errno));

		munmap(room, whole);
		return result;
	}
	/* Children and core dumps have no business with it. */
	madvise(room, whole, MADV_DONTFORK);
	madvise(room + guard, len, MADV_DONTDUMP);
	map->base = room + guard;
	map->len = len;
	return 0;
}

void shmb_map_deinit(struct shmb_map *map)
{
	uint64_t guard = (uint64_t)sysconf(_SC_PAGESIZE);

	if (!map->base)
		return;
	munmap((uint8_t *)map->base - guard, (map->len + guard - 1) / guard * guard + 2 * guard);
	map->base = NULL;
	map->len = 0;
}

/* Nothing but its address space is taken yet. */
static int map_empty(struct shmb_map *map, int fd, const struct shmb_fd_descriptor *descriptor,
		     uint32_t kind, int protection)
{
	int result;

	map->base = NULL;
	map->len = 0;
	if (descriptor->segment_len < SHMB_BLOCK_LEN)
		return shmb_fail(-EPROTO, "a %s of %llu bytes is too short", kind_names[kind],
				 (unsigned long long)descriptor->segment_len);
	result = shmb_fd_verify(fd, descriptor);
	return result < 0 ? result : map_fd(map, fd, descriptor->segment_len, protection);
}

static int map_segment(struct shmb_map *map, int fd, const struct shmb_fd_descriptor *descriptor,
		       uint32_t kind, int protection)
{
	int result = map_empty(map, fd, descriptor, kind, protection);

	if (result < 0)
		return result;
	/* Faults taken now are not taken in the middle of a stream. Where it fails, they come later. */
	madvise(map->base, map->len,
		protection & PROT_WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
	result = check_header(map, kind, descriptor);
	if (result < 0)
		shmb_map_deinit(map);
	return result;
}

int shmb_map_reader(struct shmb_map *map, int fd, const struct shmb_fd_descriptor *descriptor,
		    uint32_t kind)
{
	/* Somebody else's memory that we could write comes only from a publisher that trusts us. */
	int trusted = kind == SHMB_SEGMENT_LANE && descriptor->access == SHMB_FD_READ_WRITE;

	return map_segment(map, fd, descriptor, kind, trusted ? PROT_READ | PROT_WRITE : PROT_READ);
}

/* A file-size limit would send SIGXFSZ, which by default kills the process we live in. */
static int check_room(uint64_t len)
{
	struct rlimit limit;
	uint64_t room = len > SMALL_LEN ? shmb_control_group_room() : UINT64_MAX;

	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
	    limit.rlim_cur < len)
		return shmb_fail(-EFBIG, "RLIMIT_FSIZE allows %llu bytes, the segment needs %llu",
				 (unsigned long long)limit.rlim_cur, (unsigned long long)len);
	if (room < len)
		return shmb_fail(-ENOSPC,
				 "the memory control group has %llu bytes left, the segment "
				 "needs %llu",
				 (unsigned long long)room, (unsigned long long)len);
	return 0;
}

static int allocate(int fd, uint64_t len)
{
	int result = check_room(len);

	for (uint64_t at = 0; result == 0 && at < len; at += PIECE_LEN) {
		uint64_t piece = len - at < PIECE_LEN ? len - at : PIECE_LEN;

		do
			result = fallocate(fd, 0, (off_t)at, (off_t)piece) < 0 ? -errno : 0;
		while (result == -EINTR);
		if (result == -ENOSPC || result == -ENOMEM)
			return shmb_fail(-ENOSPC, "no room in /dev/shm for a segment of %llu bytes",
					 (unsigned long long)len);
		if (result < 0)
			return shmb_fail(result, "cannot allocate a segment of %llu bytes: %s",
					 (unsigned long long)len, strerror(-result));
	}
	return result;
}

int shmb_map_writer(struct shmb_map *map, int fd, const struct shmb_fd_descriptor *descriptor,
		    uint32_t kind)
{
	int result = shmb_fd_verify(fd, descriptor);

	map->base = NULL;
	map->len = 0;
	if (result == 0)
		result = allocate(fd, descriptor->segment_len);
	if (result < 0)
		return result;
	return map_segment(map, fd, descriptor, kind, PROT_READ | PROT_WRITE);
}

/* ---- arenas ------------------------------------------------------------------------------------ */

#ifndef MPOL_PREFERRED
#define MPOL_PREFERRED 1
#endif

static bool node_is_there(uint32_t node)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%u", node);
	return access(path, F_OK) == 0;
}

int shmb_map_check_node(uint32_t node)
{
	/* Without NUMA there is one. */
	if (node_is_there(node) || (node == 0 && !node_is_there(1)))
		return 0;
	return shmb_fail(-EINVAL, "there is no NUMA node %u", node);
}

/* Before any of it is allocated. The kernel keeps this with the object, whoever maps it. */
static int set_node(const struct shmb_map *map, uint32_t node)
{
	unsigned long mask[(SHMB_ARENA_NUMA_NODE_MAX + 1) / (8 * sizeof(unsigned long)) + 1] = {
		0
	};
	const size_t bits = 8 * sizeof(mask[0]);
	int result = shmb_map_check_node(node);

	if (result < 0)
		return result;
	mask[node / bits] |= 1ul << node % bits;
	if (syscall(SYS_mbind, map->base, map->len, MPOL_PREFERRED, mask, sizeof(mask) * 8, 0) == 0)
		return 0;
	/* A container may forbid it; where there is one node nothing is lost. */
	if (node == 0 && !node_is_there(1))
		return 0;
	return shmb_fail(-errno, "memory of NUMA node %u cannot be asked for: %s", node,
			 strerror(errno));
}

int shmb_map_arena(struct shmb_map *map, int fd, const struct shmb_fd_descriptor *descriptor,
		   const struct shmb_block_limits *limits)
{
	int result = map_empty(map, fd, descriptor, SHMB_SEGMENT_ARENA, PROT_READ | PROT_WRITE);

	if (result == 0 && limits->numa_node)
		result = set_node(map, limits->numa_node - 1);
	if (result == 0)
		result = check_room(map->len);
	/*
	 * Only what is touched through a mapping that asks for them is made of huge pages; what the
	 * kernel does not give comes in small ones.
	 */
	if (result == 0 && limits->flags & SHMB_ARENA_HUGE_PAGES) {
		madvise(map->base, map->len, MADV_HUGEPAGE);
		madvise(map->base, map->len, MADV_POPULATE_WRITE);
	}
	if (result == 0)
		result = allocate(fd, map->len);
	if (result == 0) {
		madvise(map->base, map->len, MADV_POPULATE_WRITE);
		result = check_header(map, SHMB_SEGMENT_ARENA, descriptor);
	}
	if (result < 0)
		shmb_map_deinit(map);
	return result;
}
