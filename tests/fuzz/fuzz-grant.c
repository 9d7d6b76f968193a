/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A client whose broker lies. The library's own client joins, opens a channel, becomes a publisher
 * or a subscriber, hears of peers and streams, while the answers and events, their descriptors,
 * the fds with them and the headers of the segments are honest but for what the script changes.
 * No call may crash or wait, and every fd is closed in the end.
 */

#include "tests/fuzz/fuzz.h"

/* For join() and deinit(). */
#include "lib/client-connect.c"
#include "lib/client.c"

#include <linux/memfd.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <shmbroker/ring.h>

#include "lib/extension.h"
#include "lib/fds.h"
#include "lib/member.h"

#define LANE_LEN    SHMB_LANE_LEN_MIN
#define CURSOR_LEN  (SHMB_BLOCK_LEN + 2 * sizeof(struct shmb_cursor_lane))
#define CHANNEL_LEN (SHMB_BLOCK_LEN + sizeof(schema))
#define MEMBER_ID   2u
#define MAX_FDS	    4u

SHMB_SCHEMA(schema, struct shmb_msg_id, "fuzz.id", SHMB_FIELD(struct shmb_msg_id, id));

/* What a packet can bring. Segments have two fds: one to read, one to write. */
enum thing {
	THING_BELL,
	THING_CHANNEL,
	THING_LANE,
	THING_CURSOR,
	THING_BELL_RW,
	THING_CHANNEL_RW,
	THING_LANE_RW,
	THING_CURSOR_RW,
	THING_EVENTFD,
	THING_SOCKET,
	THING_PIPE,
	THING_NULL,
	THING_DIRECTORY,
	THING_PACKETS,
	N_THINGS
};

#define N_SEGMENTS ((uint32_t)THING_BELL_RW)

static const struct {
	uint32_t kind;
	uint64_t len;
} segments[N_SEGMENTS] = {
	[THING_BELL] = { SHMB_SEGMENT_BELL, SHMB_BLOCK_LEN },
	[THING_CHANNEL] = { SHMB_SEGMENT_CHANNEL, CHANNEL_LEN },
	[THING_LANE] = { SHMB_SEGMENT_LANE, SHMB_BLOCK_LEN + LANE_LEN },
	[THING_CURSOR] = { SHMB_SEGMENT_CURSOR, CURSOR_LEN },
};

/* A message with the fds that belong to it. */
struct answer {
	uint32_t type;
	uint32_t body_len;
	_Alignas(8) uint8_t body[128];
	uint32_t n_fds;
	uint8_t things[SHMB_PACKET_FDS_MAX];
	uint16_t roles[SHMB_PACKET_FDS_MAX];
};

static struct fuzz_script script;
static int things[N_THINGS];
static uint8_t *maps[N_SEGMENTS];
static int packets_fd; /* the other end of THING_PACKETS */
static int broker_fd;
static struct shmb_session broker;
static struct shmb_client *client;
static uint32_t max_fds; /* of the channel */
static struct shmb_lane_writer writer; /* of the peer's lane */

