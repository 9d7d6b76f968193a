/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/fd.h"

int shmb_fd_close(int fd)
{
	int saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
	return -1;
}

int shmb_fd_describe(int fd, uint8_t kind, uint8_t access, uint16_t role, uint64_t segment_id,
		     struct shmb_fd_descriptor *descriptor)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*descriptor = (struct shmb_fd_descriptor){
		.kind = kind,
		.access = access,
		.role = role,
		.st_dev = st.st_dev,
		.st_ino = st.st_ino,
		.segment_len = (uint64_t)st.st_size,
		.owner_uid = st.st_uid,
		.mode = st.st_mode & 07777,
		.segment_id = segment_id,
	};
	return 0;
}

/* In a user namespace that does not map every uid to itself, owners are not comparable. */
static bool uids_are_global(void)
{
	unsigned inside, outside, count;
	FILE *file = fopen("/proc/self/uid_map", "re");
	bool global = true;

	if (!file)
		return true;
	if (fscanf(file, "%u %u %u", &inside, &outside, &count) == 3)
		global = inside == 0 && outside == 0 && count == UINT32_MAX;
	fclose(file);
	return global;
}

static int verify_shm(int fd, const struct stat *st)
{
	struct statfs fs;

	if (!S_ISREG(st->st_mode))
		return shmb_fail(-EPROTO, "fd: not a regular file");
	if (fstatfs(fd, &fs) < 0)
		return shmb_fail(-EPROTO, "fd: no file system");
	/* Signed or not, 4 or 8 bytes: as the machine has it. */
	if ((uint32_t)fs.f_type != TMPFS_MAGIC && (uint32_t)fs.f_type != HUGETLBFS_MAGIC)
		return shmb_fail(-EPROTO, "fd: not in shared memory");
	return 0;
}

static int verify_eventfd(int fd, const struct stat *st)
{
	char link[64];
	char path[40];
	ssize_t n;

	/* An anonymous inode has no type; its name tells an eventfd where /proc is there. */
	if ((st->st_mode & S_IFMT) != 0)
		return shmb_fail(-EPROTO, "fd: not an eventfd");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return 0;
	link[n] = '\0';
	if (strcmp(link, "anon_inode:[eventfd]") != 0)
		return shmb_fail(-EPROTO, "fd: not an eventfd but %s", link);
	return 0;
}

static int verify_socket(int fd, const struct stat *st, int wanted)
{
	socklen_t len = sizeof(int);
	int domain, type;

	if (!S_ISSOCK(st->st_mode) || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return shmb_fail(-EPROTO, "fd: not a socket");
	if (domain != AF_UNIX || type != wanted)
		return shmb_fail(-EPROTO, "fd: not a local socket of type %d, but %d", wanted,
				 type);
	return 0;
}

static int verify_access(int fd, uint8_t access)
{
	int flags = fcntl(fd, F_GETFL);
	int wanted = access == SHMB_FD_READ_WRITE ? O_RDWR : O_RDONLY;

	if (flags < 0 || (flags & O_PATH))
		return shmb_fail(-EPROTO, "fd: cannot be used");
	if (access != SHMB_FD_READ && access != SHMB_FD_READ_WRITE)
		return shmb_fail(-EPROTO, "fd: descriptor with access %u", access);
	if ((flags & O_ACCMODE) != wanted)
		return shmb_fail(-EPROTO, "fd: open with other rights than announced");
	return 0;
}

int shmb_fd_verify(int fd, const struct shmb_fd_descriptor *descriptor)
{
	struct stat st;
	int seals, r;

	if (fstat(fd, &st) < 0)
		return shmb_fail(-EPROTO, "fd: not open");
	if (descriptor->kind == SHMB_FD_SHM)
		r = verify_shm(fd, &st);
	else if (descriptor->kind == SHMB_FD_EVENTFD)
		r = verify_eventfd(fd, &st);
	else if (descriptor->kind == SHMB_FD_SOCKET)
		r = verify_socket(fd, &st, SOCK_STREAM);
	else if (descriptor->kind == SHMB_FD_PACKETS)
		r = verify_socket(fd, &st, SOCK_SEQPACKET);
	else
		r = shmb_fail(-EPROTO, "fd: descriptor of kind %u", descriptor->kind);
	if (r == 0)
		r = verify_access(fd, descriptor->access);
	if (r < 0)
		return r;
	if (st.st_dev != descriptor->st_dev || st.st_ino != descriptor->st_ino)
		return shmb_fail(-EPROTO, "fd: another file than announced");
	if ((uint64_t)st.st_size != descriptor->segment_len)
		return shmb_fail(-EPROTO, "fd: %lld bytes, %llu were announced",
				 (long long)st.st_size,
				 (unsigned long long)descriptor->segment_len);
	if ((st.st_mode & 07777) != descriptor->mode)
		return shmb_fail(-EPROTO, "fd: mode 0%o, 0%o was announced", st.st_mode & 07777,
				 descriptor->mode);
	if (st.st_uid != descriptor->owner_uid && uids_are_global())
		return shmb_fail(-EPROTO, "fd: owned by uid %u, %u was announced", st.st_uid,
				 descriptor->owner_uid);
	if (descriptor->required_seals) {
		seals = fcntl(fd, F_GET_SEALS);
		if (seals < 0 ||
		    ((uint32_t)seals & descriptor->required_seals) != descriptor->required_seals)
			return shmb_fail(-EPROTO, "fd: seals 0x%x, 0x%x are required", seals,
					 descriptor->required_seals);
	}
	return 0;
}
