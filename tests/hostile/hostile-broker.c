/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a client finds at the address: things that are no broker, and brokers that lie. Each gets
 * the right error and one sentence, in time; the client keeps no fd and no mapping of it, and
 * connects to an honest broker afterwards as if nothing had been.
 */

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/layout.h>
#include <shmbroker/protocol.h>

#include "lib/fd.h"
#include "lib/keyfile.h"
#include "lib/runtime.h"
#include "lib/session.h"

#include "tests/unit/fixture.h"

#define TIMEOUT_MS 400

static char dir[32];
static char address[64];
static struct shmb_noise_keypair key;

/* ---- the fake broker ---------------------------------------------------------------------------- */

/* Its end of one connection. */
struct fake {
	int fd;
	struct shmb_session session;
	struct shmb_message request;
	_Alignas(8) uint8_t packet[SHMB_PACKET_LEN_MAX];
	_Alignas(8) uint8_t plain[SHMB_PACKET_LEN_MAX];
};

/* A message that is about to be sent, to be falsified before. */
struct lie {
	struct shmb_message message;
	struct shmb_fd_descriptor descriptors[SHMB_PACKET_FDS_MAX];
	int fds[2 * SHMB_PACKET_FDS_MAX];
	uint32_t n_fds; /* that really ride */
	union {
		uint8_t bytes[64];
		struct shmb_msg_joined joined;
		struct shmb_msg_opened opened;
		struct shmb_msg_grant grant;
		struct shmb_msg_error error;
	} body;
};

static void fake_packet(struct fake *fake, const void *packet, size_t len, const int *fds,
			uint32_t n_fds)
{
	_Alignas(8) char control[CMSG_SPACE(2 * SHMB_PACKET_FDS_MAX * sizeof(int))] = { 0 };
	struct iovec data = { (void *)packet, len };
	struct msghdr header = { .msg_iov = &data, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (n_fds) {
		header.msg_control = control;
		header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&header);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	sendmsg(fake->fd, &header, MSG_NOSIGNAL);
}

static bool fake_hear(struct fake *fake)
{
	ssize_t len = recv(fake->fd, fake->packet, sizeof(fake->packet), 0);

	return len > 0 && shmb_session_open(&fake->session, fake->packet, (uint32_t)len,
					    fake->plain, &fake->request) == 0;
}

/* Until the client has gone: whoever ends earlier looks dead, not mute. */
static void fake_stay(struct fake *fake)
{
	while (recv(fake->fd, fake->packet, sizeof(fake->packet), 0) > 0)
		;
}

static bool fake_read_handshake(struct fake *fake)
{
	struct shmb_handshake_1_payload payload;
	uint8_t client_key[SHMB_KEY_LEN];
	ssize_t len = recv(fake->fd, fake->packet, sizeof(fake->packet), 0);

	return len > 0 && shmb_session_accept(&fake->session, &key, fake->packet, (uint32_t)len,
					      &payload, client_key) == 0;
}

static struct shmb_handshake_2_payload fake_hello(const struct fake *fake)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	getsockopt(fake->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
	return (struct shmb_handshake_2_payload){ .peer_uid = peer.uid,
						  .peer_gid = peer.gid,
						  .peer_pid = (uint32_t)peer.pid,
						  .session_id = 1,
						  .instance = 1 };
}

/* Up to and with READY. */
static bool fake_shake_hands(struct fake *fake)
{
	struct shmb_handshake_2_payload hello;
	struct shmb_handshake_2 second;

	if (!fake_read_handshake(fake))
		return false;
	hello = fake_hello(fake);
	if (shmb_session_accepted(&fake->session, &hello, &second) < 0)
		return false;
	fake_packet(fake, &second, sizeof(second), NULL, 0);
	return fake_hear(fake) && fake->request.type == SHMB_MSG_READY;
}

static void fake_tell(struct fake *fake, struct lie *lie)
{
	int len;

	lie->message.body = lie->body.bytes;
	lie->message.descriptors = lie->descriptors;
	len = shmb_session_seal(&fake->session, &lie->message, fake->packet);
	if (len > 0)
		fake_packet(fake, fake->packet, (size_t)len, lie->fds, lie->n_fds);
}

/* A segment as the real broker makes it, read-only or not. */
static int fake_segment(uint32_t kind, uint64_t len, int flags)
{
	struct shmb_segment_header header = { .magic = SHMB_SEGMENT_MAGIC,
					      .byte_order = SHMB_BYTE_ORDER,
					      .version = 1,
					      .kind = kind,
					      .block_len = SHMB_BLOCK_LEN,
					      .segment_len = len,
					      .segment_id = 1 };
	char name[40];
	int fd, result;

	snprintf(name, sizeof(name), "/shmb-test.%d", getpid());
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)len) < 0 ||
	    pwrite(fd, &header, sizeof(header), 0) != sizeof(header))
		_exit(9);
	result = shm_open(name, flags, 0);
	shm_unlink(name);
	close(fd);
	return result;
}

