/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The tracer. The child stops at a breakpoint instruction compiled into its loop, runs the body
 * under PTRACE_SINGLESTEP, and sets a word in shared memory when the body has returned, so that
 * looking for the end costs no system call per step.
 */

#include "lib/clock.h"

#include "tests/kill/step-machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void step_fail(const struct step *step, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n%s, point %llu, instruction 0x%llx (step_start() is at 0x%llx)\n",
		step->scenario, (unsigned long long)step->n_points,
		(unsigned long long)step_program_counter(step),
		(unsigned long long)(uintptr_t)step_start);
	if (step->pid > 0)
		kill(step->pid, SIGKILL);
	exit(EXIT_FAILURE);
}

void step_wait(const struct step *step)
{
	int status;

	if (waitpid(step->pid, &status, 0) != step->pid) {
		if (errno != EINTR)
			step_fail(step, "waitpid: %s", strerror(errno));
		kill(step->pid, SIGSTOP);
		waitpid(step->pid, &status, 0);
		step_fail(step, "it runs on and on");
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		exit(SKIPPED);
	/* Bit 7: PTRACE_O_TRACESYSGOOD. */
	if (!WIFSTOPPED(status) || (WSTOPSIG(status) & 0x7f) != SIGTRAP)
		step_fail(step, "the child got signal %d, status 0x%x",
			  WIFSTOPPED(status) ? WSTOPSIG(status) : 0, (unsigned int)status);
}

/* Not inlined, so that the loop's registers are not spilled inside the part that is counted. */
static void run(struct step_shared *shared, void (*body)(void *context), void *context)
{
	for (;;) {
		STEP_BREAKPOINT();
		body(context);
		shared->done = 1;
	}
}

#define YIELDS_MAX     20
#define POINTS_BETWEEN 4096
#define PATIENCE_S     150 /* for what takes microseconds on an idle machine */

/* Without SA_RESTART, so that waitpid() returns. */
static void on_alarm(int signal)
{
	(void)signal;
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
		sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	}
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
	step_wait(step);
	ptrace(PTRACE_SETOPTIONS, step->pid, NULL,
	       (void *)(uintptr_t)(PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK));
	step->shared->done = 2;
}

void step_begin(struct step *step)
{
	/* Fresh from step_start() it stands there already. */
	if (step->shared->done != 2) {
		if (ptrace(PTRACE_CONT, step->pid, NULL, NULL) < 0)
			step_fail(step, "PTRACE_CONT: %s", strerror(errno));
		step_wait(step);
	}
	step->shared->done = 0;
	step->stack_end = step_stack_pointer(step);
}

/*
 * Two processes that wake each other for each instruction can keep all others from their processor for
 * a minute (Linux 6.18: "workqueue lockup"), unless both sleep now and then.
 */
static void count_point(struct step *step)
{
	struct timespec pause = { .tv_nsec = 500000 };

	if (++step->n_points % POINTS_BETWEEN == 0)
		nanosleep(&pause, NULL);
}

bool step_next(struct step *step)
{
	count_point(step);
	if (ptrace(PTRACE_SINGLESTEP, step->pid, NULL, NULL) < 0)
		step_fail(step, "PTRACE_SINGLESTEP: %s", strerror(errno));
	step_wait(step);
	return !step->shared->done;
}

/* Behind the end of the body it has come to the breakpoint: as after step_start(). */
static bool has_returned(struct step *step)
{
	if (step->shared->done == 1)
		step->shared->done = 2;
	return step->shared->done;
}

bool step_syscall(struct step *step)
{
	count_point(step);
	if (ptrace(PTRACE_SYSCALL, step->pid, NULL, NULL) < 0)
		step_fail(step, "PTRACE_SYSCALL: %s", strerror(errno));
	step_wait(step);
	return !has_returned(step);
}

void step_finish(struct step *step)
{
	alarm(PATIENCE_S);
	if (ptrace(PTRACE_CONT, step->pid, NULL, NULL) < 0)
		step_fail(step, "PTRACE_CONT: %s", strerror(errno));
	step_wait(step);
	alarm(0);
	if (!step->shared->done)
		step_fail(step, "it stopped before the end");
	step->shared->done = 2; /* as after step_start() */
}

/* Does it wait for something else than a processor? */
static bool is_asleep(const struct step *step)
{
	char path[32], text[256] = "";
	const char *state;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)step->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	if (fd >= 0)
		close(fd);
	state = strrchr(text, ')');
	return state && state[1] && state[2] == 'S';
}

