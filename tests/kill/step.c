/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The tracer. The child stops at a breakpoint instruction compiled into its loop, runs the body
 * under PTRACE_SINGLESTEP, and sets a word in shared memory when the body has returned, so that
 * looking for the end costs no system call per step.
 */

#include "step.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77

struct step_shared {
	volatile uint32_t done;
};

#ifdef __x86_64__
/* Stops behind this instruction. */
#define STEP_BREAKPOINT() __asm__ volatile("int3" ::: "memory")

static uint64_t program_counter(const struct step *step)
{
	struct user_regs_struct registers;

	return ptrace(PTRACE_GETREGS, step->pid, NULL, &registers) < 0 ? 0 : registers.rip;
}

bool step_at_syscall(const struct step *step)
{
	uint64_t at = program_counter(step);
	long word;

	errno = 0;
	word = ptrace(PTRACE_PEEKTEXT, step->pid, at, NULL);
	return errno == 0 && (word & 0xffff) == 0x050f;
}
#else
/* The test is about the order of stores in the program, which one architecture shows. */
#define STEP_BREAKPOINT() _exit(SKIPPED)

static uint64_t program_counter(const struct step *step)
{
	(void)step;
	return 0;
}

bool step_at_syscall(const struct step *step)
{
	(void)step;
	return false;
}
#endif

void step_fail(const struct step *step, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n%s, point %llu, instruction 0x%llx (step_start() is at 0x%llx)\n",
		step->scenario, (unsigned long long)step->n_points,
		(unsigned long long)program_counter(step),
		(unsigned long long)(uintptr_t)step_start);
	if (step->pid > 0)
		kill(step->pid, SIGKILL);
	exit(EXIT_FAILURE);
}

static void wait_stop(const struct step *step)
{
	int status;

	if (waitpid(step->pid, &status, 0) != step->pid)
		step_fail(step, "waitpid: %s", strerror(errno));
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		exit(SKIPPED);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
		step_fail(step, "the child got signal %d, status 0x%x",
			  WIFSTOPPED(status) ? WSTOPSIG(status) : 0, (unsigned int)status);
}

/* Not inlined, so that the loop's registers are not spilled inside the part that is counted. */
static void run(struct step_shared *shared, void (*body)(void *context), void *context)
{
	for (;;) {
		shared->done = 0;
		STEP_BREAKPOINT();
		body(context);
		shared->done = 1;
	}
}

static void pin(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((unsigned int)cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

void step_start(struct step *step, void (*body)(void *context), void *context)
{
	pid_t parent = getpid();

	if (!step->shared) {
		step->shared = mmap(NULL, sizeof(*step->shared), PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (step->shared == MAP_FAILED)
			step_fail(step, "mmap: %s", strerror(errno));
		pin();
	}
	step->shared->done = 1;
	fflush(NULL);
	step->pid = fork();
	if (step->pid < 0)
		step_fail(step, "fork: %s", strerror(errno));
	if (step->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent || ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(SKIPPED);
		run(step->shared, body, context);
	}
	wait_stop(step);
	step->shared->done = 2;
}

void step_begin(struct step *step)
{
	/* Fresh from step_start() it stands there already. */
	if (step->shared->done == 2) {
		step->shared->done = 0;
		return;
	}
	if (ptrace(PTRACE_CONT, step->pid, NULL, NULL) < 0)
		step_fail(step, "PTRACE_CONT: %s", strerror(errno));
	wait_stop(step);
}

bool step_next(struct step *step)
{
	step->n_points++;
	if (ptrace(PTRACE_SINGLESTEP, step->pid, NULL, NULL) < 0)
		step_fail(step, "PTRACE_SINGLESTEP: %s", strerror(errno));
	wait_stop(step);
	return !step->shared->done;
}

void step_kill(struct step *step)
{
	kill(step->pid, SIGKILL);
	waitpid(step->pid, NULL, 0);
	step->pid = 0;
}

void step_report(const char *name, uint64_t n_points, uint64_t n_points_min, uint64_t n_states)
{
	printf("%s: %llu kill points, %llu states judged\n", name, (unsigned long long)n_points,
	       (unsigned long long)n_states);
	if (n_points >= n_points_min)
		return;
	fprintf(stderr, "%s: fewer kill points than the %llu there should be\n", name,
		(unsigned long long)n_points_min);
	exit(EXIT_FAILURE);
}

bool step_quick(int argc, char **argv)
{
	const char *quick = getenv("SHMB_TEST_QUICK");

	return (quick && !strcmp(quick, "1")) || (argc > 1 && !strcmp(argv[1], "--quick"));
}
