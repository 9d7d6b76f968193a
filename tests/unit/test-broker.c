/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A broker in a child process (so that it can be killed), and clients that speak the raw protocol.
 * After each test nothing may be left: no process, no file, no shared-memory object.
 */

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#include "daemon/broker.h"
#include "lib/runtime.h"

#include "raw-client.h"

static char dir[64];
static pid_t broker_pid;
static struct quota_limits limits;
static uint64_t idle_exit_ms, handshake_ms;
static uint64_t instance;

static enum loop_backend backend(void)
{
	const char *io = getenv("SHMBROKER_IO");

	return io && strcmp(io, "epoll") == 0 ? LOOP_EPOLL : LOOP_AUTO;
}

static void on_signal(void *data)
{
	loop_stop(((struct broker *)data)->loop, 0);
}

static struct broker *signalled;

static _Noreturn void broker_main(int ready)
{
	struct policy policy = { .single_user = true, .uid = geteuid() };
	struct broker_config config = {
		.directory = dir,
		.socket_mode = 0600,
		.listen_fd = -1,
		.backend = backend(),
		.idle_exit_ns = idle_exit_ms * 1000000,
		.handshake_ns = handshake_ms * 1000000,
		.policy = &policy,
		.limits = limits,
		.log = { .fd = getenv("SHMB_TEST_LOG") ? 2 : -1 },
	};
	struct loop_watch *watch;
	char text[256];
	sigset_t set;
	int r, fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	r = broker_new(&config, &signalled);
	if (r < 0) {
		shmb_last_error(text, sizeof(text));
		fprintf(stderr, "broker: %s\n", text);
		_exit(2);
	}
	/* Not a handler: a sanitizer would defer it, and nothing else wakes an idle broker. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		_exit(3);
	loop_watch(signalled->loop, fd, true, on_signal, signalled, &watch);
	if (write(ready, "r", 1) != 1)
		_exit(4);
	close(ready);
	r = broker_run(signalled);
	loop_unwatch(watch);
	broker_free(signalled);
	exit(r < 0 ? 5 : 0); /* lets the leak checker look */
}

static void broker_begin(void)
{
	int ends[2];
	char byte;

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	broker_pid = fork();
	if (broker_pid == 0) {
		close(ends[0]);
		broker_main(ends[1]);
	}
	close(ends[1]);
	ck_assert_int_eq(read(ends[0], &byte, 1), 1);
	close(ends[0]);
	ck_assert_int_eq(shmb_runtime_instance(dir, &instance), 0);
}

/* Returns the exit status. */
static int broker_end(int number)
{
	int status;

	if (number)
		kill(broker_pid, number);
	ck_assert_int_eq(waitpid(broker_pid, &status, 0), broker_pid);
	broker_pid = 0;
	return status;
}

/* Objects of this test's broker in shared memory. */
static unsigned objects(void)
{
	char prefix[32];
	struct dirent *found;
	DIR *shm = opendir("/dev/shm");
	unsigned n = 0;

	snprintf(prefix, sizeof(prefix), "shmb.%016llx.", (unsigned long long)instance);
	while ((found = readdir(shm)))
		n += strncmp(found->d_name, prefix, strlen(prefix)) == 0;
	closedir(shm);
	return n;
}

static void wait_objects(unsigned wanted)
{
	for (int i = 0; i < 400 && objects() != wanted; i++)
		usleep(5000);
	ck_assert_uint_eq(objects(), wanted);
}

