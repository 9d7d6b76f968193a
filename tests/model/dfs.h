/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_DFS_H
#define SHMB_TESTS_DFS_H

/*
 * A small stateless model checker. It runs a scenario of a few threads again and again, each time
 * with other decisions: who runs next, which of the values that the memory model allows a load
 * returns, who is killed. It goes depth-first through all decisions within the bounds.
 *
 * The memory: each location is the list of all stores to it; a store carries what its thread had
 * seen (its view) if it was a release, or came after a release fence. A load returns any store that
 * is not older than what the thread has seen of the location. Loads that nothing waits for
 * (dfs_copy()) happen as late as fences and releases allow. Not modelled: other loads after later
 * stores of their thread, and two threads that store to one location without order (nothing in
 * the product does that).
 *
 * Include before anything that includes ring.h: its accesses come here. Each acquire, release and
 * fence is a site; one can be weakened at run time to see whether the scenarios notice. So is each
 * store, which can be left out.
 */

#include <stdbool.h>
#include <stdint.h>

enum dfs_order {
	DFS_RELAXED,
	DFS_ACQUIRE,
	DFS_RELEASE,
	DFS_SEQ_CST
};

#define DFS_HERE(text) __func__, text, __LINE__

#define SHMB_LOAD(pointer)                                                                \
	((__typeof__(*(pointer) + 0))dfs_load((pointer), sizeof(*(pointer)), DFS_RELAXED, \
					      DFS_HERE(#pointer)))
#define SHMB_LOAD_ACQUIRE(pointer)                                                        \
	((__typeof__(*(pointer) + 0))dfs_load((pointer), sizeof(*(pointer)), DFS_ACQUIRE, \
					      DFS_HERE(#pointer)))
#define SHMB_STORE(pointer, value) \
	dfs_store((pointer), sizeof(*(pointer)), (uint64_t)(value), DFS_RELAXED, DFS_HERE(#pointer))
#define SHMB_STORE_RELEASE(pointer, value) \
	dfs_store((pointer), sizeof(*(pointer)), (uint64_t)(value), DFS_RELEASE, DFS_HERE(#pointer))
#define SHMB_FENCE_ACQUIRE() dfs_fence(DFS_ACQUIRE, DFS_HERE("fence"))
#define SHMB_FENCE_RELEASE() dfs_fence(DFS_RELEASE, DFS_HERE("fence"))
#define SHMB_FENCE()	     dfs_fence(DFS_SEQ_CST, DFS_HERE("fence"))

#define DFS_THREADS_MAX 4

/**
 * struct dfs_scenario - what is explored
 * @name:	  for the output
 * @set_up:	  runs before the threads; its stores are what everybody has seen
 * @threads:	  their code; a thread may be abandoned anywhere and started anew
 * @check:	  runs when all threads are done, killed or asleep, with everything visible
 * @mortal:	  bit mask of threads that may be killed, one per execution
 * @preemptions:  how often a thread that could go on may have to wait for another; at least two
 * @stale:	  how many loads may return something older than the newest
 * @minimum:	  executions that there must be: all, and in the short run with two preemptions less
 */
struct dfs_scenario {
	const char *name;
	void (*set_up)(void);
	void (*threads[DFS_THREADS_MAX])(void);
	void (*check)(void);
	unsigned int mortal;
	unsigned int preemptions;
	unsigned int stale;
	uint64_t minimum[2];
};

/* Memory that threads share; all zero when an execution starts. @base is aligned to 8. */
void dfs_share(void *base, unsigned int len);

/* A word that only people look at: storing to it is no step. */
void dfs_ignore(const void *address);

uint64_t dfs_load(const void *address, unsigned int len, enum dfs_order order, const char *function,
		  const char *text, int line);
void dfs_store(void *address, unsigned int len, uint64_t value, enum dfs_order order,
	       const char *function, const char *text, int line);
void dfs_fence(enum dfs_order order, const char *function, const char *text, int line);

/* Load a word that nothing depends on before dfs_settle(): payload on its way into a buffer. */
void dfs_copy(uint64_t *destination, const uint64_t *source);
void dfs_settle(void);

/**
 * struct dfs_wait - one of the words of a futex wait
 * @word:  futex
 * @value: do not sleep if it differs
 */
struct dfs_wait {
	const uint32_t *word;
	uint32_t value;
};

/* futex_waitv(2) without a deadline. A thread that nobody wakes is asleep at the end. */
void dfs_futex_wait(const struct dfs_wait *waits, unsigned int n);
void dfs_futex_wake(const uint32_t *word);

/* Sleep until a thread has been killed; then what it had stored is visible. */
void dfs_await_death(void);

bool dfs_killed(unsigned int thread);
bool dfs_asleep(unsigned int thread);

/* The execution is wrong. */
void dfs_fail(const char *why);

/* Explores all scenarios. Returns the exit code. */
int dfs_main(int argc, char **argv, const struct dfs_scenario *scenarios, unsigned int n);

#endif
