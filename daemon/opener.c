/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/fd.h"

#include "daemon/opener.h"

#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ull << 14) /* ABI 3, Linux 6.2 */
#endif
#define LANDLOCK_ABI_TRUNCATE 3

enum opener_state {
	OPENER_STARTING,
	OPENER_IDLE,
	OPENER_ASKED,
	OPENER_ANSWERED,
	OPENER_ENDING,
};

/**
 * struct opener - the thread and the one request it works on
 * @thread:   opens
 * @lock:     protects what follows
 * @changed:  @state changed
 * @state:    who is to act
 * @path:     of the request
 * @result:   of the request
 * @protects: the thread has given up truncation
 */
struct opener {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum opener_state state;
	const char *path;
	int result;
	bool protects;
};

/* Applies to the calling thread only. */
static bool restrict_self(void)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = LANDLOCK_ACCESS_FS_TRUNCATE };
	bool done;
	long abi;
	int fd;

	abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < LANDLOCK_ABI_TRUNCATE)
		return false;
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (fd < 0)
		return false;
	done = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       syscall(SYS_landlock_restrict_self, fd, 0) == 0;
	shmb_fd_close(fd);
	return done;
}

static void *opener_main(void *data)
{
	struct opener *opener = data;
	const char *path;
	int fd;

	pthread_mutex_lock(&opener->lock);
	opener->protects = restrict_self();
	opener->state = OPENER_IDLE;
	pthread_cond_broadcast(&opener->changed);
	while (opener->state != OPENER_ENDING) {
		if (opener->state != OPENER_ASKED) {
			pthread_cond_wait(&opener->changed, &opener->lock);
			continue;
		}
		path = opener->path;
		fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		opener->result = fd < 0 ? -errno : fd;
		opener->state = OPENER_ANSWERED;
		pthread_cond_broadcast(&opener->changed);
	}
	pthread_mutex_unlock(&opener->lock);
	return NULL;
}

int opener_new(struct opener **ret_opener)
{
	struct opener *opener = calloc(1, sizeof(*opener));
	sigset_t all, before;
	int r;

	if (!opener)
		return -ENOMEM;
	pthread_mutex_init(&opener->lock, NULL);
	pthread_cond_init(&opener->changed, NULL);
	/* Signals are for the threads of the program that we may be embedded in. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&opener->thread, NULL, opener_main, opener);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0) {
		free(opener);
		return -r;
	}
	pthread_mutex_lock(&opener->lock);
	while (opener->state == OPENER_STARTING)
		pthread_cond_wait(&opener->changed, &opener->lock);
	pthread_mutex_unlock(&opener->lock);
	*ret_opener = opener;
	return 0;
}

struct opener *opener_free(struct opener *opener)
{
	if (!opener)
		return NULL;
	pthread_mutex_lock(&opener->lock);
	opener->state = OPENER_ENDING;
	pthread_cond_broadcast(&opener->changed);
	pthread_mutex_unlock(&opener->lock);
	pthread_join(opener->thread, NULL);
	pthread_cond_destroy(&opener->changed);
	pthread_mutex_destroy(&opener->lock);
	free(opener);
	return NULL;
}

bool opener_protects(const struct opener *opener)
{
	return opener->protects;
}

int opener_open(struct opener *opener, const char *path)
{
	int result;

	pthread_mutex_lock(&opener->lock);
	opener->path = path;
	opener->state = OPENER_ASKED;
	pthread_cond_broadcast(&opener->changed);
	while (opener->state != OPENER_ANSWERED)
		pthread_cond_wait(&opener->changed, &opener->lock);
	opener->state = OPENER_IDLE;
	result = opener->result;
	pthread_mutex_unlock(&opener->lock);
	return result;
}
