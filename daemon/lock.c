/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/fd.h"
#include "lib/runtime.h"

#include "daemon/lock.h"

#define LOCK_TRIES 100

/* An ending broker may have removed the file between our open() and our flock(). */
bool lock_is_current(const struct lock *lock)
{
	struct stat mine, named;

	return fstat(lock->fd, &mine) == 0 && stat(lock->path, &named) == 0 &&
	       mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
}

int lock_take(struct lock *lock, const char *dir, uint64_t *ret_instance)
{
	int r = shmb_runtime_join(lock->path, sizeof(lock->path), dir, SHMB_LOCK_FILE);

	if (r < 0)
		return shmb_fail(r, "%s: name too long", dir);
	for (int i = 0; i < LOCK_TRIES; i++) {
		lock->fd = open(lock->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (lock->fd < 0)
			return shmb_fail(-errno, "%s: %s", lock->path, strerrordesc_np(errno));
		if (flock(lock->fd, LOCK_EX | LOCK_NB) < 0) {
			r = errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
			lock->fd = shmb_fd_close(lock->fd);
			return shmb_fail(r, "%s: %s", dir,
					 r == -EADDRINUSE ? "a broker is already running there"
							  : strerrordesc_np(-r));
		}
		if (lock_is_current(lock)) {
			*ret_instance = 0;
			r = shmb_runtime_instance(dir, ret_instance);
			if (r == 0 || r == -ENOENT || r == -EINVAL)
				return 0;
			/* Beginning anew would bury the living that it names. */
			lock->fd = shmb_fd_close(lock->fd);
			return shmb_fail(r, "%s: %s", lock->path, strerrordesc_np(-r));
		}
		lock->fd = shmb_fd_close(lock->fd);
	}
	return shmb_fail(-EAGAIN, "%s: brokers come and go too fast", dir);
}

int lock_replace(struct lock *lock, const char *dir, uint64_t *ret_instance)
{
	char path[sizeof(lock->path) + 8];
	int r = shmb_runtime_join(lock->path, sizeof(lock->path), dir, SHMB_LOCK_FILE);

	if (r < 0)
		return shmb_fail(r, "%s: name too long", dir);
	*ret_instance = 0;
	shmb_runtime_instance(dir, ret_instance);
	snprintf(path, sizeof(path), "%s.new", lock->path);
	unlink(path);
	lock->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (lock->fd < 0)
		return shmb_fail(-errno, "%s: %s", path, strerrordesc_np(errno));
	r = flock(lock->fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
	if (r == 0 && *ret_instance)
		r = lock_write(lock, *ret_instance);
	/* Killed before: the old lock holds; after: anybody can take the new one. */
	if (r == 0 && rename(path, lock->path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(path);
		lock->fd = shmb_fd_close(lock->fd);
		return shmb_fail(r, "%s: %s", lock->path, strerrordesc_np(-r));
	}
	return 0;
}

int lock_write(struct lock *lock, uint64_t instance)
{
	char text[18];
	int n = snprintf(text, sizeof(text), "%016llx\n", (unsigned long long)instance);

	/* One write of 17 bytes at the start: a reader sees all of it or nothing. */
	if (fchmod(lock->fd, 0644) < 0 || ftruncate(lock->fd, 0) < 0 ||
	    pwrite(lock->fd, text, (size_t)n, 0) != n)
		return shmb_fail(-errno, "%s: %s", lock->path, strerrordesc_np(errno));
	return 0;
}

void lock_remove(struct lock *lock)
{
	if (lock->fd >= 0 && lock_is_current(lock))
		unlink(lock->path);
	lock_release(lock);
}

void lock_release(struct lock *lock)
{
	lock->fd = shmb_fd_close(lock->fd);
}
