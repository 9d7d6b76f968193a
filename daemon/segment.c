/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/fd.h"

#include "daemon/segment.h"

#define ALLOCATE_STEP	(4ull << 20)
#define NAME_RANDOM_LEN 16
#define STAT_BLOCK_LEN	512
#define MEMFD_PREFIX	"memfd:"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* Linux 6.3 */
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010 /* Linux 5.1 */
#endif

/* Path of an object, for those calls that shm_open(3) has no form of. */
static void segment_path(const char *name, char path[SHMB_SEGMENT_NAME_LEN_MAX + 16])
{
	snprintf(path, SHMB_SEGMENT_NAME_LEN_MAX + 16, "/dev/shm%s", name);
}

int segment_allocate(int fd, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;

	/* In steps, so that a signal does not make us begin again with gigabytes. */
	while (offset < end) {
		uint64_t step = end - offset < ALLOCATE_STEP ? end - offset : ALLOCATE_STEP;

		if (fallocate(fd, 0, (off_t)offset, (off_t)step) == 0)
			offset += step;
		else if (errno != EINTR)
			return -errno;
	}
	return 0;
}

void *segment_map(int fd, uint64_t len)
{
	void *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return NULL;
	madvise(map, len, MADV_DONTFORK);
	madvise(map, len, MADV_DONTDUMP);
	return map;
}

static void segment_name(const struct segment_maker *maker, char name[SHMB_SEGMENT_NAME_LEN_MAX])
{
	uint8_t random[NAME_RANDOM_LEN];
	char hex[2 * NAME_RANDOM_LEN + 1];

	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(hex, sizeof(hex), random, sizeof(random));
	snprintf(name, SHMB_SEGMENT_NAME_LEN_MAX, "/shmb.%016llx.%s",
		 (unsigned long long)maker->instance, hex);
}

/* Fills the new, still unknown object behind @fd. */
static int segment_format(const struct segment_spec *spec, int fd, struct segment *segment)
{
	struct shmb_segment_header header = {
		.magic = SHMB_SEGMENT_MAGIC,
		.byte_order = SHMB_BYTE_ORDER,
		.version = 1,
		.kind = segment->kind,
		.block_len = SHMB_BLOCK_LEN,
		.segment_len = segment->len,
		.instance = segment->instance,
		.segment_id = segment->id,
		.owner_id = spec->owner_id,
	};
	struct stat st;
	ssize_t n;
	int r;

	/* The umask had a say in the mode so far. */
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)segment->len) < 0)
		return -errno;
	r = spec->flags & SEGMENT_ALLOCATE ? segment_allocate(fd, 0, segment->len) : 0;
	if (r < 0)
		return r;
	n = pwrite(fd, &header, sizeof(header), 0);
	if (n != sizeof(header))
		return n < 0 ? -errno : -ENOSPC;
	if (fstat(fd, &st) < 0)
		return -errno;
	segment->inode = st.st_ino;
	if (spec->flags & SEGMENT_MAP) {
		segment->map = segment_map(fd, segment->len);
		if (!segment->map)
			return -ENOMEM;
	}
	return 0;
}

static struct segment segment_of(const struct segment_maker *maker, const struct segment_spec *spec)
{
	return (struct segment){ .kind = spec->kind,
				 .backing = spec->backing,
				 .id = spec->id,
				 .len = spec->len,
				 .fd = -1,
				 .store = maker->store,
				 .instance = maker->instance };
}

static void memfd_name(uint64_t inode, char name[SHMB_SEGMENT_NAME_LEN_MAX])
{
	snprintf(name, SHMB_SEGMENT_NAME_LEN_MAX, MEMFD_PREFIX "%llu", (unsigned long long)inode);
}

