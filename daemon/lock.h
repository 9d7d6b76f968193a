/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_LOCK_H
#define SHMB_DAEMON_LOCK_H

/*
 * One broker per directory: the lock file, which also holds the instance id, so that a successor
 * finds what its predecessor has left.
 */

#include <limits.h>
#include <stdint.h>

struct lock {
	int fd;
	char path[PATH_MAX];
};

/**
 * lock_take() - become the broker of a directory
 * @lock:	  filled
 * @dir:	  directory
 * @ret_instance: stores the instance id of the last broker, 0: there was none
 *
 * Return: 0; -EADDRINUSE: a broker is running; another negative errno value; with a sentence.
 */
int lock_take(struct lock *lock, const char *dir, uint64_t *ret_instance);

/**
 * lock_replace() - take the place of a broker that holds the lock and does not give it up
 * @lock:	  filled; on failure lock_take() can be tried
 * @dir:	  directory
 * @ret_instance: as of lock_take()
 *
 * That broker keeps a lock on a file that has no name any more.
 *
 * Return: 0; a negative errno value, with a sentence.
 */
int lock_replace(struct lock *lock, const char *dir, uint64_t *ret_instance);

/* Do we hold the lock that the directory has now? */
bool lock_is_current(const struct lock *lock);

/* Stores the instance id. Returns 0 or a negative errno value. */
int lock_write(struct lock *lock, uint64_t instance);

/* Removes the lock file, of which nothing is needed any more, and gives it up. */
void lock_remove(struct lock *lock);

/* Gives the lock up; the instance id stays. */
void lock_release(struct lock *lock);

#endif