static void lie_add(struct lie *lie, int fd, uint8_t kind, uint8_t access, uint16_t role)
{
	uint32_t i = lie->n_fds++;

	lie->fds[i] = fd;
	shmb_fd_describe(fd, kind, access, role, 1, &lie->descriptors[i]);
	lie->message.fd_count = lie->n_fds;
}

/* The truth: JOINED with a bell. */
static void truth_joined(struct fake *fake, struct lie *lie)
{
	*lie = (struct lie){ .message = { .type = SHMB_MSG_JOINED,
					  .request_id = fake->request.request_id,
					  .body_len = sizeof(lie->body.joined) },
			     .body.joined = { .client_id = 1, .instance = 1 } };
	lie_add(lie, fake_segment(SHMB_SEGMENT_BELL, SHMB_BLOCK_LEN, O_RDONLY), SHMB_FD_SHM,
		SHMB_FD_READ, SHMB_FD_ROLE_BELL);
}

/* OPENED with a channel's segment. */
static void truth_opened(struct fake *fake, struct lie *lie)
{
	*lie = (struct lie){ .message = { .type = SHMB_MSG_OPENED,
					  .request_id = fake->request.request_id,
					  .body_len = sizeof(lie->body.opened) },
			     .body.opened = { .channel_id = 2,
					      .created = 1,
					      .pattern = SHMB_PATTERN_STREAM,
					      .lane_len = 4096,
					      .max_publishers = 4,
					      .max_subscribers = 4 } };
	lie_add(lie, fake_segment(SHMB_SEGMENT_CHANNEL, SHMB_BLOCK_LEN, O_RDONLY), SHMB_FD_SHM,
		SHMB_FD_READ, SHMB_FD_ROLE_PEER);
}

/* ---- lies about the handshake ------------------------------------------------------------------- */

static void speaks_another_version(struct fake *fake)
{
	struct shmb_version_reject reject = {
		.header = { .kind = SHMB_PACKET_VERSION, .wire = 1, .packet_len = sizeof(reject) },
		.version_min = 7,
		.version_max = 9
	};

	fake_packet(fake, &reject, sizeof(reject), NULL, 0);
	fake_stay(fake);
}

static void never_answers(struct fake *fake)
{
	fake_stay(fake);
}

static void never_answers_join(struct fake *fake)
{
	if (fake_shake_hands(fake))
		fake_stay(fake);
}

static void sends_garbage(struct fake *fake)
{
	static const char garbage[] = "HTTP/1.1 400 Bad Request\r\n\r\n";

	fake_packet(fake, garbage, sizeof(garbage), NULL, 0);
	fake_stay(fake);
}

static void sends_too_much(struct fake *fake)
{
	static const char garbage[SHMB_PACKET_LEN_MAX + 64];

	fake_packet(fake, garbage, sizeof(garbage), NULL, 0);
	fake_stay(fake);
}

