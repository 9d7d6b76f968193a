/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The measurements of shmctl ping that go through the library, as any two programs would: a child
 * with a connection of its own, one channel there, one back. The first byte of a record tells the
 * child how to wait for the next one.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/command.h"
#include "tools/ping.h"
#include "tools/print.h"

#define RECORD_LEN  64
#define PATIENCE_NS 10000000000ll /* without an answer for so long, something is broken */

enum {
	HOW_SPIN,
	HOW_SLEEP,
	HOW_END,
};

struct ping_peer {
	struct shmb_client *client;
	struct shmb_channel *there, *back;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	pid_t child;
};

static int open_one(struct shmb_client *client, const char *direction, pid_t owner,
		    struct shmb_channel **ret_channel)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = 4096,
						.max_publishers = 1,
						.max_subscribers = 1 };
	char name[64];
	int len = snprintf(name, sizeof(name), "shmctl/ping.%ld.%s", (long)owner, direction);
	int32_t r = shmb_channel_open(client, name, len, &options, ret_channel);

	return r < 0 ? command_failed("cannot open a channel", r) : 0;
}

/* @owner: the parent, whose pid names the channels. */
static int connect_peer(struct ping_peer *peer, pid_t owner, bool is_child)
{
	/* 1 ns: never spin before sleeping; what sleeps shall sleep. */
	struct shmb_subscriber_options options = { .options_len = sizeof(options), .spin_ns = 1 };
	int32_t r;

	if (command_connect(&peer->client) ||
	    open_one(peer->client, "there", owner, &peer->there) ||
	    open_one(peer->client, "back", owner, &peer->back))
		return 1;
	r = shmb_subscriber_open(is_child ? peer->there : peer->back, &options, &peer->subscriber);
	if (r < 0)
		return command_failed("cannot subscribe", r);
	r = shmb_publisher_open(is_child ? peer->back : peer->there, NULL, &peer->publisher);
	if (r < 0)
		return command_failed("cannot publish", r);
	return 0;
}

static int wait_for_peer(struct ping_peer *peer)
{
	int32_t r = shmb_channel_wait_members(peer->there, 1, 1, PATIENCE_NS);

	if (r >= 0)
		r = shmb_channel_wait_members(peer->back, 1, 1, PATIENCE_NS);
	return r < 0 ? command_failed("the other side did not come", r) : 0;
}

static void close_peer(struct ping_peer *peer)
{
	shmb_publisher_close(peer->publisher);
	shmb_subscriber_close(peer->subscriber);
	shmb_channel_close(peer->there);
	shmb_channel_close(peer->back);
	shmb_client_close(peer->client);
}

/* Receive one record. Returns 0 or a negative errno value. */
static int32_t receive(struct ping_peer *peer, uint8_t *record, int how)
{
	uint64_t start = 0;
	int32_t r;

	for (uint32_t i = 0;; i++) {
		r = shmb_subscriber_recv(peer->subscriber, record, RECORD_LEN);
		if (r != -EAGAIN)
			return r < 0 ? r : 0;
		if (how == HOW_SLEEP) {
			r = shmb_subscriber_wait(peer->subscriber, PATIENCE_NS);
			if (r < 0)
				return r;
		} else if ((i & 0xffff) == 0xffff) {
			/* Looking at the clock rarely keeps it out of the measurement. */
			if (start && ping_now_ns() - start > PATIENCE_NS)
				return -ETIMEDOUT;
			start = start ? start : ping_now_ns();
		}
	}
}

static int serve(pid_t owner, const struct ping_cpus *cpus)
{
	struct ping_peer peer = { 0 };
	uint8_t record[RECORD_LEN];
	int how = HOW_SLEEP;
	int32_t r;

	if (connect_peer(&peer, owner, true))
		return 1;
	ping_pin(cpus->child);
	/* The parent has other things to measure; when it dies, so do we. */
	while ((r = receive(&peer, record, how)) == 0 || r == -ETIMEDOUT) {
		if (r == -ETIMEDOUT)
			continue;
		how = record[0];
		if (how == HOW_END || shmb_publisher_send(peer.publisher, record, RECORD_LEN) < 0)
			break;
	}
	close_peer(&peer);
	return 0;
}

int ping_peer_start(struct ping_peer **ret_peer, const struct ping_cpus *cpus)
{
	struct ping_peer *peer = calloc(1, sizeof(*peer));
	pid_t parent = getpid();

	if (!peer) {
		complain("out of memory");
		return 1;
	}
	/* Before there is any handle: none would work in the child. */
	peer->child = fork();
	if (peer->child < 0) {
		complain("cannot start a process: %m");
		free(peer);
		return 1;
	}
	if (peer->child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(getppid() == parent ? serve(parent, cpus) : 1);
	}
	if (connect_peer(peer, parent, false) || wait_for_peer(peer)) {
		ping_peer_stop(peer);
		return 1;
	}
	*ret_peer = peer;
	return 0;
}

static int round_trips(struct ping *ping, uint32_t n, struct ping_peer *peer, int how)
{
	uint8_t record[RECORD_LEN] = { how };
	uint64_t end = ping_now_ns() + PING_TIME_NS;
	uint32_t n_warm = n / 10 + 1;
	int32_t r;

	for (uint32_t i = 0; i < n_warm + n; i++) {
		uint64_t start;

		if (how == HOW_SLEEP)
			ping_settle();
		start = ping_now_ns();
		r = shmb_publisher_send(peer->publisher, record, RECORD_LEN);
		if (r >= 0)
			r = receive(peer, record, how);
		if (r < 0)
			return command_failed("the other side does not answer", r);
		if (i >= n_warm || start > end)
			ping->samples[ping->n++] = ping_now_ns() - start;
		if (start > end && ping->n >= PING_SAMPLES_MIN)
			break;
	}
	return 0;
}

int ping_spin(struct ping *ping, uint32_t n, struct ping_peer *peer)
{
	return round_trips(ping, n, peer, HOW_SPIN);
}

int ping_sleep(struct ping *ping, uint32_t n, struct ping_peer *peer)
{
	return round_trips(ping, n, peer, HOW_SLEEP);
}

int ping_control(struct ping *ping, uint32_t n, struct ping_peer *peer)
{
	uint64_t end = ping_now_ns() + PING_TIME_NS;

	for (uint32_t i = 0; i < n + 1; i++) {
		uint64_t start = ping_now_ns();
		int32_t r = shmb_client_ping(peer->client, PATIENCE_NS);

		if (r < 0)
			return command_failed("the broker does not answer", r);
		if (i > 0)
			ping->samples[ping->n++] = ping_now_ns() - start;
		if (start > end && ping->n >= PING_SAMPLES_MIN)
			break;
	}
	return 0;
}

void ping_peer_stop(struct ping_peer *peer)
{
	uint8_t record[RECORD_LEN] = { HOW_END };

	/* The child may sleep for a record that never comes: the record first, then force. */
	if (peer->publisher)
		shmb_publisher_send(peer->publisher, record, RECORD_LEN);
	else
		kill(peer->child, SIGKILL);
	waitpid(peer->child, NULL, 0);
	close_peer(peer);
	free(peer);
}
