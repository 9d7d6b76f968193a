/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a client with a valid session can say. Sealed packets of fuzzed plaintext go through
 * a broker's loop, shmb_session_open() and its control handlers, from three connections at once.
 * What comes back is well-formed, and when all of them have gone nothing is left of any.
 */

#include <fcntl.h>
#include <sys/socket.h>

#include <sodium.h>

#include <shmbroker/schema.h>

#include "lib/fd.h"

#include "daemon/broker.h"
#include "daemon/client.h"
#include "daemon/control.h"

#include "tests/fuzz/fuzz.h"

#define N_SPEAKERS   3u
#define MESSAGES_MAX 48
#define BODY_CAP     2048u
#define LIMIT	     8

/* A client: its end of the socket, its keys, and what it was told when it joined last. */
struct speaker {
	int fd;
	struct shmb_session session;
	struct shmb_msg_joined joined;
};

/* One message on its way: the plaintext. */
struct draft {
	struct shmb_message_header head;
	_Alignas(8) uint8_t body[BODY_CAP];
};

SHMB_SCHEMA(schema, struct shmb_msg_id, "fuzz.id", SHMB_FIELD(struct shmb_msg_id, id));

static struct policy policy;
static char directory[40];
static struct broker *broker;
static struct quota_user *user; /* held, so that it can be looked at when all have gone */
static struct speaker speakers[N_SPEAKERS];
static uint64_t first_id;

static void on_tick(void *data)
{
	loop_stop(data, 0);
}

/* One turn of the broker's loop: one packet of each connection, and what was put off. */
static void turn(void)
{
	struct loop_timer *timer;

	FUZZ_CHECK(loop_timer_at(broker->loop, 0, on_tick, broker->loop, &timer) == 0);
	FUZZ_CHECK(broker_run(broker) == 0);
	loop_timer_cancel(timer);
}

static void cleanup(void)
{
	quota_user_put(&broker->quota, user);
	broker = broker_free(broker);
	rmdir(directory);
}

static void prepare(void)
{
	struct broker_config config = { .directory = directory,
					.socket_mode = 0600,
					.listen_fd = -1,
					.backend = LOOP_EPOLL,
					.remove_all = true,
					.policy = &policy,
					.log = { .fd = -1 } };

	snprintf(directory, sizeof(directory), "/tmp/shmb-fuzz-%d", (int)getpid());
	policy = (struct policy){ .single_user = true, .uid = geteuid() };
	quota_limits_user(&config.limits);
	config.limits.max[QUOTA_CHANNELS] = LIMIT;
	config.limits.max[QUOTA_MEMBERS] = LIMIT;
	FUZZ_CHECK(broker_new(&config, &broker) == 0);
	user = quota_user_get(&broker->quota, geteuid());
	FUZZ_CHECK(user);
	atexit(cleanup);
	for (uint32_t i = 0; i < N_SPEAKERS; i++)
		speakers[i].fd = -1;
}

/* A new connection, whose handshake lacks READY. */
static void meet(struct speaker *speaker, struct draft *draft)
{
	struct shmb_msg_ready ready = { 0 };
	struct connection *connection;
	struct shmb_noise_cipher cipher = { .left = SHMB_NOISE_RECORDS_PER_KEY };
	int fds[2];

	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
	connection_accept(broker, fds[1], &control_events);
	FUZZ_CHECK(!list_empty(&broker->connections));
	connection = list_entry(broker->connections.prev, struct connection, link);
	connection->state = CONNECTION_SENT;
	connection->session.send = cipher;
	connection->session.receive = cipher;
	connection->session.ready = true;
	speaker->session = connection->session;
	speaker->fd = fds[0];
	ready.session_id = connection->session_id;
	draft->head.type = SHMB_MSG_READY;
	draft->head.body_len = sizeof(ready);
	memcpy(draft->body, &ready, sizeof(ready));
}

static void part(struct speaker *speaker)
{
	shmb_session_deinit(&speaker->session);
	speaker->fd = shmb_fd_close(speaker->fd);
}

/* Everything that the broker sends is what its own protocol says. */
static void check_answer(struct speaker *speaker, const struct shmb_message *message,
			 const int *fds, uint32_t n_fds)
{
	FUZZ_CHECK(message->fd_count == n_fds);
	for (uint32_t i = 0; i < n_fds; i++) {
		const struct shmb_fd_descriptor *descriptor = &message->descriptors[i];

		FUZZ_CHECK(shmb_fd_verify(fds[i], descriptor) == 0);
		if (descriptor->role == SHMB_FD_ROLE_OWN)
			FUZZ_CHECK(posix_fallocate(fds[i], 0, (off_t)descriptor->segment_len) == 0);
	}
	FUZZ_CHECK(message->type >= SHMB_MSG_OK && message->type <= SHMB_MSG_EVICTED);
	FUZZ_CHECK((message->type >= SHMB_MSG_PAIR) == (message->request_id == 0));
	if (message->type == SHMB_MSG_JOINED) {
		FUZZ_CHECK(message->body_len == sizeof(speaker->joined));
		memcpy(&speaker->joined, message->body, sizeof(speaker->joined));
	}
}

