/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_STEP_MACHINE_H
#define SHMB_TESTS_STEP_MACHINE_H

/* What the tracer knows of the machine: breakpoints, registers, stack. */

#include "tests/kill/step.h"

#define SKIPPED 77

struct step_shared {
	volatile uint32_t done;
};

#ifdef __x86_64__
/* Stops behind this instruction. */
#define STEP_BREAKPOINT() __asm__ volatile("int3" ::: "memory")
#else
/* The test is about the order of stores in the program, which one architecture shows. */
#define STEP_BREAKPOINT() _exit(SKIPPED)
#endif

uint64_t step_program_counter(const struct step *step);
uint64_t step_stack_pointer(const struct step *step);

/* Waits until the child stops; any other end or stop than a trap fails the test. */
void step_wait(const struct step *step);

#endif
