/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_MUTATE_H
#define SHMB_TESTS_MUTATE_H

/*
 * Stands in for the loads and stores of ring.h, with one mistake chosen at compile time. A test
 * built with a mistake must fail: this shows that it would find the mistake. Include it before
 * anything that includes ring.h.
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Which store does the mistake leave out? */
static inline bool mutate_omits(const char *pointer, const char *value)
{
#if defined(SHMB_MUTATE_ZERO)
	return !strncmp(pointer, "shmb_lane_word(", 15) && !strcmp(value, "0");
#elif defined(SHMB_MUTATE_INTENT)
	(void)value;
	return !strcmp(pointer, "&writer->lane->intent");
#elif defined(SHMB_MUTATE_MARK)
	(void)value;
	return !strcmp(pointer, "&mark->sequence");
#elif defined(SHMB_MUTATE_CURSOR)
	(void)value;
	return !strcmp(pointer, "&slot->position");
#elif defined(SHMB_MUTATE_JOB_MARK)
	(void)value;
	return !strcmp(pointer, "&jobs->work->marks[SLOT(number)]");
#elif defined(SHMB_MUTATE_GIVING)
	return !strcmp(pointer, "&lane->given_to") && !strcmp(value, "to");
#elif defined(SHMB_MUTATE_GIVEN)
	(void)value;
	return !strcmp(pointer, "&address->worker");
#elif defined(SHMB_MUTATE_ORPHANS)
	(void)value;
	return !strcmp(pointer, "&lane->orphans_from");
#elif defined(SHMB_MUTATE_TERM)
	(void)value;
	return !strcmp(pointer, "&head->term");
#else
	(void)pointer;
	(void)value;
	return false;
#endif
}

/* Of the words that it forgets. */
#if defined(SHMB_MUTATE_SLOT)
#define MUTATE_START 1u
#else
#define MUTATE_START 0u
#endif

/* Which load does the mistake leave out, so that it is as it was at the start? */
static inline bool mutate_forgets(const char *pointer)
{
#if defined(SHMB_MUTATE_OVERWRITTEN)
	return !strcmp(pointer, "subscriber->member.epoch");
#elif defined(SHMB_MUTATE_SLOT)
	return !strcmp(pointer, "&slot->pair_id");
#elif defined(SHMB_MUTATE_EVICTED)
	return !strcmp(pointer, "&bell->evicted");
#else
	(void)pointer;
	return false;
#endif
}

/* What does the mistake add to a loaded value? */
static inline uint64_t mutate_adds(const char *pointer)
{
#if defined(SHMB_MUTATE_LIMIT)
	return strcmp(pointer, "&slot->position") ? 0 : 8;
#else
	(void)pointer;
	return 0;
#endif
}

#define SHMB_LOAD(pointer)                                                           \
	((__typeof__(__atomic_load_n(                                                \
		(pointer), __ATOMIC_RELAXED)))(mutate_forgets(#pointer)              \
						       ? MUTATE_START                \
						       : (uintptr_t)__atomic_load_n( \
								 (pointer), __ATOMIC_RELAXED)))
#define SHMB_LOAD_ACQUIRE(pointer)                                                            \
	((__typeof__(__atomic_load_n(                                                         \
		(pointer), __ATOMIC_ACQUIRE)))(__atomic_load_n((pointer), __ATOMIC_ACQUIRE) + \
					       mutate_adds(#pointer)))
#define SHMB_STORE(pointer, value)                                              \
	do {                                                                    \
		if (!mutate_omits(#pointer, #value))                            \
			__atomic_store_n((pointer), (value), __ATOMIC_RELAXED); \
	} while (0)
#define SHMB_STORE_RELEASE(pointer, value)                                      \
	do {                                                                    \
		if (!mutate_omits(#pointer, #value))                            \
			__atomic_store_n((pointer), (value), __ATOMIC_RELEASE); \
	} while (0)
#define SHMB_FENCE_ACQUIRE() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define SHMB_FENCE_RELEASE() __atomic_thread_fence(__ATOMIC_RELEASE)

#endif
