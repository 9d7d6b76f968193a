/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/system/inject.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_ERRNOS_MAX 7

#define STORM 100 /* nobody is interrupted for ever */

/*
 * What the manual says each call may fail with, as far as its caller can do something about it. Not
 * close() and munmap(), which would have to be done all the same, nor brk(), which returns no errors.
 */
static const struct call {
	int nr;
	const char *name;
	int errnos[N_ERRNOS_MAX];
} calls[] = {
#define CALL(name, ...)             \
	{                           \
		__NR_##name, #name, \
		{                   \
			__VA_ARGS__ \
		}                   \
	}
	CALL(openat, EMFILE, ENFILE, ENOMEM, ENOSPC, EACCES, EINTR, EIO),
	CALL(mkdirat, ENOSPC, EACCES, ENOMEM, EIO),
#ifdef __NR_mkdir
	CALL(mkdir, ENOSPC, EACCES, ENOMEM, EIO),
#endif
	CALL(renameat, ENOSPC, EACCES, ENOMEM, EIO),
	CALL(renameat2, ENOSPC, EACCES, ENOMEM, EIO, EINVAL),
#ifdef __NR_rename
	CALL(rename, ENOSPC, EACCES, ENOMEM, EIO),
#endif
#ifdef __NR_chmod
	CALL(chmod, EPERM, EIO, ENOMEM),
#endif
	CALL(fchmodat, EPERM, EIO, ENOMEM),
	CALL(fchmod, EPERM, EIO),
	CALL(ftruncate, EINTR, EIO, EPERM, EFBIG),
	CALL(fallocate, ENOSPC, EINTR, EIO, EPERM, ENOMEM, EOPNOTSUPP),
	CALL(fsync, EIO, ENOSPC, EINTR),
	CALL(flock, EINTR, ENOLCK, EWOULDBLOCK),
	CALL(getdents64, ENOMEM, EIO),
	CALL(read, EINTR, EAGAIN, EIO),
	CALL(write, EINTR, EAGAIN, EIO, ENOSPC),
	CALL(pread64, EINTR, EIO),
	CALL(pwrite64, EINTR, EIO, ENOSPC),
#ifdef __NR_newfstatat
	CALL(newfstatat, ENOMEM, EACCES, EIO),
#endif
	CALL(fstat, ENOMEM, EIO),
	CALL(fstatfs, ENOMEM, EINTR, EIO, ENOSYS),
	CALL(fcntl, EMFILE, ENOMEM, EINTR, EPERM),
	CALL(mmap, ENOMEM, EAGAIN, EPERM, ENFILE, EACCES),
	CALL(mremap, ENOMEM, EAGAIN),
	CALL(madvise, EAGAIN, ENOMEM, EINVAL, EFAULT, EIO),
	CALL(socket, EMFILE, ENFILE, ENOMEM, ENOBUFS, EACCES),
	CALL(socketpair, EMFILE, ENFILE, ENOMEM, ENOBUFS),
	CALL(connect, EAGAIN, ECONNREFUSED, EINTR, EACCES, EPERM),
	CALL(bind, EACCES, EADDRINUSE, ENOMEM, EROFS),
	CALL(listen, EADDRINUSE, EOPNOTSUPP),
	CALL(accept4, EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EINTR, EPERM),
	CALL(getsockopt, ENOBUFS, ENOMEM, EPERM),
	CALL(setsockopt, ENOMEM, EPERM, ENOPROTOOPT),
	CALL(sendmsg, EAGAIN, EINTR, ENOMEM, ECONNRESET, EPIPE, ENOBUFS, ETOOMANYREFS),
	CALL(recvmsg, EAGAIN, EINTR, ENOMEM, ECONNRESET),
	CALL(sendto, EAGAIN, EINTR, ENOMEM, ECONNRESET, EPIPE, ENOBUFS),
	CALL(recvfrom, EAGAIN, EINTR, ENOMEM, ECONNRESET),
#ifdef __NR_poll
	CALL(poll, EINTR, ENOMEM),
#endif
	CALL(ppoll, EINTR, ENOMEM),
	CALL(epoll_create1, EMFILE, ENFILE, ENOMEM),
	CALL(epoll_ctl, ENOMEM, ENOSPC),
#ifdef __NR_epoll_wait
	CALL(epoll_wait, EINTR),
#endif
	CALL(epoll_pwait, EINTR),
	CALL(eventfd2, EMFILE, ENFILE, ENOMEM),
	CALL(timerfd_create, EMFILE, ENFILE, ENOMEM),
	CALL(signalfd4, EMFILE, ENFILE, ENOMEM),
	CALL(memfd_create, EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM),
	CALL(pidfd_open, EMFILE, ENFILE, ENOMEM, ENOSYS),
	CALL(clone3, EAGAIN, ENOMEM, EPERM, ENOSYS),
	CALL(clone, EAGAIN, ENOMEM, EPERM),
	CALL(futex, EINTR, EAGAIN),
	CALL(landlock_create_ruleset, ENOSYS, EMFILE, ENOMEM),
	CALL(landlock_restrict_self, EPERM, ENOMEM),
	CALL(io_uring_setup, ENOMEM, EPERM, ENOSYS, EMFILE, ENFILE),
	CALL(io_uring_enter, EINTR, EAGAIN, EBUSY, ENOMEM),
	CALL(io_uring_register, ENOMEM, EINVAL, EBUSY, EPERM),
#undef CALL
};

#define N_CALLS (sizeof(calls) / sizeof(calls[0]))

static const struct call *call_of(int nr)
{
	for (size_t i = 0; i < N_CALLS; i++)
		if (calls[i].nr == nr)
			return &calls[i];
	return NULL;
}