static void setup(void)
{
	strcpy(dir, "/tmp/shmb-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	quota_limits_user(&limits);
	idle_exit_ms = handshake_ms = 0;
	broker_begin();
}

static void teardown(void)
{
	char path[128];

	if (broker_pid) {
		ck_assert_int_eq(broker_end(SIGTERM), 0);
		ck_assert_uint_eq(objects(), 0);
	}
	snprintf(path, sizeof(path), "%s/" SHMB_PRIVATE_FILE, dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/" SHMB_PUBLIC_FILE, dir);
	unlink(path);
	/* Fails if socket or lock are still there. */
	ck_assert_int_eq(rmdir(dir), 0);
}

static struct raw_client *client_new(void)
{
	struct raw_client *raw = raw_connect(dir);

	raw_join(raw, 0, NULL);
	return raw;
}

static uint64_t epoch_of(const struct shmb_channel_segment *channel)
{
	/* pairs with the broker's release store of the epoch */
	return __atomic_load_n(&channel->epoch, __ATOMIC_ACQUIRE);
}

/* A publisher and a subscriber on channel "a/b", each of its own client. */
struct couple {
	struct raw_client *p, *s;
	uint64_t channel, pub, sub;
	struct shmb_channel_segment *segment;
	struct shmb_msg_pair p_pair, s_pair;
};

static struct couple couple_new(void)
{
	struct couple c = { .p = client_new(), .s = client_new() };
	struct raw_message *event;

	c.channel = raw_open(c.p, "a/b");
	c.segment = raw_map(&c.p->reply, SHMB_FD_ROLE_PEER, PROT_READ);
	ck_assert_uint_eq(raw_open(c.s, "a/b"), c.channel);
	c.pub = raw_member(c.p, c.channel, SHMB_ROLE_PUBLISHER, NULL);
	c.sub = raw_member(c.s, c.channel, SHMB_ROLE_SUBSCRIBER, NULL);
	event = raw_event(c.p, SHMB_MSG_PAIR, 0);
	ck_assert_ptr_nonnull(event);
	memcpy(&c.p_pair, event->body, sizeof(c.p_pair));
	event = raw_event(c.s, SHMB_MSG_PAIR, 0);
	ck_assert_ptr_nonnull(event);
	memcpy(&c.s_pair, event->body, sizeof(c.s_pair));
	return c;
}

static void couple_free(struct couple *c)
{
	munmap(c->segment, SHMB_BLOCK_LEN);
	c->p = raw_close(c->p);
	c->s = raw_close(c->s);
}

static void leave(struct raw_client *raw, uint64_t member, uint64_t channel)
{
	struct shmb_msg_id id = { member };

	if (member)
		ck_assert_uint_eq(raw_call(raw, SHMB_MSG_DETACH, &id, sizeof(id)), SHMB_MSG_OK);
	id.id = channel;
	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_CLOSE, &id, sizeof(id)), SHMB_MSG_OK);
}

START_TEST(says_how_it_sees_the_client)
{
	struct raw_client *raw = client_new();

	ck_assert_uint_eq(raw->hello.peer_uid, geteuid());
	ck_assert_uint_eq(raw->hello.peer_pid, (unsigned)getpid());
	ck_assert_uint_eq(raw->hello.instance, instance);
	ck_assert_uint_eq(raw->joined.instance, instance);
	ck_assert_uint_eq(raw->joined.broker_epoch, 1);
	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_PING, NULL, 0), SHMB_MSG_OK);
	ck_assert_uint_ge(raw->bell->wake, 1);
	wait_objects(2);
	raw_close(raw);
	wait_objects(1);
}
END_TEST

START_TEST(closes_on_garbage)
{
	static const char garbage[SHMB_PACKET_LEN_MAX + 1] = "SBK1";
	static const size_t lens[] = {
		1, 8, 191, 192, 193, 4096, SHMB_PACKET_LEN_MAX, SHMB_PACKET_LEN_MAX + 1
	};
	struct raw_client *raw;
	char byte;
	int fd;

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		fd = raw_socket(dir);
		ck_assert_int_eq(send(fd, garbage, lens[i], MSG_NOSIGNAL), (int)lens[i]);
		ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
		close(fd);
		raw = client_new();
		send(raw->fd, garbage, lens[i], MSG_NOSIGNAL);
		ck_assert(!raw_receive(raw, 3000));
		raw_close(raw);
	}
	wait_objects(1);
}
END_TEST

START_TEST(refuses_the_wrong_key_and_version)
{
	struct shmb_handshake_1_payload payload = { 0 };
	struct shmb_noise_keypair key;
	struct shmb_session session;
	struct shmb_handshake_1 h1;
	struct shmb_version_reject reject;
	int fd = raw_socket(dir);

	shmb_noise_keypair_generate(&key);
	ck_assert_int_eq(shmb_session_connect(&session, &key, key.public, &payload, &h1), 0);
	send(fd, &h1, sizeof(h1), MSG_NOSIGNAL);
	ck_assert_int_le(recv(fd, &reject, sizeof(reject), 0), 0);
	close(fd);
	fd = raw_socket(dir);
	h1.version_min = h1.version_max = 9;
	send(fd, &h1, sizeof(h1), MSG_NOSIGNAL);
	ck_assert_int_eq(recv(fd, &reject, sizeof(reject), 0), sizeof(reject));
	ck_assert_uint_eq(reject.header.kind, SHMB_PACKET_VERSION);
	ck_assert_int_le(recv(fd, &reject, sizeof(reject), 0), 0);
	close(fd);
}
END_TEST

/* Whoever has said nothing yet, and whoever has proved who it is but does not join. */
START_TEST(ends_slow_handshakes)
{
	struct raw_client *raw;
	char byte;
	int fd;

	broker_end(SIGTERM);
	handshake_ms = 1000;
	broker_begin();
	fd = raw_socket(dir);
	ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
	close(fd);
	raw = raw_connect(dir);
	ck_assert_int_le(recv(raw->fd, &byte, 1, 0), 0);
	raw_close(raw);
	raw = client_new();
	usleep(1300000);
	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_PING, NULL, 0), SHMB_MSG_OK);
	raw_close(raw);
}
END_TEST

