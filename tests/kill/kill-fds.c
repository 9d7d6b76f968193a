/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a publisher is killed after any one instruction of publishing a record with fds, or a
 * subscriber of receiving one and taking them?
 *
 * At every instant at which the record can be seen each subscriber has the packet that it names; and
 * when a process has really been killed, nobody has open what only it had sent or received: the other
 * end of a pipe says so. Who is left takes the fds of a record that is there, and gets the right ones.
 *
 * The library's own publisher and subscriber run in the stepped child; lane, cursor and sockets are the
 * ones of a broker, without one.
 */

#include "lib/pub-internal.h"
#include "lib/sub-internal.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/fd.h"

#include "tests/kill/step.h"

#define RING_LEN      4096u
#define LANE_LEN      (SHMB_BLOCK_LEN + RING_LEN)
#define N_READERS     2u
#define N_FDS	      2u
#define PAIR_ID	      1u
#define RECORD	      "a record"
#define QUICK_DIVISOR 25u

enum op {
	OP_SEND,
	OP_TAKE, /* a record, and what came with it */
	OP_LEAVE, /* two records, and nothing of what came with them */
	N_OPS
};

static struct step_row rows[N_OPS] = {
	[OP_SEND] = { .name = "send_fds", .min = { 400, 0, 25, 0 } },
	[OP_TAKE] = { .name = "recv, take_fds", .min = { 400, 0, 25, 0 } },
	[OP_LEAVE] = { .name = "recv, recv", .min = { 400, 0, 25, 0 } },
};

/* A process is really killed after so many instants of each, at least. */
#define N_KILLS 50u

/* One lane with a publisher and readers that have caught up with it. */
struct stage {
	_Alignas(4096) uint8_t lane[LANE_LEN];
	_Alignas(4096) struct shmb_cursor_segment cursor;
	struct shmb_cursor_lane slots[N_READERS];
	_Alignas(4096) struct shmb_bell_segment bell;
	struct shmb_publisher publisher;
	struct pub_pair pairs[N_READERS];
	struct pub_sleeper sleepers[N_READERS];
	struct shmb_subscriber subscriber;
	struct sub_lane sub_lane;
	struct sub_lane *lanes[1];
	struct shmb_channel channel;
	uint64_t epoch;
	uint8_t fork_guard;
	enum op op;
	int32_t fds[N_FDS]; /* that are sent: ends of @pipes that are written to */
	int32_t taken[N_FDS];
	int32_t result;
	char data[16];
};

static struct stage *stage;
static struct step step;
static uint64_t n_states;
static int pipes[N_FDS][2];
static int sockets[N_READERS][2]; /* ends of the publisher and of the reader */

/* ---- before the call --------------------------------------------------------------------------- */

static void make_publisher(void)
{
	struct shmb_publisher *publisher = &stage->publisher;

	publisher->member.fork_guard = &stage->fork_guard;
	publisher->member.epoch = &stage->epoch;
	publisher->record_len_max = shmb_record_len_max(RING_LEN) - 16;
	publisher->inline_len_max = UINT32_MAX;
	publisher->ext_len = sizeof(struct shmb_record_ext);
	publisher->max_fds = N_FDS;
	publisher->full_sequence = UINT64_MAX;
	shmb_lane_writer_init(&publisher->writer, (void *)stage->lane, RING_LEN);
	publisher->writer.record_flags = (uint32_t)SHMB_RECORD_EXT;
	publisher->writer.limit = 0;
	for (uint32_t i = 0; i < N_READERS; i++) {
		stage->slots[i].pair_id = PAIR_ID;
		stage->pairs[i] = (struct pub_pair){ .id = PAIR_ID,
						     .words = &stage->cursor,
						     .slot = &stage->slots[i],
						     .bell_words = &stage->bell,
						     .attached = true,
						     .lossy = i > 0,
						     .ends = { 1, { sockets[i][0] } } };
		stage->sleepers[i].sleep = &stage->cursor.sleep;
	}
	publisher->pairs = stage->pairs;
	publisher->sleepers = stage->sleepers;
	publisher->n_pairs = publisher->cap_pairs = N_READERS;
}

