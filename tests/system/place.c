/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A place for a broker of the system and processes of several users. The daemon is executed by its
 * fd, so that its user need not be able to see the build tree.
 */

#include "tests/system/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_LEN_MAX (256u << 10)

struct place place;

/* All places of this program begin with this, also in the processes that Check forks. */
static char prefix[64];

const char *place_path(const char *name)
{
	static char paths[4][2 * PLACE_PATH_MAX];
	static unsigned turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", place.top, name);
	return path;
}

static void remove_tree(const char *top)
{
	char command[PLACE_PATH_MAX + 16];

	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	if (system(command) != 0)
		fprintf(stderr, "%s is left\n", top);
}

static void read_instance(const char *run, char instance[17])
{
	char path[2 * PLACE_PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/broker.lock", run);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read(fd, instance, 16) != 16)
		instance[0] = '\0';
	close(fd);
}

/* Counts the objects of an instance, and removes them if wanted. */
static unsigned objects_of(const char *instance, bool remove)
{
	struct dirent *found;
	char wanted[32];
	unsigned n = 0;
	DIR *shm;

	if (strlen(instance) != 16)
		return 0;
	snprintf(wanted, sizeof(wanted), "shmb.%s", instance);
	shm = opendir("/dev/shm");
	while ((found = readdir(shm))) {
		if (strncmp(found->d_name, wanted, strlen(wanted)))
			continue;
		n++;
		if (remove)
			unlinkat(dirfd(shm), found->d_name, 0);
	}
	closedir(shm);
	return n;
}

unsigned place_objects(void)
{
	return objects_of(place.instance, false);
}

void place_set_up(void)
{
	memset(&place, 0, sizeof(place));
	snprintf(place.top, sizeof(place.top), "%s.XXXXXX", prefix);
	ck_assert_ptr_nonnull(mkdtemp(place.top));
	snprintf(place.run, sizeof(place.run), "%.90s/run", place.top);
	snprintf(place.address, sizeof(place.address), "%.90s/run/control.sock", place.top);
	snprintf(place.conf, sizeof(place.conf), "%.90s/shmbrokerd.conf", place.top);
	snprintf(place.log, sizeof(place.log), "%.90s/log", place.top);
	ck_assert_int_eq(chmod(place.top, 0755), 0);
	ck_assert_int_eq(mkdir(place.run, 0755), 0);
	ck_assert_int_eq(chown(place.run, UID_BROKER, UID_BROKER), 0);
	ck_assert_int_eq(mkdir(place_path("clients.d"), 0755), 0);
	place_configure("socket-mode = '0666'\n");
}

void place_tear_down(void)
{
	if (place.broker)
		ck_assert_int_eq(place_end(SIGTERM), 0);
	ck_assert_uint_eq(place_objects(), 0);
	ck_assert_int_lt(access(place.address, F_OK), 0);
	remove_tree(place.top);
}

void place_configure(const char *text)
{
	int fd = open(place.conf, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (int)strlen(text));
	close(fd);
}

static void become(uint32_t uid, uint32_t extra)
{
	gid_t groups[1] = { extra };

	if (setgroups(extra ? 1 : 0, groups) < 0 || setresgid(uid, uid, uid) < 0 ||
	    setresuid(uid, uid, uid) < 0)
		_exit(120);
	/* Changing the user has forgotten this, and has closed /proc/self to ourselves. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 1);
}

static _Noreturn void exec_daemon(int program, const char *const *args, int fd3, const char *listen)
{
	const char *argv[16] = { "shmbrokerd" };
	char pid[16];
	int log = open(place.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	for (int i = 0; i < 14 && args[i]; i++)
		argv[i + 1] = args[i];
	if (log < 0 || dup2(log, STDERR_FILENO) < 0 || (fd3 >= 0 && dup2(fd3, 3) < 0))
		_exit(121);
	if (listen) {
		snprintf(pid, sizeof(pid), "%d", getpid());
		setenv("LISTEN_PID", pid, 1);
		setenv("LISTEN_FDS", listen, 1);
	}
	become(UID_BROKER, 0);
	fexecve(program, (char *const *)(uintptr_t)argv, environ);
	_exit(127);
}

pid_t place_spawn(const char *const *args, int fd3, const char *listen)
{
	const char *top = getenv("top_builddir");
	char path[4096];
	int program;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/shmbrokerd", top ? top : ".");
	program = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_msg(program >= 0, "%s: %s", path, strerror(errno));
	/* Out of the way of fd 3. */
	if (program < 10) {
		int high = fcntl(program, F_DUPFD_CLOEXEC, 10);

		close(program);
		program = high;
	}
	pid = fork();
	if (pid == 0)
		exec_daemon(program, args, fd3, listen);
	close(program);
	ck_assert_int_gt(pid, 0);
	return pid;
}

void place_start(void)
{
	const char *args[] = { "--config",   place.conf, "--directory", place.run,
			       "--ready-fd", "3",	 NULL };
	char answer[256] = "";
	int ends[2];

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	place.broker = place_spawn(args, ends[1], NULL);
	close(ends[1]);
	ck_assert_msg(read(ends[0], answer, sizeof(answer) - 1) > 0, "no answer: %s",
		      place_said(false));
	close(ends[0]);
	ck_assert_str_eq(answer, "ready\n");
	read_instance(place.run, place.instance);
}

/* The broker may not have heard yet of clients that have just gone; the registry stays. */
static void settle(void)
{
	for (int i = 0; i < 500 && place_objects() > 1; i++)
		usleep(10000);
}

int place_end(int number)
{
	int status = -1;

	if (number == SIGTERM)
		settle();
	kill(place.broker, number);
	ck_assert_int_eq(waitpid(place.broker, &status, 0), place.broker);
	place.broker = 0;
	return status;
}

int place_fails(const char *const *args, int fd3, const char *listen)
{
	pid_t pid = place_spawn(args, fd3, listen);
	int status;

	/* One that runs all the same must not outlive the test's patience. */
	for (int i = 0; i < 500; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		usleep(10000);
	}
	kill(pid, SIGTERM);
	waitpid(pid, &status, 0);
	ck_abort_msg("it does not fail: %s", place_said(false));
	return 0;
}

const char *place_said(bool forget)
{
	static char text[LOG_LEN_MAX];
	ssize_t n = 0;
	int fd = open(place.log, O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	text[n > 0 ? n : 0] = '\0';
	if (forget && fd >= 0)
		ck_assert_int_eq(truncate(place.log, 0), 0);
	return text;
}

bool place_has_said(const char *text)
{
	return strstr(place_said(false), text) != NULL;
}

void place_says(const char *text)
{
	for (int i = 0; i < 500 && !place_has_said(text); i++)
		usleep(10000);
	ck_assert_msg(place_has_said(text), "\"%s\" is not in the log:\n%s", text,
		      place_said(false));
}

pid_t place_run_as(uint32_t uid, uint32_t extra, void (*child)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		become(uid, extra);
		/* A failed assertion must end this process, not run the parent's test again. */
		alarm(60);
		child();
		_exit(0);
	}
	ck_assert_int_gt(pid, 0);
	return pid;
}

void place_until(const uint32_t *flag, pid_t pid)
{
	int status;

	while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE)) {
		ck_assert_msg(waitpid(pid, &status, WNOHANG) == 0,
			      "a child ended too early; the broker said:\n%s", place_said(false));
		usleep(1000);
	}
}