static uint32_t open_raw(struct raw_client *raw, const char *name, uint32_t flags,
			 uint32_t lane_len, const void *schema, uint32_t schema_len)
{
	_Alignas(8) uint8_t body[sizeof(struct shmb_msg_open) + SHMB_SCHEMA_LEN_MAX];
	struct shmb_msg_open open = { .flags = flags,
				      .pattern = SHMB_PATTERN_STREAM,
				      .lane_len = lane_len,
				      .schema_len = schema_len,
				      .name_len = (uint32_t)strlen(name) };

	memcpy(open.name, name, open.name_len);
	memcpy(body, &open, sizeof(open));
	if (schema_len)
		memcpy(body + sizeof(open), schema, schema_len);
	return raw_call(raw, SHMB_MSG_OPEN, body, (uint32_t)sizeof(open) + schema_len);
}

struct tick {
	uint64_t time_ns;
	double price;
};
SHMB_SCHEMA(tick_schema, struct tick, "tick", SHMB_FIELD(struct tick, time_ns),
	    SHMB_FIELD(struct tick, price));
struct tock {
	uint64_t time_ns;
	int64_t price;
};
SHMB_SCHEMA(tock_schema, struct tock, "tock", SHMB_FIELD(struct tock, time_ns),
	    SHMB_FIELD(struct tock, price));

START_TEST(opens_channels)
{
	struct raw_client *raw = client_new();
	struct shmb_channel_segment *segment;
	struct shmb_msg_opened opened, again;

	ck_assert_uint_eq(open_raw(raw, "x", 0, 0, NULL, 0), SHMB_MSG_ERROR);
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_DENIED_OR_UNKNOWN);
	ck_assert_uint_eq(
		open_raw(raw, "x", SHMB_OPEN_CREATE, 0, &tick_schema, sizeof(tick_schema)),
		SHMB_MSG_OPENED);
	memcpy(&opened, raw->reply.body, sizeof(opened));
	ck_assert_uint_eq(opened.created, 1);
	ck_assert_uint_eq(opened.lane_len, 1 << 20);
	ck_assert_uint_eq(opened.max_publishers, 64);
	segment = raw_map(&raw->reply, SHMB_FD_ROLE_PEER, PROT_READ);
	ck_assert_mem_eq((uint8_t *)segment + SHMB_BLOCK_LEN, &tick_schema, sizeof(tick_schema));
	ck_assert_uint_eq(segment->name_len, 1);
	ck_assert_uint_eq(segment->name[0], 'x');
	munmap(segment, raw->reply.descriptors[0].segment_len);
	ck_assert_uint_eq(open_raw(raw, "x", 0, 4096, &tick_schema, sizeof(tick_schema)),
			  SHMB_MSG_OPENED);
	memcpy(&again, raw->reply.body, sizeof(again));
	ck_assert_uint_eq(again.channel_id, opened.channel_id);
	ck_assert_uint_eq(again.created, 0);
	ck_assert_uint_eq(
		open_raw(raw, "x", SHMB_OPEN_CREATE, 0, &tock_schema, sizeof(tock_schema)),
		SHMB_MSG_ERROR);
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_SCHEMA);
	ck_assert_uint_eq(raw->reply.body_len, sizeof(struct shmb_msg_error) + sizeof(tick_schema));
	ck_assert_mem_eq(raw->reply.body + sizeof(struct shmb_msg_error), &tick_schema,
			 sizeof(tick_schema));
	ck_assert_uint_eq(open_raw(raw, "x", 0, 0, NULL, 0), SHMB_MSG_ERROR);
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_SCHEMA);
	ck_assert_uint_eq(open_raw(raw, "x", SHMB_OPEN_ANY_SCHEMA, 0, NULL, 0), SHMB_MSG_OPENED);
	ck_assert_uint_eq(open_raw(raw, "x", SHMB_OPEN_CREATE | SHMB_OPEN_EXCLUSIVE, 0, NULL, 0),
			  SHMB_MSG_ERROR);
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_EXISTS);
	/* Opened three times. */
	leave(raw, 0, opened.channel_id);
	leave(raw, 0, opened.channel_id);
	wait_objects(3);
	leave(raw, 0, opened.channel_id);
	wait_objects(2);
	raw_close(raw);
}
END_TEST

