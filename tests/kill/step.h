/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_STEP_H
#define SHMB_TESTS_STEP_H

/*
 * Run a function in a child process one instruction at a time. What the child has stored in shared
 * memory at that instant is what a SIGKILL there would leave behind: processes are killed between
 * two instructions, and stores that have retired are not taken back.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct step_shared;

/**
 * struct step - a child that waits to be stepped
 * @pid:      the child
 * @shared:   what it tells us
 * @n_points: instants at which it was looked at
 * @scenario: what is being run, for step_fail()
 */
struct step {
	pid_t pid;
	struct step_shared *shared;
	uint64_t n_points;
	char scenario[96];
};

/**
 * step_start() - make a child
 * @step:    filled
 * @body:    run in the child, again and again, each time step_begin() is called
 * @context: for @body; the child has a copy of all private memory as it is now
 *
 * Exits with 77 (skipped) where processes cannot be traced. Both run on one CPU from here on: a
 * step is then two context switches instead of two wake-ups of another CPU.
 */
void step_start(struct step *step, void (*body)(void *context), void *context);

/* Brings the child before the first instruction of @body; a run that is under way is finished. */
void step_begin(struct step *step);

/* One instruction further. Returns false once @body has returned. */
bool step_next(struct step *step);

/* Whether the child stands directly in front of a system call. */
bool step_at_syscall(const struct step *step);

/* Kills the child where it stands, and reaps it. */
void step_kill(struct step *step);

/* Prints a sentence with the scenario and the instruction at which the child stands, and fails the test. */
void step_fail(const struct step *step, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/* Prints the counts; fails the test if there were fewer points than there ought to be. */
void step_report(const char *name, uint64_t n_points, uint64_t n_points_min, uint64_t n_states);

/* SHMB_TEST_QUICK=1 or --quick: a sample in a few seconds. */
bool step_quick(int argc, char **argv);

#endif
