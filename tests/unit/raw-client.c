/* SPDX-License-Identifier: Apache-2.0 */

#include "raw-client.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/fd.h"
#include "lib/keyfile.h"
#include "lib/runtime.h"

int raw_socket(const char *dir)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/" SHMB_SOCKET_FILE, dir);
	for (int i = 0; i < 400; i++) {
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		usleep(5000);
	}
	ck_abort_msg("no broker at %s: %s", address.sun_path, strerror(errno));
}

struct raw_client *raw_connect(const char *dir)
{
	struct raw_client *raw = aligned_alloc(64, (sizeof(*raw) + 63) & ~63ul);
	struct shmb_handshake_1_payload payload = { .label = "raw" };
	struct shmb_noise_keypair key;
	struct shmb_handshake_1 h1;
	struct shmb_msg_ready ready = { 0 };
	uint8_t broker_key[SHMB_KEY_LEN];
	char path[128];
	ssize_t n;

	memset(raw, 0, sizeof(*raw));
	raw->events = calloc(RAW_EVENTS_MAX, sizeof(*raw->events));
	raw->fd = raw_socket(dir);
	snprintf(path, sizeof(path), "%s/" SHMB_PUBLIC_FILE, dir);
	ck_assert_int_eq(shmb_keyfile_load_public(path, broker_key), 0);
	ck_assert_int_eq(shmb_noise_keypair_generate(&key), 0);
	ck_assert_int_eq(shmb_session_connect(&raw->session, &key, broker_key, &payload, &h1), 0);
	ck_assert_int_eq(send(raw->fd, &h1, sizeof(h1), MSG_NOSIGNAL), sizeof(h1));
	n = recv(raw->fd, raw->packet, sizeof(raw->packet), 0);
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(
		shmb_session_connected(&raw->session, raw->packet, (uint32_t)n, &raw->hello), 0);
	ready.session_id = raw->hello.session_id;
	raw_send(raw, SHMB_MSG_READY, &ready, sizeof(ready));
	return raw;
}

static void message_close(struct raw_message *message)
{
	for (unsigned i = 0; i < message->n_fds; i++)
		close(message->fds[i]);
	message->n_fds = 0;
}

void raw_forget(struct raw_client *raw)
{
	for (unsigned i = 0; i < raw->n_events; i++)
		message_close(&raw->events[i]);
	raw->n_events = 0;
}

struct raw_client *raw_close(struct raw_client *raw)
{
	raw_forget(raw);
	message_close(&raw->reply);
	if (raw->bell)
		munmap(raw->bell, sizeof(*raw->bell));
	close(raw->fd);
	free(raw->events);
	free(raw);
	return NULL;
}

uint32_t raw_send(struct raw_client *raw, uint32_t type, const void *body, uint32_t len)
{
	struct shmb_message message = {
		.type = type,
		.request_id = ++raw->next_request,
		.body = body,
		.body_len = len,
	};
	int n = shmb_session_seal(&raw->session, &message, raw->packet);

	ck_assert_int_gt(n, 0);
	send(raw->fd, raw->packet, (size_t)n, MSG_NOSIGNAL);
	return raw->next_request;
}

static void take(struct raw_message *out, const struct shmb_message *in, struct msghdr *header)
{
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(header);

	message_close(out);
	ck_assert_int_eq(header->msg_flags & MSG_CTRUNC, 0);
	out->type = in->type;
	out->request_id = in->request_id;
	out->body_len = in->body_len;
	memcpy(out->body, in->body, in->body_len);
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) {
		out->n_fds = (uint32_t)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(out->fds, CMSG_DATA(cmsg), out->n_fds * sizeof(int));
	}
	ck_assert_uint_eq(out->n_fds, in->fd_count);
	for (unsigned i = 0; i < out->n_fds; i++) {
		out->descriptors[i] = in->descriptors[i];
		ck_assert_int_eq(shmb_fd_verify(out->fds[i], &out->descriptors[i]), 0);
	}
}

bool raw_receive(struct raw_client *raw, int timeout_ms)
{
	_Alignas(8) char control[CMSG_SPACE(SHMB_PACKET_FDS_MAX * sizeof(int))];
	struct iovec iov = { raw->packet, sizeof(raw->packet) };
	struct msghdr header = { .msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control) };
	struct pollfd poller = { .fd = raw->fd, .events = POLLIN };
	struct shmb_message message;
	ssize_t n;

	if (poll(&poller, 1, timeout_ms) != 1)
		return false;
	n = recvmsg(raw->fd, &header, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return false;
	ck_assert_int_eq(
		shmb_session_open(&raw->session, raw->packet, (uint32_t)n, raw->plain, &message),
		0);
	if (message.request_id) {
		take(&raw->reply, &message, &header);
	} else {
		ck_assert_uint_lt(raw->n_events, RAW_EVENTS_MAX);
		take(&raw->events[raw->n_events++], &message, &header);
	}
	return true;
}