static void sends_a_falsified_handshake(struct fake *fake)
{
	struct shmb_handshake_2_payload hello = fake_hello(fake);
	struct shmb_handshake_2 second;

	if (!fake_read_handshake(fake) ||
	    shmb_session_accepted(&fake->session, &hello, &second) < 0)
		return;
	second.noise[40] ^= 1;
	fake_packet(fake, &second, sizeof(second), NULL, 0);
	fake_stay(fake);
}

static void sees_somebody_else(struct fake *fake)
{
	struct shmb_handshake_2_payload hello = fake_hello(fake);
	struct shmb_handshake_2 second;

	hello.peer_pid++;
	if (!fake_read_handshake(fake) ||
	    shmb_session_accepted(&fake->session, &hello, &second) < 0)
		return;
	fake_packet(fake, &second, sizeof(second), NULL, 0);
	fake_stay(fake);
}

/* Fds that nobody asked for; then it falls silent. */
static void sends_fds_with_the_handshake(struct fake *fake)
{
	struct shmb_handshake_2_payload hello = fake_hello(fake);
	struct shmb_handshake_2 second;
	int fds[2 * SHMB_PACKET_FDS_MAX] = { 0 };

	if (!fake_read_handshake(fake) ||
	    shmb_session_accepted(&fake->session, &hello, &second) < 0)
		return;
	fake_packet(fake, &second, sizeof(second), fds, SHMB_PACKET_FDS_MAX);
	fake_stay(fake);
}

static void hangs_up(struct fake *fake)
{
	shutdown(fake->fd, SHUT_RDWR);
	pause();
}

static void hangs_up_after_the_handshake(struct fake *fake)
{
	if (fake_shake_hands(fake))
		hangs_up(fake);
}

static void dies(struct fake *fake)
{
	recv(fake->fd, fake->packet, sizeof(fake->packet), 0);
	kill(getpid(), SIGKILL);
}

static void sends_garbage_after_the_handshake(struct fake *fake)
{
	if (!fake_shake_hands(fake) || !fake_hear(fake))
		return;
	memset(fake->packet, 0x5a, 200);
	fake_packet(fake, fake->packet, 200, NULL, 0);
	fake_stay(fake);
}

static void repeats_a_packet_of_the_client(struct fake *fake)
{
	ssize_t len;

	if (!fake_shake_hands(fake))
		return;
	len = recv(fake->fd, fake->packet, sizeof(fake->packet), 0);
	if (len > 0)
		fake_packet(fake, fake->packet, (size_t)len, NULL, 0);
	fake_stay(fake);
}

/* ---- lies about fds ----------------------------------------------------------------------------- */

static void no_fd(struct lie *lie)
{
	lie->n_fds = lie->message.fd_count = 0;
}

static void fewer_fds_than_announced(struct lie *lie)
{
	lie->n_fds = 0;
}

static void more_fds_than_announced(struct lie *lie)
{
	lie->fds[lie->n_fds++] = 0;
}

static void more_fds_than_any_packet(struct lie *lie)
{
	while (lie->n_fds < 2 * SHMB_PACKET_FDS_MAX)
		lie->fds[lie->n_fds++] = 0;
}

static void an_fd_without_rights(struct lie *lie)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", lie->fds[0]);
	lie->fds[0] = open(path, O_PATH);
}

static void a_pipe(struct lie *lie)
{
	int ends[2];

	if (pipe(ends) == 0)
		lie->fds[0] = ends[0];
}

static void a_pipe_described_as_such(struct lie *lie)
{
	a_pipe(lie);
	lie->n_fds = 0;
	lie_add(lie, lie->fds[0], SHMB_FD_SHM, SHMB_FD_READ, lie->descriptors[0].role);
	lie->descriptors[0].segment_len = SHMB_BLOCK_LEN;
}

static void another_inode(struct lie *lie)
{
	lie->fds[0] = fake_segment(SHMB_SEGMENT_BELL, SHMB_BLOCK_LEN, O_RDONLY);
}

