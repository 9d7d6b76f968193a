/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_STORE_H
#define SHMB_DAEMON_STORE_H

/*
 * Somebody keeps fds of sealed segments while we are not there: what has no name cannot be found again
 * otherwise. It is the service manager, see FileDescriptorStoreMax= in systemd.service(5), or a process
 * of our own, see keeper.h, which is told the same in the same words.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/**
 * struct stored_fd - an fd that was kept for us
 * @name: its name in the store
 * @fd:	  -1: taken
 */
struct stored_fd {
	char name[64];
	int fd;
};

/**
 * struct store - what is kept, and by whom
 * @notify: socket of the service manager as in $NOTIFY_SOCKET; NULL: there is none
 * @say:    tells it to somebody else in its place; NULL: nothing is kept without a service manager
 * @data:   for @say
 * @fds:    what was kept for us
 * @n_fds:  length of @fds
 */
struct store {
	const char *notify;
	void (*say)(void *data, const char *text, int fd);
	void *data;
	struct stored_fd *fds;
	uint32_t n_fds;
};

/* The name under which an fd is kept; a sealed segment is called so, too. */
void store_name(uint64_t instance, uint64_t id, char name[64]);

/**
 * store_notify() - tell the service manager something
 * @notify: its socket; NULL: nobody is told
 * @text:   as of sd_notify(3)
 * @fd:	    goes with it, or -1
 *
 * Hardly waits: what it does not take is not said, and what is not stored is lost with us, which
 * costs the members of sealed channels new segments.
 */
void store_notify(const char *notify, const char *text, int fd);

/* One such message, over a socket of ours; @to may be NULL. Never waits. Returns 0 or a negative errno value. */
int store_send(int socket_fd, const struct sockaddr_un *to, socklen_t to_len, const char *text,
	       int fd);

/* Is this a name that store_put() makes? */
bool store_is_ours(const char *name);

/* Notes an fd that was kept, ours from now on unless this fails. Returns 0 or -ENOMEM. */
int store_note(struct store *store, const char *name, int fd);

/* Keeps an fd under a name made of instance and id. NULL: there is no store. */
void store_put(const struct store *store, uint64_t instance, uint64_t id, int fd);

/* Does not keep it any more. */
void store_drop(const struct store *store, uint64_t instance, uint64_t id);

/* An fd that was kept, the caller's from now on; -1: none. */
int store_take(struct store *store, uint64_t instance, uint64_t id);

/* What nobody has taken belongs to nothing: closes and drops it. */
void store_sweep(struct store *store);

void store_deinit(struct store *store);

#endif