START_TEST(refuses_bad_requests_and_goes_on)
{
	static const uint32_t lens[] = { 1, 2048, 4097, 6144, 0x80000001, 0xffffffff };
	static const char *const names[] = { "", "/", "a//b", "..", "A", "a*", "a b" };
	struct raw_client *raw = raw_connect(dir);
	struct shmb_msg_attach attach = { 0 };
	uint8_t junk[256] = { 1 };

	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_PING, NULL, 0), SHMB_MSG_ERROR);
	raw_join(raw, 77, junk);
	ck_assert_uint_ne(raw->joined.client_id, 77);
	for (uint32_t type = 0; type < 130; type++) {
		if (type == SHMB_MSG_REPORT || type == SHMB_MSG_PING)
			continue;
		ck_assert_uint_eq(raw_call(raw, type, junk, sizeof(junk)), SHMB_MSG_ERROR);
		ck_assert_uint_eq(raw_code(raw), SHMB_CODE_BAD_REQUEST);
	}
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		open_raw(raw, "x", SHMB_OPEN_CREATE, lens[i], NULL, 0);
		ck_assert_uint_eq(raw_code(raw), SHMB_CODE_BAD_REQUEST);
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		open_raw(raw, names[i], SHMB_OPEN_CREATE, 0, NULL, 0);
		ck_assert_uint_eq(raw_code(raw), SHMB_CODE_BAD_REQUEST);
	}
	open_raw(raw, "x", 0xff, 0, NULL, 0);
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_BAD_REQUEST);
	open_raw(raw, "x", SHMB_OPEN_CREATE, 0, junk, sizeof(junk));
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_BAD_REQUEST);
	attach.role = SHMB_ROLE_PUBLISHER;
	attach.channel_id = 12345;
	raw_call(raw, SHMB_MSG_ATTACH, &attach, sizeof(attach));
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_DENIED_OR_UNKNOWN);
	attach.channel_id = raw_open(raw, "x");
	attach.role = 3;
	raw_call(raw, SHMB_MSG_ATTACH, &attach, sizeof(attach));
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_BAD_REQUEST);
	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_PING, NULL, 0), SHMB_MSG_OK);
	leave(raw, 0, attach.channel_id);
	wait_objects(2);
	raw_close(raw);
}
END_TEST

/* Whatever a client tries with a read-only fd, it cannot write. */
static void assert_readonly(int fd)
{
	ck_assert_ptr_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	ck_assert_int_eq(pwrite(fd, "x", 1, 0), -1);
	ck_assert_int_eq(ftruncate(fd, 0), -1);
}

START_TEST(pairs_a_publisher_and_a_subscriber)
{
	struct couple c = couple_new();
	struct raw_message *p = raw_event(c.p, SHMB_MSG_PAIR, 0);
	struct raw_message *s = raw_event(c.s, SHMB_MSG_PAIR, 0);
	struct shmb_bell_segment *ringer, *sleeper;
	uint64_t value = 1;

	ck_assert_uint_eq(c.p_pair.pair_id, c.s_pair.pair_id);
	ck_assert_uint_eq(c.p_pair.member_id, c.pub);
	ck_assert_uint_eq(c.p_pair.peer_id, c.sub);
	ck_assert_uint_eq(c.s_pair.member_id, c.sub);
	ck_assert_uint_eq(c.s_pair.role, SHMB_ROLE_SUBSCRIBER);
	ck_assert_uint_eq(c.s_pair.lane_len, 4096);
	ck_assert_uint_eq(c.s_pair.slot, 0);
	ck_assert_uint_eq(p->n_fds, 3);
	ck_assert_uint_eq(s->n_fds, 3);
	assert_readonly(raw_fd(p, SHMB_FD_ROLE_PEER));
	assert_readonly(raw_fd(s, SHMB_FD_ROLE_PEER));
	assert_readonly(raw_fd(s, SHMB_FD_ROLE_BELL));
	ringer = raw_map(p, SHMB_FD_ROLE_BELL, PROT_READ | PROT_WRITE);
	sleeper = raw_map(s, SHMB_FD_ROLE_BELL, PROT_READ);
	ringer->wake = 42;
	ck_assert_uint_eq(sleeper->wake, 42);
	ck_assert_int_eq(write(raw_fd(p, SHMB_FD_ROLE_RINGER), &value, 8), 8);
	munmap(ringer, sizeof(*ringer));
	munmap(sleeper, sizeof(*sleeper));
	/* registry, 2 bells of clients, channel, lane, cursor, bell of the pair */
	wait_objects(7);
	ck_assert_uint_eq(c.segment->n_publishers, 1);
	ck_assert_uint_eq(c.segment->n_subscribers, 1);
	leave(c.p, c.pub, c.channel);
	s = raw_event(c.s, SHMB_MSG_UNPAIR, 0);
	ck_assert_ptr_nonnull(s);
	ck_assert_uint_eq(((const struct shmb_msg_unpair *)(const void *)s->body)->reason,
			  SHMB_GONE_DETACHED);
	ck_assert_uint_eq(c.segment->n_publishers, 0);
	wait_objects(5);
	leave(c.s, c.sub, c.channel);
	wait_objects(3);
	couple_free(&c);
	wait_objects(1);
}
END_TEST

