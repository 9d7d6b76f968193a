/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The fork guard: a private page under MADV_WIPEONFORK. Handles keep its address and look at it
 * before they touch mappings, which a child does not have (MADV_DONTFORK).
 *
 * A child that opens handles of its own gets a new page: the old one stays wiped for the handles
 * it inherited.
 */

#include "lib/fork.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>

#include <shmbroker/layout.h>

static pthread_mutex_t guard_lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *guard;

const uint8_t *shmb_fork_guard(void)
{
	uint8_t *page;

	pthread_mutex_lock(&guard_lock);
	if (!guard || !__atomic_load_n(guard, __ATOMIC_RELAXED)) {
		page = mmap(NULL, SHMB_BLOCK_LEN, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (page != MAP_FAILED && madvise(page, SHMB_BLOCK_LEN, MADV_WIPEONFORK) < 0) {
			munmap(page, SHMB_BLOCK_LEN);
			page = MAP_FAILED;
		}
		if (page != MAP_FAILED)
			*page = 1;
		guard = page == MAP_FAILED ? NULL : page;
	}
	page = guard;
	pthread_mutex_unlock(&guard_lock);
	return page;
}