/* Reads one packet. False: there is none; the connection may have ended. */
static bool listen_to(struct speaker *speaker)
{
	static _Alignas(8) uint8_t packet[SHMB_PACKET_LEN_MAX], plain[SHMB_PACKET_LEN_MAX];
	_Alignas(8) char control[CMSG_SPACE(SHMB_PACKET_FDS_MAX * sizeof(int))];
	struct iovec iov = { packet, sizeof(packet) };
	struct msghdr header = { .msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(speaker->fd, &header, MSG_CMSG_CLOEXEC);
	struct cmsghdr *cmsg = n > 0 ? CMSG_FIRSTHDR(&header) : NULL;
	int fds[SHMB_PACKET_FDS_MAX];
	struct shmb_message message;
	uint32_t n_fds = 0;

	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) {
		n_fds = (uint32_t)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(cmsg), n_fds * sizeof(int));
	}
	if (n > 0) {
		FUZZ_CHECK(shmb_session_open(&speaker->session, packet, (uint32_t)n, plain,
					     &message) == 0);
		check_answer(speaker, &message, fds, n_fds);
	} else if (n == 0) {
		part(speaker);
	}
	while (n_fds)
		close(fds[--n_fds]);
	return n > 0;
}

static uint64_t fuzz_id(struct fuzz_script *script)
{
	return first_id + fuzz_number(script, 1);
}

static uint32_t write_open(struct fuzz_script *script, uint8_t *body)
{
	struct shmb_msg_open open = { .flags = SHMB_OPEN_CREATE,
				      .pattern = SHMB_PATTERN_STREAM,
				      .lane_len = SHMB_LANE_LEN_MIN,
				      .max_publishers = 2,
				      .max_subscribers = 2,
				      .name_len = 1 };
	uint64_t choice = fuzz_number(script, 1);

	open.name[0] = (uint8_t)('a' + choice % 4);
	open.schema_len = choice & 4 ? sizeof(schema) : 0;
	memcpy(body, &open, sizeof(open));
	memcpy(body + sizeof(open), &schema, open.schema_len);
	return (uint32_t)sizeof(open) + open.schema_len;
}

static uint32_t write_join(struct fuzz_script *script, uint8_t *body)
{
	const struct shmb_msg_joined *joined =
		&speakers[fuzz_number(script, 1) % N_SPEAKERS].joined;
	struct shmb_msg_join join = { 0 };

	if (fuzz_number(script, 1) & 1) {
		join.client_id = joined->client_id;
		memcpy(join.token, joined->token, sizeof(join.token));
	}
	memcpy(body, &join, sizeof(join));
	return sizeof(join);
}

static uint32_t write_resume(struct fuzz_script *script, uint8_t *body)
{
	struct shmb_msg_resume resume = { .member_id = fuzz_id(script),
					  .channel_id = fuzz_id(script),
					  .n_pairs = (uint32_t)fuzz_number(script, 1) % 4 };
	uint32_t len = sizeof(resume);

	memcpy(body, &resume, sizeof(resume));
	for (uint32_t i = 0; i < resume.n_pairs; i++, len += 8) {
		uint64_t id = fuzz_id(script);

		memcpy(body + len, &id, sizeof(id));
	}
	return len;
}

/* A request as an honest client would make it, but for its ids. */
static uint32_t write_body(struct fuzz_script *script, uint32_t type, uint8_t *body)
{
	struct shmb_msg_attach attach;
	struct shmb_msg_report report;
	uint64_t id;

	switch (type) {
	case SHMB_MSG_JOIN:
		return write_join(script, body);
	case SHMB_MSG_OPEN:
		return write_open(script, body);
	case SHMB_MSG_ATTACH:
		attach = (struct shmb_msg_attach){ .channel_id = fuzz_id(script),
						   .role = 1 +
							   (uint32_t)fuzz_number(script, 1) % 2 };
		memcpy(body, &attach, sizeof(attach));
		return sizeof(attach);
	case SHMB_MSG_CLOSE:
	case SHMB_MSG_ACTIVATE:
	case SHMB_MSG_DETACH:
		id = fuzz_id(script);
		memcpy(body, &id, sizeof(id));
		return sizeof(id);
	case SHMB_MSG_RESUME:
		return write_resume(script, body);
	case SHMB_MSG_REPORT:
		report = (struct shmb_msg_report){ .pair_id = fuzz_id(script),
						   .member_id = fuzz_id(script),
						   .reason = (uint32_t)fuzz_number(script, 1) };
		memcpy(body, &report, sizeof(report));
		return sizeof(report);
	case SHMB_MSG_PING:
		return 0;
	}
	return (uint32_t)fuzz_bytes(script, body, fuzz_number(script, 2) % BODY_CAP);
}