START_TEST(gives_writable_fds_that_cannot_shrink)
{
	struct raw_client *raw = client_new();
	struct shmb_msg_attach attach = { .channel_id = raw_open(raw, "a"),
					  .role = SHMB_ROLE_PUBLISHER };
	struct shmb_msg_grant grant;
	struct shmb_msg_id id;
	int fd;

	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_ATTACH, &attach, sizeof(attach)), SHMB_MSG_GRANT);
	memcpy(&grant, raw->reply.body, sizeof(grant));
	fd = raw_fd(&raw->reply, SHMB_FD_ROLE_OWN);
	if (ftruncate(fd, 0) < 0)
		ck_assert_int_eq(errno, EACCES);
	else /* this kernel cannot bar it */
		ck_assert_int_eq(ftruncate(fd, (off_t)grant.segment_len), 0);
	/* Not allocated: not accepted. */
	id.id = grant.member_id;
	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_ACTIVATE, &id, sizeof(id)), SHMB_MSG_ERROR);
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_NO_MEMORY);
	leave(raw, grant.member_id, attach.channel_id);
	raw_close(raw);
}
END_TEST

START_TEST(moves_the_epoch_after_the_events)
{
	struct couple c = couple_new();
	uint64_t before = epoch_of(c.segment), channel, member;
	struct raw_client *third = client_new();
	char byte;

	raw_forget(c.p);
	channel = raw_open(third, "a/b");
	member = raw_member(third, channel, SHMB_ROLE_SUBSCRIBER, NULL);
	ck_assert_uint_gt(epoch_of(c.segment), before);
	/* Whoever has seen the epoch finds the event there, or the word that more is to come. */
	if (recv(c.p->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
		ck_assert_uint_eq(c.p->bell->backlog & 1, 1);
	ck_assert_ptr_nonnull(raw_event(c.p, SHMB_MSG_PAIR, 0));
	leave(third, member, channel);
	leave(c.p, c.pub, c.channel);
	leave(c.s, c.sub, c.channel);
	raw_close(third);
	couple_free(&c);
}
END_TEST

START_TEST(undertakes_the_dead)
{
	struct raw_client *s = client_new();
	struct raw_message *event;
	uint64_t channel = raw_open(s, "a/b"), member;
	pid_t child;
	int status;

	member = raw_member(s, channel, SHMB_ROLE_SUBSCRIBER, NULL);
	child = fork();
	if (child == 0) {
		struct raw_client *p = client_new();

		raw_member(p, raw_open(p, "a/b"), SHMB_ROLE_PUBLISHER, NULL);
		kill(getpid(), SIGKILL);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFSIGNALED(status));
	/* It may have died before we were told that it lived. */
	event = raw_event(s, SHMB_MSG_PAIR, 0);
	if (event) {
		event = raw_event(s, SHMB_MSG_UNPAIR, 0);
		ck_assert_ptr_nonnull(event);
		ck_assert_uint_eq(
			((const struct shmb_msg_unpair *)(const void *)event->body)->reason,
			SHMB_GONE_DIED);
	}
	wait_objects(4);
	leave(s, member, channel);
	raw_close(s);
}
END_TEST

START_TEST(keeps_members_of_a_lost_connection)
{
	struct couple c = couple_new();
	struct shmb_msg_joined joined = c.p->joined;
	struct {
		struct shmb_msg_resume head;
		uint64_t pairs[2];
	} resume = { { c.pub, c.channel, 2, 0 }, { c.p_pair.pair_id, 4711 } };
	struct shmb_msg_grant grant;
	struct shmb_msg_pair pair;
	uint64_t before;
	uint8_t wrong[SHMB_TOKEN_LEN] = { 0 };

	raw_forget(c.s);
	raw_close(c.p);
	wait_objects(7);
	c.p = raw_connect(dir);
	raw_join(c.p, joined.client_id, wrong);
	ck_assert_uint_ne(c.p->joined.client_id, joined.client_id);
	raw_close(c.p);
	c.p = raw_connect(dir);
	raw_join(c.p, joined.client_id, joined.token);
	before = epoch_of(c.segment);
	ck_assert_uint_eq(c.p->joined.client_id, joined.client_id);
	ck_assert_mem_eq(c.p->joined.token, joined.token, sizeof(joined.token));
	ck_assert_uint_eq(raw_open(c.p, "a/b"), c.channel);
	ck_assert_uint_eq(raw_call(c.p, SHMB_MSG_RESUME, &resume, sizeof(resume)), SHMB_MSG_GRANT);
	memcpy(&grant, c.p->reply.body, sizeof(grant));
	raw_fd(&c.p->reply, SHMB_FD_ROLE_DOORBELL);
	ck_assert_ptr_nonnull(raw_event(c.p, SHMB_MSG_PAIR, 0));
	/* The events came after the answer, so only the epoch can make the client look for them. */
	ck_assert_uint_eq(raw_call(c.p, SHMB_MSG_PING, NULL, 0), SHMB_MSG_OK);
	ck_assert_uint_gt(epoch_of(c.segment), before);
	ck_assert_ptr_nonnull(raw_event(c.p, SHMB_MSG_UNPAIR, 0));
	ck_assert_uint_eq(
		((const struct shmb_msg_unpair *)(const void *)raw_event(c.p, SHMB_MSG_UNPAIR, 0)
			 ->body)
			->pair_id,
		4711);
	/* The subscriber learns of the new doorbell. */
	ck_assert_ptr_nonnull(raw_event(c.s, SHMB_MSG_PAIR, 0));
	memcpy(&pair, raw_event(c.s, SHMB_MSG_PAIR, 0)->body, sizeof(pair));
	ck_assert_uint_eq(pair.pair_id, c.s_pair.pair_id);
	ck_assert_uint_eq(pair.doorbell_generation, grant.doorbell_generation);
	ck_assert_uint_gt(pair.doorbell_generation, c.s_pair.doorbell_generation);
	leave(c.p, c.pub, c.channel);
	leave(c.s, c.sub, c.channel);
	couple_free(&c);
	wait_objects(1);
}
END_TEST

/* Nobody else may come back for long: but who has said goodbye is not waited for. */
START_TEST(forgets_at_once_who_leaves_for_good)
{
	struct couple c = couple_new();
	struct shmb_msg_id self = { c.p->joined.client_id };

	ck_assert_uint_eq(raw_call(c.p, SHMB_MSG_CLOSE, &self, sizeof(self)), SHMB_MSG_OK);
	raw_close(c.p);
	/* Its bell, its lane, the pair's bell. */
	wait_objects(4);
	ck_assert_ptr_nonnull(raw_event(c.s, SHMB_MSG_UNPAIR, 0));
	/* Another client's number means nothing. */
	self.id = c.s->joined.client_id + 1000;
	ck_assert_uint_eq(raw_call(c.s, SHMB_MSG_CLOSE, &self, sizeof(self)), SHMB_MSG_ERROR);
	leave(c.s, c.sub, c.channel);
	c.p = client_new();
	couple_free(&c);
	wait_objects(1);
}
END_TEST

static void resume_member(struct raw_client **raw, uint64_t member, uint64_t channel, uint64_t pair)
{
	struct shmb_msg_joined joined = (*raw)->joined;
	struct {
		struct shmb_msg_resume head;
		uint64_t pairs[1];
	} resume = { { member, channel, 1, 0 }, { pair } };

	raw_close(*raw);
	*raw = raw_connect(dir);
	raw_join(*raw, joined.client_id, joined.token);
	ck_assert_uint_eq((*raw)->joined.client_id, joined.client_id);
	ck_assert_uint_eq((*raw)->joined.broker_epoch, joined.broker_epoch + 1);
	ck_assert_uint_eq(raw_open(*raw, "a/b"), channel);
	ck_assert_uint_eq(raw_call(*raw, SHMB_MSG_RESUME, &resume, sizeof(resume)), SHMB_MSG_GRANT);
}

/* After SIGKILL, and after SIGTERM while clients live. */
START_TEST(takes_everything_up_after_a_restart)
{
	struct couple c = couple_new();
	uint64_t epoch = epoch_of(c.segment), old = instance;
	uint32_t wake = c.p->bell->wake;
	struct shmb_msg_pair pair;
	char orphan[80];
	int fd;

	broker_end(_i ? SIGTERM : SIGKILL);
	wait_objects(7);
	snprintf(orphan, sizeof(orphan), "/shmb.%016llx.%032x", (unsigned long long)instance, 7u);
	fd = shm_open(orphan, O_CREAT | O_EXCL | O_RDWR, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	broker_begin();
	ck_assert_uint_eq(instance, old);
	wait_objects(7);
	ck_assert_uint_gt(epoch_of(c.segment), epoch);
	ck_assert_uint_ne(c.p->bell->wake, wake);
	resume_member(&c.p, c.pub, c.channel, c.p_pair.pair_id);
	resume_member(&c.s, c.sub, c.channel, c.s_pair.pair_id);
	ck_assert_ptr_nonnull(raw_event(c.p, SHMB_MSG_PAIR, 0));
	memcpy(&pair, raw_event(c.s, SHMB_MSG_PAIR, 0)->body, sizeof(pair));
	ck_assert_uint_eq(pair.pair_id, c.s_pair.pair_id);
	ck_assert_uint_gt(pair.doorbell_generation, c.s_pair.doorbell_generation);
	ck_assert_uint_eq(c.segment->n_publishers, 1);
	leave(c.p, c.pub, c.channel);
	ck_assert_ptr_nonnull(raw_event(c.s, SHMB_MSG_UNPAIR, 0));
	leave(c.s, c.sub, c.channel);
	couple_free(&c);
	wait_objects(1);
}
END_TEST

/* Limits are for what is asked for: what has been granted stays. */
START_TEST(takes_up_what_lower_limits_would_refuse)
{
	struct couple c = couple_new();

	broker_end(SIGKILL);
	for (int i = QUOTA_CLIENTS; i < QUOTA_N_KINDS; i++)
		limits.max[i] = 1;
	broker_begin();
	wait_objects(7);
	resume_member(&c.p, c.pub, c.channel, c.p_pair.pair_id);
	resume_member(&c.s, c.sub, c.channel, c.s_pair.pair_id);
	leave(c.p, c.pub, c.channel);
	leave(c.s, c.sub, c.channel);
	couple_free(&c);
	wait_objects(1);
}
END_TEST

START_TEST(undertakes_who_died_while_it_was_dead)
{
	struct couple c = couple_new();
	int ends[2];
	pid_t child;
	char byte;

	ck_assert_int_eq(pipe(ends), 0);
	child = fork();
	if (child == 0) {
		struct raw_client *p = client_new();

		raw_member(p, raw_open(p, "a/b"), SHMB_ROLE_PUBLISHER, NULL);
		if (write(ends[1], "x", 1) == 1)
			pause();
	}
	ck_assert_int_eq(read(ends[0], &byte, 1), 1);
	wait_objects(10);
	broker_end(SIGKILL);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	broker_begin();
	wait_objects(7);
	resume_member(&c.s, c.sub, c.channel, 999);
	ck_assert_ptr_nonnull(raw_event(c.s, SHMB_MSG_UNPAIR, 0));
	resume_member(&c.p, c.pub, c.channel, c.p_pair.pair_id);
	leave(c.p, c.pub, c.channel);
	leave(c.s, c.sub, c.channel);
	couple_free(&c);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

START_TEST(evicts_who_is_reported)
{
	struct couple c = couple_new();
	struct shmb_msg_report report = { c.s_pair.pair_id, c.sub, 5, 0 };
	struct raw_message *event;

	ck_assert_uint_eq(raw_call(c.s, SHMB_MSG_REPORT, &report, sizeof(report)), SHMB_MSG_OK);
	event = raw_event(c.s, SHMB_MSG_UNPAIR, 0);
	ck_assert_ptr_nonnull(event);
	ck_assert_uint_eq(((const struct shmb_msg_unpair *)(const void *)event->body)->reason,
			  SHMB_GONE_EVICTED);
	event = raw_event(c.p, SHMB_MSG_EVICTED, 0);
	ck_assert_ptr_nonnull(event);
	ck_assert_uint_eq(((const struct shmb_msg_id *)(const void *)event->body)->id, c.pub);
	/* Again: nothing happens. */
	ck_assert_uint_eq(raw_call(c.s, SHMB_MSG_REPORT, &report, sizeof(report)), SHMB_MSG_OK);
	leave(c.p, 0, c.channel);
	leave(c.s, c.sub, c.channel);
	couple_free(&c);
}
END_TEST

START_TEST(never_forgets_who_does_not_read)
{
	struct raw_client *idle = client_new(), *busy = client_new();
	uint64_t channel = raw_open(idle, "a/b"), last = 0, member;
	struct raw_message *event;
	struct shmb_msg_id id;

	member = raw_member(idle, channel, SHMB_ROLE_SUBSCRIBER, NULL);
	raw_open(busy, "a/b");
	for (unsigned i = 0; i < 400; i++) {
		last = raw_member(busy, channel, SHMB_ROLE_PUBLISHER, NULL);
		id.id = last;
		raw_forget(busy);
		if (i < 399)
			ck_assert_uint_eq(raw_call(busy, SHMB_MSG_DETACH, &id, sizeof(id)),
					  SHMB_MSG_OK);
	}
	ck_assert_uint_eq(idle->bell->backlog & 1, 1);
	/* What is left when it has read all: one pair, the last one. */
	for (unsigned pairs = 0;;) {
		while (idle->n_events < RAW_EVENTS_MAX &&
		       raw_receive(idle, idle->bell->backlog ? 3000 : 300))
			;
		for (unsigned i = 0; i < idle->n_events; i++) {
			event = &idle->events[i];
			pairs += event->type == SHMB_MSG_PAIR;
			pairs -= event->type == SHMB_MSG_UNPAIR;
			if (event->type == SHMB_MSG_PAIR)
				last = ((const struct shmb_msg_pair *)(const void *)event->body)
					       ->peer_id;
		}
		if (idle->n_events < RAW_EVENTS_MAX) {
			ck_assert_uint_eq(pairs, 1);
			break;
		}
		raw_forget(idle);
	}
	ck_assert_uint_eq(last, id.id);
	ck_assert_uint_eq(idle->bell->backlog, 0);
	leave(idle, member, channel);
	leave(busy, id.id, channel);
	raw_close(idle);
	raw_close(busy);
}
END_TEST

START_TEST(refuses_beyond_quotas)
{
	struct shmb_msg_attach attach = { .role = SHMB_ROLE_PUBLISHER };
	struct shmb_msg_error error;
	struct raw_client *raw;
	uint64_t member;
	char byte;
	int fd;

	broker_end(SIGTERM);
	limits.max[QUOTA_MEMBERS] = 1;
	limits.max[QUOTA_CHANNELS] = 1;
	limits.max[QUOTA_CONNECTIONS] = 1;
	broker_begin();
	raw = client_new();
	fd = raw_socket(dir);
	ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
	close(fd);
	attach.channel_id = raw_open(raw, "a");
	open_raw(raw, "b", SHMB_OPEN_CREATE, 0, NULL, 0);
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_QUOTA);
	memcpy(&error, raw->reply.body, sizeof(error));
	ck_assert_uint_eq(error.limit, 1);
	ck_assert_uint_eq(error.asked, 2);
	member = raw_member(raw, attach.channel_id, SHMB_ROLE_PUBLISHER, NULL);
	raw_call(raw, SHMB_MSG_ATTACH, &attach, sizeof(attach));
	ck_assert_uint_eq(raw_code(raw), SHMB_CODE_QUOTA);
	leave(raw, member, attach.channel_id);
	raw_close(raw);
}
END_TEST

START_TEST(ends_when_idle)
{
	struct raw_client *raw;

	broker_end(SIGTERM);
	idle_exit_ms = 800;
	broker_begin();
	raw = client_new();
	usleep(1200000);
	ck_assert_uint_eq(raw_call(raw, SHMB_MSG_PING, NULL, 0), SHMB_MSG_OK);
	raw_close(raw);
	ck_assert_int_eq(broker_end(0), 0);
	ck_assert_uint_eq(objects(), 0);
}
END_TEST

START_TEST(is_alone)
{
	struct policy policy = { .single_user = true, .uid = geteuid() };
	struct broker_config config = {
		.directory = dir, .listen_fd = -1, .policy = &policy, .log = { .fd = -1 }
	};
	struct shmb_broker_options options = { sizeof(options), 0, dir };
	struct shmb_broker *embedded;
	struct broker *broker;

	ck_assert_int_eq(broker_new(&config, &broker), -EADDRINUSE);
	ck_assert_int_eq(shmb_broker_start(&options, &embedded), -EADDRINUSE);
	raw_close(client_new());
}
END_TEST

START_TEST(embeds_without_a_trace)
{
	struct shmb_broker *embedded;
	struct raw_client *raw;
	char path[128];

	ck_assert_int_eq(shmb_broker_start(NULL, &embedded), 0);
	snprintf(path, sizeof(path), "%s", shmb_broker_address(embedded));
	*strrchr(path, '/') = '\0';
	ck_assert_int_eq(shmb_runtime_instance(path, &instance), 0);
	raw = raw_connect(path);
	raw_join(raw, 0, NULL);
	raw_member(raw, raw_open(raw, "a"), SHMB_ROLE_PUBLISHER, NULL);
	wait_objects(4);
	ck_assert_int_eq(shmb_broker_stop(embedded), 0);
	ck_assert_uint_eq(objects(), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
	raw_close(raw);
	ck_assert_int_eq(shmb_broker_stop(NULL), 0);
	ck_assert_int_eq(shmb_runtime_instance(dir, &instance), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker");
	TCase *tcase = tcase_create("broker");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, says_how_it_sees_the_client);
	tcase_add_test(tcase, closes_on_garbage);
	tcase_add_test(tcase, refuses_the_wrong_key_and_version);
	tcase_add_test(tcase, ends_slow_handshakes);
	tcase_add_test(tcase, opens_channels);
	tcase_add_test(tcase, refuses_bad_requests_and_goes_on);
	tcase_add_test(tcase, pairs_a_publisher_and_a_subscriber);
	tcase_add_test(tcase, gives_writable_fds_that_cannot_shrink);
	tcase_add_test(tcase, moves_the_epoch_after_the_events);
	tcase_add_test(tcase, undertakes_the_dead);
	tcase_add_test(tcase, keeps_members_of_a_lost_connection);
	tcase_add_test(tcase, forgets_at_once_who_leaves_for_good);
	tcase_add_test(tcase, takes_up_what_lower_limits_would_refuse);
	tcase_add_loop_test(tcase, takes_everything_up_after_a_restart, 0, 2);
	tcase_add_test(tcase, undertakes_who_died_while_it_was_dead);
	tcase_add_test(tcase, evicts_who_is_reported);
	tcase_add_test(tcase, never_forgets_who_does_not_read);
	tcase_add_test(tcase, refuses_beyond_quotas);
	tcase_add_test(tcase, ends_when_idle);
	tcase_add_test(tcase, is_alone);
	tcase_add_test(tcase, embeds_without_a_trace);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