static void an_fd_with_more_rights(struct lie *lie)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", lie->fds[0]);
	lie->fds[0] = open(path, O_RDWR);
}

static void another_length(struct lie *lie)
{
	lie->descriptors[0].segment_len *= 2;
}

static void another_mode(struct lie *lie)
{
	lie->descriptors[0].mode = 0666;
}

static void seals_that_are_not_set(struct lie *lie)
{
	lie->descriptors[0].required_seals = F_SEAL_SHRINK;
}

static void a_descriptor_of_the_future(struct lie *lie)
{
	lie->descriptors[0].zero[3] = 1;
}

static void another_role(struct lie *lie)
{
	lie->descriptors[0].role = SHMB_FD_ROLE_RINGER;
}

static void a_kind_that_does_not_exist(struct lie *lie)
{
	lie->descriptors[0].kind = 77;
}

static void swap_segment(struct lie *lie, uint32_t kind, uint64_t len)
{
	uint16_t role = lie->descriptors[0].role;

	lie->n_fds = 0;
	lie_add(lie, fake_segment(kind, len, O_RDONLY), SHMB_FD_SHM, SHMB_FD_READ, role);
}

static void a_segment_of_another_kind(struct lie *lie)
{
	swap_segment(lie, SHMB_SEGMENT_LANE, SHMB_BLOCK_LEN);
}

static void a_segment_of_one_byte(struct lie *lie)
{
	swap_segment(lie, SHMB_SEGMENT_BELL, 1);
}

static void another_segment_id(struct lie *lie)
{
	lie->descriptors[0].segment_id = 2;
}

/* ---- lies about messages ------------------------------------------------------------------------ */

static void a_short_answer(struct lie *lie)
{
	lie->message.body_len = 8;
}

static void another_answer(struct lie *lie)
{
	lie->message.type = SHMB_MSG_OK;
}

static void an_unknown_error(struct lie *lie)
{
	lie->message.type = SHMB_MSG_ERROR;
	lie->message.body_len = sizeof(lie->body.error);
	lie->body.error = (struct shmb_msg_error){ .code = 4711 };
	no_fd(lie);
}

static void a_short_error(struct lie *lie)
{
	lie->message.type = SHMB_MSG_ERROR;
	lie->message.body_len = 8;
	no_fd(lie);
}

static void an_answer_to_nobody(struct lie *lie)
{
	lie->message.request_id += 1000;
}

static void a_huge_lane(struct lie *lie)
{
	lie->body.opened.lane_len = 0xfffffffcu;
}

static void a_schema_that_is_not_there(struct lie *lie)
{
	lie->body.opened.schema_len = 60000;
}

/* ---- what a client makes of it ------------------------------------------------------------------ */

static const struct {
	void (*behave)(struct fake *fake);
	int result;
	const char *sentence;
} manners[] = {
	{ speaks_another_version, -EPROTONOSUPPORT, "another protocol version" },
	{ never_answers, -ETIMEDOUT, "does not answer" },
	{ never_answers_join, -ETIMEDOUT, "did not answer within" },
	{ sends_garbage, -EKEYREJECTED, "not a broker" },
	{ sends_too_much, -EPROTO, "did not arrive whole" },
	{ sends_a_falsified_handshake, -EKEYREJECTED, "does not hold the expected key" },
	{ sees_somebody_else, -EKEYREJECTED, "pid" },
	{ sends_fds_with_the_handshake, -ETIMEDOUT, "did not answer within" },
	{ hangs_up, -EKEYREJECTED, "refused the connection" },
	{ hangs_up_after_the_handshake, -ENOTCONN, "broker" },
	{ dies, -ECONNREFUSED, "died" },
	{ sends_garbage_after_the_handshake, -EBADMSG, "not authentic" },
	{ repeats_a_packet_of_the_client, -EBADMSG, "not authentic" },
};

struct falsehood {
	void (*falsify)(struct lie *lie);
	int result;
	const char *sentence;
};