static uint32_t n_errnos(const struct call *call)
{
	uint32_t n = 0;

	while (n < N_ERRNOS_MAX && call->errnos[n])
		n++;
	return n;
}

struct inject *inject_new(void)
{
	struct inject *inject = mmap(NULL, sizeof(*inject), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return inject == MAP_FAILED ? NULL : inject;
}

int inject_become_victim(struct inject *inject)
{
	struct sock_filter filter[N_CALLS + 3];
	struct sock_fprog program = { .filter = filter };
	unsigned n = 0;
	long fd;

	/* Only numbers: nothing here runs programs of another word size. */
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						   offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < N_CALLS; i++)
		filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							   (uint32_t)calls[i].nr,
							   (uint8_t)(N_CALLS - i), 0);
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	program.len = (unsigned short)n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	fd = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
		     &program);
	if (fd < 0) {
		int r = -errno;

		__atomic_store_n(&inject->victim, -1, __ATOMIC_RELEASE);
		return r;
	}
	inject->listener = (int32_t)fd;
	__atomic_store_n(&inject->victim, getpid(), __ATOMIC_RELEASE);
	/* The supervisor takes it from us; it says so by clearing the number. */
	while (__atomic_load_n(&inject->victim, __ATOMIC_ACQUIRE) != 0)
		sched_yield();
	close((int)fd);
	return 0;
}

/* A private futex is a lock within the process; glibc takes an impossible answer for corruption. */
static bool may_fail(const struct seccomp_data *data)
{
	if (data->nr == __NR_futex)
		return !(data->args[1] & FUTEX_PRIVATE_FLAG) &&
		       (data->args[1] & FUTEX_CMD_MASK) == FUTEX_WAIT;
	return true;
}

struct range {
	uint64_t start, end;
};

/* The mapping of @pid that holds an address. */
static struct range mapping_of(pid_t pid, uint64_t address)
{
	struct range range = { 1, 1 };
	unsigned long long start, end;
	char path[32], line[512];
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%llx-%llx", &start, &end) == 2 && start <= address &&
		    address < end)
			range = (struct range){ start, end };
	if (maps)
		fclose(maps);
	return range;
}

static int error_for(struct inject *inject, const struct seccomp_notif *request)
{
	const struct seccomp_data *data = &request->data;
	const struct call *call = call_of(data->nr);
	static struct range loader;
	uint32_t n;

	/* The first call of a program is its loader's. */
	if (inject->skip_loader) {
		if (!loader.end)
			loader = mapping_of((pid_t)request->pid, data->instruction_pointer);
		if (data->instruction_pointer - loader.start < loader.end - loader.start)
			return 0;
	}
	if (!__atomic_load_n(&inject->armed, __ATOMIC_ACQUIRE) || !call || !may_fail(data))
		return 0;
	n = n_errnos(call);
	if (inject->n_failed == 0) {
		if (n <= inject->turn || inject->n_calls++ < inject->at)
			return 0;
		inject->failed_nr = data->nr;
		inject->failed_errno = call->errnos[inject->turn];
	} else if (!inject->for_ever || data->nr != inject->failed_nr ||
		   (inject->failed_errno == EINTR && inject->n_failed >= STORM)) {
		return 0;
	}
	inject->n_failed++;
	return -inject->failed_errno;
}

static _Noreturn void supervise(struct inject *inject, int fd)
{
	struct pollfd entry = { .fd = fd, .events = POLLIN };

	for (;;) {
		struct seccomp_notif request;
		struct seccomp_notif_resp answer;

		memset(&request, 0, sizeof(request));
		memset(&answer, 0, sizeof(answer));
		if (poll(&entry, 1, -1) < 0 || (entry.revents & POLLHUP))
			_exit(0);
		/* ENOENT: the victim was killed, or a signal came, before we could ask. */
		if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &request) < 0)
			continue;
		answer.id = request.id;
		answer.error = error_for(inject, &request);
		if (answer.error == 0)
			answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
}

int inject_supervise(struct inject *inject)
{
	int32_t victim;
	int pidfd, fd;
	pid_t pid;

	while ((victim = __atomic_load_n(&inject->victim, __ATOMIC_ACQUIRE)) == 0)
		usleep(100);
	if (victim < 0)
		return -ENOSYS;
	pidfd = (int)syscall(__NR_pidfd_open, victim, 0);
	fd = pidfd < 0 ? -1 : (int)syscall(__NR_pidfd_getfd, pidfd, inject->listener, 0);
	if (pidfd >= 0)
		close(pidfd);
	if (fd < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		supervise(inject, fd);
	}
	close(fd);
	inject->supervisor = pid;
	__atomic_store_n(&inject->victim, 0, __ATOMIC_RELEASE);
	return pid < 0 ? -errno : 0;
}

void inject_arm(struct inject *inject, uint32_t at, uint32_t turn, bool for_ever)
{
	inject->at = at;
	inject->turn = turn;
	inject->for_ever = for_ever;
	inject->n_calls = 0;
	inject->n_failed = 0;
	__atomic_store_n(&inject->armed, 1, __ATOMIC_RELEASE);
}

void inject_disarm(struct inject *inject)
{
	__atomic_store_n(&inject->armed, 0, __ATOMIC_RELEASE);
}

const char *inject_name(const struct inject *inject)
{
	const struct call *call = call_of(inject->failed_nr);

	return call ? call->name : "?";
}

void inject_free(struct inject *inject)
{
	if (inject->supervisor > 0) {
		kill(inject->supervisor, SIGKILL);
		waitpid(inject->supervisor, NULL, 0);
	}
	munmap(inject, sizeof(*inject));
}
