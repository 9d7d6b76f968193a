/* SPDX-License-Identifier: Apache-2.0 */

/* What the kernel offers to this process, each found by a call that changes nothing. */

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "tools/doctor.h"
#include "tools/place.h"

/* Newer than the headers we may be built with. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446
#endif
#define FUTEX_WAITV_CALL 449 /* the same on every architecture */

static void check_version(struct doctor *doctor)
{
	unsigned major = 0, minor = 0;
	struct utsname name;

	if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2) {
		doctor_add(doctor, DOCTOR_WARNING, "kernel", "its features are checked below",
			   "an unknown version");
		return;
	}
	doctor_add(doctor, major > 5 || (major == 5 && minor >= 4) ? DOCTOR_OK : DOCTOR_WARNING,
		   "kernel", "older than anything that shmbroker is tested with", "Linux %s, %s",
		   name.release, name.machine);
}

static long read_sysctl(const char *path)
{
	char text[32];
	int n = place_read_file(path, text, sizeof(text) - 1);

	if (n <= 0)
		return -1;
	text[n] = '\0';
	return strtol(text, NULL, 10);
}

static void check_uring(struct doctor *doctor)
{
	static const char cost[] = "waiting uses epoll: the same results, more system calls";
	long disabled = read_sysctl("/proc/sys/kernel/io_uring_disabled");
	struct io_uring_params params = { 0 };
	int fd = syscall(SYS_io_uring_setup, 2, &params);

	if (fd >= 0) {
		close(fd);
		doctor_add(doctor, DOCTOR_OK, "io_uring", NULL, "works");
	} else if (errno == ENOSYS) {
		doctor_add(doctor, DOCTOR_MISSING, "io_uring", cost,
			   "this kernel has none, or a seccomp filter says so");
	} else if (errno == EPERM && disabled > 0) {
		doctor_add(doctor, DOCTOR_MISSING, "io_uring", cost,
			   "switched off: the sysctl kernel.io_uring_disabled is %ld", disabled);
	} else if (errno == EPERM || errno == EACCES) {
		doctor_add(doctor, DOCTOR_MISSING, "io_uring", cost,
			   "forbidden by a seccomp filter or security module; containers do that");
	} else if (errno == ENOMEM) {
		doctor_add(doctor, DOCTOR_MISSING, "io_uring", cost,
			   "not enough locked memory allowed: raise RLIMIT_MEMLOCK (ulimit -l)");
	} else {
		doctor_add(doctor, DOCTOR_MISSING, "io_uring", cost, "%s", strerror(errno));
	}
}

static void check_futex_waitv(struct doctor *doctor)
{
	/* With nothing to wait for, a kernel that knows the call says EINVAL. */
	int r = syscall(FUTEX_WAITV_CALL, NULL, 0, 0, NULL, 0);

	doctor_add(doctor, r < 0 && errno == EINVAL ? DOCTOR_OK : DOCTOR_MISSING, "futex_waitv",
		   "a subscriber of several publishers sleeps on an fd: slower to wake",
		   r < 0 && errno == EINVAL ? "works" : "not there (Linux 5.16 has it)");
}

static void check_pidfd(struct doctor *doctor)
{
	int fd = syscall(SYS_pidfd_open, getpid(), 0);
	struct statfs fs;

	if (fd < 0) {
		doctor_add(doctor, DOCTOR_UNUSABLE, "pidfd",
			   "a broker cannot tell for sure that a process has died",
			   "%s (Linux 5.3 has it)", strerror(errno));
		return;
	}
	doctor_add(doctor, DOCTOR_OK, "pidfd", NULL, "works");
	if (fstatfs(fd, &fs) == 0 && fs.f_type == PID_FS_MAGIC)
		doctor_add(doctor, DOCTOR_OK, "pidfs", NULL, "each process has an inode");
	else
		doctor_add(doctor, DOCTOR_MISSING, "pidfs",
			   "processes are told apart by pid and start time, which is enough unless "
			   "the clock tick is shared",
			   "not there (Linux 6.9 has it)");
	close(fd);
}

static void check_peer_pidfd(struct doctor *doctor)
{
	static const char cost[] = "between connect and accept a pid could be reused; the broker "
				   "checks start times instead";
	socklen_t len = sizeof(int);
	int pair[2], fd = -1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		doctor_add(doctor, DOCTOR_UNUSABLE, "unix sockets", "there is no control socket",
			   "%s", strerror(errno));
		return;
	}
	if (getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0 && fd >= 0) {
		close(fd);
		doctor_add(doctor, DOCTOR_OK, "SO_PEERPIDFD", NULL, "works");
	} else {
		doctor_add(doctor, DOCTOR_MISSING, "SO_PEERPIDFD", cost,
			   "not there (Linux 6.5 has it)");
	}
	close(pair[0]);
	close(pair[1]);
}

static void check_memfd(struct doctor *doctor)
{
	static const char cost[] = "channels between different users cannot be sealed";
	int fd = syscall(SYS_memfd_create, "shmctl-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0) {
		doctor_add(doctor, DOCTOR_MISSING, "memfd seals", cost, "%s", strerror(errno));
		return;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) == 0)
		doctor_add(doctor, DOCTOR_OK, "memfd seals", NULL, "work");
	else
		doctor_add(doctor, DOCTOR_MISSING, "memfd seals", cost,
			   "no F_SEAL_FUTURE_WRITE (Linux 5.1 has it)");
	close(fd);
}

static void check_landlock(struct doctor *doctor)
{
	int abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (abi >= 3)
		doctor_add(doctor, DOCTOR_OK, "Landlock", NULL, "ABI %d", abi);
	else if (abi > 0)
		doctor_add(doctor, DOCTOR_MISSING, "Landlock",
			   "a hostile process could truncate the segment it may write, and its "
			   "peers could not be kept from SIGBUS by it",
			   "ABI %d has no right to truncate (ABI 3, Linux 6.2)", abi);
	else
		doctor_add(doctor, DOCTOR_MISSING, "Landlock",
			   "the broker runs with less of a sandbox, and truncation of segments "
			   "is not forbidden",
			   "%s", errno == EOPNOTSUPP ? "switched off at boot" : strerror(errno));
}

static void check_populate(struct doctor *doctor)
{
	size_t len = sysconf(_SC_PAGESIZE);
	void *page = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r = page == MAP_FAILED ? -1 : madvise(page, len, MADV_POPULATE_WRITE);

	doctor_add(doctor, r == 0 ? DOCTOR_OK : DOCTOR_MISSING, "MADV_POPULATE_WRITE",
		   "the first pass through a lane takes page faults",
		   r == 0 ? "works" : "not there (Linux 5.14 has it)");
	if (page != MAP_FAILED)
		munmap(page, len);
}

void doctor_kernel(struct doctor *doctor)
{
	check_version(doctor);
	check_uring(doctor);
	check_futex_waitv(doctor);
	check_pidfd(doctor);
	check_peer_pidfd(doctor);
	check_memfd(doctor);
	check_landlock(doctor);
	check_populate(doctor);
}
