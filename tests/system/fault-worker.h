/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_FAULT_WORKER_H
#define SHMB_TESTS_FAULT_WORKER_H

/*
 * Most of the time of a fault is waiting: for what does not come, and for things to be tidied up.
 * So many workers, each with a broker of its own, have faults at the same time.
 */

#include <stdbool.h>
#include <stdint.h>

#include "tests/system/inject.h"

/**
 * struct worker - one of them
 * @n_faults: system calls that failed
 * @longest:  calls that could fail in one round
 * @n_rounds: that it has finished
 * @instance: of its broker
 */
struct worker {
	uint64_t n_faults;
	uint32_t longest;
	uint32_t n_rounds;
	char instance[17];
};

/**
 * struct fault_work - what the worker in this process does
 * @worker:  itself, shared with its parent
 * @inject:  its faults
 * @io:      SHMBROKER_IO of its processes
 * @backing: SHMB_BACKING_* of what newcomers create
 */
extern struct fault_work {
	struct worker *worker;
	struct inject *inject;
	const char *io;
	uint32_t backing;
} fault_work;

/* Does this machine let us do all this? */
bool fault_can_inject(void);

bool fault_is_quick(void);

/* The fault that was injected last, for a sentence. */
const char *fault_name(void);

/* In a process that is to be the victim, and in its parent meanwhile. */
void fault_become_victim(void);
void fault_supervise(void);
void fault_end_supervisor(void);

/**
 * fault_for_every() - have all the faults of one kind of process
 * @attempt: has the @at-th of the calls fail with the @turn-th of its errors, once or for @ever
 *
 * Calls @attempt for each of this worker's share of the calls, each error, once and for ever, until
 * no call is left to fail. Every call fails in the first round, but in quick mode; the rounds after
 * go through the other errors for as long as there is time.
 */
void fault_for_every(void (*attempt)(uint32_t at, uint32_t turn, bool ever));

/**
 * fault_all_work() - run something in all workers
 * @what:   for what is printed
 * @work:   it
 * @wanted: so many faults they must have injected at least
 * @watch:  told of the instance of each of their brokers
 */
void fault_all_work(const char *what, void (*work)(void), uint64_t wanted,
		    void (*watch)(const char *instance));

#endif