/* What the broker is going to make of it: no message is longer than what came. */
static void check_opening(struct shmb_noise_cipher cipher, const uint8_t *packet, uint32_t len)
{
	struct shmb_session session = { .receive = cipher, .ready = true };
	uint8_t *plain = malloc(len);
	struct shmb_message message;

	FUZZ_CHECK(plain);
	if (shmb_session_open(&session, packet, len, plain, &message) == 0)
		FUZZ_CHECK(sizeof(struct shmb_packet_header) + sizeof(struct shmb_message_header) +
				   message.body_len +
				   message.fd_count * sizeof(struct shmb_fd_descriptor) +
				   SHMB_AEAD_TAG_LEN ==
			   len);
	free(plain);
}

/* Seals and sends, with changes before and after the seal. */
static void speak(struct fuzz_script *script, struct speaker *speaker, struct draft *draft)
{
	uint32_t len = (uint32_t)sizeof(draft->head) + draft->head.body_len;
	struct shmb_packet_header header = { .kind = SHMB_PACKET_DATA, .wire = 1 };
	struct shmb_noise_cipher before = speaker->session.send;
	uint64_t how = fuzz_number(script, 1);
	uint8_t packet[sizeof(header) + sizeof(*draft) + SHMB_AEAD_TAG_LEN], sent[sizeof(packet)];

	if (how & 1)
		fuzz_mutate(script, draft->body, draft->head.body_len);
	if (how & 2)
		fuzz_mutate(script, draft, len);
	if (how & 4)
		len = (uint32_t)fuzz_number(script, 2) % (sizeof(*draft) + 1);
	if (how & 8)
		fuzz_mutate(script, &header, sizeof(header));
	header.packet_len ^= (uint32_t)sizeof(header) + len + SHMB_AEAD_TAG_LEN;
	memcpy(packet, &header, sizeof(header));
	shmb_noise_seal(&speaker->session.send, &header, sizeof(header), draft, len,
			packet + sizeof(header));
	if (header.flags & SHMB_PACKET_REKEY_AFTER)
		shmb_noise_rekey(&speaker->session.send);
	len += (uint32_t)sizeof(header) + SHMB_AEAD_TAG_LEN;
	memcpy(sent, packet, len);
	if (how & 16)
		fuzz_mutate(script, packet, len);
	check_opening(before, packet, len);
	send(speaker->fd, packet, how & 32 ? 0 : len, MSG_NOSIGNAL);
	/* What is not as it was sealed ends the connection, as soon as it is read. */
	for (int i = 0; i < 200 && speaker->fd >= 0 && memcmp(sent, packet, len) != 0; i++) {
		turn();
		while (speaker->fd >= 0 && listen_to(speaker))
			;
	}
	FUZZ_CHECK(speaker->fd < 0 || memcmp(sent, packet, len) == 0);
}

static void one_message(struct fuzz_script *script)
{
	struct speaker *speaker = &speakers[fuzz_number(script, 1) % N_SPEAKERS];
	static struct draft draft;

	memset(&draft, 0, sizeof(draft));
	if (speaker->fd < 0) {
		meet(speaker, &draft);
		speak(script, speaker, &draft);
		turn();
	}
	draft.head.type = 2 + (uint32_t)fuzz_number(script, 1) % 10;
	draft.head.request_id = 1;
	draft.head.body_len = write_body(script, draft.head.type, draft.body);
	if (speaker->fd >= 0)
		speak(script, speaker, &draft);
	turn();
	if (fuzz_number(script, 1) & 1 && speaker->fd >= 0)
		part(speaker);
	/* Some do not listen at once, so that answers pile up. */
	for (uint32_t i = 0; i < N_SPEAKERS && !(fuzz_number(script, 1) & 1); i++)
		while (speakers[i].fd >= 0 && listen_to(&speakers[i]))
			;
}

static void check_nothing_left(void)
{
	struct list *link, *safe;

	for (uint32_t i = 0; i < N_SPEAKERS; i++) {
		if (speakers[i].fd >= 0)
			part(&speakers[i]);
		memset(&speakers[i].joined, 0, sizeof(speakers[i].joined));
	}
	turn();
	turn();
	FUZZ_CHECK(broker->n_connections == 0 && list_empty(&broker->connections));
	/* Clients whose process lives may come back: end that here. */
	list_for_each(link, safe, &broker->clients)
		client_free(list_entry(link, struct client, link));
	turn();
	FUZZ_CHECK(list_empty(&broker->channels) && broker->n_members == 0);
	FUZZ_CHECK(broker->objects.n_nodes == 0 && broker->names.n_nodes == 0);
	FUZZ_CHECK(broker->registry.n_free == broker->registry.n_entries);
	FUZZ_CHECK(user->n_refs == 1);
	for (size_t i = 0; i < SHMB_ARRAY_LEN(user->used); i++)
		FUZZ_CHECK(user->used[i] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_script script = { data, size };

	if (!broker)
		prepare();
	first_id = broker->registry.map->next_id;
	for (int i = 0; i < MESSAGES_MAX && script.left; i++)
		one_message(&script);
	check_nothing_left();
	return 0;
}
