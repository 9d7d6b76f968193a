/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_HELD_H
#define SHMB_TESTS_HELD_H

/* What a process must not leak. */

#include <stdbool.h>
#include <sys/types.h>

/**
 * struct held - what it has now
 * @fds:      file descriptors
 * @mappings: of shared memory and of rings
 */
struct held {
	unsigned fds;
	unsigned mappings;
};

struct held held_by(pid_t pid);

/* Of something that may still be settling: the first that stays for a while. */
struct held held_settled(pid_t pid);

/* It has no more than before. */
bool held_is_back(pid_t pid, const struct held *before);

#endif