/* Before anybody else has it, so that no client can come before our seals. */
static int create_sealed(const struct segment_spec *spec, struct segment *segment)
{
	char name[64];
	int fd, r;

	store_name(segment->instance, segment->id, name);
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	segment->seals = F_SEAL_SHRINK | F_SEAL_GROW;
	/* Of a bell nobody tells us when it is mapped. */
	if (spec->kind == SHMB_SEGMENT_BELL)
		segment->seals |= F_SEAL_SEAL;
	r = segment_format(spec, fd, segment);
	if (r == 0 && fcntl(fd, F_ADD_SEALS, segment->seals) < 0)
		r = -errno;
	if (r < 0) {
		segment_release(segment);
		shmb_fd_close(fd);
		return r;
	}
	segment->fd = fd;
	memfd_name(segment->inode, segment->name);
	store_put(segment->store, segment->instance, segment->id, fd);
	return 0;
}

int segment_create(const struct segment_maker *maker, const struct segment_spec *spec,
		   struct segment *segment)
{
	int fd, r;

	*segment = segment_of(maker, spec);
	if (spec->backing == SHMB_MEMORY_SEALED)
		return create_sealed(spec, segment);
	segment_name(maker, segment->name);
	fd = shm_open(segment->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		segment->name[0] = '\0';
		return -errno;
	}
	r = segment_format(spec, fd, segment);
	shmb_fd_close(fd);
	if (r < 0)
		segment_destroy(segment);
	return r;
}

static int header_check(const struct segment_maker *maker, int fd, const struct segment *segment)
{
	struct shmb_segment_header header;

	ssize_t n;

	do
		n = pread(fd, &header, sizeof(header), 0);
	while (n < 0 && errno == EINTR);
	if (n != sizeof(header))
		return n < 0 ? -errno : -EINVAL;
	if (header.magic != SHMB_SEGMENT_MAGIC || header.byte_order != SHMB_BYTE_ORDER ||
	    header.version != 1 || header.instance != maker->instance)
		return -EINVAL;
	return header.kind == segment->kind && header.segment_id == segment->id ? 0 : -EINVAL;
}

/* What a store has kept must be the very memfd that the registry speaks of. */
static int adopt_sealed(const char *name, struct segment *segment)
{
	int fd = store_take(segment->store, segment->instance, segment->id);
	char wanted[SHMB_SEGMENT_NAME_LEN_MAX];
	struct statfs fs;
	struct stat st;
	int seals;

	if (fd < 0)
		return -ENOENT;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0) {
		int r = -errno;

		shmb_fd_close(fd);
		if (r != -EINVAL) /* EINVAL: nothing that has seals */
			return r;
		store_drop(segment->store, segment->instance, segment->id);
		return r;
	}
	if ((seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW) ||
	    !S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 07777) != 0600 ||
	    (uint64_t)st.st_size != segment->len || fs.f_type != TMPFS_MAGIC)
		goto refuse;
	memfd_name(st.st_ino, wanted);
	if (strcmp(wanted, name) != 0)
		goto refuse;
	segment->inode = st.st_ino;
	segment->seals =
		(uint32_t)seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
	segment->fd = fd;
	memcpy(segment->name, wanted, sizeof(wanted));
	return 0;
refuse:
	store_drop(segment->store, segment->instance, segment->id);
	shmb_fd_close(fd);
	return -EINVAL;
}

int segment_adopt(const struct segment_maker *maker, const char *name,
		  const struct segment_spec *spec, struct segment *segment)
{
	struct stat st;
	int fd, r;

	*segment = segment_of(maker, spec);
	if (spec->backing == SHMB_MEMORY_SEALED)
		return adopt_sealed(name, segment);
	fd = shm_open(name, (spec->flags & SEGMENT_MAP ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0) {
		r = -errno;
		goto out;
	}
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (uint64_t)st.st_size != spec->len) {
		r = -EINVAL;
		goto out;
	}
	segment->inode = st.st_ino;
	if (spec->flags & SEGMENT_MAP) {
		segment->map = segment_map(fd, spec->len);
		r = segment->map ? header_check(maker, fd, segment) : -ENOMEM;
	} else {
		r = 0; /* its writer is a client, so its bytes prove nothing */
	}
	if (r == 0)
		snprintf(segment->name, sizeof(segment->name), "%s", name);
	else
		segment_release(segment);
out:
	shmb_fd_close(fd);
	return r;
}