uint32_t raw_call(struct raw_client *raw, uint32_t type, const void *body, uint32_t len)
{
	uint32_t id = raw_send(raw, type, body, len);

	do
		if (!raw_receive(raw, 3000))
			return 0;
	while (raw->reply.request_id != id);
	return raw->reply.type;
}

uint32_t raw_code(const struct raw_client *raw)
{
	struct shmb_msg_error error;

	ck_assert_uint_eq(raw->reply.type, SHMB_MSG_ERROR);
	memcpy(&error, raw->reply.body, sizeof(error));
	return error.code;
}

void raw_join(struct raw_client *raw, uint64_t id, const uint8_t *token)
{
	struct shmb_msg_join join = { .client_id = id };

	if (token)
		memcpy(join.token, token, sizeof(join.token));
	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_JOIN, &join, sizeof(join)), SHMB_MSG_JOINED);
	memcpy(&raw->joined, raw->reply.body, sizeof(raw->joined));
	raw->bell = raw_map(&raw->reply, SHMB_FD_ROLE_BELL, PROT_READ);
}

uint64_t raw_open(struct raw_client *raw, const char *name)
{
	struct shmb_msg_open open = { .flags = SHMB_OPEN_CREATE,
				      .pattern = SHMB_PATTERN_STREAM,
				      .lane_len = 4096,
				      .name_len = (uint32_t)strlen(name) };
	struct shmb_msg_opened opened;

	memcpy(open.name, name, open.name_len);
	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_OPEN, &open, sizeof(open)), SHMB_MSG_OPENED);
	memcpy(&opened, raw->reply.body, sizeof(opened));
	return opened.channel_id;
}

uint64_t raw_member(struct raw_client *raw, uint64_t channel, uint32_t role, void **ret_map)
{
	struct shmb_msg_attach attach = { .channel_id = channel, .role = role };
	struct shmb_msg_grant grant;
	struct shmb_msg_id id;
	int fd;

	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_ATTACH, &attach, sizeof(attach)), SHMB_MSG_GRANT);
	memcpy(&grant, raw->reply.body, sizeof(grant));
	fd = raw_fd(&raw->reply, SHMB_FD_ROLE_OWN);
	ck_assert_int_eq(posix_fallocate(fd, 0, (off_t)grant.segment_len), 0);
	if (ret_map)
		*ret_map = raw_map(&raw->reply, SHMB_FD_ROLE_OWN, PROT_READ | PROT_WRITE);
	id.id = grant.member_id;
	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_ACTIVATE, &id, sizeof(id)), SHMB_MSG_OK);
	return grant.member_id;
}

struct raw_message *raw_event(struct raw_client *raw, uint32_t type, unsigned n)
{
	unsigned i = 0, seen = 0;

	for (;;) {
		for (; i < raw->n_events; i++)
			if (raw->events[i].type == type && seen++ == n)
				return &raw->events[i];
		if (!raw_receive(raw, 3000))
			return NULL;
	}
}

int raw_fd(const struct raw_message *message, uint16_t role)
{
	for (unsigned i = 0; i < message->n_fds; i++)
		if (message->descriptors[i].role == role)
			return message->fds[i];
	ck_abort_msg("message %u has no fd of role %u", message->type, role);
}

void *raw_map(const struct raw_message *message, uint16_t role, int prot)
{
	for (unsigned i = 0; i < message->n_fds; i++) {
		const struct shmb_fd_descriptor *d = &message->descriptors[i];
		const struct shmb_segment_header *header;
		void *map;

		if (d->role != role)
			continue;
		map = mmap(NULL, d->segment_len, prot, MAP_SHARED, message->fds[i], 0);
		ck_assert_ptr_ne(map, MAP_FAILED);
		header = map;
		ck_assert_uint_eq(header->magic, SHMB_SEGMENT_MAGIC);
		ck_assert_uint_eq(header->segment_id, d->segment_id);
		ck_assert_uint_eq(header->segment_len, d->segment_len);
		return map;
	}
	ck_abort_msg("message %u has no segment of role %u", message->type, role);
}
