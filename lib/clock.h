/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_CLOCK_H
#define SHMB_LIB_CLOCK_H

/* Deadlines on CLOCK_MONOTONIC, in nanoseconds; UINT64_MAX never comes. */

#include <linux/time_types.h>
#include <stdint.h>
#include <time.h>

static inline uint64_t shmb_clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A timeout as in the public API: negative is for ever. */
static inline uint64_t shmb_clock_deadline_ns(int64_t timeout_ns)
{
	uint64_t now;

	if (timeout_ns < 0)
		return UINT64_MAX;
	now = shmb_clock_now_ns();
	return (uint64_t)timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + (uint64_t)timeout_ns;
}

static inline uint64_t shmb_clock_left_ns(uint64_t deadline_ns, uint64_t now_ns)
{
	return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}

static inline struct timespec shmb_clock_timespec(uint64_t ns)
{
	/* A time_t of any width holds this: 31 years are as good as for ever. */
	if (ns > 1000000000ull * 1000000000ull)
		ns = 1000000000ull * 1000000000ull;
	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u),
				  .tv_nsec = (long)(ns % 1000000000u) };
}

/* For system calls that are younger than 64-bit time on 32-bit machines and know no other. */
static inline struct __kernel_timespec shmb_clock_kernel_timespec(uint64_t ns)
{
	struct timespec time = shmb_clock_timespec(ns);

	return (struct __kernel_timespec){ .tv_sec = time.tv_sec, .tv_nsec = time.tv_nsec };
}

#endif
