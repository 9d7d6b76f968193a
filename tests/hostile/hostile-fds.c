/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A publisher that sends other fds than its records name, and a subscriber that does what it likes with
 * its end of the socket. The honest ones beside them never stay in a call, have nothing open that they
 * have not asked for, and get all that is honest; and what was sent is closed when nobody wants it.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

/* Their own structs, to get at their sockets. */
#include "lib/pub-internal.h"
#include "lib/sub-internal.h"

#include "tests/unit/fixture.h"

#define MAX_FDS 4u
#define ROUNDS	8u

static struct shmb_client *evil_client;
static struct shmb_channel *channel, *evil_channel;
static struct shmb_publisher *honest, *evil;
static struct shmb_subscriber *reader, *evil_reader;
/* Its writing end is what the evil one sends: the reading end says when nobody has it any more. */
static int alarm_ends[2];

static struct shmb_channel *open_with(struct shmb_client *of)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = 1 << 16,
						.max_fds = MAX_FDS,
						.backing = backing_of_run() };
	struct shmb_channel *made = NULL;

	ok(shmb_channel_open(of, "test/hostile", 12, &options, &made));
	return made;
}

static void set_up_evil(void)
{
	set_up();
	evil_client = connect_to(shmb_broker_address(broker));
	channel = open_with(client);
	evil_channel = open_with(evil_client);
	ck_assert_int_eq(pipe2(alarm_ends, O_CLOEXEC), 0);
}

static void tear_down_evil(void)
{
	ok(shmb_channel_close(channel));
	ok(shmb_channel_close(evil_channel));
	ok(shmb_client_close(evil_client));
	close(alarm_ends[0]);
	tear_down();
}

static unsigned n_open(void)
{
	uint8_t open[GATE_FDS_MAX] = { 0 }, none[GATE_FDS_MAX] = { 0 };

	return gate_fds(open, none, 0);
}

static bool is_closed(int reading)
{
	struct pollfd look = { .fd = reading, .events = POLLIN };

	return poll(&look, 1, 0) == 1 && look.revents & POLLHUP;
}

/* ---- the evil publisher -------------------------------------------------------------------------- */

static int evil_end(void)
{
	ck_assert_uint_eq(evil->n_pairs, 1);
	return evil->pairs[0].ends.n ? evil->pairs[0].ends.fds[0] : -1;
}

