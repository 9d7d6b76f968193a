/* SPDX-License-Identifier: Apache-2.0 */

/* What another process is doing, as far as /proc and its control group tell. */

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "tools/place.h"
#include "tools/process.h"

#define TASKS_MAX 256

static const struct {
	long number;
	const char *name;
} syscalls[] = {
	{ SYS_read, "read" },
	{ SYS_write, "write" },
	{ SYS_recvmsg, "recvmsg" },
	{ SYS_recvfrom, "recvfrom" },
	{ SYS_sendmsg, "sendmsg" },
	{ SYS_accept4, "accept4" },
	{ SYS_futex, "futex" },
	{ 449, "futex_waitv" },
	{ SYS_ppoll, "ppoll" },
	{ SYS_pselect6, "pselect6" },
	{ SYS_epoll_pwait, "epoll_pwait" },
	{ 441, "epoll_pwait2" },
	{ 426, "io_uring_enter" },
	{ SYS_nanosleep, "nanosleep" },
	{ SYS_clock_nanosleep, "clock_nanosleep" },
	{ SYS_wait4, "wait4" },
	{ SYS_waitid, "waitid" },
	{ SYS_rt_sigtimedwait, "sigtimedwait" },
	{ SYS_rt_sigsuspend, "sigsuspend" },
	{ SYS_fsync, "fsync" },
	{ SYS_fdatasync, "fdatasync" },
	{ SYS_flock, "flock" },
#ifdef SYS_poll
	{ SYS_poll, "poll" },
#endif
#ifdef SYS_select
	{ SYS_select, "select" },
#endif
#ifdef SYS_epoll_wait
	{ SYS_epoll_wait, "epoll_wait" },
#endif
#ifdef SYS_pause
	{ SYS_pause, "pause" },
#endif
};