static void make_subscriber(void)
{
	struct shmb_subscriber *subscriber = &stage->subscriber;

	stage->channel.lane_len = RING_LEN;
	stage->channel.ext_len = sizeof(struct shmb_record_ext);
	stage->channel.max_fds = N_FDS;
	subscriber->member.channel = &stage->channel;
	subscriber->member.fork_guard = &stage->fork_guard;
	subscriber->member.epoch = &stage->epoch;
	subscriber->cursor = &stage->cursor;
	subscriber->ext_len = stage->channel.ext_len;
	subscriber->max_fds = N_FDS;
	subscriber->look = sub_look_extended;
	subscriber->lanes = stage->lanes;
	subscriber->n_lanes = subscriber->cap_lanes = subscriber->n_hot = 1;
	stage->lanes[0] = &stage->sub_lane;
	stage->sub_lane.pair_id = PAIR_ID;
	stage->sub_lane.lane.base = stage->lane;
	stage->sub_lane.slot = &stage->slots[0];
	stage->sub_lane.bell_words = &stage->bell;
	stage->sub_lane.ends = (struct shmb_fds_ends){ 1, { sockets[0][1] } };
	sub_begin_lane(subscriber, &stage->sub_lane, 0, 0);
}

static void close_ends(int side)
{
	for (uint32_t i = 0; i < N_READERS; i++)
		sockets[i][side] = shmb_fd_close(sockets[i][side]);
}

static void close_sent(void)
{
	for (uint32_t i = 0; i < N_FDS; i++)
		pipes[i][1] = shmb_fd_close(pipes[i][1]);
}

static void run_call(void *context)
{
	(void)context;
	if (stage->op == OP_SEND) {
		stage->result = shmb_publisher_send_fds(&stage->publisher, RECORD, sizeof(RECORD),
							0, stage->fds, N_FDS);
		return;
	}
	stage->result = shmb_subscriber_recv(&stage->subscriber, stage->data, sizeof(stage->data));
	if (stage->op == OP_TAKE)
		stage->result = shmb_subscriber_take_fds(&stage->subscriber, stage->taken, N_FDS);
	else
		stage->result =
			shmb_subscriber_recv(&stage->subscriber, stage->data, sizeof(stage->data));
}

/* All of it anew, and a child that has its side of it to itself. */
static void begin(enum op op)
{
	bool sends = op == OP_SEND;

	memset(stage, 0, sizeof(*stage));
	stage->op = op;
	stage->fork_guard = 1;
	for (uint32_t i = 0; i < N_READERS; i++) {
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
			       sockets[i]) < 0)
			step_fail(&step, "socketpair: %s", strerror(errno));
		shutdown(sockets[i][0], SHUT_RD);
	}
	for (uint32_t i = 0; i < N_FDS; i++) {
		if (pipe2(pipes[i], O_CLOEXEC | O_NONBLOCK) < 0)
			step_fail(&step, "pipe2: %s", strerror(errno));
		stage->fds[i] = pipes[i][1];
	}
	make_publisher();
	make_subscriber();
	for (int i = 0; !sends && i < (op == OP_LEAVE ? 2 : 1); i++)
		if (shmb_publisher_send_fds(&stage->publisher, RECORD, sizeof(RECORD), 0,
					    stage->fds, N_FDS) < 0)
			step_fail(&step, "a record cannot be published");
	if (!sends)
		close_sent();
	step_start(&step, run_call, NULL);
	step_begin(&step);
	close_sent();
	close_ends(sends ? 0 : 1);
}

static void end(void)
{
	close_ends(0);
	close_ends(1);
	for (uint32_t i = 0; i < N_FDS; i++)
		shmb_fd_close(pipes[i][0]);
}

/* ---- at each instant --------------------------------------------------------------------------- */

static bool is_published(void)
{
	const struct shmb_lane_segment *lane = (const void *)stage->lane;
	struct shmb_lane_reader reader;
	struct shmb_record record;

	shmb_lane_reader_init(&reader, lane, RING_LEN, 0, 0);
	reader.record_flags = (uint32_t)SHMB_RECORD_EXT;
	return shmb_lane_peek(&reader, &record) == 1;
}

