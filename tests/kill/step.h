/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_STEP_H
#define SHMB_TESTS_STEP_H

/*
 * Run a function in a child process one instruction at a time. What the child has stored in shared
 * memory at that instant is what a SIGKILL there would leave behind: processes are killed between
 * two instructions, and stores that have retired are not taken back.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A sanitizer puts so many instructions between any two that counts mean little. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STEP_SANITIZED 1
#endif
#endif
#ifndef STEP_SANITIZED
#define STEP_SANITIZED 0
#endif

struct step_shared;
struct step_state;

/**
 * struct step - a child that waits to be stepped
 * @pid:       the child
 * @shared:    what it tells us
 * @stack_end: its stack pointer outside of the body
 * @running:   on its way to the next system call
 * @n_points:  instants at which it was looked at
 * @scenario:  what is being run, for step_fail()
 */
struct step {
	pid_t pid;
	struct step_shared *shared;
	uint64_t stack_end;
	bool running;
	uint64_t n_points;
	char scenario[96];
};

/* What can become of a process that stands between two instructions. */
enum step_mode {
	STEP_SNAPSHOT, /* it is gone, and the survivors play on with a copy of what it left */
	STEP_PAIR, /* another one runs, then it goes on, or is gone */
	STEP_KILL, /* it is really killed */
	STEP_ZOMBIE, /* it is given up and replaced, and then goes on */
	STEP_N_MODES
};

/**
 * struct step_row - one line of the table of what is covered
 * @name: the operation
 * @n:    instants, by enum step_mode
 * @min:  fewer are a failure
 */
struct step_row {
	const char *name;
	uint64_t n[STEP_N_MODES];
	uint64_t min[STEP_N_MODES];
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

/**
 * step_syscall() - run to the next entry or exit of a system call
 * @step: child
 *
 * Return: false once @body has returned.
 */
bool step_syscall(struct step *step);

/**
 * step_syscall_within() - the same, but do not wait for ever
 * @step:       child
 * @timeout_ms: how long it may sleep in the system call
 *
 * Return: 1; 0: @body has returned; -ETIMEDOUT: it runs on, and may be asked again.
 */
int step_syscall_within(struct step *step, uint32_t timeout_ms);

/* Whether it stopped in front of the kernel, in a system call that is about to be made. */
bool step_in_syscall(const struct step *step);

/* Lets the child run, until step_interrupt() stops it where it is. */
void step_release(struct step *step);
void step_interrupt(struct step *step);

/* Runs to the end of @body. */
void step_finish(struct step *step);

/**
 * step_save() - remember where the child stands
 * @step:  child, between step_begin() and the end of @body
 * @state: from an earlier call, or NULL
 *
 * Return: registers and stack. What else of its memory the body changes is the caller's: it is best
 *	   kept in memory that both share.
 */
struct step_state *step_save(struct step *step, struct step_state *state);

/* Puts the child back to where it stood, as often as wanted. */
void step_restore(struct step *step, const struct step_state *state);

/**
 * step_fork() - let the child fork where it stands
 * @step: child; stays where it is
 *
 * Return: another process that stands at the same instruction.
 */
pid_t step_fork(struct step *step);

/* Kills a process of step_fork(), and reaps it. */
void step_kill_pid(struct step *step, pid_t pid);

/* Whether the child stands directly in front of a system call. */
bool step_at_syscall(const struct step *step);

/* Kills the child where it stands, and reaps it. */
void step_kill(struct step *step);

/* The child has ended by itself. */
void step_forget(struct step *step);

/* Prints a sentence with the scenario and the instruction at which the child stands, and fails the test. */
void step_fail(const struct step *step, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/**
 * step_table() - print what was covered, one line per operation and mode
 * @test:    name of the test
 * @rows:    operations
 * @n_rows:  of them
 * @divisor: of the minima, for a sample
 *
 * Fails the test if something was covered less than it ought to be.
 */
void step_table(const char *test, const struct step_row *rows, uint32_t n_rows, uint32_t divisor);

/* SHMB_TEST_QUICK=1 or --quick: a sample in a few seconds. */
bool step_quick(int argc, char **argv);

#endif
