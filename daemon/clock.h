/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_CLOCK_H
#define SHMB_DAEMON_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_MS  1000000ull
#define CLOCK_SEC 1000000000ull

/* CLOCK_MONOTONIC in ns. */
static inline uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * CLOCK_SEC + (uint64_t)now.tv_nsec;
}

#endif