/* Who sees the record must find what it carries. */
static void judge_sent(void)
{
	struct shmb_fds_packet packet;

	n_states++;
	if (!is_published())
		return;
	for (uint32_t i = 0; i < N_READERS; i++) {
		if (recv(sockets[i][1], &packet, sizeof(packet), MSG_PEEK | MSG_DONTWAIT) !=
		    sizeof(packet))
			step_fail(&step, "reader %u sees a record without its packet", i);
		if (packet.number != 1 || packet.n_fds != N_FDS)
			step_fail(&step, "reader %u has packet %llu with %u fds", i,
				  (unsigned long long)packet.number, packet.n_fds);
	}
}

/* ---- after the kill ---------------------------------------------------------------------------- */

static bool is_closed(int reading)
{
	struct pollfd look = { .fd = reading, .events = POLLIN };

	return poll(&look, 1, 0) == 1 && look.revents & POLLHUP;
}

static void check_closed(void)
{
	for (uint32_t i = 0; i < N_FDS; i++)
		if (!is_closed(pipes[i][0]))
			step_fail(&step, "somebody has fd %u still open", i);
}

/* The reader that is left gets the record with its fds, or neither. */
static void check_reader(void)
{
	struct shmb_subscriber *subscriber = &stage->subscriber;
	bool there = is_published();
	int32_t fds[N_FDS], n;
	char data[16];

	n = shmb_subscriber_recv(subscriber, data, sizeof(data));
	if (n != (there ? (int32_t)sizeof(RECORD) : -EAGAIN))
		step_fail(&step, "recv says %d", n);
	n = shmb_subscriber_take_fds(subscriber, fds, N_FDS);
	if (n != (there ? (int32_t)N_FDS : 0))
		step_fail(&step, "%d fds came with the record, not %u", n, there ? N_FDS : 0);
	for (int32_t i = 0; i < n; i++) {
		char byte = (char)('a' + i), got = 0;

		if (write(fds[i], &byte, 1) != 1 || read(pipes[i][0], &got, 1) != 1 || got != byte)
			step_fail(&step, "fd %d is another one", i);
		close(fds[i]);
	}
	/* Of the other one, and what no record names. */
	close_ends(1);
	check_closed();
}

static void check_end(void)
{
	int32_t wanted = stage->op == OP_SEND	? 0
			 : stage->op == OP_TAKE ? (int32_t)N_FDS
						: (int32_t)sizeof(RECORD);

	if (stage->result != wanted)
		step_fail(&step, "the call returned %d", stage->result);
}

/* Kills it after so many instructions; all of them: it has returned. Returns how many it did. */
static uint64_t run(enum op op, uint64_t n_steps)
{
	bool running = true;
	uint64_t n = 0;

	snprintf(step.scenario, sizeof(step.scenario), "%s, kill after %llu", rows[op].name,
		 (unsigned long long)n_steps);
	begin(op);
	while (running && n < n_steps) {
		running = step_next(&step);
		n++;
		if (op == OP_SEND && n_steps == UINT64_MAX)
			judge_sent();
	}
	if (!running)
		check_end();
	step_kill(&step);
	if (op == OP_SEND)
		check_reader();
	else
		check_closed();
	end();
	return n;
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);
	uint64_t n_kills = quick ? 1 + N_KILLS / QUICK_DIVISOR : N_KILLS;

	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (stage == MAP_FAILED)
		return EXIT_FAILURE;
	for (int op = 0; op < N_OPS; op++) {
		uint64_t n = run((enum op)op, UINT64_MAX);

		rows[op].n[STEP_SNAPSHOT] += n;
		for (uint64_t at = 0; at < n; at += 1 + n / n_kills) {
			run((enum op)op, at);
			rows[op].n[STEP_KILL]++;
		}
	}
	printf("kill-fds: %llu states judged\n", (unsigned long long)n_states);
	step_table("kill-fds", rows, N_OPS, quick ? QUICK_DIVISOR : 1);
	return EXIT_SUCCESS;
}
