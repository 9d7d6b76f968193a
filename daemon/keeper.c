/* SPDX-License-Identifier: Apache-2.0 */

/* The broker's side: see keeper-main.c for the process itself. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/fd.h"

#include "daemon/keeper.h"
#include "daemon/model.h"

#define MEMFD_LINK  "/memfd:"
#define SAY_NS	    1000000000ull /* a keeper that takes nothing for so long is replaced */
#define DEAF_NS	    2000000000ull /* and one that does not get deaf is stopped */
#define UNUSED_NS   2000000000ull /* sealed segments come and go; a process costs more than this */
#define END_WAIT_MS 1000
#define NAP_NS	    200000

static void nap(void)
{
	struct timespec pause = { .tv_nsec = NAP_NS };

	nanosleep(&pause, NULL);
}

static bool is_sealed(const struct segment *segment)
{
	return segment_exists(segment) && segment->backing == SHMB_MEMORY_SEALED;
}

/* Calls @visit for each sealed segment until it fails. Returns what it has returned, or how many. */
static int for_each_sealed(struct broker *broker,
			   int (*visit)(struct broker *broker, const struct segment *segment))
{
	int n = 0, r = 0;

	for (size_t i = 0; i < broker->objects.n_buckets; i++) {
		struct table_node *node = broker->objects.buckets[i];

		for (; r >= 0 && node; node = node->next) {
			struct object *object = shmb_container_of(node, struct object, node);
			bool moves = object->kind == SHMB_ENTRY_PUBLISHER ||
				     object->kind == SHMB_ENTRY_SUBSCRIBER;
			const struct segment *next =
				moves ? &shmb_container_of(object, struct member, object)->next
				      : NULL;

			if (is_sealed(&object->segment)) {
				r = visit ? visit(broker, &object->segment) : 0;
				n++;
			}
			if (r >= 0 && next && is_sealed(next)) {
				r = visit ? visit(broker, next) : 0;
				n++;
			}
		}
	}
	return r < 0 ? r : n;
}

/* ---- a process --------------------------------------------------------------------------------- */

static void keeper_forget(struct broker *broker)
{
	struct keeper *keeper = &broker->keeper;

	registry_remove(&broker->registry, keeper->entry);
	keeper->entry = REGISTRY_NO_ENTRY;
	keeper->death = loop_unwatch(keeper->death);
	keeper->fd = shmb_fd_close(keeper->fd);
	keeper->pidfd = shmb_fd_close(keeper->pidfd);
}

static void keeper_end(struct broker *broker)
{
	if (broker->keeper.pidfd < 0)
		return;
	syscall(SYS_pidfd_send_signal, broker->keeper.pidfd, SIGKILL, NULL, 0);
	keeper_forget(broker);
}

/*
 * In a session of its own, with nothing of ours but the socket. It is executed, not forked, as we may have
 * threads; nobody waits for it, see SIGCHLD in main.c.
 */
static int spawn(const struct broker *broker, int socket_fd, pid_t *ret_pid)
{
	char *argv[] = { (char *)(uintptr_t) "shmb-keeper", (char *)(uintptr_t)KEEPER_OPTION,
			 (char *)(uintptr_t)broker->registry.name, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t all, usual;
	int r;

	/* What makes it deaf may come before it has begun. */
	sigemptyset(&usual);
	sigaddset(&usual, SIGUSR1);
	sigfillset(&all);
	r = posix_spawn_file_actions_init(&actions);
	if (r)
		return -r;
	r = posix_spawnattr_init(&attr);
	/* The lock goes last, so that who has it finds nobody who listens; see take_lock() in broker.c. */
	if (r == 0 && broker->listen_fd > STDERR_FILENO)
		r = posix_spawn_file_actions_addclose(&actions, broker->listen_fd);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, socket_fd, STDIN_FILENO);
	for (int fd = STDOUT_FILENO; r == 0 && fd <= STDERR_FILENO; fd++)
		r = posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0);
	if (r == 0) {
		posix_spawnattr_setsigmask(&attr, &usual);
		posix_spawnattr_setsigdefault(&attr, &all);
		posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
							POSIX_SPAWN_SETSIGDEF);
		r = posix_spawn(ret_pid, broker->config.keeper, &actions, &attr, argv, environ);
	}
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static int note(struct broker *broker)
{
	struct keeper *keeper = &broker->keeper;
	struct shmb_registry_entry entry = {
		.kind = SHMB_ENTRY_KEEPER,
		.pid = (uint32_t)keeper->pid,
		.uid = geteuid(),
	};
	int r = peer_identify(entry.pid, keeper->pidfd, &entry.process_start, &entry.process_inode);

	if (r < 0)
		return r;
	entry.id = registry_next_id(&broker->registry);
	return registry_add(&broker->registry, &entry, &keeper->entry);
}

