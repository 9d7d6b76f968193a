/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/fd.h"

#include "daemon/segment.h"

#define ALLOCATE_STEP	(4ull << 20)
#define NAME_RANDOM_LEN 16
#define STAT_BLOCK_LEN	512

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
static int segment_format(const struct segment_maker *maker, unsigned flags, int fd,
			  struct segment *segment)
{
	struct shmb_segment_header header = {
		.magic = SHMB_SEGMENT_MAGIC,
		.byte_order = SHMB_BYTE_ORDER,
		.version = 1,
		.kind = segment->kind,
		.block_len = SHMB_BLOCK_LEN,
		.segment_len = segment->len,
		.instance = maker->instance,
		.segment_id = segment->id,
		.owner_id = segment->id,
	};
	struct stat st;
	ssize_t n;
	int r;

	/* The umask had a say in the mode so far. */
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)segment->len) < 0)
		return -errno;
	r = flags & SEGMENT_ALLOCATE ? segment_allocate(fd, 0, segment->len) : 0;
	if (r < 0)
		return r;
	n = pwrite(fd, &header, sizeof(header), 0);
	if (n != sizeof(header))
		return n < 0 ? -errno : -ENOSPC;
	if (fstat(fd, &st) < 0)
		return -errno;
	segment->inode = st.st_ino;
	if (flags & SEGMENT_MAP) {
		segment->map = segment_map(fd, segment->len);
		if (!segment->map)
			return -ENOMEM;
	}
	return 0;
}

int segment_create(const struct segment_maker *maker, uint32_t kind, uint64_t id, uint64_t len,
		   unsigned flags, struct segment *segment)
{
	int fd, r;

	*segment = (struct segment){ .kind = kind, .id = id, .len = len };
	segment_name(maker, segment->name);
	fd = shm_open(segment->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		segment->name[0] = '\0';
		return -errno;
	}
	r = segment_format(maker, flags, fd, segment);
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

int segment_adopt(const struct segment_maker *maker, const char *name, uint32_t kind, uint64_t id,
		  uint64_t len, unsigned flags, struct segment *segment)
{
	struct stat st;
	int fd, r;

	*segment = (struct segment){ .kind = kind, .id = id, .len = len };
	fd = shm_open(name, (flags & SEGMENT_MAP ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0) {
		r = -errno;
		goto out;
	}
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (uint64_t)st.st_size != len) {
		r = -EINVAL;
		goto out;
	}
	segment->inode = st.st_ino;
	if (flags & SEGMENT_MAP) {
		segment->map = segment_map(fd, len);
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

int segment_open_read(const struct segment *segment)
{
	int fd = shm_open(segment->name, O_RDONLY | O_CLOEXEC, 0);

	return same_object(fd < 0 ? -errno : fd, segment);
}

int segment_open_write(const struct segment_maker *maker, const struct segment *segment)
{
	char path[SHMB_SEGMENT_NAME_LEN_MAX + 16];

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

void segment_release(struct segment *segment)
{
	if (segment->map)
		munmap(segment->map, segment->len);
	segment->map = NULL;
}

void segment_destroy(struct segment *segment)
{
	segment_release(segment);
	if (segment->name[0])
		shm_unlink(segment->name);
	segment->name[0] = '\0';
}
