/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/fd.h"

#include "daemon/store.h"

#define WAIT_MS 20

static socklen_t notify_address(const char *path, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!path || strlen(path) >= sizeof(address->sun_path) ||
	    (path[0] != '/' && path[0] != '@'))
		return 0;
	strcpy(address->sun_path, path);
	if (path[0] == '@')
		address->sun_path[0] = '\0';
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
}

int store_send(int socket_fd, const struct sockaddr_un *to, socklen_t to_len, const char *text,
	       int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
	struct msghdr message = { .msg_name = (void *)(uintptr_t)to,
				  .msg_namelen = to_len,
				  .msg_iov = &iov,
				  .msg_iovlen = 1 };
	struct cmsghdr *head;

	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(head), &fd, sizeof(fd));
	}
	return sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

void store_notify(const char *notify, const char *text, int fd)
{
	struct pollfd poller = { .events = POLLOUT };
	struct sockaddr_un address;
	socklen_t len = notify_address(notify, &address);
	int socket_fd;

	if (!len)
		return;
	socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (socket_fd < 0)
		return;
	/* Its queue is short, and a burst of ours soon read. */
	if (store_send(socket_fd, &address, len, text, fd) == -EAGAIN &&
	    connect(socket_fd, (struct sockaddr *)&address, len) == 0) {
		poller.fd = socket_fd;
		poll(&poller, 1, WAIT_MS);
		store_send(socket_fd, &address, len, text, fd);
	}
	shmb_fd_close(socket_fd);
}

void store_name(uint64_t instance, uint64_t id, char name[64])
{
	snprintf(name, 64, "shmb-%016llx-%llu", (unsigned long long)instance,
		 (unsigned long long)id);
}

bool store_is_ours(const char *name)
{
	return strncmp(name, "shmb-", 5) == 0;
}

int store_note(struct store *store, const char *name, int fd)
{
	struct stored_fd *grown;

	/* Who was killed while it gave all to another has left it with both. */
	for (uint32_t i = 0; i < store->n_fds; i++) {
		if (store->fds[i].fd < 0 || strcmp(store->fds[i].name, name) != 0)
			continue;
		shmb_fd_close(fd);
		return 0;
	}
	grown = realloc(store->fds, (store->n_fds + 1) * sizeof(struct stored_fd));
	if (!grown)
		return -ENOMEM;
	store->fds = grown;
	grown += store->n_fds++;
	grown->fd = fd;
	snprintf(grown->name, sizeof(grown->name), "%s", name);
	return 0;
}

static void say(const struct store *store, const char *what, const char *name, int fd)
{
	char text[128];

	snprintf(text, sizeof(text), "%s=1\nFDNAME=%s\n", what, name);
	if (store->say)
		store->say(store->data, text, fd);
	else
		store_notify(store->notify, text, fd);
}

void store_put(const struct store *store, uint64_t instance, uint64_t id, int fd)
{
	char name[64];

	if (!store)
		return;
	store_name(instance, id, name);
	say(store, "FDSTORE", name, fd);
}

void store_drop(const struct store *store, uint64_t instance, uint64_t id)
{
	char name[64];

	if (!store)
		return;
	store_name(instance, id, name);
	say(store, "FDSTOREREMOVE", name, -1);
}

int store_take(struct store *store, uint64_t instance, uint64_t id)
{
	char name[64];

	store_name(instance, id, name);
	for (uint32_t i = 0; store && i < store->n_fds; i++) {
		int fd = store->fds[i].fd;

		if (fd < 0 || strcmp(store->fds[i].name, name) != 0)
			continue;
		store->fds[i].fd = -1;
		return fd;
	}
	return -1;
}

void store_sweep(struct store *store)
{
	for (uint32_t i = 0; store && i < store->n_fds; i++) {
		if (store->fds[i].fd < 0)
			continue;
		say(store, "FDSTOREREMOVE", store->fds[i].name, -1);
		store->fds[i].fd = shmb_fd_close(store->fds[i].fd);
	}
}

void store_deinit(struct store *store)
{
	for (uint32_t i = 0; i < store->n_fds; i++)
		shmb_fd_close(store->fds[i].fd);
	free(store->fds);
	*store = (struct store){ 0 };
}