static void on_death(void *data);

/*
 * Killed in here: a keeper that nobody knows, and that has nothing, sees that we are gone. Stopped in here
 * and replaced: there is no entry to be added any more, and the process ends.
 */
static int keeper_start(struct broker *broker)
{
	struct keeper *keeper = &broker->keeper;
	int ends[2], r;

	if (registry_is_superseded(&broker->registry))
		return -ESTALE;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	r = spawn(broker, ends[1], &keeper->pid);
	shmb_fd_close(ends[1]);
	if (r == 0) {
		keeper->pidfd = (int)syscall(SYS_pidfd_open, keeper->pid, 0);
		r = keeper->pidfd < 0 ? -errno : 0;
	}
	if (r < 0) {
		/* It ends at the end of its input. */
		shmb_fd_close(ends[0]);
		return r;
	}
	keeper->fd = ends[0];
	r = note(broker);
	if (r == 0)
		r = loop_watch(broker->loop, keeper->pidfd, true, on_death, broker, &keeper->death);
	if (r < 0)
		keeper_end(broker);
	return r;
}

/* ---- what it is told --------------------------------------------------------------------------- */

/* It reads all the time; while it hardly gets to run its queue has room for hundreds. */
static int tell(const struct keeper *keeper, const char *text, int fd)
{
	uint64_t end = shmb_clock_now_ns() + SAY_NS;
	int r;

	for (;;) {
		r = store_send(keeper->fd, NULL, 0, text, fd);
		if (r != -EAGAIN && r != -ETOOMANYREFS && r != -EINTR)
			return r;
		if (shmb_clock_now_ns() > end)
			return -ETIMEDOUT;
		nap();
	}
}

static int give(struct broker *broker, const struct segment *segment)
{
	char name[64], text[128];

	store_name(segment->instance, segment->id, name);
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\n", name);
	return tell(&broker->keeper, text, segment->fd);
}

static bool keeper_at(const struct broker *broker, uint32_t slot,
		      struct shmb_registry_entry *ret_entry)
{
	return slot != broker->keeper.entry && registry_get(&broker->registry, slot, ret_entry) &&
	       ret_entry->kind == SHMB_ENTRY_KEEPER;
}

/* Those of predecessors, which are not needed any more. */
static void dismiss_others(struct broker *broker)
{
	struct shmb_registry_entry entry;
	int pidfd;

	for (uint32_t i = 0; i < broker->registry.n_entries; i++) {
		if (!keeper_at(broker, i, &entry))
			continue;
		pidfd = peer_reopen(entry.pid, entry.process_start, entry.process_inode);
		if (pidfd >= 0)
			syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
		shmb_fd_close(pidfd);
		registry_remove(&broker->registry, i);
	}
}

/*
 * A new one, that has everything, or none. Killed before the others end: a successor finds it all with
 * them, and again with the new one.
 */
static int keeper_renew(struct broker *broker)
{
	int r;

	keeper_end(broker);
	r = keeper_start(broker);
	if (r == 0)
		r = for_each_sealed(broker, give);
	if (r < 0) {
		log_line(&broker->log, LOG_WARNING, "no-keeper", "error=%d", -r);
		keeper_end(broker);
		return r;
	}
	dismiss_others(broker);
	log_line(&broker->log, LOG_INFO, "keeper", "pid=%d segments=%d", (int)broker->keeper.pid,
		 r);
	return 0;
}

static int put(struct broker *broker, const struct segment *segment)
{
	store_put(broker->config.store, segment->instance, segment->id, segment->fd);
	return 0;
}

static void on_death(void *data)
{
	struct broker *broker = data;

	keeper_forget(broker);
	if (for_each_sealed(broker, NULL) > 0)
		keeper_renew(broker);
}

static void on_unused(void *data)
{
	struct broker *broker = data;

	broker->keeper.unused = loop_timer_cancel(broker->keeper.unused);
	if (for_each_sealed(broker, NULL) == 0)
		keeper_end(broker);
}

static void on_say(void *data, const char *text, int fd)
{
	struct broker *broker = data;
	struct keeper *keeper = &broker->keeper;

	if (keeper->mute)
		return;
	if (fd < 0) {
		if (keeper->pidfd < 0)
			return;
		tell(keeper, text, fd);
		if (!keeper->unused)
			loop_timer_at(broker->loop, shmb_clock_now_ns() + UNUSED_NS, on_unused,
				      broker, &keeper->unused);
		return;
	}
	if (keeper->pidfd < 0 && keeper_renew(broker) < 0)
		return;
	if (tell(keeper, text, fd) < 0 && keeper_renew(broker) == 0)
		tell(keeper, text, fd);
}

/* ---- succession -------------------------------------------------------------------------------- */

/*
 * Returns whether it has closed its socket, and so has taken in all that was said before; else it is dead,
 * or stopped. Before it is executed its files are its broker's, and closed to us.
 */
