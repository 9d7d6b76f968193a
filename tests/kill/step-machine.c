/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/kill/step-machine.h"

#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__

#define STACK_MAX    (256u << 10)
#define EXTENDED_MAX (16u << 10)
#define RED_ZONE_LEN 128u /* below the stack pointer, in use all the same */

struct step_state {
	struct user_regs_struct registers;
	size_t extended_len, stack_len;
	uint8_t extended[EXTENDED_MAX];
	uint8_t stack[STACK_MAX];
};

/* A system call for a child that is told to make one, and a stop behind it. */
__asm__(".text\n"
	".type step_syscall_instruction, @function\n"
	"step_syscall_instruction:\n"
	"	syscall\n"
	"	int3\n");
extern const uint8_t step_syscall_instruction[];

static struct user_regs_struct get_registers(const struct step *step)
{
	struct user_regs_struct registers;

	if (ptrace(PTRACE_GETREGS, step->pid, NULL, &registers) < 0)
		memset(&registers, 0, sizeof(registers));
	return registers;
}

static void set_registers(const struct step *step, pid_t pid,
			  const struct user_regs_struct *registers)
{
	if (ptrace(PTRACE_SETREGS, pid, NULL, registers) < 0)
		step_fail(step, "PTRACE_SETREGS: %s", strerror(errno));
}

uint64_t step_program_counter(const struct step *step)
{
	return get_registers(step).rip;
}

uint64_t step_stack_pointer(const struct step *step)
{
	return get_registers(step).rsp;
}

bool step_at_syscall(const struct step *step)
{
	long word;

	errno = 0;
	word = ptrace(PTRACE_PEEKTEXT, step->pid, step_program_counter(step), NULL);
	return errno == 0 && (word & 0xffff) == 0x050f;
}

struct step_state *step_save(struct step *step, struct step_state *state)
{
	struct iovec extended, stack, remote;

	if (!state)
		state = calloc(1, sizeof(*state));
	if (!state)
		step_fail(step, "no memory");
	state->registers = get_registers(step);
	extended = (struct iovec){ state->extended, EXTENDED_MAX };
	if (ptrace(PTRACE_GETREGSET, step->pid, (void *)(uintptr_t)NT_X86_XSTATE, &extended) < 0)
		step_fail(step, "PTRACE_GETREGSET: %s", strerror(errno));
	state->extended_len = extended.iov_len;
	state->stack_len = step->stack_end - state->registers.rsp + RED_ZONE_LEN;
	if (state->stack_len > STACK_MAX)
		step_fail(step, "%zu bytes of stack", state->stack_len);
	stack = (struct iovec){ state->stack, state->stack_len };
	remote = (struct iovec){ (void *)(uintptr_t)(state->registers.rsp - RED_ZONE_LEN),
				 state->stack_len };
	if (process_vm_readv(step->pid, &stack, 1, &remote, 1, 0) != (ssize_t)state->stack_len)
		step_fail(step, "process_vm_readv: %s", strerror(errno));
	return state;
}

void step_restore(struct step *step, const struct step_state *state)
{
	struct iovec extended = { (void *)(uintptr_t)state->extended, state->extended_len };
	struct iovec stack = { (void *)(uintptr_t)state->stack, state->stack_len };
	struct iovec remote = { (void *)(uintptr_t)(state->registers.rsp - RED_ZONE_LEN),
				state->stack_len };

	set_registers(step, step->pid, &state->registers);
	if (ptrace(PTRACE_SETREGSET, step->pid, (void *)(uintptr_t)NT_X86_XSTATE, &extended) < 0)
		step_fail(step, "PTRACE_SETREGSET: %s", strerror(errno));
	if (process_vm_writev(step->pid, &stack, 1, &remote, 1, 0) != (ssize_t)state->stack_len)
		step_fail(step, "process_vm_writev: %s", strerror(errno));
	step->shared->done = 0;
}

pid_t step_fork(struct step *step)
{
	struct user_regs_struct here = get_registers(step), call = here;
	unsigned long pid = 0;
	int status;

	/* CLONE_PARENT: it is our child, so that we reap it. */
	call.rip = (uint64_t)(uintptr_t)step_syscall_instruction;
	call.rax = SYS_clone;
	call.orig_rax = UINT64_MAX;
	call.rdi = CLONE_PARENT | SIGCHLD;
	call.rsi = call.rdx = call.r10 = call.r8 = 0;
	set_registers(step, step->pid, &call);
	if (ptrace(PTRACE_CONT, step->pid, NULL, NULL) < 0 ||
	    waitpid(step->pid, &status, 0) != step->pid ||
	    status >> 8 != (SIGTRAP | PTRACE_EVENT_FORK << 8) ||
	    ptrace(PTRACE_GETEVENTMSG, step->pid, NULL, &pid) < 0)
		step_fail(step, "it does not fork");
	if (waitpid((pid_t)pid, &status, __WALL) != (pid_t)pid || !WIFSTOPPED(status))
		step_fail(step, "its fork does not stop");
	set_registers(step, (pid_t)pid, &here);
	if (ptrace(PTRACE_CONT, step->pid, NULL, NULL) < 0)
		step_fail(step, "PTRACE_CONT: %s", strerror(errno));
	step_wait(step);
	set_registers(step, step->pid, &here);
	return (pid_t)pid;
}

void step_kill_pid(struct step *step, pid_t pid)
{
	int status;

	if (kill(pid, SIGKILL) < 0 || waitpid(pid, &status, __WALL) != pid ||
	    !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		step_fail(step, "process %d is not killed", (int)pid);
}

#else

uint64_t step_program_counter(const struct step *step)
{
	(void)step;
	return 0;
}

uint64_t step_stack_pointer(const struct step *step)
{
	(void)step;
	return 0;
}

bool step_at_syscall(const struct step *step)
{
	(void)step;
	return false;
}

struct step_state *step_save(struct step *step, struct step_state *state)
{
	(void)step;
	return state;
}

void step_restore(struct step *step, const struct step_state *state)
{
	(void)step;
	(void)state;
}

pid_t step_fork(struct step *step)
{
	return step->pid;
}

void step_kill_pid(struct step *step, pid_t pid)
{
	(void)step;
	(void)pid;
}

#endif