static const struct falsehood about_bells[] = {
	{ no_fd, -EPROTO, "no bell" },
	{ fewer_fds_than_announced, -EPROTO, "announced 1 fds, 0 came" },
	{ more_fds_than_announced, -EPROTO, "announced 1 fds, 2 came" },
	{ more_fds_than_any_packet, -EPROTO, "did not arrive whole" },
	{ an_fd_without_rights, -EPROTO, "fd: cannot be used" },
	{ a_pipe, -EPROTO, "not a regular file" },
	{ a_pipe_described_as_such, -EPROTO, "not a regular file" },
	{ another_inode, -EPROTO, "another file" },
	{ an_fd_with_more_rights, -EPROTO, "other rights" },
	{ another_length, -EPROTO, "were announced" },
	{ another_mode, -EPROTO, "mode 0600" },
	{ seals_that_are_not_set, -EPROTO, "seals" },
	{ a_descriptor_of_the_future, -EPROTO, "" },
	{ another_role, -EPROTO, "no bell" },
	{ a_kind_that_does_not_exist, -EPROTO, "kind 77" },
	{ a_segment_of_another_kind, -EBADMSG, "not the bell" },
	{ a_segment_of_one_byte, -EPROTO, "too short" },
	{ another_segment_id, -EBADMSG, "not the bell" },
	{ a_short_answer, -EPROTO, "message" },
	{ another_answer, -EPROTO, "answered request" },
	{ an_unknown_error, -EPROTO, "unknown code 4711" },
	{ a_short_error, -EPROTO, "short error" },
	{ an_answer_to_nobody, -ETIMEDOUT, "did not answer within" },
};

static const struct falsehood about_channels[] = {
	{ no_fd, -EPROTO, "no channel segment" },
	{ more_fds_than_announced, -EPROTO, "announced 1 fds, 2 came" },
	{ an_fd_without_rights, -EPROTO, "fd: cannot be used" },
	{ another_inode, -EPROTO, "another file" },
	{ another_role, -EPROTO, "no channel segment" },
	{ a_segment_of_another_kind, -EBADMSG, "not the channel" },
	{ a_huge_lane, -EPROTO, "impossible limits" },
	{ a_schema_that_is_not_there, -EPROTO, "does not fit" },
	{ an_answer_to_nobody, -ETIMEDOUT, "did not answer within" },
};

static unsigned entries(const char *path)
{
	DIR *listed = opendir(path);
	unsigned n = 0;

	while (readdir(listed))
		n++;
	closedir(listed);
	return n;
}

/* Mappings of shared memory; the heap's may change. */
static unsigned mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	while (fgets(line, sizeof(line), maps))
		n += strstr(line, "/dev/shm/") != NULL;
	fclose(maps);
	return n;
}

static int listen_at(int type)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	strcpy(name.sun_path, address);
	if (bind(fd, (struct sockaddr *)&name, sizeof(name)) < 0 || listen(fd, 5) < 0)
		return -1;
	return fd;
}

/* A fake broker in a process of its own; @behave serves one connection. */
static pid_t fake_start(void (*behave)(struct fake *fake, const void *data), const void *data)
{
	int ready[2];
	pid_t pid;
	char byte;

	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		struct fake *fake = aligned_alloc(64, (sizeof(*fake) + 63) & ~63ul);
		int listener = listen_at(SOCK_SEQPACKET);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (listener < 0 || write(ready[1], "r", 1) != 1)
			_exit(9);
		fake->fd = accept(listener, NULL, NULL);
		behave(fake, data);
		_exit(0);
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void fake_stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	unlink(address);
}

static int open_client(struct shmb_client **ret_client)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .connect_timeout_ns = TIMEOUT_MS * MS,
					       .address = address,
					       .address_len = (uint32_t)strlen(address) };

	return shmb_client_open(&options, ret_client);
}

