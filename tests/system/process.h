/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_PROCESS_H
#define SHMB_TESTS_PROCESS_H

/* A shmbrokerd of a test's own, what it uses, and what it must not leave behind. */

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/runtime.h"

#include "tests/unit/fixture.h"

/**
 * struct process - a running broker
 * @pid:      of shmbrokerd
 * @dir:      its directory
 * @address:  its socket
 * @instance: in the names of its segments
 */
struct process {
	pid_t pid;
	char dir[32];
	char address[64];
	uint64_t instance;
};

/*
 * The line with which a broker says that it is ready, or why not. To the end: it closes the pipe a
 * moment later, and who counts its fds must not count that one. Returns its length.
 */
static inline size_t process_read_ready(int fd, char *line, size_t cap)
{
	size_t len = 0;
	ssize_t n;

	while (len + 1 < cap && (n = read(fd, line + len, cap - len - 1)) > 0)
		len += (size_t)n;
	line[len] = '\0';
	close(fd);
	return len;
}

/*
 * Starts shmbrokerd in its directory. @limit is called in the new process before it becomes a broker,
 * and @meanwhile in this one before it is waited for; or NULL.
 */
static inline void process_start(struct process *process, void (*limit)(void),
				 void (*meanwhile)(void))
{
	const char *build = getenv("top_builddir");
	char program[512], line[512], number[16];
	int ready[2];

	snprintf(program, sizeof(program), "%s/shmbrokerd", build ? build : ".");
	ck_assert_int_eq(pipe(ready), 0);
	process->pid = fork();
	if (process->pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ready[0]);
		if (!getenv("SHMB_TEST_LOG"))
			dup2(null, 2);
		snprintf(number, sizeof(number), "%d", ready[1]);
		if (limit)
			limit();
		execl(program, program, "--user", "--idle-exit=0", "--directory", process->dir,
		      "--ready-fd", number, NULL);
		_exit(127);
	}
	close(ready[1]);
	if (meanwhile)
		meanwhile();
	process_read_ready(ready[0], line, sizeof(line));
	ck_assert_msg(strcmp(line, "ready\n") == 0, "%s does not start: %s", program, line);
}

static inline void process_kill(const struct process *process)
{
	kill(process->pid, SIGKILL);
	ck_assert_int_eq(waitpid(process->pid, NULL, 0), process->pid);
}

static inline struct process process_begin_watched(void (*limit)(void), void (*meanwhile)(void))
{
	struct process process = { .dir = "/tmp/shmb-test.XXXXXX" };
	char instance[17];

	ck_assert_ptr_nonnull(mkdtemp(process.dir));
	snprintf(process.address, sizeof(process.address), "%s/" SHMB_SOCKET_FILE, process.dir);
	process_start(&process, limit, meanwhile);
	ck_assert_int_eq(shmb_runtime_instance(process.dir, &process.instance), 0);
	snprintf(instance, sizeof(instance), "%016llx", (unsigned long long)process.instance);
	gate_watch(instance);
	return process;
}

static inline struct process process_begin(void (*limit)(void))
{
	return process_begin_watched(limit, NULL);
}

static inline unsigned process_objects(const struct process *process)
{
	char prefix[32];
	struct dirent *found;
	DIR *shm = opendir("/dev/shm");
	unsigned n = 0;

	snprintf(prefix, sizeof(prefix), "shmb.%016llx.", (unsigned long long)process->instance);
	while ((found = readdir(shm)))
		n += strncmp(found->d_name, prefix, strlen(prefix)) == 0;
	closedir(shm);
	return n;
}

/* Entries of a directory of /proc; 0: not for us to see. */
static inline unsigned process_entries(pid_t pid, const char *what)
{
	char path[64];
	struct dirent *found;
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
	dir = opendir(path);
	if (!dir)
		return 0;
	while ((found = readdir(dir)))
		n += isdigit((unsigned char)found->d_name[0]) != 0;
	closedir(dir);
	return n;
}

/* Processor time that a process has used. */
static inline uint64_t process_cpu_ms(pid_t pid)
{
	unsigned long user, kernel;
	char path[32];
	FILE *file;
	int n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	n = fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
		   &kernel);
	fclose(file);
	ck_assert_int_eq(n, 2);
	return (user + kernel) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

static inline uint64_t process_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline int process_is_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return 1;
#else
	return 0;
#endif
}

/* It must end by itself when told to, and leave no object and no file but its keys. */
static inline void process_end(struct process *process)
{
	static const char *const keys[] = { SHMB_PRIVATE_FILE, SHMB_PUBLIC_FILE };
	char path[64];
	int status;

	/* A broker that ends before it has heard of its clients' end keeps their segments. */
	for (int i = 0; i < 400 && process_objects(process) > 1; i++)
		usleep(5000);
	ck_assert_int_eq(kill(process->pid, SIGTERM), 0);
	ck_assert_int_eq(waitpid(process->pid, &status, 0), process->pid);
	ck_assert_msg(status == 0, "the broker ended with status 0x%x", status);
	ck_assert_uint_eq(process_objects(process), 0);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", process->dir, keys[i]);
		unlink(path);
	}
	ck_assert_int_eq(rmdir(process->dir), 0);
}

#endif
