/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_INJECT_H
#define SHMB_TESTS_INJECT_H

/*
 * Lets any system call of a process fail, without the process knowing: a seccomp filter hands the
 * calls that may fail to a supervisor process, which counts them and answers in the kernel's place.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What fails, and what has failed; in memory shared with the supervisor. */
struct inject {
	/* set by inject_arm() */
	uint32_t armed;
	uint32_t at;
	uint32_t turn;
	uint32_t for_ever;
	uint32_t skip_loader;
	/* set by the supervisor */
	uint32_t n_calls;
	uint32_t n_failed;
	int32_t failed_nr;
	int32_t failed_errno;
	/* how to find the filter's fd */
	int32_t victim;
	int32_t listener;
	pid_t supervisor;
};

/* Shared memory for it; NULL: none. */
struct inject *inject_new(void);

/*
 * In the process that is to be the victim (its threads and what it executes included): puts up the
 * filter. Returns 0 or a negative errno value.
 */
int inject_become_victim(struct inject *inject);

/* In its parent: starts the supervisor as soon as the victim has put up its filter. */
int inject_supervise(struct inject *inject);

/*
 * Of the calls from now on that may fail with more than @turn errors, the @at-th fails with that one;
 * @for_ever: and so does every call of that number after it, or a storm of them if they are only
 * interrupted. What the dynamic loader calls does not count after inject->skip_loader was set.
 */
void inject_arm(struct inject *inject, uint32_t at, uint32_t turn, bool for_ever);
void inject_disarm(struct inject *inject);

/* Name of the system call that failed. */
const char *inject_name(const struct inject *inject);

/* Ends the supervisor. */
void inject_free(struct inject *inject);

#endif