static int same_object(int fd, const struct segment *segment)
{
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || st.st_ino != segment->inode) {
		shmb_fd_close(fd);
		return -ESTALE;
	}
	return fd;
}

/* Another description of the memfd, so that the receiver's flags are its own. */
static int reopen(const struct segment *segment, int flags)
{
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", segment->fd);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int segment_open_read(const struct segment *segment)
{
	int fd;

	if (!segment_exists(segment))
		return -ESTALE;
	if (segment->backing == SHMB_MEMORY_SEALED)
		return same_object(reopen(segment, O_RDONLY), segment);
	fd = shm_open(segment->name, O_RDONLY | O_CLOEXEC, 0);

	return same_object(fd < 0 ? -errno : fd, segment);
}

int segment_read(const struct segment *segment, void *to, size_t len, uint64_t offset)
{
	int fd = segment_open_read(segment), r;
	ssize_t n;

	if (fd < 0)
		return fd;
	do
		n = pread(fd, to, len, (off_t)offset);
	while (n < 0 && errno == EINTR);
	r = n == (ssize_t)len ? 0 : n < 0 ? -errno : -EINVAL;
	shmb_fd_close(fd);
	return r;
}

int segment_open_write(const struct segment_maker *maker, const struct segment *segment)
{
	char path[SHMB_SEGMENT_NAME_LEN_MAX + 16];

	if (!segment_exists(segment))
		return -ESTALE;
	/* Its seals forbid what the opener cannot do. */
	if (segment->backing == SHMB_MEMORY_SEALED)
		return same_object(reopen(segment, O_RDWR), segment);
	segment_path(segment->name, path);
	return same_object(opener_open(maker->opener, path), segment);
}

int segment_check_allocated(const struct segment *segment)
{
	int fd = segment_open_read(segment);
	struct stat st;
	int r;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if ((uint64_t)st.st_size != segment->len)
		r = -EINVAL;
	else if ((uint64_t)st.st_blocks * STAT_BLOCK_LEN < segment->len)
		r = -ENOMEM;
	else
		r = 0;
	shmb_fd_close(fd);
	return r;
}

int segment_restrict(struct segment *segment)
{
	uint32_t seals = F_SEAL_FUTURE_WRITE;

	if (segment->backing != SHMB_MEMORY_SEALED)
		return 0;
	/* A lane or an arena gets one more seal, when its writer has died. */
	if (segment->kind != SHMB_SEGMENT_LANE && segment->kind != SHMB_SEGMENT_ARENA)
		seals |= F_SEAL_SEAL;
	if (fcntl(segment->fd, F_ADD_SEALS, seals) == 0)
		segment->seals |= seals;
	else if (errno != EINVAL) /* EINVAL: the kernel is older than that seal */
		return -errno;
	return 0;
}

int segment_fence(struct segment *segment)
{
	if (segment->backing != SHMB_MEMORY_SEALED || !segment_exists(segment))
		return -EOPNOTSUPP;
	return fcntl(segment->fd, F_ADD_SEALS, F_SEAL_WRITE) < 0 ? -errno : 0;
}

void segment_move(struct segment *segment, struct segment *from)
{
	*segment = *from;
	*from = (struct segment){ 0 };
}

int segment_hold(struct segment *segment, const struct segment *of)
{
	int fd = fcntl(of->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	*segment = *of;
	segment->fd = fd;
	segment->map = NULL;
	return 0;
}

void segment_release(struct segment *segment)
{
	if (segment->map)
		munmap(segment->map, segment->len);
	segment->map = NULL;
	if (segment->backing == SHMB_MEMORY_SEALED)
		segment->fd = shmb_fd_close(segment->fd);
}

void segment_forget(struct segment *segment)
{
	segment_release(segment);
	segment->name[0] = '\0';
}

void segment_destroy(struct segment *segment)
{
	bool sealed = segment->backing == SHMB_MEMORY_SEALED;

	segment_release(segment);
	if (segment_exists(segment) && sealed)
		store_drop(segment->store, segment->instance, segment->id);
	else if (segment_exists(segment))
		shm_unlink(segment->name);
	segment->name[0] = '\0';
}