/* A file of /proc/PID as a string; empty if it cannot be read. */
static const char *read_proc(uint32_t pid, const char *name, char *text, size_t cap)
{
	char path[340];
	int n;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/%s", pid, name);
	n = place_read_file(path, text, cap - 1);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* From the end of the name, which may contain spaces and parentheses: ") S 1 ..."; or "". */
static const char *end_of_name(const char *stat)
{
	const char *end = strrchr(stat, ')');

	return end && end[1] == ' ' ? end : "";
}

uint64_t process_start(uint32_t pid)
{
	char stat[1024];
	const char *at = end_of_name(read_proc(pid, "stat", stat, sizeof(stat)));

	/* The 22nd word; the name was the second. */
	for (int i = 2; *at && i < 22; i++) {
		at = strchr(at + 1, ' ');
		if (!at)
			return 0;
	}
	return strtoull(at, NULL, 10);
}

static char state_of(const char *stat)
{
	const char *at = end_of_name(stat);

	return at[0] ? at[2] : '\0';
}

/* One thread that runs, or may run, is enough. */
static bool has_running_thread(uint32_t pid)
{
	char path[64], name[300], stat[1024];
	struct dirent *found;
	bool is_running = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/task", pid);
	dir = opendir(path);
	for (int i = 0; dir && !is_running && i < TASKS_MAX && (found = readdir(dir)); i++) {
		if (!isdigit((unsigned char)found->d_name[0]))
			continue;
		snprintf(name, sizeof(name), "task/%s/stat", found->d_name);
		is_running = state_of(read_proc(pid, name, stat, sizeof(stat))) == 'R';
	}
	if (dir)
		closedir(dir);
	return is_running;
}

/* "in futex"; empty: nobody says. */
static void where_it_sleeps(uint32_t pid, char *where, size_t cap)
{
	char text[256];
	char *end;
	long number;

	where[0] = '\0';
	number = strtol(read_proc(pid, "syscall", text, sizeof(text)), &end, 10);
	for (size_t i = 0; end != text && i < sizeof(syscalls) / sizeof(syscalls[0]); i++)
		if (syscalls[i].number == number)
			snprintf(where, cap, " in %s", syscalls[i].name);
	if (where[0])
		return;
	read_proc(pid, "wchan", text, sizeof(text));
	text[strcspn(text, "\n")] = '\0';
	if (isalpha((unsigned char)text[0]) || text[0] == '_')
		snprintf(where, cap, " in %.80s", text);
}

/* Is the process's control group, or one above it, frozen? Tells which, of version 2 only. */
static bool is_frozen(uint32_t pid, char *group, size_t cap)
{
	char text[4096], path[4400], events[256];
	char *line;

	line = strstr(read_proc(pid, "cgroup", text, sizeof(text)), "0::/");
	if (!line)
		return false;
	line += 3;
	line[strcspn(line, "\n")] = '\0';
	/* A frozen group makes all below it say so. */
	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cgroup.events", line);
	if (place_read_file(path, memset(events, 0, sizeof(events)), sizeof(events) - 1) <= 0)
		return false;
	snprintf(group, cap, "%.160s", line);
	return strstr(events, "frozen 1") != NULL;
}

static uint32_t tracer_of(uint32_t pid)
{
	char text[4096];
	const char *line = strstr(read_proc(pid, "status", text, sizeof(text)), "TracerPid:");

	return line ? (uint32_t)strtoul(line + strlen("TracerPid:"), NULL, 10) : 0;
}

static void look_asleep(struct process *process, uint32_t pid)
{
	char where[128], group[192] = "";

	where_it_sleeps(pid, where, sizeof(where));
	if (is_frozen(pid, group, sizeof(group)) || strstr(where, "refrigerator")) {
		*process = (struct process){ .word = "frozen", .is_still = true };
		snprintf(process->text, sizeof(process->text), "is in a frozen control group%s%s",
			 group[0] ? ": " : "", group);
	} else if (has_running_thread(pid)) {
		*process = (struct process){ .word = "running", .text = "runs" };
	} else {
		*process = (struct process){ .word = "sleeping" };
		snprintf(process->text, sizeof(process->text), "sleeps%s", where);
	}
}

static void look_traced(struct process *process, uint32_t pid)
{
	uint32_t tracer = tracer_of(pid);
	char name[64];

	read_proc(tracer, "comm", name, sizeof(name));
	name[strcspn(name, "\n")] = '\0';
	*process = (struct process){ .word = "traced", .is_still = true };
	if (tracer)
		snprintf(process->text, sizeof(process->text),
			 "is stopped by a debugger, pid %" PRIu32 " %s", tracer, name);
	else
		snprintf(process->text, sizeof(process->text), "is stopped by a debugger");
}

void process_look(struct process *process, uint32_t pid, uint64_t start)
{
	char stat[1024], where[128];
	uint64_t started = process_start(pid);
	char state = state_of(read_proc(pid, "stat", stat, sizeof(stat)));

	if (!state || (start && started && start != started)) {
		*process =
			(struct process){ .word = "gone", .text = "has ended", .is_still = true };
		return;
	}
	switch (state) {
	case 'R':
		*process = (struct process){ .word = "running", .text = "runs" };
		break;
	case 'T':
		*process = (struct process){ .word = "stopped",
					     .text = "is stopped by a signal (SIGSTOP)",
					     .is_still = true };
		break;
	case 't':
		look_traced(process, pid);
		break;
	case 'Z':
	case 'X':
		*process = (struct process){ .word = "zombie",
					     .text = "is a zombie: it has ended, and its parent "
						     "has not asked how",
					     .is_still = true };
		break;
	case 'D':
		where_it_sleeps(pid, where, sizeof(where));
		if (strstr(where, "refrigerator")) {
			look_asleep(process, pid);
			break;
		}
		*process = (struct process){ .word = "blocked" };
		snprintf(process->text, sizeof(process->text), "is blocked in the kernel%s", where);
		break;
	case 'S':
	case 'I':
		look_asleep(process, pid);
		break;
	default:
		*process =
			(struct process){ .word = "unknown",
					  .text = "is in a state that this shmctl does not know" };
	}
}