static bool make_deaf(uint32_t pid, int pidfd)
{
	uint64_t end = shmb_clock_now_ns() + DEAF_NS;
	char path[40], target[8];

	snprintf(path, sizeof(path), "/proc/%u/fd/0", pid);
	syscall(SYS_pidfd_send_signal, pidfd, SIGUSR1, NULL, 0);
	while (readlink(path, target, sizeof(target)) >= 0 || errno != ENOENT) {
		if (peer_is_dead(pidfd) || shmb_clock_now_ns() > end)
			return false;
		nap();
	}
	return !peer_is_dead(pidfd);
}

static int take_fd(struct store *store, int dir_fd, const char *number)
{
	char target[128], *end;
	ssize_t len = readlinkat(dir_fd, number, target, sizeof(target) - 1);
	int fd, r;

	if (len <= (ssize_t)strlen(MEMFD_LINK))
		return 0;
	target[len] = '\0';
	end = strchr(target, ' '); /* " (deleted)" */
	if (end)
		*end = '\0';
	if (strncmp(target, MEMFD_LINK, strlen(MEMFD_LINK)) != 0 ||
	    !store_is_ours(target + strlen(MEMFD_LINK)))
		return 0;
	fd = openat(dir_fd, number, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return shmb_fd_shortage(errno) ? -errno : 0;
	r = store_note(store, target + strlen(MEMFD_LINK), fd);
	if (r < 0)
		shmb_fd_close(fd);
	return r;
}

/* What is opened is looked at when it is adopted; what cannot be seen is lost. */
static int take_from(struct store *store, uint32_t pid, int pidfd)
{
	struct dirent *found;
	char path[40];
	int r = 0;
	DIR *dir;

	if (!make_deaf(pid, pidfd) && peer_is_dead(pidfd))
		return 0;
	snprintf(path, sizeof(path), "/proc/%u/fd", pid);
	dir = opendir(path);
	if (!dir)
		return shmb_fd_shortage(errno) ? -errno : 0;
	do {
		errno = 0;
		found = readdir(dir);
		r = found		      ? take_fd(store, dirfd(dir), found->d_name)
		    : shmb_fd_shortage(errno) ? -errno
					      : 0;
	} while (found && r == 0);
	closedir(dir);
	return r;
}

void keeper_init(struct broker *broker)
{
	struct store *store = broker->config.store;

	broker->keeper = (struct keeper){ .pidfd = -1, .fd = -1, .entry = REGISTRY_NO_ENTRY };
	if (!store)
		return;
	store->say = broker->config.keeper && !store->notify ? on_say : NULL;
	store->data = broker;
}

int keeper_take(struct broker *broker)
{
	struct shmb_registry_entry entry;
	int r = 0, pidfd;

	broker->keeper.mute = true;
	for (uint32_t i = 0; r == 0 && broker->config.store && i < broker->registry.n_entries;
	     i++) {
		if (!keeper_at(broker, i, &entry))
			continue;
		pidfd = peer_reopen(entry.pid, entry.process_start, entry.process_inode);
		if (pidfd < 0) {
			r = shmb_fd_conclusive(-pidfd) ? 0 : pidfd;
			continue;
		}
		r = take_from(broker->config.store, entry.pid, pidfd);
		shmb_fd_close(pidfd);
	}
	return r;
}

static bool has_others(const struct broker *broker)
{
	struct shmb_registry_entry entry;

	for (uint32_t i = 0; i < broker->registry.n_entries; i++)
		if (keeper_at(broker, i, &entry))
			return true;
	return false;
}

void keeper_settle(struct broker *broker)
{
	struct store *store = broker->config.store;

	broker->keeper.mute = false;
	if (!store)
		return;
	if (store->say && for_each_sealed(broker, NULL) > 0) {
		/* Unless it has all of it, theirs are better than none. */
		keeper_renew(broker);
		return;
	}
	/* From a keeper to a service manager. */
	if (has_others(broker) && !store->say)
		for_each_sealed(broker, put);
	dismiss_others(broker);
}

void keeper_deinit(struct broker *broker, bool keep)
{
	struct keeper *keeper = &broker->keeper;
	struct pollfd poller = { .fd = keeper->pidfd, .events = POLLIN };

	keeper->unused = loop_timer_cancel(keeper->unused);
	keeper->death = loop_unwatch(keeper->death);
	if (keeper->pidfd >= 0 && !keep) {
		syscall(SYS_pidfd_send_signal, keeper->pidfd, SIGKILL, NULL, 0);
		poll(&poller, 1, END_WAIT_MS);
	}
	keeper->fd = shmb_fd_close(keeper->fd);
	keeper->pidfd = shmb_fd_close(keeper->pidfd);
	if (broker->config.store)
		broker->config.store->say = NULL;
}
