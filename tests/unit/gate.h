/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_GATE_H
#define SHMB_TESTS_GATE_H

/*
 * The leak gate: what a test has open, mapped, running and in /dev/shm before it, it has after it.
 * A case made by gated_case() is held to that, outside of all fixtures that are added to it.
 */

#include <check.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * Check notes each assertion that holds, in a file that a test shares with those it forks. One that is
 * killed meanwhile would leave half a note, and nobody could read what follows: only the test itself,
 * whose process group it is, notes anything.
 */
#undef ck_assert_msg
#define ck_assert_msg(expr, ...) \
	((expr) ? (getpgrp() == getpid() ? mark_point() : (void)0) : ck_abort_msg(__VA_ARGS__))
#undef ck_assert
#define ck_assert(expr) ck_assert_msg(expr, "Assertion '%s' failed", #expr)

#define GATE_FDS_MAX	   1024
#define GATE_INSTANCES_MAX 64

static struct {
	uint8_t open[GATE_FDS_MAX];
	unsigned n_mappings;
	char instances[GATE_INSTANCES_MAX][17];
	unsigned n_instances;
} gate __attribute__((unused));

/* Nothing of this broker may be left in /dev/shm. */
static inline void gate_watch(const char *instance)
{
	for (unsigned i = 0; i < gate.n_instances; i++)
		if (strcmp(gate.instances[i], instance) == 0)
			return;
	if (gate.n_instances < GATE_INSTANCES_MAX)
		snprintf(gate.instances[gate.n_instances++], sizeof(gate.instances[0]), "%s",
			 instance);
}

/* Mappings of segments, of memory files and of rings; prints those if wanted. */
static inline unsigned gate_mappings(int print)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	while (maps && fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "/shmb.") && !strstr(line, "/memfd:") &&
		    !strstr(line, "io_uring"))
			continue;
		n++;
		if (print)
			printf("mapped: %s", line);
	}
	if (maps)
		fclose(maps);
	return n;
}

/* Marks what is open; with @before counts what was not, and prints it if wanted. */
static inline unsigned gate_fds(uint8_t open[GATE_FDS_MAX], const uint8_t *before, int print)
{
	char path[32], link[256];
	struct dirent *found;
	unsigned n_new = 0;
	DIR *dir = opendir("/proc/self/fd");

	while (dir && (found = readdir(dir))) {
		int fd = atoi(found->d_name);
		ssize_t len;

		if (found->d_name[0] == '.' || fd == dirfd(dir) || fd >= GATE_FDS_MAX)
			continue;
		open[fd] = 1;
		if (!before || before[fd])
			continue;
		n_new++;
		if (!print)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		len = readlink(path, link, sizeof(link) - 1);
		link[len > 0 ? len : 0] = '\0';
		printf("open: fd %d, %s\n", fd, link);
	}
	if (dir)
		closedir(dir);
	return n_new;
}

static inline unsigned gate_objects(int print)
{
	DIR *shm = opendir("/dev/shm");
	struct dirent *found;
	unsigned n = 0;

	while (shm && (found = readdir(shm))) {
		for (unsigned i = 0; i < gate.n_instances; i++) {
			if (strncmp(found->d_name, "shmb.", 5) != 0 ||
			    strncmp(found->d_name + 5, gate.instances[i], 16) != 0)
				continue;
			n++;
			if (print)
				printf("in /dev/shm: %s\n", found->d_name);
		}
	}
	if (shm)
		closedir(shm);
	return n;
}

/* Grandchildren whose parent is dead are ours, too. Returns whether any process still runs. */
static inline int gate_runs(void)
{
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		;
	return pid == 0;
}

static inline void gate_before(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	memset(gate.open, 0, sizeof(gate.open));
	gate.n_instances = 0;
	gate_fds(gate.open, NULL, 0);
	gate.n_mappings = gate_mappings(0);
}

static inline int gate_is_clean(void)
{
	uint8_t open[GATE_FDS_MAX] = { 0 };

	return !gate_runs() && gate_fds(open, gate.open, 0) == 0 && gate_objects(0) == 0 &&
	       gate_mappings(0) <= gate.n_mappings;
}

static inline void gate_after(void)
{
	uint8_t open[GATE_FDS_MAX] = { 0 };
	unsigned n_fds, n_objects;

	/* The last ones may still be on their way out. */
	for (int i = 0; i < 500 && !gate_is_clean(); i++)
		usleep(10000);
	ck_assert_msg(!gate_runs(), "leak: a process that the test has started still runs");
	n_fds = gate_fds(open, gate.open, 1);
	n_objects = gate_objects(1);
	fflush(stdout);
	ck_assert_msg(n_fds == 0, "leak: %u fds are open that were not", n_fds);
	ck_assert_msg(n_objects == 0, "leak: %u objects are left in /dev/shm", n_objects);
	if (gate_mappings(0) > gate.n_mappings) {
		unsigned n = gate_mappings(1);

		fflush(stdout);
		ck_abort_msg("leak: %u mappings have become %u", gate.n_mappings, n);
	}
}

static inline TCase *gated_case(const char *name)
{
	TCase *gated = tcase_create(name);

	tcase_add_checked_fixture(gated, gate_before, gate_after);
	return gated;
}

#endif