int step_syscall_within(struct step *step, uint32_t timeout_ms)
{
	uint64_t timeout_ns = timeout_ms * 1000000ull, end = shmb_clock_now_ns() + timeout_ns;
	struct timespec pause = { .tv_nsec = 20000 };
	siginfo_t info = { 0 };
	int n_yields = 0;

	if (!step->running && ptrace(PTRACE_SYSCALL, step->pid, NULL, NULL) < 0)
		step_fail(step, "PTRACE_SYSCALL: %s", strerror(errno));
	step->running = true;
	/*
	 * On one CPU it runs while we yield, or sleep: one that yields for long with nobody to yield to
	 * makes Linux 6.18 forget others for a minute and more.
	 */
	while (waitid(P_PID, (id_t)step->pid, &info, WSTOPPED | WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == 0) {
		if (shmb_clock_now_ns() > end) {
			if (is_asleep(step))
				return -ETIMEDOUT;
			end = shmb_clock_now_ns() + timeout_ns;
		}
		if (++n_yields <= YIELDS_MAX)
			sched_yield();
		else
			nanosleep(&pause, NULL);
	}
	step_wait(step);
	step->running = false;
	step->n_points++;
	return !has_returned(step);
}

bool step_in_syscall(const struct step *step)
{
	struct __ptrace_syscall_info info = { 0 };

	return ptrace(PTRACE_GET_SYSCALL_INFO, step->pid, (void *)sizeof(info), &info) > 0 &&
	       info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

void step_release(struct step *step)
{
	if (ptrace(PTRACE_CONT, step->pid, NULL, NULL) < 0)
		step_fail(step, "PTRACE_CONT: %s", strerror(errno));
}

void step_interrupt(struct step *step)
{
	int status;

	kill(step->pid, SIGSTOP);
	for (;;) {
		if (waitpid(step->pid, &status, 0) != step->pid || !WIFSTOPPED(status))
			step_fail(step, "it cannot be stopped");
		if (WSTOPSIG(status) == SIGSTOP)
			break;
		/* On its way to the next system call, or out of the one that was interrupted. */
		if (!step->running || (WSTOPSIG(status) & 0x7f) != SIGTRAP)
			step_fail(step, "it stops for signal %d", WSTOPSIG(status));
		step_release(step);
	}
	step->running = false;
}

void step_kill(struct step *step)
{
	kill(step->pid, SIGKILL);
	waitpid(step->pid, NULL, 0);
	step->pid = 0;
	step->running = false;
}

void step_forget(struct step *step)
{
	munmap(step->shared, sizeof(*step->shared));
	*step = (struct step){ 0 };
}

void step_table(const char *test, const struct step_row *rows, uint32_t n_rows, uint32_t divisor)
{
	static const char *const modes[] = { "snapshots", "pairs", "kills", "zombies" };
	static const char *const sums[] = { "instants at which a process would have been killed",
					    "interleavings of two processes",
					    "processes killed at a chosen instruction",
					    "processes thrown out at a chosen instruction" };
	uint64_t totals[STEP_N_MODES] = { 0 };
	bool short_of = false;

	for (uint32_t i = 0; i < n_rows; i++)
		for (uint32_t mode = 0; mode < STEP_N_MODES; mode++) {
			uint64_t n = rows[i].n[mode], min = rows[i].min[mode] / divisor;

			totals[mode] += n;
			if (!n && !min)
				continue;
			printf("%s: %s: %llu %s\n", test, rows[i].name, (unsigned long long)n,
			       modes[mode]);
			if (n >= min)
				continue;
			fprintf(stderr, "%s: %s: fewer %s than %llu\n", test, rows[i].name,
				modes[mode], (unsigned long long)min);
			short_of = true;
		}
	for (uint32_t mode = 0; mode < STEP_N_MODES; mode++)
		if (totals[mode])
			printf("counted: %llu %s\n", (unsigned long long)totals[mode], sums[mode]);
	if (short_of)
		exit(EXIT_FAILURE);
}

bool step_quick(int argc, char **argv)
{
	const char *quick = getenv("SHMB_TEST_QUICK");

	return (quick && !strcmp(quick, "1")) || (argc > 1 && !strcmp(argv[1], "--quick"));
}
