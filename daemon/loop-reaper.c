/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Closes sockets on a thread of its own, for kernels on which a client may have queued an fd whose
 * last close blocks (a TCP socket that lingers, say).
 *
 * The thread starts with the first such socket, takes no signals, and outlives the loop if it has
 * to. Where it cannot start, sockets are closed in place: late is better than never.
 */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "daemon/loop-internal.h"

#define STACK_BYTES 65536

#define JOIN_MSEC 100

struct reaper_entry {
	struct reaper_entry *next;
	int fd;
};

struct loop_reaper {
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wake;
	pthread_cond_t ended;
	struct reaper_entry *head;
	bool stop;
	bool done; /* the thread touches nothing but @refs any more */
	unsigned refs;
};

static void reaper_unref(struct loop_reaper *reaper)
{
	unsigned refs;

	pthread_mutex_lock(&reaper->lock);
	refs = --reaper->refs;
	pthread_mutex_unlock(&reaper->lock);
	if (refs)
		return;
	pthread_cond_destroy(&reaper->ended);
	pthread_cond_destroy(&reaper->wake);
	pthread_mutex_destroy(&reaper->lock);
	free(reaper);
}

static void *reaper_main(void *data)
{
	struct loop_reaper *reaper = data;

	pthread_mutex_lock(&reaper->lock);
	for (;;) {
		struct reaper_entry *entry = reaper->head;

		if (entry) {
			reaper->head = entry->next;
			pthread_mutex_unlock(&reaper->lock);
			close(entry->fd);
			free(entry);
			pthread_mutex_lock(&reaper->lock);
		} else if (reaper->stop) {
			break;
		} else {
			pthread_cond_wait(&reaper->wake, &reaper->lock);
		}
	}
	reaper->done = true;
	pthread_cond_signal(&reaper->ended);
	pthread_mutex_unlock(&reaper->lock);
	reaper_unref(reaper);
	return NULL;
}

static int reaper_start(struct loop_reaper *reaper)
{
	pthread_attr_t attr;
	sigset_t all;
	sigset_t old;
	int r;

	r = pthread_attr_init(&attr);
	if (r)
		return -r;
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	sigfillset(&all);
	/* A thread starts with its creator's mask: the host's signals are not for it. */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&reaper->thread, &attr, reaper_main, reaper);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

static struct loop_reaper *reaper_get(struct loop *loop)
{
	struct loop_reaper *reaper = loop->reaper;
	pthread_condattr_t monotonic;

	if (reaper)
		return reaper;
	reaper = calloc(1, sizeof(*reaper));
	if (!reaper)
		return NULL;
	pthread_mutex_init(&reaper->lock, NULL);
	pthread_cond_init(&reaper->wake, NULL);
	/* Who waits for the end must not wait longer because somebody sets the clock. */
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&reaper->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	/* The thread's and the loop's. */
	reaper->refs = 2;
	if (reaper_start(reaper) < 0) {
		reaper->refs = 1;
		reaper_unref(reaper);
		return NULL;
	}
	loop->reaper = reaper;
	return reaper;
}

void reaper_close(struct loop *loop, int fd)
{
	struct reaper_entry *entry = malloc(sizeof(*entry));
	struct loop_reaper *reaper = entry ? reaper_get(loop) : NULL;

	if (!reaper) {
		free(entry);
		close(fd);
		return;
	}
	entry->fd = fd;
	pthread_mutex_lock(&reaper->lock);
	entry->next = reaper->head;
	reaper->head = entry;
	pthread_cond_signal(&reaper->wake);
	pthread_mutex_unlock(&reaper->lock);
}

void reaper_free(struct loop *loop)
{
	struct loop_reaper *reaper = loop->reaper;
	struct timespec until;
	int r = 0;

	if (!reaper)
		return;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += JOIN_MSEC * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&reaper->lock);
	reaper->stop = true;
	pthread_cond_signal(&reaper->wake);
	while (!reaper->done && r == 0)
		r = pthread_cond_timedwait(&reaper->ended, &reaper->lock, &until);
	r = reaper->done;
	pthread_mutex_unlock(&reaper->lock);
	/* Stuck on a client's fd: it frees itself when that lets go. */
	if (r)
		pthread_join(reaper->thread, NULL);
	else
		pthread_detach(reaper->thread);
	reaper_unref(reaper);
	loop->reaper = NULL;
}