static void make_segment(uint32_t i)
{
	char path[64];
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	FUZZ_CHECK(fd >= 0 && ftruncate(fd, (off_t)segments[i].len) == 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	things[i] = open(path, O_RDONLY | O_CLOEXEC);
	things[N_SEGMENTS + i] = fd;
	maps[i] = mmap(NULL, segments[i].len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	FUZZ_CHECK(things[i] >= 0 && maps[i] != MAP_FAILED);
}

static void prepare(void)
{
	int pair[2];

	FUZZ_CHECK(sodium_init() >= 0);
	for (uint32_t i = 0; i < N_SEGMENTS; i++)
		make_segment(i);
	things[THING_EVENTFD] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	things[THING_SOCKET] = pair[0];
	FUZZ_CHECK(pipe2(pair, O_CLOEXEC) == 0);
	things[THING_PIPE] = pair[1];
	/* Full: who takes it for an eventfd and writes waits for ever. */
	fcntl(pair[1], F_SETFL, O_NONBLOCK);
	while (write(pair[1], maps[0], 4096) > 0)
		;
	fcntl(pair[1], F_SETFL, 0);
	things[THING_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
	things[THING_DIRECTORY] = open("/", O_RDONLY | O_CLOEXEC);
	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ==
		   0);
	things[THING_PACKETS] = pair[0];
	packets_fd = pair[1];
}

/* Each input begins with the same segments. */
static void reset_segments(void)
{
	for (uint32_t i = 0; i < N_SEGMENTS; i++) {
		struct shmb_segment_header head = { .magic = SHMB_SEGMENT_MAGIC,
						    .byte_order = SHMB_BYTE_ORDER,
						    .version = 1,
						    .kind = segments[i].kind,
						    .block_len = SHMB_BLOCK_LEN,
						    .segment_len = segments[i].len,
						    .segment_id = i };

		memset(maps[i], 0, segments[i].len);
		memcpy(maps[i], &head, sizeof(head));
		if (i == THING_CHANNEL)
			memcpy(maps[i] + SHMB_BLOCK_LEN, &schema, sizeof(schema));
		fuzz_mutate(&script, maps[i], sizeof(head));
	}
	max_fds = fuzz_number(&script, 1) & 1 ? MAX_FDS : 0;
	shmb_lane_writer_init(&writer, (void *)maps[THING_LANE], LANE_LEN);
	writer.record_flags = shmb_ext_record_flags(shmb_ext_len(0, false, max_fds));
	/* A broker that owes messages is waited for. */
	((struct shmb_bell_segment *)(void *)maps[THING_BELL])->backlog = 0;
	((struct shmb_bell_segment *)(void *)maps[THING_BELL])->attached = 1;
	fuzz_mutate(&script, maps[THING_CHANNEL] + SHMB_BLOCK_LEN, sizeof(schema));
}

static void describe(const struct answer *answer, int *fds, struct shmb_fd_descriptor *descriptors)
{
	for (uint32_t i = 0; i < answer->n_fds; i++) {
		uint8_t thing = answer->things[i] % N_THINGS;
		uint8_t kind = thing < THING_EVENTFD	? SHMB_FD_SHM
			       : thing == THING_SOCKET	? SHMB_FD_SOCKET
			       : thing == THING_PACKETS ? SHMB_FD_PACKETS
							: SHMB_FD_EVENTFD;

		fds[i] = things[thing];
		FUZZ_CHECK(shmb_fd_describe(fds[i], kind,
					    thing < N_SEGMENTS ? SHMB_FD_READ : SHMB_FD_READ_WRITE,
					    answer->roles[i], thing % N_SEGMENTS,
					    &descriptors[i]) == 0);
	}
}

static void send_packet_of_broker(const struct shmb_message *message, const int *fds,
				  uint32_t n_fds)
{
	static uint8_t packet[SHMB_PACKET_LEN_MAX];
	_Alignas(8) char control[CMSG_SPACE(SHMB_PACKET_FDS_MAX * sizeof(int))] = { 0 };
	int len = shmb_session_seal(&broker, message, packet);
	struct iovec iov = { packet, len < 0 ? 0 : (size_t)len };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (len < 0)
		return;
	if (n_fds) {
		struct cmsghdr *cmsg = (void *)control;

		header.msg_control = control;
		header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	sendmsg(broker_fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Puts an answer into the socket before it is asked for. */
static void serve(struct answer answer, uint32_t request_id)
{
	uint64_t how = fuzz_number(&script, 1);
	struct shmb_fd_descriptor descriptors[SHMB_PACKET_FDS_MAX];
	struct shmb_message message = { .request_id = request_id };
	int fds[SHMB_PACKET_FDS_MAX];
	uint32_t n_fds;

	if (how & 1)
		fuzz_mutate(&script, answer.body, answer.body_len);
	if (how & 2)
		answer.type = 60 + (uint32_t)fuzz_number(&script, 1) % 40;
	if (how & 4)
		answer.body_len = (uint32_t)fuzz_number(&script, 1) % (sizeof(answer.body) + 1);
	if (how & 8)
		answer.n_fds = (uint32_t)fuzz_number(&script, 1) % (SHMB_PACKET_FDS_MAX + 1);
	if (how & 16)
		fuzz_mutate(&script, answer.things, sizeof(answer.things));
	describe(&answer, fds, descriptors);
	if (how & 32)
		fuzz_mutate(&script, descriptors, answer.n_fds * sizeof(descriptors[0]));
	n_fds = how & 64 ? (uint32_t)fuzz_number(&script, 1) % (answer.n_fds + 1) : answer.n_fds;
	message.type = answer.type;
	message.body = answer.body;
	message.body_len = answer.body_len;
	message.fd_count = answer.n_fds;
	message.descriptors = descriptors;
	if (!(how & 128))
		send_packet_of_broker(&message, fds, n_fds);
}

static struct answer answer_of(uint32_t type, const void *body, uint32_t body_len)
{
	struct answer answer = { .type = type, .body_len = body_len };

	FUZZ_CHECK(body_len <= sizeof(answer.body));
	if (body_len)
		memcpy(answer.body, body, body_len);
	return answer;
}

static void add(struct answer *answer, enum thing thing, uint16_t role)
{
	answer->things[answer->n_fds] = (uint8_t)thing;
	answer->roles[answer->n_fds++] = role;
}

static uint32_t next_request(uint32_t n)
{
	return client->next_request_id + n;
}

static void serve_joined(void)
{
	struct shmb_msg_joined joined = { .client_id = 1, .instance = 1, .broker_epoch = 1 };
	struct answer answer = answer_of(SHMB_MSG_JOINED, &joined, sizeof(joined));

	add(&answer, THING_BELL, SHMB_FD_ROLE_BELL);
	serve(answer, next_request(1));
}

static void serve_opened(void)
{
	struct shmb_msg_opened opened = { .channel_id = 1,
					  .pattern = SHMB_PATTERN_STREAM,
					  .lane_len = LANE_LEN,
					  .max_publishers = 2,
					  .max_subscribers = 2,
					  .schema_len = sizeof(schema),
					  .max_fds = max_fds };
	struct answer answer = answer_of(SHMB_MSG_OPENED, &opened, sizeof(opened));

	add(&answer, THING_CHANNEL, SHMB_FD_ROLE_PEER);
	serve(answer, next_request(1));
}

static void serve_grant(uint32_t role, uint32_t request_id)
{
	struct shmb_msg_grant grant = { .member_id = MEMBER_ID, .doorbell_generation = 1 };
	struct answer answer = answer_of(SHMB_MSG_GRANT, &grant, sizeof(grant));

	add(&answer, role == SHMB_ROLE_PUBLISHER ? THING_LANE_RW : THING_CURSOR_RW,
	    SHMB_FD_ROLE_OWN);
	add(&answer, THING_EVENTFD, SHMB_FD_ROLE_DOORBELL);
	serve(answer, request_id);
}

static void serve_pair(uint32_t role)
{
	struct shmb_msg_pair pair = { .pair_id = fuzz_number(&script, 1),
				      .member_id = MEMBER_ID,
				      .role = role,
				      .lane_len = LANE_LEN,
				      .doorbell_generation = (uint32_t)fuzz_number(&script, 1) };
	struct answer answer = answer_of(SHMB_MSG_PAIR, &pair, sizeof(pair));
	bool publisher = role == SHMB_ROLE_PUBLISHER;

	add(&answer, publisher ? THING_CURSOR : THING_LANE, SHMB_FD_ROLE_PEER);
	add(&answer, publisher ? THING_BELL_RW : THING_BELL, SHMB_FD_ROLE_BELL);
	add(&answer, THING_EVENTFD, SHMB_FD_ROLE_RINGER);
	add(&answer, THING_SOCKET, SHMB_FD_ROLE_DOORBELL);
	add(&answer, THING_PACKETS, SHMB_FD_ROLE_FDS);
	serve(answer, 0);
}

static void serve_event(uint32_t role)
{
	struct shmb_msg_unpair unpair = { .pair_id = fuzz_number(&script, 1),
					  .member_id = MEMBER_ID,
					  .reason = SHMB_GONE_DIED };
	struct shmb_msg_id id = { .id = MEMBER_ID };

	switch (fuzz_number(&script, 1) % 4) {
	case 0:
		serve(answer_of(SHMB_MSG_UNPAIR, &unpair, sizeof(unpair)), 0);
		break;
	case 1:
		serve(answer_of(SHMB_MSG_EVICTED, &id, sizeof(id)), 0);
		break;
	default:
		serve_pair(role);
	}
}

static void empty(int fd)
{
	char byte;

	/* Whatever comes with it is closed by the kernel. */
	while (recv(fd, &byte, 1, MSG_DONTWAIT) > 0)
		;
}

/* What the client has sent is of no interest, but must not fill the socket. */
static void forget_requests(void)
{
	empty(broker_fd);
	empty(packets_fd);
}

/* The publisher of a record's fds may send anything. */
static void send_fds_of_peer(void)
{
	struct shmb_fds_packet packet = { .number = fuzz_number(&script, 1),
					  .n_fds = (uint32_t)fuzz_number(&script, 1) };
	uint32_t n_fds = (uint32_t)fuzz_number(&script, 1) % (2 * MAX_FDS);
	_Alignas(8) char control[CMSG_SPACE(2 * MAX_FDS * sizeof(int))] = { 0 };
	struct iovec iov = { &packet, sizeof(packet) - fuzz_number(&script, 1) % sizeof(packet) };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg = (void *)control;

	if (n_fds) {
		header.msg_control = control;
		header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (uint32_t i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &things[THING_NULL], sizeof(int));
	}
	sendmsg(packets_fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_records(struct shmb_publisher *publisher)
{
	const struct shmb_msg_id record = { 0 };
	const int32_t fds[MAX_FDS] = { things[THING_NULL], things[THING_NULL], things[THING_NULL],
				       things[THING_NULL] };

	shmb_publisher_send(publisher, &record, sizeof(record));
	shmb_publisher_send_fds(publisher, &record, sizeof(record), 0, fds,
				(uint32_t)fuzz_number(&script, 1) % (MAX_FDS + 1));
}

/* Records say which packet is theirs. */
static void publish_as_peer(void)
{
	uint32_t ext_len = shmb_ext_len(0, false, max_fds);
	struct shmb_record_ext ext = { .fds = fuzz_number(&script, 1) << SHMB_FDS_NUMBER_SHIFT |
					      fuzz_number(&script, 1) };
	uint8_t *payload = shmb_lane_claim(&writer, ext_len + sizeof(struct shmb_msg_id));

	if (!payload)
		return;
	memcpy(payload, &ext, ext_len);
	shmb_lane_commit(&writer, ext_len + sizeof(struct shmb_msg_id), 0, 0);
}

static void receive_records(struct shmb_subscriber *subscriber)
{
	static uint8_t data[LANE_LEN];
	int32_t fds[2 * MAX_FDS], n_fds = 0;

	send_fds_of_peer();
	publish_as_peer();
	if (shmb_subscriber_recv(subscriber, data, sizeof(data)) >= 0)
		n_fds = shmb_subscriber_take_fds(subscriber, fds, 2 * MAX_FDS);
	while (n_fds > 0)
		close(fds[--n_fds]);
}

static void stream(struct shmb_publisher *publisher, struct shmb_subscriber *subscriber)
{
	uint32_t role = publisher ? SHMB_ROLE_PUBLISHER : SHMB_ROLE_SUBSCRIBER;
	struct shmb_cursor_segment *cursor = (void *)maps[THING_CURSOR];

	for (int i = 0; i < 8 && script.left; i++) {
		serve_event(role);
		((struct shmb_channel_segment *)(void *)maps[THING_CHANNEL])->epoch++;
		/* Asleep, so that it is rung by whatever came as a ringer. */
		cursor->sleep = (uint32_t)(i + 1) << 2 | SHMB_SLEEP_FD;
		if (publisher)
			send_records(publisher);
		else
			receive_records(subscriber);
		fuzz_mutate(&script, maps[THING_LANE] + SHMB_BLOCK_LEN, 64);
		forget_requests();
	}
}

static void be_member(struct shmb_channel *channel)
{
	uint32_t role = SHMB_ROLE_PUBLISHER + (uint32_t)fuzz_number(&script, 1) % 2;
	struct shmb_publisher *publisher = NULL;
	struct shmb_subscriber *subscriber = NULL;
	int result;

	serve_grant(role, next_request(1));
	if (fuzz_number(&script, 1) & 1)
		serve_pair(role);
	serve(answer_of(SHMB_MSG_OK, NULL, 0), next_request(2));
	if (role == SHMB_ROLE_PUBLISHER)
		result = shmb_publisher_open(channel, NULL, &publisher);
	else
		result = shmb_subscriber_open(channel, NULL, &subscriber);
	forget_requests();
	if (result < 0)
		return;
	stream(publisher, subscriber);
	FUZZ_CHECK(shmb_publisher_close(publisher) == 0);
	FUZZ_CHECK(shmb_subscriber_close(subscriber) == 0);
}

static void be_client(void)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_ANY_SCHEMA };
	struct shmb_channel *channel;

	serve_joined();
	if (join(client) < 0)
		return;
	FUZZ_CHECK(client->bell);
	forget_requests();
	serve_opened();
	if (shmb_channel_open(client, "a", 1, &options, &channel) < 0)
		return;
	forget_requests();
	be_member(channel);
	FUZZ_CHECK(shmb_channel_close(channel) == 0);
}

static void connect_client(void)
{
	struct shmb_noise_cipher cipher = { .left = SHMB_NOISE_RECORDS_PER_KEY };
	int pair[2];

	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ==
		   0);
	client = calloc(1, sizeof(*client));
	FUZZ_CHECK(client);
	FUZZ_CHECK(pthread_mutex_init(&client->lock, NULL) == 0);
	client->fork_guard = shmb_fork_guard();
	client->connection.fd = pair[0];
	client->connection.listener = -1;
	client->connected = true;
	client->timeout_ns = 1; /* nothing comes later */
	strcpy(client->address, "/nonexistent/broker.sock");
	broker_fd = pair[1];
	memset(&broker, 0, sizeof(broker));
	broker.send = broker.receive = cipher;
	broker.ready = true;
	client->connection.session = broker;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int before;

	if (!maps[0])
		prepare();
	before = fuzz_free_fd();
	script = (struct fuzz_script){ data, size };
	reset_segments();
	connect_client();
	/* The broker dies at once: what was never received must not be closed. */
	if (fuzz_number(&script, 1) & 1)
		shutdown(broker_fd, SHUT_RDWR);
	be_client();
	FUZZ_CHECK(client->n_children == 0 && !client->inboxes && !client->resumables);
	deinit(client);
	empty(things[THING_PACKETS]);
	close(broker_fd);
	FUZZ_CHECK(fuzz_free_fd() == before);
	return 0;
}