static ssize_t send_raw(const void *data, size_t len, unsigned n_fds)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(64 * sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *head;

	if (n_fds) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (unsigned i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(head) + i * sizeof(int), &alarm_ends[1], sizeof(int));
	}
	return sendmsg(evil_end(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t send_packet(uint64_t number, uint32_t said, unsigned n_fds)
{
	struct shmb_fds_packet packet = { .number = number, .n_fds = said };

	return send_raw(&packet, sizeof(packet), n_fds);
}

/* A record that says that it carries so many, with that packet. */
static void publish(uint64_t number, uint32_t n_fds)
{
	evil->fds_number = number;
	evil->n_fds = n_fds;
	ok(shmb_publisher_send(evil, "evil", 4));
	evil->n_fds = 0;
}

static uint64_t next(void)
{
	return evil->fds_number + 1;
}

static void more_than_named(void)
{
	send_packet(next(), 1, 3);
	publish(next(), 1);
}

static void one_more_than_named(void)
{
	send_packet(next(), 3, 4);
	publish(next(), 3);
}

static void fewer_than_named(void)
{
	send_packet(next(), 3, 1);
	publish(next(), 3);
}

static void none_at_all(void)
{
	send_packet(next(), 2, 0);
	publish(next(), 2);
}

static void other_than_the_packet_says(void)
{
	send_packet(next(), 1, 2);
	publish(next(), 2);
}

static void no_packet(void)
{
	publish(next(), 4);
}

static void more_than_there_can_be(void)
{
	send_packet(next(), 60, 60);
	publish(next(), 60);
	publish(next(), SHMB_FDS_COUNT_MASK);
}

static void numbers_of_the_future(void)
{
	send_packet(UINT64_MAX, 1, 1);
	send_packet(next() + 100, 1, 1);
	publish(next(), 1);
	send_packet(next(), 1, 1);
	publish(next(), 1);
}

static void numbers_of_the_past(void)
{
	for (uint64_t i = 0; i < 4; i++)
		send_packet(i, 1, 1);
	publish(next() + 10, 1);
	publish(3, 2);
	publish(0, 1);
	publish(next() + 20, 0);
}

static void the_same_number_often(void)
{
	for (int i = 0; i < 5; i++)
		send_packet(next(), 1, 1);
	publish(next(), 1);
	publish(evil->fds_number, 1);
	publish(evil->fds_number, 1);
}

static void a_flood_that_nobody_names(void)
{
	uint64_t from = next();

	while (send_packet(from++, 1, MAX_FDS) >= 0)
		;
	publish(0, 0);
}

static void packets_of_other_lengths(void)
{
	static const uint8_t bytes[4096];

	send_raw(bytes, 1, 1);
	send_raw(bytes, 15, 2);
	send_raw(bytes, 17, 1);
	send_raw(bytes, sizeof(bytes), 4);
	send_packet(next(), 1, 1);
	publish(next(), 1);
}

static void credentials_and_fds_in_parts(void)
{
	struct shmb_fds_packet packet = { .number = next(), .n_fds = 2 };
	struct ucred self = { .pid = getpid(), .uid = getuid(), .gid = getgid() };
	_Alignas(struct cmsghdr) uint8_t control[256] = { 0 };
	struct iovec iov = { .iov_base = &packet, .iov_len = sizeof(packet) };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control };
	uint8_t *at = control;

	for (int i = 0; i < 3; i++) {
		struct cmsghdr head = { .cmsg_level = SOL_SOCKET,
					.cmsg_type = i == 1 ? SCM_CREDENTIALS : SCM_RIGHTS,
					.cmsg_len = CMSG_LEN(i == 1 ? sizeof(self) : sizeof(int)) };
		const void *data = i == 1 ? (const void *)&self : (const void *)&alarm_ends[1];

		memcpy(at, &head, sizeof(head));
		memcpy(at + CMSG_LEN(0), data, head.cmsg_len - CMSG_LEN(0));
		at += CMSG_SPACE(head.cmsg_len - CMSG_LEN(0));
	}
	message.msg_controllen = (size_t)(at - control);
	sendmsg(evil_end(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	publish(next(), 2);
}

/* It carries itself, and is in flight for ever but for the kernel's collector. */
static void the_socket_in_itself(void)
{
	int saved = alarm_ends[1];

	alarm_ends[1] = evil_end();
	send_packet(next(), 1, 1);
	alarm_ends[1] = saved;
	publish(next() + 1, 0);
}

static void words_of_chance(void)
{
	static uint64_t state = 88172645463325252ull;

	for (int i = 0; i < 50; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		if (state & 1)
			send_packet(state >> 60, (uint32_t)(state >> 50) & 7, state >> 40 & 7);
		publish(state >> 58, (uint32_t)(state >> 30) & (i % 2 ? 255 : 3));
	}
}

/* Both words of the header of a zero-length packet end the socket for who reads it. */
static void nothing_in_a_packet(void)
{
	send_raw("", 0, 1);
	send_packet(next(), 1, 1);
	publish(next(), 1);
}

static void a_socket_that_is_shut(void)
{
	send_packet(next(), 1, 1);
	shutdown(evil_end(), SHUT_RDWR);
	publish(next(), 1);
	publish(next(), 1);
}

/* Those of the first few are found out when somebody takes them. */
#define N_FOUND_OUT 5u
static void (*const attacks[])(void) = {
	more_than_named,
	one_more_than_named,
	fewer_than_named,
	none_at_all,
	other_than_the_packet_says,
	no_packet,
	more_than_there_can_be,
	numbers_of_the_past,
	the_same_number_often,
	a_flood_that_nobody_names,
	packets_of_other_lengths,
	credentials_and_fds_in_parts,
	the_socket_in_itself,
	words_of_chance,
	numbers_of_the_future,
	nothing_in_a_packet,
	a_socket_that_is_shut,
};
#define N_ATTACKS (sizeof(attacks) / sizeof(attacks[0]))

static unsigned n_found_out;

/* Receives all that is there. Returns how many records were honest. */
static unsigned read_all(bool take)
{
	const struct shmb_view *view = shmb_subscriber_view(reader);
	uint64_t id = honest->member.id;
	unsigned n = 0;
	char data[16];
	int32_t fds[MAX_FDS], len;

	while ((len = shmb_subscriber_recv(reader, data, sizeof(data))) >= 0) {
		bool is_honest = view->publisher_id == id;
		int32_t taken = 0;

		n += is_honest;
		if (is_honest)
			ck_assert_uint_eq(view->n_fds, 1);
		ck_assert_uint_le(view->n_fds, MAX_FDS);
		if (take || is_honest)
			taken = shmb_subscriber_take_fds(reader, fds, MAX_FDS);
		ck_assert_msg(taken >= 0 || (taken == -EBADMSG && !is_honest), "%d: %s", taken,
			      why());
		n_found_out += taken == -EBADMSG;
		if (is_honest)
			ck_assert_int_eq(taken, 1);
		for (int32_t i = 0; i < taken; i++) {
			ck_assert_int_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
			close(fds[i]);
		}
	}
	ck_assert_msg(len == -EAGAIN || len == -EBADMSG, "%d: %s", len, why());
	return n;
}

static void open_members(uint32_t flags)
{
	reader = subscriber_of(channel, flags);
	honest = publisher_of(channel, 0);
	evil = publisher_of(evil_channel, 0);
	ok(shmb_publisher_wait(evil, 4, 0));
}

START_TEST(whatever_a_publisher_sends_nothing_is_left_open)
{
	unsigned before, sent = 0, got = 0;
	int devnull = open("/dev/null", O_RDONLY | O_CLOEXEC);

	open_members(_i / N_ATTACKS % 2 ? SHMB_SUBSCRIBER_LOSSY : 0);
	ok(shmb_publisher_send_fds(honest, "first", 5, 0, &devnull, 1));
	ck_assert_uint_eq(read_all(true), 1);
	before = n_open();
	for (unsigned round = 0; round < ROUNDS; round++) {
		if (evil_end() >= 0)
			attacks[(size_t)_i % N_ATTACKS]();
		ok(shmb_publisher_send_fds(honest, "honest", 6, 0, &devnull, 1));
		sent++;
		got += read_all(round % 2);
		ck_assert_uint_le(n_open(), before);
	}
	ck_assert_uint_eq(got, sent);
	if (_i % (int)N_ATTACKS < (int)N_FOUND_OUT)
		ck_assert_uint_eq(n_found_out, ROUNDS / 2);
	ck_assert(!is_closed(alarm_ends[0]));
	close(alarm_ends[1]);
	ok(shmb_publisher_close(evil));
	ok(shmb_publisher_close(honest));
	ok(shmb_subscriber_close(reader));
	/* A socket in itself goes when the kernel looks for such. */
	for (int i = 0; i < 1000 && !is_closed(alarm_ends[0]); i++)
		usleep(10000);
	ck_assert(is_closed(alarm_ends[0]));
	close(devnull);
}
END_TEST

/* ---- the evil subscriber ------------------------------------------------------------------------- */

static int reader_end(void)
{
	ck_assert_uint_eq(evil_reader->n_lanes, 1);
	return evil_reader->lanes[0]->ends.n ? evil_reader->lanes[0]->ends.fds[0] : -1;
}

static void closes_it(void)
{
	shmb_fds_deinit(&evil_reader->lanes[0]->ends);
}

static void shuts_it(void)
{
	shutdown(reader_end(), SHUT_RDWR);
}

static void shuts_it_for_reading(void)
{
	shutdown(reader_end(), SHUT_RD);
}

/* Nothing of it arrives, or waits anywhere. */
static void sends_back(void)
{
	ck_assert_int_eq(send(reader_end(), "back", 4, MSG_DONTWAIT | MSG_NOSIGNAL), -1);
	ck_assert_int_eq(errno, EPIPE);
}

static void reads_nothing(void)
{
}

static void has_no_room(void)
{
	int least = 1;

	setsockopt(reader_end(), SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
	setsockopt(reader_end(), SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
}

static void (*const deeds[])(void) = { closes_it,  shuts_it,	  shuts_it_for_reading,
				       sends_back, reads_nothing, has_no_room };
#define N_DEEDS (sizeof(deeds) / sizeof(deeds[0]))

/* One that is reliable holds the publisher up as one that does not read, until it is evicted. */
START_TEST(whatever_a_subscriber_does_others_get_theirs)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options) };
	int devnull = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct shmb_publisher_stats stats;
	unsigned sent = 0, got = 0;

	if (_i % 2)
		options.flags = SHMB_SUBSCRIBER_LOSSY;
	else
		options.evict_after_ms = 30;
	ok(shmb_subscriber_open(evil_channel, &options, &evil_reader));
	reader = subscriber_of(channel, 0);
	honest = publisher_of(channel, 0);
	ok(shmb_subscriber_wait(evil_reader, 0) == -ETIMEDOUT ? 0 : -1);
	ck_assert_int_ge(reader_end(), 0);
	for (int i = 0; i < 300; i++) {
		int32_t result;

		if (i == 20)
			deeds[(size_t)_i / 2]();
		result = shmb_publisher_send_fds(honest, "honest", 6, 0, &devnull, 1);
		if (result == -EAGAIN) {
			ok(shmb_publisher_wait(honest, 6, 60000 * MS));
			result = shmb_publisher_send_fds(honest, "honest", 6, 0, &devnull, 1);
		}
		ok(result);
		sent++;
		got += read_all(true);
	}
	ck_assert_uint_eq(got, sent);
	ok(shmb_publisher_stats(honest, &stats, sizeof(stats)));
	ck_assert_uint_gt(stats.n_evicted + stats.fds_lost, 0);
	ok(shmb_subscriber_close(evil_reader));
	ok(shmb_publisher_close(honest));
	ok(shmb_subscriber_close(reader));
	close(alarm_ends[1]);
	close(devnull);
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("publisher"), gated_case("subscriber") };
	bool quick = getenv("SHMB_TEST_QUICK") != NULL;

	tcase_add_checked_fixture(cases[0], set_up_evil, tear_down_evil);
	tcase_add_loop_test(cases[0], whatever_a_publisher_sends_nothing_is_left_open, 0,
			    quick ? 4 : 2 * N_ATTACKS);
	tcase_add_checked_fixture(cases[1], set_up_evil, tear_down_evil);
	tcase_add_loop_test(cases[1], whatever_a_subscriber_does_others_get_theirs, 0,
			    quick ? 2 : 2 * N_DEEDS);
	for (int i = 0; i < 2; i++)
		tcase_set_timeout(cases[i], 120);
	return run_suite("hostile-fds", cases, 2);
}
