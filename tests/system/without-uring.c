/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Run a command where io_uring is refused, as container runtimes and hardened kernels refuse it:
 *
 *	without-uring [--nosys] [--as-nobody] COMMAND [ARGUMENT...]
 *
 * The calls fail with EPERM, or with ENOSYS as in a kernel without them. --as-nobody leaves
 * io_uring alone: the command runs as an ordinary user that may not lock a byte of memory, which
 * older kernels charge rings to. The exit code is the command's; 77 if this machine has no seccomp
 * or the user may not become another one.
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOBODY	  65534
#define EXIT_SKIP 77

static int refuse_uring(unsigned error)
{
	/* Only the numbers matter: 32-bit programs have the same ones for these calls. */
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_enter, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_register, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(filter) / sizeof(filter[0]), .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int become_nobody(void)
{
	struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_MEMLOCK, &none) < 0 || setgroups(0, NULL) < 0)
		return -1;
	return setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0 ? -1
											      : 0;
}

int main(int argc, char **argv)
{
	unsigned error = EPERM;
	int program = -1, i = 1, nobody = 0;

	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		if (strcmp(argv[i], "--nosys") == 0)
			error = ENOSYS;
		else if (strcmp(argv[i], "--as-nobody") == 0)
			nobody = 1;
		else
			break;
	}
	if (i >= argc || argv[i][0] == '-') {
		fprintf(stderr, "usage: without-uring [--nosys] [--as-nobody] COMMAND...\n");
		return 2;
	}
	/* Opened first: the way to a build directory is often closed to others. */
	if (nobody)
		program = open(argv[i], O_PATH | O_CLOEXEC);
	if (nobody ? become_nobody() < 0 : refuse_uring(error) < 0) {
		printf("SKIP: %s: %s\n",
		       nobody ? "cannot become another user" : "no seccomp filter",
		       strerror(errno));
		return EXIT_SKIP;
	}
	if (nobody)
		fexecve(program, argv + i, environ);
	else
		execvp(argv[i], argv + i);
	fprintf(stderr, "without-uring: %s: %s\n", argv[i], strerror(errno));
	return 127;
}
