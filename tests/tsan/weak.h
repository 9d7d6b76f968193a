/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_WEAK_H
#define SHMB_TESTS_WEAK_H

/*
 * The accesses of ring.h, with the orders of those weakened whose text has WEAK_STORE or WEAK_LOAD in
 * it. Include before ring.h.
 */

#include <stdint.h>
#include <string.h>

#ifdef WEAK_STORE
#define STORE_IS_WEAK(pointer) (strstr(#pointer, WEAK_STORE) != NULL)
#else
#define STORE_IS_WEAK(pointer) 0
#endif
#ifdef WEAK_LOAD
#define LOAD_IS_WEAK(pointer) (strstr(#pointer, WEAK_LOAD) != NULL)
#else
#define LOAD_IS_WEAK(pointer) 0
#endif

#define SHMB_LOAD(pointer) __atomic_load_n((pointer), __ATOMIC_RELAXED)
#define SHMB_LOAD_ACQUIRE(pointer)                                            \
	(LOAD_IS_WEAK(pointer) ? __atomic_load_n((pointer), __ATOMIC_RELAXED) \
			       : __atomic_load_n((pointer), __ATOMIC_ACQUIRE))
#define SHMB_STORE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELAXED)
#define SHMB_STORE_RELEASE(pointer, value)                                      \
	do {                                                                    \
		if (STORE_IS_WEAK(pointer))                                     \
			__atomic_store_n((pointer), (value), __ATOMIC_RELAXED); \
		else                                                            \
			__atomic_store_n((pointer), (value), __ATOMIC_RELEASE); \
	} while (0)
#define SHMB_FENCE_ACQUIRE() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define SHMB_FENCE_RELEASE() __atomic_thread_fence(__ATOMIC_RELEASE)

#endif
