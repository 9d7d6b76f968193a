/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/fd.h"
#include "lib/runtime.h"

int shmb_runtime_user_dir(char *path, size_t cap)
{
	/* A set-user-id program must not be led to another user's broker. */
	const char *dir = secure_getenv("XDG_RUNTIME_DIR");
	int n;

	if (dir && dir[0] == '/')
		n = snprintf(path, cap, "%s/shmbroker", dir);
	else
		n = snprintf(path, cap, "/tmp/shmbroker-%u", (unsigned)geteuid());
	return n >= 0 && (size_t)n < cap ? 0 : -ENAMETOOLONG;
}

int shmb_runtime_join(char *path, size_t cap, const char *dir, const char *file)
{
	int n = snprintf(path, cap, "%s/%s", dir, file);

	return n >= 0 && (size_t)n < cap ? 0 : -ENAMETOOLONG;
}

struct dir_check {
	const char *path;
	uid_t owner;
};

static bool uid_trusted(const struct dir_check *check, uid_t uid)
{
	return uid == 0 || uid == geteuid() || uid == check->owner;
}

static int dir_check_one(const struct dir_check *check, const struct stat *st, bool parent)
{
	if (!S_ISDIR(st->st_mode))
		return shmb_fail(-EACCES, "%s: not a directory", check->path);
	if (!uid_trusted(check, st->st_uid))
		return shmb_fail(-EACCES, "%s: %s belongs to uid %u", check->path,
				 parent ? "a parent" : "it", (unsigned)st->st_uid);
	if ((st->st_mode & 022) && !(parent && (st->st_mode & S_ISVTX)))
		return shmb_fail(-EACCES, "%s: %s can be written by others (mode 0%o)", check->path,
				 parent ? "a parent" : "it", st->st_mode & 07777);
	return 0;
}

/* Follows ".." rather than the text of the path, so that links cannot hide a parent. */
static int dir_check_parents(const struct dir_check *check, int fd, const struct stat *st)
{
	struct stat below = *st;
	struct stat here;
	int up, r = 0;

	fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return shmb_fail(-errno, "%s: %s", check->path, strerrordesc_np(errno));
	while (r == 0 && fd >= 0) {
		up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		shmb_fd_close(fd);
		fd = up;
		if (fd < 0 || fstat(fd, &here) < 0)
			r = shmb_fail(shmb_fd_shortage(errno) ? -errno : -EACCES,
				      "%s: a parent cannot be seen: %s", check->path,
				      strerrordesc_np(errno));
		else if (here.st_dev == below.st_dev && here.st_ino == below.st_ino)
			break; /* the root */
		else
			r = dir_check_one(check, &here, true);
		below = here;
	}
	shmb_fd_close(fd);
	return r;
}

/* Whoever owns a link on the way decides where the path leads. */
static int dir_check_links(const struct dir_check *check)
{
	char prefix[PATH_MAX];
	struct stat st;
	size_t len = strlen(check->path);

	if (len >= sizeof(prefix))
		return shmb_fail(-EACCES, "%s: too long", check->path);
	for (size_t i = 1; i <= len; i++) {
		if (check->path[i] != '/' && check->path[i] != '\0')
			continue;
		memcpy(prefix, check->path, i);
		prefix[i] = '\0';
		if (lstat(prefix, &st) < 0)
			return shmb_fail(shmb_fd_shortage(errno) ? -errno : -EACCES, "%s: %s",
					 prefix, strerrordesc_np(errno));
		if (S_ISLNK(st.st_mode) && !uid_trusted(check, st.st_uid))
			return shmb_fail(-EACCES, "%s: the link %s belongs to uid %u", check->path,
					 prefix, (unsigned)st.st_uid);
	}
	return 0;
}

int shmb_runtime_check_dir(const char *path)
{
	struct dir_check check = { .path = path };
	struct stat st;
	int fd, r;

	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		r = errno == ENOENT || shmb_fd_shortage(errno) ? -errno : -EACCES;
		return shmb_fail(r, "%s: %s", path, strerrordesc_np(errno));
	}
	if (fstat(fd, &st) < 0) {
		r = shmb_fail(-EACCES, "%s: %s", path, strerrordesc_np(errno));
		goto out;
	}
	check.owner = st.st_uid;
	r = dir_check_one(&check, &st, false);
	if (r == 0)
		r = dir_check_parents(&check, fd, &st);
	if (r == 0)
		r = dir_check_links(&check);
out:
	shmb_fd_close(fd);
	return r;
}

static int instance_parse(const char *text, size_t len, uint64_t *ret_instance)
{
	uint64_t value = 0;

	if (len != 17 || text[16] != '\n')
		return -EINVAL;
	for (size_t i = 0; i < 16; i++) {
		char c = text[i];

		if (c >= '0' && c <= '9')
			value = value << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (uint64_t)(c - 'a' + 10);
		else
			return -EINVAL;
	}
	if (value == 0)
		return -EINVAL;
	*ret_instance = value;
	return 0;
}

int shmb_runtime_instance(const char *dir, uint64_t *ret_instance)
{
	char path[PATH_MAX];
	char text[18];
	ssize_t n;
	int fd, r;

	r = shmb_runtime_join(path, sizeof(path), dir, SHMB_LOCK_FILE);
	if (r < 0)
		return -EINVAL;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ELOOP ? -EINVAL : -errno;
	do
		n = read(fd, text, sizeof(text));
	while (n < 0 && errno == EINTR);
	shmb_fd_close(fd);
	if (n < 0)
		return -errno;
	return instance_parse(text, (size_t)n, ret_instance);
}