/* One refusal: the error, one sentence in one line, in time, and nothing kept. */
static void check_refusal(int result, int wanted, const char *sentence, uint64_t ms)
{
	ck_assert_msg(result == wanted, "%d, not %d (%s)", result, wanted, why());
	says(sentence);
	ck_assert_msg(strlen(why()) > 10 && !strchr(why(), '\n'), "\"%s\" is no sentence", why());
	ck_assert_uint_lt(ms, 3 * TIMEOUT_MS);
	if (wanted == -ETIMEDOUT)
		ck_assert_uint_ge(ms, TIMEOUT_MS - 20);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void set_up_place(void)
{
	char path[64];

	strcpy(dir, "/tmp/shmb-test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(address, sizeof(address), "%s/" SHMB_SOCKET_FILE, dir);
	snprintf(path, sizeof(path), "%s/" SHMB_PUBLIC_FILE, dir);
	ck_assert_int_eq(shmb_noise_keypair_generate(&key), 0);
	ck_assert_int_eq(shmb_keyfile_write_public(path, key.public, "fake"), 0);
}

static void tear_down_place(void)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/" SHMB_PUBLIC_FILE, dir);
	unlink(path);
	unlink(address);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void act(struct fake *fake, const void *data)
{
	void (*const *behave)(struct fake *) = data;

	(*behave)(fake);
}

START_TEST(a_broker_without_manners_is_refused_in_one_sentence)
{
	struct shmb_client *refused_client = NULL;
	unsigned before = entries("/proc/self/fd");
	pid_t pid = fake_start(act, &manners[_i].behave);
	uint64_t start = now_ms();
	int result = open_client(&refused_client);

	check_refusal(result, manners[_i].result, manners[_i].sentence, now_ms() - start);
	ck_assert_ptr_null(refused_client);
	ck_assert_uint_eq(entries("/proc/self/fd"), before);
	fake_stop(pid);
}
END_TEST

static void lie_about_the_bell(struct fake *fake, const void *data)
{
	const struct falsehood *falsehood = data;
	struct lie lie;

	if (!fake_shake_hands(fake) || !fake_hear(fake))
		return;
	truth_joined(fake, &lie);
	falsehood->falsify(&lie);
	fake_tell(fake, &lie);
	fake_stay(fake);
}

START_TEST(a_broker_that_lies_about_the_bell_is_refused)
{
	struct shmb_client *refused_client = NULL;
	unsigned before = entries("/proc/self/fd");
	pid_t pid = fake_start(lie_about_the_bell, &about_bells[_i]);
	uint64_t start = now_ms();
	int result = open_client(&refused_client);

	check_refusal(result, about_bells[_i].result, about_bells[_i].sentence, now_ms() - start);
	ck_assert_uint_eq(entries("/proc/self/fd"), before);
	ck_assert_uint_eq(mappings(), 0);
	fake_stop(pid);
}
END_TEST

static void lie_about_the_channel(struct fake *fake, const void *data)
{
	const struct falsehood *falsehood = data;
	struct lie lie;

	if (!fake_shake_hands(fake) || !fake_hear(fake))
		return;
	truth_joined(fake, &lie);
	fake_tell(fake, &lie);
	if (!fake_hear(fake))
		return;
	truth_opened(fake, &lie);
	if (falsehood)
		falsehood->falsify(&lie);
	fake_tell(fake, &lie);
	fake_stay(fake);
}

START_TEST(a_broker_that_lies_about_a_channel_is_refused)
{
	const struct falsehood *falsehood = &about_channels[_i];
	pid_t pid = fake_start(lie_about_the_channel, falsehood);
	struct shmb_client *victim;
	struct shmb_channel *channel;
	unsigned before = entries("/proc/self/fd");
	uint64_t start;
	int result;

	ok(open_client(&victim));
	start = now_ms();
	result = shmb_channel_open(victim, "x", 1, NULL, &channel);
	check_refusal(result, falsehood->result, falsehood->sentence, now_ms() - start);
	ok(shmb_client_close(victim));
	ck_assert_uint_eq(entries("/proc/self/fd"), before);
	ck_assert_uint_eq(mappings(), 0);
	fake_stop(pid);
}
END_TEST

/* Else the cases above would be refused for another reason than their own. */
START_TEST(a_fake_broker_that_tells_the_truth_is_believed)
{
	pid_t pid = fake_start(lie_about_the_channel, NULL);
	struct shmb_client *deceived;
	struct shmb_channel *channel;

	ok(open_client(&deceived));
	ok(shmb_channel_open(deceived, "x", 1, NULL, &channel));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(deceived));
	fake_stop(pid);
}
END_TEST

/* ---- things that are no broker ------------------------------------------------------------------ */

static int regular_file(void)
{
	return open(address, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static int directory(void)
{
	return mkdir(address, 0700);
}

static int fifo(void)
{
	return mkfifo(address, 0600);
}

static int dangling_link(void)
{
	return symlink("/nonexistent/control.sock", address);
}

static int stream_socket(void)
{
	return listen_at(SOCK_STREAM);
}

static int abandoned_socket(void)
{
	int fd = listen_at(SOCK_SEQPACKET);

	close(fd);
	return fd < 0 ? fd : 0;
}

static const struct {
	int (*make)(void);
	int result;
	const char *sentence;
} things[] = {
	{ regular_file, -ECONNREFUSED, "not a socket" },
	{ directory, -ECONNREFUSED, "not a socket" },
	{ fifo, -ECONNREFUSED, "not a socket" },
	{ dangling_link, -ENOENT, "control.sock" },
	{ stream_socket, -ECONNREFUSED, "not a broker's socket" },
	{ abandoned_socket, -ECONNREFUSED, "nobody listens" },
};

START_TEST(what_is_no_broker_is_called_by_its_name)
{
	struct shmb_client *nobody;
	unsigned before = entries("/proc/self/fd");
	int fd = things[_i].make();

	ck_assert_int_ge(fd, 0);
	check_refusal(open_client(&nobody), things[_i].result, things[_i].sentence, 0);
	says(dir);
	if (fd > 2)
		close(fd);
	ck_assert_uint_eq(entries("/proc/self/fd"), before);
	if (things[_i].make == directory)
		rmdir(address);
}
END_TEST

START_TEST(a_place_where_others_write_is_refused_before_anything_is_said)
{
	struct shmb_client *nobody;
	int fd = listen_at(SOCK_SEQPACKET);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	for (unsigned mode = 0777; mode; mode = mode == 0777 ? 0720 : 0) {
		ck_assert_int_eq(chmod(dir, mode), 0);
		check_refusal(open_client(&nobody), -EACCES, "can be written by others", 0);
		says(dir);
	}
	ck_assert_int_lt(accept(fd, NULL, NULL), 0);
	ck_assert_int_eq(chmod(dir, 0700), 0);
	close(fd);
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("hostile broker") };

	tcase_add_checked_fixture(cases[0], set_up_place, tear_down_place);
	tcase_set_timeout(cases[0], 20);
	tcase_add_test(cases[0], a_fake_broker_that_tells_the_truth_is_believed);
	tcase_add_loop_test(cases[0], a_broker_without_manners_is_refused_in_one_sentence, 0,
			    sizeof(manners) / sizeof(manners[0]));
	tcase_add_loop_test(cases[0], a_broker_that_lies_about_the_bell_is_refused, 0,
			    sizeof(about_bells) / sizeof(about_bells[0]));
	tcase_add_loop_test(cases[0], a_broker_that_lies_about_a_channel_is_refused, 0,
			    sizeof(about_channels) / sizeof(about_channels[0]));
	tcase_add_loop_test(cases[0], what_is_no_broker_is_called_by_its_name, 0,
			    sizeof(things) / sizeof(things[0]));
	tcase_add_test(cases[0], a_place_where_others_write_is_refused_before_anything_is_said);
	return run_suite("hostile broker", cases, 1);
}