void place_finished(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "a child ended with status 0x%x; the broker said:\n%s", status,
		      place_said(false));
}

int32_t place_open(struct shmb_client *of, const char *name, uint32_t flags)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = flags,
						.lane_len = 16384 };
	struct shmb_channel *channel = NULL;
	int32_t result = shmb_channel_open(of, name, (uint32_t)strlen(name), &options, &channel);

	if (result == 0)
		ok(shmb_channel_close(channel));
	return result;
}

void place_need_root(const char *program)
{
	/* What the caller's own broker says is no concern of these tests. */
	unsetenv("SHMBROKER_ADDRESS");
	unsetenv("SHMBROKER_KEY");
	unsetenv("NOTIFY_SOCKET");
	unsetenv("CREDENTIALS_DIRECTORY");
	snprintf(prefix, sizeof(prefix), "/tmp/shmb-system.%d", getpid());
	if (geteuid() == 0)
		return;
	printf("%s: skipped: only root can start processes of several users\n", program);
	exit(77);
}

void place_sweep(void)
{
	char pattern[PLACE_PATH_MAX], run[2 * PLACE_PATH_MAX];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s.*", prefix);
	if (glob(pattern, 0, NULL, &found) != 0)
		return;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char instance[17] = "";

		snprintf(run, sizeof(run), "%s/run", found.gl_pathv[i]);
		read_instance(run, instance);
		objects_of(instance, true);
		remove_tree(found.gl_pathv[i]);
	}
	globfree(&found);
}
